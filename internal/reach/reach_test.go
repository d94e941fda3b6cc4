package reach_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/lab"
	"keyturn/internal/need"
	"keyturn/internal/reach"
	"keyturn/internal/store"
	"keyturn/internal/store/storetest"
	"keyturn/internal/trust"
)

// A world is a real sshd, the inventory's row of it, and keys that may open it.
type world struct {
	*testing.T
	store   *store.Store
	keyring *keyring.Keyring
	server  *lab.Server
	host    trust.HostID
}

// newWorld returns a world whose host lists keys with the given names as
// credentials, in that order. Those that begin with "un" the server does not
// accept.
func newWorld(t *testing.T, credentials ...string) *world {
	t.Helper()
	t.Parallel()
	need.Within(t, 5*time.Minute)
	w := &world{T: t, host: inventory.NewHostID()}
	w.store = storetest.Open(t, inventory.Schema, keyring.Schema)
	kek, err := keyring.LoadKEK(filepath.Join(t.TempDir(), "kek"), "", true)
	w.must(err)
	w.keyring, err = keyring.Open(t.Context(), w.store, kek)
	w.must(err)
	w.server, err = lab.Start(t.Context(), t.TempDir(), lab.Options{Name: "web1", PenaltiesOff: true})
	if trust.KindOf(err) == trust.NotFound {
		need.Skip(t, "sshd: %v", err)
	}
	w.must(err)
	t.Cleanup(w.server.Close)
	h := inventory.Host{
		ID: w.host, Name: "web1", Address: w.server.Address(), User: w.server.User(), State: inventory.Ready,
		Pins: []inventory.Pin{{Key: w.server.HostKey(), Origin: inventory.Given}},
	}
	for _, name := range credentials {
		h.Credentials = append(h.Credentials, inventory.Credential{Key: w.key(name, true)})
	}
	w.update(func(tx *store.Tx) error {
		_, err := inventory.AddHost(tx, h)
		return err
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
	w.must(w.store.Update(w.Context(), storetest.Event(), fn))
}

// key makes the key of a name, which the keyring holds or not.
func (w *world) key(name string, held bool) (id trust.KeyID) {
	w.Helper()
	private, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
	w.must(err)
	w.update(func(tx *store.Tx) error {
		k, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: private.Public(), Comment: name, Custody: inventory.Held})
		if id = k.ID; err != nil || !held {
			return err
		}
		return w.keyring.Put(tx, k.ID, private)
	})
	if !strings.HasPrefix(name, "un") {
		w.must(w.server.Authorize(private.Public(), ""))
	}
	return id
}

// reach returns a Reach that keeps no connections yet.
func (w *world) reach() *reach.Reach {
	r := reach.New(w.store, w.keyring, nil, slog.New(slog.NewTextHandler(w.Output(), nil)))
	w.Cleanup(r.Close)
	return r
}

// row is the host as it is recorded now.
func (w *world) row() (h inventory.Host) {
	w.Helper()
	w.must(w.store.View(w.Context(), storetest.Tenant, func(tx *store.Tx) (err error) {
		h, err = inventory.HostByID(tx, w.host)
		return err
	}))
	return h
}

// asked returns what the server says of keys and logins while act runs.
func (w *world) asked(act func()) (events []lab.Event) {
	w.Helper()
	before := w.server.Log().Seq()
	act()
	// The log is read behind the server: what it says of a last login of our own
	// is behind all that it has to say of act.
	last, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
	w.must(err)
	w.must(w.server.Authorize(last.Public(), ""))
	signer, err := last.Signer()
	w.must(err)
	_, err = w.reach().Prove(w.Context(), storetest.Tenant, trust.Login{Host: w.host, User: w.server.User()}, signer)
	w.must(err)
	end, err := w.server.Log().Await(w.Context(), before, lab.AcceptedBy(last.Public().Fingerprint()))
	w.must(err)
	for _, e := range w.server.Log().Events(before) {
		if slices.Contains([]lab.EventKind{lab.Matched, lab.Failed, lab.Accepted}, e.Kind) && e.Seq < end.Seq && e.Fingerprint != last.Public().Fingerprint() {
			events = append(events, e)
		}
	}
	return events
}

// logins is how many logins the server lets in while act runs.
func (w *world) logins(act func()) (n int) {
	w.Helper()
	for _, e := range w.asked(act) {
		if e.Kind == lab.Accepted {
			n++
		}
	}
	return n
}

// use opens the host, returns the connection, and says by which key it is open.
func (w *world) use(r *reach.Reach, except ...trust.KeyID) string {
	w.Helper()
	h, err := r.Open(w.Context(), storetest.Tenant, w.host, except...)
	w.must(err)
	defer h.Close()
	return w.name(h.OpenedBy)
}

