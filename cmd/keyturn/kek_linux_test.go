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
	binary, err := program() // which may have to be built
	if err != nil {
		t.Fatal(err)
	}
	need.Within(t, 2*time.Minute)
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

// Ctrl-C ends a command that waits for what is typed, and leaves a terminal that echoes.
func TestInterruptAtAPrompt(t *testing.T) {
	t.Parallel()
	binary, err := program() // which may have to be built
	if err != nil {
		t.Fatal(err)
	}
	need.Within(t, 2*time.Minute)
	server := "KEYTURN_SERVER=http://127.0.0.1:1" // nobody is asked before the prompt
	for _, args := range [][]string{
		{"login", "--user", "admin"},
		{"serve", "--data", filepath.Join(t.TempDir(), "data"), "--kek-passphrase", "--http", "127.0.0.1:0"},
	} {
		cmd := exec.Command(binary, args...)
		cmd.Env = append(os.Environ(), server)
		terminal := startAtTerminal(t, cmd)
		said, pressed := "", false
		for buffer := make([]byte, 4096); ; {
			n, err := terminal.Read(buffer)
			if err != nil {
				break // the program has ended, and with it the terminal
			}
			if said += string(buffer[:n]); strings.HasSuffix(said, ": ") && !pressed {
				pressed = true
				for echoes(t, terminal) { // until the program reads
					time.Sleep(time.Millisecond)
				}
				if _, err := terminal.WriteString("\x03"); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 1 || !strings.Contains(said, "interrupt signal received") || strings.Contains(said, "database") {
			t.Errorf("keyturn %s: %v, %q", strings.Join(args, " "), err, said)
		}
		if !echoes(t, terminal) {
			t.Errorf("keyturn %s leaves a terminal without an echo", strings.Join(args, " "))
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
