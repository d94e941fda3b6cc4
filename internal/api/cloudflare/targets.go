package cloudflare

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// A target is a host as clients write it and read it.
type target struct {
	ID         string          `json:"id"`
	Hostname   string          `json:"hostname"`
	IP         targetIP        `json:"ip"`
	Tags       json.RawMessage `json:"tags"`
	CreatedAt  time.Time       `json:"created_at"`
	ModifiedAt time.Time       `json:"modified_at"`
}

type targetIP struct {
	IPv4 *targetAddress `json:"ipv4,omitempty"`
	IPv6 *targetAddress `json:"ipv6,omitempty"`
}

type targetAddress struct {
	Address string `json:"ip_addr"`
	Network string `json:"virtual_network_id"`
}

// read returns what a body says that a target is to be. Tags that are not there stay as
// they are; null is what a target without tags has.
func (t target) read() (control.Target, error) {
	of := func(a *targetAddress) *control.TargetAddress {
		if a == nil {
			return nil
		}
		return &control.TargetAddress{IP: a.Address, Network: a.Network}
	}
	asked := control.Target{Hostname: t.Hostname, IPv4: of(t.IP.IPv4), IPv6: of(t.IP.IPv6)}
	if len(t.Tags) > 0 {
		if err := json.Unmarshal(t.Tags, &asked.Tags); err != nil {
			return asked, trust.Errorf(trust.Invalid, "tags are not an object whose values are text").WithField("tags")
		}
		if asked.Tags == nil {
			asked.Tags = map[string]string{}
		}
	}
	return asked, nil
}

func showTarget(t control.Target) (target, error) {
	of := func(a *control.TargetAddress) *targetAddress {
		if a == nil {
			return nil
		}
		return &targetAddress{Address: a.IP, Network: a.Network}
	}
	shown := target{
		ID: string(t.ID), Hostname: t.Hostname, IP: targetIP{of(t.IPv4), of(t.IPv6)}, Tags: json.RawMessage("null"),
		CreatedAt: t.CreatedAt.UTC(), ModifiedAt: t.ModifiedAt.UTC(),
	}
	var err error
	if len(t.Tags) > 0 {
		shown.Tags, err = json.Marshal(t.Tags)
	}
	return shown, err
}

func showTargets(list []control.Target) ([]target, error) {
	shown := make([]target, len(list)) // never null
	for i, t := range list {
		var err error
		if shown[i], err = showTarget(t); err != nil {
			return nil, err
		}
	}
	return shown, nil
}

// one answers with a target.
func one(t control.Target, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	shown, err := showTarget(t)
	return answer{result: shown}, err
}

// again reports whether a client asks once more, after an answer that it lost. SDKs count.
func again(r *http.Request) bool {
	n := r.Header.Get("X-Stainless-Retry-Count")
	return n != "" && n != "0"
}

func (d door) createTarget(r *http.Request, a control.Actor) (answer, error) {
	var body target
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	asked, err := body.read()
	if err != nil {
		return answer{}, err
	}
	made, err := d.plane.CreateTargets(r.Context(), a, []control.Target{asked}, again(r))
	if err != nil {
		return answer{}, err
	}
	return one(made[0], nil)
}

// createTargets makes many, although Cloudflare has it as PUT.
func (d door) createTargets(r *http.Request, a control.Actor) (answer, error) {
	var body []target
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	asked := make([]control.Target, len(body))
	for i, t := range body {
		var err error
		if asked[i], err = t.read(); err != nil {
			return answer{}, err
		}
	}
	made, err := d.plane.CreateTargets(r.Context(), a, asked, again(r))
	if err != nil {
		return answer{}, err
	}
	shown, err := showTargets(made)
	return answer{result: shown}, err
}

func (d door) showTarget(r *http.Request, a control.Actor) (answer, error) {
	return one(d.plane.ShowTarget(r.Context(), a, trust.HostID(r.PathValue("target"))))
}

