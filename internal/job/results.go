package job

import (
	"encoding/json"
	"sync"
	"sync/atomic"
)

// maxResults bounds what an engine remembers of results, in bytes.
const maxResults = 16 << 20

// results are what a runner has written of what its steps saved, since it claimed
// its run. Steps ask for it about as often as they are run, and nobody but the
// holder of the claim writes any: so this is what the journal says, and all that it
// may lack is there.
type results struct {
	room *atomic.Int64 // bytes that all runners of the engine may still take
	mu   sync.Mutex
	kept map[place]json.RawMessage
	took int64 // bytes of them
}

// A place is a row and the number of a target in it.
type place struct{ pos, n int }

// put remembers a result, after the commit that wrote it.
func (r *results) put(p place, result json.RawMessage) {
	const overhead = 64 // of an entry
	if len(result) == 0 {
		return // nothing was saved: what was there before is left
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.kept[p]; ok {
		r.give(int64(len(old)) + overhead)
		delete(r.kept, p)
	}
	size := int64(len(result)) + overhead
	if r.room.Add(-size) < 0 {
		r.room.Add(size)
		return
	}
	r.took += size
	r.kept[p] = result
}

// get returns a result, if it is remembered.
func (r *results) get(p place) (json.RawMessage, bool) {
	if r == nil {
		return nil, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	result, ok := r.kept[p]
	return result, ok
}

// forget forgets all, when the claim ends.
func (r *results) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.give(r.took)
	r.kept = nil
}

func (r *results) give(size int64) {
	r.took -= size
	r.room.Add(size)
}
