package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/need"
)

// An endpoint of api/v1 that changes something, with a request that would.
type endpoint struct {
	method, path string
	body         map[string]any
	// needs are the permissions without which it is refused; any one missing is
	// enough.
	needs []string
}

const someEd25519 = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDrHSRY6gfVVYLqjlTZaZrQ3s5Lpaj5Gn8KHEHQ8dVCt"

const someKey = "1f4158e4-c12d-5097-a058-7bb2817e132b"

func endpoints(w *world) []endpoint {
	private := w.read(w.ops)
	return []endpoint{
		{"POST", "/tokens", map[string]any{"name": "x", "permissions": []string{"Keys Read"}, "expires": "1h"}, []string{"Tokens Write"}},
		{"DELETE", "/tokens/0123456789abcdef0123456789abcdef", nil, []string{"Tokens Write"}},
		{"POST", "/tokens/0123456789abcdef0123456789abcdef/rotate", map[string]any{"overlap": "1h"}, []string{"Tokens Write"}},
		{"POST", "/users", map[string]any{"name": "x", "password": "a long password", "roles": []string{"Auditor"}, "permissions": []string{"Keys Read"}}, []string{"Users Write"}},
		{"PUT", "/users/x/rights", map[string]any{"roles": []string{"Auditor"}, "permissions": []string{"Keys Read"}}, []string{"Users Write"}},
		{"PUT", "/users/x/email", map[string]any{"email": "x@example.com"}, []string{"Users Write", "Access: Apps and Policies Write"}},
		{"PUT", "/users/x/password", map[string]any{"password": "a long password"}, []string{"Users Write", "Access: Apps and Policies Write"}},
		{"DELETE", "/users/x", nil, []string{"Users Write"}},
		{"DELETE", "/users/x/totp", nil, []string{"Users Write", "Access: Apps and Policies Write"}},
		{"POST", "/providers", map[string]any{
			"name": "x", "kind": "people", "issuer": "https://id.example.com", "client_id": "keyturn", "client_secret": "secret", "scopes": []string{"openid"},
			"name_claim": "email", "rules": []string{"groups=ops -> Auditor"}, "required": []string{"hd=example.com"},
		}, []string{"Users Write", "Access: Apps and Policies Write"}},
		{"PUT", "/providers/x", map[string]any{
			"kind": "machines", "issuer": "https://id.example.com", "audiences": []string{"keyturn"}, "rules": []string{"sub=x -> Auditor"}, "required": []string{"a=b"},
		}, []string{"Users Write", "Access: Apps and Policies Write"}},
		{"DELETE", "/providers/x", nil, []string{"Users Write"}},
		{"POST", "/providers/x/test", nil, []string{"Users Write"}},
		{"GET", "/providers", nil, []string{"Users Read"}},
		{"GET", "/applications", nil, []string{"Access: Apps and Policies Read"}},
		{"POST", "/applications", map[string]any{
			"name": "x", "type": "infrastructure", "domain": "", "criteria": []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{"web9"}}}},
			"providers": []string{"x"}, "policies": []any{map[string]any{"name": "x", "include": []string{"everyone"}, "logins": []string{"root"}}},
		}, []string{"Access: Apps and Policies Write"}},
		{"GET", "/applications/x", nil, []string{"Access: Apps and Policies Read"}},
		{"PUT", "/applications/x", map[string]any{"name": "x", "type": "ssh", "domain": "ssh.example.com"}, []string{"Access: Apps and Policies Write"}},
		{"POST", "/applications/x/policies", map[string]any{
			"name": "x", "precedence": 7, "decision": "allow", "include": []string{"everyone"}, "require": []string{"certificate"}, "exclude": []string{"ip:192.0.2.1"},
			"logins": []string{"root"}, "email_alias": true,
		}, []string{"Access: Apps and Policies Write"}},
		{"GET", "/policies", nil, []string{"Access: Apps and Policies Read"}},
		{"POST", "/policies", map[string]any{"name": "x", "include": []string{"everyone"}}, []string{"Access: Apps and Policies Write"}},
		{"GET", "/policies/" + someKey, nil, []string{"Access: Apps and Policies Read"}},
		{"PATCH", "/applications/x", map[string]any{
			"name": "x", "domain": "d", "providers": []string{someKey},
			"criterion": map[string]any{
				"port": 22, "hostnames": []string{"web*"}, "tags": map[string]any{"a": []string{"b"}}, "require_tags": map[string]any{"a": []string{"b"}},
				"except_hostnames": []string{"web9"}, "except_tags": map[string]any{"a": []string{"c"}},
			},
		}, []string{"Access: Apps and Policies Write"}},
		{"PATCH", "/policies/" + someKey, map[string]any{
			"name": "x", "precedence": 1, "decision": "allow", "include": []string{"everyone"}, "require": []string{"everyone"}, "exclude": []string{"everyone"},
			"logins": []string{"root"}, "email_alias": true,
		}, []string{"Access: Apps and Policies Write"}},
		{"PUT", "/policies/" + someKey, map[string]any{"name": "x", "include": []string{"everyone"}}, []string{"Access: Apps and Policies Write"}},
		{"PUT", "/applications/x/policies/" + someKey, map[string]any{"precedence": 1}, []string{"Access: Apps and Policies Write"}},
		{"DELETE", "/applications/x/policies/" + someKey, nil, []string{"Access: Apps and Policies Write"}},
		{"DELETE", "/policies/" + someKey, nil, []string{"Access: Apps and Policies Write"}},
		{"POST", "/logins/allow", map[string]any{"user": "x", "host": "web9", "login": "root", "port": 22}, []string{"Access: Apps and Policies Write"}},
		{"POST", "/logins/test", map[string]any{"user": "x", "host": "web9", "login": "root", "port": 22, "source": "192.0.2.1", "application": "x"}, []string{"Access: Apps and Policies Read", "Users Read", "Hosts Read"}},
		{"DELETE", "/applications/x", nil, []string{"Access: Apps and Policies Write"}},
		{"GET", "/groups", nil, []string{"Access: Organizations, Identity Providers, and Groups Read"}},
		{"POST", "/groups", map[string]any{"name": "x", "include": []string{"everyone"}, "require": []string{"certificate"}, "exclude": []string{"ip:192.0.2.1"}}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"GET", "/groups/x", nil, []string{"Access: Organizations, Identity Providers, and Groups Read"}},
		{"PUT", "/groups/x", map[string]any{"name": "x", "include": []string{"everyone"}}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"DELETE", "/groups/x", nil, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"GET", "/ip-lists", nil, []string{"Access: Organizations, Identity Providers, and Groups Read"}},
		{"POST", "/ip-lists", map[string]any{"name": "x", "addresses": []string{"192.0.2.1"}}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"GET", "/ip-lists/x", nil, []string{"Access: Organizations, Identity Providers, and Groups Read"}},
		{"PATCH", "/groups/x", map[string]any{"name": "x", "include": []string{"everyone"}, "require": []string{"everyone"}, "exclude": []string{"everyone"}}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"PATCH", "/ip-lists/x", map[string]any{"name": "x", "addresses": []string{"192.0.2.1"}}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"PUT", "/ip-lists/x", map[string]any{"name": "x", "addresses": []string{"192.0.2.1"}}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"DELETE", "/ip-lists/x", nil, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"POST", "/policy-tests", map[string]any{"policies": []any{map[string]any{"name": "x", "include": []string{"user:nobody"}}}}, []string{"Access: Policy Test Write"}},
		{"GET", "/policy-tests/" + someKey, nil, []string{"Access: Policy Test Read"}},
		{"GET", "/policy-tests/" + someKey + "/users", nil, []string{"Access: Policy Test Read"}},
		{"GET", "/access-log", nil, []string{"Access: Audit Logs Read"}},
		{"GET", "/users", nil, []string{"Users Read"}},
		{"GET", "/users/x", nil, []string{"Users Read"}},
		{"PUT", "/roles/x", map[string]any{"permissions": []string{"Keys Read"}}, []string{"Users Write"}},
		{"DELETE", "/roles/x", nil, []string{"Users Write"}},
		{"GET", "/roles", nil, []string{"Users Read"}},
		{"POST", "/hosts", map[string]any{
			"name": "web9", "address": "127.0.0.1:1", "login": "root", "private_key": private, "password": "secret", "accept_new": true, "become": "none", "enforce": false, "dry_run": false,
		}, []string{"Hosts Write", "Keys Write"}},
		{"DELETE", "/hosts/web9", nil, []string{"Hosts Write"}},
		{"POST", "/hosts/web9/credentials", map[string]any{"key": someKey, "first": false}, []string{"Hosts Write", "Keys Write"}},
		{"DELETE", "/hosts/web9/credentials/" + someKey, nil, []string{"Hosts Write"}},
		{"POST", "/hosts/web9/enforce", nil, []string{"Hosts Write"}},
		{"POST", "/hosts/web9/inventory", nil, []string{"Hosts Write"}},
		{"POST", "/hosts/web9/confirm", map[string]any{"host_key": ""}, []string{"Hosts Write"}},
		{"POST", "/authorities", map[string]any{"name": "people", "purpose": "user", "type": "ed25519"}, []string{"Certificates Write"}},
		{"POST", "/authorities", map[string]any{"name": "one", "application": "nobody"}, []string{"Certificates Write", "Access: Apps and Policies Read"}},
		{"POST", "/authorities/people/rotate", map[string]any{"type": "ed25519", "overlap": "1h"}, []string{"Certificates Write"}},
		{"PATCH", "/authorities/people/profile", map[string]any{
			"valid": "5m", "max_valid": "24h", "key_types": []string{"ssh-ed25519"}, "min_rsa": 2048, "extensions": []string{"permit-pty"}, "critical_options": []string{"force-command"}, "max_principals": 8,
		}, []string{"Certificates Write"}},
		{"DELETE", "/authorities/nobody", nil, []string{"Certificates Write"}},
		{"GET", "/authorities", nil, []string{"Certificates Read"}},
		{"GET", "/authorities?application=nobody", nil, []string{"Certificates Read", "Access: Apps and Policies Read"}},
		{"GET", "/authorities/people", nil, []string{"Certificates Read"}},
		{"POST", "/certificates", map[string]any{
			"authority": "people", "public_key": someEd25519, "principals": []string{"deploy"}, "valid": "2m", "force_command": "id", "source_addresses": []string{"192.0.2.0/24"},
			"verify_required": false, "extensions": []string{"permit-pty"},
		}, []string{"Certificates Issue"}},
		{"POST", "/certificates/revoke", map[string]any{"key_id": "nobody", "reason": "lost"}, []string{"Certificates Write"}},
		{"GET", "/certificates", nil, []string{"Certificates Read"}},
		{"GET", "/certificates/4611686018427387981", nil, []string{"Certificates Read"}},
		{"GET", "/krl", nil, []string{"Certificates Read"}},
		{"POST", "/scans", map[string]any{"hosts": []string{"web9"}}, []string{"Hosts Write"}},
		{"POST", "/discoveries", map[string]any{"name": "nightly", "hosts": []string{"web9"}, "every": "1h", "daily": ""}, []string{"Hosts Write"}},
		{"GET", "/discoveries", nil, []string{"Hosts Read"}},
		{"GET", "/discoveries/nightly", nil, []string{"Hosts Read"}},
		{"DELETE", "/discoveries/nightly", nil, []string{"Hosts Write"}},
		{"POST", "/keys", map[string]any{"type": "ed25519", "bits": 0, "comment": "c", "owner": "ops", "purpose": "p", "labels": []string{"a=b"}, "expires": "90d"}, []string{"Keys Write"}},
		{"PATCH", "/keys/" + someKey, map[string]any{"owner": "ops", "purpose": "p", "labels": []string{"a=b"}, "unlabel": []string{"c"}, "expires": "never"}, []string{"Keys Write"}},
		{"DELETE", "/keys/" + someKey, nil, []string{"Keys Write"}},
		{"POST", "/keys/" + someKey + "/restore", nil, []string{"Keys Write"}},
		{"GET", "/agent/keys", nil, []string{"Keys Use"}},
		{"POST", "/keys/" + someKey + "/signatures", map[string]any{"data": "AAAA", "algorithm": "ssh-ed25519", "host_key": "SHA256:" + strings.Repeat("A", 43), "forwarded": false}, []string{"Keys Use"}},
		{"GET", "/keys/" + someKey + "/users", nil, []string{"Keys Read"}},
		{"POST", "/keys/" + someKey + "/users", map[string]any{"allow": []string{"admin"}, "disallow": []string{}, "everybody": false}, []string{"Keys Write", "Users Write"}},
		{"POST", "/keys/" + someKey + "/supply", map[string]any{"public_key": strings.TrimSpace(w.read(w.ops + ".pub"))}, []string{"Keys Supply"}},
		{"POST", "/keys/" + someKey + "/reveal", map[string]any{"format": "openssh", "passphrase": "secret", "plain": false}, []string{"Keys Reveal"}},
		{"POST", "/keys/" + someKey + "/reveal/approve", map[string]any{"user": "alice"}, []string{"Keys Reveal"}},
		{"POST", "/rotations", map[string]any{"keys": []string{someKey}, "soak": "1h", "canary": 1, "dry_run": false, "share": false, "compromised": false}, []string{"Keys Write"}},
		{"POST", "/rollbacks", map[string]any{"keys": []string{someKey}, "current": false, "force": false, "soak": "1h"}, []string{"Keys Write", "Runs Write"}},
		{"POST", "/retirements", map[string]any{"keys": []string{someKey}}, []string{"Keys Write", "Runs Write"}},
		{"POST", "/runs/" + someKey + "/pause", nil, []string{"Runs Write"}},
		{"POST", "/runs/" + someKey + "/resume", nil, []string{"Runs Write"}},
		{"POST", "/runs/" + someKey + "/back", map[string]any{"soak": "1h"}, []string{"Runs Write"}},
		{"POST", "/runs/" + someKey + "/leave", map[string]any{"place": "p", "unreachable": false}, []string{"Runs Write"}},
		{"POST", "/runs/" + someKey + "/approve", nil, []string{"Runs Write"}},
		{"POST", "/settings/rotation.approval/approve", nil, []string{"Settings Write"}},
		{"POST", "/runs/" + someKey + "/back/approve", map[string]any{"user": "alice"}, []string{"Keys Write", "Runs Write"}},
		{"GET", "/approvals", nil, []string{"Runs Read"}},
		{"POST", "/approvals/" + someKey + "/refuse", nil, []string{"Runs Read"}},
		{"POST", "/runs/pause", nil, []string{"Runs Write"}},
		{"POST", "/runs/resume", nil, []string{"Runs Write"}},
		{"PUT", "/settings/rotation.soak", map[string]any{"value": "2h"}, []string{"Settings Write"}},
		{"POST", "/kek/rotate", nil, []string{"All"}},
		{"POST", "/kek/rotate-data", nil, []string{"All"}},
		{"GET", "/kek", nil, []string{"Settings Read"}},
		{"POST", "/logout", nil, nil},
		{"GET", "/whoami", nil, nil},
		{"GET", "/permissions", nil, nil},
		{"POST", "/totp", nil, nil},
		{"POST", "/totp/confirm", map[string]any{"code": "123456"}, nil},
		{"GET", "/account", nil, []string{"Account Read"}},
		{"GET", "/accounts", nil, []string{"All"}},
		{"POST", "/accounts", map[string]any{"name": "emea", "password": "a long password"}, []string{"All"}},
		{"GET", "/tokens", nil, []string{"Tokens Read"}},
		{"GET", "/hosts", nil, []string{"Hosts Read"}},
		{"GET", "/hosts/web9", nil, []string{"Hosts Read"}},
		{"GET", "/hosts/web9/known-hosts", nil, []string{"Hosts Read"}},
		{"GET", "/keys", nil, []string{"Keys Read"}},
		{"GET", "/keys/" + someKey, nil, []string{"Keys Read"}},
		{"GET", "/keys/" + someKey + "/public", nil, []string{"Keys Read"}},
		{"GET", "/runs", nil, []string{"Runs Read"}},
		{"GET", "/runs/" + someKey, nil, []string{"Runs Read"}},
		{"GET", "/runs/" + someKey + "/places", nil, []string{"Runs Read"}},
		{"GET", "/findings", nil, []string{"Hosts Read"}},
		{"GET", "/settings", nil, []string{"Settings Read"}},
		{"GET", "/targets", nil, []string{"Zero Trust Read"}},
		{"POST", "/targets", map[string]any{
			"hostname": "web9", "addresses": []any{map[string]any{"ip": "192.0.2.9", "network": ""}}, "tags": map[string]any{"env": "prod"},
		}, []string{"Zero Trust Write"}},
		{"GET", "/targets/web9", nil, []string{"Zero Trust Read"}},
		{"PATCH", "/targets/web9", map[string]any{
			"hostname": "web9", "addresses": []any{map[string]any{"ip": "192.0.2.9"}}, "tags": map[string]any{"env": "prod"}, "untag": []string{"old"},
		}, []string{"Zero Trust Write"}},
		{"DELETE", "/targets/web9", nil, []string{"Zero Trust Write"}},
		{"GET", "/jwks", nil, []string{"Access: Organizations, Identity Providers, and Groups Read"}},
		{"PUT", "/jwks", map[string]any{"rotate_after_days": 30}, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"POST", "/jwks/rotate", nil, []string{"Access: Organizations, Identity Providers, and Groups Write"}},
		{"GET", "/seed", nil, []string{"Zero Trust Read"}},
		{"POST", "/seed/rotate", map[string]any{"compromised": false}, []string{"Zero Trust Write"}},
		{"GET", "/seed/keys", nil, []string{"Zero Trust Read"}},
		{"GET", "/known-hosts", nil, []string{"Zero Trust Read"}},
		{"POST", "/seed/certificates", map[string]any{"host": "web9", "authority": "hosts"}, []string{"Zero Trust Read", "Certificates Issue"}},
		{"GET", "/ssh-settings", nil, []string{"Zero Trust Read"}},
		{"PUT", "/ssh-settings", map[string]any{"audit_key": ""}, []string{"Zero Trust Write"}},
	}
}

