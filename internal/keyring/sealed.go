package keyring

import (
	"database/sql"
	"errors"
	"strings"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// MaxSealed bounds, in bytes, what one Seal takes.
const MaxSealed = 8 << 20

// Seal keeps plain, sealed, as the one of that kind and id, in place of what was
// there. Kind is the caller's word for what it is, such as "snapshot": 1 to 64
// of a-z, 0-9, "." and "-". Id is 1 to 512 bytes of text. Both stay readable in
// the database.
func (k *Keyring) Seal(tx *store.Tx, kind, id string, plain []byte) error {
	if err := checkWrite(tx); err != nil {
		return err
	}
	if err := checkKind(kind); err != nil {
		return err
	}
	if err := checkID("id", id); err != nil {
		return err
	}
	if len(plain) > MaxSealed {
		return trust.Errorf(trust.Exhausted, "%s %q of %d bytes is larger than %d", kind, id, len(plain), MaxSealed)
	}
	data, err := k.data(tx)
	if err != nil {
		return err
	}
	sealed, err := data.seal(binding{tx.Tenant(), kind, id}, plain)
	if err != nil {
		return err
	}
	return upsertSealed(tx, kind, id, sealed)
}

// Unseal returns what Seal keeps as kind and id, or a NotFound error.
func (k *Keyring) Unseal(tx *store.Tx, kind, id string) ([]byte, error) {
	if err := checkKind(kind); err != nil { // the others are this package's own
		return nil, err
	}
	sealed, wrapped, err := selectSealed(tx, kind, id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, trust.Errorf(trust.NotFound, "no %s %q is kept here", kind, id)
	}
	if err != nil {
		return nil, err
	}
	data, err := k.unwrapData(tx.Tenant(), wrapped)
	if err != nil {
		return nil, err
	}
	return data.open(binding{tx.Tenant(), kind, id}, sealed)
}

// Forget drops what Seal keeps as kind and id. It may run twice.
func (k *Keyring) Forget(tx *store.Tx, kind, id string) error {
	if err := checkKind(kind); err != nil {
		return err
	}
	return deleteSealed(tx, kind, id)
}

// SealPersonal seals personal data to a person's own key, which it makes at the
// first call: store.Options.Personal. For a person who was erased it returns
// nothing, so that the value is dropped and its commitment stays.
func (k *Keyring) SealPersonal(tx *store.Tx, tenant trust.TenantID, person string, plain []byte) ([]byte, error) {
	if tenant != tx.Tenant() {
		return nil, trust.Errorf(trust.Internal, "personal data of tenant %q in a transaction of %q", tenant, tx.Tenant())
	}
	wrapped, keyset, err := selectPerson(tx, person)
	var key []byte
	switch {
	case errors.Is(err, sql.ErrNoRows):
		if key, err = k.makePerson(tx, person); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case len(wrapped) == 0:
		return nil, nil
	default:
		if key, err = k.openPerson(tx, person, wrapped, keyset); err != nil {
			return nil, err
		}
	}
	defer clear(key)
	s, err := personSealer(key)
	if err != nil {
		return nil, err
	}
	return s.seal(binding{tenant, kindPersonal, person}, plain)
}

// UnsealPersonal returns what SealPersonal sealed to person, or a NotFound error
// if that person was erased, or never known.
func (k *Keyring) UnsealPersonal(tx *store.Tx, person string, sealed []byte) ([]byte, error) {
	wrapped, keyset, err := selectPerson(tx, person)
	if errors.Is(err, sql.ErrNoRows) || (err == nil && len(wrapped) == 0) {
		return nil, trust.Errorf(trust.NotFound, "personal data of %q has been erased", person)
	}
	if err != nil {
		return nil, err
	}
	key, err := k.openPerson(tx, person, wrapped, keyset)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	s, err := personSealer(key)
	if err != nil {
		return nil, err
	}
	return s.open(binding{tx.Tenant(), kindPersonal, person}, sealed)
}

// ErasePerson destroys a person's key, and with it everything that was ever
// sealed to that person; leaves of the log keep their commitments and proofs.
// It may run twice. Backups made before still hold the key, wrapped.
func (k *Keyring) ErasePerson(tx *store.Tx, person string) error {
	return erasePerson(tx, person)
}

func (k *Keyring) makePerson(tx *store.Tx, person string) ([]byte, error) {
	data, err := k.data(tx)
	if err != nil {
		return nil, err
	}
	key := newPersonKey()
	wrapped, err := data.seal(binding{tx.Tenant(), kindPerson, person}, key)
	if err != nil {
		return nil, err
	}
	return key, insertPerson(tx, person, wrapped)
}

func (k *Keyring) openPerson(tx *store.Tx, person string, wrapped, keyset []byte) ([]byte, error) {
	data, err := k.unwrapData(tx.Tenant(), keyset)
	if err != nil {
		return nil, err
	}
	return data.open(binding{tx.Tenant(), kindPerson, person}, wrapped)
}

// checkWrite refuses a transaction that does not say whose data it changes, or
// that writes no event.
func checkWrite(tx *store.Tx) error {
	if tx.Tenant() == store.System {
		return trust.Errorf(trust.Internal, "sealing needs the transaction of one tenant")
	}
	return nil
}

func checkKind(kind string) error {
	if kind == "" || len(kind) > 64 || strings.Trim(kind, "abcdefghijklmnopqrstuvwxyz0123456789.-") != "" {
		return trust.Errorf(trust.Invalid, "kind %q of something to seal is not 1 to 64 of a-z, 0-9, \".\" and \"-\"", kind)
	}
	return nil
}

func checkID(what, id string) error {
	if id == "" || len(id) > 512 {
		return trust.Errorf(trust.Invalid, "%s of %d bytes is not 1 to 512", what, len(id))
	}
	return nil
}
