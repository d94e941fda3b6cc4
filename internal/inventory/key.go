package inventory

import (
	"crypto/sha256"
	"time"

	"github.com/google/uuid"

	"keyturn/internal/trust"
)

// A KeyKind is the role of a key.
type KeyKind string

// The kinds of keys.
const (
	UserKey KeyKind = "user"
	HostKey KeyKind = "host"
)

// A KeyState says what a key is to the tenant.
type KeyState string

// The states of a key.
const (
	// Active keys are in use, as far as anybody said.
	Active KeyState = "active"
	// Rotated keys were replaced by others and are in the rotated inventory.
	Rotated KeyState = "rotated"
	// Retired keys were withdrawn without a successor, or made by a run that
	// was taken back.
	Retired KeyState = "retired"
	// Deleted keys were deleted by someone. Found again, they are Active.
	Deleted KeyState = "deleted"
)

// A Custody says who has a key's private half.
type Custody string

// The custodies of a key.
const (
	// Held keys have their private half in the keyring.
	Held Custody = "held"
	// InPlace keys have it only on the hosts that use it.
	InPlace Custody = "in-place"
	// External keys have it somewhere that Keyturn does not know or cannot
	// open.
	External Custody = "external"
)

// A Key is a key pair that the tenant has met: one row, wherever its halves
// lie.
type Key struct {
	ID      trust.KeyID
	Kind    KeyKind
	Public  trust.PublicKey
	Comment string
	// Owner answers for the key, in whatever words the tenant uses, or is
	// empty where nobody does.
	Owner string
	// Purpose is what it is for, in such words.
	Purpose string
	State   KeyState
	Custody Custody
	// Container is the file format in which its private half was last met or
	// made, such as "openssh" or "pem", or nothing.
	Container   string
	Compromised bool
	// CreatedAt is when Keyturn made or first met it. LastRotatedAt is when a
	// run last put it in another's place, or another in its; or zero.
	CreatedAt, LastRotatedAt time.Time
	// ExpiresAt is until when it is meant to be used, or zero. From then on the
	// server signs with it for no user. Keyturn takes no line away by it: it says
	// so when a key is accepted for longer.
	ExpiresAt time.Time
	// RevealedAt is when Keyturn last gave its private half to somebody, or zero. From
	// then on it is External, although the keyring may have that half still.
	RevealedAt time.Time
	// DeletedAt is when it was deleted, where it is.
	DeletedAt time.Time
	Revision  int64
}

// keyNamespace is the namespace of key ids (RFC 9562, section 5.5). It was
// drawn once, at random, and must never change.
var keyNamespace = uuid.MustParse("0c4d5bb5-62fd-4b0e-9a43-7e6f6c2d9f1e")

// KeyIDOf returns the id of a key: the UUID of version 5 of its tenant, its
// kind and the SHA-256 of its blob. The same key met again, after any time,
// has the same id; in another tenant or role it has another.
func KeyIDOf(tenant trust.TenantID, kind KeyKind, key trust.PublicKey) trust.KeyID {
	sum := sha256.Sum256(key.Blob())
	name := append([]byte(string(tenant)+"\x00"+string(kind)+"\x00"), sum[:]...)
	return trust.KeyID(uuid.NewSHA1(keyNamespace, name).String())
}

// ParseKeyID reads a key id as people and other programs write it: any text
// form of a UUID, in upper or lower case.
func ParseKeyID(id string) (trust.KeyID, error) {
	u, err := uuid.Parse(id)
	if err != nil {
		return "", trust.Errorf(trust.Invalid, "key id %q is not a UUID", abbreviate(id)).WithField("uuid").WithHint("keyturn key list")
	}
	return trust.KeyID(u.String()), nil
}

func (k *Key) check() error {
	switch k.Kind {
	case UserKey, HostKey:
	default:
		return trust.Errorf(trust.Invalid, "kind %q of a key is neither user nor host", abbreviate(string(k.Kind))).WithField("kind")
	}
	switch k.Custody {
	case Held, InPlace, External:
	default:
		return trust.Errorf(trust.Invalid, "custody %q is none of held, in-place and external", abbreviate(string(k.Custody))).WithField("custody")
	}
	if n := len(k.Public.Blob()); n == 0 || n > MaxKeyBlob {
		return trust.Errorf(trust.Invalid, "public key has %d bytes; it may have 1 to %d", n, MaxKeyBlob).WithField("public_key")
	}
	k.Comment = plainText(k.Comment, maxComment)
	k.Owner = plainText(k.Owner, MaxFact)
	k.Purpose = plainText(k.Purpose, MaxFact)
	k.Container = plainText(k.Container, 64)
	return nil
}

// MaxKeyBlob is how many bytes the blob of a key may have. The largest that
// OpenSSH makes, RSA of 16384 bits, has 2071.
const MaxKeyBlob = 16 << 10

// MaxFact is how many bytes a key's owner can have, and its purpose.
const MaxFact = 256

// IsFact reports whether text can be an owner or a purpose, as it is.
func IsFact(text string) bool { return len(text) <= MaxFact && isPlainText(text) }

// maxComment bounds text that people and hosts choose, in bytes.
const maxComment = 1 << 10
