package authority

import (
	"database/sql"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

const authorityColumns = `id, name, purpose, application, public, comment, profile, created, signs_from, signs_until, trusted_until, removed`

func scanAuthority(row interface{ Scan(...any) error }) (a Authority, err error) {
	var public []byte
	var profile string
	var created, from, until, trusted, removed int64
	if err := row.Scan(&a.ID, &a.Name, &a.Purpose, &a.Application, &public, &a.Comment, &profile, &created, &from, &until, &trusted, &removed); err != nil {
		return a, err
	}
	a.Created, a.SignsFrom, a.SignsUntil, a.TrustedUntil, a.Removed = store.Time(created), store.Time(from), store.Time(until), store.Time(trusted), store.Time(removed)
	if a.Public, err = trust.ParsePublicKeyBlob(public); err != nil {
		return a, err
	}
	return a, json.Unmarshal([]byte(profile), &a.Profile)
}

func insertAuthority(tx *store.Tx, a Authority) error {
	profile, err := json.Marshal(a.Profile)
	if err != nil {
		return err
	}
	if err := changed(tx); err != nil {
		return err
	}
	_, err = tx.Exec(`INSERT INTO authorities (tenant, `+authorityColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		tx.Tenant(), a.ID, a.Name, a.Purpose, a.Application, a.Public.Blob(), a.Comment, string(profile), store.Micros(a.Created),
		store.Micros(a.SignsFrom), store.Micros(a.SignsUntil), store.Micros(a.TrustedUntil), store.Micros(a.Removed))
	return err
}

// updateAuthority writes a's profile and times.
func updateAuthority(tx *store.Tx, a Authority) error {
	profile, err := json.Marshal(a.Profile)
	if err != nil {
		return err
	}
	if err := changed(tx); err != nil {
		return err
	}
	_, err = tx.Exec(`UPDATE authorities SET profile = $3, signs_from = $4, signs_until = $5, trusted_until = $6, removed = $7 WHERE tenant = $1 AND id = $2`,
		tx.Tenant(), a.ID, string(profile), store.Micros(a.SignsFrom), store.Micros(a.SignsUntil), store.Micros(a.TrustedUntil), store.Micros(a.Removed))
	return err
}

// changed leaves another version behind, see kept.
func changed(tx *store.Tx) error {
	_, err := tx.Exec(`INSERT INTO authority_versions (tenant, version) VALUES ($1, $2)
		ON CONFLICT (tenant) DO UPDATE SET version = excluded.version`, tx.Tenant(), uuid.NewString())
	return err
}

func selectAuthoritiesVersion(tx *store.Tx) (version string, err error) {
	err = tx.QueryRow(`SELECT version FROM authority_versions WHERE tenant = $1`, tx.Tenant()).Scan(&version)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return version, err
}

func countAuthorities(tx *store.Tx) (n int, err error) {
	err = tx.QueryRow(`SELECT count(*) FROM authorities WHERE tenant = $1 AND removed = 0`, tx.Tenant()).Scan(&n)
	return n, err
}

func selectAuthority(tx *store.Tx, id string) (Authority, error) {
	a, err := scanAuthority(tx.QueryRow(`SELECT `+authorityColumns+` FROM authorities WHERE tenant = $1 AND id = $2`, tx.Tenant(), id))
	if errors.Is(err, sql.ErrNoRows) {
		return Authority{}, notFound(id)
	}
	return a, err
}

// selectNamed returns all of a name, oldest first, removed ones among them.
func selectNamed(tx *store.Tx, name string) ([]Authority, error) {
	return each(tx, scanAuthority, `SELECT `+authorityColumns+` FROM authorities WHERE tenant = $1 AND name = $2 ORDER BY created, id`, tx.Tenant(), name)
}

func selectAuthorities(tx *store.Tx, f Filter) ([]Authority, error) {
	return each(tx, scanAuthority, `SELECT `+authorityColumns+` FROM authorities
		WHERE tenant = $1 AND removed = 0 AND id > $2 AND ($3 = '' OR purpose = $3) AND ($4 = '' OR application = $4 OR ($4 = '*' AND application <> ''))
		ORDER BY id LIMIT $5`, tx.Tenant(), f.After, string(f.Purpose), f.Application, f.Limit)
}

// selectRemoved returns those for a purpose that were removed after a time, the last first.
func selectRemoved(tx *store.Tx, purpose Purpose, after time.Time, limit int) ([]Authority, error) {
	return each(tx, scanAuthority, `SELECT `+authorityColumns+` FROM authorities
		WHERE tenant = $1 AND purpose = $2 AND removed > $3 ORDER BY removed DESC, id LIMIT $4`, tx.Tenant(), string(purpose), store.Micros(after), limit)
}

// selectOfApplication returns all of an application that are not removed, oldest first.
func selectOfApplication(tx *store.Tx, application string) ([]Authority, error) {
	return each(tx, scanAuthority, `SELECT `+authorityColumns+` FROM authorities WHERE tenant = $1 AND application = $2 AND application <> '' AND removed = 0 ORDER BY id`,
		tx.Tenant(), application)
}

// ofApplications is of each application what current returns: the one that signs, or the
// one that began last, or else the one that is about to. No two of one are that.
const ofApplications = ` FROM authorities a WHERE tenant = $1 AND removed = 0 AND application <> '' AND
	(signs_from <= $2 AND (signs_until = 0 OR signs_until > $2) OR NOT EXISTS (SELECT 1 FROM authorities b
		WHERE b.tenant = a.tenant AND b.application = a.application AND b.removed = 0 AND
		b.signs_from <= $2 AND (a.signs_from > $2 OR b.id > a.id)))`

func selectOfApplications(tx *store.Tx, offset, limit int) ([]ApplicationKey, error) {
	scan := func(row interface{ Scan(...any) error }) (k ApplicationKey, err error) {
		var public []byte
		if err := row.Scan(&k.ID, &k.Application, &public); err != nil {
			return k, err
		}
		k.Public, err = trust.ParsePublicKeyBlob(public)
		return k, err
	}
	return each(tx, scan, `SELECT id, application, public`+ofApplications+` ORDER BY id LIMIT $3 OFFSET $4`, tx.Tenant(), store.Micros(tx.Now()), limit, offset)
}

func countOfApplications(tx *store.Tx) (n int, err error) {
	err = tx.QueryRow(`SELECT count(*)`+ofApplications, tx.Tenant(), store.Micros(tx.Now())).Scan(&n)
	return n, err
}

// each returns what scan makes of each row.
func each[T any](tx *store.Tx, scan func(interface{ Scan(...any) error }) (T, error), query string, args ...any) (list []T, err error) {
	rows, err := tx.Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		x, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, x)
	}
	return list, rows.Err()
}

