package authority

import (
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

func to[T any](v T) *T { return &v }

// What a profile is changed to counts from the next certificate on, for the key that is to
// sign next too; and a key that may now sign for longer is trusted for longer.
func TestSetProfile(t *testing.T) {
	eachWorld(t, func(w world) {
		w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		r := request(w)
		refused := func(want string) {
			w.Helper()
			if _, err := w.asks(w.Authorities, "people", r); err == nil || !strings.Contains(err.Error(), want) {
				w.Errorf("issued, or refused by %v, and not by %q", err, want)
			}
		}
		set := func(c ProfileChange) error {
			return w.update(func(tx *store.Tx) error { return w.SetProfile(tx, "people", c) })
		}
		next := newKey(w, "ed25519")
		w.must(func(tx *store.Tx) error {
			_, err := w.Rotate(tx, "people", time.Hour, next)
			return err
		})
		if _, err := w.asks(w.Authorities, "people", r); err != nil {
			w.Fatal(err)
		}
		if err := set(ProfileChange{
			Valid: to(time.Minute), MaxValid: to(2 * 24 * time.Hour), KeyTypes: &[]string{"ssh-rsa", "ssh-ed25519", "ssh-ed25519"},
			Extensions: &[]string{"permit-pty", "permit-pty"}, CriticalOptions: &[]string{}, MaxPrincipals: to(1),
		}); err != nil {
			w.Fatal(err)
		}
		d, err := w.asks(w.Authorities, "people", r)
		if err != nil || len(d.Extensions) != 1 || d.ValidBefore.Sub(d.ValidAfter) != 2*time.Minute {
			w.Fatalf("issued %+v, %v", d, err)
		}
		w.must(func(tx *store.Tx) error {
			all, err := w.Named(tx, "people")
			if err != nil {
				return err
			}
			for _, a := range all {
				if a.Profile.MaxPrincipals != 1 || a.Profile.MinRSA != 2048 || !slices.Equal(a.Profile.KeyTypes, []string{"ssh-ed25519", "ssh-rsa"}) {
					w.Errorf("the one that is %s has %+v", a.State(tx.Now()), a.Profile)
				}
			}
			if old := all[0]; !old.TrustedUntil.Equal(old.SignsUntil.Add(2 * 24 * time.Hour)) {
				w.Errorf("signs until %v, and is trusted until %v", old.SignsUntil, old.TrustedUntil)
			}
			return nil
		})

		good := r
		r.Principals = []string{"deploy", "root"}
		refused("1 to 1 principals")
		r = good
		r.Valid = 49 * time.Hour
		refused("which is the most that this authority signs for")
		r = good
		r.Options = Options{ForceCommand: "id"}
		refused("force-command")
		r.Options = Options{Extensions: []string{"permit-user-rc"}}
		refused("permit-user-rc")
		r = good
		r.Key = newKey(w, "ecdsa-p256").Public()
		refused("are not certified by this authority")

		for want, c := range map[string]ProfileChange{
			"nothing of the profile":   {},
			"or the first is longer":   {Valid: to(72 * time.Hour)},
			"a second to five years":   {MaxValid: to(10 * 365 * 24 * time.Hour)},
			"at least one type":        {KeyTypes: &[]string{}},
			`"ssh-dss" is none of`:     {KeyTypes: &[]string{"ssh-dss"}},
			`"no-touch-required" is`:   {Extensions: &[]string{"no-touch-required"}},
			`"cert-authority" is none`: {CriticalOptions: &[]string{"cert-authority"}},
			"1024 bits":                {MinRSA: to(512)},
			"1 to 256 principals":      {MaxPrincipals: to(257)},
		} {
			if err := set(c); trust.KindOf(err) != trust.Invalid || !strings.Contains(err.Error(), want) {
				w.Errorf("%q: %v", want, err)
			}
		}
		w.create(NewAuthority{Name: "hosts", Purpose: Host}, "ed25519")
		err = w.update(func(tx *store.Tx) error {
			return w.SetProfile(tx, "hosts", ProfileChange{Extensions: &[]string{"permit-pty"}})
		})
		if trust.KindOf(err) != trust.Invalid {
			w.Errorf("extensions for hosts: %v", err)
		}
	})
}
