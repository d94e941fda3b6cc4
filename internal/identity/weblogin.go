package identity

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A web login is what a login goes on as: a secret that is as good as the login
// until it ends, of which only the hash is kept. AppViewX calls it a session and
// gives it the form of a UUID; that of keyturn login is a login token. It ends with
// the user, and when the user's password or second factor changes.

// A lasting is how long a web login holds: life at the most, and without being used
// idle. That it is used is written down each time a fifth of idle has gone by, each
// time an event, and so it may last that much longer.
type lasting struct{ idle, life time.Duration }

const (
	// What AppViewX documents.
	webLoginIdle   = 15 * time.Minute
	webLoginExtend = webLoginIdle / 5
	webLoginLife   = 12 * time.Hour
	// A person at work is not asked again before the next day, and after a long
	// break.
	loginTokenIdle = 2 * time.Hour
	loginTokenLife = 12 * time.Hour
	// maxWebLogins is how many a user, or a machine, has at most. One more ends the one that
	// has not been used for the longest time. Scripts that talk to AppViewX log in each
	// time, and do not log out.
	maxWebLogins = 200
)

// A webLoginRow is a web login as it is stored, with who it acts as.
type webLoginRow struct {
	actor      Actor
	seen, ends time.Time
	idle       time.Duration
}

// holds reports whether w has not ended. That of a machine has no idle.
func (w webLoginRow) holds(now time.Time) bool {
	return now.Before(w.ends) && (w.idle == 0 || now.Sub(w.seen) <= w.idle+w.idle/5)
}

// A LoginToken is what keyturn login gets.
type LoginToken struct {
	Actor Actor
	Text  string // which is not kept
	// Idle is how long it holds without being used; 0 for as long as it holds.
	Idle time.Duration
}

// Login checks a password as Password does and begins a web login, whose id it
// returns: 128 random bits that look like a UUID, the sessionId of AppViewX. Each is
// an event.
func (d *Directory) Login(ctx context.Context, user, password, code, source string) (Actor, string, error) {
	id := newWebLoginID()
	actor, err := d.password(ctx, user, password, code, source, func(tx *store.Tx, owner string) error {
		return beginWebLogin(tx, id, owner, lasting{webLoginIdle, webLoginLife})
	})
	if err != nil {
		return Actor{}, "", err
	}
	return actor, id, nil
}

// PasswordLogin checks a password as Password does and begins a web login with a
// login token. Each is an event.
func (d *Directory) PasswordLogin(ctx context.Context, user, password, code, source string) (LoginToken, error) {
	l := LoginToken{Text: newLoginToken(), Idle: loginTokenIdle}
	var until time.Time
	var err error
	l.Actor, err = d.password(ctx, user, password, code, source, func(tx *store.Tx, owner string) error {
		until = tx.Now().Add(loginTokenLife)
		return beginWebLogin(tx, l.Text, owner, lasting{loginTokenIdle, loginTokenLife})
	})
	if err != nil {
		return LoginToken{}, err
	}
	l.Actor.Until = until
	return l, nil
}

// beginWebLogin keeps a web login of a user, by its id or login token.
func beginWebLogin(tx *store.Tx, secret, owner string, l lasting) error {
	if err := deleteEndedWebLogins(tx); err != nil {
		return err
	}
	if err := deleteWebLoginsBut(tx, owner, maxWebLogins-1); err != nil {
		return err
	}
	return insertWebLogin(tx, webLoginHash(secret), owner, l)
}

// WebLogin returns who holds the id of a web login that has not ended.
func (d *Directory) WebLogin(ctx context.Context, id, from string) (Actor, error) {
	if len(id) != 36 {
		return Actor{}, unauthenticated()
	}
	return d.webLogin(ctx, id, from)
}

// Bearer returns who an API token, or a login token that has not ended, acts as.
func (d *Directory) Bearer(ctx context.Context, text, from string) (Actor, error) {
	digits, ok := strings.CutPrefix(text, loginTokenPrefix)
	if !ok {
		return d.Token(ctx, text, from)
	}
	if !areDigits(digits) {
		return Actor{}, unauthenticated()
	}
	return d.webLogin(ctx, text, from)
}

// webLogin returns who holds a web login, and keeps it from idling out.
func (d *Directory) webLogin(ctx context.Context, secret, from string) (Actor, error) {
	shown, _ := source(from)
	hash := webLoginHash(secret)
	var w webLoginRow
	var now time.Time
	err := d.store.View(ctx, store.System, func(tx *store.Tx) (err error) {
		w, err = selectWebLogin(tx, hash)
		if errors.Is(err, sql.ErrNoRows) {
			w, err = selectMachineLogin(tx, hash)
		}
		if errors.Is(err, sql.ErrNoRows) {
			return unauthenticated()
		}
		if err != nil {
			return err
		}
		if now = tx.Now(); !w.holds(now) {
			return unauthenticated()
		}
		return nil
	})
	if err != nil {
		return Actor{}, err
	}
	actor := w.actor
	actor.Source, actor.Until, actor.webLogin = shown, w.ends, hash
	if extend := w.idle / 5; extend > 0 && now.Sub(w.seen) >= extend {
		d.note(ctx, actor, "web-login:"+hash[:32], "web-login.extend", extend, now, func(tx *store.Tx) error { return extendWebLogin(tx, hash) })
	}
	return actor, nil
}

// EndWebLogin ends the web login that by came by.
func (d *Directory) EndWebLogin(tx *store.Tx, by Actor) error {
	if err := checkActor(tx, by); err != nil {
		return err
	}
	if by.webLogin == "" {
		return trust.Errorf(trust.Conflict, "%s has not logged in: there is nothing to end", by.describe()).
			WithHint("keyturn token revoke ends an API token")
	}
	if by.Kind == "machine" {
		return deleteMachineLogin(tx, by.webLogin)
	}
	return deleteWebLogin(tx, by.webLogin)
}
