package main

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyturn/internal/trust"
)

func keyRevealCommand(env environ) *cobra.Command {
	var out, format string
	var fromInput, none bool
	cmd := &cobra.Command{
		Use: "reveal UUID", Short: "Get the private half of a key that Keyturn holds, as a file",
		Long: `Get the private half of a key, encrypted under a passphrase that is asked for, or,
with --no-passphrase, as it is. The file is made for its owner alone, and never in the
place of another. That it left is recorded before it does, and from then on the key
counts as external: Keyturn does not know who has it. "keyturn agent" logs in with a
key that stays where it is.

Host keys of servers in the inventory, keys that open hosts for Keyturn itself, keys with a
cert-authority line in some account's file, keys in a run and keys that are not in use
are not revealed. The file that TrustedUserCAKeys names is not read: an authority that is
trusted there only is a key like any other. With the setting
key.reveal-approval on, another user has to approve first, by
"keyturn key approve-reveal", which is good for one reveal within an hour.`,
		Example: `  keyturn key reveal 7f1c... --out ~/.ssh/id_backup
  keyturn key reveal 7f1c... --out - --format pkcs8 --no-passphrase | vault kv put kv/backup key=-`,
		Args: exactly(1), ValidArgsFunction: completeKeys(env, "active"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			if out == "-" && asJSON(cmd) {
				return &usageError{cmd.CommandPath(), errors.New("--json says what became of a file: give it a name with --out")}
			}
			in := map[string]any{"format": format}
			if none {
				in["plain"] = true
			} else {
				passphrase, err := newPassphrase(cmd, fromInput)
				if err != nil {
					return err
				}
				in["passphrase"] = passphrase
			}
			return c.reveal(cmd, args[0], out, in)
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "the file to make; - for standard output")
	cmd.Flags().StringVar(&format, "format", "openssh", "openssh; or, without a passphrase, pem or pkcs8")
	cmd.Flags().BoolVar(&fromInput, "passphrase-stdin", false, "read the passphrase from standard input")
	cmd.Flags().BoolVar(&none, "no-passphrase", false, "leave the file unencrypted")
	cmd.MarkFlagsMutuallyExclusive("passphrase-stdin", "no-passphrase")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"openssh", "pem", "pkcs8"}, cobra.ShellCompDirectiveNoFileComp))
	require(cmd, "out")
	return cmd
}

// newPassphrase reads a passphrase for something new: from standard input, or twice
// from a terminal.
func newPassphrase(cmd *cobra.Command, fromInput bool) (string, error) {
	f, ok := cmd.InOrStdin().(*os.File)
	if !fromInput && (!ok || !term.IsTerminal(int(f.Fd()))) {
		return "", &usageError{cmd.CommandPath(), errors.New("there is no terminal to ask for a passphrase: give --passphrase-stdin or --no-passphrase")}
	}
	passphrase, err := readSecret(cmd, "Passphrase for the file")
	if err != nil {
		return "", err
	}
	if passphrase == "" {
		return "", trust.Errorf(trust.Invalid, "the passphrase is empty").WithHint("--no-passphrase leaves the file unencrypted")
	}
	if fromInput {
		return passphrase, nil
	}
	again, err := readSecret(cmd, "The same again")
	if err == nil && again != passphrase {
		err = trust.Errorf(trust.Invalid, "the passphrases are not the same")
	}
	return passphrase, err
}

// reveal has a key revealed into a file, which is there before anything leaves: what is
// revealed once may take approval again.
func (c *client) reveal(cmd *cobra.Command, id, path string, in map[string]any) error {
	to := cmd.OutOrStdout()
	if path != "-" {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return trust.Errorf(trust.Invalid, "%w", err).WithField("out")
		}
		defer f.Close()
		to = f
	}
	var out struct {
		UUID       string `json:"uuid"`
		PrivateKey string `json:"private_key"`
	}
	err := c.call(cmd.Context(), http.MethodPost, "/keys/"+url.PathEscape(id)+"/reveal", in, &out)
	if err == nil {
		_, err = io.WriteString(to, out.PrivateKey)
	}
	if path == "-" {
		return err
	}
	if err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return showLine(cmd, map[string]string{"uuid": out.UUID, "file": path}, "%s holds the private half of key %s, which counts as external from now on\n", path, out.UUID)
}

func keyApproveRevealCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "approve-reveal UUID USER", Short: "Approve that a key is revealed to a user who asked for it",
		Long: `Approve that a key is revealed to a user who asked for it: once, to that user, within an
hour. Who asked cannot approve. "keyturn approval list" lists what was asked for.`,
		Args: exactly(2),
		ValidArgsFunction: func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
			if len(args) == 0 {
				return completeKeys(env, "active")(cmd, args, begun)
			}
			return completeUsers(env)(cmd, args, begun)
		},
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var a approvalJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/keys/"+url.PathEscape(args[0])+"/reveal/approve", map[string]string{"user": args[1]}, &a); err != nil {
				return err
			}
			return showLine(cmd, a, "%s may have %s revealed once, until %s\n", a.AskedBy, args[0], when(a.Until))
		}),
	}
}
