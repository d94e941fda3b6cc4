package keyring

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// The pools of keys that log in, and that sign tokens.
var (
	logins = pool{storetest.Tenant, loginBits}
	tokens = pool{storetest.Tenant, tokenBits}
)

// smallRSA makes a key as one that lies ready to sign tokens: it takes less time.
func smallRSA(t testing.TB) Private {
	t.Helper()
	p, err := Generate(Spec{Type: "rsa", Bits: 2048})
	must(t, err)
	return p
}

func lyingReady(t testing.TB, s *store.Store, of pool) (ids []string) {
	t.Helper()
	must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
		ids, err = selectReadyIDs(tx, of.bits)
		return err
	}))
	return ids
}

// A key that lay ready is as good as another, and is handed out once: to one of those
// who ask at the same time, and to no one else once it is stored.
func TestReadyKeys(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kek := testKEK(t, "kek")
		k, other := open(t, s, kek), open(t, s, kek)
		var all []string
		for range 3 {
			p := smallRSA(t)
			all = append(all, string(p.Public().Fingerprint()))
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.putReady(tx, p) }))
		}
		take := func(k *Keyring) Private {
			t.Helper()
			p, err := k.Make(t.Context(), storetest.Tenant, tokens.spec())
			must(t, err)
			return p
		}
		first, second := take(k), take(k)
		if a, b := first.Public().Fingerprint(), second.Public().Fingerprint(); string(a) != all[0] || string(b) != all[1] {
			t.Fatalf("handed out %s and %s of %q", a, b, all)
		}
		second.Wipe() // without having been stored
		if again := take(k); again.Public() != second.Public() {
			t.Errorf("what was given back is not handed out again: %s", again.Public().Fingerprint())
		}

		// Another node knows nothing of that, and is slower.
		late := take(other)
		if late.Public() != first.Public() {
			t.Fatalf("the other node has %s", late.Public().Fingerprint())
		}
		first.Comment = "deploy@ci"
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Put(tx, "a", first) }))
		first.Wipe()
		for _, id := range []trust.KeyID{"a", "b"} {
			err := update(s, storetest.Tenant, func(tx *store.Tx) error { return other.Put(tx, id, late) })
			if trust.KindOf(err) != trust.Conflict || !errors.Is(err, ErrTaken) {
				t.Errorf("the other node stores it as %q: %v, want that it was taken", id, err)
			}
		}
		if left := lyingReady(t, s, tokens); len(left) != 2 || left[0] != all[1] {
			t.Errorf("%q are left of %q", left, all)
		}

		// A commit that fails leaves it ready.
		failed := errors.New("failed")
		third := take(other)
		if err := update(s, storetest.Tenant, func(tx *store.Tx) error { return errors.Join(other.Put(tx, "c", third), failed) }); !errors.Is(err, failed) {
			t.Error(err)
		}
		if left := lyingReady(t, s, tokens); len(left) != 2 {
			t.Errorf("after a commit that failed %q are left", left)
		}

		var file Secret
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) (err error) {
			file, err = k.Reveal(tx, "a", PEM)
			return err
		}))
		var stored Private
		must(t, s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
			stored, err = k.private(tx, "a")
			return err
		}))
		if stored.Comment != "deploy@ci" || string(stored.Public().Fingerprint()) != all[0] {
			t.Errorf("stored is %s %q, want %s", stored.Public().Fingerprint(), stored.Comment, all[0])
		}
		for name, text := range map[string]string{"pem": string(file.Bytes()), "openssh": string(must1(late.text(OpenSSH)))} {
			out, err := exec.Command(keygen, "-lf", write(t, filepath.Join(t.TempDir(), name), text)).CombinedOutput()
			if err != nil || !strings.Contains(string(out), all[0]) {
				t.Errorf("ssh-keygen on %s: %v %s, want %s", name, err, out, all[0])
			}
		}
		if signer, err := late.Signer(); err != nil || signer.PublicKey().Type() != "ssh-rsa" {
			t.Errorf("its signer: %v", err)
		}

		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Drop(tx, 1) }))
		if left := lyingReady(t, s, tokens); len(left) != 1 || left[0] != all[1] {
			t.Errorf("dropped to %q, want the oldest of %q", left, all[1:])
		}
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Drop(tx, 5) }))
		must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Drop(tx, 0) }))
		if left := lyingReady(t, s, tokens); len(left) != 0 {
			t.Errorf("dropped all but %q", left)
		}
	})
}

func must1[T any](value T, err error) T {
	if err != nil {
		panic(err)
	}
	return value
}

