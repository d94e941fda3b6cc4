// Package v1 is the front door of Keyturn's own clients: the command line, and
// whoever reads its OpenAPI document at /api/v1/openapi.json.
//
// It holds no rule. An operation reads a request into the argument of one verb
// of control and shows what the verb answered. Names are Keyturn's own, in
// snake case; times are RFC 3339 in UTC, absent where there is none; lists are
// never null. An error is a Problem, with its kind, message, hint and field.
package v1

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// A Problem is an error as clients see it (RFC 9457).
type Problem struct {
	Title  string `json:"title" doc:"The status in words"`
	Status int    `json:"status"`
	Kind   string `json:"kind" doc:"What the caller can do about it" enum:"invalid,unauthenticated,denied,not found,conflict,exhausted,unavailable,internal"`
	Detail string `json:"detail" doc:"What is wrong, naming the thing concerned"`
	Hint   string `json:"hint,omitempty" doc:"The next thing to do, such as a command to run"`
	Field  string `json:"field,omitempty" doc:"The part of the request that is at fault"`
}

func (p *Problem) Error() string { return p.Detail }

// GetStatus returns the HTTP status.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType makes an answer in JSON one of RFC 9457.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// statusOf is the table from kinds of error to HTTP.
var statusOf = map[trust.Kind]int{
	trust.Invalid:         http.StatusUnprocessableEntity,
	trust.Unauthenticated: http.StatusUnauthorized,
	trust.Denied:          http.StatusForbidden,
	trust.NotFound:        http.StatusNotFound,
	trust.Conflict:        http.StatusConflict,
	trust.Exhausted:       http.StatusTooManyRequests,
	trust.Unavailable:     http.StatusServiceUnavailable,
	trust.Internal:        http.StatusInternalServerError,
}

// problem shows an error of a verb.
func problem(err error) error {
	if err == nil {
		return nil
	}
	var e *trust.Error
	if !errors.As(err, &e) || e.Kind == trust.Internal {
		e = &trust.Error{Kind: trust.Internal, Message: "internal error", Hint: "the server's log has the reason, under the X-Request-Id of this answer"}
	}
	status := statusOf[e.Kind]
	return &Problem{Title: http.StatusText(status), Status: status, Kind: e.Kind.String(), Detail: e.Message, Hint: e.Hint, Field: e.Field}
}

// door is the plane in Keyturn's words.
type door struct {
	plane *control.Plane
	log   func(ctx context.Context, err error)
}

// New returns the handler of everything below /api/v1/. What a verb fails for
// that a client is not told, log is.
func New(p *control.Plane, log func(context.Context, error)) http.Handler {
	mux := http.NewServeMux()
	config := huma.DefaultConfig("Keyturn", "1")
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "/api/v1/openapi", "", ""
	config.CreateHooks = nil
	config.RejectUnknownQueryParameters = true
	config.Transformers = []huma.Transformer{ours}
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":    {Type: "http", Scheme: "bearer", Description: "An API token, kt_..., or a login token, ktl_..."},
		"password": {Type: "http", Scheme: "basic", Description: "A user's name and password; with the header Keyturn-TOTP, the code of a user who has a second factor"},
	}
	config.Security = []map[string][]string{{"token": {}}, {"password": {}}}
	a := humago.New(mux, config)
	d := door{plane: p, log: log}
	a.UseMiddleware(d.authenticate(a))
	d.loginRoutes(a)
	d.accountRoutes(a)
	d.kekRoutes(a)
	d.userRoutes(a)
	d.providerRoutes(a)
	d.applicationRoutes(a)
	d.policyRoutes(a)
	d.groupRoutes(a)
	d.policyTestRoutes(a)
	d.accessLogRoutes(a)
	d.hostRoutes(a)
	d.targetRoutes(a)
	d.discoveryRoutes(a)
	d.keyRoutes(a)
	d.seedRoutes(a)
	d.jwkRoutes(a)
	d.signingRoutes(a)
	d.runRoutes(a)
	d.approvalRoutes(a)
	d.authorityRoutes(a)
	d.certificateRoutes(a)
	mux.HandleFunc("/api/v1/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		api.WriteJSON(w, http.StatusNotFound, problem(trust.Errorf(trust.NotFound, "there is no %s %s", r.Method, r.URL.Path).WithHint("see /api/v1/openapi.json")))
	})
	return checkQuery(mux)
}

