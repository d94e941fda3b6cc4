//go:build linux

package e2e

import (
	"testing"

	"keyturn/test/lab"
)

// A held key that two accounts accept is rotated by a root login, and taken back,
// on the releases that every installation meets.
func TestRootLogin(t *testing.T) {
	for _, root := range []lab.Root{lab.OpenSSH92, lab.OpenSSH100, lab.OpenSSH84, lab.Newest, lab.Systemd, lab.Dropbear} {
		t.Run(string(root), func(t *testing.T) {
			t.Parallel()
			w := lab.NewWorld(t)
			n := newNode(t, w)
			deploy := newKeyFile(t, "deploy")
			h := w.Boot(t, lab.Spec{Name: "web1", Root: root, Users: []lab.User{
				{Name: "root", AuthorizedKeys: []string{n.ops.line() + " ops"}},
				{Name: "alice", Shell: "bash", AuthorizedKeys: []string{"# kept", `no-pty,command="true" ` + deploy.line() + "  deploy@ci"}},
				{Name: "bob", Shell: "busybox", AuthorizedKeys: []string{n.ops.line(), deploy.line() + " deploy@ci"}},
			}})
			n.add(h, "root", "")
			n.ok("key", "import", deploy.path)
			n.ok("scan", "--wait")
			paths := []string{"/home/alice/.ssh/authorized_keys", "/home/bob/.ssh/authorized_keys", "/root/.ssh/authorized_keys"}
			before := files(t, h, paths...)
			old := n.key(string(deploy.public.Fingerprint()))
			if got, want := old.places(), "web1:alice:/home/alice/.ssh/authorized_keys\nweb1:bob:/home/bob/.ssh/authorized_keys\n"; got != want || old.Custody != "held" {
				t.Fatalf("the scan found the %s key in\n%swant\n%s", old.Custody, got, want)
			}
			n.rotate(old)
			for _, user := range []string{"alice", "bob"} {
				want(t, h, user, "", deploy.path)
			}
			nothingLeft(t, h)
			n.ok("rollback", old.UUID, "--wait")
			for path, content := range files(t, h, paths...) {
				if content != before[path] {
					t.Errorf("%s holds\n%q\nwant as before\n%q", path, content, before[path])
				}
			}
			for _, user := range []string{"alice", "bob"} {
				want(t, h, user, deploy.path, "")
			}
			nothingLeft(t, h)
		})
	}
}
