package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// What others do to hosts while a run works on them. Each part leaves the hosts
// as it found them.
func TestAdverse(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w, uuid := newAdverse(t)
	t.Run("lies on the way back", func(t *testing.T) { w.part(t, uuid, liesOnTheWayBack) })
	t.Run("purged while soaking", func(t *testing.T) { w.part(t, uuid, purgedWhileSoaking) })
	t.Run("two installations", func(t *testing.T) { w.part(t, uuid, twoInstallations) })
	t.Run("other writers", func(t *testing.T) { w.part(t, uuid, otherWriters) })
}

// Ten rotations, each taken back: 500 writes of others.
func TestSoakOtherWriters(t *testing.T) {
	need.Soak(t)
	w, uuid := newAdverse(t)
	for range 10 {
		w.part(t, uuid, otherWriters)
	}
}

// newAdverse makes a world of two hosts, and a held key that opens both.
func newAdverse(t *testing.T) (w *world, uuid string) {
	t.Helper()
	w = newWorld(t, 2)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	for _, s := range w.servers {
		if err := s.Authorize(deploy, "no-pty"); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("key", "import", filepath.Join(w.dir, "deploy"))
	w.ok("scan", "--wait")
	return w, w.key(deploy).UUID
}

// part runs a part on its own t, and checks that it left the hosts as they were.
func (w *world) part(t *testing.T, uuid string, part func(w *world, uuid string)) {
	whole := w.t
	w.t = t
	defer func() { w.t = whole }()
	before := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	part(w, uuid)
	for i := range w.servers {
		if now := w.read(w.authorized(i)); now != before[i] {
			t.Errorf("web%d holds\n%s\nwant\n%s", i+1, now, before[i])
		}
		w.nothingLeft(i)
	}
}

// held follows a run until it is held, in a row, for a reason that contains why.
func (w *world) held(run, row, why string) {
	w.t.Helper()
	r := w.await(run, func(r runJSON) bool { return r.State == "held" || r.ended() })
	said := r.Reason
	for _, x := range r.Troubled {
		said += " " + x.Error
	}
	if r.State != "held" || r.Row != row || !strings.Contains(said, why) {
		w.t.Fatalf("run %s is %s in row %s: %s; want held in row %s: %s", run, r.State, r.Row, said, row, why)
	}
}

// A host that stops honoring its files after a rotation is found out by the
// rollback before the key that does open it is touched.
func liesOnTheWayBack(w *world, uuid string) {
	w.ok("rotate", uuid, "--wait", "--soak", "0s")
	rotated := w.read(w.authorized(1))
	liar := w.servers[1]
	if err := liar.Lie(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if code, _, _ := w.try("rollback", uuid, "--wait"); code == 0 {
		w.t.Fatal("the rollback of a host that lies is done")
	}
	var open []runJSON
	w.json(&open, "run", "list", "--open")
	if len(open) != 1 {
		w.t.Fatalf("the rollback is %+v", open)
	}
	run := open[0].Run
	w.held(run, "Prove", "the new key does not open web2")
	for line := range strings.Lines(rotated) {
		if !strings.Contains(w.read(w.authorized(1)), line) {
			w.t.Errorf("the line %q is gone although nothing else opens web2", line)
		}
	}
	if err := liar.Honest(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	w.ok("run", "resume", run)
	w.await(run, func(r runJSON) bool { return r.State == "done" })
}

// A configuration manager takes the new line out while both keys are accepted.
// The old one must not go then.
func purgedWhileSoaking(w *world, uuid string) {
	path := w.authorized(0)
	old := w.read(path)
	var run startedJSON
	w.json(&run, "rotate", uuid, "--soak", actedIn)
	w.await(run.Run, func(r runJSON) bool { return r.Row == "Soak" && r.Until != nil })
	w.rename(path, []byte(old))
	w.held(run.Run, "Reprove", "somebody took the new key out of")
	if now := w.read(path); now != old {
		w.t.Fatalf("the file of the configuration manager is\n%s\nwant\n%s", now, old)
	}
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	if now := w.read(path); strings.Count(now, "no-pty ") != 1 || now == old {
		w.t.Errorf("after the run is resumed the file is\n%s", now)
	}
	w.ok("rollback", uuid, "--wait")
}

// Two installations that know nothing of each other rotate two keys of one
// file. The second waits for the first, by name.
func twoInstallations(w *world, uuid string) {
	second := &world{t: w.t, dir: w.t.TempDir(), servers: w.servers[:1], ops: w.ops, apart: true}
	other := w.keyFile(filepath.Join(second.dir, "other"), "other@ci")
	without := w.read(w.authorized(0))
	if err := w.servers[0].Authorize(other, ""); err != nil {
		w.t.Fatal(err)
	}
	before := w.read(w.authorized(0))

	// The first stays where it is until somebody decides: the other host lies.
	if err := w.servers[1].Lie(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	var first startedJSON
	w.json(&first, "rotate", uuid, "--soak", "0s", "--canary", "2")
	w.held(first.Run, "Prove", "web2")
	during := w.read(w.authorized(0))

	second.start()
	s := w.servers[0]
	second.ok("host", "add", s.Name(), "--address", s.Address(), "--login", s.User(), "--identity", w.ops, "--host-key", s.HostKey().String(), "--enforce")
	second.ok("key", "import", filepath.Join(second.dir, "other"))
	second.ok("scan", "--wait")
	theirs := second.key(other).UUID
	var later startedJSON
	second.json(&later, "rotate", theirs, "--soak", "0s")
	second.held(later.Run, "Baseline", s.Name()+":"+w.authorized(0)+" is being changed by run "+first.Run)
	second.held(later.Run, "Baseline", "keyturn run resume "+later.Run)
	if now := w.read(w.authorized(0)); now != during {
		w.t.Errorf("the refused installation has written\n%s\nover\n%s", now, during)
	}

	w.ok("run", "back", first.Run)
	w.await(first.Run, func(r runJSON) bool { return r.State == "back" })
	if err := w.servers[1].Honest(w.t.Context()); err != nil {
		w.t.Fatal(err)
	}
	if now := w.read(w.authorized(0)); now != before {
		w.t.Errorf("the first installation went back to\n%s\nwant\n%s", now, before)
	}

	second.ok("run", "resume", later.Run)
	second.await(later.Run, func(r runJSON) bool { return r.State == "done" })
	if now := w.read(w.authorized(0)); !strings.HasPrefix(now, without) || strings.Contains(now, other.String()) || strings.Count(now, " ssh-ed25519 ")+strings.Count(now, "\nssh-ed25519 ") < 2 {
		w.t.Errorf("the second installation made\n%s\nof\n%s", now, before)
	}
	second.ok("rollback", theirs, "--wait")
	if now := w.read(w.authorized(0)); now != before {
		w.t.Errorf("the second installation went back to\n%s\nwant\n%s", now, before)
	}
	second.stop()
	w.rename(w.authorized(0), []byte(without))
}

// While a key is rotated, one program appends lines to the file and another writes it
// anew and renames, as Ansible does: before the new key is in it, while both are, and
// when the old one is out. What they wrote is there in the end, whatever it met.
func otherWriters(w *world, uuid string) {
	path := w.authorized(0)
	before := w.read(path)
	var k keyJSON
	w.json(&k, "key", "show", uuid)
	old := strings.Fields(k.PublicKey)[1]
	keys := strings.Count(before, " AAAA") // lines that are keys
	met := map[string]int{}                // writes by what the file held
	done, ended := make(chan []string, 1), make(chan struct{})
	go func() {
		var wrote []string
		defer func() { done <- wrote }()
		for open := true; open || len(wrote) < 50; {
			text := w.read(path)
			switch {
			case strings.Count(text, " AAAA") > keys:
				met["both"]++
			case strings.Contains(text, old):
				met["old"]++
			default:
				met["new"]++
			}
			line := fmt.Sprintf("# line %d", len(wrote))
			if len(wrote)%2 == 0 {
				w.appendLine(path, line)
			} else {
				w.rename(path, []byte(w.read(path)+line+"\n"))
			}
			wrote = append(wrote, line)
			select {
			case <-ended:
				open = false
			case <-time.After(rand.N(120 * time.Millisecond)):
			}
		}
	}()
	var run startedJSON
	w.json(&run, "rotate", uuid, "--soak", "0s")
	resumed := 0
	r := w.await(run.Run, func(r runJSON) bool { return r.State == "held" || r.ended() })
	for ; r.State == "held" && resumed < 5; resumed++ {
		w.t.Logf("held in row %s: %s %+v", r.Row, r.Reason, r.Troubled)
		w.ok("run", "resume", run.Run)
		was := r.Revision
		r = w.await(run.Run, func(r runJSON) bool { return r.State == "held" && r.Revision > was+1 || r.ended() })
	}
	close(ended)
	wrote := <-done
	now := w.read(path)
	for _, line := range wrote {
		if strings.Count(now, line+"\n") != 1 {
			w.t.Errorf("%q is there %d times", line, strings.Count(now, line+"\n"))
		}
	}
	if r.State != "done" || met["old"] == 0 || met["both"] == 0 || met["new"] == 0 {
		w.t.Errorf("after %d lines, written to %v, the run is %s in row %s: %s", len(wrote), met, r.State, r.Row, r.Reason)
	}
	w.t.Logf("resumed %d times; %d lines, written to %v", resumed, len(wrote), met)
	w.ok("rollback", uuid, "--wait")
	now = w.read(path)
	for _, line := range wrote {
		now = strings.Replace(now, line+"\n", "", 1)
	}
	if now != before {
		w.t.Errorf("without the lines of others the file is\n%s\nwant\n%s", now, before)
	}
	w.rename(path, []byte(before))
}

func (w *world) appendLine(path, line string) {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(line + "\n")
		_ = f.Close()
	}
	if err != nil {
		w.t.Error(err)
	}
}

// rename gives a file new content, as configuration managers do.
func (w *world) rename(path string, text []byte) {
	temp := filepath.Join(w.dir, ".new")
	err := os.WriteFile(temp, text, 0o600)
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		w.t.Error(err)
	}
}
