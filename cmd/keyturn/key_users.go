package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// keyUsersJSON says who may have the server sign with a key.
type keyUsersJSON struct {
	Limited bool     `json:"limited"`
	Users   []string `json:"users"`
}

func (u keyUsersJSON) print(w io.Writer) error {
	who := strings.Join(u.Users, ", ")
	switch {
	case !u.Limited:
		who = "everybody with the permission Keys Use"
	case len(u.Users) == 0:
		who = "nobody"
	}
	_, err := fmt.Fprintln(w, plain(who))
	return err
}

func keyUsersCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "users UUID", Short: "Show who may use a key through keyturn agent", Args: exactly(1), ValidArgsFunction: completeKeys(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out keyUsersJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/keys/"+url.PathEscape(args[0])+"/users", nil, &out); err != nil {
				return err
			}
			return show(cmd, out, out.print)
		}),
	}
}

func keyAllowCommand(env environ) *cobra.Command {
	var users []string
	var everybody bool
	cmd := &cobra.Command{
		Use: "allow UUID (--user NAME ... | --everybody)", Short: "Say which users may use a key through keyturn agent",
		Long: `Say which users may have the server sign with a key, as "keyturn agent" does. Until
the first is named, everybody with the permission Keys Use may, unless the key opens
hosts for Keyturn itself: such a key signs for nobody who is not named. --everybody
lifts the limit. A rotation does not change who may.

It counts from the next signature on, for agents that run, too.`,
		Example: "  keyturn key allow 7f1c... --user alice --user bob\n  keyturn key allow 7f1c... --everybody",
		Args:    exactly(1), ValidArgsFunction: completeKeys(env, "active"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			if everybody == (len(users) > 0) {
				return &usageError{cmd.CommandPath(), errors.New("either --user or --everybody is to be given")}
			}
			return setKeyUsers(cmd, c, args[0], map[string]any{"allow": notNil(users), "everybody": everybody})
		}),
	}
	cmd.Flags().StringArrayVar(&users, "user", nil, "a user who may, by name; may be repeated")
	cmd.Flags().BoolVar(&everybody, "everybody", false, "everybody with the permission Keys Use may")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	return cmd
}

func keyDisallowCommand(env environ) *cobra.Command {
	var users []string
	cmd := &cobra.Command{
		Use: "disallow UUID --user NAME ...", Short: "Say which users may not use a key any more",
		Long: `Take users off those whom a key is limited to. A key whose last user is taken off
signs for nobody. It counts from the next signature on, for agents that run, too.`,
		Example: "  keyturn key disallow 7f1c... --user alice",
		Args:    exactly(1), ValidArgsFunction: completeKeys(env, "active"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			return setKeyUsers(cmd, c, args[0], map[string]any{"disallow": notNil(users)})
		}),
	}
	cmd.Flags().StringArrayVar(&users, "user", nil, "a user who may not, by name; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	require(cmd, "user")
	return cmd
}

func setKeyUsers(cmd *cobra.Command, c *client, key string, in map[string]any) error {
	var out keyUsersJSON
	if err := c.call(cmd.Context(), http.MethodPost, "/keys/"+url.PathEscape(key)+"/users", in, &out); err != nil {
		return err
	}
	return show(cmd, out, out.print)
}
