package cloudflare

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// The table from errors to statuses, codes and texts. What would be refused again says
// so, and is neither 409 nor 5xx: the SDKs would try it again for minutes.
func TestRefusals(t *testing.T) {
	wait := trust.Errorf(trust.Exhausted, "too many")
	wait.Err = &control.Throttled{RetryAfter: 1500 * time.Millisecond}
	for _, test := range []struct {
		err    error
		status int
		errors string
		again  bool
	}{
		{trust.Errorf(trust.Invalid, "x").WithHint("y"), 400, `{"code":12130,"message":"access.api.error.invalid_request: x (y)"}`, false},
		{trust.Errorf(trust.Invalid, "x").WithField("ip.ipv4"), 400, `{"code":12130,"message":"access.api.error.invalid_request: x","source":{"pointer":"/ip/ipv4"}}`, false},
		{trust.Errorf(trust.Conflict, "there already"), 400, `{"code":12130,"message":"access.api.error.invalid_request: there already"}`, false},
		{trust.Errorf(trust.Exhausted, "as many as there can be"), 400, `{"code":12130,"message":"access.api.error.invalid_request: as many as there can be"}`, false},
		{trust.Errorf(trust.Denied, "this needs the permission \"Zero Trust Write\""), 403, `{"code":10000,"message":"Authentication error","error_chain":[{"code":10000,"message":"this needs the permission \"Zero Trust Write\""}]}`, false},
		{trust.Errorf(trust.Unauthenticated, "x"), 403, `{"code":10001,"message":"Unable to authenticate request"}`, false},
		{trust.Errorf(trust.NotFound, "no x"), 404, `{"code":12135,"message":"access.api.error.not_found","error_chain":[{"code":12135,"message":"no x"}]}`, false},
		{trust.Errorf(trust.NotFound, "no x").WithField("include"), 400, `{"code":12130,"message":"access.api.error.invalid_request: no x","source":{"pointer":"/include"}}`, false},
		{wait, 429, `{"code":971,"message":"Please wait and consider throttling your request speed","error_chain":[{"code":971,"message":"too many"}]}`, true},
		{trust.Errorf(trust.Unavailable, "x"), 503, `{"code":10503,"message":"Service unavailable: x"}`, true},
		{trust.Errorf(trust.Internal, "secret"), 500, `{"code":10500,"message":"Internal server error"}`, false},
		{errors.New("secret"), 500, `{"code":10500,"message":"Internal server error"}`, false},
		{&unknownCredential, 403, `{"code":10001,"message":"Unable to authenticate request"}`, false},
	} {
		logged := false
		d := door{log: func(context.Context, error) { logged = true }}
		w := httptest.NewRecorder()
		d.fail(w, httptest.NewRequest(http.MethodGet, "/", nil), fmt.Errorf("around: %w", test.err))
		want := `{"result":null,"success":false,"errors":[` + test.errors + `],"messages":[]}`
		if got := strings.TrimSpace(w.Body.String()); w.Code != test.status || got != want || logged != (test.status == 500) {
			t.Errorf("%v: got %d %s, logged %t, want %d %s", test.err, w.Code, got, logged, test.status, want)
		}
		if got := w.Header().Get("X-Should-Retry"); (got == "false") == test.again || w.Code == 429 && w.Header().Get("Retry-After") != "2" {
			t.Errorf("%v: the headers are %v", test.err, w.Header())
		}
	}
}

