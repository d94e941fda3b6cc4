package inventory_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
)

// benchHosts is the size of the fleet; each host has 10 authorized keys, of
// which one is on all hosts and nine are its own, and one identity file.
const benchHosts = 10_000

func fleet(b *testing.B) *store.Store {
	b.Helper()
	var s *store.Store
	if os.Getenv("BENCH_ENGINE") == "postgres" {
		s = storetest.OpenURL(b, storetest.Postgres(b), inventory.Schema)
	} else {
		s = storetest.Open(b, inventory.Schema)
	}
	const batch = 50
	for i := 0; i < benchHosts; i += batch {
		update(b, s, func(tx *store.Tx) error {
			for n := i; n < i+batch; n++ {
				h, err := inventory.AddHost(tx, inventory.Host{
					ID: inventory.NewHostID(), Name: fmt.Sprintf("web%05d.example.com", n), Address: fmt.Sprintf("web%05d.example.com:22", n), User: "root",
					State: inventory.Ready, Pins: []inventory.Pin{{Key: publicKey(1_000_000 + n), Origin: inventory.Given}},
				})
				if err != nil {
					return err
				}
				keys := []int{999_999}
				for k := range 9 {
					keys = append(keys, n*9+k)
				}
				_, err = inventory.RecordScan(tx, inventory.Scan{
					Host: h.ID, Outcome: inventory.Scanned, Complete: true,
					Files: []inventory.FoundFile{authorizedFile(h.ID, "root", keys...), identityFile(h.ID, "root", "id_ed25519", n*9)},
				})
				if err != nil {
					return err
				}
			}
			return nil
		})
	}
	return s
}

func BenchmarkFleet(b *testing.B) {
	s := fleet(b)
	run := func(name string, fn func(tx *store.Tx) error) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if err := s.View(context.Background(), storetest.Tenant, fn); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	user := []inventory.KeyKind{inventory.UserKey}
	run("first page of keys", func(tx *store.Tx) error {
		_, _, err := inventory.Relationships(tx, inventory.KeyFilter{Kinds: user}, inventory.Page{})
		return err
	})
	run("all 90001 keys by pages", func(tx *store.Tx) error {
		p, n := inventory.Page{Limit: inventory.MaxPage}, 0
		for {
			related, next, err := inventory.Relationships(tx, inventory.KeyFilter{Kinds: user}, p)
			for _, r := range related {
				n += len(r.Authorized)
			}
			if err != nil {
				return err
			}
			if next == "" {
				break
			}
			p.After = next
		}
		if n != benchHosts*10 {
			return fmt.Errorf("listed %d places", n)
		}
		return nil
	})
	run("page at offset 80000", func(tx *store.Tx) error {
		_, _, err := inventory.Relationships(tx, inventory.KeyFilter{Kinds: user}, inventory.Page{Offset: 80_000})
		return err
	})
	run("text in comments", func(tx *store.Tx) error {
		keys, _, err := inventory.Keys(tx, inventory.KeyFilter{Text: "key-77777"}, inventory.Page{})
		if err == nil && len(keys) != 1 {
			err = fmt.Errorf("found %d keys", len(keys))
		}
		return err
	})
	run("text in host names", func(tx *store.Tx) error {
		keys, _, err := inventory.Keys(tx, inventory.KeyFilter{Kinds: user, Text: "web07777"}, inventory.Page{})
		if err == nil && len(keys) != 10 {
			err = fmt.Errorf("found %d keys", len(keys))
		}
		return err
	})
	run("fingerprint", func(tx *store.Tx) error {
		_, err := inventory.FindKey(tx, string(publicKey(77777).Fingerprint()))
		return err
	})
	run("count keys", func(tx *store.Tx) error {
		_, err := inventory.CountKeys(tx, inventory.KeyFilter{Kinds: user})
		return err
	})
	run("who accepts the key of all hosts", func(tx *store.Tx) error {
		var after *inventory.AuthorizedPlace
		for n := 0; ; {
			places, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: userKeyID(999_999)}, after, inventory.MaxPage)
			if err != nil {
				return err
			}
			if n += len(places); len(places) == 0 {
				if n != benchHosts {
					return fmt.Errorf("%d places", n)
				}
				return nil
			}
			after = &places[len(places)-1]
		}
	})
	run("who accepts the key of one host", func(tx *store.Tx) error {
		_, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: userKeyID(77777)}, nil, inventory.MaxPage)
		return err
	})
	run("first page of hosts", func(tx *store.Tx) error {
		_, _, err := inventory.Hosts(tx, inventory.HostFilter{}, inventory.Page{})
		return err
	})
	run("all hosts by pages", func(tx *store.Tx) error {
		p := inventory.Page{Limit: inventory.MaxPage}
		for {
			_, next, err := inventory.Hosts(tx, inventory.HostFilter{}, p)
			if err != nil || next == "" {
				return err
			}
			p.After = next
		}
	})
	b.Run("rescan of one unchanged host", func(b *testing.B) {
		var h inventory.Host
		view(b, s, func(tx *store.Tx) (err error) {
			h, err = inventory.FindHost(tx, "web00042.example.com")
			return err
		})
		keys := []int{999_999}
		for k := range 9 {
			keys = append(keys, 42*9+k)
		}
		scan := inventory.Scan{
			Host: h.ID, Outcome: inventory.Scanned, Complete: true,
			Files: []inventory.FoundFile{authorizedFile(h.ID, "root", keys...), identityFile(h.ID, "root", "id_ed25519", 42*9)},
		}
		for b.Loop() {
			record(b, s, scan)
		}
	})
}
