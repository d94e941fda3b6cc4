package keyring

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// sshKeygen runs ssh-keygen, the oracle of this file, and returns its output.
func sshKeygen(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(need.Program(t, "ssh-keygen", "openssh-client"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("ssh-keygen %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// specs are all types, RSA in the sizes that the tests can afford.
var specs = []Spec{{Type: "ed25519"}, {Type: "ecdsa-p256"}, {Type: "ecdsa-p384"}, {Type: "ecdsa-p521"}, {Type: "rsa", Bits: 2048}}

// What we write, OpenSSH reads as the same key with the same comment, and so do
// we.
func TestWrittenKeysAreReadByOpenSSH(t *testing.T) {
	for _, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			t.Fatal(err)
		}
		p.Comment = "alice@web1 rotated"
		for _, format := range Formats {
			t.Run(fmt.Sprintf("%s %s", spec.Type, format), func(t *testing.T) {
				text, err := p.text(format)
				if err != nil {
					t.Fatal(err)
				}
				again, err := Parse(text, []byte("a passphrase that is not needed"))
				if err != nil {
					t.Fatal(err)
				}
				if again.Public() != p.Public() {
					t.Errorf("reads back as %s, was %s", again, p)
				}
				wantFormat, wantComment := format, ""
				if format == OpenSSH || format == PEM && spec.Type == "ed25519" {
					wantFormat, wantComment = OpenSSH, p.Comment
				}
				if again.Container() != wantFormat || again.Comment != wantComment {
					t.Errorf("reads back in %q with comment %q, want %q and %q", again.Container(), again.Comment, wantFormat, wantComment)
				}
				if format == PKCS8 && spec.Type == "ed25519" {
					return // ssh-keygen reads it only since 9.6
				}
				path := writeFile(t, "id", text)
				line := sshKeygen(t, "-y", "-f", path)
				public, comment, err := trust.ParsePublicKey(line)
				if err != nil || public != p.Public() || comment != wantComment {
					t.Errorf("ssh-keygen -y says %q, want %q with comment %q", line, p.Public(), wantComment)
				}
				if l := sshKeygen(t, "-l", "-f", path); !strings.HasPrefix(l, fmt.Sprintf("%d %s ", p.Public().Bits(), p.Public().Fingerprint())) {
					t.Errorf("ssh-keygen -l says %q, want %d %s", l, p.Public().Bits(), p.Public().Fingerprint())
				}
			})
		}
	}
}

// What OpenSSH writes, in each container, encrypted and not, we read as the key
// that ssh-keygen says it is.
func TestParseReadsWhatOpenSSHWrites(t *testing.T) {
	need.Long(t)
	types := [][]string{{"-t", "ed25519"}, {"-t", "ecdsa", "-b", "256"}, {"-t", "ecdsa", "-b", "384"}, {"-t", "ecdsa", "-b", "521"}, {"-t", "rsa", "-b", "2048"}}
	containers := map[Format]string{OpenSSH: "RFC4716", PEM: "PEM", PKCS8: "PKCS8"}
	for _, kind := range types {
		for format, m := range containers {
			if kind[1] == "ed25519" && format != OpenSSH {
				continue // ssh-keygen writes its own container whatever -m says
			}
			for _, passphrase := range []string{"", "correct horse"} {
				name := fmt.Sprintf("%s %s passphrase=%t", strings.Join(kind[1:], ""), format, passphrase != "")
				t.Run(name, func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "id")
					sshKeygen(t, append([]string{"-q", "-a", "1", "-f", path, "-m", m, "-N", passphrase, "-C", "bob's laptop"}, kind...)...)
					file, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					pub, err := os.ReadFile(path + ".pub")
					if err != nil {
						t.Fatal(err)
					}
					want, _, err := trust.ParsePublicKey(string(pub))
					if err != nil {
						t.Fatal(err)
					}
					p, err := Parse(file, []byte(passphrase))
					if err != nil {
						t.Fatal(err)
					}
					if p.Public() != want || p.Container() != format {
						t.Errorf("read %s in %q, want %s in %q", p.Public().Fingerprint(), p.Container(), want.Fingerprint(), format)
					}
					if wantComment := map[bool]string{true: "bob's laptop"}[format == OpenSSH]; p.Comment != wantComment {
						t.Errorf("comment %q, want %q", p.Comment, wantComment)
					}
					if passphrase == "" {
						return
					}
					refusesOtherPassphrases(t, file, passphrase)
				})
			}
		}
	}
}

