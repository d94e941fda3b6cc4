package control

import (
	"testing"

	"keyturn/internal/identity"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A user's password and second factor are for the user and for who writes users, and
// not for somebody who is called what the user's id is.
func TestNameIsNobodysID(t *testing.T) {
	storetest.Both(t, everything, func(t *testing.T, s *store.Store) {
		p, _, add := newHolder(t, s)
		victim, other := add("victim"), add("other")
		read := []identity.Permission{identity.KeysRead}
		for _, u := range []identity.Actor{victim, other} {
			if _, err := p.SetUserRights(t.Context(), other, u.ID, identity.Rights{Permissions: read}); err != nil {
				t.Fatal(err)
			}
		}
		other.Permissions = read
		for _, name := range []string{"other", victim.ID} {
			other.Name = name
			for _, whose := range []string{victim.ID, "victim"} {
				if _, err := p.SetUserPassword(t.Context(), other, whose, "a password of mine"); trust.KindOf(err) != trust.Denied {
					t.Errorf("password of %q by %q: %v", whose, name, err)
				}
				if _, err := p.RemoveTOTP(t.Context(), other, whose); trust.KindOf(err) != trust.Denied {
					t.Errorf("second factor of %q by %q: %v", whose, name, err)
				}
			}
		}
		other.Name = "other"
		for _, own := range []string{other.ID, "Other"} {
			if _, err := p.SetUserPassword(t.Context(), other, own, "a password of mine"); err != nil {
				t.Errorf("one's own password by %q: %v", own, err)
			}
			if _, err := p.RemoveTOTP(t.Context(), other, own); err != nil {
				t.Errorf("one's own second factor by %q: %v", own, err)
			}
		}
	})
}
