package job

import (
	"database/sql"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// values returns n groups of SQL expressions, of which each begins with common
// and goes on with parameters of its own: width of them, numbered from first on.
func values(n int, common string, first, width int) string {
	var b strings.Builder
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString("(" + common)
		for j := range width {
			b.WriteString(",$" + strconv.Itoa(first+i*width+j))
		}
		b.WriteByte(')')
	}
	return b.String()
}

// insertTargets writes the targets of one list.
func insertTargets(tx *store.Tx, run trust.RunID, list List, targets []Target) error {
	const most = 50 // SQLite binds parameters in quadratic time
	for from := 0; from < len(targets); from += most {
		some := targets[from:min(from+most, len(targets))]
		args := append(make([]any, 0, 3+4*most), tx.Tenant(), run, list)
		for i, t := range some {
			args = append(args, from+i, t.Host, t.Name, string(t.Spec))
		}
		_, err := tx.Exec(`INSERT INTO job_targets (tenant, run, list, left_at, left_by, n, host, name, spec) VALUES `+
			values(len(some), "$1,$2,$3,0,''", 4, 4), args...)
		if err != nil {
			return err
		}
	}
	return nil
}

const targetColumns = `t.n, t.host, t.name, t.spec, t.left_at`

// scanTarget reads targetColumns, and more after them.
func scanTarget(rows *sql.Rows, tb table, list List, more ...any) (Target, error) {
	t, spec, left := Target{List: list}, "", int64(0)
	err := rows.Scan(append([]any{&t.N, &t.Host, &t.Name, &spec, &left}, more...)...)
	t.Wave, t.Left = tb.wave(list, t.N), left > 0
	if spec != "" {
		t.Spec = json.RawMessage(spec)
	}
	return t, err
}

