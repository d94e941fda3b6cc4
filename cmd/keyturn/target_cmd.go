package main

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type targetJSON struct {
	ID         string              `json:"id"`
	Host       string              `json:"host"`
	Hostname   string              `json:"hostname"`
	Addresses  []targetAddressJSON `json:"addresses"`
	Tags       map[string]string   `json:"tags"`
	CreatedAt  *time.Time          `json:"created_at"`
	ModifiedAt *time.Time          `json:"modified_at"`
}

type targetAddressJSON struct {
	IP      string `json:"ip"`
	Network string `json:"network,omitempty"`
}

func (t targetJSON) ips() string {
	var list []string
	for _, a := range t.Addresses {
		list = append(list, a.IP)
	}
	return strings.Join(list, " ")
}

func (t targetJSON) tags() string {
	var list []string
	for _, name := range slices.Sorted(maps.Keys(t.Tags)) {
		list = append(list, name+"="+t.Tags[name])
	}
	return strings.Join(list, ", ")
}

func (t targetJSON) show(cmd *cobra.Command) error {
	return show(cmd, t, func(w io.Writer) error {
		pairs := []string{"host", t.Host, "id", t.ID, "hostname", t.Hostname}
		for _, a := range t.Addresses {
			pairs = append(pairs, "address", a.IP+" in network "+a.Network)
		}
		return fields(w, append(pairs, "tags", t.tags(), "created", when(t.CreatedAt), "modified", when(t.ModifiedAt))...)
	})
}

func targetCommand(env environ) *cobra.Command {
	return parent("target", "Say by which names, addresses and tags access rules know hosts",
		targetListCommand(env), targetShowCommand(env), targetAddCommand(env), targetSetCommand(env), targetRemoveCommand(env))
}

func targetListCommand(env environ) *cobra.Command {
	texts := map[string]*string{}
	var ips, tags []string
	cmd := &cobra.Command{
		Use: "list", Short: "List targets: hosts as access rules know them", Args: noArgs,
		Example: "  keyturn target list --tag env=prod --within 10.0.0.0/8\n  keyturn target list --contains web --created-after 2026-11-01T00:00:00Z",
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			query := url.Values{}
			for name, values := range map[string][]string{"ip": ips, "tag": tags} {
				if len(values) > 0 {
					query.Set(name, strings.Join(values, ","))
				}
			}
			for name, text := range texts {
				if *text != "" {
					query.Set(name, *text)
				}
			}
			all, err := list[targetJSON](cmd.Context(), c, "/targets", "targets", query)
			if err != nil {
				return err
			}
			return show(cmd, all, func(w io.Writer) error {
				rows := make([][]string, len(all))
				for i, t := range all {
					rows[i] = []string{t.Host, t.Hostname, t.ips(), t.tags()}
				}
				return table(w, "HOST HOSTNAME ADDRESSES TAGS", rows)
			})
		}),
	}
	for _, f := range []struct{ name, usage string }{
		{"hostname", "only targets of this hostname"},
		{"contains", "only targets with this in the hostname"},
		{"network", "only targets in the virtual network of this id"},
		{"ip-like", "only targets with an address of this pattern, such as 10.0.*"},
		{"within", "only targets with an address in this network, such as 10.0.0.0/8"},
		{"created-after", "only targets that were made at this time or after it, as in RFC 3339"},
		{"created-before", "only targets that were made at this time or before it"},
		{"modified-after", "only targets that were changed at this time or after it"},
		{"modified-before", "only targets that were changed at this time or before it"},
	} {
		texts[strings.ReplaceAll(f.name, "-", "_")] = cmd.Flags().String(f.name, "", f.usage)
	}
	cmd.Flags().StringSliceVar(&ips, "ip", nil, "only targets with this address; several: with one of them")
	cmd.Flags().StringSliceVar(&tags, "tag", nil, "only targets with this tag, name=value; several: with all of them")
	return cmd
}

func targetShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show HOST", Short: "Show the target that a host is", Args: exactly(1), ValidArgsFunction: completeTargets(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var t targetJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/targets/"+url.PathEscape(args[0]), nil, &t); err != nil {
				return err
			}
			return t.show(cmd)
		}),
	}
}

// targetFlags are what add and set have in common.
type targetFlags struct {
	ips, tags []string
	network   string
}

