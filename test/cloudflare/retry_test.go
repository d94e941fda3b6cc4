package cloudflare

import (
	"net/http"
	"testing"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/option"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

// A watched transport calls after each answer.
type watched struct {
	to    http.RoundTripper
	after func()
}

func (w *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.to.RoundTrip(r)
	w.after()
	return resp, err
}

// The SDK asks again for a rotation whose answer was lost, and gets that one.
func TestLostRotation(t *testing.T) {
	s := start(t)
	account := cloudflare.F(s.account)
	newest := func() string {
		now, err := s.sdk().ZeroTrust.Gateway.AuditSSHSettings.Get(t.Context(), zt.GatewayAuditSSHSettingGetParams{AccountID: account})
		if err != nil {
			t.Fatal(err)
		}
		return now.SeedID
	}
	first := newest()
	var seeds []string // after each request
	transport := &lossy{to: &watched{s, func() { seeds = append(seeds, newest()) }}}
	rotated, err := s.sdk(option.WithHTTPClient(&http.Client{Transport: transport})).ZeroTrust.Gateway.AuditSSHSettings.
		RotateSeed(t.Context(), zt.GatewayAuditSSHSettingRotateSeedParams{AccountID: account})
	if err != nil || len(seeds) != 2 || seeds[0] == first || seeds[1] != seeds[0] || rotated.SeedID != seeds[0] {
		t.Errorf("there was seed %s, then %q, and the answer is %+v, %v", first, seeds, rotated, err)
	}
}

// The SDK asks again for what lets somebody in and whose answer was lost, and gets what the
// first request made: there is no second one that nobody knows of.
func TestLostCreations(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	account := cloudflare.F(s.account)
	access := func() *zt.AccessService {
		return s.sdk(option.WithHTTPClient(&http.Client{Transport: &lossy{to: s}})).ZeroTrust.Access
	}
	var ids []string // of what was made
	made := func(id string, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, id)
	}
	asked := s.requests(func() {
		app, err := access().Applications.New(ctx, zt.AccessApplicationNewParams{AccountID: account, Body: ssh("web", "web.example.com")})
		made(app.ID, err)
		policy, err := access().Policies.New(ctx, zt.AccessPolicyNewParams{
			AccountID: account, Name: cloudflare.F("all"), Decision: cloudflare.F(zt.DecisionAllow), Include: cloudflare.F(everyoneRule()),
		})
		made(policy.ID, err)
		own, err := access().Applications.Policies.New(ctx, app.ID, zt.AccessApplicationPolicyNewParams{
			AccountID: account,
		}, option.WithRequestBody("application/json", []byte(`{"name":"own","decision":"allow","include":[{"everyone":{}}]}`)))
		made(own.ID, err)
		group, err := access().Groups.New(ctx, zt.AccessGroupNewParams{AccountID: account, Name: cloudflare.F("all"), Include: cloudflare.F(everyoneRule())})
		made(group.ID, err)
		target, err := access().Infrastructure.Targets.New(ctx, zt.AccessInfrastructureTargetNewParams{AccountID: account, Hostname: cloudflare.F("web"), IP: cloudflare.F(ipv4("10.0.0.1"))})
		made(target.ID, err)
	})
	if asked != 2*len(ids) {
		t.Errorf("%d requests, want two of each", asked)
	}
	for i, path := range []string{"/access/apps", "/access/policies", "/access/apps/" + ids[0] + "/policies", "/access/groups", "/infrastructure/targets"} {
		var there struct{ Result []struct{ ID string } }
		if err := s.sdk().Get(ctx, "accounts/"+s.account+path, nil, &there); err != nil || len(there.Result) != 1 || there.Result[0].ID != ids[i] {
			t.Errorf("%s has %+v, and the SDK was told of %s: %v", path, there.Result, ids[i], err)
		}
	}
}
