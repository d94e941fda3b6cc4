package policy

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"keyturn/internal/trust"
)

// A Kind says what a rule is about, by the name that it has in Cloudflare Access.
type Kind string

// The kinds that are decided. A rule of any other is kept as it was written, and
// whether it holds is unknown.
const (
	Email                Kind = "email"        // Value: an address, without regard to case
	EmailDomain          Kind = "email_domain" // Value: what follows the last "@", without regard to case
	Everyone             Kind = "everyone"
	InGroup              Kind = "group"         // Value: a Group's id
	IP                   Kind = "ip"            // Value: an address or a network
	InIPList             Kind = "ip_list"       // Value: an IPList's id
	ServiceToken         Kind = "service_token" // Value: the token's id
	AnyValidServiceToken Kind = "any_valid_service_token"
	LoginMethod          Kind = "login_method" // Value: an identity provider's id, or LocalLogin
	Certificate          Kind = "certificate"
	CommonName           Kind = "common_name" // Value: the name in a client certificate
	AuthMethod           Kind = "auth_method" // Value: a method of RFC 8176
	OIDC                 Kind = "oidc"        // Provider, Claim and Value: what an identity provider said
	// User is Keyturn's own.
	User Kind = "user" // Value: a user's id
)

// parameters are the names of what a rule of each kind says, in its JSON form:
// those of Value, Provider and Claim, in this order.
var parameters = map[Kind][]string{
	Email:                {"email"},
	EmailDomain:          {"domain"},
	Everyone:             {},
	InGroup:              {"id"},
	IP:                   {"ip"},
	InIPList:             {"id"},
	ServiceToken:         {"token_id"},
	AnyValidServiceToken: {},
	LoginMethod:          {"id"},
	Certificate:          {},
	CommonName:           {"common_name"},
	AuthMethod:           {"auth_method"},
	OIDC:                 {"claim_value", "identity_provider_id", "claim_name"},
	User:                 {"id"},
}

// A Rule is one condition on who asks.
type Rule struct {
	Kind     Kind
	Value    string
	Provider string
	Claim    string
	// Fields are the parameters of a rule of a kind that is not decided: a JSON
	// object, as it was written but for white space.
	Fields string
}

// Decided reports whether r is of a kind that is decided.
func (r Rule) Decided() bool {
	_, ok := parameters[r.Kind]
	return ok
}

// Limits of one rule.
const (
	maxKind   = 64
	maxValue  = 1024
	maxFields = 8 << 10
)

// Check refuses a rule that cannot be one. The error is Invalid.
func (r Rule) Check() error {
	names, decided := parameters[r.Kind]
	if !decided {
		return r.checkUndecided()
	}
	for i, value := range []string{r.Value, r.Provider, r.Claim} {
		switch {
		case i >= len(names) && value != "":
			return trust.Errorf(trust.Invalid, "a rule %q has no %q", r.Kind, value)
		case i < len(names) && value == "":
			return trust.Errorf(trust.Invalid, "a rule %q needs its %q", r.Kind, names[i])
		case len(value) > maxValue:
			return trust.Errorf(trust.Invalid, "the %q of a rule %q is longer than %d bytes", names[i], r.Kind, maxValue)
		}
	}
	if r.Kind == IP {
		if _, err := ParsePrefix(r.Value); err != nil {
			return err
		}
	}
	if r.Kind == Email && strings.LastIndexByte(r.Value, '@') < 1 {
		return trust.Errorf(trust.Invalid, "%q is not an address of e-mail", r.Value)
	}
	return nil
}

func (r Rule) checkUndecided() error {
	known := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-'
	}
	var fields map[string]json.RawMessage
	switch {
	case r.Kind == "" || len(r.Kind) > maxKind || strings.ContainsFunc(string(r.Kind), func(c rune) bool { return !known(c) }):
		return trust.Errorf(trust.Invalid, "%.80q is not a kind of rule", r.Kind)
	case len(r.Fields) > maxFields:
		return trust.Errorf(trust.Invalid, "a rule %q of %d bytes is longer than %d", r.Kind, len(r.Fields), maxFields)
	case json.Unmarshal([]byte(r.Fields), &fields) != nil || fields == nil:
		return trust.Errorf(trust.Invalid, "%q is not a kind of rule that Keyturn decides; of another, the parameters are a JSON object", r.Kind)
	}
	return nil
}

// ParsePrefix reads an address or a network, as rules have them. An IPv4 address
// in IPv6 is the IPv4 address. Bits beyond the mask are refused.
func ParsePrefix(text string) (netip.Prefix, error) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr, addrErr := netip.ParseAddr(text)
		if addrErr != nil || addr.Zone() != "" {
			return netip.Prefix{}, trust.Errorf(trust.Invalid, "%.80q is neither an address nor a network", text)
		}
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	if addr := prefix.Addr(); addr.Is4In6() && prefix.Bits() >= 96 {
		prefix = netip.PrefixFrom(addr.Unmap(), prefix.Bits()-96)
	}
	if prefix.Masked() != prefix {
		return netip.Prefix{}, trust.Errorf(trust.Invalid, "%.80q has bits beyond its mask: %s is the network", text, prefix.Masked())
	}
	return prefix, nil
}

