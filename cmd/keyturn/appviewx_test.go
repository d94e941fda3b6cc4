package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// The structs into which the vendor's published client decodes answers. What
// does not fit them breaks it.
type avxStatus struct {
	Response      string            `json:"response"`
	Message       string            `json:"message"`
	AppStatusCode string            `json:"appStatusCode"`
	Tags          map[string]string `json:"tags"`
	Headers       string            `json:"headers"`
}

type avx struct {
	w      *world
	header http.Header
}

func (a avx) do(method, path, body string) (status int, text string, header http.Header) {
	a.w.t.Helper()
	req, err := http.NewRequestWithContext(a.w.t.Context(), method, "http://"+a.w.node.address+"/avxapi"+path, strings.NewReader(body))
	if err != nil {
		a.w.t.Fatal(err)
	}
	req.Header = a.header.Clone()
	if req.Header == nil {
		req.Header = http.Header{}
	}
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		a.w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		a.w.t.Fatal(err)
	}
	var s avxStatus
	if err := json.Unmarshal(data, &s); err != nil && !strings.HasPrefix(string(data), `{"response":{`) {
		a.w.t.Errorf("%s %s: the vendor's client cannot decode %s: %v", method, path, data, err)
	}
	return resp.StatusCode, strings.TrimSpace(string(data)), resp.Header
}

func (a avx) with(name, value string) avx {
	h := a.header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set(name, value)
	return avx{a.w, h}
}

