package keyring

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"keyturn/internal/trust"
)

// A password is there for one use, within its time, for the tenant that gave it.
func TestLend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := &Keyring{lent: map[loan]lent{}}
		for _, id := range []string{"used", "late"} {
			if err := k.Lend("t1", id, "secret of "+id); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := k.Take("t2", "used"); ok {
			t.Error("another tenant has the password")
		}
		if password, ok := k.Take("t1", "used"); !ok || password != "secret of used" {
			t.Errorf("taken: %q, %v", password, ok)
		}
		if _, ok := k.Take("t1", "used"); ok {
			t.Error("the password is there twice")
		}
		time.Sleep(LendFor + time.Second)
		synctest.Wait()
		if _, ok := k.Take("t1", "late"); ok || len(k.lent) != 0 {
			t.Errorf("after %s the password is still there", LendFor)
		}
		for _, bad := range []string{"", strings.Repeat("x", 1025)} {
			if err := k.Lend("t1", "x", bad); trust.KindOf(err) != trust.Invalid {
				t.Errorf("a password of %d bytes: %v", len(bad), err)
			}
		}
	})
}
