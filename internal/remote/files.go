package remote

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// A File is what lies at a path of a host, seen as the account sees it whose file
// it is, which is how sshd reads it.
type File struct {
	Path string // as asked for
	Real string // without links; empty where its directory cannot be entered
	// Absent: there is no such file. Unreadable: it is there, or may be, and the
	// account cannot read it, so that sshd does not either.
	Absent, Unreadable bool
	Link               bool   // Path itself is a symbolic link
	Content            []byte // nil where there is none to be read
	SHA256             string // of Content, in hex; empty where there is none

	Mode     uint32 // permission bits
	UID, GID int
	ACL      bool // has more than mode bits: an ACL
	Links    int
	Device   string // with Inode: which file this is, under whatever name
	Inode    uint64
	Size     int64

	FileSystem FileSystem
	// Directories are those from "/" to the one that holds the file.
	Directories []Directory
	// Locked is the lock that is on the file, as far as this account can see it.
	Locked *Lock

	// Fixed says why an edit would be refused, or is empty. An edit may fail
	// all the same: a disk fills up.
	Fixed string
	// Foreign says why who writes the file anew could not keep its owner or group, or is
	// empty. An edit is refused for that, too.
	Foreign string
	// Immutable says that it or its directory is, or append-only, or is empty: then not
	// even root can change it.
	Immutable string
	// Fault says why sshd ignores the file where StrictModes is on, or is empty.
	// Debian's sshd is more lenient with a group of one; a login decides.
	Fault string
}

// A Directory is one step of the way to a file.
type Directory struct {
	Path     string
	Mode     uint32
	UID, GID int
}

// A FileSystem is where a file lies.
type FileSystem struct {
	Type       string // as in /proc/mounts: "ext4", "nfs4"; may be empty
	Source     string // device or "server:/export"
	MountPoint string
	ReadOnly   bool
	// FreeBytes and FreeInodes are what is left, -1 where it is not known.
	FreeBytes, FreeInodes int64
}

// Network reports whether other machines may see the same files.
func (f FileSystem) Network() bool {
	return slices.Contains([]string{"nfs", "nfs4", "cifs", "smb3", "afs", "ceph", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "9p", "lustre", "gpfs", "ocfs2", "gfs2", "beegfs"}, f.Type)
}

// Room that an edit needs at least: new content, a directory, their inodes.
const (
	minBytes  = 256 << 10
	minInodes = 8
)

// Files returns what lies at absolute paths, as user sees it, one File for each and
// in their order. A file of more than 1 MiB is Exhausted: no line of it may go
// unseen.
func (h *Host) Files(ctx context.Context, user string, paths []string) ([]File, error) {
	if len(paths) == 0 {
		return nil, nil
	}
	if err := checkPaths(paths); err != nil {
		return nil, err
	}
	owner, err := h.account(ctx, user)
	if err != nil {
		return nil, err
	}
	answers, err := h.runAll(ctx, h.readings(owner, paths, "content")...)
	if err != nil {
		return nil, err
	}
	return h.readFiles(answers, owner, paths)
}

// TextsAndUses returns what lies at the paths, as Files does but without what only an
// edit needs to know: whether they are there and can be read, and what they hold; and
// with that the logins with a key to user's account since a time, as far as the host has
// a log of them that we may read.
func (h *Host) TextsAndUses(ctx context.Context, user string, paths []string, key trust.Fingerprint, since time.Time) ([]File, []Use, error) {
	if err := checkPaths(paths); err != nil {
		return nil, nil, err
	}
	owner, err := h.account(ctx, user)
	if err != nil {
		return nil, nil, err
	}
	reading, uses := h.readings(owner, paths, "text"), h.asking(key, since)
	answers, err := h.runAll(ctx, append([]call{uses}, reading...)...)
	if err != nil {
		return nil, nil, err
	}
	files, err := h.readFiles(answers[1:], owner, paths)
	if err != nil {
		return nil, nil, err
	}
	list, err := h.readUses(answers[0], user, since)
	return files, list, err
}

