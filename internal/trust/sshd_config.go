package trust

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// An SSHDConfig is the configuration that sshd applies to one connection
// (sshd_config(5)). Fields hold what matters to whom the server trusts; Get
// returns the rest. Where sshd says "none", a field is empty.
type SSHDConfig struct {
	// AuthorizedKeysFile are patterns of files, in the order in which they are
	// searched; see AuthorizedKeysPaths.
	AuthorizedKeysFile []string
	// AuthorizedKeysCommand, with its arguments, is run as
	// AuthorizedKeysCommandUser where no file holds the key.
	AuthorizedKeysCommand, AuthorizedKeysCommandUser string
	TrustedUserCAKeys                                string
	// AuthorizedPrincipals*: which principals of certificates by
	// TrustedUserCAKeys open an account.
	AuthorizedPrincipalsFile                                     string
	AuthorizedPrincipalsCommand, AuthorizedPrincipalsCommandUser string
	// RevokedKeys are files (one before OpenSSH 10.3). One that cannot be read
	// refuses every key.
	RevokedKeys []string
	// HostKey may be empty: an sshd that cannot read its own and is given another
	// one to answer with does not say what it would use. Of several keys of one
	// type, the first is used and all are announced.
	HostKey, HostCertificate []string
	HostKeyAgent             string

	PubkeyAuthentication bool
	// PubkeyAcceptedAlgorithms are names or patterns of signature algorithms
	// (PubkeyAcceptedKeyTypes before 8.5).
	PubkeyAcceptedAlgorithms []string
	// CASignatureAlgorithms is empty where it was evaluated from text that does
	// not set it.
	CASignatureAlgorithms []string
	// RequiredRSASize is in bits; 0 before 9.1.
	RequiredRSASize int
	// PubkeyAuthOptions are such as "touch-required" and "verify-required".
	PubkeyAuthOptions []string
	// AuthenticationMethods are alternatives, each a comma-separated list of
	// methods that must all succeed; empty: any one method.
	AuthenticationMethods []string
	PasswordAuthentication, KbdInteractiveAuthentication,
	HostbasedAuthentication bool

	// PermitRootLogin is "yes", "prohibit-password", "forced-commands-only" or
	// "no".
	PermitRootLogin                                string
	AllowUsers, DenyUsers, AllowGroups, DenyGroups []string
	StrictModes, UsePAM, UseDNS                    bool
	ForceCommand, ChrootDirectory                  string
	PermitUserEnvironment                          string

	MaxAuthTries  int
	LogLevel      string
	PidFile       string
	Port          []int
	ListenAddress []string
	// PerSourcePenalties is empty where the server has none; "yes", or a list
	// of them, where a client that fails too often is shut out for a while.
	PerSourcePenalties         string
	PerSourcePenaltyExemptList string

	settings map[string][]string
}

// Get returns the values of a keyword, in any case, that the server has for
// this connection: one for each line of "sshd -T". It is empty where the
// keyword was not given, or the server does not know it.
func (c SSHDConfig) Get(keyword string) []string {
	return slices.Clone(c.settings[canonicalKeyword(keyword)])
}

// Keywords returns the names that Get knows here, in lower case and sorted.
func (c SSHDConfig) Keywords() []string { return slices.Sorted(maps.Keys(c.settings)) }

// How the arguments of a keyword are read, and what a second line of it means.
type keywordKind int

const (
	oneWord   keywordKind = iota // the first line's first word
	restOf                       // the first line's text, as it stands
	words                        // the first line's words
	eachWord                     // the words of all lines
	eachFirst                    // the first word of each line
	eachLine                     // the text of each line
)

// An sshdKeyword is what the evaluator must know of a keyword.
type sshdKeyword struct {
	kind keywordKind
	// global: it may not stand in a Match block.
	global bool
}

