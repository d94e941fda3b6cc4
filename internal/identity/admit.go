package identity

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"keyturn/internal/audit"
	"keyturn/internal/oidc"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// What becomes of claims: who logs in with them, and as what.

// nobody is what is said to a person who logs in with claims that give no role: which there
// were, so that an administrator can be told, and not which it takes.
func nobody(p Provider, c oidc.Claims) error {
	var seen []string
	for _, m := range p.matches() {
		if values := c.Values(m.Claim); len(values) > 0 && !slices.ContainsFunc(seen, func(s string) bool { return strings.HasPrefix(s, m.Claim+" is ") }) {
			seen = append(seen, fmt.Sprintf("%s is %.300q", m.Claim, values))
		}
	}
	said := "none of what it goes by"
	if len(seen) > 0 {
		said = strings.Join(seen, ", ")
	}
	return trust.Errorf(trust.Denied, "identity provider %q lets nobody in of whom it says this: %s (the claims are %.500s)", p.Name, said, strings.Join(c.Names(), ", ")).
		WithHint("an administrator says who gets in with keyturn provider set")
}

// admit ends a login that has begun: the person that claims are of logs in, as a user
// whose rights they say, made at the first time. Whom they give no role does not, and
// loses what they gave before.
func (d *Directory) admit(ctx context.Context, b begunLogin, claims oidc.Claims, shown string) (LoginToken, error) {
	roles, missing := b.provider.roles(claims)
	var u loginRow
	known := false
	var refused *trust.Error
	err := d.store.View(ctx, b.tenant, func(tx *store.Tx) (err error) {
		u, err = selectUserBySubject(tx, b.provider.ID, claims.Subject)
		known, refused = err == nil, nil
		if errors.Is(err, sql.ErrNoRows) {
			u.User = User{ID: newID()}
			u.Name, refused, err = newName(tx, b.provider, claims)
		}
		return err
	})
	switch {
	case err != nil:
		return LoginToken{}, err
	case missing != "" && known:
		return LoginToken{}, d.turnAway(ctx, b, u.ID, shown, missing, nobody(b.provider, claims))
	case missing != "":
		return LoginToken{}, d.turnAway(ctx, b, "", shown, missing, nobody(b.provider, claims))
	case refused != nil:
		return LoginToken{}, d.turnAway(ctx, b, "", shown, refused.Message, refused)
	}
	l := LoginToken{Text: newLoginToken(), Idle: loginTokenIdle}
	err = d.store.Update(ctx, audit.Event{
		Tenant: b.tenant, Action: "user.login", Subject: "user:" + u.ID,
		Actor:  audit.Actor{Kind: "user", ID: u.ID, Name: u.Name, Source: shown, Person: Person(u.ID)},
		Fields: []audit.Field{{Name: "provider", Value: b.provider.Name}, {Name: "roles", Value: strings.Join(roles, ", ")}},
	}, func(tx *store.Tx) error {
		if err := spendBegun(tx, b); err != nil {
			return err
		}
		u.Rights = Rights{Roles: roles}
		var err error
		if known {
			err = updateRights(tx, u.ID, u.Rights)
		} else {
			err = insertProvidersUser(tx, u.User, b.provider.ID, claims.Subject) // a Conflict where another was faster
		}
		if err != nil {
			return err
		}
		if err := beginWebLogin(tx, l.Text, u.ID, lasting{loginTokenIdle, loginTokenLife}); err != nil {
			return err
		}
		if err := keepSaid(tx, u.ID, b.provider.ID, webLoginHash(l.Text), claims); err != nil {
			return err
		}
		now, err := selectUser(tx, u.ID)
		if errors.Is(err, sql.ErrNoRows) { // removed while the provider was asked
			return notBegun()
		}
		if err != nil {
			return err
		}
		l.Actor = now.actor(shown)
		l.Actor.Until = tx.Now().Add(loginTokenLife)
		return keepEmail(tx, now.User, claims)
	})
	if err != nil {
		return LoginToken{}, err
	}
	return l, nil
}

