package keyring

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/des"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/asn1"
	"hash"

	"golang.org/x/crypto/scrypt"

	"keyturn/internal/trust"
)

// Encrypted PKCS#8 (RFC 5958, section 3) with PBES2 (RFC 8018, A.4), under PBKDF2
// or scrypt (RFC 7914): what ssh-keygen -m PKCS8 and openssl write. The standard
// library reads only the unencrypted form.

type encryptedPrivateKeyInfo struct {
	Algorithm algorithm
	Data      []byte
}

type algorithm struct {
	ID         asn1.ObjectIdentifier
	Parameters asn1.RawValue `asn1:"optional"`
}

type pbes2Params struct {
	KDF    algorithm
	Cipher algorithm
}

type pbkdf2Params struct {
	Salt       []byte
	Iterations int
	KeyLength  int       `asn1:"optional"`
	PRF        algorithm `asn1:"optional"`
}

// RFC 7914, section 7.
type scryptParams struct {
	Salt      []byte
	N, R, P   int
	KeyLength int `asn1:"optional"`
}

const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
	oidScrypt = "1.3.6.1.4.1.11591.4.11"
)

// What a file may cost to open: about a second of a CPU for PBKDF2, of which
// OpenSSL makes 2048 iterations, and some four for scrypt, for which it takes
// 16 MiB.
const (
	maxIterations   = 2_000_000
	maxScryptMemory = 256 << 20 // bytes: 128 N r, RFC 7914, section 2
	maxScryptWork   = 1 << 30   // bytes: 128 N r p
)

// prf returns the hash of a PBKDF2 pseudo-random function; RFC 8018 makes
// HMAC-SHA1 the default, written by leaving it out.
func prf(id asn1.ObjectIdentifier) func() hash.Hash {
	switch id.String() {
	case "", "1.2.840.113549.2.7":
		return sha1.New
	case "1.2.840.113549.2.9":
		return sha256.New
	case "1.2.840.113549.2.10":
		return sha512.New384
	case "1.2.840.113549.2.11":
		return sha512.New
	}
	return nil
}

// cbc returns the block cipher of a CBC mode by its identifier.
func cbc(id asn1.ObjectIdentifier) (keyLength int, open func([]byte) (cipher.Block, error)) {
	switch id.String() {
	case "1.2.840.113549.3.7":
		return 24, des.NewTripleDESCipher
	case "2.16.840.1.101.3.4.1.2":
		return 16, aes.NewCipher
	case "2.16.840.1.101.3.4.1.22":
		return 24, aes.NewCipher
	case "2.16.840.1.101.3.4.1.42":
		return 32, aes.NewCipher
	}
	return 0, nil
}

func parseEncryptedPKCS8(der, passphrase []byte) (Private, error) {
	var info encryptedPrivateKeyInfo
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) != 0 {
		return Private{}, malformedPKCS8()
	}
	if info.Algorithm.ID.String() != oidPBES2 {
		return Private{}, unsupportedPKCS8("encryption", info.Algorithm.ID)
	}
	var scheme pbes2Params
	if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return Private{}, malformedPKCS8()
	}
	length, newCipher := cbc(scheme.Cipher.ID)
	if newCipher == nil {
		return Private{}, unsupportedPKCS8("cipher", scheme.Cipher.ID)
	}
	derive, err := derivation(scheme.KDF, length)
	if err != nil {
		return Private{}, err
	}
	if len(passphrase) == 0 {
		return Private{}, passphraseMissing()
	}

	derived, err := derive(passphrase)
	if err != nil {
		return Private{}, malformedPKCS8()
	}
	defer clear(derived)
	block, err := newCipher(derived)
	if err != nil {
		return Private{}, malformedPKCS8()
	}
	var iv []byte
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != block.BlockSize() {
		return Private{}, malformedPKCS8()
	}
	if len(info.Data) == 0 || len(info.Data)%block.BlockSize() != 0 {
		return Private{}, malformedPKCS8()
	}
	plain := make([]byte, len(info.Data))
	defer clear(plain)
	cipher.NewCBCDecrypter(block, iv).CryptBlocks(plain, info.Data)
	// There is no integrity but the structure of what comes out. Nobody
	// learns of the padding apart from it, since both fail alike.
	pad := int(plain[len(plain)-1])
	if pad < 1 || pad > block.BlockSize() || pad > len(plain) {
		return Private{}, passphraseWrong()
	}
	return parsePKCS8(plain[:len(plain)-pad], passphraseWrong())
}

