package identity

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

func TestUsers(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		alice := w.addUser(admin, "alice@example.org", KeysWrite, KeysWrite, RunsRead)
		list := func() (names []string) {
			must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) error {
				users, err := w.Users(tx)
				for _, u := range users {
					names = append(names, u.Name)
				}
				return err
			}))
			return names
		}
		if got := list(); !slices.Equal(got, []string{"admin", "alice@example.org"}) {
			t.Errorf("users %q", got)
		}
		must(t, w.store.View(t.Context(), w.tenant, func(tx *store.Tx) error {
			for _, what := range []string{alice.ID, "alice@example.org", "ALICE@example.org"} {
				u, err := w.User(tx, what)
				if err != nil || u.ID != alice.ID || !u.HasPassword || u.Created.IsZero() || !slices.Contains(u.Permissions, KeysWrite) {
					t.Errorf("user %q is %+v, %v", what, u, err)
				}
			}
			for _, what := range []string{"", "alice", newID(), "a\x00b", strings.Repeat("x", 1000)} {
				_, err := w.User(tx, what)
				wantKind(t, fmt.Sprintf("user %.40q", what), err, trust.NotFound)
			}
			return nil
		}))
		if _, err := w.Password(t.Context(), "Alice@Example.org", "alice@example.orgalice@example.org", "", "192.0.2.1"); err != nil {
			t.Errorf("alice cannot log in: %v", err)
		}

		for _, name := range []string{"alice@example.org", "ALICE@EXAMPLE.ORG"} {
			_, err := w.tryAddUser(admin, name, KeysRead)
			wantKind(t, "a name that is taken", err, trust.Conflict)
		}
		for _, name := range []string{"", " ", "a b", "a/b", "-a", ".a", "a\n", "a\x00", "ä", "a:b", "$(id)", strings.Repeat("a", 65), alice.ID, strings.ToUpper(alice.ID)} {
			_, err := w.tryAddUser(admin, name, KeysRead)
			wantKind(t, fmt.Sprintf("name %.40q", name), err, trust.Invalid)
		}
		for _, permissions := range [][]Permission{nil, {""}, {"Everything"}, {KeysRead, "x"}} {
			_, err := w.tryAddUser(admin, "bob", permissions...)
			wantKind(t, fmt.Sprintf("permissions %q", permissions), err, trust.Invalid)
		}
		for _, password := range []string{"", "1234567", "ööööööö", strings.Repeat("x", maxPassword+1)} {
			_, err := w.HashPassword(t.Context(), password)
			wantKind(t, fmt.Sprintf("password %.20q", password), err, trust.Invalid)
		}
		hash, err := w.HashPassword(t.Context(), "a password")
		if must(t, err); strings.Contains(fmt.Sprintf("%v %+v %#v %s", hash, NewUser{Password: hash}, hash, hash), "argon2") {
			t.Error("a hash prints")
		}

		must(t, w.update(w.tenant, func(tx *store.Tx) error { return w.RemoveUser(tx, admin, alice.ID) }))
		if got := list(); !slices.Equal(got, []string{"admin"}) {
			t.Errorf("users after removal %q", got)
		}
		_, err = w.Password(t.Context(), "alice@example.org", "alice@example.orgalice@example.org", "", "192.0.2.1")
		wantKind(t, "a removed user", err, trust.Unauthenticated)
		if again := w.addUser(admin, "alice@example.org", KeysRead); again.ID == alice.ID {
			t.Error("a user of the same name has the old one's id, and personal data")
		}
	})
}

func (w *world) tryAddUser(by Actor, name string, permissions ...Permission) (u User, err error) {
	err = w.update(by.Tenant, func(tx *store.Tx) (err error) {
		u, err = w.AddUser(tx, by, NewUser{Name: name, Rights: Rights{Permissions: permissions}})
		return err
	})
	return u, err
}

