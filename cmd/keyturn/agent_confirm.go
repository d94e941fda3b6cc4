package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"keyturn/internal/trust"
)

// A confirmer asks a person, one question at a time.
type confirmer struct {
	askpass string        // a program that asks, as ssh-askpass(1) does; or empty for the terminal
	asking  chan struct{} // holds one while somebody is being asked
}

// confirmFor is how long a question waits for an answer.
const confirmFor = 2 * time.Minute

// canAsk reports whether there is a terminal to ask on.
func canAsk() bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	return isTerminal(tty) && inForeground(tty)
}

// inForeground reports whether what is typed at a terminal is for this program.
func inForeground(tty *os.File) bool {
	group := 0
	err := withFD(tty, func(fd int) (err error) {
		group, err = unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		return err
	})
	return err == nil && group == unix.Getpgrp()
}

// withFD calls fn with a terminal, and leaves its deadlines as they are, which
// os.File.Fd does not.
func withFD(tty *os.File, fn func(fd int) error) error {
	raw, err := tty.SyscallConn()
	if err != nil {
		return err
	}
	var did error
	if err := raw.Control(func(fd uintptr) { did = fn(int(fd)) }); err != nil {
		return err
	}
	return did
}

// ask returns nil if the answer is yes.
func (c *confirmer) ask(ctx context.Context, question string) error {
	ctx, cancel := context.WithTimeout(ctx, confirmFor)
	defer cancel()
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return unconfirmed(question)
	}
	ask := askTerminal
	if c.askpass != "" {
		ask = c.askProgram
	}
	return ask(ctx, question)
}

func unconfirmed(question string) *trust.Error {
	return trust.Errorf(trust.Denied, "this was not confirmed: %s", question)
}

// askProgram asks as ssh-agent(1) does: the program ends with 0, and says nothing or yes.
func (c *confirmer) askProgram(ctx context.Context, question string) error {
	cmd := exec.CommandContext(ctx, c.askpass, question)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS_PROMPT=confirm")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	if err != nil || !isYes(string(out), true) {
		return unconfirmed(question)
	}
	return nil
}

// askTerminal asks on the terminal. What was typed before the question is no answer.
func askTerminal(ctx context.Context, question string) error {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return unconfirmed(question)
	}
	defer tty.Close()
	defer context.AfterFunc(ctx, func() {
		_ = tty.SetReadDeadline(time.Unix(1, 0)) // where terminals have none, it waits
	})()
	if !inForeground(tty) {
		return unconfirmed(question).WithHint("the agent asks on the terminal while it is in the foreground there: fg; or name a program that asks in SSH_ASKPASS")
	}
	if err := withFD(tty, flushInput); err != nil {
		return unconfirmed(question)
	}
	if _, err := fmt.Fprintf(tty, "%s [y/N] ", question); err != nil {
		return unconfirmed(question)
	}
	answer, err := bufio.NewReader(tty).ReadString('\n')
	if err != nil || !isYes(answer, false) {
		return unconfirmed(question)
	}
	return nil
}

// isYes reports whether an answer is yes; silence may be, too.
func isYes(answer string, silence bool) bool {
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return true
	case "":
		return silence
	}
	return false
}
