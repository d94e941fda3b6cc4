// Package discovery finds out what is on hosts and holds it against what is
// recorded: it takes hosts in, scans them, and judges what a scan found.
//
// A scan reads, and changes nothing on a host. It asks the sshd that serves its
// own session which files it reads for each account, so that what it lists is
// what lets people in, not what usually does. What it cannot see it says: in
// the coverage of the host, never by leaving it out.
package discovery

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/reach"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// The names of this package's procedures, as runs show them.
const (
	EnrolProcedure    = "enrol"
	PasswordProcedure = "enrol-by-password"
	ScanProcedure     = "scan"
	ReviewProcedure   = "review"
)

// hosts is the list of targets of those that look at hosts.
const hosts job.List = "hosts"

// A Discoverer runs the steps of this package's procedures.
type Discoverer struct {
	store *store.Store
	reach *reach.Reach
}

// New returns a Discoverer.
func New(s *store.Store, r *reach.Reach) *Discoverer { return &Discoverer{store: s, reach: r} }

// Procedures returns the tables, for job.New.
func (d *Discoverer) Procedures() []job.Procedure {
	leave := func(*store.Tx, job.Run, job.Target) (job.Effect, error) { return job.Effect{}, nil }
	return []job.Procedure{
		{
			Name: EnrolProcedure,
			Steps: []job.Step{
				{Name: "Pin", On: hosts, Do: d.pin},
				{Name: "Enrol", On: hosts, Do: d.enrol},
			},
			Leave: leave,
		},
		{
			Name: PasswordProcedure,
			Steps: []job.Step{
				{Name: "Pin", On: hosts, Do: d.pin},
				{Name: "Vouch", On: hosts, Do: d.vouch},
				{Name: "Authorize", On: hosts, Do: d.authorize},
				{Name: "Enrol", On: hosts, Do: d.enrol},
			},
			Leave: leave,
		},
		{
			Name: ScanProcedure,
			Steps: []job.Step{
				{Name: "Scan", On: hosts, Do: d.scan},
				{Name: "Judge", On: job.Once, Do: d.judge},
			},
			Leave: leave,
		},
		{
			Name:  ReviewProcedure,
			Steps: []job.Step{{Name: "Judge", On: job.Once, Do: d.judge}},
		},
	}
}

// enrolArgs are what an enrolment is planned with.
type enrolArgs struct {
	// AcceptNew: a host without a pinned key is known by what it presents.
	AcceptNew bool `json:"accept_new"`
}

// PlanEnrol plans the run that takes a host in.
func PlanEnrol(h inventory.Host, acceptNew bool) (job.Plan, error) {
	args, err := json.Marshal(enrolArgs{AcceptNew: acceptNew})
	if err != nil {
		return job.Plan{}, err
	}
	return job.Plan{
		Procedure: EnrolProcedure, Subject: "host:" + string(h.ID), Args: args,
		Targets: map[job.List][]job.Target{hosts: {{Host: h.ID, Name: h.Name}}}, Exclusive: []string{"host:" + string(h.ID)},
	}, nil
}

// MaxScan is how many hosts one scan goes through.
const MaxScan = 1_000_000

// PlanScan plans the run that scans hosts: those that are named, or else all
// that are enrolled.
func PlanScan(tx *store.Tx, ids []trust.HostID) (job.Plan, error) {
	plan := job.Plan{Procedure: ScanProcedure, Subject: "hosts:all", Targets: map[job.List][]job.Target{}}
	if len(ids) > 0 {
		plan.Subject = "host:" + string(ids[0])
		for _, id := range ids {
			h, err := inventory.HostByID(tx, id)
			if err != nil {
				return job.Plan{}, err
			}
			if h.State == inventory.Unenrolled {
				return job.Plan{}, trust.Errorf(trust.Conflict, "host %q is known as a target only, and not what opens it", h.Name).WithHint("keyturn host add %s --address %s ...", h.Name, h.Address)
			}
			if h.State == inventory.Refused {
				return job.Plan{}, trust.Errorf(trust.Conflict, "host %q was not taken in: %s", h.Name, h.Reason).WithHint("mend that, then keyturn host remove %s, and add it again", h.Name)
			}
			plan.Targets[hosts] = append(plan.Targets[hosts], job.Target{Host: h.ID, Name: h.Name})
		}
		return plan, nil
	}
	after := trust.HostID("")
	for {
		refs, err := inventory.HostRefs(tx, inventory.HostFilter{States: []inventory.HostState{inventory.Ready, inventory.Enrolling}}, after, inventory.MaxPage)
		if err != nil {
			return job.Plan{}, err
		}
		for _, r := range refs {
			plan.Targets[hosts] = append(plan.Targets[hosts], job.Target{Host: r.ID, Name: r.Name})
		}
		if len(refs) < inventory.MaxPage {
			break
		}
		after = refs[len(refs)-1].ID
	}
	if len(plan.Targets[hosts]) == 0 {
		return job.Plan{}, trust.Errorf(trust.Conflict, "there is no host to scan").WithHint("keyturn host add")
	}
	return plan, nil
}

