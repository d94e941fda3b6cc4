package identity

import (
	"slices"
	"testing"

	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/store"
)

// What a provider said of a user is what it answers for, as of the last login, and ends
// with what it was said for.
func TestSaid(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		say := func(claims oidctest.Claims) (l LoginToken, s Said) {
			t.Helper()
			i.Say(w.says("1", claims))
			l, err := w.logIn()
			must(t, err)
			must(t, w.view(func(tx *store.Tx) (err error) {
				s, err = w.Said(tx, l.Actor.ID)
				return err
			}))
			return l, s
		}
		l, s := say(oidctest.Claims{"preferred_username": "alice", "groups": groups("ops", "staff"), "email": "Alice@example.com", "email_verified": true, "amr": groups("pwd", "hwk")})
		if !slices.Equal(s.Claims["email"], groups("Alice@example.com")) || !slices.Equal(s.Claims["groups"], groups("ops", "staff")) || !slices.Equal(s.Claims["amr"], groups("pwd", "hwk")) || s.Provider == "" {
			t.Errorf("said %+v", s)
		}
		if _, s = say(oidctest.Claims{"groups": groups("ops"), "email": "bob@example.com"}); s.Claims["email"] != nil || s.Claims["amr"] != nil || s.Claims["groups"] == nil {
			t.Errorf("of an address that is not verified: %+v", s)
		}
		i.Say(w.says("1", oidctest.Claims{"groups": groups("staff")}))
		if _, err := w.logIn(); err == nil {
			t.Error("logged in without a role")
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			s, err := w.Said(tx, l.Actor.ID)
			if s.Provider != "" || s.Claims != nil {
				t.Errorf("of who was turned away: %+v", s)
			}
			return err
		}))
		l, _ = say(oidctest.Claims{"groups": groups("ops")})
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, w.admin(), l.Actor.ID) }))
	})
}
