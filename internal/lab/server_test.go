package lab_test

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// start starts a server for the test, or skips it where there is no sshd.
func start(t *testing.T, o lab.Options) *lab.Server {
	t.Helper()
	need.Within(t, 5*time.Minute)
	s, err := lab.Start(t.Context(), t.TempDir(), o)
	if err != nil {
		skipWithout(t, err)
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// skipWithout skips the test where the machine has no sshd, or lets nobody log
// in as the current user, except where the tests must run.
func skipWithout(t *testing.T, err error) {
	t.Helper()
	kind := trust.KindOf(err)
	if kind == trust.NotFound || kind == trust.Conflict {
		need.Skip(t, "%v", err)
	}
}

func newKey(t *testing.T) ssh.Signer {
	t.Helper()
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return signer
}

func login(s *lab.Server, key ssh.Signer) (*ssh.Client, error) {
	pinned, err := s.HostKey().SSH()
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", s.Address(), &ssh.ClientConfig{
		User: s.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(key)},
		HostKeyCallback: ssh.FixedHostKey(pinned), Timeout: 10 * time.Second,
	})
}

func wantLogin(t *testing.T, s *lab.Server, key ssh.Signer) {
	t.Helper()
	c, err := login(s, key)
	if err != nil {
		t.Fatalf("login: %v\n%s", err, s.Log().Tail(20))
	}
	c.Close()
}

func wantRefusal(t *testing.T, s *lab.Server, key ssh.Signer) {
	t.Helper()
	c, err := login(s, key)
	if err == nil {
		c.Close()
		t.Fatal("logged in, want a refusal")
	}
	if !strings.Contains(err.Error(), "unable to authenticate") {
		t.Fatalf("login: %v, want a refusal of the key", err)
	}
}

// deadline bounds waits for what a server does at once.
func deadline(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestLogin(t *testing.T) {
	s := start(t, lab.Options{Name: "web1", PenaltiesOff: true})
	key, other := newKey(t), newKey(t)
	if err := s.Authorize(trust.PublicKeyOf(other.PublicKey()), ""); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, s, key)
	if err := s.Authorize(trust.PublicKeyOf(key.PublicKey()), `restrict,command="true"`); err != nil {
		t.Fatal(err)
	}
	before := s.Log().Seq()
	wantLogin(t, s, key)

	f := trust.PublicKeyOf(key.PublicKey()).Fingerprint()
	e, err := s.Log().Await(deadline(t), before, lab.AcceptedBy(f))
	if err != nil {
		t.Fatal(err)
	}
	if e.User != s.User() || e.Method != "publickey" {
		t.Errorf("accepted %q by %q, want %q by publickey", e.User, e.Method, s.User())
	}
	m, err := s.Log().Await(deadline(t), before, lab.IsKind(lab.Matched))
	if err != nil {
		t.Fatal(err)
	}
	if m.Fingerprint != f || m.File != s.AuthorizedKeysFiles()[0] || m.Line != 2 {
		t.Errorf("granted by %s at %s:%d, want %s at %s:2", m.Fingerprint, m.File, m.Line, f, s.AuthorizedKeysFiles()[0])
	}
	if _, err := s.Log().Await(deadline(t), 0, lab.FailedBy(f)); err != nil {
		t.Error("the first attempt is not in the log:", err)
	}
}

func TestLoginWithOpenSSH(t *testing.T) {
	client := need.Program(t, "ssh", "openssh-client")
	s := start(t, lab.Options{Name: "web1"})
	dir := t.TempDir()
	identity, knownHosts := filepath.Join(dir, "id"), filepath.Join(dir, "known_hosts")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	public, err := os.ReadFile(identity + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := trust.ParsePublicKey(string(public))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Authorize(key, ""), os.WriteFile(knownHosts, []byte(s.KnownHosts()), 0o600)); err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(s.Address())
	args := []string{
		"-F", "none", "-n", "-p", port, "-i", identity, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile=" + knownHosts, "-o", "GlobalKnownHostsFile=none", "-o", "StrictHostKeyChecking=yes",
		s.User() + "@127.0.0.1",
	}
	cmd := exec.CommandContext(t.Context(), client, append(args, "echo", "$HOME")...)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "account is currently not available") {
		need.Optional(t, "the current user has no login shell, so sessions run nothing")
	}
	if err != nil || strings.TrimSpace(string(out)) != s.Home() {
		t.Fatalf("HOME is %q (%v), want %q\n%s", out, err, s.Home(), s.Log().Tail(20))
	}
}

