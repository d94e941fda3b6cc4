package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A Spec says what kind of key pair to make.
type Spec struct {
	// Type is "ed25519", "ecdsa-p256", "ecdsa-p384", "ecdsa-p521" or "rsa".
	Type string
	// Bits is the size of an RSA modulus, 2048 to 8192 and a multiple of 8;
	// 0 stands for 3072, as in ssh-keygen(1). For the other types it is 0 or
	// the size that the type has.
	Bits int
}

// A Private is a private key that is not stored, or not yet: what Generate and
// Parse return and Put takes. It is printed by its public half only.
type Private struct {
	// Comment goes into the OpenSSH container, and nowhere else. Put refuses
	// one with line breaks or other control characters in it.
	Comment string

	half func() *half // see Secret on why this is a function; nil in the zero value
}

// A half is a private key in one of three forms: ed25519.PrivateKey,
// *ecdsa.PrivateKey or *rsa.PrivateKey of two primes.
type half struct {
	key    crypto.Signer
	public trust.PublicKey
	format Format
	ready  *ready // in place of key, of one that lay ready
}

// A Format is a container in which private key files are kept.
type Format string

const (
	// OpenSSH is the container of OpenSSH's PROTOCOL.key, the only one that
	// is written with a comment, and ssh-keygen's default.
	OpenSSH Format = "openssh"
	// PEM is PKCS#1 (RFC 8017, A.1.2) for RSA and SEC 1 (RFC 5915) for ECDSA.
	// Ed25519 has no such form: as with ssh-keygen -m PEM, it is written in
	// OpenSSH's container.
	PEM Format = "pem"
	// PKCS8 is RFC 5958. ssh(1) reads Ed25519 in it only since 9.6.
	PKCS8 Format = "pkcs8"
	// PuTTY is a PPK file of version 2 or 3, which holds a comment too. It is read
	// and not written.
	PuTTY Format = "putty"
)

// Formats lists every Format that is written.
var Formats = []Format{OpenSSH, PEM, PKCS8}

// ParseFormat returns the Format of that name that is written, or an Invalid
// error.
func ParseFormat(name string) (Format, error) {
	for _, f := range Formats {
		if string(f) == name {
			return f, nil
		}
	}
	return "", trust.Errorf(trust.Invalid, "private key format %q is none of openssh, pem, pkcs8", name).WithField("format")
}

// Bounds of RSA keys. Keys that are found may be as large as OpenSSH allows and
// as small as crypto/rsa will sign with; new ones may not.
const (
	minGenerateRSA     = 2048
	maxGenerateRSA     = 8192
	defaultGenerateRSA = 3072 // ssh-keygen(1), -b
	minRSA             = 1024 // crypto/rsa, and OpenSSH's RequiredRSASize
	maxRSA             = 16384
)

// Generate makes a new key pair. It takes about half a second of a CPU for RSA
// of 4096 bits and several seconds for 8192; the other types take microseconds.
func Generate(spec Spec) (Private, error) {
	size := map[string]int{"ed25519": 256, "ecdsa-p256": 256, "ecdsa-p384": 384, "ecdsa-p521": 521}[spec.Type]
	if size != 0 && spec.Bits != 0 && spec.Bits != size {
		return Private{}, trust.Errorf(trust.Invalid, "a key of type %q has %d bits, not %d", spec.Type, size, spec.Bits).WithField("bits")
	}
	var key crypto.Signer
	var err error
	switch spec.Type {
	case "ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa-p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "ecdsa-p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "ecdsa-p521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "rsa":
		bits := spec.Bits
		if bits == 0 {
			bits = defaultGenerateRSA
		}
		if bits < minGenerateRSA || bits > maxGenerateRSA || bits%8 != 0 {
			return Private{}, trust.Errorf(trust.Invalid, "a new RSA key has %d to %d bits, in steps of 8, not %d",
				minGenerateRSA, maxGenerateRSA, bits).WithField("bits")
		}
		key, err = rsa.GenerateKey(rand.Reader, bits)
	default:
		return Private{}, trust.Errorf(trust.Invalid, "key type %q is none of ed25519, ecdsa-p256, ecdsa-p384, ecdsa-p521, rsa", spec.Type).WithField("type")
	}
	if err != nil {
		return Private{}, err
	}
	return newPrivate(key, OpenSSH, "")
}

