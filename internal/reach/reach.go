// Package reach opens hosts: it knows which credential opens which of them, in
// what order, and keeps connections for those who come back soon.
//
// It is the one place where a host's row, its pinned keys and the private keys
// of the keyring come together into a connection. Whoever asks says which
// credentials must not be the one that opens it: a key is taken away only over
// a connection that another key opened.
//
// A connection is lent to one caller at a time. Returned ones are kept for a
// while, so that neighbouring rows of a run cost one handshake, not one each;
// how many, and for how long, is bounded.
package reach

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"keyturn/internal/agent"
	"keyturn/internal/dial"
	"keyturn/internal/inventory"
	"keyturn/internal/keyring"
	"keyturn/internal/remote"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

const (
	// maxIdle is how many connections are kept, and keepIdle how long each is.
	// Both are small: an idle connection holds some processes on the host, sshd's and
	// the shells that stay with it.
	maxIdle  = 256
	keepIdle = 20 * time.Second
	// maxRows is how many hosts' rows are remembered, of less than a kilobyte each:
	// those of a large run from one of its rows to the next.
	maxRows = 16 << 10
)

// Reach opens hosts. Its methods may be called from any goroutine.
type Reach struct {
	// Connected, if it is set before the first call of a method, is told of each
	// connection to a host what for it was made, how long that took, and how it
	// came out. It must not wait.
	Connected func(purpose string, took time.Duration, err error)
	// Agent, if it is set before the first call of a method, signs with keys that the
	// keyring does not hold, for one tenant: whoever may add hosts there decides where
	// the agent's keys log in to.
	Agent   *agent.Client
	AgentOf trust.TenantID

	store   *store.Store
	keyring *keyring.Keyring
	hook    remote.Hook
	log     *slog.Logger

	mu     sync.Mutex
	idle   []*Hands // oldest first
	rows   map[hostName]inventory.Host
	closed bool
}

// A hostName names the row of a host.
type hostName struct {
	tenant trust.TenantID
	host   trust.HostID
}

// New returns a Reach. hook is called around every effect on a host; nil for
// none.
func New(s *store.Store, k *keyring.Keyring, hook remote.Hook, log *slog.Logger) *Reach {
	return &Reach{store: s, keyring: k, hook: hook, log: log, rows: map[hostName]inventory.Host{}}
}

// Close ends all connections that are kept, and keeps none from now on.
func (r *Reach) Close() {
	r.mu.Lock()
	idle := r.idle
	r.idle, r.closed = nil, true
	r.mu.Unlock()
	for _, h := range idle {
		h.end()
	}
}

// Hands are a connection to a host, lent to one caller until Close.
type Hands struct {
	*remote.Host
	// Row is the host as the inventory had it when the connection was asked for,
	// without what scans found.
	Row inventory.Host
	// OpenedBy is the key that opened the connection; empty where a password did,
	// which is then not kept.
	OpenedBy trust.KeyID
	// Kept: the connection was made for an earlier caller, and so says nothing of whether
	// the key opens the host now.
	Kept bool

	reach  *Reach
	tenant trust.TenantID
	conn   *dial.Conn
	timer  *time.Timer // ends the connection while it is idle
}

// Close gives the connection back. One that broke is found when it is next
// asked for something, and not kept then.
func (h *Hands) Close() {
	r := h.reach
	r.mu.Lock()
	if r.closed || h.OpenedBy == "" || h.conn.Broken() || h.Orphan() {
		r.mu.Unlock()
		h.end()
		return
	}
	var evicted *Hands
	if len(r.idle) >= maxIdle {
		evicted = r.idle[0]
		evicted.timer.Stop()
		r.idle = r.idle[1:]
	}
	h.timer = time.AfterFunc(keepIdle, func() {
		r.mu.Lock()
		at := slices.Index(r.idle, h)
		if at >= 0 {
			r.idle = slices.Delete(r.idle, at, at+1)
		}
		r.mu.Unlock()
		if at >= 0 {
			h.end()
		}
	})
	r.idle = append(r.idle, h)
	r.mu.Unlock()
	if evicted != nil {
		evicted.end()
	}
}

