package jwk

import (
	"time"

	"github.com/google/uuid"

	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// After how many days a key is exchanged, as Cloudflare has it.
const (
	MinDays     = 21
	MaxDays     = 365
	DefaultDays = 42
)

// Overlap is for how long a key is published that signs no more: at least as long as a
// token holds that it signed.
const Overlap = 7 * 24 * time.Hour

// maxPublished bounds the keys of one account that are published.
const maxPublished = 20

// A Standing is how the keys of an account stand.
type Standing struct {
	Days int // after which the one that signs is exchanged
	// Left is in how many days that is, of which one may have begun; 0 where it is due.
	Left int
	// Keys are those that are published: the one that signs, and then the newest first.
	// An account that nobody has asked for one has none.
	Keys []Key
}

// Due returns when the key that signs is to be exchanged, or zero where there is none.
func (s Standing) Due() time.Time {
	if len(s.Keys) == 0 {
		return time.Time{}
	}
	return s.Keys[0].Created.Add(time.Duration(s.Days) * 24 * time.Hour)
}

// Load returns how the keys of the tenant of tx stand.
func Load(tx *store.Tx) (s Standing, err error) {
	if s.Days, err = selectDays(tx); err != nil {
		return s, err
	}
	s.Keys, err = selectPublished(tx)
	const day = 24 * time.Hour
	s.Left = int((max(s.Due().Sub(tx.Now()), 0) + day - 1) / day)
	return s, err
}

// SetDays says after how many days a key of the tenant of tx is exchanged, the one that
// signs now among them.
func SetDays(tx *store.Tx, days int) error {
	if days < MinDays || days > MaxDays {
		return trust.Errorf(trust.Invalid, "a key is exchanged after %d to %d days, not %d", MinDays, MaxDays, days).WithField("key_rotation_interval_days")
	}
	return upsertDays(tx, days)
}

// Rotate has a key that was made for it sign from now on. The one that did is published
// for Overlap still, and its private half is destroyed.
func Rotate(tx *store.Tx, k *keyring.Keyring, private keyring.Private) (Key, error) {
	s, err := Load(tx)
	if err != nil {
		return Key{}, err
	}
	if len(s.Keys) >= maxPublished {
		return Key{}, trust.Errorf(trust.Exhausted, "%d keys are published already, which is as many as there can be", len(s.Keys)).
			WithHint("the oldest goes on %s UTC", s.Keys[len(s.Keys)-1].Until.Format(time.DateTime))
	}
	if err := deleteEnded(tx); err != nil {
		return Key{}, err
	}
	if len(s.Keys) > 0 {
		old := s.Keys[0]
		if err := retire(tx, old.ID, tx.Now().Add(Overlap)); err != nil {
			return Key{}, err
		}
		if err := k.Destroy(tx, trust.KeyID(old.ID)); err != nil {
			return Key{}, err
		}
		tx.Note("was", old.KID)
	}
	id, err := uuid.NewV7()
	if err != nil {
		return Key{}, err
	}
	next, err := publish(id.String(), private, tx.Now())
	if err != nil {
		return Key{}, err
	}
	if err := k.Put(tx, trust.KeyID(next.ID), private); err != nil {
		return Key{}, err
	}
	tx.Note("kid", next.KID)
	return next, insertKey(tx, next)
}
