package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// A runSummaryJSON is what a listing says of a run.
type runSummaryJSON struct {
	Run       string     `json:"run"`
	Procedure string     `json:"procedure"`
	Subject   string     `json:"subject"`
	State     string     `json:"state"`
	Direction string     `json:"direction"`
	Row       string     `json:"row,omitempty"`
	Reason    string     `json:"reason,omitempty"`
	BackOf    string     `json:"back_of,omitempty"`
	BackBy    string     `json:"back_by,omitempty"`
	By        string     `json:"by"`
	ApproveBy *time.Time `json:"approve_by,omitempty"`
	CreatedAt *time.Time `json:"created_at"`
	EndedAt   *time.Time `json:"ended_at,omitempty"`
	Until     *time.Time `json:"until,omitempty"`
	Revision  int64      `json:"revision"`
}

type runJSON struct {
	runSummaryJSON
	ApprovedBy string `json:"approved_by,omitempty"`

	Keys []struct {
		Old string   `json:"old"`
		New []string `json:"new"`
	} `json:"keys"`
	Rows []struct {
		Name    string `json:"name"`
		Places  int    `json:"places"`
		Done    int    `json:"done"`
		Waiting int    `json:"waiting"`
		Failed  int    `json:"failed"`
		Left    int    `json:"left"`
		Skipped bool   `json:"skipped,omitempty"`
	} `json:"rows"`
	Troubled []struct {
		Place string     `json:"place"`
		Row   string     `json:"row"`
		State string     `json:"state"`
		Error string     `json:"error"`
		Next  *time.Time `json:"next,omitempty"`
	} `json:"troubled"`
	Left []string `json:"left"`
}

func (r runJSON) ended() bool { return slices.Contains([]string{"done", "back", "partial"}, r.State) }

// changes says in a line for each of a run's keys what the run, as it stands, made of
// it.
func (r runJSON) changes() (lines []string) {
	for _, k := range r.Keys {
		old, next := k.Old, strings.Join(k.New, ", ")
		back := r.Direction == "back" || r.State == "back"
		switch {
		case r.Procedure == "preview":
			lines = append(lines, old)
		case r.Procedure == "restore" && back:
			lines = append(lines, next+" is retired again")
		case r.Procedure == "restore":
			lines = append(lines, next+" is back")
		case back && !r.ended():
			lines = append(lines, old+" comes back")
		case back:
			lines = append(lines, old+" is back")
		case next == "" && !r.ended():
			lines = append(lines, old+" is being retired")
		case next == "":
			lines = append(lines, old+" is retired")
		default:
			lines = append(lines, old+" -> "+next)
		}
	}
	return lines
}

type startedJSON struct {
	Run string `json:"run"`
}

type placeReportJSON struct {
	Name        string `json:"name"`
	Half        string `json:"half"`
	Untouched   string `json:"untouched,omitempty"`
	Before      string `json:"before,omitempty"`
	After       string `json:"after,omitempty"`
	Gone        bool   `json:"gone,omitempty"`
	Left        bool   `json:"left,omitempty"`
	Certificate string `json:"certificate,omitempty"`

	Differs []string `json:"differs,omitempty"`
	Preview *struct {
		Works string `json:"works,omitempty"`
		Why   string `json:"why,omitempty"`
		Needs string `json:"needs,omitempty"`
		Diff  string `json:"diff,omitempty"`
		Text  string `json:"text,omitempty"`
	} `json:"preview,omitempty"`
}

func runCommand(env environ) *cobra.Command {
	return parent("run", "Follow what is being done on hosts, and steer it",
		runListCommand(env), runShowCommand(env), runWatchCommand(env),
		runAllCommand(env, &cobra.Command{Use: "pause RUN | --all", Short: "Have a run, or all of them, begin nothing more until resumed"}, "every run that has not ended", "paused"),
		runAllCommand(env, &cobra.Command{Use: "resume RUN | --all", Short: "Have a paused or held run go on, or all that are paused"}, "every run that is paused; those that are held stay so", "resumed"),
		runApproveCommand(env), runBackCommand(env), runApproveBackCommand(env), runLeaveCommand(env))
}

func runListCommand(env environ) *cobra.Command {
	var open bool
	cmd := &cobra.Command{
		Use: "list", Short: "List runs, newest first", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			q := url.Values{}
			if open {
				q.Set("open", "true")
			}
			runs, err := list[runSummaryJSON](cmd.Context(), c, "/runs", "runs", q)
			if err != nil {
				return err
			}
			return showTable(cmd, runs, "RUN PROCEDURE STATE ROW STARTED WHY", func(r runSummaryJSON) []string {
				return []string{r.Run, r.Procedure, r.State, r.Row, when(r.CreatedAt), r.Reason}
			})
		}),
	}
	cmd.Flags().BoolVar(&open, "open", false, "only runs that have not ended")
	return cmd
}

func runShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show RUN", Short: "Show a run: its rows, what holds it, what it found at each place", Args: exactly(1), ValidArgsFunction: completeRuns(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.run(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			places, err := c.places(cmd.Context(), r)
			if err != nil {
				return err
			}
			out := struct {
				runJSON
				Places []placeReportJSON `json:"places"`
			}{r, places}
			return show(cmd, out, func(w io.Writer) error {
				if err := printRun(w, r); err != nil {
					return err
				}
				return printPlaces(w, places)
			})
		}),
	}
}

func (c *client) run(ctx context.Context, id string) (r runJSON, err error) {
	err = c.call(ctx, http.MethodGet, "/runs/"+url.PathEscape(id), nil, &r)
	return r, err
}

// places returns what a run says of its places, of the procedures that do.
func (c *client) places(ctx context.Context, r runJSON) ([]placeReportJSON, error) {
	if !slices.Contains([]string{"rotate", "retire", "restore", "preview"}, r.Procedure) {
		return []placeReportJSON{}, nil
	}
	return list[placeReportJSON](ctx, c, "/runs/"+url.PathEscape(r.Run)+"/places", "places", nil)
}

func printRun(w io.Writer, r runJSON) error {
	pairs := []string{
		"run", r.Run, "procedure", r.Procedure, "state", r.State, "direction", r.Direction, "why", r.Reason,
		"started", when(r.CreatedAt), "by", r.By, "to be approved until", when(r.ApproveBy), "approved by", r.ApprovedBy, "ended", when(r.EndedAt), "waits until", when(r.Until), "takes back", r.BackOf, "taken back by", r.BackBy,
	}
	for _, line := range r.changes() {
		pairs = append(pairs, "key", line)
	}
	if err := fields(w, pairs...); err != nil {
		return err
	}
	var rows [][]string
	for _, x := range r.Rows {
		note := ""
		if x.Skipped {
			note = "skipped"
		}
		rows = append(rows, []string{x.Name, fmt.Sprintf("%d/%d", x.Done, x.Places), count(x.Waiting), count(x.Failed), count(x.Left), note})
	}
	if err := table(w, "ROW DONE WAITING FAILED LEFT NOTE", rows); err != nil {
		return err
	}
	for _, t := range r.Troubled {
		if _, err := fmt.Fprintf(w, "%s %s in %s: %s\n", plain(t.Place), t.State, t.Row, plain(t.Error)); err != nil {
			return err
		}
	}
	for _, name := range r.Left {
		if _, err := fmt.Fprintf(w, "left: %s\n", plain(name)); err != nil {
			return err
		}
	}
	return nil
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func printPlaces(w io.Writer, places []placeReportJSON) error {
	var rows [][]string
	for _, p := range places {
		note := p.Untouched
		switch {
		case p.Left:
			note = "left"
		case p.Certificate != "" && p.After != "":
			note = p.Certificate + " went with the old key"
		}
		note = strings.TrimPrefix(strings.Join(append([]string{note}, p.Differs...), "; "), "; ")
		gone := ""
		if p.Gone {
			gone = "refused"
		}
		rows = append(rows, []string{p.Name, p.Half, p.Before, p.After, gone, note})
	}
	if len(rows) == 0 {
		return nil
	}
	return table(w, "PLACE HALF OLD-KEY-BEFORE NEW-KEY OLD-KEY-AFTER NOTE", rows)
}

func runWatchCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "watch RUN", Short: "Follow a run until it ends or is held; --json prints a line for each change", Args: exactly(1), ValidArgsFunction: completeRuns(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			r, err := c.watchEach(cmd.Context(), args[0], func(r runJSON) error {
				if asJSON(cmd) {
					return printJSON(cmd.OutOrStdout(), r)
				}
				_, err := fmt.Fprintln(cmd.OutOrStdout(), progress(r))
				return err
			})
			if err != nil {
				return err
			}
			return verdict(cmd, r, "done")
		}),
	}
}

// runAllCommand has a command ask one run for what it is called, or with --all all of
// them; done says of how many that is true then.
func runAllCommand(env environ, cmd *cobra.Command, every, done string) *cobra.Command {
	var all bool
	cmd.ValidArgsFunction = completeOpenRuns(env)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if all == (len(args) == 1) || len(args) > 1 {
			return &usageError{cmd.CommandPath(), errors.New("name one run, or give --all")}
		}
		c, err := newClient(env)
		if err != nil {
			return err
		}
		if !all {
			return c.ask(cmd, args[0], cmd.Name(), done)
		}
		var out map[string]int
		if err := c.call(cmd.Context(), http.MethodPost, "/runs/"+cmd.Name(), nil, &out); err != nil {
			return err
		}
		return show(cmd, out, func(w io.Writer) error {
			for _, n := range out {
				fmt.Fprintf(w, "runs %s: %d\n", done, n)
			}
			return nil
		})
	}
	cmd.Flags().BoolVar(&all, "all", false, every)
	return cmd
}

