package cloudflare

import (
	"net/http"
	"strings"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// The three ways in which a request says who asks:
//
//	Authorization: Bearer kt_...         an API token
//	X-Auth-Email: alice                  the name of a user, and
//	X-Auth-Key: kt_...                   an API token of that user
//	all of them                          the SDKs' own tests: Bearer counts
//
// Cloudflare's global key may do all that its user may. There is none here: what
// stands in its place is an API token with the permissions that it has.

// authenticate takes any of them.
func (d door) authenticate(r *http.Request) (control.Actor, error) {
	email, key := r.Header.Get("X-Auth-Email"), r.Header.Get("X-Auth-Key")
	switch {
	case r.Header.Get("Authorization") != "":
		token, err := bearerToken(r)
		if err != nil {
			return control.Actor{}, err
		}
		return known(d.plane.Token(r.Context(), token, api.Source(r)))
	case email == "" || key == "":
		return control.Actor{}, &noCredential
	case !isCredential(key):
		return control.Actor{}, &badKey
	}
	return known(d.plane.UserToken(r.Context(), email, key, api.Source(r)))
}

// bearer takes an API token as Authorization and nothing else, as the calls do
// that tell what a token is.
func (d door) bearer(r *http.Request) (control.Actor, error) {
	if r.Header.Get("Authorization") == "" && r.Header.Get("X-Auth-Key") != "" {
		return control.Actor{}, &noAuthorization
	}
	actor, err := d.authenticate(r)
	if err == error(&unknownCredential) {
		err = &invalidToken
	}
	return actor, err
}

// known says in Cloudflare's words that a credential is not known.
func known(a control.Actor, err error) (control.Actor, error) {
	if trust.KindOf(err) == trust.Unauthenticated {
		err = &unknownCredential
	}
	return a, err
}

// bearerToken returns the token of the header Authorization.
func bearerToken(r *http.Request) (string, error) {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "Bearer") || !isCredential(token) {
		return "", &badAuthorization
	}
	return token, nil
}

// isCredential reports whether text can be a token: the characters of token68 in
// RFC 9110, section 11.2, as Cloudflare demands it too.
func isCredential(text string) bool {
	text = strings.TrimRight(text, "=")
	return text != "" && strings.Trim(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~+/") == ""
}
