package remote

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// An Sshd is the SSH server that serves our session: not what is installed where
// servers usually are, but the process from which our shell descends.
type Sshd struct {
	Binary string // path of the program
	// Options are those of its arguments that decide its configuration: -f, -o,
	// -h, -c and -p of sshd(8), each followed by its value; of other servers, all.
	Options []string
	Pid     int
	// Kind is "openssh", "dropbear" or "tinyssh".
	Kind string
	// Found says how Binary and Options came to be known: "process" from the
	// listener's own arguments, "unit" from the service manager's, or "default"
	// where the host hides its processes from us.
	Found string
}

// A process is one of our shell's ancestors.
type process struct {
	pid  int
	name string
	exe  string
	args []string
}

// Sshd finds the server that serves this session, once per connection.
func (h *Host) Sshd(ctx context.Context) (Sshd, error) {
	h.mu.Lock()
	known := h.sshd
	h.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	lines, err := h.run(ctx, call{op: opSshd, as: h.strongest()})
	if err != nil {
		return Sshd{}, h.fail(err, "")
	}
	s := serving(lines)
	h.mu.Lock()
	h.sshd = &s
	h.mu.Unlock()
	return s, nil
}

// strongest is the account that sees most: root where we can be root.
func (h *Host) strongest() actor {
	if h.root {
		return root
	}
	return self
}

// serving makes out the server in the answer of op sshd.
func serving(lines []line) Sshd {
	var processes []process
	execStart := ""
	for _, l := range lines {
		last := len(processes) - 1
		switch l.word {
		case "proc":
			f := strings.SplitN(l.rest, " ", 4)
			if len(f) < 4 {
				continue
			}
			pid, err := strconv.Atoi(f[0])
			if err != nil {
				continue
			}
			processes = append(processes, process{pid: pid, name: f[3]})
		case "exe":
			if last >= 0 {
				processes[last].exe = strings.TrimSuffix(l.rest, " (deleted)")
			}
		case "arg":
			if last >= 0 {
				processes[last].args = append(processes[last].args, l.rest)
			}
		case "show":
			if v, ok := strings.CutPrefix(l.rest, "ExecStart="); ok && execStart == "" {
				execStart = v
			}
		}
	}
	at := -1
	for i, p := range processes {
		if serverKind(p.name) != "" {
			at = i // the oldest of them: the listener, if there is one
		}
	}
	if at < 0 {
		return Sshd{Binary: "/usr/sbin/sshd", Kind: "openssh", Found: "default"}
	}
	p := processes[at]
	s := Sshd{Pid: p.pid, Kind: serverKind(p.name), Binary: p.exe, Found: "process"}
	args := p.args
	if title, ok := listenerTitle(args); ok {
		args = title
	} else if s.Kind == "openssh" && (len(args) == 0 || strings.HasPrefix(args[0], "sshd: ")) {
		// Our own session, of an sshd that a socket unit started for it: its
		// arguments are overwritten, and those of the unit are what it had.
		if args = unitArguments(execStart); len(args) > 0 {
			s.Found = "unit"
		} else {
			s.Found = "default"
		}
	}
	if s.Kind == "openssh" {
		s.Options = configOptions(args)
		if len(args) > 0 && strings.HasPrefix(args[0], "/") && (s.Binary == "" || path.Base(s.Binary) != "sshd") {
			s.Binary = args[0] // sshd-session is not who reads the configuration
		}
		if s.Binary == "" || path.Base(s.Binary) == "sshd-session" || path.Base(s.Binary) == "sshd-auth" {
			s.Binary = "/usr/sbin/sshd"
		}
	} else if len(args) > 1 {
		s.Options = args[1:]
	}
	return s
}

func serverKind(process string) string {
	switch {
	case strings.HasPrefix(process, "sshd"):
		return "openssh"
	case strings.HasPrefix(process, "dropbear"):
		return "dropbear"
	case strings.HasPrefix(process, "tinysshd"):
		return "tinyssh"
	}
	return ""
}

// listenerTitle reads the title that OpenSSH's listener gives itself, which is
// "sshd: ARGUMENTS [listener] 0 of 10-100 startups" with its arguments joined by
// blanks.
func listenerTitle(args []string) ([]string, bool) {
	if len(args) == 0 {
		return nil, false
	}
	title, ok := strings.CutPrefix(args[0], "sshd: ")
	if !ok {
		return nil, false
	}
	title, _, ok = strings.Cut(title, " [listener]")
	return strings.Fields(title), ok
}

