package discovery_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/audit"
	"keyturn/internal/discovery"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/reach"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A world is an engine with discovery's procedures, a credential, and real
// servers.
type world struct {
	*testing.T
	store  *store.Store
	engine *job.Engine
	login  inventory.Key // what opens the servers
	dir    string
}

func newWorld(t *testing.T) *world {
	t.Helper()
	need.Within(t, 5*time.Minute)
	w := &world{T: t, dir: t.TempDir()}
	w.store = storetest.Open(t, inventory.Schema, keyring.Schema, job.Schema)
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), "", true)
	w.must(err)
	keys, err := keyring.Open(t.Context(), w.store, kek)
	w.must(err)
	private, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
	w.must(err)
	w.update(func(tx *store.Tx) error {
		w.login, err = inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: private.Public(), Comment: "keyturn", Owner: "ops", Custody: inventory.Held})
		if err != nil {
			return err
		}
		return keys.Put(tx, w.login.ID, private)
	})
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	r := reach.New(w.store, keys, nil, log)
	t.Cleanup(r.Close)
	w.engine, err = job.New(w.store, discovery.New(w.store, r).Procedures(), job.Options{Sole: true, Log: log})
	w.must(err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.engine.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("engine: %v", err)
		}
	})
	return w
}

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) update(fn func(tx *store.Tx) error) {
	w.Helper()
	w.must(w.store.Update(context.Background(), storetest.Event(), fn))
}

func (w *world) view(fn func(tx *store.Tx) error) {
	w.Helper()
	w.must(w.store.View(context.Background(), storetest.Tenant, fn))
}

// server starts an sshd that the credential opens, and that reads the given
// files below its home, by default one.
func (w *world) server(name string, files ...string) *lab.Server {
	w.Helper()
	s, err := lab.Start(w.Context(), w.dir, lab.Options{
		Name: name, AuthorizedKeysFiles: files, PenaltiesOff: true,
		Config: []string{"TrustedUserCAKeys " + filepath.Join(w.dir, "ca.pub")},
	})
	if trust.KindOf(err) == trust.NotFound {
		need.Skip(w, "sshd: %v", err)
	}
	w.must(err)
	w.Cleanup(s.Close)
	w.must(s.Authorize(w.login.Public, ""))
	return s
}

// add adds a server as a host; pin is false for a host whose key is to be
// accepted on first use.
func (w *world) add(s *lab.Server, pin bool) trust.HostID {
	w.Helper()
	h := inventory.Host{
		ID: inventory.NewHostID(), Name: s.Name(), Address: s.Address(), User: s.User(),
		Credentials: []inventory.Credential{{Key: w.login.ID}},
	}
	if pin {
		h.Pins = []inventory.Pin{{Key: s.HostKey(), Origin: inventory.Given}}
	}
	w.update(func(tx *store.Tx) error {
		_, err := inventory.AddHost(tx, h)
		return err
	})
	return h.ID
}

// run runs a plan to its end.
func (w *world) run(plan job.Plan) job.Detail {
	w.Helper()
	var id trust.RunID
	w.update(func(tx *store.Tx) error {
		var err error
		id, err = w.engine.Create(tx, audit.Actor{Kind: "system", ID: "test"}, plan)
		return err
	})
	w.engine.Wake()
	var d job.Detail
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); {
		w.view(func(tx *store.Tx) error {
			var err error
			d, err = w.engine.Show(tx, id)
			return err
		})
		if !d.State.Open() || d.State == job.Held {
			return d
		}
		<-time.After(10 * time.Millisecond)
	}
	w.Fatalf("run %s is still %s: %s", plan.Procedure, d.State, d.Reason)
	return d
}

// enrol takes a host in and returns it.
func (w *world) enrol(id trust.HostID, acceptNew bool) inventory.Host {
	w.Helper()
	plan, err := discovery.PlanEnrol(w.host(id), acceptNew)
	w.must(err)
	if d := w.run(plan); d.State != job.Done {
		w.Fatalf("enrolment is %s: %s", d.State, d.Reason)
	}
	return w.host(id)
}

