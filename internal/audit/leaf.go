package audit

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/trust"
)

// SaltSize is the size in bytes of the salt of a commitment, and of the
// commitment.
const SaltSize = 32

// A Commitment stands for a personal value in a leaf: HMAC-SHA256 with a salt
// of 32 random bytes as its key and the value as its message.
type Commitment [sha256.Size]byte

// A Slot says which value of a leaf is meant.
type Slot uint16

// The slots of a leaf: those of the actor, then one for each field.
const (
	SlotName   Slot = 0 // the actor's name
	SlotSource Slot = 1 // the address from which the actor came
	SlotField  Slot = 2 // the first field; the next one is SlotField+1, ...
)

// An Opening is what shows that a commitment stands for a value. It is as
// secret as the value.
type Opening struct {
	Slot  Slot
	Salt  [SaltSize]byte
	Value string
}

// Openings are those of one event that belong to one person.
type Openings struct {
	Person string
	Values []Opening
}

// A Leaf is an event as it is written down for good.
type Leaf struct {
	ID        uuid.UUID // of the event: version 7, ascending within one writer
	Tenant    trust.TenantID
	At        time.Time // UTC, to the microsecond
	ActorKind string
	ActorID   string
	Person    string      // whom Name and Source are sealed to
	Name      *Commitment // of the actor's name; nil where there was none
	Source    *Commitment // of the address the actor came from; nil where there was none
	Action    string
	Subject   string
	Fields    []LeafField
}

// A LeafField is a field as it stands in a leaf: with a value, or with a
// person and a commitment to that person's value.
type LeafField struct {
	Name       string
	Value      string
	Person     string
	Commitment *Commitment
}

// Commit returns the leaf of e under the given id, and the openings of its
// personal values by person, in the order in which the persons first appear.
// Salts are read from random, which is crypto/rand.Reader outside of tests.
// It refuses what e.Check refuses, a time before 1970 and a leaf of more than
// MaxLeaf bytes.
func (e Event) Commit(id uuid.UUID, random io.Reader) (Leaf, []Openings, error) {
	if err := checkID(id); err != nil {
		return Leaf{}, nil, err
	}
	if err := e.Check(); err != nil {
		return Leaf{}, nil, err
	}
	c := committer{random: random}
	l := Leaf{
		ID: id, Tenant: e.Tenant, At: e.At.UTC().Truncate(time.Microsecond),
		ActorKind: e.Actor.Kind, ActorID: e.Actor.ID, Person: e.Actor.person(),
		Action: e.Action, Subject: e.Subject,
	}
	if e.Actor.Name != "" {
		l.Name = c.commit(SlotName, l.Person, e.Actor.Name)
	}
	if e.Actor.Source != "" {
		l.Source = c.commit(SlotSource, l.Person, e.Actor.Source)
	}
	for i, f := range e.Fields {
		lf := LeafField{Name: f.Name, Value: f.Value}
		if f.Person != "" {
			lf = LeafField{Name: f.Name, Person: f.Person, Commitment: c.commit(SlotField+Slot(i), f.Person, f.Value)}
		}
		l.Fields = append(l.Fields, lf)
	}
	if c.err != nil {
		return Leaf{}, nil, fmt.Errorf("audit event %q: read random bytes: %w", e.Action, c.err)
	}
	if e.At.UnixMicro() < 0 || e.At.Year() > 9999 {
		return Leaf{}, nil, trust.Errorf(trust.Invalid, "audit event %q: time %s is not within the years 1970 to 9999", e.Action, e.At)
	}
	if n := len(l.Encode()); n > MaxLeaf {
		return Leaf{}, nil, trust.Errorf(trust.Exhausted, "audit event %q has %d bytes, more than %d", e.Action, n, MaxLeaf)
	}
	return l, c.openings, nil
}

func checkID(id uuid.UUID) error {
	if id.Version() != 7 || id.Variant() != uuid.RFC4122 {
		return trust.Errorf(trust.Invalid, "audit event %s: its id is no UUID of version 7", id)
	}
	return nil
}

// committer gathers the openings of one event.
type committer struct {
	random   io.Reader
	openings []Openings
	err      error
}

func (c *committer) commit(slot Slot, person, value string) *Commitment {
	o := Opening{Slot: slot, Value: value}
	if _, err := io.ReadFull(c.random, o.Salt[:]); err != nil {
		c.err = err
	}
	i := 0
	for i < len(c.openings) && c.openings[i].Person != person {
		i++
	}
	if i == len(c.openings) {
		c.openings = append(c.openings, Openings{Person: person})
	}
	c.openings[i].Values = append(c.openings[i].Values, o)
	sum := o.commitment()
	return &sum
}

func (o Opening) commitment() (sum Commitment) {
	mac := hmac.New(sha256.New, o.Salt[:])
	mac.Write([]byte(o.Value))
	mac.Sum(sum[:0])
	return sum
}

// Verify returns nil if o opens the commitment that stands in its slot of l,
// and otherwise an error that says which value was claimed falsely: the value
// shown is not the one that was committed.
func (l Leaf) Verify(o Opening) error {
	what, held := "", (*Commitment)(nil)
	switch i := int(o.Slot) - int(SlotField); {
	case o.Slot == SlotName:
		what, held = "actor's name", l.Name
	case o.Slot == SlotSource:
		what, held = "actor's source", l.Source
	case i < len(l.Fields):
		what, held = fmt.Sprintf("field %q", l.Fields[i].Name), l.Fields[i].Commitment
	default:
		return trust.Errorf(trust.Invalid, "audit event %s has no field number %d", l.ID, i)
	}
	if held == nil {
		return trust.Errorf(trust.Invalid, "audit event %s: %s is no personal value", l.ID, what)
	}
	sum := o.commitment()
	if !hmac.Equal(sum[:], held[:]) {
		return trust.Errorf(trust.Invalid, "audit event %s: %s shown is not the one that was committed", l.ID, what)
	}
	return nil
}
