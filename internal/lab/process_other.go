//go:build !linux

package lab

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"

	"keyturn/internal/trust"
)

// sysProcAttr makes a server the leader of a process group of its own. This
// system has no way to end it with its parent.
func sysProcAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// reserve finds a free port. This system does not let sshd share a port that is
// held, so somebody else may take it first; Start then tries another.
func reserve(address *net.TCPAddr) (port int, release func(), err error) {
	l, err := net.ListenTCP("tcp", address)
	if err != nil {
		return 0, nil, trust.Errorf(trust.Conflict, "no port at %q: %w", address, err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	return port, func() {}, l.Close()
}

// A snapshot is the process table at one instant.
type snapshot map[int]int // pid: parent

func processes() (snapshot, error) {
	out, err := exec.Command("ps", "-axo", "pid=,ppid=").Output()
	if err != nil {
		return nil, err
	}
	table := make(snapshot)
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var pid, parent int
		if n, _ := fmt.Sscan(lines.Text(), &pid, &parent); n == 2 {
			table[pid] = parent
		}
	}
	return table, nil
}

// Reloadable cannot tell on this system: a reload in the first instants of a server
// may be lost.
func Reloadable(int) bool { return true }

// pipeName and writesTo find nothing: this system does not show the open files
// of processes.
func pipeName(*os.File) string { return "" }

func writesTo(int, string) bool { return false }

// inSession finds nothing: this system does not show the environments of
// processes.
func inSession(int, string, string) bool { return false }
