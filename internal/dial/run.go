package dial

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A Result is what a command left behind.
type Result struct {
	Stdout []byte
	Stderr []byte // the first 16 KiB of it
	// Exit is the exit status, or -1 if the command was ended by a signal.
	Exit int
}

// maxStderr bounds what is kept of a command's stderr.
const maxStderr = 16 << 10

// Run executes one command without a terminal (RFC 4254, section 6.5), gives it
// stdin, and returns when it has ended. A status other than 0 is no error. It is
// Unavailable if the connection or the context ended first: what the command did is
// then not known. More than limit bytes of stdout are Exhausted.
func (c *Conn) Run(ctx context.Context, command string, stdin []byte, limit int) (Result, error) {
	// The channel has no timeout of its own: closing the connection is what ends
	// a wait for a server that no longer answers.
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	s, err := c.open(ctx)
	if err != nil {
		return Result{}, err
	}
	defer func() { _ = s.Close() }()
	stdout := &bounded{limit: limit, full: func() { _ = s.Close() }}
	stderr := &bounded{limit: maxStderr}
	s.Stdout, s.Stderr = stdout, stderr
	err = execute(s, command, stdin)
	result := Result{Stdout: stdout.buf.Bytes(), Stderr: stderr.buf.Bytes()}
	var exit *ssh.ExitError
	switch {
	case stdout.over:
		return Result{}, trust.Errorf(trust.Exhausted, "%s: the command's output is longer than %d bytes", c.target.Address, limit)
	case err == nil:
		return result, nil
	case errors.As(err, &exit):
		if result.Exit = exit.ExitStatus(); exit.Signal() != "" {
			result.Exit = -1
		}
		return result, nil
	}
	return Result{}, c.gone(ctx, err)
}

// execute is Session.Run, without the goroutine and the buffer of 32 KiB in which
// Session.Stdin would be read.
func execute(s *ssh.Session, command string, stdin []byte) error {
	in, err := s.StdinPipe()
	if err != nil {
		return err
	}
	if err := s.Start(command); err != nil {
		return err
	}
	_, unread := in.Write(stdin)
	if err := in.Close(); unread == nil && err != io.EOF {
		unread = err
	}
	return cmp.Or(s.Wait(), unread)
}

// errBroken is what an open connection ends in.
var errBroken = errors.New("the connection has ended")

// session opens a channel. A connection that ends at that moment can leave the
// library waiting for an answer that nobody will give: it forgets the channels that
// it knows before it closes, and a channel may be added in between. So the end of
// the connection ends the wait here.
func (c *Conn) session() (*ssh.Session, error) {
	type opened struct {
		session *ssh.Session
		err     error
	}
	answer := make(chan opened, 1)
	go func() {
		s, err := c.NewSession()
		answer <- opened{s, err}
	}()
	select {
	case a := <-answer:
		return a.session, a.err
	case <-c.broken:
		return nil, errBroken
	}
}

// A bounded buffer keeps limit bytes and drops the rest.
type bounded struct {
	buf   bytes.Buffer
	limit int
	over  bool
	full  func() // called when there is more, if not nil
}

func (b *bounded) Write(p []byte) (int, error) {
	n, err := b.ReadFrom(bytes.NewReader(p))
	return int(n), err
}

// ReadFrom implements io.ReaderFrom: without it io.Copy reads through a buffer of
// 32 KiB that it makes for each stream of each command, most of which say little
// or nothing.
func (b *bounded) ReadFrom(r io.Reader) (n int64, err error) {
	room := int64(b.limit - b.buf.Len())
	n, err = b.buf.ReadFrom(io.LimitReader(r, room+1))
	if err != nil || n <= room {
		return n, err
	}
	b.buf.Truncate(b.limit)
	b.over = true
	if b.full != nil {
		b.full()
		return n, io.ErrShortBuffer
	}
	dropped, err := io.Copy(io.Discard, r)
	return n + dropped, err
}
