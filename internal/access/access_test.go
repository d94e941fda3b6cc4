package access_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"keyturn/internal/access"
	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// both runs a test on either engine.
func both(t *testing.T, test func(t *testing.T, s *store.Store)) {
	t.Helper()
	t.Parallel()
	storetest.Both(t, []fs.FS{access.Schema}, test)
}

func update(tb testing.TB, s *store.Store, fn func(tx *store.Tx) error) {
	tb.Helper()
	if err := s.Update(context.Background(), storetest.Event(), fn); err != nil {
		tb.Fatal(err)
	}
}

func refused(tb testing.TB, s *store.Store, kind trust.Kind, says string, fn func(tx *store.Tx) error) {
	tb.Helper()
	err := s.Update(context.Background(), storetest.Event(), fn)
	if err == nil || trust.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		tb.Errorf("got %v (%v), want %q (%v)", err, trust.KindOf(err), says, kind)
	}
}

func view(tb testing.TB, s *store.Store, fn func(tx *store.Tx) error) {
	tb.Helper()
	if err := s.View(context.Background(), storetest.Tenant, fn); err != nil {
		tb.Fatal(err)
	}
}

// must returns the value of a call that succeeds.
func must[T any](tb testing.TB) func(T, error) T {
	return func(v T, err error) T {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
		return v
	}
}

var everyone = []policy.Rule{{Kind: policy.Everyone}}

// infra returns a new application for all hosts.
func infra(name string) access.Application {
	a := access.Application{ID: access.NewID(), Aud: access.NewAudience(), Name: name, Type: policy.Infrastructure}
	a.Criteria = []access.Criterion{{Criterion: policy.Criterion{Protocol: policy.ProtocolSSH, Port: 22, Include: policy.Attributes{Hostnames: []string{"*"}}}}}
	return a
}

func allow(application, name string, logins ...string) access.Policy {
	return access.Policy{
		ID: access.NewID(), Application: application, Name: name, Action: policy.Allow,
		Expression: policy.Expression{Include: everyone}, SSH: &access.SSHRules{Usernames: logins},
	}
}

// A dice makes things as odd as they may be written.
type dice struct{ *rand.Rand }

func of[T any](d dice, list ...T) T { return list[d.IntN(len(list))] }

func (d dice) text() string {
	return of(d, "a", "Web 1", "ünïcode ☃", `"quoted" \ back`, "<b>&amp;", "%_'; --", strings.Repeat("x", 200), "null", "{}")
}

func (d dice) extra() json.RawMessage {
	return of(d, nil, json.RawMessage(`{}`), json.RawMessage(`{"session_duration":"24h","tags":[],"x":null}`), json.RawMessage(`{"n":12345678901234567890,"f":1.50,"deep":{"a":[{"b":{}}]},"":"\u0000\u2028<"}`))
}

func (d dice) rules(least int) (list []policy.Rule) {
	for range least + d.IntN(4) {
		list = append(list, of(d,
			policy.Rule{Kind: policy.Email, Value: "Ann@Example.com"}, policy.Rule{Kind: policy.EmailDomain, Value: "@Example.com"},
			policy.Rule{Kind: policy.Everyone}, policy.Rule{Kind: policy.IP, Value: "2001:DB8:0::/32"}, policy.Rule{Kind: policy.InGroup, Value: "gone"},
			policy.Rule{Kind: policy.CommonName, Value: d.text()}, policy.Rule{Kind: policy.OIDC, Provider: d.text(), Claim: d.text(), Value: d.text()},
			policy.Rule{Kind: "geo", Fields: `{"country_code":"DE"}`}, policy.Rule{Kind: "saml", Fields: `{"attribute_name":"group","attribute_value":"<&>","x":[1.0,12345678901234567890,null]}`},
		))
	}
	return list
}

func (d dice) expression() policy.Expression {
	return policy.Expression{Include: d.rules(1), Require: d.rules(0), Exclude: d.rules(0)}
}

func (d dice) attributes() (a policy.Attributes) {
	a.Hostnames = of(d, nil, []string{"Web-1.Example.com"}, []string{"b", "a", "b", "*.db?"})
	if d.IntN(2) == 0 {
		a.Tags = map[string][]string{d.text(): {d.text(), ""}, "env": {"prod"}}
	}
	return a
}

