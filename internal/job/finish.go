package job

import (
	"context"
	"errors"
	"fmt"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// How a runner comes to the end of a stage, and what may follow: the next one,
// or the end of its work.

// finish is called when nothing of the stage is queued or in flight. Either
// everything is done, and the next stage is entered, or the run waits, is held
// or has ended, and the runner is gone.
func (r *runner) finish() (gone bool, err error) {
	if r.stage == top || r.stage == bottom {
		return true, r.end()
	}
	var st standing
	var now time.Time
	err = r.d.store.View(r.ctx, r.run.tenant, func(tx *store.Tx) error {
		now = tx.Now()
		st, err = selectStanding(tx, r.run, r.stage)
		return err
	})
	switch {
	case err != nil:
		return false, err
	case st.waiting > 0 && st.next <= store.Micros(now):
		r.retry = time.Now()
		return false, nil
	case st.waiting > 0:
		return true, r.sleep(st)
	case st.unfinished > 0:
		return true, r.hold(fmt.Errorf("%d places have failed in row %q", st.unfinished, r.run.table.Rows[r.stage.row].Name), r.run.direction)
	}
	r.enter(r.following(r.stage))
	return false, nil
}

// sleep lets the run wait for the first target of the stage that is due again.
func (r *runner) sleep(st standing) error {
	return r.change("wait", "run.wait", func(tx *store.Tx, now record) error {
		_, now.begun = now.table.span(r.stage)
		now.state, now.wake, now.owner = Waiting, st.next, ""
		now.reason = st.why
		if st.example != now.subject {
			now.reason = st.example + ": " + st.why
		}
		if st.unavailable > 1 {
			now.reason += fmt.Sprintf(" (and %d more do not answer)", st.unavailable-1)
		}
		tx.Note("reason", clip(now.reason, 1000))
		return updateRun(tx, now)
	})
}

// hold holds the run, to be resumed in the given direction, for something that
// is no target's failure.
func (r *runner) hold(why error, d Direction) error {
	return r.change("hold", "run.hold", func(tx *store.Tx, now record) error {
		now.state, now.direction, now.reason, now.owner = Held, d, sentence(why), ""
		now.asked++
		tx.Note("reason", clip(now.reason, 1000))
		return updateRun(tx, now)
	})
}

// end ends the run, or holds it if its procedure refuses.
func (r *runner) end() error {
	outcome := Done
	if r.run.direction == Backward {
		outcome = WentBack
	}
	err := r.change("end", "run.end", func(tx *store.Tx, now record) error {
		return r.d.end(tx, now, outcome)
	})
	if err == nil {
		r.d.Wake() // for runs that waited for this one
	}
	return r.holdUnless(err, r.run.direction)
}

// mustTurn reports whether the run is to be taken back by another one.
func (r *runner) mustTurn() (turning bool, err error) {
	if r.run.table.Turn == "" {
		return false, nil
	}
	err = r.d.store.View(r.ctx, r.run.tenant, func(tx *store.Tx) error {
		turning, err = pastTurn(tx, r.run)
		return err
	})
	return turning, err
}

// turn plans the run that takes this one back.
func (r *runner) turn() error {
	err := r.change("turn", "run.turn", func(tx *store.Tx, now record) error {
		now.direction = Forward
		_, err := r.d.reverse(tx, r.proc, now)
		return err
	})
	if err == nil {
		r.d.Wake()
	}
	return r.holdUnless(err, Forward)
}

// holdUnless holds the run, to be resumed in the given direction, for an error
// that is not the engine's business.
func (r *runner) holdUnless(err error, d Direction) error {
	switch {
	case err == nil, errors.Is(err, errFenced), errors.Is(err, errAsked), errors.Is(err, errCrashed), stopped(r.ctx, err):
		return err
	case trust.KindOf(err) == trust.Unavailable:
		return err
	}
	return r.hold(err, d)
}

// letGo gives the claim back, so that any engine can take the run at once.
func (r *runner) letGo() error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), r.d.options.Lease)
	defer cancel()
	return r.d.commit(ctx, "release", event(r.run.tenant, r.run.id, "run.release"), func(tx *store.Tx) error {
		ok, err := releaseRun(tx, r.run.id, r.run.epoch)
		if err == nil && !ok {
			err = errFenced
		}
		if err == nil && r.broken {
			_, err = requeue(tx, r.run)
		}
		return err
	})
}
