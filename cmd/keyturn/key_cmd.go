package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyturn/internal/trust"
)

type keyJSON struct {
	UUID        string `json:"uuid"`
	Kind        string `json:"kind"`
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key"`
	Type        string `json:"type"`
	Bits        int    `json:"bits"`
	Comment     string `json:"comment"`
	Owner       string `json:"owner,omitempty"`
	Purpose     string `json:"purpose,omitempty"`

	Labels    []string   `json:"labels"`
	ExpiresAt *time.Time `json:"expires_at,omitempty"`

	RevealedAt *time.Time `json:"revealed_at,omitempty"`

	State       string `json:"state"`
	Custody     string `json:"custody"`
	Compromised bool   `json:"compromised,omitempty"`
	Authorized  []struct {
		placeJSON
		Options string `json:"options"`
	} `json:"authorized"`
	Identities    []placeJSON `json:"identities"`
	Replaces      []string    `json:"replaces"`
	ReplacedBy    []string    `json:"replaced_by"`
	Supplied      string      `json:"supplied,omitempty"`
	CreatedAt     *time.Time  `json:"created_at"`
	LastRotatedAt *time.Time  `json:"last_rotated_at"`
	Run           string      `json:"run,omitempty"`

	RestorableUntil *time.Time    `json:"restorable_until,omitempty"`
	Findings        []findingJSON `json:"findings"`
}

type placeJSON struct {
	Host string `json:"host"`
	User string `json:"user"`
	Path string `json:"path"`
}

func (p placeJSON) String() string { return p.Host + ":" + p.User + ":" + p.Path }

func keyCommand(env environ) *cobra.Command {
	return parent("key", "See keys, and have Keyturn hold them", keyListCommand(env), keyShowCommand(env), keyGenerateCommand(env), keyImportCommand(env), keyExportCommand(env), keySetCommand(env), keySupplyCommand(env), keyRevealCommand(env), keyApproveRevealCommand(env), keyDeleteCommand(env), keyRestoreCommand(env),
		keyUsersCommand(env), keyAllowCommand(env), keyDisallowCommand(env))
}

func keyListCommand(env environ) *cobra.Command {
	var states, kinds, labels []string
	var search, owner string
	var expired bool
	cmd := &cobra.Command{
		Use: "list", Short: "List keys, and where their halves lie", Args: noArgs,
		Example: "  keyturn key list --state rotated\n  keyturn key list --search alice --json",
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			q := url.Values{}
			if len(states) > 0 {
				q.Set("state", strings.Join(states, ","))
			}
			if len(kinds) > 0 {
				q.Set("kind", strings.Join(kinds, ","))
			}
			if search != "" {
				q.Set("q", search)
			}
			if len(labels) > 0 {
				q.Set("label", strings.Join(labels, ","))
			}
			if owner != "" {
				q.Set("owner", owner)
			}
			if expired {
				q.Set("expired", "true")
			}
			keys, err := list[keyJSON](cmd.Context(), c, "/keys", "keys", q)
			if err != nil {
				return err
			}
			return showTable(cmd, keys, "UUID KIND TYPE STATE CUSTODY AUTHORIZED IDENTITIES COMMENT", func(k keyJSON) []string {
				return []string{k.UUID, k.Kind, k.Type, k.State, k.Custody, fmt.Sprint(len(k.Authorized)), fmt.Sprint(len(k.Identities)), k.Comment}
			})
		}),
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only keys in this state: active, rotated, retired, deleted")
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only keys of this kind: user, host")
	completeWords(cmd, "state", "active", "rotated", "retired", "deleted")
	completeWords(cmd, "kind", "user", "host")
	cmd.Flags().StringVar(&search, "search", "", "only keys with this text in comment, fingerprint, owner or a host's name")
	cmd.Flags().StringSliceVar(&labels, "label", nil, "only keys with this label, name=value; several: with all of them")
	cmd.Flags().StringVar(&owner, "owner", "", "only keys of exactly this owner")
	cmd.Flags().BoolVar(&expired, "expired", false, "only keys whose time is over")
	return cmd
}

func keyShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show UUID", Short: "Show a key: its places, what it replaced, what is wrong with it", Args: exactly(1), ValidArgsFunction: completeKeys(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			k, err := c.key(cmd, args[0])
			if err != nil {
				return err
			}
			return show(cmd, k, func(w io.Writer) error { return printKey(w, k) })
		}),
	}
}

func (c *client) key(cmd *cobra.Command, id string) (k keyJSON, err error) {
	err = c.call(cmd.Context(), http.MethodGet, "/keys/"+url.PathEscape(id), nil, &k)
	return k, err
}

func printKey(w io.Writer, k keyJSON) error {
	pairs := []string{
		"uuid", k.UUID, "kind", k.Kind, "fingerprint", k.Fingerprint, "type", fmt.Sprintf("%s (%d bits)", k.Type, k.Bits), "comment", k.Comment, "owner", k.Owner,
		"purpose", k.Purpose, "labels", strings.Join(k.Labels, ", "), "expires", when(k.ExpiresAt), "revealed", when(k.RevealedAt),
		"state", k.State, "custody", k.Custody, "created", when(k.CreatedAt), "last rotated", when(k.LastRotatedAt),
		"replaces", strings.Join(k.Replaces, ", "), "replaced by", strings.Join(k.ReplacedBy, ", "), "supplied", k.Supplied, "in run", k.Run,
	}
	if k.Compromised {
		pairs = append(pairs, "compromised", "yes")
	}
	for _, p := range k.Authorized {
		text := p.String()
		if p.Options != "" {
			text += "  [" + p.Options + "]"
		}
		pairs = append(pairs, "authorized", text)
	}
	for _, p := range k.Identities {
		pairs = append(pairs, "identity", p.String())
	}
	for _, f := range k.Findings {
		pairs = append(pairs, f.Level, f.Kind+": "+f.Text)
	}
	return fields(w, pairs...)
}

func keyGenerateCommand(env environ) *cobra.Command {
	var kind, comment string
	var bits int
	var facts keyFacts
	cmd := &cobra.Command{
		Use: "generate", Short: "Make a key pair that Keyturn holds, and print its public half", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			in := map[string]any{"type": kind, "bits": bits, "comment": comment}
			facts.add(cmd, in)
			return addKey(env, cmd, in)
		},
	}
	cmd.Flags().StringVar(&kind, "type", "ed25519", "ed25519, ecdsa-p256, ecdsa-p384, ecdsa-p521 or rsa")
	cmd.Flags().IntVar(&bits, "bits", 0, "size of an RSA key (default 3072)")
	cmd.Flags().StringVar(&comment, "comment", "", "what to call it")
	facts.flags(cmd)
	return cmd
}

func keyImportCommand(env environ) *cobra.Command {
	var comment string
	var passphrase bool
	var facts keyFacts
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Have Keyturn hold a private key: OpenSSH, PKCS#1, SEC 1, PKCS#8 or PuTTY's PPK", Args: exactly(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := readSecretFile(cmd, args[0])
			if err != nil {
				return err
			}
			in := map[string]any{"private_key": text}
			if comment != "" {
				in["comment"] = comment
			}
			facts.add(cmd, in)
			if passphrase {
				if in["passphrase"], err = readSecret(cmd, "Passphrase"); err != nil {
					return err
				}
			}
			return addKey(env, cmd, in)
		},
	}
	cmd.Flags().StringVar(&comment, "comment", "", "what to call it, instead of what the file says")
	cmd.Flags().BoolVar(&passphrase, "passphrase-stdin", false, "read the file's passphrase from standard input")
	facts.flags(cmd)
	return cmd
}

func addKey(env environ, cmd *cobra.Command, in map[string]any) error {
	c, err := newClient(env)
	if err != nil {
		return err
	}
	var k keyJSON
	if err := c.call(cmd.Context(), http.MethodPost, "/keys", in, &k); err != nil {
		return err
	}
	return showLine(cmd, k, "%s\n%s %s\n", k.UUID, k.PublicKey, plain(k.Comment))
}

