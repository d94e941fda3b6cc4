//go:build linux

package lab

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/unix"

	"keyturn/internal/trust"
)

const (
	// firstUID is the number of a host's first account; each has a group of
	// its own of the same number.
	firstUID = 5001
	// homeSize bounds the disk that the homes of a host share, so that it
	// can be filled.
	homeSize = "16m"

	dropbearKeyFile = "/etc/dropbear/dropbear_ed25519_host_key"
	opensshKeyFile  = "/etc/ssh/ssh_host_ed25519_key"
	// setupDropbear makes the host's key in Dropbear's own format.
	setupDropbear = `/usr/lib/dropbear/dropbearconvert openssh dropbear ` + opensshKeyFile + ` ` + dropbearKeyFile
)

// furnish writes what makes a host this host, into the upper layer of its files:
// names, keys, accounts, configuration. Nothing of it needs a process.
func (h *Host) furnish() error {
	for _, dir := range []string{"up", "work", "home", "root"} {
		if err := os.MkdirAll(filepath.Join(h.dir, dir), 0o755); err != nil {
			return err
		}
	}
	if err := unix.Mount("home", filepath.Join(h.dir, "home"), "tmpfs", 0, "mode=755,size="+homeSize); err != nil {
		return fmt.Errorf("mount the homes of %q: %w", h.name, err)
	}
	u := upper{up: filepath.Join(h.dir, "up"), lower: h.lower}
	u.clean()
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	u.put("etc/machine-id", hex.EncodeToString(id)+"\n", 0o444)
	u.put("etc/hostname", h.name+"\n", 0o644)
	u.put("etc/hosts", fmt.Sprintf("127.0.0.1 localhost\n%s %s\n::1 localhost\n", h.address, h.name), 0o644)
	u.put("etc/resolv.conf", "", 0o644)
	h.furnishServer(&u)
	h.furnishAccounts(&u)
	return u.err
}

// furnishServer writes host keys and the server's configuration.
func (h *Host) furnishServer(u *upper) {
	types := h.spec.HostKeys
	if len(types) == 0 {
		types = []string{"ed25519", "ecdsa"}
	}
	if h.spec.Root == Dropbear {
		types = []string{"ed25519"}
	}
	for _, name := range types {
		key, private, err := generate(name, "root@"+h.name)
		if err != nil {
			u.fail(err)
			return
		}
		path := "etc/ssh/ssh_host_" + name + "_key"
		u.put(path, private, 0o600)
		u.put(path+".pub", key.String()+" root@"+h.name+"\n", 0o644)
		h.keys = append(h.keys, key)
	}
	lines, match := h.spec.SSHD, []string(nil)
	if i := slices.IndexFunc(lines, func(line string) bool {
		return strings.HasPrefix(strings.ToLower(strings.TrimSpace(line)), "match ")
	}); i >= 0 {
		lines, match = lines[:i], lines[i:]
	}
	config := slices.Clone(lines)
	config = append(config, "LogLevel VERBOSE")
	lenient := h.spec.Penalties == Exempt || h.spec.Penalties == SomeExempt && h.number%2 == 1
	if lenient && h.spec.Root.penalizes() {
		config = append(config, "PerSourcePenaltyExemptList "+gateway)
	}
	config = append(config,
		"Include /etc/ssh/sshd_config.d/*.conf", "KbdInteractiveAuthentication no", "UsePAM yes", "X11Forwarding yes",
		"PrintMotd no", "AcceptEnv LANG LC_*", "Subsystem sftp /usr/lib/openssh/sftp-server",
		"KexAlgorithms -sntrup761*", // see internal/lab
	)
	u.put("etc/ssh/sshd_config", strings.Join(append(config, match...), "\n")+"\n", 0o644)
	u.dir("etc/ssh/sshd_config.d", 0o755)
	u.dir("etc/dropbear", 0o755)
	if h.spec.Root == Systemd {
		u.put("etc/systemd/journald.conf.d/lab.conf",
			"[Journal]\nStorage=volatile\nForwardToSyslog=yes\nRateLimitIntervalSec=0\n", 0o644)
		u.link("/dev/null", "etc/systemd/system/console-getty.service") // there is no console
	}
}

