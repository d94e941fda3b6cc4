package identity

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

const listener = "http://127.0.0.1:4711"

// verifier is what a client keeps, and challenge what it tells.
var verifier = strings.Repeat("v", 43)

func challenge() string {
	sum := sha256.Sum256([]byte(verifier))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

func rule(t *testing.T, text string) ClaimRule {
	t.Helper()
	r, err := ParseClaimRule(text)
	must(t, err)
	return r
}

// addProviders adds a provider "corp" of people and one "ci" of machines.
func (w *world) addProviders(i *oidctest.Issuer) {
	w.t.Helper()
	admin := w.admin()
	must(w.t, w.update(w.tenant, func(tx *store.Tx) error {
		_, err := w.AddProvider(tx, admin, NewProvider{Secret: oidctest.Secret, Provider: Provider{
			Name: "corp", Kind: People, Issuer: i.URL, ClientID: oidctest.ClientID,
			Rules: []ClaimRule{rule(w.t, "groups=ops -> operator"), rule(w.t, "/deep/level=3 -> Auditor")},
		}})
		if err != nil {
			return err
		}
		_, err = w.AddProvider(tx, admin, NewProvider{Provider: Provider{
			Name: "ci", Kind: Machines, Issuer: i.URL, Audiences: []string{"keyturn", "other"},
			Rules:    []ClaimRule{rule(w.t, "ref=refs/heads/release-* -> Operator"), rule(w.t, "job=audit -> Auditor")},
			Required: []ClaimMatch{{"repository", "acme/infra"}},
		}})
		return err
	}))
}

func (w *world) view(fn func(*store.Tx) error) error {
	return w.store.View(w.t.Context(), w.tenant, fn)
}

// browse goes where a login goes, and returns what the browser brings back.
func (w *world) browse(address string) (state, code string) {
	w.t.Helper()
	c := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := c.Get(address)
	must(w.t, err)
	resp.Body.Close()
	back, err := url.Parse(resp.Header.Get("Location"))
	must(w.t, err)
	if !strings.HasPrefix(back.String(), listener+"/callback/") {
		w.t.Fatalf("the login comes back to %s", back)
	}
	return back.Query().Get("state"), back.Query().Get("code")
}

// beginLogin goes to the provider "corp" and back.
func (w *world) beginLogin() (state, code string) {
	w.t.Helper()
	l, err := w.BeginLogin(w.t.Context(), "corp", listener, challenge(), "192.0.2.1")
	must(w.t, err)
	back, code := w.browse(l.URL)
	if back != l.State {
		w.t.Errorf("the state is %q, and %q has come back", l.State, back)
	}
	return l.State, code
}

func (w *world) logIn() (LoginToken, error) {
	w.t.Helper()
	state, code := w.beginLogin()
	return w.FinishLogin(w.t.Context(), state, Answer{Code: code}, verifier, "192.0.2.1")
}

// says returns what the provider says of somebody, by the world's clock.
func (w *world) says(sub string, claims oidctest.Claims) oidctest.Claims {
	all := oidctest.Claims{"sub": sub, "now": w.clock.Now()}
	for name, value := range claims {
		all[name] = value
	}
	return all
}

func groups(names ...string) []string { return names }

// fails checks an error's kind and what it says.
func fails(t *testing.T, what string, err error, kind trust.Kind, says string) {
	t.Helper()
	if trust.KindOf(err) != kind || err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s: got %v, want %s that says %q", what, err, kind, says)
	}
}

// A person is who the provider says by its subject, and may do what it says at the
// last login.
func TestLoginByProvider(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("staff", "ops")}))
		first, err := w.logIn()
		must(t, err)
		a := first.Actor
		if a.Kind != "user" || a.Name != "alice" || !slices.Equal(a.Roles, []string{"Operator"}) || !a.May(HostsWrite) || a.May(UsersWrite) || a.Source != "192.0.2.1" || !a.Until.Equal(w.clock.Now().Add(loginTokenLife)) {
			t.Fatalf("logged in as %+v", a)
		}
		again, err := w.Bearer(t.Context(), first.Text, "192.0.2.1")
		must(t, err)
		if again.ID != a.ID || !slices.Equal(again.Permissions, a.Permissions) {
			t.Errorf("acts as %+v", again)
		}

		// By another name and other claims it is the same person, at once with all
		// that is open.
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "bob", "email": "alice@example.com", "deep": map[string]any{"level": 3}}))
		second, err := w.logIn()
		must(t, err)
		if second.Actor.ID != a.ID || second.Actor.Name != "alice" || !slices.Equal(second.Actor.Roles, []string{"Auditor"}) {
			t.Errorf("logged in again as %+v", second.Actor)
		}
		if again, err := w.Bearer(t.Context(), first.Text, "192.0.2.1"); err != nil || again.May(HostsWrite) || !again.May(HostsRead) {
			t.Errorf("the first login acts as %+v, %v", again, err)
		}

		// Another subject of that name is somebody else, whether the name is a
		// provider's user's or our own.
		for _, name := range []string{"Alice", "admin"} {
			i.Say(w.says("2", oidctest.Claims{"preferred_username": name, "groups": groups("ops")}))
			_, err := w.logIn()
			fails(t, name, err, trust.Conflict, "calls you")
		}
		for _, name := range []string{"../x", a.ID} {
			i.Say(w.says("2", oidctest.Claims{"preferred_username": name, "groups": groups("ops")}))
			_, err = w.logIn()
			fails(t, "called "+name, err, trust.Denied, "by no name")
		}
		i.Say(w.says("3", oidctest.Claims{"email": "carol@example.com", "groups": groups("ops")}))
		carol, err := w.logIn()
		must(t, err)
		if carol.Actor.Name != "carol@example.com" {
			t.Errorf("logged in as %+v", carol.Actor)
		}

		// There is no other way in, and a user of ours has no provider.
		must(t, w.view(func(tx *store.Tx) error {
			u, err := w.User(tx, "alice")
			if u.Provider != "corp" || u.HasPassword {
				t.Errorf("alice is %+v", u)
			}
			return err
		}))
		hash, err := w.HashPassword(t.Context(), "a password of alice")
		must(t, err)
		admin := w.admin()
		fails(t, "password", w.update(w.tenant, func(tx *store.Tx) error { return w.SetPassword(tx, admin, a.ID, hash) }), trust.Conflict, `"corp"`)
		fails(t, "second factor", w.update(w.tenant, func(tx *store.Tx) error { _, err := w.OfferTOTP(tx, a); return err }), trust.Conflict, `"corp"`)
		if _, err := w.Password(t.Context(), "alice", "", "", "192.0.2.1"); trust.KindOf(err) != trust.Unauthenticated {
			t.Errorf("alice without a password: %v", err)
		}

		// Whom claims give no role loses what they gave.
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("staff", "guests")}))
		_, err = w.logIn()
		fails(t, "without a role", err, trust.Denied, `groups is ["staff" "guests"]`)
		for _, text := range []string{first.Text, second.Text} {
			if _, err := w.Bearer(t.Context(), text, "192.0.2.1"); trust.KindOf(err) != trust.Unauthenticated {
				t.Errorf("a login from before: %v", err)
			}
		}
		must(t, w.view(func(tx *store.Tx) error {
			u, err := w.User(tx, "alice")
			if len(u.Permissions) != 0 {
				t.Errorf("alice may %q", u.Permissions)
			}
			return err
		}))
	})
}

