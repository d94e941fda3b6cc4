package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

func hasFinding(k keyJSON, kind string) bool {
	return slices.ContainsFunc(k.Findings, func(f findingJSON) bool { return f.Kind == kind })
}

// The main job, on real servers: a key that several accounts accept, with
// options, is rotated, and rolled back byte for byte.
func TestRotateAndRollBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	_, stranger := w.dir, w.keyFile(w.dir+"/stranger", "stranger@elsewhere")
	before := make([]string, len(w.servers))
	for i, s := range w.servers {
		f, err := os.OpenFile(w.authorized(i), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(f, "# kept\n%s  two  blanks\nno-pty,command=\"echo \\\"hi\\\"\"  %s deploy@ci\r\n%s last", stranger, deploy, stranger)
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		before[i] = w.read(w.authorized(i))
		_ = s
	}
	w.ok("scan", "--wait")
	if k := w.key(deploy); !hasFinding(k, "orphaned") {
		t.Errorf("the scan found of a key whose private half is nowhere %+v", k.Findings)
	}
	w.ok("key", "import", w.dir+"/deploy")
	old := w.key(deploy)
	if len(old.Authorized) != 3 || old.Custody != "held" || hasFinding(old, "orphaned") {
		t.Fatalf("the scan found %+v", old)
	}
	preview := w.ok("rotate", old.UUID, "--dry-run")
	if !strings.Contains(preview, "(new key)") || strings.Count(preview, "\n-no-pty") != 3 {
		t.Errorf("dry run printed\n%s", preview)
	}
	for i := range w.servers {
		if w.read(w.authorized(i)) != before[i] {
			t.Fatal("a dry run changed a file")
		}
	}

	var done struct {
		Run, State string
		Keys       []struct {
			Old string
			New []string
		}
		Left []string
	}
	w.json(&done, "rotate", old.UUID, "--wait", "--soak", "0s")
	if done.State != "done" || len(done.Keys) != 1 || len(done.Keys[0].New) != 1 || len(done.Left) != 0 {
		t.Fatalf("rotated: %+v", done)
	}
	var next keyJSON
	w.json(&next, "key", "show", done.Keys[0].New[0])
	for i := range w.servers {
		now := w.read(w.authorized(i))
		want := strings.Replace(before[i], deploy.String(), next.PublicKey, 1)
		if now != want {
			t.Errorf("web%d holds\n%q\nwant\n%q", i+1, now, want)
		}
		w.nothingLeft(i)
	}
	if k := w.key(deploy); k.State != "rotated" || len(k.Authorized) != 0 || len(k.ReplacedBy) != 1 || len(k.Findings) != 0 {
		t.Errorf("the old key is %+v", k)
	}

	w.json(&done, "rollback", old.UUID, "--wait")
	if done.State != "done" {
		t.Fatalf("rolled back: %+v", done)
	}
	for i := range w.servers {
		if now := w.read(w.authorized(i)); now != before[i] {
			t.Errorf("web%d holds\n%q\nwant as before\n%q", i+1, now, before[i])
		}
		w.nothingLeft(i)
	}
	if k := w.key(deploy); k.State != "active" || len(k.Authorized) != 3 {
		t.Errorf("the key that came back is %+v", k)
	}
}

// A key that stands in two files of an account is accepted until both are without
// it: they are rotated together, however small the canary, there and back.
func TestKeyInTwoFilesOfAnAccount(t *testing.T) {
	t.Parallel()
	need.Long(t)
	files := []string{".ssh/authorized_keys", ".ssh/authorized_keys2"}
	w := newWorldOf(t, lab.Options{AuthorizedKeysFiles: files}, lab.Options{AuthorizedKeysFiles: files})
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	var paths, before []string
	for _, s := range w.servers {
		w.write(s.AuthorizedKeysFiles()[1], "")
		for _, path := range s.AuthorizedKeysFiles() {
			w.appendLine(path, deploy.String()+" deploy@ci")
			paths, before = append(paths, path), append(before, w.read(path))
		}
	}
	w.ok("scan", "--wait")
	w.ok("key", "import", w.dir+"/deploy")
	old := w.key(deploy)
	if len(old.Authorized) != 4 {
		t.Fatalf("the scan found %+v", old)
	}
	w.ok("rotate", old.UUID, "--wait", "--soak", "0s", "--canary", "1")
	for _, path := range paths {
		if strings.Contains(w.read(path), deploy.String()) {
			t.Errorf("%s still holds the old key", path)
		}
	}
	w.ok("rollback", old.UUID, "--wait")
	for i, path := range paths {
		if now := w.read(path); now != before[i] {
			t.Errorf("%s holds\n%q\nwant as before\n%q", path, now, before[i])
		}
	}
}

