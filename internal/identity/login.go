package identity

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// unauthenticated is what is said of every credential that does not hold,
// whatever the reason.
func unauthenticated() *trust.Error {
	return trust.Errorf(trust.Unauthenticated, "the user name, password or token is not valid, or not any longer").
		WithHint("keyturn login, or see what KEYTURN_TOKEN, or KEYTURN_USER and KEYTURN_PASSWORD, are set to")
}

// codeMissing says to who has a user's password that the user has a second factor.
func codeMissing(name string) error {
	return trust.Errorf(trust.Unauthenticated, "user %q logs in with a second factor, and its code is missing", name).
		WithField("code").WithHint("set KEYTURN_TOTP to the six digits that the authenticator shows")
}

// Password checks a user's password. User is a name in the tenant "default", or
// TENANT/NAME with a tenant's name or id. Source is the address that the request
// came from, with or without port. Code is that of the user's second factor, if the
// user has one.
//
// A wrong one is Unauthenticated, be it the name, the password or the code, and takes
// as long for a name that nobody has. Too many wrong ones from an address are
// Exhausted, with a *Throttled as the cause. Each success is an event, but for
// those within verifiedFor of one that was, with the same password from the same
// address: they cost neither a hashing nor a commit.
func (d *Directory) Password(ctx context.Context, user, password, code, source string) (Actor, error) {
	return d.password(ctx, user, password, code, source, nil)
}

// password checks a password. What the login begins that goes on after it, if there
// is begin, is part of its commit.
func (d *Directory) password(ctx context.Context, user, password, code, from string, begin func(tx *store.Tx, owner string) error) (Actor, error) {
	shown, counted := source(from)
	tenant, name, qualified := strings.Cut(user, "/")
	if !qualified {
		tenant, name = DefaultTenant, user
	}
	// What cannot be a name, a tenant or a password is taken for one that
	// nobody has, so that it costs the same.
	if !userName.MatchString(name) {
		name = ""
	}
	if !userName.MatchString(tenant) {
		tenant = ""
	}
	if len(password) > maxPassword {
		password = ""
	}
	tenant, name = strings.ToLower(tenant), strings.ToLower(name)
	counting := tenant + "/" + name

	if wait := d.throttle.charge(counting, counted); wait > 0 {
		return Actor{}, throttled(wait, "too many wrong passwords")
	}
	row, err := d.findLogin(ctx, tenant, name)
	if err != nil {
		d.throttle.undecided(counting, counted)
		return Actor{}, err
	}
	if begin == nil && d.verified.lately(d.verified.mac(row, row.hash, password, code, shown)) {
		d.throttle.undecided(counting, counted)
		return row.actor(shown), nil
	}
	ok, stale, err := d.hasher.matches(ctx, password, row.hash)
	if err != nil {
		d.throttle.undecided(counting, counted)
		return Actor{}, err
	}
	var step int64
	if ok && row.TOTP && code != "" {
		err := d.store.View(ctx, row.tenant, func(tx *store.Tx) (err error) {
			step, err = d.secondFactor(tx, row, code)
			return err
		})
		if err != nil {
			d.throttle.undecided(counting, counted)
			return Actor{}, err
		}
	}
	if !ok || row.TOTP && step == 0 {
		victim := string(row.tenant) + "/" + cmp.Or(row.ID, UnknownUser)
		if tell, count, elsewhere := d.throttle.failed(counting, victim, counted); tell {
			if err := d.recordFailures(ctx, row, shown, count, elsewhere); err != nil {
				return Actor{}, err
			}
		}
		if ok && code == "" {
			return Actor{}, codeMissing(row.Name)
		}
		return Actor{}, unauthenticated()
	}
	fresh := ""
	if stale {
		if fresh, err = d.hasher.hash(ctx, password); err != nil {
			d.throttle.undecided(counting, counted)
			return Actor{}, err
		}
	}
	untold := d.throttle.succeeded(counting, counted)
	actor := row.actor(shown)
	if err := d.recordLogin(ctx, actor, row, fresh, step, untold, begin); err != nil {
		return actor, err
	}
	d.verified.remember(d.verified.mac(row, cmp.Or(fresh, row.hash), password, code, shown))
	return actor, nil
}

// A loginRow is a User with what is needed to let it in. Where nobody has the
// name, only tenant is set, to say whose log is told; where there is no tenant
// at all, nothing.
type loginRow struct {
	User
	tenant   trust.TenantID
	hash     string
	totpStep int64 // of the last code that logged in
}

func (r loginRow) actor(source string) Actor {
	return Actor{Tenant: r.tenant, Kind: "user", ID: r.ID, Name: r.Name, Owner: r.ID, Source: source, Permissions: r.Permissions, Roles: r.Rights.Roles}
}

func (d *Directory) findLogin(ctx context.Context, tenant, name string) (row loginRow, err error) {
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		row = loginRow{}
		id, err := selectTenantByName(tx, tenant)
		known := err == nil
		if errors.Is(err, sql.ErrNoRows) {
			id, err = selectTenantByName(tx, DefaultTenant)
		}
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		row.tenant = id
		found, err := selectLogin(tx, id, name)
		if err == nil && known {
			row = found
		}
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	return row, err
}

// UnknownUser stands in the log for every name that nobody has.
const UnknownUser = "unknown"

