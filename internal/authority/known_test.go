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
