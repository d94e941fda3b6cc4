package jwk

import (
	"context"
	"io/fs"
	"log/slog"
	"path/filepath"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// An account is one whose keys are looked at.
type account struct {
	*testing.T
	store   *store.Store
	keyring *keyring.Keyring
}

var schemas = []fs.FS{keyring.Schema, job.Schema, Schema}

func newAccount(t *testing.T, s *store.Store) *account {
	t.Helper()
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), t.TempDir(), true)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	return &account{t, s, k}
}

// node runs an engine that exchanges keys, until ctx ends.
func (a *account) node(ctx context.Context) *job.Engine {
	a.Helper()
	e, err := job.New(a.store, Procedures(a.keyring), job.Options{
		Log: slog.New(slog.DiscardHandler), Lease: time.Hour, Planners: map[string]job.Planner{"jwk": PlanRotation},
	})
	if err != nil {
		a.Fatal(err)
	}
	go func() { _ = e.Run(ctx) }()
	return e
}

func (a *account) update(fn func(*store.Tx) error) {
	a.Helper()
	if err := a.store.Update(a.Context(), storetest.Event(), fn); err != nil {
		a.Fatal(err)
	}
}

// rotate exchanges the key by hand.
func (a *account) rotate() (k Key) {
	a.Helper()
	private, err := a.keyring.Make(a.Context(), storetest.Tenant, Spec())
	if err != nil {
		a.Fatal(err)
	}
	a.update(func(tx *store.Tx) error {
		k, err = Rotate(tx, a.keyring, private)
		return err
	})
	return k
}

// published returns the keys that are, by their KIDs, and checks that the first can sign
// and no other can.
func (a *account) published() (kids []string) {
	a.Helper()
	err := a.store.View(a.Context(), storetest.Tenant, func(tx *store.Tx) error {
		s, err := Load(tx)
		kids = nil
		for i, k := range s.Keys {
			held, err := a.keyring.Has(tx, trust.KeyID(k.ID))
			if err != nil || held != (i == 0) || k.Until.IsZero() != (i == 0) {
				a.Errorf("key %d of %+v is held: %v, %v", i, s.Keys, held, err)
			}
			kids = append(kids, k.KID)
		}
		return err
	})
	if err != nil {
		a.Fatal(err)
	}
	return kids
}

// With two nodes, a key is exchanged once when its days have passed, and the one before is
// published for the time that is promised.
func TestRotatesByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		a := newAccount(t, storetest.Open(t, schemas...))
		ctx, stop := context.WithCancel(t.Context())
		defer func() {
			stop()
			synctest.Wait()
		}()
		e := a.node(ctx)
		a.node(ctx)
		a.update(func(tx *store.Tx) error {
			return e.SetSchedule(tx, audit.Actor{Kind: "system"}, job.Schedule{Name: "jwk", Kind: "jwk", Every: day})
		})
		after := func(days int) []string {
			time.Sleep(time.Duration(days) * day)
			synctest.Wait()
			return a.published()
		}
		if got := after(2); len(got) != 0 {
			t.Errorf("nobody has asked for a key, and there are %q", got)
		}
		first := a.rotate().KID
		a.update(func(tx *store.Tx) error { return SetDays(tx, MinDays) })
		if got := after(MinDays - 1); !slices.Equal(got, []string{first}) {
			t.Errorf("too early there are %q, and first there was %s", got, first)
		}
		got := after(2)
		if len(got) != 2 || got[1] != first {
			t.Fatalf("after %d days there are %q, and first there was %s", MinDays+1, got, first)
		}
		second := got[0]
		if got := after(5); !slices.Equal(got, []string{second, first}) {
			t.Errorf("within the overlap there are %q", got)
		}
		if got := after(3); !slices.Equal(got, []string{second}) {
			t.Errorf("after the overlap there are %q, and %s signs", got, second)
		}
		if got := after(MinDays - 7); len(got) != 2 || got[1] != second {
			t.Errorf("after %d days more there are %q", MinDays+3, got)
		}
	})
}

// A run that was planned when a key was due leaves one alone by which somebody has
// exchanged it since.
func TestRotatedByHandSince(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAccount(t, storetest.Open(t, schemas...))
		first := a.rotate()
		time.Sleep(DefaultDays * 24 * time.Hour)
		record, err := rotator{a.keyring}.rotate(t.Context(), job.Run{Tenant: storetest.Tenant}, job.Target{})
		if err != nil {
			t.Fatal(err)
		}
		second := a.rotate()
		a.update(record)
		if got := a.published(); !slices.Equal(got, []string{second.KID, first.KID}) {
			t.Errorf("there are %q, want %s and %s", got, second.KID, first.KID)
		}
	})
}

// Nobody has more keys published than verifiers want to read.
func TestManyRotations(t *testing.T) {
	a := newAccount(t, storetest.Open(t, schemas...))
	var oldest Key
	for i := range maxPublished {
		if k := a.rotate(); i == 0 {
			oldest = k
		}
	}
	private, err := a.keyring.Make(t.Context(), storetest.Tenant, Spec())
	if err != nil {
		t.Fatal(err)
	}
	err = a.store.Update(t.Context(), storetest.Event(), func(tx *store.Tx) error {
		_, err := Rotate(tx, a.keyring, private)
		return err
	})
	if trust.KindOf(err) != trust.Exhausted {
		t.Errorf("key %d: %v", maxPublished+1, err)
	}
	if got := a.published(); len(got) != maxPublished || got[maxPublished-1] != oldest.KID {
		t.Errorf("published are %q", got)
	}
}
