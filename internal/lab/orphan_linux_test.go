package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"keyturn/internal/lab"
)

// parentEnv tells the test binary to be the parent that is killed: it starts
// servers in the directory that the variable names, writes their process ids to
// stdout, and waits.
const parentEnv = "LAB_TEST_PARENT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(parentEnv); dir != "" {
		servers, err := lab.StartAll(context.Background(), dir, []lab.Options{{Name: "a"}, {Name: "b"}, {Name: "c"}})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		for _, s := range servers {
			fmt.Println(s.Pid())
		}
		select {}
	}
	os.Exit(m.Run())
}

func TestNothingSurvivesAKilledParent(t *testing.T) {
	start(t, lab.Options{Name: "can-run"})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	parent := exec.Command(self)
	parent.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	parent.Stderr = os.Stderr
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = parent.Wait() }()
	var pids []int
	for lines := bufio.NewScanner(out); len(pids) < 3 && lines.Scan(); {
		var pid int
		if _, err := fmt.Sscan(lines.Text(), &pid); err != nil || !alive(pid) {
			t.Fatalf("%q: no server", lines.Text())
		}
		pids = append(pids, pid)
	}
	if err := parent.Process.Kill(); err != nil || len(pids) != 3 {
		t.Fatal(len(pids), err)
	}
	for patience := time.Now().Add(10 * time.Second); ; {
		left := 0
		for _, pid := range pids {
			if alive(pid) {
				left++
			}
		}
		if left == 0 {
			return
		}
		if time.Now().After(patience) {
			t.Fatalf("%d of %d servers outlive their parent", left, len(pids))
		}
		time.Sleep(5 * time.Millisecond)
	}
}
