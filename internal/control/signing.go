package control

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Use without reveal: the server signs with a key that it holds, for a user who does
// not get to see it. Who may is asked anew for each signature.

// ListUsableKeys lists the keys that the actor may have the server sign with, by id. A
// page may have fewer than its limit, and be followed by others all the same. With
// names of keys, ids or fingerprints, it lists those of them, and of the keys that came
// in their place, in one page.
func (p *Plane) ListUsableKeys(ctx context.Context, actor identity.Actor, named []string, page Page) (list []inventory.Key, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	after, err := page.id()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.KeysUse, func(tx *store.Tx) error {
		var ids []trust.KeyID
		if len(named) > 0 {
			ids, err = p.namedKeys(tx, named)
		} else if ids, err = p.keyring.Held(tx, trust.KeyID(after), limit); len(ids) == limit {
			next = string(ids[limit-1])
		}
		if err != nil || len(ids) == 0 {
			return err
		}
		keys, _, err := inventory.Keys(tx, inventory.KeyFilter{IDs: ids}, inventory.Page{Limit: inventory.MaxPage})
		if err != nil {
			return err
		}
		for _, k := range keys {
			err := mayUse(tx, actor, k)
			switch {
			case err == nil:
				list = append(list, k)
			case trust.KindOf(err) == trust.Internal:
				return err
			}
		}
		slices.SortFunc(list, func(a, b inventory.Key) int { return strings.Compare(string(a.ID), string(b.ID)) })
		return nil
	})
	return list, next, err
}

// namedKeys returns the keys of names and what came in their place, as far as they are
// held.
func (p *Plane) namedKeys(tx *store.Tx, named []string) ([]trust.KeyID, error) {
	var ids []trust.KeyID
	for _, name := range named {
		k, err := inventory.FindKey(tx, name)
		if trust.KindOf(err) == trust.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		ids = append(ids, k.ID)
	}
	all, err := inventory.Successors(tx, ids)
	if err != nil {
		return nil, err
	}
	var held []trust.KeyID
	for _, id := range all {
		has, err := p.keyring.Has(tx, id)
		if err != nil {
			return nil, err
		}
		if has {
			held = append(held, id)
		}
	}
	return held, nil
}

// A Sign asks for a signature.
type Sign struct {
	Key  string // id or fingerprint
	Data []byte // as trust.ParseSignable reads it
	// Algorithm is of the signature; empty for what a login says, or else for the best
	// that the key has.
	Algorithm string
	// HostKey is the fingerprint of the key of the server that the login is for, if
	// the client knows and the data does not say; and Forwarded whether the request
	// came over a forwarded agent. Both are as the client tells them.
	HostKey   trust.Fingerprint
	Forwarded bool
}

// A Signature is one of RFC 4253, section 6.6.
type Signature struct {
	Format string
	Blob   []byte
}

// SignWithKey signs what logs in by SSH, or vouches for a message, with a key that the
// keyring holds and the actor may use. That it is going to is committed first, so that
// no signature leaves that the log does not tell of.
func (p *Plane) SignWithKey(ctx context.Context, actor identity.Actor, s Sign) (Signature, error) {
	if err := require(actor, identity.KeysUse); err != nil {
		return Signature{}, err
	}
	what, err := trust.ParseSignable(s.Data)
	if err != nil {
		return Signature{}, err
	}
	var private keyring.Sealed
	var algorithm string
	err = p.update(ctx, actor, needs(identity.KeysUse), "key.sign", "key:"+subject(s.Key), func(tx *store.Tx) error {
		k, err := inventory.FindKey(tx, s.Key)
		if trust.KindOf(err) == trust.NotFound {
			return notUsable(s.Key)
		}
		if err != nil {
			return err
		}
		if private, err = p.keyring.Sealed(tx, k.ID); trust.KindOf(err) == trust.NotFound {
			return notUsable(s.Key)
		} else if err != nil {
			return err
		}
		if err := mayUse(tx, actor, k); trust.KindOf(err) == trust.NotFound {
			return notUsable(s.Key) // by the name that it was asked for by
		} else if err != nil {
			return err
		}
		if algorithm, err = algorithmOf(what, k, s.Algorithm); err != nil {
			return err
		}
		tx.Note("fingerprint", string(k.Public.Fingerprint()))
		return noteUse(tx, what, s)
	})
	if err != nil {
		return Signature{}, err
	}
	signature, err := private.Sign(s.Data, algorithm)
	if err != nil {
		return Signature{}, err
	}
	return Signature{Format: signature.Format, Blob: signature.Blob}, nil
}

