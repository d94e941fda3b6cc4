package inventory

import (
	"cmp"
	"database/sql"
	"maps"
	"slices"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// fileName names a file: the same path can hold identities for one account and
// be read as authorized keys of another.
type fileName struct {
	place trust.Place
	kind  FileKind
}

// storedLine is a line of an authorized_keys file as its row has it.
type storedLine struct {
	AuthorizedKey
	seenAt time.Time
}

// placeArgs returns the arguments of a statement that begins with the tenant
// and a place.
func placeArgs(tx *store.Tx, p trust.Place, more ...any) []any {
	return append([]any{tx.Tenant(), p.Host, p.User, p.Path}, more...)
}

// nonNil keeps an empty value from becoming NULL.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}

// insertRows runs an INSERT that ends in "VALUES " with many rows at a time.
func insertRows(tx *store.Tx, insert string, rows [][]any) error {
	for some := range slices.Chunk(rows, 50) {
		q := new(query)
		q.add(insert)
		for i, row := range some {
			if i > 0 {
				q.add(", ")
			}
			q.add("("+marks(len(row))+")", row...)
		}
		if _, err := tx.Exec(q.text.String(), q.args...); err != nil {
			return err
		}
	}
	return nil
}

// Files returns the files known of a host, by account, path and kind.
func Files(tx *store.Tx, host trust.HostID) ([]File, error) {
	known, err := filesAt(tx, host)
	return sortedFiles(known), err
}

// An Obstacle stands in the way of changing a file.
type Obstacle struct {
	// Place is the file that is in the way: the one that is to be changed or, where one
	// file is known by two accounts, as the other account knows it.
	Place trust.Place
	// Fixed and UnreadWhy are as in File.
	Fixed, UnreadWhy string
}

// Obstacles returns what stands in the way of changing files: that they cannot be
// changed, that the host's newest scan did not read them, or that another account has
// the same file.
func Obstacles(tx *store.Tx, files []trust.Place) (map[trust.Place][]Obstacle, error) {
	found := map[trust.Place][]Obstacle{}
	for some := range slices.Chunk(files, 50) {
		q := &query{args: []any{tx.Tenant()}}
		q.add("WITH wanted (host_id, login_user, path) AS (VALUES ")
		for i, p := range some {
			if i > 0 {
				q.add(", ")
			}
			q.add("(?, ?, ?)", p.Host, p.User, p.Path)
		}
		q.add(") " + sqlObstacles)
		err := q.rows(tx, func(rows *sql.Rows) error {
			var mine trust.Place
			var o Obstacle
			err := rows.Scan(&mine.Host, &mine.User, &mine.Path, &o.Place.User, &o.Place.Path, &o.Fixed, &o.UnreadWhy)
			o.Place.Host = mine.Host
			found[mine] = append(found[mine], o)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

func filesAt(tx *store.Tx, host trust.HostID) (map[fileName]File, error) {
	q := newQuery(tx, sqlFiles, "place_files")
	q.and("host_id = ?", host)
	return fileRows(tx, q)
}

// fileAt returns what is known of a file, if anything is.
func fileAt(tx *store.Tx, p trust.Place, kind FileKind) (File, bool, error) {
	q := newQuery(tx, sqlFiles, "place_files")
	q.and("host_id = ? AND login_user = ? AND path = ? AND kind = ?", p.Host, p.User, p.Path, kind)
	known, err := fileRows(tx, q)
	f, ok := known[fileName{p, kind}]
	return f, ok, err
}

func fileRows(tx *store.Tx, q *query) (map[fileName]File, error) {
	files := make(map[fileName]File)
	err := q.rows(tx, func(rows *sql.Rows) error {
		var f File
		var changed, read int64
		err := rows.Scan(&f.Host, &f.User, &f.Path, &f.Kind, &f.SHA256, &f.Size, &f.Mode, &f.Owner, &f.Inode, &f.FileSystem,
			&f.Fault, &f.Fixed, &f.Order, &changed, &read, &f.UnreadWhy)
		f.ChangedAt, f.LastRead = store.Time(changed), store.Time(read)
		files[fileName{f.Place, f.Kind}] = f
		return err
	})
	return files, err
}

func sortedFiles(files map[fileName]File) []File {
	return slices.SortedFunc(maps.Values(files), func(a, b File) int {
		return cmp.Or(strings.Compare(a.User, b.User), strings.Compare(a.Path, b.Path), strings.Compare(string(a.Kind), string(b.Kind)))
	})
}

func writeFile(tx *store.Tx, f File) error {
	_, err := tx.Exec(sqlPutFile, placeArgs(tx, f.Place, f.Kind, f.SHA256, f.Size, int64(f.Mode), f.Owner, f.Inode, f.FileSystem,
		f.Fault, f.Fixed, f.Order, store.Micros(f.ChangedAt), store.Micros(f.LastRead), f.UnreadWhy)...)
	return err
}

// linesAt returns the lines of one authorized_keys file, without their keys'
// blobs.
func linesAt(tx *store.Tx, p trust.Place) (map[line]storedLine, error) {
	lines := make(map[line]storedLine)
	err := each(tx, sqlAuthorizedHere, placeArgs(tx, p), func(rows *sql.Rows) error {
		var name line
		var l storedLine
		var options []byte
		var seen int64
		err := rows.Scan(&name.key, &name.ordinal, &l.Line, &options, &l.Raw, &l.Comment, &l.Authority, &l.Refused, &seen)
		l.Options, l.seenAt = string(options), store.Time(seen)
		lines[name] = l
		return err
	})
	return lines, err
}

// identityAt returns what is known of one private key file, if anything is.
// It has neither a host's name nor AsOf.
func identityAt(tx *store.Tx, p trust.Place) (IdentityPlace, bool, error) {
	found := IdentityPlace{Place: p}
	known := false
	err := each(tx, sqlIdentityHere, placeArgs(tx, p), func(rows *sql.Rows) error {
		var seen int64
		err := rows.Scan(&found.KeyID, &found.Format, &found.Encrypted, &found.Comment, &found.Link, &found.Apart, &seen)
		found.SeenAt, known = store.Time(seen), true
		return err
	})
	return found, known, err
}

// A PlaceFilter narrows a listing of places; one of its fields must be set.
type PlaceFilter struct {
	Key  trust.KeyID
	Host trust.HostID
	// Place, where its Path is set, narrows to one file.
	Place trust.Place
}

func (f PlaceFilter) apply(q *query) error {
	if f.Key == "" && f.Host == "" && f.Place.Path == "" {
		return trust.Errorf(trust.Internal, "inventory: places of neither a key nor a host")
	}
	if f.Key != "" {
		q.and("p.key_id = ?", f.Key)
	}
	if f.Host != "" {
		q.and("p.host_id = ?", f.Host)
	}
	if f.Place.Path != "" {
		q.and("p.host_id = ? AND p.login_user = ? AND p.path = ?", f.Place.Host, f.Place.User, f.Place.Path)
	}
	return nil
}

// Authorized lists authorized places in the order of host id, account, path,
// key and ordinal: at most limit of them, behind the place after where that is
// not nil. With PlaceFilter.Key it answers who accepts a key now, to the best
// knowledge of the newest scans, and, by AsOf, how old that knowledge is.
func Authorized(tx *store.Tx, f PlaceFilter, after *AuthorizedPlace, limit int) ([]AuthorizedPlace, error) {
	if limit < 1 || limit > MaxPage {
		return nil, trust.Errorf(trust.Invalid, "limit %d is not 1 to %d", limit, MaxPage).WithField("limit")
	}
	q := newQuery(tx, sqlAuthorized, "p")
	if err := f.apply(q); err != nil {
		return nil, err
	}
	if after != nil {
		q.and("(p.host_id, p.login_user, p.path, p.key_id, p.ordinal) > (?, ?, ?, ?, ?)",
			after.Host, after.User, after.Path, after.KeyID, after.Ordinal)
	}
	q.add(sqlAuthorizedOrder, limit)
	return authorizedRows(tx, q)
}

// Identities lists identity places of a key in the order of host id, account
// and path: at most limit of them, behind the place after where that is not
// nil.
func Identities(tx *store.Tx, f PlaceFilter, after *IdentityPlace, limit int) ([]IdentityPlace, error) {
	if limit < 1 || limit > MaxPage {
		return nil, trust.Errorf(trust.Invalid, "limit %d is not 1 to %d", limit, MaxPage).WithField("limit")
	}
	q := newQuery(tx, sqlIdentities, "p")
	if err := f.apply(q); err != nil {
		return nil, err
	}
	if after != nil {
		q.and("(p.host_id, p.login_user, p.path) > (?, ?, ?)", after.Host, after.User, after.Path)
	}
	q.add(sqlIdentitiesOrder, limit)
	return identityRows(tx, q)
}

// KeysAt returns the keys that have a half on a host, sorted.
func KeysAt(tx *store.Tx, host trust.HostID) ([]trust.KeyID, error) {
	var keys []trust.KeyID
	err := each(tx, sqlKeysAt, []any{tx.Tenant(), host}, func(rows *sql.Rows) error {
		var id trust.KeyID
		err := rows.Scan(&id)
		keys = append(keys, id)
		return err
	})
	return compactSorted(keys), err
}

// authorizedRows runs a query on sqlAuthorized's columns.
func authorizedRows(tx *store.Tx, q *query) ([]AuthorizedPlace, error) {
	var places []AuthorizedPlace
	err := q.rows(tx, func(rows *sql.Rows) error {
		var p AuthorizedPlace
		var options []byte
		var seen, asOf int64
		err := rows.Scan(&p.Host, &p.User, &p.Path, &p.HostName, &p.KeyID, &p.Ordinal, &p.Line, &options, &p.Raw, &p.Comment,
			&p.Authority, &p.Refused, &seen, &asOf)
		p.Options, p.SeenAt, p.AsOf = string(options), store.Time(seen), store.Time(asOf)
		places = append(places, p)
		return err
	})
	return places, err
}

// identityRows runs a query on sqlIdentities' columns.
func identityRows(tx *store.Tx, q *query) ([]IdentityPlace, error) {
	var places []IdentityPlace
	err := q.rows(tx, func(rows *sql.Rows) error {
		var p IdentityPlace
		var seen, asOf int64
		err := rows.Scan(&p.Host, &p.User, &p.Path, &p.HostName, &p.KeyID, &p.Format, &p.Encrypted, &p.Comment, &p.Link, &p.Apart, &seen, &asOf)
		p.SeenAt, p.AsOf = store.Time(seen), store.Time(asOf)
		places = append(places, p)
		return err
	})
	return places, err
}
