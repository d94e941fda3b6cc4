package trust

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// This file evaluates sshd_config for one connection as servconf.c does, for
// hosts where "sshd -T" may not be run.
//
// sshd reads its configuration twice. First without a connection: every
// directive outside Match, and below "Match all", is taken; of most keywords the
// first value holds. Then, for the connection, only what stands below a Match
// that matches is taken, again the first value of each keyword; and what was
// found so replaces what the first reading found.

// A ConfigFile is a file of sshd's configuration.
type ConfigFile struct {
	Path    string
	Content []byte
}

// An SSHDSource is all text that sshd's configuration is made of.
type SSHDSource struct {
	Main ConfigFile
	// Options are the arguments of -o on sshd's command line, such as
	// "Port=2222". They precede the file.
	Options []string
	// Includes holds, for each pattern that Missing named, the files that it
	// matches on the host, in the order of glob(3); an empty list: none.
	Includes map[string][]ConfigFile
	// Dir is what relative patterns of Include are relative to; "" is
	// /etc/ssh.
	Dir string
}

// An SSHDConnection is what Match can ask of a connection.
type SSHDConnection struct {
	User string
	// Groups are the names of the groups of User on the host.
	Groups []string
	// InvalidUser: the host has no account User.
	InvalidUser bool
	// Host is the client's resolved name, or its address where the server
	// does not look names up; "" is Addr.
	Host            string
	Addr, LocalAddr netip.Addr
	LocalPort       int
	RDomain         string
}

// Limits of an SSHDSource: sshd's own on depth, and ours on the work.
const (
	maxIncludeDepth = 16
	maxDirectives   = 100_000
)

// Missing returns the patterns of files that Include directives name and that
// are not in Includes yet. Callers look them up, add them, and ask again until
// there are none, since included files may include.
func (s SSHDSource) Missing(v ServerVersion) ([]string, error) {
	e := evaluator{source: s, version: v, collect: true}
	err := e.file(s.Main, 0)
	return e.missing, err
}

// ByOrigin returns what says whose keys let people in, and says so for some addresses,
// names or ports only that a connection comes from or arrives at: each directive, with its
// Match. What sshd tells of one connection may not be so for another.
func (s SSHDSource) ByOrigin(v ServerVersion) ([]string, error) {
	e := evaluator{source: s, version: v, survey: true}
	err := e.file(s.Main, 0)
	return e.byOrigin, err
}

// Evaluate returns the configuration of one connection on a server of version
// v. It fails, with Invalid, where sshd would refuse the text as far as it can
// be judged: unknown keywords are kept and taken for a distribution's own.
func (s SSHDSource) Evaluate(v ServerVersion, c SSHDConnection) (SSHDConfig, error) {
	c.Addr, c.LocalAddr = c.Addr.Unmap(), c.LocalAddr.Unmap()
	if c.Host == "" && c.Addr.IsValid() {
		c.Host = c.Addr.String()
	}
	global := evaluator{source: s, version: v, active: true, settings: map[string][]string{}}
	for _, option := range s.Options {
		if err := global.directive(option, 0); err != nil {
			return SSHDConfig{}, err
		}
	}
	if err := global.file(s.Main, 0); err != nil {
		return SSHDConfig{}, err
	}
	matched := evaluator{source: s, version: v, conn: &c, matchOnly: true, settings: map[string][]string{}}
	if err := matched.file(s.Main, 0); err != nil {
		return SSHDConfig{}, err
	}
	settings := sshdDefaults(v)
	maps.Copy(settings, global.settings)
	maps.Copy(settings, matched.settings)
	settings["pubkeyacceptedalgorithms"] = []string{assembleAlgorithms(settings["pubkeyacceptedalgorithms"], v)}
	return newSSHDConfig(settings), nil
}

// An evaluator is one reading of a configuration.
type evaluator struct {
	source   SSHDSource
	version  ServerVersion
	conn     *SSHDConnection // nil: the reading without a connection
	settings map[string][]string
	// active: directives apply at this point.
	active bool
	// matchOnly: no Match was met yet in the reading for a connection.
	// neverMatch: an Include below a Match that does not match.
	matchOnly, neverMatch bool
	collect               bool
	missing               []string
	directives            int

	// survey: the reading of ByOrigin. origin says that the Match that was read last asks
	// where a connection comes from or arrives at; block and around are such a Match, above
	// what is read and around an Include, or "".
	survey, origin bool
	block, around  string
	byOrigin       []string
}

