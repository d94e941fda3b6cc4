package control

import (
	"context"

	"keyturn/internal/access"
	"keyturn/internal/identity"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// maxTried is how many users a test of policies tries.
const maxTried = 100_000

// A PolicyTest is what policies would do with the users that there are.
type PolicyTest struct {
	ID string
	// Users is how many there are, as far as they are tried, and Approved how many of
	// them the policies would let in.
	Users, Approved int
	// More is whether there are more users than are tried.
	More bool
}

// A TriedUser is a user on whom policies were tried.
type TriedUser struct {
	ID, Name, Email string
	Approved        bool
}

// StartPolicyTest keeps policies, so that can be asked whom they would let in. One that
// says an id and no name is the policy of that id. Who asks again, because an answer was
// lost, gets the test of before.
func (p *Plane) StartPolicyTest(ctx context.Context, actor identity.Actor, list []access.Policy, again bool) (id string, err error) {
	request, err := requestOf(actor, "policy.test", list)
	if err != nil {
		return "", err
	}
	find := func(tx *store.Tx, id string) (string, error) {
		_, err := access.TestByID(tx, id)
		return id, err
	}
	m := making[string]{request: request, again: again, find: find, state: func(id string) any { return id }}
	fresh := access.NewID()
	err = p.update(ctx, actor, needs(identity.PolicyTestWrite), "policy.test", "policy-test:"+fresh, func(tx *store.Tx) error {
		id, err = m.once(tx, func() (string, error) {
			for i := range list {
				if err := p.named(tx, &list[i].Expression, policy.Expression{}); err != nil {
					return "", err
				}
			}
			_, err := access.AddTest(tx, fresh, list)
			return fresh, err
		})
		return err
	})
	return id, answered(err)
}

// ShowPolicyTest says how many of the users that there are now the policies of a test
// would let in.
func (p *Plane) ShowPolicyTest(ctx context.Context, actor identity.Actor, id string) (t PolicyTest, err error) {
	err = p.view(ctx, actor, identity.PolicyTestRead, func(tx *store.Tx) error {
		t, err = p.try(tx, id, func(TriedUser) {})
		return err
	})
	return t, err
}

// A TriedFilter says which users of a test are meant.
type TriedFilter struct {
	Approved *bool  // nil for both
	After    string // only behind the user of this id; "" for all
}

// ListPolicyTestUsers lists a page of the users on whom the policies of a test are tried,
// by their ids, and counts those that a filter lets through.
func (p *Plane) ListPolicyTestUsers(ctx context.Context, actor identity.Actor, id string, f TriedFilter, page CountedPage) (list []TriedUser, total int, err error) {
	if _, err := (Page{After: f.After}).id(); err != nil {
		return nil, 0, err
	}
	err = p.view(ctx, actor, identity.PolicyTestRead, func(tx *store.Tx) error {
		list, total = nil, 0
		from := (page.Number - 1) * page.Size
		_, err := p.try(tx, id, func(u TriedUser) {
			if f.Approved != nil && u.Approved != *f.Approved || u.ID <= f.After {
				return
			}
			if total >= from && len(list) < page.Size {
				list = append(list, u)
			}
			total++
		})
		return err
	})
	return list, total, err
}

// try tries the policies of a test on each user in turn.
func (p *Plane) try(tx *store.Tx, id string, each func(TriedUser)) (PolicyTest, error) {
	t := PolicyTest{ID: id}
	kept, err := access.TestByID(tx, id)
	if err != nil {
		return t, err
	}
	book, err := access.Trial(tx, access.Application{}, kept.Policies)
	if err != nil {
		return t, err
	}
	for after := ""; t.Users < maxTried; {
		known, err := p.directory.Known(tx, after, MaxPage)
		if err != nil || len(known) == 0 {
			return t, err
		}
		for _, k := range known {
			after = k.ID
			d := book.Decide(policy.Request{Who: identified(k.User, k.Said), Application: access.TrialOf, AnyLogin: true})
			t.Users++
			if d.Allowed {
				t.Approved++
			}
			each(TriedUser{ID: k.ID, Name: k.Name, Email: k.Email, Approved: d.Allowed})
		}
	}
	t.More = true
	return t, nil
}

// A UserCheck is what the policies of an application do with a user.
type UserCheck struct {
	Application access.Application
	User        identity.User
	LoginDecision
	Policies []CheckedPolicy
}

// A CheckedPolicy is a policy, and whether it would let a user in by itself.
type CheckedPolicy struct {
	access.Policy
	Approved bool
}

// CheckUser says what the policies of an application, by its id, do with a user, whatever
// the host and the login: the one by whom the actor asks where none is named, by an id,
// a name or an address.
func (p *Plane) CheckUser(ctx context.Context, actor identity.Actor, application, user string) (c UserCheck, err error) {
	if err := require(actor, identity.AppsRead); err != nil {
		return c, err
	}
	if user != "" {
		if err := require(actor, identity.UsersRead); err != nil {
			return c, err
		}
	}
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		c = UserCheck{}
		if c.Application, err = access.ApplicationByID(tx, application); err != nil {
			return err
		}
		if user == "" && actor.Owner == "" {
			return trust.Errorf(trust.Invalid, "no user is named, and %q is none", actor.Name).WithField("email")
		}
		if c.User, err = p.userOrAddress(tx, user, actor.Owner); err != nil {
			return blame(err, "email")
		}
		who, err := p.identityOfUser(tx, c.User)
		if err != nil {
			return err
		}
		list, err := access.Policies(tx, application)
		if err != nil {
			return err
		}
		book, err := access.Trial(tx, c.Application, list)
		if err != nil {
			return err
		}
		r := policy.Request{Who: who, Application: access.TrialOf, AnyLogin: true}
		c.LoginDecision = book.Decide(r)
		for _, one := range list {
			r.Application = one.ID
			c.Policies = append(c.Policies, CheckedPolicy{one, book.Decide(r).Allowed})
		}
		return nil
	})
	return c, err
}

// userOrAddress returns the user of an id, a name or an address, or of the id otherwise
// where none is given.
func (p *Plane) userOrAddress(tx *store.Tx, user, otherwise string) (identity.User, error) {
	if user == "" {
		return p.directory.User(tx, otherwise)
	}
	u, err := p.directory.UserByEmail(tx, user)
	if trust.KindOf(err) == trust.NotFound {
		return p.directory.User(tx, user)
	}
	return u, err
}
