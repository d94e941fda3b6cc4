// Package authority holds what a certificate may be, and which are no longer worth
// anything.
//
// # Issuing
//
//	draft, err := a.Draft(tx, request)   // within the Update whose event is the certificate
//	...                                  // that Update returns: the certificate is on record
//	certificate, err := draft.Sign()     // once
//
// Draft checks everything and writes down the very bytes that Sign will have signed,
// the nonce among them, so nothing is ever signed that is not on record, and can be
// listed and revoked from before it exists. Signatures are deterministic: who signs the
// same draft again, after a crash, makes the same certificate. There is no other way to
// have an authority sign.
//
// Who may have which principal is not decided here. A Request says who decided, and
// Draft refuses one that does not.
//
// # Authorities
//
// An authority is a key and times. Several have one name: one that signs, and, around
// a rotation, one that hosts are told to trust before it signs, and one that they are
// told to trust still. All this follows from the time: nothing has to run for it.
//
// # Revoking
//
// What is revoked, by serial number, key id, person, key or authority, is in the key
// revocation list, which grows by one version with each change and is otherwise the
// same bytes.
package authority

import (
	"embed"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema is this package's part of the database.
//
//go:embed migrations/*.sql
var Schema embed.FS

// Authorities are the certificate authorities of all tenants: the transaction that a
// method is given says whose.
type Authorities struct {
	keyring *keyring.Keyring
	kept    kept
}

// New returns the Authorities whose private keys lie in k.
func New(k *keyring.Keyring) *Authorities {
	return &Authorities{keyring: k, kept: kept{tenants: map[trust.TenantID]*known{}}}
}

// A Purpose is what the certificates of an authority are for.
type Purpose string

// The purposes. What opens hosts for the gateway never opens one for people.
const (
	User Purpose = "user"
	Host Purpose = "host"
	Hop  Purpose = "gateway"
)

// A State is what an authority does at a time.
type State string

// The states, in the order in which an authority goes through them.
const (
	Next     State = "next"     // hosts should trust it: it is about to sign
	Signing  State = "signing"  // it signs
	Outgoing State = "outgoing" // hosts should trust it still, and it signs no more
	Ended    State = "ended"    // nothing that it signed is valid any more
	Removed  State = "removed"  // its private key is gone, and it is revoked
)

// An Authority is one key that signs certificates.
type Authority struct {
	ID      string
	Name    string
	Purpose Purpose
	// Application is the id of the one whose hosts trust it, or "" for one of the
	// whole tenant.
	Application string
	Public      trust.PublicKey
	Comment     string
	Profile     Profile
	Created     time.Time
	// SignsUntil and TrustedUntil are zero for ever.
	SignsFrom, SignsUntil, TrustedUntil time.Time
	Removed                             time.Time

	found *found // nil where it was read for something else than to sign
}

// State returns what a does at a time.
func (a Authority) State(at time.Time) State {
	switch {
	case !a.Removed.IsZero():
		return Removed
	case at.Before(a.SignsFrom):
		return Next
	case a.SignsUntil.IsZero() || at.Before(a.SignsUntil):
		return Signing
	case a.TrustedUntil.IsZero() || at.Before(a.TrustedUntil):
		return Outgoing
	}
	return Ended
}

// Trusted reports whether hosts should trust a at a time.
func (a Authority) Trusted(at time.Time) bool {
	s := a.State(at)
	return s == Next || s == Signing || s == Outgoing
}

// Line returns the line of a file that TrustedUserCAKeys names, without newline.
func (a Authority) Line() string {
	return strings.TrimSpace(a.Public.String() + " " + a.Comment)
}

// KeySpec returns the kind of key that a has.
func (a Authority) KeySpec() keyring.Spec {
	switch a.Public.Type() {
	case "ssh-ed25519":
		return keyring.Spec{Type: "ed25519"}
	case "ssh-rsa":
		return keyring.Spec{Type: "rsa", Bits: a.Public.Bits()}
	}
	return keyring.Spec{Type: "ecdsa-p256"}
}

// KeySpec returns the kind of key of an authority's type, by the names that users give
// those: ecdsa-p256, ed25519 or rsa-4096.
func KeySpec(name string) (keyring.Spec, error) {
	switch name {
	case "ecdsa-p256", "ed25519":
		return keyring.Spec{Type: name}, nil
	case "rsa-4096":
		return keyring.Spec{Type: "rsa", Bits: 4096}, nil
	}
	return keyring.Spec{}, trust.Errorf(trust.Invalid, "type %.40q of an authority is none of ecdsa-p256, ed25519, rsa-4096", name).WithField("type")
}

// A NewAuthority is one to be made.
type NewAuthority struct {
	Name        string
	Purpose     Purpose
	Application string
	Comment     string   // of its public key; "" for its name
	Profile     *Profile // nil for that of its purpose
}

// maxAuthorities bounds the authorities of a tenant: the vendor's clients page through
// 2,000 of them.
const maxAuthorities = 10_000

// Create makes an authority of a key that was generated for it. A name that is taken is
// a Conflict, and so is an application that has one.
func (s *Authorities) Create(tx *store.Tx, n NewAuthority, key keyring.Private) (Authority, error) {
	if err := n.check(); err != nil {
		return Authority{}, err
	}
	if err := checkFree(tx, n); err != nil {
		return Authority{}, err
	}
	count, err := countAuthorities(tx)
	if err != nil {
		return Authority{}, err
	}
	if count >= maxAuthorities {
		return Authority{}, trust.Errorf(trust.Exhausted, "there are %d authorities, and no more than that", maxAuthorities)
	}
	a := Authority{Name: n.Name, Purpose: n.Purpose, Application: n.Application, Comment: n.Comment, Profile: profileOf(n.Purpose)}
	if n.Profile != nil {
		a.Profile = n.Profile.inOrder()
	}
	if a.Comment == "" {
		a.Comment = a.Name
	}
	a.SignsFrom = tx.Now()
	return s.add(tx, a, key)
}

func (n NewAuthority) check() error {
	if n.Purpose != User && n.Purpose != Host && n.Purpose != Hop {
		return trust.Errorf(trust.Invalid, "purpose %.40q of an authority is none of user, host, gateway", n.Purpose).WithField("purpose")
	}
	if !isName(n.Name) {
		return trust.Errorf(trust.Invalid, "name %.80q of an authority is not 1 to 64 of letters, digits and \"._@+-\", a letter or digit first", n.Name).WithField("name")
	}
	if n.Application != "" && n.Purpose != User {
		return trust.Errorf(trust.Invalid, "the authority of an application is for users' certificates, not for those of purpose %q", n.Purpose).WithField("purpose")
	}
	if n.Profile != nil {
		return n.Profile.checkFor(n.Purpose)
	}
	return nil
}

// checkFree refuses a name that is taken, and a second authority of an application.
func checkFree(tx *store.Tx, n NewAuthority) error {
	same, err := selectNamed(tx, n.Name)
	if err != nil {
		return err
	}
	if n.Application != "" {
		of, err := selectOfApplication(tx, n.Application)
		if err != nil {
			return err
		}
		if len(of) > 0 {
			return trust.Errorf(trust.Conflict, "the application has an authority already, %q", of[0].Name).WithHint("keyturn ca show %s", of[0].Name)
		}
	}
	if slices.ContainsFunc(same, func(a Authority) bool { return a.Removed.IsZero() }) {
		return trust.Errorf(trust.Conflict, "there is an authority %q already", n.Name).WithHint("keyturn ca show %s", n.Name)
	}
	return nil
}

func isName(s string) bool {
	const more = "._@+-"
	for i, c := range []byte(s) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && (i == 0 || !strings.Contains(more, string(c))) {
			return false
		}
	}
	return s != "" && len(s) <= 64
}

