package discovery

import (
	"context"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds what time alone makes of keys: no host has changed, and nobody
// has said anything.

// maxAged is how many keys of each sort one row Judge judges again: the next one
// takes the rest.
const maxAged = 500

// PlanReview plans the run that judges the keys that have expired, where there are
// any: so it does not take a scan for that to be found.
func PlanReview(tx *store.Tx, _ job.Schedule) (job.Plan, error) {
	ids, err := expired(tx, 1)
	if err == nil && len(ids) == 0 {
		err = job.ErrNothing
	}
	return job.Plan{Procedure: ReviewProcedure, Subject: "keys:expired", Exclusive: []string{"review"}}, err
}

// judge is row Judge of a scan and of a review. What is more than one commit should
// hold waits for the next.
func (d *Discoverer) judge(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	aged, err := d.stale(ctx, r.Tenant, time.Now())
	if err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		gone, err := expired(tx, maxAged)
		if err != nil {
			return err
		}
		return Judge(tx, append(gone, aged...))
	}, nil
}

// expired returns up to most keys that are accepted for longer than they were meant
// to be used, and not known as it.
func expired(tx *store.Tx, most int) ([]trust.KeyID, error) {
	keys, _, err := inventory.Keys(tx, inventory.KeyFilter{
		States: []inventory.KeyState{inventory.Active}, Expired: tx.Now(), Accepted: true, Without: inventory.Expired,
	}, inventory.Page{Limit: most})
	ids := make([]trust.KeyID, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return ids, err
}
