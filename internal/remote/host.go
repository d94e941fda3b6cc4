package remote

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/trust"
)

// A Become says how a login gets root's rights on its host.
type Become string

// The ways to become root.
const (
	None Become = "none"
	Sudo Become = "sudo"
	Doas Become = "doas"
)

// A Hook is called before and after every effect on a host, with "before OP" and
// "after OP". An error before keeps the effect from happening; either ends the
// operation there, as a crash would.
type Hook func(ctx context.Context, point string) error

// A Host is one host over one connection. It may be used from several goroutines,
// but a server allows about ten commands at a time on one connection (MaxSessions).
type Host struct {
	name   string // for messages
	banner string // the server's identification string
	login  string
	become Become // None where the login is root already
	hook   Hook
	exec   func(ctx context.Context, command string, stdin []byte, limit int) (dial.Result, error)
	shells shells

	uid         int
	root        bool // ops can be run as root
	home        string
	kernel      string
	hostname    string
	skew        time.Duration
	tools       []string
	drop        string
	connection  []string // client address, client port, server address, server port
	shell, here string

	mu       sync.Mutex
	accounts map[string]Account
	sshd     *Sshd
	orphan   bool                     // the sshd that took the connection has gone
	configs  map[string]AccountConfig // by user
	said     map[string]answer        // of op config, by connection, that AskAhead asked for
	recent   map[recentName]recent    // files that are held
}

// Open finds out who and what is at the other end of a connection. name is what
// messages call the host: what its owner calls it, who may not know its address.
// become is how the login becomes root, where it has to; hook may be nil. It fails
// with Denied where the account runs no commands or does not become root without a
// password.
func Open(ctx context.Context, conn *dial.Conn, name string, become Become, hook Hook) (*Host, error) {
	// OpenSSH takes a command of any length. Dropbear ends the connection over one of more
	// than 9,000 bytes, and what other servers do is not known.
	start := conn.Start
	if v, err := trust.ParseServerVersion(conn.Version()); err != nil || v.Family != trust.OpenSSH {
		start = nil
	}
	h, err := open(ctx, name, conn.Target().User, become, hook, conn.Run, start)
	if err != nil {
		return nil, err
	}
	h.banner = conn.Version()
	return h, nil
}

// announced returns the version that the host's server says it is, or the zero value where
// there is no connection, or none that can be read.
func (h *Host) announced() trust.ServerVersion {
	version, _ := trust.ParseServerVersion(h.banner)
	return version
}

func open(ctx context.Context, name, login string, become Become, hook Hook,
	exec func(context.Context, string, []byte, int) (dial.Result, error),
	start func(context.Context, string) (*dial.Process, error),
) (*Host, error) {
	if become == "" {
		become = None
	}
	if !slices.Contains([]Become{None, Sudo, Doas}, become) {
		return nil, trust.Errorf(trust.Invalid, "%q is no way to become root: it is none, sudo or doas", become).WithField("become")
	}
	h := &Host{name: name, login: login, become: None, hook: hook, exec: exec, shells: shells{start: start, by: map[string]*shell{}}, accounts: map[string]Account{}, configs: map[string]AccountConfig{}}
	if err := h.hello(ctx, self); err != nil {
		return nil, err
	}
	h.root = h.uid == 0
	if !h.root && become != None {
		h.become, h.root = become, true
		uid, home, here := h.uid, h.home, h.here
		connection := h.connection
		if err := h.hello(ctx, root); err != nil {
			return nil, err
		}
		if h.uid != 0 {
			return nil, trust.Errorf(trust.Denied, "%s: %s made %q uid %d, not root", h.name, become, login, h.uid)
		}
		h.uid, h.home, h.here, h.connection = uid, home, here, connection
	}
	return h, nil
}

// hello reads who an actor is and what is there for it.
func (h *Host) hello(ctx context.Context, as actor) error {
	before := time.Now()
	lines, err := h.run(ctx, call{op: opHello, as: as})
	if err != nil {
		return h.fail(err, "")
	}
	after := time.Now()
	for _, l := range lines {
		switch l.word {
		case "uid":
			if h.uid, err = strconv.Atoi(l.rest); err != nil {
				return h.garbled(l)
			}
		case "home":
			h.home = l.rest
		case "here":
			h.here = l.rest
		case "shell":
			h.shell = l.rest
		case "kernel":
			h.kernel = l.rest
		case "host":
			h.hostname = l.rest
		case "time":
			if seconds, err := strconv.ParseInt(l.rest, 10, 64); err == nil {
				h.skew = skew(time.Unix(seconds, 0), before, after)
			}
		case "connection":
			if f := strings.Fields(l.rest); len(f) == 4 {
				h.connection = f
			}
		case "tools":
			h.tools = strings.Fields(l.rest)
		case "drop":
			h.drop = l.rest
		}
	}
	return nil
}

// skew returns how far a clock is ahead of ours, at least, that showed a second at some
// time between before and after: nothing, where it may have gone with ours. How long the
// host took to answer is no part of it.
func skew(shown, before, after time.Time) time.Duration {
	switch {
	case shown.After(after):
		return shown.Sub(after).Truncate(time.Second)
	case !shown.Add(time.Second).After(before):
		return shown.Add(time.Second).Sub(before).Truncate(time.Second)
	}
	return 0
}

