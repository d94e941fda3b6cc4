//go:build !linux

package main

import "time"

// afterReal calls fn when a time has passed. Whether what the machine sleeps is part of
// it is the system's to say. stop ends the wait.
func afterReal(d time.Duration, fn func()) (stop func(), err error) {
	t := time.AfterFunc(d, fn)
	return func() { t.Stop() }, nil
}
