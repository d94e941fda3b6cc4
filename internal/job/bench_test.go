package job

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// BenchmarkRun takes 10,000 targets through a row of no-ops. Its floor, taken
// in the same run, is what the journal promises at the least: two commits with
// an event for each target, by as many goroutines, with nothing else in them.
// x-floor is the ratio of the two, x-floor-cpu that of the CPU which this process
// takes for them, and commits/cell how many commits a target shares.
func BenchmarkRun(b *testing.B) {
	b.Run("sqlite", func(b *testing.B) { benchmarkRun(b, storetest.Open(b, Schema)) })
	b.Run("postgres", func(b *testing.B) {
		server := storetest.StartPostgres(b) // with its fsyncs, unlike that of the tests
		benchmarkRun(b, storetest.OpenURL(b, server.Database(b), Schema))
	})
}

func benchmarkRun(b *testing.B, s *store.Store) {
	const cells, workers = 10_000, 32
	var cell, floor spent
	commits := 0
	for b.Loop() {
		took, n := timeRun(b, s, cells, workers)
		cell.add(took)
		floor.add(timeFloor(b, s, cells, workers))
		commits += n
	}
	n := b.N * cells
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(int(cell.wall)/n), "ns/cell")
	b.ReportMetric(float64(int(cell.cpu)/n), "cpu-ns/cell")
	b.ReportMetric(float64(int(floor.wall)/n), "ns/floor")
	b.ReportMetric(float64(int(floor.cpu)/n), "cpu-ns/floor")
	b.ReportMetric(float64(cell.wall)/float64(floor.wall), "x-floor")
	b.ReportMetric(float64(cell.cpu)/float64(floor.cpu), "x-floor-cpu")
	b.ReportMetric(float64(commits)/float64(n), "commits/cell")
}

// spent is how long something took, and the CPU that this process gave to it.
type spent struct{ wall, cpu time.Duration }

func (s *spent) add(more spent) { s.wall, s.cpu = s.wall+more.wall, s.cpu+more.cpu }

// stopwatch returns a function that tells what was spent since.
func stopwatch(tb testing.TB) func() spent {
	tb.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			tb.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	began, before := time.Now(), used()
	return func() spent { return spent{time.Since(began), used() - before} }
}

// timeRun returns what an engine spends on a run of that many targets, and how
// many commits it makes.
func timeRun(tb testing.TB, s *store.Store, targets, workers int) (spent, int) {
	tb.Helper()
	ended := make(chan State, 1)
	p := one("bench", nothing)
	p.Ended = func(_ *store.Tx, _ Run, outcome State) error {
		select {
		case ended <- outcome:
		default:
		}
		return nil
	}
	var commits atomic.Int64
	count := func(_ context.Context, point string) error {
		if commit, ok := strings.CutPrefix(point, "after "); ok && !strings.HasPrefix(commit, "do ") {
			commits.Add(1)
		}
		return nil
	}
	e, err := New(s, []Procedure{p}, Options{Workers: workers, Sole: true, Log: quiet(), Hook: count})
	if err != nil {
		tb.Fatal(err)
	}
	createRun(tb, s, e, targets)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	watch := stopwatch(tb)
	go func() { done <- e.Run(ctx) }()
	if outcome := <-ended; outcome != Done {
		tb.Fatalf("run is %s", outcome)
	}
	took := watch()
	cancel()
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
	return took, int(commits.Load())
}

func createRun(tb testing.TB, s *store.Store, e *Engine, targets int) (id trust.RunID) {
	tb.Helper()
	plan := Plan{Procedure: "bench", Subject: "test:bench", Targets: map[List][]Target{}}
	for i := range targets {
		host := fmt.Sprintf("host-%06d", i)
		plan.Targets["all"] = append(plan.Targets["all"], Target{Host: trust.HostID(host), Name: host + ":alice:/home/alice/.ssh/authorized_keys"})
	}
	err := verb(s, func(tx *store.Tx) (err error) {
		id, err = e.Create(tx, alice(), plan)
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return id
}

// timeFloor returns what two bare commits for each cell take.
func timeFloor(tb testing.TB, s *store.Store, cells, workers int) spent {
	tb.Helper()
	var next atomic.Int64
	var wg sync.WaitGroup
	watch := stopwatch(tb)
	for range workers {
		wg.Go(func() {
			for next.Add(1) <= int64(cells) {
				for range 2 {
					if err := s.Update(context.Background(), storetest.Event(), func(*store.Tx) error { return nil }); err != nil {
						tb.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	return watch()
}

// TestSoakMemory takes 100,000 targets through three rows and looks at what the
// engine holds meanwhile: it must not grow with the number of targets.
func TestSoakMemory(t *testing.T) {
	need.Long(t)
	if os.Getenv("KEYTURN_SOAK") == "" {
		t.Log("100,000 targets only with KEYTURN_SOAK=1, here 2,000")
	}
	targets := 2_000
	if os.Getenv("KEYTURN_SOAK") != "" {
		targets = 100_000
	}
	s := storetest.Open(t, Schema)
	var most, calls atomic.Int64
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	do := func(context.Context, Run, Target) (Record, error) {
		if calls.Add(1)%int64(targets/4) == 0 {
			most.Store(max(most.Load(), heap()))
		}
		return nil, nil
	}
	p := Procedure{Name: "bench", Steps: []Step{
		{Name: "A", On: "all", Do: do}, {Name: "B", On: "all", Group: "g", Do: do}, {Name: "C", On: "all", Group: "g", Do: do},
	}}
	ended := make(chan State, 1)
	p.Ended = func(_ *store.Tx, _ Run, outcome State) error {
		select {
		case ended <- outcome:
		default:
		}
		return nil
	}
	e, err := New(s, []Procedure{p}, Options{Sole: true, Log: quiet()})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	id := createRun(t, s, e, targets)
	created := time.Since(began)
	before := heap()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	began = time.Now()
	go func() { done <- e.Run(ctx) }()
	var shows time.Duration
	for outcome := State(""); outcome == ""; {
		select {
		case outcome = <-ended:
			if outcome != Done {
				t.Errorf("run is %s", outcome)
			}
		case <-time.After(time.Second):
			asked := time.Now()
			err := s.View(ctx, storetest.Tenant, func(tx *store.Tx) error {
				_, err := e.Show(tx, id)
				return err
			})
			if err != nil {
				t.Error(err)
			}
			shows = max(shows, time.Since(asked))
		}
	}
	took := time.Since(began)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if calls.Load() != int64(3*targets) {
		t.Errorf("%d calls", calls.Load())
	}
	grown := most.Load() - before
	t.Logf("%d targets: created in %s, run in %s (%s a cell), heap grew by %d KiB, slowest Show %s",
		targets, created, took, took/time.Duration(3*targets), grown>>10, shows)
	if grown > 16<<20 {
		t.Errorf("heap grew by %d bytes", grown)
	}
}