// checkQuery refuses what a reader of queries would drop in silence: what is not escaped
// as it has to be, and all but one value of a parameter.
func checkQuery(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := url.ParseQuery(r.URL.RawQuery)
		if err != nil {
			err = trust.Errorf(trust.Invalid, "the query cannot be read: %v", err)
		}
		for name, values := range query {
			if len(values) > 1 {
				err = trust.Errorf(trust.Invalid, "the query has %.64q %d times; of a parameter that is a list, values stand between commas", name, len(values)).WithField("query." + name)
			}
		}
		if err != nil {
			w.Header().Set("Content-Type", "application/problem+json")
			api.WriteJSON(w, http.StatusUnprocessableEntity, problem(err))
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours makes a Problem of huma's own errors: of requests that do not fit the
// schema.
func ours(_ huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	p := &Problem{Title: e.Title, Status: e.Status, Kind: trust.Invalid.String(), Detail: e.Detail}
	var all []string
	for _, d := range e.Errors {
		if p.Field == "" {
			p.Field = strings.TrimPrefix(d.Location, "body.")
		}
		all = append(all, strings.TrimPrefix(d.Location, "body.")+": "+d.Message)
	}
	if len(all) > 0 {
		p.Detail = strings.Join(all, "; ")
	}
	if e.Status == http.StatusInternalServerError {
		p.Kind, p.Detail = trust.Internal.String(), "internal error"
	}
	return p, nil
}

type actorKey struct{}

// authenticate finds out who asks, and hands the actor on in the one place where
// huma has room for it. Of whoever calls an open operation only the address is known.
func (d door) authenticate(a huma.API) func(huma.Context, func(huma.Context)) {
	return func(ctx huma.Context, next func(huma.Context)) {
		r, _ := humago.Unwrap(ctx)
		if len(ctx.Operation().Security) > 0 && len(ctx.Operation().Security[0]) == 0 {
			next(huma.WithValue(ctx, actorKey{}, control.Actor{Source: api.Source(r)}))
			return
		}
		actor, err := d.actor(r)
		if err != nil {
			p, ok := problem(err).(*Problem)
			if !ok {
				p = &Problem{Status: http.StatusInternalServerError}
			}
			if p.Status == http.StatusUnauthorized {
				ctx.SetHeader("WWW-Authenticate", `Bearer, Basic realm="keyturn"`)
			}
			ctx.SetHeader("Content-Type", "application/problem+json")
			ctx.SetStatus(p.Status)
			if err := a.Marshal(ctx.BodyWriter(), "application/json", p); err != nil {
				d.log(ctx.Context(), err)
			}
			return
		}
		next(huma.WithValue(ctx, actorKey{}, actor))
	}
}

func (d door) actor(r *http.Request) (control.Actor, error) {
	ctx, source := r.Context(), api.Source(r)
	if token, ok := api.Bearer(r); ok {
		return d.plane.Bearer(ctx, token, source)
	}
	if user, password, ok := r.BasicAuth(); ok {
		return d.plane.Password(ctx, user, password, r.Header.Get("Keyturn-TOTP"), source)
	}
	return control.Actor{}, trust.Errorf(trust.Unauthenticated, "no credential was sent").
		WithHint("keyturn login, or set KEYTURN_TOKEN, or KEYTURN_USER and KEYTURN_PASSWORD")
}

// actorOf returns who authenticate found.
func actorOf(ctx context.Context) control.Actor {
	a, ok := ctx.Value(actorKey{}).(control.Actor)
	if !ok {
		panic("v1: an operation without authentication")
	}
	return a
}

// An answer is a body, and nothing else.
type answer[T any] struct{ Body T }

// none is a request without parameters.
type none struct{}

// operation registers fn, which asks one verb. Errors of verbs become Problems.
func operation[I, O any](d door, a huma.API, method, path, id, summary string, fn func(context.Context, control.Actor, *I) (O, error)) {
	op := huma.Operation{
		OperationID: id, Method: method, Path: "/api/v1" + path, Summary: summary,
		MaxBodyBytes: api.MaxBody, Errors: []int{401, 403, 404, 409, 422, 429, 503},
	}
	if method == http.MethodPost && strings.Contains(summary, "Start") {
		op.DefaultStatus = http.StatusAccepted
	}
	register(d, a, op, fn)
}

// open registers fn as operation does, for whoever has no credential yet: its actor
// is nobody, with an address.
func open[I, O any](d door, a huma.API, method, path, id, summary string, fn func(context.Context, control.Actor, *I) (O, error)) {
	register(d, a, huma.Operation{
		OperationID: id, Method: method, Path: "/api/v1" + path, Summary: summary, Security: []map[string][]string{{}},
		MaxBodyBytes: maxLogin, Errors: []int{401, 403, 409, 422, 429, 503},
	}, fn)
}

// maxLogin bounds the body of a request from who has no credential yet.
const maxLogin = 64 << 10

func register[I, O any](d door, a huma.API, op huma.Operation, fn func(context.Context, control.Actor, *I) (O, error)) {
	huma.Register(a, op, func(ctx context.Context, in *I) (*answer[O], error) {
		out, err := fn(ctx, actorOf(ctx), in)
		if err != nil {
			if trust.KindOf(err) == trust.Internal {
				d.log(ctx, err)
			}
			return nil, problem(err)
		}
		return &answer[O]{out}, nil
	})
}

// Paging is what listings have in common.
type Paging struct {
	After string `query:"after" doc:"Where the page begins: next of the page before" maxLength:"2000"`
	Limit int    `query:"limit" doc:"How many entries the page has at most" default:"100" minimum:"1" maximum:"1000"`
}

func (p Paging) page() control.Page { return control.Page{After: p.After, Limit: p.Limit} }

// at returns a time as answers have it, or nil for none.
func at(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// texts returns typed ids as strings, and never nil.
func texts[S ~string](ids []S) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = string(id)
	}
	return out
}

func keyIDs(list []string) ([]trust.KeyID, error) {
	ids := make([]trust.KeyID, len(list))
	for i, text := range list {
		id, err := control.ParseKeyID(text)
		if err != nil {
			return nil, err
		}
		ids[i] = id
	}
	return ids, nil
}
