package sim

import (
	"crypto/ed25519"
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// serverVersion is what every host says that it is.
const serverVersion = "SSH-2.0-OpenSSH_9.2p1 sim"

// Options say what a host is like. All have a default.
type Options struct {
	// Name is what the host calls itself; the default is its address.
	Name string
	// Accounts besides root, whose home is /root. The default is one "deploy".
	Accounts []Account
	// AuthorizedKeysFile is as in sshd_config(5); the default is OpenSSH's own.
	AuthorizedKeysFile string
	// NoStrictModes turns off sshd's check of owners and modes.
	NoStrictModes bool
}

// An Account is one of the accounts of a host.
type Account struct {
	User     string
	UID, GID int
	Home     string
	Sudo     bool // it becomes root without a password
}

// A Host is one simulated host. Its methods are safe for concurrent use.
type Host struct {
	fleet      *Fleet
	name       string
	address    netip.AddrPort
	key        trust.PublicKey
	server     *ssh.ServerConfig // but for its callback
	accounts   map[string]Account
	version    trust.ServerVersion
	config     trust.SSHDConfig
	configText string

	mu     sync.Mutex // of all below; an op is one step of the host
	fs     *fileSystem
	logins []login // the last of them
	conns  map[net.Conn]struct{}
	faults faults
}

// A login is one that a key opened, as the host's log has it.
type login struct {
	at   time.Time
	user string
	from netip.AddrPort
	key  trust.Fingerprint
}

// maxLogins bounds what the log of a host keeps.
const maxLogins = 50

func newHost(f *Fleet, at netip.AddrPort, o Options) (*Host, error) {
	if o.Name == "" {
		o.Name = at.Addr().String()
	}
	if o.Accounts == nil {
		o.Accounts = []Account{{User: "deploy", UID: 1000, GID: 1000, Home: "/home/deploy"}}
	}
	if o.AuthorizedKeysFile == "" {
		o.AuthorizedKeysFile = ".ssh/authorized_keys .ssh/authorized_keys2"
	}
	h := &Host{fleet: f, name: o.Name, address: at, accounts: map[string]Account{}, fs: newFileSystem(), conns: map[net.Conn]struct{}{}}
	strict := "yes"
	if o.NoStrictModes {
		strict = "no"
	}
	h.configText = fmt.Sprintf(configFormat, at.Port(), at, o.AuthorizedKeysFile, strict)
	var err error
	if h.config, err = trust.ParseSSHDConfig([]byte(h.configText)); err != nil {
		return nil, err
	}
	if h.version, err = trust.ParseServerVersion(serverVersion); err != nil {
		return nil, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, err
	}
	h.key = trust.PublicKeyOf(signer.PublicKey())
	h.server = &ssh.ServerConfig{
		// As an OpenSSH of that release agrees with dial; the cheapest there is.
		Config:        ssh.Config{KeyExchanges: []string{ssh.KeyExchangeCurve25519}, Ciphers: []string{ssh.CipherAES128GCM}},
		ServerVersion: serverVersion, MaxAuthTries: h.config.MaxAuthTries,
	}
	h.server.AddHostKey(signer)
	for _, a := range append(slices.Clone(o.Accounts), Account{User: "root", Home: "/root"}) {
		if _, ok := h.accounts[a.User]; ok {
			continue // root, whom the caller has described
		}
		h.accounts[a.User] = a
		if err := h.Mkdir(a.User, path.Join(a.Home, ".ssh"), 0o700); err != nil {
			return nil, err
		}
	}
	if err := h.Write("root", configFile, []byte(h.configText), 0o644); err != nil {
		return nil, err
	}
	return h, h.Write("root", "/etc/ssh/ssh_host_ed25519_key.pub", []byte(h.key.String()+" "+h.name+"\n"), 0o644)
}

// configFile is what sshd reads.
const configFile = "/etc/ssh/sshd_config"

// configFormat is what "sshd -T" says, as far as it matters to somebody.
const configFormat = `port %d
addressfamily any
listenaddress %s
usepam no
permitrootlogin prohibit-password
maxauthtries 6
maxsessions 10
pubkeyauthentication yes
kbdinteractiveauthentication no
passwordauthentication no
hostbasedauthentication no
usedns no
authorizedkeysfile %s
strictmodes %s
loglevel VERBOSE
pidfile /run/sshd.pid
hostkey /etc/ssh/ssh_host_ed25519_key
authorizedkeyscommand none
authorizedkeyscommanduser none
authorizedprincipalsfile none
authorizedprincipalscommand none
authorizedprincipalscommanduser none
trustedusercakeys none
revokedkeys none
forcecommand none
chrootdirectory none
requiredrsasize 1024
pubkeyacceptedalgorithms ssh-ed25519,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,ecdsa-sha2-nistp521,rsa-sha2-512,rsa-sha2-256,*-cert-v01@openssh.com
permituserenvironment no
authenticationmethods any
`

// Name returns what the host calls itself.
func (h *Host) Name() string { return h.name }

// Address returns where the host is reached, "127.A.B.C:PORT".
func (h *Host) Address() string { return h.address.String() }

// HostKey returns the host's key.
func (h *Host) HostKey() trust.PublicKey { return h.key }

// Authorize appends a line for key to an account's authorized_keys; options, if
// not empty, go before it as they stand.
func (h *Host) Authorize(user string, key trust.PublicKey, options string) error {
	if options != "" {
		options += " "
	}
	return h.Append(user, path.Join(h.accounts[user].Home, ".ssh", "authorized_keys"), options+key.String()+"\n")
}

// sorted returns the accounts in the order of their ids.
func (h *Host) sorted() []Account {
	return slices.SortedFunc(maps.Values(h.accounts), func(a, b Account) int { return a.UID - b.UID })
}

// Mkdir makes a directory and those above it: below an account's home of that
// account, else of root, 0755 but for the last.
func (h *Host) Mkdir(user, dir string, mode uint32) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.mkdir(user, dir, mode)
}

