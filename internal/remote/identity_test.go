package remote

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// keygen makes a key pair with ssh-keygen at path.
func keygen(t testing.TB, path string, args ...string) {
	t.Helper()
	program := need.Program(t, "ssh-keygen", "openssh-client")
	out, err := exec.Command(program, append([]string{"-q", "-N", "", "-C", "a comment", "-f", path}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen: %s", out)
	}
}

// pair returns the files of a new key.
func pair(t testing.TB, args ...string) IdentityFiles {
	t.Helper()
	path := filepath.Join(t.TempDir(), "id")
	keygen(t, path, args...)
	return IdentityFiles{Private: []byte(content(t, path)), Public: []byte(content(t, path+".pub"))}
}

// place puts files at an identity of an account.
func place(t testing.TB, user string, f IdentityFiles) (dir, path string) {
	t.Helper()
	dir, _ = home(t, user, "absent")
	path = filepath.Join(dir, ".ssh", "id_ed25519")
	for suffix, b := range map[string][]byte{"": f.Private, ".pub": f.Public, "-cert.pub": f.Certificate} {
		if b != nil {
			must(t, os.WriteFile(path+suffix, b, 0o600))
			chown(t, path+suffix, user)
		}
	}
	return dir, path
}

// ssh-keygen is the oracle for the public half of every container.
func TestKeyOfEveryContainer(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		info KeyInfo
	}{
		"openssh ed25519":   {[]string{"-t", "ed25519"}, KeyInfo{"openssh", false}},
		"openssh rsa":       {[]string{"-t", "rsa", "-b", "2048"}, KeyInfo{"openssh", false}},
		"pem rsa":           {[]string{"-t", "rsa", "-b", "2048", "-m", "PEM"}, KeyInfo{"pem", false}},
		"pem ecdsa":         {[]string{"-t", "ecdsa", "-m", "PEM"}, KeyInfo{"pem", false}},
		"pkcs8 ecdsa":       {[]string{"-t", "ecdsa", "-m", "PKCS8"}, KeyInfo{"pkcs8", false}},
		"openssh encrypted": {[]string{"-t", "ecdsa", "-N", "secret"}, KeyInfo{"openssh", true}},
		"pem encrypted":     {[]string{"-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"}, KeyInfo{"pem", true}},
		"pkcs8 encrypted":   {[]string{"-t", "rsa", "-b", "2048", "-m", "PKCS8", "-N", "secret"}, KeyInfo{"pkcs8", true}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := pair(t, c.args...)
			want, _, err := trust.ParsePublicKey(string(f.Public))
			must(t, err)
			got, info, err := f.Key()
			if err != nil || got != want || info != c.info {
				t.Errorf("key %v, %+v, %v; want %v, %+v", got.Fingerprint(), info, err, want.Fingerprint(), c.info)
			}
			back, err := UnmarshalIdentityFiles(f.Marshal())
			if err != nil || !back.Equal(f) || back.Certificate != nil {
				t.Errorf("unmarshalled %v, %v", back, err)
			}
			before := append([]byte(marshalledWithoutPerms), bytes.TrimPrefix(IdentityFiles{Private: f.Private, Public: f.Public}.Marshal(), []byte(marshalled))...)
			if back, err := UnmarshalIdentityFiles(before[:len(before)-2]); err != nil || !back.Equal(f) || back.PublicPerm != nil {
				t.Errorf("what was sealed without modes comes back as %v, %v", back, err)
			}
			if text := fmt.Sprintf("%v %+v %#v %s %q", f, f, f, f, &f); strings.Contains(text, "PRIVATE") || strings.Contains(text, "LS0t") {
				t.Errorf("prints its secret: %s", text)
			}
		})
	}
}