// What a login is finished with has to be its own, and finishes it once.
func TestStolenLogin(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		state, code := w.beginLogin()
		finish := func(state, code, verifier string) error {
			_, err := w.FinishLogin(t.Context(), state, Answer{Code: code}, verifier, "192.0.2.66")
			return err
		}
		before := i.Asked()
		for _, wrong := range []string{"", strings.Repeat("x", 43), challenge()} {
			fails(t, "without the client's secret", finish(state, code, wrong), trust.Unauthenticated, "has not begun here")
		}
		fails(t, "another state", finish("x", code, verifier), trust.Unauthenticated, "has not begun here")
		if i.Asked() != before {
			t.Error("the provider was asked for what cannot be finished")
		}
		fails(t, "another code", finish(state, "x", verifier), trust.Unauthenticated, "invalid_grant")
		must(t, finish(state, code, verifier))
		fails(t, "replayed", finish(state, code, verifier), trust.Unauthenticated, "has not begun here")

		// It is finished by any node, within ten minutes.
		other, err := open(w.store, w.keyring, Options{Now: w.clock.Now}, cheap)
		must(t, err)
		state, code = w.beginLogin()
		if _, err := other.FinishLogin(t.Context(), state, Answer{Code: code}, verifier, "192.0.2.1"); err != nil {
			t.Errorf("on another node: %v", err)
		}
		state, code = w.beginLogin()
		w.clock.Advance(begunLife)
		fails(t, "too late", finish(state, code, verifier), trust.Unauthenticated, "has not begun here")

		// The code goes nowhere but to a command on the person's machine.
		for _, bad := range []string{
			"", "http://127.0.0.1", "http://localhost:1", "https://127.0.0.1:1", "http://192.0.2.1:1",
			"http://127.0.0.1:1?x=y", "http://127.0.0.1:1/callback", "http://127.0.0.1:1@example.com", "http://127.0.0.1:01", "http://[::1%25eth0]:1",
		} {
			_, err := w.BeginLogin(t.Context(), "corp", bad, challenge(), "192.0.2.1")
			fails(t, bad, err, trust.Invalid, "is not of the form")
		}
		for _, bad := range []string{"", "x", verifier + "=", challenge()[:42]} {
			_, err := w.BeginLogin(t.Context(), "corp", listener, bad, "192.0.2.1")
			fails(t, bad, err, trust.Invalid, "challenge")
		}
		for _, name := range []string{"ci", "nobody", "nobody/corp", ""} {
			_, err := w.BeginLogin(t.Context(), name, listener, challenge(), "192.0.2.1")
			fails(t, name, err, trust.NotFound, "no identity provider")
		}
		if _, err := w.BeginLogin(t.Context(), DefaultTenant+"/CORP", "http://[::1]:5", challenge(), "192.0.2.1"); err != nil {
			t.Error(err)
		}
	})
}

