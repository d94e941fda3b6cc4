package main

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp/totp"

	"keyturn/internal/need"
)

// A cf is a client of CFEngine's API, with one way to log in.
type cf struct {
	w      *world
	header http.Header
}

func (c cf) do(method, path, body string) (status int, text string, header http.Header) {
	c.w.t.Helper()
	req, err := http.NewRequestWithContext(c.w.t.Context(), method, c.w.client.server+path, strings.NewReader(body))
	if err != nil {
		c.w.t.Fatal(err)
	}
	req.Header = c.header.Clone()
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		c.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		c.w.t.Fatal(err)
	}
	return resp.StatusCode, strings.TrimSpace(string(data)), resp.Header
}

// with returns the client with another header.
func (c cf) with(name, value string) cf {
	h := c.header.Clone()
	h.Set(name, value)
	return cf{c.w, h}
}

// want calls, and compares the status and the whole text, or a part of it between
// dots.
func (c cf) want(method, path, body string, status int, text string) {
	c.w.t.Helper()
	got, answer, _ := c.do(method, path, body)
	part, ok := strings.CutPrefix(text, "...")
	if got != status || !ok && answer != text || !strings.Contains(answer, strings.TrimSuffix(part, "...")) {
		c.w.t.Errorf("%s %s %s: got %d %s, want %d %s", method, path, body, got, answer, status, text)
	}
}

func newCF(w *world) cf { return cf{w, http.Header{}} }

// basic logs in by a password.
func (c cf) basic(user, password string) cf {
	r := http.Request{Header: http.Header{}}
	r.SetBasicAuth(user, password)
	return c.with("Authorization", r.Header.Get("Authorization"))
}

