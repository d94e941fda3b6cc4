package rotation

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

func (ro *Rotator) baselineIdentity(ctx context.Context, c cell, h *reach.Hands) (job.Record, error) {
	files, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
	if err != nil {
		return nil, err
	}
	key, info, err := files.Key()
	switch {
	case files.Nowhere:
		return nil, c.noDirectory()
	case err != nil:
		return ro.pass(ctx, c, fmt.Sprintf("%s on %s: %v", c.spec.Path, c.spec.Name, err))
	case key != c.pair.OldKey && key != c.pair.NewKey:
		return ro.pass(ctx, c, fmt.Sprintf("%s on %s holds another key by now, %s", c.spec.Path, c.spec.Name, key.Fingerprint()))
	}
	if err := c.exchangeable(files, info); err != nil {
		return nil, err
	}
	if err := c.hold(ctx, h, func() error { return h.Hold(ctx, c.lock(), c.spec.User, c.spec.Path) }); err != nil {
		return nil, err
	}
	f := found{Works: Written, Snapshot: fmt.Sprintf("%s/%d", c.run.ID, c.spec.Place), Format: info.Format, SHA: files.SHA256(), Certified: files.Certificate != nil, Differs: c.foreign(files)}
	if err := ro.tryFrom(ctx, c, h, &f); err != nil {
		return nil, err
	}
	if err := c.run.Save(f); err != nil {
		return nil, err
	}
	private, err := keyring.Parse(files.Private, nil)
	if err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		// The way back needs to prove this key, whoever held it before.
		if key == c.pair.OldKey {
			if err := ro.keyring.Put(tx, c.pair.Old, private); err != nil {
				return err
			}
			if _, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: key, Custody: inventory.Held}); err != nil {
				return err
			}
		}
		switch _, err := ro.keyring.Unseal(tx, snapshotKind, f.Snapshot); trust.KindOf(err) {
		case trust.NotFound:
		default:
			return err // nil: an earlier attempt sealed the files as they were before
		}
		return ro.keyring.Seal(tx, snapshotKind, f.Snapshot, files.Marshal())
	}, nil
}

// exchangeable holds the run at an identity file in whose place none can be put that is
// used as it is.
func (c cell) exchangeable(files remote.IdentityFiles, info remote.KeyInfo) error {
	leave := fmt.Sprintf("keyturn run leave %s %s", c.run.ID, c.spec.name())
	if info.Encrypted {
		return trust.Errorf(trust.Conflict, "identity file %s on %s has a passphrase: its owner has to make the new key", c.spec.Path, c.spec.Name).WithHint("%s", leave)
	}
	if info.Format == "openssh" && bytes.Contains(files.Private, []byte("KEY-----\r")) {
		// Nobody logs in by it, and it would come back as it is (sshkey.c, MARK_BEGIN).
		return trust.Errorf(trust.Conflict, "the lines of identity file %s on %s end in CR LF, and ssh does not read it", c.spec.Path, c.spec.Name).
			WithHint("mend that (sed -i 's/\\r$//' %s on %s), then keyturn run resume %s; %s goes on without it", c.spec.Path, c.spec.Name, c.run.ID, leave)
	}
	if _, err := keyring.ParseFormat(info.Format); err != nil {
		return trust.Errorf(trust.Conflict, "identity file %s on %s is in the format of another program (%s), which no new key can be written in", c.spec.Path, c.spec.Name, info.Format).WithHint("%s", leave)
	}
	if files.Fixed != "" {
		return c.fixed(files.Fixed)
	}
	return nil
}

// foreign says what of the files beside c's identity cannot be kept by who writes them
// anew: an owner, a group.
func (c cell) foreign(files remote.IdentityFiles) (list []string) {
	for _, x := range []struct{ path, why string }{
		{c.spec.Path + ".pub", files.PublicForeign}, {certificateOf(c.spec.Path), files.CertificateForeign},
	} {
		if x.why != "" {
			list = append(list, fmt.Sprintf("%s: %s", x.path, x.why))
		}
	}
	return list
}

// pass passes over an identity place that does not hold the key. Somebody has to
// hold it: where neither the keyring nor another identity place does, there would
// be no way back, and whoever has it would be locked out.
func (ro *Rotator) pass(ctx context.Context, c cell, why string) (job.Record, error) {
	passed, err := c.passOver(found{Why: why})
	if err != nil {
		return nil, err
	}
	return passed, ro.store.View(ctx, c.run.Tenant, func(tx *store.Tx) error {
		// What another place found is sealed by the commit that says so.
		held, err := ro.keyring.Has(tx, c.pair.Old)
		if err != nil || held {
			return err
		}
		if open, err := unseen(c, tx); err != nil || open {
			return cmp.Or[error](err, job.Until(time.Now().Add(time.Second)))
		}
		return trust.Errorf(trust.Conflict, "%s: the private half of the old key is nowhere to be read, so that it could neither be replaced nor come back", why).
			WithHint("put the old key there, then keyturn run resume %s; keyturn run back %s, then keyturn scan %s, if it is gone", c.run.ID, c.run.ID, c.spec.Name)
	})
}

// mayBeHeld reports whether the keyring has the private half of c's old key, or another
// identity place may yet be found to.
func (ro *Rotator) mayBeHeld(c cell, tx *store.Tx) (bool, error) {
	held, err := ro.keyring.Has(tx, c.pair.Old)
	if err != nil || held {
		return held, err
	}
	return unseen(c, tx)
}

// unseen reports whether row Baseline has yet to say what it found at another
// identity place of c's key.
func unseen(c cell, tx *store.Tx) (bool, error) {
	journal := c.run.In(tx)
	for t, err := range journal.Targets(Identities) {
		if err != nil {
			return false, err
		}
		o, err := decode(c.run, t)
		if err != nil {
			return false, err
		}
		if t.Left || o.spec.Pair != c.spec.Pair || o.spec.Place == c.spec.Place {
			continue
		}
		at := job.Target{List: Places, N: o.spec.Place, Name: t.Name}
		if known, err := journal.ResultOf("Baseline", at, &found{}); err != nil || !known {
			return err == nil, err
		}
	}
	return false, nil
}

// tryFrom looks for an account of the plan that a login from c's identity
// place reaches now, so that row Confirm can hold the new key to the same.
func (ro *Rotator) tryFrom(ctx context.Context, c cell, h *reach.Hands, f *found) error {
	tried := 0
	for t, err := range c.run.Targets(ctx, Authorized) {
		if err != nil {
			return err
		}
		to, err := decode(c.run, t)
		if err != nil {
			return err
		}
		if to.spec.Pair != c.spec.Pair {
			continue
		}
		if tried++; tried > 3 {
			return nil
		}
		ok, _, err := ro.loginFrom(ctx, c, h, to.spec.login())
		if err != nil {
			return err
		}
		if ok {
			f.Works, f.Reaches = Login, &trust.Login{Host: to.spec.Host, User: to.spec.User}
			return nil
		}
	}
	return nil
}

// loginFrom logs in from the host of an identity place, by its own ssh, with
// one read of the bytes that the file holds now.
func (ro *Rotator) loginFrom(ctx context.Context, c cell, h *reach.Hands, to trust.Login) (ok bool, detail string, err error) {
	var host inventory.Host
	err = ro.store.View(ctx, c.run.Tenant, func(tx *store.Tx) error {
		host, err = inventory.HostBrief(tx, to.Host)
		return err
	})
	if err != nil {
		return false, "", err
	}
	return h.LoginFrom(ctx, c.spec.User, c.spec.Path, to.User, host.Address, host.PinnedKeys())
}
