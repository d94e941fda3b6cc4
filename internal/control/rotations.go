package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Rotate asks to rotate keys. What is nil is as the settings say.
type Rotate struct {
	Keys        []trust.KeyID
	Soak        *time.Duration
	Canary      *int
	DryRun      bool
	Share       bool
	Compromised bool
	// Discovery, where it is given, must be the name of one that there is.
	Discovery string
}

// Rotate starts the run that puts a new key in the place of each of the keys,
// or, dry, the run that shows what that would change.
//
// New keys are made before the commit, because making one can take seconds;
// they are sealed in the commit that starts the run, so that nothing exists
// outside it that a crash could lose.
func (p *Plane) Rotate(ctx context.Context, actor identity.Actor, r Rotate) (run trust.RunID, err error) {
	if r.DryRun {
		return p.preview(ctx, actor, r)
	}
	if err := require(actor, identity.KeysWrite, identity.RunsWrite); err != nil {
		return "", err // before a run is shown, or seconds are spent on new keys
	}
	var candidates []rotation.Candidate
	err = p.view(ctx, actor, identity.KeysWrite, func(tx *store.Tx) error {
		if err := p.knownDiscovery(tx, r.Discovery); err != nil {
			return err
		}
		q, err := request(tx, r)
		if err != nil {
			return err
		}
		if running, err := p.rotating(tx, q.Keys, r.Compromised); err != nil || running != "" {
			run = running
			return err
		}
		candidates, err = rotation.Candidates(tx, q)
		return err
	})
	if err != nil || run != "" {
		return run, err
	}
	for {
		if run, err = p.rotate(ctx, actor, r, candidates); !errors.Is(err, keyring.ErrTaken) {
			return run, p.wake(err)
		}
	}
}

// rotate makes the new keys and commits the run of a Rotate.
func (p *Plane) rotate(ctx context.Context, actor identity.Actor, r Rotate, candidates []rotation.Candidate) (run trust.RunID, err error) {
	made, news, err := p.successors(ctx, actor, candidates)
	defer func() {
		for _, private := range made {
			private.Wipe()
		}
	}()
	if err != nil {
		return "", err
	}
	err = p.update(ctx, actor, needs(identity.KeysWrite, identity.RunsWrite), "key.rotate", "key:"+string(candidates[0].Key.ID), func(tx *store.Tx) error {
		q, err := request(tx, r)
		if err != nil {
			return err
		}
		for i, private := range made {
			if err := p.succeed(tx, candidates[i], private); err != nil {
				return err
			}
		}
		plan, err := rotation.PlanRotation(tx, q, news)
		if err != nil {
			return err
		}
		if run, _, err = p.begin(tx, actor, plan); err != nil || !r.Compromised {
			return err
		}
		// At once, also where the run waits for approval: whoever has the key has its
		// certificates, and who should have them is certified by another key.
		for _, c := range candidates {
			if _, err := p.authorities.RevokeFor(tx, c.Key.Public, "its key is compromised"); err != nil {
				return err
			}
		}
		return nil
	})
	return run, err
}

// successors makes the keys that take the place of others, or takes those that their
// owners made, of which made holds nothing.
func (p *Plane) successors(ctx context.Context, actor identity.Actor, candidates []rotation.Candidate) (made []keyring.Private, news []trust.PublicKey, err error) {
	made, news = make([]keyring.Private, len(candidates)), make([]trust.PublicKey, len(candidates))
	for i, c := range candidates {
		if c.Supplied.ID != "" {
			news[i] = c.Supplied.Public
			continue
		}
		if made[i], err = p.keyring.Make(ctx, actor.Tenant, c.Spec); err != nil {
			return made, nil, err
		}
		made[i].Comment, news[i] = c.Key.Comment, made[i].Public()
	}
	return made, news, nil
}

// succeed writes down the key that comes in the place of another, of which the same is
// known: but not its expiry, which was its own. The keyring holds it, unless its owner
// made it and has said more of it.
func (p *Plane) succeed(tx *store.Tx, c rotation.Candidate, private keyring.Private) error {
	old := c.Key
	next := inventory.Key{Kind: inventory.UserKey, Public: c.Supplied.Public, Owner: old.Owner, Purpose: old.Purpose}
	if c.Supplied.ID == "" {
		next.Public, next.Comment, next.Custody, next.Container = private.Public(), old.Comment, inventory.Held, old.Container
	}
	k, err := inventory.PutKey(tx, next)
	if err != nil {
		return err
	}
	if err := inventory.CopyLabels(tx, old.ID, k.ID); err != nil || c.Supplied.ID != "" {
		return err
	}
	return p.keyring.Put(tx, k.ID, private)
}

