package control

import (
	"cmp"
	"context"
	"strings"
	"time"

	"keyturn/internal/authority"
	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// An IssueCertificate asks for a certificate for oneself.
type IssueCertificate struct {
	Authority  string // name or id
	PublicKey  trust.PublicKey
	Principals []string
	Valid      time.Duration // 0 for what the authority's profile says
	Options    CertificateOptions
}

// Issue signs a certificate that lets the actor in as principals, each of which a policy
// has to allow; or, for a host, one by which it is known, which needs the permission to
// change hosts. The certificate is on record before it is signed.
//
// Hosts look at a principal, and not at who decided on it: a certificate of an authority
// of the whole account lets in at every host that trusts that. So it is decided as for a
// host of which nothing is known, and only an application that stands for every host
// lets in. One of an application's own authority is decided by that application.
func (p *Plane) Issue(ctx context.Context, actor identity.Actor, r IssueCertificate) (c Certificate, signed trust.PublicKey, err error) {
	if err := require(actor, identity.CertificatesIssue); err != nil {
		return c, signed, err
	}
	var draft *authority.Draft
	var refused policy.Decision
	err = p.update(ctx, actor, needs(identity.CertificatesIssue), "certificate.issue", "ca:"+subject(r.Authority), func(tx *store.Tx) error {
		asking, err := p.directory.Asking(tx, actor)
		if err != nil {
			return err
		}
		a, err := p.authorities.Find(tx, r.Authority)
		if err != nil {
			return err
		}
		request := authority.Request{
			Key: r.PublicKey, Principals: r.Principals, Valid: r.Valid, Options: r.Options, AskedWith: askedWith(actor),
			// The log of a host is to know the user, whether by a token or not.
			KeyID: cmp.Or(asking.Name, actor.Name), Person: actor.Owner,
		}
		switch a.Purpose {
		case authority.Host:
			request.KeyID, request.Why = "host "+first(r.Principals), "who may change hosts asked for it"
			err = cmp.Or(actor.Require(identity.HostsWrite), refuseGatewayNames(actor.Tenant, r.Principals))
		case authority.User:
			refused, err = p.allow(tx, identityOf(actor, asking), a.Application, &request)
		default:
			err = trust.Errorf(trust.Denied, "authority %q signs for the gateway, and for nobody else", a.Name)
		}
		if err != nil {
			return err
		}
		if request.Until, err = usableUntil(tx, r.PublicKey, actor.Until); err != nil {
			return err
		}
		draft, err = p.authorities.Draft(tx, a, request)
		return err
	})
	if err != nil {
		return c, signed, cmp.Or(p.recordRefusal(ctx, actor, r, refused), err)
	}
	signed, err = draft.Sign()
	return draft.Issued, signed, err
}

// recordRefusal tells the log that policies refuse a certificate, if they did: by which
// application and policy that came nearest, as far as one did.
func (p *Plane) recordRefusal(ctx context.Context, actor identity.Actor, r IssueCertificate, d policy.Decision) error {
	if d.Why == "" {
		return nil
	}
	return p.update(ctx, actor, nil, "certificate.refuse", "ca:"+subject(r.Authority), func(tx *store.Tx) error {
		tx.Note("application", d.Application)
		tx.Note("policy", d.Policy)
		return nil
	})
}

// usableUntil refuses a key that the inventory knows as one that is not in use any more,
// and returns until when it may be certified: no later than until, where that is given.
func usableUntil(tx *store.Tx, key trust.PublicKey, until time.Time) (time.Time, error) {
	ids, err := inventory.KeyIDs(tx, key.Fingerprint())
	if err != nil {
		return until, err
	}
	for _, id := range ids {
		k, err := inventory.KeyByID(tx, id)
		if err != nil {
			return until, err
		}
		if err := inUse(tx, k); err != nil {
			return until, err
		}
		if !k.ExpiresAt.IsZero() && (until.IsZero() || k.ExpiresAt.Before(until)) {
			until = k.ExpiresAt
		}
	}
	return until, nil
}

// refuseGatewayNames refuses to let anybody be the gateway: only the keys of its seed are
// certified for its names.
func refuseGatewayNames(tenant trust.TenantID, names []string) error {
	gateway := hostid.Alias(tenant, hostid.Gateway(tenant))
	for _, name := range names {
		lower := strings.TrimSuffix(strings.ToLower(name), ".")
		if lower == gateway || strings.HasSuffix(lower, "."+gateway) {
			return trust.Errorf(trust.Denied, "%q is a name of the gateway, which has certificates for the keys of its own seed only", clip(name)).
				WithField("principals").WithHint("keyturn seed certify")
		}
	}
	return nil
}

// askedWith names the credential of an actor who asks by one that may end before its owner
// does, as certificates have it on record.
func askedWith(actor identity.Actor) string {
	if actor.Kind == "user" {
		return ""
	}
	return actor.Kind + ":" + actor.ID
}

// first returns the first of names, as far as there is one.
func first(names []string) string {
	if len(names) == 0 {
		return ""
	}
	return clip(names[0])
}

// anyHost is a host of which only the port is known. Its name is longer than that of any
// host, so that no pattern for some of those fits it.
var anyHost = policy.Host{Hostname: strings.Repeat("*", 254), Protocol: policy.ProtocolSSH, Port: 22}

// allow says in request by which policies somebody gets in as each of its principals, or
// refuses by the first that none lets in as: everywhere, or at whatever is of an
// application. Of several applications that let in everywhere, the first decides, by their
// ids.
func (p *Plane) allow(tx *store.Tx, who policy.Identity, application string, request *authority.Request) (refused policy.Decision, err error) {
	rules, err := p.books.Of(tx)
	if err != nil {
		return refused, err
	}
	var reasons []string
	for _, login := range request.Principals {
		r := policy.Request{Who: who, Host: anyHost, Login: login, Application: application, Everywhere: true}
		d := rules.Decide(r)
		switch {
		case !d.Allowed && application != "":
			return d, trust.Errorf(trust.Denied, "no certificate as %q: %s", clip(login), d.Why)
		case !d.Allowed:
			return d, refusal(rules, r)
		}
		reasons = append(reasons, d.Why)
		request.Applications = append(request.Applications, d.Application)
		tx.Note("application", d.Application)
		tx.Note("policy", d.Policy)
	}
	request.Why = strings.Join(reasons, "; ")
	return refused, nil
}

// refusal says why a request is refused, and what came nearest to letting it in.
func refusal(rules *policy.Rulebook, r policy.Request) error {
	r.Everywhere = false
	d := rules.Decide(r)
	why := strings.ReplaceAll(d.Why, anyHost.Hostname, "*")
	if d.Allowed {
		why += ", but does not stand for every host, as a certificate of this authority does"
	}
	return trust.Errorf(trust.Denied, "no certificate as %q: %s", clip(r.Login), why).
		WithHint("it would open every host, so that a policy has to let in to all of them: keyturn policy allow --user NAME --host '*' --login LOGIN; an authority that only some hosts trust is one of their application: keyturn ca create NAME --application APPLICATION")
}
