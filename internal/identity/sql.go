package identity

import (
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Queries that name no tenant of a transaction are those by which a credential is
// found before anybody knows whose it is, and what lists tenants: selectTenants,
// selectTenantByName, selectLogin, selectTokenByHash, selectTokenByID, selectWebLogin,
// selectMachineLogin, selectGrantByAccess, selectGrantByRefresh, selectBegunLogin.

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

// selectTenants returns every tenant that tx sees, by name.
func selectTenants(tx *store.Tx) (list []Tenant, err error) {
	rows, err := tx.Query(`SELECT tenant, name, created FROM tenants ORDER BY name`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var t Tenant
		var created int64
		if err := rows.Scan(&t.ID, &t.Name, &created); err != nil {
			return nil, err
		}
		t.Created = store.Time(created)
		list = append(list, t)
	}
	return list, rows.Err()
}

// selectTenantByName returns the tenant of that name or id, or sql.ErrNoRows.
func selectTenantByName(tx *store.Tx, nameOrID string) (id trust.TenantID, err error) {
	err = tx.QueryRow(`SELECT tenant FROM tenants WHERE lower(name) = $1 OR tenant = $2`, strings.ToLower(nameOrID), nameOrID).Scan(&id)
	return id, err
}

// Users.

const userColumns = `u.tenant, u.id, u.name, u.password, u.permissions, u.roles, u.email, u.created, u.totp, u.totp_step,
	COALESCE((SELECT p.name FROM identity_providers p WHERE p.tenant = u.tenant AND p.id = u.provider), '')`

func scanUser(scan func(...any) error) (u loginRow, err error) {
	var permissions, roles string
	var created, totp int64
	err = scan(&u.tenant, &u.ID, &u.Name, &u.hash, &permissions, &roles, &u.Email, &created, &totp, &u.totpStep, &u.Provider)
	u.TOTP = totp != 0
	u.Rights = Rights{decodePermissions(permissions), decodeRoles(roles)}
	u.HasPassword, u.Created = u.hash != "", store.Time(created)
	return u, err
}

// A query has to be done with before the roles of a user are read.
func readUser(tx *store.Tx, where string, args ...any) (loginRow, error) {
	u, err := scanUser(tx.QueryRow(`SELECT `+userColumns+` FROM users u WHERE `+where, args...).Scan)
	if err != nil {
		return loginRow{}, err
	}
	u.Permissions, err = permitted(tx, u.tenant, u.Rights)
	return u, err
}

func insertUser(tx *store.Tx, u User, hash string) error {
	_, err := tx.Exec(`INSERT INTO users (tenant, id, login, name, password, permissions, roles, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		tx.Tenant(), u.ID, strings.ToLower(u.Name), u.Name, hash, encodePermissions(u.Rights.Permissions), encodeRoles(u.Rights.Roles), store.Micros(tx.Now()))
	return err
}

// insertProvidersUser inserts a user who logs in by an identity provider, where the
// user is a subject.
func insertProvidersUser(tx *store.Tx, u User, provider, subject string) error {
	if err := insertUser(tx, u, ""); err != nil {
		return err
	}
	_, err := tx.Exec(`UPDATE users SET provider = $3, subject = $4 WHERE tenant = $1 AND id = $2`, tx.Tenant(), u.ID, provider, subject)
	return err
}

// selectUserBySubject returns who a subject is at an identity provider, or
// sql.ErrNoRows.
func selectUserBySubject(tx *store.Tx, provider, subject string) (loginRow, error) {
	return readUser(tx, `u.tenant = $1 AND u.provider = $2 AND u.subject = $3`, tx.Tenant(), provider, subject)
}

func selectUser(tx *store.Tx, id string) (loginRow, error) {
	return readUser(tx, `u.tenant = $1 AND u.id = $2`, tx.Tenant(), id)
}

func selectUserByMailbox(tx *store.Tx, mailbox string) (loginRow, error) {
	return readUser(tx, `u.tenant = $1 AND u.mailbox = $2 AND u.mailbox <> ''`, tx.Tenant(), mailbox)
}

func selectUserByLogin(tx *store.Tx, login string) (loginRow, error) {
	return readUser(tx, `u.tenant = $1 AND u.login = $2`, tx.Tenant(), login)
}

// selectLogin returns a user by name in any tenant, or sql.ErrNoRows.
func selectLogin(tx *store.Tx, tenant trust.TenantID, login string) (loginRow, error) {
	return readUser(tx, `u.tenant = $1 AND u.login = $2`, tenant, login)
}

func selectUsers(tx *store.Tx) ([]User, error) {
	return readUsers(tx, `u.tenant = $1`, tx.Tenant())
}

// selectUsersOf returns the users of an identity provider.
func selectUsersOf(tx *store.Tx, provider string) ([]User, error) {
	return readUsers(tx, `u.tenant = $1 AND u.provider = $2`, tx.Tenant(), provider)
}

func readUsers(tx *store.Tx, where string, args ...any) ([]User, error) {
	rows, err := tx.Query(`SELECT `+userColumns+` FROM users u WHERE `+where+` ORDER BY u.login`, args...)
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
	if err := rows.Err(); err != nil {
		return nil, err
	}
	rows.Close()
	for i := range list {
		if list[i].Permissions, err = permitted(tx, tx.Tenant(), list[i].Rights); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func updatePassword(tx *store.Tx, id, hash string) error {
	_, err := tx.Exec(`UPDATE users SET password = $3 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, hash)
	return err
}

func updateEmail(tx *store.Tx, id, address string) error {
	_, err := tx.Exec(`UPDATE users SET email = $3, mailbox = $4 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, address, mailbox(address))
	return err
}

func updateRights(tx *store.Tx, id string, r Rights) error {
	_, err := tx.Exec(`UPDATE users SET permissions = $3, roles = $4 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, encodePermissions(r.Permissions), encodeRoles(r.Roles))
	return err
}

// updateTOTP says since when a user has a second factor, zero for none, and which
// time step's code was its last.
func updateTOTP(tx *store.Tx, id string, since time.Time, step int64) error {
	_, err := tx.Exec(`UPDATE users SET totp = $3, totp_step = $4 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, store.Micros(since), step)
	return err
}

// spendTOTP says that a time step's code has logged a user in, and reports whether
// it was the first to do so, and of none before it.
func spendTOTP(tx *store.Tx, id string, step int64) (bool, error) {
	n, err := tx.Exec(`UPDATE users SET totp_step = $3 WHERE tenant = $1 AND id = $2 AND totp_step < $3`, tx.Tenant(), id, step)
	return n == 1, err
}

func deleteUser(tx *store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM users WHERE tenant = $1 AND id = $2`, tx.Tenant(), id)
	return err
}

// Roles.

const roleColumns = `r.name, r.permissions, r.created`

func scanRole(scan func(...any) error) (r Role, err error) {
	var permissions string
	var created int64
	err = scan(&r.Name, &permissions, &created)
	r.Permissions, r.Created = decodePermissions(permissions), store.Time(created)
	return r, err
}

func insertRole(tx *store.Tx, r Role) error {
	_, err := tx.Exec(`INSERT INTO roles (tenant, login, name, permissions, created) VALUES ($1, $2, $3, $4, $5)`,
		tx.Tenant(), strings.ToLower(r.Name), r.Name, encodePermissions(r.Permissions), store.Micros(r.Created))
	return err
}

func updateRole(tx *store.Tx, r Role) error {
	_, err := tx.Exec(`UPDATE roles SET permissions = $3 WHERE tenant = $1 AND login = $2`, tx.Tenant(), strings.ToLower(r.Name), encodePermissions(r.Permissions))
	return err
}

func deleteRole(tx *store.Tx, name string) error {
	_, err := tx.Exec(`DELETE FROM roles WHERE tenant = $1 AND login = $2`, tx.Tenant(), strings.ToLower(name))
	return err
}

// selectRole returns a role in any tenant, or sql.ErrNoRows.
func selectRole(tx *store.Tx, tenant trust.TenantID, login string) (Role, error) {
	return scanRole(tx.QueryRow(`SELECT `+roleColumns+` FROM roles r WHERE r.tenant = $1 AND r.login = $2`, tenant, login).Scan)
}

func selectRoles(tx *store.Tx) ([]Role, error) {
	rows, err := tx.Query(`SELECT `+roleColumns+` FROM roles r WHERE r.tenant = $1 ORDER BY r.login`, tx.Tenant())
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Role
	for rows.Next() {
		r, err := scanRole(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

func encodeRoles(names []string) string { return strings.Join(names, "\n") }

func decodeRoles(text string) []string { return lines(text) }

// lines returns the lines of a column.
func lines(text string) []string {
	if text == "" {
		return nil
	}
	return strings.Split(text, "\n")
}

// Tokens.

const tokenColumns = `t.tenant, t.id, t.name, t.hash, t.old_hash, t.old_until, t.permissions, t.owner, t.parent, t.personal, t.created, t.expires, t.used, u.name, u.permissions, u.roles
	FROM tokens t JOIN users u ON u.tenant = t.tenant AND u.id = t.owner`

func scanToken(scan func(...any) error) (t tokenRow, err error) {
	var permissions, limit, roles string
	var until, created, expires, used int64
	err = scan(&t.tenant, &t.ID, &t.Name, &t.hash, &t.oldHash, &until, &permissions, &t.Owner, &t.Parent, &t.Personal, &created, &expires, &used, &t.OwnerName, &limit, &roles)
	t.Permissions, t.owner = decodePermissions(permissions), Rights{decodePermissions(limit), decodeRoles(roles)}
	t.oldUntil, t.Created, t.Expires, t.Used = store.Time(until), store.Time(created), store.Time(expires), store.Time(used)
	return t, err
}

// readToken returns the token of a condition, or sql.ErrNoRows.
func readToken(tx *store.Tx, where string, args ...any) (tokenRow, error) {
	t, err := scanToken(tx.QueryRow(`SELECT `+tokenColumns+` WHERE `+where, args...).Scan)
	if err != nil {
		return tokenRow{}, err
	}
	t.limit, err = permitted(tx, t.tenant, t.owner)
	return t, err
}

func insertToken(tx *store.Tx, t Token, hash []byte) error {
	_, err := tx.Exec(`INSERT INTO tokens (tenant, id, name, hash, permissions, owner, parent, personal, created, expires, used)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0)`,
		tx.Tenant(), t.ID, t.Name, hash, encodePermissions(t.Permissions), t.Owner, t.Parent, t.Personal, store.Micros(t.Created), store.Micros(t.Expires))
	return err
}

func selectToken(tx *store.Tx, id string) (tokenRow, error) {
	return readToken(tx, `t.tenant = $1 AND t.id = $2`, tx.Tenant(), id)
}

// selectTokenByHash returns the token that has a hash, or had it before it was
// rotated.
func selectTokenByHash(tx *store.Tx, hash []byte) (tokenRow, error) {
	return readToken(tx, `t.hash = $1 OR t.old_hash = $1`, hash)
}

func selectTokenByID(tx *store.Tx, id string) (tokenRow, error) {
	return readToken(tx, `t.id = $1`, id)
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

// updateTokenHash gives a token another text. The one that it had holds until then.
func updateTokenHash(tx *store.Tx, id string, hash []byte, until time.Time) error {
	_, err := tx.Exec(`UPDATE tokens SET old_hash = hash, old_until = $3, hash = $4 WHERE tenant = $1 AND id = $2`, tx.Tenant(), id, store.Micros(until), hash)
	return err
}

func markTokenUsed(tx *store.Tx, id string) error {
	_, err := tx.Exec(`UPDATE tokens SET used = $3 WHERE tenant = $1 AND id = $2 AND used < $3`, tx.Tenant(), id, store.Micros(tx.Now()))
	return err
}

// tokenTree is the ids of a token and of those made with it, and with these.
const tokenTree = `WITH RECURSIVE tree (id) AS (
		SELECT id FROM tokens WHERE tenant = $1 AND id = $2
		UNION
		SELECT t.id FROM tokens t JOIN tree ON t.parent = tree.id WHERE t.tenant = $1
	)
	SELECT id FROM tree`

func selectTokenTree(tx *store.Tx, id string) (ids []string, err error) {
	rows, err := tx.Query(tokenTree, tx.Tenant(), id)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

func deleteTokenTree(tx *store.Tx, id string) error {
	_, err := tx.Exec(`DELETE FROM tokens WHERE tenant = $1 AND id IN (`+tokenTree+`)`, tx.Tenant(), id)
	return err
}

func deleteTokensOf(tx *store.Tx, owner string) error {
	_, err := tx.Exec(`DELETE FROM tokens WHERE tenant = $1 AND owner = $2`, tx.Tenant(), owner)
	return err
}

// Web logins.

func insertWebLogin(tx *store.Tx, hash, owner string, l lasting) error {
	_, err := tx.Exec(`INSERT INTO logins (tenant, id, owner, created, seen, idle, ends) VALUES ($1, $2, $3, $4, $4, $5, $6)`,
		tx.Tenant(), hash, owner, store.Micros(tx.Now()), l.idle.Microseconds(), store.Micros(tx.Now().Add(l.life)))
	return err
}

// deleteWebLoginsBut deletes those of a user but for the ones that were used last, as many
// as are to be kept.
func deleteWebLoginsBut(tx *store.Tx, owner string, kept int) error {
	_, err := tx.Exec(`DELETE FROM logins WHERE tenant = $1 AND id IN (
		SELECT id FROM logins WHERE tenant = $1 AND owner = $2 ORDER BY seen DESC, id LIMIT 1000 OFFSET $3)`, tx.Tenant(), owner, kept)
	return err
}

// selectWebLogin returns the web login that is stored by a hash, or sql.ErrNoRows.
func selectWebLogin(tx *store.Tx, hash string) (w webLoginRow, err error) {
	var created, seen, idle, ends int64
	row := tx.QueryRow(`SELECT `+userColumns+`, l.created, l.seen, l.idle, l.ends FROM logins l JOIN users u ON u.tenant = l.tenant AND u.id = l.owner WHERE l.id = $1`, hash)
	u, err := scanUser(func(to ...any) error { return row.Scan(append(to, &created, &seen, &idle, &ends)...) })
	if err != nil {
		return webLoginRow{}, err
	}
	w.seen, w.idle, w.ends = store.Time(seen), time.Duration(idle)*time.Microsecond, store.Time(ends)
	u.Permissions, err = permitted(tx, u.tenant, u.Rights)
	w.actor = u.actor("")
	w.actor.began = store.Time(created)
	return w, err
}

func extendWebLogin(tx *store.Tx, hash string) error {
	_, err := tx.Exec(`UPDATE logins SET seen = $3 WHERE tenant = $1 AND id = $2`, tx.Tenant(), hash, store.Micros(tx.Now()))
	return err
}

func deleteWebLogin(tx *store.Tx, hash string) error {
	_, err := tx.Exec(`DELETE FROM logins WHERE tenant = $1 AND id = $2`, tx.Tenant(), hash)
	return err
}

func deleteWebLoginsOf(tx *store.Tx, owner string) error {
	_, err := tx.Exec(`DELETE FROM logins WHERE tenant = $1 AND owner = $2`, tx.Tenant(), owner)
	return err
}

// deleteEndedWebLogins deletes those of the tenant of tx that have ended.
func deleteEndedWebLogins(tx *store.Tx) error {
	_, err := tx.Exec(`DELETE FROM logins WHERE tenant = $1 AND (ends <= $2 OR seen + idle + idle / 5 < $2)`, tx.Tenant(), store.Micros(tx.Now()))
	return err
}

// Grants.

func insertGrant(tx *store.Tx, id, owner string, t OAuthTokens) error {
	_, err := tx.Exec(`INSERT INTO oauth_grants (tenant, id, owner, access, access_until, refresh, refresh_until, created) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
		tx.Tenant(), id, owner, oauthHash(t.Access), store.Micros(tx.Now().Add(accessTokenLife)),
		oauthHash(t.Refresh), store.Micros(tx.Now().Add(refreshTokenLife)), store.Micros(tx.Now()))
	return err
}

// refreshGrant gives a grant other tokens for its refresh token, and reports whether
// that still was good for them.
func refreshGrant(tx *store.Tx, id string, refresh []byte, t OAuthTokens) (bool, error) {
	n, err := tx.Exec(`UPDATE oauth_grants SET access = $4, access_until = $5, refresh = $6, refresh_until = $7
		WHERE tenant = $1 AND id = $2 AND refresh = $3 AND refresh_until > $8`,
		tx.Tenant(), id, refresh, oauthHash(t.Access), store.Micros(tx.Now().Add(accessTokenLife)),
		oauthHash(t.Refresh), store.Micros(tx.Now().Add(refreshTokenLife)), store.Micros(tx.Now()))
	return n == 1, err
}

// readGrant returns the grant of a condition, or sql.ErrNoRows.
func readGrant(tx *store.Tx, where string, args ...any) (g grantRow, err error) {
	var until int64
	var owner string
	err = tx.QueryRow(`SELECT tenant, id, owner, access_until FROM oauth_grants WHERE `+where, args...).Scan(&g.tenant, &g.id, &owner, &until)
	if err != nil {
		return grantRow{}, err
	}
	g.accessUntil = store.Time(until)
	u, err := readUser(tx, `u.tenant = $1 AND u.id = $2`, g.tenant, owner)
	g.user = u.User
	return g, err
}

func selectGrantByAccess(tx *store.Tx, hash []byte) (grantRow, error) {
	return readGrant(tx, `access = $1`, hash)
}

func selectGrantByRefresh(tx *store.Tx, hash []byte) (grantRow, error) {
	return readGrant(tx, `refresh = $1`, hash)
}

func deleteGrantsOf(tx *store.Tx, owner string) error {
	_, err := tx.Exec(`DELETE FROM oauth_grants WHERE tenant = $1 AND owner = $2`, tx.Tenant(), owner)
	return err
}

// deleteEndedGrants deletes those of the tenant of tx of which no token holds.
func deleteEndedGrants(tx *store.Tx) error {
	_, err := tx.Exec(`DELETE FROM oauth_grants WHERE tenant = $1 AND refresh_until <= $2`, tx.Tenant(), store.Micros(tx.Now()))
	return err
}

// deleteOldestGrants deletes those of a user but for the youngest, as many as are to
// be kept.
func deleteOldestGrants(tx *store.Tx, owner string, kept int) error {
	_, err := tx.Exec(`DELETE FROM oauth_grants WHERE tenant = $1 AND id IN (
		SELECT id FROM oauth_grants WHERE tenant = $1 AND owner = $2 ORDER BY created DESC, id LIMIT 1000 OFFSET $3)`, tx.Tenant(), owner, kept)
	return err
}
