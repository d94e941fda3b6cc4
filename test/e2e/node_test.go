//go:build linux

// Package e2e runs the product as it is used: the binary as a server, the binary
// as its command line, and hosts in namespaces, of several releases and with
// several accounts, that they work on. What decides is the machine's own ssh.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/trust"
	"keyturn/test/lab"
)

func TestMain(m *testing.M) { lab.Main(m) }

// binary builds the product, once, on the world's own memory disk.
var binary = sync.OnceValues(func() (string, error) {
	const path = "/srv/keyturn"
	if out, err := exec.Command("go", "build", "-ldflags=-w", "-o", path, "keyturn/cmd/keyturn").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w: %s", err, out)
	}
	return path, nil
})

// A node is one installation: a server that runs, and its command line.
type node struct {
	t      *testing.T
	w      *lab.World
	dir    string
	bin    string
	url    string
	token  string
	ops    keyFile // of Keyturn's own login
	server *exec.Cmd
	stdin  string // of the commands that are run
}

const password = "correct horse battery staple"

// newNode starts a server over an empty data directory.
func newNode(t *testing.T, w *lab.World) *node {
	t.Helper()
	need.Within(t, 10*time.Minute)
	bin, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, w: w, dir: t.TempDir(), bin: bin}
	n.ops = newKeyFile(t, "ops")
	n.start()
	t.Cleanup(func() { n.kill() })
	// Each use of a password costs a quarter of a second, by intent.
	n.token = strings.TrimSpace(n.ok("token", "create", "e2e", "--permission", "All"))
	return n
}

var noCore = regexp.MustCompile(`(?m)^Max core file size +0 +0 `)

var serving = regexp.MustCompile(`http=(http://[0-9.:]+)`)

// start starts the server and returns when it says where it listens.
func (n *node) start() {
	n.t.Helper()
	n.server = exec.Command(n.bin, "serve", "--data", filepath.Join(n.dir, "data"), "--kek-file", filepath.Join(n.dir, "etc", "kek"), "--http", "127.0.0.1:0", "--workers", "8")
	n.server.Env = append(os.Environ(), "KEYTURN_ADMIN_PASSWORD="+password)
	said := &said{line: make(chan string, 1)}
	n.server.Stdout, n.server.Stderr = n.t.Output(), said
	if err := n.server.Start(); err != nil {
		n.t.Fatal(err)
	}
	select {
	case n.url = <-said.line:
	case <-time.After(30 * time.Second):
		n.t.Fatalf("the server did not start:\n%s", said.String())
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", n.server.Process.Pid))
	if err != nil || !noCore.Match(limits) {
		n.t.Errorf("a crash of the server may leave a core file: %v\n%s", err, limits)
	}
}

// kill ends the server where it stands.
func (n *node) kill() {
	_ = n.server.Process.Kill()
	_ = n.server.Wait()
}

// A said is what a server writes, and a channel for the address in it.
type said struct {
	mu   sync.Mutex
	text bytes.Buffer
	line chan string
	told bool
}

func (s *said) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	if m := serving.FindSubmatch(s.text.Bytes()); m != nil && !s.told {
		s.told = true
		s.line <- string(m[1])
	}
	return len(p), nil
}