// nothingLeft checks that no lock or temporary file lies beside a server's keys.
func (w *world) nothingLeft(i int) {
	w.t.Helper()
	entries, err := os.ReadDir(strings.TrimSuffix(w.authorized(i), "/authorized_keys"))
	if err != nil {
		w.t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "keyturn") {
			w.t.Errorf("web%d has %s left beside its keys", i+1, e.Name())
		}
	}
}

// A place that is left while its host answers keeps no lock of the run that has ended,
// neither on the way there nor on the way back.
func TestLeftPlaceKeepsNoLock(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	k := w.heldKey(deploy, w.dir+"/deploy", "no-pty")
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--soak", "5s")
	w.await(run.Run, soaks)
	w.ok("run", "leave", run.Run, "web2")
	w.await(run.Run, func(r runJSON) bool { return r.State == "partial" })
	w.nothingLeft(0)
	w.nothingLeft(1)
	w.ok("rollback", k.UUID, "--wait", "--soak", "0s")
	w.nothingLeft(1)

	if err := w.servers[1].Lie(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.json(&run, "rotate", k.UUID, "--soak", "0s")
	w.held(run.Run, "Prove", "web2")
	w.ok("run", "leave", run.Run, "web2")
	w.await(run.Run, func(r runJSON) bool { return r.State == "partial" && r.Direction == "back" })
	w.nothingLeft(0)
	w.nothingLeft(1)
}

// Keyturn's own login is a key like others: it is rotated over connections that
// the other one opened, and hosts stay open throughout.
func TestRotateOwnLogin(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	w.ok("scan", "--wait")
	var hosts []hostJSON
	w.json(&hosts, "host", "list")
	old := hosts[0].Credentials[0].Key
	before := w.read(w.authorized(0))
	w.ok("rotate", old, "--wait", "--soak", "0s")
	hosts = nil
	w.json(&hosts, "host", "list")
	for _, h := range hosts {
		if len(h.Credentials) != 1 || h.Credentials[0].Key == old || h.Credentials[0].LastWorked == nil {
			t.Errorf("%s is opened by %+v, want by the new key alone, which was seen to", h.Name, h.Credentials)
		}
	}
	w.stop()
	w.start() // connections that are kept would hide that the new key does not work
	w.ok("scan", "--wait")
	w.json(&hosts, "host", "list")
	for _, h := range hosts {
		if h.Scan.Outcome == "unreachable" {
			t.Errorf("%s cannot be reached any more: %s", h.Name, h.Scan.Why)
		}
	}
	w.ok("rollback", old, "--wait")
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("rolled back to\n%s\nwant\n%s", now, before)
	}
	w.ok("scan", "--wait")
}

