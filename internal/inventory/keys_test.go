package inventory_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

func TestPutKey(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		put := func(k inventory.Key) inventory.Key {
			t.Helper()
			k.Kind, k.Public = inventory.UserKey, publicKey(1)
			var now inventory.Key
			update(t, s, func(tx *store.Tx) error {
				var err error
				now, err = inventory.PutKey(tx, k)
				return err
			})
			if stored := key(t, s, now.ID); stored != now {
				t.Errorf("PutKey returned %+v and stored %+v", now, stored)
			}
			return now
		}
		first := put(inventory.Key{Comment: "alice@laptop\x1b[31m\x00"})
		if first.State != inventory.Active || first.Custody != inventory.External || first.ID != userKeyID(1) ||
			first.CreatedAt.IsZero() || !first.LastRotatedAt.IsZero() {
			t.Errorf("a new key is %+v", first)
		}
		if strings.ContainsAny(first.Comment, "\x1b\x00") || !strings.HasPrefix(first.Comment, "alice@laptop") {
			t.Errorf("a comment is kept as %q", first.Comment)
		}
		if again := put(inventory.Key{Comment: "other"}); again != first {
			t.Errorf("found again, %+v is %+v", first, again)
		}
		held := put(inventory.Key{Custody: inventory.Held, Owner: "ops", Container: "openssh"})
		if held.Custody != inventory.Held || held.Owner != "ops" || held.Container != "openssh" || held.Comment != first.Comment {
			t.Errorf("imported, it is %+v", held)
		}
		if again := put(inventory.Key{Custody: inventory.InPlace, Owner: "dev"}); again != held {
			t.Errorf("found on a host, the held key is %+v", again)
		}

		edit := held
		edit.Compromised, edit.Owner = true, "security"
		update(t, s, func(tx *store.Tx) error {
			now, err := inventory.UpdateKey(tx, edit)
			if !now.Compromised || now.Owner != "security" {
				t.Errorf("edited, it is %+v", now)
			}
			return err
		})
		refused(t, s, trust.Conflict, func(tx *store.Tx) error {
			_, err := inventory.UpdateKey(tx, edit)
			return err
		})
		if again := put(inventory.Key{}); !again.Compromised {
			t.Error("found again, a compromised key is as good as new")
		}

		update(t, s, func(tx *store.Tx) error {
			k, err := inventory.DeleteKey(tx, first.ID, key(t, s, first.ID).Revision)
			if k.State != inventory.Deleted || k.DeletedAt.IsZero() {
				t.Errorf("deleted, it is %+v", k)
			}
			return err
		})
		if again := put(inventory.Key{}); again.State != inventory.Active || !again.DeletedAt.IsZero() {
			t.Errorf("found again after it was deleted, it is %+v", again)
		}
		refused(t, s, trust.Conflict, func(tx *store.Tx) error {
			_, err := inventory.UndeleteKey(tx, first.ID)
			return err
		})
		for _, bad := range []inventory.Key{
			{Kind: "ca", Public: publicKey(1)},
			{Kind: inventory.UserKey},
			{Kind: inventory.UserKey, Public: publicKey(1), Custody: "lost"},
		} {
			refused(t, s, trust.Invalid, func(tx *store.Tx) error {
				_, err := inventory.PutKey(tx, bad)
				return err
			})
		}
	})
}

// standing describes keys and what of their rotations stands, in the words of
// these tests: "1:active 2:rotated 1<2" says that 1 came in 2's place.
func standing(tb testing.TB, s *store.Store, keys ...int) string {
	tb.Helper()
	var words []string
	view(tb, s, func(tx *store.Tx) error {
		var list []inventory.Key
		names := make(map[trust.KeyID]int)
		for _, n := range keys {
			k, err := inventory.KeyByID(tx, userKeyID(n))
			if err != nil {
				return err
			}
			names[k.ID] = n
			list = append(list, k)
			words = append(words, fmt.Sprintf("%d:%s", n, k.State))
		}
		related, err := inventory.Relate(tx, list)
		for _, r := range related {
			for _, next := range r.ReplacedBy {
				words = append(words, fmt.Sprintf("%d>%d", names[r.Key.ID], names[next]))
			}
			for _, old := range r.Replaces {
				words = append(words, fmt.Sprintf("%d<%d", names[r.Key.ID], names[old]))
			}
		}
		return err
	})
	return strings.Join(words, " ")
}

