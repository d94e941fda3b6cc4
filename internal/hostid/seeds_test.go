package hostid

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/trust"
)

const (
	overlap = 10 * time.Minute
	lease   = 3 * time.Minute
	keep    = time.Hour
)

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// A history is what became of a tenant's seeds: the rows at each instant at which they
// changed, from which everything else is told.
type history struct {
	t     *testing.T
	now   time.Time
	seeds Seeds
	made  int
	runs  map[trust.RunID]direction
	past  []moment
	broke map[trust.SeedID]time.Time // which seeds were presented at once, and when
	seen  map[trust.SeedID]time.Time // until when each was presented or announced
	log   []string
}

type direction string

const (
	forward direction = "forward"
	back    direction = "back"
)

type moment struct {
	at       time.Time
	standing Standing
}

func newHistory(t *testing.T) *history {
	h := &history{t: t, now: epoch, runs: map[trust.RunID]direction{}, broke: map[trust.SeedID]time.Time{}, seen: map[trust.SeedID]time.Time{}}
	first, _ := Seeds{}.Replace(h.fresh(), h.now)
	h.become(first, "first")
	h.broke["s1"] = h.now
	return h
}

func (h *history) fresh() Seed {
	h.made++
	return Seed{ID: trust.SeedID(fmt.Sprint("s", h.made)), Overlap: overlap, Retention: keep}
}

// become takes the next rows, which have to keep the rules.
func (h *history) become(next Seeds, what string) {
	h.t.Helper()
	h.log = append(h.log, fmt.Sprintf("%6s %s", h.now.Sub(epoch), what))
	was := h.seeds.Standing()
	h.seeds = next
	is := next.Standing()
	h.past = append(h.past, moment{h.now, is})
	h.allRevoked(was, is)
	count := map[State]int{}
	for _, x := range next {
		count[x.State]++
	}
	if count[Current] != 1 || count[Next]+count[Previous] > 1 {
		h.fail("states %v", count)
	}
	if what == "compromised" || what == "first" {
		return
	}
	// What was presented within the overlap before is announced, unless it was revoked.
	for i, m := range h.past[:len(h.past)-1] {
		p := m.standing.Present
		if h.past[i+1].at.After(h.now.Add(-overlap)) && p != is.Present && p != is.Besides && !slices.Contains(is.Revoked, p) {
			h.fail("%s was presented until %s, and is announced no more", p, h.past[i+1].at.Sub(epoch))
		}
	}
	if is.Present == was.Present {
		return
	}
	// What is presented now was announced for all of the overlap before.
	for i, m := range h.past[:len(h.past)-1] {
		until := h.past[i+1].at
		if until.After(h.now.Add(-overlap)) && m.standing.Present != is.Present && m.standing.Besides != is.Present {
			h.fail("%s is presented, and was not announced at %s", is.Present, m.at.Sub(epoch))
		}
	}
	if h.past[0].at.After(h.now.Add(-overlap)) {
		h.fail("%s is presented too early", is.Present)
	}
}

// allRevoked checks, where a seed is replaced at once, that all those are revoked which
// anybody can have learned the keys of and that are kept: what is under way, and of the
// others those that ended not too long ago, but for the oldest where there are too many.
func (h *history) allRevoked(was, is Standing) {
	h.t.Helper()
	for _, id := range []trust.SeedID{was.Present, was.Besides} {
		if id != "" {
			h.seen[id] = h.now
		}
	}
	if len(is.Revoked) == len(was.Revoked) || h.made <= 1 {
		return
	}
	newer := 0
	for n := h.made; n > 0; n-- {
		id := trust.SeedID(fmt.Sprint("s", n))
		until, shown := h.seen[id]
		if !shown || id == is.Present {
			continue
		}
		inPlay := id == was.Present || id == was.Besides
		if !slices.Contains(is.Revoked, id) && (inPlay || newer < maxGivenUp && h.now.Sub(until) < keep) {
			h.fail("%s was announced until %s, and is not revoked at %s with %v", id, until.Sub(epoch), h.now.Sub(epoch), is.Revoked)
		}
		newer++
	}
}

func (h *history) fail(format string, args ...any) {
	h.t.Helper()
	h.t.Fatalf("%s\n%s\n%+v", fmt.Sprintf(format, args...), strings.Join(h.log, "\n"), h.seeds)
}

