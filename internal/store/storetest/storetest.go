// Package storetest opens stores for tests: on SQLite in a directory of the
// test, and on PostgreSQL in a server of the test process.
//
// Begin with [Both], which runs a test on either engine, each time with a store
// that holds nothing but the tables of the schemas given. They are made once in the
// test process, and each database begins as a copy. The PostgreSQL server
// is made by initdb in a temporary directory when the first test asks for it,
// listens on a unix socket only, runs as an unprivileged user, and is stopped
// and removed when the process ends, however that comes about. Its databases
// belong to a role that is no superuser, so that row security binds the tests
// as it binds the product.
package storetest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Tenant is a tenant to test with, and Other another one.
const (
	Tenant trust.TenantID = "0123456789abcdef0123456789abcdef"
	Other  trust.TenantID = "fedcba9876543210fedcba9876543210"
)

// Event returns an event of Tenant that passes.
func Event() audit.Event {
	return audit.Event{
		Tenant:  Tenant,
		Actor:   audit.Actor{Kind: "system", ID: "test"},
		Action:  "test.change",
		Subject: "test:1",
	}
}

// Open returns a store with the given schemas on SQLite in a directory of the
// test, closed at its end.
func Open(tb testing.TB, schemas ...fs.FS) *store.Store {
	tb.Helper()
	return OpenURL(tb, SQLite(tb, schemas...), schemas...)
}

// templates are SQLite databases that hold tables and no rows, by the fingerprint
// of their schemas.
var templates = struct {
	sync.Mutex
	files map[string][]byte
}{files: map[string][]byte{}}

// SQLite returns the URL of a new SQLite database, keyturn.db in a directory of the
// test, that holds the tables of the schemas and no rows. A store that is to make
// its tables itself begins with a path where nothing is.
func SQLite(tb testing.TB, schemas ...fs.FS) string {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "keyturn.db")
	name := fingerprint(tb, schemas)
	templates.Lock()
	defer templates.Unlock()
	if templates.files[name] == nil {
		templates.files[name] = withTables(tb, schemas)
	}
	if err := os.WriteFile(path, templates.files[name], 0o600); err != nil {
		tb.Fatal(err)
	}
	return "sqlite:" + path
}

// withTables returns a SQLite database with the tables of the schemas.
func withTables(tb testing.TB, schemas []fs.FS) []byte {
	tb.Helper()
	path := filepath.Join(tb.TempDir(), "tables.db")
	s, err := store.Open(context.Background(), store.Options{URL: "sqlite:" + path, Schema: schemas})
	if err == nil {
		err = s.Close() // which folds the write-ahead log into the file
	}
	file, readErr := os.ReadFile(path)
	if err = errors.Join(err, readErr); err != nil {
		tb.Fatalf("make the tables: %v", err)
	}
	return file
}

// OpenURL returns a store with the given schemas on the database at url,
// closed at the end of the test.
func OpenURL(tb testing.TB, url string, schemas ...fs.FS) *store.Store {
	tb.Helper()
	return open(tb, store.Options{URL: url, Schema: schemas})
}

func open(tb testing.TB, o store.Options) *store.Store {
	tb.Helper()
	s, err := store.Open(context.Background(), o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := s.Close(); err != nil {
			tb.Errorf("close the store: %v", err)
		}
	})
	return s
}

// Both runs a test on either engine, each time with a new store.
func Both(t *testing.T, schemas []fs.FS, test func(t *testing.T, s *store.Store)) {
	t.Helper()
	BothAt(t, time.Now, schemas, test)
}

// BothAt is Both with stores that have now for a clock.
func BothAt(t *testing.T, now func() time.Time, schemas []fs.FS, test func(t *testing.T, s *store.Store)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		need.Within(t, 5*time.Minute)
		test(t, open(t, store.Options{URL: SQLite(t, schemas...), Schema: schemas, Now: now}))
	})
	t.Run("postgres", func(t *testing.T) {
		need.Within(t, 5*time.Minute)
		test(t, open(t, store.Options{URL: Postgres(t, schemas...), Schema: schemas, Now: now}))
	})
}
