package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type accountJSON struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

type addedAccountJSON struct {
	accountJSON
	Admin    string `json:"admin"`
	Password string `json:"password,omitempty"`
}

type tokenJSON struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Owner       string     `json:"owner"`
	Permissions []string   `json:"permissions"`
	Personal    bool       `json:"personal"`
	CreatedAt   *time.Time `json:"created_at"`
	ExpiresAt   *time.Time `json:"expires_at,omitempty"`
	LastUsedAt  *time.Time `json:"last_used_at,omitempty"`
	Token       string     `json:"token,omitempty"`
}

type settingJSON struct {
	Name      string     `json:"name"`
	Value     string     `json:"value"`
	Default   string     `json:"default"`
	Meaning   string     `json:"meaning"`
	ChangedAt *time.Time `json:"changed_at,omitempty"`
}

func accountCommand(env environ) *cobra.Command {
	return parent("account", "Show the account, list and add accounts", accountShowCommand(env), accountListCommand(env), accountAddCommand(env))
}

func accountShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Show the account's id and name", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var a accountJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/account", nil, &a); err != nil {
				return err
			}
			return show(cmd, a, func(w io.Writer) error { return fields(w, "id", a.ID, "name", a.Name) })
		}),
	}
}

func accountListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the accounts of the server", Args: noArgs,
		Long: `List the accounts of the server. It is for administrators of the account "default".`,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			accounts, err := whole[accountJSON](cmd.Context(), c, "/accounts", "accounts")
			if err != nil {
				return err
			}
			return showTable(cmd, accounts, "ID NAME", func(a accountJSON) []string {
				return []string{a.ID, a.Name}
			})
		}),
	}
}

func accountAddCommand(env environ) *cobra.Command {
	var password bool
	cmd := &cobra.Command{
		Use: "add NAME", Short: "Add an account to the server",
		Long: `Add an account to the server: hosts, keys, users, settings and a log of its own, of
which no other account sees or changes anything. It is for administrators of the
account "default", who have no part in it either.

Its first user is "admin", who logs in as NAME/admin, and may do everything there.
The password of that user is read with --password-stdin, or made and printed once.`,
		Example: `  keyturn account add emea
  KEYTURN_USER=emea/admin KEYTURN_PASSWORD=... keyturn user add alice --role Operator`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{"name": args[0]}
			if password {
				var err error
				if in["password"], err = readGiven(cmd, "Password of "+args[0]+"/admin", "without --password-stdin one is made"); err != nil {
					return err
				}
			}
			var a addedAccountJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/accounts", in, &a); err != nil {
				return err
			}
			return show(cmd, a, func(w io.Writer) error {
				pairs := []string{"id", a.ID, "name", a.Name, "admin", a.Admin}
				if a.Password != "" {
					pairs = append(pairs, "password", a.Password+"  (shown this once)")
				}
				return fields(w, pairs...)
			})
		}),
	}
	cmd.Flags().BoolVar(&password, "password-stdin", false, "read the password of the account's admin from standard input")
	return cmd
}

