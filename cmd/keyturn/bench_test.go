package main

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/lab"
	"keyturn/internal/trust"
)

const (
	benchHosts   = 50
	benchWorkers = 32 // as keyturn serve has by default
)

// BenchmarkRotateFleet rotates one held key on 50 real servers through the API,
// and in turns with that has a bare program make the handshakes that a rotation
// cannot do without: one login with the old key that runs a command, one with the
// new key, and one that offers the old key and then the new one. Servers and both
// programs share the machine, so that only ratios mean something elsewhere.
//
//	x-floor          wall time of a rotation by that of the bare program
//	handshakes/host  connections, execs/host commands, as the servers' logs have them
//	daemon-ms/host   processor time of the server, which is a process of its own;
//	                 floor-ms/host that of this one, which is the bare program and
//	                 reads the logs of the servers
//	hosts-ms/host    processor time of the servers and all that they start, and
//	                 hosts-floor-ms/host the same for the bare program
func BenchmarkRotateFleet(b *testing.B) {
	adoptOrphans(b) // or what they took is missing in descendantsTime
	w := newServers(b, benchHosts)
	w.workers = benchWorkers
	ops, deploy := w.opsKey(), w.keyFile(w.dir+"/deploy", "deploy@ci")
	good, bad := w.signer("good"), w.signer("bad")
	for _, s := range w.servers {
		for _, key := range []trust.PublicKey{ops, deploy, trust.PublicKeyOf(good.PublicKey())} {
			if err := s.Authorize(key, ""); err != nil {
				b.Fatal(err)
			}
		}
	}
	daemon := w.serve()
	c := w.withToken()
	w.client = c
	w.enrol(c)
	w.ok("key", "import", w.dir+"/deploy")
	key := w.key(deploy)
	if len(key.Authorized) != benchHosts {
		b.Fatalf("the key is found in %d places, want %d", len(key.Authorized), benchHosts)
	}
	uuid := key.UUID

	var rotated, floor spent
	var handshakes, commands int
	// One round of each that does not count: connections, caches, pages.
	bareRotation(b, w.servers, good, bad)
	b.ResetTimer()
	for range b.N { // not b.Loop, which the compiler of Go 1.26.8 ends over in this package
		// What the servers still do and write about the bare program is not counted
		// against the product.
		before := descendantsTime(b)
		floor.add(processorTime, func() { bareRotation(b, w.servers, good, bad) })
		marks := w.quiet()
		between, served := descendantsTime(b), processorTimeOf(b, daemon)
		rotated.add(func() time.Duration { return processorTimeOf(b, daemon) }, func() { uuid = w.rotate(c, uuid) })
		w.quiet()
		floor.hosts += between - before
		rotated.hosts += descendantsTime(b) - between - (processorTimeOf(b, daemon) - served)
		for i, s := range w.servers {
			for _, e := range s.Log().Events(marks[i]) {
				switch {
				case strings.HasPrefix(e.Text, "Connection from "):
					handshakes++
				case strings.HasPrefix(e.Text, "Starting session: "):
					commands++
				}
			}
		}
	}
	b.StopTimer()
	hosts := float64(benchHosts * b.N)
	b.ReportMetric(rotated.wall.Seconds()/floor.wall.Seconds(), "x-floor")
	b.ReportMetric(float64(handshakes)/hosts, "handshakes/host")
	b.ReportMetric(float64(commands)/hosts, "execs/host")
	b.ReportMetric(rotated.cpu.Seconds()*1000/hosts, "daemon-ms/host")
	b.ReportMetric(floor.cpu.Seconds()*1000/hosts, "floor-ms/host")
	b.ReportMetric(rotated.hosts.Seconds()*1000/hosts, "hosts-ms/host")
	b.ReportMetric(floor.hosts.Seconds()*1000/hosts, "hosts-floor-ms/host")
	b.ReportMetric(rotated.wall.Seconds()/float64(b.N), "s/rotation")
	for i := range w.servers {
		w.nothingLeft(i)
	}
}

// BenchmarkServeStart opens a node on a directory that is there, until it says
// that it is ready.
func BenchmarkServeStart(b *testing.B) {
	w := &world{t: b, dir: b.TempDir(), workers: benchWorkers}
	w.start()
	w.stop()
	for range b.N {
		w.start()
		resp, err := http.Get("http://" + w.node.address + "/readyz")
		if err != nil {
			b.Fatal(err)
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			b.Fatalf("/readyz answers %s", resp.Status)
		}
		b.StopTimer()
		w.stop()
		b.StartTimer()
	}
}

// spent is wall time, and processor time of whom cpu is about and of the servers,
// which are children of this process.
type spent struct{ wall, cpu, hosts time.Duration }

// add does something, and adds what it took by the clock and by that of a process.
func (s *spent) add(processor func() time.Duration, do func()) {
	begun, before := time.Now(), processor()
	do()
	s.wall += time.Since(begun)
	s.cpu += processor() - before
}

