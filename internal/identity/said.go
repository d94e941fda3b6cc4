package identity

import (
	"database/sql"
	"encoding/json"
	"errors"

	"keyturn/internal/oidc"
	"keyturn/internal/store"
)

// A Said is what an identity provider said of a user at a login.
type Said struct {
	Provider string // its id; "" of a user of our own, and of who has not logged in by one
	// Claims are the values of each claim at the top that the provider answers for.
	Claims map[string][]string
}

// keepSaid keeps what a provider says of a user with the web login that has begun, by its
// stored id, and in the place of what it said before. It is no more than a token can hold.
func keepSaid(tx *store.Tx, user, provider, webLogin string, c oidc.Claims) error {
	claims := map[string][]string{}
	for _, name := range c.Names() {
		if values := c.Vouched(name); len(values) > 0 {
			claims[name] = values
		}
	}
	text, err := json.Marshal(claims)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(sqlKeepSaid, tx.Tenant(), user, provider, string(text)); err != nil {
		return err
	}
	_, err = tx.Exec(sqlKeepSaidAtLogin, tx.Tenant(), webLogin, provider, string(text))
	return err
}

func forgetSaid(tx *store.Tx, user string) error {
	_, err := tx.Exec(sqlForgetSaid, tx.Tenant(), user)
	return err
}

// A Known is a user with what an identity provider said of them.
type Known struct {
	User // without Permissions
	Said Said
}

// Known returns up to limit users whose ids are greater than after, in the order of
// their ids.
func (d *Directory) Known(tx *store.Tx, after string, limit int) (list []Known, err error) {
	rows, err := tx.Query(sqlKnown, tx.Tenant(), after, limit)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		k, err := scanKnown(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, k)
	}
	return list, rows.Err()
}

func scanKnown(scan func(...any) error) (k Known, err error) {
	var claims string
	u, err := scanUser(func(columns ...any) error { return scan(append(columns, &k.Said.Provider, &claims)...) })
	if err != nil {
		return Known{}, err
	}
	k.User = u.User
	return k, json.Unmarshal([]byte(claims), &k.Said.Claims)
}

// Said returns what an identity provider said of a user at the last login.
func (d *Directory) Said(tx *store.Tx, user string) (s Said, err error) {
	text := ""
	err = tx.QueryRow(sqlSaid, tx.Tenant(), user).Scan(&s.Provider, &text)
	if errors.Is(err, sql.ErrNoRows) {
		return Said{}, nil
	}
	if err != nil {
		return Said{}, err
	}
	return s, json.Unmarshal([]byte(text), &s.Claims)
}
