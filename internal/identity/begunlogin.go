package identity

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/oidc"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// People log in at an identity provider, whose client is the server: the command
// line knows neither its secret nor its tokens. A login begins with a challenge, goes
// to the provider and comes back to the command line as a state and a code, or is
// asked after by a device code, and ends with a login token. In between it is a row
// of the database, so that any node can finish it, once.
//
// The challenge is that of PKCE (RFC 7636), and what it is the SHA-256 of is the
// command line's alone: neither the browser's history, where state and code are, nor
// the database has what finishes a login.

const (
	begunLife = 10 * time.Minute
	// How many logins there are that have begun and not ended, of a tenant, where more
	// than that push out the busiest source's, and of those that began at one address
	// or /64. Behind a proxy that is everybody's.
	maxBegun     = 1000
	maxBegunHere = 200
)

// A begunLogin is a login that has gone to an identity provider.
type begunLogin struct {
	tenant    trust.TenantID
	id        string // see begunID
	provider  Provider
	device    bool
	challenge string
	nonce     string
	redirect  string
	source    string // as it is counted
	ends      time.Time
}

// begunID returns what is stored of a state or a device code.
func begunID(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// notBegun is said of a login that there is not, whyever.
func notBegun() error {
	return trust.Errorf(trust.Unauthenticated, "this login has not begun here, has ended, or took longer than %s", begunLife).WithHint("keyturn login")
}

// LoginProviders returns the names of the providers by which people can log in to a
// tenant, of which account is the name or id. Anybody may know them.
func (d *Directory) LoginProviders(ctx context.Context, account string) (names []string, err error) {
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		names = nil
		tenant, err := selectTenantByName(tx, cmp.Or(account, DefaultTenant))
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		if err != nil {
			return err
		}
		all, err := selectProvidersOf(tx, tenant)
		for _, p := range all {
			if p.Kind == People {
				names = append(names, p.Name)
			}
		}
		return err
	})
	return names, err
}

// A namedProvider is a provider with what a login by it needs.
type namedProvider struct {
	Provider
	tenant       trust.TenantID
	registration oidc.Registration
}

// findProvider returns the provider of a name in the tenant "default", or of
// TENANT/NAME.
func (d *Directory) findProvider(ctx context.Context, name string, kind ProviderKind) (n namedProvider, err error) {
	tenant, short, qualified := strings.Cut(name, "/")
	if !qualified {
		tenant, short = DefaultTenant, name
	}
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		n.tenant, err = selectTenantByName(tx, tenant)
		if err != nil {
			return err
		}
		n.Provider, err = selectProvider(tx, n.tenant, strings.ToLower(short))
		return err
	})
	if errors.Is(err, sql.ErrNoRows) || err == nil && n.Kind != kind {
		return namedProvider{}, trust.Errorf(trust.NotFound, "there is no identity provider %.80q for %s", name, kind).WithField("provider")
	}
	if err != nil {
		return namedProvider{}, err
	}
	n.registration, err = d.registrationOf(ctx, n.tenant, n.Provider)
	return n, err
}

func (d *Directory) registrationOf(ctx context.Context, tenant trust.TenantID, p Provider) (r oidc.Registration, err error) {
	err = d.store.View(ctx, tenant, func(tx *store.Tx) error {
		r, err = d.registration(tx, p)
		return err
	})
	return r, err
}

// A BrowserLogin is a login of a person that goes on at URL, and comes back to
// RedirectURI with State.
type BrowserLogin struct{ URL, State, RedirectURI string }

// RedirectURI returns where logins by a provider come back to a listener, or "" of
// machines. Its path is no other provider's (RFC 9700, section 4.4.2.2): codes are
// bound to it, so that the code which somebody is made to fetch at another provider
// finishes no login that began there.
func (p Provider) RedirectURI(listener string) string {
	if p.Kind != People {
		return ""
	}
	return listener + "/callback/" + p.ID
}

