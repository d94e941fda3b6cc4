package inventory

import (
	"database/sql"
	"slices"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// KeyUsers says which users may have the server sign with a key that it holds: those
// who may at all, unless it is Limited, and then only those of them whose ids are
// among Users. A key that is limited to nobody signs for nobody.
type KeyUsers struct {
	Limited bool
	Users   []string // ids, sorted; of users that are gone, too
}

// Names reports whether a user is one of those whom the key is limited to.
func (u KeyUsers) Names(user string) bool { return slices.Contains(u.Users, user) }

// MaxKeyUsers is how many users a key can be limited to.
const MaxKeyUsers = 100

// UsersOfKey returns which users may have the server sign with a key.
func UsersOfKey(tx *store.Tx, key trust.KeyID) (u KeyUsers, err error) {
	err = each(tx, sqlKeyUsers, []any{tx.Tenant(), key}, func(rows *sql.Rows) error {
		u.Limited = true
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		if id != "" {
			u.Users = append(u.Users, id)
		}
		return nil
	})
	return u, err
}

// SetUsersOfKey says which users may have the server sign with a key. Errors:
// Exhausted where there are more than MaxKeyUsers.
func SetUsersOfKey(tx *store.Tx, key trust.KeyID, u KeyUsers) error {
	if len(u.Users) > MaxKeyUsers {
		return trust.Errorf(trust.Exhausted, "key %s can be limited to %d users, not to %d", key, MaxKeyUsers, len(u.Users)).
			WithHint("give the permission Keys Use to fewer users, and leave the key to all of them")
	}
	if _, err := tx.Exec(sqlDropKeyUsers, tx.Tenant(), key); err != nil || !u.Limited {
		return err
	}
	for _, id := range append([]string{""}, u.Users...) {
		if _, err := tx.Exec(sqlAddKeyUser, tx.Tenant(), key, id); err != nil {
			return err
		}
	}
	return nil
}

// limitToNamed limits a key to the users who are named for it, and to nobody where none
// are: it opens hosts for Keyturn itself, and what it opens stays open to it when it is no
// credential any more.
func limitToNamed(tx *store.Tx, key trust.KeyID) error {
	u, err := UsersOfKey(tx, key)
	if err != nil || u.Limited {
		return err
	}
	return SetUsersOfKey(tx, key, KeyUsers{Limited: true})
}

// passUsers has the key that takes another's place be limited as that one is.
func passUsers(tx *store.Tx, from, to trust.KeyID) error {
	u, err := UsersOfKey(tx, from)
	if err != nil {
		return err
	}
	return SetUsersOfKey(tx, to, u)
}

// inheritUsers has a key be for those who may use each of the keys in whose place it is: it
// opens what any of them opened.
func inheritUsers(tx *store.Tx, next trust.KeyID) error {
	var olds []trust.KeyID
	q := newQueryOf(tx, []trust.KeyID{next}, sqlReplacements, "r", "new_id")
	q.and(sqlStanding)
	err := q.rows(tx, func(rows *sql.Rows) error {
		var old, successor trust.KeyID
		err := rows.Scan(&old, &successor)
		olds = append(olds, old)
		return err
	})
	if err != nil {
		return err
	}
	var all KeyUsers
	for _, old := range olds {
		u, err := UsersOfKey(tx, old)
		switch {
		case err != nil:
			return err
		case all.Limited && u.Limited:
			all.Users = slices.DeleteFunc(all.Users, func(id string) bool { return !u.Names(id) })
		case u.Limited:
			all = u
		}
	}
	return SetUsersOfKey(tx, next, all)
}
