package identity

import (
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Queries that name no tenant of a transaction are those by which a credential is
// found before anybody knows whose it is: selectTenantByName, selectLogin,
// selectTokenByHash, selectTokenByID, selectWebLogin.

// Tenants.

func insertTenant(tx *store.Tx, name string) error {
	_, err := tx.Exec(`INSERT INTO tenants (tenant, name, created) VALUES ($1, $2, $3)`, tx.Tenant(), name, store.Micros(tx.Now()))
	return err
}

func selectTenant(tx *store.Tx) (t Tenant, err error) {
	var created int64
	err = tx.QueryRow(`SELECT tenant, name, created FROM tenants WHERE tenant = $1`, tx.Tenant()).Scan(&t.ID, &t.Name, &created)
	t.Created = store.Time(created)
	return t, err
}

// selectTenantByName returns the tenant of that name or id, or sql.ErrNoRows.
func selectTenantByName(tx *store.Tx, nameOrID string) (id trust.TenantID, err error) {
	err = tx.QueryRow(`SELECT tenant FROM tenants WHERE name = $1 OR tenant = $1`, nameOrID).Scan(&id)
	return id, err
}

// Users.

const userColumns = `u.id, u.name, u.password, u.permissions, u.created`

func scanUser(scan func(...any) error) (u loginRow, err error) {
	var permissions string
	var created int64
	err = scan(&u.ID, &u.Name, &u.hash, &permissions, &created)
	u.Permissions, u.HasPassword, u.Created = decodePermissions(permissions), u.hash != "", store.Time(created)
	return u, err
}

func insertUser(tx *store.Tx, u User, hash string) error {
	_, err := tx.Exec(`INSERT INTO users (tenant, id, login, name, password, permissions, created) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		tx.Tenant(), u.ID, strings.ToLower(u.Name), u.Name, hash, encodePermissions(u.Permissions), store.Micros(tx.Now()))
	return err
}

func selectUser(tx *store.Tx, id string) (loginRow, error) {
	return scanUser(tx.QueryRow(`SELECT `+userColumns+` FROM users u WHERE u.tenant = $1 AND u.id = $2`, tx.Tenant(), id).Scan)
}

func selectUserByLogin(tx *store.Tx, login string) (loginRow, error) {
	return scanUser(tx.QueryRow(`SELECT `+userColumns+` FROM users u WHERE u.tenant = $1 AND u.login = $2`, tx.Tenant(), login).Scan)
}

// selectLogin returns a user by name in any tenant, or sql.ErrNoRows.
func selectLogin(tx *store.Tx, tenant trust.TenantID, login string) (loginRow, error) {
	u, err := scanUser(tx.QueryRow(`SELECT `+userColumns+` FROM users u WHERE u.tenant = $1 AND u.login = $2`, tenant, login).Scan)
	u.tenant = tenant
	return u, err
}

func selectUsers(tx *store.Tx) ([]User, error) {
	rows, err := tx.Query(`SELECT `+userColumns+` FROM users u WHERE u.tenant = $1 ORDER BY u.login`, tx.Tenant())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []User
	for rows.Next() {
		u, err := scanUser(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, u.User)
	}
	return list, rows.Err()
}

func selectPassword(tx *store.Tx, id string) (hash string, err error) {
	err = tx.QueryRow(`SELECT password FROM users WHERE tenant = $1 AND id = $2`, tx.Tenant(), id).Scan(&hash)
	return hash, err
}

func updatePassword(tx *store.Tx, id, hash string) error {
	_, err := tx.Exec(`UPDATE users SET password = $3 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, hash)
	return err
}

func updatePermissions(tx *store.Tx, id string, list []Permission) error {
	_, err := tx.Exec(`UPDATE users SET permissions = $3 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, encodePermissions(list))
	return err
}

func deleteUser(tx *store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM users WHERE tenant = $1 AND id = $2`, tx.Tenant(), id)
	return err
}

// Tokens.

const tokenColumns = `t.tenant, t.id, t.name, t.hash, t.permissions, t.owner, t.parent, t.created, t.expires, t.used, u.permissions
	FROM tokens t JOIN users u ON u.tenant = t.tenant AND u.id = t.owner`

func scanToken(scan func(...any) error) (t tokenRow, err error) {
	var permissions, limit string
	var created, expires, used int64
	err = scan(&t.tenant, &t.ID, &t.Name, &t.hash, &permissions, &t.Owner, &t.Parent, &created, &expires, &used, &limit)
	t.Permissions, t.limit = decodePermissions(permissions), decodePermissions(limit)
	t.Created, t.Expires, t.Used = store.Time(created), store.Time(expires), store.Time(used)
	return t, err
}

func insertToken(tx *store.Tx, t Token, hash []byte) error {
	_, err := tx.Exec(`INSERT INTO tokens (tenant, id, name, hash, permissions, owner, parent, created, expires, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 0)`,
		tx.Tenant(), t.ID, t.Name, hash, encodePermissions(t.Permissions), t.Owner, t.Parent, store.Micros(t.Created), store.Micros(t.Expires))
	return err
}

func selectToken(tx *store.Tx, id string) (tokenRow, error) {
	return scanToken(tx.QueryRow(`SELECT `+tokenColumns+` WHERE t.tenant = $1 AND t.id = $2`, tx.Tenant(), id).Scan)
}

func selectTokenByHash(tx *store.Tx, hash []byte) (tokenRow, error) {
	return scanToken(tx.QueryRow(`SELECT `+tokenColumns+` WHERE t.hash = $1`, hash).Scan)
}

func selectTokenByID(tx *store.Tx, id string) (tokenRow, error) {
	return scanToken(tx.QueryRow(`SELECT `+tokenColumns+` WHERE t.id = $1`, id).Scan)
}

func selectTokens(tx *store.Tx) ([]Token, error) {
	rows, err := tx.Query(`SELECT `+tokenColumns+` WHERE t.tenant = $1 ORDER BY t.created DESC, t.id`, tx.Tenant())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Token
	for rows.Next() {
		t, err := scanToken(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, t.Token)
	}
	return list, rows.Err()
}

func countTokens(tx *store.Tx, owner string) (n int, err error) {
	err = tx.QueryRow(`SELECT count(*) FROM tokens WHERE tenant = $1 AND owner = $2`, tx.Tenant(), owner).Scan(&n)
	return n, err
}

func markTokenUsed(tx *store.Tx, id string) error {
	_, err := tx.Exec(`UPDATE tokens SET used = $3 WHERE tenant = $1 AND id = $2 AND used < $3`, tx.Tenant(), id, store.Micros(tx.Now()))
	return err
}

// deleteTokenTree deletes a token and those made with it, and with these.
func deleteTokenTree(tx *store.Tx, id string) (int64, error) {
	return tx.Exec(`DELETE FROM tokens WHERE tenant = $1 AND id IN (
		WITH RECURSIVE tree (id) AS (
			SELECT id FROM tokens WHERE tenant = $1 AND id = $2
			UNION
			SELECT t.id FROM tokens t JOIN tree ON t.parent = tree.id WHERE t.tenant = $1
		)
		SELECT id FROM tree
	)`, tx.Tenant(), id)
}

func deleteTokensOf(tx *store.Tx, owner string) error {
	_, err := tx.Exec(`DELETE FROM tokens WHERE tenant = $1 AND owner = $2`, tx.Tenant(), owner)
	return err
}

// Web logins.

func insertWebLogin(tx *store.Tx, hash, owner string) error {
	_, err := tx.Exec(`INSERT INTO web_logins (tenant, id, owner, created, seen) VALUES ($1, $2, $3, $4, $4)`,
		tx.Tenant(), hash, owner, store.Micros(tx.Now()))
	return err
}

// selectWebLogin returns whose web login it is, when it began and when it was
// last written down that it is used; or sql.ErrNoRows.
func selectWebLogin(tx *store.Tx, hash string) (a Actor, created, seen time.Time, err error) {
	var began, last int64
	var permissions string
	err = tx.QueryRow(`SELECT w.tenant, w.created, w.seen, u.id, u.name, u.permissions
		FROM web_logins w JOIN users u ON u.tenant = w.tenant AND u.id = w.owner
		WHERE w.id = $1`, hash).Scan(&a.Tenant, &began, &last, &a.ID, &a.Name, &permissions)
	a.Kind, a.Owner, a.Permissions = "user", a.ID, decodePermissions(permissions)
	return a, store.Time(began), store.Time(last), err
}

func extendWebLogin(tx *store.Tx, hash string) error {
	_, err := tx.Exec(`UPDATE web_logins SET seen = $3 WHERE tenant = $1 AND id = $2`, tx.Tenant(), hash, store.Micros(tx.Now()))
	return err
}

func deleteWebLogin(tx *store.Tx, hash string) error {
	_, err := tx.Exec(`DELETE FROM web_logins WHERE tenant = $1 AND id = $2`, tx.Tenant(), hash)
	return err
}

func deleteWebLoginsOf(tx *store.Tx, owner string) error {
	_, err := tx.Exec(`DELETE FROM web_logins WHERE tenant = $1 AND owner = $2`, tx.Tenant(), owner)
	return err
}

// deleteEndedWebLogins deletes those of the tenant of tx that were last used
// before idle or began before old.
func deleteEndedWebLogins(tx *store.Tx, idle, old time.Time) error {
	_, err := tx.Exec(`DELETE FROM web_logins WHERE tenant = $1 AND (seen < $2 OR created < $3)`, tx.Tenant(), store.Micros(idle), store.Micros(old))
	return err
}