// The documented exchanges of CFEngine's SSH key API, by its own command lines.
func TestCFEngine(t *testing.T) {
	t.Parallel()
	need.Long(t)
	keygen, curl := need.Program(t, "ssh-keygen", "openssh-client"), need.Program(t, "curl", "curl")
	w := newWorld(t, 1)
	ask := func(args ...string) (head, body string) {
		t.Helper()
		out, err := exec.CommandContext(t.Context(), curl, append([]string{"--silent", "--show-error", "--include", "--user", "admin:" + testPassword}, args...)...).Output()
		if err != nil {
			t.Fatalf("curl %q: %v", args, err)
		}
		head, body, _ = strings.Cut(string(out), "\r\n\r\n")
		return head, strings.TrimSpace(body)
	}
	url := w.client.server + "/api/ssh-key"
	if head, body := ask(url); !strings.HasPrefix(head, "HTTP/1.1 200 ") || body != "[]" {
		t.Errorf("before there is a key: %s\n%s", head, body)
	}
	begun := time.Now().UTC().Truncate(time.Microsecond)
	head, first := ask("--request", "POST", url)
	match := regexp.MustCompile(`^\{"id":1,"public_key":"(ssh-rsa [A-Za-z0-9+/]+=* generated-by-cfengine-ssh-api)"\}$`).FindStringSubmatch(first)
	if match == nil || !strings.HasPrefix(head, "HTTP/1.1 200 ") || !strings.Contains(head, "Content-Type: application/json") {
		t.Fatalf("POST: %s\n%s", head, first)
	}
	line := match[1]
	file := filepath.Join(t.TempDir(), "key.pub")
	w.write(file, line+"\n")
	if out, err := exec.Command(keygen, "-lf", file).CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "4096 SHA256:") || !strings.HasSuffix(string(out), " generated-by-cfengine-ssh-api (RSA)\n") {
		t.Errorf("ssh-keygen -l: %v %s", err, out)
	}
	_, one := ask(url + "/1")
	match = regexp.MustCompile(`^\{"id":1,"public_key":"([^"]+)","generated_by":"admin","generated_at":"([^"]+)"\}$`).FindStringSubmatch(one)
	if match == nil || match[1] != line {
		t.Fatalf("GET one: %s", one)
	}
	made, err := time.Parse("2006-01-02 15:04:05.999999-07", match[2])
	if err != nil || made.Before(begun) || made.After(time.Now()) || !strings.HasSuffix(match[2], "+00") {
		t.Errorf("generated_at is %q: %v", match[2], err)
	}

	// A token's key is its owner's.
	anyone := newCF(w)
	token := anyone.with("Authorization", "Bearer "+w.token)
	status, second, _ := token.do("POST", "/api/ssh-key", "")
	if status != 200 || !strings.HasPrefix(second, `{"id":2,"public_key":"ssh-rsa `) {
		t.Fatalf("POST by a token: %d %s", status, second)
	}
	w.ok("key", "generate", "--comment", "of another door")
	var two struct {
		PublicKey string `json:"public_key"`
	}
	if err := json.Unmarshal([]byte(second), &two); err != nil {
		t.Fatal(err)
	}
	_, text, _ := token.do("GET", "/api/ssh-key/2", "")
	if !strings.Contains(text, `"generated_by":"admin"`) {
		t.Errorf("a key made by a token: %s", text)
	}
	all := "[" + one + "," + text + "]"
	token.want("GET", "/api/ssh-key", "", 200, all)
	token.want("GET", "/api/ssh-key?page=2&count=1&skip=1&limit=1", "", 200, all)

	// What is wrong makes nothing and deletes nothing.
	for _, bad := range []struct {
		method, path, body string
		status             int
		text               string
	}{
		{"GET", "/api/ssh-key/999999", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/0", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/-1", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/two", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/2.0", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/%32%2f1", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/2%00", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/2'%20OR%201=1", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/99999999999999999999999999", "", 404, "SSH key not found"},
		{"GET", "/api/ssh-key/" + w.key(w.parse(line)).UUID, "", 404, "SSH key not found"},
		{"DELETE", "/api/ssh-key/999999", "", 404, "SSH key not found"},
		{"DELETE", "/api/ssh-key/two", `{"id":2}`, 404, "SSH key not found"},
		{"DELETE", "/api/ssh-key/", "", 404, "...not found..."},
		{"DELETE", "/api/ssh-key", "", 405, "Method Not Allowed"},
		{"PUT", "/api/ssh-key", "{}", 405, "Method Not Allowed"},
		{"PATCH", "/api/ssh-key/2", "{}", 405, "Method Not Allowed"},
		{"PUT", "/api/ssh-key/2", "{}", 405, "Method Not Allowed"},
		{"POST", "/api/ssh-key/2", "{}", 405, "Method Not Allowed"},
		{"GET", "/api/ssh-key/2/private_key", "", 404, "...not found..."},
		{"GET", "/api/ssh-keys", "", 404, "...nothing at..."},
		{"GET", "/api/oauth2/token", "", 405, "Method Not Allowed"},
	} {
		token.want(bad.method, bad.path, bad.body, bad.status, bad.text)
	}
	token.want("GET", "/api/ssh-key", "", 200, all)

	// A key that lies nowhere is deleted; restored, it has the id that it had.
	if head, body := ask("--request", "DELETE", url+"/2"); !strings.HasPrefix(head, "HTTP/1.1 204 ") || strings.Contains(head, "\r\nContent-Type:") || body != "" {
		t.Errorf("DELETE: %s\n%s", head, body)
	}
	for _, method := range []string{"DELETE", "GET"} {
		head, body := ask("--request", method, url+"/2")
		if !strings.HasPrefix(head, "HTTP/1.1 404 ") || !strings.Contains(head, "Content-Type: text/plain") || body != "SSH key not found" {
			t.Errorf("%s of a key that was deleted: %s\n%s", method, head, body)
		}
	}
	token.want("GET", "/api/ssh-key", "", 200, "["+one+"]")
	w.ok("key", "restore", w.key(w.parse(two.PublicKey)).UUID)
	token.want("GET", "/api/ssh-key", "", 200, all)

	// One that lies somewhere is refused, and it is said where; so is one that a run
	// has, and one that was rotated, which stays as it was.
	for _, l := range []string{line, two.PublicKey} {
		if err := w.servers[0].Authorize(w.parse(l), ""); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("scan", "--wait")
	token.want("DELETE", "/api/ssh-key/1", "", 409, "...is accepted in web1:root:"+w.authorized(0))
	w.ok("rotate", w.key(w.parse(line)).UUID, "--wait", "--soak", "0s")
	token.want("DELETE", "/api/ssh-key/1", "", 409, "...is rotated, and is kept for going back")
	var r runJSON
	w.json(&r, "rotate", w.key(w.parse(two.PublicKey)).UUID, "--soak", "1h")
	token.want("DELETE", "/api/ssh-key/2", "", 409, "...is in run "+r.Run)
	token.want("GET", "/api/ssh-key", "", 200, all)
}

// Every way to log in that CFEngine has, and how each is refused.
func TestCFEngineLogins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	anyone := newCF(w)
	form := anyone.with("Content-Type", "application/x-www-form-urlencoded")
	grant := func(c cf, user, password string) (status int, text string, header http.Header) {
		return c.do("POST", "/api/oauth2/token", url.Values{
			"grant_type": {"password"}, "client_id": {"MP"}, "client_secret": {"any"}, "username": {user}, "password": {password},
		}.Encode())
	}
	answer := regexp.MustCompile(`^\{"access_token":"([0-9a-f]{40})","expires_in":3600,"token_type":"Bearer","scope":null,"refresh_token":"([0-9a-f]{40})"\}$`)
	granted := func(status int, text string, header http.Header) (access cf, refresh string) {
		t.Helper()
		match := answer.FindStringSubmatch(text)
		if match == nil || status != 200 || header.Get("Cache-Control") != "no-store" || header.Get("Pragma") != "no-cache" {
			t.Fatalf("token endpoint: %d %s %v", status, text, header)
		}
		return anyone.with("Authorization", "Bearer "+match[1]), match[2]
	}
	refreshing := func(token string) (int, string, http.Header) {
		return form.basic("MP", "any").do("POST", "/api/oauth2/token", "grant_type=refresh_token&refresh_token="+token)
	}

	admin := anyone.basic("admin", testPassword)
	access, refresh := granted(grant(form, "admin", testPassword))
	for name, c := range map[string]cf{
		"a password": admin, "a password of the tenant": anyone.basic("default/admin", testPassword), "an access token": access,
		"an API token": anyone.with("Authorization", "Bearer "+w.token), "an API token of a scheme in small letters": anyone.with("Authorization", "bearer "+w.token),
	} {
		if status, text, _ := c.do("GET", "/api/ssh-key", ""); status != 200 || text != "[]" {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for name, c := range map[string]cf{
		"nothing": anyone, "a wrong password": anyone.basic("admin", "wrong"), "nobody": anyone.basic("nobody", testPassword),
		"no password": anyone.basic("admin", ""), "a forged token": anyone.with("Authorization", "Bearer "+strings.Repeat("0", 40)),
		"a forged API token": anyone.with("Authorization", "Bearer "+w.token[:40]), "a refresh token": anyone.with("Authorization", "Bearer "+refresh),
		"an empty token": anyone.with("Authorization", "Bearer "), "another scheme": anyone.with("Authorization", "Digest "+w.token),
		"AppViewX's headers": anyone.with("username", "admin").with("password", testPassword),
	} {
		for _, method := range []string{"GET", "POST"} {
			status, text, header := c.do(method, "/api/ssh-key", "")
			if status != 401 || text != "Authentication failed" || header.Get("WWW-Authenticate") != `Basic realm="Keyturn"` {
				t.Errorf("%s by %s: %d %s %v", method, name, status, text, header)
			}
			if name == "a wrong password" || name == "nobody" || name == "no password" {
				break // too many are made to wait
			}
		}
	}
	if status, text, _ := grant(form, "admin", "wrong"); status != 401 || !strings.HasPrefix(text, `{"error":"invalid_grant",`) {
		t.Errorf("a grant by a wrong password: %d %s", status, text)
	}

	// A refresh token is good once, and ends the tokens that it replaces.
	newAccess, newRefresh := granted(refreshing(refresh))
	for _, spent := range []string{refresh, strings.Repeat("0", 40), "x"} {
		if status, text, _ := refreshing(spent); status != 400 || text != `{"error":"invalid_grant","error_description":"Invalid refresh token"}` {
			t.Errorf("refresh token %q again: %d %s", spent, status, text)
		}
	}
	access.want("GET", "/api/ssh-key", "", 401, "Authentication failed")
	newAccess.want("GET", "/api/ssh-key", "", 200, "[]")
	body, err := json.Marshal(map[string]string{"grant_type": "refresh_token", "client_id": "MP", "refresh_token": newRefresh})
	if err != nil {
		t.Fatal(err)
	}
	granted(anyone.with("Content-Type", "application/json").do("POST", "/api/oauth2/token", string(body)))

	// Permissions: to read is not to make.
	w.stdin = "correct horse of alice\n"
	w.ok("user", "add", "alice", "--role", "auditor", "--password-stdin")
	w.stdin = "correct horse of bob\n"
	w.ok("user", "add", "bob", "--permission", "Hosts Write", "--password-stdin")
	alice, bob := anyone.basic("alice", "correct horse of alice"), anyone.basic("bob", "correct horse of bob")
	alice.want("GET", "/api/ssh-key", "", 200, "[]")
	alice.want("GET", "/api/ssh-key/1", "", 404, "SSH key not found")
	alice.want("POST", "/api/ssh-key", "", 403, `..."Keys Write"...`)
	alice.want("DELETE", "/api/ssh-key/1", "", 403, `..."Keys Write"...`)
	bob.want("GET", "/api/ssh-key", "", 403, `..."Keys Read"...`)
	bob.want("GET", "/api/ssh-key/1", "", 403, `..."Keys Read"...`)

	// A second factor ends what was had without it, and its code goes with the
	// password.
	before, _ := granted(grant(form, "alice", "correct horse of alice"))
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "alice", "KEYTURN_PASSWORD": "correct horse of alice"}
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
	before.want("GET", "/api/ssh-key", "", 401, "Authentication failed")
	alice.want("GET", "/api/ssh-key", "", 401, "Two-factor authentication is required: send the code in the header Cf-2FA-Token")
	alice.with("Cf-2FA-Token", "000000").want("GET", "/api/ssh-key", "", 401, "Authentication failed")
	if status, text, _ := grant(form, "alice", "correct horse of alice"); status != 401 || !strings.Contains(text, `"invalid_grant"`) || !strings.Contains(text, "Cf-2FA-Token") {
		t.Errorf("a grant without the code: %d %s", status, text)
	}
	now := code(time.Now().Add(30 * time.Second)) // the present one has been used
	after, _ := granted(grant(form.with("Cf-2FA-Token", now), "alice", "correct horse of alice"))
	after.want("GET", "/api/ssh-key", "", 200, "[]")
	alice.with("Cf-2FA-Token", now).want("GET", "/api/ssh-key", "", 200, "[]")
}
