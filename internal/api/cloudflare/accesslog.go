package cloudflare

import (
	"net/http"
	"strings"

	"keyturn/internal/control"
)

// rayID returns by what Cloudflare would call a request: 16 hex digits, those of the event
// that are random.
func rayID(event string) string {
	digits := strings.ReplaceAll(event, "-", "")
	return digits[max(0, len(digits)-16):]
}

// listAccessRequests lists who asked for access. It is of no use to count them all, and
// clients do not.
func (d door) listAccessRequests(r *http.Request, a control.Actor) (answer, error) {
	q := queryOf(r)
	filter, page := q.accessFilter(), q.logPage()
	if q.err != nil {
		return answer{}, q.err
	}
	log, err := d.plane.SearchAccessLog(r.Context(), a, filter, page)
	if err != nil {
		return answer{}, err
	}
	result := make([]map[string]any, len(log.Entries)) // never null
	for i, e := range log.Entries {
		result[i] = only(q.Get("fields"), map[string]any{
			"action": e.Action, "allowed": e.Allowed, "app_domain": e.Domain, "app_uid": e.Application, "connection": e.Provider,
			"created_at": e.At, "ip_address": e.Source, "ray_id": rayID(e.ID), "user_email": e.Email,
		})
	}
	out := answer{result: result}
	if log.More {
		out.messages = []message{{Code: 10000, Message: "There are more events than are searched: narrow it with since and until"}}
	}
	return out, nil
}

// only returns the fields of an entry that are named, or all where none is.
func only(names string, all map[string]any) map[string]any {
	if names == "" {
		return all
	}
	some := map[string]any{}
	for name := range strings.SplitSeq(names, ",") {
		if value, there := all[strings.TrimSpace(name)]; there {
			some[strings.TrimSpace(name)] = value
		}
	}
	return some
}

// logPage reads which page of the log is asked for, of which limit is the size, too.
func (q *query) logPage() control.CountedPage {
	page := q.page()
	page.Size = min(page.Size, q.number("limit", perPage, maxPageNumber))
	return page
}

// accessFilter reads which entries of the log are meant.
func (q *query) accessFilter() control.AccessFilter {
	f := control.AccessFilter{Since: q.time("since"), Until: q.time("until")}
	switch direction := q.Get("direction"); direction {
	case "", "desc":
	case "asc":
		f.OldestFirst = true
	default:
		q.refuse("direction", direction, "asc or desc")
	}
	for _, name := range []string{"app_type", "country_code", "idp", "non_identity"} {
		if value := q.Get(name); value != "" {
			q.refuse(name, value, "something that the log knows")
		}
	}
	is := func(text string) func(string) bool { return func(value string) bool { return value == text } }
	allowed := q.condition("allowed", is)
	app, ray := q.condition("app_uid", is), q.condition("ray_id", is)
	user := q.condition("user_id", func(id string) func(string) bool { return is(strings.ReplaceAll(id, "-", "")) })
	email := q.condition("email", func(text string) func(string) bool {
		text = strings.ToLower(text)
		if q.Get("email_exact") == "true" {
			return is(text)
		}
		return func(value string) bool { return strings.Contains(value, text) }
	})
	f.Wanted = func(e control.AccessEntry) bool {
		verdict := map[bool]string{true: "true", false: "false"}[e.Allowed]
		return allowed(verdict) && app(e.Application) && ray(rayID(e.ID)) && user(e.User) && email(strings.ToLower(e.Email))
	}
	return f
}

// condition reads a condition on a value, and whether it is to hold or not; it holds of all
// where none is given.
func (q *query) condition(name string, on func(text string) func(string) bool) func(string) bool {
	text, op := q.Get(name), q.Get(name+"Op")
	if op != "" && op != "eq" && op != "neq" {
		q.refuse(name+"Op", op, "eq or neq")
	}
	if text == "" {
		return func(string) bool { return true }
	}
	holds := on(text)
	return func(value string) bool { return holds(value) == (op != "neq") }
}
