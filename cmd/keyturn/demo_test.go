package main

import (
	"bufio"
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"keyturn/internal/need"
)

// The demo is what a newcomer runs first. It tells the truth: it fails where a
// server of its own is killed. It leaves nothing behind.
func TestDemo(t *testing.T) {
	need.Long(t)
	t.Parallel()
	need.Program(t, "sshd", "openssh-server")
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	temp := t.TempDir()
	demo := func() *exec.Cmd {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
		t.Cleanup(cancel)
		cmd := exec.CommandContext(ctx, binary, "demo")
		cmd.Env = append(os.Environ(), "TMPDIR="+temp)
		return cmd
	}
	if out, err := exec.Command(binary, "demo", "--json").CombinedOutput(); err == nil || !strings.Contains(string(out), "no JSON value") {
		t.Errorf("with --json: %v\n%s", err, out)
	}
	out, err := demo().CombinedOutput()
	if err != nil {
		t.Fatalf("demo: %v\n%s", err, out)
	}
	for _, want := range []string{
		"deploy@ci (2019)", "(new key)", "nothing was changed", "killed the server (kill -9) in row ", "new key proven: login; the one before is refused", "former key proven: login; the one before is refused",
		"held in row Prove", "the old key was never touched", "byte for byte", "was refused 0 times",
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("the demo does not say %q:\n%s", want, out)
		}
	}

	cmd := demo()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	killed, said := false, ""
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		said += lines.Text() + "\n"
		if strings.Contains(lines.Text(), "web3 is OpenSSH") && !killed {
			killed = killSSHD(t, cmd.Process.Pid)
		}
	}
	if err := cmd.Wait(); err == nil || !killed {
		t.Errorf("an sshd was killed (%v), and the demo ended well:\n%s", killed, said)
	}
	if left, err := os.ReadDir(temp); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

// killSSHD kills the sshd servers that a process has started.
func killSSHD(t *testing.T, parent int) bool {
	t.Helper()
	killed := false
	children, err := filepath.Glob("/proc/" + strconv.Itoa(parent) + "/task/*/children")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range children {
		list, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		for _, child := range strings.Fields(string(list)) {
			name, err := os.ReadFile("/proc/" + child + "/comm")
			if err != nil || strings.TrimSpace(string(name)) != "sshd" {
				continue
			}
			pid, err := strconv.Atoi(child)
			if err != nil {
				t.Fatal(err)
			}
			killed = syscall.Kill(pid, syscall.SIGKILL) == nil || killed
		}
	}
	return killed
}
