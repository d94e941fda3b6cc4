package store

import (
	"context"
	"database/sql"
	"time"

	"github.com/google/uuid"

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
		list, err = readRecords(rows)
		return err
	})
	return list, err
}

func readRecords(rows *sql.Rows) (list []Record, err error) {
	for rows.Next() {
		var r Record
		var index sql.NullInt64
		var personal []byte
		if err := rows.Scan(&r.ID, &index, &r.Bytes, &personal); err != nil {
			return nil, err
		}
		if r.Leaf, err = audit.DecodeLeaf(r.Bytes); err != nil {
			return nil, trust.Errorf(trust.Internal, "event %s: %w", r.ID, err)
		}
		if r.Personal, err = audit.DecodeSealed(personal); err != nil {
			return nil, trust.Errorf(trust.Internal, "event %s: %w", r.ID, err)
		}
		r.Index = -1
		if index.Valid {
			r.Index = index.Int64
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// An EventSearch says which events are looked for.
type EventSearch struct {
	// Actions are those of which an event has one: 1 to MaxActions.
	Actions []string
	// Since and Until are the first and the last time; zero for any.
	Since, Until time.Time
	// NewestFirst is whether later events come before earlier ones.
	NewestFirst bool
	// After is the id of the last event of the page before, or empty.
	After string
	// Limit is how many at the most: 1 to MaxEvents.
	Limit int
}

// MaxActions is how many actions a search has at most.
const MaxActions = 8

// Search returns a page of the events of the transaction's tenant that are looked for, in
// the order of their ids, which is that of time. It reads no others.
func Search(tx *Tx, s EventSearch) ([]Record, error) {
	if len(s.Actions) == 0 || len(s.Actions) > MaxActions || s.Limit < 1 || s.Limit > MaxEvents {
		return nil, trust.Errorf(trust.Internal, "a search for %d actions, and a page of %d events", len(s.Actions), s.Limit)
	}
	after, before := "", "g" // no digit
	if !s.Since.IsZero() {
		after = firstID(s.Since)
	}
	if !s.Until.IsZero() {
		before = firstID(s.Until.Add(time.Microsecond))
	}
	switch {
	case s.After == "":
	case s.NewestFirst:
		before = min(before, s.After)
	default:
		after = max(after, s.After)
	}
	args := []any{tx.Tenant(), after, before, s.Limit}
	for _, action := range s.Actions {
		args = append(args, action)
	}
	rows, err := tx.Query(selectEventsBy(len(s.Actions), s.NewestFirst), args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	return readRecords(rows)
}

// firstID is below the id of each event from at on, and above all others.
func firstID(at time.Time) string {
	var id uuid.UUID
	putTime(&id, stampOf(at))
	return id.String()
}
