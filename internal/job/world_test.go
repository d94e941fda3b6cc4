package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A world is what the steps of the model procedure have effects on: servers
// that accept keys and clients that hold one. Every client must be able to log
// in to every server at every instant: that is looked at whenever anything
// happens. It outlives the engines that work in it.
type world struct {
	mu      sync.Mutex
	servers map[string]map[string]bool // server -> keys that it accepts
	clients map[string]string          // client -> the key that it holds
	soak    time.Duration

	faults map[string]fault         // "do Prove s1" -> what is wrong
	blocks map[string]chan struct{} // the same -> closed when it may go on
	calls  map[string]int           // the same -> how often it was called
	lines  []string                 // what happened
	broken []string                 // instants at which somebody was locked out
	skip   bool                     // leaving makes the run additive
	undone bool                     // leaving sends the run back
	parts  bool                     // the first row is undone and the last one done for targets that were left, too
}

type fault struct {
	err  error
	once bool
}

func newWorld(servers, clients int) *world {
	w := &world{
		servers: map[string]map[string]bool{}, clients: map[string]string{},
		faults: map[string]fault{}, blocks: map[string]chan struct{}{}, calls: map[string]int{}, soak: time.Hour,
	}
	for i := range servers {
		w.servers[fmt.Sprintf("s%d", i+1)] = map[string]bool{"old": true}
	}
	for i := range clients {
		w.clients[fmt.Sprintf("c%d", i+1)] = "old"
	}
	return w
}

func (w *world) say(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lines = append(w.lines, fmt.Sprintf(format, args...))
}

// said returns what happened since it was last called.
func (w *world) said() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	lines := w.lines
	w.lines = nil
	return lines
}

// look notes who is locked out.
func (w *world) look(when string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for client, key := range w.clients {
		for server, keys := range w.servers {
			if !keys[key] {
				w.broken = append(w.broken, fmt.Sprintf("%s: %s holds %s, which %s does not accept", when, client, key, server))
			}
		}
	}
}

// state says who accepts and who holds what.
func (w *world) state() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var b strings.Builder
	for _, s := range slices.Sorted(maps.Keys(w.servers)) {
		fmt.Fprintf(&b, "%s accepts %s\n", s, strings.Join(slices.Sorted(maps.Keys(w.servers[s])), ", "))
	}
	for _, c := range slices.Sorted(maps.Keys(w.clients)) {
		fmt.Fprintf(&b, "%s holds %s\n", c, w.clients[c])
	}
	return b.String()
}

// step makes a Do or an Undo: faults first, then the effect.
func (w *world) step(word string, effect func(w *world, r Run, a args, name string) error) func(context.Context, Run, Target) (Record, error) {
	return func(ctx context.Context, r Run, t Target) (Record, error) {
		what := fmt.Sprintf("%s %s %s", word, r.Step, t.Name)
		w.mu.Lock()
		w.calls[what]++
		f, bad := w.faults[what]
		if f.once {
			delete(w.faults, what)
		}
		block := w.blocks[what]
		w.mu.Unlock()
		if block != nil {
			w.say("%s begins", what)
			select {
			case <-block:
			case <-ctx.Done():
				w.say("%s is told to stop: %v", what, context.Cause(ctx))
				return nil, ctx.Err()
			}
		}
		if bad {
			if f.err == nil {
				panic("out of cheese")
			}
			w.say("%s: %v", what, f.err)
			return nil, f.err
		}
		var a args
		if err := r.Decode(&a); err != nil {
			return nil, err
		}
		if effect != nil {
			w.mu.Lock()
			err := effect(w, r, a, t.Name)
			w.mu.Unlock()
			w.look(what)
			if err != nil {
				w.say("%s: %v", what, err)
				return nil, err
			}
		}
		w.say("%s", what)
		return nil, nil
	}
}

// args are those of the model procedure.
type args struct {
	Old, New string
	Soak     time.Time
	Back     bool
}

