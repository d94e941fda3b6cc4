package rotation

import (
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
	w := &world{T: t, store: s}
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
