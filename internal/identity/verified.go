package identity

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"sync"
	"time"
)

const (
	// verifiedFor is how long a password that was verified need not be verified
	// again. A command that waits for a run asks many times a minute.
	verifiedFor = time.Minute
	// maxVerified bounds how many are remembered.
	maxVerified = 4096
)

// A verified remembers which passwords were right a moment ago, and keeps none of
// them: only their HMAC under a key that ends with the process. It belongs to one
// node.
type verified struct {
	now func() time.Time
	key []byte

	mu    sync.Mutex
	until map[[sha256.Size]byte]time.Time // guarded by mu
}

func newVerified(now func() time.Time) *verified {
	key := make([]byte, sha256.Size)
	_, _ = rand.Read(key) // never fails: see crypto/rand
	return &verified{now: now, key: key, until: map[[sha256.Size]byte]time.Time{}}
}

// mac stands for a password of a user, used from an address, as long as that user
// exists, has the stored hash and has a second factor or none: after a change it is
// another one. A code that came with it may so come again.
func (v *verified) mac(row loginRow, stored, password, code, address string) (sum [sha256.Size]byte) {
	h := hmac.New(sha256.New, v.key)
	for _, part := range []string{string(row.tenant), row.ID, row.Name, stored, strconv.FormatBool(row.TOTP), password, code, address} {
		_ = binary.Write(h, binary.BigEndian, uint64(len(part))) // no part runs into the next
		h.Write([]byte(part))
	}
	h.Sum(sum[:0])
	return sum
}

// lately reports whether remember was told of that password within verifiedFor.
func (v *verified) lately(mac [sha256.Size]byte) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now().Before(v.until[mac])
}

func (v *verified) remember(mac [sha256.Size]byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.until) >= maxVerified {
		clear(v.until) // costs a hashing each, once more
	}
	v.until[mac] = v.now().Add(verifiedFor)
}
