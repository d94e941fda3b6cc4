package rotation

import (
	"cmp"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

const benchPlaces = 20_000

// BenchmarkPlan plans the rotation of a key that 20,000 hosts accept and writes its
// run, in one commit, as a verb does. Its floor, taken in the same run, is a commit of
// a bare row for each of the run's. Both are in time of the processor: nobody else can
// write meanwhile.
func BenchmarkPlan(b *testing.B) {
	w := newWorld(b)
	key := w.fleet(benchPlaces)
	engine, err := job.New(w.store, New(w.store, nil, nil, nil).Procedures(), job.Options{})
	if err != nil {
		b.Fatal(err)
	}
	const rows = 2 * benchPlaces // in the lists Authorized and Places
	var plan, floor time.Duration
	for n := 0; b.Loop(); n++ {
		plan += processorTime(b, func() {
			err := w.store.Update(b.Context(), storetest.Event(), func(tx *store.Tx) error {
				if _, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: testKey("next"), Custody: inventory.Held}); err != nil {
					return err
				}
				p, err := PlanRotation(tx, ask(key), []trust.PublicKey{testKey("next")})
				if err == nil {
					_, err = engine.Create(tx, storetest.Event().Actor, p)
				}
				if err == nil && len(p.Targets[Places]) != benchPlaces {
					err = fmt.Errorf("%d places", len(p.Targets[Places]))
				}
				return cmp.Or(err, errAgain)
			})
			if err != errAgain {
				b.Fatal(err)
			}
		})
		floor += processorTime(b, func() {
			w.update(func(tx *store.Tx) error {
				for i := range rows {
					_, err := tx.Exec(`INSERT INTO job_exclusive (tenant, what, run) VALUES ($1, $2, $3)`, tx.Tenant(), fmt.Sprintf("bare:%d:%d", n, i), "")
					if err != nil {
						return err
					}
				}
				return nil
			})
		})
	}
	places := float64(b.N * benchPlaces)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(plan.Microseconds())/places, "cpu-us/place")
	b.ReportMetric(float64(floor.Microseconds())/places, "cpu-us/floor")
	b.ReportMetric(float64(plan)/float64(floor), "x-floor-cpu")
}

// errAgain takes a run back at the end of its commit, so that it can be planned again.
var errAgain = errors.New("again")

// fleet adds n enforced hosts that accept one key, which the keyring holds, and
// returns that key.
func (w *world) fleet(n int) trust.KeyID {
	w.Helper()
	key := w.key("fleet", nil)
	f := authorizedKeys("deploy", "{{fleet}}\n")
	for from := 0; from < n; from += 1000 {
		w.update(func(tx *store.Tx) error {
			for i := from; i < min(from+1000, n); i++ {
				name := fmt.Sprintf("web%06d", i)
				h, err := inventory.AddHost(tx, inventory.Host{
					ID: inventory.NewHostID(), Name: name, Address: name + ":22", User: "deploy", Mode: inventory.Enforced, State: inventory.Ready,
					Pins: []inventory.Pin{{Key: testKey("host key of " + name), Origin: inventory.Given}},
				})
				if err != nil {
					return err
				}
				f.Host = h.ID
				if _, err := inventory.RecordScan(tx, inventory.Scan{
					Host: h.ID, Outcome: inventory.Scanned, Complete: true, Users: []string{"deploy"}, Files: []inventory.FoundFile{f},
				}); err != nil {
					return err
				}
			}
			return nil
		})
	}
	return key
}

// processorTime returns how long this process was on a processor for fn.
func processorTime(tb testing.TB, fn func()) time.Duration {
	tb.Helper()
	used := func() time.Duration {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			tb.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	before := used()
	fn()
	return used() - before
}