// openEndpoints are those that need no credential.
func openEndpoints() []endpoint {
	return []endpoint{
		{"POST", "/login/password", map[string]any{"user": "nobody", "password": "guess", "code": "123456"}, nil},
		{"GET", "/login/providers", nil, nil},
		{"POST", "/login/oidc/begin", map[string]any{"provider": "nobody", "listener": "http://127.0.0.1:1", "challenge": strings.Repeat("A", 43)}, nil},
		{"POST", "/login/oidc/finish", map[string]any{"state": strings.Repeat("A", 43), "code": "x", "verifier": strings.Repeat("A", 43)}, nil},
		{"POST", "/login/oidc/device", map[string]any{"provider": "nobody"}, nil},
		{"POST", "/login/oidc/device/poll", map[string]any{"device_code": "x"}, nil},
		{"POST", "/login/oidc/token", map[string]any{"provider": "nobody", "token": "a.b.c"}, nil},
	}
}

// ask sends a request as it is and returns the answer, which is a problem where
// it is no success.
func (w *world) ask(token, method, path, body string) (status int, p problem, raw string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, "http://"+w.node.address+"/api/v1"+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
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
	if resp.StatusCode >= 300 {
		if err := json.Unmarshal(data, &p); err != nil || p.Kind == "" || p.Detail == "" || resp.Header.Get("Content-Type") != "application/problem+json" {
			w.t.Errorf("%s %s: %d %s %.200s is no problem document", method, path, resp.StatusCode, resp.Header.Get("Content-Type"), data)
		}
	}
	return resp.StatusCode, p, string(data)
}