// unitArguments reads the arguments out of what "systemctl show -p ExecStart"
// prints: "{ path=/usr/sbin/sshd ; argv[]=/usr/sbin/sshd -i $SSHD_OPTS ; ... }".
func unitArguments(show string) []string {
	_, rest, ok := strings.Cut(show, "argv[]=")
	if !ok {
		return nil
	}
	rest, _, _ = strings.Cut(rest, " ; ")
	return slices.DeleteFunc(strings.Fields(rest), func(a string) bool { return strings.HasPrefix(a, "$") })
}

// configOptions picks, out of an sshd's arguments, those that decide its
// configuration, one option and one value after the other.
func configOptions(args []string) []string {
	const withValue, wanted = "CEbcfghkopu", "fohcp"
	var options []string
	for i := 1; i < len(args); i++ {
		word := args[i]
		if len(word) < 2 || word[0] != '-' {
			continue
		}
		for j := 1; j < len(word); j++ {
			if !strings.ContainsRune(withValue, rune(word[j])) {
				continue
			}
			value := word[j+1:]
			if value == "" && i+1 < len(args) {
				i++
				value = args[i]
			}
			if strings.ContainsRune(wanted, rune(word[j])) && value != "" {
				options = append(options, "-"+string(word[j]), value)
			}
			break
		}
	}
	return options
}

// An AccountConfig is where the server looks for an account's keys, and how.
type AccountConfig struct {
	// AuthorizedKeys are the absolute paths that are searched, in order. A file
	// need not exist.
	AuthorizedKeys []string
	// Config is the configuration of a connection of ours for that account. It
	// is zero for servers other than OpenSSH.
	Config trust.SSHDConfig
	// Unseen says of each source of trust that is in no such file what it is.
	Unseen []string
	// Evaluated says why the server did not tell its configuration itself, so
	// that its files were read and evaluated by us; or is empty.
	Evaluated string
}

// AccountConfig finds out where the server that serves us looks for the keys of
// user: it asks that server's own program, with that server's own options, or,
// where that is not allowed, reads its configuration. It asks once per
// connection and account.
func (h *Host) AccountConfig(ctx context.Context, user string) (AccountConfig, error) {
	h.mu.Lock()
	known, ok := h.configs[user]
	h.mu.Unlock()
	if ok {
		return known, nil
	}
	account, err := h.account(ctx, user)
	if err != nil {
		return AccountConfig{}, err
	}
	s, err := h.Sshd(ctx)
	if err != nil {
		return AccountConfig{}, err
	}
	var c AccountConfig
	if s.Kind != "openssh" {
		c.AuthorizedKeys = []string{otherKeysFile(s, account)}
	} else {
		version, _ := trust.ParseServerVersion(h.banner)
		if c.Config, version, err = h.askSshd(ctx, s, user, version); trust.KindOf(err) == trust.Conflict {
			c.Evaluated = err.Error()
			c.Config, err = h.evaluate(ctx, s, user, version)
		}
		if err != nil {
			return AccountConfig{}, err
		}
		if c.AuthorizedKeys, err = h.keysFiles(ctx, c.Config, account, version); err != nil {
			return AccountConfig{}, err
		}
		c.Unseen = unseen(c.Config)
	}
	h.mu.Lock()
	h.configs[user] = c
	h.mu.Unlock()
	return c, nil
}

// otherKeysFile is where Dropbear and TinySSH look for an account's keys.
func otherKeysFile(s Sshd, a Account) string {
	dir := a.Home + "/.ssh"
	if at := slices.Index(s.Options, "-D"); s.Kind == "dropbear" && at >= 0 && at+1 < len(s.Options) {
		dir = s.Options[at+1]
		if rest, ok := strings.CutPrefix(dir, "~"); ok {
			dir = a.Home + rest
		}
	}
	return dir + "/authorized_keys"
}