func TestConfig(t *testing.T) {
	s := start(t, lab.Options{
		Name: "a b%c",
		Config: []string{
			"LogLevel DEBUG", "Banner none",
			"Match User nobody-at-all", "PasswordAuthentication yes",
		},
		AuthorizedKeysFiles: []string{"keys one", ".ssh/authorized_keys2"},
		Addr:                "[::1]:0",
	})
	key := newKey(t)
	if err := os.WriteFile(s.AuthorizedKeysFiles()[1], []byte(trust.PublicKeyOf(key.PublicKey()).String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantLogin(t, s, key)
	m, err := s.Log().Await(deadline(t), 0, lab.IsKind(lab.Matched))
	if err != nil || m.File != s.AuthorizedKeysFiles()[1] {
		t.Fatalf("granted by %q (%v), want the second file", m.File, err)
	}
	if _, err := s.Log().Await(deadline(t), 0, func(e lab.Event) bool { return strings.HasPrefix(e.Text, "debug1:") }); err != nil {
		t.Error("the caller's LogLevel does not count:", err)
	}
}

func TestRefusedOptions(t *testing.T) {
	for name, o := range map[string]lab.Options{
		"no name":        {},
		"name of a path": {Name: "a/b"},
		"quote in name":  {Name: `a"b`},
		"not loopback":   {Name: "a", Addr: "0.0.0.0:0"},
	} {
		if _, err := lab.Start(t.Context(), t.TempDir(), o); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s: %v, want an invalid request", name, err)
		}
	}
	_, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "a", Config: []string{"NoSuchKeyword yes"}})
	skipWithout(t, err)
	if trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), "NoSuchKeyword") {
		t.Errorf("wrong configuration: %v, want sshd's complaint", err)
	}
}

func TestNoSshd(t *testing.T) {
	_, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "a", Sshd: "/nonexistent/sshd"})
	skipWithout(t, err)
	if trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), "/nonexistent/sshd") {
		t.Errorf("%v, want the missing binary named", err)
	}
}

func TestKillAndRestart(t *testing.T) {
	s := start(t, lab.Options{Name: "web1"})
	key := newKey(t)
	if err := s.Authorize(trust.PublicKeyOf(key.PublicKey()), ""); err != nil {
		t.Fatal(err)
	}
	c, err := login(s, key)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pids := sessionProcesses(t, c, `sleep 1000 & a=$!; setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $$ $a $!; wait`)

	address := s.Address()
	s.Kill()
	for _, pid := range pids {
		if alive(pid) {
			t.Errorf("process %d of a session outlives the server", pid)
		}
	}
	if err := c.Wait(); err == nil {
		t.Error("the connection ended in good order, want it cut")
	}
	if _, err := net.Dial("tcp", address); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want connection refused", err)
	}
	if s.Pid() != 0 {
		t.Error("a killed server has a pid")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.Address() != address {
		t.Errorf("back at %s, was at %s", s.Address(), address)
	}
	wantLogin(t, s, key)
}

// A shell that a server's end finds at work clears away what it has made.
func TestCloseLetsSessionsEnd(t *testing.T) {
	s := start(t, lab.Options{Name: "web1"})
	key := newKey(t)
	if err := s.Authorize(trust.PublicKeyOf(key.PublicKey()), ""); err != nil {
		t.Fatal(err)
	}
	c, err := login(s, key)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	scratch := filepath.Join(t.TempDir(), "scratch")
	pids := sessionProcesses(t, c, fmt.Sprintf(`mkdir %s; trap 'rmdir %s' 0; trap 'exit 1' 13 15; echo $$; sleep 1000; sleep 1000`, scratch, scratch))
	s.Close()
	if alive(pids[0]) {
		t.Error("the session outlives the server")
	}
	if _, err := os.Stat(scratch); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what the session had made was left: %v", err)
	}
}

func TestStopLeavesSessions(t *testing.T) {
	s := start(t, lab.Options{Name: "web1"})
	key := newKey(t)
	if err := s.Authorize(trust.PublicKeyOf(key.PublicKey()), ""); err != nil {
		t.Fatal(err)
	}
	c, err := login(s, key)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s.Stop()
	if _, err := login(s, key); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want connection refused", err)
	}
	pids := sessionProcesses(t, c, "echo $$; exec sleep 1000")
	s.Kill()
	if alive(pids[0]) {
		t.Error("a session of the stopped server outlives Kill")
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLogin(t, s, key)
}

