package job

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// onBoth runs a test in a bubble with a store on either database.
func onBoth(t *testing.T, test func(t *testing.T, s *store.Store)) {
	t.Run("sqlite", func(t *testing.T) {
		url := storetest.SQLite(t, Schema)
		synctest.Test(t, func(t *testing.T) { test(t, storetest.OpenURL(t, url, Schema)) })
	})
	t.Run("postgres", func(t *testing.T) {
		url := storetest.Postgres(t, Schema)
		synctest.Test(t, func(t *testing.T) { test(t, storetest.OpenURL(t, url, Schema)) })
	})
}

// settle waits until nothing more happens, also where PostgreSQL has asked to
// run a transaction again.
func settle() {
	synctest.Wait()
	time.Sleep(50 * time.Millisecond)
	synctest.Wait()
}

// started is an engine that runs until the end of the test, or stop.
type started struct {
	*Engine
	t    *testing.T
	stop func()
}

func start(t *testing.T, s *store.Store, o Options, procedures ...Procedure) started {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	e, err := New(s, procedures, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := e.Run(ctx); err != nil {
			t.Errorf("engine: %v", err)
		}
	}()
	stop := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return started{e, t, stop}
}

// create creates a run of a procedure with targets of these names, each on a
// host of that name, in list "all".
func (e started) create(procedure string, names ...string) trust.RunID {
	e.t.Helper()
	p := Plan{Procedure: procedure, Subject: "test:" + procedure, Targets: map[List][]Target{}}
	for _, n := range names {
		p.Targets["all"] = append(p.Targets["all"], Target{Name: n, Host: trust.HostID(n)})
	}
	return e.plan(p)
}

func (e started) plan(p Plan) (id trust.RunID) {
	e.t.Helper()
	e.verb(func(tx *store.Tx) (err error) {
		id, err = e.Create(tx, alice(), p)
		return err
	})
	return id
}

func (e started) verb(fn func(*store.Tx) error) {
	e.t.Helper()
	if err := verb(e.store, fn); err != nil {
		e.t.Fatal(err)
	}
	e.Wake()
}

func (e started) show(id trust.RunID) (d Detail) {
	e.t.Helper()
	err := e.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) (err error) {
		d, err = e.Show(tx, id)
		return err
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return d
}

func (e started) must(id trust.RunID, want State) Detail {
	e.t.Helper()
	d := e.show(id)
	if d.State != want {
		e.t.Fatalf("run is %s (%s), want %s", d.State, d.Reason, want)
	}
	return d
}

// one is a procedure of one row on list "all".
func one(name string, do func(context.Context, Run, Target) (Record, error)) Procedure {
	return Procedure{Name: name, Steps: []Step{{Name: "Do", On: "all", Do: do}}}
}

func nothing(context.Context, Run, Target) (Record, error) { return nil, nil }

