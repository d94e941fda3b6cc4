package identity

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// otherEnd returns text with another last character.
func otherEnd(text string) string {
	last := "0"
	if strings.HasSuffix(text, last) {
		last = "1"
	}
	return text[:len(text)-1] + last
}

func TestTokens(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		token, text, err := w.createToken(admin, NewToken{Name: "ci", Permissions: []Permission{KeysWrite, RunsRead}, Valid: time.Hour})
		must(t, err)
		if token.Name != "ci" || token.Owner != admin.ID || token.Parent != "" || token.Expires.Sub(token.Created) != time.Hour {
			t.Errorf("made %+v", token)
		}
		a, err := w.Token(t.Context(), text, "[2001:db8::1]:99")
		must(t, err)
		if a.Kind != "token" || a.ID != token.ID || a.Name != "ci" || a.Owner != admin.ID || a.Tenant != w.tenant || a.Source != "2001:db8::1" {
			t.Errorf("acts as %+v", a)
		}
		if !a.May(KeysWrite) || !a.May(KeysRead) || !a.May(RunsRead) || a.May(RunsWrite) || a.May(KeysReveal) || a.May(All) {
			t.Errorf("may %q", a.Permissions)
		}
		if actor := a.Audit(); actor.Person != Person(admin.ID) || actor.Kind != "token" || actor.ID != token.ID {
			t.Errorf("is audited as %+v", actor)
		}
		for _, other := range []string{newToken(), "", "Bearer " + text, otherEnd(text), token.ID} {
			_, err := w.Token(t.Context(), other, "192.0.2.1")
			wantKind(t, "another text", err, trust.Unauthenticated)
		}

		if b, err := w.UserToken(t.Context(), "ADMIN", text, "2001:db8::1"); err != nil || b.ID != a.ID {
			t.Errorf("of its user acts as %+v: %v", b, err)
		}
		for _, user := range []string{"", "nobody", admin.ID, "ci"} {
			_, err := w.UserToken(t.Context(), user, text, "")
			wantKind(t, "as the token of "+user, err, trust.Unauthenticated)
		}

		w.clock.Advance(time.Hour - time.Microsecond)
		if _, err := w.Token(t.Context(), text, ""); err != nil {
			t.Errorf("just before its end: %v", err)
		}
		w.clock.Advance(time.Microsecond)
		_, err = w.Token(t.Context(), text, "")
		wantKind(t, "at its end", err, trust.Unauthenticated)

		forever, text, err := w.createToken(admin, NewToken{Name: "for ever", Permissions: []Permission{All}})
		must(t, err)
		w.clock.Advance(20 * 365 * 24 * time.Hour)
		if a, err := w.Token(t.Context(), text, ""); err != nil || !a.May(All) || !a.May(KeysReveal) {
			t.Errorf("one without end, 20 years on: %+v, %v", a, err)
		}
		must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) error {
			list, err := w.Tokens(tx)
			if len(list) != 2 || list[0].ID != forever.ID || list[1].ID != token.ID || !list[0].Expires.IsZero() {
				t.Errorf("list %+v", list)
			}
			return err
		}))
		revoke := func(id string) (n int, err error) {
			err = w.update(w.tenant, func(tx *store.Tx) (err error) { ids, err := w.RevokeToken(tx, id); n = len(ids); return err })
			return n, err
		}
		if n, err := revoke(forever.ID); n != 1 || err != nil {
			t.Errorf("revoked %d, %v", n, err)
		}
		_, err = w.Token(t.Context(), text, "")
		wantKind(t, "a revoked one", err, trust.Unauthenticated)
		for _, id := range []string{forever.ID, newID(), "", "x\x00", text} {
			_, err = revoke(id)
			wantKind(t, fmt.Sprintf("revoking %q", id), err, trust.NotFound)
		}
	})
}

