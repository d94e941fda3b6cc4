package main

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type approvalJSON struct {
	ID         string     `json:"id"`
	Subject    string     `json:"subject"`
	Value      string     `json:"value,omitempty"`
	AskedBy    string     `json:"asked_by"`
	AskedAt    *time.Time `json:"asked_at"`
	Until      *time.Time `json:"until"`
	ApprovedBy string     `json:"approved_by,omitempty"`
	ApprovedAt *time.Time `json:"approved_at,omitempty"`
}

func approvalCommand(env environ) *cobra.Command {
	listing := &cobra.Command{
		Use: "list", Short: "List what waits for the approval of another user, and what was approved and not yet done", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			approvals, err := whole[approvalJSON](cmd.Context(), c, "/approvals", "approvals")
			if err != nil {
				return err
			}
			return showTable(cmd, approvals, "ID WHAT ASKED-BY ASKED UNTIL NEXT", func(a approvalJSON) []string {
				return []string{a.ID, a.what(), a.AskedBy, when(a.AskedAt), when(a.Until), a.next()}
			})
		}),
	}
	refuse := &cobra.Command{
		Use: "refuse ID", Short: "End what waits for approval, or an approval that was not made use of", Args: exactly(1),
		Long: `End a request that "keyturn approval list" lists, or an approval that was not made
use of. A run that waits is taken back, with nothing begun. It takes the permission
that to approve does, and whoever asked may refuse, too. It can be asked for anew.`,
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var a approvalJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/approvals/"+url.PathEscape(args[0])+"/refuse", nil, &a); err != nil {
				return err
			}
			return showLine(cmd, a, "refused: %s\n", a.what())
		}),
	}
	return parent("approval", "See and refuse what takes the approval of another user", listing, refuse)
}

// what says what is asked for.
func (a approvalJSON) what() string {
	kind, of, _ := strings.Cut(a.Subject, ":")
	switch kind {
	case "key":
		return "reveal key " + of
	case "back":
		return "take run " + of + " back by force"
	case "setting":
		return "set " + of + " to " + a.Value
	}
	return kind + " " + of
}

// next is the command that comes next.
func (a approvalJSON) next() string {
	kind, of, _ := strings.Cut(a.Subject, ":")
	switch {
	case a.ApprovedAt != nil:
		return "approved"
	case kind == "key":
		return "keyturn key approve-reveal " + of + " " + a.AskedBy
	case kind == "back":
		return "keyturn run approve-back " + of + " " + a.AskedBy
	case kind == "setting":
		return "keyturn settings approve " + of
	}
	return "keyturn run approve " + of
}

func runApproveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "approve RUN", Short: "Let a run begin that another user asked for",
		Long: `Let a run begin that another user asked for. With the setting rotation.approval on,
rotations and retirements wait for that with nothing begun: "keyturn run show" says
what they are going to do, and where. Who asked cannot approve, in person or by a
token; what a machine asked for takes two users. The plan is held against the inventory again: where the key was found in more
places since, it is refused.

A request that nobody approves of lapses after 7 days; "keyturn run back" withdraws it.`,
		Args: exactly(1), ValidArgsFunction: completeOpenRuns(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			return c.ask(cmd, args[0], "approve", "approved")
		}),
	}
}

func runApproveBackCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "approve-back RUN USER", Short: "Approve that a user who asked for it brings back the compromised keys of a run",
		Long: `Approve that a user who asked for it by "keyturn rollback --force" brings back the
compromised keys that a run took out of use: once, within an hour. Who asked cannot
approve. All other ways back wait for nobody.`,
		Args: exactly(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return completeRuns(env)(cmd, args, begun)
			}
			return completeUsers(env)(cmd, args, begun)
		},
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var a approvalJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/runs/"+url.PathEscape(args[0])+"/back/approve", map[string]string{"user": args[1]}, &a); err != nil {
				return err
			}
			return showLine(cmd, a, "%s may take run %s back once, until %s\n", a.AskedBy, args[0], when(a.Until))
		}),
	}
}

func settingsApproveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "approve KEY", Short: "Change a setting as another user asked for", Args: exactly(1),
		Long: `Change a setting as another user asked for: that rotation.approval or
key.reveal-approval is switched off is for two users, because one of them could
otherwise do alone what they are there to prevent.`,
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var s settingJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/settings/"+url.PathEscape(args[0])+"/approve", nil, &s); err != nil {
				return err
			}
			return showLine(cmd, s, "%s = %s\n", s.Name, s.Value)
		}),
	}
}
