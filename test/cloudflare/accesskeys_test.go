package cloudflare

import (
	"net/http"
	"testing"

	v0 "github.com/cloudflare/cloudflare-go"
	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/option"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

// Both SDKs see the keys that sign tokens, say how often they are exchanged, and exchange
// them: once, when an answer is lost.
func TestAccessKeys(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	account := cloudflare.F(s.account)
	keys := s.sdk().ZeroTrust.Access.Keys
	first, err := keys.Get(ctx, zt.AccessKeyGetParams{AccountID: account})
	if err != nil || first.DaysUntilNextRotation != 42 || first.KeyRotationIntervalDays != 42 || first.LastKeyRotationAt.IsZero() {
		t.Fatalf("%+v, %v", first, err)
	}
	set, err := keys.Update(ctx, zt.AccessKeyUpdateParams{AccountID: account, KeyRotationIntervalDays: cloudflare.F(21.0)})
	if err != nil || set.DaysUntilNextRotation != 21 || set.KeyRotationIntervalDays != 21 || !set.LastKeyRotationAt.Equal(first.LastKeyRotationAt) {
		t.Errorf("set to 21 days: %+v, %v", set, err)
	}
	s.fails("more than a year", 400, 12130, func() error {
		_, err := keys.Update(ctx, zt.AccessKeyUpdateParams{AccountID: account, KeyRotationIntervalDays: cloudflare.F(366.0)})
		return err
	})
	published := func() int {
		t.Helper()
		var p struct{ Keys []struct{ KID string } }
		if err := s.sdk(option.WithBaseURL(s.host)).Get(ctx, "cdn-cgi/access/certs", nil, &p); err != nil {
			t.Fatal(err)
		}
		return len(p.Keys)
	}
	lost := s.sdk(option.WithHTTPClient(&http.Client{Transport: &lossy{to: s}})).ZeroTrust.Access.Keys
	rotated, err := lost.Rotate(ctx, zt.AccessKeyRotateParams{AccountID: account})
	if n := published(); err != nil || !rotated.LastKeyRotationAt.After(first.LastKeyRotationAt) || n != 2 {
		t.Errorf("rotated, and the answer lost: %+v, %v, and %d keys are published", rotated, err, n)
	}
	old, err := v0.NewWithAPIToken(s.token, v0.BaseURL(s.url))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := old.AccessKeysConfig(ctx, s.account); err != nil || got.KeyRotationIntervalDays != 21 || !got.LastKeyRotationAt.Equal(rotated.LastKeyRotationAt) {
		t.Errorf("the older SDK reads %+v, %v", got, err)
	}
	if got, err := old.UpdateAccessKeysConfig(ctx, s.account, v0.AccessKeysConfigUpdateRequest{KeyRotationIntervalDays: 365}); err != nil || got.DaysUntilNextRotation != 365 {
		t.Errorf("the older SDK writes %+v, %v", got, err)
	}
	if got, err := old.RotateAccessKeys(ctx, s.account); err != nil || !got.LastKeyRotationAt.After(rotated.LastKeyRotationAt) || published() != 3 {
		t.Errorf("the older SDK rotates: %+v, %v", got, err)
	}
}
