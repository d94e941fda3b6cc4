package discovery

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file says what is wrong with a key or a host, by what is recorded of
// it: pure functions, and the two that fetch what these need. NIST IR 7966
// names the risks.

// What is demanded of keys.
const (
	// leastRSA is the size below which an RSA key does not hold. One below
	// goodRSA, which is NIST SP 800-57's 128 bits of strength, is worth a note.
	leastRSA, goodRSA = 2048, 3072
	// staleAge is for how long a key may be in use without a rotation.
	staleAge = 2 * 366 * 24 * time.Hour
)

const (
	// someIdentities is how many places of a shared key its finding names.
	someIdentities = 5
	// maxStale is how many keys one scan finds to have grown stale.
	maxStale = 500
)

// Judge makes the findings of keys what follows from what is recorded of them
// now; keys that there are none of are passed over. To add a finding, add its
// kind to inventory.FindingKinds and its rule to judgeKey.
//
// It reads a bounded number of places of each key: a key can be on every host
// of a fleet, and is judged when any of them is scanned.
func Judge(tx *store.Tx, ids []trust.KeyID) error {
	for _, id := range ids {
		c, err := caseOf(tx, id)
		if trust.KindOf(err) == trust.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := inventory.SetKeyFindings(tx, id, judgeKey(c, tx.Now())); err != nil {
			return err
		}
	}
	return nil
}

// caseOf fetches what a key is judged by.
func caseOf(tx *store.Tx, id trust.KeyID) (c keyCase, err error) {
	if c.key, err = inventory.KeyByID(tx, id); err != nil {
		return keyCase{}, err
	}
	where := inventory.PlaceFilter{Key: id}
	if c.authorized, err = inventory.Authorized(tx, where, nil, 1); err != nil {
		return keyCase{}, err
	}
	if c.identities, err = inventory.Identities(tx, where, nil, someIdentities+1); err != nil {
		return keyCase{}, err
	}
	if c.key.State == inventory.Rotated || c.key.State == inventory.Retired {
		c.out, _, err = inventory.Rotations(tx, inventory.RotationFilter{Key: id, Standing: true}, inventory.Page{Limit: 1, Desc: true})
	}
	if err == nil && len(c.authorized) > 0 && len(c.out) > 0 && c.out[0].ArchivedAt.IsZero() {
		c.kept, err = job.Ended(tx, c.out[0].Run)
	}
	return c, err
}

// stale returns the keys that have grown stale by now and are not known as it.
func (d *Discoverer) stale(ctx context.Context, tenant trust.TenantID, now time.Time) ([]trust.KeyID, error) {
	var grown []trust.KeyID
	f := inventory.KeyFilter{States: []inventory.KeyState{inventory.Active}, Overdue: now.Add(-staleAge), Without: inventory.Stale}
	for p := (inventory.Page{Limit: 100}); len(grown) < maxStale; {
		var some []trust.KeyID
		err := d.store.View(ctx, tenant, func(tx *store.Tx) error {
			keys, next, err := inventory.Keys(tx, f, p)
			if err != nil {
				return err
			}
			for _, k := range keys {
				c, err := caseOf(tx, k.ID)
				if err != nil {
					return err
				}
				if slices.ContainsFunc(judgeKey(c, now), func(f inventory.Finding) bool { return f.Kind == inventory.Stale }) {
					some = append(some, k.ID)
				}
			}
			p.After = next
			return nil
		})
		grown = append(grown, some...)
		if err != nil || p.After == "" {
			return grown, err
		}
	}
	return grown, nil
}

// keyCase is what a key is judged by.
type keyCase struct {
	key        inventory.Key
	authorized []inventory.AuthorizedPlace // at most one
	identities []inventory.IdentityPlace   // at most someIdentities+1
	out        []inventory.Rotation        // what took it out of use, if anything
	// kept: the run that took it out of use has ended without withdrawing it.
	kept bool
}

// judgeKey returns what is wrong with a key. A finding names the first place
// where the key lies, and is about all of them.
func judgeKey(c keyCase, now time.Time) []inventory.Finding {
	var found []inventory.Finding
	add := func(kind inventory.FindingKind, level inventory.Level, format string, args ...any) {
		f := inventory.Finding{Kind: kind, Level: level, Text: fmt.Sprintf(format, args...)}
		switch {
		case len(c.authorized) > 0:
			f.Place, f.Line = c.authorized[0].Place, c.authorized[0].Line
		case len(c.identities) > 0:
			f.Place = c.identities[0].Place
		}
		found = append(found, f)
	}
	k := c.key
	accepted := len(c.authorized) > 0
	switch k.State {
	case inventory.Deleted:
		return nil
	case inventory.Rotated, inventory.Retired:
		// While its run is under way it is accepted by design.
		if accepted && len(c.out) > 0 && !c.out[0].ArchivedAt.IsZero() {
			add(inventory.Stale, inventory.Warning, "was %s on %s and lies in a file of accepted keys, still or again: keyturn retire %s takes it out", k.State, c.out[0].At.Format(time.DateOnly), k.ID)
		}
		if c.kept {
			add(inventory.Stale, inventory.Warning, "was %s on %s by run %s, which went on without a place that uses it, and is accepted still: keyturn run show %s", k.State, c.out[0].At.Format(time.DateOnly), c.out[0].Run, c.out[0].Run)
		}
		return found
	}
	if !accepted && len(c.identities) == 0 {
		return nil // nothing can be done with it, or to it
	}
	if level, why := weakness(k.Public); why != "" {
		add(inventory.Weak, level, "%s", why)
	}
	if k.Compromised && accepted {
		add(inventory.Stale, inventory.Warning, "is marked as compromised and still accepted")
	} else if last := lastChange(k); now.Sub(last) > staleAge {
		add(inventory.Stale, inventory.Warning, "has not been rotated since %s", last.Format(time.DateOnly))
	}
	if accepted && !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt) {
		add(inventory.Expired, inventory.Warning, "was to be used until %s UTC, and is accepted still", k.ExpiresAt.Format(time.DateTime))
	}
	files := distinctFiles(c.identities)
	if len(files) > 1 {
		add(inventory.Shared, inventory.Warning, "its private half lies in several places: %s", listed(files))
	}
	if k.Kind != inventory.UserKey {
		return found
	}
	switch {
	case accepted && len(c.identities) == 0 && k.Custody != inventory.Held && k.RevealedAt.IsZero():
		add(inventory.Orphaned, inventory.Warning, "is accepted, and its private half is in no place that a scan has seen")
		if k.Owner == "" {
			add(inventory.Unknown, inventory.Warning, "is accepted, and nobody is known to have it")
		}
	case !accepted && !c.identities[0].Encrypted:
		add(inventory.Orphaned, inventory.Notice, "lies ready for use without a passphrase, and no host that a scan has seen accepts it")
	case !accepted:
		add(inventory.Orphaned, inventory.Notice, "is accepted by no host that a scan has seen")
	}
	return found
}

