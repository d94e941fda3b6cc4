package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Applications, policies, groups and lists of networks are made, shown, changed and removed
// from the command line, and decide.
func TestApplicationsByTheCommandLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	for _, name := range []string{"alice", "bob"} {
		w.ok("user", "add", name, "--role", "Auditor", "--email", name+"@example.com")
	}
	w.ok("ip-list", "add", "office", "192.0.2.0/24")
	w.ok("group", "add", "ops", "--include", "user:alice", "--require", "ip_list:office")
	w.ok("application", "add", "web servers", "--host", "web*", "--except-host", "web9")
	var own namedPolicyJSON
	w.json(&own.Policy, "policy", "add", "ops", "--application", "web servers", "--include", "group:ops", "--login", "deploy")

	decides := func(user, host, login, source string, want bool) {
		t.Helper()
		var d loginDecisionJSON
		if w.json(&d, "policy", "test", "--user", user, "--host", host, "--login", login, "--source", source); d.Allowed != want {
			t.Errorf("%s as %s on %s: %+v", user, login, host, d)
		}
	}
	decides("alice", "web1", "deploy", "192.0.2.7", true)
	decides("alice", "web1", "deploy", "198.51.100.7", false)
	decides("alice", "web9", "deploy", "192.0.2.7", false)
	decides("bob", "web1", "deploy", "192.0.2.7", false)

	// What is not given stays as it is, and what is given takes its place.
	w.ok("ip-list", "set", "office", "--address", "198.51.100.0/24")
	decides("alice", "web1", "deploy", "198.51.100.7", true)
	decides("alice", "web1", "deploy", "192.0.2.7", false)
	w.ok("group", "set", "ops", "--require", "")
	decides("alice", "web1", "deploy", "192.0.2.7", true)
	w.ok("group", "set", "ops", "--name", "operators", "--include", "user:alice", "--include", "user:bob", "--exclude", "email:alice@example.com")
	decides("alice", "web1", "deploy", "192.0.2.7", false)
	decides("bob", "web1", "deploy", "192.0.2.7", true)
	w.ok("policy", "set", own.Policy.ID, "--login", "deploy", "--login", "www")
	decides("bob", "web1", "www", "192.0.2.7", true)
	w.ok("application", "set", "web servers", "--name", "web", "--host", "www*", "--port", "2222")
	decides("bob", "web1", "www", "192.0.2.7", false)
	var d loginDecisionJSON
	if w.json(&d, "policy", "test", "--user", "bob", "--host", "www1", "--port", "2222", "--login", "www"); !d.Allowed {
		t.Errorf("%+v", d)
	}

	// A reusable policy is given to an application, at its place, and taken away.
	var shared namedPolicyJSON
	w.json(&shared.Policy, "policy", "add", "break-glass", "--include", "user:alice", "--login", "root")
	if out := w.ok("policy", "list"); !strings.Contains(out, "break-glass  allow     user:alice") {
		t.Errorf("policies:\n%s", out)
	}
	for _, args := range [][]string{{"use"}, {"unuse"}, {"show"}} {
		if out := w.ok("__complete", "policy", args[0], ""); !strings.Contains(out, shared.Policy.ID) || strings.Contains(out, own.Policy.ID) != (args[0] == "show") {
			t.Errorf("completion of policy %s:\n%s", args[0], out)
		}
	}
	w.ok("policy", "set", own.Policy.ID, "--precedence", "5")
	w.ok("policy", "use", shared.Policy.ID, "--application", "web", "--precedence", "1")
	if w.json(&d, "policy", "test", "--user", "alice", "--host", "www1", "--port", "2222", "--login", "root"); !d.Allowed || d.Policy != shared.Policy.ID {
		t.Errorf("%+v", d)
	}
	out := w.ok("application", "show", "web")
	var rows [][]string
	for _, line := range strings.Split(out, "\n") {
		rows = append(rows, strings.Fields(line))
	}
	first := slices.IndexFunc(rows, func(row []string) bool { return len(row) > 0 && row[0] == "PRECEDENCE" }) + 1
	if !strings.Contains(out, "www*, without web9 at port 2222") || fmt.Sprint(rows[first][:5]) != "[1 break-glass allow user:alice root]" || rows[first+1][1] != "ops" || rows[first+1][3] != "group:operators" {
		t.Errorf("the application:\n%s", out)
	}
	if out := w.ok("policy", "show", shared.Policy.ID); !strings.Contains(out, "user:alice") || !strings.Contains(out, "reusable: 1 applications have it") {
		t.Errorf("the policy:\n%s", out)
	}
	w.ok("policy", "unuse", shared.Policy.ID, "--application", "web")
	if w.json(&d, "policy", "test", "--user", "alice", "--host", "www1", "--port", "2222", "--login", "root"); d.Allowed {
		t.Errorf("%+v", d)
	}

	if out := w.ok("group", "list"); !strings.Contains(out, "operators  user:alice or user:bob, but not email:alice@example.com  ") {
		t.Errorf("groups:\n%s", out)
	}
	if out := w.ok("ip-list", "show", "office"); !strings.Contains(out, "198.51.100.0/24") {
		t.Errorf("list:\n%s", out)
	}
	w.refused("is named by a rule", "group", "remove", "operators")
	w.ok("application", "remove", "web")
	w.ok("group", "remove", "operators")
	w.ok("policy", "remove", shared.Policy.ID)
	w.ok("ip-list", "remove", "office")
	var applications []applicationJSON
	var policies []policyJSON
	var groups []groupJSON
	var lists []ipListJSON
	w.json(&applications, "application", "list")
	w.json(&policies, "policy", "list")
	w.json(&groups, "group", "list")
	w.json(&lists, "ip-list", "list")
	if len(applications)+len(policies)+len(groups)+len(lists) != 0 {
		t.Errorf("left: %+v %+v %+v %+v", applications, policies, groups, lists)
	}

	w.ok("group", "add", "lasting", "--include", "user:alice")
	// Tags, and a domain.
	w.ok("application", "add", "production", "--tag", "env=prod", "--require-tag", "team=web", "--except-tag", "env=test")
	w.ok("application", "add", "by domain", "--domain", "ssh.example.com")
	w.json(&applications, "application", "list", "--search", "prod")
	if len(applications) != 1 || applications[0].hosts()[0] != "env=prod, with team=web, without env=test at port 22" {
		t.Errorf("%+v", applications)
	}
	if w.json(&applications, "application", "list", "--search", "by domain"); len(applications) != 1 || applications[0].Type != "ssh" || applications[0].Domain != "ssh.example.com" {
		t.Errorf("%+v", applications)
	}
	// Each flag changes its own part of what hosts it stands for.
	hosts := func(want string, args ...string) {
		t.Helper()
		var a applicationJSON
		if w.json(&a, append([]string{"application", "set", "production"}, args...)...); len(a.hosts()) != 1 || a.hosts()[0] != want {
			t.Errorf("set %q: %q, want %q", args, a.hosts(), want)
		}
	}
	hosts("db* or env=prod, with team=web, without db9 or env=test at port 22", "--host", "db*", "--except-host", "db9")
	hosts("db* or env=prod, with team=web, without db9 or env=test at port 2222", "--port", "2222")
	hosts("db*, with team=web, without db9 at port 2222", "--tag", "", "--except-tag", "")
	hosts("db*, with team=web at port 2222", "--except-host", "")
	w.refused("name", "application", "set", "production", "--name", "")
	w.refused("no rule that includes", "group", "set", "lasting", "--include", "")
	w.refused("nothing to change", "application", "set", "production")
	w.refused("nothing to change", "group", "set", "ops")
	w.refused("is not of the form name=value", "application", "add", "x", "--tag", "prod")
	w.refused("there is no application", "policy", "add", "x", "--application", "nowhere", "--include", "everyone")
	w.refused("is not a kind of rule", "group", "add", "x", "--include", "emial:a@b.c")
}

