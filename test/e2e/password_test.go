//go:build linux

package e2e

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/lab"
	"keyturn/internal/need"
	hosts "keyturn/test/lab"
)

// passwords returns by which passwords sshd was asked for a login, in order: as
// "accepted alice" and "failed alice".
func passwords(h *hosts.Host) (tried []string) {
	for _, e := range h.Log().Events(0) {
		if (e.Kind == lab.Accepted || e.Kind == lab.Failed) && e.Method == "password" {
			tried = append(tried, string(e.Kind)+" "+e.User)
		}
	}
	return tried
}

// A password opens a host once, to put a key there, and is nowhere afterwards. A
// host whose key nobody has vouched for is never sent one.
func TestEnrolByPassword(t *testing.T) {
	need.Long(t)
	t.Parallel()
	const secret = "t0ps3cret-Passw0rd of a test"
	w := hosts.NewWorld(t)
	n := newNode(t, w)
	stranger := newKeyFile(t, "stranger")
	all := w.BootAll(t,
		hosts.Spec{Name: "given", Users: []hosts.User{{Name: "alice", Become: "sudo", AuthorizedKeys: []string{stranger.line() + " stranger"}}}},
		hosts.Spec{Name: "first", Users: []hosts.User{{Name: "alice", Become: "sudo"}}},
		hosts.Spec{Name: "strict", Users: []hosts.User{{Name: "alice", Become: "sudo", AuthorizedKeys: []string{"# kept"}}}, SSHD: []string{"Match User alice", "PubkeyAuthentication no"}},
		hosts.Spec{Name: "lost", Users: []hosts.User{{Name: "alice", Become: "sudo"}}},
	)
	for _, h := range all {
		h.Sh(t, `echo 'alice:`+secret+`' | chpasswd`)
	}
	given, first, strict, lost := all[0], all[1], all[2], all[3]
	args := func(h *hosts.Host, more ...string) []string {
		return append([]string{"host", "add", h.Name(), "--address", h.Address(), "--login", "alice", "--become", "sudo", "--password-stdin"}, more...)
	}
	state := func(h *hosts.Host) (now struct{ State, Reason string }) {
		n.json(&now, "host", "show", h.Name())
		return now
	}

	// A wrong password, and another host's key: nothing is put there.
	n.stdin = "wrong\n"
	n.refused([]string{"does not let \"alice\" in"}, args(given, "--host-key", given.HostKeys()[0].String())...)
	n.ok("host", "remove", "given")
	n.stdin = secret + "\n"
	n.refused([]string{"host key changed"}, args(given, "--host-key", first.HostKeys()[0].String())...)
	n.ok("host", "remove", "given")
	if got := strings.Join(passwords(given), ", "); got != "failed alice" {
		t.Errorf("given was asked for %q: one wrong password, and none for another host's key", got)
	}

	n.ok(args(given, "--host-key", given.HostKeys()[0].String())...)
	lines := strings.Split(strings.TrimSuffix(files(t, given, aliceKeys)[aliceKeys], "\n"), "\n")
	if len(lines) != 2 || lines[0] != stranger.line()+" stranger" || !strings.HasPrefix(lines[1], "ssh-ed25519 ") || !strings.HasSuffix(lines[1], " keyturn") {
		t.Errorf("alice's file holds %q", lines)
	}
	n.ok("scan", "given", "--wait")
	if got := strings.Join(passwords(given), ", "); got != "failed alice, accepted alice" {
		t.Errorf("given was asked for %q: the password opens it once", got)
	}
	nothingLeft(t, given)

	// Accepted on first use: the password waits for somebody to vouch.
	n.ok(args(first, "--accept-new", "--wait=false")...)
	id := n.openRun("first")
	n.await(id, "waiting for somebody to vouch", func(r run) bool {
		return r.State == "waiting" && r.Row == "Vouch" && strings.Contains(r.Reason, "keyturn host confirm first")
	})
	if tried := passwords(first); len(tried) != 0 {
		t.Errorf("first was asked for %q before anybody vouched for its key", tried)
	}
	n.ok("host", "confirm", "first")
	begun := time.Now()
	n.await(id, "beyond Vouch", func(r run) bool { return r.Row != "Vouch" })
	if waited := time.Since(begun); waited > 15*time.Second {
		t.Errorf("the enrolment went on %s after the key was confirmed", waited)
	}
	n.await(id, "done", isState("done"))
	if now := state(first); now.State != "ready" {
		t.Errorf("first is %+v", now)
	}

	// A key that does not open the account does not stay there.
	before := files(t, strict, aliceKeys)[aliceKeys]
	n.refused([]string{"was taken out again"}, args(strict, "--host-key", strict.HostKeys()[0].String())...)
	if now := files(t, strict, aliceKeys)[aliceKeys]; now != before {
		t.Errorf("strict holds %q, want as before %q", now, before)
	}
	nothingLeft(t, strict)

	// The password is in memory only: a server that was killed has it no more.
	n.ok(args(lost, "--accept-new", "--wait=false")...)
	id = n.openRun("lost")
	n.await(id, "waiting for somebody to vouch", func(r run) bool { return r.State == "waiting" })
	n.kill()
	n.start()
	n.ok("host", "confirm", "lost")
	n.await(id, "done", isState("done"))
	if now := state(lost); now.State != "refused" || !strings.Contains(now.Reason, "never written down") || len(passwords(lost)) != 0 {
		t.Errorf("lost is %+v, and was asked for %q", now, passwords(lost))
	}

	err := filepath.WalkDir(n.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), secret) {
			t.Errorf("%s holds the password", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// openRun returns the open run that works on a host.
func (n *node) openRun(host string) (id string) {
	n.t.Helper()
	var h struct{ ID string }
	n.json(&h, "host", "show", host)
	var runs []struct{ Run, Subject string }
	n.json(&runs, "run", "list", "--open")
	for _, r := range runs {
		if r.Subject == "host:"+h.ID {
			return r.Run
		}
	}
	n.t.Fatalf("no run works on %s: %+v", host, runs)
	return ""
}
