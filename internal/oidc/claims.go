package oidc

import (
	"bytes"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"keyturn/internal/trust"
)

const (
	maxToken   = 32 << 10 // bytes of a token that is looked at
	maxSubject = 255      // OpenID Connect Core, section 2
	// clockSkew is how far a provider's clock may be from ours.
	clockSkew = time.Minute
)

// Claims are what a provider says of who has logged in, in a token that was checked.
type Claims struct {
	Subject string // who it is at that provider, for good
	Expires time.Time

	nonce  string
	values map[string]any
}

// Names returns the names of all claims at the top, sorted.
func (c Claims) Names() []string { return slices.Sorted(maps.Keys(c.values)) }

// Values returns what a claim says, as text: each entry of a list, numbers and truth
// values as JSON has them. A name that begins with "/" is a JSON pointer (RFC 6901),
// for what lies deeper.
func (c Claims) Values(name string) []string {
	var value any = c.values
	for _, step := range path(name) {
		object, _ := value.(map[string]any)
		value = object[step]
	}
	list, ok := value.([]any)
	if !ok {
		list = []any{value}
	}
	var texts []string
	for _, v := range list {
		switch v := v.(type) {
		case string:
			texts = append(texts, v)
		case bool:
			texts = append(texts, strconv.FormatBool(v))
		case json.Number:
			texts = append(texts, v.String())
		}
	}
	return texts
}

