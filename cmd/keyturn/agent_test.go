package main

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/internal/lab"
	"keyturn/internal/need"
)

// A testAgent is "keyturn agent" of some user, and the programs that ask it.
type testAgent struct {
	w      *world
	socket string
	stop   func() (code int)
	ended  chan struct{} // closed when it has, with code
	code   int

	mu   sync.Mutex
	said bytes.Buffer // guarded by mu
}

func (a *testAgent) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said.Write(p)
}

// says returns what the agent has printed.
func (a *testAgent) says() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.said.String()
}

// agent starts an agent in an environment and waits until it serves.
func (w *world) agent(env map[string]string, args ...string) *testAgent {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "kta") // a socket's path is short
	if err != nil {
		w.t.Fatal(err)
	}
	a := &testAgent{w: w, socket: filepath.Join(dir, "s"), ended: make(chan struct{})}
	ctx, cancel := context.WithCancel(w.t.Context())
	go func() {
		defer close(a.ended)
		a.code = run(ctx, func(name string) string { return env[name] }, append([]string{"agent", "--socket", a.socket}, args...), nil, a, a)
	}()
	a.stop = func() int { cancel(); <-a.ended; return a.code }
	w.t.Cleanup(func() {
		a.stop()
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			w.t.Errorf("the agent left %v, %v", left, err)
		}
		_ = os.RemoveAll(dir)
	})
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if c, err := net.Dial("unix", a.socket); err == nil {
			_ = c.Close()
			return a
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the agent does not serve: %s", a.says())
		}
	}
}

// command runs a program that asks the agent.
func (a *testAgent) command(name string, args ...string) (out string, err error) {
	a.w.t.Helper()
	ctx, cancel := context.WithTimeout(a.w.t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, need.Program(a.w.t, name, "openssh-client"), args...)
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+a.socket, "GIT_CONFIG_NOSYSTEM=1", "HOME="+a.w.dir)
	data, err := cmd.CombinedOutput()
	return string(data), err
}

// ssh are the arguments by which ssh logs in to a server with what an agent offers.
func (w *world) ssh(s *lab.Server) []string {
	w.t.Helper()
	known := filepath.Join(w.dir, "known_hosts_of_"+s.Name())
	w.write(known, s.KnownHosts())
	host, port, err := net.SplitHostPort(s.Address())
	if err != nil {
		w.t.Fatal(err)
	}
	return []string{
		"-F", "none", "-o", "BatchMode=yes", "-o", "IdentityFile=none", "-o", "UserKnownHostsFile=" + known, "-p", port, "-l", s.User(), host,
	}
}

// logsInBy reports whether ssh logs in to a server by an agent.
func (a *testAgent) logsInTo(s *lab.Server) bool {
	a.w.t.Helper()
	out, err := a.command("ssh", append([]string{"-n"}, append(a.w.ssh(s), "true")...)...)
	if err != nil {
		a.w.t.Logf("ssh: %v: %s; the agent says: %s", err, out, a.says())
	}
	return err == nil
}

// user adds a user who may do some things, and returns the environment of commands.
func (w *world) user(name string, permissions ...string) map[string]string {
	w.t.Helper()
	args := []string{"user", "add", name, "--password-stdin"}
	for _, p := range permissions {
		args = append(args, "--permission", p)
	}
	before := w.stdin
	w.stdin = "a long password of " + name
	w.ok(args...)
	w.stdin = before
	return map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": name, "KEYTURN_PASSWORD": "a long password of " + name}
}

// generated makes a key that Keyturn holds and every server accepts.
func (w *world) generated() keyJSON {
	w.t.Helper()
	var k keyJSON
	w.json(&k, "key", "generate", "--comment", "deploy@fleet")
	for _, s := range w.servers {
		if err := s.Authorize(w.parse(k.PublicKey), ""); err != nil {
			w.t.Fatal(err)
		}
	}
	return k
}

