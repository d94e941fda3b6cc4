package cloudflare

import (
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// A fault is an error in Cloudflare's words. Where Cloudflare's text says too
// little to act on, what is meant stands in the chain.
type fault struct {
	Code    int     `json:"code"`
	Message string  `json:"message"`
	Source  *source `json:"source,omitempty"`
	Chain   []fault `json:"error_chain,omitempty"`
}

// A source is the part of the body that a fault is about.
type source struct {
	Pointer string `json:"pointer"`
}

// A refusal is a status with the faults that go with it.
type refusal struct {
	status int
	faults []fault
}

func (r *refusal) Error() string { return r.faults[0].Message }

// What this door refuses by itself.
var (
	noCredential      = refusal{http.StatusBadRequest, []fault{{Code: 9106, Message: "Missing X-Auth-Key, X-Auth-Email or Authorization headers"}}}
	badAuthorization  = refusal{http.StatusBadRequest, []fault{{Code: 6003, Message: "Invalid request headers", Chain: []fault{{Code: 6111, Message: "Invalid format for Authorization header"}}}}}
	badKey            = refusal{http.StatusBadRequest, []fault{{Code: 6003, Message: "Invalid request headers", Chain: []fault{{Code: 6103, Message: "Invalid format for X-Auth-Key header"}}}}}
	noAuthorization   = refusal{http.StatusBadRequest, []fault{{Code: 1001, Message: `Missing "Authorization" header`}}}
	invalidToken      = refusal{http.StatusUnauthorized, []fault{{Code: 1000, Message: "Invalid API Token"}}}
	unknownCredential = refusal{http.StatusForbidden, []fault{{Code: 10001, Message: "Unable to authenticate request"}}}
	authentication    = refusal{http.StatusForbidden, []fault{{Code: 10000, Message: "Authentication error"}}}
)

// noRoute is what a path is told that names nothing: a call that there is not, or
// an account.
func noRoute(r *http.Request) error {
	return &refusal{http.StatusNotFound, []fault{
		{Code: 7003, Message: "Could not route to " + pathOf(r) + ", perhaps your object identifier is invalid?"},
		{Code: 7000, Message: "No route for that URI"},
	}}
}

func noMethod(r *http.Request) error {
	return &refusal{http.StatusMethodNotAllowed, []fault{{Code: 7001, Message: "Method " + r.Method + " not available for that URI."}}}
}

// pathOf returns what a request asks for, below the prefix.
func pathOf(r *http.Request) string {
	path := strings.TrimPrefix(r.URL.Path, prefix)
	if len(path) > 256 {
		path = path[:256]
	}
	return strings.ToValidUTF8(path, "\uFFFD")
}

// invalidRequest begins the text of whatever is wrong with a request.
const invalidRequest = "access.api.error.invalid_request: "

// wireName returns what a field is called in bodies that verbs know by another name.
func wireName(field string) string {
	switch field {
	case "criteria":
		return "target_criteria"
	case "providers":
		return "allowed_idps"
	case "logins":
		return "connection_rules.ssh.usernames"
	}
	return field
}

// refusalOf is the table from kinds of error to status, code and text.
func refusalOf(err error) *refusal {
	var own *refusal
	if errors.As(err, &own) {
		return own
	}
	var e *trust.Error
	if !errors.As(err, &e) {
		e = &trust.Error{}
	}
	text := e.Message
	if e.Hint != "" {
		text += " (" + e.Hint + ")"
	}
	if e.Kind == trust.NotFound && e.Field == "application" {
		return &noApplication
	}
	one := func(status int, f fault) *refusal { return &refusal{status, []fault{f}} }
	var wait *control.Throttled
	switch {
	case errors.As(err, &wait):
		return one(http.StatusTooManyRequests, fault{Code: 971, Message: "Please wait and consider throttling your request speed", Chain: []fault{{Code: 971, Message: text}}})
	case e.Kind == trust.Invalid, e.Kind == trust.Conflict, e.Kind == trust.Exhausted,
		e.Kind == trust.NotFound && e.Field != "": // what the body names; what the path names is not blamed on a field
		f := fault{Code: 12130, Message: invalidRequest + text}
		if e.Kind == trust.Conflict && e.Field == "precedence" {
			f = fault{Code: 12130, Message: invalidRequest + "policy precedences must be unique", Chain: []fault{{Code: 12130, Message: text}}}
		}
		if e.Field != "" {
			f.Source = &source{"/" + strings.ReplaceAll(wireName(e.Field), ".", "/")}
		}
		return one(http.StatusBadRequest, f)
	case e.Kind == trust.Unauthenticated:
		return &unknownCredential
	case e.Kind == trust.Denied:
		return one(http.StatusForbidden, fault{Code: 10000, Message: "Authentication error", Chain: []fault{{Code: 10000, Message: text}}})
	case e.Kind == trust.NotFound:
		return one(http.StatusNotFound, fault{Code: 12135, Message: "access.api.error.not_found", Chain: []fault{{Code: 12135, Message: text}}})
	case e.Kind == trust.Unavailable:
		return one(http.StatusServiceUnavailable, fault{Code: 10503, Message: "Service unavailable: " + text})
	}
	return one(http.StatusInternalServerError, fault{Code: 10500, Message: "Internal server error"})
}

// fail answers with what an error is in this dialect. The SDKs try what fails
// again, some for minutes, unless they are told that it is in vain.
func (d door) fail(w http.ResponseWriter, r *http.Request, err error) {
	f := refusalOf(err)
	if f.status == http.StatusInternalServerError {
		d.log(r.Context(), err)
	}
	if f.status != http.StatusTooManyRequests && f.status != http.StatusServiceUnavailable {
		w.Header().Set("X-Should-Retry", "false")
	}
	var wait *control.Throttled
	if errors.As(err, &wait) {
		w.Header().Set("Retry-After", strconv.Itoa(int((wait.RetryAfter+time.Second-1)/time.Second)))
	}
	api.WriteJSON(w, f.status, envelope{Errors: f.faults, Messages: []message{}})
}
