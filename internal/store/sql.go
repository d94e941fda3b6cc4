package store

import (
	"fmt"
	"strings"
)

const insertEvent = `
INSERT INTO events (tenant, id, at, actor_kind, actor_id, action, subject, leaf, personal)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

const selectEvents = `
SELECT id, idx, leaf, personal FROM events
WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`

const selectEventsOf = `
SELECT id, idx, leaf, personal FROM events
WHERE tenant = $1 AND subject = $2 AND id > $3 ORDER BY id LIMIT $4`

// selectEventsBy selects events of n actions, $5 and on, whose ids are between $2 and $3.
// Each action is read through the index by itself, and no further than the page goes.
func selectEventsBy(n int, newestFirst bool) string {
	order := "id"
	if newestFirst {
		order = "id DESC"
	}
	var of []string
	for i := range n {
		of = append(of, fmt.Sprintf(`SELECT * FROM (SELECT id, idx, leaf, personal FROM events
			WHERE tenant = $1 AND action = $%d AND id > $2 AND id < $3 ORDER BY %s LIMIT $4) AS of_%d`, 5+i, order, i))
	}
	return strings.Join(of, " UNION ALL ") + " ORDER BY " + order + " LIMIT $4"
}
