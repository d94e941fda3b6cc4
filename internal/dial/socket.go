package dial

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"sync"

	"keyturn/internal/trust"
)

// A socket is the TCP connection beneath an SSH connection. Before each read it
// asks for prompt acknowledgements: sshd writes a login's last packets in small
// pieces with Nagle's algorithm on, and would wait 40 ms for our delayed ones.
// It also keeps the first bytes that the server sent, to tell a banner from a
// good-bye.
type socket struct {
	net.Conn
	quick func()

	mu    sync.Mutex
	first []byte
}

// keepFirst bounds the bytes that are kept.
const keepFirst = 512

func connectTCP(ctx context.Context, address string, source netip.Addr) (*socket, error) {
	d := net.Dialer{Timeout: tcpTimeout}
	if source.IsValid() {
		d.LocalAddr = &net.TCPAddr{IP: source.AsSlice()}
	}
	c, err := d.DialContext(ctx, "tcp", address)
	if ctx.Err() != nil {
		if err == nil {
			_ = c.Close()
		}
		return nil, gone(ctx, address)
	}
	if err != nil {
		return nil, trust.Errorf(trust.Unavailable, "%w", err)
	}
	return &socket{Conn: c, quick: quickAck(c)}, nil
}

func (s *socket) Read(p []byte) (int, error) {
	s.quick()
	n, err := s.Conn.Read(p)
	s.mu.Lock()
	if room := keepFirst - len(s.first); room > 0 {
		s.first = append(s.first, p[:min(n, room)]...)
	}
	s.mu.Unlock()
	return n, err
}

// banner returns the line by which the server introduced itself, or "".
func (s *socket) banner() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	for line := range strings.Lines(string(s.first)) {
		if strings.HasPrefix(line, "SSH-") {
			return strings.TrimRight(line, "\r\n")
		}
	}
	return ""
}

// said returns what the server sent in the place of a banner: OpenSSH says
// "Not allowed at this time" to an address that it penalizes, and "Exceeded
// MaxStartups" where too many are logging in.
func (s *socket) said() string {
	if s.banner() != "" {
		return ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.TrimSpace(string(s.first))
	return text[:min(len(text), 100)]
}
