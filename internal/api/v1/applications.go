package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type application struct {
	ID        string            `json:"id"`
	Aud       string            `json:"aud" doc:"What tokens for it are for"`
	Name      string            `json:"name"`
	Type      string            `json:"type"`
	Domain    string            `json:"domain,omitempty"`
	Criteria  []Criterion       `json:"criteria"`
	Providers []string          `json:"providers"`
	Policies  []policy          `json:"policies" doc:"By their precedence"`
	Names     map[string]string `json:"names" doc:"What users, groups and lists of networks are called that rules name by their ids"`
	Extra     json.RawMessage   `json:"extra,omitempty" doc:"What else was said of it, by clients of other APIs"`
	CreatedAt *time.Time        `json:"created_at"`
	UpdatedAt *time.Time        `json:"updated_at"`
}

// A Criterion matches hosts.
type Criterion struct {
	Protocol string      `json:"protocol,omitempty" maxLength:"16" doc:"SSH if absent"`
	Port     int         `json:"port" minimum:"1" maximum:"65535"`
	Include  Attributes  `json:"include" doc:"A host that any of these tells of"`
	Require  *Attributes `json:"require,omitempty" doc:"And all of these"`
	Exclude  *Attributes `json:"exclude,omitempty" doc:"And none of these"`
}

// Attributes are what hosts are told by.
type Attributes struct {
	Hostnames []string            `json:"hostnames,omitempty" maxItems:"1000" doc:"Without regard to case; * and ? make a pattern"`
	Tags      map[string][]string `json:"tags,omitempty" maxProperties:"100" doc:"Values of tags, of which a host has one"`
}

// ApplicationBody is an application as it is to be.
type ApplicationBody struct {
	Name      string          `json:"name" maxLength:"255"`
	Type      string          `json:"type" minLength:"1" maxLength:"32" doc:"infrastructure for hosts by criteria; ssh or self_hosted for one domain"`
	Domain    string          `json:"domain,omitempty" maxLength:"510"`
	Criteria  []Criterion     `json:"criteria,omitempty" maxItems:"100"`
	Providers []string        `json:"providers,omitempty" maxItems:"100" doc:"Ids of the only identity providers by which people log in; all if absent"`
	Policies  []PolicyBody    `json:"policies,omitempty" maxItems:"100" doc:"All policies that it is to have; those that it has if absent"`
	Extra     json.RawMessage `json:"extra,omitempty" doc:"An object of what else is to be kept; what is kept if absent"`
}

type newApplication struct{ Body ApplicationBody }

type setApplication struct {
	Application string `path:"application" maxLength:"255"`
	Body        ApplicationBody
}

type changeApplication struct {
	Application string `path:"application" maxLength:"255" doc:"Id or name"`
	Body        struct {
		Name      *string          `json:"name,omitempty" minLength:"1" maxLength:"255" doc:"What it is called from now on"`
		Domain    *string          `json:"domain,omitempty" maxLength:"510"`
		Providers []string         `json:"providers,omitempty" maxItems:"100" doc:"All that it is to have; those that it has if absent"`
		Criterion *CriterionChange `json:"criterion,omitempty" doc:"Changes its only criterion, or gives it one"`
	}
}

// A CriterionChange changes for which hosts an application stands.
type CriterionChange struct {
	Port            *int                `json:"port,omitempty" minimum:"1" maximum:"65535" doc:"Stays if absent, as all of these do"`
	Hostnames       []string            `json:"hostnames,omitempty" maxItems:"1000" doc:"Of hosts that it stands for"`
	Tags            map[string][]string `json:"tags,omitempty" maxProperties:"100" doc:"Of hosts that it stands for besides"`
	RequireTags     map[string][]string `json:"require_tags,omitempty" maxProperties:"100" doc:"That all of these have"`
	ExceptHostnames []string            `json:"except_hostnames,omitempty" maxItems:"1000" doc:"Of hosts that it does not stand for"`
	ExceptTags      map[string][]string `json:"except_tags,omitempty" maxProperties:"100" doc:"Of hosts that it does not stand for"`
}

type byApplication struct {
	Application string `path:"application" maxLength:"255" doc:"Id or name"`
}

type listApplications struct {
	Paging
	Search string `query:"search" maxLength:"255" doc:"A part of the name or the domain"`
}

type applicationPage struct {
	Applications []application `json:"applications"`
	Total        int           `json:"total"`
	Next         string        `json:"next,omitempty" doc:"What after is for the next page"`
}

