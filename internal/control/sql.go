package control

// The queries on the tables that this package owns.
const (
	sqlSetting       = `SELECT value, changed_at FROM settings WHERE tenant = $1 AND name = $2`
	sqlUpdateSetting = `UPDATE settings SET value = $3, changed_at = $4 WHERE tenant = $1 AND name = $2`
	sqlInsertSetting = `INSERT INTO settings (tenant, name, value, changed_at) VALUES ($1, $2, $3, $4)`

	sqlApprovals   = `SELECT id, subject, value, asked_by, person, asked_at, until, approved_by, approved_at, spent_at, first_person FROM approvals`
	sqlAskApproval = `INSERT INTO approvals (tenant, id, subject, value, asked_by, person, asked_at, until, approved_by, approved_at, spent_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', 0, 0)`
	sqlOwnApproval = sqlApprovals + ` WHERE tenant = $1 AND subject = $2 AND person = $3 AND until > $4 AND spent_at = 0
		ORDER BY asked_at DESC LIMIT 1`
	sqlApprovalByID   = sqlApprovals + ` WHERE tenant = $1 AND id = $2 AND until > $3 AND spent_at = 0`
	sqlOthersApproval = sqlApprovals + ` WHERE tenant = $1 AND subject = $2 AND until > $4 AND spent_at = 0
		ORDER BY CASE WHEN person = $3 THEN 1 ELSE 0 END, asked_at DESC LIMIT 1`
	sqlLastApproval  = sqlApprovals + ` WHERE tenant = $1 AND subject = $2 ORDER BY asked_at DESC LIMIT 1`
	sqlOpenApprovals = sqlApprovals + ` WHERE tenant = $1 AND until > $2 AND spent_at = 0 ORDER BY asked_at LIMIT $3`
	sqlWriteApproval = `UPDATE approvals SET until = $3, approved_by = $4, approved_at = $5, spent_at = $6, first_person = $7
		WHERE tenant = $1 AND id = $2 AND spent_at = 0`
)
