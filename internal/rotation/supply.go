package rotation

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"
	"golang.org/x/sync/errgroup"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/reach"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds what differs where a key is somebody's own: its owner makes the new
// key, supplies the public half, and puts the private half wherever he uses it. The
// rows are the same. What Keyturn cannot do itself it waits to see: before the old key
// is withdrawn, sshd's log has to show a login with the new one, and none with the old
// one during the soak. docs/design/0009 says why nothing begins before the new public
// half is there.

// leastRSA is the size of the smallest RSA key that is taken in the place of another,
// as of those that are made here.
const leastRSA = 3072

// Supply records that a public key is to take the place of a key whose owner has to make
// the next one. by says who gave it. Errors: NotFound; Invalid for a
// public half that no key should be replaced by; Conflict for keys that cannot be
// replaced, or replace, in this way.
func Supply(tx *store.Tx, id trust.KeyID, public trust.PublicKey, comment, by string) (inventory.Key, error) {
	old, err := activeUserKey(tx, id)
	if err != nil {
		return inventory.Key{}, err
	}
	identities, err := identitiesOf(tx, id)
	if err != nil {
		return inventory.Key{}, err
	}
	if !ownersToMake(old, identities) {
		return inventory.Key{}, trust.Errorf(trust.Conflict, "Keyturn holds key %s, and makes the one that takes its place", id).WithHint("keyturn rotate %s", id)
	}
	if err := suits(old.Public, public); err != nil {
		return inventory.Key{}, err
	}
	if err := refuseKnown(tx, id, public); err != nil {
		return inventory.Key{}, err
	}
	next, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: public, Comment: comment, Owner: old.Owner, Purpose: old.Purpose})
	if err != nil {
		return inventory.Key{}, err
	}
	if old.Owner != "" && next.Owner != "" && next.Owner != old.Owner {
		return inventory.Key{}, trust.Errorf(trust.Conflict, "key %s is of %q, and key %s of %q: one would be let in for the other", next.ID, next.Owner, id, old.Owner).
			WithHint("keyturn key set %s --owner NAME, if that is not so", next.ID)
	}
	if err := refuseSupplied(tx, id, next); err != nil {
		return inventory.Key{}, err
	}
	if err := inventory.CopyLabels(tx, id, next.ID); err != nil {
		return inventory.Key{}, err
	}
	return next, inventory.Supply(tx, id, next.ID, by)
}

// ownersToMake reports whether a key may be replaced by one that its owner makes:
// Keyturn does not hold it, or it lies somewhere with a passphrase, too, where Keyturn
// can bring none.
func ownersToMake(k inventory.Key, identities []inventory.IdentityPlace) bool {
	return k.Custody != inventory.Held || slices.ContainsFunc(identities, func(p inventory.IdentityPlace) bool { return p.Encrypted })
}

// refuseKnown refuses a public half that is known as something else than a key that may
// take the place of old.
func refuseKnown(tx *store.Tx, old trust.KeyID, public trust.PublicKey) error {
	switch host, err := inventory.KeyByID(tx, inventory.KeyIDOf(tx.Tenant(), inventory.HostKey, public)); {
	case err == nil:
		return trust.Errorf(trust.Conflict, "key %s is the host key of a server, and no key that somebody logs in with", host.ID).WithHint("keyturn key show %s", host.ID)
	case trust.KindOf(err) != trust.NotFound:
		return err
	}
	known, err := inventory.KeyByID(tx, inventory.KeyIDOf(tx.Tenant(), inventory.UserKey, public))
	if trust.KindOf(err) == trust.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return refuseOut(tx, old, known)
}

// refuseOut refuses a key that was taken out of use, unless that was to bring old back in
// its place.
func refuseOut(tx *store.Tx, old trust.KeyID, next inventory.Key) error {
	switch next.State {
	case inventory.Active:
		return nil
	case inventory.Deleted:
		return trust.Errorf(trust.Conflict, "key %s was deleted", next.ID).WithHint("keyturn key restore %s", next.ID)
	}
	standing, _, err := inventory.Rotations(tx, inventory.RotationFilter{Key: next.ID, Standing: true}, inventory.Page{Limit: 1})
	if err != nil {
		return err
	}
	former := inventory.RotationFilter{Key: old} // of a run that took itself back, nothing stands
	if len(standing) > 0 {
		former.UndoneBy = standing[0].Run
	}
	undone, _, err := inventory.Rotations(tx, former, inventory.Page{Sort: "at", Desc: true, Limit: inventory.MaxPage})
	if err != nil {
		return err
	}
	if slices.ContainsFunc(undone, func(r inventory.Rotation) bool { return slices.Contains(r.ReplacedBy, next.ID) }) {
		return nil
	}
	return trust.Errorf(trust.Conflict, "key %s is %s: its owner has to make another", next.ID, next.State).WithHint("keyturn key show %s", next.ID)
}

