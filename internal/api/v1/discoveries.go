package v1

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

type namedDiscovery struct {
	Name    string     `json:"name"`
	All     bool       `json:"all" doc:"It scans every host that there is when it starts"`
	Hosts   []string   `json:"hosts" doc:"Or these, by name"`
	Gone    int        `json:"gone,omitempty" doc:"How many more it had that were removed since"`
	Every   string     `json:"every,omitempty" doc:"How long after one start the next is"`
	Daily   string     `json:"daily,omitempty" doc:"Or at which time of the day in UTC, HH:MM; without either it ran once"`
	NextAt  *time.Time `json:"next_at,omitempty"`
	Run     string     `json:"run,omitempty" doc:"Its newest run"`
	State   string     `json:"state,omitempty" doc:"How that stands"`
	RunAt   *time.Time `json:"run_at,omitempty"`
	Outcome string     `json:"outcome,omitempty" doc:"Why it started nothing when it was last due"`
}

type discoveryPage struct {
	Discoveries []namedDiscovery `json:"discoveries"`
}

type newDiscovery struct {
	Body struct {
		Name  string   `json:"name" minLength:"1" maxLength:"64"`
		Hosts []string `json:"hosts,omitempty" maxItems:"1000" doc:"Names or ids; all hosts if absent"`
		Every string   `json:"every,omitempty" maxLength:"32" doc:"Repeat it so long after each start, 5m at least"`
		Daily string   `json:"daily,omitempty" maxLength:"5" doc:"Or at this time of each day in UTC, HH:MM"`
	}
}

// ByDiscovery names a discovery in a path.
type ByDiscovery struct {
	Name string `path:"name" maxLength:"100"`
}

func (d door) discoveryRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/discoveries", "list-discoveries", "List named scans",
		func(ctx context.Context, who control.Actor, _ *none) (discoveryPage, error) {
			list, err := d.plane.ListDiscoveries(ctx, who)
			out := discoveryPage{Discoveries: make([]namedDiscovery, len(list))}
			for i, x := range list {
				out.Discoveries[i] = showDiscovery(x)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/discoveries", "create-discovery", "Start a scan that has a name, and repeat it by the clock",
		func(ctx context.Context, who control.Actor, in *newDiscovery) (namedDiscovery, error) {
			n := control.NewDiscovery{Name: in.Body.Name, Hosts: in.Body.Hosts}
			var err error
			if in.Body.Every != "" {
				if n.Every, err = duration("every", in.Body.Every); err != nil {
					return namedDiscovery{}, err
				}
			}
			if in.Body.Daily != "" {
				t, err := time.Parse("15:04", in.Body.Daily)
				if err != nil {
					return namedDiscovery{}, trust.Errorf(trust.Invalid, "%q is no time of a day such as 03:00", in.Body.Daily).WithField("daily")
				}
				daily := time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute
				n.Daily = &daily
			}
			x, err := d.plane.CreateDiscovery(ctx, who, n)
			return showDiscovery(x), err
		})
	operation(d, a, http.MethodGet, "/discoveries/{name}", "show-discovery", "Show a named scan",
		func(ctx context.Context, who control.Actor, in *ByDiscovery) (namedDiscovery, error) {
			x, err := d.plane.ShowDiscovery(ctx, who, in.Name)
			return showDiscovery(x), err
		})
	operation(d, a, http.MethodDelete, "/discoveries/{name}", "remove-discovery", "Forget a named scan. What it found stays",
		func(ctx context.Context, who control.Actor, in *ByDiscovery) (removed, error) {
			return removed{in.Name}, d.plane.RemoveDiscovery(ctx, who, in.Name)
		})
}

func showDiscovery(d control.Discovery) namedDiscovery {
	out := namedDiscovery{
		Name: d.Name, All: d.All, Hosts: make([]string, len(d.Hosts)), Gone: d.Gone, NextAt: at(d.Next),
		Run: string(d.Last.ID), State: string(d.Last.State), RunAt: at(d.Last.Created), Outcome: d.Outcome,
	}
	for i, h := range d.Hosts {
		out.Hosts[i] = h.Name
	}
	switch {
	case d.Once:
	case d.Every > 0:
		out.Every = d.Every.String()
	default:
		out.Daily = fmt.Sprintf("%02d:%02d", d.Daily/time.Hour, d.Daily%time.Hour/time.Minute)
	}
	return out
}
