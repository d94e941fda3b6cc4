// Package keyring holds every private byte of Keyturn: private keys of users
// and hosts, seeds, snapshots of files, the keys that open personal data. They
// are sealed in the database; they leave as signatures, or by Reveal, which is
// audited, or not at all.
//
// Three layers of keys, outermost first:
//
//	KEK            a key file, a command's output, a passphrase, or a key that a
//	               KMS opens: not in the database, not in its backups
//	root keyset    one row, wrapped by the KEK; read once, at Open
//	data keyset    one row per tenant, wrapped by the root keyset
//	sealed bytes   AES-256-GCM under the data keyset, bound to (tenant, kind, id)
//
// Passwords for a single login are not sealed at all: see Lend.
//
// The root keyset stands between so that a KEK which answers over a network is
// asked once, at start, and never inside a transaction, and so that another KEK
// is one row rewritten. Keysets are Tink's: they rotate by construction, since
// each ciphertext names the key it was made with.
//
// What is sealed opens only in its own row. A thief of the data directory or of
// a dump gets public halves, ids, kinds, sizes and times, and no private byte;
// docs/design/0003-secrets-at-rest.md says what a thief of other things gets.
package keyring

import (
	"bytes"
	"context"
	"database/sql"
	"embed"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/tink-crypto/tink-go/v2/keyset"

	"github.com/tink-crypto/tink-go/v2/aead"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema is this package's part of the database.
//
//go:embed migrations/*.sql
var Schema embed.FS

// A Keyring opens what is sealed in one database. It serves every tenant: the
// transaction that a method is given says which. It is safe for concurrent use.
type Keyring struct {
	store *store.Store
	root  *sealer
	// handle is the root keyset itself, for Rewrap.
	handle *keyset.Handle
	source Source // of the KEK
	left   string // see Left

	mu    sync.Mutex
	cache map[trust.TenantID]*cached // guarded by mu
	lent  map[loan]lent              // guarded by mu; see Lend
	asked map[pool]bool              // guarded by mu: those that may lack ready keys
	kept  map[binding]*opened        // guarded by mu: private halves that are open, see openFor
	// claimed are the ready keys that Make has handed out and that are not put yet.
	claimed map[string]bool // guarded by mu
	wake    chan struct{}   // of Stock

	working chan struct{} // one for each Read and Make at work
	queue   chan struct{} // one for each, at work or not
	large   sync.Mutex    // held by the one Read at work of a file that isLarge
}

// A cached data keyset saves the unwrapping, never the reading: it counts only
// for a row that holds the very bytes it was unwrapped from. A keyset that a
// transaction made and that was then rolled back is so never sealed with again.
type cached struct {
	wrapped []byte
	sealer  *sealer
}

// Open opens the keyring in s with the KEK that wraps its root keyset, and makes
// the root keyset where there is none yet. Another KEK is refused, with an error
// of kind Denied that names the one expected and the one given.
func Open(ctx context.Context, s *store.Store, kek KEK) (*Keyring, error) {
	if kek.aead == nil {
		return nil, trust.Errorf(trust.Invalid, "no key-encryption key was given")
	}
	r, err := readRoot(ctx, s)
	if err != nil {
		return nil, err
	}
	if r.name == "" {
		err = makeRoot(ctx, s, kek)
		// Another node that starts at the same time may have been first.
		if err != nil && trust.KindOf(err) != trust.Conflict {
			return nil, err
		}
		if r, err = readRoot(ctx, s); err != nil {
			return nil, err
		}
	}
	if r.name != kek.name {
		return nil, r.wrong(kek)
	}
	handle, err := unwrapKeyset(r.wrapped, &sealer{*kek.aead}, binding{trust.Installation, kindRoot, r.name})
	if err != nil {
		return nil, err
	}
	sealer, err := newSealer(handle)
	if err != nil {
		return nil, err
	}
	return &Keyring{store: s, root: sealer, handle: handle, source: kek.source, left: kek.left, cache: map[trust.TenantID]*cached{}, lent: map[loan]lent{}, asked: map[pool]bool{}, kept: map[binding]*opened{}, claimed: map[string]bool{}, wake: make(chan struct{}, 1), working: make(chan struct{}, maxWorking), queue: make(chan struct{}, maxQueue)}, nil
}

// To open a private key file may take ten seconds of a CPU and 256 MiB, as its writer
// chose, and to make an RSA key some seconds. So much is done at a time for those who
// ask from outside, and so much more waits for it.
const (
	maxWorking = 2
	maxQueue   = 16
)

// Read is Parse, in turn with others.
func (k *Keyring) Read(ctx context.Context, file, passphrase []byte) (Private, error) {
	done, err := k.turn(ctx)
	if err != nil {
		return Private{}, err
	}
	defer done()
	if isLarge(file) {
		k.large.Lock()
		defer k.large.Unlock()
		defer debug.FreeOSMemory() // until a collection, what one took would lie beside what the next takes
	}
	return Parse(file, passphrase)
}

// turn waits until fewer than maxWorking others work. done ends the work.
func (k *Keyring) turn(ctx context.Context) (done func(), err error) {
	select {
	case k.queue <- struct{}{}:
	default:
		return nil, trust.Errorf(trust.Exhausted, "%d private keys are being opened or made already", maxQueue).WithHint("try again in a while")
	}
	select {
	case k.working <- struct{}{}:
		return func() { <-k.working; <-k.queue }, nil
	case <-ctx.Done():
		<-k.queue
		return nil, trust.Errorf(trust.Unavailable, "private key: %w", context.Cause(ctx))
	}
}

// A root is what a database has of its root keyset. It is zero as long as nothing
// has been sealed.
type root struct {
	name    string // of the KEK that wraps it
	wrapped []byte
	seed    []byte // see Source
	since   time.Time
}

func readRoot(ctx context.Context, s *store.Store) (r root, err error) {
	err = s.View(ctx, store.System, func(tx *store.Tx) error {
		r, err = selectRoot(tx)
		return err
	})
	return r, err
}

func makeRoot(ctx context.Context, s *store.Store, kek KEK) error {
	_, wrapped, err := newKeyset(&sealer{*kek.aead}, binding{trust.Installation, kindRoot, kek.name})
	if err != nil {
		return err
	}
	return s.Update(ctx, audit.Event{
		Tenant:  trust.Installation,
		Actor:   audit.Actor{Kind: "system"},
		Action:  "keyring.create",
		Subject: "kek:" + kek.name,
	}, func(tx *store.Tx) error { return insertRoot(tx, kek, wrapped) })
}

// RotateData gives the tenant of tx a new data key, which seals from now on. What
// the earlier ones sealed still opens.
func (k *Keyring) RotateData(tx *store.Tx) error {
	b := binding{tx.Tenant(), kindKeyset, ""}
	if _, err := k.data(tx); err != nil { // makes the first one
		return err
	}
	wrapped, err := selectData(tx)
	if err != nil {
		return err
	}
	handle, err := unwrapKeyset(wrapped, k.root, b)
	if err != nil {
		return err
	}
	manager := keyset.NewManagerFromHandle(handle)
	id, err := manager.Add(aead.AES256GCMKeyTemplate())
	if err != nil {
		return err
	}
	if err := manager.SetPrimary(id); err != nil {
		return err
	}
	if handle, err = manager.Handle(); err != nil {
		return err
	}
	if wrapped, err = wrapKeyset(handle, k.root, b); err != nil {
		return err
	}
	return updateData(tx, wrapped)
}

// data returns what seals for the tenant of tx, which it makes at the first
// call. tx then has to be an Update's.
func (k *Keyring) data(tx *store.Tx) (*sealer, error) {
	wrapped, err := selectData(tx)
	if errors.Is(err, sql.ErrNoRows) {
		s, wrapped, err := newKeyset(k.root, binding{tx.Tenant(), kindKeyset, ""})
		if err != nil {
			return nil, err
		}
		return s, insertData(tx, wrapped)
	}
	if err != nil {
		return nil, err
	}
	return k.unwrapData(tx.Tenant(), wrapped)
}

// unwrapData returns what seals with the data keyset of a row that was just read.
func (k *Keyring) unwrapData(tenant trust.TenantID, wrapped []byte) (*sealer, error) {
	k.mu.Lock()
	c := k.cache[tenant]
	k.mu.Unlock()
	if c != nil && bytes.Equal(c.wrapped, wrapped) {
		return c.sealer, nil
	}
	handle, err := unwrapKeyset(wrapped, k.root, binding{tenant, kindKeyset, ""})
	if err != nil {
		return nil, err
	}
	s, err := newSealer(handle)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	k.cache[tenant] = &cached{bytes.Clone(wrapped), s}
	k.mu.Unlock()
	return s, nil
}
