package store_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// sealer stands for the keyring: it keeps its work in a row of the same
// transaction, and seals by turning bytes round.
func sealer(tx *store.Tx, tenant trust.TenantID, person string, plain []byte) ([]byte, error) {
	if person == "user:locked" {
		return nil, trust.Errorf(trust.Unavailable, "no key for %q", person)
	}
	if _, err := tx.Exec(`INSERT INTO things (tenant, id) VALUES ($1, $2) ON CONFLICT DO NOTHING`, string(tenant), "key of "+person); err != nil {
		return nil, err
	}
	sealed := slices.Clone(plain)
	slices.Reverse(sealed)
	return sealed, nil
}

func TestEventsHoldWhatHappened(t *testing.T) {
	bothURLs(t, func(t *testing.T, url string) {
		clock := time.Date(2026, 11, 22, 1, 2, 3, 456_789_999, time.FixedZone("", 3600))
		s, err := store.Open(t.Context(), store.Options{
			URL: url, Schema: schemas, Personal: sealer, Now: func() time.Time { return clock },
		})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		e := storetest.Event()
		e.Actor = audit.Actor{Kind: "user", ID: "u1", Name: "alice", Source: "192.0.2.7"}
		e.Action, e.Subject = "key.rotate", "key:k1"
		e.Fields = make([]audit.Field, 0, 10) // with room, which belongs to the caller
		e.Fields = append(e.Fields, audit.Field{Name: "login", Value: "bob", Person: "user:u2"})
		var inside time.Time
		for range 2 {
			if err := s.Update(t.Context(), e, func(tx *store.Tx) error {
				inside = tx.Now()
				tx.Note("hosts", "3")
				return nil
			}); err != nil {
				t.Fatal(err)
			}
		}
		if len(e.Fields) != 1 || e.Fields[:2][1].Name != "" {
			t.Errorf("the caller's fields became %v", e.Fields[:2])
		}
		want := time.Date(2026, 11, 22, 0, 2, 3, 456_789_000, time.UTC)
		if inside != want {
			t.Errorf("Now is %v, want %v", inside, want)
		}
		list, err := s.Events(t.Context(), storetest.Tenant, "key:k1", "", 0)
		if err != nil || len(list) != 2 || list[0].ID >= list[1].ID {
			t.Fatalf("%d events, %v", len(list), err)
		}
		for _, r := range list {
			l := r.Leaf
			got := fmt.Sprintf("%s %s %s %s %s %s %d", l.At.Format(time.RFC3339Nano), l.ActorKind, l.ActorID, l.Action, l.Subject, l.Tenant, r.Index)
			if want := "2026-11-22T00:02:03.456789Z user u1 key.rotate key:k1 0123456789abcdef0123456789abcdef -1"; got != want {
				t.Errorf("got  %s\nwant %s", got, want)
			}
			if l.ID.String() != r.ID || len(l.Fields) != 2 || l.Fields[1].Name != "hosts" || l.Fields[1].Value != "3" {
				t.Errorf("leaf %+v of event %s", l, r.ID)
			}
			shown := map[string]string{}
			for _, sealed := range r.Personal {
				plain := slices.Clone(sealed.Bytes)
				slices.Reverse(plain)
				o, err := audit.DecodeOpenings(sealed.Person, plain)
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range o.Values {
					if err := l.Verify(v); err != nil {
						t.Error(err)
					}
					shown[v.Value] = o.Person
				}
			}
			if got := fmt.Sprint(shown); got != "map[192.0.2.7:user:u1 alice:user:u1 bob:user:u2]" {
				t.Errorf("shown %s", got)
			}
			for _, secret := range []string{"alice", "192.0.2.7", "bob"} {
				if strings.Contains(string(r.Bytes), secret) {
					t.Errorf("the leaf holds %q", secret)
				}
			}
		}
		// What cannot be sealed is not written, and neither is the change.
		e.Actor.ID = "locked"
		wantKind(t, s.Update(t.Context(), e, add("change", 1)), trust.Unavailable)
		if got := thingsOf(t, s, storetest.Tenant); got != "key of user:u1=0 key of user:u2=0" {
			t.Errorf("things %q", got)
		}
	})
}

func TestPersonalValuesAreDroppedWhereNothingSeals(t *testing.T) {
	s := storetest.Open(t, schemas...)
	e := storetest.Event()
	e.Actor.Name = "alice"
	if err := s.Update(t.Context(), e, func(*store.Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	r := eventsOf(t, s, storetest.Tenant)[0]
	if r.Leaf.Name == nil || len(r.Personal) != 0 {
		t.Errorf("commitment %v, sealed %v", r.Leaf.Name, r.Personal)
	}
}

func TestEventsInPages(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for i := range 25 {
			e := storetest.Event()
			e.Subject = fmt.Sprintf("run:%d", i%2)
			e.Fields = []audit.Field{{Name: "n", Value: fmt.Sprint(i)}}
			if err := s.Update(t.Context(), e, func(*store.Tx) error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		other := storetest.Event()
		other.Tenant = storetest.Other
		if err := s.Update(t.Context(), other, func(*store.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		for subject, want := range map[string]string{
			"":      "0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24",
			"run:1": "1 3 5 7 9 11 13 15 17 19 21 23",
			"run:9": "",
		} {
			var got []string
			for after := ""; ; {
				page, err := s.Events(t.Context(), storetest.Tenant, subject, after, 4)
				if err != nil || len(page) > 4 {
					t.Fatalf("%d events, %v", len(page), err)
				}
				if len(page) == 0 {
					break
				}
				for _, r := range page {
					got = append(got, r.Leaf.Fields[0].Value)
				}
				after = page[len(page)-1].ID
			}
			if s := strings.Join(got, " "); s != want {
				t.Errorf("subject %q: got %s, want %s", subject, s, want)
			}
		}
		gone, leave := context.WithCancel(t.Context())
		leave()
		if _, err := s.Events(gone, storetest.Tenant, "", "", 0); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

// Ids ascend also within a microsecond and when the clock steps back, and hold
// the time.
func TestIDsAscend(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 999_000, time.UTC)
	s, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + t.TempDir() + "/db", Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	last := ""
	for i := range 30 {
		if i == 20 {
			now = now.Add(-time.Hour)
		}
		if err := s.Update(t.Context(), storetest.Event(), func(*store.Tx) error { return nil }); err != nil {
			t.Fatal(err)
		}
		list := eventsOf(t, s, storetest.Tenant)
		id := list[len(list)-1].Leaf.ID
		if id.String() <= last {
			t.Errorf("id %s after %s", id, last)
		}
		last = id.String()
		if sec, _ := id.Time().UnixTime(); id.Version() != 7 || sec != 1767225600 {
			t.Errorf("id %s of version %d and second %d", id, id.Version(), sec)
		}
	}
}
