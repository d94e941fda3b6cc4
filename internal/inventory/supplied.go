package inventory

import (
	"database/sql"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Supply records the key that is to take the place of old, which its owner has made.
// The last one counts. by says who gave it. Errors: Conflict where it is to take the
// place of another.
func Supply(tx *store.Tx, old, next trust.KeyID, by string) error {
	var other trust.KeyID
	err := each(tx, sqlSuppliedFor, []any{tx.Tenant(), next}, func(rows *sql.Rows) error {
		return rows.Scan(&other)
	})
	if err != nil {
		return err
	}
	if other != "" && other != old {
		return trust.Errorf(trust.Conflict, "key %s was supplied to take the place of key %s", next, other).WithHint("keyturn key show %s", other)
	}
	_, err = tx.Exec(sqlSupply, tx.Tenant(), old, next, plainText(by, maxComment), store.Micros(tx.Now()))
	return err
}

// SuppliedFor returns the key that was supplied to take the place of old, or one
// without an id. What was supplied counts until it has taken that place, to the end of a
// run, and was taken away from it again: if it is to come once more, somebody says so. A
// run that is taken back before its end leaves things as they were, this too.
func SuppliedFor(tx *store.Tx, old trust.KeyID) (Key, error) {
	var next trust.KeyID
	err := each(tx, sqlSupplied, []any{tx.Tenant(), old}, func(rows *sql.Rows) error {
		return rows.Scan(&next)
	})
	if err != nil || next == "" {
		return Key{}, err
	}
	return KeyByID(tx, next)
}