func (w *world) name(id trust.KeyID) (name string) {
	w.Helper()
	w.must(w.store.View(w.Context(), storetest.Tenant, func(tx *store.Tx) error {
		k, err := inventory.KeyByID(tx, id)
		name = k.Comment
		return err
	}))
	return name
}

// refused opens the host and wants an error of a kind that says something.
func (w *world) refused(r *reach.Reach, kind trust.Kind, says string, except ...trust.KeyID) {
	w.Helper()
	h, err := r.Open(w.Context(), storetest.Tenant, w.host, except...)
	if err == nil {
		h.Close()
	}
	if trust.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
		w.Errorf("got error %v of kind %v, want kind %v with %q", err, trust.KindOf(err), kind, says)
	}
}

// The first credential of the list that the server takes opens the host; one
// that must not is not even offered.
func TestCredentialsInOrder(t *testing.T) {
	w := newWorld(t, "unknown there", "first", "second")
	keys := map[string]trust.KeyID{}
	for _, c := range w.row().Credentials {
		keys[w.name(c.Key)] = c.Key
	}
	if got := w.use(w.reach()); got != "first" {
		t.Errorf("the host was opened by %q, want the first that it accepts", got)
	}
	if got := w.use(w.reach(), keys["first"]); got != "second" {
		t.Errorf("without the first, the host was opened by %q", got)
	}
	w.update(func(tx *store.Tx) error { return inventory.AddCredential(tx, w.host, keys["second"], 0) })
	if got := w.use(w.reach()); got != "second" {
		t.Errorf("in another order, the host was opened by %q", got)
	}
	w.refused(w.reach(), trust.Denied, "host web1", keys["first"], keys["second"])
	w.refused(w.reach(), trust.Conflict, `no other credential that opens host "web1"`, keys["unknown there"], keys["first"], keys["second"])
}

// A credential whose private half the keyring does not hold is passed over: the
// others may open the host.
func TestCredentialThatIsNotHeld(t *testing.T) {
	w := newWorld(t, "held")
	lost := w.key("lost", false)
	w.update(func(tx *store.Tx) error { return inventory.AddCredential(tx, w.host, lost, 0) })
	if got := w.use(w.reach()); got != "held" {
		t.Errorf("the host was opened by %q", got)
	}
}

// A connection that is given back serves the next caller, and no two at once. It
// serves nobody for whom the host, as it is recorded now, would not be opened that way.
func TestKeptConnections(t *testing.T) {
	w := newWorld(t, "first", "second")
	first := w.row().Credentials[0].Key
	r := w.reach()
	for _, step := range []struct {
		name string
		want int // logins
		act  func()
	}{
		{"three times in a row", 1, func() { w.use(r); w.use(r); w.use(r) }},
		{"lent to one caller at a time", 1, func() {
			h, err := r.Open(t.Context(), storetest.Tenant, w.host)
			w.must(err)
			w.use(r)
			h.Close()
		}},
		{"opened by a key that must not be the one", 1, func() {
			if got := w.use(r, first); got != "second" {
				t.Errorf("it is open by %q", got)
			}
		}},
		{"a credential less", 0, func() {
			w.update(func(tx *store.Tx) error { return inventory.RemoveCredential(tx, w.host, first) })
			if got := w.use(r); got != "second" {
				t.Errorf("it is open by %q, which is no credential any more", got)
			}
		}},
		{"another login", 0, func() {
			w.change(func(h *inventory.Host) { h.User = "nobody-of-that-name" })
			w.refused(r, trust.Denied, "host web1")
			w.change(func(h *inventory.Host) { h.User = w.server.User() })
		}},
		{"another address", 0, func() {
			w.change(func(h *inventory.Host) { h.Address = "127.0.0.1:1" })
			w.refused(r, trust.Unavailable, "host web1")
			w.change(func(h *inventory.Host) { h.Address = w.server.Address() })
		}},
		{"as it was", 0, func() { w.use(r) }},
		{"after the end", 2, func() {
			r.Close()
			w.use(r)
			w.use(r)
		}},
	} {
		if got := w.logins(step.act); got != step.want {
			t.Errorf("%s: %d logins, want %d", step.name, got, step.want)
		}
	}
}

// change changes the host's row.
func (w *world) change(change func(*inventory.Host)) {
	w.Helper()
	w.update(func(tx *store.Tx) error {
		h, err := inventory.HostByID(tx, w.host)
		if err != nil {
			return err
		}
		change(&h)
		_, err = inventory.UpdateHost(tx, h)
		return err
	})
}

