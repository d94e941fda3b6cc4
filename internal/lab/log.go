package lab

import (
	"bufio"
	"context"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyturn/internal/trust"
)

// An EventKind says what a line of a server's log tells.
type EventKind string

// The lines that tests and the demo ask for. Their texts are those of OpenSSH
// 8.4 to 10.x at LogLevel VERBOSE, and of Dropbear where it has one.
const (
	// Listening: the server accepts connections from now on, at first and
	// after every reload.
	Listening EventKind = "listening"
	// Matched: a line of an authorized keys file names the key; File and
	// Line say which. It is logged for a query and again for the login that
	// follows it. For a certificate it names CA instead; Line is 0 where File
	// is a TrustedUserCAKeys file.
	Matched EventKind = "matched"
	// Accepted: a login.
	Accepted EventKind = "accepted"
	// Failed: an attempt to log in that was turned down.
	Failed EventKind = "failed"
	// Refused: why something was turned down: a source address, an owner or
	// mode of a file, an account.
	Refused EventKind = "refused"
	// Closed: a connection ended.
	Closed EventKind = "closed"
	// Other: any other line.
	Other EventKind = "other"
)

// An Event is one line of a server's log.
type Event struct {
	// Seq numbers a server's events from 1 on, across restarts.
	Seq int
	// At is when the line was read.
	At   time.Time
	Kind EventKind
	// Text is the line as the server wrote it.
	Text string
	// PID is the process that wrote the line, where the line says so; a
	// connection's lines are written by one or two processes of its own.
	PID int
	// User and Source ("address:port") are of Accepted and Failed.
	User, Source string
	// Method is the authentication method of Accepted and Failed, such as
	// "publickey".
	Method string
	// Fingerprint is the key's, of Matched, Accepted and Failed. For a
	// certificate that was Accepted it is that of the key in it.
	Fingerprint trust.Fingerprint
	// CA is the fingerprint of the key that signed a certificate, of Matched
	// and Accepted.
	CA trust.Fingerprint
	// File and Line are of Matched: the line of an authorized keys file that
	// names the key.
	File string
	Line int
}

var (
	matchedPattern  = regexp.MustCompile(`^Accepted key \S+ (SHA256:\S+) found at (.+):(\d+)$`)
	issuedPattern   = regexp.MustCompile(`^Accepted certificate ID ".*" \(serial \d+\) signed by (?:CA \S+|\S+ CA) (SHA256:\S+) (?:found at (.+):(\d+)|via (.+))$`)
	attemptPattern  = regexp.MustCompile(`^(Accepted|Failed) (\S+) for (?:invalid user )?(.*) from (\S+) port (\d+)(?: ssh2)?(?:: \S+ (SHA256:\S+))?(?:.* CA \S+ (SHA256:\S+))?`)
	dropbearPattern = regexp.MustCompile(`^(Pubkey auth|Password auth) succeeded for '(.*?)'(?: with \S+ key (SHA256:\S+))? from (\S+)$`)
	closedPattern   = regexp.MustCompile(`^(?:Connection (?:closed|reset)|Disconnected from|Received disconnect from|Exit )`)
	refusedPattern  = regexp.MustCompile(`^(?:.*: )?(?:Authentication (?:refused|tried|key .* revoked by)|User .* not allowed because|bad key options|entry expired|Ignored .*: bad ownership|WARNING: revoked key|Certificate invalid|.*: Key is revoked)`)
	prefixPattern   = regexp.MustCompile(`^(?:(?:sshd(?:-\w+)?|dropbear)\[(\d+)\]: |\[(\d+)\] \w{3} \d\d \d\d:\d\d:\d\d )`)
)

// ParseEvent reads one line of a log of OpenSSH or Dropbear, as they write it to
// stderr or, with "sshd[PID]: " before it, to the system's log. Seq and At are left
// to whoever keeps the log.
func ParseEvent(line string) Event {
	e := Event{Kind: Other, Text: line}
	line = strings.TrimRight(line, "\r")
	if m := prefixPattern.FindStringSubmatch(line); m != nil {
		e.PID, _ = strconv.Atoi(m[1] + m[2])
		line = line[len(m[0]):]
	}
	line = strings.TrimSuffix(line, " [preauth]")
	switch {
	case strings.HasPrefix(line, "Server listening on "):
		e.Kind = Listening
	case refusedPattern.MatchString(line):
		e.Kind = Refused
	case closedPattern.MatchString(line):
		e.Kind = Closed
	}
	if m := matchedPattern.FindStringSubmatch(line); m != nil {
		e.Kind, e.Fingerprint, e.File = Matched, trust.Fingerprint(m[1]), m[2]
		e.Line, _ = strconv.Atoi(m[3])
	} else if m := issuedPattern.FindStringSubmatch(line); m != nil {
		e.Kind, e.CA, e.File = Matched, trust.Fingerprint(m[1]), m[2]+m[4]
		e.Line, _ = strconv.Atoi(m[3])
	} else if m := attemptPattern.FindStringSubmatch(line); m != nil {
		e.Kind = Accepted
		if m[1] == "Failed" {
			e.Kind = Failed
		}
		e.Method, e.User, e.Source = m[2], m[3], net.JoinHostPort(m[4], m[5])
		e.Fingerprint, e.CA = trust.Fingerprint(m[6]), trust.Fingerprint(m[7])
	} else if m := dropbearPattern.FindStringSubmatch(line); m != nil {
		e.Kind, e.Method = Accepted, "publickey"
		if m[1] == "Password auth" {
			e.Method = "password"
		}
		e.User, e.Fingerprint, e.Source = m[2], trust.Fingerprint(m[3]), m[4]
	}
	return e
}

