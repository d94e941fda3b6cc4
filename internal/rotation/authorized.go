package rotation

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"keyturn/internal/dial"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// added is what row Authorize saves: the lines of the new key and those of the
// old one that each stands after, so that a later run brings them back.
type added struct {
	Made []Succession `json:"made"`
	SHA  string       `json:"sha256"` // of the file afterwards
	// At is when the row began to write, by our clock.
	At time.Time `json:"at"`
	// Restricted: some line of the new key has a from=.
	Restricted bool `json:"restricted,omitempty"`
	// Used: a person was told that the owner of the new key logs in with it already, who
	// has it taken away all the same.
	Used bool `json:"used,omitempty"`
}

// proven is what rows Prove and Reprove save.
type proven struct {
	Level Level     `json:"level"`
	At    time.Time `json:"at"`
	SHA   string    `json:"sha256"` // of the file that was proven
	// Asked is job.Run.Asked at the proof.
	Asked int64 `json:"asked,omitempty"`
	// Differs says, of row Confirm, what of X.pub and X-cert.pub was not kept.
	Differs []string `json:"differs,omitempty"`
}

// told is what row Reprove saves when it holds the run: what a person has been
// told, who resumes the run in spite of it. See job.Run.Save.
type told struct {
	Gone bool     `json:"gone,omitempty"` // the new key was taken out of the file
	Used []string `json:"used,omitempty"` // the addresses of unexplained uses of the old key
}

// withdrawn is what row Withdraw saves: the exact lines that it took away.
type withdrawn struct {
	Lines []string `json:"lines"`
}

// authorize is row Authorize: after each line of the old key stands a line of
// the new one with the same options.
func (ro *Rotator) authorize(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	done, err := ro.addLines(ctx, c, h)
	return done, c.noAccount(err)
}

// addLines makes the edit of row Authorize.
func (ro *Rotator) addLines(ctx context.Context, c cell, h *reach.Hands) (job.Record, error) {
	var made []Succession
	begun := time.Now().UTC()
	change, err := h.Edit(ctx, c.lock(), c.spec.User, c.spec.Path, func(old []byte) (data []byte, err error) {
		data, made, err = addSuccessors(old, c.pair.OldKey, c.pair.NewKey, c.spec.Known)
		return data, err
	})
	if err != nil {
		return nil, err
	}
	if c.run.Step == "Authorize" {
		heirs := linesOf(trust.ParseAuthorizedKeys(change.After), c.pair.NewKey)
		if err := c.run.Save(added{Made: made, SHA: change.SHA256, At: begun, Restricted: slices.ContainsFunc(heirs, hasSource)}); err != nil {
			return nil, err
		}
	}
	return recordFile(c, change.After, h.Server()), nil
}

// unauthorize takes the run's lines away again: those of the new key that row
// Baseline did not find. The connection is not one that the new key opened.
func (ro *Rotator) unauthorize(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host, c.pair.New)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if c.pair.Supplied {
		if err := unused(ctx, c, h, t); err != nil {
			return nil, err
		}
	}
	change, err := h.Edit(ctx, c.lock(), c.spec.User, c.spec.Path, func(old []byte) ([]byte, error) {
		return undoAuthorize(old, c.pair.NewKey, f.NewLines)
	})
	if err != nil {
		return nil, err
	}
	return recordFile(c, change.After, h.Server()), nil
}

// prove is row Prove: a login with the new key. What it proves it also puts to
// use, where the old key is one that opens the host for Keyturn.
func (ro *Rotator) prove(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	var a added
	if _, err := r.ResultOf(ctx, "Authorize", t, &a); err != nil {
		return nil, err
	}
	p := proven{At: time.Now().UTC(), SHA: a.SHA, Asked: r.Asked}
	if p.Level, err = ro.proveAdded(ctx, c, f, a); err != nil {
		return nil, err
	}
	if p.Level == "" {
		if p.Level, err = ro.proveNew(ctx, c, f); err != nil {
			return nil, err
		}
	}
	if err := r.Save(p); err != nil {
		return nil, err
	}
	return func(tx *store.Tx) error {
		if !f.Opens || f.Opened {
			return nil
		}
		h, err := inventory.HostBrief(tx, c.spec.Host)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(h.Credentials, func(x inventory.Credential) bool { return x.Key == c.pair.Old })
		return addProven(tx, h.ID, c.pair.New, max(at, 0), p.Level)
	}, nil
}

// addProven lets a key open a host, to which a login with it got as far as level.
func addProven(tx *store.Tx, host trust.HostID, key trust.KeyID, position int, level Level) error {
	err := inventory.AddCredential(tx, host, key, position)
	if err != nil || level != Login {
		return err
	}
	return inventory.CredentialWorked(tx, host, key, tx.Now())
}

