package policy_test

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"keyturn/internal/policy"
)

// infra is an application for every host at port 22 with one policy.
func infra(p policy.Policy) policy.Model {
	p.ID, p.Name = "p", "ops"
	if p.Action == "" {
		p.Action = policy.Allow
	}
	if p.SSH == nil {
		p.SSH = &policy.SSHRules{Usernames: []string{"deploy"}}
	}
	return policy.Model{Applications: []policy.Application{{
		ID: "a", Name: "servers", Type: policy.Infrastructure, Policies: []policy.Policy{p},
		Criteria: []policy.Criterion{{Protocol: policy.ProtocolSSH, Port: 22, Include: policy.Attributes{Hostnames: []string{"*"}}}},
	}}}
}

var (
	everyone = policy.Rule{Kind: policy.Everyone}
	geo      = policy.Rule{Kind: "geo", Fields: `{"country_code":"DE"}`}
	ann      = policy.Identity{Name: "ann", User: "1", Email: "Ann@Example.com", Provider: "idp", Methods: []string{"pwd"}}
	web1     = policy.Host{Hostname: "web1", Protocol: policy.ProtocolSSH, Port: 22}
)

func rules(list ...policy.Rule) []policy.Rule { return list }

// TestReasons holds the words that users read.
func TestReasons(t *testing.T) {
	t.Parallel()
	domain := policy.Rule{Kind: policy.EmailDomain, Value: "example.com"}
	hwk := policy.Rule{Kind: policy.AuthMethod, Value: "hwk"}
	office := policy.Rule{Kind: policy.IP, Value: "192.0.2.0/24"}
	for _, test := range []struct {
		name    string
		policy  policy.Policy
		who     policy.Identity
		host    policy.Host
		login   string
		allowed bool
		why     string
	}{
		{
			name: "let in", policy: policy.Policy{Expression: policy.Expression{Include: rules(geo, domain)}}, allowed: true,
			why: `policy "ops" of application "servers" includes email_domain:example.com, and lets ann in as deploy`,
		},
		{
			name: "no host", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone)}},
			host: policy.Host{Hostname: "web1", Protocol: policy.ProtocolSSH, Port: 2222},
			why:  `no application stands for host "web1" at port 2222`,
		},
		{
			name: "not included", policy: policy.Policy{Expression: policy.Expression{Include: rules(policy.Rule{Kind: policy.Email, Value: "bob@example.com"})}},
			why: `application "servers" has no policy that includes ann`,
		},
		{
			name: "not required", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone), Require: rules(hwk)}},
			why: `policy "ops" of application "servers" does not apply to ann: it requires auth_method:hwk, which does not hold`,
		},
		{
			name: "excluded", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone), Exclude: rules(domain)}},
			why: `policy "ops" of application "servers" does not apply to ann: it excludes email_domain:example.com`,
		},
		{
			name: "not known", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone), Exclude: rules(office)}},
			why: `policy "ops" of application "servers" does not apply to ann: it excludes ip:192.0.2.0/24, and what that asks for is not known of who asks`,
		},
		{
			name: "not decided", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone), Require: rules(geo)}},
			why: `policy "ops" of application "servers" does not apply to ann: it requires geo:{"country_code":"DE"}, of which nobody can tell whether it holds: rules of this kind are kept for others, and not decided`,
		},
		{
			name: "demands more", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone)}, Demands: []string{"the approval of somebody else"}},
			why: `policy "ops" of application "servers" does not apply to ann: it requires the approval of somebody else, of which nobody can tell whether it holds: Keyturn cannot see to it`,
		},
		{
			name: "another login", policy: policy.Policy{Expression: policy.Expression{Include: rules(everyone)}}, login: "root",
			why: `policy "ops" of application "servers" applies to ann, and lets in as deploy, not as "root"`,
		},
		{
			name: "denied", policy: policy.Policy{Action: policy.Deny, Expression: policy.Expression{Include: rules(domain)}},
			why: `policy "ops" of application "servers" denies ann: it includes email_domain:example.com`,
		},
		{
			name: "denied to others", policy: policy.Policy{Action: policy.Deny, Expression: policy.Expression{Include: rules(domain), Require: rules(hwk)}},
			why: `application "servers" has no policy that includes ann`,
		},
		{
			name: "a machine", policy: policy.Policy{Expression: policy.Expression{Include: rules(policy.Rule{Kind: policy.AnyValidServiceToken})}},
			who: policy.Identity{Name: "ci", ServiceToken: "1"},
			why: `policy "ops" of application "servers" is for people, and ci is none of them`,
		},
		{
			name: "no machine", policy: policy.Policy{Action: policy.NonIdentity, Expression: policy.Expression{Include: rules(everyone)}},
			why: `policy "ops" of application "servers" is for those who have a service token or a client certificate, and ann is none of them`,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			r := policy.Request{Who: ann, Host: web1, Login: "deploy"}
			if test.who.Name != "" {
				r.Who = test.who
			}
			if test.host.Hostname != "" {
				r.Host = test.host
			}
			if test.login != "" {
				r.Login = test.login
			}
			d := policy.Compile(infra(test.policy)).Decide(r)
			if d.Allowed != test.allowed || d.Why != test.why {
				t.Errorf("allowed %v: %s\nwant %v: %s", d.Allowed, d.Why, test.allowed, test.why)
			}
		})
	}
}

