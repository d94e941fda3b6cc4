package control

import (
	"context"
	"strconv"
	"strings"

	"keyturn/internal/authority"
	"keyturn/internal/identity"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// ListCertificates lists the certificates on record, newest first.
func (p *Plane) ListCertificates(ctx context.Context, actor identity.Actor, f CertificateFilter, page Page) (list []Certificate, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	after, err := certificateCursor(page.After)
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		wanted := authority.CertificateFilter{Valid: f.Valid, After: after, Limit: limit}
		if f.User != "" {
			user, err := p.directory.User(tx, f.User)
			if err != nil {
				return err
			}
			wanted.Person = user.ID
		}
		list, err = p.authorities.Certificates(tx, wanted)
		return err
	})
	if len(list) == limit {
		last := list[limit-1]
		next = strconv.FormatInt(store.Micros(last.Created), 10) + "-" + strconv.FormatUint(last.Serial, 10)
	}
	return list, next, err
}

// A CertificateFilter says which certificates are wanted.
type CertificateFilter struct {
	User  string // id or name; "" for everybody
	Valid bool   // only those that have not ended
}

func certificateCursor(after string) (c authority.CertificateCursor, err error) {
	if after == "" {
		return c, nil
	}
	at, serial, _ := strings.Cut(after, "-")
	micros, err1 := strconv.ParseInt(at, 10, 64)
	n, err2 := strconv.ParseUint(serial, 10, 63)
	if err1 != nil || err2 != nil || micros <= 0 {
		return c, trust.Errorf(trust.Invalid, "%q is not where a page ended", clip(after)).WithField("after")
	}
	return authority.CertificateCursor{Created: store.Time(micros), Serial: n}, nil
}

// ShowCertificate returns a certificate on record. One that is still worth something is
// signed as it was, or would have been: to the byte.
func (p *Plane) ShowCertificate(ctx context.Context, actor identity.Actor, serial uint64) (c Certificate, signed trust.PublicKey, err error) {
	var draft *authority.Draft
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		c, draft, err = p.authorities.Certificate(tx, serial)
		return err
	})
	if err == nil && draft != nil {
		signed, err = draft.Sign()
	}
	return c, signed, err
}

// A Revocation says what is to be revoked, by one of its first four.
type Revocation struct {
	Serial    uint64
	KeyID     string
	User      string // id or name: all that have not ended
	PublicKey trust.PublicKey
	Reason    string
}

// RevokeCertificates revokes, and returns how many certificates are by that, or -1 where
// a key is, of which nobody counts those.
func (p *Plane) RevokeCertificates(ctx context.Context, actor identity.Actor, r Revocation) (count int, err error) {
	named := 0
	for _, given := range []bool{r.Serial != 0, r.KeyID != "", r.User != "", !r.PublicKey.IsZero()} {
		if given {
			named++
		}
	}
	if err := require(actor, identity.CertificatesWrite); err != nil {
		return 0, err
	}
	if named != 1 {
		return 0, trust.Errorf(trust.Invalid, "say one of: which serial number, key id, user or public key is to be revoked")
	}
	err = p.update(ctx, actor, needs(identity.CertificatesWrite), "certificate.revoke", "certificate:"+r.subject(), func(tx *store.Tx) (err error) {
		switch {
		case r.Serial != 0:
			count, err = 1, p.authorities.RevokeSerial(tx, r.Serial, r.Reason)
		case r.KeyID != "":
			count, err = p.authorities.RevokeKeyID(tx, r.KeyID, r.Reason)
		case r.User != "":
			user, err := p.directory.User(tx, r.User)
			if err != nil {
				return err
			}
			count, err = p.authorities.RevokePerson(tx, user.ID, r.Reason)
			return err
		default:
			count, err = -1, p.authorities.RevokeKey(tx, r.PublicKey, r.Reason)
		}
		return err
	})
	return count, err
}

func (r Revocation) subject() string {
	switch {
	case r.Serial != 0:
		return strconv.FormatUint(r.Serial, 10)
	case r.KeyID != "":
		return subject(r.KeyID)
	case r.User != "":
		return subject(r.User)
	}
	return string(r.PublicKey.Fingerprint())
}

// KRL returns the key revocation list, and the tag under which the same bytes are known.
// Where that is known already there is no list.
func (p *Plane) KRL(ctx context.Context, actor identity.Actor, known string) (list []byte, tag string, err error) {
	var krl *trust.KRL
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		version, err := p.authorities.ListVersion(tx)
		if err != nil {
			return err
		}
		// The time is part of it for databases that were put back to an earlier state.
		tag = strconv.FormatUint(version.Number, 10) + "-" + strconv.FormatInt(store.Micros(version.Changed), 36)
		if krl = nil; tag == known {
			return nil
		}
		krl, err = p.authorities.KRL(tx)
		return err
	})
	if err != nil || krl == nil {
		return nil, tag, err
	}
	list, err = krl.Marshal()
	return list, tag, err
}