// lastChange is when a key last was new, as far as is known.
func lastChange(k inventory.Key) time.Time {
	if k.LastRotatedAt.After(k.CreatedAt) {
		return k.LastRotatedAt
	}
	return k.CreatedAt
}

// weakness says why a key does not hold, or may soon not.
func weakness(key trust.PublicKey) (inventory.Level, string) {
	switch bits := key.Bits(); key.Plain().Type() {
	case "ssh-dss":
		return inventory.Warning, "is a DSA key, which OpenSSH has given up: its owner has to make another, of another type"
	case "ssh-rsa":
		switch {
		case bits < leastRSA:
			return inventory.Warning, fmt.Sprintf("is an RSA key of %d bits; %d is the least that holds", bits, leastRSA)
		case bits < goodRSA:
			return inventory.Notice, fmt.Sprintf("is an RSA key of %d bits; new ones should have %d", bits, goodRSA)
		}
	}
	return "", ""
}

// distinctFiles returns the places without those that are one file under one
// path, read for several accounts.
func distinctFiles(places []inventory.IdentityPlace) []string {
	type file struct {
		host trust.HostID
		path string
	}
	seen := make(map[file]bool, len(places))
	var names []string
	for _, p := range places {
		f := file{p.Host, p.Path}
		if !seen[f] {
			seen[f] = true
			names = append(names, p.HostName+":"+p.Path)
		}
	}
	return names
}

func listed(names []string) string {
	if len(names) > someIdentities {
		return strings.Join(names[:someIdentities], ", ") + ", and more"
	}
	return strings.Join(names, ", ")
}

// JudgeHost makes the findings of a host, and of the lines on it, what follows
// from what is recorded of it now.
func JudgeHost(tx *store.Tx, id trust.HostID) error {
	h, err := inventory.HostByID(tx, id)
	if err != nil {
		return err
	}
	found := judgePins(h)
	if h.Facts.Machine != "" {
		twins, _, err := inventory.Hosts(tx, inventory.HostFilter{Machine: h.Facts.Machine}, inventory.Page{Limit: 2})
		if err != nil {
			return err
		}
		for _, twin := range twins {
			if twin.ID != h.ID {
				found = append(found, inventory.Finding{
					Kind: inventory.Doubled, Level: inventory.Notice,
					Text: fmt.Sprintf("has the machine id of host %q: one machine, or a copy of one", twin.Name),
				})
				break
			}
		}
	}
	mistrusted, err := judgeKnown(tx, id)
	if err != nil {
		return err
	}
	found = append(found, mistrusted...)
	var after *inventory.AuthorizedPlace
	for {
		lines, err := inventory.Authorized(tx, inventory.PlaceFilter{Host: id}, after, inventory.MaxPage)
		if err != nil {
			return err
		}
		for _, l := range lines {
			if f, ok := judgeLine(l); ok {
				found = append(found, f)
			}
		}
		if len(lines) < inventory.MaxPage {
			break
		}
		after = &lines[len(lines)-1]
	}
	_, err = inventory.SetHostFindings(tx, id, found)
	return err
}

func judgePins(h inventory.Host) []inventory.Finding {
	var found []inventory.Finding
	for _, pin := range h.Pins {
		if pin.Origin == inventory.FirstUse {
			found = append(found, inventory.Finding{
				Kind: inventory.Unconfirmed, Level: inventory.Warning,
				Text: fmt.Sprintf("its host key %s was accepted on first use; compare it with what the host itself shows", pin.Key.Fingerprint()),
			})
		}
	}
	return found
}

// judgeLine says whether a line lets in root from anywhere to anything.
func judgeLine(l inventory.AuthorizedPlace) (inventory.Finding, bool) {
	if l.User != "root" || l.Refused != "" {
		return inventory.Finding{}, false
	}
	lines := trust.ParseAuthorizedKeys(l.Raw).Lines()
	if len(lines) == 0 {
		return inventory.Finding{}, false
	}
	grant, err := lines[0].Grant()
	if err != nil || grant.HasSource || grant.HasForcedCommand {
		return inventory.Finding{}, false
	}
	what := cmp.Or(map[bool]string{true: "every certificate of this authority"}[l.Authority], "this key")
	return inventory.Finding{
		Kind: inventory.Unrestricted, Level: inventory.Warning, Key: l.KeyID, Place: l.Place, Line: l.Line,
		Text: fmt.Sprintf("line %d lets %s in as root, from anywhere and to any command: it has neither from= nor command=", l.Line, what),
	}, true
}
