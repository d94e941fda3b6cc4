package control

import (
	"fmt"
	"io/fs"
	"slices"
	"testing"

	"keyturn/internal/access"
	"keyturn/internal/authority"
	"keyturn/internal/hostid"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// BenchmarkRotateSeed asks for the rotation of a seed, replaces a compromised one, and has
// the certificates of one host, with few targets and with very many: none of it may depend
// on how many there are.
func BenchmarkRotateSeed(b *testing.B) {
	for _, targets := range []int{1_000, 1_000_000} {
		s := storetest.Open(b, slices.Concat(everything, []fs.FS{access.Schema})...)
		p, tenant, add := newHolder(b, s)
		engine, err := job.New(s, hostid.Procedures(s, p.keyring), job.Options{})
		if err != nil {
			b.Fatal(err)
		}
		p.engine = engine
		alice := add("alice")
		addTargets(b, s, tenant, targets)
		if _, err := p.CreateAuthority(b.Context(), alice, NewAuthority{Name: "hosts", Purpose: authority.Host, Type: "ed25519"}); err != nil {
			b.Fatal(err)
		}
		rotate := func(r SeedRotation) {
			b.Helper()
			if _, _, err := p.RotateSeed(b.Context(), alice, r); err != nil {
				b.Fatal(err)
			}
		}
		certify := func() {
			b.Helper()
			if list, err := p.CertifyHost(b.Context(), alice, "web1", ""); err != nil || len(list) < 2 {
				b.Fatal(len(list), err)
			}
		}
		for _, part := range []struct {
			name string
			run  func()
		}{
			{"asked", func() { rotate(SeedRotation{}) }},
			{"compromised", func() { rotate(SeedRotation{Compromised: true}) }},
			{"asked-and-one-host-certified", func() { rotate(SeedRotation{}); certify() }},
			{"one-host-certified-before", certify},
		} {
			b.Run(fmt.Sprintf("%s/targets=%d", part.name, targets), func(b *testing.B) {
				for b.Loop() {
					part.run()
				}
			})
		}
	}
}

// addTargets adds targets web1, web2 and so on, as rows.
func addTargets(b *testing.B, s *store.Store, tenant trust.TenantID, count int) {
	b.Helper()
	const numbers = ` FROM (WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) SELECT i, printf('%08x-0000-7000-8000-%012x', i, i) AS id, printf('10.%d.%d.%d', i >> 16, i >> 8 & 255, i & 255) AS ip FROM n)`
	ev := storetest.Event()
	ev.Tenant = tenant
	err := s.Update(b.Context(), ev, func(tx *store.Tx) error {
		for _, text := range []string{
			`INSERT INTO hosts (tenant, id, name, address, login_user, become, mode, state, reason, created_at, revision, facts, machine, outcome, why, notes, tried_at, scanned_at)
				SELECT $1, id, 'web' || i, ip || ':22', '', '', '', 'unenrolled', '', i, 1, '{}', '', '', '', '[]', 0, 0` + numbers,
			`INSERT INTO targets (tenant, host_id, hostname, hostname_key, written, created_at, modified_at) SELECT $1, id, 'web' || i, 'web' || i, true, i, i` + numbers,
			`INSERT INTO target_addresses (tenant, network, ip_key, host_id, ip) SELECT $1, 'n', '4' || printf('%08x', 10 << 24 | i), id, ip` + numbers,
		} {
			if _, err := tx.Exec(text, tenant, count); err != nil {
				return err
			}
		}
		_, total, err := inventory.Targets(tx, inventory.TargetFilter{}, inventory.Page{Limit: 1})
		if err == nil && total != count {
			err = fmt.Errorf("there are %d targets", total)
		}
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
}
