package inventory

// This file holds the statements on inventory's tables that are always the
// same. Listings begin with one of the column lists and add their conditions.
// $1 is the tenant throughout: in subqueries, too, because a subquery that asks
// for the tenant of the row around it is run again for each of these.

// Hosts.
const (
	sqlHosts = `SELECT id, name, address, login_user, become, mode, state, reason, created_at, revision,
		facts, outcome, why, notes, tried_at, scanned_at FROM hosts`
	// sqlHostsBrief has nothing for what a scan fills in.
	sqlHostsBrief = `SELECT id, name, address, login_user, become, mode, state, reason, created_at, revision,
		'{}', '', '', '[]', 0, 0 FROM hosts`
	sqlHostRevision  = `SELECT revision FROM hosts WHERE tenant = $1 AND id = $2`
	sqlHostRefs      = `SELECT id, name FROM hosts`
	sqlHostAddresses = `SELECT id, name, address FROM hosts`
	sqlKnownHosts    = `SELECT h.name, k.login_user, k.path, k.line_no, k.about, COALESCE(a.name, ''), k.marker, k.names, k.public_key
		FROM known_hosts k JOIN hosts h ON h.tenant = k.tenant AND h.id = k.host_id
		LEFT JOIN hosts a ON a.tenant = k.tenant AND a.id = k.about
		WHERE k.tenant = $1 AND k.host_id = $2 AND (k.login_user, k.path, k.line_no, k.about) > ($3, $4, $5, $6)
		ORDER BY k.login_user, k.path, k.line_no, k.about LIMIT $7`
	sqlPutKnownHost = `INSERT INTO known_hosts (tenant, host_id, login_user, path, line_no, about, marker, names, public_key)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (tenant, host_id, login_user, path, line_no, about) DO UPDATE
		SET marker = excluded.marker, names = excluded.names, public_key = excluded.public_key`
	sqlDropKnownHost = `DELETE FROM known_hosts
		WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4 AND line_no = $5 AND about = $6`
	sqlCountHosts = `SELECT count(*) FROM hosts`
	// sqlHostText is a condition on hosts.
	sqlHostText = `(name LIKE ? ESCAPE '\' OR address LIKE ? ESCAPE '\' OR lower(login_user) LIKE ? ESCAPE '\')`
	sqlAddHost  = `INSERT INTO hosts (tenant, id, name, address, login_user, become, mode, state, reason, created_at, revision,
		facts, machine, outcome, why, notes, tried_at, scanned_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 1, '{}', '', '', '', '[]', 0, 0)`
	sqlUpdateHost = `UPDATE hosts SET name = $4, address = $5, login_user = $6, become = $7, mode = $8, state = $9, reason = $10,
		revision = revision + 1 WHERE tenant = $1 AND id = $2 AND revision = $3`
	// sqlEnrolHost takes a host in that was only a target.
	sqlEnrolHost = `UPDATE hosts SET name = $3, address = $4, login_user = $5, become = $6, mode = $7, state = $8, reason = $9,
		revision = revision + 1 WHERE tenant = $1 AND id = $2 AND state = 'unenrolled'`
	sqlUnenrolledAt   = `SELECT id FROM hosts WHERE tenant = $1 AND address = $2 AND state = 'unenrolled'`
	sqlTouchHost      = `UPDATE hosts SET revision = revision + 1 WHERE tenant = $1 AND id = $2`
	sqlTaken          = `SELECT name, address FROM hosts WHERE tenant = $1 AND id <> $2 AND (name = $3 OR address = $4) ORDER BY name <> $3 LIMIT 1`
	sqlSummarizeHosts = `SELECT mode, state, outcome, count(*) FROM hosts WHERE tenant = $1 GROUP BY mode, state, outcome`
	sqlHostMissed     = `UPDATE hosts SET outcome = $3, why = $4, tried_at = $5 WHERE tenant = $1 AND id = $2`
	sqlHostScanned    = `UPDATE hosts SET outcome = $3, why = $4, facts = $5, machine = $6, notes = $7, tried_at = $8, scanned_at = $8
		WHERE tenant = $1 AND id = $2`
)

// sqlForgetHost removes everything that is known of a host.
var sqlForgetHost = []string{
	`DELETE FROM findings WHERE tenant = $1 AND scope = 'host:' || $2`,
	`DELETE FROM authorized_places WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM identity_places WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM place_files WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM known_hosts WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM target_tags WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM target_addresses WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM targets WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM host_credentials WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM host_pins WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM hosts WHERE tenant = $1 AND id = $2`,
}

