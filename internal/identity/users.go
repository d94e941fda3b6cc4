package identity

import (
	"database/sql"
	"errors"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A User is a person, or a program that logs in like one.
type User struct {
	ID   string // 32 hex digits
	Name string // unique in its tenant without regard to case
	// Permissions are all that the user may do, by Rights.
	Permissions []Permission
	Rights      Rights
	// Email is an address that rules on addresses go by: one that was given by who may
	// write those rules, or that the identity provider has verified; "" for none.
	Email       string
	HasPassword bool
	TOTP        bool // the user logs in with a second factor
	// Provider is the name of the identity provider by which the user logs in, and
	// which says what the user may do; "" for a user of our own.
	Provider string
	Created  time.Time
}

// A NewUser is what AddUser makes a User of.
type NewUser struct {
	Name     string
	Email    string       // or "" for none; see SetEmail
	Password PasswordHash // from HashPassword, or zero for none
	Rights   Rights
}

// userName is what a user may be called: also an email address, never what could
// be taken for a path, an option or a tenant.
var userName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$`)

// isUserName reports whether a new user can be called so: not what an id looks like,
// as which it would be somebody else's wherever an id or a name is asked for.
func isUserName(name string) bool {
	return userName.MatchString(name) && !isID(strings.ToLower(name))
}

// AddUser adds a user who may do no more than by may. A name that is taken is a
// Conflict.
func (d *Directory) AddUser(tx *store.Tx, by Actor, u NewUser) (User, error) {
	if err := CheckLasting(tx, by); err != nil {
		return User{}, err
	}
	if !isUserName(u.Name) {
		return User{}, trust.Errorf(trust.Invalid, "user name %.80q is not 1 to 64 of letters, digits and \"._@+-\", a letter or digit first, or is what ids look like", u.Name).WithField("name")
	}
	rights, permissions, err := settle(tx, by, u.Rights)
	if err != nil {
		return User{}, err
	}
	if _, err := selectUserByLogin(tx, strings.ToLower(u.Name)); err == nil {
		return User{}, trust.Errorf(trust.Conflict, "a user called %q is there already", u.Name).WithHint("choose another name")
	} else if !errors.Is(err, sql.ErrNoRows) {
		return User{}, err
	}
	made := User{ID: newID(), Name: u.Name, Email: u.Email, Permissions: permissions, Rights: rights, HasPassword: u.Password.encoded != "", Created: tx.Now()}
	if err := insertUser(tx, made, u.Password.encoded); err != nil || u.Email == "" {
		return made, err
	}
	return made, giveEmail(tx, made.ID, u.Email)
}

func noUser(idOrName string) error {
	return trust.Errorf(trust.NotFound, "there is no user %.80q", idOrName)
}

// Users returns every user of the tenant of tx, by name.
func (d *Directory) Users(tx *store.Tx) ([]User, error) { return selectUsers(tx) }

// User returns the user of that id or name, or a NotFound error.
func (d *Directory) User(tx *store.Tx, idOrName string) (User, error) {
	if !userName.MatchString(idOrName) {
		return User{}, noUser(idOrName)
	}
	u, err := selectUser(tx, idOrName)
	if errors.Is(err, sql.ErrNoRows) {
		u, err = selectUserByLogin(tx, strings.ToLower(idOrName))
	}
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, noUser(idOrName)
	}
	return u.User, err
}

// SetPassword gives a user another password, or none, and ends the user's web
// logins and grants. Only who may do whatever that user may do, and the user, may.
// The last one who may do everything keeps one.
func (d *Directory) SetPassword(tx *store.Tx, by Actor, id string, hash PasswordHash) error {
	u, err := d.overUser(tx, by, id)
	if err != nil {
		return err
	}
	if err := u.checkOwn(); err != nil {
		return err
	}
	if err := checkPresent(by, u); err != nil {
		return err
	}
	if err := endLogins(tx, id); err != nil {
		return err
	}
	if err := updatePassword(tx, id, hash.encoded); err != nil {
		return err
	}
	return d.checkAdministered(tx)
}

// SetRights says anew what a user may do: no more than by may. The user's tokens
// may do no more than the user from this commit on.
func (d *Directory) SetRights(tx *store.Tx, by Actor, id string, r Rights) error {
	if _, err := d.overUser(tx, by, id); err != nil {
		return err
	}
	rights, _, err := settle(tx, by, r)
	if err != nil {
		return err
	}
	if err := updateRights(tx, id, rights); err != nil {
		return err
	}
	return d.checkAdministered(tx)
}

// RemoveUser removes a user together with the user's tokens, web logins and grants.
// Only who may do whatever that user may do, and the user, may. The last one who may
// do everything stays.
func (d *Directory) RemoveUser(tx *store.Tx, by Actor, id string) error {
	if _, err := d.overUser(tx, by, id); err != nil {
		return err
	}
	if err := d.removeUser(tx, id); err != nil {
		return err
	}
	return d.checkAdministered(tx)
}

func (d *Directory) removeUser(tx *store.Tx, id string) error {
	if err := endLogins(tx, id); err != nil {
		return err
	}
	if err := deleteTokensOf(tx, id); err != nil {
		return err
	}
	for _, kind := range []string{totpOffered, totpKind} {
		if err := d.keyring.Forget(tx, kind, id); err != nil {
			return err
		}
	}
	if err := forgetSaid(tx, id); err != nil {
		return err
	}
	return deleteUser(tx, id)
}

// checkOwn refuses a password or a second factor for a user who logs in elsewhere.
func (u User) checkOwn() error {
	if u.Provider == "" {
		return nil
	}
	return trust.Errorf(trust.Conflict, "user %q logs in by the identity provider %q, and has neither a password nor a second factor here", u.Name, u.Provider)
}

// checkPresent refuses a user who asks for another password, or no second factor, of
// their own by a login alone: whoever stole that would have what does not end with it.
func checkPresent(by Actor, u User) error {
	if by.ID != u.ID || by.webLogin == "" {
		return nil
	}
	return trust.Errorf(trust.Denied, "your password and second factor cannot be changed with a login alone").
		WithHint("set KEYTURN_USER, KEYTURN_PASSWORD and, for a code, KEYTURN_TOTP")
}

// overUser returns the user of an id if by may do to that user as it likes. Users may do
// so to themselves, whenever they logged in: checkPresent and CheckLasting are for what
// outlives that.
func (d *Directory) overUser(tx *store.Tx, by Actor, id string) (User, error) {
	self, check := by.Kind == "user" && by.ID == id, CheckLasting
	if self {
		check = checkActor
	}
	if err := check(tx, by); err != nil {
		return User{}, err
	}
	if !isID(id) {
		return User{}, noUser(id)
	}
	u, err := selectUser(tx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return User{}, noUser(id)
	}
	if err != nil {
		return User{}, err
	}
	if self {
		return u.User, nil
	}
	return u.User, checkOver(by, u.User)
}

// checkOver refuses what is to be done to a user by who may do less.
func checkOver(by Actor, u User) error {
	if p := beyond(by.Permissions, u.Permissions); p != "" {
		return trust.Errorf(trust.Denied, "user %q has the permission %q, which %s does not have", u.Name, p, by.describe())
	}
	return nil
}

// checkAdministered refuses a change after which nobody gets in who may do everything:
// there would be no way to make another one who may. A user without a password does not
// count, nor does one of an identity provider, who may do everything only as long as
// that says so.
func (d *Directory) checkAdministered(tx *store.Tx) error {
	users, err := selectUsers(tx)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(users, func(u User) bool { return u.HasPassword && slices.Contains(u.Permissions, All) }) {
		return nil
	}
	return trust.Errorf(trust.Conflict, "nobody would be left who has a password and the permission %q", All).
		WithHint("give it to another user first: keyturn user set NAME --role Administrator, and keyturn user password NAME")
}

// checkGrant refuses permissions that by does not have, or none.
func checkGrant(by Actor, list []Permission) error {
	var names []string
	for _, p := range list {
		names = append(names, string(p))
	}
	if _, err := ParsePermissions(names); err != nil {
		return err
	}
	if p := beyond(by.Permissions, list); p != "" {
		return trust.Errorf(trust.Denied, "the permission %q cannot be given by %s, which does not have it", p, by.describe()).WithField("permissions")
	}
	return nil
}
