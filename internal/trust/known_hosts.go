package trust

import (
	"crypto/hmac"
	"crypto/sha1" //nolint:gosec // what known_hosts hashes names with
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
)

// This file reads known_hosts (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT") the way
// OpenSSH's hostfile.c does, and keeps every byte of it.

// A HostMarker is the word that a known_hosts line may start with.
type HostMarker string

// The markers of known_hosts.
const (
	NoMarker            HostMarker = ""
	CertAuthorityMarker HostMarker = "@cert-authority"
	RevokedMarker       HostMarker = "@revoked"
)

// KnownHosts is the content of one known_hosts file. Every byte that is not
// deliberately changed stays as it was. Lines are counted from 0.
type KnownHosts struct {
	lines []KnownHostLine
}

// A KnownHostLine is one line of a known_hosts file.
type KnownHostLine struct {
	textLine
	kind   LineKind
	reason string
	marker HostMarker
	keyText
	// Where the names of a key line start and end in its text.
	hostsAt, hostsEnd int
}

// HostName returns the name under which known_hosts holds a host: "host" for
// port 22 or 0, and else "[host]:port". Names are compared in lower case.
func HostName(host string, port int) string {
	host = lowerASCII(strings.Trim(host, "[]"))
	if port == 22 || port == 0 {
		return host
	}
	return fmt.Sprintf("[%s]:%d", host, port)
}

// ParseKnownHosts reads data. It never fails: what ssh does not read is kept as
// it is.
func ParseKnownHosts(data []byte) *KnownHosts {
	split := splitLines(data)
	f := &KnownHosts{lines: make([]KnownHostLine, len(split))}
	for i, l := range split {
		f.lines[i] = parseKnownHostLine(l)
	}
	return f
}

// Bytes returns the content of the file.
func (f *KnownHosts) Bytes() []byte { return joinLines(f.lines) }

// Len returns the number of lines.
func (f *KnownHosts) Len() int { return len(f.lines) }

// Line returns line i.
func (f *KnownHosts) Line(i int) KnownHostLine { return f.lines[i] }

// Lines returns all lines.
func (f *KnownHosts) Lines() []KnownHostLine { return slices.Clone(f.lines) }

// Kind says what the line is.
func (l *KnownHostLine) Kind() LineKind { return l.kind }

// Reason says, of an UnknownLine, why it is not read.
func (l *KnownHostLine) Reason() string { return l.reason }

// Marker returns the marker of a KeyLine.
func (l *KnownHostLine) Marker() HostMarker { return l.marker }

// Hosts returns the names of a KeyLine as they stand there: comma-separated
// patterns, or one hashed name.
func (l *KnownHostLine) Hosts() string { return l.text[l.hostsAt:l.hostsEnd] }

// Hashed reports whether the name of a KeyLine is hashed.
func (l *KnownHostLine) Hashed() bool { return strings.HasPrefix(l.Hosts(), "|") }

// Key returns the key of a KeyLine, else the zero key.
func (l *KnownHostLine) Key() PublicKey { return l.key }

// Comment returns what follows the key in a KeyLine.
func (l *KnownHostLine) Comment() string { return l.comment(l.text) }

// With returns the text of l with key in the place of its own, all else byte for
// byte.
func (l *KnownHostLine) With(key PublicKey) string { return l.with(l.text, key) }

// Matches reports whether a KeyLine is about the host of this name, in the form
// of HostName: by a pattern of the line that matches while none that starts with
// "!" does, or by the hash.
func (l *KnownHostLine) Matches(name string) bool {
	if l.kind != KeyLine {
		return false
	}
	name = lowerASCII(name)
	if l.Hashed() {
		salt, ok := hashSalt(l.Hosts())
		return ok && hashName(name, salt) == l.Hosts()
	}
	return matchPatternList(name, l.Hosts(), true) == matchYes
}

// names reports whether the line names the host itself, rather than by a
// pattern.
func (l *KnownHostLine) names(name string) bool {
	if l.Hashed() {
		return l.Matches(name)
	}
	return l.Matches(name) && slices.ContainsFunc(strings.Split(l.Hosts(), ","), func(h string) bool { return lowerASCII(h) == lowerASCII(name) })
}

// A HostKnowledge is what a known_hosts file says of a host.
type HostKnowledge struct {
	// Keys are the host's keys, CAs the keys that may sign its certificates,
	// Revoked what must not be accepted, each in the order of the file.
	Keys, CAs, Revoked []PublicKey
}

// Lookup returns what the file says of the host of this name, in the form of
// HostName.
func (f *KnownHosts) Lookup(name string) HostKnowledge {
	var h HostKnowledge
	for _, i := range f.Find(name) {
		l := f.lines[i]
		switch l.marker {
		case CertAuthorityMarker:
			h.CAs = append(h.CAs, l.key)
		case RevokedMarker:
			h.Revoked = append(h.Revoked, l.key)
		default:
			h.Keys = append(h.Keys, l.key)
		}
	}
	return h
}

// Find returns the numbers of the lines that are about the host of this name.
func (f *KnownHosts) Find(name string) []int {
	var found []int
	for i, l := range f.lines {
		if l.Matches(name) {
			found = append(found, i)
		}
	}
	return found
}

// FindKey returns the numbers of the lines that hold key, whatever they say of
// it.
func (f *KnownHosts) FindKey(key PublicKey) []int {
	var found []int
	for i, l := range f.lines {
		if l.kind == KeyLine && l.key == key {
			found = append(found, i)
		}
	}
	return found
}

