//go:build linux

package e2e

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"keyturn/internal/need"
	"keyturn/test/lab"
)

const aliceKeys = "/home/alice/.ssh/authorized_keys"

// two boots two hosts that a node enters as root, and whose alice accepts a key
// that it holds.
func two(t *testing.T) (n *node, hosts []*lab.Host, deploy keyFile, old key) {
	t.Helper()
	w := lab.NewWorld(t)
	n, deploy = newNode(t, w), newKeyFile(t, "deploy")
	users := []lab.User{
		{Name: "root", AuthorizedKeys: []string{n.ops.line()}},
		{Name: "alice", AuthorizedKeys: []string{deploy.line() + " deploy@ci"}},
	}
	hosts = w.BootAll(t, lab.Spec{Name: "web1", Users: users}, lab.Spec{Name: "web2", Users: users})
	for _, h := range hosts {
		n.add(h, "root", "")
	}
	n.ok("key", "import", deploy.path)
	n.scan()
	return n, hosts, deploy, n.key(string(deploy.public.Fingerprint()))
}

// begin starts a rotation that soaks for a while and returns when it does.
func (n *node) begin(old key, soak string) (id string) {
	n.t.Helper()
	var started run
	n.json(&started, "rotate", old.UUID, "--soak", soak)
	n.await(started.Run, "soaking", func(r run) bool { return r.Row == "Soak" })
	return started.Run
}

func waits(host string) func(run) bool {
	return func(r run) bool {
		return len(r.Troubled) == 1 && r.Troubled[0].State == "waiting" && strings.HasPrefix(r.Troubled[0].Place, host+":")
	}
}

func isState(state string) func(run) bool { return func(r run) bool { return r.State == state } }

// The power goes while both keys are accepted; the run waits and goes on.
func TestPowerCut(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	id := n.begin(old, "2s")
	hosts[1].PowerCut()
	n.await(id, "waiting for web2", waits("web2"))
	if err := hosts[1].PowerOn(); err != nil {
		t.Fatal(err)
	}
	n.await(id, "done", isState("done"))
	for _, h := range hosts {
		want(t, h, "alice", "", deploy.path)
		nothingLeft(t, h)
	}
}

// A host that cannot be reached is left: there, both keys stay accepted.
func TestLeaveCutOffHost(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	id := n.begin(old, "2s")
	hosts[1].CutNetwork(t)
	n.await(id, "waiting for web2", waits("web2"))
	n.ok("run", "leave", id, "--unreachable")
	r := n.await(id, "partial", isState("partial"))
	if !slices.Equal(slices.Compact(r.Left), []string{"web2:alice:" + aliceKeys}) {
		t.Errorf("left are %q", r.Left)
	}
	hosts[1].Heal(t)
	want(t, hosts[0], "alice", "", deploy.path)
	want(t, hosts[1], "alice", deploy.path, "")
	next := n.key(r.Keys[0].New[0])
	if got := files(t, hosts[1], aliceKeys)[aliceKeys]; !strings.Contains(got, next.PublicKey) {
		t.Errorf("web2 lost the new key:\n%s", got)
	}
}

