package keyring

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"strconv"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// An RSA key of 4096 bits takes half a second of a CPU or several, and one of 2048 a
// tenth of that. So for a tenant that has asked for one, a few are kept ready, sealed like
// any other: Stock makes them when nobody else has anything made, and Make hands them out.

// A pool is the keys of one size that lie ready for a tenant.
type pool struct {
	tenant trust.TenantID
	bits   int
}

func (p pool) spec() Spec { return Spec{Type: "rsa", Bits: p.bits} }

// The sizes of which keys are kept ready: those that log in, as many as Stock is told, and
// those that sign tokens, of which a tenant needs one at a time.
const (
	loginBits = 4096
	tokenBits = 2048
)

// most returns how many keys are kept ready, of which so many are to log in.
func (p pool) most(login int) int {
	if p.bits == tokenBits {
		return min(login, 1)
	}
	return login
}

// ErrTaken is the cause of the Conflict in which Put ends for a key that another node
// has handed out since Make did. Another one is then to be made.
var ErrTaken = errors.New("the key that was ready has been taken")

// A ready is a key that lies ready: the private part of its container, without check
// of the numbers in it, which takes longer than all else and was done when it was made.
type ready struct {
	id      string
	part    []byte
	release func() // gives it back to those that Make may hand out
}

// Make makes a key pair for tenant, in turn with others, or hands out one that was
// ready: it is gone from those when Put has been committed, and lies there again after
// Wipe otherwise.
func (k *Keyring) Make(ctx context.Context, tenant trust.TenantID, spec Spec) (Private, error) {
	of := pool{tenant, spec.Bits}
	if spec == of.spec() && (spec.Bits == loginBits || spec.Bits == tokenBits) {
		k.ask(of)
		if p, err := k.takeReady(ctx, of); err != nil || !p.IsZero() {
			return p, err
		}
	}
	done, err := k.turn(ctx)
	if err != nil {
		return Private{}, err
	}
	defer done()
	return Generate(spec)
}

// ask notes that a tenant uses keys of a size.
func (k *Keyring) ask(of pool) {
	k.mu.Lock()
	k.asked[of] = true
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default: // it is awake
	}
}

// takeReady returns a key that lies ready in a pool and that nobody else of this process
// has, or none.
func (k *Keyring) takeReady(ctx context.Context, of pool) (p Private, err error) {
	err = k.store.View(ctx, of.tenant, func(tx *store.Tx) error {
		r, err := firstReady(tx, of.bits, k.claim)
		if err != nil || r.id == "" {
			return err
		}
		if p, err = k.openReady(of.tenant, r); err != nil {
			k.release(r.id)
		}
		return err
	})
	return p, err
}

func (k *Keyring) claim(id string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.claimed[id] {
		return false
	}
	k.claimed[id] = true
	return true
}

func (k *Keyring) release(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.claimed, id)
}

func (k *Keyring) openReady(tenant trust.TenantID, r readyRow) (Private, error) {
	data, err := k.unwrapData(tenant, r.keyset)
	if err != nil {
		return Private{}, err
	}
	part, err := data.open(binding{tenant, kindReady, r.id}, r.sealed)
	if err != nil {
		return Private{}, err
	}
	blob, err := trust.ParsePublicKeyBlob(r.public)
	if err != nil || string(blob.Fingerprint()) != r.id {
		return Private{}, trust.Errorf(trust.Internal, "ready key %q lies beside another public half", r.id)
	}
	h := &half{public: blob, format: OpenSSH, ready: &ready{id: r.id, part: part, release: func() { k.release(r.id) }}}
	return Private{half: func() *half { return h }}, nil
}

// text is Private.text in OpenSSH's container, for which only the comment is written
// anew.
func (r *ready) text(public trust.PublicKey, comment string) []byte {
	part := append(bytes.Clone(r.part), ssh.Marshal(struct{ Comment string }{comment})...)
	for i := byte(1); len(part)%8 != 0; i++ { // PROTOCOL.key, section 3: up to the block size of the cipher "none"
		part = append(part, i)
	}
	defer clear(part)
	return openSSHFile(openSSHContainer{Cipher: "none", KDF: "none", Keys: 1, Public: public.Blob(), Private: part})
}

// readyPart returns what is kept of a key that is to lie ready: the private part of
// its container up to the comment.
func readyPart(p Private) ([]byte, error) {
	p.Comment = ""
	text, err := p.text(OpenSSH)
	if err != nil {
		return nil, err
	}
	defer clear(text)
	block, _ := pem.Decode(text)
	defer clear(block.Bytes)
	var outer openSSHContainer
	if err := ssh.Unmarshal(block.Bytes[len(openSSHMagic):], &outer); err != nil {
		return nil, err
	}
	head, _, ok := cutOpenSSHComment(outer.Private)
	if !ok {
		return nil, trust.Errorf(trust.Internal, "ready key: its container cannot be read")
	}
	const empty = 4 // bytes of a comment that is
	return bytes.Clone(head[:len(head)-empty]), nil
}

