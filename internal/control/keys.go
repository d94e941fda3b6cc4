package control

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

// ExportKey returns the public half of a key as a file of a format.
func (p *Plane) ExportKey(ctx context.Context, actor identity.Actor, idOrFingerprint string, format trust.PublicFormat) (file []byte, err error) {
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		k, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		file, err = k.Public.PublicFile(format, k.Comment)
		return err
	})
	return file, err
}

func relate(tx *store.Tx, k inventory.Key) (inventory.Relationship, error) {
	related, err := inventory.Relate(tx, []inventory.Key{k})
	if err != nil {
		return inventory.Relationship{}, err
	}
	return related[0], nil
}

// related is relate after the commit that changed a key: a key can lie in very many
// places, and to read of them must not keep others from writing.
func (p *Plane) related(ctx context.Context, actor identity.Actor, k inventory.Key) (r inventory.Relationship, err error) {
	err = p.store.View(ctx, actor.Tenant, func(tx *store.Tx) error {
		r, err = relate(tx, k)
		return err
	})
	return r, err
}

// A KeyFile is a private key file that somebody gives to Keyturn.
type KeyFile struct {
	Text, Passphrase []byte
	Comment          string // in place of its own, unless empty
	Facts            KeyFacts
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
	return p.hold(ctx, actor, "key.import", private, f.Facts)
}

// GenerateKey makes a key pair that the keyring holds.
func (p *Plane) GenerateKey(ctx context.Context, actor identity.Actor, spec keyring.Spec, comment string, facts KeyFacts) (k inventory.Relationship, err error) {
	if err := require(actor, identity.KeysWrite); err != nil {
		return k, err // before seconds of work
	}
	err = p.make(ctx, actor, spec, comment, func(private keyring.Private) error {
		k, err = p.hold(ctx, actor, "key.generate", private, facts)
		return err
	})
	return k, err
}

// make makes a key pair and has commit commit it: again with another one if it had
// been ready and another node was faster.
func (p *Plane) make(ctx context.Context, actor identity.Actor, spec keyring.Spec, comment string, commit func(keyring.Private) error) error {
	for {
		private, err := p.keyring.Make(ctx, actor.Tenant, spec)
		if err != nil {
			return err
		}
		private.Comment = comment
		err = commit(private)
		private.Wipe()
		if !errors.Is(err, keyring.ErrTaken) {
			return err
		}
	}
}

func (p *Plane) hold(ctx context.Context, actor identity.Actor, action string, private keyring.Private, facts KeyFacts) (inventory.Relationship, error) {
	var k inventory.Key
	id := inventory.KeyIDOf(actor.Tenant, inventory.UserKey, private.Public())
	err := p.update(ctx, actor, needs(identity.KeysWrite), action, "key:"+string(id), func(tx *store.Tx) (err error) {
		if k, err = p.put(tx, private); err != nil {
			return err
		}
		tx.Note("fingerprint", string(k.Public.Fingerprint()))
		k, err = facts.write(tx, k)
		return err
	})
	if err != nil {
		return inventory.Relationship{}, err
	}
	return p.related(ctx, actor, k)
}

// put is keep, and judges the key by that.
func (p *Plane) put(tx *store.Tx, private keyring.Private) (inventory.Key, error) {
	k, err := p.keep(tx, private)
	if err != nil {
		return inventory.Key{}, err
	}
	return k, discovery.Judge(tx, []trust.KeyID{k.ID})
}

// keep has the keyring hold a private key, as the commit of a verb.
func (p *Plane) keep(tx *store.Tx, private keyring.Private) (inventory.Key, error) {
	k, err := inventory.PutKey(tx, inventory.Key{
		Kind: inventory.UserKey, Public: private.Public(), Comment: private.Comment,
		Custody: inventory.Held, Container: string(private.Container()),
	})
	if err != nil {
		return inventory.Key{}, err
	}
	return k, p.keyring.Put(tx, k.ID, private)
}

