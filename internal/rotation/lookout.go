package rotation

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Row Reconfirm looks at every identity file before the first old line goes. Until
// the last one goes, a host may be waited for, or a person: hours or days, in which
// a backup may put the old key back. So each wave is asked for anew, and whatever is
// withdrawn a minute later: docs/design/0007 says what that costs.
const (
	freshLook = time.Minute // how long a look stands, within a wave
	lookers   = 16          // how many hosts a look is at at a time
)

// A lookout is what this process remembers of one run's identity files, so that the
// many servers of a wave cost one look. Whatever it forgets is looked at again.
type lookout struct {
	turn chan struct{} // held by the one who looks

	asked        int64 // Run.Asked when it was made
	wave         int
	began, ended time.Time
	err          error
	told         map[int]telling // by identity place: for what the run was held
}

// A telling is that a person was to be told of what lies at an identity place. Who
// has asked something of the run since has read it.
type telling struct {
	asked int64
	sha   string
}

// lookouts are those of all runs.
type lookouts struct {
	mu  sync.Mutex
	all map[trust.RunID]*lookout
}

func (l *lookouts) of(run trust.RunID) *lookout {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.all[run]
	if o == nil {
		o = &lookout{turn: make(chan struct{}, 1), told: map[int]telling{}}
		l.all[run] = o
	}
	return o
}

func (l *lookouts) forget(run trust.RunID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.all, run)
}

// noneHoldsOld fails where an identity file of the run holds a key again that the run
// withdraws: whoever uses it would be locked out of what is withdrawn now. A file that
// the run was held for, and then resumed, gets the new key again; that is what the
// record is of.
func (ro *Rotator) noneHoldsOld(ctx context.Context, c cell, wave int) (job.Record, error) {
	if c.args.Compromised {
		return nil, nil // it goes, whoever holds it
	}
	o := ro.lookouts.of(c.run.ID)
	arrived := time.Now()
	select {
	case o.turn <- struct{}{}:
		defer func() { <-o.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	same := o.asked == c.run.Asked && o.wave == wave
	switch {
	case same && o.began.After(arrived): // it was made while this one waited
		return nil, o.err
	case same && o.err == nil && time.Since(o.ended) < freshLook:
		return nil, nil
	}
	began := time.Now()
	record, err := ro.look(ctx, c.run, o.told)
	if ctx.Err() == nil {
		o.asked, o.wave, o.began, o.ended, o.err = c.run.Asked, wave, began, time.Now(), err
	}
	return record, err
}

// look asks at all identity places of a run that were not left.
func (ro *Rotator) look(ctx context.Context, r job.Run, told map[int]telling) (job.Record, error) {
	var mu sync.Mutex // of what follows
	var records []job.Record
	var holds, away error
	var g errgroup.Group
	g.SetLimit(lookers)
	for t, err := range r.Targets(ctx, Identities) {
		if err != nil {
			away = err
			break
		}
		mu.Lock()
		was := told[t.N]
		mu.Unlock()
		g.Go(func() error {
			record, sha, err := ro.lookAt(ctx, r, t, was)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case sha != "":
				told[t.N], holds = telling{r.Asked, sha}, err
			case trust.KindOf(err) == trust.Unavailable:
				away = unasked(r, t, err)
			case err != nil:
				away = err
			default:
				delete(told, t.N)
				if record != nil {
					records = append(records, record)
				}
			}
			return nil
		})
	}
	_ = g.Wait() // it has no errors of its own
	if err := cmp.Or(holds, away); err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		for _, record := range records {
			if err := record(tx); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// unasked is why a look at an identity place has to be taken again. It is not the
// host of the row's own target that does not answer, and nobody is to leave that for it.
func unasked(r job.Run, t job.Target, err error) error {
	later := time.Second << min(r.Attempt, 8)
	return (&trust.Error{
		Kind: trust.Unavailable, Message: fmt.Sprintf("%s may hold the old key again, and cannot be asked: %v", t.Name, err),
		Err: job.Until(time.Now().Add(later)),
	}).WithHint("keyturn run leave %s %s goes on without asking", r.ID, t.Name)
}

// lookAt asks at one identity place. With an error for which a person has to be asked,
// it returns the hash of what lies there; was is what one was told of before.
func (ro *Rotator) lookAt(ctx context.Context, r job.Run, t job.Target, was telling) (record job.Record, sha string, err error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil {
		return nil, "", err
	}
	if left, err := r.Left(ctx, c.target()); err != nil || left {
		return nil, "", err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, "", err
	}
	defer h.Close()
	now, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
	if err != nil {
		return nil, "", err
	}
	// Whatever else lies there, or nothing, no longer needs the old key.
	if key, _, err := now.Key(); err != nil || key != c.pair.OldKey {
		return nil, "", nil
	}
	sha = sum(now.Marshal())
	held := trust.Errorf(trust.Conflict, "%s on %s holds the old key again: something else writes that file; where the old key is still accepted, it stays", c.spec.Path, c.spec.Name)
	if f.untouched() != "" {
		return nil, sha, held.WithHint("put another key there, then keyturn run resume %s; keyturn run back %s gives up", r.ID, r.ID)
	}
	s, err := ro.astray(ctx, c, f, now)
	switch {
	case err != nil:
		return nil, "", err
	case !s.sealed:
		return nil, sha, held.WithHint("put the new key there, then keyturn run resume %s; keyturn run back %s gives up", r.ID, r.ID)
	case was.sha != sha || was.asked >= r.Asked:
		return nil, sha, held.WithHint("find what else writes that file; keyturn run resume %s installs the new key again, keyturn run back %s gives up", r.ID, r.ID)
	}
	record, err = ro.installOver(ctx, c, f, h, now)
	return record, "", err
}
