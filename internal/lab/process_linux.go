package lab

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"keyturn/internal/trust"
)

// sysProcAttr makes a server the leader of a process group of its own and has
// the kernel kill it when the thread that starts it ends.
func sysProcAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// reserve takes a free port of an address whose port is 0, or the port that it
// names, and keeps it until release: a socket that is bound and does not listen
// leaves the port to a server that listens with SO_REUSEADDR, as sshd does, but
// the kernel gives it neither to anybody who asks for a free port nor to an
// outgoing connection. So a server that is down keeps its address.
func reserve(address *net.TCPAddr) (port int, release func(), err error) {
	family, sockaddr := syscall.AF_INET, syscall.Sockaddr(nil)
	if v4 := address.IP.To4(); v4 != nil {
		sockaddr = &syscall.SockaddrInet4{Port: address.Port, Addr: [4]byte(v4)}
	} else {
		family, sockaddr = syscall.AF_INET6, &syscall.SockaddrInet6{Port: address.Port, Addr: [16]byte(address.IP)}
	}
	fd, err := syscall.Socket(family, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, nil, err
	}
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err == nil {
		err = syscall.Bind(fd, sockaddr)
	}
	if err == nil {
		sockaddr, err = syscall.Getsockname(fd)
	}
	if err != nil {
		_ = syscall.Close(fd)
		return 0, nil, trust.Errorf(trust.Conflict, "no port at %q: %w", address, err)
	}
	switch bound := sockaddr.(type) {
	case *syscall.SockaddrInet4:
		port = bound.Port
	case *syscall.SockaddrInet6:
		port = bound.Port
	}
	return port, func() { _ = syscall.Close(fd) }, nil
}

// A snapshot is the process table at one instant.
type snapshot map[int]int // pid: parent

func processes() (snapshot, error) {
	names, err := readDirNames("/proc")
	if err != nil {
		return nil, err
	}
	table := make(snapshot, len(names))
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile(filepath.Join("/proc", name, "stat"))
		if err != nil {
			continue // it has ended
		}
		// "pid (name) state ppid ...": the name may contain anything.
		_, rest, _ := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(" "))
		fields := bytes.Fields(rest)
		if len(fields) < 2 || fields[0][0] == 'Z' {
			continue
		}
		table[pid], _ = strconv.Atoi(string(fields[1]))
	}
	return table, nil
}

// Reloadable reports whether the server whose listener is pid has got as far as to
// handle SIGHUP. It comes to that only after it has said that it listens; a SIGHUP
// in between ends it, or after another reload is ignored.
func Reloadable(pid int) bool {
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "status"))
	if err != nil {
		return false
	}
	_, mask, _ := strings.Cut(string(status), "\nSigCgt:\t")
	mask, _, _ = strings.Cut(mask, "\n")
	signals, err := strconv.ParseUint(mask, 16, 64)
	return err == nil && signals&(1<<(syscall.SIGHUP-1)) != 0
}

// writesTo reports whether pid has the pipe as its standard error: it is sshd
// then, the listener or one that serves a connection, though its parent may have
// ended.
func writesTo(pid int, pipe string) bool {
	link, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "fd/2"))
	return err == nil && link == pipe
}

// inSession reports whether pid runs in a session on the server at address,
// however far it has detached itself: sshd(8) puts the connection's two ends
// into the environment of everything that it starts.
func inSession(pid int, host, port string) bool {
	environ, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "environ"))
	if err != nil {
		return false
	}
	for variable := range bytes.SplitSeq(environ, []byte{0}) {
		if value, ok := strings.CutPrefix(string(variable), "SSH_CONNECTION="); ok {
			return strings.HasSuffix(value, " "+host+" "+port)
		}
	}
	return false
}

// pipeName returns what a link to this end of a pipe, or the other, reads.
func pipeName(end *os.File) (link string) {
	// File.Fd would make reads of it block for good.
	if raw, err := end.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			link, _ = os.Readlink(filepath.Join("/proc/self/fd", strconv.Itoa(int(fd))))
		})
	}
	return link
}

func readDirNames(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}
