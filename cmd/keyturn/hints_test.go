package main

import (
	"bytes"
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// A refusal names the command that is next.
func TestHints(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)

	locked := filepath.Join(w.dir, "locked")
	if out, err := exec.Command(need.Program(t, "ssh-keygen", "openssh-client"), "-q", "-t", "ed25519", "-N", "secret", "-f", locked).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	hosts := filepath.Join(w.dir, "hosts")
	w.write(hosts, "name,address\nweb9,192.0.2.9\n")
	for _, args := range [][]string{
		{"key", "import", locked},
		{"host", "add", "web9", "--address", "192.0.2.9", "--login", "root", "--accept-new", "--identity", locked},
		{"host", "import", hosts, "--login", "root", "--accept-new", "--identity", locked},
	} {
		code, out, errs := w.try(args...)
		if code == 0 || !strings.Contains(out+errs, "no passphrase was given") || !strings.Contains(out+errs, "hint: give it with --passphrase-stdin") {
			t.Errorf("%s %s of an encrypted key: %d, %s%s", args[0], args[1], code, out, errs)
		}
	}

	// Interrupted, a command says that the run goes on.
	public := w.keyFile(w.dir+"/deploy", "deploy@ci")
	generations := []string{w.heldKey(public, w.dir+"/deploy", "no-pty").UUID}
	var r startedJSON
	w.json(&r, "rotate", generations[0], "--soak", "1h")
	ctx, cancel := context.WithCancelCause(t.Context())
	var errs bytes.Buffer
	code := run(ctx, w.environ, []string{"run", "watch", r.Run}, strings.NewReader(""), interrupted(func() { cancel(errors.New("interrupt signal received")) }), &errs)
	want := "keyturn: interrupt signal received; run " + r.Run + " goes on without this command\nhint: keyturn run watch " + r.Run + "\n"
	if code != 1 || errs.String() != want {
		t.Errorf("interrupted: %d, %s\nwant %s", code, errs.String(), want)
	}
	w.await(r.Run, soaks)
	w.ok("rollback", generations[0], "--wait", "--soak", "0s")

	// Generations come back from the newest on.
	for range 3 {
		w.ok("rotate", generations[0], "--wait", "--soak", "0s")
		next := w.replacedBy(generations[0])
		generations = append([]string{next}, generations...)
	}
	// generations are those in use, out last, before that, first
	for _, args := range [][]string{{"rollback", generations[3]}, {"rollback", generations[2]}} {
		code, _, errs := w.try(args...)
		if code == 0 || !strings.Contains(errs, "is out of use itself by now") || !strings.Contains(errs, "hint: keyturn rollback "+generations[1]+", and so on") {
			t.Errorf("rollback of an older generation: %d, %s", code, errs)
		}
	}
	for _, key := range generations[1:] {
		w.ok("rollback", key, "--wait", "--soak", "0s")
	}
	if k := w.key(public); k.State != "active" {
		t.Errorf("in the end the first key is %s", k.State)
	}
}

// interrupted is an output that calls a function when something is written to it.
type interrupted func()

func (f interrupted) Write(b []byte) (int, error) {
	f()
	return len(b), nil
}

// replacedBy returns what took the place of a key.
func (w *world) replacedBy(uuid string) string {
	w.t.Helper()
	var k keyJSON
	w.json(&k, "key", "show", uuid)
	if len(k.ReplacedBy) != 1 {
		w.t.Fatalf("key %s was replaced by %q", uuid, k.ReplacedBy)
	}
	return k.ReplacedBy[0]
}