// Of several who change different things of one, none takes back what another did.
func TestChangesOfOneThing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	var app applicationJSON
	w.json(&app, "application", "add", "web", "--host", "web0")
	var p policyJSON
	w.api(&p, "POST", "/applications/web/policies", map[string]any{"name": "ops", "include": []string{"email:include0@example.com"}, "exclude": []string{"email:exclude0@example.com"}})
	w.ok("group", "add", "ops", "--include", "email:include0@example.com", "--exclude", "email:exclude0@example.com")
	w.ok("ip-list", "add", "office0", "192.0.2.0/32")
	var list ipListJSON
	w.json(&list, "ip-list", "show", "office0")
	const rounds = 20
	last := func(text string) string { return strings.ReplaceAll(text, "#", fmt.Sprint(rounds)) }
	var changes sync.WaitGroup
	for _, one := range []struct{ path, body string }{
		{"/groups/ops", `{"include":["email:include#@example.com"]}`},
		{"/groups/ops", `{"exclude":["email:exclude#@example.com"]}`},
		{"/policies/" + p.ID, `{"include":["email:include#@example.com"]}`},
		{"/policies/" + p.ID, `{"exclude":["email:exclude#@example.com"]}`},
		{"/policies/" + p.ID, `{"logins":["login#"]}`},
		{"/ip-lists/" + list.ID, `{"name":"office#"}`},
		{"/ip-lists/" + list.ID, `{"addresses":["192.0.2.#/32"]}`},
		{"/applications/web", `{"criterion":{"hostnames":["web#"]}}`},
		{"/applications/web", `{"criterion":{"except_hostnames":["except#"]}}`},
	} {
		changes.Go(func() {
			for n := range rounds + 1 {
				if status, p, _ := w.ask(w.token, http.MethodPatch, one.path, strings.ReplaceAll(one.body, "#", fmt.Sprint(n))); status != 200 {
					t.Errorf("%s %s: %d %+v", one.path, one.body, status, p)
					return
				}
			}
		})
	}
	changes.Wait()
	for path, all := range map[string][]string{
		"/groups/ops":          {"email:include#@example.com", "email:exclude#@example.com"},
		"/policies/" + p.ID:    {"email:include#@example.com", "email:exclude#@example.com", `"login#"`, `"name":"ops"`},
		"/ip-lists/" + list.ID: {`"office#"`, `"192.0.2.#/32"`},
		"/applications/web":    {`"web#"`, `"except#"`, `"port":22`},
	} {
		_, _, text := w.ask(w.token, http.MethodGet, path, "")
		for _, want := range all {
			if !strings.Contains(text, last(want)) {
				t.Errorf("%s lacks %s:\n%s", path, last(want), text)
			}
		}
	}
}