func keyExportCommand(env environ) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "export UUID", Short: "Print the public half of a key as a file",
		Long: `Print the public half of a key as a file: "openssh", one line as in a .pub file;
"rfc4716", which PuTTY, Tectia and network devices take; "pkcs8", which ssh-keygen
calls PKCS8 and other programs a public key in PEM.`,
		Example: "  keyturn key export 7f1c... --format rfc4716 > router.pub",
		Args:    exactly(1), ValidArgsFunction: completeKeys(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out struct {
				Format    string `json:"format"`
				PublicKey string `json:"public_key"`
			}
			path := "/keys/" + url.PathEscape(args[0]) + "/public?" + url.Values{"format": {format}}.Encode()
			if err := c.call(cmd.Context(), http.MethodGet, path, nil, &out); err != nil {
				return err
			}
			return show(cmd, out, func(w io.Writer) error {
				_, err := io.WriteString(w, out.PublicKey)
				return err
			})
		}),
	}
	cmd.Flags().StringVar(&format, "format", "openssh", "openssh, rfc4716 or pkcs8")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"openssh", "rfc4716", "pkcs8"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func keyDeleteCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "delete UUID ...", Short: "Delete keys that lie nowhere; they can be restored for 30 days",
		Long: `Delete keys. A key that is accepted somewhere, or whose private half lies somewhere,
is refused with those places: retire or rotate it. For 30 days "keyturn key restore"
brings a deleted key back; then what Keyturn held of it is destroyed. Certificates that
were signed for it are revoked; hosts learn of it by the next list, "keyturn krl".`,
		Args: atLeast(1), ValidArgsFunction: completeKeys(env, "active"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var deleted []keyJSON
			for _, id := range args {
				var k keyJSON
				if err := c.call(cmd.Context(), http.MethodDelete, "/keys/"+url.PathEscape(id), nil, &k); err != nil {
					return err
				}
				deleted = append(deleted, k)
				if !asJSON(cmd) {
					fmt.Fprintf(cmd.OutOrStdout(), "%s is deleted, and can be restored until %s\n", k.UUID, when(k.RestorableUntil))
				}
			}
			if asJSON(cmd) {
				return printJSON(cmd.OutOrStdout(), deleted)
			}
			return nil
		}),
	}
}

func keyRestoreCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "restore UUID", Short: "Bring a deleted key back", Args: exactly(1),
		ValidArgsFunction: completeKeys(env, "deleted"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var k keyJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/keys/"+url.PathEscape(args[0])+"/restore", nil, &k); err != nil {
				return err
			}
			return showLine(cmd, k, "%s is back\n", k.UUID)
		}),
	}
}

