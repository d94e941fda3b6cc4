package control

import (
	"context"

	"keyturn/internal/identity"
	"keyturn/internal/store"
)

// ListProviders lists the tenant's identity providers by name.
func (p *Plane) ListProviders(ctx context.Context, actor identity.Actor) (list []identity.Provider, err error) {
	err = p.view(ctx, actor, identity.UsersRead, func(tx *store.Tx) error {
		list, err = p.directory.Providers(tx)
		return err
	})
	return list, err
}

// AddProvider adds an identity provider, which gives no role that may do more than
// the actor may.
func (p *Plane) AddProvider(ctx context.Context, actor identity.Actor, n identity.NewProvider) (added identity.Provider, err error) {
	err = p.update(ctx, actor, needs(identity.UsersWrite, identity.AppsWrite), "provider.add", "provider:"+subject(n.Name), func(tx *store.Tx) error {
		added, err = p.directory.AddProvider(tx, actor, n)
		noteProvider(tx, added)
		return err
	})
	return added, err
}

// SetProvider says anew what an identity provider's word is good for.
func (p *Plane) SetProvider(ctx context.Context, actor identity.Actor, n identity.NewProvider) (set identity.Provider, err error) {
	err = p.update(ctx, actor, needs(identity.UsersWrite, identity.AppsWrite), "provider.set", "provider:"+subject(n.Name), func(tx *store.Tx) error {
		set, err = p.directory.SetProvider(tx, actor, n)
		noteProvider(tx, set)
		return err
	})
	return set, err
}

// RemoveProvider removes an identity provider with its users, and ends all that
// anybody has logged in with by it.
func (p *Plane) RemoveProvider(ctx context.Context, actor identity.Actor, name string) error {
	return p.update(ctx, actor, needs(identity.UsersWrite), "provider.remove", "provider:"+subject(name), func(tx *store.Tx) error {
		removed, users, err := p.directory.RemoveProvider(tx, actor, name)
		if err != nil {
			return err
		}
		tx.Note("id", removed.ID)
		if _, err := p.authorities.RevokeAskedWith(tx, "machine:"+removed.ID, "the machine's identity provider was removed"); err != nil {
			return err
		}
		return p.revokeOf(tx, "the user's identity provider was removed", users...)
	})
}

// TestProvider asks an identity provider what it publishes. It is one of the verbs
// that wait for somebody else, as the logins by a provider are: for a quarter of a
// minute at the most.
func (p *Plane) TestProvider(ctx context.Context, actor identity.Actor, name string) (of identity.Provider, is identity.PublishedProvider, err error) {
	err = p.view(ctx, actor, identity.UsersWrite, func(tx *store.Tx) error {
		of, err = p.directory.Provider(tx, name)
		return err
	})
	if err != nil {
		return of, is, err
	}
	is, err = p.directory.LookAtProvider(ctx, of)
	return of, is, err
}

func noteProvider(tx *store.Tx, p identity.Provider) {
	tx.Note("id", p.ID)
	tx.Note("issuer", p.Issuer)
	for _, r := range p.Rules {
		tx.Note("rule", r.String())
	}
	for _, m := range p.Required {
		tx.Note("required", m.String())
	}
}