// ready takes a server in, which must succeed.
func (w *world) ready(s *lab.Server) inventory.Host {
	w.Helper()
	h := w.enrol(w.add(s, true), false)
	if h.State != inventory.Ready {
		w.Fatalf("host %q is %s: %s", h.Name, h.State, h.Reason)
	}
	return h
}

// scan scans hosts, or all.
func (w *world) scan(ids ...trust.HostID) {
	w.Helper()
	var plan job.Plan
	w.view(func(tx *store.Tx) error {
		var err error
		plan, err = discovery.PlanScan(tx, ids)
		return err
	})
	if d := w.run(plan); d.State != job.Done {
		w.Fatalf("scan is %s: %s", d.State, d.Reason)
	}
}

func (w *world) host(id trust.HostID) (h inventory.Host) {
	w.Helper()
	w.view(func(tx *store.Tx) error {
		var err error
		h, err = inventory.HostByID(tx, id)
		return err
	})
	return h
}

// related returns a key of a kind with all that it is related to.
func (w *world) related(kind inventory.KeyKind, key trust.PublicKey) inventory.Relationship {
	w.Helper()
	var r []inventory.Relationship
	w.view(func(tx *store.Tx) error {
		k, err := inventory.KeyByID(tx, inventory.KeyIDOf(tx.Tenant(), kind, key))
		if err != nil {
			return err
		}
		r, err = inventory.Relate(tx, []inventory.Key{k})
		return err
	})
	return r[0]
}

// lines returns where a user key is accepted.
func (w *world) lines(key trust.PublicKey) (lines []inventory.AuthorizedPlace) {
	w.Helper()
	w.view(func(tx *store.Tx) (err error) {
		where := inventory.PlaceFilter{Key: inventory.KeyIDOf(tx.Tenant(), inventory.UserKey, key)}
		lines, err = inventory.Authorized(tx, where, nil, inventory.MaxPage)
		return err
	})
	return lines
}

// findings returns what is wrong, as "kind level text", sorted.
func (w *world) findings(f inventory.FindingFilter) (texts []string) {
	w.Helper()
	w.view(func(tx *store.Tx) error {
		list, _, err := inventory.Findings(tx, f, inventory.Page{Limit: inventory.MaxPage})
		for _, f := range list {
			texts = append(texts, string(f.Kind)+" "+string(f.Level)+" "+f.Text)
		}
		return err
	})
	slices.Sort(texts)
	return texts
}

