package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// This file proves what is there after runs that take back were themselves taken
// back.

// wanted authorizes a key that nobody holds on every server, and returns it with
// what each authorized_keys file holds then.
func (w *world) wanted() (public trust.PublicKey, uuid string, before []string) {
	w.t.Helper()
	public = w.keyFile(w.dir+"/gone", "gone@laptop")
	for i, s := range w.servers {
		if err := s.Authorize(public, "no-pty"); err != nil {
			w.t.Fatal(err)
		}
		before = append(before, w.read(w.authorized(i)))
	}
	w.ok("scan", "--wait")
	return public, w.key(public).UUID, before
}

// latest returns the newest run of a procedure.
func (w *world) latest(procedure string) string {
	w.t.Helper()
	var runs []runJSON
	w.json(&runs, "run", "list")
	for _, r := range runs {
		if r.Procedure == procedure {
			return r.Run
		}
	}
	w.t.Fatalf("no run of %s among %+v", procedure, runs)
	return ""
}

// The way back of a restoration takes away what the restoration put there, and
// no other line of the key: neither where the retirement was left out, nor one
// that somebody has added since.
func TestUndoneRestoreTakesOnlyItsOwnLines(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 2)
	gone, uuid, before := w.wanted()
	w.servers[1].Stop()
	var retired startedJSON
	w.json(&retired, "retire", uuid)
	w.await(retired.Run, func(r runJSON) bool { return len(r.Troubled) == 1 && r.Troubled[0].State == "waiting" })
	if out := w.ok("run", "leave", retired.Run, "--unreachable"); !strings.Contains(out, "goes on without 1 place\n") {
		t.Errorf("leaving the one place that does not answer says\n%s", out)
	}
	w.await(retired.Run, func(r runJSON) bool { return r.State == "partial" })
	if err := w.servers[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ok("rollback", uuid, "--wait")
	if now := w.read(w.authorized(0)); now != before[0] {
		t.Errorf("restored, web1 holds\n%s\nwant\n%s", now, before[0])
	}
	w.appendLine(w.authorized(0), "restrict "+gone.String()+" by hand")
	w.ok("run", "back", w.latest("restore"), "--wait")
	if now := w.read(w.authorized(1)); now != before[1] {
		t.Errorf("web2, which no run has changed, holds\n%s\nwant\n%s", now, before[1])
	}
	if now := w.read(w.authorized(0)); strings.Count(now, gone.String()) != 1 || !strings.Contains(now, "restrict "+gone.String()+" by hand\n") {
		t.Errorf("web1 holds\n%s\nwant the line of the key that was added by hand, and no other", now)
	}
	w.nothingLeft(0)
}

// A line that stood twice in a file comes back twice, and where it stood.
func TestRestoreLineThatStoodTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	gone, uuid, _ := w.wanted()
	w.appendLine(w.authorized(0), "# between")
	w.appendLine(w.authorized(0), "no-pty "+gone.String())
	w.appendLine(w.authorized(0), "# after")
	before := w.read(w.authorized(0))
	if strings.Count(before, "no-pty "+gone.String()+"\n") != 2 {
		t.Fatalf("web1 holds\n%s", before)
	}
	w.ok("retire", uuid, "--wait")
	w.ok("rollback", uuid, "--wait")
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("restored, web1 holds\n%s\nwant\n%s", now, before)
	}
}

// A key whose restoration was taken back is retired, and can be restored again,
// as often as anybody likes.
func TestRestoreAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	gone, uuid, before := w.wanted()
	w.ok("retire", uuid, "--wait")
	for range 2 {
		w.ok("rollback", uuid, "--wait")
		if now := w.read(w.authorized(0)); now != before[0] {
			t.Fatalf("restored, web1 holds\n%s\nwant\n%s", now, before[0])
		}
		w.ok("run", "back", w.latest("restore"), "--wait")
		if now := w.read(w.authorized(0)); strings.Contains(now, gone.String()) {
			t.Errorf("the restoration went back, and web1 holds\n%s", now)
		}
		if k := w.key(gone); k.State != "retired" {
			t.Errorf("the restoration went back, and the key is %s", k.State)
		}
		if r := w.await(w.latest("retire"), runJSON.ended); r.State != "done" || r.BackBy != "" {
			t.Errorf("the retirement whose restoration went back is %+v", r)
		}
	}
	w.ok("rollback", uuid, "--wait")
	if k := w.key(gone); k.State != "active" || w.read(w.authorized(0)) != before[0] {
		t.Errorf("in the end the key is %s, and web1 holds\n%s\nwant\n%s", k.State, w.read(w.authorized(0)), before[0])
	}
}

