package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A Conn is an authenticated connection. Its methods are safe for concurrent use.
// It is kept alive, and closed when the host no longer answers.
type Conn struct {
	*ssh.Client
	target   Target
	openedBy string
	hostKey  trust.PublicKey

	broken    chan struct{} // closed when the connection has ended
	announced announcement
}

// OpenedBy returns the ID of the credential that opened the connection.
func (c *Conn) OpenedBy() string { return c.openedBy }

// Target returns what was dialed.
func (c *Conn) Target() Target { return c.target }

// HostKey returns the pinned key that the host presented.
func (c *Conn) HostKey() trust.PublicKey { return c.hostKey }

// Version returns the server's identification string, such as
// "SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7".
func (c *Conn) Version() string { return string(c.ServerVersion()) }

// Broken reports whether the connection has ended, as far as is known: a host
// that fell silent is found out within half a minute.
func (c *Conn) Broken() bool {
	select {
	case <-c.broken:
		return true
	default:
		return false
	}
}

// Dial connects to t and authenticates with the first of the credentials that the
// server takes, offered in their order. It needs more than one connection only
// where the server allows fewer tries than there are credentials.
func Dial(ctx context.Context, t Target, credentials []Credential) (*Conn, error) {
	steps, err := signing(credentials)
	if err != nil {
		return nil, err
	}
	s, err := login(ctx, t, steps, defaultPatience())
	if err != nil {
		return nil, err
	}
	c := &Conn{target: t, openedBy: s.winner.id, hostKey: s.hostKey, broken: make(chan struct{})}
	// x/crypto/ssh would answer every global request with no and forget it.
	none := make(chan *ssh.Request)
	close(none)
	c.Client = ssh.NewClient(s.conn, s.channels, none)
	go c.listen(s.requests)
	go c.keepAlive()
	return c, nil
}

// Learn connects to an address just far enough to see the host key that it
// presents, ed25519 before others, and its identification string. Nothing vouches
// for the answer.
func Learn(ctx context.Context, address string, source netip.Addr) (key trust.PublicKey, banner string, err error) {
	t := Target{Address: address, User: "keyturn", Source: source}
	w, err := openWire(ctx, t, defaultPatience())
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	defer func() { _ = w.Close() }()
	defer context.AfterFunc(ctx, func() { _ = w.Close() })()
	config := configFor(t)
	config.HostKeyCallback = func(_ string, _ net.Addr, k ssh.PublicKey) error {
		key = trust.PublicKeyOf(k)
		return errLearned
	}
	_, _, _, err = ssh.NewClientConn(w, address, config)
	if !errors.Is(err, errLearned) {
		return trust.PublicKey{}, "", explain(ctx, t, w, err)
	}
	_, banner, _, _ = w.said()
	return key, banner, nil
}

// errLearned ends a handshake that was only made to see the host key.
var errLearned = errors.New("dial: host key seen")

// A session is what a login yields.
type session struct {
	conn     ssh.Conn
	channels <-chan ssh.NewChannel
	requests <-chan *ssh.Request
	hostKey  trust.PublicKey
	winner   *step
}

// maxConnections bounds how often login connects again because the server cut it
// off with credentials left to offer.
const maxConnections = 5

// login connects and offers the steps in order. On success the wire has no
// deadline any more and the connection is the caller's to close. Steps keep what
// became of them in either case.
func login(ctx context.Context, t Target, steps []*step, p patience) (*session, error) {
	if err := t.check(); err != nil {
		return nil, err
	}
	if len(steps) == 0 {
		return nil, trust.Errorf(trust.Invalid, "there is no credential for %q at %s", t.User, t.Address)
	}
	for connection := 1; ; connection++ {
		s, again, err := loginOnce(ctx, t, steps, p)
		if err == nil || !again || connection == maxConnections {
			return s, err
		}
	}
}