func (h *Host) mkdir(user, dir string, mode uint32) error {
	a := h.accounts[user]
	n, at := h.fs.root, "/"
	for name := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		at = path.Join(at, name)
		next := n.entries[name]
		if next == nil {
			if err := h.fs.mkdir(subject{}, n, name, 0o755); err != nil {
				return err
			}
			next = n.entries[name]
			if at == a.Home || strings.HasPrefix(at, a.Home+"/") {
				next.uid, next.gid = a.UID, a.GID
			}
			if at == dir {
				next.mode = mode
			}
		}
		if !next.isDir() {
			return errNotDir
		}
		n = next
	}
	return h.fs.sync()
}

// Write makes or replaces a file of an account, in place and durably, as a program
// does that knows no lock. Missing directories are made.
func (h *Host) Write(user, file string, data []byte, mode uint32) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.mkdir(user, path.Dir(file), 0o755); err != nil {
		return err
	}
	dir, err := h.fs.walk(subject{}, path.Dir(file))
	if err != nil {
		return err
	}
	n := dir.entries[path.Base(file)]
	if n == nil {
		if n, err = h.fs.create(subject{h.accounts[user].UID, h.accounts[user].GID}, dir, path.Base(file), mode); err != nil {
			return err
		}
	}
	n.mode = mode
	if err := h.fs.write(n, data); err != nil {
		return err
	}
	return h.fs.sync()
}

// Append appends to a file of an account, as ">>" does.
func (h *Host) Append(user, file, text string) error {
	old, mode, err := h.Read(file)
	if err == errAbsent {
		old, mode, err = nil, 0o600, nil
	}
	if err != nil {
		return err
	}
	return h.Write(user, file, append(slices.Clone(old), text...), mode)
}

// Open opens a file as a program does that will append to it later: to what the
// name stood for when it was opened, whatever it stands for by then.
func (h *Host) Open(file string) (appendTo func(text string) error, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.fs.walk(subject{}, file)
	if err != nil {
		return nil, err
	}
	return func(text string) error {
		h.mu.Lock()
		defer h.mu.Unlock()
		return h.fs.write(n, append(slices.Clone(n.data), text...))
	}, nil
}

// Read returns the content of a file and its permission bits.
func (h *Host) Read(file string) (data []byte, mode uint32, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.fs.walk(subject{}, file)
	if err != nil {
		return nil, 0, err
	}
	if n.isDir() {
		return nil, 0, errNotDir
	}
	return n.data, n.mode, nil
}

// Files returns everything below a directory: of each path its listing's mode,
// its owner and its content.
func (h *Host) Files(dir string) map[string]string {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := map[string]string{}
	var visit func(at string, n *inode)
	visit = func(at string, n *inode) {
		all[at] = fmt.Sprintf("%s %d:%d %s", strings.Fields(n.listing("."))[1], n.uid, n.gid, n.data)
		for name, e := range n.entries {
			visit(path.Join(at, name), e)
		}
	}
	if n, err := h.fs.walk(subject{}, dir); err == nil {
		visit(dir, n)
	}
	return all
}

// Link gives a file one more name.
func (h *Host) Link(file, name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.fs.walk(subject{}, file)
	if err != nil {
		return err
	}
	dir, err := h.fs.enter(subject{}, path.Dir(name))
	if err != nil {
		return err
	}
	return h.fs.link(subject{}, n, dir, path.Base(name))
}

// Chmod changes the permission bits of a file or directory.
func (h *Host) Chmod(file string, mode uint32) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, err := h.fs.walk(subject{}, file)
	if err != nil {
		return err
	}
	return h.fs.setOwner(subject{}, n, n.uid, n.gid, mode)
}