// mayUse says why a key that is held does not sign for an actor, or returns nil. Of a key that is
// kept from the actor nothing is said, not even that it is there.
func mayUse(tx *store.Tx, actor identity.Actor, k inventory.Key) error {
	if k.Kind != inventory.UserKey {
		return notUsable(string(k.ID))
	}
	users, err := inventory.UsersOfKey(tx, k.ID)
	if err != nil {
		return err
	}
	if users.Names(actor.Owner) {
		return inUse(tx, k)
	}
	_, opens, err := inventory.CredentialHosts(tx, k.ID, 1)
	if err != nil {
		return err
	}
	if opens > 0 {
		return trust.Errorf(trust.Denied, "key %s opens hosts for Keyturn itself (%d), and signs only for users who are named for it", k.ID, opens).
			WithHint("keyturn key allow %s --user NAME", k.ID)
	}
	if users.Limited {
		return notUsable(string(k.ID))
	}
	return inUse(tx, k)
}

// inUse refuses a key that is not in use any more: it does not sign, and is not certified.
// One that was rotated is, for as long as an account is known that accepts it: who logs in through the
// server is not locked out while a rotation is under way, or by a place that it left.
func inUse(tx *store.Tx, k inventory.Key) error {
	if k.Compromised {
		return trust.Errorf(trust.Conflict, "key %s is compromised: it does not sign, and is not certified", k.ID).WithHint("keyturn key show %s", k.ID)
	}
	if !k.ExpiresAt.IsZero() && !tx.Now().Before(k.ExpiresAt) {
		return trust.Errorf(trust.Conflict, "key %s was to be used until %s UTC: it does not sign, and is not certified", k.ID, k.ExpiresAt.Format(time.DateTime)).
			WithHint("keyturn key set %s --expires DATE", k.ID)
	}
	if k.State == inventory.Rotated {
		accepted, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: k.ID}, nil, 1)
		if err != nil || len(accepted) > 0 {
			return err
		}
	}
	if k.State != inventory.Active {
		return trust.Errorf(trust.Conflict, "key %s is %s: it does not sign, and is not certified", k.ID, k.State).WithHint("keyturn key show %s", k.ID)
	}
	return nil
}

func notUsable(key string) error {
	return trust.Errorf(trust.NotFound, "there is no key %q that signs for you", clip(key)).
		WithHint("ssh-add -l lists those that do; keyturn key allow UUID --user NAME, by who may write users")
}

// algorithmOf returns the algorithm of a signature by a key, and refuses one by which a
// login would be for another key, or by another algorithm, than it says.
func algorithmOf(what trust.Signable, k inventory.Key, asked string) (string, error) {
	algorithms := keyring.Algorithms(k.Public)
	algorithm := cmp.Or(what.Algorithm, asked, algorithms[0])
	switch {
	case what.IsLogin() && what.Key != k.Public:
		return "", trust.Errorf(trust.Invalid, "the login is by key %s, not by %s", what.Key.Fingerprint(), k.Public.Fingerprint()).WithField("data")
	case asked != "" && asked != algorithm:
		return "", trust.Errorf(trust.Invalid, "the login is by a signature of type %q, not %q", algorithm, clip(asked)).WithField("algorithm")
	case !slices.Contains(algorithms, algorithm):
		return "", trust.Errorf(trust.Invalid, "key %s signs with %s, not with %q", k.ID, strings.Join(algorithms, " or "), clip(algorithm)).WithField("algorithm")
	}
	return algorithm, nil
}

// noteUse writes down what a signature is for.
func noteUse(tx *store.Tx, what trust.Signable, s Sign) error {
	if s.Forwarded {
		tx.Note("forwarded", "yes")
	}
	if !what.IsLogin() {
		tx.Note("namespace", what.Namespace)
		return nil
	}
	tx.Note("login", what.User)
	hostKey := s.HostKey
	if !what.HostKey.IsZero() {
		hostKey = what.HostKey.Fingerprint()
	}
	if hostKey == "" {
		return nil
	}
	tx.Note("host_key", string(hostKey))
	host, err := inventory.PinnedByFingerprint(tx, hostKey)
	if trust.KindOf(err) == trust.NotFound {
		return nil
	}
	tx.Note("host", host.Name)
	return err
}

// KeyUsers says who may use a key: everybody with the permission Keys Use, unless it is
// Limited, and then those of them who are among Users.
type KeyUsers struct {
	Limited bool
	Users   []string // names; of a user who is gone, the id
}

