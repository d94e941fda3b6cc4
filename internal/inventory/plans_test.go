package inventory

import (
	"database/sql"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/store/storetest"
)

// What is asked whenever one host is taken in or scanned costs the same in a large
// fleet as in a small one: SQLite finds the rows by an index of more than the
// tenant, and goes over no table.
func TestPlansOfOneHost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "keyturn.db")
	storetest.OpenURL(t, "sqlite:"+path, Schema)
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=automatic_index(0)")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	small := []string{"SCAN places", "SCAN wanted", "SCAN CONSTANT ROW"} // what the query itself brings
	of := func(query, conditions string) string { return query + " WHERE p.tenant = ?" + conditions }
	for name, query := range map[string]string{
		"who has a name or address":     sqlTaken,
		"who has a host key":            sqlPinnedAt,
		"whose an address is":           sqlTargetAt,
		"who is at an IP address":       sqlHostsAtIP,
		"keys on a host":                sqlKeysAt,
		"lines of a file":               sqlAuthorizedHere,
		"known_hosts of a host":         sqlKnownHosts,
		"where a key is accepted":       of(sqlAuthorized, " AND p.key_id = ?"+sqlAuthorizedOrder),
		"what a host accepts":           of(sqlAuthorized, " AND p.host_id = ?"+sqlAuthorizedOrder),
		"where a private half lies":     of(sqlIdentities, " AND p.key_id = ?"+sqlIdentitiesOrder),
		"what private halves lie there": of(sqlIdentities, " AND p.host_id = ?"+sqlIdentitiesOrder),
		"whether one lies open":         sqlOpenIdentities,
		"what stands in the way":        "WITH wanted (host_id, login_user, path) AS (VALUES (?, ?, ?)) " + sqlObstacles,
	} {
		t.Run(name, func(t *testing.T) {
			for _, step := range plan(t, db, query) {
				if strings.HasPrefix(step, "SCAN ") && !slices.Contains(small, step) || strings.HasSuffix(step, "(tenant=?)") {
					t.Errorf("it goes over all rows of a tenant: %s\n%s", step, query)
				}
			}
		})
	}
}

var parameter = regexp.MustCompile(`\$[0-9]+|\?`)

// plan returns the steps in which SQLite runs a query of the store.
func plan(t *testing.T, db *sql.DB, query string) (steps []string) {
	t.Helper()
	args := make([]any, len(parameter.FindAllString(query, -1)))
	rows, err := db.Query("EXPLAIN QUERY PLAN "+parameter.ReplaceAllString(query, "?"), args...)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var id, parent, unused int
		var step string
		if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
			t.Fatal(err)
		}
		steps = append(steps, step)
	}
	if err := rows.Err(); err != nil || len(steps) == 0 {
		t.Fatalf("no plan: %v", err)
	}
	return steps
}
