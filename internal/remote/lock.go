package remote

import (
	"context"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
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

// Lock is the directory that is the lock: beside what a symbolic link leads to, if
// Path is one.
func (e *LockedError) Lock() string {
	return path.Join(path.Dir(e.Path), "."+path.Base(e.Path)+".keyturn")
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

// HoldFile does as Hold, and returns what lies at the path, as Files does and with the
// content that it has under the lock, and what the files at the paths beside hold. A
// file that is Absent or Fixed is not locked. Private keys are not for this: their
// bytes would come here.
func (h *Host) HoldFile(ctx context.Context, l Lock, user, path string, beside []string) (file File, others []File, err error) {
	if err := errors.Join(l.check(), checkPath(path), checkPaths(beside)); err != nil {
		return File{}, nil, err
	}
	owner, err := h.account(ctx, user)
	if err != nil {
		return File{}, nil, err
	}
	holding, got := h.holding(l, h.actorsFor(user)[0], user, path, false, "facts")
	holding.args = append(holding.args, owner.Home)
	reading := h.readings(owner, beside, "text")
	answers, err := h.runAll(ctx, append(reading, holding)...)
	if err != nil {
		return File{}, nil, err
	}
	if others, err = h.readFiles(answers[:len(reading)], owner, beside); err != nil {
		return File{}, nil, err
	}
	took := answers[len(reading)]
	if file, err = h.readFacts(took.lines, owner, path); err != nil {
		return File{}, nil, err
	}
	no := took.no
	switch {
	case no == nil:
		err = h.readHeld(&got, path, took.lines)
	case no.word == "held" || no.word == "superseded":
		err = h.lockFailure(no, l, path)
	case file.Absent || file.Fixed != "":
	case no.word == "owner" && no.detail == "0":
		got, err = h.hold(ctx, l, user, path, false, "content")
	default:
		err = h.lockFailure(no, l, path)
	}
	switch {
	case err != nil || file.Absent:
		return file, others, err
	case file.Fixed != "":
		return file, others, h.Release(ctx, l, user, path)
	}
	h.remember(l, user, path, got)
	file.Content, file.SHA256 = got.content, hexSum(got.content)
	return file, others, nil
}

// readFacts reads what op hold said of the file before it took the lock.
func (h *Host) readFacts(lines []line, owner Account, path string) (File, error) {
	end := slices.IndexFunc(lines, func(ln line) bool { return ln.word == "state" })
	lines, home := splitHome(lines[:end+1])
	return h.parseFile(lines, owner, home, path)
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
	c, got := h.holding(l, as, user, path, create, want)
	lines, err := h.run(ctx, c)
	if err != nil {
		return held{}, err
	}
	err = h.readHeld(&got, path, lines)
	return got, err
}

// holding is a call of op hold, and what is known of the file before it.
func (h *Host) holding(l Lock, as actor, user, path string, create bool, want string) (call, held) {
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
	return c, got
}

// readHeld reads the answer of op hold into got.
func (h *Host) readHeld(got *held, path string, lines []line) error {
	for i, ln := range lines {
		switch ln.word {
		case "real":
			at := strings.LastIndexByte(ln.rest, '/')
			if at < 0 {
				return h.garbled(ln)
			}
			got.dir, got.name = ln.rest[:max(at, 1)], ln.rest[at+1:]
		case "ls":
			ls, ok := parseListing(ln.rest)
			if !ok {
				return h.garbled(ln)
			}
			got.listing = &ls
		case "sum":
			got.sum = ln.rest
		case "content":
			if len(ln.block) > maxFile {
				return trust.Errorf(trust.Exhausted, "%s:%s has more than %d bytes", h.name, path, maxFile)
			}
			if i > 0 && lines[i-1].word == "prev" {
				p, err := newPending(lines[i-1].rest, ln.block)
				if err != nil {
					return h.garbled(lines[i-1])
				}
				got.pending = append(got.pending, p)
				continue
			}
			got.content = append([]byte{}, ln.block...)
		}
	}
	if got.name == "" {
		return trust.Errorf(trust.Unavailable, "%s did not say where %q really lies", h.name, path)
	}
	return nil
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