func TestRotations(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for n := 1; n <= 4; n++ {
			addKey(t, s, n)
		}
		takeOut := func(run trust.RunID, old int, news ...int) func(*store.Tx) error {
			return func(tx *store.Tx) error {
				var ids []trust.KeyID
				for _, n := range news {
					ids = append(ids, userKeyID(n))
				}
				return inventory.TakeOut(tx, run, userKeyID(old), inventory.Rotated, "user:admin", ids...)
			}
		}
		undo := func(run trust.RunID) func(*store.Tx) error {
			return func(tx *store.Tx) error {
				_, err := inventory.UndoRun(tx, run)
				return err
			}
		}
		retire := func(run trust.RunID, old int) func(*store.Tx) error {
			return func(tx *store.Tx) error {
				return inventory.TakeOut(tx, run, userKeyID(old), inventory.Retired, "user:admin")
			}
		}
		for _, step := range []struct {
			what string
			do   func(*store.Tx) error
			want string
		}{
			{"a key is rotated", takeOut("r1", 1, 2), "1:rotated 2:active 3:active 4:active 1>2 2<1"},
			{"and rolled back", takeOut("r2", 2, 1), "1:active 2:rotated 3:active 4:active 1<2 2>1"},
			{"which is undone", undo("r2"), "1:rotated 2:active 3:active 4:active 1>2 2<1"},
			{"twice", undo("r2"), "1:rotated 2:active 3:active 4:active 1>2 2<1"},
			{"the new one is rotated", takeOut("r3", 2, 3), "1:rotated 2:rotated 3:active 4:active 1>2 2>3 2<1 3<2"},
			{"which gets a second successor", func(tx *store.Tx) error {
				return inventory.AddReplacement(tx, "r3", userKeyID(2), userKeyID(4))
			}, "1:rotated 2:rotated 3:active 4:active 1>2 2>3 2>4 2<1 3<2 4<2"},
			{"twice", func(tx *store.Tx) error {
				return inventory.AddReplacement(tx, "r3", userKeyID(2), userKeyID(4))
			}, "1:rotated 2:rotated 3:active 4:active 1>2 2>3 2>4 2<1 3<2 4<2"},
			{"and is undone", undo("r3"), "1:rotated 2:active 3:retired 4:retired 1>2 2<1"},
			{"a key is retired", retire("r4", 2), "1:rotated 2:retired 3:retired 4:retired 1>2 2<1"},
			{"and brought back", func(tx *store.Tx) error {
				return inventory.BringBack(tx, "r5", userKeyID(2))
			}, "1:rotated 2:active 3:retired 4:retired 1>2 2<1"},
			{"which is undone", undo("r5"), "1:rotated 2:retired 3:retired 4:retired 1>2 2<1"},
		} {
			update(t, s, step.do)
			got := strings.Fields(standing(t, s, 1, 2, 3, 4))
			slices.Sort(got[4:])
			want := strings.Fields(step.want)
			slices.Sort(want[4:])
			if !slices.Equal(got, want) {
				t.Fatalf("%s: got %v, want %v", step.what, got, want)
			}
		}
		refused(t, s, trust.Conflict, takeOut("r6", 1, 3)) // not active
		refused(t, s, trust.NotFound, takeOut("r6", 9, 3))
		refused(t, s, trust.NotFound, func(tx *store.Tx) error {
			return inventory.AddReplacement(tx, "r1", userKeyID(3), userKeyID(4))
		})
	})
}

