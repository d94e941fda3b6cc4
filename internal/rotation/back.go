package rotation

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/reach"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds how a rotation goes back, ends, and goes on without a place.

// started is part of the commit that creates a run: from here on the new keys
// are active, and the old ones in the rotated inventory, so that a client may
// ask for the way back at once.
func (ro *Rotator) started(tx *store.Tx, r job.Run) error {
	var args Args
	if err := r.Decode(&args); err != nil {
		return err
	}
	for _, p := range args.Pairs {
		if p.Out {
			continue
		}
		var err error
		if p.New == "" {
			err = inventory.TakeOut(tx, r.ID, p.Old, inventory.Retired, r.Actor.ID)
		} else {
			err = inventory.TakeOut(tx, r.ID, p.Old, inventory.Rotated, r.Actor.ID, p.New)
		}
		if err != nil {
			return err
		}
		if args.Compromised {
			k, err := inventory.KeyByID(tx, p.Old)
			if err != nil {
				return err
			}
			k.Compromised = true
			if _, err := inventory.UpdateKey(tx, k); err != nil {
				return err
			}
		}
	}
	return nil
}

// ended is part of the commit in which a run ends. A run that was taken back,
// by its own Undo, leaves the inventory as if it had not been; one that
// another run took back has nothing left to undo.
func (ro *Rotator) ended(tx *store.Tx, r job.Run, outcome job.State) error {
	if outcome != job.Done && (outcome != job.Partial || r.Direction != job.Forward) {
		if _, err := inventory.UndoRun(tx, r.ID); err != nil {
			return err
		}
	}
	ro.lookouts.forget(r.ID)
	var args Args
	if err := r.Decode(&args); err != nil {
		return err
	}
	var moved []trust.KeyID
	for _, p := range args.Pairs {
		moved = append(moved, p.Old)
		if p.New != "" {
			moved = append(moved, p.New)
		}
	}
	return ro.judge(tx, moved)
}

// backArgs are how the way back of a rotation was asked for.
type backArgs struct {
	// Soak is how long it soaks; nil for as long as the way there did.
	Soak *time.Duration `json:"soak,omitempty"`
}

// BackArgs returns what job.Engine.Back takes for a way back that soaks so long.
// Nil is for as long as the way there; a way back that installs nothing does not
// soak at all.
func BackArgs(soak *time.Duration) (json.RawMessage, error) {
	if soak != nil {
		if err := checkSoak(*soak); err != nil {
			return nil, err
		}
	}
	return json.Marshal(backArgs{Soak: soak})
}

// reverseRotation plans the way back of a run that has begun to install: the
// same table with old and new exchanged. It looks at the journal for what to
// put back, and at nothing else; where else the key lies that it withdraws, the
// inventory says.
func (ro *Rotator) reverseRotation(tx *store.Tx, r job.Run) (job.Plan, error) {
	var args Args
	if err := r.Decode(&args); err != nil {
		return job.Plan{}, err
	}
	if err := refuseOlder(tx, args.Pairs); err != nil {
		return job.Plan{}, err
	}
	exchanged := args
	exchanged.Pairs = nil
	for _, p := range args.Pairs {
		exchanged.Pairs = append(exchanged.Pairs, Pair{Old: p.New, OldKey: p.NewKey, New: p.Old, NewKey: p.OldKey, Supplied: p.Supplied})
	}
	exchanged.Compromised = false
	if exchanged.Since = r.Created; r.BackOf != "" {
		exchanged.Since = time.Time{} // it is the way there again
	}
	var asked backArgs
	if err := json.Unmarshal(r.BackArgs, &asked); err != nil {
		return job.Plan{}, fmt.Errorf("how run %q is taken back: %w", r.ID, err)
	}
	if asked.Soak != nil {
		exchanged.Soak = *asked.Soak
	}
	var places []spec
	journal := r.In(tx)
	for t, err := range journal.Targets(Places) {
		if err != nil {
			return job.Plan{}, err
		}
		c, err := decode(r, t)
		if err != nil {
			return job.Plan{}, err
		}
		var f found
		if ok, err := journal.ResultOf("Baseline", t, &f); err != nil {
			return job.Plan{}, err
		} else if !ok || f.untouched() != "" && !c.owners() {
			continue
		}
		s := c.spec
		s.Known, s.Snapshot = nil, f.Snapshot
		if s.Half == authorizedHalf {
			var a added
			at := job.Target{List: Authorized, N: c.spec.Order, Name: t.Name}
			if _, err := journal.ResultOf("Authorize", at, &a); err != nil {
				return job.Plan{}, err
			}
			s.Known = a.Made
		}
		places = append(places, s)
	}
	if len(places) == 0 {
		return job.Plan{}, fmt.Errorf("run %q touched no place", r.ID)
	}
	if err := findAgain(tx, places); err != nil {
		return job.Plan{}, err
	}
	places, err := withElsewhere(tx, exchanged.Pairs, places)
	if err != nil {
		return job.Plan{}, err
	}
	return planOf(RotateProcedure, 1, 0, exchanged, places)
}

