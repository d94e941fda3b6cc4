package hostid

import (
	"slices"
	"time"

	"keyturn/internal/trust"
)

// A State is what is done with the keys of a seed.
type State string

// The states of a seed.
const (
	Queued   State = "queued"   // nothing yet: it waits for its turn
	Next     State = "next"     // announced, and presented to nobody, or no more
	Current  State = "current"  // presented and announced
	Previous State = "previous" // announced, after another one took its place
	Retired  State = "retired"  // nothing any more: it is kept for going back, and to be revoked
	Revoked  State = "revoked"  // published as revoked
)

// A Seed is a row: which state a seed is in, and since when.
type Seed struct {
	ID    trust.SeedID
	State State
	Since time.Time // in that state
	// Announced is since when its keys have been announced without a break, zero if they
	// are not.
	Announced time.Time
	// Left is when it was presented last, before another one took its place; zero of the
	// current one, and of one that was never presented.
	Left time.Time
	// Before is the seed whose place it took, when it was presented first or again.
	Before trust.SeedID
	// Run is what brings the seed into use, or brought it; "" where that took none.
	Run trust.RunID
	// Overlap is how long each phase of that lasts, and Retention how long the seed is
	// kept of which it takes the place.
	Overlap, Retention time.Duration
	Keep               time.Time // of a retired one: until when it is kept
	Created            time.Time
	By                 string // the id of who asked for it, or ""
}

// Seeds are all seeds of a tenant, oldest first. The methods that change them return
// others and leave these as they are. One is Current, and at most one is Next or Previous.
type Seeds []Seed

// A Phase is which keys are presented in a rotation, by the words of "keyturn seed show".
type Phase string

// The phases.
const (
	PresentOld Phase = "present-old"
	PresentNew Phase = "present-new"
	Settled    Phase = "settled"
)

// A Standing is what a gateway has to know: which keys to present, and which to announce
// besides. It holds for as long as the lease with which it was given.
type Standing struct {
	Phase   Phase
	Present trust.SeedID
	Besides trust.SeedID // announced, and not presented; "" if Settled
	Queued  trust.SeedID // the first that waits for its turn, or ""
	Since   time.Time
	Until   time.Time   // when the next phase may begin; zero if Settled
	Run     trust.RunID // that makes it begin; "" if Settled
	Revoked []trust.SeedID
}

// Comes returns the seed that is presented when the rotation that is under way is over.
func (st Standing) Comes() trust.SeedID {
	if st.Phase == PresentOld {
		return st.Besides
	}
	return st.Present
}

// Standing returns what s means. It is zero where there is no seed yet.
func (s Seeds) Standing() Standing {
	cur := s.in(Current)
	if cur < 0 {
		return Standing{}
	}
	st := Standing{Phase: Settled, Present: s[cur].ID, Since: s[cur].Since}
	if other := max(s.in(Next), s.in(Previous)); other >= 0 {
		in, _ := s.incoming()
		st.Phase, st.Besides, st.Since = PresentNew, s[other].ID, s[other].Since
		if s[other].State == Next {
			st.Phase = PresentOld
		}
		st.Until, st.Run = st.Since.Add(in.Overlap), in.Run
	}
	for _, x := range s {
		switch {
		case x.State == Queued && st.Queued == "":
			st.Queued = x.ID
		case x.State == Revoked:
			st.Revoked = append(st.Revoked, x.ID)
		}
	}
	return st
}

// incoming returns the seed that takes the place of another, where one does.
func (s Seeds) incoming() (Seed, bool) {
	if i := s.in(Next); i >= 0 {
		return s[i], true
	}
	if i := s.in(Current); i >= 0 && s.in(Previous) >= 0 {
		return s[i], true
	}
	return Seed{}, false
}

// in returns the place of the first seed in a state, or -1.
func (s Seeds) in(state State) int {
	return slices.IndexFunc(s, func(x Seed) bool { return x.State == state })
}

func (s Seeds) at(id trust.SeedID) int {
	return slices.IndexFunc(s, func(x Seed) bool { return x.ID == id })
}

// Of returns the seed that a run brings into use, or brought, unless another one took its
// place.
func (s Seeds) Of(run trust.RunID) (Seed, bool) {
	i := slices.IndexFunc(s, func(x Seed) bool { return x.Run == run })
	if i < 0 {
		return Seed{}, false
	}
	return s[i], true
}

