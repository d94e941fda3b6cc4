package control

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"keyturn/internal/access"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// ListReusablePolicies lists a page of the policies that any application may have, and
// counts all of them.
func (p *Plane) ListReusablePolicies(ctx context.Context, actor identity.Actor, page access.Page) (list []access.Policy, names Names, total int, err error) {
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		if list, total, err = access.ReusablePolicies(tx, page); err != nil {
			return err
		}
		names, err = p.namesIn(tx, expressions(list)...)
		return err
	})
	return list, names, total, err
}

// A PolicyIn says where a policy has to be that is named by its id: anywhere, if empty.
type PolicyIn struct {
	Application string // id; the policy is its own
	Reusable    bool
}

// find returns the policy of an id.
func (in PolicyIn) find(tx *store.Tx, id string) (access.Policy, error) {
	if in.Application != "" {
		if _, err := access.ApplicationByID(tx, in.Application); err != nil {
			return access.Policy{}, blame(err, "application")
		}
	}
	found, err := access.PolicyByID(tx, id)
	switch {
	case err != nil:
		return access.Policy{}, err
	case in.Reusable && !found.Reusable():
		return access.Policy{}, trust.Errorf(trust.NotFound, "policy %q belongs to one application and is not reusable", found.Name)
	case in.Application != "" && !found.Reusable() && found.Application != in.Application:
		return access.Policy{}, trust.Errorf(trust.NotFound, "policy %q is of another application", found.Name)
	case in.Application != "" && found.Reusable():
		return access.Policy{}, trust.Errorf(trust.Conflict, "policy %q is reusable, and is written or removed by itself", found.Name)
	}
	return found, nil
}

// ShowPolicy returns the policy of an id.
func (p *Plane) ShowPolicy(ctx context.Context, actor identity.Actor, in PolicyIn, id string) (shown access.Policy, names Names, err error) {
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		if shown, err = in.find(tx, id); err != nil {
			return err
		}
		names, err = p.namesIn(tx, shown.Expression)
		return err
	})
	return shown, names, err
}

// AddPolicy adds a policy to an application, by its id or name, or a reusable one where
// no application is named. Who asks again, because an answer was lost, gets the one of
// before, if that is as it was.
func (p *Plane) AddPolicy(ctx context.Context, actor identity.Actor, application string, n access.Policy, again bool) (added access.Policy, err error) {
	request, err := requestOf(actor, "policy.add", []any{application, n})
	if err != nil {
		return added, err
	}
	m := making[access.Policy]{request: request, again: again, find: access.PolicyByID, state: policyState}
	n.ID = access.NewID()
	err = p.update(ctx, actor, needs(identity.AppsWrite), "policy.add", "policy:"+n.ID, func(tx *store.Tx) error {
		added, err = m.once(tx, func() (string, error) {
			n := n
			if application != "" {
				a, err := access.FindApplication(tx, application)
				if err != nil {
					return "", err
				}
				n.Application = a.ID
			}
			if err := p.named(tx, &n.Expression, policy.Expression{}); err != nil {
				return "", err
			}
			now, err := access.AddPolicy(tx, n)
			if err != nil {
				return "", err
			}
			notePolicy(tx, now)
			return now.ID, nil
		})
		return err
	})
	return added, answered(err)
}

// policyState is how a policy was written, whoever has it.
func policyState(p access.Policy) any {
	p.Applications = 0
	return p
}

// SetPolicy has change say what a policy is to be, as SetGroup does.
func (p *Plane) SetPolicy(ctx context.Context, actor identity.Actor, in PolicyIn, id string, change func(was access.Policy) (access.Policy, error)) (set access.Policy, err error) {
	err = p.update(ctx, actor, needs(identity.AppsWrite), "policy.set", "policy:"+subject(id), func(tx *store.Tx) error {
		was, err := in.find(tx, id)
		if err != nil {
			return err
		}
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
		if set, err = access.SetPolicy(tx, next); err != nil {
			return err
		}
		notePolicy(tx, set)
		return nil
	})
	return set, err
}

// UsePolicy gives an application a reusable policy, behind all that it has where no
// precedence is said.
func (p *Plane) UsePolicy(ctx context.Context, actor identity.Actor, application, id string, precedence int) (used access.Policy, err error) {
	err = p.update(ctx, actor, needs(identity.AppsWrite), "policy.use", "policy:"+subject(id), func(tx *store.Tx) error {
		a, err := access.FindApplication(tx, application)
		if err != nil {
			return err
		}
		tx.Note("application", a.ID)
		used, err = access.UsePolicy(tx, a.ID, id, precedence)
		return err
	})
	return used, err
}

