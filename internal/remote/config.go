package remote

import (
	"context"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"keyturn/internal/trust"
)

// An AccountConfig is where the server that serves us looks for an account's keys,
// and how.
type AccountConfig struct {
	// AuthorizedKeys are the absolute paths that are searched, in order and each
	// once. A file need not exist.
	AuthorizedKeys []string
	// Config is the configuration of a connection of ours for that account.
	Config trust.SSHDConfig
	// Unseen says of each source of trust that is in no such file what it is.
	Unseen []string
	// Evaluated says why the server did not tell its configuration itself, so
	// that its files were read and evaluated by us, or why it may have been asked
	// about another one than it runs with; or is empty.
	Evaluated string
}

// AccountConfig finds out where the server that serves us looks for the keys of
// user. It asks once per connection and account.
func (h *Host) AccountConfig(ctx context.Context, user string) (AccountConfig, error) {
	h.mu.Lock()
	c, known := h.configs[user]
	h.mu.Unlock()
	if known {
		return c, nil
	}
	account, s, err := h.accountAndSshd(ctx, user)
	if err != nil {
		return AccountConfig{}, err
	}
	var version trust.ServerVersion
	if c.Config, version, c.Evaluated, err = h.ask(ctx, s, h.connectionOf(user, netip.Addr{})); err != nil {
		return AccountConfig{}, err
	}
	if c.AuthorizedKeys, err = h.keysFiles(ctx, c.Config, account, version); err != nil {
		return AccountConfig{}, err
	}
	if len(s.Unread) > 0 && c.Evaluated == "" {
		c.Evaluated = fmt.Sprintf("%s gives %s options that are not known: %s may not be read", s.Unit, s.Binary, strings.Join(s.Unread, ", "))
	}
	c.Unseen = unseen(c.Config)
	h.mu.Lock()
	h.configs[user] = c
	h.mu.Unlock()
	return c, nil
}

// accountAndSshd returns what account and Sshd do, by one request where neither is
// known yet, as on a new connection.
func (h *Host) accountAndSshd(ctx context.Context, user string) (account Account, s Sshd, err error) {
	h.mu.Lock()
	_, known := h.accounts[user]
	known = known || h.sshd != nil
	h.mu.Unlock()
	if known || checkUser(user) != nil {
		if account, err = h.account(ctx, user); err == nil {
			s, err = h.Sshd(ctx)
		}
		return account, s, err
	}
	answers, err := h.runAll(ctx, h.listing(user), call{op: opSshd, as: h.strongest()})
	if err == nil {
		account, err = h.readAccount(answers[0], user)
	}
	if err == nil {
		s, err = h.readSshd(ctx, answers[1])
	}
	return account, s, err
}

// AskAhead asks the server what AccountConfig of each of the users is going to need, in
// few requests where that asks one by one.
func (h *Host) AskAhead(ctx context.Context, users []string) error {
	s, err := h.Sshd(ctx)
	if err != nil || s.Family != trust.OpenSSH {
		return err
	}
	var calls []call
	for _, user := range users {
		calls = append(calls, h.configuring(s, h.connectionOf(user, netip.Addr{})))
	}
	answers, err := h.runAll(ctx, calls...)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.said = map[string]answer{}
	for i, c := range calls {
		h.said[c.args[1]] = answers[i]
	}
	return nil
}

// Config returns the configuration that a server applies to a login of user from a
// source address, or from ours if that is the zero Addr. sshd is asked itself,
// started with the same options; where it will not say, its files are read and
// evaluated here.
func (h *Host) Config(ctx context.Context, s Sshd, user string, source netip.Addr) (trust.SSHDConfig, error) {
	config, _, _, err := h.ask(ctx, s, h.connectionOf(user, source))
	return config, err
}

// ask returns the configuration for a connection, the version of the program that
// has it, and why it was not the program that told it, if so.
func (h *Host) ask(ctx context.Context, s Sshd, conn trust.SSHDConnection) (config trust.SSHDConfig, version trust.ServerVersion, evaluated string, err error) {
	version = h.announced()
	if s.Family != trust.OpenSSH {
		return fixedConfig(s), version, "", nil
	}
	c := h.configuring(s, conn)
	h.mu.Lock()
	a, known := h.said[c.args[1]]
	delete(h.said, c.args[1])
	h.mu.Unlock()
	if !known {
		answers, err := h.runAll(ctx, c)
		if err != nil {
			return config, version, "", err
		}
		a = answers[0]
	}
	if a.no != nil {
		config, err = h.evaluate(ctx, s, conn, version, a.lines, a.no)
		return config, version, fmt.Sprintf("%s does not tell its configuration: %s", s.Binary, a.no.Error()), err
	}
	var text strings.Builder
	for _, l := range a.lines {
		switch l.word {
		case "set":
			text.WriteString(l.rest + "\n")
		case "version":
			// The program on the disk has answered; the banner is of the one
			// that runs. "OpenSSH_9.2p1 Debian-2, OpenSSL 3.0".
			program, _, _ := strings.Cut(l.rest, ",")
			if at := strings.Index(program, "OpenSSH_"); at >= 0 {
				if v, err := trust.ParseServerVersion(program[at:]); err == nil {
					version = v
				}
			}
		}
	}
	config, err = trust.ParseSSHDConfig([]byte(text.String()))
	if err != nil {
		return config, version, "", trust.Errorf(trust.Conflict, "%s: %s -T: %w", h.name, s.Binary, err)
	}
	if slices.ContainsFunc(a.lines, func(l line) bool { return l.word == "file" }) {
		evaluated, err = h.separate(ctx, s, conn, version, a.lines, &config)
	}
	return config, version, evaluated, err
}

