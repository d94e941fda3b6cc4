package keyring

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// maxKeyFile bounds a private key file in bytes. RSA of 16384 bits in OpenSSH's
// container is 13 KiB.
const maxKeyFile = 64 << 10

// ErrPassphrase is the cause of every error of Parse that another passphrase
// may cure: none was given and the key is encrypted, or the one given does not
// open it.
var ErrPassphrase = errors.New("private key is encrypted")

// Parse reads a private key file: OpenSSH's container (PROTOCOL.key), PKCS#1,
// SEC 1 or PKCS#8 in PEM, encrypted or not. A passphrase that the file does not
// need is ignored. What stands before or after the key, such as EC PARAMETERS
// or certificates, is skipped, as OpenSSH does.
//
// The comment of OpenSSH's container is kept where the key is not encrypted;
// where it is, the comment is inside the encrypted part and the caller has it,
// if at all, from the .pub file.
//
// Errors are Invalid and never quote the file. errors.Is(err, ErrPassphrase)
// tells whether asking for a passphrase makes sense. A security key (sk-) is
// refused: its private half is in a device.
func Parse(file, passphrase []byte) (Private, error) {
	if len(file) > maxKeyFile {
		return Private{}, trust.Errorf(trust.Invalid, "private key file of %d bytes is larger than %d", len(file), maxKeyFile)
	}
	for rest := file; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return Private{}, noPrivateKey(file)
		}
		switch {
		case block.Type == "OPENSSH PRIVATE KEY":
			return parseOpenSSH(block, passphrase)
		case block.Type == "ENCRYPTED PRIVATE KEY":
			return parseEncryptedPKCS8(block.Bytes, passphrase)
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return parseDER(block, passphrase)
		}
	}
}

// noPrivateKey says what a file without a private key seems to be instead.
func noPrivateKey(file []byte) error {
	text := bytes.TrimSpace(file)
	switch {
	case len(text) == 0:
		return trust.Errorf(trust.Invalid, "private key file is empty")
	case bytes.HasPrefix(text, []byte("PuTTY-User-Key-File-")):
		return trust.Errorf(trust.Invalid, "private key is in PuTTY's format").
			WithHint("convert it: puttygen KEY.ppk -O private-openssh -o KEY")
	}
	if line, _, _ := bytes.Cut(text, []byte("\n")); len(line) < maxKeyFile {
		if _, _, err := trust.ParsePublicKey(string(line)); err == nil {
			return trust.Errorf(trust.Invalid, "this is the public half of a key").
				WithHint("give the private key file, the one without .pub")
		}
	}
	return trust.Errorf(trust.Invalid, "no private key in OpenSSH, PKCS#1, SEC 1 or PKCS#8 form found")
}

// parseDER reads a PEM block of PKCS#1, SEC 1 or PKCS#8, encrypted the old way
// (RFC 1421 headers) or not.
func parseDER(block *pem.Block, passphrase []byte) (Private, error) {
	der := block.Bytes
	encrypted := strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED")
	if encrypted {
		if len(passphrase) == 0 {
			return Private{}, passphraseMissing()
		}
		var err error
		//lint:ignore SA1019 for its lack of integrity, which the key's own checks
		// make up for here; it is what ssh-keygen -m PEM writes.
		der, err = x509.DecryptPEMBlock(block, passphrase)
		if err != nil {
			return Private{}, passphraseWrong()
		}
	}
	defer clear(der)

	var key crypto.PrivateKey
	var err error
	format := PEM
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "PRIVATE KEY":
		format = PKCS8
		key, err = x509.ParsePKCS8PrivateKey(der)
	default: // "DSA PRIVATE KEY", "ANY PRIVATE KEY"
		return Private{}, trust.Errorf(trust.Invalid, "private key of type %q is not supported", strings.TrimSuffix(block.Type, " PRIVATE KEY"))
	}
	if err != nil && encrypted {
		return Private{}, passphraseWrong() // noise that unpadded by chance
	}
	if err != nil {
		// x509 explains with types and numbers, not with content.
		return Private{}, trust.Errorf(trust.Invalid, "private key: %w", err)
	}
	return newPrivate(key, format, "")
}