// readings are the calls of op read for some paths of an account, as many as the
// length of a command asks for. what is asked of them: "content" or "text".
func (h *Host) readings(owner Account, paths []string, what string) (calls []call) {
	for len(paths) > 0 {
		n := few(paths)
		c := call{op: opRead, as: h.actorsFor(owner.User)[0], nonce: newNonce()}
		c.args = []string{c.nonce, strconv.Itoa(maxFile), owner.Home}
		for _, p := range paths[:n] {
			c.args = append(c.args, what, p)
		}
		calls, paths = append(calls, c), paths[n:]
	}
	return calls
}

// few returns how many of the paths go into one command: Dropbear takes none of more
// than 9,000 bytes.
func few(paths []string) (n int) {
	for size := 0; n < len(paths) && n < 64; n++ {
		if size += len(paths[n]) + len(" 'content' ''"); size > 4096 && n > 0 {
			break
		}
	}
	return n
}

// readFiles reads the answers to readings.
func (h *Host) readFiles(answers []answer, owner Account, paths []string) (files []File, err error) {
	for _, a := range answers {
		if a.no != nil {
			return nil, h.fail(a.no, "")
		}
		n := few(paths)
		some, err := h.parseFiles(a.lines, owner, paths[:n])
		if err != nil {
			return nil, err
		}
		files, paths = append(files, some...), paths[n:]
	}
	return files, nil
}

// parseFiles reads the answer of op read.
func (h *Host) parseFiles(lines []line, owner Account, paths []string) ([]File, error) {
	lines, home := splitHome(lines)
	files := make([]File, len(paths))
	k := -1
	var body []line
	finish := func() error {
		if k < 0 {
			return nil
		}
		f, err := h.parseFile(body, owner, home, paths[k])
		files[k], body = f, nil
		return err
	}
	for _, l := range lines {
		if l.word != "path" {
			body = append(body, l)
			continue
		}
		if err := finish(); err != nil {
			return nil, err
		}
		if k++; l.rest != strconv.Itoa(k) || k >= len(paths) {
			return nil, h.garbled(l)
		}
	}
	if err := finish(); err != nil {
		return nil, err
	}
	if k != len(paths)-1 {
		return nil, trust.Errorf(trust.Unavailable, "%s answered about %d of %d files", h.name, k+1, len(paths))
	}
	return files, nil
}

// splitHome takes away what an answer begins with where it was asked for: where the
// account's home really lies.
func splitHome(lines []line) (rest []line, home string) {
	if len(lines) > 0 && lines[0].word == "home" {
		return lines[1:], lines[0].rest
	}
	return lines, ""
}

