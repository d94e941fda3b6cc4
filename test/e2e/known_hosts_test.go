//go:build linux

package e2e

import (
	"fmt"
	"strings"
	"testing"

	"keyturn/internal/need"
	"keyturn/internal/trust"
	"keyturn/test/lab"
)

// A scan reads who knows which host by which key, hashed or not, and finds those
// that know a host by another key than the pinned one.
func TestKnownHosts(t *testing.T) {
	need.Long(t)
	t.Parallel()
	w := lab.NewWorld(t)
	n := newNode(t, w)
	stranger := newKeyFile(t, "stranger")
	users := []lab.User{
		{Name: "root", AuthorizedKeys: []string{n.ops.line()}},
		{Name: "alice"},
		{Name: "bob"},
		{Name: "carol", AuthorizedKeys: []string{stranger.line()}},
	}
	all := w.BootAll(t, lab.Spec{Name: "web1", Users: users}, lab.Spec{Name: "web2", Users: users})
	web1, web2 := all[0], all[1]
	ip := web2.Addr().String()
	hashed := trust.HashHostName(ip, [20]byte{1, 2, 3})
	write := func(path, user string, lines ...string) {
		web1.Sh(t, fmt.Sprintf("cat >%s <<'EOF'\n%s\nEOF\nchown %s: %s", path, strings.Join(lines, "\n"), user, path))
	}
	write("/home/alice/.ssh/known_hosts", "alice", "# mine", hashed+" "+web2.HostKeys()[0].String(), "github.com "+stranger.line())
	write("/home/bob/.ssh/known_hosts", "bob", ip+",web2 "+stranger.line(), "web2 "+web2.HostKeys()[1].String())
	write("/etc/ssh/ssh_known_hosts", "root", "@revoked * "+stranger.line(), "@cert-authority *.example.com "+stranger.line())
	web1.Sh(t, "head -c 2000000 /dev/zero | tr '\\0' x >/home/carol/.ssh/known_hosts")
	for _, h := range all {
		n.add(h, "root", "")
	}
	n.scan()

	var known []struct {
		User, Path, Marker, Names, Host, Fingerprint string
		Line                                         int
	}
	n.json(&known, "host", "known-hosts", "web1")
	var got []string
	for _, k := range known {
		got = append(got, fmt.Sprintf("%s:%d %s%s -> %s", k.User, k.Line, k.Marker, k.Names, k.Host))
	}
	want := []string{
		"alice:2 " + hashed + " -> web2",
		"alice:3 github.com -> ",
		"bob:1 " + ip + ",web2 -> web2",
		"bob:2 web2 -> web2",
		"root:1 @revoked* -> web2",
		"root:2 @cert-authority*.example.com -> ",
	}
	for _, line := range want {
		if !strings.Contains(strings.Join(got, "\n")+"\n", line+"\n") {
			t.Errorf("web1 knows\n%s\nand not\n%s", strings.Join(got, "\n"), line)
		}
	}

	// A known_hosts file that is too long hides nobody who is let in.
	if got := n.key(string(stranger.public.Fingerprint())).places(); got != "web1:carol:/home/carol/.ssh/authorized_keys\nweb2:carol:/home/carol/.ssh/authorized_keys\n" {
		t.Errorf("the stranger is let in at\n%s", got)
	}

	mistrusted := func() (texts []string) {
		var findings []struct {
			Kind, Host, User, Path, Text string
			Line                         int
		}
		n.json(&findings, "finding", "list")
		for _, f := range findings {
			if f.Kind == "mistrusted" {
				texts = append(texts, fmt.Sprintf("%s:%s:%s:%d: %s", f.Host, f.User, f.Path, f.Line, f.Text))
			}
		}
		return texts
	}
	found := mistrusted()
	if len(found) != 1 || !strings.HasPrefix(found[0], "web1:bob:/home/bob/.ssh/known_hosts:1: ") || !strings.Contains(found[0], string(stranger.public.Fingerprint())) || !strings.Contains(found[0], `host "web2"`) {
		t.Errorf("findings: %q; want one, of bob's first line", found)
	}

	// What was wrong is put right, and the finding goes with the next scan.
	write("/home/bob/.ssh/known_hosts", "bob", ip+" "+web2.HostKeys()[0].String())
	n.ok("scan", "web1", "--wait")
	if found := mistrusted(); len(found) != 0 {
		t.Errorf("findings after that: %q", found)
	}
	n.json(&known, "host", "known-hosts", "web1")
	for _, k := range known {
		if k.User == "bob" && k.Names != ip {
			t.Errorf("a line that is gone is still listed: %+v", k)
		}
	}
}
