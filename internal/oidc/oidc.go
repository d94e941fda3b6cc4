// Package oidc is the wire to identity providers: OpenID Connect Core 1.0 and
// Discovery 1.0, with PKCE (RFC 7636) and the device flow (RFC 8628).
//
// It asks only providers that its caller names, which are those that an administrator
// has set up, at the endpoints that these publish: over https, or, if the issuer itself
// is on this machine without, on this machine. Nothing that a request says chooses where
// it connects, and no error repeats what was answered that is not of these standards,
// lest somebody read by it what they cannot reach themselves. Each answer has
// to come within a quarter of a minute and a megabyte, over https or from this
// machine, and redirects are not followed: no document of these standards is behind
// one. What a provider has published (its endpoints, its keys) is kept for an hour, so
// that a key which it has withdrawn is not believed for longer.
//
// What comes out are the Claims of a token whose signature, issuer, audience and
// times have been checked. What they let anybody do is for others to judge.
package oidc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	goidc "github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"keyturn/internal/trust"
)

const (
	answerTime = 10 * time.Second
	maxAnswer  = 1 << 20 // bytes
	keptFor    = time.Hour
	maxKept    = 256
)

// A Client asks identity providers. It is safe for concurrent use.
type Client struct {
	http *http.Client
	now  func() time.Time

	mu   sync.Mutex
	kept map[string]published // by issuer; guarded by mu
}

// published is what a provider has published, and until when that is believed.
type published struct {
	provider *goidc.Provider
	until    time.Time
}

// New returns a Client that goes by a clock.
func New(now func() time.Time) *Client {
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSHandshakeTimeout: answerTime, ResponseHeaderTimeout: answerTime,
		MaxIdleConns: 16, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: 64 << 10,
	}
	return &Client{
		http: &http.Client{
			Timeout:       answerTime,
			Transport:     bounded{transport},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		now: now, kept: map[string]published{},
	}
}

// bounded refuses what would travel in the clear, reads no more of an answer than it
// may have, and nothing of a document that is not there.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := checkScheme(req.URL); err != nil {
		return nil, err
	}
	resp, err := b.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if req.Method == http.MethodGet && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("answered %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// CheckIssuer refuses the URL of an issuer that is none of OpenID Connect Discovery,
// section 2: with a query, what is asked would be any path of that host.
func CheckIssuer(text string) error {
	if strings.Contains(text, "?") {
		return trust.Errorf(trust.Invalid, "%.200q has a query, and no issuer has one", text)
	}
	return CheckURL(text)
}

// CheckURL refuses a URL, of an issuer or one that a person is sent to, which is
// not https, or http on this machine.
func CheckURL(text string) error {
	u, err := url.Parse(text)
	if err != nil || len(text) > 2048 || u.Host == "" || u.User != nil || u.Fragment != "" {
		return trust.Errorf(trust.Invalid, "%.200q is not a URL such as https://id.example.com", text)
	}
	return checkScheme(u)
}

func checkScheme(u *url.URL) error {
	if u.Scheme == "https" {
		return nil
	}
	ip, err := netip.ParseAddr(u.Hostname())
	if loopback := u.Hostname() == "localhost" || err == nil && ip.Unmap().IsLoopback(); u.Scheme == "http" && loopback {
		return nil
	}
	return trust.Errorf(trust.Invalid, "%.200q is not https", u.Redacted())
}

// provider returns what an issuer has published.
func (c *Client) provider(ctx context.Context, issuer string) (*goidc.Provider, error) {
	c.mu.Lock()
	p, ok := c.kept[issuer]
	c.mu.Unlock()
	if ok && c.now().Before(p.until) {
		return p.provider, nil
	}
	return c.discover(ctx, issuer)
}

// discover asks an issuer for what it publishes, and keeps it.
func (c *Client) discover(ctx context.Context, issuer string) (*goidc.Provider, error) {
	if err := CheckIssuer(issuer); err != nil {
		return nil, err
	}
	p, err := goidc.NewProvider(c.context(ctx), issuer)
	if err != nil {
		return nil, failed(issuer, err)
	}
	if err := checkEndpoints(issuer, p); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.kept) >= maxKept {
		clear(c.kept) // costs a question each, once more
	}
	c.kept[issuer] = published{p, c.now().Add(keptFor)}
	return p, nil
}

func (c *Client) context(ctx context.Context) context.Context {
	return goidc.ClientContext(ctx, c.http)
}

// checkEndpoints refuses a provider with an endpoint without https, unless its issuer
// has none either: then both are on this machine.
func checkEndpoints(issuer string, p *goidc.Provider) error {
	if strings.HasPrefix(issuer, "http:") {
		return nil // bounded refuses other machines
	}
	var document struct {
		JWKS string `json:"jwks_uri"`
	}
	if err := p.Claims(&document); err != nil {
		return failed(issuer, err)
	}
	e := p.Endpoint()
	for _, endpoint := range []string{e.AuthURL, e.TokenURL, e.DeviceAuthURL, document.JWKS} {
		if endpoint != "" && !strings.HasPrefix(endpoint, "https://") {
			return unavailable(issuer, fmt.Sprintf("its endpoint %.200q is not https", endpoint))
		}
	}
	return nil
}

