//go:build linux

package e2e

import (
	"strings"
	"testing"

	"keyturn/internal/need"
	"keyturn/test/lab"
)

// While both keys are accepted, two machines still log in with the old one: one
// that the plan knows to have a copy, and one that nobody told Keyturn of. The log
// of sshd gives the second away, and the old key stays until somebody decides.
func TestUnexplainedUse(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n, deploy := newNode(t, w), newKeyFile(t, "deploy")
	root := lab.User{Name: "root", AuthorizedKeys: []string{n.ops.line()}}
	hosts := w.BootAll(t,
		lab.Spec{Name: "web1", Root: lab.Systemd, Users: []lab.User{root, {Name: "alice", AuthorizedKeys: []string{deploy.line()}}}},
		lab.Spec{Name: "app1", Users: []lab.User{root, {Name: "alice", Identities: map[string][]byte{".ssh/id_deploy": deploy.pem}}}},
		lab.Spec{Name: "ci1", Users: []lab.User{{Name: "alice", Identities: map[string][]byte{".ssh/id_deploy": deploy.pem}}}},
	)
	web1, app1, ci1 := hosts[0], hosts[1], hosts[2]
	n.add(web1, "root", "")
	n.add(app1, "root", "")
	n.ok("key", "import", deploy.path)
	n.scan()
	use := func(from *lab.Host) {
		t.Helper()
		from.WriteFile(t, "alice", "/home/alice/old", deploy.pem, 0o600)
		from.WriteFile(t, "alice", "/home/alice/.ssh/known_hosts", []byte(web1.KnownHosts()), 0o600)
		from.Sh(t, `su alice -c 'ssh -i ~/old -o IdentitiesOnly=yes -o BatchMode=yes alice@`+web1.Addr().String()+` true'`)
	}

	id := n.begin(n.key(string(deploy.public.Fingerprint())), "6s")
	use(app1)
	use(ci1)
	r := n.await(id, "held", isState("held"))
	if !strings.Contains(r.Reason, "was used from "+ci1.Addr().String()+" to log in to web1:alice:") || strings.Contains(r.Reason, app1.Addr().String()) {
		t.Errorf("the run is held in row %s: %s", r.Row, r.Reason)
	}
	want(t, web1, "alice", deploy.path, "")
	n.ok("run", "resume", id)
	n.await(id, "done", isState("done"))
	want(t, web1, "alice", "", deploy.path)
	nothingLeft(t, web1)
}