// loginOnce makes one connection. again says that the server cut it off before
// every step was answered.
func loginOnce(ctx context.Context, t Target, steps []*step, p patience) (s *session, again bool, err error) {
	w, err := openWire(ctx, t, p)
	if err != nil {
		return nil, false, err
	}
	stop := context.AfterFunc(ctx, func() { _ = w.Close() })
	defer stop()
	s = &session{}
	a := &authentication{wire: w, steps: steps}
	config := configFor(t)
	config.User = t.User
	config.AuthCallback, config.BannerCallback = a.next, a.banner
	config.HostKeyCallback = func(_ string, _ net.Addr, k ssh.PublicKey) error {
		s.hostKey = trust.PublicKeyOf(k)
		if err := pinned(t, s.hostKey); err != nil {
			return err
		}
		w.enter(authenticating)
		return nil
	}
	s.conn, s.channels, s.requests, err = ssh.NewClientConn(w, t.Address, config)
	if err != nil && a.closed() {
		return nil, false, trust.Errorf(trust.Unavailable, "%s lets nobody in to %q for now, as a machine does that starts or stops: it says %q", t.Address, t.User, firstLine(a.notice))
	}
	winner := a.current
	again = a.ended(err)
	if err != nil {
		if errors.Is(err, errExhausted) || (strings.Contains(err.Error(), tooManyTries) && !a.left()) {
			cause := &RefusedError{Address: t.Address, User: t.User, Tried: a.attempts(), Offers: a.methods}
			return nil, false, &trust.Error{Kind: trust.Denied, Message: cause.Error(), Err: cause}
		}
		if winner != nil && winner.cut && winner.outcome == Matched && !again {
			cause := &RefusedError{Address: t.Address, User: t.User, Tried: a.attempts(), Offers: a.methods}
			message := cause.Error() + ": it ends the connection when the key has signed, as sshd does where PAM lets nobody in to the account"
			if a.notice != "" {
				message += fmt.Sprintf("; it says %q", firstLine(a.notice))
			}
			return nil, false, &trust.Error{Kind: trust.Denied, Message: message, Err: cause}
		}
		return nil, again, explain(ctx, t, w, err)
	}
	if winner == nil {
		_ = s.conn.Close()
		return nil, false, trust.Errorf(trust.Conflict, "%s lets %q in without any credential, so that no key of that login can be proven or refused", t.Address, t.User).
			WithHint("give the account a password or lock it, and set PermitEmptyPasswords no")
	}
	// SSH_MSG_USERAUTH_SUCCESS is not yet a login: sshd's unprivileged half may
	// send it although its monitor then refuses, as it does for root with
	// PermitRootLogin forced-commands-only. What answers a request has let us in.
	if _, _, err := s.conn.SendRequest("keepalive@openssh.com", true, nil); err != nil {
		_ = s.conn.Close()
		if _, _, _, broken := w.said(); isGone(broken) && ctx.Err() == nil {
			winner.outcome = Matched
			cause := &RefusedError{Address: t.Address, User: t.User, Tried: a.attempts(), Offers: a.methods}
			return nil, false, &trust.Error{Kind: trust.Denied, Message: cause.Error() + ": it ended the connection right after the login", Err: cause}
		}
		return nil, false, explain(ctx, t, w, err)
	}
	if !stop() {
		_ = s.conn.Close()
		return nil, false, explain(ctx, t, w, ctx.Err())
	}
	w.enter(working)
	s.winner = winner
	return s, false, nil
}

// configFor returns the algorithms that are spoken with t. The host key types that
// are pinned come first: the server then proves the pinned key if it has it, and
// another one if not, which is what makes the error precise.
func configFor(t Target) *ssh.ClientConfig {
	var hostKeys []string
	for _, pin := range t.Pins {
		hostKeys = append(hostKeys, hostKeyAlgorithms(pin.Type())...)
	}
	for _, keyType := range []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521, ssh.KeyAlgoRSA} {
		for _, algorithm := range hostKeyAlgorithms(keyType) {
			if !slices.Contains(hostKeys, algorithm) {
				hostKeys = append(hostKeys, algorithm)
			}
		}
	}
	return &ssh.ClientConfig{
		Config: ssh.Config{
			// An OpenSSH before 9.9 has no ML-KEM and so gets curve25519, never
			// the sntrup761 that costs it, and its clients, three times as much.
			KeyExchanges: []string{ssh.KeyExchangeMLKEM768X25519, ssh.KeyExchangeCurve25519, ssh.KeyExchangeECDHP256, ssh.KeyExchangeECDHP384, ssh.KeyExchangeECDHP521, ssh.KeyExchangeDH16SHA512, ssh.KeyExchangeDH14SHA256},
			// chacha20 comes late: x/crypto/ssh has no assembly for it.
			Ciphers: []string{ssh.CipherAES128GCM, ssh.CipherAES256GCM, ssh.CipherChaCha20Poly1305, ssh.CipherAES128CTR, ssh.CipherAES192CTR, ssh.CipherAES256CTR},
			MACs:    []string{ssh.HMACSHA256ETM, ssh.HMACSHA512ETM, ssh.HMACSHA256, ssh.HMACSHA512},
		},
		ClientVersion:     "SSH-2.0-Keyturn",
		HostKeyAlgorithms: hostKeys,
	}
}

// hostKeyAlgorithms returns the signature algorithms of a host key type that are
// sound.
func hostKeyAlgorithms(keyType string) []string {
	switch keyType {
	case "":
		return nil
	case ssh.KeyAlgoRSA:
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{keyType}
}

const (
	keepAliveEvery    = 15 * time.Second
	keepAlivePatience = 20 * time.Second
)

// keepAlive asks the server now and then whether it is there, and closes the
// connection when it is not. Any answer will do: sshd says no to a request that it
// does not know.
func (c *Conn) keepAlive() {
	ticker := time.NewTicker(keepAliveEvery)
	defer ticker.Stop()
	for {
		select {
		case <-c.broken:
			return
		case <-ticker.C:
		}
		overdue := time.AfterFunc(keepAlivePatience, func() { _ = c.Client.Close() })
		_, _, err := c.SendRequest("keepalive@openssh.com", true, nil)
		overdue.Stop()
		if err != nil {
			return
		}
	}
}

// addrPort returns addr with any port.
func addrPort(addr netip.Addr) netip.AddrPort { return netip.AddrPortFrom(addr, 0) }
