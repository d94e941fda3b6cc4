package cfengine

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// The table from errors to statuses and texts.
func TestStatuses(t *testing.T) {
	for _, test := range []struct {
		err    error
		status int
		text   string
		logged bool
	}{
		{trust.Errorf(trust.Unauthenticated, "x").WithHint("set KEYTURN_TOKEN"), 401, "Authentication failed", false},
		{trust.Errorf(trust.Unauthenticated, "x").WithField("code"), 401, "Two-factor authentication is required: send the code in the header Cf-2FA-Token", false},
		{trust.Errorf(trust.Denied, "x").WithHint("ask"), 403, "x (ask)", false},
		{trust.Errorf(trust.NotFound, "there is no key %q", "k"), 404, "SSH key not found", false},
		{trust.Errorf(trust.Conflict, "%w", &control.InUseError{Key: "k", Authorized: []string{"web1:alice:f"}}), 409, "key k is accepted in web1:alice:f", false},
		{trust.Errorf(trust.Conflict, "%w", &control.BusyError{Key: "k", Run: "r"}), 409, "key k is in run r, which has not ended", false},
		{trust.Errorf(trust.Exhausted, "x"), 429, "x", false},
		{trust.Errorf(trust.Unavailable, "x"), 503, "x", false},
		{trust.Errorf(trust.Internal, "secret"), 500, "Internal error", true},
		{errors.New("secret"), 500, "Internal error", true},
	} {
		logged := false
		d := door{log: func(context.Context, error) { logged = true }}
		w := httptest.NewRecorder()
		d.fail(w, httptest.NewRequest(http.MethodGet, "/", nil), fmt.Errorf("around: %w", test.err))
		basic := w.Header().Get("WWW-Authenticate")
		if w.Code != test.status || w.Body.String() != test.text || logged != test.logged ||
			!strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") || strings.HasPrefix(basic, "Basic ") != (test.status == 401) {
			t.Errorf("%v: got %d %q, logged %t, with %v", test.err, w.Code, w.Body, logged, w.Header())
		}
	}
	wait := trust.Errorf(trust.Exhausted, "x")
	wait.Err = &control.Throttled{RetryAfter: 1500 * time.Millisecond}
	w := httptest.NewRecorder()
	door{}.fail(w, httptest.NewRequest(http.MethodGet, "/", nil), wait)
	if w.Header().Get("Retry-After") != "2" {
		t.Errorf("who has to wait for 1.5 s is told %q", w.Header().Get("Retry-After"))
	}
}

// Times are written as PostgreSQL writes them.
func TestTimestamp(t *testing.T) {
	east := time.FixedZone("", 2*60*60)
	for want, at := range map[string]time.Time{
		"2026-11-22 10:05:56.23852+00":  time.Date(2026, 11, 22, 10, 5, 56, 238_520_000, time.UTC),
		"2026-11-22 10:05:56.000001+00": time.Date(2026, 11, 22, 10, 5, 56, 1_999, time.UTC),
		"2026-11-22 10:05:56+00":        time.Date(2026, 11, 22, 10, 5, 56, 0, time.UTC),
		"2026-11-21 22:30:00.5+00":      time.Date(2026, 11, 22, 0, 30, 0, 500_000_000, east),
	} {
		if got := timestamp(at); got != want {
			t.Errorf("%s is written as %s, want %s", at, got, want)
		}
	}
}

// What cannot be the id of a key is as one that no key has.
func TestNumber(t *testing.T) {
	for text, want := range map[string]int64{
		"2": 2, "9223372036854775807": 1<<63 - 1, "9223372036854775808": -1, "-1": -1, "+2": -1, "2.0": -1, "0x2": -1, "two": -1, "": -1, " 2": -1, "1_0": -1, "٢": -1,
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetPathValue("id", text)
		got, err := number(r)
		if want < 0 && trust.KindOf(err) != trust.NotFound || want >= 0 && (err != nil || got != want) {
			t.Errorf("id %q is %d, %v", text, got, err)
		}
	}
}

// Methods that there are not are told so, and what there is; who sends no credential
// is told that before anything else.
func TestRoutes(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
		allow        string
	}{
		{"PUT", "/api/ssh-key", 405, "GET, HEAD, POST"},
		{"DELETE", "/api/ssh-key", 405, "GET, HEAD, POST"},
		{"POST", "/api/ssh-key/2", 405, "DELETE, GET, HEAD"},
		{"PATCH", "/api/ssh-key/2", 405, "DELETE, GET, HEAD"},
		{"GET", "/api/oauth2/token", 405, "POST"},
		{"GET", "/api/ssh-key/2/private", 404, ""},
		{"GET", "/api/ssh-key/", 404, ""},
		{"GET", "/api/oauth2/authorize", 404, ""},
		{"GET", "/api/ssh-key", 401, ""},
		{"POST", "/api/ssh-key", 401, ""},
		{"GET", "/api/ssh-key/two", 401, ""},
		{"DELETE", "/api/ssh-key/2", 401, ""},
	} {
		w := httptest.NewRecorder()
		New(nil, nil).ServeHTTP(w, httptest.NewRequest(test.method, test.path, strings.NewReader("not JSON")))
		if w.Code != test.status || w.Header().Get("Allow") != test.allow {
			t.Errorf("%s %s: got %d, Allow %q", test.method, test.path, w.Code, w.Header().Get("Allow"))
		}
	}
}

// What the token endpoint refuses before it asks anybody, in the words of RFC 6749,
// section 5.2.
func TestTokenRefusals(t *testing.T) {
	for _, test := range []struct{ kind, body, code string }{
		{"", "", "invalid_request"},
		{"form", "grant_type=", "invalid_request"},
		{"form", "grant_type=%zz", "invalid_request"},
		{"form", "grant_type=client_credentials&client_id=MP", "unsupported_grant_type"},
		{"form", "grant_type=authorization_code&client_id=MP", "unsupported_grant_type"},
		{"form", "grant_type=PASSWORD&client_id=MP&username=a&password=b", "unsupported_grant_type"},
		{"form", "grant_type=password&username=a&password=b", "invalid_client"},
		{"form", "grant_type=password&username=a&password=b&client_id=mp", "invalid_client"},
		{"form", "grant_type=password&client_id=MP", "invalid_request"},
		{"form", "grant_type=password&client_id=MP&username=a", "invalid_request"},
		{"form", "grant_type=refresh_token&client_id=MP", "invalid_request"},
		{"json", `{"grant_type":"password","client_id":"MP"`, "invalid_request"},
		{"json", `{"grant_type":["password"]}`, "invalid_request"},
		{"json", `[]`, "invalid_request"},
		{"json", `{"grant_type":"password","client_id":"MP","username":"a"}`, "invalid_request"},
	} {
		// Parameters in the query do not count: it would be logged on the way.
		r := httptest.NewRequest(http.MethodPost, "/api/oauth2/token?grant_type=password&client_id=MP&username=a&password=b&refresh_token=c", strings.NewReader(test.body))
		switch test.kind {
		case "form":
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		case "json":
			r.Header.Set("Content-Type", "application/json; charset=utf-8")
		}
		w := httptest.NewRecorder()
		New(nil, nil).ServeHTTP(w, r)
		if w.Code != 400 || !strings.HasPrefix(w.Body.String(), `{"error":"`+test.code+`","error_description":"`) {
			t.Errorf("%s %s: got %d %s, want %s", test.kind, test.body, w.Code, w.Body, test.code)
		}
	}
}
