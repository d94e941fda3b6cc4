package lab

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/trust"
)

// Options say what a server is like. Only Name is needed.
type Options struct {
	// Name is the server's, for messages, and that of its directory.
	Name string
	// Addr is a loopback address to listen at; port 0 means any free one.
	// The default is "127.0.0.1:0".
	Addr string
	// Sshd is the path of the server's binary; the default is [Find]'s.
	Sshd string
	// Env is variables, each as "NAME=value", that the server has besides the
	// test's: LD_LIBRARY_PATH, where the binary is of another system.
	Env []string
	// Config is lines of sshd_config that take precedence over the server's
	// own. A Match block, if any, must be the last of them.
	Config []string
	// AuthorizedKeysFiles are the files whose keys the server honors, in
	// order: paths below its home, or absolute. The default is
	// ".ssh/authorized_keys". The first one is created, empty.
	AuthorizedKeysFiles []string
	// StrictModes turns on sshd's check of owners and modes of those files
	// and of every directory above them: where one of those is writable for
	// all, as /tmp is, nobody gets in.
	StrictModes bool
	// PenaltiesOff switches off the delays that sshd 9.8 and later impose on
	// addresses that fail to log in; earlier ones have none.
	PenaltiesOff bool
}

// A Server is one sshd process of the current user. Its methods are safe for
// concurrent use.
type Server struct {
	name         string
	sshd         string
	env          []string // of sshd, besides this process's
	dir          string   // everything of this server lies below it
	home         string
	listenAt     *net.TCPAddr // as asked for: port 0 is any
	address      string
	user         string
	authorized   []string // absolute paths
	strictModes  bool
	penaltiesOff bool
	hostKey      trust.PublicKey
	hostKeyPath  string
	configPath   string
	log          *Log
	logFile      *os.File
	release      func() // gives the port back
	detach       func() bool

	mu     sync.Mutex // held while the server is started, ended or reloaded
	run    *process   // the current or last run
	closed bool
	lying  bool
}

// startTimeout bounds the time until a server listens. A machine that starts
// fifty at once under the race detector needs some seconds.
const startTimeout = 30 * time.Second

// Start makes a server in a directory of its own, dir/NAME, and returns when it
// accepts connections. The server ends when ctx does. What lies in the
// directory is left to the caller.
//
// An error of kind NotFound means that the machine has no sshd, and its hint
// names the package; of kind Unavailable, that sshd did not start, with its log.
func Start(ctx context.Context, dir string, o Options) (*Server, error) {
	s, err := newServer(ctx, dir, o)
	if err != nil {
		return nil, err
	}
	// The port is ours on Linux, but elsewhere somebody may take it between
	// its choice and sshd's bind.
	for range 5 {
		if err = s.listen(ctx, o); err == nil {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.detach = context.AfterFunc(ctx, s.Close)
			return s, nil
		}
		if !strings.Contains(s.log.Tail(20), "Address already in use") || ctx.Err() != nil {
			break
		}
	}
	_ = s.logFile.Close()
	return nil, err
}

