package main

import (
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/oidc/oidctest"
)

// A person is who asks: a user in person, and a token of that user's.
type person struct{ user, token map[string]string }

// person adds a user who may do everything, and makes a token of that user's.
func (w *world) person(name string) person {
	w.t.Helper()
	admin := w.env
	w.stdin = "the password of " + name
	w.ok("user", "add", name, "--role", "administrator", "--password-stdin")
	p := person{user: map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": name, "KEYTURN_PASSWORD": w.stdin}}
	w.stdin, w.env = "", p.user
	var t tokenJSON
	w.json(&t, "token", "create", "ci of "+name, "--permission", "All")
	w.env = admin
	p.token = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": t.Token}
	return p
}

// With rotation.approval on, no key moves by what one person asks for, whatever
// credential that person has, and whatever else is asked of the run.
func TestRotationWaitsForApproval(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	public := w.keyFile(filepath.Join(w.dir, "deploy"), "deploy@ci")
	k := w.heldKey(public, filepath.Join(w.dir, "deploy"), "")
	alice, bob := w.person("alice"), w.person("bob")
	w.ok("settings", "set", "rotation.approval", "on")

	w.env = alice.user
	before := w.read(w.authorized(0))
	out := w.ok("rotate", k.UUID, "--soak", "0s")
	if !strings.Contains(out, "waits for approval by another user, until 20") {
		t.Errorf("rotate says %q", out)
	}
	var r runJSON
	var again startedJSON
	w.json(&again, "rotate", k.UUID, "--soak", "0s")
	w.json(&r, "run", "show", again.Run)
	if r.State != "waiting" || r.Reason != "waits for approval by another user" || r.ApproveBy == nil || r.Row != "" {
		t.Errorf("the run is %+v", r)
	}
	if out := w.ok("run", "list"); !strings.Contains(out, "waits for approval by another user") {
		t.Errorf("runs are listed as\n%s", out)
	}
	for _, self := range []map[string]string{alice.user, alice.token} {
		w.env = self
		w.refused("takes the approval of another user", "run", "approve", r.Run)
	}
	w.refused("waits for approval", "run", "resume", r.Run)
	w.ok("run", "pause", r.Run)
	w.ok("run", "resume", r.Run)
	// It has no place in the line: others rotate what lies beside it.
	ops := w.key(w.parse(w.heldBy(w.ops)))
	w.ok("settings", "set", "rotation.approval", "on")
	w.env = bob.user
	var other startedJSON
	w.json(&other, "rotate", ops.UUID, "--soak", "0s")
	w.env = alice.user
	w.ok("run", "approve", other.Run)
	w.ok("run", "watch", other.Run)
	w.refused("stays on", "settings", "set", "rotation.approval", "off")
	w.env = bob.user
	w.ok("settings", "approve", "rotation.approval") // which lets nothing begin that waits
	w.env = alice.user
	w.ok("settings", "set", "rotation.approval", "on")
	w.stop()
	w.start()
	for _, p := range []map[string]string{alice.user, alice.token, bob.user, bob.token} {
		p["KEYTURN_SERVER"] = w.client.server
	}
	if now := w.read(w.authorized(0)); !strings.Contains(now, public.String()) || strings.Count(now, "\n") != strings.Count(before, "\n") {
		t.Errorf("before it was approved, the run changed\n%sto\n%s", before, now)
	}

	// A token of another person's approves for that person.
	w.env = bob.token
	w.ok("run", "approve", r.Run)
	w.ok("run", "watch", r.Run)
	var done runJSON
	w.json(&done, "run", "show", r.Run)
	if done.State != "done" || !strings.HasPrefix(done.ApprovedBy, "token:") || done.ApproveBy != nil {
		t.Errorf("approved, the run is %+v", done)
	}
	w.refused("has ended: done", "run", "approve", r.Run)
	if strings.Contains(w.read(w.authorized(0)), public.String()) {
		t.Error("the old key is still accepted")
	}

	// Going back waits for nobody.
	w.env = alice.user
	w.ok("rollback", k.UUID, "--wait", "--soak", "0s")

	// So does what was withdrawn; and where the key was found in another place since,
	// the plan is no longer what was asked for.
	for _, args := range [][]string{{"rotate", k.UUID, "--compromised", "--yes"}, {"retire", k.UUID}} {
		var s startedJSON
		w.json(&s, args...)
		w.ok("run", "back", s.Run)
		if now := w.key(public); now.State != "active" {
			t.Errorf("after %q was withdrawn the key is %s", args, now.State)
		}
		w.env = bob.user
		w.refused("has ended: back", "run", "approve", s.Run)
		w.env = alice.user
	}
	w.write(w.authorized(1), strings.ReplaceAll(w.read(w.authorized(1)), public.String(), "#"))
	w.ok("scan", "--wait")
	for _, verb := range []string{"rotate", "retire"} {
		var s startedJSON
		w.json(&s, verb, k.UUID)
		if err := w.servers[1].Authorize(public, ""); err != nil {
			t.Fatal(err)
		}
		w.ok("scan", "--wait")
		w.env = bob.user
		w.refused("plan is stale", "run", "approve", s.Run)
		w.env = alice.user
		w.ok("run", "back", s.Run)
		w.write(w.authorized(1), strings.ReplaceAll(w.read(w.authorized(1)), public.String(), "#"))
		w.ok("scan", "--wait")
	}
}

// What two persons are there to prevent, one cannot switch off.
func TestApprovalIsSwitchedOffByTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	alice, bob := w.person("alice"), w.person("bob")
	value := func() (value string) {
		var list []settingJSON
		w.json(&list, "settings", "list")
		return list[slices.IndexFunc(list, func(s settingJSON) bool { return s.Name == "rotation.approval" })].Value
	}
	w.env = alice.user
	w.refused("nothing about setting:rotation.approval waits", "settings", "approve", "rotation.approval")
	w.ok("settings", "set", "rotation.approval", "on")
	for range 2 {
		w.refused("stays on until another user approves", "settings", "set", "rotation.approval", "off")
	}
	w.env = alice.token
	w.refused("takes the approval of another user", "settings", "approve", "rotation.approval")
	var list []approvalJSON
	w.json(&list, "approval", "list")
	if len(list) != 1 || list[0].AskedBy != "alice" || list[0].Subject != "setting:rotation.approval" || value() != "on" {
		t.Errorf("what waits is %+v, and the setting is %s", list, value())
	}
	if out := w.ok("approval", "list"); !strings.Contains(out, "set rotation.approval to off") || !strings.Contains(out, "keyturn settings approve rotation.approval") {
		t.Errorf("what waits is listed as\n%s", out)
	}
	w.env = bob.user
	w.ok("settings", "approve", "rotation.approval")
	if value() != "off" {
		t.Errorf("approved, the setting is %s", value())
	}
	w.json(&list, "approval", "list")
	if status, p, _ := w.ask(w.token, http.MethodPost, "/settings/rotation.approval/approve", ""); len(list) != 0 || status != http.StatusNotFound {
		t.Errorf("approved a second time: %d %+v, %+v", status, p, list)
	}
}

