package trust

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
)

// a certificate for one kind of key, with all that there can be in it
func testCertificate(t testing.TB, kind string) Certificate {
	return Certificate{
		Nonce: strings.Repeat("n", 32), Key: testKey(t, kind, "alice"), Serial: 1<<63 - 5, Type: UserCertificate, KeyID: "alice's laptop",
		Principals: []string{"deploy", "alice"}, ValidAfter: time.Unix(1_700_000_000, 0).UTC(), ValidBefore: time.Unix(4_000_000_000, 0).UTC(),
		CriticalOptions: []CertificateOption{TextOption("force-command", "/bin/true"), TextOption("source-address", "192.0.2.0/24"), {Name: "verify-required"}},
		Extensions:      []CertificateOption{{Name: "permit-pty"}, TextOption("who@example.org", "alice")},
		CA:              testKey(t, "ed25519", "staff-ca"),
	}
}

// signed returns c signed by the CA "staff-ca".
func signed(t testing.TB, c Certificate) PublicKey {
	t.Helper()
	unsigned, err := c.Unsigned()
	if err != nil {
		t.Fatal(err)
	}
	signature, err := testSigner(t, "ed25519", "staff-ca").Sign(nil, unsigned)
	if err != nil {
		t.Fatal(err)
	}
	return SignedCertificate(unsigned, signature)
}

var certifiableKinds = []string{"ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa", "sk-ed25519", "sk-ecdsa"}

// ssh-keygen prints of each certificate what is in it and finds its signature right,
// and x/crypto/ssh does; what we read of it is what was written.
func TestCertificate(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	for _, kind := range certifiableKinds {
		for _, as := range []CertificateType{UserCertificate, HostCertificate} {
			c := testCertificate(t, kind)
			c.Type = as
			if as == HostCertificate {
				c.CriticalOptions, c.Extensions, c.ValidBefore = nil, nil, time.Time{}
			}
			key := signed(t, c)
			read, err := ParseCertificate(key.Blob())
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			c.Signature = read.Signature
			if fmt.Sprint(read) != fmt.Sprint(c) || read.Signature == "" {
				t.Errorf("%s: read\n%v\nof\n%v", kind, read, c)
			}
			if key.Plain() != c.Key || !key.IsCertificate() {
				t.Errorf("%s: the certificate is for %s", kind, key.Plain())
			}
			parsed, err := key.SSH()
			if err != nil {
				t.Fatalf("%s: %v", kind, err)
			}
			checker := ssh.CertChecker{
				SupportedCriticalOptions: []string{"force-command", "source-address", "verify-required"},
				Clock:                    func() time.Time { return time.Unix(1_800_000_000, 0) },
			}
			if err := checker.CheckCert("alice", parsed.(*ssh.Certificate)); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			path := filepath.Join(t.TempDir(), "cert.pub")
			if err := os.WriteFile(path, []byte(key.String()+"\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(keygen, "-L", "-f", path)
			cmd.Env = append(os.Environ(), "TZ=UTC")
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%s: %v: %s", kind, err, out)
			}
			said := strings.Join(strings.Fields(string(out)), " ")
			want := []string{as.String() + " certificate", string(c.Key.Fingerprint()), string(c.CA.Fingerprint()), `Key ID: "alice's laptop"`, "Serial: 9223372036854775803", "Principals: deploy alice "}
			if as == UserCertificate {
				want = append(want, "Valid: from 2023-11-14T22:13:20 to 2096-10-02T07:06:40", "force-command /bin/true", "source-address 192.0.2.0/24", "verify-required", "permit-pty", "who@example.org")
			} else {
				want = append(want, "Valid: after 2023-11-14T22:13:20")
			}
			for _, w := range want {
				if !strings.Contains(said, w) {
					t.Errorf("%s: ssh-keygen says\n%s\nwithout %q", kind, out, w)
				}
			}
		}
	}
}

// Certificates of ssh-keygen are read, and are put together again to the byte.
func TestCertificateOfSSHKeygen(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	dir := t.TempDir()
	run := func(args ...string) {
		t.Helper()
		cmd := exec.Command(keygen, args...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen %q: %v: %s", args, err, out)
		}
	}
	run("-q", "-t", "ecdsa", "-N", "", "-f", "ca")
	for _, kind := range []string{"ed25519", "ecdsa", "rsa"} {
		run("-q", "-t", kind, "-N", "", "-f", kind)
		run("-q", "-s", "ca", "-I", "bob", "-n", "root,web", "-z", "42", "-V", "20250101Z:20260101Z", "-O", "clear", "-O", "permit-pty",
			"-O", "force-command=id", "-O", "extension:x@example.org=y", kind+".pub")
		text, err := os.ReadFile(filepath.Join(dir, kind+"-cert.pub"))
		if err != nil {
			t.Fatal(err)
		}
		key, _, err := ParsePublicKey(string(text))
		if err != nil {
			t.Fatal(err)
		}
		c, err := ParseCertificate(key.Blob())
		if err != nil {
			t.Fatal(err)
		}
		if c.Serial != 42 || c.Type != UserCertificate || c.KeyID != "bob" || fmt.Sprint(c.Principals) != "[root web]" ||
			!c.ValidAfter.Equal(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)) || !c.ValidBefore.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: read %v", kind, c)
		}
		if v, ok := c.CriticalOptions[0].Text(); !ok || v != "id" || len(c.Extensions) != 2 {
			t.Errorf("%s: read options %q and %q", kind, c.CriticalOptions, c.Extensions)
		}
		unsigned, err := c.Unsigned()
		if err != nil || !bytes.Equal(appendString(unsigned, c.Signature), key.Blob()) {
			t.Errorf("%s: not the same bytes again: %v", kind, err)
		}
	}
}

// There are no certificates for certificates, nor for keys of which OpenSSH knows none.
func TestNotCertifiable(t *testing.T) {
	for _, kind := range []string{"cert", "dsa", "mldsa", "short", "trailing", "offcurve"} {
		if _, err := (Certificate{Key: testKey(t, kind, "alice")}).Unsigned(); KindOf(err) != Invalid {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// Whatever is read is put together again to the byte.
func FuzzCertificate(f *testing.F) {
	for _, kind := range []string{"ed25519", "ecdsa256", "rsa16384", "sk-ed25519", "sk-ecdsa"} {
		f.Add(signed(f, testCertificate(f, kind)).Blob())
	}
	f.Fuzz(func(t *testing.T, blob []byte) {
		c, err := ParseCertificate(blob)
		if err != nil {
			return
		}
		out, err := c.Unsigned()
		if err != nil {
			t.Fatalf("read and not written: %v", err)
		}
		if c.Signature != "" {
			out = appendString(out, c.Signature)
		}
		if !bytes.Equal(out, blob) {
			t.Fatalf("%x\nis written as\n%x", blob, out)
		}
	})
}
