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
	list, err := selectOfPerson(tx, id)
	if err != nil {
		return 0, err
	}
	return len(list), revokeEach(tx, list, reason)
}

// RevokeFor revokes every certificate for a public key that has not ended, and not the
// key itself.
func (s *Authorities) RevokeFor(tx *store.Tx, key trust.PublicKey, reason string) (int, error) {
	list, err := selectOfKey(tx, key)
	if err != nil {
		return 0, err
	}
	return len(list), revokeEach(tx, list, reason)
}

func revokeEach(tx *store.Tx, list []Issued, reason string) error {
	for _, i := range list {
		if err := revoke(tx, revocation{
			kind: bySerial, authority: i.Authority, value: strconv.FormatUint(i.Serial, 10), reason: reason, until: i.ValidBefore.Add(graceOfClocks),
		}); err != nil {
			return err
		}
	}
	return nil
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
	if err := deleteEnded(tx); err != nil {
		return err
	}
	tx.Note("revoked", r.kind+" "+r.value)
	return raiseVersion(tx)
}

// revokedAs says by what a certificate is revoked, or nothing.
func revokedAs(tx *store.Tx, i Issued) (string, error) {
	reason, kind, err := selectRevocation(tx, i)
	if err != nil || kind == "" {
		return "", err
	}
	what := map[string]string{
		bySerial:    fmt.Sprintf("certificate %d", i.Serial),
		byKeyID:     fmt.Sprintf("key id %q", i.KeyID),
		byKey:       "key " + string(i.Key.Fingerprint()),
		byAuthority: "its authority",
	}[kind]
	if reason == "" {
		return what + " is revoked", nil
	}
	return what + " is revoked: " + reason, nil
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
