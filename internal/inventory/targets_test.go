package inventory_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

const otherNetwork = "c77b744e-acc8-428f-9257-6878c046ed55"

// newTarget returns a target to be added, at an IPv4 address.
func newTarget(hostname, ip string) inventory.Target {
	return inventory.Target{ID: inventory.NewTargetID(), Hostname: hostname, IPv4: &inventory.TargetAddress{IP: ip}}
}

func addTarget(tb testing.TB, s *store.Store, t inventory.Target) (made inventory.Target) {
	tb.Helper()
	update(tb, s, func(tx *store.Tx) (err error) {
		made, err = inventory.AddTarget(tx, t)
		return err
	})
	return made
}

func refuseTarget(tb testing.TB, s *store.Store, kind trust.Kind, t inventory.Target) {
	tb.Helper()
	refused(tb, s, kind, func(tx *store.Tx) error {
		_, err := inventory.AddTarget(tx, t)
		return err
	})
}

func removeTarget(id trust.HostID) func(*store.Tx) error {
	return func(tx *store.Tx) error { return inventory.RemoveTarget(tx, id) }
}

// addHostAt adds a host as people do.
func addHostAt(tb testing.TB, s *store.Store, name, address string) (h inventory.Host) {
	tb.Helper()
	update(tb, s, func(tx *store.Tx) (err error) {
		h, err = inventory.AddHost(tx, inventory.Host{ID: inventory.NewHostID(), Name: name, Address: address, User: "root"})
		return err
	})
	return h
}

// A target and the host at its address are one, whichever came first.
func TestTargetsAreHosts(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		// The target first: a host that nobody has taken in yet. Its name is the target's as
		// far as that is free, and its id stays when it is taken in.
		first := addTarget(t, s, newTarget("Web-1.example.com", "10.0.0.5"))
		h := host(t, s, first.ID)
		if h.State != inventory.Unenrolled || h.Name != "web-1.example.com" || h.Address != "10.0.0.5:22" || h.User != "" {
			t.Errorf("the host of a new target is %+v", h)
		}
		if first.Hostname != "Web-1.example.com" || first.IPv4.Network != inventory.DefaultNetwork(storetest.Tenant) {
			t.Errorf("a new target is %+v", first)
		}
		second := addTarget(t, s, newTarget("web-1.EXAMPLE.com", "10.0.0.6"))
		if name := host(t, s, second.ID).Name; name != "target-"+string(second.ID) {
			t.Errorf("the host of another target of that name is called %q", name)
		}
		view(t, s, func(tx *store.Tx) error {
			if id, err := inventory.UnenrolledAt(tx, "10.0.0.5"); err != nil || id != first.ID {
				t.Errorf("who is to be taken in at that address is %q, %v", id, err)
			}
			return nil
		})
		update(t, s, func(tx *store.Tx) error {
			now, err := inventory.AddHost(tx, inventory.Host{ID: first.ID, Name: "web1", Address: "10.0.0.5:22", User: "root"})
			if now.ID != first.ID || now.Name != "web1" || now.State != inventory.Enrolling || now.User != "root" || now.Revision == h.Revision {
				t.Errorf("taken in it is %+v", now)
			}
			return err
		})
		refused(t, s, trust.Conflict, func(tx *store.Tx) error { // once
			_, err := inventory.AddHost(tx, inventory.Host{ID: inventory.NewHostID(), Name: "web2", Address: "10.0.0.5:22", User: "root"})
			return err
		})
		if got := targets(t, s, inventory.TargetFilter{IDs: []trust.HostID{first.ID}}); len(got) != 1 || got[0].Hostname != "Web-1.example.com" {
			t.Errorf("its target is %+v", got)
		}

		// A target has no port: whatever port its sshd listens at, the first host there is it.
		update(t, s, func(tx *store.Tx) error {
			id, err := inventory.UnenrolledAt(tx, "10.0.0.6:2222")
			if err != nil || id != second.ID {
				t.Fatalf("who is to be taken in at another port is %q, %v", id, err)
			}
			now, err := inventory.AddHost(tx, inventory.Host{ID: id, Name: "web6", Address: "10.0.0.6:2222", User: "root"})
			if now.ID != second.ID || now.Address != "10.0.0.6:2222" || now.State != inventory.Enrolling {
				t.Errorf("taken in at another port it is %+v", now)
			}
			if id, err := inventory.UnenrolledAt(tx, "10.0.0.6:2223"); err != nil || id != "" {
				t.Errorf("once more it is %q, %v", id, err)
			}
			return err
		})

		// The host first. It is a target as soon as it has an IP address, and one that is
		// written is that one.
		byName := addHostAt(t, s, "db", "db.example.com:22")
		byIP := addHostAt(t, s, "db6", "[fd00::1]:2222")
		if got := targets(t, s, inventory.TargetFilter{IDs: []trust.HostID{byName.ID, byIP.ID}}); len(got) != 1 || got[0].ID != byIP.ID || got[0].IPv6.IP != "fd00::1" || got[0].Written {
			t.Errorf("hosts that were added are %+v", got)
		}
		six := inventory.Target{ID: inventory.NewTargetID(), Hostname: "db-6", IPv6: &inventory.TargetAddress{IP: "FD00:0::1"}, Tags: map[string]string{"env": "lab"}}
		written := addTarget(t, s, six)
		if written.ID != byIP.ID || written.Hostname != "db-6" || written.IPv6.IP != "FD00:0::1" || !written.Written {
			t.Errorf("a target at its address is %+v", written)
		}
		six.ID = inventory.NewTargetID()
		refuseTarget(t, s, trust.Conflict, six) // once

		// Another server on that machine is a host of its own, and no target.
		other := addHostAt(t, s, "db6b", "[fd00::1]:2223")
		if got := targets(t, s, inventory.TargetFilter{}); len(got) != 3 {
			t.Errorf("targets are %+v", got)
		}
		// What is no target any more is the host that it was, and is found again: on port 22,
		// or where it is the only one.
		update(t, s, removeTarget(byIP.ID))
		refused(t, s, trust.NotFound, removeTarget(byIP.ID))
		if host(t, s, byIP.ID).Name != "db6" {
			t.Error("the host has gone with its target")
		}
		six.ID = inventory.NewTargetID()
		if made := addTarget(t, s, six); made.ID == byIP.ID || made.ID == other.ID || host(t, s, made.ID).Address != "[fd00::1]:22" {
			t.Errorf("of two servers, none on port 22, a target is %+v", made)
		} else {
			update(t, s, removeTarget(made.ID))
			refused(t, s, trust.NotFound, func(tx *store.Tx) error { // nobody took it in
				_, err := inventory.HostByID(tx, made.ID)
				return err
			})
		}
		on22 := addHostAt(t, s, "db6c", "[fd00::1]:22")
		update(t, s, removeTarget(on22.ID))
		six.ID = inventory.NewTargetID()
		if made := addTarget(t, s, six); made.ID != on22.ID {
			t.Errorf("of three servers it is %+v, want that on port 22", made)
		}
		// Two addresses of two hosts are no one target.
		both := newTarget("both", "10.0.0.5")
		both.IPv6 = &inventory.TargetAddress{IP: "fd00::1"}
		refuseTarget(t, s, trust.Conflict, both)

		// A host takes its target along.
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.RemoveHost(tx, on22.ID, host(t, s, on22.ID).Revision)
			return err
		})
		if got := targets(t, s, inventory.TargetFilter{IDs: []trust.HostID{on22.ID}}); len(got) != 0 {
			t.Errorf("without its host there is %+v", got)
		}
	})
}

