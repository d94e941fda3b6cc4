//go:build linux

package lab

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"keyturn/internal/trust"
)

// shTimeout bounds a script that is run on a host.
const shTimeout = 60 * time.Second

// command returns a command that runs a script as root on the host, with the
// host's /bin/sh, below no login and no sshd.
func (h *Host) command(ctx context.Context, script string) (*exec.Cmd, error) {
	run, err := h.current()
	if err != nil {
		return nil, err
	}
	args := []string{"-t", strconv.Itoa(run.pid()), "-m", "-u", "-i", "-n", "-p"}
	if h.spec.Root == Systemd {
		args = append(args, "-C")
	}
	args = append(args, "-r", "-w", "--", "/usr/bin/env", "-i",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "/bin/sh", "-c", script)
	return exec.CommandContext(ctx, "nsenter", args...), nil
}

// Run runs a script on the host as root, with the host's /bin/sh, and returns its
// stdout. The error, if it fails, shows its stderr.
func (h *Host) Run(ctx context.Context, script string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, shTimeout)
	defer cancel()
	cmd, err := h.command(ctx, script)
	if err != nil {
		return "", err
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = time.Second // what the script left in the background may hold its output
	if err := cmd.Run(); err != nil {
		return stdout.String(), fmt.Errorf("script on host %q: %w\n%s%s", h.name, err, stdout.String(), stderr.String())
	}
	return stdout.String(), nil
}

// Sh is [Host.Run] for a script that must succeed.
func (h *Host) Sh(t testing.TB, script string) string {
	t.Helper()
	out, err := h.Run(t.Context(), script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// SecondWriter prepares a script that somebody else runs on the host as root, and
// returns the function that runs it and waits for its end. All that takes time is
// done beforehand, so that it can be called at an exact moment, such as from the
// hook between two effects.
func (h *Host) SecondWriter(t testing.TB, script string) (write func() error) {
	t.Helper()
	cmd, err := h.command(t.Context(), "read -r go && echo ready && read -r go || exit 1\n"+script)
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waited := false
	t.Cleanup(func() {
		if !waited {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	ready := make([]byte, len("ready\n"))
	_, err = io.WriteString(stdin, "go\n")
	if err == nil {
		_, err = io.ReadFull(stdout, ready)
	}
	if err != nil {
		t.Fatalf("second writer on host %q: %v", h.name, err)
	}
	return func() error {
		waited = true
		_, err := io.WriteString(stdin, "go\n")
		_ = stdin.Close()
		if waitErr := cmd.Wait(); waitErr != nil {
			err = fmt.Errorf("second writer on host %q: %w: %s", h.name, waitErr, stderr.String())
		}
		return err
	}
}

// open opens a path of the host as a process on it would, symbolic links included,
// and without running one: so a test can look at a file at every instant.
func (h *Host) open(path string, flags int, mode uint64) (*os.File, error) {
	run, err := h.current()
	if err != nil {
		return nil, err
	}
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", run.pid()), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(root)
	fd, err := unix.Openat2(root, strings.TrimPrefix(path, "/"), &unix.OpenHow{
		Flags: uint64(flags) | unix.O_CLOEXEC, Mode: mode, Resolve: unix.RESOLVE_IN_ROOT,
	})
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: h.name + ":" + path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

// ReadFile returns the content of a file of the host, by one read of the file as
// it is at that instant.
func (h *Host) ReadFile(path string) ([]byte, error) {
	f, err := h.open(path, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// WriteFile writes a file of the host in place, as an editor without care does. A
// new one belongs to user, which must be an account of the host or "root"; the
// owner of an old one stays.
func (h *Host) WriteFile(t testing.TB, user, path string, content []byte, mode fs.FileMode) {
	t.Helper()
	if err := h.writeFile(user, path, content, mode); err != nil {
		t.Fatal(err)
	}
}

func (h *Host) writeFile(user, path string, content []byte, mode fs.FileMode) error {
	uid, err := h.uid(user)
	if err != nil {
		return err
	}
	_, err = h.ReadFile(path)
	isNew := err != nil
	f, err := h.open(path, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC, uint64(mode.Perm()))
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	if isNew {
		if err := f.Chmod(mode); err != nil {
			return err
		}
		return f.Chown(uid, uid)
	}
	return nil
}

// uid returns the number of an account of the host's specification, which is also
// that of its group.
func (h *Host) uid(user string) (int, error) {
	if user == "root" {
		return 0, nil
	}
	for i, u := range h.spec.Users {
		if u.Name == user {
			return firstUID + i, nil
		}
	}
	return 0, trust.Errorf(trust.NotFound, "host %q has no user %q", h.name, user)
}
