package store

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/trust"
)

// Limits of one statement.
const (
	MaxQuery  = 64 << 10 // bytes of its text
	MaxArgs   = 2000     // parameters
	MaxBinary = 16 << 20 // bytes of one parameter
)

// A Tx is a transaction under way. It belongs to the goroutine that runs fn,
// and ends with it.
//
// After a statement has failed, or the context of the caller has ended, every
// further statement fails the same way, and so does the transaction, whatever
// fn returns: as PostgreSQL has it.
type Tx struct {
	tenant trust.TenantID
	write  bool
	now    time.Time
	event  uuid.UUID
	notes  []audit.Field
	also   []audit.Event // further events

	// Set by the engine for each run of fn.
	conn    conn
	ctx     context.Context // what statements run under
	caller  context.Context // what is asked between statements
	changed bool            // rows, perhaps
	err     error           // why nothing more is executed
	rows    *sql.Rows       // of the last Query, if it is to be looked at
	row     *sql.Row        // of the last QueryRow, if it is to be looked at
}

// A conn is a connection within a transaction: *session of SQLite or
// *pgSession of PostgreSQL.
type conn interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	// explain turns an error of the driver into one of ours.
	explain(err error) error
}

// Tenant returns whose rows the transaction is about: the tenant of the event,
// or of the View.
func (tx *Tx) Tenant() trust.TenantID { return tx.tenant }

// Now returns the one time of the transaction, in UTC and microseconds. It is
// the same when fn runs again.
func (tx *Tx) Now() time.Time { return tx.now }

// Note adds a field to the event that is being written, after those that it
// has. The value must not be personal data.
func (tx *Tx) Note(name, value string) {
	tx.notes = append(tx.notes, audit.Field{Name: name, Value: value})
}

// NotePersonal is Note of a value that says something about a person, and goes when
// that person is erased.
func (tx *Tx) NotePersonal(name, value, person string) {
	tx.notes = append(tx.notes, audit.Field{Name: name, Value: value, Person: person})
}

// Exec runs a statement and returns how many rows it changed.
//
// Arguments are strings, []byte, integers, floats, booleans, nil, types made
// of these, and driver.Valuers that yield them. A time.Time is refused: see
// Micros. A []byte goes into BYTEA columns and a string into TEXT columns
// only: SQLite would not object.
func (tx *Tx) Exec(query string, args ...any) (rows int64, err error) {
	values, err := tx.prepare(query, args)
	if err != nil {
		return 0, err
	}
	if !tx.write {
		return 0, tx.fail(trust.Errorf(trust.Internal, errReadOnly+": %s", clip(query)))
	}
	result, err := tx.conn.ExecContext(tx.ctx, query, values...)
	if err != nil {
		tx.changed = true
		return 0, tx.fail(tx.explain(err))
	}
	rows, err = result.RowsAffected()
	tx.changed = tx.changed || rows != 0 || err != nil
	return rows, err
}

// Query runs a query. Its rows are read to their end or closed before the next
// statement; what is left open is closed when fn returns. A []byte of no bytes
// may come back as nil.
func (tx *Tx) Query(query string, args ...any) (*sql.Rows, error) {
	values, err := tx.prepare(query, args)
	if err != nil {
		return nil, err
	}
	tx.changed = tx.changed || verbOf(query) != "select"
	tx.rows, err = tx.conn.QueryContext(tx.ctx, query, values...)
	if err != nil {
		return nil, tx.fail(tx.explain(err))
	}
	return tx.rows, nil
}

// QueryRow runs a query for one row, which is scanned before the next
// statement. No row is sql.ErrNoRows.
func (tx *Tx) QueryRow(query string, args ...any) *sql.Row {
	values, err := tx.prepare(query, args)
	if err != nil {
		return failedRow(err)
	}
	tx.changed = tx.changed || verbOf(query) != "select"
	tx.row = tx.conn.QueryRowContext(tx.ctx, query, values...)
	if err := tx.row.Err(); err != nil {
		return failedRow(tx.fail(tx.explain(err)))
	}
	return tx.row
}

// explain returns an error of the driver as one of ours.
func (tx *Tx) explain(err error) error {
	return explain(tx.caller, err, tx.conn.explain)
}

// Also writes ev as one more event of the same commit, about the same tenant,
// for changes of which each has an event of its own. What has been noted since
// the last Also belongs to it, and not to the event of the Update. It refuses
// what Update refuses.
func (tx *Tx) Also(ev audit.Event) error {
	switch {
	case !tx.write:
		return trust.Errorf(trust.Internal, "a View has no events: %q", ev.Action)
	case ev.Tenant != tx.tenant:
		return trust.Errorf(trust.Internal, "event %q is of another tenant than its transaction", ev.Action)
	}
	if err := ev.Check(); err != nil {
		return err
	}
	ev.Fields = append(ev.Fields[:len(ev.Fields):len(ev.Fields)], tx.notes...)
	tx.notes = nil
	tx.also = append(tx.also, ev)
	return nil
}

// fail notes why nothing more is executed, and returns it.
func (tx *Tx) fail(err error) error {
	if tx.err == nil {
		tx.err = err
	}
	return err
}

