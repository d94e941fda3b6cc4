//go:build linux

package lab

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	rootless "keyturn/internal/lab"
	"keyturn/internal/need"
)

// A Root is a root file system that hosts boot from, named by the SSH server in
// it. Roots are made from the distribution's packages, once, and kept in
// [CacheDir].
//
// Where a root cannot be made, for want of mmdebstrap or of a network, a test that
// needs it is skipped and says why. Under KEYTURN_CI=1 it fails instead, but for
// OpenSSH84 and Newest: the one is past its support and the other moves.
type Root string

// The roots that there are.
const (
	// OpenSSH92 is Debian 12. On a machine that is one itself, hosts boot
	// from the machine's own files, without its homes and secrets, and
	// nothing is made.
	OpenSSH92 Root = "openssh-9.2"
	// OpenSSH84 is Debian 11.
	OpenSSH84 Root = "openssh-8.4"
	// OpenSSH100 is Debian 13.
	OpenSSH100 Root = "openssh-10.0"
	// Newest is the newest OpenSSH that Debian has packaged.
	Newest Root = "openssh-newest"
	// Systemd is OpenSSH 9.2 on a host whose process 1 is systemd.
	Systemd Root = "systemd"
	// Dropbear is Dropbear in place of OpenSSH, on Debian 12.
	Dropbear Root = "dropbear"
)

// Roots returns all roots.
func Roots() []Root {
	return []Root{OpenSSH92, OpenSSH84, OpenSSH100, Newest, Systemd, Dropbear}
}

// A recipe is how a root is made.
type recipe struct {
	suite   string
	include string   // packages beside Debian's essential ones, by commas
	options []string // of mmdebstrap
	// own is the OpenSSH release that makes the machine's own files serve.
	own rootless.Version
	// mayLack means that tests do without the root even where they must run.
	mayLack bool
}

const packages = "openssh-server,openssh-client,sudo,iproute2,procps,busybox-static"

// recipe returns how a root is made. The second result is false for a name that
// is none.
func (r Root) recipe() (recipe, bool) {
	bookworm := recipe{suite: "bookworm", include: packages + ",opendoas,dropbear-bin", own: rootless.Version{Major: 9, Minor: 2}}
	switch r {
	case OpenSSH92, Dropbear:
		return bookworm, true
	case OpenSSH84:
		return recipe{suite: "bullseye", include: packages + ",doas", mayLack: true}, true
	case OpenSSH100:
		return recipe{suite: "trixie", include: packages + ",opendoas"}, true
	case Newest:
		return recipe{
			suite: "sid", include: packages + ",opendoas", mayLack: true,
			// A mirror may lag behind the few days for which the index
			// of a moving suite is valid.
			options: []string{`--aptopt=Acquire::Check-Valid-Until "false"`},
		}, true
	case Systemd:
		return recipe{suite: "bookworm", include: packages + ",opendoas,systemd-sysv,dbus"}, true
	}
	return recipe{}, false
}

// Optional reports whether tests do without the root, if it cannot be made, also
// where they must run.
func (r Root) Optional() bool {
	how, _ := r.recipe()
	return how.mayLack
}

// penalizes reports whether the root's server penalizes addresses that fail to
// log in.
func (r Root) penalizes() bool { return r == OpenSSH100 || r == Newest }

// command returns the mmdebstrap command that makes the root in dir.
func (r recipe) command(dir, mirror string) []string {
	args := []string{
		"mmdebstrap", "--mode=root", "--variant=minbase", "--format=directory", "--quiet", "--include=" + r.include,
		"--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/man/*",
	}
	return append(append(args, r.options...), r.suite, dir, mirror)
}

// CacheDir returns the directory that roots are kept in: KEYTURN_LAB_CACHE, or
// "keyturn-lab" in the user's cache directory.
func CacheDir() (string, error) {
	if dir := os.Getenv("KEYTURN_LAB_CACHE"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no place to keep root file systems, set KEYTURN_LAB_CACHE: %w", err)
	}
	return filepath.Join(dir, "keyturn-lab"), nil
}

// Path returns the directory of the root's files, and makes them first if they
// are not there. It may be called from several processes at a time.
func (r Root) Path(ctx context.Context) (string, error) {
	how, ok := r.recipe()
	if !ok {
		return "", fmt.Errorf("there is no root %q", r)
	}
	if how.own != (rootless.Version{}) && ownFilesServe(ctx, how.own, r == Dropbear) {
		return "/", nil
	}
	cache, err := CacheDir()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256([]byte(strings.Join(how.command("", ""), "\n")))
	dir := filepath.Join(cache, how.suite+"-"+hex.EncodeToString(sum[:6]))
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil // somebody else has made it while we waited
	}
	if err := how.make(ctx, dir); err != nil {
		return "", fmt.Errorf("root %q (Debian %s) cannot be made: %w", r, how.suite, err)
	}
	return dir, nil
}

