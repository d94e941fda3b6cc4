package identity

// Who asks, with what an identity provider said, where the credential still stands.
const (
	sqlAskingByPassword = `SELECT ` + userColumns + `, '', 'null' FROM users u WHERE u.tenant = $1 AND u.id = $2`
	sqlAskingByLogin    = `SELECT ` + userColumns + `, l.provider, l.claims
		FROM logins l JOIN users u ON u.tenant = l.tenant AND u.id = l.owner WHERE l.tenant = $1 AND l.id = $2`
	sqlAskingByToken = `SELECT ` + userColumns + `, '', 'null'
		FROM tokens t JOIN users u ON u.tenant = t.tenant AND u.id = t.owner
		WHERE t.tenant = $1 AND t.id = $2 AND (t.hash = $3 OR t.old_hash = $3 AND t.old_until > $4)`
	sqlMachineStands = `SELECT 1 FROM machine_logins WHERE tenant = $1 AND id = $2`
)
