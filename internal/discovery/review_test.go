package discovery_test

import (
	"errors"
	"testing"
	"time"

	"keyturn/internal/discovery"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
)

// That a key has expired is found without a scan, once.
func TestReviewFindsExpired(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ready(w.server("web1"))
	plan := func() (plan job.Plan, err error) {
		w.view(func(tx *store.Tx) error {
			plan, err = discovery.PlanReview(tx, job.Schedule{})
			return nil
		})
		return plan, err
	}
	expire := func(at time.Time) {
		w.update(func(tx *store.Tx) error {
			k, err := inventory.KeyByID(tx, w.login.ID)
			if err != nil {
				return err
			}
			k.ExpiresAt = at
			_, err = inventory.UpdateKey(tx, k)
			return err
		})
	}
	expire(time.Now().Add(time.Hour))
	if _, err := plan(); !errors.Is(err, job.ErrNothing) {
		t.Errorf("with a key that expires in an hour, a review is planned: %v", err)
	}
	expire(time.Now())
	p, err := plan()
	w.must(err)
	if d := w.run(p); d.State != job.Done {
		t.Fatalf("the review is %s: %s", d.State, d.Reason)
	}
	w.view(func(tx *store.Tx) error {
		found, _, err := inventory.Findings(tx, inventory.FindingFilter{Key: w.login.ID, Kinds: []inventory.FindingKind{inventory.Expired}}, inventory.Page{Limit: 10})
		if len(found) != 1 {
			t.Errorf("found %+v", found)
		}
		return err
	})
	if _, err := plan(); !errors.Is(err, job.ErrNothing) {
		t.Errorf("what is known is reviewed again: %v", err)
	}
}