func (d dice) application() access.Application {
	a := access.Application{
		ID: access.NewID(), Aud: access.NewAudience(), Name: of(d, "", d.text()), Domain: of(d, "", "ssh.example.com/path"),
		Type: of[policy.ApplicationType](d, policy.Infrastructure, policy.SSH, policy.SelfHosted, "vnc"), Extra: d.extra(),
		Providers: of(d, nil, []string{"b", "a"}),
	}
	for range 1 + d.IntN(3) {
		c := access.Criterion{Criterion: policy.Criterion{Protocol: policy.ProtocolSSH, Port: 1 + d.IntN(65535), Include: policy.Attributes{Hostnames: []string{"A", "b"}}}}
		if c.Sections = d.IntN(2) == 0; c.Sections {
			c.Require, c.Exclude = d.attributes(), d.attributes()
		}
		if a.Type == policy.Infrastructure {
			a.Criteria = append(a.Criteria, c)
		}
	}
	return a
}

func (d dice) policy(a access.Application) access.Policy {
	p := access.Policy{
		ID: access.NewID(), Application: a.ID, Name: d.text(), Action: of(d, policy.Allow, policy.NonIdentity), Expression: d.expression(), Extra: d.extra(),
	}
	if a.Type != policy.Infrastructure {
		p.Action = of(d, policy.Allow, policy.Deny, policy.Bypass)
	}
	if d.IntN(2) == 0 {
		p.SSH = &access.SSHRules{Usernames: of(d, []string{}, []string{"root", `CORP\ann`, "ünï", "root"}), EmailAlias: of(d, nil, new(bool))}
	}
	return p
}

// same compares two values as JSON has them, which is as an API has them.
func same(t *testing.T, what string, wrote, read any) {
	t.Helper()
	var values [2]any
	for i, v := range []any{wrote, read} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s: %+v: %v", what, v, err)
		}
		decoder := json.NewDecoder(strings.NewReader(string(text)))
		decoder.UseNumber() // numbers are kept digit by digit
		if err := decoder.Decode(&values[i]); err != nil {
			t.Fatal(err)
		}
	}
	if !reflect.DeepEqual(values[0], values[1]) {
		t.Errorf("%s: wrote\n%+v\nand read\n%+v", what, values[0], values[1])
	}
}

// TestWhatWasWrittenComesBack writes, reads, lists, and writes back what it read.
func TestWhatWasWrittenComesBack(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		for seed := range uint64(60) {
			d := dice{rand.New(rand.NewPCG(7, seed))}
			a, g := d.application(), access.Group{ID: access.NewID(), Name: d.text(), Expression: d.expression(), Extra: d.extra()}
			l := access.IPList{ID: access.NewID(), Name: d.text(), Addresses: []string{"10.0.0.1", "2001:DB8::/32"}, Extra: d.extra()}
			var policies []access.Policy
			for range 1 + d.IntN(3) {
				policies = append(policies, d.policy(a))
			}
			update(t, s, func(tx *store.Tx) error {
				var err error
				if a, err = access.AddApplication(tx, a); err != nil {
					return err
				}
				for i, p := range policies {
					if policies[i], err = access.AddPolicy(tx, p); err != nil {
						return err
					}
					policies[i].Applications = 1
				}
				g = must[access.Group](t)(access.PutGroup(tx, g))
				l = must[access.IPList](t)(access.PutIPList(tx, l))
				return nil
			})
			check := func(when string) {
				view(t, s, func(tx *store.Tx) error {
					same(t, when+" application", a, must[access.Application](t)(access.ApplicationByID(tx, a.ID)))
					same(t, when+" application by aud", a, must[access.Application](t)(access.ApplicationByAud(tx, a.Aud)))
					list, total, err := access.Applications(tx, access.ApplicationFilter{Aud: a.Aud, Name: a.Name, Domain: a.Domain, Type: a.Type, Search: a.Name}, access.Page{Limit: 2})
					same(t, when+" applications", []access.Application{a}, list)
					if err != nil || total != 1 {
						t.Errorf("%s: %d of %d applications, %v", when, len(list), total, err)
					}
					same(t, when+" policies", policies, must[[]access.Policy](t)(access.Policies(tx, a.ID)))
					for _, p := range policies {
						same(t, when+" policy", p, must[access.Policy](t)(access.PolicyByID(tx, p.ID)))
					}
					same(t, when+" group", g, must[access.Group](t)(access.GroupByID(tx, g.ID)))
					same(t, when+" list", l, must[access.IPList](t)(access.IPListByID(tx, l.ID)))
					return nil
				})
			}
			check(fmt.Sprintf("seed %d: a new", seed))
			update(t, s, func(tx *store.Tx) error {
				a = must[access.Application](t)(access.SetApplication(tx, must[access.Application](t)(access.ApplicationByID(tx, a.ID)), nil))
				for i, p := range policies {
					policies[i] = must[access.Policy](t)(access.SetPolicy(tx, must[access.Policy](t)(access.PolicyByID(tx, p.ID))))
				}
				g = must[access.Group](t)(access.PutGroup(tx, must[access.Group](t)(access.GroupByID(tx, g.ID))))
				l = must[access.IPList](t)(access.PutIPList(tx, must[access.IPList](t)(access.IPListByID(tx, l.ID))))
				return nil
			})
			check(fmt.Sprintf("seed %d: a rewritten", seed))
		}
	})
}

