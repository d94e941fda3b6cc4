package main

import (
	"cmp"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/job"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// This file has sshd refuse a key that its files grant, by RevokedKeys, when a run has
// installed it.

// revokingWorld starts two servers, of which web2 refuses the keys in the file revoked.
func revokingWorld(t *testing.T) (w *world, revoked string) {
	t.Helper()
	revoked = filepath.Join(t.TempDir(), "revoked")
	(&world{t: t}).write(revoked, "")
	return newWorldOf(t, lab.Options{}, lab.Options{Config: []string{"RevokedKeys " + revoked}}), revoked
}

// successor returns the key that a rotation puts in the place of its first.
func (w *world) successor(run string) keyJSON {
	w.t.Helper()
	var r runJSON
	w.json(&r, "run", "show", run)
	var k keyJSON
	w.json(&k, "key", "show", r.Keys[0].New[0])
	return k
}

// What sshd itself does in a soak, however short that is, only a login shows: no byte of
// any file changes. The run is held before the old key is touched, and goes back.
func TestNewKeyRevokedInTheSoak(t *testing.T) {
	t.Parallel()
	w, revoked := revokingWorld(t)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "no-pty")
	before := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	var r startedJSON
	w.json(&r, "rotate", k.UUID, "--soak", actedIn)
	w.await(r.Run, func(r runJSON) bool { return r.Row == "Soak" && r.Until != nil })
	w.write(revoked, w.successor(r.Run).PublicKey+"\n")
	w.held(r.Run, "Reprove", "the new key does not open web2")
	if now := w.read(w.authorized(1)); !strings.Contains(now, deploy.String()) {
		t.Errorf("web2 refuses the new key, and the old one was withdrawn:\n%s", now)
	}
	w.ok("run", "back", r.Run, "--soak", "0s", "--wait")
	w.same(before)
}

// A way back is wanted where sshd refuses the key that goes: that is no reason to hold
// it. What comes back is proven before anything else is touched, as ever.
func TestRollBackFromARefusedKey(t *testing.T) {
	t.Parallel()
	w, revoked := revokingWorld(t)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "no-pty")
	before := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	var r startedJSON
	w.json(&r, "rotate", k.UUID, "--soak", "0s")
	w.await(r.Run, runJSON.ended)
	rotated := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	next := w.successor(r.Run)

	// Where the old key would not get in either, the other is not touched.
	w.write(revoked, next.PublicKey+"\n"+deploy.String()+"\n")
	var back startedJSON
	w.json(&back, "rollback", k.UUID, "--soak", "0s")
	w.held(back.Run, "Prove", "the new key does not open web2")
	w.ok("run", "back", back.Run, "--wait")
	w.same(rotated)

	w.write(revoked, next.PublicKey+"\n")
	w.ok("rollback", k.UUID, "--soak", "0s", "--wait")
	w.same(before)
	if now := w.key(deploy); now.State != "active" {
		t.Errorf("rolled back, the old key is %s", now.State)
	}

	// The way there again is a rotation like any other: it is held.
	w.json(&back, "run", "back", w.latest("rotate"))
	w.held(back.Run, "Prove", "the new key does not open web2")
	w.ok("run", "back", back.Run, "--wait")
	w.same(before)
}

// sshd comes to refuse the new key when the old one has been withdrawn: neither gets in
// any more. The way back mends it, in the account and where the private half lies.
func TestBackFromAKeyRevokedInWithdraw(t *testing.T) {
	t.Parallel()
	w := simWard(t, 3, nil)
	before := w.files()
	w.mu.Lock()
	w.fault = once("before do Disprove", func(w *ward) {
		key, _ := w.identityKey()
		w.hosts[1].(simHost).Revoke(key)
	})(w)
	w.mu.Unlock()
	run := w.rotate()
	if state, reason, _ := w.await(run); state != job.Held || !strings.Contains(reason, "Disprove") {
		t.Fatalf("the run is %s: %s", state, reason)
	}
	w.mustGoBack(run, w.back(run))
	w.wentBack(before)
	_, private, err := w.state()
	if err == nil {
		err = w.login(private)
	}
	if err != nil {
		t.Errorf("what the identity file holds does not get in: %v", err)
	}
}