func TestInstallAndBack(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		old, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
		old.Certificate = []byte("ssh-ed25519-cert-v01@openssh.com AAAA\n")
		dir, path := place(t, "nobody", old)
		must(t, os.Chmod(path+".pub", 0o644))
		now, err := h.IdentityFiles(t.Context(), "nobody", path)
		if err != nil || !now.Equal(old) {
			t.Fatalf("%v, %v", now, err)
		}
		key, _, err := next.Key()
		must(t, err)
		want := now.With(next.Private, key)
		if string(want.Public) != string(next.Public) {
			t.Errorf("the new .pub is %q, want %q", want.Public, next.Public)
		}
		long := time.Date(2001, 9, 9, 0, 0, 0, 0, time.UTC)
		for _, suffix := range []string{"", ".pub"} {
			must(t, os.Chtimes(path+suffix, long, long))
		}
		for range 2 {
			must(t, h.Install(t.Context(), mine, "nobody", path, now, want))
			if got, err := h.IdentityFiles(t.Context(), "nobody", path); err != nil || !got.Equal(want) {
				t.Fatalf("%v, %v", got, err)
			}
		}
		for suffix, mode := range map[string]os.FileMode{"": 0o600, ".pub": 0o644} {
			info, _ := os.Stat(path + suffix)
			if info.Mode() != mode || owner(info) != "65534:65534" {
				t.Errorf("%s: %v of %s", suffix, info.Mode(), owner(info))
			}
			if time.Since(info.ModTime()) > time.Hour { // what goes by the time, such as a backup, would not see it
				t.Errorf("%s is said to be of %s", suffix, info.ModTime())
			}
		}
		// Something else came in between: it is not overwritten.
		other := pair(t, "-t", "ed25519")
		err = h.Install(t.Context(), mine, "nobody", path, now, other)
		kind(t, err, trust.Conflict, "no longer")
		must(t, h.Install(t.Context(), mine, "nobody", path, want, old))
		if got, err := h.IdentityFiles(t.Context(), "nobody", path); err != nil || !got.Equal(old) {
			t.Errorf("not what lay there before: %v, %v", got, err)
		}
		must(t, h.Release(t.Context(), mine, "nobody", path))
		only(t, filepath.Join(dir, ".ssh"), "id_ed25519", "id_ed25519-cert.pub", "id_ed25519.pub")
	})
}

// The comment of X.pub goes over to the new key, whatever else stands in the file.
func TestCommentOfThePublicHalf(t *testing.T) {
	old, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
	key, next0 := old.Named(), next.Named()
	for text, comment := range map[string]string{
		key.String() + " a b\n":                                " a b",
		key.String() + " a b\r\n":                              " a b",
		key.String() + " a b\r\n# trailing\r\n":                " a b",
		"# leading\n" + key.String() + " a b\n# trailing\n":    " a b",
		key.String() + "\r\n" + next0.String() + " second\r\n": "",
		"":           "",
		"# no key\n": "",
	} {
		old.Public = []byte(text)
		if got, want := string(old.With(next.Private, next0).Public), next0.String()+comment+"\n"; got != want {
			t.Errorf("of %q comes %q, want %q", text, got, want)
		}
	}
}

// What comes back has the mode and the owner that it had, also where nothing lies there
// by then of which to take them.
func TestInstallBringsModesBack(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		old, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
		old.Certificate = []byte("ssh-ed25519-cert-v01@openssh.com AAAA\n")
		_, path := place(t, "nobody", old)
		modes := map[string]os.FileMode{"": 0o400, ".pub": 0o640, "-cert.pub": 0o600}
		for suffix, mode := range modes {
			must(t, os.Chmod(path+suffix, mode))
		}
		before, err := h.IdentityFiles(t.Context(), "nobody", path)
		must(t, err)
		key, _, err := next.Key()
		must(t, err)
		want := before.With(next.Private, key)
		must(t, h.Install(t.Context(), mine, "nobody", path, before, want))
		must(t, os.Remove(path+".pub"))
		sealed, err := UnmarshalIdentityFiles(before.Marshal())
		must(t, err)
		must(t, h.Install(t.Context(), mine, "nobody", path, want, sealed))
		for suffix, mode := range modes {
			if info, err := os.Stat(path + suffix); err != nil || info.Mode() != mode || owner(info) != "65534:65534" {
				t.Errorf("%s came back as %v of %s: %v; want %v", suffix, info.Mode(), owner(info), err, mode)
			}
		}
		must(t, h.Release(t.Context(), mine, "nobody", path))
	})
}

