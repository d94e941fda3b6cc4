package keyring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tink-crypto/tink-go/v2/insecurecleartextkeyset"
	"github.com/tink-crypto/tink-go/v2/keyset"

	"keyturn/internal/audit"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

var schemas = []fs.FS{Schema}

func testKEK(t testing.TB, name string) KEK {
	t.Helper()
	kek, err := LoadKEK(filepath.Join(t.TempDir(), name), "", true)
	if err != nil {
		t.Fatal(err)
	}
	return kek
}

func open(t testing.TB, s *store.Store, kek KEK) *Keyring {
	t.Helper()
	k, err := Open(t.Context(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func generate(t testing.TB, kind string) Private {
	t.Helper()
	p, err := Generate(Spec{Type: kind})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// update runs fn in an Update of tenant.
func update(s *store.Store, tenant trust.TenantID, fn func(*store.Tx) error) error {
	ev := storetest.Event()
	ev.Tenant = tenant
	return s.Update(context.Background(), ev, fn)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// keysetKey returns the bytes of the one key in a keyset.
func keysetKey(t *testing.T, handle *keyset.Handle) []byte {
	t.Helper()
	value := insecurecleartextkeyset.KeysetMaterial(handle).Key[0].KeyData.Value
	return value[len(value)-32:]
}

func openRootKey(t *testing.T, kek KEK, wrapped []byte) []byte {
	t.Helper()
	handle, err := unwrapKeyset(wrapped, &sealer{*kek.aead}, binding{trust.Installation, kindRoot, kek.name})
	must(t, err)
	return keysetKey(t, handle)
}

func TestPrivateKeys(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		for i, spec := range specs {
			p, err := Generate(spec)
			must(t, err)
			p.Comment = "of " + spec.Type
			id := trust.KeyID(fmt.Sprint("key-", i))

			has := func(want bool) {
				t.Helper()
				must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
					got, err := k.Has(tx, id)
					if got != want {
						t.Errorf("%s: Has = %t, want %t", spec.Type, got, want)
					}
					return err
				}))
			}
			has(false)
			if _, err := k.Signer(t.Context(), storetest.Tenant, id); trust.KindOf(err) != trust.NotFound {
				t.Errorf("%s: signer of an unknown key: %v", spec.Type, err)
			}
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, id, p) }))
			has(true)

			// Another process with the same KEK signs with it.
			signer, err := k.Signer(t.Context(), storetest.Tenant, id)
			must(t, err)
			signature, err := signer.Sign(nil, []byte("data"))
			must(t, err)
			public, err := p.Public().SSH()
			must(t, err)
			must(t, public.Verify([]byte("data"), signature))

			for _, format := range Formats {
				var text Secret
				must(t, update(s, storetest.Tenant, func(tx *store.Tx) (err error) {
					text, err = k.Reveal(tx, id, format)
					return err
				}))
				want, err := p.text(format)
				must(t, err)
				// OpenSSH's container has random check integers.
				if format != OpenSSH && !(format == PEM && spec.Type == "ed25519") && !bytes.Equal(text.Bytes(), want) {
					t.Errorf("%s: revealed as %s differs from what was put", spec.Type, format)
				}
				again, err := Parse(text.Bytes(), nil)
				if err != nil || again.Public() != p.Public() || (again.Container() == OpenSSH && again.Comment != p.Comment) {
					t.Errorf("%s: revealed as %s: %v %q, %v", spec.Type, format, again, again.Comment, err)
				}
			}

			for range 2 {
				must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Destroy(tx, id) }))
			}
			has(false)
		}
	})
}

