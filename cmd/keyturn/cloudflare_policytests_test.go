package main

import (
	"fmt"
	"strings"
	"testing"
)

// Policies are tried on the users that there are, and nothing of them is written.
func TestCloudflarePolicyTests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	for i := range 3 {
		w.ok("user", "add", fmt.Sprintf("user%d", i), "--role", "Auditor", "--email", fmt.Sprintf("User%d@example.com", i))
	}
	w.ok("user", "add", "nobody", "--role", "Auditor")
	var known []userJSON
	w.json(&known, "user", "list")
	start := func(body string) string {
		t.Helper()
		status, text := c.do("POST", "/accounts/{account}/access/policy-tests", body)
		_, id, _ := strings.Cut(text, `"id":"`)
		if status != 200 || len(id) < 36 || text != `{"result":{"id":"`+id[:36]+`","status":"success"},"success":true,"errors":[],"messages":[]}` {
			t.Fatalf("%s: %d %s", body, status, text)
		}
		return id[:36]
	}
	is := func(path, want string) {
		t.Helper()
		if status, text := c.do("GET", "/accounts/{account}/access/"+path, ""); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", path, status, text, want)
		}
	}
	counts := func(approved int) string {
		share := approved * 100 / len(known)
		return fmt.Sprintf(`"status":"complete","total_users":%d,"users_approved":%d,"users_blocked":%d,"users_errored":0,"percent_users_processed":100,"percent_approved":%d,"percent_blocked":%d,"percent_errored":0}`,
			len(known), approved, len(known)-approved, share, 100-share)
	}
	domain := `{"name":"domain","decision":"allow","include":[{"email_domain":{"domain":"example.com"}}],"exclude":[{"email":{"email":"user1@example.com"}}]}`
	first := start(`{"policies":[` + domain + `]}`)
	is("policy-tests/"+first, counts(2))
	is("policy-tests/"+first+"/users?status=success", `"name":"user2","email":"User2@example.com","status":"approved"}`)
	is("policy-tests/"+first+"/users?status=success", `"result_info":{"count":2,"page":1,"per_page":1000,"total_count":2,"total_pages":1}`)
	is("policy-tests/"+first+"/users?status=fail", `"name":"nobody","email":"","status":"blocked"}`)
	is("policy-tests/"+first+"/users?status=error", `"result":[],`)
	is("policy-tests/"+first+"/users?per_page=2&page=2", fmt.Sprintf(`"result_info":{"count":2,"page":2,"per_page":2,"total_count":%d`, len(known)))
	is("policy-tests/"+first+"/users?per_page=2&page=9", `"result":[],`)

	// Order counts; what asks for more than Keyturn sees to lets nobody in; and what
	// there is, is tried as it was when the test began.
	is("policy-tests/"+start(`{"policies":[{"name":"none","decision":"deny","include":[{"everyone":{}}]},`+domain+`]}`), counts(0))
	is("policy-tests/"+start(`{"policies":[`+strings.Replace(domain, `"name"`, `"approval_required":true,"name"`, 1)+`]}`), counts(0))
	var reusable policyJSON
	w.api(&reusable, "POST", "/policies", map[string]any{"name": "all", "include": []string{"everyone"}, "logins": []string{"root"}})
	second := start(`{"policies":["` + reusable.ID + `"]}`)
	is("policy-tests/"+second, counts(len(known)))
	w.api(nil, "DELETE", "/policies/"+reusable.ID, nil)
	is("policy-tests/"+second, counts(len(known)))

	for _, bad := range []struct{ body, code string }{
		{`{"policies":["` + reusable.ID + `"]}`, `"code":12130`},
		{`{"policies":["f1a8b3c9"]}`, `"code":12130`},
		{`{"policies":[]}`, `"code":12130`},
		{`{}`, `"code":12130`},
		{`{"policies":[7]}`, `"code":12130`},
		{`{"policies":[{"name":"x","decision":"allow","include":[]}]}`, `"code":12130`},
		{`{"policies":[{"decision":"allow","include":[{"everyone":{}}]}]}`, `"code":12130`},
		{`{"policies":[{"name":"x","decision":"maybe","include":[{"everyone":{}}]}]}`, `"code":12130`},
	} {
		if status, text := c.do("POST", "/accounts/{account}/access/policy-tests", bad.body); status != 400 || !strings.Contains(text, bad.code) {
			t.Errorf("%s: %d %s, want %s", bad.body, status, text, bad.code)
		}
	}
	if status, text := c.do("GET", "/accounts/{account}/access/policy-tests/"+first+"/users?status=maybe", ""); status != 400 || !strings.Contains(text, `"pointer":"/status"`) {
		t.Errorf("%d %s", status, text)
	}
	if status, _ := c.do("GET", "/accounts/{account}/access/policy-tests/"+someKey, ""); status != 404 {
		t.Errorf("of no test: %d", status)
	}
}

