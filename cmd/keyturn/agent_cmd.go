package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"keyturn/internal/agent"
	"keyturn/internal/trust"
)

type usableKeyJSON struct {
	UUID        string `json:"uuid"`
	Fingerprint string `json:"fingerprint"`
	PublicKey   string `json:"public_key"`
	Comment     string `json:"comment"`
	State       string `json:"state"`
}

func agentCommand(env environ) *cobra.Command {
	var socket string
	var keys []string
	var lifetime time.Duration
	var ask, forwarded bool
	cmd := &cobra.Command{
		Use:   "agent [-- COMMAND ...]",
		Short: "Be an ssh-agent whose keys stay in Keyturn",
		Long: `Be an ssh-agent for ssh, git, Ansible and whatever else speaks to one, with the keys
that Keyturn holds and that you may use: each signature is asked of the server,
which decides at that instant whether you may, writes it into its log, and signs.
The private key does not leave it. It signs SSH logins, and messages as
"ssh-keygen -Y sign" has them, such as git commits, and nothing else.

With a COMMAND it runs that with SSH_AUTH_SOCK set, and ends with it, and with its
exit code. Without one it stays in the foreground, and prints what a shell needs.

While a key is being rotated, the new one is offered and then the old one, as long
as any host is known that accepts it. A server lets a client try few keys, OpenSSH's
six by default: --key offers those that are named, and what comes in their place.

--confirm asks before each signature: by the program in SSH_ASKPASS, or else, without
a COMMAND, on the terminal. A host to which ssh -A forwards the agent gets no
signature unless --forwarded lets it; ssh -J needs no forwarding. What tells the
agent so is ssh since OpenSSH 8.9.

Who may use which key: "keyturn key allow --help". docs/agent.md tells more.`,
		Example: `  keyturn agent -- ssh deploy@web1
  keyturn agent --key 7f1c... --confirm -- ansible-playbook site.yml
  keyturn agent --socket ~/.ssh/keyturn.sock --lifetime 8h`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if lifetime < 0 {
				return &usageError{cmd.CommandPath(), fmt.Errorf("--lifetime %s is less than nothing", lifetime)}
			}
			h := &holder{env: env, keys: keys}
			if ask {
				askpass := env("SSH_ASKPASS")
				if askpass == "" && (len(args) > 0 || !canAsk()) {
					return &usageError{cmd.CommandPath(), errors.New("--confirm has nobody to ask: SSH_ASKPASS names no program, and there is no terminal of its own, in whose foreground it is")}
				}
				if askpass == "" {
					// One that is put into the background is to say no, not to stop.
					signal.Ignore(syscall.SIGTTIN, syscall.SIGTTOU)
				}
				h.confirm = &confirmer{askpass: askpass, asking: make(chan struct{}, 1)}
			}
			usable, err := h.list(cmd.Context())
			if err != nil {
				return err
			}
			if len(usable) == 0 {
				return trust.Errorf(trust.NotFound, "there is no key that signs for you%s", among(keys)).
					WithHint("who may write users says who may: keyturn key allow UUID --user NAME, and the permission Keys Use")
			}
			return serveAgent(cmd, &agent.Server{List: h.list, Sign: h.sign, Forwarded: forwarded}, socket, lifetime, args)
		},
	}
	f := cmd.Flags()
	f.StringVar(&socket, "socket", "", "where to listen (default in a new folder for temporary files)")
	f.StringArrayVar(&keys, "key", nil, "offer this key only, by uuid or fingerprint; may be repeated")
	f.BoolVar(&ask, "confirm", false, "ask before each signature")
	f.DurationVar(&lifetime, "lifetime", 0, "end after this time, such as 8h (default never)")
	f.BoolVar(&forwarded, "forwarded", false, "sign for hosts that the agent is forwarded to, too")
	_ = cmd.RegisterFlagCompletionFunc("key", completeKeys(env, "active"))
	return cmd
}

func among(keys []string) string {
	if len(keys) == 0 {
		return ""
	}
	return " among " + plain(strings.Join(keys, ", "))
}

// serveAgent serves an agent at a socket until its time is over or its command has ended.
func serveAgent(cmd *cobra.Command, s *agent.Server, socket string, lifetime time.Duration, command []string) error {
	errs := cmd.ErrOrStderr()
	s.Refused = func(err error) {
		var e *trust.Error
		fmt.Fprintf(errs, "keyturn agent: %s\n", plain(err.Error()))
		if errors.As(err, &e) && e.Hint != "" {
			fmt.Fprintf(errs, "hint: %s\n", plain(e.Hint))
		}
	}
	if socket == "" {
		dir, err := os.MkdirTemp("", "keyturn-agent-") // mode 0700
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		socket = filepath.Join(dir, "agent.sock")
	}
	socket, err := filepath.Abs(socket)
	if err != nil {
		return err
	}
	l, err := agent.Listen(socket)
	if err != nil {
		return err
	}
	// A command outlives what ends it, and may go on asking until it has ended.
	ctx := cmd.Context()
	if len(command) > 0 {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if lifetime > 0 {
		stop, err := afterReal(lifetime, cancel)
		if err != nil {
			_ = l.Close()
			return err
		}
		defer stop()
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, l) }()
	if len(command) == 0 {
		err := show(cmd, map[string]any{"socket": socket, "pid": os.Getpid()}, func(w io.Writer) error {
			_, err := fmt.Fprintf(w, "SSH_AUTH_SOCK=%s; export SSH_AUTH_SOCK;\n", shellWord(socket))
			return err
		})
		if err != nil {
			return err
		}
		return <-served
	}
	err = runWith(cmd, command, "SSH_AUTH_SOCK="+socket)
	cancel()
	return errors.Join(err, <-served)
}

