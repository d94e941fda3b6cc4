//go:build !linux

package agent

import "net"

// checkPeer has nothing to ask here: the socket's mode and its folder keep others out.
func checkPeer(net.Conn) error { return nil }
