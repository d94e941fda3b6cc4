package rotation

import (
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A deleted key is kept for thirty days, and its private half destroyed then; who
// finds the key again is not told that Keyturn holds it. So is that of a key which
// somebody else has.
func TestPurgeOfDeletedKeys(t *testing.T) {
	t.Run("held", func(t *testing.T) { purgeDeleted(t, false) })
	t.Run("revealed", func(t *testing.T) { purgeDeleted(t, true) })
}

func purgeDeleted(t *testing.T, revealed bool) {
	now := time.Date(2026, 11, 22, 10, 0, 0, 0, time.UTC)
	s, err := store.Open(t.Context(), store.Options{
		URL: "sqlite:" + filepath.Join(t.TempDir(), "keyturn.db"), Schema: []fs.FS{inventory.Schema, job.Schema, keyring.Schema}, Now: func() time.Time { return now },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, store: s}
	private, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
	if err != nil {
		t.Fatal(err)
	}
	var key inventory.Key
	w.update(func(tx *store.Tx) (err error) {
		if key, err = inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: private.Public(), Custody: inventory.Held}); err != nil {
			return err
		}
		if err = k.Put(tx, key.ID, private); err != nil {
			return err
		}
		if revealed {
			key.Custody, key.RevealedAt = inventory.External, tx.Now()
			if key, err = inventory.UpdateKey(tx, key); err != nil {
				return err
			}
		}
		key, err = inventory.DeleteKey(tx, key.ID, key.Revision)
		return err
	})
	held := func() (has bool) {
		purge, err := New(s, k, nil, nil).destroy(t.Context(), job.Run{}, job.Target{})
		if err != nil {
			t.Fatal(err)
		}
		w.update(purge)
		w.update(func(tx *store.Tx) (err error) {
			if has, err = k.Has(tx, key.ID); err != nil {
				return err
			}
			now, err := inventory.KeyByID(tx, key.ID)
			if (now.Custody == inventory.Held) != (has && !revealed) {
				t.Errorf("its private half is held: %v, and its custody is %s", has, now.Custody)
			}
			return err
		})
		return has
	}
	now = now.Add(inventory.DeletedFor - time.Second)
	if !held() {
		t.Error("destroyed before its time")
	}
	now = now.Add(2 * time.Second)
	if held() {
		t.Error("kept for longer than a deleted key is")
	}
	w.update(func(tx *store.Tx) error {
		if _, err := inventory.UndeleteKey(tx, key.ID); trust.KindOf(err) != trust.Conflict {
			t.Errorf("restored after it was destroyed: %v", err)
		}
		return nil
	})
}

// What is kept of an old key is destroyed when its retention has ended, and not
// before; nobody is told from then on that Keyturn still holds it.
func TestPurgedKeyIsNotHeld(t *testing.T) {
	s := storetest.Open(t, inventory.Schema, job.Schema, keyring.Schema)
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{TB: t, store: s}
	const run = trust.RunID("01a201dd-212a-7e76-834e-8a2746486625")
	keep := map[time.Duration]trust.KeyID{-time.Hour: "", time.Hour: ""}
	for left := range keep {
		private, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
		if err != nil {
			t.Fatal(err)
		}
		w.update(func(tx *store.Tx) error {
			key, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: private.Public(), Custody: inventory.Held})
			if err != nil {
				return err
			}
			keep[left] = key.ID
			if err := k.Put(tx, key.ID, private); err != nil {
				return err
			}
			if err := inventory.TakeOut(tx, run, key.ID, inventory.Retired, "test"); err != nil {
				return err
			}
			return inventory.Archived(tx, run, key.ID, tx.Now().Add(left))
		})
	}
	purge, err := New(s, k, nil, nil).destroy(t.Context(), job.Run{}, job.Target{})
	if err != nil {
		t.Fatal(err)
	}
	w.update(purge)
	w.update(func(tx *store.Tx) error {
		for left, id := range keep {
			key, err := inventory.KeyByID(tx, id)
			if err != nil {
				return err
			}
			has, err := k.Has(tx, id)
			if err != nil {
				return err
			}
			if want := left > 0; has != want || (key.Custody == inventory.Held) != want {
				t.Errorf("a key to be kept for %s more is %s, and its private half is held: %v", left, key.Custody, has)
			}
		}
		return nil
	})
}