// newPrivate checks a key that was made or read, and finds its public half.
func newPrivate(key crypto.PrivateKey, format Format, comment string) (Private, error) {
	var signing crypto.Signer
	switch k := key.(type) {
	case *ed25519.PrivateKey:
		return newPrivate(*k, format, comment)
	case ed25519.PrivateKey:
		// The container holds seed and public half side by side. Signing
		// with a pair that does not match gives the seed away.
		if len(k) != ed25519.PrivateKeySize || !ed25519.NewKeyFromSeed(k.Seed()).Equal(k) {
			return Private{}, trust.Errorf(trust.Invalid, "private key: its public half is not that of its seed")
		}
		signing = k
	case *ecdsa.PrivateKey:
		switch k.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
		default:
			return Private{}, trust.Errorf(trust.Invalid, "private key: SSH has no ECDSA keys on curve %q", k.Curve.Params().Name)
		}
		scalar, err := k.Bytes()
		if err != nil {
			return Private{}, trust.Errorf(trust.Invalid, "private key: ECDSA scalar out of range")
		}
		// Derived again, so that a public half beside another's scalar is found.
		derived, err := ecdsa.ParseRawPrivateKey(k.Curve, scalar)
		clear(scalar)
		if err != nil || !derived.PublicKey.Equal(&k.PublicKey) {
			return Private{}, trust.Errorf(trust.Invalid, "private key: its public half is not that of its scalar")
		}
		signing = k
	case *rsa.PrivateKey:
		if len(k.Primes) != 2 {
			return Private{}, trust.Errorf(trust.Invalid, "private key: RSA with %d primes, which SSH's container cannot hold", len(k.Primes))
		}
		if k.N.BitLen() < minRSA {
			return Private{}, trust.Errorf(trust.Invalid, "private key: RSA of %d bits is smaller than the %d that servers take", k.N.BitLen(), minRSA)
		}
		if k.N.BitLen() > maxRSA {
			return Private{}, trust.Errorf(trust.Invalid, "private key: RSA of %d bits is larger than the %d that OpenSSH reads", k.N.BitLen(), maxRSA)
		}
		if err := k.Validate(); err != nil {
			return Private{}, trust.Errorf(trust.Invalid, "private key: its RSA numbers do not belong together")
		}
		k.Precompute() // not all who read keys have done it, and Wipe reaches for it
		signing = k
	default:
		return Private{}, trust.Errorf(trust.Invalid, "private key: its type is none of ed25519, ecdsa, rsa")
	}
	public, err := ssh.NewPublicKey(signing.Public())
	if err != nil {
		return Private{}, trust.Errorf(trust.Invalid, "private key: its public half: %w", err)
	}
	h := &half{key: signing, public: trust.PublicKeyOf(public), format: format}
	return Private{Comment: comment, half: func() *half { return h }}, nil
}

// Public returns the public half.
func (p Private) Public() trust.PublicKey {
	if p.half == nil {
		return trust.PublicKey{}
	}
	return p.half().public
}

// Container returns the container that the key was read from; OpenSSH for one
// that was made here or comes out of the keyring.
func (p Private) Container() Format {
	if p.half == nil {
		return ""
	}
	return p.half().format
}

// IsZero reports whether p is no key.
func (p Private) IsZero() bool { return p.half == nil }

// Signer returns a signer for a key that is not stored: the password-less half
// of a credential given to enrol a host, a key just made that is to be proven.
func (p Private) Signer() (ssh.Signer, error) {
	if p.half == nil {
		return nil, trust.Errorf(trust.Invalid, "no private key to sign with")
	}
	p, err := p.opened()
	if err != nil {
		return nil, err
	}
	return newSigner(p.half())
}

// opened returns p with its key.
func (p Private) opened() (Private, error) {
	if p.half().ready == nil {
		return p, nil
	}
	text, err := p.text(OpenSSH)
	if err != nil {
		return Private{}, err
	}
	defer clear(text)
	return Parse(text, nil)
}

// Wipe overwrites what Go lets us reach of the private half. Signers that p
// gave out do not work afterwards.
func (p Private) Wipe() {
	if p.half == nil {
		return
	}
	if r := p.half().ready; r != nil {
		clear(r.part)
		r.release()
	}
	switch k := p.half().key.(type) {
	case ed25519.PrivateKey:
		clear(k)
	case *ecdsa.PrivateKey:
		//lint:ignore SA1019 there is no other way to overwrite it
		clear(k.D.Bits())
	case *rsa.PrivateKey:
		clear(k.D.Bits())
		for _, prime := range k.Primes {
			clear(prime.Bits())
		}
		clear(k.Precomputed.Dp.Bits())
		clear(k.Precomputed.Dq.Bits())
		clear(k.Precomputed.Qinv.Bits())
	}
}

// text returns the private key file in the given container, unencrypted, with
// a newline at its end.
func (p Private) text(format Format) ([]byte, error) {
	if p.half == nil {
		return nil, trust.Errorf(trust.Invalid, "no private key to write")
	}
	if r := p.half().ready; r != nil && format == OpenSSH {
		return r.text(p.Public(), p.Comment), nil
	}
	p, err := p.opened()
	if err != nil {
		return nil, err
	}
	var block *pem.Block
	switch format {
	case OpenSSH:
		block, err = ssh.MarshalPrivateKey(p.half().key, p.Comment)
	case PEM:
		switch k := p.half().key.(type) {
		case *rsa.PrivateKey:
			block = &pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}
		case *ecdsa.PrivateKey:
			block = &pem.Block{Type: "EC PRIVATE KEY"}
			block.Bytes, err = x509.MarshalECPrivateKey(k)
		default:
			block, err = ssh.MarshalPrivateKey(k, p.Comment)
		}
	case PKCS8:
		block = &pem.Block{Type: "PRIVATE KEY"}
		block.Bytes, err = x509.MarshalPKCS8PrivateKey(p.half().key)
	default:
		_, err = ParseFormat(string(format))
	}
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(block)
	clear(block.Bytes)
	return text, nil
}

// maxComment bounds a comment, in bytes. OpenSSH reads lines of
// authorized_keys up to 8 KiB, into which the comment has to fit as well.
const maxComment = 1024

func checkComment(comment string) error {
	if len(comment) > maxComment {
		return trust.Errorf(trust.Invalid, "comment of %d bytes is longer than %d", len(comment), maxComment).WithField("comment")
	}
	if !utf8.ValidString(comment) || strings.ContainsFunc(comment, unicode.IsControl) {
		return trust.Errorf(trust.Invalid, "comment %q holds control characters or is not UTF-8", comment).WithField("comment")
	}
	return nil
}

// cleanComment makes a comment out of a container fit to stand in one line of
// text: what is not printable becomes "?".
func cleanComment(comment string) string {
	clean := strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, comment)
	if len(clean) > maxComment {
		clean = strings.ToValidUTF8(clean[:maxComment], "")
	}
	return clean
}
