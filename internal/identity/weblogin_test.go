package identity

import (
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/pquerna/otp/totp"

	"keyturn/internal/need"
	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func TestWebLogin(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		login := func() string {
			t.Helper()
			a, id, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
			must(t, err)
			if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$`).MatchString(id) || a.Name != "admin" {
				t.Fatalf("web login %q of %+v", id, a)
			}
			return id
		}
		holds := func(id string) bool {
			t.Helper()
			a, err := w.WebLogin(t.Context(), id, "192.0.2.7:1")
			if err == nil && (a.Tenant != w.tenant || a.Kind != "user" || a.Name != "admin" || a.Owner != a.ID || a.Source != "192.0.2.7" || !a.May(All)) {
				t.Errorf("acts as %+v", a)
			}
			if err != nil && trust.KindOf(err) != trust.Unauthenticated {
				t.Fatal(err)
			}
			return err == nil
		}
		id := login()
		if !holds(id) {
			t.Fatal("does not hold")
		}
		for _, bad := range []string{"", "x", newWebLoginID(), strings.ToUpper(id) + " ", id[:35], webLoginHash(id), webLoginHash(id)[:36], strings.Repeat("a", 1<<20)} {
			if holds(bad) {
				t.Errorf("%.50q holds", bad)
			}
		}
		if a, id, err := w.Login(t.Context(), "admin", "wrong", "", "192.0.2.1"); id != "" || a.ID != "" || trust.KindOf(err) != trust.Unauthenticated {
			t.Errorf("by a wrong password: %q %+v %v", id, a, err)
		}

		// It lasts while it is used, and 15 minutes and little more after that,
		// from whichever moment it was last used.
		for _, step := range []time.Duration{time.Second, 2 * time.Minute, 10 * time.Minute, webLoginIdle} {
			id := login()
			for range 5 {
				w.clock.Advance(step)
				if !holds(id) {
					t.Fatalf("used every %s it does not hold", step)
				}
			}
			w.clock.Advance(webLoginIdle)
			if !holds(id) {
				t.Errorf("used every %s it ended within %s", step, webLoginIdle)
			}
			w.clock.Advance(webLoginIdle + webLoginExtend + time.Microsecond)
			if holds(id) {
				t.Errorf("used every %s it holds after %s", step, webLoginIdle+webLoginExtend)
			}
		}
		// However it is used it ends.
		id = login()
		began := w.clock.Now()
		for holds(id) {
			w.clock.Advance(10 * time.Minute)
		}
		if life := w.clock.Now().Sub(began); life < webLoginLife || life > webLoginLife+10*time.Minute {
			t.Errorf("ended after %s", life)
		}
		// What has ended does not stay in the database.
		login()
		var n int
		must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT count(*) FROM logins`).Scan(&n)
		}))
		if n != 1 {
			t.Errorf("%d web logins are kept, want 1", n)
		}

		id, other := login(), login()
		by, err := w.WebLogin(t.Context(), id, "192.0.2.1")
		must(t, err)
		for range 2 {
			must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.EndWebLogin(tx, by) }))
		}
		if holds(id) || !holds(other) {
			t.Error("ending one ends the other, or not itself")
		}
	})
}

// A web login ends with the user, and with the password it was begun by.
func TestWebLoginEndsWithItsPassword(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		user := w.addUser(admin, "alice", KeysRead)
		hash, err := w.HashPassword(t.Context(), "another password")
		must(t, err)
		setPassword := func() error {
			return w.update(w.tenant, func(tx *store.Tx) error { return w.SetPassword(tx, admin, user.ID, hash) })
		}
		_, id, err := w.Login(t.Context(), "alice", "alicealice", "", "192.0.2.1")
		must(t, err)
		_, admins, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		must(t, setPassword())
		_, err = w.WebLogin(t.Context(), id, "")
		wantKind(t, "after another password", err, trust.Unauthenticated)
		if _, err := w.WebLogin(t.Context(), admins, ""); err != nil {
			t.Errorf("another user's: %v", err)
		}

		// A login that is under way when the password changes begins nothing.
		w.hasher.check = func(password, hash string) (bool, *argon2id.Params, error) {
			ok, used, err := argon2id.CheckHash(password, hash)
			must(t, setPassword())
			return ok, used, err
		}
		hash, err = w.HashPassword(t.Context(), "yet another password")
		must(t, err)
		_, id, err = w.Login(t.Context(), "alice", "another password", "", "192.0.2.1")
		wantKind(t, "the password changed meanwhile", err, trust.Unauthenticated)
		if id != "" {
			t.Error("a web login began by a password that has changed")
		}
		w.hasher.check = argon2id.CheckHash
		_, id, err = w.Login(t.Context(), "alice", "yet another password", "", "192.0.2.1")
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, admin, user.ID) }))
		_, err = w.WebLogin(t.Context(), id, "")
		wantKind(t, "after the user was removed", err, trust.Unauthenticated)
	})
}

