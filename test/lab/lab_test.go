//go:build linux

package lab_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	rootless "keyturn/internal/lab"
	"keyturn/internal/trust"
	"keyturn/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// A keyPair is one that the test holds.
type keyPair struct {
	signer      ssh.Signer
	line        string // of authorized_keys
	fingerprint trust.Fingerprint
}

func newKey(t *testing.T) keyPair {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	public := trust.PublicKeyOf(signer.PublicKey())
	return keyPair{signer, public.String(), public.Fingerprint()}
}

// dial logs in with the key, from an address of the test.
func dial(h *lab.Host, user string, key keyPair, from netip.Addr) (*ssh.Client, error) {
	pinned, err := h.HostKeys()[0].SSH()
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 1500 * time.Millisecond}
	if from.IsValid() {
		dialer.LocalAddr = &net.TCPAddr{IP: from.AsSlice()}
	}
	conn, err := dialer.Dial("tcp", h.Address())
	if err != nil {
		return nil, err
	}
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	c, channels, requests, err := ssh.NewClientConn(conn, h.Address(), &ssh.ClientConfig{
		User: user, Auth: []ssh.AuthMethod{ssh.PublicKeys(key.signer)}, HostKeyCallback: ssh.FixedHostKey(pinned),
		HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetDeadline(time.Time{})
	return ssh.NewClient(c, channels, requests), nil
}

// run logs in and runs one command.
func run(h *lab.Host, user string, key keyPair, command string) (string, error) {
	c, err := dial(h, user, key, netip.Addr{})
	if err != nil {
		return "", err
	}
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		return "", err
	}
	out, err := s.CombinedOutput(command)
	return strings.TrimSpace(string(out)), err
}

func mustRun(t *testing.T, h *lab.Host, user string, key keyPair, command string) string {
	t.Helper()
	out, err := run(h, user, key, command)
	if err != nil {
		t.Fatalf("%s@%s %q: %v\n%s", user, h.Name(), command, err, out)
	}
	return out
}

func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until the condition holds; what holds until then is the failure.
func eventually(t *testing.T, failure string, condition func() bool) {
	t.Helper()
	for patience := time.Now().Add(15 * time.Second); !condition(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(patience) {
			t.Fatal(failure)
		}
	}
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func TestTenHosts(t *testing.T) {
	w, key := lab.NewWorld(t), newKey(t)
	specs := make([]lab.Spec, 10)
	for i := range specs {
		specs[i] = lab.Spec{Name: fmt.Sprintf("web%d", i+1), Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{key.line}}}}
	}
	begin := time.Now()
	hosts := w.BootAll(t, specs...)
	booted := time.Since(begin)
	for i, h := range hosts {
		if got := mustRun(t, h, "alice", key, "hostname"); got != specs[i].Name {
			t.Errorf("%s answers as %q", specs[i].Name, got)
		}
	}
	t.Logf("10 hosts booted in %v, all logged in to after %v", booted.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

func TestGrantingLine(t *testing.T) {
	w, key, other := lab.NewWorld(t), newKey(t), newKey(t)
	h := w.Boot(t, lab.Spec{Name: "web1", Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{other.line, key.line}}}})
	before := h.Log().Seq()
	mustRun(t, h, "alice", key, "true")
	e, err := h.Log().Await(deadline(t), before, rootless.IsKind(rootless.Matched))
	if err != nil {
		t.Fatal(err)
	}
	if e.Fingerprint != key.fingerprint || e.File != "/home/alice/.ssh/authorized_keys" || e.Line != 2 || e.PID == 0 {
		t.Errorf("granted by %+v", e)
	}
	if _, err := h.Log().Await(deadline(t), before, rootless.AcceptedBy(key.fingerprint)); err != nil {
		t.Error(err)
	}
}
