package control

import (
	"context"
	"slices"
	"strings"
	"time"

	"keyturn/internal/access"
	"keyturn/internal/audit"
	"keyturn/internal/identity"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// The log of who asked for access is read from the audit log: nothing is written down for
// it a second time.

// accessActions are the actions of events that say whether somebody got access, with what
// the log calls them.
var accessActions = map[string]struct {
	name    string
	allowed bool
}{
	"certificate.issue":  {"certificate", true},
	"certificate.refuse": {"certificate", false},
	"user.login":         {"login", true},
	"user.refuse":        {"login", false},
}

// maxAccessSearch is how many events a search of the log looks at.
const maxAccessSearch = 20_000

// An AccessEntry is one entry of the log.
type AccessEntry struct {
	ID      string // of the event
	At      time.Time
	Action  string // "certificate" or "login"
	Allowed bool
	// Application is the id of what decided, and Domain its domain, as far as one did and
	// is there still.
	Application, Domain string
	// Provider is the identity provider of a login, "" for a password.
	Provider string
	// User is the id of who asked, "" for machines and where nobody knows, and Email the
	// address that the user has now.
	User, Email string
	// Source is the address that they came from, unless the user was erased.
	Source string
}

// An AccessFilter says which entries are meant: those of which all holds that it says.
type AccessFilter struct {
	Since, Until time.Time // zero for any
	OldestFirst  bool
	Wanted       func(AccessEntry) bool // of an entry without Source; nil for all
}

// An AccessLog is a page of the log.
type AccessLog struct {
	Entries []AccessEntry
	// More is whether there are events that were not looked at, because there are too many.
	More bool
}

// SearchAccessLog returns a page of the log of who asked for access.
func (p *Plane) SearchAccessLog(ctx context.Context, actor identity.Actor, f AccessFilter, page CountedPage) (l AccessLog, err error) {
	err = p.view(ctx, actor, identity.AuditLogsRead, func(tx *store.Tx) error {
		s := accessSearch{plane: p, tx: tx, skip: (page.Number - 1) * page.Size, users: map[string]string{}, domains: map[string]string{}}
		l, err = s.run(f, page.Size)
		return err
	})
	return l, err
}

// An accessSearch is a search under way.
type accessSearch struct {
	plane   *Plane
	tx      *store.Tx
	skip    int               // how many entries are still to be passed over
	users   map[string]string // addresses by user
	domains map[string]string // by application
}

func (s *accessSearch) run(f AccessFilter, limit int) (l AccessLog, err error) {
	q := store.EventSearch{Since: f.Since, Until: f.Until, NewestFirst: !f.OldestFirst, Limit: MaxPage}
	for action := range accessActions {
		q.Actions = append(q.Actions, action)
	}
	slices.Sort(q.Actions)
	for looked := 0; looked < maxAccessSearch; looked += MaxPage {
		events, err := store.Search(s.tx, q)
		if err != nil {
			return l, err
		}
		for _, event := range events {
			q.After = event.ID
			entry, ok, err := s.entry(event)
			if err != nil {
				return l, err
			}
			switch {
			case !ok || f.Wanted != nil && !f.Wanted(entry):
				continue
			case s.skip > 0:
				s.skip--
				continue
			}
			if entry.Source, err = s.source(event); err != nil {
				return l, err
			}
			if l.Entries = append(l.Entries, entry); len(l.Entries) == limit {
				return l, nil
			}
		}
		if len(events) < MaxPage {
			return l, nil
		}
	}
	l.More = true
	return l, nil
}

// entry returns what the log has of an event, all but the source, or nothing for one that
// no policy decided, such as the certificate of a host.
func (s *accessSearch) entry(event store.Record) (e AccessEntry, ok bool, err error) {
	leaf := event.Leaf
	action := accessActions[leaf.Action]
	e = AccessEntry{ID: event.ID, At: leaf.At, Action: action.name, Allowed: action.allowed}
	decided := action.name == "login"
	for _, f := range leaf.Fields {
		switch f.Name {
		case "application":
			e.Application, decided = f.Value, true
		case "provider":
			e.Provider = f.Value
		}
	}
	e.User, _ = strings.CutPrefix(leaf.Person, identity.Person(""))
	if !strings.HasPrefix(leaf.Person, identity.Person("")) || e.User == identity.UnknownUser {
		e.User = ""
	}
	if e.Email, err = cached(s.users, e.User, s.email); err != nil {
		return e, false, err
	}
	e.Domain, err = cached(s.domains, e.Application, s.domain)
	return e, decided, err
}

// cached returns what find finds of an id, which it does once; of none, nothing.
func cached(known map[string]string, id string, find func(string) (string, error)) (string, error) {
	found, ok := known[id]
	if ok || id == "" {
		return found, nil
	}
	found, err := find(id)
	if err != nil && trust.KindOf(err) != trust.NotFound {
		return "", err
	}
	known[id] = found
	return found, nil
}

func (s *accessSearch) email(user string) (string, error) {
	u, err := s.plane.directory.User(s.tx, user)
	return u.Email, err
}

func (s *accessSearch) domain(application string) (string, error) {
	a, err := access.ApplicationByID(s.tx, application)
	return a.Domain, err
}

// source returns the address that who asked came from, or "" where that was erased.
func (s *accessSearch) source(event store.Record) (string, error) {
	for _, sealed := range event.Personal {
		if sealed.Person != event.Leaf.Person {
			continue
		}
		plain, err := s.plane.keyring.UnsealPersonal(s.tx, sealed.Person, sealed.Bytes)
		if trust.KindOf(err) == trust.NotFound {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		openings, err := audit.DecodeOpenings(sealed.Person, plain)
		if err != nil {
			return "", err
		}
		for _, o := range openings.Values {
			if o.Slot == audit.SlotSource {
				return o.Value, event.Leaf.Verify(o)
			}
		}
	}
	return "", nil
}
