package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// A keyAgent is an ssh-agent(1) that signs for Keyturn.
type keyAgent struct {
	t      *testing.T
	socket string
	env    []string // of the agent and of what speaks to it
	stop   func()
}

// start starts the agent, where it is not running.
func (a *keyAgent) start() {
	a.t.Helper()
	_ = os.Remove(a.socket)
	cmd := exec.CommandContext(a.t.Context(), need.Program(a.t, "ssh-agent", "openssh-client"), "-D", "-a", a.socket)
	cmd.Env = append(os.Environ(), a.env...)
	if err := cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	a.t.Cleanup(func() { a.stop() })
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", a.socket); err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			a.t.Fatal("ssh-agent does not start")
		}
	}
}

// add runs ssh-add.
func (a *keyAgent) add(args ...string) string {
	a.t.Helper()
	cmd := exec.CommandContext(a.t.Context(), need.Program(a.t, "ssh-add", "openssh-client"), args...)
	cmd.Env = append(append(os.Environ(), a.env...), "SSH_AUTH_SOCK="+a.socket)
	out, err := cmd.CombinedOutput()
	if err != nil {
		a.t.Fatalf("ssh-add %v: %v: %s", args, err, out)
	}
	return string(out)
}

// newKeyAgent starts an agent, and servers with a node that asks it.
func newKeyAgent(t *testing.T, servers int) (*keyAgent, *world) {
	t.Helper()
	dir, err := os.MkdirTemp("", "kta")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	a := &keyAgent{t: t, socket: filepath.Join(dir, "s")}
	w := newServers(t, servers)
	w.opsKey()
	w.tune = func(c *config) { c.agent = a.socket }
	return a, w
}

