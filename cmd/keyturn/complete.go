package main

import (
	"context"
	"net/url"
	"os"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// Completion of names that only the server knows. It is quiet, and brief, when
// the server does not answer.

func completeHosts(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, "/hosts", "hosts", nil, func(h hostJSON) string { return h.Name + "\t" + h.Address })
	}
}

func completeDiscoveries(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, "/discoveries", "discoveries", nil, func(d discoveryJSON) string { return d.Name + "\t" + d.when() })
	}
}

func completeKeys(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return complete(env, cmd, "/keys", "keys", url.Values{"kind": {"user"}}, func(k keyJSON) string { return k.UUID + "\t" + plain(k.Comment) })
	}
}

func completeRuns(env environ) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return complete(env, cmd, "/runs", "runs", nil, func(r runJSON) string { return r.Run + "\t" + r.Procedure + " " + r.State })
	}
}

func complete[T any](env environ, cmd *cobra.Command, path, name string, query url.Values, word func(T) string) ([]string, cobra.ShellCompDirective) {
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
	entries, err := list[T](ctx, c, path, name, query)
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