// A badRequest is one that every server has to refuse.
type badRequest struct{ token, method, path, body string }

// badRequests returns twenty and more bad requests to an endpoint: by who may not ask, by
// methods and paths and queries that there are not, and, where it has them, by names in
// its path and bodies that cannot be.
func (e endpoint) badRequests(t *testing.T, w *world) (list []badRequest) {
	t.Helper()
	good := ""
	if e.body != nil {
		data, err := json.Marshal(e.body)
		if err != nil {
			t.Fatal(err)
		}
		good = string(data)
	}
	if !strings.HasPrefix(e.path, "/login/") {
		for _, token := range []string{"", "x", "kt_", "kt_" + strings.Repeat("0", 49), w.token[:51] + "!", w.token + "x", "ktl_" + strings.Repeat("0", 49)} {
			list = append(list, badRequest{token, e.method, e.path, good})
		}
	}
	for _, method := range []string{"PROPFIND", "TRACE", "get"} {
		list = append(list, badRequest{w.token, method, e.path, good})
	}
	for _, path := range []string{e.path + "/", e.path + "/nothing/here", "/x" + e.path, strings.ToUpper(e.path), e.path + "%00"} {
		list = append(list, badRequest{w.token, e.method, path, good})
	}
	for _, query := range []string{"no_such=1", "limit=0", "limit=1001", "limit=x", "limit=-1", "after=garbage", "format=xml", "=x", "no_such", "limit=1&limit=x", "after=%zz", "after=garbage&no_such=1"} {
		list = append(list, badRequest{w.token, e.method, e.path + "?" + query, good})
	}
	if parts := strings.SplitN(e.path, "/", 4); len(parts) > 2 && len(parts[2]) > 0 && !e.isVerb(parts[2]) {
		for _, name := range []string{"%00", "a%20b", "%2e%2e", "%ff", "%0a", strings.Repeat("x", 300)} {
			parts[2] = name
			list = append(list, badRequest{w.token, e.method, strings.Join(parts, "/"), good})
		}
	}
	if e.body == nil {
		return list
	}
	for _, body := range []string{"", "{", "null", "[]", "7", `"x"`, `{"a":}`, `{"no_such_field":1}`, "\x00", strings.Repeat("[", 10_000), "{} {}"} {
		list = append(list, badRequest{w.token, e.method, e.path, body})
	}
	change := func(name string, value any) {
		body := maps.Clone(e.body)
		body[name] = value
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, badRequest{w.token, e.method, e.path, string(data)})
	}
	change("no_such_field", 1)
	for name := range e.body {
		for _, wrong := range []any{map[string]any{"x": 1}, []any{[]any{}}, 1e300, strings.Repeat("x", 2<<20)} {
			change(name, wrong)
		}
	}
	return list
}

