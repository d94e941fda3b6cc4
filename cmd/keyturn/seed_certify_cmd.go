package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

type hostCertificateJSON struct {
	Host        string          `json:"host,omitempty"`
	HostID      string          `json:"host_id"`
	Name        string          `json:"name"`
	Seed        string          `json:"seed_id"`
	Presented   bool            `json:"presented"`
	Type        string          `json:"type"`
	Certificate certificateJSON `json:"certificate"`
}

func seedCertifyCommand(env environ) *cobra.Command {
	var ca string
	var all bool
	cmd := &cobra.Command{
		Use:   "certify [HOST... | --all] [--ca NAME]",
		Short: "Print host certificates for the keys by which hosts are known at the gateway",
		Long: `Print host certificates for the keys by which hosts, or without any the gateway
itself, are known at the gateway: for the keys that are presented, and for those
that are announced, which are presented next. They are lines of files, and public.
Hosts can be named by patterns, such as 'web*'; --all is every host, and the gateway.

A certificate is made when it is first asked for, and anew when half of its time is
over; until then it is the same one, so that who was interrupted goes on by asking
again. A client trusts it by the line that "keyturn known-hosts --authorities only"
prints. "keyturn seed rotate --compromised" revokes all that were made for keys of
before.`,
		Example: "  keyturn ca create hosts --purpose host\n  keyturn seed certify web1\n  keyturn seed certify --all > certificates",
		Args: func(cmd *cobra.Command, args []string) error {
			if all && len(args) > 0 {
				return &usageError{cmd.CommandPath(), errors.New("--all is every host: name none")}
			}
			return nil
		},
		ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			hosts, err := hostsToCertify(cmd.Context(), c, args, all)
			if err != nil {
				return err
			}
			return certifyHosts(cmd, c, hosts, ca)
		}),
	}
	cmd.Flags().StringVar(&ca, "ca", "", "the authority, by name or id, unless there is only one that signs for hosts")
	cmd.Flags().BoolVar(&all, "all", false, "every host, and the gateway itself")
	_ = cmd.RegisterFlagCompletionFunc("ca", completeAuthorities(env))
	return cmd
}

// hostsToCertify returns the hosts of names and patterns, each once; "" is the gateway.
func hostsToCertify(ctx context.Context, c *client, args []string, all bool) ([]string, error) {
	if all {
		args = []string{"", "*"}
	}
	if len(args) == 0 {
		return []string{""}, nil
	}
	var there []hostJSON
	var hosts []string
	seen := map[string]bool{}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			hosts = append(hosts, name)
		}
	}
	for _, arg := range args {
		if !strings.ContainsAny(arg, "*?") {
			add(arg)
			continue
		}
		if there == nil {
			var err error
			if there, err = list[hostJSON](ctx, c, "/hosts", "hosts", nil); err != nil {
				return nil, err
			}
		}
		before := len(hosts)
		for _, h := range there {
			matches, err := path.Match(arg, h.Name)
			if err != nil {
				return nil, trust.Errorf(trust.Invalid, "%q is no pattern of names of hosts: %w", arg, err)
			}
			if matches {
				add(h.Name)
			}
		}
		if len(hosts) == before && !all {
			return nil, trust.Errorf(trust.NotFound, "no host has a name of the pattern %q", arg).WithHint("keyturn host list")
		}
	}
	return hosts, nil
}

// certifyHosts prints the certificates of hosts, each as soon as it is there, and on a
// terminal how many have theirs.
func certifyHosts(cmd *cobra.Command, c *client, hosts []string, ca string) error {
	tty := terminal(cmd)
	all := []hostCertificateJSON{}
	for i, host := range hosts {
		if tty != nil && len(hosts) > 1 {
			fmt.Fprintf(tty, "\r\033[K%d of %d hosts", i, len(hosts))
		}
		var out struct {
			Certificates []hostCertificateJSON `json:"certificates"`
		}
		err := c.call(cmd.Context(), http.MethodPost, "/seed/certificates", map[string]any{"host": host, "authority": ca}, &out)
		if tty != nil && len(hosts) > 1 {
			fmt.Fprint(tty, "\r\033[K")
		}
		if err != nil {
			return err
		}
		if asJSON(cmd) {
			all = append(all, out.Certificates...)
			continue
		}
		for _, x := range out.Certificates {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), x.Certificate.Certificate, x.Name); err != nil {
				return err
			}
		}
	}
	if !asJSON(cmd) {
		return nil
	}
	return printJSON(cmd.OutOrStdout(), all)
}
