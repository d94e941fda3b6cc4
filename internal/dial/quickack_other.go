//go:build !linux

package dial

import "net"

// quickACK does nothing where the system has no such switch.
func quickACK(net.Conn) func() { return func() {} }