// isVerb reports whether what stands second in the path is no name of a thing.
func (endpoint) isVerb(part string) bool {
	return slices.Contains([]string{"pause", "resume", "rotate", "rotate-data", "keys", "password", "providers", "oidc", "revoke"}, part)
}

// Every bad request gets a documented error, and starts and changes nothing.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	before := w.inventoryOf(w.token)
	var all []badRequest
	for _, e := range append(endpoints(w), openEndpoints()...) {
		list := e.badRequests(t, w)
		if len(list) < 20 {
			t.Errorf("%s %s: only %d bad requests", e.method, e.path, len(list))
		}
		all = append(all, list...)
	}
	for _, bad := range need.Share(t, 1500, all...) {
		status, p, text := w.ask(bad.token, bad.method, bad.path, bad.body)
		if status < 400 || status >= 500 || strings.Contains(text, "$1") {
			t.Errorf("%s %.200s %.80s: %d %+v", bad.method, bad.path, bad.body, status, p)
		}
	}
	for _, bad := range []struct{ method, path, body, says string }{
		{"POST", "/rotations", `{"keys":["nonsense"]}`, "is not a UUID"},
		{"POST", "/rotations", `{"keys":["` + someKey + `"]}`, "there is no key"},
		{"POST", "/rotations", `{"keys":["` + someKey + `"],"soak":"forever"}`, "is not a duration"},
		{"POST", "/rotations", `{"keys":["` + someKey + `"],"soak":"-1s"}`, "is not a duration"},
		{"POST", "/rollbacks", `{"keys":["` + someKey + `"],"soak":"forever"}`, "is not a duration"},
		{"POST", "/rollbacks", `{"keys":["` + someKey + `"],"soak":"9000h"}`, "between 0 and a year"},
		{"POST", "/runs/" + someKey + "/back", `{"soak":"-1s"}`, "is not a duration"},
		{"POST", "/runs/" + someKey + "/back", `{"soak":"9000h"}`, "between 0 and a year"},
		{"POST", "/keys", `{"private_key":"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n"}`, "private key"},
		{"POST", "/keys", `{"private_key":""}`, "private key file is empty"},
		{"POST", "/keys", `{"private_key":null,"comment":"x"}`, "private_key is null"},
		{"POST", "/keys", `{"private_key":"x","type":"rsa"}`, "type and bits are for a key that is made"},
		{"POST", "/keys", `{"private_key":"x","bits":4096}`, "type and bits are for a key that is made"},
		{"POST", "/keys", `{"passphrase":"x"}`, "for a private key that is imported"},
		{"POST", "/keys", `{"type":"rsa","bits":1024}`, "1024"},
		{"POST", "/hosts", `{"name":"web 1","address":"127.0.0.1:1","login":"root","key":"` + someKey + `","accept_new":true}`, ""},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","accept_new":true}`, "needs one credential"},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","key":"` + someKey + `"}`, "no host key"},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","key":"` + someKey + `","host_key":"ssh-ed25519 AAAA"}`, "public key"},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:99999","login":"root","key":"` + someKey + `","accept_new":true}`, ""},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","password":"secret"}`, "no host key"},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","password":"` + strings.Repeat("x", 1025) + `","accept_new":true}`, ""},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","password":"secret","key":"` + someKey + `","accept_new":true}`, "there is no key"},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","key":"` + someKey + `","agent_key":"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIFw=","accept_new":true}`, "needs one credential"},
		{"POST", "/hosts", `{"name":"web1","address":"127.0.0.1:1","login":"root","agent_key":"ssh-ed25519 nonsense","accept_new":true}`, "public key"},
		{"POST", "/hosts/web1/credentials", `{}`, "a credential is the id"},
		{"POST", "/hosts/web1/credentials", `{"key":"` + someKey + `"}`, "there is no host"},
		{"DELETE", "/hosts/web1/credentials/" + someKey, ``, "there is no host"},
		{"POST", "/scans", `{"hosts":["nowhere"]}`, "there is no host"},
		{"POST", "/scans", `{}`, "no host to scan"},
		{"POST", "/scans", `{"hosts":[]}`, "no host is named"},
		{"POST", "/discoveries", `{"name":"a b"}`, "discovery name"},
		{"POST", "/discoveries", `{"name":"x"}`, "no host to scan"},
		{"POST", "/discoveries", `{"name":"x","hosts":["nowhere"]}`, "there is no host"},
		{"POST", "/discoveries", `{"name":"x","every":"1m"}`, "not between 5m0s and a year"},
		{"POST", "/discoveries", `{"name":"x","every":"often"}`, "is not a duration"},
		{"POST", "/discoveries", `{"name":"x","daily":"24:00"}`, "no time of a day"},
		{"POST", "/discoveries", `{"name":"x","daily":"03:00","every":"1h"}`, "either after a time, or at a time"},
		{"GET", "/discoveries/x", ``, "there is no discovery"},
		{"DELETE", "/discoveries/x", ``, "there is no discovery"},
		{"PUT", "/settings/rotation.soak", `{"value":"a while"}`, "is not a duration"},
		{"PUT", "/settings/rotation.proof", `{"value":"trust me"}`, "is none of"},
		{"PUT", "/settings/rotation.approval", `{"value":"yes"}`, "neither on nor off"},
		{"POST", "/settings/rotation.approval/approve", ``, "waits for approval"},
		{"POST", "/runs/" + someKey + "/approve", ``, "there is no run"},
		{"POST", "/runs/" + someKey + "/back/approve", `{"user":"admin"}`, "waits for approval"},
		{"POST", "/approvals/" + someKey + "/refuse", ``, "waits for approval"},
		{"PUT", "/settings/no.such", `{"value":"1"}`, "there is no setting"},
		{"POST", "/tokens", `{"name":"x","permissions":["Everything"]}`, "is none of"},
		{"POST", "/users", `{"name":"x"}`, "neither a role nor a permission"},
		{"POST", "/users", `{"name":"a b","roles":["Auditor"]}`, "user name"},
		{"POST", "/users", `{"name":"x","roles":["Auditor"],"password":"short"}`, "password"},
		{"POST", "/users", `{"name":"x","roles":["King"]}`, "there is no role"},
		{"POST", "/users", `{"name":"ADMIN","roles":["Auditor"]}`, "there already"},
		{"PUT", "/users/admin/rights", `{"roles":["Auditor"],"permissions":[]}`, "nobody would be left"},
		{"DELETE", "/users/admin", ``, "nobody would be left"},
		{"DELETE", "/users/nobody", ``, "there is no user"},
		{"PUT", "/roles/auditor", `{"permissions":["Keys Write"]}`, "cannot be changed"},
		{"DELETE", "/roles/nobody", ``, "there is no role"},
		{"POST", "/tokens/x/rotate", `{}`, "there is no token"},
		{"POST", "/tokens/x/rotate", `{"overlap":"a while"}`, "is not a duration"},
		{"POST", "/login/password", `{"user":"admin"}`, "password"},
		{"POST", "/login/password", `{"user":"","password":"x"}`, "user"},
		{"POST", "/login/password", `{"user":"admin","password":"wrong horse"}`, "not valid"},
		{"POST", "/login/oidc/begin", `{"provider":"nobody","listener":"http://127.0.0.1:1","challenge":"` + strings.Repeat("A", 43) + `"}`, "no identity provider"},
		{"POST", "/login/oidc/begin", `{"provider":"nobody","listener":"https://example.com","challenge":"x"}`, "is not of the form"},
		{"POST", "/login/oidc/finish", `{"state":"x","code":"x","verifier":"x"}`, "verifier"},
		{"POST", "/login/oidc/finish", `{"state":"x","code":"x","verifier":"` + strings.Repeat("x", 43) + `"}`, "has not begun here"},
		{"POST", "/login/oidc/device", `{"provider":"nobody"}`, "no identity provider"},
		{"POST", "/login/oidc/device/poll", `{"device_code":"x"}`, "has not begun here"},
		{"POST", "/login/oidc/token", `{"provider":"nobody","token":"x"}`, "no identity provider"},
		{"POST", "/login/oidc/token", `{"provider":"nobody","token":"` + strings.Repeat("x", 1<<16) + `"}`, ""},
		{"POST", "/providers", `{"name":"x","kind":"people","issuer":"http://id.example.com","client_id":"c","rules":["a=b -> Auditor"]}`, "is not https"},
		{"POST", "/providers", `{"name":"x","kind":"people","issuer":"https://id.example.com","client_id":"c","rules":["a -> Auditor"]}`, "is not of the form"},
		{"DELETE", "/providers/nobody", ``, "no identity provider"},
		{"POST", "/applications", `{"name":"a","type":"infrastructure"}`, "needs a criterion"},
		{"POST", "/applications", `{"name":"a","type":"infrastructure","criteria":[{"port":22,"include":{}}]}`, "includes no host"},
		{"POST", "/applications", `{"name":"a","type":"ssh","extra":[]}`, "not a JSON object"},
		{"POST", "/applications", `{"name":"a","type":"ssh","policies":[{"name":"p","include":["emial:a@b.c"]}]}`, "is not a kind of rule"},
		{"POST", "/applications", `{"name":"a","type":"ssh","policies":[{"name":"p","include":["everyone"],"precedence":1},{"name":"q","include":["everyone"],"precedence":1}]}`, "has the precedence 1 already"},
		{"POST", "/applications/nowhere/policies", `{"name":"p","include":["everyone"]}`, "there is no application"},
		{"GET", "/access-log?allowed=perhaps", ``, "allowed"},
		{"GET", "/access-log?action=signature", ``, "action"},
		{"GET", "/access-log?since=yesterday", ``, "since"},
		{"GET", "/authorities?application=nobody", ``, "there is no application"},
		{"POST", "/policy-tests", `{"policies":[]}`, "policies"},
		{"POST", "/policy-tests", `{"policies":[{"id":"` + someKey + `"}]}`, "there is no policy"},
		{"POST", "/policy-tests", `{"policies":[{"include":["everyone"]}]}`, "name"},
		{"GET", "/policy-tests/x", ``, "there is no test of policies"},
		{"GET", "/policy-tests/" + someKey + "/users?approved=perhaps", ``, "approved"},
		{"POST", "/policies", `{"name":"p","include":["user:nobody"]}`, "there is no user"},
		{"PATCH", "/policies/" + someKey, `{"precedence":0}`, "precedence"},
		{"PATCH", "/policies/" + someKey, `{"name":"x"}`, "there is no policy"},
		{"PATCH", "/applications/nowhere", `{"name":""}`, "name"},
		{"PATCH", "/applications/nowhere", `{"criterion":{"port":0}}`, "port"},
		{"PATCH", "/groups/nobody", `{"include":["everyone"]}`, "there is no group"},
		{"PATCH", "/ip-lists/nowhere", `{"addresses":["192.0.2.1"]}`, "there is no ip list"},
		{"POST", "/policies", `{"name":"p","include":["group:nobody"]}`, "there is no group"},
		{"POST", "/policies", `{"name":"p","include":["everyone"],"logins":["a,b"]}`, "cannot be the name of an account"},
		{"POST", "/policies", `{"name":"p","include":[]}`, "no rule that includes"},
		{"POST", "/policies", `{"name":"p","include":["everyone"],"decision":"permit"}`, "is none of"},
		{"POST", "/ip-lists", `{"name":"l","addresses":["192.0.2.1/24"]}`, "beyond its mask"},
		{"POST", "/logins/allow", `{"user":"admin","host":"a b","login":"root"}`, "neither a hostname"},
		{"POST", "/logins/test", `{"user":"admin","host":"web1","login":"root","source":"here"}`, "is not an address"},
		{"POST", "/providers/nobody/test", ``, "no identity provider"},
		{"POST", "/totp", ``, "no user in person"},
		{"POST", "/totp/confirm", `{"code":"123456"}`, "no user in person"},
		{"DELETE", "/users/nobody/totp", ``, "there is no user"},
		{"GET", "/keys/" + someKey + "/public?format=xml", ``, "format"},
		{"GET", "/keys/" + someKey + "/public", ``, "there is no key"},
		{"GET", "/keys/" + someKey + "/users", ``, "there is no key"},
		{"POST", "/keys/" + someKey + "/users", `{}`, "say either which users"},
		{"POST", "/keys/" + someKey + "/users", `{"allow":["admin"],"everybody":true}`, "say either which users"},
		{"POST", "/keys/" + someKey + "/users", `{"allow":["admin"]}`, "there is no key"},
		{"POST", "/keys/" + someKey + "/signatures", `{"data":"AAAA"}`, "nothing else is signed"},
		{"POST", "/keys/" + someKey + "/signatures", `{"data":"` + strings.Repeat("A", 349_532) + `"}`, ""},
		{"POST", "/keys/" + someKey + "/signatures", `{"data":"AAAA","host_key":"MD5:x"}`, ""},
		{"GET", "/keys?limit=100000", ``, "limit"},
		{"GET", "/keys?label=team", ``, "is not of the form name=value"},
		{"PATCH", "/keys/" + someKey, `{"owner":"x"}`, "there is no key"},
		{"POST", "/keys/" + someKey + "/reveal", `{"plain":true}`, "there is no key"},
		{"POST", "/keys/" + someKey + "/reveal", `{}`, "give a passphrase"},
		{"POST", "/keys/" + someKey + "/reveal", `{"passphrase":"x","plain":true}`, "give a passphrase"},
		{"POST", "/keys/" + someKey + "/reveal", `{"passphrase":"x","format":"pkcs8"}`, "unencrypted only"},
		{"POST", "/keys/" + someKey + "/reveal", `{"passphrase":"` + strings.Repeat("x", 1025) + `"}`, "passphrase"},
		{"POST", "/keys/" + someKey + "/reveal", `{"plain":true,"format":"putty"}`, "format"},
		{"POST", "/keys/" + someKey + "/reveal/approve", `{"user":"admin"}`, "there is no key"},
		{"POST", "/keys", `{"labels":["a b=c"]}`, "label name"},
		{"POST", "/keys", `{"labels":["a=-c"]}`, "of label a is not"},
		{"POST", "/keys", `{"labels":["a"]}`, "is not of the form name=value"},
		{"POST", "/keys", `{"expires":"soon"}`, "is neither a time such as 90d"},
		{"POST", "/keys", `{"expires":"2001-01-01"}`, "is not between now and a hundred years"},
		{"POST", "/keys", `{"expires":"99999999d"}`, "is neither a time"},
		{"POST", "/keys", `{"owner":"a\u001b[31m"}`, "not printable"},
		{"POST", "/keys", `{"purpose":"` + strings.Repeat("x", 257) + `"}`, "purpose"},
		{"GET", "/hosts/nowhere/known-hosts", ``, "there is no host"},
		{"GET", "/hosts/nowhere/known-hosts?limit=0", ``, "limit"},
		{"GET", "/keys?colour=red", ``, "colour"},
		{"GET", "/keys?after=garbage", ``, ""},
		{"POST", "/authorities", `{"name":"a b"}`, "of an authority is not"},
		{"POST", "/authorities", `{"name":"x","purpose":"everything"}`, "purpose"},
		{"POST", "/authorities", `{"name":"x","type":"rsa-1024"}`, "type"},
		{"POST", "/authorities", `{"name":"x","application":"nobody"}`, "there is no application"},
		{"POST", "/authorities/nobody/rotate", `{}`, "there is no authority"},
		{"POST", "/authorities/nobody/rotate", `{"type":"ed25519","overlap":"9000h"}`, "is more than"},
		{"POST", "/authorities/nobody/rotate", `{"overlap":"a while"}`, "is not a duration"},
		{"PATCH", "/authorities/nobody/profile", `{"min_rsa":4096}`, "there is no authority"},
		{"PATCH", "/authorities/nobody/profile", `{}`, "nothing of the profile is to change"},
		{"PATCH", "/authorities/nobody/profile", `{"valid":"a while"}`, "is not a duration"},
		{"PATCH", "/authorities/nobody/profile", `{"max_principals":0}`, "max_principals"},
		{"GET", "/authorities/nobody", ``, "there is no authority"},
		{"GET", "/authorities?after=garbage", ``, "is not where a page ended"},
		{"GET", "/certificates?after=garbage", ``, "is not where a page ended"},
		{"GET", "/certificates?user=nobody", ``, "there is no user"},
		{"GET", "/certificates/0", ``, "serial"},
		{"GET", "/certificates/18446744073709551615", ``, "there is no certificate"},
		{"GET", "/certificates/99999999999999999999", ``, "there is no certificate"},
		{"POST", "/certificates", `{"authority":"nobody","public_key":"` + someEd25519 + `","principals":["deploy"]}`, "there is no authority"},
		{"POST", "/certificates", `{"authority":"nobody","public_key":"ssh-ed25519 AAAA","principals":["deploy"]}`, "public key"},
		{"POST", "/certificates", `{"authority":"nobody","public_key":"` + someEd25519 + `","principals":[]}`, "principals"},
		{"POST", "/certificates", `{"authority":"nobody","public_key":"` + someEd25519 + `","principals":["deploy"],"valid":"-1s"}`, "is not a duration"},
		{"POST", "/certificates/revoke", `{}`, "say one of"},
		{"POST", "/certificates/revoke", `{"serial":"5","key_id":"x"}`, "say one of"},
		{"POST", "/certificates/revoke", `{"serial":"5"}`, "there is no certificate"},
		{"POST", "/certificates/revoke", `{"user":"nobody"}`, "there is no user"},
		{"POST", "/certificates/revoke", `{"public_key":"nonsense"}`, "public key"},
		{"GET", "/no/such/thing", ``, "there is no"},
		{"GET", "/runs/x?wait=long", ``, "is not a duration"},
	} {
		status, p, _ := w.ask(w.token, bad.method, bad.path, bad.body)
		if status < 400 || status >= 500 || !strings.Contains(p.Detail, bad.says) {
			t.Errorf("%s %s %s: %d %+v, want it to say %q", bad.method, bad.path, bad.body, status, p, bad.says)
		}
	}
	if after := w.inventoryOf(w.token); after != before {
		t.Errorf("bad requests made\n%s\nof\n%s", after, before)
	}
}

// Every verb is refused without a credential, with a wrong one, and with one
// that may do everything but that.
func TestPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	all := []string{
		"Account Read", "Users Read", "Users Write", "Tokens Read", "Tokens Write", "Hosts Read", "Hosts Write", "Keys Read", "Keys Write",
		"Keys Supply", "Keys Use", "Keys Reveal", "Runs Read", "Runs Write", "Settings Read", "Settings Write", "Audit Read", "Metrics Read",
		"Certificates Read", "Certificates Write", "Certificates Issue",
		"Zero Trust Read", "Zero Trust Write", "Access: Apps and Policies Read", "Access: Apps and Policies Write", "Access: SSH Auditing Read", "Access: SSH Auditing Write",
		"Access: Organizations, Identity Providers, and Groups Read", "Access: Organizations, Identity Providers, and Groups Write",
		"Access: Audit Logs Read", "Access: Policy Test Read", "Access: Policy Test Write",
	}
	without := map[string]string{} // permission to a token that has all others
	for _, p := range append(all[:len(all):len(all)], "All") {
		args := []string{"token", "create", "without " + p}
		for _, other := range all {
			// A Write includes the Read of its noun.
			if other != p && other != strings.Replace(p, " Read", " Write", 1) {
				args = append(args, "--permission", other)
			}
		}
		var token tokenJSON
		w.json(&token, args...)
		without[p] = token.Token
	}
	for _, e := range endpoints(w) {
		body, err := json.Marshal(e.body)
		if err != nil {
			t.Fatal(err)
		}
		text := string(body)
		if e.body == nil {
			text = ""
		}
		for name, token := range map[string]string{"none": "", "forged": "kt_" + strings.Repeat("0", 49), "not a token": "x"} {
			if status, p, _ := w.ask(token, e.method, e.path, text); status != 401 {
				t.Errorf("%s %s with %s: %d %+v, want 401", e.method, e.path, name, status, p)
			}
		}
		for _, p := range e.needs {
			if status, answer, _ := w.ask(without[p], e.method, e.path, text); status != 403 {
				t.Errorf("%s %s without %q: %d %+v, want 403", e.method, e.path, p, status, answer)
			}
		}
	}
	if status, _, raw := w.ask("", "GET", "/openapi.json", ""); status != 200 || !strings.Contains(raw, `"openapi":"3.1.0"`) {
		t.Errorf("the API document: %d %.100s", status, raw)
	}
}

// A password comes from standard input, which has one use.
func TestPasswordOfStandardInput(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 0)
	for says, args := range map[string][]string{
		"holds no password":            {"--password-stdin"},
		"standard input can be one of": {"--password-stdin", "--passphrase-stdin", "--identity", w.ops},
		"unknown flag: --password":     {"--password", "secret"},
	} {
		code, _, errs := w.try(append([]string{"host", "add", "web9", "--address", "127.0.0.1:1", "--login", "root", "--accept-new"}, args...)...)
		if code == 0 || !strings.Contains(errs, says) {
			t.Errorf("host add %v: exit %d, %s; want it to say %q", args, code, errs, says)
		}
	}
	var hosts []hostJSON
	if w.json(&hosts, "host", "list"); len(hosts) != 0 {
		t.Errorf("hosts: %+v", hosts)
	}
}
