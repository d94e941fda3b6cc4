package identity

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A service token is a JWT (RFC 7519) that stands for an API token for a quarter
// of an hour: what AppViewX hands to a service account for its client id and
// client secret. Here an API token's id is the client id and its text the client
// secret, so that there is one kind of long-lived credential and one way to
// revoke it: a service token of a token that was revoked does not hold.
//
// It is signed with HMAC-SHA-256 under a key of the tenant that is sealed in the
// keyring. That is AppViewX's algorithm and enough here, where the one who
// verifies is the one who signs.

const (
	serviceTokenLife = 15 * time.Minute
	serviceTokenMax  = 4096 // bytes of one that is looked at
	// clockSkew is how far the clocks of two nodes may be apart.
	clockSkew = time.Minute

	// Where the signing key is in the keyring.
	signingKind = "service-token-key"
	signingID   = "hs256"
)

// serviceHeader and serviceClaims have the names and values of AppViewX.
type serviceHeader struct {
	Algorithm string `json:"alg"`
	Type      string `json:"typ"`
}

type serviceClaims struct {
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	Issuer    string `json:"iss"`
	ClientID  string `json:"clientId"`
	GrantType string `json:"grant type"`
	IssuedAt  int64  `json:"iat"`
	Expires   int64  `json:"exp"`
}

const (
	serviceAudience = "avx"
	serviceIssuer   = "avx"
	serviceGrant    = "client_credentials"
)

// IssueServiceToken returns a service token for an API token's id and text, and
// when it ends. It is an event.
func (d *Directory) IssueServiceToken(ctx context.Context, clientID, clientSecret, from string) (jwt string, expires time.Time, err error) {
	shown, _ := source(from)
	hash, err := tokenHash(clientSecret)
	if err != nil || !isID(clientID) {
		return "", time.Time{}, unauthenticated() // which of the two is wrong is not said
	}
	actor, err := d.token(ctx, shown, func(tx *store.Tx) (tokenRow, error) {
		row, err := selectTokenByID(tx, clientID)
		if err != nil {
			return row, err
		}
		return row.shownBy(hash, tx.Now())
	})
	if err != nil {
		return "", time.Time{}, err
	}
	err = d.store.Update(ctx, audit.Event{
		Tenant: actor.Tenant, Actor: actor.Audit(), Action: "token.exchange", Subject: "token:" + actor.ID,
	}, func(tx *store.Tx) error {
		if _, err := selectToken(tx, actor.ID); errors.Is(err, sql.ErrNoRows) {
			return unauthenticated()
		} else if err != nil {
			return err
		}
		key, err := d.signingKey(tx)
		if err != nil {
			return err
		}
		defer clear(key)
		expires = tx.Now().Add(serviceTokenLife).Truncate(time.Second)
		if !actor.Until.IsZero() && expires.After(actor.Until) {
			expires = actor.Until.Truncate(time.Second)
		}
		jwt, err = signServiceToken(serviceMAC(key, string(hash)), serviceClaims{
			Subject: actor.ID, Audience: serviceAudience, Issuer: serviceIssuer,
			ClientID: actor.ID, GrantType: serviceGrant,
			IssuedAt: tx.Now().Unix(), Expires: expires.Unix(),
		})
		return err
	})
	if err != nil {
		return "", time.Time{}, err
	}
	return jwt, expires, nil
}

