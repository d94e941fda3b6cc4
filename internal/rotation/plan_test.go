package rotation

import (
	//lint:ignore SA1019 a key of it is to be refused
	"crypto/dsa"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A world is an inventory to plan in. The hosts and keys of a test are named.
type world struct {
	testing.TB
	store *store.Store
	hosts map[string]trust.HostID
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	return &world{TB: tb, store: storetest.Open(tb, inventory.Schema, job.Schema), hosts: map[string]trust.HostID{}}
}

func (w *world) update(fn func(tx *store.Tx) error) {
	w.Helper()
	if err := w.store.Update(w.Context(), storetest.Event(), fn); err != nil {
		w.Fatal(err)
	}
}

// host adds an enforced host, or one that change makes of it. Ids have the order in
// which hosts are added.
func (w *world) host(name string, change func(*inventory.Host)) {
	w.Helper()
	h := inventory.Host{
		ID: trust.HostID(fmt.Sprintf("00000000-0000-4000-8000-%012d", len(w.hosts)+1)), Name: name, Address: name + ":22", User: "root",
		Mode: inventory.Enforced, State: inventory.Ready, Pins: []inventory.Pin{{Key: testKey("host key of " + name), Origin: inventory.Given}},
	}
	if change != nil {
		change(&h)
	}
	w.hosts[name] = h.ID
	w.update(func(tx *store.Tx) error {
		_, err := inventory.AddHost(tx, h)
		return err
	})
}

func keyID(key trust.PublicKey) trust.KeyID {
	return inventory.KeyIDOf(storetest.Tenant, inventory.UserKey, key)
}

// key adds a user key that the keyring holds, or what change makes of it.
func (w *world) key(name string, change func(*inventory.Key)) trust.KeyID {
	w.Helper()
	k := inventory.Key{Kind: inventory.UserKey, Public: testKey(name), Custody: inventory.Held}
	if change != nil {
		change(&k)
	}
	w.update(func(tx *store.Tx) (err error) {
		k, err = inventory.PutKey(tx, k)
		return err
	})
	return k.ID
}

// scan records that a scan of a host found files.
func (w *world) scan(host string, files ...inventory.FoundFile) {
	w.Helper()
	s := inventory.Scan{Host: w.hosts[host], Outcome: inventory.Scanned, Complete: true}
	for _, f := range files {
		f.Host = s.Host
		s.Files = append(s.Files, f)
		s.Users = append(s.Users, f.User)
	}
	w.update(func(tx *store.Tx) error {
		_, err := inventory.RecordScan(tx, s)
		return err
	})
}

// authorizedKeys is an account's file with lines as in filled.
func authorizedKeys(user, lines string) inventory.FoundFile {
	content := []byte(filled(lines))
	return inventory.FoundFile{
		File:       inventory.File{Place: trust.Place{User: user, Path: "/home/" + user + "/keys"}, Kind: inventory.AuthorizedFile, SHA256: sum(content), Size: int64(len(content))},
		Authorized: inventory.AuthorizedKeysOf(content, trust.OpenSSHVersion(9, 2)),
	}
}

// identityFile is an account's file with a private key.
func identityFile(user, key string) inventory.FoundFile {
	return inventory.FoundFile{
		File:     inventory.File{Place: trust.Place{User: user, Path: "/home/" + user + "/id"}, Kind: inventory.IdentityFile, SHA256: sum([]byte(key))},
		Identity: inventory.Identity{Key: testKey(key), Format: "openssh"},
	}
}

func ask(keys ...trust.KeyID) Request {
	return Request{Keys: keys, Soak: time.Hour, Proof: Login, Canary: 1, Wave: 50, Retention: 24 * time.Hour}
}

// rotation plans a rotation, with successors that are named after their keys' place in
// the request.
func (w *world) rotation(q Request) (plan job.Plan, err error) {
	w.update(func(tx *store.Tx) error {
		var news []trust.PublicKey
		for i := range unique(q.Keys) {
			news = append(news, testKey(fmt.Sprint("new ", i)))
		}
		plan, err = PlanRotation(tx, q, news)
		return nil
	})
	return plan, err
}

func (w *world) preview(q Request) (plan job.Plan, err error) {
	w.update(func(tx *store.Tx) error {
		plan, err = PlanPreview(tx, q)
		return nil
	})
	return plan, err
}

func (w *world) retirement(q Request) (plan job.Plan, err error) {
	w.update(func(tx *store.Tx) error {
		plan, err = PlanRetirement(tx, q)
		return nil
	})
	return plan, err
}

// show returns a plan as text: its lists, and in each target its pair and place.
func show(t *testing.T, p job.Plan) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "%s, canary %d, wave %d, %d names\n", p.Procedure, p.Canary, p.Wave, len(p.Exclusive))
	for _, list := range []job.List{Places, Authorized, Identities} {
		for i, target := range p.Targets[list] {
			var s spec
			if err := json.Unmarshal(target.Spec, &s); err != nil {
				t.Fatal(err)
			}
			if want := map[job.List]int{Places: s.Place, Authorized: s.Order, Identities: s.Order}[list]; want != i || target.Name != s.name() || target.Host != s.Host {
				t.Errorf("target %d of %s is %+v with %+v", i, list, target, s)
			}
			fmt.Fprintf(&out, "%s %d: pair %d, %s\n", list, i, s.Pair, target.Name)
		}
	}
	return out.String()
}

