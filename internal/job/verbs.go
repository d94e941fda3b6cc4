package job

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// MaxTargets is how many targets a plan may have in one list.
const MaxTargets = 1_000_000

// Create writes a planned run, to begin as soon as the transaction is
// committed and Wake was called. Where the plan has an exclusive name that an
// open run has, the error is a Conflict that names that run. The id of the run
// is noted in the event.
func (e *Engine) Create(tx *store.Tx, actor audit.Actor, p Plan) (trust.RunID, error) {
	proc, ok := e.procedures[p.Procedure]
	if !ok {
		return "", trust.Errorf(trust.Invalid, "there is no procedure %q", p.Procedure)
	}
	r := record{
		tenant: tx.Tenant(), id: newID(tx), procedure: p.Procedure, subject: p.Subject, args: p.Args,
		table: tableOf(proc), actor: actor, direction: Forward, at: top,
		backOf: p.Back, asked: 1, askedBy: actor, revision: 1, created: tx.Now(), approveBy: store.Micros(p.ApproveBy),
	}
	r.proceed(tx.Now())
	if len(r.args) == 0 {
		r.args = json.RawMessage("null")
	}
	r.backArgs = json.RawMessage("null")
	lists, err := r.table.plan(p)
	if err != nil {
		return "", err
	}
	if r.line, err = endOfLine(tx); err != nil {
		return "", err
	}
	if r.backOf != "" {
		if err := e.takeOver(tx, &r); err != nil {
			return "", err
		}
	}
	for _, what := range r.table.Exclusive {
		if err := claimName(tx, what, r); err != nil {
			return "", err
		}
	}
	if err := insertRun(tx, r); err != nil {
		return "", err
	}
	for list, targets := range lists {
		if err := insertTargets(tx, r.id, list, targets); err != nil {
			return "", err
		}
	}
	tx.Note("run", string(r.id))
	if proc.Started != nil {
		if err := guard(func() error { return proc.Started(tx, e.view(r)) }); err != nil {
			return "", err
		}
	}
	return r.id, nil
}

// plan takes over what a plan says, and returns its lists.
func (t *table) plan(p Plan) (map[List][]Target, error) {
	if p.Canary < 0 || p.Wave < 0 {
		return nil, trust.Errorf(trust.Invalid, "plan of %q: canary %d and wave %d must not be negative", p.Procedure, p.Canary, p.Wave)
	}
	t.Canary, t.Wave = p.Canary, p.Wave
	t.Exclusive = slices.Compact(slices.Sorted(slices.Values(p.Exclusive)))
	lists := map[List][]Target{}
	for _, r := range t.Rows {
		lists[r.On] = p.Targets[r.On]
		if r.On == Once && len(lists[Once]) == 0 {
			lists[Once] = []Target{{Name: p.Subject}}
		}
	}
	for list := range p.Targets {
		if _, ok := lists[list]; !ok {
			return nil, trust.Errorf(trust.Invalid, "plan of %q: no step is on list %q", p.Procedure, list)
		}
	}
	for list, targets := range lists {
		if len(targets) > MaxTargets || list == Once && len(targets) != 1 {
			return nil, trust.Errorf(trust.Exhausted, "plan of %q: list %q has %d targets", p.Procedure, list, len(targets))
		}
		t.Lists[list] = len(targets)
		t.keepTogether(list, targets)
	}
	return lists, nil
}

// claimName makes r the one open run that has a name, which the run that it
// takes back may have had.
func claimName(tx *store.Tx, what string, r record) error {
	owner, err := exclusiveOwner(tx, what)
	if err != nil {
		return err
	}
	if owner != "" && owner != r.backOf && owner != r.id {
		other, err := selectRun(tx, owner)
		if err != nil {
			return err
		}
		return trust.Errorf(trust.Conflict, "%s is in run %q (%s, %s)", what, owner, other.procedure, other.state).WithHint("keyturn run show %s", owner)
	}
	return setExclusive(tx, what, r.id)
}

// newID returns an id that sorts after those of earlier transactions: a UUID of
// version 7 with the microseconds that RFC 9562, section 6.2, method 3, allows.
func newID(tx *store.Tx) trust.RunID {
	var id uuid.UUID
	micros := uint64(store.Micros(tx.Now()))
	binary.BigEndian.PutUint64(id[:], micros/1000<<16|0x7000|micros%1000*4096/1000)
	_, _ = rand.Read(id[8:]) // never fails
	id[8] = id[8]&0x3f | 0x80
	return trust.RunID(id.String())
}

