package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A runner works on one claimed run, in one goroutine, with one goroutine for
// each step in flight. One commit writes what has come down and what is to be
// begun next, so that many targets share it. It keeps no state that is not in the journal but a
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
	ended  chan *landed

	stage    stage
	queue    []work    // to be begun next
	cursor   int       // targets of the stage below this number are begun or queued
	complete bool      // no target of the stage is neither begun nor queued
	retry    time.Time // when a target of the stage is due again; zero: none that is known
	flying   int       // begun, and no outcome written
	down     []*landed // of these, those that came down
	patient  time.Time // until when those may wait for others to share a commit
	broken   bool      // a step came down without an outcome in the journal
	beaten   time.Time // when the claim was last shown to be alive
	results  *results
}

const (
	// batch is how many outcomes share a commit at most.
	batch = 64
	// maxPatience bounds for how long an outcome waits for others to share its commit
	// with. It is an eighth of the time that its step took, where that is less: a hand
	// is not idle for longer than that for the sake of it.
	maxPatience = 100 * time.Millisecond
)

func newRunner(d *dispatcher, r record, p Procedure) *runner {
	n := &runner{
		d: d, run: r, proc: p, holder: d.hands.join(),
		pokes: make(chan struct{}, 1), ended: make(chan *landed, d.options.Workers), beaten: time.Now(),
		results: &results{room: &d.room, kept: map[place]json.RawMessage{}},
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
	for r.flying > len(r.down) {
		_ = r.land(<-r.ended)
	}
	// What has come down by itself is written also when the engine is being
	// stopped, or the claim was lost: the journal decides.
	for len(r.down) > 0 {
		if err := r.write(); err != nil && !errors.Is(err, errAsked) {
			break
		}
	}
	r.broken = r.broken || len(r.down) > 0
	r.d.hands.leave(r.holder)
	r.results.forget()
	if r.d.ctx.Err() != nil {
		err = errors.Join(err, r.letGo())
	}
	return err
}

// loop is the whole of the engine: what is asked first, then the way back by
// another run, then what can be begun, then the end of the stage.
func (r *runner) loop() error {
	for r.ctx.Err() == nil {
		if err := r.gather(); err != nil {
			return err
		}
		idle, gone, err := r.act()
		switch {
		case errors.Is(err, errAsked):
			err = r.look()
		case err == nil && !gone && idle:
			err = r.wait()
		}
		if err != nil || gone {
			return err
		}
	}
	return context.Cause(r.ctx)
}

// act does the next thing. It reports idle if there is none until something
// happens, and gone if there is none for this runner. With errAsked, look first.
func (r *runner) act() (idle, gone bool, err error) {
	standing, turning := r.run.state != Running, false
	if !standing && r.run.direction == Backward {
		if turning, err = r.mustTurn(); err != nil {
			return false, false, err
		}
	}
	switch {
	case !standing && !turning:
		return r.begin()
	case len(r.down) > 0:
		return false, false, r.write()
	case r.flying > 0:
		return true, false, nil
	case standing:
		return false, true, r.letGo()
	}
	return false, true, r.turn()
}

// gather takes note of every step that has come down.
func (r *runner) gather() error {
	for {
		select {
		case l := <-r.ended:
			if err := r.land(l); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// land takes note of a step that came down. Its error is why that was cut off.
// Its hand is free at once, so that its outcome can share a commit with the
// intent of what that hand does next.
func (r *runner) land(l *landed) error {
	r.d.hands.release(r.holder, l.work.Host)
	if l.err == nil {
		if len(r.down) == 0 || l.patient.Before(r.patient) {
			r.patient = l.patient
		}
		r.down = append(r.down, l)
		return nil
	}
	r.flying--
	r.broken = true
	return l.err
}

// wait waits until something happens.
func (r *runner) wait() error {
	pause := r.d.options.Lease / 3
	if len(r.down) > 0 {
		pause = min(pause, r.patience())
	}
	if !r.retry.IsZero() && len(r.queue) < shard/2 {
		pause = min(pause, max(time.Until(r.retry), 0))
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	case l := <-r.ended:
		return r.land(l)
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
	if now.state != Running {
		r.d.watches.tell(now.id)
	}
	return nil
}

// beat shows that the owner of the claim is alive.
func (r *runner) beat() error {
	if r.d.options.Sole {
		r.beaten = time.Now()
		return r.peek()
	}
	err := r.d.commit(r.ctx, "renew", event(r.run.tenant, r.run.id, "run.renew"), func(tx *store.Tx) error {
		ok, err := beatRun(tx, r.run.id, r.run.epoch, r.run.asked)
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
	err := r.d.commit(r.ctx, what, event(r.run.tenant, r.run.id, action), func(tx *store.Tx) error {
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
	if err == nil {
		r.d.watches.tell(r.run.id)
		r.d.watches.tell(r.run.backOf) // whose end may be that of this one
	}
	return err
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

// begin writes what has come down, and begins as many targets as there are
// hands for. Where there is neither, and nothing left of the stage, it ends it.
func (r *runner) begin() (idle, gone bool, err error) {
	if slices.ContainsFunc(r.down, func(l *landed) bool { return l.outcome.state == CellFailed }) {
		return false, false, r.write() // it holds the run: nothing more begins
	}
	if r.patience() > 0 {
		return true, false, nil
	}
	due := !r.retry.IsZero() && !time.Now().Before(r.retry)
	if due && len(r.queue) < shard/2 || len(r.queue) == 0 && !r.complete {
		if err := r.load(); err != nil {
			return false, false, err
		}
	}
	taken, rest := r.d.hands.take(r.holder, r.queue)
	switch {
	case len(taken) > 0:
		return false, false, r.fly(taken, rest)
	case len(r.down) > 0:
		return false, false, r.write()
	case r.flying == 0 && r.complete && len(r.queue) == 0:
		gone, err = r.finish()
		return false, gone, err
	}
	return true, false, nil
}

// patience returns for how long what has come down waits for more that is in
// flight. A crash meanwhile is a crash before those outcomes: the steps are done again.
func (r *runner) patience() time.Duration {
	if len(r.down) == 0 || len(r.down) >= batch || len(r.down) == r.flying {
		return 0
	}
	return max(time.Until(r.patient), 0)
}

// fly commits that targets are going to be in the stage, with what has come
// down, and begins them. It is the safe point at which verbs take effect.
func (r *runner) fly(taken, rest []work) error {
	low := r.cursor // of those of the stage that are not begun
	for _, w := range rest {
		if w.attempt == 1 {
			low = min(low, w.N)
		}
	}
	flying := r.flying - min(len(r.down), batch) + len(taken)
	name := r.run.table.Rows[r.stage.row].Name
	ev := event(r.run.tenant, r.run.id, "run.intend",
		audit.Field{Name: "step", Value: name}, audit.Field{Name: "direction", Value: string(r.run.direction)},
		audit.Field{Name: "wave", Value: fmt.Sprint(r.stage.wave)}, audit.Field{Name: "first", Value: clip(taken[0].Name, 1000)},
		audit.Field{Name: "targets", Value: fmt.Sprint(len(taken))})
	err := r.commit("intend "+name+" "+taken[0].Name, ev, func(tx *store.Tx) error {
		ok, err := advanceRun(tx, r.run.id, r.run.epoch, r.run.asked, r.stage, low, flying)
		if err := r.refused(tx, ok, err); err != nil {
			return err
		}
		n, err := insertIntents(tx, r.run, r.stage, taken)
		if err == nil && int(n) != len(taken) {
			return errAsked
		}
		return err
	})
	if err != nil {
		for _, w := range taken {
			r.d.hands.release(r.holder, w.Host)
		}
		r.enter(r.run.at) // what was taken is read again
		return err
	}
	r.queue, r.run.at, r.run.begun, r.beaten = rest, r.stage, low, time.Now()
	for _, w := range taken {
		r.flying++
		f := flight{d: r.d, ctx: r.ctx, run: r.run, proc: r.proc, stage: r.stage, work: w, known: r.results}
		go func() { r.ended <- f.fly() }()
	}
	return nil
}

// write commits what has come down.
func (r *runner) write() error { return r.commit("", audit.Event{}, nil) }

// commit commits what has come down, each with an event of its own, and with it
// what more does, if that is not nil. If more fails by errAsked, or something
// that came down cannot be recorded, what came down is committed without it, and
// nothing else.
func (r *runner) commit(what string, ev audit.Event, more func(*store.Tx) error) error {
	some := r.down[:min(len(r.down), batch)]
	err := r.commitTogether(some, what, ev, more)
	failed := slices.ContainsFunc(some, func(l *landed) bool { return l.failed })
	if err == nil || !errors.Is(err, errAsked) && !failed {
		return err
	}
	for len(some) > 0 {
		l := some[0]
		alone := r.commitTogether(some[:1], "", audit.Event{}, nil)
		if alone != nil && l.failed && !errors.Is(alone, errCrashed) && trust.KindOf(alone) != trust.Unavailable {
			l.unrecorded(alone)
			alone = r.commitTogether(some[:1], "", audit.Event{}, nil)
		}
		if alone != nil {
			return alone
		}
		some = some[1:]
	}
	return errAsked // whatever was going to be begun is to be looked at again
}

// commitTogether makes one commit of the first that came down, which some is,
// and of more.
func (r *runner) commitTogether(some []*landed, what string, ev audit.Event, more func(*store.Tx) error) error {
	if len(some) == 0 && more == nil {
		return nil
	}
	names := []string{}
	for _, l := range some {
		names = append(names, "outcome "+l.name())
	}
	also := some
	if more == nil {
		also, ev = some[:len(some)-1], some[len(some)-1].event()
	} else {
		names = append(names, what)
	}
	ctx := r.ctx
	if len(some) > 0 {
		detached, cancel := context.WithTimeout(context.WithoutCancel(r.ctx), r.d.options.Lease)
		defer cancel()
		ctx = detached
	}
	err := r.d.commit(ctx, strings.Join(names, ", "), ev, func(tx *store.Tx) error {
		for i, l := range some {
			if err := l.write(tx); err != nil {
				return err
			}
			if i < len(also) {
				if err := tx.Also(l.event()); err != nil {
					return err
				}
			}
		}
		if more != nil {
			return more(tx)
		}
		return landRun(tx, r.run.id, r.flying-len(some))
	})
	if err != nil {
		return err
	}
	held := false
	for _, l := range some {
		r.flying--
		r.results.put(place{l.stage.row, l.work.N}, l.outcome.result)
		if r.d.options.Landed != nil {
			r.d.options.Landed(r.run.procedure, l.view.Step, l.outcome.state)
		}
		held = held || l.outcome.state == CellFailed
		if l.retry > 0 {
			if at := time.Now().Add(l.retry); r.retry.IsZero() || at.Before(r.retry) {
				r.retry = at
			}
		}
	}
	r.down = r.down[len(some):]
	if held {
		return r.look()
	}
	return nil
}

// parting reports whether the stage is for targets that were left, too.
func (r *runner) parting() bool {
	step, _ := r.proc.step(r.run.table.Rows[r.stage.row].Name)
	return step.Parting && (r.run.direction == Backward) == (step.Undo != nil)
}

// load reads targets to begin: those whose time has come, then new ones.
func (r *runner) load() error {
	if r.stage == top || r.stage == bottom {
		return nil
	}
	var retries, fresh []work
	var next, now time.Time
	cursor, more := r.cursor, !r.complete
	err := r.d.store.View(r.ctx, r.run.tenant, func(tx *store.Tx) (err error) {
		now = tx.Now()
		if retries, err = selectRetries(tx, r.run, r.stage, shard); err != nil {
			return err
		}
		if next, err = nextRetry(tx, r.run, r.stage); err != nil {
			return err
		}
		fresh, cursor, more = nil, r.cursor, !r.complete
		for room := shard - len(r.queue) - len(retries); more && len(fresh) < room; {
			var some []work
			if some, cursor, more, err = selectFresh(tx, r.run, r.stage, r.parting(), cursor, room-len(fresh)); err != nil {
				return err
			}
			fresh = append(fresh, some...)
		}
		return nil
	})
	if err != nil {
		return err
	}
	queued := map[int]bool{}
	for _, w := range r.queue {
		queued[w.N] = true
	}
	for _, w := range append(retries, fresh...) {
		if !queued[w.N] {
			r.queue = append(r.queue, w)
		}
	}
	r.cursor, r.complete, r.retry = cursor, !more, time.Time{}
	switch {
	case len(retries) == shard:
		r.retry = time.Now()
	case !next.IsZero():
		r.retry = time.Now().Add(next.Sub(now))
	}
	return nil
}
