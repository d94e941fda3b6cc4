package control

import (
	"bytes"
	"crypto/sha512"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// loginBy returns what a client signs to log in with a key.
func loginBy(key trust.PublicKey, algorithm string) []byte {
	return ssh.Marshal(struct {
		Session               []byte
		Message               byte
		User, Service, Method string
		Signature             bool
		Algorithm             string
		Key                   []byte
	}{bytes.Repeat([]byte{7}, 32), 50, "deploy", "ssh-connection", "publickey", true, algorithm, key.Blob()})
}

// A key signs for those who may use it, what logs in with that key, and for nobody and
// nothing else; and the log tells of each signature.
func TestSignWithKey(t *testing.T) {
	storetest.Both(t, everything, func(t *testing.T, s *store.Store) {
		p, tenant, add := newHolder(t, s)
		admin := identity.Actor{Tenant: tenant, Kind: "user", ID: "admin", Owner: "admin", Permissions: []identity.Permission{identity.All}}
		as := func(name string) identity.Actor { // a token of a user's that may use keys, and no more
			t.Helper()
			return identity.Actor{Tenant: tenant, Kind: "token", ID: "token-of-" + name, Owner: add(name).ID, Permissions: []identity.Permission{identity.KeysUse}}
		}
		alice, bob := as("alice"), as("bob")
		generate := func(spec keyring.Spec) inventory.Key {
			t.Helper()
			k, err := p.GenerateKey(t.Context(), admin, spec, "deploy", KeyFacts{})
			if err != nil {
				t.Fatal(err)
			}
			return k.Key
		}
		sign := func(who identity.Actor, k inventory.Key, data []byte, algorithm string) (Signature, error) {
			return p.SignWithKey(t.Context(), who, Sign{Key: string(k.ID), Data: data, Algorithm: algorithm})
		}
		listed := func(who identity.Actor, k inventory.Key) bool {
			t.Helper()
			for after := ""; ; {
				list, next, err := p.ListUsableKeys(t.Context(), who, nil, Page{After: after, Limit: 2})
				if err != nil {
					t.Fatal(err)
				}
				for _, l := range list {
					if l.ID == k.ID {
						return true
					}
				}
				if next == "" {
					return false
				}
				after = next
			}
		}
		signs := func(what string, who identity.Actor, k inventory.Key) {
			t.Helper()
			data := loginBy(k.Public, k.Public.Type())
			got, err := sign(who, k, data, "")
			if err != nil || !listed(who, k) {
				t.Errorf("%s: it does not sign: %v", what, err)
				return
			}
			public, err := k.Public.SSH()
			if err != nil {
				t.Fatal(err)
			}
			if err := public.Verify(data, &ssh.Signature{Format: got.Format, Blob: got.Blob}); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
		refuses := func(what string, who identity.Actor, k inventory.Key, kind trust.Kind) {
			t.Helper()
			got, err := sign(who, k, loginBy(k.Public, k.Public.Type()), "")
			if trust.KindOf(err) != kind || listed(who, k) {
				t.Errorf("%s: %+v, %v; listed %v", what, got, err, listed(who, k))
			}
		}

		sum := sha512.Sum512([]byte("a commit"))
		message := append([]byte("SSHSIG"), ssh.Marshal(struct {
			Namespace, Reserved, Hash string
			Sum                       []byte
		}{"git", "", "sha512", sum[:]})...)
		k := generate(keyring.Spec{Type: "ed25519"})
		signs("everybody", alice, k)
		events, err := s.Events(t.Context(), tenant, "key:"+string(k.ID), "", 0)
		if err != nil {
			t.Fatal(err)
		}
		last := events[len(events)-1].Leaf
		if text := string(events[len(events)-1].Bytes); last.Action != "key.sign" || last.ActorID != alice.ID || !strings.Contains(text, "deploy") || !strings.Contains(text, string(k.Public.Fingerprint())) {
			t.Errorf("the log tells of it as %+v", last)
		}

		// What came over a forwarded agent is told of as that.
		for what, data := range map[string][]byte{"a login": loginBy(k.Public, k.Public.Type()), "a message": message} {
			for _, forwarded := range []bool{true, false} {
				if _, err := p.SignWithKey(t.Context(), alice, Sign{Key: string(k.ID), Data: data, Forwarded: forwarded}); err != nil {
					t.Fatal(err)
				}
				events, err := s.Events(t.Context(), tenant, "key:"+string(k.ID), "", 0)
				if err != nil {
					t.Fatal(err)
				}
				if text := string(events[len(events)-1].Bytes); strings.Contains(text, "forwarded") != forwarded {
					t.Errorf("%s, forwarded %v: the log tells of it as %s", what, forwarded, text)
				}
			}
		}

		// Nothing but a login by that key, or a message.
		other := generate(keyring.Spec{Type: "rsa", Bits: 2048})
		for what, data := range map[string][]byte{"a text": []byte("pay 100"), "another key's login": loginBy(other.Public, "rsa-sha2-512")} {
			if _, err := sign(alice, k, data, ""); trust.KindOf(err) != trust.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}
		if got, err := sign(alice, other, loginBy(other.Public, "rsa-sha2-256"), "rsa-sha2-256"); err != nil || got.Format != "rsa-sha2-256" {
			t.Errorf("RSA signs %+v, %v", got, err)
		}
		for what, err := range map[string]error{
			"SHA-1":                             second(sign(alice, other, loginBy(other.Public, "ssh-rsa"), "ssh-rsa")),
			"SHA-1, of a client that says none": second(sign(alice, other, loginBy(other.Public, "ssh-rsa"), "")),
			"an algorithm and another":          second(sign(alice, other, loginBy(other.Public, "rsa-sha2-512"), "rsa-sha2-256")),
			"another type's algorithm":          second(sign(alice, k, loginBy(k.Public, "rsa-sha2-512"), "rsa-sha2-512")),
		} {
			if trust.KindOf(err) != trust.Invalid {
				t.Errorf("%s: %v", what, err)
			}
		}

		// Only those who are named, and from the next signature on.
		limit := func(set SetKeyUsers) {
			t.Helper()
			if _, err := p.SetKeyUsers(t.Context(), admin, string(k.ID), set); err != nil {
				t.Fatal(err)
			}
		}
		limit(SetKeyUsers{Allow: []string{"Alice"}})
		signs("named", alice, k)
		refuses("not named", bob, k, trust.NotFound)
		limit(SetKeyUsers{Allow: []string{"bob"}, Disallow: []string{"alice"}})
		refuses("named no more", alice, k, trust.NotFound)
		limit(SetKeyUsers{Disallow: []string{"bob"}})
		refuses("nobody is named", bob, k, trust.NotFound)
		refuses("nobody is named, not even an administrator", admin, k, trust.NotFound)
		users, err := p.ListKeyUsers(t.Context(), admin, string(k.ID))
		if err != nil || !users.Limited || len(users.Users) != 0 {
			t.Errorf("it is for %+v, %v", users, err)
		}

		// What is kept from somebody is as if it were not there.
		never, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
		if err != nil {
			t.Fatal(err)
		}
		for kept, none := range map[string]string{string(k.ID): "1f4158e4-c12d-5097-a058-7bb2817e132b", string(k.Public.Fingerprint()): string(never.Public().Fingerprint())} {
			asked := func(name string) string {
				_, err := p.SignWithKey(t.Context(), bob, Sign{Key: name, Data: loginBy(k.Public, "ssh-ed25519")})
				if trust.KindOf(err) != trust.NotFound {
					t.Fatalf("key %s: %v", name, err)
				}
				return strings.ReplaceAll(err.Error(), name, "X")
			}
			if a, b := asked(none), asked(kept); a != b {
				t.Errorf("no key and one of others differ: %q, %q", a, b)
			}
		}
		limit(SetKeyUsers{Everybody: true})
		foreign := identity.Actor{Tenant: storetest.Other, Kind: "user", ID: "eve", Owner: alice.Owner, Permissions: []identity.Permission{identity.All}}
		refuses("another tenant", foreign, k, trust.NotFound)
		signs("everybody again", bob, k)

		change := func(fn func(tx *store.Tx) error) {
			t.Helper()
			ev := storetest.Event()
			ev.Tenant = tenant
			if err := s.Update(t.Context(), ev, fn); err != nil {
				t.Fatal(err)
			}
		}
		// A limit is for all that came in a key's place, and in whose place it came.
		line := []trust.KeyID{generate(keyring.Spec{Type: "ed25519"}).ID}
		for range 3 {
			old, next := line[len(line)-1], generate(keyring.Spec{Type: "ed25519"}).ID
			change(func(tx *store.Tx) error {
				run := trust.RunID("of-" + string(old))
				if err := inventory.TakeOut(tx, run, old, inventory.Rotated, "user:admin"); err != nil {
					return err
				}
				return inventory.AddReplacement(tx, run, old, next)
			})
			line = append(line, next)
		}
		for i, by := range line {
			if _, err := p.SetKeyUsers(t.Context(), admin, string(by), SetKeyUsers{Allow: []string{"alice"}}); err != nil {
				t.Fatal(err)
			}
			for j, id := range line {
				if users, err := p.ListKeyUsers(t.Context(), admin, string(id)); err != nil || !users.Limited || !slices.Equal(users.Users, []string{"alice"}) {
					t.Errorf("key %d was limited, and key %d of its line is for %+v, %v", i, j, users, err)
				}
			}
			if _, err := p.SetKeyUsers(t.Context(), admin, string(by), SetKeyUsers{Everybody: true}); err != nil {
				t.Fatal(err)
			}
		}

		// What opens hosts for Keyturn itself is for those who are named.
		host := inventory.NewHostID()
		change(func(tx *store.Tx) error {
			_, err := inventory.AddHost(tx, inventory.Host{
				ID: host, Name: "web1", Address: "web1:22", User: "root", Become: inventory.BecomeNone, Mode: inventory.Inventory,
				Credentials: []inventory.Credential{{Key: k.ID}},
			})
			return err
		})
		refuses("it opens a host", bob, k, trust.Denied)
		// Nor for others once it does not any more: its line on the host stays.
		once, gone := generate(keyring.Spec{Type: "ed25519"}), inventory.NewHostID()
		change(func(tx *store.Tx) error {
			h, err := inventory.AddHost(tx, inventory.Host{
				ID: gone, Name: "web2", Address: "web2:22", User: "root", Become: inventory.BecomeNone, Mode: inventory.Inventory,
				Credentials: []inventory.Credential{{Key: once.ID}},
			})
			if err != nil {
				return err
			}
			_, err = inventory.RemoveHost(tx, gone, h.Revision)
			return err
		})
		refuses("it opened a host", bob, once, trust.NotFound)
		limit(SetKeyUsers{Allow: []string{"bob"}})
		signs("it opens a host, and bob is named", bob, k)
		limit(SetKeyUsers{Everybody: true})
		change(func(tx *store.Tx) error {
			h, err := inventory.HostByID(tx, host)
			if err != nil {
				return err
			}
			_, err = inventory.RemoveHost(tx, host, h.Revision)
			return err
		})

		// What is not in use any more.
		compromised := generate(keyring.Spec{Type: "ed25519"})
		change(func(tx *store.Tx) error {
			compromised.Compromised = true
			_, err := inventory.UpdateKey(tx, compromised)
			return err
		})
		refuses("compromised", bob, compromised, trust.Conflict)
		expired := generate(keyring.Spec{Type: "ed25519"})
		change(func(tx *store.Tx) error {
			expired.ExpiresAt = tx.Now()
			_, err := inventory.UpdateKey(tx, expired)
			return err
		})
		refuses("expired", bob, expired, trust.Conflict)
		for _, became := range []inventory.KeyState{inventory.Rotated, inventory.Retired} {
			gone := generate(keyring.Spec{Type: "ed25519"})
			change(func(tx *store.Tx) error {
				return inventory.TakeOut(tx, trust.RunID("run-"+string(became)), gone.ID, became, "user:admin")
			})
			refuses(string(became), bob, gone, trust.Conflict)
		}
		if _, _, err := p.DeleteKey(t.Context(), admin, string(k.ID)); err != nil {
			t.Fatal(err)
		}
		refuses("deleted", bob, k, trust.Conflict)
		var found inventory.Key
		change(func(tx *store.Tx) (err error) {
			found, err = inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: other.Public, Custody: inventory.External})
			if err != nil {
				return err
			}
			return p.keyring.Destroy(tx, found.ID)
		})
		refuses("not held", bob, found, trust.NotFound)
	})
}

func second[A any](_ A, err error) error { return err }