// proveAdded tries a login right after row Authorize wrote the line that lets it
// in: nobody has to look at the file again to say what a login proves. It
// returns nothing where there was none, or where more than that file is to be
// looked at to know why there was: then somebody has to look. Whether the line
// is still there rows Reprove and Withdraw see before old is touched.
func (ro *Rotator) proveAdded(ctx context.Context, c cell, f found, a added) (Level, error) {
	if f.Beside || a.Restricted || a.SHA == "" || c.run.Attempt > 1 || c.pair.Supplied {
		return "", nil
	}
	outcome, _, err := ro.offer(ctx, c, c.pair.New, c.pair.NewKey)
	if err != nil || outcome != dial.Accepted {
		return "", err
	}
	return Login, nil
}

// proveNew proves the new key at least as well as the plan asks. A line that
// another writer's rename took away is put back, once: the host's answer is to
// what we wrote, not to a race that we lost.
func (ro *Rotator) proveNew(ctx context.Context, c cell, f found) (Level, error) {
	for attempt := 0; ; attempt++ {
		h, err := ro.reach.Open(ctx, c.run.Tenant, c.spec.Host)
		if err != nil {
			return "", err
		}
		files, why, err := ro.authorizedFiles(ctx, c, h)
		if err == nil && why == "" && attempt == 0 && lacks(files[slices.IndexFunc(files, at(c.spec.Path))].Content, c.pair) {
			_, err = ro.addLines(ctx, c, h)
			h.Close()
			if err != nil {
				return "", err
			}
			continue
		}
		h.Close()
		if err != nil {
			return "", err
		}
		if why != "" {
			return "", trust.Errorf(trust.Conflict, "%s", why)
		}
		p, err := ro.proveKey(ctx, c, c.pair.New, files, h)
		if err != nil {
			return "", err
		}
		want := c.args.Proof
		if (p.Restricted || c.pair.Supplied) && Matched.rank() < want.rank() {
			want = Matched
		}
		switch {
		case p.Level == "", p.Unexplained:
			return "", trust.Errorf(trust.Conflict, "the new key does not open %s: %s", c.spec.name(), p.Why).
				WithHint("keyturn run back %s takes back what this run added; the old key was not touched", c.run.ID)
		case p.Level.rank() < want.rank():
			return "", trust.Errorf(trust.Conflict, "the new key was proven at %s only at level %q, and the run asks for %q", c.spec.name(), p.Level, want).
				WithHint("keyturn run back %s, or keyturn settings set rotation.proof %s and rotate again", c.run.ID, p.Level)
		}
		return p.Level, nil
	}
}

// lacks reports whether some line of the old key has no line of the new key
// with the same options beside it.
func lacks(data []byte, p Pair) bool {
	f := trust.ParseAuthorizedKeys(data)
	heirs := linesOf(f, p.NewKey)
	for _, l := range linesOf(f, p.OldKey) {
		if !slices.ContainsFunc(heirs, func(h trust.AuthorizedLine) bool { return trust.SameOptions(h, l) }) {
			return true
		}
	}
	return len(heirs) == 0
}

// unprove stops using the new key as Keyturn's own.
func (ro *Rotator) unprove(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" || !f.Opens || f.Opened {
		return nil, err
	}
	return func(tx *store.Tx) error {
		h, err := inventory.HostBrief(tx, c.spec.Host)
		if err != nil || !opens(h, c.pair.New) {
			return err
		}
		return inventory.RemoveCredential(tx, h.ID, c.pair.New)
	}, nil
}

// reprove is row Reprove: after the soak, new still works, and nobody that the
// plan does not know has used old.
func (ro *Rotator) reprove(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	_, why, err := ro.searched(ctx, c, h)
	if err != nil {
		return nil, err
	}
	if why != "" {
		return nil, trust.Errorf(trust.Conflict, "%s", why)
	}
	since, err := ro.noUseSince(ctx, c)
	if err != nil {
		return nil, err
	}
	files, uses, err := h.TextsAndUses(ctx, c.spec.User, []string{c.spec.Path}, c.pair.OldKey.Fingerprint(), since)
	if err != nil {
		return nil, err
	}
	file := files[0]
	if why, err := fit(c, file); err != nil || why != "" {
		return nil, cmp.Or[error](err, trust.Errorf(trust.Conflict, "%s", why))
	}
	if err := ro.mayGo(ctx, c, h, t, file, uses, since); err != nil {
		return nil, err
	}
	var p proven
	if ok, err := r.ResultOf(ctx, "Prove", t, &p); err != nil {
		return nil, err
	} else if ok && c.stands(p, file) {
		return nil, r.Save(p)
	}
	p = proven{At: time.Now().UTC(), SHA: file.SHA256}
	if p.Level, err = ro.proveNew(ctx, c, f); err != nil {
		return nil, err
	}
	return nil, r.Save(p)
}

