package control

import (
	"context"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/discovery"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// KeyFacts are what somebody says of a key. What is not given stays as it is.
type KeyFacts struct {
	// Owner is who answers for it, and Purpose what it is for; empty for nobody
	// and nothing.
	Owner, Purpose *string
	// Labels are of the form "name=value", and Unlabel the names of others, which go.
	Labels, Unlabel []string
	// Expires is until when it is meant to be used, as parseExpiry reads it, or empty.
	Expires string
}

// SetKeyFacts writes what is known of a key.
func (p *Plane) SetKeyFacts(ctx context.Context, actor identity.Actor, idOrFingerprint string, f KeyFacts) (inventory.Relationship, error) {
	var k inventory.Key
	err := p.update(ctx, actor, needs(identity.KeysWrite), "key.set", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		found, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		if found.State == inventory.Deleted {
			return trust.Errorf(trust.Conflict, "key %s is deleted", found.ID).WithHint("keyturn key restore %s", found.ID)
		}
		tx.Note("fingerprint", string(found.Public.Fingerprint()))
		k, err = f.write(tx, found)
		return err
	})
	if err != nil {
		return inventory.Relationship{}, err
	}
	return p.related(ctx, actor, k)
}

// write writes the facts of a key, as the commit of a verb, and judges the key by
// them. The event says which they are, and not what: an owner is a person.
func (f KeyFacts) write(tx *store.Tx, k inventory.Key) (inventory.Key, error) {
	var changed []string
	note := func(what string) { changed = append(changed, what) }
	for what, text := range map[string]*string{"owner": f.Owner, "purpose": f.Purpose} {
		if text != nil && !inventory.IsFact(*text) {
			return k, trust.Errorf(trust.Invalid, "%s is longer than %d bytes, or not printable", what, inventory.MaxFact).WithField(what)
		}
	}
	if f.Owner != nil {
		k.Owner = *f.Owner
		note("owner")
	}
	if f.Purpose != nil {
		k.Purpose = *f.Purpose
		note("purpose")
	}
	if f.Expires != "" {
		until, err := parseExpiry(f.Expires, tx.Now())
		if err != nil {
			return k, err
		}
		k.ExpiresAt = until
		note("expires")
	}
	if len(f.Labels)+len(f.Unlabel) > 0 {
		labels, err := ParseLabels(f.Labels)
		if err != nil {
			return k, err
		}
		if err := inventory.SetLabels(tx, k.ID, labels, f.Unlabel); err != nil {
			return k, err
		}
		note("labels")
	}
	if len(changed) == 0 {
		return k, nil
	}
	tx.Note("changed", strings.Join(changed, ","))
	k, err := inventory.UpdateKey(tx, k)
	if err != nil {
		return k, err
	}
	return k, discovery.Judge(tx, []trust.KeyID{k.ID})
}

// ParseLabels reads labels of the form "name=value".
func ParseLabels(texts []string) ([]inventory.Label, error) {
	labels := make([]inventory.Label, len(texts))
	for i, text := range texts {
		var err error
		if labels[i], err = inventory.ParseLabel(text); err != nil {
			return nil, err
		}
	}
	return labels, nil
}

// maxExpiry bounds how far away the end of a key can be.
const maxExpiry = 100 * 366 * 24 * time.Hour

// parseExpiry reads until when a key is meant to be used: "90d" or "12h" from now, a
// day such as 2027-01-31, to its end in UTC, a time of RFC 3339, or "never".
func parseExpiry(text string, now time.Time) (until time.Time, err error) {
	if text == "never" {
		return store.Time(0), nil
	}
	days, isDays := strings.CutSuffix(text, "d")
	n, notNumber := strconv.Atoi(days)
	switch length, notLength := time.ParseDuration(text); {
	case isDays && notNumber == nil && n > 0 && n <= int(maxExpiry/(24*time.Hour)):
		until = now.AddDate(0, 0, n)
	case notLength == nil:
		until = now.Add(length)
	default:
		if until, err = time.Parse(time.DateOnly, text); err == nil {
			until = until.AddDate(0, 0, 1)
		} else if until, err = time.Parse(time.RFC3339, text); err != nil {
			return until, trust.Errorf(trust.Invalid, "%q is neither a time such as 90d or 12h, nor a day such as 2027-01-31, nor never", clip(text)).WithField("expires")
		}
	}
	if !until.After(now) || until.Sub(now) > maxExpiry {
		return until, trust.Errorf(trust.Invalid, "%q is not between now and a hundred years from now", clip(text)).WithField("expires")
	}
	return store.Time(store.Micros(until)), nil
}
