package inventory

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// AddHost adds a host with its pins and credentials and returns it as it is
// now. Where the ID is that of an Unenrolled host at that address, that host is
// taken in. ID, Name, Address and User must be set; Become, Mode and State are by
// default none, inventory and enrolling. The credentials must be keys of the
// inventory. Errors: Invalid; Conflict, naming the other host, where one has
// that name, that address or one of those host keys.
func AddHost(tx *store.Tx, h Host) (Host, error) {
	if h.Become == "" {
		h.Become = BecomeNone
	}
	if h.Mode == "" {
		h.Mode = Inventory
	}
	if h.State == "" {
		h.State = Enrolling
	}
	if err := h.check(); err != nil {
		return Host{}, err
	}
	if err := refuseTaken(tx, h); err != nil {
		return Host{}, err
	}
	at, err := UnenrolledAt(tx, h.Address)
	if err != nil {
		return Host{}, err
	}
	known := at == h.ID
	if known {
		_, err = one(tx, sqlEnrolHost, tx.Tenant(), h.ID, h.Name, h.Address, h.User, h.Become, h.Mode, h.State, h.Reason)
	} else {
		_, err = tx.Exec(sqlAddHost, tx.Tenant(), h.ID, h.Name, h.Address, h.User,
			h.Become, h.Mode, h.State, h.Reason, store.Micros(tx.Now()))
	}
	if err == nil && !known && h.State != Unenrolled {
		err = becomeTarget(tx, h)
	}
	if err != nil {
		return Host{}, err
	}
	for _, p := range h.Pins {
		if err := AddPin(tx, h.ID, p.Key, p.Origin); err != nil {
			return Host{}, err
		}
	}
	for i, c := range h.Credentials {
		if err := AddCredential(tx, h.ID, c.Key, i); err != nil {
			return Host{}, err
		}
	}
	if h.State == Ready && len(h.Pins) == 0 {
		return Host{}, errUnpinned(h)
	}
	return HostByID(tx, h.ID)
}

// UpdateHost writes h's Name, Address, User, Become, Mode, State and Reason
// and returns it as it is now. The rest of a host has functions of its own.
// Errors: as AddHost; NotFound; Conflict where h.Revision is not the newest,
// or where a host without a pinned key would become Ready.
func UpdateHost(tx *store.Tx, h Host) (Host, error) {
	if err := h.check(); err != nil {
		return Host{}, err
	}
	if err := refuseTaken(tx, h); err != nil {
		return Host{}, err
	}
	found, err := one(tx, sqlUpdateHost, tx.Tenant(), h.ID, h.Revision, h.Name, h.Address, h.User,
		h.Become, h.Mode, h.State, h.Reason)
	if err != nil {
		return Host{}, err
	}
	now, err := HostByID(tx, h.ID)
	if err != nil {
		return Host{}, err
	}
	if !found {
		return Host{}, trust.Errorf(trust.Conflict, "host %q was changed by someone else meanwhile", now.Name).
			WithHint("keyturn host show %s", now.Name)
	}
	if now.State == Ready && len(now.Pins) == 0 {
		return Host{}, errUnpinned(now)
	}
	return now, nil
}

func errUnpinned(h Host) error {
	return trust.Errorf(trust.Conflict, "host %q has no pinned host key", h.Name).
		WithHint("keyturn host confirm %s --host-key …", h.Name)
}

// refuseTaken says which other host has h's name or address already.
func refuseTaken(tx *store.Tx, h Host) error {
	return each(tx, sqlTaken, []any{tx.Tenant(), h.ID, h.Name, h.Address}, func(rows *sql.Rows) error {
		var name, address string
		if err := rows.Scan(&name, &address); err != nil {
			return err
		}
		if name == h.Name {
			return trust.Errorf(trust.Conflict, "there is a host %q already", name).WithHint("keyturn host show %s", name)
		}
		return trust.Errorf(trust.Conflict, "host %q has the address %q already", name, address).WithHint("keyturn host show %s", name)
	})
}

