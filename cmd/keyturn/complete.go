package main

import (
	"context"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Completion of names that only the server knows. It is quiet, and brief, when
// the server does not answer.

func completeHosts(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[hostJSON]("/hosts", "hosts", nil), func(h hostJSON) string { return h.Name + "\t" + h.Address })
	}
}

func completeDiscoveries(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, unpaged[discoveryJSON]("/discoveries", "discoveries"), func(d discoveryJSON) string { return d.Name + "\t" + d.when() })
	}
}

// completeKeys completes user keys, in these states if any are given.
func completeKeys(env environ, states ...string) cobra.CompletionFunc {
	query := url.Values{"kind": {"user"}}
	if len(states) > 0 {
		query.Set("state", strings.Join(states, ","))
	}
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[keyJSON]("/keys", "keys", query), func(k keyJSON) string { return k.UUID + "\t" + plain(k.Comment) })
	}
}

func completeTokens(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, unpaged[tokenJSON]("/tokens", "tokens"), func(t tokenJSON) string { return t.ID + "\t" + plain(t.Name) })
	}
}

func completeUsers(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, unpaged[userJSON]("/users", "users"), func(u userJSON) string { return u.Name + "\t" + strings.Join(u.Roles, ", ") })
	}
}

func completeAuthorities(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[authorityJSON]("/authorities", "authorities", nil), func(a authorityJSON) string { return a.Name + "\t" + a.State })
	}
}

func completeApplications(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, paged[applicationJSON]("/applications", "applications", nil), func(a applicationJSON) string { return a.Name + "\t" + plain(strings.Join(a.hosts(), ", ")) })
	}
}

func completeProviders(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, unpaged[providerJSON]("/providers", "providers"), func(p providerJSON) string { return p.Name + "\t" + p.Issuer })
	}
}

func completeRoles(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, unpaged[roleJSON]("/roles", "roles"), func(r roleJSON) string { return r.Name + "\t" + r.Meaning })
	}
}

func completePermissions(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, unpaged[permissionJSON]("/permissions", "permissions"), func(p permissionJSON) string { return p.Name + "\t" + p.Meaning })
	}
}

// completeWords completes a flag that takes one of a few words.
func completeWords(cmd *cobra.Command, flag string, words ...string) {
	_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completeSettings completes the name of a setting.
func completeSettings(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(env, cmd, unpaged[settingJSON]("/settings", "settings"), func(s settingJSON) string { return s.Name + "\t" + plain(s.Value) })
	}
}

func completeRuns(env environ) cobra.CompletionFunc { return runsWhere(env, nil) }

// completeOpenRuns completes runs that have not ended.
func completeOpenRuns(env environ) cobra.CompletionFunc {
	return runsWhere(env, url.Values{"open": {"true"}})
}

func runsWhere(env environ, query url.Values) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(env, cmd, paged[runJSON]("/runs", "runs", query), func(r runJSON) string { return r.Run + "\t" + r.Procedure + " " + r.State })
	}
}

// A loader reads a listing to choose from.
type loader[T any] func(context.Context, *client) ([]T, error)

func paged[T any](path, name string, query url.Values) loader[T] {
	return func(ctx context.Context, c *client) ([]T, error) { return list[T](ctx, c, path, name, query) }
}

func unpaged[T any](path, name string) loader[T] {
	return func(ctx context.Context, c *client) ([]T, error) { return whole[T](ctx, c, path, name) }
}

func complete[T any](env environ, cmd *cobra.Command, load loader[T], word func(T) string) ([]string, cobra.ShellCompDirective) {
	c, err := newClient(env)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	entries, err := load(ctx, c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var words []string
	for _, e := range entries {
		words = append(words, word(e))
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

func isTerminal(f *os.File) bool { return term.IsTerminal(int(f.Fd())) }
