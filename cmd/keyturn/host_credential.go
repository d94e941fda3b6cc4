package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"keyturn/internal/trust"
)

func hostCredentialCommand(env environ) *cobra.Command {
	return parent("credential", "Say which keys open a host for Keyturn", hostCredentialAddCommand(env), hostCredentialRemoveCommand(env))
}

func hostCredentialAddCommand(env environ) *cobra.Command {
	var key, agentKey string
	var first bool
	cmd := &cobra.Command{
		Use: "add NAME (--key UUID | --agent-key FILE)", Short: "Add a key to what opens a host",
		Long: `Add a key to those by which Keyturn logs in to a host, which it tries in their
order. The host has to accept it: nothing is changed there, and it is not tried now.
"keyturn scan" logs in by each of them.

A key that Keyturn holds is from then on for users who are named for it, and by the agent
signs for nobody else: also when it is taken out again. "keyturn key allow" names them.`,
		Example: "  keyturn host credential add web1 --agent-key ~/.ssh/hsm.pub --first\n  keyturn host credential add web1 --key 7f1c...",
		Args:    exactly(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			if (key == "") == (agentKey == "") {
				return &usageError{cmd.CommandPath(), errors.New("either --key or --agent-key is to be given")}
			}
			in := map[string]any{"first": first}
			limits := false
			if key != "" {
				var users keyUsersJSON
				err := c.call(cmd.Context(), http.MethodGet, "/keys/"+url.PathEscape(key)+"/users", nil, &users) // refused, it is not said
				limits = err == nil && !users.Limited
				in["key"] = key
			} else {
				public, err := c.agentKey(cmd, agentKey)
				if err != nil {
					return err
				}
				in["agent_key"] = public
			}
			if err := c.showCredentials(cmd, http.MethodPost, "/hosts/"+url.PathEscape(args[0])+"/credentials", in); err != nil || !limits {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "key %s was for everybody with the permission Keys Use; from now on it signs for nobody by the agent who is not named, also when it opens no host any more\n"+
				"  keyturn key allow %[1]s, by who may write users, says who may\n", key)
			return nil
		}),
	}
	cmd.Flags().StringVar(&key, "key", "", "the uuid of a key that Keyturn holds")
	cmd.Flags().StringVar(&agentKey, "agent-key", "", agentKeyUsage)
	cmd.Flags().BoolVar(&first, "first", false, "try it before the others")
	_ = cmd.RegisterFlagCompletionFunc("key", completeKeys(env, "active"))
	return cmd
}

func hostCredentialRemoveCommand(env environ) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "remove NAME UUID", Short: "Take a key out of what opens a host",
		Long: `Take a key out of those by which Keyturn logs in to a host, unless it is the last
one, or none of those that stay was seen to open it by the newest scan that tried them.
Its line on the host stays: "keyturn retire" withdraws it. The key stays limited to the
users who are named for it: "keyturn key allow" lifts that.

--force is for a key that has to go although nothing else is known to open the host, which
may then be out of reach.`,
		Args: exactly(2), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			path := "/hosts/" + url.PathEscape(args[0]) + "/credentials/" + url.PathEscape(args[1])
			if force {
				path += "?force=true"
			}
			return c.showCredentials(cmd, http.MethodDelete, path, nil)
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "even where no key that stays was seen to open the host")
	return cmd
}

func (c *client) showCredentials(cmd *cobra.Command, method, path string, in any) error {
	var h hostJSON
	if err := c.call(cmd.Context(), method, path, in, &h); err != nil {
		return err
	}
	return show(cmd, h, func(w io.Writer) error {
		for _, k := range h.Credentials {
			says := "%s is opened by key %s\n"
			if k.LastWorked == nil {
				says = "%s was not seen to be opened by key %s: keyturn scan %[1]s --wait tries it\n"
			}
			if _, err := fmt.Fprintf(w, says, h.Name, k.Key); err != nil {
				return err
			}
		}
		return nil
	})
}

const agentKeyUsage = "or the public half, a .pub file or the fingerprint of a key that Keyturn knows, of one that the server's ssh-agent has"

// agentKey returns a public key as the server takes it, of a .pub file or a fingerprint.
func (c *client) agentKey(cmd *cobra.Command, fileOrFingerprint string) (string, error) {
	if strings.HasPrefix(fileOrFingerprint, "SHA256:") {
		k, err := c.key(cmd, fileOrFingerprint)
		return k.PublicKey, err
	}
	f, err := os.Open(fileOrFingerprint)
	if err != nil {
		return "", trust.Errorf(trust.Invalid, "%w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", trust.Errorf(trust.Invalid, "%w", err)
	}
	key, _, _, err := trust.ParsePublicFile(text)
	if err != nil {
		return "", trust.Errorf(trust.Invalid, "%s: %w", fileOrFingerprint, err).WithHint("--agent-key takes a public half: ssh-add -L prints those that an agent has")
	}
	return key.String(), nil
}
