package rotation

import (
	"encoding/json"
	"io/fs"
	"strings"
	"testing"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// What holds a run over keys that their owners made, each time that it is resumed.
func TestDecideOnOwners(t *testing.T) {
	t.Parallel()
	const used, unseen, unsafe, nothing = "was used, from 192.0.2.7", "its owner may not have it yet", "is locked out when it goes", ""
	never, changed := sighting{logged: true}, sighting{logged: true, next: "from 192.0.2.7"}
	both := sighting{logged: true, next: "from 192.0.2.7", old: "from 192.0.2.7", recent: "from 192.0.2.7"}
	partly := (sighting{}).and(sighting{logged: true}).and(sighting{blind: true})
	before := sighting{logged: true, old: "from 192.0.2.7"}
	for name, c := range map[string]struct {
		soak  time.Duration
		back  bool
		seen  []map[int]sighting // at each look
		holds []string
	}{
		"changed":                        {time.Hour, false, []map[int]sighting{{0: changed}}, []string{nothing}},
		"no place is touched":            {time.Hour, false, []map[int]sighting{{}}, []string{nothing}},
		"uses both":                      {time.Hour, false, []map[int]sighting{{0: both}, {0: both}, {0: changed}}, []string{used, used, nothing}},
		"uses both, and is not to soak":  {0, false, []map[int]sighting{{0: both}}, []string{nothing}},
		"uses the old one":               {0, false, []map[int]sighting{{0: before}, {0: before}, {0: before}}, []string{unseen, unsafe, nothing}},
		"comes late":                     {time.Hour, false, []map[int]sighting{{0: never}, {0: changed}}, []string{unseen, nothing}},
		"never comes":                    {time.Hour, false, []map[int]sighting{{0: never}, {0: never}, {0: never}}, []string{unseen, unsafe, nothing}},
		"no log":                         {time.Hour, false, []map[int]sighting{{0: {}}, {0: {}}}, []string{unsafe, nothing}},
		"no log any more":                {time.Hour, false, []map[int]sighting{{0: never}, {0: {}}, {0: {}}}, []string{unseen, unsafe, nothing}},
		"two owners, one comes":          {time.Hour, false, []map[int]sighting{{0: changed, 1: never}, {0: changed, 1: changed}}, []string{unseen, nothing}},
		"two owners, one without a log":  {time.Hour, false, []map[int]sighting{{0: never, 1: {}}, {0: never, 1: {}}, {0: never, 1: {}}}, []string{unseen, unsafe, nothing}},
		"back, and nobody had changed":   {time.Hour, true, []map[int]sighting{{0: never}}, []string{nothing}},
		"back, and somebody had changed": {time.Hour, true, []map[int]sighting{{0: before}, {0: changed}}, []string{unseen, nothing}},
		"back, and one log is not read":  {time.Hour, true, []map[int]sighting{{0: partly}, {0: partly}, {0: partly}}, []string{unseen, unsafe, nothing}},
		"one log is not read":            {time.Hour, false, []map[int]sighting{{0: {logged: true, blind: true, next: "from 192.0.2.7"}}}, []string{nothing}},
		"back, and nobody can know":      {time.Hour, true, []map[int]sighting{{0: {}}, {0: {}}}, []string{unsafe, nothing}},
	} {
		args := Args{Soak: c.soak, Pairs: []Pair{
			{Old: "old1", OldKey: testKey("key1"), New: "new1", NewKey: testKey("key2"), Supplied: true},
			{Old: "old2", OldKey: testKey("key3"), New: "new2", NewKey: testKey("key4"), Supplied: true},
		}}
		if c.back {
			args.Since = time.Now()
		}
		var s soaking
		for i, seen := range c.seen {
			s.Anew = false
			err := s.decide(job.Run{ID: "run1"}, args, seen)
			if s.Anew != (c.holds[i] == used) {
				t.Errorf("%s: at look %d the soak is to begin anew: %v", name, i+1, s.Anew)
			}
			switch want := c.holds[i]; {
			case want == nothing && err != nil, want != nothing && (trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: at look %d the run is held by %v, want %q", name, i+1, err, want)
			}
		}
	}
}

// What was supplied last counts, until it must not any more.
func TestSupply(t *testing.T) {
	t.Parallel()
	storetest.Both(t, []fs.FS{inventory.Schema}, func(t *testing.T, s *store.Store) {
		update := func(fn func(tx *store.Tx) error) error {
			return s.Update(t.Context(), storetest.Event(), fn)
		}
		put := func(name string) (k inventory.Key) {
			t.Helper()
			if err := update(func(tx *store.Tx) (err error) {
				k, err = inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: testKey(name), Owner: "alice", Purpose: "backup"})
				return err
			}); err != nil {
				t.Fatal(err)
			}
			return k
		}
		old, other := put("key1"), put("key2")
		supply := func(id trust.KeyID, name string) (next inventory.Key, err error) {
			err = update(func(tx *store.Tx) (err error) {
				next, err = Supply(tx, id, testKey(name), "", "admin")
				return err
			})
			return next, err
		}
		candidate := func() (c []Candidate, err error) {
			err = s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
				c, err = Candidates(tx, Request{Keys: []trust.KeyID{old.ID}, Proof: Login})
				return err
			})
			return c, err
		}
		if _, err := candidate(); trust.KindOf(err) != trust.Conflict {
			t.Errorf("nothing was supplied: %v", err)
		}
		for _, name := range []string{"key3", "key4", "key4"} {
			next, err := supply(old.ID, name)
			if err != nil || next.Owner != "alice" || next.Purpose != "backup" {
				t.Fatalf("supplied: %+v, %v", next, err)
			}
			c, err := candidate()
			if err != nil || len(c) != 1 || c[0].Supplied.ID != next.ID {
				t.Errorf("to be rotated: %+v, %v", c, err)
			}
		}
		if _, err := supply(other.ID, "key4"); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), string(old.ID)) {
			t.Errorf("supplied for two keys: %v", err)
		}
		if _, err := supply(other.ID, "key3"); err != nil {
			t.Errorf("one that another took the place of: %v", err)
		}
		change := func(name string, fn func(tx *store.Tx, k inventory.Key) error) {
			t.Helper()
			if err := update(func(tx *store.Tx) error {
				k, err := inventory.KeyByID(tx, inventory.KeyIDOf(storetest.Tenant, inventory.UserKey, testKey(name)))
				if err != nil {
					return err
				}
				return fn(tx, k)
			}); err != nil {
				t.Fatal(err)
			}
		}
		if err := update(func(tx *store.Tx) error {
			_, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: testKey("bob's"), Owner: "bob"})
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if _, err := supply(old.ID, "bob's"); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), `"bob"`) {
			t.Errorf("one of somebody else: %v", err)
		}
		change("key4", func(tx *store.Tx, k inventory.Key) error {
			k.Compromised = true
			_, err := inventory.UpdateKey(tx, k)
			return err
		})
		if _, err := candidate(); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), "compromised") {
			t.Errorf("the supplied key is compromised: %v", err)
		}
		if _, err := supply(old.ID, "key5"); err != nil {
			t.Error(err)
		}
		change("key5", func(tx *store.Tx, k inventory.Key) error {
			_, err := inventory.DeleteKey(tx, k.ID, k.Revision)
			return err
		})
		if _, err := candidate(); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), "deleted") {
			t.Errorf("the supplied key is deleted: %v", err)
		}
	})
}