// OpenSSH and git log in by an agent whose keys the server holds, as long as the user
// may: what is taken away stops the next signature of an agent that runs.
func TestAgent(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k := w.generated()
	alice := w.user("alice", "Keys Use")
	a := w.agent(alice)
	if info, err := os.Stat(a.socket); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v, %v", info, err)
	}
	if out := a.says(); !strings.Contains(out, "SSH_AUTH_SOCK='"+a.socket+"'; export SSH_AUTH_SOCK;") {
		t.Errorf("the agent says %s", out)
	}
	if out, err := a.command("ssh-add", "-l"); err != nil || !strings.Contains(out, "256 "+k.Fingerprint+" deploy@fleet (ED25519)") || strings.Count(out, "\n") != 1 {
		t.Errorf("ssh-add -l: %v: %s", err, out)
	}
	if out, err := a.command("ssh-add", "-L"); err != nil || strings.TrimSpace(out) != k.PublicKey+" deploy@fleet" {
		t.Errorf("ssh-add -L: %v: %s", err, out)
	}
	if !a.logsInTo(w.servers[0]) {
		t.Error("ssh does not log in")
	}
	for _, args := range [][]string{{"-D"}, {w.ops}, {"-d", w.ops}} {
		if out, err := a.command("ssh-add", args...); err == nil {
			t.Errorf("ssh-add %v: %s", args, out)
		}
	}
	public := filepath.Join(w.dir, "held.pub")
	w.write(public, k.PublicKey+"\n")
	if out, err := a.command("ssh-add", "-T", public); err == nil || !strings.Contains(a.says(), "nothing else is signed") {
		t.Errorf("ssh-add -T, which has a random text signed: %s; %s", out, a.says())
	}

	// A repository is cloned, and what is signed verifies.
	repository := filepath.Join(w.servers[0].Home(), "repository.git")
	if out, err := exec.CommandContext(t.Context(), need.Program(t, "git", "git"), "init", "-q", "--bare", repository).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	if out, err := a.command("git", "-c", "core.sshCommand=ssh "+strings.Join(w.ssh(w.servers[0])[:8], " "), "clone", "-q", "ssh://"+w.servers[0].User()+"@"+w.servers[0].Address()+repository, filepath.Join(w.dir, "clone")); err != nil {
		t.Errorf("git clone: %v: %s", err, out)
	}
	message, signers := filepath.Join(w.dir, "message"), filepath.Join(w.dir, "signers")
	w.write(message, "a commit\n")
	w.write(signers, "alice "+k.PublicKey+"\n")
	if out, err := a.command("ssh-keygen", "-Y", "sign", "-n", "git", "-f", public, message); err != nil {
		t.Errorf("ssh-keygen -Y sign: %v: %s; %s", err, out, a.says())
	}
	verify := fmt.Sprintf("ssh-keygen -Y verify -n git -f '%s' -I alice -s '%s.sig' < '%s'", signers, message, message)
	if out, err := a.command("sh", "-c", verify); err != nil || !strings.Contains(out, "Good") {
		t.Errorf("%s: %v: %s", verify, err, out)
	}

	commit := []string{"-C", filepath.Join(w.dir, "clone")}
	for _, c := range []string{
		"user.name=alice", "user.email=alice@example.com", "gpg.format=ssh", "user.signingKey=" + public, "gpg.ssh.allowedSignersFile=" + signers,
	} {
		commit = append(commit, "-c", c)
	}
	w.write(signers, "alice@example.com "+k.PublicKey+"\n")
	for _, args := range [][]string{{"commit", "-q", "--allow-empty", "-S", "-m", "signed"}, {"verify-commit", "HEAD"}} {
		if out, err := a.command("git", append(commit, args...)...); err != nil {
			t.Errorf("git %s: %v: %s", args[0], err, out)
		}
	}

	// Locked, it says and does nothing.
	locking := func(lock []byte) {
		t.Helper()
		if answer := a.ask(append([]byte{lock[0], 0, 0, 0, 6}, "secret"...)); len(answer) != 1 || answer[0] != lock[1] {
			t.Errorf("message %d: %v", lock[0], answer)
		}
	}
	locking([]byte{22, 6})
	if out, err := a.command("ssh-add", "-l"); err == nil || a.logsInTo(w.servers[0]) {
		t.Errorf("locked: %s", out)
	}
	if answer := a.ask([]byte{23, 0, 0, 0, 1, 'x'}); answer[0] != 5 {
		t.Errorf("unlocked by another passphrase: %v", answer)
	}
	locking([]byte{23, 6})

	// Rights count at each signature.
	listed := func(want bool) {
		t.Helper()
		if out, _ := a.command("ssh-add", "-l"); strings.Contains(out, k.Fingerprint) != want {
			t.Errorf("listed %v: %s", !want, out)
		}
		if a.logsInTo(w.servers[0]) != want {
			t.Errorf("ssh logs in: %v", !want)
		}
	}
	w.ok("user", "set", "alice", "--permission", "Keys Read")
	listed(false)
	if !strings.Contains(a.says(), `keyturn user set alice --permission "Keys Use"`) {
		t.Errorf("the agent does not say why: %s", a.says())
	}
	w.ok("user", "set", "alice", "--permission", "Keys Use")
	listed(true)
	if out := w.ok("key", "allow", k.UUID, "--user", "admin"); out != "admin\n" {
		t.Errorf("key allow: %s", out)
	}
	listed(false)
	w.ok("key", "allow", k.UUID, "--user", "alice")
	listed(true)
	if out := w.ok("key", "disallow", k.UUID, "--user", "alice", "--user", "admin"); out != "nobody\n" {
		t.Errorf("key disallow: %s", out)
	}
	listed(false)
	w.ok("key", "allow", k.UUID, "--everybody")
	listed(true)
	w.stop()
	listed(false)
	if !strings.Contains(a.says(), "no server answers") {
		t.Errorf("the agent does not say why: %s", a.says())
	}
	if code := a.stop(); code != 0 {
		t.Errorf("the agent ended with %d: %s", code, a.says())
	}
}

