package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/trust"
)

// A key that is compromised or was withdrawn gets no certificate, and what was signed for
// one that turns out to be compromised is revoked. One that is to be used until some time
// is certified no longer.
func TestCertificateOfBadKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	host := w.servers[0]
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	w.lets("admin", "*", nil, "deploy")
	w.ok("ca", "create", "people")
	file := func(name string) string {
		path := filepath.Join(w.dir, name)
		if err := host.Authorize(w.keyFile(path, name), ""); err != nil {
			t.Fatal(err)
		}
		w.ok("key", "import", path)
		return path
	}
	sign := func(path string) []string {
		return []string{"cert", "sign", "--ca", "people", "--public-key", path + ".pub", "--principal", "deploy"}
	}
	refuses := func(path, want string) {
		t.Helper()
		if code, _, errs := w.try(sign(path)...); code == 0 || !strings.Contains(errs, want) {
			t.Errorf("exit %d, %s, and not %q", code, errs, want)
		}
	}
	stolen, expires, retired := file("stolen"), file("expires"), file("retired")
	w.ok("scan", "--wait")
	var before, others certificateJSON
	w.json(&before, sign(stolen)...)
	w.json(&others, sign(retired)...)

	var k keyJSON
	w.json(&k, "key", "show", before.Fingerprint)
	w.ok("rotate", k.UUID, "--compromised", "--yes", "--wait")
	refuses(stolen, "is compromised: it does not sign, and is not certified")
	var now certificateJSON
	w.json(&now, "cert", "show", before.Serial)
	if now.Certificate != "" || !strings.Contains(now.Revoked, "its key is compromised") {
		t.Errorf("the certificate of a key that is compromised: %+v", now)
	}
	now = certificateJSON{}
	w.json(&now, "cert", "show", others.Serial)
	if now.Certificate == "" || now.Revoked != "" {
		t.Errorf("the certificate of another key: %+v", now)
	}

	w.json(&now, sign(expires)...)
	w.ok("key", "set", w.key(publicOf(t, expires)).UUID, "--expires", "2m")
	w.json(&now, sign(expires)...)
	if left := time.Until(*now.ValidBefore); left > 2*time.Minute {
		t.Errorf("valid for %v, and the key for two minutes", left)
	}

	// A key with which one only asks for certificates lies in no file of any host.
	path := filepath.Join(w.dir, "nowhere")
	w.keyFile(path, "nowhere")
	w.ok("key", "import", path)
	w.json(&now, sign(path)...)
	w.json(&k, "key", "show", now.Fingerprint)
	w.refused("keyturn key delete "+k.UUID, "rotate", k.UUID, "--compromised", "--yes")
	w.refused("keyturn key delete "+k.UUID, "retire", k.UUID)
	w.ok("key", "delete", k.UUID)
	serial := now.Serial
	now = certificateJSON{}
	w.json(&now, "cert", "show", serial)
	if now.Certificate != "" || !strings.Contains(now.Revoked, "its key was deleted") {
		t.Errorf("the certificate of a key that is deleted: %+v", now)
	}

	w.json(&k, "key", "show", others.Fingerprint)
	w.ok("retire", k.UUID, "--wait")
	refuses(retired, "is retired: it does not sign, and is not certified")
}

// publicOf reads the public half beside a private key file.
func publicOf(t *testing.T, path string) trust.PublicKey {
	t.Helper()
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := trust.ParsePublicKey(string(text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
