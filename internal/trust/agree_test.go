package trust

import (
	"bytes"
	"crypto/rand"
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

// TestAgreesWithSSHD logs in with each key of each file of the corpus, from two
// addresses where it matters, and compares with WouldAccept: whether, and by which line.
func TestAgreesWithSSHD(t *testing.T) { eachSSHD(t, agreesWithSSHD) }

func agreesWithSSHD(t *testing.T, p sshdProgram) {
	dir := t.TempDir()
	path := filepath.Join(dir, "authorized_keys")
	server, version := p.start(t, dir, "authorized_keys"), p.version
	keys, accepted := 0, 0
	for _, name := range corpusFiles(t, "authorized_keys") {
		text, named := corpus(t, name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		f := ParseAuthorizedKeys(text)
		sources := []string{"127.0.0.1"}
		if bytes.Contains(text, []byte("from=")) {
			sources = append(sources, "127.0.0.2")
		}
		for _, source := range sources {
			var refused []ssh.Signer // offered in one login, which fails if each is refused
			for _, k := range append(named, namedKey{"ed25519", "nobody"}) {
				signer := testSigner(t, k.kind, k.name)
				if signer == nil {
					continue
				}
				keys++
				v := WouldAccept([]*AuthorizedKeys{f}, Attempt{
					Key: PublicKeyOf(signer.PublicKey()), User: server.user, Addr: mustAddr(t, source), Time: time.Now(), Server: version,
				})
				if !v.Accepted {
					refused = append(refused, signer)
					continue
				}
				accepted++
				if got, want := server.loginLine(t, source, path, signer), v.By.Line+1; got != want {
					t.Errorf("%s: %s of %s from %s: sshd accepts it by line %d, WouldAccept by line %d (%s)", name, k.kind, k.name, source, got, want, v.Why)
				}
			}
			if line := server.loginLine(t, source, path, refused...); line > 0 {
				t.Errorf("%s from %s: sshd accepts by line %d one of the %d keys that WouldAccept refuses", name, source, line, len(refused))
			}
		}
	}
	t.Logf("%s: %d keys offered, %d of them accepted", version, keys, accepted)
}

// TestAgreesWithSSHDOnTwoFiles checks the order of files, and that a refused
// match does not end the search.
func TestAgreesWithSSHDOnTwoFiles(t *testing.T) {
	t.Parallel()
	p := installedSSHD(t)
	dir := t.TempDir()
	paths := []string{filepath.Join(dir, "first"), filepath.Join(dir, "second")}
	server, version := p.start(t, dir, "first", "second"), p.version
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
			if server.login(t, "127.0.0.1", alice) {
				t.Errorf("%q and %q: sshd accepts", test.first, test.second)
			}
		} else if got := server.loginLine(t, "127.0.0.1", paths[v.By.File], alice); got != v.By.Line+1 {
			t.Errorf("%q and %q: sshd says line %d", test.first, test.second, got)
		}
	}
}

// TestAgreesWithSSHDOnCertificates offers certificates to lines of their CA.
func TestAgreesWithSSHDOnCertificates(t *testing.T) { eachSSHD(t, agreesOnCertificates) }

func agreesOnCertificates(t *testing.T, p sshdProgram) {
	dir := t.TempDir()
	path := filepath.Join(dir, "authorized_keys")
	server, version := p.start(t, dir, "authorized_keys"), p.version
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
		if got := server.login(t, "127.0.0.1", signer); got != test.want || v.Accepted != test.want {
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
	cmd := exec.Command("/bin/sh", "-c", `mount --make-rprivate / && chmod 755 "$2" && mount --bind "$2" "$3" && exec "$1" -F -E -p 127.0.0.1:"$4" -r "$5" -P "$6"`,
		"sh", dropbear, home, me.HomeDir, port, hostKey, filepath.Join(dir, "pid"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
	server := startServer(t, testServer{addr: addr, user: me.Username, log: filepath.Join(dir, "log")}, cmd)
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
			got := server.login(t, "127.0.0.1", signer)
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
			got := server.login(t, "127.0.0.1", signer)
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
