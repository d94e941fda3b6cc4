package cloudflare

import (
	"errors"
	"fmt"
	"reflect"
	"testing"

	old "github.com/cloudflare/cloudflare-go"
)

// The SDK before today's, below the account and the zone: what it writes comes back, it
// counts pages right, and tells each class of error by one request.
func TestOldApplications(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	api, err := old.NewWithAPIToken(s.token, old.BaseURL(s.url), old.HTTPClient(s.client()), old.UsingRateLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	account, zone := old.AccountIdentifier(s.account), old.ZoneIdentifier(s.zone())
	everyone := []any{map[string]any{"everyone": map[string]any{}}}

	alias := true
	var policies []string
	for i := range 61 {
		p, err := api.CreateAccessPolicy(ctx, account, old.CreateAccessPolicyParams{
			Name: fmt.Sprint("policy ", i), Decision: "allow", Include: everyone,
			InfrastructureConnectionRules: &old.AccessInfrastructureConnectionRules{SSH: &old.AccessInfrastructureConnectionRulesSSH{Usernames: []string{"root"}, AllowEmailAlias: &alias}},
		})
		if err != nil || p.Reusable == nil || !*p.Reusable || !reflect.DeepEqual(p.Include, everyone) || !*p.InfrastructureConnectionRules.SSH.AllowEmailAlias {
			t.Fatalf("made %+v: %v", p, err)
		}
		policies = append(policies, p.ID)
	}
	all, info, err := api.ListAccessPolicies(ctx, account, old.ListAccessPoliciesParams{})
	if err != nil || len(all) != 61 || info.Total != 61 {
		t.Errorf("listed %d policies, %+v: %v", len(all), info, err)
	}

	target := []old.AccessInfrastructureTargetContext{{TargetAttributes: map[string][]string{"hostname": {"Web-1"}}, Port: 22, Protocol: old.AccessInfrastructureSSH}}
	app, err := api.CreateAccessApplication(ctx, account, old.CreateAccessApplicationParams{Name: "infra", Type: old.Infrastructure, TargetContexts: &target, Policies: policies[:2]})
	if err != nil || len(app.AUD) != 64 || !reflect.DeepEqual(*app.TargetContexts, target) || len(app.Policies) != 2 || app.Policies[1].ID != policies[1] || app.Policies[1].Precedence != 2 {
		t.Fatalf("made %+v: %v", app, err)
	}
	own, err := api.CreateAccessPolicy(ctx, zone, old.CreateAccessPolicyParams{ApplicationID: app.ID, Name: "own", Decision: "allow", Include: everyone, Precedence: 5})
	if err != nil || own.Precedence != 5 || own.Reusable == nil || *own.Reusable {
		t.Fatalf("made %+v: %v", own, err)
	}
	// By its id alone each policy is what it was, in the order of the list.
	changed, err := api.UpdateAccessApplication(ctx, zone, old.UpdateAccessApplicationParams{ID: app.ID, Name: "infra", Type: old.Infrastructure, TargetContexts: &target, Policies: &[]string{own.ID, policies[1]}})
	if err != nil || len(changed.Policies) != 2 || changed.Policies[0].ID != own.ID || changed.Policies[0].Name != "own" || changed.Policies[0].Precedence != 1 || changed.AUD != app.AUD {
		t.Errorf("changed to %+v: %v", changed, err)
	}
	if kept, err := api.UpdateAccessApplication(ctx, account, old.UpdateAccessApplicationParams{ID: app.ID, Name: "infra", Type: old.Infrastructure, TargetContexts: &target}); err != nil || len(kept.Policies) != 2 {
		t.Errorf("written without its policies it is %+v: %v", kept, err)
	}
	own, err = api.UpdateAccessPolicy(ctx, account, old.UpdateAccessPolicyParams{ApplicationID: app.ID, PolicyID: own.ID, Name: "owned", Decision: "allow", Include: everyone, Precedence: 8})
	if err != nil || own.Name != "owned" || own.Precedence != 8 {
		t.Errorf("set to %+v: %v", own, err)
	}
	if got, err := api.GetAccessPolicy(ctx, zone, old.GetAccessPolicyParams{ApplicationID: app.ID, PolicyID: own.ID}); err != nil || !reflect.DeepEqual(got, own) {
		t.Errorf("got %+v, was %+v: %v", got, own, err)
	}
	if list, _, err := api.ListAccessPolicies(ctx, zone, old.ListAccessPoliciesParams{ApplicationID: app.ID}); err != nil || len(list) != 2 || list[1].ID != own.ID {
		t.Errorf("listed %+v: %v", list, err)
	}
	for i := range 60 {
		if _, err := api.CreateAccessApplication(ctx, zone, old.CreateAccessApplicationParams{Name: fmt.Sprint("ssh ", i), Type: old.SSH, Domain: fmt.Sprintf("%d.example.com", i)}); err != nil {
			t.Fatal(err)
		}
	}
	apps, info, err := api.ListAccessApplications(ctx, zone, old.ListAccessApplicationsParams{})
	if err != nil || len(apps) != 61 || info.Total != 61 {
		t.Errorf("listed %d applications, %+v: %v", len(apps), info, err)
	}
	// The SDK reads one page over the other, so that only the last entry is as it came.
	last := apps[len(apps)-1]
	read, err := api.GetAccessApplication(ctx, account, last.ID)
	if err != nil || !reflect.DeepEqual(read, last) || read.SessionDuration != "24h" || len(read.Destinations) != 1 || !*read.HttpOnlyCookieAttribute {
		t.Errorf("got %+v, listed %+v: %v", read, last, err)
	}

	var groups []old.AccessGroup
	for i := range 61 {
		g, err := api.CreateAccessGroup(ctx, account, old.CreateAccessGroupParams{Name: fmt.Sprint("group ", i), Include: everyone, Exclude: []any{}, Require: []any{}})
		if err != nil {
			t.Fatal(err)
		}
		groups = append(groups, g)
	}
	if list, info, err := api.ListAccessGroups(ctx, zone, old.ListAccessGroupsParams{}); err != nil || len(list) != 61 || !reflect.DeepEqual(list[60], groups[60]) || info.Total != 61 {
		t.Errorf("listed %d groups, %+v: %v", len(list), info, err)
	}
	set, err := api.UpdateAccessGroup(ctx, zone, old.UpdateAccessGroupParams{ID: groups[0].ID, Name: "set", Include: everyone})
	if err != nil || set.Name != "set" {
		t.Errorf("set to %+v: %v", set, err)
	}
	if got, err := api.GetAccessGroup(ctx, account, groups[0].ID); err != nil || !reflect.DeepEqual(got, set) {
		t.Errorf("got %+v, was %+v: %v", got, set, err)
	}

	var notFound *old.NotFoundError
	var badRequest *old.RequestError
	for what, test := range map[string]struct {
		as   any
		call func() error
	}{
		"no such application": {&notFound, func() error { _, err := api.GetAccessApplication(ctx, account, absent); return err }},
		"no such policy": {&notFound, func() error {
			return api.DeleteAccessPolicy(ctx, account, old.DeleteAccessPolicyParams{PolicyID: absent})
		}},
		"no such group": {&notFound, func() error { return api.DeleteAccessGroup(ctx, zone, absent) }},
		"no criteria": {&badRequest, func() error {
			_, err := api.CreateAccessApplication(ctx, account, old.CreateAccessApplicationParams{Name: "x", Type: old.Infrastructure})
			return err
		}},
		"a policy in use": {&badRequest, func() error {
			return api.DeleteAccessPolicy(ctx, account, old.DeleteAccessPolicyParams{PolicyID: policies[1]})
		}},
	} {
		var err error
		if asked := s.requests(func() { err = test.call() }); asked != 1 || !errors.As(err, test.as) {
			t.Errorf("%s: %d requests, and %T %v", what, asked, err, err)
		}
	}
	for what, err := range map[string]error{
		"the policy":      api.DeleteAccessPolicy(ctx, zone, old.DeleteAccessPolicyParams{ApplicationID: app.ID, PolicyID: own.ID}),
		"the application": api.DeleteAccessApplication(ctx, zone, app.ID),
		"a policy":        api.DeleteAccessPolicy(ctx, account, old.DeleteAccessPolicyParams{PolicyID: policies[0]}),
		"a group":         api.DeleteAccessGroup(ctx, account, groups[0].ID),
	} {
		if err != nil {
			t.Errorf("deleting %s: %v", what, err)
		}
	}
}
