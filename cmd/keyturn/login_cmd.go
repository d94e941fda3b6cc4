package main

import (
	"context"
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
	var how loginFlags
	cmd := &cobra.Command{
		Use: "login", Short: "Log in, for the commands that follow",
		Long: `Log in, for the commands that follow: they use the login wherever neither
KEYTURN_TOKEN nor KEYTURN_USER is set.

People log in by their identity provider, with a browser on this machine or, with
--device, on any other; where there is none, or with --user, with a password. That is
asked for, unless --password-stdin is given or --user and KEYTURN_PASSWORD, which is not
sent for another user than KEYTURN_USER where that is set; KEYTURN_TOTP is the code of a
user who has a second factor. Such a login holds for 12 hours, and for 2 without being
used. A machine, such as a CI job, exchanges the token that its platform has issued it:
KEYTURN_OIDC_TOKEN, or --jwt-stdin. Its login holds as long as that token, and for an hour
at the most.

"keyturn logout" ends a login at once, and so does another login. It is kept in
$XDG_CONFIG_HOME/keyturn/credentials.json, or below ~/.config, which nobody else can
read, one for each server. --json prints its token, too, for other tools: they send it
as "Authorization: Bearer ...".`,
		Example: `  keyturn login
  keyturn login --provider corp --device
  keyturn login --user alice --password-stdin < password-file
  KEYTURN_OIDC_TOKEN=... keyturn login --provider ci`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := newVisitor(env)
			if err != nil {
				return err
			}
			// Before there is a login that cannot be kept.
			if _, err := credentialsPath(env); err != nil {
				return err
			}
			if _, err := readLogins(env); err != nil {
				return err
			}
			l, err := c.login(cmd, env, how)
			if err != nil {
				return err
			}
			return c.keep(cmd, env, l)
		},
	}
	cmd.Flags().StringVar(&how.provider, "provider", "", "the identity provider to log in by, NAME or ACCOUNT/NAME (default the only one)")
	cmd.Flags().BoolVar(&how.device, "device", false, "log in with a browser on another device")
	cmd.Flags().BoolVar(&how.jwt, "jwt-stdin", false, "read a machine's token of the provider from standard input")
	cmd.Flags().StringVar(&how.user, "user", "", "the user to log in as with a password")
	cmd.Flags().BoolVar(&how.password, "password-stdin", false, "read the password from standard input")
	return cmd
}

// loginFlags say how somebody logs in.
type loginFlags struct {
	provider, user        string
	device, jwt, password bool
}

// login logs in as the flags and the environment say.
func (c *client) login(cmd *cobra.Command, env environ, how loginFlags) (l loginJSON, err error) {
	token := env("KEYTURN_OIDC_TOKEN")
	byPassword := how.user != "" || how.password
	switch {
	case byPassword && (how.provider != "" || how.device || how.jwt) || how.device && how.jwt:
		return l, &usageError{cmd.CommandPath(), errors.New("a login is by --user, or by --provider with --device, --jwt-stdin or neither")}
	case how.jwt && how.provider == "":
		return l, &usageError{cmd.CommandPath(), errors.New("--jwt-stdin needs --provider")}
	case how.jwt:
		if token, err = readToken(cmd); err != nil {
			return l, err
		}
		return c.loginByToken(cmd, how.provider, token)
	case token != "" && how.provider != "" && !how.device:
		return c.loginByToken(cmd, how.provider, token)
	case token != "" && !byPassword && !how.device:
		return l, &usageError{cmd.CommandPath(), errors.New("KEYTURN_OIDC_TOKEN needs --provider")}
	}
	if how.provider == "" && !byPassword {
		if how.provider, err = c.pickProvider(cmd.Context()); err != nil {
			return l, err
		}
	}
	switch {
	case how.device && how.provider == "":
		return l, trust.Errorf(trust.NotFound, "there is no identity provider here to log in by").WithHint("keyturn login --user NAME")
	case how.device:
		return c.loginByDevice(cmd, how.provider)
	case how.provider != "":
		return c.loginByBrowser(cmd, how.provider)
	}
	return c.loginWithPassword(cmd, env, how.user, how.password)
}

// readToken reads a token that is longer than a password can be.
func readToken(cmd *cobra.Command) (string, error) {
	data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 64<<10))
	return strings.TrimSpace(string(data)), err
}

// keep keeps a login for the commands that follow, and says who has logged in. The one that
// was kept before is ended: nobody else knows it.
func (c *client) keep(cmd *cobra.Command, env environ, l loginJSON) error {
	var before savedLogin
	err := changeLogins(env, func(servers map[string]savedLogin) {
		before = servers[c.server]
		servers[c.server] = savedLogin{Token: l.Token, User: l.Name, Until: l.Until}
	})
	if err != nil {
		return errors.Join(err, c.endLogin(cmd.Context(), l.Token))
	}
	if before.Token != "" {
		if err := c.endLogin(cmd.Context(), before.Token); err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "hint: the login before, as %s, is open still: %v\n", plain(before.User), err)
		}
	}
	if env("KEYTURN_TOKEN") != "" || env("KEYTURN_USER") != "" {
		fmt.Fprintln(cmd.ErrOrStderr(), "hint: unset KEYTURN_TOKEN and KEYTURN_USER, which go before this login")
	}
	return showLine(cmd, l, "logged in as %s until %s\n", plain(l.Name), when(l.Until))
}

// loginWithPassword exchanges a user's password for a login. On a terminal it asks
// for what neither the flags nor the environment say.
func (c *client) loginWithPassword(cmd *cobra.Command, env environ, user string, stdin bool) (l loginJSON, err error) {
	tty, known := onTerminal(cmd), ""
	if by := env("KEYTURN_USER"); user != "" && !stdin && (by == "" || by == user) { // what belongs to another user is not sent
		known = env("KEYTURN_PASSWORD")
	}
	if !tty && (user == "" || !stdin && known == "") {
		return l, &usageError{cmd.CommandPath(), errors.New("without a terminal, --user has to be given, and --password-stdin or KEYTURN_PASSWORD in the environment")}
	}
	if user == "" {
		if user, err = readLine(cmd, "User"); err != nil {
			return l, err
		}
	}
	password := known
	if password == "" {
		if password, err = readSecret(cmd, "Password of "+user); err != nil {
			return l, err
		}
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
			if err := c.endLogin(cmd.Context(), l.Token); err != nil {
				return err
			}
			err = changeLogins(env, func(servers map[string]savedLogin) {
				if servers[c.server].Token == l.Token { // and no other, kept meanwhile
					delete(servers, c.server)
				}
			})
			if err != nil {
				return err
			}
			return showLine(cmd, map[string]bool{"logged_out": true}, "%s is logged out\n", plain(l.User))
		},
	}
}

// endLogin ends the login of a token at the server, unless it has ended by itself.
func (c *client) endLogin(ctx context.Context, token string) error {
	by := *c
	by.token = token
	err := by.call(ctx, http.MethodPost, "/logout", nil, nil)
	if trust.KindOf(err) == trust.Unauthenticated {
		return nil
	}
	return err
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
