package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A runner works on one claimed run, in one goroutine, with one goroutine for
// each step in flight. It keeps no state that is not in the journal but a
// bounded number of targets that it is going to begin next.
//
// Whatever it commits says under which claim, and what begins something also
// says what had been asked of the run when that was decided. So a lost claim
// and a verb are noticed by the commit that they forbid. An error of the store
// ends the runner; the run is then claimed anew, as after a crash.
type runner struct {
	d      *dispatcher
	run    record // as last read; what beats and revisions count is not kept up
	proc   Procedure
	ctx    context.Context
	cancel context.CancelCauseFunc
	holder *holder
	pokes  chan struct{}
	ended  chan flown

	stage    stage
	queue    []work    // to be begun next
	cursor   int       // targets of the stage below this number are begun or queued
	complete bool      // no target of the stage is neither begun nor queued
	retry    time.Time // when a target of the stage is due again; zero: none that is known
	flying   int
	broken   bool      // a step came down without an outcome in the journal
	beaten   time.Time // when the claim was last shown to be alive
}

// flown tells a runner how a step in flight came down.
type flown struct {
	retry time.Duration // after which the target is due again; 0: it is not
	held  bool          // the run has been held
	err   error         // the journal could not be written
}

func newRunner(d *dispatcher, r record, p Procedure) *runner {
	n := &runner{
		d: d, run: r, proc: p, holder: d.hands.join(),
		pokes: make(chan struct{}, 1), ended: make(chan flown, d.options.Workers), beaten: time.Now(),
	}
	n.ctx, n.cancel = context.WithCancelCause(d.ctx)
	n.enter(r.at)
	return n
}

// poke lets the runner look at what may have been asked of its run.
func (r *runner) poke() {
	select {
	case r.pokes <- struct{}{}:
	default:
	}
}

// work carries the run on until there is nothing to do for it now.
func (r *runner) work() error {
	err := r.loop()
	r.cancel(err)
	for ; r.flying > 0; r.flying-- {
		f := <-r.ended
		r.broken = r.broken || f.err != nil
	}
	r.d.hands.leave(r.holder)
	if r.d.ctx.Err() != nil {
		err = errors.Join(err, r.letGo())
	}
	return err
}

// loop is the whole of the engine: what is asked first, then the way back by
// another run, then what can be begun, then the end of the stage.
func (r *runner) loop() error {
	for r.ctx.Err() == nil {
		standing := r.run.state != Running
		turning := false
		if !standing && r.run.direction == Backward {
			var err error
			if turning, err = r.mustTurn(); err != nil {
				return err
			}
		}
		switch {
		case (standing || turning) && r.flying > 0:
		case standing:
			return r.letGo()
		case turning:
			return r.turn()
		default:
			idle, err := r.begin()
			switch {
			case errors.Is(err, errAsked):
				if err := r.look(); err != nil {
					return err
				}
				continue
			case err != nil:
				return err
			case !idle:
				continue
			case r.flying == 0 && r.complete && len(r.queue) == 0:
				gone, err := r.finish()
				if err != nil && !errors.Is(err, errAsked) || gone {
					return err
				}
				if err != nil {
					if err := r.look(); err != nil {
						return err
					}
				}
				continue
			}
		}
		if err := r.wait(); err != nil {
			return err
		}
	}
	return context.Cause(r.ctx)
}

// wait waits until something happens.
func (r *runner) wait() error {
	pause := r.d.options.Lease / 3
	if !r.retry.IsZero() && len(r.queue) < shard/2 {
		pause = min(pause, max(time.Until(r.retry), 0))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case f := <-r.ended:
		return r.land(f)
	case <-r.holder.wake:
	case <-r.pokes:
		return r.peek()
	case <-timer.C:
		if time.Since(r.beaten) >= r.d.options.Lease/3 {
			return r.beat()
		}
	}
	return nil
}

// land takes note of a step that came down.
func (r *runner) land(f flown) error {
	r.flying--
	r.broken = r.broken || f.err != nil
	if f.retry > 0 {
		if at := time.Now().Add(f.retry); r.retry.IsZero() || at.Before(r.retry) {
			r.retry = at
		}
	}
	if f.err == nil && f.held {
		return r.look()
	}
	return f.err
}

// peek looks whether anything was asked of the run, and if so at what.
func (r *runner) peek() error {
	var now record
	err := r.d.store.View(r.ctx, r.run.tenant, func(tx *store.Tx) (err error) {
		now.epoch, now.asked, err = claimOf(tx, r.run.id)
		return err
	})
	if err == nil && (now.epoch != r.run.epoch || now.asked != r.run.asked) {
		return r.look()
	}
	return err
}

// look reads the run again, because something was asked of it. What had been
// read of its targets is read again too.
func (r *runner) look() error {
	var now record
	err := r.d.store.View(r.ctx, r.run.tenant, func(tx *store.Tx) (err error) {
		now, err = selectRun(tx, r.run.id)
		return err
	})
	if err != nil {
		return err
	}
	if now.epoch != r.run.epoch {
		return errFenced
	}
	r.run = now
	r.enter(now.at)
	return nil
}

// beat shows that the owner of the claim is alive.
func (r *runner) beat() error {
	if r.d.options.Sole {
		r.beaten = time.Now()
		return r.peek()
	}
	err := r.d.commit(r.ctx, "renew", event(r.run.tenant, r.run.id, "run.renew"), func(tx *store.Tx) error {
		ok, err := beatRun(tx, r.run.id, r.run.epoch, r.run.asked, nil)
		return r.refused(tx, ok, err)
	})
	if errors.Is(err, errAsked) {
		return r.look()
	}
	r.beaten = time.Now()
	return err
}

