package access

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Policy is a policy.Policy as it was written.
type Policy struct {
	ID string
	// Application is the id of the application whose own it is, or empty for a
	// reusable one, which any application may have.
	Application string
	// Precedence is its place among the policies of an application: from 1 on,
	// the least first. A reusable policy has one in each of its applications.
	Precedence int
	Name       string
	Action     policy.Action
	policy.Expression
	SSH *SSHRules
	// Extra is a JSON object of what else was said of it, or empty.
	Extra     json.RawMessage
	CreatedAt time.Time
	UpdatedAt time.Time
	// Applications is how many applications have a reusable policy.
	Applications int
}

// SSHRules are policy.SSHRules as they were written.
type SSHRules struct {
	Usernames []string `json:"usernames"`
	// EmailAlias is nil where nothing was said of it.
	EmailAlias *bool `json:"email_alias,omitempty"`
}

// Reusable reports whether any application may have p.
func (p Policy) Reusable() bool { return p.Application == "" }

// policyDocument is what the column of that name holds.
type policyDocument struct {
	policy.Expression
	SSH   *SSHRules       `json:"ssh,omitempty"`
	Extra json.RawMessage `json:"extra,omitempty"`
}

// AddPolicy adds a policy: to its application, at its precedence or, where that is
// 0, behind all others; or a reusable one. Errors: Invalid; NotFound, for the
// application; Conflict about the precedence, where another has it; Exhausted.
func AddPolicy(tx *store.Tx, p Policy) (Policy, error) {
	document, err := p.check()
	if err != nil {
		return Policy{}, err
	}
	if p.Reusable() {
		p.Precedence = 0
		n := 0
		if err := tx.QueryRow(sqlCountReusable, tx.Tenant()).Scan(&n); err != nil {
			return Policy{}, err
		}
		if n >= MaxReusable {
			return Policy{}, trust.Errorf(trust.Exhausted, "there are %d reusable policies, as many as there can be", n)
		}
	}
	if err := checkTotal(tx, len(p.rules())); err != nil {
		return Policy{}, err
	}
	p.CreatedAt, p.UpdatedAt = tx.Now(), tx.Now()
	_, err = tx.Exec(sqlAddPolicy, tx.Tenant(), p.ID, p.Application, p.Name, p.Action, len(p.rules()), document, store.Micros(tx.Now()))
	if err != nil {
		return Policy{}, err
	}
	if !p.Reusable() {
		if p.Precedence, err = place(tx, p.Application, p); err != nil {
			return Policy{}, err
		}
	}
	return p, changed(tx)
}

// UsePolicy gives an application a reusable policy, at a precedence or, where that is
// 0, behind all others. One that it has moves there. Errors: NotFound; Conflict;
// Exhausted.
func UsePolicy(tx *store.Tx, application, id string, precedence int) (Policy, error) {
	p, err := PolicyByID(tx, id)
	if err != nil {
		return Policy{}, err
	}
	if !p.Reusable() {
		return Policy{}, trust.Errorf(trust.Conflict, "policy %q belongs to one application and is not reusable", p.Name)
	}
	if _, err := tx.Exec(sqlUnplacePolicy, tx.Tenant(), application, id); err != nil {
		return Policy{}, err
	}
	p.Precedence = precedence
	if p.Precedence, err = place(tx, application, p); err != nil {
		return Policy{}, err
	}
	return p, changed(tx)
}

// place gives a policy its place in an application and returns the precedence.
func place(tx *store.Tx, application string, p Policy) (int, error) {
	a, err := ApplicationByID(tx, application)
	if err != nil {
		return 0, err
	}
	if err := p.fits(a); err != nil {
		return 0, err
	}
	all, err := Policies(tx, application)
	if err != nil {
		return 0, err
	}
	if len(all) >= MaxPolicies {
		return 0, trust.Errorf(trust.Exhausted, "application %q has %d policies, as many as it can have", a.called(), len(all))
	}
	if p.Precedence == 0 {
		p.Precedence = 1
		if len(all) > 0 {
			p.Precedence = all[len(all)-1].Precedence + 1
		}
	}
	for _, other := range all {
		if other.Precedence == p.Precedence {
			return 0, trust.Errorf(trust.Conflict, "policy %q of application %q has the precedence %d already", other.Name, a.called(), p.Precedence).WithField("precedence")
		}
	}
	_, err = tx.Exec(sqlPlacePolicy, tx.Tenant(), application, p.Precedence, p.ID)
	return p.Precedence, err
}

