package hostid

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/authority"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A plant is an engine with the procedures of this package over a store.
type plant struct {
	*testing.T
	store       *store.Store
	keyring     *keyring.Keyring
	authorities *authority.Authorities
	engine      *job.Engine
	hook        func(context.Context, string) error
}

var schemas = []fs.FS{keyring.Schema, job.Schema, authority.Schema, Schema}

func newPlant(t *testing.T, s *store.Store) *plant {
	t.Helper()
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{T: t, store: s, keyring: k, authorities: authority.New(k)}
	p.engine, err = job.New(s, Procedures(s, k), job.Options{
		Sole: true, Log: slog.New(slog.DiscardHandler), Lease: time.Second,
		Hook: func(ctx context.Context, point string) error {
			if p.hook == nil {
				return nil
			}
			return p.hook(ctx, point)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plant) update(fn func(*store.Tx) error) {
	p.Helper()
	if err := p.store.Update(p.Context(), storetest.Event(), fn); err != nil {
		p.Fatal(err)
	}
}

// ask asks for a rotation with phases of some length.
func (p *plant) ask(overlap time.Duration) (id trust.SeedID, run trust.RunID) {
	p.Helper()
	id, first := trust.SeedID(uuid.NewString()), trust.SeedID(uuid.NewString())
	terms := Terms{Overlap: overlap, Retention: time.Hour}
	p.update(func(tx *store.Tx) error {
		if _, err := Ensure(tx, p.keyring, p.authorities, first, terms); err != nil {
			return err
		}
		var err error
		if run, err = Ask(tx, p.keyring, p.authorities, id, terms); err != nil || run != "" {
			return err
		}
		plan, err := Plan(id)
		if err != nil {
			return err
		}
		run, err = p.engine.Create(tx, audit.Actor{Kind: "system", ID: "test"}, plan)
		return err
	})
	return id, run
}

func (p *plant) back(run trust.RunID) (by trust.RunID, err error) {
	err = p.store.Update(p.Context(), storetest.Event(), func(tx *store.Tx) error {
		by, err = p.engine.Back(tx, audit.Actor{Kind: "system", ID: "test"}, run, nil)
		return err
	})
	p.engine.Wake()
	return by, err
}

func (p *plant) seeds() (s Seeds) {
	p.Helper()
	err := p.store.View(p.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
		s, err = Load(tx)
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return s
}

// work runs the engine until a run has ended or is held, or the hook crashes it.
func (p *plant) work(run trust.RunID) (state job.State, crashed bool) {
	p.Helper()
	crashed = p.until(run, func(Standing) bool {
		state = p.state(run)
		return !state.Open() || state == job.Held
	})
	return p.state(run), crashed
}

func (p *plant) state(run trust.RunID) (state job.State) {
	p.Helper()
	err := p.store.View(p.Context(), storetest.Tenant, func(tx *store.Tx) error {
		r, err := p.engine.Get(tx, run)
		state = r.State
		return err
	})
	if err != nil {
		p.Fatal(err)
	}
	return state
}

func (p *plant) waiting(run trust.RunID) bool { return p.state(run) == job.Waiting }

// until runs the engine, for the sake of a run, until something is so or the hook crashes
// it.
func (p *plant) until(run trust.RunID, so func(Standing) bool) (crashed bool) {
	p.Helper()
	ctx, stop := context.WithCancel(p.Context())
	defer stop()
	done := make(chan error, 1)
	go func() { done <- p.engine.Run(ctx) }()
	for deadline := time.Now().Add(time.Minute); !so(p.seeds().Standing()); time.Sleep(2 * time.Millisecond) {
		select {
		case err := <-done:
			if !errors.Is(err, errCrash) {
				p.Fatalf("the engine ended: %v", err)
			}
			return true
		default:
		}
		if time.Now().After(deadline) {
			p.Fatalf("run %s is %s, with %+v", run, p.state(run), p.seeds())
		}
	}
	stop()
	<-done
	return false
}

var errCrash = errors.New("crash")

// Runs do what the rules say: on both engines, with one replaced before it was presented,
// one that waits for its turn, and both ways back.
func TestRunsOfSeeds(t *testing.T) {
	need.Within(t, 5*time.Minute)
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		p := newPlant(t, s)
		const brief, long = 50 * time.Millisecond, time.Hour

		// Asked again before it is presented, a rotation is one run, to the newer seed.
		dropped, run := p.ask(long)
		first := p.seeds().Standing()
		second, again := p.ask(brief)
		if st := p.seeds().Standing(); again != run || first.Phase != PresentOld || first.Besides != dropped || st.Besides != second || st.Present != first.Present {
			t.Fatalf("asked twice: %s then %s, %+v then %+v", run, again, first, st)
		}
		p.givenUp(dropped)
		if state, _ := p.work(run); state != job.Done || p.seeds().Standing().Present != second || p.seeds().Standing().Phase != Settled {
			t.Fatalf("%s: %+v", state, p.seeds())
		}

		// Back of what is done is a rotation to the seed before, by what is set now.
		p.update(func(tx *store.Tx) error { return SetOverlap(tx, p.keyring, p.authorities, brief) })
		by, err := p.back(run)
		if err != nil || by == run {
			t.Fatalf("back: %s %v", by, err)
		}
		if st := p.seeds().Standing(); st.Phase != PresentOld || st.Present != second || st.Besides != first.Present {
			t.Errorf("on the way back %+v", st)
		}
		// Asked for meanwhile, the next one waits for its turn; asked again, a newer one does,
		// and the one that was announced to nobody is destroyed.
		unseen, _ := p.ask(brief)
		third, next := p.ask(brief)
		if err := p.seed(unseen); trust.KindOf(err) != trust.NotFound || p.seeds().at(unseen) >= 0 {
			t.Errorf("a seed that nobody was shown is still there: %v", err)
		}
		if st := p.seeds().Standing(); next == by || next == run || st.Queued != third || st.Besides != first.Present {
			t.Errorf("asked for meanwhile: %s, %+v", next, st)
		}
		if state, _ := p.work(next); state != job.Done || p.seeds().Standing().Present != third || p.seeds().Standing().Phase != Settled {
			t.Fatalf("%s: %+v", state, p.seeds())
		}

		// What was rotated since cannot be taken back out of turn.
		if _, err := p.back(by); trust.KindOf(err) != trust.Conflict {
			t.Errorf("back of what was rotated since: %v", err)
		}

		// Back before anything is presented is to announce it no more.
		fourth, run := p.ask(long)
		if by, err := p.back(run); err != nil || by != run {
			t.Fatalf("back: %s %v", by, err)
		}
		if state, _ := p.work(run); state != job.WentBack || p.seeds().Standing().Present != third || p.seeds().Standing().Phase != Settled {
			t.Errorf("%s: %+v", state, p.seeds())
		}
		p.givenUp(fourth)
	})
}

// seed returns why there is no seed of an id.
func (p *plant) seed(id trust.SeedID) error {
	return p.store.View(p.Context(), storetest.Tenant, func(tx *store.Tx) error {
		_, err := p.keyring.Seed(tx, id)
		return err
	})
}

// givenUp checks that a seed which was announced and never presented is kept, for no run.
func (p *plant) givenUp(id trust.SeedID) {
	p.Helper()
	seeds := p.seeds()
	i := seeds.at(id)
	if err := p.seed(id); err != nil || i < 0 || seeds[i].State != Retired || seeds[i].Run != "" || !seeds[i].Announced.IsZero() || !seeds[i].Keep.After(seeds[i].Since) {
		p.Errorf("%s was given up: %v, %+v", id, err, seeds)
	}
}

// Whatever of a rotation is taken back, and when, before the engine looks at it or after:
// what was presented is withdrawn in its time, by whichever run is left to do so.
func TestBackAndBackAgain(t *testing.T) {
	need.Within(t, 5*time.Minute)
	for name, early := range map[string]bool{"at once": true, "later": false} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t, storetest.Open(t, schemas...))
			const overlap = 2 * time.Second
			id, run := p.ask(overlap)
			first := p.seeds().Standing().Present
			p.until(run, func(st Standing) bool { return st.Phase == PresentNew })
			by, err := p.back(run)
			if err != nil || by == run {
				t.Fatalf("back: %s %v", by, err)
			}
			if !early {
				p.until(by, func(Standing) bool { return p.waiting(by) })
			}
			if _, err := p.back(by); err != nil {
				t.Fatal(err)
			}
			if state, _ := p.work(by); state != job.WentBack {
				t.Fatalf("the way back, taken back, is %s", state)
			}
			p.update(func(tx *store.Tx) error { return p.engine.Resume(tx, audit.Actor{Kind: "system", ID: "test"}, run) })
			if state, _ := p.work(run); state != job.Done {
				t.Fatalf("the rotation is %s", state)
			}
			seeds := p.seeds()
			old := seeds[seeds.at(first)]
			if st := seeds.Standing(); st.Phase != Settled || st.Present != id || old.State != Retired || old.Since.Sub(old.Left) < overlap {
				t.Errorf("in the end %+v", seeds)
			}
		})
	}
}

