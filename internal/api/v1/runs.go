package v1

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// maxWait is how long a request for a run waits for it to change.
const maxWait = time.Minute

// RunSummary is what a listing says of a run.
type RunSummary struct {
	Run       string     `json:"run"`
	Procedure string     `json:"procedure"`
	Subject   string     `json:"subject"`
	State     string     `json:"state" enum:"running,waiting,paused,held,done,back,partial"`
	Direction string     `json:"direction" enum:"forward,back"`
	Row       string     `json:"row,omitempty" doc:"The row that it has reached"`
	Reason    string     `json:"reason,omitempty" doc:"Why it waits, is paused or held, or how it ended"`
	BackOf    string     `json:"back_of,omitempty" doc:"The run that this one takes back"`
	BackBy    string     `json:"back_by,omitempty" doc:"The run that takes this one back"`
	By        string     `json:"by" doc:"Who started it"`
	ApproveBy *time.Time `json:"approve_by,omitempty" doc:"Until when another user has to approve of it, while it waits for that"`
	CreatedAt *time.Time `json:"created_at"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Until     *time.Time `json:"until,omitempty" doc:"Until when it waits, if that is for a time"`
	Revision  int64      `json:"revision" doc:"Greater after every change"`
}

type run struct {
	RunSummary
	ApprovedBy string `json:"approved_by,omitempty" doc:"Who approved of it, where that was needed"`

	Keys     []keyChange `json:"keys"`
	Rows     []row       `json:"rows"`
	Troubled []trouble   `json:"troubled" doc:"Places that failed or wait in the present row"`
	Left     []string    `json:"left" doc:"Places that the run goes, or went, on without"`
}

type keyChange struct {
	Old string   `json:"old"`
	New []string `json:"new"`
}

type row struct {
	Name    string `json:"name"`
	Places  int    `json:"places"`
	Done    int    `json:"done"`
	Waiting int    `json:"waiting"`
	Failed  int    `json:"failed"`
	Left    int    `json:"left"`
	Skipped bool   `json:"skipped,omitempty"`
}

type trouble struct {
	Place string     `json:"place"`
	Row   string     `json:"row"`
	State string     `json:"state" enum:"failed,waiting"`
	Error string     `json:"error"`
	Next  *time.Time `json:"next,omitempty"`
}

type runPage struct {
	Runs []RunSummary `json:"runs"`
	Next string       `json:"next,omitempty"`
}

type listRuns struct {
	Paging
	Open bool `query:"open" doc:"Only runs that have not ended"`
}

// ByRun names a run in a path.
type ByRun struct {
	Run string `path:"run" maxLength:"100"`
}

type showRun struct {
	ByRun
	Wait  string `query:"wait" maxLength:"16" doc:"Wait so long, 60s at most, for the revision to be another than since"`
	Since int64  `query:"since"`
}

type listPlaces struct {
	ByRun
	Paging
}

type runPlace struct {
	Name        string   `json:"name"`
	Host        string   `json:"host"`
	User        string   `json:"user"`
	Path        string   `json:"path"`
	Half        string   `json:"half" enum:"authorized,identity"`
	Key         string   `json:"key"`
	Left        bool     `json:"left,omitempty"`
	Untouched   string   `json:"untouched,omitempty" doc:"Why the run changes nothing there"`
	Before      string   `json:"before,omitempty" doc:"How well the old key was proven at the start"`
	After       string   `json:"after,omitempty" doc:"How well the new key was proven last"`
	Gone        bool     `json:"gone,omitempty" doc:"The old key was seen to be refused since"`
	Certificate string   `json:"certificate,omitempty" doc:"The file beside an identity that goes with the old key, whose certificate it holds"`
	Differs     []string `json:"differs,omitempty" doc:"What of the files beside an identity is not kept: an owner, a group"`
	Preview     *preview `json:"preview,omitempty"`
}

type preview struct {
	Works string `json:"works,omitempty" doc:"How well the old key opens the place now"`
	Why   string `json:"why,omitempty" doc:"Why the run would leave it as it is"`
	Needs string `json:"needs,omitempty" doc:"What has to be so before a rotation would do this"`
	Diff  string `json:"diff,omitempty" doc:"From what the file holds to what it would hold; of an identity file, what lies beside it: its public key and its certificate"`
	Text  string `json:"text,omitempty" doc:"What would become of an identity file; of another, what sshd may read besides for other addresses, where nothing would be replaced"`
}

type placePage struct {
	Places []runPlace `json:"places"`
	Next   string     `json:"next,omitempty"`
}

type leaveRun struct {
	ByRun
	Body struct {
		Place       string `json:"place,omitempty" maxLength:"5000" doc:"A place, by its name"`
		Host        string `json:"host,omitempty" maxLength:"255" doc:"Or every place on a host, by its name or id"`
		Unreachable bool   `json:"unreachable,omitempty" doc:"Or every place that waits because its host does not answer"`
	}
}

type backRun struct {
	ByRun
	Body *struct {
		Soak string `json:"soak,omitempty" maxLength:"32" doc:"How long both keys are accepted on the way back, if it has to be proven; as long as on the way there if absent"`
	}
}

type leftPlaces struct {
	Left int  `json:"left"`
	Back bool `json:"back" doc:"The run goes back: it cannot go on without them"`

	Additive bool `json:"additive" doc:"The run goes on, and withdraws nothing any more"`
}

type resumed struct {
	Resumed int `json:"resumed"`
}

type paused struct {
	Paused int `json:"paused"`
}

func (d door) runRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/runs", "list-runs", "List runs, newest first",
		func(ctx context.Context, who control.Actor, in *listRuns) (runPage, error) {
			list, next, err := d.plane.ListRuns(ctx, who, control.RunFilter{Open: in.Open}, in.page())
			out := runPage{Runs: make([]RunSummary, len(list)), Next: next}
			for i, s := range list {
				out.Runs[i] = summary(s)
			}
			return out, err
		})
	operation(d, a, http.MethodGet, "/runs/{run}", "show-run", "Show a run, or wait for it to change",
		func(ctx context.Context, who control.Actor, in *showRun) (run, error) {
			if in.Wait == "" {
				r, err := d.plane.ShowRun(ctx, who, trust.RunID(in.Run))
				return detail(r), err
			}
			wait, err := duration("wait", in.Wait)
			if err != nil {
				return run{}, err
			}
			r, err := d.plane.WaitForRun(ctx, who, trust.RunID(in.Run), in.Since, min(wait, maxWait))
			return detail(r), err
		})
	operation(d, a, http.MethodGet, "/runs/{run}/places", "list-run-places", "List what a run found and did at each place",
		func(ctx context.Context, who control.Actor, in *listPlaces) (placePage, error) {
			list, next, err := d.plane.ListRunPlaces(ctx, who, trust.RunID(in.Run), in.page())
			out := placePage{Places: make([]runPlace, len(list)), Next: next}
			for i, p := range list {
				out.Places[i] = showPlace(p)
			}
			return out, err
		})
	for verb, v := range map[string]struct {
		summary string
		ask     func(context.Context, control.Actor, trust.RunID) error
	}{
		"pause":   {"Have a run begin nothing more", d.plane.PauseRun},
		"resume":  {"Have a paused or held run go on", d.plane.ResumeRun},
		"approve": {"Let a run begin that another user asked for", d.plane.ApproveRun},
	} {
		operation(d, a, http.MethodPost, "/runs/{run}/"+verb, verb+"-run", v.summary,
			func(ctx context.Context, who control.Actor, in *ByRun) (started, error) {
				return started{in.Run}, v.ask(ctx, who, trust.RunID(in.Run))
			})
	}
	operation(d, a, http.MethodPost, "/runs/{run}/back", "back-run", "Start taking a run back",
		func(ctx context.Context, who control.Actor, in *backRun) (started, error) {
			var soak *time.Duration
			if in.Body != nil {
				var err error
				if soak, err = soakOf(in.Body.Soak); err != nil {
					return started{}, err
				}
			}
			by, err := d.plane.BackRun(ctx, who, trust.RunID(in.Run), soak)
			return started{string(by)}, err
		})
	operation(d, a, http.MethodPost, "/runs/{run}/leave", "leave-run", "Have a run go on without places",
		func(ctx context.Context, who control.Actor, in *leaveRun) (leftPlaces, error) {
			left, err := d.plane.LeaveRun(ctx, who, trust.RunID(in.Run), control.Leave{Place: in.Body.Place, Host: in.Body.Host, Unreachable: in.Body.Unreachable})
			return leftPlaces{left.Places, left.Back, left.Additive}, err
		})
	operation(d, a, http.MethodPost, "/runs/pause", "pause-runs", "Pause every open run",
		func(ctx context.Context, who control.Actor, _ *none) (paused, error) {
			n, err := d.plane.PauseAllRuns(ctx, who)
			return paused{n}, err
		})
	operation(d, a, http.MethodPost, "/runs/resume", "resume-runs", "Have every paused run go on",
		func(ctx context.Context, who control.Actor, _ *none) (resumed, error) {
			n, err := d.plane.ResumeAllRuns(ctx, who)
			return resumed{n}, err
		})
}

func summary(s control.RunSummary) RunSummary {
	return RunSummary{
		Run: string(s.ID), Procedure: s.Procedure, Subject: s.Subject, State: string(s.State), Direction: string(s.Direction),
		Row: s.Row, Reason: s.Reason, BackOf: string(s.BackOf), BackBy: string(s.BackBy), By: s.Actor.Kind + ":" + s.Actor.ID,
		CreatedAt: at(s.Created), EndedAt: at(s.Ended), Until: at(s.Next), ApproveBy: at(s.ApproveBy), Revision: s.Revision,
	}
}

func detail(r control.Run) run {
	out := run{RunSummary: summary(r.Summary), ApprovedBy: r.ApprovedBy, Keys: []keyChange{}, Rows: []row{}, Troubled: []trouble{}, Left: []string{}}
	for _, k := range r.Keys {
		out.Keys = append(out.Keys, keyChange{Old: string(k.Old), New: texts(k.New)})
	}
	for _, c := range r.Rows {
		out.Rows = append(out.Rows, row{Name: c.Step, Places: c.Targets, Done: c.Done, Waiting: c.Waiting, Failed: c.Failed, Left: c.Left, Skipped: c.Skipped})
	}
	for _, c := range r.Troubled {
		out.Troubled = append(out.Troubled, trouble{Place: c.Target.Name, Row: c.Step, State: string(c.State), Error: c.Error, Next: at(c.Next)})
	}
	for _, t := range r.Without {
		if !slices.Contains(out.Left, t.Name) { // a place is in several lists of its run
			out.Left = append(out.Left, t.Name)
		}
	}
	return out
}

func showPlace(p control.PlaceReport) runPlace {
	out := runPlace{
		Name: p.Name, Host: p.HostName, User: p.User, Path: p.Path, Half: p.Half, Key: string(p.Key), Left: p.Left,
		Untouched: p.Untouched, Before: string(p.Before), After: string(p.After), Gone: p.Gone, Certificate: p.Certificate, Differs: p.Differs,
	}
	if v := p.Preview; v != nil {
		out.Preview = &preview{Works: string(v.Works), Why: v.Why, Needs: v.Needs, Diff: v.Diff, Text: v.Text}
	}
	return out
}

// soakOf reads how long a run is to soak, or nil out of nothing.
func soakOf(text string) (*time.Duration, error) {
	if text == "" {
		return nil, nil
	}
	v, err := duration("soak", text)
	return &v, err
}

// duration reads a field that is a time to wait.
func duration(field, text string) (time.Duration, error) {
	v, err := time.ParseDuration(text)
	if err != nil || v < 0 {
		return 0, trust.Errorf(trust.Invalid, "%q is not a duration such as 90s, 15m or 24h", text).WithField(field)
	}
	return v, nil
}