// A node that is stopped for longer than its lease, as by a debugger, swapping
// or a suspended machine, finds that another one has taken its run over, and
// can write nothing of it any more.
func TestPausedNodeIsFenced(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		var mu sync.Mutex
		epochs := map[string][]int64{}
		causes := []string{}
		stopped := make(chan struct{}) // closed: node one goes on
		pause := false
		proc := func(node string) Procedure {
			return Procedure{Name: "p", Steps: []Step{
				{Name: "A", On: "all", Do: func(ctx context.Context, r Run, t Target) (Record, error) {
					mu.Lock()
					epochs[node] = append(epochs[node], r.Epoch)
					pause = true
					mu.Unlock()
					if node == "one" {
						<-stopped
						<-ctx.Done()
						mu.Lock()
						causes = append(causes, context.Cause(ctx).Error())
						mu.Unlock()
					}
					return func(tx *store.Tx) error {
						tx.Note("node", node)
						return nil
					}, nil
				}},
				{Name: "B", On: "all", Do: nothing},
			}}
		}
		// Whatever node one is going to write waits until it goes on.
		hook := func(_ context.Context, point string) error {
			mu.Lock()
			wait := pause
			mu.Unlock()
			if wait {
				<-stopped
			}
			return nil
		}
		first := start(t, s, Options{Lease: 30 * time.Second, Hook: hook, Workers: 2}, proc("one"))
		id := first.create("p", "a", "b")
		settle()
		d := first.must(id, Running)
		if d.Rows[0].InFlight != 2 {
			t.Fatalf("in flight: %+v", d.Rows[0])
		}
		second := start(t, s, Options{Lease: 30 * time.Second}, proc("two"))
		time.Sleep(25 * time.Second)
		settle()
		mu.Lock()
		early := len(epochs["two"])
		mu.Unlock()
		if early > 0 {
			t.Fatal("the second node acted before the lease was over")
		}
		time.Sleep(20 * time.Second)
		settle()
		d = second.must(id, Done)
		close(stopped)
		settle()
		if after := second.show(id); after.Revision != d.Revision || after.State != Done {
			t.Errorf("the paused node has changed the run: %+v, before %+v", after.Summary, d.Summary)
		}
		mu.Lock()
		if len(causes) != 2 || !strings.Contains(causes[0], "lost its claim") {
			t.Errorf("its steps were told %q", causes)
		}
		if a, b := epochs["one"], epochs["two"]; len(a) != 2 || len(b) != 2 || a[0] >= b[0] {
			t.Errorf("epochs %v, then %v", a, b)
		}
		mu.Unlock()
		records, err := s.Events(context.Background(), storetest.Tenant, "run:"+string(id), "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			for _, f := range r.Leaf.Fields {
				if f.Name == "node" && f.Value == "one" {
					t.Error("the paused node has recorded something")
				}
			}
		}
	})
}

// What a verb of another node asks, of which nobody tells this one, is heeded by
// the next intent at the latest: nothing begins after the verb has returned.
func TestVerbWithoutWake(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		goOn := make(chan struct{})
		p := one("p", func(context.Context, Run, Target) (Record, error) {
			<-goOn
			return nil, nil
		})
		e := start(t, s, Options{Workers: 1, Sole: true, Lease: time.Hour}, p)
		id := e.create("p", "a", "b", "c")
		settle()
		if err := verb(s, func(tx *store.Tx) error { return e.Pause(tx, alice(), id) }); err != nil {
			t.Fatal(err)
		}
		close(goOn)
		settle()
		d := e.must(id, Paused)
		if d.Rows[0].Done != 1 || d.Rows[0].InFlight != 0 {
			t.Errorf("after the pause: %+v", d.Rows[0])
		}
	})
}

// A step that takes longer than the lease keeps its run, because its node shows
// that it is alive.
func TestLeaseIsRenewed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		slow := one("p", func(ctx context.Context, _ Run, _ Target) (Record, error) {
			select {
			case <-time.After(5 * time.Minute):
				return nil, nil
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		})
		first := start(t, s, Options{Lease: 30 * time.Second}, slow)
		id := first.create("p", "a")
		settle()
		start(t, s, Options{Lease: 30 * time.Second}, slow)
		time.Sleep(6 * time.Minute)
		settle()
		if d := first.must(id, Done); d.Rows[0].Done != 1 {
			t.Errorf("%+v", d.Rows)
		}
		if n := attempts(t, s, first, id); n != 1 {
			t.Errorf("%d attempts", n)
		}
	})
}

// attempts returns how often the first target of the first row was intended.
func attempts(t *testing.T, s *store.Store, e started, id trust.RunID) (n int) {
	t.Helper()
	err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
		r, err := e.Get(tx, id)
		if err != nil {
			return err
		}
		for c, err := range r.In(tx).Cells("Do", Forward) {
			if err != nil {
				return err
			}
			n = c.Attempt
			break
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// An engine that is stopped tells its steps, waits for them, and gives its runs
// back: another one goes on at once, with what was cut off.
func TestStopGivesRunsBack(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		block := true
		p := one("p", func(ctx context.Context, r Run, t Target) (Record, error) {
			if block && t.Name == "b" {
				<-ctx.Done()
				return nil, trust.Errorf(trust.Denied, "cut off")
			}
			return nil, nil
		})
		first := start(t, s, Options{}, p)
		id := first.create("p", "a", "b", "c")
		settle()
		first.stop()
		block = false
		second := start(t, s, Options{}, p)
		settle()
		second.must(id, Done)
	})
}

