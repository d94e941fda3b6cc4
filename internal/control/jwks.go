package control

import (
	"context"

	"keyturn/internal/identity"
	"keyturn/internal/jwk"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Words of package jwk, for front doors.
type (
	// JWKs are by which keys the tokens of an account are signed.
	JWKs = jwk.Standing
	// A JWK is one of them.
	JWK = jwk.Key
)

// ShowJWKs tells by which key the tokens of an account are signed, which are published
// besides, and after how many days it is exchanged. An account gets its first key when
// somebody asks for it first.
func (p *Plane) ShowJWKs(ctx context.Context, actor identity.Actor) (JWKs, error) {
	return p.jwks(ctx, actor, identity.OrganizationsRead)
}

// jwks returns the keys of the tenant of an actor who must have a permission.
func (p *Plane) jwks(ctx context.Context, actor identity.Actor, need identity.Permission) (s JWKs, err error) {
	err = p.view(ctx, actor, need, func(tx *store.Tx) error {
		s, err = jwk.Load(tx)
		return err
	})
	if err != nil || len(s.Keys) > 0 {
		return s, err
	}
	err = p.make(ctx, actor, jwk.Spec(), "", func(private keyring.Private) error {
		return p.update(ctx, actor, needs(need), "jwk.create", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
			s, err = p.firstJWK(tx, private)
			return err
		})
	})
	return s, err
}

// firstJWK has the tenant of tx sign by a key, unless it has one.
func (p *Plane) firstJWK(tx *store.Tx, private keyring.Private) (JWKs, error) {
	s, err := jwk.Load(tx)
	if err != nil || len(s.Keys) > 0 {
		return s, err
	}
	if _, err := jwk.Rotate(tx, p.keyring, private); err != nil {
		return s, err
	}
	return jwk.Load(tx)
}

// SetJWKDays says after how many days the key that signs tokens is exchanged.
func (p *Plane) SetJWKDays(ctx context.Context, actor identity.Actor, days int) (s JWKs, err error) {
	if _, err := p.jwks(ctx, actor, identity.OrganizationsWrite); err != nil { // makes the first
		return s, err
	}
	err = p.update(ctx, actor, needs(identity.OrganizationsWrite), "jwk.set", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		if err := jwk.SetDays(tx, days); err != nil {
			return err
		}
		s, err = jwk.Load(tx)
		return err
	})
	return s, err
}

// RotateJWK has tokens be signed by another key from now on. Who asks again, because an
// answer was lost, gets the rotation of before, if there was none since.
func (p *Plane) RotateJWK(ctx context.Context, actor identity.Actor, again bool) (s JWKs, err error) {
	if err := require(actor, identity.OrganizationsWrite); err != nil {
		return s, err
	}
	request, err := requestOf(actor, "jwk.rotate", nil)
	if err != nil {
		return s, err
	}
	m := making[JWKs]{request: request, again: again, find: signsBy, state: func(s JWKs) any { return s.Keys[0].ID }}
	err = p.make(ctx, actor, jwk.Spec(), "", func(private keyring.Private) error {
		return p.update(ctx, actor, needs(identity.OrganizationsWrite), "jwk.rotate", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
			s, err = m.once(tx, func() (string, error) {
				k, err := jwk.Rotate(tx, p.keyring, private)
				return k.ID, err
			})
			return err
		})
	})
	return s, answered(err)
}

// signsBy returns how the keys stand, if the one of an id signs.
func signsBy(tx *store.Tx, id string) (JWKs, error) {
	s, err := jwk.Load(tx)
	if err == nil && (len(s.Keys) == 0 || s.Keys[0].ID != id) {
		err = trust.Errorf(trust.NotFound, "no token is signed by the key %q", id)
	}
	return s, err
}

// PublishedJWKs returns the keys by which anybody verifies tokens of an account, by its id,
// or of the first one where that is "". An account that nobody has asked for one, by a
// credential, has none.
func (p *Plane) PublishedJWKs(ctx context.Context, account string) (list []JWK, err error) {
	tenant := trust.TenantID(account)
	if tenant == "" {
		if tenant, err = p.firstAccount(ctx); err != nil {
			return nil, err
		}
	}
	err = p.store.View(ctx, tenant, func(tx *store.Tx) error {
		if _, err := p.directory.Tenant(tx); err != nil {
			return err
		}
		s, err := jwk.Load(tx)
		list = s.Keys
		return err
	})
	return list, err
}

// firstAccount returns the id of the account "default".
func (p *Plane) firstAccount(ctx context.Context) (id trust.TenantID, err error) {
	err = p.store.View(ctx, store.System, func(tx *store.Tx) error {
		all, err := p.directory.Tenants(tx)
		for _, t := range all {
			if t.Name == identity.DefaultTenant {
				id = t.ID
			}
		}
		return err
	})
	return id, err
}
