package keyring

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"

	"keyturn/internal/trust"
)

// A KEK is the key-encryption key: what has to be kept apart from the database
// for the database to be worth nothing to a thief. It wraps one thing, the
// installation's root keyset, and never leaves this type.
//
// Where a KEK comes from is the business of its Source. The rest of the package
// knows a name and an AEAD.
type KEK struct {
	name   string
	from   string // for error messages: where it came from
	source Source // nil of one that is not in use yet
	// seed is what the database keeps for the source: see Source.
	seed []byte
	// left says what lies beside its file that is of no use, or is empty.
	left string
	// after is the name of the KEK that this one is to replace, as Next says.
	after string
	// A pointer, see Secret.
	aead *tink.AEAD
}

// Name returns the KEK's fingerprint, "kek-" and 32 hex digits. It is derived
// from the key one way and may be shown and stored anywhere.
func (k KEK) Name() string { return k.name }

// After returns the name of the KEK that this one, which Next returned, replaces.
func (k KEK) After() string { return k.after }

const (
	kekSize   = 32
	kekHeader = "keyturn-kek-v1"
	maxKEK    = 1024 // bytes of a key file; one of ours has 132
)

// newKEK derives a KEK's two uses from its bytes: what wraps, and its name.
func newKEK(key []byte, from string) (KEK, error) {
	wrap, err := hkdf.Key(sha256.New, key, nil, "keyturn kek v1 wrap", 32)
	if err != nil {
		return KEK{}, err
	}
	id, err := hkdf.Key(sha256.New, key, nil, "keyturn kek v1 name", 16)
	if err != nil {
		return KEK{}, err
	}
	gcm, err := subtle.NewAESGCM(wrap)
	if err != nil {
		return KEK{}, err
	}
	var aead tink.AEAD = gcm
	return KEK{name: "kek-" + hex.EncodeToString(id), from: from, aead: &aead}, nil
}

// LoadKEK reads the key file at path. With create, a file that is not there is
// made first: 0600, in directories made 0700 where they are missing, and durable
// before LoadKEK returns. Two processes that both create agree on one key.
//
// Pass create only when nothing has been sealed yet (see Expected): a new key
// does not open an old database, and only makes it look as if one were there.
//
// A file is refused, with a Denied error, when it is not a regular file, when
// its group or others may read or write it (but see handedOut), when it belongs to
// neither this process's user nor root, and when it lies in dataDir or is reached
// through it: whoever copies the data directory must not get the key along. A file that is
// not as it was written is an Invalid error.
func LoadKEK(path, dataDir string, create bool) (KEK, error) {
	if create {
		if err := makeKEK(path, dataDir); err != nil && !errors.Is(err, fs.ErrExist) {
			return KEK{}, err
		}
	}
	text, err := readPrivate(path, dataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return KEK{}, trust.Errorf(trust.NotFound, "key-encryption key file %q is not there", path).
			WithHint("put back the file that was made together with this database; without it the database cannot be opened")
	}
	if err != nil {
		return KEK{}, err
	}
	defer clear(text)
	return parseKEK(text, path)
}

// readPrivate reads a file that nobody else may read, and that does not lie in
// dataDir: of a key, or of a passphrase.
func readPrivate(path, dataDir string) ([]byte, error) {
	// Opened without waiting, lest a named pipe hang the start.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, trust.Errorf(trust.Denied, "key-encryption key file: %w", err)
	}
	defer f.Close()
	// From here on only what was opened counts, not what is at path now.
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkKEKFile(path, info); err != nil {
		return nil, err
	}
	if err := refuseInside(path, dataDir); err != nil {
		return nil, err
	}
	return io.ReadAll(io.LimitReader(f, maxKEK+1))
}

func checkKEKFile(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return trust.Errorf(trust.Denied, "key-encryption key file %q is not a regular file", path)
	}
	if info.Mode().Perm()&0o077 != 0 && !handedOut(path, info) {
		return trust.Errorf(trust.Denied, "key-encryption key file %q has mode %04o: others than its owner may read or write it", path, info.Mode().Perm()).
			WithHint("if nobody has read it: chmod 600 %s", path)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return trust.Errorf(trust.Denied, "key-encryption key file %q belongs to uid %d, not to uid %d that runs this", path, stat.Uid, os.Geteuid()).
			WithHint("chown %d %s", os.Geteuid(), path)
	}
	return nil
}

// handedOut reports whether a file is as service managers hand one out: root's, for
// nobody to write and for a group to read, in a directory that only root can change.
// systemd says by an access control list who it is for, which shows as the right of the
// group; Kubernetes gives its volumes a group of the pod's (fsGroup).
func handedOut(path string, info fs.FileInfo) bool {
	real, err := resolve(path)
	if err != nil {
		return false
	}
	dir, err := os.Stat(filepath.Dir(real))
	return err == nil && info.Mode().Perm() == 0o440 && ofRoot(info) && ofRoot(dir) && dir.Mode().Perm()&0o022 == 0
}

func ofRoot(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == 0
}

