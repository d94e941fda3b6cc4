package agent

import (
	"net"
	"os"
	"syscall"

	"keyturn/internal/trust"
)

// checkPeer refuses a client of another user, however it got at the socket. The
// superuser can do what this user can, and is let in, as with OpenSSH's.
func checkPeer(c net.Conn) error {
	unix, ok := c.(*net.UnixConn)
	if !ok {
		return trust.Errorf(trust.Internal, "agent: a connection of type %T", c)
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var asked error
	if err := raw.Control(func(fd uintptr) {
		peer, asked = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if asked != nil {
		return trust.Errorf(trust.Denied, "who the agent's client is cannot be told: %w", asked)
	}
	if peer.Uid != 0 && int(peer.Uid) != os.Geteuid() {
		return trust.Errorf(trust.Denied, "a client of user %d was sent away", peer.Uid)
	}
	return nil
}