// Targets.
const (
	sqlTargets         = `SELECT host_id, hostname, written, created_at, modified_at FROM targets`
	sqlCountTargets    = `SELECT count(*) FROM targets`
	sqlTargetAddresses = `SELECT host_id, network, ip_key, ip FROM wanted CROSS JOIN target_addresses`
	sqlTargetTags      = `SELECT host_id, name, value FROM wanted CROSS JOIN target_tags`
	sqlAddTarget       = `INSERT INTO targets (tenant, host_id, hostname, hostname_key, written, created_at, modified_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7)`
	sqlAddTargetAddress = `INSERT INTO target_addresses (tenant, network, ip_key, host_id, ip) VALUES ($1, $2, $3, $4, $5)`
	sqlAddTargetTag     = `INSERT INTO target_tags (tenant, host_id, name, value) VALUES ($1, $2, $3, $4)`
	sqlTargetAt         = `SELECT t.host_id, t.hostname, t.written FROM target_addresses a JOIN targets t ON t.tenant = a.tenant AND t.host_id = a.host_id
		WHERE a.tenant = $1 AND a.network = $2 AND a.ip_key = $3`
	// sqlHostsAtIP takes an address on port 22, and what addresses begin with on any port.
	sqlHostsAtIP = `SELECT id, address = $2 FROM hosts WHERE tenant = $1 AND address > $3 AND address < $4
		AND NOT EXISTS (SELECT 1 FROM targets t WHERE t.tenant = $1 AND t.host_id = hosts.id) ORDER BY address`
	// The following are conditions on targets, the first without its end.
	sqlTargetsWith   = `host_id IN (SELECT a.host_id FROM target_addresses a WHERE a.tenant = $1 AND `
	sqlTargetsTagged = `host_id IN (SELECT g.host_id FROM target_tags g WHERE g.tenant = $1 AND g.name = ? AND g.value = ?)`
	// sqlTagOfTarget is the value of a tag, or nothing.
	sqlTagOfTarget = `COALESCE((SELECT g.value FROM target_tags g WHERE g.tenant = $1 AND g.host_id = targets.host_id AND g.name = ?), '')`
)

// sqlForgetTarget removes all that makes a host a target.
var sqlForgetTarget = []string{
	`DELETE FROM target_tags WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM target_addresses WHERE tenant = $1 AND host_id = $2`,
	`DELETE FROM targets WHERE tenant = $1 AND host_id = $2`,
}

// Pins and credentials.
const (
	sqlPins      = `SELECT host_id, public_key, origin, added_at FROM wanted CROSS JOIN host_pins`
	sqlAddPin    = `INSERT INTO host_pins (tenant, fingerprint, host_id, public_key, origin, added_at) VALUES ($1, $2, $3, $4, $5, $6)`
	sqlRemovePin = `DELETE FROM host_pins WHERE tenant = $1 AND host_id = $2 AND fingerprint = $3`
	sqlSetOrigin = `UPDATE host_pins SET origin = $4 WHERE tenant = $1 AND host_id = $2 AND fingerprint = $3`
	sqlPinnedAt  = `SELECT h.id, h.name FROM host_pins p JOIN hosts h ON h.tenant = p.tenant AND h.id = p.host_id
		WHERE p.tenant = $1 AND p.fingerprint = $2`
	sqlCredentials      = `SELECT host_id, key_id, added_at, worked_at FROM wanted CROSS JOIN host_credentials`
	sqlClearCredentials = `DELETE FROM host_credentials WHERE tenant = $1 AND host_id = $2`
	sqlAddCredential    = `INSERT INTO host_credentials (tenant, host_id, key_id, position, added_at, worked_at) VALUES ($1, $2, $3, $4, $5, $6)`
	sqlCredentialWorked = `UPDATE host_credentials SET worked_at = $4 WHERE tenant = $1 AND host_id = $2 AND key_id = $3 AND worked_at < $5`
	sqlCredentialFailed = `UPDATE host_credentials SET worked_at = 0 WHERE tenant = $1 AND host_id = $2 AND key_id = $3 AND worked_at > 0`
	// sqlCredentialHosts is a condition on hosts.
	sqlCredentialHosts = `id IN (SELECT host_id FROM host_credentials c WHERE c.tenant = $1 AND c.key_id = ?)`
)

