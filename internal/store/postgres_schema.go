package store

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"

	"keyturn/internal/trust"
)

// Row security is the second wall between tenants, behind the WHERE of every
// query: each transaction names its tenant in keyturn.tenant, and the policy
// of every table with a column "tenant" shows it, and lets it write, the rows
// of that tenant only; for System, "*", all of them. A transaction that names
// none sees nothing. It binds the owner of the tables too, but no superuser
// and no role with BYPASSRLS.

// forTenant returns the statement that names the tenant of a transaction.
func forTenant(tenant trust.TenantID) string {
	if tenant == System {
		return "SET LOCAL keyturn.tenant = '*'"
	}
	return "SET LOCAL keyturn.tenant = '" + string(tenant) + "'" // hex: View and Update have looked
}

// unguarded lists the tables of this schema with a column "tenant" whose rows
// are not walled off.
const unguarded = `
SELECT quote_ident(c.relname) FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
AND NOT (c.relrowsecurity AND c.relforcerowsecurity
	AND EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'keyturn_tenant'))
ORDER BY 1`

// guard walls off the rows of a table. The sub-selects are evaluated once for
// a query instead of once for a row.
const guard = `
DROP POLICY IF EXISTS keyturn_tenant ON %[1]s;
CREATE POLICY keyturn_tenant ON %[1]s USING (
	tenant = (SELECT current_setting('keyturn.tenant', true))
	OR (SELECT current_setting('keyturn.tenant', true)) = '*');
ALTER TABLE %[1]s ENABLE ROW LEVEL SECURITY;
ALTER TABLE %[1]s FORCE ROW LEVEL SECURITY`

// migrationLock is the advisory lock that a node holds while it migrates.
const migrationLock = 0x6b657974 // "keyt"

// migratePostgres brings the database up to date. Other nodes that start wait.
func migratePostgres(ctx context.Context, config *pgx.ConnConfig, list []migration) error {
	db := stdlib.OpenDB(*config)
	defer db.Close()
	c, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	var encoding string
	if err := c.QueryRowContext(ctx, `SHOW server_encoding`).Scan(&encoding); err != nil {
		return err
	}
	if encoding != "UTF8" {
		return trust.Errorf(trust.Invalid, "its encoding is %q, not UTF8", encoding).
			WithHint("make it with: createdb --encoding=UTF8 --template=template0 NAME")
	}
	// The lock goes with the connection, at the latest.
	if _, err := c.ExecContext(ctx, `SELECT pg_advisory_lock($1)`, migrationLock); err != nil {
		return err
	}
	if err := migrate(ctx, db, goose.DialectPostgres, list, forTenant(System)+";\n"); err != nil {
		return err
	}
	return guardTables(ctx, c)
}

func guardTables(ctx context.Context, c *sql.Conn) error {
	rows, err := c.QueryContext(ctx, unguarded)
	if err != nil {
		return err
	}
	defer rows.Close()
	var tables []string
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return err
		}
		tables = append(tables, name)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, name := range tables {
		if _, err := c.ExecContext(ctx, fmt.Sprintf("BEGIN;"+guard+"; COMMIT", name)); err != nil {
			return fmt.Errorf("row security of table %s: %w", name, err)
		}
	}
	return nil
}
