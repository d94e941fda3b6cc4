package authority

import (
	"encoding/json"
	"slices"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A ProfileChange says what of a profile is to be otherwise. What is nil stays.
type ProfileChange struct {
	Valid, MaxValid                       *time.Duration
	KeyTypes, Extensions, CriticalOptions *[]string
	MinRSA, MaxPrincipals                 *int
}

// of returns p as c has it.
func (c ProfileChange) of(p Profile) Profile {
	set(&p.Valid, c.Valid)
	set(&p.MaxValid, c.MaxValid)
	set(&p.KeyTypes, c.KeyTypes)
	set(&p.Extensions, c.Extensions)
	set(&p.CriticalOptions, c.CriticalOptions)
	set(&p.MinRSA, c.MinRSA)
	set(&p.MaxPrincipals, c.MaxPrincipals)
	return p
}

func set[T any](field, to *T) {
	if to != nil {
		*field = *to
	}
}

// SetProfile changes what the authorities of a name sign from now on, the one that is to
// sign next among them. What was signed stays as it is.
func (s *Authorities) SetProfile(tx *store.Tx, name string, c ProfileChange) error {
	if c == (ProfileChange{}) {
		return trust.Errorf(trust.Invalid, "nothing of the profile is to change").WithHint("keyturn ca profile %s --max-valid 1h", name)
	}
	all, err := s.Named(tx, name)
	if err != nil {
		return err
	}
	for _, a := range all {
		if state := a.State(tx.Now()); state != Signing && state != Next {
			continue
		}
		a.Profile = c.of(a.Profile)
		if err := a.Profile.checkFor(a.Purpose); err != nil {
			return err
		}
		a.Profile = a.Profile.inOrder()
		if !a.SignsUntil.IsZero() { // it is being exchanged, and may sign for longer now
			if last := a.SignsUntil.Add(a.Profile.MaxValid); last.After(a.TrustedUntil) {
				a.TrustedUntil = last
			}
		}
		if err := updateAuthority(tx, a); err != nil {
			return err
		}
		text, err := json.Marshal(a.Profile)
		if err != nil {
			return err
		}
		tx.Note("authority", a.ID)
		tx.Note("profile", string(text))
	}
	return nil
}

// checkFor refuses what authorities of a purpose cannot sign: certificates of hosts have
// neither extensions nor critical options.
func (p Profile) checkFor(purpose Purpose) error {
	if purpose == Host && len(p.Extensions)+len(p.CriticalOptions) > 0 {
		return trust.Errorf(trust.Invalid, "certificates of hosts have no extensions and no critical options: OpenSSH knows none").WithField("profile")
	}
	return p.check()
}

// inOrder returns p with each of its names once.
func (p Profile) inOrder() Profile {
	within := func(known, list []string) []string {
		return slices.DeleteFunc(slices.Clone(known), func(name string) bool { return !slices.Contains(list, name) })
	}
	p.KeyTypes, p.Extensions, p.CriticalOptions = within(keyTypes, p.KeyTypes), within(extensions, p.Extensions), within(criticalOptions, p.CriticalOptions)
	return p
}
