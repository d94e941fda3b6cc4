package inventory

import (
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A query is a statement under construction. Placeholders are written "?" and
// numbered as they are added, as both engines want them.
type query struct {
	text  strings.Builder
	args  []any
	where bool
}

// newQuery begins a statement on the rows of tx's tenant: sql ends before its
// WHERE, and table is the table, or its alias, whose tenant counts.
func newQuery(tx *store.Tx, sql, table string) *query {
	q := new(query)
	q.add(sql)
	q.and(table+".tenant = ?", string(tx.Tenant()))
	return q
}

// newQueryOf begins a statement on those rows of tx's tenant whose column is
// among values: sql goes on behind "FROM wanted", which is the list of them, as
// in "SELECT … FROM wanted CROSS JOIN …". SQLite takes the tables of a CROSS
// JOIN in the order in which they are written; of its own accord it may read
// all rows of a tenant rather than look up many values, because it does not
// know how many rows a tenant has.
func newQueryOf[S ~string](tx *store.Tx, values []S, sql, table, column string) *query {
	q := &query{args: []any{tx.Tenant()}}
	q.add("WITH wanted (id) AS (VALUES ")
	for i, v := range values {
		if i > 0 {
			q.add(", ")
		}
		q.add("(?)", v)
	}
	q.add(") " + sql)
	q.and(table + ".tenant = $1 AND " + table + "." + column + " = wanted.id")
	return q
}

// add appends sql as it is.
func (q *query) add(sql string, args ...any) {
	rest := sql
	for _, arg := range args {
		before, after, ok := strings.Cut(rest, "?")
		if !ok {
			panic("inventory: more arguments than placeholders in " + sql)
		}
		q.args = append(q.args, arg)
		q.text.WriteString(before + "$" + strconv.Itoa(len(q.args)))
		rest = after
	}
	q.text.WriteString(rest)
}

// and adds a condition.
func (q *query) and(condition string, args ...any) {
	word := " AND "
	if !q.where {
		word, q.where = " WHERE ", true
	}
	q.add(word+condition, args...)
}

// among adds the condition that column is one of values, if there are any.
func among[S ~string](q *query, column string, values []S) {
	if len(values) == 0 {
		return
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	q.and(column+" IN ("+marks(len(values))+")", args...)
}

// marks returns n placeholders with commas between them.
func marks(n int) string { return strings.TrimSuffix(strings.Repeat("?,", n), ",") }

// rows runs q and hands each row to scan.
func (q *query) rows(tx *store.Tx, scan func(*sql.Rows) error) (err error) {
	return each(tx, q.text.String(), q.args, scan)
}

// each runs a query and hands each row to scan. scan must not use tx.
func each(tx *store.Tx, text string, args []any, scan func(*sql.Rows) error) (err error) {
	rows, err := tx.Query(text, args...)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := rows.Close(); err == nil {
			err = cerr
		}
	}()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// contains returns a LIKE pattern, with the escape character "\", for text
// anywhere in a value that is in lower case.
func contains(text string) string {
	return "%" + literal(text) + "%"
}

// literal returns a LIKE pattern, with the same escape character, for a value that is
// text in lower case.
func literal(text string) string {
	return strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(strings.ToLower(text))
}

// checkText refuses what nobody looks for.
func checkText(text string) error {
	if len(text) > 256 || !isPlainText(text) {
		return trust.Errorf(trust.Invalid, "text to search for is longer than 256 bytes, or not printable").WithField("text")
	}
	return nil
}

// chunks calls fn with at most 500 of values at a time: both engines have a
// limit to placeholders.
func chunks[T any](values []T, fn func([]T) error) error {
	for len(values) > 0 {
		n := min(len(values), 500)
		if err := fn(values[:n]); err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

// missing turns "no such row" into err, and leaves other errors be.
func missing(err error, instead error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return instead
	}
	return err
}

// one runs a statement that must change exactly one row, or reports whether it
// changed none.
func one(tx *store.Tx, text string, args ...any) (found bool, err error) {
	n, err := tx.Exec(text, args...)
	if err != nil {
		return false, err
	}
	if n > 1 {
		return false, fmt.Errorf("inventory: %d rows changed where one was meant", n)
	}
	return n == 1, nil
}
