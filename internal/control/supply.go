package control

import (
	"context"

	"keyturn/internal/discovery"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// SupplyKey takes the public half of the key that is to take the place of one whose
// private half its owner keeps, when that is rotated, and returns the new key. The last
// one that was supplied counts. Who may do so can have himself let in, which to rotate
// a key does not allow: it is a permission of its own.
func (p *Plane) SupplyKey(ctx context.Context, actor identity.Actor, idOrFingerprint string, publicKey []byte) (next inventory.Relationship, err error) {
	if err := require(actor, identity.KeysSupply); err != nil {
		return next, err
	}
	if trust.LooksPrivate(publicKey) {
		return next, trust.Errorf(trust.Invalid, "that is a private key: nobody but its owner is to have it, and it was not kept").WithField("public_key").
			WithHint("make another with ssh-keygen, and send its .pub file")
	}
	public, comment, _, err := trust.ParsePublicFile(publicKey)
	if err != nil {
		return next, err
	}
	err = p.update(ctx, actor, needs(identity.KeysSupply), "key.supply", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		old, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		given, err := inventory.SuppliedFor(tx, old.ID)
		if err != nil {
			return err
		}
		busy := p.refuseBusy(tx, []trust.KeyID{old.ID, inventory.KeyIDOf(tx.Tenant(), inventory.UserKey, public)})
		if busy != nil && given.ID != "" && given.Public == public {
			next, err = relate(tx, given)
			return err // asked twice, while it is being rotated to
		}
		if busy != nil {
			return busy
		}
		k, err := rotation.Supply(tx, old.ID, public, comment, actor.Audit().ID)
		if err != nil {
			return err
		}
		tx.Note("fingerprint", string(public.Fingerprint()))
		if err := discovery.Judge(tx, []trust.KeyID{k.ID}); err != nil {
			return err
		}
		next, err = relate(tx, k)
		return err
	})
	return next, err
}
