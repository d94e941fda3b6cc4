package inventory

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// PutKey makes sure that a key has a row and returns it as it is now. Of k,
// Kind and Public name the key; its id follows from them. A new key is Active,
// and External unless k.Custody says otherwise. Of a key that is known already
// everything stays, except that
//   - what was deleted is Active again,
//   - k.Custody counts where it is nearer to us (Held, then InPlace, then
//     External), and k.Comment, k.Owner, k.Purpose, k.ExpiresAt and k.Container where there were
//     none,
//   - k.Compromised is never taken back, nor External from what was revealed.
func PutKey(tx *store.Tx, k Key) (Key, error) {
	keys, err := putKeys(tx, []Key{k})
	if err != nil {
		return Key{}, err
	}
	return keys[0], nil
}

// putKeys is PutKey of several keys, each of them once.
func putKeys(tx *store.Tx, keys []Key) ([]Key, error) {
	ids := make([]trust.KeyID, len(keys))
	for i := range keys {
		k := &keys[i]
		if k.Custody == "" {
			k.Custody = External
		}
		if err := k.check(); err != nil {
			return nil, err
		}
		k.ID = KeyIDOf(tx.Tenant(), k.Kind, k.Public)
		ids[i] = k.ID
	}
	known, err := keysByID(tx, ids)
	if err != nil {
		return nil, err
	}
	for i, k := range keys {
		old, ok := known[k.ID]
		if !ok {
			k.State, k.CreatedAt, k.Revision = Active, tx.Now(), 1
			k.LastRotatedAt, k.DeletedAt = store.Time(0), store.Time(0)
			if err := insertKey(tx, k); err != nil {
				return nil, err
			}
			keys[i], known[k.ID] = k, k
			continue
		}
		now := merged(old, k)
		if now != old {
			if err := writeKey(tx, &now); err != nil {
				return nil, err
			}
			known[k.ID] = now
		}
		keys[i] = now
	}
	return keys, nil
}

// merged returns the known key old after k was met.
func merged(old, k Key) Key {
	now := old
	if now.State == Deleted {
		now.State, now.DeletedAt = Active, store.Time(0)
	}
	if now.RevealedAt.IsZero() && custodyRank(k.Custody) > custodyRank(now.Custody) {
		now.Custody = k.Custody
	}
	if now.Comment == "" {
		now.Comment = k.Comment
	}
	if now.Owner == "" {
		now.Owner = k.Owner
	}
	if now.Purpose == "" {
		now.Purpose = k.Purpose
	}
	if now.ExpiresAt.IsZero() {
		now.ExpiresAt = k.ExpiresAt
	}
	if now.Container == "" {
		now.Container = k.Container
	}
	now.Compromised = now.Compromised || k.Compromised
	return now
}

func custodyRank(c Custody) int {
	switch c {
	case Held:
		return 2
	case InPlace:
		return 1
	}
	return 0
}

// UpdateKey writes k's Comment, Owner, Purpose, ExpiresAt, Custody, RevealedAt, Container
// and Compromised and returns it as it is now. Its state changes by TakeOut, BringBack, DeleteKey
// and UndeleteKey. Errors: NotFound; Invalid; Conflict where k.Revision is not
// the newest.
func UpdateKey(tx *store.Tx, k Key) (Key, error) {
	if err := k.check(); err != nil {
		return Key{}, err
	}
	now, err := KeyByID(tx, k.ID)
	if err != nil {
		return Key{}, err
	}
	if now.Revision != k.Revision {
		return Key{}, errKeyChanged(now)
	}
	now.Comment, now.Owner, now.Purpose, now.ExpiresAt = k.Comment, k.Owner, k.Purpose, k.ExpiresAt
	now.Custody, now.RevealedAt, now.Container, now.Compromised = k.Custody, k.RevealedAt, k.Container, k.Compromised
	return now, writeKey(tx, &now)
}