// Pause lets a run begin nothing more until Resume or Back. What is in flight
// ends, and is recorded. Pausing a paused run changes nothing; a held run is
// refused as a Conflict, because it stands already.
func (e *Engine) Pause(tx *store.Tx, actor audit.Actor, id trust.RunID) error {
	r, err := selectOpen(tx, id)
	switch {
	case err != nil:
		return err
	case r.state == Paused:
		return nil
	case r.state == Held:
		return trust.Errorf(trust.Conflict, "run %q is held: %s", id, r.reason)
	}
	r.ask(actor)
	r.state, r.reason = Paused, "paused"
	return updateRun(tx, r)
}

// PauseAll pauses every run of the tenant that is running or waiting, and
// returns how many these were.
func (e *Engine) PauseAll(tx *store.Tx, actor audit.Actor) (int, error) {
	n, err := pauseAll(tx, actor)
	tx.Note("paused", fmt.Sprint(n))
	return int(n), err
}

// Resume lets a paused or held run go on: targets that failed are tried again,
// and those that were unavailable at once. On a waiting run it is "try now". A
// running run is left as it is, and one that waits for approval is a Conflict.
func (e *Engine) Resume(tx *store.Tx, actor audit.Actor, id trust.RunID) error {
	r, err := selectOpen(tx, id)
	if err != nil || r.state == Running {
		return err
	}
	if r.awaits() && r.state == Waiting {
		return trust.Errorf(trust.Conflict, "run %q %s", id, awaitsApproval).WithHint("keyturn run approve %s, by another user; keyturn run back %s", id, id)
	}
	r.ask(actor)
	return r.run(tx)
}

// ResumeAll resumes every paused run of the tenant, and returns how many these were.
func (e *Engine) ResumeAll(tx *store.Tx, actor audit.Actor) (n int, err error) {
	for after := trust.RunID(""); ; {
		list, err := selectRuns(tx, Filter{States: []State{Paused}}, after, resumeAtOnce)
		if err != nil {
			return 0, err
		}
		for _, r := range list {
			after = r.id
			if r.backBy != "" {
				continue
			}
			r.ask(actor)
			if err := r.run(tx); err != nil {
				return 0, err
			}
			n++
		}
		if len(list) < resumeAtOnce {
			tx.Note("resumed", fmt.Sprint(n))
			return n, nil
		}
	}
}

// resumeAtOnce is how many runs ResumeAll reads at a time.
const resumeAtOnce = 100

// run lets a run go on, and tries again what waits or has failed.
func (r *record) run(tx *store.Tx) error {
	r.proceed(tx.Now())
	if err := retryNow(tx, *r); err != nil {
		return err
	}
	return updateRun(tx, *r)
}

// ask notes that something was asked of a run, so that an engine which decided
// on something before looks again.
func (r *record) ask(actor audit.Actor) {
	r.asked++
	r.askedBy = actor
}

// selectOpen returns a run that verbs can do something with, or a Conflict.
func selectOpen(tx *store.Tx, id trust.RunID) (record, error) {
	r, err := selectRun(tx, id)
	switch {
	case err != nil:
		return r, err
	case !r.state.Open():
		return r, trust.Errorf(trust.Conflict, "run %q has ended: %s", id, r.state)
	case r.backBy != "":
		return r, trust.Errorf(trust.Conflict, "run %q is being taken back by run %q", id, r.backBy).WithHint("keyturn run show %s", r.backBy)
	}
	return r, nil
}

// view returns a run as steps and callbacks see it.
func (e *Engine) view(r record) Run {
	return Run{
		ID: r.id, Tenant: r.tenant, Procedure: r.procedure, Subject: r.subject, Args: r.args, Actor: r.actor,
		State: r.state, Direction: r.direction, Skipped: r.skipped, BackOf: r.backOf, BackBy: r.backBy, BackArgs: r.backArgs,
		Created: r.created, Epoch: r.epoch, Asked: r.asked, Installation: e.options.Installation, table: r.table, line: r.line, store: e.store,
	}
}
