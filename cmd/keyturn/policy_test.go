package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// An administrator lets a user in, asks whether that is so and why, and takes it back.
func TestPolicy(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.ok("user", "add", "alice", "--role", "Auditor")
	test := func(allowed bool, why string, args ...string) {
		t.Helper()
		var d loginDecisionJSON
		w.json(&d, append([]string{"policy", "test", "--host", "web1", "--login", "deploy"}, args...)...)
		if d.Allowed != allowed || !strings.Contains(d.Why, why) {
			t.Errorf("policy test %s: %+v; want %v, %s", args, d, allowed, why)
		}
	}
	test(false, `no application stands for host "web1" at port 22`, "--user", "alice")
	var p, again policyJSON
	w.json(&p, "policy", "allow", "--user", "alice", "--host", "web*", "--login", "deploy")
	w.json(&again, "policy", "allow", "--user", "alice", "--host", "web*", "--login", "deploy")
	if p.ID == "" || again.ID != p.ID || len(again.Logins) != 1 {
		t.Errorf("allowed %+v, and again %+v", p, again)
	}
	test(true, `policy "alice" of application "web*:22" includes user:alice, and`, "--user", "alice")
	test(false, `application "web*:22" has no policy that includes admin`, "--user", "admin")
	test(false, `has no policy that includes test`) // the token that the command has
	test(false, `lets in as deploy, not as "root"`, "--user", "alice", "--login", "root")
	test(false, `no application stands for host "db1"`, "--user", "alice", "--host", "db1")
	w.json(&again, "policy", "allow", "--user", "alice", "--host", "web*", "--login", "root")
	test(true, `lets alice in as root`, "--user", "alice", "--login", "root")
	w.ok("policy", "allow", "--user", "admin", "--host", "web*", "--login", "root")

	var list []policyJSON
	w.json(&list, "policy", "list")
	if len(list) != 2 || list[0].ID != p.ID || strings.Join(list[0].Include, " ") != "user:alice" || strings.Join(list[0].Hosts, " ") != "web* at port 22" {
		t.Errorf("listed %+v", list)
	}
	if out := w.ok("policy", "list"); !strings.Contains(out, "user:alice") || !strings.Contains(out, "deploy root") {
		t.Error(out)
	}
	if out := w.ok("policy", "test", "--user", "alice", "--host", "web1", "--login", "root"); !strings.HasPrefix(out, "yes: policy") {
		t.Error(out)
	}
	w.ok("policy", "remove", p.ID)
	test(false, `has no policy that includes alice`, "--user", "alice")
	if code, _, errs := w.try("policy", "allow", "--user", "nobody", "--host", "web1", "--login", "deploy"); code == 0 || !strings.Contains(errs, "there is no user") {
		t.Error(code, errs)
	}
	if code, _, errs := w.try("policy", "test", "--host", "web1", "--login", "x", "--source", "here"); code == 0 || !strings.Contains(errs, "is not an address") {
		t.Error(code, errs)
	}

	// Who is gone takes along what was allowed, also for who comes by the same name.
	w.ok("policy", "allow", "--user", "alice", "--host", "web1", "--login", "deploy")
	w.ok("user", "remove", "alice")
	w.ok("user", "add", "alice", "--role", "Auditor")
	test(false, `has no policy that includes alice`, "--user", "alice")
}

