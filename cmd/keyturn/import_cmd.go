package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"keyturn/internal/inventory"
	"keyturn/internal/trust"
)

// Bounds of a file of hosts, and how many of them are asked for at once.
const (
	maxImportBytes = 16 << 20
	maxImportHosts = 10_000
	importAtOnce   = 8
)

// An importedHost is a line of a file of hosts, and what came of it.
type importedHost struct {
	Line   int    `json:"line"`
	Name   string `json:"name"`
	ID     string `json:"id,omitempty"`
	Run    string `json:"run,omitempty"`
	State  string `json:"state,omitempty"`
	Reason string `json:"reason,omitempty"`

	ask     map[string]any // the request that adds it
	present bool
}

// An importReport is what became of a file of hosts.
type importReport struct {
	DryRun  bool           `json:"dry_run"`
	Added   []importedHost `json:"added"`
	Present []importedHost `json:"present"`
	Refused []importedHost `json:"refused"`
}

func hostImportCommand(env environ) *cobra.Command {
	var login, identity, key, agentKey, become, knownHosts string
	var acceptNew, enforce, dry, wait, passphrase bool
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Take in many hosts, of a file in CSV or JSON; - reads standard input",
		Long: `Take in the hosts of a file, at most 10000, each as "keyturn host add" does.

The file is CSV with a line of names above it, or JSON, one object a line. The
names are name, address, login, become, key and host_key; of name and address
one is enough. What a line does not say, the flags do. With --known-hosts, host
keys are taken from a file of ssh(1), hashed or not.

Every line is checked before the first host is added: if one is refused, none is
added, and each that is refused is told with its number. A host that is there
already, with that address and login, is left as it is, so that the same file
can be imported again.`,
		Example: `  keyturn host import hosts.csv --login root --identity ~/.ssh/ops --known-hosts ~/.ssh/known_hosts --dry-run
  printf 'name\nweb1\nweb2\n' | keyturn host import - --login root --identity ops --accept-new`,
		Args: exactly(1),
		RunE: with(env, func(cmd *cobra.Command, c *client, args []string) error {
			common := map[string]any{"accept_new": acceptNew, "enforce": enforce}
			for name, v := range map[string]string{"login": login, "become": become, "key": key} {
				if v != "" {
					common[name] = v
				}
			}
			if args[0] == "-" && (identity == "-" || passphrase) || identity == "-" && passphrase {
				return &usageError{cmd.CommandPath(), errors.New("standard input can be one of the hosts, a private key, and its passphrase")}
			}
			var err error
			if agentKey != "" {
				if common["agent_key"], err = c.agentKey(cmd, agentKey); err != nil {
					return err
				}
			}
			if identity != "" {
				if common["private_key"], err = readSecretFile(cmd, identity); err != nil {
					return err
				}
			}
			if passphrase {
				if common["passphrase"], err = readSecret(cmd, "Passphrase"); err != nil {
					return err
				}
			}
			data, err := readBounded(cmd, args[0], maxImportBytes)
			if err != nil {
				return err
			}
			hosts, err := readHosts(data)
			if err != nil {
				return err
			}
			var known *trust.KnownHosts
			if knownHosts != "" {
				text, err := readBounded(cmd, knownHosts, maxImportBytes)
				if err != nil {
					return err
				}
				known = trust.ParseKnownHosts(text)
			}
			fill(hosts, common, known)
			return c.importHosts(cmd, hosts, dry, wait)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&login, "login", "", "the account to log in to, where the file does not say")
	f.StringVar(&identity, "identity", "", "private key file that opens the accounts")
	f.StringVar(&key, "key", "", "or the uuid of a key that Keyturn holds")
	f.StringVar(&agentKey, "agent-key", "", agentKeyUsage)
	f.BoolVar(&passphrase, "passphrase-stdin", false, "read the private key file's passphrase from standard input")
	f.StringVar(&become, "become", "", "how the account becomes root: sudo or doas, without a password")
	f.StringVar(&knownHosts, "known-hosts", "", "take host keys that the file does not say from this known_hosts file")
	f.BoolVar(&acceptNew, "accept-new", false, "trust whatever host key a host presents first, where none is known")
	f.BoolVar(&enforce, "enforce", false, "let Keyturn change the hosts")
	f.BoolVar(&dry, "dry-run", false, "check every line, and add nothing")
	f.BoolVar(&wait, "wait", true, "wait until they are enrolled")
	return cmd
}

// readBounded reads a file, or standard input, that has at most so many bytes.
func readBounded(cmd *cobra.Command, path string, most int64) ([]byte, error) {
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, trust.Errorf(trust.Invalid, "%w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, most+1))
	if err != nil {
		return nil, trust.Errorf(trust.Invalid, "%s: %w", path, err)
	}
	if int64(len(data)) > most {
		return nil, trust.Errorf(trust.Invalid, "%s is longer than %d bytes", path, most)
	}
	return data, nil
}

// importColumns are what a line of a file of hosts can say.
var importColumns = []string{"name", "address", "login", "become", "key", "host_key"}

// readHosts reads a file of hosts: JSON if its first character is a brace, else
// CSV. What is wrong with one line is that host's reason; the error is of a file
// that cannot be read at all.
func readHosts(data []byte) ([]importedHost, error) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	read := readHostsCSV
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) {
		read = readHostsJSON
	}
	hosts, err := read(data)
	switch {
	case err != nil:
		return nil, err
	case len(hosts) == 0:
		return nil, trust.Errorf(trust.Invalid, "the file holds no host")
	case len(hosts) > maxImportHosts:
		return nil, trust.Errorf(trust.Invalid, "the file holds more than %d hosts", maxImportHosts).WithHint("split -l %d", maxImportHosts)
	}
	return hosts, nil
}

