package main

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

func keySupplyCommand(env environ) *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "supply UUID", Short: "Give the public half of the key that its owner made to take another's place",
		Long: `Some private keys are their owner's alone: on a laptop, with a passphrase, in an
agent, on a security key. Keyturn can rotate such a key if its owner makes the new one
and gives its public half, which is what this takes. "keyturn rotate UUID" then puts it
beside the old one everywhere; the owner begins to use it; and when a login with it has
been seen, and none with the old one while the run soaks, the old one is withdrawn.

The last one that was supplied counts. It takes the permission "Keys Supply": whose key
it is will be let in. What Keyturn holds itself is rotated without, unless it lies
somewhere with a passphrase as well.`,
		Example: `  keyturn key supply 7f1c... --public-key alice.pub
  keyturn key supply 7f1c... --public-key "ssh-ed25519 AAAA... alice"
  keyturn rotate 7f1c... --public-key alice.pub --wait`,
		Args: exactly(1), ValidArgsFunction: completeKeys(env, "active"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			next, err := c.supply(cmd, args[0], file)
			if err != nil {
				return err
			}
			return showLine(cmd, next, "%s is to take the place of %s: keyturn rotate %s\n", next.UUID, args[0], args[0])
		}),
	}
	cmd.Flags().StringVar(&file, "public-key", "", "a .pub file, - for standard input, or the key itself")
	_ = cmd.MarkFlagRequired("public-key")
	return cmd
}

// supply gives the public half that a file, standard input or the text itself has.
func (c *client) supply(cmd *cobra.Command, id, file string) (next keyJSON, err error) {
	text, err := readPublicKey(cmd, file)
	if err != nil {
		return next, err
	}
	err = c.call(cmd.Context(), http.MethodPost, "/keys/"+url.PathEscape(id)+"/supply", map[string]any{"public_key": text}, &next)
	return next, err
}

// readPublicKey reads a public half. A private one does not leave the machine.
func readPublicKey(cmd *cobra.Command, file string) (string, error) {
	if _, _, err := trust.ParsePublicKey(file); err == nil {
		return file, nil
	}
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", trust.Errorf(trust.Invalid, "%w", err)
		}
		defer f.Close()
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, trust.MaxPublicFile+1))
	switch {
	case err != nil:
		return "", trust.Errorf(trust.Invalid, "%s: %w", file, err)
	case trust.LooksPrivate(text):
		return "", trust.Errorf(trust.Invalid, "%s holds a private key: it was not sent, and nobody but its owner is to have it", file).WithHint("name the .pub file beside it")
	case len(text) > trust.MaxPublicFile || !utf8.Valid(text):
		return "", trust.Errorf(trust.Invalid, "%s is no public key file", file)
	}
	return string(text), nil
}
