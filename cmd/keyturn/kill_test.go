package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// The proof that a crash harms nobody: the real binary, killed at random
// instants of rotations over six real servers, while a client logs in all the
// time and everything that lies in the files is looked at all the time. It measures
// how long a rotation takes, to kill in the middle: no other test runs meanwhile.
func TestKill(t *testing.T) {
	need.Long(t)
	kills := 3
	if need.Full() {
		kills = 20
	}
	killAtRandom(t, kills)
}

func TestSoakKill(t *testing.T) {
	need.Soak(t)
	killAtRandom(t, 200)
}

func killAtRandom(t *testing.T, kills int) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := newFleet(t, 6, rand.New(rand.NewPCG(seed, 0)), "")
	clients := watch(f.servers, watchPace)
	defer clients.stop()
	files := f.observe()
	defer files.stop()

	// How long a rotation takes that nobody kills, and which then is taken back.
	begun := time.Now()
	unkilled, was := f.rotate(f.current()), f.current()
	f.settle(unkilled)
	whole := time.Since(begun)
	f.settle(f.back(unkilled, was))

	back, rounds := 0, 0
	hit := map[string]int{} // how many kills found a run in a row
	for killed := 0; killed < kills; rounds++ {
		before, old := f.identity(), f.current()
		run := f.rotate(old)
		last, takenBack := run, false
		f.since = time.Now()
		for range 1 + f.random.IntN(4) {
			f.kill(time.Duration(f.random.Int64N(int64(whole))))
			killed++
			f.start()
			r := f.run(last)
			hit[strings.TrimSpace(r.Direction+" "+r.Row+" "+r.State)]++
			if !takenBack && f.random.IntN(4) == 0 {
				takenBack = true
				last = f.back(run, old)
				back++
			}
			if f.run(last).ended() || killed == kills {
				break
			}
		}
		f.settle(last)
		now := f.current()
		switch {
		case takenBack && now != old:
			t.Fatalf("round %d was taken back, and %s is in use", rounds, now.Fingerprint())
		case takenBack && f.identity() != before:
			t.Fatalf("round %d was taken back, and the identity is\n%s\nwant\n%s", rounds, f.identity(), before)
		case !takenBack && now == old:
			t.Fatalf("round %d is done, and the old key is in use", rounds)
		}
		f.holds(now)
		if t.Failed() {
			t.FailNow()
		}
	}
	reads := files.stop()
	logins, refused := clients.stop()
	if refused > 0 || logins < int64(20*kills) {
		t.Errorf("the client was refused %d times in %d logins", refused, logins)
	}
	if len(hit) < min(kills/3, 10) {
		t.Errorf("kills met runs only in %v", hit)
	}
	t.Logf("%d kills in %d rotations, %d of them taken back; %d logins, %d refused; %d reads of files; a rotation takes %s; killed in %v", kills, rounds, back, logins, refused, reads, whole.Round(time.Millisecond), hit)
}

// A fleet is a server process that can be killed, and hosts on which one deploy
// key opens every account, with lines of others around it.
type fleet struct {
	t        *testing.T
	dir      string
	random   *rand.Rand
	servers  []*lab.Server
	around   []string // each authorized_keys file, with %s for the deploy key
	binary   string
	daemon   *exec.Cmd
	data     string // the server's directory
	database string // URL, or empty for SQLite in data
	client   *client
	since    time.Time // when the server began to serve, or the rotation began that is to be hit
}

// deployComment marks the lines that are Keyturn's to change.
const deployComment = "deploy@ci"

