// Package cloudflare is the front door for clients of Cloudflare's API: its Zero
// Trust calls below /client/v4, as far as docs/dialects/cloudflare.md says.
//
// It holds no rule. A route reads a request into the argument of one verb, and
// shows what the verb answered in Cloudflare's envelope; one table says which
// status, code and text an error has there.
//
// Its SDKs decide what an answer is by the status alone, try 408, 409, 429 and
// 5xx again up to ten times, and take what has no JSON content type for nothing
// at all. So everything is JSON, what is there already is 400 and not 409, and
// whatever will be refused again says so in a header.
package cloudflare

import (
	"context"
	"net/http"
	"strings"

	"keyturn/internal/api"
	"keyturn/internal/control"
)

// prefix is what clients have as base URL, without the slash that some append.
const prefix = "/client/v4"

// An envelope is every answer, in the order of fields that Cloudflare has.
type envelope struct {
	Result   any         `json:"result"`
	Success  bool        `json:"success"`
	Errors   []fault     `json:"errors"`
	Messages []message   `json:"messages"`
	Info     *resultInfo `json:"result_info,omitempty"`
}

// A message is what an answer says beside its result.
type message struct {
	Code    int     `json:"code"`
	Message string  `json:"message"`
	Type    *string `json:"type"`
}

// An answer is what a call succeeded with.
type answer struct {
	status   int // 200 where it is 0
	result   any
	messages []message
	info     *resultInfo
}

// A door is the plane in Cloudflare's words.
type door struct {
	plane *control.Plane
	log   func(ctx context.Context, err error)
}

// A route is one call.
type route struct {
	method, path string
	// who reads the credential of a request.
	who func(door, *http.Request) (control.Actor, error)
	do  func(d door, r *http.Request, a control.Actor) (answer, error)
}

// scope begins the path of a route that there is below accounts and below zones.
const scope = "/{S}"

// routes is every call that there is.
var routes = []route{
	{"GET", "/user/tokens/verify", door.bearer, door.verifyToken},
	{"GET", "/accounts/{account}/tokens/verify", door.bearer, door.verifyToken},

	{"GET", "/accounts/{account}/infrastructure/targets", door.authenticate, door.listTargets},
	{"POST", "/accounts/{account}/infrastructure/targets", door.authenticate, door.createTarget},
	{"GET", "/accounts/{account}/infrastructure/targets/{target}", door.authenticate, door.showTarget},
	{"PUT", "/accounts/{account}/infrastructure/targets/{target}", door.authenticate, door.updateTarget},
	{"DELETE", "/accounts/{account}/infrastructure/targets/{target}", door.authenticate, door.removeTarget},
	{"PUT", "/accounts/{account}/infrastructure/targets/batch", door.authenticate, door.createTargets},
	{"DELETE", "/accounts/{account}/infrastructure/targets/batch", door.authenticate, door.removeTargets},
	{"POST", "/accounts/{account}/infrastructure/targets/batch_delete", door.authenticate, door.removeTargets},

	{"GET", "/accounts/{account}/gateway/audit_ssh_settings", door.authenticate, door.showSSHSettings},
	{"PUT", "/accounts/{account}/gateway/audit_ssh_settings", door.authenticate, door.updateSSHSettings},
	{"POST", "/accounts/{account}/gateway/audit_ssh_settings/rotate_seed", door.authenticate, door.rotateSeed},

	{"GET", scope + "/access/apps", door.authenticate, door.listApplications},
	{"POST", scope + "/access/apps", door.authenticate, door.createApplication},
	{"GET", scope + "/access/apps/{application}", door.authenticate, door.showApplication},
	{"PUT", scope + "/access/apps/{application}", door.authenticate, door.updateApplication},
	{"DELETE", scope + "/access/apps/{application}", door.authenticate, door.removeApplication},
	{"POST", scope + "/access/apps/{application}/revoke_tokens", door.authenticate, door.revokeTokens},
	{"PUT", scope + "/access/apps/{application}/settings", door.authenticate, door.setSettings},
	{"PATCH", scope + "/access/apps/{application}/settings", door.authenticate, door.setSettings},
	{"GET", scope + "/access/apps/{application}/policies", door.authenticate, door.listApplicationPolicies},
	{"POST", scope + "/access/apps/{application}/policies", door.authenticate, door.createApplicationPolicy},
	{"GET", scope + "/access/apps/{application}/policies/{policy}", door.authenticate, door.showApplicationPolicy},
	{"PUT", scope + "/access/apps/{application}/policies/{policy}", door.authenticate, door.updatePolicy},
	{"DELETE", scope + "/access/apps/{application}/policies/{policy}", door.authenticate, door.removePolicy},

	{"GET", "/accounts/{account}/access/policies", door.authenticate, door.listPolicies},
	{"POST", "/accounts/{account}/access/policies", door.authenticate, door.createPolicy},
	{"GET", "/accounts/{account}/access/policies/{policy}", door.authenticate, door.showPolicy},
	{"PUT", "/accounts/{account}/access/policies/{policy}", door.authenticate, door.updatePolicy},
	{"DELETE", "/accounts/{account}/access/policies/{policy}", door.authenticate, door.removePolicy},

	{"GET", scope + "/access/groups", door.authenticate, door.listGroups},
	{"POST", scope + "/access/groups", door.authenticate, door.createGroup},
	{"GET", scope + "/access/groups/{group}", door.authenticate, door.showGroup},
	{"PUT", scope + "/access/groups/{group}", door.authenticate, door.updateGroup},
	{"DELETE", scope + "/access/groups/{group}", door.authenticate, door.removeGroup},

	{"GET", "/accounts/{account}/access/keys", door.authenticate, door.showAccessKeys},
	{"PUT", "/accounts/{account}/access/keys", door.authenticate, door.updateAccessKeys},
	{"POST", "/accounts/{account}/access/keys/rotate", door.authenticate, door.rotateAccessKeys},

	{"GET", "/accounts/{account}/access/logs/access_requests", door.authenticate, door.listAccessRequests},
	{"GET", "/accounts/{account}/access/logs/access-requests", door.authenticate, door.listAccessRequests}, // as older SDKs have it

	{"POST", "/accounts/{account}/access/policy-tests", door.authenticate, door.startPolicyTest},
	{"GET", "/accounts/{account}/access/policy-tests/{test}", door.authenticate, door.showPolicyTest},
	{"GET", "/accounts/{account}/access/policy-tests/{test}/users", door.authenticate, door.listPolicyTestUsers},
	{"GET", scope + "/access/apps/{application}/user_policy_checks", door.authenticate, door.checkUser},

	{"GET", scope + "/access/apps/ca", door.authenticate, door.listApplicationCAs},
	{"GET", scope + "/access/apps/{application}/ca", door.authenticate, door.showApplicationCA},
	{"POST", scope + "/access/apps/{application}/ca", door.authenticate, door.createApplicationCA},
	{"DELETE", scope + "/access/apps/{application}/ca", door.authenticate, door.removeApplicationCA},
	{"GET", "/accounts/{account}/access/gateway_ca", door.authenticate, door.listGatewayCAs},
	{"POST", "/accounts/{account}/access/gateway_ca", door.authenticate, door.createGatewayCA},
	{"DELETE", "/accounts/{account}/access/gateway_ca/{ca}", door.authenticate, door.removeGatewayCA},
}

