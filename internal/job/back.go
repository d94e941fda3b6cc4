package job

import (
	"encoding/json"
	"fmt"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Going back. A run that never began a row ends at once. Before its turn it
// goes back itself: the same stages in reverse, with Undo. From its turn on, it
// waits for another run, planned by Reverse, which takes it back; that is
// planned in the verb's own commit, or, where something of the run may be in
// flight, by the engine in a commit of its own as soon as nothing is.

// Back takes a run back, finished or not, and returns the run that does so:
// another one, or id itself. Where something is still in flight it is id even
// if another run is going to be planned; Show names that one as soon as it is.
// Whoever waits for the end of id has waited for the right thing in each case.
//
// args are JSON for the procedure's Reverse, which reads them as Run.BackArgs; nil
// for none. Undo needs none: it goes back at once.
//
// On a run that is on its way back already nothing changes. One that went back,
// or has begun a Final row, is a Conflict.
func (e *Engine) Back(tx *store.Tx, actor audit.Actor, id trust.RunID, args json.RawMessage) (trust.RunID, error) {
	r, err := selectRun(tx, id)
	switch {
	case err != nil:
		return "", err
	case r.backBy != "" && r.state != WentBack && r.state != Partial:
		return r.backBy, nil
	case r.direction == Backward && r.state.Open():
		return id, nil
	case r.state == WentBack, r.state == Partial && (r.direction == Backward || r.backBy != ""):
		return "", trust.Errorf(trust.Conflict, "run %q went back already", id)
	}
	p, err := e.procedure(r)
	if err != nil {
		return "", err
	}
	if !r.state.Open() && !p.goesBack() {
		return "", trust.Errorf(trust.Conflict, "run %q has ended, and changed nothing that could be taken back", id)
	}
	if final, err := finalBegun(tx, r); err != nil || final != "" {
		if err == nil {
			err = trust.Errorf(trust.Conflict, "run %q: row %q has begun, and there is no way back from it", id, final)
		}
		return "", err
	}
	r.ask(actor)
	r.backArgs = json.RawMessage(orNull(args))
	return e.back(tx, p, r)
}

// back takes back a run of which that can be said at once.
func (e *Engine) back(tx *store.Tx, p Procedure, r record) (trust.RunID, error) {
	if r.at == top && r.state.Open() {
		r.direction = Backward
		return r.id, e.end(tx, r, WentBack)
	}
	past, err := pastTurn(tx, r)
	if err != nil {
		return "", err
	}
	if past && !r.inFlight() {
		return e.reverse(tx, p, r)
	}
	if !r.state.Open() {
		if r.line, err = endOfLine(tx); err != nil {
			return "", err
		}
		for _, what := range r.table.Exclusive {
			if err := claimName(tx, what, r); err != nil {
				return "", err
			}
		}
	}
	r.direction, r.state, r.reason = Backward, Running, ""
	r.begun, r.wake, r.ended = 0, store.Micros(tx.Now()), store.Time(0)
	return r.id, updateRun(tx, r)
}

// reverse plans the run that takes r back, of which nothing is in flight.
func (e *Engine) reverse(tx *store.Tx, p Procedure, r record) (id trust.RunID, err error) {
	if err := updateRun(tx, r); err != nil { // Create reads it
		return "", err
	}
	var plan Plan
	err = guard(func() error {
		plan, err = p.Reverse(tx, e.view(r))
		return err
	})
	if err != nil {
		return "", err
	}
	plan.Back = r.id
	return e.Create(tx, r.askedBy, plan)
}

// takeOver makes the run that r takes back wait for r, which gets its place in the
// line: those behind it wait for it already.
func (e *Engine) takeOver(tx *store.Tx, r *record) error {
	old, err := selectRun(tx, r.backOf)
	if err != nil {
		return err
	}
	if old.backBy != "" {
		return trust.Errorf(trust.Conflict, "run %q is taken back by run %q already", old.id, old.backBy)
	}
	if old.inFlight() && old.state.Open() {
		return trust.Errorf(trust.Conflict, "run %q has steps in flight", old.id).WithHint("keyturn run back %s", old.id)
	}
	old.ask(r.actor)
	old.backBy = r.id
	if old.state.Open() {
		old.state, old.direction, old.owner, old.wake = Waiting, Forward, "", never
		old.reason = fmt.Sprintf("being taken back by run %s", r.id)
		r.line = old.line
	}
	return updateRun(tx, old)
}

// end ends a run, and settles the run that it took back. The outcome is Partial
// if anything was left.
func (e *Engine) end(tx *store.Tx, r record, outcome State) error {
	left, err := countLeft(tx, r.id)
	if err != nil {
		return err
	}
	r.finish(outcome, left)
	return e.settle(tx, r, r.state)
}

// finish says of a run that it came to an end of its table, without those targets
// that were left.
func (r *record) finish(outcome State, left int) {
	r.state, r.reason = outcome, ""
	if left > 0 {
		r.state, r.reason = Partial, fmt.Sprintf("%s, %d left", outcome, left)
	}
}

// settle writes that a run has ended, lets its procedure add to that, and says
// so to the run that it took back.
func (e *Engine) settle(tx *store.Tx, r record, outcome State) error {
	r.state, r.owner, r.wake = outcome, "", 0
	if r.ended.IsZero() {
		r.ended = tx.Now()
	}
	if err := updateRun(tx, r); err != nil {
		return err
	}
	tx.Note("outcome", string(outcome))
	if err := wakeBehind(tx, r.id); err != nil {
		return err
	}
	if p, ok := e.procedures[r.procedure]; ok && p.Ended != nil {
		if err := guard(func() error { return p.Ended(tx, e.view(r), outcome) }); err != nil {
			return err
		}
	}
	if r.backOf == "" {
		return passExclusive(tx, r.id, "")
	}
	old, err := selectRun(tx, r.backOf)
	switch {
	case err != nil:
		return err
	case old.backBy != r.id:
		return passExclusive(tx, r.id, "")
	case outcome == Done, outcome == Partial && r.direction == Forward && r.backBy == "":
		// It did what it was for. Its names go the way of the old run's.
		if err := passExclusive(tx, r.id, old.id); err != nil {
			return err
		}
		old.reason = fmt.Sprintf("taken back by run %s", r.id)
		if outcome == Partial {
			old.reason += ": " + r.reason
			return e.settle(tx, old, Partial)
		}
		return e.settle(tx, old, WentBack)
	}
	return e.giveBack(tx, r, old)
}

// giveBack makes old, which r took back or was taking back, what it was before r,
// because r itself went back: it has ended as it had, or it is held. What r had done
// may have been all of its way back. Where r went back by a third run, that one
// stands for what old had done, and an old run that went back stays so.
func (e *Engine) giveBack(tx *store.Tx, r, old record) error {
	had := !old.ended.IsZero() && !old.ended.After(r.created)
	open, undone := old.state.Open(), r.direction == Backward
	old.backBy = ""
	if !had && (open || undone) {
		old.state, old.direction, old.ended, old.asked = Held, Forward, store.Time(0), old.asked+1
		old.reason = fmt.Sprintf("run %s, which was taking it back, was itself taken back", r.id)
		if err := updateRun(tx, old); err != nil {
			return err
		}
		return passExclusive(tx, r.id, old.id)
	}
	if undone {
		left, err := countLeft(tx, old.id)
		if err != nil {
			return err
		}
		old.finish(Done, left)
	}
	if err := updateRun(tx, old); err != nil {
		return err
	}
	return passExclusive(tx, r.id, "")
}

// pastTurn reports whether going back is for another run.
func pastTurn(tx *store.Tx, r record) (bool, error) {
	if r.table.Turn == "" {
		return false, nil
	}
	return anyBegun(tx, r.id, r.table.index(r.table.Turn), len(r.table.Rows))
}

// finalBegun returns the name of a Final row that has begun, or "".
func finalBegun(tx *store.Tx, r record) (string, error) {
	for i, row := range r.table.Rows {
		if !row.Final {
			continue
		}
		begun, err := anyBegun(tx, r.id, i, i)
		if err != nil || begun {
			return row.Name, err
		}
	}
	return "", nil
}
