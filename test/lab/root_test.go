//go:build linux

package lab_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	rootless "keyturn/internal/lab"
	"keyturn/test/lab"
)

// Every root boots, lets in whom it should by both of its ways to become root, and
// says in its log who that was.
func TestRoots(t *testing.T) {
	for _, c := range []struct {
		root   lab.Root
		banner string // what the server's version begins with
		first  string // the name of process 1
	}{
		{lab.OpenSSH92, "SSH-2.0-OpenSSH_9.2", "sh"},
		{lab.OpenSSH84, "SSH-2.0-OpenSSH_8.4", "sh"},
		{lab.OpenSSH100, "SSH-2.0-OpenSSH_10.0", "sh"},
		{lab.Newest, "SSH-2.0-OpenSSH_1", "sh"},
		{lab.Systemd, "SSH-2.0-OpenSSH_9.2", "systemd"},
		{lab.Dropbear, "SSH-2.0-dropbear", "sh"},
	} {
		t.Run(string(c.root), func(t *testing.T) {
			w, key := lab.NewWorld(t), newKey(t)
			keys := []string{key.line}
			begin := time.Now()
			h := w.Boot(t, lab.Spec{Name: "host", Root: c.root, Users: []lab.User{
				{Name: "alice", AuthorizedKeys: keys, Become: "sudo"},
				{Name: "bob", AuthorizedKeys: keys, Become: "doas", Shell: "bash"},
				{Name: "carol", AuthorizedKeys: keys, Shell: "busybox"},
			}})
			t.Logf("booted in %v", time.Since(begin).Round(time.Millisecond))

			client, err := dial(h, "alice", key, netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if got := string(client.ServerVersion()); !strings.HasPrefix(got, c.banner) {
				t.Errorf("server says %q, want %q", got, c.banner)
			}
			e, err := h.Log().Await(deadline(t), 0, rootless.AcceptedBy(key.fingerprint))
			if err != nil {
				t.Fatal(err)
			}
			if e.User != "alice" || !strings.HasPrefix(e.Source, w.Gateway().String()+":") || e.PID == 0 {
				t.Errorf("log of the login: %+v", e)
			}
			for _, step := range []struct{ user, command, want string }{
				{"alice", "sudo -n id -un", "root"},
				{"bob", "doas -n id -un", "root"},
				{"carol", "echo $HOME", "/home/carol"},
				{"alice", "cat /proc/1/comm", c.first},
			} {
				if got := mustRun(t, h, step.user, key, step.command); got != step.want {
					t.Errorf("%s: %q gives %q, want %q", step.user, step.command, got, step.want)
				}
			}

			begin = time.Now()
			h.Reboot(t)
			t.Logf("on again after %v", time.Since(begin).Round(time.Millisecond))
			mustRun(t, h, "alice", key, "true")
			if c.root != lab.Dropbear { // which reloads nothing
				h.Reload(t)
				mustRun(t, h, "alice", key, "true")
			}
		})
	}
}

func TestSystemd(t *testing.T) {
	w, key := lab.NewWorld(t), newKey(t)
	h := w.Boot(t, lab.Spec{Name: "host", Root: lab.Systemd, Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{key.line}}}})
	h.Sh(t, "systemctl is-active ssh && systemctl reload ssh")
	eventually(t, "nothing listens after a reload", func() bool {
		_, err := run(h, "alice", key, "true")
		return err == nil
	})
	// A timer fires by itself, and what is enabled starts at the next boot.
	h.Sh(t, "systemd-run --on-active=1s --timer-property=AccuracySec=100ms touch /root/fired")
	eventually(t, "no timer fires", func() bool { return h.Sh(t, "test -e /root/fired && echo yes || :") == "yes\n" })
	h.Sh(t, `printf '[Service]\nType=oneshot\nExecStart=/bin/touch /root/booted\n[Install]\nWantedBy=multi-user.target\n' > /etc/systemd/system/hook.service
systemctl enable -q hook`)
	h.Reboot(t)
	eventually(t, "an enabled unit does not start", func() bool { return h.Sh(t, "test -e /root/booted && echo yes || :") == "yes\n" })
}

// Servers that penalize do so on every second host, unless told.
func TestPenalties(t *testing.T) {
	w, key, wrong := lab.NewWorld(t), newKey(t), newKey(t)
	users := []lab.User{{Name: "alice", AuthorizedKeys: []string{key.line}}}
	hosts := w.BootAll(t,
		lab.Spec{Name: "odd", Root: lab.OpenSSH100, Users: users},
		lab.Spec{Name: "even", Root: lab.OpenSSH100, Users: users},
		lab.Spec{Name: "exempt", Root: lab.OpenSSH100, Users: users, Penalties: lab.Exempt},
		lab.Spec{Name: "lenient", Root: lab.OpenSSH100, Users: users, Penalties: lab.Exempt},
	)
	for _, h := range hosts {
		penalized := false
		for range 8 {
			// Each failure costs 5 s; from 15 s on sshd hangs up at once.
			if _, err := dial(h, "alice", wrong, netip.Addr{}); err == nil {
				t.Fatal("a wrong key logs in")
			} else if !strings.Contains(err.Error(), "unable to authenticate") {
				penalized = true
			}
		}
		if want := h.Name() == "even"; penalized != want {
			t.Errorf("host %q: penalized is %v, want %v", h.Name(), penalized, want)
		}
	}
}

func TestHostKeyTypes(t *testing.T) {
	w := lab.NewWorld(t)
	h := w.Boot(t, lab.Spec{Name: "host", HostKeys: []string{"rsa", "ed25519"}})
	var types []string
	for _, key := range h.HostKeys() {
		types = append(types, key.Type())
	}
	if got := fmt.Sprint(types); got != "[ssh-rsa ssh-ed25519]" {
		t.Errorf("host keys are %s", got)
	}
}
