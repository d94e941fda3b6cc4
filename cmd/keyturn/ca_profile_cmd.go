package main

import (
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
)

// A profileJSON is what an authority signs.
type profileJSON struct {
	Valid           string   `json:"valid"`
	MaxValid        string   `json:"max_valid"`
	KeyTypes        []string `json:"key_types"`
	MinRSA          int      `json:"min_rsa"`
	Extensions      []string `json:"extensions"`
	CriticalOptions []string `json:"critical_options"`
	MaxPrincipals   int      `json:"max_principals"`
}

func caProfileCommand(env environ) *cobra.Command {
	var p profileJSON
	cmd := &cobra.Command{
		Use: "profile NAME", Short: "Print or change what a certificate authority signs",
		Long: `Print what a certificate authority signs: for how long, for which keys, with how many
principals, with which extensions and critical options. With flags, change it first; what
no flag names stays as it is, and so does what was signed. An empty list is none.`,
		Example: `  keyturn ca profile people
  keyturn ca profile people --valid 10m --max-valid 8h
  keyturn ca profile people --key-type sk-ssh-ed25519@openssh.com,sk-ecdsa-sha2-nistp256@openssh.com --extension permit-pty`,
		Args: exactly(1), ValidArgsFunction: completeAuthorities(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]any{}
			for flag, v := range map[string]struct {
				name  string
				value any
			}{
				"valid": {"valid", p.Valid}, "max-valid": {"max_valid", p.MaxValid}, "key-type": {"key_types", p.KeyTypes}, "min-rsa": {"min_rsa", p.MinRSA},
				"extension": {"extensions", p.Extensions}, "critical-option": {"critical_options", p.CriticalOptions}, "max-principals": {"max_principals", p.MaxPrincipals},
			} {
				if cmd.Flags().Changed(flag) {
					in[v.name] = v.value
				}
			}
			path, method := "/authorities/"+url.PathEscape(args[0]), http.MethodGet
			if len(in) > 0 {
				path, method = path+"/profile", http.MethodPatch
			}
			var out struct {
				Authorities []authorityJSON `json:"authorities"`
			}
			var body any
			if len(in) > 0 {
				body = in
			}
			if err := c.call(cmd.Context(), method, path, body, &out); err != nil {
				return err
			}
			now := signingNow(out.Authorities)
			return show(cmd, now.Profile, func(w io.Writer) error { return printProfile(w, now.Profile) })
		}),
	}
	f := cmd.Flags()
	f.StringVar(&p.Valid, "valid", "", "how long a certificate is valid where nobody says, such as 5m")
	f.StringVar(&p.MaxValid, "max-valid", "", "how long at most, such as 24h")
	f.StringSliceVar(&p.KeyTypes, "key-type", nil, "types of keys that are certified, such as ssh-ed25519")
	f.IntVar(&p.MinRSA, "min-rsa", 0, "fewest bits of an RSA key")
	f.StringSliceVar(&p.Extensions, "extension", nil, "extensions that a certificate may have, and has where nobody says, such as permit-pty")
	f.StringSliceVar(&p.CriticalOptions, "critical-option", nil, "critical options that may be asked for, such as force-command")
	f.IntVar(&p.MaxPrincipals, "max-principals", 0, "how many principals a certificate has at most")
	return cmd
}

// signingNow returns the authority of a name that signs, or else the last one.
func signingNow(all []authorityJSON) (a authorityJSON) {
	for _, a = range all {
		if a.State == "signing" {
			break
		}
	}
	return a
}

func printProfile(w io.Writer, p profileJSON) error {
	return fields(w, "valid", p.Valid, "max-valid", p.MaxValid, "key-types", strings.Join(p.KeyTypes, ", "), "min-rsa", strconv.Itoa(p.MinRSA),
		"extensions", strings.Join(p.Extensions, ", "), "critical-options", strings.Join(p.CriticalOptions, ", "), "max-principals", strconv.Itoa(p.MaxPrincipals))
}