func newFleet(t *testing.T, n int, random *rand.Rand, database string) *fleet {
	t.Helper()
	need.Within(t, 20*time.Minute) // twenty kills
	need.Program(t, "sshd", "openssh-server")
	f := &fleet{t: t, dir: t.TempDir(), random: random, database: database}
	f.data = filepath.Join(f.dir, "data")
	var err error
	f.binary, err = program()
	f.must(err)
	f.serve(n)
	ops, opsText, err := newIdentity(filepath.Join(f.dir, "ops"), "keyturn")
	f.must(err)
	deploy, _, err := newIdentity(f.identityPath(), deployComment)
	f.must(err)
	stranger, _, err := newIdentity(filepath.Join(f.dir, "stranger"), "stranger")
	f.must(err)
	for i, s := range f.servers {
		text := fmt.Sprintf("# kept\r\n%s ops\n%s  two  blanks\n\n"+[]string{
			"%%s " + deployComment + "\n",
			"no-pty,command=\"echo \\\"hi\\\"\"  %%s " + deployComment + "\r\n",
			"  restrict,environment=\"A=b c\" %%s " + deployComment + "\n",
		}[i%3]+"not a key at all\nfrom=\"10.0.0.0/8\" %s  last", ops, stranger, stranger)
		f.around = append(f.around, text)
		f.must(os.WriteFile(s.AuthorizedKeysFiles()[0], fmt.Appendf(nil, text, deploy), 0o600))
	}
	f.start()
	t.Cleanup(func() { f.kill(0) })
	for _, s := range f.servers {
		var out startedJSON
		f.must(f.client.call(t.Context(), "POST", "/hosts", map[string]any{
			"name": s.Name(), "address": s.Address(), "login": s.User(), "private_key": opsText, "host_key": s.HostKey().String(), "enforce": true,
		}, &out))
		f.settle(out.Run)
	}
	f.holds(deploy)
	return f
}

// serve starts the hosts: they run this machine's release of OpenSSH and those of the
// roots of test/lab that run here, by turns.
func (f *fleet) serve(n int) {
	releases := append([]string{""}, f.otherReleases()...)
	dir := filepath.Join(f.dir, "hosts")
	var options []lab.Options
	for i := range n {
		o := lab.Options{Name: fmt.Sprintf("web%d", i+1), PenaltiesOff: true}
		o.Sshd = releases[i%len(releases)]
		options = append(options, o)
	}
	var err error
	f.servers, err = lab.StartAll(f.t.Context(), dir, options)
	f.must(err)
	for _, s := range f.servers {
		f.t.Cleanup(s.Close)
	}
}

