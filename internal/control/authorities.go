package control

import (
	"context"
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
		all, err := p.authorities.Named(tx, name)
		list = nil
		for _, a := range all {
			if uuid.Validate(name) != nil || a.ID == name {
				list = append(list, Authority{a, a.State(tx.Now())})
			}
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
// same, unless another is named. It returns all of that name.
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
		there, err := p.authorities.Named(tx, next.Name)
		all = nil
		for _, a := range there {
			all = append(all, Authority{a, a.State(tx.Now())})
		}
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
		there, err := p.authorities.Named(tx, name)
		all = nil
		for _, a := range there {
			all = append(all, Authority{a, a.State(tx.Now())})
		}
		return err
	})
	return all, err
}

// RemoveAuthority revokes an authority, the one of an id or the one that signs under a
// name, with everything that it signed, and destroys its private key.
func (p *Plane) RemoveAuthority(ctx context.Context, actor identity.Actor, name, reason string) error {
	return p.update(ctx, actor, needs(identity.CertificatesWrite), "ca.remove", "ca:"+subject(name), func(tx *store.Tx) error {
		a, err := p.authorities.Find(tx, name)
		if err != nil {
			return err
		}
		tx.Note("fingerprint", string(a.Public.Fingerprint()))
		_, err = p.authorities.Remove(tx, a.ID, reason)
		return err
	})
}
