package identity

import (
	"database/sql"
	"errors"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Tenant is an account in the sense of keyturn account show.
type Tenant struct {
	ID      trust.TenantID
	Name    string
	Created time.Time
}

// Tenant returns the tenant of tx.
func (d *Directory) Tenant(tx *store.Tx) (Tenant, error) {
	t, err := selectTenant(tx)
	if errors.Is(err, sql.ErrNoRows) {
		return Tenant{}, trust.Errorf(trust.NotFound, "account %q is not known here", tx.Tenant())
	}
	return t, err
}

// Tenants returns every tenant of the installation, by name. tx is of store.System.
func (d *Directory) Tenants(tx *store.Tx) ([]Tenant, error) { return selectTenants(tx) }

// maxTenants bounds the tenants of an installation.
const maxTenants = 1000

// NewTenant returns the id for a tenant of that name, or says why there cannot be one. Names
// that differ in case only are one.
// tx is of store.System.
func (d *Directory) NewTenant(tx *store.Tx, name string) (trust.TenantID, error) {
	if !userName.MatchString(name) || isID(name) {
		return "", trust.Errorf(trust.Invalid, "%.64q cannot be the name of an account: it has 1 to 64 letters, digits and any of . _ @ + -, begins with a letter or a digit, and is not an id", name).WithField("name")
	}
	there, err := selectTenants(tx)
	if err != nil {
		return "", err
	}
	if len(there) >= maxTenants {
		return "", trust.Errorf(trust.Exhausted, "there are %d accounts, which is as many as there can be", len(there))
	}
	for _, t := range there {
		if strings.EqualFold(t.Name, name) {
			return "", nameTaken(t.Name)
		}
	}
	return trust.TenantID(newID()), nil
}

func nameTaken(name string) error {
	return trust.Errorf(trust.Conflict, "there is an account %q already", name).WithField("name").WithHint("keyturn account list")
}

// AddTenant makes the tenant of tx, and in it the user "admin", who may do everything
// there. Its name is one that NewTenant has accepted.
func (d *Directory) AddTenant(tx *store.Tx, name string, password PasswordHash) (Tenant, error) {
	err := insertTenant(tx, name)
	if trust.KindOf(err) == trust.Conflict { // somebody was quicker
		return Tenant{}, nameTaken(name)
	}
	if err != nil {
		return Tenant{}, err
	}
	admin := User{ID: newID(), Name: AdminUser, Rights: Rights{Permissions: []Permission{All}}}
	tx.Note("admin", admin.ID)
	if err := insertUser(tx, admin, password.encoded); err != nil {
		return Tenant{}, err
	}
	return selectTenant(tx)
}
