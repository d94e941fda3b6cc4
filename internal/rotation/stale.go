package rotation

import (
	"crypto/sha256"
	"strings"

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
	type digest [16]byte // of a place: there may be 100,000, whose names take ten times the room
	digestOf := func(p trust.Place) (d digest) {
		sum := sha256.Sum256([]byte(strings.Join([]string{string(p.Host), p.User, p.Path}, "\x00")))
		copy(d[:], sum[:])
		return d
	}
	planned := map[digest]bool{}
	for t, err := range r.In(tx).Targets(Places) {
		if err != nil {
			return err
		}
		c, err := decode(r, t)
		if err != nil {
			return err
		}
		planned[digestOf(c.spec.place())] = true
	}
	for i, p := range args.Pairs {
		for s, err := range placesOf(tx, i, p.Old) {
			if err != nil {
				return err
			}
			if planned[digestOf(s.place())] || s.Half == identityHalf && r.Procedure == RetireProcedure {
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
