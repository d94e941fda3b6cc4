package job

import (
	"testing"

	"keyturn/internal/trust"
)

// Two runs that could both use every hand get half each, the later one as soon as the
// earlier gives some back; one that wants no more leaves them all to the other.
func TestHandsAreShared(t *testing.T) {
	h := newHands(4)
	first, second := h.join(), h.join()
	many := make([]work, 10)
	taken, rest := h.take(first, many)
	if len(taken) != 4 || len(rest) != 6 {
		t.Fatalf("alone, the first gets %d of 4 hands", len(taken))
	}
	if taken, _ = h.take(second, many); len(taken) != 0 {
		t.Fatalf("the second gets %d hands of none that are free", len(taken))
	}
	for range 2 {
		h.release(first, "")
		if taken, _ = h.take(first, rest); len(taken) != 0 {
			t.Fatal("the first takes again what it gave back while the second waits for it")
		}
		if taken, _ = h.take(second, many); len(taken) != 1 {
			t.Fatal("the second does not get what the first gave back")
		}
	}
	h.release(first, "")
	if taken, _ = h.take(second, many); len(taken) != 0 {
		t.Fatal("the second takes more than its half while the first waits")
	}
	h.leave(second)
	if taken, _ = h.take(first, rest); len(taken) != 1 {
		t.Fatal("nobody else waits, and the first does not get the hand that is free")
	}
}

// Two steps on one host are not worked on at once, whoever's they are.
func TestHandsOfOneHost(t *testing.T) {
	h := newHands(4)
	first, second := h.join(), h.join()
	onHost := func(id trust.HostID) []work {
		var w work
		w.Host = id
		return []work{w}
	}
	if taken, _ := h.take(first, onHost("web1")); len(taken) != 1 {
		t.Fatal("no hand for a host where nobody is")
	}
	if taken, rest := h.take(second, onHost("web1")); len(taken) != 0 || len(rest) != 1 {
		t.Fatal("a second hand on one host")
	}
	h.release(first, "web1")
	select {
	case <-second.wake:
	default:
		t.Fatal("nobody told the second that the host is free")
	}
	if taken, _ := h.take(second, onHost("web1")); len(taken) != 1 {
		t.Fatal("the host stays busy")
	}
}
