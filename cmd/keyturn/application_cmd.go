package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/cobra"
)

// An applicationBody is an application that is to be added.
type applicationBody struct {
	Name      string          `json:"name"`
	Type      string          `json:"type"`
	Domain    string          `json:"domain,omitempty"`
	Criteria  []criterionJSON `json:"criteria,omitempty"`
	Providers []string        `json:"providers,omitempty"`
}

func (a applicationJSON) show(cmd *cobra.Command) error {
	return show(cmd, a, func(w io.Writer) error {
		pairs := []string{"name", a.Name, "id", a.ID, "type", a.Type}
		for _, hosts := range a.hosts() {
			pairs = append(pairs, "hosts", hosts)
		}
		if err := fields(w, append(pairs, "providers", strings.Join(a.Providers, " "))...); err != nil {
			return err
		}
		if len(a.Policies) == 0 {
			return nil
		}
		rows := make([][]string, len(a.Policies))
		for i, p := range a.Policies {
			rows[i] = []string{fmt.Sprint(p.Precedence), p.Name, p.Decision, sectionsJSON{p.Include, p.Require, p.Exclude}.text(a.Names), p.as(), p.ID}
		}
		return table(w, "PRECEDENCE POLICY DECISION WHO LOGINS ID", rows)
	})
}

func applicationCommand(env environ) *cobra.Command {
	return parent("application", "Say for which hosts policies are: applications",
		applicationListCommand(env), applicationShowCommand(env), applicationAddCommand(env), applicationSetCommand(env),
		removeCommand(env, "application", "NAME", "/applications/", "Remove an application, its own policies and its authority, and revoke what it let", completeApplications(env)))
}

func applicationListCommand(env environ) *cobra.Command {
	var search string
	cmd := &cobra.Command{
		Use: "list", Short: "List applications: the hosts that policies are for", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := list[applicationJSON](cmd.Context(), c, "/applications", "applications", given("search", search))
			if err != nil {
				return err
			}
			return showTable(cmd, all, "NAME TYPE HOSTS POLICIES ID", func(a applicationJSON) []string {
				return []string{a.Name, a.Type, strings.Join(a.hosts(), "; or "), fmt.Sprint(len(a.Policies)), a.ID}
			})
		}),
	}
	cmd.Flags().StringVar(&search, "search", "", "only those with this in the name or the domain")
	return cmd
}

func applicationShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show an application, and its policies in the order in which they are asked", Args: exactly(1), ValidArgsFunction: completeApplications(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var a applicationJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/applications/"+url.PathEscape(args[0]), nil, &a); err != nil {
				return err
			}
			return a.show(cmd)
		}),
	}
}

// applicationFlags are what add and set have in common.
type applicationFlags struct {
	hosts, exceptHosts            []string
	tags, requireTags, exceptTags []string
	providers                     []string
	port                          int
}

func (f *applicationFlags) on(cmd *cobra.Command, env environ) {
	cmd.Flags().StringArrayVar(&f.hosts, "host", nil, `a hostname that it stands for, or a pattern with "*" and "?"; several if repeated`)
	cmd.Flags().StringArrayVar(&f.tags, "tag", nil, "a tag, name=value, of hosts that it stands for besides; several if repeated")
	cmd.Flags().StringArrayVar(&f.requireTags, "require-tag", nil, "a tag that all of these hosts have to have; several if repeated")
	cmd.Flags().StringArrayVar(&f.exceptHosts, "except-host", nil, "a hostname, or a pattern, that it does not stand for; several if repeated")
	cmd.Flags().StringArrayVar(&f.exceptTags, "except-tag", nil, "a tag of hosts that it does not stand for; several if repeated")
	cmd.Flags().IntVar(&f.port, "port", 22, "the port of the hosts' sshd")
	cmd.Flags().StringArrayVar(&f.providers, "provider", nil, "the id of an identity provider: who logged in by none of these is not let in; several if repeated")
	_ = cmd.RegisterFlagCompletionFunc("host", completeHosts(env))
}

// change says for which hosts an application stands from now on, of each kind that is
// given.
func (f *applicationFlags) change(cmd *cobra.Command) (map[string]any, error) {
	in := newBody(cmd)
	in.say("port", "port", f.port)
	in.list("hostnames", "host", f.hosts)
	in.list("except_hostnames", "except-host", f.exceptHosts)
	for _, tags := range []struct {
		field, flag string
		given       []string
	}{{"tags", "tag", f.tags}, {"require_tags", "require-tag", f.requireTags}, {"except_tags", "except-tag", f.exceptTags}} {
		values, err := tagValues(cmd, unlessEmpty(tags.given))
		if err != nil {
			return nil, err
		}
		in.say(tags.field, tags.flag, values)
	}
	return in.fields, nil
}

