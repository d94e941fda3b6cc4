package remote

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/trust"
)

// Shells are those that stay on a host as long as the connection: one for each account
// that logs in, and one for some other.
type shells struct {
	start func(ctx context.Context, command string) (*dial.Process, error) // nil: none stays

	mu   sync.Mutex
	off  bool              // the server has no room for them
	by   map[string]*shell // by what starts them
	last string            // what would start that of the other account that was asked for last
}

// A shell is one that stays. It does one thing at a time.
type shell struct {
	mu      sync.Mutex    // held by whoever speaks with it
	process *dial.Process // nil: it is to be started
	failed  bool          // it did not greet, or has to stay away
}

const (
	// shellPatience is how long a shell may take to greet. A login shell that is none
	// may wait for its input.
	shellPatience = 10 * time.Second
	// maxGreeting bounds what start-up files may say before that.
	maxGreeting = 64 << 10
	// maxLine bounds a line and its input: a shell reads them byte by byte, and from
	// about here on a request costs less.
	maxLine = 8 << 10
	// maxStderr bounds what is kept of what programs say to stderr.
	maxStderr = 16 << 10
)

// byShell executes those of the calls that come first and are of one account, by the
// shell that stays there for it. Where there is none, or it is busy, or would not read
// them as they are, it returns nothing, and nothing was done.
func (h *Host) byShell(ctx context.Context, calls []call) ([]answer, error) {
	if h.shells.start == nil {
		return nil, nil
	}
	starts, err := h.shellAs(ctx, calls[0].as)
	if err != nil {
		return nil, err
	}
	n := 1
	for n < len(calls) && calls[n].as == calls[0].as {
		n++
	}
	calls = calls[:n]
	line, err := h.line(calls)
	if err != nil || line == "" {
		return nil, err
	}
	s := h.shells.of(ctx, starts, calls[0].as == self || calls[0].as == root)
	if s == nil || !s.mu.TryLock() {
		return nil, nil
	}
	defer s.mu.Unlock()
	if !s.ready(ctx, h.shells.start, starts) {
		return nil, nil
	}
	return h.answers(ctx, calls, func(ctx context.Context) (dial.Result, error) { return s.run(ctx, line, calls[0].stdin) })
}

// line returns the line that asks for ops, or "" where a shell would not read it, or the
// input, as it is. Each reads ASCII so; dash changes some bytes above, and none has NUL.
func (h *Host) line(calls []call) (string, error) {
	var commands []string
	for _, c := range calls {
		args, err := h.arguments(c)
		if err != nil {
			return "", err
		}
		commands = append(commands, strings.Join(append([]string{"keyturn_" + c.op.name}, args...), " "))
	}
	line, input := strings.Join(commands, " ; "), calls[0].stdin
	if len(line)+len(input) > maxLine || !isText([]byte(line)) || !isText(input) {
		return "", nil
	}
	return line, nil
}

// isText reports whether b is of ASCII, and of control characters has only tabs and
// newlines.
func isText(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return (c < ' ' || c > '~') && c != '\t' && c != '\n' })
}

// of returns the shell that is started so, or nil where there is to be none. logsIn says
// that its account does. One for another account is started when that is asked for twice
// in a row, and ends the one before: there may be many accounts, each of which is asked
// about once.
func (s *shells) of(ctx context.Context, starts string, logsIn bool) *shell {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.by[starts]
	switch {
	case s.off:
		return nil
	case one != nil:
		return one
	case !logsIn && s.last != starts:
		if before := s.by[s.last]; before != nil {
			delete(s.by, s.last)
			go before.leave(context.WithoutCancel(ctx))
		}
		s.last = starts
		return nil
	}
	one = &shell{}
	s.by[starts] = one
	return one
}

// end has all shells end for good, waits until they did, and says if there were any.
func (s *shells) end(ctx context.Context) (any bool) {
	s.mu.Lock()
	s.off = true
	list := slices.Collect(maps.Values(s.by))
	clear(s.by)
	s.mu.Unlock()
	for _, one := range list {
		any = one.leave(ctx) || any
	}
	return any
}