func TestPutTwice(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		p, q := generate(t, "ed25519"), generate(t, "ed25519")
		put := func(id trust.KeyID, p Private) error {
			return update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, id, p) })
		}
		must(t, put("a", p))
		must(t, put("a", p))
		if err := put("a", q); trust.KindOf(err) != trust.Conflict {
			t.Errorf("another key under the same id: %v, want conflict", err)
		}
		signer, err := k.Signer(t.Context(), storetest.Tenant, "a")
		if err != nil || trust.PublicKeyOf(signer.PublicKey()) != p.Public() {
			t.Errorf("signs as %v, %v, want %v", signer, err, p)
		}
		for name, bad := range map[string]Private{"no key": {}, "a line break": {Comment: "a\nb", half: p.half}, "long": {Comment: strings.Repeat("x", maxComment+1), half: p.half}} {
			if err := put("b", bad); trust.KindOf(err) != trust.Invalid {
				t.Errorf("%s: %v, want invalid", name, err)
			}
		}
		if err := put("", p); trust.KindOf(err) != trust.Invalid {
			t.Errorf("no id: %v, want invalid", err)
		}
	})
}

// Reveal leaves its mark in the event and at the key, and cannot be had in a
// View, where it would leave none.
func TestRevealIsRecorded(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		p := generate(t, "ed25519")
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "a", p) }))
		revealed := func() (at int64) {
			must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
				return tx.QueryRow(`SELECT revealed FROM private_keys WHERE id = $1`, "a").Scan(&at)
			}))
			return at
		}
		err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			if text, err := k.Reveal(tx, "a", PEM); err == nil || len(text.Bytes()) != 0 {
				t.Errorf("Reveal in a View gives %d bytes, %v", len(text.Bytes()), err)
			}
			return nil
		})
		if err == nil {
			t.Error("a View with a Reveal in it succeeds")
		}
		if at := revealed(); at != 0 {
			t.Errorf("revealed at %d before it was", at)
		}
		for _, format := range []Format{"", "ppk", "OPENSSH"} {
			err := update(s, storetest.Tenant, func(tx *store.Tx) error { _, err := k.Reveal(tx, "a", format); return err })
			if trust.KindOf(err) != trust.Invalid {
				t.Errorf("format %q: %v, want invalid", format, err)
			}
		}
		ev := storetest.Event()
		ev.Action, ev.Subject = "key.reveal", "key:a"
		must(t, s.Update(t.Context(), ev, func(tx *store.Tx) error { _, err := k.Reveal(tx, "a", PEM); return err }))
		if revealed() == 0 {
			t.Error("the key does not remember that it was revealed")
		}
		must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			var leaf []byte
			must(t, tx.QueryRow(`SELECT leaf FROM events WHERE action = $1`, "key.reveal").Scan(&leaf))
			l, err := audit.DecodeLeaf(leaf)
			must(t, err)
			if len(l.Fields) != 1 || l.Fields[0].Value != string(p.Public().Fingerprint()) {
				t.Errorf("the event's fields are %v, want the fingerprint", l.Fields)
			}
			return nil
		}))
	})
}

