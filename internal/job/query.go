package job

import (
	"encoding/json"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Summary is how a run stands, as lists show it.
type Summary struct {
	ID        trust.RunID
	Procedure string
	Subject   string
	Actor     audit.Actor // who started it, without personal data
	AskedBy   audit.Actor // who asked something of it last, the same
	State     State
	Direction Direction
	Row       string // the last row of which a target was begun, or ""
	Wave      int    // its wave, from 0
	Waves     int    // how many waves that row has
	Reason    string // why it waits, is paused or held, or how it ended
	Created   time.Time
	Started   time.Time   // when the first target was begun
	Ended     time.Time   // zero while it is open
	Next      time.Time   // until when it waits, if that is for a time
	BackOf    trust.RunID // the run that it takes back
	BackBy    trust.RunID // the run that takes it back
	Skipped   []string    // rows that it does without
	// Revision is greater after every change of the above, and whenever a target
	// is begun or has an outcome: a watcher compares it.
	Revision int64
}

// A Detail is a run with the progress of its rows.
type Detail struct {
	Summary
	Args json.RawMessage
	Rows []RowCount
	Left int // targets that were left
	// Troubled are targets that have failed, then those that wait, in the
	// present row, and Without those that were left: each up to MaxTroubled.
	Troubled []Cell
	Without  []Target
}

// MaxTroubled bounds the lists of targets in a Detail.
const MaxTroubled = 100

// A RowCount is how many targets stand how in one row, in the direction in
// which the run goes. On the way back, Targets are those that the way forward
// began.
type RowCount struct {
	Step     string
	On       List
	Group    string
	Skipped  bool // the run does without it, or on the way back there is no Undo
	Targets  int
	Done     int
	InFlight int
	Waiting  int
	Failed   int
	Left     int // left before they were done
}

// A Filter says which runs are meant: those that match every field that is set.
type Filter struct {
	Procedure string
	Subject   string
	States    []State
	Open      bool // in whichever open state
}

// MaxPage is how many runs one List returns at most.
const MaxPage = 500

// List returns up to limit runs of the transaction's tenant that match, the
// newest first, from those created before the run after on ("": from the newest
// on).
func (e *Engine) List(tx *store.Tx, f Filter, after trust.RunID, limit int) ([]Summary, error) {
	if f.Open {
		f.States = append(f.States[:len(f.States):len(f.States)], Running, Waiting, Paused, Held)
	}
	if limit <= 0 || limit > MaxPage {
		limit = MaxPage
	}
	records, err := selectRuns(tx, f, after, limit)
	if err != nil {
		return nil, err
	}
	list := make([]Summary, len(records))
	for i, r := range records {
		list[i] = r.summary()
	}
	return list, nil
}

// Show returns a run and how far each of its rows is. It counts a range of keys
// for the wave that is under way, and looks at those targets only that wait, have
// failed or were left; on the way back it counts one range for each row.
func (e *Engine) Show(tx *store.Tx, id trust.RunID) (Detail, error) {
	r, err := selectRun(tx, id)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{Summary: r.summary(), Args: r.args}
	for i := range r.table.Rows {
		count, err := r.count(tx, i)
		if err != nil {
			return Detail{}, err
		}
		d.Rows = append(d.Rows, count)
	}
	if d.Left, err = countLeft(tx, id); err != nil {
		return Detail{}, err
	}
	run := e.view(r)
	if d.Without, err = selectLeft(tx, run, MaxTroubled); err != nil {
		return Detail{}, err
	}
	if r.at == top || !r.state.Open() {
		return d, nil
	}
	d.Troubled, err = selectTroubled(tx, run, r.at.row, r.direction, MaxTroubled)
	return d, err
}

// Revision returns the revision of a run, and whether it is open: what a watcher
// asks again and again, and is told without a count.
func (e *Engine) Revision(tx *store.Tx, id trust.RunID) (revision int64, open bool, err error) {
	r, err := selectRun(tx, id)
	return r.revision, r.state.Open(), err
}

// Get returns a run as its procedure's own functions see it, to read its
// journal by Run.In.
func (e *Engine) Get(tx *store.Tx, id trust.RunID) (Run, error) {
	r, err := selectRun(tx, id)
	return e.view(r), err
}

// Holder returns the open run that has an exclusive name, or "".
func (e *Engine) Holder(tx *store.Tx, what string) (trust.RunID, error) {
	return exclusiveOwner(tx, what)
}

// RunsInState is how many runs of a procedure stand in one way.
type RunsInState struct {
	Procedure string
	State     State
	Count     int
}

// Count counts the runs of the transaction's tenant.
func (e *Engine) Count(tx *store.Tx) ([]RunsInState, error) { return countRuns(tx) }

// WorksOn returns an open run that has a target on a host, or "".
func (e *Engine) WorksOn(tx *store.Tx, host trust.HostID) (trust.RunID, error) {
	return openRunOn(tx, host)
}

func (r record) summary() Summary {
	s := Summary{
		ID: r.id, Procedure: r.procedure, Subject: r.subject, Actor: r.actor, AskedBy: r.askedBy,
		State: r.state, Direction: r.direction, Wave: r.at.wave, Reason: r.reason,
		Created: r.created, Started: r.started, Ended: r.ended,
		BackOf: r.backOf, BackBy: r.backBy, Skipped: r.skipped, Revision: r.revision,
	}
	if r.at != top {
		row := r.table.Rows[r.at.row]
		s.Row, s.Waves = row.Name, r.table.waves(row.On)
	}
	if r.state == Waiting && r.wake != never {
		s.Next = store.Time(r.wake)
	}
	return s
}

// count says how far a row is.
func (r record) count(tx *store.Tx, i int) (RowCount, error) {
	row := r.table.Rows[i]
	c := RowCount{Step: row.Name, On: row.On, Group: row.Group, Targets: r.table.Lists[row.On]}
	for _, name := range r.skipped {
		c.Skipped = c.Skipped || name == row.Name
	}
	if r.direction == Backward {
		return r.countBack(tx, i, c)
	}
	if c.Skipped {
		return c, nil
	}
	// What lies before the present stage is done but for what was left, what
	// lies behind it has not begun, and what is in it has to be counted.
	at := r.at
	if r.state == Done || r.state == Partial && r.backBy == "" {
		at = bottom
	}
	passed := r.table.passed(at, i)
	missed, err := countMissed(tx, r, Forward, i, passed)
	if err != nil {
		return c, err
	}
	c.Done, c.Left = passed-missed, missed
	if i != at.row {
		return c, nil
	}
	lo, hi := r.table.span(at)
	if c.Left, err = countMissed(tx, r, Forward, i, hi); err != nil {
		return c, err
	}
	err = r.tally(tx, &c, i, lo, hi)
	return c, err
}

// tally adds the targets of a row from number lo up to, not including, hi. What
// is done is what has a cell and is nothing else, so that no cell is looked at
// but those few.
func (r record) tally(tx *store.Tx, c *RowCount, i, lo, hi int) error {
	cells, err := countCells(tx, r, i, r.direction, lo, hi)
	if err != nil {
		return err
	}
	left, err := countLeftCells(tx, r, i, r.direction, lo, hi)
	if err != nil {
		return err
	}
	if c.Waiting, c.Failed, err = countDue(tx, r, i, r.direction, lo, hi); err != nil {
		return err
	}
	if i == r.at.row {
		c.InFlight = r.flying
	}
	// Where the run has just turned back, what is in flight is still of the way
	// forward, and has no cell on the way back.
	c.Done += max(cells-left-c.Waiting-c.Failed-c.InFlight, 0)
	return nil
}

func (r record) countBack(tx *store.Tx, i int, c RowCount) (RowCount, error) {
	all := c.Targets
	c.Targets, c.Skipped = 0, c.Skipped || !r.table.Rows[i].Undo
	if c.Skipped {
		return c, nil
	}
	var err error
	if c.Targets, err = countCells(tx, r, i, Forward, 0, all); err != nil {
		return c, err
	}
	if c.Left, err = countMissed(tx, r, Backward, i, all); err != nil {
		return c, err
	}
	err = r.tally(tx, &c, i, 0, all)
	return c, err
}
