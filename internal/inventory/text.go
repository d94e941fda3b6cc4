package inventory

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// isPlainText reports whether s is UTF-8 without control characters and
// without the characters that change the direction of what follows them.
func isPlainText(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
	})
}

// plainText returns s as text that a database, a terminal and a report can
// hold: what is not UTF-8 and what is a control character becomes U+FFFD, and
// what is beyond limit bytes is cut at a whole character.
func plainText(s string, limit int) string {
	if !isPlainText(s) {
		s = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
				return utf8.RuneError
			}
			return r
		}, strings.ToValidUTF8(s, "\uFFFD"))
	}
	if len(s) <= limit {
		return s
	}
	cut := limit
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut]
}