// A plan has one target for each file, however many lines of it hold the key, in
// the order of hosts' ids, and each place again in the list of its half.
func TestPlans(t *testing.T) {
	w := newWorld(t)
	a, b := w.key("a", nil), w.key("b", nil)
	w.host("zoe", nil) // the first id
	w.host("amy", nil)
	w.scan("amy",
		authorizedKeys("bob", "{{a}} 1\n{{other}}\nrestrict {{a}} 2\n{{b}}\n"),
		authorizedKeys("alice", "{{a}}\n"),
	)
	w.scan("zoe", authorizedKeys("root", "{{b}}\n"), identityFile("alice", "a"), identityFile("bob", "a"))

	plan, err := w.rotation(ask(b, a, b))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := show(t, plan), `rotate, canary 1, wave 50, 4 names
places 0: pair 0, zoe:root:/home/root/keys
places 1: pair 1, amy:alice:/home/alice/keys
places 2: pair 0, amy:bob:/home/bob/keys
places 3: pair 1, amy:bob:/home/bob/keys
places 4: pair 1, zoe:alice:/home/alice/id
places 5: pair 1, zoe:bob:/home/bob/id
authorized 0: pair 0, zoe:root:/home/root/keys
authorized 1: pair 1, amy:alice:/home/alice/keys
authorized 2: pair 0, amy:bob:/home/bob/keys
authorized 3: pair 1, amy:bob:/home/bob/keys
identities 0: pair 1, zoe:alice:/home/alice/id
identities 1: pair 1, zoe:bob:/home/bob/id
`; got != want {
		t.Errorf("rotation: got\n%swant\n%s", got, want)
	}
	var args Args
	if err := json.Unmarshal(plan.Args, &args); err != nil {
		t.Fatal(err)
	}
	pairs := []Pair{
		{Old: b, OldKey: testKey("b"), New: keyID(testKey("new 0")), NewKey: testKey("new 0")},
		{Old: a, OldKey: testKey("a"), New: keyID(testKey("new 1")), NewKey: testKey("new 1")},
	}
	if !slices.Equal(args.Pairs, pairs) || args.Soak != time.Hour || args.Proof != Login || args.Retention != 24*time.Hour || args.Compromised {
		t.Errorf("rotation: args %+v", args)
	}
	names := []string{"key:" + string(b), "key:" + string(pairs[0].New), "key:" + string(a), "key:" + string(pairs[1].New)}
	if !slices.Equal(plan.Exclusive, names) || plan.Subject != "key:"+string(b) {
		t.Errorf("rotation: about %s, holds %q", plan.Subject, plan.Exclusive)
	}

	if plan, err = w.preview(ask(a)); err != nil {
		t.Fatal(err)
	}
	if got, want := show(t, plan), `preview, canary 1, wave 50, 0 names
places 0: pair 0, amy:alice:/home/alice/keys
places 1: pair 0, amy:bob:/home/bob/keys
places 2: pair 0, zoe:alice:/home/alice/id
places 3: pair 0, zoe:bob:/home/bob/id
`; got != want {
		t.Errorf("preview: got\n%swant\n%s", got, want)
	}

	if plan, err = w.retirement(ask(a)); err != nil {
		t.Fatal(err)
	}
	if got, want := show(t, plan), `retire, canary 1, wave 50, 1 names
places 0: pair 0, amy:alice:/home/alice/keys
places 1: pair 0, amy:bob:/home/bob/keys
authorized 0: pair 0, amy:alice:/home/alice/keys
authorized 1: pair 0, amy:bob:/home/bob/keys
`; got != want {
		t.Errorf("retirement: got\n%swant\n%s", got, want)
	}
}

