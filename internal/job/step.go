package job

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A flight is one target on its way through one row, its intent being durable.
// It runs in a goroutine of its own.
type flight struct {
	d     *dispatcher
	ctx   context.Context // ends with the engine, or with the claim
	run   record          // as it was when the intent was committed
	proc  Procedure
	stage stage
	work  work
	known *results
}

// A landed is a flight that came down, and what is to be written of it.
type landed struct {
	flight
	view    Run
	record  Record
	outcome outcome
	retry   time.Duration // after which the target is due again; 0: it is not
	patient time.Time     // until when it may wait for others to share its commit
	failed  bool          // its record could not be written
	err     error         // it was cut off: nothing is to be written
}

// fly calls the step, and judges what came of it.
func (f flight) fly() *landed {
	row := f.run.table.Rows[f.stage.row]
	step, _ := f.proc.step(row.Name)
	do, word := step.Do, "do "
	if f.run.direction == Backward {
		do, word = step.Undo, "undo "
	}
	what := word + row.Name + " " + f.work.Name
	l := &landed{flight: f, view: f.d.view(f.run)}
	l.view.Step, l.view.Attempt, l.view.saved, l.view.results = row.Name, f.work.attempt, new(json.RawMessage), f.known
	l.view.Log = f.d.options.Log.With("run", f.run.id, "step", row.Name, "target", f.work.Name)

	if l.err = f.d.point(f.ctx, "before "+what); l.err != nil {
		return l
	}
	begun := time.Now()
	rec, err := f.call(l.view, do)
	if l.err = f.d.point(f.ctx, "after "+what); l.err != nil {
		return l
	}
	if stopped(f.ctx, err) {
		l.err = context.Cause(f.ctx) // it was told to stop, which is no failure of its own
		return l
	}
	l.record = rec
	l.judge(err)
	l.patient = time.Now().Add(min(time.Since(begun)/8, maxPatience))
	return l
}

// call calls a step, within its time.
func (f flight) call(run Run, do func(context.Context, Run, Target) (Record, error)) (rec Record, err error) {
	late := trust.Errorf(trust.Unavailable, "took longer than %s", f.d.options.StepTimeout)
	ctx, cancel := context.WithTimeoutCause(f.ctx, f.d.options.StepTimeout, late)
	defer cancel()
	err = guard(func() error {
		rec, err = do(ctx, run, f.work.Target)
		return err
	})
	var p *panicError
	if errors.As(err, &p) {
		run.Log.Error("step panicked", "value", p.value, "stack", string(p.stack))
		return nil, fmt.Errorf("step %q %w", run.Step, p)
	}
	if err != nil && context.Cause(ctx) == error(late) {
		return nil, late
	}
	return rec, err
}

// judge says what an error of the step means for its target.
func (l *landed) judge(err error) {
	o := outcome{state: CellDone, result: *l.view.saved}
	if err != nil {
		o.reason = sentence(err)
	}
	var until *untilError
	switch {
	case err == nil:
	case errors.As(err, &until):
		o.state, o.next = CellWaiting, store.Micros(until.t)
		l.retry = max(time.Until(until.t), 1)
	case trust.KindOf(err) == trust.Unavailable:
		var behind *behindError
		if errors.As(err, &behind) {
			o.behind = behind.run
		}
		o.state, o.tries = CellWaiting, l.work.tries+1
		l.retry = backoff(o.tries)
		o.next = store.Micros(time.Now().Add(l.retry))
	default:
		o.state = CellFailed
	}
	l.outcome = o
}

// write writes the outcome into the journal, and what the step records.
func (l *landed) write(tx *store.Tx) error {
	l.failed = false
	state := l.outcome.state
	if state != CellDone {
		left, err := isLeft(tx, l.run.id, l.work.List, l.work.N)
		if err != nil {
			return err
		}
		if left {
			state = CellLeft
		}
	}
	ok, err := updateOutcome(tx, l.run, l.stage, l.work.N, state, l.outcome)
	switch {
	case err != nil:
		return err
	case !ok:
		return errFenced
	case state == CellFailed:
		return holdRun(tx, l.run.id, l.name()+": "+l.outcome.reason)
	case state == CellDone && l.record != nil:
		err := guard(func() error { return l.record(tx) })
		l.failed = err != nil
		return err
	}
	return nil
}

// unrecorded makes an outcome of an effect that is there and cannot be
// recorded: that is for a person.
func (l *landed) unrecorded(err error) {
	l.record = nil
	l.judge(fmt.Errorf("recording it: %w", err))
}

func (l *landed) name() string { return l.view.Step + " " + l.work.Name }

// event returns the event of the outcome.
func (l *landed) event() audit.Event {
	fields := []audit.Field{
		{Name: "step", Value: l.view.Step},
		{Name: "direction", Value: string(l.view.Direction)},
		{Name: "target", Value: clip(l.work.Name, 1000)},
		{Name: "outcome", Value: string(l.outcome.state)},
		{Name: "attempt", Value: fmt.Sprint(l.work.attempt)},
	}
	if l.work.Host != "" {
		fields = append(fields, audit.Field{Name: "host", Value: string(l.work.Host)})
	}
	if l.outcome.reason != "" {
		fields = append(fields, audit.Field{Name: "reason", Value: l.outcome.reason})
	}
	return event(l.run.tenant, l.run.id, "run.step", fields...)
}