// sayHosts reports whether a command line says for which hosts an application stands.
func (f *applicationFlags) sayHosts(cmd *cobra.Command) bool {
	for _, name := range []string{"host", "tag", "require-tag", "except-host", "except-tag", "port"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// criterion reads for which hosts an application stands.
func (f *applicationFlags) criterion(cmd *cobra.Command) (c criterionJSON, err error) {
	c.Port = f.port
	c.Include.Hostnames = f.hosts
	if c.Include.Tags, err = tagValues(cmd, f.tags); err != nil {
		return c, err
	}
	required, err := tagValues(cmd, f.requireTags)
	if err != nil {
		return c, err
	}
	if len(required) > 0 {
		c.Require = &attributesJSON{Tags: required}
	}
	except, err := tagValues(cmd, f.exceptTags)
	if err != nil {
		return c, err
	}
	if len(except) > 0 || len(f.exceptHosts) > 0 {
		c.Exclude = &attributesJSON{f.exceptHosts, except}
	}
	return c, nil
}

// tagValues reads tags, each name=value, as the values by name.
func tagValues(cmd *cobra.Command, tags []string) (map[string][]string, error) {
	values := map[string][]string{}
	for _, tag := range tags {
		name, value, ok := strings.Cut(tag, "=")
		if !ok {
			return nil, &usageError{cmd.CommandPath(), fmt.Errorf("tag %q is not of the form name=value", tag)}
		}
		values[name] = append(values[name], value)
	}
	return values, nil
}

func applicationAddCommand(env environ) *cobra.Command {
	var f applicationFlags
	var kind, domain string
	cmd := &cobra.Command{
		Use: "add NAME (--host PATTERN ... | --tag NAME=VALUE ... | --domain DOMAIN)", Short: "Add an application: hosts that policies are for",
		Long: `Add an application: the hosts of any of the names and tags that are given, at the port,
as far as they have all tags of --require-tag and none of what --except-host and
--except-tag say. What it lets in whom as, its policies say: keyturn policy add.

With --domain it stands for that domain, and is asked for by itself.`,
		Example: `  keyturn application add 'web servers' --host 'web*' --except-host web9
  keyturn application add production --tag env=prod --port 2222
  keyturn policy add ops --application 'web servers' --include group:ops --login deploy`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			body := applicationBody{Name: args[0], Type: kind, Domain: domain, Providers: f.providers}
			if domain == "" || f.sayHosts(cmd) {
				one, err := f.criterion(cmd)
				if err != nil {
					return err
				}
				body.Criteria = []criterionJSON{one}
			}
			if kind == "" {
				body.Type = map[bool]string{true: "infrastructure", false: "ssh"}[domain == ""]
			}
			var a applicationJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/applications", body, &a); err != nil {
				return err
			}
			return a.show(cmd)
		}),
	}
	f.on(cmd, env)
	cmd.Flags().StringVar(&domain, "domain", "", "the domain that it stands for, instead of hosts")
	cmd.Flags().StringVar(&kind, "type", "", `"infrastructure" for hosts, "ssh" or "self_hosted" for a domain (default by what is given)`)
	completeWords(cmd, "type", "infrastructure", "ssh", "self_hosted")
	return cmd
}

func applicationSetCommand(env environ) *cobra.Command {
	var f applicationFlags
	var name, domain string
	cmd := &cobra.Command{
		Use: "set NAME [--name NAME] [--host PATTERN ...] [--tag NAME=VALUE ...]", Short: "Change an application",
		Long: `Change an application. What is not given stays, and its policies do. What a flag gives
takes the place of all that the application has of the kind, and '' of it is none: of
--provider, that has it let in who logged in by any.

Where an application stands for hosts by several criteria, which other clients can make,
these flags do not say which is to change, and are refused.`,
		Example: `  keyturn application set 'web servers' --host 'web*' --host 'www*'
  keyturn application set 'web servers' --except-host ''`,
		Args: changing, ValidArgsFunction: completeApplications(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := newBody(cmd)
			in.say("name", "name", name)
			in.say("domain", "domain", domain)
			in.list("providers", "provider", f.providers)
			if f.sayHosts(cmd) {
				criterion, err := f.change(cmd)
				if err != nil {
					return err
				}
				in.fields["criterion"] = criterion
			}
			var a applicationJSON
			if err := c.call(cmd.Context(), http.MethodPatch, "/applications/"+url.PathEscape(args[0]), in.fields, &a); err != nil {
				return err
			}
			return a.show(cmd)
		}),
	}
	f.on(cmd, env)
	cmd.Flags().Lookup("port").DefValue = "0" // what is not given stays
	cmd.Flags().StringVar(&name, "name", "", "what it is called from now on")
	cmd.Flags().StringVar(&domain, "domain", "", "the domain that it stands for")
	return cmd
}
