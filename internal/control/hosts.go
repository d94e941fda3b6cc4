package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"keyturn/internal/discovery"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/keyring"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// An AddHost asks for a host to be taken in.
type AddHost struct {
	Name    string
	Address string // "host:port"; the port may be left out
	User    string // the account that Keyturn logs in to
	Become  inventory.Become
	// Identity is the private key that opens the account. It goes into the
	// keyring; without one, Key names one that is there, or AgentKey is the public
	// half of one that the server's ssh-agent has.
	Identity KeyFile
	Key      trust.KeyID
	AgentKey trust.PublicKey
	// Password opens the account once, to put the key there, or where none is
	// named one that is made for it. It is not stored.
	Password string
	// HostKey is the key by which the host is known. Without one, AcceptNew
	// pins whatever it presents, and makes that a finding until it is
	// confirmed.
	HostKey   trust.PublicKey
	AcceptNew bool
	// Enforce lets the host be changed from the start.
	Enforce bool
	// DryRun finds out whether the host could be added, and adds nothing.
	DryRun bool

	private keyring.Private // what Identity holds, or a key that is made
}

// errDry takes back what a dry run did.
var errDry = errors.New("dry run")

// check refuses what no host can be added by.
func (a AddHost) check() error {
	switch {
	case a.HostKey.IsZero() && !a.AcceptNew:
		return trust.Errorf(trust.Invalid, "host %q: no host key is given", clip(a.Name)).WithField("host_key").
			WithHint("give --host-key, as ssh-keyscan and the console of the host show it, or --accept-new to trust what it presents first")
	case !a.HostKey.IsZero() && a.AcceptNew:
		return trust.Errorf(trust.Invalid, "host %q: a host key is given, and the first one that it presents is to be accepted, too", clip(a.Name)).WithField("accept_new")
	}
	keys := 0
	for _, given := range []bool{len(a.Identity.Text) > 0, a.Key != "", !a.AgentKey.IsZero()} {
		if given {
			keys++
		}
	}
	if keys > 1 || keys == 0 && a.Password == "" {
		return trust.Errorf(trust.Invalid, "host %q needs one credential: a private key, or the id of a key that Keyturn holds, or the public half of one that its ssh-agent has, or a password to put a key there", clip(a.Name)).WithField("identity")
	}
	return nil
}

// AddHost adds a host and starts the run that enrols it: that logs in once and
// reads what it finds. A dry run does the same and takes it back, so that it is
// refused for what the host would be.
func (p *Plane) AddHost(ctx context.Context, actor identity.Actor, a AddHost) (h inventory.Host, run trust.RunID, err error) {
	if err := require(actor, identity.HostsWrite, identity.KeysWrite); err != nil {
		return h, "", err
	}
	if err := a.check(); err != nil {
		return h, "", err
	}
	id, err := p.hostID(ctx, actor, a.Address)
	if err != nil {
		return h, "", err
	}
	switch {
	case len(a.Identity.Text) > 0:
		a.private, err = p.read(ctx, a.Identity)
	case a.Key == "" && a.AgentKey.IsZero(): // so there is a password, by which one is put there
		a.private, err = keyring.Generate(keyring.Spec{Type: "ed25519"})
		a.private.Comment = "keyturn"
	}
	if err != nil {
		return h, "", err
	}
	defer a.private.Wipe()
	if a.Password != "" && !a.DryRun {
		// Lent before the commit, because the run may begin as soon as that stands.
		if err := p.keyring.Lend(actor.Tenant, string(id), a.Password); err != nil {
			return h, "", err
		}
		defer func() {
			if err != nil {
				p.keyring.Take(actor.Tenant, string(id))
			}
		}()
	}
	err = p.update(ctx, actor, needs(identity.HostsWrite, identity.KeysWrite), "host.add", "host:"+string(id), func(tx *store.Tx) error {
		h, run, err = p.addHost(tx, actor, id, a)
		if err == nil && a.DryRun {
			err = errDry
		}
		return err
	})
	if errors.Is(err, errDry) {
		return h, "", nil
	}
	return h, run, p.wake(err)
}