func (d door) applicationRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/applications", "list-applications", "List applications with their policies: who may log in where",
		func(ctx context.Context, who control.Actor, in *listApplications) (applicationPage, error) {
			list, total, err := d.plane.ListApplications(ctx, who, control.ApplicationFilter{Search: in.Search}, in.accessPage())
			out := applicationPage{Applications: make([]application, len(list)), Total: total}
			for i, a := range list {
				out.Applications[i] = showApplication(a)
				out.Next = nextID(a.ID, len(list), in.Limit)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/applications", "add-application", "Add an application",
		func(ctx context.Context, who control.Actor, in *newApplication) (application, error) {
			w, err := in.Body.read()
			if err != nil {
				return application{}, err
			}
			added, err := d.plane.AddApplication(ctx, who, w, false)
			return showApplication(added), err
		})
	operation(d, a, http.MethodGet, "/applications/{application}", "show-application", "Show an application with its policies",
		func(ctx context.Context, who control.Actor, in *byApplication) (application, error) {
			a, err := d.plane.ShowApplication(ctx, who, in.Application)
			return showApplication(a), err
		})
	operation(d, a, http.MethodPut, "/applications/{application}", "set-application", "Write an application anew",
		func(ctx context.Context, who control.Actor, in *setApplication) (application, error) {
			w, err := in.Body.read()
			if err != nil {
				return application{}, err
			}
			set, err := d.plane.SetApplication(ctx, who, in.Application, control.Anew(w))
			return showApplication(set), err
		})
	operation(d, a, http.MethodPatch, "/applications/{application}", "change-application", "Change an application: what is not given stays, and its policies do",
		func(ctx context.Context, who control.Actor, in *changeApplication) (application, error) {
			set, err := d.plane.SetApplication(ctx, who, in.Application, in.change)
			return showApplication(set), err
		})
	operation(d, a, http.MethodDelete, "/applications/{application}", "remove-application", "Remove an application with the policies that are its own",
		func(ctx context.Context, who control.Actor, in *byApplication) (removed, error) {
			return removed{in.Application}, d.plane.RemoveApplication(ctx, who, in.Application)
		})
}

func (c *changeApplication) change(w control.WriteApplication) (control.WriteApplication, error) {
	replace(&w.Name, c.Body.Name)
	replace(&w.Domain, c.Body.Domain)
	replaceList(&w.Providers, c.Body.Providers)
	if c.Body.Criterion == nil {
		return w, nil
	}
	switch len(w.Criteria) {
	case 0:
		w.Criteria = []control.Criterion{{Criterion: control.HostCriterion{Protocol: control.ProtocolSSH, Port: 22}}}
	case 1:
	default:
		return w, trust.Errorf(trust.Conflict, "application %q stands for hosts by %d criteria, and it is not said which is to change", w.Name, len(w.Criteria)).
			WithField("criterion").WithHint("PUT /api/v1/applications/%s writes all of them", w.ID)
	}
	c.Body.Criterion.change(&w.Criteria[0])
	return w, nil
}

func (c *CriterionChange) change(is *control.Criterion) {
	replace(&is.Port, c.Port)
	replaceList(&is.Include.Hostnames, c.Hostnames)
	replaceList(&is.Exclude.Hostnames, c.ExceptHostnames)
	for _, tags := range []struct{ is, given *map[string][]string }{
		{&is.Include.Tags, &c.Tags}, {&is.Require.Tags, &c.RequireTags}, {&is.Exclude.Tags, &c.ExceptTags},
	} {
		if *tags.given != nil {
			*tags.is = *tags.given
		}
	}
}

// accessPage is page for listings that are ordered by id.
func (p Paging) accessPage() control.AccessPage {
	return control.AccessPage{After: p.After, Limit: p.Limit}
}

// nextID returns where the next page begins, after one of so many entries that ends with
// an id.
func nextID(id string, entries, limit int) string {
	if entries < limit {
		return ""
	}
	return id
}

func (b ApplicationBody) read() (control.WriteApplication, error) {
	w := control.WriteApplication{Application: control.Application{
		Name: b.Name, Type: control.ApplicationType(b.Type), Domain: b.Domain, Providers: b.Providers, Extra: b.Extra,
	}}
	for _, c := range b.Criteria {
		protocol := control.ProtocolSSH
		if c.Protocol != "" {
			protocol = control.Protocol(c.Protocol)
		}
		w.Criteria = append(w.Criteria, control.Criterion{Criterion: control.HostCriterion{
			Protocol: protocol, Port: c.Port, Include: control.Attributes(c.Include), Require: c.Require.read(), Exclude: c.Exclude.read(),
		}})
	}
	if b.Policies != nil {
		w.Policies = make([]control.Policy, len(b.Policies))
	}
	for i, p := range b.Policies {
		var err error
		if w.Policies[i], err = p.read(); err != nil {
			return w, err
		}
	}
	return w, nil
}

func (a *Attributes) read() control.Attributes {
	if a == nil {
		return control.Attributes{}
	}
	return control.Attributes(*a)
}

func showApplication(a control.ApplicationWithPolicies) application {
	out := application{
		ID: a.ID, Aud: a.Aud, Name: a.Name, Type: string(a.Type), Domain: a.Domain, Criteria: make([]Criterion, len(a.Criteria)),
		Providers: texts(a.Providers), Policies: make([]policy, len(a.Policies)), Names: namesOf(a.Names), Extra: a.Extra,
		CreatedAt: at(a.CreatedAt), UpdatedAt: at(a.UpdatedAt),
	}
	for i, c := range a.Criteria {
		out.Criteria[i] = Criterion{
			Protocol: string(c.Protocol), Port: c.Port, Include: Attributes(c.Include), Require: showAttributes(c.Require), Exclude: showAttributes(c.Exclude),
		}
	}
	for i, p := range a.Policies {
		out.Policies[i] = showPolicy(p)
	}
	return out
}

func showAttributes(a control.Attributes) *Attributes {
	if a.IsZero() {
		return nil
	}
	shown := Attributes(a)
	return &shown
}