// The documented exchanges of AppViewX's wire, byte for byte, over a rotation
// and a rollback on real servers.
func TestAppViewX(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 2)
	deploy := w.keyFile(w.dir+"/deploy", "deploy@ci")
	for _, s := range w.servers {
		if err := s.Authorize(deploy, "no-pty"); err != nil {
			t.Fatal(err)
		}
	}
	w.ok("settings", "set", "rotation.soak", "0s")
	w.ok("key", "import", w.dir+"/deploy")
	w.ok("scan", "--wait")
	uuid := w.key(deploy).UUID
	before := w.read(w.authorized(0))
	anyone := avx{w: w}

	// A.3: login.
	const invalid = `{"response":null,"message":"Authentication failed, reason - Invalid Credentials","appStatusCode":"AVX_GW_003","tags":{},"headers":null}`
	status, text, _ := anyone.do("POST", "/login?gwsource=external", "{}")
	if status != 400 || !strings.Contains(text, "Username or password cannot be null or empty") {
		t.Errorf("login without a name: %d %s", status, text)
	}
	status, text, _ = anyone.with("username", "admin").with("password", "wrong").do("POST", "/login?gwsource=external", "{}")
	if status != 401 || !strings.Contains(text, "Login failed. Invalid Credentials") {
		t.Errorf("login with a wrong password: %d %s", status, text)
	}
	admin := anyone.with("username", "admin").with("password", testPassword)
	status, text, _ = admin.do("POST", "/login?gwsource=WEB", "{}")
	var login struct {
		Response struct {
			SessionID string `json:"sessionId"`
		} `json:"response"`
	}
	if err := json.Unmarshal([]byte(text), &login); err != nil || status != 200 || login.Response.SessionID == "" {
		t.Fatalf("login: %d %s", status, text)
	}
	const golden = `{"response":{"status":"SUCCESS","appStatusCode":null,"statusDescription":null,"sessionId":"SESSION","availableLoginAttemptCount":null},"message":null,"appStatusCode":null,"tags":null,"headers":null}`
	if got := strings.Replace(text, login.Response.SessionID, "SESSION", 1); got != golden {
		t.Errorf("login answered\n%s\nwant\n%s", got, golden)
	}

	// The three styles, and a service token.
	var token tokenJSON
	w.json(&token, "token", "create", "avx", "--permission", "All")
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(token.ID+":"+token.Token))
	form := anyone.with("Authorization", basic).with("Content-Type", "application/x-www-form-urlencoded")
	status, text, _ = form.do("POST", "/acctmgmt-get-service-token?gwsource=external", "grant_type=client_credentials")
	var jwt avxStatus
	if err := json.Unmarshal([]byte(text), &jwt); err != nil || status != 200 || strings.Count(jwt.Response, ".") != 2 {
		t.Fatalf("service token: %d %s", status, text)
	}
	headers := anyone.with("client_id", token.ID).with("client_secret", token.Token)
	if status, text, _ = headers.do("POST", "/acctmgmt-get-service-token?gwsource=external", `{"payload":{"grant_type":"Client_Credentials"}}`); status != 200 {
		t.Errorf("service token, as in 2021: %d %s", status, text)
	}
	if status, text, _ = headers.with("client_secret", "no").do("POST", "/acctmgmt-get-service-token?gwsource=external", `{"grant_type":"client_credentials"}`); status != 400 || !strings.Contains(text, "ACCT_SA_001") {
		t.Errorf("service token with a wrong secret: %d %s", status, text)
	}
	styles := map[string]avx{
		"sessionId": anyone.with("sessionId", login.Response.SessionID),
		"password":  admin,
		"token":     anyone.with("token", jwt.Response),
	}
	for name, a := range styles {
		if status, text, _ := a.do("POST", "/ssh/search/userKeys?gwsource=external", `{"input":{},"filter":{"start":"0","max":10}}`); status != 200 {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}
	for name, a := range map[string]avx{
		"nothing": anyone, "a wrong session, and a right password": admin.with("sessionId", "00000000-0000-0000-0000-000000000000"),
		"a wrong password": admin.with("password", "wrong"), "a forged token": anyone.with("token", jwt.Response+"x"),
		"a name alone": anyone.with("username", "admin"),
	} {
		if status, text, _ := a.do("POST", "/ssh/key/rotate?gwsource=external", `{}`); status != 401 || text != invalid {
			t.Errorf("%s: %d %s", name, status, text)
		}
	}

	a := styles["sessionId"]
	for _, path := range []string{"/ssh/key/rotate", "/ssh/key/rollback"} {
		for _, bad := range []struct{ query, body, field string }{
			{"", `{"type":"User Keys","uuids":["` + uuid + `"]}`, "gwsource"},
			{"?gwsource=", `{"type":"User Keys","uuids":["` + uuid + `"]}`, "gwsource"},
			{"?gwsource=x", ``, "body"},
			{"?gwsource=x", `not json`, "body"},
			{"?gwsource=x", `[]`, "body"},
			{"?gwsource=x", `{} {}`, "body"},
			{"?gwsource=x", `{}`, "type"},
			{"?gwsource=x", `{"uuids":["` + uuid + `"]}`, "type"},
			{"?gwsource=x", `{"type":null,"uuids":["` + uuid + `"]}`, "type"},
			{"?gwsource=x", `{"type":7,"uuids":["` + uuid + `"]}`, "type"},
			{"?gwsource=x", `{"type":"user keys","uuids":["` + uuid + `"]}`, "type"},
			{"?gwsource=x", `{"type":"Host Keys","uuids":["` + uuid + `"]}`, "type"},
			{"?gwsource=x", `{"type":"","uuids":["` + uuid + `"]}`, "type"},
			{"?gwsource=x", `{"type":"User Keys"}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":null}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":[]}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":"` + uuid + `"}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":[7]}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":["` + uuid + `","nonsense"]}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":["1f4158e4-c12d-3097-a058-7bb2817e132b"]}`, "uuids"},
			{"?gwsource=x", `{"type":"User Keys","uuids":[` + strings.Repeat(`"`+uuid+`",`, 1000) + `"` + uuid + `"]}`, "uuids"},
		} {
			status, text, _ := a.do("POST", path+bad.query, bad.body)
			if status != 400 || !strings.Contains(text, `"message":"Mandatory field is missing or invalid values specified - `+bad.field+`","appStatusCode":"AVX-VLDTN-001"`) {
				t.Errorf("%s%s %.60s: %d %.300s, want field %s", path, bad.query, bad.body, status, text, bad.field)
			}
		}
	}
	for _, bad := range []struct{ query, extra, field string }{
		{"&discoveryName=nowhere", ``, "discoveryName"}, {"&discoveryName=nowhere", `,"keyInventory":true`, "discoveryName"}, {"", `,"keyInventory":7`, "keyInventory"}, {"", `,"keyInventory":"perhaps"`, "keyInventory"},
	} {
		status, text, _ := a.do("POST", "/ssh/key/rollback?gwsource=x"+bad.query, `{"type":"User Keys","uuids":["`+uuid+`"]`+bad.extra+`}`)
		if status != 400 || !strings.Contains(text, "AVX-VLDTN-001") || !strings.Contains(text, "- "+bad.field) {
			t.Errorf("rollback%s%s: %d %s", bad.query, bad.extra, status, text)
		}
	}
	if status, text, _ = a.do("GET", "/visualworkflow-request-logs?gwsource=x", ""); status != 400 || !strings.Contains(text, "WORKFLOW_1300") {
		t.Errorf("request logs of nothing: %d %s", status, text)
	}
	for _, query := range []string{"&ids=nonsense", "&ids=" + uuid} {
		if status, text, _ = a.do("GET", "/visualworkflow-request-logs?gwsource=x"+query, ""); status != 400 || !strings.Contains(text, "WORKFLOW_1300") {
			t.Errorf("request logs%s: %d %s", query, status, text)
		}
	}
	for _, bad := range []string{`{"filter":{"max":"many"}}`, `{"filter":{"max":0}}`, `{"filter":{"start":-1}}`, `{"filter":{"sortOrder":"up"}}`, `{"filter":{"sortColumn":"colour"}}`, `{"input":7}`, `{"input":{"keywordSearch":{"colour":"red"}}}`, `{"input":{"keywordSearch":{"keyname":7}}}`, `no`} {
		if status, text, _ = a.do("POST", "/ssh/search/userKeys?gwsource=x", bad); status != 400 || !strings.Contains(text, "AVX-VLDTN-001") {
			t.Errorf("search %s: %d %s", bad, status, text)
		}
	}
	// What stands where it would not count is refused, and its place is said.
	for _, bad := range []struct{ path, query, body, name, place string }{
		{"/ssh/search/userKeys", "", `{"keywordSearch":{"keyname":"x"}}`, "keywordSearch", "input, in the body"},
		{"/ssh/search/userKeys", "", `{"filter":{"keywordSearch":{"keyname":"x"}}}`, "keywordSearch", "input, in the body"},
		{"/ssh/search/userKeys", "", `{"freeSearch":"x"}`, "freeSearch", "input, in the body"},
		{"/ssh/search/userKeys", "", `{"keysFrom":"rotatedInventory"}`, "keysFrom", "the query"},
		{"/ssh/search/userKeys", "", `{"input":{"keysFrom":"rotatedInventory"}}`, "keysFrom", "the query"},
		{"/ssh/search/userKeys", "", `{"filter":{"discoveryName":"lab"}}`, "discoveryName", "the query"},
		{"/ssh/search/userKeys", "", `{"start":"0","max":"10"}`, "max", "filter, in the body"},
		{"/ssh/search/userKeys", "&keywordSearch=x", `{}`, "keywordSearch", "input, in the body"},
		{"/ssh/key/rotate", "", `{"type":"User Keys","uuids":["` + uuid + `"],"discoveryName":"nix"}`, "discoveryName", "the query"},
		{"/ssh/key/rollback", "", `{"type":"User Keys","uuids":["` + uuid + `"],"discoveryName":"nix"}`, "discoveryName", "the query"},
		{"/ssh/key/rollback", "&keyInventory=true", `{"type":"User Keys","uuids":["` + uuid + `"]}`, "keyInventory", "the body"},
	} {
		status, text, _ := a.do("POST", bad.path+"?gwsource=x"+bad.query, bad.body)
		if status != 400 || !strings.Contains(text, "values specified - "+bad.name+`","appStatusCode":"AVX-VLDTN-001"`) || !strings.Contains(text, `{"reason":"`+bad.name+" belongs in "+bad.place+`"}`) {
			t.Errorf("%s%s %s: %d %s", bad.path, bad.query, bad.body, status, text)
		}
	}
	// What says nothing, or is of no call here, is no mistake.
	for _, good := range []struct{ query, body string }{
		{"", `{"keywordSearch":null,"discoveryName":null}`}, {"&gwkey=f000ca01&requestId=7", `{"input":{"keywordSearch":{"keyname":"deploy@ci"}},"filter":{"start":0,"max":"10","sortColumn":"keyName","sortOrder":"asc"},"tags":{}}`},
	} {
		if status, text, _ := a.do("POST", "/ssh/search/userKeys?gwsource=x&keysFrom="+good.query, good.body); status != 200 || !strings.Contains(text, uuid) {
			t.Errorf("search%s %s: %d %s", good.query, good.body, status, text)
		}
	}
	// A discovery that there is: its own keys, and no complaint.
	w.ok("discovery", "create", "lab", "--wait")
	for _, path := range []string{"/ssh/key/rotate", "/ssh/key/rollback"} {
		if status, text, _ = a.do("POST", path+"?gwsource=x&discoveryName=nowhere", `{"type":"User Keys","uuids":["`+uuid+`"]}`); status != 400 || !strings.Contains(text, "- discoveryName") {
			t.Errorf("%s of a discovery that there is not: %d %s", path, status, text)
		}
	}
	for name, want := range map[string]int{"lab": 200, "nowhere": 400} {
		status, text, _ = a.do("POST", "/ssh/search/userKeys?gwsource=x&discoveryName="+name, `{"input":{"freeSearch":"deploy"},"filter":{"start":"0","max":"10"}}`)
		if status != want || want == 200 && !strings.Contains(text, uuid) || want == 400 && !strings.Contains(text, "- discoveryName") {
			t.Errorf("search in discovery %s: %d %s", name, status, text)
		}
	}
	var runs []runJSON
	w.json(&runs, "run", "list")
	for _, r := range runs {
		if r.Procedure == "rotate" {
			t.Fatalf("a bad request started run %s", r.Run)
		}
	}

	// A.4, A.5, A.9: rotate, and follow it; roll back, by either inventory.
	const rotated = `{"response":"Rotate operation has been triggered","message":null,"appStatusCode":null,"tags":{},"headers":null}`
	status, text, header := a.do("POST", "/ssh/key/rotate?gwsource=external", `{"type":"User Keys","uuids":["`+strings.ToUpper(uuid)+`","`+uuid+`"]}`)
	if status != 200 || text != rotated {
		t.Fatalf("rotate: %d %s", status, text)
	}
	a.follow(header, 1)
	if w.read(w.authorized(0)) == before {
		t.Error("the key was not rotated")
	}
	status, text, _ = a.do("POST", "/ssh/search/userKeys?gwsource=external&keysFrom=rotatedInventory", `{"input":{"freeSearch":"deploy"},"filter":{"start":"0","max":"10"}}`)
	if status != 200 || !strings.Contains(text, `"totalRecords":1`) || !strings.Contains(text, uuid) {
		t.Errorf("search of the rotated inventory: %d %s", status, text)
	}
	const back = `{"response":"Rollback Operation has been triggered for backup keys","message":null,"appStatusCode":null,"tags":{},"headers":null}`
	status, text, header = a.do("POST", "/ssh/key/rollback?gwsource=external&discoveryName=lab", `{"type":"User Keys","uuids":["`+uuid+`"],"keyInventory":false}`)
	if status != 200 || text != back {
		t.Fatalf("rollback: %d %s", status, text)
	}
	a.follow(header, 1)
	if now := w.read(w.authorized(0)); now != before {
		t.Errorf("rolled back to\n%s\nwant\n%s", now, before)
	}
	// By the key that is in use now, which is the one that came back: the one that it took
	// the place of comes back in turn.
	status, text, header = a.do("POST", "/ssh/key/rollback?gwsource=external", `{"type":"User Keys","uuids":["`+uuid+`"],"keyInventory":"true"}`)
	if status != 200 || text != back {
		t.Fatalf("rollback by the current key: %d %s", status, text)
	}
	a.follow(header, 1)
	if now := w.read(w.authorized(0)); now == before || strings.Count(now, "\n") != strings.Count(before, "\n") {
		t.Errorf("rolled back by the current key to\n%s\nfrom\n%s", now, before)
	}
}

