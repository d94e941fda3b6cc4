package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"
	"github.com/spf13/cobra"
)

type userJSON struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Email       string     `json:"email,omitempty"`
	Roles       []string   `json:"roles"`
	Granted     []string   `json:"granted"`
	Permissions []string   `json:"permissions"`
	HasPassword bool       `json:"has_password"`
	TOTP        bool       `json:"totp"`
	Provider    string     `json:"provider,omitempty"`
	CreatedAt   *time.Time `json:"created_at"`
}

type roleJSON struct {
	Name        string     `json:"name"`
	Permissions []string   `json:"permissions"`
	BuiltIn     bool       `json:"built_in"`
	Meaning     string     `json:"meaning,omitempty"`
	CreatedAt   *time.Time `json:"created_at,omitempty"`
}

type permissionJSON struct {
	Name    string `json:"name"`
	Meaning string `json:"meaning"`
}

func userCommand(env environ) *cobra.Command {
	return parent("user", "Add and remove users, and say what they may do",
		userAddCommand(env), userListCommand(env), userShowCommand(env), userSetCommand(env), userEmailCommand(env), userPasswordCommand(env), userTOTPCommand(env), userRemoveCommand(env))
}

// rightsFlags are the flags that say what a user may do.
func rightsFlags(env environ, cmd *cobra.Command, roles, permissions *[]string) {
	cmd.Flags().StringArrayVar(roles, "role", nil, "a role that the user has, by name; may be repeated (see keyturn role list)")
	cmd.Flags().StringArrayVar(permissions, "permission", nil, "what the user may do beside that, by name; may be repeated")
	_ = cmd.RegisterFlagCompletionFunc("role", completeRoles(env))
	_ = cmd.RegisterFlagCompletionFunc("permission", completePermissions(env))
}

func userAddCommand(env environ) *cobra.Command {
	var roles, permissions []string
	var email string
	var password bool
	cmd := &cobra.Command{
		Use: "add NAME --role R ...", Short: "Add a user",
		Long: `Add a user, who may do no more than you may. Without --password-stdin the user has
no password, and cannot log in until "keyturn user password" gives one. Policies that
go by addresses go by that of --email.`,
		Example: `  keyturn user add alice --email alice@example.com --role Operator --password-stdin < password-file
  keyturn user add backup --permission "Audit Read"`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{"name": args[0], "roles": notNil(roles), "permissions": notNil(permissions)}
			if email != "" {
				in["email"] = email
			}
			if password {
				var err error
				if in["password"], err = readGiven(cmd, "Password of "+args[0], "without --password-stdin the user has none"); err != nil {
					return err
				}
			}
			var u userJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/users", in, &u); err != nil {
				return err
			}
			return show(cmd, u, func(w io.Writer) error { return printUser(w, u) })
		}),
	}
	rightsFlags(env, cmd, &roles, &permissions)
	cmd.Flags().StringVar(&email, "email", "", "the user's address, by which policies know the user; takes the permission to write those")
	cmd.Flags().BoolVar(&password, "password-stdin", false, "read the user's password from standard input")
	return cmd
}

func userListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List users", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			users, err := whole[userJSON](cmd.Context(), c, "/users", "users")
			if err != nil {
				return err
			}
			return showTable(cmd, users, "NAME EMAIL ROLES PERMISSIONS PASSWORD TOTP PROVIDER CREATED", func(u userJSON) []string {
				return []string{u.Name, u.Email, strings.Join(u.Roles, ", "), strings.Join(u.Granted, ", "), yes(u.HasPassword), yes(u.TOTP), u.Provider, when(u.CreatedAt)}
			})
		}),
	}
}

func userShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a user, and all that the user may do", Args: exactly(1), ValidArgsFunction: completeUsers(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var u userJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/users/"+url.PathEscape(args[0]), nil, &u); err != nil {
				return err
			}
			return show(cmd, u, func(w io.Writer) error { return printUser(w, u) })
		}),
	}
}

