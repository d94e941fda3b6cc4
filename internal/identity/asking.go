package identity

import (
	"database/sql"
	"errors"

	"keyturn/internal/store"
)

// Asking returns the user who asks, or whose token does, with what an identity provider
// said at the login that the actor came by, and not at another one of the same user, which
// may have proved more. Of who came by none nothing is said; of a machine there is no user.
//
// It refuses an actor whose credential has ended since it was looked at: a token that was
// revoked or rotated, a login that was ended, a user who was removed. A transaction that
// makes what outlives the credential, and that ends with it, begins with this: those who
// end a credential look for what it made in a transaction of their own.
func (d *Directory) Asking(tx *store.Tx, by Actor) (k Known, err error) {
	switch {
	case by.Kind == "token":
		k, err = scanKnown(tx.QueryRow(sqlAskingByToken, tx.Tenant(), by.ID, []byte(by.text), store.Micros(tx.Now())).Scan)
	case by.Kind == "machine":
		var one int
		err = tx.QueryRow(sqlMachineStands, tx.Tenant(), by.webLogin).Scan(&one)
	case by.webLogin != "":
		k, err = scanKnown(tx.QueryRow(sqlAskingByLogin, tx.Tenant(), by.webLogin).Scan)
	default:
		k, err = scanKnown(tx.QueryRow(sqlAskingByPassword, tx.Tenant(), by.ID).Scan)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return Known{}, unauthenticated()
	}
	return k, err
}
