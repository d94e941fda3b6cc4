package audit

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/trust"
)

// What an encoding starts with: three letters and a version.
const (
	leafMagic     = "KTA\x01"
	openingsMagic = "KTO\x01"
	sealedMagic   = "KTS\x01"
)

// Encode returns the canonical bytes of l: docs/design/0002-audit-leaf.md.
func (l Leaf) Encode() []byte {
	b := make([]byte, 0, 512)
	b = append(b, leafMagic...)
	b = append(b, l.ID[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(l.At.UnixMicro()))
	b = appendString(b, string(l.Tenant))
	b = appendString(b, l.ActorKind)
	b = appendString(b, l.ActorID)
	b = appendString(b, l.Person)
	b = appendCommitment(b, l.Name)
	b = appendCommitment(b, l.Source)
	b = appendString(b, l.Action)
	b = appendString(b, l.Subject)
	b = binary.BigEndian.AppendUint16(b, uint16(len(l.Fields)))
	for _, f := range l.Fields {
		b = appendString(b, f.Name)
		b = appendCommitment(b, f.Commitment)
		if f.Commitment == nil {
			b = appendString(b, f.Value)
		} else {
			b = appendString(b, f.Person)
		}
	}
	return b
}

// DecodeLeaf is the inverse of Encode. It is strict: what it accepts encodes
// to the same bytes again, and passes the checks that Event.Check makes.
func DecodeLeaf(b []byte) (Leaf, error) {
	if len(b) > MaxLeaf {
		return Leaf{}, trust.Errorf(trust.Exhausted, "audit leaf has %d bytes, more than %d", len(b), MaxLeaf)
	}
	d := decoder{rest: b}
	d.magic(leafMagic)
	l := Leaf{ID: uuid.UUID(d.bytes(16))}
	at := d.uint64()
	l.At = time.UnixMicro(int64(at)).UTC()
	l.Tenant = trust.TenantID(d.string())
	l.ActorKind, l.ActorID, l.Person = d.string(), d.string(), d.string()
	l.Name, l.Source = d.commitment(), d.commitment()
	l.Action, l.Subject = d.string(), d.string()
	n := int(d.uint16())
	e := Event{
		Tenant: l.Tenant, Action: l.Action, Subject: l.Subject,
		Actor: Actor{Kind: l.ActorKind, ID: l.ActorID, Person: l.Person},
	}
	for i := 0; i < n && d.err == nil; i++ {
		f := LeafField{Name: d.string(), Commitment: d.commitment()}
		if f.Commitment == nil {
			f.Value = d.string()
		} else if f.Person = d.string(); f.Person == "" {
			d.fail("a commitment belongs to nobody")
		}
		l.Fields = append(l.Fields, f)
		e.Fields = append(e.Fields, Field{Name: f.Name, Value: f.Value, Person: f.Person})
	}
	d.end()
	switch {
	case d.err != nil:
		return Leaf{}, trust.Errorf(trust.Invalid, "audit leaf of %d bytes: %s at byte %d", len(b), d.err, len(b)-len(d.rest))
	case int64(at) < 0:
		return Leaf{}, trust.Errorf(trust.Invalid, "audit leaf %s: time is before 1970", l.ID)
	case l.Person == "":
		return Leaf{}, trust.Errorf(trust.Invalid, "audit leaf %s: its actor has no person", l.ID)
	}
	if err := checkID(l.ID); err != nil {
		return Leaf{}, err
	}
	if err := e.Check(); err != nil {
		return Leaf{}, trust.Errorf(trust.Invalid, "audit leaf %s: %w", l.ID, err)
	}
	return l, nil
}

// Encode returns the bytes that are sealed to o.Person, who is not in them.
func (o Openings) Encode() []byte {
	b := append(make([]byte, 0, 128), openingsMagic...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(o.Values)))
	for _, v := range o.Values {
		b = binary.BigEndian.AppendUint16(b, uint16(v.Slot))
		b = append(b, v.Salt[:]...)
		b = appendString(b, v.Value)
	}
	return b
}