// A provider gets nothing from sending the people who log in at it on to another one
// (RFC 9700, section 4.4).
func TestMixedUpProviders(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		honest, evil := oidctest.Start(t), oidctest.Start(t)
		w.addProviders(honest)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			_, err := w.AddProvider(tx, w.admin(), NewProvider{Secret: oidctest.Secret, Provider: Provider{
				Name: "evil", Kind: People, Issuer: evil.URL, ClientID: oidctest.ClientID, Rules: []ClaimRule{rule(t, "x=y -> Auditor")},
			}})
			return err
		}))
		honest.Say(w.says("1", oidctest.Claims{"preferred_username": "boss", "groups": groups("ops")}))
		begin := func(provider string) (l BrowserLogin, at *url.URL) {
			l, err := w.BeginLogin(t.Context(), provider, listener, challenge(), "192.0.2.1")
			must(t, err)
			at, err = url.Parse(l.URL)
			must(t, err)
			return l, at
		}
		finish := func(l BrowserLogin, answer Answer) error {
			_, err := w.FinishLogin(t.Context(), l.State, answer, verifier, "192.0.2.1")
			return err
		}

		// The victim logs in at evil, which goes on at honest with a login of its own.
		victim, _ := begin("evil")
		own, at := begin("corp")
		if victim.RedirectURI == own.RedirectURI {
			t.Fatalf("logins by both come back to %s", own.RedirectURI)
		}
		q := at.Query()
		q.Set("redirect_uri", victim.RedirectURI)
		q.Set("state", victim.State)
		at.RawQuery = q.Encode()
		_, code := w.browse(at.String())
		fails(t, "with another's code", finish(own, Answer{Code: code}), trust.Unauthenticated, "invalid_grant")
		fails(t, "another's answer", finish(victim, Answer{Code: code, Issuer: honest.URL}), trust.Unauthenticated, "the answer to it is of")
		if evil.Asked() != 0 {
			t.Error("evil was handed honest's code")
		}

		// Of one that announces that it says whose its answers are, none is taken that
		// does not.
		honest.NamesItself()
		w.clock.Advance(2 * time.Hour) // what it has published is kept for less
		own, at = begin("corp")
		_, code = w.browse(at.String())
		fails(t, "nobody's answer", finish(own, Answer{Code: code}), trust.Unauthenticated, "the answer to it is of")
		honest.Say(w.says("1", oidctest.Claims{"preferred_username": "boss", "groups": groups("ops")}))
		must(t, finish(own, Answer{Code: code, Issuer: honest.URL}))
	})
}

