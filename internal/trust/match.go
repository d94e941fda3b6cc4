package trust

import (
	"net/netip"
	"strings"
)

// This file matches names and addresses against patterns as OpenSSH's match.c
// and addrmatch.c do.

// MatchPattern reports whether s matches pattern, in which "*" stands for any
// characters and "?" for one.
func MatchPattern(s, pattern string) bool {
	// star and mark: where to go back to when a "*" must take one more byte.
	star, mark, i, j := -1, 0, 0, 0
	for i < len(s) {
		switch {
		case j < len(pattern) && pattern[j] == '*':
			star, mark = j, i
			j++
		case j < len(pattern) && (pattern[j] == '?' || pattern[j] == s[i]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = mark, star+1
		default:
			return false
		}
	}
	return strings.Trim(pattern[j:], "*") == ""
}

// A matchResult is the answer of a list of patterns, some of which may forbid.
type matchResult int

const (
	matchNone matchResult = iota
	matchYes
	matchNegated
	matchInvalid
)

// matchPatternList matches s against comma-separated patterns; one that starts
// with "!" forbids. lower compares the patterns in lower case, which s must be in.
func matchPatternList(s, list string, lower bool) matchResult {
	result := matchNone
	for _, pattern := range splitList(list) {
		pattern, negated := strings.CutPrefix(pattern, "!")
		if len(pattern) >= 1023 {
			return matchNone
		}
		if lower {
			pattern = lowerASCII(pattern)
		}
		if !MatchPattern(s, pattern) {
			continue
		}
		if negated {
			return matchNegated
		}
		result = matchYes
	}
	return result
}

// splitList cuts list at commas as match_pattern_list does: nothing follows a
// last comma.
func splitList(list string) []string {
	list = strings.TrimSuffix(list, ",")
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

// matchAddressList matches an address against a list of addresses, networks and
// patterns of its text (addr_match_list). An empty entry, or a network with bits
// beyond its mask, makes the list invalid from there on.
func matchAddressList(addr netip.Addr, list string) matchResult {
	result := matchNone
	for entry := range strings.SplitSeq(list, ",") {
		entry, negated := strings.CutPrefix(entry, "!")
		if entry == "" {
			return matchInvalid
		}
		network, form := parseNetwork(entry)
		matched := false
		switch form {
		case networkInvalid:
			return matchInvalid
		case networkValid:
			matched = addr.IsValid() && network.Contains(addr.WithZone(""))
		case networkNone:
			matched = addr.IsValid() && MatchPattern(addr.String(), entry)
		}
		if !matched {
			continue
		}
		if negated {
			return matchNegated
		}
		result = matchYes
	}
	return result
}

// matchHost matches a client's resolved name (which is its address where the
// server does not look names up) and address against a list, as from= and
// "Match Host" do: either may match, a negated match of either forbids.
func matchHost(name string, addr netip.Addr, list string) matchResult {
	byAddress := matchAddressList(addr, list)
	if byAddress == matchInvalid || byAddress == matchNegated {
		return byAddress
	}
	byName := matchPatternList(lowerASCII(name), list, true)
	if byName == matchNegated {
		return matchNegated
	}
	if byName == matchYes || byAddress == matchYes {
		return matchYes
	}
	return matchNone
}

const (
	networkNone    = iota // neither an address nor a network
	networkValid          // one
	networkInvalid        // a network whose address has bits beyond its mask
)

// parseNetwork reads "address" or "address/bits" (addr_pton_cidr).
func parseNetwork(s string) (netip.Prefix, int) {
	if len(s) >= 64 {
		return netip.Prefix{}, networkNone
	}
	text, length, hasLength := strings.Cut(s, "/")
	bits := int64(0)
	if hasLength {
		n, ok := strtonum(length, 0, 0x7fffffff)
		if !ok {
			return netip.Prefix{}, networkNone
		}
		bits = n
	}
	addr, ok := parseAddress(text)
	if !ok {
		return netip.Prefix{}, networkNone
	}
	if !hasLength {
		bits = int64(addr.BitLen())
	}
	if bits > int64(addr.BitLen()) {
		return netip.Prefix{}, networkInvalid
	}
	network := netip.PrefixFrom(addr, int(bits))
	if network.Masked() != network {
		return netip.Prefix{}, networkInvalid
	}
	return network, networkValid
}

// parseAddress reads a numeric address as getaddrinfo does, which takes the
// short and hexadecimal forms of inet_aton too. A zone is dropped.
func parseAddress(s string) (netip.Addr, bool) {
	if strings.Contains(s, ":") {
		addr, err := netip.ParseAddr(s)
		return addr.WithZone(""), err == nil
	}
	parts := strings.Split(s, ".")
	if len(parts) > 4 {
		return netip.Addr{}, false
	}
	var value uint64
	for i, part := range parts {
		n, ok := parseCNumber(part)
		width := 8
		if i == len(parts)-1 {
			width = 8 * (5 - len(parts))
		}
		if !ok || n >= 1<<width {
			return netip.Addr{}, false
		}
		value = value<<width | n
	}
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)}), true
}

// parseCNumber reads an unsigned number in C's notation: 0x1f, 037 or 31.
func parseCNumber(s string) (uint64, bool) {
	base := uint64(10)
	switch {
	case len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X"):
		s, base = s[2:], 16
	case len(s) > 1 && s[0] == '0':
		s, base = s[1:], 8
	}
	if s == "" || len(s) > 12 {
		return 0, false
	}
	var n uint64
	for _, c := range []byte(s) {
		digit := uint64(16)
		switch {
		case c >= '0' && c <= '9':
			digit = uint64(c - '0')
		case c >= 'a' && c <= 'f':
			digit = uint64(c-'a') + 10
		case c >= 'A' && c <= 'F':
			digit = uint64(c-'A') + 10
		}
		if digit >= base {
			return 0, false
		}
		n = n*base + digit
	}
	return n, true
}

// lowerASCII is tolower of the C locale for each byte.
func lowerASCII(s string) string {
	for i := range len(s) {
		if s[i] >= 'A' && s[i] <= 'Z' {
			b := []byte(s)
			for j := i; j < len(b); j++ {
				if b[j] >= 'A' && b[j] <= 'Z' {
					b[j] += 'a' - 'A'
				}
			}
			return string(b)
		}
	}
	return s
}
