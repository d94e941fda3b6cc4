package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type approvalJSON struct {
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
			return show(cmd, approvals, func(w io.Writer) error {
				var rows [][]string
				for _, a := range approvals {
					rows = append(rows, []string{a.what(), a.AskedBy, when(a.AskedAt), when(a.Until), a.next()})
				}
				return table(w, "WHAT ASKED-BY ASKED UNTIL NEXT", rows)
			})
		}),
	}
	return parent("approval", "See what takes the approval of another user", listing)
}

// what says what is asked for.
func (a approvalJSON) what() string {
	kind, of, _ := strings.Cut(a.Subject, ":")
	switch kind {
	case "key":
		return "reveal key " + of
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
token. The plan is held against the inventory again: where the key was found in more
places since, it is refused.

A request that nobody approves of lapses after 7 days; "keyturn run back" withdraws it.`,
		Args: exactly(1), ValidArgsFunction: completeOpenRuns(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			return c.ask(cmd, args[0], "approve")
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
			return show(cmd, s, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s = %s\n", s.Name, s.Value)
				return err
			})
		}),
	}
}
