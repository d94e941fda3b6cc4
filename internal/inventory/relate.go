package inventory

import (
	"cmp"
	"database/sql"
	"slices"
	"strings"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Relationship is a key with all that it is related to: the trust
// relationships of NIST IR 7966 lead from each of Identities to each of
// Authorized.
type Relationship struct {
	Key Key
	// Labels are sorted by name.
	Labels []Label
	// Authorized are sorted by host, account and path.
	Authorized []Accepted
	Identities []IdentityPlace
	// Replaces are the keys in whose place it came, and ReplacedBy those that
	// came in its place, as far as that was not undone.
	Replaces, ReplacedBy []trust.KeyID
	// Supplied is the key that its owner made to take its place, or nothing.
	Supplied trust.KeyID
	Findings []Finding
}

// Accepted is a line that accepts a key: as much as listings show of one, because a key
// can be accepted by all hosts of a fleet. The function Authorized tells the rest.
type Accepted struct {
	HostName, User, Path string
	Options              string
	Authority            bool
}

// maxPlaces is how many places one page of relationships holds at most, unless
// its first key alone has more.
const maxPlaces = 50_000

// Relationships lists keys as Keys does, with all that they are related to. A
// page ends early where its keys lie in very many places.
func Relationships(tx *store.Tx, f KeyFilter, p Page) (related []Relationship, next string, err error) {
	keys, next, err := Keys(tx, f, p)
	if err != nil {
		return nil, "", err
	}
	fit, err := fitting(tx, keys)
	if err != nil {
		return nil, "", err
	}
	if fit < len(keys) {
		by, err := p.check(keyColumns)
		if err != nil {
			return nil, "", err
		}
		keys = keys[:fit]
		next = nextKey(p, by, keys[fit-1])
	}
	related, err = Relate(tx, keys)
	return related, next, err
}

// fitting returns how many of keys, and one at least, have no more than
// maxPlaces places together.
func fitting(tx *store.Tx, keys []Key) (int, error) {
	count := make(map[trust.KeyID]int, len(keys))
	err := chunks(keys, func(keys []Key) error {
		q := newQueryOf(tx, idsOf(keys), sqlCountPlaces, "p", "key_id")
		q.add(" GROUP BY key_id")
		return q.rows(tx, func(rows *sql.Rows) error {
			var id trust.KeyID
			var n int
			err := rows.Scan(&id, &n)
			count[id] = n
			return err
		})
	})
	total := 0
	for i, k := range keys {
		total += count[k.ID]
		if total > maxPlaces && i > 0 {
			return i, err
		}
	}
	return len(keys), err
}

func idsOf(keys []Key) []trust.KeyID {
	ids := make([]trust.KeyID, len(keys))
	for i, k := range keys {
		ids[i] = k.ID
	}
	return ids
}

// Relate returns all that keys are related to, in the order of keys.
func Relate(tx *store.Tx, keys []Key) ([]Relationship, error) {
	related := make([]Relationship, len(keys))
	at := make(map[trust.KeyID]*Relationship, len(keys))
	for i, k := range keys {
		related[i].Key = k
		at[k.ID] = &related[i]
	}
	err := chunks(idsOf(keys), func(ids []trust.KeyID) error {
		if err := relatePlaces(tx, ids, at); err != nil {
			return err
		}
		labels, err := labelsOf(tx, ids)
		if err != nil {
			return err
		}
		for id, l := range labels {
			at[id].Labels = l
		}
		return relateKeys(tx, ids, at)
	})
	return related, err
}

// Successors returns keys and those that came in their place, one after the other, as
// far as that was not undone; MaxPage of them at most.
func Successors(tx *store.Tx, keys []trust.KeyID) ([]trust.KeyID, error) {
	all, err := follow(tx, keys, "old_id")
	return all[:min(len(all), MaxPage)], err
}

// Lineage returns a key, all those that it came in the place of, one after the other, and
// all those that came in its place, as far as that was not undone.
func Lineage(tx *store.Tx, key trust.KeyID) ([]trust.KeyID, error) {
	before, err := follow(tx, []trust.KeyID{key}, "new_id")
	if err != nil {
		return nil, err
	}
	after, err := follow(tx, []trust.KeyID{key}, "old_id")
	if err != nil {
		return nil, err
	}
	return append(before, after[1:]...), nil
}

// follow returns keys and what replacements lead to from them: from a column, old_id or
// new_id, to the other one.
func follow(tx *store.Tx, keys []trust.KeyID, from string) ([]trust.KeyID, error) {
	var all []trust.KeyID
	seen := make(map[trust.KeyID]bool)
	for next := keys; ; {
		var fresh []trust.KeyID
		for _, id := range next {
			if !seen[id] {
				seen[id] = true
				fresh = append(fresh, id)
			}
		}
		if len(fresh) == 0 {
			return all, nil
		}
		all, next = append(all, fresh...), nil
		err := chunks(fresh, func(ids []trust.KeyID) error {
			q := newQueryOf(tx, ids, sqlReplacements, "r", from)
			q.and(sqlStanding)
			return q.rows(tx, func(rows *sql.Rows) error {
				var old, successor trust.KeyID
				err := rows.Scan(&old, &successor)
				if from == "old_id" {
					next = append(next, successor)
				} else {
					next = append(next, old)
				}
				return err
			})
		})
		if err != nil {
			return nil, err
		}
	}
}

func relatePlaces(tx *store.Tx, ids []trust.KeyID, at map[trust.KeyID]*Relationship) error {
	q := newQueryOf(tx, ids, sqlAuthorizedBrief, "p", "key_id")
	q.and(sqlTheirHost)
	q.add(" ORDER BY h.name, p.login_user, p.path, p.line_no")
	var last Accepted
	err := q.rows(tx, func(rows *sql.Rows) error {
		var id trust.KeyID
		var l Accepted
		var options []byte
		err := rows.Scan(&id, &l.HostName, &l.User, &l.Path, &options, &l.Authority)
		l.Options = string(options)
		l.HostName, l.User, l.Path, l.Options = again(l.HostName, last.HostName), again(l.User, last.User), again(l.Path, last.Path), again(l.Options, last.Options)
		last = l
		at[id].Authorized = append(at[id].Authorized, l)
		return err
	})
	if err != nil {
		return err
	}
	q = newQueryOf(tx, ids, sqlIdentitiesBrief, "p", "key_id")
	q.and(sqlTheirHost)
	q.add(" ORDER BY h.name, p.login_user, p.path")
	identities, err := identityRows(tx, q)
	if err != nil {
		return err
	}
	for _, p := range identities {
		at[p.KeyID].Identities = append(at[p.KeyID].Identities, p)
	}
	return nil
}

// again returns text, in the memory of the text before where that is equal: lines that
// follow each other have most of it in common.
func again(text, before string) string {
	if text == before {
		return before
	}
	return text
}

func relateKeys(tx *store.Tx, ids []trust.KeyID, at map[trust.KeyID]*Relationship) error {
	for _, column := range []string{"old_id", "new_id"} {
		q := newQueryOf(tx, ids, sqlReplacements, "r", column)
		q.and(sqlStanding)
		err := q.rows(tx, func(rows *sql.Rows) error {
			var old, next trust.KeyID
			if err := rows.Scan(&old, &next); err != nil {
				return err
			}
			if column == "old_id" {
				at[old].ReplacedBy = append(at[old].ReplacedBy, next)
			} else {
				at[next].Replaces = append(at[next].Replaces, old)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	q := newQueryOf(tx, ids, sqlSuppliedWanted, "s", "old_id")
	q.and(sqlUnspent)
	err := q.rows(tx, func(rows *sql.Rows) error {
		var old, next trust.KeyID
		err := rows.Scan(&old, &next)
		if r := at[old]; r != nil && r.Key.State == Active {
			r.Supplied = next
		}
		return err
	})
	if err != nil {
		return err
	}
	q = newQueryOf(tx, ids, sqlFindingsWanted, "findings", "key_id")
	findings, err := findingRows(tx, q)
	for _, f := range findings {
		at[f.Key].Findings = append(at[f.Key].Findings, f)
	}
	for _, id := range ids {
		r := at[id]
		slices.Sort(r.Replaces)
		slices.Sort(r.ReplacedBy)
		slices.SortFunc(r.Findings, func(a, b Finding) int {
			return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.HostName, b.HostName),
				strings.Compare(a.Place.Path, b.Place.Path), cmp.Compare(a.Line, b.Line), strings.Compare(a.ID, b.ID))
		})
	}
	return err
}