// parseFile reads what op read, or hold, says of one path.
func (h *Host) parseFile(lines []line, owner Account, home, path string) (File, error) {
	f := File{Path: path, FileSystem: FileSystem{FreeBytes: -1, FreeInodes: -1}}
	var state string
	var writable bool
	var groups []string // of the account that acts; none where that is not known
	for _, l := range lines {
		switch l.word {
		case "real":
			f.Real = l.rest
		case "up", "ls":
			ls, ok := parseListing(l.rest)
			if !ok {
				return f, h.garbled(l)
			}
			if l.word == "up" {
				f.Directories = append(f.Directories, Directory{ls.name, ls.permissions(), ls.uid, ls.gid})
				continue
			}
			f.Mode, f.UID, f.GID, f.Links, f.Inode, f.Size = ls.permissions(), ls.uid, ls.gid, ls.links, ls.inode, ls.size
			f.ACL = strings.HasSuffix(ls.mode, "+")
		case "link":
			f.Link = true
		case "writable":
			writable = true
		case "groups":
			groups = strings.Fields(l.rest)
		case "dev":
			f.Device = l.rest
		case "df", "dfi":
			f.FileSystem.readFree(l.word, l.rest)
		case "mount":
			f.FileSystem.readMount(l.rest)
		case "attr":
			f.Immutable = cmp.Or(f.Immutable, immutable(l.rest, f.Real))
		case "lock":
			if parts := strings.Split(l.rest, "."); len(parts) == 4 {
				epoch, _ := strconv.ParseInt(parts[1], 10, 64)
				if f.Locked == nil || f.Locked.Epoch < epoch {
					f.Locked = &Lock{parts[0], epoch, trust.RunID(parts[2])}
				}
			}
		case "state":
			state = l.rest
		case "content":
			if len(l.block) > maxFile {
				return f, trust.Errorf(trust.Exhausted, "%s:%s has more than %d bytes", h.name, path, maxFile)
			}
			f.Content = append([]byte{}, l.block...)
			sum := sha256.Sum256(f.Content)
			f.SHA256 = hex.EncodeToString(sum[:])
		}
	}
	if len(f.Directories) > 0 {
		slices.SortFunc(f.Directories, func(a, b Directory) int { return len(a.Path) - len(b.Path) })
	}
	switch state {
	case "file":
	case "absent":
		f.Absent = true
	case "denied":
		f.Unreadable = true
	case "special", "loop":
		f.Unreadable = true
		f.Fixed = map[string]string{"special": "it is not a regular file", "loop": "it leads through too many symbolic links"}[state]
		return f, nil
	default:
		return f, trust.Errorf(trust.Unavailable, "%s did not say what lies at %q", h.name, path)
	}
	f.Foreign = h.whyForeign(f, owner, groups)
	f.Fixed = cmp.Or(h.whyFixed(f, owner, writable), f.Foreign)
	f.Fault = strictModes(f, owner, home)
	return f, nil
}

// readFree reads the last line of df -P, or of df -P -i.
func (f *FileSystem) readFree(word, text string) {
	fields := strings.Fields(text)
	if len(fields) < 6 {
		return
	}
	free, err := strconv.ParseInt(fields[3], 10, 64)
	if err != nil {
		return
	}
	if word == "df" {
		f.FreeBytes, f.Source, f.MountPoint = free*1024, fields[0], fields[5]
		return
	}
	// File systems that make inodes as they go say that there are none at all.
	if total, err := strconv.ParseInt(fields[1], 10, 64); err == nil && total > 0 {
		f.FreeInodes = free
	}
}

// readMount reads a line of /proc/self/mounts (proc_pid_mounts(5)).
func (f *FileSystem) readMount(text string) {
	fields := strings.Fields(text)
	if len(fields) < 4 {
		return
	}
	f.Source, f.Type = fields[0], fields[2]
	f.ReadOnly = slices.Contains(strings.Split(fields[3], ","), "ro")
}

// immutable says that what a line of lsattr(1) is of is immutable or append-only, or
// nothing: the file at path, or where the line names ".", its directory.
func immutable(line, path string) string {
	flags, name, _ := strings.Cut(line, " ")
	if strings.TrimSpace(name) == "." {
		path = path[:max(strings.LastIndexByte(path, '/'), 1)]
	}
	switch {
	case strings.Contains(flags, "i"):
		return fmt.Sprintf("%s is immutable (as root: chattr -i %[1]s)", path)
	case strings.Contains(flags, "a"):
		return fmt.Sprintf("%s is append-only (as root: chattr -a %[1]s)", path)
	}
	return ""
}