// Each reason for which a run is not planned at all: whoever asks learns it, and
// what to do, before anything is touched.
func TestRefusals(t *testing.T) {
	securityKey := func() trust.PublicKey {
		blob := []byte(nil)
		for _, part := range []string{"sk-ssh-ed25519@openssh.com", string(testKey("sk").Blob()[19:]), "ssh:"} {
			blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(part))), part...)
		}
		key, err := trust.ParsePublicKeyBlob(blob)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}()
	dsa := trust.PublicKeyOf(func() ssh.PublicKey {
		number := func(bits uint) *big.Int { return new(big.Int).SetBit(big.NewInt(1), int(bits)-1, 1) }
		key, err := ssh.NewPublicKey(&dsa.PublicKey{Parameters: dsa.Parameters{P: number(1024), Q: number(160), G: number(1023)}, Y: number(1022)})
		if err != nil {
			t.Fatal(err)
		}
		return key
	}())
	accepted := authorizedKeys("alice", "{{a}}\n")
	withFile := func(change func(*inventory.FoundFile)) func(*world) {
		return func(w *world) {
			f := accepted
			change(&f)
			w.scan("web1", f)
		}
	}
	for _, test := range []struct {
		name    string
		key     func(*inventory.Key)
		arrange func(*world) // by default, alice of web1 accepts the key
		request func(*Request)
		kind    trust.Kind // 0 where a rotation is planned
		text    string
		preview bool // a dry run is planned nevertheless
		retire  bool // a retirement is
	}{
		{name: "nothing", preview: true, retire: true},

		{name: "no key is named", request: func(q *Request) { q.Keys = nil }, kind: trust.Invalid, text: "no key is named"},
		{name: "too many keys", request: func(q *Request) { q.Keys = slices.Repeat(q.Keys, MaxKeys+1) }, kind: trust.Exhausted, text: "1001 keys are more than the 1000"},
		{name: "a canary of less than none", request: func(q *Request) { q.Canary = -1 }, kind: trust.Invalid, text: "not negative"},
		{name: "waves of less than none", request: func(q *Request) { q.Wave = -1 }, kind: trust.Invalid, text: "not negative"},
		{name: "an unknown level of proof", request: func(q *Request) { q.Proof = "hearsay" }, kind: trust.Invalid, text: `"hearsay"`},
		{name: "a soak of less than nothing", request: func(q *Request) { q.Soak = -1 }, kind: trust.Invalid, text: "soak"},
		{name: "a soak of over a year", request: func(q *Request) { q.Soak = 367 * 24 * time.Hour }, kind: trust.Invalid, text: "soak"},
		{name: "a soak of a year", request: func(q *Request) { q.Soak = 366 * 24 * time.Hour }, preview: true, retire: true},

		{name: "a key that nobody has met", request: func(q *Request) { q.Keys = []trust.KeyID{keyID(testKey("stranger"))} }, kind: trust.NotFound, text: string(keyID(testKey("stranger")))},
		{name: "a host key", key: func(k *inventory.Key) { k.Kind = inventory.HostKey }, kind: trust.Conflict, text: "only user keys can be rotated"},
		{name: "a key that is not active", arrange: func(w *world) {
			w.scan("web1", accepted)
			w.update(func(tx *store.Tx) error {
				return inventory.TakeOut(tx, "00000000-0000-7000-8000-000000000001", keyID(testKey("a")), inventory.Retired, "ops")
			})
		}, kind: trust.Conflict, text: "is retired, not active", retire: true},
		{name: "a key that is not active, and accepted nowhere", arrange: func(w *world) {
			w.update(func(tx *store.Tx) error {
				return inventory.TakeOut(tx, "00000000-0000-7000-8000-000000000001", keyID(testKey("a")), inventory.Retired, "ops")
			})
		}, kind: trust.Conflict, text: "is retired, not active"},
		{name: "a security key", key: func(k *inventory.Key) { k.Public = securityKey }, arrange: func(w *world) {
			w.scan("web1", authorizedKeys("alice", securityKey.String()+"\n"))
		}, kind: trust.Conflict, text: "only its owner's security key can make another", retire: true},

		{name: "a DSA key, to be shared", key: func(k *inventory.Key) { k.Public, k.Custody = dsa, inventory.InPlace }, arrange: func(w *world) {
			f := identityFile("bob", "a")
			f.Identity.Key = dsa
			w.scan("web1", authorizedKeys("alice", dsa.String()+"\n"), f)
		}, request: func(q *Request) { q.Share = true }, kind: trust.Conflict, text: "is a DSA key", retire: true},

		{name: "an external key of which nobody knows where it lies", key: func(k *inventory.Key) { k.Custody = inventory.External }, kind: trust.Conflict, text: "is external", retire: true},
		{name: "a key that only hosts have", key: func(k *inventory.Key) { k.Custody = inventory.InPlace }, arrange: func(w *world) {
			w.scan("web1", accepted, identityFile("bob", "a"))
		}, kind: trust.Conflict, text: "lies only on hosts (identity files: 1, the first on web1)", retire: true},
		{
			name: "a key that only hosts have, to be shared", key: func(k *inventory.Key) { k.Custody = inventory.InPlace },
			arrange: func(w *world) { w.scan("web1", accepted, identityFile("bob", "a")) },
			request: func(q *Request) { q.Share = true }, preview: true, retire: true,
		},
		{name: "a passphrase, even if a copy is held", arrange: func(w *world) {
			f := identityFile("bob", "a")
			f.Identity.Encrypted = true
			w.scan("web1", accepted, f)
		}, kind: trust.Conflict, text: "/home/bob/id of bob on web1 with a passphrase", retire: true},

		{name: "no known place", arrange: func(*world) {}, kind: trust.Conflict, text: "no place is known"},
		{name: "only an identity file", arrange: func(w *world) { w.scan("web1", identityFile("bob", "a")) }, kind: trust.Conflict, text: "no account is known that accepts key"},
		{name: "a certificate authority", arrange: func(w *world) {
			w.scan("web1", accepted, authorizedKeys("bob", "{{other}}\ncert-authority {{a}}\n"))
		}, kind: trust.Conflict, text: "certificate authority in /home/bob/keys of bob on web1"},

		{name: "a host that was not taken in", arrange: func(w *world) {
			w.host("web2", func(h *inventory.Host) { h.State, h.Reason = inventory.Refused, "no login" })
			w.scan("web2", accepted)
		}, kind: trust.Conflict, text: `host "web2" is refused: no login`},
		{name: "a host that is only watched", arrange: func(w *world) {
			w.host("web2", func(h *inventory.Host) { h.Mode = inventory.Inventory })
			w.scan("web1", accepted)
			w.scan("web2", accepted)
		}, kind: trust.Conflict, text: `host "web2" is only watched`, preview: true},
		{name: "a file that cannot be changed", arrange: withFile(func(f *inventory.FoundFile) { f.Fixed = "it is immutable" }), kind: trust.Conflict, text: "web1:alice:/home/alice/keys cannot be changed, as the last scan found it: it is immutable", preview: true},
		{name: "a file that was not read", arrange: func(w *world) {
			w.scan("web1", accepted)
			w.update(func(tx *store.Tx) error {
				_, err := inventory.RecordScan(tx, inventory.Scan{
					Host: w.hosts["web1"], Outcome: inventory.Scanned, Users: []string{"alice"}, Complete: true,
					Unread: []inventory.UnreadFile{{User: "alice", Path: "/home/alice/keys", Why: "permission denied"}},
				})
				return err
			})
		}, kind: trust.Conflict, text: "could not be read at the last scan: permission denied"},
		{name: "another file of the host cannot be changed", arrange: func(w *world) {
			f := authorizedKeys("bob", "{{other}}\n")
			f.Fixed = "it is immutable"
			w.scan("web1", accepted, f)
		}, preview: true, retire: true},
		{name: "one file of two accounts", arrange: func(w *world) {
			mine, theirs := accepted, authorizedKeys("bob", "{{a}}\n")
			mine.Inode, theirs.Inode = "1:2", "1:2"
			w.scan("web1", mine, theirs)
		}, kind: trust.Conflict, text: "is the same file as /home/"},
		{name: "one file of one account under two names", arrange: func(w *world) {
			one, other := accepted, accepted
			other.Path += "2"
			one.Inode, other.Inode = "1:2", "1:2"
			w.scan("web1", one, other)
		}, preview: true, retire: true},
		{name: "files of two accounts", arrange: func(w *world) {
			mine, theirs := accepted, authorizedKeys("bob", "{{a}}\n")
			mine.Inode, theirs.Inode = "1:2", "1:3"
			w.scan("web1", mine, theirs)
		}, preview: true, retire: true},
		{name: "one inode on two hosts", arrange: func(w *world) {
			w.host("web2", nil)
			mine, theirs := accepted, authorizedKeys("bob", "{{a}}\n")
			mine.Inode, theirs.Inode = "1:2", "1:2"
			w.scan("web1", mine)
			w.scan("web2", theirs)
		}, preview: true, retire: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.host("web1", nil)
			q := ask(w.key("a", test.key))
			if test.arrange == nil {
				test.arrange = func(w *world) { w.scan("web1", accepted) }
			}
			test.arrange(w)
			if test.request != nil {
				test.request(&q)
			}
			_, err := w.rotation(q)
			switch {
			case test.kind == 0 && err != nil:
				t.Errorf("refused: %v", err)
			case test.kind != 0 && (trust.KindOf(err) != test.kind || !strings.Contains(err.Error(), test.text)):
				t.Errorf("got error %v of kind %v, want kind %v with %q", err, trust.KindOf(err), test.kind, test.text)
			}
			if _, err := w.preview(q); (err == nil) != test.preview {
				t.Errorf("a dry run: %v", err)
			}
			if _, err := w.retirement(q); (err == nil) != test.retire {
				t.Errorf("a retirement: %v", err)
			}
		})
	}
}

