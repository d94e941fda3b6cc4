package discovery

import (
	"crypto/ed25519"
	"crypto/rsa"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func TestJudgeKey(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	good, _, err := trust.ParsePublicKey("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2o9ZSFPpC5rVEUHrOMVJPGGJw9tKdUtpxmJFtPxHf")
	if err != nil {
		t.Fatal(err)
	}
	rsaKey := func(bits int) trust.PublicKey {
		t.Helper()
		modulus := new(big.Int).SetBit(big.NewInt(1), bits-1, 1) // of that size, and nobody's
		pub, err := ssh.NewPublicKey(&rsa.PublicKey{N: modulus, E: 65537})
		if err != nil {
			t.Fatal(err)
		}
		return trust.PublicKeyOf(pub)
	}
	authorized := []inventory.AuthorizedPlace{{Place: trust.Place{Host: "h", User: "alice", Path: "/a"}, AuthorizedKey: inventory.AuthorizedKey{Line: 3}}}
	identity := func(host, user, path string) inventory.IdentityPlace {
		return inventory.IdentityPlace{Place: trust.Place{Host: trust.HostID(host), User: user, Path: path}, HostName: host}
	}
	one := []inventory.IdentityPlace{identity("h", "alice", "/id")}
	locked := []inventory.IdentityPlace{{Place: trust.Place{Host: "h", User: "alice", Path: "/id"}, Encrypted: true}}
	archived := []inventory.Rotation{{At: now.AddDate(0, -1, 0), ArchivedAt: now}}
	key := func(change func(*inventory.Key)) inventory.Key {
		k := inventory.Key{
			Kind: inventory.UserKey, Public: good, State: inventory.Active, Custody: inventory.InPlace, Owner: "ops",
			CreatedAt: now.AddDate(0, -1, 0),
		}
		if change != nil {
			change(&k)
		}
		return k
	}
	for _, test := range []struct {
		name string
		c    keyCase
		want string // kinds and levels, sorted
	}{
		{"one owner, one place, one identity", keyCase{key(nil), authorized, one, nil, false}, ""},
		{"nowhere", keyCase{key(func(k *inventory.Key) { k.Owner = "" }), nil, nil, nil, false}, ""},
		{"no identity", keyCase{key(nil), authorized, nil, nil, false}, "orphaned/warning"},
		{"no identity, no owner", keyCase{key(func(k *inventory.Key) { k.Owner = "" }), authorized, nil, nil, false}, "orphaned/warning unknown/warning"},
		{"no identity but ours", keyCase{key(func(k *inventory.Key) { k.Custody = inventory.Held }), authorized, nil, nil, false}, ""},
		{"accepted nowhere", keyCase{key(nil), nil, one, nil, false}, "orphaned/note"},
		{"accepted nowhere, with a passphrase", keyCase{key(nil), nil, locked, nil, false}, "orphaned/note"},
		{"two hosts", keyCase{key(nil), authorized, []inventory.IdentityPlace{one[0], identity("g", "alice", "/id")}, nil, false}, "shared/warning"},
		{"two accounts read one file", keyCase{key(nil), authorized, []inventory.IdentityPlace{one[0], identity("h", "bob", "/id")}, nil, false}, ""},
		{"RSA 1024", keyCase{key(func(k *inventory.Key) { k.Public = rsaKey(1024) }), authorized, one, nil, false}, "weak/warning"},
		{"RSA 2048", keyCase{key(func(k *inventory.Key) { k.Public = rsaKey(2048) }), authorized, one, nil, false}, "weak/note"},
		{"RSA 2040, as some programs made for 2048", keyCase{key(func(k *inventory.Key) { k.Public = rsaKey(2040) }), authorized, one, nil, false}, "weak/warning"},
		{"RSA 3072", keyCase{key(func(k *inventory.Key) { k.Public = rsaKey(3072) }), authorized, one, nil, false}, ""},
		{"as old as a key may be", keyCase{key(func(k *inventory.Key) { k.CreatedAt = now.Add(-staleAge) }), authorized, one, nil, false}, ""},
		{"old", keyCase{key(func(k *inventory.Key) { k.CreatedAt = now.AddDate(-3, 0, 0) }), authorized, one, nil, false}, "stale/warning"},
		{"old, and rotated since", keyCase{key(func(k *inventory.Key) {
			k.CreatedAt, k.LastRotatedAt = now.AddDate(-3, 0, 0), now.AddDate(0, -1, 0)
		}), authorized, one, nil, false}, ""},
		{"expires later", keyCase{key(func(k *inventory.Key) { k.ExpiresAt = now.Add(time.Second) }), authorized, one, nil, false}, ""},
		{"has expired", keyCase{key(func(k *inventory.Key) { k.ExpiresAt = now }), authorized, one, nil, false}, "expired/warning"},
		{"has expired, and is accepted nowhere", keyCase{key(func(k *inventory.Key) { k.ExpiresAt = now }), nil, one, nil, false}, "orphaned/note"},
		{"has expired, and is rotated", keyCase{key(func(k *inventory.Key) {
			k.ExpiresAt, k.State = now, inventory.Rotated
		}), authorized, one, []inventory.Rotation{{At: now}}, false}, ""},
		{"compromised", keyCase{key(func(k *inventory.Key) { k.Compromised = true }), authorized, one, nil, false}, "stale/warning"},
		{"compromised, and accepted nowhere", keyCase{key(func(k *inventory.Key) { k.Compromised = true }), nil, one, nil, false}, "orphaned/note"},
		{"compromised, and old", keyCase{key(func(k *inventory.Key) {
			k.Compromised, k.CreatedAt = true, now.AddDate(-3, 0, 0)
		}), authorized, one, nil, false}, "stale/warning"},
		{"rotated, and gone", keyCase{key(func(k *inventory.Key) { k.State = inventory.Rotated }), nil, nil, archived, false}, ""},
		{"rotated, in its soak", keyCase{key(func(k *inventory.Key) { k.State = inventory.Rotated }), authorized, one, []inventory.Rotation{{At: now}}, false}, ""},
		{"rotated, but not withdrawn", keyCase{key(func(k *inventory.Key) { k.State = inventory.Rotated }), authorized, one, []inventory.Rotation{{At: now}}, true}, "stale/warning"},
		{"rotated, and back", keyCase{key(func(k *inventory.Key) { k.State = inventory.Rotated }), authorized, nil, archived, false}, "stale/warning"},
		{"retired, and back", keyCase{key(func(k *inventory.Key) { k.State = inventory.Retired }), authorized, nil, archived, false}, "stale/warning"},
		{"deleted", keyCase{key(func(k *inventory.Key) { k.State, k.Public = inventory.Deleted, rsaKey(1024) }), authorized, nil, nil, false}, ""},
		{"host key", keyCase{key(func(k *inventory.Key) { k.Kind, k.Owner = inventory.HostKey, "" }), nil, one, nil, false}, ""},
		{"host key of two hosts", keyCase{
			key(func(k *inventory.Key) { k.Kind = inventory.HostKey }), nil, []inventory.IdentityPlace{one[0], identity("g", "root", "/id")}, nil, false,
		}, "shared/warning"},
	} {
		var got []string
		for _, f := range judgeKey(test.c, now) {
			got = append(got, string(f.Kind)+"/"+string(f.Level))
			if len(test.c.authorized) > 0 && f.Line != 3 || f.Text == "" {
				t.Errorf("%s: finding %+v blames no line", test.name, f)
			}
		}
		slices.Sort(got)
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

// A finding keeps its id for as long as its text is the same: what has not
// changed since reads the same on the next day.
func TestFindingsKeepTheirTexts(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	key := inventory.Key{Kind: inventory.UserKey, State: inventory.Active, CreatedAt: now.AddDate(-3, 0, 0)}
	var c keyCase
	for i := range someIdentities + 1 {
		c.identities = append(c.identities, inventory.IdentityPlace{Place: trust.Place{Host: trust.HostID(rune('a' + i)), Path: "/id"}, HostName: "web" + string(rune('a'+i))})
	}
	c.key, c.authorized = key, []inventory.AuthorizedPlace{{AuthorizedKey: inventory.AuthorizedKey{Line: 1}}}
	today, tomorrow := judgeKey(c, now), judgeKey(c, now.AddDate(0, 0, 1))
	if len(today) != 2 || !slices.Equal(today, tomorrow) {
		t.Errorf("today\n%+v\ntomorrow\n%+v", today, tomorrow)
	}
	for _, f := range today {
		if f.Kind == inventory.Shared && (!strings.Contains(f.Text, "weba:/id, webb:/id, webc:/id, webd:/id, webe:/id, and more") || strings.Contains(f.Text, "webf")) {
			t.Errorf("a key in very many places is %q", f.Text)
		}
	}
}

// What is wrong with a host: a key that nobody has vouched for, and a machine
// that is there twice.
func TestJudgeHost(t *testing.T) {
	s := storetest.Open(t, inventory.Schema)
	pin := func(name string, origin inventory.Origin) inventory.Pin {
		t.Helper()
		k, err := ssh.NewPublicKey(ed25519.NewKeyFromSeed(fmt.Appendf(nil, "%032s", name)).Public())
		if err != nil {
			t.Fatal(err)
		}
		return inventory.Pin{Key: trust.PublicKeyOf(k), Origin: origin}
	}
	for _, test := range []struct {
		name    string
		origin  inventory.Origin
		machine string
		want    string
	}{
		{"given", inventory.Given, "", ""},
		{"met", inventory.FirstUse, "", "unconfirmed"},
		{"vouched-for", inventory.Confirmed, "", ""},
		{"alone", inventory.Given, "m1", ""},
		{"original", inventory.Given, "m2", ""},
		{"clone", inventory.Given, "m2", "doubled"},
		{"unknown-machine", inventory.Given, "", ""},
		{"met-clone", inventory.FirstUse, "m2", "doubled unconfirmed"},
	} {
		var kinds []string
		err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
			h := inventory.Host{ID: inventory.NewHostID(), Name: test.name, Address: test.name + ":22", User: "root", State: inventory.Ready, Pins: []inventory.Pin{pin(test.name, test.origin)}}
			if _, err := inventory.AddHost(tx, h); err != nil {
				return err
			}
			scan := inventory.Scan{Host: h.ID, Outcome: inventory.Scanned, Facts: inventory.Facts{Machine: test.machine}, Complete: true}
			if _, err := inventory.RecordScan(tx, scan); err != nil {
				return err
			}
			if err := JudgeHost(tx, h.ID); err != nil {
				return err
			}
			found, _, err := inventory.Findings(tx, inventory.FindingFilter{Host: h.ID}, inventory.Page{Limit: 10})
			kinds = nil
			for _, f := range found {
				kinds = append(kinds, string(f.Kind))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		slices.Sort(kinds)
		if got := strings.Join(kinds, " "); got != test.want {
			t.Errorf("%s: got %q, want %q", test.name, got, test.want)
		}
	}
}

func TestJudgeLine(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJk2o9ZSFPpC5rVEUHrOMVJPGGJw9tKdUtpxmJFtPxHf"
	for _, test := range []struct {
		user, raw string
		want      bool
	}{
		{"root", key, true},
		{"root", "no-pty " + key, true},
		{"root", "restrict,pty " + key + ` a comment with from="x"`, true},
		{"root", `from="10.0.0.1" ` + key, false},
		{"root", `command="backup" ` + key, false},
		{"root", "nonsense " + key, false}, // no server honors it
		{"alice", key, false},
	} {
		keys := inventory.AuthorizedKeysOf([]byte(test.raw+"\n"), trust.OpenSSHVersion(9, 2))
		if len(keys) != 1 {
			t.Fatalf("%q holds %d keys", test.raw, len(keys))
		}
		p := inventory.AuthorizedPlace{Place: trust.Place{Host: "h", User: test.user, Path: "/k"}, AuthorizedKey: keys[0]}
		if _, got := judgeLine(p); got != test.want {
			t.Errorf("%s: %q is unrestricted: %v, want %v", test.user, test.raw, got, test.want)
		}
	}
}

func TestMistrust(t *testing.T) {
	keys := make([]trust.PublicKey, 3)
	for i := range keys {
		k, err := keyring.Generate(keyring.Spec{Type: []string{"ed25519", "ed25519", "ecdsa-p256"}[i]})
		if err != nil {
			t.Fatal(err)
		}
		keys[i] = k.Public()
	}
	web2 := inventory.Host{Name: "web2", Pins: []inventory.Pin{{Key: keys[0]}}}
	for _, test := range []struct {
		name   string
		marker trust.HostMarker
		key    trust.PublicKey
		says   string
	}{
		{"the pinned key", trust.NoMarker, keys[0], ""},
		{"another of its type", trust.NoMarker, keys[1], "knows host \"web2\" by the key"},
		{"one of a type that is not pinned", trust.NoMarker, keys[2], ""},
		{"the pinned key, revoked", trust.RevokedMarker, keys[0], "revokes the host key"},
		{"another, revoked", trust.RevokedMarker, keys[1], ""},
		{"an authority", trust.CertAuthorityMarker, keys[1], ""},
	} {
		got := mistrust(inventory.KnownHost{Marker: test.marker, Key: test.key}, web2)
		if (got == "") != (test.says == "") || !strings.HasPrefix(got, test.says) {
			t.Errorf("%s: %q, want %q", test.name, got, test.says)
		}
	}
}
