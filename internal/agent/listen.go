package agent

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"keyturn/internal/trust"
)

// Listen makes the Unix socket of an agent, which nobody but this user can connect to,
// and which goes when it is closed. A folder that is missing is made, for this user
// alone; one in which others can write is refused: they could put a socket of theirs in
// its place. A socket that is left there of an agent that has ended gives way; whatever else
// is there does not.
func Listen(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
	}
	if err := refuseShared(filepath.Dir(path)); err != nil {
		return nil, err
	}
	if err := giveWay(path); err != nil {
		return nil, err
	}
	// On Linux the mode of the open socket is that of the file that bind(2) makes, so
	// that there is no instant at which others could connect; elsewhere the folder is
	// what keeps them out until the mode is set.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, trust.Errorf(trust.Unavailable, "the agent's socket: %w", err).WithHint("choose another path with --socket: it has 107 bytes at the most")
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
	}
	return l, nil
}

// refuseShared refuses a folder in which somebody else than this user and root can make
// files.
func refuseShared(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
	}
	const others = 0o022
	if owner := info.Sys().(*syscall.Stat_t).Uid; info.Mode()&others != 0 || owner != 0 && int(owner) != os.Getuid() {
		return trust.Errorf(trust.Conflict, "others can write to %s (mode %04o, of user %d), and put a socket of theirs in the place of the agent's", dir, info.Mode().Perm(), owner).
			WithHint("choose another path with --socket, such as one in ~/.ssh, or none; or chmod go-w %s", dir)
	}
	return nil
}

// giveWay removes a socket at which nobody listens.
func giveWay(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
	}
	if info.Mode().Type() != fs.ModeSocket {
		return trust.Errorf(trust.Conflict, "%s is there already, and no socket", path).WithHint("choose another path with --socket")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return trust.Errorf(trust.Conflict, "an agent serves %s already", path).WithHint("SSH_AUTH_SOCK=%s ssh-add -l", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
	}
	if err := os.Remove(path); err != nil {
		return trust.Errorf(trust.Unavailable, "the agent's socket: %w", err)
	}
	return nil
}
