package main

import (
	"cmp"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A client that lost the answer to any request which makes something, and asks again, gets
// what it made, as long as that is as it was: nobody else does, and nothing is made twice.
func TestCloudflareAnswersAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	var other tokenJSON
	w.json(&other, "token", "create", "other", "--permission", "All", "--expires", "24h")
	first := headers("Authorization", "Bearer "+w.token)
	again := headers("Authorization", "Bearer "+w.token, "X-Stainless-Retry-Count", "1")
	others := headers("Authorization", "Bearer "+other.Token, "X-Stainless-Retry-Count", "1")
	const everyone = `"include":[{"everyone":{}}]`
	const access = "/accounts/{account}/access/"
	ask := func(c flare, method, path, body string) (id, text string) {
		t.Helper()
		status, text := c.do(method, path, body)
		var got struct{ Result json.RawMessage }
		var one struct{ ID string }
		if err := json.Unmarshal([]byte(text), &got); err != nil || status/100 != 2 {
			return "", text
		}
		data := got.Result
		var many []json.RawMessage
		if json.Unmarshal(data, &many) == nil && len(many) > 0 {
			data = many[0]
		}
		_ = json.Unmarshal(data, &one)
		return one.ID, text
	}
	app := w.addApplication("web").ID
	reusable, _ := ask(c, "POST", access+"policies", `{"name":"any","decision":"allow",`+everyone+`}`)
	for _, made := range []struct {
		name, method, path, body string
		// change is how somebody writes what was made anew; where it cannot be written, it is
		// removed at where, if that is not "".
		change, where string
		alone         bool // there can only be one
	}{
		{
			"application", "POST", access + "apps", `{"type":"infrastructure","name":"a","target_criteria":[{"port":22,"protocol":"SSH","target_attributes":{"hostname":["h"]}}],"policies":[{"name":"p","decision":"allow",` + everyone + `},"` + reusable + `"]}`,
			`{"type":"infrastructure","name":"a","target_criteria":[{"port":22,"protocol":"SSH","target_attributes":{"hostname":["other"]}}]}`, access + "apps/ID", false,
		},
		{
			"policy of an application", "POST", access + "apps/" + app + "/policies", `{"name":"p","decision":"allow",` + everyone + `}`,
			`{"name":"p","decision":"deny",` + everyone + `}`, access + "apps/" + app + "/policies/ID", false,
		},
		{
			"reusable policy", "POST", access + "policies", `{"name":"r","decision":"allow",` + everyone + `}`,
			`{"name":"r","decision":"allow","include":[{"email":{"email":"a@b.c"}}]}`, access + "policies/ID", false,
		},
		{"group", "POST", access + "groups", `{"name":"g",` + everyone + `}`, `{"name":"g","include":[{"email":{"email":"a@b.c"}}]}`, access + "groups/ID", false},
		{
			"target", "POST", "/accounts/{account}/infrastructure/targets", `{"hostname":"t","ip":{"ipv4":{"ip_addr":"10.2.0.1"}}}`,
			`{"hostname":"T","ip":{"ipv4":{"ip_addr":"10.2.0.1"}}}`, "/accounts/{account}/infrastructure/targets/ID", true,
		},
		{
			"targets", "PUT", "/accounts/{account}/infrastructure/targets/batch", `[{"hostname":"u","ip":{"ipv4":{"ip_addr":"10.2.0.2"}}},{"hostname":"u","ip":{"ipv4":{"ip_addr":"10.2.0.3"}}}]`,
			`{"hostname":"U","ip":{"ipv4":{"ip_addr":"10.2.0.2"}}}`, "/accounts/{account}/infrastructure/targets/ID", true,
		},
		{"authority of an application", "POST", access + "apps/" + app + "/ca", "", "", access + "apps/" + app + "/ca", true},
		{"authority of the gateway", "POST", access + "gateway_ca", "", "", access + "gateway_ca/ID", true},
		{"test of policies", "POST", access + "policy-tests", `{"policies":["` + reusable + `"]}`, "", "", false},
	} {
		t.Run(made.name, func(t *testing.T) {
			asks := func(header map[string][]string) (id, text string) {
				c.header = header
				return ask(c, made.method, made.path, made.body)
			}
			id, answer := asks(first)
			if id == "" {
				t.Fatalf("made %s", answer)
			}
			for range 2 {
				if _, got := asks(again); got != answer {
					t.Errorf("asked again\n%s\nand the first got\n%s", got, answer)
				}
			}
			newer, got := asks(others)
			if made.alone != (newer == "") || newer == id {
				t.Errorf("another who asks gets %s", got)
			}
			newest, got := asks(first)
			if made.alone != (newest == "") || newest == id {
				t.Errorf("who asks for one more gets %s", got)
			}
			if made.where == "" {
				return
			}
			id = cmp.Or(newest, id)
			where := strings.Replace(made.where, "ID", id, 1)
			method := "PUT"
			if made.change == "" {
				method = "DELETE"
			}
			c.header = first
			if status, text := c.do(method, where, made.change); status/100 != 2 {
				t.Fatalf("%s %s: %d %s", method, where, status, text)
			}
			gone := made.change == ""
			switch newer, got := asks(again); {
			case newer == id:
				t.Errorf("somebody has changed it, and asked again it is %s", got)
			case newer == "" && (gone || !made.alone):
				t.Errorf("asked for once more: %s", got)
			}
		})
	}
}

