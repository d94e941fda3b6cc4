package control

import (
	"context"
	"slices"
	"strings"

	"keyturn/internal/access"
	"keyturn/internal/authority"
	"keyturn/internal/identity"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// The authorities that clients of Cloudflare know: one of each application, and one of
// the gateway. They are authorities like others, under names of their own, and the
// permissions to see and change them are Cloudflare's.

// An ApplicationAuthority is the authority of an application.
type ApplicationAuthority struct {
	authority.ApplicationKey
	Aud string // of the application
}

// ListApplicationAuthorities lists the authorities of applications, oldest first, and
// says how many there are. A page beyond the last is empty.
func (p *Plane) ListApplicationAuthorities(ctx context.Context, actor identity.Actor, page CountedPage) (list []ApplicationAuthority, total int, err error) {
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		var found []authority.ApplicationKey
		found, total, err = p.authorities.OfApplications(tx, (page.Number-1)*page.Size, page.Size)
		if list = nil; err != nil || len(found) == 0 {
			return err
		}
		byID := func(a, b authority.ApplicationKey) int { return strings.Compare(a.Application, b.Application) }
		audiences, err := access.Audiences(tx, slices.MinFunc(found, byID).Application, slices.MaxFunc(found, byID).Application)
		for _, k := range found {
			list = append(list, ApplicationAuthority{k, audiences[k.Application]})
		}
		return err
	})
	return list, total, err
}

// ShowApplicationAuthority returns the authority of the application of an id.
func (p *Plane) ShowApplicationAuthority(ctx context.Context, actor identity.Actor, application string) (a ApplicationAuthority, err error) {
	err = p.view(ctx, actor, identity.AppsRead, func(tx *store.Tx) error {
		a, err = p.ofApplication(tx, application)
		return err
	})
	return a, err
}

func (p *Plane) ofApplication(tx *store.Tx, id string) (ApplicationAuthority, error) {
	application, err := access.ApplicationByID(tx, id)
	if err != nil {
		return ApplicationAuthority{}, err
	}
	a, err := p.authorities.OfApplication(tx, id)
	return ApplicationAuthority{authority.ApplicationKey{ID: a.ID, Application: application.ID, Public: a.Public}, application.Aud}, err
}

// CreateApplicationAuthority makes the authority of the application of an id. Who asks
// again, because an answer was lost, gets the one of before, if that is as it was.
func (p *Plane) CreateApplicationAuthority(ctx context.Context, actor identity.Actor, id string, again bool) (made ApplicationAuthority, err error) {
	if err := require(actor, identity.AppsWrite); err != nil {
		return made, err
	}
	key, err := p.keyring.Make(ctx, actor.Tenant, vendorKey)
	if err != nil {
		return made, err
	}
	defer key.Wipe()
	request, err := requestOf(actor, "ca.create", id)
	if err != nil {
		return made, err
	}
	m := making[ApplicationAuthority]{request: request, again: again, find: p.ofApplication, state: func(a ApplicationAuthority) any { return a.ID }}
	name := "app-" + id
	err = p.update(ctx, actor, needs(identity.AppsWrite), "ca.create", "ca:"+subject(name), func(tx *store.Tx) error {
		made, err = m.once(tx, func() (string, error) {
			if _, err := access.ApplicationByID(tx, id); err != nil {
				return "", err
			}
			_, err := p.authorities.Create(tx, authority.NewAuthority{Name: name, Purpose: authority.User, Application: id}, key)
			return id, err
		})
		return err
	})
	return made, answered(err)
}

// vendorKey is the kind of key that Cloudflare's authorities have.
var vendorKey = keyring.Spec{Type: "ecdsa-p256"}

// RemoveApplicationAuthority revokes the authority of the application of an id, with
// everything that it signed, and destroys its private key; around a rotation, those of
// all its keys.
func (p *Plane) RemoveApplicationAuthority(ctx context.Context, actor identity.Actor, application string) (gone ApplicationAuthority, err error) {
	err = p.update(ctx, actor, needs(identity.AppsWrite), "ca.remove", "application:"+subject(application), func(tx *store.Tx) error {
		gone, err = p.ofApplication(tx, application)
		if err != nil {
			return err
		}
		tx.Note("fingerprint", string(gone.Public.Fingerprint()))
		_, err = p.authorities.RemoveOfApplication(tx, application, "")
		return err
	})
	return gone, err
}

