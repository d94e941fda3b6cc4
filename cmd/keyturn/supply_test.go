package main

import (
	"cmp"
	"fmt"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/job"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A key that its owner made may take the place of another, and not everything may.
func TestSupply(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	owned, strong := w.keyFile(w.dir+"/alice", "alice@laptop"), filepath.Join(w.dir, "strong")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ecdsa", "-b", "521", "-N", "", "-C", "", "-f", strong).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	big := w.parse(w.read(strong + ".pub"))
	for _, k := range []trust.PublicKey{owned, big} {
		w.appendLine(w.authorized(0), k.String())
	}
	w.ok("scan", "--wait")
	old := w.key(owned)
	refused := func(why, hint string, args ...string) {
		t.Helper()
		code, out, errs := w.try(args...)
		if code == 0 || !strings.Contains(errs, why) || !strings.Contains(errs, hint) {
			t.Errorf("keyturn %s: %d\n%s%s\nwant %q, %q", strings.Join(args, " "), code, out, errs, why, hint)
		}
	}
	file := func(name, text string) string {
		path := filepath.Join(w.dir, name)
		w.write(path, text)
		return path
	}
	keygen := func(args ...string) string {
		path := filepath.Join(t.TempDir(), "key")
		if out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", "", "-f", path}, args...)...).CombinedOutput(); err != nil {
			t.Fatal(err, string(out))
		}
		return path
	}
	next, other := keygen("-t", "ed25519", "-C", "alice@new"), keygen("-t", "ed25519")
	if out, err := exec.Command("ssh-keygen", "-q", "-s", strong, "-I", "x", "-n", "x", other+".pub").CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	held := w.keyFile(w.dir+"/held", "held")
	w.ok("key", "import", w.dir+"/held")

	refused("nobody said where", "keyturn key supply "+old.UUID+" --public-key FILE", "rotate", old.UUID)
	supply := func(id, file string) []string { return []string{"key", "supply", id, "--public-key", file} }
	refused("it was not sent", ".pub", supply(old.UUID, next)...)
	refused("certificate", ".pub", supply(old.UUID, strings.TrimSuffix(other, ".pub")+"-cert.pub")...)
	refused("the key itself", "ssh-keygen", supply(old.UUID, owned.String())...)
	refused("1024 bits is too small", "ssh-keygen", supply(old.UUID, keygen("-t", "rsa", "-b", "1024")+".pub")...)
	refused("256 bits, fewer than the 521", "", supply(w.key(big).UUID, keygen("-t", "ecdsa", "-b", "256")+".pub")...)
	refused("not of the form", "", supply(old.UUID, file("nonsense", "nonsense"))...)
	refused("more than one line", "", supply(old.UUID, file("two", w.read(next+".pub")+w.read(other+".pub")))...)
	refused("Keyturn holds key", "keyturn rotate", supply(w.key(held).UUID, next+".pub")...)
	refused("opens host \"web1\" for Keyturn itself", "", supply(old.UUID, w.ops+".pub")...)
	refused("is the host key", "", supply(old.UUID, w.servers[0].HostKey().String())...)
	refused("Keyturn holds the private half", "", supply(old.UUID, held.String())...)
	// One that a door is sent all the same is not told back, nor kept.
	_, p, raw := w.ask(w.token, http.MethodPost, "/keys/"+old.UUID+"/supply", `{"public_key":"`+strings.ReplaceAll(w.read(next), "\n", `\n`)+`"}`)
	if body := strings.Split(w.read(next), "\n")[3]; !strings.Contains(p.Detail, "that is a private key") || strings.Contains(raw, body) {
		t.Errorf("a private key was answered %s", raw)
	}

	w.stdin = w.read(next + ".pub")
	w.ok(supply(old.UUID, "-")...)
	refused("was supplied to take the place of key "+old.UUID, "", supply(w.key(big).UUID, next+".pub")...)
	w.ok(supply(old.UUID, other+".pub")...)
	w.ok(supply(old.UUID, next+".pub")...)
	w.ok(supply(w.key(big).UUID, other+".pub")...)
	fresh := w.parse(w.read(next + ".pub"))
	if k := w.key(owned); k.Supplied != w.key(fresh).UUID || w.key(fresh).Comment != "alice@new" || w.key(fresh).Custody != "external" {
		t.Errorf("supplied: %+v, %+v", k, w.key(fresh))
	}
	before := w.read(w.authorized(0))
	if out := w.ok("rotate", old.UUID, "--dry-run"); !strings.Contains(out, "-"+owned.String()) || !strings.Contains(out, "+"+fresh.String()) {
		t.Errorf("the dry run printed\n%s", out)
	}
	if w.read(w.authorized(0)) != before {
		t.Error("a dry run changed the file")
	}
	refused("not for a dry run", "keyturn key supply", "rotate", old.UUID, "--public-key", next+".pub", "--dry-run")
	var run startedJSON
	w.ok("key", "set", old.UUID, "--owner", "alice", "--purpose", "releases", "--label", "team=db")
	w.json(&run, "rotate", old.UUID, "--soak", "1h")
	w.await(run.Run, soaks)
	if k := w.key(fresh); k.Owner != "alice" || k.Purpose != "releases" || len(k.Labels) != 1 || k.Custody != "external" || k.Comment != "alice@new" {
		t.Errorf("the key that its owner made is %+v", k)
	}
	refused("is in run "+run.Run, "", supply(old.UUID, keygen("-t", "ed25519")+".pub")...)
}

