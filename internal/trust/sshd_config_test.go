package trust

import (
	"bytes"
	"maps"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// A file of testdata/corpus/sshd_config is a txtar archive: the files of a
// configuration, of which "main" is the first, and in front of them connections
// in the form of sshd's -C. {{dir}} is where the files lie, {{me}} and {{group}}
// are the user who runs the test and its first group.
func sshdCorpus(t testing.TB, path, dir string) (connections []string, files []txtar.File) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata/corpus", path))
	if err != nil {
		t.Fatal(err)
	}
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	group, err := user.LookupGroupId(me.Gid)
	if err != nil {
		t.Fatal(err)
	}
	text = []byte(strings.NewReplacer("{{dir}}", dir, "{{me}}", me.Username, "{{group}}", group.Name).Replace(string(text)))
	archive := txtar.Parse(text)
	return strings.Fields(string(archive.Comment)), archive.Files
}

// source makes the SSHDSource of files that lie in dir, as a caller would.
func source(t testing.TB, dir string, files []txtar.File, v ServerVersion) SSHDSource {
	t.Helper()
	s := SSHDSource{Includes: map[string][]ConfigFile{}}
	for _, f := range files {
		if f.Name == "main" {
			s.Main = ConfigFile{filepath.Join(dir, f.Name), f.Data}
		}
	}
	for {
		missing, err := s.Missing(v)
		if err != nil || len(missing) == 0 {
			return s
		}
		for _, pattern := range missing {
			s.Includes[pattern] = nil
			for _, f := range files {
				if ok, _ := filepath.Match(pattern, filepath.Join(dir, f.Name)); ok {
					s.Includes[pattern] = append(s.Includes[pattern], ConfigFile{filepath.Join(dir, f.Name), f.Data})
				}
			}
			slices.SortFunc(s.Includes[pattern], func(a, b ConfigFile) int { return strings.Compare(a.Path, b.Path) })
		}
	}
}

