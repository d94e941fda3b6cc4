package v1

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"keyturn/internal/control"
)

type group struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Include   []string        `json:"include"`
	Require   []string        `json:"require"`
	Exclude   []string        `json:"exclude"`
	Extra     json.RawMessage `json:"extra,omitempty" doc:"What else was said of it, by clients of other APIs"`
	CreatedAt *time.Time      `json:"created_at"`
	UpdatedAt *time.Time      `json:"updated_at"`
}

// GroupBody is a group as it is to be.
type GroupBody struct {
	Name    string          `json:"name" minLength:"1" maxLength:"255"`
	Include []string        `json:"include" minItems:"1" maxItems:"1000" doc:"Rules of which any makes one a member"`
	Require []string        `json:"require,omitempty" maxItems:"1000" doc:"Rules that all have to hold"`
	Exclude []string        `json:"exclude,omitempty" maxItems:"1000" doc:"Rules of which none may hold"`
	Extra   json.RawMessage `json:"extra,omitempty" doc:"An object of what else is to be kept; what is kept if absent"`
}

type newGroup struct{ Body GroupBody }

type setGroup struct {
	Group string `path:"group" maxLength:"255"`
	Body  GroupBody
}

// SectionsChange changes the rules of a group or a policy. Those of a section that is
// given take the place of all that it has.
type SectionsChange struct {
	Include []string `json:"include,omitempty" maxItems:"1000" doc:"Stays if absent, as all of these do"`
	Require []string `json:"require,omitempty" maxItems:"1000"`
	Exclude []string `json:"exclude,omitempty" maxItems:"1000"`
}

type changeGroup struct {
	Group string `path:"group" maxLength:"255" doc:"Id or name"`
	Body  struct {
		Name *string `json:"name,omitempty" minLength:"1" maxLength:"255" doc:"What it is called from now on"`
		SectionsChange
	}
}

type byGroup struct {
	Group string `path:"group" maxLength:"255" doc:"Id or name"`
}

type groupPage struct {
	Groups []group           `json:"groups"`
	Names  map[string]string `json:"names" doc:"What users, groups and lists of networks are called that rules name by their ids"`
	Total  int               `json:"total"`
	Next   string            `json:"next,omitempty" doc:"What after is for the next page"`
}

type namedGroup struct {
	Group group             `json:"group"`
	Names map[string]string `json:"names" doc:"What users, groups and lists of networks are called that rules name by their ids"`
}

type ipList struct {
	ID        string          `json:"id"`
	Name      string          `json:"name"`
	Addresses []string        `json:"addresses"`
	Extra     json.RawMessage `json:"extra,omitempty" doc:"What else was said of it, by clients of other APIs"`
	CreatedAt *time.Time      `json:"created_at"`
	UpdatedAt *time.Time      `json:"updated_at"`
}

// IPListBody is a list of networks as it is to be.
type IPListBody struct {
	Name      string          `json:"name" minLength:"1" maxLength:"255"`
	Addresses []string        `json:"addresses" maxItems:"5000" doc:"Addresses, and networks such as 192.0.2.0/24"`
	Extra     json.RawMessage `json:"extra,omitempty" doc:"An object of what else is to be kept; what is kept if absent"`
}

type newIPList struct{ Body IPListBody }

type setIPList struct {
	List string `path:"list" maxLength:"255"`
	Body IPListBody
}

type changeIPList struct {
	List string `path:"list" maxLength:"255" doc:"Id or name"`
	Body struct {
		Name      *string  `json:"name,omitempty" minLength:"1" maxLength:"255" doc:"What it is called from now on"`
		Addresses []string `json:"addresses,omitempty" maxItems:"5000" doc:"All that it is to have; those that it has if absent"`
	}
}

type byIPList struct {
	List string `path:"list" maxLength:"255" doc:"Id or name"`
}

type ipListPage struct {
	IPLists []ipList `json:"ip_lists"`
	Total   int      `json:"total"`
	Next    string   `json:"next,omitempty" doc:"What after is for the next page"`
}