// SetPolicy writes a policy anew: all but its application, and where it is one's own,
// its precedence too unless that is 0. Errors as of AddPolicy.
func SetPolicy(tx *store.Tx, p Policy) (Policy, error) {
	was, err := PolicyByID(tx, p.ID)
	if err != nil {
		return Policy{}, err
	}
	p.Application, p.CreatedAt, p.UpdatedAt, p.Applications = was.Application, was.CreatedAt, tx.Now(), was.Applications
	document, err := p.check()
	if err != nil {
		return Policy{}, err
	}
	if err := checkTotal(tx, len(p.rules())-len(was.rules())); err != nil {
		return Policy{}, err
	}
	users, err := applications(tx, sqlApplicationsWithPolicy, tx.Tenant(), p.ID)
	if err != nil {
		return Policy{}, err
	}
	for _, a := range users {
		if err := p.fits(a); err != nil {
			return Policy{}, err
		}
	}
	if _, err := tx.Exec(sqlSetPolicy, tx.Tenant(), p.ID, p.Name, p.Action, len(p.rules()), document, store.Micros(tx.Now())); err != nil {
		return Policy{}, err
	}
	switch {
	case p.Reusable() || p.Precedence == 0:
		p.Precedence = was.Precedence
	case p.Precedence != was.Precedence:
		if _, err := tx.Exec(sqlUnplacePolicy, tx.Tenant(), p.Application, p.ID); err != nil {
			return Policy{}, err
		}
		if _, err := place(tx, p.Application, p); err != nil {
			return Policy{}, err
		}
	}
	return p, changed(tx)
}

// SetPolicies gives an application exactly the policies of list, in the order of their
// precedences where they say one, and else as they stand. One that says an id and no
// more than its precedence is the policy of that id as it is, its own or a reusable one;
// a reusable one is so whatever else is said of it. One that is its own, by its id, is
// written anew, and every other is added as its own. Errors as of AddPolicy.
func SetPolicies(tx *store.Tx, application string, list []Policy) error {
	was, err := Policies(tx, application)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(sqlUnplaceAll, tx.Tenant(), application); err != nil {
		return err
	}
	named := map[string]bool{}
	for _, p := range list {
		if named[p.ID] {
			return trust.Errorf(trust.Invalid, "policy %.80q is named twice", p.ID).WithField("policies")
		}
		named[p.ID] = true
	}
	for _, old := range was {
		if old.Reusable() || named[old.ID] {
			continue
		}
		if _, err := tx.Exec(sqlRemovePolicy, tx.Tenant(), old.ID); err != nil {
			return err
		}
	}
	for _, p := range list {
		if err := setOne(tx, application, p); err != nil {
			return err
		}
	}
	return changed(tx)
}

// setOne gives an application a policy, which has no place there.
func setOne(tx *store.Tx, application string, p Policy) error {
	is, err := PolicyByID(tx, p.ID)
	there, bare := err == nil, p.Name == "" && len(p.rules()) == 0
	switch {
	case err != nil && (trust.KindOf(err) != trust.NotFound || bare):
		return blame(err, "policies")
	case there && is.Reusable():
		_, err = UsePolicy(tx, application, p.ID, p.Precedence)
		return err
	case there && is.Application != application:
		return trust.Errorf(trust.Conflict, "policy %q belongs to another application", is.Name).WithField("policies")
	case !there:
		p.Application = application
		_, err = AddPolicy(tx, p)
		return err
	}
	precedence := p.Precedence
	if p.Precedence = 0; bare {
		p = is
	} else if p, err = SetPolicy(tx, p); err != nil {
		return err
	}
	p.Precedence = precedence
	_, err = place(tx, application, p)
	return err
}