// What is refused before anybody is asked: paths, methods, and what no credential
// can be.
func TestRefusedAtTheDoor(t *testing.T) {
	const account = "/accounts/0123456789abcdef0123456789abcdef/tokens/verify"
	for _, test := range []struct {
		method, path, authorization, email, key string
		status                                  int
		want                                    string
	}{
		{"GET", "/", "", "", "", 404, `{"code":7003,"message":"Could not route to /, perhaps your object identifier is invalid?"},{"code":7000,"message":"No route for that URI"}`},
		{"POST", "/accounts/nonsense", "", "", "", 404, `"message":"Could not route to /accounts/nonsense, perhaps your object identifier is invalid?"`},
		{"GET", "/accounts/nonsense/tokens/verify", "Bearer kt_x", "", "", 404, `{"code":7003,`},
		{"GET", "/accounts/0123456789ABCDEF0123456789ABCDEF/tokens/verify", "Bearer kt_x", "", "", 404, `{"code":7003,`},
		{"GET", "/zones/nonsense/access/groups", "Bearer kt_x", "", "", 404, `{"code":7003,"message":"Could not route to /zones/nonsense/access/groups, perhaps`},
		{"GET", "/zones/0123456789abcdef0123456789abcdef/gateway/audit_ssh_settings", "Bearer kt_x", "", "", 404, `{"code":7003,`},
		{"GET", "/zones/0123456789abcdef0123456789abcdef/access/groups", "", "", "", 400, `{"code":9106,`},
		{"GET", "/" + strings.Repeat("x", 5000), "", "", "", 404, `xxx, perhaps`},
		{"GET", "//user/tokens/verify", "", "", "", 404, `{"code":7003,"message":"Could not route to //user/tokens/verify, perhaps`},
		{"POST", "/user//tokens/verify", "", "", "", 404, `{"code":7003,`},
		{"GET", "/user/../user/tokens/verify", "", "", "", 404, `{"code":7003,`},
		{"GET", "//", "", "", "", 404, `{"code":7003,`},
		{"GET", "", "", "", "", 404, `{"code":7003,`},
		{"OPTIONS", "/nothing", "", "", "", 404, `{"code":7003,`},
		{"HEAD", "/user/tokens/verify", "", "", "", 400, `{"code":9106,`},
		{"HEAD", "/accounts/0123456789abcdef0123456789abcdef/gateway/audit_ssh_settings/rotate_seed", "Bearer kt_x", "", "", 405, `{"code":7001,"message":"Method HEAD not available for that URI."}`},
		{"DELETE", "/user/tokens/verify", "", "", "", 405, `{"code":7001,"message":"Method DELETE not available for that URI."}`},
		{"GET", "/user/tokens/verify", "", "", "", 400, `{"code":9106,"message":"Missing X-Auth-Key, X-Auth-Email or Authorization headers"}`},
		{"GET", account, "", "", "", 400, `{"code":9106,`},
		{"GET", account, "", "alice", "", 400, `{"code":9106,`},
		{"GET", "/user/tokens/verify", "", "alice", "kt_x", 400, `{"code":1001,"message":"Missing \"Authorization\" header"}`},
		{"GET", account, "Bearer", "", "", 400, `{"code":6003,"message":"Invalid request headers","error_chain":[{"code":6111,"message":"Invalid format for Authorization header"}]}`},
		{"GET", account, "Bearer  ", "alice", "kt_x", 400, `{"code":6111,`},
		{"GET", account, "Bearer =", "", "", 400, `{"code":6111,`},
		{"GET", account, "Bearer two words", "", "", 400, `{"code":6111,`},
		{"GET", account, "Bearer {{TOKEN}}", "", "", 400, `{"code":6111,`},
		{"GET", account, "Basic YTpi", "", "", 400, `{"code":6111,`},
	} {
		r := httptest.NewRequest(test.method, prefix+test.path, strings.NewReader("not JSON"))
		for name, value := range map[string]string{"Authorization": test.authorization, "X-Auth-Email": test.email, "X-Auth-Key": test.key} {
			if value != "" {
				r.Header.Set(name, value)
			}
		}
		w := httptest.NewRecorder()
		asServed(nil).ServeHTTP(w, r)
		if w.Code != test.status || !strings.Contains(w.Body.String(), test.want) || !strings.HasPrefix(w.Body.String(), `{"result":null,"success":false,"errors":[`) ||
			w.Header().Get("Content-Type") != "application/json" || w.Body.Len() > 1000 {
			t.Errorf("%s %.80s: got %d %.300s, want %d %s", test.method, test.path, w.Code, w.Body, test.status, test.want)
		}
	}
	w := httptest.NewRecorder()
	asServed(nil).ServeHTTP(w, httptest.NewRequest(http.MethodPatch, prefix+"/accounts/0123456789abcdef0123456789abcdef/infrastructure/targets", nil))
	if got := w.Header().Get("Allow"); w.Code != 405 || got != "GET, HEAD, POST, OPTIONS" {
		t.Errorf("a method that there is not: %d, there are %q", w.Code, got)
	}
	w = httptest.NewRecorder()
	asServed(nil).ServeHTTP(w, httptest.NewRequest(http.MethodOptions, prefix+"/user/tokens/verify", nil))
	if got := w.Header().Get("Allow"); w.Code != 200 || got != "GET, HEAD, OPTIONS" || strings.TrimSpace(w.Body.String()) != `{"result":null,"success":true,"errors":[],"messages":[]}` {
		t.Errorf("OPTIONS: %d, there are %q, %s", w.Code, got, w.Body)
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("X-Auth-Email", "alice")
	r.Header.Set("X-Auth-Key", "not a key")
	if _, err := (door{}).authenticate(r); err != error(&badKey) {
		t.Errorf("a key of two words: %v", err)
	}
}

// asServed returns the door behind the server's own bounds.
func asServed(log func(context.Context, error)) http.Handler {
	return api.NewServer(slog.New(slog.DiscardHandler), api.Proxies{}, nil, api.Door{Prefix: prefix + "/", Handler: New(nil, log)}).Handler
}

// A panic is answered in the envelope too, and logged with where it was.
func TestPanic(t *testing.T) {
	var logged error
	r := httptest.NewRequest(http.MethodGet, prefix+"/user/tokens/verify", nil)
	r.Header.Set("Authorization", "Bearer kt_x") // which is asked of a plane that is not there
	w := httptest.NewRecorder()
	asServed(func(_ context.Context, err error) { logged = err }).ServeHTTP(w, r)
	want := `{"result":null,"success":false,"errors":[{"code":10500,"message":"Internal server error"}],"messages":[]}`
	if got := strings.TrimSpace(w.Body.String()); w.Code != 500 || got != want || w.Header().Get("X-Should-Retry") != "false" || w.Header().Get("Content-Type") != "application/json" {
		t.Errorf("got %d %s %v, want 500 %s", w.Code, got, w.Header(), want)
	}
	if logged == nil || !strings.Contains(logged.Error(), "nil pointer") || !strings.Contains(logged.Error(), "credential.go") {
		t.Errorf("logged as %v", logged)
	}
}

// Who breaks a connection off by a panic, as net/http has it, does break it off.
func TestAbortedAnswer(t *testing.T) {
	d := door{log: func(_ context.Context, err error) { t.Errorf("logged: %v", err) }}
	s := httptest.NewServer(d.unbroken(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })))
	defer s.Close()
	resp, err := s.Client().Get(s.URL)
	if err == nil {
		resp.Body.Close()
		t.Errorf("answered with %s", resp.Status)
	}
}