// Another tenant's key, and another tenant's anything, is answered as one that
// nobody has.
func TestTenantsAreApart(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		p := generate(t, "ed25519")
		var sealed []byte
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) (err error) {
			sealed, err = k.SealPersonal(tx, storetest.Tenant, "user:1", []byte("Alice"))
			return errors.Join(err, k.Put(tx, "a", p), k.Seal(tx, "snapshot", "a", []byte("text")))
		}))
		same := func(what string, ask func(*store.Tx, string) error) {
			t.Helper()
			var answers []string
			for _, id := range []string{"a", "b"} {
				err := update(s, storetest.Other, func(tx *store.Tx) error { return ask(tx, id) })
				answers = append(answers, fmt.Sprint(trust.KindOf(err), strings.ReplaceAll(fmt.Sprint(err), `"`+id+`"`, "ID")))
			}
			if answers[0] != answers[1] || !strings.HasPrefix(answers[0], "not found") {
				t.Errorf("%s: another's is answered %q, nobody's %q", what, answers[0], answers[1])
			}
		}
		same("Reveal", func(tx *store.Tx, id string) error { _, err := k.Reveal(tx, trust.KeyID(id), PEM); return err })
		same("Unseal", func(tx *store.Tx, id string) error { _, err := k.Unseal(tx, "snapshot", id); return err })
		same("Signer", func(_ *store.Tx, id string) error {
			_, err := k.Signer(context.Background(), storetest.Other, trust.KeyID(id))
			return err
		})
		must(t, update(s, storetest.Other, func(tx *store.Tx) error {
			if _, err := k.UnsealPersonal(tx, "user:1", sealed); trust.KindOf(err) != trust.NotFound {
				t.Errorf("another tenant's person: %v", err)
			}
			if has, err := k.Has(tx, "a"); has || err != nil {
				t.Errorf("another tenant's key: Has = %t, %v", has, err)
			}
			return errors.Join(k.Destroy(tx, "a"), k.Forget(tx, "snapshot", "a"), k.ErasePerson(tx, "user:1"))
		}))
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error {
			_, err1 := k.Reveal(tx, "a", PEM)
			_, err2 := k.Unseal(tx, "snapshot", "a")
			_, err3 := k.UnsealPersonal(tx, "user:1", sealed)
			return errors.Join(err1, err2, err3)
		}))
		if err := s.View(t.Context(), store.System, func(tx *store.Tx) error { return k.Seal(tx, "snapshot", "a", nil) }); err == nil {
			t.Error("sealed for no tenant")
		}
	})
}

func TestSeal(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		seal := func(kind, id string, plain []byte) error {
			return update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Seal(tx, kind, id, plain) })
		}
		unseal := func(kind, id string) (plain []byte, err error) {
			err = s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
				plain, err = k.Unseal(tx, kind, id)
				return err
			})
			return plain, err
		}
		for _, plain := range [][]byte{{}, []byte("first"), bytes.Repeat([]byte{0, 1, 0xff}, 100_000)} {
			must(t, seal("snapshot", "run/1:/home/a/.ssh/authorized_keys", plain))
			if got, err := unseal("snapshot", "run/1:/home/a/.ssh/authorized_keys"); err != nil || !bytes.Equal(got, plain) {
				t.Errorf("%d bytes come back as %d, %v", len(plain), len(got), err)
			}
		}
		if _, err := unseal("snapshot", "other"); trust.KindOf(err) != trust.NotFound {
			t.Errorf("what was never sealed: %v", err)
		}
		for range 2 {
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error {
				return k.Forget(tx, "snapshot", "run/1:/home/a/.ssh/authorized_keys")
			}))
		}
		if _, err := unseal("snapshot", "run/1:/home/a/.ssh/authorized_keys"); trust.KindOf(err) != trust.NotFound {
			t.Errorf("what was forgotten: %v", err)
		}
		for _, c := range []struct {
			kind, id string
			size     int
			want     trust.Kind
		}{
			{"", "a", 1, trust.Invalid},
			{"private key", "a", 1, trust.Invalid},
			{"Snapshot", "a", 1, trust.Invalid},
			{strings.Repeat("x", 65), "a", 1, trust.Invalid},
			{"snapshot", "", 1, trust.Invalid},
			{"snapshot", strings.Repeat("x", 513), 1, trust.Invalid},
			{"snapshot", "a", MaxSealed + 1, trust.Exhausted},
		} {
			if err := seal(c.kind, c.id, make([]byte, c.size)); trust.KindOf(err) != c.want {
				t.Errorf("kind %.20q id %.20q of %d bytes: %v, want %v", c.kind, c.id, c.size, err, c.want)
			}
		}
	})
}

