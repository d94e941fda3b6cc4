package trust

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// TestAgreesWithSSHKeygenOnKnownHosts looks names up in each file of the corpus,
// as it is and with its names hashed, and compares with ssh-keygen -F.
func TestAgreesWithSSHKeygenOnKnownHosts(t *testing.T) {
	t.Parallel()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	version := installedSSHD(t).version
	path := filepath.Join(t.TempDir(), "known_hosts")
	names := []string{
		"github.com", "140.82.121.3", "GitHub.com", "web1", "web1.example.com", "web2.example.com", "bad.example.com", "10.0.0.11", "alone",
		"[git.example.com]:2222", "git.example.com", "[gerrit]:29418", "2001:db8::7", "[2001:db8::7]:2022", "fe80::1%eth0",
		"two.example.com", "tab.example.com", "spaced.example.com", "nothing.invalid", "@revoked",
	}
	found := 0
	for _, name := range corpusFiles(t, "known_hosts") {
		text, _ := corpus(t, name)
		hashed := filepath.Join(t.TempDir(), "hashed")
		if err := os.WriteFile(hashed, text, 0o600); err != nil {
			t.Fatal(err)
		}
		versions := [][]byte{text}
		if exec.Command(keygen, "-H", "-f", hashed).Run() == nil {
			b, err := os.ReadFile(hashed)
			if err != nil {
				t.Fatal(err)
			}
			versions = append(versions, b)
		}
		for i, text := range versions {
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			f := ParseKnownHosts(text)
			if string(f.Bytes()) != string(text) {
				t.Errorf("%s: not given back as it was", name)
			}
			for _, host := range names {
				if i == 1 && host != strings.ToLower(host) {
					continue // ssh-keygen hashes the name as it is given; ssh puts it in lower case first
				}
				out, _ := exec.Command(keygen, "-l", "-F", host, "-f", path).Output()
				var want []string
				for l := range strings.Lines(string(out)) {
					if _, line, ok := strings.Cut(l, "found: line "); ok {
						want = append(want, strings.TrimSpace(line))
					} else if fields := strings.Fields(l); len(fields) > 2 {
						want[len(want)-1] += " " + fields[2]
					}
				}
				var got []string
				for _, n := range f.Find(host) {
					l := f.Line(n)
					if (&AuthorizedLine{textLine: l.textLine, kind: KeyLine, keyText: l.keyText}).keyHonoredByOpenSSH(version) != nil {
						continue
					}
					mark := map[HostMarker]string{CertAuthorityMarker: " CA", RevokedMarker: " REVOKED"}[l.Marker()]
					got = append(got, fmt.Sprintf("%d%s %s", n+1, mark, l.Key().Fingerprint()))
				}
				found += len(got)
				if !slices.Equal(got, want) {
					t.Errorf("%s (version %d): %s: ssh-keygen -F finds lines %q, Find %q", name, i, host, want, got)
				}
			}
		}
	}
	if found < 60 {
		t.Errorf("only %d lines were found in all: the comparison shows too little", found)
	}
}

func TestKnownHostsAddThenRemoveGivesTheFileBack(t *testing.T) {
	old, next := testKey(t, "ed25519", "web1"), testKey(t, "ed25519", "web1-next")
	files := map[string]string{"only this": "web1.example.com " + old.String()}
	for _, name := range corpusFiles(t, "known_hosts") {
		text, _ := corpus(t, name)
		files[name] = string(text)
	}
	for name, text := range files {
		f := ParseKnownHosts([]byte(text))
		line, err := KnownHostText([]string{"new.example.org", "192.0.2.9"}, next, "by hand")
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Append(line); err != nil {
			t.Fatal(err)
		}
		f = ParseKnownHosts(f.Bytes())
		if v := f.Verdict("192.0.2.9", next); v != HostKnown {
			t.Errorf("%s: the added key is %s", name, v)
		}
		f.RemoveKey("192.0.2.9", next)
		if f.Verdict("new.example.org", next) != HostKnown || f.Verdict("192.0.2.9", next) == HostKnown {
			t.Errorf("%s: removing one name of two: %q", name, f.Bytes())
		}
		f.RemoveKey("new.example.org", next)
		if string(f.Bytes()) != text {
			t.Errorf("%s: appended and removed: got %q, want %q", name, f.Bytes(), text)
		}

		added := f.AddSuccessor("web1.example.com", old, next)
		f = ParseKnownHosts(f.Bytes())
		if again := f.AddSuccessor("web1.example.com", old, next); len(again) != 0 {
			t.Errorf("%s: a second AddSuccessor added %d lines", name, len(again))
		}
		for _, i := range slices.Backward(added) {
			if f.Line(i).key != next {
				t.Errorf("%s: line %d is not of the new key", name, i)
			}
			f.RemoveLine(i)
		}
		if string(f.Bytes()) != text {
			t.Errorf("%s: succeeded and removed: got %q, want %q", name, f.Bytes(), text)
		}
	}
}

func TestKnownHostVerdict(t *testing.T) {
	text, _ := corpus(t, "known_hosts/markers")
	f := ParseKnownHosts(text)
	for _, test := range []struct {
		host, key string
		want      HostVerdict
	}{
		{"web1.example.com", "web1", HostRevoked},
		{"web1.example.com", "web1-new", HostKnown},
		{"web1.example.com", "impostor", HostChanged},
		{"db1.example.com", "impostor", HostUnknown},
		{"db1.example.com", "stolen", HostRevoked},
	} {
		if got := f.Verdict(test.host, testKey(t, "ed25519", test.key)); got != test.want {
			t.Errorf("%s shows %s: %s, want %s", test.host, test.key, got, test.want)
		}
	}
	if h := f.Lookup("www.example.com"); !slices.Equal(h.CAs, []PublicKey{testKey(t, "ed25519", "host-ca")}) {
		t.Errorf("CAs of www.example.com: %v", h.CAs)
	}
}

func TestKnownHostsEdits(t *testing.T) {
	a, b := testKey(t, "ed25519", "a"), testKey(t, "ed25519", "b")
	salt := [20]byte{1, 2, 3}
	before := "web1,10.0.0.1 " + a.String() + " note\n*.example.com " + a.String() + "\n@revoked web1 " + a.String() + "\n" + HashHostName("Web1", salt) + " " + a.String() + "\n"
	f := ParseKnownHosts([]byte(before))
	changed, left := f.RemoveKey("web1", a)
	want := "10.0.0.1 " + a.String() + " note\n*.example.com " + a.String() + "\n@revoked web1 " + a.String() + "\n"
	if got := string(f.Bytes()); got != want || len(changed) != 2 || !slices.Equal(left, []int{2}) {
		t.Errorf("RemoveKey: got %q, changed %d, left %v", got, len(changed), left)
	}
	f = ParseKnownHosts([]byte(before))
	if changed := f.Replace("WEB1", a, b); len(changed) != 2 {
		t.Errorf("Replace changed %d lines", len(changed))
	}
	want = strings.Replace(before, a.String()+" note", b.String()+" note", 1)
	want = want[:len(want)-len(a.String())-1] + b.String() + "\n"
	if got := string(f.Bytes()); got != want {
		t.Errorf("Replace: got %q, want %q", got, want)
	}
	for _, name := range []string{"", "a,b", "a b", "*.example.com", "!x", "@revoked", "#x", "a\nb"} {
		if text, err := KnownHostText([]string{name}, a, ""); KindOf(err) != Invalid {
			t.Errorf("KnownHostText takes %q: %q", name, text)
		}
	}
}
