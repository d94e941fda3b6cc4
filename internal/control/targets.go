package control

import (
	"context"
	"strconv"
	"strings"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// MaxTargets is how many targets are created or removed by one call.
const MaxTargets = 1000

// A CountedPage asks for part of a listing by its number.
type CountedPage struct {
	Number int // from 1
	Size   int // 1 to MaxPage
	Sort   string
	Desc   bool
}

// ListTargets lists targets, sorted by "created", "hostname" or "tag:NAME", and says how
// many there are. A page beyond the last is empty.
func (p *Plane) ListTargets(ctx context.Context, actor identity.Actor, f inventory.TargetFilter, page CountedPage) (list []inventory.Target, total int, err error) {
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		list, total, err = inventory.Targets(tx, f, inventory.Page{Offset: (page.Number - 1) * page.Size, Limit: page.Size, Sort: page.Sort, Desc: page.Desc})
		return err
	})
	return list, total, err
}

// ShowTarget returns the target of an id.
func (p *Plane) ShowTarget(ctx context.Context, actor identity.Actor, id trust.HostID) (t inventory.Target, err error) {
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		t, err = inventory.TargetByID(tx, id)
		return err
	})
	return t, err
}

// CreateTargets adds targets, all of them or none. Who asks again, because an answer was
// lost, gets those of before, if they are as they were.
func (p *Plane) CreateTargets(ctx context.Context, actor identity.Actor, targets []inventory.Target, again bool) (made []inventory.Target, err error) {
	if err := require(actor, identity.ZeroTrustWrite); err != nil {
		return nil, err
	}
	if err := checkTargetCount(len(targets)); err != nil {
		return nil, err
	}
	request, err := requestOf(actor, "target.create", targets)
	if err != nil {
		return nil, err
	}
	m := making[[]inventory.Target]{request: request, again: again, find: targetsByID, state: func(list []inventory.Target) any { return list }}
	for i := range targets {
		targets[i].ID = inventory.NewTargetID()
	}
	err = p.update(ctx, actor, needs(identity.ZeroTrustWrite), "target.create", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		made, err = m.once(tx, func() (string, error) {
			var list []inventory.Target
			var ids []string
			for _, t := range targets {
				now, err := inventory.AddTarget(tx, t)
				if err != nil {
					return "", err
				}
				list, ids = append(list, now), append(ids, string(now.ID))
			}
			noteTargets(tx, list)
			return strings.Join(ids, " "), nil
		})
		return err
	})
	return made, answered(err)
}

// targetsByID returns the targets of some ids.
func targetsByID(tx *store.Tx, ids string) (list []inventory.Target, err error) {
	for _, id := range strings.Fields(ids) {
		t, err := inventory.TargetByID(tx, trust.HostID(id))
		if err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, nil
}

// noteTargets writes the ids of targets into the event, as many to a field as fit.
func noteTargets(tx *store.Tx, list []inventory.Target) {
	tx.Note("count", strconv.Itoa(len(list)))
	const perNote = 400
	for len(list) > 0 {
		var ids []string
		for _, t := range list[:min(perNote, len(list))] {
			ids = append(ids, string(t.ID))
		}
		tx.Note("targets", strings.Join(ids, " "))
		list = list[len(ids):]
	}
}

func checkTargetCount(n int) error {
	if n > MaxTargets {
		return trust.Errorf(trust.Exhausted, "%d targets are more than %d, which one call takes", n, MaxTargets)
	}
	return nil
}

// UpdateTarget writes a target in the place of what the one of its id was. Tags that are
// nil stay as they are, and so do virtual networks that are not named.
func (p *Plane) UpdateTarget(ctx context.Context, actor identity.Actor, t inventory.Target) (now inventory.Target, err error) {
	err = p.update(ctx, actor, needs(identity.ZeroTrustWrite), "target.update", "target:"+subject(string(t.ID)), func(tx *store.Tx) error {
		now, err = inventory.UpdateTarget(tx, t)
		return err
	})
	return now, err
}

// RemoveTargets has hosts be no targets any more, all of them or none. Hosts that were
// never taken in are forgotten.
func (p *Plane) RemoveTargets(ctx context.Context, actor identity.Actor, ids []trust.HostID) error {
	if err := require(actor, identity.ZeroTrustWrite); err != nil {
		return err
	}
	if err := checkTargetCount(len(ids)); err != nil {
		return err
	}
	return p.update(ctx, actor, needs(identity.ZeroTrustWrite), "target.remove", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		var gone []inventory.Target
		for _, id := range ids {
			if err := inventory.RemoveTarget(tx, id); err != nil {
				return err
			}
			gone = append(gone, inventory.Target{ID: id})
		}
		noteTargets(tx, gone)
		return nil
	})
}