// BeginLogin begins a login of a person. Listener is the origin of a listener on the
// person's own machine (RFC 8252, section 7.3), to which it comes back by the
// provider's RedirectURI. Challenge is the SHA-256 in base64url of what
// FinishLogin has to be told. It is an event.
func (d *Directory) BeginLogin(ctx context.Context, provider, listener, challenge, from string) (l BrowserLogin, err error) {
	shown, counted := source(from)
	if err := checkListener(listener); err != nil {
		return l, err
	}
	if b, err := base64.RawURLEncoding.Strict().DecodeString(challenge); err != nil || len(b) != sha256.Size {
		return l, trust.Errorf(trust.Invalid, "the challenge is no SHA-256 in base64url").WithField("challenge")
	}
	p, err := d.findProvider(ctx, provider, People)
	if err != nil {
		return l, err
	}
	l.State, l.RedirectURI = rand.Text(), p.RedirectURI(listener)
	b := begunLogin{tenant: p.tenant, id: begunID(l.State), provider: p.Provider, challenge: challenge, nonce: rand.Text(), redirect: l.RedirectURI, source: counted}
	l.URL, err = d.oidc.AuthorizationURL(ctx, p.registration, l.RedirectURI, l.State, b.nonce, challenge)
	if err != nil {
		return l, err
	}
	return l, d.keepBegun(ctx, b, shown, begunLife)
}

// checkListener refuses to send a code to anything but a listener that a command has
// opened on the machine that it runs on.
func checkListener(text string) error {
	u, err := url.Parse(text)
	if err == nil {
		var at netip.AddrPort
		at, err = netip.ParseAddrPort(u.Host)
		if err == nil && at.Addr().IsLoopback() && at.Addr().Zone() == "" && at.Port() != 0 && text == "http://"+at.String() {
			return nil
		}
	}
	return trust.Errorf(trust.Invalid, "%.100q is not of the form http://127.0.0.1:PORT", text).WithField("listener")
}

// keepBegun keeps a login that has begun.
func (d *Directory) keepBegun(ctx context.Context, b begunLogin, shown string, life time.Duration) error {
	return d.store.Update(ctx, audit.Event{
		Tenant: b.tenant, Actor: audit.Actor{Kind: "system", ID: "login", Source: shown}, Action: "login.begin", Subject: "provider:" + b.provider.ID,
	}, func(tx *store.Tx) error {
		if err := deleteEndedBegunLogins(tx); err != nil {
			return err
		}
		if err := checkBegun(tx, b.tenant, b.source); err != nil {
			return err
		}
		// Whoever fills the tenant's share from many sources keeps nobody out.
		all, _, err := countBegunLogins(tx, b.tenant, b.source)
		if err != nil {
			return err
		}
		if all >= maxBegun {
			if err := evictBegunLogin(tx); err != nil {
				return err
			}
		}
		b.ends = tx.Now().Add(min(life, begunLife))
		return insertBegunLogin(tx, b)
	})
}

// checkBegun refuses to begin more logins at a source than there may be.
func checkBegun(tx *store.Tx, tenant trust.TenantID, source string) error {
	_, here, err := countBegunLogins(tx, tenant, source)
	if err == nil && here >= maxBegunHere {
		return throttled(begunLife, "too many logins have begun and not ended")
	}
	return err
}

// FinishLogin exchanges the answer that a login came back with for a login token. Only
// who began it knows the verifier. A login ends at the first answer of the provider
// that says who it is of, also if that may not log in; each of these is an event.
func (d *Directory) FinishLogin(ctx context.Context, state string, answer Answer, verifier, from string) (LoginToken, error) {
	shown, counted := source(from)
	id := begunID(state)
	if wait := d.throttle.charge(id, counted); wait > 0 {
		return LoginToken{}, throttled(wait, "too many logins that failed")
	}
	b, err := d.begun(ctx, id, false)
	sum := sha256.Sum256([]byte(verifier))
	if err == nil && subtle.ConstantTimeCompare([]byte(b.challenge), []byte(base64.RawURLEncoding.EncodeToString(sum[:]))) != 1 {
		err = notBegun()
	}
	if err != nil {
		return LoginToken{}, d.unfinished(ctx, id, b, shown, counted, err)
	}
	registration, err := d.registrationOf(ctx, b.tenant, b.provider)
	if err != nil {
		return LoginToken{}, d.unfinished(ctx, id, b, shown, counted, err)
	}
	claims, err := d.oidc.Exchange(ctx, registration, b.redirect, answer, verifier, b.nonce)
	if err != nil {
		return LoginToken{}, d.unfinished(ctx, id, b, shown, counted, err)
	}
	d.throttle.succeeded(id, counted)
	return d.admit(ctx, b, claims, shown)
}

