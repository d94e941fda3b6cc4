package identity

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base32"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp/hotp"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A second factor is a secret that an authenticator app shares with Keyturn, and
// of which it shows a code of six digits every 30 seconds (TOTP, RFC 6238, with
// HMAC-SHA-1: what every app knows). A user who has one logs in with the password
// and a code; API tokens, which the user made after such a login, need none.
//
// A code counts from the step before the present one to the one after it, for
// clocks that are not quite right, and logs in once (RFC 6238, section 5.2).
const (
	totpStep   = 30 // seconds
	totpDrift  = 1  // steps
	totpSecret = 20 // bytes, as RFC 4226, section 4 recommends

	// presentFor is how long after a login a second factor can be set up.
	presentFor = 10 * time.Minute

	// Where the secret is in the keyring, under the user's id: while the user has
	// not shown a code of it yet, and afterwards.
	totpOffered = "totp-offered"
	totpKind    = "totp"
)

// A TOTP is a second factor as it is shown to its user, once.
type TOTP struct {
	Secret string // base32 without padding
	// URL is the same for an authenticator app, mostly as a QR code (the key URI
	// format of Google Authenticator).
	URL string
}

// OfferTOTP makes a second factor for by, a user in person who has shown the password
// lately: a stolen login would keep its user out with one. It counts once
// ConfirmTOTP has seen a code of it; until then a second call makes another one.
func (d *Directory) OfferTOTP(tx *store.Tx, by Actor) (TOTP, error) {
	u, err := d.inPerson(tx, by)
	if err != nil {
		return TOTP{}, err
	}
	if u.TOTP {
		return TOTP{}, trust.Errorf(trust.Conflict, "user %q has a second factor", u.Name).WithHint("keyturn user totp remove %s", u.Name)
	}
	secret := make([]byte, totpSecret)
	rand.Read(secret)
	defer clear(secret)
	if err := d.keyring.Seal(tx, totpOffered, u.ID, secret); err != nil {
		return TOTP{}, err
	}
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
	q := url.Values{"secret": {text}, "issuer": {"Keyturn"}, "period": {"30"}, "digits": {"6"}, "algorithm": {"SHA1"}}
	return TOTP{Secret: text, URL: (&url.URL{Scheme: "otpauth", Host: "totp", Path: "/Keyturn:" + u.Name, RawQuery: q.Encode()}).String()}, nil
}

// ConfirmTOTP has the second factor that was offered to by count, if code is one of
// it. It ends the user's web logins and grants.
func (d *Directory) ConfirmTOTP(tx *store.Tx, by Actor, code string) error {
	u, err := d.inPerson(tx, by)
	if err != nil {
		return err
	}
	secret, err := d.keyring.Unseal(tx, totpOffered, u.ID)
	if trust.KindOf(err) == trust.NotFound {
		return trust.Errorf(trust.Conflict, "no second factor was offered to user %q", u.Name).WithHint("keyturn user totp enable")
	}
	if err != nil {
		return err
	}
	defer clear(secret)
	step := totpMatch(secret, code, tx.Now())
	if step == 0 {
		return trust.Errorf(trust.Invalid, "this is not the code that the authenticator shows now").WithField("code").
			WithHint("see that the clocks of this server and of the authenticator are right")
	}
	if err := d.keyring.Seal(tx, totpKind, u.ID, secret); err != nil {
		return err
	}
	if err := d.keyring.Forget(tx, totpOffered, u.ID); err != nil {
		return err
	}
	if err := endLogins(tx, u.ID); err != nil {
		return err
	}
	return updateTOTP(tx, u.ID, tx.Now(), step)
}

// RemoveTOTP takes a user's second factor away, and ends the user's web logins and
// grants. Only who may do whatever that user may do, and the user, may.
func (d *Directory) RemoveTOTP(tx *store.Tx, by Actor, id string) error {
	u, err := d.overUser(tx, by, id)
	if err != nil {
		return err
	}
	if err := checkPresent(by, u); err != nil {
		return err
	}
	for _, kind := range []string{totpOffered, totpKind} {
		if err := d.keyring.Forget(tx, kind, u.ID); err != nil {
			return err
		}
	}
	if err := endLogins(tx, u.ID); err != nil {
		return err
	}
	return updateTOTP(tx, u.ID, time.Time{}, 0)
}

// inPerson returns the user that by is, and refuses whoever is none, or may have found an
// open login.
func (d *Directory) inPerson(tx *store.Tx, by Actor) (User, error) {
	if by.Kind != "user" {
		return User{}, trust.Errorf(trust.Denied, "a second factor is a user's own, and %s is no user in person", by.describe()).
			WithHint("keyturn login, without KEYTURN_TOKEN")
	}
	u, err := d.overUser(tx, by, by.ID)
	if err != nil {
		return User{}, err
	}
	if err := u.checkOwn(); err != nil {
		return User{}, err
	}
	return u, checkAge(tx, by, presentFor, "a second factor outlives a login, and is set up")
}

// totpMatch returns the time step at which secret has the code, or 0 if it has it
// at none that counts now.
func totpMatch(secret []byte, code string, now time.Time) (step int64) {
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(secret)
	code = strings.ReplaceAll(strings.TrimSpace(code), " ", "") // apps show "123 456"
	present := now.Unix() / totpStep
	for s := present - totpDrift; s <= present+totpDrift; s++ {
		want, err := hotp.GenerateCode(text, uint64(s))
		if err == nil && subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 {
			step = s
		}
	}
	return step
}

// secondFactor checks the code that came with a right password, and returns the
// time step that it is of.
func (d *Directory) secondFactor(tx *store.Tx, row loginRow, code string) (step int64, err error) {
	secret, err := d.keyring.Unseal(tx, totpKind, row.ID)
	if err != nil {
		return 0, err
	}
	defer clear(secret)
	step = totpMatch(secret, code, tx.Now())
	if step <= row.totpStep {
		return 0, nil
	}
	return step, nil
}
