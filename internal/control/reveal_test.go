package control

import (
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/internal/authority"
	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// everything is the part of the database of every package that a plane with a keyring
// needs.
var everything = []fs.FS{keyring.Schema, identity.Schema, inventory.Schema, job.Schema, hostid.Schema, authority.Schema, Schema}

// newHolder returns a plane with a keyring over a store, its tenant, and what adds a
// user who may do everything.
func newHolder(t testing.TB, s *store.Store) (p *Plane, tenant trust.TenantID, add func(name string) identity.Actor) {
	t.Helper()
	dir := t.TempDir()
	kek, err := keyring.LoadKEK(filepath.Join(dir, "kek"), filepath.Join(dir, "data"), true)
	if err != nil {
		t.Fatal(err)
	}
	ring, err := keyring.Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	directory, err := identity.Open(s, ring, identity.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	beginning, err := directory.First(t.Context(), "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	engine, err := job.New(s, nil, job.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p = New(s, directory, ring, engine)
	admin := identity.Actor{Tenant: beginning.Tenant, Kind: "user", ID: "admin", Owner: "admin", Permissions: []identity.Permission{identity.All}}
	return p, beginning.Tenant, func(name string) identity.Actor {
		t.Helper()
		u, err := p.AddUser(t.Context(), admin, NewUser{Name: name, Rights: identity.Rights{Permissions: []identity.Permission{identity.All}}})
		if err != nil {
			t.Fatal(err)
		}
		return identity.Actor{Tenant: admin.Tenant, Kind: "user", ID: u.ID, Name: name, Owner: u.ID, Permissions: u.Permissions}
	}
}

// An approval reveals one key to one person once, however many ask at a time, and the
// log has who, before the key is out.
func TestRevealKey(t *testing.T) {
	storetest.Both(t, everything, func(t *testing.T, s *store.Store) {
		p, tenant, add := newHolder(t, s)
		alice, bob := add("alice"), add("bob")
		k, err := p.GenerateKey(t.Context(), alice, keyring.Spec{Type: "ed25519"}, "deploy", KeyFacts{})
		if err != nil {
			t.Fatal(err)
		}
		id := string(k.Key.ID)
		if _, err := p.SetSetting(t.Context(), alice, revealApproval, on); err != nil {
			t.Fatal(err)
		}
		reveal := func(who identity.Actor) (string, error) {
			_, file, err := p.RevealKey(t.Context(), who, id, Reveal{Plain: true})
			return string(file.Bytes()), err
		}
		refused := func(who identity.Actor, kind trust.Kind) {
			t.Helper()
			if text, err := reveal(who); trust.KindOf(err) != kind || text != "" {
				t.Errorf("%s %s is answered %q, %v; want %s", who.Kind, who.Name, text, err, kind)
			}
		}
		refused(alice, trust.Conflict)
		refused(identity.Actor{Tenant: tenant, Kind: "machine", ID: "ci", Name: "ci/job", Permissions: []identity.Permission{identity.All}}, trust.Denied)
		stranger := alice
		stranger.Tenant = storetest.Other
		refused(stranger, trust.NotFound)
		if _, err := p.ApproveReveal(t.Context(), bob, id, "alice"); err != nil {
			t.Fatal(err)
		}
		refused(bob, trust.Conflict)

		texts := make([]string, 6)
		var group sync.WaitGroup
		for i := range texts {
			group.Go(func() { texts[i], _ = reveal(alice) })
		}
		group.Wait()
		texts = slices.DeleteFunc(texts, func(text string) bool { return text == "" })
		if len(texts) != 1 || !strings.HasPrefix(texts[0], "-----BEGIN OPENSSH PRIVATE KEY-----") {
			t.Errorf("one approval revealed the key %d times", len(texts))
		}
		shown, _, err := p.ShowKey(t.Context(), alice, id)
		if err != nil || shown.Key.Custody != inventory.External || shown.Key.RevealedAt.IsZero() {
			t.Errorf("revealed, it is %+v, %v", shown.Key, err)
		}
		events, err := s.Events(t.Context(), tenant, "key:"+id, "", 100)
		if err != nil {
			t.Fatal(err)
		}
		told := 0
		for _, e := range events {
			if e.Leaf.Action != "key.reveal" {
				continue
			}
			told++
			text := string(e.Bytes)
			if e.Leaf.ActorID != alice.ID || !strings.Contains(text, "user:"+bob.ID) || !strings.Contains(text, string(k.Key.Public.Fingerprint())) || strings.Contains(text, "PRIVATE KEY") {
				t.Errorf("the log has %+v", e.Leaf)
			}
		}
		if told != 1 {
			t.Errorf("the log tells of %d reveals", told)
		}
	})
}

// A request lapses, and so does an approval that nobody makes use of.
func TestApprovalsLapse(t *testing.T) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	s, err := store.Open(t.Context(), store.Options{URL: storetest.SQLite(t, everything...), Schema: everything, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	p, _, add := newHolder(t, s)
	alice, bob := add("alice"), add("bob")
	k, err := p.GenerateKey(t.Context(), alice, keyring.Spec{Type: "ed25519"}, "deploy", KeyFacts{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.SetSetting(t.Context(), alice, revealApproval, on); err != nil {
		t.Fatal(err)
	}
	reveal := func() error {
		_, _, err := p.RevealKey(t.Context(), alice, string(k.Key.ID), Reveal{Plain: true})
		return err
	}
	approve := func() error {
		_, err := p.ApproveReveal(t.Context(), bob, string(k.Key.ID), "alice")
		return err
	}
	for _, test := range []struct {
		name                     string
		asked, approved          time.Duration // for how long before what follows
		notApproved, notRevealed bool
	}{
		{"at the last moment of both", requestLapses - time.Microsecond, approvalLapses - time.Microsecond, false, false},
		{"approved too late", requestLapses, 0, true, true},
		{"made use of too late", time.Hour, approvalLapses, false, true},
	} {
		if err := reveal(); trust.KindOf(err) != trust.Conflict {
			t.Fatalf("%s: revealed without approval: %v", test.name, err)
		}
		now = now.Add(test.asked)
		if err := approve(); (trust.KindOf(err) == trust.NotFound) != test.notApproved || !test.notApproved && err != nil {
			t.Errorf("%s: approved: %v", test.name, err)
		}
		now = now.Add(test.approved)
		if err := reveal(); (trust.KindOf(err) == trust.Conflict) != test.notRevealed || !test.notRevealed && err != nil {
			t.Errorf("%s: revealed: %v", test.name, err)
		}
		now = now.Add(requestLapses)
	}
	list, err := p.ListApprovals(t.Context(), bob)
	if err != nil || len(list) != 0 {
		t.Errorf("what has lapsed is listed: %+v, %v", list, err)
	}
}

// A private key is had for good by whoever has it: a login of some time ago, which may be
// in wrong hands, is given none, and no machine is, whether or not somebody has to approve.
func TestRevealOutlivesALogin(t *testing.T) {
	storetest.Both(t, everything, func(t *testing.T, s *store.Store) {
		p, tenant, add := newHolder(t, s)
		alice := add("alice")
		k, err := p.GenerateKey(t.Context(), alice, keyring.Spec{Type: "ed25519"}, "deploy", KeyFacts{})
		if err != nil {
			t.Fatal(err)
		}
		reveal := func(who identity.Actor) error {
			_, file, err := p.RevealKey(t.Context(), who, string(k.Key.ID), Reveal{Plain: true})
			if (err == nil) != (len(file.Bytes()) > 0) {
				t.Errorf("%d bytes are revealed, with %v", len(file.Bytes()), err)
			}
			return err
		}
		machine := identity.Actor{Tenant: tenant, Kind: "machine", ID: "ci", Name: "ci/job", Permissions: []identity.Permission{identity.All}}
		if err := reveal(machine); trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), "outlive a machine's login") {
			t.Errorf("to a machine: %v", err)
		}
		login, err := p.PasswordLogin(t.Context(), "admin", "correct horse", "", "192.0.2.1")
		if err != nil {
			t.Fatal(err)
		}
		ask := func() error {
			who, err := p.Bearer(t.Context(), login.Text, "192.0.2.1")
			if err != nil {
				t.Fatal(err)
			}
			return reveal(who)
		}
		if err := ask(); err != nil {
			t.Errorf("to a login of now: %v", err)
		}
		ev := storetest.Event()
		ev.Tenant = tenant
		if err := s.Update(t.Context(), ev, func(tx *store.Tx) error {
			_, err := tx.Exec(`UPDATE logins SET created = created - $2 WHERE tenant = $1`, tx.Tenant(), (61 * time.Minute).Microseconds())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if err := ask(); trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), "private keys outlive a login") {
			t.Errorf("to a login of more than an hour ago: %v", err)
		}
	})
}