// Any changed byte, and bytes of another row, fail to open; nothing of the
// plaintext comes back.
func TestTamperedRowsDoNotOpen(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		p, q := generate(t, "ed25519"), generate(t, "ecdsa-p256")
		for _, tenant := range []trust.TenantID{storetest.Tenant, storetest.Other} {
			must(t, update(s, tenant, func(tx *store.Tx) error {
				return errors.Join(
					k.Put(tx, "p", p), k.Put(tx, "q", q),
					k.Seal(tx, "snapshot", "one", []byte("the first")), k.Seal(tx, "snapshot", "two", []byte("the second")),
					k.Seal(tx, "seed", "one", []byte("a seed")))
			}))
		}
		reads := map[string]func(*store.Tx) error{
			"private_keys":  func(tx *store.Tx) error { _, err := k.private(tx, "p"); return err },
			"sealed_values": func(tx *store.Tx) error { _, err := k.Unseal(tx, "snapshot", "one"); return err },
			"keysets":       func(tx *store.Tx) error { _, err := k.Unseal(tx, "snapshot", "one"); return err },
		}
		column := map[string]string{"private_keys": "sealed", "sealed_values": "sealed", "keysets": "wrapped"}
		where := map[string]string{"private_keys": "id = 'p'", "sealed_values": "kind = 'snapshot' AND id = 'one'", "keysets": "id = 'data'"}
		errTry := errors.New("try")
		// with runs the read in a transaction in which the bytes have been
		// replaced, and takes the change back.
		with := func(table string, bytes []byte) error {
			var got error
			err := update(s, storetest.Tenant, func(tx *store.Tx) error {
				_, err := tx.Exec(fmt.Sprintf(`UPDATE %s SET %s = $1 WHERE tenant = $2 AND %s`, table, column[table], where[table]), bytes, storetest.Tenant)
				if err != nil {
					return err
				}
				got = reads[table](tx)
				return errTry
			})
			if !errors.Is(err, errTry) {
				t.Fatal(err)
			}
			return got
		}
		current := func(table string, tenant trust.TenantID, where string) (b []byte) {
			must(t, s.View(t.Context(), tenant, func(tx *store.Tx) error {
				return tx.QueryRow(fmt.Sprintf(`SELECT %s FROM %s WHERE tenant = $1 AND %s`, column[table], table, where), tenant).Scan(&b)
			}))
			return b
		}
		for table := range reads {
			good := current(table, storetest.Tenant, where[table])
			if err := with(table, good); err != nil {
				t.Fatalf("%s: its own bytes do not open: %v", table, err)
			}
			for i := range good {
				bad := bytes.Clone(good)
				bad[i] ^= 1 << (i % 8)
				if err := with(table, bad); err == nil {
					t.Errorf("%s: opens with byte %d of %d changed", table, i, len(good))
				}
			}
			for _, bad := range [][]byte{{}, good[:len(good)-1], append(bytes.Clone(good), 0), good[5:]} {
				if err := with(table, bad); err == nil {
					t.Errorf("%s: opens cut or extended", table)
				}
			}
			if err := with(table, current(table, storetest.Other, where[table])); err == nil {
				t.Errorf("%s: opens with the bytes of another tenant's", table)
			}
		}
		for table, others := range map[string][]string{
			"private_keys":  {"id = 'q'"},
			"sealed_values": {"id = 'two'", "kind = 'seed' AND id = 'one'"},
			"keysets":       nil,
		} {
			for _, other := range others {
				if err := with(table, current(table, storetest.Tenant, other)); err == nil {
					t.Errorf("%s: opens with the bytes of the row of %s", table, other)
				}
			}
		}
		// Nor do both, moved together from another tenant.
		moved := errors.New("moved")
		others := map[string][]byte{}
		for _, table := range []string{"keysets", "sealed_values"} {
			others[table] = current(table, storetest.Other, where[table])
		}
		err := update(s, storetest.Tenant, func(tx *store.Tx) error {
			for _, table := range []string{"keysets", "sealed_values"} {
				_, err := tx.Exec(fmt.Sprintf(`UPDATE %s SET %s = $1 WHERE tenant = $2 AND %s`, table, column[table], where[table]),
					others[table], storetest.Tenant)
				if err != nil {
					return err
				}
			}
			if plain, err := k.Unseal(tx, "snapshot", "one"); err == nil {
				t.Errorf("opens %q, moved from another tenant together with its keyset", plain)
			}
			return moved
		})
		if !errors.Is(err, moved) {
			t.Fatal(err)
		}
		// The public half beside it is not sealed; a swap is found all the same.
		err = update(s, storetest.Tenant, func(tx *store.Tx) error {
			if _, err := tx.Exec(`UPDATE private_keys SET public = $1 WHERE tenant = $2 AND id = 'p'`, q.Public().Blob(), storetest.Tenant); err != nil {
				return err
			}
			_, err := k.private(tx, "p")
			return err
		})
		if err == nil {
			t.Error("opens beside the public half of another key")
		}
	})
}

