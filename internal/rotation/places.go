package rotation

import (
	"fmt"
	"iter"
	"maps"
	"slices"

	"keyturn/internal/inventory"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// This file holds where a key lies, as far as is known, and what speaks against changing
// it there.

// placesOf goes through every place where, as far as is known, a key lies: one for
// each file, however many lines of it hold the key, and however many links lead to it.
func placesOf(tx *store.Tx, pair int, key trust.KeyID) iter.Seq2[spec, error] {
	return func(yield func(spec, error) bool) {
		if authorizedPlaces(tx, pair, key, yield) {
			identityPlaces(tx, pair, key, yield)
		}
	}
}

// authorizedPlaces reports whether more is wanted.
func authorizedPlaces(tx *store.Tx, pair int, key trust.KeyID, yield func(spec, error) bool) bool {
	var last trust.Place
	var after *inventory.AuthorizedPlace
	for {
		page, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: key}, after, inventory.MaxPage)
		if err != nil {
			return yield(spec{}, err)
		}
		for _, p := range page {
			if p.Authority {
				return yield(spec{}, trust.Errorf(trust.Conflict, "key %s is a certificate authority in %s of %s on %s, and not only a key that logs in", key, p.Path, p.User, p.HostName))
			}
			s := spec{Pair: pair, Half: authorizedHalf, Host: p.Host, Name: p.HostName, User: p.User, Path: p.Path}
			if s.place() == last {
				continue // lines of a file come one after the other
			}
			if last = s.place(); !yield(s, nil) {
				return false
			}
		}
		if len(page) < inventory.MaxPage {
			return true
		}
		after = &page[len(page)-1]
	}
}

func identityPlaces(tx *store.Tx, pair int, key trust.KeyID, yield func(spec, error) bool) {
	identities, err := identitiesOf(tx, key)
	if err != nil {
		yield(spec{}, err)
		return
	}
	known := placesAmong(identities)
	links := map[trust.Place][]string{}
	for _, p := range identities {
		if target := linkTarget(p); known[target] {
			links[target] = append(links[target], p.Path)
		}
	}
	for _, p := range identities {
		if known[linkTarget(p)] {
			continue
		}
		s := spec{Pair: pair, Half: identityHalf, Host: p.Host, Name: p.HostName, User: p.User, Path: p.Path, Links: links[p.Place]}
		if !yield(s, nil) {
			return
		}
	}
}

// placesAmong returns where identities lie.
func placesAmong(identities []inventory.IdentityPlace) map[trust.Place]bool {
	known := make(map[trust.Place]bool, len(identities))
	for _, p := range identities {
		known[p.Place] = true
	}
	return known
}

// linkTarget returns where the file lies that p is a symbolic link to; where it is
// none, that is no place.
func linkTarget(p inventory.IdentityPlace) trust.Place {
	return trust.Place{Host: p.Host, User: p.User, Path: p.Link}
}

// refuseLinks refuses to replace a key that is used by a link which would not follow:
// the file that it leads to is not replaced, or ssh(1) would go on offering the old
// key by what lies beside the link.
func refuseLinks(tx *store.Tx, key trust.KeyID) error {
	identities, err := identitiesOf(tx, key)
	if err != nil {
		return err
	}
	known := placesAmong(identities)
	for _, p := range identities {
		name := fmt.Sprintf("%s:%s:%s", p.HostName, p.User, p.Path)
		switch {
		case p.Link == "":
		case !known[linkTarget(p)]:
			return trust.Errorf(trust.Conflict, "%s is a symbolic link to %s, where no identity of %s is known that could be replaced", name, p.Link, p.User).
				WithHint("put a copy of the key in the place of the link, then keyturn scan %s", p.HostName)
		case p.Apart:
			return trust.Errorf(trust.Conflict, "%s is a symbolic link to %s, but the .pub or -cert.pub beside it is a file of its own, by which ssh would go on offering the old key", name, p.Link).
				WithHint("remove it or make it a link as well, then keyturn scan %s", p.HostName)
		}
	}
	return nil
}