// A key that was taken out of use does not come back by having been supplied before, but
// where that is what brought back the key whose place it is to take.
func TestSupplyOutOfUse(t *testing.T) {
	t.Parallel()
	storetest.Both(t, []fs.FS{inventory.Schema}, func(t *testing.T, s *store.Store) {
		update := func(fn func(tx *store.Tx) error) {
			t.Helper()
			if err := s.Update(t.Context(), storetest.Event(), fn); err != nil {
				t.Fatal(err)
			}
		}
		id := func(name string) trust.KeyID {
			return inventory.KeyIDOf(storetest.Tenant, inventory.UserKey, testKey(name))
		}
		supply := func(name string) error {
			return s.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
				_, err := Supply(tx, id("old"), testKey(name), "", "admin")
				return err
			})
		}
		takeOut := func(run trust.RunID, name string, became inventory.KeyState, news ...trust.KeyID) {
			t.Helper()
			update(func(tx *store.Tx) error { return inventory.TakeOut(tx, run, id(name), became, "ops", news...) })
		}
		answers := func(when, want string) {
			t.Helper()
			err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
				_, err := Candidates(tx, Request{Keys: []trust.KeyID{id("old")}, Proof: Login})
				return err
			})
			switch {
			case want == "" && err != nil:
				t.Errorf("%s: %v", when, err)
			case want != "" && (trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: %v, want %q", when, err, want)
			}
		}
		update(func(tx *store.Tx) error {
			_, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: testKey("old")})
			return err
		})
		const run1, run2, run3, run4 = "00000000-0000-7000-8000-000000000001", "00000000-0000-7000-8000-000000000002",
			"00000000-0000-7000-8000-000000000003", "00000000-0000-7000-8000-000000000004"

		if err := supply("next"); err != nil {
			t.Fatal(err)
		}
		takeOut(run1, "old", inventory.Rotated, id("next"))
		update(func(tx *store.Tx) error { _, err := inventory.UndoRun(tx, run1); return err })
		answers("after a run that took itself back", "")
		takeOut(run2, "old", inventory.Rotated, id("next"))
		takeOut(run3, "next", inventory.Rotated, id("old"))
		answers("after a run that another took back before its end", "")
		update(func(tx *store.Tx) error { return inventory.Archived(tx, run2, id("old"), time.Time{}) })
		answers("after a run that another took back", "is external")
		if err := supply("next"); err != nil {
			t.Errorf("supplied again: %v", err)
		}
		answers("supplied again", "")
		if err := supply("lost"); err != nil {
			t.Fatal(err)
		}
		takeOut(run4, "lost", inventory.Retired)
		answers("retired since it was supplied", "is retired: its owner has to make another")
		if err := supply("lost"); trust.KindOf(err) != trust.Conflict {
			t.Errorf("supplied again, retired: %v", err)
		}
	})
}

