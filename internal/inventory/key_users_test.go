package inventory_test

import (
	"fmt"
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

// A key that takes the place of several is for those who may use each of them, in whatever
// order it does: it opens what any of them opened.
func TestUsersOfSeveral(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for i, order := range [][]int{{1, 2, 3}, {3, 2, 1}, {2, 3, 1}} {
			next := addKey(t, s, 10*i+4)
			for _, n := range order {
				old := addKey(t, s, 10*i+n)
				update(t, s, func(tx *store.Tx) error {
					limit := map[int]inventory.KeyUsers{
						1: {Limited: true, Users: []string{"alice", "bob"}}, 2: {Limited: true, Users: []string{"bob", "carol"}}, 3: {},
					}[n]
					if err := inventory.SetUsersOfKey(tx, old, limit); err != nil {
						return err
					}
					return inventory.TakeOut(tx, trust.RunID(fmt.Sprintf("run%d-%d", i, n)), old, inventory.Rotated, "user:admin", next)
				})
			}
			view(t, s, func(tx *store.Tx) error {
				u, err := inventory.UsersOfKey(tx, next)
				if !u.Limited || !slices.Equal(u.Users, []string{"bob"}) {
					t.Errorf("in the place of %v: %+v, want bob", order, u)
				}
				return err
			})
		}
	})
}