// A client that asks again after minutes does not mean what was made then.
func TestCloudflareAnswersLapse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	const groups, body = "/accounts/{account}/access/groups", `{"name":"g","include":[{"everyone":{}}]}`
	_, first := c.do("POST", groups, body)
	c.header.Set("X-Stainless-Retry-Count", "3")
	if _, got := c.do("POST", groups, body); got != first {
		t.Errorf("at once: %s\nwant %s", got, first)
	}
	event := audit.Event{Tenant: trust.TenantID(w.account().ID), Actor: audit.Actor{Kind: "system"}, Action: "answers.age", Subject: "answers:all"}
	err := w.node.store.Update(t.Context(), event, func(tx *store.Tx) error {
		_, err := tx.Exec(`UPDATE answers SET created = created - $2 WHERE tenant = $1`, tx.Tenant(), (5 * time.Minute).Microseconds())
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, got := c.do("POST", groups, body); status != 201 || got == first {
		t.Errorf("after five minutes: %d %s", status, got)
	}
}

// What cannot be kept, or would look as if it counted, is refused.
func TestCloudflareOddFields(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	const access = "/accounts/{account}/access/"
	for _, depth := range []int{9_990, 9_998, 9_999} {
		nested := strings.Repeat("[", depth) + strings.Repeat("]", depth)
		for path, body := range map[string]string{
			"apps":     `{"type":"infrastructure","name":"a","target_criteria":[{"port":22,"protocol":"SSH","target_attributes":{"hostname":["h"]}}],"x":` + nested + `}`,
			"policies": `{"name":"p","decision":"allow","include":[{"everyone":{}}],"connection_rules":{"x":` + nested + `}}`,
			"groups":   `{"name":"g","include":[{"everyone":` + nested + `}]}`,
		} {
			if status, text := c.do("POST", access+path, body); status != 400 || !strings.Contains(text, `"success":false`) {
				t.Errorf("%s, %d deep: %d %.200s", path, depth, status, text)
			}
		}
	}
	if status, text := c.do("POST", access+"groups", `{"name":"g","include":[{"everyone":{}}],"Exclude":[{"email":{"email":"eve@example.com"}}]}`); status != 400 ||
		!strings.Contains(text, `it is called \"exclude\"`) {
		t.Errorf("a field in another case: %d %s", status, text)
	}
	w.ok("application", "list")
}
