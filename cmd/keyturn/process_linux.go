package main

import "syscall"

// dieWithParent has the kernel end a child when its parent is killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
