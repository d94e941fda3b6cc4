// Package dial makes one SSH connection to a host whose key is known.
//
// It is where the house meets x/crypto/ssh: which algorithms are offered, how
// long each phase may take, what a server announced, and what each way to fail
// means to a caller. A connection is made only to a host that presents one of
// the pinned keys; there is no option to do without.
//
// # Proving and disproving
//
// [Prove] finds out whether a key opens an account, by a login that opens no
// channel, so that no command, rc file or shell of the account runs. [Disprove]
// finds out that a key no longer does, and rides in a connection that ends in
// success: a failed login counts against our address where the server has
// PerSourcePenalties (OpenSSH 9.8) or a log watcher, and would lock out the
// very program that is there to prevent that.
package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// How long each phase of a connection may take.
const (
	tcpTimeout  = 10 * time.Second // until the TCP connection stands
	kexTimeout  = 20 * time.Second // until the host has proven its key
	authTimeout = 30 * time.Second // until it has let us in: PAM and DNS can be slow
)

// clientVersion is how we introduce ourselves (RFC 4253, section 4.2).
const clientVersion = "SSH-2.0-Keyturn"

// A Target is an account on a host, and where to find it.
type Target struct {
	Address string // "host:port"
	User    string
	// Pins are the host keys of which the host must present one.
	Pins []trust.PublicKey
	// Source is the local address to connect from; the zero Addr leaves that
	// to the system.
	Source netip.Addr
}

// A Credential is one way to authenticate as a Target's user.
type Credential struct {
	// ID is how the caller knows it. Conn.OpenedBy returns it.
	ID     string
	name   string // of the method (RFC 4252)
	method ssh.AuthMethod
}

// KeyCredential authenticates with a key, or with a certificate where the
// signer's public key is one.
func KeyCredential(id string, signer ssh.Signer) Credential {
	return Credential{ID: id, name: "publickey", method: ssh.PublicKeys(modern(signer))}
}

// PasswordCredential authenticates with a password, by either of the two
// methods that servers ask for one (RFC 4252, section 8; RFC 4256). It answers
// a single question without echo, and nothing else.
func PasswordCredential(id, password string) []Credential {
	answer := func(_, _ string, questions []string, echos []bool) ([]string, error) {
		if len(questions) == 0 {
			return nil, nil
		}
		if len(questions) > 1 || echos[0] {
			return nil, errors.New("the server asks for more than a password")
		}
		return []string{password}, nil
	}
	return []Credential{
		{ID: id, name: "password", method: ssh.Password(password)},
		{ID: id, name: "keyboard-interactive", method: ssh.KeyboardInteractive(answer)},
	}
}

// A Conn is an authenticated connection.
type Conn struct {
	*ssh.Client
	target   Target
	openedBy string
	hostKey  trust.PublicKey

	broken chan struct{} // closed when the connection has ended

	mu        sync.Mutex
	announced []trust.PublicKey
}

// OpenedBy returns the ID of the credential that opened the connection.
func (c *Conn) OpenedBy() string { return c.openedBy }

// Target returns what was dialed.
func (c *Conn) Target() Target { return c.target }

// HostKey returns the pinned key that the host presented.
func (c *Conn) HostKey() trust.PublicKey { return c.hostKey }

// Broken reports whether the connection has ended, as far as is known: a host
// that fell silent is found out by asking it something.
func (c *Conn) Broken() bool {
	select {
	case <-c.broken:
		return true
	default:
		return false
	}
}

// Version returns the server's banner, such as
// "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7".
func (c *Conn) Version() string { return string(c.ServerVersion()) }

// Announced returns the host keys that the server has announced so far by
// hostkeys-00@openssh.com (OpenSSH's PROTOCOL, section 2.5): claims, of which
// it has proven none but HostKey. They come some time after the login.
func (c *Conn) Announced() []trust.PublicKey {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.announced)
}

// A HostKeyError says that a host presented a key that is not pinned. It is
// the cause of a Conflict error.
type HostKeyError struct {
	Address string
	Got     trust.PublicKey
	Want    []trust.PublicKey
}

func (e *HostKeyError) Error() string {
	want := make([]string, len(e.Want))
	for i, k := range e.Want {
		want[i] = fmt.Sprintf("%s (%s)", k.Fingerprint(), k.Type())
	}
	return fmt.Sprintf("%s presents the host key %s (%s) and is known by %s: another machine answers there, or its key was changed",
		e.Address, e.Got.Fingerprint(), e.Got.Type(), strings.Join(want, ", "))
}

