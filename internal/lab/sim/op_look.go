package sim

import (
	"bytes"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/trust"
)

// An op is one op of internal/remote, which its ops.go describes.
type op struct {
	args int // that it has at least
	do   func(arg []string) *refusal
	// outside: it waits for another host, and so runs outside of the host's lock.
	outside bool
}

// ops returns the ops that a simulated host has.
func (p *process) ops() map[string]op {
	return map[string]op{
		"hello":      {args: 2, do: p.hello},
		"read":       {args: 4, do: p.read},
		"hold":       {args: 9, do: p.hold},
		"swap":       {args: 14, do: p.swap},
		"release":    {args: 6, do: p.release},
		"install":    {args: 15, do: p.install},
		"identities": {args: 1, do: p.identities},
		"login":      {args: 6, do: p.login, outside: true},
		"accounts":   {args: 0, do: p.accounts},
		"lookup":     {args: 1, do: p.lookup},
		"uses":       {args: 2, do: p.uses},
		"sshd":       {args: 0, do: p.sshd},
		"config":     {args: 2, do: p.config},
		"main":       {args: 1, do: p.main},
	}
}

// hello CONNECTION HOME
func (p *process) hello(arg []string) *refusal {
	p.say("connection %s\nhere %s", arg[0], arg[1])
	p.say("uid %d\ngid %d", p.uid, p.gid)
	for _, a := range p.host.sorted() {
		if a.UID == p.uid {
			p.say("user %s\nhome %s\nshell /bin/sh", a.User, a.Home)
			break
		}
	}
	p.say("kernel Linux 6.1.0-sim x86_64\nhost %s\ntime %d", p.host.name, p.host.now().Unix())
	p.say("tools sudo setpriv ssh ssh-keygen getent stat df sync sha256sum")
	if p.uid == 0 {
		p.say("drop setpriv")
	}
	return nil
}

// read NONCE LIMIT HOME [content|text PATH]...
func (p *process) read(arg []string) *refusal {
	limit, _ := strconv.Atoi(arg[1])
	p.home(arg[2])
	for k := 0; 2*k+4 < len(arg); k++ {
		what, file := arg[2*k+3], arg[2*k+4]
		p.say("path %d", k)
		f, why := p.resolve(file)
		if why != "" {
			p.say("state %s", why)
			continue
		}
		p.say("real %s/%s", strings.TrimSuffix(f.path, "/"), f.name)
		state, n := p.state(f)
		if what != "text" {
			p.say("dev 1")
			p.facts(f)
		}
		p.say("state %s", state)
		if state == "file" {
			p.give(n.data, limit, arg[0])
		}
	}
	return nil
}

// home says where the home of an account really lies, if it has one.
func (p *process) home(at string) {
	if at == "" {
		return
	}
	home := ""
	if _, err := p.host.fs.enter(p.subject, at); err == nil {
		home = path.Clean(at)
	}
	p.say("home %s", home)
}

// state says what lies at a path.
func (p *process) state(f place) (string, *inode) {
	switch n := f.file(); {
	case n == nil:
		return "absent", nil
	case n.isDir():
		return "special", n
	case !p.may(n, toRead):
		return "denied", n
	default:
		return "file", n
	}
}

// facts says what an edit of a path depends on whose directory can be entered.
func (p *process) facts(f place) {
	var above []string
	for at := path.Clean(f.path); ; at = path.Dir(at) {
		above = append(above, at)
		if at == "/" {
			break
		}
	}
	for _, at := range slices.Backward(above) {
		if n, err := p.host.fs.walk(p.subject, at); err == nil {
			p.say("up %s", n.listing(at))
		}
	}
	p.say("groups %d", p.subject.gid)
	if p.may(f.dir, toWrite) {
		p.say("writable")
	}
	if n := f.file(); n != nil && !n.isDir() {
		p.say("ls %s", n.listing(f.name))
	}
	free := 1 << 20
	if p.host.fs.full {
		free = 0
	}
	p.say("df /dev/sim 2097152 1048576 %d 50%% /\ndfi /dev/sim 131072 1024 130048 1%% /", free)
	p.say("mount /dev/sim / ext4 rw,relatime 0 0")
	if lock := f.dir.entries[f.lockName()]; lock != nil && lock.isDir() && p.may(lock, toRead) && p.may(lock, toEnter) {
		for _, o := range lock.names("own.*") {
			p.say("lock %s", strings.TrimPrefix(o, "own."))
		}
	}
}

// identities NONCE DIR...
func (p *process) identities(arg []string) *refusal {
	for _, at := range arg[1:] {
		dir, err := p.host.fs.enter(p.subject, at)
		if err != nil || !p.may(dir, toRead) {
			continue
		}
		for _, name := range append(dir.names("*"), dir.names(".[a-zA-Z0-9]*")...) {
			if n := dir.entries[name]; !n.isDir() && p.may(n, toRead) {
				p.identity(dir, at, name, arg[0])
			}
		}
	}
	return nil
}

