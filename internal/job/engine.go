package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Options say how an Engine works.
type Options struct {
	// Workers is how many steps may be in flight at once. Default 32.
	Workers int
	// Installation is handed to steps, which mark with it what they hold on
	// hosts.
	Installation string
	// Sole: no other process works on this database, as is so for SQLite. A
	// claim that a dead process left behind is then taken at once instead of
	// after a Lease.
	Sole bool
	// Lease is how long a claim is respected after its owner was last seen
	// alive. Default 30 s.
	Lease time.Duration
	// StepTimeout bounds one call of Do or Undo. One that takes longer counts
	// as unavailable. Default 10 min.
	StepTimeout time.Duration
	// Planners plan what schedules of each kind start.
	Planners map[string]Planner
	// Hook is called before and after every commit of the engine and every
	// Do and Undo. An error is a crash at that instant: the engine writes
	// nothing more, and Run returns that error. For tests.
	Hook func(ctx context.Context, point string) error
	// Landed, if it is there, is told how a step came out at a target, once that
	// is committed. It is called by many goroutines, and must not wait.
	Landed func(procedure, step string, outcome CellState)
	// Log is where panics and lost claims are told. Default slog.Default().
	Log *slog.Logger
}

// An Engine holds the procedures of an installation, and runs them.
//
// Its verbs may be called whether or not Run is under way here.
type Engine struct {
	store      *store.Store
	procedures map[string]Procedure
	options    Options
	wake       chan struct{}
	watches    watches
	// mute is why the last commit of a run did not go through, for want of a
	// database that takes it, and nil when one did since.
	mute atomic.Pointer[string]
}

// New returns an engine for the given procedures. An error is a mistake in one
// of their tables.
func New(s *store.Store, procedures []Procedure, o Options) (*Engine, error) {
	e := &Engine{store: s, procedures: map[string]Procedure{}, options: o, wake: make(chan struct{}, 1), watches: watches{all: map[trust.RunID]map[chan struct{}]bool{}}}
	for _, p := range procedures {
		if err := p.check(); err != nil {
			return nil, err
		}
		if _, ok := e.procedures[p.Name]; ok {
			return nil, fmt.Errorf("job: two procedures are called %q", p.Name)
		}
		e.procedures[p.Name] = p
	}
	if o.Workers <= 0 {
		e.options.Workers = 32
	}
	if o.Lease <= 0 {
		e.options.Lease = 30 * time.Second
	}
	if o.StepTimeout <= 0 {
		e.options.StepTimeout = 10 * time.Minute
	}
	if o.Log == nil {
		e.options.Log = slog.Default()
	}
	return e, nil
}

// procedure returns the table that a run was planned for.
func (e *Engine) procedure(r record) (Procedure, error) {
	p, ok := e.procedures[r.procedure]
	if !ok || !r.table.sameRows(tableOf(p)) {
		return p, trust.Errorf(trust.Conflict, "run %q was planned by another version of this program: procedure %q has other rows here", r.id, r.procedure)
	}
	return p, nil
}

// Wake makes the engine look at once for what is to be done. It is called
// after the commit of every verb; without it, that happens within a third of
// the lease.
func (e *Engine) Wake() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

const (
	maxRuns = 256 // runs that are worked on at once
	shard   = 128 // targets of one run in memory
)

// A dispatcher is one call of Engine.Run: what finds runs to work on, and works
// on them.
type dispatcher struct {
	*Engine
	owner   string
	hands   *hands
	ctx     context.Context
	cancel  context.CancelCauseFunc
	crashed atomic.Bool
	room    atomic.Int64 // what the runners may remember of results, in bytes
	runners sync.WaitGroup
	ended   chan ended

	active  map[trust.RunID]*runner
	resting map[trust.RunID]time.Time // runs whose work has met an error of the store
	seen    map[trust.RunID]sighting  // claims of others
}

// A sighting is since when another engine's claim has shown no sign of life.
type sighting struct {
	claim claimable
	since time.Time
}

// ended tells the dispatcher that a runner has.
type ended struct {
	run trust.RunID
	err error
}

// Run works on runs until ctx ends. It begins with everything that is
// unfinished, whatever became of the process that worked on it. What is in
// flight when ctx ends is told by its context; Run returns when all of it has
// returned. The error is nil, or that of Options.Hook.
func (e *Engine) Run(ctx context.Context) error {
	d := &dispatcher{
		Engine: e, owner: uuid.NewString(), hands: newHands(e.options.Workers), ended: make(chan ended, maxRuns),
		active: map[trust.RunID]*runner{}, resting: map[trust.RunID]time.Time{}, seen: map[trust.RunID]sighting{},
	}
	d.room.Store(maxResults)
	d.ctx, d.cancel = context.WithCancelCause(ctx)
	defer d.cancel(nil)
	for d.ctx.Err() == nil {
		sleep := d.round()
		timer := time.NewTimer(sleep)
		select {
		case <-d.ctx.Done():
		case <-e.wake:
			for _, r := range d.active {
				r.poke()
			}
		case end := <-d.ended:
			d.reap(end)
		case <-timer.C:
		}
		timer.Stop()
	}
	d.runners.Wait()
	if d.crashed.Load() {
		return context.Cause(d.ctx)
	}
	return nil
}

// round starts what is due, and returns for how long there is nothing more to
// start unless something happens.
func (d *dispatcher) round() time.Duration {
	poll := d.options.Lease / 3
	next, err := d.schedules()
	if err == nil {
		var more time.Duration
		more, err = d.claims()
		next = min(next, more)
	}
	if err != nil && d.ctx.Err() == nil {
		d.options.Log.Error("looking for work", "error", err)
		return min(poll, 5*time.Second)
	}
	return min(poll, next)
}

