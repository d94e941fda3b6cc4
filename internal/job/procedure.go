package job

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A List names the targets that a row works on: a list that the plan wrote,
// such as "authorized" or "identities", or Once.
type List string

// Once is the list of a row that has nothing to go through. Where a plan says
// nothing of it, it has one target, without a host, that is named as the
// plan's subject.
const Once List = "once"

// A Step is one row of a procedure.
//
// Do means "make it so": it must come to the same end when it is run again
// after it was cut off at any instant, because that is all that recovery is.
// It must honour its context. What its error means:
//
//   - of kind trust.Unavailable: this target later, with back-off; the others
//     of the row go on;
//   - from Until: this target at that time;
//   - any other: the run is held with that sentence.
//
// Undo takes away what Do, by the journal, has done or may have done. It is
// called only for targets whose Do was at least intended, under the same rules.
// A row without Undo is passed over on the way back.
//
// What Undo has to know of how things were before, such as whether a line was
// there already, is for a row above to find out and Save. What an attempt saves
// that is cut off is lost, although its effect may be there, and the next
// attempt would take that for how things were.
type Step struct {
	Name string
	On   List
	Do   func(context.Context, Run, Target) (Record, error)
	Undo func(context.Context, Run, Target) (Record, error)
	// Group makes neighbouring rows with the same non-empty Group, which must
	// be on the same list, go through the waves together: each wave runs all
	// rows of the group before the next wave starts.
	Group string
	// Final: once this row has begun on any target, there is no way back.
	Final bool
	// Parting: what this row does last at a target, which is Undo or else Do, is done
	// once for targets that were left, too. They stay left, whatever comes of it.
	Parting bool
}

// A Record writes what a step has found or changed into the inventory. It is
// committed together with the journal's outcome and its audit event, and like
// every function of a transaction it may run twice. Nil records nothing.
type Record func(*store.Tx) error

// A Procedure is a table of steps, read and run from the top.
type Procedure struct {
	Name  string
	Steps []Step
	// Turn is the name of the row from whose beginning on going back is a run
	// of its own, planned by Reverse, instead of Undo; or "".
	Turn string
	// Reverse plans, from the journal, the run that takes r back. It is called
	// while nothing of r is in flight; required with Turn. BackOf and the
	// exclusive names of r that the plan lists pass to the new run.
	Reverse func(tx *store.Tx, r Run) (Plan, error)
	// Leave says what it means to go on without a target, or refuses with a
	// sentence. Without it nothing can be left.
	Leave func(tx *store.Tx, r Run, t Target) (Effect, error)
	// Started, if there is one, is part of the commit in which a run is
	// created, by Create or by Reverse. Its error is Create's.
	Started func(tx *store.Tx, r Run) error
	// Ended, if there is one, is part of the commit in which a run ends as
	// Done, WentBack or Partial. Its error holds the run instead.
	Ended func(tx *store.Tx, r Run, outcome State) error
}

// An Effect is what leaving a target does to its run. The zero Effect is: the
// run goes on without the target.
type Effect struct {
	// Back sends the run back; the target stays left on the way back.
	Back bool
	// Skip names rows, none of them begun, that the whole run does without
	// from now on. The run has become additive.
	Skip []string
}

// A Target is one thing that a row works on.
type Target struct {
	List List
	N    int          // position in its list, from 0
	Wave int          // which wave N belongs to; filled in by this package
	Left bool         // a person has left it out; filled in by this package
	With bool         // of a plan: in the same wave as the one before it, whatever Canary and Wave say
	Host trust.HostID // "" if the target is on no host
	Name string       // what a reader knows it by, such as "web1:alice:.ssh/authorized_keys"
	Spec json.RawMessage
}

// A Plan is what a run is going to do, fixed before its first row.
type Plan struct {
	Procedure string
	Subject   string          // what it is about, as audit events name it: "key:UUID"
	Args      json.RawMessage // for the procedure's own steps
	// Targets are the lists, in order: List, N and Wave of each are filled in.
	Targets map[List][]Target
	// Canary is how many targets of each list are wave 0, and Wave how many
	// are in each wave after that (0: all the rest in one): or a few more,
	// where targets go With others.
	Canary, Wave int
	// Exclusive are names, such as "key:UUID", of which each is in at most one
	// open run.
	Exclusive []string
	// ApproveBy is until when the run waits for Approve, with nothing begun; then it
	// ends, taken back. Zero: it waits for nobody.
	ApproveBy time.Time
	// Back is the run that this one takes back, where a caller plans that
	// without Reverse.
	Back trust.RunID
}

// A State is how a run stands.
type State string

// The states of a run. Running, Waiting, Paused and Held are open.
const (
	Running  State = "running" // steps are being run, or will be as soon as there is a free worker
	Waiting  State = "waiting" // until a time, for a host that does not answer, for approval, or for the run that takes this one back
	Paused   State = "paused"  // by a person, until Resume or Back
	Held     State = "held"    // by a failure, whose sentence is the reason, until Resume, Back or Leave
	Done     State = "done"
	WentBack State = "back"    // taken back, by Undo or by another run
	Partial  State = "partial" // done, or taken back, but for the targets that were left
)

// Open reports whether a run in state s can still change anything.
func (s State) Open() bool { return s == Running || s == Waiting || s == Paused || s == Held }

// A Direction is which way a run goes through its table.
type Direction string

// The directions of a run.
const (
	Forward  Direction = "forward"
	Backward Direction = "back"
)

// goesBack reports whether anything that the procedure does can be undone.
func (p Procedure) goesBack() bool {
	return p.Reverse != nil || slices.ContainsFunc(p.Steps, func(s Step) bool { return s.Undo != nil })
}

// check returns an error that says what is wrong with the table of p: these
// are mistakes of a program, found when it starts.
func (p Procedure) check() error {
	if p.Name == "" || len(p.Steps) == 0 {
		return fmt.Errorf("job: procedure %q has no name or no steps", p.Name)
	}
	names, groups, before := map[string]bool{}, map[string]bool{}, Step{}
	for _, s := range p.Steps {
		switch {
		case s.Name == "" || s.On == "" || s.Do == nil:
			return fmt.Errorf("job: procedure %q: step %q has no name, no list or no Do", p.Name, s.Name)
		case names[s.Name]:
			return fmt.Errorf("job: procedure %q has two steps %q", p.Name, s.Name)
		case s.Group != "" && s.Group != before.Group && groups[s.Group]:
			return fmt.Errorf("job: procedure %q: rows of group %q are not neighbours", p.Name, s.Group)
		case s.Group != "" && s.Group == before.Group && s.On != before.On:
			return fmt.Errorf("job: procedure %q: group %q is on the lists %q and %q", p.Name, s.Group, before.On, s.On)
		}
		names[s.Name], groups[s.Group], before = true, true, s
	}
	if p.Turn != "" && (!names[p.Turn] || p.Reverse == nil) {
		return fmt.Errorf("job: procedure %q: turn %q is not a step, or there is no Reverse", p.Name, p.Turn)
	}
	return nil
}

// step returns the row of that name.
func (p Procedure) step(name string) (Step, bool) {
	i := slices.IndexFunc(p.Steps, func(s Step) bool { return s.Name == name })
	if i < 0 {
		return Step{}, false
	}
	return p.Steps[i], true
}
