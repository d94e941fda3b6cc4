package authority

import (
	"net/netip"
	"slices"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// A Profile bounds the certificates of an authority.
type Profile struct {
	// Valid is how long a certificate is valid where nobody says, and MaxValid how
	// long at most.
	Valid    time.Duration `json:"valid"`
	MaxValid time.Duration `json:"max_valid"`
	// KeyTypes are those that are certified, by the names of the keys' types.
	KeyTypes []string `json:"key_types"`
	// MinRSA is the fewest bits of an RSA key.
	MinRSA int `json:"min_rsa"`
	// Extensions are those that a certificate may have, and has where nobody says.
	Extensions []string `json:"extensions"`
	// CriticalOptions are those that may be asked for. Each takes something away.
	CriticalOptions []string `json:"critical_options"`
	// MaxPrincipals is how many a certificate has at most.
	MaxPrincipals int `json:"max_principals"`
}

// The extensions and critical options of PROTOCOL.certkeys that a profile may have.
// no-touch-required is not among them: it takes away what an authority can demand.
var (
	extensions      = []string{"permit-X11-forwarding", "permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"}
	criticalOptions = []string{"force-command", "source-address", "verify-required"}
	keyTypes        = []string{
		"ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa",
		"sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
	}
)

const longestValid = 5 * 365 * 24 * time.Hour

// profileOf returns the profile that authorities of a purpose have unless another is
// given: minutes for people, who get the next one when they connect again, and a week
// for hosts.
func profileOf(p Purpose) Profile {
	profile := Profile{
		Valid: 5 * time.Minute, MaxValid: 24 * time.Hour, KeyTypes: keyTypes, MinRSA: 2048, MaxPrincipals: 32,
		Extensions:      []string{"permit-agent-forwarding", "permit-port-forwarding", "permit-pty", "permit-user-rc"},
		CriticalOptions: criticalOptions,
	}
	if p == Host {
		profile.Valid, profile.MaxValid, profile.Extensions, profile.CriticalOptions = 7*24*time.Hour, 90*24*time.Hour, nil, nil
	}
	return profile
}

func (p Profile) check() error {
	if p.Valid < time.Second || p.MaxValid < p.Valid || p.MaxValid > longestValid {
		return trust.Errorf(trust.Invalid, "certificates that are valid for %v, and for %v at most: that is not a second to five years, or the first is longer", p.Valid, p.MaxValid).WithField("profile")
	}
	if p.MinRSA < 1024 || p.MaxPrincipals < 1 || p.MaxPrincipals > 256 || len(p.KeyTypes) == 0 {
		return trust.Errorf(trust.Invalid, "a profile has at least one type of keys, 1 to 256 principals, and RSA keys of 1024 bits or more").WithField("profile")
	}
	for _, list := range []struct{ given, known []string }{{p.KeyTypes, keyTypes}, {p.Extensions, extensions}, {p.CriticalOptions, criticalOptions}} {
		for _, name := range list.given {
			if !slices.Contains(list.known, name) {
				return trust.Errorf(trust.Invalid, "%.60q is none of %s", name, strings.Join(list.known, ", ")).WithField("profile")
			}
		}
	}
	return nil
}

// valid returns from when and until when a certificate is that is made now: from a
// minute before, for hosts whose clocks are behind, and no longer than until.
func (p Profile) valid(now time.Time, wanted time.Duration, until time.Time) (after, before time.Time, err error) {
	if wanted == 0 {
		wanted = p.Valid
	}
	if wanted < time.Second || wanted > p.MaxValid {
		return after, before, trust.Errorf(trust.Invalid, "validity of %v is not a second to %v, which is the most that this authority signs for", wanted, p.MaxValid).WithField("valid")
	}
	now = now.Truncate(time.Second)
	after, before = now.Add(-time.Minute), now.Add(wanted)
	if !until.IsZero() && until.Before(before) {
		before = until.Truncate(time.Second)
	}
	if !before.After(now) {
		return after, before, trust.Errorf(trust.Denied, "the credential that asks, or the key, ends before the certificate would begin")
	}
	return after, before, nil
}

// checkKey refuses a key that is not certified.
func (p Profile) checkKey(k trust.PublicKey) error {
	if err := k.Certifiable(); err != nil {
		return err
	}
	if !slices.Contains(p.KeyTypes, k.Type()) {
		return trust.Errorf(trust.Denied, "keys of type %q are not certified by this authority, but %s", k.Type(), strings.Join(p.KeyTypes, ", ")).WithField("public_key")
	}
	if k.Type() == "ssh-rsa" && k.Bits() < p.MinRSA {
		return trust.Errorf(trust.Denied, "RSA key of %d bits: this authority certifies those of %d or more", k.Bits(), p.MinRSA).WithField("public_key")
	}
	return nil
}

// CheckPrincipal refuses what is no name of an account or host, or is read as several
// or as a pattern by one of the files and programs that principals go through.
func CheckPrincipal(name string) error {
	if name == "" || len(name) > 255 {
		return trust.Errorf(trust.Invalid, "principal %.80q is not 1 to 255 characters", name).WithField("principals")
	}
	for _, c := range []byte(name) {
		if c <= ' ' || c >= 0x7f || strings.ContainsRune(",*?!\"'\\#=", rune(c)) {
			return trust.Errorf(trust.Invalid, "principal %.80q has a character that no name of an account or host has: %q", name, c).WithField("principals")
		}
	}
	return nil
}

// checkPrincipals refuses no principals at all: OpenSSH before 10.3 lets those in as
// everybody.
func (p Profile) checkPrincipals(names []string) error {
	if len(names) == 0 || len(names) > p.MaxPrincipals {
		return trust.Errorf(trust.Invalid, "a certificate has 1 to %d principals, not %d", p.MaxPrincipals, len(names)).WithField("principals")
	}
	for _, name := range names {
		if err := CheckPrincipal(name); err != nil {
			return err
		}
	}
	return nil
}

// options returns what a certificate has that is asked for with o. Names are sorted, as
// PROTOCOL.certkeys demands.
func (p Profile) options(o Options) (critical, granted []trust.CertificateOption, err error) {
	add := func(name, value string, flag bool) error {
		if !slices.Contains(p.CriticalOptions, name) {
			return trust.Errorf(trust.Denied, "this authority signs nothing with %q", name).WithField("options")
		}
		if flag {
			critical = append(critical, trust.CertificateOption{Name: name})
		} else {
			critical = append(critical, trust.TextOption(name, value))
		}
		return nil
	}
	if o.ForceCommand != "" {
		if len(o.ForceCommand) > 4096 || strings.ContainsAny(o.ForceCommand, "\x00\n\r") {
			return nil, nil, trust.Errorf(trust.Invalid, "forced command is longer than 4096 bytes, or has a line break in it").WithField("force_command")
		}
		err = add("force-command", o.ForceCommand, false)
	}
	if len(o.SourceAddresses) > 0 && err == nil {
		var list []string
		if list, err = sourceList(o.SourceAddresses); err == nil {
			err = add("source-address", strings.Join(list, ","), false)
		}
	}
	if o.VerifyRequired && err == nil {
		err = add("verify-required", "", true)
	}
	if err != nil {
		return nil, nil, err
	}
	names := p.Extensions
	if o.Extensions != nil {
		names = slices.Compact(slices.Sorted(slices.Values(o.Extensions)))
	}
	for _, name := range slices.Sorted(slices.Values(names)) {
		if !slices.Contains(p.Extensions, name) {
			return nil, nil, trust.Errorf(trust.Denied, "this authority signs nothing with extension %.60q", name).WithField("extensions")
		}
		granted = append(granted, trust.CertificateOption{Name: name})
	}
	return critical, granted, nil
}

// sourceList returns addresses and networks in the form in which sshd reads each: one
// that it cannot read it refuses the certificate for.
func sourceList(given []string) ([]string, error) {
	var list []string
	for _, text := range given {
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			list = append(list, a.String())
			continue
		}
		n, err := netip.ParsePrefix(text)
		if err != nil || n.Masked() != n {
			return nil, trust.Errorf(trust.Invalid, "source address %.60q is neither an address nor a network such as 192.0.2.0/24", text).WithField("source_addresses")
		}
		list = append(list, n.String())
	}
	if len(list) > 64 {
		return nil, trust.Errorf(trust.Invalid, "%d source addresses are more than 64", len(list)).WithField("source_addresses")
	}
	return list, nil
}
