package rotation

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// MaxKeys is how many keys one run takes.
const MaxKeys = 1000

// A Request says what to rotate, or to retire, and how.
type Request struct {
	Keys []trust.KeyID
	// Soak is how long old and new are both accepted.
	Soak time.Duration
	// Proof is the lowest level of proof that the run goes on with.
	Proof Level
	// Canary is how many places go first, and Wave how many at a time after
	// them; 0 is all the rest.
	Canary, Wave int
	// Retention is how long the old halves are kept.
	Retention time.Duration
	// Share lets a key whose private half lies only on hosts be replaced by one
	// that the keyring makes and holds.
	Share bool
	// Compromised: the old key may be in wrong hands.
	Compromised bool
}

func (q Request) check() error {
	switch {
	case len(q.Keys) == 0:
		return trust.Errorf(trust.Invalid, "no key is named").WithField("keys")
	case len(q.Keys) > MaxKeys:
		return trust.Errorf(trust.Exhausted, "%d keys are more than the %d that one run takes", len(q.Keys), MaxKeys).WithField("keys")
	case q.Canary < 0 || q.Wave < 0:
		return trust.Errorf(trust.Invalid, "canary and wave are not negative").WithField("canary")
	case q.Proof.rank() < 0:
		return trust.Errorf(trust.Invalid, "proof level %q is not known", q.Proof).WithField("proof")
	}
	return checkSoak(q.Soak)
}

func checkSoak(d time.Duration) error {
	if d < 0 || d > 366*24*time.Hour {
		return trust.Errorf(trust.Invalid, "soak %s is not between 0 and a year", d).WithField("soak")
	}
	return nil
}

// A Candidate is a key that can be rotated, and what to make in its place, or what its
// owner made, which then has an id.
type Candidate struct {
	Key      inventory.Key
	Spec     keyring.Spec
	Supplied inventory.Key
}

// pair is what a plan says of a candidate whose successor is next.
func (c Candidate) pair(tx *store.Tx, next trust.PublicKey) Pair {
	return Pair{
		Old: c.Key.ID, OldKey: c.Key.Public,
		New: inventory.KeyIDOf(tx.Tenant(), inventory.UserKey, next), NewKey: next, Supplied: c.Supplied.ID != "",
	}
}

// Candidates returns the keys of a request, once each, if all of them can be
// rotated. Errors: Invalid; NotFound; Conflict, naming the key and why.
func Candidates(tx *store.Tx, q Request) ([]Candidate, error) {
	if err := q.check(); err != nil {
		return nil, err
	}
	var candidates []Candidate
	var refused refusals
	for _, id := range unique(q.Keys) {
		c, err := candidate(tx, id, q.Share)
		if refused.add(id, err); trust.KindOf(err) == trust.Internal && err != nil {
			return nil, err
		}
		candidates = append(candidates, c)
	}
	for _, c := range candidates {
		if slices.Contains(q.Keys, c.Supplied.ID) {
			refused.add(c.Key.ID, trust.Errorf(trust.Conflict, "key %s is to take the place of key %s, and is itself to be rotated: one run would let it in and withdraw it", c.Supplied.ID, c.Key.ID).
				WithHint("keyturn rotate %s, and %s when that has ended", c.Key.ID, c.Supplied.ID))
		}
	}
	return candidates, refused.err()
}

func candidate(tx *store.Tx, id trust.KeyID, share bool) (Candidate, error) {
	k, err := activeUserKey(tx, id)
	if err != nil {
		return Candidate{}, err
	}
	identities, err := identitiesOf(tx, id)
	if err != nil {
		return Candidate{}, err
	}
	if ownersToMake(k, identities) {
		supplied, err := inventory.SuppliedFor(tx, id)
		if err != nil {
			return Candidate{}, err
		}
		if supplied.ID != "" {
			return Candidate{Key: k, Supplied: supplied}, refuseSupplied(tx, id, supplied)
		}
	}
	spec, err := successorOf(k)
	if err != nil {
		return Candidate{}, err
	}
	return Candidate{Key: k, Spec: spec}, custodyAllows(k, identities, share)
}

// A KeysError says which keys of a request are at fault. It is the cause of the
// error about the first of them.
type KeysError struct {
	Why map[trust.KeyID]string

	first *trust.Error
}

func (e *KeysError) Error() string { return e.first.Message }

// refusals gathers why keys of one request are refused.
type refusals struct{ found *KeysError }

