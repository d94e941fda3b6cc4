package authority

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/keyring"
	"keyturn/internal/need"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

var schemas = []fs.FS{keyring.Schema, Schema}

// A world is the authorities of one database.
type world struct {
	*testing.T
	store *store.Store
	*Authorities
}

func eachWorld(t *testing.T, test func(w world)) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), "", true)
		if err != nil {
			t.Fatal(err)
		}
		k, err := keyring.Open(t.Context(), s, kek)
		if err != nil {
			t.Fatal(err)
		}
		test(world{t, s, New(k)})
	})
}

func (w world) update(fn func(*store.Tx) error) error {
	return w.store.Update(context.Background(), storetest.Event(), fn)
}

func (w world) must(fn func(*store.Tx) error) {
	w.Helper()
	if err := w.update(fn); err != nil {
		w.Fatal(err)
	}
}

func newKey(t testing.TB, kind string) keyring.Private {
	t.Helper()
	spec, err := KeySpec(kind)
	if kind == "rsa-2048" {
		spec, err = keyring.Spec{Type: "rsa", Bits: 2048}, nil // as an authority, and made sooner
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := keyring.Generate(spec)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (w world) create(n NewAuthority, kind string) (a Authority) {
	w.Helper()
	key := newKey(w, kind)
	w.must(func(tx *store.Tx) (err error) {
		a, err = w.Create(tx, n, key)
		return err
	})
	return a
}

// request is one that everything speaks for.
func request(t testing.TB) Request {
	return Request{Key: newKey(t, "ed25519").Public(), Principals: []string{"deploy"}, KeyID: "ann", Person: "user:1", Why: `policy "ops"`}
}

func (w world) draft(a Authority, r Request) (d *Draft, err error) {
	err = w.update(func(tx *store.Tx) error {
		d, err = w.Draft(tx, a, r)
		return err
	})
	return d, err
}

func (w world) issue(a Authority, r Request) (*Draft, trust.PublicKey) {
	w.Helper()
	d, err := w.draft(a, r)
	if err != nil {
		w.Fatal(err)
	}
	c, err := d.Sign()
	if err != nil {
		w.Fatal(err)
	}
	return d, c
}

// A certificate is what was asked for, by every kind of authority; it is on record; and
// the same draft signed again is the same certificate, while a draft is signed once.
func TestIssue(t *testing.T) {
	eachWorld(t, func(w world) {
		for _, kind := range []string{"ecdsa-p256", "ed25519", "rsa-2048"} {
			a := w.create(NewAuthority{Name: "people-" + kind, Purpose: User}, kind)
			r := request(w)
			r.Principals, r.Valid = []string{"deploy", "ann"}, 7*time.Minute
			r.Options = Options{ForceCommand: "id", SourceAddresses: []string{"192.0.2.1", "2001:db8::/32"}, Extensions: []string{"permit-pty"}}
			d, c := w.issue(a, r)
			if _, err := d.Sign(); trust.KindOf(err) != trust.Conflict {
				w.Errorf("signed twice: %v", err)
			}
			parsed, err := c.SSH()
			if err != nil {
				w.Fatal(err)
			}
			cert := parsed.(*ssh.Certificate)
			checker := ssh.CertChecker{SupportedCriticalOptions: []string{"force-command", "source-address"}}
			if err := checker.CheckCert("deploy", cert); err != nil {
				w.Errorf("%s: %v", kind, err)
			}
			if got := fmt.Sprint(cert.CriticalOptions, cert.Extensions, cert.ValidPrincipals, cert.KeyId, cert.CertType); got != "map[force-command:id source-address:192.0.2.1,2001:db8::/32] map[permit-pty:] [deploy ann]ann1" {
				w.Errorf("%s: %s", kind, got)
			}
			if until := time.Until(time.Unix(int64(cert.ValidBefore), 0)); until < 6*time.Minute || until > 7*time.Minute {
				w.Errorf("%s: valid for %v", kind, until)
			}
			if trust.PublicKeyOf(cert.SignatureKey) != a.Public || cert.Serial == 0 || cert.Serial>>63 != 0 {
				w.Errorf("%s: serial %d, by %s", kind, cert.Serial, ssh.FingerprintSHA256(cert.SignatureKey))
			}

			var again *Draft
			var listed []Issued
			w.must(func(tx *store.Tx) (err error) {
				if _, again, err = w.Certificate(tx, cert.Serial); err != nil {
					return err
				}
				listed, err = w.Certificates(tx, CertificateFilter{Limit: 1})
				return err
			})
			second, err := again.Sign()
			if err != nil || second != c {
				w.Errorf("%s: signed again it is another certificate (%v)", kind, err)
			}
			if len(listed) != 1 || listed[0].Serial != cert.Serial || listed[0].Why != r.Why || listed[0].Person != "user:1" || listed[0].Revoked != "" {
				w.Errorf("%s: listed %+v", kind, listed)
			}
		}
	})
}

// What a certificate may not be is refused, and leaves nothing on record.
func TestDraftRefused(t *testing.T) {
	eachWorld(t, func(w world) {
		profile := profileOf(User)
		profile.KeyTypes, profile.CriticalOptions, profile.MinRSA = []string{"ssh-ed25519", "ssh-rsa"}, []string{"source-address", "verify-required"}, 3072
		a := w.create(NewAuthority{Name: "people", Purpose: User, Profile: &profile}, "ed25519")
		for name, change := range map[string]func(*Request){
			"nobody decided":       func(r *Request) { r.Why = "" },
			"no principals":        func(r *Request) { r.Principals = nil },
			"an empty principal":   func(r *Request) { r.Principals = []string{"deploy", ""} },
			"two in one":           func(r *Request) { r.Principals = []string{"deploy,root"} },
			"a space":              func(r *Request) { r.Principals = []string{"deploy root"} },
			"a line break":         func(r *Request) { r.Principals = []string{"deploy\nroot"} },
			"a pattern":            func(r *Request) { r.Principals = []string{"*"} },
			"not ASCII":            func(r *Request) { r.Principals = []string{"dеploy"} },
			"too many":             func(r *Request) { r.Principals = strings.Split(strings.Repeat("x ", 33), " ")[:33] },
			"no key id":            func(r *Request) { r.KeyID = "" },
			"too long":             func(r *Request) { r.Valid = 25 * time.Hour },
			"a moment":             func(r *Request) { r.Valid = time.Millisecond },
			"negative":             func(r *Request) { r.Valid = -time.Hour },
			"an ended credential":  func(r *Request) { r.Until = time.Now().Add(-time.Second) },
			"a type of key":        func(r *Request) { r.Key = newKey(w, "ecdsa-p256").Public() },
			"a weak key":           func(r *Request) { r.Key = newKey(w, "rsa-2048").Public() },
			"a certificate":        func(r *Request) { _, r.Key = w.issue(a, request(w)) },
			"a limit not allowed":  func(r *Request) { r.Options.ForceCommand = "id" },
			"an address misspelt":  func(r *Request) { r.Options.SourceAddresses = []string{"192.0.2.1/24"} },
			"two addresses in one": func(r *Request) { r.Options.SourceAddresses = []string{"192.0.2.1,0.0.0.0/0"} },
			"an extension":         func(r *Request) { r.Options.Extensions = []string{"permit-X11-forwarding"} },
			"no security key":      func(r *Request) { r.Options.VerifyRequired = true },
			"no touch":             func(r *Request) { r.Options.Extensions = []string{"no-touch-required"} },
		} {
			r := request(w)
			change(&r)
			var before, after []Issued
			w.must(func(tx *store.Tx) (err error) {
				before, err = w.Certificates(tx, CertificateFilter{Limit: 100})
				return err
			})
			if _, err := w.draft(a, r); trust.KindOf(err) != trust.Invalid && trust.KindOf(err) != trust.Denied {
				w.Errorf("%s: %v", name, err)
			}
			w.must(func(tx *store.Tx) (err error) {
				after, err = w.Certificates(tx, CertificateFilter{Limit: 100})
				return err
			})
			if len(before) != len(after) {
				w.Errorf("%s: refused, and on record", name)
			}
		}
		r := request(w)
		r.Until = time.Now().Add(90 * time.Second)
		if d, err := w.draft(a, r); err != nil || d.ValidBefore.After(r.Until) {
			w.Errorf("the certificate of a credential that ends in 90 s: %v", err)
		}
	})
}

// A draft whose transaction fails leaves nothing that could be signed for.
func TestDraftRolledBack(t *testing.T) {
	eachWorld(t, func(w world) {
		a := w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		failed := errors.New("the end")
		err := w.update(func(tx *store.Tx) error {
			if _, err := w.Draft(tx, a, request(w)); err != nil {
				return err
			}
			return failed
		})
		if !errors.Is(err, failed) {
			w.Fatal(err)
		}
		w.must(func(tx *store.Tx) error {
			list, err := w.Certificates(tx, CertificateFilter{Limit: 10})
			if len(list) != 0 {
				w.Errorf("on record: %v", list)
			}
			return err
		})
	})
}

// Each way to revoke is seen by ssh-keygen in the list, and in the listing, and takes
// nothing else with it; the list is another version then, and only then.
func TestRevoke(t *testing.T) {
	keygen := need.Program(t, "ssh-keygen", "openssh-client")
	eachWorld(t, func(w world) {
		dir := w.TempDir()
		list := filepath.Join(dir, "krl")
		var version ListVersion
		fetch := func() {
			w.must(func(tx *store.Tx) error {
				krl, err := w.KRL(tx)
				if err != nil {
					return err
				}
				version, err = w.ListVersion(tx)
				if err != nil || krl.Version != version.Number {
					w.Errorf("list %d is of version %d", krl.Version, version.Number)
				}
				text, err := krl.Marshal()
				if err != nil {
					return err
				}
				return os.WriteFile(list, text, 0o600)
			})
		}
		revoked := func(c trust.PublicKey) bool {
			path := filepath.Join(dir, "cert.pub")
			if err := os.WriteFile(path, []byte(c.String()+"\n"), 0o600); err != nil {
				w.Fatal(err)
			}
			out, err := exec.Command(keygen, "-Q", "-f", list, path).CombinedOutput()
			if err != nil && !strings.Contains(string(out), "REVOKED") {
				w.Fatalf("%v: %s", err, out)
			}
			return err != nil
		}
		for name, revoke := range map[string]func(*store.Tx, Authority, *Draft) error{
			"serial": func(tx *store.Tx, _ Authority, d *Draft) error { return w.RevokeSerial(tx, d.Serial, "lost") },
			"key-id": func(tx *store.Tx, _ Authority, d *Draft) error {
				_, err := w.RevokeKeyID(tx, d.KeyID, "lost")
				return err
			},
			"person": func(tx *store.Tx, _ Authority, d *Draft) error {
				_, err := w.RevokePerson(tx, d.Person, "lost")
				return err
			},
			"of-key": func(tx *store.Tx, _ Authority, d *Draft) error {
				_, err := w.RevokeFor(tx, d.Key, "lost")
				return err
			},
			"asked-with": func(tx *store.Tx, _ Authority, d *Draft) error {
				n, err := w.RevokeAskedWith(tx, "token:asked-with", "lost")
				if again, err := w.RevokeAskedWith(tx, "token:asked-with", "lost"); again != 0 || err != nil {
					w.Errorf("revoked %d, and again %d, %v", n, again, err)
				}
				return err
			},
			"let-by": func(tx *store.Tx, _ Authority, d *Draft) error {
				if n, err := w.RevokeLetBy(tx, "nothing", "lost"); n != 0 || err != nil {
					w.Errorf("of an application that let nobody, revoked %d, %v", n, err)
				}
				list, err := w.Certificates(tx, CertificateFilter{Application: "web-let-by", Limit: 10})
				if err != nil || len(list) != 1 || list[0].Serial != d.Serial {
					w.Errorf("listed %+v, %v", list, err)
				}
				_, err = w.RevokeLetBy(tx, "db-let-by", "lost")
				return err
			},
			"key": func(tx *store.Tx, _ Authority, d *Draft) error { return w.RevokeKey(tx, d.Key, "lost") },
			"ca":  func(tx *store.Tx, a Authority, _ *Draft) error { _, err := w.Remove(tx, a.ID, "lost"); return err },
		} {
			a := w.create(NewAuthority{Name: "ca-" + name, Purpose: User}, "ecdsa-p256")
			b := w.create(NewAuthority{Name: "other-" + name, Purpose: User}, "ecdsa-p256")
			mine := request(w)
			mine.KeyID, mine.Person, mine.AskedWith = "ann-"+name, "user:"+name, "token:"+name
			mine.Applications = []string{"web-" + name, "db-" + name, "web-" + name}
			theirs := request(w)
			theirs.KeyID, theirs.Person = "bob-"+name, "user:bob"
			d, c := w.issue(a, mine)
			_, other := w.issue(b, theirs)
			fetch()
			before := version
			if revoked(c) || revoked(other) {
				w.Errorf("%s: revoked before it is", name)
			}
			w.must(func(tx *store.Tx) error { return revoke(tx, a, d) })
			fetch()
			if !revoked(c) || revoked(other) {
				w.Errorf("%s: the certificate is revoked: %v; that of another: %v", name, revoked(c), revoked(other))
			}
			if version.Number != before.Number+1 {
				w.Errorf("%s: version %d follows %d", name, version.Number, before.Number)
			}
			w.must(func(tx *store.Tx) error {
				i, draft, err := w.Certificate(tx, d.Serial)
				if err == nil && (!strings.Contains(i.Revoked, "lost") || draft != nil) {
					w.Errorf("%s: listed as revoked: %q, and signed again: %v", name, i.Revoked, draft != nil)
				}
				return err
			})
			if name == "key-id" || name == "key" || name == "ca" {
				if _, err := w.draft(a, mine); err == nil {
					w.Errorf("%s: another certificate is made that is revoked already", name)
				}
			}
			if name != "ca" && name != "key-id" {
				w.must(func(tx *store.Tx) error { return revoke(tx, a, d) })
				fetch()
				if version.Number != before.Number+1 {
					w.Errorf("%s: revoked again, the list is another", name)
				}
			}
		}
		w.must(func(tx *store.Tx) error {
			if err := w.RevokeSerial(tx, 4711, ""); trust.KindOf(err) != trust.NotFound {
				w.Errorf("a serial number that was never given: %v", err)
			}
			if _, err := w.RevokeKeyID(tx, "nobody", ""); trust.KindOf(err) != trust.NotFound {
				w.Errorf("a key id that was never given: %v", err)
			}
			return nil
		})
	})
}

// A key id that was revoked with the last certificate of it is one to sign for again a day
// after that has ended, and who is refused until then is told so.
func TestRevokedKeyIDEnds(t *testing.T) {
	eachWorld(t, func(w world) {
		a := w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		r := request(w)
		d, _ := w.issue(a, r)
		w.must(func(tx *store.Tx) error {
			_, err := w.RevokeKeyID(tx, r.KeyID, "lost")
			return err
		})
		var e *trust.Error
		_, err := w.draft(a, r)
		if until := d.ValidBefore.Add(24 * time.Hour).Format(time.RFC3339); !errors.As(err, &e) || !strings.Contains(e.Hint, "from "+until) || !strings.Contains(e.Hint, "cert revoke --user ID") {
			w.Errorf("refused by %v: %+v", err, e)
		}
		var before, after ListVersion
		w.must(func(tx *store.Tx) error {
			if before, err = w.ListVersion(tx); err != nil {
				return err
			}
			_, err := tx.Exec(`UPDATE revocations SET until = 1 WHERE tenant = $1`, tx.Tenant())
			return err
		})
		if _, err := w.draft(a, r); err != nil {
			w.Errorf("when the revocation has ended: %v", err)
		}
		w.must(func(tx *store.Tx) error {
			after, err = w.ListVersion(tx)
			return err
		})
		if after.Number != before.Number+1 {
			w.Errorf("the list of version %d is followed by %d", before.Number, after.Number)
		}
	})
}

// What was signed under a profile that allowed more is trusted until it ends.
func TestRotateAfterLoweredProfile(t *testing.T) {
	eachWorld(t, func(w world) {
		for purpose, long := range map[Purpose]time.Duration{User: 720 * time.Hour, Host: 2000 * time.Hour} {
			name := string(purpose)
			a := w.create(NewAuthority{Name: name, Purpose: purpose}, "ed25519")
			set := func(valid time.Duration) {
				w.must(func(tx *store.Tx) error {
					return w.SetProfile(tx, name, ProfileChange{Valid: &valid, MaxValid: &valid})
				})
			}
			set(long)
			w.must(func(tx *store.Tx) (err error) { a, err = w.Find(tx, name); return err })
			r := request(w)
			r.Options.Extensions = nil
			d, _ := w.issue(a, r)
			set(time.Hour)
			w.must(func(tx *store.Tx) error {
				if _, err := w.Rotate(tx, name, time.Hour, newKey(w, "ed25519")); err != nil {
					return err
				}
				old, err := w.Find(tx, name)
				if err == nil && (d.ValidBefore.Before(time.Now().Add(long-time.Minute)) || old.TrustedUntil.Before(d.ValidBefore)) {
					w.Errorf("%s: trusted until %s, and what it signed is valid until %s", name, old.TrustedUntil, d.ValidBefore)
				}
				return err
			})
		}
	})
}

// A rotation has hosts trust both keys before and after the one that signs changes, and
// at every time just one signs.
func TestRotate(t *testing.T) {
	eachWorld(t, func(w world) {
		old := w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		key := newKey(w, "ecdsa-p256")
		rotate := func(overlap time.Duration) (a Authority, err error) {
			err = w.update(func(tx *store.Tx) error {
				a, err = w.Rotate(tx, "people", overlap, key)
				return err
			})
			return a, err
		}
		next, err := rotate(time.Hour)
		if err != nil {
			w.Fatal(err)
		}
		if _, err := rotate(time.Hour); trust.KindOf(err) != trust.Conflict {
			w.Errorf("rotated while it is: %v", err)
		}
		var all []Authority
		w.must(func(tx *store.Tx) (err error) {
			if found, err := w.Find(tx, "people"); err != nil || found.ID != old.ID {
				w.Errorf("what signs is %s, %v", found.ID, err)
			}
			all, err = w.Named(tx, "people")
			return err
		})
		if len(all) != 2 || all[0].ID != old.ID || all[1].ID != next.ID {
			w.Fatalf("%v are of that name", all)
		}
		states := func(after time.Duration) string {
			at := time.Now().Add(after)
			return string(all[0].State(at) + " " + all[1].State(at))
		}
		for after, want := range map[time.Duration]string{
			0: "signing next", 59 * time.Minute: "signing next", 61 * time.Minute: "outgoing signing",
			24 * time.Hour: "outgoing signing", 25*time.Hour + time.Minute: "ended signing",
		} {
			if got := states(after); got != want {
				w.Errorf("after %v: %s, want %s", after, got, want)
			}
		}
		if _, err := w.draft(all[1], request(w)); trust.KindOf(err) != trust.Conflict {
			w.Errorf("what hosts may not trust yet signs: %v", err)
		}
		again := w.create(NewAuthority{Name: "web", Purpose: User, Application: "a"}, "ed25519")
		w.must(func(tx *store.Tx) error {
			if _, err := w.Create(tx, NewAuthority{Name: "web", Purpose: User}, newKey(w, "ed25519")); trust.KindOf(err) != trust.Conflict {
				w.Errorf("two authorities of one name: %v", err)
			}
			_, err := w.Remove(tx, again.ID, "")
			return err
		})
		w.must(func(tx *store.Tx) error {
			if _, err := w.Find(tx, "web"); trust.KindOf(err) != trust.NotFound {
				w.Errorf("a removed authority is found: %v", err)
			}
			_, err := w.Create(tx, NewAuthority{Name: "web", Purpose: User}, newKey(w, "ed25519"))
			return err
		})
	})
}

// Where the key that signs is stolen, another one of its name can sign at once; and where
// the next one is taken back, the present one goes on.
func TestRotateAfterRemove(t *testing.T) {
	eachWorld(t, func(w world) {
		rotate := func(overlap time.Duration) (a Authority, err error) {
			key := newKey(w, "ed25519")
			err = w.update(func(tx *store.Tx) error {
				a, err = w.Rotate(tx, "people", overlap, key)
				return err
			})
			return a, err
		}
		must := func(overlap time.Duration) Authority {
			a, err := rotate(overlap)
			if err != nil {
				w.Fatal(err)
			}
			return a
		}
		remove := func(a Authority) {
			w.must(func(tx *store.Tx) error { _, err := w.Remove(tx, a.ID, "stolen"); return err })
		}
		signs := func(a Authority) {
			w.Helper()
			if _, err := w.draft(a, request(w)); err != nil {
				w.Errorf("%s does not sign: %v", a.Public.Fingerprint(), err)
			}
		}
		first := w.create(NewAuthority{Name: "people", Purpose: User}, "ed25519")
		next := must(time.Hour)
		remove(next)
		w.must(func(tx *store.Tx) (err error) { first, err = w.Find(tx, "people"); return err })
		if !first.SignsUntil.IsZero() || !first.TrustedUntil.IsZero() {
			w.Errorf("without the next one it ends nevertheless: %+v", first)
		}

		next = must(3 * time.Hour)
		remove(first)
		if _, err := w.draft(next, request(w)); trust.KindOf(err) != trust.Conflict {
			w.Errorf("the next one signs by itself: %v", err)
		}
		if _, err := rotate(4 * time.Hour); trust.KindOf(err) != trust.Conflict {
			w.Errorf("an overlap that makes it later: %v", err)
		}
		now := must(0)
		if now.ID != next.ID {
			w.Errorf("another key than the next one: %+v", now)
		}
		signs(now)

		outgoing := now
		now = must(0)
		remove(now)
		signs(must(0))
		w.must(func(tx *store.Tx) error {
			a, err := w.Find(tx, outgoing.ID)
			if state := a.State(tx.Now()); state != Outgoing {
				w.Errorf("what signs no more is %s", state)
			}
			return err
		})
	})
}
