package trust

import (
	"fmt"
	"strconv"
	"strings"
)

// A ServerFamily is a program that serves SSH, as far as it reads files of
// trust in a way of its own.
type ServerFamily string

// The families whose rules this package knows.
const (
	OpenSSH     ServerFamily = "openssh"
	Dropbear    ServerFamily = "dropbear"
	TinySSH     ServerFamily = "tinyssh"
	OtherServer ServerFamily = "other"
)

// A ServerVersion is what an SSH server says it is in its identification string
// (RFC 4253, section 4.2). It is a claim: banners can be edited.
type ServerVersion struct {
	Family ServerFamily
	// Major and Minor order versions within a family: 9 and 2 of "OpenSSH_9.2p1",
	// 2022 and 83 of "dropbear_2022.83", 20240101 and 0 of "tinyssh_20240101".
	Major, Minor int
	// Portable is the portable release, 1 of "9.2p1", or 0.
	Portable int
	// Software is the software version, "OpenSSH_9.2p1", and Comments is what
	// follows it, "Debian-2+deb12u10".
	Software, Comments string
}

// OpenSSHVersion returns the version major.minor of OpenSSH.
func OpenSSHVersion(major, minor int) ServerVersion {
	return ServerVersion{Family: OpenSSH, Major: major, Minor: minor, Software: fmt.Sprintf("OpenSSH_%d.%d", major, minor)}
}

// ParseServerVersion reads an identification string, with or without its
// "SSH-2.0-" and line ending, or what "sshd -V" and "dropbear -V" print. It refuses
// only a string that cannot be one; an unknown program is OtherServer.
func ParseServerVersion(banner string) (ServerVersion, error) {
	text := strings.TrimRight(banner, "\r\n")
	if rest, ok := strings.CutPrefix(text, "SSH-"); ok {
		protocol, software, found := strings.Cut(rest, "-")
		if !found || (protocol != "2.0" && protocol != "1.99") {
			return ServerVersion{}, Errorf(Invalid, "identification string %q is not of SSH protocol 2.0", abbreviate(text))
		}
		text = software
	}
	if text == "" || len(text) > 255 || strings.ContainsAny(text, "\r\n\x00") {
		return ServerVersion{}, Errorf(Invalid, "%q is not an SSH identification string", abbreviate(text))
	}
	if rest, ok := strings.CutPrefix(text, "Dropbear v"); ok {
		text = "dropbear_" + rest
	}
	software, comments, _ := strings.Cut(text, " ")
	software = strings.TrimSuffix(software, ",")
	v := ServerVersion{Family: OtherServer, Software: software, Comments: comments}
	for _, f := range []struct {
		prefix string
		family ServerFamily
	}{{"OpenSSH_for_Windows_", OpenSSH}, {"OpenSSH_", OpenSSH}, {"OpenSSH-", OpenSSH}, {"dropbear_", Dropbear}, {"dropbear", Dropbear}, {"tinyssh_", TinySSH}, {"tinyssh", TinySSH}} {
		if number, ok := strings.CutPrefix(software, f.prefix); ok {
			v.Family = f.family
			v.Major, number = leadingNumber(number)
			if rest, ok := strings.CutPrefix(number, "."); ok {
				v.Minor, number = leadingNumber(rest)
			}
			if i := strings.IndexByte(number, 'p'); i >= 0 && f.family == OpenSSH {
				v.Portable, _ = leadingNumber(number[i+1:])
			}
			break
		}
	}
	return v, nil
}

// AtLeast reports whether v is of a version major.minor or later. A version
// that could not be told (0.0) counts as the newest.
func (v ServerVersion) AtLeast(major, minor int) bool {
	if v.Major == 0 && v.Minor == 0 {
		return true
	}
	return v.Major > major || v.Major == major && v.Minor >= minor
}

// String returns the software version, or the family where that is not known.
func (v ServerVersion) String() string {
	if v.Software != "" {
		return v.Software
	}
	return string(v.Family)
}

// leadingNumber reads the decimal digits that s starts with, at most nine.
func leadingNumber(s string) (int, string) {
	i := 0
	for i < len(s) && i < 9 && s[i] >= '0' && s[i] <= '9' {
		i++
	}
	n, err := strconv.Atoi(s[:i])
	if err != nil {
		return 0, s
	}
	return n, s[i:]
}
