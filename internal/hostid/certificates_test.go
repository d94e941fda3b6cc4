package hostid

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/authority"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// certified has the certificates of a host's keys.
func (p *plant) certified(a *authority.Authorities, ca authority.Authority, host trust.HostID) (list []Certified) {
	p.Helper()
	p.update(func(tx *store.Tx) error {
		seeds, err := Load(tx)
		if err != nil {
			return err
		}
		shown, err := Open(tx, p.keyring, seeds)
		if err != nil {
			return err
		}
		keys, err := shown.Identities(host)
		if err != nil {
			return err
		}
		list, err = Certify(tx, a, ca, keys)
		return err
	})
	return list
}

// Each key that is presented or announced has a certificate that is the same one until it
// is renewed, before it ends; compromised seeds' are revoked, all by one line for each seed
// and authority, however many there are.
func TestHostCertificates(t *testing.T) {
	var ahead atomic.Int64 // of the time of day is the clock
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	storetest.BothAt(t, now, schemas, func(t *testing.T, s *store.Store) {
		ahead.Store(0)
		p := newPlant(t, s)
		a := p.authorities
		key, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
		if err != nil {
			t.Fatal(err)
		}
		profile := authority.Profile{Valid: time.Hour, MaxValid: time.Hour, KeyTypes: keyring.SeedAlgorithms, MinRSA: 2048, MaxPrincipals: 1}
		var ca authority.Authority
		p.update(func(tx *store.Tx) error {
			ca, err = a.Create(tx, authority.NewAuthority{Name: "hosts", Purpose: authority.Host, Profile: &profile}, key)
			return err
		})
		replaced, _ := p.ask(time.Hour)
		hosts := []trust.HostID{Gateway(storetest.Tenant)}
		for range 5 {
			hosts = append(hosts, trust.HostID(uuid.NewString()))
		}
		serials := map[uint64]bool{}
		for _, h := range hosts {
			presented := 0
			for _, c := range p.certified(a, ca, h) {
				serials[c.Certificate.Serial] = true
				if c.Presented {
					presented++
				}
				p.checkCertificate(c, ca)
			}
			if presented != len(keyring.SeedAlgorithms) {
				t.Errorf("%d keys that are presented have certificates", presented)
			}
		}
		if len(serials) != 4*len(hosts) {
			t.Fatalf("%d certificates of %d hosts", len(serials), len(hosts))
		}
		first := p.certified(a, ca, hosts[0])
		for _, later := range []struct {
			by   time.Duration
			same bool
		}{{29 * time.Minute, true}, {31 * time.Minute, false}} {
			ahead.Store(int64(later.by))
			if again := p.certified(a, ca, hosts[0]); (again[0].Certificate.Serial == first[0].Certificate.Serial) != later.same {
				t.Errorf("after %v of an hour it is the same certificate: %t", later.by, !later.same)
			}
		}

		// One line for each seed: of what is presented, what is announced, and what was
		// announced before another one took its place.
		for _, c := range p.certified(a, ca, hosts[0]) {
			serials[c.Certificate.Serial] = true
		}
		p.ask(time.Hour)
		for _, c := range p.certified(a, ca, hosts[0]) {
			serials[c.Certificate.Serial] = true
		}
		p.update(func(tx *store.Tx) error {
			_, err := Replace(tx, p.keyring, a, trust.SeedID(uuid.NewString()), Terms{Overlap: time.Hour})
			return err
		})
		p.update(func(tx *store.Tx) error {
			krl, err := a.KRL(tx)
			if err != nil {
				return err
			}
			if len(krl.Certificates) != 1 || len(krl.Certificates[0].KeyIDs) != 3 || !slices.Contains(krl.Certificates[0].KeyIDs, certificateID(replaced)) || len(krl.Certificates[0].Serials) != 0 || len(krl.Keys) != 0 {
				return fmt.Errorf("revoked are %+v", krl)
			}
			for serial := range serials {
				if i, _, err := a.Certificate(tx, serial); err != nil || i.Revoked != "key id \""+i.KeyID+"\" is revoked: the seed was compromised" {
					return fmt.Errorf("certificate %d: %q %w", serial, i.Revoked, err)
				}
			}
			return nil
		})
		for _, c := range p.certified(a, ca, hosts[0]) {
			if serials[c.Certificate.Serial] || !c.Presented {
				t.Errorf("after that %+v has certificate %d", c.Identity, c.Certificate.Serial)
			}
		}
		seeds := p.seeds()
		if i := seeds.at(replaced); i < 0 || seeds[i].State != Revoked {
			t.Errorf("what was announced before another took its place is not revoked: %+v", seeds)
		}

		// Of those that were announced and never presented the newest are kept. What was
		// signed for one that is destroyed is good no more.
		pushed, _ := p.ask(time.Hour)
		var gone []Certified
		for _, c := range p.certified(a, ca, hosts[0]) {
			if c.Seed == pushed {
				gone = append(gone, c)
			}
		}
		for range maxGivenUp {
			p.ask(time.Hour)
		}
		revoked := func() (reasons []string) {
			p.update(func(tx *store.Tx) error {
				for _, c := range gone {
					i, _, err := a.Certificate(tx, c.Certificate.Serial)
					if err != nil {
						return err
					}
					reasons = append(reasons, i.Revoked)
				}
				return nil
			})
			return reasons
		}
		if got := revoked(); len(got) != len(keyring.SeedAlgorithms) || strings.Join(got, "") != "" || p.seed(pushed) != nil {
			t.Errorf("what was announced is kept, with its certificates: %q %v", got, p.seed(pushed))
		}
		p.ask(time.Hour)
		if got := revoked(); trust.KindOf(p.seed(pushed)) != trust.NotFound || !strings.Contains(got[0], "the seed was destroyed") || !strings.Contains(got[1], "the seed was destroyed") {
			t.Errorf("of a seed that is destroyed: %q %v", got, p.seed(pushed))
		}
	})
}

// checkCertificate has x/crypto judge a certificate as a client does.
func (p *plant) checkCertificate(c Certified, ca authority.Authority) {
	p.Helper()
	signed, err := c.Certificate.Sign()
	if err != nil {
		p.Fatal(err)
	}
	parsed, err := ssh.ParsePublicKey(signed.Blob())
	if err != nil {
		p.Fatal(err)
	}
	checker := ssh.CertChecker{IsHostAuthority: func(k ssh.PublicKey, _ string) bool { return trust.PublicKeyOf(k) == ca.Public }}
	if err := checker.CheckHostKey(c.Name+":22", nil, parsed); err != nil {
		p.Errorf("certificate of %s: %v", c.Name, err)
	}
	if err := checker.CheckHostKey("x"+c.Name+":22", nil, parsed); err == nil {
		p.Errorf("certificate of %s is good for another host", c.Name)
	}
}
