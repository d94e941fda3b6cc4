package main

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/job"
	"keyturn/internal/need"
	"keyturn/internal/rotation"
	"keyturn/internal/trust"
)

// A trial is a rotation, or its way back, by a table that may be wrong, among
// hosts that may be. What becomes of it is told by what follows.
type trial struct {
	name  string
	table func(steps []job.Step) []job.Step // nil: the right one
	fault func(w *ward) func(point string)  // called at each instant; may be nil
	// back: the way there is as it should be, and the way back is what is tried.
	back bool
	// soak is how long the run soaks; "" for not at all.
	soak string
	// there: the table is wrong on the way there, too. A run is not worked by a
	// table that has other rows than the one that it was planned by.
	there bool

	lost     bool   // the invariant was broken
	held     string // the row that held the run, or one of them; "" if it ended
	accepted bool   // the run has ended well, and the old key still opens something
}

// trials are the mutations of the table, and the faults, that each row is there
// for: with the row the run is held, and without it somebody is locked out.
func trials() []trial {
	lie := func(row string) func(w *ward) func(string) {
		return once(row, func(w *ward) { w.hosts[1].(simHost).Lie() })
	}
	purge := once("before do Soak", func(w *ward) {
		h := w.hosts[1]
		text, _, err := h.read(keysFile(h))
		if err == nil {
			err = h.write(keysFile(h), w.purged(string(text)))
		}
		if err != nil {
			w.t.Error(err)
		}
	})
	revoke := once("before do Soak", func(w *ward) {
		key, _ := w.identityKey()
		w.hosts[1].(simHost).Revoke(key)
		clear(w.works) // no file tells
	})
	use := once("before do Soak", func(w *ward) {
		if err := w.strangerLogsIn(); err != nil {
			w.t.Errorf("a copy of the key does not open what it opened: %v", err)
		}
	})
	restore := once("before do Soak", func(w *ward) {
		if err := w.hosts[0].write(w.identity, string(w.copied)); err != nil {
			w.t.Error(err)
		}
	})
	return []trial{
		{name: "the right table"},
		{name: "the right table, back", back: true},

		// The order of the rows.
		{name: "withdraw before install", table: move("Withdraw", "Recheck"), held: "Withdraw"},
		{name: "install before authorize", table: move("Install", "Authorize"), lost: true},
		{name: "install before authorize, back", table: move("Install", "Authorize"), there: true, back: true, lost: true},
		{name: "withdraw before authorize", table: move("Withdraw", "Authorize"), held: "Withdraw"},
		{name: "prove before authorize", table: move("Prove", "Authorize")}, // which puts the line there
		{name: "disprove before reprove and withdraw", table: move("Disprove", "Reprove"), held: "Disprove"},

		// No barrier: the rest of the table is run while a host waits.
		{name: "no barrier", table: passOver("web2", "Authorize", "Prove"), lost: true, held: "Confirm Reprove"},
		{name: "no barrier, back", table: passOver("web2", "Authorize", "Prove"), back: true, lost: true, held: "Confirm Reprove"},
		// The outcome before the effect: a crash between them leaves rows that are
		// done in the journal and nowhere else.
		{name: "authorize is only written down", table: passOver("", "Authorize")}, // Prove puts the line there
		{name: "install is only written down", table: passOver("", "Install"), held: "Confirm"},
		{name: "withdraw is only written down", table: passOver("", "Withdraw"), held: "Disprove"},

		// A host that takes the new line and does not honor it.
		{name: "a liar", fault: lie("before do Authorize"), held: "Prove"},
		{name: "a liar, back", fault: lie("before do Authorize"), back: true, held: "Prove"},
		{name: "a liar and no proof", fault: lie("before do Authorize"), table: passOver("", "Prove"), lost: true, held: "Confirm Reprove"},
		{name: "a liar and no proof, back", fault: lie("before do Authorize"), table: passOver("", "Prove"), back: true, lost: true, held: "Confirm Reprove"},
		// One that goes on to honor the old line.
		{name: "a liar in the end", fault: lie("before do Withdraw"), held: "Disprove"},
		{name: "a liar in the end and no disproof", fault: lie("before do Withdraw"), table: passOver("", "Disprove"), accepted: true},

		// Somebody takes the new line out during the soak: he locks out whom he
		// locks out, but the old line stays until another one is proven.
		{name: "new purged in the soak", fault: purge, lost: true, held: "Reprove"},
		{name: "new purged in the soak, back", fault: purge, back: true, lost: true, held: "Reprove"},
		{name: "new purged in the soak and no second proof", fault: purge, table: passOver("", "Reprove"), lost: true, held: "Withdraw"},

		// sshd comes to refuse the new key during the soak, of which no file tells.
		{name: "new revoked in the soak", fault: revoke, soak: "1ms", lost: true, held: "Reprove"},
		{name: "new revoked in the soak, back", fault: revoke, soak: "1ms", back: true, lost: true, held: "Reprove"},

		// A restore puts the old key back into the identity file during the soak.
		{name: "old restored in the soak", fault: restore, held: "Reconfirm"},
		{name: "old restored in the soak, back", fault: restore, back: true, held: "Reconfirm"},
		{name: "old restored in the soak and looked for by nobody but Withdraw", fault: restore, table: lack("Reconfirm"), held: "Withdraw"},
		{name: "old restored in the soak and looked for by nobody but Withdraw, back", fault: restore, table: lack("Reconfirm"), there: true, back: true, held: "Withdraw"},

		// A copy of the old key that nobody knows of shows itself in the soak.
		{name: "a copy is used", fault: use, held: "Reprove"},
		{name: "a copy is used, back", fault: use, back: true, held: "Reprove"},
		{name: "a copy is not seen without a soak", fault: use, table: lack("Soak")},
		{name: "a copy is not seen without a soak, back", fault: use, table: lack("Soak"), there: true, back: true},
	}
}

