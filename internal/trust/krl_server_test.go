package trust

import (
	"crypto/sha1"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// TestSSHDAndCertificates has sshd trust a CA and read a key revocation list, both as
// they are written here, and logs in with certificates that are right and with ones
// that are not: in one way each.
func TestSSHDAndCertificates(t *testing.T) { eachSSHD(t, sshdAndCertificates) }

func sshdAndCertificates(t *testing.T, p sshdProgram) {
	dir := t.TempDir()
	write := func(name string, text []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	revoke := func(k KRL) {
		t.Helper()
		text, err := k.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		write("revoked", text)
	}
	cas := []string{"ecdsa256", "ed25519", "rsa"}
	var trusted string
	for _, kind := range cas {
		trusted += testKey(t, kind, "people-ca").String() + " open-ssh-ca@example.org\n"
	}
	write("cas", []byte(trusted))
	revoke(KRL{})
	server := p.startWith(t, dir, fmt.Sprintf("TrustedUserCAKeys %s\nRevokedKeys %s\n", filepath.Join(dir, "cas"), filepath.Join(dir, "revoked")), "authorized_keys")

	now := time.Now()
	certificate := func(kind, ca string) Certificate {
		return Certificate{
			Nonce: "nonce", Key: testKey(t, kind, "alice"), Serial: 1<<62 + 77, Type: UserCertificate, KeyID: "alice",
			Principals: []string{"nobody-else", server.user}, ValidAfter: now.Add(-time.Minute), ValidBefore: now.Add(time.Hour),
			Extensions: []CertificateOption{{Name: "permit-pty"}}, CA: testKey(t, ca, "people-ca"),
		}
	}
	login := func(c Certificate, kind, ca, signer string) bool {
		t.Helper()
		unsigned, err := c.Unsigned()
		if err != nil {
			t.Fatal(err)
		}
		var signature *ssh.Signature
		key := testSigner(t, ca, signer)
		if rsa, ok := key.(ssh.AlgorithmSigner); ok && ca == "rsa" {
			signature, err = rsa.SignWithAlgorithm(nil, unsigned, ssh.KeyAlgoRSASHA512)
		} else {
			signature, err = key.Sign(nil, unsigned)
		}
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := SignedCertificate(unsigned, signature).SSH()
		if err != nil {
			t.Fatal(err)
		}
		with, err := ssh.NewCertSigner(parsed.(*ssh.Certificate), testSigner(t, kind, "alice"))
		if err != nil {
			t.Fatal(err)
		}
		return server.login(t, "127.0.0.1", with)
	}

	for _, ca := range cas {
		for _, kind := range []string{"ed25519", "ecdsa256", "ecdsa384", "ecdsa521", "rsa"} {
			if !login(certificate(kind, ca), kind, ca, "people-ca") {
				t.Errorf("%s: a certificate for a key of %s by a CA of %s is refused", p.version, kind, ca)
			}
		}
	}
	in := func(c Certificate) bool { t.Helper(); return login(c, "ed25519", "ecdsa256", "people-ca") }
	for name, change := range map[string]func(*Certificate){
		"expired":           func(c *Certificate) { c.ValidBefore = now.Add(-time.Second) },
		"not yet valid":     func(c *Certificate) { c.ValidAfter = now.Add(10 * time.Minute) },
		"another principal": func(c *Certificate) { c.Principals = []string{"nobody-else"} },
		"wrong address": func(c *Certificate) {
			c.CriticalOptions = []CertificateOption{TextOption("source-address", "192.0.2.0/24")}
		},
		"unknown limit":          func(c *Certificate) { c.CriticalOptions = []CertificateOption{TextOption("x@example.org", "")} },
		"a host's":               func(c *Certificate) { c.Type = HostCertificate; c.Extensions = nil },
		"another CA in its name": func(c *Certificate) { c.CA = testKey(t, "ed25519", "staff-ca") },
	} {
		c := certificate("ed25519", "ecdsa256")
		change(&c)
		if in(c) {
			t.Errorf("%s: a certificate that is wrong (%s) opens", p.version, name)
		}
	}
	if login(certificate("ed25519", "ecdsa256"), "ed25519", "ecdsa256", "thief") {
		t.Errorf("%s: a certificate that another key signed opens", p.version)
	}
	everybody := certificate("ed25519", "ecdsa256")
	everybody.Principals = nil
	if login(everybody, "ed25519", "ecdsa256", "people-ca") {
		t.Errorf("%s: a certificate for no principals opens by TrustedUserCAKeys", p.version)
	}
	right := certificate("ed25519", "ecdsa256")
	right.CriticalOptions = []CertificateOption{TextOption("source-address", "192.0.2.0/24,127.0.0.0/8")}
	if !in(right) {
		t.Errorf("%s: a certificate from the right address is refused", p.version)
	}

	// Each kind of section, of this CA and of every CA; and the same of another
	// certificate, which revokes nothing of ours.
	n := right.Serial
	ranges := func(from ...uint64) (list []SerialRange) {
		for _, f := range from {
			list = append(list, SerialRange{f, f})
		}
		return list
	}
	var bits, apart []SerialRange
	for i := range uint64(300) {
		bits, apart = append(bits, SerialRange{n + 2*i, n + 2*i}), append(apart, SerialRange{n + 1 + 2*i, n + 1 + 2*i})
	}
	hash := func(key PublicKey) KRL {
		return KRL{SHA256: [][sha256.Size]byte{sha256.Sum256(key.Blob())}}
	}
	thumb := func(key PublicKey) KRL {
		return KRL{SHA1: [][sha1.Size]byte{sha1.Sum(key.Blob())}}
	}
	other := testKey(t, "ed25519", "other")
	of := func(c RevokedCertificates) KRL { return KRL{Certificates: []RevokedCertificates{c}} }
	for _, test := range []struct {
		name     string
		revoked  KRL
		harmless KRL
	}{
		{"serial list", of(RevokedCertificates{CA: right.CA, Serials: ranges(5, n, n+1e9)}), of(RevokedCertificates{CA: right.CA, Serials: ranges(5, n+1, n+1e9)})},
		{"serial range", of(RevokedCertificates{CA: right.CA, Serials: []SerialRange{{n - 1e6, n + 1e6}}}), of(RevokedCertificates{CA: right.CA, Serials: []SerialRange{{n + 1, n + 1e6}}})},
		{"serial bitmap", of(RevokedCertificates{CA: right.CA, Serials: bits}), of(RevokedCertificates{CA: right.CA, Serials: apart})},
		{"key id", of(RevokedCertificates{CA: right.CA, KeyIDs: []string{"a", "alice"}}), of(RevokedCertificates{CA: right.CA, KeyIDs: []string{"alice2", "alic"}})},
		{"serial of every CA", of(RevokedCertificates{Serials: ranges(n)}), of(RevokedCertificates{Serials: ranges(n + 1)})},
		{"key id of every CA", of(RevokedCertificates{KeyIDs: []string{"alice"}}), of(RevokedCertificates{CA: other, KeyIDs: []string{"alice"}, Serials: ranges(n)})},
		{"key", KRL{Keys: []PublicKey{right.Key}}, KRL{Keys: []PublicKey{other}}},
		{"CA", KRL{Keys: []PublicKey{right.CA}}, KRL{Keys: []PublicKey{testKey(t, "ed25519", "people-ca")}}},
		{"SHA-1 of the key", thumb(right.Key), thumb(other)},
		{"SHA-256 of the key", hash(right.Key), hash(other)},
		{"SHA-256 of the CA", hash(right.CA), hash(other)},
	} {
		revoke(test.revoked)
		if in(right) {
			t.Errorf("%s: a certificate that is revoked by %s opens", p.version, test.name)
		}
		revoke(test.harmless)
		if !in(right) {
			t.Errorf("%s: a certificate is refused by %s of another", p.version, test.name)
		}
	}
	write("revoked", []byte("SSHKRL"))
	if in(right) {
		t.Errorf("%s: a list that cannot be read lets in", p.version)
	}
}
