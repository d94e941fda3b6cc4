package authority

import (
	"fmt"
	"strconv"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// What is revoked, by what.
const (
	bySerial    = "serial"
	byKeyID     = "key-id"
	byKey       = "key"
	byAuthority = "authority"
)

type revocation struct {
	kind      string
	authority string // id
	value     string
	public    trust.PublicKey
	reason    string
	until     time.Time // zero for ever
}

// graceOfClocks is for how long a certificate that has ended is listed as revoked: for
// hosts whose clocks are behind.
const graceOfClocks = 24 * time.Hour

// RevokeSerial revokes one certificate, which may be revoked already.
func (s *Authorities) RevokeSerial(tx *store.Tx, serial uint64, reason string) error {
	i, err := selectCertificate(tx, serial)
	if err != nil {
		return err
	}
	return revoke(tx, revocation{
		kind: bySerial, authority: i.Authority, value: strconv.FormatUint(serial, 10), reason: reason, until: i.ValidBefore.Add(graceOfClocks),
	})
}

// RevokeKeyID revokes the certificates of a key id that there are. Others of the same
// key id are not made until all those have ended.
func (s *Authorities) RevokeKeyID(tx *store.Tx, id, reason string) (int, error) {
	ends, err := selectEnds(tx, id)
	if err != nil {
		return 0, err
	}
	if len(ends) == 0 {
		return 0, trust.Errorf(trust.NotFound, "there is no certificate of key id %.80q that has not ended", id).WithHint("keyturn cert list")
	}
	count := 0
	for _, e := range ends {
		if err := revoke(tx, revocation{kind: byKeyID, authority: e.authority, value: id, reason: reason, until: e.last.Add(graceOfClocks)}); err != nil {
			return 0, err
		}
		count += e.count
	}
	return count, nil
}

// RevokePerson revokes every certificate of a person that has not ended. What that
// person may have afterwards is for policies to say.
func (s *Authorities) RevokePerson(tx *store.Tx, id, reason string) (int, error) {
	return revokeSerials(tx, ofPerson, id, reason)
}

// RevokeLetBy revokes every certificate that has not ended and that an application let,
// whoever signed it.
func (s *Authorities) RevokeLetBy(tx *store.Tx, application, reason string) (int, error) {
	return revokeSerials(tx, letBy, application, reason)
}

// RevokeFor revokes every certificate for a public key that has not ended, and not the
// key itself.
func (s *Authorities) RevokeFor(tx *store.Tx, key trust.PublicKey, reason string) (int, error) {
	return revokeSerials(tx, ofKey, string(key.Fingerprint()), reason)
}

// RevokeAskedWith revokes every certificate that has not ended and was asked for with a
// credential, as Request.AskedWith has it.
func (s *Authorities) RevokeAskedWith(tx *store.Tx, credential, reason string) (int, error) {
	return revokeSerials(tx, askedWith, credential, reason)
}

// revokeSerials revokes certificates of which a condition on a value is true, and returns
// how many were not revoked before.
func revokeSerials(tx *store.Tx, which, value, reason string) (int, error) {
	added, err := insertSerials(tx, which, value, reason)
	if err != nil || added == 0 {
		return 0, err
	}
	tx.Note("revoked", fmt.Sprintf("%d by serial number", added))
	return int(added), nextList(tx)
}

// Persons returns the ids of those who have certificates on record by an id, or by a name
// as key ids have it: those who are gone among them.
func (s *Authorities) Persons(tx *store.Tx, idOrName string) ([]string, error) {
	return selectPersons(tx, idOrName)
}

// RevokeKey revokes a public key for ever, with every certificate for it, and as a key
// that opens by itself.
func (s *Authorities) RevokeKey(tx *store.Tx, key trust.PublicKey, reason string) error {
	key = key.Plain()
	return revoke(tx, revocation{kind: byKey, value: string(key.Fingerprint()), public: key, reason: reason})
}

// revoke adds r to the list, which becomes the next version, and drops from it what has
// ended.
func revoke(tx *store.Tx, r revocation) error {
	added, err := insertRevocation(tx, r)
	if err != nil || added == 0 {
		return err
	}
	if r.kind != bySerial {
		if err := changed(tx); err != nil {
			return err
		}
	}
	tx.Note("revoked", r.kind+" "+r.value)
	return nextList(tx)
}

// nextList makes the list the next version, without what has ended.
func nextList(tx *store.Tx) error {
	if _, err := deleteEnded(tx); err != nil {
		return err
	}
	return raiseVersion(tx)
}

// dropEnded drops from the list what has ended, so that it stands in nobody's way.
func dropEnded(tx *store.Tx) error {
	dropped, err := deleteEnded(tx)
	if err != nil || dropped == 0 {
		return err
	}
	if err := changed(tx); err != nil {
		return err
	}
	return raiseVersion(tx)
}

// refusal refuses a certificate that would be revoked from the beginning, and says how to
// go on.
func refusal(i Issued, r revocation) error {
	err := trust.Errorf(trust.Denied, "%s, and so would be every certificate of it", r.of(i))
	if r.kind != byKeyID {
		return err.WithHint("keyturn krl --json")
	}
	return err.WithHint("certificates of that key id are signed again from %s on, whosever they were: \"keyturn cert revoke --user ID\" revokes those of one user, and no others", r.until.Format(time.RFC3339))
}

// revokedAs says by what a certificate is revoked, or nothing.
func revokedAs(tx *store.Tx, i Issued) (string, error) {
	r, err := selectRevocation(tx, i)
	if err != nil || r.kind == "" {
		return "", err
	}
	return r.of(i), nil
}

// of says what r revokes a certificate by, and why.
func (r revocation) of(i Issued) string {
	what := map[string]string{
		bySerial:    fmt.Sprintf("certificate %d", i.Serial),
		byKeyID:     fmt.Sprintf("key id %q", i.KeyID),
		byKey:       "key " + string(i.Key.Fingerprint()),
		byAuthority: "its authority",
	}[r.kind]
	if r.reason == "" {
		return what + " is revoked"
	}
	return what + " is revoked: " + r.reason
}

// A ListVersion is the number of a key revocation list, and when it came to be. Of one
// tenant, two lists of the same number and time are the same bytes.
type ListVersion struct {
	Number  uint64
	Changed time.Time
}

// ListVersion returns that of the list that there is now.
func (s *Authorities) ListVersion(tx *store.Tx) (ListVersion, error) { return selectVersion(tx) }

// KRL returns what is revoked.
func (s *Authorities) KRL(tx *store.Tx) (*trust.KRL, error) {
	version, err := selectVersion(tx)
	if err != nil {
		return nil, err
	}
	k := &trust.KRL{Version: version.Number, Generated: version.Changed}
	all, err := selectRevocations(tx)
	if err != nil {
		return nil, err
	}
	of := map[string]int{} // authority to index of its certificates
	for _, r := range all {
		if r.kind == byKey || r.kind == byAuthority {
			k.Keys = append(k.Keys, r.public)
			continue
		}
		at, ok := of[r.authority]
		if !ok {
			at = len(k.Certificates)
			of[r.authority] = at
			k.Certificates = append(k.Certificates, trust.RevokedCertificates{CA: r.public})
		}
		c := &k.Certificates[at]
		if r.kind == byKeyID {
			c.KeyIDs = append(c.KeyIDs, r.value)
			continue
		}
		n, err := strconv.ParseUint(r.value, 10, 64)
		if err != nil {
			return nil, err
		}
		c.Serials = append(c.Serials, trust.SerialRange{First: n, Last: n})
	}
	return k, nil
}
