package job

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func TestAfter(t *testing.T) {
	at := func(s string) time.Time {
		parsed, err := time.Parse("2006-01-02 15:04:05", s)
		if err != nil {
			t.Fatal(err)
		}
		return parsed
	}
	daily := Schedule{Daily: 3*time.Hour + 30*time.Minute}
	every := Schedule{Every: time.Hour, Next: at("2026-03-01 10:00:00")}
	for _, c := range []struct {
		name      string
		s         Schedule
		now, want string
	}{
		{"later today", daily, "2026-03-01 01:00:00", "2026-03-01 03:30:00"},
		{"at that very time", daily, "2026-03-01 03:30:00", "2026-03-02 03:30:00"},
		{"tomorrow", daily, "2026-03-01 23:59:59", "2026-03-02 03:30:00"},
		{"leap day", daily, "2028-02-28 12:00:00", "2028-02-29 03:30:00"},
		{"midnight", Schedule{}, "2026-03-01 00:00:01", "2026-03-02 00:00:00"},
		{"the next hour", every, "2026-03-01 10:00:00", "2026-03-01 11:00:00"},
		{"after a minute's delay, in step", every, "2026-03-01 10:01:00", "2026-03-01 11:00:00"},
		{"after three days off, once", every, "2026-03-04 12:20:00", "2026-03-04 13:00:00"},
		{"for the first time", Schedule{Every: time.Hour}, "2026-03-01 10:10:00", "2026-03-01 11:10:00"},
	} {
		if got := c.s.after(at(c.now)); !got.Equal(at(c.want)) {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
	if got := (Schedule{Off: true, Every: time.Hour}).after(at("2026-03-01 10:10:00")); !got.IsZero() {
		t.Errorf("off: %s", got)
	}
}

// A schedule starts its runs on time, survives a restart, and after a downtime
// starts one run and not those it has missed. A run that has not ended, a
// planner that fails or panics, and one that has nothing to do cost that time.
func TestSchedules(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		var mu sync.Mutex // guards fail and slow
		var fail error
		slow := time.Duration(0)
		set := func(err error, d time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			fail, slow = err, d
		}
		p := one("p", func(_ context.Context, r Run, _ Target) (Record, error) {
			mu.Lock()
			slow := slow
			mu.Unlock()
			if time.Since(r.Created) < slow {
				return nil, Until(r.Created.Add(slow))
			}
			return nil, nil
		})
		options := Options{Sole: true, Lease: time.Hour, Planners: map[string]Planner{"scan": func(_ *store.Tx, sch Schedule) (Plan, error) {
			mu.Lock()
			fail := fail
			mu.Unlock()
			if fail != nil && fail.Error() == "panic" {
				panic("out of cheese")
			}
			plan := Plan{Procedure: "p", Subject: "test:scan", Args: sch.Args, Exclusive: []string{"scan"}}
			plan.Targets = map[List][]Target{"all": {{Name: "a"}}}
			return plan, fail
		}}}
		e := start(t, s, options, p)
		e.verb(func(tx *store.Tx) error {
			return e.SetSchedule(tx, alice(), Schedule{Name: "hourly scan", Kind: "scan", Args: []byte(`{"all":true}`), Every: time.Hour})
		})
		runs := func() (n int) {
			settle()
			err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
				list, err := e.List(tx, Filter{Subject: "test:scan"}, "", 0)
				n = len(list)
				for _, r := range list {
					if r.Actor != alice() {
						t.Errorf("run of %+v", r.Actor)
					}
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		get := func() (sch Schedule) {
			err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
				all, err := e.Schedules(tx)
				if len(all) == 1 {
					sch = all[0]
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return sch
		}
		expect := func(after time.Duration, want int, outcome string) {
			t.Helper()
			time.Sleep(after)
			if n := runs(); n != want {
				t.Errorf("%d runs, want %d", n, want)
			}
			if got := get().Outcome; got != outcome {
				t.Errorf("outcome %q, want %q", got, outcome)
			}
		}
		expect(59*time.Minute, 0, "")
		expect(time.Minute, 1, "")
		expect(2*time.Hour, 3, "")

		e.stop()
		time.Sleep(72*time.Hour + 10*time.Minute)
		e = start(t, s, options, p)
		expect(0, 4, "")
		expect(50*time.Minute, 5, "")

		set(nil, 90*time.Minute)
		expect(time.Hour, 6, "")
		last := get().LastRun
		expect(time.Hour, 6, `scan is in run "`+string(last)+`" (p, waiting); keyturn run show `+string(last))
		expect(time.Hour, 7, "")
		set(nil, 0)
		expect(2*time.Hour, 8, "") // the slow one took one of these

		set(errors.New("no such policy"), 0)
		expect(time.Hour, 8, "no such policy")
		set(errors.New("panic"), 0)
		expect(time.Hour, 8, "panicked: out of cheese")
		set(ErrNothing, 0)
		expect(time.Hour, 8, "nothing to do")
		set(nil, 0)
		expect(time.Hour, 9, "")

		e.verb(func(tx *store.Tx) error {
			sch := get()
			sch.Off = true
			return e.SetSchedule(tx, alice(), sch)
		})
		expect(24*time.Hour, 9, "")
		if sch := get(); !sch.Off || sch.Every != time.Hour || string(sch.Args) != `{"all":true}` {
			t.Errorf("schedule %+v", sch)
		}
		e.verb(func(tx *store.Tx) error {
			return e.SetSchedule(tx, alice(), Schedule{Name: "hourly scan", Kind: "scan", Daily: 3 * time.Hour})
		})
		expect(48*time.Hour, 11, "")
		e.verb(func(tx *store.Tx) error { return e.DeleteSchedule(tx, "hourly scan") })
		expect(48*time.Hour, 11, "")
		err := verb(s, func(tx *store.Tx) error { return e.DeleteSchedule(tx, "hourly scan") })
		if trust.KindOf(err) != trust.NotFound {
			t.Errorf("deleting what is not there: %v", err)
		}
	})
}

func TestScheduleRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		e := start(t, s, Options{Sole: true, Planners: map[string]Planner{"scan": nil, "rotate": func(*store.Tx, Schedule) (Plan, error) { return Plan{}, nil }}}, one("p", nothing))
		for _, sch := range []Schedule{
			{Kind: "rotate"},
			{Name: "a", Kind: "nothing"},
			{Name: "a", Kind: "rotate", Every: time.Second},
			{Name: "a", Kind: "rotate", Every: time.Hour, Daily: time.Hour},
			{Name: "a", Kind: "rotate", Daily: 24 * time.Hour},
			{Name: "a", Kind: "rotate", Daily: time.Second},
		} {
			err := verb(s, func(tx *store.Tx) error { return e.SetSchedule(tx, alice(), sch) })
			if trust.KindOf(err) != trust.Invalid {
				t.Errorf("%+v: %v", sch, err)
			}
		}
	})
}