// askSshd has the server's own program print its configuration for our
// connection. A Conflict means that it would not.
func (h *Host) askSshd(ctx context.Context, s Sshd, user string, banner trust.ServerVersion) (trust.SSHDConfig, trust.ServerVersion, error) {
	client, server, port := h.endpoints()
	spec := fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%d", user, client, client, server, port)
	lines, err := h.run(ctx, call{op: opConfig, as: h.strongest(), args: append([]string{s.Binary, spec}, s.Options...)})
	if refused, ok := err.(*refusal); ok {
		return trust.SSHDConfig{}, banner, trust.Errorf(trust.Conflict, "%s does not tell its configuration to this login: %s", s.Binary, firstLine([]byte(refused.detail)))
	}
	if err != nil {
		return trust.SSHDConfig{}, banner, err
	}
	var text strings.Builder
	for _, l := range lines {
		switch l.word {
		case "set":
			text.WriteString(l.rest + "\n")
		case "version":
			// "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0": the program on disk, which
			// is who answered; the banner is of the one that is running.
			program, _, _ := strings.Cut(l.rest, ",")
			if v, err := trust.ParseServerVersion("SSH-2.0-" + program); err == nil {
				banner = v
			}
		}
	}
	cfg, err := trust.ParseSSHDConfig([]byte(text.String()))
	return cfg, banner, err
}

// endpoints returns the two ends of our connection as the host sees them, or
// loopback where it does not say.
func (h *Host) endpoints() (client, server string, port int) {
	client, server, port = "127.0.0.1", "127.0.0.1", 22
	if len(h.connection) == 4 {
		client, server = h.connection[0], h.connection[2]
		if n, err := strconv.Atoi(h.connection[3]); err == nil {
			port = n
		}
	}
	return client, server, port
}

// evaluate reads the server's configuration and what it includes, and evaluates
// it for our connection.
func (h *Host) evaluate(ctx context.Context, s Sshd, user string, v trust.ServerVersion) (trust.SSHDConfig, error) {
	source := trust.SSHDSource{Main: trust.ConfigFile{Path: "/etc/ssh/sshd_config"}, Includes: map[string][]trust.ConfigFile{}}
	for i := 0; i+1 < len(s.Options); i += 2 {
		switch s.Options[i] {
		case "-f":
			source.Main.Path = s.Options[i+1]
		case "-o":
			source.Options = append(source.Options, s.Options[i+1])
		}
	}
	main, err := h.configFile(ctx, source.Main.Path)
	if err != nil {
		return trust.SSHDConfig{}, err
	}
	source.Main = main
	groups, _, err := h.lookup(ctx, user, nil)
	if err != nil {
		return trust.SSHDConfig{}, err
	}
	const maxRounds = 20 // deeper than sshd includes
	for range maxRounds {
		missing, err := source.Missing(v)
		if err != nil {
			return trust.SSHDConfig{}, err
		}
		if len(missing) == 0 {
			break
		}
		_, found, err := h.lookup(ctx, user, missing)
		if err != nil {
			return trust.SSHDConfig{}, err
		}
		for i, pattern := range missing {
			source.Includes[pattern] = []trust.ConfigFile{}
			for _, p := range found[i] {
				f, err := h.configFile(ctx, p)
				if err != nil {
					return trust.SSHDConfig{}, err
				}
				source.Includes[pattern] = append(source.Includes[pattern], f)
			}
		}
	}
	client, server, port := h.endpoints()
	conn := trust.SSHDConnection{User: user, Groups: groups, Host: client, LocalPort: port}
	if conn.Addr, err = netip.ParseAddr(client); err != nil {
		return trust.SSHDConfig{}, trust.Errorf(trust.Conflict, "%s sees our address as %q", h.name, client)
	}
	if conn.LocalAddr, err = netip.ParseAddr(server); err != nil {
		return trust.SSHDConfig{}, trust.Errorf(trust.Conflict, "%s sees its address as %q", h.name, server)
	}
	return source.Evaluate(v, conn)
}

// configFile reads one file of a server's configuration. What cannot be read may
// say anything, so that nothing is known then.
func (h *Host) configFile(ctx context.Context, path string) (trust.ConfigFile, error) {
	files, err := h.Files(ctx, h.login, []string{path})
	if err != nil {
		return trust.ConfigFile{}, err
	}
	if f := files[0]; f.Unreadable || f.Absent {
		return trust.ConfigFile{}, trust.Errorf(trust.Denied, "%s:%s cannot be read, and decides which keys the server takes", h.name, path).
			WithHint("set become for that host to sudo or doas, or log in as root")
	}
	return trust.ConfigFile{Path: path, Content: files[0].Content}, nil
}

// lookup returns the groups of user, and the files that each pattern matches.
func (h *Host) lookup(ctx context.Context, user string, patterns []string) (groups []string, found [][]string, err error) {
	lines, err := h.run(ctx, call{op: opLookup, as: h.strongest(), args: append([]string{user}, patterns...)})
	if err != nil {
		return nil, nil, h.fail(err, "")
	}
	found = make([][]string, len(patterns))
	at := -1
	for _, l := range lines {
		switch l.word {
		case "groups":
			groups = strings.Fields(l.rest)
		case "pattern":
			at++
		case "path":
			if at >= 0 && at < len(found) {
				found[at] = append(found[at], l.rest)
			}
		}
	}
	return groups, found, nil
}

