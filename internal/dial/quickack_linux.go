package dial

import (
	"net"

	"golang.org/x/sys/unix"
)

// quickAck returns a function that asks the kernel to acknowledge at once what
// arrives next (tcp(7), TCP_QUICKACK). The kernel forgets it again and again.
// That it may not work costs time only.
func quickAck(c net.Conn) func() {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return func() {}
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return func() {}
	}
	return func() {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 1)
		})
	}
}
