package control

import (
	"context"
	"encoding/json"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Run is how a run stands, with the keys that it is about.
type Run struct {
	job.Detail
	// Keys are, of a run that rotates, retires or restores, its keys.
	Keys []KeyChange
	// ApprovedBy is who approved of it, as Approval.ApprovedBy, or empty.
	ApprovedBy string
}

// A KeyChange is a key that a run takes out of use, and those that take its
// place: none in a retirement.
type KeyChange struct {
	Old trust.KeyID
	New []trust.KeyID
}

// ListRuns lists runs, newest first. next is Page.After of the page that
// follows, or empty after the last.
func (p *Plane) ListRuns(ctx context.Context, actor identity.Actor, f job.Filter, page Page) (list []job.Summary, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	after, err := page.id()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.RunsRead, func(tx *store.Tx) error {
		list, err = p.engine.List(tx, f, trust.RunID(after), limit)
		return err
	})
	if len(list) == limit {
		next = string(list[limit-1].ID)
	}
	return list, next, err
}

// ShowRun shows a run.
func (p *Plane) ShowRun(ctx context.Context, actor identity.Actor, id trust.RunID) (r Run, err error) {
	err = p.view(ctx, actor, identity.RunsRead, func(tx *store.Tx) error {
		r.Detail, err = p.engine.Show(tx, id)
		if err != nil {
			return err
		}
		r.Keys = keysOf(r.Procedure, r.Args)
		r.ApprovedBy, err = approverOf(tx, id)
		return err
	})
	return r, err
}

// keysOf reads the keys out of the arguments of a run.
func keysOf(procedure string, args json.RawMessage) []KeyChange {
	pairs, err := rotation.PairsOf(procedure, args)
	if err != nil {
		return nil
	}
	changes := make([]KeyChange, len(pairs))
	for i, pair := range pairs {
		changes[i].Old = pair.Old
		if pair.New != "" {
			changes[i].New = []trust.KeyID{pair.New}
		}
	}
	return changes
}

// ListRunPlaces lists what a run of a rotation, retirement or dry run found and
// did at each of its places.
func (p *Plane) ListRunPlaces(ctx context.Context, actor identity.Actor, id trust.RunID, page Page) (list []rotation.PlaceReport, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.RunsRead, func(tx *store.Tx) error {
		r, err := p.engine.Get(tx, id)
		if err != nil {
			return err
		}
		list, next, err = rotation.ReportPlaces(tx, r, page.After, limit)
		return err
	})
	return list, next, err
}

// PauseRun has a run begin nothing more until it is resumed.
func (p *Plane) PauseRun(ctx context.Context, actor identity.Actor, id trust.RunID) error {
	return p.ask(ctx, actor, "run.pause", id, func(tx *store.Tx) error {
		return p.engine.Pause(tx, actor.Audit(), id)
	})
}

// PauseAllRuns pauses every open run, and returns how many those were.
func (p *Plane) PauseAllRuns(ctx context.Context, actor identity.Actor) (n int, err error) {
	err = p.update(ctx, actor, needs(identity.RunsWrite), "run.pause-all", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		n, err = p.engine.PauseAll(tx, actor.Audit())
		return err
	})
	return n, p.wake(err)
}

// ResumeAllRuns has every run that was paused go on, and returns how many that are.
// Runs that are held stay so.
func (p *Plane) ResumeAllRuns(ctx context.Context, actor identity.Actor) (n int, err error) {
	err = p.update(ctx, actor, needs(identity.RunsWrite), "run.resume-all", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		n, err = p.engine.ResumeAll(tx, actor.Audit())
		return err
	})
	return n, p.wake(err)
}

// ResumeRun has a run that was paused, or is held, go on.
func (p *Plane) ResumeRun(ctx context.Context, actor identity.Actor, id trust.RunID) error {
	return p.ask(ctx, actor, "run.resume", id, func(tx *store.Tx) error {
		return p.engine.Resume(tx, actor.Audit(), id)
	})
}

