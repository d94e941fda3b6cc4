package keyring

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A signing is a key that signs often.
type signing struct {
	t       *testing.T
	store   *store.Store
	keyring *Keyring
	public  trust.PublicKey
	sealed  Sealed
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	s := storetest.Open(t, schemas...)
	k := open(t, s, testKEK(t, "kek"))
	k.source = Command("true", nil)
	p := generate(t, "ed25519")
	must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "ca", p) }))
	g := &signing{t: t, store: s, keyring: k, public: p.Public()}
	g.read()
	return g
}

// read reads the key anew.
func (g *signing) read() {
	g.t.Helper()
	must(g.t, g.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) (err error) {
		g.sealed, err = g.keyring.Sealed(tx, "ca")
		return err
	}))
}

// sign signs, and returns the bytes of the private half that is open from then on.
func (g *signing) sign() ed25519.PrivateKey {
	g.t.Helper()
	signature, err := g.sealed.SignAgain([]byte("data"))
	must(g.t, err)
	public, err := g.public.SSH()
	must(g.t, err)
	must(g.t, public.Verify([]byte("data"), signature))
	return g.open()
}

func (g *signing) open() ed25519.PrivateKey {
	g.keyring.mu.Lock()
	defer g.keyring.mu.Unlock()
	o := g.keyring.kept[g.sealed.binding]
	if o == nil {
		return nil
	}
	return o.private.half().key.(ed25519.PrivateKey)
}

var wiped = make(ed25519.PrivateKey, ed25519.PrivateKeySize)

// A private half is opened once to sign often, until its key is destroyed or the
// key-encryption key changes; and again where its row holds other bytes.
func TestSignAgain(t *testing.T) {
	g := newSigning(t)
	first := g.sign()
	g.read()
	if again := g.sign(); &again[0] != &first[0] {
		t.Error("opened again to sign again")
	}
	must(t, g.keyring.Settle(KEK{}))
	if g.open() != nil || !bytes.Equal(first, wiped) {
		t.Error("the private half is open after the key-encryption key has changed")
	}
	second := g.sign()
	must(t, update(g.store, storetest.Tenant, func(tx *store.Tx) error { return g.keyring.Destroy(tx, "ca") }))
	if g.open() != nil || !bytes.Equal(second, wiped) {
		t.Error("the private half is open after the key was destroyed")
	}

	// As another process leaves it: the row of the same id is another key's.
	third := g.sign()
	other := generate(t, "ed25519")
	must(t, update(g.store, storetest.Tenant, func(tx *store.Tx) error {
		text, err := other.text(OpenSSH)
		must(t, err)
		data, err := g.keyring.data(tx)
		must(t, err)
		sealed, err := data.seal(binding{tx.Tenant(), kindPrivate, "ca"}, text)
		must(t, err)
		_, err = insertPrivate(tx, "ca", other.Public().Blob(), sealed)
		return err
	}))
	g.read()
	g.public = other.Public()
	if now := g.sign(); &now[0] == &third[0] {
		t.Error("signs with what was there before")
	}
}

// The signers of a key for logins share one private half that is open, and open it again
// when it was wiped meanwhile.
func TestSignersShare(t *testing.T) {
	g := newSigning(t)
	first, err := g.keyring.Signer(t.Context(), storetest.Tenant, "ca")
	must(t, err)
	half := g.open()
	second, err := g.keyring.Signer(t.Context(), storetest.Tenant, "ca")
	must(t, err)
	if now := g.open(); half == nil || &now[0] != &half[0] {
		t.Error("opened again for the second signer")
	}
	must(t, g.keyring.Settle(KEK{}))
	if g.open() != nil || !bytes.Equal(half, wiped) {
		t.Error("the private half is open after the key-encryption key has changed")
	}
	for _, signer := range []ssh.Signer{first, second} {
		signature, err := signer.Sign(rand.Reader, []byte("data"))
		must(t, err)
		must(t, signer.PublicKey().Verify([]byte("data"), signature))
	}
	if g.open() == nil {
		t.Error("what has signed is not kept open")
	}
}

// A minute after it was opened a private half is wiped, however much it signs.
func TestSignAgainCloses(t *testing.T) {
	g := newSigning(t)
	synctest.Test(t, func(t *testing.T) {
		first := g.sign()
		for range 5 {
			time.Sleep(openFor/5 - time.Millisecond)
			g.sign()
		}
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if g.open() != nil || !bytes.Equal(first, wiped) {
			t.Error("the private half is open after its time")
		}
		g.sign()
		time.Sleep(openFor)
		synctest.Wait()
	})
}

// Who signs while the private half is wiped signs with one that is opened again.
func TestSignAgainWhileItCloses(t *testing.T) {
	g := newSigning(t)
	public, err := g.public.SSH()
	must(t, err)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 200 {
				signature, err := g.sealed.SignAgain([]byte("data"))
				if err != nil || public.Verify([]byte("data"), signature) != nil {
					t.Error("not signed, or wrongly:", err)
					return
				}
			}
		})
	}
	for range 200 {
		must(t, g.keyring.Settle(KEK{}))
	}
	group.Wait()
}