// Steps never exceed the number of workers, and never meet on one host; a small
// run does not wait for a large one.
func TestHands(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		var mu sync.Mutex
		now, most, hosts, met := 0, 0, map[trust.HostID]int{}, 0
		p := one("p", func(_ context.Context, _ Run, tg Target) (Record, error) {
			mu.Lock()
			now++
			most = max(most, now)
			hosts[tg.Host]++
			met = max(met, hosts[tg.Host])
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			hosts[tg.Host]--
			mu.Unlock()
			return nil, nil
		})
		e := start(t, s, Options{Workers: 8, Sole: true}, p)
		var large []string
		for i := range 400 {
			large = append(large, fmt.Sprintf("h%d", i/2%40)) // neighbours are on one host
		}
		big := e.create("p", large...)
		time.Sleep(3 * time.Second)
		small := e.create("p", "h1", "h2", "h3", "other")
		time.Sleep(10 * time.Second)
		settle()
		e.must(small, Done)
		e.must(big, Running)
		time.Sleep(60 * time.Second)
		settle()
		e.must(big, Done)
		if most != 8 || met != 1 {
			t.Errorf("%d steps at once, %d on one host", most, met)
		}
	})
}

// Who watches a run is told at once that it was held, and that it has ended, and not
// that it goes on.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		e := start(t, s, Options{Sole: true}, one("p", func(_ context.Context, r Run, tg Target) (Record, error) {
			time.Sleep(time.Duration(tg.N+1) * time.Second)
			if tg.Name == "b" && r.Attempt == 1 {
				return nil, trust.Errorf(trust.Denied, "no")
			}
			return nil, nil
		}))
		begun := time.Now()
		id := e.create("p", "a", "b")
		told, stop := e.Watch(id)
		await := func() {
			select {
			case <-told:
			case <-time.After(time.Minute):
			}
			if took := time.Since(begun); took != 2*time.Second {
				t.Errorf("told after %s", took)
			}
		}
		other, stopOther := e.Watch("another")
		await()
		e.must(id, Held)
		settle()
		for len(told) > 0 {
			<-told
		}
		begun = time.Now()
		e.verb(func(tx *store.Tx) error { return e.Resume(tx, alice(), id) })
		await()
		e.must(id, Done)
		if len(other) > 0 {
			t.Error("told of another run")
		}
		stop()
		stopOther()
		if n := len(e.watches.all); n != 0 {
			t.Errorf("%d runs are still watched", n)
		}
	})
}

// Outcomes of steps that end one soon after the other share a commit. They do not wait
// for one that takes long, nor the last one for anything.
func TestOutcomesShareACommit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		var mu sync.Mutex
		var commits []int // how many outcomes each had
		hook := func(_ context.Context, point string) error {
			if n := strings.Count(point, "outcome "); n > 0 && strings.HasPrefix(point, "after ") {
				mu.Lock()
				defer mu.Unlock()
				commits = append(commits, n)
			}
			return nil
		}
		e := start(t, s, Options{Workers: 16, Sole: true, Hook: hook}, one("p", func(_ context.Context, _ Run, tg Target) (Record, error) {
			if tg.Name == "slow" {
				time.Sleep(10 * time.Second)
			}
			time.Sleep(time.Second + time.Duration(tg.N)*time.Millisecond)
			return nil, nil
		}))
		names := []string{"slow"}
		for i := range 15 {
			names = append(names, fmt.Sprintf("h%d", i))
		}
		begun := time.Now()
		id := e.create("p", names...)
		time.Sleep(1200 * time.Millisecond)
		settle()
		mu.Lock()
		if row := e.must(id, Running).Rows[0]; row.Done != 15 || !slices.Equal(commits, []int{15}) {
			t.Errorf("%d are done, in commits of %v", row.Done, commits)
		}
		mu.Unlock()
		time.Sleep(10 * time.Second)
		settle()
		if over := e.must(id, Done); over.Ended.Sub(begun) > 11*time.Second+20*time.Millisecond {
			t.Errorf("ended after %s", over.Ended.Sub(begun))
		}
	})
}

