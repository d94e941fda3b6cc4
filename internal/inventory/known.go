package inventory

import (
	"database/sql"
	"fmt"
	"strconv"
	"strings"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A KnownHost is a line of a known_hosts file: by which key an account knows a
// host.
type KnownHost struct {
	// Place is the file, on the host whose account it is; a file of the whole
	// host is root's. HostName is that host's name, and Line counts from 1.
	trust.Place
	HostName string
	Line     int
	Marker   trust.HostMarker
	// Names are the names of the line as it has them, which may be a hash.
	Names string
	Key   trust.PublicKey
	// About is the host of the inventory that the line names, or empty, and
	// AboutName its name.
	About     trust.HostID
	AboutName string
}

// HostAddress is what a host may be called by in a known_hosts file.
type HostAddress struct {
	HostRef
	Address string
}

// Named returns the hosts that have one of these names, or one of these addresses
// in the form of ParseAddress.
func Named(tx *store.Tx, names, addresses []string) ([]HostAddress, error) {
	var found []HostAddress
	for column, values := range map[string][]string{"name": names, "address": addresses} {
		err := chunks(values, func(some []string) error {
			q := newQuery(tx, sqlHostAddresses, "hosts")
			among(q, column, some)
			return hostAddresses(tx, q, &found)
		})
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// HostAddresses returns the hosts of the tenant, at most limit of them.
func HostAddresses(tx *store.Tx, limit int) (found []HostAddress, err error) {
	q := newQuery(tx, sqlHostAddresses, "hosts")
	q.add(" ORDER BY id LIMIT ?", limit)
	return found, hostAddresses(tx, q, &found)
}

func hostAddresses(tx *store.Tx, q *query, found *[]HostAddress) error {
	return q.rows(tx, func(rows *sql.Rows) error {
		var h HostAddress
		err := rows.Scan(&h.ID, &h.Name, &h.Address)
		*found = append(*found, h)
		return err
	})
}

// byLine is the order of known_hosts lines: by file and line.
var byLine = column{name: "line"}

// KnownHosts lists the lines of the known_hosts files on a host, by file and line.
// next is Page.After of the page that follows, or empty after the last.
func KnownHosts(tx *store.Tx, host trust.HostID, p Page) (list []KnownHost, next string, err error) {
	if p.Limit < 1 || p.Limit > MaxPage {
		return nil, "", trust.Errorf(trust.Invalid, "limit %d is not 1 to %d", p.Limit, MaxPage).WithField("limit")
	}
	user, path, line, about := "", "", -1, ""
	if p.After != "" {
		c, err := p.cursor(byLine)
		if err != nil {
			return nil, "", err
		}
		parts := strings.Split(c.Value, "\x00")
		if len(parts) != 3 {
			return nil, "", invalidCursor()
		}
		if line, err = strconv.Atoi(parts[2]); err != nil {
			return nil, "", invalidCursor()
		}
		user, path, about = parts[0], parts[1], c.ID
	}
	err = each(tx, sqlKnownHosts, []any{tx.Tenant(), host, user, path, line, about, p.Limit + 1}, func(rows *sql.Rows) error {
		k := KnownHost{Place: trust.Place{Host: host}}
		var blob []byte
		err := rows.Scan(&k.HostName, &k.User, &k.Path, &k.Line, &k.About, &k.AboutName, &k.Marker, &k.Names, &blob)
		if err != nil {
			return err
		}
		k.Key, err = trust.ParsePublicKeyBlob(blob)
		list = append(list, k)
		return err
	})
	if len(list) > p.Limit {
		list = list[:p.Limit]
		last := list[p.Limit-1]
		next = p.next(byLine, fmt.Sprintf("%s\x00%s\x00%d", last.User, last.Path, last.Line), string(last.About))
	}
	return list, next, err
}

// knownName names a row.
type knownName struct {
	user, path string
	line       int
	about      trust.HostID
}

// putKnownHosts makes the lines that a scan found those of its host. Lines of
// files that it could not see stay.
func putKnownHosts(tx *store.Tx, s Scan) error {
	old := map[knownName]KnownHost{}
	for page := (Page{Limit: MaxPage}); ; {
		some, next, err := KnownHosts(tx, s.Host, page)
		if err != nil {
			return err
		}
		for _, k := range some {
			k.HostName, k.AboutName = "", ""
			old[knownName{k.User, k.Path, k.Line, k.About}] = k
		}
		if page.After = next; next == "" {
			break
		}
	}
	for _, k := range s.Known {
		k.Host, k.HostName, k.AboutName = s.Host, "", ""
		k.Names = plainText(k.Names, maxComment)
		if err := CheckPlace(k.Place); err != nil {
			return err
		}
		name := knownName{k.User, k.Path, k.Line, k.About}
		was, known := old[name]
		delete(old, name)
		if known && was == k {
			continue
		}
		_, err := tx.Exec(sqlPutKnownHost, tx.Tenant(), s.Host, k.User, k.Path, k.Line, k.About, k.Marker, k.Names, k.Key.Blob())
		if err != nil {
			return err
		}
	}
	for name := range old {
		if _, gone := s.fate(trust.Place{Host: s.Host, User: name.user, Path: name.path}); !gone {
			continue
		}
		if _, err := tx.Exec(sqlDropKnownHost, tx.Tenant(), s.Host, name.user, name.path, name.line, name.about); err != nil {
			return err
		}
	}
	return nil
}
