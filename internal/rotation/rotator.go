package rotation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// The names of this package's procedures, as runs show them.
const (
	RotateProcedure  = "rotate"
	RetireProcedure  = "retire"
	RestoreProcedure = "restore"
	PreviewProcedure = "preview"
	PurgeProcedure   = "purge"
)

// A Rotator runs the steps of this package's procedures. What a step knows comes
// from the plan, the journal and the host; what is remembered besides saves work.
type Rotator struct {
	store    *store.Store
	keyring  *keyring.Keyring
	reach    *reach.Reach
	judge    func(*store.Tx, []trust.KeyID) error
	lookouts lookouts
}

// New returns a Rotator. When a run ends, judge makes the findings of the keys that
// it moved what follows from where they lie then.
func New(s *store.Store, k *keyring.Keyring, r *reach.Reach, judge func(*store.Tx, []trust.KeyID) error) *Rotator {
	return &Rotator{store: s, keyring: k, reach: r, judge: judge, lookouts: lookouts{all: map[trust.RunID]*lookout{}}}
}

// Procedures returns the tables, for job.New.
func (ro *Rotator) Procedures() []job.Procedure {
	return []job.Procedure{ro.rotate(), ro.retire(), ro.restore(), ro.preview(), ro.purge()}
}

func (ro *Rotator) rotate() job.Procedure {
	return job.Procedure{
		Name: RotateProcedure,
		Steps: []job.Step{
			{Name: "Baseline", On: Places, Do: ro.baseline, Undo: ro.release, Parting: true},
			{Name: "Generate", On: job.Once, Do: ro.generate},
			{Name: "Authorize", On: Authorized, Do: ro.authorize, Undo: ro.unauthorize, Group: "add"},
			{Name: "Prove", On: Authorized, Do: ro.prove, Undo: ro.unprove, Group: "add"},
			{Name: "Recheck", On: job.Once, Do: ro.recheck},
			{Name: "Install", On: Identities, Do: ro.install},
			{Name: "Confirm", On: Identities, Do: ro.confirm},
			{Name: "Soak", On: job.Once, Do: ro.soak},
			{Name: "Reconfirm", On: Identities, Do: ro.reconfirm},
			{Name: "Reprove", On: Authorized, Do: ro.reprove, Group: "drop"},
			{Name: "Withdraw", On: Authorized, Do: ro.withdraw, Group: "drop"},
			{Name: "Disprove", On: Authorized, Do: ro.disprove, Group: "drop"},
			{Name: "Archive", On: job.Once, Do: ro.archive},
			{Name: "Release", On: Places, Do: ro.release, Parting: true},
		},
		Turn:    "Install",
		Reverse: ro.reverseRotation,
		Leave:   ro.leaveRotation,
		Started: ro.started,
		Ended:   ro.ended,
	}
}

// A cell is what a step of this package works on: one place of the plan.
type cell struct {
	run  job.Run
	args Args
	spec spec
	pair Pair
}

// decode reads the plan's part in a run and a target.
func decode(r job.Run, t job.Target) (cell, error) {
	c := cell{run: r}
	if err := r.Decode(&c.args); err != nil {
		return cell{}, err
	}
	if err := json.Unmarshal(t.Spec, &c.spec); err != nil {
		return cell{}, fmt.Errorf("target %q: %w", t.Name, err)
	}
	if c.spec.Pair < 0 || c.spec.Pair >= len(c.args.Pairs) {
		return cell{}, fmt.Errorf("target %q is of pair %d of %d", t.Name, c.spec.Pair, len(c.args.Pairs))
	}
	c.pair = c.args.Pairs[c.spec.Pair]
	return c, nil
}

// lock is what the run writes into the lock of each file that it changes.
func (c cell) lock() remote.Lock {
	return remote.Lock{Installation: c.run.Installation, Epoch: c.run.Epoch, Run: c.run.ID}
}

// hold has take take the lock of c's file, by which every row that changes it
// works, unless a run ahead of this one is going to: a run keeps what it has while it
// waits for other files, so locks are waited for in one order only. A lock of a run
// that is over, such as the one that this run takes back, goes first: it is that
// run's own Release that was not reached.
func (c cell) hold(ctx context.Context, h *reach.Hands, take func() error) error {
	ahead, err := c.run.Ahead(ctx, job.Target{Host: c.spec.Host, Name: c.spec.name()}, RotateProcedure, RetireProcedure, RestoreProcedure)
	if err != nil {
		return err
	}
	if ahead.ID != "" {
		return c.waitsFor(ahead)
	}
	for {
		err := take()
		var locked *remote.LockedError
		if !errors.As(err, &locked) {
			return err
		}
		if locked.By.Installation != c.run.Installation {
			return trust.Errorf(trust.Conflict, "%w", locked).WithHint("when that run has ended there, keyturn run resume %s; where that installation is gone for good, remove %s on %s first",
				c.run.ID, locked.Lock(), c.spec.Name)
		}
		if locked.By.Run == c.run.ID {
			return err // a later claim of this very run has it
		}
		over, err := c.run.Over(ctx, locked.By.Run)
		if err != nil {
			return err
		}
		if !over {
			return (&trust.Error{Kind: trust.Unavailable, Message: locked.Error(), Err: job.Behind(locked.By.Run)}).
				WithHint("keyturn run watch %s", locked.By.Run)
		}
		if err := h.Release(ctx, locked.By, c.spec.User, c.spec.Path); err != nil {
			return err
		}
	}
}

// waitsFor says for which run ahead c's place waits, and what there is to be done about
// it: docs/design/0005 says why a run keeps its files while it soaks.
func (c cell) waitsFor(ahead job.Summary) error {
	what, hint := "", fmt.Sprintf("keyturn run watch %s", ahead.ID)
	switch {
	case ahead.State == job.Held || ahead.State == job.Paused:
		what, hint = " and is "+string(ahead.State), fmt.Sprintf("keyturn run show %s", ahead.ID)
	case ahead.Row == "Soak" && !ahead.Next.IsZero():
		what = " and soaks until " + ahead.Next.UTC().Format("2006-01-02 15:04:05") + " UTC"
		hint += fmt.Sprintf("; keyturn run back %s --soak 0s gives it up, if this one is urgent", ahead.ID)
	}
	return (&trust.Error{
		Kind: trust.Unavailable, Message: fmt.Sprintf("waits for run %s, which changes %s%s", ahead.ID, c.spec.name(), what),
		Err: job.Behind(ahead.ID),
	}).WithHint("%s", hint)
}

// target returns c's place as rows on both halves know it.
func (c cell) target() job.Target {
	return job.Target{List: Places, N: c.spec.Place, Name: c.spec.name()}
}

// baseline returns what row Baseline found at c's place.
func (c cell) baseline(ctx context.Context) (found, error) {
	var f found
	ok, err := c.run.ResultOf(ctx, "Baseline", c.target(), &f)
	if err == nil && !ok {
		err = fmt.Errorf("the journal has no baseline of %q", c.spec.name())
	}
	return f, err
}

// host returns the host of c, as the inventory has it now.
func (ro *Rotator) host(ctx context.Context, c cell) (h inventory.Host, err error) {
	err = ro.store.View(ctx, c.run.Tenant, func(tx *store.Tx) error {
		h, err = inventory.HostBrief(tx, c.spec.Host)
		return err
	})
	return h, err
}

// untouched says of a place that no step changes it, and why; or nothing.
func (f found) untouched() string {
	if f.Works == "" {
		return f.Why
	}
	return ""
}
