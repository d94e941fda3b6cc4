package discovery

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// staleAge is how old a key is before that is worth saying.
const staleAge = 2 * 366 * 24 * time.Hour

// Judge makes the findings of keys what their places say now. To add a finding,
// add its kind to inventory.FindingKinds and its rule to judgeKey.
func Judge(tx *store.Tx, ids []trust.KeyID) error {
	for some := range slices.Chunk(ids, 500) {
		var keys []inventory.Key
		for _, id := range some {
			k, err := inventory.KeyByID(tx, id)
			if trust.KindOf(err) == trust.NotFound {
				continue
			}
			if err != nil {
				return err
			}
			keys = append(keys, k)
		}
		related, err := inventory.Relate(tx, keys)
		if err != nil {
			return err
		}
		for _, r := range related {
			if _, err := inventory.SetKeyFindings(tx, r.Key.ID, judgeKey(r, tx.Now())); err != nil {
				return err
			}
		}
	}
	return nil
}

// judgeKey is pure: what is wrong with a key, by all that is known of it.
func judgeKey(r inventory.Relationship, now time.Time) []inventory.Finding {
	var found []inventory.Finding
	add := func(kind inventory.FindingKind, level inventory.Level, format string, args ...any) {
		found = append(found, inventory.Finding{Kind: kind, Level: level, Text: fmt.Sprintf(format, args...)})
	}
	k := r.Key
	if text := weakness(k.Public); text != "" {
		add(inventory.Weak, inventory.Warning, "%s", text)
	}
	if k.Kind != inventory.UserKey {
		return found
	}
	if len(r.Authorized) > 0 && len(r.Identities) == 0 && k.Custody != inventory.Held {
		if k.Owner == "" {
			add(inventory.Unknown, inventory.Warning, "opens %d accounts, and nobody answers for it", len(r.Authorized))
		}
		add(inventory.Orphaned, inventory.Notice, "opens %d accounts, and where its private half lies is not known", len(r.Authorized))
	}
	if n := len(r.Identities); n > 1 {
		add(inventory.Shared, inventory.Warning, "its private half lies in %d places: %s", n, identityNames(r.Identities))
	}
	switch {
	case k.State != inventory.Active && len(r.Authorized) > 0:
		add(inventory.Stale, inventory.Warning, "is %s, and still opens %d accounts", k.State, len(r.Authorized))
	case len(r.Authorized) > 0 && now.Sub(k.CreatedAt) > staleAge:
		add(inventory.Stale, inventory.Notice, "has been known since %s and was never rotated", k.CreatedAt.Format(time.DateOnly))
	}
	root := 0
	for _, p := range r.Authorized {
		if p.User == "root" && !restricted(p.Options) {
			root++
		}
	}
	if root > 0 {
		add(inventory.Unrestricted, inventory.Warning, "opens root on %d hosts from anywhere, to do anything", root)
	}
	return found
}

// restricted reports whether options limit where from, or what for.
func restricted(options string) bool {
	line := trust.ParseAuthorizedKeys([]byte(options + " ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	if line.Len() != 1 {
		return false
	}
	l := line.Line(0)
	g, err := l.Grant()
	return err == nil && (g.HasSource || g.HasForcedCommand)
}

// weakness says what is wrong with the type or size of a key, or nothing.
func weakness(key trust.PublicKey) string {
	bits := key.Bits()
	switch t := key.Type(); {
	case strings.HasPrefix(t, "ssh-dss"):
		return "is a DSA key, which no current server takes"
	case t == "ssh-rsa" && bits > 0 && bits < 2048:
		return fmt.Sprintf("is an RSA key of %d bits, which is too short to hold", bits)
	}
	return ""
}

func identityNames(places []inventory.IdentityPlace) string {
	const most = 5
	var names []string
	for i, p := range places {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(places)-most))
			break
		}
		names = append(names, p.HostName+":"+p.Path)
	}
	return strings.Join(names, ", ")
}

// JudgeHost makes the findings of a host, and of the lines on it, what they are
// now.
func JudgeHost(tx *store.Tx, id trust.HostID) error {
	h, err := inventory.HostByID(tx, id)
	if err != nil {
		return err
	}
	var found []inventory.Finding
	for _, p := range h.Pins {
		if p.Origin == inventory.FirstUse {
			found = append(found, inventory.Finding{
				Kind: inventory.Unconfirmed, Level: inventory.Warning, HostName: h.Name,
				Text: fmt.Sprintf("is known by the host key %s, which was accepted on first use", p.Key.Fingerprint()),
			})
		}
	}
	_, err = inventory.SetHostFindings(tx, id, found)
	return err
}
