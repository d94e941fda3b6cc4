package control

import (
	"context"
	"maps"
	"net/netip"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A HostTarget is a target with the name of the host that it is, by which people ask for
// it: hostnames of targets need not be unique.
type HostTarget struct {
	inventory.Target
	Host string
}

// ListHostTargets lists targets by id.
func (p *Plane) ListHostTargets(ctx context.Context, actor identity.Actor, f inventory.TargetFilter, page Page) (list []HostTarget, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	after, err := page.id()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		targets, err := inventory.TargetsByID(tx, f, trust.HostID(after), limit)
		if err != nil {
			return err
		}
		list, err = withHosts(tx, targets)
		return err
	})
	if len(list) == limit {
		next = string(list[limit-1].ID)
	}
	return list, next, err
}

// withHosts adds the names of the hosts that targets are.
func withHosts(tx *store.Tx, targets []inventory.Target) ([]HostTarget, error) {
	if len(targets) == 0 {
		return nil, nil
	}
	var f inventory.HostFilter
	for _, t := range targets {
		f.IDs = append(f.IDs, t.ID)
	}
	hosts, err := inventory.HostRefs(tx, f, "", len(targets))
	if err != nil {
		return nil, err
	}
	names := map[trust.HostID]string{}
	for _, h := range hosts {
		names[h.ID] = h.Name
	}
	list := make([]HostTarget, len(targets))
	for i, t := range targets {
		list[i] = HostTarget{t, names[t.ID]}
	}
	return list, nil
}

// ShowHostTarget returns the target that a host is, by the host's name or id.
func (p *Plane) ShowHostTarget(ctx context.Context, actor identity.Actor, nameOrID string) (t HostTarget, err error) {
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		t, err = targetOf(tx, nameOrID)
		return err
	})
	return t, err
}

func targetOf(tx *store.Tx, nameOrID string) (HostTarget, error) {
	h, err := inventory.FindHost(tx, nameOrID)
	if err != nil {
		return HostTarget{}, err
	}
	t, err := inventory.TargetByID(tx, h.ID)
	if trust.KindOf(err) == trust.NotFound {
		err = trust.Errorf(trust.NotFound, "host %q is no target", h.Name).WithHint("keyturn target add HOSTNAME --ip ADDRESS makes a target of the host at an address")
	}
	return HostTarget{t, h.Name}, err
}

// A TargetChange says what is to become of a target.
type TargetChange struct {
	Hostname  string                    // "" for what it is
	Addresses []inventory.TargetAddress // nil for those that it has; one of IPv4 and one of IPv6 at the most
	Tags      map[string]string         // that it gets
	Untag     []string                  // names of tags that it loses
}

// apply returns t as it is to become.
func (c TargetChange) apply(t inventory.Target) (inventory.Target, error) {
	if c.Hostname != "" {
		t.Hostname = c.Hostname
	}
	if c.Addresses != nil {
		t.IPv4, t.IPv6 = nil, nil
	}
	for _, a := range c.Addresses {
		ip, err := netip.ParseAddr(a.IP)
		if err != nil {
			return t, trust.Errorf(trust.Invalid, "%q is no IP address", clip(a.IP)).WithField("addresses")
		}
		at := &t.IPv4
		if ip.Is6() {
			at = &t.IPv6
		}
		if *at != nil {
			return t, trust.Errorf(trust.Invalid, "%s and %s are two addresses, where a target has one of IPv4 and one of IPv6", (*at).IP, a.IP).WithField("addresses")
		}
		*at = &inventory.TargetAddress{IP: a.IP, Network: a.Network}
	}
	tags := maps.Clone(t.Tags)
	if tags == nil {
		tags = map[string]string{}
	}
	for _, name := range c.Untag {
		delete(tags, name)
	}
	maps.Copy(tags, c.Tags)
	t.Tags = tags
	return t, nil
}

// AddHostTarget makes a target: of the host that is at one of its addresses, or of one
// that is added with it.
func (p *Plane) AddHostTarget(ctx context.Context, actor identity.Actor, c TargetChange) (made HostTarget, err error) {
	id := inventory.NewTargetID()
	err = p.update(ctx, actor, needs(identity.ZeroTrustWrite), "target.create", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		t, err := c.apply(inventory.Target{ID: id})
		if err != nil {
			return err
		}
		if t, err = inventory.AddTarget(tx, t); err != nil {
			return err
		}
		noteTargets(tx, []inventory.Target{t})
		made, err = targetOf(tx, string(t.ID))
		return err
	})
	return made, err
}

// ChangeHostTarget changes the target that a host is, by the host's name or id.
func (p *Plane) ChangeHostTarget(ctx context.Context, actor identity.Actor, nameOrID string, c TargetChange) (now HostTarget, err error) {
	err = p.update(ctx, actor, needs(identity.ZeroTrustWrite), "target.update", "target:"+subject(nameOrID), func(tx *store.Tx) error {
		was, err := targetOf(tx, nameOrID)
		if err != nil {
			return err
		}
		t, err := c.apply(was.Target)
		if err != nil {
			return err
		}
		if t, err = inventory.UpdateTarget(tx, t); err != nil {
			return err
		}
		noteTargets(tx, []inventory.Target{t})
		now, err = targetOf(tx, string(t.ID))
		return err
	})
	return now, err
}

// RemoveHostTarget has a host, by name or id, be no target any more. One that was never
// taken in is forgotten.
func (p *Plane) RemoveHostTarget(ctx context.Context, actor identity.Actor, nameOrID string) error {
	return p.update(ctx, actor, needs(identity.ZeroTrustWrite), "target.remove", "target:"+subject(nameOrID), func(tx *store.Tx) error {
		t, err := targetOf(tx, nameOrID)
		if err != nil {
			return err
		}
		noteTargets(tx, []inventory.Target{t.Target})
		return inventory.RemoveTarget(tx, t.ID)
	})
}
