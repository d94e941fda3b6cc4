package appviewx

import (
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"keyturn/internal/api"
)

// A place is where a parameter stands in a request.
type place string

const (
	inQuery  place = "the query"
	inBody   place = "the body"
	inInput  place = "input, in the body"
	inFilter place = "filter, in the body"
)

// parameters says of a call where it has each of its parameters. One that stands
// elsewhere, or belongs to another call, would not count, and the call would do more
// than was asked for: such a request is refused. Names count in any case, as in the
// objects that encoding/json reads.
type parameters map[string]place

var (
	ofRotate   = parameters{"discoveryName": inQuery, "type": inBody, "uuids": inBody}
	ofRollback = parameters{"discoveryName": inQuery, "type": inBody, "uuids": inBody, "keyInventory": inBody}
	ofSearch   = parameters{
		"discoveryName": inQuery, "keysFrom": inQuery, "input": inBody, "filter": inBody,
		"freeSearch": inInput, "keywordSearch": inInput,
		"sortColumn": inFilter, "sortOrder": inFilter, "start": inFilter, "max": inFilter,
	}
	ofLogs = parameters{"ids": inQuery}
)

// spelled returns how the parameter of a name is written that some call has, or "".
func spelled(name string) string {
	for _, call := range []parameters{ofRotate, ofRollback, ofSearch, ofLogs} {
		for known := range call {
			if strings.EqualFold(known, name) {
				return known
			}
		}
	}
	return ""
}

// read reads a request's body into v, and checks where its parameters stand.
func (p parameters) read(r *http.Request, v any) *fault {
	var body json.RawMessage
	if err := api.ReadJSON(r, &body, false); err != nil {
		return bodyFault(err)
	}
	if f := p.check(r, body); f != nil {
		return f
	}
	if err := api.ReadField("", body, v); err != nil {
		return bodyFault(err)
	}
	return nil
}

// check blames a parameter that stands where the call does not have it, or that the
// query has twice. Null and the empty text are no parameters.
func (p parameters) check(r *http.Request, body json.RawMessage) *fault {
	astray := map[string]string{} // and why
	look := func(here place, name string) {
		switch at, ok := p[name]; {
		case name == "" || at == here:
		case ok:
			astray[name] = name + " belongs in " + string(at)
		default:
			astray[name] = name + " is no parameter of this call"
		}
	}
	queried := map[string]string{}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil { // such as by a semicolon, at which what follows would be dropped
		f := invalid("query")
		f.tags = map[string]string{"reason": "query cannot be read"}
		return f
	}
	for name, values := range values {
		name = spelled(name)
		for _, value := range values {
			if value == "" || name == "" {
				continue
			}
			if before, twice := queried[name]; twice && before != value {
				astray[name] = name + " stands in the query twice"
			}
			queried[name] = value
			look(inQuery, name)
		}
	}
	inside := map[string]place{"input": inInput, "filter": inFilter}
	var walk func(here place, object json.RawMessage)
	walk = func(here place, object json.RawMessage) {
		var members map[string]json.RawMessage
		if json.Unmarshal(object, &members) != nil {
			return // no object: whoever reads it says so
		}
		for name, value := range members {
			if name = spelled(name); string(value) == "null" {
				continue
			}
			look(here, name)
			if within, ok := inside[name]; ok && here == inBody {
				walk(within, value)
			}
		}
	}
	walk(inBody, body)
	if len(astray) == 0 {
		return nil
	}
	var names []string
	for name := range astray {
		names = append(names, name)
	}
	name := slices.Min(names)
	f := invalid(name)
	f.tags = map[string]string{"reason": astray[name]}
	return f
}

// query returns a parameter of the query, whose name counts in any case, or "".
func query(r *http.Request, name string) string {
	for known, values := range r.URL.Query() {
		if i := slices.IndexFunc(values, func(v string) bool { return v != "" }); i >= 0 && strings.EqualFold(known, name) {
			return values[i]
		}
	}
	return ""
}