// DeleteKey marks a key as deleted. Its row stays, so that it can be brought
// back, and so that it is recognized where it is found again. Errors: NotFound;
// Conflict where revision is not the newest, where the key opens a host for
// Keyturn, and where a host is known by it.
func DeleteKey(tx *store.Tx, id trust.KeyID, revision int64) (Key, error) {
	k, err := KeyByID(tx, id)
	if err != nil {
		return Key{}, err
	}
	if k.Revision != revision {
		return Key{}, errKeyChanged(k)
	}
	if k.State == Deleted {
		return k, nil
	}
	hosts, total, err := CredentialHosts(tx, id, 1)
	if err != nil {
		return Key{}, err
	}
	if total > 0 {
		return Key{}, trust.Errorf(trust.Conflict, "key %s opens host %q and %d more for Keyturn", id, hosts[0].Name, total-1).
			WithHint("%s", exchange(k, hosts[0]))
	}
	if k.Kind == HostKey {
		host, err := PinnedAt(tx, k.Public)
		if err == nil {
			return Key{}, trust.Errorf(trust.Conflict, "host %q is known by key %s", host.Name, id).WithHint("keyturn host show %s", host.Name)
		}
		if trust.KindOf(err) != trust.NotFound {
			return Key{}, err
		}
	}
	k.State, k.DeletedAt = Deleted, tx.Now()
	return k, writeKey(tx, &k)
}

// exchange is what puts another key in the place of a credential.
func exchange(k Key, host HostRef) string {
	if k.Custody == Held {
		return fmt.Sprintf("keyturn rotate %s", k.ID)
	}
	return fmt.Sprintf("keyturn host credential add %s lets it be opened by another key, and keyturn host credential remove %s %s no more by this one", host.Name, host.Name, k.ID)
}

// DeletedFor is how long a deleted key can be brought back. Then its private half is
// destroyed.
const DeletedFor = 30 * 24 * time.Hour

// UndeleteKey makes a deleted key Active again. Errors: NotFound; Conflict
// where the key is not deleted, or has been for longer than DeletedFor.
func UndeleteKey(tx *store.Tx, id trust.KeyID) (Key, error) {
	k, err := KeyByID(tx, id)
	if err != nil {
		return Key{}, err
	}
	if k.State != Deleted {
		return Key{}, trust.Errorf(trust.Conflict, "key %s is %s, not deleted", id, k.State).WithHint("keyturn key show %s", id)
	}
	if !tx.Now().Before(k.DeletedAt.Add(DeletedFor)) {
		return Key{}, trust.Errorf(trust.Conflict, "key %s was deleted at %s, and what was kept of it is destroyed", id, k.DeletedAt.Format(time.RFC3339))
	}
	k.State, k.DeletedAt = Active, store.Time(0)
	return k, writeKey(tx, &k)
}

func errKeyChanged(k Key) error {
	return trust.Errorf(trust.Conflict, "key %s was changed by someone else meanwhile", k.ID).WithHint("keyturn key show %s", k.ID)
}

func insertKey(tx *store.Tx, k Key) error {
	_, err := tx.Exec(sqlAddKey, tx.Tenant(), k.ID, k.Kind, k.Public.Fingerprint(), k.Public.Blob(),
		k.Comment, k.Owner, k.State, k.Custody, k.Container, k.Compromised,
		store.Micros(k.CreatedAt), store.Micros(k.LastRotatedAt), store.Micros(k.DeletedAt), searchText(k), k.Purpose, store.Micros(k.ExpiresAt))
	return err
}

// writeKey writes what can change of a key, over the revision that was read.
func writeKey(tx *store.Tx, k *Key) error {
	found, err := one(tx, sqlUpdateKey, tx.Tenant(), k.ID, k.Revision, k.Comment, k.Owner, k.State,
		k.Custody, k.Container, k.Compromised, store.Micros(k.LastRotatedAt), store.Micros(k.DeletedAt), searchText(*k), k.Purpose, store.Micros(k.ExpiresAt), store.Micros(k.RevealedAt))
	if err != nil {
		return err
	}
	if !found {
		return errKeyChanged(*k)
	}
	k.Revision++
	return nil
}

func searchText(k Key) string {
	return strings.ToLower(k.Comment + "\n" + string(k.Public.Fingerprint()) + "\n" + k.Owner)
}

// KeyByID returns a key, or a NotFound error.
func KeyByID(tx *store.Tx, id trust.KeyID) (Key, error) {
	keys, err := keysByID(tx, []trust.KeyID{id})
	if err != nil {
		return Key{}, err
	}
	k, ok := keys[id]
	if !ok {
		return Key{}, trust.Errorf(trust.NotFound, "there is no key %q", abbreviate(string(id))).WithHint("keyturn key list")
	}
	return k, nil
}