func readHostsJSON(data []byte) (hosts []importedHost, err error) {
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, len(data)+1)
	for n := 1; lines.Scan(); n++ {
		text := bytes.TrimSpace(lines.Bytes())
		if len(text) == 0 {
			continue
		}
		h := importedHost{Line: n, ask: map[string]any{}}
		fields := map[string]string{}
		if err := json.Unmarshal(text, &fields); err != nil {
			h.Reason = "this is no JSON object of texts: " + err.Error()
		}
		for name, v := range fields {
			h.set(name, v)
		}
		hosts = append(hosts, h)
	}
	return hosts, lines.Err()
}

func readHostsCSV(data []byte) (hosts []importedHost, err error) {
	r := csv.NewReader(bytes.NewReader(data))
	r.Comment, r.TrimLeadingSpace, r.FieldsPerRecord = '#', true, -1
	header, err := r.Read()
	if err == io.EOF {
		return nil, nil
	}
	if err != nil {
		return nil, trust.Errorf(trust.Invalid, "%w", err)
	}
	for i, name := range header {
		header[i] = strings.ToLower(strings.TrimSpace(name))
		if !slices.Contains(importColumns, header[i]) {
			return nil, trust.Errorf(trust.Invalid, "the first line names the columns, and %q is none of %s", name, strings.Join(importColumns, ", "))
		}
	}
	for {
		record, err := r.Read()
		if err == io.EOF {
			return hosts, nil
		}
		if err != nil {
			return nil, trust.Errorf(trust.Invalid, "%w", err)
		}
		line, _ := r.FieldPos(0)
		h := importedHost{Line: line, ask: map[string]any{}}
		if len(record) > len(header) {
			h.Reason = fmt.Sprintf("this line has %d values for %d columns", len(record), len(header))
		}
		for i, v := range record[:min(len(record), len(header))] {
			h.set(header[i], strings.TrimSpace(v))
		}
		hosts = append(hosts, h)
	}
}

// set takes over what a line says.
func (h *importedHost) set(name, value string) {
	switch {
	case !slices.Contains(importColumns, name):
		h.Reason = fmt.Sprintf("%q is none of %s", name, strings.Join(importColumns, ", "))
	case value != "":
		h.ask[name] = value
	}
}

// fill adds what lines do not say, and refuses those that say what another one
// says, too.
func fill(hosts []importedHost, common map[string]any, known *trust.KnownHosts) {
	seen := map[string]int{}
	for i := range hosts {
		h := &hosts[i]
		for name, v := range common {
			own := h.ask["key"] != nil && (name == "private_key" || name == "passphrase" || name == "agent_key")
			if _, said := h.ask[name]; !said && !own {
				h.ask[name] = v
			}
		}
		name, _ := h.ask["name"].(string)
		address, _ := h.ask["address"].(string)
		switch host, _, err := net.SplitHostPort(address); {
		case address == "":
			h.ask["address"], address = name, name
		case name == "" && err == nil:
			h.ask["name"], name = host, host
		case name == "":
			h.ask["name"], name = address, address
		}
		h.Name = strings.ToLower(name)
		canonical, err := inventory.ParseAddress(address)
		if err != nil || h.Reason != "" {
			h.refuse(err)
			continue
		}
		if h.ask["host_key"] == nil && known != nil {
			if key := knownKey(known, canonical); !key.IsZero() {
				h.ask["host_key"] = key.String()
			}
		}
		if h.ask["host_key"] != nil {
			h.ask["accept_new"] = false
		}
		for _, own := range []struct {
			what  string
			value any
		}{{"name", h.Name}, {"address", canonical}, {"host key", h.ask["host_key"]}} {
			if own.value == nil {
				continue
			}
			id := fmt.Sprint(own.what, " ", own.value)
			if first, ok := seen[id]; ok {
				h.refuse(trust.Errorf(trust.Conflict, "line %d has the same %s", first, own.what))
			}
			seen[id] = h.Line
		}
	}
}

// refuse notes what is wrong with a line, unless something is already.
func (h *importedHost) refuse(err error) {
	if h.Reason == "" && err != nil {
		h.Reason = err.Error()
		var e *trust.Error
		if errors.As(err, &e) && e.Hint != "" {
			h.Reason += "; hint: " + e.Hint
		}
	}
}