// A rotation that was taken back, and whose way back was taken back, can be taken
// back again.
func TestRollBackAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	k := w.heldKey(deploy, w.dir+"/deploy", "no-pty")
	before := w.read(w.authorized(0))
	w.ok("rotate", k.UUID, "--wait", "--soak", "0s")
	rotated := w.read(w.authorized(0))
	for range 2 {
		w.ok("rollback", k.UUID, "--wait")
		if now := w.read(w.authorized(0)); now != before {
			t.Fatalf("rolled back, web1 holds\n%s\nwant\n%s", now, before)
		}
		w.ok("run", "back", w.latest("rotate"), "--wait")
		if now := w.read(w.authorized(0)); now != rotated {
			t.Errorf("the rollback went back, and web1 holds\n%s\nwant\n%s", now, rotated)
		}
	}
	w.ok("rollback", k.UUID, "--wait")
	if now := w.key(deploy); now.State != "active" || w.read(w.authorized(0)) != before {
		t.Errorf("in the end the key is %s, and web1 holds\n%s\nwant\n%s", now.State, w.read(w.authorized(0)), before)
	}
}

// A retirement that was held halfway is held again, and can go on, once the run
// that had restored everything is itself taken back.
func TestHeldRetirementGoesOnAfterItsRestoreWentBack(t *testing.T) {
	t.Parallel()
	granted := filepath.Join(t.TempDir(), "granted")
	if err := os.WriteFile(granted, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	cat := need.Program(t, "cat", "coreutils")
	w := newWorldOf(t, lab.Options{Config: []string{"AuthorizedKeysCommand " + cat + " " + granted, "AuthorizedKeysCommandUser root"}})
	gone, uuid, before := w.wanted()
	if err := os.WriteFile(granted, []byte(gone.String()+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var retired startedJSON
	w.json(&retired, "retire", uuid)
	w.held(retired.Run, "Disprove", "AuthorizedKeysCommand")
	w.ok("run", "back", retired.Run, "--wait")
	if r := w.await(retired.Run, runJSON.ended); r.State != "back" || w.read(w.authorized(0)) != before[0] {
		t.Fatalf("restored, the retirement is %+v, and web1 holds\n%s\nwant\n%s", r, w.read(w.authorized(0)), before[0])
	}
	w.ok("run", "back", w.latest("restore"), "--wait")
	w.await(retired.Run, func(r runJSON) bool { return r.State == "held" && r.BackBy == "" && r.EndedAt == nil })
	if err := os.WriteFile(granted, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	w.ok("run", "resume", retired.Run)
	w.await(retired.Run, func(r runJSON) bool { return r.State == "done" })
	w.ok("rollback", uuid, "--wait")
	if now := w.read(w.authorized(0)); now != before[0] {
		t.Errorf("rolled back, web1 holds\n%s\nwant\n%s", now, before[0])
	}
}

// A host is left by its name, with every place on it; where nothing else was to be
// done, nothing is to be put back either.
func TestLeaveHost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	gone, uuid, before := w.wanted()
	w.servers[0].Stop()
	var retired startedJSON
	w.json(&retired, "retire", uuid)
	w.await(retired.Run, func(r runJSON) bool { return len(r.Troubled) == 1 && r.Troubled[0].State == "waiting" })
	if code, _, errs := w.try("run", "leave", retired.Run, "web9"); code != 1 || !strings.Contains(errs, `"web9"`) {
		t.Errorf("leaving a host that there is not: exit %d, %s", code, errs)
	}
	if out := w.ok("run", "leave", retired.Run, "web1"); !strings.Contains(out, "goes on without 1 place\n") {
		t.Errorf("leaving a host with one place says\n%s", out)
	}
	w.await(retired.Run, func(r runJSON) bool { return r.State == "partial" && len(r.Left) == 1 })
	if err := w.servers[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ok("rollback", uuid, "--wait")
	if k := w.key(gone); k.State != "active" || w.read(w.authorized(0)) != before[0] {
		t.Errorf("the key is %s, and web1 holds\n%s\nwant\n%s", k.State, w.read(w.authorized(0)), before[0])
	}
}

// The line of a key that was rotated or retired appears again: retire takes it away,
// run back puts that line back, and what rollback brings back is what lay there first.
func TestRetireAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	gone, uuid, before := w.wanted()
	w.ok("retire", uuid, "--wait")
	bare := w.read(w.authorized(0))
	if code, _, errs := w.try("retire", uuid, "--wait"); code != 1 || !strings.Contains(errs, "is retired, not active") {
		t.Errorf("retiring a key that is retired and accepted nowhere: exit %d, %s", code, errs)
	}
	w.appendLine(w.authorized(0), "restrict "+gone.String())
	again := w.read(w.authorized(0))
	w.ok("scan", "--wait")
	if out := w.ok("finding", "list"); !strings.Contains(out, "still or again: keyturn retire "+uuid) {
		t.Errorf("the findings are\n%s", out)
	}
	w.ok("retire", uuid, "--wait")
	if now := w.read(w.authorized(0)); now != bare {
		t.Errorf("retired again, web1 holds\n%s\nwant\n%s", now, bare)
	}
	if out := w.ok("finding", "list"); strings.Contains(out, "still or again") {
		t.Errorf("retired again, the findings are\n%s", out)
	}
	w.ok("run", "back", w.latest("retire"), "--wait")
	if k := w.key(gone); k.State != "retired" || w.read(w.authorized(0)) != again {
		t.Errorf("the second retirement went back: the key is %s, and web1 holds\n%s\nwant\n%s", k.State, w.read(w.authorized(0)), again)
	}
	w.ok("retire", uuid, "--wait")
	w.ok("rollback", uuid, "--wait")
	if k := w.key(gone); k.State != "active" || w.read(w.authorized(0)) != before[0] {
		t.Errorf("rolled back, the key is %s, and web1 holds\n%s\nwant\n%s", k.State, w.read(w.authorized(0)), before[0])
	}
}

// A place that a rotation passed over does not keep anybody from taking its way back back
// in turn, and is passed over again; but not when the key opens it by then, or was put
// elsewhere: nobody is told that it is gone.
func TestRollBackPastAPlaceThatStays(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 3)
	first := w.keyFile(w.dir+"/first", "first")
	for i, options := range []string{"", "no-such-option"} { // web2 ignores its line
		if err := w.servers[i].Authorize(first, options); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("key", "import", w.dir+"/first")
	w.ok("scan", "--wait")
	old, stays := w.key(first).UUID, w.read(w.authorized(1))
	w.ok("rotate", old, "--soak", "0s", "--wait")
	next := w.replacedBy(old)
	for range 2 {
		w.ok("rollback", old, "--wait")
		if out := w.ok("rollback", next, "--wait"); !strings.Contains(out, "1 place stays as it was") {
			t.Errorf("rollback of the rollback says\n%s", out)
		}
		if now := w.read(w.authorized(1)); now != stays {
			t.Errorf("web2 holds\n%s\nwant\n%s", now, stays)
		}
		if strings.Contains(w.read(w.authorized(0)), first.String()) {
			t.Error("web1 has the old key after the rollback of the rollback")
		}
	}

	var back startedJSON
	w.json(&back, "rollback", old, "--soak", "48h")
	w.await(back.Run, soaks)
	if out := w.ok("run", "back", back.Run, "--soak", "0s", "--wait"); !strings.Contains(out, "1 place stays as it was") {
		t.Errorf("run back of the rollback in its soak says\n%s", out)
	}

	inUse := func(key, place string) {
		t.Helper()
		var r startedJSON
		w.json(&r, "rollback", key)
		w.held(r.Run, "Baseline", "in use in "+place)
		w.ok("run", "back", r.Run, "--wait")
	}
	w.ok("rollback", old, "--wait")
	w.write(w.authorized(1), strings.ReplaceAll(stays, "no-such-option ", ""))
	w.ok("scan", "--wait")
	inUse(next, "web2:")
	w.ok("rotate", old, "--soak", "0s", "--wait")
	if strings.Contains(w.read(w.authorized(1)), first.String()) {
		t.Error("web2 has the old key after another rotation")
	}
	var newest keyJSON
	w.json(&newest, "key", "show", w.replacedBy(old))
	if err := w.servers[2].Authorize(w.parse(newest.PublicKey), ""); err != nil {
		t.Fatal(err)
	}
	w.ok("scan", "--wait")
	inUse(old, "web3:")
}
