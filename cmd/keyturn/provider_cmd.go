package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type providerJSON struct {
	ID        string     `json:"id"`
	Name      string     `json:"name"`
	Kind      string     `json:"kind"`
	Issuer    string     `json:"issuer"`
	ClientID  string     `json:"client_id,omitempty"`
	HasSecret bool       `json:"has_secret"`
	Redirect  string     `json:"redirect_uri,omitempty"`
	Scopes    []string   `json:"scopes"`
	NameClaim string     `json:"name_claim,omitempty"`
	Audiences []string   `json:"audiences"`
	Rules     []string   `json:"rules"`
	Required  []string   `json:"required"`
	CreatedAt *time.Time `json:"created_at"`
}

type publishedJSON struct {
	Provider              providerJSON `json:"provider"`
	AuthorizationEndpoint string       `json:"authorization_endpoint,omitempty"`
	TokenEndpoint         string       `json:"token_endpoint,omitempty"`
	DeviceEndpoint        string       `json:"device_endpoint,omitempty"`
	Algorithms            []string     `json:"algorithms"`
	Keys                  int          `json:"keys"`
}

func providerCommand(env environ) *cobra.Command {
	return parent("provider", "Let an identity provider say who people and machines are",
		providerAddCommand(env), providerSetCommand(env), providerListCommand(env), providerTestCommand(env), providerRemoveCommand(env))
}

// providerFlags are what is said of a provider on the command line.
type providerFlags struct {
	kind, issuer, client, nameClaim   string
	scopes, audiences, rules, require []string
	secret                            bool
}

func (f *providerFlags) add(cmd *cobra.Command) {
	set := cmd.Flags()
	set.StringVar(&f.kind, "kind", "people", `whom it vouches for, "people" or "machines"`)
	set.StringVar(&f.issuer, "issuer", "", "its URL, below which /.well-known/openid-configuration is")
	set.StringVar(&f.client, "client-id", "", "what it knows Keyturn as (people)")
	set.BoolVar(&f.secret, "client-secret-stdin", false, "read the client's secret from standard input (people; a public client has none)")
	set.StringArrayVar(&f.scopes, "scope", nil, `what it is asked for; may be repeated (people; default openid, profile and email)`)
	set.StringVar(&f.nameClaim, "name-claim", "", "the claim by which a new user is called (people; default preferred_username)")
	set.StringArrayVar(&f.audiences, "audience", nil, "what tokens have to be issued for; may be repeated (machines)")
	set.StringArrayVar(&f.rules, "rule", nil, `who has which role, "claim=value -> Role"; may be repeated`)
	set.StringArrayVar(&f.require, "require", nil, `what has to be there in any case, "claim=value"; may be repeated`)
	_ = cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions([]string{"people", "machines"}, cobra.ShellCompDirectiveNoFileComp))
	require(cmd, "issuer", "rule")
}

func (f *providerFlags) body(cmd *cobra.Command, name string) (map[string]any, error) {
	in := map[string]any{
		"kind": f.kind, "issuer": f.issuer, "client_id": f.client, "name_claim": f.nameClaim, "scopes": notNil(f.scopes),
		"audiences": notNil(f.audiences), "rules": notNil(f.rules), "required": notNil(f.require),
	}
	if f.secret {
		secret, err := readSecret(cmd, "Client secret of "+name)
		if err != nil {
			return nil, err
		}
		if secret == "" {
			return nil, &usageError{cmd.CommandPath(), errors.New("standard input holds no client secret")}
		}
		in["client_secret"] = secret
	}
	return in, nil
}

const rulesHelp = `
A rule gives a role to whom a claim says a value of, or has it in a list. A claim that
begins with "/" is a JSON pointer, for what lies deeper. Of machines, a value may end
in "*". An address of e-mail counts only if the provider has verified it. Nobody is
let in whom no rule gives a role, and nobody can give more than they may do
themselves. The rules are asked at each login: a change counts from the next one on.`

