package identity

const (
	sqlUserStands         = `SELECT 1 FROM users WHERE tenant = $1 AND id = $2`
	sqlTokenStands        = `SELECT 1 FROM tokens WHERE tenant = $1 AND id = $2 AND (hash = $3 OR old_hash = $3 AND old_until > $4)`
	sqlLoginStands        = `SELECT 1 FROM logins WHERE tenant = $1 AND id = $2`
	sqlMachineLoginStands = `SELECT 1 FROM machine_logins WHERE tenant = $1 AND id = $2`
)