func (r *refusals) add(id trust.KeyID, err error) {
	var e *trust.Error
	if !errors.As(err, &e) {
		return
	}
	if r.found == nil {
		r.found = &KeysError{Why: map[trust.KeyID]string{}, first: e}
	}
	r.found.Why[id] = e.Message
}

func (r *refusals) err() error {
	if r.found == nil {
		return nil
	}
	e := *r.found.first
	if n := len(r.found.Why); n > 1 {
		e.Message = fmt.Sprintf("%s (and %d more keys)", e.Message, n-1)
	}
	e.Field, e.Err = "keys", r.found
	return &e
}

func activeUserKey(tx *store.Tx, id trust.KeyID) (inventory.Key, error) {
	k, err := inventory.KeyByID(tx, id)
	switch {
	case err != nil:
		return inventory.Key{}, err
	case k.Kind != inventory.UserKey:
		return inventory.Key{}, trust.Errorf(trust.Conflict, "key %s is a %s key, and only user keys can be rotated", id, k.Kind)
	case k.State != inventory.Active:
		return inventory.Key{}, trust.Errorf(trust.Conflict, "key %s is %s, not active", id, k.State).WithHint("keyturn key show %s", id)
	}
	return k, nil
}

// successorOf returns what to make in the place of a key: the same type and
// size, unless that no longer holds.
func successorOf(k inventory.Key) (keyring.Spec, error) {
	switch t := k.Public.Type(); {
	case t == ssh.KeyAlgoED25519:
		return keyring.Spec{Type: "ed25519"}, nil
	case t == ssh.KeyAlgoECDSA256:
		return keyring.Spec{Type: "ecdsa-p256"}, nil
	case t == ssh.KeyAlgoECDSA384:
		return keyring.Spec{Type: "ecdsa-p384"}, nil
	case t == ssh.KeyAlgoECDSA521:
		return keyring.Spec{Type: "ecdsa-p521"}, nil
	case t == ssh.KeyAlgoRSA:
		bits := k.Public.Bits()
		return keyring.Spec{Type: "rsa", Bits: min(max((bits+7)/8*8, 3072), 8192)}, nil
	case t == "ssh-dss": // keyring signs with none, so that nothing could be proven
		return keyring.Spec{}, trust.Errorf(trust.Conflict, "key %s is a DSA key, which Keyturn neither holds nor proves: its owner has to make another, of another type", k.ID).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	case strings.HasPrefix(t, "sk-"):
		return keyring.Spec{}, trust.Errorf(trust.Conflict, "key %s is of type %s: only its owner's security key can make another", k.ID, t).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	default:
		return keyring.Spec{}, trust.Errorf(trust.Conflict, "key %s is of type %s, for which no successor can be made here", k.ID, t).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	}
}

// custodyAllows refuses a key whose holders a new key could not be brought to.
func custodyAllows(k inventory.Key, identities []inventory.IdentityPlace, share bool) error {
	for _, p := range identities {
		if p.Encrypted {
			return trust.Errorf(trust.Conflict, "key %s lies in %s of %s on %s with a passphrase: only its owner can make another", k.ID, p.Path, p.User, p.HostName).
				WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
		}
	}
	switch {
	case k.Custody == inventory.Held:
		return nil
	case !k.RevealedAt.IsZero():
		return trust.Errorf(trust.Conflict, "key %s is external: its private half was given to somebody on %s, and only its owner can make another", k.ID, k.RevealedAt.Format(time.DateOnly)).
			WithHint("%s; keyturn retire %s", supplyHint(k.ID), k.ID)
	case len(identities) == 0:
		return trust.Errorf(trust.Conflict, "key %s is external: nobody said where its private half lies, so a new one could be brought to nobody", k.ID).
			WithHint("%s; keyturn key import FILE lets Keyturn hold the key; keyturn retire %s takes it away from every host", supplyHint(k.ID), k.ID)
	case !share:
		return trust.Errorf(trust.Conflict, "the private half of key %s lies only on hosts (identity files: %d, the first on %s), and Keyturn does not hold it", k.ID, len(identities), identities[0].HostName).
			WithHint("add --share: Keyturn makes the new key, holds it, and installs it there")
	}
	return nil
}

