package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/oauth2-proxy/mockoidc"

	"keyturn/internal/oidc/oidctest"
)

// A browser reads what a command prints, as a person does, and opens the first URL of a
// login in it, once.
type browser struct {
	t    testing.TB
	then func(url string) // what to do instead of opening it; may be nil

	mu   sync.Mutex
	text strings.Builder
	seen bool
	done sync.WaitGroup
}

var loginURL = regexp.MustCompile(`(?m)^  (http\S+)$`)

func (p *browser) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.text.Write(b)
	if found := loginURL.FindStringSubmatch(p.text.String()); found != nil && !p.seen {
		p.seen = true
		open := p.then
		if open == nil {
			open = p.browse
		}
		p.done.Go(func() { open(found[1]) })
	}
	return len(b), nil
}

// browse follows a URL to where it leads.
func (p *browser) browse(url string) {
	resp, err := http.Get(url)
	if err != nil {
		p.t.Error(err)
		return
	}
	defer resp.Body.Close()
	if text, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), "You can close this window") {
		p.t.Errorf("the browser shows %s %s, %v", resp.Status, text, err)
	}
}

// logIn runs a login that a person does something for.
func (w *world) logIn(then func(url string), args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), time.Minute)
	defer cancel()
	p := &browser{t: w.t, then: then}
	var out strings.Builder
	code = run(ctx, w.environ, append([]string{"login"}, args...), strings.NewReader(w.stdin), &out, p)
	p.done.Wait()
	return code, out.String(), p.text.String()
}

// People log in by their identity provider, and may do what it says.
func TestLoginByBrowser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	idp, err := mockoidc.Run()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = idp.Shutdown() })
	admin := w.env
	w.stdin = idp.ClientSecret + "\n"
	add := []string{"provider", "add", "corp", "--issuer", idp.Issuer(), "--client-id", idp.ClientID, "--client-secret-stdin"}
	for _, scope := range []string{"openid", "profile", "email", "groups"} {
		add = append(add, "--scope", scope)
	}
	out := w.ok(append(add, "--rule", "groups=ssh-admins -> Operator", "--rule", "groups=audit -> Auditor")...)
	if strings.Contains(out, idp.ClientSecret) || !strings.Contains(out, "groups=ssh-admins -> Operator") {
		t.Errorf("added\n%s", out)
	}
	w.stdin = ""
	if out := w.ok("provider", "test", "corp"); !strings.Contains(out, idp.AuthorizationEndpoint()) || !strings.Contains(out, "RS256") || !regexp.MustCompile(`public keys +1\n`).MatchString(out) {
		t.Errorf("tested\n%s", out)
	}
	if out := w.ok("provider", "list", "--json"); strings.Contains(out, idp.ClientSecret) || !strings.Contains(out, `"has_secret":true`) {
		t.Errorf("listed %s", out)
	}

	w.withoutCredential()
	alice := w.env
	user := func(name, subject string, groups ...string) {
		idp.QueueUser(&mockoidc.MockUser{Subject: subject, PreferredUsername: name, Groups: groups})
	}
	user("alice", "1", "staff", "ssh-admins")
	code, out, errs := w.logIn(nil)
	if code != 0 || !strings.HasPrefix(out, "logged in as alice until ") {
		t.Fatalf("login: %d, %s%s", code, out, errs)
	}
	var who whoJSON
	if w.json(&who, "whoami"); who.Name != "alice" || !slices.Equal(who.Roles, []string{"Operator"}) {
		t.Errorf("alice is %+v", who)
	}
	w.ok("key", "generate")
	w.refused(`"Users Write"`, "provider", "remove", "corp")
	w.env = admin
	if out := w.ok("user", "list"); !regexp.MustCompile(`alice +- +Operator +- +- +- +corp`).MatchString(out) {
		t.Errorf("the users are\n%s", out)
	}
	w.stdin = "a password of alice"
	w.refused(`by the identity provider "corp"`, "user", "password", "alice")
	w.stdin = ""

	w.env = alice
	user("alice", "1", "audit")
	if code, _, errs := w.logIn(nil, "--provider", "corp"); code != 0 {
		t.Fatal(errs)
	}
	w.refused(`"Keys Write"`, "key", "generate")
	for says, queue := range map[string]func(){
		`groups is ["guests"]`: func() { user("alice", "1", "guests") },
		`calls you "admin"`:    func() { user("admin", "2", "audit") },
	} {
		queue()
		if code, out, errs := w.logIn(nil); code == 0 || !strings.Contains(errs, says) {
			t.Errorf("login: %d, %s%s; want %q", code, out, errs, says)
		}
	}
	w.refused("hint: keyturn login", "whoami") // what claims gave is gone

	user("alice", "1", "audit")
	if code, _, errs := w.logIn(nil); code != 0 {
		t.Fatal(errs)
	}
	w.env = admin
	w.ok("provider", "remove", "corp")
	w.env = alice
	w.refused("hint: keyturn login", "whoami")
	w.refused("no identity provider", "login", "--provider", "corp")
	w.refused("without a terminal", "login") // there is none to log in by
}

