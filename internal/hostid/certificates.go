package hostid

import (
	"keyturn/internal/authority"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Host certificates are made when somebody asks for those of a host, and not for every
// host when a seed is rotated: a rotation costs the same however many hosts there are,
// and a connection never waits for one. Clients that trust the authority take a new seed's
// keys without having learned them. What was signed for a seed ends by itself; for one that
// was compromised or destroyed it is revoked by its key id, which is one line of the
// revocation list for all hosts.

// A Certified identity is one with its certificate, which is to be signed after the
// transaction that found or made it: it is the same one each time.
type Certified struct {
	Identity
	Certificate *authority.Draft
}

// certificateID is the key id of every certificate for keys of a seed.
func certificateID(seed trust.SeedID) string { return "gateway seed " + string(seed) }

// Certify returns those of list that are not revoked with their certificates of ca, which
// are made where there is none, or where half of its time is over.
func Certify(tx *store.Tx, s *authority.Authorities, ca authority.Authority, list []Identity) ([]Certified, error) {
	made, missing, err := Certificates(tx, s, ca, list)
	if err != nil {
		return nil, err
	}
	for _, i := range missing {
		draft, err := s.Draft(tx, ca, authority.Request{
			Key: i.Key, Principals: []string{i.Name}, KeyID: certificateID(i.Seed), Why: "the gateway is known by this key, of seed " + string(i.Seed),
		})
		if err != nil {
			return nil, err
		}
		if err := setCertificate(tx, i, ca, draft.Serial); err != nil {
			return nil, err
		}
		made = append(made, Certified{i, draft})
	}
	return made, nil
}

// Certificates returns those of list that are not revoked and have a certificate of ca
// that is good for more than half of its time yet, and those that have none.
func Certificates(tx *store.Tx, s *authority.Authorities, ca authority.Authority, list []Identity) (there []Certified, missing []Identity, err error) {
	for _, i := range list {
		if i.Revoked {
			continue
		}
		draft, err := certificateOf(tx, s, ca, i)
		switch {
		case err != nil:
			return nil, nil, err
		case draft == nil:
			missing = append(missing, i)
		default:
			there = append(there, Certified{i, draft})
		}
	}
	return there, missing, nil
}

// certificateOf returns nil where there is no certificate, or it is to be renewed.
func certificateOf(tx *store.Tx, s *authority.Authorities, ca authority.Authority, i Identity) (*authority.Draft, error) {
	serial, err := certificateSerial(tx, i, ca)
	if err != nil || serial == 0 {
		return nil, err
	}
	_, draft, err := s.Certificate(tx, serial)
	if err != nil || draft == nil {
		return nil, err
	}
	if left := draft.ValidBefore.Sub(tx.Now()); left < draft.ValidBefore.Sub(draft.Created)/2 {
		return nil, nil
	}
	return draft, nil
}

// revokeCertificates revokes whatever was signed for keys of a seed and has not ended.
func revokeCertificates(tx *store.Tx, s *authority.Authorities, seed trust.SeedID, why string) error {
	_, err := s.RevokeKeyID(tx, certificateID(seed), why)
	if trust.KindOf(err) == trust.NotFound {
		return nil // nobody asked for one
	}
	return err
}

// AuthorityLine returns the line by which known_hosts trusts an authority for the keys of
// a host at a tenant's gateway, or, where host is "", of every host and the gateway itself,
// and for nothing else; of one that was removed, the line by which it refuses whatever that
// signed for them. A pattern is not hashed.
func AuthorityLine(tenant trust.TenantID, host trust.HostID, ca authority.Authority, hashed bool) (string, error) {
	names := []string{"*." + Alias(tenant, Gateway(tenant)), Alias(tenant, Gateway(tenant))}
	if host != "" {
		names = []string{name(Alias(tenant, host), hashed)}
	}
	marker := trust.CertAuthorityMarker
	if !ca.Removed.IsZero() {
		marker = trust.RevokedMarker
	}
	return trust.KnownAuthorityText(marker, names, ca.Public, ca.Comment)
}
