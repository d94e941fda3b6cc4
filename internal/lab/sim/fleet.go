package sim

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// A Fleet is a set of hosts behind one listening socket.
type Fleet struct {
	listener *net.TCPListener
	port     uint16

	mu    sync.Mutex
	hosts []*Host
	done  sync.WaitGroup // of connections
}

// Listen makes an empty fleet. It ends with ctx, or by Close.
func Listen(ctx context.Context) (*Fleet, error) {
	// One socket for all of 127.0.0.0/8. Who comes from elsewhere is hung up on.
	l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4zero})
	if err != nil {
		return nil, trust.Errorf(trust.Unavailable, "a fleet cannot listen: %w", err)
	}
	f := &Fleet{listener: l, port: uint16(l.Addr().(*net.TCPAddr).Port)}
	context.AfterFunc(ctx, f.Close)
	go f.accept()
	return f, nil
}

// Add makes one more host, at the next address: 127.1.0.1, 127.1.0.2 and so on.
func (f *Fleet) Add(o Options) (*Host, error) {
	f.mu.Lock()
	n := len(f.hosts)
	f.hosts = append(f.hosts, nil)
	f.mu.Unlock()
	var ip [4]byte
	binary.BigEndian.PutUint32(ip[:], 127<<24+1<<16+1+uint32(n))
	h, err := newHost(f, netip.AddrPortFrom(netip.AddrFrom4(ip), f.port), o)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hosts[n] = h
	return h, nil
}

// Hosts returns the hosts in the order in which they were added.
func (f *Fleet) Hosts() []*Host {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.hosts)
}

// Close ends all connections and the fleet.
func (f *Fleet) Close() {
	_ = f.listener.Close()
	for _, h := range f.Hosts() {
		if h != nil {
			h.hangUp()
		}
	}
	f.done.Wait()
}

func (f *Fleet) accept() {
	for {
		conn, err := f.listener.AcceptTCP()
		if err != nil {
			return
		}
		h := f.at(conn.LocalAddr())
		if h == nil || !h.admit(conn) {
			_ = conn.SetLinger(0) // as close as an accepted connection comes to a refused one
			_ = conn.Close()
			continue
		}
		f.done.Go(func() {
			defer h.leave(conn)
			h.serve(conn)
		})
	}
}

// at returns the host that an address is of.
func (f *Fleet) at(addr net.Addr) *Host {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.To4() == nil || !tcp.IP.IsLoopback() {
		return nil
	}
	n := int(binary.BigEndian.Uint32(tcp.IP.To4())) - (127<<24 + 1<<16 + 1)
	f.mu.Lock()
	defer f.mu.Unlock()
	if n < 0 || n >= len(f.hosts) {
		return nil
	}
	return f.hosts[n]
}

// admit notes a connection, unless the host takes none.
func (h *Host) admit(conn net.Conn) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.faults.refuses {
		return false
	}
	h.conns[conn] = struct{}{}
	return true
}

// leave ends a connection.
func (h *Host) leave(conn net.Conn) {
	_ = conn.Close()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.conns, conn)
}

// hangUp ends all connections of a host.
func (h *Host) hangUp() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.hangUpLocked()
}

func (h *Host) hangUpLocked() {
	for conn := range h.conns {
		_ = conn.Close()
	}
}

// serve speaks SSH on one connection.
func (h *Host) serve(conn net.Conn) {
	if h.hangs() {
		_, _ = io.Copy(io.Discard, conn) // until the client gives up
		return
	}
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute)) // LoginGraceTime
	from, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	to, _ := netip.ParseAddrPort(conn.LocalAddr().String())
	config := *h.server
	var last trust.PublicKey // that a signature was asked for
	forced := false
	config.PublicKeyCallback = func(c ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		last = trust.PublicKeyOf(k)
		grant, err := h.lets(c.User(), last, from.Addr())
		forced = grant.HasForcedCommand
		return nil, err
	}
	s, channels, requests, err := ssh.NewServerConn(conn, &config)
	if err != nil {
		return
	}
	_ = conn.SetDeadline(time.Time{})
	h.note(login{user: s.User(), from: from, key: last.Fingerprint()})
	go ssh.DiscardRequests(requests) // which says no to keepalive@openssh.com, as sshd does
	env := map[string]string{
		"SSH_CONNECTION": from.Addr().String() + " " + port(from) + " " + to.Addr().String() + " " + port(to),
		"HOME":           h.accounts[s.User()].Home,
	}
	for c := range channels {
		if c.ChannelType() != "session" {
			_ = c.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go h.session(conn, s.User(), env, forced, channel, requests)
	}
}

// session serves one channel: one command, or a shell that stays.
func (h *Host) session(conn net.Conn, user string, env map[string]string, forced bool, channel ssh.Channel, requests <-chan *ssh.Request) {
	defer func() { _ = channel.Close() }()
	for r := range requests {
		var exec struct{ Command string }
		if r.Type != "exec" || ssh.Unmarshal(r.Payload, &exec) != nil {
			_ = r.Reply(false, nil)
			continue
		}
		_ = r.Reply(true, nil)
		a := h.accounts[user]
		p := &process{host: h, subject: subject{a.UID, a.GID}, user: user, env: env}
		if !forced && p.asShell(exec.Command) {
			h.shell(conn, p, channel)
			return
		}
		const maxStdin = 8 << 20
		var err error
		if p.stdin, err = io.ReadAll(io.LimitReader(channel, maxStdin)); err != nil {
			return
		}
		status, stderr := 1, "the line of the key forces another command"
		if !forced {
			if status, stderr = h.execute(p, exec.Command); status < 0 {
				_ = conn.Close()
				return
			}
		}
		_, _ = channel.Write(p.stdout.Bytes())
		if stderr != "" {
			_, _ = io.WriteString(channel.Stderr(), stderr+"\n")
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{uint32(status)}))
		return
	}
}

// note writes to the host's log.
func (h *Host) note(l login) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.logins) == maxLogins {
		h.logins = h.logins[1:]
	}
	l.at = h.now()
	h.logins = append(h.logins, l)
}

func port(a netip.AddrPort) string {
	return netip.AddrPortFrom(a.Addr(), a.Port()).String()[len(a.Addr().String())+1:]
}
