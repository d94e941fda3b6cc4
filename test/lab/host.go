//go:build linux

package lab

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	rootless "keyturn/internal/lab"
	"keyturn/internal/trust"
)

// A Spec says what a host is like. Only Name is needed.
type Spec struct {
	// Name is the host's name, unique in its world.
	Name string
	// Root is what the host boots from; the default is OpenSSH92.
	Root Root
	// Users are accounts beside those that every system has. "root" stands
	// for the account that is there, whose password is unusable.
	Users []User
	// SSHD is lines that come first in sshd_config, and so count. A Match
	// block, if any, must be the last of them. The rest is as Debian installs
	// it, but for LogLevel, which is VERBOSE.
	SSHD []string
	// HostKeys are the types of the host's keys, of "ed25519", "ecdsa" and
	// "rsa"; the default is the first two.
	HostKeys []string
	// Container makes the server process 1 of the host, as in a container
	// image that runs nothing else: the host goes down with it, and nothing
	// starts at boot but it. The default is an init that runs /etc/rc.local
	// if that is there, starts the server in the background, and waits for
	// orphans.
	Container bool
	// Penalties says whether a server that can, OpenSSH 9.8 and later,
	// penalizes the test's usual address for failed logins.
	Penalties Penalties
}

// Penalties says which addresses a server is lenient to, see
// PerSourcePenaltyExemptList in sshd_config(5).
type Penalties string

const (
	// SomeExempt is the default: hosts with an odd number in the world are
	// exempt and those with an even one not, so that a test over many hosts
	// meets both.
	SomeExempt Penalties = ""
	// Exempt spares the test's usual address.
	Exempt Penalties = "exempt"
	// Enforced spares nobody.
	Enforced Penalties = "enforced"
)

// A User is an account of a host. Its home is /home/NAME, a home of its group
// only, on a disk that the homes of the host share.
type User struct {
	Name string
	// Shell is the login shell: "dash" (the default), "bash" or "busybox".
	Shell string
	// Become is how the account may run commands as root without a
	// password: "sudo", "doas", or not at all.
	Become string
	// AuthorizedKeys are the lines of ~/.ssh/authorized_keys.
	AuthorizedKeys []string
	// Identities are private key files, by their path below the home; each
	// is written with mode 0600.
	Identities map[string][]byte
	// Locked makes the password field "!", as useradd does: without PAM
	// sshd lets nobody in then.
	Locked bool
}

// A Host is one machine of a world. Its methods may be called from any
// goroutine, those that take a test from the test's own.
type Host struct {
	name    string
	spec    Spec
	world   *World
	number  int    // in the world, from 1
	lower   string // directory of the root's files
	dir     string // up, work, home, root
	address netip.Addr
	keys    []trust.PublicKey
	log     *rootless.Log

	mu    sync.Mutex
	boots int
	run   *running // nil while the power is off
	gone  bool
}

// running is one boot of a host.
type running struct {
	cmd    *exec.Cmd // process 1
	syslog *net.UnixConn
	link   string        // the world's end of the host's network card
	ended  chan struct{} // closed when process 1, and so all others, has ended
}

//go:embed init.sh
var initScript string

// bootTimeout bounds the time until a host's server listens. systemd takes some
// seconds of two busy processors.
const bootTimeout = 60 * time.Second

// The script that process 1 of a host is.
const (
	firstOpenSSH = `[ ! -x /etc/rc.local ] || /etc/rc.local
/usr/sbin/sshd
while :; do sleep 2000000 & wait; done`
	firstContainer = `exec /usr/sbin/sshd -D`
	// In a container systemd takes what a kernel is told from its arguments.
	// It is to use the hierarchy that it is given and no other.
	firstSystemd  = `exec /sbin/init systemd.unit=multi-user.target systemd.legacy_systemd_cgroup_controller=1`
	firstDropbear = `[ ! -x /etc/rc.local ] || /etc/rc.local
/usr/sbin/dropbear -r ` + dropbearKeyFile + `
while :; do sleep 2000000 & wait; done`
)