// What a browser brings that is no answer to this login is refused, and the command
// goes on waiting for its own.
func TestLoginByBrowserIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	idp := oidctest.Start(t)
	w.stdin = oidctest.Secret
	w.ok("provider", "add", "corp", "--issuer", idp.URL, "--client-id", oidctest.ClientID, "--client-secret-stdin", "--rule", "groups=ops -> Operator")
	idp.Say(oidctest.Claims{"preferred_username": "alice", "groups": []string{"ops"}})
	w.withoutCredential()
	back := regexp.MustCompile(`redirect_uri=http%3A%2F%2F([0-9.]+)%3A([0-9]+)%2Fcallback%2F([0-9a-f]+)`)
	state := regexp.MustCompile(`state=([A-Z0-9]+)`)
	code, out, errs := w.logIn(func(url string) {
		to := back.FindStringSubmatch(url)
		if to == nil {
			t.Errorf("the login is at %s", url)
			return
		}
		for _, path := range []string{"/", "/callback", "/callback?code=stolen&state=x", "/callback?error=access_denied", "/callback/another?code=stolen&state=" + state.FindStringSubmatch(url)[1]} {
			resp, err := http.Get(fmt.Sprintf("http://%s:%s%s", to[1], to[2], path))
			if err != nil {
				t.Error(err)
				return
			}
			if resp.Body.Close(); resp.StatusCode != http.StatusNotFound {
				t.Errorf("%s is answered %s", path, resp.Status)
			}
		}
		(&browser{t: t}).browse(url)
	})
	if code != 0 || !strings.Contains(out, "logged in as alice") {
		t.Errorf("login: %d, %s%s", code, out, errs)
	}
	code, out, errs = w.logIn(func(url string) {
		to, of := back.FindStringSubmatch(url), state.FindStringSubmatch(url)
		resp, err := http.Get(fmt.Sprintf("http://%s:%s/callback/%s?error=access_denied&error_description=not+today&state=%s", to[1], to[2], to[3], of[1]))
		if err != nil {
			t.Error(err)
			return
		}
		resp.Body.Close()
	})
	if code != 1 || !strings.Contains(errs, "access_denied not today") {
		t.Errorf("refused: %d, %s%s", code, out, errs)
	}
}

// Where there is no browser, people log in with one on another device.
func TestLoginByDevice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	idp := oidctest.Start(t)
	w.stdin = oidctest.Secret
	w.ok("provider", "add", "corp", "--issuer", idp.URL, "--client-id", oidctest.ClientID, "--client-secret-stdin", "--rule", "groups=ops -> Operator")
	idp.Say(oidctest.Claims{"preferred_username": "alice", "groups": []string{"ops"}})
	idp.Device("authorization_pending")
	w.withoutCredential()
	code, out, errs := w.logIn(func(url string) {
		if url != idp.URL+"/activate" {
			t.Errorf("the person is sent to %s", url)
		}
	}, "--device")
	if code != 0 || !strings.Contains(out, "logged in as alice") || !strings.Contains(errs, "ABCD-EFGH") {
		t.Errorf("login: %d, %s%s", code, out, errs)
	}
	w.ok("key", "generate")
	idp.Device("expired_token")
	if code, _, errs := w.logIn(func(string) {}, "--device"); code != 1 || !strings.Contains(errs, "expired_token") {
		t.Errorf("too late: %d, %s", code, errs)
	}
}

