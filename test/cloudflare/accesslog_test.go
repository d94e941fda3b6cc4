package cloudflare

import (
	"testing"
	"time"

	old "github.com/cloudflare/cloudflare-go"
	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/option"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

func TestAccessLog(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	var made struct{ ID string }
	s.own("PUT", "/users/admin/email", map[string]any{"email": "admin@example.com"}, &made)
	params := zt.AccessLogAccessRequestListParams{AccountID: cloudflare.F(s.account)}
	log := s.sdk().ZeroTrust.Access.Logs.AccessRequests
	all, err := log.List(ctx, params)
	if err != nil || len(*all) == 0 {
		t.Fatalf("%+v, %v", all, err)
	}
	// The administrator's password has made a token.
	last := (*all)[len(*all)-1]
	if last.Action != "login" || !last.Allowed || last.UserEmail != "admin@example.com" || last.IPAddress != "127.0.0.1" || len(last.RayID) != 16 || time.Since(last.CreatedAt) > time.Hour {
		t.Errorf("%+v", last)
	}
	// What the SDK's own tests send.
	params.Email, params.EmailExact, params.EmailOp = cloudflare.F("admin@example.com"), cloudflare.F(true), cloudflare.F(zt.AccessLogAccessRequestListParamsEmailOpNeq)
	params.Limit, params.Page, params.PerPage = cloudflare.F(int64(0)), cloudflare.F(int64(0)), cloudflare.F(int64(0))
	params.AllowedOp, params.IdPOp, params.NonIdentityOp = cloudflare.F(zt.AccessLogAccessRequestListParamsAllowedOpEq), cloudflare.F(zt.AccessLogAccessRequestListParamsIdPOpEq), cloudflare.F(zt.AccessLogAccessRequestListParamsNonIdentityOpEq)
	params.Direction, params.Until = cloudflare.F(zt.AccessLogAccessRequestListParamsDirectionAsc), cloudflare.F(time.Now())
	if others, err := log.List(ctx, params); err != nil || len(*others) != 0 {
		t.Errorf("of others: %+v, %v", others, err)
	}
	s.fails("a token for something else", 403, 10000, func() error {
		_, err := s.sdk(option.WithAPIToken(s.newToken("keys", "Keys Read"))).ZeroTrust.Access.Logs.AccessRequests.List(ctx, params)
		return err
	})

	api, err := old.NewWithAPIToken(s.token, old.BaseURL(s.url), old.HTTPClient(s.client()))
	if err != nil {
		t.Fatal(err)
	}
	since := time.Now().Add(-time.Hour)
	records, err := api.AccessAuditLogs(ctx, s.account, old.AccessAuditLogFilterOptions{Direction: "asc", Since: &since, Limit: 1})
	if err != nil || len(records) != 1 || records[0].RayID != last.RayID || records[0].UserEmail != "admin@example.com" {
		t.Errorf("to the older SDK: %+v, %v", records, err)
	}
}
