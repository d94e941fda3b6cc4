package identity

import (
	"database/sql"
	"errors"
	"strings"
	"unicode"
	"unicode/utf8"

	"keyturn/internal/oidc"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// maxEmail is how many bytes an address can have: RFC 5321, section 4.5.3.1.
const maxEmail = 64 + 1 + 255

// checkEmail refuses what is no address of e-mail. It need not be one that is
// delivered to: rules compare it, and nothing is sent.
func checkEmail(address string) error {
	local, domain, ok := strings.Cut(address, "@")
	odd := strings.ContainsFunc(address, func(c rune) bool { return unicode.IsSpace(c) || !unicode.IsPrint(c) })
	if !ok || local == "" || domain == "" || strings.Contains(domain, "@") || odd || len(address) > maxEmail || !utf8.ValidString(address) {
		return trust.Errorf(trust.Invalid, "%.80q is no address of e-mail", address).WithField("email")
	}
	return nil
}

// mailbox is what addresses have in common that are the same one: rules compare
// ASCII letters without regard to case, and so does this.
func mailbox(address string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' {
			return c + 'a' - 'A'
		}
		return c
	}, address)
}

// UserByEmail returns the user who has an address, or a NotFound error.
func (d *Directory) UserByEmail(tx *store.Tx, address string) (User, error) {
	u, err := selectUserByMailbox(tx, mailbox(address))
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, trust.Errorf(trust.NotFound, "no user has the address %.80q", address)
	}
	return u.User, err
}

// SetEmail gives a user of our own another address of e-mail, or none. Rules let in
// by it, so that whoever calls this has to be one who may write those. No two users
// have the same: a Conflict.
func (d *Directory) SetEmail(tx *store.Tx, by Actor, id, address string) error {
	if err := CheckLasting(tx, by); err != nil { // of oneself, too: policies go by it
		return err
	}
	u, err := d.overUser(tx, by, id)
	if err != nil {
		return err
	}
	if u.Provider != "" {
		return trust.Errorf(trust.Conflict, "user %q logs in by the identity provider %q, which says what address that user has", u.Name, u.Provider)
	}
	return giveEmail(tx, id, address)
}

// giveEmail writes down an address of a user, in the place of the one before, and
// leaves it in the event as what it is: a person's.
func giveEmail(tx *store.Tx, id, address string) error {
	if address != "" {
		if err := checkEmail(address); err != nil {
			return err
		}
		other, err := selectUserByMailbox(tx, mailbox(address))
		switch {
		case errors.Is(err, sql.ErrNoRows) || err == nil && other.ID == id:
		case err != nil:
			return err
		default:
			return trust.Errorf(trust.Conflict, "user %q has the address %.80q already", other.Name, address).WithField("email")
		}
	}
	tx.NotePersonal("email", address, Person(id))
	return updateEmail(tx, id, address)
}

// keepEmail keeps the address that an identity provider has verified, as long as no
// other user has it: rules go by addresses, and one address is one user. Without one
// a user logs in all the same, and rules on addresses cannot be told.
func keepEmail(tx *store.Tx, u User, c oidc.Claims) error {
	address := ""
	if list := c.Vouched("email"); len(list) == 1 && checkEmail(list[0]) == nil {
		address = list[0]
	}
	if address == u.Email {
		return nil
	}
	err := giveEmail(tx, u.ID, address)
	if trust.KindOf(err) != trust.Conflict {
		return err
	}
	tx.Note("email-refused", "another user has the address that the identity provider says")
	return updateEmail(tx, u.ID, "")
}