// A key without a successor goes from every file, and comes back to where it
// stood. A host's last credential does not go.
func TestRetireAndRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	gone := w.keyFile(w.dir+"/gone", "gone@laptop")
	other := w.keyFile(w.dir+"/other", "stays")
	before := make([]string, 2)
	for i, s := range w.servers {
		for _, k := range []struct{ options string }{{""}, {"no-pty"}} {
			if err := s.Authorize(gone, k.options); err != nil {
				t.Fatal(err)
			}
			if err := s.Authorize(other, k.options); err != nil {
				t.Fatal(err)
			}
		}
		before[i] = w.read(w.authorized(i))
	}
	w.ok("scan", "--wait")
	uuid := w.key(gone).UUID
	if code, _, errs := w.try("rotate", uuid); code != 1 || !strings.Contains(errs, "keyturn retire") {
		t.Errorf("rotating a key that nobody holds: exit %d, %s", code, errs)
	}
	if code, _, errs := w.try("rotate", "nope"); code != 1 || !strings.Contains(errs, "hint: keyturn key list") {
		t.Errorf("rotating what is no key: exit %d, %s", code, errs)
	}
	ops := w.key(w.parse(w.heldBy(w.ops)))
	if code, _, errs := w.try("retire", ops.UUID); code != 1 || !strings.Contains(errs, `nothing else opens host "web`) {
		t.Errorf("retiring what opens every host: exit %d, %s", code, errs)
	}
	if _, _, errs := w.try("retire", ops.UUID); strings.Contains(errs, "will no longer open") {
		t.Errorf("a retirement that was refused says what it does:\n%s", errs)
	}
	if now := w.key(w.parse(ops.PublicKey)); now.State != "active" || now.Run != "" {
		t.Errorf("a key that was not retired is %+v", now)
	}
	if out := w.ok("retire", uuid, "--wait"); !strings.Contains(out, uuid+" is retired\n") || strings.Contains(out, "->") {
		t.Errorf("retire says\n%s", out)
	}
	for i := range w.servers {
		if now := w.read(w.authorized(i)); strings.Contains(now, gone.String()) || strings.Count(now, other.String()) != 2 {
			t.Errorf("web%d holds\n%s", i+1, now)
		}
		w.nothingLeft(i)
	}
	if out := w.ok("rollback", uuid, "--wait"); !strings.Contains(out, uuid+" is back\n") || strings.Contains(out, "->") {
		t.Errorf("rollback says\n%s", out)
	}
	for i := range w.servers {
		if now := w.read(w.authorized(i)); now != before[i] {
			t.Errorf("web%d holds\n%s\nwant\n%s", i+1, now, before[i])
		}
		w.nothingLeft(i)
	}
	var hosts []hostJSON
	w.json(&hosts, "host", "list")
	code, _, errs := w.try("retire", hosts[0].Credentials[0].Key, "--wait")
	if code == 0 || !strings.Contains(errs, "nothing else opens host") {
		t.Errorf("retiring the only key that opens the hosts: exit %d, %s", code, errs)
	}
}

// A host that does not answer is waited for, and can be left; a run that is
// taken back before it installed anything leaves every byte as it was.
func TestWaitLeaveAndGoBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	for _, s := range w.servers {
		if err := s.Authorize(deploy, "no-pty"); err != nil {
			t.Fatal(err)
		}
	}
	before := []string{w.read(w.authorized(0)), w.read(w.authorized(1))}
	w.ok("key", "import", w.dir+"/deploy")
	w.ok("scan", "--wait")
	uuid := w.key(deploy).UUID
	w.servers[1].Stop()
	var run startedJSON
	w.json(&run, "rotate", uuid, "--soak", "0s")
	w.await(run.Run, func(r runJSON) bool { return len(r.Troubled) == 1 && r.Troubled[0].State == "waiting" })
	if code, _, errs := w.try("rotate", uuid); code != 0 {
		t.Errorf("asked again, the same rotation is %d, %s", code, errs)
	}
	if err := w.servers[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	w.ok("rollback", uuid, "--wait")

	if err := w.servers[1].Lie(t.Context()); err != nil {
		t.Fatal(err)
	}
	code, _, errs := w.try("rotate", uuid, "--wait", "--soak", "0s")
	if code == 0 || !strings.Contains(errs, "the new key does not open web2") {
		t.Fatalf("a host that lies: exit %d, %s", code, errs)
	}
	var runs []runJSON
	w.json(&runs, "run", "list", "--open")
	if len(runs) != 1 || runs[0].State != "held" {
		t.Fatalf("open runs: %+v", runs)
	}
	w.ok("run", "back", runs[0].Run, "--wait")
	w.await(runs[0].Run, func(r runJSON) bool { return r.State == "back" })
	for i := range w.servers {
		if now := w.read(w.authorized(i)); now != before[i] {
			t.Errorf("web%d holds\n%s\nwant\n%s", i+1, now, before[i])
		}
		w.nothingLeft(i)
	}
	if k := w.key(deploy); k.State != "active" || len(k.ReplacedBy) != 0 {
		t.Errorf("after the way back the key is %+v", k)
	}
}

