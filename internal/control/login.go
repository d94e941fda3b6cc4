package control

import (
	"context"
	"time"

	"keyturn/internal/identity"
	"keyturn/internal/store"
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

// PasswordLogin checks what Password checks and begins a web login with a login
// token, which is returned.
func (p *Plane) PasswordLogin(ctx context.Context, user, password, code, source string) (LoginToken, error) {
	return p.directory.PasswordLogin(ctx, user, password, code, source)
}

// LoginProviders returns the names of the identity providers by which people can log
// in to an account.
func (p *Plane) LoginProviders(ctx context.Context, account string) ([]string, error) {
	return p.directory.LoginProviders(ctx, account)
}

// BeginLogin begins a login by an identity provider, which comes back to a listener on
// the person's own machine.
func (p *Plane) BeginLogin(ctx context.Context, provider, listener, challenge, source string) (BrowserLogin, error) {
	return p.directory.BeginLogin(ctx, provider, listener, challenge, source)
}

// FinishLogin exchanges what such a login came back with for a login token.
func (p *Plane) FinishLogin(ctx context.Context, state string, answer LoginAnswer, verifier, source string) (LoginToken, error) {
	return p.directory.FinishLogin(ctx, state, answer, verifier, source)
}

// StartDeviceLogin begins a login by an identity provider at another device.
func (p *Plane) StartDeviceLogin(ctx context.Context, provider, source string) (DeviceLogin, error) {
	return p.directory.StartDeviceLogin(ctx, provider, source)
}

// PollDeviceLogin returns the login token of such a login, or how far it is.
func (p *Plane) PollDeviceLogin(ctx context.Context, code, source string) (LoginToken, DeviceProgress, error) {
	return p.directory.PollDeviceLogin(ctx, code, source)
}

// TokenLogin exchanges a machine's token of an identity provider for a login token.
func (p *Plane) TokenLogin(ctx context.Context, provider, token, source string) (LoginToken, error) {
	return p.directory.TokenLogin(ctx, provider, token, source)
}

// Bearer checks an API token or a login token.
func (p *Plane) Bearer(ctx context.Context, text, source string) (Actor, error) {
	return p.directory.Bearer(ctx, text, source)
}

// Token checks an API token.
func (p *Plane) Token(ctx context.Context, token, source string) (Actor, error) {
	return p.directory.Token(ctx, token, source)
}

// UserToken checks an API token, and that it is the user's of that name.
func (p *Plane) UserToken(ctx context.Context, user, token, source string) (Actor, error) {
	return p.directory.UserToken(ctx, user, token, source)
}

// Logout ends the login that the actor came by, at once.
func (p *Plane) Logout(ctx context.Context, actor identity.Actor) error {
	return p.update(ctx, actor, nil, "user.logout", actor.Kind+":"+subject(actor.ID), func(tx *store.Tx) error {
		return p.directory.EndWebLogin(tx, actor)
	})
}

// WhoAmI returns the actor's tenant. Who the actor is, it knows already, and needs
// no permission for either.
func (p *Plane) WhoAmI(ctx context.Context, actor identity.Actor) (t identity.Tenant, err error) {
	err = p.store.View(ctx, actor.Tenant, func(tx *store.Tx) error {
		t, err = p.directory.Tenant(tx)
		return err
	})
	return t, err
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