func TestPrecedence(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		a, b := infra("a"), infra("b")
		shared := allow("", "shared", "deploy")
		names := func(id string) string {
			text := ""
			view(t, s, func(tx *store.Tx) error {
				for _, p := range must[[]access.Policy](t)(access.Policies(tx, id)) {
					text += fmt.Sprintf("%d:%s ", p.Precedence, p.Name)
				}
				return nil
			})
			return text
		}
		update(t, s, func(tx *store.Tx) error {
			must[access.Application](t)(access.AddApplication(tx, a))
			must[access.Application](t)(access.AddApplication(tx, b))
			must[access.Policy](t)(access.AddPolicy(tx, shared))
			must[access.Policy](t)(access.AddPolicy(tx, allow(a.ID, "one")))
			second := allow(a.ID, "five")
			second.Precedence = 5
			must[access.Policy](t)(access.AddPolicy(tx, second))
			must[access.Policy](t)(access.UsePolicy(tx, a.ID, shared.ID, 3))
			must[access.Policy](t)(access.UsePolicy(tx, b.ID, shared.ID, 0))
			return nil
		})
		if got := names(a.ID) + "/ " + names(b.ID); got != "1:one 3:shared 5:five / 1:shared " {
			t.Error(got)
		}
		refused(t, s, trust.Conflict, `policy "shared" of application "a" has the precedence 3 already`, func(tx *store.Tx) error {
			p := allow(a.ID, "three")
			p.Precedence = 3
			_, err := access.AddPolicy(tx, p)
			var e *trust.Error
			if !errors.As(err, &e) || e.Field != "precedence" {
				t.Errorf("%+v does not blame the precedence", err)
			}
			return err
		})
		refused(t, s, trust.Conflict, "in use by 2 applications", func(tx *store.Tx) error { return access.RemovePolicy(tx, shared.ID) })
		refused(t, s, trust.NotFound, "there is no policy", func(tx *store.Tx) error {
			_, err := access.UsePolicy(tx, a.ID, access.NewID(), 0)
			return err
		})
		var one access.Policy
		update(t, s, func(tx *store.Tx) error {
			one = must[[]access.Policy](t)(access.Policies(tx, a.ID))[0]
			one.Precedence = 9
			must[access.Policy](t)(access.SetPolicy(tx, one))
			return nil
		})
		if got := names(a.ID); got != "3:shared 5:five 9:one " {
			t.Error(got)
		}
		// The whole list at once: one stays, one goes, one comes, and reusable ones are named.
		update(t, s, func(tx *store.Tx) error {
			one.Name, one.Precedence = "once", 0
			return access.SetPolicies(tx, a.ID, []access.Policy{{ID: shared.ID}, allow("", "new"), one})
		})
		if got := names(a.ID); got != "1:shared 2:new 3:once " {
			t.Error(got)
		}
		// By its id alone each is what it was; of a reusable one nothing else counts but its place.
		before := one
		update(t, s, func(tx *store.Tx) error {
			before = must[access.Policy](t)(access.PolicyByID(tx, one.ID))
			return access.SetPolicies(tx, a.ID, []access.Policy{{ID: one.ID, Precedence: 8}, {ID: shared.ID, Name: "other", Action: policy.Deny, Expression: one.Expression, Precedence: 7}})
		})
		if got := names(a.ID); got != "7:shared 8:once " {
			t.Error(got)
		}
		before.Precedence = 8
		view(t, s, func(tx *store.Tx) error {
			same(t, "a policy by its id alone", before, must[access.Policy](t)(access.PolicyByID(tx, one.ID)))
			return nil
		})
		refused(t, s, trust.Invalid, "named twice", func(tx *store.Tx) error {
			return access.SetPolicies(tx, a.ID, []access.Policy{{ID: one.ID}, {ID: one.ID}})
		})
		refused(t, s, trust.NotFound, "there is no policy", func(tx *store.Tx) error {
			return access.SetPolicies(tx, a.ID, []access.Policy{{ID: access.NewID()}})
		})
		refused(t, s, trust.Conflict, "belongs to another application", func(tx *store.Tx) error {
			return access.SetPolicies(tx, b.ID, []access.Policy{one})
		})
		// Another type takes the policies that go with it, and not those that it had.
		bypass := allow("", "bypass")
		bypass.Action = policy.Bypass
		domain := a
		domain.Type, domain.Criteria, domain.Domain = policy.SSH, nil, "a.example.com"
		update(t, s, func(tx *store.Tx) error {
			must[access.Application](t)(access.SetApplication(tx, domain, []access.Policy{bypass}))
			return nil
		})
		if got := names(a.ID); got != "1:bypass " {
			t.Error(got)
		}
		refused(t, s, trust.Invalid, "can only allow", func(tx *store.Tx) error {
			_, err := access.SetApplication(tx, a, nil)
			return err
		})
		update(t, s, func(tx *store.Tx) error {
			must[access.Application](t)(access.SetApplication(tx, a, []access.Policy{{ID: shared.ID}}))
			return nil
		})
		if got := names(a.ID); got != "1:shared " {
			t.Error(got)
		}
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(access.RemoveApplication(tx, a.ID), access.RemoveApplication(tx, b.ID), access.RemovePolicy(tx, shared.ID))
		})
		refused(t, s, trust.NotFound, "there is no policy", func(tx *store.Tx) error { return access.RemovePolicy(tx, one.ID) })
	})
}

