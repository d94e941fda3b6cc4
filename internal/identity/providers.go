package identity

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyturn/internal/oidc"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A ProviderKind says whom an identity provider vouches for.
type ProviderKind string

const (
	// People log in at the provider in person, and become users.
	People ProviderKind = "people"
	// Machines, such as CI jobs, have a token of the provider's, which they
	// exchange.
	Machines ProviderKind = "machines"
)

// A Provider is an identity provider: an issuer of OpenID Connect whose word counts
// in a tenant, and for what.
type Provider struct {
	ID     string // 32 hex digits
	Name   string // unique in its tenant without regard to case
	Kind   ProviderKind
	Issuer string // its URL
	// Of people: what it knows Keyturn as, whether there is a secret to prove that,
	// what Keyturn asks it for, and the claim by which a new user is called.
	ClientID  string
	HasSecret bool
	Scopes    []string
	NameClaim string
	// Audiences are those for which a machine's token may be.
	Audiences []string
	Rules     []ClaimRule
	// Required is what has to be there whatever the rules say.
	Required []ClaimMatch
	Created  time.Time
}

// A NewProvider is what AddProvider makes a Provider of.
type NewProvider struct {
	Provider
	Secret string // of ClientID; "" for none, or the one that is there
}

// A ClaimMatch asks for a claim that says a value, or has it among others. A value
// that ends in "*", which only providers of machines have, asks for what begins so.
type ClaimMatch struct{ Claim, Value string }

// A ClaimRule gives a role to whom a claim matches.
type ClaimRule struct {
	ClaimMatch
	Role string
}

const arrow = " -> "

// ParseClaimMatch reads "claim=value".
func ParseClaimMatch(text string) (ClaimMatch, error) {
	claim, value, ok := strings.Cut(text, "=")
	m := ClaimMatch{strings.TrimSpace(claim), strings.TrimSpace(value)}
	if !ok || m.Claim == "" || m.Value == "" || !isLine(text) || strings.Contains(text, arrow) {
		return ClaimMatch{}, trust.Errorf(trust.Invalid, "%.200q is not of the form claim=value", text).WithField("required")
	}
	return m, nil
}

// ParseClaimRule reads "claim=value -> Role".
func ParseClaimRule(text string) (ClaimRule, error) {
	match, role, ok := strings.Cut(text, arrow)
	m, err := ParseClaimMatch(match)
	if !ok || err != nil || strings.TrimSpace(role) == "" {
		return ClaimRule{}, trust.Errorf(trust.Invalid, "%.200q is not of the form claim=value -> Role", text).WithField("rules")
	}
	return ClaimRule{m, strings.TrimSpace(role)}, nil
}

func (m ClaimMatch) String() string { return m.Claim + "=" + m.Value }

func (r ClaimRule) String() string { return r.ClaimMatch.String() + arrow + r.Role }

// isLine reports whether text is one line of 1 to 500 bytes.
func isLine(text string) bool {
	return text != "" && len(text) <= 500 && utf8.ValidString(text) && !strings.ContainsFunc(text, unicode.IsControl)
}

// in reports whether claims say what m asks for, in what the provider answers for: an
// address of e-mail that it has not verified is what anybody can say of himself.
func (m ClaimMatch) in(c oidc.Claims) bool {
	prefix, glob := strings.CutSuffix(m.Value, "*")
	return slices.ContainsFunc(c.Vouched(m.Claim), func(value string) bool {
		return value == m.Value || glob && strings.HasPrefix(value, prefix)
	})
}

// roles returns the roles that claims give, or why they give none.
func (p Provider) roles(c oidc.Claims) (names []string, missing string) {
	for _, m := range p.Required {
		if !m.in(c) {
			return nil, m.String() + " is required"
		}
	}
	for _, r := range p.Rules {
		if r.in(c) && !slices.Contains(names, r.Role) {
			names = append(names, r.Role)
		}
	}
	if len(names) == 0 {
		return nil, "no rule gives a role"
	}
	return names, ""
}

const (
	maxProviders = 20 // of a tenant
	maxRules     = 50
)

