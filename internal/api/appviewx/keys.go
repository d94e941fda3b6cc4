package appviewx

import (
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"

	"keyturn/internal/control"
	"keyturn/internal/trust"
)

// maxUUIDs is how many keys one request names at most.
const maxUUIDs = 1000

// keysRequest is the body of rotate and of rollback.
type keysRequest struct {
	Type         *string         `json:"type"`
	UUIDs        []string        `json:"uuids"`
	KeyInventory json.RawMessage `json:"keyInventory"`
}

// readKeys reads the body of a request about keys, and checks it in the order
// in which AppViewX lists the fields.
func readKeys(r *http.Request, call parameters) (keysRequest, []trust.KeyID, *fault) {
	var q keysRequest
	if f := call.read(r, &q); f != nil {
		return q, nil, f
	}
	if q.Type == nil || *q.Type != "User Keys" {
		return q, nil, invalid("type") // "Host Keys" among them: see docs/dialects
	}
	if len(q.UUIDs) == 0 || len(q.UUIDs) > maxUUIDs {
		return q, nil, invalid("uuids")
	}
	var ids []trust.KeyID
	bad := map[string]string{}
	for _, u := range q.UUIDs {
		id, err := control.ParseKeyID(u)
		if err != nil {
			if len(u) > 64 {
				u = u[:64]
			}
			bad[u] = "not a UUID"
			continue
		}
		ids = append(ids, id)
	}
	if len(bad) > 0 {
		f := invalid("uuids")
		f.tags = bad
		return q, nil, f
	}
	return q, ids, nil
}

// bodyFault says what is wrong with a body.
func bodyFault(err error) *fault {
	var e *trust.Error
	if errors.As(err, &e) && e.Field != "" {
		return invalid(e.Field)
	}
	f := invalid("body")
	f.tags = map[string]string{"reason": err.Error()}
	return f
}

// keysFault shows an error of a verb that was given keys: which of them are at
// fault is in the tags.
func keysFault(err error) *fault {
	var keys *control.KeysError
	if errors.As(err, &keys) {
		f := invalid("uuids")
		f.tags = map[string]string{}
		for id, why := range keys.Why {
			f.tags[string(id)] = why
		}
		return f
	}
	return faultOf(err)
}

func (d door) rotate(w http.ResponseWriter, r *http.Request, a control.Actor) (any, *fault) {
	_, ids, f := readKeys(r, ofRotate)
	if f != nil {
		return nil, f
	}
	run, err := d.plane.Rotate(r.Context(), a, control.Rotate{Keys: ids, Discovery: query(r, "discoveryName")})
	if err != nil {
		return nil, keysFault(err)
	}
	follow(w, []trust.RunID{run})
	return "Rotate operation has been triggered", nil
}

func (d door) rollback(w http.ResponseWriter, r *http.Request, a control.Actor) (any, *fault) {
	q, ids, f := readKeys(r, ofRollback)
	if f != nil {
		return nil, f
	}
	current, ok := flag(q.KeyInventory)
	if !ok {
		return nil, invalid("keyInventory")
	}
	runs, err := d.plane.Rollback(r.Context(), a, control.Rollback{Keys: ids, Current: current, Discovery: query(r, "discoveryName")})
	if err != nil {
		return nil, keysFault(err)
	}
	follow(w, runs)
	return "Rollback Operation has been triggered for backup keys", nil
}

// flag reads a boolean that clients also send as a string; absent is false.
func flag(raw json.RawMessage) (value, ok bool) {
	switch strings.ToLower(string(raw)) {
	case "", "null", "false", `"false"`:
		return false, true
	case "true", `"true"`:
		return true, true
	}
	return false, false
}

// searchRequest is the body of a search. start and max come as strings or as
// numbers.
type searchRequest struct {
	Input struct {
		FreeSearch    string            `json:"freeSearch"`
		KeywordSearch map[string]string `json:"keywordSearch"` // keyname, fingerprint
	} `json:"input"`
	Filter struct {
		SortColumn string          `json:"sortColumn"`
		SortOrder  string          `json:"sortOrder"`
		Start      json.RawMessage `json:"start"`
		Max        json.RawMessage `json:"max"`
	} `json:"filter"`
}

// searchAnswer is "response" of a search.
type searchAnswer struct {
	TotalRecords int      `json:"totalRecords"`
	Objects      []object `json:"objects"`
}