// with returns s with the seed of that id in another state.
func (s Seeds) with(id trust.SeedID, state State, now time.Time) Seeds {
	out := slices.Clone(s)
	x := &out[s.at(id)]
	x.State, x.Since = state, now
	return out
}

// Ask adds a new seed that a rotation is asked for. It takes the place of the last one
// that was asked for and that was never presented, in its run; else run is empty, and the
// new one waits in the queue for a run of its own.
func (s Seeds) Ask(fresh Seed, now time.Time) (out Seeds, run trust.RunID) {
	fresh.State, fresh.Since, fresh.Created = Queued, now, now
	out = slices.Clone(s)
	for _, state := range []State{Queued, Next} {
		i := slices.IndexFunc(s, func(x Seed) bool { return x.State == state && x.Left.IsZero() })
		if i < 0 {
			continue
		}
		fresh.State, fresh.Run = state, s[i].Run
		if state == Next {
			fresh.Announced = now
		}
		out = out.giveUp(s[i].ID, now)
		break
	}
	return append(out, fresh), fresh.Run
}

// Asked returns the seed that a rotation was asked for to last, where that one asked since
// a time, and it was neither taken back nor revoked. The first seed was made at the same
// time as another, maybe, and for no rotation.
func (s Seeds) Asked(by string, since time.Time) (Seed, bool) {
	for _, x := range slices.Backward(s) {
		if x.Run != "" {
			inPlay := x.State == Queued || x.State == Next || x.State == Current
			return x, x.By == by && !x.Created.Before(since) && inPlay
		}
	}
	return Seed{}, false
}

// Begin announces the seed of that id beside the current one, unless that has been done,
// or there is nothing left to do with it. ahead is the run for whose end it has to wait
// instead, because there are two seeds in play.
func (s Seeds) Begin(id trust.SeedID, now time.Time) (out Seeds, ahead trust.RunID) {
	i := s.at(id)
	if i < 0 || s[i].State != Queued && s[i].State != Previous {
		return s, ""
	}
	if in, moving := s.incoming(); moving && s[i].State == Queued {
		return s, in.Run
	}
	out = s.with(id, Next, now)
	if out[i].Announced.IsZero() {
		out[i].Announced = now
	}
	return out, ""
}

// Present presents the seed of that id in the place of the current one, which stays
// announced. wait is until when it has to be announced first.
func (s Seeds) Present(id trust.SeedID, now time.Time) (out Seeds, wait time.Time) {
	i := s.at(id)
	if i < 0 || s[i].State != Next {
		return s, time.Time{}
	}
	if due := s[i].Since.Add(s[i].Overlap); now.Before(due) {
		return s, due
	}
	cur := s.in(Current)
	out = s.with(s[cur].ID, Previous, now).with(id, Current, now)
	out[cur].Left, out[i].Left, out[i].Before = now, time.Time{}, s[cur].ID
	return out, time.Time{}
}

// Withdraw announces no more what the seed of that id took the place of. wait is until
// when that has to be announced.
func (s Seeds) Withdraw(id trust.SeedID, now time.Time) (out Seeds, wait time.Time) {
	i, old := s.at(id), s.in(Previous)
	if i < 0 || old < 0 || s[i].State != Current {
		return s, time.Time{}
	}
	if due := s[old].Since.Add(s[i].Overlap); now.Before(due) {
		return s, due
	}
	return s.retire(s[old].ID, now, s[i].Retention), time.Time{}
}

func (s Seeds) retire(id trust.SeedID, now time.Time, keep time.Duration) Seeds {
	out := s.with(id, Retired, now)
	x := &out[s.at(id)]
	x.Announced, x.Keep = time.Time{}, now.Add(keep)
	return out
}

// Take gives the seed of that id to the run that brings it into use: a new one, or one that
// another took the place of. It is Begin that announces it, if it is not announced anyway.
func (s Seeds) Take(id trust.SeedID, run trust.RunID, now time.Time) Seeds {
	i := s.at(id)
	if i < 0 || s[i].State != Queued && s[i].State != Retired && s[i].State != Previous {
		return s
	}
	out := slices.Clone(s)
	out[i].Run = run
	if s[i].State == Retired {
		out[i].State, out[i].Since, out[i].Keep = Queued, now, time.Time{}
	}
	return out
}

