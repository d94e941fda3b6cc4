package identity

import (
	"crypto/subtle"
	"database/sql"
	"errors"
	"slices"
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
	OwnerName   string
	Parent      string // id of the token that made it, or ""
	// Personal is whether it asks as its owner where policies decide who logs in,
	// rather than in its own name.
	Personal bool
	Created  time.Time
	Expires  time.Time // zero for never
	// Used is when it was last used, zero for never. It may be behind by
	// useInterval.
	Used time.Time
}

// A NewToken is what CreateToken makes a Token of.
type NewToken struct {
	Name        string
	Permissions []Permission
	// Personal is for the owner in person to give, or for another token that is.
	Personal bool
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
	if err := checkAge(tx, by, lastingWithin, "API tokens outlive a login, and are made"); err != nil {
		return Token{}, "", err
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
	owner, err := selectUser(tx, by.Owner)
	if errors.Is(err, sql.ErrNoRows) { // removed just now
		return Token{}, "", unauthenticated()
	}
	if err != nil {
		return Token{}, "", err
	}
	t := Token{ID: newID(), Name: n.Name, Permissions: n.Permissions, Owner: owner.ID, OwnerName: owner.Name, Personal: n.Personal, Created: tx.Now()}
	if n.Valid > 0 {
		t.Expires = tx.Now().Add(n.Valid)
	}
	if err := checkPersonal(by, n.Personal); err != nil {
		return Token{}, "", err
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

// checkPersonal refuses the text of a token that asks as its owner to who asks in its
// own name.
func checkPersonal(by Actor, personal bool) error {
	if !personal || by.IsPerson() {
		return nil
	}
	return trust.Errorf(trust.Denied, "a token that asks as its owner is had by that user, and %s asks in its own name", by.describe()).
		WithField("personal").WithHint("keyturn login")
}

// maxOverlap bounds how long a token's old text holds beside the new one.
const maxOverlap = 30 * 24 * time.Hour

// RotateToken gives a token another text, which it returns, and keeps all else of
// it: its id, what it may do and when it expires. The old text holds for overlap
// still. Only the user whom it belongs to may, in person or by a token that may do
// no less: whoever has a text can do as the token can.
func (d *Directory) RotateToken(tx *store.Tx, by Actor, id string, overlap time.Duration) (Token, string, error) {
	if err := checkActor(tx, by); err != nil {
		return Token{}, "", err
	}
	if err := checkAge(tx, by, lastingWithin, "API tokens outlive a login, and are rotated"); err != nil {
		return Token{}, "", err
	}
	if overlap < 0 || overlap > maxOverlap {
		return Token{}, "", trust.Errorf(trust.Invalid, "an overlap of %s is not 0s to %s", overlap, maxOverlap).WithField("overlap")
	}
	t, err := findToken(tx, id)
	if err != nil {
		return Token{}, "", err
	}
	if t.Owner != by.Owner {
		return Token{}, "", trust.Errorf(trust.Denied, "token %q belongs to somebody else, and only its owner can have its text", t.Name).
			WithHint("keyturn token revoke %s ends it", t.ID)
	}
	if err := checkPersonal(by, t.Personal); err != nil {
		return Token{}, "", err
	}
	if p := beyond(by.Permissions, within(t.limit, t.Permissions)); p != "" {
		return Token{}, "", trust.Errorf(trust.Denied, "token %q has the permission %q, which %s does not have", t.Name, p, by.describe())
	}
	text := newToken()
	hash, err := tokenHash(text)
	if err != nil {
		return Token{}, "", err
	}
	return t.Token, text, updateTokenHash(tx, t.ID, hash, tx.Now().Add(overlap))
}

// RevokeTokensOf ends the tokens that a token made, and those that these made, at once,
// and returns their ids. The token itself stays.
func (d *Directory) RevokeTokensOf(tx *store.Tx, id string) ([]string, error) {
	ids, err := selectTokenTree(tx, id)
	if err != nil {
		return nil, err
	}
	ids = slices.DeleteFunc(ids, func(made string) bool { return made == id })
	for _, made := range ids {
		if err := deleteTokenTree(tx, made); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// findToken returns the token of an id, or a NotFound error.
func findToken(tx *store.Tx, id string) (t tokenRow, err error) {
	err = error(sql.ErrNoRows)
	if isID(id) {
		t, err = selectToken(tx, id)
	}
	if errors.Is(err, sql.ErrNoRows) {
		return tokenRow{}, trust.Errorf(trust.NotFound, "there is no token %.80q", id).WithHint("keyturn token list")
	}
	return t, err
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
// their ids. An unknown id is NotFound.
func (d *Directory) RevokeToken(tx *store.Tx, id string) ([]string, error) {
	if _, err := findToken(tx, id); err != nil {
		return nil, err
	}
	ids, err := selectTokenTree(tx, id)
	if err != nil {
		return nil, err
	}
	return ids, deleteTokenTree(tx, id)
}

// A tokenRow is a Token with what is needed to let it act.
type tokenRow struct {
	Token
	tenant trust.TenantID
	hash   []byte
	// oldHash is what it was before it was rotated, which holds until oldUntil.
	oldHash  []byte
	oldUntil time.Time
	shown    []byte // the hash of the text by which it was found, or nil
	owner    Rights
	limit    []Permission // of its owner
}

// actor returns who a token acts as, or an error if it has expired.
func (t tokenRow) actor(now time.Time, source string) (Actor, error) {
	if !t.Expires.IsZero() && !now.Before(t.Expires) {
		return Actor{}, unauthenticated()
	}
	return Actor{
		Tenant: t.tenant, Kind: "token", ID: t.ID, Name: t.Name, Owner: t.Owner, Personal: t.Personal,
		Source: source, Permissions: within(t.limit, t.Permissions), Until: t.Expires, text: string(t.shown),
	}, nil
}

// shownBy returns a token as who shows a text of that hash has it: one from before it was
// rotated ends when that text does. It is sql.ErrNoRows for a text that does not hold.
func (t tokenRow) shownBy(hash []byte, now time.Time) (tokenRow, error) {
	t.shown = hash
	switch {
	case sameHash(t.hash, hash):
		return t, nil
	case sameHash(t.oldHash, hash) && now.Before(t.oldUntil):
		if t.Expires.IsZero() || t.oldUntil.Before(t.Expires) {
			t.Expires = t.oldUntil
		}
		return t, nil
	}
	return tokenRow{}, sql.ErrNoRows
}

// sameHash compares what is stored with what was given in a time that depends on
// neither.
func sameHash(stored, given []byte) bool {
	return len(stored) > 0 && subtle.ConstantTimeCompare(stored, given) == 1
}
