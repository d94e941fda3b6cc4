// Package identity turns a credential into an Actor: it knows tenants, users and
// their passwords, API tokens, the short-lived service tokens that are had for
// one, web logins, and grants of OAuth 2.0.
//
// Checking a credential is one call (Password, Login, Bearer, Token, WebLogin,
// ServiceToken, AccessToken) that returns a value, or an error of kind Unauthenticated that
// says the same whatever the reason, or Exhausted for someone who has to wait.
// Calls that check passwords, or logins by an identity provider (BeginLogin,
// FinishLogin), make their own commits, since a login and a burst of
// failures are events. Everything else (AddUser, CreateToken, ...) runs
// in the Update of the verb that calls it, whose event says what happened and
// whose actor has been asked for its permission; rules that no caller may forget
// (nobody hands out what they do not have) are kept here.
//
// Nothing is stored that lets its reader log in: passwords are argon2id hashes;
// tokens and the ids of web logins are 128 random bits or more, stored as
// SHA-256, looked up by it, and shown once. A lookup by hash gives nothing away by its time,
// because nobody can choose the hash of what they try.
//
// Nodes hold no state of this package but the count of wrong passwords (see
// throttle), which passwords were right within the last minute (see verified), what
// identity providers have published (see package oidc), and when they last wrote down
// that a token was used.
package identity

import (
	"cmp"
	"context"
	"database/sql"
	"embed"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/alexedwards/argon2id"

	"keyturn/internal/audit"
	"keyturn/internal/keyring"
	"keyturn/internal/oidc"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema is this package's part of the database.
//
//go:embed migrations/*.sql
var Schema embed.FS

// Options are what a Directory needs beside its database. All may be left out.
type Options struct {
	// Now is the clock by which wrong passwords are counted, and right ones
	// remembered; nil means time.Now. What is stored goes by the store's clock.
	Now func() time.Time
	// Log is told of what a login does not fail for; nil means slog.Default.
	Log *slog.Logger
}

// A Directory answers who somebody is. It is safe for concurrent use.
type Directory struct {
	store    *store.Store
	keyring  *keyring.Keyring
	log      *slog.Logger
	hasher   *hasher
	throttle *throttle
	verified *verified
	oidc     *oidc.Client

	mu    sync.Mutex
	noted map[string]time.Time // what was last done when; guarded by mu
}

// Open returns the Directory of a database. The keyring seals the key of service
// tokens.
func Open(s *store.Store, k *keyring.Keyring, o Options) (*Directory, error) {
	return open(s, k, o, params)
}

// open is Open with what hashing a password costs.
func open(s *store.Store, k *keyring.Keyring, o Options, cost *argon2id.Params) (*Directory, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.Default()
	}
	return &Directory{
		store: s, keyring: k, log: o.Log, hasher: newHasher(cost),
		throttle: newThrottle(o.Now), verified: newVerified(o.Now),
		oidc: oidc.New(o.Now), noted: map[string]time.Time{},
	}, nil
}

// The names of what First makes.
const (
	DefaultTenant = "default"
	AdminUser     = "admin"
)

// A Beginning is what First found or made.
type Beginning struct {
	Tenant trust.TenantID
	// Created says that this call made it.
	Created bool
	// Password is the one that was made for the user "admin" where none was
	// given: to be shown once, and kept nowhere.
	Password string
}

// First makes the tenant "default" and in it the user "admin", who may do
// everything, unless there is a tenant already: then nothing is changed, the
// password of its admin least of all. Without a password one is made. A given one
// may be shorter than those of other users, since whoever starts Keyturn answers
// for it.
func (d *Directory) First(ctx context.Context, password string) (Beginning, error) {
	there, err := d.firstTenant(ctx)
	if err != nil || there.Tenant != "" {
		return there, err
	}
	b := Beginning{Tenant: trust.TenantID(newID()), Created: true}
	if password == "" {
		b.Password = NewPassword()
		password = b.Password
	}
	if len(password) > maxPassword {
		return Beginning{}, trust.Errorf(trust.Invalid, "a password has %d bytes at the most", maxPassword).WithField("password")
	}
	hash, err := d.hasher.hash(ctx, password)
	if err != nil {
		return Beginning{}, err
	}
	admin := User{ID: newID(), Name: AdminUser, Rights: Rights{Permissions: []Permission{All}}}
	err = d.store.Update(ctx, audit.Event{
		Tenant:  b.Tenant,
		Actor:   System(b.Tenant).Audit(),
		Action:  "tenant.create",
		Subject: "tenant:" + string(b.Tenant),
		Fields:  []audit.Field{{Name: "admin", Value: admin.ID}},
	}, func(tx *store.Tx) error {
		if err := insertTenant(tx, DefaultTenant); err != nil {
			return err
		}
		return insertUser(tx, admin, hash)
	})
	if trust.KindOf(err) == trust.Conflict { // another node was first
		return d.firstTenant(ctx)
	}
	if err != nil {
		return Beginning{}, err
	}
	return b, nil
}

func (d *Directory) firstTenant(ctx context.Context) (b Beginning, err error) {
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		b.Tenant, err = selectTenantByName(tx, DefaultTenant)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return b, err
}

// CheckLasting refuses what checkActor does, machines, and logins of some time ago: what
// lets somebody in, or says what they may do, would outlive the hour that a machine has,
// and what a thief has of a login.
func CheckLasting(tx *store.Tx, by Actor) error {
	return checkLasting(tx, by, "users, roles, passwords and identity providers", "set")
}

// CheckReveal refuses private keys to whom CheckLasting refuses the rest: nothing here ends
// a key that somebody has.
func CheckReveal(tx *store.Tx, by Actor) error {
	return checkLasting(tx, by, "private keys", "revealed")
}

func checkLasting(tx *store.Tx, by Actor, what, done string) error {
	if by.Kind == "machine" {
		return trust.Errorf(trust.Denied, "%s outlive a machine's login, and %s is a machine", what, by.describe()).
			WithHint("have a user do it, or a token of one")
	}
	return cmp.Or(checkActor(tx, by), checkAge(tx, by, lastingWithin, what+" outlive a login, and are "+done))
}

// lastingWithin is how long after a login what outlives it can be made.
const lastingWithin = time.Hour

// checkAge refuses a login that is older than age: its user may not be there, but a
// thief of its token.
func checkAge(tx *store.Tx, by Actor, age time.Duration, what string) error {
	if by.began.IsZero() || tx.Now().Sub(by.began) <= age {
		return nil
	}
	return trust.Errorf(trust.Denied, "%s within %s of it; this one is older", what, age).WithHint("keyturn login, and then the same again")
}

// checkActor refuses an actor of another tenant than that of tx: a fault of the
// caller's.
func checkActor(tx *store.Tx, by Actor) error {
	if by.Tenant != tx.Tenant() || tx.Tenant() == store.System {
		return trust.Errorf(trust.Internal, "actor of tenant %q in a transaction of %q", by.Tenant, tx.Tenant())
	}
	return nil
}
