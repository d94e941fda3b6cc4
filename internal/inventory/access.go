package inventory

import (
	"database/sql"
	"slices"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds what opens a host: the host keys by which we know it, and
// the credentials with which we log in.

// AddPin pins a host key for a host. A key that is pinned already keeps its
// pin, with the new origin where that vouches for a key accepted on first use.
// The key gets a row among the tenant's keys, too. Errors: NotFound; Invalid;
// Conflict, naming the other host, where another host has that key.
func AddPin(tx *store.Tx, host trust.HostID, key trust.PublicKey, origin Origin) error {
	switch origin {
	case Given, FirstUse, Confirmed, Proven:
	default:
		return trust.Errorf(trust.Invalid, "origin %q of a host key is not known", abbreviate(string(origin)))
	}
	h, err := HostByID(tx, host)
	if err != nil {
		return err
	}
	for _, p := range h.Pins {
		if p.Key != key {
			continue
		}
		if p.Origin == FirstUse && origin != FirstUse {
			return setOrigin(tx, host, key, Confirmed)
		}
		return nil
	}
	other, err := PinnedAt(tx, key)
	if err == nil {
		return trust.Errorf(trust.Conflict, "host %q has the host key %s of host %q: one machine, or a copy of one", h.Name, key.Fingerprint(), other.Name).
			WithHint("keyturn host show %s", other.Name)
	}
	if trust.KindOf(err) != trust.NotFound {
		return err
	}
	if _, err := PutKey(tx, Key{Kind: HostKey, Public: key, Comment: h.Name, Custody: InPlace}); err != nil {
		return err
	}
	_, err = tx.Exec(sqlAddPin, tx.Tenant(), key.Fingerprint(), host, key.Blob(), origin, store.Micros(tx.Now()))
	if err != nil {
		return err
	}
	return touchHost(tx, host)
}

// PinnedAt returns the host that a host key is pinned for, or a NotFound error.
func PinnedAt(tx *store.Tx, key trust.PublicKey) (HostRef, error) {
	return PinnedByFingerprint(tx, key.Fingerprint())
}

// PinnedByFingerprint is PinnedAt of a key of which only the fingerprint is known.
func PinnedByFingerprint(tx *store.Tx, key trust.Fingerprint) (HostRef, error) {
	var r HostRef
	err := tx.QueryRow(sqlPinnedAt, tx.Tenant(), key).Scan(&r.ID, &r.Name)
	return r, missing(err, trust.Errorf(trust.NotFound, "no host has the host key %s", key))
}

// RemovePin takes a host key away from a host. Errors: NotFound; Conflict where
// it is the host's last.
func RemovePin(tx *store.Tx, host trust.HostID, key trust.PublicKey) error {
	h, err := HostByID(tx, host)
	if err != nil {
		return err
	}
	if !slices.Contains(h.PinnedKeys(), key) {
		return trust.Errorf(trust.NotFound, "host %q has no pinned host key %s", h.Name, key.Fingerprint())
	}
	if len(h.Pins) == 1 {
		return trust.Errorf(trust.Conflict, "%s is the only host key by which host %q is known", key.Fingerprint(), h.Name).
			WithHint("keyturn host confirm %s --host-key …", h.Name)
	}
	if _, err := tx.Exec(sqlRemovePin, tx.Tenant(), host, key.Fingerprint()); err != nil {
		return err
	}
	return touchHost(tx, host)
}

// ConfirmPins vouches for the host keys of a host that were accepted on first
// use, and returns how many those were.
func ConfirmPins(tx *store.Tx, host trust.HostID) (int, error) {
	h, err := HostByID(tx, host)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, p := range h.Pins {
		if p.Origin != FirstUse {
			continue
		}
		if err := setOrigin(tx, host, p.Key, Confirmed); err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}

func setOrigin(tx *store.Tx, host trust.HostID, key trust.PublicKey, origin Origin) error {
	_, err := tx.Exec(sqlSetOrigin, tx.Tenant(), host, key.Fingerprint(), origin)
	if err != nil {
		return err
	}
	return touchHost(tx, host)
}

// touchHost gives a host a new revision, because something of it changed that
// lies in another table.
func touchHost(tx *store.Tx, host trust.HostID) error {
	found, err := one(tx, sqlTouchHost, tx.Tenant(), host)
	if err == nil && !found {
		return errNoHost(string(host))
	}
	return err
}

// AddCredential puts a key into the list of what opens a host, at position
// from 0 on, or at its end where position is negative or beyond it. A key that
// is in the list already moves there. Errors: NotFound, for the host and for
// the key; Conflict where the key is not an active user key.
func AddCredential(tx *store.Tx, host trust.HostID, key trust.KeyID, position int) error {
	h, err := HostByID(tx, host)
	if err != nil {
		return err
	}
	k, err := KeyByID(tx, key)
	if err != nil {
		return err
	}
	if k.Kind != UserKey || k.State == Deleted {
		return trust.Errorf(trust.Conflict, "key %s is no user key in use, and cannot open host %q", key, h.Name).
			WithHint("keyturn key show %s", key)
	}
	list := slices.DeleteFunc(slices.Clone(h.Credentials), func(c Credential) bool { return c.Key == key })
	c := Credential{Key: key, AddedAt: tx.Now()}
	if i := slices.IndexFunc(h.Credentials, func(c Credential) bool { return c.Key == key }); i >= 0 {
		c = h.Credentials[i]
	}
	if position < 0 || position > len(list) {
		position = len(list)
	}
	if err := limitToNamed(tx, key); err != nil {
		return err
	}
	return putCredentials(tx, host, slices.Insert(list, position, c))
}

// RemoveCredential takes a key out of the list of what opens a host. Errors:
// NotFound; Conflict where it is the last one there.
func RemoveCredential(tx *store.Tx, host trust.HostID, key trust.KeyID) error {
	h, err := HostByID(tx, host)
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(h.Credentials), func(c Credential) bool { return c.Key == key })
	switch {
	case len(rest) == len(h.Credentials):
		return trust.Errorf(trust.NotFound, "key %s does not open host %q", key, h.Name).WithHint("keyturn host show %s", h.Name)
	case len(rest) == 0:
		return trust.Errorf(trust.Conflict, "key %s is the only credential that opens host %q", key, h.Name).
			WithHint("keyturn host remove %s", h.Name)
	}
	return putCredentials(tx, host, rest)
}

// putCredentials writes the whole list, so that positions are always 0, 1, ….
func putCredentials(tx *store.Tx, host trust.HostID, list []Credential) error {
	if len(list) > maxCredentials {
		return trust.Errorf(trust.Exhausted, "a host may have %d credentials; sshd lets a client try 6 keys", maxCredentials)
	}
	if _, err := tx.Exec(sqlClearCredentials, tx.Tenant(), host); err != nil {
		return err
	}
	for i, c := range list {
		_, err := tx.Exec(sqlAddCredential, tx.Tenant(), host, c.Key, i,
			store.Micros(c.AddedAt), store.Micros(c.WorkedAt))
		if err != nil {
			return err
		}
	}
	return touchHost(tx, host)
}

// maxCredentials bounds a host's list. sshd's MaxAuthTries is 6 by default.
const maxCredentials = 16

// CredentialWorked records that a key opened a host at a time. It is not a
// change of the host: its revision stays. A success less than a minute after
// the one before is not written.
func CredentialWorked(tx *store.Tx, host trust.HostID, key trust.KeyID, at time.Time) error {
	_, err := tx.Exec(sqlCredentialWorked, tx.Tenant(), host, key, store.Micros(at), store.Micros(at.Add(-time.Minute)))
	return err
}

// CredentialFailed records that a key does not open a host. It is no change of the
// host, either.
func CredentialFailed(tx *store.Tx, host trust.HostID, key trust.KeyID) error {
	_, err := tx.Exec(sqlCredentialFailed, tx.Tenant(), host, key)
	return err
}

// CredentialHosts returns the hosts that a key opens for Keyturn, by name, at
// most limit of them, and how many there are.
func CredentialHosts(tx *store.Tx, key trust.KeyID, limit int) (hosts []HostRef, total int, err error) {
	total, err = CountHosts(tx, HostFilter{Credential: key})
	if err != nil || total == 0 {
		return nil, total, err
	}
	q := newQuery(tx, sqlHostRefs, "hosts")
	q.and(sqlCredentialHosts, key)
	q.add(" ORDER BY name LIMIT ?", limit)
	err = q.rows(tx, func(rows *sql.Rows) error {
		var r HostRef
		err := rows.Scan(&r.ID, &r.Name)
		hosts = append(hosts, r)
		return err
	})
	return hosts, total, err
}
