package store_test

import (
	"fmt"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
)

// A search reads events of some kinds, between two times, from either end, page by page.
func TestSearch(t *testing.T) {
	bothURLs(t, func(t *testing.T, url string) {
		start := time.Date(2026, 11, 22, 1, 2, 3, 456_789_000, time.UTC)
		clock := start
		s, err := store.Open(t.Context(), store.Options{URL: url, Schema: schemas, Personal: sealer, Now: func() time.Time { return clock }})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		actions := []string{"thing.a", "thing.b", "thing.c"}
		for i := range 30 {
			e := storetest.Event()
			e.Action, e.Subject = actions[i%3], fmt.Sprint("thing:", i)
			clock = start.Add(time.Duration(i) * time.Microsecond)
			if err := s.Update(t.Context(), e, func(*store.Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		// found returns the numbers of the events that pages of a size have.
		found := func(q store.EventSearch) (list []int) {
			t.Helper()
			for {
				var page []store.Record
				if err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
					page, err = store.Search(tx, q)
					return err
				}); err != nil {
					t.Fatal(err)
				}
				for _, r := range page {
					n := 0
					if _, err := fmt.Sscanf(r.Leaf.Subject, "thing:%d", &n); err != nil {
						t.Fatal(err)
					}
					list = append(list, n)
					q.After = r.ID
				}
				if len(page) < q.Limit {
					return list
				}
			}
		}
		at := func(i int) time.Time { return start.Add(time.Duration(i) * time.Microsecond) }
		for _, test := range []struct {
			search store.EventSearch
			want   string
		}{
			{store.EventSearch{Actions: []string{"thing.a"}}, "[0 3 6 9 12 15 18 21 24 27]"},
			{store.EventSearch{Actions: []string{"thing.a", "thing.c", "thing.none"}, Since: at(5), Until: at(12)}, "[5 6 8 9 11 12]"},
			{store.EventSearch{Actions: []string{"thing.b", "thing.a"}, Since: at(22), NewestFirst: true}, "[28 27 25 24 22]"},
			{store.EventSearch{Actions: []string{"thing.b"}, Until: at(7), NewestFirst: true}, "[7 4 1]"},
			{store.EventSearch{Actions: []string{"thing.b"}, Until: time.Unix(0, 0)}, "[]"},
			{store.EventSearch{Actions: []string{"thing.b"}, Since: at(99)}, "[]"},
		} {
			for _, size := range []int{1, 2, 100} {
				test.search.Limit = size
				if got := fmt.Sprint(found(test.search)); got != test.want {
					t.Errorf("%+v: %s, want %s", test.search, got, test.want)
				}
			}
		}
		if err := s.View(t.Context(), storetest.Other, func(tx *store.Tx) error {
			list, err := store.Search(tx, store.EventSearch{Actions: actions, Limit: 100})
			if len(list) > 0 {
				t.Errorf("another tenant has %d of them", len(list))
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
	})
}
