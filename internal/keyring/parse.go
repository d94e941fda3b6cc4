package keyring

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"strings"

	"keyturn/internal/trust"
)

// maxKeyFile bounds a private key file in bytes. RSA of 16384 bits in OpenSSH's
// container is 13 KiB.
const maxKeyFile = 64 << 10

// The causes of those errors of Parse that another passphrase may cure: the key
// is encrypted and none was given, or the one given does not open it.
var (
	ErrPassphraseMissing = errors.New("private key is encrypted")
	ErrPassphraseWrong   = errors.New("private key is encrypted with another passphrase")
)

// Parse reads a private key file: OpenSSH's container (PROTOCOL.key), PKCS#1,
// SEC 1 or PKCS#8 in PEM, and PuTTY's PPK of versions 2 and 3, each encrypted or
// not. Container tells which it was. A passphrase that the file does not need is
// ignored. What stands before or after a key in PEM, such as EC PARAMETERS or
// certificates, is skipped, as OpenSSH does. OpenSSH's container and PuTTY's hold
// a comment, which is kept.
//
// Errors are Invalid and never quote the file. errors.Is with
// ErrPassphraseMissing and ErrPassphraseWrong tells whether asking for a
// passphrase makes sense; an encrypted file that was changed is taken for one with
// another passphrase. What a file makes us spend to open it is bounded, whatever
// it asks for. A security key (sk-) is refused: its private half is in a device.
func Parse(file, passphrase []byte) (Private, error) {
	if len(file) > maxKeyFile {
		return Private{}, trust.Errorf(trust.Invalid, "private key file of %d bytes is larger than %d", len(file), maxKeyFile)
	}
	if bytes.HasPrefix(file, []byte(ppkPrefix)) {
		return parsePPK(file, passphrase)
	}
	for rest := file; ; {
		var block *pem.Block
		block, rest = pem.Decode(rest)
		if block == nil {
			return Private{}, noPrivateKey(file)
		}
		switch {
		case block.Type == openSSHBlock:
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
	if len(bytes.TrimSpace(file)) == 0 {
		return trust.Errorf(trust.Invalid, "private key file is empty")
	}
	if _, _, _, err := trust.ParsePublicFile(file); err == nil {
		return trust.Errorf(trust.Invalid, "this is the public half of a key").
			WithHint("give the private key file, the one without .pub")
	}
	if f, ok := trust.RecognizePrivateKey(file); ok {
		switch f.Format {
		case trust.FormatSSHCom:
			return trust.Errorf(trust.Invalid, "private key is in the format of ssh.com (Tectia), which is not supported").
				WithHint("convert it: puttygen KEY -O private-openssh-new -o NEW")
		case trust.FormatSSH1:
			return trust.Errorf(trust.Invalid, "private key is of version 1 of SSH, which no current server speaks")
		case trust.FormatDropbear:
			return trust.Errorf(trust.Invalid, "private key is in Dropbear's format, which is not supported").
				WithHint("convert it: dropbearconvert dropbear openssh KEY NEW")
		}
	}
	return trust.Errorf(trust.Invalid, "no private key in OpenSSH's, PuTTY's, PKCS#1, SEC 1 or PKCS#8 form found")
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
		if errors.Is(err, x509.IncorrectPasswordError) {
			return Private{}, passphraseWrong()
		}
		if err != nil { // of a cipher that nobody knows, or cut
			return Private{}, trust.Errorf(trust.Invalid, "private key: %w", err)
		}
	}
	defer clear(der)

	var key crypto.PrivateKey
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(der)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(der)
	case "PRIVATE KEY":
		var noise error = trust.Errorf(trust.Invalid, "private key: PKCS#8 is malformed")
		if encrypted {
			noise = passphraseWrong()
		}
		return parsePKCS8(der, noise)
	default: // "DSA PRIVATE KEY", "ANY PRIVATE KEY"
		return Private{}, unsupportedType(strings.TrimSuffix(block.Type, " PRIVATE KEY"))
	}
	if err != nil && encrypted {
		return Private{}, passphraseWrong() // noise that unpadded by chance
	}
	if err != nil {
		// x509 explains with types and numbers, not with content.
		return Private{}, trust.Errorf(trust.Invalid, "private key: %w", err)
	}
	return newPrivate(key, PEM, "")
}

func unsupportedType(name string) error {
	return trust.Errorf(trust.Invalid, "private key of type %q is not supported", name).
		WithHint("make another: ssh-keygen -t ed25519")
}

func passphraseMissing() error {
	e := trust.Errorf(trust.Invalid, "private key is encrypted and no passphrase was given").WithField("passphrase").
		WithHint("give it with --passphrase-stdin")
	e.Err = ErrPassphraseMissing
	return e
}

func passphraseWrong() error {
	e := trust.Errorf(trust.Invalid, "private key does not open with this passphrase").WithField("passphrase")
	e.Err = ErrPassphraseWrong
	return e
}