// Twenty and more bad requests to each endpoint: a documented error, and nothing begun.
func TestAppViewXBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var token tokenJSON
	w.json(&token, "token", "create", "avx", "--permission", "All")
	before := w.inventoryOf(w.token)
	anyone := avx{w: w}
	own := anyone.with("token", token.Token)
	client := anyone.with("client_id", token.ID).with("client_secret", token.Token)
	const uuid = "1f4158e4-c12d-5097-a058-7bb2817e132b"
	long := strings.Repeat("x", 5000)
	type request struct {
		as           avx
		method, path string
		body         string
	}
	bad := map[string][]request{}
	add := func(endpoint string, as avx, method, query, body string) {
		bad[endpoint] = append(bad[endpoint], request{as, method, endpoint + query, body})
	}
	for endpoint, good := range map[string]string{
		"/login": `{}`, "/acctmgmt-get-service-token": `{"grant_type":"client_credentials"}`, "/visualworkflow-request-logs": ``, "/ssh/search/userKeys": `{"input":{},"filter":{}}`,
		"/ssh/key/rotate": `{"type":"User Keys","uuids":["` + uuid + `"]}`, "/ssh/key/rollback": `{"type":"User Keys","uuids":["` + uuid + `"]}`,
	} {
		for _, method := range []string{"PUT", "PATCH", "DELETE", "PROPFIND", "OPTIONS"} {
			add(endpoint, own, method, "?gwsource=x", good)
		}
		method := "POST"
		if good == "" {
			method = "GET"
		}
		for _, path := range []string{"/", "x", "/x", "%00", "/%2e%2e"} {
			add(endpoint, own, method, path+"?gwsource=x", good)
		}
		for _, as := range []avx{
			anyone, anyone.with("token", "x"), anyone.with("token", token.Token[:51]+"!"), anyone.with("token", "a.b.c"), anyone.with("sessionId", "x"), anyone.with("sessionId", uuid),
			anyone.with("username", "admin"), anyone.with("password", testPassword), anyone.with("username", "nobody").with("password", "x"), anyone.with("username", long).with("password", long),
			anyone.with("Authorization", "Bearer "+token.Token), anyone.with("client_id", token.ID).with("client_secret", "x"), anyone.with("client_id", "x").with("client_secret", token.Token),
		} {
			add(endpoint, as, method, "?gwsource=x", good)
		}
		add(endpoint, own, method, "", good)
		add(endpoint, own, method, "?gwsource=", good)
		add(endpoint, own, method, "?gwsource=%zz", good)
	}
	for _, query := range []string{"&ids=,", "&ids=" + uuid, "&ids=%00", "&ids=" + strings.Repeat("x,", 51)} {
		add("/visualworkflow-request-logs", own, "GET", "?gwsource=x"+query, "")
	}
	for _, body := range []string{"", "no", "[]", "7", `{"grant_type":7}`, `{"grant_type":"password"}`, `{"payload":7}`, "{} {}", strings.Repeat("[", 10_000)} {
		add("/acctmgmt-get-service-token", client, "POST", "?gwsource=x", body)
	}
	for endpoint, list := range bad {
		if len(list) < 20 {
			t.Errorf("%s: %d bad requests", endpoint, len(list))
		}
		for _, b := range list {
			status, text, _ := b.as.do(b.method, b.path, b.body)
			if status < 400 || status >= 500 || !strings.Contains(text, `"appStatusCode":"A`) && !strings.Contains(text, `"appStatusCode":"WORKFLOW_1300"`) {
				t.Errorf("%s %s %.60s: %d %.200s", b.method, b.path, b.body, status, text)
			}
		}
	}
	if after := w.inventoryOf(w.token); after != before {
		t.Errorf("bad requests made\n%s\nof\n%s", after, before)
	}
}

// follow waits, as a client of AppViewX would, until the request that a header
// names has ended with a status code.
func (a avx) follow(header http.Header, want int) {
	a.w.t.Helper()
	u, err := url.Parse(header.Get("Location"))
	if err != nil || u.Query().Get("ids") == "" {
		a.w.t.Fatalf("where to follow the request is not said: %v", header)
	}
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(100 * time.Millisecond) {
		status, text, _ := a.do("GET", strings.TrimPrefix(u.String(), "/avxapi"), "")
		var logs struct {
			Response struct {
				RequestList []struct {
					StatusCode int    `json:"statusCode"`
					Status     string `json:"status"`
				} `json:"requestList"`
			} `json:"response"`
		}
		if err := json.Unmarshal([]byte(text), &logs); err != nil || status != 200 || len(logs.Response.RequestList) != 1 {
			a.w.t.Fatalf("request logs: %d %s", status, text)
		}
		r := logs.Response.RequestList[0]
		if r.StatusCode == want {
			return
		}
		if r.StatusCode != 0 || r.Status == "On hold" || time.Now().After(deadline) {
			a.w.t.Fatalf("the request is %s: %s", r.Status, text)
		}
	}
}
