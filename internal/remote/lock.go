package remote

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"keyturn/internal/trust"
)

// A Lock is who changes a file: one run of one installation, at one claim. It lies
// beside the file, so that every controller sees it, whatever its login.
type Lock struct {
	Installation string
	Epoch        int64 // of the claim under which the run acts: a later one takes over
	Run          trust.RunID
}

// A LockedError says that somebody else changes a file. It is the cause of a
// Conflict where that is another installation or a later claim of the same run,
// and of an Unavailable where it is another run, which will end. Whoever knows that
// the run in By has ended may Release in its name.
type LockedError struct {
	Host, Path string
	By         Lock
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("%s:%s is being changed by run %s (epoch %d) of installation %s", e.Host, e.Path, e.By.Run, e.By.Epoch, e.By.Installation)
}

// namePart is what a part of a lock's name may be.
var namePart = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

func (l Lock) check() error {
	if !namePart.MatchString(l.Installation) || !namePart.MatchString(string(l.Run)) || l.Epoch < 0 {
		return trust.Errorf(trust.Invalid, "installation %q, epoch %d, run %q cannot be a lock", l.Installation, l.Epoch, l.Run)
	}
	return nil
}

// args returns the lock as ops take it.
func (l Lock) args() []string {
	return []string{l.Installation, strconv.FormatInt(l.Epoch, 10), string(l.Run)}
}

// A held is a file under lock: what op hold found, and as whom.
type held struct {
	as        actor
	dir, name string
	token     string
	listing   *listing // nil: the file is absent
	content   []byte
	sum       string // of the file, where the content was not asked for
	pending   []pending
}

// Hold takes the lock of a file that exists, or confirms it, and fences off every
// earlier attempt of the same run: what one of those was doing to the file has
// either happened when Hold returns, or will not happen. The lock stays until
// Release.
func (h *Host) Hold(ctx context.Context, l Lock, user, path string) error {
	_, err := h.hold(ctx, l, user, path, false, "sum")
	return err
}

// HoldText does as Hold, and returns what the file holds under the lock. Private
// keys are not for this: their bytes would come here.
func (h *Host) HoldText(ctx context.Context, l Lock, user, path string) ([]byte, error) {
	got, err := h.hold(ctx, l, user, path, false, "content")
	if err != nil {
		return nil, err
	}
	h.remember(l, user, path, got)
	return got.content, nil
}

// hold takes the lock and reads the file under it: "content" or "sum". With create,
// the file may be absent and its directory is made.
func (h *Host) hold(ctx context.Context, l Lock, user, path string, create bool, want string) (held, error) {
	if err := errors.Join(l.check(), checkPath(path)); err != nil {
		return held{}, err
	}
	actors := h.actorsFor(user)
	for i, as := range actors {
		got, err := h.holdAs(ctx, l, as, user, path, create, want)
		if r, ok := err.(*refusal); ok {
			if r.word == "owner" && r.detail == "0" && i < len(actors)-1 {
				continue
			}
			return held{}, h.lockFailure(r, l, path)
		}
		return got, err
	}
	return held{}, trust.Errorf(trust.Internal, "no account to act as")
}

func (h *Host) holdAs(ctx context.Context, l Lock, as actor, user, path string, create bool, want string) (held, error) {
	got := held{as: as, token: newNonce()[:16]}
	make := "-"
	if create {
		// What root makes for somebody else must be readable by them.
		make = "077"
		if as == root && user != string(root) {
			make = "022"
		}
	}
	c := call{op: opHold, as: as, nonce: newNonce()}
	c.args = append([]string{path, make}, l.args()...)
	c.args = append(c.args, got.token, c.nonce, strconv.Itoa(maxFile), want)
	lines, err := h.run(ctx, c)
	if err != nil {
		return held{}, err
	}
	for i, ln := range lines {
		switch ln.word {
		case "real":
			at := strings.LastIndexByte(ln.rest, '/')
			if at < 0 {
				return held{}, h.garbled(ln)
			}
			got.dir, got.name = ln.rest[:max(at, 1)], ln.rest[at+1:]
		case "ls":
			ls, ok := parseListing(ln.rest)
			if !ok {
				return held{}, h.garbled(ln)
			}
			got.listing = &ls
		case "sum":
			got.sum = ln.rest
		case "content":
			if len(ln.block) > maxFile {
				return held{}, trust.Errorf(trust.Exhausted, "%s:%s has more than %d bytes", h.name, path, maxFile)
			}
			if i > 0 && lines[i-1].word == "prev" {
				p, err := newPending(lines[i-1].rest, ln.block)
				if err != nil {
					return held{}, h.garbled(lines[i-1])
				}
				got.pending = append(got.pending, p)
				continue
			}
			got.content = append([]byte{}, ln.block...)
		}
	}
	if got.name == "" {
		return held{}, trust.Errorf(trust.Unavailable, "%s did not say where %q really lies", h.name, path)
	}
	return got, nil
}

// lockFailure turns the refusal of an op that works under a lock into an error.
func (h *Host) lockFailure(err error, l Lock, path string) error {
	var r *refusal
	if !errors.As(err, &r) {
		return err
	}
	if r.word != "held" && r.word != "superseded" {
		return h.fail(r, path)
	}
	f := strings.Fields(r.detail)
	if len(f) != 3 {
		return h.fail(r, path)
	}
	epoch, _ := strconv.ParseInt(f[1], 10, 64)
	cause := &LockedError{Host: h.name, Path: path, By: Lock{f[0], epoch, trust.RunID(f[2])}}
	kind := trust.Conflict
	if r.word == "held" && cause.By.Installation == l.Installation {
		kind = trust.Unavailable
	}
	return &trust.Error{Kind: kind, Message: cause.Error(), Err: cause}
}
