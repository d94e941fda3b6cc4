package control

import (
	"context"
	"strconv"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/identity"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// ShowAccount returns the actor's tenant.
func (p *Plane) ShowAccount(ctx context.Context, actor identity.Actor) (t identity.Tenant, err error) {
	err = p.view(ctx, actor, identity.AccountRead, func(tx *store.Tx) error {
		t, err = p.directory.Tenant(tx)
		return err
	})
	return t, err
}

// overInstallation refuses who lacks a permission in the account "default", which
// is there from the start: who has that one has the server.
func (p *Plane) overInstallation(ctx context.Context, actor identity.Actor, needs identity.Permission) error {
	if err := require(actor, needs); err != nil {
		return err
	}
	return p.ofFirstAccount(ctx, actor)
}

// ofFirstAccount refuses who is not of the account "default".
func (p *Plane) ofFirstAccount(ctx context.Context, actor identity.Actor) error {
	return p.store.View(ctx, actor.Tenant, func(tx *store.Tx) error {
		t, err := p.directory.Tenant(tx)
		if err == nil && t.Name != identity.DefaultTenant {
			return trust.Errorf(trust.Denied, "this is for users of the account %q, not of %q", identity.DefaultTenant, t.Name)
		}
		return err
	})
}

// ListAccounts lists the tenants of the installation, for an administrator of the
// first one.
func (p *Plane) ListAccounts(ctx context.Context, actor identity.Actor) (list []identity.Tenant, err error) {
	if err := p.overInstallation(ctx, actor, identity.All); err != nil {
		return nil, err
	}
	err = p.store.View(ctx, store.System, func(tx *store.Tx) error {
		list, err = p.directory.Tenants(tx)
		return err
	})
	return list, err
}

// AddAccount makes a tenant, for an administrator of the first one, and in it a user
// "admin" who may do everything there. Where no password is given for that user, one is
// made and returned: the only time that it is to be had. The actor has no part in the
// tenant.
//
// It is two commits, for a commit is of one tenant: that it was asked for is in the log
// of the actor's, before it is done and is in the log of the new one.
func (p *Plane) AddAccount(ctx context.Context, actor identity.Actor, name, password string) (t identity.Tenant, made string, err error) {
	if err := p.overInstallation(ctx, actor, identity.All); err != nil {
		return t, "", err
	}
	err = p.store.View(ctx, store.System, func(tx *store.Tx) error {
		t.ID, err = p.directory.NewTenant(tx, name)
		return err
	})
	if err != nil {
		return t, "", err
	}
	if password == "" {
		made = identity.NewPassword()
		password = made
	}
	hash, err := p.directory.HashPassword(ctx, password)
	if err != nil {
		return t, "", err
	}
	err = p.update(ctx, actor, needs(identity.All), "account.add", "account:"+string(t.ID), func(tx *store.Tx) error {
		tx.Note("name", name)
		return identity.CheckLasting(tx, actor)
	})
	if err != nil {
		return t, "", err
	}
	system := identity.System(t.ID).Audit()
	event := audit.Event{Tenant: t.ID, Actor: system, Action: "tenant.create", Subject: "tenant:" + string(t.ID)}
	err = p.store.Update(ctx, event, func(tx *store.Tx) error {
		if t, err = p.directory.AddTenant(tx, name, hash); err != nil {
			return err
		}
		return p.schedule(tx, system)
	})
	return t, made, p.wake(err)
}

// CreateToken makes an API token that may do no more than its maker, and
// returns its text: the only time that it is to be had.
func (p *Plane) CreateToken(ctx context.Context, actor identity.Actor, n identity.NewToken) (t identity.Token, secret string, err error) {
	err = p.update(ctx, actor, needs(identity.TokensWrite), "token.create", "token:"+subject(n.Name), func(tx *store.Tx) error {
		if t, secret, err = p.directory.CreateToken(tx, actor, n); err != nil {
			return err
		}
		tx.Note("id", t.ID)
		if t.Personal {
			tx.Note("personal", "true")
		}
		return nil
	})
	return t, secret, err
}

// ListTokens lists the tenant's tokens, without their texts.
func (p *Plane) ListTokens(ctx context.Context, actor identity.Actor) (list []identity.Token, err error) {
	err = p.view(ctx, actor, identity.TokensRead, func(tx *store.Tx) error {
		list, err = p.directory.Tokens(tx)
		return err
	})
	return list, err
}

// RevokeToken ends a token and those that it made, and returns how many. The certificates
// that were asked for with them are revoked.
func (p *Plane) RevokeToken(ctx context.Context, actor identity.Actor, id string) (n int, err error) {
	err = p.update(ctx, actor, needs(identity.TokensWrite), "token.revoke", "token:"+subject(id), func(tx *store.Tx) error {
		ids, err := p.directory.RevokeToken(tx, id)
		if err != nil {
			return err
		}
		n = len(ids)
		return p.revokeAskedWith(tx, ids, "the API token that asked for it was revoked")
	})
	return n, err
}

// revokeAskedWith revokes the certificates that were asked for with API tokens.
func (p *Plane) revokeAskedWith(tx *store.Tx, tokens []string, why string) error {
	revoked := 0
	for _, id := range tokens {
		n, err := p.authorities.RevokeAskedWith(tx, "token:"+id, why)
		if err != nil {
			return err
		}
		revoked += n
	}
	tx.Note("certificates", strconv.Itoa(revoked))
	return nil
}

// A TokenRotation says what becomes of a token's old text.
type TokenRotation struct {
	Overlap time.Duration // how long it holds beside the new one; 0 for not at all
	// Compromised is whether somebody else may have it: the tokens that were made with it
	// are revoked, and the certificates that were asked for with it or with these.
	Compromised bool
}

// RotateToken gives one of the actor's tokens another text, and returns it: the
// only time that it is to be had.
func (p *Plane) RotateToken(ctx context.Context, actor identity.Actor, id string, r TokenRotation) (t identity.Token, secret string, err error) {
	if r.Compromised && r.Overlap != 0 {
		return t, "", trust.Errorf(trust.Invalid, "a text that somebody else may have does not hold for an overlap").WithField("overlap")
	}
	err = p.update(ctx, actor, needs(identity.TokensWrite), "token.rotate", "token:"+subject(id), func(tx *store.Tx) error {
		if t, secret, err = p.directory.RotateToken(tx, actor, id, r.Overlap); err != nil || !r.Compromised {
			return err
		}
		made, err := p.directory.RevokeTokensOf(tx, t.ID)
		if err != nil {
			return err
		}
		tx.Note("compromised", "true")
		for _, id := range made {
			tx.Note("revoked", "token:"+id)
		}
		return p.revokeAskedWith(tx, append(made, t.ID), "the API token that asked for it was compromised")
	})
	return t, secret, err
}

// subject makes what a caller sent fit to name the subject of an event, which
// is refused before anything is read if it does not.
func subject(id string) string {
	if len(id) > 100 {
		id = id[:100]
	}
	clean := make([]byte, 0, len(id))
	for _, c := range []byte(id) {
		if c <= ' ' || c >= 0x7f {
			c = '?'
		}
		clean = append(clean, c)
	}
	return string(clean)
}
