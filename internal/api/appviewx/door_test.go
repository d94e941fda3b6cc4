package appviewx

import (
	"encoding/json"
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

// The table from errors to AppViewX's statuses and codes.
func TestFaults(t *testing.T) {
	for _, test := range []struct {
		err     error
		status  int
		code    string
		message string // or a part of it
		reason  string // of the tags
	}{
		{trust.Errorf(trust.Unauthenticated, "x"), 401, "AVX_GW_003", "Authentication failed, reason - Invalid Credentials", ""},
		{trust.Errorf(trust.Denied, "x").WithHint("ask"), 403, "AVX_GW_003", "Authorization failed, reason - x (ask)", ""},
		{trust.Errorf(trust.Exhausted, "x"), 429, "AVX_GW_429", "x", ""},
		{trust.Errorf(trust.Unavailable, "x"), 503, "AVX_GW_503", "x", ""},
		{trust.Errorf(trust.Internal, "secret"), 500, "AVX_GW_500", "Internal error", ""},
		{errors.New("secret"), 500, "AVX_GW_500", "Internal error", ""},
		{trust.Errorf(trust.Conflict, "x").WithHint("do"), 400, "AVX-VLDTN-001", "invalid values specified - uuids", "x (do)"},
		{trust.Errorf(trust.NotFound, "x").WithField("keys"), 400, "AVX-VLDTN-001", "invalid values specified - uuids", "x"},
		{trust.Errorf(trust.NotFound, "x").WithField("discovery"), 400, "AVX-VLDTN-001", "invalid values specified - discoveryName", "x"},
		{trust.Errorf(trust.Invalid, "x").WithField("start"), 400, "AVX-VLDTN-001", "invalid values specified - start", ""},
	} {
		f := faultOf(fmt.Errorf("around: %w", test.err))
		if f.status != test.status || f.code != test.code || !strings.HasSuffix(f.message, test.message) || f.tags["reason"] != test.reason || strings.Contains(f.message, "secret") {
			t.Errorf("%v: got %+v", test.err, f)
		}
	}
	busy := trust.Errorf(trust.Conflict, "%w", &control.BusyError{Key: "k", Run: "r"})
	if f := faultOf(busy); f.status != 417 || f.code != "OPEN_WORK_ORDERS_FOUND" || f.tags["request"] != "r" {
		t.Errorf("busy: got %+v", f)
	}
	keys := trust.Errorf(trust.Conflict, "x")
	keys.Err = &control.KeysError{Why: map[trust.KeyID]string{"a": "gone", "b": "external"}}
	if f := keysFault(keys); f.status != 400 || len(f.tags) != 2 || f.tags["a"] != "gone" || f.tags["b"] != "external" {
		t.Errorf("keys: got %+v", f)
	}
}

// Every answer has the five fields of the envelope, an error as well; who sends
// no credential is told so before anything else that is wrong.
func TestEnvelope(t *testing.T) {
	for _, test := range []struct {
		method, path string
		status       int
		want         string
	}{
		{http.MethodPost, "/avxapi/ssh/key/rotate", 401, `{"response":null,"message":"Authentication failed, reason - Invalid Credentials","appStatusCode":"AVX_GW_003","tags":{},"headers":null}`},
		{http.MethodGet, "/avxapi/ssh/key/rotate", 404, `{"response":null,"message":"No such API, or not with this method","appStatusCode":"AVX_GW_404","tags":{},"headers":null}`},
	} {
		w := httptest.NewRecorder()
		New(nil).ServeHTTP(w, httptest.NewRequest(test.method, test.path, strings.NewReader("not JSON")))
		if got := strings.TrimSpace(w.Body.String()); w.Code != test.status || got != test.want {
			t.Errorf("%s %s: got %d %s", test.method, test.path, w.Code, got)
		}
	}
}

// A request about keys is checked in the order in which AppViewX lists its
// fields, and blames the first.
func TestReadKeys(t *testing.T) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	for _, test := range []struct{ body, blamed string }{
		{`{"type":"User Keys","uuids":["` + strings.ToUpper(id) + `"],"more":1}`, ""},
		{`{"uuids":[]}`, "type"},
		{`{"type":"Host Keys","uuids":["` + id + `"]}`, "type"},
		{`{"type":1}`, "type"},
		{`{"type":"User Keys"}`, "uuids"},
		{`{"type":"User Keys","uuids":[]}`, "uuids"},
		{`{"type":"User Keys","uuids":"` + id + `"}`, "uuids"},
		{`{"type":"User Keys","uuids":["` + id + strings.Repeat(`","`+id, maxUUIDs) + `"]}`, "uuids"},
		{``, "body"},
		{`{} {}`, "body"},
	} {
		_, ids, f := readKeys(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(test.body)), ofRotate)
		switch {
		case test.blamed == "" && (f != nil || len(ids) != 1 || ids[0] != id):
			t.Errorf("%.60s: got %q, %+v", test.body, ids, f)
		case test.blamed != "" && (f == nil || f.status != 400 || !strings.HasSuffix(f.message, " - "+test.blamed)):
			t.Errorf("%.60s: got %q, %+v; want %s blamed", test.body, ids, f, test.blamed)
		}
	}
	_, _, f := readKeys(httptest.NewRequest(http.MethodPost, "/", strings.NewReader(`{"type":"User Keys","uuids":["`+id+`","x","y"]}`)), ofRotate)
	if f == nil || len(f.tags) != 2 || f.tags["x"] == "" || f.tags["y"] == "" {
		t.Errorf("two of three are no ids: got %+v", f)
	}
}

