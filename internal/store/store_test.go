package store_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"go.uber.org/goleak"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func TestMain(m *testing.M) {
	if inChild() {
		os.Exit(m.Run())
	}
	goleak.VerifyTestMain(m)
}

// things is a schema to test with.
var things = fstest.MapFS{"migrations/00090_test_things.sql": {Data: []byte(`
CREATE TABLE things (
	tenant TEXT NOT NULL,
	id TEXT NOT NULL,
	n BIGINT NOT NULL DEFAULT 0,
	ok BOOLEAN NOT NULL DEFAULT FALSE,
	body BYTEA,
	PRIMARY KEY (tenant, id)
);
CREATE TABLE parts (
	tenant TEXT NOT NULL,
	id TEXT NOT NULL,
	thing TEXT NOT NULL,
	PRIMARY KEY (tenant, id),
	FOREIGN KEY (tenant, thing) REFERENCES things (tenant, id) DEFERRABLE INITIALLY DEFERRED
);
`)}}

var schemas = []fs.FS{things}

// both runs a test on either engine.
func both(t *testing.T, test func(t *testing.T, s *store.Store)) {
	t.Helper()
	storetest.Both(t, schemas, test)
}

// add returns a change that inserts a thing.
func add(id string, n int64) func(*store.Tx) error {
	return func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO things (tenant, id, n) VALUES ($1, $2, $3)`, string(tx.Tenant()), id, n)
		return err
	}
}

func read(tx *store.Tx, id string) (n int64, err error) {
	err = tx.QueryRow(`SELECT n FROM things WHERE tenant = $1 AND id = $2`, string(tx.Tenant()), id).Scan(&n)
	return n, err
}

func mustUpdate(t *testing.T, s *store.Store, fn func(*store.Tx) error) {
	t.Helper()
	if err := s.Update(t.Context(), storetest.Event(), fn); err != nil {
		t.Fatal(err)
	}
}

// thingsOf returns the things of a tenant, "a=1 b=2".
func thingsOf(t *testing.T, s *store.Store, tenant trust.TenantID) string {
	t.Helper()
	var list []string
	err := s.View(context.Background(), tenant, func(tx *store.Tx) error {
		list = nil
		rows, err := tx.Query(`SELECT id, n FROM things WHERE tenant = $1 ORDER BY id`, string(tenant))
		if err != nil {
			return err
		}
		for rows.Next() {
			var id string
			var n int64
			if err := rows.Scan(&id, &n); err != nil {
				return err
			}
			list = append(list, fmt.Sprintf("%s=%d", id, n))
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(list, " ")
}

func eventsOf(t *testing.T, s *store.Store, tenant trust.TenantID) []store.Record {
	t.Helper()
	list, err := s.Events(context.Background(), tenant, "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func wantKind(t *testing.T, err error, kind trust.Kind) {
	t.Helper()
	var e *trust.Error
	if !errors.As(err, &e) || e.Kind != kind {
		t.Fatalf("error %v of kind %v, want %v", err, trust.KindOf(err), kind)
	}
}

func TestStateAndEventAreOneCommit(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		mustUpdate(t, s, add("a", 1))
		failed := errors.New("failed")
		err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
			if err := add("b", 2)(tx); err != nil {
				return err
			}
			return failed
		})
		if err != failed {
			t.Fatalf("got %v, want the function's own error", err)
		}
		tooLong := storetest.Event()
		err = s.Update(t.Context(), tooLong, func(tx *store.Tx) error {
			tx.Note("note", strings.Repeat("x", audit.MaxValue+1))
			return add("c", 3)(tx)
		})
		wantKind(t, err, trust.Exhausted) // the event cannot be written, so neither is the change
		if got := thingsOf(t, s, storetest.Tenant); got != "a=1" {
			t.Errorf("things %q", got)
		}
		if events := eventsOf(t, s, storetest.Tenant); len(events) != 1 {
			t.Errorf("%d events, want 1", len(events))
		}
	})
}

// Several changes in one commit have an event each, with its own notes; if one
// of these is refused, nothing is changed.
func TestSeveralEventsInOneCommit(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		event := func(action string) audit.Event {
			e := storetest.Event()
			e.Action = action
			return e
		}
		err := s.Update(t.Context(), event("test.last"), func(tx *store.Tx) error {
			for _, action := range []string{"test.first", "test.second"} {
				tx.Note("of", action)
				if err := tx.Also(event(action)); err != nil {
					return err
				}
			}
			tx.Note("of", "test.last")
			return add("a", 1)(tx)
		})
		if err != nil {
			t.Fatal(err)
		}
		events := eventsOf(t, s, storetest.Tenant)
		if len(events) != 3 {
			t.Fatalf("%d events, want 3", len(events))
		}
		for _, e := range events {
			if len(e.Leaf.Fields) != 1 || e.Leaf.Fields[0].Value != e.Leaf.Action {
				t.Errorf("event %q has the fields %v", e.Leaf.Action, e.Leaf.Fields)
			}
		}
		other := event("test.other")
		other.Tenant = storetest.Other
		for _, bad := range []audit.Event{{}, other} {
			err := s.Update(t.Context(), event("test.more"), func(tx *store.Tx) error {
				if err := add("b", 2)(tx); err != nil {
					return err
				}
				return tx.Also(bad)
			})
			if err == nil {
				t.Errorf("event %+v was taken", bad)
			}
		}
		if n := len(eventsOf(t, s, storetest.Tenant)); n != 3 {
			t.Errorf("%d events, want 3", n)
		}
		if got := thingsOf(t, s, storetest.Tenant); got != "a=1" {
			t.Errorf("things %q", got)
		}
	})
}

func TestRefusesAnEventThatSaysNothing(t *testing.T) {
	s := storetest.Open(t, schemas...)
	for name, spoil := range map[string]func(*audit.Event){
		"tenant":        func(e *audit.Event) { e.Tenant = store.System },
		"tenant's form": func(e *audit.Event) { e.Tenant = "ABC" },
		"actor":         func(e *audit.Event) { e.Actor = audit.Actor{} },
		"actor's id":    func(e *audit.Event) { e.Actor = audit.Actor{Kind: "user"} },
		"action":        func(e *audit.Event) { e.Action = "" },
		"subject":       func(e *audit.Event) { e.Subject = "" },
		"field's name":  func(e *audit.Event) { e.Fields = []audit.Field{{Name: "Not So", Value: "1"}} },
	} {
		e := storetest.Event()
		spoil(&e)
		err := s.Update(t.Context(), e, func(*store.Tx) error {
			t.Errorf("%s: the change was tried", name)
			return nil
		})
		if trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s: got %v", name, err)
		}
	}
	wantKind(t, s.View(t.Context(), "nobody", nil), trust.Invalid)
}

func TestExistingRowIsAConflict(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		mustUpdate(t, s, add("a", 1))
		for name, again := range map[string]func(*store.Tx) error{
			"exec": add("a", 2),
			"query": func(tx *store.Tx) error {
				var n int64
				return tx.QueryRow(`INSERT INTO things (tenant, id, n) VALUES ($1, $2, 2) RETURNING n`, string(tx.Tenant()), "a").Scan(&n)
			},
			"passed over": func(tx *store.Tx) error {
				_ = add("a", 2)(tx)
				return nil
			},
			"at commit": func(tx *store.Tx) error {
				_, err := tx.Exec(`INSERT INTO parts (tenant, id, thing) VALUES ($1, $2, $3)`, string(tx.Tenant()), "p", "missing")
				return err
			},
		} {
			err := s.Update(t.Context(), storetest.Event(), again)
			if trust.KindOf(err) != trust.Conflict {
				t.Errorf("%s: got %v, want a conflict", name, err)
			}
		}
		if got := thingsOf(t, s, storetest.Tenant); got != "a=1" {
			t.Errorf("things %q", got)
		}
	})
}

// A statement that failed ends the transaction on both engines, whatever the
// function makes of it.
func TestNothingRunsAfterAFailure(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
			if err := add("a", 1)(tx); err != nil {
				return err
			}
			if _, err := tx.Exec(`UPDATE nothing SET n = 1`); err == nil {
				t.Error("a table that is not there was changed")
			}
			if err := add("b", 2)(tx); err == nil {
				t.Error("a statement ran after one that failed")
			}
			var n int64
			if err := tx.QueryRow(`SELECT 1`).Scan(&n); err == nil {
				t.Error("a query ran after a statement that failed")
			}
			return nil
		})
		wantKind(t, err, trust.Internal)
		if got := thingsOf(t, s, storetest.Tenant); got != "" {
			t.Errorf("things %q", got)
		}
		mustUpdate(t, s, add("c", 3))
	})
}

func TestRowsAreReadBeforeTheNextStatement(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		mustUpdate(t, s, add("a", 1))
		mustUpdate(t, s, add("b", 2))
		err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			rows, err := tx.Query(`SELECT id FROM things`)
			if err != nil {
				return err
			}
			rows.Next()
			_, err = read(tx, "a")
			return err
		})
		wantKind(t, err, trust.Internal)
		// What is left open, or not looked at, is in nobody's way.
		for range 20 {
			mustUpdate(t, s, func(tx *store.Tx) error {
				tx.QueryRow(`SELECT id FROM things`)
				rows, err := tx.Query(`SELECT id FROM things`)
				rows.Next()
				return err
			})
		}
		// A query that fails while its rows are read fails the transaction.
		err = s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
			rows, err := tx.Query(`SELECT CASE WHEN id = 'b' THEN abs(-9223372036854775808 + n - n) ELSE n END FROM things ORDER BY id`)
			if err != nil {
				return err
			}
			for rows.Next() {
			}
			return nil
		})
		wantKind(t, err, trust.Internal)
	})
}

func TestValuesComeBackAsTheyWere(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		now := time.Now().Truncate(time.Microsecond)
		times := []time.Time{now, {}, time.Unix(1, 0), time.Unix(-1, 0)}
		large := make([]byte, 5<<20)
		for i := range large {
			large[i] = byte(i * 7)
		}
		bodies := [][]byte{nil, {}, {0, 255, 0}, large}
		numbers := []int64{0, -1, math.MaxInt64, math.MinInt64}
		type name string
		names := []name{"", "größe 鍵 \U0001f511 \\ ' \" %", name(strings.Repeat("x", 1000)), "plain"}
		mustUpdate(t, s, func(tx *store.Tx) error {
			for i, n := range numbers {
				if _, err := tx.Exec(`INSERT INTO things (tenant, id, n, ok, body) VALUES ($1, $2, $3, $4, $5)`,
					string(tx.Tenant()), names[i], n, i%2 == 1, bodies[i]); err != nil {
					return err
				}
				if _, err := tx.Exec(`INSERT INTO things (tenant, id, n) VALUES ($1, $2, $3)`,
					storetest.Tenant, fmt.Sprint("time ", i), store.Micros(times[i])); err != nil {
					return err
				}
			}
			return nil
		})
		err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			for i := range numbers {
				var n int64
				var ok bool
				var body []byte
				var null bool
				// Parameters go by number, not by the order in which they appear.
				if err := tx.QueryRow(`SELECT n, ok, body, body IS NULL FROM things WHERE id = $2 AND tenant = $1`, storetest.Tenant, names[i]).Scan(&n, &ok, &body, &null); err != nil {
					return err
				}
				if n != numbers[i] || ok != (i%2 == 1) || string(body) != string(bodies[i]) || null != (bodies[i] == nil) {
					t.Errorf("row %d: %d %t and %d bytes (null: %t)", i, n, ok, len(body), null)
				}
				n, err := read(tx, fmt.Sprint("time ", i))
				if err != nil {
					return err
				}
				if got := store.Time(n); !got.Equal(times[i]) || got.IsZero() != times[i].IsZero() {
					t.Errorf("time %v came back as %v", times[i], got)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := find(s, "not there"); err != sql.ErrNoRows {
			t.Errorf("no row is %v, want sql.ErrNoRows", err)
		}
	})
}

func find(s *store.Store, id string) (n int64, err error) {
	err = s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) (err error) {
		n, err = read(tx, id)
		return err
	})
	return n, err
}

func TestRefusesWhatOneEngineWouldTakeWrongly(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		const insert = `INSERT INTO things (tenant, id) VALUES ($1, $2)`
		for name, c := range map[string]struct {
			kind  trust.Kind
			query string
			args  []any
		}{
			"a time":            {trust.Internal, insert, []any{storetest.Tenant, time.Now()}},
			"not UTF-8":         {trust.Invalid, insert, []any{storetest.Tenant, "\xff"}},
			"NUL":               {trust.Invalid, insert, []any{storetest.Tenant, "a\x00b"}},
			"a struct":          {trust.Internal, insert, []any{storetest.Tenant, struct{}{}}},
			"a long value":      {trust.Exhausted, insert, []any{storetest.Tenant, strings.Repeat("x", store.MaxBinary+1)}},
			"a long body":       {trust.Exhausted, insert, []any{storetest.Tenant, make([]byte, store.MaxBinary+1)}},
			"a long statement":  {trust.Exhausted, insert + strings.Repeat(" ", store.MaxQuery), []any{storetest.Tenant, "a"}},
			"many parameters":   {trust.Exhausted, insert, make([]any, store.MaxArgs+1)},
			"commit":            {trust.Internal, "commit", nil},
			"a table":           {trust.Internal, "-- a comment\n CREATE TABLE t (a TEXT)", nil},
			"a setting":         {trust.Internal, "SET LOCAL keyturn.tenant = '*'", nil},
			"a pragma":          {trust.Internal, "PRAGMA synchronous = OFF", nil},
			"text in quotes":    {trust.Internal, `INSERT INTO things (tenant, id) VALUES ($1, "a")`, []any{storetest.Tenant}},
			"a missing value":   {trust.Internal, insert, []any{storetest.Tenant}},
			"null where it may": {trust.Internal, `INSERT INTO things (tenant, id) VALUES ($1, NULL)`, []any{storetest.Tenant}},
		} {
			err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
				_, err := tx.Exec(c.query, c.args...)
				return err
			})
			if err == nil || trust.KindOf(err) != c.kind {
				t.Errorf("%s: got %v, want %v", name, err, c.kind)
			}
			if (c.kind == trust.Invalid || name == "a long value") && strings.Contains(err.Error(), "INSERT") {
				t.Errorf("%s: a statement of ours is shown: %v", name, err)
			}
			if err != nil && len(err.Error()) > 600 {
				t.Errorf("%s: message of %d bytes", name, len(err.Error()))
			}
		}
		if got := thingsOf(t, s, storetest.Tenant); got != "" {
			t.Errorf("things %q", got)
		}
	})
}

// What the engines would do differently if they were left as they come.
func TestEnginesAgree(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		mustUpdate(t, s, func(tx *store.Tx) error {
			for _, id := range []string{"web1", "Web2", "10", "9"} {
				if err := add(id, 1)(tx); err != nil {
					return err
				}
			}
			n, err := tx.Exec(`INSERT INTO things (tenant, id) VALUES ($1, 'web1') ON CONFLICT (tenant, id) DO NOTHING`, string(tx.Tenant()))
			if n != 0 {
				t.Errorf("a row that exists was inserted: %d", n)
			}
			if err != nil {
				return err
			}
			n, err = tx.Exec(`INSERT INTO things (tenant, id, n) VALUES ($1, 'web1', 5) ON CONFLICT (tenant, id) DO UPDATE SET n = excluded.n`, string(tx.Tenant()))
			if n != 1 {
				t.Errorf("an upsert changed %d rows", n)
			}
			return err
		})
		for query, want := range map[string]string{
			`SELECT count(*) FROM things WHERE id LIKE 'w%'`:                   "1",
			`SELECT id FROM things ORDER BY id LIMIT 1`:                        "10",
			`SELECT n FROM things WHERE ok = FALSE AND NOT ok AND id = 'web1'`: "5",
			`SELECT coalesce(sum(n), 0) FROM things WHERE id = $1`:             "0",
			`SELECT 7 / 2`:      "3",
			`SELECT 'a' || 'b'`: "ab",
			`SELECT id FROM things ORDER BY body NULLS LAST, n DESC, id LIMIT 1`:      "web1",
			`SELECT count(*) FROM things WHERE id IN (SELECT id FROM parts)`:          "0",
			`SELECT CASE WHEN EXISTS (SELECT 1 FROM things) THEN 'yes' ELSE 'no' END`: "yes",
		} {
			var got string
			err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
				if strings.Contains(query, "$1") {
					return tx.QueryRow(query, "none").Scan(&got)
				}
				return tx.QueryRow(query).Scan(&got)
			})
			if err != nil || got != want {
				t.Errorf("%s: got %q, %v; want %q", query, got, err, want)
			}
		}
	})
}

func TestNoUpdateIsLost(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		const callers, each = 8, 25
		mustUpdate(t, s, add("read then written", 0))
		mustUpdate(t, s, add("compared and swapped", 0))
		var wg sync.WaitGroup
		for range callers {
			wg.Go(func() {
				for range each {
					if err := s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
						n, err := read(tx, "read then written")
						if err != nil {
							return err
						}
						_, err = tx.Exec(`UPDATE things SET n = $1 WHERE tenant = $2 AND id = $3`, n+1, string(tx.Tenant()), "read then written")
						return err
					}); err != nil {
						t.Error(err)
					}
					for swapped := false; !swapped; {
						seen, err := find(s, "compared and swapped")
						if err != nil {
							t.Error(err)
						}
						err = s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
							rows, err := tx.Exec(`UPDATE things SET n = n + 1 WHERE tenant = $1 AND id = $2 AND n = $3`, string(tx.Tenant()), "compared and swapped", seen)
							swapped = rows == 1
							return err
						})
						if err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		wg.Wait()
		want := fmt.Sprintf("compared and swapped=%d read then written=%d", callers*each, callers*each)
		if got := thingsOf(t, s, storetest.Tenant); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// Two changes that each read what the other writes: one of them must see what
// the other did.
func TestUpdatesAreSerializable(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for round := range 10 {
			a, b := fmt.Sprint("a", round), fmt.Sprint("b", round)
			mustUpdate(t, s, add(a, 1))
			mustUpdate(t, s, add(b, 1))
			off := func(mine, others string) {
				if err := s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
					n, err := read(tx, others)
					if err != nil || n == 0 {
						return err // the other is off: this one stays on
					}
					_, err = tx.Exec(`UPDATE things SET n = 0 WHERE tenant = $1 AND id = $2`, string(tx.Tenant()), mine)
					return err
				}); err != nil {
					t.Error(err)
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { off(a, b) })
			wg.Go(func() { off(b, a) })
			wg.Wait()
			x, _ := find(s, a)
			y, _ := find(s, b)
			if x+y != 1 {
				t.Fatalf("%d + %d are on, want 1", x, y)
			}
		}
	})
}

func TestViewIsOneSnapshotAndCannotWrite(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		mustUpdate(t, s, add("a", 1))
		err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			before, err := read(tx, "a")
			if err != nil {
				return err
			}
			mustUpdate(t, s, func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE things SET n = 2 WHERE tenant = $1`, string(tx.Tenant()))
				return err
			})
			after, err := read(tx, "a")
			if before != 1 || after != 1 {
				t.Errorf("read %d, then %d", before, after)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if n, err := find(s, "a"); n != 2 || err != nil {
			t.Errorf("a later View reads %d, %v", n, err)
		}
		wantKind(t, s.View(t.Context(), storetest.Tenant, add("b", 1)), trust.Internal)
		wantKind(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			var id string
			return tx.QueryRow(`INSERT INTO things (tenant, id) VALUES ($1, 'b') RETURNING id`, string(tx.Tenant())).Scan(&id)
		}), trust.Internal)
		if got := thingsOf(t, s, storetest.Tenant); got != "a=2" {
			t.Errorf("things %q", got)
		}
	})
}

