package trust

import (
	"bytes"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
)

// TestRecognizesWhatSSHKeygenWrites has ssh-keygen write keys of each type in
// each format, and compares the public halves with its own.
func TestRecognizesWhatSSHKeygenWrites(t *testing.T) {
	t.Parallel()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	dir := t.TempDir()
	for _, test := range []struct {
		args       string
		format     PrivateFormat
		knowsLater bool // the public half is readable although encrypted
	}{
		{"-t ed25519", FormatOpenSSH, true},
		{"-t rsa -b 2048", FormatOpenSSH, true},
		{"-t ecdsa -b 384", FormatOpenSSH, true},
		{"-t rsa -b 2048 -m PEM", FormatPKCS1, false},
		{"-t ecdsa -b 256 -m PEM", FormatSEC1, false},
		{"-t ecdsa -b 521 -m PKCS8", FormatPKCS8, false},
		{"-t rsa -b 2048 -m PKCS8", FormatPKCS8, false},
		{"-t dsa", FormatOpenSSH, true},
		{"-t dsa -m PEM", FormatDSA, false},
	} {
		for _, passphrase := range []string{"", "correct horse"} {
			name := test.args + map[bool]string{true: " encrypted"}[passphrase != ""]
			path := filepath.Join(dir, strings.ReplaceAll(name, " ", "_"))
			args := append(strings.Fields(test.args), "-q", "-C", "the comment", "-N", passphrase, "-f", path)
			if out, err := exec.Command(keygen, args...).CombinedOutput(); err != nil {
				if strings.Contains(test.args, "dsa") && !strings.Contains(test.args, "ecdsa") {
					continue // OpenSSH 10.0 and later has no DSA
				}
				t.Fatalf("%s: %v: %s", name, err, out)
			}
			data, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			public, err := os.ReadFile(path + ".pub")
			if err != nil {
				t.Fatal(err)
			}
			want := mustKey(t, string(public))
			f, ok := RecognizePrivateKey(data)
			if !ok || f.Format != test.format || f.Encrypted != (passphrase != "") || f.Problem != "" {
				t.Errorf("%s: got %+v, %t", name, f, ok)
			}
			if passphrase != "" && !test.knowsLater {
				want = PublicKey{}
			}
			if f.Public != want {
				t.Errorf("%s: public half is %s, want %s", name, f.Public, want)
			}
			if passphrase == "" && test.format == FormatOpenSSH && f.Comment != "the comment" {
				t.Errorf("%s: comment %q", name, f.Comment)
			}
			if _, ok := RecognizePrivateKey(public); ok {
				t.Errorf("%s: the public key is taken for a private one", name)
			}
		}
	}
}

// TestRecognizesWhatDropbearWrites does the same for dropbearkey.
func TestRecognizesWhatDropbearWrites(t *testing.T) {
	t.Parallel()
	dropbearkey := need.Program(t, "dropbearkey", "dropbear-bin")
	for _, kind := range []string{"rsa", "ecdsa", "ed25519"} {
		path := filepath.Join(t.TempDir(), kind)
		out, err := exec.Command(dropbearkey, "-t", kind, "-f", path).Output()
		if err != nil {
			t.Fatal(err)
		}
		want := PublicKey{}
		for line := range strings.Lines(string(out)) {
			if key, _, err := ParsePublicKey(line); err == nil {
				want = key
			}
		}
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if f, ok := RecognizePrivateKey(data); !ok || f.Format != FormatDropbear || f.Encrypted || f.Public != want || want.IsZero() {
			t.Errorf("%s: got %+v, want %s", kind, f, want)
		}
	}
}

// ppk returns a PuTTY file for a key, with a private part that means nothing.
func ppk(version int, key PublicKey, encryption, end string) string {
	encoded := base64.StdEncoding.EncodeToString(key.Blob())
	var public []string
	for len(encoded) > 64 {
		public, encoded = append(public, encoded[:64]), encoded[64:]
	}
	public = append(public, encoded)
	lines := []string{fmt.Sprintf("PuTTY-User-Key-File-%d: %s", version, key.Type()), "Encryption: " + encryption, "Comment: imported-openssh-key", fmt.Sprintf("Public-Lines: %d", len(public))}
	lines = append(lines, public...)
	if encryption != "none" && version == 3 {
		lines = append(lines, "Key-Derivation: Argon2id", "Argon2-Memory: 8192", "Argon2-Passes: 21", "Argon2-Parallelism: 1", "Argon2-Salt: 00112233445566778899aabbccddeeff")
	}
	lines = append(lines, "Private-Lines: 1", "AAAAIP8PZ1mVZ2oB", "Private-MAC: 0011223344556677889900112233445566778899", "")
	return strings.Join(lines, end)
}