// connection reads what follows sshd's -C.
func connection(t testing.TB, spec string) SSHDConnection {
	t.Helper()
	var c SSHDConnection
	for part := range strings.SplitSeq(spec, ",") {
		name, value, _ := strings.Cut(part, "=")
		var err error
		switch name {
		case "user":
			c.User = value
		case "host":
			c.Host = value
		case "addr":
			c.Addr, err = netip.ParseAddr(value)
		case "laddr":
			c.LocalAddr, err = netip.ParseAddr(value)
		case "lport":
			c.LocalPort, err = strconv.Atoi(value)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	account, err := user.Lookup(c.User)
	if err != nil {
		c.InvalidUser = true
		return c
	}
	ids, err := account.GroupIds()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if g, err := user.LookupGroupId(id); err == nil {
			c.Groups = append(c.Groups, g.Name)
		}
	}
	return c
}

// TestAgreesWithSSHDOnConfig evaluates each configuration of the corpus for its
// connections, and compares with what sshd -T -C prints, field by field.
func TestAgreesWithSSHDOnConfig(t *testing.T) { eachSSHD(t, agreesOnConfig) }

func agreesOnConfig(t *testing.T, p sshdProgram) {
	version, key := p.version, hostKey(t)
	compared := 0
	for _, name := range corpusFiles(t, "sshd_config") {
		dir := t.TempDir()
		connections, files := sshdCorpus(t, name, dir)
		for _, f := range files {
			path := filepath.Join(dir, f.Name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, f.Data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		copyFile(t, key, filepath.Join(dir, "host_key"))
		s := source(t, dir, files, version)
		for _, spec := range connections {
			got, gotErr := s.Evaluate(version, connection(t, spec))
			cmd := p.command(dir, "-T", "-C", spec, "-f", filepath.Join(dir, "main"), "-h", filepath.Join(dir, "host_key"))
			var stderr bytes.Buffer
			cmd.Dir = "/"
			cmd.Stderr = &stderr
			out, err := cmd.Output()
			refused := strings.HasPrefix(filepath.Base(name), "refused-")
			if refused != (err != nil) && version.AtLeast(8, 7) {
				t.Fatalf("%s: %s: sshd -T: %v: %s", name, spec, err, stderr.String())
			}
			if err != nil {
				if gotErr == nil {
					t.Errorf("%s: %s: sshd refuses it (%s), Evaluate does not", name, spec, strings.TrimSpace(stderr.String()))
				}
				continue
			}
			if gotErr != nil {
				t.Errorf("%s: %s: sshd takes it, Evaluate says: %v", name, spec, gotErr)
				continue
			}
			want, err := ParseSSHDConfig(out)
			if err != nil {
				t.Fatal(err)
			}
			compared++
			compareConfigs(t, name+": "+spec, got, want, filepath.Join(dir, "host_key"))
		}
	}
	if compared < 20 {
		t.Errorf("only %d configurations were compared", compared)
	}
}

func copyFile(t testing.TB, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// compareConfigs compares the fields of two configurations. The order of
// algorithms is left out: it decides nothing. sshd prints words without their
// quotes, and the host key that the test gave it.
func compareConfigs(t *testing.T, name string, got, want SSHDConfig, hostKey string) {
	t.Helper()
	want.HostKey = slices.DeleteFunc(want.HostKey, func(k string) bool { return k == hostKey })
	if len(want.HostKey) == 0 {
		want.HostKey = got.HostKey // sshd has no default where one was given by -h
	}
	if len(got.ListenAddress) == 0 {
		want.ListenAddress = nil
	}
	want.CASignatureAlgorithms, got.CASignatureAlgorithms = nil, nil
	want.PidFile, got.PidFile = "", ""
	if len(got.PubkeyAuthOptions) == 0 {
		want.PubkeyAuthOptions = slices.DeleteFunc(want.PubkeyAuthOptions, func(o string) bool { return strings.HasPrefix(o, "max-pk-ok:") })
	}
	if got.PerSourcePenalties == "yes" && want.PerSourcePenalties != "" {
		want.PerSourcePenalties = "yes" // sshd prints the list
	}
	slices.Sort(got.PubkeyAcceptedAlgorithms)
	slices.Sort(want.PubkeyAcceptedAlgorithms)
	got.AuthorizedKeysFile = strings.Fields(strings.Join(got.AuthorizedKeysFile, " "))
	g, w := reflect.ValueOf(got), reflect.ValueOf(want)
	for i := range g.NumField() {
		field := g.Type().Field(i)
		if !field.IsExported() {
			continue
		}
		a, b := g.Field(i).Interface(), w.Field(i).Interface()
		if g.Field(i).Kind() == reflect.Slice && g.Field(i).Len() == 0 && w.Field(i).Len() == 0 {
			continue
		}
		if !reflect.DeepEqual(a, b) {
			t.Errorf("%s: %s: Evaluate says %v, sshd -T %v", name, field.Name, a, b)
		}
	}
}

// The accounts of a test machine have one group; here is one with two.
func TestMatchGroup(t *testing.T) {
	for pattern, want := range map[string]int{
		"staff": 1, "wheel": 1, "other,wheel": 1, "w*": 1, "other": 6, "*,!wheel": 6, "!wheel,*": 6, "!other,*": 1, "!other": 6,
	} {
		s := SSHDSource{Main: ConfigFile{"main", []byte("Match Group " + pattern + "\n\tMaxAuthTries 1\n")}}
		c, err := s.Evaluate(OpenSSHVersion(9, 2), SSHDConnection{User: "alice", Groups: []string{"staff", "wheel"}})
		if err != nil || c.MaxAuthTries != want {
			t.Errorf("%s: MaxAuthTries is %d, %v, want %d", pattern, c.MaxAuthTries, err, want)
		}
	}
}

func TestParseSSHDConfigOfOtherVersions(t *testing.T) {
	// From OpenSSH 7.4 (RHEL 7), shortened.
	old := "port 22\nusepam yes\npermitrootlogin without-password\npubkeyauthentication yes\nchallengeresponseauthentication no\nusedns no\nstrictmodes yes\n" +
		"authorizedkeyscommand none\nrevokedkeys none\npubkeyacceptedkeytypes ssh-rsa,ssh-ed25519\nloglevel INFO\nauthorizedkeysfile .ssh/authorized_keys .ssh/authorized_keys2\n" +
		"hostkey /etc/ssh/ssh_host_rsa_key\nhostkey /etc/ssh/ssh_host_ecdsa_key\nallowusers alice\nallowusers bob\nmaxauthtries 6\n"
	c, err := ParseSSHDConfig([]byte(old))
	if err != nil {
		t.Fatal(err)
	}
	if c.PermitRootLogin != "prohibit-password" || c.KbdInteractiveAuthentication || !c.UsePAM || c.AuthorizedKeysCommand != "" || len(c.RevokedKeys) != 0 {
		t.Errorf("got %+v", c)
	}
	if !slices.Equal(c.AllowUsers, []string{"alice", "bob"}) || !slices.Equal(c.HostKey, []string{"/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ecdsa_key"}) {
		t.Errorf("got %+v", c)
	}
	if a := c.AcceptedAlgorithms("ssh-rsa"); !slices.Equal(a, []string{"ssh-rsa"}) {
		t.Errorf("RSA keys sign by %q", a)
	}
	for _, bad := range []string{"", "hello\n", "Match User x\n", "sshd: no hostkeys available -- exiting.\n", strings.Replace(old, "strictmodes yes\n", "", 1)} {
		if _, err := ParseSSHDConfig([]byte(bad)); KindOf(err) != Invalid {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestAuthorizedKeysPaths(t *testing.T) {
	c := SSHDConfig{AuthorizedKeysFile: []string{".ssh/authorized_keys", "/etc/keys/%u", "/etc/keys/%U", "%h/keys/*.pub", "/etc/all", "/100%%"}}
	paths, err := c.AuthorizedKeysPaths(Account{User: "alice", UID: 1000, Home: "/home/alice"})
	if err != nil {
		t.Fatal(err)
	}
	want := []KeysPath{
		{Path: "/home/alice/.ssh/authorized_keys"},
		{Path: "/etc/keys/alice"},
		{Path: "/etc/keys/1000"},
		{Path: "/home/alice/keys/*.pub", Glob: true},
		{Path: "/etc/all", Shared: true},
		{Path: "/100%", Shared: true},
	}
	if !slices.Equal(paths, want) {
		t.Errorf("got %+v, want %+v", paths, want)
	}
	for _, bad := range []string{"%x", "%", "/a/%H"} {
		if _, err := (SSHDConfig{AuthorizedKeysFile: []string{bad}}).AuthorizedKeysPaths(Account{}); KindOf(err) != Invalid {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestAllowsAccount(t *testing.T) {
	alice := Account{User: "alice", UID: 1000, Groups: []string{"staff", "wheel"}}
	root := Account{User: "root", Groups: []string{"root"}}
	here := mustAddr(t, "10.1.2.3")
	for _, test := range []struct {
		config SSHDConfig
		who    Account
		forced bool
		word   string // the keyword in the way, or ""
	}{
		{SSHDConfig{}, alice, false, ""},
		{SSHDConfig{DenyUsers: []string{"al*"}}, alice, false, "DenyUsers"},
		{SSHDConfig{DenyUsers: []string{"alice@192.0.2.0/24"}}, alice, false, ""},
		{SSHDConfig{AllowUsers: []string{"bob", "alice@10.0.0.0/8"}}, alice, false, ""},
		{SSHDConfig{AllowUsers: []string{"bob", "alice@!10.1.2.3,*"}}, alice, false, "AllowUsers"},
		{SSHDConfig{AllowGroups: []string{"wh?el"}}, alice, false, ""},
		{SSHDConfig{AllowGroups: []string{"admins"}}, alice, false, "AllowGroups"},
		{SSHDConfig{DenyGroups: []string{"staff"}, AllowGroups: []string{"wheel"}}, alice, false, "DenyGroups"},
		{SSHDConfig{PermitRootLogin: "no"}, alice, false, ""},
		{SSHDConfig{PermitRootLogin: "no"}, root, true, "PermitRootLogin"},
		{SSHDConfig{PermitRootLogin: "prohibit-password"}, root, false, ""},
		{SSHDConfig{PermitRootLogin: "forced-commands-only"}, root, false, "PermitRootLogin"},
		{SSHDConfig{PermitRootLogin: "forced-commands-only"}, root, true, ""},
		{SSHDConfig{PermitRootLogin: "forced-commands-only", ForceCommand: "true"}, root, false, ""},
	} {
		err := test.config.AllowsAccount(test.who, "", here, test.forced)
		if (err == nil) != (test.word == "") || err != nil && (KindOf(err) != Denied || !strings.HasPrefix(err.Error(), test.word)) {
			t.Errorf("%+v: %s: got %v, want %q", test.config, test.who.User, err, test.word)
		}
	}
}

func TestAcceptsKey(t *testing.T) {
	c := SSHDConfig{PubkeyAuthentication: true, PubkeyAcceptedAlgorithms: []string{"ssh-ed25519", "rsa-sha2-*"}, RequiredRSASize: 3072}
	for kind, ok := range map[string]bool{"ed25519": true, "ecdsa256": false, "rsa": false, "rsa16384": true} {
		if err := c.AcceptsKey(testKey(t, kind, "k")); (err == nil) != ok {
			t.Errorf("%s: got %v", kind, err)
		}
	}
	c.PubkeyAuthentication = false
	if err := c.AcceptsKey(testKey(t, "ed25519", "k")); KindOf(err) != Denied {
		t.Errorf("got %v", err)
	}
}

// What depends on where a connection comes from is named with its Match, through
// Include, and nothing else is.
func TestByOrigin(t *testing.T) {
	main := `AuthorizedKeysFile .ssh/authorized_keys
Match User bob Group staff
AuthorizedKeysFile /bob
Match Address 10.0.0.0/8 User alice # the office
PasswordAuthentication no
AuthorizedKeysFile "/etc/ssh/my keys/%u"
Include more
Match all
TrustedUserCAKeys /ca
Match LocalPort 2222
TrustedUserCAKeys /ca-2222
Match User carol
Include more
`
	more := `AuthorizedKeysCommand /who
Match User dave
AuthorizedKeysFile /dave
Match Host *.example.org
AuthorizedKeysCommand /by-name
`
	want := []string{
		`AuthorizedKeysFile "/etc/ssh/my keys/%u" (Match Address 10.0.0.0/8 User alice # the office)`,
		`AuthorizedKeysCommand /who (Match Address 10.0.0.0/8 User alice # the office)`,
		`AuthorizedKeysFile /dave (Match Address 10.0.0.0/8 User alice # the office)`,
		`AuthorizedKeysCommand /by-name (Match Host *.example.org)`,
		`TrustedUserCAKeys /ca-2222 (Match LocalPort 2222)`,
		`AuthorizedKeysCommand /by-name (Match Host *.example.org)`,
	}
	s := SSHDSource{Main: ConfigFile{"main", []byte(main)}, Includes: map[string][]ConfigFile{"/etc/ssh/more": {{"more", []byte(more)}}}}
	for _, v := range []ServerVersion{OpenSSHVersion(9, 2), OpenSSHVersion(10, 4)} {
		got, err := s.ByOrigin(v)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%v: %q, %v\nwant %q", v, got, err, want)
		}
	}
	s.Main.Content = []byte("Match Address\n")
	if _, err := s.ByOrigin(OpenSSHVersion(9, 2)); KindOf(err) != Invalid {
		t.Errorf("of a broken file: %v", err)
	}
}

// Evaluating never panics, depends on nothing but its arguments, and a Match
// block for someone else changes nothing.
func FuzzSSHDConfig(f *testing.F) {
	for _, name := range corpusFiles(f, "sshd_config") {
		_, files := sshdCorpus(f, name, "/etc/ssh")
		for _, file := range files {
			f.Add(file.Data)
		}
	}
	conn := SSHDConnection{User: "alice", Groups: []string{"staff"}, Addr: netip.MustParseAddr("10.0.0.1"), LocalAddr: netip.MustParseAddr("10.0.0.2"), LocalPort: 22}
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, v := range []ServerVersion{OpenSSHVersion(8, 4), OpenSSHVersion(9, 2), OpenSSHVersion(10, 4)} {
			s := SSHDSource{Main: ConfigFile{"main", data}, Includes: map[string][]ConfigFile{}}
			missing, err := s.Missing(v)
			for _, pattern := range missing {
				s.Includes[pattern] = []ConfigFile{{"included", []byte("MaxAuthTries 3\nMatch User alice\nLogLevel QUIET\n")}}
			}
			c, err2 := s.Evaluate(v, conn)
			if err != nil && err2 == nil {
				t.Fatalf("Missing refuses it, Evaluate does not: %v", err)
			}
			if err2 != nil {
				continue
			}
			more := s
			more.Main.Content = append(slices.Clone(data), "\nMatch User bob\nPubkeyAuthentication no\nAuthorizedKeysFile none\n"...)
			c2, err := more.Evaluate(v, conn)
			if err != nil || !maps.EqualFunc(c.settings, c2.settings, slices.Equal[[]string]) {
				t.Fatalf("a Match for bob changed alice's configuration: %v\n%v\n%v", err, c.settings, c2.settings)
			}
			if _, err := c.AuthorizedKeysPaths(Account{User: "alice", Home: "/home/alice"}); err != nil && KindOf(err) != Invalid {
				t.Fatal(err)
			}
		}
		if _, err := ParseSSHDConfig(data); err != nil && KindOf(err) != Invalid {
			t.Fatal(err)
		}
	})
}