// withElsewhere returns places and, to be looked at, those where the old keys of a way
// back are known to lie besides: somebody has put one there, or the run that is taken up
// again passed the place over. Nothing is written there: what takes an open run back has
// its place in the line, and so locks no file that that one has not.
func withElsewhere(tx *store.Tx, pairs []Pair, places []spec) ([]spec, error) {
	type of struct {
		pair  int
		place trust.Place
	}
	planned := map[of]bool{}
	for _, s := range places {
		planned[of{s.Pair, s.place()}] = true
	}
	for i, p := range pairs {
		for s, err := range placesOf(tx, i, p.Old) {
			if err != nil {
				return nil, err
			}
			if s.Elsewhere = true; !planned[of{i, s.place()}] {
				places = append(places, s)
			}
		}
	}
	return places, nil
}

// lookElsewhere is row Baseline at a place that the run does not write to. It passes it
// over unless the old key is in use there: then the run would end, and the key go on.
func (ro *Rotator) lookElsewhere(ctx context.Context, c cell, h *reach.Hands) (job.Record, error) {
	gone := found{Why: fmt.Sprintf("%s on %s does not hold the key any more", c.spec.Path, c.spec.Name)}
	inUse := trust.Errorf(trust.Conflict, "the key that goes is in use in %s, too, and the way back does not write there", c.spec.name()).
		WithHint("keyturn run back %s, then keyturn rotate %s, which replaces it there as well; or take it out there, then keyturn run resume %s", c.run.ID, c.pair.Old, c.run.ID)
	if c.spec.Half == identityHalf {
		files, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
		if err != nil {
			return nil, err
		}
		if key, _, err := files.Key(); err == nil && key == c.pair.OldKey {
			return nil, inUse
		}
		return c.passOver(gone)
	}
	paths, why, err := ro.searched(ctx, c, h)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return c.passOver(found{Why: why})
	}
	files, err := h.Files(ctx, c.spec.User, paths)
	if err != nil {
		return nil, err
	}
	if len(textsOf(files[slices.IndexFunc(files, at(c.spec.Path))].Content, c.pair.OldKey)) == 0 {
		return c.passOver(gone)
	}
	p, err := ro.proveKey(ctx, c, c.pair.Old, files, h)
	switch {
	case err != nil:
		return nil, err
	case p.Level != "":
		return nil, inUse
	case p.Unexplained:
		return nil, c.refused(found{Why: p.Why, Refused: true})
	}
	return c.passOver(found{Why: p.Why})
}

