package job

import (
	"cmp"
	"database/sql"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema holds the migrations of this package's tables.
//
//go:embed migrations/*.sql
var Schema embed.FS

// never is when a run wakes that waits for another run, and when a target is due
// that has failed.
const never = 1<<63 - 1

// A record is a row of job_runs.
type record struct {
	tenant    trust.TenantID
	id        trust.RunID
	procedure string
	subject   string
	args      json.RawMessage
	table     table
	actor     audit.Actor
	state     State
	direction Direction
	at        stage // the last one of which a target was begun, or top
	begun     int   // targets of that stage below this number have all been begun
	flying    int   // targets whose intent is written, and no outcome
	skipped   []string
	reason    string
	backOf    trust.RunID
	backBy    trust.RunID
	backArgs  json.RawMessage // for Reverse
	line      int64           // place in the line of open runs: see Run.Ahead
	asked     int64
	askedBy   audit.Actor
	owner     string
	epoch     int64
	beat      int64
	revision  int64
	wake      int64
	approveBy int64 // until when somebody has to approve of it; 0: nobody has to
	created   time.Time
	started   time.Time
	ended     time.Time
}

const runColumns = `tenant, id, procedure, subject, args, plan, actor, state, direction, pos, wave, begun, flying, skipped,
	reason, back_of, back_by, asked, asked_by, owner, epoch, beat, revision, wake_at, created_at, started_at, ended_at, back_args, line, approve_by`

// openStates are the states of State.Open, in the words of the index job_runs_line.
const openStates = `state IN ('running', 'waiting', 'paused', 'held')`

// inFlight reports whether something of a run may be in flight.
func (r record) inFlight() bool { return r.owner != "" && r.flying > 0 }

// scan reads the columns runColumns.
func (r *record) scan(scan func(...any) error) error {
	var args, plan, actor, skipped, askedBy, backArgs string
	var created, started, ended int64
	err := scan(&r.tenant, &r.id, &r.procedure, &r.subject, &args, &plan, &actor, &r.state, &r.direction,
		&r.at.row, &r.at.wave, &r.begun, &r.flying, &skipped, &r.reason, &r.backOf, &r.backBy, &r.asked, &askedBy,
		&r.owner, &r.epoch, &r.beat, &r.revision, &r.wake, &created, &started, &ended, &backArgs, &r.line, &r.approveBy)
	if err != nil {
		return err
	}
	r.args, r.actor, r.askedBy, r.backArgs = json.RawMessage(args), parseActor(actor), parseActor(askedBy), json.RawMessage(backArgs)
	r.created, r.started, r.ended = store.Time(created), store.Time(started), store.Time(ended)
	if err := json.Unmarshal([]byte(plan), &r.table); err != nil {
		return fmt.Errorf("plan of run %q: %w", r.id, err)
	}
	if err := json.Unmarshal([]byte(skipped), &r.skipped); err != nil {
		return fmt.Errorf("skipped rows of run %q: %w", r.id, err)
	}
	return nil
}

// selectRun returns a run of the transaction's tenant, or a NotFound error.
func selectRun(tx *store.Tx, id trust.RunID) (record, error) {
	var r record
	err := r.scan(tx.QueryRow(`SELECT `+runColumns+` FROM job_runs WHERE tenant = $1 AND id = $2`, tx.Tenant(), id).Scan)
	return r, unknown(id, err)
}

// unknown says of a run of which there is no row that it is not there, and
// leaves other errors be.
func unknown(id trust.RunID, err error) error {
	if errors.Is(err, sql.ErrNoRows) {
		return trust.Errorf(trust.NotFound, "there is no run %q", id).WithHint("keyturn run list")
	}
	return err
}

// revisionOf returns the revision and the state of a run, or a NotFound error.
func revisionOf(tx *store.Tx, id trust.RunID) (revision int64, state State, err error) {
	err = tx.QueryRow(`SELECT revision, state FROM job_runs WHERE tenant = $1 AND id = $2`, tx.Tenant(), id).Scan(&revision, &state)
	return revision, state, unknown(id, err)
}

// selectRuns returns up to limit runs that match, those with the greatest ids
// below after first.
func selectRuns(tx *store.Tx, f Filter, after trust.RunID, limit int) ([]record, error) {
	query, args := `SELECT `+runColumns+` FROM job_runs WHERE tenant = $1`, []any{tx.Tenant()}
	where := func(column, operator string, v any) {
		args = append(args, v)
		query += " AND " + column + " " + operator + " $" + strconv.Itoa(len(args))
	}
	if after != "" {
		where("id", "<", after)
	}
	if f.Procedure != "" {
		where("procedure", "=", f.Procedure)
	}
	if f.Subject != "" {
		where("subject", "=", f.Subject)
	}
	for i, state := range f.States {
		if i == 0 {
			query += " AND state IN ("
		} else {
			query += ", "
		}
		args = append(args, state)
		query += "$" + strconv.Itoa(len(args))
	}
	if len(f.States) > 0 {
		query += ")"
	}
	args = append(args, limit)
	rows, err := tx.Query(query+" ORDER BY id DESC LIMIT $"+strconv.Itoa(len(args)), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []record
	for rows.Next() {
		var r record
		if err := r.scan(rows.Scan); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func insertRun(tx *store.Tx, r record) error {
	plan, skipped, err := r.encode()
	if err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO job_runs (`+runColumns+`) VALUES
		($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26, $27, $28, $29, $30)`,
		r.tenant, r.id, r.procedure, r.subject, string(r.args), plan, formatActor(r.actor), r.state, r.direction,
		r.at.row, r.at.wave, r.begun, r.flying, skipped, r.reason, r.backOf, r.backBy, r.asked, formatActor(r.askedBy),
		r.owner, r.epoch, r.beat, r.revision, r.wake, store.Micros(r.created), store.Micros(r.started), store.Micros(r.ended), orNull(r.backArgs), r.line, r.approveBy)
	return err
}

// updateRun writes what may change of a run that was read in the same
// transaction, and raises its revision.
func updateRun(tx *store.Tx, r record) error {
	_, skipped, err := r.encode()
	if err != nil {
		return err
	}
	rows, err := tx.Exec(`UPDATE job_runs SET state = $3, direction = $4, pos = $5, wave = $6, begun = $7, skipped = $8,
		reason = $9, back_by = $10, asked = $11, asked_by = $12, owner = $13, epoch = $14, beat = $15,
		wake_at = $16, started_at = $17, ended_at = $18, flying = $19, back_args = $20, line = $21, approve_by = $23,
		revision = revision + 1 WHERE tenant = $1 AND id = $2 AND revision = $22`,
		r.tenant, r.id, r.state, r.direction, r.at.row, r.at.wave, r.begun, skipped,
		r.reason, r.backBy, r.asked, formatActor(r.askedBy), r.owner, r.epoch, r.beat,
		r.wake, store.Micros(r.started), store.Micros(r.ended), r.flying, orNull(r.backArgs), r.line, r.revision, r.approveBy)
	if err == nil && rows != 1 {
		err = fmt.Errorf("run %q is not as it was read in the same transaction", r.id)
	}
	return err
}

func (r record) encode() (plan, skipped string, err error) {
	p, err := json.Marshal(r.table)
	if err != nil {
		return "", "", err
	}
	if r.skipped == nil {
		r.skipped = []string{}
	}
	s, err := json.Marshal(r.skipped)
	return string(p), string(s), err
}

// orNull returns JSON as a column holds it.
func orNull(v json.RawMessage) string { return cmp.Or(string(v), "null") }

// formatActor returns an actor as a column holds it: without personal data.
func formatActor(a audit.Actor) string { return a.Kind + ":" + a.ID }

func parseActor(s string) audit.Actor {
	kind, id, _ := strings.Cut(s, ":")
	return audit.Actor{Kind: kind, ID: id}
}

// A claimable is a run with something to do, and whose it is.
type claimable struct {
	tenant trust.TenantID
	id     trust.RunID
	owner  string
	epoch  int64
	beat   int64
}

// selectDue returns up to limit runs that want work now, those first that have
// waited longest, and when the next one will that waits for a time (0: none).
func selectDue(tx *store.Tx, limit int) (due []claimable, next int64, err error) {
	now := store.Micros(tx.Now())
	rows, err := tx.Query(`SELECT tenant, id, owner, epoch, beat FROM job_runs
		WHERE state IN ('running', 'waiting') AND wake_at <= $1 ORDER BY wake_at, id LIMIT $2`, now, limit)
	if err != nil {
		return nil, 0, err
	}
	defer rows.Close()
	for rows.Next() {
		var c claimable
		if err := rows.Scan(&c.tenant, &c.id, &c.owner, &c.epoch, &c.beat); err != nil {
			return nil, 0, err
		}
		due = append(due, c)
	}
	if err := rows.Err(); err != nil {
		return nil, 0, err
	}
	var first sql.NullInt64
	err = tx.QueryRow(`SELECT MIN(wake_at) FROM job_runs WHERE state = 'waiting' AND wake_at > $1`, now).Scan(&first)
	return due, first.Int64, err
}

// beatRun marks the owner of a claim as living. It reports whether the claim
// stands and nothing was asked of the run since asked.
func beatRun(tx *store.Tx, id trust.RunID, epoch, asked int64) (bool, error) {
	rows, err := tx.Exec(`UPDATE job_runs SET beat = beat + 1 WHERE tenant = $1 AND id = $2 AND epoch = $3 AND asked = $4`,
		tx.Tenant(), id, epoch, asked)
	return rows == 1, err
}

// advanceRun is beatRun for a running run that has come to a stage, of which
// all targets below number begun are begun.
func advanceRun(tx *store.Tx, id trust.RunID, epoch, asked int64, s stage, begun, flying int) (bool, error) {
	rows, err := tx.Exec(`UPDATE job_runs SET beat = beat + 1, revision = revision + 1, pos = $5, wave = $6, begun = $7, flying = $8,
		started_at = CASE WHEN started_at = 0 THEN $9 ELSE started_at END
		WHERE tenant = $1 AND id = $2 AND epoch = $3 AND asked = $4 AND state = 'running'`,
		tx.Tenant(), id, epoch, asked, s.row, s.wave, begun, flying, store.Micros(tx.Now()))
	return rows == 1, err
}

// landRun writes how many targets of a run are in flight after outcomes were
// written. That these could be says that the claim stands.
func landRun(tx *store.Tx, id trust.RunID, flying int) error {
	_, err := tx.Exec(`UPDATE job_runs SET beat = beat + 1, revision = revision + 1, flying = $3
		WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, flying)
	return err
}

// claimOf returns the fence of a run, and what counts what was asked of it.
func claimOf(tx *store.Tx, id trust.RunID) (epoch, asked int64, err error) {
	err = tx.QueryRow(`SELECT epoch, asked FROM job_runs WHERE tenant = $1 AND id = $2`, tx.Tenant(), id).Scan(&epoch, &asked)
	return epoch, asked, err
}

// releaseRun gives a claim back, and reports whether it stood.
func releaseRun(tx *store.Tx, id trust.RunID, epoch int64) (bool, error) {
	rows, err := tx.Exec(`UPDATE job_runs SET owner = '', flying = 0, revision = revision + 1 WHERE tenant = $1 AND id = $2 AND epoch = $3`,
		tx.Tenant(), id, epoch)
	return rows == 1, err
}

// holdRun holds a run for a failed cell, unless something else holds it
// already.
func holdRun(tx *store.Tx, id trust.RunID, reason string) error {
	_, err := tx.Exec(`UPDATE job_runs SET state = 'held', reason = $3, asked = asked + 1, revision = revision + 1
		WHERE tenant = $1 AND id = $2 AND state IN ('running', 'waiting', 'paused')`, tx.Tenant(), id, reason)
	return err
}

// pauseAll pauses the tenant's runs that are running or waiting for anything
// but another run.
func pauseAll(tx *store.Tx, actor audit.Actor) (int64, error) {
	return tx.Exec(`UPDATE job_runs SET state = 'paused', reason = 'paused', asked = asked + 1, asked_by = $2, revision = revision + 1
		WHERE tenant = $1 AND state IN ('running', 'waiting') AND back_by = ''`, tx.Tenant(), formatActor(actor))
}

// exclusiveOwner returns the open run that has a name for itself, or "".
func exclusiveOwner(tx *store.Tx, what string) (run trust.RunID, err error) {
	err = tx.QueryRow(`SELECT run FROM job_exclusive WHERE tenant = $1 AND what = $2`, tx.Tenant(), what).Scan(&run)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return run, err
}

// setExclusive gives a name to a run, from whichever had it.
func setExclusive(tx *store.Tx, what string, run trust.RunID) error {
	_, err := tx.Exec(`INSERT INTO job_exclusive (tenant, what, run) VALUES ($1, $2, $3)
		ON CONFLICT (tenant, what) DO UPDATE SET run = excluded.run`, tx.Tenant(), what, run)
	return err
}

// passExclusive gives all names of one run to another one, or to nobody.
func passExclusive(tx *store.Tx, from, to trust.RunID) error {
	query, args := `UPDATE job_exclusive SET run = $3 WHERE tenant = $1 AND run = $2`, []any{tx.Tenant(), from, to}
	if to == "" {
		query, args = `DELETE FROM job_exclusive WHERE tenant = $1 AND run = $2`, args[:2]
	}
	_, err := tx.Exec(query, args...)
	return err
}

// endOfLine returns the place behind every open run of the tenant. Updates are
// serializable, so whoever has a place can read of every run that is ahead of it.
func endOfLine(tx *store.Tx) (line int64, err error) {
	err = tx.QueryRow(`SELECT COALESCE(MAX(line), 0) + 1 FROM job_runs WHERE tenant = $1 AND `+openStates, tx.Tenant()).Scan(&line)
	return line, err
}

// selectAhead returns the first open run before a place in the line, of one of the
// given procedures, that has a target of a name on a host, or "": but none that waits
// for approval, or has passed that target over.
func selectAhead(tx *store.Tx, line int64, host trust.HostID, name string, procedures []string) (id trust.RunID, err error) {
	args := []any{tx.Tenant(), line, host, name}
	list := ""
	for _, p := range procedures {
		args = append(args, p)
		list += ",$" + strconv.Itoa(len(args))
	}
	err = tx.QueryRow(`SELECT r.id FROM job_runs r WHERE r.tenant = $1 AND r.`+openStates+` AND r.line < $2 AND r.approve_by = 0 AND r.procedure IN (`+list[1:]+`)
		AND EXISTS (SELECT 1 FROM job_targets t WHERE t.tenant = r.tenant AND t.run = r.id AND t.host = $3 AND t.name = $4 AND t.passed = 0)
		ORDER BY r.line LIMIT 1`, args...).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// openRunOn returns the oldest open run that has a target on a host, or "".
func openRunOn(tx *store.Tx, host trust.HostID) (id trust.RunID, err error) {
	err = tx.QueryRow(`SELECT r.id FROM job_runs r WHERE r.tenant = $1 AND r.`+openStates+`
		AND EXISTS (SELECT 1 FROM job_targets t WHERE t.tenant = r.tenant AND t.run = r.id AND t.host = $2)
		ORDER BY r.id LIMIT 1`, tx.Tenant(), host).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// countRuns counts the tenant's runs by procedure and state.
func countRuns(tx *store.Tx) (all []RunsInState, err error) {
	rows, err := tx.Query(`SELECT procedure, state, count(*) FROM job_runs WHERE tenant = $1 GROUP BY procedure, state ORDER BY procedure, state`, tx.Tenant())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var c RunsInState
		if err := rows.Scan(&c.Procedure, &c.State, &c.Count); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, rows.Err()
}