// Of several keys that are refused, all are named, each with its reason.
func TestRefusedTogether(t *testing.T) {
	w := newWorld(t)
	external := w.key("external", func(k *inventory.Key) { k.Custody = inventory.External })
	host := w.key("host", func(k *inventory.Key) { k.Kind = inventory.HostKey })
	good, unknown := w.key("good", nil), keyID(testKey("unknown"))
	_, err := w.rotation(ask(good, host, external, unknown))
	var why *KeysError
	if !errors.As(err, &why) || trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), string(host)) || !strings.Contains(err.Error(), "and 2 more keys") {
		t.Fatalf("got %v", err)
	}
	if len(why.Why) != 3 || !strings.Contains(why.Why[host], "user keys") || !strings.Contains(why.Why[external], "external") || !strings.Contains(why.Why[unknown], string(unknown)) {
		t.Errorf("got reasons %q", why.Why)
	}
}

// A key is in one open run: a second plan with it is not started, and the
// refusal names the run.
func TestKeyInAnotherRun(t *testing.T) {
	w := newWorld(t)
	w.host("web1", nil)
	a, b := w.key("a", nil), w.key("b", nil)
	w.key("new 0", nil)
	w.key("new 1", nil)
	w.scan("web1", authorizedKeys("alice", "{{a}}\n{{b}}\n"))
	judge := func(*store.Tx, []trust.KeyID) error { return nil }
	engine, err := job.New(w.store, New(w.store, nil, nil, judge).Procedures(), job.Options{})
	if err != nil {
		t.Fatal(err)
	}
	first, err := w.rotation(ask(a))
	if err != nil {
		t.Fatal(err)
	}
	second, err := w.rotation(ask(a, b))
	if err != nil {
		t.Fatal(err)
	}
	create := func(p job.Plan) (run trust.RunID, err error) {
		err = w.store.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
			run, err = engine.Create(tx, storetest.Event().Actor, p)
			return err
		})
		return run, err
	}
	run, err := create(first)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := create(second); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), string(run)) {
		t.Errorf("the second run: got %v, want a Conflict that names run %s", err, run)
	}
	w.update(func(tx *store.Tx) error {
		for id, want := range map[trust.KeyID]inventory.KeyState{a: inventory.Rotated, b: inventory.Active, keyID(testKey("new 0")): inventory.Active} {
			if k, err := inventory.KeyByID(tx, id); err != nil || k.State != want {
				t.Errorf("key %s is %s, want %s (%v)", id, k.State, want, err)
			}
		}
		return nil
	})
}

