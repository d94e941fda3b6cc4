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
}

// fly calls the step, and commits what came of it.
func (f flight) fly() flown {
	row := f.run.table.Rows[f.stage.row]
	step, _ := f.proc.step(row.Name)
	do, word := step.Do, "do "
	if f.run.direction == Backward {
		do, word = step.Undo, "undo "
	}
	what := word + row.Name + " " + f.work.Name
	run := f.d.view(f.run)
	run.Step, run.Attempt, run.saved = row.Name, f.work.attempt, new(json.RawMessage)
	run.Log = f.d.options.Log.With("run", run.ID, "step", row.Name, "target", f.work.Name)

	if err := f.d.point(f.ctx, "before "+what); err != nil {
		return flown{err: err}
	}
	rec, err := f.call(run, do)
	if crash := f.d.point(f.ctx, "after "+what); crash != nil {
		return flown{err: crash}
	}
	if stopped(f.ctx, err) {
		return flown{err: context.Cause(f.ctx)} // it was told to stop, which is no failure of its own
	}
	return f.record(run, rec, err)
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

// record commits what came of a step: the outcome in the journal, what the step
// has to record, and the event.
func (f flight) record(run Run, rec Record, err error) flown {
	o, down := f.judge(run, err)
	failed, err := f.write(run, rec, o)
	if failed && trust.KindOf(err) != trust.Unavailable {
		// The effect is there, but cannot be recorded: that is for a person.
		o, down = f.judge(run, fmt.Errorf("recording it: %w", err))
		_, err = f.write(run, nil, o)
	}
	down.err = err
	return down
}

// judge says what an error of a step means for its target.
func (f flight) judge(run Run, err error) (outcome, flown) {
	o := outcome{state: CellDone, result: *run.saved}
	if err == nil {
		return o, flown{}
	}
	o.reason = sentence(err)
	var until *untilError
	switch {
	case errors.As(err, &until):
		o.state, o.next = CellWaiting, store.Micros(until.t)
		return o, flown{retry: max(time.Until(until.t), 1)}
	case trust.KindOf(err) == trust.Unavailable:
		o.state, o.tries = CellWaiting, f.work.tries+1
		pause := backoff(o.tries)
		o.next = store.Micros(time.Now().Add(pause))
		return o, flown{retry: pause}
	}
	o.state = CellFailed
	return o, flown{held: true}
}

// write commits an outcome. It reports whether it was the record that failed.
func (f flight) write(run Run, rec Record, o outcome) (failed bool, err error) {
	// Neither the end of the engine nor that of the claim is a reason not to
	// try to write down what has happened: the journal decides.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(f.ctx), f.d.options.Lease)
	defer cancel()
	name := run.Step + " " + f.work.Name
	err = f.d.commit(ctx, "outcome "+name, f.event(run, o), func(tx *store.Tx) error {
		failed = false
		state := o.state
		if state != CellDone {
			left, err := isLeft(tx, f.run.id, f.work.List, f.work.N)
			if err != nil {
				return err
			}
			if left {
				state = CellLeft
			}
		}
		ok, err := updateOutcome(tx, f.run, f.stage, f.work.N, state, o)
		switch {
		case err != nil:
			return err
		case !ok:
			return errFenced
		case state == CellFailed:
			return holdRun(tx, f.run.id, name+": "+o.reason)
		case state == CellDone && rec != nil:
			err := guard(func() error { return rec(tx) })
			failed = err != nil
			return err
		}
		return nil
	})
	return failed, err
}

// event returns the event of an outcome.
func (f flight) event(run Run, o outcome) audit.Event {
	fields := []audit.Field{
		{Name: "step", Value: run.Step},
		{Name: "direction", Value: string(run.Direction)},
		{Name: "target", Value: clip(f.work.Name, 1000)},
		{Name: "outcome", Value: string(o.state)},
		{Name: "attempt", Value: fmt.Sprint(run.Attempt)},
	}
	if f.work.Host != "" {
		fields = append(fields, audit.Field{Name: "host", Value: string(f.work.Host)})
	}
	if o.reason != "" {
		fields = append(fields, audit.Field{Name: "reason", Value: o.reason})
	}
	return event(f.run.tenant, f.run.id, "run.step", fields...)
}
