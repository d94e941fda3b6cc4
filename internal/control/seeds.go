package control

import (
	"cmp"
	"context"

	"github.com/google/uuid"

	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Words of package hostid, for front doors.
type (
	SeedStanding = hostid.Standing
	SeedPhase    = hostid.Phase
)

// The phases of a seed's rotation.
const (
	SeedSettled    = hostid.Settled
	SeedPresentOld = hostid.PresentOld
	SeedPresentNew = hostid.PresentNew
)

// A HostIdentity is one key by which a host is known at the gateway.
type HostIdentity struct {
	hostid.Identity
	HostName string // "" for the gateway itself
}

// ShowSeed tells from which seed the gateway's host keys are derived, and which comes.
func (p *Plane) ShowSeed(ctx context.Context, actor identity.Actor) (SeedStanding, error) {
	seeds, err := p.seeds(ctx, actor)
	return seeds.Standing(), err
}

// seeds returns the seeds of the actor's tenant, which gets its first one when somebody
// asks for it first.
func (p *Plane) seeds(ctx context.Context, actor identity.Actor) (seeds hostid.Seeds, err error) {
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		seeds, err = hostid.Load(tx)
		return err
	})
	if err != nil || seeds.Standing().Present != "" {
		return seeds, err
	}
	id := trust.SeedID(uuid.NewString())
	err = p.update(ctx, actor, needs(identity.ZeroTrustRead), "seed.create", "seed:"+string(id), func(tx *store.Tx) error {
		seeds, err = p.firstSeed(tx, id)
		return err
	})
	return seeds, err
}

// firstSeed makes the first seed of the tenant of tx, unless there is one.
func (p *Plane) firstSeed(tx *store.Tx, id trust.SeedID) (hostid.Seeds, error) {
	terms, err := seedTerms(tx)
	if err != nil {
		return nil, err
	}
	return hostid.Ensure(tx, p.keyring, p.authorities, id, terms)
}

func seedTerms(tx *store.Tx) (t hostid.Terms, err error) {
	if t.Overlap, err = durationSetting(tx, seedOverlap); err != nil {
		return t, err
	}
	t.Retention, err = durationSetting(tx, archiveRetention)
	return t, err
}

// A SeedRotation asks for another seed.
type SeedRotation struct {
	// Compromised seeds are replaced at once, and revoked.
	Compromised bool
	// Again says that who asks has asked before, and lost the answer: if there was one in
	// the last minutes, it is the answer.
	Again bool
}

// RotateSeed makes a new seed and starts its rotation, or has the one that is under way
// end with it: run is the one that does so. Where the seeds are compromised there is no
// rotation and no run: the new seed is presented at once, and all others are revoked.
func (p *Plane) RotateSeed(ctx context.Context, actor identity.Actor, r SeedRotation) (id trust.SeedID, run trust.RunID, err error) {
	if err := require(actor, identity.ZeroTrustWrite); err != nil {
		return "", "", err
	}
	id = trust.SeedID(uuid.NewString())
	action := "seed.rotate"
	if r.Compromised {
		action = "seed.replace"
	}
	err = p.update(ctx, actor, needs(identity.ZeroTrustWrite), action, "seed:"+string(id), func(tx *store.Tx) error {
		if last, ok, err := lastAsked(tx, actor); err != nil || ok && r.Again {
			id, run = last.ID, last.Run
			return cmp.Or(err, errAsked)
		}
		if _, err := p.firstSeed(tx, trust.SeedID(uuid.NewString())); err != nil {
			return err
		}
		terms, err := seedTerms(tx)
		if err != nil {
			return err
		}
		terms.By = actor.ID
		if r.Compromised {
			return p.replaceSeed(tx, actor, id, terms)
		}
		if run, err = hostid.Ask(tx, p.keyring, p.authorities, id, terms); err != nil || run != "" {
			return err
		}
		plan, err := hostid.Plan(id)
		if err != nil {
			return err
		}
		run, err = p.engine.Create(tx, actor.Audit(), plan)
		return err
	})
	return id, run, p.wake(answered(err))
}

// lastAsked returns the newest seed and its run, if it is the actor who asked for it and
// not long ago.
func lastAsked(tx *store.Tx, actor identity.Actor) (hostid.Seed, bool, error) {
	seeds, err := hostid.Load(tx)
	if err != nil {
		return hostid.Seed{}, false, err
	}
	last, ok := seeds.Asked(actor.ID, tx.Now().Add(-askedAgainWithin))
	return last, ok, nil
}

