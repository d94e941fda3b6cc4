package inventory_test

import (
	"bytes"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// authorizedText is an authorized_keys file with the given keys.
func authorizedText(keys ...int) []byte {
	var b bytes.Buffer
	for _, n := range keys {
		fmt.Fprintf(&b, "%s key-%d\n", publicKey(n), n)
	}
	return b.Bytes()
}

// authorizedOf is a file of a user with content.
func authorizedOf(host trust.HostID, user string, content []byte) inventory.FoundFile {
	sum := sha256.Sum256(content)
	return inventory.FoundFile{
		File: inventory.File{
			Place: trust.Place{Host: host, User: user, Path: "/home/" + user + "/.ssh/authorized_keys"}, Kind: inventory.AuthorizedFile,
			SHA256: hex.EncodeToString(sum[:]), Size: int64(len(content)), Mode: 0o600, Owner: user + ":" + user, Inode: "8:" + user,
		},
		Authorized: inventory.AuthorizedKeysOf(content, trust.OpenSSHVersion(9, 2)),
	}
}

func authorizedFile(host trust.HostID, user string, keys ...int) inventory.FoundFile {
	return authorizedOf(host, user, authorizedText(keys...))
}

// identityFile is a private key file of a user with the n-th key.
func identityFile(host trust.HostID, user, name string, n int) inventory.FoundFile {
	return inventory.FoundFile{
		File: inventory.File{
			Place: trust.Place{Host: host, User: user, Path: "/home/" + user + "/.ssh/" + name}, Kind: inventory.IdentityFile,
			SHA256: fmt.Sprintf("%064d", n), Size: 400, Mode: 0o600, Owner: user + ":" + user,
		},
		Identity: inventory.Identity{Key: publicKey(n), Format: "openssh", Comment: fmt.Sprintf("key-%d", n)},
	}
}

// record records a scan.
func record(tb testing.TB, s *store.Store, scan inventory.Scan) inventory.Delta {
	tb.Helper()
	if scan.Outcome == "" {
		scan.Outcome = inventory.Scanned
	}
	var d inventory.Delta
	update(tb, s, func(tx *store.Tx) error {
		var err error
		d, err = inventory.RecordScan(tx, scan)
		return err
	})
	return d
}

// lines describes the authorized places that a filter lets through.
func lines(tb testing.TB, s *store.Store, f inventory.PlaceFilter) []string {
	tb.Helper()
	var got []string
	view(tb, s, func(tx *store.Tx) error {
		var after *inventory.AuthorizedPlace
		for {
			places, err := inventory.Authorized(tx, f, after, 2)
			if err != nil || len(places) == 0 {
				return err
			}
			for _, p := range places {
				got = append(got, fmt.Sprintf("%s:%s:%d %q %s", p.HostName, p.User, p.Line, p.Options, p.Comment))
			}
			after = &places[len(places)-1]
		}
	})
	slices.Sort(got)
	return got
}

func equal(tb testing.TB, what string, got, want []string) {
	tb.Helper()
	if !slices.Equal(got, want) {
		tb.Errorf("%s:\n got %s\nwant %s", what, strings.Join(got, "\n     "), strings.Join(want, "\n     "))
	}
}

func TestRecordScan(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		other := addHost(t, s, "web2", 1001)
		record(t, s, inventory.Scan{Host: other.ID, Files: []inventory.FoundFile{authorizedFile(other.ID, "alice", 1)}, Complete: true})
		scan := func(users []string, complete bool, files ...inventory.FoundFile) inventory.Delta {
			t.Helper()
			return record(t, s, inventory.Scan{Host: h.ID, Users: users, Complete: complete, Files: files})
		}
		content := []byte("# mine\nfrom=\"10.0.0.1\",command=\"x\" " + publicKey(1).String() + " one\n\n" + publicKey(2).String() + "\n" +
			"nonsense=1 " + publicKey(1).String() + " one \xff again\ncert-authority " + publicKey(3).String() + " ca\n")
		d := scan([]string{"alice", "bob"}, true, authorizedOf(h.ID, "alice", content), identityFile(h.ID, "bob", "id_ed25519", 2))
		if d.Files != 2 || !slices.Equal(d.Gained, sortedIDs(1, 2, 3)) || d.Lost != nil {
			t.Errorf("the first scan changed %+v", d)
		}
		equal(t, "web1", lines(t, s, inventory.PlaceFilter{Host: h.ID}), []string{
			`web1:alice:2 "from=\"10.0.0.1\",command=\"x\"" one`,
			`web1:alice:4 "" `,
			`web1:alice:5 "nonsense=1" one ` + "\uFFFD again",
			`web1:alice:6 "cert-authority" ca`,
		})
		equal(t, "key 1", lines(t, s, inventory.PlaceFilter{Key: userKeyID(1)}), []string{
			`web1:alice:2 "from=\"10.0.0.1\",command=\"x\"" one`,
			`web1:alice:5 "nonsense=1" one ` + "\uFFFD again",
			`web2:alice:1 "" key-1`,
		})
		view(t, s, func(tx *store.Tx) error {
			places, err := inventory.Authorized(tx, inventory.PlaceFilter{Place: authorizedFile(h.ID, "alice").Place}, nil, 10)
			for _, p := range places {
				if p.Authority != (p.Comment == "ca") || (p.Refused != "") != (p.Options == "nonsense=1") {
					t.Errorf("line %d is %+v", p.Line, p)
				}
				if !bytes.Contains(content, p.Raw) || !bytes.Contains(p.Raw, []byte(p.Options)) || len(p.Raw) == 0 {
					t.Errorf("line %d is kept as %q", p.Line, p.Raw)
				}
				if p.KeyID == userKeyID(1) && p.Ordinal != map[int]int{2: 0, 5: 1}[p.Line] {
					t.Errorf("line %d has ordinal %d", p.Line, p.Ordinal)
				}
			}
			return err
		})
		if c := key(t, s, userKeyID(2)); c.Custody != inventory.InPlace || c.Comment != "key-2" || c.Container != "openssh" {
			t.Errorf("a key found in an identity file is %+v", c)
		}

		// The lines of one file are replaced, those of others stay.
		d = scan([]string{"alice", "bob"}, true, authorizedFile(h.ID, "alice", 4, 1), identityFile(h.ID, "bob", "id_ed25519", 2))
		if d.Files != 1 || !slices.Equal(d.Gained, sortedIDs(4)) || !slices.Equal(d.Lost, sortedIDs(1, 2, 3)) {
			t.Errorf("the second scan changed %+v", d)
		}
		equal(t, "web1", lines(t, s, inventory.PlaceFilter{Host: h.ID}), []string{`web1:alice:1 "" key-4`, `web1:alice:2 "" key-1`})
		equal(t, "web2", lines(t, s, inventory.PlaceFilter{Host: other.ID}), []string{`web2:alice:1 "" key-1`})

		// A scan that does not see an account leaves it alone, and says so.
		before := host(t, s, h.ID).Coverage.ScannedAt
		scan([]string{"alice"}, false, authorizedFile(h.ID, "alice", 4, 1))
		view(t, s, func(tx *store.Tx) error {
			places, err := inventory.Identities(tx, inventory.PlaceFilter{Host: h.ID}, nil, 10)
			if len(places) != 1 || !places[0].AsOf.Equal(before) {
				t.Errorf("an account out of sight has %+v", places)
			}
			return err
		})
		// Neither does one that is told that it may not.
		scan1 := inventory.Scan{
			Host: h.ID, Outcome: inventory.Partial, Why: "bob", Users: []string{"alice", "bob"}, Complete: true,
			Unread: []inventory.UnreadFile{{User: "bob", Why: "permission denied"}},
			Notes:  []inventory.Note{{About: inventory.NoteUnread, User: "bob", Text: "permission denied"}},
			Files:  []inventory.FoundFile{authorizedFile(h.ID, "alice", 4, 1)},
		}
		record(t, s, scan1)
		view(t, s, func(tx *store.Tx) error {
			files, err := inventory.Files(tx, h.ID)
			if len(files) != 2 || !files[0].LastRead.IsZero() || !files[1].LastRead.Equal(before) || files[1].UnreadWhy != "permission denied" {
				t.Errorf("files are %+v", files)
			}
			return err
		})
		now := host(t, s, h.ID)
		if now.Coverage.Outcome != inventory.Partial || now.Coverage.Why != "bob" || len(now.Coverage.Notes) != 1 || now.Revision != h.Revision {
			t.Errorf("coverage is %+v at revision %d", now.Coverage, now.Revision)
		}
		// A host that did not answer is as it was, but for the attempt.
		record(t, s, inventory.Scan{Host: h.ID, Outcome: inventory.Unreachable, Why: "connection refused"})
		missed := host(t, s, h.ID).Coverage
		if missed.Outcome != inventory.Unreachable || !missed.ScannedAt.Equal(now.Coverage.ScannedAt) || !missed.TriedAt.After(missed.ScannedAt) ||
			len(missed.Notes) != 1 {
			t.Errorf("coverage after a missed host is %+v", missed)
		}
		// Once it is read again it is no hearsay, and what is gone is gone.
		scan([]string{"alice", "bob"}, true, authorizedFile(h.ID, "alice", 4, 1), identityFile(h.ID, "bob", "id_ed25519", 2))
		view(t, s, func(tx *store.Tx) error {
			places, err := inventory.Identities(tx, inventory.PlaceFilter{Key: userKeyID(2)}, nil, 10)
			if len(places) != 1 || !places[0].AsOf.Equal(tx.Now()) && places[0].AsOf.Before(missed.TriedAt) {
				t.Errorf("an account in sight again has %+v", places)
			}
			return err
		})
		d = scan([]string{"alice"}, true)
		if d.Files != 2 || !slices.Equal(d.Lost, sortedIDs(1, 2, 4)) {
			t.Errorf("the scan that found nothing changed %+v", d)
		}
		if c := key(t, s, userKeyID(2)); c.Custody != inventory.External {
			t.Errorf("a key whose only identity file is gone is %+v", c)
		}
		equal(t, "key 1", lines(t, s, inventory.PlaceFilter{Key: userKeyID(1)}), []string{`web2:alice:1 "" key-1`})
	})
}

