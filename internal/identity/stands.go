package identity

import (
	"database/sql"
	"errors"

	"keyturn/internal/store"
)

// Stands refuses an actor whose credential has ended since it was looked at: a token that
// was revoked or rotated, a login that was ended, a user who was removed. A transaction that makes
// what outlives the credential, and that ends with it, begins with this: those who end a
// credential look for what it made in a transaction of their own.
func (d *Directory) Stands(tx *store.Tx, by Actor) error {
	query, id := sqlUserStands, by.ID
	switch {
	case by.Kind == "token":
		query = sqlTokenStands
	case by.Kind == "machine":
		query, id = sqlMachineLoginStands, by.webLogin
	case by.webLogin != "":
		query, id = sqlLoginStands, by.webLogin
	}
	args := []any{tx.Tenant(), id}
	if by.Kind == "token" {
		args = append(args, []byte(by.text), store.Micros(tx.Now()))
	}
	var one int
	err := tx.QueryRow(query, args...).Scan(&one)
	if errors.Is(err, sql.ErrNoRows) {
		return unauthenticated()
	}
	return err
}