// selectTargets returns up to a page of a list's targets, from number from on.
func selectTargets(tx *store.Tx, r Run, list List, from int) ([]Target, error) {
	rows, err := tx.Query(`SELECT `+targetColumns+` FROM job_targets t
		WHERE t.tenant = $1 AND t.run = $2 AND t.list = $3 AND t.n >= $4 ORDER BY t.n LIMIT $5`,
		r.Tenant, r.ID, list, from, page)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []Target
	for rows.Next() {
		t, err := scanTarget(rows, r.table, list)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// work is a target that is to go through the row of a stage.
type work struct {
	Target
	attempt int // 1 for the first
	tries   int // how often in succession it was unavailable so far
}

// selectFresh returns up to limit targets of a stage, from number from on, that
// have not been begun there: on the way back, of those that were begun on the
// way forward. Those that were left are among them where the stage is a parting. It
// looks at as many as limit, returns where to go on, and whether there are more to
// look at.
//
// These are two reads of a range of keys each, and not one of what is in one
// table and not in the other, because PostgreSQL plans that before it knows how
// large the tables are.
func selectFresh(tx *store.Tx, r record, s stage, parting bool, from, limit int) (fresh []work, next int, more bool, err error) {
	_, hi := r.table.span(s)
	list := r.table.Rows[s.row].On
	query := `SELECT ` + targetColumns + ` FROM job_targets t
		WHERE t.tenant = $1 AND t.run = $2 AND t.list = $3 AND t.n >= $4 AND t.n < $5 ORDER BY t.n LIMIT $6`
	args := []any{r.tenant, r.id, list, from, hi, limit}
	if r.direction == Backward {
		query = `SELECT ` + targetColumns + ` FROM job_journal f
			CROSS JOIN job_targets t WHERE t.tenant = f.tenant AND t.run = f.run AND t.list = $3 AND t.n = f.n
			AND f.tenant = $1 AND f.run = $2 AND f.direction = 'forward' AND f.pos = $7 AND f.n >= $4 AND f.n < $5
			ORDER BY f.n LIMIT $6`
		args = append(args, s.row)
	}
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, 0, false, err
	}
	defer rows.Close()
	var seen []Target
	for rows.Next() {
		t, err := scanTarget(rows, r.table, list)
		if err != nil {
			return nil, 0, false, err
		}
		seen = append(seen, t)
	}
	if err := rows.Err(); err != nil || len(seen) == 0 {
		return nil, hi, false, err
	}
	next = seen[len(seen)-1].N + 1
	begun, err := selectBegun(tx, r, s, from, next)
	for _, t := range seen {
		if (!t.Left || parting) && !begun[t.N] {
			fresh = append(fresh, work{Target: t, attempt: 1})
		}
	}
	return fresh, next, len(seen) == limit, err
}

// selectBegun returns which targets of a stage, from number from up to, not
// including, to, have been begun there.
func selectBegun(tx *store.Tx, r record, s stage, from, to int) (map[int]bool, error) {
	rows, err := tx.Query(`SELECT n FROM job_journal WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4
		AND n >= $5 AND n < $6`, r.tenant, r.id, r.direction, s.row, from, to)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	begun := map[int]bool{}
	for rows.Next() {
		var n int
		if err := rows.Scan(&n); err != nil {
			return nil, err
		}
		begun[n] = true
	}
	return begun, rows.Err()
}

// What waits, and its cells. A CROSS JOIN, which is what SQLite reads in the
// order in which it is written: begin with the few that wait.
const (
	dueCells = `FROM job_due d CROSS JOIN job_journal j`
	sameCell = `j.tenant = d.tenant AND j.run = d.run AND j.direction = d.direction AND j.pos = d.pos AND j.n = d.n`
)

// selectRetries returns up to limit targets of a stage whose time to be tried
// again has come, the longest overdue first.
func selectRetries(tx *store.Tx, r record, s stage, limit int) ([]work, error) {
	lo, hi := r.table.span(s)
	list := r.table.Rows[s.row].On
	rows, err := tx.Query(`SELECT `+targetColumns+`, j.attempt, j.tries `+dueCells+`
		CROSS JOIN job_targets t WHERE t.tenant = d.tenant AND t.run = d.run AND t.list = $3 AND t.n = d.n
		AND `+sameCell+` AND d.tenant = $1 AND d.run = $2 AND d.direction = $6 AND d.pos = $7 AND d.next_at <= $8
		AND d.n >= $4 AND d.n < $5
		ORDER BY d.next_at, d.n LIMIT $9`,
		r.tenant, r.id, list, lo, hi, r.direction, s.row, store.Micros(tx.Now()), limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []work
	for rows.Next() {
		var w work
		if w.Target, err = scanTarget(rows, r.table, list, &w.attempt, &w.tries); err != nil {
			return nil, err
		}
		w.attempt++
		all = append(all, w)
	}
	return all, rows.Err()
}

// nextRetry returns when a target of a stage will be due again that is not yet.
func nextRetry(tx *store.Tx, r record, s stage) (time.Time, error) {
	lo, hi := r.table.span(s)
	var next int64
	err := tx.QueryRow(`SELECT next_at FROM job_due WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4
		AND next_at > $7 AND next_at < $8 AND n >= $5 AND n < $6 ORDER BY next_at LIMIT 1`,
		r.tenant, r.id, r.direction, s.row, lo, hi, store.Micros(tx.Now()), never).Scan(&next)
	if errors.Is(err, sql.ErrNoRows) {
		return time.Time{}, nil
	}
	return store.Time(next), err
}

// insertIntents notes that some targets are going to be in a row. It returns
// how many were noted: a target that is in flight or done is not.
func insertIntents(tx *store.Tx, r record, s stage, some []work) (int64, error) {
	args := append(make([]any, 0, 6+2*len(some)), tx.Tenant(), r.id, r.direction, s.row, r.epoch, store.Micros(tx.Now()))
	var again []int
	for _, w := range some {
		args = append(args, w.N, w.attempt)
		if w.attempt > 1 {
			again = append(again, w.N)
		}
	}
	if err := deleteDue(tx, r, s, again); err != nil {
		return 0, err
	}
	return tx.Exec(`INSERT INTO job_journal (tenant, run, direction, pos, epoch, intended_at, state, tries, done_at, error, result, n, attempt)
		VALUES `+values(len(some), "$1,$2,$3,$4,$5,$6,'intended',0,0,'',''", 7, 2)+`
		ON CONFLICT (tenant, run, direction, pos, n) DO UPDATE SET state = 'intended', epoch = excluded.epoch,
			attempt = excluded.attempt, intended_at = excluded.intended_at
		WHERE job_journal.state = 'waiting'`, args...)
}

// deleteDue forgets that some targets of a stage wait.
func deleteDue(tx *store.Tx, r record, s stage, some []int) error {
	if len(some) == 0 {
		return nil
	}
	args := []any{tx.Tenant(), r.id, r.direction, s.row}
	list := ""
	for _, n := range some {
		args = append(args, n)
		list += ",$" + strconv.Itoa(len(args))
	}
	_, err := tx.Exec(`DELETE FROM job_due WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4 AND n IN (`+list[1:]+`)`, args...)
	return err
}

// An outcome is how an attempt ended.
type outcome struct {
	state  CellState
	tries  int
	next   int64       // when it is due again, if it waits
	behind trust.RunID // for whose end it does
	reason string
	result json.RawMessage // nil: as it was
}

// updateOutcome writes how an attempt ended, and reports whether it was still
// the business of the given claim.
func updateOutcome(tx *store.Tx, r record, s stage, n int, state CellState, o outcome) (bool, error) {
	rows, err := tx.Exec(`UPDATE job_journal SET state = $7, tries = $8, error = $9, done_at = $10,
			result = CASE WHEN $11 = '' THEN result ELSE $11 END
		WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4 AND n = $5 AND epoch = $6 AND state = 'intended'`,
		r.tenant, r.id, r.direction, s.row, n, r.epoch,
		state, o.tries, o.reason, store.Micros(tx.Now()), string(o.result))
	switch {
	case err != nil, rows != 1:
		return false, err
	case state == CellFailed:
		o.next = never
	case state != CellWaiting:
		return true, nil
	}
	if o.behind != "" {
		other, err := selectRun(tx, o.behind)
		if err != nil && trust.KindOf(err) != trust.NotFound {
			return false, err
		}
		if err == nil && !other.state.Open() {
			o.next = store.Micros(tx.Now()) // it has ended since
		}
	}
	_, err = tx.Exec(`INSERT INTO job_due (tenant, run, direction, pos, n, next_at, behind) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		r.tenant, r.id, r.direction, s.row, n, o.next, o.behind)
	return true, err
}

// wakeBehind makes what waits for the end of a run due, and has runs that are being
// worked on look at it.
func wakeBehind(tx *store.Tx, ended trust.RunID) error {
	const waits = `tenant = $1 AND behind = $2 AND behind <> ''`
	now := store.Micros(tx.Now())
	_, err := tx.Exec(`UPDATE job_runs SET wake_at = $3, asked = asked + 1, revision = revision + 1
		WHERE tenant = $1 AND state IN ('running', 'waiting') AND id IN (SELECT run FROM job_due WHERE `+waits+`)`, tx.Tenant(), ended, now)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE job_due SET next_at = $3, behind = '' WHERE `+waits, tx.Tenant(), ended, now)
	return err
}

// isLeft reports whether a target has been left.
func isLeft(tx *store.Tx, run trust.RunID, list List, n int) (bool, error) {
	var left int64
	err := tx.QueryRow(`SELECT left_at FROM job_targets WHERE tenant = $1 AND run = $2 AND list = $3 AND n = $4`,
		tx.Tenant(), run, list, n).Scan(&left)
	return left > 0, err
}

// requeue makes what an engine had in flight that has lost its claim, or its
// life, due again. Only the stage that a run has reached can be in flight.
func requeue(tx *store.Tx, r record) (int64, error) {
	if r.at == top {
		return 0, nil
	}
	again := int64(0)
	for _, d := range []Direction{Forward, Backward} {
		rows, err := tx.Exec(`UPDATE job_journal SET state = CASE WHEN EXISTS (
				SELECT 1 FROM job_targets t WHERE t.tenant = job_journal.tenant AND t.run = job_journal.run
				AND t.list = $5 AND t.n = job_journal.n AND t.left_at > 0) THEN 'left' ELSE 'waiting' END
			WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4 AND state = 'intended'`,
			r.tenant, r.id, d, r.at.row, r.table.Rows[r.at.row].On)
		if err != nil {
			return 0, err
		}
		again += rows
		r.direction = d
		if err := requeueDue(tx, r); err != nil {
			return 0, err
		}
	}
	return again, nil
}

// retryNow makes the failed and the waiting targets of the stage that a run has
// reached due at once.
func retryNow(tx *store.Tx, r record) error {
	if r.at == top {
		return nil
	}
	lo, hi := r.table.span(r.at)
	stage := `tenant = $1 AND run = $2 AND direction = $3 AND pos = $4 AND n >= $5 AND n < $6`
	key := []any{r.tenant, r.id, r.direction, r.at.row, lo, hi}
	_, err := tx.Exec(`UPDATE job_journal SET state = 'waiting', tries = 0 WHERE `+stage+`
		AND n IN (SELECT n FROM job_due WHERE `+stage+`)`, key...)
	if err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE job_due SET next_at = $7 WHERE `+stage, append(key, store.Micros(tx.Now()))...)
	return err
}

// requeueDue makes every waiting target of the row that a run has reached due,
// those that were not.
func requeueDue(tx *store.Tx, r record) error {
	_, err := tx.Exec(`INSERT INTO job_due (tenant, run, direction, pos, n, next_at, behind)
		SELECT tenant, run, direction, pos, n, $5, '' FROM job_journal
		WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4 AND state = 'waiting'
		ON CONFLICT (tenant, run, direction, pos, n) DO NOTHING`,
		r.tenant, r.id, r.direction, r.at.row, store.Micros(tx.Now()))
	return err
}

// A standing is what is not done of a stage.
type standing struct {
	unfinished  int   // cells that are neither done nor left
	waiting     int   // of these, those that are due at a time
	unavailable int   // of these, those that did not answer
	next        int64 // when the first of them is due
	example     string
	why         string // the sentence of the example
}

// selectStanding counts what is begun and not done of a stage.
func selectStanding(tx *store.Tx, r record, s stage) (st standing, err error) {
	lo, hi := r.table.span(s)
	var next, unavailable sql.NullInt64
	key := []any{r.tenant, r.id, r.direction, s.row, lo, hi}
	key = key[:len(key):len(key)]
	err = tx.QueryRow(`SELECT COUNT(*), MIN(d.next_at), SUM(CASE WHEN j.tries > 0 THEN 1 ELSE 0 END) `+dueCells+`
		WHERE `+sameCell+` AND d.tenant = $1 AND d.run = $2 AND d.direction = $3 AND d.pos = $4 AND d.n >= $5 AND d.n < $6
		AND d.next_at < $7`,
		append(key, never)...).Scan(&st.waiting, &next, &unavailable)
	if err != nil {
		return st, err
	}
	st.next, st.unavailable = next.Int64, int(unavailable.Int64)
	if st.waiting == 0 {
		err = tx.QueryRow(`SELECT COUNT(*) FROM job_journal WHERE tenant = $1 AND run = $2 AND direction = $3
			AND pos = $4 AND n >= $5 AND n < $6 AND state NOT IN ('done', 'left')`, key...).Scan(&st.unfinished)
		return st, err
	}
	st.unfinished = st.waiting
	err = tx.QueryRow(`SELECT t.name, j.error `+dueCells+`
		CROSS JOIN job_targets t WHERE t.tenant = d.tenant AND t.run = d.run AND t.list = $7 AND t.n = d.n
		AND `+sameCell+` AND d.tenant = $1 AND d.run = $2 AND d.direction = $3 AND d.pos = $4 AND d.n >= $5 AND d.n < $6
		ORDER BY d.next_at, d.n LIMIT 1`,
		append(key, r.table.Rows[s.row].On)...).Scan(&st.example, &st.why)
	return st, err
}

// selectResult returns what a step saved for a target: on the way back if it
// did, else on the way forward; or sql.ErrNoRows.
func selectResult(tx *store.Tx, run trust.RunID, at place) (json.RawMessage, error) {
	var result string
	err := tx.QueryRow(`SELECT result FROM job_journal WHERE tenant = $1 AND run = $2 AND direction IN ('back', 'forward')
		AND pos = $3 AND n = $4 AND result <> '' ORDER BY direction LIMIT 1`, tx.Tenant(), run, at.pos, at.n).Scan(&result)
	return json.RawMessage(result), err
}

// anyBegun reports whether a target was begun on the way forward in a row from
// first to last.
func anyBegun(tx *store.Tx, run trust.RunID, first, last int) (bool, error) {
	return exists(tx, `SELECT 1 FROM job_journal WHERE tenant = $1 AND run = $2 AND direction = 'forward'
		AND pos >= $3 AND pos <= $4 LIMIT 1`, tx.Tenant(), run, first, last)
}

// exists reports whether a query has a row.
func exists(tx *store.Tx, query string, args ...any) (bool, error) {
	var one int
	err := tx.QueryRow(query, args...).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// selectMatching returns up to limit targets of a run that match w.
func selectMatching(tx *store.Tx, r record, w Which, limit int) ([]Target, error) {
	query := `SELECT t.list, ` + targetColumns + ` FROM job_targets t WHERE t.tenant = $1 AND t.run = $2`
	args := []any{r.tenant, r.id}
	param := func(v any) string {
		args = append(args, v)
		return "$" + strconv.Itoa(len(args))
	}
	switch {
	case w == Which{}:
		return nil, trust.Errorf(trust.Invalid, "leave which place of run %q?", r.id)
	case w.Unreachable && r.at == top:
		return nil, nil
	case w.Unreachable:
		lo, hi := r.table.span(r.at)
		// A place is in several lists under one name, and is left in all of them.
		query += ` AND t.name IN (SELECT t.name ` + dueCells + ` CROSS JOIN job_targets t WHERE t.tenant = $1 AND t.run = $2` +
			` AND ` + sameCell + ` AND d.tenant = t.tenant AND d.run = t.run AND t.n = d.n` +
			` AND t.list = ` + param(r.table.Rows[r.at.row].On) + ` AND d.direction = ` + param(r.direction) +
			` AND d.pos = ` + param(r.at.row) + ` AND d.n >= ` + param(lo) + ` AND d.n < ` + param(hi) + ` AND j.tries > 0 AND d.behind = '')`
	}
	if w.Name != "" {
		query += ` AND t.name = ` + param(w.Name)
	}
	if w.Host != "" {
		query += ` AND t.host = ` + param(w.Host)
	}
	rows, err := tx.Query(query+` ORDER BY t.list, t.n LIMIT `+param(limit), args...)
	if err != nil {
		return nil, err
	}
	return scanTargets(rows, r.table)
}

// hasFinished reports whether a target has been through all rows of its list:
// on the way back, whether everything of it was undone.
func hasFinished(tx *store.Tx, r record, t Target) (bool, error) {
	last := -1
	for i, row := range r.table.Rows {
		if row.On != t.List || slices.Contains(r.skipped, row.Name) {
			continue
		}
		if r.direction == Forward {
			last = i
		} else if last < 0 && row.Undo {
			last = i
		}
	}
	return exists(tx, `SELECT 1 FROM job_journal WHERE tenant = $1 AND run = $2 AND direction = $3 AND pos = $4
		AND n = $5 AND state = 'done'`, r.tenant, r.id, r.direction, last, t.N)
}

// passTarget writes that a run has passed a target over.
func passTarget(tx *store.Tx, run trust.RunID, t Target) error {
	_, err := tx.Exec(`UPDATE job_targets SET passed = 1 WHERE tenant = $1 AND run = $2 AND list = $3 AND n = $4`,
		tx.Tenant(), run, t.List, t.N)
	return err
}

// leaveTarget leaves a target. What it has in flight ends first.
func leaveTarget(tx *store.Tx, r record, t Target, actor audit.Actor) error {
	_, err := tx.Exec(`UPDATE job_targets SET left_at = $5, left_by = $6
		WHERE tenant = $1 AND run = $2 AND list = $3 AND n = $4`,
		r.tenant, r.id, t.List, t.N, store.Micros(tx.Now()), formatActor(actor))
	if err != nil || r.at == top || r.table.Rows[r.at.row].On != t.List {
		return err
	}
	_, err = tx.Exec(`UPDATE job_journal SET state = 'left' WHERE tenant = $1 AND run = $2 AND direction = $3
		AND pos = $4 AND n = $5 AND state IN ('waiting', 'failed')`, r.tenant, r.id, r.direction, r.at.row, t.N)
	if err != nil {
		return err
	}
	return deleteDue(tx, r, r.at, []int{t.N})
}
