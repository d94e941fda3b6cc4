package sim

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// An errno is what a system call fails with, in the words of strerror(3).
type errno string

func (e errno) Error() string { return string(e) }

const (
	errAbsent   errno = "No such file or directory"
	errDenied   errno = "Permission denied"
	errPerm     errno = "Operation not permitted"
	errExists   errno = "File exists"
	errNotEmpty errno = "Directory not empty"
	errNotDir   errno = "Not a directory"
	errFull     errno = "No space left on device"
	errPower    errno = "the host has no power"
)

// An inode is a regular file, or a directory if entries is not nil.
type inode struct {
	number   uint64
	mode     uint32 // permission bits
	uid, gid int
	links    int // of a file
	mtime    time.Time
	data     []byte // never changed in place
	entries  map[string]*inode
}

func (n *inode) isDir() bool { return n.entries != nil }

// sum returns the SHA-256 of the content in hex.
func (n *inode) sum() string { return hexSum(n.data) }

// listing returns what "ls -ldin" prints.
func (n *inode) listing(name string) string {
	kind, links := "-", n.links
	if n.isDir() {
		kind, links = "d", 2
		for _, e := range n.entries {
			if e.isDir() {
				links++
			}
		}
	}
	bits := []byte("rwxrwxrwx")
	for i := range bits {
		if n.mode&(1<<(8-i)) == 0 {
			bits[i] = '-'
		}
	}
	return fmt.Sprintf("%d %s%s %d %d %d %d %s %s", n.number, kind, bits, links, n.uid, n.gid, len(n.data), n.mtime.UTC().Format("Jan _2 15:04"), name)
}

// A subject is as whom a process acts.
type subject struct {
	uid, gid int
}

// Permission bits as access(2) asks for them.
const (
	toEnter = 1
	toWrite = 2
	toRead  = 4
)

// may reports whether s has a permission on n.
func (s subject) may(n *inode, what uint32) bool {
	switch {
	case s.uid == 0:
		return n.isDir() || what != toEnter
	case s.uid == n.uid:
		return n.mode>>6&what != 0
	case s.gid == n.gid:
		return n.mode>>3&what != 0
	}
	return n.mode&what != 0
}

// A fileSystem holds the files of one host. Each method is one system call,
// made by a subject, whose rights it checks. What was changed since the last
// sync is lost when the power goes, as the journal of ext4 may lose it.
type fileSystem struct {
	root *inode
	last uint64 // inode number given out
	full bool   // no data can be written
	undo []func()
	// fuse is how many effects happen until the power goes; below 0: it stays.
	fuse int
}

func newFileSystem() *fileSystem {
	fs := &fileSystem{fuse: -1}
	fs.root = fs.make(subject{}, 0o755)
	fs.root.entries = map[string]*inode{}
	return fs
}

func (fs *fileSystem) make(s subject, mode uint32) *inode {
	fs.last++
	return &inode{number: fs.last, mode: mode, uid: s.uid, gid: s.gid, links: 1, mtime: time.Now()}
}

// effect is called before each change with what takes it back.
func (fs *fileSystem) effect(undo func()) error {
	if fs.fuse == 0 {
		return errPower
	}
	if fs.fuse > 0 {
		fs.fuse--
	}
	fs.undo = append(fs.undo, undo)
	return nil
}

// sync makes what was done so far durable, all of it, as fsync(2) does where one
// journal serves the whole file system.
func (fs *fileSystem) sync() error {
	if fs.fuse == 0 {
		return errPower
	}
	fs.undo = nil
	return nil
}

// lose takes back what was not synced.
func (fs *fileSystem) lose() {
	for _, undo := range slices.Backward(fs.undo) {
		undo()
	}
	fs.undo, fs.fuse = nil, -1
}

// walk returns what lies at a path.
func (fs *fileSystem) walk(s subject, p string) (*inode, error) {
	n := fs.root
	for name := range strings.SplitSeq(strings.Trim(path.Clean(p), "/"), "/") {
		if name == "" {
			return n, nil
		}
		if !n.isDir() {
			return nil, errNotDir
		}
		if !s.may(n, toEnter) {
			return nil, errDenied
		}
		next, ok := n.entries[name]
		if !ok {
			return nil, errAbsent
		}
		n = next
	}
	return n, nil
}