func providerAddCommand(env environ) *cobra.Command {
	var f providerFlags
	cmd := &cobra.Command{
		Use: "add NAME --issuer URL --rule 'CLAIM=VALUE -> ROLE' ...", Short: "Add an identity provider (OpenID Connect)",
		Long: `Add an identity provider: an issuer of OpenID Connect. People log in at it, in a
browser, with "keyturn login"; register Keyturn there as a client of the kind for
native applications, and give that the redirect URI that is printed, on any port. It
is another one for each provider, so that none can have a code that is for another.
Machines, such as CI jobs, exchange a token that the issuer has issued them.
` + rulesHelp,
		Example: `  keyturn provider add corp --issuer https://id.example.com --client-id keyturn \
    --client-secret-stdin --scope openid --scope profile --scope groups \
    --rule 'groups=ssh-admins -> Operator' < secret-file
  keyturn provider add ci --kind machines --issuer https://token.actions.githubusercontent.com \
    --audience https://keyturn.example.com --require repository=acme/infra \
    --rule 'ref=refs/heads/main -> Operator'`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in, err := f.body(cmd, args[0])
			if err != nil {
				return err
			}
			in["name"] = args[0]
			var p providerJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/providers", in, &p); err != nil {
				return err
			}
			return show(cmd, p, func(w io.Writer) error { return printProvider(w, p) })
		}),
	}
	f.add(cmd)
	return cmd
}

func providerSetCommand(env environ) *cobra.Command {
	var f providerFlags
	cmd := &cobra.Command{
		Use: "set NAME --issuer URL --rule 'CLAIM=VALUE -> ROLE' ...", Short: "Say anew what an identity provider's word is good for",
		Long: `Say anew what an identity provider's word is good for: what is given here takes the
place of all that was, but for a client secret, which stays if none is given. Issuer
and kind cannot change. What has been logged in with by then goes on as it is; "keyturn
provider remove" ends it.
` + rulesHelp,
		Example: `  keyturn provider set corp --issuer https://id.example.com --client-id keyturn \
    --rule 'groups=ssh-admins -> Operator' --rule 'groups=audit -> Auditor'`,
		Args: exactly(1), ValidArgsFunction: completeProviders(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in, err := f.body(cmd, args[0])
			if err != nil {
				return err
			}
			var p providerJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/providers/"+url.PathEscape(args[0]), in, &p); err != nil {
				return err
			}
			return show(cmd, p, func(w io.Writer) error { return printProvider(w, p) })
		}),
	}
	f.add(cmd)
	return cmd
}

func providerListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List identity providers, and who gets in by them", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			list, err := whole[providerJSON](cmd.Context(), c, "/providers", "providers")
			if err != nil {
				return err
			}
			return show(cmd, list, func(w io.Writer) error {
				for i, p := range list {
					if i > 0 {
						fmt.Fprintln(w)
					}
					if err := printProvider(w, p); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
}

func providerTestCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "test NAME", Short: "Have the server ask an identity provider what it publishes", Args: exactly(1), ValidArgsFunction: completeProviders(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var p publishedJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/providers/"+url.PathEscape(args[0])+"/test", nil, &p); err != nil {
				return err
			}
			return show(cmd, p, func(w io.Writer) error {
				return fields(w, "issuer", p.Provider.Issuer, "people log in at", p.AuthorizationEndpoint, "at another device by", p.DeviceEndpoint,
					"tokens from", p.TokenEndpoint, "signed with", strings.Join(p.Algorithms, ", "), "public keys", fmt.Sprint(p.Keys))
			})
		}),
	}
}

func providerRemoveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Remove an identity provider with the users it vouched for, and end all logins by it, at once",
		Args: exactly(1), ValidArgsFunction: completeProviders(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, "/providers/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%s is removed, with its users, and all logins by it are ended\n", args[0])
		}),
	}
}

func printProvider(w io.Writer, p providerJSON) error {
	pairs := []string{
		"name", p.Name, "for", p.Kind, "issuer", p.Issuer, "client", p.ClientID, "client secret", yes(p.HasSecret),
		"redirect URI", p.Redirect,
		"scopes", strings.Join(p.Scopes, " "), "name claim", p.NameClaim, "audiences", strings.Join(p.Audiences, ", "),
	}
	for _, m := range p.Required {
		pairs = append(pairs, "required", m)
	}
	for _, r := range p.Rules {
		pairs = append(pairs, "rule", r)
	}
	return fields(w, append(pairs, "created", when(p.CreatedAt))...)
}
