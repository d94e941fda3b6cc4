package trust

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// An Attempt is a login with a public key or certificate, as a server sees it.
type Attempt struct {
	// Key is the public key, or the certificate, that is offered.
	Key PublicKey
	// User is the account. It matters only to certificates whose CA's line
	// names no principals.
	User string
	// Addr is the client's address; HostName is its resolved name where the
	// server looks names up (UseDNS yes), and else empty.
	Addr     netip.Addr
	HostName string
	// Time is when, in the time zone of the server: an expiry-time without
	// "Z" is read in that zone.
	Time time.Time
	// Server is what reads the files.
	Server ServerVersion
}

// A LineRef names a line: by the file's index in the list that was given, and
// the line's in the file, both counted from 0.
type LineRef struct {
	File, Line int
}

// A Refusal is a line that holds the key, or the certificate's CA, and yet
// grants nothing.
type Refusal struct {
	LineRef
	Why string
}

// A Verdict is what a server makes of an Attempt.
type Verdict struct {
	Accepted bool
	// By is the line that let the key in, with its Grant as OpenSSH reads it.
	By    LineRef
	Grant Grant
	// Why says in a sentence what decided.
	Why string
	// Refused are the lines that hold the key and were passed over before,
	// in order. They do not end the search.
	Refused []Refusal
}

// WouldAccept says whether a server would let an attempt in by its
// authorized_keys files, given in the order of AuthorizedKeysFile, and by which
// line. The first line that grants decides; one that holds the key and does not
// grant does not end the search (auth2-pubkey.c). Dropbear and TinySSH read the
// first file only.
//
// What else a server asks is not looked at here: the configuration (see
// SSHDConfig.AcceptsKey), the files' owners and modes, revocation, the account.
func WouldAccept(files []*AuthorizedKeys, a Attempt) Verdict {
	a.Addr = a.Addr.Unmap()
	if a.HostName == "" {
		a.HostName = a.Addr.String()
	}
	switch a.Server.Family {
	case Dropbear:
		return a.scan(files[:min(1, len(files))], dropbearReader(a.Server))
	case TinySSH:
		return a.scan(files[:min(1, len(files))], tinysshReader)
	}
	if !a.Key.IsCertificate() {
		return a.scan(files, func(l AuthorizedLine, key PublicKey) (bool, bool, error) {
			held := l.kind == KeyLine && l.key == key
			if !held {
				return false, true, nil
			}
			return true, true, a.judge(&l, nil)
		})
	}
	parsed, err := a.Key.SSH()
	cert, ok := parsed.(*ssh.Certificate)
	if err != nil || !ok {
		return Verdict{By: LineRef{-1, -1}, Why: "the certificate cannot be read"}
	}
	ca := PublicKeyOf(cert.SignatureKey)
	return a.scan(files, func(l AuthorizedLine, _ PublicKey) (bool, bool, error) {
		held := l.kind == KeyLine && l.key == ca
		if !held {
			return false, true, nil
		}
		return true, true, a.judge(&l, cert)
	})
}

// A lineReader reads one of our lines as a server does: whether it finds key
// there, whether it reads on behind the line, and why the line does not grant.
type lineReader func(l AuthorizedLine, key PublicKey) (held, more bool, why error)

func (a Attempt) scan(files []*AuthorizedKeys, read lineReader) Verdict {
	var refused []Refusal
	for i, f := range files {
		for j, l := range f.lines {
			held, more, why := read(l, a.Key)
			switch {
			case held && why == nil:
				return Verdict{true, LineRef{i, j}, l.grant, fmt.Sprintf("line %d of file %d grants it", j+1, i+1), refused}
			case held:
				refused = append(refused, Refusal{LineRef{i, j}, why.Error()})
			}
			if !more {
				break
			}
		}
	}
	v := Verdict{By: LineRef{-1, -1}, Refused: refused, Why: "no line holds the key"}
	if a.Key.IsCertificate() {
		v.Why = "no line holds the key of the certificate's CA"
	}
	if len(refused) > 0 {
		first := refused[0]
		v.Why = fmt.Sprintf("line %d of file %d holds the key, but: %s", first.Line+1, first.File+1, first.Why)
	}
	return v
}

