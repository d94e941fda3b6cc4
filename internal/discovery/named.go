package discovery

import (
	"encoding/json"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Scope says which hosts a named discovery scans. It is the arguments of its
// schedule.
type Scope struct {
	// Hosts are those that were named; none stands for every host that there is
	// when it starts.
	Hosts []trust.HostID `json:"hosts,omitempty"`
}

// ParseScope reads the arguments of a discovery's schedule.
func ParseScope(s job.Schedule) (Scope, error) {
	var scope Scope
	err := json.Unmarshal(s.Args, &scope)
	return scope, err
}

// PlanDiscovery plans the scan that the schedule of a discovery starts, under the
// schedule's name. Hosts that are gone, or were not taken in, are passed over.
func PlanDiscovery(tx *store.Tx, s job.Schedule) (job.Plan, error) {
	scope, err := ParseScope(s)
	if err != nil {
		return job.Plan{}, err
	}
	var there []trust.HostID
	for _, id := range scope.Hosts {
		h, err := inventory.HostByID(tx, id)
		if trust.KindOf(err) == trust.NotFound || err == nil && (h.State == inventory.Refused || h.State == inventory.Unenrolled) {
			continue
		}
		if err != nil {
			return job.Plan{}, err
		}
		there = append(there, id)
	}
	if len(scope.Hosts) > 0 && len(there) == 0 {
		return job.Plan{}, trust.Errorf(trust.Conflict, "none of the %d hosts of %s is there any more", len(scope.Hosts), s.Name)
	}
	plan, err := PlanScan(tx, there)
	plan.Subject, plan.Exclusive = s.Name, []string{s.Name}
	return plan, err
}
