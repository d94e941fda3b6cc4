package rotation

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"keyturn/internal/audit"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// snapshotKind is the kind under which the keyring seals the files of an
// identity place, as they were before a run.
const snapshotKind = "identity-snapshot"

// install is row Install: the identity file holds the new key.
func (ro *Rotator) install(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	now, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
	if err != nil {
		return nil, err
	}
	key, _, err := now.Key()
	if err != nil || key != c.pair.OldKey && key != c.pair.NewKey {
		return nil, trust.Errorf(trust.Conflict, "%s on %s no longer holds the key that the run found there", c.spec.Path, c.spec.Name).
			WithHint("keyturn scan %s shows what it holds; keyturn run back %s leaves it as it is", c.spec.Name, c.run.ID)
	}
	return ro.installOver(ctx, c, f, h, now)
}

// installOver puts the new key in the place of now, which was read there.
func (ro *Rotator) installOver(ctx context.Context, c cell, f found, h *reach.Hands, now remote.IdentityFiles) (job.Record, error) {
	want, err := ro.identity(ctx, c, f)
	if err != nil {
		return nil, err
	}
	if err := h.Install(ctx, c.lock(), c.spec.User, c.spec.Path, now, want); err != nil {
		return nil, err
	}
	return recordIdentity(c, want), nil
}

// recordIdentity writes into the inventory what an identity file holds now.
func recordIdentity(c cell, files remote.IdentityFiles) job.Record {
	return func(tx *store.Tx) error {
		tx.Note("place", c.spec.name())
		key, info, err := files.Key()
		if err != nil {
			return err
		}
		_, err = inventory.PutFile(tx, inventory.FoundFile{
			File:     inventory.File{Place: c.spec.place(), Kind: inventory.IdentityFile, SHA256: files.SHA256()},
			Identity: inventory.Identity{Key: key, Format: info.Format, Encrypted: info.Encrypted},
		})
		return err
	}
}

// identity returns the files that row Install puts at c's place: on the way
// back those that lay there, byte for byte, else the new key in the container
// of the old one. Private bytes leave the keyring here, in a commit that says so.
func (ro *Rotator) identity(ctx context.Context, c cell, f found) (files remote.IdentityFiles, err error) {
	event := audit.Event{
		Tenant: c.run.Tenant, Actor: audit.Actor{Kind: "system", ID: "rotation"}, Action: "key.reveal", Subject: "key:" + string(c.pair.New),
		Fields: []audit.Field{{Name: "run", Value: string(c.run.ID)}, {Name: "place", Value: c.spec.name()}},
	}
	err = ro.store.Update(ctx, event, func(tx *store.Tx) error {
		before, name, err := ro.former(tx, c, f)
		if err != nil {
			return err
		}
		if key, _, err := before.Key(); err == nil && key == c.pair.NewKey {
			tx.Note("from", "snapshot "+name)
			files = before
			return nil
		}
		format, err := keyring.ParseFormat(f.Format)
		if err != nil {
			return err
		}
		private, err := ro.keyring.Reveal(tx, c.pair.New, format)
		if err != nil {
			return err
		}
		files = before.With(private.Bytes(), c.pair.NewKey)
		return nil
	})
	return files, err
}

// former returns the files that lay at c's place when it held the new key before, or else
// those that row Baseline found; and under which name they are sealed.
func (ro *Rotator) former(tx *store.Tx, c cell, f found) (files remote.IdentityFiles, name string, err error) {
	if c.spec.Snapshot != "" {
		if files, err = ro.snapshot(tx, c.spec.Snapshot); err != nil {
			return files, "", err
		}
		if key, _, err := files.Key(); err == nil && key == c.pair.NewKey {
			return files, c.spec.Snapshot, nil
		}
	}
	files, err = ro.snapshot(tx, f.Snapshot)
	return files, f.Snapshot, err
}

// differs says what of X.pub and X-cert.pub is not as it was before.
func (ro *Rotator) differs(ctx context.Context, c cell, f found, now remote.IdentityFiles) (list []string, err error) {
	var before remote.IdentityFiles
	err = ro.store.View(ctx, c.run.Tenant, func(tx *store.Tx) error {
		before, _, err = ro.former(tx, c, f)
		return err
	})
	for _, x := range []struct {
		path    string
		was, is *remote.Perm
	}{{c.spec.Path + ".pub", before.PublicPerm, now.PublicPerm}, {certificateOf(c.spec.Path), before.CertificatePerm, now.CertificatePerm}} {
		if x.was != nil && x.is != nil && *x.was != *x.is {
			list = append(list, fmt.Sprintf("%s has %s now, and had %s", x.path, x.is, x.was))
		}
	}
	return list, err
}

// snapshot opens what row Baseline of some run sealed.
func (ro *Rotator) snapshot(tx *store.Tx, name string) (remote.IdentityFiles, error) {
	sealed, err := ro.keyring.Unseal(tx, snapshotKind, name)
	if err != nil {
		return remote.IdentityFiles{}, err
	}
	return remote.UnmarshalIdentityFiles(sealed)
}

// confirm is row Confirm: the file holds the new key, and a login from there
// gets where the old key got.
func (ro *Rotator) confirm(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	return nil, ro.confirmAt(ctx, c, f, h)
}