// keysFiles returns the files that are searched for an account's keys, in order
// and each once.
func (h *Host) keysFiles(ctx context.Context, cfg trust.SSHDConfig, a Account, v trust.ServerVersion) ([]string, error) {
	paths, err := cfg.AuthorizedKeysPaths(trust.Account{User: a.User, UID: a.UID, Home: a.Home})
	if err != nil {
		return nil, err
	}
	var files []string
	for _, p := range paths {
		names := []string{path.Clean(p.Path)}
		if p.Glob && v.AtLeast(10, 0) {
			_, found, err := h.lookup(ctx, a.User, []string{p.Path})
			if err != nil {
				return nil, err
			}
			names = found[0]
		}
		for _, n := range names {
			if !slices.Contains(files, n) {
				files = append(files, n)
			}
		}
	}
	return files, nil
}

// unseen says which trust a configuration has that lies in no file of keys.
func unseen(c trust.SSHDConfig) []string {
	var list []string
	if c.AuthorizedKeysCommand != "" {
		list = append(list, "keys come from AuthorizedKeysCommand "+c.AuthorizedKeysCommand+", too")
	}
	if c.TrustedUserCAKeys != "" {
		list = append(list, "certificates of the authorities in "+c.TrustedUserCAKeys+" let people in, too")
	}
	if !c.PubkeyAuthentication {
		list = append(list, "PubkeyAuthentication is off: no key lets anybody in")
	}
	return list
}

// A Use is a login with a key, as the host's log has it.
type Use struct {
	At     time.Time
	User   string
	Source string // the client's address
}

// Uses returns the logins with a key to user's account since a time, as far as
// the host's log tells. known says whether it has a log that we may read.
func (h *Host) Uses(ctx context.Context, user string, key trust.Fingerprint, since time.Time) (uses []Use, known bool, err error) {
	// The host's clock says when, and it may be ahead of ours or behind.
	since = since.Add(h.skew).Truncate(time.Second)
	lines, err := h.run(ctx, call{op: opUses, as: h.strongest(), args: []string{string(key), strconv.FormatInt(since.Unix(), 10)}})
	if err != nil {
		return nil, false, h.fail(err, "")
	}
	zone := time.UTC
	for _, l := range lines {
		switch l.word {
		case "zone":
			if t, err := time.Parse("-0700", l.rest); err == nil {
				zone = t.Location()
			}
		case "log":
			known = true
		case "use":
			u, ok := parseUse(l.rest, since, zone)
			if ok && u.User == user && !u.At.Before(since) {
				uses = append(uses, u)
			}
		}
	}
	return uses, known, nil
}

// parseUse reads a log line of sshd, "... Accepted publickey for USER from ADDRESS
// port N ssh2: TYPE SHA256:...", behind any of the three usual kinds of time.
func parseUse(text string, since time.Time, zone *time.Location) (Use, bool) {
	_, rest, ok := strings.Cut(text, "Accepted publickey for ")
	if !ok {
		return Use{}, false
	}
	f := strings.Fields(rest)
	if len(f) < 3 || f[1] != "from" {
		return Use{}, false
	}
	at, ok := logTime(text, since, zone)
	return Use{At: at, User: f[0], Source: f[2]}, ok
}

// logTime reads the time at the beginning of a log line: seconds since 1970
// (journalctl), RFC 3339, or "Jan _2 15:04:05" without a year, which then is the
// one closest to since.
func logTime(text string, since time.Time, zone *time.Location) (time.Time, bool) {
	first, _, _ := strings.Cut(text, " ")
	if seconds, err := strconv.ParseFloat(first, 64); err == nil {
		return time.UnixMicro(int64(seconds * 1e6)).UTC(), true
	}
	if t, err := time.Parse(time.RFC3339Nano, first); err == nil {
		return t.UTC(), true
	}
	if len(text) < len(time.Stamp) {
		return time.Time{}, false
	}
	t, err := time.ParseInLocation(time.Stamp, text[:len(time.Stamp)], zone)
	if err != nil {
		return time.Time{}, false
	}
	t = t.AddDate(since.Year(), 0, 0)
	if t.Before(since.AddDate(0, -6, 0)) {
		t = t.AddDate(1, 0, 0)
	}
	return t.UTC(), true
}
