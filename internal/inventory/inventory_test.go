package inventory_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io/fs"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// both runs a test on either engine.
func both(t *testing.T, test func(t *testing.T, s *store.Store)) {
	t.Helper()
	storetest.Both(t, []fs.FS{inventory.Schema}, test)
}

// update runs fn in an Update that must succeed.
func update(tb testing.TB, s *store.Store, fn func(tx *store.Tx) error) {
	tb.Helper()
	if err := s.Update(context.Background(), storetest.Event(), fn); err != nil {
		tb.Fatal(err)
	}
}

// refused runs fn in an Update that must fail with a kind of error, and
// returns it.
func refused(tb testing.TB, s *store.Store, kind trust.Kind, fn func(tx *store.Tx) error) error {
	tb.Helper()
	err := s.Update(context.Background(), storetest.Event(), fn)
	if err == nil || trust.KindOf(err) != kind {
		tb.Fatalf("got error %v of kind %v, want kind %v", err, trust.KindOf(err), kind)
	}
	return err
}

// view runs fn in a View that must succeed.
func view(tb testing.TB, s *store.Store, fn func(tx *store.Tx) error) {
	tb.Helper()
	if err := s.View(context.Background(), storetest.Tenant, fn); err != nil {
		tb.Fatal(err)
	}
}

// publicKey returns the n-th Ed25519 key of these tests. Nobody has the private
// half.
func publicKey(n int) trust.PublicKey {
	blob := binary.BigEndian.AppendUint32(nil, 11)
	blob = append(blob, "ssh-ed25519"...)
	blob = binary.BigEndian.AppendUint32(blob, 32)
	blob = append(blob, fmt.Sprintf("%032d", n)...)
	key, err := trust.ParsePublicKeyBlob(blob)
	if err != nil {
		panic(err)
	}
	return key
}

func userKeyID(n int) trust.KeyID {
	return inventory.KeyIDOf(storetest.Tenant, inventory.UserKey, publicKey(n))
}

// addKey adds the n-th user key.
func addKey(tb testing.TB, s *store.Store, n int) trust.KeyID {
	tb.Helper()
	update(tb, s, func(tx *store.Tx) error {
		_, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: publicKey(n), Comment: fmt.Sprintf("key-%d", n)})
		return err
	})
	return userKeyID(n)
}

// addHost adds the host NAME at NAME:22, pinned and ready.
func addHost(tb testing.TB, s *store.Store, name string, pin int) inventory.Host {
	tb.Helper()
	h := inventory.Host{
		ID: inventory.NewHostID(), Name: name, Address: name + ":22", User: "root", State: inventory.Ready,
		Pins: []inventory.Pin{{Key: publicKey(pin), Origin: inventory.Given}},
	}
	update(tb, s, func(tx *store.Tx) error {
		var err error
		h, err = inventory.AddHost(tx, h)
		return err
	})
	return h
}

// host reads a host as it is now.
func host(tb testing.TB, s *store.Store, id trust.HostID) inventory.Host {
	tb.Helper()
	var h inventory.Host
	view(tb, s, func(tx *store.Tx) error {
		var err error
		h, err = inventory.HostByID(tx, id)
		return err
	})
	return h
}

// key reads a key as it is now.
func key(tb testing.TB, s *store.Store, id trust.KeyID) inventory.Key {
	tb.Helper()
	var k inventory.Key
	view(tb, s, func(tx *store.Tx) error {
		var err error
		k, err = inventory.KeyByID(tx, id)
		return err
	})
	return k
}
