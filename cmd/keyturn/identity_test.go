package main

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// This file holds what becomes of a rotation whose identity files others move,
// restore or write over.

// inPlace makes a key that every server accepts, and whose private half lies in a
// file on the first one alone.
func (w *world) inPlace() (k keyJSON, identity string) {
	w.t.Helper()
	identity = filepath.Join(w.servers[0].Home(), ".ssh", "id_ed25519")
	public := w.keyFile(identity, "deploy@ci")
	for _, s := range w.servers {
		if err := s.Authorize(public, "no-pty"); err != nil {
			w.t.Fatal(err)
		}
	}
	w.ok("scan", "--wait")
	k = w.key(public)
	if k.Custody != "in-place" || len(k.Identities) != 1 || k.Identities[0].Path != identity {
		w.t.Fatalf("the scan found %+v", k)
	}
	return k, identity
}

// heldBy returns the public half of the key that a private key file holds.
func (w *world) heldBy(path string) string {
	w.t.Helper()
	signer, err := ssh.ParsePrivateKey([]byte(w.read(path)))
	if err != nil {
		w.t.Fatal(err)
	}
	return trust.PublicKeyOf(signer.PublicKey()).String()
}

// parse reads a public key as heldBy gives it.
func (w *world) parse(public string) trust.PublicKey {
	w.t.Helper()
	key, _, err := trust.ParsePublicKey(public)
	if err != nil {
		w.t.Fatal(err)
	}
	return key
}

func (w *world) write(path, text string) {
	w.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) move(from, to string) {
	w.t.Helper()
	if err := os.Rename(from, to); err != nil {
		w.t.Fatal(err)
	}
}

// accepts checks that every server accepts a key, and one more if both.
func (w *world) accepts(public string, both bool) {
	w.t.Helper()
	for i := range w.servers {
		if now := w.read(w.authorized(i)); !strings.Contains(now, "no-pty "+public) || (strings.Count(now, "no-pty ") == 2) != both {
			w.t.Errorf("web%d holds\n%s", i+1, now)
		}
	}
}

func soaks(r runJSON) bool { return r.Row == "Soak" && r.Until != nil }

// A restore puts the old private key back while both are accepted, on the way
// there and on the way back. Whoever reads that file goes on logging in: the key
// that it holds is not withdrawn.
func TestIdentityRestoredInTheSoak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	k, identity := w.inPlace()
	for _, way := range []string{"rotate", "rollback"} {
		before, public := w.read(identity), w.heldBy(identity)
		args := []string{way, k.UUID, "--soak", actedIn}
		if way == "rotate" {
			args = append(args, "--share")
		}
		var run startedJSON
		w.json(&run, args...)
		w.await(run.Run, soaks)
		w.write(identity, before)
		w.held(run.Run, "Reconfirm", identity+" on web1 holds the old key")
		w.accepts(public, true)
		w.ok("run", "resume", run.Run)
		w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
		next := w.heldBy(identity)
		if next == public {
			t.Errorf("%s: resumed, the file still holds the old key", way)
		}
		w.accepts(next, false)
		w.nothingLeft(0)
	}
	if w.heldBy(identity) != k.PublicKey {
		t.Error("rolled back, the file holds another key than before")
	}
}

// What somebody else put there is not written over: a person has to say what
// becomes of it. Leaving the place keeps the old key accepted.
func TestIdentityReplacedInTheSoak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--share", "--soak", actedIn)
	w.await(run.Run, soaks)
	foreign := filepath.Join(w.dir, "foreign")
	w.keyFile(foreign, "foreign")
	w.write(identity, w.read(foreign))
	w.held(run.Run, "Reconfirm", identity+" on web1 holds another key")
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "held" })
	if w.read(identity) != w.read(foreign) {
		t.Error("the file of somebody else was written over")
	}
	if out := w.ok("run", "leave", run.Run, "web1:"+w.servers[0].User()+":"+identity); !strings.Contains(out, "it withdraws nothing any more") {
		t.Errorf("leave says %q", out)
	}
	w.await(run.Run, func(r runJSON) bool { return r.State == "partial" })
	w.accepts(k.PublicKey, true)
	if out := w.ok("finding", "list"); !strings.Contains(out, "by run "+run.Run+", which went on without a place that uses it, and is accepted still") {
		t.Errorf("that the old key is accepted still is no finding:\n%s", out)
	}
}

