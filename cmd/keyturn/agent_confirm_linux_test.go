package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
)

// atTerminal runs the program by a shell with job control, at a terminal of its own.
type atTerminal struct {
	t    testing.TB
	cmd  *exec.Cmd
	tty  *os.File
	mu   sync.Mutex
	said bytes.Buffer // guarded by mu
}

func (w *world) atTerminal(env map[string]string, script string, args ...string) *atTerminal {
	w.t.Helper()
	binary, err := program()
	if err != nil {
		w.t.Fatal(err)
	}
	a := &atTerminal{t: w.t, cmd: exec.Command("sh", append([]string{"-m", "-c", script, "sh", binary}, args...)...)}
	a.cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}
	for name, value := range env {
		a.cmd.Env = append(a.cmd.Env, name+"="+value)
	}
	a.tty = startAtTerminal(w.t, a.cmd)
	go func() {
		for buffer := make([]byte, 4096); ; {
			n, err := a.tty.Read(buffer)
			if err != nil { // which is how a terminal ends
				return
			}
			a.mu.Lock()
			a.said.Write(buffer[:n])
			a.mu.Unlock()
		}
	}()
	return a
}

// types types, once the terminal shows what is to come before, and forgets what it showed.
func (a *atTerminal) types(before, typed string) {
	a.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		a.mu.Lock()
		shows := a.said.String()
		if strings.Contains(shows, before) {
			a.said.Reset()
			a.mu.Unlock()
			break
		}
		a.mu.Unlock()
		if time.Now().After(deadline) {
			a.t.Fatalf("the terminal does not show %q, but %q", before, shows)
		}
	}
	if _, err := a.tty.WriteString(typed); err != nil {
		a.t.Fatal(err)
	}
}

// On a terminal it is the answer that counts, not what was typed before; and an agent that
// is in the background there says no, and does not stop.
func TestAgentConfirmsAtTerminal(t *testing.T) {
	t.Parallel()
	need.Within(t, 5*time.Minute) // with what is built for it
	w := newWorld(t, 0)
	k := w.generated()
	public, _, _, _, err := ssh.ParseAuthorizedKey([]byte(k.PublicKey))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "kta") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	alice := w.user("alice", "Keys Use")
	a := &testAgent{w: w, socket: filepath.Join(dir, "s")}
	asks := func() <-chan byte {
		answer := make(chan byte, 1)
		go func() {
			login := ssh.Marshal(struct {
				Session               string
				Message               byte
				User, Service, Method string
				Signature             bool
				Algorithm             string
				Key                   []byte
			}{"a session", 50, "git to nobody", "ssh-connection", "publickey", true, public.Type(), public.Marshal()})
			answer <- a.ask(ssh.Marshal(struct {
				Key   []byte `sshtype:"13"`
				Data  []byte
				Flags uint32
			}{public.Marshal(), login, 0}))[0]
		}()
		return answer
	}
	question := `Log in as "git to nobody" with key ` + k.Fingerprint + "? [y/N] "

	at := w.atTerminal(alice, `"$@"; bg; read line; kill %1; wait`, "agent", "--confirm", "--socket", a.socket)
	at.types("SSH_AUTH_SOCK=", "y\n")
	at.types("y\r\n", "") // it is shown, and so typed
	answer := asks()
	at.types(question, "n\n")
	if got := <-answer; got != 5 {
		t.Errorf("denied, but for what was typed before: message %d", got)
	}
	answer = asks()
	at.types(question, "y\n")
	if got := <-answer; got != 14 {
		t.Errorf("confirmed: message %d", got)
	}
	at.types("", "\x1a")
	at.types("[1]", "")
	if got := <-asks(); got != 5 {
		t.Errorf("in the background: message %d", got)
	}
	at.types("in the foreground there", "\n")
	if err := at.cmd.Wait(); err != nil {
		t.Logf("the shell: %v", err)
	}

	at = w.atTerminal(alice, `"$@" & wait $!`, "agent", "--confirm", "--socket", a.socket)
	at.types("nobody to ask", "")
	_ = at.cmd.Wait()
}

// An interrupt at the terminal is for the command, which may live on.
func TestAgentInterrupted(t *testing.T) {
	t.Parallel()
	need.Within(t, 5*time.Minute) // with what is built for it
	w := newWorld(t, 0)
	w.generated()
	at := w.atTerminal(w.user("alice", "Keys Use"), `"$@"; echo "exit code $?"`, "agent", "--", "sh", "-c",
		`trap 'echo caught' INT; echo ready; until read line; do :; done; echo "read $line"; until read line; do :; done; exit 7`)
	at.types("ready", "\x03")
	at.types("caught", "one\n")
	at.types("read one", "two\n")
	at.types("exit code 7", "")
	_ = at.cmd.Wait()
}
