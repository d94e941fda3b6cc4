package cloudflare

import (
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/accounts"
	"github.com/cloudflare/cloudflare-go/v6/option"
	"github.com/cloudflare/cloudflare-go/v6/user"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

// sdk returns the SDK of today as a user has it: with the retries that it comes with.
func (s *server) sdk(more ...option.RequestOption) *cloudflare.Client {
	return cloudflare.NewClient(append([]option.RequestOption{option.WithBaseURL(s.url), option.WithAPIToken(s.token), option.WithHTTPClient(s.client())}, more...)...)
}

// fails says that a call is refused with a status and a code, after one request.
func (s *server) fails(what string, status int, code int64, call func() error) {
	s.t.Helper()
	var err error
	asked := s.requests(func() { err = call() })
	var refused *cloudflare.Error
	if !errors.As(err, &refused) || refused.StatusCode != status || len(refused.Errors) == 0 || refused.Errors[0].Code != code || asked != 1 {
		s.t.Errorf("%s: %d requests, and %v; want one, and %d with code %d", what, asked, err, status, code)
	}
}

func ipv4(ip string) zt.AccessInfrastructureTargetNewParamsIP {
	return zt.AccessInfrastructureTargetNewParamsIP{IPV4: cloudflare.F(zt.AccessInfrastructureTargetNewParamsIPIPV4{IPAddr: cloudflare.F(ip)})}
}

func TestTokens(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	api := s.sdk()
	users, err := api.User.Tokens.Verify(ctx)
	if err != nil || users.Status != user.TokenVerifyResponseStatusActive || len(users.ID) != 32 {
		t.Errorf("of the user: %+v, %v", users, err)
	}
	accountsToken, err := api.Accounts.Tokens.Verify(ctx, accounts.TokenVerifyParams{AccountID: cloudflare.F(s.account)})
	if err != nil || accountsToken.ID != users.ID || accountsToken.Status != accounts.TokenVerifyResponseStatusActive {
		t.Errorf("of the account: %+v, %v", accountsToken, err)
	}
	s.fails("an unknown token", 401, 1000, func() error {
		_, err := s.sdk(option.WithAPIToken("Sn3lZJTBX6kkg7OdcBUAxOO963GEIyGQqnFTOFYY")).User.Tokens.Verify(ctx)
		return err
	})
	targets := zt.AccessInfrastructureTargetListParams{AccountID: cloudflare.F(s.account)}
	s.fails("an unknown token", 403, 10001, func() error {
		_, err := s.sdk(option.WithAPIToken("Sn3lZJTBX6kkg7OdcBUAxOO963GEIyGQqnFTOFYY")).ZeroTrust.Access.Infrastructure.Targets.List(ctx, targets)
		return err
	})
	s.fails("a token for something else", 403, 10000, func() error {
		_, err := s.sdk(option.WithAPIToken(s.newToken("keys", "Keys Read"))).ZeroTrust.Access.Infrastructure.Targets.List(ctx, targets)
		return err
	})
	s.fails("another account", 403, 10000, func() error {
		_, err := api.Accounts.Tokens.Verify(ctx, accounts.TokenVerifyParams{AccountID: cloudflare.F("023e105f4ecef8ad9ca31a8372d0c353")})
		return err
	})
	s.fails("no account", 404, 7003, func() error {
		_, err := api.Accounts.Tokens.Verify(ctx, accounts.TokenVerifyParams{AccountID: cloudflare.F("mine")})
		return err
	})
	// An e-mail address and a key, alone and beside a token that counts.
	key := cloudflare.NewClient(option.WithBaseURL(s.url), option.WithAPIEmail("admin"), option.WithAPIKey(s.token))
	if _, err := key.ZeroTrust.Access.Infrastructure.Targets.List(ctx, targets); err != nil {
		t.Errorf("by name and key: %v", err)
	}
	if _, err := s.sdk(option.WithAPIEmail("user@example.com"), option.WithAPIKey("144c9defac04969c7bfad8efaa8ea194")).User.Tokens.Verify(ctx); err != nil {
		t.Errorf("a key beside a token: %v", err)
	}
}

func TestTargets(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	targets := s.sdk().ZeroTrust.Access.Infrastructure.Targets
	account := cloudflare.F(s.account)
	made, err := targets.New(ctx, zt.AccessInfrastructureTargetNewParams{AccountID: account, Hostname: cloudflare.F("Web-1"), IP: cloudflare.F(ipv4("10.0.0.5"))})
	if err != nil {
		t.Fatal(err)
	}
	if made.Hostname != "Web-1" || made.IP.IPV4.IPAddr != "10.0.0.5" || len(made.IP.IPV4.VirtualNetworkID) != 36 || time.Since(made.CreatedAt) > time.Minute || made.ModifiedAt.IsZero() {
		t.Errorf("made %+v", made)
	}
	// What was read and is written back is what it was.
	changed, err := targets.Update(ctx, made.ID, zt.AccessInfrastructureTargetUpdateParams{
		AccountID: account, Hostname: cloudflare.F(made.Hostname),
		IP: cloudflare.F(zt.AccessInfrastructureTargetUpdateParamsIP{
			IPV4: cloudflare.F(zt.AccessInfrastructureTargetUpdateParamsIPIPV4{IPAddr: cloudflare.F(made.IP.IPV4.IPAddr), VirtualNetworkID: cloudflare.F(made.IP.IPV4.VirtualNetworkID)}),
		}),
	})
	if err != nil || changed.Hostname != made.Hostname || changed.IP.IPV4.IPAddr != made.IP.IPV4.IPAddr || changed.IP.IPV4.VirtualNetworkID != made.IP.IPV4.VirtualNetworkID || !changed.CreatedAt.Equal(made.CreatedAt) {
		t.Errorf("written back it is %+v, was %+v: %v", changed, made, err)
	}
	read, err := targets.Get(ctx, made.ID, zt.AccessInfrastructureTargetGetParams{AccountID: account})
	if err != nil || read.ID != made.ID || !read.ModifiedAt.Equal(changed.ModifiedAt) {
		t.Errorf("read %+v, %v", read, err)
	}
	s.fails("an address that is taken", 400, 12130, func() error {
		_, err := targets.New(ctx, zt.AccessInfrastructureTargetNewParams{AccountID: account, Hostname: cloudflare.F("other"), IP: cloudflare.F(ipv4("10.0.0.5"))})
		return err
	})
	s.fails("no hostname", 400, 12130, func() error {
		_, err := targets.New(ctx, zt.AccessInfrastructureTargetNewParams{AccountID: account, Hostname: cloudflare.F(""), IP: cloudflare.F(ipv4("10.0.0.6"))})
		return err
	})
	const absent = "1f4158e4-c12d-5097-a058-7bb2817e132b"
	s.fails("no such target", 404, 12135, func() error {
		_, err := targets.Get(ctx, absent, zt.AccessInfrastructureTargetGetParams{AccountID: account})
		return err
	})
	if asked := s.requests(func() {
		err = targets.Delete(ctx, made.ID, zt.AccessInfrastructureTargetDeleteParams{AccountID: account})
	}); err != nil || asked != 1 {
		t.Errorf("deleting: %d requests, %v", asked, err)
	}
	s.fails("deleting it twice", 404, 12135, func() error {
		return targets.Delete(ctx, made.ID, zt.AccessInfrastructureTargetDeleteParams{AccountID: account})
	})
}

// Pages of 60 and of 2,000 targets, and every filter that the SDK has.
func TestTargetPages(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	targets := s.sdk().ZeroTrust.Access.Infrastructure.Targets
	account := cloudflare.F(s.account)
	create := func(from, to int) (ids []string) {
		var body []zt.AccessInfrastructureTargetBulkUpdateParamsBody
		for i := from; i < to; i++ {
			body = append(body, zt.AccessInfrastructureTargetBulkUpdateParamsBody{
				Hostname: cloudflare.F(fmt.Sprintf("web-%04d", i)),
				IP: cloudflare.F(zt.AccessInfrastructureTargetBulkUpdateParamsBodyIP{
					IPV4: cloudflare.F(zt.AccessInfrastructureTargetBulkUpdateParamsBodyIPIPV4{IPAddr: cloudflare.F(fmt.Sprintf("10.1.%d.%d", i/250, i%250+1))}),
				}),
			})
		}
		pages := targets.BulkUpdateAutoPaging(ctx, zt.AccessInfrastructureTargetBulkUpdateParams{AccountID: account, Body: body})
		for pages.Next() {
			ids = append(ids, pages.Current().ID)
		}
		if pages.Err() != nil || len(ids) != to-from {
			t.Fatalf("made %d of %d: %v", len(ids), to-from, pages.Err())
		}
		return ids
	}
	list := func(p zt.AccessInfrastructureTargetListParams) (names []string, asked int) {
		t.Helper()
		p.AccountID = account
		asked = s.requests(func() {
			pages := targets.ListAutoPaging(ctx, p)
			for pages.Next() {
				names = append(names, pages.Current().Hostname)
			}
			if pages.Err() != nil {
				t.Error(pages.Err())
			}
		})
		return names, asked
	}
	wants := func(what string, p zt.AccessInfrastructureTargetListParams, count, asked int) {
		t.Helper()
		p.Order = cloudflare.F(zt.AccessInfrastructureTargetListParamsOrderHostname)
		names, got := list(p)
		seen := map[string]bool{}
		for i, n := range names {
			if seen[n] || i > 0 && names[i-1] > n {
				t.Fatalf("%s: %s twice, or out of order", what, n)
			}
			seen[n] = true
		}
		if len(names) != count || got != asked {
			t.Errorf("%s: %d targets by %d requests, want %d by %d", what, len(names), got, count, asked)
		}
	}
	ids := create(0, 60)
	page := func(n int64) zt.AccessInfrastructureTargetListParams {
		return zt.AccessInfrastructureTargetListParams{PerPage: cloudflare.F(n)}
	}
	wants("60 by default", zt.AccessInfrastructureTargetListParams{}, 60, 2)
	wants("60 by 20", page(20), 60, 4)
	wants("60 by 25", page(25), 60, 4)
	ids = append(ids, create(60, 1060)...)
	ids = append(ids, create(1060, 2000)...)
	wants("2,000 by default", zt.AccessInfrastructureTargetListParams{}, 2000, 3)
	wants("2,000 by 100", page(100), 2000, 21)

	at := time.Now().Add(2 * time.Second) // the SDK sends whole seconds
	for what, test := range map[string]struct {
		p     zt.AccessInfrastructureTargetListParams
		count int
	}{
		"a hostname":          {zt.AccessInfrastructureTargetListParams{Hostname: cloudflare.F("WEB-0007")}, 1},
		"a part of hostnames": {zt.AccessInfrastructureTargetListParams{HostnameContains: cloudflare.F("b-000")}, 10},
		"an address":          {zt.AccessInfrastructureTargetListParams{IPV4: cloudflare.F("10.1.0.8")}, 1},
		"no such address":     {zt.AccessInfrastructureTargetListParams{IPV6: cloudflare.F("fd00::1")}, 0},
		"like an address":     {zt.AccessInfrastructureTargetListParams{IPLike: cloudflare.F("10.1.7.*")}, 250},
		"addresses":           {zt.AccessInfrastructureTargetListParams{IPs: cloudflare.F([]string{"10.1.0.8", "10.1.0.9", "10.2.0.1"})}, 2},
		"ids":                 {zt.AccessInfrastructureTargetListParams{TargetIDs: cloudflare.F(ids[:3])}, 3},
		"a range":             {zt.AccessInfrastructureTargetListParams{IPV4Start: cloudflare.F("10.1.0.250"), IPV4End: cloudflare.F("10.1.1.2")}, 3},
		"a range of IPv6":     {zt.AccessInfrastructureTargetListParams{IPV6Start: cloudflare.F("::"), IPV6End: cloudflare.F("ffff::")}, 0},
		"after now":           {zt.AccessInfrastructureTargetListParams{CreatedAfter: cloudflare.F(at.Add(time.Hour))}, 0},
		"before now":          {zt.AccessInfrastructureTargetListParams{ModifiedBefore: cloudflare.F(at), CreatedBefore: cloudflare.F(at), ModifiedAfter: cloudflare.F(at.Add(-time.Hour))}, 2000},
		"another network":     {zt.AccessInfrastructureTargetListParams{VirtualNetworkID: cloudflare.F("c77b744e-acc8-428f-9257-6878c046ed55")}, 0},
	} {
		if names, _ := list(test.p); len(names) != test.count {
			t.Errorf("%s: %d targets, want %d", what, len(names), test.count)
		}
	}
	last, _ := list(zt.AccessInfrastructureTargetListParams{
		HostnameContains: cloudflare.F("web-199"), Order: cloudflare.F(zt.AccessInfrastructureTargetListParamsOrderHostname), Direction: cloudflare.F(zt.AccessInfrastructureTargetListParamsDirectionDesc),
	})
	if want := []string{"web-1999", "web-1998", "web-1997", "web-1996", "web-1995", "web-1994", "web-1993", "web-1992", "web-1991", "web-1990"}; !reflect.DeepEqual(last, want) {
		t.Errorf("from the last: %v", last)
	}
	if err := targets.BulkDeleteV2(ctx, zt.AccessInfrastructureTargetBulkDeleteV2Params{AccountID: account, TargetIDs: cloudflare.F(ids[:1000])}); err != nil {
		t.Fatal(err)
	}
	wants("what is left", zt.AccessInfrastructureTargetListParams{}, 1000, 2)
	s.fails("one that has gone", 404, 12135, func() error {
		return targets.BulkDeleteV2(ctx, zt.AccessInfrastructureTargetBulkDeleteV2Params{AccountID: account, TargetIDs: cloudflare.F(ids[999:1001])})
	})
	wants("as before", zt.AccessInfrastructureTargetListParams{}, 1000, 2)
}

func TestSSHSettings(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	settings := s.sdk().ZeroTrust.Gateway.AuditSSHSettings
	account := cloudflare.F(s.account)
	const key = "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA="
	first, err := settings.Get(ctx, zt.GatewayAuditSSHSettingGetParams{AccountID: account})
	if err != nil || first.PublicKey != "" || len(first.SeedID) != 36 || first.CreatedAt.IsZero() {
		t.Fatalf("nobody has configured %+v: %v", first, err)
	}
	set, err := settings.Update(ctx, zt.GatewayAuditSSHSettingUpdateParams{AccountID: account, PublicKey: cloudflare.F(key)})
	if err != nil || set.PublicKey != key || set.SeedID != first.SeedID || !set.UpdatedAt.After(first.UpdatedAt) {
		t.Errorf("set to %+v: %v", set, err)
	}
	s.fails("no key", 400, 12130, func() error {
		_, err := settings.Update(ctx, zt.GatewayAuditSSHSettingUpdateParams{AccountID: account, PublicKey: cloudflare.F("key")})
		return err
	})
	rotated, err := settings.RotateSeed(ctx, zt.GatewayAuditSSHSettingRotateSeedParams{AccountID: account})
	if err != nil || rotated.PublicKey != key || rotated.SeedID == first.SeedID || !rotated.UpdatedAt.After(set.UpdatedAt) {
		t.Errorf("rotated to %+v: %v", rotated, err)
	}
	off, err := settings.Update(ctx, zt.GatewayAuditSSHSettingUpdateParams{AccountID: account, PublicKey: cloudflare.F("")})
	if err != nil || off.PublicKey != "" || off.SeedID != rotated.SeedID {
		t.Errorf("turned off it is %+v: %v", off, err)
	}
}
