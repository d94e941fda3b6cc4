package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func openRaw(t *testing.T, url string) *sql.DB {
	t.Helper()
	db, err := sql.Open("pgx", url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

// The second wall: queries that forget their WHERE, in transactions of a role
// that owns the tables.
func TestRowSecurity(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.OpenURL(t, url, schemas...)
	mustUpdate(t, s, add("mine", 1))
	other := storetest.Event()
	other.Tenant = storetest.Other
	if err := s.Update(t.Context(), other, add("theirs", 1)); err != nil {
		t.Fatal(err)
	}
	raw := openRaw(t, url)
	var super, bypass bool
	if err := raw.QueryRow(`SELECT rolsuper, rolbypassrls FROM pg_roles WHERE rolname = current_user`).Scan(&super, &bypass); err != nil || super || bypass {
		t.Fatalf("the test's role is a superuser: %t, or passes row security: %t, %v", super, bypass, err)
	}
	for tenant, want := range map[trust.TenantID]int{storetest.Tenant: 1, storetest.Other: 1, store.System: 2} {
		for _, table := range []string{"things", "events"} {
			var n int
			if err := s.View(t.Context(), tenant, func(tx *store.Tx) error {
				return tx.QueryRow(`SELECT count(*) FROM ` + table).Scan(&n)
			}); err != nil || n != want {
				t.Errorf("tenant %q sees %d rows of %s, %v; want %d", tenant, n, table, err, want)
			}
		}
	}
	for name, fn := range map[string]func(*store.Tx) error{
		"update": func(tx *store.Tx) error {
			n, err := tx.Exec(`UPDATE things SET n = 9`)
			if n != 1 {
				t.Errorf("update without WHERE changed %d rows, want the tenant's own one", n)
			}
			return err
		},
		"delete": func(tx *store.Tx) error {
			n, err := tx.Exec(`DELETE FROM things WHERE tenant = $1`, storetest.Other)
			if n != 0 {
				t.Errorf("%d rows of another tenant were deleted", n)
			}
			return err
		},
	} {
		if err := s.Update(t.Context(), storetest.Event(), fn); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
		_, err := tx.Exec(`INSERT INTO things (tenant, id) VALUES ($1, 'x')`, storetest.Other)
		return err
	})
	wantKind(t, err, trust.Internal)
	if got := thingsOf(t, s, storetest.Other); got != "theirs=1" {
		t.Errorf("things of the other tenant: %q", got)
	}
	// Who names no tenant sees nothing.
	var n int
	if err := raw.QueryRow(`SELECT count(*) FROM things`).Scan(&n); err != nil || n != 0 {
		t.Errorf("%d rows without a tenant, %v", n, err)
	}
}

// Rows are walled off in tables that come with a later migration too, and a
// migration sees the rows of all tenants.
func TestRowSecurityOfMigrations(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.OpenURL(t, url, schemas...)
	mustUpdate(t, s, add("a", 1))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	later := migrationFiles("00091_test_later.sql", `
CREATE TABLE later (tenant TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant, id));
UPDATE things SET n = n + 10;
INSERT INTO later SELECT tenant, id FROM things;`)
	s = storetest.OpenURL(t, url, things, later)
	if got := thingsOf(t, s, storetest.Tenant); got != "a=11" {
		t.Errorf("things %q: the migration changed none", got)
	}
	var n int
	if err := s.View(t.Context(), storetest.Other, func(tx *store.Tx) error {
		return tx.QueryRow(`SELECT count(*) FROM later`).Scan(&n)
	}); err != nil || n != 0 {
		t.Errorf("another tenant sees %d rows of a later table, %v", n, err)
	}
}

func TestNodesThatStartTogetherMigrateOnce(t *testing.T) {
	url := storetest.Postgres(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			s, err := store.Open(context.Background(), store.Options{URL: url, Schema: schemas})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// A node that starts while another one migrates waits for it.
func TestMigrationsWaitForAnotherNode(t *testing.T) {
	url := storetest.Postgres(t)
	raw, err := openRaw(t, url).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	if _, err := raw.ExecContext(t.Context(), `SELECT pg_advisory_lock($1)`, store.MigrationLock); err != nil {
		t.Fatal(err)
	}
	opened := make(chan error)
	go func() { opened <- openClose(t, url, schemas...) }()
	select {
	case err := <-opened:
		t.Fatalf("did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if _, err := raw.ExecContext(t.Context(), `SELECT pg_advisory_unlock($1)`, store.MigrationLock); err != nil {
		t.Fatal(err)
	}
	if err := <-opened; err != nil {
		t.Error(err)
	}
}

// Many writers of one row, on two nodes, all get their turn.
func TestContention(t *testing.T) {
	url := storetest.Postgres(t)
	nodes := []*store.Store{storetest.OpenURL(t, url, schemas...), storetest.OpenURL(t, url, schemas...)}
	mustUpdate(t, nodes[0], add("n", 0))
	const callers, each = 12, 8
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for range each {
				if err := nodes[c%2].Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
					n, err := read(tx, "n")
					if err != nil {
						return err
					}
					tx.Note("n", fmt.Sprint(n))
					_, err = tx.Exec(`UPDATE things SET n = $1 WHERE tenant = $2`, n+1, string(tx.Tenant()))
					return err
				}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if got, want := thingsOf(t, nodes[0], storetest.Tenant), fmt.Sprintf("n=%d", callers*each); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	seen := map[string]bool{}
	for _, e := range eventsOf(t, nodes[0], storetest.Tenant) {
		for _, f := range e.Leaf.Fields {
			if seen[f.Value] || len(e.Leaf.Fields) > 1 {
				t.Errorf("event %s notes %v, what another one or an earlier run noted", e.ID, e.Leaf.Fields)
			}
			seen[f.Value] = true
		}
	}
	if len(seen) != callers*each {
		t.Errorf("%d events with a note, want %d", len(seen), callers*each)
	}
}

// A change that others always get in the way of, here or on another node, runs alone in
// the end.
func TestPersistentContention(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.OpenURL(t, url, schemas...)
	for name, other := range map[string]*store.Store{"this node": s, "another node": storetest.OpenURL(t, url, schemas...)} {
		t.Run(name, func(t *testing.T) { persistentContention(t, s, other) })
	}
}

func persistentContention(t *testing.T, s, other *store.Store) {
	mustUpdate(t, s, func(tx *store.Tx) error {
		if _, err := tx.Exec(`DELETE FROM things WHERE tenant = $1`, string(tx.Tenant())); err != nil {
			return err
		}
		return add("n", 0)(tx)
	})
	bump := func(tx *store.Tx) error {
		n, err := read(tx, "n")
		if err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE things SET n = $1 WHERE tenant = $2`, n+1, string(tx.Tenant()))
		return err
	}
	runs := 0
	var others sync.WaitGroup
	mustUpdate(t, s, func(tx *store.Tx) error {
		runs++
		if _, err := read(tx, "n"); err != nil {
			return err
		}
		done := make(chan struct{})
		others.Go(func() {
			defer close(done)
			if err := other.Update(context.Background(), storetest.Event(), bump); err != nil {
				t.Error(err)
			}
		})
		select {
		case <-done:
		case <-time.After(500 * time.Millisecond): // it waits for us
		}
		return bump(tx)
	})
	others.Wait()
	if runs != store.PatientTries+1 {
		t.Errorf("ran %d times, want %d", runs, store.PatientTries+1)
	}
	if got, want := thingsOf(t, s, storetest.Tenant), fmt.Sprintf("n=%d", runs+1); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Who looks whether a row is there, and inserts it where it is not, finds it there in the
// end, where somebody else has inserted it meanwhile.
func TestInsertedMeanwhile(t *testing.T) {
	s := storetest.OpenURL(t, storetest.Postgres(t), schemas...)
	other := func() {
		if err := s.Update(context.Background(), storetest.Event(), add("n", 1)); err != nil {
			t.Error(err)
		}
	}
	runs := 0
	insert := func(look bool) error {
		runs = 0
		return s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
			runs++
			if _, err := read(tx, "another"); !errors.Is(err, sql.ErrNoRows) { // which takes the snapshot
				return err
			}
			if runs == 1 && look {
				other()
			}
			if n, err := read(tx, "n"); look && n == 1 {
				return err
			}
			return add("n", 2)(tx)
		})
	}
	if err := insert(true); err != nil || runs != 2 {
		t.Errorf("after %d runs: %v", runs, err)
	}
	if err := insert(false); trust.KindOf(err) != trust.Conflict || runs > store.PatientTries {
		t.Errorf("of a row that was there before: %v, after %d runs", err, runs)
	}
	if got := thingsOf(t, s, storetest.Tenant); got != "n=1" {
		t.Errorf("got %q", got)
	}
}

func TestDatabaseAway(t *testing.T) {
	server := storetest.StartPostgres(t, "fsync=off")
	s := storetest.OpenURL(t, server.Database(t), schemas...)
	mustUpdate(t, s, add("a", 1))
	inside, proceed, result := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		result <- s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
			if err := add("lost", 1)(tx); err != nil {
				return err
			}
			close(inside)
			<-proceed
			_, err := read(tx, "a")
			return err
		})
	}()
	<-inside
	server.Crash(t)
	close(proceed)
	wantKind(t, <-result, trust.Unavailable)
	wantKind(t, s.Update(t.Context(), storetest.Event(), add("b", 1)), trust.Unavailable)
	wantKind(t, s.View(t.Context(), storetest.Tenant, func(*store.Tx) error { return nil }), trust.Unavailable)
	server.Start(t)
	// No connection of the pool is alive, and nobody notices.
	for i := range 30 {
		mustUpdate(t, s, add(fmt.Sprint("c", i), 1))
	}
	if got := thingsOf(t, s, storetest.Tenant); !strings.HasPrefix(got, "a=1 c0=1 ") {
		t.Errorf("things %q", got)
	}
}

// A proxy stands before PostgreSQL and can lose a COMMIT or its answer.
type proxy struct {
	dir, target string
	listener    net.Listener
	running     sync.WaitGroup

	mu    sync.Mutex
	fault string // "": none; "before": lose the next COMMIT; "after": lose its answer
	away  bool   // after the fault nobody gets through any more
	conns []net.Conn
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "ktpx") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{dir: dir, target: target}
	if p.listener, err = net.Listen("unix", filepath.Join(dir, ".s.PGSQL.5432")); err != nil {
		t.Fatal(err)
	}
	p.running.Go(func() {
		for {
			c, err := p.listener.Accept()
			if err != nil {
				return
			}
			p.running.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		_ = p.listener.Close()
		p.mu.Lock()
		for _, c := range p.conns {
			_ = c.Close()
		}
		p.mu.Unlock()
		p.running.Wait()
		_ = os.RemoveAll(dir)
	})
	return p
}

func (p *proxy) set(fault string, away bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fault, p.away = fault, away
}

// take returns the fault that the message of a client meets.
func (p *proxy) take(message []byte) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	fault := p.fault
	if fault == "" || !bytes.Contains(message, []byte("COMMIT\x00")) {
		return ""
	}
	p.fault = ""
	return fault
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("unix", p.target)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	refused := p.away && p.fault == ""
	p.mu.Unlock()
	if refused {
		return
	}
	answers := make(chan struct{})
	var lose bool
	var mu sync.Mutex
	p.running.Go(func() {
		defer close(answers)
		b := make([]byte, 64<<10)
		for {
			n, err := server.Read(b)
			mu.Lock()
			lost := lose
			mu.Unlock()
			if lost || err != nil {
				_ = client.Close()
				return
			}
			if _, err := client.Write(b[:n]); err != nil {
				return
			}
		}
	})
	b := make([]byte, 64<<10)
	for {
		n, err := client.Read(b)
		if err != nil {
			return
		}
		switch p.take(b[:n]) {
		case "before":
			return
		case "after":
			mu.Lock()
			lose = true
			mu.Unlock()
			if _, err := server.Write(b[:n]); err != nil {
				return
			}
			<-answers
			return
		}
		if _, err := server.Write(b[:n]); err != nil {
			return
		}
	}
}

func TestLostCommit(t *testing.T) {
	url := storetest.Postgres(t)
	name := url[strings.Index(url, "@/")+2 : strings.Index(url, "?")]
	dir := url[strings.Index(url, "host=")+5:]
	p := startProxy(t, filepath.Join(dir, ".s.PGSQL.5432"))
	s := storetest.OpenURL(t, fmt.Sprintf("postgres://keyturn@/%s?host=%s", name, p.dir), schemas...)
	direct := storetest.OpenURL(t, url, schemas...)
	mustUpdate(t, s, add("warm", 1))

	p.set("after", false)
	runs := 0
	mustUpdate(t, s, func(tx *store.Tx) error { runs++; return add("answer lost", 1)(tx) })
	if runs != 1 {
		t.Errorf("ran %d times, though it was committed", runs)
	}
	p.set("before", false)
	runs = 0
	mustUpdate(t, s, func(tx *store.Tx) error { runs++; return add("commit lost", 1)(tx) })
	if runs != 2 {
		t.Errorf("ran %d times, want again after it was not committed", runs)
	}
	store.SetPatience(s, 300*time.Millisecond)
	p.set("after", true)
	err := s.Update(t.Context(), storetest.Event(), add("who knows", 1))
	wantKind(t, err, trust.Unavailable)
	if !errors.Is(err, store.ErrOutcomeUnknown) {
		t.Errorf("got %v, want that the outcome is unknown", err)
	}
	if got := thingsOf(t, direct, storetest.Tenant); got != "answer lost=1 commit lost=1 warm=1 who knows=1" {
		t.Errorf("things %q", got)
	}
	if events := eventsOf(t, direct, storetest.Tenant); len(events) != 4 {
		t.Errorf("%d events, want 4", len(events))
	}
}

// A connection broken in the middle of a transaction, by the server or on the
// way, leaves nothing.
func TestBackendTerminated(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.OpenURL(t, url, schemas...)
	raw := openRaw(t, url)
	err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
		if err := add("a", 1)(tx); err != nil {
			return err
		}
		var pid int
		if err := tx.QueryRow(`SELECT pg_backend_pid()`).Scan(&pid); err != nil {
			return err
		}
		if _, err := raw.Exec(`SELECT pg_terminate_backend($1, 5000)`, pid); err != nil {
			t.Error(err)
		}
		return add("b", 1)(tx)
	})
	wantKind(t, err, trust.Unavailable)
	mustUpdate(t, s, add("c", 1))
	if got := thingsOf(t, s, storetest.Tenant); got != "c=1" {
		t.Errorf("things %q", got)
	}
}

// Connections that died at rest are replaced without anybody noticing.
func TestIdleBackendsTerminated(t *testing.T) {
	url := storetest.Postgres(t)
	s := storetest.OpenURL(t, url, schemas...)
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if err := s.Update(context.Background(), storetest.Event(), add(fmt.Sprint(i), 1)); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	raw := openRaw(t, url)
	// Within a second of its last use, no connection is asked whether it lives.
	const others = `FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`
	n := 0
	if err := raw.QueryRow(`SELECT count(pg_terminate_backend(pid)) ` + others).Scan(&n); err != nil || n < 2 {
		t.Fatalf("terminated %d, %v", n, err)
	}
	for n > 0 {
		if err := raw.QueryRowContext(t.Context(), `SELECT count(*) `+others).Scan(&n); err != nil {
			t.Fatal(err)
		}
	}
	mustUpdate(t, s, add("after", 1))
}

func TestRefusesAnEncodingThatLosesText(t *testing.T) {
	url := storetest.Postgres(t)
	raw := openRaw(t, strings.Replace(url, "keyturn@", "postgres@", 1))
	if _, err := raw.Exec(`CREATE DATABASE ascii OWNER keyturn ENCODING 'SQL_ASCII' TEMPLATE template0`); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = raw.Exec(`DROP DATABASE ascii WITH (FORCE)`) })
	_, err := store.Open(t.Context(), store.Options{URL: "postgres://keyturn@/ascii" + url[strings.Index(url, "?"):]})
	wantKind(t, err, trust.Invalid)
}
