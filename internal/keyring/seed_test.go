package keyring

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A seedVector is one line of testdata/seeds.json, which was made with another
// language's HMAC and with OpenSSL.
type seedVector struct {
	Seed      string         `json:"seed"`
	Tenant    trust.TenantID `json:"tenant"`
	Host      trust.HostID   `json:"host"`
	Algorithm string         `json:"algorithm"`
	Counter   uint32         `json:"counter"`
	Secret    string         `json:"secret"`
	PublicKey string         `json:"public_key"`
}

func seedOf(secret []byte) Seed { return Seed{func() []byte { return secret }} }

func seedVectors(t *testing.T) (list []seedVector) {
	t.Helper()
	data, err := os.ReadFile("testdata/seeds.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	return list
}

// Everybody derives the same: the vectors, and HKDF by hand.
func TestHostKeysOfSeeds(t *testing.T) {
	for _, v := range seedVectors(t) {
		raw, err := hex.DecodeString(v.Seed)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := seedOf(raw).HostKey(v.Tenant, v.Host, v.Algorithm)
		if err != nil {
			t.Fatal(err)
		}
		name := v.Seed[:8] + " " + string(v.Tenant) + " " + string(v.Host) + " " + v.Algorithm
		if got := trust.PublicKeyOf(signer.PublicKey()).String(); got != v.PublicKey {
			t.Errorf("%s: derived %s, the vector has %s", name, got, v.PublicKey)
		}
		secret := expandByHand(raw, v.Algorithm, string(v.Tenant), string(v.Host), v.Counter)
		if hex.EncodeToString(secret) != v.Secret {
			t.Errorf("%s: by hand %x, the vector has %s", name, secret, v.Secret)
		}
		if got := publicByHand(t, v.Algorithm, secret); got != v.PublicKey {
			t.Errorf("%s: by hand %s, the vector has %s", name, got, v.PublicKey)
		}
		sig, err := signer.Sign(nil, []byte("exchange hash"))
		if err != nil {
			t.Fatal(err)
		}
		if err := signer.PublicKey().Verify([]byte("exchange hash"), sig); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// expandByHand is HKDF of RFC 5869 with SHA-256, no salt, and one block.
func expandByHand(seed []byte, algorithm, tenant, host string, counter uint32) []byte {
	text := func(s string) []byte { return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...) }
	extract := hmac.New(sha256.New, make([]byte, sha256.Size))
	extract.Write(seed)
	expand := hmac.New(sha256.New, extract.Sum(nil))
	for _, s := range []string{"keyturn host key v1", algorithm, tenant, host} {
		expand.Write(text(s))
	}
	expand.Write(binary.BigEndian.AppendUint32(nil, counter))
	expand.Write([]byte{1})
	return expand.Sum(nil)
}

func publicByHand(t *testing.T, algorithm string, secret []byte) string {
	t.Helper()
	var blob []byte
	put := func(b []byte) { blob = append(binary.BigEndian.AppendUint32(blob, uint32(len(b))), b...) }
	put([]byte(algorithm))
	if algorithm == ssh.KeyAlgoED25519 {
		put(ed25519.NewKeyFromSeed(secret)[32:])
	} else {
		key, err := ecdh.P256().NewPrivateKey(secret)
		if err != nil {
			t.Fatal(err)
		}
		put([]byte("nistp256"))
		put(key.PublicKey().Bytes())
	}
	key, err := trust.ParsePublicKeyBlob(blob)
	if err != nil {
		t.Fatal(err)
	}
	return key.String()
}

// Keys of P-256 are scalars from 1 to n-1: of a stream whose blocks are not, the first
// that is one counts, and for Ed25519 any does.
func TestCountersOfSeeds(t *testing.T) {
	const order = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"
	blocks := []string{
		strings.Repeat("00", 32), order, strings.Repeat("ff", 32),
		"ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632550",
	}
	for algorithm, want := range map[string]uint32{ssh.KeyAlgoECDSA256: 3, ssh.KeyAlgoED25519: 0} {
		var last uint32
		_, err := deriveKey(algorithm, func(counter uint32) ([]byte, error) {
			last = counter
			return hex.DecodeString(blocks[counter])
		})
		if err != nil || last != want {
			t.Errorf("%s took block %d (%v), want %d", algorithm, last, err, want)
		}
	}
	failed := errors.New("no more")
	if _, err := deriveKey(ssh.KeyAlgoECDSA256, func(uint32) ([]byte, error) { return nil, failed }); !errors.Is(err, failed) {
		t.Errorf("a stream that ended: %v", err)
	}
}

// No two of (seed, tenant, host, algorithm) share a key, and a host that could be
// written in two ways is refused rather than given two identities.
func TestHostKeysDiffer(t *testing.T) {
	const tenant, host = trust.TenantID("023e105f4ecef8ad9ca31a8372d0c353"), trust.HostID("0190f4d2-7b1c-7e55-9a0e-3f2f7a7f1c01")
	seed := seedOf(bytes.Repeat([]byte{7}, 32))
	for _, bad := range []trust.HostID{"", "web1", "0190F4D2-7B1C-7E55-9A0E-3F2F7A7F1C01", "{0190f4d2-7b1c-7e55-9a0e-3f2f7a7f1c01}", "0190f4d27b1c7e559a0e3f2f7a7f1c01"} {
		if _, err := seed.HostKey(tenant, bad, ssh.KeyAlgoED25519); err == nil {
			t.Errorf("host %q has a key", bad)
		}
	}
	if _, err := seed.HostKey(tenant, host, ssh.KeyAlgoRSA); trust.KindOf(err) != trust.Invalid {
		t.Errorf("an RSA key: %v", err)
	}
	if _, err := (Seed{}).HostKey(tenant, host, ssh.KeyAlgoED25519); err == nil {
		t.Error("no seed has a key")
	}
	seen := map[string]string{}
	for _, v := range seedVectors(t) {
		what := v.Seed + string(v.Tenant) + string(v.Host) + v.Algorithm
		if other, ok := seen[v.Secret]; ok {
			t.Errorf("%s and %s share a key", what, other)
		}
		seen[v.Secret] = what
	}
}

// A seed is there for its tenant alone, prints nothing, lies nowhere in the clear, is no
// value that Unseal gives away, and is gone when it is destroyed.
func TestSeedsAreSealed(t *testing.T) {
	storetest.Both(t, schemas, func(t *testing.T, s *store.Store) {
		k := open(t, s, testKEK(t, "kek"))
		const mine, other = trust.TenantID("023e105f4ecef8ad9ca31a8372d0c353"), trust.TenantID("699d98642c564d2e855e9661899b7252")
		const id = trust.SeedID("5f0b7d3c-6c0e-4a53-8a6d-1d1b53f3a001")
		get := func(tenant trust.TenantID, id trust.SeedID) (seed Seed, err error) {
			err = s.View(t.Context(), tenant, func(tx *store.Tx) error {
				seed, err = k.Seed(tx, id)
				return err
			})
			return seed, err
		}
		for _, tenant := range []trust.TenantID{mine, other} {
			if err := update(s, tenant, func(tx *store.Tx) error { return k.MakeSeed(tx, id) }); err != nil {
				t.Fatal(err)
			}
		}
		seed, err := get(mine, id)
		if err != nil {
			t.Fatal(err)
		}
		same, err := get(mine, id)
		if err != nil || !bytes.Equal(seed.secret(), same.secret()) || len(seed.secret()) != 32 {
			t.Fatalf("a seed of %d bytes changed, or not 32 (%v)", len(seed.secret()), err)
		}
		theirs, err := get(other, id)
		if err != nil || bytes.Equal(seed.secret(), theirs.secret()) {
			t.Fatalf("two tenants share a seed (%v)", err)
		}
		printed := fmt.Sprintf("%v %+v %#v %s %x %q %d", seed, seed, seed, seed, seed, seed, seed)
		encoded, err := json.Marshal(map[string]any{"seed": seed})
		if err != nil || contains([]byte(printed), seed.secret()) || contains(encoded, seed.secret()) {
			t.Errorf("a seed prints: %s %s %v", printed, encoded, err)
		}
		err = s.View(t.Context(), mine, func(tx *store.Tx) error {
			sealed, _, err := selectSealed(tx, kindSeed, string(id))
			if err != nil || contains(sealed, seed.secret()) {
				t.Errorf("a seed lies in the clear (%v)", err)
			}
			if _, err := k.Unseal(tx, kindSeed, string(id)); err == nil {
				t.Error("Unseal gives a seed away")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := update(s, mine, func(tx *store.Tx) error { return k.DestroySeed(tx, id) }); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := get(mine, id); trust.KindOf(err) != trust.NotFound {
			t.Errorf("a destroyed seed: %v", err)
		}
	})
}

// BenchmarkDerive derives the identity of one host, and reports what it costs the CPU,
// which on a busy machine is less than the time that passes.
func BenchmarkDerive(b *testing.B) {
	const tenant, host = trust.TenantID("023e105f4ecef8ad9ca31a8372d0c353"), trust.HostID("0190f4d2-7b1c-7e55-9a0e-3f2f7a7f1c01")
	seed := seedOf(bytes.Repeat([]byte{7}, 32))
	for _, algorithm := range SeedAlgorithms {
		b.Run(algorithm, func(b *testing.B) {
			begun := cpuTime(b)
			for b.Loop() {
				if _, err := seed.HostKey(tenant, host, algorithm); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-begun)/float64(b.N), "cpu-ns/op")
		})
	}
}

func cpuTime(b *testing.B) time.Duration {
	b.Helper()
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		b.Fatal(err)
	}
	return time.Duration(use.Utime.Nano() + use.Stime.Nano())
}