func identitiesOf(tx *store.Tx, key trust.KeyID) ([]inventory.IdentityPlace, error) {
	var places []inventory.IdentityPlace
	var after *inventory.IdentityPlace
	for {
		page, err := inventory.Identities(tx, inventory.PlaceFilter{Key: key}, after, inventory.MaxPage)
		if err != nil {
			return nil, err
		}
		places = append(places, page...)
		if len(page) < inventory.MaxPage {
			return places, nil
		}
		after = &page[len(page)-1]
	}
}

// refusePlaces refuses a plan with a place that must not, or cannot, be changed
// in the way that this package changes them. Identity files of a pair whose new key was
// supplied are their owner's to write.
func refusePlaces(tx *store.Tx, places []spec, pairs []Pair, changes bool) error {
	for some := range slices.Chunk(places, atOnce) {
		some = slices.DeleteFunc(slices.Clone(some), func(s spec) bool { return s.Half == identityHalf && pairs[s.Pair].Supplied })
		if err := refuseHosts(tx, some, changes); err != nil {
			return err
		}
		files := make([]trust.Place, len(some))
		for i, s := range some {
			files[i] = s.place()
		}
		obstacles, err := inventory.Obstacles(tx, files)
		if err != nil {
			return err
		}
		for _, s := range some {
			for _, o := range obstacles[s.place()] {
				if err := refuseFile(s, o, changes); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// atOnce is for how many places one query asks.
const atOnce = 100

// refuseHosts refuses places on a host that is not to be changed.
func refuseHosts(tx *store.Tx, places []spec, changes bool) error {
	at := make(map[trust.HostID]spec, len(places))
	for _, s := range places {
		at[s.Host] = s
	}
	if len(at) == 0 {
		return nil
	}
	ids := slices.Collect(maps.Keys(at))
	fit := inventory.HostFilter{IDs: ids, States: []inventory.HostState{inventory.Ready}}
	if changes {
		fit.Modes = []inventory.Mode{inventory.Enforced}
	}
	if n, err := inventory.CountHosts(tx, fit); err != nil || n == len(ids) {
		return err
	}
	unready, _, err := inventory.Hosts(tx, inventory.HostFilter{IDs: ids, States: []inventory.HostState{inventory.Unenrolled, inventory.Enrolling, inventory.Refused}}, inventory.Page{Limit: 1})
	if err != nil {
		return err
	}
	for _, h := range unready {
		return trust.Errorf(trust.Conflict, "host %q is %s: %s", h.Name, h.State, h.Reason).WithHint("keyturn host show %s", h.Name)
	}
	watched, _, err := inventory.Hosts(tx, inventory.HostFilter{IDs: ids, Modes: []inventory.Mode{inventory.Inventory}}, inventory.Page{Limit: 1})
	if err != nil {
		return err
	}
	for _, h := range watched {
		return trust.Errorf(trust.Conflict, "host %q is only watched (mode inventory), and the key lies there in %s", h.Name, at[h.ID].Path).
			WithHint("keyturn host enforce %s", h.Name)
	}
	return nil
}

// refuseFile refuses a place with an obstacle.
func refuseFile(s spec, o inventory.Obstacle, changes bool) error {
	switch {
	case o.Place.User != s.User:
		return trust.Errorf(trust.Conflict, "%s is the same file as %s of %s: what one account is granted, the other is", s.name(), o.Place.Path, o.Place.User).
			WithHint("give each account a file of its own, then keyturn scan %s", s.Name)
	case changes && o.Fixed != "":
		return trust.Errorf(trust.Conflict, "%s cannot be changed, as the last scan found it: %s", s.name(), o.Fixed).
			WithHint("mend that, then keyturn scan %s", s.Name)
	case o.UnreadWhy == inventory.NoHome: // row Baseline looks again, and somebody may leave the place
	case o.UnreadWhy != "":
		return trust.Errorf(trust.Conflict, "%s could not be read at the last scan: %s", s.name(), o.UnreadWhy).WithHint("keyturn scan %s", s.Name)
	}
	return nil
}
