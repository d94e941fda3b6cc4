package keyring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"keyturn/internal/trust"
)

// File returns the source whose KEK lies in the key file at path: see LoadKEK.
//
// The next KEK is made beside it, in path + ".next", and is durable there before the
// database changes to it; then that file takes the place of the one at path, which is
// kept as path + "." and its name. So at every instant one of the two files holds the KEK that the database wants, and load
// takes that. A file of the next KEK that was left there, by a crash before the
// database changed, is the next one still: it was used for nothing.
func File(path, dataDir string) Source { return &fileSource{path, dataDir} }

type fileSource struct{ path, dataDir string }

func (f *fileSource) String() string { return fmt.Sprintf("the key file %q", f.path) }

func (f *fileSource) load(_ context.Context, r root) (KEK, error) {
	kek, err := LoadKEK(f.path, f.dataDir, r.name == "")
	if err == nil && (r.name == "" || kek.name == r.name) {
		return kek, nil
	}
	real, resolveErr := resolve(f.path)
	if resolveErr != nil {
		return kek, err
	}
	// The first again at the end: the other may have taken its place meanwhile.
	for _, path := range []string{nextTo(real), f.path} {
		if other, otherErr := LoadKEK(path, f.dataDir, false); otherErr == nil && other.name == r.name {
			return other, nil
		}
	}
	return kek, err
}

func (f *fileSource) next(_ context.Context, r root) (next KEK, err error) {
	err = f.locked(func(real string) error {
		if _, err := f.finish(real, r.name); err != nil {
			return err
		}
		kek, err := LoadKEK(real, f.dataDir, false)
		if err != nil {
			return err
		}
		if kek.name != r.name {
			return trust.Errorf(trust.Conflict, "the database is sealed under key-encryption key %q, but %s holds %q: it was changed on another node", r.name, f, kek.name).
				WithHint("copy the key file of that node to this one, and try again")
		}
		if _, err := os.Lstat(nextTo(real)); errors.Is(err, fs.ErrNotExist) {
			if err := writeKEK(nextTo(real)); err != nil {
				return err
			}
		}
		next, err = LoadKEK(nextTo(real), f.dataDir, false)
		return unused(nextTo(real), err)
	})
	return next, err
}

// unused says what to do about a file of the next KEK that was used for nothing and is none.
func unused(path string, err error) error {
	if err == nil {
		return nil
	}
	return trust.Errorf(trust.KindOf(err), "%w", err).WithHint("rm %s: nothing is sealed under it", path)
}

func (f *fileSource) settle(name string) (left string, err error) {
	real, err := resolve(f.path)
	if err != nil {
		return "", err
	}
	there := func(path string) bool {
		_, err := os.Lstat(path)
		return !errors.Is(err, fs.ErrNotExist)
	}
	if !there(nextTo(real)) && !there(unfinished(real)) && !there(unfinished(nextTo(real))) {
		return "", nil // as at most starts, where the directory need not be writable
	}
	err = f.locked(func(real string) error {
		left, err = f.finish(real, name)
		return err
	})
	return left, err
}

// finish puts the next key in the place of the one at real, if it is the one of name, and
// removes what a crash left. Where real holds that already, a next one that is damaged, or
// that others may read, is in nobody's way: left says so.
func (f *fileSource) finish(real, name string) (left string, err error) {
	if err := errors.Join(dropUnfinished(real), dropUnfinished(nextTo(real))); err != nil {
		return "", err
	}
	next, err := LoadKEK(nextTo(real), f.dataDir, false)
	switch {
	case trust.KindOf(err) == trust.NotFound || err == nil && next.name != name:
		return "", nil
	case err != nil:
		if now, nowErr := LoadKEK(real, f.dataDir, false); nowErr == nil && now.name == name {
			return fmt.Sprintf("ignored, since nothing is sealed under it: %v; remove %s before the key-encryption key is rotated", err, nextTo(real)), nil
		}
		return "", err
	}
	if err := f.keep(real); err != nil {
		return "", err
	}
	if err := os.Rename(nextTo(real), real); err != nil {
		return "", trust.Errorf(trust.Unavailable, "key-encryption key file: %w", err)
	}
	return "", syncDir(filepath.Dir(real))
}

// keep gives the key at real a second name, by which it stays: backups made under it open
// with it only. What somebody has removed is not there to keep.
func (f *fileSource) keep(real string) error {
	old, err := LoadKEK(real, f.dataDir, false)
	if trust.KindOf(err) == trust.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	if err := os.Link(real, real+"."+old.name); err != nil && !errors.Is(err, fs.ErrExist) {
		return trust.Errorf(trust.Unavailable, "key-encryption key file: %w", err)
	}
	return nil
}

// locked runs fn while no other process changes the file: else one could rename what
// another has just made.
func (f *fileSource) locked(fn func(real string) error) error {
	real, err := resolve(f.path)
	if err != nil {
		return err
	}
	return locked(filepath.Dir(real), func() error { return fn(real) })
}

// locked runs fn while no other process, and nobody else in this one, writes a key file in
// the directory at path.
func locked(path string, fn func() error) error {
	dir, err := os.Open(path)
	if err != nil {
		return trust.Errorf(trust.Denied, "key-encryption key directory: %w", err)
	}
	defer dir.Close() // which unlocks
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		return trust.Errorf(trust.Unavailable, "key-encryption key directory: %w", err)
	}
	return fn()
}

// nextTo is where the KEK lies that comes after the one in the file at path.
func nextTo(path string) string { return path + ".next" }
