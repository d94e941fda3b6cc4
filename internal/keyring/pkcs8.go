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

	"keyturn/internal/trust"
)

// Encrypted PKCS#8 (RFC 5958, section 3) with PBES2 (RFC 8018, A.4): what
// ssh-keygen -m PKCS8 and openssl write. The standard library reads only the
// unencrypted form.

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

const (
	oidPBES2  = "1.2.840.113549.1.5.13"
	oidPBKDF2 = "1.2.840.113549.1.5.12"
)

// maxIterations bounds what a file may cost to open: about a second of a CPU.
// OpenSSL writes 2048.
const maxIterations = 2_000_000

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
	malformed := trust.Errorf(trust.Invalid, "private key: encrypted PKCS#8 is malformed")
	var info encryptedPrivateKeyInfo
	if rest, err := asn1.Unmarshal(der, &info); err != nil || len(rest) != 0 {
		return Private{}, malformed
	}
	if info.Algorithm.ID.String() != oidPBES2 {
		return Private{}, unsupportedPKCS8("encryption", info.Algorithm.ID)
	}
	var scheme pbes2Params
	if _, err := asn1.Unmarshal(info.Algorithm.Parameters.FullBytes, &scheme); err != nil {
		return Private{}, malformed
	}
	if scheme.KDF.ID.String() != oidPBKDF2 {
		return Private{}, unsupportedPKCS8("key derivation", scheme.KDF.ID)
	}
	var kdf pbkdf2Params
	if _, err := asn1.Unmarshal(scheme.KDF.Parameters.FullBytes, &kdf); err != nil {
		return Private{}, malformed
	}
	newHash := prf(kdf.PRF.ID)
	if newHash == nil {
		return Private{}, unsupportedPKCS8("pseudo-random function", kdf.PRF.ID)
	}
	length, newCipher := cbc(scheme.Cipher.ID)
	if newCipher == nil {
		return Private{}, unsupportedPKCS8("cipher", scheme.Cipher.ID)
	}
	if kdf.Iterations < 1 || kdf.Iterations > maxIterations || (kdf.KeyLength != 0 && kdf.KeyLength != length) {
		return Private{}, malformed
	}
	if len(passphrase) == 0 {
		return Private{}, passphraseMissing()
	}

	derived, err := pbkdf2.Key(newHash, string(passphrase), kdf.Salt, kdf.Iterations, length)
	if err != nil {
		return Private{}, malformed
	}
	defer clear(derived)
	block, err := newCipher(derived)
	if err != nil {
		return Private{}, malformed
	}
	var iv []byte
	if _, err := asn1.Unmarshal(scheme.Cipher.Parameters.FullBytes, &iv); err != nil || len(iv) != block.BlockSize() {
		return Private{}, malformed
	}
	if len(info.Data) == 0 || len(info.Data)%block.BlockSize() != 0 {
		return Private{}, malformed
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
	key, err := x509.ParsePKCS8PrivateKey(plain[:len(plain)-pad])
	if err != nil {
		return Private{}, passphraseWrong()
	}
	return newPrivate(key, PKCS8, "")
}

func unsupportedPKCS8(what string, id asn1.ObjectIdentifier) error {
	return trust.Errorf(trust.Invalid, "private key: encrypted PKCS#8 with %s %s is not supported", what, id).
		WithHint("write it anew: ssh-keygen -p -f KEY")
}
