package identity

import (
	"crypto/subtle"
	"database/sql"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Token is what is known of an API token: all but its text.
type Token struct {
	ID          string // 32 hex digits; the client id of service tokens
	Name        string
	Permissions []Permission
	Owner       string // id of the user on whose behalf it acts
	Parent      string // id of the token that made it, or ""
	Created     time.Time
	Expires     time.Time // zero for never
	// Used is when it was last used, zero for never. It may be behind by
	// useInterval.
	Used time.Time
}

// A NewToken is what CreateToken makes a Token of.
type NewToken struct {
	Name        string
	Permissions []Permission
	// Valid is how long it lives; 0 is for ever, or as long as the token that
	// makes it.
	Valid time.Duration
}

const (
	// maxTokens bounds the tokens of one user.
	maxTokens = 1000
	maxValid  = 10 * 365 * 24 * time.Hour
	// useInterval is how often the use of a token is written down at the
	// most. Each time is an event.
	useInterval = 10 * time.Minute
)

// CreateToken makes an API token that acts on behalf of by's user and may do no
// more than by may, and returns its text, which is not kept. A token that a token
// makes does not outlive it, and is revoked together with it.
func (d *Directory) CreateToken(tx *store.Tx, by Actor, n NewToken) (Token, string, error) {
	if err := checkActor(tx, by); err != nil {
		return Token{}, "", err
	}
	if by.Owner == "" {
		return Token{}, "", trust.Errorf(trust.Denied, "a token belongs to a user, and %s is none", by.describe())
	}
	if err := checkTokenName(n.Name); err != nil {
		return Token{}, "", err
	}
	if err := checkGrant(by, n.Permissions); err != nil {
		return Token{}, "", err
	}
	if n.Valid < 0 || n.Valid > maxValid {
		return Token{}, "", trust.Errorf(trust.Invalid, "a token that lives for %s is not to be had: more than nothing and up to ten years, or for ever", n.Valid).WithField("expires")
	}
	t := Token{ID: newID(), Name: n.Name, Permissions: n.Permissions, Owner: by.Owner, Created: tx.Now()}
	if n.Valid > 0 {
		t.Expires = tx.Now().Add(n.Valid)
	}
	if by.Kind == "token" {
		parent, err := selectToken(tx, by.ID)
		if errors.Is(err, sql.ErrNoRows) { // revoked just now
			return Token{}, "", unauthenticated()
		}
		if err != nil {
			return Token{}, "", err
		}
		t.Parent = parent.ID
		if !parent.Expires.IsZero() && (t.Expires.IsZero() || t.Expires.After(parent.Expires)) {
			t.Expires = parent.Expires
		}
	} else if _, err := selectUser(tx, by.Owner); errors.Is(err, sql.ErrNoRows) { // removed just now
		return Token{}, "", unauthenticated()
	} else if err != nil {
		return Token{}, "", err
	}
	there, err := countTokens(tx, by.Owner)
	if err != nil {
		return Token{}, "", err
	}
	if there >= maxTokens {
		return Token{}, "", trust.Errorf(trust.Exhausted, "this user has %d tokens, and no more than that", maxTokens).WithHint("revoke some")
	}
	text := newToken()
	hash, err := tokenHash(text)
	if err != nil {
		return Token{}, "", err
	}
	return t, text, insertToken(tx, t, hash)
}

func checkTokenName(name string) error {
	if name == "" || len(name) > 128 || !utf8.ValidString(name) || strings.TrimSpace(name) != name || strings.ContainsFunc(name, unicode.IsControl) {
		return trust.Errorf(trust.Invalid, "token name %.80q is not 1 to 128 bytes of text on one line", name).WithField("name")
	}
	return nil
}

// Tokens returns every token of the tenant of tx, newest first, those that have
// expired among them.
func (d *Directory) Tokens(tx *store.Tx) ([]Token, error) { return selectTokens(tx) }

// RevokeToken ends a token and those that were made with it, at once, and returns
// how many that were. An unknown id is NotFound.
func (d *Directory) RevokeToken(tx *store.Tx, id string) (int, error) {
	err := error(sql.ErrNoRows)
	if isID(id) {
		_, err = selectToken(tx, id)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return 0, trust.Errorf(trust.NotFound, "there is no token %.80q", id)
	}
	if err != nil {
		return 0, err
	}
	n, err := deleteTokenTree(tx, id)
	return int(n), err
}

// A tokenRow is a Token with what is needed to let it act.
type tokenRow struct {
	Token
	tenant trust.TenantID
	hash   []byte
	limit  []Permission // of its owner
}

// actor returns who a token acts as, or an error if it has expired.
func (t tokenRow) actor(now time.Time, source string) (Actor, error) {
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return Actor{}, unauthenticated()
	}
	return Actor{
		Tenant: t.tenant, Kind: "token", ID: t.ID, Name: t.Name, Owner: t.Owner,
		Source: source, Permissions: within(t.limit, t.Permissions),
	}, nil
}

// sameHash compares what is stored with what was given in a time that depends on
// neither.
func sameHash(stored, given []byte) bool {
	return len(stored) > 0 && subtle.ConstantTimeCompare(stored, given) == 1
}
