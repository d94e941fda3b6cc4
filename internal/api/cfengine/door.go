// Package cfengine is the front door for clients of CFEngine Enterprise: its SSH key
// calls at /api/ssh-key, and the token endpoint that they log in by, as far as
// docs/dialects/cfengine.md says.
//
// It holds no rule. A route reads a request into the argument of one verb, and
// shows what the verb answered as bare JSON; one table says which status and text
// an error has there.
package cfengine

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// totpHeader holds the code of a user who has a second factor.
const totpHeader = "Cf-2FA-Token"

// A door is the plane in CFEngine's words.
type door struct {
	plane *control.Plane
	log   func(ctx context.Context, err error)
}

// New returns the handler of /api/ssh-key, of what is below it, and of
// /api/oauth2/token. What a verb fails for that a client is not told, log is.
func New(p *control.Plane, log func(context.Context, error)) http.Handler {
	d := door{plane: p, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/oauth2/token", d.token)
	mux.HandleFunc("POST /api/ssh-key", d.as(d.generate))
	mux.HandleFunc("GET /api/ssh-key", d.as(d.list))
	mux.HandleFunc("GET /api/ssh-key/{id}", d.as(d.show))
	mux.HandleFunc("DELETE /api/ssh-key/{id}", d.as(d.delete))
	return mux
}

// as authenticates a request and answers with what fn returns, or with 204 where
// that is nothing.
func (d door) as(fn func(r *http.Request, a control.Actor) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		actor, err := d.authenticate(r)
		var answer any
		if err == nil {
			answer, err = fn(r, actor)
		}
		switch {
		case err != nil:
			d.fail(w, r, err)
		case answer == nil:
			w.WriteHeader(http.StatusNoContent)
		default:
			api.WriteJSON(w, http.StatusOK, answer)
		}
	}
}

// authenticate takes the styles that CFEngine has, and Keyturn's own API tokens
// beside the access tokens of grants.
func (d door) authenticate(r *http.Request) (control.Actor, error) {
	ctx, source := r.Context(), api.Source(r)
	if token, ok := api.Bearer(r); ok {
		if strings.HasPrefix(token, "kt_") {
			return d.plane.Token(ctx, token, source)
		}
		return d.plane.AccessToken(ctx, token, source)
	}
	if user, password, ok := r.BasicAuth(); ok {
		return d.plane.Password(ctx, user, password, r.Header.Get(totpHeader), source)
	}
	return control.Actor{}, trust.Errorf(trust.Unauthenticated, "no credential was sent")
}

// statusOf is the table from kinds of error to statuses.
var statusOf = map[trust.Kind]int{
	trust.Invalid: http.StatusBadRequest, trust.Unauthenticated: http.StatusUnauthorized, trust.Denied: http.StatusForbidden,
	trust.NotFound: http.StatusNotFound, trust.Conflict: http.StatusConflict, trust.Exhausted: http.StatusTooManyRequests,
	trust.Unavailable: http.StatusServiceUnavailable, trust.Internal: http.StatusInternalServerError,
}

// fail answers with what an error is in this dialect: a status, and a line of text.
func (d door) fail(w http.ResponseWriter, r *http.Request, err error) {
	status, text := d.status(w, r, err)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text) // a client that has gone is no fault of ours
}

// status returns the status of an error and what a client is told of it, and sets
// the headers that go with it.
func (d door) status(w http.ResponseWriter, r *http.Request, err error) (status int, text string) {
	var e *trust.Error
	if !errors.As(err, &e) || e.Kind == trust.Internal {
		d.log(r.Context(), err)
		return http.StatusInternalServerError, "Internal error"
	}
	status, text = statusOf[e.Kind], e.Message
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	switch e.Kind {
	case trust.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Basic realm="Keyturn"`)
		text = "Authentication failed"
		if e.Field == "code" {
			text = "Two-factor authentication is required: send the code in the header " + totpHeader
		}
	case trust.NotFound:
		text = "SSH key not found"
	}
	var wait *control.Throttled
	if errors.As(err, &wait) {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait.RetryAfter+time.Second-1)/time.Second)))
	}
	return status, text
}