// A data keyset made by a transaction that was rolled back is not sealed with
// afterwards: nobody could open it.
func TestRolledBackKeysetIsForgotten(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kek := testKEK(t, "kek")
		k := open(t, s, kek)
		gone := errors.New("gone")
		err := update(s, storetest.Tenant, func(tx *store.Tx) error {
			must(t, k.Seal(tx, "snapshot", "a", []byte("lost")))
			must(t, k.Seal(tx, "snapshot", "b", []byte("lost")))
			_, err := k.SealPersonal(tx, storetest.Tenant, "user:1", []byte("Alice"))
			must(t, err)
			if _, err := k.Unseal(tx, "snapshot", "a"); err != nil {
				t.Errorf("in its own transaction: %v", err)
			}
			return gone
		})
		if !errors.Is(err, gone) {
			t.Fatal(err)
		}
		var sealed []byte
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) (err error) {
			sealed, err = k.SealPersonal(tx, storetest.Tenant, "user:1", []byte("Alice"))
			return errors.Join(err, k.Seal(tx, "snapshot", "a", []byte("kept")))
		}))
		fresh := open(t, s, kek)
		must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			if got, err := fresh.Unseal(tx, "snapshot", "a"); err != nil || string(got) != "kept" {
				t.Errorf("another process reads %q, %v", got, err)
			}
			if got, err := fresh.UnsealPersonal(tx, "user:1", sealed); err != nil || string(got) != "Alice" {
				t.Errorf("another process reads personal %q, %v", got, err)
			}
			return nil
		}))
	})
}

func TestErasedPerson(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		seal := func(person, value string) (sealed []byte) {
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) (err error) {
				sealed, err = k.SealPersonal(tx, storetest.Tenant, person, []byte(value))
				return err
			}))
			return sealed
		}
		unseal := func(person string, sealed []byte) (plain []byte, err error) {
			err = s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
				plain, err = k.UnsealPersonal(tx, person, sealed)
				return err
			})
			return plain, err
		}
		alice, bob := seal("user:alice", "Alice, 192.0.2.1"), seal("user:bob", "Bob")
		for person, sealed := range map[string][]byte{"user:alice": alice, "user:bob": bob} {
			if got, err := unseal(person, sealed); err != nil || len(got) == 0 {
				t.Errorf("%s: %q, %v", person, got, err)
			}
		}
		if got, err := unseal("user:bob", alice); err == nil {
			t.Errorf("bob's key opens alice's: %q", got)
		}
		for range 2 {
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.ErasePerson(tx, "user:alice") }))
		}
		if got, err := unseal("user:alice", alice); trust.KindOf(err) != trust.NotFound {
			t.Errorf("after erasure: %q, %v", got, err)
		}
		if again := seal("user:alice", "Alice"); len(again) != 0 {
			t.Errorf("an erased person has something sealed to: %d bytes", len(again))
		}
		if got, err := unseal("user:bob", bob); err != nil || string(got) != "Bob" {
			t.Errorf("bob after alice's erasure: %q, %v", got, err)
		}
		// Someone may ask to be forgotten who never was known.
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.ErasePerson(tx, "user:carol") }))
		if again := seal("user:carol", "Carol"); len(again) != 0 {
			t.Errorf("carol has something sealed to: %d bytes", len(again))
		}
		err := update(s, storetest.Tenant, func(tx *store.Tx) error {
			_, err := k.SealPersonal(tx, storetest.Other, "user:alice", nil)
			return err
		})
		if err == nil {
			t.Error("sealed for another tenant than the transaction's")
		}
	})
}

