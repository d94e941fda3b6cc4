package inventory

import (
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"keyturn/internal/trust"
)

// ParseName checks the name by which people call a host and returns it in its
// canonical form, lower case. A name is like those of RFC 1123, section 2.1:
// labels of letters, digits, hyphens and underscores, each of 1 to 63 bytes,
// joined by dots, 253 bytes in all. A name that reads as a UUID is refused,
// because host ids are UUIDs and commands take either.
func ParseName(name string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", trust.Errorf(trust.Invalid, "host name %q %s", abbreviate(name), why).WithField("name")
	}
	if name == "" {
		return refuse("is empty")
	}
	if len(name) > 253 {
		return refuse("is longer than 253 bytes")
	}
	name = strings.ToLower(name)
	for label := range strings.SplitSeq(name, ".") {
		switch {
		case label == "":
			return refuse("has an empty label")
		case len(label) > 63:
			return refuse("has a label longer than 63 bytes")
		case label[0] == '-' || label[len(label)-1] == '-':
			return refuse("has a label that begins or ends with a hyphen")
		}
		for _, c := range []byte(label) {
			if !isLabelByte(c) {
				return refuse("may hold only letters, digits, hyphens, underscores and dots")
			}
		}
	}
	if _, err := uuid.Parse(name); err == nil {
		return refuse("reads as a host id")
	}
	return name, nil
}

// ParseAddress reads where a host's sshd listens, as "host:port", "host",
// "[IPv6]:port" or a bare IPv6 address, and returns its canonical form
// "host:port" by which two hosts at one address are told to be one: the port
// is 1 to 65535 and by default 22, DNS names are in lower case and without a
// final dot, IP addresses are as RFC 5952 writes them, and an IPv4 address
// mapped into IPv6 is that IPv4 address.
func ParseAddress(address string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", trust.Errorf(trust.Invalid, "address %q %s", abbreviate(address), why).WithField("address")
	}
	host, port := address, "22"
	if _, err := netip.ParseAddr(address); err != nil && strings.ContainsAny(address, ":[]") {
		host, port, err = net.SplitHostPort(address)
		if err != nil && strings.HasPrefix(address, "[") && strings.HasSuffix(address, "]") {
			host, port, err = address[1:len(address)-1], "22", nil
		}
		if err != nil {
			return refuse("is not of the form HOST:PORT")
		}
		if strings.HasPrefix(address, "[") != strings.Contains(host, ":") {
			return refuse("must hold an IPv6 address, and only that, in brackets")
		}
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return refuse("has a port that is not 1 to 65535")
	}
	if ip, err := netip.ParseAddr(host); err == nil {
		ip = ip.Unmap()
		switch {
		case ip.Zone() != "":
			return refuse("names a network interface of one machine")
		case ip.IsUnspecified() || ip.IsMulticast():
			return refuse("is not the address of one host")
		}
		return netip.AddrPortFrom(ip, uint16(number)).String(), nil
	}
	host, why := canonicalDomain(host)
	if why != "" {
		return refuse(why)
	}
	return net.JoinHostPort(host, strconv.FormatUint(number, 10)), nil
}

// canonicalDomain returns a DNS name in lower case without its final dot, or
// why it is none.
func canonicalDomain(host string) (name, why string) {
	name = strings.ToLower(strings.TrimSuffix(host, "."))
	if name == "" {
		return "", "names no host"
	}
	if len(name) > 253 {
		return "", "has a name longer than 253 bytes"
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", "holds neither an IP address nor a DNS name"
		}
		for _, c := range []byte(label) {
			if !isLabelByte(c) {
				return "", "holds neither an IP address nor a DNS name"
			}
		}
		last = label
	}
	// "127.1" and "0x7f000001" are IPv4 addresses to the C library's
	// inet_aton and names to others; they must not be a second spelling.
	if strings.Trim(last, "0123456789") == "" || strings.HasPrefix(last, "0x") {
		return "", "holds an IPv4 address that is not in dotted decimal"
	}
	return name, ""
}

// ParseUser checks the name of an account on a host: 1 to 255 bytes of
// printable text without whitespace, colons (which end it in passwd(5)) or
// slashes, not beginning with a hyphen.
func ParseUser(user string) (string, error) {
	refuse := func(why string) (string, error) {
		return "", trust.Errorf(trust.Invalid, "login %q %s", abbreviate(user), why).WithField("login")
	}
	switch {
	case user == "":
		return refuse("is empty")
	case len(user) > 255:
		return refuse("is longer than 255 bytes")
	case user[0] == '-':
		return refuse("begins with a hyphen")
	}
	if !isPlainText(user) || strings.ContainsAny(user, " :/") {
		return refuse("holds whitespace, control characters, colons or slashes")
	}
	return user, nil
}

// maxPath is PATH_MAX of Linux.
const maxPath = 4096

// CheckPlace refuses, as Invalid, a place whose account or path no database or
// report could hold as text. Paths are absolute; those of Linux may be any
// bytes, and it is a host's users who choose them.
func CheckPlace(p trust.Place) error {
	if p.Host == "" {
		return trust.Errorf(trust.Invalid, "place %q has no host", abbreviate(p.Path))
	}
	if _, err := ParseUser(p.User); err != nil {
		return err
	}
	if len(p.Path) > maxPath || !strings.HasPrefix(p.Path, "/") || !isPlainText(p.Path) {
		return trust.Errorf(trust.Invalid, "path %q is not an absolute path of printable text, at most %d bytes", abbreviate(p.Path), maxPath).WithField("path")
	}
	return nil
}

func isLabelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_'
}

func abbreviate(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
