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

type authorityJSON struct {
	ID           string      `json:"id"`
	Name         string      `json:"name"`
	Purpose      string      `json:"purpose"`
	Application  string      `json:"application,omitempty"`
	State        string      `json:"state"`
	Type         string      `json:"type"`
	Fingerprint  string      `json:"fingerprint"`
	PublicKey    string      `json:"public_key"`
	Profile      profileJSON `json:"profile"`
	CreatedAt    *time.Time  `json:"created_at"`
	SignsFrom    *time.Time  `json:"signs_from"`
	SignsUntil   *time.Time  `json:"signs_until,omitempty"`
	TrustedUntil *time.Time  `json:"trusted_until,omitempty"`
}

func caCommand(env environ) *cobra.Command {
	return parent("ca", "Sign certificates: authorities that hosts trust", caCreateCommand(env), caListCommand(env), caShowCommand(env), caProfileCommand(env), caRotateCommand(env), caRemoveCommand(env))
}

var authorityTypes = []string{"ecdsa-p256", "ed25519", "rsa-4096"}

func caCreateCommand(env environ) *cobra.Command {
	var kind, purpose, application string
	cmd := &cobra.Command{
		Use: "create NAME [--type ecdsa-p256|ed25519|rsa-4096]", Short: "Make a certificate authority",
		Long: `Make a certificate authority. Its private key is made here, sealed, and never leaves.

What is printed is a line for the file that TrustedUserCAKeys names on each host that
should let its certificates in. A host looks at the principals of a certificate, and
not at who decided on them: let a host trust it together with RevokedKeys, the file
that "keyturn krl" makes.

That of an application signs for those whom the policies of the application let in, and
only hosts of the application should trust it. An application has one, which goes with it.`,
		Example: `  keyturn ca create people
  keyturn ca create web --application "web servers"
  keyturn ca create hosts --purpose host --type ed25519`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var a authorityJSON
			in := map[string]any{"name": args[0], "type": kind, "purpose": purpose}
			if application != "" {
				in["application"] = application
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/authorities", in, &a); err != nil {
				return err
			}
			return show(cmd, a, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, plain(a.PublicKey))
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&kind, "type", "ecdsa-p256", "of its key: "+strings.Join(authorityTypes, ", "))
	cmd.Flags().StringVar(&purpose, "purpose", "user", `what its certificates are for: "user", "host" or "gateway"`)
	cmd.Flags().StringVar(&application, "application", "", "name or id of the application that it is for (default: the whole account)")
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(authorityTypes, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("purpose", cobra.FixedCompletions([]string{"user", "host", "gateway"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func caListCommand(env environ) *cobra.Command {
	var application string
	cmd := &cobra.Command{
		Use: "list [--application NAME]", Short: "List certificate authorities", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			all, err := list[authorityJSON](cmd.Context(), c, "/authorities", "authorities", given("application", application))
			if err != nil {
				return err
			}
			return show(cmd, all, func(w io.Writer) error {
				rows := make([][]string, len(all))
				for i, a := range all {
					rows[i] = []string{a.Name, a.Purpose, a.Application, a.State, a.Type, a.Fingerprint, when(a.SignsFrom), when(a.TrustedUntil)}
				}
				return table(w, "NAME PURPOSE APPLICATION STATE TYPE FINGERPRINT SIGNS-FROM TRUSTED-UNTIL", rows)
			})
		}),
	}
	cmd.Flags().StringVar(&application, "application", "", "only those of the application of this name or id")
	_ = cmd.RegisterFlagCompletionFunc("application", completeApplications(env))
	return cmd
}

func caShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Print what hosts should trust: the file that TrustedUserCAKeys names",
		Long: `Print the public keys of a certificate authority that hosts should trust at this
time, one a line, each after a comment on what it does: around a rotation there are two.
The output as it is can be the file that TrustedUserCAKeys names.`,
		Args: exactly(1), ValidArgsFunction: completeAuthorities(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			all, err := whole[authorityJSON](cmd.Context(), c, "/authorities/"+url.PathEscape(args[0]), "authorities")
			if err != nil {
				return err
			}
			return show(cmd, all, func(w io.Writer) error { return printTrusted(w, all) })
		}),
	}
}