// KeyIDs returns the ids of the keys with a fingerprint: of none, or of one in each role
// that it has.
func KeyIDs(tx *store.Tx, f trust.Fingerprint) (ids []trust.KeyID, err error) {
	rows, err := tx.Query(sqlKeyIDs, tx.Tenant(), string(f))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id trust.KeyID
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// FindKey returns the key with an id, in any text form of a UUID, or the one
// user key, or else host key, with a fingerprint. It is a NotFound error that
// there is none.
func FindKey(tx *store.Tx, idOrFingerprint string) (Key, error) {
	if !strings.HasPrefix(idOrFingerprint, "SHA256:") {
		id, err := ParseKeyID(idOrFingerprint)
		if err != nil {
			return Key{}, err
		}
		return KeyByID(tx, id)
	}
	q := newQuery(tx, sqlKeys, "keys")
	q.and("fingerprint = ?", idOrFingerprint)
	keys, err := keyRows(tx, q)
	if err != nil {
		return Key{}, err
	}
	if len(keys) == 0 {
		return Key{}, trust.Errorf(trust.NotFound, "there is no key %q", abbreviate(idOrFingerprint)).WithHint("keyturn key list")
	}
	if keys[0].Kind == HostKey {
		return keys[len(keys)-1], nil
	}
	return keys[0], nil
}

// keysByID returns those of the keys that there are.
func keysByID(tx *store.Tx, ids []trust.KeyID) (map[trust.KeyID]Key, error) {
	known := make(map[trust.KeyID]Key, len(ids))
	err := chunks(ids, func(ids []trust.KeyID) error {
		keys, err := keyRows(tx, newQueryOf(tx, ids, sqlKeysWanted, "keys", "id"))
		for _, k := range keys {
			known[k.ID] = k
		}
		return err
	})
	return known, err
}

// A KeyFilter narrows a listing of keys; its zero value does not.
type KeyFilter struct {
	IDs       []trust.KeyID
	Kinds     []KeyKind
	States    []KeyState
	Custodies []Custody
	// Text is looked for in comment, fingerprint, owner and the names of the
	// hosts where a half lies, in upper or lower case.
	Text string
	// Comment and Fingerprint must be equal where they are given.
	Comment     string
	Fingerprint trust.Fingerprint
	// Host narrows to the keys with a half on a host, and Hosts to those with one
	// on any of these.
	Host  trust.HostID
	Hosts []trust.HostID
	// Findings narrows to the keys with a finding of one of these kinds.
	Findings []FindingKind
	// Compromised narrows to the keys that are.
	Compromised bool
	// Owner must be equal where it is given, and each of Labels be among a key's.
	Owner  string
	Labels []Label
	// Expired narrows to the keys whose time was over by this time.
	Expired time.Time
	// Accepted narrows to the keys that are accepted somewhere.
	Accepted bool
	// Overdue narrows to the keys that were made, or first met, and last
	// rotated before this time.
	Overdue time.Time
	// Revealed narrows to the keys that were.
	Revealed bool
	// DeletedBefore narrows to the keys that were deleted before this time.
	DeletedBefore time.Time
	// Without leaves out the keys with a finding of this kind.
	Without FindingKind
}

func (f KeyFilter) apply(q *query) error {
	among(q, "id", f.IDs)
	among(q, "kind", f.Kinds)
	among(q, "state", f.States)
	among(q, "custody", f.Custodies)
	if f.Text != "" {
		if err := checkText(f.Text); err != nil {
			return err
		}
		like := contains(f.Text)
		q.and(sqlKeyText, like, like, like)
	}
	if f.Comment != "" {
		q.and("comment = ?", f.Comment)
	}
	if f.Fingerprint != "" {
		q.and("fingerprint = ?", f.Fingerprint)
	}
	if f.Host != "" {
		q.and(sqlKeyHost, f.Host, f.Host)
	}
	if n := len(f.Hosts); n > 0 {
		args := make([]any, 2*n)
		for i, h := range f.Hosts {
			args[i], args[n+i] = h, h
		}
		q.and(fmt.Sprintf(sqlKeyHosts, marks(n), marks(n)), args...)
	}
	if len(f.Findings) > 0 {
		args := make([]any, len(f.Findings))
		for i, k := range f.Findings {
			args[i] = k
		}
		q.and(sqlKeyFindings+"("+marks(len(args))+"))", args...)
	}
	if f.Compromised {
		q.and("compromised = ?", true)
	}
	if f.Owner != "" {
		q.and("owner = ?", f.Owner)
	}
	if len(f.Labels) > MaxLabels {
		return trust.Errorf(trust.Invalid, "%d labels are asked for; a key can have %d", len(f.Labels), MaxLabels).WithField("label")
	}
	for _, l := range f.Labels {
		q.and(sqlKeyLabel, l.Name, l.Value)
	}
	if !f.Expired.IsZero() {
		q.and("expires_at > ? AND expires_at <= ?", int64(0), store.Micros(f.Expired))
	}
	if f.Accepted {
		q.and(sqlKeyAccepted)
	}
	if !f.Overdue.IsZero() {
		q.and("created_at < ? AND last_rotated_at < ?", store.Micros(f.Overdue), store.Micros(f.Overdue))
	}
	if f.Revealed {
		q.and("revealed_at > ?", int64(0))
	}
	if !f.DeletedBefore.IsZero() {
		q.and("deleted_at > ? AND deleted_at < ?", int64(0), store.Micros(f.DeletedBefore))
	}
	if f.Without != "" {
		q.and(sqlKeyWithout, f.Without)
	}
	return nil
}

// few reports whether f lets only few keys through.
func (f KeyFilter) few() bool { return len(f.IDs) > 0 || f.Fingerprint != "" || f.Host != "" }

var keyColumns = []column{
	{name: "created", sql: "created_at", number: true},
	{name: "comment", sql: "comment"},
	{name: "fingerprint", sql: "fingerprint"},
	{name: "rotated", sql: "last_rotated_at", number: true},
}

// Keys lists keys, sorted by "created", "comment", "fingerprint" or "rotated".
// next is Page.After of the page that follows, or empty after the last.
func Keys(tx *store.Tx, f KeyFilter, p Page) (keys []Key, next string, err error) {
	by, err := p.check(keyColumns)
	if err != nil {
		return nil, "", err
	}
	q := newQuery(tx, sqlKeys, "keys")
	if err := f.apply(q); err != nil {
		return nil, "", err
	}
	if err := p.apply(q, by, "id", f.few()); err != nil {
		return nil, "", err
	}
	keys, err = keyRows(tx, q)
	if err != nil {
		return nil, "", err
	}
	if len(keys) > p.Limit {
		keys = keys[:p.Limit]
		next = nextKey(p, by, keys[p.Limit-1])
	}
	return keys, next, nil
}

// nextKey returns the cursor behind a key.
func nextKey(p Page, by column, k Key) string {
	value := map[string]string{
		"created": strconv.FormatInt(store.Micros(k.CreatedAt), 10), "comment": k.Comment,
		"fingerprint": string(k.Public.Fingerprint()), "rotated": strconv.FormatInt(store.Micros(k.LastRotatedAt), 10),
	}[by.name]
	return p.next(by, value, string(k.ID))
}

// CountKeys returns how many keys a filter lets through.
func CountKeys(tx *store.Tx, f KeyFilter) (int, error) {
	q := newQuery(tx, sqlCountKeys, "keys")
	if err := f.apply(q); err != nil {
		return 0, err
	}
	n := 0
	err := q.rows(tx, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n, err
}

// KeyCounts is a tenant's keys at a glance.
type KeyCounts struct {
	Total     int
	ByKind    map[KeyKind]int
	ByState   map[KeyState]int
	ByCustody map[Custody]int
}

// SummarizeKeys counts the tenant's keys.
func SummarizeKeys(tx *store.Tx) (KeyCounts, error) {
	c := KeyCounts{ByKind: map[KeyKind]int{}, ByState: map[KeyState]int{}, ByCustody: map[Custody]int{}}
	err := each(tx, sqlSummarizeKeys, []any{tx.Tenant()}, func(rows *sql.Rows) error {
		var kind KeyKind
		var state KeyState
		var custody Custody
		var n int
		if err := rows.Scan(&kind, &state, &custody, &n); err != nil {
			return err
		}
		c.Total += n
		c.ByKind[kind] += n
		c.ByState[state] += n
		c.ByCustody[custody] += n
		return nil
	})
	return c, err
}

// keyRows runs a query on sqlKeys' columns.
func keyRows(tx *store.Tx, q *query) ([]Key, error) {
	var keys []Key
	err := q.rows(tx, func(rows *sql.Rows) error {
		var k Key
		var blob []byte
		var created, rotated, deleted, expires, revealed int64
		err := rows.Scan(&k.ID, &k.Kind, &blob, &k.Comment, &k.Owner, &k.Purpose, &k.State, &k.Custody, &k.Container, &k.Compromised,
			&created, &rotated, &deleted, &expires, &revealed, &k.Revision)
		if err != nil {
			return err
		}
		k.Public, err = trust.ParsePublicKeyBlob(blob)
		k.CreatedAt, k.LastRotatedAt = store.Time(created), store.Time(rotated)
		k.DeletedAt, k.ExpiresAt, k.RevealedAt = store.Time(deleted), store.Time(expires), store.Time(revealed)
		keys = append(keys, k)
		return err
	})
	return keys, err
}
