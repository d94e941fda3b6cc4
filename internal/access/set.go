package access

import (
	"database/sql"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keyturn/internal/policy"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Groups and lists of networks are what rules name by an id. They lie in one table.

// A Group is a policy.Group as it was written.
type Group struct {
	ID   string
	Name string
	policy.Expression
	// Extra is a JSON object of what else was said of it, or empty.
	Extra     json.RawMessage
	CreatedAt time.Time
	UpdatedAt time.Time
}

// An IPList is a policy.IPList as it was written.
type IPList struct {
	ID   string
	Name string
	// Addresses are addresses and networks, as policy.ParsePrefix reads them.
	Addresses []string
	// Extra is a JSON object of what else was said of it, or empty.
	Extra     json.RawMessage
	CreatedAt time.Time
	UpdatedAt time.Time
}

// The kinds of set, as the column has them.
const (
	groups  = "group"
	ipLists = "ip_list"
)

// setDocument is what the column of that name holds.
type setDocument struct {
	policy.Expression
	Addresses []string        `json:"addresses,omitempty"`
	Extra     json.RawMessage `json:"extra,omitempty"`
}

// A set is a row.
type set struct {
	kind, id, name string
	rules          int
	document       setDocument
	created        time.Time
	updated        time.Time
}

// PutGroup adds a group, or writes the one of its id anew. Errors: Invalid, also of one
// that would be a part of itself; Exhausted.
func PutGroup(tx *store.Tx, g Group) (Group, error) {
	if err := checkExpression(g.Expression); err != nil {
		return Group{}, err
	}
	if err := checkAcyclic(tx, g); err != nil {
		return Group{}, err
	}
	count := len(g.Include) + len(g.Require) + len(g.Exclude)
	s, err := putSet(tx, set{groups, g.ID, g.Name, count, setDocument{Expression: g.Expression, Extra: g.Extra}, time.Time{}, time.Time{}})
	g.CreatedAt, g.UpdatedAt = s.created, s.updated
	return g, err
}

// PutIPList adds a list of networks, or writes the one of its id anew. Errors: Invalid;
// Exhausted.
func PutIPList(tx *store.Tx, l IPList) (IPList, error) {
	if len(l.Addresses) > MaxAddresses {
		return IPList{}, trust.Errorf(trust.Invalid, "a list of %d addresses is longer than %d", len(l.Addresses), MaxAddresses).WithField("addresses")
	}
	if _, err := prefixes(l.Addresses); err != nil {
		return IPList{}, err
	}
	s, err := putSet(tx, set{ipLists, l.ID, l.Name, len(l.Addresses), setDocument{Addresses: l.Addresses, Extra: l.Extra}, time.Time{}, time.Time{}})
	l.CreatedAt, l.UpdatedAt = s.created, s.updated
	return l, err
}

func prefixes(addresses []string) ([]netip.Prefix, error) {
	list := make([]netip.Prefix, len(addresses))
	for i, text := range addresses {
		prefix, err := policy.ParsePrefix(text)
		if err != nil {
			return nil, blame(err, "addresses")
		}
		list[i] = prefix
	}
	return list, nil
}

func putSet(tx *store.Tx, s set) (set, error) {
	if err := checkNamed(s.id, s.name, s.document.Extra, false); err != nil {
		return set{}, err
	}
	document, err := encode(s.document)
	if err != nil {
		return set{}, err
	}
	was, err := sets(tx, s.kind, s.id, Page{Limit: 1})
	if err != nil {
		return set{}, err
	}
	s.created, s.updated = tx.Now(), tx.Now()
	more := s.rules
	if len(was) > 0 {
		s.created = was[0].created
		more -= was[0].rules
	} else if err := checkSets(tx, s.kind); err != nil {
		return set{}, err
	}
	if err := checkTotal(tx, more); err != nil {
		return set{}, err
	}
	_, err = tx.Exec(sqlPutSet, tx.Tenant(), s.kind, s.id, s.name, s.rules, document, store.Micros(s.created), store.Micros(s.updated))
	if err != nil {
		return set{}, err
	}
	return s, changed(tx)
}

func checkSets(tx *store.Tx, kind string) error {
	n := 0
	if err := tx.QueryRow(sqlCountSets, tx.Tenant(), kind).Scan(&n); err != nil {
		return err
	}
	if n >= MaxSets {
		return trust.Errorf(trust.Exhausted, "there are %d of kind %q, as many as there can be", n, kind)
	}
	return nil
}

// checkAcyclic refuses a group that would be a part of itself.
func checkAcyclic(tx *store.Tx, g Group) error {
	all, err := sets(tx, groups, "", Page{Limit: MaxSets})
	if err != nil {
		return err
	}
	parts := map[string]policy.Expression{}
	for _, s := range all {
		parts[s.id] = s.document.Expression
	}
	parts[g.ID] = g.Expression
	seen := map[string]bool{}
	var reaches func(policy.Expression) bool
	reaches = func(e policy.Expression) bool {
		return slices.ContainsFunc(slices.Concat(e.Include, e.Require, e.Exclude), func(r policy.Rule) bool {
			if r.Kind != policy.InGroup || seen[r.Value] {
				return false
			}
			seen[r.Value] = true
			return r.Value == g.ID || reaches(parts[r.Value])
		})
	}
	if reaches(g.Expression) {
		return trust.Errorf(trust.Invalid, "group %q would be a part of itself", g.Name).WithField("include")
	}
	return nil
}

// RemoveGroup removes a group. Errors: NotFound; Conflict, where a rule names it.
func RemoveGroup(tx *store.Tx, id string) error { return removeSet(tx, groups, id) }

// RemoveIPList removes a list of networks. Errors: NotFound; Conflict, where a rule
// names it.
func RemoveIPList(tx *store.Tx, id string) error { return removeSet(tx, ipLists, id) }

func removeSet(tx *store.Tx, kind, id string) error {
	found, err := sets(tx, kind, id, Page{Limit: 1})
	if err != nil {
		return err
	}
	if len(found) == 0 {
		return notFound(kind, id)
	}
	name := ""
	err = tx.QueryRow(sqlSetUsedBy, tx.Tenant(), `%"`+kind+`":{"id":"`+id+`"}%`).Scan(&name)
	if err == nil {
		return trust.Errorf(trust.Conflict, "%s %q is named by a rule of %q", kind, found[0].name, name)
	}
	if !isNoRows(err) {
		return err
	}
	if _, err := tx.Exec(sqlRemoveSet, tx.Tenant(), kind, id); err != nil {
		return err
	}
	return changed(tx)
}

// GroupByID returns the group of an id, or a NotFound error.
func GroupByID(tx *store.Tx, id string) (Group, error) {
	list, err := sets(tx, groups, id, Page{Limit: 1})
	s, err := only(list, err, groups, id)
	return s.group(), err
}

// IPListByID returns the list of networks of an id, or a NotFound error.
func IPListByID(tx *store.Tx, id string) (IPList, error) {
	list, err := sets(tx, ipLists, id, Page{Limit: 1})
	s, err := only(list, err, ipLists, id)
	return s.ipList(), err
}

// FindGroup returns the group of an id or a name. Errors: NotFound; Conflict, where
// several have that name.
func FindGroup(tx *store.Tx, idOrName string) (Group, error) {
	s, err := findSet(tx, groups, idOrName)
	return s.group(), err
}

// FindIPList returns the list of networks of an id or a name. Errors as of FindGroup.
func FindIPList(tx *store.Tx, idOrName string) (IPList, error) {
	s, err := findSet(tx, ipLists, idOrName)
	return s.ipList(), err
}

func findSet(tx *store.Tx, kind, idOrName string) (set, error) {
	list, err := readSets(tx, kind, sqlFindSet, tx.Tenant(), kind, idOrName)
	if err == nil && len(list) == 2 && list[0].id != idOrName {
		return set{}, ambiguous(strings.ReplaceAll(kind, "_", " ")+"s", idOrName)
	}
	return only(first(list), err, kind, idOrName)
}

// A GroupFilter says which groups are listed: those for which all of it is so that is
// not empty.
type GroupFilter struct {
	Name string
	// Search is a part of the name, without regard to case.
	Search string
}

// Groups lists a page of the groups that a filter lets through, and counts all of them.
func Groups(tx *store.Tx, f GroupFilter, page Page) (list []Group, total int, err error) {
	if page, err = page.check(); err != nil {
		return nil, 0, err
	}
	if err := tx.QueryRow(sqlCountGroups, tx.Tenant(), f.Name, likeText(f.Search)).Scan(&total); err != nil {
		return nil, 0, err
	}
	found, err := readSets(tx, groups, sqlListGroups, tx.Tenant(), f.Name, likeText(f.Search), page.After, page.Limit, page.Offset)
	for _, s := range found {
		list = append(list, s.group())
	}
	return list, total, err
}

// IPLists lists a page of the lists of networks, and counts them all.
func IPLists(tx *store.Tx, page Page) (list []IPList, total int, err error) {
	if page, err = page.check(); err != nil {
		return nil, 0, err
	}
	if err := tx.QueryRow(sqlCountSets, tx.Tenant(), ipLists).Scan(&total); err != nil {
		return nil, 0, err
	}
	found, err := sets(tx, ipLists, "", page)
	for _, s := range found {
		list = append(list, s.ipList())
	}
	return list, total, err
}

// sets returns the sets of a kind: that of an id, or a page of all.
func sets(tx *store.Tx, kind, id string, page Page) ([]set, error) {
	return readSets(tx, kind, sqlSets, tx.Tenant(), kind, id, page.After, page.Limit, page.Offset)
}

func readSets(tx *store.Tx, kind, query string, args ...any) (list []set, err error) {
	err = rows(tx, func(row *sql.Rows) error {
		s := set{kind: kind}
		var document []byte
		var created, updated int64
		if err := row.Scan(&s.id, &s.name, &s.rules, &document, &created, &updated); err != nil {
			return err
		}
		s.created, s.updated = store.Time(created), store.Time(updated)
		list = append(list, s)
		return json.Unmarshal(document, &list[len(list)-1].document)
	}, query, args...)
	return list, err
}

func (s set) group() Group {
	return Group{s.id, s.name, s.document.Expression, s.document.Extra, s.created, s.updated}
}

func (s set) ipList() IPList {
	return IPList{s.id, s.name, s.document.Addresses, s.document.Extra, s.created, s.updated}
}
