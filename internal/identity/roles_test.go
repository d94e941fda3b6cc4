package identity

import (
	"slices"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// What a role permits, those who have it may do from that commit on, and their
// tokens no more than that.
func TestRoles(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		set := func(by Actor, name string, list ...Permission) error {
			return w.update(w.tenant, func(tx *store.Tx) error {
				_, err := w.SetRole(tx, by, name, list)
				return err
			})
		}
		give := func(by Actor, id string, r Rights) error {
			return w.update(w.tenant, func(tx *store.Tx) error { return w.SetRights(tx, by, id, r) })
		}
		must(t, set(admin, "on-call", RunsWrite, TokensWrite))
		clerk := w.addUser(admin, "clerk", KeysRead)
		must(t, give(admin, clerk.ID, Rights{Permissions: []Permission{KeysRead}, Roles: []string{"ON-CALL", "on-call"}}))
		login := func(want ...Permission) Actor {
			t.Helper()
			a, err := w.Password(t.Context(), "clerk", "clerkclerk", "", "192.0.2.1")
			if err != nil || !slices.Equal(slices.Sorted(slices.Values(a.Permissions)), slices.Sorted(slices.Values(want))) {
				t.Errorf("clerk may %q, %v; want %q", a.Permissions, err, want)
			}
			return a
		}
		actor := login(KeysRead, RunsWrite, TokensWrite)
		_, text, err := w.createToken(actor, NewToken{Name: "t", Permissions: []Permission{RunsWrite, KeysRead}})
		must(t, err)
		must(t, set(admin, "On-Call", KeysRead, TokensWrite))
		login(KeysRead, TokensWrite)
		if a, err := w.Token(t.Context(), text, ""); err != nil || !slices.Equal(a.Permissions, []Permission{KeysRead}) {
			t.Errorf("the token may %q, %v after the role permits less", a.Permissions, err)
		}

		roles := func() (names []string) {
			must(t, w.update(w.tenant, func(tx *store.Tx) error {
				list, err := w.Roles(tx)
				for _, r := range list {
					names = append(names, r.Name)
				}
				return err
			}))
			return names
		}
		if got, want := roles(), []string{"Administrator", "Operator", "Auditor", "on-call"}; !slices.Equal(got, want) {
			t.Errorf("the roles are %q, want %q", got, want)
		}
		remove := func(by Actor, name string) error {
			return w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveRole(tx, by, name) })
		}
		wantKind(t, "a role that somebody has", remove(admin, "on-call"), trust.Conflict)
		wantKind(t, "a built-in role", remove(admin, "auditor"), trust.Conflict)
		wantKind(t, "a built-in role changed", set(admin, "OPERATOR", KeysReveal), trust.Conflict)
		wantKind(t, "no such role", remove(admin, "nobody"), trust.NotFound)
		wantKind(t, "no such role given", give(admin, clerk.ID, Rights{Roles: []string{"nobody"}}), trust.NotFound)
		wantKind(t, "a role of nothing", set(admin, "empty"), trust.Invalid)
		wantKind(t, "a bad name", set(admin, "../x", KeysRead), trust.Invalid)

		// Nobody gets more than they have by way of a role.
		w.addUser(admin, "helpdesk", UsersWrite, KeysRead)
		helpdesk, err := w.Password(t.Context(), "helpdesk", "helpdeskhelpdesk", "", "192.0.2.1")
		must(t, err)
		wantKind(t, "a role beyond oneself", set(helpdesk, "strong", KeysReveal), trust.Denied)
		wantKind(t, "another's role lessened", set(helpdesk, "on-call", KeysRead), trust.Denied)
		wantKind(t, "a role beyond oneself given", give(helpdesk, helpdesk.ID, Rights{Roles: []string{"Administrator"}}), trust.Denied)
		wantKind(t, "another's role removed", remove(helpdesk, "on-call"), trust.Denied)

		// Somebody who may do everything remains, by a role or without.
		must(t, give(admin, admin.ID, Rights{Roles: []string{"Administrator"}}))
		wantKind(t, "the last administrator", give(admin, admin.ID, Rights{Roles: []string{"Auditor"}}), trust.Conflict)
		must(t, set(admin, "root", All))
		must(t, give(admin, admin.ID, Rights{Roles: []string{"root"}}))
		wantKind(t, "the last administrator's role", set(admin, "root", KeysRead), trust.Conflict)

		must(t, give(admin, clerk.ID, Rights{Permissions: []Permission{KeysRead}}))
		must(t, remove(admin, "on-call"))
		stranger := w.otherTenant()
		must(t, w.update(stranger.Tenant, func(tx *store.Tx) error {
			list, err := w.Roles(tx)
			if len(list) != len(builtIn) {
				t.Errorf("another tenant sees %v", list)
			}
			return err
		}))
	})
}

