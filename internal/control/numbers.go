package control

import (
	"context"
	"strconv"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
)

// GenerateNumberedKey makes a key pair that the keyring holds, and gives it a
// number. It notes the user's name, of an API token its owner's.
func (p *Plane) GenerateNumberedKey(ctx context.Context, actor identity.Actor, spec keyring.Spec, comment string) (n inventory.NumberedKey, err error) {
	if err := require(actor, identity.KeysWrite); err != nil {
		return n, err // before seconds of work
	}
	err = p.make(ctx, actor, spec, comment, func(private keyring.Private) error {
		id := inventory.KeyIDOf(actor.Tenant, inventory.UserKey, private.Public())
		return p.update(ctx, actor, needs(identity.KeysWrite), "key.generate", "key:"+string(id), func(tx *store.Tx) error {
			by := actor.Name
			if actor.Kind != "user" {
				owner, err := p.directory.User(tx, actor.Owner)
				if err != nil {
					return err
				}
				by = owner.Name
			}
			k, err := p.keep(tx, private) // just made, it lies nowhere, and there is nothing to judge
			if err != nil {
				return err
			}
			if n, err = inventory.NumberKey(tx, k, by); err != nil {
				return err
			}
			tx.Note("fingerprint", string(n.Public.Fingerprint()))
			tx.Note("number", strconv.FormatInt(n.Number, 10))
			return nil
		})
	})
	return n, err
}

// ListNumberedKeys lists every numbered key, by number. Those that were rotated are
// among them for as long as they can be brought back.
func (p *Plane) ListNumberedKeys(ctx context.Context, actor identity.Actor) (list []inventory.NumberedKey, err error) {
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		list, err = inventory.NumberedKeys(tx)
		return err
	})
	return list, err
}

// ShowNumberedKey returns the key of a number.
func (p *Plane) ShowNumberedKey(ctx context.Context, actor identity.Actor, number int64) (n inventory.NumberedKey, err error) {
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		n, err = inventory.NumberedKeyOf(tx, number)
		return err
	})
	return n, err
}

// DeleteNumberedKey deletes the key of a number, as DeleteKey does.
func (p *Plane) DeleteNumberedKey(ctx context.Context, actor identity.Actor, number int64) error {
	return p.update(ctx, actor, needs(identity.KeysWrite), "key.delete", "key-number:"+strconv.FormatInt(number, 10), func(tx *store.Tx) error {
		n, err := inventory.NumberedKeyOf(tx, number)
		if err != nil {
			return err
		}
		tx.Note("key", string(n.ID))
		_, _, err = p.delete(tx, n.Key)
		return err
	})
}
