package keyring

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

func TestKEKIsMadeOnceAndReadAgain(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "etc", "keyturn", "kek")
	if _, err := LoadKEK(path, dir+"/data", false); trust.KindOf(err) != trust.NotFound {
		t.Fatalf("without create: %v, want not found", err)
	}
	old := syscall.Umask(0)
	made, err := LoadKEK(path, dir+"/data", true)
	syscall.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[string]fs.FileMode{path: 0o600, filepath.Dir(path): 0o700 | fs.ModeDir, dir + "/etc": 0o700 | fs.ModeDir} {
		if info, err := os.Stat(p); err != nil || info.Mode() != want {
			t.Errorf("%s has mode %v, want %v (%v)", p, info.Mode(), want, err)
		}
	}
	for _, create := range []bool{false, true} {
		again, err := LoadKEK(path, dir+"/data", create)
		if err != nil || again.Name() != made.Name() {
			t.Errorf("create=%t: %v, %v, want %v", create, again, err, made)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("its directory holds %v, %v, want the file only", entries, err)
	}
	other, err := LoadKEK(filepath.Join(dir, "other"), "", true)
	if err != nil || other.Name() == made.Name() {
		t.Errorf("a second file holds %v, %v: not a key of its own", other, err)
	}
}

func TestKEKFileIsWhatTheDocumentSays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kek")
	kek, err := LoadKEK(path, "", true)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	if len(lines) != 4 || lines[0] != "keyturn-kek-v1" || lines[1] != "name "+kek.Name() || lines[3] != "" {
		t.Fatalf("file is %q", text)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(lines[2], "key "))
	if err != nil || len(key) != 32 {
		t.Errorf("key of %d bytes, %v", len(key), err)
	}
	// The name of a known key: it never changes, or old databases do not open.
	known, err := parseKEK([]byte("# ours\n\nkeyturn-kek-v1\nname kek-ff3540a86983e2040f3b8b02b72d674e\nkey AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), "x")
	if err != nil {
		t.Errorf("a known key: %v, %v", known, err)
	}
}

// Processes that start at the same time agree on one key.
func TestKEKIsMadeOnceByMany(t *testing.T) {
	path := filepath.Join(t.TempDir(), "made", "by", "many")
	var names sync.Map
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			kek, err := LoadKEK(path, "", true)
			if err != nil {
				t.Error(err)
			}
			names.Store(kek.Name(), true)
		})
	}
	wg.Wait()
	n := 0
	names.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d keys were made", n)
	}
}

func TestKEKRefusals(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	good := filepath.Join(dir, "good")
	if _, err := LoadKEK(good, data, true); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, text []byte, mode fs.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(name, to string) string {
		path := filepath.Join(dir, name)
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	foreign := write("foreign", text, 0o600)
	if os.Geteuid() == 0 {
		if err := os.Chown(foreign, 12345, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	short := []byte(fmt.Sprintf("keyturn-kek-v1\nname kek-00\nkey %s\n", base64.StdEncoding.EncodeToString(make([]byte, 31))))
	lines := bytes.SplitAfter(text, []byte("\n"))
	write("data/inside", text, 0o600)

	for name, c := range map[string]struct {
		path string
		kind trust.Kind
		want string
	}{
		"group may read":       {write("0640", text, 0o640), trust.Denied, "mode 0640"},
		"others may read":      {write("0604", text, 0o604), trust.Denied, "mode 0604"},
		"others may write":     {write("0602", text, 0o602), trust.Denied, "mode 0602"},
		"directory":            {dir, trust.Denied, "not a regular file"},
		"named pipe":           {filepath.Join(dir, "pipe"), trust.Denied, "not a regular file"},
		"in the data":          {filepath.Join(data, "inside"), trust.Denied, "data directory"},
		"in the data, dots":    {dir + "/x/../data/../data/inside", trust.NotFound, "not there"},
		"link into the data":   {link("into", filepath.Join(data, "inside")), trust.Denied, "data directory"},
		"dir link to the data": {link("datalink", data) + "/inside", trust.Denied, "data directory"},
		"31 bytes":             {write("short", short, 0o600), trust.Invalid, "31 bytes instead of 32"},
		"empty":                {write("empty", nil, 0o600), trust.Invalid, "keyturn-kek-v1"},
		"only a key":           {write("bare", lines[2], 0o600), trust.Invalid, "keyturn-kek-v1"},
		"no name":              {write("noname", append(bytes.Clone(lines[0]), lines[2]...), 0o600), trust.Invalid, "2 lines"},
		"cut":                  {write("cut", text[:len(text)-8], 0o600), trust.Invalid, "key"},
		"one bit":              {write("bit", flip(text, len(text)-20), 0o600), trust.Invalid, "says that its key is"},
		"name of another":      {write("name", flip(text, len(lines[0])+10), 0o600), trust.Invalid, "says that its key is"},
		"too large":            {write("large", append(bytes.Clone(text), bytes.Repeat([]byte("#\n"), 600)...), 0o600), trust.Invalid, "larger"},
		"next version":         {write("v2", bytes.Replace(text, []byte("-v1"), []byte("-v2"), 1), 0o600), trust.Invalid, "keyturn-kek-v1"},
	} {
		t.Run(name, func(t *testing.T) {
			kek, err := LoadKEK(c.path, data, false)
			if err == nil {
				t.Fatalf("loaded as %v", kek)
			}
			if trust.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v (%v), want %q of kind %v", err, trust.KindOf(err), c.want, c.kind)
			}
			if key := bytes.TrimSpace(bytes.TrimPrefix(lines[2], []byte("key "))); strings.Contains(err.Error(), string(key[:20])) {
				t.Errorf("the error quotes the key: %v", err)
			}
		})
	}
	if os.Geteuid() == 0 {
		if _, err := LoadKEK(foreign, data, false); trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), "uid 12345") {
			t.Errorf("a file of uid 12345: %v", err)
		}
	}

	// What is refused is not made first, and what is there is not replaced.
	for _, path := range []string{filepath.Join(data, "new"), filepath.Join(data, "sub", "new"), filepath.Join(dir, "datalink", "new")} {
		if _, err := LoadKEK(path, data, true); trust.KindOf(err) != trust.Denied {
			t.Errorf("create %s: %v, want denied", path, err)
		}
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s was made", path)
		}
	}
	dangling := link("dangling", filepath.Join(dir, "nowhere"))
	if _, err := LoadKEK(dangling, data, true); err == nil {
		t.Error("a key was made through a dangling link")
	}
	if _, err := LoadKEK(filepath.Join(dir, "empty"), data, true); trust.KindOf(err) != trust.Invalid {
		t.Errorf("create over an empty file: %v", err)
	}
	// The data directory need not exist yet.
	if _, err := LoadKEK(filepath.Join(dir, "later", "kek"), filepath.Join(dir, "later"), true); trust.KindOf(err) != trust.Denied {
		t.Errorf("in a data directory to be: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, "later")); err == nil {
		t.Error("in a data directory to be: something was made")
	}
	// A link to a file elsewhere is how Kubernetes and systemd hand files over.
	if _, err := LoadKEK(link("elsewhere", good), data, false); err != nil {
		t.Errorf("through a link that stays outside: %v", err)
	}
}

