package control

import (
	"context"
	"errors"

	"keyturn/internal/access"
	"keyturn/internal/identity"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Groups, and lists of networks, are what rules name.

// ListGroups lists a page of the groups that a filter lets through, and counts all of them.
func (p *Plane) ListGroups(ctx context.Context, actor identity.Actor, f access.GroupFilter, page access.Page) (list []access.Group, names Names, total int, err error) {
	err = p.view(ctx, actor, identity.OrganizationsRead, func(tx *store.Tx) error {
		if list, total, err = access.Groups(tx, f, page); err != nil {
			return err
		}
		names = Names{}
		for _, g := range list {
			more, err := p.namesIn(tx, g.Expression)
			if err != nil {
				return err
			}
			for id, name := range more {
				names[id] = name
			}
		}
		return nil
	})
	return list, names, total, err
}

// ShowGroup returns the group of an id or a name.
func (p *Plane) ShowGroup(ctx context.Context, actor identity.Actor, idOrName string) (g access.Group, names Names, err error) {
	err = p.view(ctx, actor, identity.OrganizationsRead, func(tx *store.Tx) error {
		if g, err = access.FindGroup(tx, idOrName); err != nil {
			return err
		}
		names, err = p.namesIn(tx, g.Expression)
		return err
	})
	return g, names, err
}

// AddGroup adds a group. Who asks again, because an answer was lost, gets the one of
// before, if that is as it was.
func (p *Plane) AddGroup(ctx context.Context, actor identity.Actor, n access.Group, again bool) (g access.Group, err error) {
	request, err := requestOf(actor, "group.add", n)
	if err != nil {
		return g, err
	}
	m := making[access.Group]{request: request, again: again, find: access.GroupByID, state: func(g access.Group) any { return g }}
	n.ID = access.NewID()
	err = p.update(ctx, actor, needs(identity.OrganizationsWrite), "group.add", "group:"+n.ID, func(tx *store.Tx) error {
		g, err = m.once(tx, func() (string, error) {
			n := n
			if err := p.named(tx, &n.Expression, policy.Expression{}); err != nil {
				return "", err
			}
			_, err := access.PutGroup(tx, n)
			return n.ID, err
		})
		return err
	})
	return g, answered(err)
}

// Anew is the change that puts a thing in the place of what there is, whatever that is.
func Anew[T any](next T) func(was T) (T, error) {
	return func(T) (T, error) { return next, nil }
}

// SetGroup has change say what a group is to be, by what it is: in the transaction that
// writes it, which may run twice. Its Extra stays where none is said.
func (p *Plane) SetGroup(ctx context.Context, actor identity.Actor, idOrName string, change func(was access.Group) (access.Group, error)) (g access.Group, err error) {
	err = p.update(ctx, actor, needs(identity.OrganizationsWrite), "group.set", "group:"+subject(idOrName), func(tx *store.Tx) error {
		was, err := access.FindGroup(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", was.ID)
		next, err := change(was)
		if err != nil {
			return err
		}
		next.ID = was.ID
		if next.Extra == nil {
			next.Extra = was.Extra
		}
		if err := p.named(tx, &next.Expression, was.Expression); err != nil {
			return err
		}
		g, err = access.PutGroup(tx, next)
		return err
	})
	return g, err
}

// RemoveGroup removes a group that no rule names.
func (p *Plane) RemoveGroup(ctx context.Context, actor identity.Actor, idOrName string) error {
	return p.update(ctx, actor, needs(identity.OrganizationsWrite), "group.remove", "group:"+subject(idOrName), func(tx *store.Tx) error {
		g, err := access.FindGroup(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", g.ID)
		return access.RemoveGroup(tx, g.ID)
	})
}

// ListIPLists lists a page of the lists of networks, and counts all of them.
func (p *Plane) ListIPLists(ctx context.Context, actor identity.Actor, page access.Page) (list []access.IPList, total int, err error) {
	err = p.view(ctx, actor, identity.OrganizationsRead, func(tx *store.Tx) error {
		list, total, err = access.IPLists(tx, page)
		return err
	})
	return list, total, err
}

// ShowIPList returns the list of networks of an id or a name.
func (p *Plane) ShowIPList(ctx context.Context, actor identity.Actor, idOrName string) (l access.IPList, err error) {
	err = p.view(ctx, actor, identity.OrganizationsRead, func(tx *store.Tx) error {
		l, err = access.FindIPList(tx, idOrName)
		return err
	})
	return l, err
}

// AddIPList adds a list of networks.
func (p *Plane) AddIPList(ctx context.Context, actor identity.Actor, n access.IPList) (l access.IPList, err error) {
	n.ID = access.NewID()
	err = p.update(ctx, actor, needs(identity.OrganizationsWrite), "ip-list.add", "ip-list:"+n.ID, func(tx *store.Tx) error {
		l, err = access.PutIPList(tx, n)
		return err
	})
	return l, err
}

// SetIPList has change say what a list of networks is to be, as SetGroup does.
func (p *Plane) SetIPList(ctx context.Context, actor identity.Actor, idOrName string, change func(was access.IPList) (access.IPList, error)) (l access.IPList, err error) {
	err = p.update(ctx, actor, needs(identity.OrganizationsWrite), "ip-list.set", "ip-list:"+subject(idOrName), func(tx *store.Tx) error {
		was, err := access.FindIPList(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", was.ID)
		next, err := change(was)
		if err != nil {
			return err
		}
		next.ID = was.ID
		if next.Extra == nil {
			next.Extra = was.Extra
		}
		l, err = access.PutIPList(tx, next)
		return err
	})
	return l, err
}

// RemoveIPList removes a list of networks that no rule names.
func (p *Plane) RemoveIPList(ctx context.Context, actor identity.Actor, idOrName string) error {
	return p.update(ctx, actor, needs(identity.OrganizationsWrite), "ip-list.remove", "ip-list:"+subject(idOrName), func(tx *store.Tx) error {
		l, err := access.FindIPList(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", l.ID)
		return access.RemoveIPList(tx, l.ID)
	})
}

// blame returns an error that names a part of the request, where it names none.
func blame(err error, field string) error {
	var e *trust.Error
	if errors.As(err, &e) && e.Field == "" {
		return e.WithField(field)
	}
	return err
}
