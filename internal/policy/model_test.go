package policy_test

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/policy"
)

// This file holds the rules of Cloudflare Access a second time, read straight off
// a Model, without numbers, tables or an order of its own, and compares.

// An answer of the evaluator here is "yes", "no" or "?".
type answer string

func not(a answer) answer {
	switch a {
	case "yes":
		return "no"
	case "no":
		return "yes"
	}
	return "?"
}

func either(list []answer) answer {
	if slices.Contains(list, "yes") {
		return "yes"
	}
	if slices.Contains(list, "?") {
		return "?"
	}
	return "no"
}

func both(list []answer) answer {
	for i := range list {
		list[i] = not(list[i])
	}
	return not(either(list))
}

type naive struct {
	model   policy.Model
	request policy.Request
}

func is(known, match bool) answer {
	switch {
	case !known:
		return "?"
	case match:
		return "yes"
	}
	return "no"
}

func (n naive) rule(r policy.Rule) answer {
	who := n.request.Who
	machine := who.ServiceToken != ""
	of := func(known, match bool) answer { return is(known || machine, match && !machine) }
	switch r.Kind {
	case policy.Everyone:
		return "yes"
	case policy.Email:
		return of(who.Email != "", strings.EqualFold(who.Email, r.Value))
	case policy.EmailDomain:
		return of(who.Email != "", strings.HasSuffix(strings.ToLower(who.Email), "@"+strings.ToLower(strings.TrimPrefix(r.Value, "@"))))
	case policy.User:
		return of(who.User != "", who.User == r.Value)
	case policy.LoginMethod:
		return of(who.Provider != "", who.Provider == r.Value)
	case policy.AuthMethod:
		return of(who.Methods != nil, slices.Contains(who.Methods, r.Value))
	case policy.OIDC:
		return of(who.Claims != nil, slices.Contains(who.Claims, policy.Claim{Provider: r.Provider, Name: r.Claim, Value: r.Value}))
	case policy.ServiceToken:
		return is(true, who.ServiceToken == r.Value)
	case policy.AnyValidServiceToken:
		return is(true, machine)
	case policy.Certificate:
		return is(true, who.Certificate)
	case policy.CommonName:
		return is(true, who.Certificate && who.CommonName == r.Value)
	case policy.IP:
		return n.within(r.Value)
	case policy.InIPList:
		for _, list := range n.model.IPLists {
			if list.ID == r.Value {
				answers := []answer{}
				for _, p := range list.Prefixes {
					answers = append(answers, n.within(p.String()))
				}
				return either(answers)
			}
		}
	case policy.InGroup:
		for _, g := range n.model.Groups {
			if g.ID == r.Value {
				return n.expression(g.Expression)
			}
		}
	}
	return "?"
}

func (n naive) within(text string) answer {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		addr := netip.MustParseAddr(text)
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	source := n.request.Who.Source
	return is(source.IsValid(), prefix.Contains(source))
}

func (n naive) rules(list []policy.Rule) (answers []answer) {
	for _, r := range list {
		answers = append(answers, n.rule(r))
	}
	return answers
}

func (n naive) expression(e policy.Expression) answer {
	return both([]answer{either(n.rules(e.Include)), both(n.rules(e.Require)), not(either(n.rules(e.Exclude)))})
}

func (n naive) names(a policy.Attributes) (answers []bool) {
	if len(a.Hostnames) > 0 {
		answers = append(answers, slices.ContainsFunc(a.Hostnames, func(pattern string) bool {
			name, _ := path.Match(strings.ToLower(pattern), strings.ToLower(n.request.Host.Hostname))
			label, _ := path.Match(strings.ToLower(pattern), strings.ToLower(n.request.Host.Label))
			return name || label && n.request.Host.Label != ""
		}))
	}
	for key, values := range a.Tags {
		value, has := n.request.Host.Tags[key]
		answers = append(answers, has && slices.Contains(values, value))
	}
	return answers
}

