package agent

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// A world is a Server at a socket, which has one key, and what it was asked.
type world struct {
	*Server
	t      *testing.T
	socket string
	signer ssh.Signer

	mu       sync.Mutex
	requests []Request // that were signed
	refused  []string
}

func newWorld(t *testing.T, forwarded bool) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "kta")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	w := &world{t: t, socket: filepath.Join(dir, "folder", "s"), signer: newSigner(t)}
	w.Server = &Server{
		Forwarded: forwarded,
		List: func(context.Context) ([]Key, error) {
			return []Key{{Public: trust.PublicKeyOf(w.signer.PublicKey()), Comment: "deploy"}}, nil
		},
		Sign: func(_ context.Context, r Request) (*ssh.Signature, error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.requests = append(w.requests, r)
			return w.signer.Sign(rand.Reader, r.Data)
		},
		Refused: func(err error) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refused = append(w.refused, err.Error())
		},
	}
	l, err := Listen(w.socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { done <- w.Serve(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func newSigner(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// dial connects as a client does.
func (w *world) dial() agent.ExtendedAgent {
	w.t.Helper()
	c, err := net.Dial("unix", w.socket)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = c.Close() })
	return agent.NewClient(c)
}

func (w *world) last() (r Request, refused string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if n := len(w.refused); n > 0 {
		refused = w.refused[n-1]
	}
	if n := len(w.requests); n > 0 {
		r = w.requests[n-1]
	}
	return r, refused
}

// A connection is for the session that the host has signed for, and a login on it for
// no other session and host; one that came over a forwarded agent is known as that.
func TestSessionBind(t *testing.T) {
	w := newWorld(t, false)
	host, other := newSigner(t), newSigner(t)
	session := bytes.Repeat([]byte{7}, 32)
	bind := func(c agent.ExtendedAgent, host ssh.Signer, session []byte, forwarding bool) error {
		t.Helper()
		s, err := host.Sign(rand.Reader, session)
		if err != nil {
			t.Fatal(err)
		}
		return second(c.Extension(extensionBind, bindMessage(host.PublicKey(), session, s, forwarding)))
	}
	sign := func(c agent.ExtendedAgent, data []byte) error {
		t.Helper()
		return second(c.Sign(w.signer.PublicKey(), data))
	}
	login := func(session []byte, host ssh.Signer) []byte {
		if host == nil {
			return userauth(w.signer.PublicKey(), session, nil)
		}
		return userauth(w.signer.PublicKey(), session, host.PublicKey())
	}
	wants := func(what string, err error, refused string) {
		t.Helper()
		if _, says := w.last(); (err == nil) != (refused == "") || !strings.Contains(says, refused) {
			t.Errorf("%s: %v, %q", what, err, says)
		}
	}

	c := w.dial()
	wants("not bound", sign(c, login(session, nil)), "")
	wants("not bound, for a host", sign(c, login(session, host)), "")
	if r, _ := w.last(); r.HostKey != trust.PublicKeyOf(host.PublicKey()) || r.Forwarded {
		t.Errorf("the request is %+v", r)
	}
	wants("bound", bind(c, host, session, false), "")
	wants("bound twice", bind(c, host, session, false), "is for the login to one host")
	wants("for its session", sign(c, login(session, nil)), "")
	if r, _ := w.last(); r.HostKey != trust.PublicKeyOf(host.PublicKey()) {
		t.Errorf("the host of its session is not told: %+v", r)
	}
	wants("for its host", sign(c, login(session, host)), "")
	wants("for another session", sign(c, login(session[1:], host)), "for another session")
	wants("for another host", sign(c, login(session, other)), "for another host")

	c = w.dial()
	forged, err := other.Sign(rand.Reader, session)
	if err != nil {
		t.Fatal(err)
	}
	wants("signed by another", second(c.Extension(extensionBind, bindMessage(host.PublicKey(), session, forged, false))), "has not signed")
	wants("cut short", second(c.Extension(extensionBind, []byte{0, 0, 0, 9})), "cannot be read")

	c = w.dial()
	wants("forwarded", bind(c, host, session, true), "")
	wants("forwarded again", bind(c, host, session, true), "")
	wants("the same session of another host", bind(c, other, session, true), "one session to two hosts")
	wants("over a forwarded agent", sign(c, login(session, nil)), "forwarded to the host with key "+string(trust.PublicKeyOf(host.PublicKey()).Fingerprint()))

	wants("locked over a forwarded agent", c.Lock([]byte("a passphrase")), "was to be locked")
	wants("locked at home", w.dial().Lock([]byte("a passphrase")), "")
	wants("unlocked over a forwarded agent", c.Unlock([]byte("a passphrase")), "unlocked, over the agent that is forwarded")

	w = newWorld(t, true)
	c = w.dial()
	wants("forwarded", bind(c, host, session, true), "")
	wants("locked over a forwarded agent, and let", c.Lock([]byte("a passphrase")), "was to be locked")
	wants("over a forwarded agent, and let", sign(c, login(session[1:], nil)), "")
	onward := session[2:]
	wants("bound onward", bind(c, other, onward, false), "")
	wants("for the session onward", sign(c, login(onward, other)), "")
	if r, _ := w.last(); !r.Forwarded || r.HostKey != trust.PublicKeyOf(other.PublicKey()) {
		t.Errorf("the request is %+v", r)
	}
	wants("for the session that it was forwarded by", sign(c, login(session, host)), "for another session")

	c = w.dial()
	for n := range maxBindings {
		wants("forwarded on and on", bind(c, host, append([]byte{byte(n)}, session...), true), "")
	}
	wants("once too often", bind(c, host, session, true), "more than 16 sessions")
}

func second[A any](_ A, err error) error { return err }

func bindMessage(host ssh.PublicKey, session []byte, s *ssh.Signature, forwarding bool) []byte {
	return ssh.Marshal(struct {
		HostKey, Session, Signature []byte
		Forwarding                  bool
	}{host.Marshal(), session, ssh.Marshal(s), forwarding})
}

// userauth is what a client signs to log in, bound to a host unless that is nil.
func userauth(key ssh.PublicKey, session []byte, host ssh.PublicKey) []byte {
	method, rest := "publickey", []byte(nil)
	if host != nil {
		method, rest = "publickey-hostbound-v00@openssh.com", ssh.Marshal(struct{ Key []byte }{host.Marshal()})
	}
	return ssh.Marshal(struct {
		Session               []byte
		Message               byte
		User, Service, Method string
		Signature             bool
		Algorithm             string
		Key                   []byte
		Rest                  []byte `ssh:"rest"`
	}{session, 50, "deploy", "ssh-connection", method, true, key.Type(), key.Marshal(), rest})
}

// Whatever a client sends, it gets an answer or is sent away, and others are served on.
func TestMessages(t *testing.T) {
	w := newWorld(t, false)
	ask := func(message []byte) (answer []byte) {
		t.Helper()
		c, err := net.Dial("unix", w.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write(message); err != nil {
			t.Fatal(err)
		}
		if err := c.(*net.UnixConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, _ = io.ReadAll(c)
		return answer
	}
	framed := func(message ...byte) []byte {
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(message))), message...)
	}
	failed := framed(failure)
	for what, test := range map[string]struct{ message, answer []byte }{
		"nothing":                   {nil, nil},
		"a length of nothing":       {framed(), nil},
		"a length of 4 GiB":         {[]byte{0xff, 0xff, 0xff, 0xff}, nil},
		"half a message":            {framed(signRequest, 0, 0)[:5], nil},
		"an unknown message":        {framed(200), failed},
		"a key to add":              {framed(17, 0, 0, 0, 0), failed},
		"a signature without a key": {framed(signRequest), failed},
		"an unknown extension":      {framed(append([]byte{extension, 0, 0, 0, 1}, 'x')...), failed},
		"a broken extension":        {framed(extension, 0xff), framed(extensionFailure)},
		"two messages":              {append(framed(200), framed(17)...), append(slices.Clone(failed), failed...)},
		"a query": {
			framed(ssh.Marshal(struct {
				Name string `sshtype:"27"`
			}{"query"})...),
			framed(ssh.Marshal(struct {
				A    string `sshtype:"29"`
				B, C string
			}{"query", "query", "session-bind@openssh.com"})...),
		},
	} {
		if answer := ask(test.message); !bytes.Equal(answer, test.answer) {
			t.Errorf("%s: got %v, want %v", what, answer, test.answer)
		}
	}
	if keys, err := w.dial().List(); err != nil || len(keys) != 1 {
		t.Errorf("afterwards it lists %v, %v", keys, err)
	}
}

// A socket that fails is told of, also while there are clients.
func TestServeFails(t *testing.T) {
	dir, err := os.MkdirTemp("", "kta")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := Listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	done := make(chan error, 1)
	go func() { done <- new(Server).Serve(t.Context(), &failing{Listener: l}) }()
	select {
	case err := <-done:
		if trust.KindOf(err) != trust.Unavailable {
			t.Errorf("it ends with %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it waits for its client")
	}
	if _, err := net.Dial("unix", l.Addr().String()); err == nil {
		t.Error("the socket is left")
	}
}

// failing is a listener to which one client comes.
type failing struct {
	net.Listener
	accepted bool
}

func (f *failing) Accept() (net.Conn, error) {
	if f.accepted {
		return nil, syscall.EMFILE
	}
	f.accepted = true
	return f.Listener.Accept()
}

// Another user is sent away, even where the files let that user come to the socket.
func TestOtherUser(t *testing.T) {
	need.Root(t)
	add := need.Program(t, "ssh-add", "openssh-client")
	w := newWorld(t, false)
	for _, path := range []string{filepath.Dir(filepath.Dir(w.socket)), filepath.Dir(w.socket), w.socket} {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	list := func(uid uint32) error {
		cmd := exec.CommandContext(t.Context(), add, "-l")
		cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+w.socket)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return cmd.Run()
	}
	if err := list(0); err != nil {
		t.Errorf("its own user: %v", err)
	}
	if err := list(65534); err == nil {
		t.Error("another user is answered")
	}
	if _, refused := w.last(); refused != "a client of user 65534 was sent away" {
		t.Errorf("it says %q", refused)
	}
}

// A Client signs by an agent, and says which agent and which key it is when that does not
// sign, or not as it was asked to.
func TestClient(t *testing.T) {
	w := newWorld(t, false)
	key := trust.PublicKeyOf(w.signer.PublicKey())
	s, err := NewClient(w.socket).Signer(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	data := userauth(w.signer.PublicKey(), []byte("a session"), nil)
	signature, err := s.Sign(rand.Reader, data)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.signer.PublicKey().Verify(data, signature); err != nil {
		t.Error(err)
	}
	refused := func(what string, err error, says ...string) {
		t.Helper()
		for _, s := range append(says, w.socket, string(key.Fingerprint())) {
			if trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), s) {
				t.Errorf("%s: %v, want %q", what, err, s)
			}
		}
	}
	refused("what the agent refuses", second(s.Sign(rand.Reader, []byte("a text"))), "does not sign")
	as := s.(ssh.AlgorithmSigner)
	refused("another algorithm than was asked for", second(as.SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)), "answered with ssh-ed25519")

	before := w.signer
	w.signer = newSigner(t)
	refused("a key that the agent has no more", second(NewClient(w.socket).Signer(t.Context(), key)), "does not have key")
	w.signer = before

	silent := filepath.Join(filepath.Dir(w.socket), "silent")
	l, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		if c, err := l.Accept(); err == nil {
			cancel() // while the agent is being waited for
			defer c.Close()
			_, _ = io.ReadAll(c)
		}
	}()
	w.socket = silent
	refused("an agent that is silent", second(NewClient(silent).Signer(ctx, key)))
	w.socket = filepath.Join(filepath.Dir(silent), "none")
	refused("no agent", second(NewClient(w.socket).Signer(t.Context(), key)), "no such file")
}