// What a step records is in the commit of its outcome: if it cannot be
// recorded, the target has failed and nothing is written.
func TestRecord(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		var mu sync.Mutex // guards fail and calls
		var fail error
		calls := 0
		set := func(err error) {
			mu.Lock()
			defer mu.Unlock()
			fail, calls = err, 0
		}
		called := func() int {
			mu.Lock()
			defer mu.Unlock()
			return calls
		}
		p := one("p", func(_ context.Context, r Run, _ Target) (Record, error) {
			mu.Lock()
			calls++
			mu.Unlock()
			return func(tx *store.Tx) error {
				mu.Lock()
				fail := fail
				mu.Unlock()
				err := setExclusive(tx, "recorded", r.ID+" has")
				if err == nil {
					err = fail
				}
				if err != nil && err.Error() == "panic" {
					panic("out of cheese")
				}
				return err
			}, nil
		})
		e := start(t, s, Options{Sole: true}, p)
		for _, c := range []struct {
			fail  error
			calls int
			want  string
		}{
			{nil, 1, ""},
			{errors.New("no such row"), 1, "Do a: recording it: no such row"},
			{errors.New("panic"), 1, "Do a: recording it: panicked: out of cheese"},
		} {
			set(c.fail)
			id := e.create("p", "a")
			settle()
			d := e.show(id)
			if c.fail == nil && d.State != Done || c.fail != nil && (d.State != Held || d.Reason != c.want) {
				t.Errorf("%v: run is %s: %s", c.fail, d.State, d.Reason)
			}
			if n := called(); n != c.calls {
				t.Errorf("%v: %d calls", c.fail, n)
			}
			var by trust.RunID
			e.verb(func(tx *store.Tx) (err error) {
				if by, err = e.Holder(tx, "recorded"); err == nil {
					err = passExclusive(tx, by, "")
				}
				return err
			})
			if (by == id+" has") != (c.fail == nil) {
				t.Errorf("%v: recorded by %q", c.fail, by)
			}
		}
		// A database that is away is not the step's fault: the same again.
		set(trust.Errorf(trust.Unavailable, "the database is away"))
		id := e.create("p", "a")
		settle()
		set(nil)
		time.Sleep(time.Minute)
		settle()
		e.must(id, Done)
		if n := called(); n != 1 {
			t.Errorf("called %d times after the database was back", n)
		}
	})
}

// A step that takes too long counts as unavailable.
func TestStepTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		e := start(t, s, Options{Sole: true, StepTimeout: time.Minute}, one("p", func(ctx context.Context, r Run, _ Target) (Record, error) {
			if r.Attempt == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, nil
		}))
		id := e.create("p", "a")
		time.Sleep(time.Minute)
		settle()
		if d := e.must(id, Waiting); d.Reason != "a: took longer than 1m0s" {
			t.Errorf("reason %q", d.Reason)
		}
		time.Sleep(time.Minute)
		settle()
		e.must(id, Done)
	})
}

// Once a Final row has begun there is no way back, by name.
func TestFinal(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		hold := errors.New("not yet")
		p := Procedure{Name: "purge", Steps: []Step{
			{Name: "Check", On: "all", Do: nothing, Undo: nothing},
			{Name: "Destroy", On: "all", Final: true, Do: func(_ context.Context, _ Run, t Target) (Record, error) {
				if t.Name == "b" {
					return nil, hold
				}
				return nil, nil
			}},
		}, Leave: func(*store.Tx, Run, Target) (Effect, error) { return Effect{Back: true}, nil }}
		e := start(t, s, Options{Sole: true}, p)
		id := e.create("purge", "a", "b")
		settle()
		e.must(id, Held)
		back := func(tx *store.Tx) error {
			_, err := e.Back(tx, alice(), id, nil)
			return err
		}
		leave := func(tx *store.Tx) error {
			_, err := e.Leave(tx, alice(), id, Which{Host: "b"})
			return err
		}
		for _, fn := range []func(*store.Tx) error{back, leave} {
			if err := verb(s, fn); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), `"Destroy"`) {
				t.Errorf("got %v", err)
			}
		}
		if d := e.must(id, Held); d.Left != 0 {
			t.Errorf("%d left", d.Left)
		}
	})
}

