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

	"keyturn/internal/trust"
)

type certificateJSON struct {
	Serial          string     `json:"serial"`
	Type            string     `json:"type"`
	KeyID           string     `json:"key_id"`
	Principals      []string   `json:"principals"`
	Fingerprint     string     `json:"fingerprint"`
	Authority       string     `json:"authority"`
	Person          string     `json:"person,omitempty"`
	Why             string     `json:"why"`
	Applications    []string   `json:"applications"`
	ValidAfter      *time.Time `json:"valid_after"`
	ValidBefore     *time.Time `json:"valid_before"`
	CriticalOptions []string   `json:"critical_options"`
	Extensions      []string   `json:"extensions"`
	Revoked         string     `json:"revoked,omitempty"`
	CreatedAt       *time.Time `json:"created_at"`
	Certificate     string     `json:"certificate,omitempty"`
}

func certCommand(env environ) *cobra.Command {
	return parent("cert", "Have certificates signed, list them and revoke them",
		certSignCommand(env), certListCommand(env), certShowCommand(env), certRevokeCommand(env))
}

func certSignCommand(env environ) *cobra.Command {
	var ca, file, valid, command string
	var principals, sources []string
	var verify bool
	cmd := &cobra.Command{
		Use: "sign --ca NAME --public-key FILE --principal LOGIN ... [--valid 5m]", Short: "Have a certificate signed for oneself",
		Long: `Have a certificate signed by which you get in as the accounts that --principal names.
A policy has to let you in as each of them. An authority of the whole account lets in at
every host that trusts it, so only policies of applications that stand for every host
count. The certificate is printed as the line of a file; beside the private key
it is called KEY-cert.pub, and ssh finds it there.

By an authority for hosts it is a host's, and principals are the names of that host.`,
		Example: `  keyturn cert sign --ca people --public-key ~/.ssh/id_ed25519.pub --principal deploy > ~/.ssh/id_ed25519-cert.pub
  keyturn cert sign --ca people --public-key ci.pub --principal deploy --valid 2m --source-address 192.0.2.0/24`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			text, err := readPublicKey(cmd, file)
			if err != nil {
				return err
			}
			in := map[string]any{"authority": ca, "public_key": text, "principals": principals, "verify_required": verify}
			for name, value := range map[string]string{"valid": valid, "force_command": command} {
				if value != "" {
					in[name] = value
				}
			}
			if len(sources) > 0 {
				in["source_addresses"] = sources
			}
			var made certificateJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/certificates", in, &made); err != nil {
				return err
			}
			return show(cmd, made, func(w io.Writer) error {
				_, err := fmt.Fprintln(w, plain(made.Certificate))
				return err
			})
		}),
	}
	set := cmd.Flags()
	set.StringVar(&ca, "ca", "", "the authority that signs")
	set.StringVar(&file, "public-key", "", "the file of the public key; - for standard input")
	set.StringArrayVar(&principals, "principal", nil, "the account to get in as; may be repeated")
	set.StringVar(&valid, "valid", "", "for how long (default: what the authority's profile says, minutes)")
	set.StringVar(&command, "force-command", "", "the only command that it runs")
	set.StringArrayVar(&sources, "source-address", nil, "address or network from which alone it lets in; may be repeated")
	set.BoolVar(&verify, "verify-required", false, "a security key has to have verified its user")
	_ = cmd.RegisterFlagCompletionFunc("ca", completeAuthorities(env))
	require(cmd, "ca", "public-key", "principal")
	filled(cmd, "valid", "force-command", "source-address")
	return cmd
}

