package cloudflare

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

func readApplication(r *http.Request) (w control.WriteApplication, err error) {
	f, err := readFields(r)
	if err != nil {
		return w, err
	}
	f.drop("aud")
	if err := f.takeAll(into{"name", &w.Name}, into{"type", &w.Type}, into{"domain", &w.Domain}, into{"allowed_idps", &w.Providers}); err != nil {
		return w, err
	}
	if w.Providers != nil && len(w.Providers) == 0 {
		f["allowed_idps"] = json.RawMessage("[]") // comes back, as nothing would not
	}
	if secret, said := f["scim_config"]; said && string(secret) != "null" {
		return w, trust.Errorf(trust.Invalid, "nothing is provisioned by SCIM here, and the credentials for it are not kept").WithField("scim_config")
	}
	if w.Criteria, err = f.criteria(); err != nil {
		return w, err
	}
	if w.Policies, err = f.policies(); err != nil {
		return w, err
	}
	if w.Domain == "" {
		w.Domain = f.domain()
	}
	w.Extra, err = f.extra()
	return w, err
}

// domain returns the first domain of those that newer clients write instead of one.
func (f fields) domain() string {
	var destinations []struct{ Type, URI string }
	var domains []string
	_ = json.Unmarshal(f["destinations"], &destinations) // what is something else has no domain
	_ = json.Unmarshal(f["self_hosted_domains"], &domains)
	for _, d := range destinations {
		if d.Type == "public" {
			domains = append([]string{d.URI}, domains...)
			break
		}
	}
	if len(domains) == 0 {
		return ""
	}
	return domains[0]
}

// policies takes the policies of an application: nil where it says nothing of them. One
// is an id, or an object.
func (f fields) policies() ([]control.Policy, error) {
	var list []json.RawMessage
	if err := f.take("policies", &list); err != nil || list == nil {
		return nil, err
	}
	policies := make([]control.Policy, len(list))
	for i, data := range list {
		p, err := readPolicyOf(data)
		if err != nil {
			return nil, within(err, "policies."+strconv.Itoa(i))
		}
		policies[i] = p
	}
	return policies, nil
}

func readPolicyOf(data json.RawMessage) (p control.Policy, err error) {
	if json.Unmarshal(data, &p.ID) == nil && p.ID != "" {
		return p, nil
	}
	var f fields
	id := ""
	if json.Unmarshal(data, &f) != nil || f == nil {
		return p, trust.Errorf(trust.Invalid, "a policy of an application is an id or an object")
	}
	if err := f.take("id", &id); err != nil {
		return p, err
	}
	f.drop(answered...)
	p, err = f.policy()
	if p.ID = id; err == nil && id == "" && p.Name == "" {
		err = trust.Errorf(trust.Invalid, "a policy without an id has a name").WithField("name")
	}
	return p, err
}

// criteria takes which hosts an application of type infrastructure stands for.
func (f fields) criteria() ([]control.Criterion, error) {
	var list []fields
	if err := f.take("target_criteria", &list); err != nil {
		return nil, err
	}
	var criteria []control.Criterion
	for i, one := range list {
		c, err := one.criterion()
		if err != nil {
			return nil, within(err, "target_criteria."+strconv.Itoa(i))
		}
		criteria = append(criteria, c)
	}
	return criteria, nil
}

// criterion takes a criterion: in the older form, which has attributes to include, or
// in the newer, with sections. What it does not know would say that it stands for other
// hosts than it does.
func (f fields) criterion() (c control.Criterion, err error) {
	_, flat := f["target_attributes"]
	c.Sections = !flat
	if err := f.takeAll(into{"port", &c.Port}, into{"protocol", &c.Protocol}); err != nil {
		return c, err
	}
	if flat {
		c.Include, err = f.attributes("target_attributes")
		return c, firstOf(err, f.none())
	}
	for _, section := range []struct {
		name string
		a    *control.Attributes
	}{{"include", &c.Include}, {"require", &c.Require}, {"exclude", &c.Exclude}} {
		var of fields
		if err := f.take(section.name, &of); err != nil {
			return c, err
		}
		a, err := of.attributes("target_attributes")
		if err == nil {
			err = of.take("tags", &a.Tags)
		}
		if err := firstOf(err, of.none()); err != nil {
			return c, within(err, section.name)
		}
		*section.a = a
	}
	return c, f.none()
}

// attributes takes attributes of hosts, of which there is one.
func (f fields) attributes(name string) (a control.Attributes, err error) {
	var of fields
	if err := f.take(name, &of); err != nil {
		return a, err
	}
	err = of.take("hostname", &a.Hostnames)
	return a, within(firstOf(err, of.none()), name)
}

// showCriterion shows a criterion in the form in which it was written; one that was not
// written over this wire in the older one, which all clients know, where that can say it.
func showCriterion(c control.Criterion) map[string]any {
	known := map[string]any{"port": c.Port, "protocol": c.Protocol}
	if !c.Sections && len(c.Include.Hostnames) > 0 && len(c.Include.Tags) == 0 && c.Require.IsZero() && c.Exclude.IsZero() {
		known["target_attributes"] = map[string]any{"hostname": c.Include.Hostnames}
		return known
	}
	for name, section := range map[string]control.Attributes{"include": c.Include, "require": c.Require, "exclude": c.Exclude} {
		of := map[string]any{}
		if len(section.Hostnames) > 0 {
			of["target_attributes"] = map[string]any{"hostname": section.Hostnames}
		}
		if len(section.Tags) > 0 {
			of["tags"] = section.Tags
		}
		if len(of) > 0 {
			known[name] = of
		}
	}
	return known
}

