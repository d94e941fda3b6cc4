package keyring

import (
	"bytes"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
)

// To open a private half takes longer than to sign with it. An authority may sign
// thousands of times a second, and the key of a run logs in to each of its hosts. So
// SignAgain and Signer keep what they opened for openFor and no longer, in use or not;
// then it is wiped, as it is when this process destroys the key or changes the
// key-encryption key. What is kept counts only for a row that
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
	signer  *signer      // guarded by mu; nil once it is wiped
}

// sign reports false if o was wiped.
func (o *opened) sign(random io.Reader, data []byte, algorithm string) (signature *ssh.Signature, ok bool, err error) {
	o.mu.RLock()
	defer o.mu.RUnlock()
	if o.signer == nil {
		return nil, false, nil
	}
	signature, err = o.signer.SignWithAlgorithm(random, data, algorithm)
	return signature, true, err
}

// sign signs with the private half of s as it is kept, or opens it again. The empty
// algorithm stands for the best, and no random for the same signature each time.
func (s Sealed) sign(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	for {
		o, err := s.keyring.opened(s)
		if err != nil {
			return nil, err
		}
		if signature, ok, err := o.sign(random, data, algorithm); ok {
			return signature, err
		}
	}
}

// A keptSigner signs with a private half that is kept open while it is in use.
type keptSigner struct {
	sealed     Sealed
	public     ssh.PublicKey
	algorithms []string
}

var _ ssh.MultiAlgorithmSigner = (*keptSigner)(nil)

// PublicKey implements ssh.Signer.
func (s *keptSigner) PublicKey() ssh.PublicKey { return s.public }

// Algorithms implements ssh.MultiAlgorithmSigner: best first.
func (s *keptSigner) Algorithms() []string { return slices.Clone(s.algorithms) }

// Sign implements ssh.Signer with the first of Algorithms.
func (s *keptSigner) Sign(random io.Reader, data []byte) (*ssh.Signature, error) {
	return s.sealed.sign(random, data, "")
}

// SignWithAlgorithm implements ssh.AlgorithmSigner.
func (s *keptSigner) SignWithAlgorithm(random io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	return s.sealed.sign(random, data, algorithm)
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
	signs, err := newSigner(p.half())
	if err != nil {
		p.Wipe()
		return nil, err
	}
	return k.keep(s, &opened{sealed: s.sealed, keyset: s.keyset, private: p, signer: signs}), nil
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
