package keyring

import (
	"fmt"
	"io"
	"log/slog"
)

// A Secret is secret bytes on their way out of this package: the text of a
// private key file, a snapshot of one. It prints as "[redacted]" everywhere, so
// that it can pass through structs and errors without being written down; only
// Bytes gives it away. The zero value is empty.
type Secret struct {
	// A function, because fmt prints what is in an unexported field of some
	// other struct without asking its methods, and follows a pointer when
	// the verb does not fit. Of a function it prints the address.
	get func() []byte
}

// NewSecret returns b as a Secret, which owns b from now on.
func NewSecret(b []byte) Secret { return Secret{func() []byte { return b }} }

// Bytes returns the secret itself, not a copy: it is all zeros after Wipe.
func (s Secret) Bytes() []byte {
	if s.get == nil {
		return nil
	}
	return s.get()
}

// Wipe overwrites the secret with zeros. Go's collector may have left copies of
// what passed through other buffers; it does not make any of this one.
func (s Secret) Wipe() { clear(s.Bytes()) }

const redacted = "[redacted]"

// Format writes "[redacted]" for every verb.
func (s Secret) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// String returns "[redacted]".
func (s Secret) String() string { return redacted }

// GoString returns "[redacted]".
func (s Secret) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (s Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns the JSON string "[redacted]".
func (s Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// describe names a private key by its public half, which is all that may be
// said of it.
func (p Private) describe() string {
	if p.IsZero() {
		return "no private key"
	}
	return fmt.Sprintf("private key of %s %s [redacted]", p.Public().Type(), p.Public().Fingerprint())
}

// Format writes the type and fingerprint of the public half for every verb.
func (p Private) Format(f fmt.State, _ rune) { io.WriteString(f, p.describe()) }

// String names the key by its public half.
func (p Private) String() string { return p.describe() }

// GoString names the key by its public half.
func (p Private) GoString() string { return p.describe() }

// LogValue names the key by its public half.
func (p Private) LogValue() slog.Value { return slog.StringValue(p.describe()) }

// MarshalJSON returns what String does, as a JSON string.
func (p Private) MarshalJSON() ([]byte, error) { return []byte(`"` + p.describe() + `"`), nil }

func (s *signer) describe() string {
	return fmt.Sprintf("signer of %s %s [redacted]", s.public.Type(), s.public.Fingerprint())
}

// Format writes the type and fingerprint of the public half for every verb.
func (s *signer) Format(f fmt.State, _ rune) { io.WriteString(f, s.describe()) }

// String names the key by its public half.
func (s *signer) String() string { return s.describe() }

// GoString names the key by its public half.
func (s *signer) GoString() string { return s.describe() }

// LogValue names the key by its public half.
func (s *signer) LogValue() slog.Value { return slog.StringValue(s.describe()) }

// MarshalJSON returns what String does, as a JSON string.
func (s *signer) MarshalJSON() ([]byte, error) { return []byte(`"` + s.describe() + `"`), nil }

// Format writes the KEK's name for every verb.
func (k KEK) Format(f fmt.State, _ rune) { io.WriteString(f, k.String()) }

// String returns the KEK's name, and that there is more to it.
func (k KEK) String() string { return fmt.Sprintf("key-encryption key %s [redacted]", k.name) }

// GoString returns what String does.
func (k KEK) GoString() string { return k.String() }

// LogValue returns what String does.
func (k KEK) LogValue() slog.Value { return slog.StringValue(k.String()) }

// MarshalJSON returns what String does, as a JSON string.
func (k KEK) MarshalJSON() ([]byte, error) { return []byte(`"` + k.String() + `"`), nil }

// Format writes that this is a keyring, for every verb.
func (k *Keyring) Format(f fmt.State, _ rune) { io.WriteString(f, "keyring [redacted]") }