// newHost makes a host that is still off.
func (w *World) newHost(t testing.TB, spec Spec) *Host {
	t.Helper()
	if spec.Root == "" {
		spec.Root = OpenSSH92
	}
	h := &Host{name: spec.Name, spec: spec, world: w, log: rootless.NewLog(nil), lower: spec.Root.pathFor(t)}
	w.mu.Lock()
	for _, other := range w.hosts {
		if other.name == h.name {
			w.mu.Unlock()
			t.Fatalf("two hosts of the name %q", h.name)
		}
	}
	w.hosts = append(w.hosts, h)
	h.number = len(w.hosts)
	w.mu.Unlock()
	if h.number > 250 {
		t.Fatal("a world has room for 250 hosts")
	}
	h.address = netip.AddrFrom4([4]byte{10, 99, byte(w.number), byte(h.number)})
	h.dir = filepath.Join(w.dir, strconv.Itoa(h.number))
	if err := h.furnish(); err != nil {
		t.Fatalf("host %q: %v", h.name, err)
	}
	return h
}

// powerOn boots the host from what is in its directory.
func (h *Host) powerOn() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone || h.run != nil {
		return trust.Errorf(trust.Conflict, "host %q is on or gone", h.name)
	}
	if err := h.boot(); err != nil {
		return trust.Errorf(trust.Unavailable, "host %q does not boot: %w; its log:\n%s", h.name, err, h.log.Tail(20))
	}
	return nil
}

// boot starts process 1 and returns when the server listens. h.mu is held.
func (h *Host) boot() error {
	ctx, cancel := context.WithTimeoutCause(context.Background(), bootTimeout, fmt.Errorf("nothing listens after %v", bootTimeout))
	defer cancel()
	h.boots++
	setup, first, groups := "", firstOpenSSH, ""
	var enter []string
	switch {
	case h.spec.Root == Systemd:
		group, unified, err := h.makeGroup()
		if err != nil {
			return err
		}
		first, groups = firstSystemd, "cgroup"
		if unified {
			groups = "cgroup2"
		}
		// The namespace's root is the group that it is made in.
		enter = []string{"/bin/sh", "-euc", `echo 0 >"$1/cgroup.procs"; shift; exec unshare --cgroup "$@"`, "lab-group", group}
	case h.spec.Root == Dropbear:
		first = firstDropbear
		if h.boots == 1 {
			setup = setupDropbear
		}
	case h.spec.Container:
		first = firstContainer
	}
	args := append(enter, "/bin/sh", "-c", initScript, "lab-init", h.dir, h.lower, h.name, groups, setup, first)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID,
		Setsid:     true,
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	console, w, err := os.Pipe()
	if err != nil {
		return err
	}
	cmd.Stdout, cmd.Stderr = w, w
	before := h.log.Seq()
	err = cmd.Start()
	_ = w.Close()
	if err != nil {
		_ = console.Close()
		return err
	}
	run := &running{cmd: cmd, link: fmt.Sprintf("v%d.%d.%d", h.world.number, h.number, h.boots), ended: make(chan struct{})}
	h.run = run
	mounted := make(chan struct{})
	go h.readConsole(console, mounted)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		_ = cmd.Wait()
		close(run.ended)
		stop(errors.New("process 1 has ended"))
	}()
	select {
	case <-mounted:
		err = h.connect(run, stdin)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	if err == nil {
		err = h.awaitServer(ctx, run, before)
	}
	if err != nil {
		h.cut()
	}
	return err
}

// readConsole adds to the log what the host's processes write to the stdout and
// stderr that they were born with, and closes mounted at the line "ready".
func (h *Host) readConsole(console *os.File, mounted chan struct{}) {
	defer console.Close()
	for lines := bufio.NewScanner(console); lines.Scan(); {
		if line := lines.Text(); line == "ready" && mounted != nil {
			close(mounted)
			mounted = nil
		} else {
			h.log.Add("console: " + line)
		}
	}
}

// connect gives the host its system log and its network card, and lets it go on.
func (h *Host) connect(run *running, stdin io.WriteCloser) error {
	pid := run.pid()
	path := filepath.Join(fmt.Sprintf("/proc/%d/root", pid), h.dir, "root", h.syslogPath())
	var err error
	if run.syslog, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		return err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return err
	}
	go h.readSyslog(run.syslog)
	// The address of the card must be the same at each boot, else
	// neighbours talk to the old one for as long as they remember it.
	a := h.address.As4()
	if err := ip(
		fmt.Sprintf("link add %s type veth peer name eth0 address 02:00:%02x:%02x:%02x:%02x netns %d", run.link, a[0], a[1], a[2], a[3], pid),
		fmt.Sprintf("link set %s master br0 up", run.link),
	); err != nil {
		return err
	}
	_, err = fmt.Fprintln(stdin, h.address)
	return errors.Join(err, stdin.Close())
}

// syslogPath returns where on the host the system's log is collected.
func (h *Host) syslogPath() string {
	if h.spec.Root == Systemd {
		return "run/systemd/journal/syslog" // where journald forwards to
	}
	return "dev/log"
}

