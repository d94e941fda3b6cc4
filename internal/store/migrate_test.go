package store_test

import (
	"context"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// migrationFiles returns a schema of files, given as name and text in turn.
func migrationFiles(files ...string) fs.FS {
	schema := fstest.MapFS{}
	for i := 0; i < len(files); i += 2 {
		schema[files[i]] = &fstest.MapFile{Data: []byte(files[i+1])}
	}
	return schema
}

// bothURLs runs a test with an empty database of either engine.
func bothURLs(t *testing.T, test func(t *testing.T, url string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) { test(t, "sqlite:"+filepath.Join(t.TempDir(), "keyturn.db")) })
	t.Run("postgres", func(t *testing.T) { test(t, storetest.Postgres(t)) })
}

const table = `CREATE TABLE NAME (tenant TEXT NOT NULL, id TEXT NOT NULL, PRIMARY KEY (tenant, id));`

func create(name string) string { return strings.ReplaceAll(table, "NAME", name) }

func openClose(t *testing.T, url string, schemas ...fs.FS) error {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{URL: url, Schema: schemas})
	if err == nil {
		err = s.Close()
	}
	return err
}

func TestMigrations(t *testing.T) {
	bothURLs(t, func(t *testing.T, url string) {
		first := migrationFiles("migrations/00030_test_a.sql", create("a"), "README.md", "not a migration")
		if err := openClose(t, url, first); err != nil {
			t.Fatal(err)
		}
		// Numbers below the highest one, of an owner that came later, and the
		// next step of one that was there.
		second := migrationFiles("00010_other_b.sql", create("b"))
		third := migrationFiles("00031_test_c.sql", create("c")+" INSERT INTO a (tenant, id) VALUES ('t', 'c');")
		if err := openClose(t, url, third, second, first); err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(t.Context(), store.Options{URL: url, Schema: []fs.FS{first, second, third}})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		var n int
		if err := s.View(t.Context(), store.System, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT (SELECT count(*) FROM a) + (SELECT count(*) FROM b) + (SELECT count(*) FROM c)`).Scan(&n)
		}); err != nil || n != 1 {
			t.Errorf("%d rows, %v: each migration runs once", n, err)
		}
	})
}

func TestRefusesADatabaseOfAnotherProgram(t *testing.T) {
	bothURLs(t, func(t *testing.T, url string) {
		a, b := migrationFiles("00030_test_a.sql", create("a")), migrationFiles("00031_test_b.sql", create("b"))
		if err := openClose(t, url, a, b); err != nil {
			t.Fatal(err)
		}
		for name, c := range map[string]struct {
			schema fs.FS
			names  string
		}{
			"older":   {a, `"00031_test_b.sql"`},
			"edited":  {migrationFiles("00030_test_a.sql", create("a")+" -- edited", "00031_test_b.sql", create("b")), `"00030_test_a.sql"`},
			"renamed": {migrationFiles("00030_test_a.sql", create("a"), "00031_test_c.sql", create("b")), `"00031_test_b.sql"`},
		} {
			err := openClose(t, url, c.schema)
			if trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), c.names) {
				t.Errorf("%s: got %v, want a conflict that names %s", name, err, c.names)
			}
		}
		if err := openClose(t, url, a, b); err != nil {
			t.Errorf("after the refusals: %v", err)
		}
	})
}

func TestMigrationThatFailsLeavesNothing(t *testing.T) {
	bothURLs(t, func(t *testing.T, url string) {
		good := migrationFiles("00030_test_a.sql", create("a"))
		bad := migrationFiles("00031_test_b.sql", create("b")+" INSERT INTO a (tenant) VALUES ('t');")
		err := openClose(t, url, good, bad)
		if err == nil || !strings.Contains(err.Error(), `"00031_test_b.sql"`) {
			t.Errorf("got %v, want an error that names the migration", err)
		}
		mended := migrationFiles("00031_test_b.sql", create("b"))
		if err := openClose(t, url, good, mended); err != nil {
			t.Errorf("mended: %v", err)
		}
	})
}

func TestRefusesMigrationsThatAreNone(t *testing.T) {
	for name, schemas := range map[string][]fs.FS{
		"one number twice": {migrationFiles("00030_test_a.sql", create("a")), migrationFiles("00030_other_b.sql", create("b"))},
		"the store's":      {migrationFiles("00001_test_a.sql", create("a"))},
		"no number":        {migrationFiles("test_a.sql", create("a"))},
		"zero":             {migrationFiles("00000_test_a.sql", create("a"))},
		"no owner":         {migrationFiles("00030.sql", create("a"))},
		"a way down":       {migrationFiles("00030_test_a.sql", "-- +goose Up\n"+create("a")+"\n-- +goose Down\nDROP TABLE a;")},
	} {
		err := openClose(t, "sqlite:"+filepath.Join(t.TempDir(), "keyturn.db"), schemas...)
		if err == nil || trust.KindOf(err) != trust.Internal {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
