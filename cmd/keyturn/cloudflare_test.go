package main

import (
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/trust"
)

// A flare is a client of Cloudflare's wire.
type flare struct {
	w       *world
	account string
	header  http.Header
}

// cloudflare returns a client with a token that may do everything.
func (w *world) cloudflare() flare {
	w.t.Helper()
	return flare{w, w.account().ID, headers("Authorization", "Bearer "+w.token)}
}

func (w *world) account() (a accountJSON) {
	w.t.Helper()
	w.json(&a, "account", "show")
	return a
}

// do sends a request; "{account}" in path is the client's account.
func (c flare) do(method, path, body string) (status int, text string) {
	c.w.t.Helper()
	status, text = c.w.send(method, "/client/v4"+strings.ReplaceAll(path, "{account}", c.account), body, c.header)
	return status, strings.TrimSpace(text)
}

func (c flare) with(pairs ...string) flare {
	c.header = headers(pairs...)
	return c
}

// Each of Cloudflare's three ways to say who asks, all at once, and what each wrong
// one is told.
func TestCloudflareCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	var token tokenJSON
	w.json(&token, "token", "create", "flare", "--permission", "Zero Trust Read", "--expires", "24h")
	w.stdin = testPassword + "\n"
	w.ok("user", "add", "bob@example.com", "--permission", "Zero Trust Read", "--permission", "Tokens Write", "--password-stdin")
	w.stdin = ""
	bobs := w.find(`"token":"(kt_[^"]+)"`, "POST", "/api/v1/tokens", `{"name":"bobs","permissions":["Zero Trust Read"]}`, headers("Authorization", basic("bob@example.com", testPassword)))

	expires := w.find(`"name":"flare",[^}]*"expires_at":"([^"]+)"`, "GET", "/api/v1/tokens", "", headers("Authorization", "Bearer "+w.token))
	valid := fmt.Sprintf(`{"result":{"id":%q,"status":"active","expires_on":%q},"success":true,"errors":[],"messages":[{"code":10000,"message":"This API Token is valid and active","type":null}]}`, token.ID, expires)
	for _, path := range []string{"/user/tokens/verify", "/accounts/{account}/tokens/verify"} {
		for name, client := range map[string]flare{
			"Bearer": c.with("Authorization", "Bearer "+token.Token), "bearer": c.with("Authorization", "bearer "+token.Token),
			"all at once":          c.with("Authorization", "Bearer "+token.Token, "X-Auth-Email", "bob@example.com", "X-Auth-Key", bobs, "X-Auth-User-Service-Key", "x"),
			"Bearer counts":        c.with("Authorization", "Bearer "+token.Token, "X-Auth-Email", "nobody", "X-Auth-Key", "144c9defac04969c7bfad8ad631dea35"),
			"what SDKs send along": c.with("Authorization", "Bearer "+token.Token, "api-version", "2026-11-22", "X-Stainless-Retry-Count", "0", "Accept", "*/*"),
		} {
			if status, text := client.do("GET", path, ""); status != 200 || text != valid {
				t.Errorf("%s at %s: %d %s, want %s", name, path, status, text, valid)
			}
		}
		if status, text := c.with("Authorization", "Bearer "+token.Token[:len(token.Token)-1]+"_").do("GET", path, ""); status != 401 || !strings.Contains(text, `{"code":1000,"message":"Invalid API Token"}`) {
			t.Errorf("an unknown token at %s: %d %s", path, status, text)
		}
	}
	if status, text := c.with("Authorization", "Bearer "+token.Token, "X-Auth-Key", bobs).do("GET", "/accounts/"+strings.Repeat("0", 32)+"/tokens/verify", ""); status != 403 || !strings.Contains(text, `{"code":10000,"message":"Authentication error"}`) {
		t.Errorf("another account: %d %s", status, text)
	}
	w.ok("token", "revoke", token.ID)
	if status, _ := c.with("Authorization", "Bearer "+token.Token).do("GET", "/user/tokens/verify", ""); status != 401 {
		t.Errorf("a revoked token: %d", status)
	}
}

