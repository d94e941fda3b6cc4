package hostid

import (
	"slices"
	"time"

	"keyturn/internal/authority"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Terms are what a rotation goes by: how long each phase lasts, how long the old seed is
// kept afterwards, and the id of who asks for it.
type Terms struct {
	Overlap, Retention time.Duration
	By                 string
}

func (t Terms) seed(id trust.SeedID) Seed {
	return Seed{ID: id, Overlap: t.Overlap, Retention: t.Retention, By: t.By}
}

// Ensure gives the tenant of tx its first seed, of that id, unless it has one. Where it
// has none, it changes nothing but that.
func Ensure(tx *store.Tx, k *keyring.Keyring, a *authority.Authorities, id trust.SeedID, t Terms) (Seeds, error) {
	seeds, err := Load(tx)
	if err != nil || seeds.in(Current) >= 0 {
		return seeds, err
	}
	first, _ := seeds.Replace(t.seed(id), tx.Now())
	return first, save(tx, k, a, seeds, first)
}

// Ask makes a new seed and writes down that a rotation to it is asked for. run is the one
// that makes it, if there is one already; if not, Plan plans it.
func Ask(tx *store.Tx, k *keyring.Keyring, a *authority.Authorities, id trust.SeedID, t Terms) (run trust.RunID, err error) {
	seeds, err := Load(tx)
	if err != nil {
		return "", err
	}
	asked, run := seeds.Ask(t.seed(id), tx.Now())
	return run, save(tx, k, a, seeds, asked)
}

// Replace makes a new seed, presents it at once, and revokes all others, with every
// certificate for their keys. ended are the runs that have nothing left to do.
func Replace(tx *store.Tx, k *keyring.Keyring, a *authority.Authorities, id trust.SeedID, t Terms) (ended []trust.RunID, err error) {
	seeds, err := Load(tx)
	if err != nil {
		return nil, err
	}
	replaced, ended := seeds.Replace(t.seed(id), tx.Now())
	for _, revoked := range replaced.Standing().Revoked {
		if err := revokeCertificates(tx, a, revoked, "the seed was compromised"); err != nil {
			return nil, err
		}
	}
	return ended, save(tx, k, a, seeds, replaced)
}

// SetOverlap writes down how long each phase lasts of the ways back that are asked for
// from now on.
func SetOverlap(tx *store.Tx, k *keyring.Keyring, a *authority.Authorities, overlap time.Duration) error {
	seeds, err := Load(tx)
	if err != nil {
		return err
	}
	return save(tx, k, a, seeds, seeds.Lengthen(overlap))
}

// save writes what became of seeds: what is there no more is destroyed, and what was
// signed for it and has not ended is revoked, since nothing that revokes it by its seed
// would find it any more; what was not there is made.
func save(tx *store.Tx, k *keyring.Keyring, a *authority.Authorities, was, is Seeds) error {
	for _, x := range was {
		if is.at(x.ID) >= 0 {
			continue
		}
		if err := revokeCertificates(tx, a, x.ID, "the seed was destroyed"); err != nil {
			return err
		}
		if err := dropSeed(tx, x.ID); err != nil {
			return err
		}
		if err := k.DestroySeed(tx, x.ID); err != nil {
			return err
		}
		tx.Note("destroyed", string(x.ID))
	}
	changed := slices.DeleteFunc(slices.Clone(is), func(x Seed) bool { return slices.Contains(was, x) })
	// There is one current seed at a time: the one before makes room first.
	slices.SortStableFunc(changed, func(a, b Seed) int { return currentLast(a) - currentLast(b) })
	for _, x := range changed {
		tx.Note(string(x.State), string(x.ID))
		if was.at(x.ID) >= 0 {
			if err := setSeed(tx, x); err != nil {
				return err
			}
			continue
		}
		if err := k.MakeSeed(tx, x.ID); err != nil {
			return err
		}
		if err := addSeed(tx, x); err != nil {
			return err
		}
	}
	return nil
}

func currentLast(x Seed) int {
	if x.State == Current {
		return 1
	}
	return 0
}
