package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"keyturn/internal/trust"
)

type hostJSON struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Address  string `json:"address"`
	Login    string `json:"login"`
	Become   string `json:"become"`
	Mode     string `json:"mode"`
	State    string `json:"state"`
	Reason   string `json:"reason,omitempty"`
	HostKeys []struct {
		PublicKey   string `json:"public_key"`
		Fingerprint string `json:"fingerprint"`
		Origin      string `json:"origin"`
	} `json:"host_keys"`
	Credentials []struct {
		Key        string     `json:"key"`
		LastWorked *time.Time `json:"last_worked_at,omitempty"`
	} `json:"credentials"`
	Server string `json:"server,omitempty"`
	Sshd   string `json:"sshd,omitempty"`
	System string `json:"system,omitempty"`
	Scan   struct {
		Outcome string `json:"outcome"`
		Why     string `json:"why,omitempty"`
		Notes   []struct {
			About string `json:"about"`
			User  string `json:"user,omitempty"`
			Path  string `json:"path,omitempty"`
			Text  string `json:"text"`
		} `json:"notes"`
		TriedAt *time.Time `json:"tried_at,omitempty"`
		At      *time.Time `json:"at,omitempty"`
	} `json:"scan"`
	CreatedAt *time.Time `json:"created_at"`
}

type findingJSON struct {
	Kind  string     `json:"kind"`
	Level string     `json:"level"`
	Key   string     `json:"key,omitempty"`
	Host  string     `json:"host,omitempty"`
	User  string     `json:"user,omitempty"`
	Path  string     `json:"path,omitempty"`
	Line  int        `json:"line,omitempty"`
	Text  string     `json:"text"`
	Since *time.Time `json:"since"`
}

func hostCommand(env environ) *cobra.Command {
	return parent("host", "Add hosts, and say what may be done to them",
		hostAddCommand(env), hostImportCommand(env), hostListCommand(env), hostShowCommand(env),
		hostChangeCommand("enforce", "Let Keyturn change a host", "/enforce", "%s may be changed now\n", env),
		hostChangeCommand("inventory", "Have Keyturn only watch a host", "/inventory", "%s is only watched now\n", env),
		hostConfirmCommand(env), hostKnownCommand(env), hostCredentialCommand(env), hostRemoveCommand(env),
	)
}

