package authority

import (
	"sync"

	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// An authority changes within months, and is asked for thousands of times a second. So
// what was read of it is kept, and counts for each transaction that finds the version of
// the tenant's authorities to be the same still. Its private half is not: whoever destroys
// one or seals it anew need not know of authorities, so that each transaction reads it.
type kept struct {
	mu      sync.Mutex
	tenants map[trust.TenantID]*known // guarded by mu
}

// A known is what was read under one version.
type known struct {
	version string

	mu    sync.Mutex
	named map[string][]Authority // guarded by mu
	// revoked are what is revoked but for single certificates, or nil where nobody has
	// asked; guarded by mu. Where they are too many to be kept, crowded says so.
	revoked map[revoked]bool
	crowded bool
}

// A revoked is the kind and value of a revocation.
type revoked struct{ kind, value string }

// Bounds of what is kept.
const (
	maxKnown   = 100    // tenants
	maxRevoked = 10_000 // of each
)

// of returns what is known to the transaction's tenant under the version that it finds.
func (k *kept) of(tx *store.Tx) (*known, error) {
	version, err := selectAuthoritiesVersion(tx)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	there := k.tenants[tx.Tenant()]
	if there != nil && there.version == version {
		return there, nil
	}
	if len(k.tenants) >= maxKnown {
		clear(k.tenants)
	}
	there = &known{version: version, named: map[string][]Authority{}}
	k.tenants[tx.Tenant()] = there
	return there, nil
}

// byName returns all authorities of a name, oldest first, as found by tx.
func (k *known) byName(tx *store.Tx, name string) ([]Authority, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	list, ok := k.named[name]
	if !ok {
		var err error
		if list, err = selectNamed(tx, name); err != nil || len(list) == 0 {
			return nil, err
		}
		k.named[name] = list
	}
	out := make([]Authority, len(list))
	for i, a := range list {
		out[i] = a
		out[i].found = &found{tx, k}
	}
	return out, nil
}

// mayBeRevoked reports false for a certificate that nothing revokes but perhaps its
// serial number.
func (k *known) mayBeRevoked(tx *store.Tx, i Issued) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.revoked == nil && !k.crowded {
		list, err := selectRevoked(tx, maxRevoked+1)
		if err != nil {
			return true, err
		}
		k.crowded, k.revoked = len(list) > maxRevoked, map[revoked]bool{}
		for _, r := range list {
			k.revoked[r] = true
		}
	}
	return k.crowded || k.revoked[revoked{byKeyID, i.KeyID}] || k.revoked[revoked{byKey, string(i.Key.Fingerprint())}] ||
		k.revoked[revoked{byAuthority, string(i.CA.Fingerprint())}], nil
}

// A found is how a transaction found an authority: it holds for that transaction only.
type found struct {
	tx    *store.Tx
	known *known
}

// signs returns what Draft needs of a: its private half. It refuses what would be revoked
// from the beginning.
func (s *Authorities) signs(tx *store.Tx, a Authority, i Issued) (key keyring.Sealed, err error) {
	may := true
	if a.found != nil && a.found.tx == tx {
		if may, err = a.found.known.mayBeRevoked(tx, i); err != nil {
			return key, err
		}
	}
	if may {
		if err := refuseRevoked(tx, i); err != nil {
			return key, err
		}
	}
	return s.keyring.Sealed(tx, trust.KeyID(a.ID))
}

// refuseRevoked refuses a certificate that something on the list revokes, unless that has
// ended, which is dropped.
func refuseRevoked(tx *store.Tx, i Issued) error {
	r, err := selectRevocation(tx, i)
	switch {
	case err != nil || r.kind == "":
		return err
	case r.until.IsZero() || tx.Now().Before(r.until):
		return refusal(i, r)
	}
	if err := dropEnded(tx); err != nil {
		return err
	}
	return refuseRevoked(tx, i)
}