// DeleteKey takes a key out of the inventory, revokes the certificates that were signed for
// it, and returns until when RestoreKey brings the key back. A key of which a half is known to lie somewhere is refused: it would be
// found again, and whoever uses it would not be told.
func (p *Plane) DeleteKey(ctx context.Context, actor identity.Actor, idOrFingerprint string) (k inventory.Relationship, until time.Time, err error) {
	err = p.update(ctx, actor, needs(identity.KeysWrite), "key.delete", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		found, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		k, until, err = p.delete(tx, found)
		return err
	})
	return k, until, err
}

// delete takes a key out of the inventory, as the commit of a verb.
func (p *Plane) delete(tx *store.Tx, found inventory.Key) (k inventory.Relationship, until time.Time, err error) {
	if err := p.refuseBusy(tx, []trust.KeyID{found.ID}); err != nil {
		return k, until, err
	}
	if found.State == inventory.Rotated || found.State == inventory.Retired {
		return k, until, trust.Errorf(trust.Conflict, "key %s is %s, and is kept for going back until the setting archive.retention has it destroyed", found.ID, found.State)
	}
	if k, err = relate(tx, found); err != nil {
		return k, until, err
	}
	if err := refuseInUse(k); err != nil {
		return k, until, err
	}
	if found, err = inventory.DeleteKey(tx, found.ID, found.Revision); err != nil {
		return k, until, err
	}
	tx.Note("fingerprint", string(found.Public.Fingerprint()))
	if _, err := p.authorities.RevokeFor(tx, found.Public, "its key was deleted"); err != nil {
		return k, until, err
	}
	if err := discovery.Judge(tx, []trust.KeyID{found.ID}); err != nil {
		return k, until, err
	}
	k, err = relate(tx, found)
	return k, found.DeletedAt.Add(inventory.DeletedFor), err
}

// An InUseError says where halves of a key lie. It is the cause of a Conflict.
type InUseError struct {
	Key        trust.KeyID
	Authorized []string // "web1:alice:/home/alice/.ssh/authorized_keys"
	Identities []string
}

func (e *InUseError) Error() string {
	var where []string
	if n := len(e.Authorized); n > 0 {
		where = append(where, fmt.Sprintf("accepted in %s", some(e.Authorized)))
	}
	if n := len(e.Identities); n > 0 {
		where = append(where, fmt.Sprintf("used from %s", some(e.Identities)))
	}
	return fmt.Sprintf("key %s is %s", e.Key, strings.Join(where, ", and "))
}

// some names the first few of many places.
func some(places []string) string {
	const few = 5
	if len(places) <= few {
		return strings.Join(places, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(places[:few], ", "), len(places)-few)
}

// refuseInUse refuses a key of which a half lies somewhere.
func refuseInUse(k inventory.Relationship) error {
	used := &InUseError{Key: k.Key.ID}
	for _, p := range k.Authorized {
		used.Authorized = append(used.Authorized, p.HostName+":"+p.User+":"+p.Path)
	}
	for _, p := range k.Identities {
		used.Identities = append(used.Identities, p.HostName+":"+p.User+":"+p.Path)
	}
	switch {
	case len(used.Authorized) > 0:
		return trust.Errorf(trust.Conflict, "%w", used).WithHint("keyturn retire %s withdraws it", k.Key.ID)
	case len(used.Identities) > 0:
		return trust.Errorf(trust.Conflict, "%w", used).WithHint("remove those files, and keyturn scan")
	}
	return nil
}

// RestoreKey brings a deleted key back.
func (p *Plane) RestoreKey(ctx context.Context, actor identity.Actor, idOrFingerprint string) (k inventory.Relationship, err error) {
	err = p.update(ctx, actor, needs(identity.KeysWrite), "key.restore", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		found, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		if found, err = inventory.UndeleteKey(tx, found.ID); err != nil {
			return err
		}
		tx.Note("fingerprint", string(found.Public.Fingerprint()))
		if err := discovery.Judge(tx, []trust.KeyID{found.ID}); err != nil {
			return err
		}
		k, err = relate(tx, found)
		return err
	})
	return k, err
}
