package appviewx

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"strings"

	"keyturn/internal/api"
	"keyturn/internal/trust"
)

// loginAnswer is "response" of a login.
type loginAnswer struct {
	Status            string  `json:"status"`
	AppStatusCode     *string `json:"appStatusCode"`
	StatusDescription *string `json:"statusDescription"`
	SessionID         string  `json:"sessionId"`
	Attempts          *int    `json:"availableLoginAttemptCount"`
}

// login exchanges a user's password for a session, which ends when it has been
// idle for 15 minutes.
func (d door) login(w http.ResponseWriter, r *http.Request) {
	user, password := r.Header.Get("username"), r.Header.Get("password")
	if user == "" || password == "" {
		fail(w, fault{http.StatusBadRequest, "AVX_GW_003", "Username or password cannot be null or empty", nil})
		return
	}
	if query(r, "gwsource") == "" {
		fail(w, *invalid("gwsource"))
		return
	}
	_, id, err := d.plane.Login(r.Context(), user, password, "", api.Source(r))
	if trust.KindOf(err) == trust.Unauthenticated {
		fail(w, fault{http.StatusUnauthorized, "AVX_GW_003", "Login failed. Invalid Credentials", nil})
		return
	}
	if err != nil {
		fail(w, *faultOf(err))
		return
	}
	api.WriteJSON(w, http.StatusOK, envelope{Response: loginAnswer{Status: "SUCCESS", SessionID: id}})
}

// serviceToken exchanges a client id and secret, which are the id and the text
// of an API token, for a JWT. Every spelling that is documented, or that the
// vendor's client uses, is taken.
func (d door) serviceToken(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok {
		id, secret = r.Header.Get("client_id"), r.Header.Get("client_secret")
	}
	if id == "" || secret == "" {
		fail(w, fault{http.StatusBadRequest, "ACCT_SA_001", "Client id or client secret is invalid", nil})
		return
	}
	grant, err := grantType(r)
	if err != nil || !strings.EqualFold(grant, "client_credentials") {
		fail(w, *invalid("grant_type"))
		return
	}
	if query(r, "gwsource") == "" {
		fail(w, *invalid("gwsource"))
		return
	}
	jwt, _, err := d.plane.IssueServiceToken(r.Context(), id, secret, api.Source(r))
	if trust.KindOf(err) == trust.Unauthenticated {
		fail(w, fault{http.StatusBadRequest, "ACCT_SA_001", "Client id or client secret is invalid", nil})
		return
	}
	if err != nil {
		fail(w, *faultOf(err))
		return
	}
	api.WriteJSON(w, http.StatusOK, envelope{Response: jwt, Tags: map[string]string{}})
}

// grantType reads the grant type out of a form, or out of JSON with or without
// "payload" around it.
func grantType(r *http.Request) (string, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err == nil && kind == "application/x-www-form-urlencoded" {
		if err := r.ParseForm(); err != nil {
			return "", trust.Errorf(trust.Invalid, "the form cannot be read: %w", err)
		}
		return r.PostForm.Get("grant_type"), nil
	}
	var body struct {
		GrantType string `json:"grant_type"`
		Payload   struct {
			GrantType string `json:"grant_type"`
		} `json:"payload"`
	}
	if err := api.ReadJSON(r, &body, false); err != nil {
		return "", err
	}
	if body.GrantType == "" {
		body.GrantType = body.Payload.GrantType
	}
	if body.GrantType == "" {
		return "", errors.New("no grant type")
	}
	return body.GrantType, nil
}

// follow tells a client where to follow a run: the body has no room for it.
func follow(w http.ResponseWriter, runs []trust.RunID) {
	ids := make([]string, len(runs))
	for i, id := range runs {
		ids[i] = string(id)
	}
	joined := strings.Join(ids, ",")
	w.Header().Set("X-Request-Id", joined)
	w.Header().Set("Location", "/avxapi/visualworkflow-request-logs?gwsource=external&ids="+url.QueryEscape(joined))
}
