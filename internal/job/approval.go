package job

import (
	"fmt"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Approval. A run whose plan says so waits, planned and with nothing begun, until
// somebody approves of it; who may is for the caller of Approve to say. It is a run
// that waits like any other: Back ends it, and so does time. No other verb begins it.
// Nobody waits behind it in the line.

// awaitsApproval is why such a run waits.
const awaitsApproval = "waits for approval by another user"

// awaits reports whether a run waits to be approved of.
func (r record) awaits() bool { return r.approveBy != 0 }

// proceed lets a run go on: at once, or, where it waits for approval, with that.
func (r *record) proceed(now time.Time) {
	r.state, r.reason, r.wake = Running, "", store.Micros(now)
	if r.awaits() {
		r.state, r.reason, r.wake = Waiting, awaitsApproval, r.approveBy
	}
}

// Approve lets a run go on that waits for it, behind those that were begun meanwhile.
// A paused run stays paused. One that does not wait for approval is a Conflict.
func (e *Engine) Approve(tx *store.Tx, actor audit.Actor, id trust.RunID) error {
	r, err := selectOpen(tx, id)
	switch {
	case err != nil:
		return err
	case !r.awaits():
		return trust.Errorf(trust.Conflict, "run %q does not wait for approval", id).WithHint("keyturn run show %s", id)
	case r.approveBy <= store.Micros(tx.Now()):
		return trust.Errorf(trust.Conflict, "run %q was to be approved until %s", id, minute(r.approveBy))
	}
	if r.line, err = endOfLine(tx); err != nil {
		return err
	}
	r.ask(actor)
	r.approveBy = 0
	if r.state == Waiting {
		return r.run(tx)
	}
	return updateRun(tx, r)
}

// lapse ends a run that nobody approved of in time.
func (e *Engine) lapse(tx *store.Tx, r record) error {
	tx.Note("approval", "lapsed")
	r.direction, r.reason = Backward, fmt.Sprintf("nobody approved it until %s", minute(r.approveBy))
	return e.settle(tx, r, WentBack)
}

// minute is a time as sentences have it.
func minute(micros int64) string { return store.Time(micros).Format("2006-01-02 15:04 UTC") }