func (s *said) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// try runs a command and returns its exit code and what it printed.
func (n *node) try(args ...string) (code int, stdout, stderr string) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(n.t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, n.bin, args...)
	cmd.Env = append(os.Environ(), "KEYTURN_SERVER="+n.url, "KEYTURN_TOKEN="+n.token, "KEYTURN_USER=admin", "KEYTURN_PASSWORD="+password)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(n.stdin), &out, &errs
	begun := time.Now()
	err := cmd.Run()
	if len(args) > 1 && args[1] != "show" && args[1] != "list" {
		n.t.Logf("%6.2fs keyturn %s", time.Since(begun).Seconds(), strings.Join(args, " "))
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		n.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// ok runs a command that must succeed. When it does not, the server is asked
// what its runs say.
func (n *node) ok(args ...string) string {
	n.t.Helper()
	code, out, errs := n.try(args...)
	if code != 0 {
		n.t.Fatalf("keyturn %s: exit %d\n%s%s%s", strings.Join(args, " "), code, out, errs, n.open())
	}
	return out
}

// refused runs a command that must fail and whose complaint must have every text.
func (n *node) refused(texts []string, args ...string) string {
	n.t.Helper()
	code, out, errs := n.try(args...)
	if code == 0 {
		n.t.Fatalf("keyturn %s succeeded\n%s%s", strings.Join(args, " "), out, errs)
	}
	for _, text := range texts {
		if !strings.Contains(out+errs, text) {
			n.t.Errorf("keyturn %s does not say %q:\n%s%s", strings.Join(args, " "), text, out, errs)
		}
	}
	return out + errs
}

// open returns what the open runs say, for a failure.
func (n *node) open() string {
	_, out, _ := n.try("run", "list", "--open")
	return out
}

// json runs a command with --json, which must succeed, and reads its answer.
func (n *node) json(v any, args ...string) {
	n.t.Helper()
	out := n.ok(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		n.t.Fatalf("keyturn %s --json: %v in %s", strings.Join(args, " "), err, out)
	}
}

// add starts to take a host in, enforced; see scan.
func (n *node) add(h *lab.Host, login, become string) {
	n.t.Helper()
	args := []string{"host", "add", h.Name(), "--address", h.Address(), "--login", login, "--identity", n.ops.path, "--host-key", h.HostKeys()[0].String(), "--enforce", "--wait=false"}
	if become != "" {
		args = append(args, "--become", become)
	}
	n.ok(args...)
}

// scan waits until every host is taken in, and reads them all.
func (n *node) scan() {
	n.t.Helper()
	for patience := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		var hosts []struct {
			Name, State, Reason string
		}
		n.json(&hosts, "host", "list")
		waiting := false
		for _, h := range hosts {
			switch h.State {
			case "ready":
			case "enrolling":
				waiting = true
			default:
				n.t.Fatalf("host %s is %s: %s", h.Name, h.State, h.Reason)
			}
		}
		if !waiting {
			break
		}
		if time.Now().After(patience) {
			n.t.Fatalf("hosts are not taken in: %+v\n%s", hosts, n.open())
		}
	}
	n.ok("scan", "--wait")
}

// A key is what the command line says of a key.
type key struct {
	UUID       string   `json:"uuid"`
	PublicKey  string   `json:"public_key"`
	State      string   `json:"state"`
	Custody    string   `json:"custody"`
	Authorized []place  `json:"authorized"`
	Identities []place  `json:"identities"`
	ReplacedBy []string `json:"replaced_by"`
}

type place struct {
	Host string `json:"host"`
	User string `json:"user"`
	Path string `json:"path"`
}

func (n *node) key(name string) (k key) {
	n.t.Helper()
	n.json(&k, "key", "show", name)
	return k
}

// places returns where a key is accepted, as HOST:USER:PATH, one a line.
func (k key) places() string {
	var all strings.Builder
	for _, p := range k.Authorized {
		fmt.Fprintf(&all, "%s:%s:%s\n", p.Host, p.User, p.Path)
	}
	return all.String()
}

// A run is what the command line says of a run that it waited for.
type run struct {
	Run    string `json:"run"`
	State  string `json:"state"`
	Row    string `json:"row"`
	Reason string `json:"reason"`
	Keys   []struct {
		Old string   `json:"old"`
		New []string `json:"new"`
	} `json:"keys"`
	Left     []string `json:"left"`
	Troubled []struct {
		Place string `json:"place"`
		Row   string `json:"row"`
		State string `json:"state"`
		Error string `json:"error"`
	} `json:"troubled"`
}