// ListKeyUsers returns who may use a key.
func (p *Plane) ListKeyUsers(ctx context.Context, actor identity.Actor, idOrFingerprint string) (users KeyUsers, err error) {
	err = p.view(ctx, actor, identity.KeysRead, func(tx *store.Tx) error {
		k, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		users, err = p.keyUsers(tx, k.ID)
		return err
	})
	return users, err
}

// A SetKeyUsers says anew who may use a key.
type SetKeyUsers struct {
	// Allow and Disallow are users by name or id. The first limits the key to those
	// who are allowed; a key whose last user is disallowed signs for nobody.
	Allow, Disallow []string
	// Everybody lifts the limit.
	Everybody bool
}

// SetKeyUsers limits a key to some users, and likewise all keys that came in its place,
// and in whose place it came: no rotation changes who may. Who may write keys only could
// name himself for the one that opens every host.
func (p *Plane) SetKeyUsers(ctx context.Context, actor identity.Actor, idOrFingerprint string, set SetKeyUsers) (users KeyUsers, err error) {
	if err := require(actor, identity.KeysWrite, identity.UsersWrite); err != nil {
		return users, err
	}
	if named := len(set.Allow) + len(set.Disallow); set.Everybody == (named > 0) {
		return users, trust.Errorf(trust.Invalid, "say either which users may use the key, or that everybody with the permission %q may", identity.KeysUse).WithField("allow")
	}
	err = p.update(ctx, actor, needs(identity.KeysWrite, identity.UsersWrite), "key.limit", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		k, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		if k.Kind != inventory.UserKey {
			return trust.Errorf(trust.Conflict, "key %s is of a host, and signs for no user", k.ID)
		}
		now, err := p.limited(tx, k.ID, set)
		if err != nil {
			return err
		}
		lineage, err := inventory.Lineage(tx, k.ID)
		if err != nil {
			return err
		}
		for _, id := range lineage {
			if err := inventory.SetUsersOfKey(tx, id, now); err != nil {
				return err
			}
		}
		tx.Note("fingerprint", string(k.Public.Fingerprint()))
		tx.Note("users", limitText(now))
		users, err = p.keyUsers(tx, k.ID)
		return err
	})
	return users, err
}

// limited returns who may use a key after a change.
func (p *Plane) limited(tx *store.Tx, key trust.KeyID, set SetKeyUsers) (inventory.KeyUsers, error) {
	if set.Everybody {
		return inventory.KeyUsers{}, nil
	}
	now, err := inventory.UsersOfKey(tx, key)
	if err != nil {
		return now, err
	}
	if !now.Limited && len(set.Allow) == 0 {
		return now, trust.Errorf(trust.Conflict, "key %s is not limited: everybody with the permission %q may use it", key, identity.KeysUse).
			WithHint("keyturn key allow %s --user NAME limits it to those who are named", key)
	}
	now.Limited = true
	for _, name := range set.Allow {
		u, err := p.directory.User(tx, name)
		if err != nil {
			return now, err
		}
		if !now.Names(u.ID) {
			now.Users = append(now.Users, u.ID)
		}
	}
	for _, name := range set.Disallow {
		id := name // of one who is gone
		if u, err := p.directory.User(tx, name); err == nil {
			id = u.ID
		} else if trust.KindOf(err) != trust.NotFound || !now.Names(name) {
			return now, err
		}
		now.Users = slices.DeleteFunc(now.Users, func(u string) bool { return u == id })
	}
	return now, nil
}

// limitText is how the log tells of who may use a key: by ids.
func limitText(u inventory.KeyUsers) string {
	switch {
	case !u.Limited:
		return "everybody"
	case len(u.Users) == 0:
		return "nobody"
	}
	return strings.Join(u.Users, ", ")
}

func (p *Plane) keyUsers(tx *store.Tx, key trust.KeyID) (KeyUsers, error) {
	of, err := inventory.UsersOfKey(tx, key)
	if err != nil {
		return KeyUsers{}, err
	}
	users := KeyUsers{Limited: of.Limited}
	for _, id := range of.Users {
		u, err := p.directory.User(tx, id)
		switch {
		case err == nil:
			users.Users = append(users.Users, u.Name)
		case trust.KindOf(err) == trust.NotFound:
			users.Users = append(users.Users, id)
		default:
			return KeyUsers{}, err
		}
	}
	slices.Sort(users.Users)
	return users, nil
}
