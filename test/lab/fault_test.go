//go:build linux

package lab_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	rootless "keyturn/internal/lab"
	"keyturn/test/lab"
)

// boot boots one host with an account that key opens.
func boot(t *testing.T, key keyPair) (*lab.World, *lab.Host) {
	t.Helper()
	w := lab.NewWorld(t)
	return w, w.Boot(t, lab.Spec{Name: "web1", Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{key.line}}}})
}

func TestPowerCut(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	mustRun(t, h, "alice", key, "echo kept > f; (sleep 1000 </dev/null >/dev/null 2>&1 &)")
	id := h.Sh(t, "cat /etc/machine-id")
	c, err := dial(h, "alice", key, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	h.PowerCut()
	if _, err := h.Run(t.Context(), "true"); err == nil {
		t.Error("a script runs on a host that is off")
	}
	if _, err := dial(h, "alice", key, netip.Addr{}); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial: %v, want no answer at all", err)
	}
	begin := time.Now()
	if err := h.PowerOn(); err != nil {
		t.Fatal(err)
	}
	t.Logf("on again after %v", time.Since(begin).Round(time.Millisecond))
	// dial also checks that the host key is the one of before.
	if got := mustRun(t, h, "alice", key, "cat f"); got != "kept" {
		t.Errorf("file says %q after the power cut, want %q", got, "kept")
	}
	if got := mustRun(t, h, "alice", key, "ps ax | grep -c '[s]leep 1000$'; true"); got != "0" {
		t.Errorf("%s processes of before run after the power cut", got)
	}
	if again := h.Sh(t, "cat /etc/machine-id"); again != id {
		t.Errorf("machine-id %s, was %s", again, id)
	}
	if err := h.PowerOn(); err == nil {
		t.Error("a host that is on is switched on")
	}
}

func TestBootRunsRcLocal(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	h.Sh(t, `printf '#!/bin/sh\ntouch /root/rc.local.ran\n' > /etc/rc.local; chmod 755 /etc/rc.local`)
	h.Reboot(t)
	h.Sh(t, "test -e /root/rc.local.ran")
}

func TestCutNetworkAndHeal(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	c, err := dial(h, "alice", key, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h.CutNetwork(t)
	if _, err := dial(h, "alice", key, netip.Addr{}); !isTimeout(err) {
		t.Errorf("dial over a cut cable: %v, want a timeout", err)
	}
	h.Heal(t)
	mustRun(t, h, "alice", key, "true")
	// The connection of before has lost nothing but time.
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	if out, err := s.Output("echo alive"); err != nil || string(out) != "alive\n" {
		t.Errorf("connection of before: %q, %v", out, err)
	}
}

func TestFillDiskAndFreeDisk(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	h.FillDisk(t)
	out, err := run(h, "alice", key, "/bin/echo x > f")
	if err == nil || !strings.Contains(out, "No space left") {
		t.Errorf("write to a full disk: %q, %v", out, err)
	}
	h.FreeDisk(t)
	mustRun(t, h, "alice", key, "echo x > f")
}

func TestSecondWriter(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	const path = "/home/alice/.ssh/authorized_keys"
	write := h.SecondWriter(t, "echo '# by another hand' >> "+path)
	before, err := h.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(before), "another hand") {
		t.Fatal("the second writer has not waited")
	}
	begin := time.Now()
	if err := write(); err != nil {
		t.Fatal(err)
	}
	t.Logf("written within %v", time.Since(begin).Round(time.Microsecond))
	after, err := h.ReadFile(path)
	if err != nil || string(after) != string(before)+"# by another hand\n" {
		t.Errorf("file is %q, %v", after, err)
	}
	if err := h.SecondWriter(t, "exit 3")(); err == nil {
		t.Error("a script that fails is not reported")
	}
}

