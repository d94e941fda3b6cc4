package rotation

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// generate is row Generate. The commit that started the run made the new keys
// and sealed them; here each is used once, so that a key which cannot be
// opened again is found before its public half goes anywhere. What an owner supplied
// nobody here can use.
func (ro *Rotator) generate(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	var args Args
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	for _, p := range args.Pairs {
		if p.Supplied {
			continue
		}
		signer, err := ro.keyring.Signer(ctx, r.Tenant, p.New)
		if err != nil {
			return nil, err
		}
		challenge := make([]byte, 32)
		if _, err := rand.Read(challenge); err != nil {
			return nil, err
		}
		sig, err := signer.Sign(rand.Reader, challenge)
		if err != nil {
			return nil, fmt.Errorf("new key %s: %w", p.New, err)
		}
		public, err := p.NewKey.SSH()
		if err != nil {
			return nil, err
		}
		if err := public.Verify(challenge, sig); err != nil || !bytes.Equal(signer.PublicKey().Marshal(), p.NewKey.Blob()) {
			return nil, trust.Errorf(trust.Internal, "new key %s does not open what it signed", p.New)
		}
	}
	return nil, nil
}

// recheck is row Recheck: the plan still names every place that, by the newest
// scan, holds an old key, and each new key opens something before it is installed.
func (ro *Rotator) recheck(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	if err := ro.checkPlan(ctx, r); err != nil {
		return nil, err
	}
	return nil, ro.checkOpens(ctx, r)
}

// checkOpens holds a run that would install a key which no place has taken: whoever
// has the old one would be left with one that opens nothing.
func (ro *Rotator) checkOpens(ctx context.Context, r job.Run) error {
	useless, err := ro.touchedPairs(ctx, r, Identities, nil)
	if err != nil || len(useless) == 0 {
		return err
	}
	open, err := ro.touchedPairs(ctx, r, Authorized, useless)
	if err != nil {
		return err
	}
	for pair, c := range useless {
		if _, ok := open[pair]; !ok && !c.args.Compromised {
			return trust.Errorf(trust.Conflict, "no place has taken the new key in the place of %s: %s keeps the old one", c.pair.Old, c.spec.name()).
				WithHint("keyturn run show %s says why; mend that, keyturn run back %s, then rotate again", r.ID, r.ID)
		}
	}
	return nil
}

// touchedPairs returns for each pair of which the run changes a place of a list one
// such place. With among, it looks no further than for these.
func (ro *Rotator) touchedPairs(ctx context.Context, r job.Run, list job.List, among map[int]cell) (map[int]cell, error) {
	pairs := map[int]cell{}
	for t, err := range r.Targets(ctx, list) {
		if err != nil {
			return nil, err
		}
		c, err := decode(r, t)
		if err != nil {
			return nil, err
		}
		_, known := pairs[c.spec.Pair]
		_, wanted := among[c.spec.Pair]
		if known || t.Left || among != nil && !wanted {
			continue
		}
		f, err := c.baseline(ctx)
		if err != nil {
			return nil, err
		}
		if f.untouched() == "" {
			pairs[c.spec.Pair] = c
		}
		if among != nil && len(pairs) == len(among) {
			break
		}
	}
	return pairs, nil
}

// checkPlan is CheckPlan, of a run that has begun.
func (ro *Rotator) checkPlan(ctx context.Context, r job.Run) error {
	return ro.store.View(ctx, r.Tenant, func(tx *store.Tx) error { return CheckPlan(tx, r) })
}

// soaking is what row Soak saves.
type soaking struct {
	Began time.Time `json:"began"`
	Until time.Time `json:"until"`
	// Looked is when the logs were last asked who uses a supplied key, and Unseen and
	// Warned are the old keys of which a person was told for the first time, or for the
	// last, that nobody was seen to use the new one.
	Looked time.Time     `json:"looked,omitzero"`
	Unseen []trust.KeyID `json:"unseen,omitempty"`
	Warned []trust.KeyID `json:"warned,omitempty"`
	// Anew: an old key was used in the soak, which begins again when the run is resumed.
	Anew bool `json:"anew,omitempty"`
	// Held: the run is held until the owners of its keys have changed, see Changed.
	Held bool `json:"held,omitempty"`
}

// soak is row Soak: both keys are accepted for as long as the plan says, and until the
// owner of a key that he supplied uses it.
func (ro *Rotator) soak(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	var args Args
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	var s soaking
	if _, err := r.ResultOf(ctx, "Soak", t, &s); err != nil {
		return nil, err
	}
	s.Held = false
	if s.Until.IsZero() || s.Anew {
		s.Anew, s.Began = false, time.Now().UTC()
		s.Until = s.Began.Add(args.Soak)
		if args.Compromised {
			s.Until = s.Began
		}
	}
	if err := r.Save(s); err != nil {
		return nil, err
	}
	if time.Now().Before(s.Until) {
		return nil, job.Until(s.Until)
	}
	if args.Compromised {
		return nil, nil
	}
	if err := ro.checkPlan(ctx, r); err != nil {
		return nil, err
	}
	err := ro.switched(ctx, r, args, &s)
	return nil, cmp.Or(r.Save(s), err)
}

// archive is row Archive: the old halves stay, sealed, until the retention
// ends. Where a place was left that still accepts the old key, they stay for
// good: nobody may destroy what still opens something.
func (ro *Rotator) archive(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	var args Args
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	left := map[trust.KeyID]bool{}
	type kept struct {
		key   trust.KeyID
		place inventory.ArchivedPlace
	}
	var places []kept
	for t, err := range r.Targets(ctx, Places) {
		if err != nil {
			return nil, err
		}
		c, err := decode(r, t)
		if err != nil {
			return nil, err
		}
		if t.Left {
			left[c.pair.Old] = true
		}
		var f found
		if ok, err := r.ResultOf(ctx, "Baseline", t, &f); err != nil {
			return nil, err
		} else if !ok || f.untouched() != "" {
			continue
		}
		if c.pair.Out {
			continue // what was kept of it when it went is what comes back
		}
		a := inventory.ArchivedPlace{Place: c.spec.place(), Kind: inventory.AuthorizedFile, HostName: c.spec.Name}
		if c.spec.Half == identityHalf {
			a.Kind, a.Snapshot = inventory.IdentityFile, f.Snapshot
		}
		places = append(places, kept{c.pair.Old, a})
	}
	return func(tx *store.Tx) error {
		for _, p := range places {
			if err := inventory.Archive(tx, r.ID, p.key, p.place); err != nil {
				return err
			}
		}
		for _, p := range args.Pairs {
			if p.Out {
				continue
			}
			until := tx.Now().Add(args.Retention)
			if left[p.Old] {
				until = time.Time{}
			}
			if err := inventory.Archived(tx, r.ID, p.Old, until); err != nil {
				return err
			}
		}
		return nil
	}, nil
}

// release is row Release, and the way back of row Baseline: nothing of ours is
// left at the place. A Baseline that failed may have taken the lock and may not:
// a lock that is another's is none of ours to release.
func (ro *Rotator) release(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, err := decode(r, t)
	if err != nil {
		return nil, err
	}
	var f found
	known, err := r.ResultOf(ctx, "Baseline", t, &f)
	if err != nil || known && f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	err = h.Release(ctx, c.lock(), c.spec.User, c.spec.Path)
	var locked *remote.LockedError
	if !known && (errors.As(err, &locked) || trust.KindOf(err) == trust.NotFound) {
		return nil, nil
	}
	return nil, err
}