// suits refuses a public half that must not take the place of another.
func suits(old, next trust.PublicKey) error {
	family := func(k trust.PublicKey) string { return strings.TrimRight(k.Type(), "0123456789") }
	switch {
	case next.IsCertificate():
		return trust.Errorf(trust.Invalid, "that is a certificate, not the public half of a key").WithField("public_key").WithHint("send the .pub file that does not end in -cert.pub")
	case next == old:
		return trust.Errorf(trust.Invalid, "that is the key itself, %s: its owner has to make another", old.Fingerprint()).WithField("public_key").WithHint("ssh-keygen -t ed25519")
	case next.Type() == "ssh-dss" || next.Bits() == 0:
		return trust.Errorf(trust.Invalid, "keys of type %q are not taken", next.Type()).WithField("public_key").WithHint("ssh-keygen -t ed25519")
	case next.Type() == ssh.KeyAlgoRSA && next.Bits() < leastRSA:
		return trust.Errorf(trust.Invalid, "an RSA key of %d bits is too small: %d is the least", next.Bits(), leastRSA).WithField("public_key").WithHint("ssh-keygen -t ed25519")
	case family(next) == family(old) && next.Bits() < old.Bits():
		return trust.Errorf(trust.Invalid, "the new key has %d bits, fewer than the %d of the old one", next.Bits(), old.Bits()).WithField("public_key")
	}
	return nil
}

// refuseSupplied refuses keys of which one must not take the place of the other, whatever
// was said when it was supplied.
func refuseSupplied(tx *store.Tx, old trust.KeyID, next inventory.Key) error {
	for _, key := range []trust.KeyID{old, next.ID} {
		hosts, _, err := inventory.Hosts(tx, inventory.HostFilter{Credential: key}, inventory.Page{Limit: 1})
		if err != nil {
			return err
		}
		if len(hosts) > 0 {
			return trust.Errorf(trust.Conflict, "key %s opens host %q for Keyturn itself, and Keyturn has to hold it", key, hosts[0].Name).
				WithHint("keyturn key import FILE, then keyturn rotate %s; one that an ssh-agent has is exchanged by keyturn host credential", key)
		}
	}
	switch {
	case next.Compromised:
		return trust.Errorf(trust.Conflict, "key %s is marked as compromised: its owner has to make another", next.ID).WithHint("keyturn key show %s", next.ID)
	case next.Custody == inventory.Held:
		return trust.Errorf(trust.Conflict, "Keyturn holds the private half of key %s, so that it is not its owner's alone", next.ID).WithHint("keyturn key show %s", next.ID)
	}
	if err := refuseOut(tx, old, next); err != nil {
		return err
	}
	accepted, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: next.ID}, nil, inventory.MaxPage)
	if err != nil {
		return err
	}
	if i := slices.IndexFunc(accepted, func(p inventory.AuthorizedPlace) bool { return p.Authority }); i >= 0 {
		return trust.Errorf(trust.Conflict, "key %s is a certificate authority in %s of %s on %s", next.ID, accepted[i].Path, accepted[i].User, accepted[i].HostName)
	}
	return nil
}

// owners reports whether c's place is an identity file into which the owner of the key
// puts the new one. It is looked at, and never written.
func (c cell) owners() bool { return c.pair.Supplied && c.spec.Half == identityHalf }

// ownersOwn says what becomes of such a place.
const ownersOwn = "its owner puts the new key there"

// ownersFile is row Reconfirm at such a place: what its owner put there goes into the
// inventory.
func ownersFile(c cell, now remote.IdentityFiles) (job.Record, error) {
	switch key, _, err := now.Key(); {
	case err != nil:
		return nil, nil // whatever lies there, or nothing, does not need the old key
	case key == c.pair.OldKey && !c.args.Compromised:
		return nil, trust.Errorf(trust.Conflict, "%s on %s still holds the old key: its owner has not put the new one there; the old key was not withdrawn", c.spec.Path, c.spec.Name).
			WithHint("when that is done, keyturn run resume %s; keyturn run leave %s %s keeps the old key accepted; keyturn run back %s gives up", c.run.ID, c.run.ID, c.spec.name(), c.run.ID)
	}
	return recordIdentity(c, now), nil
}

// A sighting is what sshd's logs have of one pair of keys, from all places of a run.
type sighting struct {
	// logged: some log could be read; blind: some could not.
	logged, blind bool
	// old and next are the last logins with either key that were looked for, as a
	// reader knows them, or empty. recent is one with the old key since the time from
	// which there was to be none.
	old, recent, next string
}

