package main

import (
	"bytes"
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
		{kekFlags{command: "vault"}, "the command that was given"},
		{kekFlags{passphraseFile: "/x/p"}, `the passphrase in "/x/p"`},
		{kekFlags{passphrase: true}, "the passphrase that was typed"},
		{kekFlags{file: "/x/kek", was: "command:vault get: x"}, "the command that was given"},
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
// What may be in a command, a token or the key, is not shown and not in the database.
func TestChangeTheSourceOfTheKEK(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var made, kept keyJSON
	w.json(&made, "key", "generate", "--type", "ed25519")
	w.stop()
	key := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte{7}, 32))
	flags := kekFlags{command: "echo " + key, was: "file:" + filepath.Join(w.dir, "etc", "kek")}
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
	if shown := w.ok("kek", "show"); !strings.Contains(shown, "the command that was given") || strings.Contains(shown, key) {
		t.Errorf("it is shown as %s", shown)
	}
	entries, err := os.ReadDir(filepath.Join(w.dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		if entry.Type().IsRegular() && strings.Contains(w.read(filepath.Join(w.dir, "data", entry.Name())), key) {
			t.Errorf("%s has the command", entry.Name())
		}
	}
	flags.command = "echo no token " + key + " >&1; exit 3"
	if n, err := openNode(t.Context(), w.config()); err == nil || strings.Contains(err.Error(), key) {
		t.Errorf("a command that fails: %v, %v", n, err)
	}
}

// Where a node has its key from is for the account that the server belongs to.
func TestSourceIsForTheFirstAccount(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	if text := w.ok("kek", "show"); !strings.Contains(text, filepath.Join(w.dir, "etc", "kek")) {
		t.Errorf("the first account is shown %s", text)
	}
	var added addedAccountJSON
	w.json(&added, "account", "add", "one")
	admin := headers("Authorization", basic(added.Admin, added.Password))
	for method, path := range map[string]string{"GET": "/api/v1/kek", "POST": "/api/v1/kek/rotate-data"} {
		status, text := w.send(method, path, "", admin)
		if status != 200 || !strings.Contains(text, "kek-") || strings.Contains(text, w.dir) || strings.Contains(text, "source") {
			t.Errorf("another account is answered to %s %s: %d %s", method, path, status, text)
		}
	}
}
