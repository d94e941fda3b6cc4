package jwk

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"math/big"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/keyring"
	"keyturn/internal/trust"
)

// Spec is the kind of key that signs.
func Spec() keyring.Spec { return keyring.Spec{Type: "rsa", Bits: 2048} }

// A Key is the public half of one that signs, or did.
type Key struct {
	ID string // of the private half in the keyring
	// KID is by what tokens name it: its thumbprint (RFC 7638), in 64 hex digits.
	KID string
	// Certificate is one that the key signed for itself, in DER: for libraries that read
	// no JSON Web Keys.
	Certificate []byte
	Created     time.Time
	// Until is how long it is published after another took its place; zero for the one
	// that signs.
	Until time.Time
}

// Public returns the modulus and the exponent as a JSON Web Key has them (RFC 7518,
// section 6.3.1).
func (k Key) Public() (n, e string, err error) {
	certificate, err := x509.ParseCertificate(k.Certificate)
	if err != nil {
		return "", "", err
	}
	public, ok := certificate.PublicKey.(*rsa.PublicKey)
	if !ok {
		return "", "", trust.Errorf(trust.Internal, "key %s is not an RSA key", k.KID)
	}
	n, e = numbers(public)
	return n, e, nil
}

func numbers(public *rsa.PublicKey) (n, e string) {
	encode := base64.RawURLEncoding.EncodeToString
	return encode(public.N.Bytes()), encode(big.NewInt(int64(public.E)).Bytes())
}

// certificateFor is how long a certificate holds: longer than a key is ever published.
const certificateFor = 2 * 366 * 24 * time.Hour

// publish returns what is published of a key.
func publish(id string, private keyring.Private, now time.Time) (Key, error) {
	signer, err := private.Signer()
	if err != nil {
		return Key{}, err
	}
	crypto, ok := signer.PublicKey().(ssh.CryptoPublicKey)
	if !ok {
		return Key{}, trust.Errorf(trust.Internal, "a key of type %q signs no tokens", signer.PublicKey().Type())
	}
	public, ok := crypto.CryptoPublicKey().(*rsa.PublicKey)
	if !ok {
		return Key{}, trust.Errorf(trust.Internal, "a key of type %q signs no tokens", signer.PublicKey().Type())
	}
	n, e := numbers(public)
	sum := sha256.Sum256([]byte(`{"e":"` + e + `","kty":"RSA","n":"` + n + `"}`)) // RFC 7638, section 3
	k := Key{ID: id, KID: hex.EncodeToString(sum[:]), Created: now}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Key{}, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "Keyturn " + k.KID[:16]}, SignatureAlgorithm: x509.SHA256WithRSA,
		NotBefore: now, NotAfter: now.Add(certificateFor), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
	}
	k.Certificate, err = x509.CreateCertificate(rand.Reader, template, template, public, itself{signer.(ssh.AlgorithmSigner), public})
	return k, err
}

// An itself is a key of the keyring that signs its own certificate: rsa-sha2-256 (RFC 8332)
// is the signature that certificates call sha256WithRSAEncryption.
type itself struct {
	signer ssh.AlgorithmSigner
	public *rsa.PublicKey
}

var _ crypto.MessageSigner = itself{}

// Public implements crypto.Signer.
func (s itself) Public() crypto.PublicKey { return s.public }

// Sign implements crypto.Signer, and refuses: the keyring signs messages, not digests.
func (s itself) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("a key of the keyring signs no digest")
}

// SignMessage implements crypto.MessageSigner.
func (s itself) SignMessage(rand io.Reader, message []byte, _ crypto.SignerOpts) ([]byte, error) {
	signature, err := s.signer.SignWithAlgorithm(rand, message, ssh.KeyAlgoRSASHA256)
	if err != nil {
		return nil, err
	}
	return signature.Blob, nil
}
