package discovery

import (
	"context"
	"fmt"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file takes in hosts to which Keyturn has no key yet: a password opens the
// host once, to put the public half of a key there that opens it from then on.
//
//	Pin        the host is known by a key: given, or the one that it presents
//	Vouch      somebody has vouched for that key
//	Authorize  a login with the password; the key's line is there, and opens the account
//	Enrol      a login with the key, and the first scan
//
// A password, unlike a signature, is of use to whoever asked for it. So it is not
// sent before Vouch, and reach does not send it where that was forgotten.

// PlanEnrolByPassword plans the run that takes a host in which a password opens,
// that the keyring was lent by the host's id, once. The first of the host's
// credentials is the key that is put there.
func PlanEnrolByPassword(h inventory.Host, acceptNew bool) (job.Plan, error) {
	plan, err := PlanEnrol(h, acceptNew)
	plan.Procedure = PasswordProcedure
	return plan, err
}

// vouchWait is how often row Vouch looks whether it was missed that somebody
// vouched.
const vouchWait = 30 * time.Second

// vouch is row Vouch: it waits, as long as the password does, for somebody to say
// that the key which the host presented is the host's.
func (d *Discoverer) vouch(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	h, err := d.host(ctx, r.Tenant, t.Host)
	if err != nil || h.State == inventory.Refused || !h.Unconfirmed() {
		return nil, err
	}
	now, until := time.Now(), r.Created.Add(reach.PasswordFor)
	if !now.Before(until) {
		return refuse(h, trust.Errorf(trust.Conflict, "nobody vouched within %s for the host key %s that it presented, and the password was not sent", reach.PasswordFor, h.Pins[0].Key.Fingerprint())), nil
	}
	// Whoever vouches wakes the run, unless it was looking at that very moment.
	again := now.Add(vouchWait)
	if until.Before(again) {
		again = until
	}
	return nil, fmt.Errorf("the password is sent as soon as somebody vouches for the host key %s, with keyturn host confirm %s: %w", h.Pins[0].Key.Fingerprint(), h.Name, job.Until(again))
}

// authorize is row Authorize. What goes wrong is the host's reason, as in row
// Enrol, and a line that opens nothing is taken out again.
func (d *Discoverer) authorize(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	h, err := d.host(ctx, r.Tenant, t.Host)
	if err != nil || h.State == inventory.Refused {
		return nil, err
	}
	var key inventory.Key
	err = d.store.View(ctx, r.Tenant, func(tx *store.Tx) error {
		key, err = inventory.KeyByID(tx, h.Credentials[0].Key)
		return err
	})
	if err != nil {
		return nil, err
	}
	hands, err := d.openToAuthorize(ctx, r, h)
	if err != nil {
		return refuse(h, err), ctx.Err()
	}
	defer hands.Close()
	path, err := addKey(ctx, hands, remote.Lock{Installation: r.Installation, Epoch: r.Epoch, Run: r.ID}, key, func() error {
		proof, err := d.reach.Open(ctx, r.Tenant, h.ID)
		if err == nil {
			proof.Close()
		}
		return err
	})
	if err != nil {
		return refuse(h, err), ctx.Err()
	}
	return func(tx *store.Tx) error {
		tx.Note("place", fmt.Sprintf("%s:%s:%s", h.Name, h.User, path))
		tx.Note("key", string(key.ID))
		return nil
	}, nil
}

// openToAuthorize opens a host by its password, or, where an earlier attempt was
// cut off that had come as far, by the key.
func (d *Discoverer) openToAuthorize(ctx context.Context, r job.Run, h inventory.Host) (*reach.Hands, error) {
	if r.Attempt > 1 {
		if hands, err := d.reach.Open(ctx, r.Tenant, h.ID); err == nil {
			return hands, nil
		}
	}
	return d.reach.OpenByPassword(ctx, r.Tenant, h.ID)
}

// addKey puts a line of key at the end of the first file in which sshd looks for
// keys of the login, unless it is there. It stays if proof says that it opens the
// account.
func addKey(ctx context.Context, hands *reach.Hands, lock remote.Lock, key inventory.Key, proof func() error) (path string, err error) {
	user := hands.Login()
	cfg, err := hands.AccountConfig(ctx, user)
	if err != nil {
		return "", err
	}
	if len(cfg.AuthorizedKeys) == 0 {
		return "", trust.Errorf(trust.Conflict, "sshd on %s reads no file of authorized keys for %s (AuthorizedKeysFile)", hands.Name(), user)
	}
	path = cfg.AuthorizedKeys[0]
	added := false
	_, err = hands.Edit(ctx, lock, user, path, func(old []byte) ([]byte, error) {
		f := trust.ParseAuthorizedKeys(old)
		if added = len(f.Find(key.Public)) == 0; !added {
			return old, nil
		}
		if err := f.Append(key.Public.String() + " " + key.Comment); err != nil {
			return nil, err
		}
		return f.Bytes(), nil
	})
	if err != nil {
		return "", err
	}
	why := proof()
	if why != nil && added {
		_, err = hands.Edit(ctx, lock, user, path, func(old []byte) ([]byte, error) {
			f := trust.ParseAuthorizedKeys(old)
			f.RemoveKey(key.Public)
			return f.Bytes(), nil
		})
		if err != nil {
			return "", err
		}
	}
	if err := hands.Release(ctx, lock, user, path); err != nil {
		return "", err
	}
	if why != nil {
		return "", trust.Errorf(trust.KindOf(why), "a line for the key %s was put into %s, does not open the account, and was taken out again: %w", key.Public.Fingerprint(), path, why)
	}
	return path, nil
}