const certificateColumns = `authority, person, why, unsigned, created, applications`

func scanCertificate(row interface{ Scan(...any) error }) (i Issued, err error) {
	var created int64
	var applications string
	if err := row.Scan(&i.Authority, &i.Person, &i.Why, &i.unsigned, &created, &applications); err != nil {
		return i, err
	}
	i.Created = store.Time(created)
	if applications != "" {
		i.Applications = strings.Split(applications, ",")
	}
	i.Certificate, err = trust.ParseCertificate(i.unsigned)
	return i, err
}

// insertCertificate writes a certificate down, with what was asked for it by r.
func insertCertificate(tx *store.Tx, i Issued, r Request) error {
	_, err := tx.Exec(`INSERT INTO certificates (tenant, serial, authority, key_id, public_key, person, asked_with, why, unsigned, created, valid_before, applications)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		tx.Tenant(), int64(i.Serial), i.Authority, i.KeyID, string(i.Key.Fingerprint()), i.Person, r.AskedWith, i.Why, i.unsigned, store.Micros(i.Created), store.Micros(i.ValidBefore),
		strings.Join(i.Applications, ","))
	if err != nil {
		return err
	}
	for _, id := range i.Applications {
		if _, err := tx.Exec(`INSERT INTO certificate_applications (tenant, application, valid_before, serial) VALUES ($1, $2, $3, $4)`,
			tx.Tenant(), id, store.Micros(i.ValidBefore), int64(i.Serial)); err != nil {
			return err
		}
	}
	return nil
}

func selectCertificate(tx *store.Tx, serial uint64) (Issued, error) {
	missing := trust.Errorf(trust.NotFound, "there is no certificate of serial number %d", serial).WithHint("keyturn cert list")
	if serial > math.MaxInt64 {
		return Issued{}, missing
	}
	i, err := scanCertificate(tx.QueryRow(`SELECT `+certificateColumns+` FROM certificates WHERE tenant = $1 AND serial = $2`, tx.Tenant(), int64(serial)))
	if errors.Is(err, sql.ErrNoRows) {
		return Issued{}, missing
	}
	return i, err
}

func selectCertificates(tx *store.Tx, f CertificateFilter) ([]Issued, error) {
	before, valid := int64(math.MaxInt64), int64(0)
	if !f.After.Created.IsZero() {
		before = store.Micros(f.After.Created)
	}
	if f.Valid {
		valid = store.Micros(tx.Now())
	}
	return each(tx, scanCertificate, `SELECT `+certificateColumns+` FROM certificates
		WHERE tenant = $1 AND (created < $2 OR created = $2 AND serial < $3) AND valid_before > $4 AND ($5 = '' OR person = $5)
		AND ($6 = '' OR EXISTS (SELECT 1 FROM certificate_applications a WHERE a.tenant = certificates.tenant AND a.application = $6
			AND a.valid_before = certificates.valid_before AND a.serial = certificates.serial))
		ORDER BY created DESC, serial DESC LIMIT $7`, tx.Tenant(), before, int64(f.After.Serial), valid, f.Person, f.Application, f.Limit)
}

// selectPersons returns whom certificates are on record for that have an id, or that key
// id.
func selectPersons(tx *store.Tx, idOrKeyID string) ([]string, error) {
	scan := func(row interface{ Scan(...any) error }) (id string, err error) {
		err = row.Scan(&id)
		return id, err
	}
	return each(tx, scan, `SELECT person FROM certificates WHERE tenant = $1 AND person = $2 AND person <> ''
		UNION SELECT person FROM certificates WHERE tenant = $1 AND key_id = $2 AND person <> '' ORDER BY person LIMIT 10`, tx.Tenant(), idOrKeyID)
}

// selectLastEnd returns until when a certificate of an authority is valid, or zero.
func selectLastEnd(tx *store.Tx, authority string) (time.Time, error) {
	var last int64
	err := tx.QueryRow(`SELECT COALESCE(max(valid_before), 0) FROM certificates WHERE tenant = $1 AND authority = $2`, tx.Tenant(), authority).Scan(&last)
	return store.Time(last), err
}

// Which certificates are revoked together: by a column, or by an application that let them.
const (
	ofPerson  = `c.person = $2`
	ofKey     = `c.public_key = $2`
	askedWith = `c.asked_with = $2`
	letBy     = `c.serial IN (SELECT serial FROM certificate_applications WHERE tenant = $1 AND application = $2 AND valid_before > CAST($3 AS BIGINT))`
)

// insertSerials revokes, by their serial numbers, the certificates that have not ended and
// of which a condition on a value is true. It returns how many were not revoked so before.
func insertSerials(tx *store.Tx, which, value, reason string) (rows int64, err error) {
	return tx.Exec(`INSERT INTO revocations (tenant, kind, authority, value, public, reason, created, until)
		SELECT c.tenant, 'serial', c.authority, CAST(c.serial AS TEXT), a.public, CAST($4 AS TEXT), CAST($3 AS BIGINT), c.valid_before + CAST($5 AS BIGINT)
		FROM certificates c JOIN authorities a ON a.tenant = c.tenant AND a.id = c.authority
		WHERE c.tenant = $1 AND `+which+` AND c.valid_before > CAST($3 AS BIGINT)
		ON CONFLICT (tenant, kind, authority, value) DO NOTHING`, tx.Tenant(), value, store.Micros(tx.Now()), reason, graceOfClocks.Microseconds())
}

// An end is of the certificates of one key id and authority: how many have not ended,
// and when the last does.
type end struct {
	authority string
	count     int
	last      time.Time
}

func selectEnds(tx *store.Tx, keyID string) ([]end, error) {
	scan := func(row interface{ Scan(...any) error }) (e end, err error) {
		var last int64
		err = row.Scan(&e.authority, &e.count, &last)
		e.last = store.Time(last)
		return e, err
	}
	return each(tx, scan, `SELECT authority, count(*), max(valid_before) FROM certificates
		WHERE tenant = $1 AND key_id = $2 AND valid_before > $3 GROUP BY authority`, tx.Tenant(), keyID, store.Micros(tx.Now()))
}

// insertRevocation adds nothing where r is there already, and lets it last the longer.
func insertRevocation(tx *store.Tx, r revocation) (rows int64, err error) {
	return tx.Exec(`INSERT INTO revocations (tenant, kind, authority, value, public, reason, created, until) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (tenant, kind, authority, value) DO UPDATE SET until = excluded.until WHERE revocations.until < excluded.until`,
		tx.Tenant(), r.kind, r.authority, r.value, r.public.Blob(), r.reason, store.Micros(tx.Now()), store.Micros(r.until))
}

// selectRevoked returns what is revoked but for single certificates.
func selectRevoked(tx *store.Tx, limit int) ([]revoked, error) {
	scan := func(row interface{ Scan(...any) error }) (r revoked, err error) {
		err = row.Scan(&r.kind, &r.value)
		return r, err
	}
	return each(tx, scan, `SELECT kind, value FROM revocations WHERE tenant = $1 AND kind IN ('key-id', 'key', 'authority') LIMIT $2`, tx.Tenant(), limit)
}

func deleteEnded(tx *store.Tx) (rows int64, err error) {
	return tx.Exec(`DELETE FROM revocations WHERE tenant = $1 AND until > 0 AND until <= $2`, tx.Tenant(), store.Micros(tx.Now()))
}

func raiseVersion(tx *store.Tx) error {
	_, err := tx.Exec(`INSERT INTO revocation_lists (tenant, version, changed) VALUES ($1, 1, $2)
		ON CONFLICT (tenant) DO UPDATE SET version = revocation_lists.version + 1, changed = excluded.changed`, tx.Tenant(), store.Micros(tx.Now()))
	return err
}

func selectVersion(tx *store.Tx) (v ListVersion, err error) {
	var changed int64
	err = tx.QueryRow(`SELECT version, changed FROM revocation_lists WHERE tenant = $1`, tx.Tenant()).Scan(&v.Number, &changed)
	if errors.Is(err, sql.ErrNoRows) {
		return ListVersion{}, nil
	}
	v.Changed = store.Time(changed)
	return v, err
}

// selectRevocations returns what is revoked, with the public key of the authority where
// it is by serial number or key id.
func selectRevocations(tx *store.Tx) ([]revocation, error) {
	scan := func(row interface{ Scan(...any) error }) (r revocation, err error) {
		var public []byte
		if err := row.Scan(&r.kind, &r.authority, &r.value, &public); err != nil {
			return r, err
		}
		r.public, err = trust.ParsePublicKeyBlob(public)
		return r, err
	}
	return each(tx, scan, `SELECT r.kind, r.authority, r.value, CASE WHEN r.authority = '' THEN r.public ELSE a.public END FROM revocations r
		LEFT JOIN authorities a ON a.tenant = r.tenant AND a.id = r.authority
		WHERE r.tenant = $1 ORDER BY r.kind, r.authority, r.value`, tx.Tenant())
}

// selectRevocation returns why a certificate is revoked, by what and until when: a kind
// of "" if it is not.
func selectRevocation(tx *store.Tx, i Issued) (r revocation, err error) {
	var until int64
	err = tx.QueryRow(`SELECT reason, kind, until FROM revocations WHERE tenant = $1 AND
		(kind = 'serial' AND authority = $2 AND value = $3 OR kind = 'key-id' AND authority = $2 AND value = $4
		OR kind = 'key' AND authority = '' AND value = $5 OR kind = 'authority' AND authority = '' AND value = $6) ORDER BY kind LIMIT 1`,
		tx.Tenant(), i.Authority, strconv.FormatUint(i.Serial, 10), i.KeyID, string(i.Key.Fingerprint()), string(i.CA.Fingerprint())).Scan(&r.reason, &r.kind, &until)
	if errors.Is(err, sql.ErrNoRows) {
		return revocation{}, nil
	}
	r.until = store.Time(until)
	return r, err
}
