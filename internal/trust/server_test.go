package trust

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/need"
)

// An sshdProgram is an sshd that the tests are run against: this machine's, or
// that of a root file system in which another release is installed.
type sshdProgram struct {
	root    string // "" is this machine's own
	version ServerVersion
}

// inRoot runs a program of a root file system, argv[3:], with the folder argv[2]
// in the place that it has outside. The root itself stays as it is.
const inRoot = `mount --make-rprivate / && mount -t tmpfs tmpfs /mnt && mkdir /mnt/upper /mnt/work /mnt/root &&
mount -t overlay overlay -o lowerdir="$1",upperdir=/mnt/upper,workdir=/mnt/work /mnt/root &&
mkdir -p "/mnt/root$2" /mnt/root/run/sshd /mnt/root/dev && mount --bind "$2" "/mnt/root$2" && mount --bind /dev /mnt/root/dev &&
root=/mnt/root && shift 2 && exec chroot $root "$@"`

// command returns sshd with args, to which the folder dir is visible.
func (p sshdProgram) command(dir string, args ...string) *exec.Cmd {
	if p.root == "" {
		return exec.Command(sshdPath, args...)
	}
	cmd := exec.Command("/bin/sh", append([]string{"-c", inRoot, "sh", p.root, dir, sshdPath}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	return cmd
}

const sshdPath = "/usr/sbin/sshd"

// installedSSHD returns this machine's sshd, and skips the test where there is
// none.
func installedSSHD(t testing.TB) sshdProgram {
	t.Helper()
	if _, err := os.Stat(sshdPath); err != nil {
		need.Skip(t, "no sshd is installed (package openssh-server)")
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	p := sshdProgram{version: sshdVersion(t, exec.Command(sshdPath, "-V"))}
	return p
}

// sshdVersion reads the version that "sshd -V" prints; before 9.3 as part of a
// complaint that it knows no -V.
func sshdVersion(t testing.TB, cmd *exec.Cmd) ServerVersion {
	t.Helper()
	out, _ := cmd.CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "OpenSSH") {
			v, err := ParseServerVersion(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	t.Fatalf("sshd -V does not tell its version: %q", out)
	return ServerVersion{}
}

// eachSSHD runs test with this machine's sshd, and with those of a share of the root
// file systems that the lab has made (test/lab keeps them in the user's cache), but
// for the latter under -short.
func eachSSHD(t *testing.T, test func(*testing.T, sshdProgram)) {
	t.Run("installed", func(t *testing.T) {
		t.Parallel()
		test(t, installedSSHD(t))
	})
	cache := os.Getenv("KEYTURN_LAB_CACHE")
	if dir, err := os.UserCacheDir(); cache == "" && err == nil {
		cache = filepath.Join(dir, "keyturn-lab")
	}
	if testing.Short() {
		return
	}
	roots, _ := filepath.Glob(filepath.Join(cache, "*", sshdPath))
	for _, path := range need.Share(t, 1, roots...) {
		root := strings.TrimSuffix(path, sshdPath)
		t.Run(filepath.Base(root), func(t *testing.T) {
			t.Parallel()
			need.Root(t) // to mount another root
			p := sshdProgram{root: root}
			p.version = sshdVersion(t, p.command(t.TempDir(), "-V"))
			if p.version.AtLeast(10, 7) {
				need.Optional(t, "%s is newer than the releases that these rules were read from", p.version)
			}
			test(t, p)
		})
	}
}

// A testServer is a server of this machine on loopback.
type testServer struct {
	addr, user, log string
	hostKey         ssh.PublicKey
}

// startServer runs cmd and waits until the server listens. All output goes to
// the file log.
func startServer(t testing.TB, s testServer, cmd *exec.Cmd) testServer {
	t.Helper()
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	within(t, "the server listens", func() bool {
		c, err := net.DialTimeout("tcp", s.addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return s
}

// freeAddress returns an address of loopback that nothing listens on.
func freeAddress(t testing.TB) (addr, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return l.Addr().String(), port
}

// hostKey makes a host key and returns its path.
func hostKey(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	return path
}

// start runs sshd for the current user. Its authorized_keys files are those of
// these names in the folder dir, in that order.
func (p sshdProgram) start(t testing.TB, dir string, names ...string) testServer {
	t.Helper()
	return p.startWith(t, dir, "", names...)
}

// startWith is start with more lines of sshd_config.
func (p sshdProgram) startWith(t testing.TB, dir, lines string, names ...string) testServer {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	made := hostKey(t)
	public, err := os.ReadFile(made + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey(public)
	if err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "host_key")
	if err := os.Rename(made, key); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, name := range names {
		paths = append(paths, filepath.Join(dir, name))
	}
	addr, port := freeAddress(t)
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nUseDNS no\nLogLevel VERBOSE\n"+
		"PermitRootLogin yes\nPasswordAuthentication no\nChallengeResponseAuthentication no\nMaxAuthTries 100\nPubkeyAcceptedKeyTypes +ssh-rsa\n",
		port, key, strings.Join(paths, " "))
	if p.version.AtLeast(9, 8) {
		config += "PerSourcePenalties no\n"
	}
	config += lines
	configPath := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(configPath, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServer(t, testServer{addr: addr, user: me.Username, log: filepath.Join(dir, "log"), hostKey: parsed}, p.command(dir, "-D", "-e", "-f", configPath))
}

// login offers keys from a source address, until one is accepted. It opens no
// channel.
func (s testServer) login(t testing.TB, source string, signers ...ssh.Signer) bool {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 30 * time.Second}
	conn, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	hostKeys := ssh.InsecureIgnoreHostKey()
	if s.hostKey != nil {
		hostKeys = ssh.FixedHostKey(s.hostKey)
	}
	client, chans, requests, err := ssh.NewClientConn(conn, s.addr, &ssh.ClientConfig{
		User: s.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signers...)}, HostKeyCallback: hostKeys, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
	})
	if err != nil {
		if !strings.Contains(err.Error(), "unable to authenticate") {
			log, _ := os.ReadFile(s.log)
			t.Fatalf("no answer to the login: %v\n%s", err, log)
		}
		return false
	}
	go ssh.DiscardRequests(requests)
	go func() {
		for c := range chans {
			c.Reject(ssh.Prohibited, "")
		}
	}()
	client.Close()
	return true
}

// loginLine is login, and returns the line that sshd says let a key in, counted
// from 1, or 0 where it refused.
func (s testServer) loginLine(t testing.TB, source, path string, signers ...ssh.Signer) int {
	t.Helper()
	before, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if !s.login(t, source, signers...) {
		return 0
	}
	after, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	_, found, ok := bytes.Cut(after[len(before):], []byte("found at "+path+":"))
	if !ok {
		t.Fatalf("sshd let a key in, but did not log by which line:\n%s", after[len(before):])
	}
	line, _ := leadingNumber(string(found))
	return line
}