func sortedIDs(keys ...int) []trust.KeyID {
	var ids []trust.KeyID
	for _, n := range keys {
		ids = append(ids, userKeyID(n))
	}
	slices.Sort(ids)
	return ids
}

// TestRescanWritesNothing looks into the engines for rows that were written.
func TestRescanWritesNothing(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		scan := inventory.Scan{
			Host: h.ID, Users: []string{"alice", "bob"}, Complete: true,
			Files: []inventory.FoundFile{
				authorizedFile(h.ID, "alice", 1, 2, 3), authorizedFile(h.ID, "bob", 3), identityFile(h.ID, "bob", "id", 2),
			},
			Unread: []inventory.UnreadFile{{User: "carol", Why: "permission denied"}},
		}
		record(t, s, scan)
		sqlite := strings.HasSuffix(t.Name(), "/sqlite")
		columns := "*"
		if !sqlite {
			columns = "xmin, *" // which transaction wrote it
		}
		versions := func() (rows []string) {
			t.Helper()
			view(t, s, func(tx *store.Tx) error {
				for _, table := range []string{"keys", "place_files", "authorized_places", "identity_places", "findings"} {
					if err := dump(tx, columns, table, &rows); err != nil {
						return err
					}
				}
				return nil
			})
			return rows
		}
		before := versions()
		changes := 0
		update(t, s, func(tx *store.Tx) error {
			var first, last int
			if sqlite {
				if err := tx.QueryRow("SELECT total_changes()").Scan(&first); err != nil {
					return err
				}
			}
			d, err := inventory.RecordScan(tx, scan)
			if d.Files != 0 || d.Keys() != nil {
				t.Errorf("the same scan again changed %+v", d)
			}
			if err != nil || !sqlite {
				return err
			}
			err = tx.QueryRow("SELECT total_changes()").Scan(&last)
			changes = last - first
			return err
		})
		if changes > 1 {
			t.Errorf("the same scan again wrote %d rows; the host's own is enough", changes)
		}
		equal(t, "rows", versions(), before)

		// A change of the mode alone is a row, and no key's.
		scan.Files[0].Mode = 0o666
		scan.Files[0].Fault = "is writable by others"
		if d := record(t, s, scan); d.Files != 0 || d.Keys() != nil {
			t.Errorf("a new mode changed %+v", d)
		}
		if slices.Equal(versions(), before) {
			t.Error("a new mode was not written")
		}
	})
}