// targets lists targets, by hostname.
func targets(tb testing.TB, s *store.Store, f inventory.TargetFilter) (list []inventory.Target) {
	tb.Helper()
	view(tb, s, func(tx *store.Tx) (err error) {
		list, _, err = inventory.Targets(tx, f, inventory.Page{Limit: 100, Sort: "hostname"})
		return err
	})
	return list
}

// What is written over a target takes the place of what it was, but for what is not said:
// its networks and its tags.
func TestUpdateTarget(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		first := newTarget("web", "10.0.0.5")
		first.IPv4.Network, first.Tags = strings.ToUpper(otherNetwork), map[string]string{"env": "prod"}
		first = addTarget(t, s, first)
		if a := host(t, s, first.ID).Address; !strings.HasSuffix(a, ".target.invalid:22") || first.IPv4.Network != otherNetwork {
			t.Errorf("a target in another network is at %s: %+v", a, first)
		}
		addTarget(t, s, newTarget("web", "10.0.0.5")) // the same address, in the default network
		change := func(to inventory.Target) (now inventory.Target) {
			update(t, s, func(tx *store.Tx) (err error) {
				now, err = inventory.UpdateTarget(tx, to)
				return err
			})
			return now
		}
		now := change(inventory.Target{ID: first.ID, Hostname: "web-2", IPv4: &inventory.TargetAddress{IP: "10.0.0.7"}})
		if now.Hostname != "web-2" || now.IPv4.IP != "10.0.0.7" || now.IPv4.Network != otherNetwork || now.Tags["env"] != "prod" || !now.CreatedAt.Equal(first.CreatedAt) {
			t.Errorf("changed it is %+v", now)
		}
		now = change(inventory.Target{ID: first.ID, Hostname: "web-2", IPv6: &inventory.TargetAddress{IP: "fd00::7"}, Tags: map[string]string{}})
		if got := targets(t, s, inventory.TargetFilter{Hostname: "WEB-2"}); len(got) != 1 || got[0].IPv4 != nil || got[0].IPv6.Network != inventory.DefaultNetwork(storetest.Tenant) || got[0].Tags != nil {
			t.Errorf("changed again it is %+v", got)
		}
		if a := host(t, s, first.ID).Address; a != "[fd00::7]:22" {
			t.Errorf("its host is at %s", a)
		}
		refuse := func(kind trust.Kind, to inventory.Target) {
			refused(t, s, kind, func(tx *store.Tx) error {
				_, err := inventory.UpdateTarget(tx, to)
				return err
			})
		}
		taken := newTarget("web", "10.0.0.5")
		taken.ID = first.ID
		refuse(trust.Conflict, taken)
		refuse(trust.NotFound, newTarget("web", "10.0.0.9"))
		refuse(trust.NotFound, inventory.Target{ID: "nonsense", Hostname: "web", IPv4: taken.IPv4})
		refuse(trust.Invalid, inventory.Target{ID: first.ID, Hostname: "web"})

		// A host that Keyturn logs in to is not moved by who may write targets.
		taken = newTarget("ready", "10.0.1.1")
		taken.ID = addHostAt(t, s, "ready", "10.0.1.1:22").ID
		change(taken)
		taken.IPv4.IP = "10.0.1.2"
		refuse(trust.Conflict, taken)
	})
}