func hostAddCommand(env environ) *cobra.Command {
	in := map[string]any{}
	var address, login, identity, key, agentKey, become, hostKey string
	var acceptNew, enforce, wait, passphrase, password bool
	cmd := &cobra.Command{
		Use:   "add NAME --address HOST:PORT --login USER (--identity FILE | --key UUID | --agent-key FILE | --password-stdin) (--host-key KEY | --accept-new)",
		Short: "Take in a host: log in once, read what it is, and keep the credential",
		Long: `Take in a host. Keyturn logs in to one account with a private key that it keeps,
sealed, from then on; as root, or with --become sudo or doas, it sees every
account, else that one.

With --agent-key the private key is not Keyturn's, but in the ssh-agent that the
server was started with (keyturn serve --agent), such as one with a token or a security
module behind it; that signs each login.

The host is known by its host key: given with --host-key, or with --accept-new
whatever it presents first, which is a finding until "keyturn host confirm".

With --password-stdin a password opens the account once, to put a line for a key
there that opens it from then on: the one of --identity or --key, or else one
that is made for this host. The password is read from standard input, kept in
memory only, for 15 minutes at most, and never sent to a host whose key nobody
has vouched for: with --accept-new, the enrolment waits for "keyturn host
confirm". The line is the one thing that Keyturn changes on a host that is only
watched.

A host is first only watched; --enforce, or later "keyturn host enforce", lets
Keyturn change it.`,
		Example: `  keyturn host add web1 --address web1.example.com:22 --login root --identity ~/.ssh/ops --host-key "ssh-ed25519 AAAA..."
  keyturn host add db1 --address 10.0.0.7:22 --login deploy --become sudo --identity ops --accept-new --enforce
  keyturn host add nas --address nas:22 --login admin --password-stdin --host-key "ssh-ed25519 AAAA..." < password-file`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in["name"], in["address"], in["login"], in["accept_new"], in["enforce"] = args[0], address, login, acceptNew, enforce
			for name, v := range map[string]string{"become": become, "host_key": hostKey, "key": key} {
				if v != "" {
					in[name] = v
				}
			}
			if password && (passphrase || identity == "-") || passphrase && identity == "-" {
				return &usageError{cmd.CommandPath(), errors.New("standard input can be one of a private key, its passphrase, and a password")}
			}
			var err error
			if agentKey != "" {
				if in["agent_key"], err = c.agentKey(cmd, agentKey); err != nil {
					return err
				}
			}
			if identity != "" {
				if in["private_key"], err = readSecretFile(cmd, identity); err != nil {
					return err
				}
			}
			if passphrase {
				if in["passphrase"], err = readSecret(cmd, "Passphrase"); err != nil {
					return err
				}
			}
			if password {
				secret, err := readSecret(cmd, "Password")
				if err != nil {
					return err
				}
				if secret == "" {
					return trust.Errorf(trust.Invalid, "standard input holds no password")
				}
				in["password"] = secret
			}
			var out struct {
				Host hostJSON `json:"host"`
				Run  string   `json:"run"`
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/hosts", in, &out); err != nil {
				return err
			}
			if !wait {
				return showLine(cmd, out, "host %s is being enrolled by run %s\n", out.Host.Name, out.Run)
			}
			if err := c.watchEnrolment(cmd, out.Run); err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodGet, "/hosts/"+url.PathEscape(out.Host.ID), nil, &out.Host); err != nil {
				return err
			}
			if out.Host.State != "ready" {
				return trust.Errorf(trust.Conflict, "host %q was not taken in: %s", out.Host.Name, out.Host.Reason).
					WithHint("mend that, then keyturn host remove %s, and add it again", out.Host.Name)
			}
			return show(cmd, out, func(w io.Writer) error {
				if _, err := fmt.Fprintf(w, "host %s is ready: %s\n", out.Host.Name, plain(out.Host.Server)); err != nil {
					return err
				}
				for _, k := range out.Host.HostKeys {
					if k.Origin == "first-use" {
						if _, err := fmt.Fprintf(w, "It presented the host key %s, which nobody has vouched for.\nCompare it, then: keyturn host confirm %s\n", k.Fingerprint, out.Host.Name); err != nil {
							return err
						}
					}
				}
				return nil
			})
		}),
	}
	f := cmd.Flags()
	f.StringVar(&address, "address", "", "where it listens, HOST:PORT")
	f.StringVar(&login, "login", "", "the account to log in to")
	f.StringVar(&identity, "identity", "", "private key file that opens the account")
	f.StringVar(&key, "key", "", "or the uuid of a key that Keyturn holds")
	f.StringVar(&agentKey, "agent-key", "", agentKeyUsage)
	f.BoolVar(&passphrase, "passphrase-stdin", false, "read the private key file's passphrase from standard input")
	f.BoolVar(&password, "password-stdin", false, "read a password from standard input that opens the account once, to put a key there")
	f.StringVar(&become, "become", "", "how that account becomes root: sudo or doas, without a password")
	completeWords(cmd, "become", "sudo", "doas")
	f.StringVar(&hostKey, "host-key", "", `the key that it presents, "ssh-ed25519 AAAA..."`)
	f.BoolVar(&acceptNew, "accept-new", false, "trust whatever host key it presents first")
	f.BoolVar(&enforce, "enforce", false, "let Keyturn change it")
	f.BoolVar(&wait, "wait", true, "wait until it is enrolled")
	require(cmd, "address", "login")
	return cmd
}

// watchEnrolment follows the run that takes a host in, and says, once, what it is
// that a person has to do.
func (c *client) watchEnrolment(cmd *cobra.Command, id string) error {
	said := false
	_, err := c.watchEach(cmd.Context(), id, func(r runJSON) error {
		if r.State != "waiting" || said {
			return nil
		}
		said = true
		_, err := fmt.Fprintf(cmd.ErrOrStderr(), "waiting: %s\n", plain(r.Reason))
		return err
	})
	return err
}

func hostListCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List hosts", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			hosts, err := list[hostJSON](cmd.Context(), c, "/hosts", "hosts", nil)
			if err != nil {
				return err
			}
			return showTable(cmd, hosts, "NAME ADDRESS LOGIN MODE STATE SCAN SERVER", func(h hostJSON) []string {
				return []string{h.Name, h.Address, h.Login, h.Mode, h.State, h.Scan.Outcome, strings.TrimPrefix(h.Server, "SSH-2.0-")}
			})
		}),
	}
}

func hostShowCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a host: its keys, credentials, and what the last scan could not see", Args: exactly(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var h hostJSON
			if err := c.call(cmd.Context(), http.MethodGet, "/hosts/"+url.PathEscape(args[0]), nil, &h); err != nil {
				return err
			}
			return show(cmd, h, func(w io.Writer) error { return printHost(w, h) })
		}),
	}
}