// UnusePolicy takes a reusable policy away from an application.
func (p *Plane) UnusePolicy(ctx context.Context, actor identity.Actor, application, id string) error {
	return p.update(ctx, actor, needs(identity.AppsWrite), "policy.unuse", "policy:"+subject(id), func(tx *store.Tx) error {
		a, err := access.FindApplication(tx, application)
		if err != nil {
			return err
		}
		used, err := access.PolicyByID(tx, id)
		if err != nil {
			return err
		}
		if !used.Reusable() {
			return trust.Errorf(trust.Conflict, "policy %q is the application's own: it can only be removed", used.Name)
		}
		tx.Note("application", a.ID)
		return access.UnusePolicy(tx, a.ID, id)
	})
}

// RemovePolicy removes a policy, which no application may have unless it is its own.
func (p *Plane) RemovePolicy(ctx context.Context, actor identity.Actor, in PolicyIn, id string) error {
	return p.update(ctx, actor, needs(identity.AppsWrite), "policy.remove", "policy:"+subject(id), func(tx *store.Tx) error {
		was, err := in.find(tx, id)
		if err != nil {
			return err
		}
		notePolicy(tx, was)
		return access.RemovePolicy(tx, id)
	})
}

// notePolicy writes down which policy it is, and not its rules: those have addresses of
// people.
func notePolicy(tx *store.Tx, p access.Policy) {
	if !p.Reusable() {
		tx.Note("application", p.Application)
	}
	tx.Note("decision", string(p.Action))
	if p.SSH != nil {
		tx.Note("logins", strings.Join(p.SSH.Usernames, ", "))
	}
}

// An AllowLogin lets a user in.
type AllowLogin struct {
	User  string // name or id
	Host  string // a host's name, or a pattern of names
	Login string
	// Port is the port of the hosts; 0 for that of the host of that name, or 22.
	Port int
}

// AllowLogin lets a user log in to hosts. The hosts become an application that is called
// as they are, if there is none, and the user gets a policy in it.
func (p *Plane) AllowLogin(ctx context.Context, actor identity.Actor, l AllowLogin) (allowed access.Policy, err error) {
	newApplication, aud, newPolicy := access.NewID(), access.NewAudience(), access.NewID()
	err = p.update(ctx, actor, needs(identity.AppsWrite), "policy.allow", "user:"+subject(l.User), func(tx *store.Tx) error {
		u, err := p.directory.User(tx, l.User)
		if err != nil {
			return blame(err, "user")
		}
		a, err := forHosts(tx, l, access.Application{ID: newApplication, Aud: aud})
		if err != nil {
			return err
		}
		list, err := access.Policies(tx, a.ID)
		if err != nil {
			return err
		}
		only := policy.Expression{Include: []policy.Rule{{Kind: policy.User, Value: u.ID}}}
		i := slices.IndexFunc(list, func(q access.Policy) bool { return isFor(q, only.Include[0]) })
		switch {
		case i < 0:
			allowed, err = access.AddPolicy(tx, access.Policy{
				ID: newPolicy, Application: a.ID, Name: u.Name, Action: policy.Allow, Expression: only,
				SSH: &access.SSHRules{Usernames: []string{l.Login}},
			})
		case slices.Contains(list[i].SSH.Usernames, l.Login):
			allowed = list[i]
		default:
			list[i].SSH.Usernames = append(list[i].SSH.Usernames, l.Login)
			allowed, err = access.SetPolicy(tx, list[i])
		}
		tx.Note("host", subject(l.Host))
		tx.Note("policy", allowed.ID)
		notePolicy(tx, allowed)
		return err
	})
	return allowed, err
}

// isFor reports whether a policy of an application lets in whom a rule matches, and
// nobody else, and says as which logins.
func isFor(p access.Policy, r policy.Rule) bool {
	return !p.Reusable() && p.Action == policy.Allow && p.SSH != nil && saysNothing(p.Extra) &&
		slices.Equal(p.Include, []policy.Rule{r}) && len(p.Require) == 0 && len(p.Exclude) == 0
}

// saysNothing reports whether an Extra has nothing in it.
func saysNothing(extra json.RawMessage) bool { return len(extra) == 0 || string(extra) == "{}" }