func certListCommand(env environ) *cobra.Command {
	var user, application string
	var valid bool
	cmd := &cobra.Command{
		Use: "list [--user NAME] [--application NAME] [--valid]", Short: "List certificates, newest first", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			query := url.Values{}
			for name, value := range map[string]string{"user": user, "application": application} {
				if value != "" {
					query.Set(name, value)
				}
			}
			if valid {
				query.Set("valid", "true")
			}
			all, err := list[certificateJSON](cmd.Context(), c, "/certificates", "certificates", query)
			if err != nil {
				return err
			}
			return show(cmd, all, func(w io.Writer) error {
				rows := make([][]string, len(all))
				for i, x := range all {
					rows[i] = []string{x.Serial, x.Type, x.KeyID, strings.Join(x.Principals, ","), x.Fingerprint, when(x.ValidBefore), x.Revoked}
				}
				return table(w, "SERIAL TYPE KEY-ID PRINCIPALS FINGERPRINT VALID-BEFORE REVOKED", rows)
			})
		}),
	}
	cmd.Flags().StringVar(&user, "user", "", "only those of this user, by name or id, also of one who is gone")
	cmd.Flags().StringVar(&application, "application", "", "only those that this application let, by name or id")
	cmd.Flags().BoolVar(&valid, "valid", false, "only those that have not ended")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	return cmd
}

func certShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show SERIAL", Short: "Show a certificate: who has it, why, and until when", Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var x certificateJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/certificates/"+url.PathEscape(args[0]), nil, &x); err != nil {
				return err
			}
			return show(cmd, x, func(w io.Writer) error {
				return fields(w, "serial", x.Serial, "type", x.Type, "key id", x.KeyID, "principals", strings.Join(x.Principals, ","), "fingerprint", x.Fingerprint,
					"authority", x.Authority, "why", x.Why, "applications", strings.Join(x.Applications, ","), "valid from", when(x.ValidAfter), "valid before", when(x.ValidBefore),
					"limited to", strings.Join(x.CriticalOptions, ", "), "extensions", strings.Join(x.Extensions, ", "), "revoked", x.Revoked, "certificate", x.Certificate)
			})
		}),
	}
}

func certRevokeCommand(env environ) *cobra.Command {
	var keyID, user, application, file, reason string
	cmd := &cobra.Command{
		Use: "revoke [SERIAL] [--key-id ID | --user NAME | --application NAME | --public-key FILE]", Short: "Revoke certificates",
		Long: `Revoke one certificate by its serial number, all of a key id, of a user or of those
that an application let, as far as they have not ended, or a public key for ever: every
certificate for it, and the key itself where hosts would let it in without one. Hosts
learn of it by the key revocation list, "keyturn krl". All of an authority are revoked by
"keyturn ca remove".

Which application let them, a certificate keeps, also when its policies have changed:
"keyturn cert show" has the id. When an application is removed, what it let is revoked.

It takes back what there is. What a user may have next is for policies to say. A user who
is gone is named by the id, or by the name unless another user has it now. Of a revoked key
id nothing is signed, for another user of that name either, until all of it have ended.`,
		Example: `  keyturn cert revoke 4611686018427387981 --reason "laptop lost"
  keyturn cert revoke --user ann`,
		Args: func(cmd *cobra.Command, args []string) error { return usage(cmd, cobra.MaximumNArgs(1)(cmd, args)) },
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{}
			if len(args) == 1 {
				in["serial"] = args[0]
			}
			if file != "" {
				text, err := readPublicKey(cmd, file)
				if err != nil {
					return err
				}
				in["public_key"] = text
			}
			for name, value := range map[string]string{"key_id": keyID, "user": user, "application": application} {
				if value != "" {
					in[name] = value
				}
			}
			if len(in) != 1 {
				return &usageError{cmd.CommandPath(), errors.New("say one of: SERIAL, --key-id, --user, --application, --public-key")}
			}
			if reason != "" {
				in["reason"] = reason
			}
			var out struct {
				Revoked int `json:"revoked"`
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/certificates/revoke", in, &out); err != nil {
				return err
			}
			return show(cmd, out, func(w io.Writer) error {
				what := fmt.Sprintf("%d certificates are", out.Revoked)
				switch out.Revoked {
				case 1:
					what = "1 certificate is"
				case -1:
					what = "the key is"
				}
				_, err := fmt.Fprintf(w, "%s revoked; hosts learn of it by the next list: keyturn krl\n", what)
				return err
			})
		}),
	}
	set := cmd.Flags()
	set.StringVar(&keyID, "key-id", "", "all certificates of this key id that have not ended")
	set.StringVar(&user, "user", "", "all certificates of this user that have not ended, by name or id, also of one who is gone")
	set.StringVar(&application, "application", "", "all certificates that this application let and that have not ended, by name or id")
	set.StringVar(&file, "public-key", "", "the file of a public key; - for standard input")
	set.StringVar(&reason, "reason", "", "why, for those who look later")
	_ = cmd.RegisterFlagCompletionFunc("user", completeUsers(env))
	return cmd
}

