package cloudflare

import (
	"fmt"
	"testing"

	"github.com/cloudflare/cloudflare-go/v6"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

func TestPolicyTests(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	api := s.sdk().ZeroTrust.Access.Applications
	var made struct{ ID string }
	for i := range 3 {
		s.own("POST", "/users", map[string]any{"name": fmt.Sprint("u", i), "email": fmt.Sprintf("u%d@example.com", i), "roles": []string{"Auditor"}}, &made)
	}
	one := func(rule zt.AccessRuleUnionParam) zt.AccessApplicationPolicyTestNewParamsPoliciesObject {
		return zt.AccessApplicationPolicyTestNewParamsPoliciesObject{
			Name: cloudflare.F("those"), Decision: cloudflare.F(zt.DecisionAllow), Include: cloudflare.F([]zt.AccessRuleUnionParam{rule}),
		}
	}
	begin := func(policies ...zt.AccessApplicationPolicyTestNewParamsPolicyUnion) (*zt.AccessApplicationPolicyTestNewResponse, error) {
		return api.PolicyTests.New(ctx, zt.AccessApplicationPolicyTestNewParams{AccountID: cloudflare.F(s.account), Policies: cloudflare.F(policies)})
	}
	begun, err := begin(one(zt.DomainRuleParam{EmailDomain: cloudflare.F(zt.DomainRuleEmailDomainParam{Domain: cloudflare.F("example.com")})}))
	if err != nil || begun.Status != zt.AccessApplicationPolicyTestNewResponseStatusSuccess {
		t.Fatalf("begun %+v, %v", begun, err)
	}
	test, err := api.PolicyTests.Get(ctx, begun.ID, zt.AccessApplicationPolicyTestGetParams{AccountID: cloudflare.F(s.account)})
	if err != nil || test.Status != zt.AccessApplicationPolicyTestGetResponseStatusComplete || test.TotalUsers != 4 || test.UsersApproved != 3 ||
		test.UsersBlocked != 1 || test.PercentApproved != 75 || test.PercentUsersProcessed != 100 {
		t.Errorf("%+v, %v", test, err)
	}
	users := func(status zt.AccessApplicationPolicyTestUserListParamsStatus) (seen []string) {
		pages := api.PolicyTests.Users.ListAutoPaging(ctx, begun.ID, zt.AccessApplicationPolicyTestUserListParams{
			AccountID: cloudflare.F(s.account), PerPage: cloudflare.F(int64(2)), Status: cloudflare.F(status),
		})
		for pages.Next() {
			seen = append(seen, pages.Current().Email+" "+string(pages.Current().Status))
		}
		if err := pages.Err(); err != nil {
			t.Error(err)
		}
		return seen
	}
	if approved := users(zt.AccessApplicationPolicyTestUserListParamsStatusSuccess); len(approved) != 3 {
		t.Errorf("approved %q", approved)
	}
	if blocked := users(zt.AccessApplicationPolicyTestUserListParamsStatusFail); len(blocked) != 1 || blocked[0] != " blocked" {
		t.Errorf("blocked %q", blocked)
	}
	s.fails("a policy without a rule", 400, 12130, func() error {
		_, err := begin(zt.AccessApplicationPolicyTestNewParamsPoliciesObject{Name: cloudflare.F("none"), Decision: cloudflare.F(zt.DecisionAllow), Include: cloudflare.F([]zt.AccessRuleUnionParam{})})
		return err
	})
	s.fails("no test", 404, 12135, func() error {
		_, err := api.PolicyTests.Get(ctx, "f1a8b3c9-d4e5-4678-9a0b-1c2d3e4f5678", zt.AccessApplicationPolicyTestGetParams{AccountID: cloudflare.F(s.account)})
		return err
	})

	s.own("POST", "/applications", map[string]any{
		"name": "servers", "type": "infrastructure", "criteria": []any{map[string]any{"port": 22, "include": map[string]any{"hostnames": []string{"*"}}}},
		"policies": []any{map[string]any{"name": "admins", "include": []string{"user:admin"}, "logins": []string{"root"}}},
	}, &made)
	check, err := api.UserPolicyChecks.List(ctx, made.ID, zt.AccessApplicationUserPolicyCheckListParams{AccountID: cloudflare.F(s.account)})
	if err != nil || check.AppState.AppUID != made.ID || check.AppState.Status != "approved" || len(check.AppState.Policies) != 1 || check.UserIdentity.Name != "admin" {
		t.Errorf("checked %+v, %v", check, err)
	}
}
