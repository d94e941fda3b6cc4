package main

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/api"
)

// refused runs a command that must fail, and say so.
func (w *world) refused(says string, args ...string) {
	w.t.Helper()
	if code, out, errs := w.try(args...); code == 0 || !strings.Contains(out+errs, says) {
		w.t.Errorf("keyturn %s: exit %d, %s%s; want %q", strings.Join(args, " "), code, out, errs, says)
	}
}

// withoutCredential gives commands an environment without a credential, and returns where they
// keep one.
func (w *world) withoutCredential() (file string) {
	config := w.t.TempDir()
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "XDG_CONFIG_HOME": config}
	return filepath.Join(config, "keyturn", "credentials.json")
}

// Whoever logs in is who the commands that follow ask as, until the login ends.
func TestLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.stdin = "correct horse of alice"
	w.ok("user", "add", "alice", "--role", "Auditor", "--password-stdin")
	file := w.withoutCredential()
	w.refused("hint: keyturn login", "whoami")
	w.refused("there is no login", "logout")
	w.refused("--password-stdin", "login", "--user", "alice")
	w.stdin = "wrong horse"
	w.refused("not valid", "login", "--user", "alice", "--password-stdin")
	w.stdin = "correct horse of alice"
	if out := w.ok("login", "--user", "alice", "--password-stdin"); !strings.HasPrefix(out, "logged in as alice until ") {
		t.Errorf("login says %s", out)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the login is kept in %v, %v", info, err)
	}
	if left, err := filepath.Glob(file + ".*"); err != nil || len(left) > 0 {
		t.Errorf("beside the file there are %q, %v", left, err)
	}
	var who whoJSON
	w.json(&who, "whoami")
	if who.Name != "alice" || who.Kind != "user" || who.Account.Name != "default" || strings.Join(who.Roles, ",") != "Auditor" || len(who.Permissions) < 5 ||
		who.Until == nil || time.Until(*who.Until) > 12*time.Hour || time.Until(*who.Until) < 11*time.Hour {
		t.Errorf("alice is %+v", who)
	}
	w.ok("user", "list")
	w.refused(`"Users Write"`, "role", "set", "x", "--permission", "Keys Read")

	// A password of the environment is taken as other commands take it: by who it is of.
	w.env["KEYTURN_PASSWORD"] = "correct horse of alice"
	w.stdin = "wrong horse"
	w.ok("login", "--user", "alice")
	w.refused("not valid", "login", "--user", "alice", "--password-stdin")
	w.env["KEYTURN_USER"] = "alice"
	w.ok("login", "--user", "alice")
	w.env["KEYTURN_USER"] = "admin"
	w.refused("KEYTURN_PASSWORD in the environment", "login", "--user", "alice")
	delete(w.env, "KEYTURN_USER")
	w.refused("--user has to be given", "login")
	delete(w.env, "KEYTURN_PASSWORD")

	// What the environment says goes before it.
	login := w.env
	w.env = map[string]string{"XDG_CONFIG_HOME": login["XDG_CONFIG_HOME"], "KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": w.token}
	var token whoJSON
	if w.json(&token, "whoami"); token.Kind != "token" || token.Name != "test" || token.Until != nil {
		t.Errorf("KEYTURN_TOKEN is %+v", token)
	}
	if status, p, _ := w.ask(w.token, "POST", "/logout", ""); status != 409 || !strings.Contains(p.Detail, "has not logged in") {
		t.Errorf("an API token logs out: %d %+v", status, p)
	}
}

// Behind a trusted proxy each client is at its own address: one who tries wrong passwords
// slows down nobody else, and cannot say that it is somebody else.
func TestLoginBehindAProxy(t *testing.T) {
	t.Parallel()
	w := newServers(t, 0)
	w.tune = func(c *config) {
		c.proxies = api.Proxies{Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Header: api.XForwardedFor}
	}
	w.start()
	status := func(from, password string) (status int) {
		status, _ = w.send("POST", "/api/v1/login/password", `{"user":"admin","password":"`+password+`"}`, headers(api.XForwardedFor, from))
		return status
	}
	tried := 0
	for ; status(fmt.Sprintf("192.0.2.%d, 192.0.2.1", 100+tried), "wrong horse") == 401; tried++ {
		if tried == 50 {
			t.Fatal("50 wrong passwords from one address, as somebody else each time, and it may go on")
		}
	}
	if got := status("192.0.2.2", testPassword); got >= 300 || tried < 5 {
		t.Errorf("the right password from elsewhere, after %d wrong ones: %d", tried, got)
	}
}