// Nobody begins more logins than there may be, and whoever does keeps nobody out who
// is somewhere else.
func TestBegunLoginsAreBounded(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		begin := func(from string) error {
			_, err := w.BeginLogin(t.Context(), "corp", listener, challenge(), from)
			return err
		}
		for range maxBegunHere {
			must(t, begin("192.0.2.66"))
		}
		fails(t, "one more", begin("192.0.2.66:1"), trust.Exhausted, "too many logins")
		_, err := w.StartDeviceLogin(t.Context(), "corp", "192.0.2.66")
		fails(t, "a device more", err, trust.Exhausted, "too many logins")
		must(t, begin("192.0.2.1"))
		w.clock.Advance(begunLife)
		must(t, begin("192.0.2.66"))
		n := 0
		must(t, w.view(func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM begun_logins`).Scan(&n) }))
		if n != 1 {
			t.Errorf("%d begun logins are kept, want 1", n)
		}
	})
}

// Whoever begins logins at very many addresses pushes out their own, and a host with a
// /64 is one address.
func TestBegunLoginsOfOthersStay(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		state, code := w.beginLogin()
		p, err := w.findProvider(t.Context(), "corp", People)
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			for n := range maxBegun - 1 {
				b := begunLogin{id: fmt.Sprint(n), provider: p.Provider, source: fmt.Sprintf("192.0.2.%d", 60+n%5), ends: tx.Now().Add(begunLife)}
				if err := insertBegunLogin(tx, b); err != nil {
					return err
				}
			}
			return nil
		}))
		for n := range 3 {
			_, err := w.BeginLogin(t.Context(), "corp", listener, challenge(), fmt.Sprintf("2001:db8::%d", n))
			must(t, err)
		}
		must(t, w.view(func(tx *store.Tx) error {
			all, here, err := countBegunLogins(tx, w.tenant, "2001:db8::/64")
			if all != maxBegun || here != 3 {
				t.Errorf("%d logins have begun, %d of them at one /64", all, here)
			}
			return err
		}))
		_, err = w.FinishLogin(t.Context(), state, Answer{Code: code}, verifier, "192.0.2.1")
		must(t, err)
	})
}

// An ID token is believed if it is this login's, for us, of that issuer, and holds.
func TestIDTokens(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		ops := oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}
		with := func(more oidctest.Claims) oidctest.Claims {
			all := w.says("1", ops)
			for name, value := range more {
				all[name] = value
			}
			return all
		}
		for what, bad := range map[string]oidctest.Claims{
			"another login's":       {"nonce": "x"},
			"of no login":           {"nonce": nil},
			"another's":             {"aud": "another"},
			"given to another":      {"azp": "another"},
			"for several":           {"aud": []string{oidctest.ClientID, "another"}},
			"of another issuer":     {"iss": "https://id.example.com"},
			"ended":                 {"exp": w.clock.Now().Add(-2 * time.Minute).Unix()},
			"without end":           {"exp": nil},
			"not begun":             {"nbf": w.clock.Now().Add(2 * time.Minute).Unix()},
			"issued in the future":  {"iat": w.clock.Now().Add(2 * time.Minute).Unix()},
			"of nobody":             {"sub": nil},
			"of somebody very long": {"sub": strings.Repeat("x", 256)},
			"of more than a line":   {"sub": "1\x00"},
			"of somebody as well":   {"\u017fub": "2"}, // a long s: what folds case takes it for "sub"
			"of another, capital":   {"Sub": "2"},
			"another's, capital":    {"AUD": oidctest.ClientID, "aud": "another"},
			"ends later, capital":   {"Exp": w.clock.Now().Add(time.Hour).Unix()},
		} {
			i.Say(with(bad))
			_, err := w.logIn()
			fails(t, what, err, trust.Unauthenticated, "")
			w.clock.Advance(time.Second)
		}
		for what, good := range map[string]oidctest.Claims{
			"as it should be":       {},
			"for several, given us": {"aud": []string{oidctest.ClientID, "another"}, "azp": oidctest.ClientID},
			"ended within the skew": {"exp": w.clock.Now().Add(-30 * time.Second).Unix()},
			"begins within it":      {"nbf": w.clock.Now().Add(50 * time.Second).Unix()},
		} {
			i.Say(with(good))
			if _, err := w.logIn(); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	})
}

// A machine's token is judged by who signed it, for whom, and what it says; what it
// is exchanged for ends with it.
func TestMachines(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i, stranger := oidctest.Start(t), oidctest.Start(t)
		w.addProviders(i)
		release := oidctest.Claims{"sub": "repo:acme/infra", "repository": "acme/infra", "ref": "refs/heads/release-1"}
		with := func(more oidctest.Claims) oidctest.Claims {
			all := oidctest.Claims{}
			for _, m := range []oidctest.Claims{release, more} {
				for name, value := range m {
					all[name] = value
				}
			}
			return all
		}
		now := w.clock.Now()
		exchange := func(token string) (LoginToken, error) {
			return w.TokenLogin(t.Context(), "ci", token, "192.0.2.5")
		}
		// More failures than the throttle lets through, so each from elsewhere.
		from := 0
		refused := func(what, token string, kind trust.Kind, says string) {
			t.Helper()
			from++
			_, err := w.TokenLogin(t.Context(), "ci", token, "192.0.2."+string(rune('0'+from%10))+string(rune('0'+from/10)))
			fails(t, what, err, kind, says)
		}
		parts := strings.Split(i.Token("keyturn", now, release), ".")
		refused("signed by another", stranger.Token("keyturn", now, with(oidctest.Claims{"iss": i.URL})), trust.Unauthenticated, "has signed for itself")
		refused("of another issuer", i.Token("keyturn", now, with(oidctest.Claims{"iss": stranger.URL})), trust.Unauthenticated, "has signed for itself")
		refused("HMAC under the public key", i.HMACToken("keyturn", now, release), trust.Unauthenticated, "has signed for itself")
		refused("unsigned", i.UnsignedToken("keyturn", now, release), trust.Unauthenticated, "has signed for itself")
		refused("cut off", parts[0]+"."+parts[1]+".", trust.Unauthenticated, "has signed for itself")
		refused("other claims", parts[0]+"."+strings.Split(i.Token("other", now, release), ".")[1]+"."+parts[2], trust.Unauthenticated, "has signed for itself")
		refused("text", "x", trust.Unauthenticated, "has signed for itself")
		refused("endless text", strings.Repeat("x", 1<<20), trust.Unauthenticated, "longer")
		refused("for another", i.Token("another", now, release), trust.Unauthenticated, `for ["another"]`)
		refused("ended", i.Token("keyturn", now.Add(-time.Hour), release), trust.Unauthenticated, "has ended")
		refused("without end", i.Token("keyturn", now, with(oidctest.Claims{"exp": nil})), trust.Unauthenticated, "has ended")
		refused("not begun", i.Token("keyturn", now, with(oidctest.Claims{"nbf": now.Add(time.Hour).Unix()})), trust.Unauthenticated, "begins at")
		refused("of another repository", i.Token("keyturn", now, with(oidctest.Claims{"repository": "acme/infra2"})), trust.Denied, "lets no machine in")
		refused("of another branch", i.Token("keyturn", now, with(oidctest.Claims{"ref": "refs/heads/main"})), trust.Denied, "lets no machine in")

		token := i.Token("other", now, release)
		l, err := exchange(token)
		must(t, err)
		a, err := w.Bearer(t.Context(), l.Text, "192.0.2.7")
		must(t, err)
		if a.Kind != "machine" || a.Name != "ci/repo:acme/infra" || a.Owner != "" || a.Source != "192.0.2.7" || !slices.Equal(a.Roles, []string{"Operator"}) || !a.May(KeysWrite) || a.May(UsersWrite) ||
			!a.Until.Equal(now.Add(30*time.Minute)) || l.Idle != 0 {
			t.Errorf("acts as %+v", a)
		}
		if _, err := exchange(token); err != nil {
			t.Errorf("a job that tries again: %v", err)
		}
		fails(t, "an API token of a machine", w.update(w.tenant, func(tx *store.Tx) error {
			_, _, err := w.CreateToken(tx, a, NewToken{Name: "x", Permissions: []Permission{KeysRead}})
			return err
		}), trust.Denied, "belongs to a user")
		theirs, _, err := w.createToken(w.admin(), NewToken{Name: "theirs", Permissions: []Permission{KeysRead}})
		must(t, err)
		fails(t, "a token that a machine rotates", w.update(w.tenant, func(tx *store.Tx) error {
			_, _, err := w.RotateToken(tx, a, theirs.ID, 0)
			return err
		}), trust.Denied, "belongs to somebody else")
		a.Permissions = []Permission{All}
		admin := w.admin()
		for what, verb := range map[string]func(*store.Tx) error{
			"a user": func(tx *store.Tx) error {
				_, err := w.AddUser(tx, a, NewUser{Name: "mule", Rights: Rights{Roles: []string{"Administrator"}}})
				return err
			},
			"a password":      func(tx *store.Tx) error { return w.SetPassword(tx, a, admin.ID, PasswordHash{}) },
			"a second factor": func(tx *store.Tx) error { return w.RemoveTOTP(tx, a, admin.ID) },
			"rights": func(tx *store.Tx) error {
				return w.SetRights(tx, a, admin.ID, Rights{Roles: []string{"Administrator"}})
			},
			"a role": func(tx *store.Tx) error { _, err := w.SetRole(tx, a, "mules", []Permission{All}); return err },
			"a provider": func(tx *store.Tx) error {
				_, err := w.AddProvider(tx, a, NewProvider{Provider: Provider{Name: "mine", Kind: Machines, Issuer: i.URL, Audiences: []string{"x"}, Rules: []ClaimRule{rule(t, "sub=x -> Administrator")}}})
				return err
			},
		} {
			fails(t, what+" of a machine", w.update(w.tenant, verb), trust.Denied, "outlive")
		}
		both, err := exchange(i.Token("keyturn", now, with(oidctest.Claims{"job": "audit", "exp": now.Add(24 * time.Hour).Unix()})))
		must(t, err)
		if !slices.Equal(both.Actor.Roles, []string{"Operator", "Auditor"}) || !both.Actor.Until.Equal(now.Add(machineLife)) {
			t.Errorf("by two rules: %+v", both.Actor)
		}

		holds := func(text string) bool {
			_, err := w.Bearer(t.Context(), text, "192.0.2.7")
			if err != nil && trust.KindOf(err) != trust.Unauthenticated {
				t.Fatal(err)
			}
			return err == nil
		}
		w.clock.Advance(30*time.Minute - time.Second)
		if !holds(l.Text) || !holds(both.Text) {
			t.Error("it ended before its token")
		}
		w.clock.Advance(time.Second)
		if holds(l.Text) || !holds(both.Text) {
			t.Error("it outlives its token, or another ends with it")
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			return w.EndWebLogin(tx, Actor{Tenant: w.tenant, Kind: "machine", webLogin: webLoginHash(both.Text)})
		}))
		if holds(both.Text) {
			t.Error("ended, it holds")
		}
		// What has ended does not stay in the database.
		_, err = exchange(i.Token("keyturn", w.clock.Now(), release))
		must(t, err)
		n := 0
		must(t, w.view(func(tx *store.Tx) error { return tx.QueryRow(`SELECT count(*) FROM machine_logins`).Scan(&n) }))
		if n != 1 {
			t.Errorf("%d logins of machines are kept, want 1", n)
		}
	})
}

// A person without a browser logs in at another device.
func TestDeviceLogin(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		start := func() string {
			t.Helper()
			d, err := w.StartDeviceLogin(t.Context(), "corp", "192.0.2.1")
			must(t, err)
			if d.UserCode != "ABCD-EFGH" || d.VerificationURL != i.URL+"/activate" || d.Interval != time.Second || d.Lasts > 300*time.Second {
				t.Errorf("the person is told %+v", d)
			}
			return d.Code
		}
		poll := func(code string) (LoginToken, DeviceProgress, error) {
			w.clock.Advance(time.Second)
			return w.PollDeviceLogin(t.Context(), code, "192.0.2.1")
		}
		code := start()
		i.Device("authorization_pending", "slow_down")
		for _, want := range []DeviceProgress{DevicePending, DeviceSlowDown} {
			if _, got, err := poll(code); got != want || err != nil {
				t.Errorf("the login is %q, %v; want %q", got, err, want)
			}
		}
		// Who asks without a pause is not passed on to the provider.
		asked := i.Asked()
		if _, got, err := w.PollDeviceLogin(t.Context(), code, "192.0.2.1"); got != DevicePending || err != nil || i.Asked() != asked {
			t.Errorf("asked at once: %q, %v, and the provider %d times", got, err, i.Asked()-asked)
		}
		l, progress, err := poll(code)
		if err != nil || progress != DeviceDone || l.Actor.Name != "alice" || !slices.Equal(l.Actor.Roles, []string{"Operator"}) {
			t.Errorf("logged in as %+v, %q, %v", l.Actor, progress, err)
		}
		_, _, err = poll(code)
		fails(t, "replayed", err, trust.Unauthenticated, "has not begun here")
		_, _, err = poll("device-of-another-client")
		fails(t, "not begun here", err, trust.Unauthenticated, "has not begun here")
		state, _ := w.beginLogin()
		_, _, err = poll(state)
		fails(t, "a state for a device code", err, trust.Unauthenticated, "has not begun here")
		code = start()
		i.Device("access_denied")
		_, _, err = poll(code)
		fails(t, "refused", err, trust.Unauthenticated, "access_denied")
	})
}

// Removing a provider, a user or a role ends what was had by it.
func TestProviderEnds(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		admin := w.admin()
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		alice, err := w.logIn()
		must(t, err)
		i.Say(w.says("2", oidctest.Claims{"preferred_username": "bob", "groups": groups("ops")}))
		bob, err := w.logIn()
		must(t, err)
		job := oidctest.Claims{"repository": "acme/infra", "job": "audit"}
		machine, err := w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), job), "192.0.2.1")
		must(t, err)
		holds := func(l LoginToken) bool {
			_, err := w.Bearer(t.Context(), l.Text, "192.0.2.1")
			return err == nil
		}
		remove := func(name string) {
			t.Helper()
			must(t, w.update(w.tenant, func(tx *store.Tx) error { _, _, err := w.RemoveProvider(tx, admin, name); return err }))
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, admin, alice.Actor.ID) }))
		if holds(alice) || !holds(bob) || !holds(machine) {
			t.Error("removing alice does not end her login, or another's")
		}
		remove("ci")
		if holds(machine) || !holds(bob) {
			t.Error("removing ci does not end its login, or another's")
		}
		// Nobody removes by it whom they could not remove.
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			return w.SetRights(tx, admin, bob.Actor.ID, Rights{Permissions: []Permission{All}})
		}))
		operator := Actor{Tenant: w.tenant, Kind: "user", ID: newID(), Name: "operator", Permissions: append(slices.Clone(builtIn[1].Permissions), builtIn[2].Permissions...)}
		fails(t, "with a user who may do more", w.update(w.tenant, func(tx *store.Tx) error { _, _, err := w.RemoveProvider(tx, operator, "corp"); return err }), trust.Denied, `user "bob"`)
		state, code := w.beginLogin()
		remove("CORP")
		if holds(bob) {
			t.Error("removing corp does not end a login by it")
		}
		_, err = w.FinishLogin(t.Context(), state, Answer{Code: code}, verifier, "192.0.2.1")
		fails(t, "a login that was under way", err, trust.Unauthenticated, "has not begun here")
		must(t, w.view(func(tx *store.Tx) error {
			_, err := w.User(tx, "bob")
			fails(t, "its user", err, trust.NotFound, "bob")
			return nil
		}))
		// One of the same name is another one.
		w.addProviders(i)
		again, err := w.logIn()
		must(t, err)
		if again.Actor.ID == bob.Actor.ID || again.Actor.Name != "bob" {
			t.Errorf("logged in as %+v", again.Actor)
		}
	})
}

// Nobody gives by a provider what they do not have, and no provider is what lets
// anybody in.
func TestProviders(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		admin := w.admin()
		lesser := Actor{Tenant: w.tenant, Kind: "user", ID: admin.ID, Name: "lesser", Permissions: []Permission{UsersWrite, KeysRead, HostsRead, RunsRead}}
		good := NewProvider{Provider: Provider{Name: "x", Kind: People, Issuer: "https://id.example.com", ClientID: "c", Rules: []ClaimRule{rule(t, "a=b -> Auditor")}}}
		add := func(by Actor, change func(*NewProvider)) (Provider, error) {
			n := good
			n.Rules = slices.Clone(good.Rules)
			change(&n)
			var p Provider
			err := w.update(w.tenant, func(tx *store.Tx) (err error) { p, err = w.AddProvider(tx, by, n); return err })
			return p, err
		}
		machines := func(n *NewProvider) {
			n.Kind, n.ClientID, n.Audiences = Machines, "", []string{"keyturn"}
		}
		github := func(change func(*NewProvider)) func(*NewProvider) {
			return func(n *NewProvider) {
				machines(n)
				n.Issuer = "https://token.actions.githubusercontent.com"
				change(n)
			}
		}
		for says, change := range map[string]func(*NewProvider){
			"provider name":       func(n *NewProvider) { n.Name = "a b" },
			"is there already":    func(n *NewProvider) { n.Name = "CORP" },
			"neither":             func(n *NewProvider) { n.Kind = "robots" },
			"is not https":        func(n *NewProvider) { n.Issuer = "http://id.example.com" },
			"is not a URL":        func(n *NewProvider) { n.Issuer = "https://user:secret@id.example.com" },
			`not https`:           func(n *NewProvider) { n.Issuer = "ftp://id.example.com" },
			"client: its id":      func(n *NewProvider) { n.ClientID = "" },
			"scope openid":        func(n *NewProvider) { n.Scopes = []string{"profile"} },
			"no audience":         func(n *NewProvider) { n.Audiences = []string{"a"} },
			"1 to 50 rules":       func(n *NewProvider) { n.Rules = nil },
			"there is no role":    func(n *NewProvider) { n.Rules[0].Role = "King" },
			"values that end":     func(n *NewProvider) { n.Rules[0].Value = "b*" },
			"something before it": func(n *NewProvider) { machines(n); n.Rules[0].Value = "*" },
			"needs an audience":   func(n *NewProvider) { machines(n); n.Audiences = nil },
			"neither a client id": func(n *NewProvider) { machines(n); n.Secret = "x" },
			"let anybody in":      github(func(*NewProvider) {}),
			"whose it is":         github(func(n *NewProvider) { n.Required = []ClaimMatch{{"sub", "repo:*"}} }),
		} {
			_, err := add(admin, change)
			if err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("got %v, want %q", err, says)
			}
		}
		_, err := add(lesser, func(*NewProvider) {})
		fails(t, "a role that one does not have", err, trust.Denied, "cannot be given by")
		for name, change := range map[string]func(*NewProvider){
			"own repository": github(func(n *NewProvider) { n.Name, n.Required = "gh", []ClaimMatch{{"repository", "acme/infra"}} }),
			"own owner":      github(func(n *NewProvider) { n.Name, n.Rules = "gh2", []ClaimRule{rule(t, "sub=repo:acme/* -> Auditor")} }),
			"public client":  func(n *NewProvider) { n.Name = "public" },
		} {
			if _, err := add(admin, change); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}

		// What is set anew keeps its secret, its issuer and whom it gives more to than
		// who sets it has.
		must(t, w.update(w.tenant, func(tx *store.Tx) error { _, err := w.SetRole(tx, admin, "keys", []Permission{KeysRead}); return err }))
		set := func(by Actor, change func(*NewProvider)) (Provider, error) {
			n := NewProvider{Provider: Provider{Name: "Corp", Kind: People, Issuer: i.URL, ClientID: oidctest.ClientID, Rules: []ClaimRule{rule(t, "groups=keys -> keys")}}}
			change(&n)
			var p Provider
			err := w.update(w.tenant, func(tx *store.Tx) (err error) { p, err = w.SetProvider(tx, by, n); return err })
			return p, err
		}
		_, err = set(lesser, func(*NewProvider) {})
		fails(t, "of one that gives more", err, trust.Denied, "gives the permission")
		fails(t, "removing it", w.update(w.tenant, func(tx *store.Tx) error { _, _, err := w.RemoveProvider(tx, lesser, "corp"); return err }), trust.Denied, "gives the permission")
		_, err = set(admin, func(n *NewProvider) { n.Issuer = "https://id.example.com" })
		fails(t, "another issuer", err, trust.Conflict, "cannot become another")
		p, err := set(admin, func(*NewProvider) {})
		must(t, err)
		if !p.HasSecret || p.Name != "corp" || p.NameClaim != "preferred_username" || !slices.Equal(p.Scopes, []string{"openid", "profile", "email"}) {
			t.Errorf("set as %+v", p)
		}
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": "keys"}))
		alice, err := w.logIn()
		must(t, err)
		fails(t, "a role that a provider gives", w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveRole(tx, admin, "keys") }), trust.Conflict, "has the role")
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, admin, alice.Actor.ID) }))
		fails(t, "a role that a provider gives", w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveRole(tx, admin, "keys") }), trust.Conflict, `"corp" gives`)

		// A user whom a provider vouches for does not count among those who may do
		// everything.
		_, err = set(admin, func(n *NewProvider) { n.Rules = []ClaimRule{rule(t, "groups=keys -> Administrator")} })
		must(t, err)
		root, err := w.logIn()
		must(t, err)
		fails(t, "the last of our own", w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, root.Actor, admin.ID) }), trust.Conflict, "nobody would be left")

		// It is there for nobody else.
		stranger := w.otherTenant()
		must(t, w.update(stranger.Tenant, func(tx *store.Tx) error {
			list, err := w.Providers(tx)
			if len(list) != 0 {
				t.Errorf("another tenant sees %+v", list)
			}
			_, _, unknown := w.RemoveProvider(tx, stranger, "corp")
			fails(t, "another tenant's", unknown, trust.NotFound, "no identity provider")
			return err
		}))
		names, err := w.LoginProviders(t.Context(), "")
		must(t, err)
		if !slices.Equal(names, []string{"corp", "public"}) {
			t.Errorf("people log in by %q", names)
		}
	})
}

// A provider that does not answer, or not as one, keeps people out, and says so; it
// holds nobody up for long.
func TestProviderDown(t *testing.T) {
	w := newWorld(t, storetest.SQLite(t, schemas...))
	answers := http.HandlerFunc(http.NotFound)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { answers(rw, r) })
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	admin := w.admin()
	must(t, w.update(w.tenant, func(tx *store.Tx) error {
		_, err := w.AddProvider(tx, admin, NewProvider{Provider: Provider{Name: "corp", Kind: People, Issuer: s.URL, ClientID: "c", Rules: []ClaimRule{rule(t, "a=b -> Auditor")}}})
		return err
	}))
	begin := func() error {
		_, err := w.BeginLogin(t.Context(), "corp", listener, challenge(), "192.0.2.1")
		return err
	}
	document := func(issuer, authorize string) http.HandlerFunc {
		return func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"issuer":"` + issuer + `","authorization_endpoint":"` + authorize + `"}`))
		}
	}
	mux.HandleFunc("/elsewhere", document(s.URL, s.URL))
	for what, handler := range map[string]http.HandlerFunc{
		"nothing there":  http.NotFound,
		"another issuer": document("https://id.example.com", s.URL),
		"no document":    func(rw http.ResponseWriter, _ *http.Request) { _, _ = rw.Write([]byte("<html>")) },
		"an endless one": func(rw http.ResponseWriter, _ *http.Request) {
			_, _ = rw.Write([]byte(`{"issuer":"` + strings.Repeat("x", 2<<20)))
		},
		"a redirect": func(rw http.ResponseWriter, r *http.Request) {
			http.Redirect(rw, r, "/elsewhere", http.StatusFound)
		},
		"people to anywhere": document(s.URL, "http://id.example.com/authorize"),
	} {
		answers = handler
		fails(t, what, begin(), trust.Unavailable, s.URL)
	}
	s.Close()
	w.clock.Advance(2 * time.Hour) // what was kept is not believed any more
	fails(t, "down", begin(), trust.Unavailable, s.URL)
}

