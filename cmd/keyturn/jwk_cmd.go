package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

type jwksJSON struct {
	Days int       `json:"rotate_after_days"`
	Left int       `json:"days_left"`
	Keys []jwkJSON `json:"keys"`
}

type jwkJSON struct {
	KID         string     `json:"kid"`
	Created     time.Time  `json:"created_at"`
	Until       *time.Time `json:"published_until,omitempty"`
	Certificate string     `json:"certificate"`
}

func jwkCommand(env environ) *cobra.Command {
	return parent("jwk", "Show and rotate the keys that sign tokens of applications", jwkShowCommand(env), jwkSetCommand(env), jwkRotateCommand(env))
}

func jwkShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use:   "show",
		Short: "Show the key that signs tokens, those that are published besides, and when the next one comes",
		Long: `Show the key that signs tokens of applications, and those before it that are
published still. Whoever verifies a token finds them at /cdn-cgi/access/certs of the
server, as JSON Web Keys and as certificates. An account gets its first key when
somebody asks for it first.`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var s jwksJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/jwks", nil, &s); err != nil {
				return err
			}
			return showJWKs(cmd, s)
		}),
	}
}

func jwkSetCommand(env environ) *cobra.Command {
	var days int
	cmd := &cobra.Command{
		Use:     "set --rotate-after-days DAYS",
		Short:   "Say after how many days another key takes the place of the one that signs",
		Example: "  keyturn jwk set --rotate-after-days 30",
		Args:    noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var s jwksJSON
			if err := c.call(cmd.Context(), http.MethodPut, "/jwks", map[string]any{"rotate_after_days": days}, &s); err != nil {
				return err
			}
			return showJWKs(cmd, s)
		}),
	}
	cmd.Flags().IntVar(&days, "rotate-after-days", 0, "21 to 365")
	_ = cmd.MarkFlagRequired("rotate-after-days")
	return cmd
}

func jwkRotateCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use:   "rotate",
		Short: "Have tokens be signed by another key from now on",
		Long: `Have tokens be signed by another key from now on. The private half of the one that
did is destroyed, and its public half is published for seven days still, for the
tokens that it has signed.`,
		Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			var s jwksJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/jwks/rotate", nil, &s); err != nil {
				return err
			}
			return showJWKs(cmd, s)
		}),
	}
}

func showJWKs(cmd *cobra.Command, s jwksJSON) error {
	return show(cmd, s, func(w io.Writer) error {
		if err := fields(w, "rotates after", fmt.Sprintf("%d days", s.Days), "days left", fmt.Sprint(s.Left)); err != nil {
			return err
		}
		rows := make([][]string, len(s.Keys))
		for i, k := range s.Keys {
			state := "signs"
			if k.Until != nil {
				state = "published"
			}
			rows[i] = []string{k.KID, state, when(&k.Created), when(k.Until)}
		}
		return table(w, "KID STATE SINCE UNTIL", rows)
	})
}
