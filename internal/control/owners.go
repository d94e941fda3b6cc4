package control

import (
	"context"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/identity"
	"keyturn/internal/job"
	"keyturn/internal/rotation"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// FollowOwners resumes rotations that are held until somebody uses his new key, as soon
// as he does: who was told so need not come back to say it. It looks every so often until
// ctx ends; changed says whether a held run is one of those, and would go on.
func (p *Plane) FollowOwners(ctx context.Context, every time.Duration, changed func(context.Context, job.Run) (bool, error), failed func(error)) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(every):
		}
		held, err := p.heldRotations(ctx)
		if err != nil && ctx.Err() == nil {
			failed(err)
		}
		for _, r := range held {
			may, err := changed(ctx, r)
			if err == nil && may {
				err = p.follow(ctx, r)
			}
			// A host that is away is asked the next time; what a person was faster with is his.
			if kind := trust.KindOf(err); err != nil && kind != trust.Unavailable && kind != trust.Conflict && ctx.Err() == nil {
				failed(err)
			}
		}
	}
}

// heldRotations returns the rotations of all tenants that are held.
func (p *Plane) heldRotations(ctx context.Context) (held []job.Run, err error) {
	var tenants []identity.Tenant
	err = p.store.View(ctx, store.System, func(tx *store.Tx) (err error) {
		tenants, err = p.directory.Tenants(tx)
		return err
	})
	for _, t := range tenants {
		if err != nil {
			return nil, err
		}
		err = p.store.View(ctx, t.ID, func(tx *store.Tx) error {
			list, err := p.engine.List(tx, job.Filter{Procedure: rotation.RotateProcedure, States: []job.State{job.Held}}, "", job.MaxPage)
			if err != nil {
				return err
			}
			for _, s := range list {
				r, err := p.engine.Get(tx, s.ID)
				if err != nil {
					return err
				}
				held = append(held, r)
			}
			return nil
		})
	}
	return held, err
}

// follow resumes a held run, unless a person has asked something of it since, or has
// paused runs: who stops what is under way does not want more of it.
func (p *Plane) follow(ctx context.Context, was job.Run) error {
	system := audit.Actor{Kind: "system", ID: "owners"}
	return p.wake(p.store.Update(ctx, audit.Event{Tenant: was.Tenant, Actor: system, Action: "run.resume", Subject: "run:" + string(was.ID)}, func(tx *store.Tx) error {
		now, err := p.engine.Get(tx, was.ID)
		if err != nil {
			return err
		}
		if now.State != job.Held || now.Asked != was.Asked {
			return trust.Errorf(trust.Conflict, "run %s goes on already", was.ID)
		}
		paused, err := p.engine.List(tx, job.Filter{States: []job.State{job.Paused}}, "", 1)
		if err != nil {
			return err
		}
		if len(paused) > 0 {
			return trust.Errorf(trust.Conflict, "run %s is paused", paused[0].ID)
		}
		return p.engine.Resume(tx, system, was.ID)
	}))
}