// rotate rotates a key without soaking, which must succeed, and returns its
// successor.
func (n *node) rotate(old key) key {
	n.t.Helper()
	var r run
	n.json(&r, "rotate", old.UUID, "--wait", "--soak", "0s")
	if r.State != "done" || len(r.Keys) != 1 || len(r.Keys[0].New) != 1 || len(r.Left) != 0 {
		n.t.Fatalf("rotated: %+v", r)
	}
	return n.key(r.Keys[0].New[0])
}

// await follows a run until it is as the condition says.
func (n *node) await(id string, what string, condition func(run) bool) run {
	n.t.Helper()
	for patience := time.Now().Add(2 * time.Minute); ; time.Sleep(300 * time.Millisecond) {
		var r run
		n.json(&r, "run", "show", id)
		if condition(r) {
			return r
		}
		if time.Now().After(patience) {
			n.t.Fatalf("the run is not %s: %+v", what, r)
		}
	}
}

// A keyFile is a key pair as ssh-keygen writes it.
type keyFile struct {
	path   string
	public trust.PublicKey
	pem    []byte
}

func (k keyFile) line() string { return k.public.String() }

// newKeyFile has ssh-keygen make a key.
func newKeyFile(t *testing.T, comment string) keyFile {
	t.Helper()
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	k := keyFile{path: filepath.Join(t.TempDir(), comment)}
	if out, err := exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", k.path).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	public, err := os.ReadFile(k.path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	if k.pem, err = os.ReadFile(k.path); err != nil {
		t.Fatal(err)
	}
	if k.public, _, err = trust.ParsePublicKey(strings.TrimSpace(string(public))); err != nil {
		t.Fatal(err)
	}
	return k
}

// login reports whether the machine's own ssh gets into an account by an
// identity file. A connection in which nothing happens any more is no answer: what
// ssh says of it is kept, and it is made again.
func login(t *testing.T, h *lab.Host, user, identity string) bool {
	t.Helper()
	known := filepath.Join(t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(h.KnownHosts()), 0o600); err != nil {
		t.Fatal(err)
	}
	for try := 1; ; try++ {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		cmd := exec.CommandContext(ctx, "ssh", "-v", "-F", "none", "-n", "-i", identity, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
			"-o", "UserKnownHostsFile="+known, "-o", "StrictHostKeyChecking=yes", user+"@"+h.Addr().String(), "true")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		out, err := cmd.CombinedOutput()
		late := ctx.Err() != nil
		cancel()
		switch {
		case err == nil:
			return true
		case bytes.Contains(out, []byte(": Permission denied (")):
			return false
		case !late || try == 2:
			t.Fatalf("ssh to %s@%s failed otherwise than by refusal: %v\n%s", user, h.Name(), err, out)
		}
		t.Logf("ssh to %s@%s hung, and is tried again:\n%s", user, h.Name(), out)
	}
}

// want checks which identities open an account.
func want(t *testing.T, h *lab.Host, user string, opens, refused string) {
	t.Helper()
	if opens != "" && !login(t, h, user, opens) {
		t.Errorf("%s does not let %s in by %s", h.Name(), user, filepath.Base(opens))
	}
	if refused != "" && login(t, h, user, refused) {
		t.Errorf("%s lets %s in by %s", h.Name(), user, filepath.Base(refused))
	}
}

// files reads files of a host.
func files(t *testing.T, h *lab.Host, paths ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, p := range paths {
		data, err := h.ReadFile(p)
		if err != nil {
			t.Fatal(err)
		}
		all[p] = string(data)
	}
	return all
}

// nothingLeft checks that the host has no lock, snapshot or temporary file.
func nothingLeft(t *testing.T, h *lab.Host) {
	t.Helper()
	if left := h.Sh(t, `find /home /root /etc /tmp /var/tmp -xdev -name '*keyturn*' -o -path '/home/*' -name '*keyturn*' 2>/dev/null || :`); left != "" {
		t.Errorf("%s has left:\n%s", h.Name(), left)
	}
}
