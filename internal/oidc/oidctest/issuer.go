// Package oidctest runs identity providers for tests: whole ones, with discovery,
// keys, authorization codes with PKCE and the device flow, over HTTP on loopback.
//
// Begin with [Start]. What an Issuer says of who has logged in, a test sets
// by Say before anybody does; every other part of a token is as it should be unless
// that says otherwise, so that a test changes the one thing that it is about. Token signs
// what a platform would hand to a CI job. Unlike mockoidc, which the command line's
// tests use beside it, it knows devices and lets itself be made to lie.
package oidctest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// What every Issuer knows its client as.
const (
	ClientID = "keyturn"
	Secret   = "a client's secret"
)

// An Issuer is one identity provider.
type Issuer struct {
	URL string

	tb  testing.TB
	key *ecdsa.PrivateKey

	mu     sync.Mutex
	claims Claims                // guarded by mu
	codes  map[string]url.Values // code to the request that it is for; guarded by mu
	device []string              // what polls of a device are answered with; guarded by mu
	asked  int                   // how many tokens were asked for; guarded by mu
	names  bool                  // whether it announces that its answers say whose they are; guarded by mu
}

// Start runs an Issuer until the test ends.
func Start(tb testing.TB) *Issuer {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	i := &Issuer{tb: tb, key: key, codes: map[string]url.Values{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", i.discovery)
	mux.HandleFunc("GET /keys", i.keys)
	mux.HandleFunc("GET /authorize", i.authorize)
	mux.HandleFunc("POST /device", i.startDevice)
	mux.HandleFunc("POST /token", i.token)
	s := httptest.NewServer(mux)
	tb.Cleanup(s.Close)
	i.URL = s.URL
	return i
}

// Claims are what a token says, by name. One that is nil is left out of it.
type Claims map[string]any

// Say sets what the next tokens say, beside what every token has.
func (i *Issuer) Say(claims Claims) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.claims = maps.Clone(claims)
}

// Device sets what the next polls of a device are answered with, such as
// "authorization_pending"; after these the person has logged in.
func (i *Issuer) Device(answers ...string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.device = answers
}

// NamesItself has the provider announce that its answers say whose they are (RFC 9207).
func (i *Issuer) NamesItself() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.names = true
}

// Asked returns how many tokens were asked for.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// Token returns a token for an audience, with claims in the place of what it would
// have.
func (i *Issuer) Token(audience string, now time.Time, claims Claims) string {
	return i.sign(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: i.key, KeyID: "1"}}, audience, now, claims)
}

// HMACToken returns a token that is signed with HMAC under what everybody can read:
// the public key.
func (i *Issuer) HMACToken(audience string, now time.Time, claims Claims) string {
	public, err := i.key.PublicKey.Bytes()
	if err != nil {
		i.tb.Error(err)
	}
	return i.sign(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: public, KeyID: "1"}}, audience, now, claims)
}

// UnsignedToken returns a token of the algorithm "none".
func (i *Issuer) UnsignedToken(audience string, now time.Time, claims Claims) string {
	b64 := base64.RawURLEncoding.EncodeToString
	return b64([]byte(`{"alg":"none"}`)) + "." + b64(i.payload(audience, now, claims)) + "."
}

func (i *Issuer) payload(audience string, now time.Time, claims Claims) []byte {
	all := map[string]any{"iss": i.URL, "aud": audience, "sub": "subject", "iat": now.Unix(), "exp": now.Add(30 * time.Minute).Unix()}
	for name, value := range claims {
		if all[name] = value; value == nil {
			delete(all, name)
		}
	}
	data, err := json.Marshal(all)
	if err != nil {
		i.tb.Error(err)
	}
	return data
}

func (i *Issuer) sign(key jose.SigningKey, audience string, now time.Time, claims Claims) string {
	signer, err := jose.NewSigner(key, nil)
	if err != nil {
		i.tb.Error(err)
		return ""
	}
	signed, err := signer.Sign(i.payload(audience, now, claims))
	if err != nil {
		i.tb.Error(err)
		return ""
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		i.tb.Error(err)
	}
	return text
}