// step does what is due of every run, as the engine does.
func (h *history) step() {
	for _, run := range slices.Sorted(maps.Keys(h.runs)) {
		mine, ok := h.seeds.Of(run)
		if !ok {
			delete(h.runs, run)
			continue
		}
		if h.runs[run] == back {
			if next, wait := h.seeds.Abandon(mine.ID, h.now); wait.IsZero() {
				h.become(next, "abandon "+string(mine.ID))
				delete(h.runs, run)
			}
			continue
		}
		for name, fn := range map[string]func() (Seeds, time.Time){
			"begin":    func() (Seeds, time.Time) { s, _ := h.seeds.Begin(mine.ID, h.now); return s, time.Time{} },
			"present":  func() (Seeds, time.Time) { return h.seeds.Present(mine.ID, h.now) },
			"withdraw": func() (Seeds, time.Time) { return h.seeds.Withdraw(mine.ID, h.now) },
		} {
			if next, wait := fn(); wait.IsZero() && !slices.Equal(next, h.seeds) {
				h.become(next, name+" "+string(mine.ID))
			}
		}
		if mine, _ := h.seeds.Of(run); mine.State == Current && h.seeds.in(Previous) < 0 || mine.State == Revoked || mine.State == Retired {
			delete(h.runs, run)
		}
	}
}

// ask does one of the things that a person may ask for.
func (h *history) ask(r *rand.Rand) {
	run := trust.RunID(fmt.Sprintf("r%04d", len(h.log)))
	switch r.IntN(12) {
	case 0:
		next, _ := h.seeds.Replace(h.fresh(), h.now)
		h.become(next, "compromised")
		h.broke[next.Standing().Present] = h.now
	case 1, 2, 3: // back of what is under way
		st := h.seeds.Standing()
		if d, ok := h.runs[st.Run]; ok && d == forward && st.Phase == PresentOld {
			h.runs[st.Run] = back
		} else if i := h.seeds.in(Current); st.Phase != PresentOld {
			before := h.seeds.at(h.seeds[i].Before)
			if before < 0 || h.seeds[before].State == Revoked {
				return
			}
			id := h.seeds[before].ID
			next, _ := h.seeds.Take(id, run, h.now).Begin(id, h.now)
			h.become(next, "back to "+string(id))
			delete(h.runs, h.seeds[i].Run)
			h.runs[run] = forward
		}
	default:
		fresh := h.fresh()
		next, in := h.seeds.Ask(fresh, h.now)
		if in == "" {
			next, _ = next.Take(fresh.ID, run, h.now).Begin(fresh.ID, h.now)
			h.runs[run] = forward
		}
		h.become(next, "ask for "+string(fresh.ID))
	}
}

// at returns what a node shows at a time, that has its lease since some time before.
func (h *history) at(t time.Time) Standing {
	i, _ := slices.BinarySearchFunc(h.past, t, func(m moment, t time.Time) int {
		if m.at.After(t) {
			return 1
		}
		return -1
	})
	return h.past[max(i-1, 0)].standing
}

// Whatever is asked for and whenever: the keys that are presented were announced before
// for long enough, and a client that comes often enough to learn them is never warned,
// whichever node it meets, though each of them knows only what was so at most a lease ago.
func TestNobodyIsWarned(t *testing.T) {
	t.Parallel()
	for seed := range uint64(1000) {
		r := rand.New(rand.NewPCG(seed, 4))
		h := newHistory(t)
		for range 60 {
			switch r.IntN(5) {
			case 0, 1:
				h.ask(r)
			case 2: // the engine is late, or the run is paused
				h.now = h.now.Add(some(r, 3*overlap))
			default:
				h.now = h.now.Add(some(r, overlap/4))
			}
			if r.IntN(5) > 0 {
				h.step()
			}
			if r.IntN(10) == 0 {
				h.seeds = h.seeds.Expire(h.now)
			}
		}
		h.meet(r)
	}
}

// meet has clients connect to nodes, from some time on and every so often, and learn and
// forget keys as OpenSSH does with UpdateHostKeys: not in the connection in which they
// meet a host first. So one whose second connection comes too late has learned nothing yet.
func (h *history) meet(r *rand.Rand) {
	h.t.Helper()
	broken := slices.Collect(maps.Values(h.broke))
	for range 3 {
		var known []trust.SeedID
		met := 0
		for now := epoch.Add(some(r, h.now.Sub(epoch)+1)); now.Before(h.now); now = now.Add(some(r, (overlap-2*lease)/2)) {
			st := h.at(now.Add(-some(r, lease)))
			// Where a seed was replaced at once, everybody is warned, and should be.
			if slices.ContainsFunc(broken, func(at time.Time) bool { return !at.After(now) && now.Sub(at) <= overlap }) {
				known, met = nil, 0
				continue
			}
			if met > 1 && !slices.Contains(known, st.Present) {
				h.fail("at %s a client that knows %v is warned of %s", now.Sub(epoch), known, st.Present)
			}
			if met == 0 || !slices.Contains(known, st.Present) {
				known, met = []trust.SeedID{st.Present}, 1
				continue
			}
			known, met = []trust.SeedID{st.Present}, met+1
			if st.Besides != "" {
				known = append(known, st.Besides)
			}
		}
	}
}

// some returns a random duration below d.
func some(r *rand.Rand, d time.Duration) time.Duration { return time.Duration(r.Int64N(int64(d))) }
