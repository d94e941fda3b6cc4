package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// playbook is how a key is rotated with Ansible by somebody who is careful: the
// new line, a login with the new key over a connection of its own, and only then
// the old line. It has no plan, no lock, no journal, and no way back.
const playbook = `- hosts: all
  gather_facts: false
  tasks:
    - ansible.posix.authorized_key: {user: "{{ ansible_user }}", path: "{{ file }}", key: "{{ next }}", manage_dir: false}
    - ping:
      vars:
        ansible_ssh_private_key_file: "{{ next_identity }}"
        ansible_ssh_extra_args: -o ControlPath=none
    - ansible.posix.authorized_key: {user: "{{ ansible_user }}", path: "{{ file }}", key: "{{ old }}", state: absent, manage_dir: false}
      vars:
        ansible_ssh_private_key_file: "{{ next_identity }}"
        ansible_ssh_extra_args: -o ControlPath=none
`

// BenchmarkAnsible rotates one key on 50 real servers through the API, and, in
// turns with that, by a playbook, with Ansible's own settings and with those that
// make it fastest: forks for all hosts at once, and pipelining.
//
//	x-ansible            wall time of the playbook by that of a rotation
//	x-ansible-pipelined  the same with 50 forks and pipelining
func BenchmarkAnsible(b *testing.B) {
	ansible := need.Program(b, "ansible-playbook", "ansible")
	w := newServers(b, benchHosts)
	w.workers = benchWorkers
	ops, deploy := w.opsKey(), w.keyFile(w.dir+"/deploy", "deploy@ci")
	for _, s := range w.servers {
		for _, key := range []trust.PublicKey{ops, deploy} {
			if err := s.Authorize(key, ""); err != nil {
				b.Fatal(err)
			}
		}
	}
	w.start()
	c := w.withToken()
	w.enrol(c)
	w.ok("key", "import", w.dir+"/deploy")
	uuid := w.key(deploy).UUID
	a := newPlay(w, ansible)

	var rotated, plain, pipelined time.Duration
	b.ResetTimer()
	for range b.N { // as in BenchmarkRotateFleet
		begun := time.Now()
		uuid = w.rotate(c, uuid)
		rotated += time.Since(begun)
		w.quiet()
		plain += a.play()
		pipelined += a.play("ANSIBLE_FORKS=50", "ANSIBLE_PIPELINING=True")
	}
	b.StopTimer()
	b.ReportMetric(plain.Seconds()/rotated.Seconds(), "x-ansible")
	b.ReportMetric(pipelined.Seconds()/rotated.Seconds(), "x-ansible-pipelined")
	b.ReportMetric(rotated.Seconds()/float64(b.N), "s/rotation")
}

// A play rotates a key of its own between two.
type play struct {
	w         *world
	program   string
	inventory string
	keys      [2]trust.PublicKey
	turn      int // which of the two is authorized
}

func newPlay(w *world, program string) *play {
	w.t.Helper()
	a := &play{w: w, program: program, inventory: filepath.Join(w.dir, "inventory")}
	var inventory, known strings.Builder
	for i := range a.keys {
		a.keys[i] = w.keyFile(a.identity(i), "ansible")
	}
	for i, s := range w.servers {
		if err := s.Authorize(a.keys[0], ""); err != nil {
			w.t.Fatal(err)
		}
		host, port, _ := strings.Cut(s.Address(), ":")
		fmt.Fprintf(&inventory, "%s ansible_host=%s ansible_port=%s ansible_user=%s ansible_python_interpreter=/usr/bin/python3 file=%s\n",
			s.Name(), host, port, s.User(), w.authorized(i))
		known.WriteString(s.KnownHosts())
	}
	for path, text := range map[string]string{a.inventory: inventory.String(), a.path("known_hosts"): known.String(), a.path("play.yml"): playbook} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
	return a
}

func (a *play) path(name string) string { return filepath.Join(a.w.dir, name) }

func (a *play) identity(i int) string { return a.path(fmt.Sprintf("ansible%d", i)) }

// play runs the playbook, checks what it did, and returns how long it took.
func (a *play) play(env ...string) time.Duration {
	a.w.t.Helper()
	ctx, cancel := context.WithTimeout(a.w.t.Context(), 5*time.Minute)
	defer cancel()
	old, next := a.keys[a.turn], a.keys[1-a.turn]
	cmd := exec.CommandContext(ctx, a.program, "-i", a.inventory, "--private-key", a.identity(a.turn),
		"--ssh-common-args", "-o IdentitiesOnly=yes -o UserKnownHostsFile="+a.path("known_hosts"),
		"-e", "old='"+old.String()+"' next='"+next.String()+"' next_identity="+a.identity(1-a.turn), a.path("play.yml"))
	cmd.Env = append(os.Environ(), append(env, "HOME="+a.w.dir, "ANSIBLE_SSH_CONTROL_PATH_DIR="+a.path("control"), "ANSIBLE_LOCALHOST_WARNING=False")...)
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begun)
	if err != nil {
		a.w.t.Fatalf("%v\n%s", err, out)
	}
	for i, s := range a.w.servers {
		if text := a.w.read(a.w.authorized(i)); !strings.Contains(text, next.String()) || strings.Contains(text, old.String()) {
			a.w.t.Fatalf("the playbook made of %s\n%s", s.Name(), text)
		}
	}
	a.turn = 1 - a.turn
	return took
}
