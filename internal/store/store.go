// Package store keeps Keyturn's rows: in SQLite, or in PostgreSQL.
//
// It knows no noun. Packages that own tables hand in their migrations, and
// read and write in transactions: [Store.View] reads one consistent snapshot,
// [Store.Update] makes one commit of a change and of the audit event that
// tells of it, and there is no other way to change anything. What is promised
// of both is said there; docs/design/0001-storage.md says why, and what a
// crash means.
//
// # One SQL for both engines
//
// Every statement runs unchanged on both: columns are TEXT, BIGINT, BOOLEAN or
// BYTEA; parameters are $1, $2, ...; a time is an integer, microseconds UTC
// ([Micros], [Time]); text is UTF-8 without NUL. Every table has "tenant TEXT
// NOT NULL" first in its primary key. What exists already is met with ON
// CONFLICT, not by catching an error: after a failed statement nothing more of
// a transaction is executed. The rows of a query are read to their end or
// closed before the next statement. ORDER BY a column that may be null says
// NULLS FIRST or NULLS LAST, and the order of text that is not ASCII is the
// database's own.
package store

import (
	"context"
	"crypto/rand"
	"embed"
	"io/fs"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/trust"
)

// System stands in a View for all tenants: for the few reads before an actor
// is known, and for the dispatcher of runs.
const System trust.TenantID = ""

//go:embed migrations/*.sql
var schema embed.FS

// Options say which database a Store is, and what is in it.
type Options struct {
	// URL is "sqlite:PATH" or "postgres://USER@HOST/DATABASE?…" as libpq
	// reads it, unix sockets included ("postgres:///DATABASE?host=/run/postgresql").
	URL string
	// Schema holds the migrations of every owner of tables: files
	// NNNNN_owner_what.sql, at the root or in migrations/.
	Schema []fs.FS
	// Personal seals to a person what that person's data in an event is
	// opened by. Without it these values are dropped when the event is
	// written; the commitments in its leaf stay. It runs within the
	// transaction of the event, under the rules of its fn.
	Personal func(tx *Tx, tenant trust.TenantID, person string, plain []byte) ([]byte, error)
	// Now is the clock; nil means time.Now.
	Now func() time.Time
	// Updated, if it is there, is told of each Update how long it took, and how
	// it came out. It is called by many goroutines, and must not wait.
	Updated func(took time.Duration, err error)
}

// A Store is an open database. Its methods may be called from many goroutines.
type Store struct {
	engine   engine
	now      func() time.Time
	personal func(tx *Tx, tenant trust.TenantID, person string, plain []byte) ([]byte, error)
	updated  func(time.Duration, error)
	ids      ids
}

// An engine is a database: SQLite or PostgreSQL.
type engine interface {
	// view runs fn on a snapshot that it cannot change.
	view(ctx context.Context, tx *Tx, fn func(*Tx) error) error
	// update runs fn, perhaps more than once, and commits what its last run
	// did. It returns nil only after that is durable, and an error only if
	// nothing was changed.
	update(ctx context.Context, tx *Tx, fn func(*Tx) error) error
	close() error
}

// Open opens the database, takes it for itself where it is SQLite, and brings
// its tables up to date. A database with migrations that this program does not
// know, or knows by another text, is refused.
func Open(ctx context.Context, o Options) (*Store, error) {
	s := &Store{now: o.Now, personal: o.Personal, updated: o.Updated}
	if s.now == nil {
		s.now = time.Now
	}
	list, err := migrations(append([]fs.FS{schema}, o.Schema...))
	if err != nil {
		return nil, err
	}
	switch scheme, rest, _ := strings.Cut(o.URL, ":"); scheme {
	case "sqlite":
		s.engine, err = openSQLite(ctx, rest, list)
	case "postgres", "postgresql":
		s.engine, err = openPostgres(ctx, o.URL, list)
	default:
		return nil, trust.Errorf(trust.Invalid, "database URL of scheme %q is neither sqlite: nor postgres:", scheme)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close waits for the transactions under way, refuses later ones as
// Unavailable, and lets the database go.
func (s *Store) Close() error { return s.engine.close() }

// View runs fn on one consistent snapshot of what tenant owns, or of
// everything for System. Its Tx cannot write. The snapshot is at least as new
// as every Update that has returned.
//
// fn should be brief: on SQLite the write-ahead log cannot shrink meanwhile.
func (s *Store) View(ctx context.Context, tenant trust.TenantID, fn func(*Tx) error) error {
	if tenant != System && !audit.IsTenant(tenant) {
		return trust.Errorf(trust.Invalid, "tenant %q is not 32 lower-case hex digits", tenant)
	}
	return s.engine.view(ctx, &Tx{tenant: tenant, now: s.now().UTC().Truncate(time.Microsecond)}, fn)
}

// Update runs fn and commits what it changed together with ev, durably, or
// changes nothing and returns an error: that of fn, or Conflict where a row
// exists already, Unavailable where the database cannot be reached or has no
// room, Invalid for an event without tenant, actor, action or subject. After
// ErrOutcomeUnknown alone, the change may have been made.
//
// Transactions are serializable: each Update is as if it ran alone. fn may run
// more than once, of which only the last run counts: it does no I/O, reads no
// clock but tx.Now, waits for nobody, calls no Update, and sets what it hands
// out afresh each time. If fn panics, this Update alone fails and the panic
// goes on in its caller. A ctx that ends is noticed while waiting and between
// statements; an Update whose commit has begun is waited for, so that its
// outcome is always known.
func (s *Store) Update(ctx context.Context, ev audit.Event, fn func(*Tx) error) error {
	if err := ev.Check(); err != nil {
		return err
	}
	tx := &Tx{tenant: ev.Tenant, write: true}
	begun := time.Now()
	err := s.engine.update(ctx, tx, func(tx *Tx) error {
		if tx.now.IsZero() { // the first run
			tx.now = s.now().UTC().Truncate(time.Microsecond)
			tx.event = s.ids.next(tx.now)
		}
		if err := fn(tx); err != nil {
			return err
		}
		tx.closeRows()
		for _, also := range tx.also {
			if err := s.record(tx, s.ids.next(tx.now), also); err != nil {
				return err
			}
		}
		ev := ev
		ev.Fields = append(ev.Fields[:len(ev.Fields):len(ev.Fields)], tx.notes...)
		return s.record(tx, tx.event, ev)
	})
	if s.updated != nil {
		s.updated(time.Since(begun), err)
	}
	return err
}

// record writes an event of tx.
func (s *Store) record(tx *Tx, id uuid.UUID, ev audit.Event) error {
	ev.At = tx.now
	leaf, openings, err := ev.Commit(id, rand.Reader)
	if err != nil {
		return err
	}
	var sealed []audit.Sealed
	for _, o := range openings {
		if s.personal == nil {
			break
		}
		b, err := s.personal(tx, ev.Tenant, o.Person, o.Encode())
		if err != nil {
			return err
		}
		sealed = append(sealed, audit.Sealed{Person: o.Person, Bytes: b})
	}
	_, err = tx.Exec(insertEvent, string(ev.Tenant), leaf.ID.String(), Micros(ev.At), ev.Actor.Kind, ev.Actor.ID,
		ev.Action, ev.Subject, leaf.Encode(), audit.EncodeSealed(sealed))
	return err
}

// Micros returns t as a column holds it: microseconds since 1970 UTC, and 0
// for the zero time.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time is the inverse of Micros.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