// Applications, policies, groups and lists of networks over the API, in its words.
func TestAccessRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.ok("user", "add", "alice", "--role", "Auditor")
	var list, group struct{ ID string }
	w.api(&list, "POST", "/ip-lists", map[string]any{"name": "office", "addresses": []string{"192.0.2.0/24"}})
	w.api(&group, "POST", "/groups", map[string]any{"name": "ops", "include": []string{"user:alice"}, "require": []string{"ip_list:office"}})
	var a map[string]any
	w.api(&a, "POST", "/applications", map[string]any{
		"name": "servers", "type": "infrastructure", "extra": map[string]any{"session_duration": "24h"},
		"criteria": []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{"Web*"}}, "exclude": map[string]any{"hostnames": []string{"web9"}}}},
		"policies": []any{map[string]any{"name": "ops", "include": []string{"group:ops", `geo:{"country_code":"DE"}`}, "logins": []string{"root"}}},
	})
	// What the API showed, it takes: written back, nothing changes but the time.
	id, _ := a["id"].(string)
	back := map[string]any{}
	for _, name := range []string{"name", "type", "criteria", "providers", "policies"} {
		back[name] = a[name]
	}
	one := a["policies"].([]any)[0].(map[string]any)
	for _, name := range []string{"applications", "created_at", "updated_at", "reusable"} {
		delete(one, name)
	}
	was, _ := json.Marshal(back)
	var next map[string]any
	w.api(&next, "PUT", "/applications/servers", back)
	if next["id"] != id || next["aud"] != a["aud"] || next["created_at"] != a["created_at"] {
		t.Errorf("%v became %v", a, next)
	}
	extra, _ := json.Marshal(next["extra"])
	for name := range next {
		if _, mine := back[name]; !mine {
			delete(next, name)
		}
	}
	for _, name := range []string{"applications", "created_at", "updated_at", "reusable"} {
		delete(next["policies"].([]any)[0].(map[string]any), name)
	}
	if is, _ := json.Marshal(next); string(is) != string(was) || string(extra) != `{"session_duration":"24h"}` {
		t.Errorf("wrote\n%s\nand read\n%s, and beside it %s", was, is, extra)
	}

	decide := func(allowed bool, why string, in map[string]any) {
		t.Helper()
		var d loginDecisionJSON
		in["user"], in["login"] = "alice", "root"
		w.api(&d, "POST", "/logins/test", in)
		if d.Allowed != allowed || !strings.Contains(d.Why, why) {
			t.Errorf("%v: %+v; want %v, %s", in, d, allowed, why)
		}
	}
	decide(true, `includes group "ops"`, map[string]any{"host": "web1", "source": "192.0.2.7"})
	decide(false, `nobody can tell whether it holds`, map[string]any{"host": "web1", "source": "198.51.100.1"})
	decide(false, `what that asks for is not known`, map[string]any{"host": "web1"})
	decide(false, `no application stands`, map[string]any{"host": "web9", "source": "192.0.2.7"})

	// A reusable policy, in place and taken away.
	var shared struct{ ID string }
	w.api(&shared, "POST", "/policies", map[string]any{"name": "all", "include": []string{"everyone"}, "logins": []string{"root"}})
	w.api(nil, "PUT", "/applications/servers/policies/"+shared.ID, map[string]any{})
	decide(true, `policy "all" of application "servers" includes everyone`, map[string]any{"host": "web1"})
	if status, p, _ := w.ask(w.token, "DELETE", "/policies/"+shared.ID, ""); status != 409 || !strings.Contains(p.Detail, "in use by 1") {
		t.Errorf("%d %+v", status, p)
	}
	if status, p, _ := w.ask(w.token, "DELETE", "/groups/ops", ""); status != 409 || !strings.Contains(p.Detail, `is named by a rule of "ops"`) {
		t.Errorf("%d %+v", status, p)
	}
	w.api(nil, "DELETE", "/applications/servers/policies/"+shared.ID, nil)
	decide(false, `what that asks for is not known`, map[string]any{"host": "web1"})

	// Who edits here does not undo what another API asks of people.
	policyID, _ := one["id"].(string)
	w.api(nil, "PUT", "/policies/"+policyID, map[string]any{"name": "ops", "include": []string{"everyone"}, "logins": []string{"root"}, "extra": map[string]any{"approval_required": true}})
	w.api(nil, "PUT", "/policies/"+policyID, map[string]any{"name": "ops", "include": []string{"everyone"}, "logins": []string{"root"}})
	decide(false, `the approval of somebody else`, map[string]any{"host": "web1"})
	w.api(nil, "DELETE", "/applications/servers", nil)
	w.api(nil, "DELETE", "/groups/"+group.ID, nil)
	w.api(nil, "DELETE", "/ip-lists/office", nil)
}

