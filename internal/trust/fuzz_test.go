package trust

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// Every file is given back as it came, and adding a key and removing it again
// gives the file back to the byte, also when it is written and read in between.
func FuzzAuthorizedKeys(f *testing.F) {
	for _, name := range corpusFiles(f, "authorized_keys") {
		text, _ := corpus(f, name)
		f.Add(text)
	}
	next := testKey(f, "ed25519", "fuzz-next")
	f.Fuzz(func(t *testing.T, data []byte) {
		file := ParseAuthorizedKeys(data)
		if !bytes.Equal(file.Bytes(), data) {
			t.Fatalf("got %q", file.Bytes())
		}
		if len(file.Find(next)) > 0 {
			return // the input has the key by chance
		}
		reread := func() { file = ParseAuthorizedKeys(file.Bytes()) }
		same := func(what string) {
			t.Helper()
			if !bytes.Equal(file.Bytes(), data) {
				t.Fatalf("%s: got %q, want %q", what, file.Bytes(), data)
			}
		}

		if err := file.Append("restrict " + next.String() + " x"); err != nil {
			t.Fatal(err)
		}
		reread()
		if n := len(file.Find(next)); n != 1 {
			t.Fatalf("appended once, found %d times", n)
		}
		file.RemoveKey(next)
		same("appended and removed")

		for _, l := range file.Lines() {
			if l.Kind() != KeyLine {
				continue
			}
			old := l.Key()
			count := len(file.Find(old))
			reread()
			added := file.AddSuccessor(old, next)
			after := file.Bytes()
			reread()
			if len(added) != count || len(file.Find(next)) != count {
				t.Fatalf("%d lines of old, %d added, %d found", count, len(added), len(file.Find(next)))
			}
			for _, i := range added {
				if a, b := file.Line(i-1), file.Line(i); a.OptionsText() != b.OptionsText() || a.Comment() != b.Comment() || !SameOptions(a, b) {
					t.Fatalf("line %q succeeds %q", b.Text(), a.Text())
				}
			}
			if u := UndoAuthorizedKeys(data, after, append([]byte("# someone\n"), after...)); !bytes.Equal(u.File.Bytes(), append([]byte("# someone\n"), data...)) {
				t.Fatalf("undone: got %q", u.File.Bytes())
			}
			file.RemoveKey(next)
			same("succeeded and removed")
			break
		}

		for _, server := range []ServerVersion{OpenSSHVersion(7, 4), OpenSSHVersion(10, 4), {Family: Dropbear, Major: 2022, Minor: 83}, {Family: Dropbear}, {Family: TinySSH}} {
			for i, l := range file.Lines() {
				if l.Kind() != KeyLine {
					continue
				}
				v := WouldAccept([]*AuthorizedKeys{file}, Attempt{Key: l.Key(), Addr: mustAddr(t, "192.0.2.1"), Time: time.Unix(1e9, 0), Server: server})
				if v.Accepted {
					by := file.Line(v.By.Line)
					if err := by.HonoredBy(server); err != nil && by.Kind() == KeyLine {
						t.Fatalf("%s accepts by line %q, which it does not honor: %v", server, by.Text(), err)
					}
				} else if l.HonoredBy(server) == nil && server.Family != OpenSSH && i < 300 {
					t.Fatalf("%s honors line %q, and yet: %s", server, l.Text(), v.Why)
				}
			}
		}
	})
}

// Every file is given back as it came, and adding a key for a host and removing
// it again gives the file back to the byte.
func FuzzKnownHosts(f *testing.F) {
	for _, name := range corpusFiles(f, "known_hosts") {
		text, _ := corpus(f, name)
		f.Add(text)
	}
	next := testKey(f, "ed25519", "fuzz-next")
	f.Fuzz(func(t *testing.T, data []byte) {
		file := ParseKnownHosts(data)
		if !bytes.Equal(file.Bytes(), data) {
			t.Fatalf("got %q", file.Bytes())
		}
		if len(file.FindKey(next)) > 0 {
			return // the input has the key by chance
		}
		text, err := KnownHostText([]string{"fuzz.example.org", "192.0.2.7"}, next, "c")
		if err != nil {
			t.Fatal(err)
		}
		if err := file.Append(text); err != nil {
			t.Fatal(err)
		}
		file = ParseKnownHosts(file.Bytes())
		if v := file.Verdict("192.0.2.7", next); v != HostKnown {
			t.Fatalf("the added key is %s", v)
		}
		file.RemoveKey("fuzz.example.org", next)
		file = ParseKnownHosts(file.Bytes())
		file.RemoveKey("192.0.2.7", next)
		if !bytes.Equal(file.Bytes(), data) {
			t.Fatalf("appended and removed: got %q, want %q", file.Bytes(), data)
		}
		for _, l := range file.Lines() {
			name, _, _ := strings.Cut(l.Hosts(), ",")
			if l.Kind() != KeyLine || !l.Matches(name) || l.Marker() != NoMarker {
				continue
			}
			count := len(file.FindKey(l.Key()))
			added := file.AddSuccessor(name, l.Key(), next)
			if len(added) == 0 || len(added) > count {
				t.Fatalf("%d lines of the key, %d successors", count, len(added))
			}
			file = ParseKnownHosts(file.Bytes())
			for i := len(added) - 1; i >= 0; i-- {
				if file.Line(added[i]).key != next {
					t.Fatalf("line %d is %q", added[i], file.Line(added[i]).text)
				}
				file.RemoveLine(added[i])
			}
			if !bytes.Equal(file.Bytes(), data) {
				t.Fatalf("succeeded and removed: got %q, want %q", file.Bytes(), data)
			}
			break
		}
	})
}
