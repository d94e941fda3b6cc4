package identity

import (
	"fmt"
	"hash/maphash"
	"sync"
	"time"

	"keyturn/internal/trust"
)

// A Throttled is the cause of an Exhausted error: the caller may try again after
// the time it says.
type Throttled struct{ RetryAfter time.Duration }

func (t *Throttled) Error() string { return fmt.Sprintf("try again in %s", t.RetryAfter) }

func throttled(after time.Duration, why string) error {
	// Rounded up, so that whoever waits that long has waited long enough.
	after = (after + time.Second - 1).Truncate(time.Second)
	e := trust.Errorf(trust.Exhausted, "%s", why).WithHint("try again in %s", after)
	e.Err = &Throttled{after}
	return e
}

// How wrong passwords are slowed down. Attempts are counted for each pair of a
// user and an address, and for each address. After the free ones each further
// failure doubles the wait, up to the longest; attempts during a wait are
// refused unseen and do not prolong it. Nothing is counted for a user alone, so
// nobody can keep a user out from somewhere else; and an address that the user
// has logged in from is not held to account for other users' failures there.
//
// That leaves some hundred guesses a day for one address and user. Guesses from
// very many addresses are bounded only by how many passwords are hashed at a
// time.
const (
	freePair    = 5
	freeAddress = 30
	// mostFlying is how many attempts at a time are not charged beforehand where the
	// user has logged in before: a script that asks for several things at once knows
	// the password.
	mostFlying  = 32
	firstWait   = time.Second
	longestWait = 15 * time.Minute
	forgetAfter = time.Hour // without a failure
	// A burst of failures is one event. It ends after burstGap without a
	// failure, and one that does not end is told of again every burstAgain.
	burstGap   = 10 * time.Minute
	burstAgain = time.Hour
	// burstPlaces is from how many addresses a burst against one user is an event
	// each. Of more the next event says how many failures there were: the log
	// belongs to its readers, not to whoever guesses from very many addresses.
	burstPlaces = 10
)

// The table has a fixed size. What is counted longest ago gives way; since each
// attempt touches its address, whoever tries many users still counts. Where a user has
// logged in stays longer, within half of the table, lest guesses from very many
// addresses push that out.
const (
	tableSets = 1024
	tableWays = 8
)

// A counter is what is known of one pair or one address.
type counter struct {
	key      uint64 // keyed hash; 0: unused
	last     time.Time
	failures int       // since the last success, or since it was forgotten
	until    time.Time // attempts before are refused
	known    bool      // the right password was given here once
	flying   int       // of a known pair: attempts that are being made, and not counted yet

	// Of pairs, and of users for all addresses: what the log has to say of it.
	untold  int       // failures and refused attempts that no event has told of
	told    time.Time // the last event
	failing time.Time // the last failure or refused attempt
}

// A throttle counts wrong passwords in a bounded memory. It belongs to one node:
// what it knows is worth no commit.
type throttle struct {
	now  func() time.Time
	seed maphash.Seed

	mu    sync.Mutex
	table [tableSets][tableWays]counter // guarded by mu
}

func newThrottle(now func() time.Time) *throttle {
	return &throttle{now: now, seed: maphash.MakeSeed()}
}

// counter finds or makes the counter of a key. t.mu is held.
func (t *throttle) counter(now time.Time, parts ...string) *counter {
	var h maphash.Hash
	h.SetSeed(t.seed)
	for _, p := range parts {
		fmt.Fprintf(&h, "%d:%s", len(p), p)
	}
	key := h.Sum64() | 1
	set := &t.table[key>>1%tableSets]
	var oldest, stranger *counter // the longest ago, and of those where nobody has logged in
	known := 0
	for i := range set {
		c := &set[i]
		if c.key == key {
			if now.Sub(c.last) > forgetAfter {
				c.failures, c.until = 0, time.Time{}
			}
			c.last = now
			return c
		}
		if oldest == nil || c.last.Before(oldest.last) {
			oldest = c
		}
		if c.known {
			known++
		} else if stranger == nil || c.last.Before(stranger.last) {
			stranger = c
		}
	}
	if stranger != nil && known <= tableWays/2 {
		oldest = stranger
	}
	*oldest = counter{key: key, last: now}
	return oldest
}