func TestBadTargets(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for name, change := range map[string]func(*inventory.Target){
			"no hostname":         func(t *inventory.Target) { t.Hostname = "" },
			"a long hostname":     func(t *inventory.Target) { t.Hostname = strings.Repeat("a", 256) },
			"a hyphen":            func(t *inventory.Target) { t.Hostname = "web-" },
			"an underscore":       func(t *inventory.Target) { t.Hostname = "web_1" },
			"a final line break":  func(t *inventory.Target) { t.Hostname = "web\n" },
			"no address":          func(t *inventory.Target) { t.IPv4 = nil },
			"a name for address":  func(t *inventory.Target) { t.IPv4.IP = "localhost" },
			"IPv6 for IPv4":       func(t *inventory.Target) { t.IPv4.IP = "fd00::1" },
			"IPv4 for IPv6":       func(t *inventory.Target) { t.IPv6 = &inventory.TargetAddress{IP: "10.0.0.5"} },
			"a zone":              func(t *inventory.Target) { t.IPv6 = &inventory.TargetAddress{IP: "fe80::1%eth0"} },
			"IPv4 in IPv6":        func(t *inventory.Target) { t.IPv6 = &inventory.TargetAddress{IP: "::ffff:10.0.0.5"} },
			"everybody's address": func(t *inventory.Target) { t.IPv4.IP = "0.0.0.0" },
			"a group's address":   func(t *inventory.Target) { t.IPv4.IP = "224.0.0.1" },
			"no network":          func(t *inventory.Target) { t.IPv4.Network = "default" },
			"a colon in a tag":    func(t *inventory.Target) { t.Tags = map[string]string{"a:b": "c"} },
			"an empty value":      func(t *inventory.Target) { t.Tags = map[string]string{"a": ""} },
			"a line break":        func(t *inventory.Target) { t.Tags = map[string]string{"a": "b\nc"} },
		} {
			bad := newTarget("web", "10.0.0.5")
			change(&bad)
			refused(t, s, trust.Invalid, func(tx *store.Tx) error {
				_, err := inventory.AddTarget(tx, bad)
				if err == nil {
					t.Errorf("%s is taken", name)
				}
				return err
			})
		}
		many := newTarget("web", "10.0.0.5")
		many.Tags = map[string]string{}
		for i := range 65 {
			many.Tags[fmt.Sprint(i)] = "x"
		}
		refuseTarget(t, s, trust.Exhausted, many)
		long := newTarget(strings.Repeat("a", 255), "10.0.0.5")
		if made := addTarget(t, s, long); host(t, s, made.ID).Name != "target-"+string(made.ID) {
			t.Error("a hostname that no host can have is its name")
		}
	})
}

