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
	// Application is the id of what decided, and the name and the domain are those that it
	// has now, as far as one did and is there still.
	Application, ApplicationName, Domain string
	// Provider is the identity provider of a login, "" for a password.
	Provider string
	// User is the id of who asked, "" for machines and where nobody knows, and the name and
	// the address are those that the user has now.
	User, UserName, Email string
	// Source is the address that they came from, unless the user was erased.
	Source string
}

// An AccessFilter says which entries are meant: those of which all holds that it says.
type AccessFilter struct {
	Since, Until time.Time // zero for any
	OldestFirst  bool
	After        string                 // only behind the event of this id; "" for all
	Wanted       func(AccessEntry) bool // of an entry without Source; nil for all
}

// An AccessLog is a page of the log.
type AccessLog struct {
	Entries []AccessEntry
	// Last is the id of the last event that was looked at, where there may be more behind it.
	Last string
	// More is whether the search ended there because there are too many events to look at.
	More bool
}

// SearchAccessLog returns a page of the log of who asked for access.
func (p *Plane) SearchAccessLog(ctx context.Context, actor identity.Actor, f AccessFilter, page CountedPage) (l AccessLog, err error) {
	if _, err := (Page{After: f.After}).id(); err != nil {
		return l, err
	}
	err = p.view(ctx, actor, identity.AuditLogsRead, func(tx *store.Tx) error {
		s := accessSearch{plane: p, tx: tx, skip: (page.Number - 1) * page.Size, users: map[string]identity.User{}, applications: map[string]access.Application{}}
		l, err = s.run(f, page.Size)
		return err
	})
	return l, err
}

// An accessSearch is a search under way.
type accessSearch struct {
	plane        *Plane
	tx           *store.Tx
	skip         int // how many entries are still to be passed over
	users        map[string]identity.User
	applications map[string]access.Application
}

func (s *accessSearch) run(f AccessFilter, limit int) (l AccessLog, err error) {
	q := store.EventSearch{Since: f.Since, Until: f.Until, NewestFirst: !f.OldestFirst, After: f.After, Limit: MaxPage}
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
			q.After, l.Last = event.ID, event.ID
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
			l.Last = ""
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
	user, err := cached(s.users, e.User, func(id string) (identity.User, error) { return s.plane.directory.User(s.tx, id) })
	if err != nil {
		return e, false, err
	}
	application, err := cached(s.applications, e.Application, func(id string) (access.Application, error) { return access.ApplicationByID(s.tx, id) })
	e.UserName, e.Email, e.ApplicationName, e.Domain = user.Name, user.Email, application.Name, application.Domain
	return e, decided, err
}

// cached returns what find finds of an id, which it does once; of none, nothing.
func cached[T any](known map[string]T, id string, find func(string) (T, error)) (found T, err error) {
	found, ok := known[id]
	if ok || id == "" {
		return found, nil
	}
	if found, err = find(id); err != nil && trust.KindOf(err) != trust.NotFound {
		return found, err
	}
	known[id] = found
	return found, nil
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