// descendantsTime is the processor time of all that this process started, and of all
// that those did, as far as somebody of them has waited for it or it still runs.
func descendantsTime(tb testing.TB) (sum time.Duration) {
	tb.Helper()
	const tick = 10 * time.Millisecond // USER_HZ, in which Linux tells it to programs
	parents, ticks := map[int]int{}, map[int]int64{}
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PPID ..., of which the 14th to the 17th are times: see proc_pid_stat(5).
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		parents[pid], _ = strconv.Atoi(fields[1])
		for _, field := range fields[11:15] {
			n, _ := strconv.ParseInt(field, 10, 64)
			ticks[pid] += n
		}
	}
	for pid, n := range ticks {
		for up := parents[pid]; up > 0; up = parents[up] {
			if up == os.Getpid() {
				sum += time.Duration(n) * tick
				break
			}
		}
	}
	return sum
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// withToken returns a client with a token: each use of a password costs as much
// processor time as a rotation of several hosts, by design.
func (w *world) withToken() *client {
	w.t.Helper()
	var token tokenJSON
	w.json(&token, "token", "create", "bench", "--permission", "All")
	c, err := newClient(w.environ)
	if err != nil {
		w.t.Fatal(err)
	}
	c.token = token.Token
	w.env["KEYTURN_TOKEN"] = token.Token
	return c
}

// enrol takes all servers in.
func (w *world) enrol(c *client) {
	w.t.Helper()
	runs := make([]string, len(w.servers))
	for i, s := range w.servers {
		var out startedJSON
		if err := c.call(w.t.Context(), http.MethodPost, "/hosts", map[string]any{
			"name": s.Name(), "address": s.Address(), "login": s.User(), "private_key": w.read(w.ops),
			"host_key": s.HostKey().String(), "enforce": true,
		}, &out); err != nil {
			w.t.Fatal(err)
		}
		runs[i] = out.Run
	}
	for _, run := range runs {
		w.finish(c, run)
	}
}

// rotate rotates a key and returns the new one's id.
func (w *world) rotate(c *client, uuid string) string {
	w.t.Helper()
	var out startedJSON
	in := map[string]any{"keys": []string{uuid}, "soak": "0s", "canary": 1}
	if err := c.call(w.t.Context(), http.MethodPost, "/rotations", in, &out); err != nil {
		w.t.Fatal(err)
	}
	return w.finish(c, out.Run).Keys[0].New[0]
}

// finish waits until a run is done.
func (w *world) finish(c *client, run string) (r runJSON) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 5*time.Minute)
	defer cancel()
	r, err := c.watchEach(ctx, run, func(runJSON) error { return nil })
	if err != nil {
		w.t.Fatal(err)
	}
	if r.State != "done" {
		w.t.Fatalf("run %s is %s: %s", run, r.State, r.Reason)
	}
	return r
}

// quiet waits until the servers have nothing more to say, and returns where their
// logs are then.
func (w *world) quiet() []int {
	read := func() (marks []int) {
		for _, s := range w.servers {
			marks = append(marks, s.Log().Seq())
		}
		return marks
	}
	deadline := time.Now().Add(time.Minute)
	for marks := read(); ; {
		if time.Now().After(deadline) {
			w.t.Fatal("the servers have had something to say for a minute")
		}
		time.Sleep(50 * time.Millisecond)
		now := read()
		if slices.Equal(now, marks) {
			return now
		}
		marks = now
	}
}

// signer makes a key pair that the product does not know.
func (w *world) signer(name string) ssh.Signer {
	w.t.Helper()
	w.keyFile(filepath.Join(w.dir, name), name)
	signer, err := ssh.ParsePrivateKey([]byte(w.read(filepath.Join(w.dir, name))))
	if err != nil {
		w.t.Fatal(err)
	}
	return signer
}

// bareRotation makes the handshakes of a rotation, and nothing else.
func bareRotation(tb testing.TB, servers []*lab.Server, good, bad ssh.Signer) {
	var group errgroup.Group
	group.SetLimit(benchWorkers)
	for _, s := range servers {
		group.Go(func() error {
			c, err := bareLogin(s, good)
			if err != nil {
				return err
			}
			session, err := c.NewSession()
			if err != nil {
				return err
			}
			if err := session.Run("true"); err != nil {
				return err
			}
			_ = c.Close()
			if c, err = bareLogin(s, good); err != nil {
				return err
			}
			_ = c.Close()
			if c, err = bareLogin(s, bad, good); err != nil {
				return err
			}
			return c.Close()
		})
	}
	if err := group.Wait(); err != nil {
		tb.Fatal(fmt.Errorf("the bare program: %w", err))
	}
}

func bareLogin(s *lab.Server, keys ...ssh.Signer) (*ssh.Client, error) {
	hostKey, err := s.HostKey().SSH()
	if err != nil {
		return nil, err
	}
	return ssh.Dial("tcp", s.Address(), &ssh.ClientConfig{
		Config: ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}, Ciphers: []string{ssh.CipherAES128GCM}},
		User:   s.User(), Auth: []ssh.AuthMethod{ssh.PublicKeys(keys...)}, HostKeyCallback: ssh.FixedHostKey(hostKey), Timeout: time.Minute,
	})
}