// Keys and what replaced them.
const (
	sqlKeys       = sqlKeyColumns + ` FROM keys`
	sqlKeysWanted = sqlKeyColumns + ` FROM wanted CROSS JOIN keys`
	sqlKeyColumns = `SELECT keys.id, kind, public_key, comment, owner, purpose, state, custody, container, compromised,
		created_at, last_rotated_at, deleted_at, expires_at, revealed_at, revision`
	sqlCountKeys = `SELECT count(*) FROM keys`
	// The following are conditions on keys.
	sqlKeyText = `(search LIKE ? ESCAPE '\'
		OR id IN (SELECT p.key_id FROM authorized_places p WHERE p.tenant = $1 AND p.host_id IN
			(SELECT h.id FROM hosts h WHERE h.tenant = $1 AND h.name LIKE ? ESCAPE '\'))
		OR id IN (SELECT p.key_id FROM identity_places p WHERE p.tenant = $1 AND p.host_id IN
			(SELECT h.id FROM hosts h WHERE h.tenant = $1 AND h.name LIKE ? ESCAPE '\')))`
	sqlKeyHost = `id IN (SELECT p.key_id FROM authorized_places p WHERE p.tenant = $1 AND p.host_id = ?
		UNION SELECT p.key_id FROM identity_places p WHERE p.tenant = $1 AND p.host_id = ?)`
	sqlKeyHosts = `id IN (SELECT p.key_id FROM authorized_places p WHERE p.tenant = $1 AND p.host_id IN (%s)
		UNION SELECT p.key_id FROM identity_places p WHERE p.tenant = $1 AND p.host_id IN (%s))`
	sqlKeyFindings = `id IN (SELECT f.key_id FROM findings f WHERE f.tenant = $1 AND f.kind IN `

	sqlKeyAccepted = `EXISTS (SELECT 1 FROM authorized_places p WHERE p.tenant = $1 AND p.key_id = keys.id)`

	sqlKeyLabel = `id IN (SELECT l.key_id FROM key_labels l WHERE l.tenant = $1 AND l.name = ? AND l.value = ?)`

	sqlKeyWithout = `id NOT IN (SELECT f.key_id FROM findings f WHERE f.tenant = $1 AND f.kind = ?)`

	sqlKeyIDs = `SELECT id FROM keys WHERE tenant = $1 AND fingerprint = $2 ORDER BY id`

	sqlAddKey = `INSERT INTO keys (tenant, id, kind, fingerprint, public_key, comment, owner, state, custody, container, compromised,
		created_at, last_rotated_at, deleted_at, revision, search, purpose, expires_at, revealed_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 1, $15, $16, $17, 0)`
	sqlUpdateKey = `UPDATE keys SET comment = $4, owner = $5, state = $6, custody = $7, container = $8, compromised = $9,
		last_rotated_at = $10, deleted_at = $11, search = $12, purpose = $13, expires_at = $14, revealed_at = $15, revision = revision + 1
		WHERE tenant = $1 AND id = $2 AND revision = $3`
	sqlSummarizeKeys = `SELECT kind, state, custody, count(*) FROM keys WHERE tenant = $1 GROUP BY kind, state, custody`

	sqlRotations = `SELECT key_id, run_id, became, by_whom, at, archived_at, retain_until, purged_at, undone_run, undone_at FROM key_rotations`
	// What names a rotation: one key can be taken out by several runs, one
	// after the other. The two that follow are conditions on rotations.
	sqlRotationID    = `key_id || ' ' || run_id`
	sqlRotationKinds = `key_id IN (SELECT k.id FROM keys k WHERE k.tenant = $1 AND k.kind IN `
	sqlRotationText  = `key_id IN (SELECT k.id FROM keys k WHERE k.tenant = $1 AND k.search LIKE ? ESCAPE '\')`

	sqlAddRotation = `INSERT INTO key_rotations (tenant, key_id, run_id, became, by_whom, at, archived_at, retain_until, purged_at, undone_run, undone_at)
		VALUES ($1, $2, $3, $4, $5, $6, 0, 0, 0, '', 0)`
	sqlUndoRotations = `UPDATE key_rotations SET undone_run = $3, undone_at = $4 WHERE tenant = $1 AND key_id = $2 AND undone_at = 0`
	sqlRedoRotations = `UPDATE key_rotations SET undone_run = '', undone_at = 0 WHERE tenant = $1 AND key_id = $2 AND undone_run = $3`
	sqlArchived      = `UPDATE key_rotations SET archived_at = $4, retain_until = $5 WHERE tenant = $1 AND key_id = $2 AND run_id = $3`
	sqlPurged        = `UPDATE key_rotations SET purged_at = $4 WHERE tenant = $1 AND key_id = $2 AND run_id = $3 AND purged_at = 0`

	sqlAddReplacement = `INSERT INTO key_replacements (tenant, old_id, run_id, new_id) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`
	// The replacements that stand: those of rotations that were not undone.
	sqlReplacements      = `SELECT r.old_id, r.new_id FROM wanted CROSS JOIN key_replacements r CROSS JOIN key_rotations t`
	sqlStanding          = `t.tenant = $1 AND t.key_id = r.old_id AND t.run_id = r.run_id AND t.undone_at = 0`
	sqlReplacementsOfRun = `SELECT old_id, new_id FROM key_replacements WHERE tenant = $1 AND old_id = $2 AND run_id = $3 ORDER BY new_id`

	sqlSupply = `INSERT INTO supplied_keys (tenant, old_id, new_id, by_whom, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (tenant, old_id) DO UPDATE SET new_id = excluded.new_id, by_whom = excluded.by_whom, at = excluded.at`
	sqlSupplied       = `SELECT s.new_id FROM supplied_keys s WHERE s.tenant = $1 AND s.old_id = $2 AND ` + sqlUnspent
	sqlSuppliedFor    = `SELECT old_id FROM supplied_keys WHERE tenant = $1 AND new_id = $2`
	sqlSuppliedWanted = `SELECT s.old_id, s.new_id FROM wanted CROSS JOIN supplied_keys s`
	// sqlUnspent is a condition on supplied keys s: nothing took back a run which came
	// to its end, and by which the key took the place that it was supplied for.
	sqlUnspent = `NOT EXISTS (SELECT 1 FROM key_rotations t WHERE t.tenant = $1 AND t.key_id = s.old_id AND t.at >= s.at
		AND t.undone_at <> 0 AND t.archived_at <> 0)`

	sqlArchivePlace = `INSERT INTO archived_places (tenant, key_id, run_id, kind, host_id, host_name, login_user, path, ordinal, line_no,
		snapshot, kept_path, archived_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
		ON CONFLICT (tenant, key_id, run_id, kind, host_id, login_user, path, ordinal)
		DO UPDATE SET line_no = excluded.line_no, snapshot = excluded.snapshot, kept_path = excluded.kept_path`
	sqlArchivedPlaces = `SELECT kind, host_id, host_name, login_user, path, ordinal, line_no, snapshot, kept_path, archived_at
		FROM archived_places WHERE tenant = $1 AND key_id = $2 AND run_id = $3 ORDER BY kind, host_id, login_user, path, ordinal`
	sqlForgetArchive = `DELETE FROM archived_places WHERE tenant = $1 AND key_id = $2 AND run_id = $3`
)