// A run is carried on only by the table that it was planned for.
func TestChangedTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		first := start(t, s, Options{Sole: true}, one("p", func(context.Context, Run, Target) (Record, error) {
			return nil, Until(time.Now().Add(time.Hour))
		}))
		id := first.create("p", "a")
		settle()
		first.stop()
		changed := Procedure{Name: "p", Steps: []Step{{Name: "Before", On: "all", Do: nothing}, {Name: "Do", On: "all", Do: nothing}}}
		second := start(t, s, Options{Sole: true}, changed)
		time.Sleep(2 * time.Hour)
		settle()
		if d := second.must(id, Held); !strings.Contains(d.Reason, "another version") {
			t.Errorf("reason %q", d.Reason)
		}
		second.stop()
		third := start(t, s, Options{Sole: true}, one("p", nothing))
		third.verb(func(tx *store.Tx) error { return third.Resume(tx, alice(), id) })
		settle()
		third.must(id, Done)
	})
}

// Lists come newest first, in pages, and tenants do not see each other's.
func TestList(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		e := start(t, s, Options{Sole: true}, one("p", nothing), one("q", nothing))
		var ids []trust.RunID
		for i := range 7 {
			time.Sleep(time.Millisecond)
			ids = append(ids, e.create([]string{"p", "q"}[i%2], "a"))
		}
		settle()
		slices.Reverse(ids)
		list := func(tenant trust.TenantID, f Filter, after trust.RunID, limit int) (got []trust.RunID) {
			err := s.View(context.Background(), tenant, func(tx *store.Tx) error {
				all, err := e.List(tx, f, after, limit)
				for _, r := range all {
					got = append(got, r.ID)
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return got
		}
		if got := append(list(storetest.Tenant, Filter{}, "", 4), list(storetest.Tenant, Filter{}, ids[3], 4)...); !slices.Equal(got, ids) {
			t.Errorf("pages %v, want %v", got, ids)
		}
		if got := list(storetest.Tenant, Filter{Procedure: "q", Subject: "test:q", States: []State{Done}}, "", 0); len(got) != 3 {
			t.Errorf("%d runs of q", len(got))
		}
		if got := list(storetest.Tenant, Filter{Open: true}, "", 0); len(got) != 0 {
			t.Errorf("%d open runs", len(got))
		}
		if got := list(storetest.Other, Filter{}, "", 0); len(got) != 0 {
			t.Errorf("%d runs of another tenant", len(got))
		}
		err := s.View(context.Background(), storetest.Other, func(tx *store.Tx) error {
			_, err := e.Show(tx, ids[0])
			return err
		})
		if trust.KindOf(err) != trust.NotFound {
			t.Errorf("another tenant is shown a run: %v", err)
		}
	})
}

// What a plan or a table has wrong is said when it is made.
// A watcher that compares revisions learns of every outcome, also while nothing
// more can begin.
func TestOutcomeRaisesRevision(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		ends := map[string]chan struct{}{"a": make(chan struct{}), "b": make(chan struct{})}
		e := start(t, s, Options{Sole: true}, one("p", func(_ context.Context, _ Run, t Target) (Record, error) {
			<-ends[t.Name]
			return nil, nil
		}))
		id := e.create("p", "a", "b")
		settle()
		before := e.must(id, Running)
		if row := before.Rows[0]; row.InFlight != 2 || row.Done != 0 {
			t.Fatalf("before the first outcome: %+v", row)
		}
		close(ends["a"])
		settle()
		after := e.must(id, Running)
		if row := after.Rows[0]; row.InFlight != 1 || row.Done != 1 {
			t.Errorf("after the first outcome: %+v", row)
		}
		if after.Revision <= before.Revision {
			t.Errorf("revision is %d, and was %d before the outcome", after.Revision, before.Revision)
		}
		close(ends["b"])
		settle()
		over := e.must(id, Done)
		err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
			revision, state, err := e.Revision(tx, id)
			if revision != over.Revision || revision <= after.Revision || state != Done {
				t.Errorf("in the end the revision is %d and the run %s; Show says %d", revision, state, over.Revision)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Procedure
	}{
		{"no steps", Procedure{Name: "p"}},
		{"no Do", Procedure{Name: "p", Steps: []Step{{Name: "A", On: Once}}}},
		{"two of a name", Procedure{Name: "p", Steps: []Step{{Name: "A", On: Once, Do: nothing}, {Name: "A", On: Once, Do: nothing}}}},
		{"turn that is no step", Procedure{Name: "p", Turn: "B", Steps: []Step{{Name: "A", On: Once, Do: nothing}}}},
		{"turn without Reverse", Procedure{Name: "p", Turn: "A", Steps: []Step{{Name: "A", On: Once, Do: nothing}}}},
		{"group on two lists", Procedure{Name: "p", Steps: []Step{{Name: "A", On: "x", Group: "g", Do: nothing}, {Name: "B", On: "y", Group: "g", Do: nothing}}}},
		{"group in two places", Procedure{Name: "p", Steps: []Step{
			{Name: "A", On: "x", Group: "g", Do: nothing}, {Name: "B", On: "x", Do: nothing}, {Name: "C", On: "x", Group: "g", Do: nothing},
		}}},
	} {
		if _, err := New(nil, []Procedure{c.p}, Options{}); err == nil {
			t.Errorf("a procedure with %s was taken", c.name)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, Schema)
		e := start(t, s, Options{Sole: true}, one("p", nothing))
		for _, p := range []Plan{
			{Procedure: "q"},
			{Procedure: "p", Targets: map[List][]Target{"other": {{Name: "a"}}}},
			{Procedure: "p", Canary: -1},
			{Procedure: "p", Back: "00000000-0000-7000-8000-000000000000"},
		} {
			err := verb(s, func(tx *store.Tx) error {
				_, err := e.Create(tx, alice(), p)
				return err
			})
			if k := trust.KindOf(err); k != trust.Invalid && k != trust.NotFound {
				t.Errorf("plan %+v: %v", p, err)
			}
		}
		// A run without any target has nothing to do.
		id := e.plan(Plan{Procedure: "p", Subject: "test:p"})
		settle()
		e.must(id, Done)
	})
}

