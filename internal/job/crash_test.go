package job

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// crashes is where a run of the model procedure is crashed, and what is asked
// of it then.
type crashes struct {
	name  string
	begin func(w *world) // what is wrong in the world
	asked bool           // Back is asked before the engine that crashes starts
	back  bool           // Back is asked after the crash
	want  State          // of the first run
	there string         // a server that accepts the new key before
	key   string         // which everybody holds in the end, and the only one that is accepted
}

// TestCrashEverywhere crashes the engine at each point that it passes, before
// and after each commit and each effect (at every seventh of them, unless the proof is
// to be made whole), and
// starts another one, which goes on or goes back. At every instant everybody can log in, nothing is done without
// an intent in the journal or before the barrier, one crash makes at most one
// step run twice, and the outcome is always the same.
func TestCrashEverywhere(t *testing.T) {
	cases := []crashes{
		{name: "forward", want: Done, key: "new"},
		{name: "forward then back", back: true, want: WentBack, key: "old"},
		{name: "back by undo", begin: refused, asked: true, want: WentBack, key: "old"},
		{name: "back by undo where the line was there", begin: refused, there: "s2", asked: true, want: WentBack, key: "old"},
		{name: "back by another run", begin: readOnly, asked: true, want: WentBack, key: "old"},
	}
	stride := 1
	if !need.Full() {
		stride = 7
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			t.Run("sqlite", func(t *testing.T) {
				url := storetest.SQLite(t, Schema)
				synctest.Test(t, func(t *testing.T) { mustSurvive(t, url, c, stride) })
			})
			t.Run("postgres", func(t *testing.T) {
				url := storetest.Postgres(t, Schema)
				synctest.Test(t, func(t *testing.T) { mustSurvive(t, url, c, 13) })
			})
		})
	}
}

func mustSurvive(t *testing.T, url string, c crashes, stride int) {
	points, failures := crashEverywhere(t, url, c, nil, stride)
	for _, f := range failures {
		t.Error(f)
	}
	if points < 20 {
		t.Errorf("there were only %d points to crash at", points)
	}
}

// TestMutations checks that the test above would have noticed: each change for
// the worse of the table is found at some point.
func TestMutations(t *testing.T) {
	forward := crashes{want: Done, key: "new"}
	back := crashes{back: true, want: WentBack, key: "old"}
	undo := crashes{begin: refused, asked: true, want: WentBack, key: "old"}
	move := func(p *Procedure, name string, to int) {
		i := tableOf(*p).index(name)
		s := p.Steps[i]
		s.Group = ""
		p.Steps = slices.Insert(slices.Delete(p.Steps, i, i+1), to, s)
	}
	for _, m := range []struct {
		name   string
		in     crashes
		mutate func(*Procedure)
	}{
		{"Install before Authorize", forward, func(p *Procedure) { move(p, "Install", 0) }},
		{"Withdraw before Install", forward, func(p *Procedure) { move(p, "Withdraw", 3) }},
		{"no Undo", undo, func(p *Procedure) { p.Steps[1].Undo = nil }},
		{"no turn", back, func(p *Procedure) { p.Turn = "" }},
		{"a turn that is too late", back, func(p *Procedure) { p.Turn = "Soak" }},
		{"a way back that withdraws first", back, func(p *Procedure) {
			reverse := p.Reverse
			p.Reverse = func(tx *store.Tx, r Run) (Plan, error) {
				plan, err := reverse(tx, r)
				plan.Targets["identities"] = nil
				return plan, err
			}
		}},
		{"Undo of what was there", crashes{begin: refused, there: "s2", asked: true, want: WentBack, key: "old"}, func(p *Procedure) {
			p.Steps[0].Do = nothing // it saves nothing
		}},
	} {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			url := storetest.SQLite(t, Schema)
			synctest.Test(t, func(t *testing.T) {
				if _, failures := crashEverywhere(t, url, m.in, m.mutate, 1); len(failures) == 0 {
					t.Error("was not noticed")
				} else {
					t.Log(failures[0])
				}
			})
		})
	}
}

// refused is a world in which the new key is refused by the last server: the
// run is held before its turn.
func refused(w *world) {
	w.faults["do Prove s3"] = fault{err: trust.Errorf(trust.Denied, "the new key is refused"), once: true}
}

