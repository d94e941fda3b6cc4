//go:build linux

// Roots makes the root file systems that hosts of test/lab boot from, so that no
// test has to wait for them, and prints where each is and how long it took.
// scripts/lab-roots runs it.
//
// It exits with 1 if one cannot be made that tests under KEYTURN_CI=1 insist on.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"keyturn/test/lab"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(makeRoots(ctx))
}

func makeRoots(ctx context.Context) (code int) {
	for _, root := range lab.Roots() {
		begin := time.Now()
		dir, err := root.Path(ctx)
		seconds := time.Since(begin).Seconds()
		switch {
		case err == nil:
			fmt.Printf("%-16s %6.1f s  %s\n", root, seconds, dir)
		case root.Optional():
			fmt.Printf("%-16s %6.1f s  done without: %v\n", root, seconds, err)
		default:
			fmt.Printf("%-16s %6.1f s  missing: %v\n", root, seconds, err)
			code = 1
		}
	}
	return code
}
