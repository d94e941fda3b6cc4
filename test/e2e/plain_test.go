//go:build linux

package e2e

import (
	"strings"
	"testing"

	"keyturn/internal/need"
	"keyturn/test/lab"
)

// An account that can become nobody else looks after its own keys, on each
// release: what it may not see of the server it finds out otherwise.
func TestPlainLogin(t *testing.T) {
	need.Long(t)
	t.Parallel()
	for _, root := range need.Share(t, 2, lab.OpenSSH92, lab.OpenSSH100, lab.OpenSSH84, lab.Newest, lab.Systemd, lab.Dropbear) {
		t.Run(string(root), func(t *testing.T) {
			t.Parallel()
			w := lab.NewWorld(t)
			n := newNode(t, w)
			deploy := newKeyFile(t, "deploy")
			h := w.Boot(t, lab.Spec{Name: "web1", Root: root, Users: []lab.User{
				{Name: "alice", Shell: "bash", AuthorizedKeys: []string{n.ops.line() + " ops", "no-pty " + deploy.line() + " deploy@ci"}},
				{Name: "bob", AuthorizedKeys: []string{deploy.line()}},
			}})
			n.add(h, "alice", "")
			n.ok("key", "import", deploy.path)
			n.scan()
			before := files(t, h, aliceKeys)[aliceKeys]
			old := n.key(string(deploy.public.Fingerprint()))
			if got, want := old.places(), "web1:alice:"+aliceKeys+"\n"; got != want {
				t.Fatalf("the scan found the key in\n%swant\n%s%s", got, want, n.ok("host", "show", "web1"))
			}
			n.rotate(old)
			want(t, h, "alice", "", deploy.path)
			want(t, h, "bob", deploy.path, "")
			nothingLeft(t, h)
			n.ok("rollback", old.UUID, "--wait")
			if now := files(t, h, aliceKeys)[aliceKeys]; now != before {
				t.Errorf("the file holds\n%q\nwant as before\n%q", now, before)
			}
			want(t, h, "alice", deploy.path, "")
			nothingLeft(t, h)
		})
	}
}

// Where an sshd that may not read its host keys cannot be lent one either, it says
// nothing, and its configuration is read with what that includes.
func TestPlainLoginReadsTheConfiguration(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n := newNode(t, w)
	const keys = "/etc/ssh/keys/alice"
	h := w.Boot(t, lab.Spec{Name: "web1", Root: lab.OpenSSH92, Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{n.ops.line()}}}})
	h.Sh(t, `chmod 700 /usr/bin/ssh-keygen; mkdir -p /etc/ssh/keys /etc/ssh/sshd_config.d && chmod 755 /etc/ssh/keys
		printf 'Match User alice\nAuthorizedKeysFile .ssh/authorized_keys /etc/ssh/keys/%%u\n' >/etc/ssh/sshd_config.d/alice.conf
		printf 'Include /etc/ssh/sshd_config.d/*.conf\n' | cat - /etc/ssh/sshd_config >/etc/ssh/new && mv /etc/ssh/new /etc/ssh/sshd_config`)
	deploy := newKeyFile(t, "deploy")
	h.WriteFile(t, "root", keys, []byte(deploy.line()+"\n"), 0o644)
	n.add(h, "alice", "")
	n.scan()
	if got, want := n.key(string(deploy.public.Fingerprint())).places(), "web1:alice:"+keys+"\n"; got != want {
		t.Errorf("the scan found the key in\n%swant\n%s", got, want)
	}
	if shown := n.ok("host", "show", "web1"); !strings.Contains(shown, "does not tell its configuration") {
		t.Errorf("that sshd was not asked is not said:\n%s", shown)
	}
}
