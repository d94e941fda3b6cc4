package identity

import (
	"testing"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A credential that was looked at before it ended does not stand in a transaction after.
func TestStands(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		token, text, err := w.createToken(admin, NewToken{Name: "own", Permissions: []Permission{TokensWrite}})
		must(t, err)
		by, err := w.Token(t.Context(), text, "")
		must(t, err)
		stands := func(a Actor) error {
			return w.update(w.tenant, func(tx *store.Tx) error { return w.Stands(tx, a) })
		}
		for _, a := range []Actor{admin, by} {
			if err := stands(a); err != nil {
				t.Errorf("%s %s does not stand: %v", a.Kind, a.Name, err)
			}
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			_, err := w.RevokeToken(tx, token.ID)
			return err
		}))
		nobody, ended, machine := admin, admin, Actor{Tenant: w.tenant, Kind: "machine", webLogin: "ended"}
		nobody.ID, ended.webLogin = token.ID, "ended"
		for _, a := range []Actor{by, nobody, ended, machine} {
			if err := stands(a); trust.KindOf(err) != trust.Unauthenticated {
				t.Errorf("%s %s stands: %v", a.Kind, a.Name, err)
			}
		}
	})
}
