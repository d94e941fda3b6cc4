package api

import (
	"net/http"
	"net/netip"
	"slices"
	"strings"
)

// Headers in which a proxy says for whom it asks.
const (
	XForwardedFor = "X-Forwarded-For"
	Forwarded     = "Forwarded" // RFC 7239
)

// Proxies are believed when they say for whom they ask. There are none in the zero
// value, and then what headers say is ignored: anybody can send them.
type Proxies struct {
	Trusted []netip.Prefix
	// Header is the one that the proxies write. The other one is ignored, because
	// proxies pass on what they do not know, whoever wrote it.
	Header string
}

// client returns the address that a request came from, before the proxies that it came
// through. Each has added to the right of the header whom it was asked by, so that what
// is left of the right-most one who is no proxy is what that one says of itself.
func (p Proxies) client(r *http.Request) string {
	from := Source(r)
	peer, ok := parseAddress(from)
	if !ok || !p.trusts(peer) {
		return from
	}
	hops := strings.Split(strings.Join(r.Header.Values(p.Header), ","), ",")
	for _, hop := range slices.Backward(hops) {
		if p.Header == Forwarded {
			hop = forwardedFor(hop)
		}
		address, ok := parseAddress(strings.TrimSpace(hop))
		if !ok { // "unknown", or nothing
			break
		}
		from = address.String()
		if !p.trusts(address) {
			break
		}
	}
	return from
}

func (p Proxies) trusts(a netip.Addr) bool {
	return slices.ContainsFunc(p.Trusted, func(trusted netip.Prefix) bool { return trusted.Contains(a) })
}

// forwardedFor returns the "for" of one element of a Forwarded header. One with a
// comma in quotes, which no address has, has come here in parts, and says nothing.
func forwardedFor(element string) string {
	for pair := range strings.SplitSeq(element, ";") {
		name, value, _ := strings.Cut(pair, "=")
		if strings.EqualFold(strings.TrimSpace(name), "for") {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return ""
}

// parseAddress reads an address as proxies write it: with or without a port, and of
// IPv6 with or without brackets.
func parseAddress(text string) (netip.Addr, bool) {
	a, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(text, "["), "]"))
	if err != nil {
		with, err := netip.ParseAddrPort(text)
		if err != nil {
			return netip.Addr{}, false
		}
		a = with.Addr()
	}
	return a.Unmap().WithZone(""), true
}