// sessionProcesses runs a script that writes process ids in its first line and
// goes on.
func sessionProcesses(t *testing.T, c *ssh.Client, script string) []int {
	t.Helper()
	session, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := session.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := session.Start(script); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil || strings.Contains(line, "not available") {
		need.Optional(t, "the current user has no login shell, so sessions run nothing")
	}
	var pids []int
	for field := range strings.FieldsSeq(line) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(line)
		}
		pids = append(pids, pid)
	}
	return pids
}

// alive reports whether a process runs; one that has ended and that init has
// not yet waited for does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return syscall.Kill(pid, 0) == nil && !errors.Is(err, os.ErrNotExist)
	}
	return !strings.Contains(string(stat), ") Z ")
}

func TestLie(t *testing.T) {
	s := start(t, lab.Options{Name: "web1", PenaltiesOff: true})
	first, second := newKey(t), newKey(t)
	if err := s.Authorize(trust.PublicKeyOf(first.PublicKey()), ""); err != nil {
		t.Fatal(err)
	}
	config := effectiveConfig(t, s)
	if err := s.Lie(t.Context()); err != nil {
		t.Fatal(err)
	}
	replace := trust.PublicKeyOf(second.PublicKey()).String() + "\n"
	if err := os.WriteFile(s.AuthorizedKeysFiles()[0], []byte(replace), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, s, second)
	wantLogin(t, s, first)
	if now := effectiveConfig(t, s); now != config {
		t.Errorf("the lie shows in the configuration:\n%s", now)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, s, second)
	wantLogin(t, s, first)

	if err := s.Honest(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantLogin(t, s, second)
	wantRefusal(t, s, first)
}

func effectiveConfig(t *testing.T, s *lab.Server) string {
	t.Helper()
	sshd, err := lab.Find()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sshd, "-T", "-f", s.ConfigFile()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), s.AuthorizedKeysFiles()[0]) {
		t.Fatalf("sshd -T: %v\n%s", err, out)
	}
	return string(out)
}

func TestFreezeAndThaw(t *testing.T) {
	s := start(t, lab.Options{Name: "web1"})
	if err := s.Freeze(); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Address())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("frozen server says %d bytes (%v)", n, err)
	}
	if err := s.Thaw(); err != nil {
		t.Fatal(err)
	}
	_ = c.SetReadDeadline(time.Now().Add(15 * time.Second))
	banner := make([]byte, 8)
	if _, err := io.ReadFull(c, banner); err != nil || string(banner) != "SSH-2.0-" {
		t.Fatalf("thawed server says %q (%v)", banner, err)
	}
}

func TestReloadOfWrongConfiguration(t *testing.T) {
	s := start(t, lab.Options{Name: "web1"})
	good, err := os.ReadFile(s.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.ConfigFile(), []byte("NoSuchKeyword yes\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context()); trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), "NoSuchKeyword") {
		t.Fatalf("reload: %v, want sshd's complaint", err)
	}
	if s.Pid() != 0 {
		t.Error("sshd survives a wrong configuration")
	}
	if err := os.WriteFile(s.ConfigFile(), good, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := lab.Start(ctx, t.TempDir(), lab.Options{Name: "web1"})
	if err != nil {
		skipWithout(t, err)
		t.Fatal(err)
	}
	pid := s.Pid()
	cancel()
	s.Close() // waits for the end that the context has begun
	if alive(pid) {
		t.Error("the server outlives its context")
	}
}

func TestStartAll(t *testing.T) {
	options := make([]lab.Options, 50)
	for i := range options {
		options[i].Name = fmt.Sprintf("host%d", i)
	}
	begin := time.Now()
	servers, err := lab.StartAll(t.Context(), t.TempDir(), options)
	if err != nil {
		skipWithout(t, err)
		t.Fatal(err)
	}
	t.Logf("%d servers in %v", len(servers), time.Since(begin).Round(time.Millisecond))
	addresses := make(map[string]bool)
	for _, s := range servers {
		addresses[s.Address()] = true
		defer s.Close()
	}
	if len(addresses) != len(options) {
		t.Errorf("%d servers at %d addresses", len(options), len(addresses))
	}
	key := newKey(t)
	last := servers[len(servers)-1]
	if err := last.Authorize(trust.PublicKeyOf(key.PublicKey()), ""); err != nil {
		t.Fatal(err)
	}
	wantLogin(t, last, key)
	wantRefusal(t, servers[0], key)
}