// A crash before or after any commit leaves a row done or not begun: whatever is carried
// on from, each change of what is presented keeps its time.
func TestSeedCrashes(t *testing.T) {
	need.Within(t, 5*time.Minute)
	const overlap = 30 * time.Millisecond
	for n := 1; ; n++ {
		p := newPlant(t, storetest.Open(t, schemas...))
		id, run := p.ask(overlap)
		seen, at := 0, ""
		p.hook = func(_ context.Context, point string) error {
			if seen++; seen == n {
				at = point
				return errCrash
			}
			return nil
		}
		state, crashed := p.work(run)
		if crashed {
			state, _ = p.work(run)
		}
		seeds := p.seeds()
		st := seeds.Standing()
		if state != job.Done || st.Present != id || st.Phase != Settled || len(seeds) != 2 {
			t.Errorf("crashed at %q: %s, %+v", at, state, seeds)
		}
		mine, old := seeds[seeds.at(id)], seeds[seeds.in(Retired)]
		if mine.Since.Sub(mine.Announced) < overlap || old.Since.Sub(mine.Since) < overlap || !old.Left.Equal(mine.Since) {
			t.Errorf("crashed at %q: announced at %s, presented at %s, the old one withdrawn at %s", at, mine.Announced, mine.Since, old.Since)
		}
		if !crashed {
			if n < 20 {
				t.Errorf("only %d places to crash at", n-1)
			}
			return
		}
	}
}

// Seeds that were kept for long enough are destroyed, and no others.
func TestSeedsExpire(t *testing.T) {
	at := epoch
	seeds := Seeds{{ID: "a", State: Retired, Keep: at}, {ID: "b", State: Retired, Keep: at.Add(1)}, {ID: "c", State: Queued, Left: at}, {ID: "d", State: Revoked}, {ID: "e", State: Current}}
	if left := seeds.Expire(at); len(left) != 4 || left.at("a") >= 0 {
		t.Errorf("left are %+v", left)
	}
}
