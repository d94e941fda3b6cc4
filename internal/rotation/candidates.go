package rotation

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds which keys can be rotated, and what comes in their place.

// A Candidate is a key that can be rotated, and what to make in its place, or what its
// owner made, which then has an id.
type Candidate struct {
	Key      inventory.Key
	Spec     keyring.Spec
	Supplied inventory.Key
}

// pair is what a plan says of a candidate whose successor is next.
func (c Candidate) pair(tx *store.Tx, next trust.PublicKey) Pair {
	return Pair{
		Old: c.Key.ID, OldKey: c.Key.Public,
		New: inventory.KeyIDOf(tx.Tenant(), inventory.UserKey, next), NewKey: next, Supplied: c.Supplied.ID != "",
	}
}

// Candidates returns the keys of a request, once each, if all of them can be
// rotated. Errors: Invalid; NotFound; Conflict, naming the key and why.
func Candidates(tx *store.Tx, q Request) ([]Candidate, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	var candidates []Candidate
	var refused refusals
	for _, id := range unique(q.Keys) {
		c, err := candidate(tx, id, q.Share)
		if refused.add(id, err); trust.KindOf(err) == trust.Internal && err != nil {
			return nil, err
		}
		candidates = append(candidates, c)
	}
	for _, c := range candidates {
		if slices.Contains(q.Keys, c.Supplied.ID) {
			refused.add(c.Key.ID, trust.Errorf(trust.Conflict, "key %s is to take the place of key %s, and is itself to be rotated: one run would let it in and withdraw it", c.Supplied.ID, c.Key.ID).
				WithHint("keyturn rotate %s, and %s when that has ended", c.Key.ID, c.Supplied.ID))
		}
	}
	return candidates, refused.err()
}

func candidate(tx *store.Tx, id trust.KeyID, share bool) (Candidate, error) {
	k, err := activeUserKey(tx, id)
	if err != nil {
		return Candidate{}, err
	}
	identities, err := identitiesOf(tx, id)
	if err != nil {
		return Candidate{}, err
	}
	if ownersToMake(k, identities) {
		supplied, err := inventory.SuppliedFor(tx, id)
		if err != nil {
			return Candidate{}, err
		}
		if supplied.ID != "" {
			return Candidate{Key: k, Supplied: supplied}, refuseSupplied(tx, id, supplied)
		}
	}
	spec, err := successorOf(k)
	if err != nil {
		return Candidate{}, err
	}
	return Candidate{Key: k, Spec: spec}, custodyAllows(k, identities, share)
}

// A KeysError says which keys of a request are at fault. It is the cause of the
// error about the first of them.
type KeysError struct {
	Why map[trust.KeyID]string

	first *trust.Error
}

func (e *KeysError) Error() string { return e.first.Message }

// refusals gathers why keys of one request are refused.
type refusals struct{ found *KeysError }

func (r *refusals) add(id trust.KeyID, err error) {
	var e *trust.Error
	if !errors.As(err, &e) {
		return
	}
	if r.found == nil {
		r.found = &KeysError{Why: map[trust.KeyID]string{}, first: e}
	}
	r.found.Why[id] = e.Message
}

func (r *refusals) err() error {
	if r.found == nil {
		return nil
	}
	e := *r.found.first
	if n := len(r.found.Why); n > 1 {
		e.Message = fmt.Sprintf("%s (and %d more keys)", e.Message, n-1)
	}
	e.Field, e.Err = "keys", r.found
	return &e
}

func activeUserKey(tx *store.Tx, id trust.KeyID) (inventory.Key, error) {
	k, err := inventory.KeyByID(tx, id)
	switch {
	case err != nil:
		return inventory.Key{}, err
	case k.Kind != inventory.UserKey:
		return inventory.Key{}, trust.Errorf(trust.Conflict, "key %s is a %s key, and only user keys can be rotated", id, k.Kind)
	case k.State != inventory.Active:
		return inventory.Key{}, trust.Errorf(trust.Conflict, "key %s is %s, not active", id, k.State).WithHint("keyturn key show %s", id)
	}
	return k, nil
}

// successorOf returns what to make in the place of a key: the same type and
// size, unless that no longer holds.
func successorOf(k inventory.Key) (keyring.Spec, error) {
	switch t := k.Public.Type(); {
	case t == ssh.KeyAlgoED25519:
		return keyring.Spec{Type: "ed25519"}, nil
	case t == ssh.KeyAlgoECDSA256:
		return keyring.Spec{Type: "ecdsa-p256"}, nil
	case t == ssh.KeyAlgoECDSA384:
		return keyring.Spec{Type: "ecdsa-p384"}, nil
	case t == ssh.KeyAlgoECDSA521:
		return keyring.Spec{Type: "ecdsa-p521"}, nil
	case t == ssh.KeyAlgoRSA:
		bits := k.Public.Bits()
		return keyring.Spec{Type: "rsa", Bits: min(max((bits+7)/8*8, 3072), 8192)}, nil
	case t == "ssh-dss": // keyring signs with none, so that nothing could be proven
		return keyring.Spec{}, trust.Errorf(trust.Conflict, "key %s is a DSA key, which Keyturn neither holds nor proves: its owner has to make another, of another type", k.ID).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	case strings.HasPrefix(t, "sk-"):
		return keyring.Spec{}, trust.Errorf(trust.Conflict, "key %s is of type %s: only its owner's security key can make another", k.ID, t).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	default:
		return keyring.Spec{}, trust.Errorf(trust.Conflict, "key %s is of type %s, for which no successor can be made here", k.ID, t).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	}
}

// custodyAllows refuses a key whose holders a new key could not be brought to.
func custodyAllows(k inventory.Key, identities []inventory.IdentityPlace, share bool) error {
	for _, p := range identities {
		if p.Encrypted {
			return trust.Errorf(trust.Conflict, "key %s lies in %s of %s on %s with a passphrase: only its owner can make another", k.ID, p.Path, p.User, p.HostName).
				WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
		}
	}
	switch {
	case k.Custody == inventory.Held:
		return nil
	case !k.RevealedAt.IsZero():
		return trust.Errorf(trust.Conflict, "key %s is external: its private half was given to somebody on %s, and only its owner can make another", k.ID, k.RevealedAt.Format(time.DateOnly)).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	case len(identities) == 0:
		return trust.Errorf(trust.Conflict, "key %s is external: nobody said where its private half lies, so a new one could be brought to nobody", k.ID).
			WithHint("%s; keyturn key import FILE lets Keyturn hold the key; keyturn retire %s takes it away from every host", supplyHint(k.ID), k.ID)
	case !share:
		return trust.Errorf(trust.Conflict, "the private half of key %s lies only on hosts (identity files: %d, the first on %s), and Keyturn does not hold it", k.ID, len(identities), identities[0].HostName).
			WithHint("add --share: Keyturn makes the new key, holds it, and installs it there")
	}
	return nil
}

// unique returns ids without repetition, in order.
func unique(ids []trust.KeyID) []trust.KeyID {
	var out []trust.KeyID
	for _, id := range ids {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
