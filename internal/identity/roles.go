package identity

import (
	"database/sql"
	"errors"
	"slices"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Role is a name for permissions that are given together. Whoever has a role may
// do what it says at that time: a change of it counts at once.
type Role struct {
	Name        string // unique in its tenant without regard to case
	Permissions []Permission
	// BuiltIn roles are there in every tenant and cannot be changed.
	BuiltIn bool
	Meaning string // of a built-in one
	Created time.Time
}

// builtIn is the roles that every tenant has.
var builtIn = []Role{
	{
		Name: "Administrator", BuiltIn: true, Meaning: "everything",
		Permissions: []Permission{All},
	},
	{
		Name: "Operator", BuiltIn: true, Meaning: "look after hosts and keys, and read no private key",
		Permissions: []Permission{AccountRead, UsersRead, HostsWrite, KeysWrite, RunsWrite, SettingsRead, CertificatesRead, AuditRead, MetricsRead, ZeroTrustRead, AppsRead, SSHAuditingRead, OrganizationsRead, AuditLogsRead, PolicyTestRead},
	},
	{
		Name: "Auditor", BuiltIn: true, Meaning: "see everything, and change nothing",
		Permissions: []Permission{AccountRead, UsersRead, TokensRead, HostsRead, KeysRead, RunsRead, SettingsRead, CertificatesRead, AuditRead, MetricsRead, ZeroTrustRead, AppsRead, SSHAuditingRead, OrganizationsRead, AuditLogsRead, PolicyTestRead},
	},
}

const (
	maxRoles     = 100 // of a tenant
	maxUserRoles = 20  // of a user
)

// Rights are what is given to a user: permissions, and roles by their names.
type Rights struct {
	Permissions []Permission
	Roles       []string
}

// Roles returns every role of the tenant of tx: those that are there in every
// tenant, and then its own by name.
func (d *Directory) Roles(tx *store.Tx) ([]Role, error) {
	own, err := selectRoles(tx)
	return append(slices.Clone(builtIn), own...), err
}

// SetRole makes a role or changes what it may do. Only who may do all that it may
// before and after, may.
func (d *Directory) SetRole(tx *store.Tx, by Actor, name string, list []Permission) (Role, error) {
	if err := CheckLasting(tx, by); err != nil {
		return Role{}, err
	}
	if !userName.MatchString(name) {
		return Role{}, trust.Errorf(trust.Invalid, "role name %.80q is not 1 to 64 of letters, digits and \"._@+-\", a letter or digit first", name).WithField("name")
	}
	if err := checkGrant(by, list); err != nil {
		return Role{}, err
	}
	old, err := findRole(tx, name)
	switch {
	case trust.KindOf(err) == trust.NotFound:
		all, err := selectRoles(tx)
		if err != nil {
			return Role{}, err
		}
		if len(all) >= maxRoles {
			return Role{}, trust.Errorf(trust.Exhausted, "this account has %d roles, and no more than that", maxRoles).WithHint("keyturn role remove NAME")
		}
		made := Role{Name: name, Permissions: list, Created: tx.Now()}
		return made, insertRole(tx, made)
	case err != nil:
		return Role{}, err
	}
	if err := checkRole(by, old); err != nil {
		return Role{}, err
	}
	old.Permissions = list
	if err := updateRole(tx, old); err != nil {
		return Role{}, err
	}
	return old, d.checkAdministered(tx)
}

// RemoveRole removes a role that nobody has, and no identity provider gives.
func (d *Directory) RemoveRole(tx *store.Tx, by Actor, name string) error {
	if err := CheckLasting(tx, by); err != nil {
		return err
	}
	r, err := findRole(tx, name)
	if err != nil {
		return err
	}
	if err := checkRole(by, r); err != nil {
		return err
	}
	users, err := selectUsers(tx)
	if err != nil {
		return err
	}
	for _, u := range users {
		if slices.ContainsFunc(u.Rights.Roles, func(has string) bool { return strings.EqualFold(has, name) }) {
			return trust.Errorf(trust.Conflict, "user %q has the role %q", u.Name, r.Name).WithHint("keyturn user set %s --role ...", u.Name)
		}
	}
	providers, err := selectProviders(tx)
	if err != nil {
		return err
	}
	for _, p := range providers {
		if slices.Contains(p.given(), r.Name) {
			return trust.Errorf(trust.Conflict, "the identity provider %q gives the role %q", p.Name, r.Name).WithHint("keyturn provider set %s ...", p.Name)
		}
	}
	return deleteRole(tx, r.Name)
}

// checkRole refuses a change of a role to who may do less than it, and of one that
// is built in to everybody.
func checkRole(by Actor, r Role) error {
	if r.BuiltIn {
		return trust.Errorf(trust.Conflict, "the role %q is there in every account and cannot be changed", r.Name).WithHint("keyturn role set ANOTHER-NAME --permission ...")
	}
	if p := beyond(by.Permissions, r.Permissions); p != "" {
		return trust.Errorf(trust.Denied, "the role %q has the permission %q, which %s does not have", r.Name, p, by.describe())
	}
	return nil
}

// findRole returns the role of a name in the tenant of tx, or a NotFound error.
func findRole(tx *store.Tx, name string) (Role, error) {
	r, err := roleOf(tx, tx.Tenant(), name)
	if errors.Is(err, sql.ErrNoRows) {
		return Role{}, trust.Errorf(trust.NotFound, "there is no role %.80q", name).WithField("roles").WithHint("keyturn role list")
	}
	return r, err
}

func roleOf(tx *store.Tx, tenant trust.TenantID, name string) (Role, error) {
	for _, r := range builtIn {
		if strings.EqualFold(r.Name, name) {
			return r, nil
		}
	}
	return selectRole(tx, tenant, strings.ToLower(name))
}

// permitted returns what a user with these rights may do. A role that is not there
// grants nothing.
func permitted(tx *store.Tx, tenant trust.TenantID, r Rights) ([]Permission, error) {
	list := slices.Clone(r.Permissions)
	for _, name := range r.Roles {
		role, err := roleOf(tx, tenant, name)
		if errors.Is(err, sql.ErrNoRows) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, p := range role.Permissions {
			if !slices.Contains(list, p) {
				list = append(list, p)
			}
		}
	}
	return list, nil
}

// settle checks rights that by gives to a user, spells the roles as they are
// called, and returns what the user may then do.
func settle(tx *store.Tx, by Actor, r Rights) (Rights, []Permission, error) {
	if len(r.Roles) > maxUserRoles {
		return Rights{}, nil, trust.Errorf(trust.Exhausted, "a user has %d roles at the most", maxUserRoles).WithField("roles")
	}
	var names []string
	for _, name := range r.Roles {
		role, err := findRole(tx, name)
		if err != nil {
			return Rights{}, nil, err
		}
		if !slices.Contains(names, role.Name) {
			names = append(names, role.Name)
		}
	}
	r.Roles = names
	list, err := permitted(tx, tx.Tenant(), r)
	if err != nil {
		return Rights{}, nil, err
	}
	return r, list, checkGrant(by, list)
}
