package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"net/url"

	"keyturn/internal/trust"
)

// kmsTags are the schemes of URLs of key management services, and with which tag this
// program has to be built to speak to each: it is the larger by tens of megabytes.
var kmsTags = map[string]string{
	"awskms": "awskms", "gcpkms": "gcpkms", "azurekeyvault": "azurekeyvault",
	"hashivault": "hashivault", "base64key": "localsecrets",
}

// A kms encrypts and decrypts with a key that it does not give away.
type kms interface {
	Encrypt(ctx context.Context, plain []byte) ([]byte, error)
	Decrypt(ctx context.Context, sealed []byte) ([]byte, error)
	Close() error
}

// KMS returns the source whose KEK is a random key that lies in the database,
// encrypted by a key management service: a URL of gocloud.dev/secrets, such as
// awskms://alias/keyturn?region=eu-central-1. It is asked at the start, for 30
// seconds at the most.
func KMS(address string) (Source, error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme == "" {
		return nil, trust.Errorf(trust.Invalid, "the address of a key management service is a URL such as hashivault://keyturn")
	}
	tag, known := kmsTags[u.Scheme]
	if !known {
		return nil, trust.Errorf(trust.Invalid, "%q is no key management service that is known here", u.Scheme).WithHint("known are awskms, gcpkms, azurekeyvault and hashivault")
	}
	if !builtWith(u.Scheme) {
		return nil, trust.Errorf(trust.Invalid, "this program was built without what speaks to %s", u.Scheme).WithHint("build it with make build TAGS=%s", tag)
	}
	shown := u.Scheme + "://" + u.Host + u.Path // what follows may be a credential
	if tag == "localsecrets" {
		shown = u.Scheme + "://" // what follows is the key
	}
	return &kmsSource{address: address, shown: "the KMS " + shown}, nil
}

type kmsSource struct{ address, shown string }

func (k *kmsSource) String() string { return k.shown }

// kmsSeed begins the seed of a KEK that a KMS opens: what follows is encrypted.
const kmsSeed = "kms:"

func (k *kmsSource) load(ctx context.Context, r root) (KEK, error) {
	if r.name == "" {
		return k.make(ctx)
	}
	sealed, ok := bytes.CutPrefix(r.seed, []byte(kmsSeed))
	if !ok {
		return KEK{}, trust.Errorf(trust.Denied, "the database is sealed under key-encryption key %q, which is not of a KMS, but %s was given", r.name, k).
			WithHint("start with the source that it has, such as --kek-file; to change over from that to this, name it with --kek-was")
	}
	return k.asked(ctx, func(ctx context.Context, service kms) (KEK, error) {
		key, err := service.Decrypt(ctx, sealed)
		if err != nil {
			return KEK{}, fmt.Errorf("it does not open key-encryption key %q: %w", r.name, err)
		}
		defer clear(key)
		return k.kek(key, r.seed)
	})
}

// make makes a new KEK.
func (k *kmsSource) make(ctx context.Context) (KEK, error) {
	return k.asked(ctx, func(ctx context.Context, service kms) (KEK, error) {
		key := make([]byte, kekSize)
		rand.Read(key)
		defer clear(key)
		sealed, err := service.Encrypt(ctx, key)
		if err != nil {
			return KEK{}, err
		}
		return k.kek(key, append([]byte(kmsSeed), sealed...))
	})
}

// asked asks the service, and no longer than patience lasts: what speaks to some services
// does not look at its context, and is left behind then.
func (k *kmsSource) asked(ctx context.Context, ask func(context.Context, kms) (KEK, error)) (KEK, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	type answer struct {
		kek KEK
		err error
	}
	answered := make(chan answer, 1)
	go func() {
		service, err := openKMS(ctx, k.address)
		if err != nil {
			answered <- answer{err: err}
			return
		}
		defer service.Close()
		kek, err := ask(ctx, service)
		answered <- answer{kek, err}
	}()
	select {
	case a := <-answered:
		if a.err != nil {
			return KEK{}, k.failed(a.err)
		}
		return a.kek, nil
	case <-ctx.Done():
		return KEK{}, k.failed(fmt.Errorf("it does not answer: %w", context.Cause(ctx)))
	}
}

func (k *kmsSource) kek(key, seed []byte) (KEK, error) {
	kek, err := newKEK(key, k.shown)
	kek.seed = seed
	return kek, err
}

func (k *kmsSource) failed(err error) error {
	return trust.Errorf(trust.Unavailable, "%s: %w", k, err)
}

func (k *kmsSource) next(ctx context.Context, _ root) (KEK, error) { return k.make(ctx) }
func (k *kmsSource) settle(string) (string, error)                 { return "", nil }
