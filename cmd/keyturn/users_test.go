package main

import (
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
)

// A user is added, may do what the role says and no more, and is ended with all
// that the user has.
func TestUsers(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	admin := w.env
	w.stdin = "correct horse of alice\n"
	var alice userJSON
	w.json(&alice, "user", "add", "alice", "--role", "auditor", "--password-stdin")
	if alice.Name != "alice" || !alice.HasPassword || strings.Join(alice.Roles, ",") != "Auditor" || len(alice.Granted) != 0 {
		t.Errorf("added %+v", alice)
	}
	as := map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "alice", "KEYTURN_PASSWORD": "correct horse of alice"}
	refused := func(says string, args ...string) {
		t.Helper()
		if code, out, errs := w.try(args...); code == 0 || !strings.Contains(errs, says) {
			t.Errorf("keyturn %s: exit %d, %s%s; want %q", strings.Join(args, " "), code, out, errs, says)
		}
	}
	w.stdin = ""
	refused("standard input holds no password", "user", "add", "carol", "--role", "auditor", "--password-stdin")
	refused("standard input holds no password", "account", "add", "carols", "--password-stdin")
	w.env = as
	w.ok("host", "list")
	refused(`"Keys Write"`, "key", "generate")
	refused(`"Users Write"`, "user", "set", "alice", "--role", "Administrator")

	w.env = admin
	w.ok("role", "set", "on-call", "--permission", "Keys Write", "--permission", "Tokens Write")
	w.ok("user", "set", "alice", "--role", "on-call")
	w.env = as
	w.ok("key", "generate")
	refused(`"Hosts Read"`, "host", "list")
	var token, rotated tokenJSON
	w.json(&token, "token", "create", "laptop", "--permission", "Keys Read")
	w.json(&rotated, "token", "rotate", token.ID)
	if token.Owner != "alice" || rotated.ID != token.ID || rotated.Token == token.Token {
		t.Errorf("token %+v became %+v", token, rotated)
	}
	with := func(token string) map[string]string {
		return map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": token}
	}
	w.env = with(token.Token)
	refused("not valid", "key", "list")
	w.env = with(rotated.Token)
	w.ok("key", "list")
	w.env = admin
	w.ok("role", "set", "on-call", "--permission", "Tokens Write")
	w.env = with(rotated.Token)
	refused(`"Keys Read"`, "key", "list")

	// Users change their own password, and need no permission for it.
	w.env, w.stdin = as, "another horse of alice"
	w.ok("user", "password", "alice")
	refused("not valid", "token", "list")
	as["KEYTURN_PASSWORD"] = "another horse of alice"
	refused(`"Hosts Read"`, "host", "list", "--json")
	refused(`"Users Write"`, "user", "password", "admin")

	// A second factor.
	w.stdin = ""
	var offered struct{ Secret, URL string }
	w.json(&offered, "user", "totp", "enable")
	if out := w.ok("user", "totp", "enable"); !strings.Contains(out, "█") || !strings.Contains(out, "otpauth://totp/Keyturn:alice?") || strings.Contains(out, offered.Secret) {
		t.Errorf("a second factor is shown as\n%s", out)
	}
	w.json(&offered, "user", "totp", "enable")
	refused("not the code", "user", "totp", "confirm", "000000")
	code := func(at time.Time) string {
		c, err := totp.GenerateCode(offered.Secret, at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	w.ok("user", "totp", "confirm", code(time.Now()))
	refused("second factor", "token", "list")
	as["KEYTURN_TOTP"] = "000000"
	refused("not valid", "token", "list")
	as["KEYTURN_TOTP"] = code(time.Now().Add(30 * time.Second)) // the present one has been used
	w.ok("token", "create", "with-code", "--permission", "Tokens Write")
	refused(`"Users Write"`, "user", "totp", "remove", "admin")

	w.env = admin
	if out := w.ok("user", "list"); !strings.Contains(out, "alice  -      on-call") || !strings.Contains(out, "admin") {
		t.Errorf("the users are\n%s", out)
	}
	refused("has the role", "role", "remove", "on-call")
	w.ok("user", "remove", "alice")
	w.ok("role", "remove", "on-call")
	for _, env := range []map[string]string{as, with(rotated.Token)} {
		w.env = env
		refused("not valid", "account", "show")
	}
	w.env = admin
	refused("nobody would be left", "user", "remove", "admin")
	w.stdin = ""
	refused("standard input holds no password", "user", "password", "admin")
}

// What the server knows completes on the command line.
func TestCompletionFromTheServer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	w.ok("discovery", "create", "nightly", "--every", "24h", "web1")
	for want, args := range map[string][]string{
		"web1":      {"host", "show", ""},
		"127.0.0.1": {"target", "set", ""},
		"nightly":   {"discovery", "show", ""},
		"admin":     {"user", "show", ""},
		"Operator":  {"user", "add", "x", "--role", ""},
		"Keys Read": {"user", "add", "x", "--permission", ""},
	} {
		if out := w.ok(append([]string{"__complete"}, args...)...); !strings.Contains(out, want) {
			t.Errorf("keyturn %s completes to\n%s", strings.Join(args, " "), out)
		}
	}
}
