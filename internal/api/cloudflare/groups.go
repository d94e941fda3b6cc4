package cloudflare

import (
	"net/http"

	"keyturn/internal/control"
)

func readGroup(r *http.Request) (g control.Group, err error) {
	f, err := readFields(r)
	if err != nil {
		return g, err
	}
	if err := f.take("name", &g.Name); err != nil {
		return g, err
	}
	if g.Expression, err = f.expression(); err != nil {
		return g, err
	}
	g.Extra, err = f.extra()
	return g, err
}

func showGroup(g control.Group) (map[string]any, error) {
	return shown(map[string]any{
		"id": g.ID, "uid": g.ID, "name": g.Name, "include": showRules(g.Include), "require": showRules(g.Require), "exclude": showRules(g.Exclude),
		"created_at": g.CreatedAt.UTC(), "updated_at": g.UpdatedAt.UTC(),
	}, g.Extra)
}

// group answers with a group.
func group(status int, g control.Group, err error) (answer, error) {
	if err != nil {
		return answer{}, err
	}
	result, err := showGroup(g)
	return answer{status: status, result: result}, err
}

func (d door) createGroup(r *http.Request, a control.Actor) (answer, error) {
	asked, err := readGroup(r)
	if err != nil {
		return answer{}, err
	}
	g, err := d.plane.AddGroup(r.Context(), a, asked, again(r))
	return group(http.StatusCreated, g, err)
}

func (d door) listGroups(r *http.Request, a control.Actor) (answer, error) {
	q := queryOf(r)
	page := q.page()
	if q.err != nil {
		return answer{}, q.err
	}
	filter := control.GroupFilter{Name: q.Get("name"), Search: q.Get("search")}
	list, _, total, err := d.plane.ListGroups(r.Context(), a, filter, accessPage(page))
	if err != nil {
		return answer{}, err
	}
	result := make([]map[string]any, len(list)) // never null
	for i, g := range list {
		if result[i], err = showGroup(g); err != nil {
			return answer{}, err
		}
	}
	return answer{result: result, info: infoOf(page, len(list), total)}, nil
}

func (d door) showGroup(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "group")
	if err != nil {
		return answer{}, err
	}
	g, _, err := d.plane.ShowGroup(r.Context(), a, id)
	return group(http.StatusOK, g, err)
}

func (d door) updateGroup(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "group")
	if err != nil {
		return answer{}, err
	}
	asked, err := readGroup(r)
	if err != nil {
		return answer{}, err
	}
	g, err := d.plane.SetGroup(r.Context(), a, id, control.Anew(asked))
	return group(http.StatusOK, g, err)
}

func (d door) removeGroup(r *http.Request, a control.Actor) (answer, error) {
	id, err := idOf(r, "group")
	if err != nil {
		return answer{}, err
	}
	return answer{status: http.StatusAccepted, result: removed{id}}, d.plane.RemoveGroup(r.Context(), a, id)
}