// RemovePolicy removes a policy. Errors: NotFound; Conflict, of a reusable one that
// applications have.
func RemovePolicy(tx *store.Tx, id string) error {
	p, err := PolicyByID(tx, id)
	if err != nil {
		return err
	}
	if p.Reusable() && p.Applications > 0 {
		return trust.Errorf(trust.Conflict, "policy %q is in use by %d applications", p.Name, p.Applications)
	}
	if _, err := tx.Exec(sqlUnplacePolicy, tx.Tenant(), p.Application, id); err != nil {
		return err
	}
	if _, err := tx.Exec(sqlRemovePolicy, tx.Tenant(), id); err != nil {
		return err
	}
	return changed(tx)
}

// PolicyByID returns the policy of an id, or a NotFound error.
func PolicyByID(tx *store.Tx, id string) (Policy, error) {
	list, err := policies(tx, sqlPolicies+` WHERE p.tenant = $1 AND p.id = $2`, tx.Tenant(), id)
	return only(list, err, "policy", id)
}

// Policies lists the policies of an application, its own and reusable ones, by their
// precedence.
func Policies(tx *store.Tx, application string) ([]Policy, error) {
	all, err := PoliciesOf(tx, []string{application})
	return all[application], err
}

// PoliciesOf lists the policies of up to 1,000 applications.
func PoliciesOf(tx *store.Tx, applications []string) (map[string][]Policy, error) {
	all := map[string][]Policy{}
	if len(applications) == 0 {
		return all, nil
	}
	wanted, args := placeholders(tx, applications)
	err := rows(tx, func(row *sql.Rows) error {
		application := ""
		p, err := scanPolicy(row, &application)
		all[application] = append(all[application], p)
		return err
	}, fmt.Sprintf(sqlPoliciesOf, wanted), args...)
	return all, err
}

// ReusablePolicies lists a page of the reusable policies, and counts them all.
func ReusablePolicies(tx *store.Tx, page Page) (list []Policy, total int, err error) {
	if page, err = page.check(); err != nil {
		return nil, 0, err
	}
	if err := tx.QueryRow(sqlCountReusable, tx.Tenant()).Scan(&total); err != nil {
		return nil, 0, err
	}
	list, err = policies(tx, sqlReusablePolicies, tx.Tenant(), page.After, page.Limit, page.Offset)
	return list, total, err
}

func policies(tx *store.Tx, query string, args ...any) (list []Policy, err error) {
	err = rows(tx, func(row *sql.Rows) error {
		p, err := scanPolicy(row)
		list = append(list, p)
		return err
	}, query, args...)
	return list, err
}

// scanPolicy reads a row, whose first columns may be others.
func scanPolicy(row *sql.Rows, before ...any) (p Policy, err error) {
	var document []byte
	var created, updated int64
	err = row.Scan(append(before, &p.ID, &p.Application, &p.Precedence, &p.Name, &p.Action, &document, &created, &updated, &p.Applications)...)
	if err != nil {
		return Policy{}, err
	}
	var d policyDocument
	if err := json.Unmarshal(document, &d); err != nil {
		return Policy{}, err
	}
	p.Expression, p.SSH, p.Extra = d.Expression, d.SSH, d.Extra
	p.CreatedAt, p.UpdatedAt = store.Time(created), store.Time(updated)
	return p, nil
}

func (p Policy) rules() []policy.Rule { return slices.Concat(p.Include, p.Require, p.Exclude) }

// UnusePolicy takes a reusable policy away from an application. Errors: NotFound.
func UnusePolicy(tx *store.Tx, application, id string) error {
	n, err := tx.Exec(sqlUnplacePolicy, tx.Tenant(), application, id)
	if err == nil && n == 0 {
		err = notFound("policy", id)
	}
	if err != nil {
		return err
	}
	return changed(tx)
}
