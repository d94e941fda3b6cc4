// Keyturn is the whole product in one binary: the server, and the command line
// that speaks its API.
//
// serve and demo run a server; every other command but look and version is a
// client of api/v1 over HTTP, and knows nothing of the server but that.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), append(endings(), os.Interrupt)...)
	code := run(ctx, os.Getenv, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endings are the signals that end a program, besides an interrupt.
func endings() []os.Signal {
	ends := []os.Signal{syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // as nohup(1) has it
		ends = append(ends, syscall.SIGHUP) // the terminal is gone
	}
	return ends
}

// An environ returns the value of an environment variable, as os.Getenv does.
// Commands take theirs from run and ask the process for none, so that many can be
// run in one process, each for another user.
type environ func(name string) string

// run runs one command and returns its exit code: 0 for success only, 2 for a
// command line that cannot be understood, that of a command which it ran itself, 1 for
// everything else.
func run(ctx context.Context, env environ, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand(env)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	var exit *exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &usage):
		fmt.Fprintf(stderr, "keyturn: %v\nhint: %s --help\n", err, usage.command)
		return 2
	case errors.Is(err, errQuiet):
		return 1
	case errors.As(err, &exit):
		return exit.code
	}
	message, hint := explain(cmd, err)
	fmt.Fprintf(stderr, "keyturn: %s\n", message)
	if hint != "" {
		fmt.Fprintf(stderr, "hint: %s\n", hint)
	}
	return 1
}

// explain says what went wrong with a command, and what is next. A field of the API is
// called as the flag that filled it, and where nothing else is known to be next, what
// the command takes is.
func explain(cmd *cobra.Command, err error) (message, hint string) {
	message = err.Error()
	var e *trust.Error
	var path *fs.PathError
	if errors.As(err, &e) {
		hint = e.Hint
		field, _, _ := strings.Cut(strings.TrimPrefix(e.Field, "query."), "[")
		name := strings.ReplaceAll(strings.TrimSuffix(field, "s"), "_", "-")
		if rest, ok := strings.CutPrefix(message, e.Field+": "); ok && name != "" && cmd.Flags().Lookup(name) != nil {
			message = "--" + name + ": " + rest
		}
	}
	if hint == "" && (errors.As(err, &path) || trust.KindOf(err) == trust.Invalid) {
		hint = cmd.CommandPath() + " --help"
	}
	return message, hint
}

// errQuiet fails a command that has said why already.
var errQuiet = errors.New("failed")

// A usageError is a command line that cannot be understood.
type usageError struct {
	command string
	err     error
}

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func rootCommand(env environ) *cobra.Command {
	root := &cobra.Command{
		Use:   "keyturn",
		Short: "Own an organisation's SSH trust: find every key, rotate without a lockout, take it back",
		Long: `Keyturn finds every SSH key of an organisation and rotates them on real servers
without ever locking anyone out: the new key is proven before the old one is
touched, a crash at any instant is carried on from, and every rotation can be
taken back.

  keyturn demo     shows all of that on throw-away servers, in a minute
  keyturn serve    runs the server; the other commands speak to it

KEYTURN_SERVER is the server (default ` + defaultServer + `). The credential is what
"keyturn login" has kept, or before that KEYTURN_TOKEN, or KEYTURN_USER and
KEYTURN_PASSWORD; KEYTURN_TOTP is the code of a user who has a second factor.`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return &usageError{cmd.CommandPath(), fmt.Errorf("there is no command %q", args[0])}
			}
			return nil
		},
		RunE: namesNone,
	}
	root.PersistentFlags().Bool("json", false, "print one JSON value, with stable names, instead of text")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{cmd.CommandPath(), err} })
	root.AddCommand(
		serveCommand(env), demoCommand(), lookCommand(), versionCommand(),
		loginCommand(env), logoutCommand(env), whoamiCommand(env), accountCommand(env), userCommand(env), providerCommand(env), roleCommand(env), tokenCommand(env), settingsCommand(env), kekCommand(env),
		hostCommand(env), targetCommand(env), scanCommand(env), discoveryCommand(env), findingCommand(env), policyCommand(env), applicationCommand(env), groupCommand(env), ipListCommand(env), accessCommand(env),
		keyCommand(env), rotateCommand(env), rollbackCommand(env), retireCommand(env), runCommand(env), approvalCommand(env), agentCommand(env),
		seedCommand(env), jwkCommand(env), knownHostsCommand(env),
		caCommand(env), certCommand(env), krlCommand(env),
	)
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() == "completion" {
			onlyParent(cmd)
		}
	}
	return root
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return show(cmd, map[string]string{"version": version}, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, "keyturn", version)
				return err
			})
		},
	}
}

// parent makes a command that only has others below it.
func parent(use, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	onlyParent(cmd)
	cmd.AddCommand(children...)
	return cmd
}

// onlyParent has a command say what there is below it, and refuse what there is not, or
// to say so in JSON.
func onlyParent(cmd *cobra.Command) {
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return &usageError{cmd.CommandPath(), fmt.Errorf("%q has no command %q", cmd.CommandPath(), args[0])}
		}
		return nil
	}
	cmd.RunE = namesNone
}

// namesNone answers a command line that names none of a command's commands: whoever
// types it gets help, and a program that waits for JSON is told.
func namesNone(cmd *cobra.Command, _ []string) error {
	if asJSON(cmd) {
		return &usageError{cmd.CommandPath(), fmt.Errorf("%q has commands, of which none is named", cmd.CommandPath())}
	}
	return cmd.Help()
}

// Checks of how many arguments there are, as usage errors.

func noArgs(cmd *cobra.Command, args []string) error { return usage(cmd, cobra.NoArgs(cmd, args)) }

func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error { return usage(cmd, cobra.ExactArgs(n)(cmd, args)) }
}

func atLeast(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		return usage(cmd, cobra.MinimumNArgs(n)(cmd, args))
	}
}

func usage(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return &usageError{cmd.CommandPath(), err}
}
