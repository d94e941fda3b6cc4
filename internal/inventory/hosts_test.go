package inventory_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func TestHost(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		var added inventory.Host
		update(t, s, func(tx *store.Tx) error {
			var err error
			added, err = inventory.AddHost(tx, inventory.Host{ID: inventory.NewHostID(), Name: "Web1", Address: "WEB1.example.com", User: "admin"})
			return err
		})
		if added.Name != "web1" || added.Address != "web1.example.com:22" || added.Mode != inventory.Inventory ||
			added.State != inventory.Enrolling || added.Become != inventory.BecomeNone || added.CreatedAt.IsZero() {
			t.Errorf("a new host is %+v", added)
		}
		for _, name := range []string{"web1", "WEB1", string(added.ID), strings.ToUpper(string(added.ID))} {
			view(t, s, func(tx *store.Tx) error {
				h, err := inventory.FindHost(tx, name)
				if h.ID != added.ID {
					t.Errorf("FindHost(%q) = %q", name, h.ID)
				}
				return err
			})
		}
		err := refused(t, s, trust.NotFound, func(tx *store.Tx) error {
			_, err := inventory.FindHost(tx, "web9")
			return err
		})
		if !strings.Contains(err.Error(), `"web9"`) {
			t.Errorf("error %q does not name the host", err)
		}

		h := added
		h.Mode, h.Name = inventory.Enforced, "front"
		update(t, s, func(tx *store.Tx) error {
			now, err := inventory.UpdateHost(tx, h)
			if now.Revision <= h.Revision || now.Name != "front" || now.Mode != inventory.Enforced {
				t.Errorf("a changed host is %+v", now)
			}
			return err
		})
		refused(t, s, trust.Conflict, func(tx *store.Tx) error { // by the revision before
			_, err := inventory.UpdateHost(tx, h)
			return err
		})
		h = host(t, s, h.ID)
		h.State = inventory.Ready
		refused(t, s, trust.Conflict, func(tx *store.Tx) error { // without a pin
			_, err := inventory.UpdateHost(tx, h)
			return err
		})
		for _, change := range []func(*inventory.Host){
			func(h *inventory.Host) { h.Become = "su" },
			func(h *inventory.Host) { h.Mode = "managed" },
			func(h *inventory.Host) { h.State = "gone" },
			func(h *inventory.Host) { h.User = "-l" },
			func(h *inventory.Host) { h.Name = "a b" },
			func(h *inventory.Host) { h.Address = "web1:0" },
		} {
			bad := host(t, s, h.ID)
			change(&bad)
			refused(t, s, trust.Invalid, func(tx *store.Tx) error {
				_, err := inventory.UpdateHost(tx, bad)
				return err
			})
		}
	})
}

func TestHostIsRefusedWhereAnotherHasWhatItNeeds(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		first := addHost(t, s, "web1", 1)
		second := addHost(t, s, "web2", 2)
		for _, twin := range []inventory.Host{
			{Name: "WEB1", Address: "elsewhere:22", User: "root"},
			{Name: "web3", Address: "Web1.:22", User: "root"},
			{Name: "web3", Address: "elsewhere:22", User: "root", Pins: []inventory.Pin{{Key: publicKey(1), Origin: inventory.FirstUse}}},
		} {
			err := refused(t, s, trust.Conflict, func(tx *store.Tx) error {
				twin.ID = inventory.NewHostID()
				_, err := inventory.AddHost(tx, twin)
				return err
			})
			if !strings.Contains(err.Error(), `"web1"`) {
				t.Errorf("error %q does not name the host that has it", err)
			}
		}
		for _, change := range []func(*inventory.Host){
			func(h *inventory.Host) { h.Name = first.Name },
			func(h *inventory.Host) { h.Address = first.Address },
		} {
			h := second
			change(&h)
			refused(t, s, trust.Conflict, func(tx *store.Tx) error {
				_, err := inventory.UpdateHost(tx, h)
				return err
			})
		}
		refused(t, s, trust.Conflict, func(tx *store.Tx) error {
			return inventory.AddPin(tx, second.ID, publicKey(1), inventory.Proven)
		})
		// Another port of the same machine is another host.
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.AddHost(tx, inventory.Host{ID: inventory.NewHostID(), Name: "web1b", Address: "web1:2222", User: "root"})
			return err
		})
		// Another tenant's hosts are none of our business.
		ev := storetest.Event()
		ev.Tenant = storetest.Other
		err := s.Update(context.Background(), ev, func(tx *store.Tx) error {
			h := first
			h.ID = inventory.NewHostID()
			if _, err := inventory.HostByID(tx, first.ID); trust.KindOf(err) != trust.NotFound {
				t.Errorf("the other tenant sees %v", err)
			}
			_, err := inventory.AddHost(tx, h)
			return err
		})
		if err != nil {
			t.Errorf("the other tenant: %v", err)
		}
		// What a removed host had is free again.
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.RemoveHost(tx, first.ID, host(t, s, first.ID).Revision)
			return err
		})
		addHost(t, s, "web1", 1)
	})
}

