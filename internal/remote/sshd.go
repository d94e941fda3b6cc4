package remote

import (
	"context"
	"net/netip"
	"strconv"
	"strings"

	"keyturn/internal/trust"
)

// Sshd is the SSH server that serves a session.
type Sshd struct {
	Family trust.ServerFamily
	Binary string
	// Replaced: the file at Binary is not the one that runs, as after an upgrade
	// without a restart.
	Replaced bool
	// Options are those on its command line, in order and one by one, each "-x"
	// followed by its argument if it takes one.
	Options []string
	PID     int    // of the listener; of the connection's own process where there is none
	Unit    string // of systemd; may be empty
	// Found says how its command line is known: "argv" (as it was given), "title"
	// (from the listener's process title, where blanks within an argument are
	// guessed), "unit" (from the systemd unit that starts one for each connection),
	// or "default" where the host hides its processes from us: then Binary is the
	// sshd that PATH leads to and is of the version that serves us, and nothing is
	// known of its options.
	Found string
	// Unread are environment files of the unit that this login may not read.
	// What options they give it is not known.
	Unread []string
}

// sshdOptions and dropbearOptions are what the programs give to getopt(3), over all
// their versions.
const (
	sshdOptions     = "C:E:b:c:f:g:h:k:o:p:u:46DGQRTVdeiqrt"
	dropbearOptions = "b:c:d:r:D:2:p:P:l:G:W:K:I:M:T:Q:A:RFEejkaimwsgBthuvVz"
)

// Sshd finds the server that serves this session, by the ancestry of the session's
// own shell, and how it was started. It looks once on a connection. It is Denied
// where the host hides it from this login, and NotFound where no server that Keyturn
// knows is among the ancestors.
func (h *Host) Sshd(ctx context.Context) (Sshd, error) {
	h.mu.Lock()
	known := h.sshd
	h.mu.Unlock()
	if known != nil {
		return *known, nil
	}
	answers, err := h.runAll(ctx, call{op: opSshd, as: h.strongest()})
	if err != nil {
		return Sshd{}, err
	}
	return h.readSshd(ctx, answers[0])
}

// readSshd reads the answer of op sshd, and remembers what it says.
func (h *Host) readSshd(ctx context.Context, a answer) (Sshd, error) {
	s, err := h.findSshd(ctx, a)
	if err != nil {
		return Sshd{}, err
	}
	h.mu.Lock()
	h.sshd = &s
	h.mu.Unlock()
	return s, nil
}

func (h *Host) findSshd(ctx context.Context, a answer) (Sshd, error) {
	if a.no != nil {
		return Sshd{}, h.fail(a.no, "")
	}
	var chain []process
	var parents []string // of those
	var hidden bool
	var exe, inPath string
	var unit systemdUnit
	var args []string
	for _, l := range a.lines {
		switch l.word {
		case "proc":
			f := strings.SplitN(l.rest, " ", 4)
			if len(f) != 4 {
				return Sshd{}, h.garbled(l)
			}
			pid, err := strconv.Atoi(f[0])
			if err != nil {
				return Sshd{}, h.garbled(l)
			}
			chain, parents = append(chain, process{pid: pid, name: f[3]}), append(parents, f[1])
		case "exe":
			exe = l.rest
		case "arg":
			if l.rest != "" {
				args = append(args, l.rest)
			}
		case "hidden":
			hidden = true
		case "default":
			inPath = l.rest
		case "unit":
			unit.name = l.rest
		case "show":
			switch key, value, _ := strings.Cut(l.rest, "="); key {
			case "ExecStart":
				unit.exec = value
			case "Environment":
				unit.environment = value
			}
		case "environment":
			unit.files = append(unit.files, "")
		case "set":
			if len(unit.files) == 0 {
				return Sshd{}, h.garbled(l)
			}
			unit.files[len(unit.files)-1] += l.rest + "\n"
		case "unread":
			unit.unread = append(unit.unread, l.rest)
		}
	}
	var servers []process
	for _, p := range chain {
		if p.family() != "" {
			servers = append(servers, p)
		}
	}
	if len(servers) == 0 {
		if hidden {
			return h.unseenSshd(ctx, inPath)
		}
		return Sshd{}, trust.Errorf(trust.NotFound, "%s is served by none of the SSH servers that Keyturn knows: its processes are %s", h.name, names(chain))
	}
	last := &servers[len(servers)-1]
	last.exe, last.args = exe, args
	s, known := identify(servers, unit)
	if !known {
		if hidden {
			return h.unseenSshd(ctx, inPath)
		}
		if parents[len(parents)-1] == "1" && unit.name == "" {
			h.mu.Lock()
			h.orphan = true
			h.mu.Unlock()
			return Sshd{}, trust.Errorf(trust.Unavailable, "the sshd of %s that took this connection was stopped or started anew since", h.name)
		}
		return Sshd{}, trust.Errorf(trust.NotFound, "%s starts its sshd for each connection (process title %q), and no systemd unit says how", h.name, strings.Join(args, " "))
	}
	return s, nil
}

