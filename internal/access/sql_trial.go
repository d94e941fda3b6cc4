package access

// Tests of policies.
const (
	sqlAddTest = `INSERT INTO access_policy_tests (tenant, id, document, created_at) VALUES ($1, $2, $3, $4)`
	sqlTest    = `SELECT document, created_at FROM access_policy_tests WHERE tenant = $1 AND id = $2`
	// sqlForgetTests removes those from before $2, and all but the newest $3.
	sqlForgetTests = `DELETE FROM access_policy_tests WHERE tenant = $1 AND (created_at < $2 OR id NOT IN (
		SELECT id FROM access_policy_tests WHERE tenant = $1 ORDER BY created_at DESC, id DESC LIMIT $3))`
)