// An account that is gone from its host keeps nothing from being rotated or brought back
// elsewhere, once somebody said that it is gone for good.
func TestAccountIsGone(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	before := files(t, hosts[0], aliceKeys)[aliceKeys]
	place := "web2:alice:" + aliceKeys
	left := func(id string) run {
		t.Helper()
		r := n.await(id, "held", isState("held"))
		if !strings.Contains(r.Reason, `web2 has no account "alice"`) {
			t.Errorf("the run says %q", r.Reason)
		}
		n.ok("run", "leave", id, place)
		r = n.await(id, "partial", isState("partial"))
		if !slices.Equal(slices.Compact(r.Left), []string{place}) {
			t.Errorf("left are %q", r.Left)
		}
		return r
	}
	id := n.begin(old, "2s")
	hosts[1].Sh(t, "sed -i /^alice:/d /etc/passwd")
	left(id)
	want(t, hosts[0], "alice", "", deploy.path)
	var started run
	n.json(&started, "rollback", old.UUID, "--soak", "0s")
	left(started.Run)
	want(t, hosts[0], "alice", deploy.path, "")
	if got := files(t, hosts[0], aliceKeys)[aliceKeys]; got != before {
		t.Errorf("web1 holds\n%q\nwant as before\n%q", got, before)
	}
	n.kill() // what it had seen of web2 is forgotten
	n.start()
	n.json(&started, "rotate", old.UUID, "--soak", "0s")
	if r := left(started.Run); !strings.HasPrefix(r.Reason, "done") {
		t.Errorf("the run says %q", r.Reason)
	}
	want(t, hosts[0], "alice", "", deploy.path)
	nothingLeft(t, hosts[0])
}

// A home directory that is away, such as one on a file system that is not mounted, holds
// the run before anything is changed, also where a scan saw it away: with what uses and
// accepts the old key there, nobody is shut out when it is back.
func TestHomeIsAway(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	private, err := os.ReadFile(deploy.path)
	if err != nil {
		t.Fatal(err)
	}
	identity := "/home/alice/.ssh/deploy"
	hosts[1].WriteFile(t, "alice", identity, private, 0o600)
	n.scan()
	var started run
	refused := func(why string) {
		t.Helper()
		if _, out, errs := n.try("rotate", old.UUID, "--dry-run"); strings.Count(out+errs, "a rotation would be held: "+why) != 2 {
			t.Errorf("a dry run says\n%s%s", out, errs)
		}
		n.json(&started, "rotate", old.UUID, "--soak", "0s")
		r := n.await(started.Run, "held", isState("held"))
		if !strings.Contains(r.Reason, why) {
			t.Errorf("the run says %q, want %q", r.Reason, why)
		}
		want(t, hosts[0], "alice", deploy.path, "")
	}
	why := "the directory of /home/alice/.ssh/"
	for _, scanned := range []bool{false, true} {
		hosts[1].Sh(t, "mv /home/alice /home/alice.away")
		if scanned {
			n.scan()
			if got := n.key(old.UUID); len(got.Authorized) != 2 || len(got.Identities) != 1 {
				t.Fatalf("a scan without the home directory knows of %+v", got)
			}
		}
		refused(why)
		hosts[1].Sh(t, "mv /home/alice.away /home/alice")
		n.ok("run", "resume", started.Run)
		n.await(started.Run, "done", isState("done"))
		for _, h := range hosts {
			want(t, h, "alice", "", deploy.path)
		}
		n.ok("rollback", old.UUID, "--wait", "--soak", "0s")
		n.scan()
	}
	hosts[1].Sh(t, "rm -r /home/alice")
	refused(why)
	n.ok("run", "leave", started.Run, "web2")
	n.await(started.Run, "partial", isState("partial"))
	want(t, hosts[0], "alice", deploy.path, "") // an identity was left: nothing is withdrawn
}

// Accounts of a directory that is asked for each by name, and lists none, as SSSD does
// unless it is told otherwise, are found by what lies where homes do.
func TestAccountsThatAreNotListed(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	// Stands in for SSSD, which the hosts of the lab do not have.
	hosts[1].Sh(t, `mv /usr/bin/getent /usr/bin/getent.all
cat >/usr/bin/getent <<'END'
#!/bin/sh
[ "$*" = passwd ] || exec getent.all "$@"
getent.all passwd | grep -v ^alice:
END
chmod 755 /usr/bin/getent
mkdir -m 755 /home/example.com; mv /home/alice /home/example.com/alice; sed -i s,/home/alice,/home/example.com/alice, /etc/passwd`)
	n.kill() // what it had seen of web2 is forgotten
	n.start()
	n.scan()
	if got := n.key(old.UUID).places(); got != "web1:alice:"+aliceKeys+"\nweb2:alice:/home/example.com/alice/.ssh/authorized_keys\n" {
		t.Fatalf("the scan found\n%s", got)
	}
	n.rotate(old)
	for _, h := range hosts {
		want(t, h, "alice", "", deploy.path)
		nothingLeft(t, h)
	}
}

