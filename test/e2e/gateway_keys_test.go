//go:build linux

package e2e

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/authority"
	"keyturn/internal/hostid"
	"keyturn/internal/keyring"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
	hosts "keyturn/test/lab"
)

// An identity is a host at a gateway of two nodes, of which the one is as late as it may be.
type identity struct {
	*testing.T
	client  *hosts.Host
	store   *store.Store
	keyring *keyring.Keyring
	host    trust.HostID
	now     time.Time
	seeds   hostid.Seeds
	// authorities has ca, which certifies what is presented, or is none.
	authorities *authority.Authorities
	ca          authority.Authority
	made        int
	nodes       [2]*lab.Gateway // the second one is told by catchUp
}

const phase = time.Hour

func newIdentity(t *testing.T, client *hosts.Host, certified bool) *identity {
	t.Helper()
	s := storetest.Open(t, keyring.Schema, authority.Schema, hostid.Schema)
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	i := &identity{T: t, client: client, store: s, keyring: k, authorities: authority.New(k), host: "0190f4d2-7b1c-7e55-9a0e-3f2f7a7f1c01", now: time.Unix(1_800_000_000, 0)}
	if certified {
		private, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
			i.ca, err = i.authorities.Create(tx, authority.NewAuthority{Name: "hosts", Purpose: authority.Host}, private)
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	for n := range i.nodes {
		if i.nodes[n], err = lab.StartGateway(t.Context(), "10.99.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	first, _ := hostid.Seeds{}.Replace(i.fresh(), i.now)
	i.become(first)
	i.catchUp()
	return i
}

// fresh makes a seed.
func (i *identity) fresh() hostid.Seed {
	i.Helper()
	i.made++
	id := trust.SeedID(fmt.Sprintf("00000000-0000-4000-8000-%012d", i.made))
	// Of its row only that it is there counts: what it is at i.now, i.seeds says.
	if err := i.store.Update(i.Context(), storetest.Event(), func(tx *store.Tx) error {
		if err := i.keyring.MakeSeed(tx, id); err != nil {
			return err
		}
		_, err := tx.Exec(`INSERT INTO seeds (tenant, id, state, since, announced, left_at, before, run_id, overlap, retention, keep, created)
			VALUES ($1, $2, 'queued', 0, 0, 0, '', '', 0, 0, 0, 0)`, tx.Tenant(), id)
		return err
	}); err != nil {
		i.Fatal(err)
	}
	return hostid.Seed{ID: id, Overlap: phase, Retention: 100 * phase}
}

// become has the first node show what the seeds say from now on.
func (i *identity) become(s hostid.Seeds) {
	i.Helper()
	i.seeds = s
	i.nodes[0].Show(i.keys())
}

// catchUp has the second node hear of it.
func (i *identity) catchUp() { i.nodes[1].Show(i.keys()) }

func (i *identity) keys() (k lab.HostKeys) {
	i.Helper()
	st := i.seeds.Standing()
	k.Present = i.signers(st.Present)
	if i.ca.ID != "" {
		k.Present = append(k.Present, i.certified(k.Present)...)
	}
	if st.Besides != "" {
		k.Besides = i.signers(st.Besides)
	}
	return k
}

func (i *identity) signers(id trust.SeedID) (list []ssh.Signer) {
	i.Helper()
	err := i.store.View(i.Context(), storetest.Tenant, func(tx *store.Tx) error {
		seed, err := i.keyring.Seed(tx, id)
		if err != nil {
			return err
		}
		for _, algorithm := range keyring.SeedAlgorithms {
			s, err := seed.HostKey(storetest.Tenant, i.host, algorithm)
			if err != nil {
				return err
			}
			list = append(list, s)
		}
		return nil
	})
	if err != nil {
		i.Fatal(err)
	}
	return list
}

// certified returns what presents the certificates of keys.
func (i *identity) certified(keys []ssh.Signer) (list []ssh.Signer) {
	i.Helper()
	var made []hostid.Certified
	err := i.store.Update(i.Context(), storetest.Event(), func(tx *store.Tx) error {
		shown, err := hostid.Open(tx, i.keyring, i.seeds)
		if err != nil {
			return err
		}
		all, err := shown.Identities(i.host)
		if err != nil {
			return err
		}
		made, err = hostid.Certify(tx, i.authorities, i.ca, all)
		return err
	})
	if err != nil {
		i.Fatal(err)
	}
	for _, c := range made {
		signed, err := c.Certificate.Sign()
		if err != nil {
			i.Fatal(err)
		}
		parsed, err := ssh.ParsePublicKey(signed.Blob())
		if err != nil {
			i.Fatal(err)
		}
		for _, k := range keys {
			if trust.PublicKeyOf(k.PublicKey()) != c.Key {
				continue
			}
			s, err := ssh.NewCertSigner(parsed.(*ssh.Certificate), k)
			if err != nil {
				i.Fatal(err)
			}
			list = append(list, s)
		}
	}
	if len(list) != len(keys) {
		i.Fatalf("%d of %d keys have certificates", len(list), len(keys))
	}
	return list
}

// authority returns the line by which a host is known for its certificates.
func (i *identity) authority(host trust.HostID, hashed bool) string {
	i.Helper()
	line, err := hostid.AuthorityLine(storetest.Tenant, host, i.ca, hashed)
	if err != nil {
		i.Fatal(err)
	}
	return line + "\n"
}

func (i *identity) alias() string { return hostid.Alias(storetest.Tenant, i.host) }

// line returns the lines of known_hosts for the keys that are presented.
func (i *identity) line(hashed bool) (text string) {
	i.Helper()
	for _, s := range i.signers(i.seeds.Standing().Present) {
		l, err := hostid.Identity{Name: i.alias(), Key: trust.PublicKeyOf(s.PublicKey())}.KnownHosts(hashed)
		if err != nil {
			i.Fatal(err)
		}
		text += l + "\n"
	}
	return text
}

// know makes the known_hosts file of a client.
func (i *identity) know(file, text string) {
	i.Helper()
	i.client.WriteFile(i, "root", "/root/"+file, []byte(text), 0o600)
}

// connect has a client connect to a node, and returns what it says, which ends with
// "exit 0" where it got in.
func (i *identity) connect(file string, node int, options ...string) string {
	i.Helper()
	args := "-o LogLevel=INFO"
	for _, o := range append(options, "StrictHostKeyChecking=yes") { // of an option, the first value counts
		args += " -o " + o
	}
	return i.client.Sh(i, fmt.Sprintf(`ssh -F none -p %d %s -o BatchMode=yes -o UpdateHostKeys=yes -o HostKeyAlias=%s \
		-o UserKnownHostsFile=/root/%s -o GlobalKnownHostsFile=/dev/null somebody@10.99.0.1 true 2>&1; echo exit $?`, i.nodes[node].Address().Port, args, i.alias(), file))
}

// quiet has a client connect to both nodes, the late one first or last, without a word.
func (i *identity) quiet(when string, order ...int) {
	i.Helper()
	for _, node := range order {
		if said := i.connect("regular", node); said != "exit 0\n" {
			i.Fatalf("%s, node %d: %s\nknown_hosts:\n%s", when, node, said, i.client.Sh(i, "cat /root/regular"))
		}
	}
}

// turn lets the time pass that a phase takes, and has the next one begin.
func (i *identity) turn(fn func(hostid.Seeds, trust.SeedID, time.Time) (hostid.Seeds, time.Time), id trust.SeedID) {
	i.Helper()
	i.now = i.now.Add(phase)
	next, wait := fn(i.seeds, id, i.now)
	if !wait.IsZero() {
		i.Fatalf("the phase is not over before %s", wait)
	}
	i.become(next)
}

// announce has a rotation begin, to a new seed.
func (i *identity) announce() trust.SeedID {
	i.Helper()
	fresh := i.fresh()
	next, _ := i.seeds.Ask(fresh, i.now)
	next, ahead := next.Begin(fresh.ID, i.now)
	if ahead == "" {
		i.become(next)
	} else {
		i.seeds = next
	}
	return fresh.ID
}

// Clients of each release that knew the host, by a plain line, a hashed one, or an
// authority, go through every phase, back and further rotations without a word, whichever
// of two nodes they meet, of which one hears of each phase only after they have met both.
func TestRegularClientsAreNotWarned(t *testing.T) {
	need.Long(t)
	need.Within(t, 10*time.Minute)
	t.Parallel()
	for _, root := range need.Share(t, 3, hosts.OpenSSH92, hosts.OpenSSH100, hosts.Newest) {
		for _, style := range []string{"plain", "hashed", "authority", "authority and plain", "authority of one host, hashed"} {
			t.Run(string(root)+" "+style, func(t *testing.T) {
				t.Parallel()
				i := newIdentity(t, hosts.NewWorld(t).Boot(t, hosts.Spec{Name: "client", Root: root}), strings.HasPrefix(style, "authority"))
				i.know("regular", map[string]func() string{
					"plain":                         func() string { return i.line(false) },
					"hashed":                        func() string { return i.line(true) },
					"authority":                     func() string { return i.authority("", false) },
					"authority and plain":           func() string { return i.authority("", false) + i.line(false) },
					"authority of one host, hashed": func() string { return i.authority(i.host, true) },
				}[style]())
				i.rotations()
			})
		}
	}
}

// rotations is a year in the life of an identity.
func (i *identity) rotations() {
	i.Helper()
	i.quiet("settled", 0, 1)
	i.announce()
	i.quiet("announced", 1, 0, 1, 0)
	i.catchUp()
	i.quiet("announced everywhere", 0, 1)

	second := i.announce() // in the place of the first
	i.quiet("another one announced", 0, 1, 0)
	i.catchUp()
	i.quiet("another one announced everywhere", 1, 0)
	i.turn(hostid.Seeds.Present, second)
	i.quiet("presented by one node", 0, 1, 0, 1)
	i.catchUp()
	i.quiet("presented", 0, 1)

	third := i.announce() // waits for its turn
	i.quiet("presented, and one queued", 0, 1)
	i.turn(hostid.Seeds.Withdraw, second)
	i.quiet("settled on one node", 1, 0, 1, 0)
	next, _ := i.seeds.Begin(third, i.now)
	i.become(next)
	i.quiet("settled on one node, and the next announced by the other", 1, 0, 1, 0)
	i.catchUp()
	i.quiet("the next announced", 1, 0)
	i.turn(hostid.Seeds.Present, third)
	i.quiet("the next presented by one node", 0, 1, 0, 1)

	// Back, before the other node has heard of it.
	back, _ := i.seeds.Take(second, "back", i.now).Begin(second, i.now)
	i.become(back)
	i.quiet("going back, as one node knows", 0, 1, 0)
	i.catchUp()
	i.quiet("going back", 0, 1)
	i.turn(hostid.Seeds.Present, second)
	i.quiet("back on one node", 0, 1, 0, 1)
	i.catchUp()
	i.turn(hostid.Seeds.Withdraw, second)
	i.quiet("back, and settled on one node", 0, 1, 0, 1)

	// And a rotation that is taken back before anything of it is presented.
	i.catchUp()
	fourth := i.announce()
	i.quiet("announced by one node", 0, 1)
	without, _ := i.seeds.Abandon(fourth, i.now)
	i.catchUp()
	i.become(without)
	i.quiet("announced no more by one node", 0, 1, 0)
}

// Who could not be told is warned, in the words that docs/host-identity.md has, and is let
// in again with the lines of "keyturn known-hosts"; and what is revoked is refused.
func TestWhoIsWarned(t *testing.T) {
	need.Long(t)
	need.Within(t, 10*time.Minute)
	t.Parallel()
	for _, root := range need.Share(t, 3, hosts.OpenSSH92, hosts.OpenSSH100, hosts.Newest) {
		t.Run(string(root), func(t *testing.T) {
			t.Parallel()
			newIdentity(t, hosts.NewWorld(t).Boot(t, hosts.Spec{Name: "client", Root: root}), false).warnings()
		})
	}
}

// Who knows hosts by their authority hears nothing when a seed was compromised, and with
// the key revocation list refuses what was signed for it, at a node that still presents it.
func TestRevokedHostCertificates(t *testing.T) {
	need.Long(t)
	need.Within(t, 10*time.Minute)
	t.Parallel()
	for _, root := range need.Share(t, 3, hosts.OpenSSH92, hosts.OpenSSH100, hosts.Newest) {
		t.Run(string(root), func(t *testing.T) {
			t.Parallel()
			i := newIdentity(t, hosts.NewWorld(t).Boot(t, hosts.Spec{Name: "client", Root: root}), true)
			i.know("regular", i.authority("", false))
			i.quiet("settled", 0, 1)
			compromised := i.seeds.Standing().Present
			i.know("revoked", keysOf(i.line(false)))
			next, _ := i.seeds.Replace(i.fresh(), i.now)
			i.become(next)
			i.quiet("compromised", 0, 1)
			i.know("krl", i.revoke("gateway seed "+string(compromised)))
			if said := i.connect("regular", 0, "RevokedHostKeys=/root/krl"); said != "exit 0\n" {
				t.Errorf("the new seed's: %s", said)
			}
			if said := i.connect("regular", 1, "RevokedHostKeys=/root/krl"); !strings.Contains(said, "revoked by file /root/krl") || !strings.Contains(said, "exit 255") {
				t.Errorf("the compromised seed's: %s", said)
			}
			if said := i.connect("regular", 0, "RevokedHostKeys=/root/revoked"); said != "exit 0\n" {
				t.Errorf("the new seed's, where the old keys are revoked: %s", said)
			}
			if said := i.connect("regular", 1, "RevokedHostKeys=/root/revoked"); !strings.Contains(said, revoked) || !strings.Contains(said, "exit 255") {
				t.Errorf("a certificate of a revoked key: %s", said)
			}
		})
	}
}

// revoke revokes a key id, and returns the list.
func (i *identity) revoke(keyID string) (list string) {
	i.Helper()
	err := i.store.Update(i.Context(), storetest.Event(), func(tx *store.Tx) error {
		if n, err := i.authorities.RevokeKeyID(tx, keyID, ""); err != nil || n != len(keyring.SeedAlgorithms) {
			return fmt.Errorf("%d certificates: %w", n, err)
		}
		krl, err := i.authorities.KRL(tx)
		if err != nil {
			return err
		}
		data, err := krl.Marshal()
		list = string(data)
		return err
	})
	if err != nil {
		i.Fatal(err)
	}
	return list
}

const (
	changed = "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"
	revoked = " revoked by file /root/revoked"
)

func (i *identity) warnings() {
	i.Helper()
	old := i.line(false)
	for _, file := range []string{"away", "off", "regular"} {
		i.know(file, old)
	}
	i.know("trusting", "")
	i.know("trusting-twice", "")
	id := i.announce()
	i.quiet("announced", 0)
	i.expect("off", "exit 0\n", "UpdateHostKeys=no")
	i.expect("trusting", "exit 0\n", "StrictHostKeyChecking=accept-new")
	i.expect("trusting-twice", "exit 0\n", "StrictHostKeyChecking=accept-new")
	i.expect("trusting-twice", "exit 0\n")
	i.turn(hostid.Seeds.Present, id)
	i.quiet("presented", 0)
	i.expect("trusting-twice", "exit 0\n")
	for _, file := range []string{"away", "off", "trusting"} {
		i.expect(file, changed)
		i.know(file, i.line(true))
		i.expect(file, "exit 0\n")
	}

	// Compromised: everybody is warned of the new key, and who has the lines of
	// "keyturn known-hosts" refuses the old one, at a node that still presents it.
	i.catchUp()
	was := i.line(false)
	next, _ := i.seeds.Replace(i.fresh(), i.now)
	i.become(next)
	i.expect("regular", changed)
	i.know("regular", i.line(false))
	i.expect("regular", "exit 0\n")
	if said := i.connect("regular", 1); !strings.Contains(said, changed) || !strings.Contains(said, "exit 255") {
		i.Errorf("a key of before: %s", said)
	}
	// Who has the old key from elsewhere refuses it by "keyturn known-hosts --revoked".
	i.know("revoked", keysOf(was))
	i.know("both", was+i.line(false))
	if said := i.connect("both", 1, "RevokedHostKeys=/root/revoked"); !strings.Contains(said, revoked) || !strings.Contains(said, "exit 255") {
		i.Errorf("a revoked key: %s", said)
	}

	// And the next rotation is one without a word again, for both.
	i.catchUp()
	id = i.announce()
	i.quiet("announced after that", 0)
	i.expect("both", "exit 0\n", "RevokedHostKeys=/root/revoked")
	i.turn(hostid.Seeds.Present, id)
	i.quiet("presented after that", 0)
	i.expect("both", "exit 0\n", "RevokedHostKeys=/root/revoked")
}

// keysOf returns the keys of lines of known_hosts, as "keyturn known-hosts --revoked" has
// those of a seed that is revoked.
func keysOf(lines string) (keys string) {
	for l := range strings.Lines(lines) {
		_, key, _ := strings.Cut(l, " ")
		keys += key
	}
	return keys
}

// expect has a client connect, and hear something of its ssh.
func (i *identity) expect(file, says string, options ...string) {
	i.Helper()
	said := i.connect(file, 0, options...)
	if !strings.Contains(said, says) || says == changed && !strings.Contains(said, "Host key verification failed.\r\nexit 255") {
		i.Errorf("%s: %q, want %q", file, said, says)
	}
}