// claims takes runs that want work and that nobody works on, and returns when
// the next one will.
func (d *dispatcher) claims() (time.Duration, error) {
	var due []claimable
	var wait time.Duration
	err := d.store.View(d.ctx, store.System, func(tx *store.Tx) error {
		list, next, err := selectDue(tx, 4*maxRuns)
		due, wait = list, d.options.Lease
		if next > 0 {
			wait = max(store.Time(next).Sub(tx.Now()), 0)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	seen := d.seen
	d.seen = map[trust.RunID]sighting{}
	for _, c := range due {
		if s, ok := seen[c.id]; ok {
			d.seen[c.id] = s
		}
		if len(d.active) >= maxRuns {
			continue
		}
		if d.active[c.id] != nil || !d.mayTake(c, &wait) {
			continue
		}
		r, err := d.claim(c)
		switch {
		case err == nil:
			d.active[c.id] = r
			d.runners.Add(1)
			go func() {
				defer d.runners.Done()
				d.ended <- ended{c.id, r.work()}
			}()
		case errors.Is(err, errCrashed):
			return 0, nil
		case !errors.Is(err, errAsked):
			return 0, err
		}
	}
	return wait, nil
}

// mayTake reports whether a run may be claimed now. Where it may later, it
// lowers wait. No clock but this process's monotonic one is asked: an owner is
// dead when its claim has not changed for a lease while we looked.
func (d *dispatcher) mayTake(c claimable, wait *time.Duration) bool {
	if until, ok := d.resting[c.id]; ok {
		if left := time.Until(until); left > 0 {
			*wait = min(*wait, left)
			return false
		}
		delete(d.resting, c.id)
	}
	if c.owner == "" || c.owner == d.owner || d.options.Sole {
		delete(d.seen, c.id)
		return true
	}
	if s, ok := d.seen[c.id]; ok && s.claim == c {
		left := d.options.Lease - time.Since(s.since)
		*wait = min(*wait, max(left, 0))
		return left <= 0
	}
	d.seen[c.id] = sighting{c, time.Now()}
	*wait = min(*wait, d.options.Lease)
	return false
}

// reap forgets a runner that has ended.
func (d *dispatcher) reap(end ended) {
	delete(d.active, end.run)
	delete(d.seen, end.run)
	if end.err == nil || d.ctx.Err() != nil {
		return
	}
	d.options.Log.Warn("work on a run was broken off, and will be taken up again", "run", end.run, "error", end.err)
	d.resting[end.run] = time.Now().Add(backoff(2))
}

// claim takes a run. It is errAsked if the run is not as it was when c was read.
func (d *dispatcher) claim(c claimable) (*runner, error) {
	var r record
	var p Procedure
	lapsed := false // it waited for approval, and does no more
	err := d.commit(d.ctx, "claim", event(c.tenant, c.id, "run.claim"), func(tx *store.Tx) (err error) {
		if r, err = selectRun(tx, c.id); err != nil {
			return err
		}
		if r.epoch != c.epoch || r.beat != c.beat || r.owner != c.owner || r.state != Running && r.state != Waiting || r.wake > store.Micros(tx.Now()) {
			return errAsked
		}
		if lapsed = r.awaits(); lapsed {
			return d.lapse(tx, r)
		}
		again := int64(0)
		if r.owner != "" {
			if again, err = requeue(tx, r); err != nil {
				return err
			}
		}
		r.owner, r.state, r.reason, r.flying = d.owner, Running, "", 0
		r.epoch++
		r.beat++
		if p, err = d.procedure(r); err != nil {
			r.state, r.reason, r.owner = Held, sentence(err), ""
		}
		tx.Note("epoch", fmt.Sprint(r.epoch))
		if again > 0 {
			tx.Note("again", fmt.Sprint(again))
		}
		return updateRun(tx, r)
	})
	if err != nil {
		return nil, err
	}
	if lapsed {
		d.watches.tell(c.id)
	}
	if lapsed || r.state == Held {
		return nil, errAsked
	}
	return newRunner(d, r, p), nil
}

// commit is an Update with the points before and after it.
func (d *dispatcher) commit(ctx context.Context, what string, ev audit.Event, fn func(*store.Tx) error) error {
	if err := d.point(ctx, "before "+what); err != nil {
		return err
	}
	if err := d.store.Update(ctx, ev, fn); err != nil {
		if trust.KindOf(err) == trust.Unavailable && ctx.Err() == nil {
			d.mute.Store(new(sentence(err)))
		}
		return err
	}
	d.mute.Store(nil)
	return d.point(ctx, "after "+what)
}

// point calls the hook. Its error, and having crashed already, is errCrashed.
func (d *dispatcher) point(ctx context.Context, name string) error {
	if d.crashed.Load() {
		return errCrashed
	}
	if d.options.Hook == nil {
		return nil
	}
	if err := d.options.Hook(ctx, name); err != nil {
		if d.crashed.CompareAndSwap(false, true) {
			d.cancel(err)
		}
		return errCrashed
	}
	return nil
}

// event returns an event of the engine about a run.
func event(tenant trust.TenantID, id trust.RunID, action string, fields ...audit.Field) audit.Event {
	return audit.Event{
		Tenant: tenant, Actor: audit.Actor{Kind: "system"}, Action: action, Subject: "run:" + string(id), Fields: fields,
	}
}