// preview starts a dry run. It needs no more than a scan does, because it
// changes nothing.
func (p *Plane) preview(ctx context.Context, actor identity.Actor, r Rotate) (run trust.RunID, err error) {
	err = p.update(ctx, actor, needs(identity.KeysRead, identity.HostsWrite), "key.preview", firstKey(r.Keys), func(tx *store.Tx) error {
		if err := p.refuseBusy(tx, r.Keys); err != nil {
			return err
		}
		q, err := request(tx, r)
		if err != nil {
			return err
		}
		plan, err := rotation.PlanPreview(tx, q)
		if err != nil {
			return err
		}
		run, err = p.engine.Create(tx, actor.Audit(), plan)
		return err
	})
	return run, p.wake(err)
}

// A BusyError says that an open run has a key already. It is the cause of a
// Conflict error.
type BusyError struct {
	Key trust.KeyID
	Run trust.RunID
}

func (e *BusyError) Error() string {
	return fmt.Sprintf("key %s is in run %s, which has not ended", e.Key, e.Run)
}

func busy(key trust.KeyID, run trust.RunID) error {
	return trust.Errorf(trust.Conflict, "%w", &BusyError{Key: key, Run: run}).WithHint("keyturn run show %s", run)
}

// refuseBusy refuses keys that an open run has.
func (p *Plane) refuseBusy(tx *store.Tx, keys []trust.KeyID) error {
	for _, k := range keys {
		if id, err := p.engine.Holder(tx, "key:"+string(k)); err != nil || id != "" {
			return cmp.Or(err, busy(k, id))
		}
	}
	return nil
}

// rotating returns the open run that rotates exactly these keys, and soaks or, where
// they are compromised, does not, or "": asked twice, a rotation is one run. A key
// that is in another open run is a Conflict.
func (p *Plane) rotating(tx *store.Tx, keys []trust.KeyID, compromised bool) (trust.RunID, error) {
	wanted := slices.Compact(slices.Sorted(slices.Values(keys)))
	for _, k := range wanted {
		id, err := p.engine.Holder(tx, "key:"+string(k))
		if err != nil {
			return "", err
		}
		if id == "" {
			continue
		}
		r, err := p.engine.Get(tx, id)
		if err != nil {
			return "", err
		}
		var old []trust.KeyID
		for _, c := range keysOf(r.Procedure, r.Args) {
			old = append(old, c.Old)
		}
		slices.Sort(old)
		var args rotation.Args
		if err := r.Decode(&args); err != nil {
			return "", err
		}
		if r.Procedure == rotation.RotateProcedure && r.BackOf == "" && r.Direction == job.Forward && slices.Equal(old, wanted) && args.Compromised == compromised {
			return id, nil
		}
		return "", busy(k, id)
	}
	return "", nil
}

// toTakeBack returns the runs that took the keys of a rollback out of use, which keys
// these are, and the runs that are taking back the others already.
func (p *Plane) toTakeBack(tx *store.Tx, r Rollback) (taking []trust.RunID, old []trust.KeyID, open []trust.RunID, err error) {
	for _, id := range r.Keys {
		run, err := p.comingBack(tx, id, r)
		if err != nil {
			return nil, nil, nil, err
		}
		if run != "" {
			if !slices.Contains(open, run) {
				open = append(open, run)
			}
			continue
		}
		x, err := rotationOf(tx, id, r.Current)
		if err != nil {
			return nil, nil, nil, err
		}
		old = append(old, x.Key)
		if !slices.Contains(taking, x.Run) {
			taking = append(taking, x.Run)
		}
	}
	return taking, old, open, nil
}

// comingBack returns the open run that brings a key back, or with asked.Current the one
// before it, or "": asked twice, a rollback is one run. One that soaks otherwise than is
// asked for is a Conflict.
func (p *Plane) comingBack(tx *store.Tx, key trust.KeyID, asked Rollback) (trust.RunID, error) {
	id, err := p.engine.Holder(tx, "key:"+string(key))
	if err != nil || id == "" {
		return "", err
	}
	r, err := p.engine.Get(tx, id)
	if err != nil {
		return "", err
	}
	for _, c := range keysOf(r.Procedure, r.Args) {
		var comes, goes []trust.KeyID
		switch {
		case r.Direction == job.Backward && r.BackOf == "":
			comes, goes = []trust.KeyID{c.Old}, c.New
		case r.Direction == job.Forward && r.BackOf != "":
			comes, goes = c.New, []trust.KeyID{c.Old}
		}
		if !asked.Current && slices.Contains(comes, key) || asked.Current && slices.Contains(goes, key) {
			return id, refuseOtherSoak(r, key, asked.Soak)
		}
	}
	return "", nil
}

