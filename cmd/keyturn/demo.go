package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/lab"
	"keyturn/internal/trust"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Show the whole story on throw-away servers: find, rotate, crash, resume, catch a liar, roll back",
		Long: `Show what Keyturn does, on three real sshd servers that it starts for that, on
loopback and as the current user: it finds a key, shows what a rotation would
change, rotates, has its own server killed in the middle and started again,
catches a host that lies, and takes everything back, byte for byte, while a
client logs in all the time. It needs openssh-server, a minute, and no rights.

What it prints was answered by the API of a server that runs as
"keyturn serve" does. Nothing is left behind.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON(cmd) {
				return &usageError{cmd.CommandPath(), errors.New("it tells what happens as it does, which is no JSON value")}
			}
			dir, err := os.MkdirTemp("", "keyturn-demo-")
			if err != nil {
				return err
			}
			defer os.RemoveAll(dir)
			d := &demo{cmd: cmd, dir: dir, begun: time.Now()}
			defer d.end()
			return d.run(cmd.Context())
		},
	}
}

// A demo is one show.
type demo struct {
	cmd     *cobra.Command
	dir     string
	begun   time.Time
	servers []*lab.Server
	daemon  *exec.Cmd
	client  *client
	watcher *watcher
	deploy  string // uuid of the key that is rotated
	before  map[string][]byte
}

func (d *demo) end() {
	if d.watcher != nil {
		d.watcher.stop()
	}
	d.kill()
	for _, s := range d.servers {
		s.Close()
	}
}

func (d *demo) say(format string, args ...any) {
	fmt.Fprintf(d.cmd.OutOrStdout(), "%5.1fs  %s\n", time.Since(d.begun).Seconds(), plain(fmt.Sprintf(format, args...)))
}

// title begins a chapter.
func (d *demo) title(text string) { fmt.Fprintf(d.cmd.OutOrStdout(), "\n%s\n", text) }

// run is the story, from the top.
func (d *demo) run(ctx context.Context) error {
	for _, chapter := range []struct {
		title string
		tell  func(context.Context) error
	}{
		{"Three servers, and a key that nobody remembers", d.prepare},
		{"Find", d.find},
		{"What would change", d.preview},
		{"Rotate, with a crash in the middle", d.rotate},
		{"A host that lies", d.liar},
		{"Roll back", d.rollBack},
	} {
		d.title(chapter.title)
		if err := chapter.tell(ctx); err != nil {
			if ctx.Err() != nil {
				return trust.Errorf(trust.Unavailable, "the demo was interrupted; nothing is left behind")
			}
			return fmt.Errorf("demo: %w", err)
		}
	}
	logins, refused := d.watcher.stop()
	if refused > 0 {
		return trust.Errorf(trust.Conflict, "demo: the watcher was refused %d times in %d logins", refused, logins)
	}
	d.say("a client logged in %d times all the while, and was refused 0 times", logins)
	return nil
}

// prepare starts the servers and the daemon, and takes the servers in.
func (d *demo) prepare(ctx context.Context) (err error) {
	var options []lab.Options
	for _, name := range []string{"web1", "web2", "web3"} {
		options = append(options, lab.Options{Name: name, PenaltiesOff: true})
	}
	if d.servers, err = lab.StartAll(ctx, filepath.Join(d.dir, "hosts"), options); err != nil {
		return err
	}
	ops, opsFile, err := newIdentity(filepath.Join(d.dir, "ops"), "keyturn's own login")
	if err != nil {
		return err
	}
	deploy, _, err := newIdentity(filepath.Join(d.servers[0].Home(), ".ssh", "id_ed25519"), "deploy@ci (2019)")
	if err != nil {
		return err
	}
	stranger, _, err := newIdentity(filepath.Join(d.dir, "stranger"), "someone")
	if err != nil {
		return err
	}
	for i, s := range d.servers {
		for _, line := range []struct {
			key     trust.PublicKey
			options string
		}{{ops, ""}, {deploy, []string{"", "no-pty,no-agent-forwarding", `command="uptime"`}[i]}, {stranger, `from="10.0.0.0/8"`}} {
			if err := s.Authorize(line.key, line.options); err != nil {
				return err
			}
		}
	}
	d.before = map[string][]byte{}
	for _, path := range d.files() {
		if d.before[path], err = os.ReadFile(path); err != nil {
			return err
		}
	}
	if err := d.start(ctx); err != nil {
		return err
	}
	for _, s := range d.servers {
		var out struct {
			Host hostJSON `json:"host"`
			Run  string   `json:"run"`
		}
		in := map[string]any{"name": s.Name(), "address": s.Address(), "login": s.User(), "private_key": opsFile, "host_key": s.HostKey().String(), "enforce": true}
		if err := d.client.call(ctx, "POST", "/hosts", in, &out); err != nil {
			return err
		}
		if _, err := d.await(ctx, out.Run); err != nil {
			return err
		}
		var h hostJSON
		if err := d.client.call(ctx, "GET", "/hosts/"+out.Host.ID, nil, &h); err != nil {
			return err
		}
		if h.State != "ready" {
			return fmt.Errorf("host %s: %s", h.Name, h.Reason)
		}
		d.say("%s is %s at %s", h.Name, strings.TrimPrefix(h.Server, "SSH-2.0-"), h.Address)
	}
	d.watcher = watch(d.servers, watchPace)
	return nil
}

// files are all files that the demo's keys lie in.
func (d *demo) files() []string {
	identity := filepath.Join(d.servers[0].Home(), ".ssh", "id_ed25519")
	paths := []string{identity, identity + ".pub"}
	for _, s := range d.servers {
		paths = append(paths, s.AuthorizedKeysFiles()[0])
	}
	return paths
}

func (d *demo) find(ctx context.Context) error {
	var out startedJSON
	if err := d.client.call(ctx, "POST", "/scans", map[string]any{}, &out); err != nil {
		return err
	}
	if _, err := d.await(ctx, out.Run); err != nil {
		return err
	}
	keys, err := list[keyJSON](ctx, d.client, "/keys", "keys", map[string][]string{"kind": {"user"}})
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, k := range keys {
		if len(k.Identities) > 0 && len(k.Authorized) == len(d.servers) {
			d.deploy = k.UUID
		}
		names[k.UUID] = cmp.Or(k.Comment, "a key without a comment")
		d.say("%-23s  opens %d accounts, private half known in %d places, custody %s", names[k.UUID], len(k.Authorized), len(k.Identities), k.Custody)
	}
	findings, err := list[findingJSON](ctx, d.client, "/findings", "findings", nil)
	if err != nil {
		return err
	}
	for _, f := range findings {
		if f.Kind == "orphaned" || f.Kind == "unknown" {
			d.say("%-23s  finding: %s: %s", names[f.Key], f.Kind, f.Text)
		}
	}
	if d.deploy == "" {
		return errors.New("the scan did not find the key")
	}
	return nil
}

func (d *demo) preview(ctx context.Context) error {
	run, err := d.begin(ctx, map[string]any{"keys": []string{d.deploy}, "dry_run": true, "share": true})
	if err != nil {
		return err
	}
	r, err := d.await(ctx, run)
	if err != nil {
		return err
	}
	places, err := d.client.places(ctx, r)
	if err != nil {
		return err
	}
	for _, p := range places {
		if p.Preview == nil {
			continue
		}
		if said := p.Preview.Text + p.Preview.Why; said != "" {
			d.say("%s %s", p.Name, said)
		}
		for line := range strings.Lines(p.Preview.Diff) {
			if len(line) > 100 {
				line = line[:60] + " ... " + line[len(line)-30:]
			}
			fmt.Fprintf(d.cmd.OutOrStdout(), "        %s\n", plain(line))
		}
	}
	for path, was := range d.before {
		if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, was) {
			return fmt.Errorf("the dry run changed %s", path)
		}
	}
	d.say("a dry run: nothing was changed")
	return nil
}

// rotate rotates the key, kills the daemon as soon as the journal says that the
// new key is being added, and starts it again.
func (d *demo) rotate(ctx context.Context) error {
	run, err := d.begin(ctx, map[string]any{"keys": []string{d.deploy}, "soak": shortestSoak.String(), "canary": 1, "share": true})
	if err != nil {
		return err
	}
	r, err := d.middle(ctx, run)
	if err != nil {
		return err
	}
	d.kill()
	d.say("killed the server (kill -9) in row %s", r.Row)
	if err := d.start(ctx); err != nil {
		return err
	}
	if r, err = d.client.run(ctx, run); err != nil {
		return err
	}
	d.say("started it again: the run is %s, in row %s", r.State, r.Row)
	return d.finish(ctx, run, "new")
}

// liar starts another rotation on servers of which one shows the new line and
// does not honor it.
func (d *demo) liar(ctx context.Context) error {
	k, err := d.current(ctx)
	if err != nil {
		return err
	}
	if err := d.servers[2].Lie(ctx); err != nil {
		return err
	}
	run, err := d.begin(ctx, map[string]any{"keys": []string{k.UUID}, "soak": "0s"})
	if err != nil {
		return err
	}
	r, err := d.await(ctx, run)
	if err == nil && r.State != "held" {
		err = fmt.Errorf("the run is %s although web3 lies", r.State)
	}
	if err != nil && r.State != "held" {
		return err
	}
	d.say("held in row %s: %s", r.Row, r.Reason)
	if err := d.servers[2].Honest(ctx); err != nil {
		return err
	}
	var out startedJSON
	if err := d.client.call(ctx, "POST", "/runs/"+run+"/back", nil, &out); err != nil {
		return err
	}
	r, err = d.await(ctx, out.Run)
	if r.State != "back" {
		return fmt.Errorf("the way back ended as %s: %w", r.State, err)
	}
	d.say("taken back: the run is %s, and the old key was never touched", r.State)
	return nil
}

func (d *demo) rollBack(ctx context.Context) error {
	var out struct {
		Runs []string `json:"runs"`
	}
	if err := d.client.call(ctx, "POST", "/rollbacks", map[string]any{"keys": []string{d.deploy}}, &out); err != nil {
		return err
	}
	for _, run := range out.Runs {
		if err := d.finish(ctx, run, "former"); err != nil {
			return err
		}
	}
	for path, was := range d.before {
		now, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Equal(now, was) {
			return fmt.Errorf("%s is not as it was", path)
		}
	}
	d.say("all %d files are as they were, byte for byte", len(d.before))
	return nil
}

// begin starts a rotation.
func (d *demo) begin(ctx context.Context, in map[string]any) (string, error) {
	var out startedJSON
	err := d.client.call(ctx, "POST", "/rotations", in, &out)
	return out.Run, err
}

// current returns the key that is in use in the place of the first one.
func (d *demo) current(ctx context.Context) (k keyJSON, err error) {
	if err = d.client.call(ctx, "GET", "/keys/"+d.deploy, nil, &k); err != nil {
		return k, err
	}
	if len(k.ReplacedBy) != 1 {
		return k, fmt.Errorf("key %s was replaced by %d keys", k.UUID, len(k.ReplacedBy))
	}
	id := k.ReplacedBy[0]
	k = keyJSON{}
	return k, d.client.call(ctx, "GET", "/keys/"+id, nil, &k)
}

// await waits for a run to end as done; another end is an error.
func (d *demo) await(ctx context.Context, run string) (runJSON, error) {
	r, err := d.follow(ctx, run, func(r runJSON) bool { return r.ended() || r.State == "held" })
	if err == nil && r.State != "done" {
		err = fmt.Errorf("run %s is %s: %s", run, r.State, r.Reason)
	}
	return r, err
}

// finish waits for a run, and says what it did at each place; successor is what the
// key is called that it put there.
func (d *demo) finish(ctx context.Context, run, successor string) error {
	r, err := d.await(ctx, run)
	if err != nil {
		return err
	}
	places, err := d.client.places(ctx, r)
	if err != nil {
		return err
	}
	for _, p := range places {
		text := "proven: " + p.After
		if p.Gone {
			text += "; the one before is refused"
		}
		d.say("%s  %s key %s", p.Name, successor, text)
	}
	d.say("the run is %s", r.State)
	return nil
}

// middle waits until a run has begun to change files. It is seen at the latest while
// both keys are accepted.
func (d *demo) middle(ctx context.Context, run string) (runJSON, error) {
	before := []string{"", "Baseline", "Generate"}
	r, err := d.follow(ctx, run, func(r runJSON) bool {
		return !slices.Contains(before, r.Row) || r.ended() || r.State == "held"
	})
	if err == nil && (r.ended() || r.State == "held") {
		err = fmt.Errorf("run %s is %s in row %s: %s", run, r.State, r.Row, r.Reason)
	}
	return r, err
}

func (d *demo) follow(ctx context.Context, run string, until func(runJSON) bool) (r runJSON, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, time.Minute, errors.New("nothing happened for a minute"))
	defer cancel()
	since := int64(0)
	for {
		if err := d.client.call(ctx, "GET", fmt.Sprintf("/runs/%s?wait=5s&since=%d", run, since), nil, &r); err != nil {
			return r, err
		}
		if until(r) {
			return r, nil
		}
		if err := stuck(r); err != nil {
			return r, err
		}
		since = r.Revision
	}
}

// stuck says of a run that a host does not answer: all of the demo's servers are
// meant to be up. What was cut off with the server is tried again without a word.
func stuck(r runJSON) error {
	for _, t := range r.Troubled {
		if t.State == "waiting" && strings.Contains(t.Error, "connection refused") {
			return fmt.Errorf("%s: %s", t.Place, t.Error)
		}
	}
	return nil
}

// start starts "keyturn serve" as a process of its own, and makes a token.
func (d *demo) start(ctx context.Context) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	password := make([]byte, 16)
	if _, err := rand.Read(password); err != nil {
		return err
	}
	first := d.client == nil
	d.daemon = exec.Command(self, "serve", "--data", filepath.Join(d.dir, "data"), "--kek-file", filepath.Join(d.dir, "etc", "kek"), "--http", "127.0.0.1:0")
	d.daemon.Env = append(os.Environ(), "KEYTURN_ADMIN_PASSWORD="+hex.EncodeToString(password))
	d.daemon.SysProcAttr = dieWithParent()
	log, err := d.daemon.StderrPipe()
	if err != nil {
		return err
	}
	if err := d.daemon.Start(); err != nil {
		return err
	}
	address, err := serving(log)
	if err != nil {
		return err
	}
	if !first {
		d.client.server = address
		return nil
	}
	d.client = &client{server: address, user: "admin", pass: hex.EncodeToString(password), http: newHTTP()}
	var t tokenJSON
	if err := d.client.call(ctx, "POST", "/tokens", map[string]any{"name": "demo", "permissions": []string{"All"}}, &t); err != nil {
		return err
	}
	d.client.token = t.Token
	return nil
}

// serving reads the daemon's log until it says where it serves, and goes on
// reading, so that the daemon does not block.
func serving(log io.Reader) (string, error) {
	var said bytes.Buffer
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), " http="); ok && strings.Contains(lines.Text(), "keyturn is serving") {
			address, _, _ := strings.Cut(rest, " ")
			go func() { _, _ = io.Copy(io.Discard, log) }()
			return address, nil
		}
		said.Write(append(lines.Bytes(), '\n'))
	}
	return "", trust.Errorf(trust.Unavailable, "the server did not start: %s", strings.TrimSpace(said.String()))
}

// kill ends the daemon as a power cut would.
func (d *demo) kill() {
	if d.daemon == nil || d.daemon.Process == nil {
		return
	}
	_ = d.daemon.Process.Signal(syscall.SIGKILL) // it may have ended by itself
	_ = d.daemon.Wait()                          // killed is what it is to be
	d.daemon = nil
}

// newIdentity writes a new key pair, as ssh-keygen would, and returns its public
// half and the text of its private key file.
func newIdentity(path, comment string) (trust.PublicKey, string, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	public := trust.PublicKeyOf(signer.PublicKey())
	text := pem.EncodeToMemory(block)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return trust.PublicKey{}, "", err
	}
	if err := os.WriteFile(path, text, 0o600); err != nil {
		return trust.PublicKey{}, "", err
	}
	return public, string(text), os.WriteFile(path+".pub", []byte(public.String()+" "+comment+"\n"), 0o644)
}