func (ro *Rotator) confirmAt(ctx context.Context, c cell, f found, h *reach.Hands) error {
	files, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
	if err != nil {
		return err
	}
	if s, err := ro.astray(ctx, c, f, files); err != nil {
		return err
	} else if s.holds != "" {
		return s.conflict(c).WithHint("keyturn run back %s", c.run.ID)
	}
	differs, err := ro.differs(ctx, c, f, files)
	if err != nil {
		return err
	}
	if f.Reaches == nil {
		return c.run.Save(proven{Level: Written, Differs: differs})
	}
	ok, detail, err := ro.loginFrom(ctx, c, h, *f.Reaches)
	if err != nil {
		return err
	}
	if !ok {
		return trust.Errorf(trust.Conflict, "a login from %s with the new key does not get to %s, where the old key did: %s", c.spec.name(), f.Reaches.User, detail).
			WithHint("keyturn run back %s", c.run.ID)
	}
	return c.run.Save(proven{Level: Login, Differs: differs})
}

// A stray is what keeps whoever uses an identity place from logging in with the new
// key that row Install put there. Nothing does where it holds nothing.
type stray struct {
	path, holds string
	// sealed: all that would be written over can be brought back.
	sealed bool
}

// conflict holds a run for a stray.
func (s stray) conflict(c cell) *trust.Error {
	return trust.Errorf(trust.Conflict, "%s on %s holds %s, not the new key that was installed there: something else writes that file; the old key was not withdrawn", s.path, c.spec.Name, s.holds)
}

// astray finds what has become of the files that row Install put at c's place. X.pub
// counts as X does: ssh(1) offers the key that it names, and X does not sign for
// another one.
func (ro *Rotator) astray(ctx context.Context, c cell, f found, now remote.IdentityFiles) (stray, error) {
	key, info, err := now.Key()
	named := now.Named()
	s := stray{path: c.spec.Path, holds: "another key"}
	switch {
	case now.Absent():
		s.holds = "nothing"
	case err != nil:
		s.holds = "no key that can be read"
	case key == c.pair.OldKey:
		s.holds = "the old key"
	case key != c.pair.NewKey:
	case named.IsZero() || named == c.pair.NewKey:
		return stray{}, nil
	default:
		s.path += ".pub"
		if named == c.pair.OldKey {
			s.holds = "the old key"
		}
	}
	ours := []trust.PublicKey{c.pair.OldKey, c.pair.NewKey}
	s.sealed = now.Absent() || err == nil && !info.Encrypted && slices.Contains(ours, key)
	s.sealed = s.sealed && (now.Public == nil || slices.Contains(ours, named))
	err = ro.store.View(ctx, c.run.Tenant, func(tx *store.Tx) error {
		known := now.Certificate == nil
		for _, name := range []string{f.Snapshot, c.spec.Snapshot} {
			if name == "" {
				continue
			}
			before, err := ro.snapshot(tx, name)
			if err != nil {
				return err
			}
			if held, _, err := before.Key(); err == nil && held == c.pair.NewKey && before.Equal(now) {
				s = stray{} // X.pub did not fit before, either, and came back as it was
				return nil
			}
			known = known || bytes.Equal(now.Certificate, before.Certificate)
		}
		s.sealed = s.sealed && known
		return nil
	})
	return s, err
}

// strayed is what row Reconfirm saves of an identity place for which it holds the
// run: the hash of what lay there.
type strayed struct {
	SHA string `json:"sha256"`
}

// reconfirm is row Reconfirm: after the soak, and before the old key is withdrawn
// anywhere, no identity file of the plan holds it again. What a restore or a
// configuration manager put back holds the run. When a person lets it go on, the
// new key is installed again, over those bytes that the run was held for and
// only where nothing is lost by it.
func (ro *Rotator) reconfirm(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	now, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
	if err != nil {
		return nil, err
	}
	if c.owners() {
		return ownersFile(c, now)
	}
	if f.untouched() != "" {
		if key, _, err := now.Key(); err != nil || key != c.pair.OldKey {
			return nil, nil
		}
		return nil, trust.Errorf(trust.Conflict, "%s on %s holds the old key by now, and did not when the run began; the old key was not withdrawn", c.spec.Path, c.spec.Name).
			WithHint("keyturn run leave %s %s keeps the old key accepted; keyturn run back %s, then rotate again, brings the new key there, too", c.run.ID, c.spec.name(), c.run.ID)
	}
	s, err := ro.astray(ctx, c, f, now)
	if err != nil || s.holds == "" {
		return nil, err
	}
	here := strayed{SHA: sum(now.Marshal())}
	var seen strayed
	if _, err := r.ResultOf(ctx, "Reconfirm", t, &seen); err != nil {
		return nil, err
	}
	if s.sealed && seen == here {
		return ro.installOver(ctx, c, f, h, now)
	}
	if err := r.Save(here); err != nil {
		return nil, err
	}
	if !s.sealed {
		return nil, s.conflict(c).WithHint("put the new key there, then keyturn run resume %s; keyturn run leave %s %s keeps the old key accepted; keyturn run back %s gives up", c.run.ID, c.run.ID, c.spec.name(), c.run.ID)
	}
	return nil, s.conflict(c).WithHint("find what else writes that file; keyturn run resume %s installs the new key again, keyturn run back %s gives up", c.run.ID, c.run.ID)
}
