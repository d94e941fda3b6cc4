package control

import (
	"context"
	"strings"

	"keyturn/internal/authority"
	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A HostCertificate is a host certificate for a key by which a host is known at the gateway.
type HostCertificate struct {
	HostIdentity
	Certificate Certificate
	Signed      trust.PublicKey
}

// CertifyHost returns the certificates of an authority, by name or id, for the keys by
// which a host, by name or id, or else the gateway itself, is known: those that are
// presented and those that are announced. They are made where there are none, and anew
// where half of their time is over. Where no authority is named, there is only one.
func (p *Plane) CertifyHost(ctx context.Context, actor identity.Actor, nameOrID, ca string) (list []HostCertificate, err error) {
	if err := require(actor, identity.ZeroTrustRead, identity.CertificatesIssue); err != nil {
		return nil, err
	}
	if _, err := p.seeds(ctx, actor); err != nil { // makes the first
		return nil, err
	}
	var host inventory.HostRef
	var made []hostid.Certified
	find := func(tx *store.Tx, then func(authority.Authority, []hostid.Identity) error) error {
		a, err := p.hostAuthority(tx, ca)
		if err != nil {
			return err
		}
		if host, err = hostAtGateway(tx, nameOrID); err != nil {
			return err
		}
		shown, err := p.shown(tx)
		if err != nil {
			return err
		}
		keys, err := shown.Identities(host.ID)
		if err != nil {
			return err
		}
		return then(a, keys)
	}
	var missing []hostid.Identity
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		return find(tx, func(a authority.Authority, keys []hostid.Identity) error {
			made, missing, err = hostid.Certificates(tx, p.authorities, a, keys)
			return err
		})
	})
	if err == nil && len(missing) > 0 {
		err = p.update(ctx, actor, needs(identity.CertificatesIssue), "certificate.issue", "host:"+string(host.ID), func(tx *store.Tx) error {
			return find(tx, func(a authority.Authority, keys []hostid.Identity) error {
				made, err = hostid.Certify(tx, p.authorities, a, keys)
				return err
			})
		})
	}
	if err != nil {
		return nil, err
	}
	for _, c := range made {
		signed, err := c.Certificate.Sign()
		if err != nil {
			return nil, err
		}
		list = append(list, HostCertificate{HostIdentity{c.Identity, host.Name}, c.Certificate.Issued, signed})
	}
	return list, nil
}

// hostAtGateway returns a host, or for "" the gateway itself.
func hostAtGateway(tx *store.Tx, nameOrID string) (inventory.HostRef, error) {
	if nameOrID == "" {
		return inventory.HostRef{ID: hostid.Gateway(tx.Tenant())}, nil
	}
	h, err := inventory.FindHost(tx, nameOrID)
	return inventory.HostRef{ID: h.ID, Name: h.Name}, err
}

// hostAuthority returns the authority that signs for hosts: the one that is named, or else
// the only one.
func (p *Plane) hostAuthority(tx *store.Tx, name string) (authority.Authority, error) {
	if name != "" {
		a, err := p.authorities.Find(tx, name)
		if err == nil && a.Purpose != authority.Host {
			err = trust.Errorf(trust.Invalid, "authority %q does not sign for hosts", a.Name).WithField("authority")
		}
		return a, err
	}
	all, err := p.hostAuthorities(tx)
	if err != nil {
		return authority.Authority{}, err
	}
	var signing []authority.Authority
	var names []string
	for _, a := range all {
		if a.State(tx.Now()) == authority.Signing {
			signing, names = append(signing, a), append(names, a.Name)
		}
	}
	switch len(signing) {
	case 0:
		return authority.Authority{}, trust.Errorf(trust.NotFound, "there is no authority that signs for hosts").WithHint("keyturn ca create NAME --purpose host")
	case 1:
		return signing[0], nil
	}
	return authority.Authority{}, trust.Errorf(trust.Invalid, "several authorities sign for hosts: say which of %s", clip(strings.Join(names, ", "))).WithField("authority")
}

// hostAuthorities returns the authorities for hosts that clients should trust, oldest
// first.
func (p *Plane) hostAuthorities(tx *store.Tx) (trusted []authority.Authority, err error) {
	f := authority.Filter{Purpose: authority.Host, Limit: MaxPage}
	for {
		page, err := p.authorities.List(tx, f)
		if err != nil {
			return nil, err
		}
		for _, a := range page {
			if a.Trusted(tx.Now()) {
				trusted = append(trusted, a)
			}
		}
		if len(page) < f.Limit {
			return trusted, nil
		}
		f.After = page[len(page)-1].ID
	}
}

// A KnownHostsRequest asks for lines of known_hosts.
type KnownHostsRequest struct {
	Host   string // name or id; "" for all hosts, and the gateway itself
	Hashed bool
	// Authorities says whether there are lines of authorities for hosts, and of those that
	// were removed: beside the keys, alone, or not.
	Authorities AuthorityLines
	// Revoked asks for the keys of revoked seeds instead, as RevokedHostKeys of
	// ssh_config(5) reads them. There are no lines with @revoked: a client that has one of a host
	// learns no key of it any more (UpdateHostKeys).
	Revoked bool
}

// AuthorityLines is which lines there are of authorities.
type AuthorityLines string

// The lines of authorities that can be asked for.
const (
	AuthoritiesToo  AuthorityLines = "too"
	AuthoritiesOnly AuthorityLines = "only"
	AuthoritiesNone AuthorityLines = "none"
)

// PrintKnownHosts returns by which keys hosts are known at the gateway, and first by which
// authorities, as lines of known_hosts.
func (p *Plane) PrintKnownHosts(ctx context.Context, actor identity.Actor, r KnownHostsRequest, page Page) (lines []string, next string, err error) {
	list, next, err := p.identities(ctx, actor, r.Host, page, func(tx *store.Tx) error {
		lines = nil
		if page.After != "" || r.Authorities == AuthoritiesNone || r.Revoked {
			return nil
		}
		lines, err = p.authorityLines(tx, r)
		return err
	})
	if err != nil || r.Authorities == AuthoritiesOnly && !r.Revoked {
		return lines, "", err
	}
	for _, k := range list {
		switch {
		case k.Revoked != r.Revoked:
			continue
		case r.Revoked:
			lines = append(lines, k.Key.String()+" "+k.Name)
			continue
		}
		line, err := k.KnownHosts(r.Hashed)
		if err != nil {
			return nil, "", err
		}
		lines = append(lines, line)
	}
	return lines, next, nil
}

func (p *Plane) authorityLines(tx *store.Tx, r KnownHostsRequest) (lines []string, err error) {
	all, err := p.hostAuthorities(tx)
	if err != nil {
		return nil, err
	}
	removed, err := p.authorities.RemovedHosts(tx)
	if err != nil {
		return nil, err
	}
	var host inventory.HostRef // of no id: every host, and the gateway
	if r.Host != "" {
		if host, err = hostAtGateway(tx, r.Host); err != nil {
			return nil, err
		}
	}
	for _, a := range append(all, removed...) {
		line, err := hostid.AuthorityLine(tx.Tenant(), host.ID, a, r.Hashed)
		if err != nil {
			return nil, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}
