package main

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/oidc/oidctest"
)

// A policy that asks for a strong login lets in the login that was one, and neither
// another login of the same user, before or after it, nor a token.
func TestStrengthIsOfTheLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	i := oidctest.Start(t)
	w.ok("ca", "create", "people")
	key := filepath.Join(w.dir, "key.pub")
	w.write(key, "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIMPqa427N6RO3r6Y5QRHgZNutbjSYN+xoNRtzYmSYws x\n")
	w.ok("role", "set", "signer", "--permission", "Certificates Issue", "--permission", "Tokens Write")
	w.stdin = oidctest.Secret + "\n"
	var provider struct{ ID string }
	w.json(&provider, "provider", "add", "corp", "--issuer", i.URL, "--client-id", oidctest.ClientID, "--client-secret-stdin", "--rule", "g=x -> signer")
	w.stdin = ""
	w.api(nil, "POST", "/applications", map[string]any{
		"name": "all", "type": "infrastructure", "criteria": []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{"*"}}}},
		"policies": []any{
			map[string]any{"name": "hwk", "include": []string{"everyone"}, "require": []string{"auth_method:hwk"}, "logins": []string{"strong"}},
			map[string]any{"name": "level", "include": []string{"oidc:" + provider.ID + ":acr=high"}, "logins": []string{"high"}},
			map[string]any{"name": "address", "include": []string{"email:ceo@example.com"}, "logins": []string{"any"}},
		},
	})
	logIn := func(acr string, methods ...string) map[string]string {
		t.Helper()
		w.withoutCredential()
		i.Say(oidctest.Claims{"sub": "1", "preferred_username": "boss", "g": "x", "email": "ceo@example.com", "email_verified": true, "acr": acr, "amr": methods})
		if code, out, errs := w.logIn(nil, "--provider", "corp"); code != 0 {
			t.Fatal(code, out, errs)
		}
		return maps.Clone(w.env)
	}
	certified := func(what string, env map[string]string, want string) {
		t.Helper()
		w.env = env
		var got []string
		for _, login := range []string{"strong", "high", "any"} {
			code, _, errs := w.try("cert", "sign", "--ca", "people", "--public-key", key, "--principal", login)
			if code == 0 {
				got = append(got, login)
			} else if !strings.Contains(errs, "no certificate as") {
				t.Errorf("%s, as %s: %s", what, login, errs)
			}
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: certificates as %q, want %q", what, got, want)
		}
	}
	weak := logIn("low", "pwd")
	certified("a weak login", weak, "any")
	strong := logIn("high", "pwd", "hwk")
	certified("a strong login", strong, "strong high any")
	certified("the weak login, after a strong one", weak, "any")
	w.env = strong
	var token tokenJSON
	w.json(&token, "token", "create", "mine", "--permission", "Certificates Issue", "--personal")
	logIn("low", "pwd")
	certified("the strong login, after a weak one", strong, "strong high any")
	certified("a token that a strong login made", map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": token.Token}, "any")
}