// A host that was written as a target goes by its label and its tags, too.
func TestPolicyOfTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.ok("user", "add", "alice", "--role", "Auditor")
	var account struct{ ID string }
	w.json(&account, "account", "show")
	status, text := w.send("POST", "/client/v4/accounts/"+account.ID+"/infrastructure/targets",
		`{"hostname":"Shop-1","ip":{"ipv4":{"ip_addr":"192.0.2.9"}},"tags":{"env":"prod"}}`, headers("Authorization", "Bearer "+w.token))
	var made struct{ Result struct{ ID string } }
	if err := json.Unmarshal([]byte(text), &made); status != 200 || err != nil {
		t.Fatalf("%d %s", status, text)
	}
	for name, include := range map[string]any{
		"labels": map[string]any{"hostnames": []string{"shop-?"}},
		"tags":   map[string]any{"tags": map[string]any{"env": []string{"test", "prod"}}},
	} {
		w.api(nil, "POST", "/applications", map[string]any{
			"name": name, "type": "infrastructure", "criteria": []any{map[string]any{"port": 2200, "include": include}},
			"policies": []any{map[string]any{"name": "ops", "include": []string{"user:alice"}, "logins": []string{"root"}}},
		})
		var d loginDecisionJSON
		w.json(&d, "policy", "test", "--user", "alice", "--login", "root", "--host", made.Result.ID, "--port", "2200", "--application", name)
		if !d.Allowed {
			t.Errorf("by %s: %+v", name, d)
		}
		if w.json(&d, "policy", "test", "--user", "alice", "--login", "root", "--host", made.Result.ID, "--application", name); d.Allowed {
			t.Errorf("by %s, at another port: %+v", name, d)
		}
		// The label is found, too, and what nobody knows is told apart.
		if w.json(&d, "policy", "test", "--user", "alice", "--login", "root", "--host", "shop-1", "--port", "2200", "--application", name); !d.Allowed || strings.Contains(d.Why, "is known") {
			t.Errorf("by %s, of the target's hostname: %+v", name, d)
		}
		if w.json(&d, "policy", "test", "--user", "alice", "--login", "root", "--host", "shop-2", "--port", "2200", "--application", name); !strings.Contains(d.Why, `no host "shop-2" is known`) {
			t.Errorf("by %s, of a host that is nowhere: %+v", name, d)
		}
		w.ok("policy", "list")
		w.api(nil, "DELETE", "/applications/"+name, nil)
	}
}

// What names a user who is gone can be written back as it was read, and what names one who
// was never there cannot.
func TestRulesOfAUserWhoIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.ok("user", "add", "alice", "--role", "Auditor")
	var group struct{ ID string }
	w.api(&group, "POST", "/groups", map[string]any{"name": "ops", "include": []string{"user:alice", "everyone"}})
	var app struct {
		Policies []struct {
			ID      string
			Include []string
		}
	}
	w.api(&app, "POST", "/applications", map[string]any{
		"name": "web", "type": "ssh", "domain": "ssh.example.com",
		"policies": []any{map[string]any{"name": "ops", "include": []string{"user:alice"}, "logins": []string{"root"}}},
	})
	w.ok("user", "remove", "alice")
	policy := app.Policies[0]
	gone := strings.TrimPrefix(policy.Include[0], "user:")
	w.ok("group", "set", "ops", "--name", "operators")
	w.ok("policy", "set", policy.ID, "--login", "deploy")
	body := func(include string) map[string]any {
		return map[string]any{
			"name": "web", "type": "ssh", "domain": "ssh.example.com",
			"policies": []any{map[string]any{"id": policy.ID, "name": "ops", "include": []string{include}, "logins": []string{"root"}}},
		}
	}
	w.api(nil, "PUT", "/applications/web", body("user:"+gone))
	if status, text := w.cloudflare().do("PUT", "/accounts/{account}/access/groups/"+group.ID, `{"name":"operators","include":[{"user":{"id":"`+gone+`"}},{"everyone":{}}]}`); status != 200 {
		t.Error(status, text)
	}
	if out := w.ok("policy", "show", policy.ID); !strings.Contains(out, gone) {
		t.Error(out)
	}
	unknown := strings.Repeat("0", len(gone))
	w.refused("there is no user", "group", "set", "operators", "--include", "user:"+unknown)
	w.refused("there is no user", "policy", "set", policy.ID, "--include", "user:"+unknown)
	w.refused("there is no user", "policy", "add", "x", "--include", "user:"+gone)
	w.refused("cannot be the name of an account", "policy", "set", policy.ID, "--login", "*")
	w.refused("cannot be the name of an account", "policy", "add", "x", "--include", "everyone", "--login", "de ploy")
	w.refused("cannot be the name of an account", "policy", "allow", "--user", "admin", "--host", "*", "--login", "*")
}
