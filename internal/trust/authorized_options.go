package trust

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// A KeyOption is one option of an authorized_keys line.
type KeyOption struct {
	// Name is as the line spells it. Names are compared without regard to case.
	Name string
	// Value is what stands between the quotes, \" read as ", where Quoted.
	Value string
	// Quoted tells name="value" from a mere name.
	Quoted bool
}

// A Grant is what the options of an authorized_keys line allow and demand, once
// all of them are read (sshd(8); auth-options.c). The zero Grant allows nothing
// but a command; a line without options has every permission.
type Grant struct {
	// CertAuthority: the key is a CA; it opens nothing itself, but certificates
	// that it signed for one of Principals (comma-separated; empty and
	// HasPrincipals false: for the name of the account) do.
	CertAuthority bool
	Principals    string
	HasPrincipals bool
	// ForcedCommand runs instead of what the client asks for, where
	// HasForcedCommand; it may be empty.
	ForcedCommand    string
	HasForcedCommand bool
	// SourceRestriction is the pattern list of from=, where HasSource.
	SourceRestriction string
	HasSource         bool
	// Expiry is every expiry-time= in order; the earliest holds.
	Expiry []string
	// Environment holds NAME=value; the first of a name holds, later ones are
	// not here.
	Environment []string
	// PermitOpen and PermitListen hold host:port, "*" for any; empty: any.
	PermitOpen, PermitListen []string
	// Tunnel is a device number or "any"; empty: none is forced.
	Tunnel string
	// Permissions.
	PortForwarding, AgentForwarding, X11Forwarding, PTY, UserRC bool
	// Restricted: the line has the option restrict, so that permissions that
	// later versions invent are refused too.
	Restricted bool
	// NoTouchRequired and VerifyRequired concern FIDO keys only.
	NoTouchRequired, VerifyRequired bool
}

// Equal reports whether g and other allow and demand the same.
func (g Grant) Equal(other Grant) bool {
	same := slices.Equal(g.Expiry, other.Expiry) && slices.Equal(g.Environment, other.Environment) &&
		slices.Equal(g.PermitOpen, other.PermitOpen) && slices.Equal(g.PermitListen, other.PermitListen)
	return same && g.CertAuthority == other.CertAuthority && g.Principals == other.Principals && g.HasPrincipals == other.HasPrincipals &&
		g.ForcedCommand == other.ForcedCommand && g.HasForcedCommand == other.HasForcedCommand &&
		g.SourceRestriction == other.SourceRestriction && g.HasSource == other.HasSource && g.Tunnel == other.Tunnel &&
		g.PortForwarding == other.PortForwarding && g.AgentForwarding == other.AgentForwarding && g.X11Forwarding == other.X11Forwarding &&
		g.PTY == other.PTY && g.UserRC == other.UserRC && g.Restricted == other.Restricted &&
		g.NoTouchRequired == other.NoTouchRequired && g.VerifyRequired == other.VerifyRequired
}

// Expires returns the moment after which the line no longer grants anything,
// and whether there is one. A time without "Z" is in the server's time zone.
func (g Grant) Expires(zone *time.Location) (time.Time, bool) {
	var earliest time.Time
	for _, text := range g.Expiry {
		// A moment before 1970 is read as one in the far future: OpenSSH
		// keeps it in an unsigned number.
		t, err := parseAbsoluteTime(text, zone)
		if err == nil && t.Unix() > 0 && (earliest.IsZero() || t.Before(earliest)) {
			earliest = t
		}
	}
	return earliest, !earliest.IsZero()
}

// Limits of auth-options.h: one more than these is still read.
const (
	maxEnvironment = 1024
	maxPermits     = 4096
)

// parseGrant reads options as sshauthopt_parse of OpenSSH 10 does. The error is
// Invalid and says why the whole line is refused.
func parseGrant(text string) (Grant, error) {
	g := Grant{PortForwarding: true, AgentForwarding: true, X11Forwarding: true, PTY: true, UserRC: true}
	for rest := text; rest != ""; {
		after, err := g.readOption(rest)
		if err != nil {
			return Grant{}, err
		}
		if after == "" {
			break
		}
		if after[0] != ',' {
			name, _, _ := strings.Cut(rest, ",")
			return Grant{}, Errorf(Invalid, "unknown key option %q", abbreviate(name))
		}
		rest = after[1:]
	}
	return g, nil
}