// procedure is the table of a rotation, on the model.
func (w *world) procedure() Procedure {
	// Whether the line was there before is for the row above to save: what an
	// attempt at Authorize saves that is cut off is lost, and its effect is not.
	baseline := func(w *world, r Run, a args, name string) error {
		return r.Save(w.servers[name][a.New])
	}
	added := func(w *world, _ Run, a args, name string) error {
		w.servers[name][a.New] = true
		return nil
	}
	removed := func(w *world, r Run, a args, name string) error {
		var was bool
		_, err := r.ResultOf(context.Background(), "Baseline", Target{List: "authorized", N: number(name)}, &was)
		if !was {
			delete(w.servers[name], a.New)
		}
		return err
	}
	proves := func(w *world, _ Run, a args, name string) error {
		if !w.servers[name][a.New] {
			return errors.New("the new key is refused")
		}
		return nil
	}
	steps := []Step{
		{Name: "Baseline", On: "authorized", Do: w.step("do", baseline)},
		{Name: "Authorize", On: "authorized", Group: "1", Do: w.step("do", added), Undo: w.step("undo", removed)},
		{Name: "Prove", On: "authorized", Group: "1", Do: w.step("do", proves)},
		{Name: "Install", On: "identities", Do: w.step("do", func(w *world, _ Run, a args, name string) error {
			w.clients[name] = a.New
			return nil
		})},
		{Name: "Soak", On: Once, Do: w.step("do", func(w *world, r Run, a args, _ string) error {
			var until time.Time
			if ok, err := r.ResultOf(context.Background(), "Soak", Target{List: Once}, &until); err != nil || !ok {
				until = time.Now().Add(w.soak)
				if err := r.Save(until); err != nil {
					return err
				}
			}
			if time.Now().Before(until) {
				return fmt.Errorf("soaking %w", Until(until))
			}
			return nil
		})},
		{Name: "Reprove", On: "authorized", Group: "2", Do: w.step("do", proves)},
		{Name: "Withdraw", On: "authorized", Group: "2", Do: w.step("do", func(w *world, _ Run, a args, name string) error {
			delete(w.servers[name], a.Old)
			return nil
		})},
		{Name: "Archive", On: Once, Do: w.step("do", nil)},
	}
	if w.parts {
		steps[0].Undo, steps[0].Parting = w.step("undo", nil), true
		steps = append(steps, Step{Name: "Release", On: "authorized", Do: w.step("do", nil), Parting: true})
	}
	return Procedure{
		Name:  "rotate",
		Steps: steps,
		Turn:  "Install",
		Reverse: func(tx *store.Tx, r Run) (Plan, error) {
			var a args
			if err := r.Decode(&a); err != nil {
				return Plan{}, err
			}
			if f, ok := w.faults["reverse"]; ok {
				return Plan{}, f.err
			}
			p := w.plan(args{Old: a.New, New: a.Old, Back: true})
			p.Exclusive = []string{"key:1"}
			p.Targets = map[List][]Target{}
			for _, list := range []List{"authorized", "identities"} {
				for t, err := range r.In(tx).Targets(list) {
					if err != nil {
						return Plan{}, err
					}
					p.Targets[list] = append(p.Targets[list], t)
				}
			}
			return p, nil
		},
		Leave: func(tx *store.Tx, r Run, t Target) (Effect, error) {
			switch {
			case t.List == "identities" && w.skip:
				return Effect{Skip: []string{"Reprove", "Withdraw", "Archive"}}, nil
			case t.List == "identities":
				return Effect{}, trust.Errorf(trust.Conflict, "without %s nothing makes sense", t.Name)
			}
			begun, err := r.In(tx).Began("Install")
			return Effect{Back: !begun && w.undone}, err
		},
		Ended: func(tx *store.Tx, r Run, outcome State) error {
			if f, ok := w.faults["ended"]; ok {
				return f.err
			}
			tx.Note("ended", string(outcome))
			return nil
		},
	}
}

// number returns which target of its list a name of the model is.
func number(name string) int {
	var n int
	_, _ = fmt.Sscanf(name[1:], "%d", &n)
	return n - 1
}

// plan plans the model procedure for every server and client.
func (w *world) plan(a args) Plan {
	w.mu.Lock()
	defer w.mu.Unlock()
	b, _ := json.Marshal(a)
	p := Plan{Procedure: "rotate", Subject: "key:1", Args: b, Exclusive: []string{"key:1"}, Targets: map[List][]Target{}}
	byNumber := func(a, b string) int { return number(a) - number(b) }
	for _, s := range slices.SortedFunc(maps.Keys(w.servers), byNumber) {
		p.Targets["authorized"] = append(p.Targets["authorized"], Target{Host: trust.HostID(s), Name: s})
	}
	for _, c := range slices.SortedFunc(maps.Keys(w.clients), byNumber) {
		p.Targets["identities"] = append(p.Targets["identities"], Target{Host: trust.HostID(c), Name: c})
	}
	return p
}

// alice asks things of runs in tests.
func alice() audit.Actor { return audit.Actor{Kind: "user", ID: "alice"} }

// verb runs a verb in an Update of its own.
func verb(s *store.Store, fn func(tx *store.Tx) error) error {
	ev := storetest.Event()
	ev.Actor = alice()
	return s.Update(context.Background(), ev, fn)
}

// quiet is a log that nobody reads.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }
