package dial_test

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// server starts a real sshd and returns how to reach it.
func server(t *testing.T, o lab.Options) (*lab.Server, dial.Target) {
	t.Helper()
	need.Within(t, 5*time.Minute)
	need.Program(t, "sshd", "openssh-server")
	s, err := lab.Start(t.Context(), t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s, dial.Target{Name: s.Name(), Address: s.Address(), User: s.User(), Pins: []trust.PublicKey{s.HostKey()}}
}

func newKey(t *testing.T) (ssh.Signer, trust.PublicKey) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return signerOf(t, private)
}

func signerOf(t *testing.T, private any) (ssh.Signer, trust.PublicKey) {
	t.Helper()
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return s, trust.PublicKeyOf(s.PublicKey())
}

func authorize(t *testing.T, s *lab.Server, key trust.PublicKey, options string) {
	t.Helper()
	if err := s.Authorize(key, options); err != nil {
		t.Fatal(err)
	}
}

func TestDialSaysWhichCredentialOpened(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	wrong, _ := newKey(t)
	right, public := newKey(t)
	authorize(t, s, public, "")
	c, err := dial.Dial(t.Context(), target, []dial.Credential{dial.KeyCredential("wrong", wrong), dial.KeyCredential("right", right)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if c.OpenedBy() != "right" || c.HostKey() != s.HostKey() || !strings.HasPrefix(c.Version(), "SSH-2.0-OpenSSH_") {
		t.Errorf("opened by %q, host key %v, version %q", c.OpenedBy(), c.HostKey(), c.Version())
	}
	for deadline := time.Now().Add(10 * time.Second); len(c.Announced()) == 0; {
		if time.Now().After(deadline) {
			t.Fatal("the host keys that sshd announces were not heard")
		}
		if _, _, err := c.SendRequest("keepalive@openssh.com", true, nil); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Announced()[0]; got != s.HostKey() {
		t.Errorf("announced %v, want %v", got, s.HostKey())
	}
}

func TestDialRefusesAnotherHostKey(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	signer, public := newKey(t)
	authorize(t, s, public, "")
	_, other := newKey(t)
	target.Pins = []trust.PublicKey{other}
	_, err := dial.Dial(t.Context(), target, []dial.Credential{dial.KeyCredential("k", signer)})
	var changed *dial.HostKeyError
	if trust.KindOf(err) != trust.Conflict || !errors.As(err, &changed) || changed.Got != s.HostKey() {
		t.Fatalf("error %v, want a Conflict that carries the key presented", err)
	}
	var hinted *trust.Error
	if !errors.As(err, &hinted) || !strings.Contains(hinted.Hint, "keyturn host confirm web1 --host-key \""+s.HostKey().String()) {
		t.Errorf("the hint of %v does not pin the key that web1 presented", err)
	}
	for _, key := range []trust.PublicKey{s.HostKey(), other} {
		if !strings.Contains(err.Error(), string(key.Fingerprint())) {
			t.Errorf("error %q does not name %s", err, key.Fingerprint())
		}
	}
}

func TestDialNeedsAPin(t *testing.T) {
	_, target := server(t, lab.Options{Name: "web1"})
	target.Pins = nil
	if _, err := dial.Dial(t.Context(), target, nil); trust.KindOf(err) != trust.Conflict {
		t.Fatalf("error %v, want Conflict", err)
	}
}

func TestDialRefused(t *testing.T) {
	_, target := server(t, lab.Options{Name: "web1"})
	signer, _ := newKey(t)
	_, err := dial.Dial(t.Context(), target, []dial.Credential{dial.KeyCredential("mine", signer)})
	var refused *dial.RefusedError
	if trust.KindOf(err) != trust.Denied || !errors.As(err, &refused) || len(refused.Tried) != 1 || refused.Tried[0].ID != "mine" {
		t.Fatalf("error %v, want Denied that names the credential", err)
	}
}

func TestDialUnavailable(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	signer, _ := newKey(t)
	creds := []dial.Credential{dial.KeyCredential("mine", signer)}
	s.Stop()
	if _, err := dial.Dial(t.Context(), target, creds); trust.KindOf(err) != trust.Unavailable {
		t.Errorf("nobody listens: error %v, want Unavailable", err)
	}

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target.Address = l.Addr().String()
	accepted := make(chan net.Conn, 2)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	// A server that says nothing: cancelling ends the attempt at once.
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() { <-accepted; cancel(errors.New("the operator went home")) }()
	if _, err := dial.Dial(ctx, target, creds); trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), "went home") {
		t.Errorf("cancelled: error %v, want Unavailable with the cause", err)
	}
	// A server that sends us away, as one with PerSourcePenalties does.
	go func() {
		c := <-accepted
		_, _ = c.Write([]byte("Not allowed at this time\r\n"))
		_ = c.Close()
	}()
	if _, err := dial.Dial(t.Context(), target, creds); trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), "Not allowed at this time") {
		t.Errorf("sent away: error %v, want Unavailable with what the server said", err)
	}
}

