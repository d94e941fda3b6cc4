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
	mu      sync.Mutex
	shelves map[trust.TenantID]*shelf // guarded by mu
}

// A shelf has the rulebooks of one tenant: the latest that was asked for, and the one
// before it, which transactions that began before a change ask for beside it.
type shelf struct {
	books [2]book // guarded by Books.mu

	// making is held by who compiles a rulebook. Others wait for theirs.
	making sync.Mutex
	// documents are what the policies of the latest say, by their texts, so that a
	// change of one does not read all. Guarded by making.
	documents map[string]policyDocument
}

type book struct {
	version string
	rules   *policy.Rulebook
}

// NewBooks returns Books that hold nothing yet.
func NewBooks() *Books { return &Books{shelves: map[trust.TenantID]*shelf{}} }

// maxBooks bounds of how many tenants rulebooks are held.
const maxBooks = 100

// Of returns the rulebook of the transaction's tenant as the transaction sees it.
func (b *Books) Of(tx *store.Tx) (*policy.Rulebook, error) {
	version := ""
	if err := tx.QueryRow(sqlVersion, tx.Tenant()).Scan(&version); err != nil && !isNoRows(err) {
		return nil, err
	}
	s := b.shelf(tx.Tenant())
	if rules := b.find(s, version); rules != nil {
		return rules, nil
	}
	s.making.Lock()
	defer s.making.Unlock()
	if rules := b.find(s, version); rules != nil { // somebody else made it
		return rules, nil
	}
	model, documents, err := readModel(tx, s.documents)
	if err != nil {
		return nil, err
	}
	rules := policy.Compile(model)
	s.documents = documents
	b.mu.Lock()
	defer b.mu.Unlock()
	s.books = [2]book{{version, rules}, s.books[0]}
	return rules, nil
}

func (b *Books) shelf(tenant trust.TenantID) *shelf {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.shelves[tenant]
	if !ok {
		if len(b.shelves) >= maxBooks {
			clear(b.shelves)
		}
		s = &shelf{}
		b.shelves[tenant] = s
	}
	return s
}

// find returns the rulebook of a version, or nil where a shelf does not have it.
func (b *Books) find(s *shelf, version string) *policy.Rulebook {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, held := range s.books {
		if held.version == version {
			return held.rules
		}
	}
	return nil
}

// readModel returns all rules of the transaction's tenant, and what the documents of its
// policies say, by their texts. Those that are known it does not read again.
func readModel(tx *store.Tx, known map[string]policyDocument) (m policy.Model, documents map[string]policyDocument, err error) {
	apps, err := applications(tx, sqlApplications+` ORDER BY id`, tx.Tenant())
	if err != nil {
		return m, nil, err
	}
	byID, documents := map[string]Policy{}, map[string]policyDocument{}
	err = rows(tx, func(row *sql.Rows) error {
		var p Policy
		var text string
		if err := row.Scan(&p.ID, &p.Name, &p.Action, &text); err != nil {
			return err
		}
		d, ok := known[text]
		if !ok {
			if err := json.Unmarshal([]byte(text), &d); err != nil {
				return err
			}
		}
		documents[text] = d
		p.Expression, p.SSH, p.Extra = d.Expression, d.SSH, d.Extra
		byID[p.ID] = p
		return nil
	}, sqlAllPolicies, tx.Tenant())
	if err != nil {
		return m, nil, err
	}
	of := map[string][]Policy{}
	err = rows(tx, func(row *sql.Rows) error {
		var application, id string
		err := row.Scan(&application, &id)
		of[application] = append(of[application], byID[id])
		return err
	}, sqlPlaces, tx.Tenant())
	if err != nil {
		return m, nil, err
	}
	for _, a := range apps {
		m.Applications = append(m.Applications, a.decides(of[a.ID]))
	}
	err = modelSets(tx, &m)
	return m, documents, err
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