// dump appends columns of the rows of a table.
func dump(tx *store.Tx, columns, table string, rows *[]string) error {
	found, err := tx.Query("SELECT " + columns + " FROM " + table)
	if err != nil {
		return err
	}
	defer found.Close()
	names, err := found.Columns()
	if err != nil {
		return err
	}
	for found.Next() {
		values := make([]sql.RawBytes, len(names))
		into := make([]any, len(names))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return err
		}
		*rows = append(*rows, fmt.Sprintf("%s %q", table, values))
	}
	slices.Sort(*rows)
	return found.Err()
}

// TestSharedFile is one file that two accounts read.
func TestSharedFile(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		alice, bob := authorizedFile(h.ID, "alice", 1), authorizedFile(h.ID, "bob", 1)
		alice.Path, bob.Path = "/etc/ssh/keys", "/etc/ssh/keys"
		alice.Inode, bob.Inode = "8:77", "8:77"
		record(t, s, inventory.Scan{Host: h.ID, Complete: true, Files: []inventory.FoundFile{alice, bob}})
		equal(t, "key 1", lines(t, s, inventory.PlaceFilter{Key: userKeyID(1)}), []string{`web1:alice:1 "" key-1`, `web1:bob:1 "" key-1`})
	})
}

func TestPutFile(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		record(t, s, inventory.Scan{Host: h.ID, Complete: true, Files: []inventory.FoundFile{authorizedFile(h.ID, "alice", 1, 3)}})
		scanned := host(t, s, h.ID).Coverage.ScannedAt
		var d inventory.Delta
		update(t, s, func(tx *store.Tx) error {
			var err error
			d, err = inventory.PutFile(tx, authorizedFile(h.ID, "alice", 1, 2, 3))
			return err
		})
		if !slices.Equal(d.Gained, sortedIDs(2)) || d.Lost != nil || !slices.Equal(d.Keys(), sortedIDs(2)) {
			t.Errorf("a line more changed %+v", d)
		}
		view(t, s, func(tx *store.Tx) error {
			places, err := inventory.Authorized(tx, inventory.PlaceFilter{Host: h.ID}, nil, 10)
			for _, p := range places {
				isNew := p.KeyID == userKeyID(2)
				if isNew != p.AsOf.After(scanned) || isNew != p.SeenAt.After(scanned) {
					t.Errorf("line %d was seen at %v, as of %v; the scan was at %v", p.Line, p.SeenAt, p.AsOf, scanned)
				}
			}
			return err
		})
		update(t, s, func(tx *store.Tx) error {
			d, err := inventory.DropFile(tx, authorizedFile(h.ID, "alice").Place, inventory.AuthorizedFile)
			if !slices.Equal(d.Lost, sortedIDs(1, 2, 3)) {
				t.Errorf("a file less changed %+v", d)
			}
			if err != nil {
				return err
			}
			d, err = inventory.DropFile(tx, authorizedFile(h.ID, "alice").Place, inventory.AuthorizedFile)
			if d.Files != 0 {
				t.Errorf("no file less changed %+v", d)
			}
			return err
		})
		equal(t, "web1", lines(t, s, inventory.PlaceFilter{Host: h.ID}), nil)
		for _, path := range []string{"", "relative", "/a\nb", "/a\x00b", "/\xff", "/" + strings.Repeat("a", 5000)} {
			f := authorizedFile(h.ID, "alice", 1)
			f.Path = path
			refused(t, s, trust.Invalid, func(tx *store.Tx) error {
				_, err := inventory.PutFile(tx, f)
				return err
			})
		}
		refused(t, s, trust.NotFound, func(tx *store.Tx) error {
			_, err := inventory.PutFile(tx, authorizedFile(inventory.NewHostID(), "alice", 1))
			return err
		})
	})
}