// A RefusedError says that a host let us in with none of the credentials. It is
// the cause of a Denied error.
type RefusedError struct {
	Address, User string
	Tried         []string // IDs of the credentials, in order
	Offers        []string // the methods by which the server would go on
}

func (e *RefusedError) Error() string {
	if len(e.Tried) == 0 {
		return fmt.Sprintf("%s lets %s in by %s only, for which there is no credential", e.Address, e.User, strings.Join(e.Offers, ", "))
	}
	return fmt.Sprintf("%s refuses %s with each of %d credentials (%s)", e.Address, e.User, len(e.Tried), strings.Join(e.Tried, ", "))
}

// Dial connects to t and authenticates with the first of the credentials that
// the server takes, all in one connection. Errors:
//
//   - Unavailable: the host does not answer, or not now;
//   - Conflict: it presents a key that is not pinned (a *HostKeyError), or has
//     none of the pinned types;
//   - Denied: it takes none of the credentials (a *RefusedError).
func Dial(ctx context.Context, t Target, credentials []Credential) (*Conn, error) {
	a := attempt{target: t, credentials: credentials}
	return a.connect(ctx)
}

// An attempt is one connection in the making.
type attempt struct {
	target      Target
	credentials []Credential

	// What the attempt has come to know, each set by one callback of x/crypto
	// on the goroutine that runs the handshake.
	hostKey   trust.PublicKey
	tried     []string
	current   string // ID of the credential in use
	onPartial func() error
	partial   bool
}

// errExhausted ends a handshake that has no credential left.
var errExhausted = errors.New("no credential left")

// connect runs the attempt.
func (a *attempt) connect(ctx context.Context) (*Conn, error) {
	if len(a.target.Pins) == 0 {
		return nil, trust.Errorf(trust.Conflict, "no host key of %s is known", a.target.Address)
	}
	raw, err := connectTCP(ctx, a.target.Address, a.target.Source)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	conn, err := a.handshake(ctx, raw)
	if !stop() && err == nil { // the context ended while we were coming to an end ourselves
		_ = conn.Close()
		err = gone(ctx, a.target.Address)
	}
	if err != nil {
		_ = raw.Close()
		return nil, err
	}
	return conn, nil
}

func (a *attempt) handshake(ctx context.Context, raw *socket) (*Conn, error) {
	if err := raw.SetDeadline(time.Now().Add(kexTimeout)); err != nil {
		return nil, unavailable(a.target.Address, err)
	}
	config := baseConfig(a.target.User)
	config.HostKeyAlgorithms = hostKeyAlgorithms(a.target.Pins)
	config.HostKeyCallback = func(_ string, _ net.Addr, key ssh.PublicKey) error {
		a.hostKey = trust.PublicKeyOf(key)
		if !slices.Contains(a.target.Pins, a.hostKey) {
			return &HostKeyError{Address: a.target.Address, Got: a.hostKey, Want: a.target.Pins}
		}
		return raw.SetDeadline(time.Now().Add(authTimeout))
	}
	config.AuthCallback = a.nextMethod
	sshConn, channels, requests, err := ssh.NewClientConn(raw, a.target.Address, config)
	if err != nil {
		return nil, a.explain(ctx, raw, err)
	}
	if err := raw.SetDeadline(time.Time{}); err != nil {
		_ = sshConn.Close()
		return nil, unavailable(a.target.Address, err)
	}
	c := &Conn{target: a.target, openedBy: a.current, hostKey: a.hostKey, broken: make(chan struct{})}
	c.Client = ssh.NewClient(sshConn, channels, c.listen(requests))
	return c, nil
}

// nextMethod hands x/crypto one credential at a time, so that we know which of
// them the server took.
func (a *attempt) nextMethod(state *ssh.ClientAuthContext) (ssh.AuthMethod, error) {
	if !a.partial && slices.Contains(state.PartialSuccessMethods, "publickey") {
		a.partial = true
		if a.onPartial != nil {
			if err := a.onPartial(); err != nil {
				return nil, err
			}
		}
	}
	for len(a.credentials) > 0 {
		c := a.credentials[0]
		a.credentials = a.credentials[1:]
		if !slices.Contains(state.AllowedMethods, c.name) {
			continue
		}
		a.current = c.ID
		if len(a.tried) == 0 || a.tried[len(a.tried)-1] != c.ID {
			a.tried = append(a.tried, c.ID)
		}
		return c.method, nil
	}
	return nil, &exhaustedError{offers: slices.Clone(state.AllowedMethods)}
}

type exhaustedError struct{ offers []string }