// StartAll starts many servers below dir, as [Start] does, a few at a time. All
// of them have started, or none is left.
func StartAll(ctx context.Context, dir string, options []Options) ([]*Server, error) {
	servers := make([]*Server, len(options))
	var group errgroup.Group
	group.SetLimit(8)
	for i, o := range options {
		group.Go(func() (err error) {
			servers[i], err = Start(ctx, dir, o)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		for _, s := range servers {
			if s != nil {
				s.Close()
			}
		}
		return nil, err
	}
	return servers, nil
}

// newServer makes a server's directory and files.
func newServer(ctx context.Context, dir string, o Options) (*Server, error) {
	if o.Name == "" || o.Name != filepath.Base(o.Name) || strings.HasPrefix(o.Name, ".") {
		return nil, trust.Errorf(trust.Invalid, "server name %q cannot be the name of a directory", o.Name)
	}
	addr := o.Addr
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil || !tcp.IP.IsLoopback() {
		return nil, trust.Errorf(trust.Invalid, "address %q of server %q is not HOST:PORT on loopback", addr, o.Name)
	}
	dir, err = filepath.Abs(filepath.Join(dir, o.Name))
	if err != nil {
		return nil, err
	}
	if err := checkPath(dir); err != nil {
		return nil, err
	}
	s := &Server{
		name: o.Name, listenAt: tcp, sshd: o.Sshd, env: o.Env, dir: dir, home: filepath.Join(dir, "home"), strictModes: o.StrictModes,
		hostKeyPath: filepath.Join(dir, "ssh_host_ed25519_key"), configPath: filepath.Join(dir, "sshd_config"),
	}
	if s.sshd == "" {
		if s.sshd, err = Find(); err != nil {
			return nil, err
		}
	}
	if o.PenaltiesOff {
		version, err := VersionOf(ctx, s.sshd, s.env...)
		if err != nil {
			return nil, err
		}
		s.penaltiesOff = version.AtLeast(9, 8)
	}
	if s.user, err = currentUser(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(s.home, ".ssh"), 0o700); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "sshd_config.d"), 0o700); err != nil {
		return nil, err
	}
	for _, path := range slices.Concat(o.AuthorizedKeysFiles, []string{".ssh/authorized_keys"})[:max(1, len(o.AuthorizedKeysFiles))] {
		if !filepath.IsAbs(path) {
			path = filepath.Join(s.home, path)
		}
		if err := checkPath(path); err != nil {
			return nil, err
		}
		s.authorized = append(s.authorized, path)
	}
	if err := appendFile(s.authorized[0], ""); err != nil {
		return nil, err
	}
	if s.hostKey, err = makeHostKey(s.hostKeyPath, s.name); err != nil {
		return nil, err
	}
	if s.logFile, err = os.OpenFile(filepath.Join(dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err != nil {
		return nil, err
	}
	s.log = NewLog(s.logFile)
	return s, nil
}

// listen takes a port, writes the configuration for it and runs the server.
func (s *Server) listen(ctx context.Context, o Options) error {
	port, release, err := reserve(s.listenAt)
	if err != nil {
		return err
	}
	s.address = net.JoinHostPort(s.listenAt.IP.String(), strconv.Itoa(port))
	if err := writeFile(s.configPath, []byte(configText(s, o.Config))); err != nil {
		release()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.start(ctx); err != nil {
		release()
		return err
	}
	s.release = release
	return nil
}

// start runs sshd and returns when it listens. s.mu is held.
func (s *Server) start(ctx context.Context) error {
	if err := prepareSeparation(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	remove, err := s.plantLie()
	if err != nil {
		return err
	}
	defer remove()
	before := s.log.Seq()
	// sshd runs itself again for every connection and reload, and so insists
	// on an absolute path. It writes its log to stderr (-e), line by line.
	cmd := exec.Command(s.sshd, "-D", "-e", "-f", s.configPath)
	cmd.Dir, cmd.Env = "/", append(os.Environ(), s.env...)
	run, err := startProcess(cmd, s.log)
	if err != nil {
		return trust.Errorf(trust.Unavailable, "server %q: %w", s.name, err)
	}
	s.run = run
	if err := s.awaitListening(ctx, before); err != nil {
		run.kill(s.endpoint())
		return trust.Errorf(trust.Unavailable, "server %q does not start: %w", s.name, err)
	}
	return nil
}

// awaitListening waits until the server says, after the event before, that it
// listens, and can be reloaded. The line is written after listen(2): from then on connections are
// accepted. Asking for the banner instead would fork a server for each question,
// and count as a failed login where there are penalties.
func (s *Server) awaitListening(ctx context.Context, before int) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	run := s.run
	go func() {
		select {
		case <-run.ended:
			// Its last words are still being read; sessions that outlive
			// it may keep the log open for long.
			select {
			case <-run.logged:
			case <-time.After(200 * time.Millisecond):
			}
			stop(errors.New("sshd has ended"))
		case <-ctx.Done():
		}
	}()
	if _, err := s.log.Await(ctx, before, IsKind(Listening)); err != nil {
		return err
	}
	for !Reloadable(run.cmd.Process.Pid) {
		select {
		case <-ctx.Done():
			return trust.Errorf(trust.Unavailable, "%w", context.Cause(ctx))
		case <-time.After(time.Millisecond):
		}
	}
	return nil
}

// prepareSeparation makes the directory that sshd confines itself to. Only a
// server that root runs uses it, and does not start without; it is on a file
// system that a reboot empties, where the package's own unit makes it too.
func prepareSeparation() error {
	if os.Geteuid() != 0 {
		return nil
	}
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		return trust.Errorf(trust.Unavailable, "sshd run by root needs the directory /run/sshd: %w", err).
			WithHint("make it, owned by root and with mode 0755, or run as an ordinary user")
	}
	return nil
}

// currentUser returns the name to log in with.
func currentUser() (string, error) {
	u, err := user.Current()
	if err != nil || u.Username == "" {
		return "", trust.Errorf(trust.NotFound, "user %d has no name in the account database, so nobody can log in as it: %w", os.Getuid(), err)
	}
	// Without PAM sshd turns away an account that is locked in the shadow
	// database, keys or no keys, if it can see that: root can, and of some
	// accounts everybody (nss-systemd says of "nobody" that it is locked).
	shadow, _ := exec.Command("getent", "shadow", u.Username).Output()
	if strings.HasPrefix(string(shadow), u.Username+":!") {
		return "", trust.Errorf(trust.Conflict, "the account %q is locked: sshd lets nobody log in to it", u.Username).
			WithHint("run as another user, or unlock the account without giving it a password: usermod -p '*' %s", u.Username)
	}
	return u.Username, nil
}

// makeHostKey makes a host key at path, unless one is there, with its public
// half beside it.
func makeHostKey(path, comment string) (trust.PublicKey, error) {
	if text, err := os.ReadFile(path + ".pub"); err == nil {
		key, _, err := trust.ParsePublicKey(string(text))
		return key, err
	}
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return trust.PublicKey{}, err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return trust.PublicKey{}, err
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return trust.PublicKey{}, err
	}
	key := trust.PublicKeyOf(signer.PublicKey())
	if err := writeFile(path, pem.EncodeToMemory(block)); err != nil {
		return trust.PublicKey{}, err
	}
	return key, writeFile(path+".pub", []byte(key.String()+" "+comment+"\n"))
}

// Name returns the server's name.
func (s *Server) Name() string { return s.name }

// Address returns where the server listens, "127.0.0.1:PORT", for as long as
// it is not closed.
func (s *Server) Address() string { return s.address }

// User returns the name to log in with: the current user's.
func (s *Server) User() string { return s.user }

// HostKey returns the host key that the server was made with.
func (s *Server) HostKey() trust.PublicKey { return s.hostKey }

// KnownHosts returns the line of known_hosts for the server.
func (s *Server) KnownHosts() string {
	host, port := s.endpoint()
	return "[" + host + "]:" + port + " " + s.hostKey.String() + "\n"
}

// Dir returns the directory below which everything of the server lies.
func (s *Server) Dir() string { return s.dir }

// Home returns the directory that is HOME in the server's sessions; its ".ssh"
// exists.
func (s *Server) Home() string { return s.home }

// ConfigFile returns the path of the server's sshd_config, for those who change
// it and then [Server.Reload] or [Server.Restart]. It includes every
// "sshd_config.d/*.conf" beside it first.
func (s *Server) ConfigFile() string { return s.configPath }

// HostKeyFile returns the path of the private half of the host key.
func (s *Server) HostKeyFile() string { return s.hostKeyPath }

// AuthorizedKeysFiles returns the paths of the files whose keys the server
// honors, in order.
func (s *Server) AuthorizedKeysFiles() []string { return slices.Clone(s.authorized) }

// Log returns what the server has said.
func (s *Server) Log() *Log { return s.log }

// Pid returns the process id of the listener, or 0 while the server is down.
func (s *Server) Pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.run.running() {
		return 0
	}
	return s.run.cmd.Process.Pid
}