// unseenSshd takes the sshd in PATH for the one that serves us, whose processes are
// hidden, if it says that it is of the same version.
func (h *Host) unseenSshd(ctx context.Context, binary string) (Sshd, error) {
	denied := trust.Errorf(trust.Denied, "%s hides the processes of others from %q (hidepid), so that its sshd cannot be found", h.name, h.login).
		WithHint("set become for that host to sudo or doas")
	serving := h.announced()
	if !strings.HasPrefix(binary, "/") || serving.Family != trust.OpenSSH {
		return Sshd{}, denied
	}
	s := Sshd{Family: trust.OpenSSH, Binary: binary, Found: "default"}
	_, version, _, err := h.ask(ctx, s, h.connectionOf(h.login, netip.Addr{}))
	if err != nil {
		return Sshd{}, err
	}
	if version.Major != serving.Major || version.Minor != serving.Minor {
		return Sshd{}, denied
	}
	return s, nil
}

// identify makes out of the servers of one session, its own process first, what
// they were started with. known is false where nothing says that.
func identify(servers []process, unit systemdUnit) (_ Sshd, known bool) {
	top := servers[len(servers)-1]
	s := Sshd{Family: top.family(), PID: top.pid, Unit: unit.name}
	s.Binary, s.Replaced = strings.CutSuffix(top.exe, " (deleted)")
	letters := sshdOptions
	if s.Family != trust.OpenSSH {
		letters = dropbearOptions
	}
	title, isTitle := strings.CutPrefix(strings.Join(top.args, " "), top.name+": ")
	switch {
	case len(top.args) > 0 && !isTitle:
		s.Found, s.Options = "argv", parseOptions(top.args[1:], letters, false)
		if s.Binary == "" {
			s.Binary = top.args[0]
		}
		return s, true
	case strings.Contains(title, " [listener]"):
		title, _, _ = strings.Cut(title, " [listener]")
		words := strings.Fields(title)
		if len(words) == 0 {
			return Sshd{}, false
		}
		s.Found, s.Options = "title", parseOptions(words[1:], letters, true)
		if s.Binary == "" {
			s.Binary = words[0]
		}
		return s, true
	}
	// One server for each connection, started by systemd or inetd: its own title
	// has taken the place of its arguments.
	argv := unit.argv()
	if len(argv) == 0 {
		return Sshd{}, false
	}
	s.Found, s.Binary, s.Replaced, s.Unread = "unit", argv[0], false, unit.unread
	s.Options = parseOptions(argv[1:], letters, false)
	return s, true
}

// A process is one ancestor of a session.
type process struct {
	pid  int
	name string // as in /proc/PID/comm
	// Of the last server in a row:
	exe  string
	args []string
}

// family returns which server the process is of, or "".
func (p process) family() trust.ServerFamily {
	switch {
	case strings.HasPrefix(p.name, "sshd"):
		return trust.OpenSSH
	case strings.HasPrefix(p.name, "dropbear"):
		return trust.Dropbear
	case strings.HasPrefix(p.name, "tinysshd"):
		return trust.TinySSH
	}
	return ""
}

func names(chain []process) string {
	var list []string
	for _, p := range chain {
		list = append(list, p.name)
	}
	return strings.Join(list, ", ")
}

// parseOptions reads a command line as getopt(3) does. joined says that blanks
// within arguments cannot be told from those between them: an argument then goes on
// to the next word that begins with "-".
func parseOptions(words []string, letters string, joined bool) (options []string) {
	for i := 0; i < len(words); i++ {
		word := words[i]
		if len(word) < 2 || word[0] != '-' || word == "--" {
			break
		}
		for j := 1; j < len(word); j++ {
			at := strings.IndexByte(letters, word[j])
			if at < 0 || word[j] == ':' {
				break
			}
			if at+1 >= len(letters) || letters[at+1] != ':' {
				options = append(options, "-"+word[j:j+1])
				continue
			}
			value := word[j+1:]
			if value == "" && i+1 < len(words) {
				i++
				value = words[i]
			}
			for joined && i+1 < len(words) && !strings.HasPrefix(words[i+1], "-") {
				i++
				value += " " + words[i]
			}
			options = append(options, "-"+word[j:j+1], value)
			break
		}
	}
	return options
}