// separate tells the names of key files in a configuration apart as its files do: one
// may have blanks, and the server prints no quotes. Where they cannot be, it returns why.
func (h *Host) separate(ctx context.Context, s Sshd, conn trust.SSHDConnection, version trust.ServerVersion, lines []line, config *trust.SSHDConfig) (why string, err error) {
	said := strings.Join(config.AuthorizedKeysFile, " ")
	own, err := h.evaluate(ctx, s, conn, version, lines, &refusal{"ambiguous", fmt.Sprintf("AuthorizedKeysFile %s", said)})
	switch {
	case trust.KindOf(err) == trust.Unavailable:
		return "", err
	case err != nil:
		return fmt.Sprintf("%s prints AuthorizedKeysFile %s without quotes, and its files cannot be read: a name with a blank is taken for several", s.Binary, said), nil
	case strings.Join(strings.Fields(strings.Join(own.AuthorizedKeysFile, " ")), " ") != said:
		return fmt.Sprintf("%s prints AuthorizedKeysFile %s without quotes, and its files say otherwise: a name with a blank is taken for several", s.Binary, said), nil
	}
	config.AuthorizedKeysFile = own.AuthorizedKeysFile
	return "", nil
}

// configuring is a call of op config.
func (h *Host) configuring(s Sshd, conn trust.SSHDConnection) call {
	c := call{op: opConfig, as: h.strongest(), args: []string{s.Binary, fmt.Sprintf("user=%s,host=%s,addr=%s,laddr=%s,lport=%d", conn.User, conn.Addr, conn.Addr, conn.LocalAddr, conn.LocalPort)}}
	for i := 0; i < len(s.Options); i++ {
		option := s.Options[i]
		switch {
		case slices.Contains([]string{"-f", "-o", "-h", "-c", "-p", "-g", "-u"}, option) && i+1 < len(s.Options):
			i++
			c.args = append(c.args, option, s.Options[i])
		case option == "-4" || option == "-6":
			c.args = append(c.args, option)
		}
	}
	return c
}

// connectionOf returns a login as Match blocks see it: from where the host sees us
// come, or from source.
func (h *Host) connectionOf(user string, source netip.Addr) trust.SSHDConnection {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	c := trust.SSHDConnection{User: user, Addr: loopback, LocalAddr: loopback, LocalPort: 22}
	if len(h.connection) == 4 {
		for i, to := range map[int]*netip.Addr{0: &c.Addr, 2: &c.LocalAddr} {
			if addr, err := netip.ParseAddr(h.connection[i]); err == nil {
				*to = addr.Unmap().WithZone("")
			}
		}
		if port, err := strconv.Atoi(h.connection[3]); err == nil {
			c.LocalPort = port
		}
	}
	if source.IsValid() {
		c.Addr = source.Unmap().WithZone("")
	}
	return c
}

// evaluate reads sshd's files and evaluates them here. lines are the answer in which
// it did not do so itself, and said is why.
func (h *Host) evaluate(ctx context.Context, s Sshd, conn trust.SSHDConnection, version trust.ServerVersion, lines []line, said *refusal) (trust.SSHDConfig, error) {
	give := func(err error) (trust.SSHDConfig, error) {
		if trust.KindOf(err) == trust.Unavailable {
			return trust.SSHDConfig{}, err
		}
		return trust.SSHDConfig{}, trust.Errorf(trust.Denied, "%s: sshd does not tell its configuration (%s), and it cannot be read either: %w", h.name, said.Error(), err).
			WithHint("set become for that host to sudo or doas")
	}
	source, groups, err := h.source(ctx, s, conn.User, version, lines)
	if err != nil {
		return give(err)
	}
	conn.Groups = groups
	_, err = h.account(ctx, conn.User)
	if conn.InvalidUser = trust.KindOf(err) == trust.NotFound; err != nil && !conn.InvalidUser {
		return give(err)
	}
	config, err := source.Evaluate(version, conn)
	if err != nil {
		return give(err)
	}
	return config, nil
}

