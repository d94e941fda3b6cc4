//go:build linux

package lab_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"keyturn/test/lab"
)

// stayEnv makes TestStay boot hosts and wait to be killed.
const stayEnv = "LAB_TEST_STAY"

// TestStay is what TestNothingOutlivesAKilledTest kills, and nothing else.
func TestStay(t *testing.T) {
	if os.Getenv(stayEnv) == "" {
		return
	}
	w, key := lab.NewWorld(t), newKey(t)
	users := []lab.User{{Name: "alice", AuthorizedKeys: []string{key.line}}}
	specs := []lab.Spec{{Name: "a", Users: users}, {Name: "b", Users: users}}
	if _, err := lab.Systemd.Path(t.Context()); err == nil {
		specs = append(specs, lab.Spec{Name: "c", Root: lab.Systemd, Users: users})
	}
	for _, h := range w.BootAll(t, specs...) {
		mustRun(t, h, "alice", key, "(setsid sleep 100000 >/dev/null 2>&1 </dev/null &)")
	}
	fmt.Println("staying")
	select {}
}

// This test's own world is the machine for the one that it kills.
func TestNothingOutlivesAKilledTest(t *testing.T) {
	lab.NewWorld(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	processesBefore, mountsBefore, linksBefore := processes(t), mounts(t), links(t)

	child := exec.Command(self, "-test.run=^TestStay$", "-test.v")
	child.Env = append(os.Environ(), stayEnv+"=1")
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	staying := false
	var said strings.Builder
	for lines := bufio.NewScanner(out); !staying && lines.Scan(); {
		staying = lines.Text() == "staying"
		fmt.Fprintln(&said, lines.Text())
	}
	during := len(processes(t)) - len(processesBefore)
	killErr := child.Process.Kill()
	waitErr := child.Wait()
	if !staying || killErr != nil {
		t.Fatalf("the test to be killed does not stay: %v, %v\n%s", killErr, waitErr, said.String())
	}
	if during < 8 { // outside, process 1, inside; and on each host init, sshd, sleep
		t.Errorf("only %d processes ran", during)
	}

	eventually(t, "processes outlive the test", func() bool {
		return !slices.ContainsFunc(processes(t), func(pid string) bool { return !slices.Contains(processesBefore, pid) })
	})
	if after := mounts(t); after != mountsBefore {
		t.Errorf("mounts were\n%sare\n%s", mountsBefore, after)
	}
	if after := links(t); after != linksBefore {
		t.Errorf("links were\n%sare\n%s", linksBefore, after)
	}
	// The next run takes away what the kernel keeps of the control groups.
	again := exec.Command(self, "-test.run=^$")
	if out, err := again.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	groups := strings.Fields(output(t, "find", "/sys/fs/cgroup", "-type", "d", "-name", "keyturn-lab."+strconv.Itoa(child.Process.Pid)))
	if len(groups) > 0 {
		t.Errorf("control groups are left: %q", groups)
	}
}

// processes returns the ids of the processes that have not ended.
func processes(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	var pids []string
	for _, path := range paths {
		if stat, err := os.ReadFile(path); err == nil && !strings.Contains(string(stat), ") Z ") {
			pids = append(pids, filepath.Base(filepath.Dir(path)))
		}
	}
	return pids
}

func mounts(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func links(t *testing.T) string {
	t.Helper()
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, i := range interfaces {
		fmt.Fprintln(&b, i.Name)
	}
	return b.String()
}

func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
