package hostid

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"keyturn/internal/authority"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// RotateProcedure and PurgeProcedure name the procedures of this package.
const (
	RotateProcedure = "rotate-seed"
	PurgeProcedure  = "purge-seeds"
)

// args are the arguments of a rotation.
type args struct {
	// Seed is what the rotation is to, or was when it was planned: another one may have
	// taken its place since. It is "" in a run that takes back what changed nothing.
	Seed trust.SeedID `json:"seed"`
}

// Plan plans the run to a seed that Ask wrote down.
func Plan(id trust.SeedID) (job.Plan, error) {
	a, err := json.Marshal(args{id})
	return job.Plan{Procedure: RotateProcedure, Subject: "seed:" + cmp.Or(string(id), "none"), Args: a}, err
}

// A mover applies the rules of Seeds in runs.
type mover struct {
	store       *store.Store
	keyring     *keyring.Keyring
	authorities *authority.Authorities
}

// Procedures returns the tables of this package.
//
// The table of a rotation, with the phase that each row begins, or waits for the end of:
//
//	Announce   once   the new keys are announced beside the old ones   present-old
//	Learn      once   waits: who connects learns the new keys
//	Present    once   the new keys are presented, both are announced   present-new
//	Linger     once   waits: every node presents the new keys
//	Withdraw   once   the old keys are announced no more               settled
//
// Up to Present nobody has been shown the new keys as the host's, so that going back is to
// announce them no more: clients forget what is announced no more when they connect. From there on it is this table again, to the seed before. Each
// row is one commit, and asks the rules again in that commit, so a crash at any instant
// leaves a row done or not begun. A run whose seed was revoked meanwhile has nothing to do
// in any row.
func Procedures(s *store.Store, k *keyring.Keyring) []job.Procedure {
	m := &mover{store: s, keyring: k, authorities: authority.New(k)}
	return []job.Procedure{
		{
			Name: RotateProcedure,
			Steps: []job.Step{
				{Name: "Announce", On: job.Once, Do: m.announce, Undo: m.abandon},
				{Name: "Learn", On: job.Once, Do: m.learn},
				{Name: "Present", On: job.Once, Do: m.present},
				{Name: "Linger", On: job.Once, Do: m.linger},
				{Name: "Withdraw", On: job.Once, Do: m.withdraw},
			},
			Turn:    "Present",
			Reverse: m.reverse,
			Started: m.started,
			Ended:   m.ended,
		},
		{
			Name:  PurgeProcedure,
			Steps: []job.Step{{Name: "Destroy", On: job.Once, Do: m.destroy, Final: true}},
		},
	}
}

// A rule is what a row does with the seed of its run: a method of Seeds.
type rule func(s Seeds, id trust.SeedID, now time.Time) (out Seeds, wait time.Time)

// apply applies a rule in one commit, unless it says to wait, of which why is the reason.
func (m *mover) apply(ctx context.Context, r job.Run, why string, fn rule) (job.Record, error) {
	err := m.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		_, _, err := ruled(tx, r, why, fn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		was, is, err := ruled(tx, r, why, fn)
		if err != nil {
			return err
		}
		return save(tx, m.keyring, m.authorities, was, is)
	}, nil
}

func ruled(tx *store.Tx, r job.Run, why string, fn rule) (was, is Seeds, err error) {
	if was, err = Load(tx); err != nil {
		return nil, nil, err
	}
	mine, ok := was.Of(r.ID)
	if !ok {
		return was, was, nil
	}
	is, wait := fn(was, mine.ID, tx.Now())
	if !wait.IsZero() {
		return nil, nil, fmt.Errorf("%s: %w", why, job.Until(wait))
	}
	return was, is, nil
}

// started is part of the commit that asks for the run: the first phase begins in it, if
// nothing is in its way.
func (m *mover) started(tx *store.Tx, r job.Run) error {
	var a args
	if err := r.Decode(&a); err != nil || a.Seed == "" {
		return err
	}
	was, err := Load(tx)
	if err != nil {
		return err
	}
	is, _ := was.Take(a.Seed, r.ID, tx.Now()).Begin(a.Seed, tx.Now())
	return save(tx, m.keyring, m.authorities, was, is)
}