// PlanRotation plans the run that puts news in the place of the keys of a
// request, in the same order as Candidates gives them. All hosts concerned must
// be enforced.
func PlanRotation(tx *store.Tx, q Request, news []trust.PublicKey) (job.Plan, error) {
	candidates, err := Candidates(tx, q)
	if err != nil {
		return job.Plan{}, err
	}
	if len(news) != len(candidates) {
		return job.Plan{}, fmt.Errorf("rotation: %d new keys for %d old ones", len(news), len(candidates))
	}
	args := argsOf(q)
	for i, c := range candidates {
		if c.Supplied.ID != "" && c.Supplied.Public != news[i] {
			return job.Plan{}, trust.Errorf(trust.Conflict, "another key was supplied in the place of key %s meanwhile", c.Key.ID).WithHint("keyturn key show %s, then rotate again", c.Key.ID)
		}
		args.Pairs = append(args.Pairs, c.pair(tx, news[i]))
	}
	return planFor(tx, RotateProcedure, q, args, true)
}

// PlanPreview plans the run that shows what PlanRotation's would change.
func PlanPreview(tx *store.Tx, q Request) (job.Plan, error) {
	candidates, err := Candidates(tx, q)
	if err != nil {
		return job.Plan{}, err
	}
	args := argsOf(q)
	for _, c := range candidates {
		pair := Pair{Old: c.Key.ID, OldKey: c.Key.Public}
		if c.Supplied.ID != "" {
			pair = c.pair(tx, c.Supplied.Public)
		}
		args.Pairs = append(args.Pairs, pair)
	}
	plan, err := planFor(tx, PreviewProcedure, q, args, false)
	plan.Exclusive = nil
	return plan, err
}

// PlanRetirement plans the run that withdraws keys without a successor: keys in use,
// and keys out of use that are accepted somewhere all the same.
func PlanRetirement(tx *store.Tx, q Request) (job.Plan, error) {
	if err := q.check(); err != nil {
		return job.Plan{}, err
	}
	args := argsOf(q)
	var refused refusals
	for _, id := range unique(q.Keys) {
		k, err := retirable(tx, id)
		if refused.add(id, err); trust.KindOf(err) == trust.Internal && err != nil {
			return job.Plan{}, err
		}
		args.Pairs = append(args.Pairs, Pair{Old: k.ID, OldKey: k.Public, Out: k.State != inventory.Active})
	}
	if err := refused.err(); err != nil {
		return job.Plan{}, err
	}
	plan, err := planFor(tx, RetireProcedure, q, args, true)
	if err != nil {
		return job.Plan{}, err
	}
	return plan, refuseLast(tx, plan.Targets[Authorized], args.Pairs)
}

// refuseLast refuses to retire every credential that opens a host: its lines could
// not be taken out, and nothing could be done there afterwards. The targets are in the
// order of their hosts.
func refuseLast(tx *store.Tx, targets []job.Target, pairs []Pair) error {
	stays := func(c inventory.Credential) bool {
		return !slices.ContainsFunc(pairs, func(p Pair) bool { return p.Old == c.Key })
	}
	for some := range slices.Chunk(targets, atOnce) {
		var hosts []trust.HostID
		for _, t := range some {
			hosts = append(hosts, t.Host)
		}
		hosts = slices.Compact(hosts)
		credentials, err := inventory.CredentialsOf(tx, hosts)
		if err != nil {
			return err
		}
		for _, id := range hosts {
			if len(credentials[id]) == 0 || slices.ContainsFunc(credentials[id], stays) {
				continue
			}
			h, err := inventory.HostBrief(tx, id)
			if err != nil {
				return err
			}
			return trust.Errorf(trust.Conflict, "nothing else opens host %q for Keyturn than what is to be retired", h.Name).
				WithHint("keyturn rotate puts another key in its place, or keyturn host credential add where an ssh-agent has it; keyturn host remove %s, if nothing is to be done there any more", h.Name)
		}
	}
	return nil
}

// retirable returns a user key that is in use, or is accepted somewhere although it was
// rotated or retired.
func retirable(tx *store.Tx, id trust.KeyID) (inventory.Key, error) {
	k, err := inventory.KeyByID(tx, id)
	if err != nil || k.Kind != inventory.UserKey || k.State != inventory.Rotated && k.State != inventory.Retired {
		return activeUserKey(tx, id)
	}
	accepted, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: id}, nil, 1)
	if err != nil || len(accepted) > 0 {
		return k, err
	}
	return activeUserKey(tx, id)
}

func argsOf(q Request) Args {
	return Args{Soak: q.Soak, Proof: q.Proof, Compromised: q.Compromised, Retention: q.Retention}
}