func TestWrongKEK(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		right, wrong := testKEK(t, "kek"), testKEK(t, "other")
		open(t, s, right)
		_, err := Open(t.Context(), s, wrong)
		if trust.KindOf(err) != trust.Denied || !strings.Contains(err.Error(), right.Name()) || !strings.Contains(err.Error(), wrong.Name()) {
			t.Errorf("with another KEK: %v, want denied, naming both", err)
		}
		if _, err := Open(t.Context(), s, KEK{}); trust.KindOf(err) != trust.Invalid {
			t.Errorf("without a KEK: %v", err)
		}
		// A KEK that only bears the name of the right one opens nothing.
		forged := wrong
		forged.name = right.name
		if _, err := Open(t.Context(), s, forged); err == nil {
			t.Error("opened by a forged name")
		}
	})
}

func TestRewrap(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		before, after := testKEK(t, "kek"), testKEK(t, "next")
		k := open(t, s, before)
		p := generate(t, "ed25519")
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "a", p) }))
		after.after = before.name
		must(t, update(s, trust.Installation, func(tx *store.Tx) error { return k.Rewrap(tx, after) }))
		if _, err := Open(t.Context(), s, before); trust.KindOf(err) != trust.Denied {
			t.Errorf("with the KEK of before: %v, want denied", err)
		}
		for name, k := range map[string]*Keyring{"the process that runs": k, "one that starts": open(t, s, after)} {
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, trust.KeyID(name), p) }))
			for _, id := range []trust.KeyID{"a", trust.KeyID(name)} {
				if _, err := k.Signer(t.Context(), storetest.Tenant, id); err != nil {
					t.Errorf("%s: key %q: %v", name, id, err)
				}
			}
		}
	})
}

func TestRotateData(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kek := testKEK(t, "kek")
		here, there := open(t, s, kek), open(t, s, kek) // two nodes
		seal := func(k *Keyring, id string) {
			t.Helper()
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Seal(tx, "snapshot", id, []byte(id)) }))
		}
		keyOf := func(id string) (prefix string) {
			must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
				sealed, _, err := selectSealed(tx, "snapshot", id)
				prefix = string(sealed[:5])
				return err
			}))
			return prefix
		}
		seal(here, "one")
		seal(there, "two")
		must(t, update(s, storetest.Tenant, here.RotateData))
		seal(here, "three")
		seal(there, "four")
		if keyOf("one") != keyOf("two") || keyOf("three") != keyOf("four") || keyOf("one") == keyOf("three") {
			t.Errorf("keys %x %x, then %x %x: want one key before and another after", keyOf("one"), keyOf("two"), keyOf("three"), keyOf("four"))
		}
		for _, k := range []*Keyring{here, there, open(t, s, kek)} {
			for _, id := range []string{"one", "two", "three", "four"} {
				must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
					got, err := k.Unseal(tx, "snapshot", id)
					if string(got) != id {
						t.Errorf("%s reads as %q", id, got)
					}
					return err
				}))
			}
		}
		must(t, update(s, storetest.Other, here.RotateData)) // nothing sealed yet
	})
}

// Nodes that start on an empty database at the same time agree on one root, and
// transactions that first seal for a tenant on one keyset.
func TestFirstSealsRace(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kek := testKEK(t, "kek")
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				k, err := Open(context.Background(), s, kek)
				if err != nil {
					t.Error(err)
					return
				}
				err = update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Seal(tx, "snapshot", fmt.Sprint(n), []byte("text")) })
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		k := open(t, s, kek)
		must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			for n := range 8 {
				if got, err := k.Unseal(tx, "snapshot", fmt.Sprint(n)); err != nil || string(got) != "text" {
					t.Errorf("%d: %q, %v", n, got, err)
				}
			}
			return nil
		}))
	})
}

