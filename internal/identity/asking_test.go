package identity

import (
	"slices"
	"testing"
	"time"

	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A credential that was looked at before it ended does not stand in a transaction after.
// By a password or a token nobody has logged in, and nothing is said.
func TestAskingStands(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		token, text, err := w.createToken(admin, NewToken{Name: "own", Permissions: []Permission{TokensWrite}})
		must(t, err)
		by, err := w.Token(t.Context(), text, "")
		must(t, err)
		asking := func(a Actor) (k Known, err error) {
			err = w.update(w.tenant, func(tx *store.Tx) error {
				k, err = w.Asking(tx, a)
				return err
			})
			return k, err
		}
		for _, a := range []Actor{admin, by} {
			if k, err := asking(a); err != nil || k.ID != admin.ID || k.Name != admin.Name || k.Said.Provider != "" || k.Said.Claims != nil {
				t.Errorf("%s %s is %+v, %v", a.Kind, a.Name, k, err)
			}
		}
		rotated := func(overlap time.Duration) (text string) {
			must(t, w.update(w.tenant, func(tx *store.Tx) (err error) {
				_, text, err = w.RotateToken(tx, admin, token.ID, overlap)
				return err
			}))
			return text
		}
		text = rotated(time.Minute)
		if _, err := asking(by); err != nil {
			t.Errorf("by the old text, before the overlap has ended: %v", err)
		}
		w.clock.Advance(time.Minute)
		_, err = asking(by)
		wantKind(t, "by the old text, after it", err, trust.Unauthenticated)
		by, err = w.Token(t.Context(), text, "")
		must(t, err)
		rotated(0)
		_, err = asking(by)
		wantKind(t, "by the old text, without an overlap", err, trust.Unauthenticated)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			_, err := w.RevokeToken(tx, token.ID)
			return err
		}))
		nobody, ended, machine := admin, admin, Actor{Tenant: w.tenant, Kind: "machine", webLogin: "ended"}
		nobody.ID, ended.webLogin = token.ID, "ended"
		for _, a := range []Actor{by, nobody, ended, machine} {
			_, err := asking(a)
			wantKind(t, a.Kind+" "+a.Name+" that ended", err, trust.Unauthenticated)
		}
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
	})
}
