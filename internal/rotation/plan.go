package rotation

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/job"
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
		before, opens := len(places), false
		for s, err := range placesOf(tx, i, p.Old) {
			if err != nil {
				return job.Plan{}, err
			}
			if s.Half == identityHalf && procedure == RetireProcedure {
				continue
			}
			opens = opens || s.Half == authorizedHalf
			places = append(places, s)
		}
		if procedure != RetireProcedure && !p.Supplied {
			if err := refuseLinks(tx, p.Old); err != nil {
				return job.Plan{}, err
			}
		}
		found := len(places) - before
		if found == 0 && procedure == RetireProcedure {
			return job.Plan{}, trust.Errorf(trust.Conflict, "no account is known that accepts key %s", p.Old).
				WithHint("keyturn scan --wait, then try again; keyturn key delete %s, if nobody needs it, which ends what was signed for it, too", p.Old)
		}
		if found == 0 {
			refused := trust.Errorf(trust.Conflict, "no place is known where key %s lies", p.Old)
			if q.Compromised {
				return job.Plan{}, refused.WithHint("keyturn key delete %s, which ends what was signed for it, and keyturn cert revoke --public-key FILE, so that it is never certified again; or keyturn scan --wait, then try again", p.Old)
			}
			return job.Plan{}, refused.WithHint("keyturn scan --wait, then try again")
		}
		if !opens {
			refused := trust.Errorf(trust.Conflict, "no account is known that accepts key %s: who has it would be left with a new one that opens nothing", p.Old)
			if q.Compromised {
				return job.Plan{}, refused.WithHint("keyturn cert revoke --public-key FILE ends what was signed for it, for ever; add the hosts that accept it (keyturn host add), keyturn scan --wait, then try again")
			}
			return job.Plan{}, refused.WithHint("add the hosts that accept it (keyturn host add), keyturn scan --wait, then try again")
		}
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
	// A canary is there to be changed first, and the rows that go through the places change
	// none: where they are about as many as go at a time, they go together.
	if all := lists[Places]; len(all) <= canary+wave {
		for i := range all {
			all[i].With = i > 0
		}
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