// Name returns what messages call the host.
func (h *Host) Name() string { return h.name }

// Orphan reports whether the sshd that took the connection was found to have gone: the
// session outlives it, and says nothing of the one that serves the host now.
func (h *Host) Orphan() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.orphan
}

// Login returns the account that is logged in.
func (h *Host) Login() string { return h.login }

// Root reports whether Keyturn can act as root there.
func (h *Host) Root() bool { return h.root }

// UID returns the user id of the account that is logged in.
func (h *Host) UID() int { return h.uid }

// Home returns the home directory of the account that is logged in.
func (h *Host) Home() string { return h.home }

// Kernel returns system, release and machine, as uname -srm prints them.
func (h *Host) Kernel() string { return h.kernel }

// Hostname returns what the host calls itself.
func (h *Host) Hostname() string { return h.hostname }

// Skew returns how far the host's clock is ahead of ours, to the second.
func (h *Host) Skew() time.Duration { return h.skew }

// Has reports whether a program is there, of those that the op hello looks for.
func (h *Host) Has(tool string) bool { return slices.Contains(h.tools, tool) }

// ClientAddress returns the address from which the host sees us, or "" where its
// server does not say.
func (h *Host) ClientAddress() string {
	if len(h.connection) != 4 {
		return ""
	}
	addr, err := netip.ParseAddr(h.connection[0])
	if err != nil {
		return h.connection[0]
	}
	return addr.Unmap().WithZone("").String()
}

// strongest is the account that sees most: root where we can be root.
func (h *Host) strongest() actor {
	if h.root {
		return root
	}
	return self
}

// actorsFor returns the accounts as which a file of user may be read or changed,
// the first to try first: that user itself, and root for directories of root's.
func (h *Host) actorsFor(user string) []actor {
	switch {
	case user == h.login && h.root && h.uid != 0:
		return []actor{self, root}
	case user == h.login || !h.root:
		return []actor{self}
	case user == string(root):
		return []actor{root}
	}
	return []actor{actor(user), root}
}

// garbled says that an answer is not of the grammar.
func (h *Host) garbled(l line) error {
	return trust.Errorf(trust.Unavailable, "%s: cannot read the answer %q", h.name, firstLine([]byte(l.word+" "+l.rest)))
}

// fail turns a refusal of an op into an error that says what it means for path.
func (h *Host) fail(err error, path string) error {
	r, ok := err.(*refusal)
	if !ok {
		return err
	}
	where := h.name + ":" + path
	if path == "" {
		where = h.name
	}
	switch r.word {
	case "absent":
		return trust.Errorf(trust.NotFound, "%s does not exist", where)
	case "denied":
		return trust.Errorf(trust.Denied, "%s may not be read by the account that Keyturn acts as", where)
	case "loop":
		return trust.Errorf(trust.Conflict, "%s leads through too many symbolic links", where)
	case "special":
		return trust.Errorf(trust.Conflict, "%s is not a regular file: %s", where, r.detail)
	case "owner":
		return trust.Errorf(trust.Conflict, "%s lies in a directory of uid %s, as which Keyturn cannot act there", where, r.detail).
			WithHint("set become for that host to sudo or doas, or log in as root")
	case "fixed":
		mode, attributes, _ := strings.Cut(r.detail, " ")
		_, dir, _ := strings.Cut(attributes, " ")
		why := fmt.Sprintf("its directory cannot be written by its own account (%s), or lies on a read-only file system", mode)
		return trust.Errorf(trust.Conflict, "%s cannot be changed: %s", where, cmp.Or(immutable(attributes, strings.TrimSpace(dir)), why))
	case "shared":
		return trust.Errorf(trust.Conflict, "%s lies in a directory of root that others can write (%s): to act there as root would not be safe", where, r.detail)
	case "changed", "lost", "short":
		return trust.Errorf(trust.Unavailable, "%s changed while Keyturn was changing it (%s)", where, r.word)
	case "meta":
		return trust.Errorf(trust.Conflict, "the owner, mode or ACL of %s cannot be kept: %s", where, r.detail).
			WithHint("give the file to the owner of its directory, and to a group of that account")
	case "link":
		return trust.Errorf(trust.Conflict, "the file system of %s has no hard links, without which another writer's line could be lost: %s", where, r.detail)
	case "links":
		return trust.Errorf(trust.Conflict, "%s has %s names (hard links): the others would keep what it holds now", where, r.detail)
	case "write":
		return trust.Errorf(trust.Conflict, "%s cannot be written: %s", where, r.detail).
			WithHint("df and lsattr -d on %s, of its directory, show whether there is room and whether it is immutable (then, as root: chattr -i)", h.name)
	case "sync":
		return trust.Errorf(trust.Unavailable, "%s was written, but the disk did not confirm it: %s", where, r.detail)
	case "tool":
		return trust.Errorf(trust.Conflict, "%s has no %s", h.name, r.detail)
	}
	return trust.Errorf(trust.Conflict, "%s: %s", where, r.Error())
}
