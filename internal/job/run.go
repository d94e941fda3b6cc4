package job

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Run is one execution of a procedure as its steps, Reverse, Leave and Ended
// see it: a value, as of the moment in which it was made.
type Run struct {
	ID        trust.RunID
	Tenant    trust.TenantID
	Procedure string
	Subject   string
	Args      json.RawMessage
	Actor     audit.Actor // who started it, without personal data
	State     State
	Direction Direction
	Skipped   []string    // rows that the run does without
	BackOf    trust.RunID // the run that this one takes back
	BackBy    trust.RunID // the run that takes this one back
	// BackArgs are what Back was called with, for Reverse; JSON null if nothing.
	BackArgs json.RawMessage
	Created  time.Time
	// Epoch is the fence of the claim under which the step runs: a step with a
	// lower one must not act any more.
	Epoch int64
	// Asked is greater after everything that a person asked of the run.
	Asked int64
	// Installation is the id of this installation, from Options.
	Installation string

	// Only for steps:

	Step    string       // the row's name
	Attempt int          // 1 for the first time that this target is in this row in this direction; crashes and retries count
	Log     *slog.Logger // says run, step and target in every line

	table   table
	line    int64
	store   *store.Store
	saved   *json.RawMessage
	results *results // of steps of the same claim; nil: there are none
}

// Decode reads the arguments of the run into v.
func (r Run) Decode(v any) error {
	if err := json.Unmarshal(r.Args, v); err != nil {
		return fmt.Errorf("arguments of run %q: %w", r.ID, err)
	}
	return nil
}

// Save keeps v, as JSON, as the result of the step for its target. It is
// committed with the outcome, whatever that is, so that a later attempt, a
// later row, Undo and Reverse can read it with ResultOf. The last call counts.
//
// A target that has failed is tried again only when a person resumes the run. So
// an attempt that finds what was saved with a failure knows that its sentence was
// read; that there was an attempt before it says nothing of the kind.
func (r Run) Save(v any) error {
	if r.saved == nil {
		return fmt.Errorf("run %q: only a step can save a result", r.ID)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("result of step %q of run %q: %w", r.Step, r.ID, err)
	}
	*r.saved = b
	return nil
}

// ResultOf reads into v what the named step saved for t, which is a target of
// that step's list (any target will do for a step on Once), and reports whether
// it has saved anything. Of a step that was undone, it is what Undo saved or
// else what Do did.
func (r Run) ResultOf(ctx context.Context, step string, t Target, v any) (found bool, err error) {
	at, err := r.place(step, t)
	if err != nil {
		return false, err
	}
	if result, ok := r.results.get(at); ok {
		return true, r.decodeResult(step, result, v)
	}
	err = r.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		found, err = r.In(tx).ResultOf(step, t, v)
		return err
	})
	return found, err
}

// Targets yields the targets of a list in order, a bounded number in memory.
// It ends at the first error. Each page is a View of its own.
func (r Run) Targets(ctx context.Context, list List) iter.Seq2[Target, error] {
	return paged(func(from int) (items []Target, err error) {
		err = r.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
			items, err = selectTargets(tx, r, list, from)
			return err
		})
		return items, err
	}, func(t Target) int { return t.N })
}

// Left reports whether a person has left a target out by now.
func (r Run) Left(ctx context.Context, t Target) (left bool, err error) {
	err = r.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		left, err = isLeft(tx, r.ID, t.List, t.N)
		return err
	})
	return left, err
}

// Over reports whether another run does nothing any more: it has ended, or this
// one takes it back. What it still holds on hosts may be released in its name. A
// run that is not known is not over.
func (r Run) Over(ctx context.Context, other trust.RunID) (over bool, err error) {
	err = r.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		o, err := selectRun(tx, other)
		if trust.KindOf(err) == trust.NotFound {
			return nil
		}
		over = err == nil && (!o.state.Open() || o.backBy == r.ID)
		return err
	})
	return over, err
}

// Ahead returns the first of the open runs ahead of this one, of the given
// procedures, that have a target of t's name on t's host, or one without an id.
//
// Open runs of a tenant stand in a line, in the order in which they were started; a
// run that takes back an open one, and takes nothing but what that one has, has its
// place. Runs that have passed the target over do not count: see Journal.PassOver. A
// step that takes something for longer than itself, such as the lock of a file, has to
// wait for those ahead before it does, by Behind: then nobody waits for a run behind, and no two
// runs wait for each other.
func (r Run) Ahead(ctx context.Context, t Target, procedures ...string) (ahead Summary, err error) {
	err = r.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		id, err := selectAhead(tx, r.line, t.Host, t.Name, procedures)
		if err != nil || id == "" {
			return err
		}
		other, err := selectRun(tx, id)
		ahead = other.summary()
		return err
	})
	return ahead, err
}

