package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"keyturn/internal/trust"
)

// Find returns the absolute path of the machine's sshd: the one in PATH, else
// at the places where distributions put it, which an ordinary user's PATH often
// leaves out.
func Find() (string, error) {
	if path, err := exec.LookPath("sshd"); err == nil {
		return filepath.Abs(path)
	}
	for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/sbin", "/usr/lib/openssh", "/usr/lib/ssh", "/usr/libexec"} {
		path := filepath.Join(dir, "sshd")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path, nil
		}
	}
	return "", trust.Errorf(trust.NotFound, "no sshd on this machine").
		WithHint("install the package openssh-server (Debian, Ubuntu, Fedora) or openssh (Alpine, Arch); scripts/deps does")
}

// A Version is that of an OpenSSH release.
type Version struct {
	Major, Minor int
}

// AtLeast reports whether v is the release major.minor or a later one.
func (v Version) AtLeast(major, minor int) bool {
	return v.Major > major || v.Major == major && v.Minor >= minor
}

var versionPattern = regexp.MustCompile(`OpenSSH_(?:for_Windows_)?(\d+)\.(\d+)`)

// VersionOf asks an sshd binary for its release, with variables as in
// [Options.Env]. Releases before 9.2 do not
// know -V and tell their version in the complaint, which serves as well.
func VersionOf(ctx context.Context, sshd string, env ...string) (Version, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, sshd, "-V")
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	m := versionPattern.FindSubmatch(out)
	if m == nil {
		if err == nil {
			err = ctx.Err()
		}
		return Version{}, trust.Errorf(trust.Invalid, "%q does not say that it is OpenSSH: %.200q (%w)", sshd, out, err)
	}
	major, _ := strconv.Atoi(string(m[1]))
	minor, _ := strconv.Atoi(string(m[2]))
	return Version{major, minor}, nil
}