// shellWord quotes a word for sh(1).
func shellWord(word string) string {
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// An exitError is the exit code of a command that was run.
type exitError struct{ code int }

func (e *exitError) Error() string { return fmt.Sprintf("the command ended with exit code %d", e.code) }

// runWith runs a command with one more variable in its environment, and waits for it.
// What ends this program is passed on to it, but for an interrupt: that a terminal sends
// to both, and the command may live on.
func runWith(cmd *cobra.Command, command []string, variable string) error {
	c := exec.Command(command[0], command[1:]...)
	c.Stdin, c.Stdout, c.Stderr = cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr()
	c.Env = append(os.Environ(), variable)
	err := c.Start()
	if err != nil {
		return trust.Errorf(trust.Invalid, "%w", err)
	}
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, endings()...)
	defer signal.Stop(ends)
	waited := make(chan struct{})
	defer close(waited)
	go func() {
		for {
			select {
			case s := <-ends:
				_ = c.Process.Signal(s)
			case <-waited:
				return
			}
		}
	}()
	err = c.Wait()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return &exitError{128 + int(status.Signal())} // as shells have it
		}
		return &exitError{exit.ExitCode()}
	}
	if err != nil {
		return trust.Errorf(trust.Invalid, "%w", err)
	}
	return nil
}

// A holder has the server list and sign.
type holder struct {
	env     environ
	keys    []string // those that are offered, or all
	confirm *confirmer

	mu      sync.Mutex
	offered []agent.Key // what list returned last
}

// askFor bounds how long a client waits for the server.
const askFor = 30 * time.Second

// list is agent.Server's List. What was replaced comes last.
func (h *holder) list(ctx context.Context) ([]agent.Key, error) {
	c, err := newClient(h.env) // anew: somebody may have logged in meanwhile
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	query := url.Values{}
	if len(h.keys) > 0 {
		query.Set("key", strings.Join(h.keys, ","))
	}
	usable, err := list[usableKeyJSON](ctx, c, "/agent/keys", "keys", query)
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(usable, func(a, b usableKeyJSON) int {
		return cmp.Compare(a.State, b.State) // active, rotated
	})
	keys := make([]agent.Key, len(usable))
	for i, k := range usable {
		public, _, err := trust.ParsePublicKey(k.PublicKey)
		if err != nil {
			return nil, err
		}
		keys[i] = agent.Key{Public: public, Comment: cmp.Or(plain(k.Comment), k.UUID)}
	}
	h.mu.Lock()
	h.offered = keys
	h.mu.Unlock()
	return keys, nil
}

// hasOffered reports whether a key was among those that were listed last. Whether it
// signs is for the server to say.
func (h *holder) hasOffered(key trust.PublicKey) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.ContainsFunc(h.offered, func(k agent.Key) bool { return k.Public == key })
}

// sign is agent.Server's Sign.
func (h *holder) sign(ctx context.Context, r agent.Request) (*ssh.Signature, error) {
	if len(h.keys) > 0 && !h.hasOffered(r.Key) {
		return nil, trust.Errorf(trust.NotFound, "key %s is not among those that are offered", r.Key.Fingerprint())
	}
	if h.confirm != nil {
		if err := h.confirm.ask(ctx, question(r)); err != nil {
			return nil, err
		}
	}
	c, err := newClient(h.env)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	in := map[string]any{"data": r.Data, "forwarded": r.Forwarded}
	if r.Algorithm != "" {
		in["algorithm"] = r.Algorithm
	}
	if !r.HostKey.IsZero() {
		in["host_key"] = string(r.HostKey.Plain().Fingerprint())
	}
	var out struct {
		Format string `json:"format"`
		Blob   []byte `json:"blob"`
	}
	if err := c.call(ctx, http.MethodPost, "/keys/"+url.PathEscape(string(r.Key.Fingerprint()))+"/signatures", in, &out); err != nil {
		return nil, err
	}
	return &ssh.Signature{Format: out.Format, Blob: out.Blob}, nil
}

// question is what a person is asked before a signature is. The client's own words are
// quoted in it: they may be a remote host's, and any.
func question(r agent.Request) string {
	what := fmt.Sprintf("Sign a message (%q)", r.What.Namespace)
	if r.What.IsLogin() {
		what = fmt.Sprintf("Log in as %q", r.What.User)
		if !r.HostKey.IsZero() {
			what += " to the host with key " + string(r.HostKey.Plain().Fingerprint())
		}
	}
	if r.Forwarded {
		what += ", over a forwarded agent,"
	}
	return fmt.Sprintf("%s with key %s?", what, r.Key.Fingerprint())
}
