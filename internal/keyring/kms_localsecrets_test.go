//go:build localsecrets

package keyring

import (
	"crypto/rand"
	"encoding/base64"
	"net/url"
	"strings"
	"testing"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// The key of a KMS stays there, but for the one that these tests are built with,
// whose key is in its URL.
func TestKMS(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		source, other := localKMS(t), localKMS(t)
		k, err := Start(t.Context(), s, source, nil)
		must(t, err)
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "a", generate(t, "ed25519")) }))
		for range 2 {
			before, err := readRoot(t.Context(), s)
			must(t, err)
			if _, err := Start(t.Context(), s, other, nil); trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), before.name) {
				t.Errorf("another KMS: %v, want unavailable, and %q named", err, before.name)
			}
			must(t, rotateKEK(t, s, k))
			after, err := readRoot(t.Context(), s)
			must(t, err)
			if after.name == before.name || string(after.seed) == string(before.seed) {
				t.Errorf("after the rotation it is %q, as before", after.name)
			}
			k, err = Start(t.Context(), s, source, nil)
			must(t, err)
		}
		file := sources(t)["file"]
		_, err = Start(t.Context(), s, file, source)
		must(t, err)
		if _, err := Start(t.Context(), s, source, nil); trust.KindOf(err) != trust.Denied {
			t.Errorf("the KMS, after a change to a file: %v, want denied", err)
		}
		k, err = Start(t.Context(), s, other, file)
		must(t, err)
		if _, err := k.Signer(t.Context(), storetest.Tenant, "a"); err != nil {
			t.Error(err)
		}
	})
}

func localKMS(t *testing.T) Source {
	t.Helper()
	key := make([]byte, 32)
	rand.Read(key)
	encoded := base64.URLEncoding.EncodeToString(key)
	source, err := KMS("base64key://" + url.PathEscape(encoded))
	must(t, err)
	if strings.Contains(source.String(), encoded[:8]) {
		t.Errorf("%s gives its key away", source)
	}
	return source
}
