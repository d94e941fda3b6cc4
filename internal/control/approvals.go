package control

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/identity"
	"keyturn/internal/job"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds what takes two persons. Where a setting says so, a verb does not do
// what it was asked for, but writes down who asked; and does it when another user has
// approved, once.

const (
	// requestLapses is for how long a request waits for approval.
	requestLapses = 7 * 24 * time.Hour
	// approvalLapses is for how long an approval of a reveal can be made use of.
	approvalLapses = time.Hour
	// maxApprovals is how many open requests are listed.
	maxApprovals = 1000
)

// errApproval ends the commit of a verb that finds that it takes approval. Nobody sees
// it: that is asked for in another commit, under its own name.
var errApproval = errors.New("it takes the approval of another user")

// An Approval is a request that takes the approval of another user.
type Approval struct {
	ID string
	// Subject is what it is about: "run:" and a run that is to begin, "back:" and one that
	// is to be taken back, "key:" and a key that is to be revealed, "setting:" and a setting.
	Subject string
	// Value is what a setting is to be.
	Value string
	// AskedBy is the name of the user who asked, or in whose name a token did; of who is
	// none, or was removed since, the kind and the id.
	AskedBy string
	AskedAt time.Time
	// Until is when the request lapses, or, once approved, the approval does.
	Until time.Time
	// ApprovedBy says who approved, as "user:ID" or "token:ID", and ApprovedAt when; or
	// nothing.
	ApprovedBy string
	ApprovedAt time.Time

	actor, person string
	first         string // the first of the two persons who approve of what a machine asked for
	spent         time.Time
}

// ask writes down that an actor asks for what takes approval until a time, and returns
// the request; once, however often it is asked for.
func ask(tx *store.Tx, actor identity.Actor, subject, value string, until time.Time) (Approval, error) {
	a, err := requested(tx, subject, actor.Owner)
	if trust.KindOf(err) != trust.NotFound {
		return a, err
	}
	a = Approval{
		Subject: subject, Value: value, AskedAt: tx.Now(), Until: until,
		ID: uuid.NewString(), actor: actor.Kind + ":" + actor.ID, person: actor.Owner,
	}
	_, err = tx.Exec(sqlAskApproval, tx.Tenant(), a.ID, a.Subject, a.Value, a.actor, a.person, store.Micros(a.AskedAt), store.Micros(a.Until))
	tx.Note("approve-by", until.Format(time.RFC3339))
	return a, err
}

// requested returns the open request about a subject by a person, or a NotFound error.
func requested(tx *store.Tx, subject, person string) (Approval, error) {
	return oneRequest(tx, sqlOwnApproval, subject, person)
}

// toApprove returns the open request about a subject that a person may approve, or else
// that person's own, or a NotFound error.
func toApprove(tx *store.Tx, subject, person string) (Approval, error) {
	return oneRequest(tx, sqlOthersApproval, subject, person)
}

// requestByID returns the open request of an id, or a NotFound error.
func requestByID(tx *store.Tx, id string) (a Approval, err error) {
	err = a.scan(tx.QueryRow(sqlApprovalByID, tx.Tenant(), id, store.Micros(tx.Now())).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return a, trust.Errorf(trust.NotFound, "no request %s waits for approval", clip(id)).WithHint("keyturn approval list")
	}
	return a, err
}

func oneRequest(tx *store.Tx, query, subject, person string) (a Approval, err error) {
	err = a.scan(tx.QueryRow(query, tx.Tenant(), subject, person, store.Micros(tx.Now())).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return a, trust.Errorf(trust.NotFound, "nothing about %s waits for approval", clip(subject)).WithHint("keyturn approval list")
	}
	return a, err
}

func (a *Approval) scan(scan func(...any) error) error {
	var asked, until, approved, spent int64
	err := scan(&a.ID, &a.Subject, &a.Value, &a.actor, &a.person, &asked, &until, &a.ApprovedBy, &approved, &spent, &a.first)
	a.AskedAt, a.Until, a.ApprovedAt, a.spent = store.Time(asked), store.Time(until), store.Time(approved), store.Time(spent)
	return err
}