// keygen makes a key pair with the real ssh-keygen at path.
func (w *world) keygen(path string, args ...string) trust.PublicKey {
	w.Helper()
	need.Program(w, "ssh-keygen", "openssh-client")
	out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", "", "-f", path}, args...)...).CombinedOutput()
	if err != nil {
		w.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	text, err := os.ReadFile(path + ".pub")
	w.must(err)
	key, _, err := trust.ParsePublicKey(string(text))
	w.must(err)
	return key
}

func (w *world) write(path string, content []byte) {
	w.Helper()
	w.must(os.WriteFile(path, content, 0o600))
}

func TestEnrol(t *testing.T) {
	w := newWorld(t)
	s := w.server("web1")
	h := w.enrol(w.add(s, true), false)
	if h.State != inventory.Ready || h.Mode != inventory.Inventory || h.Unconfirmed() || h.Coverage.Outcome == inventory.Unreachable {
		t.Fatalf("enrolled, the host is %+v", h)
	}
	if !strings.HasPrefix(h.Facts.Banner, "SSH-2.0-OpenSSH") || !filepath.IsAbs(h.Facts.Sshd) || !slices.Contains(h.Facts.Options, s.ConfigFile()) ||
		h.Facts.System == "" || h.Facts.Home == "" {
		t.Errorf("facts are %+v", h.Facts)
	}
	if r := w.related(inventory.UserKey, w.login.Public); len(r.Authorized) != 1 || r.Authorized[0].Path != s.AuthorizedKeysFiles()[0] {
		t.Errorf("the first scan found the login at %+v", r.Authorized)
	}
	// The host key is a key of the inventory, and it is known where it lies.
	if r := w.related(inventory.HostKey, s.HostKey()); len(r.Identities) != 1 || r.Identities[0].Path != s.HostKeyFile() {
		t.Errorf("the host key lies at %+v, want %s", r.Identities, s.HostKeyFile())
	}
}

func TestEnrolOnFirstUse(t *testing.T) {
	w := newWorld(t)
	s := w.server("web1")
	id := w.add(s, false)
	h := w.enrol(id, true)
	if h.State != inventory.Ready || !h.Unconfirmed() || !slices.Equal(h.PinnedKeys(), []trust.PublicKey{s.HostKey()}) {
		t.Fatalf("enrolled on first use, the host is %+v", h)
	}
	f := inventory.FindingFilter{Kinds: []inventory.FindingKind{inventory.Unconfirmed}}
	if got := w.findings(f); len(got) != 1 || !strings.Contains(got[0], string(s.HostKey().Fingerprint())) {
		t.Errorf("findings are %q", got)
	}
	w.update(func(tx *store.Tx) error {
		if _, err := inventory.ConfirmPins(tx, id); err != nil {
			return err
		}
		return discovery.JudgeHost(tx, id)
	})
	if got := w.findings(f); got != nil {
		t.Errorf("after the confirmation, findings are %q", got)
	}
}

func TestEnrolmentIsRefused(t *testing.T) {
	w := newWorld(t)
	first := w.server("web1")
	w.ready(first)
	refused := func(id trust.HostID, acceptNew bool, why string) {
		t.Helper()
		h := w.enrol(id, acceptNew)
		if h.State != inventory.Refused || !strings.Contains(h.Reason, why) {
			t.Errorf("host %q is %s, because %q; want it refused with %q", h.Name, h.State, h.Reason, why)
		}
	}
	refused(w.add(w.server("unpinned"), false), false, "host key")

	// A copy of a machine, by its host key.
	twin := w.server("twin")
	content, err := os.ReadFile(first.HostKeyFile())
	w.must(err)
	w.write(twin.HostKeyFile(), content)
	pub, err := os.ReadFile(first.HostKeyFile() + ".pub")
	w.must(err)
	w.write(twin.HostKeyFile()+".pub", pub)
	w.must(twin.Restart(t.Context()))
	refused(w.add(twin, false), true, `"web1"`)

	// Another machine than the one that was named.
	other := w.server("other")
	id := w.add(other, true)
	w.keygen(filepath.Join(other.Dir(), "new_host_key"), "-t", "ed25519")
	content, err = os.ReadFile(filepath.Join(other.Dir(), "new_host_key"))
	w.must(err)
	w.write(other.HostKeyFile(), content)
	w.must(os.Remove(other.HostKeyFile() + ".pub"))
	w.must(other.Restart(t.Context()))
	refused(id, false, string(other.HostKey().Fingerprint()))

	// Nobody lets us in, and nobody is there.
	closed := w.server("closed")
	w.write(closed.AuthorizedKeysFiles()[0], nil)
	refused(w.add(closed, true), false, "closed")
	gone := w.server("gone")
	id = w.add(gone, true)
	gone.Kill()
	refused(id, false, "gone")
}

func TestScan(t *testing.T) {
	w := newWorld(t)
	ca := filepath.Join(w.dir, "ca.pub")
	authority := w.keygen(strings.TrimSuffix(ca, ".pub"), "-t", "ed25519", "-C", "the authority")
	other := w.keygen(filepath.Join(w.dir, "other"), "-t", "ed25519")
	w.write(ca, []byte("# who signs\n"+authority.String()+" the authority\n\n"+other.String()+"\nno key\n"))
	s := w.server("web1", ".ssh/authorized_keys", ".ssh/authorized_keys", ".ssh/authorized_keys2")
	h := w.ready(s)
	ssh := filepath.Join(s.Home(), ".ssh")
	stranger := w.keygen(filepath.Join(w.dir, "stranger"), "-t", "ed25519")
	weak := w.keygen(filepath.Join(w.dir, "weak"), "-t", "rsa", "-b", "1024")
	mine := w.keygen(filepath.Join(ssh, "id_ed25519"), "-t", "ed25519", "-C", "alice")
	w.must(s.Authorize(mine, `from="127.0.0.1",command="true"`))
	w.write(filepath.Join(ssh, "authorized_keys2"), []byte("# left over\n"+stranger.String()+" stranger\n"+weak.String()+" weak\nnonsense "+stranger.String()+" again\n"))
	// What a user of the host may call a file must not end the scan.
	content, err := os.ReadFile(filepath.Join(ssh, "id_ed25519"))
	w.must(err)
	w.write(filepath.Join(ssh, "id_\xff\x1b[31m"), content)
	w.scan()

	now := w.host(h.ID)
	if now.Coverage.Outcome == inventory.Unreachable || !now.Coverage.ScannedAt.After(h.Coverage.ScannedAt) {
		t.Fatalf("coverage is %+v", now.Coverage)
	}
	if !slices.ContainsFunc(now.Coverage.Notes, func(n inventory.Note) bool {
		return n.About == inventory.NoteUnseenTrust && strings.Contains(n.Text, ca)
	}) {
		t.Errorf("no note of the trust in %s: %+v", ca, now.Coverage.Notes)
	}
	var authorities []string
	for _, n := range now.Coverage.Notes {
		if n.Path == ca {
			authorities = append(authorities, n.Text)
		}
	}
	if want := []string{
		"certificates of " + string(authority.Fingerprint()) + ` (ssh-ed25519 "the authority") let people in, by ` + ca,
		"certificates of " + string(other.Fingerprint()) + ` (ssh-ed25519 "") let people in, by ` + ca,
	}; !slices.Equal(authorities, want) {
		t.Errorf("the authorities are %q, want %q", authorities, want)
	}
	if !slices.ContainsFunc(now.Coverage.Notes, func(n inventory.Note) bool {
		return n.About == inventory.NoteUnread && strings.Contains(n.Text, "printable")
	}) {
		t.Errorf("no note of the file without a printable name: %+v", now.Coverage.Notes)
	}
	r := w.related(inventory.UserKey, mine)
	if len(r.Authorized) != 1 || r.Authorized[0].Options != `from="127.0.0.1",command="true"` || r.Authorized[0].HostName != "web1" {
		t.Errorf("alice's key is authorized at %+v", r.Authorized)
	}
	if lines := w.lines(mine); len(lines) != 1 || lines[0].Line != 2 {
		t.Errorf("alice's key is on the lines %+v", lines)
	}
	if len(r.Identities) != 1 || r.Identities[0].Path != filepath.Join(ssh, "id_ed25519") || r.Identities[0].Format != "openssh" || r.Identities[0].Encrypted ||
		r.Key.Custody != inventory.InPlace {
		t.Errorf("alice's key is %s and lies at %+v", r.Key.Custody, r.Identities)
	}
	var left []int
	for _, p := range w.lines(stranger) {
		if p.Path != filepath.Join(ssh, "authorized_keys2") || p.User != s.User() {
			t.Errorf("the stranger's key is authorized at %+v", p)
		}
		if (p.Refused != "") != (p.Line == 4) {
			t.Errorf("line %d is refused because %q", p.Line, p.Refused)
		}
		left = append(left, p.Line)
	}
	if !slices.Equal(left, []int{2, 4}) {
		t.Errorf("the stranger's key is on the lines %v, want 2 and 4", left)
	}
	kinds := func(key trust.PublicKey) (kinds []inventory.FindingKind) {
		for _, f := range w.related(inventory.UserKey, key).Findings {
			kinds = append(kinds, f.Kind)
		}
		return slices.Compact(kinds)
	}
	// Where the tests run as root, every line without limits lets in root.
	root := func(kinds ...inventory.FindingKind) []inventory.FindingKind {
		if s.User() == "root" {
			kinds = append(kinds, inventory.Unrestricted)
		}
		slices.Sort(kinds)
		return kinds
	}
	if got, want := kinds(stranger), root(inventory.Orphaned, inventory.Unknown); !slices.Equal(got, want) {
		t.Errorf("the stranger's key is %v, want %v", got, want)
	}
	if got, want := kinds(weak), root(inventory.Orphaned, inventory.Unknown, inventory.Weak); !slices.Equal(got, want) {
		t.Errorf("the weak key is %v, want %v", got, want)
	}
	if got := kinds(mine); got != nil {
		t.Errorf("alice's key is %v, want nothing wrong with it", got)
	}

	// A copy of the private half, and a line that goes.
	w.write(filepath.Join(ssh, "copy"), content)
	w.must(os.Remove(filepath.Join(ssh, "authorized_keys2")))
	w.scan(h.ID)
	if got := kinds(mine); !slices.Equal(got, []inventory.FindingKind{inventory.Shared}) {
		t.Errorf("alice's key, copied, is %v", got)
	}
	if r := w.related(inventory.UserKey, stranger); r.Authorized != nil || r.Findings != nil {
		t.Errorf("the stranger's key, gone, is at %+v with %+v", r.Authorized, r.Findings)
	}
}

// TestRestriction changes nothing but the options of a line.
func TestRestriction(t *testing.T) {
	w := newWorld(t)
	s := w.server("web1")
	if s.User() != "root" {
		need.Skip(t, "needs to log in as root")
	}
	key := w.keygen(filepath.Join(w.dir, "k"), "-t", "ed25519")
	w.must(s.Authorize(key, ""))
	h := w.ready(s)
	f := inventory.FindingFilter{Kinds: []inventory.FindingKind{inventory.Unrestricted}, Key: inventory.KeyIDOf(storetest.Tenant, inventory.UserKey, key)}
	if got := w.findings(f); len(got) != 1 || !strings.Contains(got[0], "line 2 ") {
		t.Errorf("findings are %q", got)
	}
	content, err := os.ReadFile(s.AuthorizedKeysFiles()[0])
	w.must(err)
	w.write(s.AuthorizedKeysFiles()[0], bytes.Replace(content, []byte(key.String()), []byte(`from="10.0.0.0/8" `+key.String()), 1))
	w.scan(h.ID)
	if got := w.findings(f); got != nil {
		t.Errorf("restricted, findings are %q", got)
	}
}

// TestRescanChangesNothing scans twice what has not changed.
func TestRescanChangesNothing(t *testing.T) {
	w := newWorld(t)
	s := w.server("web1", ".ssh/authorized_keys", ".ssh/authorized_keys")
	w.keygen(filepath.Join(s.Home(), ".ssh", "id_rsa"), "-t", "rsa", "-b", "2048", "-m", "PEM")
	h := w.ready(s)
	rows := func() string {
		var all []any
		w.view(func(tx *store.Tx) error {
			files, err := inventory.Files(tx, h.ID)
			if err != nil {
				return err
			}
			related, _, err := inventory.Relationships(tx, inventory.KeyFilter{}, inventory.Page{})
			for i := range related {
				for j := range related[i].Identities {
					related[i].Identities[j].AsOf = time.Time{} // of the newest scan
				}
			}
			all = []any{files, related}
			return err
		})
		text, err := json.MarshalIndent(all, "", " ")
		w.must(err)
		return string(text)
	}
	before := rows()
	w.scan()
	if after := rows(); after != before {
		t.Errorf("the same again is\n%s\nafter\n%s", after, before)
	}
}

// TestUnreachable is one host of three that does not answer.
func TestUnreachable(t *testing.T) {
	w := newWorld(t)
	servers := []*lab.Server{w.server("web1"), w.server("web2"), w.server("web3")}
	var ids []trust.HostID
	for _, s := range servers {
		ids = append(ids, w.ready(s).ID)
	}
	before := w.host(ids[1])
	servers[1].Kill()
	w.scan()
	for i, id := range ids {
		h := w.host(id)
		if (h.Coverage.Outcome == inventory.Unreachable) != (i == 1) {
			t.Errorf("host %q is %s: %s", h.Name, h.Coverage.Outcome, h.Coverage.Why)
		}
	}
	h := w.host(ids[1])
	if !h.Coverage.ScannedAt.Equal(before.Coverage.ScannedAt) || !strings.Contains(h.Coverage.Why, "web2") || h.State != inventory.Ready {
		t.Errorf("the host that is away is %+v", h)
	}
	// What was known of it is, and says how old it is.
	for _, p := range w.places(w.login.ID) {
		if want := before.Coverage.ScannedAt; p.Host == h.ID && !p.AsOf.Equal(want) {
			t.Errorf("the place on the host that is away is as of %v, want %v", p.AsOf, want)
		}
	}
	w.must(servers[1].Restart(t.Context()))
	w.scan()
	if h := w.host(ids[1]); h.Coverage.Outcome == inventory.Unreachable || h.Coverage.Why != "" && h.Coverage.Outcome == inventory.Scanned {
		t.Errorf("the host that came back is %+v", h.Coverage)
	}
}

func (w *world) places(key trust.KeyID) (places []inventory.AuthorizedPlace) {
	w.Helper()
	w.view(func(tx *store.Tx) error {
		var err error
		places, err = inventory.Authorized(tx, inventory.PlaceFilter{Key: key}, nil, inventory.MaxPage)
		return err
	})
	return places
}

func TestPlans(t *testing.T) {
	s := storetest.Open(t, inventory.Schema)
	err := s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
		_, err := discovery.PlanScan(tx, nil)
		return err
	})
	if trust.KindOf(err) != trust.Conflict {
		t.Errorf("a scan of no host: %v", err)
	}
	err = s.View(t.Context(), storetest.Tenant, func(tx *store.Tx) error {
		_, err := discovery.PlanScan(tx, []trust.HostID{inventory.NewHostID()})
		return err
	})
	if trust.KindOf(err) != trust.NotFound {
		t.Errorf("a scan of a host that there is not: %v", err)
	}
}