// Labels of keys.
const (
	sqlLabelsWanted = `SELECT key_id, name, value FROM wanted CROSS JOIN key_labels`
	sqlPutLabel     = `INSERT INTO key_labels (tenant, key_id, name, value) VALUES ($1, $2, $3, $4)
		ON CONFLICT (tenant, key_id, name) DO UPDATE SET value = excluded.value`
	sqlDropLabel   = `DELETE FROM key_labels WHERE tenant = $1 AND key_id = $2 AND name = $3`
	sqlCountLabels = `SELECT count(*) FROM key_labels WHERE tenant = $1 AND key_id = $2`
)

// Who may use which key.
const (
	sqlKeyUsers     = `SELECT user_id FROM key_users WHERE tenant = $1 AND key_id = $2 ORDER BY user_id`
	sqlDropKeyUsers = `DELETE FROM key_users WHERE tenant = $1 AND key_id = $2`
	sqlAddKeyUser   = `INSERT INTO key_users (tenant, key_id, user_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`
)

// Numbers of keys.
const (
	sqlNextNumber = `INSERT INTO last_key_numbers (tenant, number, room) VALUES ($1, 1, $2)
		ON CONFLICT (tenant) DO UPDATE SET number = last_key_numbers.number + 1, room = last_key_numbers.room - 1
		RETURNING number, room`
	sqlSetRoom   = `UPDATE last_key_numbers SET room = $2 WHERE tenant = $1`
	sqlAddNumber = `INSERT INTO key_numbers (tenant, number, key_id, by_whom) VALUES ($1, $2, $3, $4)`
	sqlNumbered  = `SELECT n.number, n.by_whom, n.key_id` + sqlNumberedKeys
	// sqlCountNumbered counts what sqlNumbered lists.
	sqlCountNumbered = `SELECT count(*)` + sqlNumberedKeys
	sqlNumberedKeys  = ` FROM key_numbers n JOIN keys k ON k.tenant = n.tenant AND k.id = n.key_id
		WHERE n.tenant = $1 AND (k.state = 'active' OR k.state <> 'deleted' AND k.custody = 'held')`
)