// knownKey returns the key by which a known_hosts file knows what listens at an
// address: of several the newest type, which every current server prefers.
func knownKey(f *trust.KnownHosts, address string) trust.PublicKey {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return trust.PublicKey{}
	}
	number, _ := strconv.Atoi(port)
	told := f.Lookup(trust.HostName(host, number))
	for _, kind := range []string{"ssh-ed25519", "ecdsa-", "ssh-rsa"} {
		for _, k := range told.Keys {
			if strings.HasPrefix(k.Type(), kind) && !slices.Contains(told.Revoked, k) {
				return k
			}
		}
	}
	return trust.PublicKey{}
}

// importHosts checks every line, then adds the hosts, and says what came of each.
func (c *client) importHosts(cmd *cobra.Command, hosts []importedHost, dry, wait bool) error {
	ctx := cmd.Context()
	c.each(ctx, hosts, func(h *importedHost) { c.addImported(ctx, h, true) })
	report := reportOf(hosts, dry)
	if !dry && len(report.Refused) == 0 {
		c.each(ctx, hosts, func(h *importedHost) { c.addImported(ctx, h, false) })
		if wait {
			c.each(ctx, hosts, func(h *importedHost) { c.awaitImported(cmd, h) })
		}
		report = reportOf(hosts, dry)
	} else if !dry {
		report.Added = []importedHost{}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err := show(cmd, report, func(w io.Writer) error { return printImport(w, report) })
	if err != nil || len(report.Refused) == 0 {
		return err
	}
	return errQuiet
}

// each calls fn for every host that nothing is wrong with, some at a time.
func (c *client) each(ctx context.Context, hosts []importedHost, fn func(*importedHost)) {
	var group sync.WaitGroup
	slots := make(chan struct{}, importAtOnce)
	for i := range hosts {
		if h := &hosts[i]; h.Reason == "" && !h.present && ctx.Err() == nil {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				fn(h)
			})
		}
	}
	group.Wait()
}

// addImported adds a host, or finds out whether it could be.
func (c *client) addImported(ctx context.Context, h *importedHost, dry bool) {
	ask := map[string]any{"dry_run": dry}
	for name, v := range h.ask {
		ask[name] = v
	}
	var out struct {
		Host hostJSON `json:"host"`
		Run  string   `json:"run"`
	}
	err := c.call(ctx, http.MethodPost, "/hosts", ask, &out)
	if trust.KindOf(err) == trust.Conflict && c.hasImported(ctx, h) {
		return
	}
	if err != nil {
		h.refuse(err)
		return
	}
	if !dry {
		h.ID, h.Run, h.State = out.Host.ID, out.Run, out.Host.State
	}
}

// hasImported reports whether a host is there already, as its line has it.
func (c *client) hasImported(ctx context.Context, h *importedHost) bool {
	var there hostJSON
	if err := c.call(ctx, http.MethodGet, "/hosts/"+url.PathEscape(h.Name), nil, &there); err != nil {
		return false
	}
	address, _ := h.ask["address"].(string)
	canonical, err := inventory.ParseAddress(address)
	if err != nil || there.Name != h.Name || there.Address != canonical || there.Login != h.ask["login"] {
		return false
	}
	h.present, h.ID, h.State = true, there.ID, there.State
	return true
}

// awaitImported waits until a host is enrolled, or is not going to be.
func (c *client) awaitImported(cmd *cobra.Command, h *importedHost) {
	_, err := c.watchEach(cmd.Context(), h.Run, func(runJSON) error { return nil })
	var now hostJSON
	if err == nil {
		err = c.call(cmd.Context(), http.MethodGet, "/hosts/"+url.PathEscape(h.ID), nil, &now)
	}
	if h.State = now.State; err == nil && now.State != "ready" {
		h.Reason = "it was not taken in: " + now.Reason
	}
	h.refuse(err)
}

// reportOf sorts hosts by what came of them.
func reportOf(hosts []importedHost, dry bool) importReport {
	r := importReport{DryRun: dry, Added: []importedHost{}, Present: []importedHost{}, Refused: []importedHost{}}
	for _, h := range hosts {
		switch {
		case h.Reason != "":
			r.Refused = append(r.Refused, h)
		case h.present:
			r.Present = append(r.Present, h)
		default:
			r.Added = append(r.Added, h)
		}
	}
	return r
}

func printImport(w io.Writer, r importReport) error {
	for _, h := range r.Refused {
		if _, err := fmt.Fprintf(w, "line %d: %s: %s\n", h.Line, plain(h.Name), plain(h.Reason)); err != nil {
			return err
		}
	}
	verb := "were added"
	if r.DryRun {
		verb = "would be added"
	}
	_, err := fmt.Fprintf(w, "%d %s, %d are there already, %d are refused\n", len(r.Added), verb, len(r.Present), len(r.Refused))
	return err
}
