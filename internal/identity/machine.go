package identity

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
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
// with the roles that its claims give. Each is an event, and so is the first of a burst of
// those that are turned away.
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
		return LoginToken{}, d.turnMachineAway(ctx, p, claims, shown, counted, missing)
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
		if err := deleteMachineLoginsBut(tx, p.ID, claims.Subject, maxWebLogins-1); err != nil {
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

// turnMachineAway tells the log why a machine may not log in, and the machine only that it
// may not: anybody may have a token of a provider that issues them to everybody, and what
// it would take is nobody else's business. Of a burst the log is told as of wrong passwords.
func (d *Directory) turnMachineAway(ctx context.Context, p namedProvider, claims oidc.Claims, shown, counted, why string) error {
	refused := trust.Errorf(trust.Denied, "identity provider %q lets no machine in of which it says this (the claims are %.500s)", p.Name, strings.Join(claims.Names(), ", ")).
		WithHint("the server's log says what is missing, and an administrator who gets in: keyturn provider set")
	d.log.InfoContext(ctx, "a machine is turned away", "provider", p.Name, "subject", fmt.Sprintf("%.200s", claims.Subject), "reason", why, "from", shown)
	tell, count, elsewhere := d.throttle.refused(p.ID+"/"+claims.Subject, "machines:"+p.ID, counted)
	if !tell {
		return refused
	}
	err := d.store.Update(ctx, audit.Event{
		Tenant: p.tenant, Actor: machine(p.tenant, p.Provider, claims.Subject).at(shown).Audit(), Action: "machine.refuse", Subject: "provider:" + p.ID,
		Fields: []audit.Field{{Name: "provider", Value: p.Name}, {Name: "reason", Value: why}, {Name: "failures", Value: strconv.Itoa(count + elsewhere)}},
	}, func(*store.Tx) error { return nil })
	return cmp.Or(err, error(refused))
}