// A successor is of the type and size of the old key, unless that no longer
// holds.
func TestSuccessorOf(t *testing.T) {
	rsaKey := func(bits int) trust.PublicKey {
		modulus := make([]byte, bits/8+1)
		modulus[1], modulus[bits/8] = 0x80, 1
		blob := []byte(nil)
		for _, part := range []string{"ssh-rsa", "\x01\x00\x01", string(modulus)} {
			blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(part))), part...)
		}
		key, err := trust.ParsePublicKeyBlob(blob)
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	generated := func(typ string) trust.PublicKey {
		private, err := keyring.Generate(keyring.Spec{Type: typ})
		if err != nil {
			t.Fatal(err)
		}
		return private.Public()
	}
	for _, test := range []struct {
		old  trust.PublicKey
		want keyring.Spec
	}{
		{testKey("a"), keyring.Spec{Type: "ed25519"}},
		{generated("ecdsa-p256"), keyring.Spec{Type: "ecdsa-p256"}},
		{generated("ecdsa-p384"), keyring.Spec{Type: "ecdsa-p384"}},
		{generated("ecdsa-p521"), keyring.Spec{Type: "ecdsa-p521"}},
		{rsaKey(1024), keyring.Spec{Type: "rsa", Bits: 3072}},
		{rsaKey(3072), keyring.Spec{Type: "rsa", Bits: 3072}},
		{rsaKey(4096), keyring.Spec{Type: "rsa", Bits: 4096}},
		{rsaKey(16384), keyring.Spec{Type: "rsa", Bits: 8192}},
	} {
		got, err := successorOf(inventory.Key{Public: test.old})
		if err != nil || got != test.want {
			t.Errorf("%s of %d bits: got %+v, %v; want %+v", test.old.Type(), test.old.Bits(), got, err, test.want)
		}
	}
}