func (f *targetFlags) on(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.ips, "ip", nil, "an address; one of IPv4 and one of IPv6 at the most")
	cmd.Flags().StringVar(&f.network, "network", "", "the id of the virtual network that --ip is in; the account's own if not given")
	cmd.Flags().StringArrayVar(&f.tags, "tag", nil, "a tag, name=value; several if repeated")
}

// into writes what is given into the body of a request.
func (f *targetFlags) into(cmd *cobra.Command, body map[string]any) error {
	if f.network != "" && len(f.ips) == 0 {
		return &usageError{cmd.CommandPath(), fmt.Errorf("--network says where --ip is, which is not given")}
	}
	var addresses []targetAddressJSON
	for _, ip := range f.ips {
		addresses = append(addresses, targetAddressJSON{ip, f.network})
	}
	if len(addresses) > 0 {
		body["addresses"] = addresses
	}
	tags := map[string]string{}
	for _, tag := range f.tags {
		name, value, ok := strings.Cut(tag, "=")
		if !ok {
			return &usageError{cmd.CommandPath(), fmt.Errorf("tag %q is not of the form name=value", tag)}
		}
		tags[name] = value
	}
	if len(tags) > 0 {
		body["tags"] = tags
	}
	return nil
}

func targetAddCommand(env environ) *cobra.Command {
	var f targetFlags
	cmd := &cobra.Command{
		Use:   "add HOSTNAME --ip ADDRESS [--ip ADDRESS] [--tag NAME=VALUE ...]",
		Short: "Make a target of the host at an address, or of one that is added with it",
		Long: `Make a target. Where a host was added at one of the addresses with "keyturn host add",
on port 22 or the only one there, it is that host. Else a host is added that Keyturn
knows and never logs in to, until "keyturn host add" takes it in at that address, on whatever port.`,
		Example: "  keyturn target add web1 --ip 10.0.0.5 --tag env=prod",
		Args:    exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			body := map[string]any{"hostname": args[0]}
			if err := f.into(cmd, body); err != nil {
				return err
			}
			var t targetJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/targets", body, &t); err != nil {
				return err
			}
			return t.show(cmd)
		}),
	}
	f.on(cmd)
	require(cmd, "ip")
	return cmd
}

func targetSetCommand(env environ) *cobra.Command {
	var f targetFlags
	var hostname string
	var untag []string
	cmd := &cobra.Command{
		Use:   "set HOST [--hostname HOSTNAME] [--ip ADDRESS ...] [--tag NAME=VALUE ...] [--untag NAME ...]",
		Short: "Change the target that a host is",
		Long: `Change the target that a host is. What is not given stays. Addresses take the place of
those that it has; a host that was taken in stays at the one of them where it is.`,
		Example: "  keyturn target set web1 --tag env=prod --untag old",
		Args:    exactly(1), ValidArgsFunction: completeTargets(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			body := map[string]any{}
			if err := f.into(cmd, body); err != nil {
				return err
			}
			if hostname != "" {
				body["hostname"] = hostname
			}
			if len(untag) > 0 {
				body["untag"] = untag
			}
			if len(body) == 0 {
				return &usageError{cmd.CommandPath(), fmt.Errorf("nothing to change is given")}
			}
			var t targetJSON
			if err := c.call(cmd.Context(), http.MethodPatch, "/targets/"+url.PathEscape(args[0]), body, &t); err != nil {
				return err
			}
			return t.show(cmd)
		}),
	}
	f.on(cmd)
	cmd.Flags().StringVar(&hostname, "hostname", "", "what it is called as a target")
	cmd.Flags().StringArrayVar(&untag, "untag", nil, "the name of a tag to take away; several if repeated")
	return cmd
}

func targetRemoveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "remove HOST", Short: "Have a host be no target; one that was never taken in is forgotten", Args: exactly(1), ValidArgsFunction: completeTargets(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			if err := c.call(cmd.Context(), http.MethodDelete, "/targets/"+url.PathEscape(args[0]), nil, nil); err != nil {
				return err
			}
			return show(cmd, map[string]string{"removed": args[0]}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is no target any more\n", plain(args[0]))
				return err
			})
		}),
	}
}

func completeTargets(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[targetJSON]("/targets", "targets", nil), func(t targetJSON) string { return t.Host + "\t" + t.ips() })
	}
}