// Where no log can be read, nobody can be seen to use a new key: the old one goes only
// when a person has been told whom that locks out, if he is wrong.
func TestOwnersKeyWithoutALog(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, lab.Options{})
	old, next := w.keyFile(w.dir+"/old", "alice@laptop"), w.keyFile(w.dir+"/new", "alice@laptop")
	w.appendLine(w.authorized(0), "no-pty "+old.String()+" alice@laptop")
	before := w.read(w.authorized(0))
	w.ok("scan", "--wait")
	id := w.key(old).UUID
	client, wanted := avx{w: w}.with("username", "admin").with("password", testPassword), `{"type":"User Keys","uuids":["`+id+`"]}`
	if status, text, _ := client.do("POST", "/ssh/key/rotate?gwsource=x", wanted); status != 400 || !strings.Contains(text, "is external") {
		t.Errorf("to a client of AppViewX it is said: %d %s", status, text)
	}
	w.ok("settings", "set", "rotation.soak", "0s")
	w.ok("key", "supply", id, "--public-key", w.dir+"/new.pub")
	if status, text, _ := client.do("POST", "/ssh/key/rotate?gwsource=x", wanted); status != 200 {
		t.Fatalf("a client of AppViewX cannot rotate it: %d %s", status, text)
	}
	var run startedJSON
	w.json(&run, "rotate", id, "--public-key", w.dir+"/new.pub")
	w.held(run.Run, "Soak", "no log can be read that would show whether anybody logs in with the new key "+string(next.Fingerprint())+": whoever has only the old key is locked out")
	w.accepts(old.String(), true)
	w.accepts(next.String(), true)
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	if now, want := w.read(w.authorized(0)), strings.Replace(before, old.String(), next.String(), 1); now != want {
		t.Errorf("the file holds\n%q\nwant\n%q", now, want)
	}
	if k := w.key(old); k.State != "rotated" || len(k.ReplacedBy) != 1 || k.ReplacedBy[0] != w.key(next).UUID {
		t.Errorf("the old key is %+v", k)
	}
	w.nothingLeft(0)
}

// A key of a security key, of which there is no private half to be had, takes the place
// of another, and is rotated itself.
func TestOwnersSecurityKey(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, lab.Options{})
	token := func(n byte) string {
		t.Helper()
		key, err := ssh.ParsePublicKey(ssh.Marshal(struct{ Type, Point, Application string }{ssh.KeyAlgoSKED25519, strings.Repeat(string(n), 32), "ssh:"}))
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	}
	old, next := token('a'), token('b')
	w.appendLine(w.authorized(0), "no-pty "+old)
	w.ok("scan", "--wait")
	id := w.key(w.parse(old)).UUID
	if code, _, errs := w.try("rotate", id); code == 0 || !strings.Contains(errs, "only its owner's security key can make another") || !strings.Contains(errs, "keyturn key supply "+id) {
		t.Errorf("rotate: %d %s", code, errs)
	}
	var run startedJSON
	w.json(&run, "rotate", id, "--public-key", next, "--soak", "0s")
	w.held(run.Run, "Soak", "no log can be read")
	w.accepts(next, true)
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	w.accepts(next, false)
}

