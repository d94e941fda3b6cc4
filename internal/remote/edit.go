package remote

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// An Edit makes new content of old; old is nil where the file does not exist. It is
// called again where the file changed in the meantime, so it must depend on nothing
// but old, and it must find its own work done where it meets it.
type Edit func(old []byte) ([]byte, error)

// A Change is what an edit did.
type Change struct {
	// Before is what the file held when the edit that took effect was made, with
	// lines of other writers that had to be merged; nil where there was no file.
	Before, After []byte
	// SHA256 is of After, in hex.
	SHA256  string
	Created bool
	// Merged are lines that another program appended to the file while it was
	// being replaced, and that are in After.
	Merged []byte
}

// BUG(remote): busybox's ls does not show that a file has an ACL and its cp does not
// copy one, so that on a host that has only busybox's tools an edit drops ACLs and
// extended attributes. Where ls shows the ACL and nothing copies it, the edit is
// refused.

// maxRounds bounds how often an edit is made again because the file changed.
const maxRounds = 10

// Edit changes a file under its lock, which it takes or confirms: by comparing and
// swapping, so that the whole new content replaces exactly the content that edit
// was given, durably, or nothing happens. Owner, group, mode, ACL, label and
// extended attributes stay. Nothing happens either where edit returns what it was
// given.
//
// The directory and the file are made where they do not exist: 0700 and 0600, or
// 0755 and 0644 where root makes them for another account.
func (h *Host) Edit(ctx context.Context, l Lock, user, path string, edit Edit) (Change, error) {
	if change, done, err := h.editRecent(ctx, l, user, path, edit); done || err != nil {
		return change, err
	}
	for round := 1; ; round++ {
		got, err := h.hold(ctx, l, user, path, true, "content")
		if err != nil {
			return Change{}, err
		}
		change, again, err := h.editHeld(ctx, l, user, path, got, edit, round < maxRounds/2)
		if err != nil || !again {
			return change, err
		}
		if round == maxRounds {
			return Change{}, trust.Errorf(trust.Unavailable, "%s:%s was changed by somebody else each of %d times that Keyturn was about to change it", h.name, path, round)
		}
		if err := pause(ctx, time.Duration(round)*20*time.Millisecond); err != nil {
			return Change{}, err
		}
	}
}

// editHeld makes one attempt. again says that the file or an inode that we
// replaced has changed since, or, with patience, that somebody is in the middle of
// a line.
func (h *Host) editHeld(ctx context.Context, l Lock, user, path string, got held, edit Edit, patient bool) (c Change, again bool, err error) {
	base, appended, err := merge(got)
	if err != nil {
		return Change{}, false, h.lost(ctx, l, path, got, err)
	}
	if patient && len(appended) > 0 && !bytes.HasSuffix(appended, []byte("\n")) {
		return Change{}, true, nil
	}
	c = Change{Before: base, Merged: appended, Created: got.listing == nil}
	if c.After, err = edit(bytes.Clone(base)); err != nil {
		return Change{}, false, err
	}
	if len(c.After) > maxFile {
		return Change{}, false, trust.Errorf(trust.Exhausted, "%s:%s would have more than %d bytes", h.name, path, maxFile)
	}
	if got.listing == nil && len(c.After) == 0 {
		return Change{}, false, nil
	}
	c.SHA256 = hexSum(c.After)
	changed, err := h.swap(ctx, l, user, got, c.After)
	var r *refusal
	switch {
	case err == nil:
		if !changed && got.listing != nil {
			got.content, got.pending = c.After, nil
			h.remember(l, user, path, got)
		}
		return c, changed, nil
	case errors.As(err, &r) && (r.word == "changed" || r.word == "lost" || r.word == "pending"):
		return Change{}, true, nil
	}
	return Change{}, false, h.lockFailure(err, l, path)
}

// swap replaces the content of a held file. changed says that an inode that was
// replaced has been written to.
func (h *Host) swap(ctx context.Context, l Lock, user string, got held, after []byte) (changed bool, err error) {
	old, mode, uid, gid := "-", "600", -1, -1
	if got.listing != nil {
		old = fmt.Sprintf("%s.%d", hexSum(got.content), len(got.content))
		mode, uid, gid = strconv.FormatUint(uint64(got.listing.permissions()), 8), got.listing.uid, got.listing.gid
	} else {
		owner, err := h.account(ctx, user)
		if err != nil {
			return false, err
		}
		uid, gid = owner.UID, owner.GID
		if got.as == root && uid != 0 {
			// In a directory of root's, whose owner the file gets: its account
			// must be able to read it.
			mode, uid, gid = "644", 0, 0
		}
	}
	next := fmt.Sprintf("%s.%d", hexSum(after), len(after))
	c := call{op: opSwap, as: got.as, nonce: newNonce(), stdin: after}
	c.args = append([]string{got.dir, got.name}, l.args()...)
	c.args = append(c.args, got.token, old, next, mode, strconv.Itoa(uid), strconv.Itoa(gid), strconv.Itoa(maxFile), c.nonce, h.renameat2())
	for _, p := range got.pending {
		c.args = append(c.args, p.name, p.becomes(got.token))
	}
	lines, err := h.run(ctx, c)
	if err != nil {
		return false, err
	}
	for _, ln := range lines {
		switch {
		case ln.word == "prev":
			changed = true
		case ln.word == "now" && ln.rest != hexSum(after):
			// Somebody else was quicker with a rename of their own.
			changed = true
		}
	}
	return changed, nil
}