func userSetCommand(env environ) *cobra.Command {
	var roles, permissions []string
	cmd := &cobra.Command{
		Use: "set NAME --role R ...", Short: "Say anew what a user may do",
		Long: `Say anew what a user may do: what is given here takes the place of what the user had.
It counts at once, for the user's tokens, too.`,
		Example: "  keyturn user set alice --role Auditor --permission \"Runs Write\"",
		Args:    exactly(1), ValidArgsFunction: completeUsers(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{"roles": notNil(roles), "permissions": notNil(permissions)}
			var u userJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/users/"+url.PathEscape(args[0])+"/rights", in, &u); err != nil {
				return err
			}
			return show(cmd, u, func(w io.Writer) error { return printUser(w, u) })
		}),
	}
	rightsFlags(env, cmd, &roles, &permissions)
	return cmd
}

func userEmailCommand(env environ) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "email NAME ADDRESS", Short: "Give a user another address, by which policies know the user",
		Long: `Give a user another address of e-mail, or take it away. Policies that go by addresses
go by it at once, so that this takes the permission to write those. Who logs in by an
identity provider has the address that the provider has verified.`,
		Example: "  keyturn user email alice alice@example.com",
		Args: func(cmd *cobra.Command, args []string) error {
			if none {
				return exactly(1)(cmd, args)
			}
			return exactly(2)(cmd, args)
		},
		ValidArgsFunction: completeUsers(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			address := ""
			if !none {
				address = args[1]
			}
			var u userJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/users/"+url.PathEscape(args[0])+"/email", map[string]string{"email": address}, &u); err != nil {
				return err
			}
			return show(cmd, u, func(w io.Writer) error { return printUser(w, u) })
		}),
	}
	cmd.Flags().BoolVar(&none, "none", false, "take the address away")
	return cmd
}

func userPasswordCommand(env environ) *cobra.Command {
	var none bool
	cmd := &cobra.Command{
		Use: "password NAME", Short: "Give a user, or yourself, another password",
		Long: `Give a user another password, read from standard input. The user's logins,
sessions of AppViewX and OAuth tokens of CFEngine end; API tokens stay as they are.`,
		Example: "  keyturn user password alice < password-file", Args: exactly(1), ValidArgsFunction: completeUsers(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			secret := ""
			if !none {
				var err error
				if secret, err = readGiven(cmd, "Password of "+args[0], "--none takes the password away"); err != nil {
					return err
				}
			}
			var u userJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/users/"+url.PathEscape(args[0])+"/password", map[string]string{"password": secret}, &u); err != nil {
				return err
			}
			return show(cmd, u, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s has another password\n", u.Name)
				if none {
					_, err = fmt.Fprintf(w, "%s has no password\n", u.Name)
				}
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&none, "none", false, "take the password away: the user cannot log in with one")
	return cmd
}

func userTOTPCommand(env environ) *cobra.Command {
	enable := &cobra.Command{
		Use: "enable", Short: "Make a second factor for yourself: codes that an authenticator app shows",
		Long: `Make a second factor for yourself (TOTP, RFC 6238). It is shown once, for an
authenticator app, and counts as soon as you have entered a code that the app shows.
From then on you log in with your password and a code; your API tokens need none.
It takes a login of the last 10 minutes, or a password.
With --json it is printed and not confirmed: send a code to keyturn user totp confirm.`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var t struct {
				Secret string `json:"secret"`
				URL    string `json:"url"`
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/totp", nil, &t); err != nil {
				return err
			}
			if asJSON(cmd) {
				return printJSON(cmd.OutOrStdout(), t)
			}
			if err := printQR(cmd.OutOrStdout(), t.URL); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "secret %s\n%s\n", t.Secret, t.URL)
			code, err := readSecret(cmd, "Code that the authenticator shows")
			if err != nil {
				return err
			}
			if code == "" {
				fmt.Fprintln(cmd.ErrOrStderr(), "hint: keyturn user totp confirm CODE has it count")
				return nil
			}
			return c.confirmTOTP(cmd, code)
		}),
	}
	confirm := &cobra.Command{
		Use: "confirm CODE", Short: "Have your second factor count", Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error { return c.confirmTOTP(cmd, args[0]) }),
	}
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Take a user's second factor away, or your own", Args: exactly(1), ValidArgsFunction: completeUsers(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var u userJSON
			if err := c.call(cmd.Context(), http.MethodDelete, "/users/"+url.PathEscape(args[0])+"/totp", nil, &u); err != nil {
				return err
			}
			return showLine(cmd, u, "%s logs in without a second factor\n", u.Name)
		}),
	}
	return parent("totp", "Log in with a second factor", enable, confirm, remove)
}

