package control

import (
	"context"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/store"
)

// ShowAccount returns the actor's tenant.
func (p *Plane) ShowAccount(ctx context.Context, actor identity.Actor) (t identity.Tenant, err error) {
	err = p.view(ctx, actor, identity.AccountRead, func(tx *store.Tx) error {
		t, err = p.directory.Tenant(tx)
		return err
	})
	return t, err
}

// CreateToken makes an API token that may do no more than its maker, and
// returns its text: the only time that it is to be had.
func (p *Plane) CreateToken(ctx context.Context, actor identity.Actor, n identity.NewToken) (t identity.Token, secret string, err error) {
	err = p.update(ctx, actor, needs(identity.TokensWrite), "token.create", "token:"+subject(n.Name), func(tx *store.Tx) error {
		if t, secret, err = p.directory.CreateToken(tx, actor, n); err != nil {
			return err
		}
		tx.Note("id", t.ID)
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

// RevokeToken ends a token and those that it made, and returns how many.
func (p *Plane) RevokeToken(ctx context.Context, actor identity.Actor, id string) (n int, err error) {
	err = p.update(ctx, actor, needs(identity.TokensWrite), "token.revoke", "token:"+subject(id), func(tx *store.Tx) error {
		n, err = p.directory.RevokeToken(tx, id)
		return err
	})
	return n, err
}

// RotateToken gives one of the actor's tokens another text, and returns it: the
// only time that it is to be had. The old text holds for overlap still.
func (p *Plane) RotateToken(ctx context.Context, actor identity.Actor, id string, overlap time.Duration) (t identity.Token, secret string, err error) {
	err = p.update(ctx, actor, needs(identity.TokensWrite), "token.rotate", "token:"+subject(id), func(tx *store.Tx) error {
		t, secret, err = p.directory.RotateToken(tx, actor, id, overlap)
		return err
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