// The way back of a run that has installed soaks as long as the way there did,
// or as long as whoever asks for it says.
func TestSoakOfTheWayBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	if err := w.servers[0].Authorize(deploy, ""); err != nil {
		t.Fatal(err)
	}
	w.ok("key", "import", w.dir+"/deploy")
	w.ok("scan", "--wait")
	uuid := w.key(deploy).UUID
	before := w.read(w.authorized(0))
	soaking := func(r runJSON) bool {
		return r.Row == "Soak" && r.Until != nil && time.Until(*r.Until) > 50*time.Minute
	}

	var there startedJSON
	w.json(&there, "rotate", uuid, "--soak", "1h")
	w.await(there.Run, soaking)
	if code, _, errs := w.try("run", "back", there.Run, "--soak", "a while"); code == 0 || !strings.Contains(errs, "is not a duration") {
		t.Errorf("--soak 'a while': exit %d, %s", code, errs)
	}
	w.ok("run", "back", there.Run, "--soak", "0s", "--wait")
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("back, the file holds\n%s\nwant\n%s", now, before)
	}

	w.json(&there, "rotate", uuid, "--soak", "1h")
	w.await(there.Run, soaking)
	var back startedJSON
	w.json(&back, "run", "back", there.Run)
	w.await(back.Run, soaking)

	w.ok("run", "back", back.Run, "--soak", "0s", "--wait")
}

// What a person is to be asked before the old key goes is asked also where the host
// did not answer when the soak ended: that an attempt failed for that told nobody
// anything, and neither did whoever said "try now".
func TestAskedAlthoughTheHostWasDown(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	k := w.heldKey(deploy, w.dir+"/deploy", "no-pty")
	path := w.authorized(0)
	old := w.read(path)
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--soak", actedIn)
	w.await(run.Run, func(r runJSON) bool { return r.Row == "Soak" && r.Until != nil })
	w.servers[0].Kill()
	w.rename(path, []byte(old))
	unreachable := func(r runJSON) bool {
		return r.Row == "Reprove" && len(r.Troubled) == 1 && r.Troubled[0].State == "waiting"
	}
	w.await(run.Run, unreachable)
	w.ok("run", "resume", run.Run)
	w.await(run.Run, unreachable)
	if err := w.servers[0].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.held(run.Run, "Reprove", "somebody took the new key out of")
	if now := w.read(path); now != old {
		t.Fatalf("nobody was asked, and the file is\n%s\nwant\n%s", now, old)
	}
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	if now := w.read(path); strings.Count(now, "no-pty ") != 1 || now == old {
		t.Errorf("after the run is resumed the file is\n%s", now)
	}
}

// Two runs over the same files, of which the later one could take the lock that the
// earlier one still wants: the host was down when that came by. The later one waits,
// for the earlier one by name, and both end.
func TestLaterRunsWaitForEarlierOnes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 3)
	first, second := w.keyFile(w.dir+"/first", "first@ci"), w.keyFile(w.dir+"/second", "second@ci")
	w.ok("key", "import", w.dir+"/second")
	for _, s := range w.servers[1:] {
		if err := s.Authorize(second, ""); err != nil {
			t.Fatal(err)
		}
	}
	earlier, later := w.heldKey(first, w.dir+"/first", "").UUID, w.key(second).UUID

	w.servers[1].Kill()
	var one, two startedJSON
	w.json(&one, "rotate", earlier, "--soak", "0s", "--canary", "3")
	w.await(one.Run, func(r runJSON) bool { return r.State == "waiting" && len(r.Troubled) == 1 })
	w.ok("run", "pause", one.Run)
	if err := w.servers[1].Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.json(&two, "rotate", later, "--soak", "0s", "--canary", "3")
	waits := w.await(two.Run, func(r runJSON) bool { return r.State == "waiting" })
	if len(waits.Troubled) != 2 {
		t.Errorf("the later run waits for %+v", waits.Troubled)
	}
	for _, x := range waits.Troubled {
		if !strings.Contains(x.Error, "waits for run "+one.Run) || !strings.Contains(x.Error, " and is paused; keyturn run show "+one.Run) {
			t.Errorf("the later run says at %s: %s", x.Place, x.Error)
		}
	}
	w.ok("run", "resume", one.Run)
	w.await(one.Run, func(r runJSON) bool { return r.State == "done" })
	w.await(two.Run, func(r runJSON) bool { return r.State == "done" })
	for i := range w.servers {
		if now := w.read(w.authorized(i)); strings.Contains(now, first.String()) || strings.Contains(now, second.String()) {
			t.Errorf("web%d holds\n%s", i+1, now)
		}
		w.nothingLeft(i)
	}
}

