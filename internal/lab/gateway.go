package lab

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"net"
	"slices"
	"sync/atomic"

	"golang.org/x/crypto/ssh"
)

// HostKeys are what a [Gateway] shows of a host: keys that it presents, at most one of each
// type, certificates among them, and plain keys that it announces besides.
type HostKeys struct{ Present, Besides []ssh.Signer }

// A Gateway is an SSH server that does nothing but to be known: it presents host keys and
// announces them by hostkeys-00@openssh.com (OpenSSH's PROTOCOL, 2.5), lets everybody in,
// and answers whatever is to be run with success. sshd can announce keys that it does not
// present, too, but not two of one type.
type Gateway struct {
	listener net.Listener
	keys     atomic.Pointer[HostKeys]
}

// StartGateway starts a gateway at an address, such as "127.0.0.1:0", that ends with ctx.
func StartGateway(ctx context.Context, address string) (*Gateway, error) {
	var listen net.ListenConfig
	l, err := listen.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	g := &Gateway{listener: l}
	g.Show(HostKeys{})
	context.AfterFunc(ctx, func() { _ = l.Close() })
	go g.serve()
	return g, nil
}

// Address returns where the gateway listens.
func (g *Gateway) Address() *net.TCPAddr { return g.listener.Addr().(*net.TCPAddr) }

// Show has connections from now on see these keys.
func (g *Gateway) Show(k HostKeys) { g.keys.Store(&k) }

func (g *Gateway) serve() {
	for {
		c, err := g.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			g.connection(c, *g.keys.Load())
		}()
	}
}

// connection serves one connection. What a client asks about keys is answered before what
// it wants to run, because it asked that before and leaves afterwards.
func (g *Gateway) connection(c net.Conn, keys HostKeys) {
	config := &ssh.ServerConfig{NoClientAuth: true}
	for _, k := range keys.Present {
		config.AddHostKey(k)
	}
	conn, channels, requests, err := ssh.NewServerConn(c, config)
	if err != nil {
		return // the client did not like the key
	}
	defer conn.Close()
	var plain []ssh.Signer
	for _, k := range append(slices.Clone(keys.Present), keys.Besides...) {
		if _, certified := k.PublicKey().(*ssh.Certificate); !certified {
			plain = append(plain, k)
		}
	}
	if _, _, err := conn.SendRequest("hostkeys-00@openssh.com", false, announcement(plain)); err != nil {
		return
	}
	run := make(chan func())
	for {
		select {
		case r, ok := <-requests:
			if !ok {
				return
			}
			answer(r, conn.SessionID(), plain)
		case n, ok := <-channels:
			if !ok {
				return
			}
			ch, asked, err := n.Accept()
			if err != nil {
				return
			}
			go session(ch, asked, run)
		case reply := <-run:
			for pending := true; pending; {
				select {
				case r, ok := <-requests:
					if pending = ok; ok {
						answer(r, conn.SessionID(), plain)
					}
				default:
					pending = false
				}
			}
			reply()
		}
	}
}

// session hands what a client wants to run to run, as what is to be answered.
func session(ch ssh.Channel, asked <-chan *ssh.Request, run chan<- func()) {
	for r := range asked {
		if r.Type != "exec" {
			_ = r.Reply(true, nil)
			continue
		}
		run <- func() {
			_ = r.Reply(true, nil)
			_, _ = ch.SendRequest("exit-status", false, make([]byte, 4))
			_ = ch.Close()
		}
	}
}

func announcement(keys []ssh.Signer) (payload []byte) {
	for _, k := range keys {
		payload = text(payload, k.PublicKey().Marshal())
	}
	return payload
}

// answer proves the possession of the keys that a client asks about.
func answer(r *ssh.Request, session []byte, keys []ssh.Signer) {
	var proofs []byte
	for rest := r.Payload; r.Type == "hostkeys-prove-00@openssh.com" && len(rest) >= 4; {
		n := int(binary.BigEndian.Uint32(rest))
		if len(rest) < 4+n {
			break
		}
		blob := rest[4 : 4+n]
		rest = rest[4+n:]
		i := slices.IndexFunc(keys, func(k ssh.Signer) bool { return string(k.PublicKey().Marshal()) == string(blob) })
		if i < 0 {
			break
		}
		signature, err := keys[i].Sign(rand.Reader, text(text(text(nil, []byte(r.Type)), session), blob))
		if err != nil {
			break
		}
		proofs = text(proofs, ssh.Marshal(signature))
	}
	_ = r.Reply(len(proofs) > 0, proofs)
}

// text appends a string of RFC 4251, section 5.
func text(to, s []byte) []byte {
	return append(binary.BigEndian.AppendUint32(to, uint32(len(s))), s...)
}
