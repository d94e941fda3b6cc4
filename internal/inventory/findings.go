package inventory

import (
	"database/sql"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// findingNamespace is the namespace of finding ids (RFC 9562, section 5.5).
var findingNamespace = uuid.MustParse("5b0f3d5e-7d40-4a86-9b0d-0a5c1f3b8f62")

// SetKeyFindings makes found the findings that follow from a key as a whole,
// and reports whether that changed any. A finding that was there before keeps
// its id and Since. Of each kind a key has at most one.
func SetKeyFindings(tx *store.Tx, key trust.KeyID, found []Finding) (bool, error) {
	for i := range found {
		found[i].Key = key
		found[i].ID = findingID(tx, "key:"+string(key), string(found[i].Kind))
	}
	return setFindings(tx, "key:"+string(key), found)
}

// SetHostFindings makes found the findings that follow from a host and the
// lines on it, and reports whether that changed any. A finding that was there
// before, of that kind, key and file, keeps its id and Since.
func SetHostFindings(tx *store.Tx, host trust.HostID, found []Finding) (bool, error) {
	count := make(map[string]int)
	for i := range found {
		f := &found[i]
		f.Place.Host = host
		name := fmt.Sprintf("%s\x00%s\x00%s\x00%s", f.Kind, f.Key, f.Place.User, f.Place.Path)
		f.ID = findingID(tx, "host:"+string(host), name+"\x00"+strconv.Itoa(count[name]))
		count[name]++
	}
	return setFindings(tx, "host:"+string(host), found)
}

func findingID(tx *store.Tx, scope, name string) string {
	return uuid.NewSHA1(findingNamespace, []byte(string(tx.Tenant())+"\x00"+scope+"\x00"+name)).String()
}

// setFindings makes found the findings of a scope, by their ids.
func setFindings(tx *store.Tx, scope string, found []Finding) (changed bool, err error) {
	q := newQuery(tx, sqlFindings, "findings")
	q.and("scope = ?", scope)
	rows, err := findingRows(tx, q)
	if err != nil {
		return false, err
	}
	old := make(map[string]Finding, len(rows))
	for _, f := range rows {
		f.HostName = ""
		old[f.ID] = f
	}
	for _, f := range found {
		f.Text = plainText(f.Text, maxComment)
		f.HostName, f.Since = "", tx.Now()
		was, known := old[f.ID]
		delete(old, f.ID)
		if known {
			f.Since = was.Since
		}
		if known && f == was {
			continue
		}
		changed = true
		_, err := tx.Exec(sqlPutFinding, tx.Tenant(), f.ID, scope, f.Kind, f.Level, f.Key,
			f.Place.Host, f.Place.User, f.Place.Path, f.Line, f.Text, store.Micros(f.Since))
		if err != nil {
			return false, err
		}
	}
	for id := range old {
		changed = true
		if _, err := tx.Exec(sqlDropFinding, tx.Tenant(), id); err != nil {
			return false, err
		}
	}
	return changed, nil
}

// A FindingFilter narrows a listing of findings; its zero value does not.
type FindingFilter struct {
	Kinds  []FindingKind
	Levels []Level
	Key    trust.KeyID
	// Host narrows to what concerns a host, or a key with a half on it.
	Host trust.HostID
	// Text is looked for in the finding's text, in upper or lower case.
	Text string
}

func (f FindingFilter) apply(q *query) error {
	among(q, "kind", f.Kinds)
	among(q, "level", f.Levels)
	if f.Key != "" {
		q.and("key_id = ?", f.Key)
	}
	if f.Host != "" {
		q.and(sqlFindingHost, f.Host, f.Host, f.Host)
	}
	if f.Text != "" {
		if err := checkText(f.Text); err != nil {
			return err
		}
		q.and(`lower(text) LIKE ? ESCAPE '\'`, contains(f.Text))
	}
	return nil
}

var findingColumns = []column{
	{name: "since", sql: "since", number: true},
	{name: "kind", sql: "kind"},
}

// Findings lists findings, sorted by "since" or "kind". next is Page.After of
// the page that follows, or empty after the last.
func Findings(tx *store.Tx, f FindingFilter, p Page) (findings []Finding, next string, err error) {
	by, err := p.check(findingColumns)
	if err != nil {
		return nil, "", err
	}
	q := newQuery(tx, sqlFindings, "findings")
	if err := f.apply(q); err != nil {
		return nil, "", err
	}
	if err := p.apply(q, by, "id", f.Key != ""); err != nil {
		return nil, "", err
	}
	findings, err = findingRows(tx, q)
	if err != nil {
		return nil, "", err
	}
	if len(findings) > p.Limit {
		findings = findings[:p.Limit]
		last := findings[p.Limit-1]
		value := string(last.Kind)
		if by.number {
			value = strconv.FormatInt(store.Micros(last.Since), 10)
		}
		next = p.next(by, value, last.ID)
	}
	return findings, next, nil
}

// SummarizeFindings counts the tenant's findings by kind.
func SummarizeFindings(tx *store.Tx) (map[FindingKind]int, error) {
	count := make(map[FindingKind]int)
	err := each(tx, sqlSummarizeFinding, []any{tx.Tenant()}, func(rows *sql.Rows) error {
		var kind FindingKind
		var n int
		err := rows.Scan(&kind, &n)
		count[kind] = n
		return err
	})
	return count, err
}

// findingRows runs a query on sqlFindings' columns.
func findingRows(tx *store.Tx, q *query) ([]Finding, error) {
	var findings []Finding
	err := q.rows(tx, func(rows *sql.Rows) error {
		var f Finding
		var since int64
		err := rows.Scan(&f.ID, &f.Kind, &f.Level, &f.Key, &f.Place.Host, &f.Place.User, &f.Place.Path, &f.Line, &f.Text, &since, &f.HostName)
		f.Since = store.Time(since)
		findings = append(findings, f)
		return err
	})
	return findings, err
}