func (c *client) confirmTOTP(cmd *cobra.Command, code string) error {
	var out struct {
		Confirmed bool `json:"confirmed"`
	}
	if err := c.call(cmd.Context(), http.MethodPost, "/totp/confirm", map[string]string{"code": code}, &out); err != nil {
		return err
	}
	return show(cmd, out, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "from now on you log in with your password and a code")
		return err
	})
}

// printQR prints text as a QR code, two rows of it in one line of half blocks.
func printQR(w io.Writer, text string) error {
	code, err := qr.Encode(text, qr.L, qr.Auto)
	if err != nil {
		return err
	}
	const quiet = 2 // modules around it
	size := code.Bounds().Dx()
	dark := func(x, y int) bool {
		if x < 0 || y < 0 || x >= size || y >= size {
			return false
		}
		r, _, _, _ := code.At(x, y).RGBA()
		return r == 0
	}
	var b strings.Builder
	for y := -quiet; y < size+quiet; y += 2 {
		for x := -quiet; x < size+quiet; x++ {
			// On most terminals ink is light: what is to be dark is left out.
			switch up, down := dark(x, y), dark(x, y+1); {
			case up && down:
				b.WriteByte(' ')
			case up:
				b.WriteRune('▄')
			case down:
				b.WriteRune('▀')
			default:
				b.WriteRune('█')
			}
		}
		b.WriteByte('\n')
	}
	_, err = io.WriteString(w, b.String())
	return err
}

func userRemoveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove a user, with the user's API tokens, at once", Args: exactly(1), ValidArgsFunction: completeUsers(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, "/users/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%s is removed, and all of the user's tokens are ended\n", args[0])
		}),
	}
}

func printUser(w io.Writer, u userJSON) error {
	return fields(w, "id", u.ID, "name", u.Name, "email", u.Email, "roles", strings.Join(u.Roles, ", "), "permissions", strings.Join(u.Granted, ", "),
		"may", strings.Join(u.Permissions, ", "), "password", yes(u.HasPassword), "second factor", yes(u.TOTP), "logs in by", u.Provider, "created", when(u.CreatedAt))
}

func roleCommand(env environ) *cobra.Command {
	listing := &cobra.Command{
		Use: "list", Short: "List roles, and what they permit", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			roles, err := whole[roleJSON](cmd.Context(), c, "/roles", "roles")
			if err != nil {
				return err
			}
			return showTable(cmd, roles, "NAME PERMISSIONS MEANING", func(r roleJSON) []string {
				return []string{r.Name, strings.Join(r.Permissions, ", "), r.Meaning}
			})
		}),
	}
	var permissions []string
	set := &cobra.Command{
		Use: "set NAME --permission P ...", Short: "Make a role, or change what those who have it may do, at once",
		Example: `  keyturn role set on-call --permission "Runs Write" --permission "Keys Read"`, Args: exactly(1), ValidArgsFunction: completeRoles(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var r roleJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/roles/"+url.PathEscape(args[0]), map[string]any{"permissions": notNil(permissions)}, &r); err != nil {
				return err
			}
			return show(cmd, r, func(w io.Writer) error {
				return fields(w, "name", r.Name, "permissions", strings.Join(r.Permissions, ", "))
			})
		}),
	}
	set.Flags().StringArrayVar(&permissions, "permission", nil, "what it permits, by name; may be repeated")
	_ = set.RegisterFlagCompletionFunc("permission", completePermissions(env))
	remove := &cobra.Command{
		Use: "remove NAME", Short: "Remove a role that nobody has", Args: exactly(1), ValidArgsFunction: completeRoles(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, "/roles/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "the role %s is removed\n", args[0])
		}),
	}
	return parent("role", "Name permissions that are given together", listing, set, remove)
}

// notNil is list as JSON has it: [], not null.
func notNil(list []string) []string { return append([]string{}, list...) }

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