// A key that was revealed is its owner's from then on. Keyturn has its private half
// still, and makes no login with it, which would look as if its owner had not changed.
func TestRotateRevealedKey(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, lab.Options{})
	old := w.keyFile(w.dir+"/old", "deploy")
	k := w.heldKey(old, w.dir+"/old", "no-pty")
	next := w.keyFile(w.dir+"/new", "deploy")
	w.ok("key", "reveal", k.UUID, "--out", w.dir+"/revealed", "--no-passphrase")
	if code, _, errs := w.try("rotate", k.UUID, "--share"); code == 0 || !strings.Contains(errs, "was given to somebody") || !strings.Contains(errs, "keyturn key supply "+k.UUID) {
		t.Errorf("rotate: %d %s", code, errs)
	}
	logged := w.servers[0].Log().Seq()
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--public-key", w.dir+"/new.pub", "--soak", "0s")
	w.held(run.Run, "Soak", "no log can be read")
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	w.accepts(next.String(), false)
	w.json(&run, "rollback", k.UUID, "--soak", "0s")
	w.held(run.Run, "Soak", "no log can be read")
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	w.accepts(old.String(), false)
	for _, e := range w.servers[0].Log().Events(logged) {
		if lab.AcceptedBy(old.Fingerprint())(e) {
			t.Errorf("Keyturn has logged in with the owner's key: %s", e.Text)
		}
	}
}

// An identity file that is its owner's, because it has a passphrase, is not written;
// while it holds the old key, that is not withdrawn anywhere. That Keyturn holds the
// same key changes nothing of it.
func TestOwnersIdentityFile(t *testing.T) {
	t.Parallel()
	for name, held := range map[string]bool{"the owner's alone": false, "held, too": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rotateIdentityOfOwner(t, held)
		})
	}
}

func rotateIdentityOfOwner(t *testing.T, held bool) {
	w := newWorld(t, 2)
	k, identity := w.inPlace()
	if held {
		w.ok("key", "import", identity)
	}
	if out, err := exec.Command("ssh-keygen", "-q", "-p", "-P", "", "-N", "owl-and-otter", "-f", identity).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	w.ok("scan", "--wait")
	for _, more := range []string{"--share", "--dry-run"} {
		if code, _, errs := w.try("rotate", k.UUID, more); code == 0 || !strings.Contains(errs, "with a passphrase") || !strings.Contains(errs, "keyturn key supply "+k.UUID) {
			t.Errorf("rotate %s: %d %s", more, code, errs)
		}
	}
	next := w.keyFile(w.dir+"/new", "alice@laptop")
	w.ok("key", "supply", k.UUID, "--public-key", w.dir+"/new.pub")
	if out := w.ok("rotate", k.UUID, "--dry-run"); !strings.Contains(out, identity+" would stay as it is: its owner puts the new key there") {
		t.Errorf("the dry run printed\n%s", out)
	}
	was := w.read(identity)
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--soak", "0s")
	w.held(run.Run, "Soak", "no log can be read")
	w.ok("run", "resume", run.Run)
	w.held(run.Run, "Reconfirm", "still holds the old key: its owner has not put the new one there")
	w.accepts(w.parse(k.PublicKey).String(), true)
	if w.read(identity) != was {
		t.Error("the owner's file was written")
	}
	if out := w.ok("run", "show", run.Run); !strings.Contains(out, "its owner puts the new key there") {
		t.Errorf("the run does not say whose the file is:\n%s", out)
	}
	w.move(w.dir+"/new", identity)
	w.move(w.dir+"/new.pub", identity+".pub")
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	w.accepts(next.String(), false)
	if !w.logsIn(identity) {
		t.Error("the owner is locked out")
	}
	if now := w.key(next); len(now.Identities) != 1 || now.Custody == "held" {
		t.Errorf("the new key is %+v", now)
	}
}

// An owner's file that is left keeps the old key, which is then accepted everywhere.
func TestLeaveOwnersIdentityFile(t *testing.T) {
	t.Parallel()
	w := newWorldOf(t, lab.Options{})
	k, identity := w.inPlace()
	next := w.keyFile(w.dir+"/new", "alice@laptop")
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--public-key", w.dir+"/new.pub", "--soak", "0s")
	w.held(run.Run, "Soak", "no log can be read")
	w.ok("run", "resume", run.Run)
	w.held(run.Run, "Reconfirm", "keyturn run leave "+run.Run+" web1:"+w.servers[0].User()+":"+identity)
	w.ok("run", "leave", run.Run, "web1:"+w.servers[0].User()+":"+identity)
	w.await(run.Run, func(r runJSON) bool { return r.State == "partial" })
	w.accepts(next.String(), true)
	if !w.logsIn(identity) {
		t.Error("the owner is locked out")
	}
}

