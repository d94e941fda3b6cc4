package control

import (
	"context"

	"keyturn/internal/discovery"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// ListKeys lists keys with all that they are related to.
func (p *Plane) ListKeys(ctx context.Context, actor identity.Actor, f inventory.KeyFilter, page Page) (list []inventory.Relationship, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		list, next, err = inventory.Relationships(tx, f, inventory.Page{After: page.After, Limit: limit})
		return err
	})
	return list, next, err
}

// SearchKeys lists keys by position rather than by cursor, as some clients ask
// for them, with how many there are in all. It reads past those before from. With
// the name of a discovery, it lists those of which a half lies on its hosts.
func (p *Plane) SearchKeys(ctx context.Context, actor identity.Actor, f inventory.KeyFilter, in string, sort inventory.Page, from int) (list []inventory.Relationship, total int, err error) {
	if from < 0 || from > 1_000_000 {
		return nil, 0, trust.Errorf(trust.Invalid, "start %d is not 0 to 1000000", from).WithField("start")
	}
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		if in != "" {
			d, err := p.discovery(tx, in)
			if err != nil {
				return err
			}
			for _, h := range d.Hosts {
				f.Hosts = append(f.Hosts, h.ID)
			}
			if !d.All && len(d.Hosts) == 0 {
				return nil
			}
		}
		if total, err = inventory.CountKeys(tx, f); err != nil || from >= total {
			return err
		}
		want := sort.Limit
		for skip := from; skip > 0; {
			sort.Limit = min(skip, inventory.MaxPage)
			keys, next, err := inventory.Keys(tx, f, sort)
			if err != nil || next == "" {
				return err
			}
			skip -= len(keys)
			sort.After = next
		}
		sort.Limit = want
		list, _, err = inventory.Relationships(tx, f, sort)
		return err
	})
	return list, total, err
}

// ShowKey returns the key with an id or fingerprint, all that it is related to, and
// the open run that has it, if one does.
func (p *Plane) ShowKey(ctx context.Context, actor identity.Actor, idOrFingerprint string) (k inventory.Relationship, run trust.RunID, err error) {
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		found, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		if run, err = p.engine.Holder(tx, "key:"+string(found.ID)); err != nil {
			return err
		}
		k, err = relate(tx, found)
		return err
	})
	return k, run, err
}

func relate(tx *store.Tx, k inventory.Key) (inventory.Relationship, error) {
	related, err := inventory.Relate(tx, []inventory.Key{k})
	if err != nil {
		return inventory.Relationship{}, err
	}
	return related[0], nil
}

// A KeyFile is a private key file that somebody gives to Keyturn.
type KeyFile struct {
	Text, Passphrase []byte
	Comment          string // in place of its own, unless empty
}

// read opens a key file. It takes its time, and its caller has been asked before
// whether it may.
func (p *Plane) read(ctx context.Context, f KeyFile) (keyring.Private, error) {
	private, err := p.keyring.Read(ctx, f.Text, f.Passphrase)
	if err == nil && f.Comment != "" {
		private.Comment = f.Comment
	}
	return private, err
}

// ImportKey has the keyring hold a private key, and returns what ShowKey does: who
// may write keys may read them. Doing so twice is doing so once.
func (p *Plane) ImportKey(ctx context.Context, actor identity.Actor, f KeyFile) (k inventory.Relationship, err error) {
	if err := require(actor, identity.KeysWrite); err != nil {
		return k, err
	}
	private, err := p.read(ctx, f)
	if err != nil {
		return k, err
	}
	defer private.Wipe()
	return p.hold(ctx, actor, "key.import", private)
}

// GenerateKey makes a key pair that the keyring holds.
func (p *Plane) GenerateKey(ctx context.Context, actor identity.Actor, spec keyring.Spec, comment string) (k inventory.Relationship, err error) {
	if err := require(actor, identity.KeysWrite); err != nil {
		return k, err // before seconds of work
	}
	private, err := keyring.Generate(spec)
	if err != nil {
		return k, err
	}
	defer private.Wipe()
	private.Comment = comment
	return p.hold(ctx, actor, "key.generate", private)
}

func (p *Plane) hold(ctx context.Context, actor identity.Actor, action string, private keyring.Private) (k inventory.Relationship, err error) {
	id := inventory.KeyIDOf(actor.Tenant, inventory.UserKey, private.Public())
	err = p.update(ctx, actor, needs(identity.KeysWrite), action, "key:"+string(id), func(tx *store.Tx) error {
		if k.Key, err = p.put(tx, private); err != nil {
			return err
		}
		tx.Note("fingerprint", string(k.Key.Public.Fingerprint()))
		k, err = relate(tx, k.Key)
		return err
	})
	return k, err
}

// put has the keyring hold a private key, as the commit of a verb, and judges the
// key by that.
func (p *Plane) put(tx *store.Tx, private keyring.Private) (inventory.Key, error) {
	k, err := inventory.PutKey(tx, inventory.Key{
		Kind: inventory.UserKey, Public: private.Public(), Comment: private.Comment,
		Custody: inventory.Held, Container: string(private.Container()),
	})
	if err != nil {
		return inventory.Key{}, err
	}
	if err := p.keyring.Put(tx, k.ID, private); err != nil {
		return inventory.Key{}, err
	}
	return k, discovery.Judge(tx, []trust.KeyID{k.ID})
}