// planFor finds the places of the pairs and makes a plan of them. changes says
// that the run is going to change hosts.
func planFor(tx *store.Tx, procedure string, q Request, args Args, changes bool) (job.Plan, error) {
	var places []spec
	for i, p := range args.Pairs {
		of, err := placesOf(tx, i, p.Old)
		if err != nil {
			return job.Plan{}, err
		}
		if procedure == RetireProcedure {
			of = slices.DeleteFunc(of, func(s spec) bool { return s.Half == identityHalf })
		} else if !p.Supplied {
			if err := refuseLinks(tx, p.Old); err != nil {
				return job.Plan{}, err
			}
		}
		if len(of) == 0 && procedure == RetireProcedure {
			return job.Plan{}, trust.Errorf(trust.Conflict, "no account is known that accepts key %s", p.Old).
				WithHint("keyturn scan --wait, then try again; keyturn key delete %s, if nobody needs it", p.Old)
		}
		if len(of) == 0 {
			return job.Plan{}, trust.Errorf(trust.Conflict, "no place is known where key %s lies", p.Old).
				WithHint("keyturn scan --wait, then try again")
		}
		if !slices.ContainsFunc(of, func(s spec) bool { return s.Half == authorizedHalf }) {
			return job.Plan{}, trust.Errorf(trust.Conflict, "no account is known that accepts key %s: who has it would be left with a new one that opens nothing", p.Old).
				WithHint("add the hosts that accept it (keyturn host add), keyturn scan --wait, then try again")
		}
		places = append(places, of...)
	}
	if err := refusePlaces(tx, places, args.Pairs, changes); err != nil {
		return job.Plan{}, err
	}
	return planOf(procedure, q.Canary, q.Wave, args, places)
}

// planOf makes the plan. Places are in the order of their hosts' ids, those of an
// account beside each other.
func planOf(procedure string, canary, wave int, args Args, places []spec) (job.Plan, error) {
	slices.SortStableFunc(places, func(a, b spec) int {
		return cmp.Or(cmp.Compare(a.Host, b.Host), cmp.Compare(a.User, b.User), cmp.Compare(a.Path, b.Path), cmp.Compare(a.Pair, b.Pair))
	})
	text, err := json.Marshal(args)
	if err != nil {
		return job.Plan{}, err
	}
	lists, err := targets(procedure, places)
	if err != nil {
		return job.Plan{}, err
	}
	plan := job.Plan{Procedure: procedure, Subject: "key:" + string(args.Pairs[0].Old), Args: text, Targets: lists, Canary: canary, Wave: wave}
	for _, p := range args.Pairs {
		for _, key := range []trust.KeyID{p.Old, p.New} {
			if key != "" {
				plan.Exclusive = append(plan.Exclusive, "key:"+string(key))
			}
		}
	}
	return plan, nil
}

// placesOf returns every place where, as far as is known, a key lies: one for
// each file, however many lines of it hold the key, and however many links lead to it.
func placesOf(tx *store.Tx, pair int, key trust.KeyID) ([]spec, error) {
	var places []spec
	var after *inventory.AuthorizedPlace
	for {
		page, err := inventory.Authorized(tx, inventory.PlaceFilter{Key: key}, after, inventory.MaxPage)
		if err != nil {
			return nil, err
		}
		for _, p := range page {
			if p.Authority {
				return nil, trust.Errorf(trust.Conflict, "key %s is a certificate authority in %s of %s on %s, and not only a key that logs in", key, p.Path, p.User, p.HostName)
			}
			s := spec{Pair: pair, Half: authorizedHalf, Host: p.Host, Name: p.HostName, User: p.User, Path: p.Path}
			if n := len(places); n == 0 || places[n-1].place() != s.place() { // lines of a file come one after the other
				places = append(places, s)
			}
		}
		if len(page) < inventory.MaxPage {
			break
		}
		after = &page[len(page)-1]
	}
	identities, err := identitiesOf(tx, key)
	if err != nil {
		return nil, err
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
		places = append(places, spec{
			Pair: pair, Half: identityHalf, Host: p.Host, Name: p.HostName, User: p.User, Path: p.Path, Links: links[p.Place],
		})
	}
	return places, nil
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
	unready, _, err := inventory.Hosts(tx, inventory.HostFilter{IDs: ids, States: []inventory.HostState{inventory.Enrolling, inventory.Refused}}, inventory.Page{Limit: 1})
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
	case o.UnreadWhy != "":
		return trust.Errorf(trust.Conflict, "%s could not be read at the last scan: %s", s.name(), o.UnreadWhy).WithHint("keyturn scan %s", s.Name)
	}
	return nil
}

// unique returns ids without repetition, in order.
func unique(ids []trust.KeyID) []trust.KeyID {
	var out []trust.KeyID
	for _, id := range ids {
		if !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}