// freshProof is how long a proof stands where nothing lay between.
const freshProof = time.Minute

// stands reports whether row Prove's proof of these very bytes spares row Reprove a login:
// only where the run did not soak, nobody asked anything of it since, such as to pause it
// or to go on after it was held, and no attempt has failed. What sshd makes of a line that
// nobody touched, only a login shows: RevokedKeys, AllowUsers, the modes above the file.
func (c cell) stands(p proven, file remote.File) bool {
	soaked := c.args.Soak > 0 && !c.args.Compromised
	return !soaked && p.Asked == c.run.Asked && c.run.Attempt == 1 && p.SHA == file.SHA256 && time.Since(p.At) < freshProof
}

// withdraw is row Withdraw: the file no longer holds the old key. It goes over
// a connection that another key opened.
func (ro *Rotator) withdraw(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	installed, err := ro.noneHoldsOld(ctx, c, t.Wave)
	if err != nil {
		return nil, err
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host, c.pair.Old)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	var lines []string
	change, err := h.Edit(ctx, c.lock(), c.spec.User, c.spec.Path, func(old []byte) (data []byte, err error) {
		data, lines, err = withdraw(old, c.pair.OldKey, c.pair.NewKey, c.spec.name())
		return data, err
	})
	if err != nil {
		return nil, err
	}
	if len(lines) == 0 {
		// Done by an attempt whose outcome was lost: the journal still knows
		// which lines there were.
		lines = f.OldLines
	}
	if err := r.Save(withdrawn{Lines: lines}); err != nil {
		return nil, err
	}
	record := recordFile(c, change.After, h.Server())
	return func(tx *store.Tx) error {
		if installed != nil {
			if err := installed(tx); err != nil {
				return err
			}
		}
		if err := record(tx); err != nil {
			return err
		}
		if !f.Opens {
			return nil
		}
		host, err := inventory.HostBrief(tx, c.spec.Host)
		if err != nil || !opens(host, c.pair.Old) {
			return err
		}
		return inventory.RemoveCredential(tx, host.ID, c.pair.Old)
	}, nil
}

// disprove is row Disprove: the server refuses the old key, in a connection
// that the new key brings to a good end.
func (ro *Rotator) disprove(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, f, err := ro.touched(ctx, r, t)
	if err != nil || f.untouched() != "" {
		return nil, err
	}
	// That Baseline did no better than match the old key may have been for want of
	// its private half: where the new key logs in, the old one can be offered.
	var p proven
	if _, err := r.ResultOf(ctx, "Reprove", t, &p); err != nil {
		return nil, err
	}
	if f.Restricted && p.Level.rank() < LoginHere.rank() {
		// From here neither key gets in: what the file says is all there is
		// to see, and Withdraw has read it back.
		return nil, r.Save(proven{Level: Written, At: time.Now().UTC()})
	}
	accepted, level, err := ro.acceptsOld(ctx, c)
	if err != nil {
		return nil, err
	}
	if accepted {
		return nil, stillAccepted(c)
	}
	return nil, r.Save(proven{Level: level, At: time.Now().UTC()})
}

// acceptsOld asks the server about the old key, in a connection that the new one brings
// to a good end, or Keyturn's own login where only the owner can sign with that. Where
// there is neither, nobody is asked, as by row Disprove of a retirement.
func (ro *Rotator) acceptsOld(ctx context.Context, c cell) (accepted bool, level Level, err error) {
	if c.pair.Supplied {
		accepted, asked, err := ro.disproveByOwn(ctx, c)
		if !asked {
			return false, Written, err
		}
		return accepted, Login, err
	}
	signer, err := ro.signer(ctx, c)
	if err != nil {
		return false, "", err
	}
	accepted, err = ro.reach.Disprove(ctx, c.run.Tenant, c.spec.login(), c.pair.OldKey, signer)
	return accepted, Login, err
}

// stillAccepted holds a run whose host takes the old key after all.
func stillAccepted(c cell) error {
	return trust.Errorf(trust.Conflict, "host %s still accepts the old key %s for %s, although %s does not hold it any more", c.spec.Name, c.pair.OldKey.Fingerprint(), c.spec.User, c.spec.Path).
		WithHint("look on %s for another file of keys that was left out, an AuthorizedKeysCommand or a second sshd, then keyturn run resume %s", c.spec.Name, c.run.ID)
}

// touched decodes a target and what row Baseline found there.
func (ro *Rotator) touched(ctx context.Context, r job.Run, t job.Target) (cell, found, error) {
	c, err := decode(r, t)
	if err != nil {
		return c, found{}, err
	}
	f, err := c.baseline(ctx)
	return c, f, err
}

// recordFile writes into the inventory what an authorized_keys file holds now.
func recordFile(c cell, content []byte, server trust.ServerVersion) job.Record {
	return func(tx *store.Tx) error {
		tx.Note("place", c.spec.name())
		_, err := inventory.PutFile(tx, inventory.FoundFile{
			File: inventory.File{
				Place: c.spec.place(), Kind: inventory.AuthorizedFile,
				SHA256: sum(content), Size: int64(len(content)),
			},
			Authorized: inventory.AuthorizedKeysOf(content, server),
		})
		return err
	}
}

// sum is the SHA-256 of a file's content, in lower-case hex.
func sum(content []byte) string {
	h := sha256.Sum256(content)
	return hex.EncodeToString(h[:])
}

// mayGo holds the run where a person is to decide whether the old key may go. It
// asks once: who resumes the run has been told.
func (ro *Rotator) mayGo(ctx context.Context, c cell, h *reach.Hands, t job.Target, file remote.File, uses []remote.Use, since time.Time) error {
	var was told
	if c.run.Attempt > 1 { // nothing was saved before the first
		if _, err := c.run.ResultOf(ctx, "Reprove", t, &was); err != nil {
			return err
		}
	}
	if lacks(file.Content, c.pair) && !was.Gone {
		was.Gone = true
		return cmp.Or[error](c.run.Save(was),
			trust.Errorf(trust.Conflict, "somebody took the new key out of %s since it was proven; the old key was not touched", c.spec.name()).
				WithHint("find what else writes that file; keyturn run resume %s puts the line back, keyturn run back %s gives up", c.run.ID, c.run.ID))
	}
	if c.args.Compromised || len(uses) == 0 || c.pair.Supplied && c.args.Soak == 0 {
		return nil
	}
	known, err := ro.sources(ctx, c, h)
	if err != nil {
		return err
	}
	from := unexplained(uses, append(known, was.Used...))
	if len(from) == 0 {
		return nil
	}
	was.Used = append(was.Used, from...)
	return cmp.Or[error](c.run.Save(was),
		trust.Errorf(trust.Conflict, "the old key was used from %s to log in to %s since %s, and no copy of it is known there", strings.Join(from, ", "), c.spec.name(), since.Format(time.RFC3339)).
			WithHint("give that copy the new key; then keyturn run resume %s withdraws the old one", c.run.ID))
}

// unexplained returns the addresses, each once, from which the old key was used
// that are none of those known.
func unexplained(uses []remote.Use, known []string) (from []string) {
	for _, u := range uses {
		if !slices.Contains(known, u.Source) && !slices.Contains(from, u.Source) {
			from = append(from, u.Source)
		}
	}
	return from
}

// hasSource reports whether a line says from where its key may be used.
func hasSource(l trust.AuthorizedLine) bool {
	g, err := l.Grant()
	return err == nil && g.HasSource
}

func at(path string) func(remote.File) bool {
	return func(f remote.File) bool { return f.Path == path }
}

// sources returns the addresses from which uses of the old key are explained:
// ours, as the host sees it, and those of the hosts with a copy that the plan
// knows.
func (ro *Rotator) sources(ctx context.Context, c cell, h *reach.Hands) ([]string, error) {
	if c.pair.Supplied {
		return nil, nil // whoever uses it is its owner, who has not changed there
	}
	known := []string{h.ClientAddress()}
	for t, err := range c.run.Targets(ctx, Identities) {
		if err != nil {
			return nil, err
		}
		o, err := decode(c.run, t)
		if err != nil {
			return nil, err
		}
		host, err := ro.host(ctx, o)
		if trust.KindOf(err) == trust.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		name, _, err := net.SplitHostPort(host.Address)
		if err != nil {
			return nil, err
		}
		known = append(known, addressesOf(ctx, name)...)
	}
	return known, nil
}

// addressesOf returns the addresses of a host, as a log has them. What a name
// does not lead to stays unexplained.
func addressesOf(ctx context.Context, name string) []string {
	if _, err := netip.ParseAddr(name); err == nil {
		return []string{name}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	all, _ := net.DefaultResolver.LookupHost(ctx, name)
	return all
}