// A restore puts only the old X.pub back. ssh offers the key that this names, and the
// new private half does not sign for it: who logs in from there is locked out by now,
// and the run says so before the old key goes.
func TestPublicHalfRestoredInTheSoak(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	before := w.read(identity + ".pub")
	for _, way := range []string{"rotate", "rollback"} {
		stale, public := w.read(identity+".pub"), w.heldBy(identity)
		args := []string{way, k.UUID, "--soak", actedIn}
		if way == "rotate" {
			args = append(args, "--share")
		}
		var run startedJSON
		w.json(&run, args...)
		w.await(run.Run, soaks)
		if !w.logsIn(identity) {
			t.Errorf("%s: ssh does not log in with what was installed", way)
		}
		w.write(identity+".pub", stale)
		if w.logsIn(identity) {
			t.Errorf("%s: ssh logs in although X.pub is of another key: this test is about nothing", way)
		}
		w.held(run.Run, "Reconfirm", identity+".pub on web1 holds the old key")
		w.accepts(public, true)
		w.ok("run", "resume", run.Run)
		w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
		if !w.logsIn(identity) || !strings.HasSuffix(w.read(identity+".pub"), " deploy@ci\n") {
			t.Errorf("%s: resumed, ssh does not log in, or the comment is gone: %s", way, w.read(identity+".pub"))
		}
		w.accepts(w.heldBy(identity), false)
	}
	if w.read(identity+".pub") != before {
		t.Error("rolled back, X.pub is not what it was before")
	}
}

// A link to an identity follows it, there and back, and ssh logs in by it. One that
// would not follow is refused before anything is planned.
func TestIdentityLinks(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 1)
	dir := filepath.Join(w.servers[0].Home(), ".ssh")
	link := func(target, name string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.Symlink(target, path); err != nil {
			t.Fatal(err)
		}
		return path
	}
	bare, both := link("id_ed25519", "bare"), link("id_ed25519", "both")
	link("id_ed25519.pub", "both.pub")
	identity := filepath.Join(dir, "id_ed25519")
	public := w.keyFile(identity, "deploy@ci")
	if err := w.servers[0].Authorize(public, "no-pty"); err != nil {
		t.Fatal(err)
	}
	w.ok("scan", "--wait")
	k := w.key(public)
	if len(k.Identities) != 3 {
		t.Fatalf("the scan found %+v", k.Identities)
	}

	// One that would not follow: there is a .pub of its own, or what it leads to is
	// not in the plan.
	elsewhere := filepath.Join(w.dir, "elsewhere")
	w.write(elsewhere, w.read(identity))
	refused := func(path, why string) {
		t.Helper()
		w.ok("scan", "--wait")
		for _, args := range [][]string{{"rotate", k.UUID, "--share", "--soak", "0s"}, {"rotate", k.UUID, "--share", "--dry-run"}} {
			code, _, errs := w.try(args...)
			if code == 0 || !strings.Contains(errs, path+" is a symbolic link to "+why) || !strings.Contains(errs, "keyturn scan web1") {
				t.Errorf("%v with a link that does not follow: %d, %s", args, code, errs)
			}
		}
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	own := link("id_ed25519", "own")
	w.write(own+".pub", w.read(identity+".pub"))
	refused(own, identity+", but the .pub")
	refused(link(elsewhere, "far"), elsewhere+", where no identity of ")
	w.ok("scan", "--wait")
	if preview := w.ok("rotate", k.UUID, "--share", "--dry-run"); !strings.Contains(preview, "it is what these links lead to, which stay: "+bare+", "+both) {
		t.Errorf("dry run printed\n%s", preview)
	}

	for _, way := range [][]string{{"rotate", k.UUID, "--share"}, {"rollback", k.UUID}} {
		before := w.heldBy(identity)
		w.ok(append(way, "--soak", "0s", "--wait")...)
		now := w.heldBy(identity)
		if now == before || w.heldBy(bare) != now || w.heldBy(both) != now {
			t.Errorf("%s: the link holds another key than what it leads to, or the old one", way[0])
		}
		for _, path := range []string{bare, both} {
			if target, err := os.Readlink(path); err != nil || target != "id_ed25519" || !w.logsIn(path) {
				t.Errorf("%s: %s leads to %q, %v; or ssh does not log in with it", way[0], path, target, err)
			}
		}
		if got := w.key(w.parse(now)); len(got.Identities) != 3 {
			t.Errorf("%s: the key that is in use lies at %+v", way[0], got.Identities)
		}
		w.nothingLeft(0)
	}
}

