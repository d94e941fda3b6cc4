package main

import (
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

type groupJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	sectionsJSON
}

// A namedGroupJSON is a group with the names of what its rules name.
type namedGroupJSON struct {
	Group groupJSON         `json:"group"`
	Names map[string]string `json:"names"`
}

func groupCommand(env environ) *cobra.Command {
	return parent("group", "Name sets of people, for rules on who may log in",
		groupListCommand(env), groupShowCommand(env), groupAddCommand(env), groupSetCommand(env),
		removeCommand(env, "group", "NAME", "/groups/", "Remove a group that no rule names", completeGroups(env)))
}

func groupListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List groups, which rules can name", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			groups, names, err := listNamed[groupJSON](cmd.Context(), c, "/groups", "groups", nil)
			if err != nil {
				return err
			}
			return showTable(cmd, groups, "NAME WHO ID", func(g groupJSON) []string { return []string{g.Name, g.text(names), g.ID} })
		}),
	}
}

func groupShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a group", Args: exactly(1), ValidArgsFunction: completeGroups(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			return showGroup(cmd, c, args[0])
		}),
	}
}

// showGroup shows a group as it is on the server.
func showGroup(cmd *cobra.Command, c *client, name string) error {
	var g namedGroupJSON
	if err := c.call(cmd.Context(), http.MethodGet, "/groups/"+url.PathEscape(name), nil, &g); err != nil {
		return err
	}
	return show(cmd, g.Group, func(w io.Writer) error {
		return fields(w, "name", g.Group.Name, "id", g.Group.ID, "who", g.Group.text(g.Names))
	})
}

func groupAddCommand(env environ) *cobra.Command {
	var f ruleFlags
	cmd := &cobra.Command{
		Use: "add NAME --include RULE [--require RULE] [--exclude RULE]", Short: "Add a group",
		Long: `Add a group: who matches any rule of --include, all of --require and none of --exclude
is in it. A policy, or another group, names it as group:NAME.`,
		Example: `  keyturn group add ops --include user:alice --include email_domain:ops.example.com
  keyturn group add trusted --include group:ops --require ip_list:office`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := newBody(cmd)
			in.fields["name"] = args[0]
			f.into(in)
			var g groupJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/groups", in.fields, &g); err != nil {
				return err
			}
			return showGroup(cmd, c, g.ID)
		}),
	}
	f.on(cmd)
	require(cmd, "include")
	return cmd
}

func groupSetCommand(env environ) *cobra.Command {
	var f ruleFlags
	var name string
	cmd := &cobra.Command{
		Use: "set NAME [--name NAME] [--include RULE ...] [--require RULE ...] [--exclude RULE ...]", Short: "Change a group",
		Long: `Change a group. What is not given stays; rules that are given take the place of all of
their section, and '' empties it.`,
		Example: `  keyturn group set ops --include user:alice --include user:bob --require ''`,
		Args:    changing, ValidArgsFunction: completeGroups(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := newBody(cmd)
			in.say("name", "name", name)
			f.into(in)
			var g groupJSON
			if err := c.call(cmd.Context(), http.MethodPatch, "/groups/"+url.PathEscape(args[0]), in.fields, &g); err != nil {
				return err
			}
			return showGroup(cmd, c, g.ID)
		}),
	}
	f.on(cmd)
	cmd.Flags().StringVar(&name, "name", "", "what it is called from now on")
	return cmd
}

func completeGroups(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[groupJSON]("/groups", "groups", nil), func(g groupJSON) string { return g.Name + "\t" + plain(g.text(nil)) })
	}
}

type ipListJSON struct {
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Addresses []string `json:"addresses"`
}

func (l ipListJSON) show(cmd *cobra.Command) error {
	return show(cmd, l, func(w io.Writer) error {
		return fields(w, "name", l.Name, "id", l.ID, "addresses", strings.Join(l.Addresses, " "))
	})
}

func ipListCommand(env environ) *cobra.Command {
	return parent("ip-list", "Name sets of networks, for rules on who may log in",
		ipListListCommand(env), ipListShowCommand(env), ipListAddCommand(env), ipListSetCommand(env),
		removeCommand(env, "list", "NAME", "/ip-lists/", "Remove a list of networks that no rule names", completeIPLists(env)))
}

func ipListListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the lists of networks that rules can name", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			lists, err := list[ipListJSON](cmd.Context(), c, "/ip-lists", "ip_lists", nil)
			if err != nil {
				return err
			}
			return showTable(cmd, lists, "NAME ADDRESSES ID", func(l ipListJSON) []string { return []string{l.Name, strings.Join(l.Addresses, " "), l.ID} })
		}),
	}
}

func ipListShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a list of networks", Args: exactly(1), ValidArgsFunction: completeIPLists(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var l ipListJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/ip-lists/"+url.PathEscape(args[0]), nil, &l); err != nil {
				return err
			}
			return l.show(cmd)
		}),
	}
}

func ipListAddCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "add NAME NETWORK ...", Short: "Add a list of networks, which rules name as ip_list:NAME",
		Example: "  keyturn ip-list add office 192.0.2.0/24 2001:db8::/48", Args: atLeast(2),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var l ipListJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/ip-lists", map[string]any{"name": args[0], "addresses": args[1:]}, &l); err != nil {
				return err
			}
			return l.show(cmd)
		}),
	}
}

func ipListSetCommand(env environ) *cobra.Command {
	var name string
	var addresses []string
	cmd := &cobra.Command{
		Use: "set NAME [--name NAME] [--address NETWORK ...]", Short: "Change a list of networks",
		Long: `Change a list of networks. What is not given stays; networks that are given take the
place of all that it has, and '' empties it.`,
		Example: "  keyturn ip-list set office --address 192.0.2.0/24 --address 198.51.100.7",
		Args:    changing, ValidArgsFunction: completeIPLists(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := newBody(cmd)
			in.say("name", "name", name)
			in.list("addresses", "address", addresses)
			var l ipListJSON
			if err := c.call(cmd.Context(), http.MethodPatch, "/ip-lists/"+url.PathEscape(args[0]), in.fields, &l); err != nil {
				return err
			}
			return l.show(cmd)
		}),
	}
	cmd.Flags().StringVar(&name, "name", "", "what it is called from now on")
	cmd.Flags().StringArrayVar(&addresses, "address", nil, "an address, or a network such as 192.0.2.0/24; several if repeated")
	return cmd
}

func completeIPLists(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[ipListJSON]("/ip-lists", "ip_lists", nil), func(l ipListJSON) string { return l.Name + "\t" + plain(strings.Join(l.Addresses, " ")) })
	}
}
