package inventory_test

import (
	"slices"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// Who may use a key may use what comes in its place, and after a way back the one that
// comes back, as it was changed meanwhile.
func TestKeyUsers(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		of := func(n int) (u inventory.KeyUsers) {
			t.Helper()
			view(t, s, func(tx *store.Tx) (err error) {
				u, err = inventory.UsersOfKey(tx, userKeyID(n))
				return err
			})
			return u
		}
		set := func(n int, limited bool, users ...string) {
			t.Helper()
			update(t, s, func(tx *store.Tx) error {
				return inventory.SetUsersOfKey(tx, userKeyID(n), inventory.KeyUsers{Limited: limited, Users: users})
			})
		}
		want := func(n int, limited bool, users ...string) {
			t.Helper()
			if u := of(n); u.Limited != limited || !slices.Equal(u.Users, users) {
				t.Errorf("key %d is for %+v, want %v %q", n, u, limited, users)
			}
		}
		old, next := addKey(t, s, 1), addKey(t, s, 2)
		want(1, false)
		set(1, true, "bob", "alice", "alice")
		want(1, true, "alice", "bob")
		if u := of(1); !u.Names("bob") || u.Names("") || u.Names("mallory") {
			t.Errorf("%+v names others", u)
		}
		update(t, s, func(tx *store.Tx) error {
			return inventory.TakeOut(tx, "run", old, inventory.Rotated, "user:admin", next)
		})
		want(2, true, "alice", "bob")
		set(2, true)
		want(2, true)
		update(t, s, func(tx *store.Tx) error { _, err := inventory.UndoRun(tx, "run"); return err })
		want(1, true)
		set(1, false)
		want(1, false)

		refused(t, s, trust.Exhausted, func(tx *store.Tx) error {
			return inventory.SetUsersOfKey(tx, old, inventory.KeyUsers{Limited: true, Users: make([]string, inventory.MaxKeyUsers+1)})
		})
		set(1, true, "alice")
		if err := s.View(t.Context(), storetest.Other, func(tx *store.Tx) error {
			u, err := inventory.UsersOfKey(tx, old)
			if u.Limited {
				t.Errorf("another tenant's key is for %+v", u)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}