// A full disk holds the run with a sentence and leaves the file as it was, before
// the run adds and before it withdraws; with room again, the run goes on.
func TestDiskFull(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	full := func(id string) {
		t.Helper()
		before := files(t, hosts[1], aliceKeys)[aliceKeys]
		r := n.await(id, "held", isState("held"))
		if !strings.Contains(r.Reason, aliceKeys) || !strings.Contains(r.Reason, " left") && !strings.Contains(r.Reason, "No space") {
			t.Errorf("the run says %q", r.Reason)
		}
		if got := files(t, hosts[1], aliceKeys)[aliceKeys]; got != before {
			t.Errorf("on the full disk, the file became\n%q\nfrom\n%q", got, before)
		}
		want(t, hosts[1], "alice", deploy.path, "")
		hosts[1].FreeDisk(t)
		n.ok("run", "resume", id)
	}
	hosts[1].FillDisk(t)
	var started run
	n.json(&started, "rotate", old.UUID, "--soak", "2s")
	full(started.Run)
	n.await(started.Run, "soaking", func(r run) bool { return r.Row == "Soak" })
	hosts[1].FillDisk(t)
	full(started.Run)
	n.await(started.Run, "done", isState("done"))
	for _, h := range hosts {
		want(t, h, "alice", "", deploy.path)
		nothingLeft(t, h)
	}
}

// What cannot be changed is refused before anything is, with the reason, and the
// run can be taken back.
func TestImmutable(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	hosts[1].Sh(t, `mount --bind /home/alice/.ssh /home/alice/.ssh && mount -o remount,bind,ro /home/alice/.ssh`)
	before := files(t, hosts[0], aliceKeys)[aliceKeys]
	n.refused([]string{"web2", aliceKeys, "read-only"}, "rotate", old.UUID, "--wait", "--soak", "0s")
	var open []run
	n.json(&open, "run", "list", "--open")
	for _, r := range open {
		n.ok("run", "back", r.Run, "--wait=false")
		n.await(r.Run, "back", isState("back"))
	}
	if got := files(t, hosts[0], aliceKeys)[aliceKeys]; got != before {
		t.Errorf("web1 holds\n%q\nwant as before\n%q", got, before)
	}
	nothingLeft(t, hosts[0])
	// Known from a scan, it is refused at once.
	n.scan()
	n.refused([]string{"web2", aliceKeys, "read-only"}, "rotate", old.UUID, "--soak", "0s")
	hosts[1].Sh(t, `umount /home/alice/.ssh`)
	need.Program(t, "chattr", "e2fsprogs")
	if _, err := hosts[1].Run(t.Context(), `chattr +i `+aliceKeys); err != nil {
		t.Logf("this kernel's memory disks have no attributes: %v", err)
		return
	}
	n.scan()
	n.refused([]string{"web2", aliceKeys, "immutable"}, "rotate", old.UUID, "--soak", "0s")
	hosts[1].Sh(t, `chattr -i `+aliceKeys)
	n.scan()
	n.rotate(old)
	want(t, hosts[1], "alice", "", deploy.path)
}

