package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
)

type seedJSON struct {
	ID        string        `json:"seed_id"`
	Phase     string        `json:"phase"`
	Since     time.Time     `json:"since"`
	Until     *time.Time    `json:"until,omitempty"`
	Run       string        `json:"run,omitempty"`
	Presented string        `json:"presented"`
	Announced []string      `json:"announced"`
	Queued    string        `json:"queued,omitempty"`
	Revoked   []string      `json:"revoked"`
	Keys      []seedKeyJSON `json:"keys"`
}

type seedKeyJSON struct {
	Host        string `json:"host,omitempty"`
	HostID      string `json:"host_id"`
	Name        string `json:"name"`
	Type        string `json:"type"`
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
	Seed        string `json:"seed_id"`
	Presented   bool   `json:"presented"`
	Revoked     bool   `json:"revoked,omitempty"`
}

// state says of a key what is done with it.
func (k seedKeyJSON) state() string {
	switch {
	case k.Presented:
		return "presented"
	case k.Revoked:
		return "revoked"
	}
	return "announced"
}

func seedCommand(env environ) *cobra.Command {
	return parent("seed", "Show and rotate what the gateway's host keys are derived from", seedShowCommand(env), seedRotateCommand(env), seedCertifyCommand(env))
}

func seedShowCommand(env environ) *cobra.Command {
	var host string
	cmd := &cobra.Command{
		Use:   "show",
		Short: "Show the seed, how its rotation stands, and the host keys that follow from it",
		Long: `Show the seed, how its rotation stands, and the host keys that follow from it: for
each host, and first for the gateway itself.

  settled       the seed's keys are presented
  present-old   the keys of the seed before are presented; those of this one are
                announced, so that clients learn them
  present-new   the seed's keys are presented; those of the one before are
                announced still, until every node of the gateway presents the new`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var s seedJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/seed", nil, &s); err != nil {
				return err
			}
			var err error
			if s.Keys, err = list[seedKeyJSON](cmd.Context(), c, "/seed/keys", "keys", ofHost(host)); err != nil {
				return err
			}
			return show(cmd, s, func(w io.Writer) error {
				if err := fields(w, "seed", s.ID, "phase", s.Phase, "since", when(&s.Since), "until", when(s.Until), "run", s.Run, "queued", s.Queued); err != nil {
					return err
				}
				rows := make([][]string, len(s.Keys))
				for i, k := range s.Keys {
					rows[i] = []string{k.Host, k.Type, k.Fingerprint, k.state()}
				}
				return table(w, "HOST TYPE FINGERPRINT STATE", rows)
			})
		}),
	}
	cmd.Flags().StringVar(&host, "for", "", "only the keys of this host, by name or id")
	_ = cmd.RegisterFlagCompletionFunc("for", completeHosts(env))
	return cmd
}

// ofHost is the query for the keys of one host, or of all.
func ofHost(host string) url.Values {
	query := url.Values{}
	if host != "" {
		query.Set("host", host)
	}
	return query
}

