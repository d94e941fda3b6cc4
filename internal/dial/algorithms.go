package dial

import (
	"io"
	"slices"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// baseConfig returns what we offer to every host. AES-GCM comes first because
// it has assembly in Go; chacha20 is there for hosts that have nothing else.
// RSA signs with SHA-2 only.
func baseConfig(user string) *ssh.ClientConfig {
	return &ssh.ClientConfig{
		User:          user,
		ClientVersion: clientVersion,
		Config: ssh.Config{
			KeyExchanges: []string{
				ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, "curve25519-sha256@libssh.org",
				ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521,
				ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDH14SHA256,
			},
			Ciphers: []string{
				ssh.CipherAES128GCM, ssh.CipherAES256GCM,
				ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR, ssh.CipherChaCha20Poly1305,
			},
			MACs: []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512},
		},
	}
}

// hostKeyAlgorithms returns the algorithms by which a host can prove one of the
// pinned keys, so that a host with several keys presents one that we know; or
// all that we can check, where nothing is pinned.
func hostKeyAlgorithms(pins []trust.PublicKey) []string {
	all := []string{
		ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
		ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256,
	}
	if len(pins) == 0 {
		return all
	}
	var algorithms []string
	for _, a := range all {
		if slices.ContainsFunc(pins, func(k trust.PublicKey) bool { return proves(a, k.Type()) }) {
			algorithms = append(algorithms, a)
		}
	}
	if len(algorithms) == 0 {
		return all // the callback will say what is pinned and what came
	}
	return algorithms
}

// proves reports whether algorithm is a signature by a key of that type.
func proves(algorithm, keyType string) bool {
	if keyType == ssh.KeyAlgoRSA {
		return algorithm == ssh.KeyAlgoRSASHA256 || algorithm == ssh.KeyAlgoRSASHA512
	}
	return algorithm == keyType
}

// modern returns a signer that does not sign with SHA-1: an RSA key is
// restricted to SHA-2, any other is returned as it is.
func modern(s ssh.Signer) ssh.Signer {
	as, ok := s.(ssh.AlgorithmSigner)
	if !ok || s.PublicKey().Type() != ssh.KeyAlgoRSA {
		return s
	}
	restricted, err := ssh.NewSignerWithAlgorithms(as, []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256})
	if err != nil {
		return s
	}
	return restricted
}

// A question is a Signer without a private key. The server is asked whether it
// would take the public key (RFC 4252, section 7); when it says that it would,
// and a signature is due, accepted is noted and none is made.
type question struct {
	key      ssh.PublicKey
	accepted bool
}

func (q *question) PublicKey() ssh.PublicKey { return q.key }

func (q *question) Sign(io.Reader, []byte) (*ssh.Signature, error) {
	q.accepted = true
	return nil, errOnlyAsked
}

func (q *question) SignWithAlgorithm(rand io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	return q.Sign(rand, data)
}

func (q *question) Algorithms() []string {
	if q.key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{q.key.Type()}
}