// renameat2 returns the number of the system call by which perl on the host exchanges two
// names (renameat2(2)), or "-". Without that, or an mv(1) that does it, a file that another
// program renames into place between the last look of swap and its own rename is lost.
func (h *Host) renameat2() string {
	if !h.Has("perl") || !strings.HasPrefix(h.kernel, "Linux ") {
		return "-"
	}
	switch h.kernel[strings.LastIndexByte(h.kernel, ' ')+1:] {
	case "x86_64":
		return "316"
	case "aarch64", "riscv64":
		return "276"
	}
	return "-"
}

// Release gives back the lock of a file. What others appended to inodes that were
// replaced is merged first. It does nothing where there is no lock, and fails as
// Hold does where the lock is somebody else's.
func (h *Host) Release(ctx context.Context, l Lock, user, path string) error {
	if err := errors.Join(l.check(), checkPath(path)); err != nil {
		return err
	}
	actors := h.actorsFor(user)
	for round, i := 0, 0; ; round++ {
		c := call{op: opRelease, as: actors[i], nonce: newNonce()}
		c.args = append([]string{path}, l.args()...)
		c.args = append(c.args, strconv.Itoa(maxFile), c.nonce)
		_, err := h.run(ctx, c)
		r, refused := err.(*refusal)
		switch {
		case refused && r.word == "owner" && r.detail == "0" && i < len(actors)-1:
			i++
		case refused && r.word == "pending" && round < maxRounds:
			if _, err := h.Edit(ctx, l, user, path, func(old []byte) ([]byte, error) { return old, nil }); err != nil {
				return err
			}
		default:
			return h.lockFailure(err, l, path)
		}
	}
}

// A pending is an inode that a swap replaced and that was written to afterwards.
type pending struct {
	name    string // prev.SHA256.SIZE.TOKEN
	sum     string // of the content that was replaced
	size    int
	content []byte // now
}

func newPending(name string, content []byte) (pending, error) {
	f := strings.Split(name, ".")
	if len(f) != 4 || f[0] != "prev" || len(f[1]) != 2*sha256.Size {
		return pending{}, trust.Errorf(trust.Unavailable, "%q is not the name of a replaced inode", name)
	}
	size, err := strconv.Atoi(f[2])
	if err != nil || size < 0 {
		return pending{}, trust.Errorf(trust.Unavailable, "%q is not the name of a replaced inode", name)
	}
	return pending{name: name, sum: f[1], size: size, content: bytes.Clone(content)}, nil
}

// becomes returns the name of the inode once its present content is dealt with.
func (p pending) becomes(token string) string {
	return fmt.Sprintf("prev.%s.%d.%s%.8s", hexSum(p.content), len(p.content), token, p.sum)
}

// appended returns what was appended, if that is what happened.
func (p pending) appended() ([]byte, bool) {
	if len(p.content) < p.size || hexSum(p.content[:p.size]) != p.sum {
		return nil, false
	}
	return p.content[p.size:], true
}

// A rewrittenError says that an inode that we had replaced was written anew.
type rewrittenError struct{ pending pending }

func (e *rewrittenError) Error() string { return "rewritten in place" }

// merge returns the content that an edit starts from: that of the file and after it
// what was appended to the inodes it replaced.
func merge(got held) (base, appended []byte, err error) {
	base = got.content
	for _, p := range got.pending {
		more, ok := p.appended()
		if !ok {
			return nil, nil, &rewrittenError{p}
		}
		appended = append(endLine(appended), more...)
	}
	if len(appended) == 0 {
		return base, nil, nil
	}
	return append(endLine(bytes.Clone(base)), appended...), appended, nil
}

// endLine ends the last line of b, if there is one without an end.
func endLine(b []byte) []byte {
	if len(b) > 0 && b[len(b)-1] != '\n' {
		b = append(b, '\n')
	}
	return b
}

// lost tells of an inode that another program wrote anew, in place, while or after
// we replaced it: whether its content or ours should stand is not for us to say. It
// is told once.
func (h *Host) lost(ctx context.Context, l Lock, path string, got held, err error) error {
	var rewritten *rewrittenError
	if !errors.As(err, &rewritten) {
		return err
	}
	got.pending = []pending{rewritten.pending}
	if got.listing == nil {
		got.pending = nil
	} else if _, err := h.swap(ctx, l, "", got, got.content); err != nil {
		return h.lockFailure(err, l, path)
	}
	return trust.Errorf(trust.Conflict, "another program wrote %s:%s anew, in place, while Keyturn replaced it, and what it wrote (%d bytes, SHA-256 %s) is not in effect", h.name, path,
		len(rewritten.pending.content), hexSum(rewritten.pending.content)).
		WithHint("let that program write the file again, then resume the run")
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// pause waits, or returns early with the context's cause.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return trust.Errorf(trust.Unavailable, "gave up: %w", context.Cause(ctx))
	}
}