// volatile is what two runs of the same exchange differ in: ids and times.
var volatile = regexp.MustCompile(`"(id|seed_id|created_at|modified_at|updated_at)":"[^"]+"`)

// expect sends a request, and compares the answer with what is documented, but for ids
// and times. It returns the first id in it.
func (c flare) expect(method, path, body string, status int, want string) (id string) {
	c.w.t.Helper()
	got, text := c.do(method, path, body)
	if match := regexp.MustCompile(`"(?:seed_)?id":"([^"]+)"`).FindStringSubmatch(text); match != nil {
		id = match[1]
	}
	if text = volatile.ReplaceAllString(text, `"$1":"*"`); got != status || text != want {
		c.w.t.Errorf("%s %s %s: got %d\n%s\nwant %d\n%s", method, path, body, got, text, status, want)
	}
	return id
}

// The documented exchanges with targets, byte for byte.
func TestCloudflareTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 1)
	c := w.cloudflare()
	const at = "/accounts/{account}/infrastructure/targets"
	const network = "c77b744e-acc8-428f-9257-6878c046ed55"
	const ends = `"success":true,"errors":[],"messages":[]`
	gone := `{"result":null,"success":true,"errors":[],"messages":[]}`
	own := inventory.DefaultNetwork(trust.TenantID(c.account))

	// A host that was added with an IP address is a target already.
	web1 := c.expect("GET", at, "", 200, `{"result":[{"id":"*","hostname":"web1","ip":{"ipv4":{"ip_addr":"127.0.0.1","virtual_network_id":"`+own+`"}},"tags":null,"created_at":"*","modified_at":"*"}],`+
		ends+`,"result_info":{"count":1,"page":1,"per_page":1000,"total_count":1,"total_pages":1}}`)
	var host struct {
		ID, State, Address string
	}
	w.json(&host, "host", "show", "web1")
	if host.ID != web1 {
		t.Errorf("host web1 has the id %s, as a target %s", host.ID, web1)
	}

	// The sample of the vendor's pages.
	ip := `{"ipv4":{"ip_addr":"187.26.29.249","virtual_network_id":"` + network + `"},"ipv6":{"ip_addr":"64c0:64e8:f0b4:8dbf:7104:72b0:ec8f:f5e0","virtual_network_id":"` + network + `"}}`
	sample := `{"id":"*","hostname":"infra-access-target","ip":` + ip + `,"tags":null,"created_at":"*","modified_at":"*"}`
	one := `{"result":` + sample + `,` + ends + `}`
	id := c.expect("POST", at, `{"hostname":"infra-access-target","ip":`+ip+`}`, 200, one)
	c.expect("GET", at+"/"+id, "", 200, one)
	c.expect("PUT", at+"/"+id, `{"hostname":"infra-access-target","ip":`+ip+`,"unknown":{}}`, 200, one)
	c.expect("GET", at+"?hostname=INFRA-access-target&per_page=20", "", 200, `{"result":[`+sample+`],`+ends+`,"result_info":{"count":1,"page":1,"per_page":20,"total_count":1,"total_pages":1}}`)
	c.expect("GET", at+"?page=2", "", 200, `{"result":[],`+ends+`,"result_info":{"count":0,"page":2,"per_page":1000,"total_count":2,"total_pages":1}}`)
	c.expect("GET", at+"?tag=no:such", "", 200, `{"result":[],`+ends+`,"result_info":{"count":0,"page":1,"per_page":1000,"total_count":0,"total_pages":0}}`)

	// What Terraform writes, and has to read again: text as it was, a network that it never
	// named, and tags that it does not know.
	terraform := c.expect("POST", at, `{"hostname":"Web-1","ip":{"ipv6":{"ip_addr":"FD00:0::5"}},"tags":{"env":"<lab>"}}`, 200,
		`{"result":{"id":"*","hostname":"Web-1","ip":{"ipv6":{"ip_addr":"FD00:0::5","virtual_network_id":"`+own+`"}},"tags":{"env":"\u003clab\u003e"},"created_at":"*","modified_at":"*"},`+ends+`}`)
	c.expect("PUT", at+"/"+terraform, `{"hostname":"web-2","ip":{"ipv4":{"ip_addr":"10.0.0.5"}}}`, 200,
		`{"result":{"id":"*","hostname":"web-2","ip":{"ipv4":{"ip_addr":"10.0.0.5","virtual_network_id":"`+own+`"}},"tags":{"env":"\u003clab\u003e"},"created_at":"*","modified_at":"*"},`+ends+`}`)
	c.expect("PUT", at+"/"+terraform, `{"hostname":"web-2","ip":{"ipv4":{"ip_addr":"10.0.0.5"}},"tags":null}`, 200,
		`{"result":{"id":"*","hostname":"web-2","ip":{"ipv4":{"ip_addr":"10.0.0.5","virtual_network_id":"`+own+`"}},"tags":null,"created_at":"*","modified_at":"*"},`+ends+`}`)
	w.json(&host, "host", "show", "web-1")
	if host.ID != terraform || host.State != "unenrolled" || host.Address != "10.0.0.5:22" {
		t.Errorf("as a host it is %+v", host)
	}

	// It is taken in as every host is, and is the same one then. (Nothing answers there.)
	taken := c.expect("POST", at, `{"hostname":"web-9","ip":{"ipv4":{"ip_addr":"127.0.0.9"}}}`, 200,
		`{"result":{"id":"*","hostname":"web-9","ip":{"ipv4":{"ip_addr":"127.0.0.9","virtual_network_id":"`+own+`"}},"tags":null,"created_at":"*","modified_at":"*"},`+ends+`}`)
	if code, _, stderr := w.try("scan", "web-9"); code == 0 || !strings.Contains(stderr, `host "web-9" is known as a target only`) {
		t.Errorf("scanning a host that was not taken in: %d %s", code, stderr)
	}
	w.ok("scan", "--wait")
	w.try("host", "add", "web9", "--address", "127.0.0.9:22", "--login", "root", "--identity", w.ops, "--accept-new")
	w.json(&host, "host", "show", "web9")
	if host.ID != taken || host.State == "unenrolled" {
		t.Errorf("target %s was taken in as %+v", taken, host)
	}
	c.expect("DELETE", at+"/"+taken, "", 200, gone)

	// Asked for once more it is there already.
	body := `{"hostname":"infra-access-target","ip":` + ip + `}`
	if status, text := c.do("POST", at, body); status != 400 || !strings.Contains(text, `{"code":12130,"message":"access.api.error.invalid_request: 187.26.29.249 in virtual network `+network+` is target `+id) {
		t.Errorf("a target that is there: %d %s", status, text)
	}

	// Many at once, all or none.
	if status, text := c.do("PUT", at+"/batch", `[{"hostname":"a","ip":{"ipv4":{"ip_addr":"10.1.0.1"}}},{"hostname":"a","ip":{"ipv4":{"ip_addr":"10.1.0.1"}}}]`); status != 400 || !strings.Contains(text, "10.1.0.1 in virtual network") {
		t.Errorf("one address twice: %d %s", status, text)
	}
	if status, text := c.do("GET", at+"?ip_v4=10.1.0.1", ""); status != 200 || !strings.Contains(text, `"total_count":0`) {
		t.Errorf("half of a batch is there: %d %s", status, text)
	}
	many := c.expect("PUT", at+"/batch", `[{"hostname":"b","ip":{"ipv4":{"ip_addr":"10.1.0.2"}}},{"hostname":"b","ip":{"ipv4":{"ip_addr":"10.1.0.3"}}}]`, 200,
		`{"result":[{"id":"*","hostname":"b","ip":{"ipv4":{"ip_addr":"10.1.0.2","virtual_network_id":"`+own+`"}},"tags":null,"created_at":"*","modified_at":"*"},`+
			`{"id":"*","hostname":"b","ip":{"ipv4":{"ip_addr":"10.1.0.3","virtual_network_id":"`+own+`"}},"tags":null,"created_at":"*","modified_at":"*"}],`+ends+`}`)
	c.expect("PUT", at+"/batch", `[]`, 200, `{"result":[],`+ends+`}`)
	absent := `{"target_ids":["` + many + `","1f4158e4-c12d-5097-a058-7bb2817e132b"]}`
	if status, text := c.do("POST", at+"/batch_delete", absent); status != 404 || !strings.Contains(text, `{"code":12135,"message":"access.api.error.not_found"`) {
		t.Errorf("one of them is not there: %d %s", status, text)
	}
	c.expect("GET", at+"/"+many, "", 200, `{"result":{"id":"*","hostname":"b","ip":{"ipv4":{"ip_addr":"10.1.0.2","virtual_network_id":"`+own+`"}},"tags":null,"created_at":"*","modified_at":"*"},`+ends+`}`)
	c.expect("POST", at+"/batch_delete", `{"target_ids":["`+many+`","`+id+`"]}`, 200, gone)
	c.expect("DELETE", at+"/batch", `{"target_ids":["`+terraform+`"]}`, 200, gone)
	c.expect("DELETE", at+"/"+web1, "", 200, gone)
	for _, id := range []string{many, id, terraform, web1} {
		if status, text := c.do("GET", at+"/"+id, ""); status != 404 || !strings.Contains(text, "12135") {
			t.Errorf("a target that was deleted: %d %s", status, text)
		}
	}
	w.json(&host, "host", "show", "web1") // which was taken in
	if host.State != "ready" {
		t.Errorf("the host of a target that was deleted is %+v", host)
	}
	if code, _, _ := w.try("host", "show", "web-1"); code == 0 {
		t.Error("a host that was only ever a target is there still")
	}
}