// DecodeOpenings is the inverse of Openings.Encode, and as strict: slots
// ascend.
func DecodeOpenings(person string, b []byte) (Openings, error) {
	o := Openings{Person: person}
	d := decoder{rest: b}
	d.magic(openingsMagic)
	n := int(d.uint16())
	for last := -1; n > 0 && d.err == nil; n-- {
		v := Opening{Slot: Slot(d.uint16()), Salt: [SaltSize]byte(d.bytes(SaltSize)), Value: d.string()}
		if int(v.Slot) <= last {
			d.fail("slots do not ascend")
		}
		last = int(v.Slot)
		o.Values = append(o.Values, v)
	}
	d.end()
	if d.err != nil {
		return Openings{}, trust.Errorf(trust.Invalid, "openings of %d bytes: %s at byte %d", len(b), d.err, len(b)-len(d.rest))
	}
	return o, nil
}

// Sealed is what lies beside a leaf: one person's openings, which only the
// holder of that person's key can read.
type Sealed struct {
	Person string
	Bytes  []byte
}

// EncodeSealed returns the bytes that hold all of list, or nil for none.
func EncodeSealed(list []Sealed) []byte {
	if len(list) == 0 {
		return nil
	}
	b := append(make([]byte, 0, 256), sealedMagic...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(list)))
	for _, s := range list {
		b = appendString(b, s.Person)
		b = appendString(b, string(s.Bytes))
	}
	return b
}

// DecodeSealed is the inverse of EncodeSealed.
func DecodeSealed(b []byte) ([]Sealed, error) {
	if len(b) == 0 {
		return nil, nil
	}
	d := decoder{rest: b}
	d.magic(sealedMagic)
	n := int(d.uint16())
	if n == 0 {
		d.fail("a list of nothing")
	}
	var list []Sealed
	for ; n > 0 && d.err == nil; n-- {
		list = append(list, Sealed{Person: d.string(), Bytes: []byte(d.string())})
	}
	d.end()
	if d.err != nil {
		return nil, trust.Errorf(trust.Invalid, "sealed values of %d bytes: %s at byte %d", len(b), d.err, len(b)-len(d.rest))
	}
	return list, nil
}

// appendString appends the length of s in 32 bits and s.
func appendString(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint32(b, uint32(len(s))), s...)
}

// appendCommitment appends 0 for none, and otherwise 1 and the commitment.
func appendCommitment(b []byte, c *Commitment) []byte {
	if c == nil {
		return append(b, 0)
	}
	return append(append(b, 1), c[:]...)
}

// decoder reads the parts of an encoding. After its first error it yields
// zero values only, so that callers look at err once.
type decoder struct {
	rest []byte
	err  error
}

func (d *decoder) fail(why string) {
	if d.err == nil {
		d.err = errorText(why)
	}
}

// errorText is why some bytes are not an encoding.
type errorText string

func (e errorText) Error() string { return string(e) }

// bytes returns the next n bytes, or n zeros after an error.
func (d *decoder) bytes(n int) []byte {
	if d.err == nil && len(d.rest) < n {
		d.fail("cut short")
	}
	if d.err != nil {
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) magic(want string) {
	if string(d.bytes(len(want))) != want {
		d.fail("not of a version known here")
	}
}

func (d *decoder) uint16() uint16 { return binary.BigEndian.Uint16(d.bytes(2)) }

func (d *decoder) uint64() uint64 { return binary.BigEndian.Uint64(d.bytes(8)) }

func (d *decoder) string() string {
	n := binary.BigEndian.Uint32(d.bytes(4))
	if int64(n) > int64(len(d.rest)) {
		d.fail("cut short")
		return ""
	}
	return string(d.bytes(int(n)))
}

func (d *decoder) commitment() *Commitment {
	switch d.bytes(1)[0] {
	case 0:
		return nil
	case 1:
		c := Commitment(d.bytes(len(Commitment{})))
		return &c
	}
	d.fail("a value is neither plain nor committed")
	return nil
}

func (d *decoder) end() {
	if len(d.rest) > 0 {
		d.fail("more follows")
	}
}