// Keyturn logs in by a key that only an ssh-agent has, does there what it does
// elsewhere, and says which agent and key it is when that does not sign. An agent that
// is started again is asked again.
func TestSignedByAgent(t *testing.T) {
	t.Parallel()
	a, w := newKeyAgent(t, 1)
	a.start()
	w.start()
	path, public := w.keygen("rsa", "2048")
	a.add("-q", path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s := w.servers[0]
	if err := s.Authorize(public, ""); err != nil {
		t.Fatal(err)
	}
	add := func(name string, more ...string) []string {
		return append([]string{"host", "add", name, "--address", s.Address(), "--login", s.User(), "--host-key", s.HostKey().String(), "--enforce"}, more...)
	}
	w.ok(add("web1", "--agent-key", path+".pub")...)
	k := w.key(public)
	if k.Custody != "external" || len(k.Authorized) > 1 {
		t.Errorf("the agent's key is %+v", k)
	}
	held := w.generated()
	w.ok("scan", "--wait")
	if code, _, errs := w.try("retire", k.UUID); code == 0 || !strings.Contains(errs, "keyturn host credential add where an ssh-agent has it") {
		t.Errorf("the only credential was retired: exit %d, %s", code, errs)
	}
	w.ok("rotate", held.UUID, "--soak", "0s", "--wait")

	scanned := func() string {
		t.Helper()
		w.ok("scan", "--wait")
		var h hostJSON
		w.json(&h, "host", "show", "web1")
		return h.Scan.Outcome + " " + h.Scan.Why
	}
	a.stop()
	w.node.reach.Close() // no connection that is kept
	if got := scanned(); !strings.Contains(got, "unreachable") || !strings.Contains(got, a.socket) || !strings.Contains(got, string(public.Fingerprint())) {
		t.Errorf("without the agent: %s", got)
	}
	a.start()
	if got := scanned(); !strings.Contains(got, "unreachable") || !strings.Contains(got, "does not have key "+string(public.Fingerprint())) {
		t.Errorf("with an agent that has no key: %s", got)
	}

	// Another key opens it meanwhile, and afterwards alone.
	w.json(&k, "key", "import", w.ops)
	ops := w.parse(k.PublicKey)
	if err := s.Authorize(ops, ""); err != nil {
		t.Fatal(err)
	}
	if out := w.ok("host", "credential", "add", "web1", "--key", k.UUID); strings.Count(out, "web1 is opened by key ") != 1 || !strings.Contains(out, "not seen to be opened by key "+k.UUID+": keyturn scan web1 --wait") {
		t.Errorf("credentials: %s", out)
	}
	if code, _, errs := w.try("host", "credential", "remove", "web1", string(public.Fingerprint())); code == 0 || !strings.Contains(errs, "no other key was seen to open host") || !strings.Contains(errs, "keyturn scan web1 --wait") {
		t.Errorf("the only credential that was seen to work was removed: %s", errs)
	}
	if got := scanned(); strings.Contains(got, "unreachable") {
		t.Errorf("with another key: %s", got)
	}
	w.ok("host", "credential", "remove", "web1", string(public.Fingerprint()))
	if code, _, errs := w.try("host", "credential", "remove", "web1", k.UUID); code == 0 || !strings.Contains(errs, "is the only credential") {
		t.Errorf("the last credential was removed: %s", errs)
	}
	w.ok("host", "credential", "add", "web1", "--agent-key", string(public.Fingerprint()), "--first")
	if got := scanned(); strings.Contains(got, "unreachable") {
		t.Errorf("with both: %s", got)
	}
	if code, _, errs := w.try(add("web2", "--agent-key", w.ops)...); code == 0 || !strings.Contains(errs, "takes a public half") {
		t.Errorf("with a private key: %d %s", code, errs)
	}
}

// Without an agent a key that only one has opens nothing, and that is said.
func TestSignedByNoAgent(t *testing.T) {
	t.Parallel()
	a, w := newKeyAgent(t, 1)
	path, _ := w.keygen("ed25519", "256")
	s := w.servers[0]
	for _, test := range []struct {
		says string
		tune func(*config)
	}{
		{"there is no ssh-agent to ask for it", nil},
		{"the ssh-agent at " + a.socket + " does not sign with key", w.tune},
	} {
		w.tune = test.tune
		w.start()
		code, _, errs := w.try("host", "add", "web1", "--address", s.Address(), "--login", s.User(), "--host-key", s.HostKey().String(), "--agent-key", path+".pub")
		if code == 0 || !strings.Contains(errs, test.says) {
			t.Errorf("exit %d, %s; want %q", code, errs, test.says)
		}
		w.ok("host", "remove", "web1")
		w.stop()
	}
}

// The agent signs for the first account of a server only, and others are told so.
func TestSignedByAgentOfAnotherAccount(t *testing.T) {
	t.Parallel()
	a, w := newKeyAgent(t, 1)
	a.start()
	w.start()
	path, _ := w.keygen("ed25519", "256")
	a.add("-q", path)
	var added addedAccountJSON
	w.json(&added, "account", "add", "two")
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": added.Admin, "KEYTURN_PASSWORD": added.Password}
	s := w.servers[0]
	code, _, errs := w.try("host", "add", "web1", "--address", s.Address(), "--login", s.User(), "--host-key", s.HostKey().String(), "--agent-key", path+".pub")
	if code == 0 || !strings.Contains(errs, "signs for its first account only") || strings.Contains(errs, "serve --agent") {
		t.Errorf("exit %d, %s", code, errs)
	}
}

// The private half is in a token, which signs and never lets it out.
func TestSignedByToken(t *testing.T) {
	t.Parallel()
	util := need.Program(t, "softhsm2-util", "softhsm2")
	openssl := need.Program(t, "openssl", "openssl")
	provider := ""
	for _, path := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib64/softhsm/libsofthsm2.so"} {
		if _, err := os.Stat(path); err == nil {
			provider = path
		}
	}
	if provider == "" {
		need.Skip(t, "libsofthsm2.so is nowhere (package softhsm2): run 'make deps'")
	}
	a, w := newKeyAgent(t, 1)
	tokens, conf, pin := filepath.Join(w.dir, "tokens"), filepath.Join(w.dir, "softhsm2.conf"), filepath.Join(w.dir, "pin")
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	w.write(conf, "directories.tokendir = "+tokens+"\nobjectstore.backend = file\n")
	if err := os.WriteFile(pin, []byte("#!/bin/sh\necho 1234\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	a.env = []string{"SOFTHSM2_CONF=" + conf, "SSH_ASKPASS=" + pin, "SSH_ASKPASS_REQUIRE=force"}
	tool := func(name string, args ...string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), name, args...)
		cmd.Env = append(os.Environ(), a.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %v: %v: %s", name, args, err, out)
		}
	}
	private := filepath.Join(w.dir, "token.pem")
	tool(openssl, "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", private)
	tool(util, "--init-token", "--free", "--label", "keyturn", "--so-pin", "12345678", "--pin", "1234")
	tool(util, "--import", private, "--token", "keyturn", "--label", "ops", "--id", "01", "--pin", "1234")
	if err := os.Remove(private); err != nil {
		t.Fatal(err)
	}
	a.start()
	a.add("-s", provider)
	public := filepath.Join(w.dir, "token.pub")
	w.write(public, a.add("-L"))
	key := w.parse(strings.TrimSpace(w.read(public)))
	s := w.servers[0]
	if err := s.Authorize(key, ""); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.ok("host", "add", "web1", "--address", s.Address(), "--login", s.User(), "--host-key", s.HostKey().String(), "--agent-key", public)
	w.ok("scan", "--wait")
	if k := w.key(key); len(k.Authorized) != 1 {
		t.Errorf("the scan found the token's key at %+v", k.Authorized)
	}
}