func TestIdentityPlaces(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		put := func(change func(*inventory.FoundFile)) inventory.Delta {
			t.Helper()
			f := identityFile(h.ID, "alice", "id_rsa", 1)
			change(&f)
			return record(t, s, inventory.Scan{Host: h.ID, Complete: true, Files: []inventory.FoundFile{f}})
		}
		// Whose key it is, nobody can tell.
		if d := put(func(f *inventory.FoundFile) {
			f.Identity = inventory.Identity{Format: "pem", Encrypted: true}
		}); d.Files != 1 || d.Keys() != nil {
			t.Errorf("an encrypted file changed %+v", d)
		}
		// Its .pub appears: the file's bytes are the same.
		if d := put(func(f *inventory.FoundFile) { f.Identity.Encrypted = true }); !slices.Equal(d.Gained, sortedIDs(1)) || d.Files != 0 {
			t.Errorf("a .pub more changed %+v", d)
		}
		if c := key(t, s, userKeyID(1)); c.Custody != inventory.External {
			t.Errorf("a key in an encrypted file only is %s", c.Custody)
		}
		put(func(*inventory.FoundFile) {})
		if c := key(t, s, userKeyID(1)); c.Custody != inventory.InPlace {
			t.Errorf("a key in an open file is %s", c.Custody)
		}
		if d := put(func(f *inventory.FoundFile) { f.Identity.Encrypted = true }); d.Keys() != nil {
			t.Errorf("a passphrase changed %+v", d)
		}
		if c := key(t, s, userKeyID(1)); c.Custody != inventory.External {
			t.Errorf("a key in a file that was encrypted since is %s", c.Custody)
		}
		if d := put(func(f *inventory.FoundFile) { f.Identity.Key = publicKey(2) }); !slices.Equal(d.Gained, sortedIDs(2)) || !slices.Equal(d.Lost, sortedIDs(1)) {
			t.Errorf("another key in the file changed %+v", d)
		}
		// A host key file is a place of a host key.
		put(func(f *inventory.FoundFile) {
			f.User, f.Path, f.Role, f.Identity.Key = "root", "/etc/ssh/ssh_host_ed25519_key", inventory.HostKey, publicKey(1000)
		})
		view(t, s, func(tx *store.Tx) error {
			related, _, err := inventory.Relationships(tx, inventory.KeyFilter{Kinds: []inventory.KeyKind{inventory.HostKey}}, inventory.Page{})
			if len(related) != 1 || len(related[0].Identities) != 1 || related[0].Identities[0].Path != "/etc/ssh/ssh_host_ed25519_key" {
				t.Errorf("the host key is %+v", related)
			}
			return err
		})
	})
}