func (n naive) stands(a policy.Application) bool {
	if n.request.Application != "" && n.request.Application != a.ID {
		return false
	}
	if a.Type != policy.Infrastructure {
		return n.request.Application != "" && (a.Type == policy.SSH || a.Type == policy.SelfHosted)
	}
	if n.request.Application != "" && n.request.Everywhere {
		return true
	}
	return slices.ContainsFunc(a.Criteria, func(c policy.Criterion) bool {
		if n.request.Everywhere {
			all := slices.Contains(c.Include.Hostnames, "*") && len(c.Require.Hostnames)+len(c.Require.Tags)+len(c.Exclude.Hostnames)+len(c.Exclude.Tags) == 0
			return all && c.Port == n.request.Host.Port && c.Protocol == n.request.Host.Protocol
		}
		return c.Port == n.request.Host.Port && c.Protocol == n.request.Host.Protocol &&
			slices.Contains(n.names(c.Include), true) && !slices.Contains(n.names(c.Require), false) && !slices.Contains(n.names(c.Exclude), true)
	})
}

// addressed is whether a policy names the address of who asks.
func (n naive) addressed(e policy.Expression) bool {
	for _, r := range append(append([]policy.Rule{}, e.Include...), e.Require...) {
		switch r.Kind {
		case policy.Email, policy.EmailDomain:
			if n.rule(r) == "yes" {
				return true
			}
		case policy.InGroup:
			for _, g := range n.model.Groups {
				if g.ID == r.Value && n.addressed(g.Expression) {
					return true
				}
			}
		}
	}
	return false
}

func (n naive) opens(a policy.Application, p policy.Policy) bool {
	if n.request.AnyLogin {
		return true
	}
	alias := a.Type != policy.Infrastructure
	if p.SSH != nil {
		if slices.Contains(p.SSH.Usernames, n.request.Login) {
			return true
		}
		alias = p.SSH.EmailAlias
	}
	local, _, _ := strings.Cut(strings.ToLower(n.request.Who.Email), "@")
	return alias && n.addressed(p.Expression) && local != "root" && local == n.request.Login && n.request.Who.ServiceToken == ""
}

// decide returns the policy that lets in, or nothing.
func (n naive) decide() string {
	who := n.request.Who
	for _, a := range n.model.Applications {
		if !n.stands(a) {
			continue
		}
		for _, p := range a.Policies {
			machine := who.ServiceToken != "" || who.Certificate
			if p.Action == policy.NonIdentity && machine && n.expression(p.Expression) == "yes" && len(p.Demands) == 0 && n.opens(a, p) {
				return p.ID
			}
		}
	asked:
		for _, p := range a.Policies {
			applies := n.expression(p.Expression)
			switch {
			case p.Action == policy.Deny && applies != "no":
				break asked
			case p.Action != policy.Allow || applies != "yes" || len(p.Demands) > 0:
			case len(a.Providers) > 0 && !slices.Contains(a.Providers, who.Provider):
			case who.ServiceToken != "" || who.User == "" && who.Email == "":
			case n.opens(a, p):
				return p.ID
			}
		}
	}
	return ""
}

// A dice makes models and requests of few words, so that many of them meet.
type dice struct{ *rand.Rand }

