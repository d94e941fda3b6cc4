package main

import (
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// sectionsJSON are the rules of a policy or a group.
type sectionsJSON struct {
	Include []string `json:"include"`
	Require []string `json:"require"`
	Exclude []string `json:"exclude"`
}

// text says of whom the rules hold, by the names of what they name.
func (s sectionsJSON) text(names map[string]string) string {
	with := func(rules []string, between string) string {
		list := make([]string, len(rules))
		for i, rule := range rules {
			list[i] = withName(rule, names)
		}
		return strings.Join(list, between)
	}
	text := with(s.Include, " or ")
	if len(s.Require) > 0 {
		text += ", if " + with(s.Require, " and ")
	}
	if len(s.Exclude) > 0 {
		text += ", but not " + with(s.Exclude, " or ")
	}
	return text
}

// A ruleFlags is the rules that a command line gives. A rule can have commas in it, so
// that each has a flag of its own.
type ruleFlags struct{ given sectionsJSON }

func (f *ruleFlags) on(cmd *cobra.Command) {
	cmd.Flags().StringArrayVar(&f.given.Include, "include", []string{}, "a rule of which any is enough, such as email_domain:example.com, group:NAME or everyone; several if repeated")
	cmd.Flags().StringArrayVar(&f.given.Require, "require", []string{}, "a rule that has to hold besides, such as auth_method:mfa; several if repeated")
	cmd.Flags().StringArrayVar(&f.given.Exclude, "exclude", []string{}, "a rule that may not hold; several if repeated")
}

// into says the sections that are given.
func (f *ruleFlags) into(b body) {
	b.list("include", "include", f.given.Include)
	b.list("require", "require", f.given.Require)
	b.list("exclude", "exclude", f.given.Exclude)
}

// A body is what a request says: the fields that a command line gives, and no others.
// The server leaves the others as they are.
type body struct {
	cmd    *cobra.Command
	fields map[string]any
}

func newBody(cmd *cobra.Command) body { return body{cmd, map[string]any{}} }

// say has a field be what a flag gives, if it is given.
func (b body) say(field, flag string, given any) {
	if b.cmd.Flags().Changed(flag) {
		b.fields[field] = given
	}
}

// list is say of a list, in which ” alone stands for an empty one.
func (b body) list(field, flag string, given []string) {
	b.say(field, flag, unlessEmpty(given))
}

// unlessEmpty returns what a flag gives, of which ” alone stands for nothing at all.
func unlessEmpty(given []string) []string {
	if slices.Equal(given, []string{""}) {
		return []string{}
	}
	return given
}

// changing refuses a command line that gives a name, and nothing that is to change.
func changing(cmd *cobra.Command, args []string) error {
	if err := exactly(1)(cmd, args); err != nil {
		return err
	}
	given := false
	cmd.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) { given = given || f.Changed })
	if !given {
		return &usageError{cmd.CommandPath(), errors.New("nothing to change is given")}
	}
	return nil
}

// removeCommand makes a command that removes the thing of a noun that its argument names,
// of those below a path of the API.
func removeCommand(env environ, noun, argument, path, short string, things cobra.CompletionFunc) *cobra.Command {
	return &cobra.Command{
		Use: "remove " + argument, Short: short, Args: exactly(1), ValidArgsFunction: things,
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, path+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%s %s is removed\n", noun, plain(args[0]))
		}),
	}
}
