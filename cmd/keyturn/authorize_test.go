package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/need"
)

// send sends a request to any door, and returns the status and the text of the answer.
func (w *world) send(method, path, body string, header http.Header) (status int, text string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.client.server+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header = header.Clone()
	if req.Header.Get("Content-Type") == "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(data)
}

// headers returns a header of names and values.
func headers(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func basic(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

// find returns what a pattern captures in the answer to a request that succeeds.
func (w *world) find(pattern, method, path, body string, header http.Header) string {
	w.t.Helper()
	status, text := w.send(method, path, body, header)
	match := regexp.MustCompile(pattern).FindStringSubmatch(text)
	if status > 299 || match == nil {
		w.t.Fatalf("%s %s: %d %s", method, path, status, text)
	}
	return match[1]
}

// credentials returns what a user can log in with, each kind with the headers that carry
// it, and the doors that take it there.
func (w *world) credentials(user, password string) map[string]credential {
	w.t.Helper()
	own := headers("Authorization", basic(user, password))
	may := w.find(`"permissions":(\[[^]]*\])`, "GET", "/api/v1/whoami", "", own)
	token := w.find(`"token":"(kt_[^"]+)"`, "POST", "/api/v1/tokens", `{"name":"of `+user+`","permissions":`+may+`}`, own)
	id := w.find(`"id":"([0-9a-f]{32})","name":"of `+user+`"`, "GET", "/api/v1/tokens", "", own)
	login := w.find(`"token":"([^"]+)"`, "POST", "/api/v1/login/password", `{"user":"`+user+`","password":"`+password+`"}`, headers())
	form := "application/x-www-form-urlencoded"
	access := w.find(`"access_token":"([^"]+)"`, "POST", "/api/oauth2/token", url.Values{
		"grant_type": {"password"}, "client_id": {"MP"}, "client_secret": {"any"}, "username": {user}, "password": {password},
	}.Encode(), headers("Content-Type", form))
	session := w.find(`"sessionId":"([^"]+)"`, "POST", "/avxapi/login?gwsource=x", "{}", headers("username", user, "password", password))
	service := w.find(`"response":"([^"]+)"`, "POST", "/avxapi/acctmgmt-get-service-token?gwsource=x", "grant_type=client_credentials", headers("Authorization", basic(id, token), "Content-Type", form))
	return map[string]credential{
		"a password":                    {own, "v1 cfengine"},
		"an API token":                  {headers("Authorization", "bearer "+token), "v1 cfengine cloudflare"},
		"a login token":                 {headers("Authorization", "Bearer "+login), "v1"},
		"an OAuth access token":         {headers("Authorization", "Bearer "+access), "cfengine"},
		"a name and a token as a key":   {headers("X-Auth-Email", strings.ToUpper(user), "X-Auth-Key", token), "cloudflare"},
		"another's name and a token":    {headers("X-Auth-Email", "admin", "X-Auth-Key", token), ""},
		"a token as a key alone":        {headers("X-Auth-Key", token), ""},
		"a name and a password as key":  {headers("X-Auth-Email", user, "X-Auth-Key", strings.ReplaceAll(password, " ", "")), ""},
		"AppViewX's name and password":  {headers("username", user, "password", password), "appviewx"},
		"AppViewX's session":            {headers("sessionId", session), "appviewx"},
		"AppViewX's service token":      {headers("token", service), "appviewx"},
		"an API token in token":         {headers("token", token), "appviewx"},
		"a session as a bearer":         {headers("Authorization", "Bearer "+session), ""},
		"a service token as a bearer":   {headers("Authorization", "Bearer "+service), ""},
		"a login token as a session":    {headers("sessionId", login), ""},
		"an access token in token":      {headers("token", access), ""},
		"an API token as a session":     {headers("sessionId", token), ""},
		"an API token's id as a bearer": {headers("Authorization", "Bearer "+id), ""},
	}
}

type credential struct {
	header http.Header
	doors  string
}

// What each role may do, in words that the code does not know: Read stands for the Read
// of every noun.
var roleRights = map[string]string{
	"Administrator": "All",
	"Operator":      "Account Read; Users Read; Hosts Read; Hosts Write; Keys Read; Keys Write; Runs Read; Runs Write; Settings Read; Certificates Read; Audit Read; Metrics Read; " + seesAccess,
	"Auditor":       "Account Read; Users Read; Tokens Read; Hosts Read; Keys Read; Runs Read; Settings Read; Certificates Read; Audit Read; Metrics Read; " + seesAccess,
	"Scraper":       "Metrics Read",
}

const seesAccess = "Zero Trust Read; Access: Apps and Policies Read; Access: Audit Logs Read; Access: Policy Test Read; Access: SSH Auditing Read; Access: Organizations, Identity Providers, and Groups Read"

// may reports whether a role may do something. Each user of these tests has Tokens Write,
// too, because a token is something that only its owner can make.
func roleMay(role, permission string) bool {
	rights := roleRights[role] + "; Tokens Write; Tokens Read"
	return rights[:3] == "All" || slices.Contains(strings.Split(rights, "; "), permission)
}

// unknownTo reports whether a door says that it does not know a credential. That of
// Cloudflare does so by codes.
func unknownTo(door string, status int, text string) bool {
	return status == 401 || door == "cloudflare" &&
		slices.ContainsFunc([]string{`"code":10001,`, `"code":6003,`, `"code":9106,`}, func(code string) bool { return strings.Contains(text, code) })
}

// Every door takes the kinds of credentials that its dialect has and no others, and each
// kind lets its user do what the user's role says and no more, at every endpoint.
func TestRolesAndCredentials(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 0)
	const absent = "1f4158e4-c12d-5097-a058-7bb2817e132b"
	type ask struct {
		door, method, path, body string
		needs                    []string
	}
	var asks []ask
	for _, e := range endpoints(w) {
		body := ""
		if e.body != nil {
			data, err := json.Marshal(e.body)
			if err != nil {
				t.Fatal(err)
			}
			body = string(data)
		}
		if e.path != "/logout" { // which ends what asks
			asks = append(asks, ask{"v1", e.method, "/api/v1" + e.path, body, e.needs})
		}
	}
	asks = append(asks,
		ask{"cfengine", "GET", "/api/ssh-key", "", []string{"Keys Read"}},
		ask{"cfengine", "GET", "/api/ssh-key/99", "", []string{"Keys Read"}},
		ask{"cfengine", "DELETE", "/api/ssh-key/99", "", []string{"Keys Write"}},
		ask{"appviewx", "POST", "/avxapi/ssh/search/userKeys?gwsource=x", `{"input":{},"filter":{"start":"0","max":10}}`, []string{"Keys Read"}},
		ask{"appviewx", "GET", "/avxapi/visualworkflow-request-logs?gwsource=x&ids=" + absent, "", []string{"Runs Read"}},
		ask{"appviewx", "POST", "/avxapi/ssh/key/rotate?gwsource=x", `{"type":"User Keys","uuids":["` + absent + `"]}`, []string{"Keys Write", "Runs Write"}},
		ask{"appviewx", "POST", "/avxapi/ssh/key/rollback?gwsource=x", `{"type":"User Keys","uuids":["` + absent + `"]}`, []string{"Keys Write", "Runs Write"}},
	)
	id := w.account().ID
	account, zone := "/client/v4/accounts/"+id, "/client/v4/zones/"+id[16:]+id[:16]
	for _, of := range []string{account, zone} {
		app, policy, group := `{"name":"x","type":"ssh","domain":"x"}`, `{"name":"x","decision":"allow","include":[{"everyone":{}}]}`, `{"name":"x","include":[{"everyone":{}}]}`
		sees, writes := []string{"Access: Apps and Policies Read"}, []string{"Access: Apps and Policies Write"}
		for _, noun := range []struct{ path, body string }{{"/apps", app}, {"/apps/" + absent + "/policies", policy}, {"/policies", policy}} {
			if noun.path == "/policies" && of == zone {
				continue
			}
			asks = append(asks,
				ask{"cloudflare", "GET", of + "/access" + noun.path, "", sees},
				ask{"cloudflare", "POST", of + "/access" + noun.path, noun.body, writes},
				ask{"cloudflare", "GET", of + "/access" + noun.path + "/" + absent, "", sees},
				ask{"cloudflare", "PUT", of + "/access" + noun.path + "/" + absent, noun.body, writes},
				ask{"cloudflare", "DELETE", of + "/access" + noun.path + "/" + absent, "", writes},
			)
		}
		seesGroups, writesGroups := []string{"Access: Organizations, Identity Providers, and Groups Read"}, []string{"Access: Organizations, Identity Providers, and Groups Write"}
		asks = append(asks,
			ask{"cloudflare", "GET", of + "/access/groups", "", seesGroups},
			ask{"cloudflare", "GET", of + "/access/groups/" + absent, "", seesGroups},
			ask{"cloudflare", "POST", of + "/access/groups", group, writesGroups},
			ask{"cloudflare", "PUT", of + "/access/groups/" + absent, group, writesGroups},
			ask{"cloudflare", "DELETE", of + "/access/groups/" + absent, "", writesGroups},
			ask{"cloudflare", "GET", of + "/access/apps/" + absent + "/user_policy_checks", "", []string{"Access: Apps and Policies Read"}},
			ask{"cloudflare", "GET", of + "/access/apps/" + absent + "/user_policy_checks?email=x@example.com", "", []string{"Access: Apps and Policies Read", "Users Read"}},
			ask{"cloudflare", "GET", of + "/access/apps/ca", "", []string{"Access: Apps and Policies Read"}},
			ask{"cloudflare", "POST", of + "/access/apps/" + absent + "/revoke_tokens", "", []string{"Access: Apps and Policies Write"}},
			ask{"cloudflare", "PUT", of + "/access/apps/" + absent + "/settings", "{}", []string{"Access: Apps and Policies Write"}},
			ask{"cloudflare", "PATCH", of + "/access/apps/" + absent + "/settings", "{}", []string{"Access: Apps and Policies Write"}},
			ask{"cloudflare", "GET", of + "/access/apps/" + absent + "/ca", "", []string{"Access: Apps and Policies Read"}},
			ask{"cloudflare", "POST", of + "/access/apps/" + absent + "/ca", "", []string{"Access: Apps and Policies Write"}},
			ask{"cloudflare", "DELETE", of + "/access/apps/" + absent + "/ca", "", []string{"Access: Apps and Policies Write"}},
		)
	}
	targets, settings := account+"/infrastructure/targets", account+"/gateway/audit_ssh_settings"
	gateway := account + "/access/gateway_ca"
	asks = append(asks,
		ask{"cloudflare", "GET", targets, "", []string{"Zero Trust Read"}},
		ask{"cloudflare", "GET", targets + "/" + absent, "", []string{"Zero Trust Read"}},
		ask{"cloudflare", "POST", targets, "{}", []string{"Zero Trust Write"}},
		ask{"cloudflare", "PUT", targets + "/" + absent, "{}", []string{"Zero Trust Write"}},
		ask{"cloudflare", "DELETE", targets + "/" + absent, "", []string{"Zero Trust Write"}},
		ask{"cloudflare", "PUT", targets + "/batch", "[{}]", []string{"Zero Trust Write"}},
		ask{"cloudflare", "DELETE", targets + "/batch", `{"target_ids":["` + absent + `"]}`, []string{"Zero Trust Write"}},
		ask{"cloudflare", "POST", targets + "/batch_delete", `{"target_ids":["` + absent + `"]}`, []string{"Zero Trust Write"}},
		ask{"cloudflare", "GET", settings, "", []string{"Zero Trust Read"}},
		ask{"cloudflare", "PUT", settings, `{"public_key":""}`, []string{"Zero Trust Write"}},
		ask{"cloudflare", "POST", settings + "/rotate_seed", "", []string{"Zero Trust Write"}},
		ask{"cloudflare", "GET", account + "/access/keys", "", []string{"Access: Organizations, Identity Providers, and Groups Read"}},
		ask{"cloudflare", "PUT", account + "/access/keys", `{"key_rotation_interval_days":30}`, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		ask{"cloudflare", "POST", account + "/access/keys/rotate", "", []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		ask{"cloudflare", "GET", account + "/access/logs/access_requests", "", []string{"Access: Audit Logs Read"}},
		ask{"cloudflare", "GET", account + "/access/logs/access-requests", "", []string{"Access: Audit Logs Read"}},
		ask{"cloudflare", "POST", account + "/access/policy-tests", `{"policies":["` + absent + `"]}`, []string{"Access: Policy Test Write"}},
		ask{"cloudflare", "GET", account + "/access/policy-tests/" + absent, "", []string{"Access: Policy Test Read"}},
		ask{"cloudflare", "GET", account + "/access/policy-tests/" + absent + "/users", "", []string{"Access: Policy Test Read"}},
		ask{"cloudflare", "GET", gateway, "", []string{"Access: SSH Auditing Read"}},
		ask{"cloudflare", "POST", gateway, "", []string{"Access: SSH Auditing Write"}},
		ask{"cloudflare", "DELETE", gateway + "/" + absent, "", []string{"Access: SSH Auditing Write"}},
	)
	w.ok("role", "set", "Scraper", "--permission", "Metrics Read")
	for _, user := range []struct{ name, role string }{{"adam", "Administrator"}, {"olga", "Operator"}, {"aude", "Auditor"}, {"sam", "Scraper"}} {
		w.stdin = testPassword + "\n"
		w.ok("user", "add", user.name, "--role", user.role, "--permission", "Tokens Write", "--password-stdin")
		w.stdin = ""
		for kind, c := range w.credentials(user.name, testPassword) {
			for _, ask := range asks {
				status, text := w.send(ask.method, ask.path, ask.body, c.header)
				want := "in"
				switch {
				case !strings.Contains(c.doors, ask.door):
					want = "unknown"
				case slices.ContainsFunc(ask.needs, func(p string) bool { return !roleMay(user.role, p) }):
					want = "refused"
				}
				got := "in"
				switch {
				case unknownTo(ask.door, status, text):
					got = "unknown"
				// Others are refused for what they ask for, not for what they ask.
				case status == 403 && (ask.door != "v1" || strings.Contains(text, "this needs the permission")):
					got = "refused"
				}
				if got != want || status >= 500 {
					t.Errorf("%s by %s at %s %s: %s (%d %.300s), want %s", user.role, kind, ask.method, ask.path, got, status, text, want)
				}
			}
		}
		// Whoever ends takes all of that along.
		before := w.credentials(user.name, testPassword)
		w.ok("user", "remove", user.name)
		for kind, c := range before {
			for _, ask := range asks[len(asks)-46:] {
				if status, text := w.send(ask.method, ask.path, ask.body, c.header); !unknownTo(ask.door, status, text) && status != 429 {
					t.Errorf("%s, removed, by %s at %s: %d %s", user.role, kind, ask.path, status, text)
				}
			}
			if status, text := w.send("GET", "/api/v1/whoami", "", c.header); status != 401 && status != 429 {
				t.Errorf("%s, removed, by %s: %d %s", user.role, kind, status, text)
			}
		}
	}
}

// The table of endpoints, which tests of rights and of bad requests go through, has every
// operation that the API describes.
func TestEveryEndpointIsInTheTable(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var api struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	_, _, raw := w.ask("", "GET", "/openapi.json", "")
	if err := json.Unmarshal([]byte(raw), &api); err != nil || len(api.Paths) == 0 {
		t.Fatalf("%v: %.200s", err, raw)
	}
	list := append(endpoints(w), openEndpoints()...)
	for template, operations := range api.Paths {
		path := regexp.MustCompile("^" + regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(strings.TrimPrefix(template, "/api/v1"), "[^/]+") + "$")
		for method, o := range operations {
			if !slices.ContainsFunc(list, func(e endpoint) bool { return strings.EqualFold(e.method, method) && path.MatchString(e.path) }) {
				t.Errorf("%s %s (%s) is in no table of tests", method, template, o.OperationID)
			}
		}
	}
}

// What another account has is to an administrator of an account as if it were not there:
// nothing of it is listed, and whoever asks by its very ids and names gets, letter by
// letter, the answers that somebody gets who asks for what nobody has.
func TestAccountsAreApart(t *testing.T) {
	t.Parallel()
	need.Long(t)
	w := newWorld(t, 1)
	// The first account has one of everything that has a name.
	deploy := w.keyFile(w.dir+"/deploy", "deploy")
	w.ok("key", "import", w.dir+"/deploy")
	for _, e := range endpoints(w) {
		if e.method != "DELETE" {
			body, _ := json.Marshal(e.body)
			w.ask(w.token, e.method, e.path, string(body))
		}
	}
	if status, text := w.send("POST", "/api/ssh-key", "", headers("Authorization", basic("admin", testPassword))); status != 200 {
		t.Fatalf("a numbered key: %d %s", status, text)
	}
	group := w.find(`"id":"([^"]+)"`, "POST", "/client/v4/accounts/"+w.account().ID+"/access/groups", `{"name":"g","include":[{"everyone":{}}]}`, headers("Authorization", "Bearer "+w.token))
	app := w.find(`"id":"([^"]+)"`, "POST", "/client/v4/accounts/"+w.account().ID+"/access/apps", `{"name":"a","type":"ssh","domain":"a"}`, headers("Authorization", "Bearer "+w.token))
	policy := w.find(`"id":"([^"]+)"`, "POST", "/client/v4/accounts/"+w.account().ID+"/access/policies", `{"name":"p","decision":"allow","include":[{"everyone":{}}]}`, headers("Authorization", "Bearer "+w.token))
	test := w.find(`"id":"([^"]+)"`, "POST", "/client/v4/accounts/"+w.account().ID+"/access/policy-tests", `{"policies":[{"name":"t","decision":"allow","include":[{"everyone":{}}]}]}`, headers("Authorization", "Bearer "+w.token))
	key := w.key(deploy).UUID
	var runs []runJSON
	w.json(&runs, "run", "list")
	var tokens []tokenJSON
	w.json(&tokens, "token", "list")
	before := w.inventoryOf(w.token)

	// Two others ask for all of it: one by the ids and names of the first account, one by
	// those that nobody has.
	owned := strings.NewReplacer("/keys/"+someKey, "/keys/"+key, "/runs/"+someKey, "/runs/"+runs[0].Run, "/groups/"+someKey, "/groups/"+group, "/apps/"+someKey, "/apps/"+app, "/policies/"+someKey, "/policies/"+policy, "/policy-tests/"+someKey, "/policy-tests/"+test, `["`+someKey, `["`+policy, `{"id":"`+someKey, `{"id":"`+group, "/OTHER", "/"+w.account().ID, `"`+someKey+`"`, `"`+key+`"`,
		"0123456789abcdef0123456789abcdef", tokens[0].ID, "web9", "web1")
	none := strings.NewReplacer("0123456789abcdef0123456789abcdef", strings.Repeat("9", 32), "/OTHER", "/"+strings.Repeat("9", 32))
	volatile := []*regexp.Regexp{
		regexp.MustCompile(`[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`), regexp.MustCompile(`kt_[0-9A-Za-z]{49}`), regexp.MustCompile(`[0-9a-f]{32}`),
		regexp.MustCompile(`[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+Z`), regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`), regexp.MustCompile(`AAAA[A-Za-z0-9+/=]+`), regexp.MustCompile(`web[19]`),
		regexp.MustCompile(`-----BEGIN CERTIFICATE-----[^-]+`),
		regexp.MustCompile(`"state":"(enrolling|refused)"(,"reason":"[^"]*")?`),                                                // of a host that cannot be reached, by then or not
		regexp.MustCompile(`\b(one|two)\b`), regexp.MustCompile(`\b[A-Z2-7]{32}\b`), regexp.MustCompile(`"comment":"(c|ops)"`), // names of accounts, secrets of TOTP, keys in the order of their ids
	}
	answers := func(account, number string, name *strings.Replacer) (list []string) {
		add := func(what string, status int, text string) {
			text = http.StatusText(status) + " " + text
			for _, v := range volatile {
				text = v.ReplaceAllString(text, "*")
			}
			list = append(list, strings.Replace(what, "/ssh-key/"+number, "/ssh-key/N", 1)+": "+text)
		}
		var added addedAccountJSON
		w.json(&added, "account", "add", account)
		admin := headers("Authorization", basic(added.Admin, added.Password))
		for _, path := range []string{"/api/v1/keys", "/api/v1/hosts", "/api/v1/runs", "/api/v1/findings", "/api/v1/discoveries", "/api/v1/tokens"} {
			if status, text := w.send("GET", path, "", admin); status != 200 || !strings.Contains(text, `":[]`) {
				t.Errorf("the new account %s begins with %s: %d %s", account, path, status, text)
			}
		}
		if status, text := w.send("GET", "/api/ssh-key", "", admin); status != 200 || strings.TrimSpace(text) != "[]" {
			t.Errorf("the new account %s begins with %s", account, text)
		}
		for _, e := range endpoints(w) {
			body := ""
			if e.body != nil {
				data, _ := json.Marshal(e.body)
				body = name.Replace(string(data))
			}
			status, text := w.send(e.method, "/api/v1"+name.Replace(e.path), body, admin)
			add(e.method+" "+e.path, status, text)
			if e.method == "POST" && e.path == "/hosts" { // what follows depends on how far that is
				w.idle(admin)
			}
		}
		// The server's own figures are not for those who share it.
		token := w.find(`"token":"(kt_[^"]+)"`, "POST", "/api/v1/tokens", `{"name":"scrape","permissions":["Metrics Read"]}`, admin)
		if status, text := w.send("GET", "/metrics", "", headers("Authorization", "Bearer "+token)); status != 403 {
			t.Errorf("/metrics of account %s: %d %.200s", account, status, text)
		}
		// The other doors.
		all := headers("Authorization", "Bearer "+w.find(`"token":"(kt_[^"]+)"`, "POST", "/api/v1/tokens", `{"name":"all","permissions":["All"]}`, admin))
		own := w.find(`"id":"([0-9a-f]{32})"`, "GET", "/api/v1/account", "", admin)
		for _, ask := range []struct{ method, path, body string }{
			{"GET", "/api/ssh-key/" + number, ""},
			{"DELETE", "/api/ssh-key/" + number, ""},
			{"POST", "/avxapi/ssh/key/rotate?gwsource=x", `{"type":"User Keys","uuids":["` + someKey + `"]}`},
			{"POST", "/avxapi/ssh/key/rollback?gwsource=x", `{"type":"User Keys","uuids":["` + someKey + `"]}`},
			{"POST", "/avxapi/ssh/key/rotate?gwsource=x&discoveryName=nightly", `{"type":"User Keys","uuids":["` + someKey + `"]}`},
			{"POST", "/avxapi/ssh/search/userKeys?gwsource=x", `{"input":{"freeSearch":"deploy"},"filter":{"start":"0","max":"10"}}`},
			{"GET", "/avxapi/visualworkflow-request-logs?gwsource=x&ids=/runs/" + someKey, ""},
			{"GET", "/client/v4/accounts/OTHER/access/groups", ""},
			{"GET", "/client/v4/zones/OTHER/access/groups", ""},
			{"GET", "/client/v4/accounts/OTHER/access/policies/" + someKey, ""},
			{"GET", "/client/v4/accounts/OWN/access/apps", ""},
			{"GET", "/client/v4/zones/OTHER/access/apps/" + someKey, ""},
			{"GET", "/client/v4/accounts/OWN/access/apps/" + someKey, ""},
			{"PUT", "/client/v4/accounts/OWN/access/apps/" + someKey, `{"name":"theirs","type":"ssh","domain":"a"}`},
			{"POST", "/client/v4/accounts/OWN/access/apps", `{"name":"b","type":"ssh","domain":"b","policies":["` + someKey + `"]}`},
			{"POST", "/client/v4/accounts/OWN/access/apps/" + someKey + "/revoke_tokens", ""},
			{"PUT", "/client/v4/accounts/OWN/access/apps/" + someKey + "/settings", `{"allow_iframe":true}`},
			{"GET", "/client/v4/accounts/OWN/access/apps/" + someKey + "/policies", ""},
			{"POST", "/client/v4/accounts/OWN/access/apps/" + someKey + "/policies", `{"name":"q","decision":"allow","include":[{"everyone":{}}]}`},
			{"PUT", "/client/v4/accounts/OWN/access/apps/" + someKey + "/policies/" + someKey, `{"name":"q","decision":"allow","include":[{"everyone":{}}]}`},
			{"DELETE", "/client/v4/accounts/OWN/access/apps/" + someKey + "/policies/" + someKey, ""},
			{"GET", "/client/v4/accounts/OWN/access/policies", ""},
			{"GET", "/client/v4/accounts/OWN/access/policies/" + someKey, ""},
			{"PUT", "/client/v4/accounts/OWN/access/policies/" + someKey, `{"name":"theirs","decision":"allow","include":[{"everyone":{}}]}`},
			{"DELETE", "/client/v4/accounts/OWN/access/policies/" + someKey, ""},
			{"DELETE", "/client/v4/accounts/OWN/access/apps/" + someKey, ""},
			{"GET", "/client/v4/accounts/OWN/access/groups", ""},
			{"GET", "/client/v4/accounts/OWN/access/groups/" + someKey, ""},
			{"PUT", "/client/v4/accounts/OWN/access/groups/" + someKey, `{"name":"theirs","include":[{"everyone":{}}]}`},
			{"DELETE", "/client/v4/accounts/OWN/access/groups/" + someKey, ""},
			{"GET", "/client/v4/accounts/OTHER/access/policy-tests/" + someKey, ""},
			{"GET", "/client/v4/accounts/OTHER/access/logs/access_requests", ""},
			{"GET", "/client/v4/accounts/OTHER/access/keys", ""},
			{"POST", "/client/v4/accounts/OTHER/access/keys/rotate", ""},
			{"GET", "/client/v4/accounts/OWN/access/logs/access_requests?fields=app_uid&allowed=false", ""},
			{"GET", "/client/v4/accounts/OWN/access/policy-tests/" + someKey, ""},
			{"POST", "/client/v4/accounts/OWN/access/policy-tests", `{"policies":["` + someKey + `"]}`},
			{"GET", "/client/v4/accounts/OWN/access/apps/" + someKey + "/user_policy_checks", ""},
			{"GET", "/client/v4/accounts/OWN/access/policy-tests/" + someKey + "/users", ""},
			{"GET", "/client/v4/accounts/OTHER/access/apps/ca", ""},
			{"GET", "/client/v4/zones/OTHER/access/apps/ca", ""},
			{"GET", "/client/v4/accounts/OWN/access/apps/ca", ""},
			{"POST", "/client/v4/accounts/OTHER/access/gateway_ca", ""},
			{"GET", "/client/v4/accounts/OWN/access/gateway_ca", ""},
			{"POST", "/client/v4/accounts/OWN/access/groups", `{"name":"h","include":[{"group":{"id":"` + someKey + `"}}]}`},
		} {
			header := admin
			switch {
			case strings.HasPrefix(ask.path, "/avxapi"):
				header = headers("username", added.Admin, "password", added.Password)
			case strings.HasPrefix(ask.path, "/client"):
				header, ask.path = all, strings.Replace(ask.path, "/OWN", "/"+own, 1)
			}
			path := strings.Replace(name.Replace(ask.path), "ids=/runs/", "ids=", 1)
			status, text := w.send(ask.method, path, name.Replace(ask.body), header)
			add(ask.method+" "+strings.ReplaceAll(ask.path, own, "OWN"), status, text)
		}
		return list
	}
	theirs, nobodys := answers("one", "1", owned), answers("two", "77", none)
	for i, got := range theirs {
		if got != nobodys[i] {
			t.Errorf("by what another account has:\n%s\nby what nobody has:\n%s", got, nobodys[i])
		}
	}
	if after := w.inventoryOf(w.token); after != before {
		t.Errorf("the first account has\n%s\nafter the others asked, and had\n%s", after, before)
	}
	if code, _, stderr := w.try("account", "add", "one"); code == 0 || !strings.Contains(stderr, `there is an account "one" already`) {
		t.Errorf("adding an account twice: %d %s", code, stderr)
	}
}

// idle waits until no run of an account is open.
func (w *world) idle(header http.Header) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		status, text := w.send("GET", "/api/v1/runs?open=true", "", header)
		if status != 200 || time.Now().After(deadline) {
			w.t.Fatalf("runs are open still: %d %s", status, text)
		}
		if strings.Contains(text, `"runs":[]`) {
			return
		}
	}
}

// inventoryOf returns what an account has, as one text.
func (w *world) inventoryOf(token string) string {
	var all strings.Builder
	for _, path := range []string{"/account", "/keys", "/hosts", "/findings", "/discoveries", "/runs", "/tokens", "/users", "/roles", "/settings", "/applications", "/policies", "/groups"} {
		_, _, raw := w.ask(token, "GET", path, "")
		all.WriteString(raw)
	}
	// What the server does by itself meanwhile (a purge, say) nobody asked for.
	return regexp.MustCompile(`,"last_used_at":"[^"]*"|\{"run":[^{}]*"by":"system:"[^{}]*\},?`).ReplaceAllString(all.String(), "")
}
