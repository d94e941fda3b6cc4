package inventory

import (
	"database/sql"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// MaxNumbered is how many numbered keys a tenant has at most when another is made:
// whoever lists them gets all of them at once.
const MaxNumbered = 10_000

// A NumberedKey is a key that has a number as well, for clients that know keys by
// one.
type NumberedKey struct {
	// Number counts from 1 in each tenant, and is never given to another key,
	// not after its own is deleted either.
	Number int64
	// By is the name that whoever had the key made had then.
	By string
	Key
}

// NumberKey gives a key the next number of its tenant. Errors: Conflict where it has
// one; Exhausted where there are MaxNumbered.
//
// To count them takes the longer the more there are. So it is done when as many were
// given since the last count as there was room for then, and not each time.
func NumberKey(tx *store.Tx, k Key, by string) (NumberedKey, error) {
	n := NumberedKey{By: plainText(by, maxComment), Key: k}
	room := 0
	if err := tx.QueryRow(sqlNextNumber, tx.Tenant(), MaxNumbered-1).Scan(&n.Number, &room); err != nil {
		return n, err
	}
	if room < 0 {
		there := 0
		if err := tx.QueryRow(sqlCountNumbered, tx.Tenant()).Scan(&there); err != nil {
			return n, err
		}
		if there >= MaxNumbered {
			return n, trust.Errorf(trust.Exhausted, "there are %d numbered keys, and no more are made", there).
				WithHint("delete some that lie nowhere: keyturn key list")
		}
		if _, err := tx.Exec(sqlSetRoom, tx.Tenant(), MaxNumbered-there-1); err != nil {
			return n, err
		}
	}
	_, err := tx.Exec(sqlAddNumber, tx.Tenant(), n.Number, k.ID, n.By)
	return n, err
}

// NumberedKeys returns every numbered key, by number, but for those that are deleted
// and those that were taken out of use so long ago that nothing is kept of them.
func NumberedKeys(tx *store.Tx) ([]NumberedKey, error) {
	var list []NumberedKey
	var ids []trust.KeyID
	err := each(tx, sqlNumbered+` ORDER BY n.number`, []any{tx.Tenant()}, func(rows *sql.Rows) error {
		var n NumberedKey
		err := rows.Scan(&n.Number, &n.By, &n.ID)
		list, ids = append(list, n), append(ids, n.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	keys, err := keysByID(tx, ids)
	for i := range list {
		list[i].Key = keys[list[i].ID]
	}
	return list, err
}

// NumberedKeyOf returns the key of a number, if NumberedKeys has it, or a NotFound
// error.
func NumberedKeyOf(tx *store.Tx, number int64) (n NumberedKey, err error) {
	err = tx.QueryRow(sqlNumbered+` AND n.number = $2`, tx.Tenant(), number).Scan(&n.Number, &n.By, &n.ID)
	if err != nil {
		return n, missing(err, trust.Errorf(trust.NotFound, "there is no key of the number %d", number).WithHint("keyturn key list"))
	}
	n.Key, err = KeyByID(tx, n.ID)
	return n, err
}
