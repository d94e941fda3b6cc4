package control

import (
	"context"

	"keyturn/internal/audit"
	"keyturn/internal/identity"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// ShowKEK tells of the key-encryption key and of the tenant's data key, and those of the
// account "default" where this node has the former from.
func (p *Plane) ShowKEK(ctx context.Context, actor identity.Actor) (keyring.KEKStatus, error) {
	if err := require(actor, identity.SettingsRead); err != nil {
		return keyring.KEKStatus{}, err
	}
	return p.kekStatus(ctx, actor)
}

func (p *Plane) kekStatus(ctx context.Context, actor identity.Actor) (keyring.KEKStatus, error) {
	status, err := p.keyring.Status(ctx, actor.Tenant)
	if err != nil {
		return keyring.KEKStatus{}, err
	}
	if p.ofFirstAccount(ctx, actor) != nil {
		status.Source = ""
	}
	return status, nil
}

// RotateKEK changes the database over to the next key-encryption key of this node's
// source, and returns the name of the one before. Every node goes on undisturbed. It
// waits for what the source waits for, half a minute at the most, and for no host.
//
// The key is the installation's: the actor is an administrator of the first account. So
// is the event: it names the actor by id only,
// since the personal data of a user lies in the log of the user's tenant.
func (p *Plane) RotateKEK(ctx context.Context, actor identity.Actor) (before string, now keyring.KEKStatus, err error) {
	if err := p.overInstallation(ctx, actor, identity.All); err != nil {
		return "", now, err
	}
	next, changed, err := p.keyring.Next(ctx)
	if err != nil {
		return "", now, err
	}
	if !changed {
		return "", now, trust.Errorf(trust.Conflict, "the source of the key-encryption key still holds %q: there is none to change to", next.Name()).
			WithHint("give the source another key, then try again")
	}
	ev := audit.Event{
		Tenant: trust.Installation, Actor: audit.Actor{Kind: actor.Kind, ID: actor.ID},
		Action: "kek.rotate", Subject: "kek:" + next.Name(),
	}
	if err := p.store.Update(ctx, ev, func(tx *store.Tx) error { return p.keyring.Rewrap(tx, next) }); err != nil {
		return "", now, err
	}
	if err := p.keyring.Settle(next); err != nil {
		return "", now, trust.Errorf(trust.Unavailable, "the database is sealed under the new key, which lies beside the old one, and does not take its place yet: %w", err).
			WithHint("the next start of this node does it")
	}
	now, err = p.kekStatus(ctx, actor)
	return next.After(), now, err
}

// RotateDataKey gives the tenant a new data key, which seals from now on. What the
// earlier ones sealed still opens.
func (p *Plane) RotateDataKey(ctx context.Context, actor identity.Actor) (now keyring.KEKStatus, err error) {
	err = p.update(ctx, actor, needs(identity.All), "data-key.rotate", "account:"+string(actor.Tenant), p.keyring.RotateData)
	if err != nil {
		return now, err
	}
	return p.kekStatus(ctx, actor)
}