// add writes a down with its private key.
func (s *Authorities) add(tx *store.Tx, a Authority, key keyring.Private) (Authority, error) {
	id, err := uuid.NewV7() // by which they are listed, oldest first
	if err != nil {
		return Authority{}, err
	}
	a.ID, a.Public, a.Created = id.String(), key.Public(), tx.Now()
	if err := s.keyring.Put(tx, trust.KeyID(a.ID), key); err != nil {
		return Authority{}, err
	}
	tx.Note("authority", a.ID)
	tx.Note("fingerprint", string(a.Public.Fingerprint()))
	return a, insertAuthority(tx, a)
}

// Rotate has another key take the place of the one of that name that signs, after
// overlap: until then hosts are told to trust both, and the present one signs; and they
// are told to trust it afterwards for as long as what it signed may be valid, under its
// profile or one that it had before, and for overlap at least. Where one is to take its
// place already that is a Conflict.
//
// Where none signs, since the one that did was removed, the next one signs after overlap
// if that is sooner, and key is not used; where there is no next one, key is it.
func (s *Authorities) Rotate(tx *store.Tx, name string, overlap time.Duration, key keyring.Private) (Authority, error) {
	all, err := s.Named(tx, name)
	if err != nil {
		return Authority{}, err
	}
	old, _ := current(all, tx.Now())
	signs := old.State(tx.Now()) == Signing
	from := tx.Now().Add(overlap)
	if i := slices.IndexFunc(all, func(a Authority) bool { return a.State(tx.Now()) == Next }); i >= 0 {
		next := all[i]
		switch {
		case signs:
			return Authority{}, trust.Errorf(trust.Conflict, "authority %q is being exchanged already: its next key signs from %s UTC", next.Name, next.SignsFrom.Format(time.DateTime)).
				WithHint("keyturn ca show %s", next.Name)
		case !from.Before(next.SignsFrom):
			return Authority{}, trust.Errorf(trust.Conflict, "the next key of authority %q signs from %s UTC already", next.Name, next.SignsFrom.Format(time.DateTime)).
				WithHint("keyturn ca rotate %s --overlap 0s has it sign at once", next.Name)
		}
		next.SignsFrom = from
		return next, updateAuthority(tx, next)
	}
	if signs {
		if old, err = s.endAfter(tx, old, overlap); err != nil {
			return Authority{}, err
		}
	}
	next := old
	next.SignsFrom, next.SignsUntil, next.TrustedUntil = from, time.Time{}, time.Time{}
	return s.add(tx, next, key)
}

