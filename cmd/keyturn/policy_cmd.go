package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

type applicationJSON struct {
	ID        string            `json:"id"`
	Name      string            `json:"name"`
	Type      string            `json:"type"`
	Domain    string            `json:"domain"`
	Criteria  []criterionJSON   `json:"criteria"`
	Providers []string          `json:"providers"`
	Policies  []policyJSON      `json:"policies"`
	Names     map[string]string `json:"names"`
}

type criterionJSON struct {
	Protocol string          `json:"protocol,omitempty"`
	Port     int             `json:"port"`
	Include  attributesJSON  `json:"include"`
	Require  *attributesJSON `json:"require,omitempty"`
	Exclude  *attributesJSON `json:"exclude,omitempty"`
}

type attributesJSON struct {
	Hostnames []string            `json:"hostnames,omitempty"`
	Tags      map[string][]string `json:"tags,omitempty"`
}

type policyJSON struct {
	ID           string   `json:"id"`
	Name         string   `json:"name"`
	Application  string   `json:"application,omitempty"`
	Hosts        []string `json:"hosts"`
	Reusable     bool     `json:"reusable"`
	Precedence   int      `json:"precedence,omitempty"`
	Decision     string   `json:"decision"`
	Include      []string `json:"include"`
	Require      []string `json:"require"`
	Exclude      []string `json:"exclude"`
	Logins       []string `json:"logins"`
	EmailAlias   bool     `json:"email_alias"`
	Applications int      `json:"applications"`
}

type loginDecisionJSON struct {
	Allowed     bool   `json:"allowed"`
	Why         string `json:"why"`
	Application string `json:"application,omitempty"`
	Policy      string `json:"policy,omitempty"`
	Section     string `json:"section,omitempty"`
	Rule        string `json:"rule,omitempty"`
}

func policyCommand(env environ) *cobra.Command {
	return parent("policy", "Say who may log in where, and ask what was said",
		policyListCommand(env), policyShowCommand(env), policyAllowCommand(env), policyAddCommand(env), policySetCommand(env), policyUseCommand(env), policyUnuseCommand(env),
		policyTestCommand(env), policyTryCommand(env),
		removeCommand(env, "policy", "ID", "/policies/", "Remove a policy: whom it alone let in gets no more certificates", completePolicies(env)))
}

func policyListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List policies: who may log in where, as what", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			rows, err := policies(cmd.Context(), c)
			if err != nil {
				return err
			}
			return show(cmd, rows, func(w io.Writer) error {
				var cells [][]string
				for _, p := range rows {
					cells = append(cells, []string{p.ID, p.Name, p.Decision, sectionsJSON{p.Include, p.Require, p.Exclude}.text(nil), p.as(), strings.Join(p.Hosts, " or "), p.Application})
				}
				return table(w, "ID POLICY DECISION WHO LOGINS HOSTS APPLICATION", cells)
			})
		}),
	}
}

// policies returns all policies: of each application in their order, and the reusable
// ones that no application has. What rules name by an id is called by its name.
func policies(ctx context.Context, c *client) ([]policyJSON, error) {
	applications, err := list[applicationJSON](ctx, c, "/applications", "applications", nil)
	if err != nil {
		return nil, err
	}
	reusable, names, err := listNamed[policyJSON](ctx, c, "/policies", "policies", nil)
	if err != nil {
		return nil, err
	}
	rows := []policyJSON{}
	for _, a := range applications {
		for _, p := range a.Policies {
			p.Application, p.Hosts = a.Name, a.hosts()
			rows = append(rows, p.named(a.Names))
		}
	}
	for _, p := range reusable {
		if p.Hosts = []string{}; p.Applications == 0 {
			rows = append(rows, p.named(names))
		}
	}
	return rows, nil
}

// named returns p with what its rules name by ids called by names.
func (p policyJSON) named(names map[string]string) policyJSON {
	for _, section := range [][]string{p.Include, p.Require, p.Exclude} {
		for i, text := range section {
			section[i] = withName(text, names)
		}
	}
	return p
}

// withName returns a rule with the name of what it names by its id.
func withName(rule string, names map[string]string) string {
	kind, id, _ := strings.Cut(rule, ":")
	if name, ok := names[id]; ok && slices.Contains([]string{"user", "group", "ip_list"}, kind) {
		return kind + ":" + name
	}
	return rule
}

// hosts says which hosts an application stands for.
func (a applicationJSON) hosts() []string {
	hosts := []string{}
	if a.Domain != "" {
		hosts = append(hosts, a.Domain)
	}
	for _, c := range a.Criteria {
		text := c.Include.text(" or ")
		if c.Require != nil {
			text += ", with " + c.Require.text(" and ")
		}
		if c.Exclude != nil {
			text += ", without " + c.Exclude.text(" or ")
		}
		hosts = append(hosts, fmt.Sprintf("%s at port %d", text, c.Port))
	}
	return hosts
}

