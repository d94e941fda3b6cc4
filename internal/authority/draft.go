package authority

import (
	"crypto/rand"
	"encoding/binary"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Request asks for a certificate.
type Request struct {
	Key        trust.PublicKey // to be certified
	Principals []string
	Valid      time.Duration // 0 for what the profile says
	Until      time.Time     // when it ends at the latest, or zero
	Options    Options
	// KeyID is what sshd logs of it, and Person the id of whom it is for, or "".
	KeyID, Person string
	// AskedWith is the credential that asks where it may end before its owner does, and
	// what was asked for with it is to end too: "token:" or "machine:" and an id, or "".
	AskedWith string
	// Why says who decided that it may be: the policy that lets that person in as
	// those principals.
	Why string
	// Applications are the ids of those whose policies decided.
	Applications []string
}

// Options are what a certificate is limited to.
type Options struct {
	ForceCommand    string
	SourceAddresses []string
	VerifyRequired  bool
	Extensions      []string // nil for those of the profile
}

// An Issued certificate is one on record. Whether it was signed is not known: it may
// be at any time.
type Issued struct {
	trust.Certificate
	Authority string // id
	Person    string // id, or ""
	Why       string
	Created   time.Time
	// Applications are the ids of those that let it, each once; none where no policy was
	// asked.
	Applications []string
	// Revoked says why it is, or is "".
	Revoked string

	unsigned []byte
}

// A Draft is a certificate that may be signed, once its transaction is committed.
type Draft struct {
	Issued
	key   keyring.Sealed
	spent atomic.Bool
}

// Draft writes down a certificate of a, in the transaction whose event tells of it. It
// refuses what the profile does not allow, and what is revoked from the beginning.
func (s *Authorities) Draft(tx *store.Tx, a Authority, r Request) (*Draft, error) {
	if state := a.State(tx.Now()); state != Signing {
		return nil, trust.Errorf(trust.Conflict, "authority %q does not sign: it is %s", a.Name, state).WithHint("keyturn ca show %s", a.Name)
	}
	if r.Why == "" {
		return nil, trust.Errorf(trust.Denied, "nobody decided that %q may have this certificate", r.KeyID)
	}
	if r.KeyID == "" || len(r.KeyID) > 255 {
		return nil, trust.Errorf(trust.Invalid, "key id %.80q is not 1 to 255 bytes", r.KeyID).WithField("key_id")
	}
	if err := a.Profile.checkKey(r.Key); err != nil {
		return nil, err
	}
	if err := a.Profile.checkPrincipals(r.Principals); err != nil {
		return nil, err
	}
	after, before, err := a.Profile.valid(tx.Now(), r.Valid, r.Until)
	if err != nil {
		return nil, err
	}
	if r.Options.VerifyRequired && !strings.HasPrefix(r.Key.Type(), "sk-") {
		return nil, trust.Errorf(trust.Invalid, "verify-required is for security keys: sshd lets in by a key of type %s without it", r.Key.Type()).WithField("verify_required")
	}
	critical, granted, err := a.Profile.options(r.Options)
	if err != nil {
		return nil, err
	}
	var nonce [32]byte
	var random [8]byte
	rand.Read(nonce[:])
	rand.Read(random[:])
	d := &Draft{Issued: Issued{Authority: a.ID, Person: r.Person, Why: r.Why, Created: tx.Now(), Applications: slices.Compact(slices.Sorted(slices.Values(r.Applications))), Certificate: trust.Certificate{
		Nonce: string(nonce[:]), Key: r.Key, Serial: max(1, binary.BigEndian.Uint64(random[:])>>1), Type: trust.UserCertificate, KeyID: r.KeyID,
		Principals: r.Principals, ValidAfter: after, ValidBefore: before, CriticalOptions: critical, Extensions: granted, CA: a.Public,
	}}}
	if a.Purpose == Host {
		d.Type = trust.HostCertificate
	}
	if d.key, err = s.signs(tx, a, d.Issued); err != nil {
		return nil, err
	}
	if d.unsigned, err = d.Unsigned(); err != nil {
		return nil, err
	}
	tx.Note("serial", strconv.FormatUint(d.Serial, 10))
	tx.Note("authority", a.ID)
	tx.Note("public_key", string(r.Key.Fingerprint()))
	tx.Note("valid_before", before.Format(time.RFC3339))
	for _, p := range r.Principals {
		tx.Note("principal", p)
	}
	return d, insertCertificate(tx, d.Issued, r)
}

// Sign has the authority sign d, after the transaction that drafted it was committed.
// A draft is spent by it.
func (d *Draft) Sign() (trust.PublicKey, error) {
	if d.spent.Swap(true) {
		return trust.PublicKey{}, trust.Errorf(trust.Conflict, "certificate %d was signed already", d.Serial)
	}
	signature, err := d.key.SignAgain(d.unsigned)
	if err != nil {
		return trust.PublicKey{}, err
	}
	return trust.SignedCertificate(d.unsigned, signature), nil
}

// Certificate returns the certificate of a serial number, as a draft: one that a crash
// has kept from being signed, or that was lost on its way, is signed as it would have
// been. One that is revoked or ended, or whose authority is gone, is signed no more: of
// it there is no draft.
func (s *Authorities) Certificate(tx *store.Tx, serial uint64) (Issued, *Draft, error) {
	i, err := selectCertificate(tx, serial)
	if err != nil {
		return Issued{}, nil, err
	}
	if i.Revoked, err = revokedAs(tx, i); err != nil {
		return Issued{}, nil, err
	}
	a, err := selectAuthority(tx, i.Authority)
	if err != nil {
		return Issued{}, nil, err
	}
	if i.Revoked != "" || !tx.Now().Before(i.ValidBefore) || !a.Removed.IsZero() {
		return i, nil, nil
	}
	key, err := s.keyring.Sealed(tx, trust.KeyID(a.ID))
	return i, &Draft{Issued: i, key: key}, err
}

// Certificates returns those on record, newest first.
func (s *Authorities) Certificates(tx *store.Tx, f CertificateFilter) ([]Issued, error) {
	list, err := selectCertificates(tx, f)
	if err != nil {
		return nil, err
	}
	for i := range list {
		if list[i].Revoked, err = revokedAs(tx, list[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// A CertificateFilter says which certificates are wanted.
type CertificateFilter struct {
	Person string // id; "" for everybody
	Valid  bool   // only those that have not ended
	// Application is the id of one that let them, or "".
	Application string
	// After is the last of the page before, or zero.
	After CertificateCursor
	Limit int
}

// A CertificateCursor is where a page ended.
type CertificateCursor struct {
	Created time.Time
	Serial  uint64
}
