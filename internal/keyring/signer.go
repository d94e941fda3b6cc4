package keyring

import (
	"io"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A signer signs with a private half and says nothing of it when printed. RSA
// keys sign with SHA-2 only (RFC 8332): the SHA-1 signature that "ssh-rsa" once
// meant, and that x/crypto/ssh still makes by default, is refused.
type signer struct {
	inner      ssh.AlgorithmSigner
	public     trust.PublicKey
	algorithms []string
}

var _ ssh.MultiAlgorithmSigner = (*signer)(nil)

func newSigner(h *half) (*signer, error) {
	inner, err := ssh.NewSignerFromSigner(h.key)
	if err != nil {
		return nil, err
	}
	return &signer{inner: inner.(ssh.AlgorithmSigner), public: h.public, algorithms: Algorithms(h.public)}, nil
}

// Algorithms returns the signature algorithms by which a key is signed with here, best
// first.
func Algorithms(key trust.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// PublicKey implements ssh.Signer.
func (s *signer) PublicKey() ssh.PublicKey { return s.inner.PublicKey() }

// Algorithms implements ssh.MultiAlgorithmSigner: best first.
func (s *signer) Algorithms() []string { return append([]string(nil), s.algorithms...) }

// Sign implements ssh.Signer with the first of Algorithms.
func (s *signer) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.inner.SignWithAlgorithm(rand, data, s.algorithms[0])
}

// SignWithAlgorithm implements ssh.AlgorithmSigner. The empty algorithm stands
// for the first of Algorithms.
func (s *signer) SignWithAlgorithm(rand io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if algorithm == "" {
		return s.Sign(rand, data)
	}
	for _, a := range s.algorithms {
		if a == algorithm {
			return s.inner.SignWithAlgorithm(rand, data, algorithm)
		}
	}
	return nil, trust.Errorf(trust.Invalid, "key of type %q signs with %q, not with %q", s.public.Type(), s.algorithms, algorithm)
}