// What somebody else's program put beside an identity may belong to whom the account cannot
// give it back: that is said beforehand, and keeps nobody from a login.
func TestInstallBesideForeignPublicHalves(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		old, next := pair(t, "-t", "ed25519"), pair(t, "-t", "ed25519")
		old.Certificate = []byte("ssh-ed25519-cert-v01@openssh.com AAAA\n")
		_, path := place(t, "nobody", old)
		must(t, os.Chmod(path+".pub", 0o644))
		must(t, os.Chmod(path+"-cert.pub", 0o640))
		chown(t, path+".pub", "root")
		must(t, os.Chown(path+"-cert.pub", -1, 0)) // as after chown without ":group"
		before, err := h.IdentityFiles(t.Context(), "nobody", path)
		must(t, err)
		if before.Fixed != "" || !strings.Contains(before.PublicForeign, "it belongs to uid 0") || !strings.Contains(before.CertificateForeign, "its group is gid 0") {
			t.Errorf("foreign: %q and %q; fixed: %q", before.PublicForeign, before.CertificateForeign, before.Fixed)
		}
		key, _, err := next.Key()
		must(t, err)
		want := before.With(next.Private, key)
		must(t, h.Install(t.Context(), mine, "nobody", path, before, want))
		is := func(suffix string, mode os.FileMode) {
			t.Helper()
			if info, err := os.Stat(path + suffix); err != nil || info.Mode() != mode || owner(info) != "65534:65534" {
				t.Errorf("X%s: %v, %v", suffix, info, err)
			}
		}
		is("", 0o600)
		is(".pub", 0o644)
		must(t, os.Remove(path+".pub")) // what is not there is like nothing
		must(t, h.Install(t.Context(), mine, "nobody", path, want, before))
		is("", 0o600)
		is(".pub", 0o644)
		is("-cert.pub", 0o640)
		must(t, h.Release(t.Context(), mine, "nobody", path))
	})
}

// An identity that cannot be replaced says so when it is read.
func TestFixedIdentity(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		for name, c := range map[string]struct {
			prepare func(t *testing.T, path string)
			says    string
		}{
			"":                      {func(*testing.T, string) {}, ""},
			"foreign group":         {func(t *testing.T, path string) { must(t, os.Chown(path, -1, 0)) }, "its group is gid 0"},
			"immutable":             {func(t *testing.T, path string) { immutably(t, path) }, "id_ed25519 is immutable (as root: chattr -i "},
			"immutable public half": {func(t *testing.T, path string) { immutably(t, path+".pub") }, "id_ed25519.pub is immutable"},
			"immutable directory":   {func(t *testing.T, path string) { immutably(t, filepath.Dir(path)) }, ".ssh is immutable"},
		} {
			t.Run(name, func(t *testing.T) {
				_, path := place(t, "nobody", pair(t, "-t", "ed25519"))
				c.prepare(t, path)
				files, err := h.IdentityFiles(t.Context(), "nobody", path)
				must(t, err)
				if !strings.Contains(files.Fixed, c.says) || (c.says == "") != (files.Fixed == "") {
					t.Errorf("fixed: %q, want it to say %q", files.Fixed, c.says)
				}
			})
		}
	})
}

func immutably(t testing.TB, path string) {
	t.Helper()
	chattr(t, "+i", path)
	t.Cleanup(func() { chattr(t, "-i", path) })
}