func TestCreateTokenRefuses(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.addUser(w.admin(), "clerk", KeysWrite, TokensWrite)
		clerk, err := w.Password(t.Context(), "clerk", "clerkclerk", "", "192.0.2.1")
		must(t, err)
		for name, c := range map[string]struct {
			n    NewToken
			want trust.Kind
		}{
			"no name":              {NewToken{Permissions: []Permission{KeysRead}}, trust.Invalid},
			"two lines":            {NewToken{Name: "a\nb", Permissions: []Permission{KeysRead}}, trust.Invalid},
			"a long name":          {NewToken{Name: strings.Repeat("x", 129), Permissions: []Permission{KeysRead}}, trust.Invalid},
			"not UTF-8":            {NewToken{Name: "\xff", Permissions: []Permission{KeysRead}}, trust.Invalid},
			"no permissions":       {NewToken{Name: "x"}, trust.Invalid},
			"unknown permission":   {NewToken{Name: "x", Permissions: []Permission{"Keys"}}, trust.Invalid},
			"what it has not":      {NewToken{Name: "x", Permissions: []Permission{KeysRead, KeysReveal}}, trust.Denied},
			"all":                  {NewToken{Name: "x", Permissions: []Permission{All}}, trust.Denied},
			"write for its read":   {NewToken{Name: "x", Permissions: []Permission{RunsWrite}}, trust.Denied},
			"already over":         {NewToken{Name: "x", Permissions: []Permission{KeysRead}, Valid: -time.Second}, trust.Invalid},
			"a life of a hundred":  {NewToken{Name: "x", Permissions: []Permission{KeysRead}, Valid: 100 * 365 * 24 * time.Hour}, trust.Invalid},
			"what no token can be": {NewToken{Name: "x", Permissions: []Permission{KeysRead}, Valid: 1<<63 - 1}, trust.Invalid},
		} {
			_, text, err := w.createToken(clerk, c.n)
			wantKind(t, name, err, c.want)
			if text != "" {
				t.Errorf("%s: a token is given all the same", name)
			}
		}
		if _, _, err := w.createToken(clerk, NewToken{Name: "reads", Permissions: []Permission{KeysRead, TokensWrite}}); err != nil {
			t.Errorf("the read of what it may write: %v", err)
		}
		_, _, err = w.createToken(System(w.tenant), NewToken{Name: "x", Permissions: []Permission{KeysRead}})
		wantKind(t, "for nobody", err, trust.Denied)
		gone := clerk
		gone.ID, gone.Owner = newID(), newID()
		_, _, err = w.createToken(gone, NewToken{Name: "x", Permissions: []Permission{KeysRead}})
		wantKind(t, "for a user who has gone", err, trust.Unauthenticated)
	})
}

// A token may do what its owner may do now, and ends with its owner.
func TestTokensFollowTheirOwner(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		user := w.addUser(admin, "clerk", KeysWrite, KeysReveal, TokensWrite)
		clerk, err := w.Password(t.Context(), "clerk", "clerkclerk", "", "192.0.2.1")
		must(t, err)
		_, text, err := w.createToken(clerk, NewToken{Name: "t", Permissions: []Permission{KeysWrite, KeysReveal}})
		must(t, err)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			return w.SetRights(tx, admin, user.ID, Rights{Permissions: []Permission{KeysRead, HostsRead}})
		}))
		a, err := w.Token(t.Context(), text, "")
		if err != nil || !slices.Equal(a.Permissions, []Permission{KeysRead}) {
			t.Errorf("after its owner lost permissions it may %q, %v", a.Permissions, err)
		}
		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, admin, user.ID) }))
		_, err = w.Token(t.Context(), text, "")
		wantKind(t, "after its owner was removed", err, trust.Unauthenticated)
	})
}