// leave has a shell end for good once it is not spoken with, waits until it did, and says
// if it was there.
func (s *shell) leave(ctx context.Context) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = true
	if s.process == nil {
		return false
	}
	defer context.AfterFunc(ctx, s.process.Cut)()
	_ = s.process.Stdin.Close()
	<-s.process.Ended
	s.process = nil
	return true
}

// ready starts a shell, if it is not there or has ended since it was spoken with, and
// says whether it can be spoken with.
func (s *shell) ready(ctx context.Context, start func(context.Context, string) (*dial.Process, error), starts string) bool {
	if s.process != nil {
		select {
		case <-s.process.Ended:
		default:
			return true
		}
	}
	if s.failed {
		return false
	}
	s.process, s.failed = nil, true
	p, err := start(ctx, starts+" "+scripts()["shell"]+" keyturn.shell")
	if err != nil {
		return false
	}
	defer context.AfterFunc(ctx, p.Cut)()
	greeted := make(chan error, 1)
	go func() {
		_, err := until(p.Stdout, "keyturn shell 1\n", maxGreeting)
		greeted <- err
	}()
	patience := time.NewTimer(shellPatience)
	defer patience.Stop()
	select {
	case err = <-greeted:
	case <-patience.C:
		err = errNoMark
	}
	if err != nil {
		_ = p.Stdin.Close()
		p.Close()
		return false
	}
	s.process, s.failed = p, false
	return true
}

// run has the shell do what a line says, and returns what came of it. A shell that ends
// meanwhile is what a command is that a signal ended. With the context, the connection
// ends, so that nobody reads the answer to what another asked.
func (s *shell) run(ctx context.Context, line string, stdin []byte) (dial.Result, error) {
	p := s.process
	defer context.AfterFunc(ctx, p.Cut)()
	mark, count := newNonce(), 0
	if stdin != nil {
		stdin = append(bytes.Clone(stdin), ".\n"...)
		count = bytes.Count(stdin, []byte("\n"))
	}
	stderr := make(chan []byte, 1)
	go func() {
		said, _ := until(p.Stderr, mark+"\n", -1)
		stderr <- said
	}()
	_, err := p.Stdin.Write(append([]byte(mark+" "+strconv.Itoa(count)+" "+line+"\n"), stdin...))
	out, unread := until(p.Stdout, " "+mark+"\n", maxReply)
	if err = cmp.Or(err, unread); err != nil {
		s.process = nil
		p.Close()
	}
	switch {
	case ctx.Err() != nil:
		return dial.Result{}, trust.Errorf(trust.Unavailable, "the command was cut off: %w", context.Cause(ctx))
	case err == errNoMark:
		return dial.Result{}, trust.Errorf(trust.Exhausted, "the command's output is longer than %d bytes", maxReply)
	case err != nil:
		return dial.Result{Stdout: out, Stderr: <-stderr, Exit: -1}, nil
	}
	// What was said ends with a newline of the shell's and the exit status.
	at := max(0, bytes.LastIndexByte(out, '\n'))
	status, err := strconv.Atoi(string(bytes.TrimSpace(out[at:])))
	if err != nil {
		status = -1
	}
	return dial.Result{Stdout: out[:at], Stderr: <-stderr, Exit: status}, nil
}

// errNoMark says that there is more than there may be before a mark.
var errNoMark = errors.New("remote: no end in sight")

// until reads up to a mark with which all ends that there is, and returns what stands
// before it. With a limit it gives up where that is more; without, it keeps the first
// maxStderr bytes.
func until(r io.Reader, mark string, limit int) (said []byte, err error) {
	for {
		said = slices.Grow(said, 1024)
		n, err := r.Read(said[len(said):cap(said)])
		said = said[:len(said)+n]
		if limit < 0 && len(said) > maxStderr+len(mark) {
			said = append(said[:maxStderr], said[len(said)-len(mark):]...)
		}
		switch {
		case limit >= 0 && len(said) > limit+len(mark):
			return nil, errNoMark
		case bytes.HasSuffix(said, []byte(mark)):
			return said[:len(said)-len(mark)], nil
		case err != nil:
			return said, err
		}
	}
}