func seedRotateCommand(env environ) *cobra.Command {
	var compromised bool
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Give every host another key at the gateway, without a warning in front of those who connect",
		Long: `Give every host another key at the gateway. A new seed is made, and its keys are
announced beside those that are presented now. After seed.overlap they are
presented, and after seed.overlap again the old ones are announced no more.

An OpenSSH client that knows a host, and connects to it at least once while the
old key is still presented, learns the new one and is never warned. Its very first
connection to a host teaches it no other key. Whoever does not connect in that
time is warned, as docs/host-identity.md shows, and takes the new key from
"keyturn known-hosts".

Asked again before the new keys are presented, another new seed takes the place of
the new one, and the time begins anew. Asked again later, the next rotation begins
after the one that is under way. "keyturn run back" goes back, by the same steps.

--compromised is for a seed that somebody else may have, who could pass himself
off as every host. There is no overlap then: the new keys are presented at once,
all keys of before are revoked, and everybody who connects is warned until he has
the output of "keyturn known-hosts". There is no way back.`,
		Example: "  keyturn seed rotate\n  keyturn seed show",
		Args:    noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var out struct {
				Run  string `json:"run,omitempty"`
				Seed string `json:"seed_id"`
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/seed/rotate", map[string]any{"compromised": compromised}, &out); err != nil {
				return err
			}
			return show(cmd, out, func(w io.Writer) error {
				if compromised {
					_, err := fmt.Fprintf(w, "The keys of seed %s are presented now, and all keys of before are revoked.\nEverybody who connects through the gateway has to act: give them the output of keyturn known-hosts.\n", out.Seed)
					return err
				}
				_, err := fmt.Fprintf(w, "Run %s rotates to seed %s.\nClients that connect while the old keys are presented learn the new ones: keyturn seed show says until when.\n", out.Run, out.Seed)
				return err
			})
		}),
	}
	cmd.Flags().BoolVar(&compromised, "compromised", false, "somebody else may have the seed: replace it at once, and revoke its keys")
	return cmd
}

func knownHostsCommand(env environ) *cobra.Command {
	var host, authorities string
	var hashed, revoked bool
	cmd := &cobra.Command{
		Use:   "known-hosts",
		Short: "Print by which keys hosts are known at the gateway, as lines for known_hosts",
		Long: `Print by which keys hosts are known at the gateway, as lines for known_hosts. While
the seed is rotated, they hold the old keys and the new ones.

Keys of seeds that were compromised are in none of these lines. --revoked prints them
alone, as a file for ssh's option RevokedHostKeys: for who may know them from elsewhere.

The name in a line is not that of the host, but one that says which host at whose
gateway, for ssh's option HostKeyAlias: under the host's own name, a client that
also connects to it directly would forget the gateway's key each time.

--authorities only prints other lines: one with @cert-authority for each certificate
authority that signs for hosts, good for those names only, by which ssh accepts the
certificates of "keyturn seed certify"; and for each that was removed, one with @revoked, by
which ssh refuses them. They stay the same when the seed is rotated and when hosts are
added. --authorities too prints both kinds. A client that has such a line of a host learns
no key of it any more: it goes by certificates alone, or its file has to be made anew
in each rotation.`,
		Example: "  keyturn known-hosts > ~/.ssh/known_hosts_gateway\n  keyturn known-hosts --for web1 --hashed\n  keyturn known-hosts --revoked > ~/.ssh/revoked_gateway_keys",
		Args:    noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			query := ofHost(host)
			if hashed {
				query.Set("hashed", "true")
			}
			if revoked {
				query.Set("revoked", "true")
			}
			query.Set("authorities", authorities)
			lines, err := list[string](cmd.Context(), c, "/known-hosts", "lines", query)
			if err != nil {
				return err
			}
			return show(cmd, lines, func(w io.Writer) error {
				out := bufio.NewWriter(w)
				for _, l := range lines {
					_, _ = fmt.Fprintln(out, l) // Flush tells
				}
				return out.Flush()
			})
		}),
	}
	cmd.Flags().StringVar(&host, "for", "", "only the keys of this host, by name or id")
	cmd.Flags().BoolVar(&hashed, "hashed", false, "hash the names, as HashKnownHosts does; patterns cannot be")
	cmd.Flags().StringVar(&authorities, "authorities", "none", "lines of certificate authorities: too, only or none")
	cmd.Flags().BoolVar(&revoked, "revoked", false, "the keys of compromised seeds instead, for RevokedHostKeys")
	cmd.MarkFlagsMutuallyExclusive("revoked", "hashed")
	cmd.MarkFlagsMutuallyExclusive("revoked", "authorities")
	_ = cmd.RegisterFlagCompletionFunc("for", completeHosts(env))
	_ = cmd.RegisterFlagCompletionFunc("authorities", cobra.FixedCompletions([]string{"too", "only", "none"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}
