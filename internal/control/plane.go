// Package control holds every rule of the form "when X is asked, by whom, then
// ...": the verbs of Keyturn. Each front door reads a request of its protocol,
// asks one verb, and writes the answer.
//
// A verb has one shape: may the actor do this; read; decide; one commit of the
// change and its event; return. It calls no other verb, reads no clock but the
// transaction's, and never waits for a host: what wants to look at a host starts
// a run and returns its id.
//
// A thing of another tenant is to an actor as if it did not exist: every verb
// reads and writes within the tenant of its actor, and nothing else is there.
package control

import (
	"context"
	"embed"

	"github.com/google/uuid"

	"keyturn/internal/access"
	"keyturn/internal/audit"
	"keyturn/internal/authority"
	"keyturn/internal/identity"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// Schema is this package's part of the database: the settings.
//
//go:embed migrations/*.sql
var Schema embed.FS

// A Plane is where the verbs are. It has no state of its own, since compiled rules
// are held only as long as each transaction finds that the rows are those still, and
// may be used from any goroutine.
type Plane struct {
	store       *store.Store
	directory   *identity.Directory
	keyring     *keyring.Keyring
	engine      *job.Engine
	books       *access.Books
	authorities *authority.Authorities
}

// New returns a Plane.
func New(s *store.Store, d *identity.Directory, k *keyring.Keyring, e *job.Engine) *Plane {
	return &Plane{store: s, directory: d, keyring: k, engine: e, books: access.NewBooks(), authorities: authority.New(k)}
}

// view reads on behalf of an actor who must have a permission.
func (p *Plane) view(ctx context.Context, actor identity.Actor, needs identity.Permission, fn func(*store.Tx) error) error {
	if err := actor.Require(needs); err != nil {
		return err
	}
	return p.store.View(ctx, actor.Tenant, fn)
}

// update commits a change on behalf of an actor who must have the permissions,
// as one event.
func (p *Plane) update(ctx context.Context, actor identity.Actor, needs []identity.Permission, action, subject string, fn func(*store.Tx) error) error {
	if err := require(actor, needs...); err != nil {
		return err
	}
	return p.store.Update(ctx, audit.Event{Tenant: actor.Tenant, Actor: actor.Audit(), Action: action, Subject: subject}, fn)
}

// require refuses an actor who lacks one of the permissions. A verb that does
// anything before its commit, be it to look at what was asked for, begins with it.
func require(actor identity.Actor, needs ...identity.Permission) error {
	for _, n := range needs {
		if err := actor.Require(n); err != nil {
			return err
		}
	}
	return nil
}

// wake tells the engine that there may be something to do. It follows every
// commit that creates a run or asks something of one.
func (p *Plane) wake(err error) error {
	if err == nil {
		p.engine.Wake()
	}
	return err
}

// needs is short for the permissions of a verb.
func needs(list ...identity.Permission) []identity.Permission { return list }

// A Page asks for part of a listing.
type Page struct {
	// After is where the page begins: Next of the page before, or empty.
	After string
	// Limit is how many entries it has at most; 0 is 100.
	Limit int
}

// MaxPage is the most entries that a page can have.
const MaxPage = 1000

// id returns After where it is an id of a run or a key, or nothing.
func (p Page) id() (string, error) {
	if p.After != "" && uuid.Validate(p.After) != nil {
		return "", trust.Errorf(trust.Invalid, "%q is not where a page ended", clip(p.After)).WithField("after")
	}
	return p.After, nil
}

func (p Page) limit() (int, error) {
	switch {
	case p.Limit == 0:
		return 100, nil
	case p.Limit < 0 || p.Limit > MaxPage:
		return 0, trust.Errorf(trust.Invalid, "page size %d is not 1 to %d", p.Limit, MaxPage).WithField("limit")
	}
	return p.Limit, nil
}
