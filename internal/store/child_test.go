package store_test

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"keyturn/internal/need"
)

// inChild reports whether this process was started by a test, to be killed or
// to run where the test itself must not.
func inChild() bool { return os.Getenv("KEYTURN_TEST_CHILD") != "" }

// child returns a command that runs the calling test in a process of its own,
// where inChild is true.
func child(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	name := strings.ReplaceAll(t.Name(), "/", "$/^")
	cmd := exec.Command(program, "-test.run=^"+name+"$", "-test.count=1")
	cmd.Env = append(append(os.Environ(), "KEYTURN_TEST_CHILD=1"), env...)
	return cmd
}

// onSmallDisk runs a test in a process that has a file system of a few
// megabytes for itself, at dir. What it reports is passed on.
func onSmallDisk(t *testing.T, size string, test func(t *testing.T, dir string)) {
	t.Helper()
	if inChild() {
		dir := os.Getenv("KEYTURN_TEST_DISK")
		if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
			t.Fatal(err)
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
			t.Fatal(err)
		}
		test(t, dir)
		return
	}
	cmd := child(t, "KEYTURN_TEST_DISK="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		need.Skip(t, "needs root or user namespaces, for a small disk: %v", err)
	}
	if err != nil {
		t.Errorf("on a small disk: %v\n%s", err, out)
	}
}