// The log has each login by a provider and each that was turned away, with the
// reason, and of guesses a bounded number.
func TestProvidersAreInTheLog(t *testing.T) {
	need.Long(t)
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		before := len(w.events(w.tenant, "user.login"))
		alice, err := w.logIn()
		must(t, err)
		logins := w.events(w.tenant, "user.login")[before:]
		if len(logins) != 1 || logins[0].Subject != "user:"+alice.Actor.ID || logins[0].Person != Person(alice.Actor.ID) || field(logins[0], "provider") != "corp" || field(logins[0], "roles") != "Operator" {
			t.Errorf("the login is %+v", logins)
		}
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice"}))
		_, err = w.logIn()
		fails(t, "without a role", err, trust.Denied, "")
		i.Say(w.says("2", oidctest.Claims{"preferred_username": "admin", "groups": groups("ops")}))
		_, err = w.logIn()
		fails(t, "by a name that is taken", err, trust.Conflict, "")
		refusals := w.events(w.tenant, "user.refuse")
		if len(refusals) != 2 || refusals[0].Subject != "user:"+alice.Actor.ID || field(refusals[0], "reason") != "no rule gives a role" ||
			refusals[1].Subject != "user:unknown" || !strings.Contains(field(refusals[1], "reason"), "calls you") {
			t.Errorf("the refusals are %+v", refusals)
		}
		if begun := w.events(w.tenant, "login.begin"); len(begun) != 3 {
			t.Errorf("%d logins have begun, want 3", len(begun))
		}

		job := oidctest.Claims{"sub": "infra", "repository": "acme/infra", "job": "audit"}
		_, err = w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), job), "192.0.2.5")
		must(t, err)
		good := maps.Clone(job)
		job["job"] = "build"
		_, err = w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), job), "192.0.2.5")
		fails(t, "a job without a role", err, trust.Denied, "")
		if in, out := w.events(w.tenant, "machine.login"), w.events(w.tenant, "machine.refuse"); len(in) != 1 || in[0].ActorKind != "machine" || field(in[0], "roles") != "Auditor" ||
			len(out) != 1 || field(out[0], "reason") != "no rule gives a role" {
			t.Errorf("machines are %+v and %+v", in, out)
		}
		// True tokens that rules refuse are for anybody to have at some platforms.
		for n := range 200 {
			stranger := oidctest.Claims{"sub": fmt.Sprintf("repo:mallory/%d", n), "repository": "mallory/infra", "job": "audit"}
			from := fmt.Sprintf("192.0.2.%d", n)
			for range 2 {
				_, err := w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), stranger), from)
				fails(t, "a stranger's job", err, trust.Denied, "")
				if strings.Contains(err.Error(), "acme") {
					t.Fatalf("a stranger is told what it takes: %v", err)
				}
			}
			_, err := w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), good), from)
			must(t, err)
		}
		out := w.events(w.tenant, "machine.refuse")
		if len(out) < 2 || len(out) > burstPlaces || field(out[1], "reason") != "repository=acme/infra is required" {
			t.Errorf("401 tokens that rules refuse are %d events, %+v", len(out), out)
		}
		w.clock.Advance(burstAgain + time.Second)
		_, err = w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), job), "192.0.2.5")
		fails(t, "a job without a role", err, trust.Denied, "")
		out = w.events(w.tenant, "machine.refuse")
		if count, err := strconv.Atoi(field(out[len(out)-1], "failures")); err != nil || count < 190 {
			t.Errorf("the next burst tells of %d failures, %v", count, err)
		}
		for n := range 200 {
			_, err := w.TokenLogin(t.Context(), "ci", strings.Repeat("x", n+1), fmt.Sprintf("192.0.2.%d", n))
			if err == nil {
				t.Fatal("a guess gets in")
			}
		}
		if guesses := w.events(w.tenant, "provider.refuse"); len(guesses) == 0 || len(guesses) > burstPlaces {
			t.Errorf("200 guesses are %d events", len(guesses))
		}
	})
}