// Authorize appends a line for key to the first authorized keys file; options,
// if not empty, go before it as they stand.
func (s *Server) Authorize(key trust.PublicKey, options string) error {
	if options != "" {
		options += " "
	}
	return appendFile(s.authorized[0], options+key.String()+"\n")
}

func appendFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Kill ends the server and everything on it at once, as a power cut does:
// listener, sessions and what they started, even what detached itself from them
// (on Linux). Files and the address stay for [Server.Restart].
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.run.kill(s.endpoint())
}

// Stop ends the listener and leaves open sessions alone, as stopping the
// service does. They end with Close or Kill.
func (s *Server) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.run.running() {
		return
	}
	_ = s.run.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-s.run.ended:
	case <-time.After(startTimeout): // frozen, say
		s.run.kill(s.endpoint())
	}
}

// Restart starts the server again, at the same address and with the files that
// lie there now; one that runs is killed first. After Stop, open sessions go on.
func (s *Server) Restart(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return trust.Errorf(trust.Conflict, "server %q is closed", s.name)
	}
	if s.run.running() {
		s.run.kill(s.endpoint())
	}
	return s.start(ctx)
}

// Close ends the server and everything on it, after what runs in sessions was asked to
// end, and gives its port back. It may be called twice. The directory stays.
func (s *Server) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	s.run.hangUp(s.endpoint())
	s.run.kill(s.endpoint())
	s.release()
	_ = s.logFile.Close()
	if s.detach != nil {
		s.detach()
	}
}

// endpoint returns the host and the port of the server's address.
func (s *Server) endpoint() (host, port string) {
	host, port, _ = net.SplitHostPort(s.address)
	return host, port
}