// refusesOtherPassphrases has a file tell apart that it needs a passphrase and that
// it needs another one.
func refusesOtherPassphrases(t *testing.T, file []byte, passphrase string) {
	t.Helper()
	for other, want := range map[string]error{"": ErrPassphraseMissing, passphrase + " ": ErrPassphraseWrong, "x": ErrPassphraseWrong} {
		if p, err := Parse(file, []byte(other)); !errors.Is(err, want) || trust.KindOf(err) != trust.Invalid {
			t.Errorf("passphrase %q: %v, %v, want %q of kind invalid", other, p, err, want)
		}
	}
}

// ssh-keygen encrypts with whatever cipher it is told.
func TestParseReadsEveryCipher(t *testing.T) {
	need.Long(t)
	for name := range openSSHCiphers {
		path := filepath.Join(t.TempDir(), "id")
		sshKeygen(t, "-q", "-t", "ed25519", "-a", "2", "-Z", name, "-f", path, "-N", "secret", "-C", "of "+name)
		file, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(file, []byte("secret"))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if want := sshKeygen(t, "-y", "-P", "secret", "-f", path); p.Public().String()+" "+p.Comment != want || p.Comment != "of "+name {
			t.Errorf("%s: read %s %s, want %s", name, p.Public(), p.Comment, want)
		}
		refusesOtherPassphrases(t, file, "secret")
	}
	path := filepath.Join(t.TempDir(), "id")
	sshKeygen(t, "-q", "-t", "ed25519", "-a", "1", "-Z", "chacha20-poly1305@openssh.com", "-f", path, "-N", "secret")
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Parse(file, []byte("secret")); trust.KindOf(err) != trust.Invalid || !strings.Contains(err.Error(), "chacha20-poly1305@openssh.com") {
		t.Errorf("chacha20-poly1305: %v, want it refused by name", err)
	}
}

// What we encrypt, ssh-keygen opens, with the same comment, and with no other
// passphrase; and so do we.
func TestEncryptedKeysAreReadByOpenSSH(t *testing.T) {
	need.Long(t)
	for i, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			t.Fatal(err)
		}
		// Of several lengths, so that there is padding of several lengths.
		for _, comment := range []string{"", "alice@web1" + "         "[:2*i] + "x"} {
			p.Comment = comment
			text := encrypted(t, p, "correct horse", 2)
			path := writeFile(t, "id", text)
			line := sshKeygen(t, "-y", "-P", "correct horse", "-f", path)
			if want := strings.TrimSpace(p.Public().String() + " " + comment); line != want {
				t.Errorf("ssh-keygen -y says %q, want %q", line, want)
			}
			if out, err := exec.Command(need.Program(t, "ssh-keygen", "openssh-client"), "-y", "-P", "correct", "-f", path).Output(); err == nil {
				t.Errorf("ssh-keygen opens it with another passphrase: %s", out)
			}
			again, err := Parse(text, []byte("correct horse"))
			if err != nil || again.Public() != p.Public() || again.Comment != comment {
				t.Errorf("reads back as %v with comment %q (%v), was %v with %q", again, again.Comment, err, p, comment)
			}
		}
	}
	p, err := Generate(Spec{Type: "ed25519"})
	if err != nil {
		t.Fatal(err)
	}
	plain, twice, pkcs8 := writeText(t, p, OpenSSH), encrypted(t, p, "x", 0), writeText(t, p, PKCS8)
	if got := roundsOf(t, twice); got != 24 {
		t.Errorf("%d rounds unless told, want 24", got)
	}
	for name, c := range map[string]struct {
		file       []byte
		passphrase string
		rounds     int
	}{
		"no passphrase":     {plain, "", 0},
		"negative rounds":   {plain, "x", -1},
		"too many rounds":   {plain, "x", maxRounds + 1},
		"encrypted already": {twice, "x", 0},
		"another container": {pkcs8, "x", 0},
		"nothing":           {nil, "x", 0},
	} {
		if s, err := Encrypt(NewSecret(c.file), []byte(c.passphrase), c.rounds); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s: %d bytes, %v, want an error of kind invalid", name, len(s.Bytes()), err)
		}
	}
}

