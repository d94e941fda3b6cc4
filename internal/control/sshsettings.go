package control

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"math/big"
	"slices"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/hostid"
	"keyturn/internal/identity"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// SSHSettings are what the gateway records sessions for, and derives host keys from.
type SSHSettings struct {
	// AuditKey is the X25519 public key that recordings of sessions are encrypted to, in
	// base64; "" for none, and then what is typed is not recorded.
	AuditKey string
	// Newest is the seed that was asked for last, whether it is presented by now or not.
	Newest               trust.SeedID
	CreatedAt, UpdatedAt time.Time
}

// ShowSSHSettings returns the settings of SSH.
func (p *Plane) ShowSSHSettings(ctx context.Context, actor identity.Actor) (s SSHSettings, err error) {
	if _, err := p.seeds(ctx, actor); err != nil { // makes the first
		return s, err
	}
	err = p.view(ctx, actor, identity.ZeroTrustRead, func(tx *store.Tx) error {
		s, err = p.sshSettings(tx)
		return err
	})
	return s, err
}

// SetAuditKey says to which public key recordings are encrypted from now on, in base64;
// "" for none.
func (p *Plane) SetAuditKey(ctx context.Context, actor identity.Actor, key string) (s SSHSettings, err error) {
	if err := require(actor, identity.ZeroTrustWrite); err != nil {
		return s, err
	}
	if err := checkAuditKey(key); err != nil {
		return s, err
	}
	id := trust.SeedID(uuid.NewString())
	err = p.update(ctx, actor, needs(identity.ZeroTrustWrite), "setting.set", "setting:"+auditKey, func(tx *store.Tx) error {
		if _, err := p.firstSeed(tx, id); err != nil {
			return err
		}
		if _, err := p.set(tx, actor, auditKey, key); err != nil {
			return err
		}
		s, err = p.sshSettings(tx)
		return err
	})
	return s, err
}

// sshSettings reads the settings of a tenant that has a seed.
func (p *Plane) sshSettings(tx *store.Tx) (s SSHSettings, err error) {
	seeds, err := hostid.Load(tx)
	if err != nil {
		return s, err
	}
	st := seeds.Standing()
	s.Newest = cmp.Or(st.Queued, st.Comes())
	t, err := p.directory.Tenant(tx)
	if err != nil {
		return s, err
	}
	s.CreatedAt, s.UpdatedAt = t.Created, t.Created
	for _, x := range seeds {
		if s.UpdatedAt.Before(x.Created) {
			s.UpdatedAt = x.Created
		}
	}
	key, changed, err := setting(tx, auditKey)
	if s.AuditKey = key; s.UpdatedAt.Before(changed) {
		s.UpdatedAt = changed
	}
	return s, err
}

// checkAuditKey refuses what is no X25519 public key in base64 that something can be
// encrypted to: points of low order, for which everybody knows the secret that is agreed
// on (RFC 7748, section 6.1), and encodings that another implementation reads as another
// one, so that whoever holds the private half could not decrypt (HPKE binds the bytes).
func checkAuditKey(key string) error {
	if key == "" {
		return nil
	}
	raw, err := base64.StdEncoding.Strict().DecodeString(key)
	if err != nil || len(raw) != 32 || len(key) != base64.StdEncoding.EncodedLen(32) {
		return trust.Errorf(trust.Invalid, "public key %q is not 32 bytes in base64", clip(key)).WithField("public_key")
	}
	prime := new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))
	number := slices.Clone(raw)
	slices.Reverse(number) // it is little-endian
	if new(big.Int).SetBytes(number).Cmp(prime) >= 0 {
		return trust.Errorf(trust.Invalid, "public key %q is not in the one encoding that X25519 has of it", key).WithField("public_key")
	}
	public, err := ecdh.X25519().NewPublicKey(raw)
	if err != nil {
		return trust.Errorf(trust.Invalid, "public key %q: %w", key, err).WithField("public_key")
	}
	private, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		return err
	}
	if shared, err := private.ECDH(public); err != nil || bytes.Equal(shared, make([]byte, 32)) {
		return trust.Errorf(trust.Invalid, "public key %q is a point of low order, which keeps no secret", key).WithField("public_key")
	}
	return nil
}
