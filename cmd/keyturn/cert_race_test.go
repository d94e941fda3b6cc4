package main

import (
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/oidc/oidctest"
)

// Who asks without a pause while what lets him in is taken away is left with no
// certificate: those that were asked for before are revoked with it, and there are none
// after.
func TestCredentialEndsWhileItAsks(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 0)
	w.ok("ca", "create", "people")
	w.ok("ca", "create", "hosts", "--purpose", "host")
	w.ok("policy", "allow", "--user", "admin", "--host", "*", "--login", "deploy")
	w.ok("role", "set", "signer", "--permission", "Certificates Issue", "--permission", "Hosts Write")
	issuer := oidctest.Start(t)
	key := w.keyFile(filepath.Join(w.dir, "key"), "")
	of := func(ca, principal string) string {
		return `{"authority":"` + ca + `","public_key":"` + key.String() + `","principals":["` + principal + `"]}`
	}
	admin := map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	for _, one := range []struct {
		what, body string
		begin      func() (token string, end []string)
	}{
		{"a token", of("people", "deploy"), func() (string, []string) {
			var token tokenJSON
			w.json(&token, "token", "create", "own", "--permission", "All", "--personal")
			return token.Token, []string{"token", "revoke", token.ID}
		}},
		{"a user who is removed", of("hosts", "web1"), func() (string, []string) {
			carol := w.user("carol", "Certificates Issue", "Hosts Write")
			w.withoutCredential()
			var l loginJSON
			w.stdin = carol["KEYTURN_PASSWORD"]
			w.json(&l, "login", "--user", "carol", "--password-stdin")
			w.stdin, w.env = "", admin
			return l.Token, []string{"user", "remove", "carol"}
		}},
		{"a machine whose provider is removed", of("hosts", "web1"), func() (string, []string) {
			w.ok("provider", "add", "ci", "--kind", "machines", "--issuer", issuer.URL, "--audience", "keyturn", "--rule", "sub=job -> signer")
			w.withoutCredential()
			var l loginJSON
			w.stdin = issuer.Token("keyturn", time.Now(), oidctest.Claims{"sub": "job"})
			w.json(&l, "login", "--provider", "ci", "--jwt-stdin")
			w.stdin, w.env = "", admin
			return l.Token, []string{"provider", "remove", "ci"}
		}},
	} {
		for range 3 {
			w.env = admin
			token, end := one.begin()
			before := len(w.certificates())
			signed, asking := make(chan struct{}, 1000), sync.WaitGroup{}
			for range 12 {
				asking.Go(func() {
					for {
						if status, p, _ := w.ask(token, http.MethodPost, "/certificates", one.body); status >= 300 {
							if status != http.StatusUnauthorized {
								t.Errorf("%s is answered %d %+v", one.what, status, p)
							}
							return
						}
						select {
						case signed <- struct{}{}:
						default:
						}
					}
				})
			}
			go func() { asking.Wait(); close(signed) }()
			for range 20 {
				<-signed
			}
			w.ok(end...)
			asking.Wait()
			left := w.certificates()
			for _, c := range left {
				if c.Revoked == "" {
					t.Errorf("%s leaves certificate %s, of %s", one.what, c.Serial, c.CreatedAt)
				}
			}
			if len(left)-before < 20 {
				t.Errorf("%s had only %d certificates", one.what, len(left)-before)
			}
		}
	}
}

// certificates returns those on record.
func (w *world) certificates() []certificateJSON {
	w.t.Helper()
	var list []certificateJSON
	w.json(&list, "cert", "list")
	return list
}
