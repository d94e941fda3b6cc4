package dial

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// quickACK returns a function to call before each read. It makes the kernel
// acknowledge what arrives at once: sshd leaves Nagle's algorithm on and waits for
// our acknowledgement before it sends the rest of its answer, which otherwise comes
// 40 ms late, at every step of a login (see TCP_QUICKACK in tcp(7): it is not
// permanent).
func quickACK(conn net.Conn) func() {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return func() {}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return func() {}
	}
	set := func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, unix.TCP_QUICKACK, 1) }
	return func() { _ = raw.Control(set) }
}
