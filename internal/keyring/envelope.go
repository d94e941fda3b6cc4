package keyring

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/keyset"
	"github.com/tink-crypto/tink-go/v2/tink"

	"keyturn/internal/trust"
)

// A binding is what sealed bytes are bound to. It is authenticated with them
// and not stored with them, so that a row's bytes open in that row only.
type binding struct {
	tenant trust.TenantID
	kind   string
	id     string
}

// Kinds of this package's own. Callers' kinds (see checkKind) have no spaces
// and so are never one of these.
const (
	kindRoot     = "root keyset"
	kindKeyset   = "tenant keyset"
	kindPrivate  = "private key"
	kindReady    = "ready key"
	kindSeed     = "host key seed"
	kindPerson   = "person key"
	kindPersonal = "personal value"
)

// bytes returns the associated data: four strings, each with its length before
// it, so that no two bindings share their bytes.
func (b binding) bytes() []byte {
	var out []byte
	for _, s := range []string{"keyturn sealed v1", string(b.tenant), b.kind, b.id} {
		out = binary.BigEndian.AppendUint32(out, uint32(len(s)))
		out = append(out, s...)
	}
	return out
}

// A sealer seals and opens with the keys of one keyset. It is a pointer where it
// is kept, see Secret.
type sealer struct{ aead tink.AEAD }

func (s *sealer) seal(b binding, plain []byte) ([]byte, error) {
	return s.aead.Encrypt(plain, b.bytes())
}

func (s *sealer) open(b binding, sealed []byte) ([]byte, error) {
	plain, err := s.aead.Decrypt(sealed, b.bytes())
	if err != nil {
		return nil, trust.Errorf(trust.Internal, "sealed bytes of %s %q do not open: they were changed, or are those of something else", b.kind, b.id)
	}
	return plain, nil
}

// newKeyset makes a keyset of one AES-256-GCM key and returns it wrapped.
func newKeyset(wrapper *sealer, b binding) (*sealer, []byte, error) {
	handle, err := keyset.NewHandle(aead.AES256GCMKeyTemplate())
	if err != nil {
		return nil, nil, err
	}
	wrapped, err := wrapKeyset(handle, wrapper, b)
	if err != nil {
		return nil, nil, err
	}
	s, err := newSealer(handle)
	return s, wrapped, err
}

func wrapKeyset(handle *keyset.Handle, wrapper *sealer, b binding) ([]byte, error) {
	var out bytes.Buffer
	err := handle.WriteWithAssociatedData(keyset.NewBinaryWriter(&out), wrapper.aead, b.bytes())
	return out.Bytes(), err
}

func unwrapKeyset(wrapped []byte, wrapper *sealer, b binding) (*keyset.Handle, error) {
	handle, err := keyset.ReadWithAssociatedData(keyset.NewBinaryReader(bytes.NewReader(wrapped)), wrapper.aead, b.bytes())
	if err != nil {
		return nil, trust.Errorf(trust.Internal, "%s of tenant %q does not open: it was changed, or is that of something else", b.kind, b.tenant)
	}
	return handle, nil
}

func newSealer(handle *keyset.Handle) (*sealer, error) {
	primitive, err := aead.New(handle)
	if err != nil {
		return nil, err
	}
	return &sealer{primitive}, nil
}

// personKeySize is that of AES-256. A person's key is one key, not a keyset: it
// seals little, for one purpose, and its end is to be erased.
const personKeySize = 32

func newPersonKey() []byte {
	key := make([]byte, personKeySize)
	rand.Read(key)
	return key
}

func personSealer(key []byte) (*sealer, error) {
	gcm, err := subtle.NewAESGCM(key)
	if err != nil {
		return nil, err
	}
	return &sealer{gcm}, nil
}