func TestRotatedInventory(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1", 1000)
		for n := range 6 {
			addKey(t, s, n)
		}
		until := time.UnixMicro(1_900_000_000_000_000).UTC()
		for n := range 3 {
			run := trust.RunID(fmt.Sprint("run", n))
			update(t, s, func(tx *store.Tx) error {
				if err := inventory.TakeOut(tx, run, userKeyID(n), inventory.Rotated, "user:admin", userKeyID(n+3)); err != nil {
					return err
				}
				a := inventory.ArchivedPlace{
					Place: trust.Place{Host: h.ID, User: "alice", Path: "/home/alice/.ssh/authorized_keys"}, Kind: inventory.AuthorizedFile,
					HostName: "web1", Line: 3, Snapshot: "snapshot:first",
				}
				if err := inventory.Archive(tx, run, userKeyID(n), a); err != nil {
					return err
				}
				a.Snapshot = "snapshot:again"
				return inventory.Archive(tx, run, userKeyID(n), a)
			})
		}
		list := func(f inventory.RotationFilter) (names []string) {
			t.Helper()
			view(t, s, func(tx *store.Tx) error {
				p := inventory.Page{Limit: 1}
				for {
					rotations, next, err := inventory.Rotations(tx, f, p)
					for _, r := range rotations {
						names = append(names, string(r.Run))
						if r.By != "user:admin" || r.At.IsZero() || len(r.ReplacedBy) != 1 {
							t.Errorf("rotation %+v", r)
						}
					}
					if next == "" || err != nil {
						return err
					}
					p.After = next
				}
			})
			slices.Sort(names)
			return names
		}
		if got := list(inventory.RotationFilter{Standing: true}); !slices.Equal(got, []string{"run0", "run1", "run2"}) {
			t.Errorf("the rotated inventory is %v", got)
		}
		if got := list(inventory.RotationFilter{Kinds: []inventory.KeyKind{inventory.UserKey}, Text: "KEY-1"}); !slices.Equal(got, []string{"run1"}) {
			t.Errorf("the rotated inventory of key-1 is %v", got)
		}
		if got := list(inventory.RotationFilter{Kinds: []inventory.KeyKind{inventory.HostKey}}); got != nil {
			t.Errorf("the rotated host keys are %v", got)
		}
		// Nothing expires that is not archived, that was undone, or whose time
		// has not come.
		if got := list(inventory.RotationFilter{Expired: until.AddDate(9, 0, 0)}); got != nil {
			t.Errorf("expired although not archived: %v", got)
		}
		update(t, s, func(tx *store.Tx) error {
			for n := range 3 {
				if err := inventory.Archived(tx, trust.RunID(fmt.Sprint("run", n)), userKeyID(n), until); err != nil {
					return err
				}
			}
			return inventory.BringBack(tx, "back", userKeyID(2))
		})
		if got := list(inventory.RotationFilter{Expired: until.Add(-1 * time.Microsecond)}); got != nil {
			t.Errorf("expired too early: %v", got)
		}
		if got := list(inventory.RotationFilter{Expired: until}); !slices.Equal(got, []string{"run0", "run1"}) {
			t.Errorf("expired: %v", got)
		}
		update(t, s, func(tx *store.Tx) error { return inventory.Archived(tx, "run1", userKeyID(1), time.Time{}) })
		if got := list(inventory.RotationFilter{Expired: until}); !slices.Equal(got, []string{"run0"}) {
			t.Errorf("expired although kept for good: %v", got)
		}
		archived := func(n int) (places []inventory.ArchivedPlace) {
			t.Helper()
			view(t, s, func(tx *store.Tx) error {
				var err error
				places, err = inventory.ArchivedPlaces(tx, trust.RunID(fmt.Sprint("run", n)), userKeyID(n))
				return err
			})
			return places
		}
		if got := archived(0); len(got) != 1 || got[0].Snapshot != "snapshot:again" || got[0].HostName != "web1" || got[0].Line != 3 {
			t.Errorf("archived: %+v", got)
		}
		update(t, s, func(tx *store.Tx) error { return inventory.Purged(tx, "run0", userKeyID(0)) })
		if got := archived(0); got != nil {
			t.Errorf("archived after the purge: %+v", got)
		}
		if got := list(inventory.RotationFilter{Expired: until}); got != nil {
			t.Errorf("expired although purged: %v", got)
		}
		err := refused(t, s, trust.Conflict, func(tx *store.Tx) error { return inventory.BringBack(tx, "late", userKeyID(0)) })
		if !strings.Contains(err.Error(), "destroyed") {
			t.Errorf("bringing back what was purged: %v", err)
		}
		// Removing the host forgets no archive.
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.RemoveHost(tx, h.ID, h.Revision)
			return err
		})
		if len(archived(1)) != 1 {
			t.Error("the archive went with its host")
		}
		refused(t, s, trust.NotFound, func(tx *store.Tx) error { return inventory.Archived(tx, "run9", userKeyID(0), until) })
		refused(t, s, trust.NotFound, func(tx *store.Tx) error { return inventory.Purged(tx, "run9", userKeyID(0)) })
	})
}