// What a step saves with a failure is there for an attempt that a person asked for,
// and for those after it: neither a host that does not answer, nor a crash, nor a
// person who says "try now" makes a failure known that nobody was told of.
func TestOnlyAPersonTriesAgainWhatFailed(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		var said []string // what each attempt did, and whether it had been told
		crash := false
		does := []string{"unavailable", "unavailable", "crash", "fail", "unavailable", "crash", "done"}
		do := func(ctx context.Context, r Run, target Target) (Record, error) {
			var told bool
			if _, err := r.ResultOf(ctx, "Do", target, &told); err != nil {
				return nil, err
			}
			now := does[0]
			does = does[1:]
			said = append(said, fmt.Sprintf("%d %s %t", r.Attempt, now, told))
			switch now {
			case "unavailable":
				return nil, trust.Errorf(trust.Unavailable, "no answer")
			case "crash":
				crash = true
				return nil, errors.Join(r.Save(true), errors.New("held"))
			case "fail":
				return nil, errors.Join(r.Save(true), errors.New("held"))
			}
			return nil, nil
		}
		options := Options{Sole: true, Log: quiet(), Hook: func(_ context.Context, point string) error {
			if crash && strings.HasPrefix(point, "after do") {
				crash = false
				return errors.New("crash")
			}
			return nil
		}}
		e, err := New(s, []Procedure{one("p", do)}, options)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			for ctx.Err() == nil {
				_ = e.Run(ctx) // until it crashes; then the next process
			}
		}()
		defer func() { cancel(); <-done }()
		p := started{Engine: e, t: t}
		id := p.create("p", "a")
		settle()
		p.must(id, Waiting)
		p.verb(func(tx *store.Tx) error { return p.Resume(tx, alice(), id) }) // try now
		time.Sleep(time.Hour)
		p.must(id, Held)
		p.verb(func(tx *store.Tx) error { return p.Resume(tx, alice(), id) })
		time.Sleep(time.Hour)
		p.must(id, Done)
		want := []string{
			"1 unavailable false", "2 unavailable false", "3 crash false", "4 fail false",
			"5 unavailable true", "6 crash true", "7 done true",
		}
		if !slices.Equal(said, want) {
			t.Errorf("the attempts are %q, want %q", said, want)
		}
	})
}

