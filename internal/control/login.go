package control

import (
	"context"
	"time"
)

// Who asks: the ways in which a credential becomes an actor. Each front door
// offers those that its protocol has, and no other.

// Password checks a user's password, and the code of the user's second factor if
// there is one. source is the address that they came from.
func (p *Plane) Password(ctx context.Context, user, password, code, source string) (Actor, error) {
	return p.directory.Password(ctx, user, password, code, source)
}

// Login checks what Password checks and begins a web login, whose id is returned.
func (p *Plane) Login(ctx context.Context, user, password, code, source string) (Actor, string, error) {
	return p.directory.Login(ctx, user, password, code, source)
}

// WebLogin checks the id of a web login, which it keeps from idling out.
func (p *Plane) WebLogin(ctx context.Context, id, source string) (Actor, error) {
	return p.directory.WebLogin(ctx, id, source)
}

// Token checks an API token.
func (p *Plane) Token(ctx context.Context, token, source string) (Actor, error) {
	return p.directory.Token(ctx, token, source)
}

// IssueServiceToken exchanges an API token, as client id and secret, for one
// that lives for a short while.
func (p *Plane) IssueServiceToken(ctx context.Context, clientID, clientSecret, source string) (jwt string, expires time.Time, err error) {
	return p.directory.IssueServiceToken(ctx, clientID, clientSecret, source)
}

// ServiceToken checks what IssueServiceToken issued.
func (p *Plane) ServiceToken(ctx context.Context, jwt, source string) (Actor, error) {
	return p.directory.ServiceToken(ctx, jwt, source)
}

// PasswordGrant checks what Password checks and begins a grant of OAuth 2.0, whose
// tokens are returned.
func (p *Plane) PasswordGrant(ctx context.Context, user, password, code, source string) (OAuthTokens, error) {
	return p.directory.PasswordGrant(ctx, user, password, code, source)
}

// RefreshGrant exchanges the refresh token of a grant, once, for other tokens.
func (p *Plane) RefreshGrant(ctx context.Context, refresh, source string) (OAuthTokens, error) {
	return p.directory.RefreshGrant(ctx, refresh, source)
}

// AccessToken checks the access token of a grant.
func (p *Plane) AccessToken(ctx context.Context, access, source string) (Actor, error) {
	return p.directory.AccessToken(ctx, access, source)
}