// In returns the journal of the run as tx sees it.
func (r Run) In(tx *store.Tx) Journal { return Journal{tx, r} }

// A Journal is what is written of a run, within one transaction.
type Journal struct {
	tx  *store.Tx
	run Run
}

// A Cell is one target in one row in one direction.
type Cell struct {
	Step      string
	Direction Direction
	Target    Target
	State     CellState
	Attempt   int
	Intended  time.Time // when the last attempt began
	Ended     time.Time // when it ended
	Next      time.Time // when the next one is due, while Waiting
	Error     string    // the sentence of the last attempt that did not succeed
	Result    json.RawMessage
}

// A CellState is how a target stands in a row.
type CellState string

// The states of a cell. A target that has not been begun in a row has no cell.
const (
	CellIntended CellState = "intended" // Do may have run, or be running
	CellDone     CellState = "done"
	CellFailed   CellState = "failed"  // and holds the run
	CellWaiting  CellState = "waiting" // to be tried again
	CellLeft     CellState = "left"    // by a person, before it was done
)

// ResultOf is Run.ResultOf.
func (j Journal) ResultOf(step string, t Target, v any) (bool, error) {
	at, err := j.run.place(step, t)
	if err != nil {
		return false, err
	}
	result, err := selectResult(j.tx, j.run.ID, at)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, j.run.decodeResult(step, result, v)
}

// place returns where the journal has what a step saved for a target.
func (r Run) place(step string, t Target) (place, error) {
	pos := r.table.index(step)
	if pos < 0 {
		return place{}, fmt.Errorf("procedure %q has no step %q", r.Procedure, step)
	}
	switch on := r.table.Rows[pos].On; on {
	case Once:
		return place{pos, 0}, nil
	case t.List:
		return place{pos, t.N}, nil
	default:
		return place{}, fmt.Errorf("step %q of procedure %q is on list %q, and target %q on %q", step, r.Procedure, on, t.Name, t.List)
	}
}

func (r Run) decodeResult(step string, result json.RawMessage, v any) error {
	if err := json.Unmarshal(result, v); err != nil {
		return fmt.Errorf("result of step %q of run %q: %w", step, r.ID, err)
	}
	return nil
}

// Targets is Run.Targets.
func (j Journal) Targets(list List) iter.Seq2[Target, error] {
	return paged(func(from int) ([]Target, error) {
		return selectTargets(j.tx, j.run, list, from)
	}, func(t Target) int { return t.N })
}

// Cells yields what is written of a step in one direction, by target.
func (j Journal) Cells(step string, d Direction) iter.Seq2[Cell, error] {
	pos := j.run.table.index(step)
	if pos < 0 {
		return func(yield func(Cell, error) bool) {
			yield(Cell{}, fmt.Errorf("procedure %q has no step %q", j.run.Procedure, step))
		}
	}
	return paged(func(from int) ([]Cell, error) {
		return selectCells(j.tx, j.run, pos, d, from, page)
	}, func(c Cell) int { return c.Target.N })
}

// PassOver says in a step's Record that the run takes nothing at a target, now or later:
// nobody has to wait for it there.
func (j Journal) PassOver(t Target) error { return passTarget(j.tx, j.run.ID, t) }

// Began reports whether the named step was intended for any target.
func (j Journal) Began(step string) (bool, error) {
	pos := j.run.table.index(step)
	if pos < 0 {
		return false, fmt.Errorf("procedure %q has no step %q", j.run.Procedure, step)
	}
	return anyBegun(j.tx, j.run.ID, pos, pos)
}

// Skips reports whether the run does without the named row.
func (r Run) Skips(step string) bool { return slices.Contains(r.Skipped, step) }

// page is how many rows of the journal are read into memory at once.
const page = 500

// paged yields what load returns, a page at a time; number is an item's place.
func paged[T any](load func(from int) ([]T, error), number func(T) int) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		for from := 0; ; {
			items, err := load(from)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, item := range items {
				if !yield(item, nil) {
					return
				}
				from = number(item) + 1
			}
			if len(items) < page {
				return
			}
		}
	}
}