// A public half that is a symbolic link is what its owner keeps there: it stays, and
// the run with it, until there is a file.
func TestPublicHalfIsALink(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	kept, text := filepath.Join(w.dir, "kept.pub"), w.read(identity+".pub")
	w.write(kept, text)
	if err := errors.Join(os.Remove(identity+".pub"), os.Symlink(kept, identity+".pub")); err != nil {
		t.Fatal(err)
	}
	said := identity + ".pub is a symbolic link to " + kept
	if preview := w.ok("rotate", k.UUID, "--share", "--dry-run"); !strings.Contains(preview, "a rotation would be held") || !strings.Contains(preview, said) {
		t.Errorf("dry run printed\n%s", preview)
	}
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--share", "--soak", "0s")
	w.held(run.Run, "Baseline", said)
	if target, err := os.Readlink(identity + ".pub"); err != nil || target != kept || w.read(kept) != text {
		t.Errorf("the link leads to %q, %v, where %q lies", target, err, w.read(kept))
	}
	if err := os.Remove(identity + ".pub"); err != nil {
		t.Fatal(err)
	}
	w.write(identity+".pub", text)
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	if !w.logsIn(identity) || w.read(kept) != text || w.read(identity+".pub") == text {
		t.Error("the identity and the file at its public half do not log in, or what the link led to was written over")
	}
}

// What somebody else put beside the identity is not written over, and neither is a
// certificate that nobody else has.
func TestForeignFilesBesideAnIdentityStay(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	stale, foreign := w.read(identity+".pub"), w.keyFile(filepath.Join(w.dir, "foreign"), "foreign").String()+"\n"
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--share", "--soak", actedIn)
	w.await(run.Run, soaks)
	w.write(identity+".pub", foreign)
	w.held(run.Run, "Reconfirm", identity+".pub on web1 holds another key")
	w.ok("run", "resume", run.Run)
	w.held(run.Run, "Reconfirm", identity+".pub on web1 holds another key")
	if w.read(identity+".pub") != foreign {
		t.Error("the public half of somebody else was written over")
	}
	certificate := w.certificate(w.heldBy(identity))
	w.write(identity+"-cert.pub", certificate)
	w.write(identity+".pub", stale)
	for range 2 {
		w.ok("run", "resume", run.Run)
		w.held(run.Run, "Reconfirm", identity+".pub on web1 holds the old key")
	}
	w.write(identity+".pub", w.heldBy(identity)+"\n")
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	if w.read(identity+"-cert.pub") != certificate {
		t.Error("the certificate that somebody put there is gone")
	}
}

// logsIn reports whether ssh logs in to the first server with an identity file and
// what lies beside it.
func (w *world) logsIn(identity string) bool {
	w.t.Helper()
	s := w.servers[0]
	known := filepath.Join(w.dir, "known_hosts")
	w.write(known, s.KnownHosts())
	host, port, err := net.SplitHostPort(s.Address())
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := exec.CommandContext(w.t.Context(), need.Program(w.t, "ssh", "openssh-client"), "-F", "none", "-n", "-i", identity, "-o", "IdentitiesOnly=yes",
		"-o", "BatchMode=yes", "-o", "UserKnownHostsFile="+known, "-p", port, s.User()+"@"+host, "true").CombinedOutput()
	if err != nil {
		w.t.Logf("ssh: %v: %s", err, out)
	}
	return err == nil
}

// The only file that holds the private half is away when the run begins. Nothing
// is changed before it can be read, for nobody could bring the old key back.
func TestIdentityAwayAtTheStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	before := w.read(identity)
	w.move(identity, identity+".away")
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--share", "--soak", "0s")
	w.held(run.Run, "Baseline", identity+" on web1: there is no private key file")
	w.accepts(k.PublicKey, false)
	w.move(identity+".away", identity)
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	w.accepts(w.heldBy(identity), false)
	w.ok("rollback", k.UUID, "--wait", "--soak", "0s")
	if w.read(identity) != before {
		t.Error("rolled back, the file does not hold what it held before")
	}
	w.accepts(k.PublicKey, false)
}