// One owner changes before anybody has asked for it: to go back would lock him out, and
// is held until somebody has been told so.
func TestBackFromAnOwnerWhoHasChanged(t *testing.T) {
	t.Parallel()
	o := &owner{ward: simWard(t, 2, nil)}
	before := o.files()
	o.fault = func(point string) {
		if strings.HasPrefix(point, "before do Recheck") {
			if err := o.login([]byte(o.read(filepath.Join(o.dir, "made1")))); err != nil {
				t.Errorf("the new key does not log in yet: %v", err)
			}
			o.until = "before do Recheck"
		}
	}
	run, _ := o.rotate(-1)
	if _, _, crashed := o.await(run); !crashed {
		t.Fatal("the rotation passed row Recheck")
	}
	release := o.hold()
	o.stop()
	o.fault = nil
	o.arm(-1)
	o.start()
	if by := o.ward.back(run); by != run {
		t.Fatalf("the rotation is taken back by %s, and not undone", by)
	}
	release()
	for range o.hosts {
		if state, reason, _ := o.await(run); state != job.Held || !strings.Contains(reason, "its owner may have nothing else by now") {
			t.Fatalf("the run is %s: %s", state, reason)
		}
		o.api(nil, http.MethodPost, "/runs/"+run+"/resume", nil)
	}
	o.mustEnd(run, job.WentBack)
	o.wentBack(before)
}

// A host whose log cannot be asked is waited for: the old key may be in use there. What
// is left of the plan keeps it.
func TestOwnersHostIsAway(t *testing.T) {
	t.Parallel()
	o := &owner{ward: simWard(t, 2, nil)}
	o.fault = func(point string) {
		if strings.HasPrefix(point, "before do Soak") {
			o.hosts[1].(simHost).Refuse()
		}
	}
	run, next := o.rotate(-1)
	name := "web2:deploy:/home/deploy/.ssh/authorized_keys"
	// Between its visits the run waits; it is running while it looks once more.
	r := o.world.await(run, func(r runJSON) bool { return len(r.Troubled) > 0 && r.State == "waiting" })
	if said := r.Troubled[0].Error; !strings.Contains(said, name+" cannot be asked who logs in with which key") || !strings.Contains(said, "keyturn run leave "+run+" "+name) {
		t.Errorf("the run is %s: %s", r.State, said)
	}
	o.mu.Lock()
	o.hosts, o.fault = o.hosts[:1], nil // nobody logs in to the other
	o.mu.Unlock()
	o.ok("run", "leave", run, name)
	o.answer(run, next, job.Partial)
	if k := o.world.key(o.key); len(k.Authorized) != 2 || k.Authorized[0].Host != "web2" {
		t.Errorf("the old key is %+v", k)
	}
}

// Crashed at any instant, forward or on a way back, the rotation of an owner's key goes
// on, and the owner, who changes when he is asked to, is never locked out.
func TestCrashWithOwner(t *testing.T) {
	need.Long(t)
	t.Parallel()
	share := 16
	if need.Full() {
		share = 1
	}
	ways := map[string]func(o *owner){
		"forward":           func(o *owner) { o.forward(share) },
		"forward then back": func(o *owner) { o.forwardThenBack(share) },
		"back":              func(o *owner) { o.back(share) },
	}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way(&owner{ward: simWard(t, 2, nil)})
		})
	}
}

// A run that is held until its owner uses the new key goes on by itself when he does, and
// not before.
func TestOwnerChangesWhileHeld(t *testing.T) {
	t.Parallel()
	o := &owner{ward: simWard(t, 2, nil)}
	before := o.files()
	run, next := o.rotate(-1)
	held := func() (r job.Run) {
		t.Helper()
		if state, reason, _ := o.await(run); state != job.Held || !strings.Contains(reason, "nobody has been seen to log in with the new key") {
			t.Fatalf("the run is %s: %s", state, reason)
		}
		if err := o.node.store.View(t.Context(), o.node.beginning.Tenant, func(tx *store.Tx) (err error) {
			r, err = o.node.engine.Get(tx, trust.RunID(run))
			return err
		}); err != nil {
			t.Fatal(err)
		}
		return r
	}
	if changed, err := o.node.rotator.Changed(t.Context(), held()); changed || err != nil {
		t.Fatalf("before he uses the new key: %v, %v", changed, err)
	}
	o.uses(next)
	if changed, err := o.node.rotator.Changed(t.Context(), held()); !changed || err != nil {
		t.Fatalf("when he uses the new key: %v, %v", changed, err)
	}
	o.stop()
	tune := o.tune
	o.tune = func(c *config) { tune(c); c.follow = 20 * time.Millisecond }
	o.start()
	if r := o.world.await(run, func(r runJSON) bool { return r.ended() || r.State == "held" && strings.Contains(r.Reason, "still") }); r.State != "done" {
		t.Errorf("the run is %s: %s", r.State, r.Reason)
	}
	o.wentForward(run, before)
}

