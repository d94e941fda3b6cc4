package identity

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/alexedwards/argon2id"

	"keyturn/internal/trust"
)

// attempt makes one and returns how long it has to wait, 0 if it was made.
func attempt(th *throttle, user, address string, right bool) time.Duration {
	if wait := th.charge(user, address); wait > 0 {
		return wait
	}
	if right {
		th.succeeded(user, address)
	} else {
		th.failed(user, user, address)
	}
	return 0
}

func testThrottle() (*throttle, *clock) {
	c := &clock{now: time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)}
	return newThrottle(c.Now), c
}

// Guessing at one user from one address gets slower and slower.
func TestThrottleSlowsGuessing(t *testing.T) {
	th, c := testThrottle()
	guesses := 0
	for end := c.Now().Add(24 * time.Hour); c.Now().Before(end); {
		wait := attempt(th, "admin", "192.0.2.1", false)
		if wait == 0 {
			guesses++
			continue
		}
		if wait > longestWait {
			t.Fatalf("has to wait %s", wait)
		}
		c.Advance(wait)
	}
	if guesses < freePair || guesses > 120 {
		t.Errorf("%d guesses in a day", guesses)
	}
	// It is forgotten after a while.
	c.Advance(forgetAfter + longestWait)
	for i := range freePair {
		if wait := attempt(th, "admin", "192.0.2.1", false); wait != 0 {
			t.Errorf("guess %d after an hour has to wait %s", i, wait)
		}
	}
}

// Whatever happens elsewhere, the owner logs in; and where the owner has logged
// in before, also behind the attacker's own address.
func TestThrottleDoesNotLockTheOwnerOut(t *testing.T) {
	th, c := testThrottle()
	attempt(th, "admin", "198.51.100.7", true) // a proxy that everybody comes through
	for i := range 20_000 {
		attempt(th, "admin", "192.0.2.1", false)
		attempt(th, "admin", fmt.Sprintf("203.0.%d.%d", i/250%250, i%250), false)
		attempt(th, fmt.Sprint("user", i%100), "198.51.100.7", false)
		if i%1000 == 0 {
			c.Advance(time.Second)
			if wait := attempt(th, "admin", "198.51.100.99", true); wait != 0 {
				t.Fatalf("after %d attacks the owner has to wait %s", i, wait)
			}
			if wait := attempt(th, "admin", "198.51.100.7", true); wait != 0 {
				t.Fatalf("after %d attacks the owner has to wait %s behind the proxy", i, wait)
			}
		}
	}
	if wait := attempt(th, "newcomer", "198.51.100.7", false); wait == 0 {
		t.Error("the attacker's address is not slowed down")
	}
}

// An address that tries one password for each of many users is slowed down too.
func TestThrottleCountsAddresses(t *testing.T) {
	th, _ := testThrottle()
	made := 0
	for i := range 1000 {
		if attempt(th, fmt.Sprint("user", i), "192.0.2.1", false) == 0 {
			made++
		}
	}
	if made != freeAddress {
		t.Errorf("%d of 1000 attempts were made, want %d", made, freeAddress)
	}
}

// Right passwords cost nothing, and wipe out the typing errors before.
func TestThrottleForgivesTypingErrors(t *testing.T) {
	th, c := testThrottle()
	for range 1000 {
		for range freePair - 1 {
			if wait := attempt(th, "alice", "192.0.2.1", false); wait != 0 {
				t.Fatalf("has to wait %s", wait)
			}
		}
		if wait := attempt(th, "alice", "192.0.2.1", true); wait != 0 {
			t.Fatalf("has to wait %s", wait)
		}
		c.Advance(time.Hour + time.Second)
	}
}

// Many attempts at once are not all seen as the first.
func TestThrottleChargesBeforehand(t *testing.T) {
	th, _ := testThrottle()
	admitted := 0
	for range 100 {
		if th.charge("admin", "192.0.2.1") == 0 {
			admitted++
		}
	}
	if admitted != freePair {
		t.Errorf("%d attempts under way at once, want %d", admitted, freePair)
	}
	th, _ = testThrottle()
	for range 100 {
		if wait := th.charge("admin", "192.0.2.1"); wait > 0 {
			t.Fatalf("attempts that came to no answer count: wait %s", wait)
		}
		th.undecided("admin", "192.0.2.1")
	}
}

