package control

import (
	"context"
	"strings"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/job"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds how compromised keys come back. Going back waits for nobody, since it is
// what helps in an emergency; but to let in again who may have stolen a key helps in none.
// Where rotations take two persons, so does that.

// forced reports whether to take a run back is to let compromised keys in again that it has
// begun to withdraw.
func forced(tx *store.Tx, r job.Run) (bool, error) {
	if r.Procedure != rotation.RotateProcedure && r.Procedure != rotation.RetireProcedure {
		return false, nil
	}
	withdrawing, err := r.In(tx).Began("Withdraw")
	if err != nil || !withdrawing {
		return false, err
	}
	err = refuseCompromised(tx, keysOf(r.Procedure, r.Args), false)
	if trust.KindOf(err) == trust.Conflict {
		return true, nil
	}
	return false, err
}

// spendBack makes use of the approval that it takes to take a run back by force, where that
// takes one. It is errApproval that there is none.
func spendBack(tx *store.Tx, actor identity.Actor, r job.Run) error {
	if takes, err := forced(tx, r); err != nil || !takes {
		return err
	}
	wanted, _, err := setting(tx, rotationApproval)
	if err != nil || wanted == off {
		return err
	}
	a, err := requested(tx, "back:"+string(r.ID), actor.Owner)
	if trust.KindOf(err) == trust.NotFound || err == nil && a.ApprovedAt.IsZero() {
		return errApproval
	}
	if err != nil {
		return err
	}
	return a.spend(tx)
}

// askForBack asks for the approval that it takes to take runs back by force.
func (p *Plane) askForBack(ctx context.Context, actor identity.Actor, runs []trust.RunID) error {
	if actor.Owner == "" {
		return trust.Errorf(trust.Denied, "with the setting %s on, users bring compromised keys back, and %s %q is none", rotationApproval, actor.Kind, actor.Name)
	}
	var until time.Time
	var names []string
	for _, run := range runs {
		names = append(names, string(run))
	}
	err := p.update(ctx, actor, needs(identity.KeysWrite, identity.RunsWrite), "approval.ask", "run:"+names[0], func(tx *store.Tx) error {
		for _, run := range names {
			a, err := ask(tx, actor, "back:"+run, "", tx.Now().Add(requestLapses))
			if err != nil {
				return err
			}
			until = a.Until
		}
		return nil
	})
	if err != nil {
		return err
	}
	return trust.Errorf(trust.Conflict, "another user has to approve that you bring compromised keys back, which was asked for until %s: run %s", until.Format(time.RFC3339), strings.Join(names, ", ")).
		WithHint("keyturn run approve-back %s USER, by another user; then ask again, within an hour", names[0])
}

// ApproveBack approves that a user who asked for it takes a run back by force, once, within
// an hour.
func (p *Plane) ApproveBack(ctx context.Context, actor identity.Actor, run trust.RunID, user string) (a Approval, err error) {
	err = p.update(ctx, actor, needs(identity.KeysWrite, identity.RunsWrite), "run.approve-back", "run:"+subject(string(run)), func(tx *store.Tx) error {
		u, err := p.directory.User(tx, user)
		if err != nil {
			return err
		}
		if a, err = requested(tx, "back:"+string(run), u.ID); err != nil {
			return err
		}
		a.AskedBy = u.Name
		_, err = p.approve(tx, &a, actor, tx.Now().Add(approvalLapses))
		return err
	})
	return a, err
}