// Of two open runs the one that was started earlier is ahead at what both have among
// their targets, and a run that takes back an open one stands where that does: those
// that wait for it do not overtake it, and it does not wait for them.
func TestAhead(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		back := func(tx *store.Tx, r Run) (Plan, error) {
			p := Plan{Procedure: "p", Subject: "back", Targets: map[List][]Target{}}
			for target, err := range r.In(tx).Targets("all") {
				if err != nil {
					return Plan{}, err
				}
				p.Targets["all"] = append(p.Targets["all"], target)
			}
			return p, nil
		}
		held := func(context.Context, Run, Target) (Record, error) { return nil, errors.New("held") }
		procedures := []Procedure{
			{Name: "p", Steps: one("p", held).Steps, Turn: "Do", Reverse: back},
			one("other", held),
			one("done", nothing),
		}
		e := start(t, s, Options{Sole: true}, procedures...)
		ahead := func(id trust.RunID, target string, procedures ...string) trust.RunID {
			t.Helper()
			var r Run
			e.verb(func(tx *store.Tx) (err error) {
				r, err = e.Get(tx, id)
				return err
			})
			first, err := r.Ahead(t.Context(), Target{Name: target, Host: trust.HostID(target)}, procedures...)
			if err != nil {
				t.Fatal(err)
			}
			return first.ID
		}
		want := func(when string, id trust.RunID, target string, want trust.RunID) {
			t.Helper()
			if got := ahead(id, target, "p", "done"); got != want {
				t.Errorf("%s: ahead of %s at %s is %q, want %q", when, id, target, got, want)
			}
		}
		ended := e.create("done", "x", "y")
		settle()
		e.must(ended, Done)
		first := e.create("p", "x", "y", "z")
		second := e.create("p", "y", "z")
		third := e.create("p", "z")
		settle()
		e.must(first, Held)
		want("three runs", first, "y", "")
		want("three runs", second, "y", first)
		want("three runs", third, "z", first)
		want("three runs", third, "x", first)
		want("three runs", third, "none", "")
		if got := ahead(third, "z", "other"); got != "" {
			t.Errorf("ahead of %s is %q, which is of another procedure", third, got)
		}

		var taking trust.RunID
		e.verb(func(tx *store.Tx) (err error) {
			taking, err = e.Back(tx, alice(), first, nil)
			return err
		})
		settle()
		e.must(first, Waiting)
		want("taken back", taking, "y", "")
		if got := ahead(second, "y", "p"); got != first && got != taking {
			t.Errorf("taken back: ahead of %s is %q, want %s or %s", second, got, first, taking)
		}

		var again trust.RunID // takes back the one that takes back
		e.verb(func(tx *store.Tx) (err error) {
			again, err = e.Back(tx, alice(), taking, nil)
			return err
		})
		want("taken back again", again, "y", "")
		if got := ahead(second, "y", "p"); got == "" || got == second {
			t.Errorf("taken back again: ahead of %s is %q", second, got)
		}
	})
}

// A run that has said that it takes nothing at a target is waited for at its others only.
func TestPassedOver(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		pass := func(_ context.Context, r Run, t Target) (Record, error) {
			if t.Name != "passed" {
				return nil, nil
			}
			return func(tx *store.Tx) error { return r.In(tx).PassOver(t) }, nil
		}
		held := func(context.Context, Run, Target) (Record, error) { return nil, errors.New("held") }
		e := start(t, s, Options{Sole: true}, Procedure{Name: "p", Steps: []Step{{Name: "Pass", On: "all", Do: pass}, {Name: "Do", On: "all", Do: held}}})
		first, second := e.create("p", "passed", "other"), e.create("p", "passed", "other")
		settle()
		e.must(first, Held)
		for target, want := range map[string]trust.RunID{"passed": "", "other": first} {
			var r Run
			e.verb(func(tx *store.Tx) (err error) {
				r, err = e.Get(tx, second)
				return err
			})
			if got, err := r.Ahead(t.Context(), Target{Name: target, Host: trust.HostID(target)}, "p"); got.ID != want || err != nil {
				t.Errorf("ahead at %s is %q (%v), want %q", target, got.ID, err, want)
			}
		}
	})
}

