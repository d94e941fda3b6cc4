package control

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/access"
	"keyturn/internal/authority"
	"keyturn/internal/identity"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// ListAuthorities lists the certificate authorities that there are, by id. A filter can
// name an application by its id or its name.
func (p *Plane) ListAuthorities(ctx context.Context, actor identity.Actor, f AuthorityFilter, page Page) (list []Authority, next string, err error) {
	if f.Application != "" {
		if err := require(actor, identity.CertificatesRead, identity.AppsRead); err != nil {
			return nil, "", err
		}
	}
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	if f.After, err = page.id(); err != nil {
		return nil, "", err
	}
	f.Limit = limit
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		wanted := f
		if f.Application != "" {
			application, err := access.FindApplication(tx, f.Application)
			if err != nil {
				return blame(err, "application")
			}
			wanted.Application = application.ID
		}
		all, err := p.authorities.List(tx, wanted)
		list = nil
		for _, a := range all {
			list = append(list, Authority{a, a.State(tx.Now())})
		}
		return err
	})
	if len(list) == limit {
		next = list[limit-1].ID
	}
	return list, next, err
}

// ShowAuthority returns the authorities of a name, oldest first, or that of an id.
func (p *Plane) ShowAuthority(ctx context.Context, actor identity.Actor, name string) (list []Authority, err error) {
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		list, err = p.namedAuthorities(tx, name)
		if uuid.Validate(name) == nil {
			list = slices.DeleteFunc(list, func(a Authority) bool { return a.ID != name })
		}
		return err
	})
	return list, err
}

// An Authority is one with what it does at the time.
type Authority struct {
	authority.Authority
	State authority.State
}

// A NewAuthority is one to be made.
type NewAuthority struct {
	Name    string
	Purpose authority.Purpose
	Type    string // as authority.KeySpec reads it
	// Application is the id or the name of the one whose hosts are to trust it, or "".
	Application string
}

// CreateAuthority makes a certificate authority, with a key of its own.
func (p *Plane) CreateAuthority(ctx context.Context, actor identity.Actor, n NewAuthority) (made Authority, err error) {
	if err := require(actor, identity.CertificatesWrite); err != nil {
		return made, err
	}
	if n.Application != "" {
		if err := require(actor, identity.AppsRead); err != nil {
			return made, err
		}
	}
	spec, err := authority.KeySpec(n.Type)
	if err != nil {
		return made, err
	}
	key, err := p.keyring.Make(ctx, actor.Tenant, spec)
	if err != nil {
		return made, err
	}
	defer key.Wipe()
	err = p.update(ctx, actor, needs(identity.CertificatesWrite), "ca.create", "ca:"+subject(n.Name), func(tx *store.Tx) error {
		wanted := authority.NewAuthority{Name: n.Name, Purpose: n.Purpose}
		if n.Application != "" {
			application, err := access.FindApplication(tx, n.Application)
			if err != nil {
				return err
			}
			wanted.Application = application.ID
		}
		a, err := p.authorities.Create(tx, wanted, key)
		made = Authority{a, a.State(tx.Now())}
		return err
	})
	return made, err
}

// RotateAuthority has another key take the place of the one that signs under a name,
// after overlap, or after what the setting says where that is negative. Its type is the
// same, unless another is named. Where none signs, the next key does after overlap. It
// returns all of that name.
func (p *Plane) RotateAuthority(ctx context.Context, actor identity.Actor, name, keyType string, overlap time.Duration) (all []Authority, err error) {
	if err := require(actor, identity.CertificatesWrite); err != nil {
		return nil, err
	}
	if overlap > maxOverlap {
		return nil, trust.Errorf(trust.Invalid, "overlap of %s is more than %s", overlap, maxOverlap).WithField("overlap")
	}
	spec, err := p.nextSpec(ctx, actor, name, keyType)
	if err != nil {
		return nil, err
	}
	key, err := p.keyring.Make(ctx, actor.Tenant, spec)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	err = p.update(ctx, actor, needs(identity.CertificatesWrite), "ca.rotate", "ca:"+subject(name), func(tx *store.Tx) error {
		if overlap < 0 {
			if overlap, err = durationSetting(tx, caOverlap); err != nil {
				return err
			}
		}
		next, err := p.authorities.Rotate(tx, name, overlap, key)
		if err != nil {
			return err
		}
		if keyType != "" && next.Public.Type() != key.Public().Type() {
			return trust.Errorf(trust.Conflict, "authority %q has a next key already, which is %s", next.Name, next.Public.Type()).WithField("type")
		}
		all, err = p.namedAuthorities(tx, next.Name)
		return err
	})
	return all, err
}

