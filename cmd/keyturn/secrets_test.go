package main

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
)

// Whoever steals the data directory has no private key: none that was imported,
// none that lay in an identity file, none that was made, in any plain encoding.
func TestDataDirectoryHoldsNoPrivateKey(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 2)
	identity := filepath.Join(w.servers[0].Home(), ".ssh", "id_ed25519")
	deploy := w.keyFile(identity, "deploy@ci")
	for _, s := range w.servers {
		if err := s.Authorize(deploy, ""); err != nil {
			t.Fatal(err)
		}
	}
	before := []byte(w.read(identity))
	w.ok("scan", "--wait")
	w.ok("rotate", w.key(deploy).UUID, "--share", "--soak", "0s", "--wait")
	after := []byte(w.read(identity))
	if bytes.Equal(before, after) {
		t.Fatal("the identity file was not changed")
	}
	w.stop()
	files := 0
	seeds := [][]byte{seedOf(t, before), seedOf(t, after), seedOf(t, []byte(w.read(w.ops)))}
	err := filepath.WalkDir(filepath.Join(w.dir, "data"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for i, seed := range seeds {
			for name, plain := range encodings(seed) {
				if bytes.Contains(bytes.ToLower(data), plain) || bytes.Contains(data, plain) {
					t.Errorf("%s holds key %d %s", path, i, name)
				}
			}
		}
		if bytes.Contains(data, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds the text of a private key file", path)
		}
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("searched %d files: %v", files, err)
	}
}

func seedOf(t *testing.T, file []byte) []byte {
	t.Helper()
	key, err := ssh.ParseRawPrivateKey(file)
	if err != nil {
		t.Fatal(err)
	}
	private, ok := key.(*ed25519.PrivateKey)
	if !ok {
		t.Fatalf("the key is a %T", key)
	}
	return private.Seed()
}

// encodings are the forms in which a seed could stand in a file: base64 begins
// at any of three places.
func encodings(seed []byte) map[string][]byte {
	forms := map[string][]byte{"raw": seed, "in hex": []byte(hex.EncodeToString(seed))}
	for shift := range 3 {
		padded := append(make([]byte, shift), seed...)
		text := base64.RawStdEncoding.EncodeToString(padded)
		forms["in base64, shifted by "+string(rune('0'+shift))] = []byte(text[4 : len(text)-4])
	}
	return forms
}
