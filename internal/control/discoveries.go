package control

import (
	"context"
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"time"

	"keyturn/internal/discovery"
	"keyturn/internal/identity"
	"keyturn/internal/inventory"
	"keyturn/internal/job"
	"keyturn/internal/store"
	"keyturn/internal/trust"
)

// A discovery is a schedule of this kind, whose name begins with discoveryPrefix;
// its runs have that name for their subject.
const (
	DiscoverySchedule = "discovery"
	discoveryPrefix   = "discovery:"
)

// Bounds of discoveries.
const (
	maxDiscoveries     = 1000
	maxDiscoveryHosts  = 1000
	shortestRepetition = 5 * time.Minute
)

// A Discovery is a scan of some hosts, or all, that has a name, and may be
// repeated by the clock.
type Discovery struct {
	Name string
	// Hosts are those that were named and are still there, and Gone how many are
	// not. All says that none was named: it scans every host that there is.
	Hosts []inventory.HostRef
	Gone  int
	All   bool
	// Every is the time from one start to the next, or Daily how long after
	// midnight UTC it starts. Once says that it is not repeated.
	Every, Daily time.Duration
	Once         bool
	Next         time.Time // when it starts next, or zero
	// Last is its newest run, or has no ID.
	Last job.Summary
	// Outcome is why it started nothing when it was last due, or empty.
	Outcome string
}

// A NewDiscovery asks for a discovery.
type NewDiscovery struct {
	Name  string
	Hosts []string // names or ids; none for all
	// Every or Daily repeat it; neither has it run once.
	Every time.Duration
	Daily *time.Duration
}

var discoveryName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

func (n NewDiscovery) check() error {
	switch {
	case !discoveryName.MatchString(n.Name):
		return trust.Errorf(trust.Invalid, "discovery name %q is not 1 to 64 letters, digits, dots, hyphens and underscores", clip(n.Name)).WithField("name")
	case len(n.Hosts) > maxDiscoveryHosts:
		return trust.Errorf(trust.Exhausted, "%d hosts are named; a discovery has %d at most, or all", len(n.Hosts), maxDiscoveryHosts).WithField("hosts")
	case n.Every != 0 && n.Daily != nil:
		return trust.Errorf(trust.Invalid, "a discovery is repeated either after a time, or at a time of the day").WithField("daily")
	case n.Every != 0 && (n.Every < shortestRepetition || n.Every > 366*24*time.Hour):
		return trust.Errorf(trust.Invalid, "every %s is not between %s and a year", n.Every, shortestRepetition).WithField("every")
	case n.Daily != nil && (*n.Daily < 0 || *n.Daily >= 24*time.Hour || *n.Daily%time.Minute != 0):
		return trust.Errorf(trust.Invalid, "%s is no minute of a day", *n.Daily).WithField("daily")
	}
	return nil
}

// CreateDiscovery names a scan, starts it, and has it repeated if that is asked
// for.
func (p *Plane) CreateDiscovery(ctx context.Context, actor identity.Actor, n NewDiscovery) (d Discovery, err error) {
	if err := require(actor, identity.HostsWrite); err != nil {
		return d, err
	}
	if err := n.check(); err != nil {
		return d, err
	}
	name := discoveryPrefix + n.Name
	err = p.update(ctx, actor, needs(identity.HostsWrite), "discovery.create", name, func(tx *store.Tx) error {
		all, err := p.discoveries(tx)
		if err != nil {
			return err
		}
		switch {
		case slices.ContainsFunc(all, func(s job.Schedule) bool { return s.Name == name }):
			return trust.Errorf(trust.Conflict, "there is a discovery %q already", n.Name).WithHint("keyturn discovery show %s", n.Name)
		case len(all) >= maxDiscoveries:
			return trust.Errorf(trust.Exhausted, "there are %d discoveries", len(all)).WithHint("keyturn discovery remove NAME")
		}
		var scope discovery.Scope
		for _, host := range n.Hosts {
			h, err := inventory.FindHost(tx, host)
			if err != nil {
				return err
			}
			if !slices.Contains(scope.Hosts, h.ID) {
				scope.Hosts = append(scope.Hosts, h.ID)
			}
		}
		args, err := json.Marshal(scope)
		if err != nil {
			return err
		}
		s := job.Schedule{Name: name, Kind: DiscoverySchedule, Args: args, Every: n.Every, Off: n.Every == 0 && n.Daily == nil}
		if n.Daily != nil {
			s.Daily = *n.Daily
		}
		if err := p.engine.SetSchedule(tx, actor.Audit(), s); err != nil {
			return err
		}
		plan, err := discovery.PlanDiscovery(tx, s)
		if err != nil {
			return err
		}
		if _, err := p.engine.Create(tx, actor.Audit(), plan); err != nil {
			return err
		}
		d, err = p.discovery(tx, n.Name)
		return err
	})
	return d, p.wake(err)
}