// parseKEK reads a key file's text, three lines:
//
//	keyturn-kek-v1
//	name kek-<32 hex digits>
//	key <base64 of 32 bytes>
//
// Lines that are empty or start with # may stand between them. The name is
// checked against the key, so that a damaged file is told from a wrong one.
func parseKEK(text []byte, from string) (KEK, error) {
	malformed := func(why string) error {
		return trust.Errorf(trust.Invalid, "key-encryption key file %q %s", from, why).
			WithHint("restore it from its copy; it cannot be repaired")
	}
	if len(text) > maxKEK {
		return KEK{}, malformed(fmt.Sprintf("is larger than %d bytes", maxKEK))
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			lines = append(lines, line)
		}
	}
	if len(lines) == 0 || lines[0] != kekHeader {
		return KEK{}, malformed(fmt.Sprintf("does not start with %q", kekHeader))
	}
	if len(lines) != 3 {
		return KEK{}, malformed(fmt.Sprintf("has %d lines instead of 3", len(lines)))
	}
	name, ok1 := strings.CutPrefix(lines[1], "name ")
	encoded, ok2 := strings.CutPrefix(lines[2], "key ")
	if !ok1 || !ok2 {
		return KEK{}, malformed("lacks its name or its key")
	}
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return KEK{}, malformed("holds a key that is not base64")
	}
	defer clear(key)
	if len(key) != kekSize {
		return KEK{}, malformed(fmt.Sprintf("holds a key of %d bytes instead of %d", len(key), kekSize))
	}
	kek, err := newKEK(key, from)
	if err != nil {
		return KEK{}, err
	}
	if kek.name != name {
		return KEK{}, malformed(fmt.Sprintf("says that its key is %q, but it is %q", name, kek.name))
	}
	return kek, nil
}

// makeKEK writes a new key file. It is complete and durable under another name
// before it appears at path, and it appears there only if nothing else is there:
// then the error is fs.ErrExist.
func makeKEK(path, dataDir string) error {
	if _, err := os.Lstat(path); err == nil {
		return fs.ErrExist
	}
	dir := filepath.Dir(path)
	if err := refuseInside(path, dataDir); err != nil {
		return err
	}
	if err := makeDirs(dir); err != nil {
		return trust.Errorf(trust.Denied, "key-encryption key directory: %w", err)
	}
	return locked(dir, func() error { return writeKEK(path) })
}

// writeKEK writes the file of makeKEK while the directory is locked.
func writeKEK(path string) error {
	key := make([]byte, kekSize)
	rand.Read(key)
	defer clear(key)
	kek, err := newKEK(key, path)
	if err != nil {
		return err
	}
	text := fmt.Appendf(nil, "%s\nname %s\nkey %s\n", kekHeader, kek.name, base64.StdEncoding.EncodeToString(key))
	defer clear(text)

	if err := dropUnfinished(path); err != nil {
		return err
	}
	temp := unfinished(path)
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return trust.Errorf(trust.Denied, "key-encryption key file: %w", err)
	}
	defer os.Remove(temp)
	_, err = io.Copy(f, bytes.NewReader(text))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return trust.Errorf(trust.Unavailable, "key-encryption key file: %w", err)
	}
	// link(2) refuses to replace, which rename(2) does not.
	if err := os.Link(temp, path); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return fs.ErrExist
		}
		return trust.Errorf(trust.Unavailable, "key-encryption key file: %w", err)
	}
	if err := os.Remove(temp); err != nil {
		return trust.Errorf(trust.Unavailable, "key-encryption key file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// unfinished is the name by which a key file is written that will appear at path.
func unfinished(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".unfinished")
}

// dropUnfinished removes what a crash left of the writing of a key file: it may be the
// whole of a key that is in use. The directory is locked.
func dropUnfinished(path string) error {
	if err := os.Remove(unfinished(path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return trust.Errorf(trust.Denied, "a second copy of a key-encryption key, which a crash left: %w", err).WithHint("rm %s", unfinished(path))
	}
	return nil
}

// makeDirs is os.MkdirAll of mode 0700 that leaves every directory entry that
// it made durable.
func makeDirs(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeDirs(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(parent)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// refuseInside refuses a path in dir, whether by its name, through a symbolic
// link or through a second mount of dir. Neither has to exist yet.
func refuseInside(path, dir string) error {
	refused := trust.Errorf(trust.Denied, "key-encryption key file %q lies in the data directory %q: who copies one would have both", path, dir).
		WithHint("keep it elsewhere, such as /etc/keyturn or $XDG_CONFIG_HOME/keyturn")
	if dir == "" {
		return nil
	}
	path, err := resolve(path)
	if err != nil {
		return err
	}
	dir, err = resolve(dir)
	if err != nil {
		return err
	}
	dirInfo, dirErr := os.Stat(dir)
	for at := filepath.Dir(path); ; at = filepath.Dir(at) {
		if at == dir {
			return refused
		}
		if info, err := os.Stat(at); err == nil && dirErr == nil && os.SameFile(info, dirInfo) {
			return refused
		}
		if at == filepath.Dir(at) {
			return nil
		}
	}
}

// resolve returns path absolute and without symbolic links, as far as it exists.
func resolve(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	real, err := filepath.EvalSymlinks(path)
	if err == nil {
		return real, nil
	}
	if !errors.Is(err, fs.ErrNotExist) || path == filepath.Dir(path) {
		return "", trust.Errorf(trust.Denied, "path of a key-encryption key: %w", err)
	}
	parent, err := resolve(filepath.Dir(path))
	if err != nil {
		return "", err
	}
	return filepath.Join(parent, filepath.Base(path)), nil
}