// readOption reads the option that rest starts with into g, and returns what
// follows it: rest itself if there is no option that OpenSSH knows.
func (g *Grant) readOption(rest string) (string, error) {
	for _, flag := range []struct {
		name   string
		negate bool
		set    func(bool)
	}{
		{"restrict", false, func(bool) {
			g.Restricted = true
			g.PortForwarding, g.AgentForwarding, g.X11Forwarding, g.PTY, g.UserRC = false, false, false, false, false
		}},
		{"cert-authority", false, func(v bool) { g.CertAuthority = v }},
		{"port-forwarding", true, func(v bool) { g.PortForwarding = v }},
		{"agent-forwarding", true, func(v bool) { g.AgentForwarding = v }},
		{"X11-forwarding", true, func(v bool) { g.X11Forwarding = v }},
		{"touch-required", true, func(v bool) { g.NoTouchRequired = !v }},
		{"verify-required", true, func(v bool) { g.VerifyRequired = v }},
		{"pty", true, func(v bool) { g.PTY = v }},
		{"user-rc", true, func(v bool) { g.UserRC = v }},
	} {
		text, negated := rest, false
		if flag.negate {
			text, negated = cutPrefixFold(rest, "no-")
		}
		if after, ok := cutPrefixFold(text, flag.name); ok {
			flag.set(!negated)
			return after, nil
		}
	}
	for _, option := range []struct {
		name string
		set  func(value string) error
	}{
		{"command", func(v string) error { return once(&g.ForcedCommand, &g.HasForcedCommand, v, "command") }},
		{"principals", func(v string) error { return once(&g.Principals, &g.HasPrincipals, v, "principals") }},
		{"from", func(v string) error { return once(&g.SourceRestriction, &g.HasSource, v, "from") }},
		{"expiry-time", g.addExpiry},
		{"environment", g.addEnvironment},
		{"permitopen", func(v string) error { return addPermit(&g.PermitOpen, v, false) }},
		{"permitlisten", func(v string) error { return addPermit(&g.PermitListen, v, true) }},
		{"tunnel", func(v string) error {
			if _, ok := strtonum(v, 0, 0x7fffffff-2); !ok && !strings.EqualFold(v, "any") {
				return Errorf(Invalid, "invalid tun device %q", abbreviate(v))
			}
			g.Tunnel = strings.ToLower(v)
			return nil
		}},
	} {
		after, ok := cutPrefixFold(rest, option.name)
		if !ok || !strings.HasPrefix(after, "=") {
			continue
		}
		value, after, err := dequote(after[1:])
		if err != nil {
			return "", Errorf(Invalid, "key option %q: %w", option.name, err)
		}
		if err := option.set(value); err != nil {
			return "", err
		}
		return after, nil
	}
	return rest, nil
}

func once(value *string, has *bool, v, name string) error {
	if *has {
		return Errorf(Invalid, "key option %q is given more than once", name)
	}
	*value, *has = v, true
	return nil
}

func (g *Grant) addExpiry(v string) error {
	if t, err := parseAbsoluteTime(v, time.UTC); err != nil || t.Unix() == 0 {
		return Errorf(Invalid, "invalid expiry-time %q", abbreviate(v))
	}
	g.Expiry = append(g.Expiry, v)
	return nil
}

func (g *Grant) addEnvironment(v string) error {
	name, _, ok := strings.Cut(v, "=")
	valid := ok && name != "" && strings.Trim(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_") == ""
	if !valid {
		return Errorf(Invalid, "invalid environment string %q", abbreviate(v))
	}
	if len(g.Environment) > maxEnvironment {
		return Errorf(Invalid, "too many environment strings")
	}
	if !slices.ContainsFunc(g.Environment, func(e string) bool { return strings.HasPrefix(e, name+"=") }) {
		g.Environment = append(g.Environment, v)
	}
	return nil
}

// addPermit reads host:port. A permitlisten may be a mere port.
func addPermit(list *[]string, v string, barePort bool) error {
	if len(*list) > maxPermits {
		return Errorf(Invalid, "too many permission directives")
	}
	if barePort && !strings.Contains(v, ":") {
		v = "*:" + v
	}
	host, port, ok := cutHost(v)
	if !ok || len(host) >= 1025 {
		return Errorf(Invalid, "invalid permission hostname in %q", abbreviate(v))
	}
	// Names of services are read by the server's own /etc/services, which
	// cannot be known here.
	if _, ok := strtonum(port, 1, 65535); !ok && port != "*" {
		return Errorf(Invalid, "invalid permission port in %q", abbreviate(v))
	}
	*list = append(*list, v)
	return nil
}

// cutHost cuts "host:port", "host/port" or "[host]:port" in two.
func cutHost(s string) (host, port string, ok bool) {
	at := 0
	if strings.HasPrefix(s, "[") {
		at = strings.IndexByte(s, ']') + 1
		if at == 0 {
			return "", "", false
		}
	} else if at = strings.IndexAny(s, ":/"); at < 0 {
		return "", "", false
	}
	if at >= len(s) || s[at] != ':' && s[at] != '/' {
		return "", "", false
	}
	return s[:at], s[at+1:], true
}

// strtonum reads a decimal number from low to high as the function of that name
// does: white space and a sign may precede it.
func strtonum(s string, low, high int64) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimLeft(s, " \t\n\v\f\r"), 10, 64)
	return n, err == nil && n >= low && n <= high
}