func of[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

func (d dice) some(most int, word func() string) (list []string) {
	for range d.IntN(most + 1) {
		list = append(list, word())
	}
	return list
}

var (
	emails    = []string{"ann@a.test", "Bob@A.test", "bob@b.test", "root@a.test", "cy@c.test"}
	domains   = []string{"a.test", "@B.test", "A.TEST", "test"}
	ids       = []string{"1", "2", "3"}
	addresses = []string{"10.0.0.1", "10.0.0.0/24", "10.0.1.0/24", "10.0.0.0/8", "2001:db8::/32", "2001:db8::1"}
	hostnames = []string{"web1", "WEB2", "web*", "db?", "*"}
	logins    = []string{"ann", "bob", "root", "deploy", "cy", "Bob"}
)

func (d dice) rule(groups int) policy.Rule {
	switch d.IntN(16) {
	case 0, 1:
		return policy.Rule{Kind: policy.Email, Value: of(d, emails...)}
	case 2, 3:
		return policy.Rule{Kind: policy.EmailDomain, Value: of(d, domains...)}
	case 4:
		return policy.Rule{Kind: policy.Everyone}
	case 5, 6:
		return policy.Rule{Kind: policy.InGroup, Value: fmt.Sprint(d.IntN(groups + 1))} // the last is not there
	case 7:
		return policy.Rule{Kind: policy.IP, Value: of(d, addresses...)}
	case 8:
		return policy.Rule{Kind: policy.InIPList, Value: of(d, ids...)}
	case 9:
		return policy.Rule{Kind: of(d, policy.ServiceToken, policy.LoginMethod, policy.User), Value: of(d, ids...)}
	case 10:
		return policy.Rule{Kind: policy.AnyValidServiceToken}
	case 11:
		return policy.Rule{Kind: policy.Certificate}
	case 12:
		return policy.Rule{Kind: policy.CommonName, Value: of(d, ids...)}
	case 13:
		return policy.Rule{Kind: policy.AuthMethod, Value: of(d, "pwd", "hwk")}
	case 14:
		return policy.Rule{Kind: policy.OIDC, Provider: of(d, ids...), Claim: "groups", Value: of(d, "ops", "dev")}
	}
	return policy.Rule{Kind: "geo", Fields: `{"country_code":"DE"}`}
}

func (d dice) expression(groups int) (e policy.Expression) {
	for range 1 + d.IntN(4) {
		e.Include = append(e.Include, d.rule(groups))
	}
	for range max(0, d.IntN(5)-3) {
		e.Require = append(e.Require, d.rule(groups))
	}
	for range max(0, d.IntN(5)-3) {
		e.Exclude = append(e.Exclude, d.rule(groups))
	}
	return e
}

func (d dice) attributes(most int) (a policy.Attributes) {
	a.Hostnames = d.some(most, func() string { return of(d, hostnames...) })
	if d.IntN(6) == 0 {
		a.Tags = map[string][]string{of(d, "env", "zone"): {of(d, "prod", "test"), of(d, "prod", "test", "dev")}}
		if d.IntN(2) == 0 {
			a.Tags[of(d, "env", "zone")] = []string{"prod"}
		}
	}
	return a
}

func (d dice) policy(id string) policy.Policy {
	p := policy.Policy{
		ID: id, Name: "p" + id, Expression: d.expression(4),
		Action: of(d, policy.Allow, policy.Allow, policy.Allow, policy.Deny, policy.NonIdentity, policy.Bypass),
	}
	if d.IntN(3) > 0 {
		p.SSH = &policy.SSHRules{Usernames: d.some(6, func() string { return of(d, logins...) }), EmailAlias: d.IntN(3) > 0}
	}
	if d.IntN(10) == 0 {
		p.Demands = []string{"approval"}
	}
	return p
}

func (d dice) model() (m policy.Model) {
	for i := range 4 {
		m.Groups = append(m.Groups, policy.Group{ID: fmt.Sprint(i), Name: "g", Expression: d.expression(i)})
		// of those before it
		for _, list := range []*[]policy.Rule{&m.Groups[i].Include, &m.Groups[i].Require, &m.Groups[i].Exclude} {
			*list = slices.DeleteFunc(*list, func(r policy.Rule) bool { return r.Kind == policy.InGroup && r.Value >= fmt.Sprint(i) })
		}
	}
	for _, id := range ids[:2] {
		list := policy.IPList{ID: id, Name: "l"}
		for _, text := range d.some(2, func() string { return of(d, addresses...) }) {
			prefix, err := policy.ParsePrefix(text)
			if err != nil {
				panic(err)
			}
			list.Prefixes = append(list.Prefixes, prefix)
		}
		m.IPLists = append(m.IPLists, list)
	}
	for i := range 1 + d.IntN(3) {
		a := policy.Application{ID: fmt.Sprint(i), Name: "a", Type: of(d, policy.Infrastructure, policy.Infrastructure, policy.Infrastructure, policy.SSH, policy.SelfHosted, "vnc")}
		if d.IntN(6) == 0 {
			a.Providers = d.some(2, func() string { return of(d, ids...) })
		}
		for range 1 + d.IntN(2) {
			a.Criteria = append(a.Criteria, policy.Criterion{
				Protocol: of(d, policy.ProtocolSSH, policy.ProtocolSSH, policy.ProtocolSSH, "RDP"), Port: of(d, 22, 22, 22, 2222),
				Include: d.attributes(4), Require: d.attributes(d.IntN(5) / 4), Exclude: d.attributes(d.IntN(5) / 4),
			})
		}
		for j := range 1 + d.IntN(4) {
			a.Policies = append(a.Policies, d.policy(fmt.Sprintf("%d.%d", i, j)))
		}
		m.Applications = append(m.Applications, a)
	}
	return m
}

func (d dice) request() (r policy.Request) {
	r.Login = of(d, logins...)
	r.Host = policy.Host{
		Hostname: of(d, "web1", "Web2", "db1", "mail"), Label: of(d, "", "", "DB1", "web7"), Protocol: policy.ProtocolSSH, Port: of(d, 22, 22, 22, 2222),
		Tags: of(d, nil, map[string]string{"env": "prod"}, map[string]string{"env": "prod", "zone": "test"}),
	}
	if d.IntN(4) == 0 {
		r.Application = of(d, "0", "1", "2")
	}
	r.AnyLogin = d.IntN(6) == 0
	if r.Everywhere = d.IntN(6) == 0; r.Everywhere {
		r.Host = policy.Host{Protocol: policy.ProtocolSSH, Port: r.Host.Port}
	}
	who := &r.Who
	switch d.IntN(12) {
	case 0, 2:
		who.ServiceToken = of(d, ids...)
	case 1:
	default:
		who.User = of(d, "", "1", "2", "3")
		who.Email = of(d, append(emails, emails[0], "")...)
		who.Provider = of(d, "", "1", "2", policy.LocalLogin)
		who.Methods = of(d, nil, []string{}, []string{"pwd"}, []string{"pwd", "hwk"})
		who.Claims = of(d, nil, []policy.Claim{}, []policy.Claim{{Provider: "1", Name: "groups", Value: "ops"}})
	}
	if local, _, _ := strings.Cut(strings.ToLower(who.Email), "@"); d.IntN(2) == 0 {
		r.Login = local
	}
	who.Source = of(d, netip.Addr{}, netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.1.9"), netip.MustParseAddr("2001:db8::1"))
	if d.IntN(5) == 0 {
		who.Certificate, who.CommonName = true, of(d, "", "1")
	}
	return r
}

// TestAgreesWithTheRulesReadPlainly plays random models and requests on both.
func TestAgreesWithTheRulesReadPlainly(t *testing.T) {
	t.Parallel()
	const models, requests = 3000, 25
	letIn := map[bool]int{}
	for seed := range uint64(models) {
		d := dice{rand.New(rand.NewPCG(4, seed))}
		m := d.model()
		book := policy.Compile(m)
		for range requests {
			r := d.request()
			want := naive{m, r}.decide()
			got := book.Decide(r)
			if got.Allowed != (want != "") || got.Allowed && got.Policy != want {
				t.Fatalf("seed %d: %+v\nin %+v:\ngot %+v, want to be let in by %q", seed, r, m, got, want)
			}
			checkReason(t, seed, m, r, got)
			letIn[got.Allowed]++
		}
	}
	if letIn[true] < models*requests/100 {
		t.Errorf("only %d of %d requests were let in: the models say little", letIn[true], models*requests)
	}
}

// checkReason checks that the rule that a decision names stands where it says, and
// holds, or does not, as it has to for that decision.
func checkReason(t *testing.T, seed uint64, m policy.Model, r policy.Request, d policy.Decision) {
	t.Helper()
	if d.Why == "" {
		t.Fatalf("seed %d: a decision without a reason: %+v", seed, d)
	}
	if d.Rule.Kind == "" {
		return
	}
	var in []policy.Rule
	for _, a := range m.Applications {
		for _, p := range a.Policies {
			if p.ID == d.Policy && a.ID == d.Application {
				in = map[policy.Section][]policy.Rule{policy.Include: p.Include, policy.Require: p.Require, policy.Exclude: p.Exclude}[d.Section]
				if d.Section == policy.Require && len(a.Providers) > 0 {
					in = append(in, policy.Rule{Kind: policy.LoginMethod, Value: a.Providers[0]})
				}
			}
		}
	}
	holds := naive{m, r}.rule(d.Rule)
	same := func(r policy.Rule) bool {
		return r.Kind == d.Rule.Kind && (strings.EqualFold(strings.Trim(r.Value, "@"), d.Rule.Value) || r.Kind == policy.IP)
	}
	switch {
	case !slices.ContainsFunc(in, same):
		t.Fatalf("seed %d: %+v names a rule that is not there: %+v", seed, d, m)
	case d.Allowed && (d.Section != policy.Include || holds != "yes"):
		t.Fatalf("seed %d: %+v lets in by a rule that holds: %s", seed, d, holds)
	case d.Section == policy.Require && holds == "yes" || d.Section == policy.Exclude && holds == "no":
		t.Fatalf("seed %d: %+v blames a rule that holds: %s", seed, d, holds)
	}
}