func (i *Issuer) discovery(w http.ResponseWriter, _ *http.Request) {
	i.mu.Lock()
	names := i.names
	i.mu.Unlock()
	i.answer(w, http.StatusOK, map[string]any{
		"authorization_response_iss_parameter_supported": names, "issuer": i.URL, "authorization_endpoint": i.URL + "/authorize", "token_endpoint": i.URL + "/token",
		"device_authorization_endpoint": i.URL + "/device", "jwks_uri": i.URL + "/keys",
		"id_token_signing_alg_values_supported": []string{"ES256", "HS256", "none"}, "token_endpoint_auth_methods_supported": []string{"client_secret_basic"},
	})
}

func (i *Issuer) keys(w http.ResponseWriter, _ *http.Request) {
	i.answer(w, http.StatusOK, jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: i.key.Public(), KeyID: "1", Algorithm: "ES256", Use: "sig"}}})
}

// authorize lets everybody in, and sends the browser back with a code.
func (i *Issuer) authorize(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	back, err := url.Parse(q.Get("redirect_uri"))
	if err != nil || q.Get("client_id") != ClientID || q.Get("code_challenge_method") != "S256" {
		http.Error(w, "this is no request of Keyturn's", http.StatusBadRequest)
		return
	}
	code := rand.Text()
	i.mu.Lock()
	i.codes[code] = q
	i.mu.Unlock()
	back.RawQuery = url.Values{"code": {code}, "state": {q.Get("state")}}.Encode()
	http.Redirect(w, r, back.String(), http.StatusFound)
}

func (i *Issuer) startDevice(w http.ResponseWriter, r *http.Request) {
	if r.FormValue("client_id") != ClientID || r.FormValue("client_secret") != Secret {
		i.answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	i.answer(w, http.StatusOK, map[string]any{
		"device_code": "device-" + rand.Text(), "user_code": "ABCD-EFGH", "verification_uri": i.URL + "/activate", "expires_in": 300, "interval": 1,
	})
}

// token exchanges a code, once and for who knows what its challenge is of, or a
// device code.
func (i *Issuer) token(w http.ResponseWriter, r *http.Request) {
	if id, secret, ok := r.BasicAuth(); !ok || id != ClientID || secret != url.QueryEscape(Secret) {
		i.answer(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client"})
		return
	}
	i.mu.Lock()
	i.asked++
	claims, refused := maps.Clone(i.claims), ""
	if claims == nil {
		claims = Claims{}
	}
	switch r.FormValue("grant_type") {
	case "authorization_code":
		q, ok := i.codes[r.FormValue("code")]
		delete(i.codes, r.FormValue("code"))
		sum := sha256.Sum256([]byte(r.FormValue("code_verifier")))
		if !ok || q.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || q.Get("redirect_uri") != r.FormValue("redirect_uri") {
			refused = "invalid_grant"
		}
		if _, lies := claims["nonce"]; !lies {
			claims["nonce"] = q.Get("nonce")
		}
	case "urn:ietf:params:oauth:grant-type:device_code":
		if len(i.device) > 0 {
			refused, i.device = i.device[0], i.device[1:]
		}
	default:
		refused = "unsupported_grant_type"
	}
	i.mu.Unlock()
	if refused != "" {
		i.answer(w, http.StatusBadRequest, map[string]any{"error": refused})
		return
	}
	now := time.Now()
	if at, ok := claims["now"].(time.Time); ok { // by a clock that a test sets
		now = at
		delete(claims, "now")
	}
	i.answer(w, http.StatusOK, map[string]any{"access_token": rand.Text(), "token_type": "Bearer", "id_token": i.Token(ClientID, now, claims)})
}

func (i *Issuer) answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if err := json.NewEncoder(w).Encode(v); err != nil {
		i.tb.Log(err) // of a client that has gone
	}
}