// RemoveHost forgets a host, its pins, credentials, places and findings. Keys
// stay, and so does what was archived. It returns the keys that lose a place,
// whose findings have to be judged again. Errors: NotFound; Conflict where
// revision is not the newest.
func RemoveHost(tx *store.Tx, id trust.HostID, revision int64) ([]trust.KeyID, error) {
	h, err := HostByID(tx, id)
	if err != nil {
		return nil, err
	}
	if h.Revision != revision {
		return nil, trust.Errorf(trust.Conflict, "host %q was changed by someone else meanwhile", h.Name).
			WithHint("keyturn host show %s", h.Name)
	}
	keys, err := KeysAt(tx, id)
	if err != nil {
		return nil, err
	}
	for _, text := range sqlForgetHost {
		if _, err := tx.Exec(text, tx.Tenant(), id); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// UnenrolledAt returns the id of the Unenrolled host that one at an address is, or
// nothing: the host at that very address or, as targets have no port, the target of its IP address.
func UnenrolledAt(tx *store.Tx, address string) (id trust.HostID, err error) {
	if address, err = ParseAddress(address); err != nil {
		return "", err
	}
	err = missing(tx.QueryRow(sqlUnenrolledAt, tx.Tenant(), address).Scan(&id), nil)
	ip := ipOf(address)
	if err != nil || id != "" || !ip.IsValid() {
		return id, err
	}
	there, err := targetAt(tx, TargetAddress{IP: ip.String(), Network: DefaultNetwork(tx.Tenant())})
	if err != nil || there.ID == "" {
		return "", err
	}
	h, err := HostByID(tx, there.ID)
	if err != nil || h.State != Unenrolled {
		return "", err
	}
	return h.ID, nil
}

// HostByID returns a host, or a NotFound error.
func HostByID(tx *store.Tx, id trust.HostID) (Host, error) {
	q := newQuery(tx, sqlHosts, "hosts")
	q.and("id = ?", id)
	return oneHost(tx, q, string(id))
}

// HostBrief returns a host without its Facts and its Coverage, which are most of what
// there is to read of one, or a NotFound error.
func HostBrief(tx *store.Tx, id trust.HostID) (Host, error) {
	q := newQuery(tx, sqlHostsBrief, "hosts")
	q.and("id = ?", id)
	return oneHost(tx, q, string(id))
}

// HostRevision returns the revision of a host, which is another one after every
// change of what HostBrief returns, or a NotFound error.
func HostRevision(tx *store.Tx, id trust.HostID) (revision int64, err error) {
	err = tx.QueryRow(sqlHostRevision, tx.Tenant(), id).Scan(&revision)
	return revision, missing(err, errNoHost(string(id)))
}

// FindHost returns the host with a name, in upper or lower case, or an id. It
// is a NotFound error that there is none.
func FindHost(tx *store.Tx, nameOrID string) (Host, error) {
	if id, err := uuid.Parse(nameOrID); err == nil {
		return HostByID(tx, trust.HostID(id.String()))
	}
	name, err := ParseName(nameOrID)
	if err != nil {
		return Host{}, err
	}
	q := newQuery(tx, sqlHosts, "hosts")
	q.and("name = ?", name)
	return oneHost(tx, q, name)
}

func oneHost(tx *store.Tx, q *query, wanted string) (Host, error) {
	hosts, err := hostRows(tx, q)
	if err != nil {
		return Host{}, err
	}
	if len(hosts) == 0 {
		return Host{}, errNoHost(wanted)
	}
	return hosts[0], fillHosts(tx, hosts[:1])
}

func errNoHost(wanted string) error {
	return trust.Errorf(trust.NotFound, "there is no host %q", wanted).WithHint("keyturn host list")
}

// A HostFilter narrows a listing of hosts; its zero value does not.
type HostFilter struct {
	IDs      []trust.HostID
	Modes    []Mode
	States   []HostState
	Outcomes []Outcome
	// Text is looked for in name, address and login, in upper or lower case.
	Text string
	// Credential narrows to the hosts that a key opens for Keyturn.
	Credential trust.KeyID
	// Machine narrows to the hosts with this Facts.Machine.
	Machine string
}

func (f HostFilter) apply(q *query) error {
	among(q, "id", f.IDs)
	among(q, "mode", f.Modes)
	among(q, "state", f.States)
	among(q, "outcome", f.Outcomes)
	if f.Text != "" {
		if err := checkText(f.Text); err != nil {
			return err
		}
		like := contains(f.Text)
		q.and(sqlHostText, like, like, like)
	}
	if f.Credential != "" {
		q.and(sqlCredentialHosts, f.Credential)
	}
	if f.Machine != "" {
		q.and("machine = ?", f.Machine)
	}
	return nil
}

// few reports whether f lets only few hosts through.
func (f HostFilter) few() bool { return len(f.IDs) > 0 || f.Credential != "" || f.Machine != "" }

var hostColumns = []column{
	{name: "name", sql: "name"},
	{name: "address", sql: "address"},
	{name: "created", sql: "created_at", number: true},
	{name: "scanned", sql: "scanned_at", number: true},
}

// Hosts lists hosts, sorted by "name", "address", "created" or "scanned". next
// is Page.After of the page that follows, or empty after the last.
func Hosts(tx *store.Tx, f HostFilter, p Page) (hosts []Host, next string, err error) {
	by, err := p.check(hostColumns)
	if err != nil {
		return nil, "", err
	}
	q := newQuery(tx, sqlHosts, "hosts")
	if err := f.apply(q); err != nil {
		return nil, "", err
	}
	if err := p.apply(q, by, "id", f.few()); err != nil {
		return nil, "", err
	}
	hosts, err = hostRows(tx, q)
	if err != nil {
		return nil, "", err
	}
	if len(hosts) > p.Limit {
		hosts = hosts[:p.Limit]
		last := hosts[p.Limit-1]
		value := map[string]string{
			"name": last.Name, "address": last.Address,
			"created": strconv.FormatInt(store.Micros(last.CreatedAt), 10),
			"scanned": strconv.FormatInt(store.Micros(last.Coverage.ScannedAt), 10),
		}[by.name]
		next = p.next(by, value, string(last.ID))
	}
	return hosts, next, fillHosts(tx, hosts)
}

// CountHosts returns how many hosts a filter lets through.
func CountHosts(tx *store.Tx, f HostFilter) (int, error) {
	q := newQuery(tx, sqlCountHosts, "hosts")
	if err := f.apply(q); err != nil {
		return 0, err
	}
	n := 0
	err := q.rows(tx, func(rows *sql.Rows) error { return rows.Scan(&n) })
	return n, err
}

// A HostRef names a host.
type HostRef struct {
	ID   trust.HostID
	Name string
}

// HostRefs lists hosts by id, at most limit of them behind the id after: the
// cheap way to go over all of them.
func HostRefs(tx *store.Tx, f HostFilter, after trust.HostID, limit int) ([]HostRef, error) {
	if limit < 1 || limit > MaxPage {
		return nil, trust.Errorf(trust.Invalid, "limit %d is not 1 to %d", limit, MaxPage).WithField("limit")
	}
	q := newQuery(tx, sqlHostRefs, "hosts")
	if err := f.apply(q); err != nil {
		return nil, err
	}
	q.and("id > ?", after)
	q.add(" ORDER BY id LIMIT ?", limit)
	var refs []HostRef
	err := q.rows(tx, func(rows *sql.Rows) error {
		var r HostRef
		err := rows.Scan(&r.ID, &r.Name)
		refs = append(refs, r)
		return err
	})
	return refs, err
}

// HostCounts is a tenant's hosts at a glance.
type HostCounts struct {
	Total     int
	ByMode    map[Mode]int
	ByState   map[HostState]int
	ByOutcome map[Outcome]int
}

// SummarizeHosts counts the tenant's hosts.
func SummarizeHosts(tx *store.Tx) (HostCounts, error) {
	c := HostCounts{ByMode: map[Mode]int{}, ByState: map[HostState]int{}, ByOutcome: map[Outcome]int{}}
	err := each(tx, sqlSummarizeHosts, []any{tx.Tenant()}, func(rows *sql.Rows) error {
		var mode Mode
		var state HostState
		var outcome Outcome
		var n int
		if err := rows.Scan(&mode, &state, &outcome, &n); err != nil {
			return err
		}
		c.Total += n
		c.ByMode[mode] += n
		c.ByState[state] += n
		c.ByOutcome[outcome] += n
		return nil
	})
	return c, err
}

// hostRows runs a query on sqlHosts' columns.
func hostRows(tx *store.Tx, q *query) ([]Host, error) {
	var hosts []Host
	err := q.rows(tx, func(rows *sql.Rows) error {
		var h Host
		var facts, notes string
		var created, tried, scanned int64
		err := rows.Scan(&h.ID, &h.Name, &h.Address, &h.User, &h.Become, &h.Mode, &h.State, &h.Reason, &created, &h.Revision,
			&facts, &h.Coverage.Outcome, &h.Coverage.Why, &notes, &tried, &scanned)
		if err != nil {
			return err
		}
		if err := json.Unmarshal([]byte(facts), &h.Facts); err != nil {
			return fmt.Errorf("inventory: facts of host %s: %w", h.ID, err)
		}
		if err := json.Unmarshal([]byte(notes), &h.Coverage.Notes); err != nil {
			return fmt.Errorf("inventory: notes of host %s: %w", h.ID, err)
		}
		h.CreatedAt = store.Time(created)
		h.Coverage.TriedAt, h.Coverage.ScannedAt = store.Time(tried), store.Time(scanned)
		hosts = append(hosts, h)
		return nil
	})
	return hosts, err
}

// fillHosts adds pins and credentials to hosts.
func fillHosts(tx *store.Tx, hosts []Host) error {
	return chunks(hosts, func(hosts []Host) error {
		at := make(map[trust.HostID]*Host, len(hosts))
		ids := make([]trust.HostID, len(hosts))
		for i := range hosts {
			at[hosts[i].ID], ids[i] = &hosts[i], hosts[i].ID
		}
		pins := newQueryOf(tx, ids, sqlPins, "host_pins", "host_id")
		pins.add(" ORDER BY added_at, fingerprint")
		err := pins.rows(tx, func(rows *sql.Rows) error {
			var id trust.HostID
			var p Pin
			var blob []byte
			var added int64
			if err := rows.Scan(&id, &blob, &p.Origin, &added); err != nil {
				return err
			}
			var err error
			p.Key, err = trust.ParsePublicKeyBlob(blob)
			p.AddedAt = store.Time(added)
			at[id].Pins = append(at[id].Pins, p)
			return err
		})
		if err != nil {
			return err
		}
		credentials, err := CredentialsOf(tx, ids)
		for id, c := range credentials {
			at[id].Credentials = c
		}
		return err
	})
}

// CredentialsOf returns what opens hosts for Keyturn, in order.
func CredentialsOf(tx *store.Tx, hosts []trust.HostID) (map[trust.HostID][]Credential, error) {
	of := make(map[trust.HostID][]Credential, len(hosts))
	err := chunks(hosts, func(hosts []trust.HostID) error {
		q := newQueryOf(tx, hosts, sqlCredentials, "host_credentials", "host_id")
		q.add(" ORDER BY position")
		return q.rows(tx, func(rows *sql.Rows) error {
			var id trust.HostID
			var c Credential
			var added, worked int64
			err := rows.Scan(&id, &c.Key, &added, &worked)
			c.AddedAt, c.WorkedAt = store.Time(added), store.Time(worked)
			of[id] = append(of[id], c)
			return err
		})
	})
	return of, err
}