// switched holds a run until the owners of its keys use the new ones. It asks again
// whenever the run is resumed.
func (ro *Rotator) switched(ctx context.Context, r job.Run, args Args, s *soaking) error {
	if !slices.ContainsFunc(args.Pairs, func(p Pair) bool { return p.Supplied }) {
		return nil
	}
	now := time.Now().UTC()
	seen, err := ro.sightings(ctx, r, args, *s)
	if err != nil {
		return err
	}
	s.Looked = now
	err = s.decide(r, args, seen)
	s.Held = err != nil
	return err
}

// Changed reports whether a run that is held until the owners of its keys use the new
// ones, and those only, would go on if it was resumed: all of them have been seen to, and
// for as long as a soak, where that was what one of them did not do. What a person has to
// decide, it leaves to a person.
func (ro *Rotator) Changed(ctx context.Context, r job.Run) (bool, error) {
	var args Args
	if err := r.Decode(&args); err != nil {
		return false, err
	}
	var s soaking
	if ok, err := r.ResultOf(ctx, "Soak", job.Target{}, &s); err != nil || !ok || !s.Held {
		return false, err
	}
	if s.Anew && time.Since(s.Looked) < args.Soak {
		return false, nil
	}
	seen, err := ro.sightings(ctx, r, args, s)
	if err != nil {
		return false, err
	}
	for _, at := range seen {
		if at.next == "" || at.recent != "" && args.Soak > 0 {
			return false, nil
		}
	}
	return true, nil
}

// decide holds a run whose owners have not been seen to change, by index of their
// pairs. A person who has been told twice that nobody was seen to use a new key, or
// once where no log can be read, decides himself; s keeps of whom that is true. Where an
// old key was used in the soak, nobody decides: the soak begins anew.
func (s *soaking) decide(r job.Run, args Args, seen map[int]sighting) error {
	var used, unseen, unsafe []string
	for i, p := range args.Pairs {
		at, ok := seen[i]
		switch {
		case !ok: // no place of it is touched
		case at.recent != "" && args.Soak > 0:
			used = append(used, fmt.Sprintf("the old key %s was used, %s", p.OldKey.Fingerprint(), at.recent))
		case at.next != "", slices.Contains(s.Warned, p.Old):
		case !args.Since.IsZero() && at.logged && !at.blind && at.old == "": // nobody has begun to use what goes
		case at.logged && !slices.Contains(s.Unseen, p.Old):
			s.Unseen = append(s.Unseen, p.Old)
			unseen = append(unseen, fmt.Sprintf("nobody has been seen to log in with the new key %s", p.NewKey.Fingerprint()))
		default:
			s.Warned = append(s.Warned, p.Old)
			why := "still nobody has been seen to log in with the new key %s"
			if !at.logged {
				why = "no log can be read that would show whether anybody logs in with the new key %s"
			}
			unsafe = append(unsafe, fmt.Sprintf(why, p.NewKey.Fingerprint()))
		}
	}
	switch {
	case len(used) > 0:
		s.Anew = true
		return trust.Errorf(trust.Conflict, "%s, while it was to be used no more", some(used)).
			WithHint("have its owner use the new key there, too; then keyturn run resume %s waits for another %s without such a use, keyturn run leave %s PLACE keeps the old key accepted somewhere, and keyturn run back %s gives up", r.ID, args.Soak, r.ID, r.ID)
	case len(unseen) > 0:
		return trust.Errorf(trust.Conflict, "%s since %s: its owner may not have it yet", some(unseen), r.Created.Format(time.RFC3339)).
			WithHint("have its owner log in with it; then keyturn run resume %s looks again, and keyturn run back %s gives up", r.ID, r.ID)
	case len(unsafe) > 0:
		return trust.Errorf(trust.Conflict, "%s: whoever has only the old key is locked out when it goes", some(unsafe)).
			WithHint("ask its owner; keyturn run resume %s withdraws the old key all the same, keyturn run back %s gives up", r.ID, r.ID)
	}
	return nil
}

// some joins sentences, of which a reader gets the first few.
func some(sentences []string) string {
	const most = 3
	if n := len(sentences); n > most {
		return fmt.Sprintf("%s; and %d more", strings.Join(sentences[:most], "; "), n-most)
	}
	return strings.Join(sentences, "; ")
}

