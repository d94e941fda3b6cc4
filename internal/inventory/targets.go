package inventory

import (
	"database/sql"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// AddTarget adds a target and returns it as it is now. It is the host that is there
// already at one of its addresses: the one on port 22, for a target has no port, or the
// only one. Where there is none, a host is added, with the id of t, that is Unenrolled.
// Errors: Invalid; Conflict, naming the other, where an address is taken.
func AddTarget(tx *store.Tx, t Target) (Target, error) {
	if err := t.check(); err != nil {
		return Target{}, err
	}
	t.networked(Target{}, tx.Tenant())
	host, err := joined(tx, t)
	if err != nil {
		return Target{}, err
	}
	t.CreatedAt = tx.Now()
	switch {
	case host != "":
		t.ID = host
		was, err := TargetByID(tx, host)
		if err == nil {
			t.CreatedAt = was.CreatedAt
			err = dropTarget(tx, host)
		}
		if err != nil && trust.KindOf(err) != trust.NotFound {
			return Target{}, err
		}
	default:
		name, err := freeName(tx, t)
		if err != nil {
			return Target{}, err
		}
		if _, err := AddHost(tx, Host{ID: t.ID, Name: name, Address: t.address(tx.Tenant()), State: Unenrolled}); err != nil {
			return Target{}, err
		}
	}
	t.Written, t.ModifiedAt = true, tx.Now()
	return t, insertTarget(tx, t)
}

// joined returns the host that t is, if there is one, or a Conflict.
func joined(tx *store.Tx, t Target) (host trust.HostID, err error) {
	for _, a := range t.addresses() {
		there, err := targetAt(tx, a)
		if err != nil {
			return "", err
		}
		if there.Written {
			return "", errAddressTaken(a, there)
		}
		if there.ID == "" && a.Network == DefaultNetwork(tx.Tenant()) {
			if there.ID, err = hostAtIP(tx, a); err != nil {
				return "", err
			}
		}
		if host != "" && there.ID != "" && there.ID != host {
			return "", trust.Errorf(trust.Conflict, "%s and %s are two hosts", t.IPv4.IP, t.IPv6.IP).WithField("ip").WithHint("keyturn host list")
		}
		if there.ID != "" {
			host = there.ID
		}
	}
	return host, nil
}

func errAddressTaken(a TargetAddress, by Target) error {
	return trust.Errorf(trust.Conflict, "%s in virtual network %s is target %s, %q, already", a.IP, a.Network, by.ID, by.Hostname).WithField("ip")
}

// targetAt returns the id, the hostname and Written of the target with an address, or
// nothing.
func targetAt(tx *store.Tx, a TargetAddress) (t Target, err error) {
	err = tx.QueryRow(sqlTargetAt, tx.Tenant(), a.Network, a.key()).Scan(&t.ID, &t.Hostname, &t.Written)
	return t, missing(err, nil)
}

// hostAtIP returns the host at an address that is no target: that on port 22, or the
// only one, or nothing.
func hostAtIP(tx *store.Tx, a TargetAddress) (trust.HostID, error) {
	address, err := ParseAddress(a.IP)
	if err != nil {
		return "", err
	}
	var ids []trust.HostID
	prefix := strings.TrimSuffix(address, "22") // "10.0.0.5:" or "[fd00::5]:"
	err = each(tx, sqlHostsAtIP, []any{tx.Tenant(), address, prefix, prefix + "\x7f"}, func(rows *sql.Rows) error {
		var id trust.HostID
		var onPort22 bool
		err := rows.Scan(&id, &onPort22)
		if err == nil && onPort22 {
			ids = []trust.HostID{id}
			return errEnough
		}
		ids = append(ids, id)
		return err
	})
	if err != nil && !errors.Is(err, errEnough) {
		return "", err
	}
	if len(ids) != 1 {
		return "", nil
	}
	return ids[0], nil
}

var errEnough = errors.New("enough")

// freeName returns what the host of a new target is to be called: as the target, if that
// can be a host's name and none has it.
func freeName(tx *store.Tx, t Target) (string, error) {
	name, err := ParseName(t.Hostname)
	if err == nil {
		if _, err = FindHost(tx, name); trust.KindOf(err) == trust.NotFound {
			return name, nil
		}
	}
	if err != nil && trust.KindOf(err) != trust.Invalid {
		return "", err
	}
	return "target-" + string(t.ID), nil
}

// UpdateTarget writes t in the place of what the target of its id was, and returns it as
// it is now. A host that was taken in stays where it is: one of the target's addresses is
// the host's. Errors: Invalid; NotFound; Conflict as AddTarget.
func UpdateTarget(tx *store.Tx, t Target) (Target, error) {
	if err := t.check(); err != nil {
		return Target{}, err
	}
	was, err := TargetByID(tx, t.ID)
	if err != nil {
		return Target{}, err
	}
	t.networked(was, tx.Tenant())
	for _, a := range t.addresses() {
		there, err := targetAt(tx, a)
		if err != nil {
			return Target{}, err
		}
		if there.ID != "" && there.ID != t.ID {
			return Target{}, errAddressTaken(a, there)
		}
	}
	if err := moveHost(tx, t); err != nil {
		return Target{}, err
	}
	if t.Tags == nil {
		t.Tags = was.Tags
	}
	t.CreatedAt, t.ModifiedAt, t.Written = was.CreatedAt, tx.Now(), true
	if err := dropTarget(tx, t.ID); err != nil {
		return Target{}, err
	}
	return t, insertTarget(tx, t)
}

// moveHost gives an Unenrolled host the address of its target, and refuses to move another.
func moveHost(tx *store.Tx, t Target) error {
	h, err := HostByID(tx, t.ID)
	if err != nil {
		return err
	}
	if h.State == Unenrolled {
		h.Address = t.address(tx.Tenant())
		_, err := UpdateHost(tx, h)
		return err
	}
	at := ipOf(h.Address)
	for _, a := range t.addresses() {
		if ip, err := netip.ParseAddr(a.IP); err == nil && ip == at {
			return nil
		}
	}
	if !at.IsValid() { // a DNS name, which may be any address
		return nil
	}
	return trust.Errorf(trust.Conflict, "host %q was taken in at %s, and a target elsewhere is another host", h.Name, h.Address).WithField("ip").
		WithHint("keyturn host remove %s, or make another target", h.Name)
}

// ipOf returns the IP address of a host's address, if it is one.
func ipOf(address string) netip.Addr {
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr()
}

// RemoveTarget has a host be no target any more. One that was never taken in is
// forgotten altogether; another stays the host that it is. Errors: NotFound.
func RemoveTarget(tx *store.Tx, id trust.HostID) error {
	h, err := HostByID(tx, id)
	if err != nil {
		return errNoTarget(string(id))
	}
	if _, err := TargetByID(tx, id); err != nil {
		return err
	}
	if h.State == Unenrolled {
		_, err := RemoveHost(tx, id, h.Revision)
		return err
	}
	return dropTarget(tx, id)
}

func errNoTarget(id string) error {
	return trust.Errorf(trust.NotFound, "there is no target %q", abbreviate(id))
}

// becomeTarget makes a target of a host that was added with an IP address, unless that is
// a target's already: two servers on one machine are one target.
func becomeTarget(tx *store.Tx, h Host) error {
	ip := ipOf(h.Address)
	if !ip.IsValid() {
		return nil
	}
	a := &TargetAddress{IP: ip.String(), Network: DefaultNetwork(tx.Tenant())}
	if there, err := targetAt(tx, *a); err != nil || there.ID != "" {
		return err
	}
	t := Target{ID: h.ID, Hostname: h.Name, CreatedAt: tx.Now(), ModifiedAt: tx.Now()}
	if ip.Is4() {
		t.IPv4 = a
	} else {
		t.IPv6 = a
	}
	return insertTarget(tx, t)
}

func insertTarget(tx *store.Tx, t Target) error {
	_, err := tx.Exec(sqlAddTarget, tx.Tenant(), t.ID, t.Hostname, strings.ToLower(t.Hostname), t.Written,
		store.Micros(t.CreatedAt), store.Micros(t.ModifiedAt))
	if err != nil {
		return err
	}
	for _, a := range t.addresses() {
		if _, err := tx.Exec(sqlAddTargetAddress, tx.Tenant(), a.Network, a.key(), t.ID, a.IP); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.Tags)) {
		if _, err := tx.Exec(sqlAddTargetTag, tx.Tenant(), t.ID, name, t.Tags[name]); err != nil {
			return err
		}
	}
	return nil
}

