package keyring

import (
	"database/sql"
	"errors"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

const (
	rootID = "root"
	dataID = "data"
)

// selectRoot returns the root keyset, or a zero root.
func selectRoot(tx *store.Tx) (r root, err error) {
	var created, rotated int64
	err = tx.QueryRow(`SELECT wrapper, wrapped, seed, created, rotated FROM keysets WHERE tenant = $1 AND id = $2`,
		trust.Installation, rootID).Scan(&r.name, &r.wrapped, &r.seed, &created, &rotated)
	if errors.Is(err, sql.ErrNoRows) {
		return root{}, nil
	}
	r.since = store.Time(max(created, rotated))
	return r, err
}

func insertRoot(tx *store.Tx, kek KEK, wrapped []byte) error {
	_, err := tx.Exec(`INSERT INTO keysets (tenant, id, wrapper, wrapped, seed, created) VALUES ($1, $2, $3, $4, $5, $6)`,
		trust.Installation, rootID, kek.name, wrapped, kek.seed, store.Micros(tx.Now()))
	return err
}

// updateRoot changes nothing unless kek.after is what wraps the root keyset.
func updateRoot(tx *store.Tx, kek KEK, wrapped []byte) (rows int64, err error) {
	return tx.Exec(`UPDATE keysets SET wrapper = $3, wrapped = $4, seed = $5, rotated = $6 WHERE tenant = $1 AND id = $2 AND wrapper = $7`,
		trust.Installation, rootID, kek.name, wrapped, kek.seed, store.Micros(tx.Now()), kek.after)
}

// selectData returns the data keyset of the tenant of tx, or sql.ErrNoRows.
func selectData(tx *store.Tx) (wrapped []byte, err error) {
	err = tx.QueryRow(`SELECT wrapped FROM keysets WHERE tenant = $1 AND id = $2`, tx.Tenant(), dataID).Scan(&wrapped)
	return wrapped, err
}

func insertData(tx *store.Tx, wrapped []byte) error {
	_, err := tx.Exec(`INSERT INTO keysets (tenant, id, wrapper, wrapped, created) VALUES ($1, $2, $3, $4, $5)`,
		tx.Tenant(), dataID, rootID, wrapped, store.Micros(tx.Now()))
	return err
}

func updateData(tx *store.Tx, wrapped []byte) error {
	_, err := tx.Exec(`UPDATE keysets SET wrapped = $3, rotated = $4 WHERE tenant = $1 AND id = $2`, tx.Tenant(), dataID, wrapped, store.Micros(tx.Now()))
	return err
}

// selectDataSince returns since when the data key of the tenant of tx seals that
// does now, or zero if nothing has been sealed yet.
func selectDataSince(tx *store.Tx) (time.Time, error) {
	var created, rotated int64
	err := tx.QueryRow(`SELECT created, rotated FROM keysets WHERE tenant = $1 AND id = $2`, tx.Tenant(), dataID).Scan(&created, &rotated)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return store.Time(max(created, rotated)), err
}

// selectPrivate returns a private key and what its tenant's keyset is wrapped
// as, or sql.ErrNoRows.
func selectPrivate(tx *store.Tx, id trust.KeyID) (public, sealed, keyset []byte, err error) {
	err = tx.QueryRow(`SELECT p.public, p.sealed, k.wrapped FROM private_keys p
		JOIN keysets k ON k.tenant = p.tenant AND k.id = $3
		WHERE p.tenant = $1 AND p.id = $2`, tx.Tenant(), id, dataID).Scan(&public, &sealed, &keyset)
	return public, sealed, keyset, err
}

// selectPublic returns the public half of a stored private key, or
// sql.ErrNoRows.
func selectPublic(tx *store.Tx, id trust.KeyID) (public []byte, err error) {
	err = tx.QueryRow(`SELECT public FROM private_keys WHERE tenant = $1 AND id = $2`, tx.Tenant(), id).Scan(&public)
	return public, err
}

// selectHeld returns ids of stored private keys, in their order.
func selectHeld(tx *store.Tx, after trust.KeyID, limit int) (ids []trust.KeyID, err error) {
	rows, err := tx.Query(`SELECT id FROM private_keys WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`, tx.Tenant(), after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id trust.KeyID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// insertPrivate stores a private key, unless there is one of that id.
func insertPrivate(tx *store.Tx, id trust.KeyID, public, sealed []byte) (rows int64, err error) {
	return tx.Exec(`INSERT INTO private_keys (tenant, id, public, sealed, created, revealed) VALUES ($1, $2, $3, $4, $5, 0)
		ON CONFLICT (tenant, id) DO NOTHING`, tx.Tenant(), id, public, sealed, store.Micros(tx.Now()))
}

func markRevealed(tx *store.Tx, id trust.KeyID) error {
	_, err := tx.Exec(`UPDATE private_keys SET revealed = $3 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, store.Micros(tx.Now()))
	return err
}

func deletePrivate(tx *store.Tx, id trust.KeyID) error {
	_, err := tx.Exec(`DELETE FROM private_keys WHERE tenant = $1 AND id = $2`, tx.Tenant(), id)
	return err
}

// selectReadyIDs returns the keys of a size that lie ready for the tenant of tx, oldest
// first.
func selectReadyIDs(tx *store.Tx, bits int) (ids []string, err error) {
	rows, err := tx.Query(`SELECT id, public FROM ready_keys WHERE tenant = $1 ORDER BY created, id`, tx.Tenant())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var r readyRow
		if err := rows.Scan(&r.id, &r.public); err != nil {
			return nil, err
		}
		if r.bits() == bits {
			ids = append(ids, r.id)
		}
	}
	return ids, rows.Err()
}

// A readyRow is a key that lies ready, and what its tenant's keyset is wrapped as.
type readyRow struct {
	id                     string
	public, sealed, keyset []byte
}

// bits returns the size of a key, or 0 of what is none.
func (r readyRow) bits() int {
	public, err := trust.ParsePublicKeyBlob(r.public)
	if err != nil {
		return 0
	}
	return public.Bits()
}

// firstReady returns the oldest key of a size that lies ready for the tenant of tx and is
// wanted, or none.
func firstReady(tx *store.Tx, bits int, wanted func(id string) bool) (r readyRow, err error) {
	rows, err := tx.Query(`SELECT r.id, r.public, r.sealed, k.wrapped FROM ready_keys r
		JOIN keysets k ON k.tenant = r.tenant AND k.id = $2
		WHERE r.tenant = $1 ORDER BY r.created, r.id`, tx.Tenant(), dataID)
	if err != nil {
		return r, err
	}
	defer rows.Close()
	for rows.Next() {
		if err := rows.Scan(&r.id, &r.public, &r.sealed, &r.keyset); err != nil {
			return readyRow{}, err
		}
		if r.bits() == bits && wanted(r.id) {
			return r, nil
		}
	}
	return readyRow{}, rows.Err()
}

func insertReady(tx *store.Tx, id string, public, sealed []byte) error {
	_, err := tx.Exec(`INSERT INTO ready_keys (tenant, id, public, sealed, created) VALUES ($1, $2, $3, $4, $5)`,
		tx.Tenant(), id, public, sealed, store.Micros(tx.Now()))
	return err
}

func deleteReady(tx *store.Tx, id string) (rows int64, err error) {
	return tx.Exec(`DELETE FROM ready_keys WHERE tenant = $1 AND id = $2`, tx.Tenant(), id)
}

func selectSealed(tx *store.Tx, kind, id string) (sealed, keyset []byte, err error) {
	err = tx.QueryRow(`SELECT s.sealed, k.wrapped FROM sealed_values s
		JOIN keysets k ON k.tenant = s.tenant AND k.id = $4
		WHERE s.tenant = $1 AND s.kind = $2 AND s.id = $3`, tx.Tenant(), kind, id, dataID).Scan(&sealed, &keyset)
	return sealed, keyset, err
}

func upsertSealed(tx *store.Tx, kind, id string, sealed []byte) error {
	_, err := tx.Exec(`INSERT INTO sealed_values (tenant, kind, id, sealed, created) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, kind, id) DO UPDATE SET sealed = excluded.sealed, created = excluded.created`,
		tx.Tenant(), kind, id, sealed, store.Micros(tx.Now()))
	return err
}

func deleteSealed(tx *store.Tx, kind, id string) error {
	_, err := tx.Exec(`DELETE FROM sealed_values WHERE tenant = $1 AND kind = $2 AND id = $3`, tx.Tenant(), kind, id)
	return err
}

// selectPerson returns a person's wrapped key, nil for one that was erased, and
// what the tenant's keyset is wrapped as; or sql.ErrNoRows.
func selectPerson(tx *store.Tx, person string) (wrapped, keyset []byte, err error) {
	err = tx.QueryRow(`SELECT p.wrapped, k.wrapped FROM person_keys p
		JOIN keysets k ON k.tenant = p.tenant AND k.id = $3
		WHERE p.tenant = $1 AND p.person = $2`, tx.Tenant(), person, dataID).Scan(&wrapped, &keyset)
	return wrapped, keyset, err
}

func insertPerson(tx *store.Tx, person string, wrapped []byte) error {
	_, err := tx.Exec(`INSERT INTO person_keys (tenant, person, wrapped, created, erased) VALUES ($1, $2, $3, $4, 0)`,
		tx.Tenant(), person, wrapped, store.Micros(tx.Now()))
	return err
}

func erasePerson(tx *store.Tx, person string) error {
	_, err := tx.Exec(`INSERT INTO person_keys (tenant, person, wrapped, created, erased) VALUES ($1, $2, NULL, $3, $3)
		ON CONFLICT (tenant, person) DO UPDATE SET wrapped = NULL, erased = excluded.erased`,
		tx.Tenant(), person, store.Micros(tx.Now()))
	return err
}