// What was wrong with a line goes with the line, before the next scan.
func TestFindingGoesWithItsLine(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		f := authorizedFile(h.ID, "alice", 1, 2)
		record(t, s, inventory.Scan{Host: h.ID, Complete: true, Files: []inventory.FoundFile{f}})
		update(t, s, func(tx *store.Tx) error {
			var found []inventory.Finding
			for n := range 2 {
				found = append(found, inventory.Finding{Kind: inventory.Unrestricted, Level: inventory.Warning, Key: userKeyID(n + 1), Line: n + 1, Place: f.Place})
			}
			_, err := inventory.SetHostFindings(tx, h.ID, found)
			return err
		})
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.PutFile(tx, authorizedFile(h.ID, "alice", 2))
			return err
		})
		view(t, s, func(tx *store.Tx) error {
			found, _, err := inventory.Findings(tx, inventory.FindingFilter{}, inventory.Page{})
			if len(found) != 1 || found[0].Key != userKeyID(2) {
				t.Errorf("findings are %+v", found)
			}
			return err
		})
	})
}

func TestRelationships(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		web1, web2 := addHost(t, s, "web1", 1000), addHost(t, s, "web2", 1001)
		record(t, s, inventory.Scan{Host: web1.ID, Complete: true, Files: []inventory.FoundFile{
			authorizedFile(web1.ID, "bob", 1), authorizedFile(web1.ID, "alice", 1, 2), identityFile(web1.ID, "alice", "id", 1),
		}})
		record(t, s, inventory.Scan{Host: web2.ID, Complete: true, Files: []inventory.FoundFile{authorizedFile(web2.ID, "alice", 1)}})
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.SetKeyFindings(tx, userKeyID(1), []inventory.Finding{{Kind: inventory.Shared, Level: inventory.Warning, Text: "x"}})
			return err
		})
		view(t, s, func(tx *store.Tx) error {
			related, next, err := inventory.Relationships(tx, inventory.KeyFilter{IDs: sortedIDs(1)}, inventory.Page{})
			if err != nil {
				return err
			}
			if len(related) != 1 || next != "" {
				t.Fatalf("related: %+v", related)
			}
			r := related[0]
			var got []string
			for _, p := range r.Authorized {
				got = append(got, p.HostName+":"+p.User+":"+p.Path)
			}
			equal(t, "authorized places", got, []string{
				"web1:alice:/home/alice/.ssh/authorized_keys", "web1:bob:/home/bob/.ssh/authorized_keys", "web2:alice:/home/alice/.ssh/authorized_keys",
			})
			if len(r.Identities) != 1 || r.Identities[0].HostName != "web1" || r.Identities[0].Format != "openssh" || len(r.Findings) != 1 {
				t.Errorf("related: %+v", r)
			}
			return nil
		})
		update(t, s, func(tx *store.Tx) error {
			lost, err := inventory.RemoveHost(tx, web1.ID, web1.Revision)
			if !slices.Equal(lost, sortedIDs(1, 2)) {
				t.Errorf("removing a host concerns %v", lost)
			}
			return err
		})
		equal(t, "key 1", lines(t, s, inventory.PlaceFilter{Key: userKeyID(1)}), []string{`web2:alice:1 "" key-1`})
	})
}

