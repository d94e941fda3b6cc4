package audit_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/audit"
	"keyturn/internal/trust"
)

var update = flag.Bool("update", false, "write the golden files instead of comparing with them")

const tenant trust.TenantID = "0123456789abcdef0123456789abcdef"

var id = uuid.MustParse("01938f3c-5b7e-7abc-8def-0123456789ab")

// salts yields the bytes 1, 2, 3, ... for salts that can be repeated.
type salts struct{ next byte }

func (s *salts) Read(b []byte) (int, error) {
	for i := range b {
		s.next++
		b[i] = s.next
	}
	return len(b), nil
}

// events are those of the golden files, by file.
var events = map[string]audit.Event{
	"plain": {
		Tenant: tenant, At: time.UnixMicro(1_700_000_000_123_456),
		Actor:  audit.Actor{Kind: "system"},
		Action: "run.step", Subject: "run:01938f3c-0000-7000-8000-000000000001",
	},
	"fields": {
		Tenant: tenant, At: time.UnixMicro(0),
		Actor:  audit.Actor{Kind: "token", ID: "7a0c"},
		Action: "key.rotate", Subject: "key:8b1d",
		Fields: []audit.Field{{Name: "hosts", Value: "40"}, {Name: "reason", Value: "größer"}, {Name: "reason", Value: ""}},
	},
	"personal": {
		Tenant: tenant, At: time.UnixMicro(1_800_000_000_000_000),
		Actor:  audit.Actor{Kind: "user", ID: "0a1b", Name: "alice", Source: "192.0.2.7:50022"},
		Action: "user.login.refuse", Subject: "user:0a1b",
		Fields: []audit.Field{
			{Name: "attempt", Value: "3"},
			{Name: "login", Value: "bob", Person: "user:2c3d"},
			{Name: "email", Value: "alice@example.org", Person: "user:0a1b"},
		},
	},
	"on-behalf": {
		Tenant: tenant, At: time.UnixMicro(1_800_000_000_000_001),
		Actor:  audit.Actor{Kind: "token", ID: "ci", Name: "nightly", Person: "user:0a1b"},
		Action: "host.add", Subject: "host:4e5f",
	},
}

func commit(t *testing.T, e audit.Event) (audit.Leaf, []audit.Openings) {
	t.Helper()
	leaf, openings, err := e.Commit(id, &salts{})
	if err != nil {
		t.Fatal(err)
	}
	return leaf, openings
}

// TestGoldenLeaves keeps the encoding: these files are what a program that
// somebody else wrote from docs/design/0002-audit-leaf.md is tested with.
func TestGoldenLeaves(t *testing.T) {
	for name, e := range events {
		leaf, openings := commit(t, e)
		var b strings.Builder
		fmt.Fprintf(&b, "leaf %x\n", leaf.Encode())
		for _, o := range openings {
			for _, v := range o.Values {
				fmt.Fprintf(&b, "opening person=%q slot=%d salt=%x value=%q\n", o.Person, v.Slot, v.Salt, v.Value)
			}
			fmt.Fprintf(&b, "openings person=%q %x\n", o.Person, o.Encode())
		}
		path := filepath.Join("testdata", "leaf-"+name+".txt")
		old, err := os.ReadFile(path)
		if err != nil && !*update {
			t.Fatal(err)
		}
		var head []byte
		for line := range bytes.Lines(old) {
			if line[0] == '#' {
				head = append(head, line...)
			}
		}
		got := string(head) + b.String()
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		} else if got != string(old) {
			t.Errorf("%s: got\n%s\nwant\n%s", name, got, old)
		}
	}
}