// TestTheNearestIsNamed has applications of which each comes nearer to letting in than
// the one before it, and asks the first few of them, in both orders.
func TestTheNearestIsNamed(t *testing.T) {
	t.Parallel()
	nobody := policy.Rule{Kind: policy.Email, Value: "bob@example.com"}
	hwk := policy.Rule{Kind: policy.AuthMethod, Value: "hwk"}
	var all []policy.Application
	for i, p := range []policy.Policy{
		{Expression: policy.Expression{Include: rules(nobody)}},
		{Expression: policy.Expression{Include: rules(everyone), Require: rules(hwk)}},
		{Expression: policy.Expression{Include: rules(everyone)}, Action: policy.NonIdentity},
		{Expression: policy.Expression{Include: rules(everyone)}, SSH: &policy.SSHRules{Usernames: []string{"root"}}},
		{Expression: policy.Expression{Include: rules(everyone)}, Action: policy.Deny},
		{Expression: policy.Expression{Include: rules(everyone)}},
	} {
		a := infra(p).Applications[0]
		a.ID = fmt.Sprint(i)
		all = append(all, a)
		m := policy.Model{Applications: slices.Clone(all)}
		for range 2 {
			d := policy.Compile(m).Decide(policy.Request{Who: ann, Host: web1, Login: "deploy"})
			if d.Application != a.ID || d.Allowed != (i == 5) {
				t.Errorf("of %d applications: %+v", i+1, d)
			}
			slices.Reverse(m.Applications)
		}
	}
}

// TestWhatCannotBeToldNeverHelps has a rule that is not decided in each section of
// a policy, by itself and through a group.
func TestWhatCannotBeToldNeverHelps(t *testing.T) {
	t.Parallel()
	for _, untold := range []policy.Rule{
		geo,
		{Kind: policy.Email, Value: "ann@example.com"}, // of who is known only as a user
		{Kind: policy.EmailDomain, Value: "example.com"},
		{Kind: policy.LoginMethod, Value: "idp"},
		{Kind: policy.AuthMethod, Value: "hwk"},
		{Kind: policy.OIDC, Provider: "idp", Claim: "groups", Value: "ops"},
		{Kind: policy.InGroup, Value: "gone"},
		{Kind: policy.InGroup, Value: "geo"},
		{Kind: policy.InGroup, Value: "all but geo"},
		{Kind: policy.InGroup, Value: "itself"},
		{Kind: policy.InIPList, Value: "gone"},
		{Kind: policy.IP, Value: "10.0.0.0/8"}, // with no source known
		{Kind: policy.User},                    // of no user
	} {
		for _, test := range []struct {
			expression policy.Expression
			action     policy.Action
			allowed    bool
		}{
			{expression: policy.Expression{Include: rules(untold)}},
			{expression: policy.Expression{Include: rules(untold, everyone)}, allowed: true},
			{expression: policy.Expression{Include: rules(everyone), Require: rules(untold)}},
			{expression: policy.Expression{Include: rules(everyone), Exclude: rules(untold)}},
			{action: policy.Deny, expression: policy.Expression{Include: rules(untold)}},
			{action: policy.Deny, expression: policy.Expression{Include: rules(everyone), Require: rules(untold)}},
			{action: policy.Deny, expression: policy.Expression{Include: rules(everyone), Exclude: rules(untold)}},
		} {
			m := infra(policy.Policy{Action: test.action, Expression: test.expression})
			m.Groups = []policy.Group{
				{ID: "geo", Expression: policy.Expression{Include: rules(geo)}},
				{ID: "all but geo", Expression: policy.Expression{Include: rules(everyone), Exclude: rules(geo)}},
				{ID: "itself", Expression: policy.Expression{Include: rules(policy.Rule{Kind: policy.InGroup, Value: "itself"})}},
			}
			if test.action == policy.Deny {
				all := infra(policy.Policy{Expression: policy.Expression{Include: rules(everyone)}}).Applications[0].Policies[0]
				m.Applications[0].Policies = append(m.Applications[0].Policies, all)
			}
			d := policy.Compile(m).Decide(policy.Request{Who: policy.Identity{User: "1"}, Host: web1, Login: "deploy"})
			if d.Allowed != test.allowed {
				t.Errorf("%s in %s %+v: allowed %v: %s", untold, test.action, test.expression, d.Allowed, d.Why)
			}
		}
	}
}

