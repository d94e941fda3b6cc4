package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type discoveryJSON struct {
	Name    string     `json:"name"`
	All     bool       `json:"all"`
	Hosts   []string   `json:"hosts"`
	Gone    int        `json:"gone,omitempty"`
	Every   string     `json:"every,omitempty"`
	Daily   string     `json:"daily,omitempty"`
	NextAt  *time.Time `json:"next_at,omitempty"`
	Run     string     `json:"run,omitempty"`
	State   string     `json:"state,omitempty"`
	RunAt   *time.Time `json:"run_at,omitempty"`
	Outcome string     `json:"outcome,omitempty"`
}

// when says when a discovery starts.
func (d discoveryJSON) when() string {
	switch {
	case d.Every != "":
		return "every " + d.Every
	case d.Daily != "":
		return "daily at " + d.Daily + " UTC"
	}
	return "once"
}

// scope says which hosts a discovery scans.
func (d discoveryJSON) scope() string {
	if d.All {
		return "all hosts"
	}
	return strings.Join(d.Hosts, ", ")
}

func discoveryCommand(env environ) *cobra.Command {
	return parent("discovery", "Scans that have a name, and are repeated by the clock",
		discoveryCreateCommand(env), discoveryListCommand(env), discoveryShowCommand(env), discoveryRemoveCommand(env))
}

func discoveryCreateCommand(env environ) *cobra.Command {
	var every, daily string
	var wait bool
	cmd := &cobra.Command{
		Use:   "create NAME [HOST ...]",
		Short: "Scan hosts, or all of them, under a name, now and by the clock",
		Long: `Scan hosts, or all that there are each time, under a name. The first scan starts
at once; --every or --daily repeat it, and without them it is the only one.

While a scan of a discovery has not ended, the next one is not started. The
setting scan.interval scans all hosts as well, under no name.`,
		Example: `  keyturn discovery create nightly --daily 02:30
  keyturn discovery create dmz web1 web2 --every 1h --wait`,
		Args: atLeast(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{"name": args[0], "hosts": args[1:]}
			for name, v := range map[string]string{"every": every, "daily": daily} {
				if v != "" {
					in[name] = v
				}
			}
			var d discoveryJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/discoveries", in, &d); err != nil {
				return err
			}
			if wait {
				r, err := c.watch(cmd, d.Run)
				if err != nil {
					return err
				}
				if err := verdict(cmd, r, "done"); err != nil {
					return err
				}
				if err := c.call(cmd.Context(), http.MethodGet, "/discoveries/"+url.PathEscape(d.Name), nil, &d); err != nil {
					return err
				}
			}
			return showLine(cmd, d, "discovery %s scans %s, %s; its first scan is run %s\n", d.Name, plain(d.scope()), d.when(), d.Run)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&every, "every", "", "repeat it so long after each start, such as 1h; 5m at least")
	f.StringVar(&daily, "daily", "", "or at this time of each day in UTC, HH:MM")
	f.BoolVar(&wait, "wait", false, "wait until the first scan has ended")
	return cmd
}

func discoveryListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List discoveries, and how their newest scans stand", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var out struct {
				Discoveries []discoveryJSON `json:"discoveries"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/discoveries", nil, &out); err != nil {
				return err
			}
			return showTable(cmd, out.Discoveries, "NAME WHEN NEXT STATE STARTED RUN HOSTS", func(d discoveryJSON) []string {
				return []string{d.Name, d.when(), when(d.NextAt), d.State, when(d.RunAt), d.Run, d.scope()}
			})
		}),
	}
}

func discoveryShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a discovery", Args: exactly(1), ValidArgsFunction: completeDiscoveries(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var d discoveryJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/discoveries/"+url.PathEscape(args[0]), nil, &d); err != nil {
				return err
			}
			return show(cmd, d, func(w io.Writer) error {
				pairs := []string{"name", d.Name, "hosts", d.scope(), "removed", count(d.Gone), "when", d.when(), "next", when(d.NextAt)}
				return fields(w, append(pairs, "run", d.Run, "state", d.State, "started", when(d.RunAt), "not started", d.Outcome)...)
			})
		}),
	}
}

func discoveryRemoveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a discovery; what it found stays", Args: exactly(1), ValidArgsFunction: completeDiscoveries(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, "/discoveries/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%s is forgotten\n", args[0])
		}),
	}
}