func (d door) updateTarget(r *http.Request, a control.Actor) (answer, error) {
	var body target
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	asked, err := body.read()
	if err != nil {
		return answer{}, err
	}
	asked.ID = trust.HostID(r.PathValue("target"))
	return one(d.plane.UpdateTarget(r.Context(), a, asked))
}

func (d door) removeTarget(r *http.Request, a control.Actor) (answer, error) {
	return answer{}, d.plane.RemoveTargets(r.Context(), a, []trust.HostID{trust.HostID(r.PathValue("target"))})
}

func (d door) removeTargets(r *http.Request, a control.Actor) (answer, error) {
	var body struct {
		TargetIDs []trust.HostID `json:"target_ids"`
	}
	if err := api.ReadJSON(r, &body, false); err != nil {
		return answer{}, err
	}
	if body.TargetIDs == nil {
		return answer{}, trust.Errorf(trust.Invalid, "target_ids is missing").WithField("target_ids")
	}
	return answer{}, d.plane.RemoveTargets(r.Context(), a, body.TargetIDs)
}

func (d door) listTargets(r *http.Request, a control.Actor) (answer, error) {
	filter, page, err := readTargetFilter(queryOf(r))
	if err != nil {
		return answer{}, err
	}
	list, total, err := d.plane.ListTargets(r.Context(), a, filter, page)
	if err != nil {
		return answer{}, err
	}
	shown, err := showTargets(list)
	return answer{result: shown, info: infoOf(page, len(list), total)}, err
}

// maxValues bounds how often a parameter can be repeated.
const maxValues = 1000

func readTargetFilter(q *query) (f control.TargetFilter, p control.CountedPage, err error) {
	p = q.page()
	f = control.TargetFilter{
		Hostname: q.Get("hostname"), Contains: q.Get("hostname_contains"), Network: q.Get("virtual_network_id"), IPLike: q.Get("ip_like"),
		CreatedAfter: q.time("created_after"), CreatedBefore: q.time("created_before"),
		ModifiedAfter: q.time("modified_after"), ModifiedBefore: q.time("modified_before"),
	}
	for name, values := range q.Values {
		if len(values) > maxValues {
			q.refuse(name, values[0], "what one asks for this often")
		}
	}
	for _, id := range q.Values["target_ids"] {
		f.IDs = append(f.IDs, trust.HostID(strings.ToLower(id)))
	}
	for _, ip := range q.Values["ips"] {
		f.AnyIP = append(f.AnyIP, q.ip("ips", ip, strings.Contains(ip, ":")))
	}
	for i, version := range []string{"4", "6"} {
		six := i == 1
		if ip := q.Get("ip_v" + version); ip != "" {
			f.IP = append(f.IP, q.ip("ip_v"+version, ip, six))
		}
		from, to := "ipv"+version+"_start", "ipv"+version+"_end"
		switch {
		case q.Get(from) != "" && q.Get(to) != "":
			f.Ranges = append(f.Ranges, [2]netip.Addr{q.ip(from, q.Get(from), six), q.ip(to, q.Get(to), six)})
		case q.Get(from) != "":
			q.refuse(to, "", "given, and "+from+" is")
		case q.Get(to) != "":
			q.refuse(from, "", "given, and "+to+" is")
		}
	}
	for _, tag := range q.Values["tag"] {
		name, value, _ := strings.Cut(tag, ":")
		if name == "" || value == "" {
			q.refuse("tag", tag, "of the form name:value")
		}
		f.Tags = append(f.Tags, [2]string{name, value})
	}
	switch order := q.Get("order"); {
	case order == "" || order == "created_at":
		p.Sort = "created"
	case order == "hostname", strings.HasPrefix(order, "tag:") && len(order) > len("tag:"):
		p.Sort = order
	default:
		q.refuse("order", order, "hostname, created_at or tag:NAME")
	}
	switch direction := q.Get("direction"); direction {
	case "", "asc":
	case "desc":
		p.Desc = true
	default:
		q.refuse("direction", direction, "asc or desc")
	}
	return f, p, q.err
}