func TestSystemSeesAllTenants(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		mustUpdate(t, s, add("a", 1))
		other := storetest.Event()
		other.Tenant = storetest.Other
		if err := s.Update(t.Context(), other, add("a", 2)); err != nil {
			t.Fatal(err)
		}
		var n int64
		if err := s.View(t.Context(), store.System, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT sum(n) FROM things`).Scan(&n)
		}); err != nil || n != 3 {
			t.Errorf("sum %d, %v", n, err)
		}
		if len(eventsOf(t, s, storetest.Tenant)) != 1 || len(eventsOf(t, s, storetest.Other)) != 1 {
			t.Error("events are not those of their tenant")
		}
	})
}

func TestCallersThatLeave(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		gone, leave := context.WithCancel(t.Context())
		leave()
		ran := false
		err := s.Update(gone, storetest.Event(), func(*store.Tx) error { ran = true; return nil })
		wantKind(t, err, trust.Unavailable)
		if !errors.Is(err, context.Canceled) || ran {
			t.Errorf("got %v, ran: %t", err, ran)
		}
		err = s.View(gone, storetest.Tenant, func(*store.Tx) error { return nil })
		wantKind(t, err, trust.Unavailable)

		// One that leaves in the middle of its change takes all of it back.
		sentence := trust.Errorf(trust.Conflict, "run %q was paused", "r1")
		leaving, paused := context.WithCancelCause(t.Context())
		err = s.Update(leaving, storetest.Event(), func(tx *store.Tx) error {
			if err := add("a", 1)(tx); err != nil {
				return err
			}
			paused(sentence)
			return add("b", 1)(tx)
		})
		if !errors.Is(err, sentence) {
			t.Errorf("got %v, want the cause that the context carries", err)
		}
		late, cancel := context.WithDeadline(t.Context(), time.Now().Add(20*time.Millisecond))
		defer cancel()
		err = s.View(late, storetest.Tenant, func(tx *store.Tx) error {
			for {
				if _, err := read(tx, "a"); err != nil && err != sql.ErrNoRows {
					return err
				}
			}
		})
		wantKind(t, err, trust.Unavailable)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		mustUpdate(t, s, add("c", 1))
		if got := thingsOf(t, s, storetest.Tenant); got != "c=1" {
			t.Errorf("things %q", got)
		}
	})
}

// A long statement of a reader is interrupted when its caller leaves.
func TestLongQueryEndsWithItsCaller(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		begun := time.Now()
		err := s.View(ctx, storetest.Tenant, func(tx *store.Tx) error {
			var n int64
			return tx.QueryRow(`WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < 100000000) SELECT count(*) FROM c`).Scan(&n)
		})
		wantKind(t, err, trust.Unavailable)
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("took %v", took)
		}
		mustUpdate(t, s, add("a", 1))
		if got := thingsOf(t, s, storetest.Tenant); got != "a=1" {
			t.Errorf("things %q", got)
		}
	})
}

func TestPanicStaysWithItsCaller(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		func() {
			defer func() {
				if r := recover(); r != "on purpose" {
					t.Errorf("recovered %v", r)
				}
			}()
			_ = s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
				if err := add("a", 1)(tx); err != nil {
					return err
				}
				panic("on purpose")
			})
		}()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_ = s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
				_ = add("b", 1)(tx)
				runtime.Goexit() // as t.FailNow does
				return nil
			})
		}()
		<-done
		func() {
			defer func() { _ = recover() }()
			_ = s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error { panic("on purpose") })
		}()
		mustUpdate(t, s, add("c", 1))
		if got := thingsOf(t, s, storetest.Tenant); got != "c=1" {
			t.Errorf("things %q", got)
		}
	})
}

func TestTransactionEndsWithItsFunction(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		var kept *store.Tx
		mustUpdate(t, s, func(tx *store.Tx) error { kept = tx; return nil })
		wantKind(t, add("a", 1)(kept), trust.Internal)
	})
}

func TestClose(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		inside, proceed, result := make(chan struct{}), make(chan struct{}), make(chan error)
		go func() {
			result <- s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
				close(inside)
				<-proceed
				return add("a", 1)(tx)
			})
		}()
		<-inside
		closed := make(chan error)
		go func() { closed <- s.Close() }()
		select {
		case <-closed:
			t.Error("closed before the transaction under way was over")
		case <-time.After(20 * time.Millisecond):
		}
		close(proceed)
		if err := <-result; err != nil {
			t.Errorf("the transaction under way: %v", err)
		}
		if err := <-closed; err != nil {
			t.Error(err)
		}
		wantKind(t, s.Update(t.Context(), storetest.Event(), add("b", 1)), trust.Unavailable)
		wantKind(t, s.View(t.Context(), storetest.Tenant, func(*store.Tx) error { return nil }), trust.Unavailable)
		if err := s.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
	})
}

func TestRefusesOtherURLs(t *testing.T) {
	for _, url := range []string{"", "mysql://x", "sqlite:", "sqlite::memory:", "keyturn.db", "postgres://[::1"} {
		_, err := store.Open(t.Context(), store.Options{URL: url})
		wantKind(t, err, trust.Invalid)
	}
	_, err := store.Open(t.Context(), store.Options{URL: "postgres://keyturn:secret@/db?host=" + t.TempDir()})
	wantKind(t, err, trust.Unavailable)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is in %q", err)
	}
	_, err = store.Open(t.Context(), store.Options{URL: "postgres://keyturn:secret@/db?host=/x&port=none"})
	wantKind(t, err, trust.Invalid)
	if strings.Contains(err.Error(), "secret") {
		t.Errorf("the password is in %q", err)
	}
}