// parsePKCS8 reads the unencrypted form. What is no structure of that form at all
// is the error given: in the clear a damaged file, else a wrong passphrase.
func parsePKCS8(der []byte, noise error) (Private, error) {
	var info struct {
		Version   int
		Algorithm algorithm
		Key       []byte
	}
	if _, err := asn1.Unmarshal(der, &info); err != nil {
		return Private{}, noise
	}
	defer clear(info.Key)
	switch info.Algorithm.ID.String() {
	case "1.3.101.113":
		return Private{}, unsupportedType("ssh-ed448")
	case "1.2.840.10040.4.1":
		return Private{}, unsupportedType("ssh-dss")
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		// x509 explains with types and numbers, not with content.
		return Private{}, trust.Errorf(trust.Invalid, "private key: %w", err)
	}
	return newPrivate(key, PKCS8, "")
}

// derivation returns what makes a key of that many bytes of a passphrase, or why
// that cannot or shall not be done.
func derivation(kdf algorithm, length int) (func(passphrase []byte) ([]byte, error), error) {
	switch kdf.ID.String() {
	case oidPBKDF2:
		var p pbkdf2Params
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil || p.Iterations < 1 || p.KeyLength != 0 && p.KeyLength != length {
			return nil, malformedPKCS8()
		}
		newHash := prf(p.PRF.ID)
		if newHash == nil {
			return nil, unsupportedPKCS8("pseudo-random function", p.PRF.ID)
		}
		if p.Iterations > maxIterations {
			return nil, expensivePKCS8("%d iterations of PBKDF2 to open, more than %d", p.Iterations, maxIterations)
		}
		return func(passphrase []byte) ([]byte, error) {
			return pbkdf2.Key(newHash, string(passphrase), p.Salt, p.Iterations, length)
		}, nil
	case oidScrypt:
		var p scryptParams
		if _, err := asn1.Unmarshal(kdf.Parameters.FullBytes, &p); err != nil || p.N < 2 || p.N&(p.N-1) != 0 || p.R < 1 || p.P < 1 || p.KeyLength != 0 && p.KeyLength != length {
			return nil, malformedPKCS8()
		}
		if p.N > maxScryptMemory/128/p.R || p.P > maxScryptWork/128/p.R/p.N {
			return nil, expensivePKCS8("scrypt with N %d, r %d, p %d to open, more than %d bytes at a time or %d in all", p.N, p.R, p.P, maxScryptMemory, maxScryptWork)
		}
		return func(passphrase []byte) ([]byte, error) {
			return scrypt.Key(passphrase, p.Salt, p.N, p.R, p.P, length)
		}, nil
	}
	return nil, unsupportedPKCS8("key derivation", kdf.ID)
}

func malformedPKCS8() error {
	return trust.Errorf(trust.Invalid, "private key: encrypted PKCS#8 is malformed")
}

func expensivePKCS8(format string, args ...any) error {
	return trust.Errorf(trust.Invalid, "private key takes "+format, args...).
		WithHint("write it anew: openssl pkcs8 -topk8 -in KEY -out NEW")
}

func unsupportedPKCS8(what string, id asn1.ObjectIdentifier) error {
	return trust.Errorf(trust.Invalid, "private key: encrypted PKCS#8 with %s %s is not supported", what, id).
		WithHint("write it anew: openssl pkcs8 -topk8 -in KEY -out NEW")
}