// What is wrong with a request is told, and nothing of it is done.
func TestBadCloudflareTargets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	const at = "/accounts/{account}/infrastructure/targets"
	good := `{"hostname":"web","ip":{"ipv4":{"ip_addr":"10.0.0.5"}}}`
	_, made := c.do("POST", at, good)
	id := regexp.MustCompile(`"id":"([^"]+)"`).FindStringSubmatch(made)[1]
	_, before := c.do("GET", at, "")
	for _, bad := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", at, ``, 400, "the body is empty"},
		{"POST", at, `no`, 400, "not JSON"},
		{"POST", at, `[]`, 400, "where an object is meant"},
		{"POST", at, good + good, 400, "more than one"},
		{"POST", at, `null`, 400, "hostname"},
		{"POST", at, `{}`, 400, `"source":{"pointer":"/hostname"}`},
		{"POST", at, `{"hostname":7}`, 400, `"source":{"pointer":"/hostname"}`},
		{"POST", at, `{"hostname":"web","ip":null}`, 400, `"source":{"pointer":"/ip"}`},
		{"POST", at, `{"hostname":"web","ip":{"ipv4":"10.0.0.6"}}`, 400, `"source":{"pointer":"/ip/ipv4"}`},
		{"POST", at, `{"hostname":"web","ip":{"ipv4":{}}}`, 400, `"source":{"pointer":"/ip/ipv4/ip_addr"}`},
		{"POST", at, `{"hostname":"web","ip":{"ipv4":{"ip_addr":"10.0.0.6","virtual_network_id":"7"}}}`, 400, `"source":{"pointer":"/ip/ipv4/virtual_network_id"}`},
		{"POST", at, `{"hostname":"web","ip":{"ipv4":{"ip_addr":"10.0.0.6"}},"tags":["a"]}`, 400, `"source":{"pointer":"/tags"}`},
		{"POST", at, `{"hostname":"web","ip":{"ipv4":{"ip_addr":"10.0.0.6"}},"tags":{"a":7}}`, 400, `"source":{"pointer":"/tags"}`},
		{"POST", at, `{"hostname":"` + strings.Repeat("a", 1<<20) + `"}`, 400, "longer than"},
		{"PUT", at + "/batch", `{}`, 400, "where an array is meant"},
		{"PUT", at + "/batch", strings.Repeat(" ", 1<<20) + `[]`, 400, `{"code":12130,`},
		{"GET", "/" + at, "", 404, "7003"},
		{"GET", at + "//" + id, "", 404, "7003"},
		{"PUT", at + "/batch", "[" + strings.Repeat(good+",", 1000) + good + "]", 400, "1001 targets are more than 1000"},
		{"PUT", at + "/" + id, `{"hostname":"web"}`, 400, `"source":{"pointer":"/ip"}`},
		{"PUT", at + "/1f4158e4-c12d-5097-a058-7bb2817e132b", good, 404, "12135"},
		{"PUT", at + "/nonsense", good, 404, "12135"},
		{"GET", at + "/nonsense", "", 404, "12135"},
		{"DELETE", at + "/nonsense", "", 404, "12135"},
		{"DELETE", at + "/batch", "", 400, "the body is empty"},
		{"POST", at + "/batch_delete", "{}", 400, `"source":{"pointer":"/target_ids"}`},
		{"POST", at + "/batch_delete", `{"target_ids":"` + id + `"}`, 400, `"source":{"pointer":"/target_ids"}`},
		{"POST", at + "/batch_delete", `{"target_ids":["` + id + `","` + id + `"]}`, 404, "12135"},
		{"POST", at + "/" + id, good, 405, "7001"},
		{"PATCH", at, good, 405, "7001"},
		{"GET", at + "/" + id + "/more", "", 404, "7003"},
		{"GET", at + "?page=-1", "", 400, `"source":{"pointer":"/page"}`},
		{"GET", at + "?page=two", "", 400, `"source":{"pointer":"/page"}`},
		{"GET", at + "?page=99999999999999999999", "", 400, `"source":{"pointer":"/page"}`},
		{"GET", at + "?per_page=1001", "", 400, `"source":{"pointer":"/per_page"}`},
		{"GET", at + "?created_after=yesterday", "", 400, `"source":{"pointer":"/created_after"}`},
		{"GET", at + "?ip_v4=fd00::1", "", 400, `"source":{"pointer":"/ip_v4"}`},
		{"GET", at + "?ip_v6=10.0.0.5", "", 400, `"source":{"pointer":"/ip_v6"}`},
		{"GET", at + "?ips=10.0.0.5&ips=x", "", 400, `"source":{"pointer":"/ips"}`},
		{"GET", at + "?ipv4_start=10.0.0.1", "", 400, `"source":{"pointer":"/ipv4_end"}`},
		{"GET", at + "?ipv6_end=::1", "", 400, `"source":{"pointer":"/ipv6_start"}`},
		{"GET", at + "?tag=:v", "", 400, `"source":{"pointer":"/tag"}`},
		{"GET", at + "?tag=k:", "", 400, `"source":{"pointer":"/tag"}`},
		{"GET", at + "?order=colour", "", 400, `"source":{"pointer":"/order"}`},
		{"GET", at + "?direction=up", "", 400, `"source":{"pointer":"/direction"}`},
		{"GET", at + "?hostname=%ff", "", 400, "not printable"},
		{"GET", at + "?hostname_contains=a%00", "", 400, "not printable"},
	} {
		if status, text := c.do(bad.method, bad.path, bad.body); status != bad.status || !strings.Contains(text, bad.want) {
			t.Errorf("%s %s %.80s: got %d %.300s, want %d %s", bad.method, bad.path, bad.body, status, text, bad.status, bad.want)
		}
	}
	if _, after := c.do("GET", at, ""); after != before {
		t.Errorf("bad requests made\n%s\nof\n%s", after, before)
	}
	form := c
	form.header = c.header.Clone()
	form.header.Set("Content-Type", "application/x-www-form-urlencoded")
	if status, text := form.do("POST", at, strings.Replace(good, "5", "6", 1)); status != 400 || !strings.Contains(text, `{"code":12130,`) || !strings.Contains(text, "x-www-form-urlencoded") {
		t.Errorf("a form: %d %s", status, text)
	}
	if status, text := c.do("HEAD", at+"/"+id, ""); status != 200 || text != "" {
		t.Errorf("HEAD: %d %s", status, text)
	}
	for query, want := range map[string]int{
		"?page=1000000": 0, "?hostname=WEB&ips=10.0.0.5&ips=10.0.0.6": 1, "?target_ids=" + id + "&ipv4_start=10.0.0.1&ipv4_end=10.0.0.9": 1,
		"?ip_like=10.0.*": 1, "?order=tag:env&direction=desc": 1, "?created_before=2014-01-01T05:20:00.12345Z": 0, "?modified_after=2014-01-01T05:20:00%2B02:00": 1,
	} {
		if status, text := c.do("GET", at+query, ""); status != 200 || strings.Count(text, `"hostname"`) != want {
			t.Errorf("%s: %d %s", query, status, text)
		}
	}
}

