package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"hash/crc32"
	"math/big"
	"strings"

	"keyturn/internal/trust"
)

// An API token is "kt_", 43 characters that are 32 random bytes in base 62, and
// 6 characters that are the CRC-32 (IEEE) of those 43 characters in base 62:
//
//	kt_[0-9A-Za-z]{49}
//
// A login token, which keyturn login gets, is the same after "ktl_".
//
// Digits come before upper case before lower case; both numbers are big-endian
// and padded with "0". The prefix and the checksum let a scanner that finds such
// text in a repository or a log say that it is one of ours, without asking.
const (
	tokenPrefix      = "kt_"
	loginTokenPrefix = "ktl_"
	tokenRandom      = 32
	tokenDigits      = 43
	checksumDigit    = 6
	tokenLength      = len(tokenPrefix) + tokenDigits + checksumDigit
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// toBase62 returns b as a number of the given count of digits.
func toBase62(b []byte, digits int) string {
	n, radix, digit := new(big.Int).SetBytes(b), big.NewInt(62), new(big.Int)
	text := make([]byte, digits)
	for i := digits - 1; i >= 0; i-- {
		n.DivMod(n, radix, digit)
		text[i] = base62[digit.Int64()]
	}
	return string(text)
}

func checksum(digits string) string {
	sum := crc32.ChecksumIEEE([]byte(digits))
	return toBase62([]byte{byte(sum >> 24), byte(sum >> 16), byte(sum >> 8), byte(sum)}, checksumDigit)
}

// newToken makes the text of a token.
func newToken() string { return tokenPrefix + newDigits() }

// newLoginToken makes the text of a login token.
func newLoginToken() string { return loginTokenPrefix + newDigits() }

// newDigits makes what follows the prefix of a token.
func newDigits() string {
	b := make([]byte, tokenRandom)
	rand.Read(b)
	digits := toBase62(b, tokenDigits)
	return digits + checksum(digits)
}

// areDigits reports whether newDigits may have made s.
func areDigits(s string) bool {
	return len(s) == tokenDigits+checksumDigit && checksum(s[:tokenDigits]) == s[tokenDigits:]
}

// tokenHash returns what is stored of a token, or an Unauthenticated error for
// text that never was one: cut off, mistyped, something else.
func tokenHash(token string) ([]byte, error) {
	digits, ok := strings.CutPrefix(token, tokenPrefix)
	if !ok || !areDigits(digits) {
		return nil, trust.Errorf(trust.Unauthenticated, "this is not an API token: one has %d characters, of which the first are %q and the last a checksum", tokenLength, tokenPrefix)
	}
	sum := sha256.Sum256([]byte(token))
	return sum[:], nil
}

// newWebLoginID makes the id of a web login: 128 random bits that look like a
// UUID, which is the form that clients of AppViewX know.
func newWebLoginID() string {
	b := make([]byte, 16)
	rand.Read(b)
	h := hex.EncodeToString(b)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

// webLoginHash returns what is stored of a web login's id or login token.
func webLoginHash(id string) string {
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:])
}

// newID makes the id of a user or a token: 128 random bits as 32 hex digits, as
// is the id of a tenant.
func newID() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// isID reports whether newID may have made s.
func isID(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdef") == ""
}

// NewPassword makes a password for someone who gave none: 130 random bits in
// characters that are not mistaken for one another.
func NewPassword() string { return rand.Text() }
