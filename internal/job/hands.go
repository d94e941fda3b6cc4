package job

import (
	"sync"

	"keyturn/internal/trust"
)

// hands are the workers of an engine: a bounded number, never two on one host,
// and divided fairly among the runs that could use more of them.
type hands struct {
	mu      sync.Mutex
	total   int
	free    int
	busy    map[trust.HostID]bool
	holders map[*holder]bool
}

// A holder is a run that asks for hands.
type holder struct {
	using   int           // hands it has
	starved bool          // it could use more
	blocked bool          // it waits for a host
	wake    chan struct{} // told when asking again may help
}

func newHands(total int) *hands {
	return &hands{total: total, free: total, busy: map[trust.HostID]bool{}, holders: map[*holder]bool{}}
}

// join returns a new holder, to be given to leave in the end.
func (h *hands) join() *holder {
	x := &holder{wake: make(chan struct{}, 1)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.holders[x] = true
	return x
}

func (h *hands) leave(x *holder) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.holders, x)
	h.tell()
}

// take gives x a hand for each of some targets, in order, and returns which
// got one and which did not. Where it is not all, x.wake says when to try again.
func (h *hands) take(x *holder, some []work) (taken, rest []work) {
	h.mu.Lock()
	defer h.mu.Unlock()
	x.starved, x.blocked = false, false
	share := h.share(x)
	for i, w := range some {
		if h.free == 0 || x.using >= share {
			x.starved = true
			if rest == nil {
				return taken, some[i:]
			}
			return taken, append(rest, some[i:]...)
		}
		if w.Host != "" && h.busy[w.Host] {
			x.blocked = true
			rest = append(rest, w)
			continue
		}
		if w.Host != "" {
			h.busy[w.Host] = true
		}
		h.free--
		x.using++
		taken = append(taken, w)
	}
	return taken, rest
}

// share returns how many hands x may have while others could use some too.
func (h *hands) share(x *holder) int {
	wanting := 1
	for other := range h.holders {
		if other != x && other.starved {
			wanting++
		}
	}
	return (h.total + wanting - 1) / wanting
}

// release takes back the hand that x has on a host.
func (h *hands) release(x *holder, host trust.HostID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.free++
	x.using--
	delete(h.busy, host)
	h.tell()
}

// tell wakes every holder that asking again may help.
func (h *hands) tell() {
	for x := range h.holders {
		if x.starved || x.blocked {
			select {
			case x.wake <- struct{}{}:
			default:
			}
		}
	}
}
