package remote

import (
	"bytes"
	"context"
	"time"
)

// Bounds of what is remembered of files that are held.
const (
	recentAge   = time.Minute
	recentSize  = 64 << 10 // bytes of one file
	recentFiles = 16       // per connection
)

// A recent is a file under our lock as an op on this connection left it: hold
// found it so, or swap wrote it. An edit that soon follows tries a swap at once,
// which compares the claim's token and the content's hash on the host, as it does
// after a hold, and looks for what others appended to inodes that were replaced;
// where anything is otherwise by now, nothing happened, and the edit begins anew
// with a hold.
type recent struct {
	got  held
	lock Lock
	at   time.Time
}

// A recentName is a file as it was asked for.
type recentName struct{ user, path string }

// remember keeps how a file was left.
func (h *Host) remember(l Lock, user, path string, got held) {
	name := recentName{user, path}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.recent, name)
	if got.listing == nil || len(got.pending) > 0 || len(got.content) > recentSize || len(h.recent) >= recentFiles {
		return
	}
	if h.recent == nil {
		h.recent = map[recentName]recent{}
	}
	h.recent[name] = recent{got: got, lock: l, at: time.Now()}
}

// recall returns how a file was left, once, if that is not long ago.
func (h *Host) recall(l Lock, user, path string) (held, bool) {
	name := recentName{user, path}
	h.mu.Lock()
	defer h.mu.Unlock()
	r, ok := h.recent[name]
	delete(h.recent, name)
	return r.got, ok && r.lock == l && time.Since(r.at) < recentAge
}

// editRecent makes an edit of a file that is as an op just left it: in one round
// trip, not two. done is false where that is not so, or where the edit has nothing
// to do or does not want to: both are for whoever looks at the file first.
func (h *Host) editRecent(ctx context.Context, l Lock, user, path string, edit Edit) (c Change, done bool, err error) {
	got, ok := h.recall(l, user, path)
	if !ok {
		return Change{}, false, nil
	}
	after, err := edit(bytes.Clone(got.content))
	if err != nil || bytes.Equal(after, got.content) || len(after) > maxFile {
		return Change{}, false, nil
	}
	changed, err := h.swap(ctx, l, user, got, after)
	if _, refused := err.(*refusal); refused || err == nil && changed {
		return Change{}, false, nil
	}
	if err != nil {
		return Change{}, false, err
	}
	c = Change{Before: got.content, After: after, SHA256: hexSum(after)}
	got.content = after
	h.remember(l, user, path, got)
	return c, true, nil
}