// Places.
const (
	sqlFiles = `SELECT host_id, login_user, path, kind, sha256, size, mode, owner, inode, filesystem, fault, fixed, ord,
		changed_at, last_read, unread_why FROM place_files`
	sqlObstacles = `SELECT mine.host_id, mine.login_user, mine.path, f.login_user, f.path, f.fixed, f.unread_why
		FROM wanted CROSS JOIN place_files mine CROSS JOIN place_files f
		WHERE mine.tenant = $1 AND mine.host_id = wanted.host_id AND mine.login_user = wanted.login_user AND mine.path = wanted.path
		AND f.tenant = $1 AND f.host_id = mine.host_id
		AND (f.login_user = mine.login_user AND f.path = mine.path AND (f.fixed <> '' OR f.unread_why <> '')
			OR f.login_user <> mine.login_user AND f.inode = mine.inode AND f.inode <> '')
		ORDER BY mine.host_id, mine.login_user, mine.path, f.login_user, f.path`
	sqlPutFile = `INSERT INTO place_files (tenant, host_id, login_user, path, kind, sha256, size, mode, owner, inode, filesystem,
		fault, fixed, ord, changed_at, last_read, unread_why) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
		ON CONFLICT (tenant, host_id, login_user, path, kind) DO UPDATE SET sha256 = excluded.sha256, size = excluded.size,
		mode = excluded.mode, owner = excluded.owner, inode = excluded.inode, filesystem = excluded.filesystem, fault = excluded.fault,
		fixed = excluded.fixed, ord = excluded.ord, changed_at = excluded.changed_at, last_read = excluded.last_read,
		unread_why = excluded.unread_why`
	sqlDropFile = `DELETE FROM place_files WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4 AND kind = $5`

	sqlAuthorizedHere = `SELECT key_id, ordinal, line_no, options, raw, comment, authority, refused, seen_at FROM authorized_places
		WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4`
	sqlAddAuthorized = `INSERT INTO authorized_places (tenant, host_id, login_user, path, key_id, ordinal, line_no, options, raw, comment,
		authority, refused, seen_at) VALUES `
	sqlSetAuthorized = `UPDATE authorized_places SET line_no = $7, options = $8, raw = $9, comment = $10, authority = $11, refused = $12,
		seen_at = $13 WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4 AND key_id = $5 AND ordinal = $6`
	sqlDropAuthorized = `DELETE FROM authorized_places WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4
		AND key_id = $5 AND ordinal = $6`
	sqlIdentityHere = `SELECT key_id, format, encrypted, comment, link, link_apart, seen_at FROM identity_places
		WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4`
	sqlPutIdentity = `INSERT INTO identity_places (tenant, host_id, login_user, path, key_id, format, encrypted, comment, link, link_apart, seen_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (tenant, host_id, login_user, path) DO UPDATE SET
		key_id = excluded.key_id, format = excluded.format, encrypted = excluded.encrypted, comment = excluded.comment, link = excluded.link,
		link_apart = excluded.link_apart, seen_at = excluded.seen_at`
	sqlFollowIdentity = `UPDATE identity_places SET key_id = $5, format = $6, encrypted = $7, seen_at = $8
		WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND link = $4`
	sqlOpenIdentities = `SELECT count(*) FROM (SELECT 1 FROM identity_places WHERE tenant = $1 AND key_id = $2 AND NOT encrypted LIMIT 1) AS places`
	sqlDropIdentity   = `DELETE FROM identity_places WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4`

	// What is known of a place is as old as the host's newest scan, unless
	// that could not read the file; a run that wrote there knew better since.
	sqlAsOf = `CASE WHEN f.last_read > 0 THEN f.last_read WHEN h.scanned_at > p.seen_at THEN h.scanned_at ELSE p.seen_at END`

	sqlAuthorized = `SELECT p.host_id, p.login_user, p.path, h.name, p.key_id, p.ordinal, p.line_no, p.options, p.raw, p.comment, p.authority,
		p.refused, p.seen_at, ` + sqlAsOf + ` FROM authorized_places p JOIN hosts h ON h.tenant = p.tenant AND h.id = p.host_id
		JOIN place_files f ON f.tenant = p.tenant AND f.host_id = p.host_id AND f.login_user = p.login_user AND f.path = p.path AND f.kind = 'authorized'`
	sqlIdentities = `SELECT p.host_id, p.login_user, p.path, h.name, p.key_id, p.format, p.encrypted, p.comment, p.link, p.link_apart, p.seen_at, ` + sqlAsOf + `
		FROM identity_places p JOIN hosts h ON h.tenant = p.tenant AND h.id = p.host_id
		JOIN place_files f ON f.tenant = p.tenant AND f.host_id = p.host_id AND f.login_user = p.login_user AND f.path = p.path AND f.kind = 'identity'`
	sqlAuthorizedOrder = ` ORDER BY p.host_id, p.login_user, p.path, p.key_id, p.ordinal LIMIT ?`
	sqlIdentitiesOrder = ` ORDER BY p.host_id, p.login_user, p.path LIMIT ?`
	// For listings of keys, without what these do not show.
	sqlCountPlaces     = `SELECT key_id, count(*) FROM wanted CROSS JOIN authorized_places p`
	sqlAuthorizedBrief = `SELECT p.key_id, h.name, p.login_user, p.path, p.options, p.authority
		FROM wanted CROSS JOIN authorized_places p CROSS JOIN hosts h`
	sqlIdentitiesBrief = `SELECT p.host_id, p.login_user, p.path, h.name, p.key_id, p.format, p.encrypted, p.comment, p.link, p.link_apart, p.seen_at, 0
		FROM wanted CROSS JOIN identity_places p CROSS JOIN hosts h`
	sqlTheirHost = `h.tenant = $1 AND h.id = p.host_id`
	sqlKeysAt    = `SELECT key_id FROM authorized_places WHERE tenant = $1 AND host_id = $2
		UNION ALL SELECT p.key_id FROM place_files f CROSS JOIN identity_places p WHERE f.tenant = $1 AND f.host_id = $2 AND f.kind = 'identity'
		AND p.tenant = f.tenant AND p.host_id = f.host_id AND p.login_user = f.login_user AND p.path = f.path AND p.key_id <> ''`
)