// The documented exchanges with the settings of SSH, byte for byte.
func TestCloudflareSSHSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	c := w.cloudflare()
	const at = "/accounts/{account}/gateway/audit_ssh_settings"
	const sample = "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA=" // of the vendor's pages
	settings := func(key string) string {
		return `{"result":{"created_at":"*","public_key":"` + key + `","seed_id":"*","updated_at":"*"},"success":true,"errors":[],"messages":[]}`
	}
	// An account that nobody has configured has a seed, and records nothing.
	first := c.expect("GET", at, "", 200, settings(""))
	if seed := c.expect("PUT", at, `{"public_key":"`+sample+`"}`, 200, settings(sample)); seed != first {
		t.Errorf("another public key makes another seed: %s, was %s", seed, first)
	}
	_, before := c.do("GET", at, "")
	for body, want := range map[string]string{
		"": "the body is empty", "{}": "public_key is missing", `{"public_key":null}`: "public_key is missing", `{"public_key":7}`: "/public_key",
		`{"public_key":"1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSF="}`:    "/public_key",
		`{"public_key":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}`:   "/public_key", // to which nothing can be encrypted
		`{"public_key":"` + sample + `\n"}`:                               "/public_key",
		`{"public_key":"` + strings.TrimSuffix(sample, "=") + `","x":{}}`: "/public_key",
	} {
		if status, text := c.do("PUT", at, body); status != 400 || !strings.Contains(text, `{"code":12130,`) || !strings.Contains(text, want) {
			t.Errorf("%s: %d %s, want %s", body, status, text, want)
		}
	}
	if _, after := c.do("GET", at, ""); after != before {
		t.Errorf("bad requests made %s of %s", after, before)
	}
	// Each client asks in its own way, and each time there is another seed, and the same key.
	seeds := map[string]bool{first: true}
	for _, body := range []string{"", "{}"} {
		id := c.expect("POST", at+"/rotate_seed", body, 200, settings(sample))
		if seeds[id] {
			t.Errorf("rotating by %q ends with the seed %s again", body, id)
		}
		seeds[id] = true
		if got := c.expect("GET", at, "", 200, settings(sample)); got != id {
			t.Errorf("the seed is %s, and was to be %s", got, id)
		}
	}
	// Asked for again by the same client, because the answer was lost, it is the rotation
	// that was asked for; asked for by another it is one more.
	var other tokenJSON
	w.json(&other, "token", "create", "other", "--permission", "Zero Trust Write", "--expires", "24h")
	newest := c.expect("GET", at, "", 200, settings(sample))
	retried := c.with("Authorization", "Bearer "+w.token, "X-Stainless-Retry-Count", "1")
	for range 2 {
		if id := retried.expect("POST", at+"/rotate_seed", "", 200, settings(sample)); id != newest {
			t.Errorf("asked for again the seed is %s, was %s", id, newest)
		}
	}
	others := c.with("Authorization", "Bearer "+other.Token, "X-Stainless-Retry-Count", "2").expect("POST", at+"/rotate_seed", "", 200, settings(sample))
	if others == newest {
		t.Error("another client that asks gets a rotation that it did not ask for")
	}
	if id := retried.expect("POST", at+"/rotate_seed", "", 200, settings(sample)); id == newest || id == others {
		t.Errorf("after another client's, the seed is %s", id)
	}
	c.expect("PUT", at, `{"public_key":""}`, 200, settings(""))
	for method, path := range map[string]string{"DELETE": at, "POST": at, "GET": at + "/rotate_seed"} {
		if status, text := c.do(method, path, ""); status != 405 || !strings.Contains(text, "7001") {
			t.Errorf("%s %s: %d %s", method, path, status, text)
		}
	}
}
