package dial

import (
	"crypto/rand"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A Target is a login and how to reach it.
type Target struct {
	Name    string // of the host, for hints
	Address string // "host:port"
	User    string
	// Pins are the host keys of which the host must prove one. There is no
	// connection without any.
	Pins []trust.PublicKey
	// Source is the local address to connect from, where from= lists ask for
	// one; the zero value leaves the choice to the system.
	Source netip.Addr
}

// check refuses a target that can never be reached.
func (t Target) check() error {
	host, port, err := net.SplitHostPort(t.Address)
	if err != nil || host == "" || port == "" {
		return trust.Errorf(trust.Invalid, "address %q is not of the form host:port", t.Address).WithField("address")
	}
	if t.User == "" || strings.ContainsAny(t.User, "\x00\r\n") {
		return trust.Errorf(trust.Invalid, "login %q cannot be a user name", t.User).WithField("user")
	}
	if len(t.Pins) == 0 {
		return trust.Errorf(trust.Conflict, "no host key of %s is known", t.Address).
			WithHint("confirm one: keyturn host confirm %s --host-key KEY", t.Name)
	}
	return nil
}

// A Credential is one way to log in: a key that we can sign with, or a password.
// It never prints its secret.
type Credential struct {
	// ID is how the caller knows it. Conn.OpenedBy returns it.
	ID       string
	signer   ssh.Signer
	password string
}

// KeyCredential authenticates with a key, or with a certificate where the
// signer's public key is one.
func KeyCredential(id string, signer ssh.Signer) Credential {
	return Credential{ID: id, signer: signer}
}

// PasswordCredential authenticates with a password, by either of the two methods
// that servers ask for one (RFC 4252, section 8; RFC 4256). It answers a single
// question without echo, and nothing else.
func PasswordCredential(id, password string) Credential {
	return Credential{ID: id, password: password}
}

// String returns c's ID.
func (c Credential) String() string { return c.ID }

// GoString returns c's ID, and keeps %#v from printing the secret.
func (c Credential) GoString() string { return "dial.Credential{" + c.ID + "}" }

// A publicHalf is a public key of any type, also of those that x/crypto/ssh does
// not know: all that is ever done with it is to send it. It remembers whether it
// was sent, because x/crypto/ssh passes over a key in silence if it finds no
// signature algorithm for it, and silence must not count as a refusal.
type publicHalf struct {
	key     trust.PublicKey
	offered *bool
}

func (p publicHalf) Type() string { return p.key.Type() }

func (p publicHalf) Marshal() []byte {
	*p.offered = true
	return p.key.Blob()
}

func (p publicHalf) Verify([]byte, *ssh.Signature) error {
	return trust.Errorf(trust.Internal, "a public key that is only offered verifies nothing")
}

// An offer is a key as one authentication attempt presents it.
type offer struct {
	key        trust.PublicKey
	algorithms []string            // signature algorithms, best first
	signer     ssh.AlgorithmSigner // nil: the public half is all we have
	offered    bool                // it was sent
	matched    bool                // the server answered that a signature by it would do (SSH_MSG_USERAUTH_PK_OK)
	failed     error               // the signer could not sign
}

// newOffer returns the offer of a key that we can sign with. RSA keys must be
// able to sign with SHA-2.
func newOffer(signer ssh.Signer) (*offer, error) {
	key := trust.PublicKeyOf(signer.PublicKey())
	t := keyType(key.Type())
	as, ok := signer.(ssh.AlgorithmSigner)
	if t != ssh.KeyAlgoRSA {
		if !ok {
			as = plainSigner{signer}
		}
		return &offer{key: key, algorithms: []string{t}, signer: as}, nil
	}
	algorithms := []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	if m, ok := signer.(ssh.MultiAlgorithmSigner); ok {
		algorithms = slices.DeleteFunc(algorithms, func(a string) bool { return !slices.Contains(m.Algorithms(), a) })
	}
	if !ok || len(algorithms) == 0 {
		return nil, trust.Errorf(trust.Invalid, "the RSA key %s cannot sign with SHA-2", key.Fingerprint())
	}
	return &offer{key: key, algorithms: algorithms, signer: as}, nil
}

// plainSigner is a signer with a single algorithm.
type plainSigner struct{ ssh.Signer }

func (s plainSigner) SignWithAlgorithm(rand io.Reader, data []byte, _ string) (*ssh.Signature, error) {
	return s.Sign(rand, data)
}

// PublicKey is called by x/crypto/ssh.
func (o *offer) PublicKey() ssh.PublicKey { return publicHalf{o.key, &o.offered} }

// Algorithms is called by x/crypto/ssh.
func (o *offer) Algorithms() []string { return o.algorithms }

// Sign is called by nobody: x/crypto/ssh names the algorithm.
func (o *offer) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return o.SignWithAlgorithm(rand, data, "")
}

// SignWithAlgorithm is called once the server has said that it takes the key.
func (o *offer) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	o.matched = true
	if o.signer == nil {
		return nil, errOnlyAsked
	}
	signature, err := o.signer.SignWithAlgorithm(rand.Reader, data, algorithm)
	o.failed = err
	return signature, err
}

// errOnlyAsked makes x/crypto/ssh go on without a signature.
var errOnlyAsked = trust.Errorf(trust.Denied, "only the public half of the key is at hand")

// keyType returns the type of the key that a certificate type is for, or t.
func keyType(t string) string {
	base, isCert := strings.CutSuffix(t, "-cert-v01@openssh.com")
	if isCert && strings.HasPrefix(base, "sk-") {
		return base + "@openssh.com"
	}
	return base
}
