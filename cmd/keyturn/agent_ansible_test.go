package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// Ansible logs in by an agent whose keys the server holds, to several hosts at once and
// with no key file, as long as the user may.
func TestAgentAnsible(t *testing.T) {
	t.Parallel()
	need.Long(t)
	program, err := exec.LookPath("ansible-playbook")
	if err != nil {
		need.Optional(t, "ansible-playbook is not installed (package ansible, which is large)")
	}
	w := newWorld(t, 2)
	k := w.generated()
	var inventory, known strings.Builder
	for _, s := range w.servers {
		host, port, err := net.SplitHostPort(s.Address())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&inventory, "%s ansible_host=%s ansible_port=%s ansible_user=%s ansible_python_interpreter=/usr/bin/python3 here=%s\n", s.Name(), host, port, s.User(), s.Home())
		known.WriteString(s.KnownHosts())
	}
	path := func(name string) string { return filepath.Join(w.dir, name) }
	w.write(path("inventory"), inventory.String())
	w.write(path("known_hosts"), known.String())
	w.write(path("play.yml"), `- hosts: all
  gather_facts: false
  tasks:
    - copy: {content: "deployed {{ turn }}", dest: "{{ here }}/deployed"}
`)
	a := w.agent(w.user("alice", "Keys Use"))
	play := func(turn string) (string, error) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, "-i", path("inventory"), "-e", "turn="+turn,
			"--ssh-common-args", "-F none -o ControlPath=none -o IdentityFile=none -o UserKnownHostsFile="+path("known_hosts"), path("play.yml"))
		cmd.Env = append(os.Environ(), "HOME="+w.dir, "SSH_AUTH_SOCK="+a.socket)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := play("once"); err != nil {
		t.Errorf("the playbook: %v: %s; the agent says: %s", err, out, a.says())
	}
	w.ok("key", "allow", k.UUID, "--user", "admin")
	if out, err := play("twice"); err == nil || strings.Count(out, "UNREACHABLE!") != len(w.servers) {
		t.Errorf("the playbook of a user who may not: %v: %s; the agent says: %s", err, out, a.says())
	}
	for _, s := range w.servers {
		if got := w.read(filepath.Join(s.Home(), "deployed")); got != "deployed once" {
			t.Errorf("on %s lies %q", s.Name(), got)
		}
	}
}
