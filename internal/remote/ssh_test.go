package remote

import (
	"bytes"
	"context"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/trust"
)

// sshHost starts a real server with one key authorized, and returns it as a Host.
func sshHost(t testing.TB, hook Hook, config ...string) (*lab.Server, *Host, IdentityFiles) {
	t.Helper()
	return sshHostNamed(t, "web 1", hook, config...)
}

// sshHostNamed is sshHost for a server whose files lie in a directory of that name.
func sshHostNamed(t testing.TB, name string, hook Hook, config ...string) (*lab.Server, *Host, IdentityFiles) {
	t.Helper()
	need.Within(t, 5*time.Minute)
	s, err := lab.Start(t.Context(), t.TempDir(), lab.Options{Name: name, Config: config})
	if trust.KindOf(err) == trust.NotFound {
		need.Skip(t, "%v", err)
	}
	must(t, err)
	t.Cleanup(s.Close)
	id := pair(t, "-t", "ed25519")
	key, _, err := id.Key()
	must(t, err)
	must(t, s.Authorize(key, ""))
	signer, err := ssh.ParsePrivateKey(id.Private)
	must(t, err)
	conn, err := dial.Dial(t.Context(), dial.Target{Address: s.Address(), User: s.User(), Pins: []trust.PublicKey{s.HostKey()}}, []dial.Credential{dial.KeyCredential("k", signer)})
	must(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	h, err := Open(t.Context(), conn, "here", None, hook)
	must(t, err)
	return s, h, id
}

// The server that is found is the one that serves the session, with its own file and
// not that of some other sshd of the machine; its directory has a blank in it.
func TestSshdAndItsConfig(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHost(t, nil, "MaxAuthTries 5", "Match User root,alice Address 192.0.2.0/24", "AuthorizedKeysFile /elsewhere/%u")
	if h.ClientAddress() != "127.0.0.1" || h.Login() != s.User() {
		t.Errorf("client address %q, login %q", h.ClientAddress(), h.Login())
	}
	sshd, err := h.Sshd(t.Context())
	must(t, err)
	if sshd.Family != trust.OpenSSH || sshd.PID != s.Pid() || sshd.Found != "title" || sshd.Replaced || !strings.HasSuffix(sshd.Binary, "/sshd") {
		t.Errorf("found %+v, want process %d", sshd, s.Pid())
	}
	if want := []string{"-D", "-e", "-f", s.ConfigFile()}; !slices.Equal(sshd.Options, want) {
		t.Errorf("options %q, want %q", sshd.Options, want)
	}
	config, err := h.Config(t.Context(), sshd, s.User(), netip.Addr{})
	must(t, err)
	if len(config.AuthorizedKeysFile) == 0 || config.MaxAuthTries != 5 || config.StrictModes {
		t.Errorf("config: keys in %q, tries %d, strict %v", config.AuthorizedKeysFile, config.MaxAuthTries, config.StrictModes)
	}
	elsewhere, err := h.Config(t.Context(), sshd, "root", netip.MustParseAddr("192.0.2.9"))
	must(t, err)
	if s.User() == "root" && (len(elsewhere.AuthorizedKeysFile) != 1 || elsewhere.AuthorizedKeysFile[0] != "/elsewhere/%u") {
		t.Errorf("for another source: keys in %q", elsewhere.AuthorizedKeysFile)
	}
	if list, err := h.ByOrigin(t.Context()); err != nil || len(list) != 1 || list[0] != "AuthorizedKeysFile /elsewhere/%u (Match User root,alice Address 192.0.2.0/24)" {
		t.Errorf("by where a connection comes from: %q, %v", list, err)
	}
	// Which file it reads is said where names of files are in doubt, and not because it
	// had to be lent a host key.
	c := h.configuring(sshd, h.connectionOf("root", netip.Addr{}))
	lent := filepath.Join(t.TempDir(), "sshd_config")
	for keys, want := range map[string]bool{"/a/%u /b": false, `"/etc/my keys/%u"`: true} {
		must(t, os.WriteFile(lent, []byte("HostKey /nonexistent\nAuthorizedKeysFile "+keys+"\n"), 0o600))
		lines, err := h.run(t.Context(), call{op: opConfig, as: c.as, args: []string{c.args[0], c.args[1], "-f", lent}})
		if has := slices.ContainsFunc(lines, func(l line) bool { return l.word == "file" }); err != nil || has != want {
			t.Errorf("with the keys in %s it says which file it reads: %t, want %t, %v", keys, has, want, err)
		}
	}
	// What we make of its files ourselves is the same.
	own, err := h.evaluate(t.Context(), sshd, h.connectionOf("root", netip.MustParseAddr("192.0.2.9")), trust.OpenSSHVersion(9, 2), nil, &refusal{"failed", "test"})
	if err != nil || strings.Join(own.AuthorizedKeysFile, " ") != strings.Join(elsewhere.AuthorizedKeysFile, " ") || own.MaxAuthTries != 5 {
		t.Errorf("evaluated: keys in %q, %v", own.AuthorizedKeysFile, err)
	}
	sshd.Binary = "/nonexistent/sshd"
	if _, err := h.Config(t.Context(), sshd, "root", netip.Addr{}); err != nil {
		t.Errorf("without the binary: %v", err)
	}
	sshd.Options = nil
	_, err = h.Config(t.Context(), sshd, "root", netip.Addr{})
	kind(t, err, trust.Denied, "does not tell its configuration")
	for _, options := range [][]string{{"-f", filepath.Join(t.TempDir(), "none")}, {"-f", "/dev/null"}} {
		h.sshd.Options = options
		if list, err := h.ByOrigin(t.Context()); len(list) != 0 || err == nil {
			t.Errorf("of %q: %q, %v", options, list, err)
		}
	}
	h.sshd.Options = nil // then it tells which file it reads
	answer, err := h.run(t.Context(), call{op: opMain, args: []string{h.sshd.Binary}})
	if err != nil || len(answer) != 1 || answer[0].word != "file" || !strings.HasPrefix(answer[0].rest, "/") {
		t.Errorf("it says that it reads %q, %v", answer, err)
	}
}

// Match Host is about the name that sshd finds for an address, where it looks
// names up, and about the address where it does not.
func TestConfigWhereNamesAreLookedUp(t *testing.T) {
	t.Parallel()
	server, h, _ := sshHost(t, nil, "Match Host localhost", "AuthorizedKeysFile /by-name", "Match Host 192.0.2.9", "AuthorizedKeysFile /by-address")
	sshd, err := h.Sshd(t.Context())
	must(t, err)
	for _, c := range []struct{ names, from, want string }{
		{"no", "127.0.0.1", strings.Join(server.AuthorizedKeysFiles(), " ")},
		{"yes", "127.0.0.1", "/by-name"},
		{"yes", "192.0.2.9", "/by-address"}, // which has no name
	} {
		s := sshd
		s.Options = append(slices.Clone(sshd.Options), "-o", "UseDNS="+c.names)
		config, err := h.Config(t.Context(), s, "root", netip.MustParseAddr(c.from))
		must(t, err)
		if got := strings.Join(config.AuthorizedKeysFile, " "); got != c.want {
			t.Errorf("UseDNS %s, from %s: keys in %q, want %q", c.names, c.from, got, c.want)
		}
	}
}

// sshd prints the names of key files without quotes, so that one with a blank looks like
// two. Its files tell them apart.
func TestKeyFileWithABlank(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHostNamed(t, "web 1", nil)
	account, err := h.AccountConfig(t.Context(), s.User())
	if err != nil || !slices.Equal(account.AuthorizedKeys, s.AuthorizedKeysFiles()) || account.Evaluated != "" {
		t.Errorf("%q of %q, evaluated %q, %v", account.AuthorizedKeys, s.AuthorizedKeysFiles(), account.Evaluated, err)
	}
	sshd, err := h.Sshd(t.Context())
	must(t, err)
	// Nothing is made of files that say otherwise than the server.
	must(t, os.WriteFile(s.ConfigFile(), bytes.ReplaceAll([]byte(content(t, s.ConfigFile())), []byte("AuthorizedKeysFile"), []byte("AuthorizedKeysFile /else")), 0o600))
	config := trust.SSHDConfig{AuthorizedKeysFile: strings.Fields(strings.Join(s.AuthorizedKeysFiles(), " "))}
	why, err := h.separate(t.Context(), sshd, h.connectionOf(s.User(), netip.Addr{}), trust.OpenSSHVersion(9, 2), nil, &config)
	if err != nil || !strings.Contains(why, "a name with a blank is taken for several") || slices.Equal(config.AuthorizedKeysFile, s.AuthorizedKeysFiles()) {
		t.Errorf("of files that have changed: %q, keys in %q, %v", why, config.AuthorizedKeysFile, err)
	}
}

func TestAccountConfig(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHostNamed(t, "web1", nil, "AuthorizedKeysCommand /bin/true", "AuthorizedKeysCommandUser nobody")
	account, err := h.AccountConfig(t.Context(), s.User())
	if err != nil || !slices.Equal(account.AuthorizedKeys, s.AuthorizedKeysFiles()) || account.Evaluated != "" || len(account.Unseen) != 1 || !strings.Contains(account.Unseen[0], "/bin/true") {
		t.Errorf("%q, evaluated %q, unseen %q, %v", account.AuthorizedKeys, account.Evaluated, account.Unseen, err)
	}
	if _, err := h.AccountConfig(t.Context(), "no-such-account"); trust.KindOf(err) != trust.NotFound {
		t.Errorf("unknown account: %v", err)
	}
}

// Where the host hides its processes, the sshd in PATH is taken only if it is of the
// version that serves us.
func TestHiddenSshd(t *testing.T) {
	t.Parallel()
	_, h, _ := sshHostNamed(t, "web1", nil)
	s, err := h.unseenSshd(t.Context(), need.Program(t, "sshd", "openssh-server"))
	if err != nil || s.Found != "default" {
		t.Errorf("%+v, %v", s, err)
	}
	h.banner = "SSH-2.0-OpenSSH_6.6"
	_, err = h.unseenSshd(t.Context(), need.Program(t, "sshd", "openssh-server"))
	kind(t, err, trust.Denied, "hidepid")
	h.banner = "SSH-2.0-dropbear_2022.83"
	_, err = h.unseenSshd(t.Context(), "/usr/sbin/sshd")
	kind(t, err, trust.Denied, "hidepid")
}

func TestEditOverSSH(t *testing.T) {
	t.Parallel()
	s, h, id := sshHost(t, nil)
	path := s.AuthorizedKeysFiles()[0]
	before := content(t, path)
	change, err := h.Edit(t.Context(), mine, s.User(), path, add("# touched"))
	must(t, err)
	if got := content(t, path); got != before+"# touched\n" || string(change.After) != got {
		t.Errorf("%q", got)
	}
	must(t, h.Release(t.Context(), mine, s.User(), path))
	only(t, filepath.Dir(path), "authorized_keys")
	where := filepath.Join(s.Home(), ".ssh", "id_it's")
	must(t, h.Install(t.Context(), mine, s.User(), where, IdentityFiles{}, id))
	got, err := h.IdentityFiles(t.Context(), s.User(), where)
	if err != nil || !got.Equal(id) {
		t.Errorf("%v, %v", got, err)
	}
	_, found, err := h.FilesAndIdentities(t.Context(), s.User(), nil)
	if err != nil || len(found.List) != 1 || found.List[0].Path != where {
		t.Errorf("identities %+v, %v", found, err)
	}
	must(t, h.Release(t.Context(), mine, s.User(), where))
	only(t, filepath.Dir(path), "authorized_keys", "id_it's", "id_it's.pub")
}

// An op that takes longer than it may is told from a host that is gone.
func TestOpThatTakesLonger(t *testing.T) {
	t.Parallel()
	_, h, _ := sshHost(t, nil)
	c := h.asking("SHA256:x", time.Unix(0, 0))
	c.op.time = time.Nanosecond
	_, err := h.runAll(t.Context(), c)
	kind(t, err, trust.Unavailable, "uses took longer than 1ns")
	if !errors.Is(err, ErrTookLonger) {
		t.Errorf("%v is not %v", err, ErrTookLonger)
	}
}

// A command that the connection's end cuts off tells that nothing is known.
func TestLostConnection(t *testing.T) {
	t.Parallel()
	var s *lab.Server
	s, h, _ := sshHost(t, func(_ context.Context, point string) error {
		if point == "before swap" {
			s.Kill()
		}
		return nil
	})
	_, err := h.Edit(t.Context(), mine, s.User(), s.AuthorizedKeysFiles()[0], add("# touched"))
	kind(t, err, trust.Unavailable)
}

func TestLoginFrom(t *testing.T) {
	t.Parallel()
	from, h, _ := sshHost(t, nil)
	to, _, _ := sshHost(t, nil)
	to2, _, _ := sshHost(t, nil)
	id := pair(t, "-t", "ed25519")
	key, _, err := id.Key()
	must(t, err)
	ran := filepath.Join(t.TempDir(), "ran")
	must(t, to2.Authorize(key, `command="touch `+ran+`",restrict`))
	where := filepath.Join(from.Home(), ".ssh", "id")
	must(t, os.WriteFile(where, id.Private, 0o600))
	// A .pub file of another key would make ssh fail; it is not looked at.
	must(t, os.WriteFile(where+".pub", pair(t, "-t", "ed25519").Public, 0o600))
	pins := []trust.PublicKey{to2.HostKey()}
	ok, detail, err := h.LoginFrom(t.Context(), from.User(), where, to2.User(), to2.Address(), pins)
	if !ok || err != nil {
		t.Errorf("login: %v, %q, %v", ok, detail, err)
	}
	if fileExists(ran) {
		t.Error("the login ran the forced command")
	}
	ok, detail, err = h.LoginFrom(t.Context(), from.User(), where, to.User(), to.Address(), []trust.PublicKey{to.HostKey()})
	if ok || err != nil || !strings.Contains(detail, "Permission denied") {
		t.Errorf("a login that is not allowed: %v, %q, %v", ok, detail, err)
	}
	_, _, err = h.LoginFrom(t.Context(), from.User(), where, to2.User(), to2.Address(), []trust.PublicKey{to.HostKey()})
	kind(t, err, trust.Conflict, "host key")
	to2.Kill()
	_, _, err = h.LoginFrom(t.Context(), from.User(), where, to2.User(), to2.Address(), pins)
	kind(t, err, trust.Unavailable, "efused")
	_, _, err = h.LoginFrom(t.Context(), from.User(), where+"-none", to2.User(), to2.Address(), pins)
	kind(t, err, trust.NotFound)
	// Scratch directories are named after their shell; others at work have theirs.
	for _, pattern := range []string{"/dev/shm/.keyturn.*", "/tmp/.keyturn.*"} {
		left, _ := filepath.Glob(pattern)
		for _, dir := range left {
			if !fileExists("/proc"+strings.Replace(filepath.Ext(dir), ".", "/", 1)) && fileExists(dir) {
				t.Errorf("left behind: %s", dir)
			}
		}
	}
}

// What ancestry looks like on other hosts, as the op would tell it.
func TestIdentify(t *testing.T) {
	for name, c := range map[string]struct {
		servers []process
		exec    string
		want    string // Found, Binary and options
	}{
		"title": {[]process{
			{2, "sshd", "/usr/sbin/sshd", []string{"sshd: me@notty"}},
			{1, "sshd", "/usr/sbin/sshd", []string{"sshd: /usr/sbin/sshd -D -oPort=22 -f /etc/my ssh/conf -o AuthorizedKeysFile a b -4 [listener] 0 of 10-100 startups"}},
		}, "", "title /usr/sbin/sshd -D|-o|Port=22|-f|/etc/my ssh/conf|-o|AuthorizedKeysFile a b|-4"},
		"argv": {[]process{{1, "sshd", "", []string{"/opt/sshd", "-D", "-f", "/a b"}}}, "", "argv /opt/sshd -D|-f|/a b"},
		"session binary": {[]process{
			{2, "sshd-session", "/usr/lib/openssh/sshd-session", []string{"sshd-session: me@notty"}},
			{1, "sshd", "/usr/sbin/sshd (deleted)", []string{"sshd: /usr/sbin/sshd -D [listener] 0 of 10-100 startups"}},
		}, "", "title /usr/sbin/sshd replaced -D"},
		"socket": {
			[]process{{3, "sshd", "/usr/sbin/sshd", []string{"sshd: me [priv]"}}},
			"{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -i $SSHD_OPTS -f /x ; ignore_errors=yes ; pid=0 }", "unit /usr/sbin/sshd -i|-p|2200|-f|/x",
		},
		"inetd":    {[]process{{3, "sshd", "/usr/sbin/sshd", []string{"sshd: me [priv]"}}}, "", "unknown"},
		"hidepid":  {[]process{{3, "sshd", "", []string{"sshd: me@notty"}}}, "", "unknown"},
		"dropbear": {[]process{{3, "dropbear", "/usr/sbin/dropbear", []string{"/usr/sbin/dropbear", "-F", "-p", "2222", "-D", "/keys"}}}, "", "argv /usr/sbin/dropbear -F|-p|2222|-D|/keys"},
	} {
		t.Run(name, func(t *testing.T) {
			s, known := identify(c.servers, systemdUnit{name: "ssh.service", exec: c.exec, environment: "SSHD_OPTS=-p2200"})
			got := s.Found + " " + s.Binary
			if s.Replaced {
				got += " replaced"
			}
			got += " " + strings.Join(s.Options, "|")
			if !known {
				got = "unknown"
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// An sshd that is started anew, as an upgrade does it, leaves its sessions alone. Such a
// session says nothing of the sshd that serves the host now: another connection does.
func TestSshdIsStartedAnew(t *testing.T) {
	t.Parallel()
	s, h, _ := sshHost(t, nil)
	if h.Orphan() {
		t.Error("an orphan from the start")
	}
	s.Stop()
	must(t, s.Restart(t.Context()))
	_, err := h.Sshd(t.Context())
	kind(t, err, trust.Unavailable, "stopped or started anew")
	if !h.Orphan() {
		t.Error("the connection would be kept")
	}
}