// What waits for the end of another run goes on when that ends, and not when its next
// try would be due; so does a run that is being worked on meanwhile. Nobody is to leave
// it for a host that does not answer.
func TestBehind(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		begun, blocked := time.Now(), make(chan struct{})
		after := map[trust.RunID]time.Duration{} // how long after the beginning a run got to x
		var mu sync.Mutex
		hour := func(context.Context, Run, Target) (Record, error) {
			if left := time.Until(begun.Add(time.Hour)); left > 0 {
				return nil, Until(begun.Add(time.Hour))
			}
			return nil, nil
		}
		behind := func(ctx context.Context, r Run, t Target) (Record, error) {
			if t.Name == "busy" {
				<-blocked
				return nil, nil
			}
			first, err := r.Ahead(ctx, t, "hour")
			if err != nil {
				return nil, err
			}
			if first.ID != "" {
				return nil, &trust.Error{Kind: trust.Unavailable, Message: "waits", Err: Behind(first.ID)}
			}
			mu.Lock()
			defer mu.Unlock()
			after[r.ID] = time.Since(begun)
			return nil, nil
		}
		waiting := one("behind", behind)
		waiting.Leave = func(*store.Tx, Run, Target) (Effect, error) { return Effect{}, nil }
		e := start(t, s, Options{Sole: true}, one("hour", hour), waiting)
		first := e.create("hour", "x")
		waits, works := e.create("behind", "x"), e.create("behind", "x", "busy")
		time.Sleep(59 * time.Minute)
		e.must(waits, Waiting)
		e.must(works, Running)
		err := verb(s, func(tx *store.Tx) error {
			_, err := e.Leave(tx, alice(), waits, Which{Unreachable: true})
			return err
		})
		if trust.KindOf(err) != trust.NotFound {
			t.Errorf("leaving whatever does not answer: %v", err)
		}
		time.Sleep(2 * time.Minute)
		e.must(first, Done)
		e.must(waits, Done)
		mu.Lock()
		for name, id := range map[string]trust.RunID{"the run that waited": waits, "the run that was worked on": works} {
			if late := after[id] - time.Hour; after[id] == 0 || late > 10*time.Second {
				t.Errorf("%s went on %s after the run that it waited for had ended", name, late)
			}
		}
		mu.Unlock()
		close(blocked)
		settle()
		e.must(works, Done)
	})
}

// A run that had ended and is taken back by its own Undo is behind those that were
// started meanwhile.
func TestReopenedRunIsLast(t *testing.T) {
	onBoth(t, func(t *testing.T, s *store.Store) {
		undo := func(context.Context, Run, Target) (Record, error) { return nil, errors.New("held") }
		e := start(t, s, Options{Sole: true},
			Procedure{Name: "p", Steps: []Step{{Name: "Do", On: "all", Do: nothing, Undo: undo}}}, one("held", undo))
		reopened := e.create("p", "x")
		settle()
		e.must(reopened, Done)
		meanwhile := e.create("held", "x")
		e.verb(func(tx *store.Tx) error {
			_, err := e.Back(tx, alice(), reopened, nil)
			return err
		})
		settle()
		e.must(reopened, Held)
		for id, want := range map[trust.RunID]trust.RunID{reopened: meanwhile, meanwhile: ""} {
			var r Run
			e.verb(func(tx *store.Tx) (err error) {
				r, err = e.Get(tx, id)
				return err
			})
			if got, err := r.Ahead(t.Context(), Target{Name: "x", Host: "x"}, "p", "held"); got.ID != want || err != nil {
				t.Errorf("ahead of %s is %q (%v), want %q", id, got.ID, err, want)
			}
		}
	})
}
