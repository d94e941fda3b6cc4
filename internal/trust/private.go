package trust

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"encoding/pem"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
)

// A PrivateFormat is a format of private key files.
type PrivateFormat string

// The formats that are recognized.
const (
	FormatOpenSSH  PrivateFormat = "openssh"  // PROTOCOL.key; what ssh-keygen writes since 7.8
	FormatPKCS1    PrivateFormat = "pkcs1"    // "RSA PRIVATE KEY", RFC 8017
	FormatSEC1     PrivateFormat = "sec1"     // "EC PRIVATE KEY", RFC 5915
	FormatDSA      PrivateFormat = "dsa"      // "DSA PRIVATE KEY", OpenSSL's own
	FormatPKCS8    PrivateFormat = "pkcs8"    // RFC 5208
	FormatPPK2     PrivateFormat = "ppk2"     // PuTTY up to 0.74
	FormatPPK3     PrivateFormat = "ppk3"     // PuTTY 0.75 and later
	FormatSSHCom   PrivateFormat = "ssh.com"  // "SSH2 ENCRYPTED PRIVATE KEY", Tectia
	FormatSSH1     PrivateFormat = "ssh1"     // protocol 1
	FormatDropbear PrivateFormat = "dropbear" // what dropbearkey writes
)

// A PrivateFile is what can be told of a private key file without a passphrase.
// It holds nothing private.
type PrivateFile struct {
	Format PrivateFormat
	// Encrypted: it takes a passphrase to use the key.
	Encrypted bool
	// Public is the public half, or zero where the file does not tell it
	// without a passphrase, or is damaged.
	Public PublicKey
	// Comment is what the file says of the key, where that can be read.
	Comment string
	// Problem says why Public is zero although nothing is encrypted.
	Problem string
}

// NeedsToken reports whether signing takes a FIDO token too, so that the file
// alone is of no use.
func (p PrivateFile) NeedsToken() bool { return strings.HasPrefix(p.Public.Type(), "sk-") }

// MaxPrivateFile is the size of the largest file that RecognizePrivateKey looks
// at: an RSA key of 16384 bits takes some 13 kB.
const MaxPrivateFile = 256 << 10

// RecognizePrivateKey tells a private key file from others by its content. It
// keeps no private byte: what is returned shares no memory with data.
func RecognizePrivateKey(data []byte) (PrivateFile, bool) {
	if len(data) > MaxPrivateFile {
		return PrivateFile{}, false
	}
	switch {
	case bytes.HasPrefix(data, []byte("PuTTY-User-Key-File-")):
		return recognizePPK(data)
	case bytes.HasPrefix(data, []byte("SSH PRIVATE KEY FILE FORMAT 1.1\n\x00")):
		return PrivateFile{Format: FormatSSH1, Encrypted: len(data) > 33 && data[33] != 0}, true
	case bytes.HasPrefix(data, []byte("---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----")):
		// The name says "encrypted" even where the cipher is none.
		return PrivateFile{Format: FormatSSHCom, Encrypted: true}, true
	}
	if f, ok := recognizeDropbear(data); ok {
		return f, true
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return PrivateFile{}, false
	}
	defer clear(block.Bytes)
	legacy := strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
	switch block.Type {
	case "OPENSSH PRIVATE KEY":
		return recognizeOpenSSH(block.Bytes), true
	case "RSA PRIVATE KEY":
		return recognizePEM(data, FormatPKCS1, legacy), true
	case "EC PRIVATE KEY":
		return recognizePEM(data, FormatSEC1, legacy), true
	case "DSA PRIVATE KEY":
		return recognizePEM(data, FormatDSA, legacy), true
	case "PRIVATE KEY":
		return recognizePEM(data, FormatPKCS8, false), true
	case "ENCRYPTED PRIVATE KEY":
		return PrivateFile{Format: FormatPKCS8, Encrypted: true}, true
	}
	return PrivateFile{}, false
}

// recognizeOpenSSH reads the container of PROTOCOL.key, which has the public
// half in clear.
func recognizeOpenSSH(container []byte) PrivateFile {
	f := PrivateFile{Format: FormatOpenSSH, Problem: "the file is damaged"}
	rest, ok := bytes.CutPrefix(container, []byte("openssh-key-v1\x00"))
	if !ok {
		return f
	}
	w := wire(rest)
	cipher, ok1 := w.next()
	_, ok2 := w.next() // the key derivation's name
	_, ok3 := w.next() // and options
	count, ok4 := w.number()
	public, ok5 := w.next()
	private, ok6 := w.next()
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) {
		return f
	}
	f.Encrypted = string(cipher) != "none"
	if count != 1 {
		f.Problem = "the file holds " + strconv.FormatUint(uint64(count), 10) + " keys"
		return f
	}
	key, err := ParsePublicKeyBlob(public)
	if err != nil {
		return f
	}
	f.Public, f.Problem = key, ""
	if !f.Encrypted {
		f.Comment = openSSHComment(private)
	}
	return f
}

