package inventory_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

func TestParseLabel(t *testing.T) {
	long := strings.Repeat("x", 63)
	for text, want := range map[string]inventory.Label{
		"env=prod":             {Name: "env", Value: "prod"},
		"example.com/team=d-b": {Name: "example.com/team", Value: "d-b"},
		"seen=":                {Name: "seen"},
		long + "=" + long:      {Name: long, Value: long},
		"A=1.0_rc":             {Name: "A", Value: "1.0_rc"},
	} {
		if got, err := inventory.ParseLabel(text); err != nil || got != want || got.String() != text {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{
		"", "env", "=prod", "en v=x", "env=a b", "env=a=b", "-env=x", "env-=x", "env=-", "env=a/b", "/env=x", "é=x", "env=\x00", long + "x=y", "y=" + long + "x",
	} {
		if got, err := inventory.ParseLabel(text); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%q is taken as %+v, %v", text, got, err)
		}
	}
}

// Keys are found by their labels, owner and end, and by all that is asked for
// together.
func TestKeysByFacts(t *testing.T) {
	both(t, func(t *testing.T, s *store.Store) {
		var ids []trust.KeyID
		put := func(i int, owner string, labels ...inventory.Label) trust.KeyID {
			var k inventory.Key
			update(t, s, func(tx *store.Tx) (err error) {
				k, err = inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: publicKey(i), Owner: owner, Purpose: "backup"})
				if err != nil {
					return err
				}
				return inventory.SetLabels(tx, k.ID, labels, nil)
			})
			ids = append(ids, k.ID)
			return k.ID
		}
		prod, db := inventory.Label{Name: "env", Value: "prod"}, inventory.Label{Name: "team", Value: "db"}
		first, second := put(1, "ops", prod, db), put(2, "ops", prod)
		put(3, "dev", inventory.Label{Name: "env", Value: "test"})
		update(t, s, func(tx *store.Tx) error {
			k, err := inventory.KeyByID(tx, second)
			if err != nil {
				return err
			}
			k.ExpiresAt = tx.Now().Add(-1)
			_, err = inventory.UpdateKey(tx, k)
			return err
		})
		view(t, s, func(tx *store.Tx) error {
			for _, test := range []struct {
				name string
				f    inventory.KeyFilter
				want []trust.KeyID
			}{
				{"a label", inventory.KeyFilter{Labels: []inventory.Label{prod}}, []trust.KeyID{first, second}},
				{"two labels", inventory.KeyFilter{Labels: []inventory.Label{prod, db}}, []trust.KeyID{first}},
				{"an owner", inventory.KeyFilter{Owner: "dev"}, ids[2:]},
				{"part of an owner", inventory.KeyFilter{Owner: "op"}, nil},
				{"expired", inventory.KeyFilter{Expired: tx.Now()}, []trust.KeyID{second}},
				{"expired, with a label of others", inventory.KeyFilter{Expired: tx.Now(), Labels: []inventory.Label{db}}, nil},
				{"expired, and accepted", inventory.KeyFilter{Expired: tx.Now(), Accepted: true}, nil},
			} {
				keys, _, err := inventory.Keys(tx, test.f, inventory.Page{Limit: 10})
				if err != nil {
					return err
				}
				var got []trust.KeyID
				for _, k := range keys {
					got = append(got, k.ID)
				}
				slices.Sort(got)
				slices.Sort(test.want)
				if !slices.Equal(got, test.want) {
					t.Errorf("%s: got %q, want %q", test.name, got, test.want)
				}
			}
			return nil
		})

		// A key has so many labels and no more, and those of the key whose place it takes.
		labels := func(id trust.KeyID) (l []inventory.Label) {
			view(t, s, func(tx *store.Tx) error {
				related, err := inventory.Relate(tx, []inventory.Key{{ID: id}})
				l = related[0].Labels
				return err
			})
			return l
		}
		update(t, s, func(tx *store.Tx) error {
			return inventory.SetLabels(tx, first, []inventory.Label{{Name: "env"}}, []string{"team"})
		})
		if got := labels(first); !slices.Equal(got, []inventory.Label{{Name: "env"}}) {
			t.Errorf("a label that was set and one that went leave %+v", got)
		}
		many := make([]inventory.Label, inventory.MaxLabels)
		for i := range many {
			many[i].Name = fmt.Sprintf("n%02d", i)
		}
		update(t, s, func(tx *store.Tx) error { return inventory.SetLabels(tx, first, many, []string{"env"}) })
		refused(t, s, trust.Invalid, func(tx *store.Tx) error {
			return inventory.SetLabels(tx, first, []inventory.Label{{Name: "more"}}, nil)
		})
		next := put(4, "ops")
		update(t, s, func(tx *store.Tx) error { return inventory.CopyLabels(tx, first, next) })
		update(t, s, func(tx *store.Tx) error { return inventory.CopyLabels(tx, second, next) }) // it has some
		if got := labels(next); !slices.Equal(got, many) {
			t.Errorf("copied, the labels are %+v", got)
		}
	})
}
