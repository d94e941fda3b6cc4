package control

import (
	"context"
	"errors"
	"time"

	"keyturn/internal/discovery"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Reveal asks for the private half of a key as a file.
type Reveal struct {
	// Format is that of the file; empty for OpenSSH's.
	Format string
	// Passphrase encrypts the file, which OpenSSH's format alone can be. To have it
	// unencrypted, Plain says so.
	Passphrase []byte
	Plain      bool
}

// maxPassphrase is how many bytes of a passphrase are taken.
const maxPassphrase = 1024

// file reads which file is asked for.
func (r Reveal) file() (keyring.Format, error) {
	format := keyring.OpenSSH
	if r.Format != "" {
		var err error
		if format, err = keyring.ParseFormat(r.Format); err != nil {
			return "", err
		}
	}
	switch {
	case r.Plain == (len(r.Passphrase) > 0):
		return "", trust.Errorf(trust.Invalid, "give a passphrase that encrypts the file, or say that it is to be unencrypted").WithField("passphrase")
	case len(r.Passphrase) > maxPassphrase:
		return "", trust.Errorf(trust.Invalid, "passphrase of %d bytes is longer than %d", len(r.Passphrase), maxPassphrase).WithField("passphrase")
	case !r.Plain && format != keyring.OpenSSH:
		return "", trust.Errorf(trust.Invalid, "a file of the format %s is written unencrypted only", format).WithField("format").
			WithHint("reveal it in OpenSSH's format, which ssh-keygen -p -m converts")
	}
	return format, nil
}

// RevealKey gives the private half of a key to a user, who has it from then on: the key
// counts as external. Keyturn holds its half still, for going back. What leaves is
// recorded before it does. It outlives the login of whoever asks: it is for logins of the
// last hour, and for no machine. Where policy asks for that, another user has to have approved,
// for this user and once; otherwise that is asked for, and the error says so.
func (p *Plane) RevealKey(ctx context.Context, actor identity.Actor, idOrFingerprint string, r Reveal) (k inventory.Key, file keyring.Secret, err error) {
	if err := require(actor, identity.KeysReveal); err != nil {
		return k, file, err
	}
	format, err := r.file()
	if err != nil {
		return k, file, err
	}
	err = p.update(ctx, actor, needs(identity.KeysReveal), "key.reveal", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		file.Wipe()
		if err := identity.CheckReveal(tx, actor); err != nil {
			return err
		}
		if k, err = p.revealable(tx, actor, idOrFingerprint); err != nil {
			return err
		}
		if err := spendReveal(tx, actor, k.ID); err != nil {
			return err
		}
		tx.Note("format", string(format))
		tx.Note("encrypted", map[bool]string{true: "no", false: "yes"}[r.Plain])
		if file, err = p.keyring.Reveal(tx, k.ID, format); err != nil {
			return err
		}
		k.Custody, k.RevealedAt = inventory.External, tx.Now()
		if k, err = inventory.UpdateKey(tx, k); err != nil {
			return err
		}
		return discovery.Judge(tx, []trust.KeyID{k.ID})
	})
	if errors.Is(err, errApproval) {
		err = p.askForReveal(ctx, actor, k)
	}
	if err != nil || r.Plain {
		return k, file, err
	}
	defer file.Wipe()
	file, err = keyring.Encrypt(file, r.Passphrase, 0)
	return k, file, err
}