// prepare refuses a statement that must not run, and returns its arguments as
// both drivers take them.
func (tx *Tx) prepare(query string, args []any) ([]any, error) {
	if tx.conn == nil {
		return nil, trust.Errorf(trust.Internal, "the transaction has ended: %s", clip(query))
	}
	if tx.settle(); tx.err != nil {
		return nil, tx.err
	}
	if err := tx.caller.Err(); err != nil {
		return nil, tx.fail(gone(tx.caller))
	}
	if tx.rows != nil {
		return nil, tx.fail(trust.Errorf(trust.Internal, "the rows of the last query are still open: %s", clip(query)))
	}
	switch {
	case len(query) > MaxQuery:
		return nil, tx.fail(trust.Errorf(trust.Exhausted, "statement of %d bytes is longer than %d: %s", len(query), MaxQuery, clip(query)))
	case len(args) > MaxArgs:
		return nil, tx.fail(trust.Errorf(trust.Exhausted, "statement with %d parameters has more than %d: %s", len(args), MaxArgs, clip(query)))
	case verbOf(query) == "":
		return nil, tx.fail(trust.Errorf(trust.Internal, "statement is none of select, insert, update, delete: %s", clip(query)))
	}
	values := make([]any, len(args))
	for i, arg := range args {
		v, err := bind(arg)
		if err != nil {
			if trust.KindOf(err) == trust.Internal { // and not a user's
				err = trust.Errorf(trust.Internal, "parameter $%d %w: %s", i+1, err, clip(query))
			}
			return nil, tx.fail(err)
		}
		values[i] = v
	}
	return values, nil
}

// settle looks after the rows of the last statement: it takes note of the
// error that ended them, and forgets them if they are closed.
func (tx *Tx) settle() {
	if tx.row != nil {
		_ = tx.row.Scan() // closes it, if fn has not scanned it
		tx.row = nil
	}
	if tx.rows == nil {
		return
	}
	if err := tx.rows.Err(); err != nil {
		_ = tx.fail(tx.explain(err))
	}
	if _, err := tx.rows.Columns(); err != nil { // closed
		tx.rows = nil
	}
}

// run runs fn as one attempt on a connection, and returns why it failed: fn's
// error, or that of a statement which fn passed over.
func (tx *Tx) run(ctx, caller context.Context, c conn, fn func(*Tx) error) error {
	tx.conn, tx.ctx, tx.caller = c, ctx, caller
	tx.changed, tx.err, tx.rows, tx.row, tx.notes, tx.also = false, nil, nil, nil, nil, nil
	defer func() {
		tx.closeRows()
		tx.conn = nil
	}()
	err := fn(tx)
	tx.closeRows()
	if err == nil {
		err = tx.err
	}
	return tx.explain(err)
}

// closeRows closes what the last statement left open.
func (tx *Tx) closeRows() {
	tx.settle()
	if tx.rows != nil {
		_ = tx.rows.Close()
		tx.rows = nil
	}
}

// verbOf returns what a statement begins with where it reads or changes rows, and
// "" for one that is about tables, settings or the transaction itself.
func verbOf(query string) string {
	query = strings.TrimLeft(query, " \t\r\n")
	for strings.HasPrefix(query, "--") {
		_, query, _ = strings.Cut(query, "\n")
		query = strings.TrimLeft(query, " \t\r\n")
	}
	word := query
	if i := strings.IndexAny(query, " \t\r\n("); i >= 0 {
		word = query[:i]
	}
	for _, verb := range []string{"select", "insert", "update", "delete", "with", "values"} {
		if strings.EqualFold(word, verb) {
			return verb
		}
	}
	return ""
}

// bind returns an argument in one of the forms that both drivers store alike. What it says
// of a text or of data can reach who sent them.
func bind(arg any) (driver.Value, error) {
	v, err := driver.DefaultParameterConverter.ConvertValue(arg)
	if err != nil {
		return nil, trust.Errorf(trust.Internal, "is of type %T", arg)
	}
	switch v := v.(type) {
	case time.Time:
		return nil, trust.Errorf(trust.Internal, "is a time.Time: use store.Micros")
	case string:
		if len(v) > MaxBinary {
			return nil, trust.Errorf(trust.Exhausted, "a text of %d bytes is longer than %d", len(v), MaxBinary)
		}
		if !utf8.ValidString(v) || strings.IndexByte(v, 0) >= 0 {
			return nil, trust.Errorf(trust.Invalid, "%.80q is not UTF-8 text without NUL", v)
		}
	case []byte:
		if len(v) > MaxBinary {
			return nil, trust.Errorf(trust.Exhausted, "data of %d bytes are longer than %d", len(v), MaxBinary)
		}
	}
	return v, nil
}

// failedRow returns a row whose Scan returns err.
func failedRow(err error) *sql.Row {
	db := sql.OpenDB(failedConnector{err})
	defer db.Close()
	return db.QueryRow("")
}

// failedConnector is a database that cannot be reached, for its error.
type failedConnector struct{ err error }

func (f failedConnector) Connect(context.Context) (driver.Conn, error) { return nil, f.err }
func (f failedConnector) Driver() driver.Driver                        { return nil }
