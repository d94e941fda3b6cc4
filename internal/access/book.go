package access

import (
	"database/sql"
	"encoding/json"
	"slices"
	"sync"

	"github.com/google/uuid"

	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// changed leaves another version behind. It follows every change.
func changed(tx *store.Tx) error {
	_, err := tx.Exec(sqlPutVersion, tx.Tenant(), uuid.NewString())
	return err
}

// Books holds the rulebooks of tenants as they were last asked for. It may be used
// from any goroutine.
type Books struct {
	mu    sync.Mutex
	books map[trust.TenantID]book // guarded by mu
}

type book struct {
	version string
	rules   *policy.Rulebook
}

// NewBooks returns Books that hold nothing yet.
func NewBooks() *Books { return &Books{books: map[trust.TenantID]book{}} }

// maxBooks bounds how many tenants' rulebooks are held.
const maxBooks = 100

// Of returns the rulebook of the transaction's tenant as the transaction sees it.
func (b *Books) Of(tx *store.Tx) (*policy.Rulebook, error) {
	version := ""
	if err := tx.QueryRow(sqlVersion, tx.Tenant()).Scan(&version); err != nil && !isNoRows(err) {
		return nil, err
	}
	b.mu.Lock()
	held, ok := b.books[tx.Tenant()]
	b.mu.Unlock()
	if ok && held.version == version {
		return held.rules, nil
	}
	model, err := Model(tx)
	if err != nil {
		return nil, err
	}
	rules := policy.Compile(model)
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.books) >= maxBooks {
		clear(b.books)
	}
	b.books[tx.Tenant()] = book{version, rules}
	return rules, nil
}

// Model returns all rules of the transaction's tenant.
func Model(tx *store.Tx) (m policy.Model, err error) {
	apps, err := applications(tx, sqlApplications+` ORDER BY id`, tx.Tenant())
	if err != nil {
		return m, err
	}
	all, err := policies(tx, sqlAllPolicies, tx.Tenant())
	if err != nil {
		return m, err
	}
	byID := map[string]Policy{}
	for _, p := range all {
		byID[p.ID] = p
	}
	of := map[string][]Policy{}
	err = rows(tx, func(row *sql.Rows) error {
		var application, id string
		err := row.Scan(&application, &id)
		of[application] = append(of[application], byID[id])
		return err
	}, sqlPlaces, tx.Tenant())
	if err != nil {
		return m, err
	}
	for _, a := range apps {
		m.Applications = append(m.Applications, a.decides(of[a.ID]))
	}
	return m, modelSets(tx, &m)
}

func modelSets(tx *store.Tx, m *policy.Model) error {
	all := Page{Limit: MaxSets}
	found, _, err := Groups(tx, GroupFilter{}, all)
	if err != nil {
		return err
	}
	for _, g := range found {
		m.Groups = append(m.Groups, policy.Group{ID: g.ID, Name: g.Name, Expression: g.Expression})
	}
	lists, _, err := IPLists(tx, all)
	if err != nil {
		return err
	}
	for _, l := range lists {
		networks, err := prefixes(l.Addresses)
		if err != nil {
			return err
		}
		m.IPLists = append(m.IPLists, policy.IPList{ID: l.ID, Name: l.Name, Prefixes: networks})
	}
	return nil
}

// decides returns what an application with its policies decides.
func (a Application) decides(policies []Policy) policy.Application {
	out := policy.Application{ID: a.ID, Name: a.called(), Type: a.Type, Providers: a.Providers}
	for _, c := range a.Criteria {
		out.Criteria = append(out.Criteria, c.Criterion)
	}
	for _, p := range policies {
		one := policy.Policy{ID: p.ID, Name: p.Name, Action: p.Action, Expression: p.Expression, Demands: demands(a.Extra, p.Extra)}
		if p.SSH != nil {
			one.SSH = &policy.SSHRules{Usernames: p.SSH.Usernames, EmailAlias: p.SSH.EmailAlias != nil && *p.SSH.EmailAlias}
		}
		out.Policies = append(out.Policies, one)
	}
	return out
}

// asks is what the Extra of a policy can ask of people that Keyturn does not see to,
// by the names of Cloudflare's API.
var asks = []struct{ name, what string }{
	{"approval_required", "the approval of somebody else"},
	{"isolation_required", "an isolated browser"},
	{"purpose_justification_required", "a reason, given at the login"},
}

// demands returns what an application and a policy of it ask besides rules.
func demands(application, policy json.RawMessage) (list []string) {
	app, own := members(application), members(policy)
	for _, ask := range asks {
		if value, asked := own[ask.name]; asked && !slices.Contains([]string{"false", "null"}, string(value)) {
			list = append(list, ask.what)
		}
	}
	mfa, said := own["mfa_config"]
	if !said || string(mfa) == "null" { // the policy's own goes before the application's
		mfa = app["mfa_config"]
	}
	var config struct {
		Disabled bool `json:"mfa_disabled"`
	}
	if len(mfa) > 0 && string(mfa) != "null" && (json.Unmarshal(mfa, &config) != nil || !config.Disabled) {
		list = append(list, "a second factor of its own")
	}
	return list
}

// members returns the members of an object, or none.
func members(object json.RawMessage) map[string]json.RawMessage {
	var m map[string]json.RawMessage
	_ = json.Unmarshal(object, &m) // was checked when it was written
	return m
}