// replaceSeed revokes every seed but a new one, and has the runs that rotated them end.
func (p *Plane) replaceSeed(tx *store.Tx, actor identity.Actor, id trust.SeedID, terms hostid.Terms) error {
	ended, err := hostid.Replace(tx, p.keyring, p.authorities, id, terms)
	if err != nil {
		return err
	}
	for _, run := range ended {
		r, err := p.engine.Get(tx, run)
		if err != nil {
			return err
		}
		if !r.State.Open() || r.BackBy != "" {
			continue // it ends with the one that takes it back
		}
		if err := p.engine.Resume(tx, actor.Audit(), run); err != nil {
			return err
		}
	}
	return nil
}

// checkOverlap refuses a value of either setting with which a node could still present
// keys that others announce no more.
func (p *Plane) checkOverlap(tx *store.Tx, name string) error {
	overlap, err := durationSetting(tx, seedOverlap)
	if err != nil {
		return err
	}
	lease, err := durationSetting(tx, gatewayLease)
	if err != nil {
		return err
	}
	if overlap <= lease {
		return trust.Errorf(trust.Invalid, "seed.overlap %s has to be longer than gateway.lease %s", overlap, lease).WithField("value")
	}
	seeds, err := hostid.Load(tx)
	if err != nil {
		return err
	}
	if shortest := seeds.Shortest(); shortest != 0 && shortest <= lease {
		return trust.Errorf(trust.Conflict, "a rotation of the seed is under way that leaves %s for each phase, which has to be longer than gateway.lease", shortest).
			WithHint("keyturn seed show says until when")
	}
	if name == seedOverlap {
		return hostid.SetOverlap(tx, p.keyring, p.authorities, overlap)
	}
	return nil
}

// maxIdentities is of how many hosts one page has the keys.
const maxIdentities = 100

// ListHostIdentities lists by which keys hosts are known at the gateway: of one host, by
// name or id, or of all, and then first of the gateway itself.
func (p *Plane) ListHostIdentities(ctx context.Context, actor identity.Actor, nameOrID string, page Page) (list []HostIdentity, next string, err error) {
	return p.identities(ctx, actor, nameOrID, page, func(*store.Tx) error { return nil })
}

// identities returns what ListHostIdentities does, and has also read along.
func (p *Plane) identities(ctx context.Context, actor identity.Actor, nameOrID string, page Page, also func(*store.Tx) error) (list []HostIdentity, next string, err error) {
	if _, err := p.seeds(ctx, actor); err != nil { // makes the first
		return nil, "", err
	}
	var hosts []inventory.HostRef
	var shown hostid.Shown
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		if shown, err = p.shown(tx); err != nil {
			return err
		}
		if hosts, next, err = hostsOf(tx, nameOrID, page); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return nil, "", err
	}
	for _, h := range hosts {
		keys, err := shown.Identities(h.ID)
		if err != nil {
			return nil, "", err
		}
		for _, k := range keys {
			list = append(list, HostIdentity{k, h.Name})
		}
	}
	return list, next, nil
}

// shown opens the seeds of the tenant of tx.
func (p *Plane) shown(tx *store.Tx) (hostid.Shown, error) {
	seeds, err := hostid.Load(tx)
	if err != nil {
		return hostid.Shown{}, err
	}
	return hostid.Open(tx, p.keyring, seeds)
}

func hostsOf(tx *store.Tx, nameOrID string, page Page) (hosts []inventory.HostRef, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	after, err := page.id()
	if err != nil {
		return nil, "", err
	}
	if nameOrID != "" {
		h, err := inventory.FindHost(tx, nameOrID)
		return []inventory.HostRef{{ID: h.ID, Name: h.Name}}, "", err
	}
	limit = min(limit, maxIdentities)
	hosts, err = inventory.HostRefs(tx, inventory.HostFilter{}, trust.HostID(after), limit)
	if len(hosts) == limit {
		next = string(hosts[limit-1].ID)
	}
	if after == "" {
		hosts = append([]inventory.HostRef{{ID: hostid.Gateway(tx.Tenant())}}, hosts...)
	}
	return hosts, next, err
}