// What an application does with one user: with who asks, or another.
func TestCloudflareUserPolicyChecks(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	w.ok("user", "add", "ann", "--role", "Auditor", "--email", "Ann@example.com")
	w.ok("policy", "allow", "--user", "ann", "--host", "web*", "--login", "deploy")
	var apps struct{ Applications []struct{ ID, Aud string } }
	w.api(&apps, "GET", "/applications", nil)
	app := apps.Applications[0]
	check := func(query, status string, wants ...string) {
		t.Helper()
		for _, scope := range []string{"/accounts/{account}", "/zones/" + c.account[16:] + c.account[:16]} {
			code, text := c.do("GET", scope+"/access/apps/"+app.ID+"/user_policy_checks"+query, "")
			wants := append(wants, `"app_state":{"app_uid":"`+app.ID+`","aud":"`+app.Aud+`","hostname":"","name":"web*:22","policies":[{"id":"`, `"status":"`+status+`"}],"status":"`+status+`"}`)
			for _, want := range wants {
				if code != 200 || !strings.Contains(text, want) {
					t.Errorf("%s: %d %s, want %s", query, code, text, want)
				}
			}
		}
	}
	check("", "blocked", `"name":"admin","email":""}`)
	check("?email=ann@example.com", "approved", `"account_id":"`+c.account+`","name":"ann","email":"Ann@example.com"}`)
	check("?email=ANN", "approved")
	// What the application asks for besides, and Keyturn does not see to, counts here as it
	// does when a certificate is asked for.
	_, text := c.do("POST", "/accounts/{account}/access/apps", `{"type":"infrastructure","name":"strong","target_criteria":[{"port":22,"protocol":"SSH","target_attributes":{"hostname":["*"]}}],
		"mfa_config":{"allowed_authenticators":["piv_key"]},
		"policies":[{"name":"ann","decision":"allow","include":[{"email":{"email":"ann@example.com"}}],"connection_rules":{"ssh":{"usernames":["root"]}}}]}`)
	_, strong, _ := strings.Cut(text, `"id":"`)
	if code, text := c.do("GET", "/accounts/{account}/access/apps/"+strong[:36]+"/user_policy_checks?email=ann@example.com", ""); code != 200 || strings.Contains(text, "approved") {
		t.Errorf("of an application that requires a second factor of its own: %d %s", code, text)
	}
	if code, text := c.do("GET", "/accounts/{account}/access/apps/"+app.ID+"/user_policy_checks?email=eve@example.com", ""); code != 400 || !strings.Contains(text, "there is no user") || !strings.Contains(text, `"/email"`) {
		t.Errorf("of nobody: %d %s", code, text)
	}
	if code, text := c.do("GET", "/accounts/{account}/access/apps/"+someKey+"/user_policy_checks", ""); code != 404 || !strings.Contains(text, "unknown_application") {
		t.Errorf("of no application: %d %s", code, text)
	}
}
