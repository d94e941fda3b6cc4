package identity

import (
	"net/netip"
	"strings"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/trust"
)

// An Actor is who asks: a user, an API token, a machine that an identity provider
// vouches for, or the system on its own behalf.
// It is a value that nothing refers back to; what it may do was settled when its
// credential was checked.
type Actor struct {
	Tenant trust.TenantID
	Kind   string // "user", "token", "machine" or "system"
	ID     string // of the user, the token or the machine's provider
	Name   string // of the user or the token, or PROVIDER/SUBJECT, to be shown
	Owner  string // id of the user on whose behalf a token acts; a user's own id
	// Personal is whether a token asks as its owner where policies decide.
	Personal bool
	// Source is the address that the actor came from, without port, as the
	// front door told it.
	Source string
	// Permissions are those that hold now: of a token, only those that its
	// owner has as well.
	Permissions []Permission
	// Roles are those that a user or a machine has, by name. What they permit is among
	// Permissions.
	Roles []string
	// Until is when the credential ends however much it is used, zero for never.
	Until time.Time

	text     string    // of a token, the stored hash of the text that was shown
	webLogin string    // the stored id of the web login that it came by, or ""
	began    time.Time // when that began, of a user's; zero otherwise
}

// System is Keyturn itself, at work for a tenant without anybody having asked:
// schedules, the dispatcher, retention.
func System(tenant trust.TenantID) Actor {
	return Actor{Tenant: tenant, Kind: "system", Permissions: []Permission{All}}
}

// IsPerson reports whether a asks as a user, in person or by a token that the user has
// made for that, and not in its own name.
func (a Actor) IsPerson() bool { return a.Kind == "user" || a.Personal }

// May reports whether a may do p.
func (a Actor) May(p Permission) bool { return may(a.Permissions, p) }

// Require returns nil if a may do p, and otherwise a Denied error that names p.
func (a Actor) Require(p Permission) error {
	if a.May(p) {
		return nil
	}
	e := trust.Errorf(trust.Denied, "this needs the permission %q, which %s does not have", p, a.describe())
	switch a.Kind {
	case "user":
		return e.WithHint("ask an administrator: keyturn user set %s --permission %q, with all that %s is to do besides", a.Name, p, a.Name)
	case "token":
		return e.WithHint("a token may do what it was made for, while its owner may: keyturn token create NAME --permission %q, and keyturn user show OWNER", p)
	}
	return e.WithHint("ask an administrator for a token: keyturn token create NAME --permission %q", p)
}

func (a Actor) describe() string {
	if a.Kind == "system" {
		return "the system"
	}
	return a.Kind + " \"" + a.Name + "\""
}

// Audit returns a as events name it. A token's name and address are its owner's
// personal data and go when the owner is erased.
func (a Actor) Audit() audit.Actor {
	actor := audit.Actor{Kind: a.Kind, ID: a.ID, Name: a.Name, Source: a.Source}
	if a.Owner != "" {
		actor.Person = Person(a.Owner)
	}
	return actor
}

// Person returns the id that personal data of a user is sealed to, for
// keyring.ErasePerson.
func Person(userID string) string { return "user:" + userID }

// source returns the address in text of the form "address" or "address:port",
// and the same as the throttle counts it: an IPv6 host has at least a /64 to
// choose addresses from. Text that holds no address, such as "unix", stands for
// itself.
func source(text string) (shown, counted string) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		port, portErr := netip.ParseAddrPort(text)
		if portErr != nil {
			if len(text) > 64 {
				text = text[:64]
			}
			text = strings.ToValidUTF8(strings.ReplaceAll(text, "\x00", ""), "")
			return text, text
		}
		addr = port.Addr()
	}
	addr = addr.Unmap().WithZone("")
	if addr.Is6() {
		prefix, _ := addr.Prefix(64) // cannot fail for 64 bits of 128
		return addr.String(), prefix.String()
	}
	return addr.String(), addr.String()
}