// A file that systemd or Kubernetes hands out is root's, and a group may read it: who is in
// that is said there. It counts where nobody but root can put another in its place.
func TestKEKHandedOut(t *testing.T) {
	need.Root(t)
	dir := t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	path := filepath.Join(dir, "..data", "kek")
	kek, err := LoadKEK(path, "", true)
	must(t, err)
	must(t, os.Symlink("..data/kek", filepath.Join(dir, "kek")))
	for _, c := range []struct {
		what      string
		mode, dir fs.FileMode
		uid       int // of the file
		dirUID    int
		loads     bool
	}{
		{"handed out", 0o440, 0o755, 0, 0, true},
		{"in a directory of the service's", 0o440, 0o550, 0, 0, true},
		{"for others to read", 0o444, 0o755, 0, 0, false},
		{"for root to write", 0o640, 0o755, 0, 0, false},
		{"for the group to write", 0o460, 0o755, 0, 0, false},
		{"another's", 0o440, 0o755, 12345, 0, false},
		{"in another's directory", 0o440, 0o755, 0, 12345, false},
		{"where the group can write", 0o440, 0o775, 0, 0, false},
		{"where anybody can write", 0o440, 0o777, 0, 0, false},
	} {
		must(t, os.Chmod(path, c.mode))
		must(t, os.Chmod(filepath.Dir(path), c.dir))
		must(t, os.Chown(path, c.uid, 12345))
		must(t, os.Chown(filepath.Dir(path), c.dirUID, 12345))
		got, err := LoadKEK(filepath.Join(dir, "kek"), "", false)
		if c.loads && (err != nil || got.name != kek.name) || !c.loads && trust.KindOf(err) != trust.Denied {
			t.Errorf("%s: %v", c.what, err)
		}
	}
}

// A second mount of the data directory is the data directory.
func TestKEKRefusedThroughASecondMount(t *testing.T) {
	if at := os.Getenv("KEYTURN_TEST_MOUNTED"); at != "" { // in the namespace
		_, err := LoadKEK(at, os.Getenv("KEYTURN_TEST_DATA"), false)
		if trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), "data directory") {
			t.Errorf("%v, want denied", err)
		}
		return
	}
	need.Root(t)
	unshare := need.Program(t, "unshare", "util-linux")
	dir := t.TempDir()
	for _, d := range []string{"data", "mounted"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := LoadKEK(dir+"/data/kek", "", true); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(unshare, "--mount", "sh", "-c", `mount --bind "$1" "$2" && exec "$0" -test.run=^TestKEKRefusedThroughASecondMount$`,
		os.Args[0], dir+"/data", dir+"/mounted")
	cmd.Env = append(os.Environ(), "KEYTURN_TEST_MOUNTED="+dir+"/mounted/kek", "KEYTURN_TEST_DATA="+dir+"/data")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// flip returns a copy of b with another letter or digit at place i.
func flip(b []byte, i int) []byte {
	b = bytes.Clone(b)
	if b[i] == 'b' {
		b[i] = 'c'
	} else {
		b[i] = 'b'
	}
	return b
}

func FuzzParseKEK(f *testing.F) {
	f.Add([]byte("keyturn-kek-v1\nname kek-ff3540a86983e2040f3b8b02b72d674e\nkey AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"))
	f.Add([]byte("keyturn-kek-v1\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		kek, err := parseKEK(text, "x")
		if err != nil && trust.KindOf(err) != trust.Invalid {
			t.Fatalf("%v is of kind %v", err, trust.KindOf(err))
		}
		if err == nil && !strings.Contains(string(text), kek.Name()) {
			t.Fatalf("%v was not named by its file", kek)
		}
	})
}