// A run that is urgent waits for one that soaks over the same file, says until when, and
// how to give that one up; then it goes on by itself.
func TestUrgentRunBehindASoak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	first, second := w.keyFile(w.dir+"/first", "first"), w.keyFile(w.dir+"/second", "second")
	w.heldKey(second, w.dir+"/second", "")
	k := w.heldKey(first, w.dir+"/first", "")
	var one, two startedJSON
	w.json(&one, "rotate", k.UUID, "--soak", "48h")
	w.await(one.Run, soaks)
	w.json(&two, "rotate", w.key(second).UUID, "--compromised", "--yes")
	waits := w.await(two.Run, func(r runJSON) bool { return r.State == "waiting" })
	if !strings.Contains(waits.Reason, "waits for run "+one.Run) || !strings.Contains(waits.Reason, " and soaks until ") {
		t.Errorf("the urgent run says: %s", waits.Reason)
	}
	_, back, _ := strings.Cut(waits.Reason, "; keyturn run back ")
	command, _, found := strings.Cut(back, " gives it up")
	if !found {
		t.Fatalf("the urgent run says: %s", waits.Reason)
	}
	w.ok(append([]string{"run", "back"}, strings.Fields(command)...)...)
	w.await(two.Run, func(r runJSON) bool { return r.State == "done" })
	if now := w.read(w.authorized(0)); !strings.Contains(now, first.String()) || strings.Contains(now, second.String()) {
		t.Errorf("web1 holds\n%s", now)
	}
	w.nothingLeft(0)
}

// A run waits for one that soaks where that changes the file, and says so without a
// terminal, too; where that leaves the file as it is, nobody waits.
func TestNobodyWaitsForAPlaceThatStays(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 2)
	first, second, third := w.keyFile(w.dir+"/first", "first"), w.keyFile(w.dir+"/second", "second"), w.keyFile(w.dir+"/third", "third")
	for i, key := range []trust.PublicKey{second, third} {
		if err := w.servers[1-i].Authorize(key, ""); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("key", "import", w.dir+"/second")
	w.ok("key", "import", w.dir+"/third")
	k := w.heldKey(first, w.dir+"/first", "", "no-such-option") // web2 ignores its line
	var one startedJSON
	w.json(&one, "rotate", k.UUID, "--soak", "48h")
	w.await(one.Run, soaks)

	w.ok("rotate", w.key(second).UUID, "--soak", "0s", "--wait")
	if now := w.read(w.authorized(1)); strings.Contains(now, second.String()) || !strings.Contains(now, first.String()) {
		t.Errorf("web2 holds\n%s", now)
	}

	errs, end := io.Pipe()
	go func() {
		run(t.Context(), w.environ, []string{"rotate", w.key(third).UUID, "--soak", "0s", "--wait"}, strings.NewReader(""), io.Discard, end)
		end.Close()
	}()
	var said []string
	for lines := bufio.NewScanner(errs); lines.Scan(); {
		said = append(said, lines.Text())
		if strings.Contains(lines.Text(), " waits: ") {
			w.ok("run", "back", one.Run, "--soak", "0s", "--wait")
		}
	}
	if len(said) != 1 || !strings.Contains(said[0], "waits for run "+one.Run) || !strings.Contains(said[0], " and soaks until ") {
		t.Errorf("--wait says\n%s", strings.Join(said, "\n"))
	}
	if now := w.read(w.authorized(0)); strings.Contains(now, third.String()) || !strings.Contains(now, first.String()) {
		t.Errorf("web1 holds\n%s", now)
	}
	w.nothingLeft(0)
	w.nothingLeft(1)
}
