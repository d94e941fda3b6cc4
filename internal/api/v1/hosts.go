package v1

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type host struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Address     string       `json:"address" doc:"host:port"`
	Login       string       `json:"login" doc:"The account that Keyturn logs in to"`
	Become      string       `json:"become" enum:"none,sudo,doas"`
	Mode        string       `json:"mode" enum:"inventory,enforced"`
	State       string       `json:"state" enum:"unenrolled,enrolling,ready,refused" doc:"A host that is unenrolled is known as a target only: nobody has said what opens it"`
	Reason      string       `json:"reason,omitempty"`
	HostKeys    []hostKey    `json:"host_keys"`
	Credentials []credential `json:"credentials"`
	Server      string       `json:"server,omitempty" doc:"How its SSH server introduces itself"`
	Sshd        string       `json:"sshd,omitempty" doc:"The program that serves Keyturn's session"`
	System      string       `json:"system,omitempty"`
	Scan        coverage     `json:"scan"`
	CreatedAt   *time.Time   `json:"created_at"`
}

type hostKey struct {
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
	Origin      string `json:"origin" enum:"given,first-use,confirmed,rotated"`
}

type credential struct {
	Key        string     `json:"key"`
	LastWorked *time.Time `json:"last_worked_at,omitempty" doc:"When it was last seen to open the host; absent where it never was, or was seen not to since"`
}

type coverage struct {
	Outcome string     `json:"outcome" enum:"unscanned,scanned,partial,unreachable"`
	Why     string     `json:"why,omitempty"`
	Notes   []note     `json:"notes"`
	TriedAt *time.Time `json:"tried_at,omitempty"`
	At      *time.Time `json:"at,omitempty" doc:"When a scan last reached the host"`
}

type note struct {
	About string `json:"about"`
	User  string `json:"user,omitempty"`
	Path  string `json:"path,omitempty"`
	Text  string `json:"text"`
}

type hostPage struct {
	Hosts []host `json:"hosts"`
	Next  string `json:"next,omitempty" doc:"after of the next page"`
}

type listHosts struct {
	Paging
	Mode  []string `query:"mode" maxItems:"2" enum:"inventory,enforced"`
	State []string `query:"state" maxItems:"4" enum:"unenrolled,enrolling,ready,refused"`
}

type addHost struct {
	Body struct {
		Name       string `json:"name" minLength:"1" maxLength:"253"`
		Address    string `json:"address" minLength:"1" maxLength:"300" doc:"host:port"`
		Login      string `json:"login" minLength:"1" maxLength:"64"`
		Become     string `json:"become,omitempty" enum:"none,sudo,doas"`
		PrivateKey string `json:"private_key,omitempty" maxLength:"65536" doc:"The private key file that opens the account"`
		Passphrase string `json:"passphrase,omitempty" maxLength:"1024"`
		Key        string `json:"key,omitempty" maxLength:"64" doc:"Or the id of a key that Keyturn holds"`
		AgentKey   string `json:"agent_key,omitempty" maxLength:"32768" doc:"Or the public half of a key that the server's ssh-agent has, as type base64"`
		Password   string `json:"password,omitempty" maxLength:"1024" doc:"Or a password that opens the account once, to put a key there: the one that is named, or one that is made. Never stored, and not sent to a host whose key nobody has vouched for"`
		HostKey    string `json:"host_key,omitempty" maxLength:"32768" doc:"type base64"`
		AcceptNew  bool   `json:"accept_new,omitempty" doc:"Trust the host key that it presents first"`
		Enforce    bool   `json:"enforce,omitempty" doc:"Let Keyturn change the host"`
		DryRun     bool   `json:"dry_run,omitempty" doc:"Find out whether the host could be added, and add nothing"`
	}
}

type addedHost struct {
	Host host   `json:"host"`
	Run  string `json:"run,omitempty" doc:"The run that enrols it; absent from a dry run"`
}

// ByHost names a host in a path.
type ByHost struct {
	Host string `path:"host" maxLength:"300" doc:"Name or id"`
}

type addCredential struct {
	ByHost
	Body struct {
		Key      string `json:"key,omitempty" maxLength:"64" doc:"The id of a key that Keyturn holds"`
		AgentKey string `json:"agent_key,omitempty" maxLength:"32768" doc:"Or the public half of a key that the server's ssh-agent has, as type base64"`
		First    bool   `json:"first,omitempty" doc:"Try it before the others"`
	}
}

type removeCredential struct {
	ByHost
	Key   string `path:"key" maxLength:"100" doc:"UUID or fingerprint"`
	Force bool   `query:"force" doc:"Even where none of the keys that stay was seen to open the host"`
}

type confirmHost struct {
	ByHost
	Body struct {
		HostKey string `json:"host_key,omitempty" maxLength:"32768" doc:"Pin this key in the place of all others"`
	}
}