func rotateCommand(env environ) *cobra.Command {
	var wait, dry, share, compromised, yes bool
	var soak, public string
	var canary int
	cmd := &cobra.Command{
		Use:   "rotate UUID ...",
		Short: "Put new keys in the place of user keys, everywhere, without locking anyone out",
		Long: `Rotate user keys. For each, a new key of the same type is made; a line for it is
put after each line of the old key, with the same options; a login proves it; it
is installed where the old private key lies; both are accepted while the run
soaks; it is proven again, by another login unless there was no soak and the proof is
of the last minute; and only then are the old key's lines taken away, and seen to be
refused. The first failure holds the run, with the old key in place.

Every step is written down before it is taken: the server may be killed at any
instant, and goes on where it was. "keyturn rollback" takes it all back.

A key whose private half only its owner has is rotated to the one that he made:
--public-key, or "keyturn key supply" before. The old key then goes when sshd's log
shows a login with the new one, and none with the old one during the soak; until
then the run is held.

--dry-run changes nothing and prints what would change in each file: as a diff, and of
private keys, which are not shown, in words.

--compromised is for a key that may be in wrong hands: it does not soak and does
not wait for uses of the old key to end, so that whoever still uses a copy that
Keyturn does not know is locked out by it. It says so and asks first. The key's
certificates are revoked at once, also where the rotation waits for approval.`,
		Example: `  keyturn rotate 7f1c... --dry-run
  keyturn rotate 7f1c... --wait
  keyturn rotate 7f1c... --soak 24h --canary 3`,
		Args: atLeast(1), ValidArgsFunction: completeKeys(env, "active"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			if public != "" && (dry || len(args) > 1) {
				return &usageError{cmd.CommandPath(), errors.New("--public-key is for the rotation of one key, and not for a dry run: keyturn key supply takes it before")}
			}
			if compromised && !dry && !yes {
				if err := c.confirmCompromised(cmd, args, public != ""); err != nil {
					return err
				}
			}
			in := map[string]any{"keys": args, "dry_run": dry, "share": share, "compromised": compromised}
			if soak != "" {
				in["soak"] = soak
			}
			if cmd.Flags().Changed("canary") {
				in["canary"] = canary
			}
			if public != "" {
				if _, err := c.supply(cmd, args[0], public); err != nil {
					return err
				}
			}
			var out startedJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/rotations", in, &out); err != nil {
				return err
			}
			if dry {
				return c.printPreview(cmd, out.Run)
			}
			return c.follow(cmd, out.Run, wait)
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&wait, "wait", false, "wait until the old keys are gone; leaving is safe, the server goes on")
	f.StringVar(&soak, "soak", "", "how long both keys are accepted, such as 0s or 24h (default the setting rotation.soak)")
	f.IntVar(&canary, "canary", 0, "how many places go first (default the setting rotation.canary)")
	f.BoolVar(&dry, "dry-run", false, "change nothing: print what would change in each file")
	f.BoolVar(&share, "share", false, "also a key that lies only on hosts: Keyturn makes the new one, holds it, and installs it there")
	f.StringVar(&public, "public-key", "", "of a key that is its owner's alone: the public half of the one that he made, as keyturn key supply takes it")
	f.BoolVar(&compromised, "compromised", false, "the old key may be in wrong hands: withdraw it without soaking")
	f.BoolVar(&yes, "yes", false, "do not ask about --compromised")
	return cmd
}

// confirmCompromised says what withdrawing at once breaks, and asks.
func (c *client) confirmCompromised(cmd *cobra.Command, ids []string, supplied bool) error {
	w := cmd.ErrOrStderr()
	for _, id := range ids {
		k, err := c.key(cmd, id)
		if err != nil {
			return err
		}
		if k.Run != "" {
			return trust.Errorf(trust.Conflict, "key %s is in run %s, which has not ended", k.UUID, k.Run).WithHint("keyturn run show %s", k.Run)
		}
		if len(k.Authorized)+len(k.Identities) == 0 {
			return nil // there is nothing to confirm: the server says what to do instead
		}
		fmt.Fprintf(w, "key %s (%s) is accepted in %d places, and lies in %d that are known:\n", k.UUID, plain(k.Comment), len(k.Authorized), len(k.Identities))
		for _, p := range k.Identities {
			fmt.Fprintf(w, "  %s\n", plain(p.String()))
		}
		if k.Supplied != "" || supplied {
			fmt.Fprintln(w, "  its owner made the new key, and is locked out wherever he does not use it yet")
		}
	}
	fmt.Fprintln(w, "Of these, the files that Keyturn writes get the new key. Every other copy, in an agent, a CI secret or a laptop, stops working at once, and nobody is asked.")
	return confirm(cmd, "--compromised was not confirmed")
}

// confirm asks whether to go on, of who can answer; without --yes, nobody else does.
func confirm(cmd *cobra.Command, unconfirmed string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return trust.Errorf(trust.Invalid, "%s", unconfirmed).WithHint("add --yes")
	}
	fmt.Fprint(cmd.ErrOrStderr(), "Go on? [y/N] ")
	answer, err := typed(cmd.Context(), in, func() (string, error) { return bufio.NewReader(in).ReadString('\n') })
	if cmd.Context().Err() != nil {
		fmt.Fprintln(cmd.ErrOrStderr())
		return trust.Errorf(trust.Invalid, "%w; nothing was changed", err)
	}
	if err != nil || strings.ToLower(strings.TrimSpace(answer)) != "y" {
		return trust.Errorf(trust.Invalid, "nothing was changed")
	}
	return nil
}