// readSyslog adds the host's system log to its log.
func (h *Host) readSyslog(conn *net.UnixConn) {
	message := make([]byte, 64<<10)
	for {
		n, err := conn.Read(message)
		if err != nil {
			return // closed with the host
		}
		if line, ok := syslogLine(message[:n]); ok {
			h.log.Add(line)
		}
	}
}

// awaitServer returns when the server accepts connections.
func (h *Host) awaitServer(ctx context.Context, run *running, before int) error {
	switch h.spec.Root {
	case Systemd:
		// Until it has come that far, only root may log in (pam_nologin(8)).
		if _, err := h.log.Await(ctx, before, func(e rootless.Event) bool {
			return strings.HasPrefix(e.Text, "systemd[1]: Startup finished")
		}); err != nil {
			return err
		}
		return h.awaitListening(ctx, run, before)
	case Dropbear:
	default:
		return h.awaitListening(ctx, run, before)
	}
	for {
		// What is sent before the network card is up is lost, and would be
		// sent again after a second only.
		conn, err := (&net.Dialer{Timeout: 50 * time.Millisecond}).DialContext(ctx, "tcp", h.Address())
		if err == nil {
			return conn.Close()
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
}

// awaitListening returns when an OpenSSH server has said, after the event before,
// that it listens, can be reloaded, and has nothing of that left to say. It does
// not connect: where there are penalties, a connection that does not log in counts.
func (h *Host) awaitListening(ctx context.Context, run *running, before int) error {
	if _, err := h.log.Await(ctx, before, rootless.IsKind(rootless.Listening)); err != nil {
		return err
	}
	for {
		pid, err := run.listener()
		if err == nil && rootless.Reloadable(pid) {
			break
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	// It says so once for each address. Messages arrive in order: a later one
	// of ours shows that all of those have.
	const marker = "lab: the server listens"
	before = h.log.Seq()
	// The host has made its files its root since the socket was bound.
	to := &net.UnixAddr{Name: fmt.Sprintf("/proc/%d/root/%s", run.pid(), h.syslogPath()), Net: "unixgram"}
	if _, err := run.syslog.WriteTo([]byte("<38>"+marker), to); err != nil {
		return err
	}
	_, err := h.log.Await(ctx, before, func(e rootless.Event) bool { return e.Text == marker })
	return err
}

// pause waits for a moment, or returns why ctx has ended.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(2 * time.Millisecond):
		return nil
	}
}

// cut takes the power away. h.mu is held.
func (h *Host) cut() {
	if h.run == nil {
		return
	}
	// The kernel ends all of a host with its process 1.
	_ = h.run.cmd.Process.Kill()
	<-h.run.ended
	if h.run.syslog != nil {
		_ = h.run.syslog.Close()
	}
	// The kernel takes the network card with the namespace, but in its own
	// time; its name and address may be wanted again before.
	_ = ip("link del " + h.run.link)
	h.run = nil
}

// remove ends the host and what it has mounted in the world.
func (h *Host) remove() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	h.cut()
	_ = unix.Unmount(filepath.Join(h.dir, "home"), unix.MNT_DETACH)
}

// current returns the host's present boot.
func (h *Host) current() (*running, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.run == nil {
		return nil, trust.Errorf(trust.Unavailable, "host %q is off", h.name)
	}
	return h.run, nil
}

// pid returns the world's number of the host's process 1.
func (r *running) pid() int { return r.cmd.Process.Pid }

// Name returns the host's name.
func (h *Host) Name() string { return h.name }

// Root returns what the host boots from.
func (h *Host) Root() Root { return h.spec.Root }

// Addr returns the host's IP address.
func (h *Host) Addr() netip.Addr { return h.address }

// Address returns where the host's server listens, "10.99.X.Y:22".
func (h *Host) Address() string { return netip.AddrPortFrom(h.address, 22).String() }

// HostKeys returns the host keys that the host was made with.
func (h *Host) HostKeys() []trust.PublicKey { return append([]trust.PublicKey(nil), h.keys...) }

// KnownHosts returns the lines of known_hosts for the host.
func (h *Host) KnownHosts() string {
	var b strings.Builder
	for _, key := range h.keys {
		fmt.Fprintf(&b, "%s %s\n", h.address, key)
	}
	return b.String()
}

// Log returns the host's system log, across boots: what the server and sudo say.
func (h *Host) Log() *rootless.Log { return h.log }