type krlJSON struct {
	Version     uint64     `json:"version"`
	GeneratedAt *time.Time `json:"generated_at"`
	Serials     []string   `json:"serials"` // numbers, and ranges FIRST-LAST
	KeyIDs      []string   `json:"key_ids"`
	Keys        []string   `json:"keys"` // fingerprints
	Bytes       int        `json:"bytes"`
}

func krlCommand(env environ) *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "krl [--out FILE]", Short: "Get the key revocation list, as RevokedKeys of sshd reads it",
		Long: `Get the key revocation list. With --out it takes the place of a file, in one step and
only if it is a list that sshd can read: a host whose RevokedKeys cannot be read lets
nobody in. The file keeps its owner and mode; everybody can read a new one, as ssh has
to for RevokedHostKeys. With --out - the list is written to standard output. Without --out, what is revoked is printed. Hosts can fetch it themselves from
GET /api/v1/krl, with If-None-Match.`,
		Example: `  keyturn krl --out /etc/ssh/revoked_keys
  keyturn krl --out - | ssh web1 'cat >/etc/ssh/revoked_keys.new && ssh-keygen -Q -l -f /etc/ssh/revoked_keys.new >/dev/null && mv /etc/ssh/revoked_keys.new /etc/ssh/revoked_keys'`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			if out == "-" && asJSON(cmd) {
				return &usageError{cmd.CommandPath(), errors.New("--json says what became of a file: give it a name with --out")}
			}
			data, err := c.fetch(cmd.Context(), "/krl")
			if err != nil {
				return err
			}
			k, err := trust.ParseKRL(data)
			if err != nil {
				return trust.Errorf(trust.Unavailable, "what %s answered is no list that sshd reads: %w", c.server, err)
			}
			if out == "-" {
				_, err := cmd.OutOrStdout().Write(data)
				return err
			}
			if out != "" {
				if err := replacePublicFile(out, data); err != nil {
					return trust.Errorf(trust.Invalid, "%w", err).WithField("out")
				}
			}
			said := krlSaid(k, len(data))
			return show(cmd, said, func(w io.Writer) error { return printKRL(w, said) })
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "the file to make or replace; - for standard output")
	filled(cmd, "out")
	return cmd
}

func krlSaid(k *trust.KRL, size int) krlJSON {
	said := krlJSON{Version: k.Version, Bytes: size, Serials: []string{}, KeyIDs: []string{}, Keys: []string{}}
	if k.Generated.Unix() > 0 {
		said.GeneratedAt = &k.Generated
	}
	for _, c := range k.Certificates {
		for _, r := range c.Serials {
			text := fmt.Sprint(r.First)
			if r.Last > r.First {
				text += fmt.Sprintf("-%d", r.Last)
			}
			said.Serials = append(said.Serials, text)
		}
		said.KeyIDs = append(said.KeyIDs, c.KeyIDs...)
	}
	for _, key := range k.Keys {
		said.Keys = append(said.Keys, string(key.Fingerprint()))
	}
	return said
}

func printKRL(w io.Writer, said krlJSON) error {
	var rows [][]string
	for _, kind := range []struct {
		name string
		list []string
	}{{"serial", said.Serials}, {"key-id", said.KeyIDs}, {"key", said.Keys}} {
		for _, value := range kind.list {
			rows = append(rows, []string{kind.name, value})
		}
	}
	of := "; nothing was ever revoked"
	if said.GeneratedAt != nil {
		of = ", of " + when(said.GeneratedAt)
	}
	if _, err := fmt.Fprintf(w, "version %d, %d bytes%s\n", said.Version, said.Bytes, of); err != nil || len(rows) == 0 {
		return err
	}
	return table(w, "REVOKED WHAT", rows)
}