// approve writes down that an actor approves, who has to be another person than the
// one who asked, whichever token either of them used. What is approved of can be done
// until a time, if that is enough: whose job a machine does is not known, and what one asked
// for takes two persons. What a user asked for who was removed since, nobody approves of.
func (p *Plane) approve(tx *store.Tx, a *Approval, actor identity.Actor, until time.Time) (enough bool, err error) {
	switch {
	case actor.Owner == "" || actor.Owner == a.person:
		return false, trust.Errorf(trust.Denied, "%s was asked for by %s %q, and takes the approval of another user", a.Subject, actor.Kind, actor.Name)
	case actor.Owner == a.first:
		return false, trust.Errorf(trust.Denied, "%s was asked for by a machine, and takes the approval of another user as well", a.Subject)
	case !a.ApprovedAt.IsZero():
		return false, trust.Errorf(trust.Conflict, "%s was approved already, by %s", a.Subject, a.ApprovedBy)
	}
	if a.person != "" {
		if _, err := p.directory.User(tx, a.person); trust.KindOf(err) == trust.NotFound {
			return false, trust.Errorf(trust.Conflict, "%s was asked for by a user who was removed since", a.Subject).
				WithHint("keyturn approval refuse %s; whoever wants it asks anew", a.ID)
		} else if err != nil {
			return false, err
		}
	}
	tx.Note("asked-by", a.actor)
	if a.person == "" && a.first == "" {
		a.first = actor.Owner
		tx.Note("approvals", "1 of 2")
		return false, a.write(tx)
	}
	a.ApprovedBy, a.ApprovedAt, a.Until = actor.Kind+":"+actor.ID, tx.Now(), until
	return true, a.write(tx)
}

// another is what the first of two persons is told, whose approval is written down.
func (a Approval) another() error {
	return trust.Errorf(trust.Conflict, "your approval is written down; a machine asked for %s, so that it takes that of another user as well, until %s", a.Subject, a.Until.Format(time.RFC3339)).
		WithHint("keyturn approval list")
}

// spend writes down that what was approved of is done. Of two that do it at the same
// time, one commits.
func (a *Approval) spend(tx *store.Tx) error {
	if a.ApprovedAt.IsZero() || !a.spent.IsZero() {
		return trust.Errorf(trust.Internal, "what was not approved of, or done already, is done: %s", a.Subject)
	}
	a.spent = tx.Now()
	tx.Note("approved-by", a.ApprovedBy)
	return a.write(tx)
}

// write writes what changes of a request, over one of which nothing has been done.
func (a *Approval) write(tx *store.Tx) error {
	n, err := tx.Exec(sqlWriteApproval, tx.Tenant(), a.ID, store.Micros(a.Until), a.ApprovedBy, store.Micros(a.ApprovedAt), store.Micros(a.spent), a.first)
	if err == nil && n == 0 {
		err = trust.Errorf(trust.Conflict, "what was approved of is done already: %s", a.Subject)
	}
	return err
}

// ListApprovals lists the requests that wait for another user, and those that were
// approved and not yet made use of, oldest first.
func (p *Plane) ListApprovals(ctx context.Context, actor identity.Actor) (list []Approval, err error) {
	err = p.view(ctx, actor, identity.RunsRead, func(tx *store.Tx) error {
		if list, err = openApprovals(tx); err != nil {
			return err
		}
		waiting := list[:0]
		for _, a := range list {
			if run, ok := strings.CutPrefix(a.Subject, "run:"); ok {
				if _, state, err := p.engine.Revision(tx, trust.RunID(run)); err != nil || !state.Open() {
					continue // taken back
				}
			}
			a.AskedBy = a.actor
			if u, err := p.directory.User(tx, a.person); err == nil {
				a.AskedBy = u.Name
			}
			waiting = append(waiting, a)
		}
		list = waiting
		return nil
	})
	return list, err
}

func openApprovals(tx *store.Tx) (list []Approval, err error) {
	rows, err := tx.Query(sqlOpenApprovals, tx.Tenant(), store.Micros(tx.Now()), maxApprovals)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var a Approval
		if err := a.scan(rows.Scan); err != nil {
			return nil, err
		}
		list = append(list, a)
	}
	return list, rows.Err()
}

