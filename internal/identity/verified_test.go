package identity

import (
	"fmt"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alexedwards/argon2id"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Whoever asks again and again with a password costs one hashing and one event a
// minute.
func TestPasswordIsVerifiedOnceAMinute(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		hashings := countHashings(w)
		for range 2 {
			for i := range 100 {
				a, err := w.Password(t.Context(), "admin", adminPassword, "", fmt.Sprint("192.0.2.1:", 1000+i))
				must(t, err)
				if a.Tenant != w.tenant || a.Kind != "user" || a.Name != "admin" || a.Source != "192.0.2.1" || !a.May(KeysReveal) {
					t.Fatalf("the admin is %+v", a)
				}
			}
			w.clock.Advance(verifiedFor)
		}
		if logins := len(w.events(w.tenant, "user.login")); *hashings != 2 || logins != 2 {
			t.Errorf("%d hashings and %d events in two minutes, want 2 each", *hashings, logins)
		}
		if other, err := newDirectoryLike(w).Password(t.Context(), "admin", adminPassword, "", "192.0.2.1"); err != nil || other.Name != "admin" {
			t.Errorf("another node: %+v, %v", other, err)
		}
		if logins := len(w.events(w.tenant, "user.login")); logins != 3 {
			t.Errorf("a node knows what another one verified: %d events, want 3", logins)
		}
	})
}

// What was verified helps nothing else: no other password, name, tenant or
// address, no web login, and nobody whose password was changed or who was removed.
func TestVerifiedPasswordHelpsNothingElse(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		alice := w.addUser(admin, "alice", KeysRead)
		w.addUser(admin, "alic", KeysRead)
		w.otherTenant()
		hashings := countHashings(w)
		try := func(what, user, password, from string, ok bool, want int) {
			t.Helper()
			*hashings = 0
			_, err := w.Password(t.Context(), user, password, "", from)
			if ok && err != nil || !ok && trust.KindOf(err) != trust.Unauthenticated {
				t.Errorf("%s: %v", what, err)
			}
			if *hashings != want {
				t.Errorf("%s: %d hashings, want %d", what, *hashings, want)
			}
		}
		here := "192.0.2.2"
		try("the first time", "alice", "alicealice", here, true, 1)
		try("again", "alice", "alicealice", here, true, 0)
		try("in capitals", "default/ALICE", "alicealice", here, true, 0)
		try("wrong password", "alice", "alicealicf", here, false, 1)
		try("no password", "alice", "", here, false, 1)
		try("another's name", "admin", "alicealice", here, false, 1)
		try("the same letters", "alic", "ealicealice", here, false, 1)
		try("another tenant's user", "other/admin", adminPassword, "192.0.2.1", true, 1)
		try("a name that nobody has", "bob", "alicealice", here, false, 1)
		try("from elsewhere", "alice", "alicealice", "192.0.2.3", true, 1)

		*hashings = 0
		_, _, err := w.Login(t.Context(), "alice", "alicealice", "", here)
		must(t, err)
		if *hashings != 1 {
			t.Errorf("a web login costs %d hashings, want one", *hashings)
		}

		setPassword := func(password string) {
			t.Helper()
			hash, err := w.HashPassword(t.Context(), password)
			must(t, err)
			must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.SetPassword(tx, admin, alice.ID, hash) }))
		}
		setPassword("another password")
		try("after a change", "alice", "alicealice", here, false, 1)
		setPassword("alicealice")
		try("after it was changed back", "alice", "alicealice", here, true, 1)
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, admin, alice.ID) }))
		try("after the user was removed", "alice", "alicealice", here, false, 1)
		w.addUser(admin, "alice", KeysRead)
		try("another user of that name", "alice", "alicealice", here, true, 1)
	})
}

// Where wrong passwords are being tried one has to wait with the right one too,
// and the log is told of them with the next login.
func TestVerifiedPasswordWaitsWithTheOthers(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.admin()
		for range freePair {
			_, err := w.Password(t.Context(), "admin", "wrong", "", "192.0.2.1")
			wantKind(t, "a wrong password", err, trust.Unauthenticated)
		}
		_, err := w.Password(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		wantKind(t, "the right one after them", err, trust.Exhausted)
		w.clock.Advance(firstWait)
		if _, err := w.Password(t.Context(), "admin", adminPassword, "", "192.0.2.1"); err != nil {
			t.Errorf("after the wait: %v", err)
		}
		_, err = w.Password(t.Context(), "admin", "wrong", "", "192.0.2.1")
		wantKind(t, "one more wrong one", err, trust.Unauthenticated)
		_, err = w.Password(t.Context(), "admin", "wrong", "", "192.0.2.1")
		wantKind(t, "which has not been forgiven", err, trust.Exhausted)

		w.clock.Advance(verifiedFor)
		w.admin()
		logins := w.events(w.tenant, "user.login")
		if last := logins[len(logins)-1]; len(logins) != 2 || field(last, "failures") != strconv.Itoa(freePair+2) {
			t.Errorf("%d logins, the last tells of %q failures, want %d: 4 of the burst, one while waiting, and the two at the end", len(logins), field(last, "failures"), freePair+2)
		}
	})
}

func TestVerifiedForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := newVerified(time.Now)
		mac := v.mac(loginRow{}, "hash", "password", "", "192.0.2.1")
		if v.lately(mac) {
			t.Error("known before it was remembered")
		}
		v.remember(mac)
		time.Sleep(verifiedFor - 1)
		if !v.lately(mac) {
			t.Error("forgotten within the minute")
		}
		time.Sleep(time.Nanosecond)
		if v.lately(mac) {
			t.Error("known after a minute")
		}
	})
}

func TestVerifiedIsBounded(t *testing.T) {
	v := newVerified(time.Now)
	for i := range 3 * maxVerified {
		mac := v.mac(loginRow{}, "hash", strconv.Itoa(i), "", "192.0.2.1")
		v.remember(mac)
		if !v.lately(mac) {
			t.Fatalf("forgets the last of %d", i)
		}
	}
	if len(v.until) > maxVerified {
		t.Errorf("remembers %d", len(v.until))
	}
}

// countHashings counts how often the world compares a password with a hash.
func countHashings(w *world) *int {
	hashings := 0
	w.hasher.check = func(password, hash string) (bool, *argon2id.Params, error) {
		hashings++
		return argon2id.CheckHash(password, hash)
	}
	return &hashings
}

// newDirectoryLike returns the Directory of another node on the same database.
func newDirectoryLike(w *world) *Directory {
	d, err := open(w.store, w.keyring, Options{Now: w.clock.Now, Log: w.log}, cheap)
	must(w.t, err)
	return d
}
