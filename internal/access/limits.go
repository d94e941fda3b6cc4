package access

import (
	"encoding/json"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"

	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Limits of what one tenant can write.
const (
	MaxApplications = 5000
	MaxPolicies     = 100    // of one application
	MaxReusable     = 1000   // policies beside applications
	MaxSets         = 1000   // groups, and as many lists of networks
	MaxRules        = 1000   // of one policy or group
	MaxTotalRules   = 100000 // of all, where an address of a list counts as one
	MaxAddresses    = 5000   // of one list of networks
	MaxCriteria     = 100    // of one application
	MaxAttributes   = 1000   // hostnames and values of tags of one criterion
	MaxProviders    = 100    // of one application
	MaxUsernames    = 200    // of one policy
	MaxPrecedence   = 1 << 30

	maxName     = 255       // bytes
	maxUsername = 256       // bytes
	maxExtra    = 64 << 10  // bytes
	maxDepth    = 64        // of what is nested in a document
	maxDocument = 512 << 10 // bytes
)

// check refuses an application that cannot be one, and returns its document.
func (a Application) check() (string, error) {
	if err := checkNamed(a.ID, a.Name, a.Extra, true); err != nil {
		return "", err
	}
	switch {
	case len(a.Aud) != 64 || strings.Trim(a.Aud, "0123456789abcdef") != "":
		return "", trust.Errorf(trust.Internal, "audience %q is not 64 hex digits", a.Aud)
	case a.Type == "" || len(a.Type) > 32 || !isLine(string(a.Type)):
		return "", trust.Errorf(trust.Invalid, "%.80q is no type of application", a.Type).WithField("type")
	case len(a.Domain) > 2*maxName || !isLine(a.Domain):
		return "", trust.Errorf(trust.Invalid, "domain %.80q is longer than %d bytes, or not a line", a.Domain, 2*maxName).WithField("domain")
	case len(a.Providers) > MaxProviders:
		return "", trust.Errorf(trust.Invalid, "%d identity providers are more than %d", len(a.Providers), MaxProviders).WithField("providers")
	case a.Type == policy.Infrastructure && len(a.Criteria) == 0:
		return "", trust.Errorf(trust.Invalid, "an application of type %q needs a criterion that says which hosts it stands for", a.Type).WithField("criteria")
	case a.Type != policy.Infrastructure && len(a.Criteria) > 0:
		return "", trust.Errorf(trust.Invalid, "only applications of type %q have criteria on hosts", policy.Infrastructure).WithField("criteria")
	case len(a.Criteria) > MaxCriteria:
		return "", trust.Errorf(trust.Invalid, "%d criteria are more than %d", len(a.Criteria), MaxCriteria).WithField("criteria")
	}
	for _, id := range a.Providers {
		if id == "" || len(id) > maxName || !isLine(id) {
			return "", trust.Errorf(trust.Invalid, "%.80q is no id of an identity provider", id).WithField("providers")
		}
	}
	protocols := map[int]policy.Protocol{}
	for _, c := range a.Criteria {
		if err := c.check(); err != nil {
			return "", blame(err, "criteria")
		}
		if other, has := protocols[c.Port]; has && other != c.Protocol {
			return "", trust.Errorf(trust.Invalid, "port %d has both %s and %s: a port has one protocol", c.Port, other, c.Protocol).WithField("criteria")
		}
		protocols[c.Port] = c.Protocol
	}
	return encode(applicationDocument{a.Criteria, a.Providers, a.Extra})
}

func (c Criterion) check() error {
	switch {
	case c.Port < 1 || c.Port > 65535:
		return trust.Errorf(trust.Invalid, "port %d is not 1 to 65535", c.Port)
	case c.Protocol == "" || len(c.Protocol) > 16 || !isLine(string(c.Protocol)):
		return trust.Errorf(trust.Invalid, "%.80q is no protocol", c.Protocol)
	case c.Include.IsZero():
		return trust.Errorf(trust.Invalid, "a criterion includes no host")
	}
	n := 0
	for _, a := range []policy.Attributes{c.Include, c.Require, c.Exclude} {
		for _, name := range a.Hostnames {
			if n++; !isHostname(name) {
				return trust.Errorf(trust.Invalid, "%.80q is neither a hostname nor a pattern of one", name)
			}
		}
		for key, values := range a.Tags {
			if key == "" || len(key) > maxName || !isLine(key) || len(values) == 0 {
				return trust.Errorf(trust.Invalid, "tag %.80q has no name, or no value", key)
			}
			for _, value := range values {
				if n++; len(value) > maxName || !isLine(value) {
					return trust.Errorf(trust.Invalid, "value %.80q of tag %.80q is longer than %d bytes, or not a line", value, key, maxName)
				}
			}
		}
	}
	if n > MaxAttributes {
		return trust.Errorf(trust.Invalid, "a criterion of %d hostnames and values of tags has more than %d", n, MaxAttributes)
	}
	return nil
}

// isHostname reports whether text is a hostname, or a pattern with "*" and "?".
func isHostname(text string) bool {
	return text != "" && len(text) <= maxName && !strings.ContainsFunc(text, func(c rune) bool {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		return !letter && !strings.ContainsRune(".-_*?", c)
	})
}

// check refuses a policy that cannot be one, and returns its document.
func (p Policy) check() (string, error) {
	if err := checkNamed(p.ID, p.Name, p.Extra, false); err != nil {
		return "", err
	}
	switch p.Action {
	case policy.Allow, policy.Deny, policy.NonIdentity, policy.Bypass:
	default:
		return "", trust.Errorf(trust.Invalid, "decision %.80q is none of %s, %s, %s and %s", p.Action,
			policy.Allow, policy.Deny, policy.NonIdentity, policy.Bypass).WithField("decision")
	}
	if p.Precedence < 0 || p.Precedence > MaxPrecedence {
		return "", trust.Errorf(trust.Invalid, "precedence %d is not 1 to %d", p.Precedence, MaxPrecedence).WithField("precedence")
	}
	if err := checkExpression(p.Expression); err != nil {
		return "", err
	}
	if p.SSH != nil {
		if len(p.SSH.Usernames) > MaxUsernames {
			return "", trust.Errorf(trust.Invalid, "%d logins are more than %d", len(p.SSH.Usernames), MaxUsernames).WithField("logins")
		}
		for _, name := range p.SSH.Usernames {
			if !isLogin(name) {
				return "", trust.Errorf(trust.Invalid, "%.80q cannot be the name of an account on a host", name).WithField("logins")
			}
		}
	}
	return encode(policyDocument{p.Expression, p.SSH, p.Extra})
}

// isLogin reports whether text can be a principal of a certificate, and so has neither
// what separates those nor what hides in a log, and is no pattern, which sshd knows none of.
func isLogin(text string) bool {
	return text != "" && len(text) <= maxUsername && utf8.ValidString(text) && !strings.ContainsFunc(text, func(c rune) bool {
		return strings.ContainsRune(",*?", c) || unicode.IsSpace(c) || !unicode.IsPrint(c)
	})
}

// fits refuses a policy that an application cannot have.
func (p Policy) fits(a Application) error {
	if a.Type != policy.Infrastructure || p.Action == policy.Allow || p.Action == policy.NonIdentity {
		return nil
	}
	return trust.Errorf(trust.Invalid, "policy %q is to %s, and a policy of an application of type %q can only %s, or be for machines (%s)",
		p.Name, p.Action, a.Type, policy.Allow, policy.NonIdentity).WithField("decision")
}

func checkExpression(e policy.Expression) error {
	if n := len(e.Include) + len(e.Require) + len(e.Exclude); n > MaxRules {
		return trust.Errorf(trust.Invalid, "%d rules are more than %d", n, MaxRules).WithField("include")
	}
	if len(e.Include) == 0 {
		return trust.Errorf(trust.Invalid, "there is no rule that includes anybody").WithField("include")
	}
	for _, section := range []struct {
		name  string
		rules []policy.Rule
	}{{"include", e.Include}, {"require", e.Require}, {"exclude", e.Exclude}} {
		for _, r := range section.rules {
			if err := r.Check(); err != nil {
				return blame(err, section.name)
			}
		}
	}
	return nil
}

// checkNamed refuses what no thing can have as its id, its name and its Extra.
func checkNamed(id, name string, extra json.RawMessage, nameless bool) error {
	if uuid.Validate(id) != nil || id != strings.ToLower(id) {
		return trust.Errorf(trust.Invalid, "id %.80q is not a UUID in lower case", id).WithField("id")
	}
	if name == "" && !nameless || len(name) > maxName || !isLine(name) {
		return trust.Errorf(trust.Invalid, "name %.80q is not a line of 1 to %d bytes", name, maxName).WithField("name")
	}
	var object map[string]json.RawMessage
	if len(extra) > 0 && (len(extra) > maxExtra || !utf8.Valid(extra) || json.Unmarshal(extra, &object) != nil || object == nil) {
		return trust.Errorf(trust.Invalid, "what else is said of %.80q is not a JSON object of at most %d bytes", name, maxExtra)
	}
	return nil
}

// checkTotal refuses more rules than a tenant can have.
func checkTotal(tx *store.Tx, more int) error {
	n := 0
	if err := tx.QueryRow(sqlCountRules, tx.Tenant()).Scan(&n); err != nil {
		return err
	}
	if more > 0 && n+more > MaxTotalRules {
		return trust.Errorf(trust.Exhausted, "%d rules and %d more would be more than %d", n, more, MaxTotalRules)
	}
	return nil
}

// encode returns a document as JSON that every reader can read: few go as deep as a client
// may write.
func encode(document any) (string, error) {
	text, err := json.Marshal(document)
	if err != nil {
		return "", err
	}
	if depthOf(text) > maxDepth {
		return "", trust.Errorf(trust.Invalid, "arrays and objects are nested more than %d deep", maxDepth)
	}
	if len(text) > maxDocument {
		return "", trust.Errorf(trust.Invalid, "%d bytes are more than %d", len(text), maxDocument)
	}
	return string(text), nil
}

// depthOf returns how deep the arrays and objects of some JSON are nested.
func depthOf(text []byte) (deepest int) {
	depth, quoted := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && (c == '[' || c == '{'):
			depth++
			deepest = max(deepest, depth)
		case !quoted && (c == ']' || c == '}'):
			depth--
		}
	}
	return deepest
}

func isLine(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// blame returns an error that names a part of the request.
func blame(err error, field string) error {
	var e *trust.Error
	if errors.As(err, &e) && e.Field == "" {
		return e.WithField(field)
	}
	return err
}