// path returns the names that lead to a claim from the top.
func path(name string) []string {
	if !strings.HasPrefix(name, "/") {
		return []string{name}
	}
	steps := strings.Split(name[1:], "/")
	for i := range steps {
		steps[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(steps[i])
	}
	return steps
}

// Vouched returns what Values does, if the provider answers for it: not an address of
// e-mail, however it is asked for, unless it is the one that the provider says it has
// verified.
func (c Claims) Vouched(name string) []string {
	if path(name)[0] != "email" {
		return c.Values(name)
	}
	_, one := c.values["email"].(string)
	verified := c.values["email_verified"]
	if !one || verified != true && verified != "true" { // some have it as text
		return nil
	}
	return c.Values(name)
}

// Verify checks a token that somebody else was given, such as a CI job: that a
// provider has signed it, for one of the audiences, and that it holds now.
func (c *Client) Verify(ctx context.Context, issuer string, audiences []string, token string) (Claims, error) {
	p, err := c.provider(ctx, issuer)
	if err != nil {
		return Claims{}, err
	}
	claims, audience, err := c.verify(ctx, p, issuer, token)
	if err != nil {
		return Claims{}, err
	}
	if !slices.ContainsFunc(audiences, func(a string) bool { return slices.Contains(audience, a) }) {
		return Claims{}, trust.Errorf(trust.Unauthenticated, "the token is for %.200q, and not for %q", audience, audiences).
			WithHint("have it issued for the audience that keyturn provider list shows")
	}
	return claims, nil
}

// idToken checks the ID token that came with an access token (OpenID Connect Core,
// section 3.1.3.7).
func (c *Client) idToken(ctx context.Context, p *goidc.Provider, r Registration, token *oauth2.Token) (Claims, error) {
	raw, ok := token.Extra("id_token").(string)
	if !ok {
		return Claims{}, trust.Errorf(trust.Unavailable, "%s gives no ID token", r.Issuer).WithHint("let it have the scope openid")
	}
	claims, audience, err := c.verify(ctx, p, r.Issuer, raw)
	if err != nil {
		return Claims{}, err
	}
	authorized := claims.Values("azp")
	if !slices.Contains(audience, r.ClientID) || len(audience) > 1 && len(authorized) == 0 || len(authorized) > 0 && !slices.Equal(authorized, []string{r.ClientID}) {
		return Claims{}, trust.Errorf(trust.Unauthenticated, "the ID token of %s is for %.200q, and not for %q", r.Issuer, audience, r.ClientID)
	}
	return claims, nil
}

// verify checks all of a token but whom it is for, and returns that. Nothing of a
// token is believed, nor told, before its signature is.
func (c *Client) verify(ctx context.Context, p *goidc.Provider, issuer, raw string) (Claims, []string, error) {
	if len(raw) > maxToken {
		return Claims{}, nil, trust.Errorf(trust.Unauthenticated, "the token is longer than %d bytes", maxToken)
	}
	// Only algorithms that sign with a private key are there to be supported: see
	// supportedAlgorithms of go-oidc.
	verifier := p.Verifier(&goidc.Config{SkipClientIDCheck: true, SkipExpiryCheck: true})
	token, err := verifier.Verify(c.context(ctx), raw)
	if err != nil && strings.Contains(err.Error(), "fetching keys") { // which go-oidc tells apart by its text only
		return Claims{}, nil, failed(issuer, err)
	}
	if err != nil {
		return Claims{}, nil, trust.Errorf(trust.Unauthenticated, "the token is none that %s has signed for itself", issuer)
	}
	var claims Claims
	var text json.RawMessage
	if err := token.Claims(&text); err != nil {
		return Claims{}, nil, trust.Errorf(trust.Unauthenticated, "the token is not JSON")
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&claims.values); err != nil {
		return Claims{}, nil, trust.Errorf(trust.Unauthenticated, "the token is not JSON")
	}
	if err := claims.settle(token.Issuer); err != nil {
		return Claims{}, nil, err
	}
	return claims, claims.Values("aud"), claims.hold(c.now())
}

// registered is the claims that say by whom, of whom, for whom and when a token holds.
var registered = []string{"iss", "sub", "aud", "exp", "nbf", "iat", "nonce", "azp"}

// settle reads who it is and when from the values that rules read as well, for names of
// claims are compared as they are (RFC 7519, section 10.1.1). go-oidc, which has checked
// the issuer, decodes without regard to case: what could mean another thing to it, or
// to anybody, is refused.
func (c *Claims) settle(issuer string) error {
	for name := range c.values {
		if slices.ContainsFunc(registered, func(r string) bool { return name != r && strings.EqualFold(name, r) }) {
			return trust.Errorf(trust.Unauthenticated, "the token has a claim %.20q, which is spelled like another", name)
		}
	}
	if iss, _ := c.values["iss"].(string); iss != issuer {
		return trust.Errorf(trust.Unauthenticated, "the token names its issuer twice")
	}
	c.Subject, _ = c.values["sub"].(string)
	c.nonce, _ = c.values["nonce"].(string)
	exp, _ := c.values["exp"].(json.Number)
	seconds, _ := exp.Float64() // of what is no number, 0, which is over
	c.Expires = time.Unix(int64(seconds), 0)
	return nil
}

// hold refuses claims that do not hold now, or say of nobody.
func (c Claims) hold(now time.Time) error {
	begins := time.Time{}
	for _, name := range []string{"nbf", "iat"} {
		if n, ok := c.values[name].(json.Number); ok {
			seconds, err := n.Float64()
			if err != nil {
				return trust.Errorf(trust.Unauthenticated, "the token's %q is no time", name)
			}
			if t := time.Unix(int64(seconds), 0); t.After(begins) {
				begins = t
			}
		}
	}
	switch {
	case c.Subject == "" || len(c.Subject) > maxSubject || strings.ContainsFunc(c.Subject, unicode.IsControl):
		return trust.Errorf(trust.Unauthenticated, "the token does not say who it is of in 1 to %d bytes of text on one line", maxSubject)
	case c.Expires.Unix() <= 0 || !now.Before(c.Expires.Add(clockSkew)):
		return trust.Errorf(trust.Unauthenticated, "the token has ended at %s", c.Expires.UTC().Format(time.RFC3339))
	case now.Add(clockSkew).Before(begins):
		return trust.Errorf(trust.Unauthenticated, "the token begins at %s only", begins.UTC().Format(time.RFC3339)).
			WithHint("see that the clocks of this server and of the identity provider are right")
	}
	return nil
}