// shared is issuers at which anybody can have tokens issued for any audience, with
// the claims of which one says whose they are.
var shared = map[string][]string{
	"https://token.actions.githubusercontent.com": {"sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "job_workflow_ref"},
	"https://gitlab.com":                          {"sub", "project_path", "project_id", "namespace_path", "namespace_id"},
	"https://accounts.google.com":                 {"sub", "email", "hd"},
}

// check refuses a provider that is none, or whose word anybody could have.
func (p Provider) check() error {
	if !userName.MatchString(p.Name) {
		return trust.Errorf(trust.Invalid, "provider name %.80q is not 1 to 64 of letters, digits and \"._@+-\", a letter or digit first", p.Name).WithField("name")
	}
	if err := oidc.CheckIssuer(p.Issuer); err != nil {
		return trust.Errorf(trust.Invalid, "issuer: %w", err).WithField("issuer")
	}
	people := p.Kind == People
	switch {
	case !people && p.Kind != Machines:
		return trust.Errorf(trust.Invalid, "kind %.20q is neither %q nor %q", p.Kind, People, Machines).WithField("kind")
	case people && !isLine(p.ClientID):
		return trust.Errorf(trust.Invalid, "a provider of people knows Keyturn as a client: its id is missing").WithField("client_id")
	case people && (len(p.Audiences) > 0 || !isLine(p.NameClaim) || !slices.Contains(p.Scopes, "openid")):
		return trust.Errorf(trust.Invalid, "a provider of people has the scope openid, a claim of names, and no audience").WithField("scopes")
	case !people && len(p.Audiences) == 0:
		return trust.Errorf(trust.Invalid, "a provider of machines needs an audience, which their tokens are issued for").WithField("audiences")
	case !people && (p.HasSecret || p.ClientID != "" || len(p.Scopes) > 0 || p.NameClaim != ""):
		return trust.Errorf(trust.Invalid, "a provider of machines has neither a client id nor a secret, scopes or a claim of names").WithField("kind")
	case len(p.Rules) == 0 || len(p.Rules)+len(p.Required) > maxRules:
		return trust.Errorf(trust.Invalid, "a provider has 1 to %d rules that say who has which role", maxRules).WithField("rules")
	}
	for _, text := range slices.Concat(p.Audiences, p.Scopes) {
		if !isLine(text) || strings.Contains(text, " ") && people {
			return trust.Errorf(trust.Invalid, "%.100q is no audience or scope", text).WithField("audiences")
		}
	}
	for _, m := range p.matches() {
		if strings.HasSuffix(m.Value, "*") && (people || m.Value == "*") {
			return trust.Errorf(trust.Invalid, "%q: only a provider of machines has values that end in *, with something before it", m).WithField("rules")
		}
	}
	return p.checkShared()
}

// matches returns all that the rules and requirements ask for.
func (p Provider) matches() []ClaimMatch {
	all := slices.Clone(p.Required)
	for _, r := range p.Rules {
		all = append(all, r.ClaimMatch)
	}
	return all
}

// checkShared refuses rules that would let anybody in who has an account with a
// shared issuer.
func (p Provider) checkShared() error {
	whose, ok := shared[strings.TrimSuffix(p.Issuer, "/")]
	says := func(m ClaimMatch) bool { // "repo:*" says nothing, "repo:acme/*" does
		return slices.Contains(whose, m.Claim) && (!strings.HasSuffix(m.Value, "*") || strings.Contains(m.Value, "/"))
	}
	if !ok || slices.ContainsFunc(p.Required, says) {
		return nil
	}
	for _, r := range p.Rules {
		if !says(r.ClaimMatch) {
			return trust.Errorf(trust.Invalid, "%q would let anybody in who has an account with %s: nothing says whose it is", r, p.Issuer).WithField("required").
				WithHint("require one of %s", strings.Join(whose, ", "))
		}
	}
	return nil
}

// providerSecret is where a client secret is in the keyring, under the provider's id.
const providerSecret = "provider-secret"

// Providers returns every identity provider of the tenant of tx, by name.
func (d *Directory) Providers(tx *store.Tx) ([]Provider, error) { return selectProviders(tx) }

// Provider returns the identity provider of a name, or a NotFound error.
func (d *Directory) Provider(tx *store.Tx, name string) (Provider, error) {
	p, err := selectProvider(tx, tx.Tenant(), strings.ToLower(name))
	if errors.Is(err, sql.ErrNoRows) {
		return Provider{}, trust.Errorf(trust.NotFound, "there is no identity provider %.80q", name).WithHint("keyturn provider list")
	}
	return p, err
}

// AddProvider adds an identity provider, which gives no role that may do more than by
// may.
func (d *Directory) AddProvider(tx *store.Tx, by Actor, n NewProvider) (Provider, error) {
	n.HasSecret = n.Secret != ""
	p, err := settleProvider(tx, by, n.Provider)
	if err != nil {
		return Provider{}, err
	}
	all, err := selectProviders(tx)
	if err != nil {
		return Provider{}, err
	}
	for _, other := range all {
		if strings.EqualFold(other.Name, p.Name) {
			return Provider{}, trust.Errorf(trust.Conflict, "an identity provider called %q is there already", other.Name).WithHint("keyturn provider set %s", other.Name)
		}
	}
	if len(all) >= maxProviders {
		return Provider{}, trust.Errorf(trust.Exhausted, "this account has %d identity providers, and no more than that", maxProviders)
	}
	p.ID, p.Created = newID(), tx.Now()
	if err := d.sealSecret(tx, p.ID, n.Secret); err != nil {
		return Provider{}, err
	}
	return p, insertProvider(tx, p)
}

// SetProvider says anew what a provider's word is good for. What has been logged in
// with by then goes on as it is. Who somebody is at an issuer is nobody at another
// one, so that stays.
func (d *Directory) SetProvider(tx *store.Tx, by Actor, n NewProvider) (Provider, error) {
	old, err := d.overProvider(tx, by, n.Name)
	if err != nil {
		return Provider{}, err
	}
	n.HasSecret = old.HasSecret || n.Secret != ""
	p, err := settleProvider(tx, by, n.Provider)
	if err != nil {
		return Provider{}, err
	}
	if p.Issuer != old.Issuer || p.Kind != old.Kind {
		return Provider{}, trust.Errorf(trust.Conflict, "identity provider %q vouches for %s as %s, and cannot become another one", old.Name, old.Kind, old.Issuer).
			WithHint("add one of another name")
	}
	p.ID, p.Name, p.Created = old.ID, old.Name, old.Created
	if err := d.sealSecret(tx, p.ID, n.Secret); err != nil {
		return Provider{}, err
	}
	return p, updateProvider(tx, p)
}

// RemoveProvider removes an identity provider with the users that it vouched for,
// their tokens, and all that anybody has logged in with by it. It returns those users, too.
func (d *Directory) RemoveProvider(tx *store.Tx, by Actor, name string) (Provider, []User, error) {
	p, err := d.overProvider(tx, by, name)
	if err != nil {
		return Provider{}, nil, err
	}
	users, err := selectUsersOf(tx, p.ID)
	if err != nil {
		return Provider{}, nil, err
	}
	for _, u := range users {
		if err := checkOver(by, u); err != nil {
			return Provider{}, nil, err
		}
		if err := d.removeUser(tx, u.ID); err != nil {
			return Provider{}, nil, err
		}
	}
	if err := d.keyring.Forget(tx, providerSecret, p.ID); err != nil {
		return Provider{}, nil, err
	}
	return p, users, deleteProvider(tx, p.ID)
}

// A PublishedProvider is what an identity provider says of itself.
type PublishedProvider = oidc.Published

// LookAtProvider returns what an identity provider publishes now.
func (d *Directory) LookAtProvider(ctx context.Context, p Provider) (PublishedProvider, error) {
	return d.oidc.Look(ctx, p.Issuer)
}

// overProvider returns a provider if by may do to it as it likes: all that it gives.
func (d *Directory) overProvider(tx *store.Tx, by Actor, name string) (Provider, error) {
	if err := CheckLasting(tx, by); err != nil {
		return Provider{}, err
	}
	p, err := d.Provider(tx, name)
	if err != nil {
		return Provider{}, err
	}
	list, err := permitted(tx, tx.Tenant(), Rights{Roles: p.given()})
	if err != nil {
		return Provider{}, err
	}
	if lacks := beyond(by.Permissions, list); lacks != "" {
		return Provider{}, trust.Errorf(trust.Denied, "identity provider %q gives the permission %q, which %s does not have", p.Name, lacks, by.describe())
	}
	return p, nil
}

// given returns the roles that the rules give.
func (p Provider) given() (names []string) {
	for _, r := range p.Rules {
		names = append(names, r.Role)
	}
	return names
}

// settleProvider checks a provider that by makes, and spells the roles as they are
// called.
func settleProvider(tx *store.Tx, by Actor, p Provider) (Provider, error) {
	if err := CheckLasting(tx, by); err != nil {
		return Provider{}, err
	}
	if p.Kind == People {
		p.NameClaim = cmp.Or(p.NameClaim, "preferred_username")
		if len(p.Scopes) == 0 {
			p.Scopes = []string{"openid", "profile", "email"}
		}
	}
	if err := p.check(); err != nil {
		return Provider{}, err
	}
	p.Rules = slices.Clone(p.Rules)
	for i, r := range p.Rules {
		role, err := findRole(tx, r.Role)
		if err != nil {
			return Provider{}, err
		}
		p.Rules[i].Role = role.Name
		if err := checkGrant(by, role.Permissions); err != nil {
			return Provider{}, err
		}
	}
	return p, nil
}

// sealSecret keeps the secret of a client, unless it is "".
func (d *Directory) sealSecret(tx *store.Tx, id, secret string) error {
	if secret == "" {
		return nil
	}
	if !isLine(secret) {
		return trust.Errorf(trust.Invalid, "a client secret is one line of up to 500 bytes").WithField("client_secret")
	}
	return d.keyring.Seal(tx, providerSecret, id, []byte(secret))
}

// registration returns what a provider knows Keyturn as.
func (d *Directory) registration(tx *store.Tx, p Provider) (oidc.Registration, error) {
	r := oidc.Registration{Issuer: p.Issuer, ClientID: p.ClientID, Scopes: p.Scopes}
	if !p.HasSecret {
		return r, nil
	}
	secret, err := d.keyring.Unseal(tx, providerSecret, p.ID)
	r.Secret = string(secret)
	clear(secret)
	return r, err
}
