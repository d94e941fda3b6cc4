package identity

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/pquerna/otp/totp"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// begin begins a grant of a user whose password is the name twice.
func (w *world) begin(name string) OAuthTokens {
	w.t.Helper()
	t, err := w.PasswordGrant(w.t.Context(), name, name+name, "", "192.0.2.1")
	must(w.t, err)
	return t
}

// holds reports whether an access token does.
func (w *world) holds(t OAuthTokens) bool {
	w.t.Helper()
	_, err := w.AccessToken(w.t.Context(), t.Access, "192.0.2.1")
	if err != nil {
		wantKind(w.t, "an access token", err, trust.Unauthenticated)
	}
	return err == nil
}

// refresh exchanges a refresh token and reports whether it was good.
func (w *world) refresh(t OAuthTokens) (OAuthTokens, bool) {
	w.t.Helper()
	next, err := w.RefreshGrant(w.t.Context(), t.Refresh, "192.0.2.1")
	if err != nil {
		wantKind(w.t, "a refresh token", err, trust.Unauthenticated)
	}
	return next, err == nil
}

func TestGrant(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		alice := w.addUser(w.admin(), "alice", KeysRead)
		tokens := w.begin("alice")
		form := regexp.MustCompile(`^[0-9a-f]{40}$`)
		if !form.MatchString(tokens.Access) || !form.MatchString(tokens.Refresh) || tokens.Access == tokens.Refresh || tokens.Lasts != time.Hour {
			t.Errorf("granted %+v", tokens)
		}
		a, err := w.AccessToken(t.Context(), tokens.Access, "192.0.2.7:1")
		if must(t, err); a.Tenant != w.tenant || a.Kind != "user" || a.ID != alice.ID || a.Owner != alice.ID || a.Name != "alice" || a.Source != "192.0.2.7" || !a.May(KeysRead) || a.May(KeysWrite) {
			t.Errorf("acts as %+v", a)
		}
		for _, bad := range []string{"", "x", tokens.Refresh, strings.ToUpper(tokens.Access), " " + tokens.Access, tokens.Access[:39], newOAuthTokens().Access, strings.Repeat("a", 1<<20), string(oauthHash(tokens.Access))} {
			_, err := w.AccessToken(t.Context(), bad, "192.0.2.1")
			wantKind(t, fmt.Sprintf("access token %.50q", bad), err, trust.Unauthenticated)
		}
		for _, bad := range []string{"", "x", tokens.Access, newOAuthTokens().Refresh, strings.Repeat("a", 1<<20)} {
			_, err := w.RefreshGrant(t.Context(), bad, "192.0.2.1")
			wantKind(t, fmt.Sprintf("refresh token %.50q", bad), err, trust.Unauthenticated)
		}
		got, err := w.PasswordGrant(t.Context(), "alice", "wrong", "", "192.0.2.1")
		if wantKind(t, "a grant by a wrong password", err, trust.Unauthenticated); got.Access != "" || got.Refresh != "" {
			t.Error("it has tokens")
		}

		// What the user may do, the token may, as soon as that changes.
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			return w.SetRights(tx, w.admin(), alice.ID, Rights{Permissions: []Permission{HostsRead}})
		}))
		if a, err = w.AccessToken(t.Context(), tokens.Access, ""); err != nil || a.May(KeysRead) || !a.May(HostsRead) {
			t.Errorf("after other rights it acts as %+v, %v", a, err)
		}

		// An hour, and two weeks; a refresh token is good once, and ends both.
		next, ok := w.refresh(tokens)
		if !ok || w.holds(tokens) || !w.holds(next) {
			t.Error("a refresh ends the tokens that it gives, or not those that it replaces")
		}
		if _, ok := w.refresh(tokens); ok {
			t.Error("a refresh token is good twice")
		}
		w.clock.Advance(time.Hour - time.Microsecond)
		if !w.holds(next) {
			t.Error("an access token ends before an hour has gone")
		}
		w.clock.Advance(time.Microsecond)
		if w.holds(next) {
			t.Error("an access token holds after an hour")
		}
		w.clock.Advance(14*24*time.Hour - time.Hour - time.Microsecond)
		last, ok := w.refresh(next)
		if !ok || !w.holds(last) {
			t.Error("a refresh token ends before two weeks have gone")
		}
		w.clock.Advance(14 * 24 * time.Hour)
		if _, ok := w.refresh(last); ok {
			t.Error("a refresh token is good after two weeks")
		}

		w.begin("alice") // what has ended does not stay in the database
		n := 0
		must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT count(*) FROM oauth_grants`).Scan(&n)
		}))
		if n != 1 {
			t.Errorf("%d grants are kept, want 1", n)
		}
		logins, refreshes := w.events(w.tenant, "user.login"), w.events(w.tenant, "oauth-grant.refresh")
		grants := map[string]bool{}
		for _, l := range logins {
			if id := field(l, "oauth-grant"); id != "" && l.Subject == "user:"+alice.ID && l.ActorID == alice.ID {
				grants["oauth-grant:"+id] = true
			}
		}
		if len(grants) != 2 || len(refreshes) != 2 || !grants[refreshes[0].Subject] || refreshes[0].ActorID != alice.ID {
			t.Errorf("the log tells of the grants %v and of %+v", grants, refreshes)
		}
	})
}

// Of many who refresh by one token at once, one has.
func TestRefreshRaces(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.addUser(w.admin(), "alice", KeysRead)
		tokens := w.begin("alice")
		var good atomic.Int32
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, ok := w.refresh(tokens); ok {
					good.Add(1)
				}
			})
		}
		if wg.Wait(); good.Load() != 1 {
			t.Errorf("it was good %d times", good.Load())
		}
	})
}

// A user has twenty grants at most, whoever else has how many.
func TestGrantsAreBounded(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		w.addUser(admin, "alice", KeysRead)
		w.addUser(admin, "robert", KeysRead)
		bobs := w.begin("robert")
		var all []OAuthTokens
		for range maxGrants + 1 {
			w.clock.Advance(time.Second)
			all = append(all, w.begin("alice"))
		}
		if w.holds(all[0]) || !w.holds(all[1]) || !w.holds(all[maxGrants]) || !w.holds(bobs) {
			t.Error("one more than there may be does not end the oldest alone")
		}
	})
}

// A grant ends with the user, and with the password and the second factor it was
// had by.
func TestGrantEndsWithItsPassword(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		user := w.addUser(admin, "alice", KeysRead)
		login := Actor{Tenant: w.tenant, Kind: "user", ID: user.ID, Name: "alice", Owner: user.ID, Permissions: user.Permissions}
		w.addUser(admin, "robert", KeysRead)
		bobs := w.begin("robert")
		ended := func(what string, tokens OAuthTokens, change func(tx *store.Tx) error) {
			t.Helper()
			if !w.holds(tokens) {
				t.Fatalf("%s: it does not hold before", what)
			}
			must(t, w.update(w.tenant, change))
			if _, ok := w.refresh(tokens); ok || w.holds(tokens) {
				t.Errorf("%s does not end it", what)
			}
			if !w.holds(bobs) {
				t.Errorf("%s ends another user's", what)
			}
		}
		hash, err := w.HashPassword(t.Context(), "alicealice")
		must(t, err)
		setPassword := func(tx *store.Tx) error { return w.SetPassword(tx, admin, user.ID, hash) }
		ended("another password", w.begin("alice"), setPassword)

		// A login that is under way when the password, or the second factor,
		// changes begins nothing.
		var o TOTP
		code := func(steps int) string {
			t.Helper()
			c, err := totp.GenerateCode(o.Secret, w.clock.Now().Add(time.Duration(steps)*30*time.Second))
			must(t, err)
			return c
		}
		offer := func(tx *store.Tx) (err error) {
			o, err = w.OfferTOTP(tx, login)
			return err
		}
		confirm := func(tx *store.Tx) error { return w.ConfirmTOTP(tx, login, code(0)) }
		remove := func(tx *store.Tx) error { return w.RemoveTOTP(tx, admin, user.ID) }
		must(t, w.update(w.tenant, offer))
		hash, err = w.HashPassword(t.Context(), "alicealice") // salted anew
		must(t, err)
		for _, meanwhile := range []struct {
			what   string
			change func(*store.Tx) error
		}{{"password", setPassword}, {"second factor", confirm}} {
			w.hasher.check = func(password, hash string) (bool, *argon2id.Params, error) {
				must(t, w.update(w.tenant, meanwhile.change))
				return argon2id.CheckHash(password, hash)
			}
			_, err = w.PasswordGrant(t.Context(), "alice", "alicealice", "", "192.0.2.1")
			wantKind(t, "the "+meanwhile.what+" changed meanwhile", err, trust.Unauthenticated)
			w.hasher.check = argon2id.CheckHash
		}
		must(t, w.update(w.tenant, remove))

		tokens := w.begin("alice")
		must(t, w.update(w.tenant, offer))
		w.clock.Advance(time.Minute)
		ended("a second factor", tokens, confirm)
		w.clock.Advance(time.Minute)
		for _, wrong := range []string{"", "000000"} {
			_, err := w.PasswordGrant(t.Context(), "alice", "alicealice", wrong, "192.0.2.1")
			wantKind(t, "a grant without its code", err, trust.Unauthenticated)
		}
		tokens, err = w.PasswordGrant(t.Context(), "alice", "alicealice", code(0), "192.0.2.1")
		must(t, err)
		_, err = w.PasswordGrant(t.Context(), "alice", "alicealice", code(0), "192.0.2.1")
		wantKind(t, "a second grant by one code", err, trust.Unauthenticated)
		tokens, ok := w.refresh(tokens) // which needs none
		if !ok {
			t.Fatal("no refresh without a code")
		}
		ended("no second factor any more", tokens, remove)
		ended("the end of the user", w.begin("alice"), func(tx *store.Tx) error { return w.RemoveUser(tx, admin, user.ID) })
	})
}

// A grant acts in its own tenant, for the user of a name there.
func TestGrantsOfTenants(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		stranger := w.otherTenant()
		tokens, err := w.PasswordGrant(t.Context(), "other/admin", adminPassword, "", "192.0.2.1")
		must(t, err)
		for range 2 {
			a, err := w.AccessToken(t.Context(), tokens.Access, "")
			if err != nil || a.Tenant != storetest.Other || a.ID != stranger.ID {
				t.Errorf("acts as %+v, %v", a, err)
			}
			if tokens, err = w.RefreshGrant(t.Context(), tokens.Refresh, "192.0.2.1"); err != nil {
				t.Fatal(err)
			}
		}
		if n := len(w.events(storetest.Other, "oauth-grant.refresh")); n != 2 || len(w.events(w.tenant, "oauth-grant.refresh")) != 0 {
			t.Errorf("%d refreshes are told of, or the other tenant is", n)
		}
		hash, err := w.HashPassword(t.Context(), "another password")
		must(t, err)
		admin := w.admin()
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.SetPassword(tx, admin, admin.ID, hash) }))
		if !w.holds(tokens) {
			t.Error("a password of one tenant ends the grant of another's user of that name")
		}
	})
}