func writeText(t *testing.T, p Private, format Format) []byte {
	t.Helper()
	text, err := p.text(format)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func encrypted(t *testing.T, p Private, passphrase string, rounds int) []byte {
	t.Helper()
	s, err := Encrypt(NewSecret(writeText(t, p, OpenSSH)), []byte(passphrase), rounds)
	if err != nil {
		t.Fatal(err)
	}
	return s.Bytes()
}

// container returns what is in the text of OpenSSH's container.
func container(t *testing.T, text []byte) (c openSSHContainer) {
	t.Helper()
	block, _ := pem.Decode(text)
	if err := ssh.Unmarshal(block.Bytes[len(openSSHMagic):], &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func roundsOf(t *testing.T, text []byte) uint32 {
	t.Helper()
	var options bcryptOptions
	if err := ssh.Unmarshal(container(t, text).KDFOptions, &options); err != nil {
		t.Fatal(err)
	}
	return options.Rounds
}

// openssl writes PKCS#8 with other ciphers and pseudo-random functions than
// ssh-keygen does, and SEC 1 with its parameters before it.
func TestParseReadsWhatOpenSSLWrites(t *testing.T) {
	need.Long(t)
	program := need.Program(t, "openssl", "openssl")
	openssl := func(args ...string) []byte {
		out, err := exec.Command(program, args...).Output()
		if err != nil {
			t.Fatalf("openssl %q: %v", args, err)
		}
		return out
	}
	plain := openssl("ecparam", "-name", "prime256v1", "-genkey")
	p, err := Parse(plain, nil)
	if err != nil {
		t.Fatalf("SEC 1 after EC PARAMETERS: %v", err)
	}
	path := writeFile(t, "ec.pem", plain)
	for _, args := range [][]string{
		{"-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256"},
		{"-v2", "aes-192-cbc", "-v2prf", "hmacWithSHA512"},
		{"-v2", "aes-128-cbc", "-v2prf", "hmacWithSHA1"},
		{"-v2", "des3"},
		{"-scrypt"},
		{"-scrypt", "-scrypt_N", "1024", "-scrypt_r", "4", "-scrypt_p", "3"},
	} {
		file := openssl(append([]string{"pkcs8", "-topk8", "-in", path, "-passout", "pass:secret"}, args...)...)
		q, err := Parse(file, []byte("secret"))
		if err != nil || q.Public() != p.Public() {
			t.Errorf("%q: %v, %v", args, q, err)
		}
		refusesOtherPassphrases(t, file, "secret")
	}
	old := openssl("pkcs8", "-topk8", "-in", path, "-passout", "pass:secret", "-v1", "PBE-SHA1-3DES") // PKCS#12's
	if _, err := Parse(old, []byte("secret")); !refusedForGood(err) {
		t.Errorf("PBE-SHA1-3DES: %v, want an error of kind invalid and not on the passphrase", err)
	}

	// Ed25519, which ssh-keygen 9.2 does not write so, and Ed448 and DSA, which no
	// server has or should have.
	ed := writeFile(t, "ed.pem", openssl("genpkey", "-algorithm", "ed25519"))
	file, err := os.ReadFile(ed)
	if err != nil {
		t.Fatal(err)
	}
	p, err = Parse(file, nil)
	if err != nil {
		t.Fatal(err)
	}
	der, _ := pem.Decode(openssl("pkey", "-in", ed, "-pubout"))
	if raw, blob := der.Bytes, p.Public().Blob(); !bytes.Equal(raw[len(raw)-32:], blob[len(blob)-32:]) {
		t.Errorf("read %s, but openssl has %x", p, raw)
	}
	file = openssl("pkcs8", "-topk8", "-in", ed, "-passout", "pass:secret")
	if q, err := Parse(file, []byte("secret")); err != nil || q.Public() != p.Public() {
		t.Errorf("encrypted: %v, %v, want %v", q, err, p)
	}
	if _, err := Parse(openssl("genpkey", "-algorithm", "ed448"), nil); !refusedForGood(err) || !strings.Contains(err.Error(), "ssh-ed448") {
		t.Errorf("Ed448: %v, want it refused by name", err)
	}
}

// What would take long to open, or much memory, is refused before it is tried.
func TestParseBoundsPKCS8(t *testing.T) {
	for _, c := range []struct {
		oid    string
		params any
		want   string
	}{
		{oidPBKDF2, pbkdf2Params{Salt: []byte("salt"), Iterations: maxIterations + 1}, "2000001 iterations"},
		{oidPBKDF2, pbkdf2Params{Salt: []byte("salt"), Iterations: 0}, "malformed"},
		{oidPBKDF2, pbkdf2Params{Salt: []byte("salt"), Iterations: 1, KeyLength: 16}, "malformed"},
		{oidScrypt, scryptParams{Salt: []byte("salt"), N: 1 << 19, R: 8, P: 1}, "N 524288"},
		{oidScrypt, scryptParams{Salt: []byte("salt"), N: 2, R: 1 << 40, P: 1}, "N 2"},
		{oidScrypt, scryptParams{Salt: []byte("salt"), N: 1 << 62, R: 1 << 62, P: 1 << 62}, "N 4611686018427387904"},
		{oidScrypt, scryptParams{Salt: []byte("salt"), N: 1 << 14, R: 8, P: 65}, "p 65"},
		{oidScrypt, scryptParams{Salt: []byte("salt"), N: 3, R: 8, P: 1}, "malformed"},
		{oidScrypt, scryptParams{Salt: []byte("salt"), N: 1 << 14, R: 0, P: 1}, "malformed"},
	} {
		kdf := algorithm{ID: oid(c.oid), Parameters: asn1.RawValue{FullBytes: derOf(t, c.params)}}
		aes256 := algorithm{ID: oid("2.16.840.1.101.3.4.1.42"), Parameters: asn1.RawValue{FullBytes: derOf(t, make([]byte, 16))}}
		der := derOf(t, encryptedPrivateKeyInfo{
			Algorithm: algorithm{ID: oid(oidPBES2), Parameters: asn1.RawValue{FullBytes: derOf(t, pbes2Params{kdf, aes256})}},
			Data:      make([]byte, 48),
		})
		_, err := Parse(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der}), []byte("secret"))
		if !refusedForGood(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q of kind invalid", c.params, err, c.want)
		}
	}
}

func derOf(t *testing.T, value any) []byte {
	t.Helper()
	der, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func oid(dotted string) (id asn1.ObjectIdentifier) {
	for part := range strings.SplitSeq(dotted, ".") {
		n, _ := strconv.Atoi(part)
		id = append(id, n)
	}
	return id
}

// refusedForGood reports whether a file was refused and another passphrase would not
// help.
func refusedForGood(err error) bool {
	return trust.KindOf(err) == trust.Invalid && !errors.Is(err, ErrPassphraseMissing) && !errors.Is(err, ErrPassphraseWrong)
}

func TestParseRefuses(t *testing.T) {
	ed, err := Generate(Spec{Type: "ed25519"})
	if err != nil {
		t.Fatal(err)
	}
	good, err := ed.text(OpenSSH)
	if err != nil {
		t.Fatal(err)
	}
	// A container whose public half was replaced, inside and outside.
	key := ed.half().key.(ed25519.PrivateKey)
	other := ed25519.NewKeyFromSeed(make([]byte, 32))
	mixed := append(append(ed25519.PrivateKey{}, key[:32]...), other[32:]...)
	mixedBlock, err := ssh.MarshalPrivateKey(&mixed, "")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(good)
	outside := bytes.Replace(block.Bytes, []byte(key[32:]), []byte(other[32:]), 1)
	dsa, err := os.ReadFile("testdata/refused/dsa-openssh") // OpenSSH 10 makes none
	if err != nil {
		t.Fatal(err)
	}
	dsaPEM, err := os.ReadFile("testdata/refused/dsa-pem")
	if err != nil {
		t.Fatal(err)
	}

	tiny, err := os.ReadFile("testdata/refused/rsa-512") // Go makes none
	if err != nil {
		t.Fatal(err)
	}
	rfc4716, err := ed.Public().PublicFile(trust.PublicRFC4716, "alice")
	if err != nil {
		t.Fatal(err)
	}
	longer := container(t, encrypted(t, ed, "some passphrase", 1))
	longer.KDFOptions = ssh.Marshal(bcryptOptions{make([]byte, 16), maxRounds + 1})
	manyRounds := openSSHFile(longer)
	longer = container(t, good)
	longer.Tag = make([]byte, 16)

	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":                  {nil, "empty"},
		"white space":            {[]byte(" \n\n"), "empty"},
		"words":                  {[]byte("hello\n"), "no private key"},
		"public half":            {[]byte(ed.Public().String() + " alice\n"), "public half"},
		"putty of version 1":     {[]byte("PuTTY-User-Key-File-1: ssh-rsa\n"), "2 and 3 are"},
		"ssh.com":                {[]byte("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nComment: \"r\"\nP2/56wAAA+4=\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n"), "ssh.com (Tectia)"},
		"version 1 of ssh":       {[]byte("SSH PRIVATE KEY FILE FORMAT 1.1\n\x00\x00"), "version 1 of SSH"},
		"public half in rfc4716": {rfc4716, "public half"},
		"rounds":                 {manyRounds, "1001 rounds of bcrypt"},
		"after the private part": {openSSHFile(longer), "malformed"},
		"rsa of 512 bits":        {tiny, "512"},
		"cipher of long ago":     {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED", "DEK-Info": "IDEA-CBC,0011223344556677"}, Bytes: make([]byte, 64)}), "encryption"},
		"certificate only":       {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), "no private key"},
		"cut":                    {good[:len(good)/2], "no private key"},
		"too large":              {make([]byte, maxKeyFile+1), "larger"},
		"dsa":                    {dsa, `"ssh-dss" is not supported`},
		"dsa in pem":             {dsaPEM, `"DSA" is not supported`},
		"not version 1":          {pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte("openssh-key-v2\x00")}), "version 1"},
		"empty container":        {pem.EncodeToMemory(&pem.Block{Type: "OPENSSH PRIVATE KEY", Bytes: []byte(openSSHMagic)}), "malformed"},
		"public half inside":     {pem.EncodeToMemory(mixedBlock), "not that of its seed"},
		"public half outside":    {pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: outside}), "container says"},
		"rsa that is not":        {pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: []byte{0x30, 0}}), "private key"},
		"pkcs8 of nothing":       {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: nil}), "private key"},
		"encrypted pkcs8 cut":    {pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{0x30, 3, 0x30, 1, 0}}), "malformed"},
		"curve that ssh has not": {p224(t), "curve"},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := Parse(c.file, []byte("some passphrase"))
			if err == nil {
				t.Fatalf("read as %s", p)
			}
			if trust.KindOf(err) != trust.Invalid || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v (%v), want %q of kind invalid", err, trust.KindOf(err), c.want)
			}
		})
	}
}