// readOnly is a world in which the last client cannot be written once: the run
// is held after its turn.
func readOnly(w *world) {
	w.faults["do Install c2"] = fault{err: trust.Errorf(trust.Denied, "read-only file system"), once: true}
}

// crashEverywhere plays a case once without a crash, and then with one at every
// stride-th point, and returns how many points there are and what went wrong.
// With a mutation of the procedure it stops at the first failure.
func crashEverywhere(t *testing.T, url string, c crashes, mutate func(*Procedure), stride int) (points int, failures []string) {
	s := storetest.OpenURL(t, url, Schema)
	once := func(at int) (passed int) {
		p := &play{t: t, store: s, world: newWorld(3, 2), mutate: mutate}
		p.world.soak = 0
		if c.begin != nil {
			c.begin(p.world)
		}
		if c.there != "" {
			p.world.servers[c.there]["new"] = true
		}
		p.create()
		if c.asked {
			p.run(-1) // until it is held
			p.back()
		}
		passed = p.run(at)
		if c.back {
			p.back()
		}
		p.run(-1)
		p.check(c)
		failures = append(failures, p.failures...)
		p.tidy()
		return passed
	}
	points = once(-1)
	for at := 0; at < points && (mutate == nil || len(failures) == 0); at += stride {
		if passed := once(at); passed != at+1 && mutate == nil {
			failures = append(failures, fmt.Sprintf("crash at point %d of %d: passed %d", at, points, passed))
		}
	}
	return points, failures
}

// TestCrashesAndVerbs crashes engines of several workers one after another at
// random points, with random verbs between, hosts that are away and proofs that
// fail once. Whatever happens, nobody is locked out at any instant, and in the
// end everybody holds the new key, or the old one if somebody asked for that.
func TestCrashesAndVerbs(t *testing.T) {
	plays := 15
	if os.Getenv("KEYTURN_SOAK") != "" {
		plays = 1000
	}
	url := storetest.SQLite(t, Schema)
	synctest.Test(t, func(t *testing.T) {
		s := storetest.OpenURL(t, url, Schema)
		for seed := range plays {
			if failures := randomPlay(t, s, uint64(seed)); len(failures) > 0 {
				t.Fatalf("seed %d: %s", seed, strings.Join(failures, "\n"))
			}
		}
	})
}

func randomPlay(t *testing.T, s *store.Store, seed uint64) []string {
	random := rand.New(rand.NewPCG(seed, 0))
	p := &play{t: t, store: s, world: newWorld(3, 2), workers: 3}
	p.world.soak = time.Duration(random.IntN(2)) * 10 * time.Millisecond
	for _, what := range []string{"do Authorize s1", "do Prove s2", "do Install c1", "do Install c2", "do Reprove s3", "do Withdraw s2", "undo Authorize s3"} {
		switch random.IntN(6) {
		case 0:
			p.world.faults[what] = fault{err: trust.Errorf(trust.Unavailable, "connection refused"), once: true}
		case 1:
			p.world.faults[what] = fault{err: trust.Errorf(trust.Denied, "refused"), once: true}
		case 2:
			p.world.faults[what] = fault{once: true} // panics
		}
	}
	p.create()
	c := crashes{want: Done, key: "new"}
	for range random.IntN(6) {
		p.run(random.IntN(60))
		// What is refused is refused: only what it leaves behind is judged.
		_ = verb(p.store, func(tx *store.Tx) error {
			switch random.IntN(4) {
			case 0:
				return p.engine.Pause(tx, alice(), p.id)
			case 1:
				return p.engine.Resume(tx, alice(), p.id)
			case 2:
				if random.IntN(2) > 0 {
					return nil
				}
				_, err := p.engine.Back(tx, alice(), p.id, nil)
				if err == nil {
					c = crashes{back: true, want: WentBack, key: "old"}
				}
				return err
			}
			return nil
		})
	}
	// Everything that went wrong did so once: somebody resumes until it is over.
	for range 20 {
		var open []Summary
		p.verb(func(tx *store.Tx) (err error) {
			open, err = p.engine.List(tx, Filter{Open: true}, "", 0)
			for _, r := range open {
				if r.BackBy == "" && err == nil {
					err = p.engine.Resume(tx, alice(), r.ID)
				}
			}
			return err
		})
		if len(open) == 0 {
			break
		}
		p.run(-1)
		time.Sleep(time.Hour)
	}
	c.back = true // some steps were called more than once
	p.check(c)
	return p.failures
}