// Every row, and its place in the table, is there for something: without it the
// invariant, which the tests of crashes check, would be broken, or the run held.
func TestWrongTablesLockOut(t *testing.T) {
	need.Long(t)
	t.Parallel()
	for _, c := range need.Share(t, 10, trials()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var table func([]job.Step) []job.Step
			w := simWard(t, 2, func(procedures []job.Procedure) {
				for i, p := range procedures {
					if p.Name == rotation.RotateProcedure && table != nil {
						procedures[i].Steps = table(slices.Clone(p.Steps))
					}
				}
			})
			w.soak = c.soak
			restart := func() {
				w.stop()
				table = c.table
				w.start()
			}
			if c.there || !c.back {
				restart()
			}
			var run string
			if c.back {
				there := w.rotate()
				w.mustEnd(there, job.Done)
				w.moved()
				release := w.hold()
				run = w.back(there)
				if !c.there {
					restart()
				}
				w.beginTrial(c)
				release()
			} else {
				w.moved()
				w.beginTrial(c)
				run = w.rotate()
			}
			state, reason, _ := w.await(run)
			if lost := len(w.lost) > 0; lost != c.lost {
				t.Errorf("locked out: %v, want %v: %q", lost, c.lost, w.lost)
			}
			row, _, _ := strings.Cut(reason, " ")
			if held := state == job.Held; held != (c.held != "") || held && !slices.Contains(strings.Fields(c.held), row) {
				t.Errorf("the run is %s, want it held by %q: %s", state, c.held, reason)
			}
			if state == job.Held && c.held != "Disprove" {
				if text, _, err := w.hosts[1].read(keysFile(w.hosts[1])); err != nil || strings.Count(string(text), w.key.String()) != 2 {
					t.Errorf("the run is held, and the old key was touched: %v\n%s", err, text)
				}
			}
			if state == job.Done {
				if refused := w.strangerLogsIn() != nil; refused == c.accepted {
					t.Errorf("the old key is refused: %v", refused)
				}
			}
			t.Logf("%s: %s; locked out at %d instants", state, reason, len(w.lost))
		})
	}
}

// beginTrial forgets what was before, and lets the faults happen.
func (w *ward) beginTrial(c trial) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lost = nil
	if c.fault != nil {
		w.fault = c.fault(w)
	}
}

// once returns a fault that happens at the first instant that begins so.
func once(at string, act func(w *ward)) func(w *ward) func(string) {
	return func(w *ward) func(string) {
		done := false
		return func(point string) {
			if !done && strings.HasPrefix(point, at) {
				done = true
				act(w)
			}
		}
	}
}

// move returns a table in which a row comes before another one.
func move(row, before string) func([]job.Step) []job.Step {
	return func(steps []job.Step) []job.Step {
		at := slices.IndexFunc(steps, named(row))
		s := steps[at]
		s.Group = ""
		steps = slices.Delete(steps, at, at+1)
		return slices.Insert(steps, slices.IndexFunc(steps, named(before)), s)
	}
}

// lack returns a table without a row.
func lack(row string) func([]job.Step) []job.Step {
	return func(steps []job.Step) []job.Step { return slices.DeleteFunc(steps, named(row)) }
}

// passOver returns a table that takes rows for done which were not, on targets
// whose names begin so.
func passOver(target string, rows ...string) func([]job.Step) []job.Step {
	return func(steps []job.Step) []job.Step {
		for i, s := range steps {
			if !slices.Contains(rows, s.Name) {
				continue
			}
			steps[i].Do = func(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
				if strings.HasPrefix(t.Name, target) {
					return nil, nil
				}
				return s.Do(ctx, r, t)
			}
		}
		return steps
	}
}

func named(name string) func(job.Step) bool {
	return func(s job.Step) bool { return s.Name == name }
}

// moved takes the key that the identity file holds by now for the ward's own.
func (w *ward) moved() {
	w.t.Helper()
	w.key, w.copied = w.identityKey()
}

// identityKey returns the key that the identity file holds.
func (w *ward) identityKey() (public trust.PublicKey, private []byte) {
	_, private, err := w.state()
	if err != nil {
		w.t.Error(err)
		return public, nil
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		w.t.Error(err)
		return public, nil
	}
	return trust.PublicKeyOf(signer.PublicKey()), private
}

// purged returns the lines of a file that are not of the key which the identity
// file holds.
func (w *ward) purged(text string) string {
	public, _ := w.identityKey()
	if public.IsZero() {
		return text
	}
	key := public.String()
	lines := strings.SplitAfter(text, "\n")
	return strings.Join(slices.DeleteFunc(lines, func(line string) bool { return strings.Contains(line, key) }), "")
}

// strangerLogsIn logs in from where no copy of the key is known, with the bytes
// that the identity file held before the run.
func (w *ward) strangerLogsIn() error {
	signer, err := ssh.ParsePrivateKey(w.copied)
	if err != nil {
		return err
	}
	h := w.hosts[1]
	ctx, cancel := context.WithTimeout(w.t.Context(), 10*time.Second)
	defer cancel()
	target := dial.Target{Address: h.Address(), User: h.User(), Pins: []trust.PublicKey{h.HostKey()}, Source: netip.AddrFrom4([4]byte{127, 0, 0, 9})}
	outcome, err := dial.Prove(ctx, target, signer)
	if err == nil && outcome != dial.Accepted {
		err = trust.Errorf(trust.Denied, "the key is %s", outcome)
	}
	return err
}
