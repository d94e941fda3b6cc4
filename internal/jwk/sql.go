package jwk

import (
	"database/sql"
	"embed"
	"errors"
	"time"

	"keyturn/internal/store"
)

// Schema is this package's part of the database.
//
//go:embed migrations/*.sql
var Schema embed.FS

// The queries on the tables of this package.
const (
	sqlPublished = `SELECT id, kid, certificate, created, until FROM jwks WHERE tenant = $1 AND (until = 0 OR until > $2)
		ORDER BY CASE WHEN until = 0 THEN 0 ELSE 1 END, created DESC, id DESC`
	sqlInsertKey  = `INSERT INTO jwks (tenant, id, kid, certificate, created, until) VALUES ($1, $2, $3, $4, $5, 0)`
	sqlRetire     = `UPDATE jwks SET until = $3 WHERE tenant = $1 AND id = $2`
	sqlDropEnded  = `DELETE FROM jwks WHERE tenant = $1 AND until > 0 AND until <= $2`
	sqlDays       = `SELECT days FROM jwk_terms WHERE tenant = $1`
	sqlUpsertDays = `INSERT INTO jwk_terms (tenant, days) VALUES ($1, $2) ON CONFLICT (tenant) DO UPDATE SET days = excluded.days`
)

// selectPublished returns the key that signs, and then the others, newest first.
func selectPublished(tx *store.Tx) (list []Key, err error) {
	rows, err := tx.Query(sqlPublished, tx.Tenant(), store.Micros(tx.Now()))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var k Key
		var created, until int64
		if err := rows.Scan(&k.ID, &k.KID, &k.Certificate, &created, &until); err != nil {
			return nil, err
		}
		k.Created, k.Until = store.Time(created), store.Time(until)
		list = append(list, k)
	}
	return list, rows.Err()
}

func insertKey(tx *store.Tx, k Key) error {
	_, err := tx.Exec(sqlInsertKey, tx.Tenant(), k.ID, k.KID, k.Certificate, store.Micros(k.Created))
	return err
}

func retire(tx *store.Tx, id string, until time.Time) error {
	_, err := tx.Exec(sqlRetire, tx.Tenant(), id, store.Micros(until))
	return err
}

func deleteEnded(tx *store.Tx) error {
	_, err := tx.Exec(sqlDropEnded, tx.Tenant(), store.Micros(tx.Now()))
	return err
}

func selectDays(tx *store.Tx) (days int, err error) {
	err = tx.QueryRow(sqlDays, tx.Tenant()).Scan(&days)
	if errors.Is(err, sql.ErrNoRows) {
		return DefaultDays, nil
	}
	return days, err
}

func upsertDays(tx *store.Tx, days int) error {
	_, err := tx.Exec(sqlUpsertDays, tx.Tenant(), days)
	return err
}