// refuseOtherSoak refuses that a run which brings a key back already soaks otherwise.
func refuseOtherSoak(r job.Run, key trust.KeyID, soak *time.Duration) error {
	if soak == nil || r.Procedure != rotation.RotateProcedure || r.BackOf == "" {
		return nil // of a run that undoes its rows nothing soaks
	}
	var args rotation.Args
	if err := r.Decode(&args); err != nil || args.Soak == *soak {
		return err
	}
	return trust.Errorf(trust.Conflict, "run %s brings key %s back already, and soaks %s", r.ID, key, args.Soak).
		WithField("soak").WithHint("keyturn run watch %s", r.ID)
}

// request fills a request with what the settings say.
func request(tx *store.Tx, r Rotate) (q rotation.Request, err error) {
	q = rotation.Request{Keys: r.Keys, Share: r.Share, Compromised: r.Compromised}
	if q.Soak, err = durationSetting(tx, rotationSoak); err != nil {
		return q, err
	}
	if r.Soak != nil {
		q.Soak = *r.Soak
	}
	if q.Canary, err = numberSetting(tx, rotationCanary); err != nil {
		return q, err
	}
	if r.Canary != nil {
		q.Canary = *r.Canary
	}
	if q.Wave, err = numberSetting(tx, rotationWave); err != nil {
		return q, err
	}
	if q.Retention, err = durationSetting(tx, archiveRetention); err != nil {
		return q, err
	}
	proof, _, err := setting(tx, rotationProof)
	if err != nil {
		return q, err
	}
	q.Proof, err = rotation.ParseLevel(proof)
	return q, err
}

// A Rollback asks for keys back that were rotated or retired.
type Rollback struct {
	Keys []trust.KeyID
	// Current says that Keys are the keys in use, each of which stands for the
	// one that it replaced; otherwise they are keys of the rotated inventory.
	Current bool
	// Force brings back a key that is marked as compromised.
	Force bool
	// Soak is how long both keys are accepted on the way back; nil for as long
	// as on the way there.
	Soak *time.Duration
	// Discovery, where it is given, must be the name of one that there is.
	Discovery string
}

// Rollback takes back the runs that took keys out of use, open or finished, and
// returns the runs that do so, in the order of the keys, each once. All keys of
// such a run come back together: each of them has to be named. To bring compromised keys
// back by force takes the approval of another user where policy asks for that; otherwise
// that is asked for, and the error says so.
func (p *Plane) Rollback(ctx context.Context, actor identity.Actor, r Rollback) (runs []trust.RunID, err error) {
	if err := require(actor, identity.KeysWrite, identity.RunsWrite); err != nil {
		return nil, err
	}
	if len(r.Keys) == 0 || len(r.Keys) > rotation.MaxKeys {
		return nil, trust.Errorf(trust.Invalid, "%d keys are named; a rollback takes 1 to %d", len(r.Keys), rotation.MaxKeys).WithField("keys")
	}
	args, err := rotation.BackArgs(r.Soak)
	if err != nil {
		return nil, err
	}
	var asking []trust.RunID // which take approval
	err = p.update(ctx, actor, needs(identity.KeysWrite, identity.RunsWrite), "key.rollback", firstKey(r.Keys), func(tx *store.Tx) error {
		if err := p.knownDiscovery(tx, r.Discovery); err != nil {
			return err
		}
		var taking []trust.RunID
		var old []trust.KeyID
		if taking, old, runs, err = p.toTakeBack(tx, r); err != nil {
			return err
		}
		asking = nil
		for _, id := range taking {
			taken, err := p.engine.Get(tx, id)
			if err != nil {
				return err
			}
			changes := keysOf(taken.Procedure, taken.Args)
			for _, c := range changes {
				if !slices.Contains(old, c.Old) {
					return trust.Errorf(trust.Conflict, "key %s was rotated together with key %s, by run %s, and they can only come back together", old[0], c.Old, id).
						WithHint("keyturn run back %s", id)
				}
			}
			if err := refuseCompromised(tx, changes, r.Force); err != nil {
				return err
			}
			switch err := spendBack(tx, actor, taken); {
			case errors.Is(err, errApproval):
				asking = append(asking, id)
				continue
			case err != nil:
				return err
			}
			by, err := p.engine.Back(tx, actor.Audit(), id, args)
			if err != nil {
				return err
			}
			runs = append(runs, by)
		}
		if len(asking) > 0 {
			return errApproval
		}
		return nil
	})
	if errors.Is(err, errApproval) {
		return nil, p.askForBack(ctx, actor, asking)
	}
	return runs, p.wake(err)
}