func TestKeysListing(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		h := addHost(t, s, "web1.example.com", 1000)
		addHost(t, s, "web2.example.com", 1001)
		const n = 23
		for i := range n {
			addKey(t, s, i)
		}
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.PutFile(tx, authorizedFile(h.ID, "alice", 1, 5, 7))
			return err
		})
		update(t, s, func(tx *store.Tx) error {
			_, err := inventory.SetKeyFindings(tx, userKeyID(7), []inventory.Finding{{Kind: inventory.Weak, Level: inventory.Warning, Text: "weak"}})
			return err
		})
		update(t, s, func(tx *store.Tx) error {
			return inventory.TakeOut(tx, "r", userKeyID(3), inventory.Retired, "user:admin")
		})
		fingerprint := publicKey(4).Fingerprint()
		user := []inventory.KeyKind{inventory.UserKey}
		for _, test := range []struct {
			filter inventory.KeyFilter
			want   int
		}{
			{inventory.KeyFilter{}, n + 2}, // with the hosts' own
			{inventory.KeyFilter{Kinds: user}, n},
			{inventory.KeyFilter{Kinds: []inventory.KeyKind{inventory.HostKey}}, 2},
			{inventory.KeyFilter{States: []inventory.KeyState{inventory.Retired}}, 1},
			{inventory.KeyFilter{Kinds: user, States: []inventory.KeyState{inventory.Active, inventory.Retired}}, n},
			{inventory.KeyFilter{Text: "KEY-2"}, 4}, // 2, 20, 21, 22
			{inventory.KeyFilter{Text: strings.ToUpper(string(fingerprint[10:20]))}, 1},
			{inventory.KeyFilter{Fingerprint: fingerprint}, 1},
			{inventory.KeyFilter{Comment: "key-2"}, 1},
			{inventory.KeyFilter{Kinds: user, Text: "web1."}, 3},
			{inventory.KeyFilter{Kinds: user, Text: "web2."}, 0},
			{inventory.KeyFilter{Host: h.ID}, 3},
			{inventory.KeyFilter{Findings: []inventory.FindingKind{inventory.Weak, inventory.Stale}}, 1},
			{inventory.KeyFilter{Custodies: []inventory.Custody{inventory.Held}}, 0},
			{inventory.KeyFilter{Compromised: true}, 0},
			{inventory.KeyFilter{Kinds: user, Overdue: time.Now().Add(-time.Hour)}, 0},
			{inventory.KeyFilter{Kinds: user, Overdue: time.Now().Add(time.Hour)}, n},
			{inventory.KeyFilter{Kinds: user, Without: inventory.Weak}, n - 1},
			{inventory.KeyFilter{IDs: []trust.KeyID{userKeyID(1), userKeyID(99)}}, 1},
		} {
			for _, sort := range []string{"created", "comment", "fingerprint", "rotated"} {
				var seen []trust.KeyID
				view(t, s, func(tx *store.Tx) error {
					count, err := inventory.CountKeys(tx, test.filter)
					if count != test.want {
						t.Errorf("%+v lets %d keys through, want %d", test.filter, count, test.want)
					}
					if err != nil {
						return err
					}
					p := inventory.Page{Limit: 5, Sort: sort, Desc: sort == "comment"}
					for {
						related, next, err := inventory.Relationships(tx, test.filter, p)
						for _, r := range related {
							seen = append(seen, r.Key.ID)
						}
						if next == "" || err != nil {
							return err
						}
						p.After = next
					}
				})
				if len(seen) != test.want || len(slices.Compact(slices.Sorted(slices.Values(seen)))) != test.want {
					t.Errorf("%+v by %s lists %d keys, some twice or never", test.filter, sort, len(seen))
				}
			}
		}
		view(t, s, func(tx *store.Tx) error {
			keys, _, err := inventory.Keys(tx, inventory.KeyFilter{Kinds: user}, inventory.Page{Sort: "comment", Offset: 20, Limit: 10})
			if len(keys) != 3 {
				t.Errorf("offset 20 of %d leaves %d keys", n, len(keys))
			}
			return err
		})
		view(t, s, func(tx *store.Tx) error {
			c, err := inventory.SummarizeKeys(tx)
			if c.Total != n+2 || c.ByKind[inventory.UserKey] != n || c.ByState[inventory.Retired] != 1 || c.ByCustody[inventory.InPlace] != 2 {
				t.Errorf("summary is %+v", c)
			}
			return err
		})
		refused(t, s, trust.Invalid, func(tx *store.Tx) error {
			_, err := inventory.CountKeys(tx, inventory.KeyFilter{Text: "a\x00b"})
			return err
		})
		if got := storetest.Tenant; key(t, s, userKeyID(1)).ID != inventory.KeyIDOf(got, inventory.UserKey, publicKey(1)) {
			t.Error("a key's id is not its name")
		}
	})
}

// A key that opens hosts is not deleted, and its refusal says how another comes in its
// place: by a rotation where Keyturn has the private half, and else by hand.
func TestDeleteCredential(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		host := addHost(t, s, "web1", 900)
		for n, c := range map[int]struct {
			custody inventory.Custody
			hint    string
		}{
			1: {inventory.Held, "keyturn rotate " + string(userKeyID(1))},
			2: {inventory.External, "keyturn host credential remove web1 " + string(userKeyID(2))},
		} {
			update(t, s, func(tx *store.Tx) error {
				k, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: publicKey(n), Custody: c.custody})
				if err != nil {
					return err
				}
				return inventory.AddCredential(tx, host.ID, k.ID, 0)
			})
			err := s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
				_, err := inventory.DeleteKey(tx, userKeyID(n), key(t, s, userKeyID(n)).Revision)
				return err
			})
			var e *trust.Error
			if !errors.As(err, &e) || e.Kind != trust.Conflict || !strings.Contains(e.Hint, c.hint) {
				t.Errorf("%s: %+v; want the hint %q", c.custody, err, c.hint)
			}
		}
	})
}
