package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyturn/internal/trust"
)

type whoJSON struct {
	Kind        string      `json:"kind"`
	ID          string      `json:"id"`
	Name        string      `json:"name"`
	Roles       []string    `json:"roles"`
	Permissions []string    `json:"permissions"`
	Until       *time.Time  `json:"until,omitempty"`
	Account     accountJSON `json:"account"`
}

type loginJSON struct {
	Kind        string     `json:"kind"`
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Roles       []string   `json:"roles"`
	Permissions []string   `json:"permissions"`
	Until       *time.Time `json:"until,omitempty"`
	Token       string     `json:"token"`
	Idle        string     `json:"idle,omitempty"`
}

func loginCommand(env environ) *cobra.Command {
	var user string
	var stdin bool
	cmd := &cobra.Command{
		Use: "login", Short: "Log in, for the commands that follow",
		Long: `Log in, for the commands that follow: they use the login wherever neither
KEYTURN_TOKEN nor KEYTURN_USER is set. It holds for 12 hours, and for 2 without being
used; "keyturn logout" ends it at once, as a change of the password does.

It is kept in $XDG_CONFIG_HOME/keyturn/credentials.json, or below ~/.config, which
nobody else can read, one for each server. --json prints its token, too, for other
tools: they send it as "Authorization: Bearer ...".`,
		Example: `  keyturn login --user alice
  keyturn login --user alice --password-stdin < password-file`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newVisitor(env)
			if err != nil {
				return err
			}
			l, err := c.loginWithPassword(cmd, env, user, stdin)
			if err != nil {
				return err
			}
			return c.keep(cmd, env, l)
		},
	}
	cmd.Flags().StringVar(&user, "user", "", "the user to log in as, with a password (default asked for)")
	cmd.Flags().BoolVar(&stdin, "password-stdin", false, "read the password from standard input")
	return cmd
}

// keep keeps a login for the commands that follow, and says who has logged in.
func (c *client) keep(cmd *cobra.Command, env environ, l loginJSON) error {
	if err := saveLogin(env, c.server, savedLogin{Token: l.Token, User: l.Name, Until: l.Until}); err != nil {
		return err
	}
	if env("KEYTURN_TOKEN") != "" || env("KEYTURN_USER") != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "hint: unset KEYTURN_TOKEN and KEYTURN_USER, which go before this login")
	}
	return show(cmd, l, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "logged in as %s until %s\n", plain(l.Name), when(l.Until))
		return err
	})
}

// loginWithPassword exchanges a user's password for a login. On a terminal it asks
// for what it is not told.
func (c *client) loginWithPassword(cmd *cobra.Command, env environ, user string, stdin bool) (l loginJSON, err error) {
	tty := onTerminal(cmd)
	if !tty && (user == "" || !stdin) {
		return l, &usageError{cmd.CommandPath(), errors.New("without a terminal, --user and --password-stdin have to be given")}
	}
	if user == "" {
		if user, err = readLine(cmd, "User"); err != nil {
			return l, err
		}
	}
	password, err := readSecret(cmd, "Password of "+user)
	if err != nil {
		return l, err
	}
	in := map[string]string{"user": user, "password": password}
	if code := env("KEYTURN_TOTP"); code != "" {
		in["code"] = code
	}
	err = c.call(cmd.Context(), http.MethodPost, "/login/password", in, &l)
	if e := (*trust.Error)(nil); errors.As(err, &e) && e.Field == "code" && in["code"] == "" && tty {
		if in["code"], err = readSecret(cmd, "Code that the authenticator shows"); err != nil {
			return l, err
		}
		err = c.call(cmd.Context(), http.MethodPost, "/login/password", in, &l)
	}
	return l, err
}

func onTerminal(cmd *cobra.Command) bool {
	f, ok := cmd.InOrStdin().(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// readLine asks for a line on the terminal, and reads no more than it.
func readLine(cmd *cobra.Command, what string) (string, error) {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: ", what)
	var line []byte
	for b := make([]byte, 1); len(line) < 1024; {
		n, err := cmd.InOrStdin().Read(b)
		if n == 1 && b[0] == '\n' {
			break
		}
		if err != nil {
			return "", err
		}
		line = append(line, b[:n]...)
	}
	return strings.TrimSpace(string(line)), nil
}

func logoutCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "End the login of this server, here and there", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newVisitor(env)
			if err != nil {
				return err
			}
			all, err := readLogins(env)
			if err != nil {
				return err
			}
			l, there := all.Servers[c.server]
			if !there {
				return trust.Errorf(trust.NotFound, "there is no login of %s here", c.server).WithHint("keyturn login")
			}
			c.token = l.Token
			err = c.call(cmd.Context(), http.MethodPost, "/logout", nil, nil)
			if err != nil && trust.KindOf(err) != trust.Unauthenticated { // it has not ended by itself
				return err
			}
			if err := saveLogin(env, c.server, savedLogin{}); err != nil {
				return err
			}
			return show(cmd, map[string]bool{"logged_out": true}, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s is logged out\n", plain(l.User))
				return err
			})
		},
	}
}

func whoamiCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "whoami", Short: "Show as whom commands ask, what that may do, and until when", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var a whoJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/whoami", nil, &a); err != nil {
				return err
			}
			return show(cmd, a, func(w io.Writer) error {
				return fields(w, "name", a.Name, "kind", a.Kind, "id", a.ID, "account", a.Account.Name, "roles", strings.Join(a.Roles, ", "),
					"may", strings.Join(a.Permissions, ", "), "until", when(a.Until))
			})
		}),
	}
}

// savedToken returns the token of the login that is kept for a server, or "".
func savedToken(env environ, server string) (string, error) {
	all, err := readLogins(env)
	if err != nil {
		return "", err
	}
	l := all.Servers[server]
	if l.Until != nil && !time.Now().Before(*l.Until) {
		return "", trust.Errorf(trust.Unauthenticated, "the login as %s has ended at %s", plain(l.User), when(l.Until)).WithHint("keyturn login")
	}
	return l.Token, nil
}