func TestGenerateOnTheHost(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		old := pair(t, "-t", "rsa", "-b", "2048", "-m", "PEM")
		dir, path := place(t, "nobody", old)
		spec := Spec{Type: "rsa", Bits: 2048, PEM: true, Comment: "it's new"}
		key, err := h.Generate(t.Context(), mine, "nobody", path, spec)
		must(t, err)
		if again, err := h.Generate(t.Context(), mine, "nobody", path, spec); again != key || err != nil {
			t.Errorf("made again: %v, %v", again.Fingerprint(), err)
		}
		if got, _ := h.IdentityFiles(t.Context(), "nobody", path); !got.Equal(old) {
			t.Error("the identity changed before it was to")
		}
		for range 2 {
			must(t, h.InstallGenerated(t.Context(), mine, "nobody", path, old, key))
		}
		got, err := h.IdentityFiles(t.Context(), "nobody", path)
		must(t, err)
		if k, info, err := got.Key(); k != key || info.Format != "pem" || err != nil {
			t.Errorf("installed %v, %+v, %v; want %v", k.Fingerprint(), info, err, key.Fingerprint())
		}
		if want := key.String() + " a comment\n"; string(got.Public) != want {
			t.Errorf(".pub is %q, want %q", got.Public, want)
		}
		must(t, h.Release(t.Context(), mine, "nobody", path))
		only(t, filepath.Join(dir, ".ssh"), "id_ed25519", "id_ed25519.pub")
	})
}

func TestIdentities(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir := publicDir(t)
		must(t, os.Chmod(dir, 0o711))
		for name, args := range map[string][]string{
			"id_plain": {"-t", "ed25519"}, "id_locked": {"-t", "rsa", "-b", "2048", "-N", "secret"}, "id_pem": {"-t", "rsa", "-b", "2048", "-m", "PEM"},
			"id_pem_locked": {"-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"}, "with space": {"-t", "ecdsa"},
		} {
			keygen(t, filepath.Join(dir, name), args...)
		}
		must(t, os.Remove(filepath.Join(dir, "id_locked.pub")))
		must(t, os.WriteFile(filepath.Join(dir, "config"), []byte("Host *\n"), 0o600))
		must(t, os.Symlink("id_plain", filepath.Join(dir, "id_link")))
		must(t, os.Symlink("id_link", filepath.Join(dir, "id_link2")))
		must(t, os.Symlink("id_plain.pub", filepath.Join(dir, "id_link2.pub")))
		must(t, os.WriteFile(filepath.Join(dir, "id_apart.pub"), mustRead(filepath.Join(dir, "id_plain.pub")), 0o644))
		must(t, os.Symlink(filepath.Join(dir, "id_plain"), filepath.Join(dir, "id_apart")))
		elsewhere := publicDir(t)
		must(t, os.Chmod(elsewhere, 0o711))
		keygen(t, filepath.Join(elsewhere, "id_far"), "-t", "ed25519")
		must(t, os.Symlink(filepath.Join(elsewhere, "id_far"), filepath.Join(dir, "id_far")))
		before := tree(t, dir)
		list, err := identitiesIn(t, h, "root", dir)
		must(t, err)
		seen := map[string]Identity{}
		for _, i := range list {
			seen[filepath.Base(i.Path)] = i
		}
		for name, want := range map[string]string{
			"id_plain": "", "id_link": filepath.Join(dir, "id_plain"), "id_link2": filepath.Join(dir, "id_plain"),
			"id_apart": filepath.Join(dir, "id_plain"), "id_far": filepath.Join(elsewhere, "id_far"),
		} {
			if i := seen[name]; i.Link != want || i.Apart != (name == "id_apart") {
				t.Errorf("%s leads to %q, apart %v; want %q", name, i.Link, i.Apart, want)
			}
		}
		if len(seen) != 9 || seen["id_plain"].Comment != "a comment" || seen["id_plain"].Mode != 0o600 {
			t.Errorf("found %+v", list)
		}
		for name, i := range seen {
			b, _ := os.ReadFile(i.Path)
			want, _, err := IdentityFiles{Private: b, Public: mustRead(i.Path + ".pub")}.Key()
			must(t, err)
			if i.Key != want || i.Info.Encrypted != strings.Contains(name, "locked") || i.Claimed != (name == "id_pem_locked") {
				t.Errorf("%s: %+v, want %v", name, i, want.Fingerprint())
			}
		}
		if after := tree(t, dir); after != before {
			t.Errorf("looking changed\n%s\nto\n%s", before, after)
		}
		_, err = h.IdentityFiles(t.Context(), "root", filepath.Join(dir, "id_link"))
		var e *trust.Error
		if !errors.As(err, &e) || e.Kind != trust.Conflict || !strings.Contains(e.Hint, "keyturn scan ") {
			t.Errorf("a link as an identity: %v", err)
		}
	})
}