// What is asked of applications, each by itself and all at once.
func TestApplicationFilter(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		web, mail := infra("Web 100%"), access.Application{ID: access.NewID(), Aud: access.NewAudience(), Name: "mail", Type: policy.SSH, Domain: "Mail.example.com"}
		web.Criteria[0].Include.Hostnames = []string{"Web-*", "db"}
		update(t, s, func(tx *store.Tx) error {
			must[access.Application](t)(access.AddApplication(tx, web))
			must[access.Application](t)(access.AddApplication(tx, mail))
			return nil
		})
		view(t, s, func(tx *store.Tx) error {
			for f, want := range map[access.ApplicationFilter]string{
				{}: "Web 100% mail ", {NamePart: "EB 1"}: "Web 100% ", {NamePart: "0%"}: "Web 100% ", {NamePart: "%0"}: "", {NamePart: "a", DomainPart: "MAIL."}: "mail ",
				{DomainPart: "example", Name: "web 100%"}: "", {Hostname: "web-*"}: "Web 100% ", {Hostname: "DB", NamePart: "web"}: "Web 100% ", {Hostname: "web-1"}: "",
				{Hostname: "db", NamePart: "mail"}: "", {Search: "ail.ex", Type: policy.SSH}: "mail ",
			} {
				got := ""
				list, total, err := access.Applications(tx, f, access.Page{})
				for _, a := range list {
					got += a.Name + " "
				}
				if got != want || total != len(list) || err != nil {
					t.Errorf("%+v: got %q of %d, %v, want %q", f, got, total, err, want)
				}
				if list, total, err := access.Applications(tx, f, access.Page{Offset: 2}); len(list) != 0 || total != strings.Count(want, " ")-strings.Count(want, " 100") || err != nil {
					t.Errorf("%+v: beyond the end there are %v of %d, %v", f, list, total, err)
				}
			}
			return nil
		})
	})
}

