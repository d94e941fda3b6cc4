package dial

import (
	"context"
	"errors"
	"io"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A Process is a command that goes on running on the host, and is spoken with. What it
// says must be read: sshd makes it wait once there are 2 MiB that nobody read.
type Process struct {
	Stdin          io.WriteCloser
	Stdout, Stderr io.Reader
	Ended          <-chan struct{} // closed when the command has ended, or the connection
	Close          func()          // leaves the command alone: nobody reads what it says from now on
	Cut            func()          // ends the connection, and whatever waits for it
}

// Start begins to execute a command without a terminal, as Run does, and returns when
// the server has taken it. ctx bounds only that. Errors are those of Run; Denied also
// where the server does not take the command.
func (c *Conn) Start(ctx context.Context, command string) (*Process, error) {
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	s, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	p := &Process{Ended: ended, Close: func() { _ = s.Close() }, Cut: func() { _ = c.Close() }}
	if p.Stdin, err = s.StdinPipe(); err == nil {
		p.Stdout, err = s.StdoutPipe()
	}
	if err == nil {
		p.Stderr, err = s.StderrPipe()
	}
	if err == nil {
		err = s.Start(command)
	}
	if err != nil {
		_ = s.Close()
		if ctx.Err() != nil || c.Broken() {
			return nil, c.gone(ctx, err)
		}
		return nil, trust.Errorf(trust.Denied, "%s does not take the command: %w", c.target.Address, err)
	}
	go func() {
		defer close(ended)
		_ = s.Wait()
	}()
	return p, nil
}

// open opens a channel for a command.
func (c *Conn) open(ctx context.Context) (*ssh.Session, error) {
	if ctx.Err() != nil {
		return nil, c.gone(ctx, nil)
	}
	s, err := c.session()
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		// Where one session is allowed (MaxSessions), sshd counts the one that has just
		// ended until it is done with all that it was told along with that end. When it
		// has answered something else, it is.
		_, _, _ = c.SendRequest("keepalive@openssh.com", true, nil)
		s, err = c.session()
	}
	if errors.As(err, &refused) {
		return nil, trust.Errorf(trust.Denied, "%s allows no session on this connection: %w", c.target.Address, err)
	}
	if err != nil {
		return nil, c.gone(ctx, err)
	}
	return s, nil
}

// gone says that a command was cut off, and why: what fails because the context ended
// must say so.
func (c *Conn) gone(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return trust.Errorf(trust.Unavailable, "%s: the command was cut off: %w", c.target.Address, err)
}