// sightings asks the logs at all places that a run touches about its supplied keys, by
// index of the pair.
func (ro *Rotator) sightings(ctx context.Context, r job.Run, args Args, s soaking) (map[int]sighting, error) {
	var mu sync.Mutex // of what follows
	seen := map[int]sighting{}
	var away error
	var g errgroup.Group
	g.SetLimit(lookers)
	for t, err := range r.Targets(ctx, Authorized) {
		if err != nil {
			away = err
			break
		}
		c, f, err := ro.touched(ctx, r, t)
		if err != nil {
			away = err
			break
		}
		if !c.pair.Supplied || t.Left || f.untouched() != "" {
			continue
		}
		g.Go(func() error {
			here, err := ro.sightingAt(ctx, c, t, args, s)
			mu.Lock()
			defer mu.Unlock()
			if trust.KindOf(err) == trust.Unavailable {
				err = (&trust.Error{
					Kind: trust.Unavailable, Message: fmt.Sprintf("%s cannot be asked who logs in with which key: %v", t.Name, err),
					Err: job.Until(time.Now().Add(time.Second << min(r.Attempt, 8))),
				}).WithHint("keyturn run leave %s %s goes on without it, and leaves the old key accepted there", r.ID, t.Name)
			}
			if err != nil {
				away = err
				return nil
			}
			seen[c.spec.Pair] = seen[c.spec.Pair].and(here)
			return nil
		})
	}
	_ = g.Wait() // it has no errors of its own
	return seen, away
}

// and puts what was seen at two places together.
func (a sighting) and(b sighting) sighting {
	keep := func(x, y string) string {
		if x != "" {
			return x
		}
		return y
	}
	return sighting{a.logged || b.logged, a.blind || b.blind, keep(a.old, b.old), keep(a.recent, b.recent), keep(a.next, b.next)}
}

// sightingAt asks the log at one place.
func (ro *Rotator) sightingAt(ctx context.Context, c cell, t job.Target, args Args, s soaking) (here sighting, err error) {
	h, err := ro.reach.Open(ctx, c.run.Tenant, c.spec.Host)
	if err != nil {
		return here, err
	}
	defer h.Close()
	since := c.run.Created
	if !args.Since.IsZero() {
		since = args.Since
	}
	// A log may say no more of a login than its second. One in the second in which since
	// lies is taken for one after it with the old key, and for one before it with the new.
	last := func(key trust.PublicKey, since time.Time) (text string, at time.Time, err error) {
		uses, logged, err := h.Uses(ctx, c.spec.User, key.Fingerprint(), since)
		here.logged, here.blind = logged, !logged
		for _, u := range uses {
			if key == c.pair.NewKey && u.At.Before(since) {
				continue
			}
			if u.At.After(at) {
				at = u.At
				text = fmt.Sprintf("from %s to log in to %s at %s", u.Source, c.spec.name(), at.UTC().Format(time.RFC3339))
			}
		}
		return text, at, err
	}
	letIn, _, err := c.letIn(ctx, t)
	if err != nil {
		return here, err
	}
	if here.next, _, err = last(c.pair.NewKey, letIn); err != nil {
		return here, err
	}
	old, at, err := last(c.pair.OldKey, since)
	if err != nil {
		return here, err
	}
	here.old = old
	from := s.Began
	if s.Looked.After(from) {
		from = s.Looked
	}
	if !at.Before(from.Truncate(time.Second)) {
		here.recent = old
	}
	return here, nil
}

// letIn is when the run let the new key in at c's place, with what else is known of that.
// Somebody may have logged in with it before, where it was accepted already: of whether
// its owner has changed to it, that says nothing.
func (c cell) letIn(ctx context.Context, t job.Target) (at time.Time, was added, err error) {
	ok, err := c.run.ResultOf(ctx, "Authorize", t, &was)
	if err != nil || !ok {
		return c.run.Created, was, err
	}
	return was.At, was, nil
}

// noUseSince is the time since which row Reprove looks for logins with the old key.
func (ro *Rotator) noUseSince(ctx context.Context, c cell) (time.Time, error) {
	if !c.pair.Supplied {
		return c.run.Created, nil
	}
	var s soaking
	if _, err := c.run.ResultOf(ctx, "Soak", job.Target{}, &s); err != nil || s.Looked.IsZero() {
		return c.run.Created, err
	}
	return s.Looked, nil
}

// unused holds a run that goes back, where it would take away a new key with which its
// owner logs in already. It asks once.
func unused(ctx context.Context, c cell, h *reach.Hands, t job.Target) error {
	letIn, was, err := c.letIn(ctx, t)
	if err != nil || was.Used {
		return err
	}
	uses, _, err := h.Uses(ctx, c.spec.User, c.pair.NewKey.Fingerprint(), letIn)
	if err != nil || len(uses) == 0 {
		return err
	}
	was.Used = true
	return cmp.Or[error](c.run.Save(was),
		trust.Errorf(trust.Conflict, "the new key was used from %s to log in to %s: its owner may have nothing else by now", uses[0].Source, c.spec.name()).
			WithHint("have its owner log in with the old key again; then keyturn run resume %s takes the new one away", c.run.ID))
}

// supplyHint is the command that lets a key be rotated whose owner has to make the new one.
func supplyHint(key trust.KeyID) string {
	return fmt.Sprintf("keyturn key supply %s --public-key FILE, with the public half that its owner made, then rotate again", key)
}