// A thief of the data directory, or of a dump, finds no private byte in it, in
// no spelling.
func TestStolenData(t *testing.T) {
	need.Long(t)
	secrets := map[string][]byte{"snapshot": []byte("ssh-ed25519 AAAA this is line one of a snapshot\n"), "person": []byte("alice.liddell@example.org 192.0.2.77")}
	fill := func(t *testing.T, s *store.Store) {
		kekPath := filepath.Join(t.TempDir(), "kek")
		kek, err := LoadKEK(kekPath, "", true)
		must(t, err)
		text, err := os.ReadFile(kekPath)
		must(t, err)
		secrets["kek file"] = bytes.Fields(text)[4]
		k := open(t, s, kek)
		for i, spec := range specs {
			p, err := Generate(spec)
			must(t, err)
			p.Comment = "a comment that nobody should read"
			secrets["comment"] = []byte(p.Comment)
			for name, raw := range rawHalves(t, p) {
				secrets[spec.Type+" "+name] = raw
			}
			for _, format := range Formats {
				text, err := p.text(format)
				must(t, err)
				for n, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
					// What holds only the header of the container or the
					// public half is no secret; the end of each is.
					if n > strings.Count(string(text), "\n")/2 && len(line) > 40 && !strings.HasPrefix(line, "-") {
						secrets[fmt.Sprintf("%s %s line %d", spec.Type, format, n)] = []byte(line)
					}
				}
			}
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, trust.KeyID(fmt.Sprint("key-", i)), p) }))
		}
		ready := smallRSA(t)
		for name, raw := range rawHalves(t, ready) {
			secrets["ready key's "+name] = raw
		}
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error {
			_, err := k.SealPersonal(tx, storetest.Tenant, "user:1", secrets["person"])
			return errors.Join(err, k.putReady(tx, ready), k.Seal(tx, "snapshot", "marker-of-a-snapshot", secrets["snapshot"]))
		}))
		secrets["passphrase"] = []byte("correct horse battery")
		must(t, k.move(t.Context(), Passphrase(write(t, filepath.Join(t.TempDir(), "passphrase"), string(secrets["passphrase"])), "")))
		root := keysetKey(t, k.handle)
		secrets["root key"] = root
		must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
			wrapped, err := selectData(tx)
			must(t, err)
			data, err := unwrapKeyset(wrapped, k.root, binding{storetest.Tenant, kindKeyset, ""})
			must(t, err)
			secrets["data key"] = keysetKey(t, data)
			return nil
		}))
	}
	search := func(t *testing.T, name string, content []byte) {
		t.Helper()
		for what, raw := range secrets {
			if contains(content, raw) {
				t.Errorf("%s holds the %s", name, what)
			}
		}
		for _, words := range []string{"PRIVATE KEY", openSSHMagic[:14]} {
			if contains(content, []byte(words)) {
				t.Errorf("%s holds %q", name, words)
			}
		}
	}

	t.Run("sqlite", func(t *testing.T) {
		dir := t.TempDir()
		s := storetest.OpenURL(t, "sqlite:"+filepath.Join(dir, "keyturn.db"), schemas...)
		fill(t, s)
		var all []byte
		files := 0
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			search(t, filepath.Base(path), content)
			all = append(all, content...)
			files++
			return err
		}))
		// What has to be there is: the search looked at the right files.
		if files < 3 || !bytes.Contains(all, []byte("marker-of-a-snapshot")) {
			t.Errorf("%d files searched, and what is public is not in them", files)
		}
	})
	t.Run("postgres", func(t *testing.T) {
		dump := need.Program(t, "pg_dump", "postgresql-client")
		url := storetest.Postgres(t, schemas...)
		fill(t, storetest.OpenURL(t, url, schemas...))
		cmd := exec.Command(dump, "--enable-row-security", url)
		cmd.Env = append(os.Environ(), "PGOPTIONS=-c keyturn.tenant=*") // of every tenant
		out, err := cmd.Output()
		if err != nil {
			var exit *exec.ExitError
			errors.As(err, &exit)
			t.Fatalf("pg_dump: %v\n%s", err, exit.Stderr)
		}
		search(t, "the dump", out)
		if !bytes.Contains(out, []byte("marker-of-a-snapshot")) {
			t.Error("what is public is not in the dump")
		}
	})
}