func printHost(w io.Writer, h hostJSON) error {
	pairs := []string{
		"name", h.Name, "id", h.ID, "address", h.Address, "login", h.Login, "become", h.Become, "mode", h.Mode,
		"state", h.State, "reason", h.Reason, "server", h.Server, "sshd", h.Sshd, "system", h.System,
		"scan", h.Scan.Outcome, "scanned", when(h.Scan.At), "why", h.Scan.Why,
	}
	for _, k := range h.HostKeys {
		pairs = append(pairs, "host key", k.Fingerprint+" ("+k.Origin+")")
	}
	for _, k := range h.Credentials {
		seen := "not seen to open it"
		if k.LastWorked != nil {
			seen = "opened it at " + when(k.LastWorked)
		}
		pairs = append(pairs, "credential", k.Key+" ("+seen+")")
	}
	for _, n := range h.Scan.Notes {
		pairs = append(pairs, "note", noteText(n.User, n.Path, n.Text))
	}
	return fields(w, pairs...)
}

// noteText is what a scan noted of a user's file; the text may name the file itself.
func noteText(user, path, text string) string {
	if path != "" && strings.Contains(text, path) {
		return text
	}
	return strings.TrimSpace(user + " " + path + " " + text)
}

func hostChangeCommand(use, short, path, done string, env environ) *cobra.Command {
	return &cobra.Command{
		Use: use + " NAME ...", Short: short, Args: atLeast(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var changed []hostJSON
			for _, name := range args {
				var h hostJSON
				if err := c.call(cmd.Context(), http.MethodPost, "/hosts/"+url.PathEscape(name)+path, nil, &h); err != nil {
					return err
				}
				changed = append(changed, h)
			}
			print := func(w io.Writer) error {
				for _, h := range changed {
					if _, err := fmt.Fprintf(w, done, h.Name); err != nil {
						return err
					}
				}
				return nil
			}
			if len(changed) == 1 {
				return show(cmd, changed[0], print)
			}
			return show(cmd, changed, print)
		}),
	}
}

func hostConfirmCommand(env environ) *cobra.Command {
	var hostKey string
	cmd := &cobra.Command{
		Use: "confirm NAME", Short: "Vouch for the host keys that were accepted on first use, or pin another", Args: exactly(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			in := map[string]string{}
			if hostKey != "" {
				in["host_key"] = hostKey
			}
			var was, h hostJSON
			path := "/hosts/" + url.PathEscape(args[0])
			if err := c.call(cmd.Context(), http.MethodGet, path, nil, &was); err != nil {
				return err
			}
			if err := c.call(cmd.Context(), http.MethodPost, path+"/confirm", in, &h); err != nil {
				return err
			}
			return show(cmd, h, func(w io.Writer) error {
				if slices.Equal(was.HostKeys, h.HostKeys) {
					if _, err := fmt.Fprintf(w, "nothing was to be confirmed; keyturn host confirm %s --host-key KEY pins another key\n", h.Name); err != nil {
						return err
					}
				}
				for _, k := range h.HostKeys {
					if _, err := fmt.Fprintf(w, "%s is known by %s (%s)\n", h.Name, k.Fingerprint, k.Origin); err != nil {
						return err
					}
				}
				return nil
			})
		}),
	}
	cmd.Flags().StringVar(&hostKey, "host-key", "", `pin this key in the place of all others, "ssh-ed25519 AAAA..."`)
	return cmd
}

type knownHostJSON struct {
	User        string `json:"user"`
	Path        string `json:"path"`
	Line        int    `json:"line"`
	Marker      string `json:"marker,omitempty"`
	Names       string `json:"names"`
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
	Host        string `json:"host,omitempty"`
}

func hostKnownCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "known-hosts NAME", Short: "List by which keys the accounts of a host know other hosts",
		Long: `List the lines of the known_hosts files on a host, as its newest scan read them:
those of each account that the login may read, and those of the whole host. The
column HOST names the host of the inventory that a line is about. One that knows
it by another key than the pinned one is a finding, "mistrusted".`,
		Args: exactly(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			known, err := list[knownHostJSON](cmd.Context(), c, "/hosts/"+url.PathEscape(args[0])+"/known-hosts", "known_hosts", nil)
			if err != nil {
				return err
			}
			return showTable(cmd, known, "USER PLACE HOST MARKER KEY NAMES", func(k knownHostJSON) []string {
				return []string{k.User, fmt.Sprintf("%s:%d", k.Path, k.Line), k.Host, k.Marker, k.Fingerprint, k.Names}
			})
		}),
	}
}

func hostRemoveCommand(env environ) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "Forget a host; nothing on it changes", Args: exactly(1), ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out map[string]string
			if err := c.call(cmd.Context(), http.MethodDelete, "/hosts/"+url.PathEscape(args[0]), nil, &out); err != nil {
				return err
			}
			return showLine(cmd, out, "%s is forgotten\n", args[0])
		}),
	}
}

