package control

import (
	"database/sql"
	"errors"

	"keyturn/internal/store"
)

// selectAnswer returns what a request made in the last minutes, or "".
func selectAnswer(tx *store.Tx, request string) (made, state string, err error) {
	err = tx.QueryRow(`SELECT made, state FROM answers WHERE tenant = $1 AND request = $2 AND created > $3`,
		tx.Tenant(), request, store.Micros(tx.Now().Add(-askedAgainWithin))).Scan(&made, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return "", "", nil
	}
	return made, state, err
}

// insertAnswer also drops what nobody asks for again.
func insertAnswer(tx *store.Tx, request, made, state string) error {
	if _, err := tx.Exec(`DELETE FROM answers WHERE tenant = $1 AND created <= $2`, tx.Tenant(), store.Micros(tx.Now().Add(-askedAgainWithin))); err != nil {
		return err
	}
	_, err := tx.Exec(`INSERT INTO answers (tenant, request, made, state, created) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, request) DO UPDATE SET made = excluded.made, state = excluded.state, created = excluded.created`,
		tx.Tenant(), request, made, state, store.Micros(tx.Now()))
	return err
}