// Nobody gets more than they have by way of another user.
func TestNobodyRisesByUsers(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		w.addUser(admin, "helpdesk", UsersWrite, KeysWrite)
		w.addUser(admin, "clerk", KeysRead)
		w.addUser(admin, "guard", KeysReveal)
		login := func(name string) Actor {
			a, err := w.Password(t.Context(), name, name+name, "", "192.0.2.1")
			must(t, err)
			return a
		}
		helpdesk, clerk, guard := login("helpdesk"), login("clerk"), login("guard")
		hash, err := w.HashPassword(t.Context(), "taken over")
		must(t, err)
		try := func(fn func(*store.Tx) error) error { return w.update(w.tenant, fn) }

		_, err = w.tryAddUser(helpdesk, "mule", KeysReveal)
		wantKind(t, "adding a user who may do more", err, trust.Denied)
		_, err = w.tryAddUser(helpdesk, "mule", All)
		wantKind(t, "adding a user who may do all", err, trust.Denied)
		if _, err = w.tryAddUser(helpdesk, "junior", UsersRead, KeysRead, KeysWrite); err != nil {
			t.Errorf("adding a user who may do less: %v", err)
		}
		for _, target := range []Actor{admin, guard} {
			wantKind(t, "password of "+target.Name, try(func(tx *store.Tx) error { return w.SetPassword(tx, helpdesk, target.ID, hash) }), trust.Denied)
			wantKind(t, "removal of "+target.Name, try(func(tx *store.Tx) error { return w.RemoveUser(tx, helpdesk, target.ID) }), trust.Denied)
			wantKind(t, "permissions of "+target.Name, try(func(tx *store.Tx) error {
				return w.SetRights(tx, helpdesk, target.ID, Rights{Permissions: []Permission{KeysRead}})
			}), trust.Denied)
		}
		wantKind(t, "more for clerk", try(func(tx *store.Tx) error {
			return w.SetRights(tx, helpdesk, clerk.ID, Rights{Permissions: []Permission{KeysReveal}})
		}), trust.Denied)
		wantKind(t, "more for oneself", try(func(tx *store.Tx) error {
			return w.SetRights(tx, helpdesk, helpdesk.ID, Rights{Permissions: []Permission{All}})
		}), trust.Denied)
		must(t, try(func(tx *store.Tx) error { return w.SetPassword(tx, helpdesk, clerk.ID, hash) }))
		must(t, try(func(tx *store.Tx) error { return w.SetPassword(tx, guard, guard.ID, hash) }))
		// A token of a user is not the user.
		_, text, err := w.createToken(admin, NewToken{Name: "t", Permissions: []Permission{UsersWrite}})
		must(t, err)
		token, err := w.Token(t.Context(), text, "192.0.2.1")
		must(t, err)
		wantKind(t, "its owner's password by a token that may less", try(func(tx *store.Tx) error {
			return w.SetPassword(tx, token, admin.ID, hash)
		}), trust.Denied)

		// Somebody who may do everything remains.
		wantKind(t, "removing the last admin", try(func(tx *store.Tx) error { return w.RemoveUser(tx, admin, admin.ID) }), trust.Conflict)
		wantKind(t, "demoting the last admin", try(func(tx *store.Tx) error {
			return w.SetRights(tx, admin, admin.ID, Rights{Permissions: []Permission{KeysRead}})
		}), trust.Conflict)
		_, err = w.tryAddUser(admin, "ghost", All)
		must(t, err)
		wantKind(t, "leaving one without a password", try(func(tx *store.Tx) error { return w.RemoveUser(tx, admin, admin.ID) }), trust.Conflict)
		wantKind(t, "taking the last admin's password", try(func(tx *store.Tx) error { return w.SetPassword(tx, admin, admin.ID, PasswordHash{}) }), trust.Conflict)
		must(t, try(func(tx *store.Tx) error {
			return w.SetRights(tx, admin, clerk.ID, Rights{Permissions: []Permission{All}})
		}))
		must(t, try(func(tx *store.Tx) error { return w.RemoveUser(tx, admin, admin.ID) }))
	})
}

