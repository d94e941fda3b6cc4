package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"regexp"

	"modernc.org/sqlite"

	"keyturn/internal/trust"
)

// maxStatements bounds the statements that one connection keeps prepared.
const maxStatements = 256

// A sqliteConn is a connection that keeps its statements prepared. database/sql can keep
// them as well, but there each may be run by many goroutines, on many connections: the
// locks and counts for that are a quarter of a query for one row.
type sqliteConn struct {
	driverConn
	stmts map[string]driverStmt
}

// openDB returns the database of a name, whose connections keep their statements prepared.
func openDB(dsn string) (*sql.DB, error) {
	c, err := sqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector{c}), nil
}

// A driverConn is what the driver's connections are.
type driverConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.SessionResetter
	driver.Validator
	sqlite.HookRegisterer
}

type driverStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

type connector struct{ driver.Connector }

func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	known, ok := conn.(driverConn)
	if !ok {
		return nil, trust.Errorf(trust.Internal, "SQLite driver has other connections: %T", conn)
	}
	return &sqliteConn{known, map[string]driverStmt{}}, nil
}

func (c *sqliteConn) Close() error {
	c.forget()
	return c.driverConn.Close()
}

func (c *sqliteConn) forget() {
	for query, stmt := range c.stmts {
		_ = stmt.Close()
		delete(c.stmts, query)
	}
}

func (c *sqliteConn) prepared(query string) (driverStmt, error) {
	if stmt, ok := c.stmts[query]; ok {
		return stmt, nil
	}
	if len(c.stmts) >= maxStatements {
		c.forget()
	}
	stmt, err := c.Prepare(planOnce(query))
	if err != nil {
		return nil, err
	}
	c.stmts[query] = stmt.(driverStmt)
	return c.stmts[query], nil
}

func (c *sqliteConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	stmt, err := c.prepared(query)
	if err != nil {
		return nil, err
	}
	return stmt.ExecContext(ctx, args)
}

func (c *sqliteConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	stmt, err := c.prepared(query)
	if err != nil {
		return nil, err
	}
	return stmt.QueryContext(ctx, args)
}

var limitParameter = regexp.MustCompile(`\bLIMIT (\$[0-9]+)`)

// planOnce returns a query that SQLite prepares once. It plans by the value of
// a parameter that is a limit, and so prepares such a statement anew whenever
// one is bound, which takes longer than most of them; the sum of a parameter
// and 0 it takes as it comes (sqlite3ExprIsInteger in its expr.c).
func planOnce(query string) string {
	return limitParameter.ReplaceAllString(query, "LIMIT 0 + $1")
}