func unavailable(issuer, why string) error {
	return trust.Errorf(trust.Unavailable, "the identity provider %.200s does not answer as one: %.300s", issuer, why).
		WithHint("see keyturn provider test NAME")
}

// failed says why a question to a provider came to nothing, and of an answer no more
// than its status: errors of go-oidc and oauth2 repeat what it was.
func failed(issuer string, err error) error {
	var connection *url.Error
	var retrieve *oauth2.RetrieveError
	var mismatch *goidc.IssuerMismatchError
	switch {
	case errors.As(err, &connection):
		return unavailable(issuer, connection.Error())
	case errors.As(err, &retrieve):
		return unavailable(issuer, fmt.Sprintf("answered %d %s", retrieve.Response.StatusCode, http.StatusText(retrieve.Response.StatusCode)))
	case errors.As(err, &mismatch):
		return unavailable(issuer, mismatch.Error())
	}
	return unavailable(issuer, "its answer is none of OpenID Connect")
}

// Published is what a provider says of itself.
type Published struct {
	Issuer, AuthorizationEndpoint, TokenEndpoint string
	DeviceEndpoint                               string // "" where it knows no device flow
	Algorithms                                   []string
	Keys                                         int // how many it has to sign with
}

// Look asks a provider for what it publishes, its keys included, whatever is kept of
// that.
func (c *Client) Look(ctx context.Context, issuer string) (Published, error) {
	p, err := c.discover(ctx, issuer)
	if err != nil {
		return Published{}, err
	}
	var document struct {
		JWKS       string   `json:"jwks_uri"`
		Algorithms []string `json:"id_token_signing_alg_values_supported"`
	}
	if err := p.Claims(&document); err != nil {
		return Published{}, failed(issuer, err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, document.JWKS, nil)
	if err != nil {
		return Published{}, failed(issuer, err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Published{}, failed(issuer, err)
	}
	defer resp.Body.Close()
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&set); err != nil {
		return Published{}, failed(issuer, err)
	}
	e := p.Endpoint()
	return Published{
		Issuer: issuer, AuthorizationEndpoint: e.AuthURL, TokenEndpoint: e.TokenURL, DeviceEndpoint: e.DeviceAuthURL,
		Algorithms: document.Algorithms, Keys: len(set.Keys),
	}, nil
}

// A Registration is what a provider knows Keyturn as.
type Registration struct {
	Issuer   string
	ClientID string
	Secret   string // "" for a public client
	Scopes   []string
}

func (r Registration) config(p *goidc.Provider, redirect string) oauth2.Config {
	c := oauth2.Config{ClientID: r.ClientID, ClientSecret: r.Secret, Endpoint: p.Endpoint(), RedirectURL: redirect, Scopes: r.Scopes}
	// OpenID Connect Core, section 9: in the header, unless the provider says that it
	// takes it in the body. Trying both would ask twice after each device.
	var document struct {
		Methods []string `json:"token_endpoint_auth_methods_supported"`
	}
	c.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
	if err := p.Claims(&document); r.Secret == "" || err == nil && slices.Contains(document.Methods, "client_secret_post") {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return c
}

// AuthorizationURL returns where a person logs in at a provider, to come back to
// redirect with state and a code (RFC 6749, section 4.1.1). The code is worth
// something only together with the text that challenge is the SHA-256 of.
func (c *Client) AuthorizationURL(ctx context.Context, r Registration, redirect, state, nonce, challenge string) (string, error) {
	p, err := c.provider(ctx, r.Issuer)
	if err != nil {
		return "", err
	}
	if err := CheckURL(p.Endpoint().AuthURL); err != nil {
		return "", unavailable(r.Issuer, err.Error())
	}
	config := r.config(p, redirect)
	return config.AuthCodeURL(state, goidc.Nonce(nonce),
		oauth2.SetAuthURLParam("code_challenge", challenge), oauth2.SetAuthURLParam("code_challenge_method", "S256")), nil
}

// An Answer is what the browser brings back from a provider.
type Answer struct {
	Code   string
	Issuer string // the parameter iss of RFC 9207; "" where it is absent
}

// checkIssuer refuses an answer of another provider than p, which would be handed a
// code that is not for it (RFC 9207, section 2.4).
func (a Answer) checkIssuer(r Registration, p *goidc.Provider) error {
	var document struct {
		Says bool `json:"authorization_response_iss_parameter_supported"`
	}
	if err := p.Claims(&document); err != nil {
		return failed(r.Issuer, err)
	}
	if a.Issuer != r.Issuer && (a.Issuer != "" || document.Says) {
		return trust.Errorf(trust.Unauthenticated, "the login began at %s, and the answer to it is of %.200q", r.Issuer, a.Issuer).WithHint("keyturn login")
	}
	return nil
}

// Exchange exchanges the code of an answer for the claims of the person who has
// logged in.
func (c *Client) Exchange(ctx context.Context, r Registration, redirect string, answer Answer, verifier, nonce string) (Claims, error) {
	p, err := c.provider(ctx, r.Issuer)
	if err != nil {
		return Claims{}, err
	}
	if err := answer.checkIssuer(r, p); err != nil {
		return Claims{}, err
	}
	config := r.config(p, redirect)
	token, err := config.Exchange(c.context(ctx), answer.Code, oauth2.VerifierOption(verifier))
	if err != nil {
		return Claims{}, refused(r, err)
	}
	claims, err := c.idToken(ctx, p, r, token)
	if err == nil && claims.nonce != nonce {
		return Claims{}, trust.Errorf(trust.Unauthenticated, "the ID token of %s is of another login", r.Issuer)
	}
	return claims, err
}

// A Device is a login that goes on at another device (RFC 8628, section 3.2).
type Device struct {
	Code            string // the secret that it is asked after by
	UserCode        string
	VerificationURL string // where the person enters the user code
	CompleteURL     string // the same with the user code in it, or ""
	Interval        time.Duration
	Lasts           time.Duration
}

// What PollDevice returns as long as the person has not finished.
var (
	ErrPending  = errors.New("the login goes on")
	ErrSlowDown = errors.New("the login goes on, and was asked after too often")
)

// StartDevice begins a login at another device.
func (c *Client) StartDevice(ctx context.Context, r Registration) (Device, error) {
	p, err := c.provider(ctx, r.Issuer)
	if err != nil {
		return Device{}, err
	}
	config := r.config(p, "")
	if config.Endpoint.DeviceAuthURL == "" {
		return Device{}, trust.Errorf(trust.Conflict, "%s does not let people log in at another device", r.Issuer).WithHint("keyturn login, without --device")
	}
	var secret []oauth2.AuthCodeOption
	if r.Secret != "" { // RFC 8628, section 3.1: as at the token endpoint
		secret = append(secret, oauth2.SetAuthURLParam("client_secret", r.Secret))
	}
	a, err := config.DeviceAuth(c.context(ctx), secret...)
	if err != nil {
		return Device{}, refused(r, err)
	}
	d := Device{
		Code: a.DeviceCode, UserCode: a.UserCode, VerificationURL: a.VerificationURI, CompleteURL: a.VerificationURIComplete,
		Interval: time.Duration(a.Interval) * time.Second, Lasts: time.Until(a.Expiry), // both by the wall clock, which oauth2 reads
	}
	if d.Interval == 0 {
		d.Interval = 5 * time.Second // RFC 8628, section 3.2
	}
	for _, where := range []string{d.VerificationURL, d.CompleteURL} {
		if where == "" && where != d.VerificationURL {
			continue
		}
		if err := CheckURL(where); err != nil {
			return Device{}, unavailable(r.Issuer, err.Error())
		}
	}
	if d.Code == "" || d.UserCode == "" || len(d.Code) > 4096 || len(d.UserCode) > 64 || d.Interval < 0 || d.Interval > time.Minute {
		return Device{}, unavailable(r.Issuer, "its answer to a device is none of RFC 8628")
	}
	return d, nil
}

// PollDevice returns the claims of the person who has logged in at another device,
// or ErrPending or ErrSlowDown.
func (c *Client) PollDevice(ctx context.Context, r Registration, code string) (Claims, error) {
	p, err := c.provider(ctx, r.Issuer)
	if err != nil {
		return Claims{}, err
	}
	config := r.config(p, "")
	token, err := config.Exchange(c.context(ctx), "",
		oauth2.SetAuthURLParam("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), oauth2.SetAuthURLParam("device_code", code))
	var e *oauth2.RetrieveError
	if errors.As(err, &e) {
		switch e.ErrorCode {
		case "authorization_pending":
			return Claims{}, ErrPending
		case "slow_down":
			return Claims{}, ErrSlowDown
		}
	}
	if err != nil {
		return Claims{}, refused(r, err)
	}
	return c.idToken(ctx, p, r, token)
}

// refusals are what a token or device endpoint may refuse by (RFC 6749, section 5.2;
// RFC 8628, section 3.5).
var refusals = []string{
	"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type", "invalid_scope",
	"access_denied", "expired_token", "server_error", "temporarily_unavailable",
}

// refused says why a provider gave no token.
func refused(r Registration, err error) error {
	var e *oauth2.RetrieveError
	if !errors.As(err, &e) || !slices.Contains(refusals, e.ErrorCode) {
		return failed(r.Issuer, err)
	}
	reason := strings.TrimSuffix(e.ErrorCode+": "+e.ErrorDescription, ": ")
	switch e.ErrorCode {
	case "invalid_grant", "access_denied", "expired_token":
		return trust.Errorf(trust.Unauthenticated, "%s refuses this login: %.200s", r.Issuer, reason).WithHint("keyturn login")
	}
	return trust.Errorf(trust.Unavailable, "%s refuses Keyturn as its client %q: %.200s", r.Issuer, r.ClientID, reason).
		WithHint("compare its registration with keyturn provider list")
}
