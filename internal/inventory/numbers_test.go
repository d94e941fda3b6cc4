package inventory_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// numbers returns the numbers that are listed.
func numbers(tb testing.TB, s *store.Store, tenant trust.TenantID) (list []int64) {
	tb.Helper()
	err := s.View(context.Background(), tenant, func(tx *store.Tx) error {
		keys, err := inventory.NumberedKeys(tx)
		list = nil
		for _, k := range keys {
			one, err := inventory.NumberedKeyOf(tx, k.Number)
			if err != nil || one != k {
				tb.Errorf("number %d is %+v, %v; listed as %+v", k.Number, one, err, k)
			}
			list = append(list, k.Number)
		}
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return list
}

// number makes the n-th key of a tenant and gives it a number.
func number(s *store.Store, tenant trust.TenantID, n int) (k inventory.NumberedKey, err error) {
	ev := storetest.Event()
	ev.Tenant = tenant
	err = s.Update(context.Background(), ev, func(tx *store.Tx) error {
		made, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: publicKey(n), Custody: inventory.Held})
		if err != nil {
			return err
		}
		k, err = inventory.NumberKey(tx, made, "alice")
		return err
	})
	return k, err
}

// Numbers count from 1 in each tenant, and none is given twice: not after its key is
// deleted, nor to two who ask at once.
func TestNumberKey(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for n := 1; n <= 3; n++ {
			if k, err := number(s, storetest.Tenant, n); err != nil || k.Number != int64(n) || k.By != "alice" || k.ID != userKeyID(n) || k.CreatedAt.IsZero() {
				t.Fatalf("key %d: %+v, %v", n, k, err)
			}
		}
		if k, err := number(s, storetest.Other, 1); err != nil || k.Number != 1 || k.ID == userKeyID(1) {
			t.Errorf("the first key of another tenant: %+v, %v", k, err)
		}
		if got := numbers(t, s, storetest.Other); !slices.Equal(got, []int64{1}) {
			t.Errorf("the other tenant has %v", got)
		}
		if _, err := number(s, storetest.Tenant, 1); trust.KindOf(err) != trust.Conflict {
			t.Errorf("a second number for a key: %v", err)
		}

		addKey(t, s, 50) // without a number
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.DeleteKey(tx, userKeyID(3), key(t, s, userKeyID(3)).Revision)
			return err
		})
		if got := numbers(t, s, storetest.Tenant); !slices.Equal(got, []int64{1, 2}) {
			t.Errorf("after the third was deleted, %v are listed", got)
		}
		for _, gone := range []int64{3, 4, 0, -1, 1<<63 - 1} {
			err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
				_, err := inventory.NumberedKeyOf(tx, gone)
				return err
			})
			if trust.KindOf(err) != trust.NotFound {
				t.Errorf("number %d: %v", gone, err)
			}
		}
		var wg sync.WaitGroup
		for n := 4; n <= 11; n++ {
			wg.Go(func() {
				if _, err := number(s, storetest.Tenant, n); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if got := numbers(t, s, storetest.Tenant); !slices.Equal(got, []int64{1, 2, 4, 5, 6, 7, 8, 9, 10, 11}) {
			t.Errorf("after eight more at once, %v are listed", got)
		}
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.UndeleteKey(tx, userKeyID(3))
			return err
		})
		if got := numbers(t, s, storetest.Tenant); len(got) != 11 || got[2] != 3 {
			t.Errorf("restored, the third is not where it was: %v", got)
		}
	})
}

// A key that was taken out of use is listed for as long as it can come back.
func TestNumberOfARotatedKey(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for n := 1; n <= 2; n++ {
			if _, err := number(s, storetest.Tenant, n); err != nil {
				t.Fatal(err)
			}
		}
		update(t, s, func(tx *store.Tx) error {
			return inventory.TakeOut(tx, "run", userKeyID(1), inventory.Rotated, "alice")
		})
		if got := numbers(t, s, storetest.Tenant); !slices.Equal(got, []int64{1, 2}) {
			t.Errorf("while it is kept: %v", got)
		}
		external := func(n int) {
			update(t, s, func(tx *store.Tx) error {
				k, err := inventory.KeyByID(tx, userKeyID(n))
				if err != nil {
					return err
				}
				k.Custody = inventory.External
				_, err = inventory.UpdateKey(tx, k)
				return err
			})
		}
		external(1)
		external(2)
		if got := numbers(t, s, storetest.Tenant); !slices.Equal(got, []int64{2}) {
			t.Errorf("after nothing is kept of it: %v", got)
		}
	})
}

// There are no more numbered keys than a client gets at once.
func TestMaxNumbered(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		if _, err := number(s, storetest.Tenant, 1); err != nil {
			t.Fatal(err)
		}
		update(t, s, func(tx *store.Tx) error {
			const series = ` WITH RECURSIVE n (i) AS (VALUES (2) UNION ALL SELECT i + 1 FROM n WHERE i < 10000) SELECT `
			_, err := tx.Exec(`INSERT INTO keys (tenant, id, kind, fingerprint, public_key, comment, owner, state, custody, container,
				compromised, created_at, last_rotated_at, deleted_at, revision, search)`+series+`tenant, 'x' || i, kind, fingerprint, public_key,
				comment, owner, state, custody, container, compromised, created_at, last_rotated_at, deleted_at, revision, search
				FROM keys, n WHERE tenant = $1`, tx.Tenant())
			if err != nil {
				return err
			}
			_, err = tx.Exec(`INSERT INTO key_numbers (tenant, number, key_id, by_whom)`+series+`tenant, i, 'x' || i, by_whom
				FROM key_numbers, n WHERE tenant = $1`, tx.Tenant())
			if err != nil {
				return err
			}
			_, err = tx.Exec(`UPDATE last_key_numbers SET number = 10000, room = 0 WHERE tenant = $1`, tx.Tenant())
			return err
		})
		if got := len(everyNumbered(t, s)); got != inventory.MaxNumbered {
			t.Fatalf("there are %d, want %d", got, inventory.MaxNumbered)
		}
		if _, err := number(s, storetest.Tenant, 2); trust.KindOf(err) != trust.Exhausted || !strings.Contains(err.Error(), "10000") {
			t.Errorf("one more: %v", err)
		}
		if _, err := number(s, storetest.Other, 2); err != nil {
			t.Errorf("one of another tenant: %v", err)
		}
		for n := 2; n <= 3; n++ {
			update(t, s, func(tx *store.Tx) error {
				_, err := inventory.DeleteKey(tx, trust.KeyID(fmt.Sprintf("x%d", n)), 1)
				return err
			})
		}
		for n := 2; n <= 3; n++ {
			if k, err := number(s, storetest.Tenant, n); err != nil || k.Number != int64(9999+n) {
				t.Errorf("one in the place of a deleted one: number %d, %v", k.Number, err)
			}
		}
		if _, err := number(s, storetest.Tenant, 4); trust.KindOf(err) != trust.Exhausted {
			t.Errorf("one more than were deleted: %v", err)
		}
	})
}

func everyNumbered(tb testing.TB, s *store.Store) (list []inventory.NumberedKey) {
	tb.Helper()
	view(tb, s, func(tx *store.Tx) (err error) {
		list, err = inventory.NumberedKeys(tx)
		return err
	})
	return list
}
