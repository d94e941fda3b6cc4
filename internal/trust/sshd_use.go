package trust

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// An Account is an operating system's account, as far as sshd's configuration
// speaks of it.
type Account struct {
	User string
	UID  int
	Home string
	// Groups are the names of all groups that the account is in.
	Groups []string
}

// A KeysPath is where sshd looks for an account's authorized keys.
type KeysPath struct {
	// Path is absolute.
	Path string
	// Glob: Path is a pattern of glob(7), which OpenSSH 10.0 and later
	// expands, in the order of the names. Older ones take it as a name.
	Glob bool
	// Shared: the path does not depend on the account, so that one file serves
	// several.
	Shared bool
}

// AuthorizedKeysPaths returns the files that sshd searches for the account's
// keys, in order: AuthorizedKeysFile with %h, %u, %U and %% expanded, and
// relative to the home. It is empty where files are not used at all.
func (c SSHDConfig) AuthorizedKeysPaths(a Account) ([]KeysPath, error) {
	var paths []KeysPath
	for _, pattern := range c.AuthorizedKeysFile {
		path, personal, err := expandTokens(pattern, a)
		if err != nil {
			return nil, err
		}
		if !strings.HasPrefix(path, "/") {
			path, personal = a.Home+"/"+path, true
		}
		paths = append(paths, KeysPath{Path: path, Glob: strings.ContainsAny(path, "*?["), Shared: !personal})
	}
	return paths, nil
}

// AuthorizedPrincipalsPath returns the file of principals for the account, or ""
// where none is configured.
func (c SSHDConfig) AuthorizedPrincipalsPath(a Account) (string, error) {
	if c.AuthorizedPrincipalsFile == "" {
		return "", nil
	}
	path, _, err := expandTokens(c.AuthorizedPrincipalsFile, a)
	if err == nil && !strings.HasPrefix(path, "/") {
		path = a.Home + "/" + path
	}
	return path, err
}

// expandTokens expands the percent tokens of file names (sshd_config(5),
// TOKENS), and tells whether one named the account.
func expandTokens(pattern string, a Account) (path string, personal bool, err error) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		if pattern[i] != '%' {
			b.WriteByte(pattern[i])
			continue
		}
		i++
		token := byte(0)
		if i < len(pattern) {
			token = pattern[i]
		}
		switch token {
		case '%':
			b.WriteByte('%')
			continue
		case 'h':
			b.WriteString(a.Home)
		case 'u':
			b.WriteString(a.User)
		case 'U':
			b.WriteString(strconv.Itoa(a.UID))
		default:
			return "", false, Errorf(Invalid, "file name %q has a token that sshd does not know", pattern)
		}
		personal = true
	}
	return b.String(), personal, nil
}

// algorithmsOf returns the public key algorithms with which a key of a type can
// sign, best first.
func algorithmsOf(keyType string) []string {
	switch keyType {
	case "ssh-rsa":
		return []string{"rsa-sha2-512", "rsa-sha2-256", "ssh-rsa"}
	case "ssh-rsa-cert-v01@openssh.com":
		return []string{"rsa-sha2-512-cert-v01@openssh.com", "rsa-sha2-256-cert-v01@openssh.com", "ssh-rsa-cert-v01@openssh.com"}
	case "sk-ecdsa-sha2-nistp256@openssh.com":
		return []string{keyType, "webauthn-sk-ecdsa-sha2-nistp256@openssh.com"}
	}
	return []string{keyType}
}

// AcceptedAlgorithms returns the algorithms with which a key of this type may
// sign to log in, best first. It is empty where the server takes no such key.
func (c SSHDConfig) AcceptedAlgorithms(keyType string) []string {
	if !c.PubkeyAuthentication {
		return nil
	}
	return slices.DeleteFunc(algorithmsOf(keyType), func(algorithm string) bool {
		return matchPatternList(algorithm, strings.Join(c.PubkeyAcceptedAlgorithms, ","), false) != matchYes
	})
}

// AcceptsKey returns nil if the configuration lets a key of this type and size
// log in at all, and else a Denied error that names the keyword in the way.
func (c SSHDConfig) AcceptsKey(key PublicKey) error {
	if !c.PubkeyAuthentication {
		return Errorf(Denied, "PubkeyAuthentication is off")
	}
	if len(c.AcceptedAlgorithms(key.Type())) == 0 {
		return Errorf(Denied, "PubkeyAcceptedAlgorithms has no algorithm for keys of type %q", key.Type())
	}
	if strings.Contains(key.Type(), "rsa") && key.Bits() < c.RequiredRSASize {
		return Errorf(Denied, "RSA key of %d bits: RequiredRSASize is %d", key.Bits(), c.RequiredRSASize)
	}
	return nil
}

// AllowsAccount returns nil if PermitRootLogin and the Allow and Deny lists let
// the account log in with a public key from an address, and else a Denied error
// that names the keyword in the way. name is the client's resolved name, or "".
// forced tells whether the key forces a command.
func (c SSHDConfig) AllowsAccount(a Account, name string, addr netip.Addr, forced bool) error {
	addr = addr.Unmap()
	if name == "" {
		name = addr.String()
	}
	matches := func(pattern string) bool { return matchUser(a.User, name, addr, pattern) }
	inGroup := func(pattern string) bool {
		return slices.ContainsFunc(a.Groups, func(g string) bool { return MatchPattern(g, pattern) })
	}
	switch {
	case slices.ContainsFunc(c.DenyUsers, matches):
		return Errorf(Denied, "DenyUsers lists %q", a.User)
	case len(c.AllowUsers) > 0 && !slices.ContainsFunc(c.AllowUsers, matches):
		return Errorf(Denied, "AllowUsers does not list %q from %s", a.User, addr)
	case slices.ContainsFunc(c.DenyGroups, inGroup):
		return Errorf(Denied, "DenyGroups lists a group of %q", a.User)
	case len(c.AllowGroups) > 0 && !slices.ContainsFunc(c.AllowGroups, inGroup):
		return Errorf(Denied, "AllowGroups lists no group of %q", a.User)
	case a.UID == 0 && c.PermitRootLogin == "no":
		return Errorf(Denied, "PermitRootLogin is off")
	case a.UID == 0 && c.PermitRootLogin == "forced-commands-only" && !forced && c.ForceCommand == "":
		return Errorf(Denied, "PermitRootLogin is for keys with a forced command only")
	}
	return nil
}

// matchUser matches a pattern of AllowUsers and DenyUsers, which may restrict
// the source behind an "@".
func matchUser(user, name string, addr netip.Addr, pattern string) bool {
	at := strings.LastIndexByte(pattern, '@')
	if at < 0 {
		return MatchPattern(user, pattern)
	}
	return MatchPattern(user, pattern[:at]) && matchHost(name, addr, pattern[at+1:]) == matchYes
}