// ParseRule reads a rule as String writes it: its kind, and after ":" what it
// compares with.
//
//	everyone
//	email_domain:example.com
//	oidc:PROVIDER:CLAIM=VALUE
//	geo:{"country_code":"DE"}
//
// The error is Invalid.
func ParseRule(text string) (Rule, error) {
	kind, rest, hasRest := strings.Cut(text, ":")
	r := Rule{Kind: Kind(kind)}
	names, decided := parameters[r.Kind]
	switch {
	case strings.HasPrefix(rest, "{"):
		fields, err := json.Marshal(map[Kind]json.RawMessage{r.Kind: json.RawMessage(rest)})
		if err != nil {
			return Rule{}, trust.Errorf(trust.Invalid, "the parameters of rule %.80q are not a JSON object", text)
		}
		err = r.UnmarshalJSON(fields)
		return r, err
	case decided && len(names) == 0 && hasRest:
		return Rule{}, trust.Errorf(trust.Invalid, "a rule %q has nothing after it", r.Kind)
	case r.Kind == OIDC:
		provider, claim, _ := strings.Cut(rest, ":")
		r.Provider = provider
		r.Claim, r.Value, _ = strings.Cut(claim, "=")
	default:
		r.Value = rest
	}
	if err := r.Check(); err != nil {
		return Rule{}, err
	}
	return r, nil
}

// String returns r as ParseRule reads it.
func (r Rule) String() string {
	if !r.Decided() {
		return string(r.Kind) + ":" + r.Fields
	}
	text := string(r.Kind)
	switch {
	case r.Kind == OIDC:
		text += ":" + r.Provider + ":" + r.Claim + "=" + r.Value
	case len(parameters[r.Kind]) > 0:
		text += ":" + r.Value
	}
	if back, err := ParseRule(text); err != nil || back != r {
		fields, _ := json.Marshal(r.fields()) // strings alone
		return string(r.Kind) + ":" + string(fields)
	}
	return text
}

// fields are the parameters of a rule that is decided, by name.
func (r Rule) fields() map[string]string {
	fields := map[string]string{}
	for i, name := range parameters[r.Kind] {
		fields[name] = []string{r.Value, r.Provider, r.Claim}[i]
	}
	return fields
}

// MarshalJSON returns r as Cloudflare Access has it: an object whose one member
// is named by the kind.
func (r Rule) MarshalJSON() ([]byte, error) {
	if !r.Decided() {
		return json.Marshal(map[Kind]json.RawMessage{r.Kind: json.RawMessage(r.Fields)})
	}
	return json.Marshal(map[Kind]map[string]string{r.Kind: r.fields()})
}

// UnmarshalJSON is the inverse of MarshalJSON. A parameter that a rule of a kind
// that is decided does not have is refused, since it might say what the rule does
// not do. The error is Invalid.
func (r *Rule) UnmarshalJSON(data []byte) error {
	var object map[Kind]json.RawMessage
	if err := json.Unmarshal(data, &object); err != nil || len(object) != 1 {
		return trust.Errorf(trust.Invalid, "a rule is an object with one member, named by the kind of rule")
	}
	*r = Rule{}
	for kind, fields := range object {
		r.Kind = kind
		if !r.Decided() {
			var compact bytes.Buffer
			_ = json.Compact(&compact, fields) // was read as JSON above
			r.Fields = compact.String()
			return r.Check()
		}
		var values map[string]string
		if err := json.Unmarshal(fields, &values); err != nil || values == nil {
			return trust.Errorf(trust.Invalid, "the parameters of a rule %q are an object of texts", kind)
		}
		into := []*string{&r.Value, &r.Provider, &r.Claim}
		for name, value := range values {
			i := slices.Index(parameters[kind], name)
			if i < 0 {
				return trust.Errorf(trust.Invalid, "a rule %q has no %.80q", kind, name)
			}
			*into[i] = value
		}
	}
	return r.Check()
}

// fold returns text in lower case, as far as it is ASCII: no other letter is ever
// the same as one of those.
func fold(text string) string {
	if !strings.ContainsFunc(text, func(c rune) bool { return c >= 'A' && c <= 'Z' }) {
		return text
	}
	b := []byte(text)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}

// splitEmail returns what stands before and after the last "@" of an address, in
// lower case.
func splitEmail(address string) (local, domain string) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 {
		return "", ""
	}
	return fold(address[:at]), fold(address[at+1:])
}