// An owner is the ward's user, who makes keys himself. The identity file is his: he puts
// the new key there when a run is held because he has not.
type owner struct {
	*ward
	made int
	path map[trust.PublicKey]string // the private key file of each
}

// rotate begins a rotation to a key that the owner makes.
func (o *owner) rotate(at int) (run string, next trust.PublicKey) {
	o.t.Helper()
	if o.path == nil {
		o.path = map[trust.PublicKey]string{o.key: filepath.Join(o.dir, "deploy")}
	}
	o.made++
	file := filepath.Join(o.dir, fmt.Sprintf("made%d", o.made))
	next = o.keyFile(file, "deploy@ci")
	o.path[next] = file
	o.api(nil, http.MethodPost, "/keys/"+o.uuid+"/supply", map[string]any{"public_key": next.String()})
	o.arm(at)
	var started startedJSON
	o.api(&started, http.MethodPost, "/rotations", map[string]any{"keys": []string{o.uuid}, "soak": "0s"})
	return started.Run, next
}

// answer does what a run asks of its owner, who is to use a key, until it is as wanted
// or the node has crashed.
func (o *owner) answer(run string, uses trust.PublicKey, want job.State) (crashed bool) {
	o.t.Helper()
	for {
		state, reason, crashed := o.await(run)
		switch {
		case crashed, state == want:
			return crashed
		case state != job.Held, !strings.Contains(reason, "nobody has been seen to log in with the new key "+string(uses.Fingerprint())) && !strings.Contains(reason, "still holds the old key"):
			o.t.Fatalf("run %s is %s, want %s: %s\n%+v", run, state, want, reason, o.show(run))
		}
		o.uses(uses)
		if err := o.client.call(o.t.Context(), http.MethodPost, "/runs/"+run+"/resume", nil, nil); err != nil {
			// It is held in the store before the instant after that commit is passed.
			if _, _, crashed := o.await(run); !crashed {
				o.t.Fatal(err)
			}
			return true
		}
	}
}

// uses has the owner put a key into his identity file and log in with it.
func (o *owner) uses(key trust.PublicKey) {
	o.t.Helper()
	private := o.read(o.path[key])
	for suffix, text := range map[string]string{"": private, ".pub": o.read(o.path[key] + ".pub")} {
		if err := o.hosts[0].write(o.identity+suffix, text); err != nil {
			o.t.Fatal(err)
		}
	}
	if err := o.login([]byte(private)); err != nil {
		o.t.Fatalf("the owner is locked out: %v", err)
	}
}

// goesOn is answer, in spite of a crash.
func (o *owner) goesOn(run string, uses trust.PublicKey, want job.State) (crashed bool) {
	o.t.Helper()
	if crashed = o.answer(run, uses, want); crashed {
		o.stop()
		o.arm(-1)
		o.start()
		o.answer(run, uses, want)
	}
	return crashed
}

// goesBack takes a run back, after which its owner is to use the former key again.
func (o *owner) goesBack(run string, before map[string]string, at int) (crashed bool) {
	o.t.Helper()
	release := o.hold()
	o.stop()
	o.arm(at)
	o.start()
	by := o.ward.back(run)
	release()
	if by == run && at < 0 { // what was in flight has to come down first
		r := o.world.await(run, func(r runJSON) bool { return r.BackBy != "" || r.ended() })
		by = cmp.Or(r.BackBy, run)
	}
	want := job.WentBack
	if by != run {
		want = job.Done
	}
	crashed = o.goesOn(by, o.key, want)
	o.mustGoBack(run, by)
	o.wentBack(before)
	return crashed
}

func (o *owner) forward(share int) {
	o.each(share, func(at int) bool {
		before := o.files()
		run, next := o.rotate(at)
		crashed := o.goesOn(run, next, job.Done)
		o.wentForward(run, before)
		return !crashed
	})
}

func (o *owner) forwardThenBack(share int) {
	o.each(share, func(at int) bool {
		before := o.files()
		run, next := o.rotate(at)
		crashed := o.answer(run, next, job.Done)
		o.goesBack(run, before, -1)
		return !crashed
	})
}

func (o *owner) back(share int) {
	o.each(share, func(at int) bool {
		before := o.files()
		run, next := o.rotate(-1)
		o.answer(run, next, job.Done)
		return !o.goesBack(run, before, at)
	})
}