// On the way back from a refused key, the key that comes back cannot be written to that
// account any more. To leave it must not bring back a key that opens it nowhere: the run
// goes back, and what the identity file holds goes on logging in everywhere.
func TestLeftOnTheWayBackFromARefusedKey(t *testing.T) {
	t.Parallel()
	t.Run("simulated", func(t *testing.T) {
		t.Parallel()
		w := simWard(t, 3, nil)
		refusing := w.hosts[1].(simHost)
		w.leftOnTheWayBack(func(key trust.PublicKey) { refusing.Revoke(key) }, func() { refusing.Fill() }, func() {
			refusing.Mend()
			refusing.Fill() // of the two faults this one stays
		})
	})
	t.Run("sshd", func(t *testing.T) {
		t.Parallel()
		need.Long(t)
		refusing, revoked := revokingWorld(t)
		w := newWard(&ward{world: refusing, hosts: []wardHost{labHost{refusing.servers[0]}, labHost{refusing.servers[1]}}}, nil)
		path := keysFile(w.hosts[1])
		if out, err := exec.Command("chattr", "-i", path).CombinedOutput(); err != nil {
			need.Skip(t, "chattr -i: %s", out)
		}
		t.Cleanup(func() { _ = exec.Command("chattr", "-i", path).Run() })
		w.leftOnTheWayBack(func(key trust.PublicKey) { w.write(revoked, key.String()+"\n") }, func() {
			if out, err := exec.Command("chattr", "+i", path).CombinedOutput(); err != nil {
				t.Errorf("chattr +i: %s", out)
			}
		}, func() { w.write(revoked, "") })
	})
}

// leftOnTheWayBack has the second host refuse the new key when the old one is gone, goes
// back, has its file not be written when its turn comes, ends the refusal, and leaves it.
func (w *ward) leftOnTheWayBack(refuse func(trust.PublicKey), fix, mend func()) {
	t := w.t
	t.Helper()
	at := func(point string, act func(w *ward)) {
		w.mu.Lock()
		w.fault = once(point, act)(w)
		w.mu.Unlock()
	}
	at("before do Disprove", func(w *ward) {
		key, _ := w.identityKey()
		refuse(key)
	})
	run := w.rotate()
	if state, reason, _ := w.await(run); state != job.Held || !strings.Contains(reason, "Disprove") {
		t.Fatalf("the run is %s: %s", state, reason)
	}
	rotated, _ := w.identityKey()
	at("before do Authorize", func(*ward) { fix() })
	back := w.back(run)
	for deadline := time.Now().Add(time.Minute); back == run && time.Now().Before(deadline); time.Sleep(20 * time.Millisecond) {
		// Something is in flight still: the run that goes back is planned when it has landed.
		back = cmp.Or(w.show(run).BackBy, run)
	}
	if state, reason, _ := w.await(back); state != job.Held || !strings.Contains(reason, "Authorize") {
		t.Fatalf("the way back is %s: %s", state, reason)
	}
	mend()
	w.mu.Lock()
	w.lost = nil // by the refusal, which no run has made
	w.mu.Unlock()

	var left struct {
		Back bool `json:"back"`
	}
	place := w.hosts[1].Name() + ":" + w.hosts[1].User() + ":" + keysFile(w.hosts[1])
	w.api(&left, http.MethodPost, "/runs/"+back+"/leave", map[string]any{"place": place})
	state, reason, _ := w.await(back)
	if direction := w.show(back).Direction; state != job.Partial || direction != "back" || !left.Back {
		t.Errorf("told that leaving goes back: %t; the way back went %s and is %s: %s", left.Back, direction, state, reason)
	}
	if now, _ := w.identityKey(); now != rotated {
		t.Errorf("the identity file holds %s, which the account that was left does not know", now.Fingerprint())
	}
	w.mu.Lock()
	w.check("the end", true)
	w.mu.Unlock()
	w.nobodyLost()
}

// same compares the authorized keys of all servers with what they were.
func (w *world) same(want []string) {
	w.t.Helper()
	for i := range w.servers {
		if now := w.read(w.authorized(i)); now != want[i] {
			w.t.Errorf("web%d holds\n%s\nwant\n%s", i+1, now, want[i])
		}
	}
}
