package main

import (
	"io"
	"net/http"
	"net/url"

	"github.com/spf13/cobra"
)

// keyFacts are flags that say what is known of a key.
type keyFacts struct {
	owner, purpose, expires string
	labels                  []string
}

func (f *keyFacts) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.owner, "owner", "", "who answers for it, a person or a team")
	cmd.Flags().StringVar(&f.purpose, "purpose", "", "what it is for")
	cmd.Flags().StringSliceVar(&f.labels, "label", nil, "name=value to find it by; may be repeated, for up to 32")
	cmd.Flags().StringVar(&f.expires, "expires", "", "until when it is meant to be used: 90d, 12h, 2027-01-31 or never")
}

// add adds to a request what was given.
func (f *keyFacts) add(cmd *cobra.Command, in map[string]any) {
	for name, v := range map[string]any{"owner": f.owner, "purpose": f.purpose, "expires": f.expires} {
		if cmd.Flags().Changed(name) {
			in[name] = v
		}
	}
	if len(f.labels) > 0 {
		in["labels"] = f.labels
	}
}

func keySetCommand(env environ) *cobra.Command {
	var facts keyFacts
	var unlabel []string
	cmd := &cobra.Command{
		Use: "set UUID", Short: "Say what is known of a key: owner, purpose, labels, until when it is used",
		Long: `Say what is known of a key. What no flag names stays as it is; --owner "" and
--purpose "" take away what was said.

A key that has expired signs for no user of the server any more. No line of it is
taken away: it has the finding "expired" for as long as it is accepted somewhere:
rotate or retire it. A key that a rotation makes has owner, purpose and labels of
the one before, and no expiry.`,
		Example: `  keyturn key set 7f1c... --owner platform --label env=prod --label team=db --expires 90d
  keyturn key set 7f1c... --unlabel team --expires never
  keyturn key list --label env=prod --expired`,
		Args: exactly(1), ValidArgsFunction: completeKeys(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{}
			facts.add(cmd, in)
			if len(unlabel) > 0 {
				in["unlabel"] = unlabel
			}
			var k keyJSON
			if err := c.call(cmd.Context(), http.MethodPatch, "/keys/"+url.PathEscape(args[0]), in, &k); err != nil {
				return err
			}
			return show(cmd, k, func(w io.Writer) error { return printKey(w, k) })
		}),
	}
	facts.flags(cmd)
	cmd.Flags().StringSliceVar(&unlabel, "unlabel", nil, "name of a label that goes")
	return cmd
}