// A Reach that is closed leaves no connection open, neither one that it kept nor
// one that comes back later.
func TestClose(t *testing.T) {
	w := newWorld(t, "first")
	r := w.reach()
	kept, err := r.Open(t.Context(), storetest.Tenant, w.host)
	w.must(err)
	lent, err := r.Open(t.Context(), storetest.Tenant, w.host)
	w.must(err)
	kept.Close()
	for _, end := range []func(){r.Close, lent.Close} {
		before := w.server.Log().Seq()
		end()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		_, err := w.server.Log().Await(ctx, before, lab.IsKind(lab.Closed))
		cancel()
		w.must(err)
	}
}

// A host that is down is unavailable, which has a run try again; the connection
// that was kept to it does not hide that for long, and when the host is back it is
// opened anew.
func TestUnreachableHost(t *testing.T) {
	w := newWorld(t, "first")
	r := w.reach()
	w.use(r)
	w.server.Kill()
	for deadline := time.Now().Add(20 * time.Second); ; {
		h, err := r.Open(t.Context(), storetest.Tenant, w.host)
		if err != nil {
			if trust.KindOf(err) != trust.Unavailable || !strings.Contains(err.Error(), "host web1: ") {
				t.Errorf("got error %v of kind %v", err, trust.KindOf(err))
			}
			break
		}
		h.Close()
		if time.Now().After(deadline) {
			t.Fatal("a connection to a host that is down is lent after 20 s still")
		}
	}
	w.must(w.server.Restart(t.Context()))
	if got := w.use(r); got != "first" {
		t.Errorf("the host was opened by %q", got)
	}
}

// What presents another host key is not the host: it is offered no credential,
// and a connection that was made while that key was pinned is not lent any more.
func TestAnotherHostKey(t *testing.T) {
	w := newWorld(t, "first")
	r := w.reach()
	w.use(r)
	w.update(func(tx *store.Tx) error {
		other, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
		if err != nil {
			return err
		}
		if err := inventory.AddPin(tx, w.host, other.Public(), inventory.Given); err != nil {
			return err
		}
		return inventory.RemovePin(tx, w.host, w.server.HostKey())
	})
	for _, e := range w.asked(func() {
		w.refused(r, trust.Conflict, "host web1: ")
		w.update(func(tx *store.Tx) error { return inventory.AddPin(tx, w.host, w.server.HostKey(), inventory.Given) })
	}) {
		t.Errorf("the server was asked, although it is another: %s", e.Text)
	}
	if got := w.use(w.reach()); got != "first" {
		t.Errorf("with the right key pinned, the host was opened by %q", got)
	}
}

// Nobody opens a host that is not there, nor that of another tenant.
func TestNoSuchHost(t *testing.T) {
	w := newWorld(t, "first")
	r := w.reach()
	w.use(r) // a connection is kept
	if _, err := r.Open(t.Context(), storetest.Other, w.host); trust.KindOf(err) != trust.NotFound {
		t.Errorf("another tenant: got %v", err)
	}
	if _, err := r.Open(t.Context(), storetest.Tenant, inventory.NewHostID()); trust.KindOf(err) != trust.NotFound {
		t.Errorf("no host: got %v", err)
	}
}

// A password goes to nobody of whom it is only believed that it is the host, and
// to the host itself once, whatever comes of it.
func TestPassword(t *testing.T) {
	w := newWorld(t)
	r := w.reach()
	refused := func(kind trust.Kind, says string) {
		t.Helper()
		h, err := r.OpenByPassword(t.Context(), storetest.Tenant, w.host)
		if err == nil {
			h.Close()
		}
		if trust.KindOf(err) != kind || !strings.Contains(err.Error(), says) {
			t.Errorf("got error %v of kind %v, want kind %v with %q", err, trust.KindOf(err), kind, says)
		}
	}
	refused(trust.Conflict, `the password of host "web1" is not known`)
	w.must(w.keyring.Lend(storetest.Tenant, string(w.host), "wrong"))
	w.pinOnly(inventory.FirstUse)
	refused(trust.Conflict, "nobody has vouched")
	w.update(func(tx *store.Tx) error {
		_, err := inventory.ConfirmPins(tx, w.host)
		return err
	})
	refused(trust.Denied, "host web1: ") // it is sent now
	refused(trust.Conflict, "is not known any more")
}

// pinOnly has the host's key be its only one, pinned as told.
func (w *world) pinOnly(origin inventory.Origin) {
	w.Helper()
	other, err := keyring.Generate(keyring.Spec{Type: "ed25519"})
	w.must(err)
	w.update(func(tx *store.Tx) error {
		for _, change := range []func() error{
			func() error { return inventory.AddPin(tx, w.host, other.Public(), inventory.Given) },
			func() error { return inventory.RemovePin(tx, w.host, w.server.HostKey()) },
			func() error { return inventory.AddPin(tx, w.host, w.server.HostKey(), origin) },
			func() error { return inventory.RemovePin(tx, w.host, other.Public()) },
		} {
			if err := change(); err != nil {
				return err
			}
		}
		return nil
	})
}