func TestLoginsAreEvents(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		_, _, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		logins := w.events(w.tenant, "user.login")
		if len(logins) != 2 {
			t.Fatalf("%d events, want 2", len(logins))
		}
		for _, l := range logins {
			if l.Subject != "user:"+admin.ID || l.ActorKind != "user" || l.ActorID != admin.ID || l.Person != Person(admin.ID) || l.Name == nil || l.Source == nil {
				t.Errorf("event %+v", l)
			}
		}
	})
}

func fromHex(t *testing.T, text string) string {
	t.Helper()
	b, err := hex.DecodeString(text)
	must(t, err)
	return string(b)
}

// spellings are the forms in which a secret could stand in a file: base64 begins at
// any of three places.
func spellings(secret string) map[string]string {
	forms := map[string]string{"": secret, " in hex": hex.EncodeToString([]byte(secret)), " in upper hex": fmt.Sprintf("%X", secret)}
	for shift := range 3 {
		for name, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "URL's base64": base64.RawURLEncoding} {
			text := encoding.EncodeToString([]byte(strings.Repeat("\x00", shift) + secret))
			forms[fmt.Sprintf(" in %s, shifted by %d", name, shift)] = text[4 : len(text)-4]
		}
	}
	return forms
}

// A thief of the database finds nothing to log in with.
func TestStolenDatabase(t *testing.T) {
	secrets := func(t *testing.T, w *world) map[string]string {
		t.Helper()
		admin := w.admin()
		token, text, err := w.createToken(admin, NewToken{Name: "t", Permissions: []Permission{KeysRead}})
		must(t, err)
		_, id, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		oauth, err := w.PasswordGrant(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		login, err := w.PasswordLogin(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		jwt, _, err := w.IssueServiceToken(t.Context(), token.ID, text, "192.0.2.1")
		must(t, err)
		var key []byte
		must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) (err error) {
			key, err = w.keyring.Unseal(tx, signingKind, signingID)
			return err
		}))
		idp := oidctest.Start(t)
		w.addProviders(idp)
		idp.Say(w.says("1", oidctest.Claims{"preferred_username": "alice", "groups": groups("ops")}))
		alice, err := w.logIn()
		must(t, err)
		state, browsed := w.beginLogin()
		device, err := w.StartDeviceLogin(t.Context(), "corp", "192.0.2.1")
		must(t, err)
		job := idp.Token("keyturn", w.clock.Now(), oidctest.Claims{"repository": "acme/infra", "job": "audit"})
		machine, err := w.TokenLogin(t.Context(), "ci", job, "192.0.2.1")
		must(t, err)
		// Last, for from then on a password alone does not log in.
		var second TOTP
		must(t, w.update(w.tenant, func(tx *store.Tx) (err error) {
			second, err = w.OfferTOTP(tx, admin)
			return err
		}))
		code, err := totp.GenerateCode(second.Secret, w.clock.Now())
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.ConfirmTOTP(tx, admin, code) }))
		shared, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(second.Secret)
		must(t, err)
		_, err = w.Password(t.Context(), "typed-into-the-wrong-field", "x", "", "192.0.2.1")
		wantKind(t, "an unknown name", err, trust.Unauthenticated)
		return map[string]string{
			"login token by a provider": alice.Text[4:40], "state": state, "code": browsed, "verifier": verifier, "device code": device.Code, "client secret": oidctest.Secret,
			"job's token": job[strings.LastIndex(job, ".")+1:], "login token of a machine": machine.Text[4:40],
			"password": adminPassword, "token": text[3:40], "web login": id, "web login without dashes": strings.ReplaceAll(id, "-", ""),
			"service token": jwt[strings.LastIndex(jwt, ".")+1:], "signing key": string(key), "access token": oauth.Access, "refresh token": oauth.Refresh,
			"refresh token in bytes": fromHex(t, oauth.Refresh), "signing key in hex": fmt.Sprintf("%x", key),
			"login token": login.Text[4:40], "second factor": second.Secret, "second factor in bytes": string(shared),
			"unknown name": "typed-into-the-wrong-field",
		}
	}
	search := func(t *testing.T, where, content string, secrets map[string]string) {
		t.Helper()
		for what, secret := range secrets {
			for form, text := range spellings(secret) {
				if len(secret) < 10 || strings.Contains(content, text) {
					t.Errorf("%s holds the %s%s", where, what, form)
				}
			}
		}
	}
	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		w := newWorld(t, "sqlite:"+filepath.Join(dir, "keyturn.db"))
		found := secrets(t, w)
		files, err := filepath.Glob(dir + "/*")
		must(t, err)
		all := ""
		for _, file := range files {
			content, err := os.ReadFile(file)
			must(t, err)
			search(t, filepath.Base(file), string(content), found)
			all += string(content)
		}
		if !strings.Contains(all, "$argon2id$") {
			t.Error("the search did not look at the database")
		}
	})
	t.Run("postgres", func(t *testing.T) {
		dump := need.Program(t, "pg_dump", "postgresql-client")
		url := storetest.Postgres(t, schemas...)
		found := secrets(t, newWorld(t, url))
		cmd := exec.Command(dump, "--enable-row-security", url)
		cmd.Env = append(os.Environ(), "PGOPTIONS=-c keyturn.tenant=*") // of every tenant
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			errors.As(err, &exit)
			t.Fatalf("pg_dump: %v\n%s", err, exit.Stderr)
		}
		search(t, "the dump", string(out), found)
		if !strings.Contains(string(out), "$argon2id$") {
			t.Error("the search did not look at the database")
		}
	})
}