// Who is a proxy is said exactly, or the server does not start.
func TestBadProxies(t *testing.T) {
	t.Parallel()
	w := newServers(t, 0)
	for says, args := range map[string][]string{
		`"10.0.0.0/33" is neither`: {"--trusted-proxy", "10.0.0.0/33"},
		`"proxy" is neither`:       {"--trusted-proxy", "127.0.0.1", "--trusted-proxy", "proxy"},
		"::/0 is everybody":        {"--trusted-proxy", "::/0"},
		`"X-Real-IP" is neither`:   {"--proxy-header", "X-Real-IP"},
	} {
		args = append([]string{"serve", "--data", w.dir + "/none"}, args...)
		if code, _, errs := w.try(args...); code != 2 || !strings.Contains(errs, says) {
			t.Errorf("%q: %d, %s; want %s", args, code, errs, says)
		}
	}
}

// A login ends by logging out, with the user's password, and by itself; a file of
// logins that others can read is not believed.
func TestLoginEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	admin := w.env
	w.stdin = "correct horse of alice"
	w.ok("user", "add", "alice", "--role", "Auditor", "--password-stdin")
	file := w.withoutCredential()
	login := func() (l loginJSON) {
		w.json(&l, "login", "--user", "alice", "--password-stdin")
		return l
	}
	as := w.env
	with := func(token string) map[string]string {
		return map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": token}
	}

	first := login()
	if !strings.HasPrefix(first.Token, "ktl_") || first.Name != "alice" || first.Idle != "2h0m0s" {
		t.Errorf("login --json says %+v", first)
	}
	w.env = with(first.Token)
	w.ok("whoami")
	w.env = as
	w.ok("logout")
	w.refused("hint: keyturn login", "whoami")
	w.env = with(first.Token)
	w.refused("not valid", "whoami")

	w.env = as
	second := login()
	w.env = admin
	w.stdin = "another horse of alice"
	w.ok("user", "password", "alice")
	w.env = as
	w.refused("hint: keyturn login", "user", "list")
	w.ok("logout") // of what has ended
	w.stdin = "another horse of alice"
	third, fourth := login(), login() // over another
	w.env = with(third.Token)
	w.refused("not valid", "whoami")
	w.env = with(fourth.Token)
	w.ok("whoami")
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server}
	w.stdin = "a wrong horse" // which is not asked for
	w.refused("no place to keep a login", "login", "--user", "alice", "--password-stdin")
	w.stdin = ""
	w.env = admin
	w.ok("user", "remove", "alice")
	w.env = as
	w.refused("hint: keyturn login", "user", "list")
	if second.Token == first.Token {
		t.Error("two logins are one")
	}

	past := time.Now().Add(-time.Minute)
	data, err := json.Marshal(savedLogins{Servers: map[string]savedLogin{w.client.server: {Token: second.Token, User: "alice", Until: &past}}})
	if err != nil {
		t.Fatal(err)
	}
	w.write(file, string(data))
	w.refused("the login as alice has ended", "whoami")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	w.refused("can be read by others", "whoami")
}

// Logins at several servers at the same time are all kept.
func TestLoginsAtOnce(t *testing.T) {
	t.Parallel()
	config := t.TempDir()
	env := func(name string) string { return map[string]string{"XDG_CONFIG_HOME": config}[name] }
	var group errgroup.Group
	for n := range 20 {
		group.Go(func() error {
			return changeLogins(env, func(servers map[string]savedLogin) { servers[fmt.Sprint(n)] = savedLogin{Token: "x"} })
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if all, err := readLogins(env); err != nil || len(all.Servers) != 20 {
		t.Errorf("of 20 logins there are kept %v, %v", all.Servers, err)
	}
}

// A login has the code of the second factor, once for all commands that follow.
func TestLoginWithCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.stdin = "correct horse of alice"
	w.ok("user", "add", "alice", "--role", "Auditor", "--password-stdin")
	w.withoutCredential()
	w.ok("login", "--user", "alice", "--password-stdin")
	var offered struct{ Secret, URL string }
	w.json(&offered, "user", "totp", "enable")
	code := func(at time.Time) string {
		c, err := totp.GenerateCode(offered.Secret, at)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	w.ok("user", "totp", "confirm", code(time.Now()))
	w.refused("hint: keyturn login", "whoami")
	w.refused("second factor", "login", "--user", "alice", "--password-stdin")
	w.env["KEYTURN_TOTP"] = code(time.Now().Add(30 * time.Second)) // the present one has been used
	w.ok("login", "--user", "alice", "--password-stdin")
	delete(w.env, "KEYTURN_TOTP")
	w.ok("user", "list")
}