// Many who ask at the same time, in two processes, get each key that is ready once.
func TestReadyKeysAreHandedOutOnce(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kek := testKEK(t, "kek")
		nodes := []*Keyring{open(t, s, kek), open(t, s, kek)}
		const ready = 6
		for range ready {
			p := smallRSA(t)
			must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return nodes[0].putReady(tx, p) }))
		}
		var wg sync.WaitGroup
		var mu sync.Mutex
		stored := map[trust.Fingerprint]int{}
		for i := range ready {
			wg.Go(func() {
				for {
					p, err := nodes[i%2].takeReady(context.Background(), tokens)
					if err != nil || p.IsZero() {
						t.Errorf("there was nothing: %v", err)
						return
					}
					id := p.Public().Fingerprint()
					err = update(s, storetest.Tenant, func(tx *store.Tx) error { return nodes[i%2].Put(tx, trust.KeyID(id), p) })
					p.Wipe()
					if errors.Is(err, ErrTaken) {
						continue
					}
					if err != nil {
						t.Error(err)
					}
					mu.Lock()
					stored[id]++
					mu.Unlock()
					return
				}
			})
		}
		wg.Wait()
		if left := lyingReady(t, s, tokens); len(stored) != ready || len(left) != 0 {
			t.Errorf("%v were handed out, %q are left", stored, left)
		}
	})
}

// Keys are made ready for who has asked for one, and as many as were said.
func TestStock(t *testing.T) {
	t.Parallel()
	need.Within(t, 3*time.Minute)
	s := storetest.Open(t, schemas...)
	k := open(t, s, testKEK(t, "kek"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.Stock(ctx, func(*store.Tx) (int, error) { return 2, nil }, func(err error) { t.Error(err) })
	}()
	if _, err := k.Make(t.Context(), storetest.Tenant, Spec{Type: "ed25519"}); err != nil {
		t.Fatal(err)
	}
	if of, ok := k.wanting(); ok {
		t.Errorf("keys are made ready for %v, which has asked for none", of)
	}
	made, err := k.Make(t.Context(), storetest.Tenant, logins.spec())
	must(t, err)
	for len(lyingReady(t, s, logins)) < 2 {
		time.Sleep(10 * time.Millisecond)
	}
	cancel()
	<-done
	left := lyingReady(t, s, logins)
	if len(left) != 2 || left[0] == string(made.Public().Fingerprint()) {
		t.Errorf("%q are ready", left)
	}
	p, err := k.Make(t.Context(), storetest.Tenant, logins.spec())
	must(t, err)
	if string(p.Public().Fingerprint()) != left[0] || p.Public().Bits() != 4096 {
		t.Errorf("handed out is %s of %d bits, ready were %q", p.Public().Fingerprint(), p.Public().Bits(), left)
	}
	if worked, full, err := k.stockOne(t.Context(), logins, func(*store.Tx) (int, error) { return 0, nil }); worked || !full || err != nil {
		t.Errorf("with a pool of 0: %t, %t, %v", worked, full, err)
	}
}

// A key that is taken while Stock looks whether there are enough is made up for.
func TestStockHearsWhileItLooks(t *testing.T) {
	t.Parallel()
	need.Within(t, 3*time.Minute)
	s := storetest.Open(t, schemas...)
	k := open(t, s, testKEK(t, "kek"))
	ctx, cancel := context.WithCancel(t.Context())
	looks, done := 0, make(chan struct{})
	go func() {
		defer close(done)
		k.Stock(ctx, func(tx *store.Tx) (int, error) {
			if looks++; looks == 1 {
				k.ask(logins) // as one who takes a key at this instant
			} else {
				cancel()
			}
			return 0, nil
		}, func(err error) { t.Error(err) })
	}()
	k.ask(logins)
	<-done
}

// Beside keys that log in, one that signs tokens lies ready for who has asked for one, and
// each is handed out for what it is.
func TestStockOfTokenKeys(t *testing.T) {
	t.Parallel()
	need.Within(t, 3*time.Minute)
	s := storetest.Open(t, schemas...)
	k := open(t, s, testKEK(t, "kek"))
	stock := func(of pool, size int) (worked, full bool) {
		t.Helper()
		worked, full, err := k.stockOne(t.Context(), of, func(*store.Tx) (int, error) { return size, nil })
		must(t, err)
		return worked, full
	}
	for _, of := range []pool{logins, tokens} {
		if worked, full := stock(of, 2); !worked || full {
			t.Errorf("%+v: worked %t, full %t", of, worked, full)
		}
	}
	if worked, full := stock(tokens, 2); worked || !full {
		t.Errorf("of those that sign tokens, a second one: worked %t, full %t", worked, full)
	}
	if worked, full := stock(tokens, 0); worked || !full {
		t.Errorf("with a pool of 0: worked %t, full %t", worked, full)
	}
	ready := lyingReady(t, s, logins)
	for _, bits := range []int{2048, 4096} {
		p, err := k.Make(t.Context(), storetest.Tenant, Spec{Type: "rsa", Bits: bits})
		must(t, err)
		if lay := slices.Contains(ready, string(p.Public().Fingerprint())); p.Public().Bits() != bits || lay != (bits == loginBits) || p.half().ready == nil {
			t.Errorf("handed out for %d bits is one of %d, that lay ready: %t", bits, p.Public().Bits(), p.half().ready != nil)
		}
		p.Wipe()
	}
	must(t, update(s, storetest.Tenant, func(tx *store.Tx) error { return k.Drop(tx, 0) }))
	if p, err := k.Make(t.Context(), storetest.Tenant, tokens.spec()); err != nil || p.half().ready != nil {
		t.Errorf("after all were dropped one lay ready: %v", err)
	}
}
