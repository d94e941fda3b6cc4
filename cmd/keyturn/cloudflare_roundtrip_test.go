package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
)

// Random applications, policies and groups: what is written is answered, read, listed and
// written back as it was, with whatever was said beside it.
func TestCloudflareRoundTrips(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	g := &scribe{rand.New(rand.NewPCG(seed, 0)), nil, false}
	at := []string{"/accounts/{account}/access", "/zones/" + c.account[16:] + c.account[:16] + "/access"}
	for i := range 60 {
		path, thing := "/groups", g.group
		switch g.named = i > 5; {
		case !g.named: // groups that rules of the others name, and name none
		case i%4 == 0:
			path, thing = "/policies", g.policy
		case i%4 < 3:
			path, thing = "/apps", g.application
		}
		base := at[g.IntN(2)] + path
		if path == "/policies" {
			base = at[0] + path // which zones do not have
		}
		wrote := thing()
		made := c.object("POST", base, wrote, 201)
		id, _ := made["id"].(string)
		if !g.named {
			g.groups = append(g.groups, id)
		}
		check := func(when string, wrote, got map[string]any) {
			t.Helper()
			for name, value := range wrote {
				if left := leftOut(value, got[name]); left != "" {
					t.Errorf("%s %s: %q was %s", when, path, name, left)
				}
			}
		}
		check("made", wrote, made)
		if read := c.object("GET", base+"/"+id, nil, 200); !reflect.DeepEqual(read, made) {
			t.Errorf("read %v\nmade %v", read, made)
		}
		var list struct{ Result []map[string]any }
		_, text := c.do("GET", base, "")
		if err := json.Unmarshal([]byte(text), &list); err != nil || !slices.ContainsFunc(list.Result, func(one map[string]any) bool { return reflect.DeepEqual(one, made) }) {
			t.Errorf("%v is not listed as it was made: %v", made, err)
		}
		// Written back as it was read, and then as something else.
		back := c.object("PUT", base+"/"+id, made, 200)
		if got, want := timeless(back), timeless(made); !reflect.DeepEqual(got, want) {
			t.Errorf("written back it is\n%v\nand was\n%v", got, want)
		}
		next := thing()
		set := c.object("PUT", base+"/"+id, next, 200)
		check("written anew", next, set)
		for _, name := range []string{"logo_url", "custom_pages", "unknown", "is_default", "mfa_config", "approval_required", "purpose_justification_prompt", "connection_rules"} {
			if _, said := next[name]; !said && set[name] != nil {
				t.Errorf("%s: %q is %v still, and was left out", path, name, set[name])
			}
		}
		if t.Failed() {
			return
		}
	}
}

// object sends an object, and returns the result of the answer.
func (c flare) object(method, path string, body map[string]any, status int) map[string]any {
	c.w.t.Helper()
	data := []byte{}
	if body != nil {
		var err error
		if data, err = json.Marshal(body); err != nil {
			c.w.t.Fatal(err)
		}
	}
	got, text := c.do(method, path, string(data))
	var answer struct{ Result map[string]any }
	if err := json.Unmarshal([]byte(text), &answer); err != nil || got != status {
		c.w.t.Fatalf("%s %s %s: %d %s", method, path, data, got, text)
	}
	return answer.Result
}

// leftOut says in what an answer differs from what was written. An answer may say more:
// ids and times, and what clients expect where nothing is said. Null says nothing.
func leftOut(wrote, got any) string {
	switch wrote := wrote.(type) {
	case nil:
		return ""
	case map[string]any:
		got, is := got.(map[string]any)
		for name, value := range wrote {
			if left := leftOut(value, got[name]); !is || left != "" {
				return fmt.Sprintf("%q: %s", name, left)
			}
		}
		return ""
	case []any:
		got, is := got.([]any)
		if !is || len(got) != len(wrote) {
			return fmt.Sprintf("%v, and is %v", wrote, got)
		}
		for i := range wrote {
			if left := leftOut(wrote[i], got[i]); left != "" {
				return fmt.Sprintf("%d: %s", i, left)
			}
		}
		return ""
	}
	if !reflect.DeepEqual(wrote, got) {
		return fmt.Sprintf("%v, and is %v", wrote, got)
	}
	return ""
}

// timeless returns a thing without the times of its changes.
func timeless(thing map[string]any) map[string]any {
	out := maps.Clone(thing)
	delete(out, "updated_at")
	if policies, is := out["policies"].([]any); is {
		all := make([]any, len(policies))
		for i, p := range policies {
			p, _ := p.(map[string]any)
			all[i] = timeless(p)
		}
		out["policies"] = all
	}
	return out
}

// A scribe writes random things as JSON has them.
type scribe struct {
	*rand.Rand
	groups []string
	named  bool // rules name groups
}

func pick[T any](g *scribe, of ...T) T { return of[g.IntN(len(of))] }

func (g *scribe) list(least, most int, one func() any) []any {
	list := make([]any, least+g.IntN(most-least+1))
	for i := range list {
		list[i] = one()
	}
	return list
}

func (g *scribe) text() any {
	return pick[any](g, "a", "Web 1", `"quoted" \ back`, "<b>&amp;", "ünïcode ☃", "%_'; --", "null", "Ann@Example.com")
}