// nextSpec returns what key takes the place of that of an authority.
func (p *Plane) nextSpec(ctx context.Context, actor identity.Actor, name, keyType string) (spec keyring.Spec, err error) {
	if keyType != "" {
		return authority.KeySpec(keyType)
	}
	err = p.view(ctx, actor, identity.CertificatesWrite, func(tx *store.Tx) error {
		a, err := p.authorities.Find(tx, name)
		spec = a.KeySpec()
		return err
	})
	return spec, err
}

// maxOverlap bounds how long a rotation of an authority takes to begin to sign.
const maxOverlap = 366 * 24 * time.Hour

// SetAuthorityProfile changes what the authorities of a name, or of that of an id, sign
// from now on, and returns all of that name.
func (p *Plane) SetAuthorityProfile(ctx context.Context, actor identity.Actor, name string, change ProfileChange) (all []Authority, err error) {
	err = p.update(ctx, actor, needs(identity.CertificatesWrite), "ca.set", "ca:"+subject(name), func(tx *store.Tx) error {
		if err := p.authorities.SetProfile(tx, name, change); err != nil {
			return err
		}
		all, err = p.namedAuthorities(tx, name)
		return err
	})
	return all, err
}

// RemoveAuthority revokes an authority, the one of an id or the one that signs under a
// name, with everything that it signed, and destroys its private key. It returns those of
// its name that are left. Another one of a name, about to sign or no longer signing, goes
// by its id alone: who asks twice does not remove two.
func (p *Plane) RemoveAuthority(ctx context.Context, actor identity.Actor, name, reason string) (gone authority.Authority, left []Authority, err error) {
	err = p.update(ctx, actor, needs(identity.CertificatesWrite), "ca.remove", "ca:"+subject(name), func(tx *store.Tx) error {
		a, err := p.authorities.Find(tx, name)
		if err != nil {
			return err
		}
		if uuid.Validate(name) != nil && a.State(tx.Now()) != authority.Signing {
			return p.noneSigns(tx, a.Name)
		}
		tx.Note("fingerprint", string(a.Public.Fingerprint()))
		if gone, err = p.authorities.Remove(tx, a.ID, reason); err != nil {
			return err
		}
		left, err = p.namedAuthorities(tx, a.Name)
		if trust.KindOf(err) == trust.NotFound {
			return nil
		}
		return err
	})
	return gone, left, err
}

// noneSigns returns an error that says which authorities of a name there are.
func (p *Plane) noneSigns(tx *store.Tx, name string) error {
	all, err := p.namedAuthorities(tx, name)
	if err != nil {
		return err
	}
	are := make([]string, len(all))
	for i, a := range all {
		are[i] = fmt.Sprintf("%s, %s, is %s", a.ID, a.Public.Fingerprint(), a.State)
	}
	return trust.Errorf(trust.Conflict, "no key of authority %q signs now: %s", name, strings.Join(are, "; ")).WithHint("keyturn ca remove ID")
}

// namedAuthorities returns the authorities of a name, oldest first.
func (p *Plane) namedAuthorities(tx *store.Tx, name string) ([]Authority, error) {
	found, err := p.authorities.Named(tx, name)
	all := make([]Authority, len(found))
	for i, a := range found {
		all[i] = Authority{a, a.State(tx.Now())}
	}
	return all, err
}