// forHosts returns the application that stands for the hosts of l and nothing else. Where
// there is none, next becomes it.
func forHosts(tx *store.Tx, l AllowLogin, next access.Application) (access.Application, error) {
	port := l.Port
	if port == 0 {
		host, err := hostByName(tx, l.Host)
		if err != nil {
			return access.Application{}, err
		}
		port = host.Port
	}
	next.Name, next.Type = l.Host+":"+strconv.Itoa(port), policy.Infrastructure
	next.Criteria = []access.Criterion{{Criterion: policy.Criterion{
		Protocol: policy.ProtocolSSH, Port: port, Include: policy.Attributes{Hostnames: []string{l.Host}},
	}}}
	list, _, err := access.Applications(tx, access.ApplicationFilter{Name: next.Name, Type: policy.Infrastructure}, access.Page{Limit: MaxPage})
	if err != nil {
		return access.Application{}, err
	}
	for _, a := range list {
		if len(a.Criteria) == 1 && slices.Equal(a.Criteria[0].Include.Hostnames, []string{l.Host}) && len(a.Criteria[0].Include.Tags) == 0 &&
			a.Criteria[0].Port == port && a.Criteria[0].Require.IsZero() && a.Criteria[0].Exclude.IsZero() && saysNothing(a.Extra) {
			return a, nil
		}
	}
	return access.AddApplication(tx, next)
}

// hostByName returns the host of a name as rules know it; where there is none, one of
// that name at SSH's own port.
func hostByName(tx *store.Tx, name string) (policy.Host, error) {
	h, err := inventory.FindHost(tx, name)
	switch trust.KindOf(err) {
	case trust.NotFound, trust.Invalid: // as a pattern is
		return policy.Host{Hostname: name, Protocol: policy.ProtocolSSH, Port: 22}, nil
	}
	if err != nil {
		return policy.Host{}, err
	}
	return hostOf(tx, h)
}

// hostAsked returns the host of a name or an id as rules know it, or the one that is the
// only target of that hostname. Where there is none, it is one of that name, and there is
// false.
func hostAsked(tx *store.Tx, name string) (h policy.Host, there bool, err error) {
	_, err = inventory.FindHost(tx, name)
	if trust.KindOf(err) == trust.NotFound {
		targets, _, err := inventory.Targets(tx, inventory.TargetFilter{Hostname: name}, inventory.Page{Limit: 2})
		if err != nil {
			return h, false, err
		}
		if len(targets) > 1 {
			return h, false, trust.Errorf(trust.Conflict, "several targets have the hostname %q", name).WithField("host").WithHint("keyturn target list --hostname %s, and name one by its id", name)
		}
		if there = len(targets) == 1; there {
			name = string(targets[0].ID)
		}
	} else {
		there = err == nil
	}
	h, err = hostByName(tx, name)
	return h, there, err
}

// A TestLogin asks what the rules say of a login.
type TestLogin struct {
	User  string // name or id; empty for the actor
	Host  string // a host's name or id, or that of one that is not known
	Login string
	// Port is the port of the host's sshd; 0 for that of its address, or 22.
	Port int
	// Source is the address that a user who is named comes from, or the zero value.
	Source netip.Addr
	// Application is the id or name of the only application to ask, or empty.
	Application string
}

// TestLogin decides a login as it would be decided now, and says why: by the names of the
// users, groups and lists that rules name by their ids.
func (p *Plane) TestLogin(ctx context.Context, actor identity.Actor, t TestLogin) (d policy.Decision, err error) {
	if err := require(actor, identity.AppsRead, identity.UsersRead, identity.HostsRead); err != nil {
		return d, err
	}
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		r := policy.Request{Login: t.Login}
		if r.Who, err = p.asks(tx, actor, t); err != nil {
			return err
		}
		there := true
		if r.Host, there, err = hostAsked(tx, t.Host); err != nil {
			return err
		}
		if t.Port != 0 {
			r.Host.Port = t.Port
		}
		if t.Application != "" {
			a, err := access.FindApplication(tx, t.Application)
			if err != nil {
				return blame(err, "application")
			}
			r.Application = a.ID
		}
		if d, err = p.decideLogin(tx, r); err != nil {
			return err
		}
		if !there {
			d.Why += fmt.Sprintf("; no host %q is known: this is of one that is called so", t.Host)
		}
		name, err := p.nameOf(tx, d.Rule)
		if name != "" {
			d.Why = strings.Replace(d.Why, d.Rule.String(), policy.Rule{Kind: d.Rule.Kind, Value: name}.String(), 1)
		}
		if trust.KindOf(err) == trust.NotFound {
			return nil
		}
		return err
	})
	return d, err
}

// asks returns who it is that a test is about.
func (p *Plane) asks(tx *store.Tx, actor identity.Actor, t TestLogin) (policy.Identity, error) {
	if t.User == "" {
		asking, err := p.directory.Asking(tx, actor)
		return identityOf(actor, asking), err
	}
	u, err := p.directory.User(tx, t.User)
	if err != nil {
		return policy.Identity{}, blame(err, "user")
	}
	who, err := p.identityOfUser(tx, u)
	who.Source = t.Source
	return who, err
}
