package control

import (
	"context"

	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
)

// Counts is a tenant at a glance.
type Counts struct {
	Runs  []job.RunsInState
	Hosts inventory.HostCounts
}

// Count counts what the first tenant has, for its users: whoever sees this sees what the
// node does for all of them.
func (p *Plane) Count(ctx context.Context, actor identity.Actor) (c Counts, err error) {
	if err := p.overInstallation(ctx, actor, identity.MetricsRead); err != nil {
		return c, err
	}
	err = p.view(ctx, actor, identity.MetricsRead, func(tx *store.Tx) error {
		if c.Runs, err = p.engine.Count(tx); err != nil {
			return err
		}
		c.Hosts, err = inventory.SummarizeHosts(tx)
		return err
	})
	return c, err
}
