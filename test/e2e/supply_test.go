//go:build linux

package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"keyturn/internal/need"
	"keyturn/test/lab"
)

// Alice has made her keys herself, with passphrases, and uses them through her agent:
// Keyturn sees no private half. It puts her new key beside the old one, and takes the
// old one away when she has been seen to use the new one, and only that, on every host.
func TestOwnersKey(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n, old, next := newNode(t, w), newKeyFile(t, "old"), newKeyFile(t, "new")
	agent := newAgent(t, old, next)
	root := lab.User{Name: "root", AuthorizedKeys: []string{n.ops.line()}}
	alice := lab.User{Name: "alice", AuthorizedKeys: []string{"no-pty " + old.line() + " alice@laptop"}}
	hosts := w.BootAll(t,
		lab.Spec{Name: "web1", Root: lab.Systemd, Users: []lab.User{root, alice}},
		lab.Spec{Name: "web2", Users: []lab.User{root, alice}},
	)
	for _, h := range hosts {
		n.add(h, "root", "")
	}
	n.scan()
	k := n.key(string(old.public.Fingerprint()))
	id := k.UUID
	n.refused([]string{"is external", "keyturn key supply " + id + " --public-key FILE"}, "rotate", id)
	n.refused([]string{"holds a private key"}, "key", "supply", id, "--public-key", next.path)
	n.ok("key", "supply", id, "--public-key", next.path+".pub")

	// Nobody has used the new key.
	r := n.begin(k, "0s")
	n.heldBy(r, "nobody has been seen to log in with the new key "+string(next.public.Fingerprint()))
	agent.want(hosts[0], "alice", next, true)
	agent.want(hosts[0], "alice", old, true)
	n.ok("run", "resume", r)
	n.await(r, "done", isState("done"))
	for _, h := range hosts {
		agent.want(h, "alice", next, true)
		agent.want(h, "alice", old, false)
		nothingLeft(t, h)
		if text := files(t, h, "/home/alice/.ssh/authorized_keys")["/home/alice/.ssh/authorized_keys"]; !strings.Contains(text, "no-pty "+next.line()) {
			t.Errorf("%s has\n%s", h.Name(), text)
		}
	}

	// She wants the old one back: the new one goes when she has been seen to use that.
	var back run
	n.json(&back, "rollback", id, "--soak", "4s")
	n.await(back.Run, "soaking", func(r run) bool { return r.Row == "Soak" })
	agent.want(hosts[0], "alice", old, true)
	agent.want(hosts[0], "alice", next, true)
	n.heldBy(back.Run, "the old key "+string(next.public.Fingerprint())+" was used, from ")
	n.ok("run", "resume", back.Run)
	n.await(back.Run, "done", isState("done"))
	for _, h := range hosts {
		agent.want(h, "alice", old, true)
		agent.want(h, "alice", next, false)
		nothingLeft(t, h)
	}
}

// An owner who never comes is not locked out, unless somebody who was told so has it.
func TestOwnerWhoNeverComes(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n, old, next := newNode(t, w), newKeyFile(t, "old"), newKeyFile(t, "new")
	web1 := w.Boot(t, lab.Spec{Name: "web1", Root: lab.Systemd, Users: []lab.User{
		{Name: "root", AuthorizedKeys: []string{n.ops.line()}}, {Name: "alice", AuthorizedKeys: []string{old.line()}},
	}})
	n.add(web1, "root", "")
	n.scan()
	k := n.key(string(old.public.Fingerprint()))
	id := k.UUID
	n.ok("key", "supply", id, "--public-key", next.line())
	given := n.begin(k, "0s")
	n.heldBy(given, "nobody has been seen")
	n.ok("run", "back", given, "--wait")
	want(t, web1, "alice", old.path, next.path)

	r := n.begin(k, "0s")
	n.heldBy(r, "nobody has been seen")
	n.ok("run", "resume", r)
	n.heldBy(r, "whoever has only the old key is locked out when it goes")
	want(t, web1, "alice", old.path, "")
	n.ok("run", "resume", r)
	n.await(r, "done", isState("done"))
	want(t, web1, "alice", next.path, old.path)
}

