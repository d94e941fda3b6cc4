package authority

import (
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// OfApplication returns the authority of an application: the one that signs, that did
// last, or else that will first.
func (s *Authorities) OfApplication(tx *store.Tx, application string) (Authority, error) {
	all, err := selectOfApplication(tx, application)
	if err != nil {
		return Authority{}, err
	}
	a, there := current(all, tx.Now())
	if !there {
		return Authority{}, trust.Errorf(trust.NotFound, "application %.80q has no authority", application)
	}
	return a, nil
}

// An ApplicationKey is what a listing says of the authority of an application: there are
// thousands of them.
type ApplicationKey struct {
	ID          string
	Application string
	Public      trust.PublicKey
}

// OfApplications returns those of all applications, one of each as OfApplication does,
// oldest first, and counts them. It skips offset of them and returns no more than limit.
func (s *Authorities) OfApplications(tx *store.Tx, offset, limit int) (list []ApplicationKey, total int, err error) {
	if total, err = countOfApplications(tx); err != nil {
		return nil, 0, err
	}
	list, err = selectOfApplications(tx, offset, limit)
	return list, total, err
}

// RemoveOfApplication removes every key that is, was or would be the authority of an
// application, as Remove does, and returns how many.
func (s *Authorities) RemoveOfApplication(tx *store.Tx, application, reason string) (int, error) {
	all, err := selectOfApplication(tx, application)
	if err != nil {
		return 0, err
	}
	for _, a := range all {
		if _, err := s.Remove(tx, a.ID, reason); err != nil {
			return 0, err
		}
	}
	return len(all), nil
}
