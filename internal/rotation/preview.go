package rotation

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A Preview is what a rotation would do at one place.
type Preview struct {
	// Works is the level at which the old key opens the place now, or empty:
	// then Why says why the run would leave the place as it is.
	Works Level  `json:"works"`
	Why   string `json:"why,omitempty"`
	// Needs is what has to be so before a rotation would do this: that the host
	// answers, or may be changed.
	Needs string `json:"needs,omitempty"`
	// Diff is a unified diff of an authorized_keys file, or of the public key and
	// the certificate beside an identity file, from what it holds to what it would
	// hold in the end. The new key is not made yet: its base64 reads "(new key)",
	// unless its owner supplied it.
	Diff string `json:"diff,omitempty"`
	// Text says in words what would happen to an identity file, which is secret, and
	// beside an authorized_keys file what the run would not look at.
	Text string `json:"text,omitempty"`
}

// preview is the table of a dry run. It takes no lock and changes nothing.
func (ro *Rotator) preview() job.Procedure {
	return job.Procedure{
		Name:  PreviewProcedure,
		Steps: []job.Step{{Name: "Preview", On: Places, Do: ro.previewPlace}},
		Leave: func(*store.Tx, job.Run, job.Target) (job.Effect, error) { return job.Effect{}, nil },
	}
}

// previewTries is how often a dry run tries to reach a host: it is no use to wait for
// one, as a rotation does.
const previewTries = 2

func (ro *Rotator) previewPlace(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	record, err := ro.foresee(ctx, r, t)
	if err == nil || ctx.Err() != nil {
		return record, err
	}
	switch trust.KindOf(err) {
	case trust.Unavailable:
		if r.Attempt >= previewTries {
			return nil, r.Save(Preview{Needs: fmt.Sprintf("a rotation would wait for it: %v", err)})
		}
	case trust.Conflict, trust.Denied, trust.NotFound, trust.Invalid:
		return nil, r.Save(Preview{Needs: fmt.Sprintf("a rotation would be held: %v", err)})
	}
	return nil, err
}

// foresee finds out what would become of a place.
func (ro *Rotator) foresee(ctx context.Context, r job.Run, t job.Target) (job.Record, error) {
	c, err := decode(r, t)
	if err != nil {
		return nil, err
	}
	if c.owners() {
		return nil, r.Save(Preview{Why: ownersOwn})
	}
	h, err := ro.reach.Open(ctx, r.Tenant, c.spec.Host)
	if err != nil {
		return nil, err
	}
	defer h.Close()
	needs := ""
	if err := enforced(h); err != nil {
		needs = fmt.Sprintf("a rotation would be refused: %v (keyturn host enforce %s)", err, c.spec.Name)
	}
	if c.spec.Half == identityHalf {
		files, err := h.IdentityFiles(ctx, c.spec.User, c.spec.Path)
		if err != nil {
			return nil, err
		}
		key, info, err := files.Key()
		switch {
		case files.Nowhere:
			return nil, c.noDirectory()
		case err != nil:
			return nil, r.Save(Preview{Why: err.Error()})
		case key != c.pair.OldKey:
			return nil, r.Save(Preview{Why: fmt.Sprintf("%s holds another key by now, %s", c.spec.name(), key.Fingerprint())})
		}
		if err := c.exchangeable(files, info); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("would hold the new private key, in the same format (%s), owner and mode", info.Format)
		if files.Certificate != nil {
			text += fmt.Sprintf("; %s would go, and with it the logins by that certificate", certificateOf(c.spec.Path))
		}
		for _, what := range c.foreign(files) {
			text += "; " + what
		}
		if len(c.spec.Links) > 0 {
			text += "; it is what these links lead to, which stay: " + strings.Join(c.spec.Links, ", ")
		}
		beside, err := previewBeside(c.spec.name(), files, c.pair)
		if err != nil {
			return nil, err
		}
		return nil, r.Save(Preview{Works: Written, Text: text, Diff: beside, Needs: needs})
	}
	files, why, err := ro.authorizedFiles(ctx, c, h)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(files, at(c.spec.Path)); i >= 0 && files[i].Absent && files[i].Real == "" {
		return nil, c.noDirectory()
	}
	if why != "" {
		return nil, r.Save(Preview{Why: why})
	}
	now, err := ro.proveKey(ctx, c, c.pair.Old, files, h)
	if err != nil {
		return nil, err
	}
	p := Preview{Works: now.Level, Why: now.Why, Needs: needs}
	if now.Unexplained {
		p.Why += "; a rotation would be held until that is mended, or the place is left out"
	}
	// What keeps us from knowing, a scan has noted.
	if elsewhere, err := h.ByOrigin(ctx); err == nil && len(elsewhere) > 0 {
		p.Text = "is not all that sshd reads: for other addresses than Keyturn's it may go by these, where the old key would stay: " + strings.Join(elsewhere, "; ")
	}
	for _, f := range files {
		if f.Path == c.spec.Path && p.Works != "" {
			if p.Diff, err = previewDiff(c.spec.name(), f.Content, c.pair); err != nil {
				return nil, err
			}
		}
	}
	return nil, r.Save(p)
}

// previewDiff makes both edits of a rotation.
func previewDiff(name string, content []byte, p Pair) (string, error) {
	next, err := p.successor()
	if err != nil {
		return "", err
	}
	with, _, err := addSuccessors(content, p.OldKey, next, nil)
	if err != nil {
		return "", err
	}
	after, _, err := withdraw(with, p.OldKey, next, name)
	if err != nil {
		return "", err
	}
	return string(diff.Diff(name, content, name, p.unnamed(after, next))), nil
}

// previewBeside makes of the public key and the certificate beside the identity at name
// what row Install does.
func previewBeside(name string, files remote.IdentityFiles, p Pair) (string, error) {
	next, err := p.successor()
	if err != nil {
		return "", err
	}
	after := files.With(nil, next)
	public, certificate := name+".pub", certificateOf(name)
	return string(diff.Diff(public, files.Public, public, p.unnamed(after.Public, next))) +
		string(diff.Diff(certificate, files.Certificate, "/dev/null", after.Certificate)), nil
}

// successor returns the key that a preview puts in the place of the old one: one that
// is thrown away where none was supplied.
func (p Pair) successor() (trust.PublicKey, error) {
	if p.Supplied {
		return p.NewKey, nil
	}
	private, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
	if err != nil {
		return trust.PublicKey{}, err
	}
	defer private.Wipe()
	return private.Public(), nil
}

// unnamed is a text without a successor that is thrown away.
func (p Pair) unnamed(text []byte, next trust.PublicKey) []byte {
	if p.Supplied {
		return text
	}
	text = bytes.ReplaceAll(text, []byte(next.String()), []byte(p.OldKey.Type()+" (new key)"))
	return bytes.ReplaceAll(text, []byte(base64.StdEncoding.EncodeToString(next.Blob())), []byte("(new key)"))
}