// Of two files that held the private half one is gone. The other one is enough to
// go back, whichever of them was looked at first.
func TestOneIdentityOfTwoIsAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 2)
	k, identity := w.inPlace()
	second := filepath.Join(w.servers[1].Home(), ".ssh", "id_ed25519")
	w.write(second, w.read(identity))
	w.ok("scan", "--wait")
	w.move(second, second+".away")
	out := w.ok("rotate", k.UUID, "--share", "--wait", "--soak", "0s")
	if !strings.Contains(out, second+" on web2: there is no private key file") {
		t.Errorf("rotate says\n%s", out)
	}
	w.accepts(w.heldBy(identity), false)
	w.ok("rollback", k.UUID, "--wait", "--soak", "0s")
	w.accepts(k.PublicKey, false)
}

// Where Keyturn holds the key, a file that is away keeps nobody from rotating, and
// the run says that it was away. If it comes back with the old key before that is
// withdrawn, it is found.
func TestIdentityAwayOfAHeldKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	var imported keyJSON
	w.json(&imported, "key", "import", identity)
	if shown := w.key(w.parse(k.PublicKey)); imported.Custody != "held" || len(imported.Identities) != 1 || !reflect.DeepEqual(imported, shown) {
		t.Errorf("key import gives\n%+v, key show\n%+v", imported, shown)
	}
	w.move(identity, identity+".away")
	out := w.ok("rotate", k.UUID, "--wait", "--soak", "0s")
	if !strings.Contains(out, identity+" on web1: there is no private key file") || strings.Contains(out, "does not open") {
		t.Errorf("rotate says\n%s", out)
	}
	w.ok("rollback", k.UUID, "--wait", "--soak", "0s")

	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--soak", actedIn)
	w.await(run.Run, soaks)
	w.move(identity+".away", identity)
	w.held(run.Run, "Reconfirm", identity+" on web1 holds the old key by now")
	w.accepts(k.PublicKey, true)
	w.ok("run", "back", run.Run, "--wait", "--soak", "0s")
	w.accepts(k.PublicKey, false)
}

// Where the old key opens nothing any more, a new one would open nothing either: the
// file keeps the old one.
func TestIdentityThatOpensNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	w.write(w.authorized(0), strings.Replace(w.read(w.authorized(0)), "no-pty", `expiry-time="20200101"`, 1))
	var r runJSON
	w.json(&r, "rotate", k.UUID, "--share", "--soak", "0s")
	w.held(r.Run, "Recheck", "no place has taken the new key")
	if now := w.heldBy(identity); now != k.PublicKey {
		t.Errorf("%s holds %s", identity, now)
	}
	w.ok("run", "back", r.Run)
	w.await(r.Run, func(r runJSON) bool { return r.State == "back" })
}

// An identity file that ssh does not read for its line ends is not exchanged for one that it
// reads, and could not come back as it was.
func TestIdentityWithCRLF(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	before := w.read(identity)
	w.write(identity, strings.ReplaceAll(before, "\n", "\r\n"))
	var r runJSON
	w.json(&r, "rotate", k.UUID, "--share", "--soak", "0s")
	w.held(r.Run, "Baseline", "end in CR LF")
	w.ok("run", "back", r.Run, "--wait")
	if _, out, errs := w.try("rotate", k.UUID, "--share", "--dry-run"); !strings.Contains(out+errs, "a rotation would be held") || !strings.Contains(out+errs, "end in CR LF") {
		t.Errorf("a dry run says\n%s%s", out, errs)
	}
	w.json(&r, "rotate", k.UUID, "--share", "--soak", "0s")
	w.held(r.Run, "Baseline", "end in CR LF")
	w.write(identity, before)
	w.ok("run", "resume", r.Run)
	w.await(r.Run, func(r runJSON) bool { return r.State == "done" })
	if now := w.heldBy(identity); now == k.PublicKey {
		t.Errorf("%s holds the old key", identity)
	}
}

