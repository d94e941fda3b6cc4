package main

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"keyturn/internal/job"
	"keyturn/internal/need"
)

// This file holds what becomes of identity files while the old key is being
// withdrawn, wave by wave.

// nth returns a fault that happens at the n-th instant that begins so.
func nth(n int, at string, act func()) func(string) {
	return func(point string) {
		if strings.HasPrefix(point, at) {
			if n--; n == 0 {
				act()
			}
		}
	}
}

// olds returns how many lines still hold the key that the ward began with.
func (w *ward) olds() (n int) {
	w.t.Helper()
	for _, h := range w.hosts {
		text, _, err := h.read(keysFile(h))
		if err != nil {
			w.t.Fatal(err)
		}
		n += strings.Count(string(text), w.key.String())
	}
	return n
}

// A restore puts the old key back into an identity file between two waves. The old
// key stays where it is still accepted, and what resumes the run puts the new one
// there again, first of all.
func TestIdentityRestoredBetweenWaves(t *testing.T) {
	need.Long(t)
	for _, back := range []bool{false, true} {
		t.Run(map[bool]string{false: "there", true: "back"}[back], func(t *testing.T) {
			t.Parallel()
			w := simWard(t, 4, nil)
			restored := func() {
				if err := w.hosts[0].write(w.identity, string(w.copied)); err != nil {
					t.Error(err)
				}
			}
			begin := func() string { return w.rotate() }
			if back {
				there := w.rotate()
				w.mustEnd(there, job.Done)
				begin = func() string { return w.back(there) }
			}
			w.moved()
			// Of four hosts one is the canary; in which order they are is by chance.
			w.mu.Lock()
			w.fault = nth(2, "before do Reprove", restored)
			w.mu.Unlock()
			run := begin()
			state, reason, _ := w.await(run)
			if state != job.Held || !strings.Contains(reason, "Withdraw") || !strings.Contains(reason, w.identity+" on web1 holds the old key again") {
				t.Fatalf("the run is %s: %s", state, reason)
			}
			if n := w.olds(); n == 0 || n == w.lines() {
				t.Errorf("the old key is accepted by %d lines of %d", n, w.lines())
			}
			w.awaitFailed(run, "Withdraw", 3) // the others of the wave
			w.resume(run)
			w.mustEnd(run, job.Done)
			_, private, err := w.state()
			if err != nil {
				t.Fatal(err)
			}
			if err := w.login(private); err != nil || w.olds() != 0 {
				t.Errorf("after the run, with what the file holds: %v; lines of the old key: %d", err, w.olds())
			}
		})
	}
}

// The host of an identity file does not answer between two waves: nobody can say what
// it will hold when it does. The run waits, and a person may leave the place by name.
func TestIdentityHostAwayBetweenWaves(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := simWard(t, 4, nil)
	w.mu.Lock()
	w.fault = nth(2, "before do Reprove", w.hosts[0].(simHost).Refuse)
	w.mu.Unlock()
	run := w.rotate()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		r := w.show(run)
		asked := strings.Contains(r.Reason, w.identity+" may hold the old key again, and cannot be asked")
		// By chance it is web1's own turn, which has to answer before that.
		if r.State == "waiting" && (asked || strings.Contains(r.Reason, "host web1: ")) {
			break
		}
		if r.ended() || r.State == "held" || time.Now().After(deadline) {
			t.Fatalf("the run is %+v", r)
		}
	}
	if n := w.olds(); n == 0 || n == w.lines() {
		t.Errorf("the old key is accepted by %d lines of %d", n, w.lines())
	}
	w.api(nil, http.MethodPost, "/runs/"+run+"/leave", map[string]any{"host": "web1"})
	w.mustEnd(run, job.Partial)
}

// awaitFailed polls a run until so many places have failed in a row of it.
func (w *ward) awaitFailed(run, row string, n int) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		r := w.show(run)
		for _, x := range r.Rows {
			if x.Name == row && x.Failed == n {
				return
			}
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("the run is %+v", r)
		}
	}
}

// resume lets a run go on.
func (w *ward) resume(run string) {
	w.t.Helper()
	w.api(nil, http.MethodPost, "/runs/"+run+"/resume", nil)
}