// A pipeline exchanges the token of its platform, and needs no secret of ours.
func TestLoginOfMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	idp := oidctest.Start(t)
	admin := w.env
	w.ok("provider", "add", "ci", "--kind", "machines", "--issuer", idp.URL, "--audience", "https://keyturn.example.com",
		"--require", "repository=acme/infra", "--rule", "ref=refs/heads/* -> Operator")
	job := oidctest.Claims{"sub": "repo:acme/infra:ref:refs/heads/main", "repository": "acme/infra", "ref": "refs/heads/main"}
	token := idp.Token("https://keyturn.example.com", time.Now(), job)

	w.withoutCredential()
	w.refused("needs --provider", "login", "--jwt-stdin")
	w.refused("holds no token", "login", "--provider", "ci", "--jwt-stdin")
	for _, args := range [][]string{{"--user", "x", "--provider", "ci"}, {"--password-stdin", "--device"}, {"--provider", "ci", "--device", "--jwt-stdin"}} {
		if code, _, errs := w.try(append([]string{"login"}, args...)...); code != 2 || !strings.Contains(errs, "a login is by") {
			t.Errorf("login %q: %d, %s", args, code, errs)
		}
	}
	w.env["KEYTURN_OIDC_TOKEN"] = token
	w.refused("needs --provider", "login")
	w.ok("login", "--provider", "ci")
	delete(w.env, "KEYTURN_OIDC_TOKEN")
	var who whoJSON
	if w.json(&who, "whoami"); who.Kind != "machine" || who.Name != "ci/repo:acme/infra:ref:refs/heads/main" || !slices.Equal(who.Roles, []string{"Operator"}) || who.Until == nil || time.Until(*who.Until) > 30*time.Minute {
		t.Errorf("the job is %+v", who)
	}
	w.ok("key", "generate")
	w.refused(`"Tokens Write"`, "token", "create", "for-ever", "--permission", "Keys Read")
	w.refused("no user in person", "user", "totp", "enable")

	w.stdin = token
	var l loginJSON
	if w.json(&l, "login", "--provider", "ci", "--jwt-stdin"); !strings.HasPrefix(l.Token, "ktl_") || l.Kind != "machine" || l.Idle != "" {
		t.Errorf("login --json says %+v", l)
	}
	w.stdin = idp.Token("sts.amazonaws.com", time.Now(), job)
	w.refused(`not for ["https://keyturn.example.com"]`, "login", "--provider", "ci", "--jwt-stdin")
	w.stdin = idp.Token("https://keyturn.example.com", time.Now(), oidctest.Claims{"repository": "mallory/infra", "ref": "refs/heads/main"})
	w.refused("lets no machine in", "login", "--provider", "ci", "--jwt-stdin")

	with := w.env
	w.env = admin
	w.ok("provider", "remove", "ci")
	w.env = with
	w.refused("not valid", "whoami")
}

// A machine may do all, and makes nothing that would let somebody in when its hour is over.
func TestMachineMakesNothingThatOutlivesIt(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	idp := oidctest.Start(t)
	admin := w.env
	w.ok("provider", "add", "ci", "--kind", "machines", "--issuer", idp.URL, "--audience", "keyturn", "--rule", "sub=job -> Administrator")
	w.withoutCredential()
	w.stdin = idp.Token("keyturn", time.Now(), oidctest.Claims{"sub": "job"})
	w.ok("login", "--provider", "ci", "--jwt-stdin")
	w.stdin = ""
	w.refused("outlive", "account", "add", "two")
	w.refused("outlive", "role", "set", "all", "--permission", "All")
	w.refused("outlive", "provider", "remove", "ci")
	w.stdin = "a password of alice"
	w.refused("outlive", "user", "add", "alice", "--role", "Administrator", "--password-stdin")
	w.env = admin
	if out := w.ok("account", "list"); strings.Contains(out, "two") {
		t.Errorf("the accounts are\n%s", out)
	}
}
