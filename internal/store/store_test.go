package store_test

import (
	"io/fs"
	"testing"
	"testing/fstest"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
)

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

func TestCommitsStateWithEvent(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		err := s.Update(ctx, storetest.Event(), func(tx *store.Tx) error {
			_, err := tx.Exec(`INSERT INTO things (tenant, id, n) VALUES ($1, $2, $3)`, string(tx.Tenant()), "a", 7)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		err = s.View(ctx, storetest.Tenant, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT n FROM things WHERE tenant = $1 AND id = $2`, string(tx.Tenant()), "a").Scan(&n)
		})
		if err != nil || n != 7 {
			t.Fatalf("read %d, %v", n, err)
		}
		events, err := s.Events(ctx, storetest.Tenant, "", "", 10)
		if err != nil || len(events) != 1 || events[0].Leaf.Action != "test.change" {
			t.Fatalf("events %v, %v", events, err)
		}
	})
}
