package authority

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// asks has a certificate drafted by the authority of a name, as it is found in the same
// transaction.
func (w world) asks(s *Authorities, name string, r Request) (d *Draft, err error) {
	err = w.update(func(tx *store.Tx) error {
		a, err := s.Find(tx, name)
		if err != nil {
			return err
		}
		d, err = s.Draft(tx, a, r)
		return err
	})
	return d, err
}

// What another process changes, one that has issued before goes by at once; and what was
// changed and rolled back was never.
func TestKeptAuthorities(t *testing.T) {
	eachWorld(t, func(w world) {
		other := New(w.keyring) // which has kept nothing, as that of another process
		w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		r := request(w)
		issues := func(want string) *Draft {
			w.Helper()
			d, err := w.asks(w.Authorities, "people", r)
			switch {
			case want == "" && err != nil:
				w.Fatal(err)
			case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
				w.Fatalf("issues, or is refused by %v, and not by %q", err, want)
			}
			return d
		}
		first := issues("")
		issues("")

		back := errors.New("back")
		if err := w.update(func(tx *store.Tx) error {
			if _, err := w.Remove(tx, first.Authority, ""); err != nil {
				return err
			}
			if _, err := w.Find(tx, "people"); trust.KindOf(err) != trust.NotFound {
				w.Errorf("found in the transaction that removed it: %v", err)
			}
			return back
		}); !errors.Is(err, back) {
			w.Fatal(err)
		}
		issues("")

		w.must(func(tx *store.Tx) error { return other.RevokeKey(tx, r.Key, "lost") })
		issues("is revoked: lost")
		r.Key = newKey(w, "ed25519").Public()
		issues("")
		w.must(func(tx *store.Tx) error {
			_, err := other.RevokeKeyID(tx, r.KeyID, "left")
			return err
		})
		issues("is revoked: left")
		r.KeyID = "bob"
		issues("")

		next := newKey(w, "ed25519")
		w.must(func(tx *store.Tx) error {
			_, err := other.Rotate(tx, "people", 0, next)
			return err
		})
		second := issues("")
		if second.Authority == first.Authority || second.CA != next.Public() {
			w.Error("signs with the key that was exchanged")
		}
		if c, err := second.Sign(); err != nil || c.Plain() != r.Key {
			w.Errorf("signed %v, %v", c, err)
		}
		w.must(func(tx *store.Tx) error {
			for _, d := range []*Draft{first, second} {
				if _, err := other.Remove(tx, d.Authority, ""); err != nil {
					return err
				}
			}
			return nil
		})
		issues("there is no authority")
	})
}

// What is revoked is refused also where there is more of it than is kept.
func TestManyRevocations(t *testing.T) {
	eachWorld(t, func(w world) {
		a := w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		r := request(w)
		w.must(func(tx *store.Tx) error {
			for i := range maxRevoked {
				if _, err := insertRevocation(tx, revocation{kind: byKey, value: fmt.Sprint("SHA256:", i), public: a.Public}); err != nil {
					return err
				}
			}
			return w.RevokeKey(tx, r.Key, "lost")
		})
		if _, err := w.asks(w.Authorities, "people", r); err == nil || !strings.Contains(err.Error(), "is revoked: lost") {
			w.Errorf("issued for a revoked key, or refused by %v", err)
		}
		r.Key = newKey(w, "ed25519").Public()
		if _, err := w.asks(w.Authorities, "people", r); err != nil {
			w.Error(err)
		}
	})
}

// Whoever destroys a private half, on whichever node and without a word to the
// authorities, nobody signs with it from then on. Nor with what was there before where it
// is sealed anew.
func TestDestroyedKeySignsNoMore(t *testing.T) {
	eachWorld(t, func(w world) {
		other := New(w.keyring) // as that of another node, which has kept what it read
		a := w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		for _, s := range []*Authorities{w.Authorities, other} {
			d, err := w.asks(s, "people", request(w))
			if err != nil {
				w.Fatal(err)
			}
			if _, err := d.Sign(); err != nil {
				w.Fatal(err)
			}
		}
		w.must(func(tx *store.Tx) error { return w.keyring.Destroy(tx, trust.KeyID(a.ID)) })
		for name, s := range map[string]*Authorities{"the node that destroyed it": w.Authorities, "another node": other} {
			if d, err := w.asks(s, "people", request(w)); trust.KindOf(err) != trust.NotFound {
				w.Errorf("%s drafts %v, %v", name, d, err)
			}
		}
		next := newKey(w, "ed25519")
		w.must(func(tx *store.Tx) error { return w.keyring.Put(tx, trust.KeyID(a.ID), next) })
		d, err := w.asks(other, "people", request(w))
		if err != nil {
			w.Fatal(err)
		}
		signature, err := d.key.SignAgain(d.unsigned)
		if err != nil {
			w.Fatal(err)
		}
		if public, err := next.Public().SSH(); err != nil || public.Verify(d.unsigned, signature) != nil {
			w.Errorf("signed by what was destroyed, and not by what is there: %v", err)
		}
	})
}
