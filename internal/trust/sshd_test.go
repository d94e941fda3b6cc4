package trust

import (
	"bytes"
	"crypto/rand"
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

const sshdPath = "/usr/sbin/sshd"

// sshdVersion returns what the installed sshd says it is, and skips the test
// where there is none.
func sshdVersion(t testing.TB) ServerVersion {
	t.Helper()
	if _, err := os.Stat(sshdPath); err != nil {
		need.Skip(t, "no sshd is installed (package openssh-server)")
	}
	out, _ := exec.Command(sshdPath, "-V").CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.HasPrefix(line, "OpenSSH") {
			v, err := ParseServerVersion(strings.TrimSpace(line))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	need.Skip(t, "sshd -V does not tell its version: %q", out)
	return ServerVersion{}
}

// A testServer is a server of this machine on loopback.
type testServer struct {
	addr, user, log string
	hostKey         ssh.PublicKey
}

// startServer runs argv, in which it must name address, and waits until the
// server listens. All output goes to the file log.
func startServer(t testing.TB, s testServer, attr *syscall.SysProcAttr, argv ...string) testServer {
	t.Helper()
	log, err := os.Create(s.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = log, log, attr
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

// startSSHD runs an sshd of the current user that reads the authorized_keys
// files at paths, in that order.
func startSSHD(t testing.TB, paths ...string) testServer {
	t.Helper()
	version := sshdVersion(t)
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	hostKey := filepath.Join(dir, "host_key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", hostKey).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	public, err := os.ReadFile(hostKey + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	parsed, _, _, _, err := ssh.ParseAuthorizedKey(public)
	if err != nil {
		t.Fatal(err)
	}
	addr, port := freeAddress(t)
	config := fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nPidFile none\nAuthorizedKeysFile %s\nStrictModes no\nUsePAM no\nUseDNS no\nLogLevel VERBOSE\n"+
		"PermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nMaxAuthTries 100\nPubkeyAcceptedAlgorithms +ssh-rsa\n",
		port, hostKey, strings.Join(paths, " "))
	if version.AtLeast(9, 8) {
		config += "PerSourcePenalties no\n"
	}
	configPath := filepath.Join(dir, "sshd_config")
	if err := os.WriteFile(configPath, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return startServer(t, testServer{addr: addr, user: me.Username, log: filepath.Join(dir, "log"), hostKey: parsed}, nil, sshdPath, "-D", "-e", "-f", configPath)
}

// login offers one key from a source address. It opens no channel.
func (s testServer) login(t testing.TB, signer ssh.Signer, source string) bool {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: 5 * time.Second}
	conn, err := dialer.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	hostKeys := ssh.InsecureIgnoreHostKey()
	if s.hostKey != nil {
		hostKeys = ssh.FixedHostKey(s.hostKey)
	}
	client, chans, requests, err := ssh.NewClientConn(conn, s.addr, &ssh.ClientConfig{
		User: s.user, Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: hostKeys, HostKeyAlgorithms: []string{ssh.KeyAlgoED25519},
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

// loginLine is login, and returns the line that sshd says let the key in,
// counted from 1, or 0 where it refused.
func (s testServer) loginLine(t testing.TB, signer ssh.Signer, source, path string) int {
	t.Helper()
	before, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	if !s.login(t, signer, source) {
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

// TestAgreesWithSSHD logs in with each key of each file of the corpus, from two
// addresses where it matters, and compares with WouldAccept: whether, and by which line.
func TestAgreesWithSSHD(t *testing.T) {
	t.Parallel()
	version := sshdVersion(t)
	path := filepath.Join(t.TempDir(), "authorized_keys")
	server := startSSHD(t, path)
	logins, accepted := 0, 0
	for _, name := range corpusFiles(t, "authorized_keys") {
		text, named := corpus(t, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f := ParseAuthorizedKeys(text)
		for _, k := range append(named, namedKey{"ed25519", "nobody"}) {
			signer := testSigner(t, k.kind, k.name)
			if signer == nil {
				continue
			}
			sources := []string{"127.0.0.1"}
			if bytes.Contains(text, []byte("from=")) {
				sources = append(sources, "127.0.0.2")
			}
			for _, source := range sources {
				v := WouldAccept([]*AuthorizedKeys{f}, Attempt{
					Key: PublicKeyOf(signer.PublicKey()), User: server.user, Addr: mustAddr(t, source), Time: time.Now(), Server: version,
				})
				got := server.loginLine(t, signer, source, path)
				logins++
				if got > 0 {
					accepted++
				}
				if want := v.By.Line + 1; got != want || v.Accepted != (got > 0) {
					t.Errorf("%s: %s of %s from %s: sshd accepts it by line %d, WouldAccept by line %d (%s)", name, k.kind, k.name, source, got, want, v.Why)
				}
			}
		}
	}
	t.Logf("%s: %d logins, %d of them accepted", version, logins, accepted)
}

// TestAgreesWithSSHDOnTwoFiles checks the order of files, and that a refused
// match does not end the search.
func TestAgreesWithSSHDOnTwoFiles(t *testing.T) {
	t.Parallel()
	version := sshdVersion(t)
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "first"), filepath.Join(dir, "second")}
	server := startSSHD(t, paths...)
	alice := testSigner(t, "ed25519", "alice")
	key := testKey(t, "ed25519", "alice").String()
	for _, test := range []struct {
		first, second string
		want          LineRef
	}{
		{key, "restrict " + key, LineRef{0, 0}},
		{"# " + key, "#\nrestrict " + key, LineRef{1, 1}},
		{`from="192.0.2.1" ` + key + "\nunknown " + key, key, LineRef{1, 0}},
		{`expiry-time="20010101" ` + key + "\n\n" + key, key, LineRef{0, 2}},
		{"cert-authority " + key, `principals="x" ` + key, LineRef{-1, -1}},
	} {
		files := []*AuthorizedKeys{ParseAuthorizedKeys([]byte(test.first)), ParseAuthorizedKeys([]byte(test.second))}
		v := WouldAccept(files, Attempt{Key: PublicKeyOf(alice.PublicKey()), User: server.user, Addr: mustAddr(t, "127.0.0.1"), Time: time.Now(), Server: version})
		if v.By != test.want {
			t.Errorf("%q and %q: WouldAccept says %+v, want %+v", test.first, test.second, v, test.want)
		}
		for i, f := range files {
			if err := os.WriteFile(paths[i], f.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if !v.Accepted {
			if server.login(t, alice, "127.0.0.1") {
				t.Errorf("%q and %q: sshd accepts", test.first, test.second)
			}
		} else if got := server.loginLine(t, alice, "127.0.0.1", paths[v.By.File]); got != v.By.Line+1 {
			t.Errorf("%q and %q: sshd says line %d", test.first, test.second, got)
		}
	}
}

// TestAgreesWithSSHDOnCertificates offers certificates to lines of their CA.
func TestAgreesWithSSHDOnCertificates(t *testing.T) {
	t.Parallel()
	version := sshdVersion(t)
	path := filepath.Join(t.TempDir(), "authorized_keys")
	server := startSSHD(t, path)
	ca, alice := testSigner(t, "ed25519", "staff-ca"), testSigner(t, "ed25519", "alice")
	caLine := testKey(t, "ed25519", "staff-ca").String()
	day := uint64(86400)
	now := uint64(time.Now().Unix())
	for _, test := range []struct {
		name, options string
		change        func(*ssh.Certificate)
		want          bool
	}{
		{"named", "cert-authority", nil, true},
		{"not a CA", "", nil, false},
		{"principal listed", `cert-authority,principals="x,deploy"`, func(c *ssh.Certificate) { c.ValidPrincipals = []string{"deploy"} }, true},
		{"principal not listed", `cert-authority,principals="x,deploy"`, nil, false},
		{"another name", "cert-authority", func(c *ssh.Certificate) { c.ValidPrincipals = []string{"deploy"} }, false},
		{"no principals", "cert-authority", func(c *ssh.Certificate) { c.ValidPrincipals = nil }, !version.AtLeast(10, 3)},
		{"no principals, some listed", `cert-authority,principals="deploy"`, func(c *ssh.Certificate) { c.ValidPrincipals = nil }, false},
		{"expired", "cert-authority", func(c *ssh.Certificate) { c.ValidBefore = now - day }, false},
		{"not yet valid", "cert-authority", func(c *ssh.Certificate) { c.ValidAfter = now + day }, false},
		{"a host's", "cert-authority", func(c *ssh.Certificate) { c.CertType = ssh.HostCert }, false},
		{"from here", "cert-authority", func(c *ssh.Certificate) {
			c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8,127.0.0.1"}
		}, true},
		{"from elsewhere", "cert-authority", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "10.0.0.0/8"} }, false},
		{"bad network", "cert-authority", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"source-address": "127.0.0.1/8"} }, false},
		{"line from elsewhere", `cert-authority,from="10.0.0.0/8"`, nil, false},
		{"line expired", `cert-authority,expiry-time="20010101"`, nil, false},
		{"unknown critical option", "cert-authority", func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"frobnicate": ""} }, false},
		{"unknown extension", "cert-authority", func(c *ssh.Certificate) { c.Extensions = map[string]string{"frobnicate": ""} }, true},
		{"one command", `cert-authority,command="true"`, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "true"} }, true},
		{"two commands", `cert-authority,command="true"`, func(c *ssh.Certificate) { c.CriticalOptions = map[string]string{"force-command": "false"} }, false},
	} {
		cert := &ssh.Certificate{Key: alice.PublicKey(), CertType: ssh.UserCert, KeyId: test.name, ValidPrincipals: []string{server.user}, ValidAfter: now - day, ValidBefore: now + day}
		if test.change != nil {
			test.change(cert)
		}
		if err := cert.SignCert(rand.Reader, ca); err != nil {
			t.Fatal(err)
		}
		signer, err := ssh.NewCertSigner(cert, alice)
		if err != nil {
			t.Fatal(err)
		}
		f := ParseAuthorizedKeys([]byte(strings.TrimSpace(test.options+" "+caLine) + "\n"))
		if err := os.WriteFile(path, f.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		v := WouldAccept([]*AuthorizedKeys{f}, Attempt{Key: PublicKeyOf(cert), User: server.user, Addr: mustAddr(t, "127.0.0.1"), Time: time.Now(), Server: version})
		if got := server.login(t, signer, "127.0.0.1"); got != test.want || v.Accepted != test.want {
			t.Errorf("%s: sshd accepts: %t, WouldAccept: %t (%s), want %t", test.name, got, v.Accepted, v.Why, test.want)
		}
	}
}

// TestAgreesWithDropbear does for Dropbear what TestAgreesWithSSHD does. Dropbear
// reads ~/.ssh, so it runs in a mount namespace where that is a folder of the
// test.
func TestAgreesWithDropbear(t *testing.T) {
	t.Parallel()
	dropbear := need.Program(t, "dropbear", "dropbear-bin")
	need.Root(t) // to give dropbear a home of its own
	out, _ := exec.Command(dropbear, "-V").CombinedOutput()
	version, err := ParseServerVersion(string(out))
	if err != nil || version.Family != Dropbear || version.Major < 2011 {
		t.Fatalf("dropbear -V: %q: %v, %+v", out, err, version)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	home, hostKey := filepath.Join(dir, "home"), filepath.Join(dir, "host_key")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("dropbearkey", "-t", "ed25519", "-f", hostKey).CombinedOutput(); err != nil {
		t.Fatalf("dropbearkey: %v: %s", err, out)
	}
	addr, port := freeAddress(t)
	server := startServer(t, testServer{addr: addr, user: me.Username, log: filepath.Join(dir, "log")}, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS},
		"/bin/sh", "-c", `mount --make-rprivate / && chmod 755 "$2" && mount --bind "$2" "$3" && exec "$1" -F -E -p 127.0.0.1:"$4" -r "$5" -P "$6"`,
		"sh", dropbear, home, me.HomeDir, port, hostKey, filepath.Join(dir, "pid"))
	path := filepath.Join(home, ".ssh", "authorized_keys")
	logins, accepted := 0, 0
	for _, name := range corpusFiles(t, "authorized_keys") {
		text, named := corpus(t, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, k := range append(named, namedKey{"ed25519", "nobody"}) {
			signer := testSigner(t, k.kind, k.name)
			if signer == nil {
				continue
			}
			v := WouldAccept([]*AuthorizedKeys{ParseAuthorizedKeys(text)}, Attempt{
				Key: PublicKeyOf(signer.PublicKey()), User: server.user, Addr: mustAddr(t, "127.0.0.1"), Time: time.Now(), Server: version,
			})
			got := server.login(t, signer, "127.0.0.1")
			logins++
			if got {
				accepted++
			}
			if v.Accepted != got {
				t.Errorf("%s: %s of %s: dropbear accepts it: %t, WouldAccept: %t (%s)", name, k.kind, k.name, got, v.Accepted, v.Why)
			}
		}
	}
	t.Logf("%s: %d logins, %d of them accepted", version, logins, accepted)
}

// TestAgreesWithTinySSH does for TinySSH what TestAgreesWithSSHD does. It serves
// one connection on its standard input.
func TestAgreesWithTinySSH(t *testing.T) {
	t.Parallel()
	tinysshd, err := exec.LookPath("tinysshd")
	if err != nil {
		need.Optional(t, "tinysshd is not installed (package tinysshd)")
	}
	makekey, err := exec.LookPath("tinysshd-makekey")
	if err != nil {
		need.Optional(t, "tinysshd-makekey is not installed (package tinysshd)")
	}
	need.Root(t) // to give tinysshd a home of its own
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	// TinySSH wants every folder up to / closed to others, which a test's own
	// folder is not: the home is mounted over the user's.
	dir := t.TempDir()
	home, keys := filepath.Join(dir, "home"), filepath.Join(dir, "keys")
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(makekey, keys).CombinedOutput(); err != nil {
		t.Fatalf("tinysshd-makekey: %v: %s", err, out)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	server := testServer{addr: listener.Addr().String(), user: me.Username, log: filepath.Join(dir, "log")}
	log, err := os.Create(server.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			socket, err := conn.(*net.TCPConn).File()
			conn.Close()
			if err != nil {
				return
			}
			cmd := exec.Command("/bin/sh", "-c", `mount --make-rprivate / && mount --bind "$2" "$3" && exec "$1" -v "$4"`, "sh", tinysshd, home, me.HomeDir, keys)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = socket, socket, log
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
			_ = cmd.Run() // it ends with the connection, which the client judges
			socket.Close()
		}
	}()
	path := filepath.Join(home, ".ssh", "authorized_keys")
	logins, accepted := 0, 0
	for _, name := range corpusFiles(t, "authorized_keys") {
		text, named := corpus(t, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, k := range append(named, namedKey{"ed25519", "nobody"}) {
			if k.kind != "ed25519" {
				continue
			}
			signer := testSigner(t, k.kind, k.name)
			v := WouldAccept([]*AuthorizedKeys{ParseAuthorizedKeys(text)}, Attempt{
				Key: PublicKeyOf(signer.PublicKey()), User: server.user, Time: time.Now(), Server: ServerVersion{Family: TinySSH},
			})
			got := server.login(t, signer, "127.0.0.1")
			logins++
			if got {
				accepted++
			}
			if v.Accepted != got {
				t.Errorf("%s: %s of %s: tinysshd accepts it: %t, WouldAccept: %t (%s)", name, k.kind, k.name, got, v.Accepted, v.Why)
			}
		}
	}
	t.Logf("%d logins, %d of them accepted", logins, accepted)
}
