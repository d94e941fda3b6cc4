package dial

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func newRSA(t *testing.T) ssh.Signer {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

// a server with the keys authorized, and the target that leads to it.
func server(t *testing.T, config []string, keys ...ssh.Signer) (*lab.Server, Target) {
	t.Helper()
	need.Within(t, 5*time.Minute)
	s, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "host", Config: config})
	if trust.KindOf(err) == trust.NotFound {
		need.Skip(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	for _, k := range keys {
		if err := s.Authorize(trust.PublicKeyOf(k.PublicKey()), ""); err != nil {
			t.Fatal(err)
		}
	}
	return s, Target{Address: s.Address(), User: s.User(), Pins: []trust.PublicKey{s.HostKey()}}
}

func kind(t *testing.T, err error, want trust.Kind, parts ...string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want one that is %v", want)
	}
	if trust.KindOf(err) != want {
		t.Errorf("error is %v, want %v: %v", trust.KindOf(err), want, err)
	}
	for _, p := range parts {
		if !strings.Contains(err.Error(), p) {
			t.Errorf("error does not say %q: %v", p, err)
		}
	}
}

func public(s ssh.Signer) trust.PublicKey { return trust.PublicKeyOf(s.PublicKey()) }

func TestDialTakesTheFirstCredentialThatWorks(t *testing.T) {
	t.Parallel()
	bad, good, also := newKey(t), newKey(t), newKey(t)
	s, target := server(t, nil, good, also)
	conn, err := Dial(t.Context(), target, []Credential{KeyCredential("bad", bad), KeyCredential("good", good), KeyCredential("also", also)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if conn.OpenedBy() != "good" || conn.HostKey() != s.HostKey() || !strings.HasPrefix(conn.Version(), "SSH-2.0-OpenSSH_") {
		t.Errorf("opened by %v, host key %v, version %v", conn.OpenedBy(), conn.HostKey(), conn.Version())
	}
	result, err := conn.Run(t.Context(), "cat; echo oops >&2; exit 3", []byte("in\x00put\n"), 100)
	if err != nil || string(result.Stdout) != "in\x00put\n" || string(result.Stderr) != "oops\n" || result.Exit != 3 {
		t.Errorf("run: %q %q %d, %v", result.Stdout, result.Stderr, result.Exit, err)
	}
	if keys := conn.Announced(); len(keys) != 1 || keys[0] != s.HostKey() {
		t.Errorf("announced %v, want the one host key", keys)
	}
	if _, err := conn.Run(t.Context(), "head -c 200 /dev/zero", nil, 100); trust.KindOf(err) != trust.Exhausted {
		t.Errorf("output over the limit: %v", err)
	}
	if result, err := conn.Run(t.Context(), "kill -9 $$", nil, 100); err != nil || result.Exit != -1 {
		t.Errorf("killed command: exit %d, %v", result.Exit, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	key := newKey(t)
	s, target := server(t, nil, key)
	conn, err := Dial(t.Context(), target, []Credential{KeyCredential("k", key)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The command says that it runs; only then does the context end.
	mark := filepath.Join(s.Dir(), "running")
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		for ctx.Err() == nil {
			if _, err := os.Stat(mark); err == nil {
				cancel(errors.New("enough"))
			}
		}
	}()
	_, err = conn.Run(ctx, "touch "+mark+"; cat /dev/zero | sleep 600", nil, 100)
	kind(t, err, trust.Unavailable, "enough")
}

func TestDialOffersMoreThanMaxAuthTries(t *testing.T) {
	t.Parallel()
	good := newKey(t)
	_, target := server(t, []string{"MaxAuthTries 3"}, good)
	var creds []Credential
	for i := range 7 {
		creds = append(creds, KeyCredential(fmt.Sprintf("bad%d", i), newKey(t)))
	}
	conn, err := Dial(t.Context(), target, append(creds, KeyCredential("good", good)))
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	_, err = Dial(t.Context(), target, creds)
	var refused *RefusedError
	if !errors.As(err, &refused) || len(refused.Tried) != 7 || refused.Tried[6].ID != "bad6" {
		t.Errorf("refused: %+v", refused)
	}
	kind(t, err, trust.Denied, `"bad6"`, string(refused.Tried[0].Fingerprint))
}

func TestHostKeyMustBePinned(t *testing.T) {
	t.Parallel()
	key, other := newKey(t), newRSA(t)
	s, target := server(t, nil, key)
	for name, pin := range map[string]ssh.Signer{"same type": newKey(t), "type that the host does not have": other} {
		t.Run(name, func(t *testing.T) {
			target := target
			target.Pins = []trust.PublicKey{public(pin)}
			before := s.Log().Seq()
			_, err := Dial(t.Context(), target, []Credential{KeyCredential("k", key)})
			kind(t, err, trust.Conflict, "host key changed", string(s.HostKey().Fingerprint()), string(target.Pins[0].Fingerprint()))
			var changed *HostKeyError
			if !errors.As(err, &changed) || changed.Got != s.HostKey() {
				t.Errorf("cause is %+v", changed)
			}
			for _, e := range s.Log().Events(before) {
				if strings.Contains(e.Text, target.User) {
					t.Errorf("the wrong host was told the user name: %s", e.Text)
				}
			}
		})
	}
	target.Pins = nil
	_, err := Dial(t.Context(), target, []Credential{KeyCredential("k", key)})
	kind(t, err, trust.Conflict, "no host key")
}

func TestProve(t *testing.T) {
	t.Parallel()
	key, forced, elsewhere, unknown := newKey(t), newKey(t), newKey(t), newKey(t)
	s, target := server(t, nil, key)
	ran := filepath.Join(s.Dir(), "ran")
	must(t, s.Authorize(public(forced), `command="touch `+ran+`",restrict`))
	must(t, s.Authorize(public(elsewhere), `from="192.0.2.1"`))
	for _, c := range []struct {
		key  ssh.Signer
		want Outcome
	}{{key, Accepted}, {forced, Accepted}, {elsewhere, Refused}, {unknown, Refused}} {
		if got, err := Prove(t.Context(), target, c.key); got != c.want || err != nil {
			t.Errorf("prove: %v, %v, want %v", got, err, c.want)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("the proof ran the forced command")
	}
	// The public half alone.
	for k, want := range map[ssh.Signer]Outcome{key: Matched, unknown: Refused} {
		if got, err := Query(t.Context(), target, public(k), []Credential{KeyCredential("good", forced)}); got != want || err != nil {
			t.Errorf("query: %v, %v, want %v", got, err, want)
		}
	}
}

func TestProveWhereMoreIsAsked(t *testing.T) {
	t.Parallel()
	key, unknown := newKey(t), newKey(t)
	_, target := server(t, []string{"PasswordAuthentication yes", "AuthenticationMethods publickey,password"}, key)
	if got, err := Prove(t.Context(), target, key); got != Partial || err != nil {
		t.Errorf("prove: %v, %v, want partial", got, err)
	}
	if got, err := Prove(t.Context(), target, unknown, KeyCredential("k", key)); got != Refused || err != nil {
		t.Errorf("prove: %v, %v, want refused", got, err)
	}
	_, err := Dial(t.Context(), target, []Credential{KeyCredential("k", key), PasswordCredential("p", "wrong")})
	kind(t, err, trust.Denied, `"k"`, "(partial)", `"p" (refused)`)
}

// The account check that comes after the signature says no.
func TestProveWhereTheAccountRefuses(t *testing.T) {
	t.Parallel()
	need.Root(t)
	key := newKey(t)
	_, target := server(t, []string{"PermitRootLogin forced-commands-only"}, key)
	if got, err := Prove(t.Context(), target, key); got != Matched || err != nil {
		t.Errorf("prove: %v, %v, want matched", got, err)
	}
}

func TestDisprove(t *testing.T) {
	t.Parallel()
	for _, tries := range []int{6, 2, 1} {
		t.Run(fmt.Sprintf("MaxAuthTries %d", tries), func(t *testing.T) {
			t.Parallel()
			old, next, gone, oldRSA, goneRSA := newKey(t), newKey(t), newKey(t), newRSA(t), newRSA(t)
			_, target := server(t, []string{fmt.Sprintf("MaxAuthTries %d", tries)}, old, next, oldRSA)
			for k, want := range map[ssh.Signer]bool{old: true, oldRSA: true, gone: false, goneRSA: false} {
				still, err := Disprove(t.Context(), target, public(k), next)
				if err != nil || still != want {
					t.Errorf("%s: still accepted %v, %v; want %v", k.PublicKey().Type(), still, err, want)
				}
			}
			// Nothing is shown by a connection that does not end well.
			_, err := Disprove(t.Context(), target, public(gone), newKey(t))
			kind(t, err, trust.Denied, "does not log in")
			_, err = Disprove(t.Context(), target, public(next), next)
			kind(t, err, trust.Invalid)
		})
	}
}

// A key type that x/crypto/ssh knows nothing about is offered all the same.
func TestDisproveForeignKeyType(t *testing.T) {
	t.Parallel()
	next := newKey(t)
	_, target := server(t, nil, next)
	blob := append([]byte{0, 0, 0, 7}, "ssh-xyz\x00\x00\x00\x01a"...)
	old, err := trust.ParsePublicKeyBlob(blob)
	must(t, err)
	if still, err := Disprove(t.Context(), target, old, next); still || err != nil {
		t.Errorf("still accepted %v, %v", still, err)
	}
}

func TestRSASignsWithSHA2Only(t *testing.T) {
	t.Parallel()
	key, good := newRSA(t), newKey(t)
	s, target := server(t, []string{"PubkeyAcceptedAlgorithms ssh-rsa,ssh-ed25519"}, key, good)
	if got, err := Prove(t.Context(), target, key); got == Accepted || err != nil {
		t.Errorf("prove with SHA-1 alone: %v, %v", got, err)
	}
	// It would be taken from a client that signs with SHA-1.
	if still, err := Disprove(t.Context(), target, public(key), good); !still || err != nil {
		t.Errorf("disprove: still %v, %v", still, err)
	}
	for _, e := range s.Log().Events(0) {
		if e.Kind == lab.Accepted && strings.Contains(e.Text, "RSA") {
			t.Errorf("logged in with SHA-1: %s", e.Text)
		}
	}
}

func TestServerThatAsksForNothing(t *testing.T) {
	t.Parallel()
	host := newKey(t)
	address := listen(t, func(c net.Conn) {
		config := &ssh.ServerConfig{NoClientAuth: true}
		config.AddHostKey(host)
		if conn, _, reqs, err := ssh.NewServerConn(c, config); err == nil {
			go ssh.DiscardRequests(reqs)
			_ = conn.Wait()
		}
	})
	target := Target{Address: address, User: "u", Pins: []trust.PublicKey{public(host)}}
	_, err := Prove(t.Context(), target, newKey(t))
	kind(t, err, trust.Conflict, "without any credential")
	_, err = Disprove(t.Context(), target, public(newKey(t)), newKey(t))
	kind(t, err, trust.Conflict, "without any credential")
}

// Servers that fail in each phase, and what is said of it.
func TestPhases(t *testing.T) {
	t.Parallel()
	quick := patience{time.Second, 200 * time.Millisecond, 200 * time.Millisecond, 200 * time.Millisecond}
	host := newKey(t)
	say := func(text string) func(net.Conn) {
		return func(c net.Conn) { _, _ = io.WriteString(c, text) }
	}
	hold := func(text string) func(net.Conn) {
		return func(c net.Conn) {
			_, _ = io.WriteString(c, text)
			_, _ = io.Copy(io.Discard, c)
		}
	}
	reset := func(c net.Conn) { _ = c.(*net.TCPConn).SetLinger(0) }
	auth := func(callback func() error) func(net.Conn) {
		return func(c net.Conn) {
			config := &ssh.ServerConfig{PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) {
				return nil, callback()
			}}
			config.AddHostKey(host)
			_, _, _, _ = ssh.NewServerConn(c, config)
		}
	}
	release := make(chan struct{})
	defer close(release)
	for name, c := range map[string]struct {
		serve func(net.Conn)
		kind  trust.Kind
		says  []string
	}{
		"silent":       {hold(""), trust.Unavailable, []string{"identification string"}},
		"closes":       {say(""), trust.Unavailable, []string{"PerSourcePenalties"}},
		"resets":       {reset, trust.Unavailable, nil},
		"full":         {say("Exceeded MaxStartups\r\n"), trust.Unavailable, []string{"MaxStartups"}},
		"penalty":      {say("Not allowed at this time\r\n"), trust.Unavailable, []string{"PerSourcePenalties"}},
		"web":          {say("HTTP/1.1 400 Bad Request\r\n\r\n"), trust.Conflict, []string{"not an SSH server", "HTTP/1.1 400"}},
		"talks":        {say(strings.Repeat("welcome\r\n", 4000)), trust.Conflict, []string{"not an SSH server", "welcome"}},
		"hangs in kex": {hold("hello\r\nSSH-2.0-OpenSSH_9.2\r\n"), trust.Unavailable, []string{"key exchange in time"}},
		"closes in kex": {func(c net.Conn) {
			_, _ = io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			_, _ = io.ReadFull(c, make([]byte, 100))
		}, trust.Unavailable, []string{"during the key exchange"}},
		"hangs in auth":  {auth(func() error { <-release; return nil }), trust.Unavailable, []string{"authentication in time"}},
		"closes in auth": {func(c net.Conn) { auth(func() error { _ = c.Close(); return nil })(c) }, trust.Unavailable, []string{"during authentication"}},
	} {
		t.Run(name, func(t *testing.T) {
			address := listen(t, c.serve)
			target := Target{Address: address, User: "u", Pins: []trust.PublicKey{public(host)}}
			steps, err := signing([]Credential{KeyCredential("k", newKey(t))})
			must(t, err)
			_, err = login(t.Context(), target, steps, quick)
			kind(t, err, c.kind, c.says...)
		})
	}
	t.Run("nobody listens", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		_ = l.Close()
		_, err = Dial(t.Context(), Target{Address: l.Addr().String(), User: "u", Pins: []trust.PublicKey{public(host)}}, []Credential{KeyCredential("k", newKey(t))})
		kind(t, err, trust.Unavailable, "does not answer")
	})
	t.Run("context", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		address := listen(t, func(c net.Conn) {
			cancel(errors.New("lease lost"))
			_, _ = io.Copy(io.Discard, c)
		})
		_, err := Dial(ctx, Target{Address: address, User: "u", Pins: []trust.PublicKey{public(host)}}, []Credential{KeyCredential("k", newKey(t))})
		kind(t, err, trust.Unavailable, "lease lost")
	})
}

// A Dropbear that has had enough says nothing and closes; what was not answered is
// offered again, and not called refused.
func TestServerThatJustCloses(t *testing.T) {
	t.Parallel()
	host, good := newKey(t), newKey(t)
	address := listen(t, func(c net.Conn) {
		n := 0
		config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if n++; n == 2 {
				_ = c.Close()
			}
			if trust.PublicKeyOf(k) == public(good) {
				return nil, nil
			}
			return nil, errors.New("no")
		}}
		config.AddHostKey(host)
		_, _, _, _ = ssh.NewServerConn(c, config)
	})
	target := Target{Address: address, User: "u", Pins: []trust.PublicKey{public(host)}}
	if still, err := Disprove(t.Context(), target, public(newKey(t)), newKey(t)); err == nil {
		t.Errorf("still accepted %v although no good key logged in", still)
	}
}

// An sshd whose PAM refuses the account hangs up when the key has signed. That is an
// answer if it does so again, and not an outage to be waited for.
func TestServerThatHangsUpOnASignature(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		refusals int64 // how many connections end so
		want     Outcome
		dials    int64
	}{"once": {1, Accepted, 2}, "always": {100, Matched, 2}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			host, key := newKey(t), newKey(t)
			var connections atomic.Int64
			address := listen(t, func(c2 net.Conn) {
				refuse := connections.Add(1) <= c.refusals
				config := &ssh.ServerConfig{
					BannerCallback:    func(ssh.ConnMetadata) string { return "Authorised use only. See pam_nologin(8)." },
					PublicKeyCallback: func(ssh.ConnMetadata, ssh.PublicKey) (*ssh.Permissions, error) { return nil, nil },
					VerifiedPublicKeyCallback: func(_ ssh.ConnMetadata, _ ssh.PublicKey, p *ssh.Permissions, _ string) (*ssh.Permissions, error) {
						if refuse {
							_ = c2.Close()
						}
						return p, nil
					},
				}
				config.AddHostKey(host)
				if s, _, requests, err := ssh.NewServerConn(c2, config); err == nil {
					go ssh.DiscardRequests(requests)
					_ = s.Wait()
				}
			})
			target := Target{Address: address, User: "u", Pins: []trust.PublicKey{public(host)}}
			if got, err := Prove(t.Context(), target, key); got != c.want || err != nil || connections.Load() != c.dials {
				t.Errorf("prove: %v, %v after %d connections; want %v after %d", got, err, connections.Load(), c.want, c.dials)
			}
			if c.want == Matched {
				_, err := Dial(t.Context(), target, []Credential{KeyCredential("k", key)})
				kind(t, err, trust.Denied, `"k"`, "(matched)", "PAM")
			}
		})
	}
}

func TestCredentialsDoNotPrint(t *testing.T) {
	t.Parallel()
	c := PasswordCredential("enrolment", "hunter2")
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%+v %#v %s", c, c, c), fmt.Sprintf("%v", []Credential{c})} {
		if strings.Contains(text, "hunter2") {
			t.Errorf("printed the password: %s", text)
		}
	}
}

// listen serves each connection with f and closes it afterwards.
func listen(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				f(c)
			}()
		}
	}()
	return l.Addr().String()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func FuzzParseAnnounced(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x0b\x00\x00\x00\x07ssh-xyz"))
	f.Add([]byte("\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		total := 0
		for _, k := range parseAnnounced(b) {
			total += 4 + len(k.Blob())
		}
		if total > len(b) {
			t.Errorf("%d bytes of keys out of %d", total, len(b))
		}
	})
}
