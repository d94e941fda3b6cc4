package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/job"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file crashes the whole program at the instants before and after every
// commit of the engine, every step and every effect on a host, and starts it
// again, to go on or to go back. At every instant, with a crash or without,
// whoever reads the identity file gets into all accounts.
//
// One run has some two hundred instants. On simulated hosts every one of them is
// taken under "make test", and a sixteenth under "go test"; on real servers a few,
// and all with KEYTURN_SOAK=1. A share is drawn by a seed; KEYTURN_CRASH_SEED
// repeats a draw.

var errCrash = errors.New("crash of the test")

// A ward is a world with one key that opens an account on each of its hosts, and
// whose private half lies on the first.
type ward struct {
	*world
	hosts    []wardHost
	identity string          // the private key file
	key      trust.PublicKey // that it holds
	uuid     string
	copied   []byte // a copy of the private half, of which nobody knows
	soak     string // of its rotations; "" for none

	mu      sync.Mutex
	open    chan struct{}      // closed: the engine may pass its instants
	left    int                // instants to pass before a crash; below 0: no crash
	fault   func(point string) // called at each instant; may be nil
	until   string             // crash at the first instant that begins so; "": at none
	passed  []string
	crashed string            // the instant of the crash
	at      string            // the instant of the last crash
	works   map[[32]byte]bool // states of all files in which logins were seen
	lost    []string          // instants at which somebody was locked out
	logins  atomic.Int64      // of the tests and of the hook, at once
}

