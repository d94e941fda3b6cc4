package main

import (
	"context"
	"encoding/base64"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// The key of the database is rotated while the server runs, by those who may do
// everything, and the next start has the new one.
func TestRotateKEK(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	file := filepath.Join(w.dir, "etc", "kek")
	old := w.read(file)
	var before, rotated, data, after kekJSON
	w.json(&before, "kek", "show")
	w.json(&rotated, "kek", "rotate")
	if rotated.Before != before.Name || rotated.Name == before.Name || !rotated.Since.After(before.Since) || !strings.Contains(rotated.Source, file) {
		t.Errorf("rotated from %+v: %+v", before, rotated)
	}
	if text := w.read(file); !strings.Contains(text, rotated.Name) || strings.Contains(text, before.Name) {
		t.Errorf("the file does not hold %s", rotated.Name)
	}
	w.json(&data, "kek", "rotate", "--data")
	if data.DataSince == nil || before.DataSince == nil || !data.DataSince.After(*before.DataSince) || data.Name != rotated.Name {
		t.Errorf("data key of %v after that of %v", data.DataSince, before.DataSince)
	}
	w.stop()
	w.start()
	w.json(&after, "kek", "show")
	if after.Name != rotated.Name {
		t.Errorf("after a start it is %s, not %s", after.Name, rotated.Name)
	}
	w.stop()
	if err := os.WriteFile(file, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := openNode(t.Context(), w.config())
	if trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), before.Name) || !strings.Contains(err.Error(), rotated.Name) {
		t.Errorf("with the old file: %v, want denied, naming both", err)
	}
}

// Wherever the server is killed while it rotates its key, it starts again.
func TestKilledWhileTheKEKIsRotated(t *testing.T) {
	need.Long(t)
	t.Parallel()
	need.Within(t, 5*time.Minute)
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	f := &fleet{t: t, dir: dir, binary: binary, data: filepath.Join(dir, "data")}
	t.Cleanup(func() { f.kill(0) })
	names, kills := map[string]bool{}, 8
	if need.Full() {
		kills = 60
	}
	for range kills {
		f.start()
		var k kekJSON
		f.must(f.client.call(t.Context(), "GET", "/kek", nil, &k))
		names[k.Name] = true
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil && f.client.call(ctx, "POST", "/kek/rotate", nil, &kekJSON{}) == nil {
			}
		}()
		f.since = time.Now()
		f.kill(rand.N(40 * time.Millisecond))
		cancel()
		<-done
	}
	if len(names) < 3 {
		t.Errorf("the kills met %d keys", len(names))
	}
}

// Flags of serve name one source, and what it is not told of is not for a command.
func TestSourceOfTheKEK(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		flags kekFlags
		says  string
	}{
		{kekFlags{file: "/x/kek"}, `the key file "/x/kek"`},
		{kekFlags{command: "vault"}, `the command "vault"`},
		{kekFlags{passphraseFile: "/x/p"}, `the passphrase in "/x/p"`},
		{kekFlags{passphrase: true}, "the passphrase that was typed"},
		{kekFlags{file: "/x/kek", was: "command:vault get: x"}, `the command "vault get: x"`},
		{kekFlags{file: "/x/kek", was: "passphrase"}, "the passphrase that was typed"},
		{kekFlags{file: "/x/kek", command: "vault"}, "give one"},
		{kekFlags{passphrase: true, passphraseFile: "/x"}, "give one"},
		{kekFlags{file: "/x/kek", was: "/y"}, "is none of file:PATH"},
		{kekFlags{file: "/x/kek", was: "file:"}, "is none of file:PATH"},
		{kekFlags{url: "ftp://x"}, "no key management service"},
	} {
		source, was, err := test.flags.sources("/data")
		said := ""
		switch {
		case err != nil:
			said = err.Error()
		case was != nil:
			said = was.String()
		default:
			said = source.String()
		}
		if !strings.Contains(said, test.says) {
			t.Errorf("%+v: %s; want %s", test.flags, said, test.says)
		}
	}
	if got := withoutOurs([]string{"PATH=/bin", "KEYTURN_ADMIN_PASSWORD=x", "VAULT_TOKEN=y"}); len(got) != 2 || got[1] != "VAULT_TOKEN=y" {
		t.Errorf("the environment of a command is %q", got)
	}
}

// A server that is told where the key was until now changes over, and keeps what it has.
func TestChangeTheSourceOfTheKEK(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var made, kept keyJSON
	w.json(&made, "key", "generate", "--type", "ed25519")
	w.stop()
	flags := kekFlags{command: "echo " + base64.StdEncoding.EncodeToString(make([]byte, 32)), was: "file:" + filepath.Join(w.dir, "etc", "kek")}
	w.tune = func(c *config) {
		var err error
		if c.kek, c.kekWas, err = flags.sources(c.data); err != nil {
			t.Error(err)
		}
	}
	for range 2 { // the flag may stay
		w.start()
		w.json(&kept, "key", "show", made.UUID)
		w.stop()
	}
	if err := os.Remove(filepath.Join(w.dir, "etc", "kek")); err != nil {
		t.Fatal(err)
	}
	flags.was = ""
	w.start()
	code, _, errs := w.try("kek", "rotate")
	if code == 0 || !strings.Contains(errs, "still holds") || !strings.Contains(errs, "give the source another key") {
		t.Errorf("a rotation to the same key: exit %d, %s", code, errs)
	}
}