// identity says what is known of a file, if it is a private key.
func (p *process) identity(dir *inode, at, name, nonce string) {
	n := dir.entries[name]
	first, _, _ := bytes.Cut(n.data, []byte("\n"))
	kind, encrypted := "", "no"
	signer, err := ssh.ParseRawPrivateKey(n.data)
	if _, locked := err.(*ssh.PassphraseMissingError); locked {
		encrypted = "yes"
	}
	switch head := string(first); {
	case strings.HasPrefix(head, "-----BEGIN OPENSSH PRIVATE KEY-----"):
		kind = "openssh"
	case strings.HasPrefix(head, "-----BEGIN ENCRYPTED PRIVATE KEY-----"):
		kind, encrypted = "pkcs8", "yes"
	case strings.HasPrefix(head, "-----BEGIN PRIVATE KEY-----"):
		kind = "pkcs8"
	case strings.HasPrefix(head, "-----BEGIN ") && strings.Contains(head, " PRIVATE KEY-----"):
		kind = "pem"
	case strings.HasPrefix(head, "PuTTY-User-Key-File-"):
		kind, encrypted = "putty", "unknown"
	default:
		return
	}
	p.say("identity %s %s\nreal %s/%s\nls %s", kind, encrypted, at, name, n.listing(at+"/"+name))
	// ssh-keygen does not read a file of its user that others may read.
	if private := n.mode&0o077 == 0 || n.uid != p.uid; err == nil && private {
		if s, err := ssh.NewSignerFromKey(signer); err == nil {
			p.say("public %s", trust.PublicKeyOf(s.PublicKey()))
		}
	}
	if kind == "openssh" && encrypted == "yes" {
		lines := bytes.SplitAfter(n.data, []byte("\n"))
		p.say("content\n%s\n%s", bytes.Join(lines[:min(14, len(lines))], nil), nonce)
	}
	if pub := dir.entries[name+".pub"]; pub != nil && p.may(pub, toRead) {
		if line, _, _ := bytes.Cut(pub.data, []byte("\n")); len(line) > 0 {
			p.say("pub %s", line)
		}
	}
	if dir.entries[name+"-cert.pub"] != nil {
		p.say("cert")
	}
}

// accounts [NAME]
func (p *process) accounts(arg []string) *refusal {
	for _, shadow := range []bool{false, true} {
		for _, a := range p.host.sorted() {
			switch {
			case len(arg) > 0 && a.User != arg[0]:
			case !shadow:
				p.say("account %s:%d:%d:x:%s:/bin/sh", a.User, a.UID, a.GID, a.Home)
			case p.uid == 0:
				p.say("shadow %s:none:19000:99999::", a.User)
			}
		}
	}
	return nil
}

// lookup USER PATTERN...
func (p *process) lookup(arg []string) *refusal {
	p.say("groups %s", arg[0])
	for k, pattern := range arg[1:] {
		p.say("pattern %d", k)
		dir, err := p.host.fs.enter(p.subject, path.Dir(pattern))
		if err != nil || !p.may(dir, toRead) {
			continue
		}
		for _, name := range dir.names(path.Base(pattern)) {
			p.say("path %s", path.Join(path.Dir(pattern), name))
		}
	}
	return nil
}

// uses FINGERPRINT SINCE
func (p *process) uses(arg []string) *refusal {
	p.say("zone +0000\nlog /var/log/auth.log")
	since, _ := strconv.ParseInt(arg[1], 10, 64)
	for _, l := range p.host.logins {
		if string(l.key) == arg[0] && l.at.Unix() >= since {
			p.say("use %s %s sshd[100]: Accepted publickey for %s from %s port %d ssh2: ED25519 %s",
				l.at.Format(time.RFC3339Nano), p.host.name, l.user, l.from.Addr(), l.from.Port(), l.key)
		}
	}
	return nil
}

// sshd
func (p *process) sshd([]string) *refusal {
	p.say("proc 300 200 %d sh\nproc 200 100 %d sshd\nproc 100 1 0 sshd", p.uid, p.uid)
	p.say("default /usr/sbin/sshd\nexe /usr/sbin/sshd\narg sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups")
	return nil
}

// config BINARY SPEC OPTION...
func (p *process) config(arg []string) *refusal {
	if arg[0] != "/usr/sbin/sshd" {
		return no("absent", "%s", arg[0])
	}
	p.say("version %s, OpenSSL 3.0.19 27 Jan 2026\nhow -T", strings.TrimPrefix(serverVersion, "SSH-2.0-"))
	for line := range strings.Lines(p.host.configText) {
		p.say("set %s", strings.TrimSuffix(line, "\n"))
	}
	return nil
}

// main BINARY
func (p *process) main(arg []string) *refusal {
	if arg[0] != "/usr/sbin/sshd" {
		return no("absent", "%s", arg[0])
	}
	p.say("file %s", configFile)
	return nil
}

// login IDENTITY USER ADDRESS PORT KEY[,KEY]... SECONDS
func (p *process) login(arg []string) *refusal {
	identity, user, address := arg[0], arg[1], arg[2]
	p.host.mu.Lock()
	n, err := p.host.fs.walk(p.subject, identity)
	absent := err != nil || n.isDir() || !p.may(n, toRead)
	p.host.mu.Unlock()
	if absent {
		return no("absent", "%s", identity)
	}
	p.say("client OpenSSH_9.2p1 sim, OpenSSL 3.0.19 27 Jan 2026")
	seconds, _ := strconv.Atoi(arg[5])
	err = p.host.logIn(n.data, user, address, arg[3], strings.Split(arg[4], ","), time.Duration(seconds)*time.Second)
	if err == nil {
		p.say("accepted\nlog Authenticated to %s ([%s]:%s) using \"publickey\".", address, address, arg[3])
		return nil
	}
	p.say("log %s", strings.Join(strings.Fields(sshSays(err, user, address, arg[3])), " "))
	return nil
}

// sshSays returns what ssh(1) says of a login that failed.
func sshSays(err error, user, address, port string) string {
	switch text := err.Error(); {
	case strings.Contains(text, "unable to authenticate"):
		return fmt.Sprintf("%s@%s: Permission denied (publickey).", user, address)
	case strings.Contains(text, errHostKey.Error()), strings.Contains(text, "no common algorithm for host key"):
		return "Host key verification failed."
	case strings.Contains(text, "refused"):
		return fmt.Sprintf("ssh: connect to host %s port %s: Connection refused", address, port)
	default:
		return fmt.Sprintf("Connection closed by %s port %s: %s", address, port, text)
	}
}