// FuzzParse looks for panics, for keys whose halves do not belong together, and
// for errors that quote what they read.
func FuzzParse(f *testing.F) {
	for _, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			f.Fatal(err)
		}
		p.Comment = "comment"
		for _, format := range Formats {
			text, err := p.text(format)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(text, []byte(nil))
		}
	}
	names, err := filepath.Glob("testdata/encrypted/*")
	if err != nil || len(names) == 0 {
		f.Fatalf("no encrypted keys to start from: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte("passphrase"))
	}
	names, err = filepath.Glob("testdata/ppk/*")
	if err != nil || len(names) == 0 {
		f.Fatalf("no keys of PuTTY's to start from: %v", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, []byte("passphrase"))
	}
	f.Fuzz(func(t *testing.T, file, passphrase []byte) {
		p, err := Parse(file, passphrase)
		if err != nil {
			if trust.KindOf(err) != trust.Invalid {
				t.Fatalf("%v is of kind %v", err, trust.KindOf(err))
			}
			return
		}
		if checkComment(p.Comment) != nil {
			t.Fatalf("comment %q is not fit to be kept", p.Comment)
		}
		s, err := p.Signer()
		if err != nil {
			t.Fatal(err)
		}
		signature, err := s.Sign(nil, []byte("data"))
		if err != nil {
			t.Fatal(err)
		}
		public, err := p.Public().SSH()
		if err != nil {
			t.Fatal(err)
		}
		if err := public.Verify([]byte("data"), signature); err != nil {
			t.Fatalf("its signature is not by its public half: %v", err)
		}
	})
}