// ask sends one message to the agent, and returns the answer.
func (a *testAgent) ask(message []byte) []byte {
	a.w.t.Helper()
	c, err := net.Dial("unix", a.socket)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		a.w.t.Fatal(err)
	}
	if _, err := c.Write(append([]byte{0, 0, byte(len(message) >> 8), byte(len(message))}, message...)); err != nil {
		a.w.t.Fatal(err)
	}
	answer := make([]byte, 1<<16)
	n, err := c.Read(answer)
	if err != nil || n < 5 {
		a.w.t.Fatalf("%d bytes, %v", n, err)
	}
	return answer[4:n]
}

// Where ssh -A forwards the agent to, nobody gets a signature unless that is asked for.
func TestAgentForwarded(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.generated()
	hop := func(a *testAgent) (string, error) {
		onward := append([]string{"ssh"}, append(w.ssh(w.servers[1]), "echo", "arrived")...)
		return a.command("ssh", append([]string{"-A", "-n"}, append(w.ssh(w.servers[0]), onward...)...)...)
	}
	alice := w.user("alice", "Keys Use")
	a := w.agent(alice)
	if out, err := hop(a); err == nil || !strings.Contains(a.says(), "the agent that is forwarded to the host with key "+string(w.servers[0].HostKey().Fingerprint())) {
		t.Errorf("forwarded: %v: %s; the agent says: %s", err, out, a.says())
	}
	b := w.agent(alice, "--forwarded")
	if out, err := hop(b); err != nil || !strings.Contains(out, "arrived") {
		t.Errorf("forwarded, and let: %v: %s; the agent says: %s", err, out, b.says())
	}
}

// A person says no, and nothing is signed; the question says to what.
func TestAgentConfirms(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k := w.generated()
	alice := w.user("alice", "Keys Use")
	asked, answer := filepath.Join(w.dir, "asked"), filepath.Join(w.dir, "answer")
	askpass := filepath.Join(w.dir, "askpass")
	if err := os.WriteFile(askpass, []byte(fmt.Sprintf("#!/bin/sh\necho \"$SSH_ASKPASS_PROMPT: $1\" >> '%s'\nexit \"$(cat '%s')\"\n", asked, answer)), 0o700); err != nil {
		t.Fatal(err)
	}
	alice["SSH_ASKPASS"] = askpass
	a := w.agent(alice, "--confirm")
	w.write(answer, "1")
	if a.logsInTo(w.servers[0]) || !strings.Contains(a.says(), "not confirmed") {
		t.Errorf("it logs in unconfirmed; the agent says: %s", a.says())
	}
	if got, want := w.read(asked), "confirm: Log in as \""+w.servers[0].User()+"\" to the host with key "+string(w.servers[0].HostKey().Fingerprint())+" with key "+k.Fingerprint+"?\n"; got != want {
		t.Errorf("asked %q, want %q", got, want)
	}
	w.write(answer, "0")
	if !a.logsInTo(w.servers[0]) {
		t.Error("it does not log in, confirmed")
	}
	delete(alice, "SSH_ASKPASS")
	w.env = alice
	if code, _, errs := w.try("agent", "--confirm", "--", "true"); code != 2 || !strings.Contains(errs, "nobody to ask") {
		t.Errorf("with nobody to ask: exit %d, %s", code, errs)
	}
}