func TestGroupFilter(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		update(t, s, func(tx *store.Tx) error {
			for _, name := range []string{"Ops 100%", "ops", "devs"} {
				must[access.Group](t)(access.PutGroup(tx, access.Group{ID: access.NewID(), Name: name, Expression: allow("", "x").Expression}))
			}
			must[access.IPList](t)(access.PutIPList(tx, access.IPList{ID: access.NewID(), Name: "ops"}))
			return nil
		})
		view(t, s, func(tx *store.Tx) error {
			for f, want := range map[access.GroupFilter]int{
				{}: 3, {Name: "ops"}: 1, {Name: "op"}: 0, {Search: "OPS"}: 2, {Search: "0%"}: 1, {Search: "%0"}: 0, {Name: "devs", Search: "ops"}: 0,
			} {
				list, total, err := access.Groups(tx, f, access.Page{Limit: 2})
				if len(list) != min(want, 2) || total != want || err != nil {
					t.Errorf("%+v: %d of %d groups, %v, want %d", f, len(list), total, err, want)
				}
			}
			return nil
		})
	})
}

func TestRefusals(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		a := infra("a")
		update(t, s, func(tx *store.Tx) error {
			must[access.Application](t)(access.AddApplication(tx, a))
			return nil
		})
		for says, change := range map[string]func(*access.Application){
			"not a UUID":             func(a *access.Application) { a.ID = "1" },
			"is not a line":          func(a *access.Application) { a.Name = "a\nb" },
			"no type of application": func(a *access.Application) { a.Type = "" },
			"needs a criterion":      func(a *access.Application) { a.Criteria = nil },
			"only applications":      func(a *access.Application) { a.Type = policy.SSH },
			"port 0":                 func(a *access.Application) { a.Criteria[0].Port = 0 },
			"no protocol":            func(a *access.Application) { a.Criteria[0].Protocol = "" },
			"includes no host":       func(a *access.Application) { a.Criteria[0].Include = policy.Attributes{} },
			"neither a hostname":     func(a *access.Application) { a.Criteria[0].Include.Hostnames = []string{"a b"} },
			"or no value":            func(a *access.Application) { a.Criteria[0].Include.Tags = map[string][]string{"k": nil} },
			"has more than 1000": func(a *access.Application) {
				a.Criteria[0].Include.Hostnames = strings.Split(strings.Repeat("a ", 1001), " ")[:1001]
			},
			"a port has one protocol": func(a *access.Application) {
				a.Criteria = append(a.Criteria, a.Criteria[0])
				a.Criteria[1].Protocol = "RDP"
			},
			"101 criteria":        func(a *access.Application) { a.Criteria = make([]access.Criterion, 101) },
			"not a JSON object":   func(a *access.Application) { a.Extra = json.RawMessage(`[]`) },
			"at most 65536 bytes": func(a *access.Application) { a.Extra = json.RawMessage(`{"x":"` + strings.Repeat("x", 1<<16) + `"}`) },
			"more than 64 deep": func(a *access.Application) {
				a.Extra = json.RawMessage(`{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`)
			},
			"no id of an identity": func(a *access.Application) { a.Providers = []string{""} },
		} {
			refused(t, s, trust.Invalid, says, func(tx *store.Tx) error {
				bad := infra("bad")
				change(&bad)
				_, err := access.AddApplication(tx, bad)
				return err
			})
		}
		for says, change := range map[string]func(*access.Policy){
			"of 1 to 255 bytes":        func(p *access.Policy) { p.Name = "" },
			"is none of allow, deny":   func(p *access.Policy) { p.Action = "permit" },
			"can only allow":           func(p *access.Policy) { p.Action = policy.Deny },
			"includes anybody":         func(p *access.Policy) { p.Include = nil },
			"1001 rules":               func(p *access.Policy) { p.Exclude = make([]policy.Rule, 1000) },
			"not an address of e-mail": func(p *access.Policy) { p.Require = []policy.Rule{{Kind: policy.Email, Value: "x"}} },
			"201 logins":               func(p *access.Policy) { p.SSH.Usernames = make([]string, 201) },
			`"a,b" cannot be the name`: func(p *access.Policy) { p.SSH.Usernames = []string{"a,b"} },
			`"a b" cannot be the name`: func(p *access.Policy) { p.SSH.Usernames = []string{"a b"} },
			`"" cannot be the name`:    func(p *access.Policy) { p.SSH.Usernames = []string{""} },
			"precedence -1 is not":     func(p *access.Policy) { p.Precedence = -1 },
		} {
			refused(t, s, trust.Invalid, says, func(tx *store.Tx) error {
				bad := allow(a.ID, "bad")
				change(&bad)
				_, err := access.AddPolicy(tx, bad)
				return err
			})
		}
		refused(t, s, trust.NotFound, "there is no application", func(tx *store.Tx) error {
			_, err := access.AddPolicy(tx, allow(access.NewID(), "astray"))
			return err
		})
		refused(t, s, trust.Exhausted, "as many as it can have", func(tx *store.Tx) error {
			for i := range access.MaxPolicies + 1 {
				if _, err := access.AddPolicy(tx, allow(a.ID, fmt.Sprint(i))); err != nil {
					return err
				}
			}
			return nil
		})
		update(t, s, func(tx *store.Tx) error {
			text := infra("brackets in text are not nested")
			text.Extra = json.RawMessage(`{"x":"` + strings.Repeat(`[\"{`, 100) + `"}`)
			must[access.Application](t)(access.AddApplication(tx, text))
			return nil
		})
		// A reusable policy may not become one that an application cannot have.
		shared := allow("", "shared")
		refused(t, s, trust.Invalid, "can only allow", func(tx *store.Tx) error {
			must[access.Policy](t)(access.AddPolicy(tx, shared))
			must[access.Policy](t)(access.UsePolicy(tx, a.ID, shared.ID, 0))
			shared.Action = policy.Bypass
			_, err := access.SetPolicy(tx, shared)
			return err
		})
	})
}