func (a attributesJSON) text(between string) string {
	var all []string
	if len(a.Hostnames) > 0 {
		all = append(all, strings.Join(a.Hostnames, " or "))
	}
	for _, key := range slices.Sorted(maps.Keys(a.Tags)) {
		all = append(all, key+"="+strings.Join(a.Tags[key], "|"))
	}
	return strings.Join(all, between)
}

// as says as which logins a policy lets in.
func (p policyJSON) as() string {
	logins := p.Logins
	if p.EmailAlias {
		logins = append(logins[:len(logins):len(logins)], "(name in the address)")
	}
	return strings.Join(logins, " ")
}

func policyAllowCommand(env environ) *cobra.Command {
	var in struct {
		User  string `json:"user"`
		Host  string `json:"host"`
		Login string `json:"login"`
		Port  int    `json:"port,omitempty"`
	}
	var logins []string
	cmd := &cobra.Command{
		Use: "allow --user NAME --host PATTERN --login LOGIN ...", Short: "Let a user log in to hosts",
		Long: `Let a user log in to the host of a name, or to all hosts whose names a pattern
matches ("*" stands for any characters, "?" for one), as an account there. The user
has a policy of its own for those hosts from then on; saying it twice changes nothing.
"keyturn policy remove" takes it back.

Nobody may log in whom no policy lets in.`,
		Example: `  keyturn policy allow --user alice --host web1 --login deploy
  keyturn policy allow --user alice --host 'web*' --login deploy`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var p policyJSON
			for _, in.Login = range logins { // all are of one policy
				if err := c.call(cmd.Context(), http.MethodPost, "/logins/allow", in, &p); err != nil {
					return err
				}
			}
			return show(cmd, p, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s may log in to %s as %s, by policy %s\n", plain(in.User), plain(in.Host), plain(strings.Join(p.Logins, ", ")), p.ID)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&in.User, "user", "", "the user who may log in")
	cmd.Flags().StringVar(&in.Host, "host", "", "the host, or a pattern of names of hosts")
	cmd.Flags().StringArrayVar(&logins, "login", nil, "the account on the host; several if repeated")
	cmd.Flags().IntVar(&in.Port, "port", 0, "the port of the hosts' sshd (default that of the host of this name, or 22)")
	require(cmd, "user", "host", "login")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	_ = cmd.RegisterFlagCompletionFunc("host", completeHosts(env))
	return cmd
}

func policyTestCommand(env environ) *cobra.Command {
	var in struct {
		User        string `json:"user,omitempty"`
		Host        string `json:"host"`
		Login       string `json:"login"`
		Port        int    `json:"port,omitempty"`
		Source      string `json:"source,omitempty"`
		Application string `json:"application,omitempty"`
	}
	cmd := &cobra.Command{
		Use: "test --host NAME --login LOGIN [--user NAME]", Short: "Say whether a user may log in to a host, and why",
		Long: `Say whether a user may log in to a host as an account there, and which rule says so.
Where nothing lets the user in, it is the policy that came nearest to it that is named.

What is known of the user is what was known at the last login. A rule on the address
that a user comes from is one of which nobody can tell whether it holds, and so one
that does not help, unless --source says which it is to be.`,
		Example: `  keyturn policy test --user alice --host web1 --login deploy`,
		Args:    noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var d loginDecisionJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/logins/test", in, &d); err != nil {
				return err
			}
			return show(cmd, d, func(w io.Writer) error {
				answer := "no"
				if d.Allowed {
					answer = "yes"
				}
				_, err := fmt.Fprintf(w, "%s: %s\n", answer, plain(d.Why))
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&in.User, "user", "", "the user (default yourself)")
	cmd.Flags().StringVar(&in.Host, "host", "", "the host")
	cmd.Flags().StringVar(&in.Login, "login", "", "the account on the host")
	cmd.Flags().IntVar(&in.Port, "port", 0, "the port of the host's sshd (default that of its address, or 22)")
	cmd.Flags().StringVar(&in.Source, "source", "", "the address that the user comes from")
	cmd.Flags().StringVar(&in.Application, "application", "", "ask this application only, by id or name")
	require(cmd, "host", "login")
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	_ = cmd.RegisterFlagCompletionFunc("host", completeHosts(env))
	return cmd
}

func completePolicies(env environ) cobra.CompletionFunc { return completePoliciesOf(env, policies) }

// completeReusable completes policies that applications can share.
func completeReusable(env environ) cobra.CompletionFunc {
	return completePoliciesOf(env, func(ctx context.Context, c *client) ([]policyJSON, error) {
		all, err := policies(ctx, c)
		return slices.DeleteFunc(all, func(p policyJSON) bool { return !p.Reusable }), err
	})
}

func completePoliciesOf(env environ, list func(context.Context, *client) ([]policyJSON, error)) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, list, func(p policyJSON) string { return p.ID + "\t" + plain(p.Name+" "+strings.Join(p.Hosts, " or ")) })
	}
}