// A discovery scans what is left of its hosts, under its own name.
func TestPlanDiscovery(t *testing.T) {
	w := newWorld(t)
	web1 := w.ready(w.server("web1"))
	web2 := w.ready(w.server("web2"))
	plan := func(args string) (plan job.Plan, err error) {
		w.view(func(tx *store.Tx) error {
			plan, err = discovery.PlanDiscovery(tx, job.Schedule{Name: "discovery:dmz", Args: json.RawMessage(args)})
			return nil
		})
		return plan, err
	}
	names := func(p job.Plan) (all []string) {
		for _, t := range p.Targets["hosts"] {
			all = append(all, t.Name)
		}
		return all
	}
	both := `{"hosts":["` + string(web1.ID) + `","` + string(web2.ID) + `"]}`
	p, err := plan(both)
	if err != nil || strings.Join(names(p), " ") != "web1 web2" || p.Subject != "discovery:dmz" || !slices.Contains(p.Exclusive, "discovery:dmz") {
		t.Errorf("both: %+v, %v", p, err)
	}
	w.update(func(tx *store.Tx) error {
		_, err := inventory.RemoveHost(tx, web1.ID, web1.Revision)
		return err
	})
	if p, err = plan(both); err != nil || strings.Join(names(p), " ") != "web2" {
		t.Errorf("one is gone: %v, %v", names(p), err)
	}
	if p, err = plan(`{}`); err != nil || strings.Join(names(p), " ") != "web2" {
		t.Errorf("all: %v, %v", names(p), err)
	}
	if _, err = plan(`{"hosts":["` + string(web1.ID) + `"]}`); trust.KindOf(err) != trust.Conflict {
		t.Errorf("all are gone: %v, which must start nothing, and not a scan of all", err)
	}
}