func TestGroups(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		a, b := access.Group{ID: access.NewID(), Name: "a"}, access.Group{ID: access.NewID(), Name: "b"}
		in := func(g access.Group) []policy.Rule { return []policy.Rule{{Kind: policy.InGroup, Value: g.ID}} }
		a.Include, b.Include = in(b), everyone
		update(t, s, func(tx *store.Tx) error {
			must[access.Group](t)(access.PutGroup(tx, a))
			must[access.Group](t)(access.PutGroup(tx, b))
			return nil
		})
		refused(t, s, trust.Invalid, `group "b" would be a part of itself`, func(tx *store.Tx) error {
			b.Exclude = in(a)
			_, err := access.PutGroup(tx, b)
			return err
		})
		refused(t, s, trust.Conflict, `"b" is named by a rule of "a"`, func(tx *store.Tx) error { return access.RemoveGroup(tx, b.ID) })
		refused(t, s, trust.NotFound, "there is no ip list", func(tx *store.Tx) error { return access.RemoveIPList(tx, b.ID) })
		update(t, s, func(tx *store.Tx) error {
			return errors.Join(access.RemoveGroup(tx, a.ID), access.RemoveGroup(tx, b.ID))
		})
	})
}

// TestBooksOfManyAtOnce has many ask at once after a change: one rulebook is made, and
// who began before the change keeps the one of before.
func TestBooksOfManyAtOnce(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		books := access.NewBooks()
		add := func(count int) {
			update(t, s, func(tx *store.Tx) error {
				for range count {
					must[access.Application](t)(access.AddApplication(tx, infra("servers")))
				}
				return nil
			})
		}
		of := func() (rules *policy.Rulebook) {
			view(t, s, func(tx *store.Tx) error {
				rules = must[*policy.Rulebook](t)(books.Of(tx))
				return nil
			})
			return rules
		}
		add(200) // to be a while at it
		view(t, s, func(tx *store.Tx) error {
			before := must[*policy.Rulebook](t)(books.Of(tx))
			add(1)
			const many = 8
			found := make(chan *policy.Rulebook, many)
			for range many {
				go func() { found <- of() }()
			}
			first := <-found
			for range many - 1 {
				if again := <-found; again != first {
					t.Error("a rulebook was made twice")
				}
			}
			if first == before {
				t.Error("a change is not in the rulebook")
			}
			if must[*policy.Rulebook](t)(books.Of(tx)) != before {
				t.Error("who began before a change has another rulebook after it")
			}
			return nil
		})
	})
}

