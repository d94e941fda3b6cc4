package access

import (
	"encoding/json"
	"slices"
	"time"

	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Limits of tests of policies.
const (
	MaxTests     = 100            // of one tenant: the oldest goes for one more
	MaxTestAge   = 24 * time.Hour // older ones go with the next
	maxTestRules = 10000          // in the policies of one test
)

// A PolicyTest is a list of policies that are tried on users, in this order.
type PolicyTest struct {
	ID        string
	Policies  []Policy
	CreatedAt time.Time
}

// testedPolicy is a policy in the column document.
type testedPolicy struct {
	ID     string        `json:"id"`
	Name   string        `json:"name"`
	Action policy.Action `json:"action"`
	policyDocument
}

// AddTest keeps a test. Of each policy that has an id and no name, it is the one of that
// id as it is now; every other gets an id. Errors: Invalid; NotFound.
func AddTest(tx *store.Tx, id string, list []Policy) (PolicyTest, error) {
	if len(list) == 0 || len(list) > MaxPolicies {
		return PolicyTest{}, trust.Errorf(trust.Invalid, "%d policies are not 1 to %d", len(list), MaxPolicies).WithField("policies")
	}
	t := PolicyTest{ID: id, CreatedAt: tx.Now()}
	var documents []testedPolicy
	rules := 0
	for _, p := range list {
		var err error
		if p.ID != "" && p.Name == "" {
			p, err = PolicyByID(tx, p.ID)
		} else {
			p.ID = NewID()
			_, err = p.check()
		}
		if err != nil {
			return PolicyTest{}, blame(err, "policies")
		}
		if slices.ContainsFunc(t.Policies, func(other Policy) bool { return other.ID == p.ID }) {
			return PolicyTest{}, trust.Errorf(trust.Invalid, "policy %q is named twice", p.Name).WithField("policies")
		}
		rules += len(p.rules())
		t.Policies = append(t.Policies, p)
		documents = append(documents, testedPolicy{p.ID, p.Name, p.Action, policyDocument{p.Expression, p.SSH, p.Extra}})
	}
	if rules > maxTestRules {
		return PolicyTest{}, trust.Errorf(trust.Invalid, "%d rules are more than %d", rules, maxTestRules).WithField("policies")
	}
	text, err := json.Marshal(documents)
	if err != nil {
		return PolicyTest{}, err
	}
	if _, err := tx.Exec(sqlAddTest, tx.Tenant(), t.ID, string(text), store.Micros(t.CreatedAt)); err != nil {
		return PolicyTest{}, err
	}
	_, err = tx.Exec(sqlForgetTests, tx.Tenant(), store.Micros(tx.Now().Add(-MaxTestAge)), MaxTests)
	return t, err
}

// TestByID returns the test of an id, or a NotFound error.
func TestByID(tx *store.Tx, id string) (PolicyTest, error) {
	t := PolicyTest{ID: id}
	var text []byte
	var created int64
	err := tx.QueryRow(sqlTest, tx.Tenant(), id).Scan(&text, &created)
	if isNoRows(err) {
		return PolicyTest{}, notFound("test of policies", id)
	}
	if err != nil {
		return PolicyTest{}, err
	}
	t.CreatedAt = store.Time(created)
	if tx.Now().Sub(t.CreatedAt) > MaxTestAge {
		return PolicyTest{}, notFound("test of policies", id)
	}
	var documents []testedPolicy
	if err := json.Unmarshal(text, &documents); err != nil {
		return PolicyTest{}, err
	}
	for _, d := range documents {
		t.Policies = append(t.Policies, Policy{ID: d.ID, Name: d.Name, Action: d.Action, Expression: d.Expression, SSH: d.SSH, Extra: d.Extra})
	}
	return t, nil
}

// Trial compiles policies as if an application with the id TrialOf had them, together with
// the groups and lists of the transaction's tenant; and each by itself, as the only one
// of an application with the policy's id. What the application asks for besides, it has of
// another one, or of none.
func Trial(tx *store.Tx, of Application, policies []Policy) (*policy.Rulebook, error) {
	a := Application{ID: TrialOf, Type: policy.SelfHosted, Providers: of.Providers, Extra: of.Extra}
	m := policy.Model{Applications: []policy.Application{a.decides(policies)}}
	for _, p := range policies {
		a.ID = p.ID
		m.Applications = append(m.Applications, a.decides([]Policy{p}))
	}
	if err := modelSets(tx, &m); err != nil {
		return nil, err
	}
	return policy.Compile(m), nil
}

// TrialOf is the id of the application that Trial gives all policies.
const TrialOf = "trial"