// file reads the lines of f.
func (e *evaluator) file(f ConfigFile, depth int) error {
	if depth > maxIncludeDepth {
		return Errorf(Invalid, "too many nested Include directives at %q", f.Path)
	}
	number := 0
	for line := range strings.SplitSeq(string(f.Content), "\n") {
		number++
		if e.directives++; e.directives > maxDirectives {
			return Errorf(Exhausted, "sshd's configuration has more than %d lines", maxDirectives)
		}
		line = strings.TrimLeft(visible(line), " \t\r")
		if err := e.directive(line, depth); err != nil {
			return Errorf(Invalid, "%s line %d: %w", f.Path, number, err)
		}
	}
	return nil
}

// directive reads one line (process_server_config_line_depth).
func (e *evaluator) directive(line string, depth int) error {
	if !e.version.AtLeast(8, 7) {
		line, _, _ = strings.Cut(line, "#") // even within quotes
	}
	d := delimited{rest: strings.TrimRight(line, configSpace+"\f")}
	keyword, ok := d.next()
	if ok && keyword == "" {
		keyword, ok = d.next()
	}
	if !ok || keyword == "" || keyword[0] == '#' {
		return nil
	}
	if d.ended || d.rest == "" {
		if !e.version.AtLeast(8, 7) {
			return nil // which of these those releases refused differs by keyword
		}
		return Errorf(Invalid, "no argument after keyword %q", keyword)
	}
	args, err := splitArguments(d.rest, e.version)
	if err != nil {
		return err
	}
	keyword = canonicalKeyword(keyword)
	if keyword == "challengeresponseauthentication" && e.version.AtLeast(8, 7) {
		keyword = "kbdinteractiveauthentication"
	}
	switch keyword {
	case "include":
		return e.include(args, depth)
	case "match":
		if e.collect {
			return nil
		}
		e.origin = false
		matches, err := e.match(d.rest, args)
		if e.block = e.around; e.origin {
			e.block = d.rest
		}
		e.active = matches && !e.neverMatch
		e.matchOnly = false
		return err
	}
	if e.survey && e.block != "" && slices.Contains([]string{"authorizedkeysfile", "authorizedkeyscommand", "trustedusercakeys"}, keyword) {
		e.byOrigin = append(e.byOrigin, line+" (Match "+e.block+")")
	}
	if e.collect || e.survey {
		return nil
	}
	rule, known := sshdKeywords[keyword]
	if !known {
		rule.kind = restOf
	}
	if !e.active {
		if rule.global && e.conn == nil {
			return Errorf(Invalid, "directive %q is not allowed within a Match block", keyword)
		}
		return nil
	}
	if rule.global && e.conn != nil {
		return nil // below "Match all", where the first reading took it
	}
	if len(args) == 0 && rule.kind != restOf && rule.kind != eachWord {
		if !e.version.AtLeast(8, 7) {
			return nil
		}
		return Errorf(Invalid, "no argument after keyword %q", keyword)
	}
	e.set(keyword, rule.kind, d.rest, args)
	return nil
}

func (e *evaluator) set(keyword string, kind keywordKind, rest string, args []string) {
	have := e.settings[keyword]
	if keyword == "authorizedprincipalscommand" && e.version.AtLeast(8, 7) && !e.version.AtLeast(9, 4) {
		// From 8.7 to 9.3 a line of it counts only where AuthorizedKeysCommand
		// has none yet, and then replaces one before it.
		if len(e.settings["authorizedkeyscommand"]) > 0 {
			return
		}
		have = nil
	}
	switch kind {
	case oneWord:
		if len(have) == 0 {
			e.settings[keyword] = []string{configValue(keyword, args[0])}
		}
	case restOf:
		if len(have) == 0 {
			e.settings[keyword] = []string{rest}
		}
	case words:
		if len(have) == 0 {
			for _, a := range args {
				e.settings[keyword] = append(e.settings[keyword], configValue(keyword, a))
			}
		}
	case eachWord:
		e.settings[keyword] = append(have, args...)
	case eachFirst:
		e.settings[keyword] = append(have, configValue(keyword, args[0]))
	case eachLine:
		e.settings[keyword] = append(have, strings.Join(args, " "))
	}
}