func TestGenerateRefuses(t *testing.T) {
	for _, spec := range []Spec{
		{},
		{Type: "dsa"},
		{Type: "ed25519", Bits: 255},
		{Type: "ecdsa-p256", Bits: 384},
		{Type: "ECDSA-P256"},
		{Type: "rsa", Bits: 1024},
		{Type: "rsa", Bits: 2047},
		{Type: "rsa", Bits: 2049},
		{Type: "rsa", Bits: 8200},
		{Type: "rsa", Bits: -1},
		{Type: "rsa", Bits: 1 << 40},
	} {
		if p, err := Generate(spec); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%+v: %v, %v, want an error of kind invalid", spec, p, err)
		}
	}
	p, err := Generate(Spec{Type: "rsa"})
	if err != nil || p.Public().Bits() != 3072 {
		t.Errorf("rsa without a size: %v, %v, want 3072 bits", p, err)
	}
	if p, err := Generate(Spec{Type: "ecdsa-p521", Bits: 521}); err != nil || p.Public().Bits() != 521 {
		t.Errorf("ecdsa-p521 with its size: %v, %v", p, err)
	}
}

// RSA signs with SHA-2 whatever it is asked for, and each type with what its
// public half verifies.
func TestSigners(t *testing.T) {
	for _, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.Signer()
		if err != nil {
			t.Fatal(err)
		}
		data := []byte("what is signed")
		for _, algorithm := range append(s.(ssh.MultiAlgorithmSigner).Algorithms(), "") {
			sig, err := s.(ssh.AlgorithmSigner).SignWithAlgorithm(nil, data, algorithm)
			if err != nil {
				t.Fatalf("%s with %q: %v", spec.Type, algorithm, err)
			}
			if err := s.PublicKey().Verify(data, sig); err != nil || sig.Format == ssh.KeyAlgoRSA {
				t.Errorf("%s with %q: signature of %q, %v", spec.Type, algorithm, sig.Format, err)
			}
		}
		sig, err := s.Sign(nil, data)
		if err != nil || s.PublicKey().Verify(data, sig) != nil || sig.Format == ssh.KeyAlgoRSA {
			t.Errorf("%s: signature %v, %v", spec.Type, sig, err)
		}
		if _, err := s.(ssh.AlgorithmSigner).SignWithAlgorithm(nil, data, "ssh-rsa"); err == nil {
			t.Errorf("%s signs with SHA-1", spec.Type)
		}
	}
}