// enter returns a directory in which s may stand.
func (fs *fileSystem) enter(s subject, p string) (*inode, error) {
	n, err := fs.walk(s, p)
	switch {
	case err != nil:
		return nil, err
	case !n.isDir():
		return nil, errNotDir
	case !s.may(n, toEnter):
		return nil, errDenied
	}
	return n, nil
}

// put gives a directory's entry another inode, or takes it away with nil.
func (fs *fileSystem) put(s subject, dir *inode, name string, n *inode) error {
	if !s.may(dir, toWrite) || !s.may(dir, toEnter) {
		return errDenied
	}
	old, mtime := dir.entries[name], dir.mtime
	if err := fs.effect(func() { restore(dir, name, old); dir.mtime = mtime }); err != nil {
		return err
	}
	restore(dir, name, n)
	dir.mtime = time.Now()
	return nil
}

// restore makes name in dir stand for n, and counts the links.
func restore(dir *inode, name string, n *inode) {
	if old := dir.entries[name]; old != nil {
		old.links--
	}
	delete(dir.entries, name)
	if n != nil {
		n.links++
		dir.entries[name] = n
	}
}

// mkdir makes one directory.
func (fs *fileSystem) mkdir(s subject, dir *inode, name string, mode uint32) error {
	if dir.entries[name] != nil {
		return errExists
	}
	n := fs.make(s, mode)
	n.links, n.entries = 0, map[string]*inode{}
	return fs.put(s, dir, name, n)
}

// create makes an empty file that must not be there yet (O_EXCL).
func (fs *fileSystem) create(s subject, dir *inode, name string, mode uint32) (*inode, error) {
	if dir.entries[name] != nil {
		return nil, errExists
	}
	n := fs.make(s, mode)
	n.links = 0
	return n, fs.put(s, dir, name, n)
}

// write gives a file other content.
func (fs *fileSystem) write(n *inode, data []byte) error {
	if fs.full && len(data) > 0 {
		return errFull
	}
	old, mtime := n.data, n.mtime
	if err := fs.effect(func() { n.data, n.mtime = old, mtime }); err != nil {
		return err
	}
	n.data, n.mtime = slices.Clone(data), time.Now()
	return nil
}

// link gives a file one more name.
func (fs *fileSystem) link(s subject, n, dir *inode, name string) error {
	if dir.entries[name] != nil {
		return errExists
	}
	return fs.put(s, dir, name, n)
}

// remove takes the name of a file away, if there is one (rm -f).
func (fs *fileSystem) remove(s subject, dir *inode, name string) error {
	if dir.entries[name] == nil {
		return nil
	}
	return fs.put(s, dir, name, nil)
}

// rmdir removes an empty directory.
func (fs *fileSystem) rmdir(s subject, dir *inode, name string) error {
	if len(dir.entries[name].entries) > 0 {
		return errNotEmpty
	}
	return fs.put(s, dir, name, nil)
}

// rename moves a file over whatever has the name now.
func (fs *fileSystem) rename(s subject, from *inode, name string, to *inode, as string) error {
	n := from.entries[name]
	if n == nil {
		return errAbsent
	}
	if to.entries[as] == n {
		return fs.put(s, from, name, nil)
	}
	if !s.may(from, toWrite) || !s.may(to, toWrite) {
		return errDenied
	}
	old := to.entries[as]
	if err := fs.effect(func() { restore(to, as, old); restore(from, name, n) }); err != nil {
		return err
	}
	restore(to, as, n)
	restore(from, name, nil)
	return nil
}

// setOwner is chown(2) and chmod(2) in one: only root gives files away, to whatever
// account or group.
func (fs *fileSystem) setOwner(s subject, n *inode, uid, gid int, mode uint32) error {
	if s.uid != 0 && (s.uid != n.uid || n.uid != uid || gid != n.gid && gid != s.gid) {
		return errPerm
	}
	oldUID, oldGID, oldMode := n.uid, n.gid, n.mode
	if err := fs.effect(func() { n.uid, n.gid, n.mode = oldUID, oldGID, oldMode }); err != nil {
		return err
	}
	n.uid, n.gid, n.mode = uid, gid, mode
	return nil
}

// names returns the entries of a directory that a glob of a shell matches, sorted.
func (n *inode) names(pattern string) (found []string) {
	for _, name := range slices.Sorted(maps.Keys(n.entries)) {
		if ok, _ := path.Match(pattern, name); ok && (name[0] != '.' || pattern[0] == '.') {
			found = append(found, name)
		}
	}
	return found
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