// BackRun takes a run back, and returns the run that does so. soak is how long
// both keys are accepted on the way; nil for as long as on the way there. A run
// that has begun to withdraw a key that is marked as compromised goes back by
// Rollback, with force, only.
func (p *Plane) BackRun(ctx context.Context, actor identity.Actor, id trust.RunID, soak *time.Duration) (by trust.RunID, err error) {
	if err := require(actor, identity.RunsWrite); err != nil {
		return "", err
	}
	args, err := rotation.BackArgs(soak)
	if err != nil {
		return "", err
	}
	err = p.ask(ctx, actor, "run.back", id, func(tx *store.Tx) error {
		r, err := p.engine.Get(tx, id)
		if err != nil {
			return err
		}
		if r.Procedure == rotation.RotateProcedure || r.Procedure == rotation.RetireProcedure {
			withdrawing, err := r.In(tx).Began("Withdraw")
			if err != nil {
				return err
			}
			if err := refuseCompromised(tx, keysOf(r.Procedure, r.Args), !withdrawing); err != nil {
				return err
			}
		}
		by, err = p.engine.Back(tx, actor.Audit(), id, args)
		return err
	})
	return by, err
}

// A Leave says what places a run is to go on without: those that match every
// field that is set. At least one is.
type Leave struct {
	Place string // by its name, as the run shows it
	Host  string // every place on the host of this name or id
	// Unreachable: those that wait because their host does not answer.
	Unreachable bool
}

// Left is what became of a run that was to go on without some places.
type Left struct {
	Places int // how many these are
	// Back: the run cannot go on without them, and goes back.
	Back bool
	// Additive: the run goes on, and withdraws nothing any more.
	Additive bool
}

// LeaveRun has a run go on without some places, as far as it can.
func (p *Plane) LeaveRun(ctx context.Context, actor identity.Actor, id trust.RunID, l Leave) (left Left, err error) {
	if err := require(actor, identity.RunsWrite); err != nil {
		return left, err
	}
	if l == (Leave{}) {
		return left, trust.Errorf(trust.Invalid, "no place is named").WithField("place").WithHint("keyturn run show %s", id)
	}
	err = p.ask(ctx, actor, "run.leave", id, func(tx *store.Tx) error {
		w := job.Which{Name: l.Place, Unreachable: l.Unreachable}
		if l.Host != "" {
			h, err := inventory.FindHost(tx, l.Host)
			if err != nil {
				return err
			}
			w.Host = h.ID
		}
		if left.Places, err = p.engine.Leave(tx, actor.Audit(), id, w); err != nil {
			return err
		}
		r, err := p.engine.Get(tx, id)
		left.Back, left.Additive = r.Direction == job.Backward, len(r.Skipped) > 0
		return err
	})
	return left, err
}

func (p *Plane) ask(ctx context.Context, actor identity.Actor, action string, id trust.RunID, fn func(*store.Tx) error) error {
	return p.wake(p.update(ctx, actor, needs(identity.RunsWrite), action, "run:"+subject(string(id)), fn))
}

// WaitForRun returns when a run's revision is no longer since, or the run has ended,
// or patience is over: a look, repeated. It waits for no host. A run that goes on
// changes all the time, and to show it takes more than a look: so its progress is
// told a few times a second, and that it does not go on, at once where this process
// works on it. ctx bounds the looks, not the patience: when that ends, there is an
// answer.
func (p *Plane) WaitForRun(ctx context.Context, actor identity.Actor, id trust.RunID, since int64, patience time.Duration) (Run, error) {
	const progress = 250 * time.Millisecond
	if err := require(actor, identity.RunsRead); err != nil {
		return Run{}, err
	}
	begun := time.Now()
	stood, stop := p.engine.Watch(id)
	defer stop()
	enough := time.NewTimer(patience)
	defer enough.Stop()
	look := time.NewTicker(progress)
	defer look.Stop()
	for {
		var revision int64
		var state job.State
		err := p.view(ctx, actor, identity.RunsRead, func(tx *store.Tx) (err error) {
			revision, state, err = p.engine.Revision(tx, id)
			return err
		})
		if err != nil {
			return Run{}, err
		}
		told := since == 0 || state != job.Running || time.Since(begun) >= progress
		if revision != since && told || !state.Open() {
			return p.ShowRun(ctx, actor, id)
		}
		select {
		case <-ctx.Done():
			return p.ShowRun(context.WithoutCancel(ctx), actor, id)
		case <-enough.C:
			return p.ShowRun(ctx, actor, id)
		case <-stood:
		case <-look.C:
		}
	}
}