// whyFixed says why an edit of f would be refused, whoever it belongs to.
func (h *Host) whyFixed(f File, owner Account, writable bool) string {
	if len(f.Directories) == 0 {
		if f.Unreadable {
			return "its directory cannot be entered"
		}
		return "" // the directory is missing: it would be made
	}
	dir := f.Directories[len(f.Directories)-1]
	switch {
	case f.FileSystem.ReadOnly:
		return fmt.Sprintf("the file system at %s is mounted read-only", f.FileSystem.MountPoint)
	case f.Immutable != "":
		return f.Immutable
	case f.FileSystem.FreeBytes >= 0 && f.FileSystem.FreeBytes < minBytes:
		return fmt.Sprintf("the file system at %s has only %d KiB left", f.FileSystem.MountPoint, f.FileSystem.FreeBytes>>10)
	case f.FileSystem.FreeInodes >= 0 && f.FileSystem.FreeInodes < minInodes:
		return fmt.Sprintf("the file system at %s has only %d inodes left", f.FileSystem.MountPoint, f.FileSystem.FreeInodes)
	case f.Unreadable:
		return fmt.Sprintf("%s cannot read it", owner.User)
	case f.Links > 2 || f.Links == 2 && f.Locked == nil:
		return fmt.Sprintf("it has %d names (hard links), and the others would keep what it holds now", f.Links)
	}
	asRoot := h.asRoot(dir)
	switch {
	case asRoot && dir.Mode&0o022 != 0:
		return fmt.Sprintf("root's directory %s can be written by others (mode %o)", dir.Path, dir.Mode)
	case !asRoot && !writable && dir.UID == owner.UID:
		return fmt.Sprintf("%s may not write its own directory %s (mode %o)", owner.User, dir.Path, dir.Mode)
	case !asRoot && !writable:
		return fmt.Sprintf("%s belongs to uid %d, and the account that Keyturn acts as cannot write it", dir.Path, dir.UID)
	}
	return ""
}

// asRoot reports whether root is who changes what lies in a directory.
func (h *Host) asRoot(dir Directory) bool { return dir.UID == 0 && (h.root || h.uid == 0) }

// whyForeign says why the owner and group of f could not be kept. groups are of the
// account that acts; none where that is not known.
func (h *Host) whyForeign(f File, owner Account, groups []string) string {
	if f.Absent || len(f.Directories) == 0 {
		return ""
	}
	dir := f.Directories[len(f.Directories)-1]
	switch {
	case h.asRoot(dir):
	case f.UID != dir.UID:
		return fmt.Sprintf("it belongs to uid %d and its directory to uid %d, so that its owner could not be kept", f.UID, dir.UID)
	case dir.UID != 0 && len(groups) > 0 && !slices.Contains(groups, strconv.Itoa(f.GID)):
		return fmt.Sprintf("its group is gid %d, of which %s is no member, so that it could not be kept (chgrp it to a group of %[2]s)", f.GID, owner.User)
	}
	return ""
}

// strictModes says what sshd's check of owners and modes finds, from the file up to
// the home directory or to "/" (safe_path in OpenSSH's misc.c).
func strictModes(f File, owner Account, home string) string {
	bad := func(what string, uid int, mode uint32) string {
		if uid != 0 && uid != owner.UID {
			return fmt.Sprintf("%s belongs to uid %d, not to root or %s", what, uid, owner.User)
		}
		if mode&0o022 != 0 {
			return fmt.Sprintf("%s can be written by others than %s (mode %o)", what, owner.User, mode)
		}
		return ""
	}
	if !f.Absent {
		if fault := bad(f.Real, f.UID, f.Mode); fault != "" {
			return fault
		}
	}
	for _, d := range slices.Backward(f.Directories) {
		if fault := bad(d.Path, d.UID, d.Mode); fault != "" {
			return fault
		}
		if d.Path == home {
			break
		}
	}
	return ""
}

// checkPaths refuses paths of which one is no path of a file to work on.
func checkPaths(paths []string) error {
	for _, p := range paths {
		if err := checkPath(p); err != nil {
			return err
		}
	}
	return nil
}

// checkPath refuses what is no path of a file to work on.
func checkPath(path string) error {
	if !strings.HasPrefix(path, "/") || strings.HasSuffix(path, "/") || strings.ContainsAny(path, "\x00\n\r") {
		return trust.Errorf(trust.Invalid, "%q is not the absolute path of a file", path)
	}
	if name := path[strings.LastIndexByte(path, '/')+1:]; name == "." || name == ".." || len(name) > 200 {
		return trust.Errorf(trust.Invalid, "%q is not the absolute path of a file", path)
	}
	return nil
}
