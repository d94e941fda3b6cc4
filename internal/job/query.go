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
	ApproveBy time.Time   // until when somebody has to approve of it, while it waits for that
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
	if why := e.mute.Load(); why != nil && (r.state == Running || r.state == Waiting && r.wake <= store.Micros(tx.Now())) {
		d.Reason = "this server cannot write down what it does, and does nothing more until it can: " + *why
	}
	if d.Left, err = countLeft(tx, id); err != nil {
		return Detail{}, err
	}
	c := counter{r, tx, d.Left > 0}
	for i := range r.table.Rows {
		count, err := c.count(i)
		if err != nil {
			return Detail{}, err
		}
		d.Rows = append(d.Rows, count)
	}
	run := e.view(r)
	if d.Left > 0 {
		if d.Without, err = selectLeft(tx, run, MaxTroubled); err != nil {
			return Detail{}, err
		}
	}
	if r.at == top || !r.state.Open() {
		return d, nil
	}
	d.Troubled, err = selectTroubled(tx, run, r.at.row, r.direction, MaxTroubled)
	return d, err
}

// Revision returns the revision and the state of a run: what a watcher asks again
// and again, and is told without a count.
func (e *Engine) Revision(tx *store.Tx, id trust.RunID) (revision int64, state State, err error) {
	return revisionOf(tx, id)
}

// Ended reports whether a run of the transaction's tenant has ended.
func Ended(tx *store.Tx, id trust.RunID) (bool, error) {
	_, state, err := revisionOf(tx, id)
	return err == nil && !state.Open(), err
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
	if r.state.Open() {
		s.ApproveBy = store.Time(r.approveBy)
	}
	if r.state == Waiting && r.wake != never {
		s.Next = store.Time(r.wake)
	}
	return s
}

// A counter counts how far the rows of a run are.
type counter struct {
	record
	tx *store.Tx
	// left: some target of the run was left. Of most runs none was, and then nobody
	// looks for them in each row.
	left bool
}

// count says how far a row is.
func (c counter) count(i int) (n RowCount, err error) {
	row := c.table.Rows[i]
	n = RowCount{Step: row.Name, On: row.On, Group: row.Group, Targets: c.table.Lists[row.On]}
	for _, name := range c.skipped {
		n.Skipped = n.Skipped || name == row.Name
	}
	if c.direction == Backward {
		return c.countBack(i, n)
	}
	if n.Skipped {
		return n, nil
	}
	// What lies before the present stage is done but for what was left, what
	// lies behind it has not begun, and what is in it has to be counted.
	at := c.at
	if c.state == Done || c.state == Partial && c.backBy == "" {
		at = bottom
	}
	passed := c.table.passed(at, i)
	if n.Left, err = c.missed(i, passed); err != nil {
		return n, err
	}
	n.Done = passed - n.Left
	if i != at.row {
		return n, nil
	}
	lo, hi := c.table.span(at)
	if n.Left, err = c.missed(i, hi); err != nil {
		return n, err
	}
	err = c.tally(&n, i, lo, hi)
	return n, err
}

// missed counts the targets of a row, below number hi, that were left before they
// were done in it.
func (c counter) missed(i, hi int) (int, error) {
	if !c.left {
		return 0, nil
	}
	return countMissed(c.tx, c.record, c.direction, i, hi)
}

// tally adds the targets of a row from number lo up to, not including, hi. What
// is done is what has a cell and is nothing else, so that no cell is looked at
// but those few.
func (c counter) tally(n *RowCount, i, lo, hi int) error {
	cells, err := countCells(c.tx, c.record, i, c.direction, lo, hi)
	if err != nil {
		return err
	}
	left := 0
	if c.left {
		if left, err = countLeftCells(c.tx, c.record, i, c.direction, lo, hi); err != nil {
			return err
		}
	}
	if n.Waiting, n.Failed, err = countDue(c.tx, c.record, i, c.direction, lo, hi); err != nil {
		return err
	}
	if i == c.at.row {
		n.InFlight = c.flying
	}
	// Where the run has just turned back, what is in flight is still of the way
	// forward, and has no cell on the way back.
	n.Done += max(cells-left-n.Waiting-n.Failed-n.InFlight, 0)
	return nil
}

func (c counter) countBack(i int, n RowCount) (RowCount, error) {
	all := n.Targets
	n.Targets, n.Skipped = 0, n.Skipped || !c.table.Rows[i].Undo
	if n.Skipped {
		return n, nil
	}
	var err error
	if n.Targets, err = countCells(c.tx, c.record, i, Forward, 0, all); err != nil {
		return n, err
	}
	if n.Left, err = c.missed(i, all); err != nil {
		return n, err
	}
	err = c.tally(&n, i, 0, all)
	return n, err
}
