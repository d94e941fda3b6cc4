package authority

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"keyturn/internal/keyring"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// openWorld opens the database and the key-encryption key that lie in dir.
func openWorld(t *testing.T, dir string) (world, func()) {
	t.Helper()
	s, err := store.Open(context.Background(), store.Options{URL: "sqlite:" + filepath.Join(dir, "db"), Schema: schemas})
	if err != nil {
		t.Fatal(err)
	}
	kek, err := keyring.LoadKEK(filepath.Join(dir, "kek"), "", true)
	if err != nil {
		t.Fatal(err)
	}
	k, err := keyring.Open(context.Background(), s, kek)
	if err != nil {
		t.Fatal(err)
	}
	return world{t, s, New(k)}, func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestIssueUntilKilled is no test, but the process that TestKilled kills: it issues
// certificates, and prints each with the authority's name.
func TestIssueUntilKilled(t *testing.T) {
	dir := os.Getenv("KEYTURN_ISSUE_UNTIL_KILLED")
	if dir == "" {
		return
	}
	w, _ := openWorld(t, dir)
	var all []Authority
	w.must(func(tx *store.Tx) (err error) {
		all, err = w.List(tx, Filter{Limit: 10})
		return err
	})
	for i := 0; ; i++ {
		d, err := w.asks(w.Authorities, all[i%len(all)].Name, request(t))
		if err != nil {
			t.Fatal(err)
		}
		c, err := d.Sign()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("issued", c)
	}
}

// Whatever instant a process is killed at, each certificate that left it is on record and
// can be revoked, and each that is on record and did not leave is signed afterwards, as
// the same certificate each time.
func TestKilled(t *testing.T) {
	t.Parallel()
	need.Within(t, 3*time.Minute)
	dir := t.TempDir()
	w, closeWorld := openWorld(t, dir)
	for _, kind := range []string{"ecdsa-p256", "ed25519"} {
		w.create(NewAuthority{Name: kind, Purpose: User}, kind)
	}
	closeWorld()
	left := map[uint64]trust.PublicKey{}
	for round := range 8 {
		cmd := exec.Command(os.Args[0], "-test.run", "^TestIssueUntilKilled$", "-test.v")
		cmd.Env = append(os.Environ(), "KEYTURN_ISSUE_UNTIL_KILLED="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		after := 1 + rand.IntN(40)
		for n := 0; lines.Scan(); {
			text, ok := strings.CutPrefix(lines.Text(), "issued ")
			if !ok {
				continue
			}
			c, _, err := trust.ParsePublicKey(text)
			if err != nil {
				continue // cut off by the kill
			}
			parsed, err := trust.ParseCertificate(c.Blob())
			if err != nil {
				continue
			}
			left[parsed.Serial] = c
			if n++; n == after {
				// At any instant of the next few.
				time.AfterFunc(time.Duration(rand.IntN(2000))*time.Microsecond, func() { _ = cmd.Process.Kill() })
			}
		}
		_ = cmd.Wait()
		t.Logf("round %d: %d have left", round, len(left))
	}

	w, closeWorld = openWorld(t, dir)
	defer closeWorld()
	var all []Issued
	w.must(func(tx *store.Tx) (err error) {
		all, err = w.Certificates(tx, CertificateFilter{Limit: 10_000})
		return err
	})
	found := 0
	for _, i := range all {
		var signed [2]trust.PublicKey
		for n := range signed {
			err := w.store.View(context.Background(), storetest.Tenant, func(tx *store.Tx) error {
				_, d, err := w.Certificate(tx, i.Serial)
				if err == nil {
					signed[n], err = d.Sign()
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		if signed[0] != signed[1] {
			t.Errorf("certificate %d is signed in two ways", i.Serial)
		}
		if c, ok := left[i.Serial]; ok {
			found++
			if c != signed[0] {
				t.Errorf("certificate %d left as another than is signed now", i.Serial)
			}
		}
		w.must(func(tx *store.Tx) error { return w.RevokeSerial(tx, i.Serial, "") })
	}
	if found != len(left) {
		t.Errorf("%d certificates have left, of which %d are on record", len(left), found)
	}
	t.Logf("%d on record, %d have left", len(all), len(left))
}