// Levels of proof have one order, and only they are read as one.
func TestLevels(t *testing.T) {
	for i, l := range []Level{Written, Matched, LoginHere, Login} {
		if got, err := ParseLevel(string(l)); got != l || err != nil || l.rank() != i {
			t.Errorf("%s is %q of rank %d, %v; want rank %d", l, got, l.rank(), err, i)
		}
	}
	for _, text := range []string{"", "LOGIN", "login ", "none"} {
		if got, err := ParseLevel(text); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%q is read as %q, %v", text, got, err)
		}
	}
}

// The rows that change no trust wait for no canary, where one wave has room for all places.
func TestPlacesOfAWaveGoTogether(t *testing.T) {
	for n, together := range map[int]bool{1: true, 4: true, 5: true, 6: false} {
		places := make([]spec, n)
		for i := range places {
			places[i] = spec{Half: authorizedHalf, Host: trust.HostID(fmt.Sprint(i)), User: "alice", Path: "keys"}
		}
		plan, err := planOf(RetireProcedure, 1, 4, Args{Pairs: []Pair{{Old: "old"}}}, places)
		if err != nil {
			t.Fatal(err)
		}
		for i, p := range plan.Targets[Places] {
			if p.With != (together && i > 0) {
				t.Errorf("of %d, place %d goes with the one before it: %v", n, i, p.With)
			}
			if plan.Targets[Authorized][i].With {
				t.Errorf("of %d, file %d goes with the one before it", n, i)
			}
		}
	}
}