// endAfter has the one that signs do so until overlap is over, and be trusted after that
// as Rotate says.
func (s *Authorities) endAfter(tx *store.Tx, old Authority, overlap time.Duration) (Authority, error) {
	old.SignsUntil = tx.Now().Add(overlap)
	old.TrustedUntil = old.SignsUntil.Add(max(overlap, old.Profile.MaxValid))
	last, err := selectLastEnd(tx, old.ID)
	if err != nil {
		return old, err
	}
	if last.After(old.TrustedUntil) {
		old.TrustedUntil = last
	}
	return old, updateAuthority(tx, old)
}

// Remove makes the authority of an id be none any more: it is revoked, with all that it
// signed, and its private key is destroyed. Where it was to take the place of the one that
// signs, that one goes on as it did before.
func (s *Authorities) Remove(tx *store.Tx, id, reason string) (Authority, error) {
	a, err := selectAuthority(tx, id)
	if err != nil {
		return Authority{}, err
	}
	if !a.Removed.IsZero() {
		return Authority{}, notFound(id)
	}
	a.Removed = tx.Now()
	if err := updateAuthority(tx, a); err != nil {
		return Authority{}, err
	}
	if err := s.keyring.Destroy(tx, trust.KeyID(a.ID)); err != nil {
		return Authority{}, err
	}
	if tx.Now().Before(a.SignsFrom) {
		if err := s.goOn(tx, a.Name); err != nil {
			return Authority{}, err
		}
	}
	return a, revoke(tx, revocation{kind: byAuthority, value: string(a.Public.Fingerprint()), public: a.Public, reason: reason})
}

// goOn has the one of a name that signs, if there is one, not end.
func (s *Authorities) goOn(tx *store.Tx, name string) error {
	all, err := selectNamed(tx, name)
	if err != nil {
		return err
	}
	a, there := current(all, tx.Now())
	if !there || a.State(tx.Now()) != Signing {
		return nil
	}
	a.SignsUntil, a.TrustedUntil = time.Time{}, time.Time{}
	return updateAuthority(tx, a)
}

// Find returns the authority of an id, or the one of a name that signs, that did last,
// or else that will first.
func (s *Authorities) Find(tx *store.Tx, name string) (Authority, error) {
	if uuid.Validate(name) == nil {
		a, err := selectAuthority(tx, name)
		if err == nil && !a.Removed.IsZero() {
			return Authority{}, notFound(name)
		}
		return a, err
	}
	known, err := s.kept.of(tx)
	if err != nil {
		return Authority{}, err
	}
	all, err := known.byName(tx, name)
	if err != nil {
		return Authority{}, err
	}
	a, there := current(all, tx.Now())
	if !there {
		return Authority{}, notFound(name)
	}
	return a, nil
}

// current returns the one of some of the same name, oldest first, that signs, that did
// last, or else that will first.
func current(all []Authority, at time.Time) (found Authority, there bool) {
	for _, a := range all {
		switch state := a.State(at); {
		case state == Signing:
			return a, true
		case state != Removed && (!there || state != Next):
			found, there = a, true
		}
	}
	return found, there
}

func notFound(name string) error {
	return trust.Errorf(trust.NotFound, "there is no authority %.80q", name).WithHint("keyturn ca list")
}

// Named returns all authorities of a name that are not removed, oldest first.
func (s *Authorities) Named(tx *store.Tx, name string) ([]Authority, error) {
	a, err := s.Find(tx, name)
	if err != nil {
		return nil, err
	}
	all, err := selectNamed(tx, a.Name)
	var there []Authority
	for _, a := range all {
		if a.Removed.IsZero() {
			there = append(there, a)
		}
	}
	return there, err
}

// A Filter says which authorities are wanted.
type Filter struct {
	Purpose Purpose // "" for every purpose
	// Application is the id of one; "*" is every one, and "" also those of none.
	Application string
	After       string // id of the last of the page before, or ""
	Limit       int
}

// maxListedRemoved is how many authorities RemovedHosts returns.
const maxListedRemoved = 100

// RemovedHosts returns the authorities for hosts that were removed last, the last one
// first, of which something may be valid that somebody signed while they were there.
func (s *Authorities) RemovedHosts(tx *store.Tx) ([]Authority, error) {
	return selectRemoved(tx, Host, tx.Now().Add(-longestValid), maxListedRemoved)
}

// List returns authorities that are not removed, oldest first.
func (s *Authorities) List(tx *store.Tx, f Filter) ([]Authority, error) {
	return selectAuthorities(tx, f)
}
