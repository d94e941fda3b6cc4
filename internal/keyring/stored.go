package keyring

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A stored private key is sealed in OpenSSH's container, which holds its
// comment as well and which nobody has to explain in twenty years.

// Put seals p into the database as the private half of key id. It may run
// twice: the same key again changes nothing, its comment included. Another key
// under the same id is a Conflict, and so is a key of Make that was taken: ErrTaken.
func (k *Keyring) Put(tx *store.Tx, id trust.KeyID, p Private) error {
	if err := checkWrite(tx); err != nil {
		return err
	}
	if err := checkID("key id", string(id)); err != nil {
		return err
	}
	if err := checkComment(p.Comment); err != nil {
		return err
	}
	text, err := p.text(OpenSSH)
	if err != nil {
		return err
	}
	defer clear(text)
	if r := p.half().ready; r != nil {
		if err := r.took(tx); err != nil {
			return err
		}
	}
	data, err := k.data(tx)
	if err != nil {
		return err
	}
	sealed, err := data.seal(binding{tx.Tenant(), kindPrivate, string(id)}, text)
	if err != nil {
		return err
	}
	if added, err := insertPrivate(tx, id, p.Public().Blob(), sealed); err != nil || added > 0 {
		return err
	}
	there, err := selectPublic(tx, id)
	if err == nil && !bytes.Equal(there, p.Public().Blob()) {
		err = trust.Errorf(trust.Conflict, "key %q is held already, with another private half", id)
	}
	return err
}

// Has reports whether the private half of key id is held.
func (k *Keyring) Has(tx *store.Tx, id trust.KeyID) (bool, error) {
	_, err := selectPublic(tx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	return err == nil, err
}

// Held returns up to limit of the ids of keys that are held, those behind after, in
// their order.
func (k *Keyring) Held(tx *store.Tx, after trust.KeyID, limit int) ([]trust.KeyID, error) {
	return selectHeld(tx, after, limit)
}

// A Sealed is the private half of a key as a transaction read it. It is opened to sign,
// after that transaction has said that it may be.
type Sealed struct {
	keyring *Keyring
	binding binding
	public  []byte
	sealed  []byte
	keyset  []byte // what seals it, wrapped
}

// Sealed reads the private half of key id, and leaves it sealed. A key that is not held
// is NotFound.
func (k *Keyring) Sealed(tx *store.Tx, id trust.KeyID) (Sealed, error) {
	s := Sealed{keyring: k, binding: binding{tx.Tenant(), kindPrivate, string(id)}}
	var err error
	s.public, s.sealed, s.keyset, err = selectPrivate(tx, id)
	if errors.Is(err, sql.ErrNoRows) {
		return Sealed{}, trust.Errorf(trust.NotFound, "the private half of key %q is not held here", id)
	}
	return s, err
}

// Sign opens the private half, signs with it by one of its Algorithms, and wipes it.
func (s Sealed) Sign(data []byte, algorithm string) (*ssh.Signature, error) {
	p, err := s.open()
	if err != nil {
		return nil, err
	}
	defer p.Wipe()
	signer, err := newSigner(p.half())
	if err != nil {
		return nil, err
	}
	return signer.SignWithAlgorithm(rand.Reader, data, algorithm)
}

// SignAgain signs as Sign does with the best algorithm of the key, and makes the same
// signature of the same data each time: Ed25519 and RSA (PKCS #1 v1.5) do by themselves,
// and ECDSA by RFC 6979, without a random number. It is for keys that sign often: the
// private half stays open for a while, see openFor.
func (s Sealed) SignAgain(data []byte) (*ssh.Signature, error) {
	return s.sign(nil, data, "")
}

// open refuses a private half that does not belong to the public half beside it.
func (s Sealed) open() (Private, error) {
	data, err := s.keyring.unwrapData(s.binding.tenant, s.keyset)
	if err != nil {
		return Private{}, err
	}
	text, err := data.open(s.binding, s.sealed)
	if err != nil {
		return Private{}, err
	}
	defer clear(text)
	p, err := Parse(text, nil)
	if err != nil {
		return Private{}, err
	}
	if !bytes.Equal(p.Public().Blob(), s.public) {
		return Private{}, trust.Errorf(trust.Internal, "private half of key %q belongs to %s, not to the public half beside it", s.binding.id, p.Public().Fingerprint())
	}
	return p, nil
}

// Signer returns what signs with the private half of key id of tenant: for an
// SSH login, a host's key exchange, a certificate. The private half stays here, open
// for a while, see openFor. A key that is not held is NotFound.
func (k *Keyring) Signer(ctx context.Context, tenant trust.TenantID, id trust.KeyID) (ssh.Signer, error) {
	var s Sealed
	err := k.store.View(ctx, tenant, func(tx *store.Tx) (err error) {
		s, err = k.Sealed(tx, id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if _, err := k.opened(s); err != nil {
		return nil, err // and not at the login, which would blame the host
	}
	public, err := trust.ParsePublicKeyBlob(s.public)
	if err != nil {
		return nil, err
	}
	parsed, err := public.SSH()
	if err != nil {
		return nil, err
	}
	return &keptSigner{sealed: s, public: parsed, algorithms: Algorithms(public)}, nil
}

// Reveal returns the private half of key id as the text of an unencrypted file,
// in the given container. tx has to be that of the Update whose event is the
// reveal, to which Reveal adds the fingerprint; the key remembers that it has
// been revealed. A View is refused, so that nothing leaves unrecorded. The Secret
// is passed on only after that Update has returned, and wiped afterwards.
func (k *Keyring) Reveal(tx *store.Tx, id trust.KeyID, format Format) (Secret, error) {
	if _, err := ParseFormat(string(format)); err != nil {
		return Secret{}, err
	}
	p, err := k.private(tx, id)
	if err != nil {
		return Secret{}, err
	}
	defer p.Wipe()
	if err := markRevealed(tx, id); err != nil { // as any View's write, refused
		return Secret{}, err
	}
	tx.Note("fingerprint", string(p.Public().Fingerprint()))
	text, err := p.text(format)
	if err != nil {
		return Secret{}, err
	}
	return NewSecret(text), nil
}

// Destroy forgets the private half of key id for good. It may run twice. What a
// backup holds of it stays sealed under the tenant's keyset.
func (k *Keyring) Destroy(tx *store.Tx, id trust.KeyID) error {
	gone := binding{tx.Tenant(), kindPrivate, string(id)}
	k.close(func(b binding, _ *opened) bool { return b == gone })
	return deletePrivate(tx, id)
}

// private opens the private half of key id.
func (k *Keyring) private(tx *store.Tx, id trust.KeyID) (Private, error) {
	s, err := k.Sealed(tx, id)
	if err != nil {
		return Private{}, err
	}
	return s.open()
}