// Two installations that look after the same host do not both change a file: the
// second is told of the first, and leaves its work alone.
func TestSecondInstallation(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	second := newNode(t, n.w)
	second.ops = n.ops
	second.add(hosts[0], "root", "")
	second.ok("key", "import", deploy.path)
	second.scan()
	id := n.begin(old, "1h")
	during := files(t, hosts[0], aliceKeys)[aliceKeys]
	second.refused([]string{"web1", aliceKeys, "is being changed by run " + id, "of installation"}, "rotate", second.key(string(deploy.public.Fingerprint())).UUID, "--wait", "--soak", "0s")
	var open []run
	second.json(&open, "run", "list", "--open")
	for _, r := range open {
		second.ok("run", "back", r.Run)
		second.await(r.Run, "back", isState("back"))
	}
	if got := files(t, hosts[0], aliceKeys)[aliceKeys]; got != during {
		t.Errorf("the second installation changed the file to\n%q\nfrom\n%q", got, during)
	}
	// The first one's way back soaks for as long as its way forward did, so it is
	// only begun here: the old key opens everything meanwhile.
	n.ok("run", "back", id)
	for _, h := range hosts {
		want(t, h, "alice", deploy.path, "")
	}
}

// While a machine starts, PAM lets in nobody but root, and sshd hangs up on a key that
// it takes: that is waited for. What PAM says for another reason holds the run before
// anything is touched.
func TestPAMLetsNobodyIn(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	before := files(t, hosts[1], aliceKeys)[aliceKeys]
	untouched := func() {
		t.Helper()
		if now := files(t, hosts[1], aliceKeys)[aliceKeys]; now != before {
			t.Errorf("the file became\n%s\nfrom\n%s", now, before)
		}
	}
	hosts[1].WriteFile(t, "root", "/run/nologin", []byte(`"System is booting up. Unprivileged users are not permitted to log in yet. Please come back later. For technical details, see pam_nologin(8)."`+"\n"), 0o644)
	var started run
	n.json(&started, "rotate", old.UUID, "--soak", "0s")
	id := started.Run
	r := n.await(id, "waiting for web2", waits("web2"))
	if said := r.Troubled[0].Error; !strings.Contains(said, "System is booting up") {
		t.Errorf("the place says %q", said)
	}
	untouched()
	hosts[1].WriteFile(t, "root", "/run/nologin", []byte("Nobody may log in until noon.\n"), 0o644)
	r = n.await(id, "held", isState("held"))
	if !strings.Contains(r.Reason, "lets nobody in to alice") || r.Row != "Baseline" {
		t.Errorf("held at %s: %q", r.Row, r.Reason)
	}
	untouched()
	hosts[1].Sh(t, "rm /run/nologin")
	n.ok("run", "resume", id)
	n.await(id, "done", isState("done"))
	for _, h := range hosts {
		want(t, h, "alice", "", deploy.path)
		nothingLeft(t, h)
	}
}

// A server that has no room to write down what it does, does nothing, and says so to
// who follows the run; with room again, the run goes on.
func TestServerDiskFull(t *testing.T) {
	need.Long(t)
	t.Parallel()
	n, hosts, deploy, old := two(t)
	data, aside := filepath.Join(n.dir, "data"), filepath.Join(n.dir, "aside")
	n.kill()
	for _, args := range [][]string{{"mv", data, aside}, {"mkdir", "-m", "700", data}, {"mount", "-t", "tmpfs", "-o", "size=32m,mode=700", "tmpfs", data}, {"cp", "-a", aside + "/.", data}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v %s", args, err, out)
		}
	}
	t.Cleanup(func() {
		n.kill()
		_ = exec.Command("umount", "-l", data).Run()
	})
	n.start()
	id := n.begin(old, "3s")
	full := filepath.Join(data, "full")
	if err := os.WriteFile(full, make([]byte, 32<<20), 0o600); !errors.Is(err, syscall.ENOSPC) {
		t.Fatal("the disk is not full:", err)
	}
	n.await(id, "said to be without room", func(r run) bool {
		return strings.Contains(r.Reason, "cannot write down what it does") && strings.Contains(r.Reason, "no room on its disk")
	})
	want(t, hosts[0], "alice", deploy.path, "")
	if err := os.Remove(full); err != nil {
		t.Fatal(err)
	}
	n.await(id, "done", isState("done"))
	for _, h := range hosts {
		want(t, h, "alice", "", deploy.path)
		nothingLeft(t, h)
	}
}