func dropTarget(tx *store.Tx, id trust.HostID) error {
	for _, text := range sqlForgetTarget {
		if _, err := tx.Exec(text, tx.Tenant(), id); err != nil {
			return err
		}
	}
	return nil
}

// TargetByID returns a target, or a NotFound error.
func TargetByID(tx *store.Tx, id trust.HostID) (Target, error) {
	if uuid.Validate(string(id)) != nil {
		return Target{}, errNoTarget(string(id))
	}
	q := newQuery(tx, sqlTargets, "targets")
	q.and("host_id = ?", id)
	list, err := targetRows(tx, q)
	if err != nil {
		return Target{}, err
	}
	if len(list) == 0 {
		return Target{}, errNoTarget(string(id))
	}
	return list[0], nil
}

// A TargetFilter narrows a listing of targets; its zero value does not. What is given
// has to hold all of it.
type TargetFilter struct {
	IDs      []trust.HostID
	Hostname string // without regard to case
	// Contains is looked for in the hostname, without regard to case.
	Contains string
	Network  string
	IP       []netip.Addr    // each has to be one of the target's
	AnyIP    []netip.Addr    // one of them has to be
	Ranges   [][2]netip.Addr // from and to, within each of which one has to be
	// IPLike is a pattern for an address as it was written, in which "*" stands for anything.
	IPLike                        string
	CreatedAfter, CreatedBefore   time.Time // inclusive, as the next two
	ModifiedAfter, ModifiedBefore time.Time
	Tags                          [][2]string // names and values
}