// New returns the handler of everything below /client/v4/. What a verb fails for
// that a client is not told, log is.
func New(p *control.Plane, log func(context.Context, error)) http.Handler {
	d := door{plane: p, log: log}
	mux := http.NewServeMux()
	calls := map[string]map[string]http.HandlerFunc{} // by path and method
	for _, rt := range routes {
		for _, path := range rt.paths() {
			if calls[path] == nil {
				calls[path] = map[string]http.HandlerFunc{}
			}
			calls[path][rt.method] = d.serve(rt)
		}
	}
	for path, methods := range calls {
		mux.HandleFunc(prefix+path, d.methods(methods))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { d.fail(w, r, noRoute(r)) })
	return d.unbroken(d.paths(mux))
}

// paths returns the patterns of the paths of a route.
func (rt route) paths() []string {
	rest, both := strings.CutPrefix(rt.path, scope)
	if !both {
		return []string{rt.path}
	}
	return []string{"/accounts/{account}" + rest, "/zones/{zone}" + rest}
}

// serve answers with what a route does for whoever asks, in the account that the
// path names.
func (d door) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("account") + r.PathValue("zone"); id != "" && !isIdentifier(id) {
			d.fail(w, r, noRoute(r))
			return
		}
		actor, err := rt.who(d, r)
		if err == nil {
			err = ofAccount(r, actor)
		}
		if err == nil {
			err = isJSON(r)
		}
		var a answer
		if err == nil {
			a, err = rt.do(d, r, actor)
		}
		if err != nil {
			d.fail(w, r, err)
			return
		}
		if a.status == 0 {
			a.status = http.StatusOK
		}
		api.WriteJSON(w, a.status, succeeded(a))
	}
}

// succeeded returns the envelope of an answer.
func succeeded(a answer) envelope {
	if a.messages == nil {
		a.messages = []message{}
	}
	return envelope{Result: a.result, Success: true, Errors: []fault{}, Messages: a.messages, Info: a.info}
}

// isIdentifier reports whether text can be the id of an account or a zone: 32 hex
// digits.
func isIdentifier(text string) bool {
	return len(text) == 32 && strings.Trim(text, "0123456789abcdef") == ""
}

// swapHalves returns the id of the one zone of an account, which there is for clients
// that only know calls below zones, and the id of the account of a zone: the halves of
// the one stand in the other the other way round.
func swapHalves(id string) string { return id[16:] + id[:16] }

// ofAccount refuses who asks for another account, or a zone of another account, than the
// credential's own, be there one or not.
func ofAccount(r *http.Request, a control.Actor) error {
	account := r.PathValue("account")
	if zone := r.PathValue("zone"); zone != "" {
		account = swapHalves(zone)
	}
	if account != "" && account != string(a.Tenant) {
		return &authentication
	}
	return nil
}