// revealable returns a key whose private half may be revealed to an actor: one that
// users log in with, and Keyturn does not. That a server has it for a host key, or an
// account for an authority, is asked of the inventory: what no scan reads, such as the
// file that TrustedUserCAKeys names, is not known there.
func (p *Plane) revealable(tx *store.Tx, actor identity.Actor, idOrFingerprint string) (inventory.Key, error) {
	k, err := inventory.FindKey(tx, idOrFingerprint)
	if err != nil {
		return k, err
	}
	if k.Kind != inventory.UserKey || k.State != inventory.Active {
		return k, trust.Errorf(trust.Conflict, "key %s is a %s key that is %s; only user keys that are in use are revealed", k.ID, k.Kind, k.State)
	}
	hosts, total, err := inventory.CredentialHosts(tx, k.ID, 1)
	if err != nil {
		return k, err
	}
	if total > 0 {
		return k, trust.Errorf(trust.Conflict, "key %s opens host %q for Keyturn itself, one of %d, and is not revealed", k.ID, hosts[0].Name, total).
			WithHint("have users log in with a key of their own: keyturn key generate")
	}
	users, err := inventory.UsersOfKey(tx, k.ID)
	if err != nil {
		return k, err
	}
	if users.Limited && !users.Names(actor.Owner) {
		return k, trust.Errorf(trust.Denied, "key %s is for users who are named for it", k.ID).WithHint("keyturn key allow %s --user NAME", k.ID)
	}
	if held, err := p.keyring.Has(tx, k.ID); err != nil || !held {
		if err == nil {
			err = trust.Errorf(trust.Conflict, "Keyturn does not hold the private half of key %s", k.ID)
		}
		return k, err
	}
	if err := p.refuseBusy(tx, []trust.KeyID{k.ID}); err != nil {
		return k, err
	}
	switch host, err := inventory.KeyByID(tx, inventory.KeyIDOf(tx.Tenant(), inventory.HostKey, k.Public)); {
	case err == nil:
		return k, trust.Errorf(trust.Conflict, "key %s is the host key of a server as well, key %s, and is not revealed", k.ID, host.ID).
			WithHint("keyturn key show %s", host.ID)
	case trust.KindOf(err) != trust.NotFound:
		return k, err
	}
	related, err := relate(tx, k)
	if err != nil {
		return k, err
	}
	for _, line := range related.Authorized {
		if line.Authority {
			return k, trust.Errorf(trust.Conflict, "key %s is a certificate authority in %s of %s on %s, and is not revealed", k.ID, line.Path, line.User, line.HostName)
		}
	}
	return k, nil
}

// spendReveal makes use of the approval that a reveal takes, where it takes one. It is
// errApproval that there is none.
func spendReveal(tx *store.Tx, actor identity.Actor, key trust.KeyID) error {
	wanted, _, err := setting(tx, revealApproval)
	if err != nil || wanted == off {
		return err
	}
	a, err := requested(tx, "key:"+string(key), actor.Owner)
	if trust.KindOf(err) == trust.NotFound || err == nil && a.ApprovedAt.IsZero() {
		return errApproval
	}
	if err != nil {
		return err
	}
	return a.spend(tx)
}

// askForReveal asks for the approval that a reveal takes.
func (p *Plane) askForReveal(ctx context.Context, actor identity.Actor, k inventory.Key) error {
	if actor.Owner == "" {
		return trust.Errorf(trust.Denied, "with the setting %s on, keys are revealed to users, and %s %q is none", revealApproval, actor.Kind, actor.Name)
	}
	var a Approval
	err := p.update(ctx, actor, needs(identity.KeysReveal), "approval.ask", "key:"+string(k.ID), func(tx *store.Tx) (err error) {
		tx.Note("fingerprint", string(k.Public.Fingerprint()))
		a, err = ask(tx, actor, "key:"+string(k.ID), "", tx.Now().Add(requestLapses))
		return err
	})
	if err != nil {
		return err
	}
	return trust.Errorf(trust.Conflict, "another user has to approve that key %s is revealed to you, which was asked for until %s", k.ID, a.Until.Format(time.RFC3339)).
		WithHint("keyturn key approve-reveal %s USER, by another user; then ask again, within an hour", k.ID)
}

// ApproveReveal approves that a key is revealed to a user who asked for it, once, within
// an hour.
func (p *Plane) ApproveReveal(ctx context.Context, actor identity.Actor, idOrFingerprint, user string) (a Approval, err error) {
	err = p.update(ctx, actor, needs(identity.KeysReveal), "key.approve-reveal", "key:"+subject(idOrFingerprint), func(tx *store.Tx) error {
		k, err := inventory.FindKey(tx, idOrFingerprint)
		if err != nil {
			return err
		}
		u, err := p.directory.User(tx, user)
		if err != nil {
			return err
		}
		if a, err = requested(tx, "key:"+string(k.ID), u.ID); err != nil {
			return err
		}
		tx.Note("fingerprint", string(k.Public.Fingerprint()))
		a.AskedBy = u.Name
		_, err = p.approve(tx, &a, actor, tx.Now().Add(approvalLapses))
		return err
	})
	return a, err
}