// A parameter at a place where the call does not have it is refused, in any case and with
// the reason; null, empty texts and names that no call has are not looked at.
func TestParametersAstray(t *testing.T) {
	const nowhere = "is no parameter of this call"
	for _, test := range []struct {
		call         parameters
		query, body  string
		name, reason string
	}{
		{ofSearch, "", `{"uuids":["x"]}`, "uuids", nowhere},
		{ofSearch, "", `{"TYPE":"User Keys"}`, "type", nowhere},
		{ofSearch, "KEYWORDSEARCH=x", `{}`, "keywordSearch", "belongs in input, in the body"},
		{ofSearch, "keysFrom=rotatedInventory&KEYSFROM=deletedInventory", `{}`, "keysFrom", "stands in the query twice"},
		{ofSearch, "", `{"Filter":{"FREESEARCH":"x"}}`, "freeSearch", "belongs in input, in the body"},
		{ofRotate, "uuids=x", `{"type":"User Keys"}`, "uuids", "belongs in the body"},
		{ofRotate, "keysfrom=rotatedInventory", `{}`, "keysFrom", nowhere},
		{ofRotate, "", `{"keyInventory":"maybe"}`, "keyInventory", nowhere},
		{ofRotate, "", `{"input":{}}`, "input", nowhere},
		{ofRollback, "", `{"input":{"discoveryName":"nix"}}`, "discoveryName", "belongs in the query"},
		{ofRollback, "keyInventory=true", `{}`, "keyInventory", "belongs in the body"},
		{ofSearch, "keysFrom=rotatedInventory;x=1", `{}`, "query", "cannot be read"},
		{ofSearch, "keysFrom=%zz", `{}`, "query", "cannot be read"},
		{ofLogs, "ids=x&discoveryName=y", ``, "discoveryName", nowhere},

		{ofSearch, "KEYSFROM=rotatedInventory&uuids=", `{"INPUT":{"freesearch":"x"},"filter":{"Max":1},"uuids":null,"tags":{}}`, "", ""},
		{ofRollback, "gwsource=x&discoveryname=y", `{"type":"User Keys","uuids":[],"KeyInventory":true,"more":{"type":1}}`, "", ""},
		{ofLogs, "IDS=x", ``, "", ""},
	} {
		f := test.call.check(httptest.NewRequest(http.MethodPost, "/?"+test.query, nil), json.RawMessage(test.body))
		switch {
		case test.name == "" && f != nil:
			t.Errorf("?%s %s: %+v", test.query, test.body, f)
		case test.name != "" && (f == nil || !strings.HasSuffix(f.message, " - "+test.name) || f.tags["reason"] != test.name+" "+test.reason):
			t.Errorf("?%s %s: got %+v, want %s blamed: %s", test.query, test.body, f, test.name, test.reason)
		}
	}
	for _, text := range []string{"keysFrom=x", "KEYSFROM=x", "keysfrom=&keysFrom=x"} {
		if got := query(httptest.NewRequest(http.MethodPost, "/?"+text, nil), "keysFrom"); got != "x" {
			t.Errorf("?%s: keysFrom is %q", text, got)
		}
	}
}

// Published clients send booleans and numbers as strings, too.
func TestLooseValues(t *testing.T) {
	for text, want := range map[string]string{
		``: "false", `null`: "false", `false`: "false", `"False"`: "false", `true`: "true", `"TRUE"`: "true",
		`1`: "", `"yes"`: "", `{}`: "",
	} {
		if got, ok := flag(json.RawMessage(text)); ok != (want != "") || ok && fmt.Sprint(got) != want {
			t.Errorf("flag %s is %v, %v", text, got, ok)
		}
	}
	for text, want := range map[string]int{``: 7, `null`: 7, `""`: 7, `0`: 0, `"12"`: 12, `12`: 12, `-1`: -1, `"-1"`: -1, `1.5`: -1, `"a"`: -1, `[1]`: -1} {
		if got, ok := number(json.RawMessage(text), 7); ok != (want >= 0) || ok && got != want {
			t.Errorf("number %s is %d, %v", text, got, ok)
		}
	}
}

// What clients poll for: 0 is under way, 1 a success, anything else a failure. A
// run that is held is under way still, because it can be resumed.
func TestRunStates(t *testing.T) {
	for state, want := range map[control.RunState]int{
		control.RunRunning: 0, control.RunWaiting: 0, control.RunPaused: 0, control.RunHeld: 0,
		control.RunDone: 1, control.RunBack: 2, control.RunPartial: 3,
	} {
		var run control.Run
		run.State = state
		if got := showRun(run); got.StatusCode != want || got.Status == "" || got.Tasks == nil {
			t.Errorf("%s: got %+v, want %d", state, got, want)
		}
	}
	var run control.Run
	run.State, run.ApproveBy = control.RunWaiting, time.Now()
	if got := showRun(run); got.StatusCode != 0 || got.Status != "Waiting for approval" {
		t.Errorf("a run that waits for approval is %+v", got)
	}
}
