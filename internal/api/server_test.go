package api

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"keyturn/internal/trust"
)

// What is wrong with a body is said by name, and whatever a body is, nothing but
// its one value is taken.
func TestReadJSON(t *testing.T) {
	type body struct {
		Name  string `json:"name"`
		Inner struct {
			Count int `json:"count"`
		} `json:"inner"`
	}
	for _, test := range []struct {
		text   string
		strict bool
		kind   trust.Kind // 0 where it is read
		field  string
	}{
		{`{"name":"a","inner":{"count":1}}`, true, 0, ""},
		{" {}\n ", true, 0, ""},
		{`{"name":"a","more":1}`, false, 0, ""},
		{`{"name":"a","more":1}`, true, trust.Invalid, "more"},
		{`{"name":1}`, false, trust.Invalid, "name"},
		{`{"inner":{"count":"1"}}`, false, trust.Invalid, "inner.count"},
		{`{"name":"a"} {"name":"b"}`, false, trust.Invalid, ""},
		{`{"name":"a"}]`, false, trust.Invalid, ""},
		{``, false, trust.Invalid, ""},
		{`{"name":`, false, trust.Invalid, ""},
		{`name=a`, false, trust.Invalid, ""},
		{`{"name":"` + strings.Repeat("a", MaxBody) + `"}`, false, trust.Exhausted, ""},
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(test.text))
		r.Body = http.MaxBytesReader(nil, r.Body, MaxBody)
		var v body
		err := ReadJSON(r, &v, test.strict)
		var e *trust.Error
		switch errors.As(err, &e); {
		case test.kind == 0 && err != nil:
			t.Errorf("%.60s: %v", test.text, err)
		case test.kind != 0 && (e == nil || e.Kind != test.kind || e.Field != test.field):
			t.Errorf("%.60s: got %+v, want kind %v of field %q", test.text, e, test.kind, test.field)
		}
	}
}

// What is of the wrong type is told in words of JSON, and not in those of this
// program.
func TestReadJSONOfAnotherType(t *testing.T) {
	type inner struct {
		Count int `json:"count"`
	}
	var v struct {
		Name  string  `json:"name"`
		Inner *inner  `json:"inner"`
		List  []inner `json:"list"`
		On    bool    `json:"on"`
		Part  float64 `json:"part"`
	}
	for text, want := range map[string]string{
		`[]`:                      "the body is an array where an object is meant",
		`"x"`:                     "the body is a string where an object is meant",
		`{"name":{}}`:             `"name" is an object where a string is meant`,
		`{"inner":[]}`:            `"inner" is an array where an object is meant`,
		`{"inner":{"count":1.5}}`: `"inner.count" is a number where a whole number is meant`,
		`{"list":true}`:           `"list" is a bool where an array is meant`,
		`{"on":"yes"}`:            `"on" is a string where a bool is meant`,
		`{"part":"1"}`:            `"part" is a string where a number is meant`,
	} {
		r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(text))
		if err := ReadJSON(r, &v, true); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}

// The address that a login or a throttle knows somebody by has no port, and is
// not what a header says.
func TestSource(t *testing.T) {
	for remote, want := range map[string]string{"192.0.2.1:5000": "192.0.2.1", "[2001:db8::1]:5000": "2001:db8::1", "@": "@"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.RemoteAddr = remote
		r.Header.Set("X-Forwarded-For", "198.51.100.1")
		if got := Source(r); got != want {
			t.Errorf("%s: got %q, want %q", remote, got, want)
		}
	}
}

