package identity

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Identity providers.

const providerColumns = `id, name, kind, issuer, client, secret, audiences, scopes, name_claim, rules, required, created`

func scanProvider(scan func(...any) error) (p Provider, err error) {
	var secret, created int64
	var audiences, scopes, rules, required string
	err = scan(&p.ID, &p.Name, &p.Kind, &p.Issuer, &p.ClientID, &secret, &audiences, &scopes, &p.NameClaim, &rules, &required, &created)
	p.HasSecret, p.Created = secret != 0, store.Time(created)
	p.Audiences, p.Scopes = lines(audiences), lines(scopes)
	for _, line := range lines(rules) {
		r, bad := ParseClaimRule(line)
		p.Rules, err = append(p.Rules, r), errors.Join(err, bad)
	}
	for _, line := range lines(required) {
		m, bad := ParseClaimMatch(line)
		p.Required, err = append(p.Required, m), errors.Join(err, bad)
	}
	return p, err
}

// providerValues are the columns of a provider that can change.
func providerValues(p Provider) (client string, secret int, audiences, scopes, nameClaim, rules, required string) {
	if p.HasSecret {
		secret = 1
	}
	return p.ClientID, secret, strings.Join(p.Audiences, "\n"), strings.Join(p.Scopes, "\n"), p.NameClaim, joinLines(p.Rules), joinLines(p.Required)
}

func joinLines[T fmt.Stringer](list []T) string {
	var all []string
	for _, v := range list {
		all = append(all, v.String())
	}
	return strings.Join(all, "\n")
}

func insertProvider(tx *store.Tx, p Provider) error {
	client, secret, audiences, scopes, nameClaim, rules, required := providerValues(p)
	_, err := tx.Exec(`INSERT INTO identity_providers (tenant, id, login, name, kind, issuer, created, client, secret, audiences, scopes, name_claim, rules, required)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`,
		tx.Tenant(), p.ID, strings.ToLower(p.Name), p.Name, p.Kind, p.Issuer, store.Micros(p.Created), client, secret, audiences, scopes, nameClaim, rules, required)
	return err
}

func updateProvider(tx *store.Tx, p Provider) error {
	client, secret, audiences, scopes, nameClaim, rules, required := providerValues(p)
	_, err := tx.Exec(`UPDATE identity_providers SET client = $3, secret = $4, audiences = $5, scopes = $6, name_claim = $7, rules = $8, required = $9
		WHERE tenant = $1 AND id = $2`, tx.Tenant(), p.ID, client, secret, audiences, scopes, nameClaim, rules, required)
	return err
}

// selectProvider returns an identity provider in any tenant, or sql.ErrNoRows.
func selectProvider(tx *store.Tx, tenant trust.TenantID, login string) (Provider, error) {
	return scanProvider(tx.QueryRow(`SELECT `+providerColumns+` FROM identity_providers WHERE tenant = $1 AND login = $2`, tenant, login).Scan)
}

func selectProviderByID(tx *store.Tx, tenant trust.TenantID, id string) (Provider, error) {
	return scanProvider(tx.QueryRow(`SELECT `+providerColumns+` FROM identity_providers WHERE tenant = $1 AND id = $2`, tenant, id).Scan)
}

func selectProviders(tx *store.Tx) ([]Provider, error) { return selectProvidersOf(tx, tx.Tenant()) }

func selectProvidersOf(tx *store.Tx, tenant trust.TenantID) ([]Provider, error) {
	rows, err := tx.Query(`SELECT `+providerColumns+` FROM identity_providers WHERE tenant = $1 ORDER BY login`, tenant)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Provider
	for rows.Next() {
		p, err := scanProvider(rows.Scan)
		if err != nil {
			return nil, err
		}
		list = append(list, p)
	}
	return list, rows.Err()
}

// deleteProvider deletes an identity provider, whose users are gone, with the logins
// by it.
func deleteProvider(tx *store.Tx, id string) error {
	for _, query := range []string{
		`DELETE FROM begun_logins WHERE tenant = $1 AND provider = $2`,
		`DELETE FROM machine_logins WHERE tenant = $1 AND provider = $2`,
		`DELETE FROM identity_providers WHERE tenant = $1 AND id = $2`,
	} {
		if _, err := tx.Exec(query, tx.Tenant(), id); err != nil {
			return err
		}
	}
	return nil
}

// Logins of machines.

func insertMachineLogin(tx *store.Tx, hash, provider, name string, roles []string, ends time.Time) error {
	_, err := tx.Exec(`INSERT INTO machine_logins (tenant, id, provider, name, roles, ends) VALUES ($1, $2, $3, $4, $5, $6)`,
		tx.Tenant(), hash, provider, name, encodeRoles(roles), store.Micros(ends))
	return err
}