// Where a user has logged in before, many at once with the right password all get in; with
// wrong ones no more than those are made before all wait.
func TestThrottleOfManyAtOnce(t *testing.T) {
	th, c := testThrottle()
	attempt(th, "admin", "192.0.2.1", true)
	for range 3 {
		for n := range mostFlying {
			if wait := th.charge("admin", "192.0.2.1"); wait != 0 {
				t.Fatalf("attempt %d has to wait %s", n, wait)
			}
		}
		for range mostFlying {
			th.succeeded("admin", "192.0.2.1")
		}
	}
	if wait := attempt(th, "other", "192.0.2.1", false); wait != 0 {
		t.Errorf("another user at that address has to wait %s", wait)
	}
	made := 0
	for th.charge("admin", "192.0.2.1") == 0 {
		made++
	}
	for range made {
		th.failed("admin", "admin", "192.0.2.1")
	}
	if made > mostFlying+freePair+1 {
		t.Errorf("%d guesses at once", made)
	}
	c.Advance(longestWait - time.Second)
	if wait := th.charge("admin", "192.0.2.1"); wait == 0 {
		t.Error("and nobody waits after them")
	}
}

func TestThrottleIsBounded(t *testing.T) {
	if size := unsafe.Sizeof(throttle{}); size > 2<<20 {
		t.Errorf("the table takes %d bytes", size)
	}
}

// One burst of failures is one event, and a login after it says how many failures
// the log has not been told of.
func TestFailuresAreToldOncePerBurst(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		fail := func(user string, n int) {
			t.Helper()
			for range n {
				_, err := w.Password(t.Context(), user, "wrong", "", "192.0.2.9")
				if k := trust.KindOf(err); k != trust.Unauthenticated && k != trust.Exhausted {
					t.Fatal(err)
				}
			}
		}
		fail("admin", 20) // 5 are tried, 15 refused
		refused := w.events(w.tenant, "user.refuse")
		if len(refused) != 1 || field(refused[0], "failures") != "1" {
			t.Fatalf("20 failures are told of as %+v", refused)
		}
		var wait *Throttled
		_, err := w.Password(t.Context(), "admin", adminPassword, "", "192.0.2.9")
		if trust.KindOf(err) != trust.Exhausted || !errors.As(err, &wait) || wait.RetryAfter < time.Second {
			t.Fatalf("in the middle of it: %v", err)
		}
		// From elsewhere nothing of it is felt.
		if _, err := w.Password(t.Context(), "admin", adminPassword, "", "192.0.2.10"); err != nil {
			t.Errorf("from elsewhere: %v", err)
		}
		w.clock.Advance(wait.RetryAfter)
		if _, err := w.Password(t.Context(), "admin", adminPassword, "", "192.0.2.9"); err != nil {
			t.Fatal(err)
		}
		logins := w.events(w.tenant, "user.login")
		if last := logins[len(logins)-1]; field(last, "failures") != "20" {
			t.Errorf("the login tells of %q failures, want 20: 19 of the burst, and one while waiting", field(last, "failures"))
		}
		// Another burst, later; and one of a name that nobody has, in which
		// somebody may have typed a password.
		w.clock.Advance(time.Hour)
		fail("admin", 3)
		w.clock.Advance(burstGap + time.Second)
		fail("admin", 1)
		fail("hunter2-is-my-password", 3)
		refused = w.events(w.tenant, "user.refuse")
		if len(refused) != 4 {
			t.Fatalf("told of as %d events, want 4", len(refused))
		}
		if n := field(refused[2], "failures"); n != "3" {
			t.Errorf("the burst after the burst tells of %s failures, want 3: two untold and its own", n)
		}
		if refused[3].Subject != "user:unknown" {
			t.Errorf("a name that nobody has is told of as %q", refused[3].Subject)
		}
		for _, l := range refused {
			if l.Source == nil {
				t.Error("an event does not commit to the address")
			}
		}
	})
}

