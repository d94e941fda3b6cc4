package job

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// How an engine learns that what it decided no longer holds.
var (
	// errFenced: another engine has claimed the run.
	errFenced = errors.New("this node has lost its claim on the run: another one works on it")
	// errAsked: somebody has asked something of the run since it was read.
	errAsked = errors.New("something was asked of the run")
	// errCrashed: Options.Hook said so. Nothing more is written.
	errCrashed = errors.New("the engine was told to crash")
)

// Until is what a step returns that has nothing more to do before t: its target
// waits until then, and goes through the step again. Wrapping it in another
// error replaces the sentence that a user reads meanwhile.
func Until(t time.Time) error { return &untilError{t} }

type untilError struct{ t time.Time }

func (e *untilError) Error() string {
	return "until " + e.t.UTC().Format("2006-01-02 15:04:05") + " UTC"
}

// Behind is what a step returns that waits for another run: its target goes through the
// step again as soon as that run has ended, and meanwhile like one that is unavailable.
// It is wrapped in the sentence that a user reads.
func Behind(run trust.RunID) error { return &behindError{run} }

type behindError struct{ run trust.RunID }

func (e *behindError) Error() string { return "waits for run " + string(e.run) }

// A panicError is a panic of something that was called.
type panicError struct {
	value string
	stack []byte
}

func (e *panicError) Error() string { return "panicked: " + e.value }

// guard calls fn, and returns a panic of it as a *panicError.
func guard(fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = &panicError{fmt.Sprint(v), debug.Stack()}
		}
	}()
	return fn()
}

// backoff returns how long to wait before trying again what was unavailable
// for the tries-th time: from one second up to five minutes, each time twice
// as long, and any length from half of that, so that what failed together does
// not come back together.
func backoff(tries int) time.Duration {
	const first, most = time.Second, 5 * time.Minute
	d := min(first<<min(tries-1, 20), most)
	return d/2 + rand.N(d/2)
}

// sentence returns an error as a user reads it and a column takes it.
func sentence(err error) string {
	text := err.Error()
	var e *trust.Error
	if errors.As(err, &e) && e.Hint != "" {
		text += "; " + e.Hint
	}
	return clip(text, 2000)
}

// clip makes text fit for a column or a field of an event.
func clip(s string, most int) string {
	s = strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
	if len(s) > most {
		s = strings.ToValidUTF8(s[:most-3], "") + "..."
	}
	return s
}

// stopped reports whether an error is only the echo of ctx having ended.
func stopped(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil
}