func scanCommand(env environ) *cobra.Command {
	var wait bool
	cmd := &cobra.Command{
		Use:   "scan [HOST ...]",
		Short: "Read hosts, or all of them: who is let in, by which keys, and where private keys lie",
		Long: `Read hosts: which sshd serves them, which files it reads for each account that
the login may read, every key in them, and identity files. A scan changes
nothing. Hosts that do not answer are told in "keyturn host list", and are no
failure of the others.`,
		ValidArgsFunction: completeHosts(env),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			var out startedJSON
			in := map[string]any{}
			if len(args) > 0 {
				in["hosts"] = args
			}
			if err := c.call(cmd.Context(), http.MethodPost, "/scans", in, &out); err != nil {
				return err
			}
			return c.follow(cmd, out.Run, wait)
		}),
	}
	cmd.Flags().BoolVar(&wait, "wait", false, "wait until it has ended")
	return cmd
}

func findingCommand(env environ) *cobra.Command {
	return parent("finding", "What is wrong with keys and hosts", &cobra.Command{
		Use: "list", Short: "List findings: unknown, orphaned, shared, weak, stale and unrestricted keys, hosts to confirm, and hosts that others know by another key", Args: noArgs,
		RunE: with(env, func(cmd *cobra.Command, c *client, _ []string) error {
			findings, err := list[findingJSON](cmd.Context(), c, "/findings", "findings", nil)
			if err != nil {
				return err
			}
			return show(cmd, findings, func(w io.Writer) error {
				var rows [][]string
				for _, f := range findings {
					place := f.Path
					if f.Line > 0 {
						place = fmt.Sprintf("%s:%d", f.Path, f.Line)
					}
					rows = append(rows, []string{f.Kind, f.Level, f.Host, place, f.Key, f.Text})
				}
				return table(w, "KIND LEVEL HOST PLACE KEY WHAT", rows)
			})
		}),
	})
}

// readSecretFile reads a private key file. "-" is standard input.
func readSecretFile(cmd *cobra.Command, path string) (string, error) {
	const most = 64 << 10
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", trust.Errorf(trust.Invalid, "%w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return "", trust.Errorf(trust.Invalid, "%s: %w", path, err)
	}
	if len(data) > most {
		return "", trust.Errorf(trust.Invalid, "%s is longer than a private key file can be", path)
	}
	if len(data) == 0 {
		return "", trust.Errorf(trust.Invalid, "%s is empty", path)
	}
	if !utf8.Valid(data) {
		// JSON would change it. PuTTY writes comments as they are typed.
		return "", trust.Errorf(trust.Invalid, "%s is not UTF-8, as a private key file has to be to get to the server", path).
			WithHint("puttygen %s -C COMMENT -o NEW.ppk, if it is one of PuTTY's", path)
	}
	return string(data), nil
}

// readSecret reads one line of standard input, without an echo where that is a
// terminal.
func readSecret(cmd *cobra.Command, what string) (string, error) {
	if f, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprintf(cmd.ErrOrStderr(), "%s: ", what)
		data, err := readPassword(cmd.Context(), f)
		fmt.Fprintln(cmd.ErrOrStderr())
		return string(data), err
	}
	data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
	if err != nil {
		return "", err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSuffix(line, "\r"), nil
}

// readGiven is readSecret for a password that somebody is to have: an empty one is a
// mistake, and otherwise says how it is done without.
func readGiven(cmd *cobra.Command, what, otherwise string) (string, error) {
	secret, err := readSecret(cmd, what)
	if err == nil && secret == "" {
		err = &usageError{cmd.CommandPath(), fmt.Errorf("standard input holds no password; %s", otherwise)}
	}
	return secret, err
}

// filled refuses flags of a command that are given and empty, as by a script of which a
// variable is: to leave them out would do more than what was asked for.
func filled(cmd *cobra.Command, names ...string) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range names {
			f := cmd.Flags().Lookup(name)
			list, several := f.Value.(pflag.SliceValue)
			if f.Changed && (f.Value.String() == "" || several && slices.Contains(list.GetSlice(), "")) {
				return &usageError{cmd.CommandPath(), fmt.Errorf("--%s is empty", name)}
			}
		}
		return run(cmd, args)
	}
}

// require makes flags of a command required, as usage errors.
func require(cmd *cobra.Command, names ...string) {
	run := cmd.RunE
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, name := range names {
			if !cmd.Flags().Changed(name) {
				return &usageError{cmd.CommandPath(), fmt.Errorf("--%s is not given", name)}
			}
		}
		return run(cmd, args)
	}
}
