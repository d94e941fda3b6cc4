// Package agent speaks the ssh-agent protocol, RFC 9987 with the extensions of
// OpenSSH's PROTOCOL.agent.
//
// A Server answers to SSH clients on a Unix socket for keys that lie elsewhere: it
// lists and signs by the functions that it is made with, and holds no key. It signs
// what trust.ParseSignable reads, and nothing else. What a client asks for beyond that,
// such as to take keys in, is refused.
//
// # Sessions
//
// ssh(1) since OpenSSH 8.9 tells an agent which session a connection to it is for
// (session-bind@openssh.com): by the host's key, whose signature over the session is
// checked. A connection over which an agent was forwarded is so known as one, and on it
// nothing is signed unless the Server says otherwise, and the agent neither locked nor
// unlocked; a login on a bound connection must be for that session and that host. Older
// clients bind nothing, and are neither known to be forwarded nor bound.
//
// # The other side
//
// A Client has another agent sign: for Keyturn's own logins by keys that it does not
// hold.
package agent

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// Numbers of messages (RFC 9987).
const (
	failure           = 5
	success           = 6
	requestIdentities = 11
	identitiesAnswer  = 12
	signRequest       = 13
	signResponse      = 14
	lock              = 22
	unlock            = 23
	extension         = 27
	extensionFailure  = 28
	extensionResponse = 29
)

const (
	// maxMessage bounds a message, either way, as OpenSSH does.
	maxMessage = 256 << 10
	// maxConnections bounds how many clients are served at a time. Ansible asks for
	// as many logins at once as it has forks.
	maxConnections = 256
)

// A Key is what an agent lists of a key.
type Key struct {
	Public  trust.PublicKey
	Comment string
}

// A Request asks for a signature.
type Request struct {
	Key  trust.PublicKey
	Data []byte
	What trust.Signable // what Data is
	// Algorithm is of the signature; empty for the one that the type of the key has.
	Algorithm string
	// HostKey is the key of the host that a login is for, where the client told.
	HostKey trust.PublicKey
	// Forwarded says that the request came over a forwarded agent.
	Forwarded bool
}

// A Server is an agent for keys that lie elsewhere. Its fields are set before Serve.
type Server struct {
	// List returns the keys, in the order in which a client tries them.
	List func(context.Context) ([]Key, error)
	// Sign signs. It may be called by many goroutines.
	Sign func(context.Context, Request) (*ssh.Signature, error)
	// Forwarded lets hosts to which the agent is forwarded ask for signatures.
	Forwarded bool
	// Refused is told why a client got no answer but a failure, which is all that
	// the protocol has for it.
	Refused func(error)

	mu         sync.Mutex
	locked     bool           // see ssh-add -x
	passphrase passphraseHash // by which it is unlocked
}

type passphraseHash struct {
	salt [16]byte
	sum  [sha256.Size]byte
}

func (h passphraseHash) of(passphrase []byte) [sha256.Size]byte {
	return sha256.Sum256(append(h.salt[:], passphrase...))
}

// Serve answers to the clients of l until ctx ends, and closes l. When it returns, no
// client is left.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var clients sync.WaitGroup
	defer clients.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer l.Close()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	served := make(chan struct{}, maxConnections) // holds one for each client
	for {
		select {
		case served <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		c, err := l.Accept()
		if err != nil && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
		}
		clients.Go(func() {
			defer func() { <-served }()
			defer c.Close()
			defer context.AfterFunc(ctx, func() { _ = c.Close() })()
			if err := checkPeer(c); err != nil {
				s.refuse(err)
				return
			}
			if err := (&client{server: s}).serve(ctx, c); !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
				s.refuse(err)
			}
		})
	}
}

func (s *Server) refuse(err error) {
	if s.Refused != nil {
		s.Refused(err)
	}
}

// A client is one connection to a Server.
type client struct {
	server *Server
	bound  []binding // oldest first
}

// serve answers to messages until the client is gone, and returns why: io.EOF at its end.
func (c *client) serve(ctx context.Context, conn io.ReadWriter) error {
	for {
		var length [4]byte
		if _, err := io.ReadFull(conn, length[:]); err != nil {
			return err
		}
		n := binary.BigEndian.Uint32(length[:])
		if n == 0 || n > maxMessage {
			return trust.Errorf(trust.Invalid, "a client sent a message of %d bytes, not 1 to %d", n, maxMessage)
		}
		message := make([]byte, n)
		if _, err := io.ReadFull(conn, message); err != nil {
			return err
		}
		answer, err := c.answer(ctx, message)
		if err != nil {
			c.server.refuse(err)
			answer = []byte{failure}
			if message[0] == extension {
				answer[0] = extensionFailure
			}
		}
		if _, err := conn.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(answer))), answer...)); err != nil {
			return err
		}
	}
}

