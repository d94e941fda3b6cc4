package identity

import (
	"context"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/oidc"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A machine, such as a CI job, has a token that its platform has issued, and exchanges
// it for a login token: no secret of ours is kept where it runs. It acts in its own
// name and is no user: it makes no API tokens, which would outlive it.
//
// A token may be exchanged more than once, as with Vault and the clouds: jobs try
// again, and their steps log in apart from one another. All of it ends with that token.

// machineLife is how long a machine's login lasts, if its own token lasts as long.
const machineLife = time.Hour

// TokenLogin exchanges a machine's token of an identity provider for a login token,
// with the roles that its claims give. Each is an event, and so is each that is turned
// away.
func (d *Directory) TokenLogin(ctx context.Context, provider, token, from string) (LoginToken, error) {
	shown, counted := source(from)
	p, err := d.findProvider(ctx, provider, Machines)
	if err != nil {
		return LoginToken{}, err
	}
	key := begunID(token)
	if wait := d.throttle.charge(key, counted); wait > 0 {
		return LoginToken{}, throttled(wait, "too many logins that failed")
	}
	claims, err := d.oidc.Verify(ctx, p.Issuer, p.Audiences, token)
	if err != nil {
		return LoginToken{}, d.unfinished(ctx, key, begunLogin{tenant: p.tenant, provider: p.Provider}, shown, counted, err)
	}
	d.throttle.succeeded(key, counted)
	roles, missing := p.roles(claims)
	if missing != "" {
		return LoginToken{}, d.turnMachineAway(ctx, p, claims, shown, missing)
	}
	l := LoginToken{Text: newLoginToken(), Actor: machine(p.tenant, p.Provider, claims.Subject)}
	err = d.store.Update(ctx, audit.Event{
		Tenant: p.tenant, Actor: l.Actor.at(shown).Audit(), Action: "machine.login", Subject: "provider:" + p.ID,
		Fields: []audit.Field{{Name: "provider", Value: p.Name}, {Name: "roles", Value: strings.Join(roles, ", ")}},
	}, func(tx *store.Tx) error {
		ends := tx.Now().Add(machineLife)
		if claims.Expires.Before(ends) {
			ends = claims.Expires
		}
		if !tx.Now().Before(ends) {
			return trust.Errorf(trust.Unauthenticated, "the token has ended at %s", claims.Expires.UTC().Format(time.RFC3339))
		}
		if err := checkUnchanged(tx, p.Provider); err != nil {
			return err
		}
		if err := deleteEndedMachineLogins(tx); err != nil {
			return err
		}
		if err := insertMachineLogin(tx, webLoginHash(l.Text), p.ID, claims.Subject, roles, ends); err != nil {
			return err
		}
		w, err := selectMachineLogin(tx, webLoginHash(l.Text))
		l.Actor = w.actor.at(shown)
		l.Actor.Until = ends
		return err
	})
	if err != nil {
		return LoginToken{}, err
	}
	return l, nil
}

// machine returns the actor of a provider's subject, who may do nothing yet.
func machine(tenant trust.TenantID, p Provider, subject string) Actor {
	return Actor{Tenant: tenant, Kind: "machine", ID: p.ID, Name: p.Name + "/" + subject}
}

func (a Actor) at(source string) Actor {
	a.Source = source
	return a
}

// turnMachineAway tells the log, and the machine, why it may not log in.
func (d *Directory) turnMachineAway(ctx context.Context, p namedProvider, claims oidc.Claims, shown, why string) error {
	err := d.store.Update(ctx, audit.Event{
		Tenant: p.tenant, Actor: machine(p.tenant, p.Provider, claims.Subject).at(shown).Audit(), Action: "machine.refuse", Subject: "provider:" + p.ID,
		Fields: []audit.Field{{Name: "provider", Value: p.Name}, {Name: "reason", Value: why}},
	}, func(*store.Tx) error { return nil })
	if err != nil {
		return err
	}
	return nobody(p.Provider, claims, why)
}