// ServiceToken returns who a service token acts as. Its API token has to be valid
// still, by the text that it was exchanged for.
func (d *Directory) ServiceToken(ctx context.Context, jwt, from string) (Actor, error) {
	shown, _ := source(from)
	claims, signed, mac, ok := parseServiceToken(jwt)
	if !ok {
		return Actor{}, unauthenticated()
	}
	// Whose key it says it is signed with. Nothing else of it is believed yet.
	var tenant trust.TenantID
	err := d.store.View(ctx, store.System, func(tx *store.Tx) error {
		row, err := selectTokenByID(tx, claims.ClientID)
		tenant = row.tenant
		if errors.Is(err, sql.ErrNoRows) {
			return unauthenticated()
		}
		return err
	})
	if err != nil {
		return Actor{}, err
	}
	var key []byte
	err = d.store.View(ctx, tenant, func(tx *store.Tx) (err error) {
		if key, err = d.keyring.Unseal(tx, signingKind, signingID); trust.KindOf(err) == trust.NotFound {
			return unauthenticated()
		}
		if err == nil && !claims.hold(tx.Now()) {
			return unauthenticated()
		}
		return err
	})
	defer clear(key)
	if err != nil {
		return Actor{}, err
	}
	return d.token(ctx, shown, func(tx *store.Tx) (tokenRow, error) {
		row, err := selectTokenByID(tx, claims.ClientID)
		if err != nil {
			return row, err
		}
		for _, hash := range [][]byte{row.hash, row.oldHash} {
			if row.tenant == tenant && len(hash) > 0 && hmac.Equal(mac, serviceMAC(serviceMAC(key, string(hash)), signed)) {
				return row.shownBy(hash, tx.Now())
			}
		}
		return row, sql.ErrNoRows
	})
}

// signingKey returns the tenant's signing key, which it makes at the first call.
func (d *Directory) signingKey(tx *store.Tx) ([]byte, error) {
	key, err := d.keyring.Unseal(tx, signingKind, signingID)
	if trust.KindOf(err) != trust.NotFound {
		return key, err
	}
	key = make([]byte, sha256.Size)
	rand.Read(key)
	return key, d.keyring.Seal(tx, signingKind, signingID, key)
}

// hold reports whether claims are those of a service token of ours that has not
// ended.
func (c serviceClaims) hold(now time.Time) bool {
	return c.Issuer == serviceIssuer && c.Audience == serviceAudience && c.GrantType == serviceGrant &&
		c.Subject == c.ClientID &&
		now.Unix() < c.Expires &&
		c.IssuedAt <= now.Add(clockSkew).Unix() &&
		c.IssuedAt > now.Add(-serviceTokenLife).Unix()-1 && // or the sum below might overflow
		c.Expires <= c.IssuedAt+int64(serviceTokenLife/time.Second)
}

// serviceMAC is what a service token is signed with: by a key of the signing key and the
// hash of the text that it was exchanged for, so that it ends when that text does.
func serviceMAC(key []byte, signed string) []byte {
	h := hmac.New(sha256.New, key)
	io.WriteString(h, signed)
	return h.Sum(nil)
}

func signServiceToken(key []byte, c serviceClaims) (string, error) {
	header, err := json.Marshal(serviceHeader{"HS256", "JWT"})
	if err != nil {
		return "", err
	}
	payload, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64(header) + "." + b64(payload)
	return signed + "." + b64(serviceMAC(key, signed)), nil
}

// parseServiceToken takes a JWT apart: its claims, the text that is signed and
// the signature. It accepts one algorithm, one type, no further header or claim,
// and one spelling of each byte.
func parseServiceToken(jwt string) (c serviceClaims, signed string, mac []byte, ok bool) {
	if len(jwt) > serviceTokenMax {
		return c, "", nil, false
	}
	parts := strings.Split(jwt, ".")
	if len(parts) != 3 {
		return c, "", nil, false
	}
	var decoded [3][]byte
	for i, part := range parts {
		b, err := base64.RawURLEncoding.Strict().DecodeString(part)
		if err != nil || strings.ContainsAny(part, "\r\n") {
			return c, "", nil, false
		}
		decoded[i] = b
	}
	var h serviceHeader
	if !decodeStrictly(decoded[0], &h) || h.Algorithm != "HS256" || h.Type != "JWT" {
		return c, "", nil, false
	}
	if !decodeStrictly(decoded[1], &c) || !isID(c.ClientID) {
		return c, "", nil, false
	}
	return c, parts[0] + "." + parts[1], decoded[2], true
}

func decodeStrictly[T serviceHeader | serviceClaims](text []byte, into *T) bool {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if d.Decode(into) != nil {
		return false
	}
	_, err := d.Token()
	return err == io.EOF
}