// make makes the root beside dir and moves it there when it is complete.
func (r recipe) make(ctx context.Context, dir string) error {
	if os.Geteuid() != 0 {
		return errors.New("that needs root")
	}
	if _, err := exec.LookPath("mmdebstrap"); err != nil {
		return errors.New("that needs mmdebstrap; scripts/deps installs it")
	}
	mirror, err := mirror()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	half := dir + ".making"
	if err := os.RemoveAll(half); err != nil { // of a run that was killed
		return err
	}
	args := r.command(half, mirror)
	var passed []*os.File
	if inWorld() {
		// The world has no way to a mirror; the machine may have.
		outside, err := os.Open(fmt.Sprintf("/proc/self/fd/%d", outsideFD))
		if err != nil {
			return err
		}
		defer outside.Close()
		args = append([]string{"nsenter", "--net=/proc/self/fd/3"}, args...)
		passed = []*os.File{outside}
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.ExtraFiles = passed // from 3 on
	out, err := cmd.CombinedOutput()
	if err != nil {
		_ = os.RemoveAll(half)
		return fmt.Errorf("%w: %s", err, lastLines(out, 3))
	}
	return os.Rename(half, dir)
}

// inWorld reports whether this process has the open network namespace of the
// machine that a world has.
func inWorld() bool {
	var stat unix.Statfs_t
	return unix.Fstatfs(outsideFD, &stat) == nil && stat.Type == unix.NSFS_MAGIC
}

// ownFilesServe reports whether the machine's own files hold what the root would.
func ownFilesServe(ctx context.Context, want rootless.Version, dropbear bool) bool {
	const sshd = "/usr/sbin/sshd"
	tools := []string{"/usr/bin/sudo", "/usr/bin/doas", "/bin/busybox", "/usr/bin/ssh"}
	if dropbear {
		tools = append(tools, "/usr/sbin/dropbear", "/usr/lib/dropbear/dropbearconvert")
	}
	for _, path := range tools {
		if _, err := os.Stat(path); err != nil {
			return false
		}
	}
	have, err := rootless.VersionOf(ctx, sshd)
	return err == nil && have == want
}

// mirror returns the address of the package archive that the machine itself is
// installed from, or KEYTURN_LAB_MIRROR.
func mirror() (string, error) {
	if address := os.Getenv("KEYTURN_LAB_MIRROR"); address != "" {
		return address, nil
	}
	release, _ := os.ReadFile("/etc/os-release")
	_, codename, _ := strings.Cut(string(release), "\nVERSION_CODENAME=")
	codename, _, _ = strings.Cut(codename, "\n")
	if !strings.Contains(string(release), "\nID=debian\n") || codename == "" {
		return "", errors.New("this machine is not Debian and so names no Debian archive; set KEYTURN_LAB_MIRROR")
	}
	lists, _ := filepath.Glob("/etc/apt/sources.list.d/*.list")
	modern, _ := filepath.Glob("/etc/apt/sources.list.d/*.sources")
	for _, path := range slices.Concat([]string{"/etc/apt/sources.list"}, lists, modern) {
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		if address := archiveOf(string(text), codename); address != "" {
			return address, nil
		}
	}
	return "", fmt.Errorf("no source of this machine's apt serves %q; set KEYTURN_LAB_MIRROR", codename)
}

// archiveOf returns the first address in a file of apt's sources that serves the
// suite, in the one-line or the deb822 format (sources.list(5)).
func archiveOf(text, suite string) string {
	var uris, suites []string
	for lines := bufio.NewScanner(strings.NewReader(text + "\n\n")); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		name, value, _ := strings.Cut(line, ":")
		switch {
		case line == "":
			if len(uris) > 0 && slices.Contains(suites, suite) {
				return uris[0]
			}
			uris, suites = nil, nil
		case strings.HasPrefix(line, "deb "):
			fields := strings.Fields(line)[1:]
			if strings.HasPrefix(fields[0], "[") {
				end := slices.IndexFunc(fields, func(f string) bool { return strings.HasSuffix(f, "]") })
				fields = fields[end+1:]
			}
			if len(fields) > 1 && fields[1] == suite {
				return fields[0]
			}
		case strings.EqualFold(name, "URIs"):
			uris = strings.Fields(value)
		case strings.EqualFold(name, "Suites"):
			suites = strings.Fields(value)
		}
	}
	return ""
}

// lastLines returns the last n lines of a command's output that say something.
func lastLines(out []byte, n int) string {
	lines := strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' || r == '\r' })
	return strings.Join(lines[max(0, len(lines)-n):], "; ")
}

// pathFor returns the directory of the root's files, or ends the test: it is skipped
// where it may do without.
func (r Root) pathFor(t testing.TB) string {
	t.Helper()
	dir, err := r.Path(t.Context())
	if err == nil {
		return dir
	}
	if _, known := r.recipe(); !known {
		t.Fatal(err)
	}
	if r.Optional() {
		need.Optional(t, "%v", err)
	} else {
		need.Skip(t, "%v", err)
	}
	return ""
}