func TestOtherSource(t *testing.T) {
	w, key, restricted := lab.NewWorld(t), newKey(t), newKey(t)
	h := w.Boot(t, lab.Spec{Name: "web1", Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{
		`from="10.99.252.7" ` + restricted.line, key.line,
	}}}})
	if _, err := dial(h, "alice", restricted, netip.Addr{}); err == nil {
		t.Fatal("from= lets in the usual address")
	}
	if _, err := h.Log().Await(deadline(t), 0, rootless.IsKind(rootless.Refused)); err != nil {
		t.Error(err)
	}
	other := w.OtherSource(t, "10.99.252.7")
	c, err := dial(h, "alice", restricted, other)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got := c.LocalAddr().String(); !strings.HasPrefix(got, "10.99.252.7:") {
		t.Errorf("connected from %s", got)
	}
}

func TestFreezeAndThaw(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	if err := h.Freeze(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		c, err := dial(h, "alice", key, netip.Addr{})
		if err == nil {
			err = c.Close()
		}
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Fatalf("a frozen host answers: %v", err)
	case <-time.After(300 * time.Millisecond):
	}
	if err := h.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("after thaw: %v", err)
	}
}

func TestReload(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	h.Sh(t, `printf "Port 22\nPort 2222\n" >> /etc/ssh/sshd_config`)
	h.Reload(t)
	if c, err := net.DialTimeout("tcp", h.Addr().String()+":2222", time.Second); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
	mustRun(t, h, "alice", key, "true")
	// A wrong configuration takes the server away, and the host stays.
	h.Sh(t, `sed 1iNoSuchKeyword /etc/ssh/sshd_config > /tmp/c && cp /tmp/c /etc/ssh/sshd_config && kill -HUP "$(cat /run/sshd.pid)"`)
	eventually(t, "sshd survives a wrong configuration", func() bool {
		_, err := dial(h, "alice", key, netip.Addr{})
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	h.Sh(t, "sed -i 1d /etc/ssh/sshd_config && /usr/sbin/sshd")
	eventually(t, "sshd cannot be started again", func() bool {
		_, err := run(h, "alice", key, "true")
		return err == nil
	})
}

func TestAccounts(t *testing.T) {
	w, key := lab.NewWorld(t), newKey(t)
	keys := []string{key.line}
	h := w.Boot(t, lab.Spec{Name: "web1", SSHD: []string{"UsePAM no"}, Users: []lab.User{
		{Name: "root", AuthorizedKeys: keys},
		{Name: "alice", AuthorizedKeys: keys, Become: "sudo"},
		{Name: "bob", AuthorizedKeys: keys, Become: "doas", Shell: "bash"},
		{Name: "carol", AuthorizedKeys: keys, Shell: "busybox"},
		{Name: "dave", AuthorizedKeys: keys, Locked: true},
		{Name: "erin", Identities: map[string][]byte{".ssh/id_ed25519": []byte("secret\n")}},
	}})
	for _, c := range []struct{ user, command, want string }{
		{"root", "id -un; echo $HOME", "root\n/root"},
		{"alice", "sudo -n id -un", "root"},
		{"alice", "readlink /proc/$$/exe; :", "/usr/bin/dash"},
		{"bob", "doas -n id -un", "root"},
		{"bob", "readlink /proc/$$/exe; :", "/usr/bin/bash"},
		{"carol", "readlink /proc/$$/exe; :", "/usr/bin/busybox"},
		{"carol", "pwd; ls -ld ~ ~/.ssh ~/.ssh/authorized_keys | cut -c1-10", "/home/carol\ndrwx------\ndrwx------\n-rw-------"},
	} {
		got := mustRun(t, h, c.user, key, c.command)
		if strings.ReplaceAll(got, "/bin/busybox", "/usr/bin/busybox") != c.want && got != c.want {
			t.Errorf("%s: %q gives %q, want %q", c.user, c.command, got, c.want)
		}
	}
	if _, err := run(h, "carol", key, "sudo -n true || doas -n true"); err == nil {
		t.Error("carol can become root")
	}
	if _, err := dial(h, "dave", key, netip.Addr{}); err == nil {
		t.Error("a locked account lets its key in")
	}
	if got := h.Sh(t, "stat -c %U:%G:%a /home/erin/.ssh/id_ed25519"); got != "erin:erin:600\n" {
		t.Errorf("identity is %s", got)
	}
	h.WriteFile(t, "erin", "/home/erin/.ssh/authorized_keys", []byte(key.line+"\n"), 0o600)
	mustRun(t, h, "erin", key, "true")
}

// The machine's own files are the lower layer; what is not the distribution's must
// not show.
func TestHostHasNothingOfTheMachine(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	if out := h.Sh(t, "ls -A /root /tmp /etc/sudoers.d | grep -v :"); strings.TrimSpace(out) != "lab" {
		t.Errorf("the host sees %s", out)
	}
	if out := h.Sh(t, "cut -d: -f2 /etc/shadow | sort -u"); out != "*\n" {
		t.Errorf("password fields are %q", out)
	}
	if out := h.Sh(t, "ip -o link | wc -l; ls /proc | grep -c '^[0-9]'"); !strings.HasPrefix(out, "2\n") {
		t.Errorf("links and processes: %s", out)
	}
	// And it changes nothing of it.
	h.Sh(t, "echo changed > /usr/share/keyturn-lab-test; rm -f /etc/passwd")
	if _, err := os.Stat("/usr/share/keyturn-lab-test"); err == nil {
		t.Error("a host has written to the machine")
	}
	if _, err := os.Stat("/etc/passwd"); err != nil {
		t.Error(err)
	}
}

func TestOrphansAreReaped(t *testing.T) {
	key := newKey(t)
	_, h := boot(t, key)
	h.Sh(t, "(sleep 0.01 &); (true &)")
	eventually(t, "zombies stay", func() bool {
		return h.Sh(t, "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') Z ' || :") == "0\n"
	})
}

func TestOpenSSHClient(t *testing.T) {
	w := lab.NewWorld(t)
	dir := t.TempDir()
	identity := filepath.Join(dir, "id")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", identity).CombinedOutput(); err != nil {
		t.Fatal(err, string(out))
	}
	public, err := os.ReadFile(identity + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	h := w.Boot(t, lab.Spec{Name: "web1", Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{strings.TrimSpace(string(public))}}}})
	if err := os.WriteFile(filepath.Join(dir, "known_hosts"), []byte(h.KnownHosts()), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "ssh", "-F", "none", "-n", "-i", identity, "-o", "IdentitiesOnly=yes", "-o", "BatchMode=yes",
		"-o", "UserKnownHostsFile="+filepath.Join(dir, "known_hosts"), "-o", "StrictHostKeyChecking=yes",
		"alice@"+h.Addr().String(), "hostname; tty || test -c /dev/ptmx; echo $SSH_CONNECTION")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "web1\n") || !strings.Contains(string(out), w.Gateway().String()+" ") {
		t.Fatalf("%v\n%s", err, out)
	}
	// A terminal, too.
	cmd = exec.CommandContext(t.Context(), "ssh", append([]string{"-tt"}, cmd.Args[1:len(cmd.Args)-1]...)...)
	cmd.Args = append(cmd.Args, "tty")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "/dev/pts/") {
		t.Errorf("no terminal: %v\n%s", err, out)
	}
}

func TestHostsSeeEachOther(t *testing.T) {
	w := lab.NewWorld(t)
	hosts := w.BootAll(t, lab.Spec{Name: "a"}, lab.Spec{Name: "b"})
	line, _, _ := strings.Cut(hosts[1].KnownHosts(), "\n")
	got := hosts[0].Sh(t, "ssh-keyscan -t ed25519 "+hosts[1].Addr().String()+" 2>/dev/null")
	if strings.TrimSpace(got) != line {
		t.Errorf("keyscan from a to b: %q, want %q", got, line)
	}
}

func TestContainer(t *testing.T) {
	w, key := lab.NewWorld(t), newKey(t)
	h := w.Boot(t, lab.Spec{Name: "box", Container: true, Users: []lab.User{{Name: "alice", AuthorizedKeys: []string{key.line}}}})
	if got := mustRun(t, h, "alice", key, "cat /proc/1/comm"); got != "sshd" {
		t.Errorf("process 1 is %q", got)
	}
}