// Behind trusted proxies a request comes from the right-most address that is none of
// theirs, and from no other whatever the client writes in front of that.
func TestProxies(t *testing.T) {
	trusted := []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("2001:db8:1::/48")}
	const local = "127.0.0.1:5000"
	for _, test := range []struct {
		what, peer, header string
		lines              []string
		want               string
	}{
		{"one proxy", local, XForwardedFor, []string{"192.0.2.1"}, "192.0.2.1"},
		{"a client that says it is another", local, XForwardedFor, []string{"198.51.100.1, 192.0.2.1"}, "192.0.2.1"},
		{"the same on a line of its own", local, XForwardedFor, []string{"198.51.100.1", "192.0.2.1"}, "192.0.2.1"},
		{"three proxies", local, XForwardedFor, []string{"198.51.100.1, 192.0.2.1, 10.1.2.3,2001:db8:1::7"}, "192.0.2.1"},
		{"a client that says it is a proxy", local, XForwardedFor, []string{"198.51.100.1, 10.1.2.3, 192.0.2.1"}, "192.0.2.1"},
		{"only proxies", local, XForwardedFor, []string{"10.1.2.3, 10.1.2.4"}, "10.1.2.3"},
		{"a proxy that asks for nobody", local, XForwardedFor, nil, "127.0.0.1"},
		{"nobody whom a proxy knows", local, XForwardedFor, []string{"192.0.2.1, unknown, 10.1.2.3"}, "10.1.2.3"},
		{"no address", local, XForwardedFor, []string{"192.0.2.1, ', 10.1.2.3\x00"}, "127.0.0.1"},
		{"ports and brackets", local, XForwardedFor, []string{"192.0.2.1:80, [2001:db8:1::1], [2001:db8:1::2]:80"}, "192.0.2.1"},
		{"IPv4 in IPv6", "[::ffff:127.0.0.1]:5000", XForwardedFor, []string{"::ffff:192.0.2.1, ::ffff:10.1.2.3"}, "192.0.2.1"},
		{"a zone of the client's choice", local, XForwardedFor, []string{"fe80::1%it"}, "fe80::1"},
		{"who is no proxy", "192.0.2.9:5000", XForwardedFor, []string{"192.0.2.1"}, "192.0.2.9"},
		{"RFC 7239", local, Forwarded, []string{`for=198.51.100.1;by=192.0.2.7, For="[2001:db8::17]:4711";proto=https`}, "2001:db8::17"},
		{"RFC 7239 through two", local, Forwarded, []string{`for=192.0.2.1`, `proto=https; for="10.1.2.3"`}, "192.0.2.1"},
		{"a quote that the client does not close", local, Forwarded, []string{`for="198.51.100.1, for=192.0.2.1`}, "192.0.2.1"},
		{"RFC 7239 without an address", local, Forwarded, []string{`for=192.0.2.1, for=_hidden`}, "127.0.0.1"},
	} {
		r := httptest.NewRequest(http.MethodGet, "/door/", nil)
		r.RemoteAddr = test.peer
		r.Header.Set(XForwardedFor, "203.0.113.1") // which is passed on, unless the proxy writes it
		r.Header.Set(Forwarded, "for=203.0.113.1")
		r.Header[test.header] = test.lines
		var got string
		door := Door{Prefix: "/door/", Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = Source(r) })}
		NewServer(slog.New(slog.DiscardHandler), Proxies{Trusted: trusted, Header: test.header}, nil, door).Handler.ServeHTTP(httptest.NewRecorder(), r)
		if got != test.want {
			t.Errorf("%s: got %s, want %s", test.what, got, test.want)
		}
	}
}

// A door that panics answers 500 and says nothing of why; the log does, under the
// id that the answer has.
func TestPanic(t *testing.T) {
	var log strings.Builder
	door := Door{Prefix: "/door/", Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic("secret reason") })}
	s := NewServer(slog.New(slog.NewTextHandler(&log, nil)), Proxies{}, nil, door)
	w := httptest.NewRecorder()
	s.Handler.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/door/x?token=kt_secret", nil))
	answer, err := io.ReadAll(w.Result().Body)
	if err != nil {
		t.Fatal(err)
	}
	id := w.Header().Get("X-Request-Id")
	if w.Code != http.StatusInternalServerError || strings.Contains(string(answer), "secret") {
		t.Errorf("got %d: %s", w.Code, answer)
	}
	if id == "" || !strings.Contains(log.String(), id) || !strings.Contains(log.String(), "secret reason") || strings.Contains(log.String(), "kt_secret") {
		t.Errorf("request %q is logged as %s", id, log.String())
	}
}

func TestBearer(t *testing.T) {
	for header, want := range map[string]string{"Bearer kt_a": "kt_a", "bearer  kt_a ": "kt_a", "Basic kt_a": "", "Bearer": "", "": "", "BearerX kt_a": ""} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Authorization", header)
		if token, ok := Bearer(r); ok != (want != "") || ok && token != want {
			t.Errorf("%q has the token %q, %v; want %q", header, token, ok, want)
		}
	}
}
