package trust

import (
	"encoding/base64"
	"math"
	"slices"
	"strings"
)

// This file reads authorized_keys as Dropbear's svr-authpubkey.c and
// svr-authpubkeyoptions.c do. Dropbear looks for one key's line: it takes no
// blanks in front of a key without options, exactly one blank behind options,
// one space behind the type, and anything in the base64.

// Releases of Dropbear from which on an option is known. There are no others.
var dropbearOptions = []struct {
	name  string
	since [2]int
}{
	{"no-port-forwarding", [2]int{0, 0}},
	{"no-agent-forwarding", [2]int{0, 0}},
	{"no-x11-forwarding", [2]int{0, 0}},
	{"no-pty", [2]int{0, 0}},
	{`command="`, [2]int{0, 0}},
	{"restrict", [2]int{2022, 82}},
	{`permitopen="`, [2]int{2022, 83}},
	{"no-touch-required", [2]int{2022, 83}},
	{"verify-required", [2]int{2022, 83}},
	{`permitlisten="`, [2]int{2026, 90}},
}

// Dropbear's limits: bytes of a line, and lines of a file from 2026.92 on. Older
// releases read what is longer as several lines; here it is called not read.
const (
	dropbearLine    = 3000
	dropbearLineOld = 4200
	dropbearLines   = 300
)

// dropbearTypes are the types of keys that Dropbear knows, when all are built in.
var dropbearTypes = []string{
	"ssh-rsa", "ssh-dss", "ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
	"sk-ecdsa-sha2-nistp256@openssh.com", "sk-ssh-ed25519@openssh.com",
}

// dropbearReads reports whether Dropbear finds key in text, a line without "\r"
// and "\n", and if so why it refuses its options.
func dropbearReads(text string, key PublicKey, v ServerVersion) (found bool, err error) {
	limit := dropbearLine
	if !v.AtLeast(2026, 92) {
		limit = dropbearLineOld
	}
	name := key.Type()
	if !slices.Contains(dropbearTypes, name) || len(text) < 10 || len(text) > limit || len(name)+3 > len(text) || strings.Contains(text, "\x00") {
		return false, nil
	}
	options, rest := "", text
	if !strings.HasPrefix(rest, name) {
		start := skipBlanks(text, 0)
		if strings.HasPrefix(text[start:], "#") {
			return false, nil
		}
		end := dropbearOptionsEnd(text, start)
		options, rest = text[start:end], text[min(end+1, len(text)):]
	}
	rest, ok := strings.CutPrefix(rest, name+" ")
	if !ok || len(rest) < 2 {
		return false, nil
	}
	encoded, _, _ := strings.Cut(rest, " ")
	if dropbearBase64(encoded) != key.blob {
		return false, nil
	}
	return true, dropbearReadsOptions(options, v)
}

// dropbearOptionsEnd returns where options end that start at offset i of s. A
// quote behind a backslash opens or closes all the same, so that a command with
// blanks between escaped quotes is cut short.
func dropbearOptionsEnd(s string, i int) int {
	quoted := false
	for ; i < len(s) && (quoted || s[i] != ' ' && s[i] != '\t'); i++ {
		if s[i] == '"' {
			quoted = !quoted
		}
	}
	return i
}

// dropbearReadsOptions returns why Dropbear refuses options.
func dropbearReadsOptions(options string, v ServerVersion) error {
	commands := 0
	for rest := options; rest != ""; {
		matched, value := "", ""
		for _, option := range dropbearOptions {
			after, ok := cutPrefixFold(rest, option.name)
			if !ok || !v.AtLeast(option.since[0], option.since[1]) {
				continue
			}
			matched, rest = option.name, after
			if strings.HasSuffix(option.name, `"`) {
				value, rest, ok = dropbearQuoted(after, option.name == `command="`)
			}
			if !ok {
				return Errorf(Invalid, "key option %q is never closed", abbreviate(options))
			}
			break
		}
		switch matched {
		case `command="`:
			commands++
			if commands > 1 {
				return Errorf(Invalid, "key option %q is given more than once", "command")
			}
		case `permitopen="`:
			if !dropbearPermit(value, v) {
				return Errorf(Invalid, "invalid permitopen %q", abbreviate(value))
			}
		case `permitlisten="`:
			if !dropbearPort(value, v) {
				return Errorf(Invalid, "%s takes only a port in permitlisten, not %q", v, abbreviate(value))
			}
		}
		if rest == "" {
			break
		}
		if rest[0] != ',' {
			unknown, _, _ := strings.Cut(rest, ",")
			return Errorf(Invalid, "%s does not know the option %q", v, abbreviate(unknown))
		}
		rest = rest[1:]
	}
	return nil
}

// dropbearQuoted reads up to the closing quote, which escapes may hide.
func dropbearQuoted(s string, escapes bool) (value, rest string, ok bool) {
	for i := 0; i < len(s); i++ {
		switch {
		case escapes && s[i] == '\\':
			i++
		case s[i] == '"':
			return s[:i], s[i+1:], true
		}
	}
	return "", "", false
}

func dropbearPermit(value string, v ServerVersion) bool {
	at := strings.LastIndexByte(value, ':')
	if strings.HasPrefix(value, "[") {
		at = strings.IndexByte(value, ']') + 1
		if at == 0 || at >= len(value) || value[at] != ':' || at == 2 {
			return false
		}
	}
	return at > 0 && (value[at+1:] == "*" || dropbearPort(value[at+1:], v))
}

// dropbearPort accepts any number before 2026.92, and a port from then on.
func dropbearPort(value string, v ServerVersion) bool {
	high := int64(65535)
	if !v.AtLeast(2026, 92) {
		high = math.MaxUint32
	}
	_, ok := strtonum(value, 0, high)
	return ok
}

// dropbearBase64 decodes the way of libtomcrypt's base64_decode: characters that
// are not base64 count for nothing.
func dropbearBase64(encoded string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '+' || r == '/' {
			return r
		}
		return -1
	}, encoded)
	blob, err := base64.RawStdEncoding.DecodeString(clean)
	if err != nil {
		return ""
	}
	return string(blob)
}
