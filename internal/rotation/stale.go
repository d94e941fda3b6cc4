package rotation

import (
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// CheckPlan compares the plan of a run that rotates or retires with the inventory. A
// difference is never added silently: it is a Conflict that names it.
func CheckPlan(tx *store.Tx, r job.Run) error {
	var args Args
	if err := r.Decode(&args); err != nil {
		return err
	}
	planned := map[trust.Place]bool{}
	for t, err := range r.In(tx).Targets(Places) {
		if err != nil {
			return err
		}
		c, err := decode(r, t)
		if err != nil {
			return err
		}
		planned[c.spec.place()] = true
	}
	for i, p := range args.Pairs {
		places, err := placesOf(tx, i, p.Old)
		if err != nil {
			return err
		}
		for _, s := range places {
			if planned[s.place()] || s.Half == identityHalf && r.Procedure == RetireProcedure {
				continue
			}
			what := "also accepts this key"
			if s.Half == identityHalf {
				what = "also holds this key"
			}
			return trust.Errorf(trust.Conflict, "plan is stale: %s %s", s.name(), what).
				WithHint("keyturn run back %s, then start it again", r.ID)
		}
	}
	return nil
}