func TestRecognizesOtherFormats(t *testing.T) {
	key, rsa := testKey(t, "ed25519", "p"), testKey(t, "rsa", "p")
	private := ed25519.NewKeyFromSeed(make([]byte, 32))
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		data string
		want PrivateFile
	}{
		"ppk2":               {ppk(2, key, "none", "\n"), PrivateFile{Format: FormatPPK2, Public: key, Comment: "imported-openssh-key"}},
		"ppk2 encrypted":     {ppk(2, rsa, "aes256-cbc", "\r\n"), PrivateFile{Format: FormatPPK2, Public: rsa, Comment: "imported-openssh-key", Encrypted: true}},
		"ppk3":               {ppk(3, rsa, "none", "\r\n"), PrivateFile{Format: FormatPPK3, Public: rsa, Comment: "imported-openssh-key"}},
		"ppk3 encrypted":     {ppk(3, key, "aes256-cbc", "\r"), PrivateFile{Format: FormatPPK3, Public: key, Comment: "imported-openssh-key", Encrypted: true}},
		"ppk damaged":        {"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\nPublic-Lines: 99\nAAAA\n", PrivateFile{Format: FormatPPK3, Problem: "the file is damaged"}},
		"pkcs8 ed25519":      {string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), PrivateFile{Format: FormatPKCS8, Public: PublicKeyOf(public)}},
		"pkcs8 encrypted":    {"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n", PrivateFile{Format: FormatPKCS8, Encrypted: true}},
		"pkcs1 damaged":      {"-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----\n", PrivateFile{Format: FormatPKCS1, Problem: "the file is damaged, or of a kind of key that SSH does not use"}},
		"openssh damaged":    {"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", PrivateFile{Format: FormatOpenSSH, Problem: "the file is damaged"}},
		"ssh.com":            {"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n", PrivateFile{Format: FormatSSHCom, Encrypted: true}},
		"protocol 1":         {"SSH PRIVATE KEY FILE FORMAT 1.1\n\x00\x00\x00\x00", PrivateFile{Format: FormatSSH1}},
		"protocol 1, cipher": {"SSH PRIVATE KEY FILE FORMAT 1.1\n\x00\x03\x00\x00", PrivateFile{Format: FormatSSH1, Encrypted: true}},
	} {
		if got, ok := RecognizePrivateKey([]byte(test.data)); !ok || got != test.want {
			t.Errorf("%s: got %+v, %t, want %+v", name, got, ok, test.want)
		}
	}
	for name, data := range map[string]string{
		"nothing":       "",
		"text":          "hello\n",
		"public key":    key.String() + "\n",
		"public blob":   string(rsa.Blob()),
		"certificate":   "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
		"known_hosts":   "host " + key.String() + "\n",
		"too large":     "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("A", MaxPrivateFile),
		"unknown PuTTY": "PuTTY-User-Key-File-9: ssh-ed25519\n",
	} {
		if got, ok := RecognizePrivateKey([]byte(data)); ok {
			t.Errorf("%s: taken for a private key: %+v", name, got)
		}
	}
	if f := (PrivateFile{Public: testKey(t, "sk-ed25519", "p")}); !f.NeedsToken() {
		t.Error("a security key does not need its token")
	}
}

// What is returned must neither show nor share private bytes.
func TestRecognizedHoldsNothingPrivate(t *testing.T) {
	seed := bytes.Repeat([]byte("secret! "), 4)
	block, err := ssh.MarshalPrivateKey(ed25519.NewKeyFromSeed(seed), "c")
	if err != nil {
		t.Fatal(err)
	}
	data := pem.EncodeToMemory(block)
	f, ok := RecognizePrivateKey(data)
	if !ok || f.Comment != "c" {
		t.Fatalf("got %+v", f)
	}
	before, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	clear(data)
	after, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if text := fmt.Sprintf("%+v %q %s", f, f.Public.blob, after); strings.Contains(text, "secret!") || !bytes.Equal(before, after) {
		t.Errorf("it shows or shares private bytes: %s", text)
	}
}

func FuzzPrivateKey(f *testing.F) {
	key := testKey(f, "ed25519", "fuzz")
	block, err := ssh.MarshalPrivateKey(ed25519.NewKeyFromSeed(make([]byte, 32)), "comment")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(block))
	locked, err := ssh.MarshalPrivateKeyWithPassphrase(ed25519.NewKeyFromSeed(make([]byte, 32)), "comment", []byte("x"))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(locked))
	f.Add([]byte(ppk(2, key, "none", "\n")))
	f.Add([]byte(ppk(3, key, "aes256-cbc", "\r\n")))
	f.Add([]byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"))
	f.Add([]byte("SSH PRIVATE KEY FILE FORMAT 1.1\n\x00\x03\x00\x00"))
	f.Add(append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x40"), make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, ok := RecognizePrivateKey(data)
		if !ok {
			if p != (PrivateFile{}) {
				t.Fatalf("not recognized, and yet %+v", p)
			}
			return
		}
		if p.Format == "" || p.Public.IsZero() && !p.Encrypted && p.Problem == "" && p.Format != FormatSSH1 {
			t.Fatalf("recognized without a format or a reason: %+v", p)
		}
		if !p.Public.IsZero() {
			if again, _, err := ParsePublicKey(p.Public.String()); err != nil || again != p.Public {
				t.Fatalf("public half %q is not one: %v", p.Public.String(), err)
			}
		}
	})
}
