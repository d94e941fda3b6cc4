package keyring

import (
	"bytes"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// To open the private half of an authority takes longer than to sign with it, and one
// may sign thousands of times a second. So SignAgain keeps what it opened for openFor
// and no longer, in use or not; then it is wiped, as it is when this process destroys
// the key or changes the key-encryption key. What is kept counts only for a row that
// holds the very bytes that it was opened from, as the transaction that lets somebody
// sign has found it: where the row is gone or was sealed anew, by whichever process,
// nobody signs with it.
const (
	openFor = time.Minute
	maxOpen = 64 // private halves
)

// An opened private half.
type opened struct {
	sealed, keyset []byte // the row that it was opened from

	mu      sync.RWMutex // read by who signs
	private Private      // guarded by mu
	signer  ssh.Signer   // guarded by mu; nil once it is wiped
}

// sign reports false if o was wiped.
func (o *opened) sign(data []byte) (signature *ssh.Signature, ok bool, err error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.signer == nil {
		return nil, false, nil
	}
	signature, err = o.signer.Sign(nil, data) // without a random number
	return signature, true, err
}

// wipe waits for who signs.
func (o *opened) wipe() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.private.Wipe()
	o.private, o.signer = Private{}, nil
}

// opened returns the private half of s as it was kept, or opens and keeps it.
func (k *Keyring) opened(s Sealed) (*opened, error) {
	k.mu.Lock()
	o := k.keptFor(s)
	k.mu.Unlock()
	if o != nil {
		return o, nil
	}
	p, err := s.open()
	if err != nil {
		return nil, err
	}
	signer, err := newSigner(p.half())
	if err != nil {
		p.Wipe()
		return nil, err
	}
	return k.keep(s, &opened{sealed: s.sealed, keyset: s.keyset, private: p, signer: signer}), nil
}

// keptFor returns what is kept of s, or nil. k.mu is held.
func (k *Keyring) keptFor(s Sealed) *opened {
	o := k.kept[s.binding]
	if o == nil || !bytes.Equal(o.sealed, s.sealed) || !bytes.Equal(o.keyset, s.keyset) {
		return nil
	}
	return o
}

// keep keeps o for openFor, and returns what is kept: somebody may have been faster.
func (k *Keyring) keep(s Sealed, o *opened) *opened {
	k.mu.Lock()
	defer k.mu.Unlock()
	if there := k.keptFor(s); there != nil {
		go o.wipe()
		return there
	}
	if before := k.kept[s.binding]; before != nil {
		go before.wipe() // which waits for who signs
	} else if len(k.kept) >= maxOpen {
		for b, other := range k.kept {
			go other.wipe()
			delete(k.kept, b)
		}
	}
	k.kept[s.binding] = o
	time.AfterFunc(openFor, func() {
		k.close(func(_ binding, there *opened) bool { return there == o })
	})
	return o
}

// close wipes and forgets the private halves of which which says so.
func (k *Keyring) close(which func(binding, *opened) bool) {
	var closed []*opened
	k.mu.Lock()
	for b, o := range k.kept {
		if which(b, o) {
			closed = append(closed, o)
			delete(k.kept, b)
		}
	}
	k.mu.Unlock()
	for _, o := range closed {
		o.wipe()
	}
}
