// Package appviewx is the front door for clients of AppViewX: its SSH key
// calls below /avxapi, as far as docs/dialects/appviewx.md says.
//
// It holds no rule. A route reads a request into the argument of one verb, and
// shows what the verb answered in AppViewX's envelope; one table says which
// status and code an error has there.
package appviewx

import (
	"context"
	"errors"
	"net/http"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// An envelope is every answer. Published clients decode tags as a map of
// strings and headers as a string, and nothing else; null fits both.
type envelope struct {
	Response any               `json:"response"`
	Message  *string           `json:"message"`
	Code     *string           `json:"appStatusCode"`
	Tags     map[string]string `json:"tags"`
	Headers  *string           `json:"headers"`
}

// A fault is an error in AppViewX's words.
type fault struct {
	status  int
	code    string
	message string
	tags    map[string]string
}

// A door is the plane in AppViewX's words.
type door struct {
	plane *control.Plane
}

// New returns the handler of everything below /avxapi/.
func New(p *control.Plane) http.Handler {
	d := door{plane: p}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /avxapi/login", d.login)
	mux.HandleFunc("POST /avxapi/acctmgmt-get-service-token", d.serviceToken)
	mux.HandleFunc("POST /avxapi/ssh/key/rotate", d.as(d.rotate))
	mux.HandleFunc("POST /avxapi/ssh/key/rollback", d.as(d.rollback))
	mux.HandleFunc("POST /avxapi/ssh/search/userKeys", d.as(d.searchUserKeys))
	mux.HandleFunc("GET /avxapi/visualworkflow-request-logs", d.as(d.requestLogs))
	mux.HandleFunc("/avxapi/", func(w http.ResponseWriter, _ *http.Request) {
		fail(w, fault{http.StatusNotFound, "AVX_GW_404", "No such API, or not with this method", nil})
	})
	return mux
}

// as authenticates a request, checks what every call must have, and answers
// with what fn returns. Authentication comes first, as AppViewX's gateway does
// it.
func (d door) as(fn func(w http.ResponseWriter, r *http.Request, a control.Actor) (any, *fault)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		actor, f := d.authenticate(r)
		if f == nil && query(r, "gwsource") == "" {
			f = invalid("gwsource")
		}
		if f != nil {
			fail(w, *f)
			return
		}
		answer, f := fn(w, r, actor)
		if f != nil {
			fail(w, *f)
			return
		}
		api.WriteJSON(w, http.StatusOK, envelope{Response: answer, Tags: map[string]string{}})
	}
}

// authenticate takes one of the three styles that AppViewX has. A sessionId
// counts alone, even where there is a password, too; an empty header counts as
// none.
func (d door) authenticate(r *http.Request) (control.Actor, *fault) {
	session, token := r.Header.Get("sessionId"), r.Header.Get("token")
	user, password := r.Header.Get("username"), r.Header.Get("password")
	var actor control.Actor
	var err error
	switch {
	case session != "":
		actor, err = d.plane.WebLogin(r.Context(), session, api.Source(r))
	case token != "":
		actor, err = d.bearer(r.Context(), token, api.Source(r))
	case user != "" && password != "":
		actor, err = d.plane.Password(r.Context(), user, password, "", api.Source(r))
	default:
		return control.Actor{}, &unauthenticated
	}
	if trust.KindOf(err) == trust.Unauthenticated {
		return control.Actor{}, &unauthenticated
	}
	if err != nil {
		return control.Actor{}, faultOf(err)
	}
	return actor, nil
}

// bearer takes what stands in the header "token": a service token, or one of
// Keyturn's own API tokens.
func (d door) bearer(ctx context.Context, token, source string) (control.Actor, error) {
	if len(token) > 3 && token[:3] == "kt_" {
		return d.plane.Token(ctx, token, source)
	}
	return d.plane.ServiceToken(ctx, token, source)
}

var unauthenticated = fault{status: http.StatusUnauthorized, code: "AVX_GW_003", message: "Authentication failed, reason - Invalid Credentials"}

// invalid blames one field of a request, in the one documented form.
func invalid(field string) *fault {
	return &fault{status: http.StatusBadRequest, code: "AVX-VLDTN-001", message: "Mandatory field is missing or invalid values specified - " + field}
}

// faultOf is the table from kinds of error to status and code.
func faultOf(err error) *fault {
	var e *trust.Error
	if !errors.As(err, &e) {
		return &fault{status: http.StatusInternalServerError, code: "AVX_GW_500", message: "Internal error"}
	}
	text := e.Message
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	var busy *control.BusyError
	switch {
	case errors.As(err, &busy):
		return &fault{status: http.StatusExpectationFailed, code: "OPEN_WORK_ORDERS_FOUND", message: text, tags: map[string]string{"request": string(busy.Run)}}
	case e.Kind == trust.Unauthenticated:
		return &unauthenticated
	case e.Kind == trust.Denied:
		return &fault{status: http.StatusForbidden, code: "AVX_GW_003", message: "Authorization failed, reason - " + text}
	case e.Kind == trust.Exhausted:
		return &fault{status: http.StatusTooManyRequests, code: "AVX_GW_429", message: text}
	case e.Kind == trust.Unavailable:
		return &fault{status: http.StatusServiceUnavailable, code: "AVX_GW_503", message: text}
	case e.Kind == trust.Internal:
		return &fault{status: http.StatusInternalServerError, code: "AVX_GW_500", message: "Internal error"}
	case e.Field == "discovery":
		f := invalid("discoveryName")
		f.tags = map[string]string{"reason": text}
		return f
	case e.Field != "" && e.Field != "keys":
		return invalid(e.Field)
	}
	f := invalid("uuids")
	f.tags = map[string]string{"reason": text}
	return f
}

func fail(w http.ResponseWriter, f fault) {
	if f.tags == nil {
		f.tags = map[string]string{}
	}
	api.WriteJSON(w, f.status, envelope{Message: &f.message, Code: &f.code, Tags: f.tags})
}
