package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Who asked for a certificate, or logged in, stands in the log of access, allowed or not,
// from the audit log.
func TestCloudflareAccessLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	w.stdin = "a long password of ann"
	w.ok("user", "add", "ann", "--password-stdin", "--email", "Ann@example.com", "--permission", "Certificates Issue")
	w.stdin = ""
	w.ok("policy", "allow", "--user", "ann", "--host", "*", "--login", "deploy")
	w.ok("ca", "create", "people")
	w.ok("ca", "create", "hosts", "--purpose", "host")
	key := filepath.Join(t.TempDir(), "id.pub")
	w.write(key, someEd25519+"\n")
	w.ok("cert", "sign", "--ca", "hosts", "--public-key", key, "--principal", "web1")
	admin := w.env
	w.env = map[string]string{"KEYTURN_SERVER": w.client.server, "KEYTURN_USER": "ann", "KEYTURN_PASSWORD": "a long password of ann"}
	w.ok("cert", "sign", "--ca", "people", "--public-key", key, "--principal", "deploy")
	for _, login := range []string{"root", "git"} {
		w.refused("no certificate as", "cert", "sign", "--ca", "people", "--public-key", key, "--principal", login)
	}
	w.env["KEYTURN_PASSWORD"] = "a wrong password"
	w.refused("is not valid", "whoami")
	w.env = admin
	var apps struct{ Applications []struct{ ID string } }
	w.api(&apps, "GET", "/applications", nil)
	app := apps.Applications[0].ID

	type entry struct {
		Action, AppDomain, Connection string
		Allowed                       bool
		App                           string    `json:"app_uid"`
		At                            time.Time `json:"created_at"`
		IP                            string    `json:"ip_address"`
		Ray                           string    `json:"ray_id"`
		Email                         string    `json:"user_email"`
	}
	list := func(query string) (entries []entry) {
		t.Helper()
		for _, path := range []string{"access_requests", "access-requests"} {
			status, text := c.do("GET", "/accounts/{account}/access/logs/"+path+"?"+query, "")
			var out struct{ Result []entry }
			if err := json.Unmarshal([]byte(text), &out); err != nil || status != 200 || out.Result == nil {
				t.Fatalf("%s: %d %s", query, status, text)
			}
			entries = out.Result
		}
		return entries
	}
	said := func(entries []entry) string {
		var all []string
		for _, e := range entries {
			all = append(all, fmt.Sprint(e.Action, " ", e.Allowed))
		}
		return strings.Join(all, ", ")
	}
	anns := list("email=ann%40EXAMPLE.com&email_exact=true")
	if got, want := said(anns), "login false, certificate false, certificate false, certificate true, login true"; got != want {
		t.Fatalf("of ann: %s, want %s", got, want)
	}
	signed := anns[3]
	if signed.App != app || signed.Email != "Ann@example.com" || signed.IP != "127.0.0.1" || len(signed.Ray) != 16 || time.Since(signed.At) > time.Hour {
		t.Errorf("signed %+v", signed)
	}
	if refused := anns[1]; refused.App != app || refused.Email != "Ann@example.com" || refused.IP != "127.0.0.1" {
		t.Errorf("refused %+v", refused)
	}
	var ann userJSON
	w.json(&ann, "user", "show", "ann")
	id := userUUIDOf(ann.ID)
	at := url.QueryEscape(signed.At.Format(time.RFC3339Nano))
	for query, want := range map[string]string{
		"email=ann%40&direction=asc&limit=2":          "login true, certificate true",
		"email=ann&page=2&per_page=2":                 "certificate false, certificate true",
		"email=ann&page=9&per_page=2":                 "",
		"email=ann&limit=0&page=0&per_page=0":         said(anns),
		"user_id=" + id:                               said(anns),
		"user_id=" + id + "&allowed=false":            "login false, certificate false, certificate false",
		"email=ann&allowed=true&allowedOp=neq":        "login false, certificate false, certificate false",
		"app_uid=" + app:                              "certificate false, certificate false, certificate true",
		"email=ann&app_uid=" + app + "&app_uidOp=neq": "login false, login true",
		"ray_id=" + signed.Ray:                        "certificate true",
		"email=ann&since=" + at + "&until=" + at:      "certificate true",
		"email=ann&until=2001-01-01T00:00:00Z":        "",
		"email=nobody":                                "",
	} {
		if got := said(list(query)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	if _, text := c.do("GET", "/accounts/{account}/access/logs/access_requests?fields=app_uid,+allowed,more&ray_id="+signed.Ray, ""); !strings.HasPrefix(text, `{"result":[{"allowed":true,"app_uid":"`+app+`"}],`) {
		t.Error(text)
	}
	for _, bad := range []string{"direction=up", "since=yesterday", "allowedOp=maybe", "country_code=DE", "page=-1", "limit=x"} {
		if status, text := c.do("GET", "/accounts/{account}/access/logs/access_requests?"+bad, ""); status != 400 || !strings.Contains(text, `"code":12130`) {
			t.Errorf("%s: %d %s", bad, status, text)
		}
	}
}

// userUUIDOf returns the id of a user as Cloudflare's clients have it.
func userUUIDOf(id string) string {
	return strings.Join([]string{id[:8], id[8:12], id[12:16], id[16:20], id[20:]}, "-")
}