func TestPins(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1)
		update(t, s, func(tx *store.Tx) error { return inventory.AddPin(tx, h.ID, publicKey(2), inventory.FirstUse) })
		h = host(t, s, h.ID)
		if !h.Unconfirmed() || !slices.Equal(h.PinnedKeys(), []trust.PublicKey{publicKey(1), publicKey(2)}) {
			t.Fatalf("pins are %+v", h.Pins)
		}
		// Meeting it again at first use is no confirmation; naming it is.
		update(t, s, func(tx *store.Tx) error { return inventory.AddPin(tx, h.ID, publicKey(2), inventory.FirstUse) })
		if !host(t, s, h.ID).Unconfirmed() {
			t.Error("a key accepted on first use twice counts as confirmed")
		}
		update(t, s, func(tx *store.Tx) error {
			n, err := inventory.ConfirmPins(tx, h.ID)
			if n != 1 {
				t.Errorf("confirmed %d pins, want 1", n)
			}
			return err
		})
		now := host(t, s, h.ID)
		if now.Unconfirmed() || now.Revision <= h.Revision {
			t.Errorf("after the confirmation the host is %+v", now)
		}
		// The host keys are keys of the inventory.
		view(t, s, func(tx *store.Tx) error {
			k, err := inventory.FindKey(tx, string(publicKey(2).Fingerprint()))
			if k.Kind != inventory.HostKey || k.Comment != "web1" {
				t.Errorf("the pinned key is %+v", k)
			}
			return err
		})
		update(t, s, func(tx *store.Tx) error { return inventory.RemovePin(tx, h.ID, publicKey(1)) })
		refused(t, s, trust.Conflict, func(tx *store.Tx) error { return inventory.RemovePin(tx, h.ID, publicKey(2)) })
		refused(t, s, trust.NotFound, func(tx *store.Tx) error { return inventory.RemovePin(tx, h.ID, publicKey(1)) })
		pinned := inventory.KeyIDOf(storetest.Tenant, inventory.HostKey, publicKey(2))
		refused(t, s, trust.Conflict, func(tx *store.Tx) error {
			_, err := inventory.DeleteKey(tx, pinned, key(t, s, pinned).Revision)
			return err
		})
	})
}

