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