// KnownHostText returns a line, without its ending, that says that key is a key
// of the hosts of these names, in the form of HostName. A name made by
// HashHostName stands alone.
func KnownHostText(names []string, key PublicKey, comment string) (string, error) {
	for _, n := range names {
		if _, hashed := hashSalt(n); hashed && len(names) == 1 {
			break
		}
		if n == "" || strings.ContainsAny(n, ", \t\r\n\x00*?!|@#") {
			return "", Errorf(Invalid, "%q cannot be the name of a host in known_hosts", abbreviate(n))
		}
	}
	return knownHostText(names, key, comment)
}

// KnownAuthorityText returns a line, without its ending, that says by its marker that key
// signs for the hosts of these names, which may be patterns with "*", or that what it signed
// for them is revoked.
func KnownAuthorityText(marker HostMarker, names []string, key PublicKey, comment string) (string, error) {
	for _, n := range names {
		if _, hashed := hashSalt(n); hashed && len(names) == 1 {
			break
		}
		if n == "" || strings.ContainsAny(n, ", \t\r\n\x00?!|@#") {
			return "", Errorf(Invalid, "%q cannot be a pattern for hosts in known_hosts", abbreviate(n))
		}
	}
	text, err := knownHostText(names, key, comment)
	return string(marker) + " " + text, err
}

func knownHostText(names []string, key PublicKey, comment string) (string, error) {
	if len(names) == 0 {
		return "", Errorf(Invalid, "a line of known_hosts needs a name")
	}
	text := strings.TrimSpace(strings.Join(names, ",") + " " + key.String() + " " + comment)
	return text, checkLine(text)
}

// HashHostName returns name as ssh writes it under HashKnownHosts. The salt must
// be random.
func HashHostName(name string, salt [20]byte) string { return hashName(lowerASCII(name), salt[:]) }

func hashName(name string, salt []byte) string {
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	return "|1|" + base64.StdEncoding.EncodeToString(salt) + "|" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// hashSalt returns the salt of a hashed name.
func hashSalt(hosts string) ([]byte, bool) {
	rest, ok := strings.CutPrefix(hosts, "|1|")
	encoded, _, found := strings.Cut(rest, "|")
	salt, err := base64.StdEncoding.Strict().DecodeString(encoded)
	return salt, ok && found && err == nil && len(salt) == sha1.Size
}

// parseKnownHostLine reads one line in the steps of hostkeys_foreach_file.
func parseKnownHostLine(line textLine) KnownHostLine {
	l := KnownHostLine{textLine: line, kind: UnknownLine}
	seen := visible(l.text)
	at := skipBlanks(seen, 0)
	switch {
	case strings.Trim(seen[at:], "\r") == "":
		l.kind = BlankLine
		return l
	case seen[at] == '#':
		l.kind = CommentLine
		return l
	}
	marker, hostsAt, ok := readMarker(seen, at)
	if !ok {
		l.reason = "its marker is neither @cert-authority nor @revoked, alone"
		return l
	}
	hostsEnd := skipWord(seen, hostsAt)
	if hostsEnd == len(seen) {
		l.reason = "it is one word: no key follows the names"
		return l
	}
	hosts := seen[hostsAt:hostsEnd]
	if _, ok := hashSalt(hosts); !ok && strings.HasPrefix(hosts, "|") {
		l.reason = "its hashed name is malformed"
		return l
	}
	k, ok := readKeyText(seen, skipBlanks(seen, hostsEnd))
	if !ok {
		l.reason = whyNoKey(seen[skipBlanks(seen, hostsEnd):])
		return l
	}
	l.kind, l.marker, l.keyText = KeyLine, marker, k
	l.hostsAt, l.hostsEnd = hostsAt, hostsEnd
	return l
}

// readMarker reads the marker at offset at of a line, if there is one, and
// returns what it is and where the names start.
func readMarker(seen string, at int) (marker HostMarker, hostsAt int, ok bool) {
	if !strings.HasPrefix(seen[at:], "@") {
		return NoMarker, at, true
	}
	end := strings.IndexByte(seen[at:], ' ')
	if end < 0 {
		end = strings.IndexByte(seen[at:], '\t')
	}
	if end < 0 {
		return NoMarker, at, false
	}
	marker = HostMarker(seen[at : at+end])
	hostsAt = skipBlanks(seen, at+end)
	known := marker == CertAuthorityMarker || marker == RevokedMarker
	return marker, hostsAt, known && !strings.HasPrefix(seen[hostsAt:], "@")
}

// A HostVerdict is what ssh makes of the key that a host shows, by known_hosts.
type HostVerdict string

// The verdicts on a host's key.
const (
	HostKnown   HostVerdict = "known"   // the key is one of the host's
	HostUnknown HostVerdict = "unknown" // nothing is known of keys of this type
	HostChanged HostVerdict = "changed" // another key of this type is the host's
	HostRevoked HostVerdict = "revoked" // the key is revoked for the host
)

// Verdict judges a plain key that the host of this name shows, as ssh does
// (check_key_in_hostkeys): a revoked key first, then a key that is known, then
// one that differs in what is known of its type.
func (f *KnownHosts) Verdict(name string, key PublicKey) HostVerdict {
	h := f.Lookup(name)
	if slices.Contains(h.Revoked, key) {
		return HostRevoked
	}
	if slices.Contains(h.Keys, key) {
		return HostKnown
	}
	if slices.ContainsFunc(h.Keys, func(k PublicKey) bool { return k.Type() == key.Type() }) {
		return HostChanged
	}
	return HostUnknown
}