// deleteMachineLoginsBut deletes those of a machine but for the ones that end last, as many
// as are to be kept.
func deleteMachineLoginsBut(tx *store.Tx, provider, name string, kept int) error {
	_, err := tx.Exec(`DELETE FROM machine_logins WHERE tenant = $1 AND id IN (
		SELECT id FROM machine_logins WHERE tenant = $1 AND provider = $2 AND name = $3 ORDER BY ends DESC, id LIMIT 1000 OFFSET $4)`, tx.Tenant(), provider, name, kept)
	return err
}

// selectMachineLogin returns the login of a machine that is stored by a hash, in any
// tenant, or sql.ErrNoRows.
func selectMachineLogin(tx *store.Tx, hash string) (w webLoginRow, err error) {
	var ends int64
	var tenant trust.TenantID
	var provider, name, roles string
	err = tx.QueryRow(`SELECT tenant, provider, name, roles, ends FROM machine_logins WHERE id = $1`, hash).Scan(&tenant, &provider, &name, &roles, &ends)
	if err != nil {
		return webLoginRow{}, err
	}
	p, err := selectProviderByID(tx, tenant, provider)
	if err != nil {
		return webLoginRow{}, err
	}
	w.ends, w.actor = store.Time(ends), machine(tenant, p, name)
	w.actor.Roles = decodeRoles(roles)
	w.actor.Permissions, err = permitted(tx, tenant, Rights{Roles: w.actor.Roles})
	return w, err
}

func deleteMachineLogin(tx *store.Tx, hash string) error {
	_, err := tx.Exec(`DELETE FROM machine_logins WHERE tenant = $1 AND id = $2`, tx.Tenant(), hash)
	return err
}

// deleteEndedMachineLogins deletes those of the tenant of tx that have ended.
func deleteEndedMachineLogins(tx *store.Tx) error {
	_, err := tx.Exec(`DELETE FROM machine_logins WHERE tenant = $1 AND ends <= $2`, tx.Tenant(), store.Micros(tx.Now()))
	return err
}

// Logins that have gone to a provider.

func insertBegunLogin(tx *store.Tx, b begunLogin) error {
	device := 0
	if b.device {
		device = 1
	}
	_, err := tx.Exec(`INSERT INTO begun_logins (tenant, id, provider, device, challenge, nonce, redirect, source, ends) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)`,
		tx.Tenant(), b.id, b.provider.ID, device, b.challenge, b.nonce, b.redirect, b.source, store.Micros(b.ends))
	return err
}

// selectBegunLogin returns a login that has begun, whosoever's, or sql.ErrNoRows.
func selectBegunLogin(tx *store.Tx, id string) (b begunLogin, err error) {
	var device, ends int64
	var provider string
	err = tx.QueryRow(`SELECT tenant, id, provider, device, challenge, nonce, redirect, source, ends FROM begun_logins WHERE id = $1`, id).
		Scan(&b.tenant, &b.id, &provider, &device, &b.challenge, &b.nonce, &b.redirect, &b.source, &ends)
	if err != nil {
		return begunLogin{}, err
	}
	b.device, b.ends = device != 0, store.Time(ends)
	b.provider, err = selectProviderByID(tx, b.tenant, provider)
	return b, err
}

// deleteBegunLogin reports whether it was there still.
func deleteBegunLogin(tx *store.Tx, id string) (bool, error) {
	n, err := tx.Exec(`DELETE FROM begun_logins WHERE tenant = $1 AND id = $2`, tx.Tenant(), id)
	return n == 1, err
}

// deleteEndedBegunLogins deletes those of the tenant of tx that nobody has finished.
func deleteEndedBegunLogins(tx *store.Tx) error {
	_, err := tx.Exec(`DELETE FROM begun_logins WHERE tenant = $1 AND ends <= $2`, tx.Tenant(), store.Micros(tx.Now()))
	return err
}

// evictBegunLogin deletes the oldest that began where most of the tenant of tx did.
func evictBegunLogin(tx *store.Tx) error {
	_, err := tx.Exec(`DELETE FROM begun_logins WHERE tenant = $1 AND id = (SELECT id FROM begun_logins WHERE tenant = $1 AND source =
		(SELECT source FROM begun_logins WHERE tenant = $1 GROUP BY source ORDER BY count(*) DESC, source LIMIT 1) ORDER BY ends, id LIMIT 1)`, tx.Tenant())
	return err
}

// countBegunLogins counts those of a tenant that can be finished still, and how many
// of them began at an address.
func countBegunLogins(tx *store.Tx, tenant trust.TenantID, source string) (all, here int, err error) {
	err = tx.QueryRow(`SELECT count(*), COALESCE(sum(CASE WHEN source = $2 THEN 1 ELSE 0 END), 0) FROM begun_logins WHERE tenant = $1 AND ends > $3`,
		tenant, source, store.Micros(tx.Now())).Scan(&all, &here)
	return all, here, err
}