// Abandon takes back what Ask or Take, and Begin, did for the seed of that id. One that
// was never presented is given up at once. What was presented before stays announced for
// as long as a node may still present it: wait is until when.
func (s Seeds) Abandon(id trust.SeedID, now time.Time) (out Seeds, wait time.Time) {
	i := s.at(id)
	if i < 0 || s[i].State != Queued && s[i].State != Next && s[i].State != Previous {
		return s, time.Time{}
	}
	x := s[i]
	if x.Left.IsZero() {
		return s.giveUp(id, now), time.Time{}
	}
	if due := x.Left.Add(x.Overlap); x.State != Queued && now.Before(due) {
		return s, due
	}
	return s.retire(id, now, x.Retention), time.Time{}
}

// maxGivenUp is how many seeds are kept that were announced and never presented, the
// newest ones: every rotation that is asked for again makes one.
const maxGivenUp = 10

// giveUp ends a seed that was never presented. If it was announced, there are clients that
// learned its keys, so it is kept as what was presented is, to be revoked if somebody else
// may have it. Its run, if it goes on, is another seed's.
func (s Seeds) giveUp(id trust.SeedID, now time.Time) Seeds {
	x := s[s.at(id)]
	if x.Announced.IsZero() {
		return s.without(1, func(x Seed) bool { return x.ID == id })
	}
	out := s.retire(id, now, x.Retention)
	out[out.at(id)].Run = ""
	given := func(x Seed) bool { return x.State == Retired && x.Left.IsZero() }
	count := 0
	for _, x := range out {
		if given(x) {
			count++
		}
	}
	return out.without(count-maxGivenUp, given)
}

// without returns s without the oldest n of those of which drop says so.
func (s Seeds) without(n int, drop func(Seed) bool) Seeds {
	return slices.DeleteFunc(slices.Clone(s), func(x Seed) bool {
		if n <= 0 || !drop(x) {
			return false
		}
		n--
		return true
	})
}

// maxRevoked is how many revoked seeds are kept and published: those that were in use
// when they were revoked last, and the newest of the others.
const maxRevoked = 20

// Replace presents a new seed at once, and revokes every other one that anybody was shown
// the keys of. ended are the runs that have nothing left to do.
func (s Seeds) Replace(fresh Seed, now time.Time) (out Seeds, ended []trust.RunID) {
	for _, x := range s {
		if x.State != Revoked && x.Run != "" {
			ended = append(ended, x.Run)
		}
		switch {
		case x.State == Revoked:
		case x.State == Queued && x.Left.IsZero():
			continue
		default:
			x.State, x.Since, x.Announced, x.Keep = Revoked, now, time.Time{}, time.Time{}
		}
		out = append(out, x)
	}
	out = out.without(len(out)-maxRevoked, func(x Seed) bool {
		was := s[s.at(x.ID)].State
		return was == Revoked || was == Retired
	})
	fresh.State, fresh.Since, fresh.Announced, fresh.Created = Current, now, now, now
	return append(out, fresh), ended
}

// Lengthen has later ways back take as long as rotations that are asked for now.
func (s Seeds) Lengthen(overlap time.Duration) Seeds {
	out, in := slices.Clone(s), trust.SeedID("")
	if x, moving := s.incoming(); moving {
		in = x.ID
	}
	for i, x := range out {
		if x.ID != in && x.State != Queued {
			out[i].Overlap = overlap
		}
	}
	return out
}

// Shortest returns the shortest overlap of the rotations that are under way or wait, or 0.
func (s Seeds) Shortest() (least time.Duration) {
	in, _ := s.incoming()
	for _, x := range s {
		if (x.ID == in.ID || x.State == Queued) && (least == 0 || x.Overlap < least) {
			least = x.Overlap
		}
	}
	return least
}

// Expire drops the seeds that were kept for long enough.
func (s Seeds) Expire(now time.Time) Seeds {
	return slices.DeleteFunc(slices.Clone(s), func(x Seed) bool { return x.State == Retired && !x.Keep.After(now) })
}
