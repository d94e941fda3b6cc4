package rotation

import (
	"context"
	"fmt"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
)

// purgeAtOnce is how many keys one purge destroys; the next takes the rest.
const purgeAtOnce = 500

// PlanPurge plans the run that destroys what the rotated inventory has kept for
// longer than it had to.
func PlanPurge(*store.Tx, job.Schedule) (job.Plan, error) {
	return job.Plan{Procedure: PurgeProcedure, Subject: "archive:expired", Exclusive: []string{"purge"}}, nil
}

// purge is the one table without a way back.
func (ro *Rotator) purge() job.Procedure {
	return job.Procedure{
		Name:  PurgeProcedure,
		Steps: []job.Step{{Name: "Destroy", On: job.Once, Do: ro.destroy, Final: true}},
	}
}

// destroy forgets the private halves and snapshots of the keys whose retention
// has ended, and of those that were deleted long ago. A key that is in use again keeps its private half.
func (ro *Rotator) destroy(context.Context, job.Run, job.Target) (job.Record, error) {
	return func(tx *store.Tx) error {
		expired, _, err := inventory.Rotations(tx, inventory.RotationFilter{Expired: tx.Now()}, inventory.Page{Limit: purgeAtOnce})
		if err != nil {
			return err
		}
		for _, x := range expired {
			places, err := inventory.ArchivedPlaces(tx, x.Run, x.Key)
			if err != nil {
				return err
			}
			for _, p := range places {
				if p.Snapshot == "" {
					continue
				}
				if err := ro.keyring.Forget(tx, snapshotKind, p.Snapshot); err != nil {
					return err
				}
			}
			k, err := inventory.KeyByID(tx, x.Key)
			if err != nil {
				return err
			}
			if k.State != inventory.Active {
				if err := ro.keyring.Destroy(tx, x.Key); err != nil {
					return err
				}
				k.Custody = inventory.External
				if _, err := inventory.UpdateKey(tx, k); err != nil {
					return err
				}
			}
			if err := inventory.Purged(tx, x.Run, x.Key); err != nil {
				return err
			}
			tx.Note("key", string(x.Key))
		}
		tx.Note("purged", fmt.Sprint(len(expired)))
		return ro.destroyDeleted(tx)
	}, nil
}

// destroyDeleted forgets the private halves of keys that nobody can bring back any
// more.
func (ro *Rotator) destroyDeleted(tx *store.Tx) error {
	f := inventory.KeyFilter{States: []inventory.KeyState{inventory.Deleted}, DeletedBefore: tx.Now().Add(-inventory.DeletedFor)}
	held, revealed := f, f
	held.Custodies, revealed.Revealed = []inventory.Custody{inventory.Held}, true
	gone, _, err := inventory.Keys(tx, held, inventory.Page{Limit: purgeAtOnce})
	if err != nil {
		return err
	}
	for _, k := range gone {
		if err := ro.keyring.Destroy(tx, k.ID); err != nil {
			return err
		}
		k.Custody = inventory.External
		if _, err := inventory.UpdateKey(tx, k); err != nil {
			return err
		}
		tx.Note("key", string(k.ID))
	}
	return ro.destroyRevealed(tx, revealed)
}

// destroyRevealed forgets the private halves of keys that somebody has besides. They
// are external as it is, and few.
func (ro *Rotator) destroyRevealed(tx *store.Tx, f inventory.KeyFilter) error {
	for p := (inventory.Page{Limit: purgeAtOnce}); ; {
		gone, next, err := inventory.Keys(tx, f, p)
		if err != nil {
			return err
		}
		for _, k := range gone {
			held, err := ro.keyring.Has(tx, k.ID)
			if err != nil {
				return err
			}
			if !held {
				continue
			}
			if err := ro.keyring.Destroy(tx, k.ID); err != nil {
				return err
			}
			tx.Note("key", string(k.ID))
		}
		if p.After = next; next == "" {
			return nil
		}
	}
}