// An agent ends when its lifetime is over, also while it has more clients than it serves.
func TestAgentLifetime(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.generated()
	a := w.agent(w.env, "--lifetime", "2s")
	for range 300 {
		c, err := net.Dial("unix", a.socket)
		if err != nil {
			break // it has ended already
		}
		defer c.Close()
	}
	select {
	case <-a.ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it serves on")
	}
	if code := a.stop(); code != 0 {
		t.Errorf("it ended with %d: %s", code, a.says())
	}
}

// An agent runs a command and ends with it, with its exit code; one that has a lifetime
// ends by itself. It offers what it is told to, and never starts where it is of no use.
func TestAgentCommand(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	code, _, errs := w.try("agent", "--", "true")
	if code != 1 || !strings.Contains(errs, "no key that signs for you") {
		t.Errorf("without a key: exit %d, %s", code, errs)
	}
	k, other := w.generated(), w.generated()
	code, out, errs := w.try("agent", "--key", other.UUID, "--", "sh", "-c", "ssh-add -L; exit 7")
	if code != 7 || !strings.Contains(out, other.PublicKey) || strings.Contains(out, k.PublicKey) {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
	if code, _, errs := w.try("agent", "--", "/no/such/program"); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("without a program: exit %d, %s", code, errs)
	}
	if code, _, errs := w.try("agent", "--key", "1f4158e4-c12d-5097-a058-7bb2817e132b"); code != 1 || !strings.Contains(errs, "no key that signs for you among") {
		t.Errorf("with a key that there is not: exit %d, %s", code, errs)
	}
	a := w.agent(w.env)
	if code, _, errs := w.try("agent", "--socket", a.socket); code != 1 || !strings.Contains(errs, "an agent serves") {
		t.Errorf("where there is one: exit %d, %s", code, errs)
	}
	if code, _, errs := w.try("agent", "--socket", filepath.Join(w.dir, "ops")); code != 1 || !strings.Contains(errs, "no socket") {
		t.Errorf("over a file: exit %d, %s", code, errs)
	}
	dir, err := os.MkdirTemp("", "kta")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for _, mode := range []os.FileMode{0o777 | os.ModeSticky, 0o770, 0o702} {
		shared := filepath.Join(dir, fmt.Sprintf("%o", mode.Perm()))
		if err := os.Mkdir(shared, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(shared, mode); err != nil {
			t.Fatal(err)
		}
		if code, _, errs := w.try("agent", "--socket", filepath.Join(shared, "s"), "--lifetime", "10ms"); code != 1 || !strings.Contains(errs, "others can write to "+shared) {
			t.Errorf("in a folder of mode %v: exit %d, %s", mode, code, errs)
		}
	}
	if out := w.ok("agent", "--socket", filepath.Join(dir, "s"), "--lifetime", "10ms"); !strings.Contains(out, "SSH_AUTH_SOCK=") {
		t.Errorf("with a lifetime it says %s", out)
	}
}

// While a key is being rotated, who logs in by an agent gets in throughout: the new key
// is offered first and the old one after it, until no host accepts that.
func TestAgentWhileRotating(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	k := w.generated()
	w.ok("scan", "--wait")
	w.user("alice", "Keys Use")
	w.ok("key", "allow", k.UUID, "--user", "alice")
	alice := map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "alice", "KEYTURN_PASSWORD": "a long password of alice"}
	a := w.agent(alice, "--key", k.UUID)
	in := func(when string) {
		t.Helper()
		for _, s := range w.servers {
			if !a.logsInTo(s) {
				t.Errorf("%s: %s does not let it in", when, s.Name())
			}
		}
	}
	offered := func(when string, n int) {
		t.Helper()
		out, err := a.command("ssh-add", "-l")
		if err != nil || strings.Count(out, "\n") != n || n == 2 && !strings.Contains(strings.Split(out, "\n")[1], k.Fingerprint) {
			t.Errorf("%s: it offers %v\n%s", when, err, out)
		}
	}
	in("before")
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--soak", actedIn)
	in("at once")
	w.await(run.Run, soaks)
	offered("in the soak", 2)
	in("in the soak")
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	offered("after", 1)
	in("after")
	if out, _ := a.command("ssh-add", "-l"); strings.Contains(out, k.Fingerprint) {
		t.Errorf("the old key is offered still: %s", out)
	}
	w.ok("rollback", k.UUID, "--soak", "0s", "--wait")
	in("back")
	offered("back", 1)
}