// hostID returns the id for a host that is about to be added: that of the target at its
// address, if there is one that was not taken in yet, or a new one.
func (p *Plane) hostID(ctx context.Context, actor identity.Actor, address string) (id trust.HostID, err error) {
	err = p.view(ctx, actor, identity.HostsWrite, func(tx *store.Tx) error {
		id, err = inventory.UnenrolledAt(tx, address)
		return err
	})
	if err == nil && id == "" {
		id = inventory.NewHostID()
	}
	return id, err
}

// addHost is AddHost's part of a commit.
func (p *Plane) addHost(tx *store.Tx, actor identity.Actor, id trust.HostID, a AddHost) (h inventory.Host, run trust.RunID, err error) {
	key, err := p.credential(tx, a)
	if err != nil {
		return h, "", err
	}
	h = inventory.Host{
		ID: id, Name: a.Name, Address: a.Address, User: a.User, Become: a.Become, Mode: inventory.Inventory,
		Credentials: []inventory.Credential{{Key: key}},
	}
	if a.Enforce {
		h.Mode = inventory.Enforced
	}
	if !a.HostKey.IsZero() {
		h.Pins = []inventory.Pin{{Key: a.HostKey, Origin: inventory.Given}}
	}
	if h, err = inventory.AddHost(tx, h); err != nil {
		return h, "", err
	}
	tx.Note("name", h.Name)
	tx.Note("address", h.Address)
	planEnrol := discovery.PlanEnrol
	if a.Password != "" {
		planEnrol = discovery.PlanEnrolByPassword
	}
	plan, err := planEnrol(h, a.AcceptNew)
	if err != nil {
		return h, "", err
	}
	run, err = p.engine.Create(tx, actor.Audit(), plan)
	return h, run, err
}

// credential returns the key that is to open a host: one that comes with the
// request, and goes into the keyring, or one that is held there.
func (p *Plane) credential(tx *store.Tx, a AddHost) (trust.KeyID, error) {
	if !a.private.IsZero() {
		k, err := p.put(tx, a.private)
		return k.ID, err
	}
	return loginKey(tx, a.Key, a.AgentKey)
}

// loginKey returns the key by which Keyturn is to log in: one that it holds, or one that
// its ssh-agent has, of which it knows the public half.
func loginKey(tx *store.Tx, held trust.KeyID, agents trust.PublicKey) (trust.KeyID, error) {
	if !agents.IsZero() {
		if agents.IsCertificate() {
			return "", trust.Errorf(trust.Invalid, "that is a certificate, not the public half of a key").WithField("agent_key")
		}
		k, err := inventory.PutKey(tx, inventory.Key{Kind: inventory.UserKey, Public: agents, Custody: inventory.External})
		return k.ID, err
	}
	k, err := inventory.KeyByID(tx, held)
	if err != nil {
		return "", err
	}
	if !k.RevealedAt.IsZero() {
		return "", trust.Errorf(trust.Conflict, "key %s was revealed, and whoever has it would open the host as well", held).WithField("key").WithHint("keyturn key generate")
	}
	if k.Custody != inventory.Held {
		return "", trust.Errorf(trust.Conflict, "Keyturn does not hold the private half of key %s", held).WithField("key").
			WithHint("keyturn key import FILE; --agent-key FILE.pub, if the server's ssh-agent has it")
	}
	return held, nil
}

// A Credential names a key by which Keyturn is to log in to a host: one that it holds, or
// the public half of one that its ssh-agent has.
type Credential struct {
	Key      trust.KeyID
	AgentKey trust.PublicKey
	// First has it tried before the others.
	First bool
}

// AddHostCredential adds a key to what opens a host, without trying it.
func (p *Plane) AddHostCredential(ctx context.Context, actor identity.Actor, nameOrID string, c Credential) (now inventory.Host, err error) {
	if err := require(actor, identity.HostsWrite, identity.KeysWrite); err != nil {
		return now, err
	}
	if (c.Key == "") == c.AgentKey.IsZero() {
		return now, trust.Errorf(trust.Invalid, "a credential is the id of a key that Keyturn holds, or the public half of one that its ssh-agent has").WithField("key")
	}
	err = p.changeHost(ctx, actor, "host.credential-add", nameOrID, func(tx *store.Tx, h inventory.Host) error {
		key, err := loginKey(tx, c.Key, c.AgentKey)
		if err != nil {
			return err
		}
		position := -1
		if c.First {
			position = 0
		}
		if err := inventory.AddCredential(tx, h.ID, key, position); err != nil {
			return err
		}
		tx.Note("key", string(key))
		now, err = inventory.HostByID(tx, h.ID)
		return err
	})
	return now, err
}