// furnishAccounts writes the account database, homes, and who may be root.
func (h *Host) furnishAccounts(u *upper) {
	var passwd, shadow, group strings.Builder
	// The accounts of the system stay; people's, on a machine whose own
	// files serve, do not, and nobody's password does.
	for line := range u.lines("etc/passwd") {
		if uid, _ := strconv.Atoi(strings.Split(line+"::", ":")[2]); uid < 1000 || uid >= 60000 {
			passwd.WriteString(line + "\n")
			name, _, _ := strings.Cut(line, ":")
			fmt.Fprintf(&shadow, "%s:*:20000:0:99999:7:::\n", name)
		}
	}
	for line := range u.lines("etc/group") {
		group.WriteString(line + "\n")
	}
	var sudoers, doas strings.Builder
	for i, user := range h.spec.Users {
		uid, home := firstUID+i, filepath.Join(h.dir, "home", user.Name)
		if user.Name == "root" {
			uid, home = 0, filepath.Join(u.up, "root")
		} else {
			shell, ok := map[string]string{
				"": "/bin/dash", "dash": "/bin/dash", "bash": "/bin/bash", "busybox": "/usr/local/bin/ash",
			}[user.Shell]
			if !ok {
				u.fail(fmt.Errorf("user %q: no shell %q, of dash, bash and busybox", user.Name, user.Shell))
				return
			}
			password := "*"
			if user.Locked {
				password = "!"
			}
			fmt.Fprintf(&passwd, "%s:x:%d:%d::/home/%s:%s\n", user.Name, uid, uid, user.Name, shell)
			fmt.Fprintf(&shadow, "%s:%s:20000:0:99999:7:::\n", user.Name, password)
			fmt.Fprintf(&group, "%s:x:%d:\n", user.Name, uid)
		}
		switch user.Become {
		case "":
		case "sudo":
			fmt.Fprintf(&sudoers, "%s ALL=(ALL:ALL) NOPASSWD: ALL\n", user.Name)
		case "doas":
			fmt.Fprintf(&doas, "permit nopass %s\n", user.Name)
		default:
			u.fail(fmt.Errorf("user %q cannot become root by %q", user.Name, user.Become))
			return
		}
		u.fail(furnishHome(home, uid, user))
	}
	u.put("etc/passwd", passwd.String(), 0o644)
	u.put("etc/group", group.String(), 0o644)
	u.put("etc/shadow", shadow.String(), 0o640)
	u.put("etc/sudoers.d/lab", sudoers.String(), 0o440)
	u.put("etc/doas.conf", doas.String(), 0o400)
	u.put("etc/shells", "/bin/sh\n/bin/dash\n/bin/bash\n/usr/local/bin/ash\n", 0o644)
	u.link("/bin/busybox", "usr/local/bin/ash")
}

// furnishHome makes a home directory and what lies in it.
func furnishHome(home string, uid int, user User) error {
	files := map[string][]byte{}
	for path, content := range user.Identities {
		files[path] = content
	}
	if user.AuthorizedKeys != nil {
		files[".ssh/authorized_keys"] = []byte(strings.Join(user.AuthorizedKeys, "\n") + "\n")
	}
	if err := os.MkdirAll(filepath.Join(home, ".ssh"), 0o700); err != nil {
		return err
	}
	for path, content := range files {
		path = filepath.Join(home, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			return err
		}
	}
	return filepath.WalkDir(home, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, uid, uid)
	})
}

// generate makes a key pair and returns its private half in OpenSSH's format.
func generate(name, comment string) (trust.PublicKey, string, error) {
	var private crypto.Signer
	var err error
	switch name {
	case "ed25519":
		_, private, err = ed25519.GenerateKey(rand.Reader)
	case "ecdsa":
		private, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "rsa":
		private, err = rsa.GenerateKey(rand.Reader, 3072)
	default:
		err = fmt.Errorf("no key type %q, of ed25519, ecdsa and rsa", name)
	}
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	public, err := ssh.NewPublicKey(private.Public())
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	block, err := ssh.MarshalPrivateKey(private, comment)
	if err != nil {
		return trust.PublicKey{}, "", err
	}
	return trust.PublicKeyOf(public), string(pem.EncodeToMemory(block)), nil
}
