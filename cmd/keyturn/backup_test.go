package main

import (
	"database/sql"
	"os"
	"path/filepath"
	"testing"
)

// A copy that the recipe of docs/secrets.md makes while the server runs holds what was
// committed last, and opens with the KEK. The database's file alone would not do: what is
// young lies beside it.
func TestBackup(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.keyFile(w.dir+"/last", "last")
	w.ok("key", "import", w.dir+"/last")
	data, copied := filepath.Join(w.dir, "data"), filepath.Join(w.dir, "copy.db")
	db, err := sql.Open("sqlite", "file:"+filepath.Join(data, "keyturn.db")+"?mode=ro")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("VACUUM INTO '" + copied + "'"); err != nil {
		t.Fatal(err)
	}
	w.keyFile(w.dir+"/later", "later")
	w.ok("key", "import", w.dir+"/later") // the server goes on
	w.stop()
	if err := os.Rename(data, data+".lost"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(copied, filepath.Join(data, "keyturn.db")); err != nil {
		t.Fatal(err)
	}
	w.start()
	var keys []keyJSON
	if w.json(&keys, "key", "list"); len(keys) != 1 || keys[0].Comment != "last" {
		t.Fatalf("the copy knows %+v", keys)
	}
	exported := filepath.Join(w.dir, "exported")
	w.ok("key", "reveal", keys[0].UUID, "--out", exported, "--no-passphrase")
	if got := w.heldBy(exported); got != keys[0].PublicKey {
		t.Errorf("the copy reveals %s", got)
	}
}