func TestCredentials(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1)
		other := addHost(t, s, "web2", 2)
		var ids []trust.KeyID
		for n := 10; n < 14; n++ {
			ids = append(ids, addKey(t, s, n))
		}
		add := func(id trust.KeyID, at int) {
			t.Helper()
			update(t, s, func(tx *store.Tx) error { return inventory.AddCredential(tx, h.ID, id, at) })
		}
		want := func(order ...int) {
			t.Helper()
			var got []int
			for _, c := range host(t, s, h.ID).Credentials {
				got = append(got, slices.Index(ids, c.Key))
			}
			if !slices.Equal(got, order) {
				t.Errorf("credentials are in order %v, want %v", got, order)
			}
		}
		add(ids[0], -1)
		add(ids[1], -1)
		add(ids[2], 0)
		add(ids[3], 99)
		want(2, 0, 1, 3)
		add(ids[3], 1) // moves
		want(2, 3, 0, 1)
		at := time.UnixMicro(1_700_000_000_000_000).UTC()
		worked := func(at time.Time) {
			t.Helper()
			update(t, s, func(tx *store.Tx) error { return inventory.CredentialWorked(tx, h.ID, ids[3], at) })
		}
		revision := host(t, s, h.ID).Revision
		worked(at)
		worked(at.Add(30 * time.Second))
		if c := host(t, s, h.ID).Credentials[1]; !c.WorkedAt.Equal(at) {
			t.Errorf("it worked at %v, want %v", c.WorkedAt, at)
		}
		worked(at.Add(2 * time.Minute))
		worked(at)
		if c := host(t, s, h.ID).Credentials[1]; !c.WorkedAt.Equal(at.Add(2 * time.Minute)) {
			t.Errorf("it worked at %v, want two minutes later than %v", c.WorkedAt, at)
		}
		if host(t, s, h.ID).Revision != revision {
			t.Error("a login is a change of the host")
		}
		add(ids[3], 0)
		if c := host(t, s, h.ID).Credentials[0]; c.WorkedAt.IsZero() {
			t.Error("a credential that moved has forgotten when it worked")
		}
		update(t, s, func(tx *store.Tx) error { return inventory.CredentialFailed(tx, h.ID, ids[3]) })
		if c := host(t, s, h.ID).Credentials[0]; !c.WorkedAt.IsZero() {
			t.Errorf("a credential that failed worked at %v", c.WorkedAt)
		}

		update(t, s, func(tx *store.Tx) error { return inventory.AddCredential(tx, other.ID, ids[1], 0) })
		view(t, s, func(tx *store.Tx) error {
			hosts, total, err := inventory.CredentialHosts(tx, ids[1], 1)
			if total != 2 || len(hosts) != 1 || hosts[0].Name != "web1" {
				t.Errorf("key opens %v of %d", hosts, total)
			}
			return err
		})
		err := refused(t, s, trust.Conflict, func(tx *store.Tx) error {
			_, err := inventory.DeleteKey(tx, ids[1], key(t, s, ids[1]).Revision)
			return err
		})
		if !strings.Contains(err.Error(), `"web1"`) {
			t.Errorf("error %q does not say what the key opens", err)
		}
		remove := func(tx *store.Tx) error { return inventory.RemoveCredential(tx, other.ID, ids[1]) }
		err = refused(t, s, trust.Conflict, remove)
		if !strings.Contains(err.Error(), `"web2"`) {
			t.Errorf("error %q does not name the host", err)
		}
		update(t, s, func(tx *store.Tx) error { return inventory.AddCredential(tx, other.ID, ids[0], 0) })
		update(t, s, remove)
		refused(t, s, trust.NotFound, remove)
		refused(t, s, trust.NotFound, func(tx *store.Tx) error { return inventory.AddCredential(tx, h.ID, userKeyID(99), 0) })
		pin := inventory.KeyIDOf(storetest.Tenant, inventory.HostKey, publicKey(1))
		refused(t, s, trust.Conflict, func(tx *store.Tx) error { return inventory.AddCredential(tx, h.ID, pin, 0) })
	})
}

