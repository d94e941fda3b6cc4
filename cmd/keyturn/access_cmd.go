package main

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/spf13/cobra"
)

type accessEntryJSON struct {
	Event           string     `json:"event"`
	At              *time.Time `json:"at"`
	Action          string     `json:"action"`
	Allowed         bool       `json:"allowed"`
	User            string     `json:"user,omitempty"`
	UserName        string     `json:"user_name,omitempty"`
	Email           string     `json:"email,omitempty"`
	Source          string     `json:"source,omitempty"`
	Provider        string     `json:"provider,omitempty"`
	Application     string     `json:"application,omitempty"`
	ApplicationName string     `json:"application_name,omitempty"`
}

// row is an entry as people see it.
func (e accessEntryJSON) row() []string {
	verdict := "refused"
	if e.Allowed {
		verdict = "allowed"
	}
	return []string{when(e.At), verdict, e.Action, e.UserName, e.Email, e.Source, e.ApplicationName}
}

func accessCommand(env environ) *cobra.Command {
	return parent("access", "See who asked for access", accessLogCommand(env))
}

func accessLogCommand(env environ) *cobra.Command {
	var user, email, application, action, since, until string
	var refused, allowed, oldest bool
	var most int
	cmd := &cobra.Command{
		Use: "log", Short: "List who asked for access, and whether it was given",
		Long: `List who logged in to Keyturn or asked for a certificate, or tried to, and whether it
was given, the newest first. The audit log says so: nothing is kept for this besides.
What users and applications are called is what they are called now.`,
		Example: `  keyturn access log --refused --since 24h
  keyturn access log --user alice --action certificate`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			query := given("user", user, "email", email, "application", application, "action", action)
			now := time.Now()
			for name, text := range map[string]string{"since": since, "until": until} {
				if text != "" {
					query.Set(name, ago(text, now))
				}
			}
			switch {
			case refused:
				query.Set("allowed", "false")
			case allowed:
				query.Set("allowed", "true")
			}
			if oldest {
				query.Set("oldest_first", "true")
			}
			entries, err := accessEntries(cmd.Context(), c, query, most)
			if err != nil {
				return err
			}
			return showTable(cmd, entries, "TIME VERDICT ACTION USER EMAIL SOURCE APPLICATION", accessEntryJSON.row)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&user, "user", "", "only of the user of this name or id")
	flags.StringVar(&email, "email", "", "only of users with this in their address")
	flags.StringVar(&application, "application", "", "only what the application of this name or id decided")
	flags.StringVar(&action, "action", "", `only "login" or "certificate"`)
	flags.BoolVar(&refused, "refused", false, "only what was refused")
	flags.BoolVar(&allowed, "allowed", false, "only what was allowed")
	flags.StringVar(&since, "since", "", "only from this time on, as in RFC 3339, or so long ago, such as 24h")
	flags.StringVar(&until, "until", "", "only up to this time, or up to so long ago")
	flags.BoolVar(&oldest, "oldest-first", false, "the oldest first")
	flags.IntVar(&most, "limit", 100, "how many at most; 0 for all")
	cmd.MarkFlagsMutuallyExclusive("refused", "allowed")
	completeWords(cmd, "action", "login", "certificate")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	return cmd
}

// ago returns the time that was so long ago in RFC 3339, or text as it is, where it says no
// duration.
func ago(text string, now time.Time) string {
	d, err := time.ParseDuration(text)
	if err != nil {
		return text
	}
	return now.Add(-d).UTC().Format(time.RFC3339Nano)
}

// accessEntries reads as many entries of the log as are wanted, or all of them for 0.
func accessEntries(ctx context.Context, c *client, query url.Values, most int) ([]accessEntryJSON, error) {
	all := []accessEntryJSON{}
	for {
		size := 500
		if most > 0 {
			size = min(size, most-len(all))
		}
		query.Set("limit", strconv.Itoa(size))
		var page struct {
			Entries []accessEntryJSON `json:"entries"`
			Next    string            `json:"next"`
		}
		if err := c.call(ctx, http.MethodGet, "/access-log?"+query.Encode(), nil, &page); err != nil {
			return nil, err
		}
		all = append(all, page.Entries...)
		if page.Next == "" || len(all) == most {
			return all, nil
		}
		query.Set("after", page.Next)
	}
}
