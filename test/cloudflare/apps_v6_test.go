package cloudflare

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/option"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

// zone is the only zone of the account.
func (s *server) zone() string { return s.account[16:] + s.account[:16] }

// absent is the id of nothing.
const absent = "1f4158e4-c12d-5097-a058-7bb2817e132b"

func emailRule(address string) zt.AccessRuleUnionParam {
	return zt.EmailRuleParam{Email: cloudflare.F(zt.EmailRuleEmailParam{Email: cloudflare.F(address)})}
}

func everyoneRule() []zt.AccessRuleUnionParam {
	return []zt.AccessRuleUnionParam{zt.EveryoneRuleParam{Everyone: cloudflare.F(zt.EveryoneRuleEveryoneParam{})}}
}

// ssh is an application of a domain.
func ssh(name, domain string) zt.AccessApplicationNewParamsBodySelfHostedApplication {
	return zt.AccessApplicationNewParamsBodySelfHostedApplication{
		Name: cloudflare.F(name), Domain: cloudflare.F(domain), Type: cloudflare.F(zt.ApplicationTypeSelfHosted),
	}
}

func TestApplications(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	apps := s.sdk().ZeroTrust.Access.Applications
	account := cloudflare.F(s.account)
	criteria := []zt.AccessApplicationNewParamsBodyInfrastructureApplicationTargetCriterion{{
		Port: cloudflare.F(int64(22)), Protocol: cloudflare.F(zt.AccessApplicationNewParamsBodyInfrastructureApplicationTargetCriteriaProtocolSSH),
		TargetAttributes: cloudflare.F(map[string][]string{"hostname": {"Web-1", "db"}}),
	}}
	made, err := apps.New(ctx, zt.AccessApplicationNewParams{AccountID: account, Body: zt.AccessApplicationNewParamsBodyInfrastructureApplication{
		Name: cloudflare.F("infra"), Type: cloudflare.F(zt.ApplicationTypeInfrastructure), TargetCriteria: cloudflare.F(criteria),
		Policies: cloudflare.F([]zt.AccessApplicationNewParamsBodyInfrastructureApplicationPolicy{{
			Name: cloudflare.F("ops"), Decision: cloudflare.F(zt.DecisionAllow), Include: cloudflare.F([]zt.AccessRuleUnionParam{emailRule("Ann@example.com")}),
			ConnectionRules: cloudflare.F(zt.AccessApplicationNewParamsBodyInfrastructureApplicationPoliciesConnectionRules{
				SSH: cloudflare.F(zt.AccessApplicationNewParamsBodyInfrastructureApplicationPoliciesConnectionRulesSSH{
					Usernames: cloudflare.F([]string{"root", "deploy"}), AllowEmailAlias: cloudflare.F(true),
				}),
			}),
		}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	// The SDK tells types of application apart by fields that it does not know, of which
	// Cloudflare's answers have some too: its users read the type that they wrote.
	var infra zt.AccessApplicationNewResponseInfrastructureApplication
	if err := json.Unmarshal([]byte(made.JSON.RawJSON()), &infra); err != nil {
		t.Fatal(err)
	}
	if infra.Name != "infra" || len(infra.AUD) != 64 || len(infra.ID) != 36 || len(infra.TargetCriteria) != 1 || len(infra.Policies) != 1 {
		t.Fatalf("made %+v", made.JSON.RawJSON())
	}
	p := infra.Policies[0]
	email, _ := p.Include[0].AsUnion().(zt.EmailRule)
	if !reflect.DeepEqual(infra.TargetCriteria[0].TargetAttributes, map[string][]string{"hostname": {"Web-1", "db"}}) || infra.TargetCriteria[0].Port != 22 ||
		p.Name != "ops" || email.Email.Email != "Ann@example.com" || !reflect.DeepEqual(p.ConnectionRules.SSH.Usernames, []string{"root", "deploy"}) ||
		!p.ConnectionRules.SSH.AllowEmailAlias || p.CreatedAt.IsZero() || p.Exclude == nil || p.Require == nil {
		t.Errorf("made %s", made.JSON.RawJSON())
	}
	read, err := apps.Get(ctx, zt.AppIDParam(infra.ID), zt.AccessApplicationGetParams{ZoneID: cloudflare.F(s.zone())})
	if err != nil || read.JSON.RawJSON() != made.JSON.RawJSON() {
		t.Errorf("read %s, made %s: %v", read.JSON.RawJSON(), made.JSON.RawJSON(), err)
	}
	// Written without its policies it keeps them.
	changed, err := apps.Update(ctx, zt.AppIDParam(infra.ID), zt.AccessApplicationUpdateParams{AccountID: account, Body: zt.AccessApplicationUpdateParamsBodyInfrastructureApplication{
		Name: cloudflare.F("infra"), Type: cloudflare.F(zt.ApplicationTypeInfrastructure),
		TargetCriteria: cloudflare.F([]zt.AccessApplicationUpdateParamsBodyInfrastructureApplicationTargetCriterion{{
			Port: cloudflare.F(int64(2222)), Protocol: cloudflare.F(zt.AccessApplicationUpdateParamsBodyInfrastructureApplicationTargetCriteriaProtocolSSH),
			TargetAttributes: cloudflare.F(map[string][]string{"hostname": {"db"}}),
		}}),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var again zt.AccessApplicationUpdateResponseInfrastructureApplication
	if err := json.Unmarshal([]byte(changed.JSON.RawJSON()), &again); err != nil {
		t.Fatal(err)
	}
	if again.ID != infra.ID || again.AUD != infra.AUD || again.TargetCriteria[0].Port != 2222 || len(again.Policies) != 1 || again.Policies[0].ID != p.ID {
		t.Errorf("changed to %s", changed.JSON.RawJSON())
	}
	// What this SDK does not know, it hands on.
	s.own("POST", "/logins/allow", map[string]any{"user": "admin", "host": "web*", "login": "root"}, &struct{}{})
	list, err := apps.List(ctx, zt.AccessApplicationListParams{AccountID: account, Name: cloudflare.F("WEB*")})
	if err != nil || len(list.Result) != 1 || list.Result[0].Name != "web*:22" {
		t.Errorf("an application of the command line: %+v, %v", list, err)
	}

	s.fails("no criteria", 400, 12130, func() error {
		_, err := apps.New(ctx, zt.AccessApplicationNewParams{AccountID: account, Body: zt.AccessApplicationNewParamsBodyInfrastructureApplication{
			Name: cloudflare.F("x"), Type: cloudflare.F(zt.ApplicationTypeInfrastructure),
		}})
		return err
	})
	s.fails("another account's zone", 403, 10000, func() error {
		_, err := apps.Get(ctx, zt.AppIDParam(infra.ID), zt.AccessApplicationGetParams{ZoneID: account})
		return err
	})
	s.fails("no such application", 404, 11021, func() error {
		_, err := apps.Get(ctx, absent, zt.AccessApplicationGetParams{AccountID: account})
		return err
	})
	if asked := s.requests(func() {
		_, err = apps.Delete(ctx, zt.AppIDParam(infra.ID), zt.AccessApplicationDeleteParams{AccountID: account})
	}); err != nil || asked != 1 {
		t.Errorf("deleting: %d requests, %v", asked, err)
	}
	s.fails("deleting it twice", 404, 11021, func() error {
		_, err := apps.Delete(ctx, zt.AppIDParam(infra.ID), zt.AccessApplicationDeleteParams{AccountID: account})
		return err
	})
	s.fails("a token for something else", 403, 10000, func() error {
		_, err := s.sdk(option.WithAPIToken(s.newToken("reads", "Access: Apps and Policies Read"))).ZeroTrust.Access.Applications.New(ctx, zt.AccessApplicationNewParams{AccountID: account, Body: ssh("x", "x")})
		return err
	})
}

// Pages of 65 applications, below the account and the zone, and every filter.
func TestApplicationPages(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	apps := s.sdk().ZeroTrust.Access.Applications
	var first *zt.AccessApplicationNewResponse
	for i := range 65 {
		made, err := apps.New(ctx, zt.AccessApplicationNewParams{ZoneID: cloudflare.F(s.zone()), Body: ssh(fmt.Sprintf("App %d", i), fmt.Sprintf("app%d.example.com", i))})
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = made
		}
	}
	if !first.HTTPOnlyCookieAttribute || !first.AppLauncherVisible || first.SessionDuration != "24h" || first.Domain != "app0.example.com" {
		t.Errorf("made %s", first.JSON.RawJSON())
	}
	wants := func(what string, p zt.AccessApplicationListParams, count, asked int) {
		t.Helper()
		seen := map[string]bool{}
		got := s.requests(func() {
			pages := apps.ListAutoPaging(ctx, p)
			for pages.Next() {
				seen[pages.Current().ID] = true
			}
			if pages.Err() != nil {
				t.Error(pages.Err())
			}
		})
		if len(seen) != count || got != asked {
			t.Errorf("%s: %d applications by %d requests, want %d by %d", what, len(seen), got, count, asked)
		}
	}
	account, zone := cloudflare.F(s.account), cloudflare.F(s.zone())
	wants("by default", zt.AccessApplicationListParams{AccountID: account}, 65, 2)
	wants("of the zone", zt.AccessApplicationListParams{ZoneID: zone}, 65, 2)
	wants("by 20", zt.AccessApplicationListParams{AccountID: account, PerPage: cloudflare.F(int64(20))}, 65, 5)
	wants("a part of the name", zt.AccessApplicationListParams{AccountID: account, Name: cloudflare.F("app 1")}, 11, 2)
	wants("the name", zt.AccessApplicationListParams{AccountID: account, Name: cloudflare.F("App 1"), Exact: cloudflare.F(true)}, 1, 2)
	wants("a part of the domain", zt.AccessApplicationListParams{AccountID: account, Domain: cloudflare.F("APP6")}, 6, 2)
	wants("any of them", zt.AccessApplicationListParams{AccountID: account, Search: cloudflare.F("app64.")}, 1, 2)
	wants("the audience", zt.AccessApplicationListParams{AccountID: account, AUD: cloudflare.F(first.AUD)}, 1, 2)
	wants("no such host", zt.AccessApplicationListParams{AccountID: account, TargetAttributes: cloudflare.F("hostname=web-1")}, 0, 1)
}

func TestPolicies(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	access := s.sdk().ZeroTrust.Access
	account, zone := cloudflare.F(s.account), cloudflare.F(s.zone())
	var reusable []string
	for i := range 61 {
		p, err := access.Policies.New(ctx, zt.AccessPolicyNewParams{
			AccountID: account, Name: cloudflare.F(fmt.Sprint("policy ", i)), Decision: cloudflare.F(zt.DecisionAllow), Include: cloudflare.F(everyoneRule()), SessionDuration: cloudflare.F("24h"),
		})
		if err != nil || !bool(p.Reusable) || p.AppCount != 0 || p.SessionDuration != "24h" {
			t.Fatalf("made %+v: %v", p, err)
		}
		reusable = append(reusable, p.ID)
	}
	for size, want := range map[int64]int{20: 5, 1000: 2} {
		count := 0
		if asked := s.requests(func() {
			pages := access.Policies.ListAutoPaging(ctx, zt.AccessPolicyListParams{AccountID: account, PerPage: cloudflare.F(size)})
			for pages.Next() {
				count++
			}
		}); count != 61 || asked != want {
			t.Errorf("by %d: %d policies by %d requests, want 61 by %d", size, count, asked, want)
		}
	}
	app, err := access.Applications.New(ctx, zt.AccessApplicationNewParams{ZoneID: zone, Body: ssh("ssh", "ssh.example.com")})
	if err != nil {
		t.Fatal(err)
	}
	// The SDK has no fields for who is let in; so its users set them.
	body := func(name string) []option.RequestOption {
		return []option.RequestOption{
			option.WithJSONSet("name", name), option.WithJSONSet("decision", "deny"), option.WithJSONSet("include", []any{map[string]any{"ip": map[string]string{"ip": "192.0.2.0/24"}}}),
		}
	}
	own, err := access.Applications.Policies.New(ctx, app.ID, zt.AccessApplicationPolicyNewParams{AccountID: account, Precedence: cloudflare.F(int64(7))}, body("own")...)
	if err != nil || own.Precedence != 7 || own.Name != "own" || own.Decision != zt.DecisionDeny || len(own.Include) != 1 || own.CreatedAt.IsZero() {
		t.Fatalf("made %+v: %v", own, err)
	}
	s.fails("the same precedence", 400, 12130, func() error {
		_, err := access.Applications.Policies.New(ctx, app.ID, zt.AccessApplicationPolicyNewParams{ZoneID: zone, Precedence: cloudflare.F(int64(7))}, body("other")...)
		return err
	})
	s.fails("no such application", 404, 11021, func() error {
		_, err := access.Applications.Policies.New(ctx, absent, zt.AccessApplicationPolicyNewParams{ZoneID: zone}, body("other")...)
		return err
	})
	moved, err := access.Applications.Policies.Update(ctx, app.ID, own.ID, zt.AccessApplicationPolicyUpdateParams{ZoneID: zone, Precedence: cloudflare.F(int64(9))}, body("own")...)
	if err != nil || moved.Precedence != 9 || moved.ID != own.ID {
		t.Errorf("moved to %+v: %v", moved, err)
	}
	got, err := access.Applications.Policies.Get(ctx, app.ID, own.ID, zt.AccessApplicationPolicyGetParams{AccountID: account})
	if err != nil || got.Precedence != 9 || got.Name != "own" {
		t.Errorf("got %+v: %v", got, err)
	}
	count := 0
	for pages := access.Applications.Policies.ListAutoPaging(ctx, app.ID, zt.AccessApplicationPolicyListParams{ZoneID: zone}); pages.Next(); count++ {
		if pages.Current().ID != own.ID {
			t.Errorf("listed %+v", pages.Current())
		}
	}
	if count != 1 {
		t.Errorf("listed %d policies", count)
	}
	s.fails("an application's own among the reusable", 404, 12135, func() error {
		_, err := access.Policies.Get(ctx, own.ID, zt.AccessPolicyGetParams{AccountID: account})
		return err
	})
	if _, err := access.Applications.Policies.Delete(ctx, app.ID, own.ID, zt.AccessApplicationPolicyDeleteParams{AccountID: account}); err != nil {
		t.Error(err)
	}
	changed, err := access.Policies.Update(ctx, reusable[0], zt.AccessPolicyUpdateParams{
		AccountID: account, Name: cloudflare.F("changed"), Decision: cloudflare.F(zt.DecisionBypass), Include: cloudflare.F(everyoneRule()),
	})
	if err != nil || changed.Name != "changed" || changed.SessionDuration != "" {
		t.Errorf("changed to %+v: %v", changed, err)
	}
	if gone, err := access.Policies.Delete(ctx, reusable[0], zt.AccessPolicyDeleteParams{AccountID: account}); err != nil || gone.ID != reusable[0] {
		t.Errorf("deleted %+v: %v", gone, err)
	}
	s.fails("deleting it twice", 404, 12135, func() error {
		_, err := access.Policies.Delete(ctx, reusable[0], zt.AccessPolicyDeleteParams{AccountID: account})
		return err
	})
}

func TestGroups(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	groups := s.sdk().ZeroTrust.Access.Groups
	account, zone := cloudflare.F(s.account), cloudflare.F(s.zone())
	var ids []string
	for i := range 61 {
		g, err := groups.New(ctx, zt.AccessGroupNewParams{ZoneID: zone, Name: cloudflare.F(fmt.Sprint("group ", i)), Include: cloudflare.F([]zt.AccessRuleUnionParam{emailRule("a@example.com")})})
		if err != nil || len(g.ID) != 36 || len(g.Include) != 1 || g.Exclude == nil {
			t.Fatalf("made %+v: %v", g, err)
		}
		ids = append(ids, g.ID)
	}
	count := 0
	if asked := s.requests(func() {
		pages := groups.ListAutoPaging(ctx, zt.AccessGroupListParams{AccountID: account, PerPage: cloudflare.F(int64(25))})
		for pages.Next() {
			count++
		}
	}); count != 61 || asked != 4 {
		t.Errorf("listed %d groups by %d requests", count, asked)
	}
	set, err := groups.Update(ctx, ids[1], zt.AccessGroupUpdateParams{AccountID: account, Name: cloudflare.F("all"), Include: cloudflare.F([]zt.AccessRuleUnionParam{
		zt.GroupRuleParam{Group: cloudflare.F(zt.GroupRuleGroupParam{ID: cloudflare.F(ids[0])})},
	})})
	if err != nil || set.Name != "all" {
		t.Errorf("set to %+v: %v", set, err)
	}
	got, err := groups.Get(ctx, ids[1], zt.AccessGroupGetParams{ZoneID: zone})
	if rule, is := got.Include[0].AsUnion().(zt.GroupRule); err != nil || !is || rule.Group.ID != ids[0] {
		t.Errorf("got %+v: %v", got, err)
	}
	s.fails("one that a rule names", 400, 12130, func() error {
		_, err := groups.Delete(ctx, ids[0], zt.AccessGroupDeleteParams{AccountID: account})
		return err
	})
	if gone, err := groups.Delete(ctx, ids[1], zt.AccessGroupDeleteParams{ZoneID: zone}); err != nil || gone.ID != ids[1] {
		t.Errorf("deleted %+v: %v", gone, err)
	}
	s.fails("no such group", 404, 12135, func() error {
		_, err := groups.Get(ctx, ids[1], zt.AccessGroupGetParams{AccountID: account})
		return err
	})
}