// ofDomain are the types of application that are reached by a domain, of which clients
// expect more.
var ofDomain = map[control.ApplicationType]bool{control.SelfHosted: true, control.SSH: true, "vnc": true, "rdp": true}

func showApplication(a control.ApplicationWithPolicies) (map[string]any, error) {
	policies, err := showPolicies(a.Policies)
	if err != nil {
		return nil, err
	}
	known := map[string]any{
		"id": a.ID, "uid": a.ID, "aud": a.Aud, "name": a.Name, "type": a.Type, "policies": policies,
		"created_at": a.CreatedAt.UTC(), "updated_at": a.UpdatedAt.UTC(),
	}
	if len(a.Criteria) > 0 {
		criteria := make([]map[string]any, len(a.Criteria))
		for i, c := range a.Criteria {
			criteria[i] = showCriterion(c)
		}
		known["target_criteria"] = criteria
	}
	if a.Domain != "" {
		known["domain"] = a.Domain
	}
	if len(a.Providers) > 0 {
		known["allowed_idps"] = a.Providers
	}
	all, err := shown(known, a.Extra)
	if err != nil || !ofDomain[a.Type] {
		return all, err
	}
	for name, value := range unsaid(a.Domain) {
		if said, is := all[name]; !is || isNull(said) {
			all[name] = value
		}
	}
	return all, nil
}

// isNull reports whether what was kept of a field says nothing.
func isNull(v any) bool {
	data, kept := v.(json.RawMessage)
	return kept && string(data) == "null"
}

// unsaid is what Cloudflare answers for an application of a domain where nothing was
// said.
func unsaid(domain string) map[string]any {
	fields := map[string]any{
		"session_duration": "24h", "allowed_idps": []string{}, "tags": []string{}, "app_launcher_visible": true, "auto_redirect_to_identity": false,
		"enable_binding_cookie": false, "http_only_cookie_attribute": true,
	}
	if domain != "" {
		fields["self_hosted_domains"] = []string{domain}
		fields["destinations"] = []map[string]string{{"type": "public", "uri": domain}}
	}
	return fields
}

// noApplication is what clients look for, by its text.
var noApplication = refusal{http.StatusNotFound, []fault{{Code: 11021, Message: "access.api.error.unknown_application"}}}

// unknownApplication says in Cloudflare's words that the application of a path is not
// there. Whatever else was not found, a field is blamed for.
func unknownApplication(err error) error {
	if trust.KindOf(err) == trust.NotFound && fieldOf(err) == "" {
		return &noApplication
	}
	return err
}

// oneApplication answers with an application.
func oneApplication(status int, a control.ApplicationWithPolicies, err error) (answer, error) {
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	result, err := showApplication(a)
	return answer{status: status, result: result}, err
}

// application returns the application that a path names.
func (d door) application(r *http.Request, a control.Actor) (control.ApplicationWithPolicies, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return control.ApplicationWithPolicies{}, unknownApplication(err)
	}
	app, err := d.plane.ShowApplication(r.Context(), a, id)
	return app, unknownApplication(err)
}

func (d door) createApplication(r *http.Request, a control.Actor) (answer, error) {
	asked, err := readApplication(r)
	if err != nil {
		return answer{}, err
	}
	app, err := d.plane.AddApplication(r.Context(), a, asked, again(r))
	return oneApplication(http.StatusCreated, app, err)
}

func (d door) showApplication(r *http.Request, a control.Actor) (answer, error) {
	app, err := d.application(r, a)
	return oneApplication(http.StatusOK, app, err)
}

func (d door) updateApplication(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	asked, err := readApplication(r)
	if err != nil {
		return answer{}, err
	}
	app, err := d.plane.SetApplication(r.Context(), a, id, control.Anew(asked))
	return oneApplication(http.StatusOK, app, err)
}

func (d door) removeApplication(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err == nil {
		err = d.plane.RemoveApplication(r.Context(), a, id)
	}
	return answer{status: http.StatusAccepted, result: removed{id}}, unknownApplication(err)
}

func (d door) listApplications(r *http.Request, a control.Actor) (answer, error) {
	filter, page, err := readApplicationFilter(queryOf(r))
	if err != nil {
		return answer{}, err
	}
	list, total, err := d.plane.ListApplications(r.Context(), a, filter, accessPage(page))
	if err != nil {
		return answer{}, err
	}
	result := make([]map[string]any, len(list)) // never null
	for i, app := range list {
		if result[i], err = showApplication(app); err != nil {
			return answer{}, err
		}
	}
	return answer{result: result, info: infoOf(page, len(list), total)}, nil
}

// readApplicationFilter reads what is asked of applications: parts of names and domains,
// unless they are to be exact.
func readApplicationFilter(q *query) (f control.ApplicationFilter, p control.CountedPage, err error) {
	p = q.page()
	f = control.ApplicationFilter{Aud: q.Get("aud"), Search: q.Get("search"), NamePart: q.Get("name"), DomainPart: q.Get("domain")}
	if read(q, "exact", "true or false", strconv.ParseBool) {
		f.Name, f.Domain, f.NamePart, f.DomainPart = f.NamePart, f.DomainPart, "", ""
	}
	if attribute := q.Get("target_attributes"); attribute != "" {
		name, value, _ := strings.Cut(attribute, "=")
		if name != "hostname" || value == "" {
			q.refuse("target_attributes", attribute, "of the form hostname=VALUE")
		}
		f.Hostname = value
	}
	return f, p, q.err
}