type scanHosts struct {
	Body struct {
		Hosts []string `json:"hosts,omitempty" maxItems:"1000" doc:"Names or ids; all hosts if absent"`
	}
}

type started struct {
	Run string `json:"run" doc:"Follow it at /api/v1/runs/{run}"`
}

type finding struct {
	Kind  string     `json:"kind"`
	Level string     `json:"level" enum:"warning,note"`
	Key   string     `json:"key,omitempty"`
	Host  string     `json:"host,omitempty"`
	User  string     `json:"user,omitempty"`
	Path  string     `json:"path,omitempty"`
	Line  int        `json:"line,omitempty"`
	Text  string     `json:"text"`
	Since *time.Time `json:"since"`
}

type findingPage struct {
	Findings []finding `json:"findings"`
	Next     string    `json:"next,omitempty"`
}

type listFindings struct {
	Paging
	Kind []string `query:"kind" maxItems:"20" enum:"unknown,orphaned,shared,weak,stale,unrestricted,unconfirmed,doubled,mistrusted"`
}

type knownHost struct {
	User        string `json:"user" doc:"Whose file it is; root's are also those of the whole host"`
	Path        string `json:"path"`
	Line        int    `json:"line"`
	Marker      string `json:"marker,omitempty" enum:"@cert-authority,@revoked"`
	Names       string `json:"names" doc:"As the line has them; a hash where it hides them"`
	PublicKey   string `json:"public_key"`
	Fingerprint string `json:"fingerprint"`
	Host        string `json:"host,omitempty" doc:"The host of the inventory that it names"`
}

type knownHostPage struct {
	KnownHosts []knownHost `json:"known_hosts"`
	Next       string      `json:"next,omitempty"`
}

type listKnownHosts struct {
	ByHost
	Paging
}

type removed struct {
	Removed string `json:"removed"`
}

