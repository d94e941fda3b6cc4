package main

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// A flare is a client of Cloudflare's wire.
type flare struct {
	w       *world
	account string
	header  http.Header
}

// cloudflare returns a client with a token that may do everything.
func (w *world) cloudflare() flare {
	w.t.Helper()
	return flare{w, w.account().ID, headers("Authorization", "Bearer "+w.token)}
}

func (w *world) account() (a accountJSON) {
	w.t.Helper()
	w.json(&a, "account", "show")
	return a
}

// do sends a request; "{account}" in path is the client's account.
func (c flare) do(method, path, body string) (status int, text string) {
	c.w.t.Helper()
	status, text = c.w.send(method, "/client/v4"+strings.ReplaceAll(path, "{account}", c.account), body, c.header)
	return status, strings.TrimSpace(text)
}

func (c flare) with(pairs ...string) flare {
	c.header = headers(pairs...)
	return c
}

// Each of Cloudflare's three ways to say who asks, all at once, and what each wrong
// one is told.
func TestCloudflareCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	var token tokenJSON
	w.json(&token, "token", "create", "flare", "--permission", "Zero Trust Read", "--expires", "24h")
	w.stdin = testPassword + "\n"
	w.ok("user", "add", "bob@example.com", "--permission", "Zero Trust Read", "--permission", "Tokens Write", "--password-stdin")
	w.stdin = ""
	bobs := w.find(`"token":"(kt_[^"]+)"`, "POST", "/api/v1/tokens", `{"name":"bobs","permissions":["Zero Trust Read"]}`, headers("Authorization", basic("bob@example.com", testPassword)))

	expires := w.find(`"name":"flare",[^}]*"expires_at":"([^"]+)"`, "GET", "/api/v1/tokens", "", headers("Authorization", "Bearer "+w.token))
	valid := fmt.Sprintf(`{"result":{"id":%q,"status":"active","expires_on":%q},"success":true,"errors":[],"messages":[{"code":10000,"message":"This API Token is valid and active","type":null}]}`, token.ID, expires)
	for _, path := range []string{"/user/tokens/verify", "/accounts/{account}/tokens/verify"} {
		for name, client := range map[string]flare{
			"Bearer": c.with("Authorization", "Bearer "+token.Token), "bearer": c.with("Authorization", "bearer "+token.Token),
			"all at once":          c.with("Authorization", "Bearer "+token.Token, "X-Auth-Email", "bob@example.com", "X-Auth-Key", bobs, "X-Auth-User-Service-Key", "x"),
			"Bearer counts":        c.with("Authorization", "Bearer "+token.Token, "X-Auth-Email", "nobody", "X-Auth-Key", "144c9defac04969c7bfad8ad631dea35"),
			"what SDKs send along": c.with("Authorization", "Bearer "+token.Token, "api-version", "2026-11-22", "X-Stainless-Retry-Count", "0", "Accept", "*/*"),
		} {
			if status, text := client.do("GET", path, ""); status != 200 || text != valid {
				t.Errorf("%s at %s: %d %s, want %s", name, path, status, text, valid)
			}
		}
		if status, text := c.with("Authorization", "Bearer "+token.Token[:len(token.Token)-1]+"_").do("GET", path, ""); status != 401 || !strings.Contains(text, `{"code":1000,"message":"Invalid API Token"}`) {
			t.Errorf("an unknown token at %s: %d %s", path, status, text)
		}
	}
	if status, text := c.with("Authorization", "Bearer "+token.Token, "X-Auth-Key", bobs).do("GET", "/accounts/"+strings.Repeat("0", 32)+"/tokens/verify", ""); status != 403 || !strings.Contains(text, `{"code":10000,"message":"Authentication error"}`) {
		t.Errorf("another account: %d %s", status, text)
	}
	w.ok("token", "revoke", token.ID)
	if status, _ := c.with("Authorization", "Bearer "+token.Token).do("GET", "/user/tokens/verify", ""); status != 401 {
		t.Errorf("a revoked token: %d", status)
	}
}