// A play is one run of the model procedure, worked on by one engine after
// another.
type play struct {
	t      *testing.T
	store  *store.Store
	world  *world
	engine *Engine
	id     trust.RunID
	last   string // the point of the crash

	workers  int
	mutate   func(*Procedure)
	failures []string
}

func (p *play) fail(format string, args ...any) {
	p.failures = append(p.failures, fmt.Sprintf("crashed %q: ", p.last)+fmt.Sprintf(format, args...))
}

// tidy makes room for the next play, whatever became of this one.
func (p *play) tidy() {
	p.verb(func(tx *store.Tx) error {
		for _, table := range []string{"job_runs", "job_targets", "job_journal", "job_due", "job_exclusive"} {
			if _, err := tx.Exec(`DELETE FROM `+table+` WHERE tenant = $1`, tx.Tenant()); err != nil {
				return err
			}
		}
		return nil
	})
}

func (p *play) create() {
	p.engine = p.make(nil)
	plan := p.world.plan(args{Old: "old", New: "new"})
	plan.Canary = 1
	p.verb(func(tx *store.Tx) (err error) {
		p.id, err = p.engine.Create(tx, alice(), plan)
		return err
	})
}

func (p *play) back() {
	p.verb(func(tx *store.Tx) error {
		_, err := p.engine.Back(tx, alice(), p.id, nil)
		return err
	})
}

func (p *play) make(hook func(context.Context, string) error) *Engine {
	proc := p.world.procedure()
	if p.mutate != nil {
		p.mutate(&proc)
	}
	e, err := New(p.store, []Procedure{proc}, Options{Workers: max(p.workers, 1), Sole: true, Log: quiet(), Hook: hook})
	if err != nil {
		p.t.Fatal(err)
	}
	return e
}

func (p *play) verb(fn func(*store.Tx) error) {
	if err := verb(p.store, fn); err != nil {
		p.fail("%v", err)
	}
}

// run lets an engine work until there is nothing to do, or it crashes at the
// point of that number (-1: none), and returns how many it has passed.
func (p *play) run(at int) (passed int) {
	var mu sync.Mutex
	hook := func(_ context.Context, point string) error {
		p.world.look(point)
		mu.Lock()
		defer mu.Unlock()
		p.barrier(point)
		if p.workers <= 1 && (passed+at)%7 == 0 { // each point in some play
			p.counted(point)
		}
		passed++
		if passed-1 == at {
			p.last = point
			return errors.New("crashed " + point)
		}
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	e := p.make(hook)
	p.engine = e
	go func() { done <- e.Run(ctx) }()
	synctest.Wait()
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
	mu.Lock()
	n := passed
	mu.Unlock()
	cancel()
	err := <-done
	if p.workers > 1 {
		return n // which may be fewer than it was to crash at
	}
	if (err != nil) != (at >= 0) {
		p.fail("engine that was to crash at point %d of %d: %v", at, n, err)
	}
	return n
}

// barrier checks, before a step runs, that its intent is in the journal, and
// that what has to be before it is done.
func (p *play) barrier(point string) {
	words := strings.Fields(point)
	if words[0] != "before" || words[1] != "do" && words[1] != "undo" {
		return
	}
	step, name, d := words[2], words[3], Forward
	if words[1] == "undo" {
		d = Backward
	}
	err := p.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
		list, err := p.engine.List(tx, Filter{Open: true}, "", 0)
		list = slices.DeleteFunc(list, func(s Summary) bool { return s.BackBy != "" })
		if err != nil || len(list) != 1 {
			return fmt.Errorf("%d runs at work, %w", len(list), err)
		}
		r, err := selectRun(tx, list[0].ID)
		if err != nil {
			return err
		}
		pos, n := r.table.index(step), -1
		for t, err := range p.engine.view(r).In(tx).Targets(r.table.Rows[pos].On) {
			if err != nil {
				return err
			}
			if t.Name == name {
				n = t.N
			}
		}
		counts, err := countCellsByStage(tx, r)
		if err != nil {
			return err
		}
		here := stage{pos, r.table.wave(r.table.Rows[pos].On, n)}
		if intended := counts[d][here][CellIntended]; intended < 1 || intended > max(p.workers, 1) {
			return fmt.Errorf("%d intended in the stage", intended)
		}
		start := top
		if d == Backward {
			start = bottom
		}
		for s := r.table.next(start, d); s != here; s = r.table.next(s, d) {
			lo, hi := r.table.span(s)
			want := hi - lo
			if d == Backward {
				// Of what was begun, everything that has an Undo is undone.
				forward := counts[Forward][s]
				want = forward[CellDone] + forward[CellFailed] + forward[CellWaiting] + forward[CellIntended]
				if !r.table.Rows[s.row].Undo {
					want = 0
				}
			}
			if done := counts[d][s][CellDone]; done != want {
				return fmt.Errorf("row %s, wave %d: %d done of %d", r.table.Rows[s.row].Name, s.wave, done, want)
			}
		}
		return nil
	})
	if err != nil {
		p.fail("%s: %v", point, err)
	}
}

