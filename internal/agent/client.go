package agent

import (
	"bytes"
	"context"
	"io"
	"net"
	"slices"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"keyturn/internal/trust"
)

// askFor bounds how long an agent is waited for. One that asks a person, or a slow
// token, may take some seconds.
const askFor = 10 * time.Second

// A Client has another agent sign: ssh-agent(1), also with a token behind it that
// "ssh-add -s" named, or whatever else speaks the protocol. It keeps no connection, so
// that an agent may be started again at any time. It may be used by many goroutines.
type Client struct {
	socket string
}

// NewClient returns the client of the agent at a socket.
func NewClient(socket string) *Client { return &Client{socket} }

// Signer returns what signs with a key, which the agent must have now. Errors:
// Unavailable, which names the socket and the key.
func (c *Client) Signer(ctx context.Context, key trust.PublicKey) (ssh.Signer, error) {
	public, err := key.SSH()
	if err != nil {
		return nil, err
	}
	s := &signer{client: c, key: key, public: public, algorithms: []string{key.Type()}}
	if key.Type() == ssh.KeyAlgoRSA {
		s.algorithms = []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	var keys []*agent.Key
	err = c.ask(ctx, key, func(a agent.ExtendedAgent) (err error) {
		keys, err = a.List()
		return err
	})
	if err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(keys, func(k *agent.Key) bool { return bytes.Equal(k.Blob, key.Blob()) }) {
		return nil, trust.Errorf(trust.Unavailable, "the ssh-agent at %s does not have key %s", c.socket, key.Fingerprint()).
			WithHint("SSH_AUTH_SOCK=%s ssh-add FILE, or ssh-add -s PROVIDER for a token", c.socket)
	}
	return s, nil
}

// ask connects to the agent for one question about a key.
func (c *Client) ask(ctx context.Context, key trust.PublicKey, question func(agent.ExtendedAgent) error) error {
	dialer := net.Dialer{Timeout: askFor}
	conn, err := dialer.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return c.failed(key, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if err := conn.SetDeadline(time.Now().Add(askFor)); err != nil {
		return c.failed(key, err)
	}
	if err := question(agent.NewClient(conn)); err != nil {
		return c.failed(key, err)
	}
	return nil
}

func (c *Client) failed(key trust.PublicKey, err error) error {
	return trust.Errorf(trust.Unavailable, "the ssh-agent at %s does not sign with key %s: %w", c.socket, key.Fingerprint(), err).
		WithHint("SSH_AUTH_SOCK=%s ssh-add -l", c.socket)
}

// A signer signs with a key of an agent.
type signer struct {
	client     *Client
	key        trust.PublicKey
	public     ssh.PublicKey
	algorithms []string // best first
}

var _ ssh.MultiAlgorithmSigner = (*signer)(nil)

// PublicKey implements ssh.Signer.
func (s *signer) PublicKey() ssh.PublicKey { return s.public }

// Algorithms implements ssh.MultiAlgorithmSigner.
func (s *signer) Algorithms() []string { return slices.Clone(s.algorithms) }

// Sign implements ssh.Signer with the first of Algorithms.
func (s *signer) Sign(rand io.Reader, data []byte) (*ssh.Signature, error) {
	return s.SignWithAlgorithm(rand, data, s.algorithms[0])
}

// SignWithAlgorithm implements ssh.AlgorithmSigner. An agent that signs by another
// algorithm than it was asked for, as some do that know no SHA-2, is an error.
func (s *signer) SignWithAlgorithm(_ io.Reader, data []byte, algorithm string) (signature *ssh.Signature, err error) {
	flags := map[string]agent.SignatureFlags{
		ssh.KeyAlgoRSASHA256: agent.SignatureFlagRsaSha256, ssh.KeyAlgoRSASHA512: agent.SignatureFlagRsaSha512,
	}[algorithm]
	err = s.client.ask(context.Background(), s.key, func(a agent.ExtendedAgent) (err error) {
		signature, err = a.SignWithFlags(s.public, data, flags)
		return err
	})
	if err == nil && signature.Format != algorithm {
		err = s.client.failed(s.key, trust.Errorf(trust.Invalid, "it was asked for %s, and answered with %s", algorithm, signature.Format))
	}
	return signature, err
}