// charge counts an attempt as failed before it is made, so that many at once are
// not all seen as the first, and returns how long to wait instead of making it. Where the
// user has logged in before, some at once are counted when they have failed.
func (t *throttle) charge(user, address string) (wait time.Duration) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	place := t.counter(now, "address", address)
	pair := t.counter(now, "pair", user, address)
	wait = pair.until.Sub(now)
	if !pair.known {
		wait = max(wait, place.until.Sub(now))
	}
	if wait > 0 {
		pair.untold++
		pair.failing = now
		return wait
	}
	if pair.known && pair.flying < mostFlying {
		pair.flying++
		return 0
	}
	pair.fail(now, freePair)
	place.fail(now, freeAddress)
	return 0
}

// landed takes an attempt from those that are being made, and reports whether it was one
// that was not charged.
func (c *counter) landed() bool {
	if c.flying == 0 {
		return false
	}
	c.flying--
	return true
}

func (c *counter) fail(now time.Time, free int) {
	c.failures++
	if over := c.failures - free; over >= 0 {
		c.until = now.Add(min(firstWait<<min(over, 20), longestWait))
	}
}

// failed says that an attempt that was charged has failed, and whether the log
// is to be told: then of how many failures and refused attempts from that address,
// this one included, and how many failures from others it has not been told of.
// Victim is whom the log is told of: unlike user, it is one for all names that
// nobody has.
func (t *throttle) failed(user, victim, address string) (tell bool, count, elsewhere int) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	pair := t.counter(now, "pair", user, address)
	if pair.landed() {
		pair.fail(now, freePair)
		t.counter(now, "address", address).fail(now, freeAddress)
		pair = t.counter(now, "pair", user, address) // which may have given way to that
	}
	return t.tell(now, pair, victim)
}

// refused says that somebody was turned away who did not guess, such as a machine with a
// true token that no rule lets in, and returns what failed does. That slows nobody down.
func (t *throttle) refused(who, victim, address string) (tell bool, count, elsewhere int) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.tell(now, t.counter(now, "refused", who, address), victim)
}

// tell counts a failure of a pair for the log. t.mu is held.
func (t *throttle) tell(now time.Time, pair *counter, victim string) (tell bool, count, elsewhere int) {
	pair.untold++
	tell = now.Sub(pair.failing) > burstGap || now.Sub(pair.told) > burstAgain
	pair.failing = now
	if !tell {
		return false, 0, 0
	}
	all := t.counter(now, "victim", victim)
	if now.Sub(all.failing) > burstGap {
		all.failures = 0 // here: events of this burst
	}
	all.failing = now
	if all.failures >= burstPlaces && now.Sub(all.told) <= burstAgain {
		all.untold++
		return false, 0, 0
	}
	all.failures++
	count, pair.untold, pair.told = pair.untold, 0, now
	elsewhere, all.untold, all.told = all.untold, 0, now
	return true, count, elsewhere
}

// succeeded says that an attempt that was charged was right, and returns how many
// failures and refused attempts before it the log has not been told of.
func (t *throttle) succeeded(user, address string) (untold int) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	pair := t.counter(now, "pair", user, address)
	untold = pair.untold
	uncharged := pair.landed()
	*pair = counter{key: pair.key, last: now, known: true, flying: pair.flying}
	if !uncharged {
		t.refund(now, address)
	}
	return untold
}

// undecided says that an attempt that was charged came to no answer.
func (t *throttle) undecided(user, address string) {
	now := t.now()
	t.mu.Lock()
	defer t.mu.Unlock()
	pair := t.counter(now, "pair", user, address)
	if pair.landed() {
		return
	}
	if pair.failures > 0 {
		pair.failures--
		pair.until = time.Time{}
	}
	t.refund(now, address)
}

// refund takes one charge from an address. t.mu is held.
func (t *throttle) refund(now time.Time, address string) {
	place := t.counter(now, "address", address)
	if place.failures > 0 {
		place.failures--
	}
	if place.failures < freeAddress {
		place.until = time.Time{}
	}
}