// answer does what a message asks for. An error becomes a failure.
func (c *client) answer(ctx context.Context, message []byte) ([]byte, error) {
	switch message[0] {
	case requestIdentities:
		return c.list(ctx)
	case signRequest:
		return c.sign(ctx, message)
	case extension:
		return c.extension(message)
	case lock, unlock:
		return c.lock(message)
	}
	return nil, trust.Errorf(trust.Invalid, "a client asked for message %d: keys are neither added nor removed here", message[0])
}

// list answers with the keys that fit into a message, from the first on.
func (c *client) list(ctx context.Context) ([]byte, error) {
	if c.server.isLocked() {
		return ssh.Marshal(identities{}), nil
	}
	keys, err := c.server.List(ctx)
	if err != nil {
		return nil, err
	}
	var all identities
	for _, k := range keys {
		next := ssh.Marshal(struct {
			Blob    []byte
			Comment string
		}{k.Public.Blob(), k.Comment})
		if len(all.Keys)+len(next) > maxMessage-1024 {
			c.server.refuse(trust.Errorf(trust.Exhausted, "only the first %d of %d keys are listed", all.Count, len(keys)).WithHint("choose some with --key"))
			break
		}
		all.Count++
		all.Keys = append(all.Keys, next...)
	}
	return ssh.Marshal(all), nil
}

// identities is SSH_AGENT_IDENTITIES_ANSWER.
type identities struct {
	Count uint32 `sshtype:"12"`
	Keys  []byte `ssh:"rest"`
}

// sign answers with a signature.
func (c *client) sign(ctx context.Context, message []byte) ([]byte, error) {
	var m struct {
		Key   []byte `sshtype:"13"`
		Data  []byte
		Flags uint32
	}
	if err := ssh.Unmarshal(message, &m); err != nil {
		return nil, malformed(err)
	}
	if c.server.isLocked() {
		return nil, trust.Errorf(trust.Denied, "the agent is locked").WithHint("ssh-add -X")
	}
	key, err := trust.ParsePublicKeyBlob(m.Key)
	if err != nil {
		return nil, err
	}
	what, err := trust.ParseSignable(m.Data)
	if err != nil {
		return nil, err
	}
	r := Request{Key: key, Data: m.Data, What: what, Algorithm: algorithm(key, m.Flags), HostKey: what.HostKey}
	if err := c.bind(&r); err != nil {
		return nil, err
	}
	signature, err := c.server.Sign(ctx, r)
	if err != nil {
		return nil, err
	}
	return ssh.Marshal(struct {
		Signature []byte `sshtype:"14"`
	}{ssh.Marshal(signature)}), nil
}

// algorithm returns the signature algorithm that flags ask for.
func algorithm(key trust.PublicKey, flags uint32) string {
	const sha256, sha512 = 2, 4
	switch {
	case key.Type() != ssh.KeyAlgoRSA:
		return ""
	case flags&sha512 != 0:
		return ssh.KeyAlgoRSASHA512
	case flags&sha256 != 0:
		return ssh.KeyAlgoRSASHA256
	}
	return ssh.KeyAlgoRSA
}

// lock locks or unlocks the agent, for every client. That is not for hosts that the
// agent is forwarded to.
func (c *client) lock(message []byte) ([]byte, error) {
	var m struct {
		Passphrase []byte `sshtype:"22|23"`
	}
	if err := ssh.Unmarshal(message, &m); err != nil {
		return nil, malformed(err)
	}
	if host, ok := c.forwardedTo(); ok {
		return nil, trust.Errorf(trust.Denied, "the agent was to be locked, or unlocked, over the agent that is forwarded to the host with key %s", host.Fingerprint())
	}
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.locked == (message[0] == lock) {
		return nil, trust.Errorf(trust.Conflict, "the agent is locked, or unlocked, already")
	}
	if s.locked {
		if sum := s.passphrase.of(m.Passphrase); subtle.ConstantTimeCompare(sum[:], s.passphrase.sum[:]) == 0 {
			return nil, trust.Errorf(trust.Denied, "not the passphrase that the agent is locked with")
		}
		s.locked, s.passphrase = false, passphraseHash{}
		return []byte{success}, nil
	}
	_, _ = rand.Read(s.passphrase.salt[:]) // never fails: see crypto/rand
	s.passphrase.sum = s.passphrase.of(m.Passphrase)
	s.locked = true
	return []byte{success}, nil
}

func (s *Server) isLocked() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.locked
}

func malformed(err error) error {
	return trust.Errorf(trust.Invalid, "a client's message cannot be read: %w", err)
}