// Every filter, alone and with others, and every order.
func TestTargetFilters(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		var made []inventory.Target
		for i := range 6 { // a0 b1 c2 a3 b4 c5
			n := newTarget(fmt.Sprintf("%c%d", "aBc"[i%3], i), fmt.Sprintf("10.0.%d.%d", i%2, 9-i))
			n.Tags = map[string]string{"env": []string{"lab", "prod"}[i%2]}
			if i == 5 {
				n.IPv6 = &inventory.TargetAddress{IP: "FD00::A5", Network: otherNetwork}
				n.Tags["os"] = "linux"
			}
			made = append(made, addTarget(t, s, n))
		}
		ip := netip.MustParseAddr
		for want, f := range map[string]inventory.TargetFilter{
			"a0 B1 c2 a3 B4 c5": {},
			"a0":                {Hostname: "A0"},
			"B1 B4":             {Contains: "b"},
			"":                  {Contains: "%"},
			"c5":                {Network: strings.ToUpper(otherNetwork)},
			"c2":                {IP: []netip.Addr{ip("10.0.0.7")}},
			"c5 ":               {IP: []netip.Addr{ip("10.0.1.4"), ip("fd00::a5")}},
			" ":                 {IP: []netip.Addr{ip("10.0.0.7"), ip("fd00::a5")}},
			"c2 c5":             {AnyIP: []netip.Addr{ip("10.0.0.7"), ip("fd00::a5")}},
			"a0 c2":             {Ranges: [][2]netip.Addr{{ip("10.0.0.7"), ip("10.0.0.9")}}},
			"c5  ":              {Ranges: [][2]netip.Addr{{ip("::"), ip("ffff::")}}},
			"a0 c2 B4":          {IPLike: "10.0.0.*"},
			"B4":                {IPLike: "10.*.0.5"},
			"c5   ":             {IPLike: "fd00::a*"},
			"  ":                {IPLike: "10.0.0._"},
			"a0 c2 B4 ":         {Tags: [][2]string{{"env", "lab"}}},
			"c5    ":            {Tags: [][2]string{{"env", "prod"}, {"os", "linux"}}},
			"   ":               {Tags: [][2]string{{"env", "lab"}, {"os", "linux"}}},
			"a0 a3":             {IDs: []trust.HostID{made[3].ID, made[0].ID}},
			"c2 a3":             {CreatedAfter: made[2].CreatedAt, CreatedBefore: made[3].CreatedAt},
			"a3 B4 c5":          {ModifiedAfter: made[3].ModifiedAt},
			"a0 B1":             {ModifiedBefore: made[2].ModifiedAt.Add(-time.Microsecond)},
			"B4 ":               {Contains: "b", Tags: [][2]string{{"env", "lab"}}},
		} {
			view(t, s, func(tx *store.Tx) error {
				list, total, err := inventory.Targets(tx, f, inventory.Page{Limit: 100, Sort: "created"})
				if got := names(list); got != strings.TrimRight(want, " ") || total != len(list) {
					t.Errorf("%+v lets through %q of %d, want %q", f, got, total, want)
				}
				return err
			})
		}
		for want, p := range map[string]inventory.Page{
			"a0 B1 c2 a3 B4 c5": {Limit: 9},
			"c5 B4 a3 c2 B1 a0": {Limit: 9, Desc: true},
			"a0 a3 B1 B4 c2 c5": {Limit: 9, Sort: "hostname"},
			"c5 c2 B4 B1 a3 a0": {Limit: 9, Sort: "hostname", Desc: true},
			"c5 a0 B1 c2 a3 B4": {Limit: 9, Sort: "tag:os", Desc: true},
			"B1 B4":             {Limit: 2, Offset: 2, Sort: "hostname"},
			"c5":                {Limit: 2, Offset: 5},
			"":                  {Limit: 2, Offset: 6},
		} {
			view(t, s, func(tx *store.Tx) error {
				list, total, err := inventory.Targets(tx, inventory.TargetFilter{}, p)
				got := names(list)
				if strings.HasPrefix(p.Sort, "tag:") { // what has no such tag is in the order of ids
					got = got[:2] + want[2:]
				}
				if got != want || total != 6 {
					t.Errorf("%+v is %q of %d, want %q", p, got, total, want)
				}
				return err
			})
		}
		bad := inventory.TargetFilter{Contains: "a\nb"}
		if err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			_, _, err := inventory.Targets(tx, bad, inventory.Page{Limit: 1})
			return err
		}); trust.KindOf(err) != trust.Invalid {
			t.Errorf("text of two lines is looked for: %v", err)
		}
	})
}

func names(list []inventory.Target) string {
	var names []string
	for _, t := range list {
		names = append(names, t.Hostname)
	}
	return strings.Join(names, " ")
}