// begun returns a login that can be finished.
func (d *Directory) begun(ctx context.Context, id string, device bool) (b begunLogin, err error) {
	err = d.store.View(ctx, store.System, func(tx *store.Tx) error {
		b, err = selectBegunLogin(tx, id)
		if errors.Is(err, sql.ErrNoRows) || err == nil && (!tx.Now().Before(b.ends) || b.device != device) {
			b = begunLogin{}
			return notBegun()
		}
		return err
	})
	return b, err
}

// unfinished counts an attempt that failed by err, and tells the log of the first of
// a burst.
func (d *Directory) unfinished(ctx context.Context, id string, b begunLogin, shown, counted string, err error) error {
	if trust.KindOf(err) != trust.Unauthenticated {
		d.throttle.undecided(id, counted)
		return err
	}
	tell, count, elsewhere := d.throttle.failed(id, "provider:"+b.provider.ID, counted)
	if !tell || b.tenant == "" {
		return err
	}
	return cmp.Or(d.recordRefusal(ctx, b.tenant, b.provider, shown, count+elsewhere), err)
}

// An Answer is what the browser brings back from a provider, beside the state.
type Answer = oidc.Answer

// A DeviceLogin is what a person is told who logs in at another device.
type DeviceLogin = oidc.Device

// StartDeviceLogin begins a login of a person who has no browser where the command
// is. It is an event.
func (d *Directory) StartDeviceLogin(ctx context.Context, provider, from string) (DeviceLogin, error) {
	shown, counted := source(from)
	p, err := d.findProvider(ctx, provider, People)
	if err != nil {
		return DeviceLogin{}, err
	}
	// Before the provider is asked, too: it is not for us to ask it without bound.
	err = d.store.View(ctx, p.tenant, func(tx *store.Tx) error { return checkBegun(tx, p.tenant, counted) })
	if err != nil {
		return DeviceLogin{}, err
	}
	device, err := d.oidc.StartDevice(ctx, p.registration)
	if err != nil {
		return DeviceLogin{}, err
	}
	device.Lasts = min(device.Lasts, begunLife)
	b := begunLogin{tenant: p.tenant, id: begunID(device.Code), provider: p.Provider, device: true, source: counted}
	return device, d.keepBegun(ctx, b, shown, device.Lasts)
}

// What PollDeviceLogin returns of a login.
const (
	DeviceDone     DeviceProgress = ""
	DevicePending  DeviceProgress = "pending"
	DeviceSlowDown DeviceProgress = "slow_down" // to be asked after five seconds less often
)

// A DeviceProgress is how far a login at another device is.
type DeviceProgress string

// pollPace is how often a provider is asked after a login at the most, however often
// we are.
const pollPace = 500 * time.Millisecond

// PollDeviceLogin returns the login token of a person who has logged in at another
// device, or that it goes on. The device code is the secret of who began the login: no
// browser has it.
func (d *Directory) PollDeviceLogin(ctx context.Context, code, from string) (LoginToken, DeviceProgress, error) {
	shown, counted := source(from)
	id := begunID(code)
	if wait := d.throttle.charge(id, counted); wait > 0 {
		return LoginToken{}, "", throttled(wait, "too many logins that failed")
	}
	b, err := d.begun(ctx, id, true)
	if err != nil {
		return LoginToken{}, "", d.unfinished(ctx, id, b, shown, counted, err)
	}
	if !d.due("device:"+id, d.throttle.now(), pollPace) {
		d.throttle.undecided(id, counted)
		return LoginToken{}, DevicePending, nil
	}
	registration, err := d.registrationOf(ctx, b.tenant, b.provider)
	if err != nil {
		return LoginToken{}, "", d.unfinished(ctx, id, b, shown, counted, err)
	}
	claims, err := d.oidc.PollDevice(ctx, registration, code)
	switch {
	case errors.Is(err, oidc.ErrPending):
		d.throttle.undecided(id, counted)
		return LoginToken{}, DevicePending, nil
	case errors.Is(err, oidc.ErrSlowDown):
		d.throttle.undecided(id, counted)
		return LoginToken{}, DeviceSlowDown, nil
	case err != nil:
		return LoginToken{}, "", d.unfinished(ctx, id, b, shown, counted, err)
	}
	d.throttle.succeeded(id, counted)
	l, err := d.admit(ctx, b, claims, shown)
	return l, DeviceDone, err
}
