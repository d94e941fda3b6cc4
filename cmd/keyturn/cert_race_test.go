package main

import (
	"net/http"
	"path/filepath"
	"sync"
	"testing"

	"keyturn/internal/need"
)

// Who asks without a pause while a token is revoked is left with no certificate: those
// that were asked for before are revoked with it, and there are none after.
func TestTokenIsRevokedWhileItAsks(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 0)
	w.ok("ca", "create", "people")
	w.ok("policy", "allow", "--user", "admin", "--host", "*", "--login", "deploy")
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	key := w.keyFile(filepath.Join(w.dir, "key"), "")
	body := `{"authority":"people","public_key":"` + key.String() + `","principals":["deploy"]}`
	for range 3 {
		var token tokenJSON
		w.json(&token, "token", "create", "own", "--permission", "All", "--personal")
		signed, asking := make(chan struct{}, 1000), sync.WaitGroup{}
		for range 12 {
			asking.Go(func() {
				for {
					if status, _, _ := w.ask(token.Token, http.MethodPost, "/certificates", body); status >= 300 {
						return
					}
					select {
					case signed <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 20 {
			<-signed
		}
		w.ok("token", "revoke", token.ID)
		asking.Wait()
		var left struct {
			Certificates []certificateJSON `json:"certificates"`
		}
		w.api(&left, http.MethodGet, "/certificates?limit=1000", nil)
		for _, c := range left.Certificates {
			if c.Revoked == "" {
				t.Errorf("certificate %s, of %s, outlives the token that asked for it", c.Serial, c.CreatedAt)
			}
		}
		if len(left.Certificates) < 20 {
			t.Errorf("only %d certificates are on record", len(left.Certificates))
		}
	}
}
