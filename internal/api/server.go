// Package api holds what the front doors over HTTP share: the server with its
// bounds, a log line for each request, and answers in JSON. It knows no
// dialect's paths, statuses or words; a dialect hands it a Door.
package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/trust"
)

// Bounds of what a client can make the server do.
const (
	// MaxBody is the most bytes of a request's body.
	MaxBody = 1 << 20

	readTimeout   = 30 * time.Second
	writeTimeout  = 90 * time.Second // longer than the longest wait of a door
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
	maxHeader     = 64 << 10
)

// A Door serves the path that Prefix is, or, where that ends with a slash, every path
// below it.
type Door struct {
	Prefix  string
	Handler http.Handler
}

// NewServer returns a server of doors, with /healthz, which answers as long as
// the process does, and /readyz, which answers 200 if ready returns nil. Other
// paths answer 404 in JSON. To the doors a request comes from where proxies say.
func NewServer(log *slog.Logger, proxies Proxies, ready func(context.Context) error, doors ...Door) *http.Server {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		WriteJSON(w, http.StatusOK, map[string]string{"status": "ok"})
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		if err := ready(r.Context()); err != nil {
			log.Error("not ready", "err", err)
			WriteJSON(w, http.StatusServiceUnavailable, map[string]string{"status": "unavailable"})
			return
		}
		WriteJSON(w, http.StatusOK, map[string]string{"status": "ready"})
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		WriteJSON(w, http.StatusNotFound, map[string]string{"error": "there is nothing at " + r.URL.Path})
	})
	return &http.Server{
		Handler: guard(log, proxies, throughDoors(doors, mux)), ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		ReadTimeout: readTimeout, WriteTimeout: writeTimeout, ReadHeaderTimeout: headerTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
	}
}

// throughDoors hands a request to the first door that serves its path as it was sent, or
// to next. A ServeMux would redirect what has "//" in it before any door was asked, in HTML,
// which not every dialect may answer with.
func throughDoors(doors []Door, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for _, d := range doors {
			below := strings.HasSuffix(d.Prefix, "/") && (strings.HasPrefix(r.URL.Path, d.Prefix) || r.URL.Path+"/" == d.Prefix)
			if below || r.URL.Path == d.Prefix {
				d.Handler.ServeHTTP(w, r)
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// guard bounds a request, gives it an id, finds out where it came from, logs it, and turns a
// panic into a 500 that says nothing. It logs no header and no query: those carry credentials.
func guard(log *slog.Logger, proxies Proxies, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun := time.Now()
		id := requestID()
		h := w.Header()
		h.Set("X-Request-Id", id)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		// A copy: the server looks at the body of its own request to see whether
		// what was not read of it fits into the next one.
		r = r.WithContext(r.Context())
		r.RemoteAddr = proxies.client(r)
		r.Body = http.MaxBytesReader(w, r.Body, MaxBody)
		rec := &recorder{ResponseWriter: w}
		defer func() {
			if v := recover(); v != nil {
				log.Error("panic in a request", "id", id, "path", r.URL.Path, "panic", v, "stack", string(debug.Stack()))
				if rec.status == 0 {
					WriteJSON(rec, http.StatusInternalServerError, map[string]string{"error": "internal error", "request_id": id})
				}
			}
			level := slog.LevelInfo
			if rec.status >= 500 {
				level = slog.LevelError
			}
			log.Log(r.Context(), level, "request", "id", id, "method", r.Method, "path", r.URL.Path,
				"status", rec.status, "ms", time.Since(begun).Milliseconds(), "from", Source(r))
		}()
		next.ServeHTTP(rec, r)
	})
}

// A recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

// Unwrap lets http.ResponseController reach the connection.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

func requestID() string {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand does not fail
	}
	return hex.EncodeToString(b)
}

// Source returns the address that a request came from, without the port: to a door, that
// of the client of the proxies that are trusted.
func Source(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// WriteJSON answers with a value as JSON, as the Content-Type that is set or else
// application/json.
func WriteJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		status, body = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // a client that has gone is no fault of ours
}

// ReadJSON reads a request's body, one JSON value, into v. A field that v does
// not have is an Invalid error, which names it, where strict.
func ReadJSON(r *http.Request, v any, strict bool) error {
	d := json.NewDecoder(r.Body)
	if strict {
		d.DisallowUnknownFields()
	}
	err := d.Decode(v)
	if err == nil {
		if _, more := d.Token(); !errors.Is(more, io.EOF) {
			return trust.Errorf(trust.Invalid, "the body is more than one JSON value")
		}
		return nil
	}
	var tooLarge *http.MaxBytesError
	var wrongType *json.UnmarshalTypeError
	switch {
	case errors.As(err, &tooLarge):
		return trust.Errorf(trust.Exhausted, "the body is longer than %d bytes", MaxBody)
	case errors.As(err, &wrongType):
		return unlike(wrongType, "")
	case errors.Is(err, io.EOF):
		return trust.Errorf(trust.Invalid, "the body is empty, where JSON is meant")
	}
	if name, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
		return trust.Errorf(trust.Invalid, "there is no field %s", name).WithField(strings.Trim(name, `"`))
	}
	return trust.Errorf(trust.Invalid, "the body is not JSON: %w", err)
}

// ReadField reads the JSON of one field of a body into v. An error names the field.
func ReadField(name string, data []byte, v any) error {
	err := json.Unmarshal(data, v)
	var wrongType *json.UnmarshalTypeError
	var own *trust.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own): // of what a type says of its JSON
		return own.WithField(name)
	case errors.As(err, &wrongType):
		return unlike(wrongType, name)
	}
	return trust.Errorf(trust.Invalid, "%q: %w", name, err).WithField(name)
}

// unlike says what JSON is where another type is meant, at the top or within a field.
func unlike(err *json.UnmarshalTypeError, within string) error {
	what, field := "the body", strings.Trim(within+"."+err.Field, ".")
	if field != "" {
		what = strconv.Quote(field)
	}
	found, _, _ := strings.Cut(err.Value, " ") // "number 1.5"
	return trust.Errorf(trust.Invalid, "%s is %s where %s is meant", what, withArticle(found), jsonNoun(err.Type)).WithField(field)
}

// jsonNoun says what the JSON of a Go type is.
func jsonNoun(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "an object"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "a bool"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}

func withArticle(noun string) string {
	if strings.ContainsAny(noun[:1], "ao") { // array, object
		return "an " + noun
	}
	return "a " + noun
}

// Bearer returns the token by which a request asks, if it does (RFC 6750, section 2.1).
// The scheme is one in any case of letters (RFC 9110, section 11.1).
func Bearer(r *http.Request) (token string, ok bool) {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.TrimSpace(token), ok && strings.EqualFold(scheme, "Bearer")
}
