package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// Look says each thing that is wrong, by file and line, and changes nothing.
func TestLook(t *testing.T) {
	t.Parallel()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	dir := filepath.Join(t.TempDir(), "root", ".ssh")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	make := func(name string, args ...string) string {
		path := filepath.Join(dir, name)
		if out, err := exec.Command(keygen, append([]string{"-q", "-N", "", "-f", path}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v %s", err, out)
		}
		public, err := os.ReadFile(path + ".pub")
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(public))
	}
	own, weak, gone := make("id_ed25519", "-t", "ed25519"), make("id_rsa", "-t", "rsa", "-b", "1024"), make("gone", "-t", "ed25519")
	write := func(name, text string, mode os.FileMode) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), mode); err != nil {
			t.Fatal(err)
		}
	}
	private, err := os.ReadFile(filepath.Join(dir, "id_ed25519"))
	if err != nil {
		t.Fatal(err)
	}
	write("copy", string(private), 0o644)
	if err := os.Remove(filepath.Join(dir, "gone")); err != nil {
		t.Fatal(err)
	}
	write("authorized_keys", strings.Join([]string{
		"# mine", own, "no-such-option " + own, `from="10.0.0.1" ` + gone, weak, "nonsense",
	}, "\n"), 0o600)

	var out, errs bytes.Buffer
	if code := run(t.Context(), nil, []string{"look", dir, "--json"}, nil, &out, &errs); code != 0 {
		t.Fatalf("exit %d: %s", code, errs.String())
	}
	var got lookReport
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	type place struct {
		kind, file string
		line       int
	}
	found := map[place]int{}
	for _, f := range got.Findings {
		found[place{f.Kind, filepath.Base(f.Path), f.Line}]++
	}
	for _, want := range []place{
		{"unrestricted", "authorized_keys", 2},
		{"ignored", "authorized_keys", 3},
		{"duplicate", "authorized_keys", 3},
		{"unknown", "authorized_keys", 4},
		{"weak", "authorized_keys", 5},
		{"unrestricted", "authorized_keys", 5},
		{"ignored", "authorized_keys", 6},
		{"unterminated", "authorized_keys", 6},
		{"unencrypted", "id_ed25519", 0},
		{"unencrypted", "copy", 0},
		{"exposed", "copy", 0},
		{"shared", "copy", 0},
		{"unencrypted", "id_rsa", 0},
		{"weak", "id_rsa", 0},
	} {
		if found[want] != 1 {
			t.Errorf("%v was found %d times, want once", want, found[want])
		}
		delete(found, want)
	}
	for p, n := range found {
		t.Errorf("%v was found %d times, and is nothing", p, n)
	}
	if code := run(t.Context(), nil, []string{"look", filepath.Join(dir, "not there")}, nil, &out, &errs); code != 1 {
		t.Errorf("a path that is not there: exit %d, want 1", code)
	}
	if errs.Reset(); run(t.Context(), nil, []string{"look", "/dev/null"}, nil, &out, &errs) != 1 || !strings.Contains(errs.String(), "/dev/null is neither a file nor a directory") {
		t.Errorf("a device says %q", errs.String())
	}
}