// openSSHComment returns the comment behind the private fields of a key, or ""
// for a type whose fields are not known here.
func openSSHComment(private wire) string {
	a, ok1 := private.number()
	b, ok2 := private.number()
	name, ok3 := private.next()
	if !ok1 || !ok2 || !ok3 || a != b {
		return ""
	}
	fields := map[string]int{
		"ssh-ed25519": 2, "ssh-rsa": 6, "ssh-dss": 5,
		"ecdsa-sha2-nistp256": 3, "ecdsa-sha2-nistp384": 3, "ecdsa-sha2-nistp521": 3,
	}[string(name)]
	if fields == 0 {
		return ""
	}
	for range fields {
		if _, ok := private.next(); !ok {
			return ""
		}
	}
	comment, _ := private.next()
	return string(comment)
}

// recognizePEM reads an unencrypted PEM file with x/crypto/ssh to learn the
// public half.
func recognizePEM(data []byte, format PrivateFormat, encrypted bool) PrivateFile {
	f := PrivateFile{Format: format, Encrypted: encrypted}
	if encrypted {
		return f
	}
	private, err := ssh.ParseRawPrivateKey(data)
	if err != nil {
		f.Problem = "the file is damaged, or of a kind of key that SSH does not use"
		return f
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		if c, ok := private.(crypto.Signer); ok {
			if public, err := ssh.NewPublicKey(c.Public()); err == nil {
				f.Public = PublicKeyOf(public)
				return f
			}
		}
		f.Problem = "SSH does not use this kind of key"
		return f
	}
	f.Public = PublicKeyOf(signer.PublicKey())
	return f
}

// recognizePPK reads PuTTY's format, which has the public half in clear. Lines
// may end in "\n", "\r\n" or "\r".
func recognizePPK(data []byte) (PrivateFile, bool) {
	// All that is private follows the header "Private-Lines".
	head, _, _ := bytes.Cut(data, []byte("Private-Lines:"))
	lines := strings.FieldsFunc(string(head), func(r rune) bool { return r == '\r' || r == '\n' })
	var f PrivateFile
	switch {
	case strings.HasPrefix(lines[0], "PuTTY-User-Key-File-2:"):
		f.Format = FormatPPK2
	case strings.HasPrefix(lines[0], "PuTTY-User-Key-File-3:"):
		f.Format = FormatPPK3
	default:
		return PrivateFile{}, false
	}
	f.Problem = "the file is damaged"
	for i := 1; i < len(lines); i++ {
		name, value, _ := strings.Cut(lines[i], ": ")
		switch name {
		case "Encryption":
			f.Encrypted = value != "none"
		case "Comment":
			f.Comment = strings.Clone(value)
		case "Public-Lines":
			n, ok := strtonum(value, 1, 1000)
			if !ok || int(n) > len(lines)-i-1 {
				return f, true
			}
			blob, err := base64.StdEncoding.DecodeString(strings.Join(lines[i+1:i+1+int(n)], ""))
			if err != nil {
				return f, true
			}
			if key, err := ParsePublicKeyBlob(blob); err == nil {
				f.Public, f.Problem = key, ""
			}
			i += int(n)
		}
	}
	return f, true
}

// recognizeDropbear reads what dropbearkey writes: the public blob's parts with
// the private ones behind, and for Ed25519 one string of both.
func recognizeDropbear(data []byte) (PrivateFile, bool) {
	w := wire(data)
	name, ok := w.next()
	if !ok {
		return PrivateFile{}, false
	}
	public := 0 // bytes of the public parts
	switch string(name) {
	case "ssh-rsa":
		w.next()
		w.next()
		public = len(data) - len(w)
		if len(w) == 0 {
			return PrivateFile{}, false // a mere public key
		}
	case "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521":
		w.next()
		w.next()
		public = len(data) - len(w)
		if len(w) == 0 {
			return PrivateFile{}, false
		}
	case "ssh-ed25519":
		both, ok := w.next()
		if !ok || len(both) != 64 || len(w) > 0 {
			return PrivateFile{}, false
		}
		blob := append([]byte("\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"), both[32:]...)
		return PrivateFile{Format: FormatDropbear, Public: PublicKey{string(blob)}}, true
	default:
		return PrivateFile{}, false
	}
	if private, ok := w.mpint(); !ok || private.BitLen() == 0 {
		return PrivateFile{}, false
	}
	key := PublicKey{string(data[:public])}
	if key.checkStructure() != nil {
		return PrivateFile{}, false
	}
	return PrivateFile{Format: FormatDropbear, Public: key}, true
}

// LooksPrivate reports whether text is a private key file, or has marks of a part of
// one: what nobody else is to see, log or store.
func LooksPrivate(text []byte) bool {
	_, private := RecognizePrivateKey(bytes.TrimSpace(text))
	for _, mark := range []string{"PRIVATE KEY", "PuTTY-User-Key-File-", "Private-Lines:"} {
		private = private || bytes.Contains(text, []byte(mark))
	}
	return private
}