// printTrusted prints what hosts should trust, as a file that sshd reads.
func printTrusted(w io.Writer, all []authorityJSON) error {
	for _, a := range all {
		says := map[string]string{"next": "signs from " + when(a.SignsFrom), "signing": "signs", "outgoing": "signs no more; to be trusted until " + when(a.TrustedUntil)}[a.State]
		if says == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "# %s: %s\n%s\n", plain(a.Name), says, plain(a.PublicKey)); err != nil {
			return err
		}
	}
	return nil
}

func caRotateCommand(env environ) *cobra.Command {
	var kind, overlap string
	cmd := &cobra.Command{
		Use: "rotate NAME [--overlap 24h]", Short: "Have another key take the place of the one that signs",
		Long: `Have another key take the place of the one that signs, after an overlap (the setting
ca.overlap) in which hosts learn to trust it: until then the present key signs. It is
to be trusted afterwards for as long as what it signed may be valid. What is printed is
what hosts should trust from now on, as "keyturn ca show" prints it at any time.

Where none signs, because the one that did was removed, the next key does after the
overlap: at once with "--overlap 0s".`,
		Args: exactly(1), ValidArgsFunction: completeAuthorities(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{}
			for name, value := range map[string]string{"type": kind, "overlap": overlap} {
				if value != "" {
					in[name] = value
				}
			}
			var out struct {
				Authorities []authorityJSON `json:"authorities"`
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/authorities/"+url.PathEscape(args[0])+"/rotate", in, &out); err != nil {
				return err
			}
			return show(cmd, out.Authorities, func(w io.Writer) error { return printTrusted(w, out.Authorities) })
		}),
	}
	cmd.Flags().StringVar(&kind, "type", "", "of the new key: "+strings.Join(authorityTypes, ", ")+" (default: that of the present one)")
	cmd.Flags().StringVar(&overlap, "overlap", "", "how long hosts have to trust the new key before it signs (default: the setting ca.overlap)")
	_ = cmd.RegisterFlagCompletionFunc("type", cobra.FixedCompletions(authorityTypes, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func caRemoveCommand(env environ) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use: "remove NAME", Short: "Revoke a certificate authority with all that it signed, and destroy its private key",
		Long: `Revoke a certificate authority, the one that signs under a name or that of an id, with
all that it signed, and destroy its private key. Where hosts have the next key
revocation list, nothing that it signed opens any more. There is no way back.

Another key of the name, one about to sign or one that signs no more, is named by its
id ("keyturn ca show NAME --json"). Without the next one, the one that signs goes on;
without the one that signs, the next one begins when it was to, or at once by
"keyturn ca rotate NAME --overlap 0s".`,
		Args: exactly(1), ValidArgsFunction: completeAuthorities(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			path := "/authorities/" + url.PathEscape(args[0])
			if reason != "" {
				path += "?" + url.Values{"reason": {reason}}.Encode()
			}
			var out removedAuthorityJSON
			if err := c.call(cmd.Context(), http.MethodDelete, path, nil, &out); err != nil {
				return err
			}
			return show(cmd, out, func(w io.Writer) error {
				_, err := fmt.Fprintf(w, "%s of %s is revoked; hosts learn of it by the next list: keyturn krl\n%s", plain(out.Fingerprint), plain(out.Name), out.signsNext())
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look later")
	return cmd
}

type removedAuthorityJSON struct {
	Removed     string          `json:"removed"`
	ID          string          `json:"id"`
	Name        string          `json:"name"`
	Fingerprint string          `json:"fingerprint"`
	Authorities []authorityJSON `json:"authorities"`
}

// signsNext says what signs under the name from now on, where the key that did is gone
// and others are left.
func (r removedAuthorityJSON) signsNext() string {
	name := plain(r.Name)
	for _, a := range r.Authorities {
		switch a.State {
		case "signing":
			return ""
		case "next":
			return fmt.Sprintf("nothing signs as %s until %s; at once: keyturn ca rotate %s --overlap 0s\n", name, when(a.SignsFrom), name)
		}
	}
	if len(r.Authorities) == 0 {
		return fmt.Sprintf("nothing signs as %s any more, and its profile went with it; for another of the name: keyturn ca create %s, then keyturn ca profile %[1]s\n", name, name)
	}
	return fmt.Sprintf("nothing signs as %s now; for another key: keyturn ca rotate %s\n", name, name)
}
