package control

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"keyturn/internal/access"
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
	if f.Application != "" {
		if err := require(actor, identity.CertificatesRead, identity.AppsRead); err != nil {
			return nil, "", err
		}
	}
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		wanted := authority.CertificateFilter{Valid: f.Valid, After: after, Limit: limit}
		if f.Application != "" {
			if wanted.Application, err = letBy(tx, f.Application); err != nil {
				return err
			}
		}
		if f.User != "" {
			if wanted.Person, err = p.person(tx, f.User); err != nil {
				return err
			}
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

// person returns the id of a user, by that or a name: also of one who is gone and has
// certificates on record, unless the name is that of a user who is there.
func (p *Plane) person(tx *store.Tx, idOrName string) (string, error) {
	u, missing := p.directory.User(tx, idOrName)
	if missing == nil || trust.KindOf(missing) != trust.NotFound {
		return u.ID, missing
	}
	gone, err := p.authorities.Persons(tx, idOrName)
	switch {
	case err != nil:
		return "", err
	case len(gone) == 0:
		return "", missing
	case len(gone) > 1:
		return "", trust.Errorf(trust.Conflict, "several users who are gone were called %q: %s", clip(idOrName), strings.Join(gone, ", ")).WithField("user").
			WithHint("say which, by id")
	}
	return gone[0], nil
}

// A CertificateFilter says which certificates are wanted.
type CertificateFilter struct {
	User  string // id or name, also of one who is gone; "" for everybody
	Valid bool   // only those that have not ended
	// Application is the id or name of one because of which they were allowed, or "".
	Application string
}

// letBy returns the id of the application of an id or a name: of one that was removed, by
// its id.
func letBy(tx *store.Tx, idOrName string) (string, error) {
	a, err := access.FindApplication(tx, idOrName)
	if trust.KindOf(err) == trust.NotFound && uuid.Validate(idOrName) == nil {
		return idOrName, nil
	}
	return a.ID, err
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

// A Revocation says what is to be revoked, by one of its first five.
type Revocation struct {
	Serial    uint64
	KeyID     string
	User      string // id or name, also of one who is gone: all that have not ended
	PublicKey trust.PublicKey
	// Application is the id or name of one: all that were allowed because of it and have not
	// ended.
	Application string
	Reason      string
}

// RevokeCertificates revokes, and returns how many certificates are by that, or -1 where
// a key is, of which nobody counts those.
func (p *Plane) RevokeCertificates(ctx context.Context, actor identity.Actor, r Revocation) (count int, err error) {
	named := 0
	for _, given := range []bool{r.Serial != 0, r.KeyID != "", r.User != "", !r.PublicKey.IsZero(), r.Application != ""} {
		if given {
			named++
		}
	}
	if err := require(actor, identity.CertificatesWrite); err != nil {
		return 0, err
	}
	if named != 1 {
		return 0, trust.Errorf(trust.Invalid, "say one of: which serial number, key id, user, public key or application is to be revoked")
	}
	if r.Application != "" {
		if err := require(actor, identity.AppsRead); err != nil {
			return 0, err
		}
	}
	err = p.update(ctx, actor, needs(identity.CertificatesWrite), "certificate.revoke", "certificate:"+r.subject(), func(tx *store.Tx) (err error) {
		switch {
		case r.Serial != 0:
			count, err = 1, p.authorities.RevokeSerial(tx, r.Serial, r.Reason)
		case r.KeyID != "":
			count, err = p.authorities.RevokeKeyID(tx, r.KeyID, r.Reason)
		case r.User != "":
			id, err := p.person(tx, r.User)
			if err != nil {
				return err
			}
			tx.Note("id", id)
			count, err = p.authorities.RevokePerson(tx, id, r.Reason)
			return err
		case r.Application != "":
			id, err := letBy(tx, r.Application)
			if err != nil {
				return err
			}
			tx.Note("application", id)
			count, err = p.authorities.RevokeLetBy(tx, id, r.Reason)
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
	case r.Application != "":
		return subject(r.Application)
	}
	return string(r.PublicKey.Fingerprint())
}

// KRL returns the key revocation list, and the tag under which the same bytes are known.
// Where that is among the known ones, or these are "*", there is no list.
func (p *Plane) KRL(ctx context.Context, actor identity.Actor, known []string) (list []byte, tag string, err error) {
	var krl *trust.KRL
	err = p.view(ctx, actor, identity.CertificatesRead, func(tx *store.Tx) error {
		version, err := p.authorities.ListVersion(tx)
		if err != nil {
			return err
		}
		// The time is part of it for databases that were put back to an earlier state.
		tag = strconv.FormatUint(version.Number, 10) + "-" + strconv.FormatInt(store.Micros(version.Changed), 36)
		if krl = nil; slices.Contains(known, tag) || slices.Contains(known, "*") {
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
