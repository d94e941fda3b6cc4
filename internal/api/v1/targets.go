package v1

import (
	"context"
	"maps"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type target struct {
	ID         string            `json:"id" doc:"The host's"`
	Host       string            `json:"host" doc:"The name of the host that it is"`
	Hostname   string            `json:"hostname" doc:"What it is called as a target, which need not be unique"`
	Addresses  []targetAddress   `json:"addresses"`
	Tags       map[string]string `json:"tags"`
	CreatedAt  time.Time         `json:"created_at"`
	ModifiedAt time.Time         `json:"modified_at"`
}

type targetAddress struct {
	IP      string `json:"ip" minLength:"2" maxLength:"45"`
	Network string `json:"network,omitempty" maxLength:"36" doc:"The id of a virtual network; when it is written, absent for the one that it has, or the account's own"`
}

type targets struct {
	Targets []target `json:"targets"`
	Next    string   `json:"next,omitempty" doc:"Where the page after this one begins; absent on the last"`
}

type listTargets struct {
	Paging
	Hostname       string    `query:"hostname" maxLength:"255" doc:"Without regard to case"`
	Contains       string    `query:"contains" maxLength:"255" doc:"What is in the hostname, without regard to case"`
	Network        string    `query:"network" maxLength:"36" doc:"The id of a virtual network"`
	IP             []string  `query:"ip" maxItems:"100" doc:"One of these addresses"`
	IPLike         string    `query:"ip_like" maxLength:"100" doc:"A pattern for an address as it was written, with * for anything"`
	Within         string    `query:"within" maxLength:"50" doc:"A network such as 10.0.0.0/8 in which an address is"`
	Tag            []string  `query:"tag" maxItems:"64" doc:"Name and value, as name=value; several: all of them. None can have a comma in it"`
	CreatedAfter   time.Time `query:"created_after" doc:"This and the three after it include the time that they name"`
	CreatedBefore  time.Time `query:"created_before"`
	ModifiedAfter  time.Time `query:"modified_after"`
	ModifiedBefore time.Time `query:"modified_before"`
}

func (in listTargets) filter() (f control.TargetFilter, err error) {
	f = control.TargetFilter{
		Hostname: in.Hostname, Contains: in.Contains, Network: in.Network, IPLike: in.IPLike,
		CreatedAfter: in.CreatedAfter, CreatedBefore: in.CreatedBefore, ModifiedAfter: in.ModifiedAfter, ModifiedBefore: in.ModifiedBefore,
	}
	for _, text := range in.IP {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.Zone() != "" {
			return f, trust.Errorf(trust.Invalid, "%.60q is no IP address", text).WithField("ip")
		}
		f.AnyIP = append(f.AnyIP, ip)
	}
	if in.Within != "" {
		n, err := netip.ParsePrefix(in.Within)
		if err != nil {
			return f, trust.Errorf(trust.Invalid, "%.60q is no network such as 10.0.0.0/8", in.Within).WithField("within")
		}
		f.Ranges = append(f.Ranges, [2]netip.Addr{n.Masked().Addr(), lastOf(n)})
	}
	for _, tag := range in.Tag {
		name, value, ok := strings.Cut(tag, "=")
		if !ok {
			return f, trust.Errorf(trust.Invalid, "tag %.60q is not of the form name=value", tag).WithField("tag")
		}
		f.Tags = append(f.Tags, [2]string{name, value})
	}
	return f, nil
}

// lastOf returns the last address of a network.
func lastOf(n netip.Prefix) netip.Addr {
	last := n.Addr().AsSlice()
	for bit := n.Bits(); bit < len(last)*8; bit++ {
		last[bit/8] |= 0x80 >> (bit % 8)
	}
	addr, _ := netip.AddrFromSlice(last)
	return addr
}

type addTarget struct {
	Body struct {
		Hostname  string            `json:"hostname" minLength:"1" maxLength:"255"`
		Addresses []targetAddress   `json:"addresses" minItems:"1" maxItems:"2" doc:"One of IPv4, one of IPv6, or both"`
		Tags      map[string]string `json:"tags,omitempty" maxProperties:"64"`
	}
}

// ByTarget names a target.
type ByTarget struct {
	Target string `path:"target" maxLength:"253" doc:"Name or id of the host that it is"`
}

type changeTarget struct {
	ByTarget
	Body struct {
		Hostname  string            `json:"hostname,omitempty" maxLength:"255"`
		Addresses []targetAddress   `json:"addresses,omitempty" maxItems:"2" doc:"In the place of those that it has"`
		Tags      map[string]string `json:"tags,omitempty" maxProperties:"64" doc:"Tags to add, or to give another value"`
		Untag     []string          `json:"untag,omitempty" maxItems:"64" doc:"Names of tags to take away"`
	}
}

func readAddresses(list []targetAddress) (out []control.TargetAddress) {
	for _, a := range list {
		out = append(out, control.TargetAddress(a))
	}
	return out
}

func showTarget(t control.HostTarget) target {
	out := target{
		ID: string(t.ID), Host: t.Host, Hostname: t.Hostname, Addresses: []targetAddress{}, Tags: map[string]string{},
		CreatedAt: t.CreatedAt.UTC(), ModifiedAt: t.ModifiedAt.UTC(),
	}
	for _, a := range []*control.TargetAddress{t.IPv4, t.IPv6} {
		if a != nil {
			out.Addresses = append(out.Addresses, targetAddress(*a))
		}
	}
	maps.Copy(out.Tags, t.Tags)
	return out
}

func (d door) targetRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/targets", "list-targets", "List targets: hosts as access rules know them",
		func(ctx context.Context, who control.Actor, in *listTargets) (targets, error) {
			f, err := in.filter()
			if err != nil {
				return targets{}, err
			}
			list, next, err := d.plane.ListHostTargets(ctx, who, f, in.page())
			out := targets{Targets: make([]target, len(list)), Next: next}
			for i, t := range list {
				out.Targets[i] = showTarget(t)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/targets", "add-target", "Make a target of the host at an address, or of one that is added with it",
		func(ctx context.Context, who control.Actor, in *addTarget) (target, error) {
			t, err := d.plane.AddHostTarget(ctx, who, control.TargetChange{Hostname: in.Body.Hostname, Addresses: readAddresses(in.Body.Addresses), Tags: in.Body.Tags})
			return showTarget(t), err
		})
	operation(d, a, http.MethodGet, "/targets/{target}", "show-target", "Show the target that a host is",
		func(ctx context.Context, who control.Actor, in *ByTarget) (target, error) {
			t, err := d.plane.ShowHostTarget(ctx, who, in.Target)
			return showTarget(t), err
		})
	operation(d, a, http.MethodPatch, "/targets/{target}", "change-target", "Change the target that a host is. What is not given stays",
		func(ctx context.Context, who control.Actor, in *changeTarget) (target, error) {
			t, err := d.plane.ChangeHostTarget(ctx, who, in.Target, control.TargetChange{
				Hostname: in.Body.Hostname, Addresses: readAddresses(in.Body.Addresses), Tags: in.Body.Tags, Untag: in.Body.Untag,
			})
			return showTarget(t), err
		})
	operation(d, a, http.MethodDelete, "/targets/{target}", "remove-target", "Have a host be no target. One that was never taken in is forgotten",
		func(ctx context.Context, who control.Actor, in *ByTarget) (removed, error) {
			return removed{in.Target}, d.plane.RemoveHostTarget(ctx, who, in.Target)
		})
}
