//go:build !linux

package main

import "golang.org/x/sys/unix"

// flushInput drops what was typed at a terminal and is not read yet.
func flushInput(fd int) error {
	const input = 1 // FREAD
	return unix.IoctlSetPointerInt(fd, unix.TIOCFLUSH, input)
}
