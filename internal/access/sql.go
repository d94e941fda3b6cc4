package access

import (
	"database/sql"
	"embed"
	"errors"
	"strconv"
	"strings"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema is this package's part of the database.
//
//go:embed migrations/*.sql
var Schema embed.FS

// Applications.
const (
	sqlApplicationColumns = `SELECT id, aud, name, type, domain, document, created_at, updated_at FROM access_applications`
	sqlApplications       = sqlApplicationColumns + ` WHERE tenant = $1`
	sqlFilter             = ` WHERE tenant = $1 AND ($2 = '' OR name = $2) AND ($3 = '' OR domain = $3) AND ($4 = '' OR aud = $4)
		AND ($5 = '' OR type = $5) AND ($6 = '' OR lower(name) LIKE $6 ESCAPE '\' OR lower(domain) LIKE $6 ESCAPE '\')
		AND ($7 = '' OR lower(name) LIKE $7 ESCAPE '\') AND ($8 = '' OR lower(domain) LIKE $8 ESCAPE '\')`
	sqlCountApplications      = `SELECT count(*) FROM access_applications` + sqlFilter
	sqlListApplications       = sqlApplicationColumns + sqlFilter + ` AND id > $9 ORDER BY id LIMIT $10 OFFSET $11`
	sqlApplicationsWithPolicy = sqlApplications + ` AND id IN (SELECT u.application_id FROM access_application_policies u
		WHERE u.tenant = $1 AND u.policy_id = $2)`
	sqlAudiences      = `SELECT id, aud FROM access_applications WHERE tenant = $1 AND id >= $2 AND id <= $3`
	sqlAddApplication = `INSERT INTO access_applications (tenant, id, aud, name, type, domain, document, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)`
	sqlSetApplication = `UPDATE access_applications SET name = $3, type = $4, domain = $5, document = $6, updated_at = $7
		WHERE tenant = $1 AND id = $2`
)

// sqlRemoveApplication removes all that belongs to an application.
var sqlRemoveApplication = []string{
	`DELETE FROM access_application_policies WHERE tenant = $1 AND application_id = $2`,
	`DELETE FROM access_policies WHERE tenant = $1 AND application_id = $2`,
	`DELETE FROM access_applications WHERE tenant = $1 AND id = $2`,
}

// Policies.
const (
	sqlPolicies = `SELECT p.id, p.application_id, COALESCE(o.precedence, 0), p.name, p.action, p.document, p.created_at, p.updated_at,
		(SELECT count(*) FROM access_application_policies c WHERE c.tenant = $1 AND c.policy_id = p.id)
		FROM access_policies p LEFT JOIN access_application_policies o
		ON o.tenant = p.tenant AND o.policy_id = p.id AND o.application_id = p.application_id`
	sqlPoliciesOf = `SELECT u.application_id, p.id, p.application_id, u.precedence, p.name, p.action, p.document, p.created_at, p.updated_at,
		(SELECT count(*) FROM access_application_policies c WHERE c.tenant = $1 AND c.policy_id = p.id)
		FROM access_application_policies u JOIN access_policies p ON p.tenant = u.tenant AND p.id = u.policy_id
		WHERE u.tenant = $1 AND u.application_id IN (%s) ORDER BY u.application_id, u.precedence`
	sqlReusablePolicies = sqlPolicies + ` WHERE p.tenant = $1 AND p.application_id = '' AND p.id > $2 ORDER BY p.id LIMIT $3 OFFSET $4`
	sqlPlaces           = `SELECT u.application_id, u.policy_id FROM access_application_policies u WHERE u.tenant = $1
		ORDER BY u.application_id, u.precedence`
	sqlAllPolicies   = `SELECT id, name, action, document FROM access_policies WHERE tenant = $1`
	sqlCountReusable = `SELECT count(*) FROM access_policies WHERE tenant = $1 AND application_id = ''`
	sqlAddPolicy     = `INSERT INTO access_policies (tenant, id, application_id, name, action, rules, document, created_at, updated_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8)`
	sqlSetPolicy     = `UPDATE access_policies SET name = $3, action = $4, rules = $5, document = $6, updated_at = $7 WHERE tenant = $1 AND id = $2`
	sqlRemovePolicy  = `DELETE FROM access_policies WHERE tenant = $1 AND id = $2`
	sqlPlacePolicy   = `INSERT INTO access_application_policies (tenant, application_id, precedence, policy_id) VALUES ($1, $2, $3, $4)`
	sqlUnplacePolicy = `DELETE FROM access_application_policies WHERE tenant = $1 AND application_id = $2 AND policy_id = $3`
	sqlUnplaceAll    = `DELETE FROM access_application_policies WHERE tenant = $1 AND application_id = $2`
)

// Sets.
const (
	sqlSetColumns  = `SELECT id, name, rules, document, created_at, updated_at FROM access_sets`
	sqlFindSet     = sqlSetColumns + ` WHERE tenant = $1 AND kind = $2 AND (id = $3 OR name = $3) ORDER BY id <> $3, id LIMIT 2`
	sqlSets        = sqlSetColumns + ` WHERE tenant = $1 AND kind = $2 AND ($3 = '' OR id = $3) AND id > $4 ORDER BY id LIMIT $5 OFFSET $6`
	sqlGroupFilter = ` WHERE tenant = $1 AND kind = 'group' AND ($2 = '' OR name = $2) AND ($3 = '' OR lower(name) LIKE $3 ESCAPE '\')`
	sqlCountGroups = `SELECT count(*) FROM access_sets` + sqlGroupFilter
	sqlListGroups  = sqlSetColumns + sqlGroupFilter + ` AND id > $4 ORDER BY id LIMIT $5 OFFSET $6`
	sqlCountSets   = `SELECT count(*) FROM access_sets WHERE tenant = $1 AND kind = $2`
	sqlPutSet      = `INSERT INTO access_sets (tenant, kind, id, name, rules, document, created_at, updated_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (tenant, kind, id) DO UPDATE SET name = excluded.name, rules = excluded.rules, document = excluded.document,
		updated_at = excluded.updated_at`
	sqlRemoveSet = `DELETE FROM access_sets WHERE tenant = $1 AND kind = $2 AND id = $3`
	sqlSetUsedBy = `SELECT name FROM access_policies WHERE tenant = $1 AND document LIKE $2
		UNION ALL SELECT name FROM access_sets WHERE tenant = $1 AND document LIKE $2 LIMIT 1`
)

// All of them.
const (
	sqlCountRules = `SELECT CAST(COALESCE((SELECT sum(rules) FROM access_policies WHERE tenant = $1), 0)
		+ COALESCE((SELECT sum(rules) FROM access_sets WHERE tenant = $1), 0) AS BIGINT)`
	sqlVersion    = `SELECT version FROM access_versions WHERE tenant = $1`
	sqlPutVersion = `INSERT INTO access_versions (tenant, version) VALUES ($1, $2)
		ON CONFLICT (tenant) DO UPDATE SET version = excluded.version`
)

// rows runs a query and calls scan for each row.
func rows(tx *store.Tx, scan func(*sql.Rows) error, query string, args ...any) error {
	found, err := tx.Query(query, args...)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		if err := scan(found); err != nil {
			return err
		}
	}
	return found.Err()
}

