package authority

import (
	"fmt"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// An application has one authority; around a rotation, the one that signs; after a
// removal, the one that did or will. The listing has the same one of each.
func TestAuthorityOfApplication(t *testing.T) {
	eachWorld(t, func(w world) {
		made := map[string]Authority{}
		for i := range 7 {
			name := fmt.Sprintf("app-%d", i)
			made[name] = w.create(NewAuthority{Name: name, Purpose: User, Application: name}, "ecdsa-p256")
		}
		w.create(NewAuthority{Name: "people", Purpose: User}, "ecdsa-p256")
		key := newKey(w, "ecdsa-p256")
		for n, kind := range map[NewAuthority]trust.Kind{
			{Name: "second", Purpose: User, Application: "app-1"}:   trust.Conflict,
			{Name: "app-1", Purpose: User, Application: "other"}:    trust.Conflict,
			{Name: "hosts", Purpose: Host, Application: "other"}:    trust.Invalid,
			{Name: "gateway", Purpose: Hop, Application: "another"}: trust.Invalid,
		} {
			if err := w.update(func(tx *store.Tx) error { _, err := w.Create(tx, n, key); return err }); trust.KindOf(err) != kind {
				w.Errorf("%+v: %v", n, err)
			}
		}
		rotate := func(name string, overlap time.Duration) (next Authority) {
			w.must(func(tx *store.Tx) (err error) {
				next, err = w.Rotate(tx, name, overlap, newKey(w, "ecdsa-p256"))
				return err
			})
			return next
		}
		remove := func(id string) {
			w.must(func(tx *store.Tx) error { _, err := w.Remove(tx, id, ""); return err })
		}
		rotate("app-1", time.Hour) // the present one signs

		made["app-2"] = rotate("app-2", 0) // the next one signs

		gone := made["app-3"].ID
		made["app-3"] = rotate("app-3", time.Hour)
		remove(gone) // only the next one is left

		remove(rotate("app-4", 0).ID) // only the one before is left

		rotate("app-5", time.Hour)
		w.must(func(tx *store.Tx) error { // none is left of two
			n, err := w.RemoveOfApplication(tx, "app-5", "gone")
			if n != 2 {
				w.Errorf("removed %d keys of an application, want 2", n)
			}
			return err
		})
		delete(made, "app-5")
		w.must(func(tx *store.Tx) error {
			for name, want := range made {
				if a, err := w.OfApplication(tx, name); err != nil || a.ID != want.ID {
					w.Errorf("of %s: %s, %v; want %s", name, a.ID, err, want.ID)
				}
			}
			for _, name := range []string{"app-5", "other", ""} {
				if a, err := w.OfApplication(tx, name); trust.KindOf(err) != trust.NotFound {
					w.Errorf("of %q: %+v, %v", name, a, err)
				}
			}
			seen := 0
			for offset := 0; ; offset += 4 {
				list, total, err := w.OfApplications(tx, offset, 4)
				if err != nil || total != len(made) {
					w.Errorf("%d in all, %v; want %d", total, err, len(made))
				}
				if len(list) == 0 {
					break
				}
				for i, a := range list {
					if made[a.Application].ID != a.ID || i > 0 && list[i-1].ID > a.ID {
						w.Errorf("listed %s of %s, or out of order", a.ID, a.Application)
					}
					seen++
				}
			}
			if seen != len(made) {
				w.Errorf("listed %d, want %d", seen, len(made))
			}
			krl, err := w.KRL(tx)
			if err != nil || len(krl.Keys) != 4 {
				w.Errorf("%d authorities are revoked, want 4: %v", len(krl.Keys), err)
			}
			return nil
		})
		// Another may take the place of one that is gone, and its key is gone with it.
		w.create(NewAuthority{Name: "app-5", Purpose: User, Application: "app-5"}, "ecdsa-p256")
		w.must(func(tx *store.Tx) error {
			if _, err := w.keyring.Sealed(tx, trust.KeyID(gone)); trust.KindOf(err) != trust.NotFound {
				w.Errorf("the key of a removed authority is there still: %v", err)
			}
			return nil
		})
	})
}