// What a token makes is of its owner, is no more than itself, does not outlive it
// and goes with it: a thief of one gains nothing by making more.
func TestTokensMadeByTokens(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		act := func(text string) Actor {
			t.Helper()
			a, err := w.Token(t.Context(), text, "")
			must(t, err)
			return a
		}
		stolen, text, err := w.createToken(admin, NewToken{Name: "stolen", Permissions: []Permission{TokensWrite, KeysRead}, Valid: 24 * time.Hour})
		must(t, err)
		_, _, err = w.createToken(act(text), NewToken{Name: "more", Permissions: []Permission{KeysWrite}})
		wantKind(t, "more than itself", err, trust.Denied)
		child, childText, err := w.createToken(act(text), NewToken{Name: "child", Permissions: []Permission{TokensWrite, KeysRead}})
		must(t, err)
		grandchild, grandchildText, err := w.createToken(act(childText), NewToken{Name: "grandchild", Permissions: []Permission{KeysRead}, Valid: 365 * 24 * time.Hour})
		must(t, err)
		if child.Parent != stolen.ID || grandchild.Parent != child.ID || child.Owner != admin.ID || grandchild.Owner != admin.ID {
			t.Errorf("child %+v, grandchild %+v", child, grandchild)
		}
		for _, c := range []Token{child, grandchild} {
			if !c.Expires.Equal(stolen.Expires) {
				t.Errorf("%s ends at %s, not with its parent at %s", c.Name, c.Expires, stolen.Expires)
			}
		}
		_, other, err := w.createToken(admin, NewToken{Name: "other", Permissions: []Permission{KeysRead}})
		must(t, err)
		late := act(childText)
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			ids, err := w.RevokeToken(tx, stolen.ID)
			if len(ids) != 3 || !slices.Contains(ids, stolen.ID) {
				t.Errorf("revoked %q, want 3", ids)
			}
			return err
		}))
		for _, text := range []string{text, childText, grandchildText} {
			_, err := w.Token(t.Context(), text, "")
			wantKind(t, "after the first was revoked", err, trust.Unauthenticated)
		}
		_, _, err = w.createToken(late, NewToken{Name: "late", Permissions: []Permission{KeysRead}})
		wantKind(t, "made by one that was just revoked", err, trust.Unauthenticated)
		act(other)
	})
}

// Its use is written down at the first time, and then now and again, each time as
// an event that says from where.
func TestTokenUseIsWrittenDownLazily(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		token, text, err := w.createToken(w.admin(), NewToken{Name: "t", Permissions: []Permission{KeysRead}})
		must(t, err)
		used := func() (at time.Time) {
			must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) error {
				row, err := selectToken(tx, token.ID)
				at = row.Used
				return err
			}))
			return at
		}
		if !used().IsZero() {
			t.Errorf("used at %s before it was", used())
		}
		start := w.clock.Now()
		for range 61 { // of a minute each
			if _, err := w.Token(t.Context(), text, "192.0.2.1"); err != nil {
				t.Fatal(err)
			}
			if behind := w.clock.Now().Sub(used()); behind >= useInterval {
				t.Fatalf("what is written down is %s behind", behind)
			}
			w.clock.Advance(time.Minute)
		}
		events := w.events(w.tenant, "token.use")
		if want := int(w.clock.Now().Sub(start)/useInterval) + 1; len(events) != want {
			t.Errorf("%d events in an hour, want %d", len(events), want)
		}
		if e := events[0]; e.Subject != "token:"+token.ID || e.ActorID != token.ID || e.Source == nil {
			t.Errorf("event %+v", e)
		}
		// Another node knows from the database.
		other, err := Open(w.store, w.keyring, Options{})
		must(t, err)
		_, err = other.Token(t.Context(), text, "")
		must(t, err)
		if n := len(w.events(w.tenant, "token.use")); n != len(events) {
			t.Errorf("another node writes it down again: %d events", n)
		}
	})
}

func TestTooManyTokens(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		must(t, w.update(w.tenant, func(tx *store.Tx) error {
			for range maxTokens {
				text := newToken()
				hash, err := tokenHash(text)
				if err != nil {
					return err
				}
				if err := insertToken(tx, Token{ID: newID(), Name: "x", Owner: admin.ID, Permissions: []Permission{KeysRead}}, hash); err != nil {
					return err
				}
			}
			return nil
		}))
		_, _, err := w.createToken(admin, NewToken{Name: "x", Permissions: []Permission{KeysRead}})
		wantKind(t, "one more", err, trust.Exhausted)
	})
}