func TestFindings(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		addKey(t, s, 1)
		line := func(n int, text string) inventory.Finding {
			return inventory.Finding{
				Kind: inventory.Unrestricted, Level: inventory.Warning, Key: userKeyID(1), Line: n, Text: text,
				Place: trust.Place{User: "root", Path: "/root/.ssh/authorized_keys"},
			}
		}
		set := func(want bool, found ...inventory.Finding) {
			t.Helper()
			update(t, s, func(tx *store.Tx) error {
				changed, err := inventory.SetHostFindings(tx, h.ID, found)
				if changed != want {
					t.Errorf("setting %d findings changed something: %v, want %v", len(found), changed, want)
				}
				return err
			})
		}
		list := func(f inventory.FindingFilter) []inventory.Finding {
			t.Helper()
			var all []inventory.Finding
			view(t, s, func(tx *store.Tx) error {
				p := inventory.Page{Limit: 1}
				for {
					found, next, err := inventory.Findings(tx, f, p)
					all = append(all, found...)
					if next == "" || err != nil {
						return err
					}
					p.After = next
				}
			})
			return all
		}
		set(true, line(3, "three"), line(5, "five"))
		set(false, line(3, "three"), line(5, "five"))
		before := list(inventory.FindingFilter{})
		if len(before) != 2 || before[0].ID == before[1].ID || before[0].HostName != "web1" || before[0].Since.IsZero() {
			t.Fatalf("findings are %+v", before)
		}
		set(true, line(4, "four"), line(6, "six")) // a line was inserted above
		after := list(inventory.FindingFilter{})
		for i := range after {
			if after[i].ID != before[i].ID || !after[i].Since.Equal(before[i].Since) || after[i].Line != before[i].Line+1 {
				t.Errorf("finding %+v became %+v", before[i], after[i])
			}
		}
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.SetKeyFindings(tx, userKeyID(1), []inventory.Finding{{Kind: inventory.Weak, Level: inventory.Notice, Text: "RSA of 2048 bits"}})
			return err
		})
		for _, test := range []struct {
			filter inventory.FindingFilter
			want   int
		}{
			{inventory.FindingFilter{}, 3},
			{inventory.FindingFilter{Kinds: []inventory.FindingKind{inventory.Weak}}, 1},
			{inventory.FindingFilter{Levels: []inventory.Level{inventory.Warning}}, 2},
			{inventory.FindingFilter{Key: userKeyID(1)}, 3},
			{inventory.FindingFilter{Host: h.ID}, 2},
			{inventory.FindingFilter{Text: "rsa"}, 1},
		} {
			if got := list(test.filter); len(got) != test.want {
				t.Errorf("%+v lets %d findings through, want %d", test.filter, len(got), test.want)
			}
		}
		view(t, s, func(tx *store.Tx) error {
			count, err := inventory.SummarizeFindings(tx)
			if count[inventory.Unrestricted] != 2 || count[inventory.Weak] != 1 || len(count) != 2 {
				t.Errorf("summary is %v", count)
			}
			return err
		})
		set(true, line(4, "four"))
		set(true)
		set(false)
		if got := list(inventory.FindingFilter{}); len(got) != 1 {
			t.Errorf("the findings of the host are gone, and left are %+v", got)
		}
	})
}