func (f TargetFilter) apply(q *query) error {
	for _, text := range []string{f.Hostname, f.Contains, f.Network, f.IPLike} {
		if err := checkText(text); err != nil {
			return err
		}
	}
	among(q, "host_id", f.IDs)
	if f.Hostname != "" {
		q.and("hostname_key = ?", strings.ToLower(f.Hostname))
	}
	if f.Contains != "" {
		q.and(`hostname_key LIKE ? ESCAPE '\'`, contains(f.Contains))
	}
	if f.Network != "" {
		q.and(sqlTargetsWith+"a.network = ?)", strings.ToLower(f.Network))
	}
	for _, ip := range f.IP {
		q.and(sqlTargetsWith+"a.ip_key = ?)", ipKey(ip))
	}
	if len(f.AnyIP) > 0 {
		keys := make([]any, len(f.AnyIP))
		for i, ip := range f.AnyIP {
			keys[i] = ipKey(ip)
		}
		q.and(sqlTargetsWith+"a.ip_key IN ("+marks(len(keys))+"))", keys...)
	}
	for _, r := range f.Ranges {
		q.and(sqlTargetsWith+"a.ip_key BETWEEN ? AND ?)", ipKey(r[0]), ipKey(r[1]))
	}
	if f.IPLike != "" {
		q.and(sqlTargetsWith+`lower(a.ip) LIKE ? ESCAPE '\')`, strings.ReplaceAll(literal(f.IPLike), "*", "%"))
	}
	for _, bound := range []struct {
		condition string
		at        time.Time
	}{
		{"created_at >= ?", f.CreatedAfter},
		{"created_at <= ?", f.CreatedBefore},
		{"modified_at >= ?", f.ModifiedAfter},
		{"modified_at <= ?", f.ModifiedBefore},
	} {
		if !bound.at.IsZero() {
			q.and(bound.condition, store.Micros(bound.at))
		}
	}
	for _, tag := range f.Tags {
		q.and(sqlTargetsTagged, tag[0], tag[1])
	}
	return nil
}

