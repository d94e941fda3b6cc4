package cloudflare

import (
	"errors"
	"testing"

	old "github.com/cloudflare/cloudflare-go"
)

// The calls of the SDK before today's. It takes one page of 25 for the whole listing
// unless it is told otherwise, because it does not read result_info here.
func TestOldApplicationCAs(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	api, err := old.NewWithAPIToken(s.token, old.BaseURL(s.url), old.HTTPClient(s.client()), old.UsingRateLimit(1000))
	if err != nil {
		t.Fatal(err)
	}
	account, zone := old.AccountIdentifier(s.account), old.ZoneIdentifier(s.account[16:]+s.account[:16])
	apps := s.newApplications(60)
	made, err := api.CreateAccessCACertificate(ctx, account, old.CreateAccessCACertificateParams{ApplicationID: apps[0]})
	if err != nil || len(made.ID) != 48 || len(made.Aud) != 64 || !caLine.MatchString(made.PublicKey) {
		t.Fatalf("made %+v: %v", made, err)
	}
	if read, err := api.GetAccessCACertificate(ctx, zone, apps[0]); err != nil || read != made {
		t.Errorf("read %+v, %v; made %+v", read, err, made)
	}
	var refused *old.RequestError
	if _, err := api.CreateAccessCACertificate(ctx, account, old.CreateAccessCACertificateParams{ApplicationID: apps[0]}); !errors.As(err, &refused) {
		t.Errorf("a second one: %v", err)
	}
	s.newCAs(apps[1:])
	seen := map[string]bool{}
	for page := 1; ; page++ {
		list, _, err := api.ListAccessCACertificates(ctx, account, old.ListAccessCACertificatesParams{ResultInfo: old.ResultInfo{Page: page, PerPage: 25}})
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, ca := range list {
			seen[ca.ID] = true
		}
	}
	if len(seen) != 60 {
		t.Errorf("listed %d of 60", len(seen))
	}
	if list, _, err := api.ListAccessCACertificates(ctx, zone, old.ListAccessCACertificatesParams{}); err != nil || len(list) != 25 {
		t.Errorf("by itself it lists %d: %v", len(list), err)
	}
	var missing *old.NotFoundError
	if err := api.DeleteAccessCACertificate(ctx, account, apps[0]); err != nil {
		t.Error(err)
	}
	if err := api.DeleteAccessCACertificate(ctx, account, apps[0]); !errors.As(err, &missing) {
		t.Errorf("removing it twice: %v", err)
	}
	if _, err := api.GetAccessCACertificate(ctx, account, apps[0]); !errors.As(err, &missing) {
		t.Errorf("reading what is gone: %v", err)
	}
}
