package store

import (
	"context"
	"database/sql"

	"keyturn/internal/audit"
	"keyturn/internal/trust"
)

// MaxEvents is how many events one call of Events returns at most.
const MaxEvents = 1000

// A Record is an event as the log holds it.
type Record struct {
	ID    string // of the event, a UUID
	Index int64  // of its leaf in the tenant's tree, or -1 as long as it has none
	// Leaf is what Bytes decodes to.
	Leaf  audit.Leaf
	Bytes []byte
	// Personal is what the personal values of Leaf are opened by, sealed to
	// each person; empty where they were dropped.
	Personal []audit.Sealed
}

// Events returns up to limit (at most MaxEvents, as 0 is) of the tenant's events whose
// id is greater than after, in the order of their ids; with a subject, only
// those about that subject. Ids ascend with the time at which transactions
// began: on PostgreSQL, one that took longer may appear before an event that
// was already read. Who must not miss any reads by leaf index.
func (s *Store) Events(ctx context.Context, tenant trust.TenantID, subject, after string, limit int) ([]Record, error) {
	if limit <= 0 || limit > MaxEvents {
		limit = MaxEvents
	}
	var list []Record
	err := s.View(ctx, tenant, func(tx *Tx) error {
		list = nil
		query, args := selectEvents, []any{string(tenant), after, limit}
		if subject != "" {
			query, args = selectEventsOf, []any{string(tenant), subject, after, limit}
		}
		rows, err := tx.Query(query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var r Record
			var index sql.NullInt64
			var personal []byte
			if err := rows.Scan(&r.ID, &index, &r.Bytes, &personal); err != nil {
				return err
			}
			if r.Leaf, err = audit.DecodeLeaf(r.Bytes); err != nil {
				return trust.Errorf(trust.Internal, "event %s: %w", r.ID, err)
			}
			if r.Personal, err = audit.DecodeSealed(personal); err != nil {
				return trust.Errorf(trust.Internal, "event %s: %w", r.ID, err)
			}
			r.Index = -1
			if index.Valid {
				r.Index = index.Int64
			}
			list = append(list, r)
		}
		return rows.Err()
	})
	return list, err
}