func TestHostsListing(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		const n = 37
		for i := range n {
			h := addHost(t, s, fmt.Sprintf("web%02d.%s.example.com", i, []string{"eu", "us_west"}[i%2]), 100+i)
			update(t, s, func(tx *store.Tx) error {
				_, err := inventory.RecordScan(tx, inventory.Scan{Host: h.ID, Outcome: inventory.Scanned, Facts: inventory.Facts{Machine: fmt.Sprint("m", i/4)}})
				return err
			})
		}
		for _, sort := range []string{"", "name", "address", "created", "scanned"} {
			for _, desc := range []bool{false, true} {
				var seen []string
				p := inventory.Page{Limit: 10, Sort: sort, Desc: desc}
				for pages := 1; ; pages++ {
					var next string
					view(t, s, func(tx *store.Tx) error {
						hosts, after, err := inventory.Hosts(tx, inventory.HostFilter{}, p)
						for _, h := range hosts {
							seen = append(seen, h.Name)
							if len(h.Pins) != 1 {
								t.Errorf("host %s is listed with %d pins", h.Name, len(h.Pins))
							}
						}
						next = after
						return err
					})
					if next == "" {
						if pages != 4 {
							t.Errorf("sort %q: %d pages, want 4", sort, pages)
						}
						break
					}
					p.After = next
				}
				if len(seen) != n || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != n {
					t.Errorf("sort %q desc %v: lists %d hosts, some twice or never", sort, desc, len(seen))
				}
				sorted := slices.IsSorted(seen)
				slices.Reverse(seen)
				if desc != slices.IsSorted(seen) || desc == sorted {
					t.Errorf("sort %q desc %v: in another order", sort, desc)
				}
			}
		}
		for _, test := range []struct {
			filter inventory.HostFilter
			want   int
		}{
			{inventory.HostFilter{Text: "EU.example"}, 19},
			{inventory.HostFilter{Text: "us_west"}, 18},
			{inventory.HostFilter{Text: "us%"}, 0},
			{inventory.HostFilter{Text: "_"}, 18},
			{inventory.HostFilter{Machine: "m3"}, 4},
			{inventory.HostFilter{States: []inventory.HostState{inventory.Ready}, Modes: []inventory.Mode{inventory.Inventory}}, n},
			{inventory.HostFilter{Modes: []inventory.Mode{inventory.Enforced}}, 0},
			{inventory.HostFilter{Outcomes: []inventory.Outcome{inventory.Scanned, inventory.Partial}}, n},
			{inventory.HostFilter{Outcomes: []inventory.Outcome{inventory.Unscanned}}, 0},
		} {
			view(t, s, func(tx *store.Tx) error {
				got, err := inventory.CountHosts(tx, test.filter)
				if got != test.want {
					t.Errorf("%+v lets %d hosts through, want %d", test.filter, got, test.want)
				}
				return err
			})
		}
		var refs []inventory.HostRef
		view(t, s, func(tx *store.Tx) error {
			for after := trust.HostID(""); ; after = refs[len(refs)-1].ID {
				some, err := inventory.HostRefs(tx, inventory.HostFilter{}, after, 10)
				if err != nil || len(some) == 0 {
					return err
				}
				refs = append(refs, some...)
			}
		})
		if len(refs) != n {
			t.Errorf("HostRefs went over %d hosts", len(refs))
		}
		view(t, s, func(tx *store.Tx) error {
			c, err := inventory.SummarizeHosts(tx)
			if c.Total != n || c.ByMode[inventory.Inventory] != n || c.ByOutcome[inventory.Scanned] != n {
				t.Errorf("summary is %+v", c)
			}
			return err
		})
	})
}

func TestPageIsRefused(t *testing.T) {
	s := storetest.Open(t, inventory.Schema)
	addHost(t, s, "web1", 1)
	addHost(t, s, "web2", 2)
	var next string
	view(t, s, func(tx *store.Tx) error {
		var err error
		_, next, err = inventory.Hosts(tx, inventory.HostFilter{}, inventory.Page{Limit: 1})
		return err
	})
	for _, p := range []inventory.Page{
		{Limit: -1},
		{Limit: inventory.MaxPage + 1},
		{Offset: -1},
		{Offset: 1, After: next},
		{Sort: "mode; DROP TABLE hosts"},
		{After: "nonsense"},
		{After: next, Desc: true},
		{After: next, Sort: "created"},
		{After: next[:len(next)-4]},
	} {
		err := s.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
			_, _, err := inventory.Hosts(tx, inventory.HostFilter{}, p)
			return err
		})
		if trust.KindOf(err) != trust.Invalid {
			t.Errorf("page %+v: %v", p, err)
		}
	}
}

// TestPagesStand lists while hosts come and go: what was there all the time is
// listed exactly once.
func TestPagesStand(t *testing.T) {
	s := storetest.Open(t, inventory.Schema)
	names := rand.New(rand.NewPCG(1, 2)).Perm(60)
	for i, n := range names[:30] {
		addHost(t, s, fmt.Sprintf("web%03d", n), i)
	}
	kept := slices.Clone(names[10:30])
	seen := make(map[string]int)
	p := inventory.Page{Limit: 7}
	for step := 0; ; step++ {
		var next string
		view(t, s, func(tx *store.Tx) error {
			hosts, after, err := inventory.Hosts(tx, inventory.HostFilter{}, p)
			for _, h := range hosts {
				seen[h.Name]++
			}
			next = after
			return err
		})
		if next == "" {
			break
		}
		p.After = next
		addHost(t, s, fmt.Sprintf("web%03d", names[30+step]), 100+step)
		update(t, s, func(tx *store.Tx) error {
			h, err := inventory.FindHost(tx, fmt.Sprintf("web%03d", names[step]))
			if err != nil {
				return err
			}
			_, err = inventory.RemoveHost(tx, h.ID, h.Revision)
			return err
		})
	}
	for name, n := range seen {
		if n > 1 {
			t.Errorf("%s is listed %d times", name, n)
		}
	}
	for _, n := range kept {
		if seen[fmt.Sprintf("web%03d", n)] != 1 {
			t.Errorf("web%03d is not listed", n)
		}
	}
}
