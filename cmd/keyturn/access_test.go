package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// Who asked for access, and whether it was given, is read from the command line, page by
// page, by the names that users and applications have.
func TestAccessLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.stdin = "a long password of ann"
	w.ok("user", "add", "ann", "--password-stdin", "--email", "Ann@example.com", "--permission", "Certificates Issue")
	w.stdin = ""
	w.ok("policy", "allow", "--user", "ann", "--host", "*", "--login", "deploy")
	w.ok("ca", "create", "people")
	key := filepath.Join(t.TempDir(), "id.pub")
	w.write(key, someEd25519+"\n")
	admin := w.env
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "ann", "KEYTURN_PASSWORD": "a long password of ann"}
	w.ok("cert", "sign", "--ca", "people", "--public-key", key, "--principal", "deploy")
	w.refused("no certificate as", "cert", "sign", "--ca", "people", "--public-key", key, "--principal", "root")
	w.env["KEYTURN_PASSWORD"] = "a wrong password"
	w.refused("is not valid", "whoami")
	w.env = admin

	var ann userJSON
	w.json(&ann, "user", "show", "ann")
	said := func(args ...string) string {
		t.Helper()
		var entries []accessEntryJSON
		w.json(&entries, append([]string{"access", "log"}, args...)...)
		var all []string
		for _, e := range entries {
			if e.User == ann.ID && (e.UserName != "ann" || e.Email != "Ann@example.com" || e.Source != "127.0.0.1") {
				t.Errorf("%+v", e)
			}
			all = append(all, fmt.Sprint(e.UserName, " ", e.Action, " ", e.Allowed, " ", e.ApplicationName))
		}
		return strings.Join(all, ", ")
	}
	const login, denied, signed, in = "ann login false ", "ann certificate false *:22", "ann certificate true *:22", "ann login true "
	all := strings.Join([]string{login, denied, signed, in}, ", ")
	for args, want := range map[string]string{
		"--user=ann":                              all,
		"--user=" + ann.ID:                        all,
		"--email=ANN@":                            all,
		"--user=ann --limit=2":                    login + ", " + denied,
		"--user=ann --oldest-first --limit=1":     in,
		"--user=ann --refused":                    login + ", " + denied,
		"--user=ann --allowed":                    signed + ", " + in,
		"--application=*:22":                      denied + ", " + signed,
		"--action=certificate --allowed":          signed,
		"--user=ann --since=1h --action=login":    login + ", " + in,
		"--user=ann --until=1h":                   "",
		"--user=ann --since=2100-01-01T00:00:00Z": "",
		"--user=nobody":                           "",
	} {
		if got := said(strings.Fields(args)...); got != want {
			t.Errorf("%s: %q, want %q", args, got, want)
		}
	}
	var page struct {
		Entries []accessEntryJSON
		Next    string
	}
	got, query := []string{}, "user=ann&limit=1"
	for {
		w.api(&page, "GET", "/access-log?"+query, nil)
		for _, e := range page.Entries {
			got = append(got, fmt.Sprint(e.UserName, " ", e.Action, " ", e.Allowed, " ", e.ApplicationName))
		}
		if page.Next == "" {
			break
		}
		query = "user=ann&limit=1&after=" + page.Next
	}
	if strings.Join(got, ", ") != all {
		t.Errorf("by pages of one: %q, want %q", got, all)
	}
	if out := w.ok("access", "log", "--user", "ann"); !strings.Contains(out, "refused  certificate  ann   Ann@example.com  127.0.0.1  *:22") {
		t.Errorf("for people:\n%s", out)
	}
	w.refused("since", "access", "log", "--since", "yesterday")
	w.refused("none of the others can be", "access", "log", "--refused", "--allowed")
}

// Policies are tried on all users before they are written, and those that are written.
func TestPolicyTry(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	for i := range 3 {
		w.ok("user", "add", fmt.Sprintf("user%d", i), "--role", "Auditor", "--email", fmt.Sprintf("user%d@example.com", i))
	}
	try := func(args ...string) (names []string, trial policyTrialJSON) {
		t.Helper()
		w.json(&trial, append([]string{"policy", "try"}, args...)...)
		for _, u := range trial.List {
			names = append(names, u.Name)
		}
		return names, trial
	}
	is := func(want string, approved int, args ...string) {
		t.Helper()
		names, trial := try(args...)
		seen := map[string]bool{}
		for _, name := range names {
			seen[name] = true
		}
		if len(names) != len(strings.Fields(want)) || trial.Users != 4 || trial.Approved != approved || trial.More {
			t.Errorf("%q: %q of %+v, want %s", args, names, trial, want)
		}
		for _, name := range strings.Fields(want) {
			if !seen[name] {
				t.Errorf("%q: %q, want %s", args, names, want)
			}
		}
	}
	is("user0 user2", 2, "--include", "email_domain:example.com", "--exclude", "user:user1")
	is("admin user1", 2, "--include", "email_domain:example.com", "--exclude", "user:user1", "--refused")
	is("", 0, "--include", "everyone", "--require", "ip:192.0.2.1")
	var ops policyJSON
	w.api(&ops, "POST", "/policies", map[string]any{"name": "ops", "include": []string{"user:user1"}})
	is("user1", 1, ops.ID)
	is("user1 user2", 2, ops.ID, "--include", "user:user2")
	if out := w.ok("policy", "try", ops.ID); !strings.Contains(out, "user1  user1@example.com  ") || !strings.HasSuffix(out, "\n1 of 4 users would be let in\n") {
		t.Errorf("for people:\n%s", out)
	}
	_, trial := try("--include", "everyone")
	var users struct {
		Users []triedUserJSON
		Next  string
	}
	w.api(&users, "GET", "/policy-tests/"+trial.ID+"/users?limit=3", nil)
	first := users.Users[2]
	w.api(&users, "GET", "/policy-tests/"+trial.ID+"/users?limit=3&after="+users.Next, nil)
	if len(users.Users) != 1 || users.Users[0].ID <= first.ID {
		t.Errorf("behind %+v are %+v", first, users.Users)
	}
	w.refused("name policies", "policy", "try")
	w.refused("there is no policy", "policy", "try", someKey)
}

// The authority of an application is found by the application.
func TestAuthoritiesOfAnApplication(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	w.ok("ca", "create", "people")
	w.api(nil, "POST", "/applications", map[string]any{"name": "web servers", "type": "ssh", "domain": "web.example.com"})
	w.ok("ca", "create", "web", "--application", "web servers")
	var all []authorityJSON
	if w.json(&all, "ca", "list"); len(all) != 2 {
		t.Errorf("all: %+v", all)
	}
	if w.json(&all, "ca", "list", "--application", "web servers"); len(all) != 1 || all[0].Name != "web" {
		t.Errorf("of the application: %+v", all)
	}
	w.refused("there is no application", "ca", "list", "--application", "nowhere")
}
