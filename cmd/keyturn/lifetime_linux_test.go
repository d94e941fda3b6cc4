package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The lifetime of an agent is measured by the clock that goes on while the machine sleeps
// (timerfd_create(2); 7 is CLOCK_BOOTTIME), and ends once.
func TestLifetimeInSleep(t *testing.T) {
	timers := func() (clocks []string) {
		t.Helper()
		fds, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err != nil || to != "anon_inode:[timerfd]" {
				continue
			}
			info, err := os.ReadFile("/proc/self/fdinfo/" + filepath.Base(fd))
			if err != nil {
				continue // one that was closed since
			}
			for l := range strings.Lines(string(info)) {
				if clock, ok := strings.CutPrefix(l, "clockid: "); ok {
					clocks = append(clocks, strings.TrimSpace(clock))
				}
			}
		}
		return clocks
	}
	stop, err := afterReal(time.Hour, func() { t.Error("it ended an hour too early") })
	if err != nil {
		t.Fatal(err)
	}
	if got := timers(); len(got) != 1 || got[0] != "7" {
		t.Errorf("timers by the clocks %v", got)
	}
	stop()
	if got := timers(); len(got) != 0 {
		t.Errorf("stopped, there are timers by the clocks %v", got)
	}
	ended := make(chan struct{})
	if stop, err = afterReal(time.Millisecond, func() { close(ended) }); err != nil {
		t.Fatal(err)
	}
	defer stop()
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		t.Fatal("it does not end")
	}
}