// What is another tenant's is answered as what nobody has.
func TestTenantsAreApart(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		stranger := w.otherTenant()
		alice := w.addUser(admin, "alice", KeysRead)
		token, text, err := w.createToken(admin, NewToken{Name: "t", Permissions: []Permission{KeysRead}})
		must(t, err)
		_, webLogin, err := w.Login(t.Context(), "admin", adminPassword, "", "192.0.2.1")
		must(t, err)

		hash, err := w.HashPassword(t.Context(), "taken over")
		must(t, err)
		for what, ask := range map[string]func(tx *store.Tx, id string) error{
			"SetPassword": func(tx *store.Tx, id string) error { return w.SetPassword(tx, stranger, id, hash) },
			"SetPermissions": func(tx *store.Tx, id string) error {
				return w.SetRights(tx, stranger, id, Rights{Permissions: []Permission{All}})
			},
			"RemoveUser":  func(tx *store.Tx, id string) error { return w.RemoveUser(tx, stranger, id) },
			"User":        func(tx *store.Tx, id string) error { _, err := w.User(tx, id); return err },
			"RevokeToken": func(tx *store.Tx, id string) error { _, err := w.RevokeToken(tx, id); return err },
		} {
			theirs, nobodys := alice.ID, newID()
			if what == "RevokeToken" {
				theirs = token.ID
			}
			var answers []string
			for _, id := range []string{theirs, nobodys} {
				err := w.update(stranger.Tenant, func(tx *store.Tx) error { return ask(tx, id) })
				wantKind(t, what, err, trust.NotFound)
				answers = append(answers, strings.ReplaceAll(fmt.Sprint(err), id, "ID"))
			}
			if answers[0] != answers[1] {
				t.Errorf("%s: another's is answered %q, nobody's %q", what, answers[0], answers[1])
			}
		}
		must(t, w.update(stranger.Tenant, func(tx *store.Tx) error {
			users, err := w.Users(tx)
			if len(users) != 1 || err != nil {
				t.Errorf("sees users %v, %v", users, err)
			}
			tokens, err := w.Tokens(tx)
			if len(tokens) != 0 || err != nil {
				t.Errorf("sees tokens %v, %v", tokens, err)
			}
			by, err := w.WebLogin(t.Context(), webLogin, "192.0.2.1")
			must(t, err)
			if err := w.EndWebLogin(tx, by); trust.KindOf(err) != trust.Internal {
				t.Errorf("another tenant ends a web login: %v", err)
			}
			return nil
		}))
		if a, err := w.WebLogin(t.Context(), webLogin, "192.0.2.1"); err != nil || a.Tenant != w.tenant {
			t.Errorf("a web login ended by another tenant: %+v, %v", a, err)
		}
		if a, err := w.Token(t.Context(), text, "192.0.2.1"); err != nil || a.Tenant != w.tenant {
			t.Errorf("a token revoked by another tenant: %+v, %v", a, err)
		}
		// The same name and password, in each tenant its own.
		for user, want := range map[string]trust.TenantID{"admin": w.tenant, "default/admin": w.tenant, "other/admin": stranger.Tenant, string(stranger.Tenant) + "/ADMIN": stranger.Tenant} {
			if a, err := w.Password(t.Context(), user, adminPassword, "", "192.0.2.1"); err != nil || a.Tenant != want {
				t.Errorf("%s logs in to %q, %v, want %q", user, a.Tenant, err, want)
			}
		}
		_, err = w.Password(t.Context(), "other/alice", "alicealice", "", "192.0.2.1")
		wantKind(t, "a user of one tenant in another", err, trust.Unauthenticated)
		// An actor of one tenant in a transaction of another is our own fault.
		err = w.update(stranger.Tenant, func(tx *store.Tx) error {
			_, _, err := w.CreateToken(tx, admin, NewToken{Name: "x", Permissions: []Permission{KeysRead}})
			return err
		})
		wantKind(t, "an actor in another tenant's transaction", err, trust.Internal)
	})
}

// Names of tenants that differ in case only are one, for who makes them and who logs in.
func TestTenantNamesDifferByMoreThanCase(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		newTenant := func(name string) (id trust.TenantID, err error) {
			err = w.store.View(t.Context(), store.System, func(tx *store.Tx) error {
				id, err = w.NewTenant(tx, name)
				return err
			})
			return id, err
		}
		id, err := newTenant("Ops")
		must(t, err)
		hash, err := w.HashPassword(t.Context(), "a password of ops")
		must(t, err)
		add := func(id trust.TenantID, name string) error {
			return w.update(id, func(tx *store.Tx) error {
				_, err := w.AddTenant(tx, name, hash)
				return err
			})
		}
		must(t, add(id, "Ops"))
		_, err = newTenant("oPS")
		fails(t, "the name in another case", err, trust.Conflict, `"Ops"`)
		other, err := newTenant("dev")
		must(t, err)
		fails(t, "who was slower", add(other, "OPS"), trust.Conflict, "")
		for _, name := range []string{"Ops/admin", "ops/Admin", "OPS/ADMIN"} {
			a, err := w.Password(t.Context(), name, "a password of ops", "", "192.0.2.1")
			if err != nil || a.Tenant != id {
				t.Errorf("%s logs in to %q, %v", name, a.Tenant, err)
			}
		}
		// They are one for the throttle, too.
		for _, name := range []string{"ops/bob", "opS/bob", "oPs/bob", "oPS/bob", "Ops/bob", "OpS/bob"} {
			_, err = w.Password(t.Context(), name, "wrong horse", "", "192.0.2.2")
		}
		fails(t, "the sixth guess", err, trust.Exhausted, "")
	})
}
