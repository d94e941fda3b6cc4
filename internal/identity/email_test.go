package identity

import (
	"testing"

	"keyturn/internal/oidc/oidctest"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

func (w *world) setEmail(by Actor, id, address string) error {
	return w.update(w.tenant, func(tx *store.Tx) error { return w.SetEmail(tx, by, id, address) })
}

func (w *world) emailOf(id string) (address string) {
	w.t.Helper()
	must(w.t, w.view(func(tx *store.Tx) error {
		u, err := w.User(tx, id)
		address = u.Email
		return err
	}))
	return address
}

// An address is one user's, whoever says so, comes back as it was written, and names a
// user whose token is a key.
func TestEmails(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		alice, bob := w.addUser(admin, "alice", KeysRead), w.addUser(admin, "robert", KeysRead)
		must(t, w.setEmail(admin, alice.ID, "Alice@Example.com"))
		if got := w.emailOf("alice"); got != "Alice@Example.com" {
			t.Errorf("has %q", got)
		}
		must(t, w.setEmail(admin, alice.ID, "alice@example.com")) // her own, otherwise written
		wantKind(t, "another's address", w.setEmail(admin, bob.ID, "ALICE@example.com"), trust.Conflict)
		err := w.update(w.tenant, func(tx *store.Tx) error {
			_, err := w.AddUser(tx, admin, NewUser{Name: "carol", Email: "alice@EXAMPLE.com", Rights: Rights{Permissions: []Permission{KeysRead}}})
			return err
		})
		wantKind(t, "a new user with another's address", err, trust.Conflict)
		for _, address := range []string{"alice", "@example.com", "alice@", "a b@example.com", "a@b@c", "a@b\n", "a@b\u202e"} {
			wantKind(t, "address "+address, w.setEmail(admin, bob.ID, address), trust.Invalid)
		}
		wantKind(t, "by who may do less", w.setEmail(Actor{Tenant: w.tenant, Kind: "user", ID: bob.ID}, alice.ID, ""), trust.Denied)

		_, text, err := w.createToken(admin, NewToken{Name: "key", Permissions: []Permission{KeysRead}})
		must(t, err)
		must(t, w.setEmail(admin, admin.ID, "Admin@example.com"))
		if _, err := w.UserToken(t.Context(), "admin@EXAMPLE.com", text, ""); err != nil {
			t.Errorf("by the address: %v", err)
		}
		for _, user := range []string{"", "alice@example.com"} {
			_, err := w.UserToken(t.Context(), user, text, "")
			wantKind(t, "as the token of "+user, err, trust.Unauthenticated)
		}

		events := w.events(w.tenant, "test.change")
		leaf := events[len(events)-1]
		if len(leaf.Fields) != 1 || leaf.Fields[0].Name != "email" || leaf.Fields[0].Value != "" || leaf.Fields[0].Person != Person(admin.ID) {
			t.Errorf("recorded %+v, not as what a person's data is", leaf.Fields)
		}
		must(t, w.setEmail(admin, alice.ID, ""))
		must(t, w.setEmail(admin, bob.ID, "alice@example.com"))
	})
}

// Who logs in by an identity provider has the address that it has verified, unless another
// user has it, and for as long as it lets them in.
func TestEmailsOfProviders(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		i := oidctest.Start(t)
		w.addProviders(i)
		admin := w.admin()
		say := func(subject, name, address string) Actor {
			t.Helper()
			i.Say(w.says(subject, oidctest.Claims{"preferred_username": name, "groups": groups("ops"), "email": address, "email_verified": true}))
			l, err := w.logIn()
			must(t, err)
			return l.Actor
		}
		ann := say("1", "ann", "ann@example.com")
		if got := w.emailOf(ann.ID); got != "ann@example.com" {
			t.Errorf("ann has %q", got)
		}
		local := w.addUser(admin, "local", KeysRead)
		wantKind(t, "the address of a provider's user", w.setEmail(admin, local.ID, "Ann@example.com"), trust.Conflict)
		wantKind(t, "an address for a provider's user", w.setEmail(admin, ann.ID, "other@example.com"), trust.Conflict)

		must(t, w.setEmail(admin, local.ID, "eve@example.com"))
		eve := say("2", "eve", "Eve@example.com")
		if got := w.emailOf(eve.ID); got != "" {
			t.Errorf("eve has %q, which is another's", got)
		}
		must(t, w.setEmail(admin, local.ID, ""))
		if say("2", "eve", "Eve@example.com"); w.emailOf(eve.ID) != "Eve@example.com" {
			t.Errorf("eve has %q", w.emailOf(eve.ID))
		}
		if say("2", "eve", "ann@example.com"); w.emailOf(eve.ID) != "" {
			t.Errorf("eve has %q, which is ann's or was hers", w.emailOf(eve.ID))
		}
		i.Say(w.says("1", oidctest.Claims{"groups": groups("staff")}))
		if _, err := w.logIn(); err == nil {
			t.Error("logged in without a role")
		}
		if got := w.emailOf(ann.ID); got != "" {
			t.Errorf("who was turned away has %q", got)
		}
	})
}

// Whoever asks in their own name gets no token that asks as a person.
func TestPersonalTokens(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		admin := w.admin()
		act := func(text string) Actor {
			t.Helper()
			a, err := w.Token(t.Context(), text, "")
			must(t, err)
			return a
		}
		own, ownText, err := w.createToken(admin, NewToken{Name: "own", Permissions: []Permission{TokensWrite}, Personal: true})
		must(t, err)
		_, machineText, err := w.createToken(admin, NewToken{Name: "machine", Permissions: []Permission{TokensWrite}})
		must(t, err)
		if !own.Personal || !act(ownText).IsPerson() || act(machineText).IsPerson() || !admin.IsPerson() {
			t.Errorf("own %+v, machine %+v", act(ownText), act(machineText))
		}
		rotate := func(by Actor) error {
			return w.update(w.tenant, func(tx *store.Tx) error {
				_, text, err := w.RotateToken(tx, by, own.ID, 0)
				if err == nil {
					ownText = text
				}
				return err
			})
		}
		_, _, err = w.createToken(act(machineText), NewToken{Name: "more", Permissions: []Permission{TokensWrite}, Personal: true})
		wantKind(t, "made by a machine", err, trust.Denied)
		wantKind(t, "rotated by a machine", rotate(act(machineText)), trust.Denied)
		must(t, rotate(act(ownText)))
		if !act(ownText).IsPerson() {
			t.Error("rotated, it asks in its own name")
		}
		_, _, err = w.createToken(act(ownText), NewToken{Name: "more", Permissions: []Permission{TokensWrite}, Personal: true})
		must(t, err)
	})
}
