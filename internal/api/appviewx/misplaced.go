package appviewx

import (
	"encoding/json"
	"net/http"
	"slices"
)

// named is embedded in each object of a body, where it holds the parameters that do not
// belong there: a field of the object itself goes before the one of that name in here.
// Left where it is, such a parameter would not count, and the call would do more
// than was asked for.
type named struct {
	DiscoveryName json.RawMessage `json:"discoveryName"`
	KeysFrom      json.RawMessage `json:"keysFrom"`
	FreeSearch    json.RawMessage `json:"freeSearch"`
	KeywordSearch json.RawMessage `json:"keywordSearch"`
	SortColumn    json.RawMessage `json:"sortColumn"`
	SortOrder     json.RawMessage `json:"sortOrder"`
	Start         json.RawMessage `json:"start"`
	Max           json.RawMessage `json:"max"`
}

// placeOf says where each parameter belongs that would not be missed.
var placeOf = map[string]string{
	"discoveryName": "the query", "keysFrom": "the query", "keyInventory": "the body",
	"freeSearch": "input, in the body", "keywordSearch": "input, in the body",
	"sortColumn": "filter, in the body", "sortOrder": "filter, in the body", "start": "filter, in the body", "max": "filter, in the body",
}

// misplaced blames a parameter that stands in an object of a body, or in the query,
// and belongs elsewhere.
func misplaced(r *http.Request, objects ...named) *fault {
	var astray []string
	for _, o := range objects {
		for name, value := range map[string]json.RawMessage{
			"discoveryName": o.DiscoveryName, "keysFrom": o.KeysFrom, "freeSearch": o.FreeSearch, "keywordSearch": o.KeywordSearch,
			"sortColumn": o.SortColumn, "sortOrder": o.SortOrder, "start": o.Start, "max": o.Max,
		} {
			if len(value) > 0 && string(value) != "null" {
				astray = append(astray, name)
			}
		}
	}
	for name := range r.URL.Query() {
		if at, ok := placeOf[name]; ok && at != "the query" {
			astray = append(astray, name)
		}
	}
	if len(astray) == 0 {
		return nil
	}
	name := slices.Min(astray)
	f := invalid(name)
	f.tags = map[string]string{"reason": name + " belongs in " + placeOf[name]}
	return f
}