func TestLeafComesBack(t *testing.T) {
	for name, e := range events {
		leaf, openings := commit(t, e)
		b := leaf.Encode()
		again, err := audit.DecodeLeaf(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got := again.Encode(); !bytes.Equal(got, b) {
			t.Errorf("%s: decoded and encoded it is %x, was %x", name, got, b)
		}
		if again.ID != id || again.Tenant != tenant || !again.At.Equal(e.At) || again.Action != e.Action || again.Subject != e.Subject {
			t.Errorf("%s: came back as %+v", name, again)
		}
		// No value of a person is in the leaf, and each can be shown.
		for _, o := range openings {
			decoded, err := audit.DecodeOpenings(o.Person, o.Encode())
			if err != nil || fmt.Sprint(decoded) != fmt.Sprint(o) {
				t.Errorf("%s: openings came back as %v, %v", name, decoded, err)
			}
			for _, v := range o.Values {
				if bytes.Contains(b, []byte(v.Value)) {
					t.Errorf("%s: the leaf holds %q", name, v.Value)
				}
				if err := again.Verify(v); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		}
		// Cut short anywhere, or with one more byte, it is no leaf.
		for n := range b {
			if _, err := audit.DecodeLeaf(b[:n]); trust.KindOf(err) != trust.Invalid {
				t.Fatalf("%s: cut to %d bytes: %v", name, n, err)
			}
		}
		if _, err := audit.DecodeLeaf(append(b, 0)); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s: with one more byte: %v", name, err)
		}
	}
}

func TestValuesArePersonsOwn(t *testing.T) {
	_, openings := commit(t, events["personal"])
	got := map[string][]string{}
	for _, o := range openings {
		for _, v := range o.Values {
			got[o.Person] = append(got[o.Person], fmt.Sprintf("%d %s", v.Slot, v.Value))
		}
	}
	want := map[string][]string{
		"user:0a1b": {"0 alice", "1 192.0.2.7:50022", "4 alice@example.org"},
		"user:2c3d": {"3 bob"},
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if _, openings := commit(t, events["on-behalf"]); openings[0].Person != "user:0a1b" {
		t.Errorf("the name of a token belongs to %q", openings[0].Person)
	}
}

func TestFalseOpeningsAreRefused(t *testing.T) {
	leaf, openings := commit(t, events["personal"])
	good := openings[0].Values[0]
	spoiled := map[string]audit.Opening{}
	value, salt, slot := good, good, good
	value.Value = "mallory"
	salt.Salt[31] ^= 1
	slot.Slot = audit.SlotSource
	spoiled["value"], spoiled["salt"], spoiled["slot"] = value, salt, slot
	plain, beyond := good, good
	plain.Slot = audit.SlotField
	beyond.Slot = 65535
	spoiled["a field that is not personal"], spoiled["a field that is not there"] = plain, beyond
	for name, o := range spoiled {
		if err := leaf.Verify(o); trust.KindOf(err) != trust.Invalid {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEqualValuesLookDifferent(t *testing.T) {
	e := events["plain"]
	e.Fields = []audit.Field{{Name: "a", Value: "same", Person: "p"}, {Name: "b", Value: "same", Person: "p"}}
	leaf, _ := commit(t, e)
	if *leaf.Fields[0].Commitment == *leaf.Fields[1].Commitment {
		t.Error("two commitments to one value are equal")
	}
}

func TestLimits(t *testing.T) {
	long := strings.Repeat("x", 1<<17)
	fields := func(n int, f audit.Field) []audit.Field { return slices.Repeat([]audit.Field{f}, n) }
	for name, c := range map[string]struct {
		kind  trust.Kind
		spoil func(*audit.Event)
	}{
		"no tenant":           {trust.Invalid, func(e *audit.Event) { e.Tenant = "" }},
		"tenant in capitals":  {trust.Invalid, func(e *audit.Event) { e.Tenant = trust.TenantID(strings.ToUpper(string(tenant))) }},
		"tenant too short":    {trust.Invalid, func(e *audit.Event) { e.Tenant = tenant[1:] }},
		"no action":           {trust.Invalid, func(e *audit.Event) { e.Action = "" }},
		"one word":            {trust.Invalid, func(e *audit.Event) { e.Action = "rotate" }},
		"empty word":          {trust.Invalid, func(e *audit.Event) { e.Action = "key..rotate" }},
		"action in capitals":  {trust.Invalid, func(e *audit.Event) { e.Action = "Key.rotate" }},
		"action of a digit":   {trust.Invalid, func(e *audit.Event) { e.Action = "1key.rotate" }},
		"long action":         {trust.Invalid, func(e *audit.Event) { e.Action = "key." + long }},
		"no subject":          {trust.Invalid, func(e *audit.Event) { e.Subject = "" }},
		"no id":               {trust.Invalid, func(e *audit.Event) { e.Subject = "key:" }},
		"no kind":             {trust.Invalid, func(e *audit.Event) { e.Subject = ":1" }},
		"subject of a space":  {trust.Invalid, func(e *audit.Event) { e.Subject = "key:a b" }},
		"long subject":        {trust.Invalid, func(e *audit.Event) { e.Subject = "key:" + long }},
		"no actor":            {trust.Invalid, func(e *audit.Event) { e.Actor = audit.Actor{} }},
		"kind of actor":       {trust.Invalid, func(e *audit.Event) { e.Actor.Kind = "root" }},
		"user without id":     {trust.Invalid, func(e *audit.Event) { e.Actor = audit.Actor{Kind: "user"} }},
		"id with newline":     {trust.Invalid, func(e *audit.Event) { e.Actor.ID = "a\nb" }},
		"long id":             {trust.Invalid, func(e *audit.Event) { e.Actor.ID = long }},
		"long person":         {trust.Invalid, func(e *audit.Event) { e.Actor.Person = long }},
		"long name":           {trust.Exhausted, func(e *audit.Event) { e.Actor.Name = long }},
		"name not UTF-8":      {trust.Invalid, func(e *audit.Event) { e.Actor.Name = "\xff" }},
		"source with NUL":     {trust.Invalid, func(e *audit.Event) { e.Actor.Source = "\x00" }},
		"field without name":  {trust.Invalid, func(e *audit.Event) { e.Fields = fields(1, audit.Field{}) }},
		"field's name":        {trust.Invalid, func(e *audit.Event) { e.Fields = fields(1, audit.Field{Name: "a b"}) }},
		"field's person":      {trust.Invalid, func(e *audit.Event) { e.Fields = fields(1, audit.Field{Name: "a", Person: "\t"}) }},
		"field not UTF-8":     {trust.Invalid, func(e *audit.Event) { e.Fields = fields(1, audit.Field{Name: "a", Value: "\xc0\x80"}) }},
		"long field":          {trust.Exhausted, func(e *audit.Event) { e.Fields = fields(1, audit.Field{Name: "a", Value: long}) }},
		"many fields":         {trust.Exhausted, func(e *audit.Event) { e.Fields = fields(audit.MaxFields+1, audit.Field{Name: "a"}) }},
		"long leaf":           {trust.Exhausted, func(e *audit.Event) { e.Fields = fields(5, audit.Field{Name: "a", Value: long[:audit.MaxValue]}) }},
		"before 1970":         {trust.Invalid, func(e *audit.Event) { e.At = time.Unix(-1, 0) }},
		"no time":             {trust.Invalid, func(e *audit.Event) { e.At = time.Time{} }},
		"beyond the calendar": {trust.Invalid, func(e *audit.Event) { e.At = time.Date(300000, 1, 1, 0, 0, 0, 0, time.UTC) }},
	} {
		e := events["personal"]
		c.spoil(&e)
		_, _, err := e.Commit(id, &salts{})
		var ours *trust.Error
		if !errors.As(err, &ours) || ours.Kind != c.kind {
			t.Errorf("%s: got %v, want %v", name, err, c.kind)
		}
		if err != nil && len(err.Error()) > 300 {
			t.Errorf("%s: message of %d bytes", name, len(err.Error()))
		}
	}
	if _, _, err := events["plain"].Commit(uuid.UUID{}, &salts{}); trust.KindOf(err) != trust.Invalid {
		t.Errorf("an id of another kind: %v", err)
	}
	// What is just within them passes.
	e := events["personal"]
	e.Fields = append(fields(3, audit.Field{Name: "a", Value: long[:audit.MaxValue]}),
		fields(audit.MaxFields-3, audit.Field{Name: "b", Value: long[:audit.MaxValue], Person: "p"})...)
	leaf, _ := commit(t, e)
	if _, err := audit.DecodeLeaf(leaf.Encode()); err != nil {
		t.Error(err)
	}
}

func TestRandomBytesThatFail(t *testing.T) {
	_, _, err := events["personal"].Commit(id, iotest.ErrReader(io.ErrUnexpectedEOF))
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
	if _, _, err := events["plain"].Commit(id, iotest.ErrReader(io.ErrUnexpectedEOF)); err != nil {
		t.Errorf("an event without persons needs no salt: %v", err)
	}
}

func TestSealedComesBack(t *testing.T) {
	for _, list := range [][]audit.Sealed{nil, {{Person: "p", Bytes: []byte{0, 255}}}, {{Person: "p"}, {Person: "q", Bytes: []byte("x")}}} {
		b := audit.EncodeSealed(list)
		if (b == nil) != (list == nil) {
			t.Errorf("%v is encoded as %x", list, b)
		}
		got, err := audit.DecodeSealed(b)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(list) {
			t.Errorf("%v came back as %v, %v", list, got, err)
		}
		for n := 1; n < len(b); n++ {
			if _, err := audit.DecodeSealed(b[:n]); trust.KindOf(err) != trust.Invalid {
				t.Errorf("cut to %d bytes: %v", n, err)
			}
		}
	}
	for _, text := range []string{"4b54530100", "4b5453010000", "4b54530200010000000170000000" + "00"} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := audit.DecodeSealed(b); err == nil {
			t.Errorf("%s is decoded as %v", text, got)
		}
	}
}

func FuzzDecodeLeaf(f *testing.F) {
	for _, e := range events {
		leaf, _, err := e.Commit(id, &salts{})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(leaf.Encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		leaf, err := audit.DecodeLeaf(b)
		if err != nil {
			return
		}
		if again := leaf.Encode(); !bytes.Equal(again, b) {
			t.Errorf("%x is decoded to what encodes as %x", b, again)
		}
	})
}

func FuzzDecodeOpenings(f *testing.F) {
	_, openings, err := events["personal"].Commit(id, &salts{})
	if err != nil {
		f.Fatal(err)
	}
	for _, o := range openings {
		f.Add(o.Encode())
		f.Add(audit.EncodeSealed([]audit.Sealed{{Person: o.Person, Bytes: o.Encode()}}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if o, err := audit.DecodeOpenings("p", b); err == nil && !bytes.Equal(o.Encode(), b) {
			t.Errorf("openings %x are decoded to what encodes as %x", b, o.Encode())
		}
		if list, err := audit.DecodeSealed(b); err == nil && !bytes.Equal(audit.EncodeSealed(list), b) {
			t.Errorf("sealed values %x are decoded to what encodes as %x", b, audit.EncodeSealed(list))
		}
	})
}
