package job

import (
	"database/sql"
	"encoding/json"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// What is read of the journal to be shown: cells, and how many there are.

// selectCells returns up to limit cells of a row in one direction, from number
// from on.
func selectCells(tx *store.Tx, r Run, pos int, d Direction, from, limit int) ([]Cell, error) {
	rows, err := tx.Query(`SELECT `+cellColumns+` FROM job_journal j CROSS JOIN job_targets t LEFT JOIN job_due d ON `+sameCell+`
		WHERE `+targetOfCell+` AND j.tenant = $1 AND j.run = $2 AND j.direction = $4 AND j.pos = $5 AND j.n >= $6
		ORDER BY j.n LIMIT $7`, r.Tenant, r.ID, r.table.Rows[pos].On, d, pos, from, limit)
	return scanCells(rows, err, r, pos, d)
}

// selectTroubled returns up to limit cells of a row in one direction that have
// failed or wait: the failed ones first, then those that are due first.
func selectTroubled(tx *store.Tx, r Run, pos int, d Direction, limit int) ([]Cell, error) {
	rows, err := tx.Query(`SELECT `+cellColumns+` `+dueCells+` CROSS JOIN job_targets t
		WHERE `+targetOfCell+` AND `+sameCell+` AND d.tenant = $1 AND d.run = $2 AND d.direction = $4 AND d.pos = $5
		ORDER BY CASE WHEN d.next_at = $6 THEN 0 ELSE d.next_at END, d.n LIMIT $7`,
		r.Tenant, r.ID, r.table.Rows[pos].On, d, pos, never, limit)
	return scanCells(rows, err, r, pos, d)
}

const (
	cellColumns  = targetColumns + `, j.state, j.attempt, j.intended_at, j.done_at, d.next_at, j.error, j.result`
	targetOfCell = `t.tenant = j.tenant AND t.run = j.run AND t.list = $3 AND t.n = j.n`
)

// scanCells reads cellColumns.
func scanCells(rows *sql.Rows, err error, r Run, pos int, d Direction) (all []Cell, _ error) {
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		c := Cell{Step: r.table.Rows[pos].Name, Direction: d}
		var intended, ended int64
		var next sql.NullInt64
		var result string
		if c.Target, err = scanTarget(rows, r.table, r.table.Rows[pos].On, &c.State, &c.Attempt, &intended, &ended, &next, &c.Error, &result); err != nil {
			return nil, err
		}
		c.Intended, c.Ended = store.Time(intended), store.Time(ended)
		if c.State == CellWaiting {
			c.Next = store.Time(next.Int64)
		}
		if result != "" {
			c.Result = json.RawMessage(result)
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// countCells counts the cells of a row in one direction, from number lo up to,
// not including, hi, whatever their state: a range of the key.
func countCells(tx *store.Tx, r record, pos int, d Direction, lo, hi int) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM job_journal WHERE tenant = $1 AND run = $2 AND direction = $3
		AND pos = $4 AND n >= $5 AND n < $6`, r.tenant, r.id, d, pos, lo, hi).Scan(&n)
	return n, err
}

// countDue counts the targets of a row that wait, and those that have failed.
func countDue(tx *store.Tx, r record, pos int, d Direction, lo, hi int) (waiting, failed int, err error) {
	err = tx.QueryRow(`SELECT COUNT(CASE WHEN next_at < $7 THEN 1 END), COUNT(CASE WHEN next_at = $7 THEN 1 END) FROM job_due
		WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4 AND n >= $5 AND n < $6`,
		r.tenant, r.id, d, pos, lo, hi, never).Scan(&waiting, &failed)
	return waiting, failed, err
}

// countLeftCells counts the cells of a row that were left before they were done.
func countLeftCells(tx *store.Tx, r record, pos int, d Direction, lo, hi int) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(*) FROM job_targets t CROSS JOIN job_journal j
		WHERE t.tenant = $1 AND t.run = $2 AND t.left_at > 0 AND t.list = $7 AND t.n >= $5 AND t.n < $6
		AND j.tenant = t.tenant AND j.run = t.run AND j.direction = $3 AND j.pos = $4 AND j.n = t.n AND j.state = 'left'`,
		r.tenant, r.id, d, pos, lo, hi, r.table.Rows[pos].On).Scan(&n)
	return n, err
}

// selectLeft returns up to limit targets that were left, of every list.
func selectLeft(tx *store.Tx, r Run, limit int) ([]Target, error) {
	rows, err := tx.Query(`SELECT t.list, `+targetColumns+` FROM job_targets t
		WHERE t.tenant = $1 AND t.run = $2 AND t.left_at > 0 ORDER BY t.list, t.n LIMIT $3`, r.Tenant, r.ID, limit)
	if err != nil {
		return nil, err
	}
	return scanTargets(rows, r.table)
}

// scanTargets reads rows of a list's name and targetColumns.
func scanTargets(rows *sql.Rows, tb table) (all []Target, err error) {
	defer rows.Close()
	for rows.Next() {
		var t Target
		var spec string
		var left int64
		if err := rows.Scan(&t.List, &t.N, &t.Host, &t.Name, &spec, &left); err != nil {
			return nil, err
		}
		t.Wave, t.Left = tb.wave(t.List, t.N), left > 0
		if spec != "" {
			t.Spec = json.RawMessage(spec)
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// countLeft counts the targets that were left, by name: what is in several
// lists is one.
func countLeft(tx *store.Tx, run trust.RunID) (n int, err error) {
	err = tx.QueryRow(`SELECT COUNT(DISTINCT name) FROM job_targets WHERE tenant = $1 AND run = $2 AND left_at > 0`,
		tx.Tenant(), run).Scan(&n)
	return n, err
}

// countMissed counts the targets of a row, below number hi, that were left
// before they were done in it: on the way back, of those that were begun on the
// way forward.
func countMissed(tx *store.Tx, r record, d Direction, pos, hi int) (n int, err error) {
	query := `SELECT COUNT(*) FROM job_targets t
		WHERE t.tenant = $1 AND t.run = $2 AND t.left_at > 0 AND t.list = $3 AND t.n < $4
		AND NOT EXISTS (SELECT 1 FROM job_journal j WHERE j.tenant = t.tenant AND j.run = t.run
			AND j.direction = $6 AND j.pos = $5 AND j.n = t.n AND j.state = 'done')`
	if d == Backward {
		query += ` AND EXISTS (SELECT 1 FROM job_journal f WHERE f.tenant = t.tenant AND f.run = t.run
			AND f.direction = 'forward' AND f.pos = $5 AND f.n = t.n)`
	}
	err = tx.QueryRow(query, r.tenant, r.id, r.table.Rows[pos].On, hi, pos, d).Scan(&n)
	return n, err
}