// A certificate beside an identity is of the key that goes. A dry run says so
// before, and the run does after. The old key, which can be brought back from then
// on, is shown as held.
func TestCertificateGoesWithTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	certificate := identity + "-cert.pub"
	w.write(certificate, w.certificate(k.PublicKey))
	public := w.read(identity + ".pub")
	out := w.ok("rotate", k.UUID, "--share", "--dry-run")
	for _, says := range []string{
		identity + " would hold the new private key", certificate + " would go",
		identity + ".pub\n@@ -1,1 +1,1 @@\n-" + public + "+ssh-ed25519 (new key) deploy@ci\n",
		certificate + "\n+++ /dev/null\n@@ -1,1 +0,0 @@\n-" + w.read(certificate),
	} {
		if !strings.Contains(out, says) {
			t.Errorf("the dry run says\n%s\nand not\n%s", out, says)
		}
	}
	var r runJSON
	w.json(&r, "rotate", k.UUID, "--share", "--wait", "--soak", "0s")
	if out := w.ok("run", "show", r.Run); !strings.Contains(out, certificate+" went with the old key") {
		t.Errorf("the report says\n%s", out)
	}
	if _, err := os.Stat(certificate); !os.IsNotExist(err) {
		t.Errorf("the certificate is still there: %v", err)
	}
	var old keyJSON
	w.json(&old, "key", "show", k.UUID)
	if old.Custody != "held" {
		t.Errorf("the old key, whose private half is sealed, is %s", old.Custody)
	}
}

// An owner that the account cannot give back to what lies beside its identity is no reason
// to stop at Install, when the servers have the other key already: a dry run says what will
// differ, and the run what does.
func TestForeignCertificate(t *testing.T) {
	t.Parallel()
	w := simWard(t, 1, nil)
	host, certificate := w.hosts[0].(simHost), w.identity+"-cert.pub"
	text := w.certificate(w.key.String())
	if err := host.Write("root", certificate, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	k, says := w.world.key(w.key), certificate+": it belongs to uid 0"
	if out := w.ok("rotate", k.UUID, "--share", "--dry-run"); !strings.Contains(out, says) {
		t.Errorf("the dry run does not say %q:\n%s", says, out)
	}
	w.ok("rotate", k.UUID, "--share", "--soak", "0s", "--wait")
	w.ok("rollback", k.UUID, "--soak", "0s", "--wait")
	says = certificate + " has mode 644, uid 1000, gid 1000 now, and had mode 644, uid 0, gid 0"
	if out := w.ok("run", "show", w.latest("rotate")); !strings.Contains(out, says) {
		t.Errorf("run show does not say %q:\n%s", says, out)
	}
	if now, mode, err := host.read(certificate); string(now) != text || mode != "644" {
		t.Errorf("rolled back, the certificate has mode %s and is %q, %v", mode, now, err)
	}
	w.nobodyLost()
}

// An identity file that nobody may change holds the run before a server has the new key.
func TestImmutableIdentity(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	k, identity := w.inPlace()
	chattr := func(flag string) error {
		out, err := exec.Command("chattr", flag, identity).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("chattr %s: %w: %s", flag, err, out)
		}
		return err
	}
	if err := chattr("+i"); err != nil {
		need.Skip(t, "%v", err)
	}
	t.Cleanup(func() { _ = chattr("-i") })
	before, says := w.read(w.authorized(0)), identity+" is immutable (as root: chattr -i "+identity+")"
	if out := w.ok("rotate", k.UUID, "--share", "--dry-run"); !strings.Contains(out, "a rotation would be held") || !strings.Contains(out, says) {
		t.Errorf("the dry run does not say %q:\n%s", says, out)
	}
	var run startedJSON
	w.json(&run, "rotate", k.UUID, "--share", "--soak", "0s")
	w.held(run.Run, "Baseline", says)
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("web1 holds\n%s", now)
	}
	if err := chattr("-i"); err != nil {
		t.Fatal(err)
	}
	w.ok("run", "resume", run.Run)
	w.await(run.Run, func(r runJSON) bool { return r.State == "done" })
	if !w.logsIn(identity) {
		t.Error("the new key does not log in")
	}
}

// certificate returns a certificate of a public key, by an authority of its own.
func (w *world) certificate(public string) string {
	w.t.Helper()
	key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(public))
	if err != nil {
		w.t.Fatal(err)
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	authority, err := ssh.NewSignerFromKey(private)
	if err != nil {
		w.t.Fatal(err)
	}
	c := &ssh.Certificate{Key: key, CertType: ssh.UserCert, ValidBefore: uint64(time.Now().Add(time.Hour).Unix())}
	if err := c.SignCert(rand.Reader, authority); err != nil {
		w.t.Fatal(err)
	}
	return string(ssh.MarshalAuthorizedKey(c))
}