// dequote reads the quoted string that s starts with; \" stands for ".
func dequote(s string) (value, rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return "", "", Errorf(Invalid, "missing start quote")
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], nil
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == '"':
			i++
		}
		b.WriteByte(s[i])
	}
	return "", "", Errorf(Invalid, "missing end quote")
}

// optionsEnd returns where the options that start at offset i of s end, and
// whether all their quotes are closed (sshkey_advance_past_options).
func optionsEnd(s string, i int) (end int, closed bool) {
	quoted := false
	for ; i < len(s) && (quoted || s[i] != ' ' && s[i] != '\t'); i++ {
		if s[i] == '\\' && i+1 < len(s) && s[i+1] == '"' {
			i++
		} else if s[i] == '"' {
			quoted = !quoted
		}
	}
	return min(i, len(s)), !quoted
}

// splitOptions cuts text at the commas outside quotes, known options or not.
func splitOptions(text string) []KeyOption {
	var options []KeyOption
	quoted, start := false, 0
	for i := 0; i <= len(text); i++ {
		switch {
		case i < len(text) && text[i] == '\\' && i+1 < len(text) && text[i+1] == '"':
			i++
			continue
		case i < len(text) && text[i] == '"':
			quoted = !quoted
		}
		if i < len(text) && (quoted || text[i] != ',') {
			continue
		}
		if raw := text[start:i]; raw != "" {
			option := KeyOption{Name: raw}
			if name, value, ok := strings.Cut(raw, "="); ok {
				if v, rest, err := dequote(value); err == nil && rest == "" {
					option = KeyOption{Name: name, Value: v, Quoted: true}
				}
			}
			options = append(options, option)
		}
		start = i + 1
	}
	return options
}

// cutPrefixFold is strings.CutPrefix without regard to ASCII case.
func cutPrefixFold(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return s, false
	}
	return s[len(prefix):], true
}

// parseAbsoluteTime reads YYYYMMDD[HHMM[SS]][Z] (misc.c, parse_absolute_time).
// Days beyond a month's end run into the next month, as mktime has it.
func parseAbsoluteTime(s string, zone *time.Location) (time.Time, error) {
	digits := s
	if n := len(s); n > 1 && strings.EqualFold(s[n-1:], "Z") {
		digits, zone = s[:n-1], time.UTC
	} else if n > 3 && strings.EqualFold(s[n-3:], "UTC") {
		digits, zone = s[:n-3], time.UTC
	}
	if len(digits) != 8 && len(digits) != 12 && len(digits) != 14 {
		return time.Time{}, Errorf(Invalid, "time %q is not YYYYMMDD[HHMM[SS]]", abbreviate(s))
	}
	field := func(at, width, low, high int) (int, bool) {
		if at >= len(digits) {
			return low, true
		}
		n, err := strconv.ParseUint(strings.TrimLeft(digits[at:at+width], " "), 10, 16)
		return int(n), err == nil && int(n) >= low && int(n) <= high
	}
	year, ok1 := field(0, 4, 0, 9999)
	month, ok2 := field(4, 2, 1, 12)
	day, ok3 := field(6, 2, 1, 31)
	hour, ok4 := field(8, 2, 0, 23)
	minute, ok5 := field(10, 2, 0, 59)
	second, ok6 := field(12, 2, 0, 61)
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6) {
		return time.Time{}, Errorf(Invalid, "time %q has a field out of range", abbreviate(s))
	}
	return time.Date(year, time.Month(month), day, hour, minute, second, 0, zone), nil
}
