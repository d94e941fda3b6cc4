package cfengine

import (
	"fmt"
	"mime"
	"net/http"
	"net/url"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// client is the one client that CFEngine has, which is Mission Portal there. It is a
// public one (RFC 6749, section 2.1): whatever secret it sends proves nothing.
const client = "MP"

// A tokenAnswer is a success of the token endpoint (RFC 6749, section 5.1).
type tokenAnswer struct {
	AccessToken  string  `json:"access_token"`
	ExpiresIn    int     `json:"expires_in"`
	TokenType    string  `json:"token_type"`
	Scope        *string `json:"scope"`
	RefreshToken string  `json:"refresh_token"`
}

// A tokenRefusal is an error of the token endpoint (RFC 6749, section 5.2).
type tokenRefusal struct {
	status      int
	Error       string `json:"error"`
	Description string `json:"error_description"`
}

// token is the token endpoint: a password or a refresh token for new tokens.
func (d door) token(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Pragma", "no-cache")
	tokens, refusal := d.grant(w, r)
	if refusal != nil {
		api.WriteJSON(w, refusal.status, refusal)
		return
	}
	api.WriteJSON(w, http.StatusOK, tokenAnswer{
		AccessToken: tokens.Access, ExpiresIn: int(tokens.Lasts.Seconds()), TokenType: "Bearer", RefreshToken: tokens.Refresh,
	})
}

func (d door) grant(w http.ResponseWriter, r *http.Request) (control.OAuthTokens, *tokenRefusal) {
	refuse := func(code, description string) (control.OAuthTokens, *tokenRefusal) {
		return control.OAuthTokens{}, &tokenRefusal{http.StatusBadRequest, code, description}
	}
	form, err := readForm(r)
	if err != nil {
		return refuse("invalid_request", "The body cannot be read: "+err.Error())
	}
	id, _, ok := r.BasicAuth()
	if !ok {
		id = form.Get("client_id")
	}
	grant := form.Get("grant_type")
	switch {
	case grant == "":
		return refuse("invalid_request", "The grant type was not specified in the request")
	case grant != "password" && grant != "refresh_token":
		return refuse("unsupported_grant_type", fmt.Sprintf("Grant type %.40q not supported", grant))
	case id == "":
		return refuse("invalid_client", "Client credentials were not found in the headers or body")
	case id != client:
		return refuse("invalid_client", "The client credentials are invalid")
	}
	if grant == "refresh_token" {
		refresh := form.Get("refresh_token")
		if refresh == "" {
			return refuse("invalid_request", `Missing parameter: "refresh_token" is required`)
		}
		tokens, err := d.plane.RefreshGrant(r.Context(), refresh, api.Source(r))
		if trust.KindOf(err) == trust.Unauthenticated {
			return refuse("invalid_grant", "Invalid refresh token")
		}
		return tokens, d.refusal(w, r, err)
	}
	user, password := form.Get("username"), form.Get("password")
	if user == "" || password == "" {
		return refuse("invalid_request", `Missing parameters: "username" and "password" required`)
	}
	tokens, err := d.plane.PasswordGrant(r.Context(), user, password, r.Header.Get(totpHeader), api.Source(r))
	return tokens, d.refusal(w, r, err)
}

// refusal is an error of a verb in the words of RFC 6749.
func (d door) refusal(w http.ResponseWriter, r *http.Request, err error) *tokenRefusal {
	if err == nil {
		return nil
	}
	status, text := d.status(w, r, err)
	code := "temporarily_unavailable"
	switch status {
	case http.StatusUnauthorized:
		code = "invalid_grant"
	case http.StatusInternalServerError:
		code = "server_error"
	}
	return &tokenRefusal{status, code, text}
}

// readForm reads a form, or JSON with texts as its members.
func readForm(r *http.Request) (url.Values, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "application/json" {
		var body map[string]string
		if err := api.ReadJSON(r, &body, false); err != nil {
			return nil, err
		}
		form := url.Values{}
		for name, value := range body {
			form.Set(name, value)
		}
		return form, nil
	}
	err := r.ParseForm()
	return r.PostForm, err
}
