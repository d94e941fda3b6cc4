package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A grant of OAuth 2.0 (RFC 6749) is a login that goes on: for a password, and the
// code of a second factor where there is one, a user gets an access token, which
// acts as the user for an hour, and a refresh token, which two weeks long gets the
// next two, once. It ends when neither holds any more, when the user is removed, and
// when the password or the second factor changes.
const (
	accessTokenLife  = time.Hour
	refreshTokenLife = 14 * 24 * time.Hour
	// maxGrants is how many grants a user has at most. One more ends the oldest.
	maxGrants = 20
)

// OAuthTokens are the two tokens of a grant: 160 random bits each, in hex, and kept
// nowhere.
type OAuthTokens struct {
	Access, Refresh string
	Lasts           time.Duration // of Access
}

// newOAuthTokens makes the tokens of a grant.
func newOAuthTokens() OAuthTokens {
	b := make([]byte, 40)
	rand.Read(b)
	return OAuthTokens{Access: hex.EncodeToString(b[:20]), Refresh: hex.EncodeToString(b[20:]), Lasts: accessTokenLife}
}

// isOAuthToken reports whether newOAuthTokens may have made s.
func isOAuthToken(s string) bool {
	return len(s) == 40 && strings.Trim(s, "0123456789abcdef") == ""
}

// oauthHash returns what is stored of a token of a grant.
func oauthHash(token string) []byte {
	sum := sha256.Sum256([]byte(token))
	return sum[:]
}

// A grantRow is a grant as it is stored.
type grantRow struct {
	tenant      trust.TenantID
	id          string
	user        User
	accessUntil time.Time
}

func (g grantRow) actor(source string) Actor {
	return Actor{
		Tenant: g.tenant, Kind: "user", ID: g.user.ID, Name: g.user.Name, Owner: g.user.ID, Source: source,
		Permissions: g.user.Permissions, Roles: g.user.Rights.Roles, Until: g.accessUntil,
	}
}

// PasswordGrant checks a password as Password does, and begins a grant (RFC 6749,
// section 4.3). Each is an event.
func (d *Directory) PasswordGrant(ctx context.Context, user, password, code, from string) (OAuthTokens, error) {
	tokens, id := newOAuthTokens(), newID()
	_, err := d.password(ctx, user, password, code, from, func(tx *store.Tx, owner string) error {
		if err := deleteEndedGrants(tx); err != nil {
			return err
		}
		if err := deleteOldestGrants(tx, owner, maxGrants-1); err != nil {
			return err
		}
		tx.Note("oauth-grant", id)
		return insertGrant(tx, id, owner, tokens)
	})
	if err != nil {
		return OAuthTokens{}, err
	}
	return tokens, nil
}

// RefreshGrant exchanges a refresh token for new tokens (RFC 6749, section 6). Both
// that the grant had until now end. Each is an event.
func (d *Directory) RefreshGrant(ctx context.Context, refresh, from string) (OAuthTokens, error) {
	shown, _ := source(from)
	if !isOAuthToken(refresh) {
		return OAuthTokens{}, unauthenticated()
	}
	hash := oauthHash(refresh)
	grant, err := d.grant(ctx, func(tx *store.Tx) (grantRow, error) { return selectGrantByRefresh(tx, hash) })
	if err != nil {
		return OAuthTokens{}, err
	}
	tokens := newOAuthTokens()
	err = d.store.Update(ctx, audit.Event{
		Tenant: grant.tenant, Actor: grant.actor(shown).Audit(), Action: "oauth-grant.refresh", Subject: "oauth-grant:" + grant.id,
	}, func(tx *store.Tx) error {
		first, err := refreshGrant(tx, grant.id, hash, tokens)
		if err == nil && !first {
			return unauthenticated()
		}
		return err
	})
	if err != nil {
		return OAuthTokens{}, err
	}
	return tokens, nil
}

// AccessToken returns who an access token of a grant acts as: the user in person.
func (d *Directory) AccessToken(ctx context.Context, access, from string) (Actor, error) {
	shown, _ := source(from)
	if !isOAuthToken(access) {
		return Actor{}, unauthenticated()
	}
	grant, err := d.grant(ctx, func(tx *store.Tx) (grantRow, error) {
		g, err := selectGrantByAccess(tx, oauthHash(access))
		if err == nil && !tx.Now().Before(g.accessUntil) {
			return g, sql.ErrNoRows
		}
		return g, err
	})
	if err != nil {
		return Actor{}, err
	}
	return grant.actor(shown), nil
}

// grant returns the grant that find finds, whoever's it is.
func (d *Directory) grant(ctx context.Context, find func(*store.Tx) (grantRow, error)) (g grantRow, err error) {
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		g, err = find(tx)
		if errors.Is(err, sql.ErrNoRows) {
			return unauthenticated()
		}
		return err
	})
	return g, err
}

// endLogins ends what goes on from a user's logins: web logins and grants.
func endLogins(tx *store.Tx, owner string) error {
	if err := deleteWebLoginsOf(tx, owner); err != nil {
		return err
	}
	return deleteGrantsOf(tx, owner)
}
