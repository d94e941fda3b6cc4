package main

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// A rule by an address holds of a user of our own who was given it, in person and by a
// token that asks as the user, and of no other token.
func TestPolicyByAddress(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var alice userJSON
	w.stdin = "a long password of alice"
	w.json(&alice, "user", "add", "alice", "--password-stdin", "--email", "Alice@Example.com", "--permission", "Certificates Issue", "--permission", "Tokens Write")
	if alice.Email != "Alice@Example.com" {
		t.Errorf("added %+v", alice)
	}
	if code, _, errs := w.try("user", "add", "eve", "--role", "Auditor", "--email", "alice@example.com"); code == 0 || !strings.Contains(errs, `user "alice" has the address`) {
		t.Error(code, errs)
	}
	w.api(nil, "POST", "/applications", map[string]any{
		"name": "servers", "type": "infrastructure", "criteria": []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{"*"}}}},
		"policies": []any{
			map[string]any{"name": "alice", "include": []string{"email:alice@example.com"}, "logins": []string{"deploy"}},
			map[string]any{"name": "password", "include": []string{"email:alice@example.com"}, "require": []string{"auth_method:pwd"}, "logins": []string{"root"}},
		},
	})
	test := func(allowed bool, why, login string) {
		t.Helper()
		var d loginDecisionJSON
		w.json(&d, "policy", "test", "--host", "web1", "--user", "alice", "--login", login)
		if d.Allowed != allowed || !strings.Contains(d.Why, why) {
			t.Errorf("%+v; want %v, %s", d, allowed, why)
		}
	}
	test(true, "includes email:alice@example.com", "deploy")
	w.json(&alice, "user", "email", "alice", "--none")
	test(false, "includes email:alice@example.com, and what that asks for is not known of who asks", "deploy")
	w.json(&alice, "user", "email", "alice", "ALICE@example.com")

	w.ok("ca", "create", "people")
	key := filepath.Join(t.TempDir(), "id.pub")
	w.write(key, someEd25519+"\n")
	admin := w.env
	person := map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "alice", "KEYTURN_PASSWORD": w.stdin}
	w.stdin = ""
	token := func(args ...string) map[string]string {
		t.Helper()
		w.env = person
		text := strings.TrimSpace(w.ok(append([]string{"token", "create", "t", "--permission", "Certificates Issue", "--permission", "Tokens Write"}, args...)...))
		return map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": text}
	}
	machine, own := token(), token("--personal")
	sign := func(env map[string]string, login, refused string) {
		t.Helper()
		w.env = env
		code, _, errs := w.try("cert", "sign", "--ca", "people", "--public-key", key, "--principal", login)
		if (code == 0) != (refused == "") || !strings.Contains(errs, refused) {
			t.Errorf("as %s: exit %d, %s; want %q", login, code, errs, refused)
		}
	}
	sign(person, "deploy", "")
	sign(person, "root", "")
	sign(own, "deploy", "")
	sign(own, "root", `lets in as deploy, not as "root"`)
	sign(machine, "deploy", "no policy that includes t")
	if code, _, errs := w.try("token", "create", "more", "--permission", "Tokens Write", "--personal"); code == 0 || !strings.Contains(errs, "asks in its own name") {
		t.Errorf("a token of its own made one that asks as its owner: exit %d, %s", code, errs)
	}
	w.env = admin
	w.stdin = "a long password of bob"
	w.ok("user", "add", "bob", "--password-stdin", "--email", "bob@example.com", "--permission", "Certificates Issue")
	bob := map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "bob", "KEYTURN_PASSWORD": w.stdin}
	w.stdin = ""
	w.ok("policy", "allow", "--user", "bob", "--host", "*", "--login", "deploy")
	sign(bob, "deploy", "")
	w.env = admin
	w.ok("user", "remove", "bob")
	if text := w.ok("cert", "list", "--json"); strings.Count(text, "the user was removed") != 1 {
		t.Errorf("with their user gone the certificates are\n%s", text)
	}

	// The address is a name that Cloudflare's clients have.
	for address, want := range map[string]int{"alice@EXAMPLE.com": http.StatusForbidden, "alice@example.org": http.StatusForbidden} {
		status, text := w.send("GET", "/client/v4/accounts/"+w.account().ID+"/infrastructure/targets", "", headers("X-Auth-Email", address, "X-Auth-Key", own["KEYTURN_TOKEN"]))
		known := strings.Contains(text, `"code":10000`) // and lacks the permission
		if status != want || known != (address == "alice@EXAMPLE.com") {
			t.Errorf("%s: %d %s", address, status, text)
		}
	}
}