// countCellsByStage counts the cells of a run one by one, by direction, stage
// and state.
func countCellsByStage(tx *store.Tx, r record) (map[Direction]map[stage]map[CellState]int, error) {
	rows, err := tx.Query(`SELECT direction, pos, n, state FROM job_journal WHERE tenant = $1 AND run = $2`, r.tenant, r.id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	counts := map[Direction]map[stage]map[CellState]int{Forward: {}, Backward: {}}
	for rows.Next() {
		var d Direction
		var pos, n int
		var state CellState
		if err := rows.Scan(&d, &pos, &n, &state); err != nil {
			return nil, err
		}
		at := stage{pos, r.table.wave(r.table.Rows[pos].On, n)}
		if counts[d][at] == nil {
			counts[d][at] = map[CellState]int{}
		}
		counts[d][at][state]++
	}
	return counts, rows.Err()
}

// counted checks that what Show derives is what counting every cell gives.
func (p *play) counted(point string) {
	err := p.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
		d, err := p.engine.Show(tx, p.id)
		if err != nil {
			return err
		}
		r, err := selectRun(tx, p.id)
		if err != nil || r.direction == Backward && point == "before claim" {
			return err // where what a crash cut off may still be of the way forward
		}
		counts, err := countCellsByStage(tx, r)
		if err != nil {
			return err
		}
		for i, c := range d.Rows {
			all := map[CellState]int{}
			for wave := range r.table.waves(c.On) {
				for state, n := range counts[r.direction][stage{i, wave}] {
					all[state] += n
				}
			}
			if c.Done != all[CellDone] || c.InFlight != all[CellIntended] || c.Waiting != all[CellWaiting] || c.Failed != all[CellFailed] {
				return fmt.Errorf("row %s shows %+v, and there are %v", c.Step, c, all)
			}
		}
		return nil
	})
	if err != nil {
		p.fail("%s: %v", point, err)
	}
}

// check checks how everything came out.
func (p *play) check(c crashes) {
	for _, b := range p.world.broken {
		p.fail("locked out: %s", b)
	}
	want := ""
	for i := range 2 {
		want += fmt.Sprintf("c%d holds %s\n", i+1, c.key)
	}
	servers := ""
	for i := range 3 {
		keys := c.key
		if name := fmt.Sprintf("s%d", i+1); name == c.there && c.key != "new" {
			keys = "new, " + c.key
		}
		servers += fmt.Sprintf("s%d accepts %s\n", i+1, keys)
	}
	if got := p.world.state(); got != servers+want {
		p.fail("came out as\n%s", got)
	}
	repeated := 0
	for _, n := range p.world.calls {
		repeated += n - 1
	}
	allowed := 1 // what was in flight
	if c.begin != nil {
		allowed++ // nothing but what failed was called again
	}
	if c.back || c.asked {
		allowed = repeated // the way back may be the table once more
	}
	if repeated > allowed {
		p.fail("%d steps were called again: %v", repeated, p.world.calls)
	}
	err := p.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
		d, err := p.engine.Show(tx, p.id)
		if err != nil {
			return err
		}
		if d.State != c.want {
			p.fail("run is %s: %s", d.State, d.Reason)
		}
		open, err := p.engine.List(tx, Filter{Open: true}, "", 10)
		if len(open) > 0 {
			p.fail("still open: %+v", open)
		}
		if holder, err := p.engine.Holder(tx, "key:1"); err != nil || holder != "" {
			p.fail("key:1 is still in run %q, %v", holder, err)
		}
		return err
	})
	if err != nil {
		p.fail("%v", err)
	}
}