// What an account puts into its directory costs the account a look, and nobody else: a
// file without an end, a pipe that nobody writes to, more keys than anybody has.
func TestIdentitiesOfAnAccountThatMeansHarm(t *testing.T) {
	each(t, func(t *testing.T, v variant, h *Host) {
		dir := publicDir(t)
		must(t, os.Chmod(dir, 0o711))
		keygen(t, filepath.Join(dir, "id"), "-t", "ed25519")
		must(t, os.Remove(filepath.Join(dir, "id.pub")))
		for _, name := range []string{"id.pub", "pipe"} {
			must(t, unix.Mkfifo(filepath.Join(dir, name), 0o644))
		}
		const endless = 1 << 40 // of no blocks
		for name, begins := range map[string]string{"note": "", "id_long": "-----BEGIN OPENSSH PRIVATE KEY-----"} {
			path := filepath.Join(dir, name)
			must(t, os.WriteFile(path, []byte(begins), 0o600))
			must(t, os.Truncate(path, endless))
		}
		keygen(t, filepath.Join(dir, "id_two\nlines"), "-t", "ed25519")
		began := time.Now()
		list, err := identitiesIn(t, h, "root", dir)
		must(t, err)
		if answers, err := h.runAll(t.Context(), h.finding("root", dir)); err != nil || !slices.ContainsFunc(answers[0].lines, func(l line) bool { return l.word+" "+l.rest == "left name" }) {
			t.Errorf("of a name that is two lines: %+v, %v", answers, err)
		}
		if len(list) != 2 || list[0].Path != filepath.Join(dir, "id") || list[0].Key.IsZero() || list[0].Claimed || !list[1].Key.IsZero() {
			t.Errorf("found %+v", list)
		}
		for n := range 501 {
			must(t, os.WriteFile(filepath.Join(dir, fmt.Sprintf("id_%03d", n)), []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), 0o600))
		}
		answers, err := h.runAll(t.Context(), h.finding("root", dir))
		must(t, err)
		found, err := h.readIdentities(answers[0], dir)
		if len(found.List) != 500 || !strings.Contains(found.Left, "more files") || err != nil {
			t.Errorf("found %d of 503, left %q, %v", len(found.List), found.Left, err)
		}
		t.Logf("in %v", time.Since(began))
	})
}

func mustRead(path string) []byte {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return b
}

func FuzzUnmarshalIdentityFiles(f *testing.F) {
	f.Add(IdentityFiles{Private: []byte("p"), Certificate: []byte{}}.Marshal())
	f.Add([]byte(marshalled))
	f.Add([]byte(marshalledWithoutPerms + "\x01\x00\x00\x00\x01p\x00\x01\x00\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, data []byte) {
		files, err := UnmarshalIdentityFiles(data)
		if err != nil {
			return
		}
		want := data
		if rest, ok := bytes.CutPrefix(data, []byte(marshalledWithoutPerms)); ok {
			want = append(append([]byte(marshalled), rest...), 0, 0)
		}
		if !bytes.Equal(files.Marshal(), want) {
			t.Errorf("%q comes back as %q", data, files.Marshal())
		}
	})
}

// identitiesIn returns the private key files in directories, as user sees them.
func identitiesIn(t testing.TB, h *Host, user string, dirs ...string) ([]Identity, error) {
	t.Helper()
	answers, err := h.runAll(t.Context(), h.finding(user, dirs...))
	if err != nil {
		return nil, err
	}
	found, err := h.readIdentities(answers[0], dirs[0])
	return found.List, err
}