// configValue returns the value that sshd keeps of an argument: names of files
// are made absolute, as for a server that was started in / by root.
func configValue(keyword, value string) string {
	home := func(path string) string {
		if path == "~" || strings.HasPrefix(path, "~/") {
			return "/root" + path[1:]
		}
		return path
	}
	switch keyword {
	case "authorizedkeysfile", "authorizedprincipalsfile":
		return home(value)
	case "trustedusercakeys", "revokedkeys", "hostkey", "hostcertificate", "pidfile":
		if strings.EqualFold(value, "none") {
			return "none"
		}
		if value = home(value); !strings.HasPrefix(value, "/") {
			value = "/" + value
		}
	case "permitrootlogin", "pubkeyauthentication", "strictmodes", "usepam", "usedns",
		"passwordauthentication", "kbdinteractiveauthentication", "hostbasedauthentication":
		value = lowerASCII(value)
	}
	return value
}

// include reads the files that the patterns of an Include match.
func (e *evaluator) include(args []string, depth int) error {
	if len(args) == 0 {
		return Errorf(Invalid, "Include lacks a file name")
	}
	for _, pattern := range args {
		if pattern == "" {
			return Errorf(Invalid, "Include has an empty argument")
		}
		if pattern[0] != '/' && pattern[0] != '~' {
			dir := e.source.Dir
			if dir == "" {
				dir = "/etc/ssh"
			}
			pattern = dir + "/" + pattern
		}
		files, known := e.source.Includes[pattern]
		if !known {
			if e.collect {
				if !slices.Contains(e.missing, pattern) {
					e.missing = append(e.missing, pattern)
				}
				continue
			}
			return Errorf(Invalid, "the files of Include %q are not known", pattern)
		}
		for _, f := range files {
			if err := e.included(f, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

// included reads one included file. Its Match blocks do not change the state of
// the file that includes it.
func (e *evaluator) included(f ConfigFile, depth int) error {
	active, matchOnly, neverMatch, block, around := e.active, e.matchOnly, e.neverMatch, e.block, e.around
	e.neverMatch, e.around = !matchOnly && !active, block
	err := e.file(f, depth+1)
	e.active, e.matchOnly, e.neverMatch, e.block, e.around = active, matchOnly, neverMatch, block, around
	return err
}

// sshdDefaults returns what an OpenSSH of version v has without configuration,
// of the keywords that SSHDConfig has fields for (fill_default_server_options).
// Distributions change some by their sshd_config, few in the program.
func sshdDefaults(v ServerVersion) map[string][]string {
	hostKeys := []string{"/etc/ssh/ssh_host_rsa_key"}
	if !v.AtLeast(7, 6) {
		hostKeys = append(hostKeys, "/etc/ssh/ssh_host_dsa_key")
	}
	hostKeys = append(hostKeys, "/etc/ssh/ssh_host_ecdsa_key", "/etc/ssh/ssh_host_ed25519_key")
	if v.AtLeast(10, 4) {
		hostKeys = append(hostKeys, "/etc/ssh/ssh_host_mldsa44_ed25519_key")
	}
	root, dns := "prohibit-password", "no"
	if !v.AtLeast(7, 0) {
		root = "yes"
	}
	if !v.AtLeast(6, 8) {
		dns = "yes"
	}
	penalties := "no"
	if v.AtLeast(9, 8) {
		penalties = "yes"
	}
	settings := map[string][]string{
		"persourcepenalties":           {penalties},
		"authorizedkeysfile":           {".ssh/authorized_keys", ".ssh/authorized_keys2"},
		"hostkey":                      hostKeys,
		"port":                         {"22"},
		"pidfile":                      {"/var/run/sshd.pid"},
		"pubkeyauthentication":         {"yes"},
		"passwordauthentication":       {"yes"},
		"kbdinteractiveauthentication": {"yes"},
		"hostbasedauthentication":      {"no"},
		"permitrootlogin":              {root},
		"permituserenvironment":        {"no"},
		"strictmodes":                  {"yes"},
		"usepam":                       {"no"},
		"usedns":                       {dns},
		"maxauthtries":                 {"6"},
		"loglevel":                     {"INFO"},
	}
	if v.AtLeast(9, 1) {
		settings["requiredrsasize"] = []string{"1024"}
	}
	if !v.AtLeast(8, 7) {
		// Until then there were two keywords, the second of which decides.
		settings["kbdinteractiveauthentication"] = nil
		settings["challengeresponseauthentication"] = []string{"yes"}
	}
	return settings
}

// publicKeyAlgorithms are the algorithms that OpenSSH can offer for user keys,
// with the releases of which each is on by default ({0, 0}: all).
var publicKeyAlgorithms = []struct {
	name        string
	from, until [2]int
}{
	{"ssh-ed25519-cert-v01@openssh.com", [2]int{6, 5}, [2]int{}},
	{"ecdsa-sha2-nistp256-cert-v01@openssh.com", [2]int{6, 0}, [2]int{}},
	{"ecdsa-sha2-nistp384-cert-v01@openssh.com", [2]int{6, 0}, [2]int{}},
	{"ecdsa-sha2-nistp521-cert-v01@openssh.com", [2]int{6, 0}, [2]int{}},
	{"sk-ssh-ed25519-cert-v01@openssh.com", [2]int{8, 2}, [2]int{}},
	{"sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", [2]int{8, 2}, [2]int{}},
	{"webauthn-sk-ecdsa-sha2-nistp256-cert-v01@openssh.com", [2]int{10, 3}, [2]int{}},
	{"ssh-mldsa44-ed25519-cert", [2]int{10, 6}, [2]int{}},
	{"rsa-sha2-512-cert-v01@openssh.com", [2]int{7, 8}, [2]int{}},
	{"rsa-sha2-256-cert-v01@openssh.com", [2]int{7, 8}, [2]int{}},
	{"ssh-rsa-cert-v01@openssh.com", [2]int{5, 6}, [2]int{8, 8}},
	{"ssh-dss-cert-v01@openssh.com", [2]int{5, 6}, [2]int{7, 0}},
	{"ssh-ed25519", [2]int{6, 5}, [2]int{}},
	{"ecdsa-sha2-nistp256", [2]int{5, 7}, [2]int{}},
	{"ecdsa-sha2-nistp384", [2]int{5, 7}, [2]int{}},
	{"ecdsa-sha2-nistp521", [2]int{5, 7}, [2]int{}},
	{"sk-ssh-ed25519@openssh.com", [2]int{8, 2}, [2]int{}},
	{"sk-ecdsa-sha2-nistp256@openssh.com", [2]int{8, 2}, [2]int{}},
	{"webauthn-sk-ecdsa-sha2-nistp256@openssh.com", [2]int{10, 3}, [2]int{}},
	{"ssh-mldsa44-ed25519", [2]int{10, 6}, [2]int{}},
	{"rsa-sha2-512", [2]int{7, 2}, [2]int{}},
	{"rsa-sha2-256", [2]int{7, 2}, [2]int{}},
	{"ssh-rsa", [2]int{}, [2]int{8, 8}},
	{"ssh-dss", [2]int{}, [2]int{7, 0}},
}

// assembleAlgorithms applies a value of PubkeyAcceptedAlgorithms to the default
// list: "+" adds, "-" removes, "^" puts in front (kex_assemble_names).
func assembleAlgorithms(value []string, v ServerVersion) string {
	var defaults []string
	for _, a := range publicKeyAlgorithms {
		if v.AtLeast(a.from[0], a.from[1]) && (a.until == [2]int{} || !v.AtLeast(a.until[0], a.until[1])) {
			defaults = append(defaults, a.name)
		}
	}
	if len(value) == 0 || value[0] == "" {
		return strings.Join(defaults, ",")
	}
	list := strings.Split(strings.TrimLeft(value[0], "+-^"), ",")
	switch value[0][0] {
	case '-':
		return strings.Join(slices.DeleteFunc(defaults, func(a string) bool {
			return matchPatternList(a, strings.Join(list, ","), false) == matchYes
		}), ",")
	case '+':
		list = append(defaults, list...)
	case '^':
		list = append(list, defaults...)
	}
	var names []string
	for _, pattern := range list {
		matched := []string{pattern}
		if strings.ContainsAny(pattern, "*?") {
			matched = nil
			for _, a := range publicKeyAlgorithms {
				if MatchPattern(a.name, pattern) {
					matched = append(matched, a.name)
				}
			}
		}
		for _, name := range matched {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	return strings.Join(names, ",")
}
