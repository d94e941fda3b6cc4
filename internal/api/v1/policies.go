package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"net/netip"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type policy struct {
	ID           string          `json:"id"`
	Name         string          `json:"name"`
	Reusable     bool            `json:"reusable" doc:"Any application may have it"`
	Precedence   int             `json:"precedence,omitempty" doc:"Its place in the application, the least first"`
	Decision     string          `json:"decision"`
	Include      []string        `json:"include"`
	Require      []string        `json:"require"`
	Exclude      []string        `json:"exclude"`
	Logins       []string        `json:"logins" doc:"The accounts on hosts as which it lets in"`
	EmailAlias   *bool           `json:"email_alias,omitempty"`
	Applications int             `json:"applications" doc:"How many have it"`
	Extra        json.RawMessage `json:"extra,omitempty" doc:"What else was said of it, by clients of other APIs"`
	CreatedAt    *time.Time      `json:"created_at"`
	UpdatedAt    *time.Time      `json:"updated_at"`
}

// PolicyBody is a policy as it is to be.
type PolicyBody struct {
	ID         string          `json:"id,omitempty" maxLength:"36" doc:"In an application: of a policy that it has, or alone, of a reusable one"`
	Name       string          `json:"name,omitempty" maxLength:"255"`
	Precedence int             `json:"precedence,omitempty" minimum:"0" maximum:"1073741824" doc:"Behind all others if absent"`
	Decision   string          `json:"decision,omitempty" maxLength:"32" doc:"allow if absent"`
	Include    []string        `json:"include,omitempty" maxItems:"1000" doc:"Rules of which any lets it apply, such as email_domain:example.com, user:NAME, group:NAME, everyone"`
	Require    []string        `json:"require,omitempty" maxItems:"1000" doc:"Rules that all have to hold"`
	Exclude    []string        `json:"exclude,omitempty" maxItems:"1000" doc:"Rules of which none may hold"`
	Logins     []string        `json:"logins,omitempty" maxItems:"200"`
	EmailAlias *bool           `json:"email_alias,omitempty" doc:"Lets people in as the local part of their address, too"`
	Extra      json.RawMessage `json:"extra,omitempty" doc:"An object of what else is to be kept; what is kept if absent"`
}

type newPolicy struct{ Body PolicyBody }

type newPolicyOf struct {
	Application string `path:"application" maxLength:"255" doc:"Id or name"`
	Body        PolicyBody
}

type setPolicy struct {
	Policy string `path:"policy" maxLength:"36"`
	Body   PolicyBody
}

type changePolicy struct {
	Policy string `path:"policy" maxLength:"36"`
	Body   struct {
		Name       *string `json:"name,omitempty" minLength:"1" maxLength:"255" doc:"What it is called from now on"`
		Precedence *int    `json:"precedence,omitempty" minimum:"1" maximum:"1073741824" doc:"Its place among the policies of its application"`
		Decision   *string `json:"decision,omitempty" minLength:"1" maxLength:"32"`
		SectionsChange
		Logins     []string `json:"logins,omitempty" maxItems:"200" doc:"All that it is to have; those that it has if absent"`
		EmailAlias *bool    `json:"email_alias,omitempty" doc:"Lets people in as the local part of their address, too"`
	}
}

type byPolicy struct {
	Policy string `path:"policy" maxLength:"36"`
}

type usePolicy struct {
	Application string `path:"application" maxLength:"255" doc:"Id or name"`
	Policy      string `path:"policy" maxLength:"36"`
	Body        struct {
		Precedence int `json:"precedence,omitempty" minimum:"0" maximum:"1073741824" doc:"Behind all others if absent"`
	}
}

type unusePolicy struct {
	Application string `path:"application" maxLength:"255" doc:"Id or name"`
	Policy      string `path:"policy" maxLength:"36"`
}

type policyPage struct {
	Policies []policy          `json:"policies"`
	Names    map[string]string `json:"names" doc:"What users, groups and lists of networks are called that rules name by their ids"`
	Total    int               `json:"total"`
	Next     string            `json:"next,omitempty" doc:"What after is for the next page"`
}

type namedPolicy struct {
	Policy policy            `json:"policy"`
	Names  map[string]string `json:"names" doc:"What users, groups and lists of networks are called that rules name by their ids"`
}

type allowLogin struct {
	Body struct {
		User  string `json:"user" minLength:"1" maxLength:"100" doc:"Name or id"`
		Host  string `json:"host" minLength:"1" maxLength:"255" doc:"A host's name, or a pattern with * and ?"`
		Login string `json:"login" minLength:"1" maxLength:"256" doc:"The account on the host"`
		Port  int    `json:"port,omitempty" minimum:"0" maximum:"65535" doc:"That of the host of this name, or 22, if absent"`
	}
}

