package main

import "golang.org/x/sys/unix"

// flushInput drops what was typed at a terminal and is not read yet.
func flushInput(fd int) error { return unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH) }