// end closes the connection for good.
func (h *Hands) end() { _ = h.conn.Close() }

// Open lends a connection to a host that none of the keys in except opened.
// Errors: those of dial.Dial; NotFound where there is no such host; Conflict
// where every credential of the host is in except.
func (r *Reach) Open(ctx context.Context, tenant trust.TenantID, host trust.HostID, except ...trust.KeyID) (*Hands, error) {
	row, err := r.row(ctx, tenant, host)
	if err != nil {
		return nil, err
	}
	if h := r.kept(tenant, row, except); h != nil {
		return h, nil
	}
	credentials, err := r.credentials(ctx, tenant, row, except)
	if err != nil {
		return nil, err
	}
	return r.login(ctx, tenant, row, credentials)
}

// Try logs in to a host by one of the keys that are to open it, and keeps no connection.
// Where that key is refused, works, which may be empty, brings the connection to a good
// end: one that ends without a login counts as an attack. Errors: those of Open; Denied
// where the host does not take the key.
func (r *Reach) Try(ctx context.Context, tenant trust.TenantID, host trust.HostID, key, works trust.KeyID) error {
	row, err := r.row(ctx, tenant, host)
	if err != nil {
		return err
	}
	offered, err := r.credentials(ctx, tenant, row, allBut(row, key))
	if err != nil {
		return err
	}
	if works != "" && works != key {
		if good, err := r.credentials(ctx, tenant, row, allBut(row, works)); err == nil {
			offered = append(offered, good...)
		}
	}
	hands, err := r.login(ctx, tenant, row, offered)
	if err != nil {
		return err
	}
	hands.end()
	if hands.OpenedBy != key {
		return trust.Errorf(trust.Denied, "host %s does not take key %s", row.Name, key)
	}
	return nil
}

// allBut returns the keys that are to open a host, but for one.
func allBut(row inventory.Host, key trust.KeyID) (others []trust.KeyID) {
	for _, c := range row.Credentials {
		if c.Key != key {
			others = append(others, c.Key)
		}
	}
	return others
}

// login makes a connection to a host that one of the credentials opens.
func (r *Reach) login(ctx context.Context, tenant trust.TenantID, row inventory.Host, credentials []dial.Credential) (*Hands, error) {
	begun := time.Now()
	conn, err := dial.Dial(ctx, target(row, row.User), credentials)
	r.count("login", begun, err)
	if err != nil {
		return nil, describe(row, err)
	}
	hands, err := remote.Open(ctx, conn, row.Name, remote.Become(row.Become), r.hook)
	if err != nil {
		_ = conn.Close()
		return nil, err // it names the host
	}
	return &Hands{Host: hands, Row: row, OpenedBy: trust.KeyID(conn.OpenedBy()), reach: r, tenant: tenant, conn: conn}, nil
}

// PasswordFor is how long a password waits for OpenByPassword.
const PasswordFor = keyring.LendFor

// OpenByPassword lends the one connection to a host that a password opens which
// the keyring was lent by the host's id. The password goes to nobody but a host
// whose key somebody has vouched for: until then it stays lent, and from then on it
// is gone after the call, whatever came of it. Errors: those of Open; Conflict where the host's key was accepted on
// first use, or the password is not there any more.
func (r *Reach) OpenByPassword(ctx context.Context, tenant trust.TenantID, host trust.HostID) (*Hands, error) {
	row, err := r.row(ctx, tenant, host)
	if err != nil {
		return nil, err
	}
	if len(row.Pins) == 0 || row.Unconfirmed() {
		return nil, trust.Errorf(trust.Conflict, "nobody has vouched for the host key of %q: a password is not sent to it", row.Name).
			WithHint("keyturn host confirm %s", row.Name)
	}
	password, ok := r.keyring.Take(tenant, string(host))
	if !ok {
		return nil, trust.Errorf(trust.Conflict, "the password of host %q is not known any more: it is never written down, and was used already, waited too long, or was given to a server that has been restarted since", row.Name)
	}
	begun := time.Now()
	conn, err := dial.Dial(ctx, target(row, row.User), []dial.Credential{dial.PasswordCredential("password", password)})
	r.count("password", begun, err)
	if err != nil {
		return nil, describe(row, err)
	}
	hands, err := remote.Open(ctx, conn, row.Name, remote.Become(row.Become), r.hook)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &Hands{Host: hands, Row: row, reach: r, tenant: tenant, conn: conn}, nil
}