// TestModel scans a fleet at random and compares with a map of files.
func TestModel(t *testing.T) {
	s := storetest.Open(t, inventory.Schema)
	hosts := []inventory.Host{addHost(t, s, "web1", 1000), addHost(t, s, "web2", 1001)}
	users := []string{"alice", "bob"}
	model := make(map[trust.Place][]int)
	rapid.Check(t, func(rt *rapid.T) {
		h := rapid.SampledFrom(hosts).Draw(rt, "host")
		var files []inventory.FoundFile
		for _, user := range users {
			place := authorizedFile(h.ID, user).Place
			switch rapid.SampledFrom([]string{"same", "new", "gone"}).Draw(rt, "what of "+user) {
			case "new":
				model[place] = rapid.SliceOfN(rapid.IntRange(1, 6), 0, 8).Draw(rt, "keys of "+user)
			case "gone":
				delete(model, place)
			}
			if keys, ok := model[place]; ok {
				files = append(files, authorizedFile(h.ID, user, keys...))
			}
		}
		if rapid.Bool().Draw(rt, "as a run") && len(files) > 0 {
			// The rest of the host's files must be as the model has it.
			for _, user := range users {
				place := authorizedFile(h.ID, user).Place
				update(t, s, func(tx *store.Tx) error {
					var err error
					if keys, ok := model[place]; ok {
						_, err = inventory.PutFile(tx, authorizedFile(h.ID, user, keys...))
					} else {
						_, err = inventory.DropFile(tx, place, inventory.AuthorizedFile)
					}
					return err
				})
			}
		} else {
			record(t, s, inventory.Scan{Host: h.ID, Complete: true, Users: users, Files: files})
		}
		var want []string
		for place, keys := range model {
			for i, n := range keys {
				want = append(want, fmt.Sprintf("%s %s %s:%d", place.Host, place.User, userKeyID(n), i+1))
			}
		}
		var got []string
		view(t, s, func(tx *store.Tx) error {
			for n := range 7 {
				ordinals := make(map[trust.Place]int)
				places, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: userKeyID(n)}, nil, 100)
				for _, p := range places {
					got = append(got, fmt.Sprintf("%s %s %s:%d", p.Host, p.User, p.KeyID, p.Line))
					if p.Ordinal != ordinals[p.Place] {
						rt.Errorf("key %d in %v has ordinal %d, want %d", n, p.Place, p.Ordinal, ordinals[p.Place])
					}
					ordinals[p.Place]++
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			rt.Fatalf("inventory has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

func TestHearsayIsAsOldAsItsLastScan(t *testing.T) {
	s := storetest.Open(t, inventory.Schema)
	h := addHost(t, s, "web1", 1000)
	file := authorizedFile(h.ID, "alice", 1)
	record(t, s, inventory.Scan{Host: h.ID, Complete: true, Files: []inventory.FoundFile{file}})
	read := host(t, s, h.ID).Coverage.ScannedAt
	for range 3 {
		record(t, s, inventory.Scan{Host: h.ID, Unread: []inventory.UnreadFile{{User: "alice", Path: file.Path, Why: "no"}}})
		view(t, s, func(tx *store.Tx) error {
			places, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: userKeyID(1)}, nil, 10)
			if len(places) != 1 || !places[0].AsOf.Equal(read) {
				t.Errorf("known as of %v, want as of the scan that read it, %v", places, read)
			}
			return err
		})
	}
	if read.After(time.Now()) {
		t.Error("the scan is in the future")
	}
}

// What lies in a home directory that is not there stays known; what lies elsewhere, and
// what other accounts have, is gone when a scan does not find it.
func TestHomelessAccount(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, inventory.Schema)
	h := addHost(t, s, "web1", 1000)
	home, central, bobs := authorizedFile(h.ID, "alice", 1), authorizedFile(h.ID, "alice", 1), authorizedFile(h.ID, "bob", 1)
	central.Path = "/etc/ssh/keys/alice"
	record(t, s, inventory.Scan{Host: h.ID, Complete: true, Files: []inventory.FoundFile{home, central, bobs}})
	away := inventory.Scan{Host: h.ID, Complete: true, Users: []string{"alice", "bob"}, Homeless: map[string]string{"alice": strings.TrimSuffix(home.Path, "/.ssh/authorized_keys")}}
	for _, scan := range []inventory.Scan{away, away, {Host: h.ID, Complete: true, Users: []string{"alice", "bob"}}} {
		record(t, s, scan)
		view(t, s, func(tx *store.Tx) error {
			places, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: userKeyID(1)}, nil, 10)
			if stays := scan.Homeless != nil; len(places) == 1 != stays || stays && places[0].Path != home.Path {
				t.Errorf("with %v homeless, known are %v", scan.Homeless, places)
			}
			return err
		})
	}
}

// What a line grants is as the host's server reads it, also where that changes
// and the file does not.
func TestRefusedByTheServer(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1)
		text := []byte(`expiry-time="20990101Z" ` + publicKey(1).String() + "\n")
		refused := func(server trust.ServerVersion) (refused bool) {
			t.Helper()
			f := authorizedOf(h.ID, "alice", text)
			f.Authorized = inventory.AuthorizedKeysOf(text, server)
			record(t, s, inventory.Scan{
				Host: h.ID, Complete: true, Users: []string{"alice"}, Files: []inventory.FoundFile{f},
				Facts: inventory.Facts{Banner: "SSH-2.0-" + server.Software},
			})
			view(t, s, func(tx *store.Tx) error {
				places, err := inventory.Authorized(tx, inventory.PlaceFilter{Host: h.ID}, nil, 10)
				refused = len(places) == 1 && strings.Contains(places[0].Refused, "expiry times in UTC")
				return err
			})
			return refused
		}
		if !refused(trust.OpenSSHVersion(8, 4)) || refused(trust.OpenSSHVersion(9, 2)) || !refused(trust.OpenSSHVersion(8, 4)) {
			t.Error("expiry-time=\"20990101Z\" is refused by OpenSSH 8.4, and by no later one")
		}
	})
}

