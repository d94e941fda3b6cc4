//go:build linux

package lab

import (
	"errors"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// An upper is the upper layer of a host's files, to be written before the overlay
// is mounted: what is in it covers what the lower layer has (Linux,
// Documentation/filesystems/overlayfs.rst). Paths are relative to the host's
// root. The first error stays in err and makes the rest do nothing.
type upper struct {
	up, lower string
	err       error
}

func (u *upper) fail(err error) {
	if u.err == nil {
		u.err = err
	}
}

// clean hides what a host must not have from its lower layer: another's host keys
// and configuration, and on a machine whose own files serve everything that is the
// machine's and not the distribution's.
func (u *upper) clean() {
	for _, name := range u.names("etc/ssh") {
		if name != "moduli" {
			u.hide("etc/ssh/" + name)
		}
	}
	for _, path := range []string{"etc/rc.local", "etc/doas.conf", "etc/apt", "etc/keyturn", "etc/systemd/journald.conf.d"} {
		u.hide(path)
	}
	u.dir("etc/sudoers.d", 0o750)
	u.dir("root", 0o700)
	if u.lower != "/" {
		return
	}
	system := []string{"bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "var", "root", "proc", "sys", "dev", "run", "home"}
	for _, name := range u.names(".") {
		if !slices.Contains(system, name) {
			u.hide(name)
		}
	}
	for _, path := range []string{"tmp", "var/tmp"} {
		u.dir(path, 0o1777)
	}
	for _, path := range []string{"etc/cron.d", "var/spool/cron", "var/lib/postgresql", "var/log"} {
		u.dir(path, 0o755)
	}
}

// put writes a file, with the owner that the file has in the lower layer.
func (u *upper) put(path, content string, mode fs.FileMode) {
	u.replace(path, func(full string) error {
		if err := os.WriteFile(full, []byte(content), mode); err != nil {
			return err
		}
		var below unix.Stat_t
		if unix.Lstat(filepath.Join(u.lower, path), &below) == nil {
			return os.Chown(full, int(below.Uid), int(below.Gid))
		}
		return nil
	})
}

// link makes a symbolic link.
func (u *upper) link(target, path string) {
	u.replace(path, func(full string) error { return os.Symlink(target, full) })
}

// dir makes a directory through which nothing of the lower layer shows.
func (u *upper) dir(path string, mode fs.FileMode) {
	u.replace(path, func(full string) error {
		if err := os.Mkdir(full, mode.Perm()); err != nil {
			return err
		}
		if err := unix.Chmod(full, uint32(mode)); err != nil { // the umask, and the sticky bit
			return err
		}
		return unix.Setxattr(full, "trusted.overlay.opaque", []byte("y"), 0)
	})
}

// hide makes it so that the path does not exist.
func (u *upper) hide(path string) {
	if _, err := os.Lstat(filepath.Join(u.lower, path)); errors.Is(err, fs.ErrNotExist) {
		return
	}
	u.replace(path, func(full string) error {
		return unix.Mknod(full, unix.S_IFCHR, int(unix.Mkdev(0, 0))) // a whiteout
	})
}

// replace calls make for the path in the upper layer, with nothing there and its
// ancestors as in the lower layer.
func (u *upper) replace(path string, create func(full string) error) {
	if u.err != nil {
		return
	}
	u.fail(u.ancestors(filepath.Dir(path)))
	full := filepath.Join(u.up, path)
	if err := os.RemoveAll(full); err != nil {
		u.fail(err)
	}
	if u.err == nil {
		u.fail(create(full))
	}
}

func (u *upper) ancestors(dir string) error {
	full := filepath.Join(u.up, dir)
	if info, err := os.Lstat(full); dir == "." || err == nil && info.IsDir() {
		return nil
	}
	if err := u.ancestors(filepath.Dir(dir)); err != nil {
		return err
	}
	mode := fs.FileMode(0o755)
	if info, err := os.Lstat(filepath.Join(u.lower, dir)); err == nil {
		mode = info.Mode().Perm()
	}
	return os.Mkdir(full, mode)
}

// names returns what a directory of the lower layer has.
func (u *upper) names(dir string) []string {
	entries, err := os.ReadDir(filepath.Join(u.lower, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		u.fail(err)
	}
	names := make([]string, 0, len(entries))
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

// lines returns the lines of a file of the lower layer.
func (u *upper) lines(path string) iter.Seq[string] {
	text, err := os.ReadFile(filepath.Join(u.lower, path))
	if err != nil {
		u.fail(err)
	}
	return strings.FieldsFuncSeq(string(text), func(r rune) bool { return r == '\n' })
}