func (e *exhaustedError) Error() string        { return errExhausted.Error() }
func (e *exhaustedError) Is(target error) bool { return target == errExhausted }

// explain says what the failure of a handshake means.
func (a *attempt) explain(ctx context.Context, raw *socket, err error) error {
	var changed *HostKeyError
	if errors.As(err, &changed) {
		return trust.Errorf(trust.Conflict, "%w", changed).
			WithHint("where the change is right: keyturn host confirm NAME --host-key \"%s\"", changed.Got)
	}
	var exhausted *exhaustedError
	if errors.As(err, &exhausted) {
		return trust.Errorf(trust.Denied, "%w", &RefusedError{Address: a.target.Address, User: a.target.User, Tried: a.tried, Offers: exhausted.offers})
	}
	if ctx.Err() != nil {
		return gone(ctx, a.target.Address)
	}
	var negotiation *ssh.AlgorithmNegotiationError
	if errors.As(err, &negotiation) {
		return trust.Errorf(trust.Conflict, "%s and we have no algorithm in common: %w", a.target.Address, err)
	}
	if said := raw.said(); said != "" {
		return trust.Errorf(trust.Unavailable, "%s sent us away before the key exchange: %q", a.target.Address, said).
			WithHint("an sshd with PerSourcePenalties or MaxStartups does that for a while; exempt Keyturn's address by PerSourcePenaltyExemptList")
	}
	if a.hostKey.IsZero() {
		return trust.Errorf(trust.Unavailable, "%s did not complete the key exchange: %w", a.target.Address, err)
	}
	if len(a.tried) > 3 {
		// More keys than MaxAuthTries: the server hangs up rather than answer.
		return trust.Errorf(trust.Denied, "%w", &RefusedError{Address: a.target.Address, User: a.target.User, Tried: a.tried})
	}
	return trust.Errorf(trust.Unavailable, "%s broke off while %s was logging in: %w", a.target.Address, a.target.User, err)
}

// listen takes hostkeys-00 from the server's global requests and refuses the
// others, as a client should (RFC 4254, section 4). It ends with the connection.
func (c *Conn) listen(requests <-chan *ssh.Request) <-chan *ssh.Request {
	rest := make(chan *ssh.Request)
	go func() {
		defer close(c.broken)
		defer close(rest)
		for r := range requests {
			if r.Type == "hostkeys-00@openssh.com" {
				c.hear(r.Payload)
			}
			if r.WantReply {
				_ = r.Reply(false, nil) // the connection is gone then, which its user will notice
			}
		}
	}()
	return rest
}

// maxAnnounced bounds what a server can make us keep.
const maxAnnounced = 64

func (c *Conn) hear(payload []byte) {
	var keys []trust.PublicKey
	for len(payload) > 0 && len(keys) < maxAnnounced {
		var item struct {
			Blob []byte
			Rest []byte `ssh:"rest"`
		}
		if ssh.Unmarshal(payload, &item) != nil {
			return
		}
		if k, err := trust.ParsePublicKeyBlob(item.Blob); err == nil {
			keys = append(keys, k)
		}
		payload = item.Rest
	}
	c.mu.Lock()
	c.announced = keys
	c.mu.Unlock()
}

// Learn connects to an address just far enough to see the host key that it
// presents, and its banner. Nothing vouches for the answer.
func Learn(ctx context.Context, address string, source netip.Addr) (key trust.PublicKey, banner string, err error) {
	raw, err := connectTCP(ctx, address, source)
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
	defer stop()
	if err := raw.SetDeadline(time.Now().Add(kexTimeout)); err != nil {
		return trust.PublicKey{}, "", unavailable(address, err)
	}
	a := attempt{target: Target{Address: address}}
	learned := errors.New("seen enough")
	config := baseConfig("keyturn")
	config.HostKeyAlgorithms = hostKeyAlgorithms(nil)
	config.HostKeyCallback = func(_ string, _ net.Addr, k ssh.PublicKey) error {
		a.hostKey = trust.PublicKeyOf(k)
		return learned
	}
	_, _, _, err = ssh.NewClientConn(raw, address, config)
	if !errors.Is(err, learned) {
		return trust.PublicKey{}, "", a.explain(ctx, raw, err)
	}
	return a.hostKey, raw.banner(), nil
}

func gone(ctx context.Context, address string) error {
	return trust.Errorf(trust.Unavailable, "connection to %s: %w", address, context.Cause(ctx))
}

func unavailable(address string, err error) error {
	return trust.Errorf(trust.Unavailable, "connection to %s: %w", address, err)
}
