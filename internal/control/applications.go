package control

import (
	"context"
	"strconv"

	"keyturn/internal/access"
	"keyturn/internal/identity"
	"keyturn/internal/policy"
	"keyturn/internal/store"
)

// An ApplicationWithPolicies is an application and the policies that it has, by their
// precedence.
type ApplicationWithPolicies struct {
	access.Application
	Policies []access.Policy
	Names    Names // of what rules name: in a listing, those of all applications
}

// ListApplications lists a page of the applications that a filter lets through, and
// counts all of them.
func (p *Plane) ListApplications(ctx context.Context, actor identity.Actor, f access.ApplicationFilter, page access.Page) (list []ApplicationWithPolicies, total int, err error) {
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		found, n, err := access.Applications(tx, f, page)
		if err != nil {
			return err
		}
		total = n
		list, err = p.withPolicies(tx, found...)
		return err
	})
	return list, total, err
}

// ShowApplication returns the application of an id or a name.
func (p *Plane) ShowApplication(ctx context.Context, actor identity.Actor, idOrName string) (a ApplicationWithPolicies, err error) {
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		found, err := access.FindApplication(tx, idOrName)
		if err != nil {
			return err
		}
		a, err = p.oneWithPolicies(tx, found)
		return err
	})
	return a, err
}

func (p *Plane) oneWithPolicies(tx *store.Tx, a access.Application) (ApplicationWithPolicies, error) {
	list, err := p.withPolicies(tx, a)
	if err != nil {
		return ApplicationWithPolicies{}, err
	}
	return list[0], nil
}

func (p *Plane) withPolicies(tx *store.Tx, list ...access.Application) ([]ApplicationWithPolicies, error) {
	ids := make([]string, len(list))
	for i, a := range list {
		ids[i] = a.ID
	}
	of, err := access.PoliciesOf(tx, ids)
	if err != nil {
		return nil, err
	}
	var all []policy.Expression
	for _, policies := range of {
		all = append(all, expressions(policies)...)
	}
	names, err := p.namesIn(tx, all...)
	if err != nil {
		return nil, err
	}
	out := make([]ApplicationWithPolicies, len(list))
	for i, a := range list {
		out[i] = ApplicationWithPolicies{a, of[a.ID], names}
	}
	return out, nil
}

func expressions(list []access.Policy) []policy.Expression {
	all := make([]policy.Expression, len(list))
	for i, p := range list {
		all[i] = p.Expression
	}
	return all
}

// A WriteApplication is an application as it is to be. Of what is not said, a new one
// has nothing, and another stays as it is: Extra where it is nil, and Policies where
// those are nil. For what Policies can hold see access.SetPolicies.
type WriteApplication struct {
	access.Application
	Policies []access.Policy
}

// AddApplication adds an application. Who asks again, because an answer was lost, gets the
// one of before, if that is as it was.
func (p *Plane) AddApplication(ctx context.Context, actor identity.Actor, w WriteApplication, again bool) (a ApplicationWithPolicies, err error) {
	request, err := requestOf(actor, "application.add", w)
	if err != nil {
		return a, err
	}
	m := making[ApplicationWithPolicies]{request: request, again: again, find: p.applicationByID, state: ApplicationWithPolicies.state}
	id, aud := access.NewID(), access.NewAudience()
	identify(w.Policies)
	err = p.update(ctx, actor, needs(identity.AppsWrite), "application.add", "application:"+id, func(tx *store.Tx) error {
		a, err = m.once(tx, func() (string, error) {
			w.ID, w.Aud = id, aud
			tx.Note("type", string(w.Type))
			if _, err := access.AddApplication(tx, w.Application); err != nil {
				return "", err
			}
			if err := p.namePolicies(tx, w.Policies, nil); err != nil {
				return "", err
			}
			return id, access.SetPolicies(tx, id, w.Policies)
		})
		return err
	})
	return a, answered(err)
}

func (p *Plane) applicationByID(tx *store.Tx, id string) (ApplicationWithPolicies, error) {
	found, err := access.ApplicationByID(tx, id)
	if err != nil {
		return ApplicationWithPolicies{}, err
	}
	return p.oneWithPolicies(tx, found)
}

// state is how an application was written, with its policies.
func (a ApplicationWithPolicies) state() any {
	all := []any{a.Application}
	for _, one := range a.Policies {
		all = append(all, policyState(one))
	}
	return all
}

// SetApplication has change say what an application is to be, as SetGroup does: with the
// policies that it is to have, or without any.
func (p *Plane) SetApplication(ctx context.Context, actor identity.Actor, idOrName string, change func(was WriteApplication) (WriteApplication, error)) (a ApplicationWithPolicies, err error) {
	err = p.update(ctx, actor, needs(identity.AppsWrite), "application.set", "application:"+subject(idOrName), func(tx *store.Tx) error {
		was, err := access.FindApplication(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", was.ID)
		w, err := change(WriteApplication{Application: was})
		if err != nil {
			return err
		}
		identify(w.Policies)
		next := w.Application
		next.ID = was.ID
		if next.Extra == nil {
			next.Extra = was.Extra
		}
		has, err := access.Policies(tx, was.ID)
		if err != nil {
			return err
		}
		if err := p.namePolicies(tx, w.Policies, has); err != nil {
			return err
		}
		set, err := access.SetApplication(tx, next, w.Policies)
		if err != nil {
			return err
		}
		a, err = p.oneWithPolicies(tx, set)
		return err
	})
	return a, err
}

// identify gives new policies ids.
func identify(list []access.Policy) {
	for i := range list {
		if list[i].ID == "" {
			list[i].ID = access.NewID()
		}
	}
}

// namePolicies names what the rules of policies name by ids, but for rules that those of
// the same id had, and notes which they are.
func (p *Plane) namePolicies(tx *store.Tx, list, has []access.Policy) error {
	were := map[string]policy.Expression{}
	for _, one := range has {
		were[one.ID] = one.Expression
	}
	for i := range list {
		if err := p.named(tx, &list[i].Expression, were[list[i].ID]); err != nil {
			return err
		}
		tx.Note("policy", list[i].ID)
	}
	return nil
}

// RemoveApplication removes an application with the policies that are its own, and with
// its authority, which is revoked, as is every certificate that it let, whoever signed it.
func (p *Plane) RemoveApplication(ctx context.Context, actor identity.Actor, idOrName string) error {
	return p.update(ctx, actor, needs(identity.AppsWrite), "application.remove", "application:"+subject(idOrName), func(tx *store.Tx) error {
		a, err := access.FindApplication(tx, idOrName)
		if err != nil {
			return err
		}
		tx.Note("id", a.ID)
		if _, err := p.authorities.RemoveOfApplication(tx, a.ID, "its application was removed"); err != nil {
			return err
		}
		revoked, err := p.authorities.RevokeLetBy(tx, a.ID, "the application that let it was removed")
		if err != nil {
			return err
		}
		tx.Note("certificates", strconv.Itoa(revoked))
		return access.RemoveApplication(tx, a.ID)
	})
}