// otherReleases returns programs that run the sshd of other releases of OpenSSH, those of
// the roots that test/lab makes: within its root, with /tmp and so the directories of the
// test in it. It takes root, and one release besides this machine's at the least, since test/lab
// makes Debian 11 (OpenSSH 8.4) everywhere.
func (f *fleet) otherReleases() (list []string) {
	need.Root(f.t)
	cache := os.Getenv("KEYTURN_LAB_CACHE")
	if cache == "" {
		dir, err := os.UserCacheDir()
		f.must(err)
		cache = filepath.Join(dir, "keyturn-lab")
	}
	var versions []lab.Version
	for _, name := range []string{"bullseye", "trixie", "sid"} {
		roots, err := filepath.Glob(filepath.Join(cache, name+"-*", "usr", "sbin", "sshd"))
		f.must(err)
		if len(roots) == 0 {
			f.t.Logf("there is no root of %s, which scripts/lab-roots makes", name)
			continue
		}
		root := filepath.Clean(filepath.Join(filepath.Dir(roots[0]), "..", ".."))
		program := filepath.Join(f.dir, "sshd-"+name)
		f.must(os.WriteFile(program, fmt.Appendf(nil, `#!/bin/sh
exec unshare --mount sh -c 'mount --bind %[2]s %[1]s/tmp && mount --rbind /dev %[1]s/dev && mount --rbind /proc %[1]s/proc && mount -t tmpfs none %[1]s/run && mkdir %[1]s/run/sshd && exec chroot %[1]s /usr/sbin/sshd "$@"' sshd "$@"
`, root, os.TempDir()), 0o755))
		version, err := lab.VersionOf(f.t.Context(), program)
		f.must(err)
		list, versions = append(list, program), append(versions, version)
	}
	if len(list) == 0 {
		need.Skip(f.t, "hosts of two releases of OpenSSH, which scripts/lab-roots makes")
	}
	f.t.Logf("beside this machine's OpenSSH hosts run %v", versions)
	return list
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// start starts "keyturn serve"; the first time, it makes a token.
func (f *fleet) start() {
	f.t.Helper()
	f.daemon = exec.Command(f.binary, "serve", "--data", f.data, "--database", f.database, "--kek-file", filepath.Join(f.dir, "etc", "kek"), "--http", "127.0.0.1:0")
	f.daemon.Env = append(os.Environ(), "KEYTURN_ADMIN_PASSWORD="+testPassword)
	f.daemon.SysProcAttr = dieWithParent()
	log, err := f.daemon.StderrPipe()
	f.must(err)
	f.must(f.daemon.Start())
	address, err := serving(log)
	f.must(err)
	f.since = time.Now()
	if f.client != nil {
		f.client.server = address
		return
	}
	f.client = &client{server: address, user: "admin", pass: testPassword, http: newHTTP()}
	var token tokenJSON
	f.must(f.client.call(f.t.Context(), "POST", "/tokens", map[string]any{"name": "kill", "permissions": []string{"All"}}, &token))
	f.client.token = token.Token
}

// kill kills the server process, as a power cut does, when it has run for so
// long.
func (f *fleet) kill(after time.Duration) {
	if f.daemon == nil {
		return
	}
	<-time.After(time.Until(f.since.Add(after)))
	_ = f.daemon.Process.Signal(syscall.SIGKILL)
	err := f.daemon.Wait()
	f.daemon = nil
	var exit *exec.ExitError
	if !errors.As(err, &exit) || !strings.Contains(exit.String(), "killed") {
		f.t.Errorf("the server ended by itself: %v", err)
	}
	f.client.http.CloseIdleConnections()
}

// rotate starts a rotation of a key.
func (f *fleet) rotate(key trust.PublicKey) string {
	f.t.Helper()
	var k keyJSON
	f.must(f.client.call(f.t.Context(), "GET", "/keys/"+url.PathEscape(string(key.Fingerprint())), nil, &k))
	if len(k.Authorized) != len(f.servers) || len(k.Identities) != 1 {
		f.t.Fatalf("key %s is known in %d accounts and %d identities", k.Fingerprint, len(k.Authorized), len(k.Identities))
	}
	var out startedJSON
	f.must(f.client.call(f.t.Context(), "POST", "/rotations", map[string]any{"keys": []string{k.UUID}, "soak": shortestSoak.String(), "share": true}, &out))
	return out.Run
}

// back takes a run back, by one of the two verbs, and returns the run that does.
func (f *fleet) back(run string, old trust.PublicKey) string {
	f.t.Helper()
	if f.random.IntN(2) == 0 {
		var out startedJSON
		f.must(f.client.call(f.t.Context(), "POST", "/runs/"+run+"/back", nil, &out))
		return out.Run
	}
	var k keyJSON
	f.must(f.client.call(f.t.Context(), "GET", "/keys/"+url.PathEscape(string(old.Fingerprint())), nil, &k))
	var out struct {
		Runs []string `json:"runs"`
	}
	f.must(f.client.call(f.t.Context(), "POST", "/rollbacks", map[string]any{"keys": []string{k.UUID}}, &out))
	if len(out.Runs) != 1 {
		f.t.Fatalf("the rollback is of %d runs", len(out.Runs))
	}
	return out.Runs[0]
}

func (f *fleet) run(id string) runJSON {
	f.t.Helper()
	r, err := f.client.run(f.t.Context(), id)
	f.must(err)
	return r
}

// settle waits for a run to end, and checks that none is open then.
func (f *fleet) settle(id string) {
	f.t.Helper()
	ctx, cancel := context.WithTimeoutCause(f.t.Context(), 90*time.Second, errors.New("the run does not end"))
	defer cancel()
	for r := (runJSON{}); !r.ended(); {
		since := r.Revision
		if err := f.client.call(ctx, "GET", fmt.Sprintf("/runs/%s?wait=5s&since=%d", id, since), nil, &r); err != nil {
			f.t.Fatalf("%v; it is %s in row %s: %s %+v", err, r.State, r.Row, r.Reason, r.Troubled)
		}
		if r.State == "held" || r.State == "partial" {
			f.t.Fatalf("run %s (%s, %s) is %s in row %s: %s %+v", id, r.Procedure, r.Direction, r.State, r.Row, r.Reason, r.Troubled)
		}
	}
	open, err := list[runJSON](ctx, f.client, "/runs", "runs", map[string][]string{"open": {"true"}})
	f.must(err)
	if len(open) > 0 {
		f.t.Fatalf("run %s has ended, and %d are open: %+v", id, len(open), open)
	}
}

func (f *fleet) identityPath() string {
	return filepath.Join(f.servers[0].Home(), ".ssh", "id_ed25519")
}

// identity returns what the identity's two files hold.
func (f *fleet) identity() string {
	f.t.Helper()
	private, err := os.ReadFile(f.identityPath())
	f.must(err)
	public, err := os.ReadFile(f.identityPath() + ".pub")
	f.must(err)
	return string(private) + string(public)
}

// current returns the public half that lies beside the identity.
func (f *fleet) current() trust.PublicKey {
	f.t.Helper()
	text, err := os.ReadFile(f.identityPath() + ".pub")
	f.must(err)
	key, _, err := trust.ParsePublicKey(string(text))
	f.must(err)
	return key
}

// holds checks that every file holds a key where the deploy key was, that
// everything else is as it was, byte for byte, and that nothing lies beside.
func (f *fleet) holds(key trust.PublicKey) {
	f.t.Helper()
	for i, s := range f.servers {
		path := s.AuthorizedKeysFiles()[0]
		text, err := os.ReadFile(path)
		f.must(err)
		if want := fmt.Sprintf(f.around[i], key); string(text) != want {
			f.t.Errorf("%s holds\n%q\nwant\n%q", s.Name(), text, want)
		}
		beside, err := os.ReadDir(filepath.Dir(path))
		f.must(err)
		want := 1
		if i == 0 {
			want = 3
		}
		if len(beside) != want {
			f.t.Errorf("%s has left beside its keys: %v", s.Name(), beside)
		}
	}
}

// An observer reads files over and over.
type observer struct {
	cancel context.CancelFunc
	done   chan struct{}
	reads  int
}

func (o *observer) stop() int {
	o.cancel()
	<-o.done
	return o.reads
}

// observe reads every authorized_keys file some hundred times a second. At each
// instant it holds every line of others, byte for byte and in order, and the
// deploy key, or two of them.
func (f *fleet) observe() *observer {
	ctx, cancel := context.WithCancel(context.Background())
	o := &observer{cancel: cancel, done: make(chan struct{})}
	var paths, others []string
	for i, s := range f.servers {
		paths = append(paths, s.AuthorizedKeysFiles()[0])
		text, _ := split(fmt.Sprintf(f.around[i], "KEY"))
		others = append(others, text)
	}
	go func() {
		defer close(o.done)
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			for i, path := range paths {
				text, err := os.ReadFile(path)
				if err != nil {
					f.t.Errorf("%v", err)
					return
				}
				o.reads++
				if foreign, ours := split(string(text)); foreign != others[i] || ours < 1 || ours > 2 {
					f.t.Errorf("at some instant web%d held\n%q", i+1, text)
					return
				}
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
		}
	}()
	return o
}

// split returns the lines of others and how many of the deploy key's there are.
func split(text string) (others string, ours int) {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if strings.HasSuffix(strings.TrimRight(line, "\r\n"), " "+deployComment) {
			ours++
			continue
		}
		b.WriteString(line)
	}
	return b.String(), ours
}