// sshdKeywords are the keywords that have a rule of their own. All others are
// read as restOf and may stand anywhere.
var sshdKeywords = map[string]sshdKeyword{
	"acceptenv":                       {kind: eachWord},
	"addressfamily":                   {global: true},
	"allowgroups":                     {kind: eachWord},
	"allowusers":                      {kind: eachWord},
	"authenticationmethods":           {kind: words},
	"authorizedkeyscommand":           {kind: restOf},
	"authorizedkeyscommanduser":       {},
	"authorizedkeysfile":              {kind: words},
	"authorizedprincipalscommand":     {kind: restOf},
	"authorizedprincipalscommanduser": {},
	"authorizedprincipalsfile":        {},
	"casignaturealgorithms":           {},
	"challengeresponseauthentication": {},
	"chrootdirectory":                 {},
	"ciphers":                         {global: true},
	"compression":                     {global: true},
	"denygroups":                      {kind: eachWord},
	"denyusers":                       {kind: eachWord},
	"fingerprinthash":                 {global: true},
	"forcecommand":                    {kind: restOf},
	"hostbasedauthentication":         {},
	"hostcertificate":                 {kind: eachFirst, global: true},
	"hostkey":                         {kind: eachFirst, global: true},
	"hostkeyagent":                    {global: true},
	"hostkeyalgorithms":               {global: true},
	"ignoreuserknownhosts":            {global: true},
	"kbdinteractiveauthentication":    {},
	"kexalgorithms":                   {global: true},
	"listenaddress":                   {kind: eachLine, global: true},
	"logingracetime":                  {global: true},
	"loglevel":                        {},
	"macs":                            {global: true},
	"maxauthtries":                    {},
	"maxstartups":                     {global: true},
	"modulifile":                      {global: true},
	"passwordauthentication":          {},
	"permitrootlogin":                 {},
	"permituserenvironment":           {global: true},
	"persourcemaxstartups":            {global: true},
	"persourcenetblocksize":           {global: true},
	"persourcepenalties":              {kind: restOf, global: true},
	"persourcepenaltyexemptlist":      {global: true},
	"pidfile":                         {global: true},
	"port":                            {kind: eachFirst, global: true},
	"printlastlog":                    {global: true},
	"printmotd":                       {global: true},
	"pubkeyacceptedalgorithms":        {},
	"pubkeyauthentication":            {},
	"pubkeyauthoptions":               {kind: words},
	"requiredrsasize":                 {},
	"revokedkeys":                     {kind: words},
	"securitykeyprovider":             {global: true},
	"setenv":                          {kind: words},
	"strictmodes":                     {global: true},
	"subsystem":                       {kind: eachLine},
	"syslogfacility":                  {global: true},
	"tcpkeepalive":                    {global: true},
	"trustedusercakeys":               {},
	"usedns":                          {global: true},
	"usepam":                          {global: true},
	"versionaddendum":                 {kind: restOf, global: true},
	"xauthlocation":                   {global: true},
}

// canonicalKeyword returns the present name of a keyword, in lower case.
func canonicalKeyword(keyword string) string {
	keyword = lowerASCII(keyword)
	switch keyword {
	case "pubkeyacceptedkeytypes":
		return "pubkeyacceptedalgorithms"
	case "hostbasedacceptedkeytypes":
		return "hostbasedacceptedalgorithms"
	case "skeyauthentication":
		return "challengeresponseauthentication"
	case "dsaauthentication":
		return "pubkeyauthentication"
	case "hostdsakey":
		return "hostkey"
	case "keepalive":
		return "tcpkeepalive"
	}
	return keyword
}

// ParseSSHDConfig reads what "sshd -T" (or -G) printed: one keyword with its
// value a line. It fails if the text does not look like that. File names with
// blanks cannot be told from several names there: sshd prints no quotes.
func ParseSSHDConfig(text []byte) (SSHDConfig, error) {
	settings := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimRight(line, " \t\r\n")
		keyword, value, _ := strings.Cut(line, " ")
		if keyword == "" {
			continue
		}
		keyword = canonicalKeyword(keyword) // OpenSSH 10.6 prints capitals
		if strings.Trim(keyword, "abcdefghijklmnopqrstuvwxyz0123456789") != "" {
			return SSHDConfig{}, Errorf(Invalid, "line %q is not of the form that sshd -T prints", abbreviate(line))
		}
		value = strings.TrimSpace(value)
		switch sshdKeywords[keyword].kind {
		case words:
			settings[keyword] = append(settings[keyword], strings.Fields(value)...)
		default:
			settings[keyword] = append(settings[keyword], value)
		}
	}
	for _, keyword := range []string{"pubkeyauthentication", "strictmodes"} {
		if len(settings[keyword]) == 0 {
			return SSHDConfig{}, Errorf(Invalid, "the output of sshd -T lacks %q", keyword)
		}
	}
	return newSSHDConfig(settings), nil
}

