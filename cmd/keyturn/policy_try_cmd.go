package main

import (
	"fmt"
	"io"
	"net/http"

	"github.com/spf13/cobra"
)

type triedUserJSON struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Email    string `json:"email,omitempty"`
	Approved bool   `json:"approved"`
}

// A policyTrialJSON is what came of trying policies on all users.
type policyTrialJSON struct {
	ID       string          `json:"id"`
	Users    int             `json:"users"`
	Approved int             `json:"approved"`
	More     bool            `json:"more"`
	List     []triedUserJSON `json:"list"`
}

// A triedPolicy is a policy that is there, by its id, or one that is not there yet.
type triedPolicy struct {
	ID      string   `json:"id,omitempty"`
	Name    string   `json:"name,omitempty"`
	Include []string `json:"include,omitempty"`
	Require []string `json:"require,omitempty"`
	Exclude []string `json:"exclude,omitempty"`
}

func policyTryCommand(env environ) *cobra.Command {
	var fresh ruleFlags
	var refused bool
	cmd := &cobra.Command{
		Use: "try [ID ...] [--include RULE ...]", Short: "List the users whom policies would let in",
		Long: `Try policies on every user that there is, and list whom they would let in: policies
that are there, by their ids and in this order, or one that is not, by its rules, before
it is written. Hosts and accounts on them are not looked at; nothing is changed.

What is known of a user is what was known at the last login: rules on where somebody
comes from let nobody in here.`,
		Example: `  keyturn policy try --include email_domain:example.com --exclude group:contractors
  keyturn policy try 2f8c7c5e-1c7f-4c39-8a0d-9b1f6f0f1c11 --refused`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 && len(fresh.given.Include) == 0 {
				return &usageError{cmd.CommandPath(), fmt.Errorf("name policies, or whom one would let in by --include")}
			}
			return nil
		},
		ValidArgsFunction: completePolicies(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var policies []triedPolicy
			for _, id := range args {
				policies = append(policies, triedPolicy{ID: id})
			}
			if len(fresh.given.Include) > 0 {
				rules := fresh.given
				policies = append(policies, triedPolicy{Name: "tried", Include: rules.Include, Require: rules.Require, Exclude: rules.Exclude})
			}
			trial, err := tryPolicies(cmd, c, policies, refused)
			if err != nil {
				return err
			}
			return show(cmd, trial, func(w io.Writer) error {
				rows := make([][]string, len(trial.List))
				for i, u := range trial.List {
					rows[i] = []string{u.Name, u.Email, u.ID}
				}
				if err := table(w, "USER EMAIL ID", rows); err != nil {
					return err
				}
				of := fmt.Sprintf("%d users", trial.Users)
				if trial.More {
					of = fmt.Sprintf("the first %d users", trial.Users)
				}
				_, err := fmt.Fprintf(w, "%d of %s would be let in\n", trial.Approved, of)
				return err
			})
		}),
	}
	fresh.on(cmd)
	cmd.Flags().BoolVar(&refused, "refused", false, "list those whom the policies would not let in")
	return cmd
}

// tryPolicies has the server try policies on all users.
func tryPolicies(cmd *cobra.Command, c *client, policies []triedPolicy, refused bool) (t policyTrialJSON, err error) {
	if err := c.call(cmd.Context(), http.MethodPost, "/policy-tests", map[string]any{"policies": policies}, &t); err != nil {
		return t, err
	}
	at := "/policy-tests/" + t.ID
	if err := c.call(cmd.Context(), http.MethodGet, at, nil, &t); err != nil {
		return t, err
	}
	t.List, err = list[triedUserJSON](cmd.Context(), c, at+"/users", "users", given("approved", fmt.Sprint(!refused)))
	return t, err
}