func (d door) groupRoutes(a huma.API) {
	operation(d, a, http.MethodGet, "/groups", "list-groups", "List groups, which rules can name",
		func(ctx context.Context, who control.Actor, in *Paging) (groupPage, error) {
			list, names, total, err := d.plane.ListGroups(ctx, who, control.GroupFilter{}, in.accessPage())
			out := groupPage{Groups: make([]group, len(list)), Names: namesOf(names), Total: total}
			for i, g := range list {
				out.Groups[i] = showGroup(g)
				out.Next = nextID(g.ID, len(list), in.Limit)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/groups", "add-group", "Add a group",
		func(ctx context.Context, who control.Actor, in *newGroup) (group, error) {
			g, err := in.Body.read()
			if err != nil {
				return group{}, err
			}
			added, err := d.plane.AddGroup(ctx, who, g, false)
			return showGroup(added), err
		})
	operation(d, a, http.MethodGet, "/groups/{group}", "show-group", "Show a group",
		func(ctx context.Context, who control.Actor, in *byGroup) (namedGroup, error) {
			g, names, err := d.plane.ShowGroup(ctx, who, in.Group)
			return namedGroup{showGroup(g), namesOf(names)}, err
		})
	operation(d, a, http.MethodPut, "/groups/{group}", "set-group", "Write a group anew",
		func(ctx context.Context, who control.Actor, in *setGroup) (group, error) {
			g, err := in.Body.read()
			if err != nil {
				return group{}, err
			}
			set, err := d.plane.SetGroup(ctx, who, in.Group, control.Anew(g))
			return showGroup(set), err
		})
	operation(d, a, http.MethodPatch, "/groups/{group}", "change-group", "Change a group: what is not given stays",
		func(ctx context.Context, who control.Actor, in *changeGroup) (group, error) {
			set, err := d.plane.SetGroup(ctx, who, in.Group, func(g control.Group) (control.Group, error) {
				replace(&g.Name, in.Body.Name)
				return g, in.Body.change(&g.Expression)
			})
			return showGroup(set), err
		})
	operation(d, a, http.MethodDelete, "/groups/{group}", "remove-group", "Remove a group that no rule names",
		func(ctx context.Context, who control.Actor, in *byGroup) (removed, error) {
			return removed{in.Group}, d.plane.RemoveGroup(ctx, who, in.Group)
		})
	operation(d, a, http.MethodGet, "/ip-lists", "list-ip-lists", "List the lists of networks that rules can name",
		func(ctx context.Context, who control.Actor, in *Paging) (ipListPage, error) {
			list, total, err := d.plane.ListIPLists(ctx, who, in.accessPage())
			out := ipListPage{IPLists: make([]ipList, len(list)), Total: total}
			for i, l := range list {
				out.IPLists[i] = showIPList(l)
				out.Next = nextID(l.ID, len(list), in.Limit)
			}
			return out, err
		})
	operation(d, a, http.MethodPost, "/ip-lists", "add-ip-list", "Add a list of networks",
		func(ctx context.Context, who control.Actor, in *newIPList) (ipList, error) {
			added, err := d.plane.AddIPList(ctx, who, in.Body.read())
			return showIPList(added), err
		})
	operation(d, a, http.MethodGet, "/ip-lists/{list}", "show-ip-list", "Show a list of networks",
		func(ctx context.Context, who control.Actor, in *byIPList) (ipList, error) {
			l, err := d.plane.ShowIPList(ctx, who, in.List)
			return showIPList(l), err
		})
	operation(d, a, http.MethodPut, "/ip-lists/{list}", "set-ip-list", "Write a list of networks anew",
		func(ctx context.Context, who control.Actor, in *setIPList) (ipList, error) {
			set, err := d.plane.SetIPList(ctx, who, in.List, control.Anew(in.Body.read()))
			return showIPList(set), err
		})
	operation(d, a, http.MethodPatch, "/ip-lists/{list}", "change-ip-list", "Change a list of networks: what is not given stays",
		func(ctx context.Context, who control.Actor, in *changeIPList) (ipList, error) {
			set, err := d.plane.SetIPList(ctx, who, in.List, func(l control.IPList) (control.IPList, error) {
				replace(&l.Name, in.Body.Name)
				replaceList(&l.Addresses, in.Body.Addresses)
				return l, nil
			})
			return showIPList(set), err
		})
	operation(d, a, http.MethodDelete, "/ip-lists/{list}", "remove-ip-list", "Remove a list of networks that no rule names",
		func(ctx context.Context, who control.Actor, in *byIPList) (removed, error) {
			return removed{in.List}, d.plane.RemoveIPList(ctx, who, in.List)
		})
}

// replace puts what is given, if it is, in the place of what there is.
func replace[T any](is, given *T) {
	if given != nil {
		*is = *given
	}
}

// replaceList is replace of a list, of which an empty one is given, too.
func replaceList(is *[]string, given []string) {
	if given != nil {
		*is = given
	}
}

func (c SectionsChange) change(e *control.Expression) error {
	for _, section := range []struct {
		name  string
		rules *[]control.Rule
		given []string
	}{{"include", &e.Include, c.Include}, {"require", &e.Require, c.Require}, {"exclude", &e.Exclude, c.Exclude}} {
		if section.given == nil {
			continue
		}
		rules, err := readRules(section.name, section.given)
		if err != nil {
			return err
		}
		*section.rules = rules
	}
	return nil
}

func (b GroupBody) read() (control.Group, error) {
	e, err := readExpression(b.Include, b.Require, b.Exclude)
	return control.Group{Name: b.Name, Expression: e, Extra: b.Extra}, err
}

func (b IPListBody) read() control.IPList {
	return control.IPList{Name: b.Name, Addresses: b.Addresses, Extra: b.Extra}
}

func showGroup(g control.Group) group {
	return group{g.ID, g.Name, ruleTexts(g.Include), ruleTexts(g.Require), ruleTexts(g.Exclude), g.Extra, at(g.CreatedAt), at(g.UpdatedAt)}
}

func showIPList(l control.IPList) ipList {
	return ipList{l.ID, l.Name, texts(l.Addresses), l.Extra, at(l.CreatedAt), at(l.UpdatedAt)}
}
