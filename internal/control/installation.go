package control

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/identity"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// The kinds of the schedules that every tenant can have.
const (
	// ScanSchedule scans all hosts.
	ScanSchedule = "scan"
	// PurgeSchedule destroys, once a day, what was kept for long enough.
	PurgeSchedule = "purge"
	// ReviewSchedule judges, once an hour, keys that time alone made something of.
	ReviewSchedule = "review"
	// SeedSchedule destroys, once a day, seeds that were kept for long enough.
	SeedSchedule = "purge-seeds"
	// JWKSchedule exchanges the key that signs tokens, when its time has come.
	JWKSchedule = "jwk"
)

// installationSetting is where the id of the installation is kept: a setting of
// the tenant of what belongs to no tenant, which nobody can list or set.
const installationSetting = "installation.id"

// Installation returns the id of this installation, made at its first start. It
// is what locks on hosts carry: an installation is a database, however many
// nodes serve it.
func Installation(ctx context.Context, s *store.Store) (id string, err error) {
	fresh := uuid.NewString()
	err = s.View(ctx, trust.Installation, func(tx *store.Tx) error {
		id, err = installation(tx)
		return err
	})
	if err != nil || id != "" {
		return id, err
	}
	event := audit.Event{Tenant: trust.Installation, Actor: audit.Actor{Kind: "system", ID: "start"}, Action: "installation.create", Subject: "installation:" + fresh}
	err = s.Update(ctx, event, func(tx *store.Tx) error {
		if id, err = installation(tx); err != nil || id != "" {
			return err
		}
		id = fresh
		return putSetting(tx, installationSetting, id)
	})
	return id, err
}

func installation(tx *store.Tx) (id string, err error) {
	var at int64
	err = tx.QueryRow(sqlSetting, string(tx.Tenant()), installationSetting).Scan(&id, &at)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// Schedule makes sure, when a node starts, that what has to happen by the clock
// is scheduled, for each tenant.
func (p *Plane) Schedule(ctx context.Context) error {
	var tenants []identity.Tenant
	err := p.store.View(ctx, store.System, func(tx *store.Tx) (err error) {
		tenants, err = p.directory.Tenants(tx)
		return err
	})
	if err != nil {
		return err
	}
	for _, t := range tenants {
		missing := 0
		err := p.store.View(ctx, t.ID, func(tx *store.Tx) error {
			list, err := p.unscheduled(tx)
			missing = len(list)
			return err
		})
		if err != nil {
			return err
		}
		if missing == 0 {
			continue
		}
		system := identity.System(t.ID).Audit()
		err = p.store.Update(ctx, audit.Event{Tenant: t.ID, Actor: system, Action: "schedule.set", Subject: "tenant:" + string(t.ID)}, func(tx *store.Tx) error {
			return p.schedule(tx, system)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unscheduled returns what every tenant has scheduled and that of tx has not.
func (p *Plane) unscheduled(tx *store.Tx) ([]job.Schedule, error) {
	there, err := p.engine.Schedules(tx)
	return slices.DeleteFunc([]job.Schedule{
		{Name: PurgeSchedule, Kind: PurgeSchedule, Daily: 3 * time.Hour},
		{Name: ReviewSchedule, Kind: ReviewSchedule, Every: time.Hour},
		{Name: SeedSchedule, Kind: SeedSchedule, Daily: 3*time.Hour + 10*time.Minute},
		{Name: JWKSchedule, Kind: JWKSchedule, Every: time.Hour},
	}, func(s job.Schedule) bool {
		return slices.ContainsFunc(there, func(t job.Schedule) bool { return t.Name == s.Name })
	}), err
}

// schedule schedules that.
func (p *Plane) schedule(tx *store.Tx, system audit.Actor) error {
	list, err := p.unscheduled(tx)
	if err != nil {
		return err
	}
	for _, s := range list {
		if err := p.engine.SetSchedule(tx, system, s); err != nil {
			return err
		}
	}
	return nil
}

// Ready reports whether requests can be served: whether the database answers.
func (p *Plane) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return p.store.View(ctx, store.System, func(tx *store.Tx) error {
		var one int
		return tx.QueryRow(`SELECT 1`).Scan(&one)
	})
}
