package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// A namedPolicyJSON is a policy with the names of what its rules name.
type namedPolicyJSON struct {
	Policy struct {
		ID           string `json:"id"`
		Reusable     bool   `json:"reusable"`
		Applications int    `json:"applications"`
		Name         string `json:"name"`
		Precedence   int    `json:"precedence,omitempty"`
		Decision     string `json:"decision,omitempty"`
		sectionsJSON
		Logins     []string `json:"logins,omitempty"`
		EmailAlias *bool    `json:"email_alias,omitempty"`
	} `json:"policy"`
	Names map[string]string `json:"names"`
}

// showPolicy shows a policy as it is on the server.
func showPolicy(cmd *cobra.Command, c *client, id string) error {
	var p namedPolicyJSON
	if err := c.call(cmd.Context(), http.MethodGet, "/policies/"+url.PathEscape(id), nil, &p); err != nil {
		return err
	}
	return show(cmd, p.Policy, func(w io.Writer) error {
		of := "of one application"
		if p.Policy.Reusable {
			of = fmt.Sprintf("reusable: %d applications have it", p.Policy.Applications)
		}
		as := policyJSON{Logins: p.Policy.Logins, EmailAlias: p.Policy.EmailAlias != nil && *p.Policy.EmailAlias}.as()
		return fields(w, "name", p.Policy.Name, "id", p.Policy.ID, "decision", p.Policy.Decision, "who", p.Policy.text(p.Names), "logins", as, "use", of)
	})
}

func policyShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a policy", Args: exactly(1), ValidArgsFunction: completePolicies(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error { return showPolicy(cmd, c, args[0]) }),
	}
}

// policyFlags are what add and set have in common.
type policyFlags struct {
	ruleFlags
	decision   string
	logins     []string
	emailAlias bool
	precedence int
}

var policyDecisions = []string{"allow", "non_identity", "deny", "bypass"}

func (f *policyFlags) on(cmd *cobra.Command) {
	f.ruleFlags.on(cmd)
	cmd.Flags().StringVar(&f.decision, "decision", "allow", `"allow", "non_identity" for machines, "deny" or "bypass"`)
	cmd.Flags().StringArrayVar(&f.logins, "login", nil, "an account on hosts as which it lets in; several if repeated")
	cmd.Flags().BoolVar(&f.emailAlias, "email-alias", false, "let people in as what stands before the @ of their address, too")
	cmd.Flags().IntVar(&f.precedence, "precedence", 0, "its place among the policies of the application, the least first")
	completeWords(cmd, "decision", policyDecisions...)
}

func (f *policyFlags) into(b body) {
	f.ruleFlags.into(b)
	b.say("decision", "decision", f.decision)
	b.say("precedence", "precedence", f.precedence)
	b.say("email_alias", "email-alias", f.emailAlias)
	b.list("logins", "login", f.logins)
}

func policyAddCommand(env environ) *cobra.Command {
	var f policyFlags
	var application string
	cmd := &cobra.Command{
		Use: "add NAME [--application NAME] --include RULE [--login LOGIN ...]", Short: "Add a policy to an application, or one that many can have",
		Long: `Add a policy: it applies to who matches any rule of --include, all of --require and none
of --exclude, and lets them in as the accounts of --login. Without --application it is
reusable: "keyturn policy use" gives it to applications.`,
		Example: `  keyturn policy add ops --application 'web servers' --include group:ops --require auth_method:mfa --login deploy
  keyturn policy add break-glass --include user:alice --login root`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := newBody(cmd)
			in.fields["name"] = args[0]
			f.into(in)
			path := "/policies"
			if application != "" {
				path = "/applications/" + url.PathEscape(application) + "/policies"
			}
			var p policyJSON
			if err := c.call(cmd.Context(), http.MethodPost, path, in.fields, &p); err != nil {
				return err
			}
			return showPolicy(cmd, c, p.ID)
		}),
	}
	f.on(cmd)
	cmd.Flags().Lookup("precedence").Usage += " (default behind all others)"
	cmd.Flags().StringVar(&application, "application", "", "name or id of the application that it is for (default: any that is given it)")
	require(cmd, "include")
	filled(cmd, "login", "application")
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	return cmd
}

func policySetCommand(env environ) *cobra.Command {
	var f policyFlags
	var name string
	cmd := &cobra.Command{
		Use: "set ID [--name NAME] [--include RULE ...] [--login LOGIN ...]", Short: "Change a policy",
		Long: `Change a policy, for all applications that have it. What is not given stays; rules and
logins that are given take the place of all that it has of the kind, and '' of none.`,
		Example: `  keyturn policy set 2f8c7c5e-1c7f-4c39-8a0d-9b1f6f0f1c11 --login deploy --login www --exclude ''`,
		Args:    changing, ValidArgsFunction: completePolicies(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := newBody(cmd)
			in.say("name", "name", name)
			f.into(in)
			if err := c.call(cmd.Context(), http.MethodPatch, "/policies/"+url.PathEscape(args[0]), in.fields, nil); err != nil {
				return err
			}
			return showPolicy(cmd, c, args[0])
		}),
	}
	f.on(cmd)
	cmd.Flags().Lookup("decision").DefValue = "" // what is not given stays
	cmd.Flags().StringVar(&name, "name", "", "what it is called from now on")
	return cmd
}

func policyUseCommand(env environ) *cobra.Command {
	var application string
	var precedence int
	cmd := &cobra.Command{
		Use: "use ID --application NAME [--precedence N]", Short: "Give an application a reusable policy, or another place to it", Args: exactly(1), ValidArgsFunction: completeReusable(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			body := map[string]int{}
			if precedence > 0 {
				body["precedence"] = precedence
			}
			var p policyJSON
			if err := c.call(cmd.Context(), http.MethodPut, usedBy(application, args[0]), body, &p); err != nil {
				return err
			}
			return showLine(cmd, p, "%s has policy %s, with the precedence %d\n", plain(application), plain(p.Name), p.Precedence)
		}),
	}
	cmd.Flags().StringVar(&application, "application", "", "name or id of the application")
	cmd.Flags().IntVar(&precedence, "precedence", 0, "its place among the policies of the application, the least first (default behind all others)")
	require(cmd, "application")
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	return cmd
}

func policyUnuseCommand(env environ) *cobra.Command {
	var application string
	cmd := &cobra.Command{
		Use: "unuse ID --application NAME", Short: "Take a reusable policy away from an application", Args: exactly(1), ValidArgsFunction: completeReusable(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, usedBy(application, args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%s has policy %s no more\n", plain(application), plain(args[0]))
		}),
	}
	cmd.Flags().StringVar(&application, "application", "", "name or id of the application")
	require(cmd, "application")
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	return cmd
}

// usedBy is the path of a reusable policy as one of an application's.
func usedBy(application, id string) string {
	return "/applications/" + url.PathEscape(application) + "/policies/" + url.PathEscape(id)
}
