package identity

import (
	"bytes"
	"encoding/base32"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/totp"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// The codes of RFC 6238, appendix B, in the six digits of every app.
func TestTOTPVectors(t *testing.T) {
	secret := []byte("12345678901234567890")
	for at, code := range map[int64]string{
		59: "287082", 1111111109: "081804", 1111111111: "050471", 1234567890: "005924", 2000000000: "279037", 20000000000: "353130",
	} {
		if got := totpMatch(secret, code, time.Unix(at, 0)); got != at/30 {
			t.Errorf("at %d the code %s is of step %d, want %d", at, code, got, at/30)
		}
		for _, drift := range []int64{-2, 2} {
			if got := totpMatch(secret, code, time.Unix(at+drift*30, 0)); got != 0 && at > 60 {
				t.Errorf("%d steps away the code %s still is of step %d", drift, code, got)
			}
		}
	}
	for _, wrong := range []string{"", "28708", "2870822", "287 082x", "abcdef"} {
		if got := totpMatch(secret, wrong, time.Unix(59, 0)); got != 0 {
			t.Errorf("%q is a code", wrong)
		}
	}
	if totpMatch(secret, " 287 082 ", time.Unix(59, 0)) == 0 {
		t.Error("a code as apps show it is not taken")
	}
}

// Who has a second factor does not log in without a code of it, and with each code
// once.
func TestTOTP(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		offer := func(by Actor) (o TOTP, err error) {
			err = w.update(by.Tenant, func(tx *store.Tx) (err error) {
				o, err = w.OfferTOTP(tx, by)
				return err
			})
			return o, err
		}
		confirm := func(by Actor, code string) error {
			return w.update(by.Tenant, func(tx *store.Tx) error { return w.ConfirmTOTP(tx, by, code) })
		}
		wantKind(t, "confirming what was not offered", confirm(admin, "123456"), trust.Conflict)
		_, err := offer(admin)
		must(t, err)
		o, err := offer(admin)
		must(t, err)
		if u, err := url.Parse(o.URL); err != nil || u.Scheme != "otpauth" || u.Host != "totp" || u.Path != "/Keyturn:admin" || u.Query().Get("secret") != o.Secret || u.Query().Get("issuer") != "Keyturn" {
			t.Errorf("the key URI is %s, %v", o.URL, err)
		}
		code := func(steps int) string {
			t.Helper()
			c, err := totp.GenerateCodeCustom(o.Secret, w.clock.Now().Add(time.Duration(steps)*30*time.Second), totp.ValidateOpts{Period: 30, Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1})
			must(t, err)
			return c
		}
		login := func(code string) error {
			_, err := w.Password(t.Context(), "admin", adminPassword, code, "192.0.2.1")
			return err
		}
		must(t, login("")) // it does not count yet
		_, webLogin, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		wantKind(t, "a wrong code", confirm(admin, "000000"), trust.Invalid)
		must(t, confirm(admin, code(0)))
		_, err = w.WebLogin(t.Context(), webLogin, "192.0.2.1")
		wantKind(t, "a web login from before", err, trust.Unauthenticated)
		_, err = offer(admin)
		wantKind(t, "another second factor", err, trust.Conflict)

		err = login("")
		wantKind(t, "no code", err, trust.Unauthenticated)
		if !strings.Contains(err.Error(), "second factor") {
			t.Errorf("who has the password is not told of the second factor: %v", err)
		}
		_, err = w.Password(t.Context(), "admin", "wrong", "", "192.0.2.2")
		if wantKind(t, "no code and a wrong password", err, trust.Unauthenticated); strings.Contains(err.Error(), "second factor") {
			t.Errorf("who has not the password is told of the second factor: %v", err)
		}
		wantKind(t, "the code that confirmed", login(code(0)), trust.Unauthenticated)
		w.clock.Advance(time.Hour)
		must(t, login(code(0)))
		must(t, login(code(0))) // lately verified: the same command goes on asking
		_, err = w.Password(t.Context(), "admin", adminPassword, code(0), "192.0.2.9")
		wantKind(t, "the same code from elsewhere", err, trust.Unauthenticated)
		_, err = newDirectoryLike(w).Password(t.Context(), "admin", adminPassword, code(0), "192.0.2.1")
		wantKind(t, "the same code at another node", err, trust.Unauthenticated)
		wantKind(t, "the code before", login(code(-1)), trust.Unauthenticated)
		must(t, login(code(1)))
		_, err = w.Password(t.Context(), "admin", adminPassword, code(0), "192.0.2.9")
		wantKind(t, "a code out of order", err, trust.Unauthenticated)
		w.clock.Advance(time.Hour)
		_, id, err := w.Login(t.Context(), "admin", adminPassword, code(0), "192.0.2.1")
		must(t, err)
		_, err = w.WebLogin(t.Context(), id, "192.0.2.1")
		must(t, err)

		// A token needs no code, and can neither make nor confirm one.
		_, text, err := w.createToken(admin, NewToken{Name: "t", Permissions: []Permission{All}})
		must(t, err)
		token, err := w.Token(t.Context(), text, "192.0.2.1")
		must(t, err)
		_, err = offer(token)
		wantKind(t, "a token", err, trust.Denied)
		wantKind(t, "a token confirming", confirm(token, code(0)), trust.Denied)

		// The secret lies nowhere in a form that somebody can read.
		if raw, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(o.Secret); err != nil {
			t.Error(err)
		} else if w.dir != "" {
			files, err := filepath.Glob(filepath.Join(w.dir, "*"))
			must(t, err)
			for _, f := range files {
				data, err := os.ReadFile(f)
				must(t, err)
				if bytes.Contains(data, raw) || bytes.Contains(data, []byte(o.Secret)) {
					t.Errorf("%s holds the secret", f)
				}
			}
		}

		// Another administrator takes it away for who has lost it; nobody else.
		boss := w.addUser(admin, "boss", All)
		w.addUser(admin, "helpdesk", UsersWrite)
		as := func(name string) Actor {
			a, err := w.Password(t.Context(), name, name+name, "", "192.0.2.1")
			must(t, err)
			return a
		}
		remove := func(by Actor, id string) error {
			return w.update(by.Tenant, func(tx *store.Tx) error { return w.RemoveTOTP(tx, by, id) })
		}
		wantKind(t, "somebody who may less", remove(as("helpdesk"), admin.ID), trust.Denied)
		must(t, remove(as("boss"), admin.ID))
		w.clock.Advance(time.Hour)
		must(t, login(""))
		must(t, remove(as("boss"), boss.ID))
		wantKind(t, "another tenant's user", remove(w.otherTenant(), admin.ID), trust.NotFound)
	})
}

// Guesses of a code are slowed down as those of a password are.
func TestTOTPGuesses(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		var o TOTP
		must(t, w.update(w.tenant, func(tx *store.Tx) (err error) {
			o, err = w.OfferTOTP(tx, admin)
			return err
		}))
		first, err := totp.GenerateCode(o.Secret, w.clock.Now())
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.ConfirmTOTP(tx, admin, first) }))
		refused := 0
		for range 100 {
			_, err := w.Password(t.Context(), "admin", adminPassword, "000000", "198.51.100.7")
			if trust.KindOf(err) == trust.Exhausted {
				refused++
			} else {
				wantKind(t, "a guess", err, trust.Unauthenticated)
			}
		}
		if refused != 100-freePair {
			t.Errorf("%d of 100 guesses were refused unseen, want %d", refused, 100-freePair)
		}
	})
}
