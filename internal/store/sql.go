package store

const insertEvent = `
INSERT INTO events (tenant, id, at, actor_kind, actor_id, action, subject, leaf, personal)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`

const selectEvents = `
SELECT id, idx, leaf, personal FROM events
WHERE tenant = $1 AND id > $2 ORDER BY id LIMIT $3`

const selectEventsOf = `
SELECT id, idx, leaf, personal FROM events
WHERE tenant = $1 AND subject = $2 AND id > $3 ORDER BY id LIMIT $4`
