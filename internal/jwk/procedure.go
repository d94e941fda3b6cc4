package jwk

import (
	"context"

	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
)

// Procedure is the name of the table by which a key is exchanged by itself.
const Procedure = "jwk"

// Procedures returns the table, whose keys lie in k.
func Procedures(k *keyring.Keyring) []job.Procedure {
	return []job.Procedure{{
		Name:  Procedure,
		Steps: []job.Step{{Name: "Rotate", On: job.Once, Do: rotator{k}.rotate, Final: true}},
	}}
}

// PlanRotation plans the run that exchanges a key that has signed for long enough.
func PlanRotation(tx *store.Tx, _ job.Schedule) (job.Plan, error) {
	s, err := Load(tx)
	if err != nil {
		return job.Plan{}, err
	}
	if due := s.Due(); due.IsZero() || tx.Now().Before(due) {
		return job.Plan{}, job.ErrNothing
	}
	return job.Plan{Procedure: Procedure, Subject: "jwk:" + s.Keys[0].KID, Exclusive: []string{"jwk"}}, nil
}

type rotator struct{ keyring *keyring.Keyring }

func (r rotator) rotate(context.Context, job.Run, job.Target) (job.Record, error) {
	private, err := keyring.Generate(Spec()) // nobody waits: what lies ready is for those who do
	if err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		s, err := Load(tx)
		if err != nil {
			return err
		}
		if due := s.Due(); due.IsZero() || tx.Now().Before(due) { // by hand since
			return nil
		}
		_, err = Rotate(tx, r.keyring, private)
		return err
	}, nil
}
