package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

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
	return isTerminal(tty)
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
	if !ask(ctx, question) {
		return unconfirmed(question)
	}
	return nil
}

func unconfirmed(question string) error {
	return trust.Errorf(trust.Denied, "this was not confirmed: %s", question)
}

// askProgram asks as ssh-agent(1) does: the program ends with 0, and says nothing or yes.
func (c *confirmer) askProgram(ctx context.Context, question string) bool {
	cmd := exec.CommandContext(ctx, c.askpass, question)
	cmd.Env = append(os.Environ(), "SSH_ASKPASS_PROMPT=confirm")
	cmd.WaitDelay = time.Second
	out, err := cmd.Output()
	return err == nil && isYes(string(out), true)
}

// askTerminal asks on the terminal.
func askTerminal(ctx context.Context, question string) bool {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer tty.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = tty.SetReadDeadline(deadline) // where terminals have none, it waits
	}
	if _, err := fmt.Fprintf(tty, "%s [y/N] ", question); err != nil {
		return false
	}
	answer, err := bufio.NewReader(tty).ReadString('\n')
	return err == nil && isYes(answer, false)
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
