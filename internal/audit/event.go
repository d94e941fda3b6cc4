// Package audit says what an audit event is and how it is written down for
// good.
//
// An [Event] is what a caller tells the store of a change, in the same call
// that makes the change. [Event.Commit] turns it into a [Leaf], whose
// canonical encoding is the bytes that the Merkle tree of the tenant's log is
// built from, and into the [Opening] of each personal value. A personal value
// never stands in a leaf: in its place is HMAC-SHA256(salt, value) with 32
// random bytes of salt of its own, and salt and value lie beside the leaf,
// sealed to the person concerned. Erasing that person's key erases the value
// and leaves every leaf, and so every proof, as it was.
//
// The encoding is docs/design/0002-audit-leaf.md, byte by byte.
//
// Everything here is pure: no I/O, no clock, and random bytes come from the
// reader that the caller hands in.
package audit

import (
	"strings"
	"time"
	"unicode/utf8"

	"keyturn/internal/trust"
)

// Limits of an event. A leaf has to fit the entry bundles of C2SP tlog-tiles,
// where an entry has a length of 16 bits.
const (
	MaxLeaf    = 65535     // bytes of an encoded leaf
	MaxFields  = 64        // fields of an event, notes included
	MaxValue   = 16 * 1024 // bytes of one field's value
	MaxName    = 64        // bytes of an action or of a field's name
	MaxSubject = 256       // bytes of a subject
	MaxID      = 128       // bytes of an actor's or a person's id
	MaxPerson  = 1024      // bytes of an actor's name or source
)

// An Event is what happened, to be committed together with the change that it
// tells of.
type Event struct {
	Tenant  trust.TenantID
	At      time.Time // set by the store, to the microsecond
	Actor   Actor
	Action  string  // noun.verb: "key.rotate", "host.add", "run.step"
	Subject string  // what it happened to: "key:UUID", "host:UUID", "run:UUID"
	Fields  []Field // what else there is to know, in this order
}

// An Actor is who did it.
type Actor struct {
	Kind string // "user", "token", "machine" or "system"
	ID   string // required, except for "system"
	// Name and Source (the address from which the actor came) are personal:
	// they are sealed to Person, or to Kind:ID where that is empty.
	Name, Source string
	Person       string
}

// A Field is one more fact of an event.
type Field struct {
	Name, Value string
	// Person, where it is not empty, is the id of the person whom Value tells
	// something about.
	Person string
}

// Check returns an error of kind Invalid, or Exhausted where a limit is
// passed, unless e can be written down. It does not look at e.At, which the
// store sets.
func (e Event) Check() error {
	switch {
	case !IsTenant(e.Tenant):
		return trust.Errorf(trust.Invalid, "audit event %q: tenant %q is not 32 lower-case hex digits", clip(e.Action), clip(string(e.Tenant))).WithField("tenant")
	case !isAction(e.Action):
		return trust.Errorf(trust.Invalid, "audit event: action %q is not of the form noun.verb in a-z, 0-9 and -", clip(e.Action)).WithField("action")
	case !isSubject(e.Subject):
		return trust.Errorf(trust.Invalid, "audit event %q: subject %q is not of the form kind:id", e.Action, clip(e.Subject)).WithField("subject")
	}
	if err := e.Actor.check(e.Action); err != nil {
		return err
	}
	if len(e.Fields) > MaxFields {
		return trust.Errorf(trust.Exhausted, "audit event %q has %d fields, more than %d", e.Action, len(e.Fields), MaxFields)
	}
	for _, f := range e.Fields {
		if err := f.check(e.Action); err != nil {
			return err
		}
	}
	return nil
}

func (a Actor) check(action string) error {
	switch {
	case a.Kind != "user" && a.Kind != "token" && a.Kind != "machine" && a.Kind != "system":
		return trust.Errorf(trust.Invalid, "audit event %q: actor kind %q is none of user, token, machine, system", action, clip(a.Kind)).WithField("actor")
	case !isID(a.ID) && (a.ID != "" || a.Kind != "system"):
		return trust.Errorf(trust.Invalid, "audit event %q: actor id %q is not 1 to %d printable ASCII characters", action, clip(a.ID), MaxID).WithField("actor")
	case a.Person != "" && !isID(a.Person):
		return trust.Errorf(trust.Invalid, "audit event %q: person id %q is not 1 to %d printable ASCII characters", action, clip(a.Person), MaxID).WithField("actor")
	case len(a.Name) > MaxPerson || len(a.Source) > MaxPerson:
		return trust.Errorf(trust.Exhausted, "audit event %q: actor's name or source is longer than %d bytes", action, MaxPerson)
	case !isText(a.Name) || !isText(a.Source):
		return trust.Errorf(trust.Invalid, "audit event %q: actor's name or source is not UTF-8 text without NUL", action).WithField("actor")
	}
	return nil
}

// person returns the id that the actor's name and source are sealed to.
func (a Actor) person() string {
	if a.Person != "" {
		return a.Person
	}
	return a.Kind + ":" + a.ID
}

func (f Field) check(action string) error {
	switch {
	case !isFieldName(f.Name):
		return trust.Errorf(trust.Invalid, "audit event %q: field name %q is not 1 to %d of a-z, 0-9, '.', '_' and '-', a letter first", action, clip(f.Name), MaxName)
	case f.Person != "" && !isID(f.Person):
		return trust.Errorf(trust.Invalid, "audit event %q: person id of field %q is not 1 to %d printable ASCII characters", action, f.Name, MaxID)
	case len(f.Value) > MaxValue:
		return trust.Errorf(trust.Exhausted, "audit event %q: value of field %q has %d bytes, more than %d", action, f.Name, len(f.Value), MaxValue)
	case !isText(f.Value):
		return trust.Errorf(trust.Invalid, "audit event %q: value of field %q is not UTF-8 text without NUL", action, f.Name)
	}
	return nil
}

// IsTenant reports whether id is a tenant's: 32 lower-case hex digits.
func IsTenant(id trust.TenantID) bool {
	return len(id) == 32 && strings.Trim(string(id), "0123456789abcdef") == ""
}

// isAction reports whether s is two or more words of a-z, 0-9 and - that are
// joined by dots, the first of which starts with a letter.
func isAction(s string) bool {
	if s == "" || len(s) > MaxName || s[0] < 'a' || s[0] > 'z' || !strings.Contains(s, ".") {
		return false
	}
	for word := range strings.SplitSeq(s, ".") {
		if word == "" || !only(word, "-") {
			return false
		}
	}
	return true
}

func isSubject(s string) bool {
	kind, id, ok := strings.Cut(s, ":")
	return ok && len(s) <= MaxSubject && kind != "" && kind[0] >= 'a' && kind[0] <= 'z' && only(kind, "-") && isVisible(id)
}

func isFieldName(s string) bool {
	return s != "" && len(s) <= MaxName && s[0] >= 'a' && s[0] <= 'z' && only(s, "._-")
}

func isID(s string) bool { return len(s) <= MaxID && isVisible(s) }

// only reports whether s is made of a-z, 0-9 and the bytes of more.
func only(s, more string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && strings.IndexByte(more, c) < 0 {
			return false
		}
	}
	return true
}

// isVisible reports whether s is not empty and all printable ASCII without
// spaces: what every program in every locale reads and compares alike.
func isVisible(s string) bool {
	for _, c := range []byte(s) {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return s != ""
}

func isText(s string) bool {
	return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
}

// clip shortens what a caller sent for an error message.
func clip(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