// What clients of other APIs said of an application stays through changes by the command
// line.
func TestApplicationKeepsWhatOthersSaid(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	status, text := c.do("POST", "/accounts/{account}/access/apps", `{"type":"infrastructure","name":"web","session_duration":"5h",
		"target_criteria":[{"port":22,"protocol":"SSH","target_attributes":{"hostname":["web*"]}},{"port":2222,"protocol":"SSH","target_attributes":{"hostname":["web*"]}}],
		"policies":[{"name":"ops","decision":"allow","include":[{"email_domain":{"domain":"example.com"}}],"connection_rules":{"ssh":{"usernames":["deploy"]}},"session_duration":"30m"}]}`)
	if status != 200 && status != 201 {
		t.Fatal(status, text)
	}
	w.refused("by 2 criteria, and it is not said which is to change", "application", "set", "web", "--host", "db*")
	w.ok("application", "set", "web", "--name", "www")
	var policies []policyJSON
	w.json(&policies, "policy", "list")
	w.ok("policy", "set", policies[0].ID, "--name", "people")
	_, text = c.do("GET", "/accounts/{account}/access/apps", "")
	for _, want := range []string{`"name":"www"`, `"session_duration":"5h"`, `"port":2222`, `"name":"people"`, `"session_duration":"30m"`, `"usernames":["deploy"]`} {
		if !strings.Contains(text, want) {
			t.Errorf("there is no %s in %s", want, text)
		}
	}
}
