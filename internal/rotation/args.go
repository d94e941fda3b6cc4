package rotation

import (
	"encoding/json"
	"fmt"
	"time"

	"keyturn/internal/job"
	"keyturn/internal/trust"
)

// The lists of targets of a plan. Places is Authorized and Identities
// together, in that order.
const (
	Authorized job.List = "authorized"
	Identities job.List = "identities"
	Places     job.List = "places"
)

// A Pair is a key that a run withdraws and the key that takes its place. New is
// zero in a run that retires.
type Pair struct {
	Old    trust.KeyID     `json:"old"`
	OldKey trust.PublicKey `json:"old_key"`
	New    trust.KeyID     `json:"new,omitempty"`
	NewKey trust.PublicKey `json:"new_key,omitzero"`
	// Out: a retirement found the key out of use already, and accepted somewhere all
	// the same. It, and its way back, move lines and leave the key's state as it is.
	Out bool `json:"out,omitempty"`
	// Supplied: the owner made the key that takes the other's place, or used it before.
	// Nobody here signs with either of them, and nobody here writes the files in which
	// their private halves lie.
	Supplied bool `json:"supplied,omitempty"`
}

// Args are what a run of this package is planned with. They do not change
// while it runs.
type Args struct {
	Pairs []Pair `json:"pairs"`
	// Soak is how long old and new are both accepted, in nanoseconds.
	Soak time.Duration `json:"soak"`
	// Proof is the lowest level of proof that the run goes on with.
	Proof Level `json:"proof"`
	// Compromised: the old key may be in wrong hands. The run does not soak,
	// and does not wait for uses of the old key to end.
	Compromised bool `json:"compromised,omitempty"`
	// Retention is how long the old halves are kept after the run.
	Retention time.Duration `json:"retention"`
	// Since is, on the way back, when the way there began: a supplied key that nobody
	// has been seen to use since then goes without further ado.
	Since time.Time `json:"since,omitzero"`
}

// A spec is one place of a plan.
type spec struct {
	Place int          `json:"place"` // index in the list Places
	Order int          `json:"order"` // index in Authorized or Identities
	Pair  int          `json:"pair"`  // index in Args.Pairs
	Half  half         `json:"half"`
	Host  trust.HostID `json:"host"`
	Name  string       `json:"name"` // of the host
	User  string       `json:"user"`
	Path  string       `json:"path"`
	// Links are symbolic links to the file of an identity place. They follow it.
	Links []string `json:"links,omitempty"`
	// Known are successions of an earlier run at this place, that this run
	// takes back.
	Known []Succession `json:"known,omitempty"`
	// Snapshot names the sealed files that an earlier run found at this
	// identity place, and this run puts back; or is empty.
	Snapshot string `json:"snapshot,omitempty"`
	// Elsewhere: the run that this one takes back does not have this place, where the
	// old key lies as well. Row Baseline looks at it, and no row writes there.
	Elsewhere bool `json:"elsewhere,omitempty"`
	// Taken is what a retirement took out and this run puts back, Worked how well
	// the key opened the account before, and Opens whether it did so for Keyturn
	// itself.
	Taken  Taken `json:"taken,omitzero"`
	Worked Level `json:"worked,omitempty"`
	Opens  bool  `json:"opens,omitempty"`
}

// A half says which half of a key lies in a place.
type half string

const (
	authorizedHalf half = "authorized"
	identityHalf   half = "identity"
)

func (s spec) login() trust.Login { return trust.Login{Host: s.Host, User: s.User} }

func (s spec) place() trust.Place { return trust.Place{Host: s.Host, User: s.User, Path: s.Path} }

// name is what people know the place by: "web1:alice:/home/alice/.ssh/authorized_keys".
func (s spec) name() string { return fmt.Sprintf("%s:%s:%s", s.Name, s.User, s.Path) }

// targets turns places into those lists of a plan that its procedure has. The
// files of one account go together: as long as one of them holds a key, the host
// accepts it for that account, whatever the others say.
func targets(procedure string, places []spec) (map[job.List][]job.Target, error) {
	lists := map[job.List][]job.Target{Places: make([]job.Target, 0, len(places)), Authorized: make([]job.Target, 0, len(places))}
	var last trust.Login
	for _, list := range []half{authorizedHalf, identityHalf} {
		for _, s := range places {
			if s.Half != list {
				continue
			}
			s.Place, s.Order = len(lists[Places]), len(lists[Authorized])
			if list == identityHalf {
				s.Order = len(lists[Identities])
			}
			text, err := json.Marshal(s)
			if err != nil {
				return nil, err
			}
			t := job.Target{Host: s.Host, Name: s.name(), Spec: text}
			lists[Places] = append(lists[Places], t)
			if list == authorizedHalf {
				t.With = s.Order > 0 && last == s.login()
				last = s.login()
				lists[Authorized] = append(lists[Authorized], t)
			} else {
				lists[Identities] = append(lists[Identities], t)
			}
		}
	}
	switch procedure {
	case RetireProcedure, RestoreProcedure:
		delete(lists, Identities)
	case PreviewProcedure:
		delete(lists, Identities)
		delete(lists, Authorized)
	}
	return lists, nil
}

// A Level says how well a login with a key was proven, from the weakest to the
// strongest.
type Level string

const (
	// Written: the file holds the line, and nothing more was seen.
	Written Level = "written"
	// Matched: the server says that it would take the key (RFC 4252, section
	// 7, SSH_MSG_USERAUTH_PK_OK); or, where the line has a from= that does not
	// let us in, the file as sshd reads it accepts the key from there.
	Matched Level = "matched"
	// LoginHere: a login from Keyturn's own address.
	LoginHere Level = "login-here"
	// Login: a login from where the key is used.
	Login Level = "login"
)

// Levels lists the levels of proof, weakest first.
var Levels = []Level{Written, Matched, LoginHere, Login}

func (l Level) rank() int {
	for i, x := range Levels {
		if x == l {
			return i
		}
	}
	return -1
}

// ParseLevel reads a level of proof.
func ParseLevel(text string) (Level, error) {
	if l := Level(text); l.rank() >= 0 {
		return l, nil
	}
	return "", trust.Errorf(trust.Invalid, "proof level %q is none of written, matched, login-here, login", text).WithField("proof")
}