func tokenCommand(env environ) *cobra.Command {
	var permissions []string
	var expires string
	var personal bool
	create := &cobra.Command{
		Use: "create NAME --permission P ...", Short: "Make an API token, and print it: the only time that it is to be had",
		Long: `Make an API token that may do no more than you may. It is printed once and is
stored by its hash only. A permission that the server does not know is refused
with a list of those that there are; "All" is everything that you may do.

Where policies decide who logs in to a host, a token asks in its own name, as a
machine. With --personal it asks as you, so that what lets you in lets in whoever has
the token, but for what goes by how you have logged in, or by what a provider says.`,
		Example: `  keyturn token create ci --permission "Keys Read" --permission "Runs Read" --expires 24h`,
		Args:    exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(permissions) == 0 {
				return &usageError{cmd.CommandPath(), fmt.Errorf("no --permission is given")}
			}
			c, err := newClient(env)
			if err != nil {
				return err
			}
			var t tokenJSON
			in := map[string]any{"name": args[0], "permissions": permissions, "personal": personal}
			if expires != "" {
				in["expires"] = expires
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/tokens", in, &t); err != nil {
				return err
			}
			return show(cmd, t, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, t.Token)
				return err
			})
		},
	}
	create.Flags().StringArrayVar(&permissions, "permission", nil, "what it may do, by name; may be repeated")
	_ = create.RegisterFlagCompletionFunc("permission", completePermissions(env))
	create.Flags().BoolVar(&personal, "personal", false, "ask for certificates as you, and not as a machine")
	create.Flags().StringVar(&expires, "expires", "", "how long it lives, such as 24h (default for ever)")
	listing := &cobra.Command{
		Use: "list", Short: "List API tokens, without their texts", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var out struct {
				Tokens []tokenJSON `json:"tokens"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/tokens", nil, &out); err != nil {
				return err
			}
			return showTable(cmd, out.Tokens, "ID NAME OWNER PERSONAL PERMISSIONS EXPIRES LAST-USED", func(t tokenJSON) []string {
				return []string{t.ID, t.Name, t.Owner, yes(t.Personal), strings.Join(t.Permissions, ", "), when(t.ExpiresAt), when(t.LastUsedAt)}
			})
		}),
	}
	var overlap string
	var compromised bool
	rotate := &cobra.Command{
		Use: "rotate ID", Short: "Give one of your API tokens another text, and print it: the only time that it is to be had",
		Long: `Give one of your API tokens another text. Its id, what it may do and when it expires
stay as they are. The old text ends at once, or after --overlap.

--compromised is for a text that somebody else may have: it ends at once, the tokens
that were made with it are revoked, and so are the certificates that were asked for
with it or with them.`,
		Example: `  keyturn token rotate 0123456789abcdef0123456789abcdef --overlap 1h
  keyturn token rotate 0123456789abcdef0123456789abcdef --compromised`,
		Args: exactly(1), ValidArgsFunction: completeTokens(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{}
			if overlap != "" {
				in["overlap"] = overlap
			}
			if compromised {
				in["compromised"] = true
			}
			var t tokenJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/tokens/"+url.PathEscape(args[0])+"/rotate", in, &t); err != nil {
				return err
			}
			return show(cmd, t, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, t.Token)
				return err
			})
		}),
	}
	rotate.Flags().StringVar(&overlap, "overlap", "", "how long the old text holds beside the new one, such as 1h (default not at all)")
	rotate.Flags().BoolVar(&compromised, "compromised", false, "somebody else may have the old text: end what was made with it, too")
	revoke := &cobra.Command{
		Use: "revoke ID", Short: "End an API token, and those that it made, at once",
		Long: `End an API token, and those that it made, at once. The certificates that were asked
for with them are revoked.`,
		Args: exactly(1), ValidArgsFunction: completeTokens(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out struct {
				Revoked int `json:"revoked"`
			}
			if err := c.call(cmd.Context(), http.MethodDelete, "/tokens/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%d tokens ended\n", out.Revoked)
		}),
	}
	return parent("token", "Make, rotate and revoke API tokens", create, listing, rotate, revoke)
}

func settingsCommand(env environ) *cobra.Command {
	listing := &cobra.Command{
		Use: "list", Short: "List settings, with their defaults and meanings", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var out struct {
				Settings []settingJSON `json:"settings"`
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/settings", nil, &out); err != nil {
				return err
			}
			return show(cmd, out.Settings, func(w io.Writer) error {
				for _, s := range out.Settings {
					if _, err := fmt.Fprintf(w, "%s = %s  (default %s)\n    %s\n", s.Name, plain(s.Value), s.Default, s.Meaning); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
	set := &cobra.Command{
		Use: "set KEY VALUE", Short: "Change a setting, for what starts from now on", Example: "  keyturn settings set rotation.soak 24h", Args: exactly(2),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var s settingJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/settings/"+url.PathEscape(args[0]), map[string]string{"value": args[1]}, &s); err != nil {
				return err
			}
			return showLine(cmd, s, "%s = %s\n", s.Name, s.Value)
		}),
	}
	set.ValidArgsFunction = completeSettings(env)
	set.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return &usageError{cmd.CommandPath(), fmt.Errorf("%w; a value that begins with - goes after --, as in: keyturn settings set NAME -- VALUE", err)}
	})
	return parent("settings", "List and change settings", listing, set, settingsApproveCommand(env))
}
