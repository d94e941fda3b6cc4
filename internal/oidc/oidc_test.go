package oidc

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"keyturn/internal/trust"
)

// What a provider publishes does not have the server read for somebody what they
// cannot reach: an issuer is no query, and an error repeats nothing that was answered.
func TestNoErrorRepeatsAnAnswer(t *testing.T) {
	const secret = "db_password=hunter2"
	for _, of := range []string{"/.well-known/openid-configuration", "/keys", "/token", "/device"} {
		for _, answer := range []struct {
			status     int
			kind, body string
		}{
			{http.StatusInternalServerError, "text/plain", secret},
			{http.StatusNotFound, "application/json", `{"error":"` + secret + `","error_description":"` + secret + `"}`},
			{http.StatusOK, "text/plain", secret},
			{http.StatusOK, "application/json", `{"keys":"` + secret + `","issuer":3}`},
			{http.StatusOK, "application/x-www-form-urlencoded", "error=" + secret},
		} {
			mux := http.NewServeMux()
			var base string
			mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == of {
					w.Header().Set("Content-Type", answer.kind)
					w.WriteHeader(answer.status)
					_, _ = w.Write([]byte(answer.body))
					return
				}
				w.Header().Set("Content-Type", "application/json")
				_ = json.NewEncoder(w).Encode(map[string]string{
					"issuer": base, "authorization_endpoint": base + "/authorize", "token_endpoint": base + "/token",
					"device_authorization_endpoint": base + "/device", "jwks_uri": base + "/keys",
				})
			})
			s := httptest.NewServer(mux)
			base = s.URL
			c, r := New(time.Now), Registration{Issuer: base, ClientID: "keyturn"}
			_, looked := c.Look(t.Context(), base)
			_, exchanged := c.Exchange(t.Context(), r, "http://127.0.0.1:1/callback/x", Answer{Code: "x"}, "x", "x")
			_, started := c.StartDevice(t.Context(), r)
			_, verified := c.Verify(t.Context(), base, []string{"x"}, "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiIifQ.AAAA")
			for _, err := range []error{looked, exchanged, started, verified} {
				if err != nil && strings.Contains(err.Error(), "hunter2") {
					t.Errorf("%s answers %d %s: %v", of, answer.status, answer.kind, err)
				}
			}
			if exchanged == nil || (of == "/.well-known/openid-configuration" || of == "/keys") && looked == nil || of == "/device" && started == nil {
				t.Errorf("%s answers %d %s, and nothing is wrong with it: %v, %v, %v", of, answer.status, answer.kind, looked, exchanged, started)
			}
			s.Close()
		}
	}
	if err := CheckIssuer("https://id.example.com/latest/meta-data?x="); trust.KindOf(err) != trust.Invalid {
		t.Errorf("an issuer with a query: %v", err)
	}
}

// A provider that is asked over https has no endpoint that is not, on this machine
// neither.
func TestEndpointsAreAsTheIssuerIs(t *testing.T) {
	for _, bad := range []string{"authorization_endpoint", "token_endpoint", "device_authorization_endpoint", "jwks_uri", ""} {
		var base string
		s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			document := map[string]string{"issuer": base, "authorization_endpoint": base, "token_endpoint": base, "jwks_uri": base}
			if bad != "" {
				document[bad] = "http://127.0.0.1:1/admin"
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(document)
		}))
		base = s.URL
		c := New(time.Now)
		c.http = s.Client()
		if _, err := c.provider(t.Context(), base); (err != nil) != (bad != "") || err != nil && !strings.Contains(err.Error(), "is not https") {
			t.Errorf("with another %s: %v", bad, err)
		}
		s.Close()
	}
}