// putReady has a key lie ready for the tenant of tx.
func (k *Keyring) putReady(tx *store.Tx, p Private) error {
	part, err := readyPart(p)
	if err != nil {
		return err
	}
	defer clear(part)
	data, err := k.data(tx)
	if err != nil {
		return err
	}
	id := string(p.Public().Fingerprint())
	sealed, err := data.seal(binding{tx.Tenant(), kindReady, id}, part)
	if err != nil {
		return err
	}
	return insertReady(tx, id, p.Public().Blob(), sealed)
}

// took removes the key that lies ready as r from those, in the commit that stores it.
func (r *ready) took(tx *store.Tx) error {
	n, err := deleteReady(tx, r.id)
	if err == nil && n == 0 {
		err = trust.Errorf(trust.Conflict, "%w", ErrTaken)
	}
	return err
}

// Drop destroys what lies ready for the tenant of tx beyond so many that log in.
func (k *Keyring) Drop(tx *store.Tx, beyond int) error {
	for _, bits := range []int{loginBits, tokenBits} {
		of := pool{tx.Tenant(), bits}
		ids, err := selectReadyIDs(tx, bits)
		if err != nil {
			return err
		}
		for _, id := range ids[min(of.most(beyond), len(ids)):] {
			if _, err := deleteReady(tx, id); err != nil {
				return err
			}
		}
	}
	return nil
}

// Stock makes keys ready until ctx ends: for each tenant that has asked for one, as
// many as size says. It begins a second after it was asked, makes one at a time, when
// nobody else has a key made or opened, and rests three times as long as that took.
func (k *Keyring) Stock(ctx context.Context, size func(*store.Tx) (int, error), failed func(error)) {
	const (
		calm  = time.Second            // lest a burst of those who ask wait for it
		look  = 100 * time.Millisecond // at whether others are done
		retry = time.Minute            // after an error
	)
	for rest := calm; ; {
		of, ok := k.wanting()
		if !ok {
			select {
			case <-ctx.Done():
				return
			case <-k.wake:
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
		k.heard(of) // first, lest a key that is taken after the look be forgotten
		begun := time.Now()
		worked, full, err := k.stockOne(ctx, of, size)
		if !full {
			k.ask(of)
		}
		switch {
		case err != nil && ctx.Err() == nil:
			failed(err)
			rest = retry
		case full:
			rest = calm
		case worked:
			rest = 3 * time.Since(begun)
		default:
			rest = look
		}
	}
}

// wanting returns a pool of which somebody has asked for a key and that may lack some.
func (k *Keyring) wanting() (pool, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for of := range k.asked {
		return of, true
	}
	return pool{}, false
}

// heard takes back that somebody has asked.
func (k *Keyring) heard(of pool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.asked, of)
}

// stockOne makes one key ready, unless there are enough, which is full, or others are
// at work.
func (k *Keyring) stockOne(ctx context.Context, of pool, size func(*store.Tx) (int, error)) (worked, full bool, err error) {
	lacking := func(tx *store.Tx) (ids []string, lacks bool, err error) {
		if ids, err = selectReadyIDs(tx, of.bits); err != nil {
			return nil, false, err
		}
		most, err := size(tx)
		return ids, len(ids) < of.most(most), err
	}
	err = k.store.View(ctx, of.tenant, func(tx *store.Tx) error {
		_, lacks, err := lacking(tx)
		full = !lacks
		return err
	})
	if err != nil || full || len(k.queue) > 0 {
		return false, full, err
	}
	done, err := k.turn(ctx)
	if err != nil {
		return false, false, err
	}
	p, err := Generate(of.spec())
	done()
	if err != nil {
		return false, false, err
	}
	defer p.Wipe()
	id := string(p.Public().Fingerprint())
	err = k.store.Update(ctx, audit.Event{
		Tenant: of.tenant, Actor: audit.Actor{Kind: "system", ID: "stock"}, Action: "key.prepare", Subject: "ready-key:" + id,
	}, func(tx *store.Tx) error {
		there, lacks, err := lacking(tx)
		if err != nil {
			return err
		}
		if !lacks {
			return trust.Errorf(trust.Conflict, "%w", errEnough)
		}
		tx.Note("ready", strconv.Itoa(len(there)+1))
		return k.putReady(tx, p)
	})
	if errors.Is(err, errEnough) {
		return true, true, nil
	}
	return true, false, err
}

// errEnough ends the Update of a key that another node was faster with.
var errEnough = errors.New("enough keys are ready")
