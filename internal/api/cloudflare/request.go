package cloudflare

import (
	"fmt"
	"maps"
	"mime"
	"net/http"
	"path"
	"runtime/debug"
	"slices"
	"strings"

	"keyturn/internal/api"
	"keyturn/internal/trust"
)

// paths keeps from mux what it would answer by a redirection in HTML: paths with "//" or
// "..". Clients that join a base URL with too many slashes ask for them.
func (d door) paths(mux http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked := strings.TrimSuffix(r.URL.EscapedPath(), "/")
		if asked != path.Clean(asked) {
			d.fail(w, r, noRoute(r))
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// unbroken answers in the envelope where next panics: an SDK that finds no JSON takes the
// answer for nothing at all. One that breaks the connection off is left to.
func (d door) unbroken(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			switch v := recover(); v {
			case nil:
			case http.ErrAbortHandler:
				panic(v)
			default:
				d.fail(w, r, fmt.Errorf("panic: %v\n%s", v, debug.Stack()))
			}
		}()
		next.ServeHTTP(w, r)
	})
}

// methods answers by the call for the method of a request. HEAD is GET, whose body
// net/http keeps back, and OPTIONS says what there is (RFC 9110, sections 9.3.2 and 9.3.7).
func (d door) methods(calls map[string]http.HandlerFunc) http.HandlerFunc {
	if get, there := calls[http.MethodGet]; there {
		calls[http.MethodHead] = get
	}
	allow := strings.Join(append(slices.Sorted(maps.Keys(calls)), http.MethodOptions), ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		call, there := calls[r.Method]
		switch {
		case there:
			call(w, r)
		case r.Method == http.MethodOptions:
			w.Header().Set("Allow", allow)
			api.WriteJSON(w, http.StatusOK, succeeded(answer{}))
		default:
			w.Header().Set("Allow", allow)
			d.fail(w, r, noMethod(r))
		}
	}
}

// isJSON refuses a body that says that it is something else. Where it says nothing, it is
// read as JSON.
func isJSON(r *http.Request) error {
	given := r.Header.Get("Content-Type")
	if given == "" || r.ContentLength == 0 {
		return nil
	}
	kind, _, err := mime.ParseMediaType(given)
	if err != nil || kind != "application/json" && !strings.HasSuffix(kind, "+json") {
		return trust.Errorf(trust.Invalid, "the body is of the type %.60q, where application/json is meant", given)
	}
	return nil
}