// RemoveHostCredential takes a key out of what opens a host, unless it is the last one,
// or, without force, none of those that stay was seen to open it. Its line on the host
// stays.
func (p *Plane) RemoveHostCredential(ctx context.Context, actor identity.Actor, nameOrID, key string, force bool) (now inventory.Host, err error) {
	err = p.changeHost(ctx, actor, "host.credential-remove", nameOrID, func(tx *store.Tx, h inventory.Host) error {
		k, err := inventory.FindKey(tx, key)
		if err != nil {
			return err
		}
		if run, err := p.engine.WorksOn(tx, h.ID); err != nil {
			return err
		} else if run != "" {
			return trust.Errorf(trust.Conflict, "run %s works on host %q", run, h.Name).WithHint("keyturn run watch %s", run)
		}
		if err := inventory.RemoveCredential(tx, h.ID, k.ID); err != nil {
			return err
		}
		works := func(c inventory.Credential) bool { return c.Key != k.ID && !c.WorkedAt.IsZero() }
		if !slices.ContainsFunc(h.Credentials, works) {
			if !force {
				return trust.Errorf(trust.Conflict, "no other key was seen to open host %q", h.Name).
					WithHint("keyturn scan %s --wait tries each; --force takes this one out all the same", h.Name)
			}
			tx.Note("force", "no other key was seen to open it")
		}
		tx.Note("key", string(k.ID))
		now, err = inventory.HostByID(tx, h.ID)
		return err
	})
	return now, err
}

// ListHosts lists hosts, sorted by name.
func (p *Plane) ListHosts(ctx context.Context, actor identity.Actor, f inventory.HostFilter, page Page) (list []inventory.Host, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.HostsRead, func(tx *store.Tx) error {
		list, next, err = inventory.Hosts(tx, f, inventory.Page{After: page.After, Limit: limit})
		return err
	})
	return list, next, err
}

// ShowHost returns the host with a name or id.
func (p *Plane) ShowHost(ctx context.Context, actor identity.Actor, nameOrID string) (h inventory.Host, err error) {
	err = p.view(ctx, actor, identity.HostsRead, func(tx *store.Tx) error {
		h, err = inventory.FindHost(tx, nameOrID)
		return err
	})
	return h, err
}

// ListKnownHosts lists by which keys the accounts of a host know other hosts, as
// its newest scan read their known_hosts files.
func (p *Plane) ListKnownHosts(ctx context.Context, actor identity.Actor, nameOrID string, page Page) (list []inventory.KnownHost, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.HostsRead, func(tx *store.Tx) error {
		h, err := inventory.FindHost(tx, nameOrID)
		if err != nil {
			return err
		}
		list, next, err = inventory.KnownHosts(tx, h.ID, inventory.Page{After: page.After, Limit: limit})
		return err
	})
	return list, next, err
}

// RemoveHost forgets a host. What lies on it stays as it is. A host that an
// open run works on is not removed.
func (p *Plane) RemoveHost(ctx context.Context, actor identity.Actor, nameOrID string) error {
	return p.changeHost(ctx, actor, "host.remove", nameOrID, func(tx *store.Tx, h inventory.Host) error {
		if run, err := p.engine.WorksOn(tx, h.ID); err != nil {
			return err
		} else if run != "" {
			return trust.Errorf(trust.Conflict, "run %s works on host %q", run, h.Name).WithHint("keyturn run back %s, or wait for its end", run)
		}
		lost, err := inventory.RemoveHost(tx, h.ID, h.Revision)
		if err != nil {
			return err
		}
		return discovery.Judge(tx, lost)
	})
}

// SetHostMode lets a host be changed, or only watched.
func (p *Plane) SetHostMode(ctx context.Context, actor identity.Actor, nameOrID string, mode inventory.Mode) (now inventory.Host, err error) {
	err = p.changeHost(ctx, actor, "host."+string(mode), nameOrID, func(tx *store.Tx, h inventory.Host) error {
		h.Mode = mode
		now, err = inventory.UpdateHost(tx, h)
		return err
	})
	return now, err
}

