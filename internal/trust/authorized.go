package trust

import (
	"slices"
	"strings"
)

// This file reads authorized_keys (sshd(8), "AUTHORIZED_KEYS FILE FORMAT") the
// way OpenSSH's auth2-pubkeyfile.c does, and keeps every byte of it.

// AuthorizedKeys is the content of one authorized_keys file. Every byte that is
// not deliberately changed stays as it was. Lines are counted from 0.
type AuthorizedKeys struct {
	lines []AuthorizedLine
}

// A LineKind says what a line of a file is.
type LineKind string

// The kinds of lines.
const (
	BlankLine   LineKind = "blank"
	CommentLine LineKind = "comment"
	// KeyLine holds a key, be it one that a server honors or not.
	KeyLine LineKind = "key"
	// UnknownLine is anything else. No server finds a key in it; Reason of the
	// line says why.
	UnknownLine LineKind = "unknown"
)

// An AuthorizedLine is one line of an authorized_keys file: an AuthorizedKey
// with its options, or what else a line can be.
type AuthorizedLine struct {
	textLine
	kind   LineKind
	reason string
	keyText
	// Where the options of a key line start and end in its text.
	optionsAt, optionsEnd int
	grant                 Grant
	grantErr              error
}

// ParseAuthorizedKeys reads data. It never fails: what is not a key line is
// kept as it is.
func ParseAuthorizedKeys(data []byte) *AuthorizedKeys {
	split := splitLines(data)
	f := &AuthorizedKeys{lines: make([]AuthorizedLine, len(split))}
	for i, l := range split {
		f.lines[i] = parseAuthorizedLine(l)
	}
	return f
}

// Bytes returns the content of the file.
func (f *AuthorizedKeys) Bytes() []byte { return joinLines(f.lines) }

// Len returns the number of lines.
func (f *AuthorizedKeys) Len() int { return len(f.lines) }

// Line returns line i.
func (f *AuthorizedKeys) Line(i int) AuthorizedLine { return f.lines[i] }

// Lines returns all lines.
func (f *AuthorizedKeys) Lines() []AuthorizedLine { return slices.Clone(f.lines) }

// Find returns the numbers of all lines that hold key, honored or not, in
// order. Keys are matched by blob, never by comment.
func (f *AuthorizedKeys) Find(key PublicKey) []int {
	var found []int
	for i, l := range f.lines {
		if l.kind == KeyLine && l.key == key {
			found = append(found, i)
		}
	}
	return found
}

// Kind says what the line is.
func (l *AuthorizedLine) Kind() LineKind { return l.kind }

// Reason says, of an UnknownLine, why no key was found in it.
func (l *AuthorizedLine) Reason() string { return l.reason }

// Key returns the key of a KeyLine, else the zero key.
func (l *AuthorizedLine) Key() PublicKey { return l.key }

// OptionsText returns the options of a KeyLine byte for byte, or "".
func (l *AuthorizedLine) OptionsText() string { return l.text[l.optionsAt:l.optionsEnd] }

// Options returns the options of a KeyLine in order, known or not.
func (l *AuthorizedLine) Options() []KeyOption { return splitOptions(l.OptionsText()) }

// Comment returns what follows the key in a KeyLine.
func (l *AuthorizedLine) Comment() string { return l.comment(l.text) }

// Grant returns what the line's options allow and demand, as the newest OpenSSH
// reads them, or an Invalid error that says why it refuses them.
func (l *AuthorizedLine) Grant() (Grant, error) {
	if l.kind != KeyLine {
		return Grant{}, Errorf(Invalid, "line holds no key: %s", l.reason)
	}
	return l.grant, l.grantErr
}

// With returns the text of l with key in the place of its own: leading blanks,
// options, spaces between the parts and comment stay byte for byte.
func (l *AuthorizedLine) With(key PublicKey) string { return l.with(l.text, key) }

// SameOptions reports whether two key lines grant the same: their options are
// equal byte for byte, or are both valid and amount to the same. Lines that are
// refused for their options are the same only where the bytes are.
func SameOptions(a, b AuthorizedLine) bool {
	if a.kind != KeyLine || b.kind != KeyLine {
		return false
	}
	if a.OptionsText() == b.OptionsText() {
		return true
	}
	return a.grantErr == nil && b.grantErr == nil && a.grant.Equal(b.grant)
}

// parseAuthorizedLine reads one line in the steps of auth_check_authkey_line:
// a key; or else options, and then a key.
func parseAuthorizedLine(line textLine) AuthorizedLine {
	l := AuthorizedLine{textLine: line, kind: UnknownLine}
	// The server reads lines as C strings: nothing behind a NUL is there.
	seen := visible(l.text)
	start := skipBlanks(seen, 0)
	switch {
	case strings.Trim(seen[start:], "\r") == "":
		l.kind = BlankLine
		return l
	case seen[start] == '#':
		l.kind = CommentLine
		return l
	}
	if k, ok := readKeyText(seen, start); ok {
		l.kind, l.keyText = KeyLine, k
		l.grant, l.grantErr = parseGrant("")
		return l
	}
	end, closed := optionsEnd(seen, start)
	if !closed {
		l.reason = "a quote is never closed"
		return l
	}
	k, ok := readKeyText(seen, skipBlanks(seen, end))
	if !ok {
		l.reason = whyNoKey(seen[start:])
		return l
	}
	l.kind, l.keyText = KeyLine, k
	l.optionsAt, l.optionsEnd = start, end
	l.grant, l.grantErr = parseGrant(l.OptionsText())
	return l
}