// No run lets a key in and withdraws it, whatever the order of its keys.
func TestSupplyInOneRun(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	external := func(k *inventory.Key) { k.Custody = inventory.External }
	a, b := w.key("a", external), w.key("b", external)
	w.host("web1", nil)
	w.scan("web1", authorizedKeys("alice", "{{a}}\n{{b}}\n"))
	w.update(func(tx *store.Tx) error {
		for old, next := range map[trust.KeyID]string{a: "b", b: "c"} {
			if _, err := Supply(tx, old, testKey(next), "", "admin"); err != nil {
				return err
			}
		}
		return nil
	})
	for _, keys := range [][]trust.KeyID{{a, b}, {b, a}} {
		for name, plan := range map[string]func(Request) (job.Plan, error){"rotate": w.rotation, "preview": w.preview} {
			if _, err := plan(ask(keys...)); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), "let it in and withdraw it") {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if _, err := w.preview(ask(a)); err != nil {
		t.Errorf("one after the other: %v", err)
	}
}

// A held key that lies with a passphrase somewhere as well is replaced by one that is
// supplied; without such a place, Keyturn makes it.
func TestSupplyForHeldKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.key("a", nil)
	w.host("web1", nil)
	supply := func() (err error) {
		w.update(func(tx *store.Tx) error {
			_, err = Supply(tx, a, testKey("new 0"), "", "admin")
			return nil
		})
		return err
	}
	f := identityFile("bob", "a")
	w.scan("web1", authorizedKeys("alice", "{{a}}\n"), f)
	if err := supply(); trust.KindOf(err) != trust.Conflict {
		t.Errorf("supplied where Keyturn can bring its own: %v", err)
	}
	f.Identity.Encrypted = true
	w.scan("web1", authorizedKeys("alice", "{{a}}\n"), f)
	if _, err := w.rotation(ask(a)); trust.KindOf(err) != trust.Conflict || !strings.Contains(err.Error(), "with a passphrase") {
		t.Errorf("nothing was supplied: %v", err)
	}
	if err := supply(); err != nil {
		t.Fatal(err)
	}
	plan, err := w.rotation(ask(a))
	if err != nil {
		t.Fatal(err)
	}
	var args Args
	if err := json.Unmarshal(plan.Args, &args); err != nil {
		t.Fatal(err)
	}
	if len(args.Pairs) != 1 || !args.Pairs[0].Supplied {
		t.Errorf("planned: %+v", args.Pairs)
	}
}