func (g *scribe) rule() any {
	one := func(kind string, pairs ...any) any {
		fields := map[string]any{}
		for i := 0; i < len(pairs); i += 2 {
			fields[pairs[i].(string)] = pairs[i+1]
		}
		return map[string]any{kind: fields}
	}
	rules := []any{
		one("email", "email", pick(g, "Ann@Example.com", "bob@example.com")), one("email_domain", "domain", pick(g, "Example.com", "x.org")), one("everyone"),
		one("ip", "ip", pick(g, "192.0.2.0/24", "2001:DB8::/32", "FD00:0::5", "10.0.0.1")), one("auth_method", "auth_method", g.text()),
		one("login_method", "id", g.text()), one("service_token", "token_id", g.text()), one("any_valid_service_token"), one("certificate"),
		one("common_name", "common_name", g.text()), one("oidc", "claim_name", g.text(), "claim_value", g.text(), "identity_provider_id", g.text()),
		one("geo", "country_code", "DE"), one("github-organization", "identity_provider_id", g.text(), "name", g.text(), "team", nil),
		one("device_posture", "integration_uid", g.text()), one("tomorrow", "numbers", []any{1.5, -2.0, true, nil}),
	}
	if g.named {
		rules = append(rules, one("group", "id", pick(g, g.groups...)))
	}
	return pick(g, rules...)
}

// extras are fields that decide nothing, or that nobody knows.
func (g *scribe) extras(thing map[string]any) map[string]any {
	for name, value := range map[string]any{
		"session_duration": pick[any](g, "24h", "30m", nil), "logo_url": g.text(), "custom_pages": []any{g.text()}, "is_default": g.IntN(2) == 0,
		"unknown": map[string]any{"deep": []any{map[string]any{"": nil}, 12345.0}}, "approval_required": g.IntN(2) == 0,
		"purpose_justification_prompt": g.text(), "mfa_config": map[string]any{"mfa_disabled": true, "session_duration": "0m"}, "app_launcher_visible": g.IntN(2) == 0,
	} {
		if g.IntN(3) == 0 {
			thing[name] = value
		}
	}
	return thing
}

func (g *scribe) expression(thing map[string]any) map[string]any {
	thing["include"] = g.list(1, 4, g.rule)
	for _, section := range []string{"require", "exclude"} {
		if g.IntN(2) == 0 {
			thing[section] = g.list(0, 3, g.rule)
		}
	}
	return g.extras(thing)
}

func (g *scribe) group() map[string]any { return g.expression(map[string]any{"name": g.text()}) }

func (g *scribe) policy() map[string]any {
	return g.policyTo(pick(g, "allow", "deny", "non_identity", "bypass"))
}

func (g *scribe) policyTo(decision string) map[string]any {
	thing := g.expression(map[string]any{"name": g.text(), "decision": decision})
	rules := map[string]any{}
	if g.IntN(2) == 0 {
		ssh := map[string]any{"usernames": g.list(0, 3, func() any { return pick[any](g, "root", "deploy", "Ops.team", "ünï") })}
		if g.IntN(2) == 0 {
			ssh["allow_email_alias"] = g.IntN(2) == 0
		}
		rules["ssh"] = ssh
	}
	if g.IntN(3) == 0 {
		rules["rdp"] = map[string]any{"allowed_clipboard_local_to_remote_formats": []any{"text"}}
	}
	if len(rules) > 0 || g.IntN(4) == 0 {
		thing["connection_rules"] = rules
	}
	return thing
}

func (g *scribe) application() map[string]any {
	thing := g.extras(map[string]any{"name": g.text(), "type": pick(g, "infrastructure", "infrastructure", "ssh", "self_hosted", "bookmark")})
	decisions := []string{"allow", "non_identity"}
	if thing["type"] == "infrastructure" {
		thing["target_criteria"] = g.list(1, 3, g.criterion)
	} else {
		decisions = append(decisions, "deny", "bypass")
		thing["domain"] = pick(g, "Ssh.example.com", "a.example.com/path")
	}
	switch g.IntN(3) {
	case 0:
		thing["allowed_idps"] = g.list(0, 2, g.text)
	case 1:
		thing["allowed_idps"] = nil
	}
	precedence := 0.0
	thing["policies"] = g.list(0, 3, func() any {
		p := g.policyTo(pick(g, decisions...))
		precedence += float64(1 + g.IntN(3))
		p["precedence"] = precedence
		return p
	})
	return thing
}

func (g *scribe) criterion() any {
	hostnames := func() any {
		return map[string]any{"hostname": g.list(1, 3, func() any { return pick[any](g, "Web-1", "db?", "*", "a.b.c") })}
	}
	c := map[string]any{"port": pick(g, 22.0, 2222.0), "protocol": "SSH"}
	if g.IntN(2) == 0 {
		c["target_attributes"] = hostnames()
		return c
	}
	tags := func() any { return map[string]any{"env": g.list(1, 2, g.text), "Team": g.list(1, 1, g.text)} }
	c["include"] = map[string]any{"target_attributes": hostnames(), "tags": tags()}
	c["require"] = pick[any](g, map[string]any{"tags": tags()}, nil)
	c["exclude"] = pick[any](g, map[string]any{"target_attributes": hostnames()}, nil)
	return c
}
