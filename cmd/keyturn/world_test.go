package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/keyring"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// scratch is a directory for what all tests of a process share: program, installed.
var scratch string

// TestMain runs twice as many tests at once as there are processors, unless
// -parallel says how many: they wait for hosts, soaks and disks more than half of
// their time.
func TestMain(m *testing.M) {
	flag.Parse()
	err := error(nil)
	if f := flag.Lookup("test.parallel"); f.Value.String() == f.DefValue {
		err = f.Value.Set(strconv.Itoa(2 * runtime.GOMAXPROCS(0)))
	}
	if err == nil {
		scratch, err = os.MkdirTemp("", "keyturn-test")
	}
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(scratch)
	m.Run()
}

// program builds the real program, once, and returns its path. Without what debuggers
// read it is linked in half the time.
var program = sync.OnceValues(func() (path string, err error) {
	path = filepath.Join(scratch, "keyturn")
	cmd := exec.Command("go", "build", "-ldflags=-w", "-o", path, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// A world is a node, and real sshd servers that it has taken in. Commands are
// run as a user would, against the node's API.
type world struct {
	t       testing.TB
	dir     string
	node    *node
	servers []*lab.Server
	stop    func()
	client  *client
	token   string            // an API token that may do everything
	env     map[string]string // the environment of commands
	stdin   string            // their standard input
	ops     string            // private key file of Keyturn's own login
	workers int               // of the node
	apart   bool              // an installation of its own, see installed
	tune    func(*config)     // changes what the node is started with; may be nil
}

const testPassword = "correct horse battery staple"

// actedIn is a soak in which a test does something to the hosts, on a machine that
// is busy with other tests, too.
const actedIn = "5s"

// newWorld starts n servers, web1 to webN, and a node that has taken them in,
// enforced.
func newWorld(t testing.TB, n int) *world {
	t.Helper()
	return newWorldOf(t, make([]lab.Options, n)...)
}

// newWorldOf is newWorld with servers of one's own choice.
func newWorldOf(t testing.TB, options ...lab.Options) *world {
	t.Helper()
	need.Within(t, 10*time.Minute)
	w := newServersOf(t, options...)
	ops := w.opsKey()
	w.start()
	for _, s := range w.servers {
		if err := s.Authorize(ops, ""); err != nil {
			t.Fatal(err)
		}
		w.ok("host", "add", s.Name(), "--address", s.Address(), "--login", s.User(), "--identity", w.ops, "--host-key", s.HostKey().String(), "--enforce")
	}
	return w
}

// newServers starts n servers, and no node.
func newServers(t testing.TB, n int) *world {
	t.Helper()
	return newServersOf(t, make([]lab.Options, n)...)
}

func newServersOf(t testing.TB, options ...lab.Options) *world {
	t.Helper()
	need.Program(t, "sshd", "openssh-server")
	w := &world{t: t, dir: t.TempDir(), workers: 8}
	for i := range options {
		options[i].Name, options[i].PenaltiesOff = fmt.Sprintf("web%d", i+1), true
	}
	var err error
	if w.servers, err = lab.StartAll(t.Context(), filepath.Join(w.dir, "lab"), options); err != nil {
		t.Fatal(err)
	}
	for _, s := range w.servers {
		t.Cleanup(s.Close)
	}
	return w
}

// opsKey makes the key of Keyturn's own login, and returns its public half.
func (w *world) opsKey() trust.PublicKey {
	w.t.Helper()
	w.ops = filepath.Join(w.dir, "ops")
	return w.keyFile(w.ops, "ops")
}

// An installation is what a node leaves that was started for the first time and
// stopped: dir holds its files, and the token may do everything.
type installation struct{ dir, token string }

// installed makes an installation, once: every world begins with a copy of it,
// because the hash of the admin's password and the tables cost more than most tests
// do. So all of them are one and the same to a host, unless they are apart.
var installed = sync.OnceValues(func() (i installation, err error) {
	i.dir = filepath.Join(scratch, "installed")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	n, err := openNode(ctx, config{
		data: filepath.Join(i.dir, "data"), kek: keyring.File(filepath.Join(i.dir, "etc", "kek"), filepath.Join(i.dir, "data")), http: "127.0.0.1:0",
		password: testPassword, workers: 1, log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return i, err
	}
	defer n.close()
	done := make(chan error, 1)
	go func() { done <- n.run(ctx) }()
	i.token, err = newToken(ctx, n)
	cancel()
	return i, errors.Join(err, <-done)
})

// newToken returns a token of a node's that may do everything.
func newToken(ctx context.Context, n *node) (string, error) {
	c := &client{server: "http://" + n.address, user: "admin", pass: testPassword, http: newHTTP()}
	var token tokenJSON
	err := c.call(ctx, http.MethodPost, "/tokens", map[string]any{"name": "test", "permissions": []string{"All"}}, &token)
	return token.Token, err
}

// install copies the installation to where the world's node will look for it.
func (w *world) install() {
	w.t.Helper()
	i, err := installed()
	if err != nil {
		w.t.Fatal(err)
	}
	w.token = i.token
	err = filepath.WalkDir(i.dir, func(path string, d fs.DirEntry, err error) error {
		to := filepath.Join(w.dir, strings.TrimPrefix(path, i.dir))
		if err != nil || d.IsDir() {
			return errors.Join(err, os.MkdirAll(to, 0o700))
		}
		data, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(to, data, 0o600))
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// config is what the world's node is started with.
func (w *world) config() config {
	c := config{
		data: filepath.Join(w.dir, "data"), kek: keyring.File(filepath.Join(w.dir, "etc", "kek"), filepath.Join(w.dir, "data")), http: "127.0.0.1:0",
		password: testPassword, workers: w.workers, log: slog.New(slog.NewTextHandler(w.t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn})),
	}
	if w.tune != nil {
		w.tune(&c)
	}
	return c
}

// start opens the node and runs it until the test ends or w.stop is called.
func (w *world) start() {
	w.t.Helper()
	if w.token == "" && !w.apart {
		w.install()
	}
	ctx, cancel := context.WithCancel(w.t.Context())
	n, err := openNode(ctx, w.config())
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- n.run(ctx) }()
	w.node = n
	stopped := false
	w.stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil && !errors.Is(err, errCrash) {
			w.t.Errorf("the node ended: %v", err)
		}
		n.close()
	}
	w.t.Cleanup(func() { w.stop() })
	if w.token == "" {
		if w.token, err = newToken(ctx, n); err != nil {
			w.t.Fatal(err)
		}
	}
	w.client = &client{server: "http://" + n.address, user: "admin", pass: testPassword, token: w.token, http: newHTTP()}
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": w.token}
}

// environ is the environment that the world's commands run in.
func (w *world) environ(name string) string { return w.env[name] }

// api calls an endpoint, which must succeed.
func (w *world) api(out any, method, path string, in any) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	if err := w.client.call(ctx, method, path, in, out); err != nil {
		w.t.Fatalf("%s %s: %v", method, path, err)
	}
}

// try runs a command and returns its exit code and output.
func (w *world) try(args ...string) (code int, stdout, stderr string) {
	w.t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	defer cancel()
	begun := time.Now()
	code = run(ctx, w.environ, args, strings.NewReader(w.stdin), &out, &errs)
	w.t.Logf("%6.2fs keyturn %s", time.Since(begun).Seconds(), strings.Join(args, " "))
	return code, out.String(), errs.String()
}

// ok runs a command that must succeed.
func (w *world) ok(args ...string) string {
	w.t.Helper()
	code, out, errs := w.try(args...)
	if code != 0 {
		w.t.Fatalf("keyturn %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
	}
	return out
}

// json runs a command with --json, which must succeed, and reads its answer.
func (w *world) json(v any, args ...string) {
	w.t.Helper()
	out := w.ok(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		w.t.Fatalf("keyturn %s --json: %v in %s", strings.Join(args, " "), err, out)
	}
}

// keyFile makes a key pair, writes it as ssh-keygen would, and returns its
// public half.
func (w *world) keyFile(path, comment string) trust.PublicKey {
	w.t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	public := trust.PublicKeyOf(signer.PublicKey())
	for name, data := range map[string][]byte{path: pem.EncodeToMemory(block), path + ".pub": []byte(public.String() + " " + comment + "\n")} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return public
}

// key returns the key of the inventory with a public half.
func (w *world) key(public trust.PublicKey) keyJSON {
	w.t.Helper()
	var k keyJSON
	w.api(&k, http.MethodGet, "/keys/"+url.PathEscape(string(public.Fingerprint())), nil)
	return k
}

func (w *world) read(path string) string {
	w.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(data)
}

func (w *world) authorized(i int) string { return w.servers[i].AuthorizedKeysFiles()[0] }

// await polls a run until it is as wanted.
func (w *world) await(run string, wanted func(runJSON) bool) runJSON {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		var r runJSON
		w.json(&r, "run", "show", run)
		if wanted(r) {
			return r
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("run %s is %+v", run, r)
		}
	}
}