// Findings.
const (
	sqlFindings       = sqlFindingColumns + ` FROM findings`
	sqlFindingsWanted = sqlFindingColumns + ` FROM wanted CROSS JOIN findings`
	sqlFindingColumns = `SELECT findings.id, kind, level, key_id, host_id, login_user, path, line_no, text, since,
		COALESCE((SELECT name FROM hosts h WHERE h.tenant = findings.tenant AND h.id = findings.host_id), '')`
	// sqlFindingHost is a condition on findings.
	sqlFindingHost = `(host_id = ? OR key_id IN (SELECT p.key_id FROM authorized_places p WHERE p.tenant = $1 AND p.host_id = ?
		UNION SELECT p.key_id FROM identity_places p WHERE p.tenant = $1 AND p.host_id = ? AND p.key_id <> ''))`
	sqlPutFinding = `INSERT INTO findings (tenant, id, scope, kind, level, key_id, host_id, login_user, path, line_no, text, since)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (tenant, id) DO UPDATE SET level = excluded.level,
		host_id = excluded.host_id, login_user = excluded.login_user, path = excluded.path, line_no = excluded.line_no, text = excluded.text`
	sqlDropLineFindings = `DELETE FROM findings WHERE tenant = $1 AND host_id = $2 AND login_user = $3 AND path = $4 AND key_id = $5`
	sqlDropFinding      = `DELETE FROM findings WHERE tenant = $1 AND id = $2`
	sqlSummarizeFinding = `SELECT kind, count(*) FROM findings WHERE tenant = $1 GROUP BY kind`
)
