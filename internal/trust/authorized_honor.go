package trust

import (
	"slices"
	"strings"
	"time"
)

// Releases of OpenSSH from which on an option is known, by its name in lower
// case. A line with an option that the server does not know grants nothing.
var optionSince = map[string][2]int{
	"cert-authority":    {5, 4},
	"principals":        {5, 6},
	"restrict":          {7, 2},
	"agent-forwarding":  {7, 2},
	"port-forwarding":   {7, 2},
	"pty":               {7, 2},
	"user-rc":           {7, 2},
	"x11-forwarding":    {7, 2},
	"expiry-time":       {7, 7},
	"permitlisten":      {7, 8},
	"no-touch-required": {8, 2}, "touch-required": {8, 2},
	"verify-required": {8, 4}, "no-verify-required": {8, 4},
}

// A line of this many bytes, its ending included, makes TinySSH give up the file.
const tinysshLine = 65535

// HonoredBy returns nil if a server of version v reads a key in the line and
// accepts its options, and else an Invalid error that says why the line grants
// nothing there. It judges the text only: not whether a from= or expiry-time=
// is met, nor whether the server's configuration allows keys of that type. A
// server of a family without rules here is taken for the newest OpenSSH.
//
// A line is where OpenSSH sees one: to Dropbear "\r" ends a line too, and to
// TinySSH NUL, so that they may find keys in what is an unknown line here.
// WouldAccept knows of them.
//
// OpenSSH before 7.7 read some options more generously (several command= in one
// line); such a line is called refused here.
func (l *AuthorizedLine) HonoredBy(v ServerVersion) error {
	if l.kind != KeyLine {
		if l.kind == UnknownLine {
			return Errorf(Invalid, "no key is read: %s", l.reason)
		}
		return Errorf(Invalid, "no key is read: the line is %s", l.kind)
	}
	switch v.Family {
	case Dropbear:
		return l.honoredByDropbear(v)
	case TinySSH:
		return l.honoredByTinySSH()
	}
	return l.honoredByOpenSSH(v)
}

func (l *AuthorizedLine) honoredByOpenSSH(v ServerVersion) error {
	if l.key.IsCertificate() {
		return Errorf(Invalid, "a certificate in authorized_keys grants nothing: the line of its CA with cert-authority does")
	}
	if err := l.keyHonoredByOpenSSH(v); err != nil {
		return err
	}
	if l.grantErr != nil {
		return l.grantErr
	}
	for _, option := range l.Options() {
		name := lowerASCII(option.Name)
		if since := optionSince[name]; !v.AtLeast(since[0], since[1]) {
			return Errorf(Invalid, "%s does not know the option %q (OpenSSH %d.%d does)", v, name, since[0], since[1])
		}
		if name == "expiry-time" && !v.AtLeast(10, 4) {
			if err := oldExpiry(v, option.Value); err != nil {
				return err
			}
		}
	}
	return nil
}

// oldExpiry refuses the times that only later releases than v read.
func oldExpiry(v ServerVersion, value string) error {
	if strings.Trim(value, "0123456789 ") != "" && !v.AtLeast(9, 1) {
		return Errorf(Invalid, "%s does not know expiry times in UTC (OpenSSH 9.1 does)", v)
	}
	if t, err := parseAbsoluteTime(value, time.UTC); err == nil && t.Unix() < 0 {
		return Errorf(Invalid, "%s does not know times before 1970 (OpenSSH 10.4 does, and takes them for never)", v)
	}
	return nil
}

func (l *AuthorizedLine) keyHonoredByOpenSSH(v ServerVersion) error {
	name := l.key.Type()
	known := false
	for _, t := range keyTypes {
		if t.name == name {
			known = v.AtLeast(t.since[0], t.since[1]) && (t.until == [2]int{} || !v.AtLeast(t.until[0], t.until[1]))
		}
	}
	if !known {
		return Errorf(Invalid, "%s does not know keys of type %q", v, abbreviate(name))
	}
	if err := l.key.checkStructure(); err != nil {
		return err
	}
	if alias := l.text[l.typeAt:l.typeEnd]; alias != name && !v.AtLeast(8, 4) && (strings.HasPrefix(alias, "webauthn-") || !v.AtLeast(7, 2)) {
		return Errorf(Invalid, "%s does not know %q as the name of a key type", v, alias)
	}
	if v.AtLeast(7, 8) {
		return nil
	}
	limit := 16384
	if !v.AtLeast(7, 2) {
		limit = 8192
	}
	if len(l.text)+len(l.end) >= limit {
		return Errorf(Invalid, "%s does not read lines of more than %d bytes", v, limit-2)
	}
	if !v.AtLeast(7, 7) && (l.text[l.typeEnd:l.blobAt] != " " || strings.Contains(l.text[l.blobEnd:l.commentAt], "\t")) {
		return Errorf(Invalid, "%s takes only a single space before and a space behind the base64", v)
	}
	return nil
}

func (l *AuthorizedLine) honoredByDropbear(v ServerVersion) error {
	if !slices.Contains(dropbearTypes, l.key.Type()) {
		return Errorf(Invalid, "%s does not know keys of type %q", v, abbreviate(l.key.Type()))
	}
	for text := range strings.SplitSeq(l.text, "\r") {
		if found, err := dropbearReads(text, l.key, v); found {
			return err
		}
	}
	return Errorf(Invalid, "%s reads no key: the line is too long, has a NUL byte, or has other blanks than one between options, type and base64", v)
}

func (l *AuthorizedLine) honoredByTinySSH() error {
	if len(l.text)+len(l.end) >= tinysshLine {
		return Errorf(Invalid, "tinyssh does not read lines of %d bytes or more", tinysshLine)
	}
	return tinysshReads(l.text, l.key)
}

// tinysshReads returns why TinySSH does not find key in text: the line must
// start with the type, one space and the base64, compared as text
// (subprocess_auth.c).
func tinysshReads(text string, key PublicKey) error {
	if key.Type() != "ssh-ed25519" {
		return Errorf(Invalid, "tinyssh knows only keys of type %q", "ssh-ed25519")
	}
	rest, ok := strings.CutPrefix(text, key.String())
	if !ok {
		return Errorf(Invalid, "tinyssh takes no options and no blanks in front of the key")
	}
	if rest != "" && !strings.ContainsRune(" \r\x00", rune(rest[0])) {
		return Errorf(Invalid, "tinyssh takes only a space behind the key")
	}
	return nil
}
