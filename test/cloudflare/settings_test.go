package cloudflare

import (
	"testing"

	"github.com/cloudflare/cloudflare-go/v6"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

// The SDK writes the settings of an application by themselves, and revokes its tokens.
func TestApplicationSettings(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	account, zone := cloudflare.F(s.account), cloudflare.F(s.zone())
	apps := s.sdk().ZeroTrust.Access.Applications
	app, err := apps.New(ctx, zt.AccessApplicationNewParams{AccountID: account, Body: ssh("web", "web.example.com")})
	if err != nil {
		t.Fatal(err)
	}
	id := zt.AppIDParam(app.ID)
	set, err := apps.Settings.Update(ctx, id, zt.AccessApplicationSettingUpdateParams{AccountID: account, AllowIframe: cloudflare.F(true), SkipInterstitial: cloudflare.F(true)})
	if err != nil || !set.AllowIframe || !set.SkipInterstitial {
		t.Errorf("set %+v, %v", set, err)
	}
	edited, err := apps.Settings.Edit(ctx, id, zt.AccessApplicationSettingEditParams{ZoneID: zone, SkipInterstitial: cloudflare.F(false)})
	if err != nil || !edited.AllowIframe || edited.SkipInterstitial {
		t.Errorf("edited %+v, %v", edited, err)
	}
	if _, err := apps.RevokeTokens(ctx, id, zt.AccessApplicationRevokeTokensParams{AccountID: account}); err != nil {
		t.Error(err)
	}
	s.fails("what is not there", 404, 11021, func() error {
		_, err := apps.RevokeTokens(ctx, absent, zt.AccessApplicationRevokeTokensParams{ZoneID: zone})
		return err
	})
}