func TestLoginByAddress(t *testing.T) {
	t.Parallel()
	domain := policy.Rule{Kind: policy.EmailDomain, Value: "example.com"}
	for _, test := range []struct {
		name       string
		expression policy.Expression
		email      string
		login      string
		allowed    bool
	}{
		{"in lower case", policy.Expression{Include: rules(domain)}, "Ann@Example.com", "ann", true},
		{"not as it is written", policy.Expression{Include: rules(domain)}, "Ann@Example.com", "Ann", false},
		{"of a domain that a group names", policy.Expression{Include: rules(policy.Rule{Kind: policy.InGroup, Value: "g"})}, "ann@example.com", "ann", true},
		{"of a domain that is required", policy.Expression{Include: rules(everyone), Require: rules(domain)}, "ann@example.com", "ann", true},
		{"of any domain", policy.Expression{Include: rules(everyone)}, "ann@example.com", "ann", false},
		{"of another domain", policy.Expression{Include: rules(everyone, domain)}, "ann@elsewhere.test", "ann", false},
		{"of a system", policy.Expression{Include: rules(domain)}, "Root@example.com", "root", false},
		{"of a letter that looks like one", policy.Expression{Include: rules(domain)}, "\u212Aim@example.com", "kim", false},
		{"of no one", policy.Expression{Include: rules(everyone)}, "", "", false},
	} {
		m := infra(policy.Policy{Expression: test.expression, SSH: &policy.SSHRules{EmailAlias: true}})
		m.Groups = []policy.Group{{ID: "g", Expression: policy.Expression{Include: rules(domain)}}}
		r := policy.Request{Who: policy.Identity{User: "1", Email: test.email}, Host: web1, Login: test.login}
		if d := policy.Compile(m).Decide(r); d.Allowed != test.allowed {
			t.Errorf("%s: allowed %v: %s", test.name, d.Allowed, d.Why)
		}
	}
}

// BenchmarkDecide decides among 1,000 applications and 10,000 rules: where one of
// them stands for the host; where all do, by patterns, and nobody is let in; where all
// rules are networks; where every policy includes everyone; where nothing is known of who
// asks, so that none of the rules can be told; and where every policy applies to who asks,
// but is for other logins, for machines, denies, or excludes them after all.
func BenchmarkDecide(b *testing.B) {
	for _, shape := range []struct {
		name   string
		host   func(i int) string
		rule   func(i, j int) policy.Rule
		action policy.Action
	}{
		{"one-of-1000-hosts", func(i int) string { return fmt.Sprintf("web%d", i) }, emailOf, policy.Allow},
		{"all-by-patterns", func(i int) string { return fmt.Sprintf("*w*%d*", i%10) }, emailOf, policy.Allow},
		{"all-networks", func(i int) string { return "*" }, func(i, j int) policy.Rule {
			return policy.Rule{Kind: policy.IP, Value: fmt.Sprintf("10.%d.%d.%d/32", i/250, i%250, j)}
		}, policy.Allow},
		{"all-include-everyone", func(i int) string { return "*" }, func(i, j int) policy.Rule {
			if j%2 == 0 {
				return everyone
			}
			return emailOf(i, j)
		}, policy.Allow},
		{"nothing-known", func(i int) string { return "*" }, emailOf, policy.Allow},
		{"all-for-other-logins", func(i int) string { return "*" }, everybody, policy.Allow},
		{"all-for-machines", func(i int) string { return "*" }, everybody, policy.NonIdentity},
		{"all-deny", func(i int) string { return "*" }, everybody, policy.Deny},
		{"all-exclude", func(i int) string { return "*" }, everybody, policy.Allow},
	} {
		b.Run(shape.name, func(b *testing.B) {
			var m policy.Model
			for i := range 1000 {
				a := infra(policy.Policy{Action: shape.action}).Applications[0]
				a.ID = fmt.Sprint(i)
				a.Criteria[0].Include.Hostnames = []string{shape.host(i)}
				p := a.Policies[0]
				a.Policies = nil
				for j := range 5 {
					p.Include = rules(shape.rule(i, 2*j))
					p.Require = rules(shape.rule(i, 2*j+1))
					p.SSH = &policy.SSHRules{Usernames: []string{fmt.Sprintf("deploy%d", i*10+j)}}
					if shape.name == "all-exclude" {
						p.Require, p.Exclude = nil, rules(policy.Rule{Kind: policy.EmailDomain, Value: "example.com"})
					}
					a.Policies = append(a.Policies, p)
				}
				m.Applications = append(m.Applications, a)
			}
			book := policy.Compile(m)
			who := ann
			who.Source = netip.MustParseAddr("192.0.2.1")
			r := policy.Request{Who: who, Host: policy.Host{Hostname: "web0123456789", Protocol: policy.ProtocolSSH, Port: 22}, Login: "deploy"}
			if shape.name == "one-of-1000-hosts" {
				r.Host.Hostname, r.Who.Email = "web700", "person70@example.com"
			}
			if shape.name == "nothing-known" {
				r.Who.Email = ""
			}
			for b.Loop() {
				book.Decide(r)
			}
		})
	}
}

func everybody(int, int) policy.Rule { return everyone }

func emailOf(i, j int) policy.Rule {
	return policy.Rule{Kind: policy.Email, Value: fmt.Sprintf("person%d@example.com", i*10+j)}
}
