//go:build !linux

package dial

import "net"

// quickAck does nothing: only Linux has TCP_QUICKACK.
func quickAck(net.Conn) func() { return func() {} }
