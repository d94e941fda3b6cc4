package access_test

import (
	"testing"
	"time"

	"keyturn/internal/access"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// Tests of policies are bounded in number and in time.
func TestPolicyTestsAreBounded(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		var ids []string
		add := func() {
			t.Helper()
			id := access.NewID()
			update(t, s, func(tx *store.Tx) error {
				_, err := access.AddTest(tx, id, []access.Policy{allow("", "all", "root")})
				return err
			})
			ids = append(ids, id)
		}
		there := func(id string) bool {
			t.Helper()
			var kept access.PolicyTest
			err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
				kept, err = access.TestByID(tx, id)
				return err
			})
			if err != nil && trust.KindOf(err) != trust.NotFound {
				t.Fatal(err)
			}
			if err == nil && (len(kept.Policies) != 1 || kept.Policies[0].Name != "all" || kept.Policies[0].ID == "" || len(kept.Policies[0].Include) != 1 || len(kept.Policies[0].SSH.Usernames) != 1) {
				t.Errorf("kept %+v", kept)
			}
			return err == nil
		}
		for range access.MaxTests + 1 {
			add()
		}
		if there(ids[0]) || !there(ids[1]) || !there(ids[access.MaxTests]) {
			t.Error("the oldest test stays, or another one goes")
		}
		age := func(by time.Duration) {
			update(t, s, func(tx *store.Tx) error {
				_, err := tx.Exec(`UPDATE access_policy_tests SET created_at = created_at - $2 WHERE tenant = $1`, tx.Tenant(), by.Microseconds())
				return err
			})
		}
		age(access.MaxTestAge - time.Minute)
		if !there(ids[1]) {
			t.Error("a test has gone before its time")
		}
		age(time.Minute)
		if there(ids[1]) {
			t.Error("a test outlives its time")
		}
		add()
		left := 0
		view(t, s, func(tx *store.Tx) error {
			return tx.QueryRow(`SELECT count(*) FROM access_policy_tests WHERE tenant = $1`, tx.Tenant()).Scan(&left)
		})
		if left != 1 {
			t.Errorf("%d tests are kept, and the old ones are among them", left)
		}
	})
}
