package identity

// What identity providers said of users.
const (
	sqlKeepSaid = `INSERT INTO user_claims (tenant, user_id, provider, claims) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, user_id) DO UPDATE SET provider = excluded.provider, claims = excluded.claims`
	sqlForgetSaid = `DELETE FROM user_claims WHERE tenant = $1 AND user_id = $2`
	sqlKnown      = `SELECT ` + userColumns + `, COALESCE(c.provider, ''), COALESCE(c.claims, 'null')
		FROM users u LEFT JOIN user_claims c ON c.tenant = u.tenant AND c.user_id = u.id WHERE u.tenant = $1 AND u.id > $2 ORDER BY u.id LIMIT $3`
	sqlKeepSaidAtLogin = `UPDATE logins SET provider = $3, claims = $4 WHERE tenant = $1 AND id = $2`
	sqlSaid            = `SELECT provider, claims FROM user_claims WHERE tenant = $1 AND user_id = $2`
)