// gatewayName is what the authority of the gateway is called that no one named.
const gatewayName = "gateway"

// ListGatewayAuthorities lists the authorities of the gateway that hosts should trust,
// oldest first.
func (p *Plane) ListGatewayAuthorities(ctx context.Context, actor identity.Actor) (list []Authority, err error) {
	err = p.view(ctx, actor, identity.SSHAuditingRead, func(tx *store.Tx) error {
		list, err = p.gatewayAuthorities(tx)
		return err
	})
	return list, err
}

func (p *Plane) gatewayAuthorities(tx *store.Tx) (list []Authority, err error) {
	all, err := p.authorities.List(tx, authority.Filter{Purpose: authority.Hop, Limit: MaxPage})
	for _, a := range all {
		if a.Trusted(tx.Now()) {
			list = append(list, Authority{a, a.State(tx.Now())})
		}
	}
	return list, err
}

// A GatewayAuthorityError is the cause of a Conflict: the gateway has an authority.
type GatewayAuthorityError struct{ Name string }

func (e *GatewayAuthorityError) Error() string {
	return "the gateway has an authority already: " + e.Name
}

// CreateGatewayAuthority makes the authority of the gateway, where it has none. Who asks
// again, because an answer was lost, gets the one of before, if that is as it was.
func (p *Plane) CreateGatewayAuthority(ctx context.Context, actor identity.Actor, again bool) (made Authority, err error) {
	if err := require(actor, identity.SSHAuditingWrite); err != nil {
		return made, err
	}
	key, err := p.keyring.Make(ctx, actor.Tenant, vendorKey)
	if err != nil {
		return made, err
	}
	defer key.Wipe()
	request, err := requestOf(actor, "ca.create", authority.Hop)
	if err != nil {
		return made, err
	}
	m := making[Authority]{request: request, again: again, find: p.gatewayAuthority, state: func(a Authority) any { return a.ID }}
	err = p.update(ctx, actor, needs(identity.SSHAuditingWrite), "ca.create", "ca:"+gatewayName, func(tx *store.Tx) error {
		made, err = m.once(tx, func() (string, error) {
			there, err := p.gatewayAuthorities(tx)
			if err != nil {
				return "", err
			}
			if len(there) > 0 {
				return "", trust.Errorf(trust.Conflict, "%w", &GatewayAuthorityError{there[0].Name}).WithHint("keyturn ca show %s", there[0].Name)
			}
			a, err := p.authorities.Create(tx, authority.NewAuthority{Name: gatewayName, Purpose: authority.Hop}, key)
			return a.ID, err
		})
		return err
	})
	return made, answered(err)
}

// gatewayAuthority returns the authority of the gateway of an id, if hosts should trust it.
func (p *Plane) gatewayAuthority(tx *store.Tx, id string) (Authority, error) {
	all, err := p.gatewayAuthorities(tx)
	if err != nil {
		return Authority{}, err
	}
	i := slices.IndexFunc(all, func(a Authority) bool { return a.ID == id })
	if i < 0 {
		return Authority{}, trust.Errorf(trust.NotFound, "the gateway has no authority %.80q", id)
	}
	return all[i], nil
}

// RemoveGatewayAuthority revokes an authority of the gateway, with everything that it
// signed, and destroys its private key.
func (p *Plane) RemoveGatewayAuthority(ctx context.Context, actor identity.Actor, id string) error {
	return p.update(ctx, actor, needs(identity.SSHAuditingWrite), "ca.remove", "ca:"+subject(id), func(tx *store.Tx) error {
		a, err := p.gatewayAuthority(tx, id)
		if err != nil {
			return err
		}
		tx.Note("fingerprint", string(a.Public.Fingerprint()))
		_, err = p.authorities.Remove(tx, id, "")
		return err
	})
}