// waiting returns the one request about a subject that is listed.
func (w *world) waiting(subject string) (a approvalJSON) {
	w.t.Helper()
	var list []approvalJSON
	w.json(&list, "approval", "list")
	list = slices.DeleteFunc(list, func(a approvalJSON) bool { return a.Subject != subject })
	if len(list) != 1 {
		w.t.Fatalf("of %s there waits %+v", subject, list)
	}
	return list[0]
}

// What somebody asked for who was removed since is for nobody to approve, but to refuse.
func TestApprovalOfARemovedUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	file := filepath.Join(w.dir, "deploy")
	public := w.keyFile(file, "deploy@ci")
	k := w.heldKey(public, file, "")
	alice, bob := w.person("alice"), w.person("bob")
	w.ok("settings", "set", "rotation.approval", "on")
	w.env = alice.user
	w.refused("stays on", "settings", "set", "rotation.approval", "off")
	var s startedJSON
	w.json(&s, "rotate", k.UUID, "--soak", "0s")
	w.env = bob.user
	w.ok("user", "remove", "alice")
	w.refused("by a user who was removed since", "settings", "approve", "rotation.approval")
	w.refused("by a user who was removed since", "run", "approve", s.Run)
	setting, run := w.waiting("setting:rotation.approval"), w.waiting("run:"+s.Run)

	var auditor tokenJSON
	w.json(&auditor, "token", "create", "reads", "--permission", "Runs Read")
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_TOKEN": auditor.Token}
	w.refused(`"Settings Write"`, "approval", "refuse", setting.ID)
	w.refused(`"Runs Write"`, "approval", "refuse", run.ID)
	w.env = bob.token
	if out := w.ok("approval", "refuse", setting.ID); !strings.Contains(out, "refused: set rotation.approval to off") {
		t.Errorf("refused: %s", out)
	}
	w.ok("approval", "refuse", run.ID)
	w.refused("no request", "approval", "refuse", run.ID)
	var r runJSON
	if w.json(&r, "run", "show", s.Run); r.State != "back" {
		t.Errorf("refused, the run is %+v", r)
	}
	if out := w.ok("approval", "list"); strings.Contains(out, "rotation.approval") || w.key(public).State != "active" {
		t.Errorf("there waits\n%s, and the key is %s", out, w.key(public).State)
	}
	w.refused("nothing about setting:rotation.approval waits", "settings", "approve", "rotation.approval")
}

