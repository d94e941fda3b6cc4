package control

// The queries on the table that this package owns.
const (
	sqlSetting       = `SELECT value, changed_at FROM settings WHERE tenant = $1 AND name = $2`
	sqlUpdateSetting = `UPDATE settings SET value = $3, changed_at = $4 WHERE tenant = $1 AND name = $2`
	sqlInsertSetting = `INSERT INTO settings (tenant, name, value, changed_at) VALUES ($1, $2, $3, $4)`
)