// What somebody did with the new key before the run let it in, where it was accepted
// already, says nothing of whether the owner of the old one has changed to it.
func TestOwnersKeyThatWasInBefore(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n, old, next := newNode(t, w), newKeyFile(t, "old"), newKeyFile(t, "new")
	root := lab.User{Name: "root", AuthorizedKeys: []string{n.ops.line()}}
	hosts := w.BootAll(t,
		lab.Spec{Name: "web1", Root: lab.Systemd, Users: []lab.User{root, {Name: "alice", AuthorizedKeys: []string{old.line(), next.line()}}}},
		lab.Spec{Name: "web2", Users: []lab.User{root, {Name: "alice", AuthorizedKeys: []string{old.line()}}}},
	)
	for _, h := range hosts {
		n.add(h, "root", "")
	}
	n.scan()
	k := n.key(string(old.public.Fingerprint()))
	n.ok("key", "supply", k.UUID, "--public-key", next.line())
	hosts[1].CutNetwork(t)
	var begun run
	n.json(&begun, "rotate", k.UUID, "--soak", "0s")
	r := begun.Run
	n.await(r, "waiting for web2", func(r run) bool { return r.State == "waiting" && r.Row == "Baseline" })
	want(t, hosts[0], "alice", next.path, "")
	hosts[1].Heal(t)
	n.ok("run", "resume", r)
	n.heldBy(r, "nobody has been seen to log in with the new key")
	want(t, hosts[0], "alice", next.path, "")
	n.ok("run", "resume", r)
	n.await(r, "done", isState("done"))
}

// heldBy waits until a run is held for a reason.
func (n *node) heldBy(id, why string) {
	n.t.Helper()
	held := n.await(id, "held by "+why, func(r run) bool { return r.State == "held" && strings.Contains(r.Reason, why) })
	if held.Row != "Soak" {
		n.t.Errorf("the run is held in row %s: %s", held.Row, held.Reason)
	}
}

// An agent is an ssh-agent with keys of which the files have a passphrase.
type agent struct {
	t      *testing.T
	socket string
}

// newAgent gives the keys a passphrase, and an agent that has them opened.
func newAgent(t *testing.T, keys ...keyFile) agent {
	t.Helper()
	a := agent{t, filepath.Join(t.TempDir(), "agent")}
	server := exec.Command(need.Program(t, "ssh-agent", "openssh-client"), "-D", "-a", a.socket)
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = server.Process.Kill()
		_ = server.Wait()
	})
	if _, err := out.Read(make([]byte, 1)); err != nil { // it says where it listens
		t.Fatal(err)
	}
	for _, k := range keys {
		for _, command := range [][]string{{"ssh-add", "-q", k.path}, {"ssh-keygen", "-q", "-p", "-P", "", "-N", "owl-and-otter", "-f", k.path}} {
			cmd := exec.Command(command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+a.socket)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", command, err, out)
			}
		}
	}
	return a
}

// want checks whether a key of the agent opens an account.
func (a agent) want(h *lab.Host, user string, k keyFile, opens bool) {
	a.t.Helper()
	known := filepath.Join(a.t.TempDir(), "known_hosts")
	if err := os.WriteFile(known, []byte(h.KnownHosts()), 0o600); err != nil {
		a.t.Fatal(err)
	}
	cmd := exec.Command("ssh", "-F", "none", "-n", "-i", k.path+".pub", "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes", "-o", "ConnectTimeout=20",
		"-o", "UserKnownHostsFile="+known, "-o", "StrictHostKeyChecking=yes", user+"@"+h.Addr().String(), "true")
	cmd.Env = append(os.Environ(), "SSH_AUTH_SOCK="+a.socket)
	out, err := cmd.CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte(": Permission denied (")) {
		a.t.Fatalf("ssh to %s@%s failed otherwise than by refusal: %v\n%s", user, h.Name(), err, out)
	}
	if (err == nil) != opens {
		a.t.Errorf("%s lets %s in by %s: %v, want %v", h.Name(), user, filepath.Base(k.path), err == nil, opens)
	}
}
