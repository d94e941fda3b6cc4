//go:build linux

package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	// insideEnv is set in the run of the test binary inside the world, to
	// the id of the process outside. It is not passed on to what that runs.
	insideEnv = "KEYTURN_LAB_INSIDE"
	// outsideFD is the open file of the machine's network namespace in the
	// run inside, from which root file systems are fetched.
	outsideFD = 3
	// yardDir is where the world keeps its hosts: a memory disk over a
	// directory that every system has and no test needs.
	yardDir = "/srv"
	// gateway is the address of the tests themselves, as hosts see it.
	gateway = "10.99.0.1"
	// yardSize bounds the memory that all hosts of a test binary take
	// together. An idle host takes about 100 KiB.
	yardSize = "2g"
)

// entered is what Main tells the tests. It is written once, before any test runs.
var entered = struct {
	refusal string // why hosts cannot be started in this process, or empty
	outer   string // the id of the process outside
}{refusal: "lab.Main has not run: the package needs a TestMain that calls it"}

// Main is the TestMain of a package whose tests start hosts. It runs the test
// binary again in network, mount, UTS, IPC and process namespaces of its own and
// exits with what that run exits with. Where that is refused, the tests run
// where they are and those that call [NewWorld] are skipped, or fail under
// KEYTURN_CI=1.
func Main(m *testing.M) {
	if outer := os.Getenv(insideEnv); outer != "" {
		_ = os.Unsetenv(insideEnv)
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "lab: the world cannot be furnished:", err)
			os.Exit(1)
		}
		entered.refusal, entered.outer = "", outer
		os.Exit(m.Run())
	}
	code, err := enter()
	if err == nil {
		os.Exit(code)
	}
	entered.refusal = err.Error()
	os.Exit(m.Run())
}

// enter runs this binary again inside its own world and returns its exit code,
// or an error if there is no such world.
func enter() (int, error) {
	if os.Geteuid() != 0 {
		return 0, errors.New("hosts in namespaces need root")
	}
	for _, tool := range []string{"ip", "mount", "umount", "pivot_root", "hostname", "nsenter", "chroot"} {
		if _, err := exec.LookPath(tool); err != nil {
			return 0, fmt.Errorf("hosts in namespaces need %q; scripts/deps installs it", tool)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	outside, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return 0, err
	}
	defer outside.Close()
	// Process 1 of the world is a shell that waits for whatever is orphaned
	// in it; the tests are its child, and so an ordinary process with the
	// usual signals. When process 1 dies the kernel ends all others.
	const first = `"$0" "$@" <&0 & wait $!; exit $?`
	cmd := exec.Command("/bin/sh", append([]string{"-c", first, self}, os.Args[1:]...)...)
	cmd.Env = append(os.Environ(), insideEnv+"="+strconv.Itoa(os.Getpid()))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{outside}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
		// The signal comes when the thread that started the world ends,
		// so this thread must be ours until then.
		Pdeathsig: syscall.SIGKILL,
	}
	runtime.LockOSThread()
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("this machine does not let root make namespaces: %w", err)
	}
	_ = cmd.Wait()
	sweepGroups()
	if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal()), nil
	}
	return cmd.ProcessState.ExitCode(), nil
}

// furnish makes what all hosts of the world share: a process table that shows
// only the world, a memory disk, and a bridge with the tests' own address.
func furnish() error {
	unix.CloseOnExec(outsideFD)
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("mounts of our own: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := os.MkdirAll(yardDir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("lab", yardDir, "tmpfs", 0, "mode=755,size="+yardSize); err != nil {
		return fmt.Errorf("mount %s: %w", yardDir, err)
	}
	return ip(
		"link set lo up",
		// An address of its own: a bridge that has none takes the lowest of its ports', so
		// that with each host that comes or goes the others would lose it for half a minute.
		"link add br0 address 02:00:0a:63:00:01 type bridge",
		"addr add "+gateway+"/16 dev br0",
		"link set br0 up",
	)
}

// ip runs lines of ip(8) in the world, all or up to the first that fails.
func ip(lines ...string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(lines, "; "), err, out)
	}
	return nil
}
