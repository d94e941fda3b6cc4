package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// Who asks for a rollback twice, because the first answer was lost, is told of the
// run that is under way: of one that turned back, and of one that takes back another.
func TestRollbackAskedTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "")
	var started startedJSON
	w.json(&started, "rotate", k.UUID, "--soak", "1h")
	w.await(started.Run, soaks)
	var r runJSON
	w.json(&r, "run", "show", started.Run)
	next := r.Keys[0].New[0]

	// What an open run is bringing in is nobody else's to change, or to judge.
	for _, args := range [][]string{{"rotate", next, "--dry-run"}, {"rotate", k.UUID, "--dry-run"}, {"rotate", next, "--compromised"}, {"rotate", next}, {"rotate", k.UUID, "--compromised", "--yes"}, {"retire", next}, {"retire", k.UUID}} {
		if code, out, errs := w.try(args...); code == 0 || !strings.Contains(errs, "is in run "+started.Run) || strings.Contains(errs, "is accepted in") {
			t.Errorf("keyturn %s: exit %d\n%s%s", strings.Join(args, " "), code, out, errs)
		}
	}

	twice := func(want string, args ...string) {
		t.Helper()
		w.ok("run", "pause", "--all")
		for range 2 {
			var out struct {
				Run string `json:"run"`
			}
			if w.json(&out, args...); want == "" {
				want = out.Run
			}
			if out.Run != want {
				t.Errorf("keyturn %s is run %s, want %s", strings.Join(args, " "), out.Run, want)
			}
			w.ok("run", "pause", "--all")
		}
		w.ok("run", "resume", want)
		w.await(want, runJSON.ended)
	}
	if out := w.ok("key", "show", next); !strings.Contains(out, "in run        "+started.Run) {
		t.Errorf("the key is shown without its run:\n%s", out)
	}
	twice("", "rollback", k.UUID, "--soak", "0s")
	w.json(&r, "rotate", k.UUID, "--wait", "--soak", "0s")
	twice("", "rollback", k.UUID, "--soak", "0s")
	w.json(&r, "rotate", k.UUID, "--wait", "--soak", "0s")
	twice("", "rollback", r.Keys[0].New[0], "--current", "--soak", "0s")
	w.json(&r, "retire", k.UUID, "--wait")
	twice("", "rollback", k.UUID, "--soak", "0s")

	// A way back that is under way does not soak otherwise because somebody asks again.
	w.json(&r, "rotate", k.UUID, "--wait", "--soak", "0s")
	var back runJSON
	w.json(&back, "rollback", k.UUID, "--soak", "1h")
	if code, out, errs := w.try("rollback", k.UUID, "--soak", "0s"); code == 0 || !strings.Contains(errs, "run "+back.Run+" brings key "+k.UUID+" back already, and soaks 1h0m0s") {
		t.Errorf("rollback with another soak: exit %d\n%s%s", code, out, errs)
	}
}

// A filter that is misspelt is not answered with nothing.
func TestMisspeltFilters(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	for path, says := range map[string]string{
		"/keys?state=rotate":    "rotated",
		"/keys?kind=users":      "user, host",
		"/hosts?mode=managed":   "enforced",
		"/hosts?state=gone":     "refused",
		"/findings?kind=unused": "orphaned",
	} {
		if status, p, _ := w.ask(w.token, "GET", path, ""); status != 422 || !strings.Contains(p.Detail, says) {
			t.Errorf("GET %s: %d %+v", path, status, p)
		}
	}
	if code, _, errs := w.try("key", "list", "--state", "rotate"); code != 1 || !strings.Contains(errs, "rotated") {
		t.Errorf("key list --state rotate: exit %d, %s", code, errs)
	}
	if code, _, errs := w.try("completion", "tcsh"); code != 2 || !strings.Contains(errs, `no command "tcsh"`) {
		t.Errorf("completion tcsh: exit %d, %s", code, errs)
	}
}

