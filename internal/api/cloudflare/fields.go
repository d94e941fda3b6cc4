package cloudflare

import (
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"keyturn/internal/api"
	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// Clients say more of an application, a policy or a group than anything is decided by,
// and expect all of it back. So a body is read field by field: what is known is taken
// out, and whatever is left over is kept, as the Extra of the thing.

// fields are what is left of a body.
type fields map[string]json.RawMessage

// readFields reads a body without the fields that only answers have.
func readFields(r *http.Request) (fields, error) {
	f := fields{}
	if err := api.ReadJSON(r, &f, false); err != nil {
		return nil, err
	}
	f.drop("id")
	f.drop(answered...)
	return f, nil
}

// answered are fields that only answers have, beside the id.
var answered = []string{"uid", "created_at", "updated_at"}

// none refuses fields that are left over, where those cannot be kept.
func (f fields) none() error {
	for _, name := range slices.Sorted(maps.Keys(f)) {
		return trust.Errorf(trust.Invalid, "there is no field %.80q here", name).WithField(name)
	}
	return nil
}

// within returns an error that blames a field of a part of the body.
func within(err error, part string) error {
	var e *trust.Error
	if !errors.As(err, &e) {
		return err
	}
	return e.WithField(strings.Trim(part+"."+e.Field, "."))
}

// fieldOf returns the field that an error blames, or "".
func fieldOf(err error) string {
	var e *trust.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Field
}

// firstOf returns the first error of two.
func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// drop passes over fields.
func (f fields) drop(names ...string) {
	for _, name := range names {
		delete(f, name)
	}
}

// take moves a field into v, which stays as it is where there is none, or null. One that
// is called so but for its case is refused: kept, it would look as if it counted.
func (f fields) take(name string, v any) error {
	for other := range f {
		if other != name && strings.EqualFold(other, name) {
			return trust.Errorf(trust.Invalid, "there is no field %q here: it is called %q", other, name).WithField(other)
		}
	}
	data, there := f[name]
	delete(f, name)
	if !there || string(data) == "null" {
		return nil
	}
	return api.ReadField(name, data, v)
}

// An into is a field, and where it goes.
type into struct {
	name string
	v    any
}

// takeAll moves fields to where they go.
func (f fields) takeAll(all ...into) error {
	for _, one := range all {
		if err := f.take(one.name, one.v); err != nil {
			return err
		}
	}
	return nil
}

// extra returns what is left over, never nil.
func (f fields) extra() (json.RawMessage, error) {
	if f == nil {
		f = fields{}
	}
	text, err := json.Marshal(f)
	if err != nil { // nested deeper than encoding/json goes
		return nil, trust.Errorf(trust.Invalid, "what else is said cannot be kept: %w", err)
	}
	return text, nil
}

// expression takes the rules of a policy or a group.
func (f fields) expression() (e control.Expression, err error) {
	err = f.takeAll(into{"include", &e.Include}, into{"require", &e.Require}, into{"exclude", &e.Exclude})
	return e, err
}

// shown returns an answer: what is known of a thing, and what else was said of it.
func shown(known map[string]any, extra json.RawMessage) (map[string]any, error) {
	if len(extra) == 0 {
		return known, nil
	}
	var more map[string]json.RawMessage
	if err := json.Unmarshal(extra, &more); err != nil {
		return nil, err
	}
	for name, value := range more {
		if _, is := known[name]; !is {
			known[name] = value
		}
	}
	return known, nil
}

// showRules returns rules as answers have them: never null.
func showRules(list []control.Rule) []control.Rule {
	if list == nil {
		return []control.Rule{}
	}
	return list
}

// uuidForm is the form of the ids of applications, policies and groups.
var uuidForm = regexp.MustCompile(`^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)

// idOf returns the id that a path has, or that there is no such thing: verbs would take
// names, too.
func idOf(r *http.Request, noun string) (string, error) {
	id := r.PathValue(noun)
	if !uuidForm.MatchString(id) {
		return "", trust.Errorf(trust.NotFound, "there is no %s %.80q", noun, id)
	}
	return id, nil
}

// A removed is what was deleted.
type removed struct {
	ID string `json:"id"`
}

// accessPage is a page for listings that count entries from the first.
func accessPage(p control.CountedPage) control.AccessPage {
	return control.AccessPage{Limit: p.Size, Offset: (p.Number - 1) * p.Size}
}