// A token gets another text, and what is said of it stays; the old text ends when
// it was said to.
func TestRotateToken(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		token, old, err := w.createToken(admin, NewToken{Name: "ci", Permissions: []Permission{KeysRead, TokensWrite}, Valid: 48 * time.Hour})
		must(t, err)
		rotate := func(by Actor, id string, overlap time.Duration) (text string, err error) {
			err = w.update(by.Tenant, func(tx *store.Tx) (err error) {
				_, text, err = w.RotateToken(tx, by, id, overlap)
				return err
			})
			return text, err
		}
		opens := func(text string) bool {
			a, err := w.Token(t.Context(), text, "")
			if err == nil && a.ID != token.ID {
				t.Errorf("it is token %s, not %s", a.ID, token.ID)
			}
			return err == nil
		}
		next, err := rotate(admin, token.ID, time.Hour)
		must(t, err)
		if next == old || !opens(old) || !opens(next) {
			t.Error("one of the two texts does not hold while they overlap")
		}
		// A certificate is no longer than the text by which it was asked for.
		for text, end := range map[string]time.Duration{old: time.Hour, next: 48 * time.Hour} {
			a, err := w.Token(t.Context(), text, "")
			must(t, err)
			if left := a.Until.Sub(w.clock.Now()); left != end {
				t.Errorf("a text that ends in %s ends in %s", end, left)
			}
		}
		w.clock.Advance(50 * time.Minute)
		_, ends, err := w.IssueServiceToken(t.Context(), token.ID, old, "")
		must(t, err)
		if left := ends.Sub(w.clock.Now()); left > 10*time.Minute {
			t.Errorf("a service token for the old text holds for %s, which that text does not", left)
		}
		w.clock.Advance(-50 * time.Minute)
		w.clock.Advance(time.Hour)
		if opens(old) || !opens(next) {
			t.Error("after the overlap the old text holds, or the new one does not")
		}
		last, err := rotate(admin, token.ID, 0)
		must(t, err)
		if opens(old) || opens(next) || !opens(last) {
			t.Error("without an overlap another text than the last one holds")
		}
		_, _, err = w.IssueServiceToken(t.Context(), token.ID, next, "")
		wantKind(t, "a service token for the old text", err, trust.Unauthenticated)

		itself, err := w.Token(t.Context(), last, "")
		must(t, err)
		if last, err = rotate(itself, token.ID, 0); err != nil || !opens(last) {
			t.Errorf("a token that may make tokens gives itself another text: %v", err)
		}
		strong, _, err := w.createToken(admin, NewToken{Name: "strong", Permissions: []Permission{All}})
		must(t, err)
		_, err = rotate(itself, strong.ID, 0)
		wantKind(t, "the text of a token that may do more", err, trust.Denied)
		w.addUser(admin, "other", All)
		other, err := w.Password(t.Context(), "other", "otherother", "", "192.0.2.1")
		must(t, err)
		_, err = rotate(other, token.ID, 0)
		wantKind(t, "the text of another's token", err, trust.Denied)
		_, err = rotate(admin, token.ID, -time.Second)
		wantKind(t, "a negative overlap", err, trust.Invalid)
		_, err = rotate(admin, token.ID, 366*24*time.Hour)
		wantKind(t, "a year's overlap", err, trust.Invalid)
		_, err = rotate(w.otherTenant(), token.ID, 0)
		wantKind(t, "another tenant's token", err, trust.NotFound)
		w.clock.Advance(48 * time.Hour)
		if opens(last) {
			t.Error("a rotated token holds beyond its end")
		}
	})
}