// rotationOf returns the standing rotation that took out a key, or of which a
// current key is the successor.
func rotationOf(tx *store.Tx, id trust.KeyID, current bool) (inventory.Rotation, error) {
	k, err := inventory.KeyByID(tx, id)
	if err != nil {
		return inventory.Rotation{}, err
	}
	if current {
		related, err := inventory.Relate(tx, []inventory.Key{k})
		if err != nil {
			return inventory.Rotation{}, err
		}
		if len(related[0].Replaces) == 0 {
			return inventory.Rotation{}, trust.Errorf(trust.Conflict, "key %s did not replace another", id).WithHint("keyturn key show %s", id)
		}
		id = related[0].Replaces[len(related[0].Replaces)-1]
	}
	standing, _, err := inventory.Rotations(tx, inventory.RotationFilter{Key: id, Standing: true}, inventory.Page{Sort: "at", Desc: true, Limit: 1})
	if err != nil {
		return inventory.Rotation{}, err
	}
	switch {
	case len(standing) == 0 && k.State == inventory.Active && !current:
		return inventory.Rotation{}, trust.Errorf(trust.Conflict, "key %s is in use, not in the rotated inventory", id).
			WithHint("keyturn rollback %s --current brings back the key that it replaced", id)
	case len(standing) == 0:
		return inventory.Rotation{}, trust.Errorf(trust.Conflict, "key %s is %s and not in the rotated inventory", id, k.State).WithHint("keyturn key list --state rotated")
	case !standing[0].PurgedAt.IsZero():
		return inventory.Rotation{}, trust.Errorf(trust.Conflict, "what was kept of key %s was destroyed at %s, when its retention had ended", id, standing[0].PurgedAt.Format(time.RFC3339))
	}
	return standing[0], nil
}

// refuseCompromised refuses to bring back keys that may be in wrong hands.
func refuseCompromised(tx *store.Tx, changes []KeyChange, force bool) error {
	for _, c := range changes {
		if c.Old == "" || force {
			continue
		}
		k, err := inventory.KeyByID(tx, c.Old)
		if err != nil {
			return err
		}
		if k.Compromised {
			return trust.Errorf(trust.Conflict, "key %s is marked as compromised and does not come back", c.Old).
				WithHint("keyturn rollback --force %s, if it must", c.Old)
		}
	}
	return nil
}

// Retire starts the run that withdraws keys everywhere without a successor.
func (p *Plane) Retire(ctx context.Context, actor identity.Actor, keys []trust.KeyID) (run trust.RunID, err error) {
	err = p.update(ctx, actor, needs(identity.KeysWrite, identity.RunsWrite), "key.retire", firstKey(keys), func(tx *store.Tx) error {
		if err := p.refuseBusy(tx, keys); err != nil {
			return err
		}
		q, err := request(tx, Rotate{Keys: keys})
		if err != nil {
			return err
		}
		plan, err := rotation.PlanRetirement(tx, q)
		if err != nil {
			return err
		}
		var waits bool
		if run, waits, err = p.begin(tx, actor, plan); err != nil || waits {
			return err
		}
		return p.revokeRetired(tx, run)
	})
	return run, p.wake(err)
}

// revokeRetired revokes the certificates for the keys that a run retires, if it is one that
// does: hosts would take those until they end. There are no more of them, since keys are
// out of use from when such a run was asked for.
func (p *Plane) revokeRetired(tx *store.Tx, id trust.RunID) error {
	r, err := p.engine.Get(tx, id)
	if err != nil || r.Procedure != rotation.RetireProcedure {
		return err
	}
	for _, c := range keysOf(r.Procedure, r.Args) {
		k, err := inventory.KeyByID(tx, c.Old)
		if err != nil {
			return err
		}
		if _, err := p.authorities.RevokeFor(tx, k.Public, "its key was retired"); err != nil {
			return err
		}
	}
	return nil
}

func firstKey(keys []trust.KeyID) string {
	if len(keys) == 0 {
		return "key:none"
	}
	return "key:" + subject(string(keys[0]))
}
