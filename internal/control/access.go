package control

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"keyturn/internal/access"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Who may log in where is decided here for every verb that has to know: by the rules
// of package access, and what is known of who asks and of the host.

// decideLogin decides a request by the tenant's rules.
func (p *Plane) decideLogin(tx *store.Tx, r policy.Request) (policy.Decision, error) {
	book, err := p.books.Of(tx)
	if err != nil {
		return policy.Decision{}, err
	}
	return book.Decide(r), nil
}

// identityOf returns what is known of an actor, of whom Directory.Asking tells. A token asks in its own name, as a
// machine, whoever owns it, unless its owner has made it to ask as the owner; so does a
// machine for which an identity provider vouches, whose service token is that
// provider's id.
//
// Of a user in person it is known what the identity provider said at that very login, and
// nothing that it said at another one, where more may have been proved. Of who asks by a
// token it is known who that is, and nothing that is said at logins: they have not logged
// in, and whoever made the token may have proved little.
func identityOf(actor identity.Actor, asking identity.Known) policy.Identity {
	if !actor.IsPerson() {
		return policy.Identity{Name: actor.Name, ServiceToken: cmp.Or(actor.ID, actor.Kind), Source: address(actor.Source)}
	}
	who := identified(asking.User, asking.Said)
	who.Source = address(actor.Source)
	if actor.Kind != "user" {
		who.Provider, who.Methods = "", nil
	}
	return who
}

// identityOfUser returns what is known of a user, wherever they are: what the identity
// provider said at the last login, or that the password is ours.
func (p *Plane) identityOfUser(tx *store.Tx, u identity.User) (policy.Identity, error) {
	said, err := p.directory.Said(tx, u.ID)
	return identified(u, said), err
}

// identified returns what is known of a user of whom an identity provider, if any, has
// said something.
func identified(u identity.User, said identity.Said) policy.Identity {
	who := policy.Identity{Name: u.Name, User: u.ID, Email: u.Email}
	if u.Provider == "" {
		who.Provider, who.Methods, who.Claims = policy.LocalLogin, []string{"pwd"}, []policy.Claim{}
		if u.TOTP {
			who.Methods = append(who.Methods, "otp", "mfa")
		}
		return who
	}
	if said.Provider == "" {
		return who
	}
	who.Provider = said.Provider
	who.Methods = append([]string{}, said.Claims["amr"]...)
	who.Claims = []policy.Claim{}
	for name, values := range said.Claims {
		for _, value := range values {
			who.Claims = append(who.Claims, policy.Claim{Provider: said.Provider, Name: name, Value: value})
		}
	}
	return who
}

// address returns the address that an actor came from, or none where that was not one.
func address(source string) netip.Addr {
	addr, _ := netip.ParseAddr(source) // the zero value is not known
	return addr
}

// hostOf returns a host as rules know it: by its name, and by its label and tags where
// it is a target.
func hostOf(tx *store.Tx, h inventory.Host) (policy.Host, error) {
	_, port, err := net.SplitHostPort(h.Address)
	if err != nil {
		return policy.Host{}, err
	}
	host := policy.Host{Hostname: h.Name, Protocol: policy.ProtocolSSH}
	if host.Port, err = strconv.Atoi(port); err != nil {
		return policy.Host{}, err
	}
	t, err := inventory.TargetByID(tx, h.ID)
	if trust.KindOf(err) == trust.NotFound {
		return host, nil
	}
	host.Label, host.Tags = t.Hostname, t.Tags
	return host, err
}

// named returns rules in which users, groups and lists of networks that were named by
// their names are named by their ids. Rules that were there already stay as they are, also
// where what they name is gone: what was read can be written back.
func (p *Plane) named(tx *store.Tx, e *policy.Expression, was policy.Expression) error {
	there := slices.Concat(was.Include, was.Require, was.Exclude)
	for _, section := range []struct {
		name  string
		rules []policy.Rule
	}{{"include", e.Include}, {"require", e.Require}, {"exclude", e.Exclude}} {
		for i := range section.rules {
			if slices.Contains(there, section.rules[i]) {
				continue
			}
			if err := p.nameRule(tx, &section.rules[i]); err != nil {
				return blame(err, section.name)
			}
		}
	}
	return nil
}

func (p *Plane) nameRule(tx *store.Tx, r *policy.Rule) error {
	switch r.Kind {
	case policy.User:
		u, err := p.directory.User(tx, r.Value)
		if err != nil {
			return err
		}
		r.Value = u.ID
	case policy.InGroup:
		g, err := access.FindGroup(tx, r.Value)
		if err != nil {
			return err
		}
		r.Value = g.ID
	case policy.InIPList:
		l, err := access.FindIPList(tx, r.Value)
		if err != nil {
			return err
		}
		r.Value = l.ID
	}
	return nil
}

// A Names is what people call the things that rules name by their ids.
type Names map[string]string

// namesIn returns the names of what rules name, as far as it is there.
func (p *Plane) namesIn(tx *store.Tx, list ...policy.Expression) (Names, error) {
	names := Names{}
	for _, e := range list {
		for _, rules := range [][]policy.Rule{e.Include, e.Require, e.Exclude} {
			for _, r := range rules {
				if _, known := names[r.Value]; known {
					continue
				}
				name, err := p.nameOf(tx, r)
				if trust.KindOf(err) != trust.NotFound && err != nil {
					return nil, err
				}
				if name != "" {
					names[r.Value] = name
				}
			}
		}
	}
	return names, nil
}

func (p *Plane) nameOf(tx *store.Tx, r policy.Rule) (string, error) {
	switch r.Kind {
	case policy.User:
		u, err := p.directory.User(tx, r.Value)
		return u.Name, err
	case policy.InGroup:
		g, err := access.GroupByID(tx, r.Value)
		return g.Name, err
	case policy.InIPList:
		l, err := access.IPListByID(tx, r.Value)
		return l.Name, err
	}
	return "", nil
}