// Ten thousand guesses from a thousand addresses, at users that there are and at names
// that nobody has, many at once: nobody is in, the owner is not out, each guess costs the
// same or nothing, and some thirty events tell the log of them.
func TestTenThousandWrongLogins(t *testing.T) {
	both(t, func(t *testing.T, w *world) {
		w.addUser(w.admin(), "alice", KeysRead)
		names := []string{"admin", "alice", "default/admin", "root", "Administrator", "x' OR 1=1 --"}
		var hashed, made, refused, busy atomic.Int64
		w.hasher.check = func(password, hash string) (bool, *argon2id.Params, error) {
			hashed.Add(1)
			return argon2id.CheckHash(password, hash)
		}
		guess := func(n int) {
			_, err := w.Password(t.Context(), names[n%len(names)], fmt.Sprintf("guess %d", n), "", fmt.Sprintf("198.51.%d.%d", n%1000/250, n%250))
			var wait *Throttled
			switch {
			case trust.KindOf(err) == trust.Unauthenticated:
				made.Add(1)
			case errors.As(err, &wait) && strings.Contains(err.Error(), "at once"):
				busy.Add(1)
			case errors.As(err, &wait):
				refused.Add(1)
			default:
				t.Errorf("guess %d: %v", n, err)
			}
		}
		const guesses, atOnce, rounds = 10_000, 8, 10
		for round := range rounds {
			var all sync.WaitGroup
			for g := range atOnce {
				all.Go(func() {
					for n := round*guesses/rounds + g; n < (round+1)*guesses/rounds; n += atOnce {
						guess(n)
					}
				})
			}
			all.Wait()
			// From where the owner has always come, from elsewhere, and from an address
			// of which the others make use.
			for _, from := range []string{"192.0.2.1", fmt.Sprintf("203.0.113.%d", round)} {
				if _, err := w.Password(t.Context(), "admin", adminPassword, "", from); err != nil {
					t.Errorf("after %d guesses the owner at %s: %v", (round+1)*guesses/rounds, from, err)
				}
			}
			w.clock.Advance(time.Second)
		}
		if n := made.Load() + refused.Load() + busy.Load(); n != guesses || made.Load() < 4*1000 || refused.Load() == 0 {
			t.Errorf("%d guesses were made, %d refused unseen, %d sent away", made.Load(), refused.Load(), busy.Load())
		}
		if owner := hashed.Load() - made.Load(); owner < 0 || owner > 2*rounds {
			t.Errorf("%d guesses and %d logins cost %d hashings", made.Load(), 2*rounds, hashed.Load())
		}
		// A later one tells of all that were not told of.
		w.clock.Advance(burstGap + time.Second)
		for _, name := range names[:2] {
			_, _ = w.Password(t.Context(), name, "wrong", "", "203.0.113.99")
		}
		_, _ = w.Password(t.Context(), "nobody", "wrong", "", "203.0.113.99")
		told, total := map[string]int{}, 0
		events := w.events(w.tenant, "user.refuse")
		for _, l := range events {
			here, _ := strconv.Atoi(field(l, "failures"))
			elsewhere, _ := strconv.Atoi(field(l, "elsewhere"))
			told[l.Subject] += here + elsewhere
			total += here + elsewhere
		}
		if len(told) != 3 || len(events) > 3*(burstPlaces+1) || total < int(made.Load())*9/10 {
			t.Errorf("%d guesses are told of as %d events, of %v", made.Load(), len(events), told)
		}
	})
}

// However many log in, few passwords are hashed at a time; beyond a bounded
// number of those who wait, one is sent away at once.
func TestHashingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHasher(cheap)
		release := make(chan struct{})
		var mu sync.Mutex
		running, most, done, away := 0, 0, 0, 0
		h.check = func(string, string) (bool, *argon2id.Params, error) {
			mu.Lock()
			running++
			most = max(most, running)
			mu.Unlock()
			<-release
			mu.Lock()
			running--
			done++
			mu.Unlock()
			return true, cheap, nil
		}
		for i := range 200 {
			go func() {
				_, _, err := h.matches(context.Background(), strconv.Itoa(i), "")
				if trust.KindOf(err) == trust.Exhausted {
					mu.Lock()
					away++
					mu.Unlock()
				}
			}()
		}
		synctest.Wait()
		// One who gives up leaves the queue.
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if _, _, err := h.matches(ctx, "", ""); err == nil {
			t.Error("someone who has gone was let in")
		}
		close(release)
		synctest.Wait()
		if most != maxHashing || done != maxWaiting || away != 200-maxWaiting {
			t.Errorf("at most %d at a time, %d done, %d sent away; want %d, %d, %d", most, done, away, maxHashing, maxWaiting, 200-maxWaiting)
		}
	})
}