// ConfirmHost vouches for the host keys that were accepted on first use, or
// pins a key in the place of all that were pinned before: the answer to a host
// that presents another key for a good reason.
func (p *Plane) ConfirmHost(ctx context.Context, actor identity.Actor, nameOrID string, key trust.PublicKey) (now inventory.Host, err error) {
	err = p.changeHost(ctx, actor, "host.confirm", nameOrID, func(tx *store.Tx, h inventory.Host) error {
		if key.IsZero() {
			if _, err := inventory.ConfirmPins(tx, h.ID); err != nil {
				return err
			}
		} else {
			if err := inventory.AddPin(tx, h.ID, key, inventory.Given); err != nil {
				return err
			}
			for _, old := range h.Pins {
				if old.Key == key {
					continue
				}
				if err := inventory.RemovePin(tx, h.ID, old.Key); err != nil {
					return err
				}
			}
			tx.Note("host_key", string(key.Fingerprint()))
		}
		if err := discovery.JudgeHost(tx, h.ID); err != nil {
			return err
		}
		if err := p.goOnEnrolling(tx, actor, h.ID); err != nil {
			return err
		}
		now, err = inventory.HostByID(tx, h.ID)
		return err
	})
	return now, p.wake(err)
}

// goOnEnrolling lets an enrolment go on that waited for somebody to vouch for the
// host's key.
func (p *Plane) goOnEnrolling(tx *store.Tx, actor identity.Actor, host trust.HostID) error {
	id, err := p.engine.Holder(tx, "host:"+string(host))
	if err != nil || id == "" {
		return err
	}
	r, err := p.engine.Get(tx, id)
	if err != nil || r.Procedure != discovery.PasswordProcedure || r.State != job.Waiting {
		return err
	}
	return p.engine.Resume(tx, actor.Audit(), id)
}

func (p *Plane) changeHost(ctx context.Context, actor identity.Actor, action, nameOrID string, fn func(*store.Tx, inventory.Host) error) error {
	return p.update(ctx, actor, needs(identity.HostsWrite), action, "host:"+subject(nameOrID), func(tx *store.Tx) error {
		h, err := inventory.FindHost(tx, nameOrID)
		if err != nil {
			return err
		}
		tx.Note("id", string(h.ID))
		return fn(tx, h)
	})
}

// Scan starts the run that reads hosts, or all of them, and returns it.
func (p *Plane) Scan(ctx context.Context, actor identity.Actor, namesOrIDs []string) (run trust.RunID, err error) {
	err = p.update(ctx, actor, needs(identity.HostsWrite), "host.scan", "tenant:"+string(actor.Tenant), func(tx *store.Tx) error {
		var ids []trust.HostID
		for _, name := range namesOrIDs {
			h, err := inventory.FindHost(tx, name)
			if err != nil {
				return err
			}
			ids = append(ids, h.ID)
		}
		plan, err := discovery.PlanScan(tx, ids)
		if err != nil {
			return err
		}
		run, err = p.engine.Create(tx, actor.Audit(), plan)
		return err
	})
	return run, p.wake(err)
}

// scheduleScans makes the schedule of scans what the setting says.
func (p *Plane) scheduleScans(tx *store.Tx, actor identity.Actor, value string) error {
	every, err := time.ParseDuration(value)
	if err != nil {
		return err
	}
	if every == 0 {
		if err := p.engine.DeleteSchedule(tx, ScanSchedule); trust.KindOf(err) != trust.NotFound {
			return err
		}
		return nil
	}
	return p.engine.SetSchedule(tx, actor.Audit(), job.Schedule{Name: ScanSchedule, Kind: ScanSchedule, Every: every})
}

// ListFindings lists what is wrong with keys and hosts, newest first.
func (p *Plane) ListFindings(ctx context.Context, actor identity.Actor, f inventory.FindingFilter, page Page) (list []inventory.Finding, next string, err error) {
	limit, err := page.limit()
	if err != nil {
		return nil, "", err
	}
	err = p.view(ctx, actor, identity.HostsRead, func(tx *store.Tx) error {
		list, next, err = inventory.Findings(tx, f, inventory.Page{After: page.After, Limit: limit})
		return err
	})
	return list, next, err
}
