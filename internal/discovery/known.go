package discovery

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"keyturn/internal/inventory"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file reads known_hosts files: by which key each account of a host knows
// which other hosts, and whether that is the key which the inventory pins.

// Bounds of what one scan reads of them.
const (
	// maxKnown is how many lines of one host are kept.
	maxKnown = 5000
	// maxHashes is how many hashes are made to find out which hosts of the
	// inventory the hashed lines name: each line says it only to those who try.
	maxHashes = 200_000
)

// files reads the authorized_keys files of user, and the known_hosts files and the
// identities with them, because a command costs more than a file does.
func (s *scanner) files(ctx context.Context, user string, authorized []string) (files, known []remote.File, identities remote.Identities, err error) {
	paths, err := s.hands.KnownHosts(ctx, user)
	if err != nil {
		return nil, nil, identities, err
	}
	n := len(authorized)
	files, identities, err = s.hands.FilesAndIdentities(ctx, user, slices.Concat(authorized, paths))
	if trust.KindOf(err) == trust.Exhausted {
		// A known_hosts file that is too long must not hide who is let in.
		s.note(inventory.NoteLimit, user, "", "%s", sentence(err))
		files, identities, err = s.hands.FilesAndIdentities(ctx, user, authorized)
	}
	if err != nil {
		return nil, nil, identities, err
	}
	return files[:n], files[n:], identities, nil
}

// systemKnownHosts reads the known_hosts files of the whole host.
func (s *scanner) systemKnownHosts(ctx context.Context) error {
	files, err := s.hands.Files(ctx, s.hands.Login(), remote.SystemKnownHosts)
	if err != nil {
		s.note(inventory.NoteUnread, "", "", "%s", sentence(err))
		return s.skip(err)
	}
	s.knownHosts("root", files)
	return nil
}

// knownHosts takes the lines of known_hosts files into the scan.
func (s *scanner) knownHosts(user string, files []remote.File) {
	for _, f := range files {
		switch {
		case f.Absent, inventory.CheckPlace(trust.Place{Host: s.scan.Host, User: user, Path: f.Path}) != nil:
		case f.Unreadable:
			s.leave(user, f.Path, "permission denied")
		default:
			s.addKnown(user, f)
		}
	}
}

func (s *scanner) addKnown(user string, f remote.File) {
	for i, l := range trust.ParseKnownHosts(f.Content).Lines() {
		if l.Kind() != trust.KeyLine || len(l.Key().Blob()) > inventory.MaxKeyBlob {
			continue
		}
		if len(s.scan.Known) >= maxKnown {
			s.note(inventory.NoteLimit, "", "", "the known_hosts files of all accounts have more than %d lines", maxKnown)
			return
		}
		s.known = append(s.known, l)
		s.scan.Known = append(s.scan.Known, inventory.KnownHost{
			Place: trust.Place{Host: s.scan.Host, User: user, Path: f.Path}, Line: i + 1,
			Marker: l.Marker(), Names: l.Hosts(), Key: l.Key(),
		})
	}
}

// nameKnown finds out which hosts of the inventory the lines of s name.
func (d *Discoverer) nameKnown(ctx context.Context, tenant trust.TenantID, s *scanner) error {
	if len(s.known) == 0 {
		return nil
	}
	var names, addresses []string
	hashed := 0
	for _, l := range s.known {
		if l.Hashed() {
			hashed++
			continue
		}
		for name := range strings.SplitSeq(l.Hosts(), ",") {
			address, err := inventory.ParseAddress(name)
			if err != nil {
				continue // a pattern
			}
			addresses = append(addresses, address)
			if host, port, _ := net.SplitHostPort(address); port == "22" {
				names = append(names, host)
			}
		}
	}
	var plain, every []inventory.HostAddress
	err := d.store.View(ctx, tenant, func(tx *store.Tx) (err error) {
		if plain, err = inventory.Named(tx, names, addresses); err != nil || hashed == 0 {
			return err
		}
		every, err = inventory.HostAddresses(tx, maxHashes/hashed/2)
		return err
	})
	if err != nil {
		return err
	}
	if hashed > 0 && len(every) == maxHashes/hashed/2 {
		s.note(inventory.NoteLimit, "", "", "of the hashed names in known_hosts files only those of %d hosts were tried", len(every))
	}
	var all []inventory.KnownHost
	for i, l := range s.known {
		candidates := plain
		if l.Hashed() {
			candidates = every
		}
		about := namedBy(l, candidates)
		if len(about) == 0 {
			about = []trust.HostID{""}
		}
		for _, id := range about {
			k := s.scan.Known[i]
			k.About = id
			all = append(all, k)
		}
	}
	s.scan.Known = all
	return nil
}

// namedBy returns which of the hosts a line names.
func namedBy(l trust.KnownHostLine, hosts []inventory.HostAddress) (about []trust.HostID) {
	for _, h := range hosts {
		host, port, err := net.SplitHostPort(h.Address)
		if err != nil {
			continue
		}
		number, _ := strconv.Atoi(port)
		if (l.Matches(trust.HostName(host, number)) || l.Matches(trust.HostName(h.Name, number))) && !slices.Contains(about, h.ID) {
			about = append(about, h.ID)
		}
	}
	return about
}

// maxMistrusted is how many findings of one host are about its known_hosts files.
const maxMistrusted = 100

// judgeKnown returns what is wrong with the known_hosts files on a host.
func judgeKnown(tx *store.Tx, host trust.HostID) (found []inventory.Finding, err error) {
	pins := map[trust.HostID]inventory.Host{}
	for page := (inventory.Page{Limit: inventory.MaxPage}); ; {
		lines, next, err := inventory.KnownHosts(tx, host, page)
		if err != nil {
			return nil, err
		}
		for _, k := range lines {
			if k.About == "" {
				continue
			}
			about, ok := pins[k.About]
			if !ok {
				about, err = inventory.HostByID(tx, k.About)
				if err != nil && trust.KindOf(err) != trust.NotFound { // removed since the scan
					return nil, err
				}
				pins[k.About] = about
			}
			if why := mistrust(k, about); why != "" && len(found) < maxMistrusted {
				found = append(found, inventory.Finding{
					Kind: inventory.Mistrusted, Level: inventory.Warning, Place: k.Place, Line: k.Line,
					Text: fmt.Sprintf("line %d %s", k.Line, why),
				})
			}
		}
		if page.After = next; next == "" {
			return found, nil
		}
	}
}

// mistrust says what is wrong with a line about a host. A key of a type that is
// not pinned may be another of that host's, of which the inventory knows nothing.
func mistrust(k inventory.KnownHost, about inventory.Host) string {
	keys := about.PinnedKeys()
	switch k.Marker {
	case trust.RevokedMarker:
		if slices.Contains(keys, k.Key) {
			return fmt.Sprintf("revokes the host key %s by which host %q is pinned", k.Key.Fingerprint(), about.Name)
		}
	case trust.NoMarker:
		i := slices.IndexFunc(keys, func(p trust.PublicKey) bool { return p.Type() == k.Key.Type() })
		if i >= 0 && !slices.Contains(keys, k.Key) {
			return fmt.Sprintf("knows host %q by the key %s, and it is pinned by %s: logins from here fail, or reach another machine", about.Name, k.Key.Fingerprint(), keys[i].Fingerprint())
		}
	}
	return ""
}
