package job

import (
	"fmt"
	"slices"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Which says what targets are meant: those that match every field that is set.
// At least one is.
type Which struct {
	Name        string       // exactly the target's name, in whatever list
	Host        trust.HostID // on that host
	Unreachable bool         // by the name of one that waits in the present row because it did not answer
}

// MaxLeave is how many targets one Leave takes; the next one takes the rest.
const MaxLeave = 10_000

// Leave lets a run go on without some targets, in whatever way its procedure
// says, and returns how many these were, counting a name that is in several lists
// once. They are gone through no more rows,
// in neither direction, but for the one with which a procedure parts from them, and
// the run ends as Partial. Where the procedure
// refuses one of them, none is left and its sentence is the error. Targets that
// have been through all rows are not left; where no other match, that is a
// Conflict, and where none match at all, NotFound.
//
// A run that is held by targets that have all been left goes on.
func (e *Engine) Leave(tx *store.Tx, actor audit.Actor, id trust.RunID, w Which) (int, error) {
	r, err := selectOpen(tx, id)
	if err != nil {
		return 0, err
	}
	p, err := e.procedure(r)
	if err != nil {
		return 0, err
	}
	if p.Leave == nil {
		return 0, trust.Errorf(trust.Conflict, "run %q: procedure %q cannot go on without a target", id, r.procedure).WithHint("keyturn run back %s", id)
	}
	targets, err := selectMatching(tx, r, w, MaxLeave)
	if err != nil {
		return 0, err
	}
	left, goBack := map[string]bool{}, false // by name: a place may be in several lists
	for _, t := range targets {
		if t.Left {
			continue
		}
		if finished, err := hasFinished(tx, r, t); err != nil {
			return 0, err
		} else if finished {
			continue
		}
		effect, err := e.effect(tx, p, r, t)
		if err != nil {
			return 0, err
		}
		if err := leaveTarget(tx, r, t, actor); err != nil {
			return 0, err
		}
		left[t.Name] = true
		if r.direction == Forward {
			goBack = goBack || effect.Back
			if err := r.skip(tx, effect.Skip); err != nil {
				return 0, err
			}
		}
	}
	if len(left) == 0 {
		return 0, nothingLeft(r, w, len(targets))
	}
	tx.Note("left", fmt.Sprint(len(left)))
	r.ask(actor)
	if goBack {
		if final, err := finalBegun(tx, r); err != nil || final != "" {
			if err == nil {
				err = trust.Errorf(trust.Conflict, "run %q would have to go back, but row %q has begun", id, final)
			}
			return 0, err
		}
		_, err := e.back(tx, p, r)
		return len(left), err
	}
	return len(left), r.goOn(tx)
}

// nothingLeft says why no target was left.
func nothingLeft(r record, w Which, matched int) error {
	switch {
	case matched > 0:
		return trust.Errorf(trust.Conflict, "run %q is done with that place, or has left it already", r.id)
	case w.Unreachable:
		return trust.Errorf(trust.NotFound, "run %q waits for nobody who is unreachable", r.id)
	case w.Name != "":
		return trust.Errorf(trust.NotFound, "run %q has no place %q", r.id, w.Name).WithHint("keyturn run show %s", r.id)
	}
	return trust.Errorf(trust.NotFound, "run %q has no place on host %q", r.id, w.Host).WithHint("keyturn run show %s", r.id)
}

// effect asks the procedure what leaving t does.
func (e *Engine) effect(tx *store.Tx, p Procedure, r record, t Target) (effect Effect, err error) {
	err = guard(func() error {
		effect, err = p.Leave(tx, e.view(r), t)
		return err
	})
	return effect, err
}

// skip adds rows to those that the run does without.
func (r *record) skip(tx *store.Tx, names []string) error {
	for _, name := range names {
		i := r.table.index(name)
		if i < 0 {
			return fmt.Errorf("run %q cannot do without row %q, which procedure %q does not have", r.id, name, r.procedure)
		}
		if slices.Contains(r.skipped, name) {
			continue
		}
		if begun, err := anyBegun(tx, r.id, i, i); err != nil || begun {
			if err == nil {
				err = trust.Errorf(trust.Conflict, "run %q has begun row %q, and cannot do without it any more", r.id, name)
			}
			return err
		}
		r.skipped = append(r.skipped, name)
	}
	return nil
}

// goOn writes a run of which targets were left: if that was what it stood for,
// it runs again.
func (r *record) goOn(tx *store.Tx) error {
	failed := 0
	if r.state == Held && r.at != top {
		lo, hi := r.table.span(r.at)
		var err error
		if _, failed, err = countDue(tx, *r, r.at.row, r.direction, lo, hi); err != nil {
			return err
		}
	}
	if r.state == Waiting || r.state == Held && failed == 0 {
		r.proceed(tx.Now())
	}
	return updateRun(tx, *r)
}