func TestProveOpensNoChannel(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	signer, public := newKey(t)
	ran := filepath.Join(t.TempDir(), "ran")
	authorize(t, s, public, `command="touch `+ran+`"`)
	outcome, err := dial.Prove(t.Context(), target, signer)
	if err != nil || outcome != dial.Accepted {
		t.Fatalf("got %q, %v", outcome, err)
	}
	if _, err := os.Stat(ran); !os.IsNotExist(err) {
		t.Error("proving a key ran its forced command")
	}
	stranger, _ := newKey(t)
	if outcome, err = dial.Prove(t.Context(), target, stranger); err != nil || outcome != dial.Refused {
		t.Errorf("a stranger's key: %q, %v, want refused", outcome, err)
	}
}

func TestProvePartial(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1", Config: []string{"AuthenticationMethods publickey,publickey"}})
	signer, public := newKey(t)
	authorize(t, s, public, "")
	if outcome, err := dial.Prove(t.Context(), target, signer); err != nil || outcome != dial.Partial {
		t.Errorf("got %q, %v, want partial", outcome, err)
	}
}

func TestProveFromRightSource(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	signer, public := newKey(t)
	authorize(t, s, public, `from="127.0.0.9"`)
	if outcome, err := dial.Prove(t.Context(), target, signer); err != nil || outcome != dial.Refused {
		t.Errorf("from elsewhere: %q, %v, want refused", outcome, err)
	}
	target.Source = netip.MustParseAddr("127.0.0.9")
	if outcome, err := dial.Prove(t.Context(), target, signer); err != nil || outcome != dial.Accepted {
		t.Errorf("from there: %q, %v, want accepted", outcome, err)
	}
}

func TestDisproveEndsInSuccess(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	_, old := newKey(t)
	good, public := newKey(t)
	authorize(t, s, public, "")
	still, err := dial.Disprove(t.Context(), target, old, good)
	if err != nil || still {
		t.Fatalf("old is not there: accepted %v, %v", still, err)
	}
	authorize(t, s, old, "")
	still, err = dial.Disprove(t.Context(), target, old, good)
	if err != nil || !still {
		t.Fatalf("old is there: accepted %v, %v", still, err)
	}
	for deadline := time.Now().Add(10 * time.Second); strings.Count(s.Log().Tail(1000), "Accepted publickey") != 2; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("want each of the two connections to end in a login; sshd logged\n%s", s.Log().Tail(50))
		}
	}
	stranger, _ := newKey(t)
	if _, err = dial.Disprove(t.Context(), target, old, stranger); trust.KindOf(err) != trust.Denied {
		t.Errorf("without a good key: %v, want Denied", err)
	}
}

func TestQueryNeedsNoPrivateHalf(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, public := signerOf(t, rsaKey)
	if outcome, err := dial.Query(t.Context(), target, public, nil); err != nil || outcome != dial.Refused {
		t.Errorf("not there: %q, %v", outcome, err)
	}
	authorize(t, s, public, "")
	if outcome, err := dial.Query(t.Context(), target, public, nil); err != nil || outcome != dial.Matched {
		t.Errorf("there: %q, %v", outcome, err)
	}
}

func TestRSASignsWithSHA2(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1", Config: []string{"LogLevel DEBUG1"}})
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	signer, public := signerOf(t, private)
	authorize(t, s, public, "")
	if outcome, err := dial.Prove(t.Context(), target, signer); err != nil || outcome != dial.Accepted {
		t.Fatalf("got %q, %v", outcome, err)
	}
}

func TestLearn(t *testing.T) {
	s, target := server(t, lab.Options{Name: "web1"})
	key, banner, err := dial.Learn(t.Context(), target.Address, netip.Addr{})
	if err != nil || key != s.HostKey() || !strings.HasPrefix(banner, "SSH-2.0-OpenSSH_") {
		t.Errorf("learned %v, %q, %v", key, banner, err)
	}
}