// kept takes a connection out of those that are kept.
func (r *Reach) kept(tenant trust.TenantID, row inventory.Host, except []trust.KeyID) *Hands {
	for {
		r.mu.Lock()
		at := slices.IndexFunc(r.idle, func(h *Hands) bool {
			return h.tenant == tenant && h.Row.ID == row.ID && h.Row.Address == row.Address && h.Row.User == row.User &&
				h.Row.Become == row.Become && slices.Contains(row.PinnedKeys(), h.conn.HostKey()) && !slices.Contains(except, h.OpenedBy) &&
				slices.ContainsFunc(row.Credentials, func(c inventory.Credential) bool { return c.Key == h.OpenedBy })
		})
		if at < 0 {
			r.mu.Unlock()
			return nil
		}
		h := r.idle[at]
		r.idle = slices.Delete(r.idle, at, at+1)
		h.timer.Stop()
		r.mu.Unlock()
		if h.conn.Broken() {
			h.end()
			continue
		}
		h.Row, h.Kept = row, true
		return h
	}
}

// Banner returns how the host's server introduced itself.
func (h *Hands) Banner() string { return h.conn.Version() }

// Server returns what the host's server says it is: what a line of a file means
// depends on who reads it.
func (h *Hands) Server() trust.ServerVersion {
	// What is no identification string would not have come this far.
	v, _ := trust.ParseServerVersion(h.conn.Version())
	return v
}

// Learn returns the host key that a host presents now. Nothing vouches for it.
func (r *Reach) Learn(ctx context.Context, row inventory.Host) (trust.PublicKey, error) {
	begun := time.Now()
	key, _, err := dial.Learn(ctx, row.Address, netip.Addr{})
	r.count("learn", begun, err)
	return key, describe(row, err)
}

// Prove logs in to an account of a host with a key, as dial.Prove does.
func (r *Reach) Prove(ctx context.Context, tenant trust.TenantID, login trust.Login, signer ssh.Signer) (dial.Outcome, error) {
	row, err := r.row(ctx, tenant, login.Host)
	if err != nil {
		return "", err
	}
	begun := time.Now()
	outcome, err := dial.Prove(ctx, target(row, login.User), signer)
	r.count("prove", begun, err)
	return outcome, describe(row, err)
}

// Query asks an account of a host about a key, as dial.Query does. Where the
// account is the one that Keyturn logs in to, the connection ends in a login.
func (r *Reach) Query(ctx context.Context, tenant trust.TenantID, login trust.Login, key trust.PublicKey) (dial.Outcome, error) {
	row, err := r.row(ctx, tenant, login.Host)
	if err != nil {
		return "", err
	}
	var credentials []dial.Credential
	if login.User == row.User {
		if credentials, err = r.credentials(ctx, tenant, row, nil); err != nil {
			return "", err
		}
	}
	begun := time.Now()
	outcome, err := dial.Query(ctx, target(row, login.User), key, credentials)
	r.count("query", begun, err)
	return outcome, describe(row, err)
}

// Disprove finds out whether an account of a host still takes a key, as
// dial.Disprove does.
func (r *Reach) Disprove(ctx context.Context, tenant trust.TenantID, login trust.Login, old trust.PublicKey, good ssh.Signer) (stillAccepted bool, err error) {
	row, err := r.row(ctx, tenant, login.Host)
	if err != nil {
		return false, err
	}
	begun := time.Now()
	stillAccepted, err = dial.Disprove(ctx, target(row, login.User), old, good)
	r.count("disprove", begun, err)
	return stillAccepted, describe(row, err)
}