// TestBooks asks the rulebook after each change, and after one that came to nothing.
func TestBooks(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		books := access.NewBooks()
		decide := func(tx *store.Tx) policy.Decision {
			return must[*policy.Rulebook](t)(books.Of(tx)).Decide(policy.Request{
				Who: policy.Identity{Name: "ann", User: "1"}, Login: "deploy", Host: policy.Host{Hostname: "web1", Protocol: policy.ProtocolSSH, Port: 22},
			})
		}
		expect := func(when string, allowed bool, why string) {
			t.Helper()
			view(t, s, func(tx *store.Tx) error {
				if d := decide(tx); d.Allowed != allowed || !strings.Contains(d.Why, why) {
					t.Errorf("%s: %v, %s; want %v, %s", when, d.Allowed, d.Why, allowed, why)
				}
				first, second := must[*policy.Rulebook](t)(books.Of(tx)), must[*policy.Rulebook](t)(books.Of(tx))
				if first != second {
					t.Errorf("%s: compiled twice", when)
				}
				return nil
			})
		}
		expect("of nothing", false, "no application stands")
		a, p := infra("servers"), access.Policy{}
		update(t, s, func(tx *store.Tx) error {
			must[access.Application](t)(access.AddApplication(tx, a))
			return nil
		})
		expect("of an application", false, "no policy that includes ann")
		nothing := errors.New("come to nothing")
		err := s.Update(context.Background(), storetest.Event(), func(tx *store.Tx) error {
			must[access.Policy](t)(access.AddPolicy(tx, allow(a.ID, "ops", "deploy")))
			if d := decide(tx); !d.Allowed {
				t.Errorf("within the change: %s", d.Why)
			}
			return nothing
		})
		if !errors.Is(err, nothing) {
			t.Fatal(err)
		}
		expect("of a change that came to nothing", false, "no policy that includes ann")
		update(t, s, func(tx *store.Tx) error {
			p = must[access.Policy](t)(access.AddPolicy(tx, allow(a.ID, "ops", "deploy")))
			return nil
		})
		expect("of a policy", true, `policy "ops" of application "servers" includes everyone`)
		for extra, why := range map[string]string{
			`{"approval_required":true}`:                      "the approval of somebody else",
			`{"isolation_required":true}`:                     "an isolated browser",
			`{"purpose_justification_required":true}`:         "a reason, given at the login",
			`{"mfa_config":{"allowed_authenticators":["x"]}}`: "a second factor of its own",
			`{"mfa_config":{"mfa_disabled":true}}`:            "",
			`{"approval_required":false,"mfa_config":null}`:   "",
		} {
			update(t, s, func(tx *store.Tx) error {
				p.Extra = json.RawMessage(extra)
				must[access.Policy](t)(access.SetPolicy(tx, p))
				return nil
			})
			expect(extra, why == "", why)
		}
		update(t, s, func(tx *store.Tx) error {
			a.Extra, p.Extra = json.RawMessage(`{"mfa_config":{}}`), nil
			must[access.Policy](t)(access.SetPolicy(tx, p))
			must[access.Application](t)(access.SetApplication(tx, a, nil))
			return nil
		})
		expect("of an application with a second factor", false, "a second factor")
		update(t, s, func(tx *store.Tx) error { return access.RemoveApplication(tx, a.ID) })
		expect("of nothing again", false, "no application stands")
	})
}