// judge returns why l, which holds the key in question, does not grant.
func (a Attempt) judge(l *AuthorizedLine, cert *ssh.Certificate) error {
	if err := l.HonoredBy(a.Server); err != nil {
		return err
	}
	g := l.grant
	switch {
	case g.CertAuthority && cert == nil:
		return Errorf(Denied, "the key is a certificate authority: it opens nothing itself")
	case !g.CertAuthority && cert != nil:
		return Errorf(Denied, "the CA's line lacks cert-authority")
	case g.HasPrincipals && !g.CertAuthority:
		return Errorf(Denied, "principals= is only for certificate authorities")
	}
	if end, ok := g.Expires(a.Time.Location()); ok && end.Unix() < a.Time.Unix() {
		return Errorf(Denied, "it expired at %s", end.UTC().Format(time.RFC3339))
	}
	if g.HasSource && matchHost(a.HostName, a.Addr, g.SourceRestriction) != matchYes {
		return Errorf(Denied, "from=%q does not allow %s", g.SourceRestriction, a.Addr)
	}
	if cert != nil {
		return a.judgeCertificate(g, cert)
	}
	return nil
}

// judgeCertificate returns why a certificate does not open the account by the
// line of its CA (sshkey_cert_check_authority, cert_option_list).
func (a Attempt) judgeCertificate(g Grant, cert *ssh.Certificate) error {
	command, forced := cert.CriticalOptions["force-command"]
	if forced && g.HasForcedCommand && command != g.ForcedCommand {
		return Errorf(Denied, "the certificate and the line force different commands")
	}
	if list, ok := cert.CriticalOptions["source-address"]; ok && !matchSourceAddress(a.Addr, list) {
		return Errorf(Denied, "the certificate's source-address %q does not allow %s", list, a.Addr)
	}
	if g.HasPrincipals && !slices.ContainsFunc(cert.ValidPrincipals, func(p string) bool { return slices.Contains(strings.Split(g.Principals, ","), p) }) {
		return Errorf(Denied, "the certificate has none of the principals %q", g.Principals)
	}
	if !g.HasPrincipals && len(cert.ValidPrincipals) > 0 && !slices.Contains(cert.ValidPrincipals, a.User) {
		return Errorf(Denied, "the certificate's principals do not include %q", a.User)
	}
	if len(cert.ValidPrincipals) == 0 && a.Server.AtLeast(10, 3) {
		return Errorf(Denied, "the certificate has no principals")
	}
	if cert.CertType != ssh.UserCert {
		return Errorf(Denied, "it is not a user certificate")
	}
	// What is left is checked by x/crypto: times, the signature, and that no
	// critical option is unknown.
	principal := ""
	if len(cert.ValidPrincipals) > 0 {
		principal = cert.ValidPrincipals[0]
	}
	checker := ssh.CertChecker{
		SupportedCriticalOptions: []string{"force-command", "source-address", "verify-required"},
		Clock:                    func() time.Time { return a.Time },
	}
	if err := checker.CheckCert(principal, cert); err != nil {
		return Errorf(Denied, "the certificate does not hold: %w", err)
	}
	return nil
}

// matchSourceAddress matches an address against a certificate's list of
// addresses and networks, which knows neither patterns nor negation
// (addr_match_cidr_list).
func matchSourceAddress(addr netip.Addr, list string) bool {
	matched := false
	for entry := range strings.SplitSeq(list, ",") {
		network, form := parseNetwork(entry)
		if form != networkValid {
			return false
		}
		matched = matched || network.Contains(addr.WithZone(""))
	}
	return matched
}

// dropbearReader reads as Dropbear: "\r" ends a line too, and from 2026.92 on
// only so many lines are read.
func dropbearReader(v ServerVersion) lineReader {
	count := 0
	return func(l AuthorizedLine, key PublicKey) (held, more bool, why error) {
		for text := range strings.SplitSeq(strings.TrimSuffix(l.text+l.end, "\n"), "\r") {
			if count++; count > dropbearLines && v.AtLeast(2026, 92) {
				return held, false, why
			}
			if found, err := dropbearReads(text, key, v); found {
				held, why = true, err
				if err == nil {
					return true, true, nil
				}
			}
		}
		return held, true, why
	}
}

// tinysshReader reads as TinySSH: NUL ends a line too.
func tinysshReader(l AuthorizedLine, key PublicKey) (held, more bool, why error) {
	for text := range strings.SplitSeq(l.text, "\x00") {
		if len(text)+1 >= tinysshLine {
			return false, false, nil
		}
		if tinysshReads(text, key) == nil {
			return true, true, nil
		}
	}
	// What it does not read it passes over; a line of the key is worth a word.
	if l.kind == KeyLine && l.key == key {
		return true, true, tinysshReads(l.text, key)
	}
	return false, true, nil
}