// row returns a host as the inventory has it. It is asked for at every step of a
// run, and seldom another than it was: then its revision is all that is read.
func (r *Reach) row(ctx context.Context, tenant trust.TenantID, host trust.HostID) (row inventory.Host, err error) {
	name := hostName{tenant, host}
	r.mu.Lock()
	known, ok := r.rows[name]
	r.mu.Unlock()
	err = r.store.View(ctx, tenant, func(tx *store.Tx) error {
		if ok {
			revision, err := inventory.HostRevision(tx, host)
			if err != nil || revision == known.Revision {
				row = known
				return err
			}
		}
		row, err = inventory.HostBrief(tx, host)
		return err
	})
	if err != nil || ok && row.Revision == known.Revision {
		return row, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for some := range r.rows {
		if len(r.rows) < maxRows {
			break
		}
		delete(r.rows, some) // any: a range begins anywhere
	}
	r.rows[name] = row
	return row, nil
}

// Signer returns what signs with a key for a login of Keyturn's own: the private half is
// in the keyring, or in the agent. Errors: NotFound where it is in neither, Unavailable
// where the agent does not say.
func (r *Reach) Signer(ctx context.Context, tenant trust.TenantID, key trust.KeyID) (ssh.Signer, error) {
	signer, err := r.keyring.Signer(ctx, tenant, key)
	if trust.KindOf(err) != trust.NotFound || r.Agent == nil || tenant != r.AgentOf {
		return signer, err
	}
	var k inventory.Key
	err = r.store.View(ctx, tenant, func(tx *store.Tx) (err error) {
		k, err = inventory.KeyByID(tx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return r.Agent.Signer(ctx, k.Public)
}

// credentials returns what opens a host, in order.
func (r *Reach) credentials(ctx context.Context, tenant trust.TenantID, row inventory.Host, except []trust.KeyID) ([]dial.Credential, error) {
	var list []dial.Credential
	var lacking error // why the last of the keys that nothing signs with does not open it
	for _, c := range row.Credentials {
		if slices.Contains(except, c.Key) {
			continue
		}
		signer, err := r.Signer(ctx, tenant, c.Key)
		switch kind := trust.KindOf(err); {
		case err == nil:
			list = append(list, dial.KeyCredential(string(c.Key), signer))
			continue
		case kind == trust.NotFound:
			err = trust.Errorf(trust.Conflict, "key %s, which is to open it, is not held by Keyturn, and there is no ssh-agent to ask for it", c.Key).
				WithHint("keyturn serve --agent SOCKET, or keyturn key import FILE")
			if r.Agent != nil && tenant != r.AgentOf {
				err = trust.Errorf(trust.Conflict, "key %s, which is to open it, is not held by Keyturn, and the server's ssh-agent signs for its first account only", c.Key).
					WithHint("keyturn key import FILE")
			}
		case kind != trust.Unavailable:
			return nil, err
		}
		r.log.Warn("nothing signs with a key that is to open a host", "host", row.Name, "err", err)
		lacking = err
	}
	if len(list) == 0 && lacking != nil {
		return nil, describe(row, lacking)
	}
	if len(list) == 0 {
		return nil, trust.Errorf(trust.Conflict, "there is no other credential that opens host %q", row.Name).
			WithHint("keyturn host show %s", row.Name)
	}
	return list, nil
}

func target(row inventory.Host, user string) dial.Target {
	return dial.Target{Name: row.Name, Address: row.Address, User: user, Pins: row.PinnedKeys()}
}

// count tells Connected of a connection that was begun at a time.
func (r *Reach) count(purpose string, begun time.Time, err error) {
	if r.Connected != nil {
		r.Connected(purpose, time.Since(begun), err)
	}
}

// describe says which host an error is about.
func describe(row inventory.Host, err error) error {
	var e *trust.Error
	if err == nil || !errors.As(err, &e) {
		return err
	}
	named := *e
	named.Message = "host " + row.Name + ": " + e.Message
	named.Err = err
	return &named
}
