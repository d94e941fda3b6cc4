package identity

import (
	"slices"
	"strings"
	"testing"

	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/store"
	"keyturn/internal/trust"
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

// What a provider said at a login is of that login: another of the same user, on whichever
// node, that proved more or less, changes nothing of it. It ends with the login.
func TestAsking(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		other, err := open(w.store, w.keyring, Options{Now: w.clock.Now}, cheap)
		must(t, err)
		logIn := func(methods ...string) LoginToken {
			t.Helper()
			i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops"), "amr": groups(methods...)}))
			l, err := w.logIn()
			must(t, err)
			return l
		}
		methods := func(d *Directory, l LoginToken) []string {
			t.Helper()
			actor, err := d.Bearer(t.Context(), l.Text, "192.0.2.1")
			must(t, err)
			var k Known
			must(t, w.view(func(tx *store.Tx) (err error) {
				k, err = d.Asking(tx, actor)
				return err
			}))
			if k.ID != actor.Owner || k.Said.Provider == "" || !slices.Equal(k.Said.Claims["groups"], groups("ops")) {
				t.Errorf("asking is %+v", k)
			}
			return k.Said.Claims["amr"]
		}
		weak := logIn("pwd")
		strong := logIn("pwd", "hwk")
		last := logIn("pwd")
		for name, d := range map[string]*Directory{"the node of the logins": w.Directory, "another node": other} {
			for _, c := range []struct {
				login LoginToken
				want  []string
			}{{weak, groups("pwd")}, {strong, groups("pwd", "hwk")}, {last, groups("pwd")}} {
				if got := methods(d, c.login); !slices.Equal(got, c.want) {
					t.Errorf("by %s: %q, want %q", name, got, c.want)
				}
			}
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			for what, by := range map[string]Actor{"a password": w.admin(), "a token": {Tenant: w.tenant, Kind: "token", Owner: weak.Actor.ID, Personal: true}} {
				if k, err := w.Asking(tx, by); err != nil || k.ID != by.Owner || k.Said.Provider != "" || k.Said.Claims != nil {
					t.Errorf("by %s: %+v, %v", what, k, err)
				}
			}
			_, err := w.Asking(tx, Actor{Tenant: w.tenant, Kind: "token", Owner: strings.Repeat("0", 32), Personal: true})
			wantKind(t, "who was removed", err, trust.Unauthenticated)
			return nil
		}))
	})
}
