package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
)

// What an answer leaves out is not as an earlier answer had it: a run that is done
// does not keep the reason for which it waited.
func TestAnswersAreWhole(t *testing.T) {
	answers := []string{`{"run":"r1","state":"waiting","reason":"until tomorrow","left":["web1"]}`, `{"run":"r1","state":"done"}`}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.WriteString(w, answers[0]); err != nil {
			t.Error(err)
		}
		answers = answers[1:]
	}))
	t.Cleanup(s.Close)
	c := &client{server: s.URL, token: "t", http: s.Client()}
	var r runJSON
	for _, state := range []string{"waiting", "done"} {
		if err := c.call(t.Context(), http.MethodGet, "/runs/r1", nil, &r); err != nil || r.State != state {
			t.Fatalf("got %+v, %v", r, err)
		}
	}
	if r.Reason != "" || len(r.Left) != 0 {
		t.Errorf("what is done says %+v", r)
	}
}