// The lines of known_hosts files that a scan found are those of the host, but for
// files that it could not see.
func TestKnownHosts(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h, other := addHost(t, s, "web1", 1), addHost(t, s, "web2", 2)
		line := func(user string, n, key int, about trust.HostID) inventory.KnownHost {
			return inventory.KnownHost{
				Place: trust.Place{User: user, Path: "/home/" + user + "/.ssh/known_hosts"}, Line: n, Names: "web2", Key: publicKey(key), About: about,
			}
		}
		list := func() (all []string) {
			t.Helper()
			for p := (inventory.Page{Limit: 2}); ; {
				var some []inventory.KnownHost
				view(t, s, func(tx *store.Tx) (err error) {
					some, p.After, err = inventory.KnownHosts(tx, h.ID, p)
					return err
				})
				for _, k := range some {
					all = append(all, fmt.Sprintf("%s:%d %s %s", k.User, k.Line, k.AboutName, k.HostName))
					if !slices.ContainsFunc([]int{7, 8, 9}, func(n int) bool { return k.Key == publicKey(n) }) {
						t.Errorf("line %+v has another key", k)
					}
				}
				if p.After == "" {
					return all
				}
			}
		}
		users := []string{"alice", "bob"}
		scan := inventory.Scan{Host: h.ID, Users: users, Known: []inventory.KnownHost{line("alice", 1, 7, other.ID), line("alice", 2, 8, ""), line("bob", 1, 9, other.ID)}}
		record(t, s, scan)
		equal(t, "lines", list(), []string{"alice:1 web2 web1", "alice:2  web1", "bob:1 web2 web1"})

		scan.Known = []inventory.KnownHost{line("alice", 2, 9, other.ID)}
		scan.Unread = []inventory.UnreadFile{{User: "bob", Why: "denied"}}
		record(t, s, scan)
		equal(t, "lines, bob unread", list(), []string{"alice:2 web2 web1", "bob:1 web2 web1"})

		scan.Unread = nil
		record(t, s, scan)
		equal(t, "lines, bob's gone", list(), []string{"alice:2 web2 web1"})
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.RemoveHost(tx, other.ID, host(t, s, other.ID).Revision)
			return err
		})
		equal(t, "lines about a host that is gone", list(), []string{"alice:2  web1"})
	})
}

// What stands in the way of changing a file, and nothing that stands in the way of
// another one.
func TestObstacles(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		web1, web2 := addHost(t, s, "web1", 101), addHost(t, s, "web2", 102)
		file := func(h inventory.Host, user, inode, fixed string) inventory.FoundFile {
			f := authorizedFile(h.ID, user, 1)
			f.Inode, f.Fixed = inode, fixed
			return f
		}
		found := []inventory.FoundFile{
			file(web1, "alice", "1:1", ""), file(web1, "bob", "1:1", ""), file(web1, "carol", "", "immutable"),
			file(web1, "dora", "", ""), file(web1, "erik", "1:2", ""), file(web2, "erik", "1:1", ""),
		}
		var places []trust.Place
		update(t, s, func(tx *store.Tx) error {
			places = nil
			for _, f := range found {
				if _, err := inventory.PutFile(tx, f); err != nil {
					return err
				}
				places = append(places, f.Place)
			}
			return nil
		})
		record(t, s, inventory.Scan{
			Host: web1.ID, Complete: true, Files: slices.Concat(found[:3], found[4:5]),
			Unread: []inventory.UnreadFile{{User: "dora", Why: "denied"}},
		})
		var obstacles map[trust.Place][]inventory.Obstacle
		view(t, s, func(tx *store.Tx) (err error) {
			obstacles, err = inventory.Obstacles(tx, places)
			return err
		})
		want := map[trust.Place][]inventory.Obstacle{
			places[0]: {{Place: places[1]}},
			places[1]: {{Place: places[0]}},
			places[2]: {{Place: places[2], Fixed: "immutable"}},
			places[3]: {{Place: places[3], UnreadWhy: "denied"}},
		}
		if !maps.EqualFunc(obstacles, want, slices.Equal) {
			t.Errorf("%+v, want %+v", obstacles, want)
		}
	})
}