// ListDiscoveries lists discoveries, by name.
func (p *Plane) ListDiscoveries(ctx context.Context, actor identity.Actor) (list []Discovery, err error) {
	err = p.view(ctx, actor, identity.HostsRead, func(tx *store.Tx) error {
		schedules, err := p.discoveries(tx)
		list = make([]Discovery, len(schedules))
		for i, s := range schedules {
			if list[i], err = p.describeDiscovery(tx, s); err != nil {
				return err
			}
		}
		return err
	})
	return list, err
}

// ShowDiscovery returns the discovery of a name.
func (p *Plane) ShowDiscovery(ctx context.Context, actor identity.Actor, name string) (d Discovery, err error) {
	err = p.view(ctx, actor, identity.HostsRead, func(tx *store.Tx) error {
		d, err = p.discovery(tx, name)
		return err
	})
	return d, err
}

// RemoveDiscovery forgets a discovery. What it has found stays, and so does a run
// of it that is under way.
func (p *Plane) RemoveDiscovery(ctx context.Context, actor identity.Actor, name string) error {
	return p.update(ctx, actor, needs(identity.HostsWrite), "discovery.remove", discoveryPrefix+subject(name), func(tx *store.Tx) error {
		if _, err := p.discovery(tx, name); err != nil {
			return err
		}
		return p.engine.DeleteSchedule(tx, discoveryPrefix+name)
	})
}

// discoveries returns the schedules that are discoveries, by name.
func (p *Plane) discoveries(tx *store.Tx) ([]job.Schedule, error) {
	all, err := p.engine.Schedules(tx)
	return slices.DeleteFunc(all, func(s job.Schedule) bool { return s.Kind != DiscoverySchedule }), err
}

// discovery returns the discovery of a name, or a NotFound error that blames the
// field "discovery".
func (p *Plane) discovery(tx *store.Tx, name string) (Discovery, error) {
	all, err := p.discoveries(tx)
	if err != nil {
		return Discovery{}, err
	}
	i := slices.IndexFunc(all, func(s job.Schedule) bool { return s.Name == discoveryPrefix+name })
	if i < 0 {
		return Discovery{}, trust.Errorf(trust.NotFound, "there is no discovery %q", clip(name)).WithField("discovery").WithHint("keyturn discovery list")
	}
	return p.describeDiscovery(tx, all[i])
}

// knownDiscovery refuses the name of a discovery that there is not; none is fine.
func (p *Plane) knownDiscovery(tx *store.Tx, name string) error {
	if name == "" {
		return nil
	}
	_, err := p.discovery(tx, name)
	return err
}

func (p *Plane) describeDiscovery(tx *store.Tx, s job.Schedule) (Discovery, error) {
	d := Discovery{
		Name:  strings.TrimPrefix(s.Name, discoveryPrefix),
		Every: s.Every, Daily: s.Daily, Once: s.Off, Next: s.Next, Outcome: s.Outcome,
	}
	scope, err := discovery.ParseScope(s)
	if err != nil {
		return d, err
	}
	if d.All = len(scope.Hosts) == 0; !d.All {
		if d.Hosts, err = inventory.HostRefs(tx, inventory.HostFilter{IDs: scope.Hosts}, "", inventory.MaxPage); err != nil {
			return d, err
		}
		d.Gone = len(scope.Hosts) - len(d.Hosts)
		slices.SortFunc(d.Hosts, func(a, b inventory.HostRef) int { return strings.Compare(a.Name, b.Name) })
	}
	runs, err := p.engine.List(tx, job.Filter{Subject: s.Name}, "", 1)
	if len(runs) == 1 {
		d.Last = runs[0]
	}
	return d, err
}