// approverOf returns who approved of a run, or "".
func approverOf(tx *store.Tx, run trust.RunID) (string, error) {
	var a Approval
	err := a.scan(tx.QueryRow(sqlLastApproval, tx.Tenant(), "run:"+string(run)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return a.ApprovedBy, err
}

// begin starts a run that takes keys out of use, which begins at once or, where policy
// asks for that, when another user has approved: then it waits. A rotation of a compromised
// key waits too: otherwise to say that it is one would be the way round.
func (p *Plane) begin(tx *store.Tx, actor identity.Actor, plan job.Plan) (run trust.RunID, waits bool, err error) {
	wanted, _, err := setting(tx, rotationApproval)
	if err != nil {
		return "", false, err
	}
	if wanted == off {
		run, err = p.engine.Create(tx, actor.Audit(), plan)
		return run, false, err
	}
	plan.ApproveBy = tx.Now().Add(requestLapses)
	if run, err = p.engine.Create(tx, actor.Audit(), plan); err != nil {
		return "", true, err
	}
	_, err = ask(tx, actor, "run:"+string(run), "", plan.ApproveBy)
	return run, true, err
}

// RefuseApproval ends a request that waits for approval, or an approval that was not made
// use of, and returns what it was. A run that waits is taken back. It takes the permission
// that to approve does; whoever asked may refuse, too.
func (p *Plane) RefuseApproval(ctx context.Context, actor identity.Actor, id string) (a Approval, err error) {
	err = p.update(ctx, actor, needs(identity.RunsRead), "approval.refuse", "approval:"+subject(id), func(tx *store.Tx) error {
		if a, err = requestByID(tx, id); err != nil {
			return err
		}
		kind, of, _ := strings.Cut(a.Subject, ":")
		if err := require(actor, approves[kind]...); err != nil {
			return err
		}
		tx.Note("subject", a.Subject)
		tx.Note("asked-by", a.actor)
		a.Until = tx.Now()
		if err := a.write(tx); err != nil || kind != "run" {
			return err
		}
		args, err := rotation.BackArgs(nil)
		if err != nil {
			return err
		}
		_, err = p.engine.Back(tx, actor.Audit(), trust.RunID(of), args)
		return err
	})
	return a, p.wake(err)
}

// approves is what it takes to approve or refuse, by what was asked for.
var approves = map[string][]identity.Permission{
	"run":     {identity.RunsWrite},
	"back":    {identity.KeysWrite, identity.RunsWrite},
	"key":     {identity.KeysReveal},
	"setting": {identity.SettingsWrite},
}

// ApproveSetting changes a setting as another user asked for.
func (p *Plane) ApproveSetting(ctx context.Context, actor identity.Actor, name string) (s Setting, err error) {
	var a Approval
	enough := false
	err = p.update(ctx, actor, needs(identity.SettingsWrite), "setting.approve", "setting:"+subject(name), func(tx *store.Tx) error {
		if a, err = toApprove(tx, "setting:"+name, actor.Owner); err != nil {
			return err
		}
		if enough, err = p.approve(tx, &a, actor, a.Until); err != nil || !enough {
			return err
		}
		if err := a.spend(tx); err != nil {
			return err
		}
		s, err = p.set(tx, actor, name, a.Value)
		return err
	})
	if err == nil && !enough {
		return s, a.another()
	}
	return s, p.wake(err)
}

// ApproveRun lets a run begin that another user started. It has to be as it was
// planned: a key that was found in more places since is rotated by another run.
func (p *Plane) ApproveRun(ctx context.Context, actor identity.Actor, id trust.RunID) error {
	var a Approval
	enough := false
	err := p.ask(ctx, actor, "run.approve", id, func(tx *store.Tx) error {
		r, err := p.engine.Get(tx, id)
		if err != nil {
			return err
		}
		a, err = toApprove(tx, "run:"+string(id), actor.Owner)
		if trust.KindOf(err) == trust.NotFound {
			return cmp.Or(p.engine.Approve(tx, actor.Audit(), id), err) // which says why not
		}
		if err != nil {
			return err
		}
		if enough, err = p.approve(tx, &a, actor, a.Until); err != nil || !enough {
			return err
		}
		if err := a.spend(tx); err != nil {
			return err
		}
		if err := rotation.CheckPlan(tx, r); err != nil {
			return err
		}
		if err := p.engine.Approve(tx, actor.Audit(), id); err != nil {
			return err
		}
		return p.revokeRetired(tx, id)
	})
	if err == nil && !enough {
		return a.another()
	}
	return err
}