// newSSHDConfig fills in the fields from settings.
func newSSHDConfig(settings map[string][]string) SSHDConfig {
	one := func(keyword string) string {
		if v := settings[keyword]; len(v) > 0 && !strings.EqualFold(v[0], "none") {
			return v[0]
		}
		return ""
	}
	many := func(keyword string) []string {
		return slices.DeleteFunc(slices.Clone(settings[keyword]), func(v string) bool { return strings.EqualFold(v, "none") || v == "" })
	}
	yes := func(keyword string) bool { return one(keyword) == "yes" }
	number := func(keyword string) int {
		n, err := strconv.Atoi(one(keyword))
		if err != nil {
			return 0
		}
		return n
	}
	list := func(keyword string) []string {
		if v := one(keyword); v != "" {
			return strings.Split(v, ",")
		}
		return nil
	}
	c := SSHDConfig{
		AuthorizedKeysFile:              many("authorizedkeysfile"),
		AuthorizedKeysCommand:           one("authorizedkeyscommand"),
		AuthorizedKeysCommandUser:       one("authorizedkeyscommanduser"),
		TrustedUserCAKeys:               one("trustedusercakeys"),
		AuthorizedPrincipalsFile:        one("authorizedprincipalsfile"),
		AuthorizedPrincipalsCommand:     one("authorizedprincipalscommand"),
		AuthorizedPrincipalsCommandUser: one("authorizedprincipalscommanduser"),
		RevokedKeys:                     many("revokedkeys"),
		HostKey:                         many("hostkey"),
		HostCertificate:                 many("hostcertificate"),
		HostKeyAgent:                    one("hostkeyagent"),
		PubkeyAuthentication:            yes("pubkeyauthentication"),
		PubkeyAcceptedAlgorithms:        list("pubkeyacceptedalgorithms"),
		CASignatureAlgorithms:           list("casignaturealgorithms"),
		RequiredRSASize:                 number("requiredrsasize"),
		PubkeyAuthOptions:               many("pubkeyauthoptions"),
		AuthenticationMethods:           slices.DeleteFunc(many("authenticationmethods"), func(m string) bool { return m == "any" }),
		PasswordAuthentication:          yes("passwordauthentication"),
		KbdInteractiveAuthentication:    yes("kbdinteractiveauthentication") || yes("challengeresponseauthentication"),
		HostbasedAuthentication:         yes("hostbasedauthentication"),
		PermitRootLogin:                 one("permitrootlogin"),
		AllowUsers:                      many("allowusers"),
		DenyUsers:                       many("denyusers"),
		AllowGroups:                     many("allowgroups"),
		DenyGroups:                      many("denygroups"),
		StrictModes:                     yes("strictmodes"),
		UsePAM:                          yes("usepam"),
		UseDNS:                          yes("usedns"),
		ForceCommand:                    one("forcecommand"),
		ChrootDirectory:                 one("chrootdirectory"),
		PermitUserEnvironment:           one("permituserenvironment"),
		MaxAuthTries:                    number("maxauthtries"),
		LogLevel:                        strings.ToUpper(one("loglevel")),
		PidFile:                         one("pidfile"),
		ListenAddress:                   many("listenaddress"),
		PerSourcePenalties:              one("persourcepenalties"),
		PerSourcePenaltyExemptList:      one("persourcepenaltyexemptlist"),
		settings:                        settings,
	}
	// Words with two spellings.
	switch c.PermitRootLogin {
	case "without-password":
		c.PermitRootLogin = "prohibit-password"
	}
	switch c.LogLevel {
	case "SILENT":
		c.LogLevel = "QUIET"
	case "DEBUG":
		c.LogLevel = "DEBUG1"
	}
	if c.PerSourcePenalties == "no" {
		c.PerSourcePenalties = ""
	}
	for _, p := range settings["port"] {
		if n, ok := strtonum(p, 1, 65535); ok {
			c.Port = append(c.Port, int(n))
		}
	}
	return c
}
