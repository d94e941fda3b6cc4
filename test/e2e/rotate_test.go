//go:build linux

package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"keyturn/test/lab"

	"keyturn/internal/need"
)

// A held key that two accounts accept is rotated by a root login, and taken back,
// on the releases that every installation meets.
func TestRootLogin(t *testing.T) {
	need.Long(t)
	t.Parallel()
	for _, root := range need.Share(t, 2, lab.OpenSSH92, lab.OpenSSH100, lab.OpenSSH84, lab.Newest, lab.Systemd, lab.Dropbear) {
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
			n.scan()
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

// One key opens accounts of four hosts that Keyturn enters in four ways, by files
// that only those hosts' servers know of; its private half lies with Keyturn and
// on a fifth host. All of it is found, rotated and taken back.
func TestFleet(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n := newNode(t, w)
	deploy := newKeyFile(t, "deploy")
	ops, line := []string{n.ops.line() + " ops"}, deploy.line()+" deploy@ci"
	hosts := w.BootAll(t,
		lab.Spec{Name: "root1", Users: []lab.User{
			{Name: "root", AuthorizedKeys: append(ops, `from="10.99.0.0/16",no-agent-forwarding `+line)},
			{Name: "alice", Shell: "bash", AuthorizedKeys: []string{line}},
			{Name: "bob", Shell: "dash"},
		}},
		lab.Spec{Name: "sudo1", Root: lab.OpenSSH100, SSHD: []string{"UsePAM no", "Match User bob", "AuthorizedKeysFile /etc/ssh/keys/%u"}, Users: []lab.User{
			{Name: "ops", Shell: "bash", Become: "sudo", AuthorizedKeys: ops},
			{Name: "alice", Shell: "busybox", AuthorizedKeys: []string{line, line}},
			{Name: "bob", Shell: "bash"},
		}},
		lab.Spec{Name: "doas1", Users: []lab.User{
			{Name: "ops", Shell: "busybox", Become: "doas", AuthorizedKeys: ops},
			{Name: "alice", AuthorizedKeys: []string{line}},
			{Name: "far", AuthorizedKeys: []string{n.ops.line()}},
		}},
		lab.Spec{Name: "drop1", Root: lab.Dropbear, Users: []lab.User{
			{Name: "root", AuthorizedKeys: ops},
			{Name: "alice", AuthorizedKeys: []string{line}},
		}},
		lab.Spec{Name: "app1", Users: []lab.User{
			{Name: "ops", Shell: "dash", Become: "sudo", AuthorizedKeys: ops},
			{Name: "alice", Identities: map[string][]byte{".ssh/id_deploy": deploy.pem}},
		}},
	)
	root1, sudo1, doas1, drop1, app1 := hosts[0], hosts[1], hosts[2], hosts[3], hosts[4]
	// The server that runs is not the one that /etc/ssh/sshd_config describes.
	root1.Sh(t, `mkdir -p /etc/ssh/keys /opt/ssh && chmod 755 /etc/ssh/keys
		cp /etc/ssh/sshd_config /opt/ssh/config && printf '\nMatch User bob\nAuthorizedKeysFile /etc/ssh/keys/%%u\n' >>/opt/ssh/config
		kill "$(cat /run/sshd.pid)"
		while [ -e /run/sshd.pid ]; do sleep 0.05; done
		/usr/sbin/sshd -f /opt/ssh/config -o LogLevel=VERBOSE -o 'AuthorizedKeysFile .ssh/authorized_keys .ssh/authorized_keys2'
		while [ ! -e /run/sshd.pid ]; do sleep 0.05; done`)
	root1.WriteFile(t, "root", "/etc/ssh/keys/bob", []byte("# managed\r\n"+line+"\r\n"), 0o644)
	root1.WriteFile(t, "alice", "/home/alice/.ssh/authorized_keys2", []byte("\xef\xbb\xbf# an editor's mark\n"+line), 0o600)
	sudo1.Sh(t, `mkdir -p /etc/ssh/keys && chmod 755 /etc/ssh/keys`)
	sudo1.WriteFile(t, "root", "/etc/ssh/keys/bob", []byte(line+"\n"), 0o644)
	// Only app1 may use this one, and its file is a link.
	doas1.WriteFile(t, "far", "/home/far/.ssh/keys", []byte(`from="`+app1.Addr().String()+`" `+line+"\n"), 0o600)
	doas1.Sh(t, `cd /home/far/.ssh && ln -sf keys authorized_keys`)

	n.add(root1, "root", "")
	n.add(sudo1, "ops", "sudo")
	n.add(doas1, "ops", "doas")
	n.add(drop1, "root", "")
	n.add(app1, "ops", "sudo")
	n.ok("key", "import", deploy.path)
	n.scan()
	old := n.key(string(deploy.public.Fingerprint()))
	found := strings.Fields(old.places())
	slices.Sort(found)
	if want := []string{
		"doas1:alice:/home/alice/.ssh/authorized_keys",
		"doas1:far:/home/far/.ssh/authorized_keys",
		"drop1:alice:/home/alice/.ssh/authorized_keys",
		"root1:alice:/home/alice/.ssh/authorized_keys",
		"root1:alice:/home/alice/.ssh/authorized_keys2",
		"root1:bob:/etc/ssh/keys/bob",
		"root1:root:/root/.ssh/authorized_keys",
		"sudo1:alice:/home/alice/.ssh/authorized_keys",
		"sudo1:bob:/etc/ssh/keys/bob",
	}; !slices.Equal(slices.Compact(found), want) {
		t.Fatalf("the scan found the key in\n%s\nwant\n%s", strings.Join(found, "\n"), strings.Join(want, "\n"))
	}
	if len(old.Identities) != 1 || old.Identities[0] != (place{"app1", "alice", "/home/alice/.ssh/id_deploy"}) {
		t.Fatalf("the scan found the private key in %+v", old.Identities)
	}
	paths := map[*lab.Host][]string{app1: {"/home/alice/.ssh/id_deploy"}}
	for _, h := range hosts {
		for _, p := range old.Authorized {
			if p.Host == h.Name() && !slices.Contains(paths[h], p.Path) {
				paths[h] = append(paths[h], p.Path)
			}
		}
	}
	before := map[*lab.Host]map[string]string{}
	for h, all := range paths {
		before[h] = files(t, h, all...)
	}

	next := n.rotate(old)
	identity := filepath.Join(t.TempDir(), "next")
	if err := os.WriteFile(identity, []byte(files(t, app1, "/home/alice/.ssh/id_deploy")["/home/alice/.ssh/id_deploy"]), 0o600); err != nil {
		t.Fatal(err)
	}
	check := func(opens, refused string) {
		t.Helper()
		for _, a := range []struct {
			h    *lab.Host
			user string
		}{{root1, "root"}, {root1, "alice"}, {root1, "bob"}, {sudo1, "alice"}, {sudo1, "bob"}, {doas1, "alice"}, {drop1, "alice"}} {
			want(t, a.h, a.user, opens, refused)
		}
		app1.WriteFile(t, "alice", "/home/alice/.ssh/known_hosts", []byte(doas1.KnownHosts()), 0o600)
		app1.Sh(t, `su alice -c 'ssh -i ~/.ssh/id_deploy -o IdentitiesOnly=yes -o BatchMode=yes far@`+doas1.Addr().String()+` true'`)
		for _, h := range hosts {
			nothingLeft(t, h)
		}
	}
	check(identity, deploy.path)
	for h, was := range before {
		for path, content := range files(t, h, paths[h]...) {
			if h != app1 && content != strings.ReplaceAll(was[path], deploy.line(), next.PublicKey) {
				t.Errorf("%s:%s holds\n%q\nafter\n%q", h.Name(), path, content, was[path])
			}
		}
	}
	if got := doas1.Sh(t, "readlink /home/far/.ssh/authorized_keys"); got != "keys\n" {
		t.Errorf("the link is %q", got)
	}

	n.ok("rollback", old.UUID, "--wait")
	check(deploy.path, identity)
	for h, was := range before {
		for path, content := range files(t, h, paths[h]...) {
			if content != was[path] {
				t.Errorf("%s:%s holds\n%q\nwant as before\n%q", h.Name(), path, content, was[path])
			}
		}
	}
}
