package sim

import (
	"slices"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// faults is what is wrong with a host.
type faults struct {
	refuses, hangs, pretends bool
	frozen                   map[string][][]byte // what a liar honors, by account
	ahead                    time.Duration       // the clock, of the right one
	op                       string              // the op that is cut off
	when                     When
	before                   map[string]func() // by op, done once
	revoked                  []trust.PublicKey
}

// When says when something happens to an op.
type When string

// When a connection is dropped.
const (
	BeforeEffect When = "before" // nothing was done
	AfterEffect  When = "after"  // all was done, and nobody hears of it
)

// Refuse makes the host take no connection, and end those that it has.
func (h *Host) Refuse() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults.refuses = true
	h.hangUpLocked()
}

// Hang makes the host take connections and say nothing on new ones.
func (h *Host) Hang() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults.hangs = true
}

// SetClock has the host's clock go ahead of the right one, or behind it.
func (h *Host) SetClock(ahead time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults.ahead = ahead
}

// now is the time by the host's clock; h.mu is held.
func (h *Host) now() time.Time { return time.Now().Add(h.faults.ahead) }

// Drop ends the connection on which the next op of a name runs, before or after
// its effect.
func (h *Host) Drop(op string, when When) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults.op, h.faults.when = op, when
}

// Lie makes the host honor the authorized keys of this moment, whatever is
// written to the files from now on.
func (h *Host) Lie() {
	h.mu.Lock()
	defer h.mu.Unlock()
	frozen := map[string][][]byte{}
	for user, a := range h.accounts {
		frozen[user] = h.authorized(a)
	}
	h.faults.frozen = frozen
}

// Revoke makes the host refuse a key, whatever its files say: RevokedKeys in
// sshd_config(5).
func (h *Host) Revoke(key trust.PublicKey) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults.revoked = append(h.faults.revoked, key)
}

// Pretend makes the host answer to swap and install as if they were done, and
// not do them.
func (h *Host) Pretend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults.pretends = true
}

// Fill fills the disk: no file gets content any more.
func (h *Host) Fill() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fs.full = true
}

// Meanwhile has somebody else act right before the next op of a name: a second
// writer.
func (h *Host) Meanwhile(op string, act func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.faults.before == nil {
		h.faults.before = map[string]func(){}
	}
	h.faults.before[op] = act
}

// CutPower takes the power away after so many more changes to the disk; 0 is at
// once. What was not synced is lost, and the host is down until Mend.
func (h *Host) CutPower(after int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fs.fuse = after
	h.blackOut()
}

// Mend ends every fault, and turns the power on again.
func (h *Host) Mend() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.faults = faults{}
	h.fs.full, h.fs.fuse = false, -1
}

// blackOut ends what has no power any more, and says if that is so.
func (h *Host) blackOut() bool {
	if h.fs.fuse != 0 {
		return false
	}
	h.fs.lose()
	h.faults.refuses = true
	h.hangUpLocked()
	return true
}

func (h *Host) hangs() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.faults.hangs
}

// pretends is asked by ops, within the lock.
func (h *Host) pretends() bool { return h.faults.pretends }

// execute runs a command as one step of the host. A negative status means that
// the connection is to end without an answer.
func (h *Host) execute(p *process, command string) (status int, stderr string) {
	names := opNames(command)
	for _, name := range names {
		h.mu.Lock()
		act := h.faults.before[name]
		delete(h.faults.before, name)
		h.mu.Unlock()
		if act != nil {
			act()
		}
	}
	if slices.ContainsFunc(names, func(name string) bool { return p.ops()[name].outside }) {
		return p.run(command)
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	dropped := slices.Contains(names, h.faults.op)
	if dropped {
		h.faults.op = ""
		if h.faults.when == BeforeEffect {
			return -1, ""
		}
	}
	status, stderr = p.run(command)
	if h.blackOut() || dropped {
		return -1, ""
	}
	return status, stderr
}

// opNames returns the ops that a command line runs.
func opNames(line string) (names []string) {
	commands, _ := split(line, nil)
	for _, words := range commands {
		if name, ok := strings.CutPrefix(firstWord(words), function); ok {
			names = append(names, name)
		}
		for i, w := range words {
			if i > 1 && words[i-2] == "-c" && strings.HasPrefix(w, "keyturn.") {
				names = append(names, opsOf(w)...)
				break
			}
		}
	}
	return names
}
