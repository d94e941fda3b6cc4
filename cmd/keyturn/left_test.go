package main

import (
	"net/http"
	"strings"
	"testing"

	"keyturn/internal/job"
	"keyturn/internal/need"
	"keyturn/internal/rotation"
)

// This file leaves places at every row of the table, and takes the run back then.

// A place that is left at whatever row keeps nobody out, on the way on, and on the way
// back, which brings it back with the others. Where leaving it sends the run back, all
// that it may keep is a line of a key that nobody has.
func TestLeftAtEachRow(t *testing.T) {
	need.Long(t)
	rows := need.Share(t, 3,
		"Baseline", "Generate", "Authorize", "Prove", "Recheck", "Install", "Confirm",
		"Soak", "Reconfirm", "Reprove", "Withdraw", "Disprove", "Archive", "Release",
	)
	for _, row := range rows {
		for _, half := range []string{"authorized", "identity"} {
			t.Run(row+" "+half, func(t *testing.T) {
				t.Parallel()
				w := simWard(t, 3, nil)
				left := w.hosts[1].Name() + ":" + w.hosts[1].User() + ":" + keysFile(w.hosts[1])
				if half == "identity" {
					left = w.hosts[0].Name() + ":" + w.hosts[0].User() + ":" + w.identity
				}
				before := w.files()
				run := w.comeTo("before do " + row + " ")
				release := w.restart()
				var answer struct {
					Left int  `json:"left"`
					Back bool `json:"back"`
				}
				err := w.client.call(t.Context(), http.MethodPost, "/runs/"+run+"/leave", map[string]any{"place": left}, &answer)
				release()
				state, reason, _ := w.await(run)
				t.Logf("left: %v; the run is %s: %s", err, state, reason)
				if ended := state == job.Done || state == job.Partial; !ended || (err != nil) != (state == job.Done) {
					t.Fatalf("left: %v; the run is %s: %s", err, state, reason)
				}
				forward := w.show(run).Direction == "forward"
				if err == nil && answer.Back == forward {
					t.Errorf("the answer is %+v, and the run goes forward: %t", answer, forward)
				}
				if forward {
					w.mustGoBack(run, w.back(run))
					w.wentBack(before)
				} else {
					kept, _, err := w.hosts[1].read(keysFile(w.hosts[1]))
					if err == nil {
						err = w.hosts[1].write(keysFile(w.hosts[1]), w.without(kept, before[w.hosts[1].Name()+":"+keysFile(w.hosts[1])]))
					}
					if err != nil {
						t.Fatal(err)
					}
					w.same(before)
				}
				w.nobodyLost()
			})
		}
	}
}

// comeTo begins a rotation and has the node crash where an instant begins so.
func (w *ward) comeTo(instant string) (run string) {
	w.t.Helper()
	w.arm(-1)
	w.mu.Lock()
	w.until = instant
	w.mu.Unlock()
	run = w.rotate()
	if _, _, crashed := w.await(run); !crashed {
		w.t.Fatalf("the rotation did not come to %q", instant)
	}
	return run
}

// restart starts a node that has crashed, and holds it until release is called.
func (w *ward) restart() (release func()) {
	w.t.Helper()
	release = w.hold()
	w.stop()
	w.arm(-1)
	w.start()
	return release
}

// without returns a file without the lines that it did not have before.
func (w *ward) without(now []byte, before string) string {
	w.t.Helper()
	var kept strings.Builder
	for line := range strings.Lines(string(now)) {
		if strings.Contains(before, strings.TrimRight(line, "\r\n")) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// Each Undo takes something away that its row put there: without it, what a run that
// goes back leaves is not what was there before.
func TestMissingUndoIsSeen(t *testing.T) {
	need.Long(t)
	for _, row := range []string{"Baseline", "Authorize"} {
		t.Run(row, func(t *testing.T) {
			t.Parallel()
			w := simWard(t, 2, func(procedures []job.Procedure) {
				for i, p := range procedures {
					if p.Name != rotation.RotateProcedure {
						continue
					}
					for j, s := range p.Steps {
						if s.Name == row {
							procedures[i].Steps[j].Undo = nil
						}
					}
				}
			})
			before := w.files()
			run := w.comeTo("after do Recheck")
			release := w.restart()
			by := w.back(run)
			release()
			w.mustGoBack(run, by)
			if w.differs(before) == 0 {
				t.Errorf("without the Undo of %s everything is as it was before", row)
			}
			w.nobodyLost()
		})
	}
}

// differs returns how many files are not as they were before.
func (w *ward) differs(before map[string]string) (n int) {
	w.t.Helper()
	now := w.files()
	for path, text := range now {
		if before[path] != text {
			n++
		}
	}
	for path := range before {
		if _, ok := now[path]; !ok {
			n++
		}
	}
	return n
}

// The way back of a rotation that soaks is itself taken back, by Undo: the lines of the
// old key were there before it, and stay.
func TestLinesThatWereThereBeforeStay(t *testing.T) {
	need.Long(t)
	w := simWard(t, 3, nil)
	run := w.comeTo("before do Reconfirm")
	release := w.restart()
	soaking := w.files()
	w.mu.Lock()
	w.until = "after do Recheck"
	w.mu.Unlock()
	w.back(run)
	release()
	if _, _, crashed := w.await(run); !crashed {
		t.Fatal("the way back did not come to its Recheck")
	}
	release = w.restart()
	wayBack := w.show(run).BackBy
	again := w.back(wayBack)
	release()
	w.mustGoBack(wayBack, again)
	now := w.files()
	for _, h := range w.hosts {
		at := h.Name() + ":" + keysFile(h)
		if now[at] != soaking[at] {
			t.Errorf("%s is\n%q\nwant as in the soak\n%q", at, now[at], soaking[at])
		}
	}
	w.nobodyLost()
}