// A login token holds as long as it says, where a session of AppViewX does not and
// the other way about, and ends on its own.
func TestLoginToken(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		login := func() LoginToken {
			t.Helper()
			l, err := w.PasswordLogin(t.Context(), "admin", adminPassword, "", "192.0.2.1")
			must(t, err)
			return l
		}
		holds := func(text string) bool {
			t.Helper()
			_, err := w.Bearer(t.Context(), text, "192.0.2.1")
			if err != nil && trust.KindOf(err) != trust.Unauthenticated {
				t.Fatal(err)
			}
			return err == nil
		}
		l := login()
		if !regexp.MustCompile(`^ktl_[0-9A-Za-z]{49}$`).MatchString(l.Text) || l.Actor.Name != "admin" || !l.Actor.Until.Equal(w.clock.Now().Add(loginTokenLife)) {
			t.Fatalf("logged in as %+v", l)
		}
		a, err := w.Bearer(t.Context(), l.Text, "192.0.2.7:1")
		must(t, err)
		if a.Kind != "user" || a.Name != "admin" || a.Source != "192.0.2.7" || !a.May(All) || !a.Until.Equal(l.Actor.Until) || strings.Join(a.Roles, "") != "" {
			t.Errorf("acts as %+v", a)
		}
		_, session, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		if _, err := w.WebLogin(t.Context(), l.Text, "192.0.2.1"); err == nil {
			t.Error("a login token is taken for a session of AppViewX")
		}
		for _, bad := range []string{session, "ktl_", l.Text[:52], l.Text + "0", "ktl_" + strings.Repeat("0", 49), newLoginToken(), strings.Replace(l.Text, "ktl_", "kt_", 1)} {
			if holds(bad) {
				t.Errorf("%.60q holds", bad)
			}
		}
		w.clock.Advance(loginTokenIdle)
		if !holds(l.Text) {
			t.Error("it ended before it was idle for long")
		}
		w.clock.Advance(loginTokenIdle + loginTokenIdle/5 + time.Microsecond)
		if holds(l.Text) {
			t.Error("it holds however long it is not used")
		}
		for l = login(); holds(l.Text); w.clock.Advance(time.Hour) {
			if w.clock.Now().After(l.Actor.Until) {
				t.Fatal("it holds for ever")
			}
		}

		// It is ended by itself, and by no API token.
		l = login()
		a, err = w.Bearer(t.Context(), l.Text, "192.0.2.1")
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.EndWebLogin(tx, a) }))
		if holds(l.Text) {
			t.Error("ended, it holds")
		}
		if err := w.update(w.tenant, func(tx *store.Tx) error { return w.EndWebLogin(tx, w.admin()) }); trust.KindOf(err) != trust.Conflict {
			t.Errorf("whoever has not logged in ends %v", err)
		}
	})
}

// A login alone changes neither the password nor the second factor that it came by.
func TestLoginTokenChangesNoCredential(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		by := admin
		by.webLogin = "a login"
		hash, err := w.HashPassword(t.Context(), "another long password")
		must(t, err)
		fails(t, "password", w.update(w.tenant, func(tx *store.Tx) error { return w.SetPassword(tx, by, by.ID, hash) }), trust.Denied, "with a login alone")
		fails(t, "second factor", w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveTOTP(tx, by, by.ID) }), trust.Denied, "with a login alone")
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.SetPassword(tx, admin, admin.ID, hash) }))
	})
}

