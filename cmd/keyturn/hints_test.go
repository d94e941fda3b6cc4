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
	if code, _, errs := w.try("rollback", generations[0]); code == 0 || !strings.Contains(errs, "hint: keyturn rollback "+generations[0]+" --current") {
		t.Errorf("rollback of the key in use: %d, %s", code, errs)
	}
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

// An error names the thing as the command line does, and what is next. What completes a
// word knows the words.
func TestErrorsInTheWordsOfTheCommandLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, _ := w.inPlace()
	for _, c := range []struct {
		line       []string
		code       int
		says, hint string
	}{
		{[]string{"key", "list", "--kind", "foo"}, 1, `--kind: expected value to be one of "user, host"`, "keyturn key list --help"},
		{[]string{"key", "generate", "--type", "dsa"}, 1, "--type: expected value", "keyturn key generate --help"},
		{[]string{"key", "import", "/nope"}, 1, "open /nope: no such file", "keyturn key import --help"},
		{[]string{"look", "/nope"}, 1, "/nope: no such file", "keyturn look --help"},
		{[]string{"token", "create", "x", "--permission", "Foo"}, 1, `"Foo"`, "keyturn"},
		{[]string{"settings", "set", "rotation.soak", "-1h"}, 2, "keyturn settings set NAME -- VALUE", "keyturn settings set --help"},
		{[]string{"settings", "set", "rotation.soak", "--", "-1h"}, 1, `setting rotation.soak: "-1h" is not a duration`, "keyturn settings set rotation.soak 1h is the default"},
		{[]string{"rotate", k.UUID, "--dry-run"}, 1, "does not hold it", "add --share:"},
		{[]string{"--json"}, 2, `"keyturn" has commands`, "keyturn --help"},
		{[]string{"run", "--json"}, 2, `"keyturn run" has commands`, "keyturn run --help"},
	} {
		code, out, errs := w.try(c.line...)
		_, hint, _ := strings.Cut(errs, "hint: ")
		if code != c.code || out != "" || !strings.Contains(errs, c.says) || !strings.Contains(hint, c.hint) {
			t.Errorf("keyturn %s: %d\n%s%swant %d, %q, hint %q", strings.Join(c.line, " "), code, out, errs, c.code, c.says, c.hint)
		}
	}

	if out := w.ok("host", "confirm", "web1"); !strings.HasPrefix(out, "nothing was to be confirmed; ") {
		t.Errorf("host confirm says\n%s", out)
	}
	w.ok("rotate", k.UUID, "--share", "--soak", "0s", "--wait")
	ended := w.latest("rotate")
	for _, c := range []struct{ line, has, hasNot string }{
		{"settings set", "rotation.soak", ""},
		{"key list --state", "rotated", ""},
		{"key list --kind", "host", ""},
		{"host add db1 --become", "doas", ""},
		{"token create ci --permission", "Keys Read", ""},
		{"run show", ended, ""},
		{"run leave", "", ended},
	} {
		out := w.ok(append(append([]string{"__complete"}, strings.Fields(c.line)...), "")...)
		if !strings.Contains(out, c.has) || c.hasNot != "" && strings.Contains(out, c.hasNot) || !strings.Contains(out, ":4") {
			t.Errorf("%s is completed with\n%s", c.line, out)
		}
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
