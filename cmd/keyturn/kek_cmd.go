package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

type kekJSON struct {
	Name      string     `json:"name"`
	Source    string     `json:"source,omitempty"`
	Since     time.Time  `json:"since"`
	DataSince *time.Time `json:"data_since,omitempty"`
	Before    string     `json:"before,omitempty"`
}

func kekCommand(env environ) *cobra.Command {
	showing := &cobra.Command{
		Use: "show", Short: "Show which key-encryption key the database is sealed under", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var k kekJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/kek", nil, &k); err != nil {
				return err
			}
			return show(cmd, k, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "sealed under  %s\nsince         %s\n", k.Name, k.Since.Format(time.RFC3339))
				if err == nil && k.Source != "" {
					_, err = fmt.Fprintf(w, "from          %s\n", plain(k.Source))
				}
				if err == nil && k.DataSince != nil {
					_, err = fmt.Fprintf(w, "data key of   %s\n", k.DataSince.Format(time.RFC3339))
				}
				return err
			})
		}),
	}
	var data bool
	rotate := &cobra.Command{
		Use:   "rotate",
		Short: "Seal the database under the next key-encryption key",
		Long: `Seal the database under the next key-encryption key, while everything goes on.

Of a key file, the server makes the next key itself and puts it in the place of
the old one: copy the file to the other nodes, if there are any, before they are
started again, and to where its copy is kept. Of a command or a passphrase file,
change what they hold first: the server reads it anew. Of a key management
service, the server makes a new key, which the present version of the key there
encrypts.

Backups from before open with the key from before only, so that a key file from
before stays beside the new one, as FILE.NAME. Move it to where it is as safe as
they need it, and destroy it with the last of them: whoever has both has the root
key, which stays the same, and so whatever the database holds, then and later.

With --data the account's data key is rotated instead, which is what private keys
are sealed with: the new one seals from now on, and the earlier ones still open
what they sealed.`,
		Example: "  keyturn kek rotate\n  keyturn kek rotate --data",
		Args:    noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			path := "/kek/rotate"
			if data {
				path = "/kek/rotate-data"
			}
			var k kekJSON
			if err := c.call(cmd.Context(), http.MethodPost, path, nil, &k); err != nil {
				return err
			}
			return show(cmd, k, func(w io.Writer) error {
				if data {
					_, err := fmt.Fprintln(w, "A new data key seals from now on; the earlier ones still open what they sealed.")
					return err
				}
				_, err := fmt.Fprintf(w, "The database is sealed under  %s\nfrom                          %s\nBackups from before now open with %s only. A key file from before is kept beside the new one, by that name.\nOther nodes go on; before one is started again it needs the new key.\n", k.Name, plain(k.Source), k.Before)
				return err
			})
		}),
	}
	rotate.Flags().BoolVar(&data, "data", false, "rotate the account's data key instead")
	return parent("kek", "Show and rotate the key that the database is sealed under", showing, rotate)
}