func rollbackCommand(env environ) *cobra.Command {
	var wait, force, current bool
	var soak string
	cmd := &cobra.Command{
		Use:   "rollback UUID ...",
		Short: "Bring rotated or retired keys back, as safely as they went",
		Long: `Bring keys of the rotated inventory back. What is put back is proven before what
is there now is touched; files that nobody wrote to since are as they were, byte
for byte, and others keep what was added. A rotation that is still running is
taken back from where it is. Keys that one run took out come back together: name
all of them, or use "keyturn run back".

A way back that installs old private keys soaks as long as the way there did,
for whoever has read the new one; --soak says otherwise. A key that its owner made
goes when he has been seen to use the old one again.

With the setting rotation.approval on, another user has to approve first that --force
brings compromised keys back, by "keyturn run approve-back RUN USER".`,
		Example: "  keyturn key list --state rotated\n  keyturn rollback 7f1c... --wait\n  keyturn rollback 7f1c... --soak 0s --wait",
		Args:    atLeast(1), ValidArgsFunction: completeKeys(env, "rotated", "retired"),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out struct {
				Runs []string `json:"runs"`
			}
			in := map[string]any{"keys": args, "force": force, "current": current}
			if soak != "" {
				in["soak"] = soak
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/rollbacks", in, &out); err != nil {
				return err
			}
			for _, run := range out.Runs {
				if err := c.followTo(cmd, run, wait, "back"); err != nil {
					return err
				}
			}
			return nil
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until they are back")
	cmd.Flags().BoolVar(&current, "current", false, "the keys are those in use: bring back the one that each replaced")
	cmd.Flags().BoolVar(&force, "force", false, "also a key that is marked as compromised")
	cmd.Flags().StringVar(&soak, "soak", "", "how long both keys are accepted on the way back, such as 0s or 24h (default as long as on the way there)")
	return cmd
}

func retireCommand(env environ) *cobra.Command {
	var wait, yes bool
	cmd := &cobra.Command{
		Use:   "retire UUID ...",
		Short: "Withdraw keys everywhere, without a successor",
		Long: `Withdraw keys from every file that grants them a login, without putting others in
their place: for keys that nobody should use any more. "keyturn rollback" brings
their lines back. A rotated or retired key that is accepted again is taken away
where it is, and stays what it was. A key is not taken away from the last
credential by which Keyturn itself opens a host. Who logs in with a key that lies in
a known place is shut out: that is said, and asked, before anything is done. The keys'
certificates are revoked with it, or when it is approved, where it waits for that.`,
		Args: atLeast(1), ValidArgsFunction: completeKeys(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			used, closed := 0, []string{}
			for _, id := range args {
				k, err := c.key(cmd, id)
				if err != nil {
					return err
				}
				for _, p := range k.Authorized {
					closed = append(closed, fmt.Sprintf("key %s will no longer open %s\n", k.UUID, plain(p.String())))
				}
				for _, p := range k.Identities {
					closed = append(closed, fmt.Sprintf("who logs in with %s is shut out\n", plain(p.String())))
				}
				used += len(k.Identities)
			}
			tell := func() {
				fmt.Fprint(cmd.ErrOrStderr(), strings.Join(closed, ""))
				closed = nil
			}
			if used > 0 && !yes {
				tell()
				if err := confirm(cmd, "these keys are in use, and that they are to be withdrawn was not confirmed"); err != nil {
					return err
				}
			}
			var out startedJSON
			if err := c.call(cmd.Context(), http.MethodPost, "/retirements", map[string]any{"keys": args}, &out); err != nil {
				return err
			}
			tell()
			return c.follow(cmd, out.Run, wait)
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until they are gone")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask about keys that are in use")
	return cmd
}