func (d door) hostRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/hosts", "list-hosts", "List hosts",
		func(ctx context.Context, who control.Actor, in *listHosts) (hostPage, error) {
			f := control.HostFilter{Modes: cast[control.Mode](in.Mode), States: cast[control.HostState](in.State)}
			list, next, err := d.plane.ListHosts(ctx, who, f, in.page())
			out := hostPage{Hosts: make([]host, len(list)), Next: next}
			for i, h := range list {
				out.Hosts[i] = showHost(h)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/hosts", "add-host", "Add a host. Starts the run that enrols it",
		func(ctx context.Context, who control.Actor, in *addHost) (addedHost, error) {
			b := in.Body
			add := control.AddHost{
				Name: b.Name, Address: b.Address, User: b.Login, Become: control.Become(b.Become),
				Identity: control.KeyFile{Text: []byte(b.PrivateKey), Passphrase: []byte(b.Passphrase)}, Password: b.Password, AcceptNew: b.AcceptNew, Enforce: b.Enforce, DryRun: b.DryRun,
			}
			var err error
			if b.Key != "" {
				if add.Key, err = control.ParseKeyID(b.Key); err != nil {
					return addedHost{}, err
				}
			}
			if add.HostKey, err = publicKey(b.HostKey); err != nil {
				return addedHost{}, err
			}
			if add.AgentKey, err = publicKey(b.AgentKey); err != nil {
				return addedHost{}, err
			}
			h, run, err := d.plane.AddHost(ctx, who, add)
			return addedHost{showHost(h), string(run)}, err
		})
	operation(d, a, http.MethodGet, "/hosts/{host}", "show-host", "Show a host",
		func(ctx context.Context, who control.Actor, in *ByHost) (host, error) {
			h, err := d.plane.ShowHost(ctx, who, in.Host)
			return showHost(h), err
		})
	operation(d, a, http.MethodPost, "/hosts/{host}/credentials", "add-host-credential", "Add a key to what opens a host for Keyturn",
		func(ctx context.Context, who control.Actor, in *addCredential) (host, error) {
			c := control.Credential{First: in.Body.First}
			var err error
			if in.Body.Key != "" {
				if c.Key, err = control.ParseKeyID(in.Body.Key); err != nil {
					return host{}, err
				}
			}
			if c.AgentKey, err = publicKey(in.Body.AgentKey); err != nil {
				return host{}, err
			}
			h, err := d.plane.AddHostCredential(ctx, who, in.Host, c)
			return showHost(h), err
		})
	operation(d, a, http.MethodDelete, "/hosts/{host}/credentials/{key}", "remove-host-credential", "Take a key out of what opens a host for Keyturn",
		func(ctx context.Context, who control.Actor, in *removeCredential) (host, error) {
			h, err := d.plane.RemoveHostCredential(ctx, who, in.Host, in.Key, in.Force)
			return showHost(h), err
		})
	operation(d, a, http.MethodDelete, "/hosts/{host}", "remove-host", "Forget a host. Nothing on it changes",
		func(ctx context.Context, who control.Actor, in *ByHost) (removed, error) {
			return removed{in.Host}, d.plane.RemoveHost(ctx, who, in.Host)
		})
	for _, mode := range []control.Mode{control.Enforced, control.Inventory} {
		verb, summary := "enforce", "Let Keyturn change a host"
		if mode == control.Inventory {
			verb, summary = "inventory", "Have Keyturn only watch a host"
		}
		operation(d, a, http.MethodPost, "/hosts/{host}/"+verb, verb+"-host", summary,
			func(ctx context.Context, who control.Actor, in *ByHost) (host, error) {
				h, err := d.plane.SetHostMode(ctx, who, in.Host, mode)
				return showHost(h), err
			})
	}
	operation(d, a, http.MethodPost, "/hosts/{host}/confirm", "confirm-host", "Vouch for a host's keys",
		func(ctx context.Context, who control.Actor, in *confirmHost) (host, error) {
			key, err := publicKey(in.Body.HostKey)
			if err != nil {
				return host{}, err
			}
			h, err := d.plane.ConfirmHost(ctx, who, in.Host, key)
			return showHost(h), err
		})
	operation(d, a, http.MethodGet, "/hosts/{host}/known-hosts", "list-known-hosts", "List by which keys the accounts of a host know other hosts",
		func(ctx context.Context, who control.Actor, in *listKnownHosts) (knownHostPage, error) {
			list, next, err := d.plane.ListKnownHosts(ctx, who, in.Host, in.page())
			out := knownHostPage{KnownHosts: make([]knownHost, len(list)), Next: next}
			for i, k := range list {
				out.KnownHosts[i] = knownHost{
					User: k.User, Path: k.Path, Line: k.Line, Marker: string(k.Marker), Names: k.Names,
					PublicKey: k.Key.String(), Fingerprint: string(k.Key.Fingerprint()), Host: k.AboutName,
				}
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/scans", "scan-hosts", "Start a scan of hosts",
		func(ctx context.Context, who control.Actor, in *scanHosts) (started, error) {
			if in.Body.Hosts != nil && len(in.Body.Hosts) == 0 {
				return started{}, trust.Errorf(trust.Invalid, "no host is named; leave hosts out to scan all").WithField("hosts")
			}
			run, err := d.plane.Scan(ctx, who, in.Body.Hosts)
			return started{string(run)}, err
		})
	operation(d, a, http.MethodGet, "/findings", "list-findings", "List what is wrong with keys and hosts",
		func(ctx context.Context, who control.Actor, in *listFindings) (findingPage, error) {
			list, next, err := d.plane.ListFindings(ctx, who, control.FindingFilter{Kinds: cast[control.FindingKind](in.Kind)}, in.page())
			out := findingPage{Findings: make([]finding, len(list)), Next: next}
			for i, f := range list {
				out.Findings[i] = showFinding(f)
			}
			return out, err
		})
}

func showHost(h control.Host) host {
	out := host{
		ID: string(h.ID), Name: h.Name, Address: h.Address, Login: h.User, Become: string(h.Become), Mode: string(h.Mode),
		State: string(h.State), Reason: h.Reason, Server: h.Facts.Banner, Sshd: h.Facts.Sshd, System: h.Facts.System,
		HostKeys: make([]hostKey, len(h.Pins)), Credentials: make([]credential, len(h.Credentials)), CreatedAt: at(h.CreatedAt),
		Scan: coverage{
			Outcome: string(h.Coverage.Outcome), Why: h.Coverage.Why, Notes: make([]note, len(h.Coverage.Notes)),
			TriedAt: at(h.Coverage.TriedAt), At: at(h.Coverage.ScannedAt),
		},
	}
	if out.Scan.Outcome == "" {
		out.Scan.Outcome = "unscanned"
	}
	for i, p := range h.Pins {
		out.HostKeys[i] = hostKey{PublicKey: p.Key.String(), Fingerprint: string(p.Key.Fingerprint()), Origin: string(p.Origin)}
	}
	for i, c := range h.Credentials {
		out.Credentials[i] = credential{Key: string(c.Key), LastWorked: at(c.WorkedAt)}
	}
	for i, n := range h.Coverage.Notes {
		out.Scan.Notes[i] = note{About: n.About, User: n.User, Path: n.Path, Text: n.Text}
	}
	return out
}

func showFinding(f control.Finding) finding {
	return finding{
		Kind: string(f.Kind), Level: string(f.Level), Key: string(f.Key), Host: f.HostName, User: f.Place.User,
		Path: f.Place.Path, Line: f.Line, Text: f.Text, Since: at(f.Since),
	}
}

// publicKey reads a public key, or none out of nothing.
func publicKey(text string) (trust.PublicKey, error) {
	if text == "" {
		return trust.PublicKey{}, nil
	}
	key, _, err := trust.ParsePublicKey(text)
	return key, err
}

// cast gives texts the type of the words that they are.
func cast[S ~string](list []string) []S {
	var out []S
	for _, v := range list {
		out = append(out, S(v))
	}
	return out
}