// newWard makes a ward whose node has scanned the world's hosts.
func newWard(w *ward, alter func([]job.Procedure)) *ward {
	t := w.t
	t.Helper()
	w.works, w.left, w.open = map[[32]byte]bool{}, -1, make(chan struct{})
	close(w.open)
	w.stop()
	w.tune = func(c *config) { c.crash, c.alter, c.workers = w.instant, alter, 4 }
	w.identity = filepath.Join(w.hosts[0].Home(), ".ssh", "id_ed25519")
	w.key = w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	for _, suffix := range []string{"", ".pub"} {
		if err := w.hosts[0].write(w.identity+suffix, w.read(filepath.Join(w.dir, "deploy"+suffix))); err != nil {
			t.Fatal(err)
		}
	}
	stranger := w.keyFile(filepath.Join(w.dir, "stranger"), "stranger@elsewhere")
	texts := []string{
		"# kept\n%[2]s  two  blanks\nno-pty,command=\"echo \\\"hi\\\"\"  %[1]s deploy@ci\r\n%[2]s last",
		"from=\"127.0.0.0/8\",no-agent-forwarding %[1]s deploy@ci\n\n%[2]s\ncommand=\"date\" %[1]s the same again\n",
	}
	for i, h := range w.hosts {
		path := keysFile(h)
		before, _, err := h.read(path)
		if err == nil {
			err = h.write(path, string(before)+fmt.Sprintf(texts[i%2], w.key, stranger))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	w.start()
	var scan startedJSON
	w.api(&scan, http.MethodPost, "/scans", map[string]any{})
	if err := w.client.awaitRun(t.Context(), scan.Run); err != nil {
		t.Fatal(err)
	}
	k := w.world.key(w.key)
	if len(k.Authorized) != w.lines() || len(k.Identities) != 1 || k.Custody == "held" {
		t.Fatalf("the scan found %+v", k)
	}
	w.uuid = k.UUID
	return w
}

// lines returns how many lines grant the key, one and two of them in turns.
func (w *ward) lines() int { return len(w.hosts) + len(w.hosts)/2 }

// instant is the hook of the node.
func (w *ward) instant(ctx context.Context, point string) error {
	w.mu.Lock()
	gate := w.open
	w.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.crashed != "" {
		return errCrash // a program that has crashed does nothing more
	}
	if w.fault != nil {
		w.fault(point)
	}
	now := w.left == 0 || w.until != "" && strings.HasPrefix(point, w.until)
	w.check(point, now)
	w.passed = append(w.passed, point)
	if now {
		w.crashed, w.at = point, point
		return errCrash
	}
	w.left--
	return nil
}

// check notes it if the identity file does not open all accounts now. A state
// of the files in which it did is not tried twice, but where sure is set.
func (w *ward) check(point string, sure bool) {
	state, private, err := w.state()
	if err == nil && w.works[state] && !sure {
		return
	}
	if err == nil {
		err = w.login(private)
	}
	if err != nil {
		w.lost = append(w.lost, fmt.Sprintf("%s: %v", point, err))
		return
	}
	if after, _, err := w.state(); err == nil && after == state {
		w.works[state] = true
	}
}

// state reads what decides about a login: first, once, the identity file, and
// then what the servers read.
func (w *ward) state() (sum [32]byte, private []byte, err error) {
	h := sha256.New()
	private, mode, err := w.hosts[0].read(w.identity)
	if err != nil {
		return sum, nil, err
	}
	fmt.Fprintf(h, "%s %d\n%s", mode, len(private), private)
	for _, host := range w.hosts {
		data, mode, err := host.read(keysFile(host))
		if err != nil {
			return sum, nil, err
		}
		fmt.Fprintf(h, "%s %d\n%s", mode, len(data), data)
	}
	return [32]byte(h.Sum(nil)), private, nil
}

// login logs in to all accounts.
func (w *ward) login(private []byte) error {
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		return err
	}
	for _, s := range w.hosts {
		w.logins.Add(1)
		target := dial.Target{Address: s.Address(), User: s.User(), Pins: []trust.PublicKey{s.HostKey()}}
		switch outcome, err := dial.Prove(w.t.Context(), target, signer); {
		case err != nil:
			return fmt.Errorf("%s: %w", s.Name(), err)
		case outcome != dial.Accepted:
			return fmt.Errorf("%s: %s", s.Name(), outcome)
		}
	}
	return nil
}

// arm has the node crash after it has passed n more instants; never where n is
// negative.
func (w *ward) arm(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.until, w.passed, w.crashed = n, "", nil, ""
}

// hold keeps the engine before its next instant until release is called.
func (w *ward) hold() (release func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	gate := make(chan struct{})
	w.open = gate
	return func() { close(gate) }
}

// await waits until a run has ended or is held, or the node has crashed.
func (w *ward) await(run string) (state job.State, reason string, crashed bool) {
	w.t.Helper()
	deadline := time.Now().Add(time.Minute)
	for {
		w.mu.Lock()
		crashed = w.crashed != ""
		w.mu.Unlock()
		if crashed {
			return "", "", true
		}
		err := w.node.store.View(w.t.Context(), w.node.beginning.Tenant, func(tx *store.Tx) error {
			d, err := w.node.engine.Show(tx, trust.RunID(run))
			state, reason = d.State, d.Reason
			return err
		})
		if err != nil {
			w.t.Fatal(err)
		}
		if slices.Contains([]job.State{job.Done, job.WentBack, job.Partial, job.Held, job.Paused}, state) {
			return state, reason, false
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("run %s is %s after a minute: %s\n%+v", run, state, reason, w.show(run))
		}
		time.Sleep(20 * time.Millisecond) // the next look, not a wait for something
	}
}

// rotate begins a rotation of the key and returns its run.
func (w *ward) rotate() string {
	w.t.Helper()
	var started startedJSON
	w.api(&started, http.MethodPost, "/rotations", map[string]any{"keys": []string{w.uuid}, "share": true, "soak": cmp.Or(w.soak, "0s")})
	return started.Run
}

// show returns a run as the API tells of it.
func (w *ward) show(run string) (r runJSON) {
	w.t.Helper()
	w.api(&r, http.MethodGet, "/runs/"+run, nil)
	return r
}

// back asks for the way back of a run and returns the run that goes it.
func (w *ward) back(run string) string {
	w.t.Helper()
	var started startedJSON
	w.api(&started, http.MethodPost, "/runs/"+run+"/back", map[string]any{})
	return started.Run
}

// mustEnd waits for a run that nothing is to stop any more.
func (w *ward) mustEnd(run string, want job.State) {
	w.t.Helper()
	if state, reason, crashed := w.await(run); crashed || state != want {
		w.t.Fatalf("after the crash at %q the run ended %q, want %q: %s\n%+v", w.at, state, want, reason, w.show(run))
	}
}

// mustGoBack waits until run is back, which by brings it.
func (w *ward) mustGoBack(run, by string) {
	w.t.Helper()
	if by != run {
		w.mustEnd(by, job.Done)
	}
	w.mustEnd(run, job.WentBack)
}

// files returns everything that lies beside the keys of all hosts.
func (w *ward) files() map[string]string {
	w.t.Helper()
	all := map[string]string{}
	for _, h := range w.hosts {
		files, err := h.files()
		if err != nil {
			w.t.Fatal(err)
		}
		for path, text := range files {
			all[h.Name()+":"+path] = text
		}
	}
	return all
}

// same compares all files with what they are to be.
func (w *ward) same(want map[string]string) {
	w.t.Helper()
	now := w.files()
	for path, text := range want {
		if now[path] != text {
			w.t.Errorf("%s is\n%q\nwant\n%q", path, now[path], text)
		}
	}
	for path := range now {
		if _, ok := want[path]; !ok {
			w.t.Errorf("%s was left behind", path)
		}
	}
}

// wentForward checks that a run put a new key where the old one was, and nothing else:
// before is what all files were.
func (w *ward) wentForward(run string, before map[string]string) {
	w.t.Helper()
	r := w.show(run)
	if len(r.Keys) != 1 || len(r.Keys[0].New) != 1 {
		w.t.Fatalf("run %s is of the keys %+v", run, r.Keys)
	}
	var next keyJSON
	w.api(&next, http.MethodGet, "/keys/"+r.Keys[0].New[0], nil)
	public, _, err := trust.ParsePublicKey(next.PublicKey)
	if err != nil {
		w.t.Fatal(err)
	}
	_, private, err := w.state()
	if err != nil {
		w.t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil || trust.PublicKeyOf(signer.PublicKey()) != public {
		w.t.Errorf("the identity file does not hold the new key: %v", err)
	}
	want := map[string]string{}
	for path, text := range before {
		want[path] = strings.ReplaceAll(text, w.key.String(), public.String())
	}
	at := w.hosts[0].Name() + ":" + w.identity
	head, _, _ := strings.Cut(before[at], "-----BEGIN")
	want[at] = head + string(private)
	w.same(want)
	if len(next.Authorized) != w.lines() || len(next.Identities) != 1 || next.State != "active" {
		w.t.Errorf("the new key is %+v", next)
	}
	if k := w.world.key(w.key); k.State != "rotated" || len(k.Authorized) != 0 || len(k.Identities) != 0 {
		w.t.Errorf("the old key is %+v", k)
	}
	w.key, w.uuid = public, next.UUID
}

// wentBack checks that everything is as it was before.
func (w *ward) wentBack(before map[string]string) {
	w.t.Helper()
	w.same(before)
	if k := w.world.key(w.key); k.State != "active" || len(k.Authorized) != w.lines() || len(k.Identities) != 1 {
		w.t.Errorf("the key that came back is %+v", k)
	}
}

// nobodyLost fails if somebody was locked out since it was last asked.
func (w *ward) nobodyLost() {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lost {
		w.t.Errorf("locked out at %s", l)
	}
	w.lost = nil
}

// each calls play with a share of the instants of a way, 0 and above, until
// play reports that the way has ended before its crash.
func (w *ward) each(share int, play func(at int) (ended bool)) {
	w.t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("KEYTURN_CRASH_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			w.t.Fatal(err)
		}
	}
	w.t.Logf("KEYTURN_CRASH_SEED=%d", seed)
	if os.Getenv("KEYTURN_SOAK") == "1" {
		share = 1
	}
	draw := rand.New(rand.NewPCG(seed, 0))
	begun, crashes := time.Now(), 0
	for nth := 0; ; nth++ {
		at := nth*share + draw.IntN(share) // one of every so many
		since := time.Now()
		ended := play(at)
		w.t.Logf("%6.2fs %4d passed, then %q", time.Since(since).Seconds(), at, w.at)
		w.nobodyLost()
		if w.t.Failed() {
			w.t.Fatalf("crashed as number %d at %q", at, w.at)
		}
		if ended {
			w.t.Logf("%d crashes, %d instants, %d logins in %s", crashes, len(w.passed), w.logins.Load(), time.Since(begun).Round(time.Second))
			if crashes < 3 {
				w.t.Errorf("there were only %d crashes", crashes)
			}
			return
		}
		crashes++
	}
}

// crashForward crashes on the way forward and goes on.
func crashForward(w *ward, share int) {
	w.each(share, func(at int) bool {
		before := w.files()
		w.arm(at)
		run := w.rotate()
		_, _, crashed := w.await(run)
		if crashed {
			w.stop()
			w.arm(-1)
			w.start()
		}
		w.mustEnd(run, job.Done)
		w.wentForward(run, before)
		return !crashed
	})
}

// crashForwardThenBack crashes on the way forward and goes back: by Undo, or, once
// it has begun to install, by its reverse.
func crashForwardThenBack(w *ward, share int) {
	w.each(share, func(at int) bool {
		before := w.files()
		w.arm(at)
		run := w.rotate()
		_, _, crashed := w.await(run)
		release := w.hold()
		w.stop()
		w.arm(-1)
		w.start()
		by := w.back(run)
		release()
		w.mustGoBack(run, by)
		w.wentBack(before)
		return !crashed
	})
}

// crashOnTheWayBack turns back at the first instant that begins with until, or at
// the end where that is empty, crashes on the way and goes on back.
func crashOnTheWayBack(w *ward, until string, share int) {
	w.each(share, func(at int) bool {
		before := w.files()
		w.arm(-1)
		w.until = until
		run := w.rotate()
		if _, _, crashed := w.await(run); crashed != (until != "") {
			w.t.Fatalf("the rotation did not come to %q", until)
		}
		release := w.hold()
		w.stop()
		w.arm(at)
		w.start()
		by := w.back(run)
		release()
		_, _, crashed := w.await(by)
		if crashed {
			w.stop()
			w.arm(-1)
			w.start()
		}
		w.mustGoBack(run, by)
		w.wentBack(before)
		return !crashed
	})
}

// waysBack are where a rotation can turn back, in every way that differs: the
// instant at which it does, "" for its end.
var waysBack = map[string]string{
	"undo":                        "after do Recheck",
	"reverse of a half rotation":  "after do Confirm",
	"reverse of a whole rotation": "",
}

// On real servers, a rotation that crashed goes on, or goes back, from a few of
// its instants. TestCrashEverywhere takes them all.
func TestCrash(t *testing.T) {
	need.Long(t)
	t.Parallel()
	if !need.Full() {
		crashForwardThenBack(labWard(t, nil), 50)
		return
	}
	ways := map[string]func(w *ward){
		"forward":           func(w *ward) { crashForward(w, 50) },
		"forward then back": func(w *ward) { crashForwardThenBack(w, 50) },
	}
	for name, until := range waysBack {
		share := 50
		if name == "undo" {
			share = 18 // it has a third of the instants
		}
		ways[name] = func(w *ward) { crashOnTheWayBack(w, until, share) }
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way(labWard(t, nil))
		})
	}
}

// Crashed at any instant whatever, forward or on any way back, on simulated hosts,
// a rotation goes on, and nobody is ever locked out.
func TestCrashEverywhere(t *testing.T) {
	need.Long(t)
	t.Parallel()
	hosts, share := 2, 16
	if os.Getenv("KEYTURN_SOAK") != "" {
		hosts = 6
	}
	if need.Full() {
		share = 1
	}
	ways := map[string]func(w *ward){
		"forward":           func(w *ward) { crashForward(w, share) },
		"forward then back": func(w *ward) { crashForwardThenBack(w, share) },
	}
	for name, until := range waysBack {
		ways[name] = func(w *ward) { crashOnTheWayBack(w, until, share) }
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way(simWard(t, hosts, nil))
		})
	}
}