// placeholders returns those of ids behind the tenant's, with the arguments for all.
func placeholders(tx *store.Tx, ids []string) (text string, args []any) {
	args = append(args, tx.Tenant())
	list := make([]string, len(ids))
	for i, id := range ids {
		list[i] = "$" + strconv.Itoa(i+2)
		args = append(args, id)
	}
	return strings.Join(list, ", "), args
}

func isNoRows(err error) bool { return errors.Is(err, sql.ErrNoRows) }

// only returns the one element of a list, or a NotFound error that names what was
// looked for.
func only[T any](list []T, err error, noun, wanted string) (T, error) {
	var none T
	switch {
	case err != nil:
		return none, err
	case len(list) == 0:
		return none, notFound(noun, wanted)
	}
	return list[0], nil
}

func notFound(noun, wanted string) error {
	return trust.Errorf(trust.NotFound, "there is no %s %.80q", strings.ReplaceAll(noun, "_", " "), wanted)
}

func ambiguous(nouns, name string) error {
	return trust.Errorf(trust.Conflict, "several %s are called %.80q: name one by its id", nouns, name)
}

// first returns the first element of a list as a list.
func first[T any](list []T) []T { return list[:min(1, len(list))] }

// likeText returns the pattern of LIKE for what has text in it, or "" for none.
func likeText(text string) string {
	if text == "" {
		return ""
	}
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(strings.ToLower(text)) + "%"
}