// ask asks something of a run; done is what it is then.
func (c *client) ask(cmd *cobra.Command, id, verb, done string) error {
	var out startedJSON
	if err := c.call(cmd.Context(), http.MethodPost, "/runs/"+url.PathEscape(id)+"/"+verb, nil, &out); err != nil {
		return err
	}
	return showLine(cmd, out, "run %s is %s\n", id, done)
}

func runBackCommand(env environ) *cobra.Command {
	var wait bool
	var soak string
	cmd := &cobra.Command{
		Use:   "back RUN",
		Short: "Take a run back: undo it, or, if it has begun to install, prove its way back",
		Long: `Take a run back. One that has installed nothing yet is undone, at once. From
there on the way back is a run of its own: it proves the old key before it
touches the new one, and soaks as long as the way there did; --soak says
otherwise.`,
		Args: exactly(1), ValidArgsFunction: completeRuns(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out startedJSON
			in := map[string]string{}
			if soak != "" {
				in["soak"] = soak
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/runs/"+url.PathEscape(args[0])+"/back", in, &out); err != nil {
				return err
			}
			return c.followTo(cmd, out.Run, wait, "back")
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until everything is as it was")
	cmd.Flags().StringVar(&soak, "soak", "", "how long both keys are accepted on the way back, such as 0s or 24h (default as long as on the way there)")
	return cmd
}

func runLeaveCommand(env environ) *cobra.Command {
	var unreachable bool
	cmd := &cobra.Command{
		Use:   "leave RUN HOST | RUN PLACE | RUN --unreachable",
		Short: "Have a run go on, or back, without a place, in the way that locks nobody out",
		Long: `Have a run go on without a place, named as "keyturn run show" names it, or without
every place on a host. Without an identity place, nobody may take the old key away
any more: the run only adds; if it has begun to withdraw, it goes on and does not ask
there again. Without a place that accepts the key, before anything is installed, the
run goes back, unless that place refused the old key when the run began. It ends as
"partial".`,
		ValidArgsFunction: completeOpenRuns(env),
		RunE: func(cmd *cobra.Command, args []string) error {
			if unreachable && len(args) != 1 || !unreachable && len(args) != 2 {
				return &usageError{cmd.CommandPath(), errors.New("name a run and a host or place, or a run and --unreachable")}
			}
			c, err := newClient(env)
			if err != nil {
				return err
			}
			in := map[string]any{"unreachable": unreachable}
			switch {
			case unreachable:
			case strings.Contains(args[1], ":"):
				in["place"] = args[1]
			default:
				in["host"] = args[1]
			}
			var out struct {
				Left int  `json:"left"`
				Back bool `json:"back"`

				Additive bool `json:"additive"`
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/runs/"+url.PathEscape(args[0])+"/leave", in, &out); err != nil {
				return err
			}
			return show(cmd, out, func(w io.Writer) error {
				places := "places"
				if out.Left == 1 {
					places = "place"
				}
				if out.Back {
					_, err := fmt.Fprintf(w, "run %s cannot go on without %d %s, and goes back everywhere else\n", args[0], out.Left, places)
					fmt.Fprintf(cmd.ErrOrStderr(), "hint: where a host is gone for good, keyturn host remove HOST; then rotate again\n")
					return err
				}
				_, err := fmt.Fprintf(w, "run %s goes on without %d %s\n", args[0], out.Left, places)
				if out.Additive {
					_, err = fmt.Fprintln(w, "it withdraws nothing any more: the old key stays accepted everywhere")
				}
				return err
			})
		},
	}
	cmd.Flags().BoolVar(&unreachable, "unreachable", false, "every place that waits because its host does not answer")
	return cmd
}

// follow waits for a run, where that was asked for, and says how it went.
func (c *client) follow(cmd *cobra.Command, id string, wait bool) error {
	return c.followTo(cmd, id, wait, "done")
}

// followTo is follow, where wanted is an end that is as good as done.
func (c *client) followTo(cmd *cobra.Command, id string, wait bool, wanted string) error {
	if !wait {
		return show(cmd, startedJSON{id}, func(w io.Writer) error {
			r, err := c.run(cmd.Context(), id)
			if err != nil {
				return err
			}
			if r.ApproveBy != nil {
				_, err := fmt.Fprintln(w, awaiting(r))
				return err
			}
			_, err = fmt.Fprintf(w, "run %s has started; follow it with: keyturn run watch %s\n", id, id)
			return err
		})
	}
	r, err := c.watch(cmd, id)
	if err != nil {
		return err
	}
	untouched, err := c.untouched(cmd.Context(), r)
	if err != nil {
		return err
	}
	out := struct {
		Run    string   `json:"run"`
		State  string   `json:"state"`
		Reason string   `json:"reason,omitempty"`
		Keys   any      `json:"keys"`
		Left   []string `json:"left"`
		// Untouched are the places that stay as they were, each with why.
		Untouched []placeReportJSON `json:"untouched"`
	}{r.Run, r.State, r.Reason, r.Keys, r.Left, untouched}
	if err := show(cmd, out, func(w io.Writer) error {
		for _, line := range r.changes() {
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		state := r.State
		if r.Reason != "" {
			state += ", " + plain(r.Reason)
		}
		if _, err := fmt.Fprintf(w, "run %s: %s\n", r.Run, state); err != nil {
			return err
		}
		return printUntouched(w, r, untouched)
	}); err != nil {
		return err
	}
	return verdict(cmd, r, wanted)
}

// untouched returns the places that a run which is done did not touch.
func (c *client) untouched(ctx context.Context, r runJSON) ([]placeReportJSON, error) {
	if r.State != "done" && r.State != "partial" {
		return []placeReportJSON{}, nil
	}
	places, err := c.places(ctx, r)
	return slices.DeleteFunc(places, func(p placeReportJSON) bool { return p.Untouched == "" }), err
}

// printUntouched says how many places a run did not touch, and names some.
func printUntouched(w io.Writer, r runJSON, places []placeReportJSON) error {
	if len(places) == 0 {
		return nil
	}
	stay := "1 place stays as it was"
	if len(places) > 1 {
		stay = fmt.Sprintf("%d places stay as they were", len(places))
	}
	if _, err := fmt.Fprintf(w, "%s: keyturn run show %s\n", stay, r.Run); err != nil {
		return err
	}
	for _, p := range places[:min(len(places), 5)] {
		if _, err := fmt.Fprintf(w, "  %s: %s\n", plain(p.Name), plain(p.Untouched)); err != nil {
			return err
		}
	}
	return nil
}

// verdict fails the command unless the run came to what was asked for: to be
// done, or, of a run that was asked to go back, to be back. It says what can be
// done about one that is held.
func verdict(cmd *cobra.Command, r runJSON, wanted string) error {
	switch r.State {
	case "done", wanted:
		return nil
	case "held":
		w := cmd.ErrOrStderr()
		fmt.Fprintf(w, "run %s is held: %s\n", r.Run, plain(r.Reason))
		fmt.Fprintf(w, "hint: keyturn run resume %s tries again, keyturn run back %s takes it back, keyturn run leave %s PLACE goes on without a place\n", r.Run, r.Run, r.Run)
	}
	return errQuiet
}

// printPreview waits for a dry run and prints what it found.
func (c *client) printPreview(cmd *cobra.Command, id string) error {
	r, err := c.watch(cmd, id)
	if err != nil {
		return err
	}
	places, err := c.places(cmd.Context(), r)
	if err != nil {
		return err
	}
	if err := show(cmd, places, func(w io.Writer) error {
		colour := false
		if f, ok := w.(*os.File); ok {
			colour = isTerminal(f)
		}
		for _, p := range places {
			if p.Preview == nil {
				continue
			}
			if p.Preview.Needs != "" {
				fmt.Fprintf(w, "%s: %s\n", plain(p.Name), plain(p.Preview.Needs))
			}
			v := p.Preview
			if v.Why != "" {
				fmt.Fprintf(w, "%s would stay as it is: %s\n", plain(p.Name), plain(v.Why))
				continue
			}
			if v.Text != "" {
				fmt.Fprintf(w, "%s %s\n", plain(p.Name), plain(v.Text))
			}
			printDiff(w, v.Diff, colour)
		}
		_, err := fmt.Fprintln(w, "Nothing was changed.")
		return err
	}); err != nil {
		return err
	}
	return verdict(cmd, r, "done")
}

func printDiff(w io.Writer, diff string, colour bool) {
	for line := range strings.Lines(diff) {
		line = plain(line)
		switch {
		case colour && strings.HasPrefix(line, "+"):
			line = "\033[32m" + line + "\033[0m"
		case colour && strings.HasPrefix(line, "-"):
			line = "\033[31m" + line + "\033[0m"
		}
		fmt.Fprintln(w, line)
	}
}