// A login of some time ago makes nothing that outlives it: whoever found its token would
// be in for longer than it holds.
func TestLoginTokenMakesNothingThatOutlivesIt(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		made, _, err := w.createToken(w.admin(), NewToken{Name: "there", Permissions: []Permission{All}})
		must(t, err)
		l, err := w.PasswordLogin(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		n := 0
		verbs := func() map[string]error {
			n++
			by, err := w.Bearer(t.Context(), l.Text, "192.0.2.1")
			must(t, err)
			name := fmt.Sprintf("made%d", n)
			_, _, created := w.createToken(by, NewToken{Name: name, Permissions: []Permission{KeysRead}})
			return map[string]error{
				"a token": created,
				"a token's text": w.update(w.tenant, func(tx *store.Tx) error {
					_, _, err := w.RotateToken(tx, by, made.ID, 0)
					return err
				}),
				"a role": w.update(w.tenant, func(tx *store.Tx) error {
					_, err := w.SetRole(tx, by, name, []Permission{KeysRead})
					return err
				}),
			}
		}
		for age := time.Duration(0); age < lastingWithin; age += 30 * time.Minute { // it ends when it is not used for long
			for what, err := range verbs() {
				if err != nil {
					t.Errorf("%s by a login of %s: %v", what, age, err)
				}
			}
			w.clock.Advance(30 * time.Minute)
		}
		w.clock.Advance(time.Second)
		for what, err := range verbs() {
			fails(t, what+" by an older login", err, trust.Denied, "older")
		}
	})
}

// A login of some time ago sets no second factor up: its user is not there to say so, and
// could not log in again.
func TestLoginTokenSetsUpASecondFactorAtOnce(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		l, err := w.PasswordLogin(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		offer := func() (secret string, err error) {
			by, err := w.Bearer(t.Context(), l.Text, "192.0.2.1")
			must(t, err)
			err = w.update(w.tenant, func(tx *store.Tx) error {
				o, err := w.OfferTOTP(tx, by)
				secret = o.Secret
				return err
			})
			return secret, err
		}
		w.clock.Advance(presentFor)
		secret, err := offer()
		must(t, err)
		w.clock.Advance(time.Second)
		_, err = offer()
		fails(t, "an older login", err, trust.Denied, "older")
		code, err := totp.GenerateCode(secret, w.clock.Now())
		must(t, err)
		by, err := w.Bearer(t.Context(), l.Text, "192.0.2.1")
		must(t, err)
		confirm := func(by Actor) error {
			return w.update(w.tenant, func(tx *store.Tx) error { return w.ConfirmTOTP(tx, by, code) })
		}
		fails(t, "an older login's code", confirm(by), trust.Denied, "older")
		must(t, confirm(w.admin())) // by password
	})
}

// A user, or a machine, who logs in ever more has so many logins, and the one that is not used
// gives way.
func TestWebLoginsAreBounded(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		bob := w.addUser(admin, "bobbob", KeysRead)
		i := oidctest.Start(t)
		w.addProviders(i)
		p, err := w.findProvider(t.Context(), "ci", Machines)
		must(t, err)
		begin := func(id, owner string) {
			must(t, w.update(w.tenant, func(tx *store.Tx) error { return beginWebLogin(tx, id, owner, lasting{loginTokenIdle, loginTokenLife}) }))
		}
		count := func(query string, args ...any) (n int) {
			must(t, w.view(func(tx *store.Tx) error { return tx.QueryRow(query, args...).Scan(&n) }))
			return n
		}
		begin("used", admin.ID)
		w.clock.Advance(time.Second)
		begin("unused", admin.ID)
		w.clock.Advance(time.Second)
		begin("of bob", bob.ID)
		for n := range maxWebLogins - 2 {
			begin(fmt.Sprint(n), admin.ID)
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return extendWebLogin(tx, webLoginHash("used")) }))
		begin("one more", admin.ID)
		holds := func(id string) bool {
			return count(`SELECT count(*) FROM logins WHERE id = $1`, webLoginHash(id)) == 1
		}
		if n := count(`SELECT count(*) FROM logins WHERE owner = $1`, admin.ID); n != maxWebLogins || holds("unused") || !holds("used") || !holds("one more") || !holds("of bob") {
			t.Errorf("there are %d logins", n)
		}

		claims := oidctest.Claims{"sub": "job", "repository": "acme/infra", "job": "audit"}
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			for n := range maxWebLogins + 5 {
				if err := insertMachineLogin(tx, fmt.Sprint(n), p.ID, "job", nil, tx.Now().Add(time.Minute)); err != nil {
					return err
				}
			}
			return insertMachineLogin(tx, "another", p.ID, "another job", nil, tx.Now().Add(time.Minute))
		}))
		l, err := w.TokenLogin(t.Context(), "ci", i.Token("keyturn", w.clock.Now(), claims), "192.0.2.5")
		must(t, err)
		_, err = w.Bearer(t.Context(), l.Text, "192.0.2.5")
		must(t, err)
		if n := count(`SELECT count(*) FROM machine_logins`); n != maxWebLogins+1 {
			t.Errorf("there are %d logins of machines", n)
		}
	})
}