// refused says why a commit that names claim and question changed nothing.
func (r *runner) refused(tx *store.Tx, ok bool, err error) error {
	if err != nil || ok {
		return err
	}
	epoch, _, err := claimOf(tx, r.run.id)
	if err == nil && epoch != r.run.epoch {
		return errFenced
	}
	if err == nil {
		return errAsked
	}
	return err
}

// change commits a change of the run itself that was decided under what had
// been asked of it; errAsked if that is no longer so.
func (r *runner) change(what, action string, fn func(*store.Tx, record) error) error {
	return r.d.commit(r.ctx, what, event(r.run.tenant, r.run.id, action), func(tx *store.Tx) error {
		now, err := selectRun(tx, r.run.id)
		switch {
		case err != nil:
			return err
		case now.epoch != r.run.epoch:
			return errFenced
		case now.asked != r.run.asked:
			return errAsked
		}
		return fn(tx, now)
	})
}

// enter begins with a stage, or at an end of the table with the stage next to
// it.
func (r *runner) enter(s stage) {
	if s == top && r.run.direction == Forward {
		s = r.following(top)
	}
	r.stage, r.queue, r.cursor, r.complete, r.retry = s, nil, 0, true, time.Time{}
	if s == top || s == bottom {
		return
	}
	lo, _ := r.run.table.span(s)
	r.cursor, r.complete = lo, false
	if s == r.run.at {
		r.cursor = max(lo, r.run.begun)
	}
	if row := r.run.table.Rows[s.row]; r.run.direction == Backward && !row.Undo {
		r.complete = true
	}
}

// following returns the next stage in which there is something to do.
func (r *runner) following(s stage) stage {
	for {
		s = r.run.table.next(s, r.run.direction)
		if s == top || s == bottom {
			return s
		}
		row := r.run.table.Rows[s.row]
		if r.run.direction == Backward && row.Undo || r.run.direction == Forward && !slices.Contains(r.run.skipped, row.Name) {
			return s
		}
	}
}

// begin begins as many targets as there are hands for. It reports idle if it
// could begin none.
func (r *runner) begin() (idle bool, err error) {
	due := !r.retry.IsZero() && !time.Now().Before(r.retry)
	if due && len(r.queue) < shard/2 || len(r.queue) == 0 && !r.complete {
		if err := r.load(); err != nil {
			return false, err
		}
	}
	taken, rest := r.d.hands.take(r.holder, r.queue)
	if len(taken) == 0 {
		return true, nil
	}
	r.queue = rest
	if err := r.intend(taken); err != nil {
		for _, w := range taken {
			r.d.hands.release(r.holder, w.Host)
		}
		return false, err
	}
	for _, w := range taken {
		r.flying++
		f := flight{d: r.d, ctx: r.ctx, run: r.run, proc: r.proc, stage: r.stage, work: w}
		go func() {
			end := f.fly()
			r.d.hands.release(r.holder, w.Host)
			r.ended <- end
		}()
	}
	return false, nil
}

// load reads targets to begin: those whose time has come, then new ones.
func (r *runner) load() error {
	if r.stage == top || r.stage == bottom {
		return nil
	}
	var retries, fresh []work
	var next, now time.Time
	room := 0
	err := r.d.store.View(r.ctx, r.run.tenant, func(tx *store.Tx) (err error) {
		now = tx.Now()
		if retries, err = selectRetries(tx, r.run, r.stage, shard); err != nil {
			return err
		}
		if next, err = nextRetry(tx, r.run, r.stage); err != nil {
			return err
		}
		fresh = nil
		if room = shard - len(r.queue) - len(retries); room > 0 && !r.complete {
			fresh, err = selectFresh(tx, r.run, r.stage, r.cursor, room)
		}
		return err
	})
	if err != nil {
		return err
	}
	queued := map[int]bool{}
	for _, w := range r.queue {
		queued[w.N] = true
	}
	for _, w := range retries {
		if !queued[w.N] {
			r.queue = append(r.queue, w)
		}
	}
	r.complete = r.complete || room > 0 && len(fresh) < room
	for _, w := range fresh {
		r.queue = append(r.queue, w)
		r.cursor = w.N + 1
	}
	r.retry = time.Time{}
	switch {
	case len(retries) == shard:
		r.retry = time.Now()
	case !next.IsZero():
		r.retry = time.Now().Add(next.Sub(now))
	}
	return nil
}

// intend commits that targets are going to be in the stage. It is the safe
// point at which verbs take effect.
func (r *runner) intend(some []work) error {
	name := r.run.table.Rows[r.stage.row].Name
	what := "intend " + name + " " + some[0].Name
	fields := []audit.Field{
		{Name: "step", Value: name},
		{Name: "direction", Value: string(r.run.direction)},
		{Name: "wave", Value: fmt.Sprint(r.stage.wave)},
		{Name: "first", Value: clip(some[0].Name, 1000)},
		{Name: "targets", Value: fmt.Sprint(len(some))},
	}
	err := r.d.commit(r.ctx, what, event(r.run.tenant, r.run.id, "run.intend", fields...), func(tx *store.Tx) error {
		ok, err := beatRun(tx, r.run.id, r.run.epoch, r.run.asked, &r.stage)
		if err := r.refused(tx, ok, err); err != nil {
			return err
		}
		n, err := insertIntents(tx, r.run, r.stage, some)
		if err == nil && int(n) != len(some) {
			return errAsked
		}
		return err
	})
	if err == nil {
		r.run.at, r.beaten = r.stage, time.Now()
	}
	return err
}

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
