package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"keyturn/internal/lab/sim"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// BenchmarkFleet10000 rotates a key on 500 simulated hosts and then another one on
// 10,000, through the API of a server that is a process of its own and has all of
// them in its inventory. The hosts are simulated in this process, on the same
// machine, so that only ratios and memory mean something elsewhere.
//
//	hosts/s        of the large rotation
//	x-500          its throughput by that of the small one, just before
//	daemon-MB      the most memory that the server had for the large rotation (VmHWM)
//	enrolled/s     hosts taken in and scanned
//	daemon-ms/host processor time of the server for the large rotation
func BenchmarkFleet10000(b *testing.B) {
	for range b.N {
		f := rotateFleet(b, 10_000)
		b.ReportMetric(f.large, "hosts/s")
		b.ReportMetric(f.large/f.small, "x-500")
		b.ReportMetric(f.megabytes, "daemon-MB")
		b.ReportMetric(f.enrolled, "enrolled/s")
		b.ReportMetric(f.milliseconds, "daemon-ms/host")
	}
}

// A key on 100,000 hosts is rotated in 300 MB: what the server has at most from the
// request on until the run is done, planning included. What it had before that, to
// take the hosts in and to list where the key is accepted, is only logged.
func TestSoakFleet(t *testing.T) {
	need.Soak(t)
	f := rotateFleet(t, 100_000)
	t.Logf("%+v", f)
	if f.megabytes > 300 {
		t.Errorf("the server had %.0f MB", f.megabytes)
	}
}

// fleetFigures are what is measured of a fleet.
type fleetFigures struct {
	enrolled, small, large  float64 // hosts a second
	megabytes, milliseconds float64
}

const smallFleet = 500

// rotateFleet takes n simulated hosts in and rotates a key on some and a key on
// all of them.
func rotateFleet(tb testing.TB, n int) (figures fleetFigures) {
	w := &world{t: tb, dir: tb.TempDir()}
	hosts, err := sim.Listen(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(hosts.Close)
	ops := w.opsKey()
	few, all := w.keyFile(filepath.Join(w.dir, "few"), "few@ci"), w.keyFile(filepath.Join(w.dir, "all"), "all@ci")
	for i := range n {
		h, err := hosts.Add(sim.Options{Name: fmt.Sprintf("web%06d", i)})
		if err != nil {
			tb.Fatal(err)
		}
		for _, key := range []trust.PublicKey{ops, few, all} {
			if key == few && i >= smallFleet {
				continue
			}
			if err := h.Authorize("deploy", key, ""); err != nil {
				tb.Fatal(err)
			}
		}
	}
	daemon := w.serve()
	c := w.withToken()
	w.client = c
	begun := time.Now()
	w.enrolFleet(c, hosts.Hosts())
	figures.enrolled = float64(n) / time.Since(begun).Seconds()
	tb.Logf("enrolled %d hosts in %s, %.0f MB", n, time.Since(begun).Round(time.Second), peakMegabytes(tb, daemon))
	w.ok("key", "import", filepath.Join(w.dir, "few"))
	w.ok("key", "import", filepath.Join(w.dir, "all"))
	tb.Logf("imported the keys, %.0f MB", peakMegabytes(tb, daemon))
	rotate := func(key trust.PublicKey, hosts int) float64 {
		k := w.key(key)
		if len(k.Authorized) != hosts {
			tb.Fatalf("the key is found in %d places, want %d", len(k.Authorized), hosts)
		}
		resetPeak(tb, daemon)
		begun := time.Now()
		var out startedJSON
		w.api(&out, http.MethodPost, "/rotations", map[string]any{"keys": []string{k.UUID}, "soak": "0s", "canary": 1})
		tb.Logf("planned for %d hosts in %s, %.0f MB", hosts, time.Since(begun).Round(time.Millisecond), peakMegabytes(tb, daemon))
		if err := c.awaitRun(tb.Context(), out.Run); err != nil {
			tb.Fatal(err)
		}
		took := time.Since(begun)
		tb.Logf("rotated on %d hosts in %s, %.0f MB", hosts, took.Round(time.Millisecond), peakMegabytes(tb, daemon))
		return float64(hosts) / took.Seconds()
	}
	figures.small = rotate(few, smallFleet)
	before := processorTimeOf(tb, daemon)
	figures.large = rotate(all, n)
	figures.milliseconds = (processorTimeOf(tb, daemon) - before).Seconds() * 1000 / float64(n)
	figures.megabytes = peakMegabytes(tb, daemon)
	return figures
}

// serve starts the program as a server of its own. It returns the
// process id.
func (w *world) serve() int {
	w.t.Helper()
	binary, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.CommandContext(w.t.Context(), binary, "serve", "--data", filepath.Join(w.dir, "data"), "--kek-file", filepath.Join(w.dir, "etc", "kek"), "--http", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "KEYTURN_ADMIN_PASSWORD="+testPassword)
	cmd.SysProcAttr = dieWithParent()
	log, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	address, err := serving(log)
	if err != nil {
		w.t.Fatal(err)
	}
	w.env = map[string]string{"KEYTURN_SERVER": address, "KEYTURN_USER": "admin", "KEYTURN_PASSWORD": testPassword}
	return cmd.Process.Pid
}

// enrolFleet takes hosts in, many at a time, and waits until all are scanned.
func (w *world) enrolFleet(c *client, hosts []*sim.Host) {
	w.t.Helper()
	private := w.read(w.ops)
	group, ctx := errgroup.WithContext(w.t.Context())
	group.SetLimit(2 * benchWorkers)
	for _, h := range hosts {
		group.Go(func() error {
			var out startedJSON
			if err := c.call(ctx, http.MethodPost, "/hosts", map[string]any{
				"name": h.Name(), "address": h.Address(), "login": "deploy", "private_key": private, "host_key": h.HostKey().String(), "enforce": true,
			}, &out); err != nil {
				return err
			}
			return c.awaitRun(ctx, out.Run)
		})
	}
	if err := group.Wait(); err != nil {
		w.t.Fatal(err)
	}
}

// awaitRun waits until a run is done.
func (c *client) awaitRun(ctx context.Context, id string) error {
	r, err := c.watchEach(ctx, id, func(runJSON) error { return nil })
	if err == nil && r.State != "done" {
		err = fmt.Errorf("run %s is %s: %s", id, r.State, r.Reason)
	}
	return err
}

// peakMegabytes returns the most memory that a process has had.
func peakMegabytes(tb testing.TB, pid int) float64 {
	tb.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kilobytes, err := strconv.ParseFloat(strings.Fields(rest + " x")[0], 64)
	if err != nil {
		tb.Fatal(err)
	}
	return kilobytes / 1024
}

// resetPeak makes the most memory that a process has had what it has now (proc(5),
// /proc/pid/clear_refs).
func resetPeak(tb testing.TB, pid int) {
	tb.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
		tb.Fatal(err)
	}
}

// processorTimeOf returns the processor time of a process so far (proc_pid_stat(5)).
func processorTimeOf(tb testing.TB, pid int) time.Duration {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(rest)
	const hertz = 100 // USER_HZ, on every Linux there is
	ticks := 0
	for _, at := range []int{11, 12} { // utime and stime, counted from the state
		n, err := strconv.Atoi(f[at])
		if err != nil {
			tb.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / hertz
}
