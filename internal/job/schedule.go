package job

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Schedule starts runs by the clock.
type Schedule struct {
	Name string // within its tenant
	Kind string // which of Options.Planners plans its runs
	Args json.RawMessage
	// Every is the time from one start to the next, at least a minute; or 0,
	// and Daily is how long after midnight UTC it starts each day, in minutes.
	Every time.Duration
	Daily time.Duration
	Off   bool // it does not start anything

	// Filled in by this package:

	Actor   audit.Actor // who set it, without personal data; its runs are theirs
	Next    time.Time   // when it is due; zero while Off
	Last    time.Time   // when it was last due
	LastRun trust.RunID // what it started then
	Outcome string      // why it started nothing then, or ""
}

// A Planner plans the run that a schedule starts. ErrNothing starts none, and
// so does any error of kind Conflict, such as that of an earlier run which has
// not ended: the schedule is due again at its next time. It is part of a
// transaction, and may run twice.
type Planner func(tx *store.Tx, s Schedule) (Plan, error)

// ErrNothing is what a Planner returns when there is nothing to do this time.
var ErrNothing = errors.New("nothing to do")

// after returns when a schedule is due next after now. However long nobody
// looked, that is once.
func (s Schedule) after(now time.Time) time.Time {
	switch {
	case s.Off:
		return time.Time{}
	case s.Every > 0 && (s.Next.IsZero() || s.Next.After(now)):
		return now.Add(s.Every)
	case s.Every > 0:
		missed := now.Sub(s.Next) / s.Every
		return s.Next.Add((missed + 1) * s.Every)
	}
	day := now.UTC().Truncate(24 * time.Hour)
	if next := day.Add(s.Daily); next.After(now) {
		return next
	}
	return day.Add(24*time.Hour + s.Daily)
}

// SetSchedule writes a schedule, in place of one of the same name. It is due
// for the first time after Every, or at the next time of the day that is Daily.
func (e *Engine) SetSchedule(tx *store.Tx, actor audit.Actor, s Schedule) error {
	switch {
	case s.Name == "":
		return trust.Errorf(trust.Invalid, "a schedule has no name").WithField("name")
	case e.options.Planners[s.Kind] == nil:
		return trust.Errorf(trust.Invalid, "schedule %q: there is no kind %q", s.Name, s.Kind).WithField("kind")
	case s.Every != 0 && s.Every < time.Minute:
		return trust.Errorf(trust.Invalid, "schedule %q: every %s is less than a minute", s.Name, s.Every).WithField("every")
	case s.Every != 0 && s.Daily != 0, s.Daily < 0, s.Daily >= 24*time.Hour, s.Daily%time.Minute != 0:
		return trust.Errorf(trust.Invalid, "schedule %q: either a time between starts, or a minute of the day", s.Name).WithField("daily")
	}
	if len(s.Args) == 0 {
		s.Args = json.RawMessage("null")
	}
	s.Actor, s.Next = actor, time.Time{}
	s.Next = s.after(tx.Now())
	return upsertSchedule(tx, s)
}

// DeleteSchedule removes a schedule. What it has started goes on.
func (e *Engine) DeleteSchedule(tx *store.Tx, name string) error {
	gone, err := deleteSchedule(tx, name)
	if err == nil && !gone {
		err = trust.Errorf(trust.NotFound, "there is no schedule %q", name)
	}
	return err
}

// Schedules returns those of the transaction's tenant, by name.
func (e *Engine) Schedules(tx *store.Tx) ([]Schedule, error) { return selectSchedules(tx) }

// maxDue is how many schedules are started in one round.
const maxDue = 100

// schedules starts what is due, and returns when more will be.
func (d *dispatcher) schedules() (time.Duration, error) {
	var due []dueSchedule
	wait := d.options.Lease
	err := d.store.View(d.ctx, store.System, func(tx *store.Tx) error {
		list, next, err := selectDueSchedules(tx)
		due, wait = list, d.options.Lease
		switch {
		case len(list) == maxDue:
			wait = 0
		case !next.IsZero():
			wait = max(next.Sub(tx.Now()), 0)
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	for _, s := range due {
		if err := d.start(s); err != nil {
			return 0, err
		}
	}
	return wait, nil
}

// start starts a schedule's run, and writes when it is due next. A planner that
// fails is not asked again before that.
func (d *dispatcher) start(s dueSchedule) error {
	ev := audit.Event{
		Tenant: s.tenant, Actor: audit.Actor{Kind: "system"}, Action: "schedule.start",
		Subject: "schedule:" + s.id(),
	}
	// A planner may have written something before it failed, so its failure is
	// written down by a transaction of its own.
	var failed error
	err := d.commit(d.ctx, "schedule "+s.Name, ev, func(tx *store.Tx) error {
		failed = nil
		now, changed, err := s.again(tx)
		if err != nil || changed {
			return err
		}
		id, err := d.planned(tx, now.Schedule)
		if err != nil {
			failed = err
			return err
		}
		now.LastRun, now.Outcome = id, ""
		return now.past(tx)
	})
	if err == nil || failed == nil || errors.Is(err, errCrashed) || trust.KindOf(failed) == trust.Unavailable {
		return err
	}
	if !errors.Is(failed, ErrNothing) && trust.KindOf(failed) != trust.Conflict {
		d.options.Log.Error("a schedule could not start its run", "schedule", s.Name, "error", failed)
	}
	return d.commit(d.ctx, "schedule "+s.Name, ev, func(tx *store.Tx) error {
		now, changed, err := s.again(tx)
		if err != nil || changed {
			return err
		}
		now.LastRun, now.Outcome = "", sentence(failed)
		tx.Note("outcome", clip(now.Outcome, 1000))
		return now.past(tx)
	})
}

// again reads the schedule again, and reports whether it is still as it was.
func (s dueSchedule) again(tx *store.Tx) (now dueSchedule, changed bool, err error) {
	now, err = selectSchedule(tx, s.Name)
	if errors.Is(err, sql.ErrNoRows) {
		return now, true, nil
	}
	return now, now.revision != s.revision, err
}

// planned lets the planner of a schedule plan, and creates the run.
func (d *dispatcher) planned(tx *store.Tx, s Schedule) (trust.RunID, error) {
	planner := d.options.Planners[s.Kind]
	if planner == nil {
		return "", fmt.Errorf("there is no kind %q of schedule", s.Kind)
	}
	var plan Plan
	err := guard(func() (err error) {
		plan, err = planner(tx, s)
		return err
	})
	if err != nil {
		return "", err
	}
	return d.Create(tx, s.Actor, plan)
}

// past writes that a schedule was due, and when it is again.
func (s dueSchedule) past(tx *store.Tx) error {
	s.Last = tx.Now()
	s.Next = s.after(tx.Now())
	return updateSchedule(tx, s)
}
