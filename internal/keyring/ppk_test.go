package keyring

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// puttygen runs puttygen, the oracle of this file, and returns its output.
func puttygen(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(need.Program(t, "puttygen", "putty-tools"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("puttygen %q: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// What puttygen writes, in both versions, under each key derivation and in clear,
// we read as the key that ssh-keygen made, with its comment.
func TestParseReadsWhatPuTTYWrites(t *testing.T) {
	need.Long(t)
	secret, none := writeFile(t, "passphrase", []byte("correct horse")), writeFile(t, "none", nil)
	for _, spec := range specs {
		p, err := Generate(spec)
		if err != nil {
			t.Fatal(err)
		}
		p.Comment = "alice's \u00fcnic\u00f6de: key"
		id := writeFile(t, "id", writeText(t, p, OpenSSH))
		for _, params := range []string{
			"version=2",
			"version=3,kdf=argon2id,memory=1024,passes=2",
			"version=3,kdf=argon2i,memory=1000,passes=3,parallelism=3",
			"version=3,kdf=argon2d,memory=1000,passes=3,parallelism=3",
			"version=3,kdf=argon2d,memory=8,passes=1",
		} {
			for passphrase, file := range map[string]string{"": none, "correct horse": secret} {
				t.Run(fmt.Sprintf("%s %s encrypted=%t", spec.Type, params, passphrase != ""), func(t *testing.T) {
					path := filepath.Join(t.TempDir(), "id.ppk")
					puttygen(t, id, "-O", "private", "-o", path, "--ppk-param", params, "--new-passphrase", file)
					ppk, err := os.ReadFile(path)
					if err != nil {
						t.Fatal(err)
					}
					for ending, ppk := range map[string][]byte{
						"LF": ppk, "CR LF": bytes.ReplaceAll(ppk, []byte("\n"), []byte("\r\n")), "CR": bytes.ReplaceAll(ppk, []byte("\n"), []byte("\r")),
					} {
						got, err := Parse(ppk, []byte(passphrase))
						if err != nil {
							t.Fatalf("%s: %v", ending, err)
						}
						if got.Public() != p.Public() || got.Comment != p.Comment || got.Container() != PuTTY {
							t.Errorf("%s: read %s %q in %q, want %s %q", ending, got.Public(), got.Comment, got.Container(), p.Public(), p.Comment)
						}
						got.Wipe()
						for name, raw := range rawHalves(t, got) {
							if !bytes.Equal(raw, make([]byte, len(raw))) {
								t.Errorf("%s: %s is there after Wipe", ending, name)
							}
						}
					}
					if passphrase != "" {
						refusesOtherPassphrases(t, ppk, passphrase)
					}
				})
			}
		}
	}
}

// The seed of Ed25519 is a number to PuTTY, of as many bytes as it takes.
func TestParseReadsSeedsOfAnyLength(t *testing.T) {
	for length, zeros := range map[int]int{31: 0, 32: 0, 33: 1} {
		seed := append(bytes.Repeat([]byte{7}, length-zeros), make([]byte, zeros)...)
		want, err := newPrivate(ed25519.NewKeyFromSeed(append(bytes.Clone(seed), 0)[:32]), PuTTY, "")
		if err != nil {
			t.Fatal(err)
		}
		file := ppkOf(want.Public(), seed)
		if got := puttygen(t, writeFile(t, "id.ppk", file), "-O", "public-openssh"); got != want.Public().String()+" x" {
			t.Fatalf("%d bytes: puttygen reads %s, want %s", length, got, want.Public())
		}
		if p, err := Parse(file, nil); err != nil || p.Public() != want.Public() {
			t.Errorf("%d bytes: %v, %v, want %v", length, p, err, want)
		}
	}
	p, err := Generate(Spec{Type: "ed25519"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		seed []byte
		want string
	}{
		"another's seed": {bytes.Repeat([]byte{7}, 32), "says it is"},
		"33 bytes":       {bytes.Repeat([]byte{7}, 33), "not that of a key"},
	} {
		if _, err := Parse(ppkOf(p.Public(), c.seed), nil); !refusedForGood(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q of kind invalid", name, err, c.want)
		}
	}
}

// ppkOf returns a file of version 3 in the clear, of an Ed25519 key.
func ppkOf(public trust.PublicKey, seed []byte) []byte {
	f := ppk{algorithm: public.Type(), encryption: "none", comment: "x", public: public.Blob(), private: ssh.Marshal(struct{ Seed []byte }{seed})}
	encoded := base64.StdEncoding.EncodeToString(f.public)
	return fmt.Appendf(nil, "PuTTY-User-Key-File-3: %s\nEncryption: none\nComment: x\nPublic-Lines: 2\n%s\n%s\nPrivate-Lines: 1\n%s\nPrivate-MAC: %x\n",
		f.algorithm, encoded[:64], encoded[64:], base64.StdEncoding.EncodeToString(f.private), f.macOf(sha256.New, nil))
}

// A file into which somebody put a certificate gives the key alone.
func TestParseLeavesPuTTYsCertificate(t *testing.T) {
	dir := t.TempDir()
	ca, id, ppk, none := filepath.Join(dir, "ca"), filepath.Join(dir, "id"), filepath.Join(dir, "id.ppk"), writeFile(t, "none", nil)
	sshKeygen(t, "-q", "-t", "ed25519", "-N", "", "-f", ca)
	sshKeygen(t, "-q", "-t", "ecdsa", "-N", "", "-f", id)
	sshKeygen(t, "-q", "-s", ca, "-I", "alice", "-n", "alice", id+".pub")
	puttygen(t, id, "--certificate", id+"-cert.pub", "-O", "private", "-o", ppk, "--new-passphrase", none)
	file, err := os.ReadFile(ppk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(file, []byte("-cert-v01@openssh.com")) {
		t.Fatalf("puttygen left the certificate out:\n%s", file)
	}
	pub, err := os.ReadFile(id + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if p, err := Parse(file, nil); err != nil || p.Public() != mustPublic(t, string(pub)) {
		t.Errorf("read %v, %v, want %s", p, err, pub)
	}
}

func mustPublic(t *testing.T, line string) trust.PublicKey {
	t.Helper()
	key, _, err := trust.ParsePublicKey(line)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Every byte of a file counts: a change of any leads to an error, or to the same
// key where it meant nothing. In a file that is not encrypted, the public half
// could else be exchanged.
func TestParseFindsChangesOfPuTTYsFile(t *testing.T) {
	for _, name := range []string{"v2-ed25519-plain", "v3-ecdsa256-plain", "v3-ed25519-argon2d"} {
		file, err := os.ReadFile("testdata/ppk/" + name)
		if err != nil {
			t.Fatal(err)
		}
		p, err := Parse(file, []byte("passphrase"))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range file {
			changed := bytes.Clone(file)
			changed[i] ^= 1
			if q, err := Parse(changed, []byte("passphrase")); err == nil && (q.Public() != p.Public() || q.Comment != p.Comment) {
				t.Errorf("%s: byte %d changed reads as %s %q", name, i, q, q.Comment)
			}
			if q, err := Parse(file[:i], []byte("passphrase")); err == nil && i < len(file)-1 {
				t.Errorf("%s: the first %d bytes read as %s", name, i, q)
			}
		}
	}
}

func TestParseRefusesPuTTYs(t *testing.T) {
	read := func(name string) string {
		text, err := os.ReadFile("testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	plain, encrypted := read("ppk/v3-ecdsa256-plain"), read("ppk/v3-ed25519-argon2d")
	replaced := func(text, old, new string) string {
		if !strings.Contains(text, old) {
			t.Fatalf("no %q in\n%s", old, text)
		}
		return strings.Replace(text, old, new, 1)
	}
	after := func(text, line string) string {
		_, rest, _ := strings.Cut(text, line)
		next, _, _ := strings.Cut(rest, "\n")
		return next
	}
	for name, c := range map[string]struct{ file, want string }{
		"ed448":              {read("refused/ppk-ed448"), `"ssh-ed448" is not supported`},
		"dsa":                {read("refused/ppk-dsa"), `"ssh-dss" is not supported`},
		"ssh.com":            {read("refused/ssh.com"), "ssh.com (Tectia)"},
		"version 4":          {replaced(plain, "File-3", "File-4"), "2 and 3 are"},
		"another type":       {replaced(plain, "nistp256", "nistp384"), "not of type"},
		"another cipher":     {replaced(encrypted, "aes256-cbc", "aes128-cbc"), `"aes128-cbc"`},
		"another derivation": {replaced(encrypted, "Argon2d", "scrypt"), `"scrypt"`},
		"much memory":        {replaced(encrypted, "Memory: 64", "Memory: 262145"), "262145 KiB"},
		"all memory":         {replaced(encrypted, "Memory: 64", "Memory: 4294967295"), "4294967295 KiB"},
		"more than all":      {replaced(encrypted, "Memory: 64", "Memory: 4294967296"), "no number"},
		"many passes":        {replaced(encrypted, "Passes: 1", "Passes: 65537"), "65537 passes"},
		"no passes":          {replaced(encrypted, "Passes: 1", "Passes: 0"), "0 passes"},
		"many lanes":         {replaced(replaced(encrypted, "Memory: 64", "Memory: 4096"), "Parallelism: 1", "Parallelism: 17"), "17 lanes"},
		"no lanes":           {replaced(encrypted, "Parallelism: 1", "Parallelism: 0"), "0 lanes"},
		"more lanes":         {replaced(encrypted, "Parallelism: 1", "Parallelism: 9"), "9 lanes"},
		"salt":               {replaced(encrypted, "Salt: ", "Salt: x"), "hexadecimal"},
		"half a block":       {replaced(encrypted, after(encrypted, "Private-Lines: 1\n"), "AAAA"), "whole number of blocks"},
		"no private part":    {plain[:strings.Index(plain, "Private-Lines")], `"Private-Lines" is not where`},
		"no mac":             {plain[:strings.Index(plain, "Private-MAC")], `"Private-MAC" is not where`},
		"many lines":         {replaced(plain, "Public-Lines: 3", "Public-Lines: 4000000000"), "not base64"},
		"changed":            {replaced(plain, "nobody's", "somebody's"), "damaged or changed"},
	} {
		if p, err := Parse([]byte(c.file), []byte("passphrase")); !refusedForGood(err) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, %v, want %q of kind invalid", name, p, err, c.want)
		}
	}
}

// TestArgon2d is the example of RFC 9106, section 5.1, with all its inputs, and
// what PuTTY's files have not: several passes and lanes at once.
func TestArgon2d(t *testing.T) {
	in := argon2Input{
		password: bytes.Repeat([]byte{1}, 32), salt: bytes.Repeat([]byte{2}, 16), secret: bytes.Repeat([]byte{3}, 8), data: bytes.Repeat([]byte{4}, 12),
		passes: 3, memory: 32, lanes: 4,
	}
	const want = "512b391b6f1162975371d30919734294f868e3be3984f3c1a13a4db9fabe4acb"
	if got := hex.EncodeToString(argon2d(in, 32)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// No error of Parse tells a passphrase or a private byte.
func TestErrorsTellNothing(t *testing.T) {
	file, err := os.ReadFile("testdata/ppk/v3-ecdsa256-plain")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(file), "\n")
	secret := lines[len(lines)-3]
	if raw, err := base64.StdEncoding.DecodeString(secret); err != nil || len(raw) < 32 {
		t.Fatalf("%q is not the private part: %v", secret, err)
	}
	for i := range file {
		for _, change := range []byte{1, 0x80, '\n'} {
			changed := bytes.Clone(file)
			changed[i] ^= change
			_, err := Parse(changed, []byte("my secret passphrase"))
			if err == nil {
				continue
			}
			if text := fmt.Sprintf("%v %+v %#v", err, err, err); strings.Contains(text, secret[4:12]) || strings.Contains(text, "my secret") {
				t.Errorf("byte %d changed: %v", i, err)
			}
		}
	}
}

// Whoever may import keys can send many at once that take as much memory to open as a
// file may: one of them has it at a time, and it is given back.
func TestReadOpensOneLargeFileAtATime(t *testing.T) {
	need.Long(t)
	const block = 64 << 20
	blob := base64.StdEncoding.EncodeToString(generate(t, "ed25519").Public().Blob())
	k := &Keyring{working: make(chan struct{}, maxWorking), queue: make(chan struct{}, maxQueue)}
	for _, variant := range []string{"Argon2id", "Argon2i", "Argon2d"} {
		file := fmt.Sprintf("PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: aes256-cbc\nComment: x\nPublic-Lines: 1\n%s\n"+
			"Key-Derivation: %s\nArgon2-Memory: %d\nArgon2-Passes: 1\nArgon2-Parallelism: 1\nArgon2-Salt: %032x\nPrivate-Lines: 1\n%s\nPrivate-MAC: %064x\n",
			blob, variant, block>>10, 7, base64.StdEncoding.EncodeToString(make([]byte, 48)), 7)
		var before, after runtime.MemStats
		debug.FreeOSMemory()
		runtime.ReadMemStats(&before)
		var files sync.WaitGroup
		for range 6 {
			files.Go(func() {
				if _, err := k.Read(t.Context(), []byte(file), []byte("passphrase")); err == nil || !strings.Contains(err.Error(), "does not open with this passphrase") {
					t.Errorf("%s: %v", variant, err)
				}
			})
		}
		files.Wait()
		runtime.ReadMemStats(&after)
		if grown := int64(after.HeapSys - before.HeapSys); grown > 2*block {
			t.Errorf("%s: six files that take %d MiB each took %d MiB", variant, block>>20, grown>>20)
		}
		if kept := int64(after.HeapSys-after.HeapReleased) - int64(before.HeapSys-before.HeapReleased); kept > block/2 {
			t.Errorf("%s: %d MiB are kept afterwards", variant, kept>>20)
		}
	}
}