// Rules that were changed while somebody logged in have not been asked.
func TestProviderChangedMeanwhile(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		admin := w.admin()
		i.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		state, _ := w.beginLogin()
		b, err := w.begun(t.Context(), begunID(state), false)
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			_, err := w.SetProvider(tx, admin, NewProvider{Provider: Provider{
				Name: "corp", Kind: People, Issuer: i.URL, ClientID: oidctest.ClientID, Rules: []ClaimRule{rule(t, "groups=ops -> Auditor")},
			}})
			return err
		}))
		fails(t, "by the rules from before", w.update(w.tenant, func(tx *store.Tx) error { return spendBegun(tx, b) }), trust.Conflict, "was changed just now")
		l, err := w.logIn()
		must(t, err)
		if !slices.Equal(l.Actor.Roles, []string{"Auditor"}) {
			t.Errorf("by the rules of now: %+v", l.Actor)
		}

		// Of two who finish at once, one does.
		state, _ = w.beginLogin()
		b, err = w.begun(t.Context(), begunID(state), false)
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return spendBegun(tx, b) }))
		fails(t, "the other", w.update(w.tenant, func(tx *store.Tx) error { return spendBegun(tx, b) }), trust.Unauthenticated, "has not begun here")
	})
}

// An address of e-mail is what anybody can say of himself, unless the provider has
// seen that it is so; and of people a value is what it says, and no pattern.
func TestRules(t *testing.T) {
	w := newWorld(t, storetest.SQLite(t, schemas...))
	i := oidctest.Start(t)
	admin := w.admin()
	must(t, w.update(w.tenant, func(tx *store.Tx) error {
		_, err := w.AddProvider(tx, admin, NewProvider{Secret: oidctest.Secret, Provider: Provider{
			Name: "corp", Kind: People, Issuer: i.URL, ClientID: oidctest.ClientID,
			Rules:    []ClaimRule{rule(t, "email=alice@example.com -> Operator"), rule(t, "groups=a=b -> Auditor"), rule(t, "/email=bob@example.com -> Auditor")},
			Required: []ClaimMatch{{"hd", "example.com"}},
		}})
		return err
	}))
	for _, test := range []struct {
		claims oidctest.Claims
		roles  string // or "" for who is let in by none
	}{
		{oidctest.Claims{"email": "alice@example.com", "email_verified": true, "hd": "example.com"}, "Operator"},
		{oidctest.Claims{"email": "alice@example.com", "email_verified": true, "hd": "example.com", "groups": groups("a=b")}, "Operator Auditor"},
		{oidctest.Claims{"email": "alice@example.com", "email_verified": false, "hd": "example.com"}, ""},
		{oidctest.Claims{"email": "alice@example.com", "hd": "example.com"}, ""},
		{oidctest.Claims{"email": "Alice@example.com", "email_verified": true, "hd": "example.com"}, ""},
		{oidctest.Claims{"email": "alice@example.com", "email_verified": true}, ""},
		{oidctest.Claims{"email": "alice@example.com", "email_verified": true, "hd": "example.org"}, ""},
		{oidctest.Claims{"email": "bob@example.com", "email_verified": "true", "hd": "example.com"}, "Auditor"},
		{oidctest.Claims{"email": "bob@example.com", "email_verified": false, "hd": "example.com"}, ""},
		{oidctest.Claims{"email": "bob@example.com", "email_verified": []bool{true}, "hd": "example.com"}, ""},
		{oidctest.Claims{"email": groups("alice@example.com", "bob@example.com"), "email_verified": true, "hd": "example.com"}, ""},
		{oidctest.Claims{"groups": groups("a=bc"), "hd": "example.com"}, ""},
	} {
		test.claims["preferred_username"] = "alice"
		i.Say(w.says("1", test.claims))
		l, err := w.logIn()
		if test.roles == "" {
			fails(t, fmt.Sprint(test.claims), err, trust.Denied, "lets nobody in")
		} else if err != nil || strings.Join(l.Actor.Roles, " ") != test.roles {
			t.Errorf("%v: %q, %v; want %q", test.claims, l.Actor.Roles, err, test.roles)
		}
	}
}
