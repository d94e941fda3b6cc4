package policy_test

import (
	"encoding/json"
	"reflect"
	"testing"

	"keyturn/internal/policy"
	"keyturn/internal/trust"
)

// TestRulesAreWrittenBack reads rules as Cloudflare Access has them, writes them
// as text, and comes back to the same.
func TestRulesAreWrittenBack(t *testing.T) {
	t.Parallel()
	for wire, text := range map[string]string{
		`{"email":{"email":"Ann@Example.com"}}`:                              `email:Ann@Example.com`,
		`{"email_domain":{"domain":"example.com"}}`:                          `email_domain:example.com`,
		`{"everyone":{}}`:                                                    `everyone`,
		`{"group":{"id":"aa0a4aab-672b-4bdb-bc33-a59f"}}`:                    `group:aa0a4aab-672b-4bdb-bc33-a59f`,
		`{"ip":{"ip":"2001:DB8::/32"}}`:                                      `ip:2001:DB8::/32`,
		`{"ip_list":{"id":"1"}}`:                                             `ip_list:1`,
		`{"service_token":{"token_id":"1"}}`:                                 `service_token:1`,
		`{"any_valid_service_token":{}}`:                                     `any_valid_service_token`,
		`{"login_method":{"id":"1"}}`:                                        `login_method:1`,
		`{"certificate":{}}`:                                                 `certificate`,
		`{"common_name":{"common_name":"james@host"}}`:                       `common_name:james@host`,
		`{"auth_method":{"auth_method":"mfa"}}`:                              `auth_method:mfa`,
		`{"user":{"id":"1"}}`:                                                `user:1`,
		`{"geo":{"country_code":"US"}}`:                                      `geo:{"country_code":"US"}`,
		`{"azureAD":{"id":"1","identity_provider_id":""}}`:                   `azureAD:{"id":"1","identity_provider_id":""}`,
		`{"linked_app_token":{"app_uid":12345678901234567890,"x":[1,null]}}`: `linked_app_token:{"app_uid":12345678901234567890,"x":[1,null]}`,
		`{"oidc":{"claim_name":"https://x.test/groups","claim_value":"a=b","identity_provider_id":"1"}}`:        `oidc:1:https://x.test/groups=a=b`,
		`{"oidc":{"claim_name":"a=b","claim_value":"c","identity_provider_id":"1"}}`:                            `oidc:{"claim_name":"a=b","claim_value":"c","identity_provider_id":"1"}`,
		`{"common_name":{"common_name":"{x}"}}`:                                                                 `common_name:{"common_name":"{x}"}`,
		`{"github-organization":{"identity_provider_id":"1","name":"cloudflare","team":"strategic-alliances"}}`: `github-organization:{"identity_provider_id":"1","name":"cloudflare","team":"strategic-alliances"}`,
	} {
		var r policy.Rule
		if err := json.Unmarshal([]byte(wire), &r); err != nil {
			t.Errorf("%s: %v", wire, err)
			continue
		}
		if r.String() != text {
			t.Errorf("%s is %s, want %s", wire, r, text)
		}
		again, err := policy.ParseRule(text)
		if err != nil || again != r {
			t.Errorf("%s was read as %+v, %v, want %+v", text, again, err, r)
		}
		out, err := json.Marshal(again)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		var was, is any
		if json.Unmarshal([]byte(wire), &was) != nil || json.Unmarshal(out, &is) != nil || !reflect.DeepEqual(was, is) {
			t.Errorf("%s came back as %s", wire, out)
		}
	}
}

func TestBadRules(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", ":", "emial:ann@example.com", "email", "email:", "email:ann", "email:@example.com", "everyone:x", "ip:10.0.0.1/8", "ip:fe80::1%eth0", "ip:x",
		"oidc:1:groups", "oidc:1", "group:", "geo", "geo:[]", "geo:null", "geo:{", `ge o:{}`, `email:{"email":"a@b","also":"x"}`, `email:{"email":1}`, `group:{}`,
	} {
		if r, err := policy.ParseRule(text); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%q was read as %+v, %v", text, r, err)
		}
	}
	for _, wire := range []string{`[]`, `{}`, `null`, `"everyone"`, `{"everyone":{},"certificate":{}}`, `{"everyone":null}`, `{"geo":null}`, `{"geo":"x"}`, `{"":{}}`} {
		var r policy.Rule
		if err := json.Unmarshal([]byte(wire), &r); err == nil {
			t.Errorf("%s was read as %+v", wire, r)
		}
	}
}