// ended takes back what started did for a run that was taken back before its first row
// began, of which nothing is undone. Where nodes may still present the seed, it stays
// announced until the run withdraws it that this one was to take back.
func (m *mover) ended(tx *store.Tx, r job.Run, outcome job.State) error {
	if outcome != job.WentBack {
		return nil
	}
	was, err := Load(tx)
	if err != nil {
		return err
	}
	mine, ok := was.Of(r.ID)
	if !ok {
		return nil
	}
	is, wait := was.Abandon(mine.ID, tx.Now())
	if !wait.IsZero() {
		is = was.with(mine.ID, Previous, tx.Now())
	}
	return save(tx, m.keyring, m.authorities, was, is)
}

// announce is row Announce, of a run that had to wait for its turn.
func (m *mover) announce(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	err := m.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		seeds, err := Load(tx)
		if err != nil {
			return err
		}
		mine, _ := seeds.Of(r.ID)
		if _, ahead := seeds.Begin(mine.ID, tx.Now()); ahead != "" {
			return trust.Errorf(trust.Unavailable, "two seeds are in play already: it is this one's turn after run %s: %w", ahead, job.Behind(ahead))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return m.apply(ctx, r, "", func(s Seeds, id trust.SeedID, now time.Time) (Seeds, time.Time) {
		out, _ := s.Begin(id, now)
		return out, time.Time{}
	})
}

// abandon undoes Announce.
func (m *mover) abandon(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	return m.apply(ctx, r, "nodes that have not heard of it may still present these keys, so they stay announced", Seeds.Abandon)
}

func (m *mover) learn(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	return m.apply(ctx, r, "clients learn the new keys, which are announced", waitFor(Seeds.Present))
}

func (m *mover) present(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	return m.apply(ctx, r, "another seed took the place of the new one, whose keys clients learn now", Seeds.Present)
}

func (m *mover) linger(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	return m.apply(ctx, r, "nodes begin to present the new keys, while the old ones stay announced", waitFor(Seeds.Withdraw))
}

func (m *mover) withdraw(ctx context.Context, r job.Run, _ job.Target) (job.Record, error) {
	return m.apply(ctx, r, "the old keys stay announced", Seeds.Withdraw)
}

// waitFor is a rule that changes nothing, and waits as fn does.
func waitFor(fn rule) rule {
	return func(s Seeds, id trust.SeedID, now time.Time) (Seeds, time.Time) {
		_, wait := fn(s, id, now)
		return s, wait
	}
}

// reverse plans the way back from a rotation whose new keys have been presented, or are
// about to be: the rotation to the seed before.
func (m *mover) reverse(tx *store.Tx, r job.Run) (job.Plan, error) {
	seeds, err := Load(tx)
	if err != nil {
		return job.Plan{}, err
	}
	mine, ok := seeds.Of(r.ID)
	if ok && mine.State == Next && mine.Left.IsZero() {
		without, _ := seeds.Abandon(mine.ID, tx.Now())
		if err := save(tx, m.keyring, m.authorities, seeds, without); err != nil {
			return job.Plan{}, err
		}
		return Plan("")
	}
	if !ok || mine.State != Current || seeds.in(Next) >= 0 {
		return job.Plan{}, trust.Errorf(trust.Conflict, "the seed that run %s brought into use has been rotated or revoked since, or is about to be", r.ID).WithHint("keyturn seed show")
	}
	before := seeds.at(mine.Before)
	switch {
	case before < 0:
		return job.Plan{}, trust.Errorf(trust.Conflict, "the seed before %s was destroyed: it is kept for as long as archive.retention says", mine.ID).WithHint("keyturn seed rotate makes a new one")
	case seeds[before].State == Revoked:
		return job.Plan{}, trust.Errorf(trust.Conflict, "the seed before %s is revoked, and does not come back", mine.ID).WithHint("keyturn seed rotate makes a new one")
	}
	return Plan(mine.Before)
}

// PlanPurge plans the run that destroys the seeds that were kept for long enough.
func PlanPurge(tx *store.Tx, _ job.Schedule) (job.Plan, error) {
	seeds, err := Load(tx)
	if err != nil {
		return job.Plan{}, err
	}
	if len(seeds.Expire(tx.Now())) == len(seeds) {
		return job.Plan{}, job.ErrNothing
	}
	return job.Plan{Procedure: PurgeProcedure, Subject: "seed:expired", Exclusive: []string{"purge-seeds"}}, nil
}

func (m *mover) destroy(context.Context, job.Run, job.Target) (job.Record, error) {
	return func(tx *store.Tx) error {
		seeds, err := Load(tx)
		if err != nil {
			return err
		}
		return save(tx, m.keyring, m.authorities, seeds, seeds.Expire(tx.Now()))
	}, nil
}