// findAgain finds the hosts of an earlier run's places. One that was removed and taken
// in anew has its name still, and another id. Where one is gone, what lies there could
// not be put back, and who logs in from there or to there would be left with a key that
// the other places no longer know.
func findAgain(tx *store.Tx, places []spec) error {
	now := map[trust.HostID]trust.HostID{}
	for i := range places {
		s := &places[i]
		if _, seen := now[s.Host]; !seen {
			h, err := inventory.HostBrief(tx, s.Host)
			if trust.KindOf(err) == trust.NotFound {
				h, err = inventory.FindHost(tx, s.Name)
			}
			if trust.KindOf(err) == trust.NotFound {
				return trust.Errorf(trust.Conflict, "host %q is not known any more, and %s cannot be put back", s.Name, s.name()).
					WithHint("keyturn host add %s ..., then try again; or keyturn rotate the key that is there now", s.Name)
			}
			if err != nil {
				return err
			}
			now[s.Host] = h.ID
		}
		s.Host = now[s.Host]
	}
	return nil
}

// leaveRotation says what it means to go on without a place. An identity place
// that keeps the old key makes the run additive: nobody may take the old key
// away any more. Once that has begun, it is too late for this; what leaving means
// then is that the place, which held the new key after the soak, is not asked for
// the old one again. Where nobody else has the old private half, the run could not
// bring it back, and goes back at once. An authorized place that never got the new
// key cannot be installed for: the run goes back, unless the old key is refused there, or
// the account or its directory is gone.
func (ro *Rotator) leaveRotation(tx *store.Tx, r job.Run, t job.Target) (job.Effect, error) {
	c, err := decode(r, t)
	if err != nil {
		return job.Effect{}, err
	}
	if c.spec.Half == identityHalf {
		withdrawing, err := r.In(tx).Began("Withdraw")
		if err != nil || withdrawing || c.args.Compromised {
			return job.Effect{}, err
		}
		if !c.pair.Supplied {
			held, err := ro.mayBeHeld(c, tx)
			if err != nil || !held {
				return job.Effect{Back: true}, err
			}
		}
		additive := job.Effect{Skip: []string{"Withdraw", "Disprove", "Archive"}}
		reproving, err := r.In(tx).Began("Reprove")
		if err == nil && !reproving {
			additive.Skip = append(additive.Skip, "Reprove")
		}
		return additive, err
	}
	var f found
	if _, err := r.In(tx).ResultOf("Baseline", job.Target{List: Places, N: c.spec.Place, Name: c.spec.name()}, &f); err != nil || f.Refused && f.Works == "" {
		return job.Effect{}, err // the old key does not open it either, and nothing was touched
	}
	for row, of := range map[string]job.Target{"Baseline": {List: Places, N: c.spec.Place}, "Authorize": {List: Authorized, N: c.spec.Order}} {
		var gone missing
		of.Name = c.spec.name()
		if _, err := r.In(tx).ResultOf(row, of, &gone); err != nil || gone.Missing {
			return job.Effect{}, err
		}
	}
	installing, err := r.In(tx).Began("Install")
	if err != nil {
		return job.Effect{}, err
	}
	soaking, err := r.In(tx).Began("Soak")
	if err != nil {
		return job.Effect{}, err
	}
	return job.Effect{Back: !installing && !soaking}, nil
}

// refuseOlder refuses to bring back keys whose successors were themselves taken out
// of use since: generations come back from the newest on.
func refuseOlder(tx *store.Tx, pairs []Pair) error {
	for _, p := range pairs {
		newest, err := lastOut(tx, p.New)
		if err != nil {
			return err
		}
		if newest != "" {
			return trust.Errorf(trust.Conflict, "key %s was replaced by key %s, which is out of use itself by now: the newest comes back first", p.Old, p.New).
				WithHint("keyturn rollback %s, and so on back to %s", newest, p.Old)
		}
	}
	return nil
}

// lastOut returns which of a key and its successors was taken out of use last, or
// nothing where the key is in use.
func lastOut(tx *store.Tx, key trust.KeyID) (last trust.KeyID, err error) {
	for key != "" {
		standing, _, err := inventory.Rotations(tx, inventory.RotationFilter{Key: key, Standing: true}, inventory.Page{Sort: "at", Desc: true, Limit: 1})
		if err != nil || len(standing) == 0 {
			return last, err
		}
		last, key = key, ""
		if by := standing[0].ReplacedBy; len(by) > 0 {
			key = by[0]
		}
	}
	return last, nil
}