// spendBegun ends a login that has begun, which can be done once.
func spendBegun(tx *store.Tx, b begunLogin) error {
	if err := checkUnchanged(tx, b.provider); err != nil {
		return err
	}
	first, err := deleteBegunLogin(tx, b.id)
	if err == nil && !first {
		return notBegun()
	}
	return err
}

// checkUnchanged refuses a login by a provider that was removed or changed since it
// was read: claims were judged by what it said then.
func checkUnchanged(tx *store.Tx, p Provider) error {
	now, err := selectProviderByID(tx, tx.Tenant(), p.ID)
	if errors.Is(err, sql.ErrNoRows) || err == nil && (joinLines(p.Rules) != joinLines(now.Rules) || joinLines(p.Required) != joinLines(now.Required)) {
		return trust.Errorf(trust.Conflict, "identity provider %q was changed just now", p.Name).WithHint("keyturn login")
	}
	return err
}

// newName returns what a user is to be called who logs in for the first time, or why
// that cannot be.
func newName(tx *store.Tx, p Provider, c oidc.Claims) (name string, refused *trust.Error, err error) {
	for _, n := range append(c.Values(p.NameClaim), c.Values("email")...) {
		if name == "" && isUserName(n) {
			name = n
		}
	}
	if name == "" {
		return "", trust.Errorf(trust.Denied, "identity provider %q calls you by no name that a user can have: neither %s nor email is 1 to 64 of letters, digits and \"._@+-\", and no id", p.Name, p.NameClaim), nil
	}
	there, err := selectUserByLogin(tx, strings.ToLower(name))
	if errors.Is(err, sql.ErrNoRows) {
		return name, nil, nil
	}
	whose := "a user of this account is called so"
	if there.Provider != "" {
		whose = fmt.Sprintf("so is another whom %q vouches for", there.Provider)
	}
	return "", trust.Errorf(trust.Conflict, "identity provider %q calls you %q, and %s: a name lets nobody take another's place", p.Name, name, whose).
		WithHint("an administrator can remove that user, or have people called by another claim"), err
}

// turnAway ends a login of who may not log in. What a user has logged in with before
// ends as well, and API tokens may do nothing until claims say otherwise.
func (d *Directory) turnAway(ctx context.Context, b begunLogin, user, shown, why string, answer error) error {
	id := user
	if id == "" {
		id = "unknown"
	}
	err := d.store.Update(ctx, audit.Event{
		Tenant: b.tenant, Action: "user.refuse", Subject: "user:" + id,
		Actor:  audit.Actor{Kind: "system", ID: "login", Source: shown, Person: Person(id)},
		Fields: []audit.Field{{Name: "provider", Value: b.provider.Name}, {Name: "reason", Value: why}},
	}, func(tx *store.Tx) error {
		if err := spendBegun(tx, b); err != nil || user == "" {
			return err
		}
		if err := endLogins(tx, user); err != nil {
			return err
		}
		if err := forgetSaid(tx, user); err != nil {
			return err
		}
		if err := updateEmail(tx, user, ""); err != nil {
			return err
		}
		return updateRights(tx, user, Rights{})
	})
	if err != nil {
		return err
	}
	return answer
}

// recordRefusal tells the log of a burst of logins by a provider that failed before
// anybody knew whose they are.
func (d *Directory) recordRefusal(ctx context.Context, tenant trust.TenantID, p Provider, shown string, count int) error {
	return d.store.Update(ctx, audit.Event{
		Tenant: tenant, Actor: audit.Actor{Kind: "system", ID: "login", Source: shown},
		Action: "provider.refuse", Subject: "provider:" + p.ID,
		Fields: []audit.Field{{Name: "provider", Value: p.Name}, {Name: "failures", Value: strconv.Itoa(count)}},
	}, func(*store.Tx) error { return nil })
}