// An object is a key as a search shows it.
type object struct {
	UUID            string     `json:"uuid"`
	KeyName         string     `json:"keyName"`
	FingerPrint     string     `json:"fingerPrint"`
	KeyType         string     `json:"keyType"`
	Algorithm       string     `json:"algorithm"`
	BitLength       string     `json:"bitLength"`
	PublicKey       string     `json:"publicKey"`
	Status          string     `json:"status"`
	KeyGroup        string     `json:"keyGroup"`
	Hosts           []endpoint `json:"hosts"`
	Clients         []endpoint `json:"clients"`
	Replaces        []string   `json:"replaces"`
	ReplacedBy      []string   `json:"replacedBy"`
	CreatedTime     int64      `json:"createdTime"`
	LastRotatedTime *int64     `json:"lastRotatedTime"`
}

// An endpoint is a place of a key: hosts accept it, clients have it.
type endpoint struct {
	Host string `json:"host"`
	User string `json:"user"`
	Path string `json:"path"`
}

// sortColumns are what a search sorts by, in AppViewX's words and ours.
var sortColumns = map[string]string{"": "created", "createdtime": "created", "keyname": "comment", "fingerprint": "fingerprint", "lastrotatedtime": "rotated"}

func (d door) searchUserKeys(_ http.ResponseWriter, r *http.Request, a control.Actor) (any, *fault) {
	var q searchRequest
	if f := ofSearch.read(r, &q); f != nil {
		return nil, f
	}
	f := control.KeyFilter{Kinds: []control.KeyKind{control.UserKey}, Text: q.Input.FreeSearch}
	for keyword, value := range q.Input.KeywordSearch {
		switch strings.ToLower(keyword) {
		case "keyname":
			f.Comment = value
		case "fingerprint":
			f.Fingerprint = trust.Fingerprint(value)
		default: // leaving it out would find more than was asked for
			return nil, invalid("keywordSearch")
		}
	}
	switch query(r, "keysFrom") {
	case "":
		f.States = []control.KeyState{control.ActiveKey}
	case "rotatedInventory":
		f.States = []control.KeyState{control.RotatedKey, control.RetiredKey}
	case "deletedInventory":
		f.States = []control.KeyState{control.DeletedKey}
	default:
		return nil, invalid("keysFrom")
	}
	column, ok := sortColumns[strings.ToLower(q.Filter.SortColumn)]
	if !ok {
		return nil, invalid("sortColumn")
	}
	if o := q.Filter.SortOrder; o != "" && o != "asc" && o != "desc" {
		return nil, invalid("sortOrder")
	}
	start, ok := number(q.Filter.Start, 0)
	if !ok {
		return nil, invalid("start")
	}
	most, ok := number(q.Filter.Max, 100)
	if !ok || most < 1 || most > control.MaxPage {
		return nil, invalid("max")
	}
	list, total, err := d.plane.SearchKeys(r.Context(), a, f, query(r, "discoveryName"), control.KeyPage{Sort: column, Desc: q.Filter.SortOrder == "desc", Limit: most}, start)
	if err != nil {
		return nil, faultOf(err)
	}
	answer := searchAnswer{TotalRecords: total, Objects: make([]object, len(list))}
	for i, k := range list {
		answer.Objects[i] = show(k)
	}
	return answer, nil
}

// number reads a count that comes as a string or a number.
func number(raw json.RawMessage, absent int) (int, bool) {
	text := strings.Trim(string(raw), `"`)
	if text == "" || text == "null" {
		return absent, true
	}
	n, err := strconv.Atoi(text)
	return n, err == nil && n >= 0
}

func show(k control.Relationship) object {
	o := object{
		UUID: string(k.Key.ID), KeyName: k.Key.Comment, FingerPrint: string(k.Key.Public.Fingerprint()), KeyType: "USER_KEY",
		Algorithm: k.Key.Public.Type(), BitLength: strconv.Itoa(k.Key.Public.Bits()), PublicKey: k.Key.Public.String(),
		Status: string(k.Key.State), KeyGroup: "Default_Key_Group", Hosts: []endpoint{}, Clients: []endpoint{},
		Replaces: []string{}, ReplacedBy: []string{}, CreatedTime: k.Key.CreatedAt.UnixMilli(),
	}
	if !k.Key.LastRotatedAt.IsZero() {
		ms := k.Key.LastRotatedAt.UnixMilli()
		o.LastRotatedTime = &ms
	}
	for _, p := range k.Authorized {
		o.Hosts = append(o.Hosts, endpoint{p.HostName, p.User, p.Path})
	}
	for _, p := range k.Identities {
		o.Clients = append(o.Clients, endpoint{p.HostName, p.User, p.Path})
	}
	for _, id := range k.Replaces {
		o.Replaces = append(o.Replaces, string(id))
	}
	for _, id := range k.ReplacedBy {
		o.ReplacedBy = append(o.ReplacedBy, string(id))
	}
	return o
}