// An approval that was not made use of can be taken back; so can a request, by who asked.
func TestApprovalIsTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var k keyJSON
	w.json(&k, "key", "generate", "--comment", "deploy")
	alice, bob := w.person("alice"), w.person("bob")
	w.ok("settings", "set", "key.reveal-approval", "on")
	reveal := []string{"key", "reveal", k.UUID, "--no-passphrase", "--out", filepath.Join(w.dir, "out")}
	for _, refuses := range []person{bob, alice} {
		w.env = alice.user
		w.refused("has to approve", reveal...)
		w.env = bob.user
		w.ok("key", "approve-reveal", k.UUID, "alice")
		w.env = refuses.user
		w.ok("approval", "refuse", w.waiting("key:"+k.UUID).ID)
	}
	w.env = alice.user
	w.refused("has to approve", reveal...)
	w.env = bob.user
	w.ok("key", "approve-reveal", k.UUID, "alice")
	w.env = alice.user
	w.ok(reveal...)
}

// Whose job a machine does is not known, so that what one asks for takes two others.
func TestApprovalOfAMachine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	file := filepath.Join(w.dir, "deploy")
	k := w.heldKey(w.keyFile(file, "deploy@ci"), file, "")
	alice, bob := w.person("alice"), w.person("bob")
	idp := oidctest.Start(t)
	w.ok("provider", "add", "ci", "--kind", "machines", "--issuer", idp.URL, "--audience", "keyturn", "--rule", "sub=job -> Administrator")
	w.ok("settings", "set", "rotation.approval", "on")
	w.withoutCredential()
	w.stdin = idp.Token("keyturn", time.Now(), oidctest.Claims{"sub": "job"})
	w.ok("login", "--provider", "ci", "--jwt-stdin")
	w.stdin = ""
	var s startedJSON
	w.json(&s, "rotate", k.UUID, "--soak", "0s")
	w.refused("stays on", "settings", "set", "rotation.approval", "off")
	w.refused("takes the approval of another user", "run", "approve", s.Run)

	w.env = bob.user
	w.refused("your approval is written down", "run", "approve", s.Run)
	w.refused("your approval is written down", "settings", "approve", "rotation.approval")
	for _, self := range []map[string]string{bob.user, bob.token} {
		w.env = self
		w.refused("the approval of another user as well", "run", "approve", s.Run)
		w.refused("the approval of another user as well", "settings", "approve", "rotation.approval")
	}
	var r runJSON
	if w.json(&r, "run", "show", s.Run); r.State != "waiting" || w.waiting("run:"+s.Run).ApprovedAt != nil {
		t.Errorf("approved by one, the run is %+v", r)
	}
	w.env = alice.token
	w.ok("run", "approve", s.Run)
	w.ok("run", "watch", s.Run)
	w.env = alice.user
	w.ok("settings", "approve", "rotation.approval")
}

// A compromised key is let in again by two, where rotations take two. All other ways back
// wait for nobody.
func TestForcedBackTakesTwo(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	file := filepath.Join(w.dir, "deploy")
	public := w.keyFile(file, "deploy@ci")
	k := w.heldKey(public, file, "")
	alice, bob := w.person("alice"), w.person("bob")
	w.ok("settings", "set", "rotation.approval", "on")
	w.env = alice.user
	var s startedJSON
	w.json(&s, "rotate", k.UUID, "--compromised", "--yes", "--soak", "0s")
	w.env = bob.user
	w.ok("run", "approve", s.Run)
	w.ok("run", "watch", s.Run)

	w.env = alice.user
	force := []string{"rollback", k.UUID, "--force", "--soak", "0s", "--wait"}
	w.refused("marked as compromised", "rollback", k.UUID)
	for range 2 {
		w.refused("another user has to approve that you bring compromised keys back", force...)
	}
	for _, self := range []map[string]string{alice.user, alice.token} {
		w.env = self
		w.refused("takes the approval of another user", "run", "approve-back", s.Run, "alice")
	}
	w.env = bob.user
	w.refused("has to approve that you bring", force...) // which is another request
	w.refused("of another user", "run", "approve-back", s.Run, "bob")
	if strings.Contains(w.read(w.authorized(0)), public.String()) {
		t.Error("one person has let a compromised key in again")
	}
	if out := w.ok("approval", "list"); !strings.Contains(out, "keyturn run approve-back "+s.Run+" alice") {
		t.Errorf("there waits\n%s", out)
	}
	w.ok("run", "approve-back", s.Run, "alice")
	w.env = alice.user
	w.ok(force...)
	if !strings.Contains(w.read(w.authorized(0)), public.String()) {
		t.Error("approved, it does not come back")
	}
}
