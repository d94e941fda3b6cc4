package main

import (
	"context"
	"os"

	"golang.org/x/term"
)

// readPassword reads a line of a terminal without an echo.
func readPassword(ctx context.Context, tty *os.File) ([]byte, error) {
	return typed(ctx, tty, func() ([]byte, error) { return term.ReadPassword(int(tty.Fd())) })
}

// typed returns what read reads of a terminal, or, as soon as ctx ends, why that did:
// an interrupt does not end a read. The terminal is then as it was, and the read is left
// to end with the process.
func typed[T any](ctx context.Context, tty *os.File, read func() (T, error)) (T, error) {
	type answer struct {
		text T
		err  error
	}
	fd := int(tty.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return *new(T), err
	}
	answered := make(chan answer, 1)
	go func() {
		text, err := read()
		answered <- answer{text, err}
	}()
	select {
	case a := <-answered:
		return a.text, a.err
	case <-ctx.Done():
		_ = term.Restore(fd, before)
		return *new(T), context.Cause(ctx)
	}
}
