package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyturn/internal/need"
)

// The passphrase is asked for at the terminal, a new one twice.
func TestPassphraseIsTyped(t *testing.T) {
	need.Long(t)
	t.Parallel()
	need.Within(t, 2*time.Minute)
	binary, err := program()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	const right = "correct horse battery"
	for _, test := range []struct {
		typed []string // at each prompt
		says  string
	}{
		{[]string{right, "correct horse batery"}, "are not the same"},
		{[]string{right, right}, "keyturn is serving"},
		{[]string{right}, "keyturn is serving"},
		{[]string{"another horse battery"}, "is sealed under key-encryption key"},
	} {
		cmd := exec.Command(binary, "serve", "--data", filepath.Join(dir, "data"), "--kek-passphrase", "--http", "127.0.0.1:0")
		cmd.Env = append(os.Environ(), "KEYTURN_ADMIN_PASSWORD="+testPassword)
		terminal := startAtTerminal(t, cmd)
		said := ""
		for buffer, typed := make([]byte, 4096), 0; !strings.Contains(said, test.says); {
			n, err := terminal.Read(buffer)
			if err != nil { // which is how a terminal ends
				break
			}
			said += string(buffer[:n])
			if prompts := strings.Count(said, "key: ") + strings.Count(said, "more: "); prompts > typed && typed < len(test.typed) {
				for echoes(t, terminal) { // until the program reads
					time.Sleep(time.Millisecond)
				}
				if _, err := terminal.WriteString(test.typed[typed] + "\n"); err != nil {
					t.Fatal(err)
				}
				typed++
			}
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if !strings.Contains(said, test.says) || strings.Contains(said, "horse") || strings.Contains(said, "New") != (len(test.typed) == 2) {
			t.Errorf("typed %q: %s\nwant it to say %q, and nothing of what was typed", test.typed, said, test.says)
		}
	}
}

// echoes reports whether what is typed at a terminal is shown.
func echoes(t *testing.T, terminal *os.File) bool {
	t.Helper()
	state, err := unix.IoctlGetTermios(int(terminal.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return state.Lflag&unix.ECHO != 0
}

// startAtTerminal starts a command at a terminal of its own, and returns the other end.
func startAtTerminal(t testing.TB, cmd *exec.Cmd) *os.File {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer slave.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return master
}