// All runs stop at a word, and go on at a word.
func TestPauseAndResumeAll(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "")
	var started startedJSON
	w.json(&started, "rotate", k.UUID, "--soak", "1h")
	w.await(started.Run, soaks)
	scan := w.latest("scan")
	before := w.ok("run", "show", scan)
	if code, _, errs := w.try("run", "back", scan); code != 1 || !strings.Contains(errs, "changed nothing that could be taken back") {
		t.Errorf("taking back a scan that is done: exit %d, %s", code, errs)
	}
	if now := w.ok("run", "show", scan); now != before {
		t.Errorf("the scan became\n%s", now)
	}
	if out := w.ok("run", "pause", "--all"); out != "runs paused: 1\n" {
		t.Errorf("pause --all says %q", out)
	}
	w.await(started.Run, func(r runJSON) bool { return r.State == "paused" })
	if out := w.ok("run", "resume", "--all"); out != "runs resumed: 1\n" {
		t.Errorf("resume --all says %q", out)
	}
	w.await(started.Run, soaks)
	if out := w.ok("run", "resume", "--all", "--json"); out != `{"resumed":0}`+"\n" {
		t.Errorf("with nothing to resume, it says %q", out)
	}
}

// A key that is in use is not retired without a question.
func TestRetireAsks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	before := w.read(w.authorized(0))
	code, _, errs := w.try("retire", k.UUID, "--wait")
	if code != 1 || !strings.Contains(errs, "who logs in with web1:root:"+identity+" is shut out") || !strings.Contains(errs, "add --yes") {
		t.Errorf("retire: exit %d\n%s", code, errs)
	}
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("nobody said yes, and the file became\n%s", now)
	}
	w.ok("retire", k.UUID, "--wait", "--yes")
}

// A rollback that would have to touch a host which was removed is refused by name, and
// done when the host was taken in again.
func TestRollbackOfRemovedHost(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 2)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "", "")
	before := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	for _, way := range []string{"rotate", "retire"} {
		args := []string{way, k.UUID, "--wait"}
		if way == "rotate" {
			args = append(args, "--soak", "0s")
		}
		w.ok(args...)
		w.ok("host", "remove", "web2")
		if code, out, errs := w.try("rollback", k.UUID, "--wait"); code != 1 || !strings.Contains(errs, `host "web2" is not known any more`) || !strings.Contains(errs, "keyturn host add web2") {
			t.Errorf("rollback without web2: exit %d\n%s%s", code, out, errs)
		}
		s := w.servers[1]
		w.ok("host", "add", "web2", "--address", s.Address(), "--login", s.User(), "--identity", w.ops, "--host-key", s.HostKey().String(), "--enforce")
		w.ok("rollback", k.UUID, "--wait", "--soak", "0s")
		for i, was := range before {
			if now := w.read(w.authorized(i)); now != was {
				t.Errorf("after %s and its rollback web%d holds\n%s\nwant\n%s", way, i+1, now, was)
			}
		}
	}
}

// A dry run does not wait for a host that is down, and says what else is in the way of
// what it shows.
func TestDryRunSaysWhatItNeeds(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	deploy := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(deploy, filepath.Join(w.dir, "deploy"), "", "")
	w.ok("host", "inventory", "web1")
	w.servers[1].Kill()
	// A file that has another name, too, cannot be changed.
	if err := os.Link(w.authorized(2), w.authorized(2)+".copy"); err != nil {
		t.Fatal(err)
	}
	out := w.ok("rotate", k.UUID, "--dry-run")
	for _, says := range []string{
		"web1:root:" + w.authorized(0) + ": a rotation would be refused", "keyturn host enforce web1", "+ssh-ed25519 (new key)", "web2:root:" + w.authorized(1) + ": a rotation would wait for it",
		"web3:root:" + w.authorized(2) + ": a rotation would be held: ",
	} {
		if !strings.Contains(out, says) {
			t.Errorf("the dry run does not say %q:\n%s", says, out)
		}
	}
}