func TestWipe(t *testing.T) {
	for _, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			t.Fatal(err)
		}
		before := rawHalves(t, p)
		p.Wipe()
		for name, raw := range before {
			if bytes.Equal(raw, make([]byte, len(raw))) {
				t.Fatalf("%s %s was zero before", spec.Type, name)
			}
		}
		for name, raw := range rawHalves(t, p) {
			if !bytes.Equal(raw, make([]byte, len(raw))) {
				t.Errorf("%s %s is there after Wipe", spec.Type, name)
			}
		}
	}
	Private{}.Wipe()
	s := NewSecret([]byte("secret"))
	s.Wipe()
	if !bytes.Equal(s.Bytes(), make([]byte, 6)) {
		t.Errorf("Secret is %q after Wipe", s.Bytes())
	}
}

// rawHalves returns the numbers that make up the private half of p, at their
// full length.
func rawHalves(t *testing.T, p Private) map[string][]byte {
	t.Helper()
	switch k := p.half().key.(type) {
	case ed25519.PrivateKey:
		return map[string][]byte{"seed": k.Seed()}
	case *ecdsa.PrivateKey:
		//lint:ignore SA1019 Bytes refuses the scalar of a key that was wiped
		return map[string][]byte{"scalar": k.D.FillBytes(make([]byte, (k.Params().BitSize+7)/8))}
	case *rsa.PrivateKey:
		size := k.Size()
		return map[string][]byte{
			"exponent": k.D.FillBytes(make([]byte, size)),
			"p":        k.Primes[0].FillBytes(make([]byte, size/2)),
			"q":        k.Primes[1].FillBytes(make([]byte, size/2)),
		}
	}
	t.Fatalf("%T", p.half().key)
	return nil
}

func p224(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})
}