// PlanScheduled plans the scan that a schedule starts.
func PlanScheduled(tx *store.Tx, _ job.Schedule) (job.Plan, error) {
	plan, err := PlanScan(tx, nil)
	plan.Exclusive = []string{"scheduled-scan"}
	return plan, err
}

// pin is row Pin: a host that nobody named a key of is known by what it
// presents now. That the key is another host's ends the enrolment.
func (d *Discoverer) pin(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	var args enrolArgs
	if err := r.Decode(&args); err != nil {
		return nil, err
	}
	h, err := d.host(ctx, r.Tenant, t.Host)
	if err != nil || len(h.Pins) > 0 {
		return nil, err
	}
	if !args.AcceptNew {
		return refuse(h, trust.Errorf(trust.Conflict, "no host key is given")), nil
	}
	key, err := d.reach.Learn(ctx, h)
	if err != nil {
		return refuse(h, err), ctx.Err()
	}
	var other inventory.HostRef
	err = d.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		other, err = inventory.PinnedAt(tx, key)
		return err
	})
	if err == nil {
		return refuse(h, trust.Errorf(trust.Conflict, "it presents the host key %s of host %q: one machine, or a copy of one", key.Fingerprint(), other.Name)), nil
	}
	if trust.KindOf(err) != trust.NotFound {
		return nil, err
	}
	return func(tx *store.Tx) error { return inventory.AddPin(tx, h.ID, key, inventory.FirstUse) }, nil
}

// enrol is row Enrol: a login, and the first scan. What goes wrong is the
// host's reason, not the run's: somebody is waiting for the answer.
func (d *Discoverer) enrol(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	h, err := d.host(ctx, r.Tenant, t.Host)
	if err != nil || h.State == inventory.Refused {
		return nil, err
	}
	scan, err := d.read(ctx, r.Tenant, h)
	if err != nil {
		return refuse(h, err), ctx.Err()
	}
	return func(tx *store.Tx) error {
		now, err := inventory.HostByID(tx, h.ID)
		if err != nil {
			return err
		}
		now.State, now.Reason = inventory.Ready, ""
		if _, err := inventory.UpdateHost(tx, now); err != nil {
			return err
		}
		return record(tx, scan)
	}, nil
}

// refuse records why a host was not taken in.
func refuse(h inventory.Host, why error) job.Record {
	return func(tx *store.Tx) error {
		now, err := inventory.HostByID(tx, h.ID)
		if err != nil {
			return err
		}
		now.State, now.Reason = inventory.Refused, sentence(why)
		_, err = inventory.UpdateHost(tx, now)
		return err
	}
}

// sentence returns an error as a row keeps it, with its hint.
func sentence(err error) string {
	var e *trust.Error
	if errors.As(err, &e) && e.Hint != "" {
		return e.Message + "; " + e.Hint
	}
	return err.Error()
}

// enrolmentWait is how often a scan looks whether a host has been taken in.
const enrolmentWait = 500 * time.Millisecond

// scan is row Scan. A host that cannot be reached is told in its coverage, and
// does not hold the others up.
func (d *Discoverer) scan(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	h, err := d.host(ctx, r.Tenant, t.Host)
	switch {
	case trust.KindOf(err) == trust.NotFound:
		return nil, nil // removed since
	case err != nil || h.State == inventory.Refused:
		return nil, err
	case h.State == inventory.Enrolling:
		return nil, job.Until(time.Now().Add(enrolmentWait))
	}
	scan, err := d.read(ctx, r.Tenant, h)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		scan = inventory.Scan{Host: h.ID, Outcome: inventory.Unreachable, Why: sentence(err)}
	}
	return func(tx *store.Tx) error { return record(tx, scan) }, nil
}

// record writes a scan, and judges again what it changed.
func record(tx *store.Tx, s inventory.Scan) error {
	delta, err := inventory.RecordScan(tx, s)
	if err != nil {
		return err
	}
	tx.Note("outcome", string(s.Outcome))
	if s.Outcome != inventory.Unreachable {
		tx.Note("files-changed", strconv.Itoa(delta.Files))
		tx.Note("keys-gained", strconv.Itoa(len(delta.Gained)))
		tx.Note("keys-lost", strconv.Itoa(len(delta.Lost)))
	}
	if err := Judge(tx, delta.Keys()); err != nil {
		return err
	}
	return JudgeHost(tx, s.Host)
}

func (d *Discoverer) host(ctx context.Context, tenant trust.TenantID, id trust.HostID) (h inventory.Host, err error) {
	err = d.store.View(ctx, tenant, func(tx *store.Tx) error {
		h, err = inventory.HostByID(tx, id)
		return err
	})
	return h, err
}