// source reads the files of a server's configuration, and with that the groups of user.
// lines are of an answer that may say which is the first.
func (h *Host) source(ctx context.Context, s Sshd, user string, version trust.ServerVersion, lines []line) (source trust.SSHDSource, groups []string, err error) {
	var main string
	for _, l := range lines {
		if l.word == "file" {
			main = l.rest
		}
	}
	source.Includes = map[string][]trust.ConfigFile{}
	for i := 0; i+1 < len(s.Options); i++ {
		switch s.Options[i] {
		case "-f":
			main = s.Options[i+1]
		case "-o":
			source.Options = append(source.Options, s.Options[i+1])
		}
	}
	if main == "" {
		return source, nil, trust.Errorf(trust.NotFound, "it does not say which file it reads")
	}
	if source.Main, err = h.configFile(ctx, main); err != nil {
		return source, nil, err
	}
	if groups, _, err = h.lookup(ctx, user, nil); err != nil {
		return source, nil, err
	}
	const deeper = 20 // than sshd includes
	for range deeper {
		missing, err := source.Missing(version)
		if err != nil || len(missing) == 0 {
			return source, groups, err
		}
		_, found, err := h.lookup(ctx, user, missing)
		if err != nil {
			return source, nil, err
		}
		for i, pattern := range missing {
			source.Includes[pattern] = []trust.ConfigFile{}
			for _, p := range found[i] {
				f, err := h.configFile(ctx, p)
				if err != nil {
					return source, nil, err
				}
				source.Includes[pattern] = append(source.Includes[pattern], f)
			}
		}
	}
	return source, groups, nil
}

// ByOrigin returns what says whose keys let people in, and says so only for some
// addresses, names or ports that a connection comes from or arrives at: AccountConfig is
// of our own. It reads the files of the configuration; what keeps it from that is an
// error, Unavailable where it is not known and Denied or NotFound where they cannot be read.
func (h *Host) ByOrigin(ctx context.Context) ([]string, error) {
	s, err := h.Sshd(ctx)
	if err != nil || s.Family != trust.OpenSSH {
		return nil, err
	}
	c := h.configuring(s, h.connectionOf(h.login, netip.Addr{}))
	lines, err := h.run(ctx, call{op: opMain, as: c.as, args: slices.Delete(c.args, 1, 2)})
	if err != nil {
		return nil, h.fail(err, "")
	}
	version := h.announced()
	source, _, err := h.source(ctx, s, h.login, version, lines)
	if err != nil {
		return nil, err
	}
	return source.ByOrigin(version)
}

// configFile reads one file of a server's configuration. What cannot be read may
// say anything, so that nothing is known then.
func (h *Host) configFile(ctx context.Context, path string) (trust.ConfigFile, error) {
	files, err := h.Files(ctx, h.login, []string{path})
	if err != nil {
		return trust.ConfigFile{}, err
	}
	if files[0].Content == nil {
		return trust.ConfigFile{}, trust.Errorf(trust.Denied, "%s may not be read by %s", path, h.login)
	}
	return trust.ConfigFile{Path: path, Content: files[0].Content}, nil
}

// lookup returns the groups of user, and the files that each pattern (glob(7))
// matches.
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

// keysFiles returns the files that are searched for an account's keys.
func (h *Host) keysFiles(ctx context.Context, config trust.SSHDConfig, a Account, version trust.ServerVersion) ([]string, error) {
	paths, err := config.AuthorizedKeysPaths(trust.Account{User: a.User, UID: a.UID, Home: a.Home})
	if err != nil {
		return nil, err
	}
	var files []string
	for _, p := range paths {
		names := []string{path.Clean(p.Path)}
		if p.Glob && version.AtLeast(10, 0) {
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

// fixedConfig returns what the small servers do, which have no configuration but
// their options.
func fixedConfig(s Sshd) trust.SSHDConfig {
	c := trust.SSHDConfig{
		AuthorizedKeysFile: []string{".ssh/authorized_keys"}, PubkeyAuthentication: true, StrictModes: true,
		PermitRootLogin: "yes",
	}
	if s.Family != trust.Dropbear {
		return c
	}
	c.PasswordAuthentication = !slices.Contains(s.Options, "-s")
	switch {
	case slices.Contains(s.Options, "-w"):
		c.PermitRootLogin = "no"
	case slices.Contains(s.Options, "-g"):
		c.PermitRootLogin = "prohibit-password"
	}
	for i := 0; i+1 < len(s.Options); i++ {
		switch s.Options[i] {
		case "-D": // a directory; relative is to the home, and "~/.ssh" the default
			c.AuthorizedKeysFile = []string{strings.TrimPrefix(s.Options[i+1], "~/") + "/authorized_keys"}
		case "-c":
			c.ForceCommand = s.Options[i+1]
		}
	}
	return c
}
