package control

import (
	"context"
	"encoding/json"
	"strconv"

	"keyturn/internal/access"
	"keyturn/internal/identity"
	"keyturn/internal/store"
)

// RevokeApplication revokes every certificate that has not ended and that was allowed
// because of the application of an id, and returns how many. Who is let in by its policies
// still gets another one.
func (p *Plane) RevokeApplication(ctx context.Context, actor identity.Actor, id string) (count int, err error) {
	err = p.update(ctx, actor, needs(identity.AppsWrite), "application.revoke", "application:"+subject(id), func(tx *store.Tx) error {
		if _, err := access.ApplicationByID(tx, id); err != nil {
			return err
		}
		count, err = p.authorities.RevokeLetBy(tx, id, "what its application let in to was taken back")
		tx.Note("certificates", strconv.Itoa(count))
		return err
	})
	return count, err
}

// SetApplicationExtra changes some of what else is said of the application of an id, and
// leaves the rest: of what is nil, nothing is said any more.
func (p *Plane) SetApplicationExtra(ctx context.Context, actor identity.Actor, id string, set map[string]json.RawMessage) (a access.Application, err error) {
	err = p.update(ctx, actor, needs(identity.AppsWrite), "application.set", "application:"+subject(id), func(tx *store.Tx) error {
		if a, err = access.ApplicationByID(tx, id); err != nil {
			return err
		}
		extra := map[string]json.RawMessage{}
		if len(a.Extra) > 0 {
			if err := json.Unmarshal(a.Extra, &extra); err != nil {
				return err
			}
		}
		for name, value := range set {
			if value == nil {
				delete(extra, name)
			} else {
				extra[name] = value
			}
		}
		if a.Extra, err = json.Marshal(extra); err != nil {
			return err
		}
		a, err = access.SetApplication(tx, a, nil)
		return err
	})
	return a, err
}
