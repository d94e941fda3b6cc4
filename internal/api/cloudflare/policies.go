package cloudflare

import (
	"encoding/json"
	"net/http"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// policy takes a policy. Fields that only answers have are dropped before.
func (f fields) policy() (p control.Policy, err error) {
	f.drop("reusable", "app_count")
	if err := f.takeAll(into{"name", &p.Name}, into{"decision", &p.Action}, into{"precedence", &p.Precedence}); err != nil {
		return p, err
	}
	if p.Expression, err = f.expression(); err != nil {
		return p, err
	}
	if p.SSH, err = f.sshRules(); err != nil {
		return p, err
	}
	p.Extra, err = f.extra()
	return p, err
}

// sshRules takes the connection rules on SSH, and leaves those on other protocols.
func (f fields) sshRules() (*control.SSHRules, error) {
	var rules, ssh fields
	if err := json.Unmarshal(orNull(f["connection_rules"]), &rules); err != nil {
		return nil, f.take("connection_rules", &rules) // says what is wrong
	}
	if err := rules.take("ssh", &ssh); err != nil || ssh == nil {
		return nil, within(err, "connection_rules")
	}
	var s control.SSHRules
	err := ssh.takeAll(into{"usernames", &s.Usernames}, into{"allow_email_alias", &s.EmailAlias})
	if err == nil && s.Usernames == nil {
		err = trust.Errorf(trust.Invalid, "usernames are missing").WithField("usernames")
	}
	if err := firstOf(err, ssh.none()); err != nil {
		return nil, within(err, "connection_rules.ssh")
	}
	f.drop("connection_rules")
	if len(rules) > 0 {
		if f["connection_rules"], err = rules.extra(); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

func orNull(data json.RawMessage) json.RawMessage {
	if data == nil {
		return json.RawMessage("null")
	}
	return data
}

// readPolicy reads a policy that has a path of its own.
func readPolicy(r *http.Request) (control.Policy, error) {
	f, err := readFields(r)
	if err != nil {
		return control.Policy{}, err
	}
	return f.policy()
}

func showPolicy(p control.Policy) (map[string]any, error) {
	known := map[string]any{
		"id": p.ID, "uid": p.ID, "name": p.Name, "decision": p.Action, "include": showRules(p.Include), "require": showRules(p.Require),
		"exclude": showRules(p.Exclude), "reusable": p.Reusable(), "created_at": p.CreatedAt.UTC(), "updated_at": p.UpdatedAt.UTC(),
	}
	if p.Precedence != 0 {
		known["precedence"] = p.Precedence
	}
	if p.Reusable() {
		known["app_count"] = p.Applications
	}
	if p.SSH != nil {
		ssh := map[string]any{"usernames": p.SSH.Usernames}
		if p.SSH.EmailAlias != nil {
			ssh["allow_email_alias"] = *p.SSH.EmailAlias
		}
		var extra struct {
			Rules json.RawMessage `json:"connection_rules"`
		}
		if len(p.Extra) > 0 {
			if err := json.Unmarshal(p.Extra, &extra); err != nil {
				return nil, err
			}
		}
		rules, err := shown(map[string]any{"ssh": ssh}, extra.Rules)
		if err != nil {
			return nil, err
		}
		known["connection_rules"] = rules
	}
	return shown(known, p.Extra)
}

func showPolicies(list []control.Policy) ([]map[string]any, error) {
	result := make([]map[string]any, len(list)) // never null
	for i, p := range list {
		var err error
		if result[i], err = showPolicy(p); err != nil {
			return nil, err
		}
	}
	return result, nil
}

// policy answers with a policy.
func policy(status int, p control.Policy, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	result, err := showPolicy(p)
	return answer{status: status, result: result}, err
}

// policyIn returns where a path says that a policy is, and its id.
func policyIn(r *http.Request) (in control.PolicyIn, id string, err error) {
	in.Reusable = r.PathValue("application") == ""
	if !in.Reusable {
		if in.Application, err = idOf(r, "application"); err != nil {
			return in, "", unknownApplication(err)
		}
	}
	id, err = idOf(r, "policy")
	return in, id, err
}

// listApplicationPolicies lists the policies of an application, its own and reusable
// ones, by their precedence. An application has no more of them than a page.
func (d door) listApplicationPolicies(r *http.Request, a control.Actor) (answer, error) {
	q := queryOf(r)
	page := q.page()
	app, err := d.application(r, a)
	if err != nil || q.err != nil {
		return answer{}, firstOf(err, q.err)
	}
	at := accessPage(page)
	from := min(at.Offset, len(app.Policies))
	result, err := showPolicies(app.Policies[from:min(from+at.Limit, len(app.Policies))])
	return answer{result: result, info: infoOf(page, len(result), len(app.Policies))}, err
}

func (d door) showApplicationPolicy(r *http.Request, a control.Actor) (answer, error) {
	app, err := d.application(r, a)
	if err != nil {
		return answer{}, err
	}
	for _, p := range app.Policies {
		if p.ID == r.PathValue("policy") {
			return policy(http.StatusOK, p, nil)
		}
	}
	return answer{}, trust.Errorf(trust.NotFound, "application %q has no policy %.80q", app.ID, r.PathValue("policy"))
}

func (d door) createApplicationPolicy(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "application")
	if err != nil {
		return answer{}, unknownApplication(err)
	}
	asked, err := readPolicy(r)
	if err != nil {
		return answer{}, err
	}
	p, err := d.plane.AddPolicy(r.Context(), a, id, asked, again(r))
	return policy(http.StatusCreated, p, unknownApplication(err))
}

func (d door) listPolicies(r *http.Request, a control.Actor) (answer, error) {
	q := queryOf(r)
	page := q.page()
	if q.err != nil {
		return answer{}, q.err
	}
	list, _, total, err := d.plane.ListReusablePolicies(r.Context(), a, accessPage(page))
	if err != nil {
		return answer{}, err
	}
	result, err := showPolicies(list)
	return answer{result: result, info: infoOf(page, len(list), total)}, err
}

func (d door) createPolicy(r *http.Request, a control.Actor) (answer, error) {
	asked, err := readPolicy(r)
	if err != nil {
		return answer{}, err
	}
	p, err := d.plane.AddPolicy(r.Context(), a, "", asked, again(r))
	return policy(http.StatusCreated, p, err)
}

func (d door) showPolicy(r *http.Request, a control.Actor) (answer, error) {
	in, id, err := policyIn(r)
	if err != nil {
		return answer{}, err
	}
	p, _, err := d.plane.ShowPolicy(r.Context(), a, in, id)
	return policy(http.StatusOK, p, err)
}

func (d door) updatePolicy(r *http.Request, a control.Actor) (answer, error) {
	in, id, err := policyIn(r)
	if err != nil {
		return answer{}, err
	}
	asked, err := readPolicy(r)
	if err != nil {
		return answer{}, err
	}
	p, err := d.plane.SetPolicy(r.Context(), a, in, id, control.Anew(asked))
	return policy(http.StatusOK, p, err)
}

func (d door) removePolicy(r *http.Request, a control.Actor) (answer, error) {
	in, id, err := policyIn(r)
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusAccepted, result: removed{id}}, d.plane.RemovePolicy(r.Context(), a, in, id)
}
