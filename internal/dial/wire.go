package dial

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"keyturn/internal/trust"
)

// Each phase of a connection has its own time: a server that is slow in one must
// not look like one that is dead in another.
type phase string

const (
	connecting     phase = "the TCP connection"
	identifying    phase = "the identification string"
	exchanging     phase = "the key exchange"
	authenticating phase = "authentication"
	working        phase = ""
)

// patience is how long each phase may take. Authentication is the longest: PAM
// modules look things up, and sshd delays failures on purpose.
type patience struct{ connect, identify, exchange, authenticate time.Duration }

func defaultPatience() patience {
	return patience{10 * time.Second, 10 * time.Second, 20 * time.Second, 40 * time.Second}
}

// readAhead is how much is read at once of what x/crypto/ssh asks for in small
// pieces. Commands and their answers are short, and each connection that is kept
// keeps this much.
const readAhead = 8 << 10

// maxGreeting bounds what a server may say before its identification string.
const maxGreeting = 8 << 10

// A wire is the TCP connection beneath x/crypto/ssh. It reads ahead, keeps the
// server's identification string and whatever came before it, and remembers what
// ended the connection, which x/crypto/ssh does not always tell.
type wire struct {
	net.Conn
	reader   *bufio.Reader
	quickACK func()
	patience patience

	mu       sync.Mutex
	phase    phase
	greeting []byte // until the identification string is complete
	version  string
	broken   error // the first error of a read
}

// openWire connects to the target.
func openWire(ctx context.Context, t Target, p patience) (*wire, error) {
	dialer := net.Dialer{Timeout: p.connect}
	if t.Source.IsValid() {
		dialer.LocalAddr = net.TCPAddrFromAddrPort(addrPort(t.Source))
	}
	conn, err := dialer.DialContext(ctx, "tcp", t.Address)
	if err != nil {
		if ctx.Err() != nil {
			return nil, trust.Errorf(trust.Unavailable, "%s: gave up connecting: %w", t.Address, context.Cause(ctx))
		}
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return nil, trust.Errorf(trust.Unavailable, "%s: the name cannot be resolved: %w", t.Address, err)
		}
		return nil, trust.Errorf(trust.Unavailable, "%s does not answer: %w", t.Address, err)
	}
	w := &wire{Conn: conn, patience: p, quickACK: quickACK(conn)}
	w.reader = bufio.NewReaderSize(conn, readAhead)
	w.enter(identifying)
	return w, nil
}

// Read hands out what has been read ahead.
func (w *wire) Read(b []byte) (int, error) {
	if w.reader.Buffered() == 0 {
		w.quickACK()
	}
	n, err := w.reader.Read(b)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.version == "" && n > 0 {
		w.listen(b[:n])
	}
	if err != nil && w.broken == nil {
		w.broken = err
	}
	if w.version == "" && len(w.greeting) > maxGreeting {
		return 0, io.ErrUnexpectedEOF
	}
	return n, err
}

// Write fails once a read has. x/crypto/ssh closes what it still writes to a moment after
// it knows that nothing more is read, and who asks for something in that moment would
// wait for the answer without end.
func (w *wire) Write(b []byte) (int, error) {
	w.mu.Lock()
	err := w.broken
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return w.Conn.Write(b)
}

// listen looks for the identification string in what the server says first. It
// is called with mu held.
func (w *wire) listen(b []byte) {
	w.greeting = append(w.greeting, b...)
	if bytes.IndexByte(b, '\n') < 0 {
		return // x/crypto/ssh reads byte by byte here: only the last of a line tells more
	}
	for line := range strings.Lines(string(w.greeting)) {
		if strings.HasPrefix(line, "SSH-") && strings.HasSuffix(line, "\n") {
			w.version = strings.TrimRight(line, "\r\n")
			w.enterLocked(exchanging)
			return
		}
	}
}

// enter begins a phase and its time.
func (w *wire) enter(p phase) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.enterLocked(p)
}

func (w *wire) enterLocked(p phase) {
	w.phase = p
	var limit time.Duration
	switch p {
	case identifying:
		limit = w.patience.identify
	case exchanging:
		limit = w.patience.exchange
	case authenticating:
		limit = w.patience.authenticate
	}
	if limit == 0 {
		_ = w.SetDeadline(time.Time{})
		return
	}
	_ = w.SetDeadline(time.Now().Add(limit))
}

// said returns how far the connection came, what the server called itself, what
// it said before that, and what broke the connection.
func (w *wire) said() (p phase, version, greeting string, broken error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.phase, w.version, strings.TrimSpace(string(w.greeting)), w.broken
}
