package rotation

import (
	"encoding/json"
	"strconv"

	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// PairsOf reads, out of the arguments of a run of one of this package's
// procedures, which keys it is about. Of other procedures there are none.
func PairsOf(procedure string, args json.RawMessage) ([]Pair, error) {
	switch procedure {
	case RotateProcedure, RetireProcedure, RestoreProcedure, PreviewProcedure:
	default:
		return nil, nil
	}
	var a Args
	err := json.Unmarshal(args, &a)
	return a.Pairs, err
}

// A PlaceReport is what a run found and did at one place.
type PlaceReport struct {
	Name string // "web1:alice:/home/alice/.ssh/authorized_keys"
	trust.Place
	HostName string
	Half     string // "authorized" or "identity"
	Key      trust.KeyID
	Left     bool
	// Untouched is why the run changes nothing here, or empty.
	Untouched string
	// Before is how well the old key was proven at the start, After the new
	// one, in the last proof that there was, and Gone says that the old key
	// was seen to be refused since.
	Before, After Level
	Gone          bool
	// Certificate is the file beside an identity that goes with the old key,
	// whose certificate it holds, or empty.
	Certificate string
	// Differs says what of the files beside an identity is not kept: an owner, a group.
	Differs []string
	// Preview is what a dry run found.
	Preview *Preview
}

// ReportPlaces reports on the places of a run of one of this package's
// procedures. after is where to go on: next of the page before.
func ReportPlaces(tx *store.Tx, r job.Run, after string, limit int) (reports []PlaceReport, next string, err error) {
	list := reported(r.Procedure)
	if list == "" {
		return nil, "", trust.Errorf(trust.Conflict, "run %s is no rotation, retirement or dry run", r.ID)
	}
	from := 0
	if after != "" {
		if from, err = strconv.Atoi(after); err != nil || from < 0 {
			return nil, "", trust.Errorf(trust.Invalid, "page begins at %q, which no page ended with", after).WithField("after")
		}
	}
	journal := r.In(tx)
	for t, err := range journal.Targets(list) {
		if err != nil {
			return nil, "", err
		}
		if t.N < from {
			continue
		}
		if len(reports) == limit {
			return reports, strconv.Itoa(t.N), nil
		}
		p, err := reportOn(journal, r, t)
		if err != nil {
			return nil, "", err
		}
		reports = append(reports, p)
	}
	return reports, "", nil
}

// reported returns the list of a procedure's targets that has all its places.
func reported(procedure string) job.List {
	switch procedure {
	case RotateProcedure, RetireProcedure, RestoreProcedure, PreviewProcedure:
		return Places
	}
	return ""
}

// reportOn puts together what the journal has of one place.
func reportOn(j job.Journal, r job.Run, t job.Target) (p PlaceReport, err error) {
	c, err := decode(r, t)
	if err != nil {
		return p, err
	}
	p = PlaceReport{Name: t.Name, Place: c.spec.place(), HostName: c.spec.Name, Half: string(c.spec.Half), Key: c.pair.Old, Left: t.Left}
	if p.Key == "" {
		p.Key = c.pair.New
	}
	if r.Procedure == PreviewProcedure {
		p.Preview = &Preview{}
		found, err := j.ResultOf("Preview", t, p.Preview)
		if !found {
			p.Preview = nil
		}
		return p, err
	}
	if r.Procedure != RestoreProcedure {
		var f found
		if _, err := j.ResultOf("Baseline", t, &f); err != nil {
			return p, err
		}
		p.Before, p.Untouched, p.Differs = f.Works, f.untouched(), f.Differs
		if f.Certified {
			p.Certificate = certificateOf(c.spec.Path)
		}
	}
	var proofs []string
	at := job.Target{List: Authorized, N: c.spec.Order, Name: t.Name}
	switch {
	case c.spec.Half == identityHalf:
		proofs, at.List = []string{"Confirm"}, Identities
	case r.Procedure == RotateProcedure:
		proofs = []string{"Prove", "Reprove"}
	case r.Procedure == RestoreProcedure:
		proofs = []string{"Prove"}
	}
	for _, step := range proofs {
		var x proven
		if ok, err := j.ResultOf(step, at, &x); err != nil {
			return p, err
		} else if ok && x.Level != "" { // what Reprove saved when it held the run is no proof
			p.After = x.Level
			if step == "Confirm" {
				p.Differs = x.Differs
			}
		}
	}
	if c.spec.Half == authorizedHalf && r.Procedure != RestoreProcedure {
		var x proven
		ok, err := j.ResultOf("Disprove", at, &x)
		if err != nil {
			return p, err
		}
		p.Gone = ok
	}
	return p, nil
}

// certificateOf returns where ssh looks for the certificate of an identity.
func certificateOf(identity string) string { return identity + "-cert.pub" }