// Targets lists targets, sorted by "created", "hostname" or "tag:NAME", and says how many
// there are in all. The page counts by Offset.
func Targets(tx *store.Tx, f TargetFilter, p Page) (list []Target, total int, err error) {
	q := newQuery(tx, sqlCountTargets, "targets")
	if err := f.apply(q); err != nil {
		return nil, 0, err
	}
	if err := q.rows(tx, func(rows *sql.Rows) error { return rows.Scan(&total) }); err != nil || p.Offset >= total {
		return nil, total, err
	}
	q = newQuery(tx, sqlTargets, "targets")
	if err := f.apply(q); err != nil {
		return nil, 0, err
	}
	order := ""
	if p.Desc {
		order = " DESC"
	}
	tag, byTag := strings.CutPrefix(p.Sort, "tag:")
	switch {
	case byTag:
		q.add(" ORDER BY "+sqlTagOfTarget+order, tag)
	case p.Sort == "hostname":
		q.add(" ORDER BY hostname_key" + order)
	default:
		q.add(" ORDER BY created_at" + order)
	}
	q.add(", host_id"+order+" LIMIT ? OFFSET ?", p.Limit, p.Offset)
	list, err = targetRows(tx, q)
	return list, total, err
}

// TargetsByID lists targets by id, at most limit of them behind the id after: the cheap
// way to go over all of them.
func TargetsByID(tx *store.Tx, f TargetFilter, after trust.HostID, limit int) ([]Target, error) {
	q := newQuery(tx, sqlTargets, "targets")
	if err := f.apply(q); err != nil {
		return nil, err
	}
	q.and("host_id > ?", after)
	q.add(" ORDER BY host_id LIMIT ?", limit)
	return targetRows(tx, q)
}

// targetRows runs a query on sqlTargets' columns, and adds addresses and tags.
func targetRows(tx *store.Tx, q *query) (list []Target, err error) {
	at := map[trust.HostID]int{}
	var ids []trust.HostID
	err = q.rows(tx, func(rows *sql.Rows) error {
		var t Target
		var created, modified int64
		err := rows.Scan(&t.ID, &t.Hostname, &t.Written, &created, &modified)
		t.CreatedAt, t.ModifiedAt = store.Time(created), store.Time(modified)
		at[t.ID] = len(list)
		list, ids = append(list, t), append(ids, t.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return list, chunks(ids, func(ids []trust.HostID) error {
		q := newQueryOf(tx, ids, sqlTargetAddresses, "target_addresses", "host_id")
		err := q.rows(tx, func(rows *sql.Rows) error {
			var id trust.HostID
			var key string
			var a TargetAddress
			err := rows.Scan(&id, &a.Network, &key, &a.IP)
			if strings.HasPrefix(key, "4") {
				list[at[id]].IPv4 = &a
			} else {
				list[at[id]].IPv6 = &a
			}
			return err
		})
		if err != nil {
			return err
		}
		q = newQueryOf(tx, ids, sqlTargetTags, "target_tags", "host_id")
		return q.rows(tx, func(rows *sql.Rows) error {
			var id trust.HostID
			var name, value string
			err := rows.Scan(&id, &name, &value)
			t := &list[at[id]]
			if t.Tags == nil {
				t.Tags = map[string]string{}
			}
			t.Tags[name] = value
			return err
		})
	})
}