// recordFailures tells the log of a burst of wrong passwords: of its first one,
// with those refused or failed before that it was not told of, from that address and
// elsewhere. The name that was tried is not written down where nobody has it, because
// it might be a password.
func (d *Directory) recordFailures(ctx context.Context, row loginRow, source string, count, elsewhere int) error {
	if row.tenant == "" {
		return nil
	}
	id := cmp.Or(row.ID, UnknownUser)
	fields := []audit.Field{{Name: "failures", Value: strconv.Itoa(count)}}
	if elsewhere > 0 {
		fields = append(fields, audit.Field{Name: "elsewhere", Value: strconv.Itoa(elsewhere)})
	}
	return d.store.Update(ctx, audit.Event{
		Tenant:  row.tenant,
		Actor:   audit.Actor{Kind: "system", ID: "login", Source: source, Person: Person(id)},
		Action:  "user.refuse",
		Subject: "user:" + id,
		Fields:  fields,
	}, func(*store.Tx) error { return nil })
}

// recordLogin tells the log of a login, and in the same commit begins what goes on
// after it, if anything does, and stores the password under today's params if it
// was not. Neither the password nor whether there is a second factor must have
// changed since row was read: whoever has changed it wants what logs in by the old
// one to end.
func (d *Directory) recordLogin(ctx context.Context, a Actor, row loginRow, fresh string, step int64, untold int, begin func(*store.Tx, string) error) error {
	ev := audit.Event{Tenant: a.Tenant, Actor: a.Audit(), Action: "user.login", Subject: "user:" + a.ID}
	if untold > 0 {
		ev.Fields = append(ev.Fields, audit.Field{Name: "failures", Value: strconv.Itoa(untold)})
	}
	return d.store.Update(ctx, ev, func(tx *store.Tx) error {
		now, err := selectUser(tx, a.ID)
		if errors.Is(err, sql.ErrNoRows) || (err == nil && (now.hash != row.hash || now.TOTP != row.TOTP)) {
			return unauthenticated()
		}
		if err != nil {
			return err
		}
		if step != 0 {
			if first, err := spendTOTP(tx, a.ID, step); err != nil || !first {
				return cmp.Or(err, error(unauthenticated()))
			}
		}
		if fresh != "" {
			if err := updatePassword(tx, a.ID, fresh); err != nil {
				return err
			}
		}
		if begin == nil {
			return nil
		}
		return begin(tx, a.ID)
	})
}

// Token returns who an API token acts as: with those of its permissions that its
// owner has now.
func (d *Directory) Token(ctx context.Context, token, from string) (Actor, error) {
	shown, _ := source(from)
	hash, err := tokenHash(token)
	if err != nil {
		return Actor{}, err
	}
	return d.token(ctx, shown, func(tx *store.Tx) (tokenRow, error) {
		row, err := selectTokenByHash(tx, hash)
		if err != nil {
			return row, err
		}
		return row.shownBy(hash, tx.Now())
	})
}

// UserToken is Token for a client that also says by name or address whose token it is. One that is
// somebody else's does not hold.
func (d *Directory) UserToken(ctx context.Context, user, token, from string) (Actor, error) {
	actor, err := d.Token(ctx, token, from)
	if err != nil {
		return Actor{}, err
	}
	err = d.store.View(ctx, actor.Tenant, func(tx *store.Tx) error {
		owner, err := selectUser(tx, actor.Owner)
		if errors.Is(err, sql.ErrNoRows) || err == nil && !strings.EqualFold(owner.Name, user) && (owner.Email == "" || mailbox(owner.Email) != mailbox(user)) {
			return unauthenticated()
		}
		return err
	})
	if err != nil {
		return Actor{}, err
	}
	return actor, nil
}

// token returns who the token that find finds acts as, and notes its use.
func (d *Directory) token(ctx context.Context, source string, find func(*store.Tx) (tokenRow, error)) (actor Actor, err error) {
	var used, now time.Time
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		row, err := find(tx)
		if errors.Is(err, sql.ErrNoRows) {
			return unauthenticated()
		}
		if err != nil {
			return err
		}
		used, now = row.Used, tx.Now()
		actor, err = row.actor(now, source)
		return err
	})
	if err != nil {
		return Actor{}, err
	}
	if now.Sub(used) >= useInterval {
		id := actor.ID
		d.note(ctx, actor, "token:"+id, "token.use", useInterval, now, func(tx *store.Tx) error { return markTokenUsed(tx, id) })
	}
	return actor, nil
}

// maxNoted bounds how many tokens and logins are remembered to have been written down,
// or asked after, lately.
const maxNoted = 4096

// due reports whether what a node does once per interval is to be done now.
func (d *Directory) due(what string, now time.Time, interval time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if last, there := d.noted[what]; there && now.Sub(last) < interval {
		return false
	}
	if len(d.noted) >= maxNoted {
		clear(d.noted) // costs each of it once more
	}
	d.noted[what] = now
	return true
}

// note writes down that a credential is in use, once per interval and node. The
// credential holds whether or not that can be written down.
func (d *Directory) note(ctx context.Context, a Actor, subject, action string, interval time.Duration, now time.Time, fn func(*store.Tx) error) {
	if !d.due(subject, now, interval) {
		return
	}
	err := d.store.Update(ctx, audit.Event{Tenant: a.Tenant, Actor: a.Audit(), Action: action, Subject: subject}, fn)
	if err == nil {
		return
	}
	d.mu.Lock()
	delete(d.noted, subject)
	d.mu.Unlock()
	if ctx.Err() == nil {
		d.log.WarnContext(ctx, fmt.Sprintf("%s: not written down", action), "subject", subject, "error", err)
	}
}