// openSSHMagic starts the container of PROTOCOL.key, section 1.
const openSSHMagic = "openssh-key-v1\x00"

// parseOpenSSH reads OpenSSH's container. x/crypto/ssh does the work; the
// layout is read here as well for what it does not tell: the comment, what kind
// of key it would not read, and whether the public half outside the encrypted
// part is that of the private one.
func parseOpenSSH(block *pem.Block, passphrase []byte) (Private, error) {
	defer clear(block.Bytes)
	var outer struct {
		Cipher, KDF, KDFOptions string
		Keys                    uint32
		Public                  []byte
		Private                 []byte
	}
	body, ok := bytes.CutPrefix(block.Bytes, []byte(openSSHMagic))
	if !ok {
		return Private{}, trust.Errorf(trust.Invalid, "private key: not of OpenSSH's version 1")
	}
	if err := ssh.Unmarshal(body, &outer); err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key: OpenSSH container is malformed")
	}
	public, err := trust.ParsePublicKeyBlob(outer.Public)
	if err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key: OpenSSH container holds no public half")
	}
	switch public.Type() {
	case ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
	case ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256:
		return Private{}, trust.Errorf(trust.Invalid, "private key %s is in a security key (%q) and cannot be held here", public.Fingerprint(), public.Type())
	default:
		return Private{}, trust.Errorf(trust.Invalid, "private key of type %q is not supported", public.Type())
	}

	file := pem.EncodeToMemory(&pem.Block{Type: block.Type, Bytes: block.Bytes})
	defer clear(file)
	var key crypto.PrivateKey
	comment := ""
	switch {
	case outer.Cipher == "none":
		key, err = ssh.ParseRawPrivateKey(file)
		comment = openSSHComment(outer.Private)
	case len(passphrase) == 0:
		return Private{}, passphraseMissing()
	default:
		key, err = ssh.ParseRawPrivateKeyWithPassphrase(file, passphrase)
	}
	if errors.Is(err, x509.IncorrectPasswordError) {
		return Private{}, passphraseWrong()
	}
	if err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key %s: %w", public.Fingerprint(), err)
	}
	p, err := newPrivate(key, OpenSSH, cleanComment(comment))
	if err != nil {
		return Private{}, err
	}
	if p.Public() != public {
		return Private{}, trust.Errorf(trust.Invalid, "private key: the container says it is %s, but it is %s", public.Fingerprint(), p.Public().Fingerprint())
	}
	return p, nil
}

// openSSHComment finds the comment in the private part of an unencrypted
// container: two equal check integers, type, the type's fields, comment,
// padding.
func openSSHComment(private []byte) string {
	var head struct {
		Check1, Check2 uint32
		Type           string
		Rest           []byte `ssh:"rest"`
	}
	if ssh.Unmarshal(private, &head) != nil {
		return ""
	}
	fields := 0
	switch head.Type {
	case ssh.KeyAlgoED25519:
		fields = 2 // public, private
	case ssh.KeyAlgoRSA:
		fields = 6 // n, e, d, iqmp, p, q
	case ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521:
		fields = 3 // curve, public, scalar
	}
	next := struct {
		Value []byte
		Rest  []byte `ssh:"rest"`
	}{Rest: head.Rest}
	for range fields + 1 {
		if ssh.Unmarshal(next.Rest, &next) != nil {
			return ""
		}
	}
	return string(next.Value)
}

func passphraseMissing() error {
	e := trust.Errorf(trust.Invalid, "private key is encrypted and no passphrase was given").WithField("passphrase").
		WithHint("give it with --passphrase-stdin")
	e.Err = ErrPassphrase
	return e
}

func passphraseWrong() error {
	e := trust.Errorf(trust.Invalid, "private key does not open with this passphrase").WithField("passphrase")
	e.Err = ErrPassphrase
	return e
}
