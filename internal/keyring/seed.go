package keyring

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/google/uuid"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A seed stands for the host keys of any number of hosts, none of which is stored: each
// is derived when it is shown, by every node alike, as HKDF (RFC 5869) with SHA-256 and
// no salt of the seed and of what seedInfo says. Changing that would change the identity
// of every host, so it has a version in its first string; testdata/seeds.json has vectors.

const (
	seedSize  = 32
	seedLabel = "keyturn host key v1"
)

// SeedAlgorithms are the types of the host keys that are derived from a seed, best first.
var SeedAlgorithms = []string{ssh.KeyAlgoED25519, ssh.KeyAlgoECDSA256}

// A Seed derives host keys. It is printed as "[redacted]". The zero value is no seed.
type Seed struct {
	secret func() []byte // see Secret on why this is a function
}

// MakeSeed makes the seed of that id at random, and seals it. Of an id that was used
// before, it would take the place.
func (k *Keyring) MakeSeed(tx *store.Tx, id trust.SeedID) error {
	if err := checkWrite(tx); err != nil {
		return err
	}
	if err := checkID("seed id", string(id)); err != nil {
		return err
	}
	secret := make([]byte, seedSize)
	rand.Read(secret)
	defer clear(secret)
	data, err := k.data(tx)
	if err != nil {
		return err
	}
	sealed, err := data.seal(binding{tx.Tenant(), kindSeed, string(id)}, secret)
	if err != nil {
		return err
	}
	return upsertSealed(tx, kindSeed, string(id), sealed)
}

// Seed opens a seed, or returns a NotFound error.
func (k *Keyring) Seed(tx *store.Tx, id trust.SeedID) (Seed, error) {
	sealed, wrapped, err := selectSealed(tx, kindSeed, string(id))
	if errors.Is(err, sql.ErrNoRows) {
		return Seed{}, trust.Errorf(trust.NotFound, "no seed %q is kept here", id)
	}
	if err != nil {
		return Seed{}, err
	}
	data, err := k.unwrapData(tx.Tenant(), wrapped)
	if err != nil {
		return Seed{}, err
	}
	secret, err := data.open(binding{tx.Tenant(), kindSeed, string(id)}, sealed)
	if err != nil {
		return Seed{}, err
	}
	return Seed{func() []byte { return secret }}, nil
}

// DestroySeed drops a seed, and so every key that was derived from it. It may run twice.
func (k *Keyring) DestroySeed(tx *store.Tx, id trust.SeedID) error {
	return deleteSealed(tx, kindSeed, string(id))
}

// HostKey derives the key of that algorithm, one of SeedAlgorithms, by which a host is
// known. It depends on nothing else than its arguments, so that it stays the same when
// the host is renamed or moves.
func (s Seed) HostKey(tenant trust.TenantID, host trust.HostID, algorithm string) (ssh.MultiAlgorithmSigner, error) {
	if s.secret == nil {
		return nil, trust.Errorf(trust.Internal, "host keys are derived from a seed, and there is none")
	}
	// A host in another spelling would be another host.
	if id, err := uuid.Parse(string(host)); err != nil || id.String() != string(host) {
		return nil, trust.Errorf(trust.Internal, "host %q is not a UUID in lower case", host)
	}
	key, err := deriveKey(algorithm, func(counter uint32) ([]byte, error) {
		return hkdf.Key(sha256.New, s.secret(), nil, string(seedInfo(algorithm, tenant, host, counter)), seedSize)
	})
	if err != nil {
		return nil, err
	}
	return newSigner(key)
}

// deriveKey makes a key of a stream of 32 bytes each: the first for Ed25519 (RFC 8032,
// section 5.1.5), and for P-256 the first that is a scalar.
func deriveKey(algorithm string, stream func(counter uint32) ([]byte, error)) (*half, error) {
	for counter := uint32(0); ; counter++ {
		secret, err := stream(counter)
		if err != nil {
			return nil, err
		}
		switch algorithm {
		case ssh.KeyAlgoED25519:
			return derived(ed25519.NewKeyFromSeed(secret))
		case ssh.KeyAlgoECDSA256:
			// Zero and what is not below the order of the group is refused, which is
			// one in 2^32: the next counter then.
			if key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), secret); err == nil {
				return derived(key)
			}
		default:
			return nil, trust.Errorf(trust.Invalid, "no host key of type %q is derived from a seed; there are %q", algorithm, SeedAlgorithms)
		}
	}
}

func derived(key crypto.Signer) (*half, error) {
	public, err := ssh.NewPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	return &half{key: key, public: trust.PublicKeyOf(public)}, nil
}

// seedInfo is what HKDF expands a seed with: strings of RFC 4251, section 5, and a uint32.
func seedInfo(algorithm string, tenant trust.TenantID, host trust.HostID, counter uint32) []byte {
	var info []byte
	for _, s := range []string{seedLabel, algorithm, string(tenant), string(host)} {
		info = binary.BigEndian.AppendUint32(info, uint32(len(s)))
		info = append(info, s...)
	}
	return binary.BigEndian.AppendUint32(info, counter)
}

// Format writes "[redacted]" for every verb.
func (s Seed) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// String returns "[redacted]".
func (s Seed) String() string { return redacted }

// GoString returns "[redacted]".
func (s Seed) GoString() string { return redacted }

// LogValue returns "[redacted]".
func (s Seed) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalJSON returns the JSON string "[redacted]".
func (s Seed) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }
