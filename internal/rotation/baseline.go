package rotation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/dial"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// found is what row Baseline saves of a place: what was there before the run
// touched anything.
type found struct {
	// Works is the level at which the old key (or, on the way back, either
	// key) was proven, or empty: then Why says why not, and no later row
	// touches the place.
	Works Level  `json:"works"`
	Why   string `json:"why,omitempty"`
	// Refused: why it was refused is not known, so that it may be accepted again
	// at any time. A person said to go on without the place, or the run is a way back,
	// which touches it all the same.
	Refused bool   `json:"refused,omitempty"`
	SHA     string `json:"sha256,omitempty"` // of the file's content

	// Of an authorized place: the lines of the old and the new key.
	OldLines []string `json:"old_lines,omitempty"`
	NewLines []string `json:"new_lines,omitempty"`
	// Taken is what a retirement is going to take out.
	Taken *Taken `json:"taken,omitempty"`
	// Beside: some other file that sshd reads for the account holds one of the
	// keys, too.
	Beside bool `json:"beside,omitempty"`
	// Restricted: some line of the old key has a from=, so that a login from
	// here may prove less than a login.
	Restricted bool `json:"restricted,omitempty"`
	// Opens: the old key is among the credentials with which Keyturn itself
	// logs in to this account, and Opened says that the new one was already.
	Opens  bool `json:"opens,omitempty"`
	Opened bool `json:"opened,omitempty"`

	// Of an identity place: the name under which the files that lay there are
	// sealed, and where a login from there went with the old key.
	Snapshot string       `json:"snapshot,omitempty"`
	Format   string       `json:"format,omitempty"`
	Reaches  *trust.Login `json:"reaches,omitempty"`
	// Certified: X-cert.pub lay beside the identity. It goes with the key that it
	// is of.
	Certified bool `json:"certified,omitempty"`
	// Differs says what of X.pub and X-cert.pub cannot be kept.
	Differs []string `json:"differs,omitempty"`
}

// baseline is row Baseline. It takes the lock of the file, so that a second
// installation is found before anything is touched.
func (ro *Rotator) baseline(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, err := decode(r, t)
	if err != nil {
		return nil, err
	}
	if c.owners() {
		return c.passOver(found{Why: ownersOwn})
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	if c.spec.Elsewhere {
		return ro.lookElsewhere(ctx, c, h)
	}
	if err := enforced(h); err != nil {
		return nil, err
	}
	if c.spec.Half == identityHalf {
		return ro.baselineIdentity(ctx, c, h)
	}
	done, err := ro.baselineAuthorized(ctx, c, h)
	return done, c.noAccount(err)
}

// missing is what rows Baseline and Authorize save of a place that is not there, and may
// be there again at any time. A person who says to go on without it says that it will not.
type missing struct {
	Why     string `json:"why"`
	Missing bool   `json:"missing"`
}

// away holds the run at a place that is missing: whoever uses the key there would be shut
// out when it is back. mend is what would bring it back.
func (c cell) away(why, mend string) error {
	return cmp.Or[error](c.run.Save(missing{why, true}), trust.Errorf(trust.Conflict, "%s", why).
		WithHint("where it is gone for good, keyturn run leave %s %s goes on without it; %s, then keyturn run resume %s", c.run.ID, c.spec.name(), mend, c.run.ID))
}

// noAccount holds the run where err says that the host does not know the account.
func (c cell) noAccount(err error) error {
	none := (*remote.NoAccountError)(nil)
	if !errors.As(err, &none) {
		return err
	}
	return c.away(none.Error(), "where the host does not reach what knows its accounts, mend that")
}

// noDirectory holds the run where the directory of the file does not exist.
func (c cell) noDirectory() error {
	return c.away(fmt.Sprintf("the directory of %s does not exist on %s", c.spec.Path, c.spec.Name), "where its file system is not mounted, mount it")
}

// enforced refuses a host that must not be changed.
func enforced(h *reach.Hands) error {
	if h.Row.Mode == inventory.Enforced {
		return nil
	}
	return trust.Errorf(trust.Denied, "host %q is only watched (mode inventory) and must not be changed", h.Row.Name).
		WithHint("keyturn host enforce %s", h.Row.Name)
}

func (ro *Rotator) baselineAuthorized(ctx context.Context, c cell, h *reach.Hands) (job.Record, error) {
	f := found{}
	paths, why, err := ro.searched(ctx, c, h)
	if err != nil {
		return nil, err
	}
	if why != "" {
		f.Why = why
		return c.passOver(f)
	}
	beside := slices.DeleteFunc(paths, func(p string) bool { return p == c.spec.Path })
	// What counts is what the file holds under the lock.
	var file remote.File
	var others []remote.File
	err = c.hold(ctx, h, func() (err error) {
		file, others, err = h.HoldFile(ctx, c.lock(), c.spec.User, c.spec.Path, beside)
		return err
	})
	if err != nil {
		return nil, err
	}
	if file.Absent && file.Real == "" {
		return nil, c.noDirectory()
	}
	if f.Why, err = fit(c, file); err != nil {
		return nil, err
	}
	if f.Why != "" {
		return c.passOver(f)
	}
	f.SHA = file.SHA256
	f.OldLines = textsOf(file.Content, c.pair.OldKey)
	f.NewLines = textsOf(file.Content, c.pair.NewKey)
	if c.pair.NewKey.IsZero() {
		_, t := takeOut(file.Content, c.pair.OldKey)
		f.Taken = &t
	}
	for _, x := range others {
		olds, news := textsOf(x.Content, c.pair.OldKey), textsOf(x.Content, c.pair.NewKey)
		if len(olds) > 0 && !ro.planned(ctx, c, x.Path) {
			return nil, stale(c, fmt.Sprintf("%s on %s grants %s the same key", x.Path, c.spec.Name, c.spec.User))
		}
		f.Beside = f.Beside || len(olds)+len(news) > 0
	}
	files := append(others, file)
	refused := ""
	f.Opens = h.Row.User == c.spec.User && opens(h.Row, c.pair.Old)
	f.Opened = h.Row.User == c.spec.User && opens(h.Row, c.pair.New)
	for _, key := range []trust.KeyID{c.pair.Old, c.pair.New} {
		p, err := ro.proveKey(ctx, c, key, files, h)
		if err != nil {
			return nil, err
		}
		if p.Level != "" || key == c.pair.Old {
			f.Works, f.Restricted, f.Why = p.Level, p.Restricted, p.Why
		}
		if p.Unexplained {
			refused = cmp.Or(refused, p.Why)
		}
		if p.Level != "" {
			break
		}
	}
	f.Refused = refused != "" && !c.pair.NewKey.IsZero() && !c.args.Compromised
	wayBack := !c.args.Since.IsZero()
	if f.Works == "" && len(f.OldLines) > 0 && (c.pair.NewKey.IsZero() || f.Refused && wayBack) {
		// A retirement takes the lines out, whatever the server makes of them. So does a
		// way back, which may be wanted for that very refusal: row Prove has the key that
		// comes back get in first.
		f.Works = Written
	}
	held := f.Refused && !wayBack
	if !held && f.untouched() == "" {
		return nil, c.run.Save(f)
	}
	if err := h.Release(ctx, c.lock(), c.spec.User, c.spec.Path); err != nil {
		return nil, err
	}
	if held {
		f.Why = refused
		return nil, c.refused(f)
	}
	return c.passOver(f)
}

// refused holds the run at a place where the old key is refused, and nothing explains it.
func (c cell) refused(f found) error {
	return cmp.Or[error](c.run.Save(f), trust.Errorf(trust.Conflict, "%s; whoever uses the key there would be shut out when that is mended", f.Why).
		WithHint("find out why (sshd's log on %s; owners and modes above %s; RevokedKeys), then keyturn run resume %s; keyturn run leave %s %s goes on without that account",
			c.spec.Name, c.spec.Path, c.run.ID, c.run.ID, c.spec.name()))
}

// passOver saves what row Baseline found at c's place, which the run does not touch: no
// other one has to wait for it there.
func (c cell) passOver(f found) (job.Record, error) {
	return func(tx *store.Tx) error {
		half := job.Target{List: Authorized, N: c.spec.Order}
		if c.spec.Half == identityHalf {
			half.List = Identities
		}
		return cmp.Or(c.run.In(tx).PassOver(c.target()), c.run.In(tx).PassOver(half))
	}, c.run.Save(f)
}

// searched returns the paths in which sshd on c's host looks for keys of c's
// account. why says that c's file is not one of them, or is empty.
func (ro *Rotator) searched(ctx context.Context, c cell, h *reach.Hands) (paths []string, why string, err error) {
	cfg, err := h.AccountConfig(ctx, c.spec.User)
	if err != nil {
		return nil, "", err
	}
	if !slices.Contains(cfg.AuthorizedKeys, c.spec.Path) {
		why = fmt.Sprintf("sshd on %s reads the keys of %s from %s, not from %s", c.spec.Name, c.spec.User, strings.Join(cfg.AuthorizedKeys, ", "), c.spec.Path)
	}
	return slices.Clone(cfg.AuthorizedKeys), why, nil
}

// fit says why c's file is not one that this run may change, or nothing.
func fit(c cell, x remote.File) (why string, err error) {
	switch {
	case x.Absent:
		return fmt.Sprintf("%s does not exist on %s any more", c.spec.Path, c.spec.Name), nil
	case x.Fixed != "":
		return "", c.fixed(x.Fixed)
	}
	return "", nil
}

// fixed holds the run at a place that cannot be changed.
func (c cell) fixed(why string) error {
	return trust.Errorf(trust.Conflict, "%s on %s cannot be changed: %s", c.spec.Path, c.spec.Name, why).
		WithHint("mend that, then keyturn run resume %s; keyturn run leave %s %s goes on without it", c.run.ID, c.run.ID, c.spec.name())
}

// authorizedFiles reads every file in which sshd on c's host looks for keys of
// c's account. why says why c's file is not one that this run may change, or
// is empty.
func (ro *Rotator) authorizedFiles(ctx context.Context, c cell, h *reach.Hands) (files []remote.File, why string, err error) {
	paths, why, err := ro.searched(ctx, c, h)
	if err != nil || why != "" {
		return nil, why, err
	}
	files, err = h.Files(ctx, c.spec.User, paths)
	if err != nil {
		return nil, "", err
	}
	why, err = fit(c, files[slices.IndexFunc(files, at(c.spec.Path))])
	return files, why, err
}

// An offered key is what came of a login with a key of the pair.
type offered struct {
	Level Level // how well the key opens the account, or empty: then Why says why not
	// Restricted: some line of the key has a from=.
	Restricted bool
	Why        string
	// Unexplained: the files grant the key to us and the server refuses it, or lets
	// nobody in who has it, for nothing that somebody has decided as far as can be
	// seen.
	Unexplained bool
}

// proveKey finds out how well a key of the pair opens c's account now.
func (ro *Rotator) proveKey(ctx context.Context, c cell, id trust.KeyID, files []remote.File, h *reach.Hands) (p offered, err error) {
	key := c.pair.OldKey
	if id == c.pair.New {
		key = c.pair.NewKey
	}
	if key.IsZero() {
		return p, nil
	}
	present := false
	for _, f := range files {
		for _, l := range linesOf(trust.ParseAuthorizedKeys(f.Content), key) {
			present = true
			p.Restricted = p.Restricted || hasSource(l)
		}
	}
	if !present {
		p.Why = fmt.Sprintf("no file that sshd on %s reads for %s holds %s", c.spec.Name, c.spec.User, key.Fingerprint())
		return p, nil
	}
	outcome, signed, err := ro.offer(ctx, c, id, key)
	if err != nil {
		return p, err
	}
	switch outcome {
	case dial.Accepted, dial.Partial:
		p.Level = Login
		if p.Restricted {
			p.Level = LoginHere
		}
		return p, nil
	case dial.Matched:
		p.Level = Matched
		if !signed || Matched.rank() >= c.args.Proof.rank() {
			return p, nil
		}
		p.Why = fmt.Sprintf("sshd on %s takes %s and then lets nobody in to %s, as where PAM refuses the account", c.spec.Name, key.Fingerprint(), c.spec.User)
		decided, err := h.Refusal(ctx, c.spec.User, key)
		if decided != "" {
			p.Level, p.Why = "", p.Why+": "+decided
		}
		p.Unexplained = decided == ""
		return p, err
	}
	a := trust.Attempt{Key: key, User: c.spec.User, Time: time.Now().Add(h.Skew()), Server: h.Server()}
	a.Addr, _ = netip.ParseAddr(h.ClientAddress())
	granted, elsewhere := grants(files, a)
	if p.Restricted && elsewhere {
		p.Level = Matched
		return p, nil
	}
	p.Why = fmt.Sprintf("sshd on %s refuses %s to %s although %s holds it", c.spec.Name, key.Fingerprint(), c.spec.User, c.spec.Path)
	if !granted {
		return p, nil
	}
	decided, err := h.Refusal(ctx, c.spec.User, key)
	if decided != "" {
		p.Why += ": " + decided
	}
	p.Unexplained = decided == ""
	return p, err
}

// offer logs in with a key that the keyring holds, which is signed, or asks the
// server about the public half of one that it does not, or that is its owner's: a login
// with that one is taken for one of his.
func (ro *Rotator) offer(ctx context.Context, c cell, id trust.KeyID, key trust.PublicKey) (o dial.Outcome, signed bool, err error) {
	signer, err := ro.keyring.Signer(ctx, c.run.Tenant, id)
	if c.pair.Supplied || trust.KindOf(err) == trust.NotFound {
		o, err = ro.reach.Query(ctx, c.run.Tenant, c.spec.login(), key)
		return o, false, err
	}
	if err != nil {
		return dial.Refused, false, err
	}
	o, err = ro.reach.Prove(ctx, c.run.Tenant, c.spec.login(), signer)
	return o, true, err
}

// grants reports whether files grant a key to a login from here, and whether where we
// are explains that it is refused: some line of the key would let in a client from
// where its from= allows, and none lets us in from here. A host that refuses what its
// files grant to us does not honor them, and the from= of another line is no excuse.
// Options are read as a server of that version does: one before 9.1 refuses a line
// whose expiry-time= is in UTC.
func grants(files []remote.File, a trust.Attempt) (here, elsewhere bool) {
	var all []*trust.AuthorizedKeys
	for _, f := range files {
		keys := trust.ParseAuthorizedKeys(f.Content)
		all = append(all, keys)
		for _, l := range linesOf(keys, a.Key) {
			if g, err := l.Grant(); err == nil && g.HasSource && !g.CertAuthority && l.HonoredBy(a.Server) == nil {
				elsewhere = true
			}
		}
	}
	here = a.Addr.IsValid() && trust.WouldAccept(all, a).Accepted
	return here, elsewhere && !here
}

// planned reports whether another place of the plan is this path of c's account.
func (ro *Rotator) planned(ctx context.Context, c cell, path string) bool {
	for t, err := range c.run.Targets(ctx, Authorized) {
		if err != nil {
			return false
		}
		if o, err := decode(c.run, t); err == nil && o.spec.Pair == c.spec.Pair && o.spec.login() == c.spec.login() && o.spec.Path == path {
			return true
		}
	}
	return false
}

// stale holds a run because the world has something that its plan does not.
func stale(c cell, what string) error {
	return trust.Errorf(trust.Conflict, "plan is stale: %s", what).
		WithHint("keyturn run back %s, then keyturn scan %s and rotate again", c.run.ID, c.spec.Name)
}

func opens(h inventory.Host, key trust.KeyID) bool {
	return slices.ContainsFunc(h.Credentials, func(c inventory.Credential) bool { return c.Key == key })
}

// signer returns the new key's signer.
func (ro *Rotator) signer(ctx context.Context, c cell) (ssh.Signer, error) {
	return ro.keyring.Signer(ctx, c.run.Tenant, c.pair.New)
}
