package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/pressly/goose/v3"

	"keyturn/internal/trust"
)

// Migrations are plain SQL that runs unchanged on both engines, one file for
// each step, and go up only: the way back is a backup.
//
// There is one order, by the number in the file name. Every owner of tables
// has a band of numbers, so gaps are normal, and a number below the highest
// one applied is applied when it appears; therefore a migration touches only
// tables of its owner. Two files of one number are refused, and so is a
// database that has a migration which this program does not have, or has with
// another text.
//
// goose runs them, each in one transaction, and counts them in its own table;
// schema_migrations holds beside it the name and the SHA-256 of each, written
// in the same transaction.

// A migration is one file.
type migration struct {
	version int64
	name    string
	sql     string
	sum     string // SHA-256 of sql in hex
}

var migrationName = regexp.MustCompile(`^[0-9]{5}_[a-z0-9]+(_[a-z0-9]+)+\.sql$`)

// migrations returns the migrations of all owners in their order.
func migrations(owners []fs.FS) ([]migration, error) {
	byNumber := map[int64]migration{}
	for _, owner := range owners {
		for _, dir := range []string{".", "migrations"} {
			entries, err := fs.ReadDir(owner, dir)
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, fmt.Errorf("read migrations: %w", err)
			}
			for _, entry := range entries {
				if entry.IsDir() || path.Ext(entry.Name()) != ".sql" {
					continue
				}
				m, err := readMigration(owner, path.Join(dir, entry.Name()))
				if err != nil {
					return nil, err
				}
				if other, ok := byNumber[m.version]; ok && other != m {
					return nil, trust.Errorf(trust.Internal, "migrations %q and %q have one number", other.name, m.name)
				}
				byNumber[m.version] = m
			}
		}
	}
	var list []migration
	for _, m := range byNumber {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b migration) int { return int(a.version - b.version) })
	return list, nil
}

func readMigration(owner fs.FS, file string) (migration, error) {
	name := path.Base(file)
	if !migrationName.MatchString(name) {
		return migration{}, trust.Errorf(trust.Internal, "migration %q is not named NNNNN_owner_what.sql", name)
	}
	text, err := fs.ReadFile(owner, file)
	if err != nil {
		return migration{}, fmt.Errorf("read migration: %w", err)
	}
	if strings.Contains(string(text), "+goose Down") {
		return migration{}, trust.Errorf(trust.Internal, "migration %q has a way down, which would run on the way up", name)
	}
	version, err := strconv.ParseInt(name[:5], 10, 64)
	if err != nil || version == 0 {
		return migration{}, trust.Errorf(trust.Internal, "migration %q has no number", name)
	}
	sum := sha256.Sum256(text)
	return migration{version: version, name: name, sql: string(text), sum: hex.EncodeToString(sum[:])}, nil
}

const createMigrations = `CREATE TABLE IF NOT EXISTS schema_migrations (
	version BIGINT NOT NULL PRIMARY KEY,
	name    TEXT   NOT NULL,
	sha256  TEXT   NOT NULL
)`

// migrate brings the tables of db up to date. Nobody else does so meanwhile:
// that is its caller's care. before, where it is not empty, runs first in the
// transaction of each migration.
func migrate(ctx context.Context, db *sql.DB, dialect goose.Dialect, list []migration, before string) error {
	if _, err := db.ExecContext(ctx, createMigrations); err != nil {
		return err
	}
	if err := known(ctx, db, list); err != nil {
		return err
	}
	var steps []*goose.Migration
	for _, m := range list {
		steps = append(steps, goose.NewGoMigration(m.version, &goose.GoFunc{RunTx: func(ctx context.Context, tx *sql.Tx) error {
			if _, err := tx.ExecContext(ctx, before+m.sql); err != nil {
				return fmt.Errorf("migration %q: %w", m.name, err)
			}
			_, err := tx.ExecContext(ctx, `INSERT INTO schema_migrations (version, name, sha256) VALUES ($1, $2, $3)`, m.version, m.name, m.sum)
			return err
		}}, nil))
	}
	provider, err := goose.NewProvider(dialect, db, nil,
		goose.WithGoMigrations(steps...), goose.WithDisableGlobalRegistry(true),
		goose.WithAllowOutofOrder(true), goose.WithLogger(goose.NopLogger()))
	if err != nil {
		return err
	}
	_, err = provider.Up(ctx)
	return err
}

// known refuses a database that is not a stage of the schema in list.
func known(ctx context.Context, db *sql.DB, list []migration) error {
	rows, err := db.QueryContext(ctx, `SELECT version, name, sha256 FROM schema_migrations ORDER BY version`)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var m migration
		if err := rows.Scan(&m.version, &m.name, &m.sum); err != nil {
			return err
		}
		i := slices.IndexFunc(list, func(l migration) bool { return l.version == m.version })
		switch {
		case i < 0:
			return trust.Errorf(trust.Conflict, "database has migration %q, which this keyturn does not know", m.name).
				WithHint("run the keyturn that wrote this database, or a newer one")
		case list[i].name != m.name || list[i].sum != m.sum:
			return trust.Errorf(trust.Conflict, "database has migration %q with another text than this keyturn", m.name).
				WithHint("run the keyturn that wrote this database, or restore a backup")
		}
	}
	return rows.Err()
}
