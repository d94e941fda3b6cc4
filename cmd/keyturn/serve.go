package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"keyturn/internal/api"
	"keyturn/internal/trust"
)

// gcPercent is how much a server allocates between two collections of garbage, by
// what is alive. That is little, some 30 MB while it works on hosts, most of it
// connections; at Go's default of 100 a tenth of its processor time goes there, and
// at 200 a fleet of 10,000 hosts takes more than 300 MB.
const gcPercent = 150

func serveCommand(env environ) *cobra.Command {
	c, kek, trusted := config{}, kekFlags{}, []string(nil)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the server, with everything embedded",
		Long: `Run the server: the API at /api/v1, the wires of Cloudflare at /client/v4, of
AppViewX at /avxapi and of CFEngine at /api/ssh-key, and the engine that works on hosts. It needs nothing but a
directory; killed at any instant and started again, it goes on where it was.

At the first start it makes the account "default" and in it the user "admin",
whose password is KEYTURN_ADMIN_PASSWORD or, if that is not set, made and printed
once. What is secret in the database is sealed under a key-encryption key that
is made at the first start, too, and lies outside the data directory: back it
up, apart from the data. It may also be what a command prints, be derived from
a passphrase, or be opened by a key management service; --kek-was has a start
change over from one of these to another. keyturn kek rotate changes the key
itself. All of this is told in docs/secrets.md.`,
		Example: `  KEYTURN_ADMIN_PASSWORD=... keyturn serve
  keyturn serve --data /var/lib/keyturn --database postgres:///keyturn`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if os.Getenv("GOGC") == "" { // which Go has read itself
				debug.SetGCPercent(gcPercent)
			}
			// Private keys are in memory while they sign: a crash leaves no core file.
			if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &syscall.Rlimit{}); err != nil {
				return fmt.Errorf("cannot switch core files off: %w", err)
			}
			for _, name := range []string{"kek-file", "kek-command", "kek-passphrase-file", "kek-url", "kek-was"} {
				// Of a variable that is not set, say: not a choice of the default.
				if f := cmd.Flags().Lookup(name); f.Changed && f.Value.String() == "" {
					return &usageError{cmd.CommandPath(), fmt.Errorf("--%s is empty", name)}
				}
			}
			if c.workers < 1 || c.workers > maxWorkers {
				return &usageError{cmd.CommandPath(), fmt.Errorf("--workers %d is not 1 to %d", c.workers, maxWorkers)}
			}
			var err error
			if c.proxies.Trusted, err = parseProxies(trusted, c.proxies.Header); err != nil {
				return &usageError{cmd.CommandPath(), err}
			}
			ctx := cmd.Context()
			c.log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			c.password = env("KEYTURN_ADMIN_PASSWORD")
			if c.kek, c.kekWas, err = kek.sources(c.data); err != nil {
				if known := (*trust.Error)(nil); errors.As(err, &known) {
					return err // which has a hint of its own
				}
				return &usageError{cmd.CommandPath(), err}
			}
			n, err := openNode(ctx, c)
			if err != nil {
				return err
			}
			defer n.close()
			if c.password != "" && !n.beginning.Created {
				c.log.Info("KEYTURN_ADMIN_PASSWORD is for the first start, and is not read: keyturn user password admin gives admin another one")
			}
			if n.beginning.Password != "" {
				announce(cmd, n.beginning.Password)
			}
			c.log.Info("keyturn is serving", "http", "http://"+n.address, "version", version)
			return n.run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.data, "data", "./keyturn-data", "directory of the database")
	f.StringVar(&c.http, "http", "127.0.0.1:7780", "loopback address to listen at")
	f.StringArrayVar(&trusted, "trusted-proxy", nil, "address or CIDR of a proxy in front, repeated for several: whom it asks for is the client, in events and where wrong logins are counted")
	f.StringVar(&c.proxies.Header, "proxy-header", api.XForwardedFor, "where trusted proxies say that: "+api.XForwardedFor+" or "+api.Forwarded)
	f.StringVar(&c.database, "database", "", `where the data is, "postgres://..." (default SQLite in the data directory)`)
	f.StringVar(&kek.file, "kek-file", "", "file of the key-encryption key, made if nothing is sealed yet (default /etc/keyturn/kek for root, else in the user's configuration)")
	f.StringVar(&kek.command, "kek-command", "", "command whose output is the key-encryption key; /bin/sh runs it, without the variables KEYTURN_..., for 30 seconds at the most")
	f.StringVar(&kek.passphraseFile, "kek-passphrase-file", "", "file of a passphrase that the key-encryption key is derived from")
	f.BoolVar(&kek.passphrase, "kek-passphrase", false, "ask at the terminal for that passphrase")
	f.StringVar(&kek.url, "kek-url", "", "key management service that opens the key-encryption key, such as hashivault://keyturn")
	f.StringVar(&kek.was, "kek-was", "", "where the key-encryption key was until now, to change over: file:PATH, command:CMD, passphrase-file:PATH, passphrase or url:URL")
	f.StringVar(&c.agent, "agent", "", "socket of an ssh-agent that signs Keyturn's own logins by keys that only it has (see keyturn host add --agent-key)")
	f.IntVar(&c.workers, "workers", 32, "how many steps of runs are worked on at a time")
	return cmd
}

// parseProxies reads addresses and CIDRs of proxies, and checks the header's name.
func parseProxies(trusted []string, header string) (list []netip.Prefix, err error) {
	if header != api.XForwardedFor && header != api.Forwarded {
		return nil, fmt.Errorf("--proxy-header %q is neither %s nor %s", header, api.XForwardedFor, api.Forwarded)
	}
	for _, text := range trusted {
		prefix, err := netip.ParsePrefix(text)
		if address, addressErr := netip.ParseAddr(text); addressErr == nil {
			prefix, err = address.Prefix(address.BitLen())
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("--trusted-proxy %q is neither an address nor a CIDR such as 127.0.0.1 or 10.0.0.0/8", text)
		case prefix.Bits() == 0:
			return nil, fmt.Errorf("--trusted-proxy %s is everybody: who is the client would be what the client says", text)
		}
		list = append(list, prefix)
	}
	return list, nil
}

// maxWorkers bounds --workers: each is a connection to some host at a time.
const maxWorkers = 1024

// announce prints the password that was made for "admin" where only a person
// sees it: to the terminal, or else to standard output, never into the log.
func announce(cmd *cobra.Command, password string) {
	to := cmd.OutOrStdout()
	if tty, err := os.OpenFile("/dev/tty", os.O_WRONLY, 0); err == nil {
		if term.IsTerminal(int(tty.Fd())) {
			to = tty
		}
		defer tty.Close()
	}
	fmt.Fprintf(to, "The password of user \"admin\" is  %s\nIt is shown this once. keyturn login --user admin has the other commands use it.\n", password)
}