type testLogin struct {
	Body struct {
		User        string `json:"user,omitempty" maxLength:"100" doc:"Name or id; who asks if absent"`
		Host        string `json:"host" minLength:"1" maxLength:"255" doc:"A host's name"`
		Login       string `json:"login" minLength:"1" maxLength:"256" doc:"The account on the host"`
		Port        int    `json:"port,omitempty" minimum:"0" maximum:"65535" doc:"That of the host's address, or 22, if absent"`
		Source      string `json:"source,omitempty" maxLength:"45" doc:"The address that the user comes from"`
		Application string `json:"application,omitempty" maxLength:"255" doc:"Ask only this one, by id or name"`
	}
}

type loginDecision struct {
	Allowed     bool   `json:"allowed"`
	Why         string `json:"why"`
	Application string `json:"application,omitempty" doc:"Id of the application that decided"`
	Policy      string `json:"policy,omitempty" doc:"Id of the policy that decided, or came nearest to letting in"`
	Section     string `json:"section,omitempty" doc:"Where in it the rule is that decided"`
	Rule        string `json:"rule,omitempty"`
}

func (d door) policyRoutes(a huma.API) {
	operation(d, a, http.MethodPost, "/logins/allow", "allow-login", "Let a user log in to hosts",
		func(ctx context.Context, who control.Actor, in *allowLogin) (policy, error) {
			p, err := d.plane.AllowLogin(ctx, who, control.AllowLogin{User: in.Body.User, Host: in.Body.Host, Login: in.Body.Login, Port: in.Body.Port})
			return showPolicy(p), err
		})
	operation(d, a, http.MethodPost, "/logins/test", "test-login", "Say whether a user may log in to a host, and why",
		func(ctx context.Context, who control.Actor, in *testLogin) (loginDecision, error) {
			t := control.TestLogin{User: in.Body.User, Host: in.Body.Host, Login: in.Body.Login, Port: in.Body.Port, Application: in.Body.Application}
			if in.Body.Source != "" {
				var err error
				if t.Source, err = netip.ParseAddr(in.Body.Source); err != nil {
					return loginDecision{}, trust.Errorf(trust.Invalid, "%q is not an address", in.Body.Source).WithField("source")
				}
			}
			decided, err := d.plane.TestLogin(ctx, who, t)
			return showDecision(decided), err
		})
	operation(d, a, http.MethodGet, "/policies", "list-policies", "List reusable policies; those of applications are listed with them",
		func(ctx context.Context, who control.Actor, in *Paging) (policyPage, error) {
			list, names, total, err := d.plane.ListReusablePolicies(ctx, who, in.accessPage())
			out := policyPage{Policies: make([]policy, len(list)), Names: namesOf(names), Total: total}
			for i, p := range list {
				out.Policies[i] = showPolicy(p)
				out.Next = nextID(p.ID, len(list), in.Limit)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/policies", "add-reusable-policy", "Add a policy that any application may have",
		func(ctx context.Context, who control.Actor, in *newPolicy) (policy, error) {
			p, err := in.Body.read()
			if err != nil {
				return policy{}, err
			}
			added, err := d.plane.AddPolicy(ctx, who, "", p, false)
			return showPolicy(added), err
		})
	operation(d, a, http.MethodGet, "/policies/{policy}", "show-policy", "Show a policy",
		func(ctx context.Context, who control.Actor, in *byPolicy) (namedPolicy, error) {
			p, names, err := d.plane.ShowPolicy(ctx, who, control.PolicyIn{}, in.Policy)
			return namedPolicy{showPolicy(p), namesOf(names)}, err
		})
	operation(d, a, http.MethodPut, "/policies/{policy}", "set-policy", "Write a policy anew",
		func(ctx context.Context, who control.Actor, in *setPolicy) (policy, error) {
			p, err := in.Body.read()
			if err != nil {
				return policy{}, err
			}
			set, err := d.plane.SetPolicy(ctx, who, control.PolicyIn{}, in.Policy, control.Anew(p))
			return showPolicy(set), err
		})
	operation(d, a, http.MethodPatch, "/policies/{policy}", "change-policy", "Change a policy: what is not given stays",
		func(ctx context.Context, who control.Actor, in *changePolicy) (policy, error) {
			set, err := d.plane.SetPolicy(ctx, who, control.PolicyIn{}, in.Policy, in.change)
			return showPolicy(set), err
		})
	operation(d, a, http.MethodDelete, "/policies/{policy}", "remove-policy", "Remove a policy",
		func(ctx context.Context, who control.Actor, in *byPolicy) (removed, error) {
			return removed{in.Policy}, d.plane.RemovePolicy(ctx, who, control.PolicyIn{}, in.Policy)
		})
	operation(d, a, http.MethodPost, "/applications/{application}/policies", "add-policy", "Add a policy to an application",
		func(ctx context.Context, who control.Actor, in *newPolicyOf) (policy, error) {
			p, err := in.Body.read()
			if err != nil {
				return policy{}, err
			}
			added, err := d.plane.AddPolicy(ctx, who, in.Application, p, false)
			return showPolicy(added), err
		})
	operation(d, a, http.MethodPut, "/applications/{application}/policies/{policy}", "use-policy", "Give an application a reusable policy, or another place to it",
		func(ctx context.Context, who control.Actor, in *usePolicy) (policy, error) {
			p, err := d.plane.UsePolicy(ctx, who, in.Application, in.Policy, in.Body.Precedence)
			return showPolicy(p), err
		})
	operation(d, a, http.MethodDelete, "/applications/{application}/policies/{policy}", "unuse-policy", "Take a reusable policy away from an application",
		func(ctx context.Context, who control.Actor, in *unusePolicy) (removed, error) {
			return removed{in.Policy}, d.plane.UnusePolicy(ctx, who, in.Application, in.Policy)
		})
}

func (c *changePolicy) change(p control.Policy) (control.Policy, error) {
	replace(&p.Name, c.Body.Name)
	replace(&p.Precedence, c.Body.Precedence)
	replace(&p.Action, (*control.PolicyAction)(c.Body.Decision))
	if c.Body.Logins != nil || c.Body.EmailAlias != nil {
		ssh := control.SSHRules{}
		if p.SSH != nil {
			ssh = *p.SSH
		}
		replaceList(&ssh.Usernames, c.Body.Logins)
		if c.Body.EmailAlias != nil {
			ssh.EmailAlias = c.Body.EmailAlias
		}
		p.SSH = &ssh
	}
	return p, c.Body.change(&p.Expression)
}

func (b PolicyBody) read() (p control.Policy, err error) {
	p = control.Policy{ID: b.ID, Name: b.Name, Precedence: b.Precedence, Action: control.PolicyAction(b.Decision), Extra: b.Extra}
	if b.Decision == "" {
		p.Action = control.Allow
	}
	if p.Expression, err = readExpression(b.Include, b.Require, b.Exclude); err != nil {
		return p, err
	}
	if b.Logins != nil || b.EmailAlias != nil {
		p.SSH = &control.SSHRules{Usernames: texts(b.Logins), EmailAlias: b.EmailAlias}
	}
	return p, nil
}

// readExpression reads the rules of the sections of a policy or a group.
func readExpression(include, require, exclude []string) (e control.Expression, err error) {
	if e.Include, err = readRules("include", include); err != nil {
		return e, err
	}
	if e.Require, err = readRules("require", require); err != nil {
		return e, err
	}
	e.Exclude, err = readRules("exclude", exclude)
	return e, err
}

func readRules(field string, list []string) (rules []control.Rule, err error) {
	for _, text := range list {
		r, err := control.ParseRule(text)
		if err != nil {
			return nil, trust.Errorf(trust.Invalid, "%w", err).WithField(field)
		}
		rules = append(rules, r)
	}
	return rules, nil
}

func ruleTexts(list []control.Rule) []string {
	out := make([]string, len(list))
	for i, r := range list {
		out[i] = r.String()
	}
	return out
}

// namesOf returns names as answers have them: never null.
func namesOf(names control.Names) map[string]string {
	if names == nil {
		return map[string]string{}
	}
	return names
}

func showPolicy(p control.Policy) policy {
	out := policy{
		ID: p.ID, Name: p.Name, Reusable: p.Reusable(), Precedence: p.Precedence, Decision: string(p.Action), Include: ruleTexts(p.Include),
		Require: ruleTexts(p.Require), Exclude: ruleTexts(p.Exclude), Logins: []string{}, Applications: p.Applications, Extra: p.Extra,
		CreatedAt: at(p.CreatedAt), UpdatedAt: at(p.UpdatedAt),
	}
	if p.SSH != nil {
		out.Logins, out.EmailAlias = texts(p.SSH.Usernames), p.SSH.EmailAlias
	}
	return out
}

func showDecision(d control.LoginDecision) loginDecision {
	out := loginDecision{Allowed: d.Allowed, Why: d.Why, Application: d.Application, Policy: d.Policy, Section: string(d.Section)}
	if d.Rule.Kind != "" {
		out.Rule = d.Rule.String()
	}
	return out
}