// A body that says that it is no JSON is refused, wherever its call reads one.
func TestContentTypes(t *testing.T) {
	for kind, fine := range map[string]bool{
		"": true, "application/json": true, "application/json; charset=utf-8": true, "Application/JSON": true, "application/merge-patch+json": true,
		"application/x-www-form-urlencoded": false, "text/plain": false, "multipart/form-data; boundary=x": false, "nonsense/": false, "json": false,
	} {
		for body, length := range map[string]int64{"{}": 2, "{} in chunks": -1, "": 0} {
			r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
			r.ContentLength = length
			if kind != "" {
				r.Header.Set("Content-Type", kind)
			}
			if err := isJSON(r); (err == nil) != (fine || body == "") {
				t.Errorf("%q of type %q: %v", body, kind, err)
			}
		}
	}
}

// A criterion comes back in the form in which it was written. One that Keyturn's own API
// wrote is shown in the older form, which every client reads, where that can say it.
func TestFormOfCriteria(t *testing.T) {
	web := control.Attributes{Hostnames: []string{"web1"}}
	tags := control.Attributes{Tags: map[string][]string{"env": {"prod"}}}
	for _, c := range []struct {
		include, exclude control.Attributes
		sections         bool
		want             string
	}{
		{web, control.Attributes{}, false, `{"port":22,"protocol":"SSH","target_attributes":{"hostname":["web1"]}}`},
		{web, control.Attributes{}, true, `{"include":{"target_attributes":{"hostname":["web1"]}},"port":22,"protocol":"SSH"}`},
		{tags, control.Attributes{}, false, `{"include":{"tags":{"env":["prod"]}},"port":22,"protocol":"SSH"}`},
		{web, tags, false, `{"exclude":{"tags":{"env":["prod"]}},"include":{"target_attributes":{"hostname":["web1"]}},"port":22,"protocol":"SSH"}`},
	} {
		var written control.Criterion
		written.Port, written.Protocol, written.Include, written.Exclude, written.Sections = 22, "SSH", c.include, c.exclude, c.sections
		if got, err := json.Marshal(showCriterion(written)); string(got) != c.want || err != nil {
			t.Errorf("%+v is shown as %s, %v; want %s", written, got, err, c.want)
		}
	}
}
