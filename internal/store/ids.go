package store

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"time"

	"github.com/google/uuid"
)

// ids makes the ids of events: UUIDs of version 7 (RFC 9562, section 5.7),
// with the microseconds in rand_a, each greater than the one before it, also
// when the clock steps back.
type ids struct {
	mu   sync.Mutex
	last uint64 // milliseconds and rand_a of the last id
}

func (s *ids) next(now time.Time) uuid.UUID {
	stamp := stampOf(now)
	s.mu.Lock()
	if stamp <= s.last {
		stamp = s.last + 1
	}
	s.last = stamp
	s.mu.Unlock()

	var id uuid.UUID
	rand.Read(id[8:])
	putTime(&id, stamp)
	id[8] = id[8]&0x3f | 0x80
	return id
}

// stampOf returns a time in 60 bits: milliseconds, and the rest as a fraction of 4096.
func stampOf(at time.Time) uint64 {
	micros := uint64(max(0, at.UnixMicro()))
	return micros/1000<<12 | micros%1000<<12/1000
}

func putTime(id *uuid.UUID, stamp uint64) {
	binary.BigEndian.PutUint64(id[:8], stamp>>12<<16|0x7000|stamp&0xfff)
}