// What was destroyed, forgotten or erased is not left behind in a corner of the
// database, where today's KEK would still open it.
func TestDestroyedLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.Options{URL: "sqlite:" + filepath.Join(dir, "keyturn.db"), Schema: schemas})
	must(t, err)
	k := open(t, s, testKEK(t, "kek"))
	p := generate(t, "ed25519")
	sealed := map[string][]byte{}
	must(t, update(s, storetest.Tenant, func(tx *store.Tx) error {
		_, err := k.SealPersonal(tx, storetest.Tenant, "user:1", []byte("Alice"))
		return errors.Join(err, k.Put(tx, "a", p), k.Seal(tx, "snapshot", "a", []byte("text")))
	}))
	must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
		var err1, err2, err3 error
		_, sealed["private key"], _, err1 = selectPrivate(tx, "a")
		sealed["snapshot"], _, err2 = selectSealed(tx, "snapshot", "a")
		sealed["person"], _, err3 = selectPerson(tx, "user:1")
		return errors.Join(err1, err2, err3)
	}))
	search := func() (found []string) {
		must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			content, err := os.ReadFile(path)
			for what, b := range sealed {
				if bytes.Contains(content, b[5:]) {
					found = append(found, what+" in "+d.Name())
				}
			}
			return err
		}))
		return found
	}
	if found := search(); len(found) < len(sealed) {
		t.Fatalf("the search does not find what is there: %q", found)
	}
	must(t, update(s, storetest.Tenant, func(tx *store.Tx) error {
		return errors.Join(k.Destroy(tx, "a"), k.Forget(tx, "snapshot", "a"), k.ErasePerson(tx, "user:1"))
	}))
	must(t, s.Close()) // which empties the write-ahead log
	if found := search(); len(found) != 0 {
		t.Errorf("left behind: %q", found)
	}
}

// What a signature costs beside the read, opening and parsing of its key.
func BenchmarkSigner(b *testing.B) {
	s := storetest.Open(b, schemas...)
	k := open(b, s, testKEK(b, "kek"))
	for _, spec := range []Spec{{Type: "ed25519"}, {Type: "ecdsa-p256"}, {Type: "rsa", Bits: 4096}} {
		p, err := Generate(spec)
		must(b, err)
		id := trust.KeyID(spec.Type)
		must(b, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, id, p) }))
		b.Run(spec.Type+"/Signer", func(b *testing.B) {
			for b.Loop() {
				if _, err := k.Signer(b.Context(), storetest.Tenant, id); err != nil {
					b.Fatal(err)
				}
			}
		})
		signer, err := k.Signer(b.Context(), storetest.Tenant, id)
		must(b, err)
		b.Run(spec.Type+"/Sign", func(b *testing.B) {
			for b.Loop() {
				if _, err := signer.Sign(nil, []byte("data")); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// An event with one person in it, with and without that person's data sealed.
func BenchmarkSealPersonal(b *testing.B) {
	s := storetest.Open(b, schemas...)
	k := open(b, s, testKEK(b, "kek"))
	must(b, update(s, storetest.Tenant, func(tx *store.Tx) error {
		_, err := k.SealPersonal(tx, storetest.Tenant, "user:1", nil)
		return err
	}))
	must(b, update(s, storetest.Tenant, func(tx *store.Tx) error {
		for b.Loop() {
			if _, err := k.SealPersonal(tx, storetest.Tenant, "user:1", []byte("alice 192.0.2.1")); err != nil {
				return err
			}
		}
		return nil
	}))
}
