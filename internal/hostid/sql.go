package hostid

import (
	"database/sql"
	"embed"
	"errors"
	"time"

	"keyturn/internal/authority"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema is this package's part of the database.
//
//go:embed migrations/*.sql
var Schema embed.FS

// The queries on the table of seeds.
const (
	sqlSeeds = `SELECT id, state, since, announced, left_at, before, run_id, overlap, retention, keep, created, asked_by
		FROM seeds WHERE tenant = $1 ORDER BY created, id`
	sqlAddSeed = `INSERT INTO seeds (tenant, id, state, since, announced, left_at, before, run_id, overlap, retention, keep, created, asked_by)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`
	sqlSetSeed = `UPDATE seeds SET state = $3, since = $4, announced = $5, left_at = $6, before = $7, run_id = $8, overlap = $9, retention = $10, keep = $11
		WHERE tenant = $1 AND id = $2`
	sqlDropSeed = `DELETE FROM seeds WHERE tenant = $1 AND id = $2`
)

// Load returns the seeds of the tenant of tx.
func Load(tx *store.Tx) (Seeds, error) {
	rows, err := tx.Query(sqlSeeds, tx.Tenant())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list Seeds
	for rows.Next() {
		var x Seed
		var since, announced, left, overlap, retention, keep, created int64
		if err := rows.Scan(&x.ID, &x.State, &since, &announced, &left, &x.Before, &x.Run, &overlap, &retention, &keep, &created, &x.By); err != nil {
			return nil, err
		}
		x.Since, x.Announced, x.Left = store.Time(since), store.Time(announced), store.Time(left)
		x.Keep, x.Created = store.Time(keep), store.Time(created)
		x.Overlap, x.Retention = time.Duration(overlap)*time.Microsecond, time.Duration(retention)*time.Microsecond
		list = append(list, x)
	}
	return list, rows.Err()
}

func addSeed(tx *store.Tx, x Seed) error {
	_, err := tx.Exec(sqlAddSeed, tx.Tenant(), x.ID, x.State, store.Micros(x.Since), store.Micros(x.Announced), store.Micros(x.Left), x.Before, x.Run,
		x.Overlap.Microseconds(), x.Retention.Microseconds(), store.Micros(x.Keep), store.Micros(x.Created), x.By)
	return err
}

func setSeed(tx *store.Tx, x Seed) error {
	_, err := tx.Exec(sqlSetSeed, tx.Tenant(), x.ID, x.State, store.Micros(x.Since), store.Micros(x.Announced), store.Micros(x.Left), x.Before, x.Run,
		x.Overlap.Microseconds(), x.Retention.Microseconds(), store.Micros(x.Keep))
	return err
}

func dropSeed(tx *store.Tx, id trust.SeedID) error {
	_, err := tx.Exec(sqlDropSeed, tx.Tenant(), id)
	return err
}

// The queries on the table of host certificates.
const (
	sqlCertificate = `SELECT serial FROM host_certificates WHERE tenant = $1 AND seed = $2 AND host = $3 AND algorithm = $4 AND authority = $5`

	sqlSetCertificate = `INSERT INTO host_certificates (tenant, seed, host, algorithm, authority, serial) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (tenant, seed, host, algorithm, authority) DO UPDATE SET serial = excluded.serial`
)

func certificateSerial(tx *store.Tx, i Identity, ca authority.Authority) (uint64, error) {
	var serial int64
	err := tx.QueryRow(sqlCertificate, tx.Tenant(), i.Seed, i.Host, i.Key.Type(), ca.ID).Scan(&serial)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return uint64(serial), err
}

func setCertificate(tx *store.Tx, i Identity, ca authority.Authority, serial uint64) error {
	_, err := tx.Exec(sqlSetCertificate, tx.Tenant(), i.Seed, i.Host, i.Key.Type(), ca.ID, int64(serial))
	return err
}
