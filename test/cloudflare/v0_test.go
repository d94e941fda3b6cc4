package cloudflare

import (
	"errors"
	"fmt"
	"testing"

	old "github.com/cloudflare/cloudflare-go"
)

// The SDK before today's, which counts pages by result_info, by a token and by name and key.
func TestOldSDK(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	byToken, err := old.NewWithAPIToken(s.token, old.BaseURL(s.url), old.HTTPClient(s.client()), old.UsingRateLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	byKey, err := old.New(s.token, "admin", old.BaseURL(s.url), old.HTTPClient(s.client()), old.UsingRateLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	if token, err := byToken.VerifyAPIToken(ctx); err != nil || token.Status != "active" || len(token.ID) != 32 {
		t.Errorf("the token is %+v: %v", token, err)
	}
	account := old.AccountIdentifier(s.account)
	var made []old.InfrastructureAccessTarget
	for i := range 60 {
		api := byToken
		if i%2 == 1 {
			api = byKey
		}
		m, err := api.CreateInfrastructureAccessTarget(ctx, account, old.CreateInfrastructureAccessTargetParams{InfrastructureAccessTargetParams: old.InfrastructureAccessTargetParams{
			Hostname: fmt.Sprintf("web-%d", i), IP: old.InfrastructureAccessTargetIPInfo{IPV4: &old.InfrastructureAccessTargetIPDetails{IPAddr: fmt.Sprintf("10.0.0.%d", i+1)}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, m)
	}
	var list []old.InfrastructureAccessTarget
	asked := s.requests(func() {
		list, _, err = byKey.ListInfrastructureAccessTargets(ctx, account, old.InfrastructureAccessTargetListParams{})
	})
	if err != nil || len(list) != 60 || asked != 3 {
		t.Errorf("60 targets are %d by %d requests: %v", len(list), asked, err)
	}
	none, info, err := byKey.ListInfrastructureAccessTargets(ctx, account, old.InfrastructureAccessTargetListParams{Hostname: "nobody"})
	if err != nil || len(none) != 0 || info.Total != 0 {
		t.Errorf("no target: %v, %+v, %v", none, info, err)
	}
	changed, err := byKey.UpdateInfrastructureAccessTarget(ctx, account, old.UpdateInfrastructureAccessTargetParams{
		ID: made[0].ID, ModifyParams: old.InfrastructureAccessTargetParams{Hostname: "Web-0", IP: made[0].IP},
	})
	if err != nil || changed.Hostname != "Web-0" || *changed.IP.IPV4 != *made[0].IP.IPV4 || changed.CreatedAt != made[0].CreatedAt {
		t.Errorf("changed to %+v: %v", changed, err)
	}
	read, err := byToken.GetInfrastructureAccessTarget(ctx, account, made[0].ID)
	if err != nil || read.ModifiedAt != changed.ModifiedAt {
		t.Errorf("read %+v, %v", read, err)
	}
	if err := byToken.DeleteInfrastructureAccessTarget(ctx, account, made[0].ID); err != nil {
		t.Error(err)
	}

	const key = "1pyl6I1tL7xfJuFYVzXlUW8uXXlpxegHXBzGCBKaSFA="
	set, err := byKey.UpdateAuditSSHSettings(ctx, account, old.UpdateAuditSSHSettingsParams{PublicKey: key})
	if err != nil || set.PublicKey != key || len(set.SeedUUID) != 36 {
		t.Errorf("the settings of SSH are %+v: %v", set, err)
	}
	if got, _, err := byToken.GetAuditSSHSettings(ctx, account, old.GetAuditSSHSettingsParams{}); err != nil || got.PublicKey != key || got.SeedUUID != set.SeedUUID || got.UpdatedAt == nil {
		t.Errorf("read, the settings of SSH are %+v: %v", got, err)
	}

	// Each class of error, told by one request.
	classes := map[string]func(error) bool{
		"not found":      func(err error) bool { var e *old.NotFoundError; return errors.As(err, &e) },
		"authentication": func(err error) bool { var e *old.AuthenticationError; return errors.As(err, &e) },
		"authorization":  func(err error) bool { var e *old.AuthorizationError; return errors.As(err, &e) },
		"request":        func(err error) bool { var e *old.RequestError; return errors.As(err, &e) },
	}
	wrong, err := old.NewWithAPIToken("Sn3lZJTBX6kkg7OdcBUAxOO963GEIyGQqnFTOFYY", old.BaseURL(s.url), old.HTTPClient(s.client()))
	if err != nil {
		t.Fatal(err)
	}
	for what, test := range map[string]struct {
		class string
		call  func() error
	}{
		"no such target": {"not found", func() error { return byToken.DeleteInfrastructureAccessTarget(ctx, account, made[0].ID) }},
		"another account": {"authentication", func() error {
			_, err := byToken.GetInfrastructureAccessTarget(ctx, old.AccountIdentifier("023e105f4ecef8ad9ca31a8372d0c353"), made[1].ID)
			return err
		}},
		"an unknown token": {"authorization", func() error {
			_, err := wrong.VerifyAPIToken(ctx)
			return err
		}},
		"an address that is taken": {"request", func() error {
			_, err := byKey.UpdateInfrastructureAccessTarget(ctx, account, old.UpdateInfrastructureAccessTargetParams{ID: made[1].ID, ModifyParams: old.InfrastructureAccessTargetParams{Hostname: "web", IP: made[2].IP}})
			return err
		}},
	} {
		var err error
		if asked := s.requests(func() { err = test.call() }); asked != 1 || !classes[test.class](err) {
			t.Errorf("%s: %d requests, and %T %v; want one, and the class %s", what, asked, err, err, test.class)
		}
	}
}