// AcceptedBy returns a match for [Log.Await]: a login that the key with
// this fingerprint opened.
func AcceptedBy(f trust.Fingerprint) func(Event) bool {
	return func(e Event) bool { return e.Kind == Accepted && e.Fingerprint == f }
}

// FailedBy returns a match for [Log.Await]: an attempt with the key of this
// fingerprint that was turned down.
func FailedBy(f trust.Fingerprint) func(Event) bool {
	return func(e Event) bool { return e.Kind == Failed && e.Fingerprint == f }
}

// IsKind returns a match for [Log.Await]: any event of this kind.
func IsKind(kind EventKind) func(Event) bool {
	return func(e Event) bool { return e.Kind == kind }
}

// keepEvents bounds the events held in memory; benchmarks log in for hours.
const keepEvents = 1 << 14

// A Log is what a server said, line by line. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	events  []Event       // the newest keepEvents, oldest first
	seq     int           // of the newest event
	changed chan struct{} // closed and replaced at every event
	file    io.Writer     // a copy of every line; may be nil
}

// NewLog returns an empty log that also writes every line to file, which may be
// nil.
func NewLog(file io.Writer) *Log {
	return &Log{changed: make(chan struct{}), file: file}
}

// ReadFrom adds lines from r until it ends, as [io.ReaderFrom]. Several readers
// may add to one log, one after the other.
func (l *Log) ReadFrom(r io.Reader) (int64, error) {
	var n int64
	lines := bufio.NewReaderSize(r, 64<<10)
	for {
		// A line longer than the buffer becomes several events.
		line, err := lines.ReadSlice('\n')
		n += int64(len(line))
		if len(line) > 0 {
			l.Add(strings.TrimRight(string(line), "\r\n"))
		}
		if err != nil && err != bufio.ErrBufferFull {
			if err == io.EOF {
				err = nil
			}
			return n, err
		}
	}
}

// Add appends one line, which has no line break.
func (l *Log) Add(line string) {
	e := ParseEvent(line)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file != nil {
		// The copy is for people; a full disk there must not stop a test.
		_, _ = io.WriteString(l.file, line+"\n")
	}
	l.seq++
	e.Seq, e.At = l.seq, time.Now()
	if len(l.events) == keepEvents {
		l.events = slices.Delete(l.events, 0, keepEvents/4)
	}
	l.events = append(l.events, e)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Seq returns the number of the newest event, or 0: what comes after it is what
// comes after now.
func (l *Log) Seq() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.seq
}

// Events returns the events after the one numbered after, oldest first; 0
// returns all that are kept, which are at least the newest 12,000.
func (l *Log) Events(after int) []Event {
	events, _ := l.since(after)
	return events
}

func (l *Log) since(after int) ([]Event, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i, _ := slices.BinarySearchFunc(l.events, after+1, func(e Event, seq int) int { return e.Seq - seq })
	return slices.Clone(l.events[i:]), l.changed
}

// Await returns the first event after the one numbered after that matches,
// waiting for it until ctx ends. The error then is of kind Unavailable and
// shows the last lines of the log.
func (l *Log) Await(ctx context.Context, after int, match func(Event) bool) (Event, error) {
	for {
		events, changed := l.since(after)
		for _, e := range events {
			after = e.Seq
			if match(e) {
				return e, nil
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, trust.Errorf(trust.Unavailable, "no such line in the log: %w; last lines:\n%s", context.Cause(ctx), l.Tail(12))
		}
	}
}

// Tail returns the newest n lines as text.
func (l *Log) Tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b strings.Builder
	for _, e := range l.events[max(0, len(l.events)-n):] {
		b.WriteString(e.Text)
		b.WriteByte('\n')
	}
	return b.String()
}
