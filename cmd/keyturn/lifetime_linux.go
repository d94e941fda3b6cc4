package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// afterReal calls fn when a time has passed, of which what the machine sleeps is part:
// time.AfterFunc's clock stands still then. stop ends the wait.
func afterReal(d time.Duration, fn func()) (stop func(), err error) {
	fd, err := unix.TimerfdCreate(unix.CLOCK_BOOTTIME, unix.TFD_CLOEXEC|unix.TFD_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("timerfd_create", err)
	}
	timer := os.NewFile(uintptr(fd), "lifetime")
	if err := unix.TimerfdSettime(fd, 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil); err != nil {
		_ = timer.Close()
		return nil, os.NewSyscallError("timerfd_settime", err)
	}
	go func() {
		if _, err := timer.Read(make([]byte, 8)); err == nil { // how often it went off
			fn()
		}
	}()
	return func() { _ = timer.Close() }, nil
}
