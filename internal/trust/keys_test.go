package trust

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// The files of testdata/corpus name keys instead of holding them: {{ed25519
// alice}} stands for "ssh-ed25519 AAAA…", {{blob ed25519 alice}} for the base64
// alone. So the tests have the private halves. Every kind and name is always the
// same key, but for RSA, which is the same within one run.

var keyName = regexp.MustCompile(`\{\{(blob )?([a-z0-9-]+) ([a-z0-9-]+)\}\}`)

var rsaKeys sync.Map // name -> *rsa.PrivateKey

// testSigner returns the private half of a kind of key that has one here.
func testSigner(t testing.TB, kind, name string) ssh.Signer {
	t.Helper()
	seed := sha512.Sum512([]byte(kind + " " + name))
	var private any
	var err error
	switch kind {
	case "ed25519":
		private = ed25519.NewKeyFromSeed(seed[:32])
	case "ecdsa256":
		private, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), seed[:32])
	case "ecdsa384":
		private, err = ecdsa.ParseRawPrivateKey(elliptic.P384(), seed[:48])
	case "ecdsa521":
		private, err = ecdsa.ParseRawPrivateKey(elliptic.P521(), append([]byte{0, 0}, seed[:]...))
	case "rsa":
		made, loaded := rsaKeys.Load(name)
		if !loaded {
			k, err := rsa.GenerateKey(rand.Reader, 2048)
			if err != nil {
				t.Fatal(err)
			}
			made, _ = rsaKeys.LoadOrStore(name, k)
		}
		private = made
	default:
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// testKey returns the public half of a kind of key.
func testKey(t testing.TB, kind, name string) PublicKey {
	t.Helper()
	if signer := testSigner(t, kind, name); signer != nil {
		return PublicKeyOf(signer.PublicKey())
	}
	noise := func(n int) []byte {
		var b []byte
		for i := 0; len(b) < n; i++ {
			sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %d", kind, name, i))
			b = append(b, sum[:]...)
		}
		return b[:n]
	}
	modulus := func(bits int) string {
		b := noise(bits / 8)
		b[0] |= 0x80
		b[len(b)-1] |= 1
		return "\x00" + string(b)
	}
	var blob []byte
	add := func(parts ...string) {
		for _, p := range parts {
			blob = binary.BigEndian.AppendUint32(blob, uint32(len(p)))
			blob = append(blob, p...)
		}
	}
	switch kind {
	case "rsa16384":
		add("ssh-rsa", "\x01\x00\x01", modulus(16384))
	case "rsa768":
		add("ssh-rsa", "\x01\x00\x01", modulus(768))
	case "dsa":
		add("ssh-dss", modulus(1024), modulus(160), string(noise(127)), string(noise(126)))
	case "sk-ed25519":
		add("sk-ssh-ed25519@openssh.com", string(ed25519.NewKeyFromSeed(noise(32)).Public().(ed25519.PublicKey)), "ssh:")
	case "sk-ecdsa":
		w := wire(testKey(t, "ecdsa256", name).blob)
		w.next()
		w.next()
		point, _ := w.next()
		add("sk-ecdsa-sha2-nistp256@openssh.com", "nistp256", string(point), "ssh:")
	case "mldsa":
		add("ssh-mldsa44-ed25519@openssh.com", string(noise(1312+32)))
	case "mldsa-new":
		add("ssh-mldsa44-ed25519", string(noise(1312+32)))
	case "short":
		add("ssh-ed25519", string(noise(31)))
	case "trailing":
		add("ssh-ed25519", string(noise(32)), "more")
	case "offcurve":
		add("ecdsa-sha2-nistp256", "nistp256", "\x04"+string(noise(64)))
	case "cert":
		// A certificate for alice's key by the CA "staff".
		ca := testSigner(t, "ed25519", "staff-ca")
		alice, err := testKey(t, "ed25519", name).SSH()
		if err != nil {
			t.Fatal(err)
		}
		cert := &ssh.Certificate{Nonce: noise(32), Key: alice, CertType: ssh.UserCert, KeyId: name, ValidPrincipals: []string{name}, ValidBefore: ssh.CertTimeInfinity}
		if err := cert.SignCert(bytes.NewReader(noise(1000)), ca); err != nil {
			t.Fatal(err)
		}
		blob = cert.Marshal()
	default:
		t.Fatalf("no keys of kind %q", kind)
	}
	return PublicKey{string(blob)}
}

// A namedKey is a key that a file of the corpus names.
type namedKey struct{ kind, name string }

// corpus reads a file of the corpus and returns its text with keys in the place
// of their names, and those names.
func corpus(t testing.TB, path string) (text []byte, named []namedKey) {
	t.Helper()
	template, err := os.ReadFile(filepath.Join("testdata/corpus", path))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[namedKey]bool{}
	text = keyName.ReplaceAllFunc(template, func(match []byte) []byte {
		m := keyName.FindSubmatch(match)
		k := namedKey{string(m[2]), string(m[3])}
		if !seen[k] {
			seen[k] = true
			named = append(named, k)
		}
		key := testKey(t, k.kind, k.name)
		if len(m[1]) > 0 {
			return []byte(base64.StdEncoding.EncodeToString(key.Blob()))
		}
		return []byte(key.String())
	})
	if bytes.Contains(text, []byte("{{")) {
		t.Fatalf("%s: a key name was not understood", path)
	}
	return text, named
}

// corpusFiles returns the names of the files in a folder of the corpus.
func corpusFiles(t testing.TB, folder string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join("testdata/corpus", folder))
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			paths = append(paths, filepath.Join(folder, e.Name()))
		}
	}
	return paths
}

// within polls until ok, for at most half a minute: the machine may be busy.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func mustAddr(t testing.TB, s string) netip.Addr {
	t.Helper()
	a, err := netip.ParseAddr(s)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
