package cloudflare

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/cloudflare-go/v6"
	"github.com/cloudflare/cloudflare-go/v6/option"
	zt "github.com/cloudflare/cloudflare-go/v6/zero_trust"
)

// caLine is what a CA's public key looks like.
var caLine = regexp.MustCompile(`^ecdsa-sha2-nistp256 AAAA[A-Za-z0-9+/=]+ open-ssh-ca@cloudflareaccess\.org$`)

// newApplications makes applications over Keyturn's own API, many at a time, and returns
// their ids.
func (s *server) newApplications(count int) []string {
	s.t.Helper()
	ids := make([]string, count)
	s.each(count, func(i int) {
		var made struct{ ID string }
		s.own("POST", "/applications", map[string]any{"name": fmt.Sprintf("app-%d", i), "type": "self_hosted", "domain": fmt.Sprintf("app-%d.example.com", i)}, &made)
		ids[i] = made.ID
	})
	return ids
}

// each calls fn with 0 to count-1, sixteen at a time.
func (s *server) each(count int, fn func(i int)) {
	var all sync.WaitGroup
	turns := make(chan struct{}, 16)
	for i := range count {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			fn(i)
		})
	}
	all.Wait()
}

// newCAs makes the CA of each application.
func (s *server) newCAs(applications []string) {
	s.t.Helper()
	api := s.sdk().ZeroTrust.Access.Applications.CAs
	s.each(len(applications), func(i int) {
		if _, err := api.New(s.t.Context(), applications[i], zt.AccessApplicationCANewParams{AccountID: cloudflare.F(s.account)}); err != nil {
			s.t.Error(err)
		}
	})
}

func TestApplicationCAs(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	cas := s.sdk().ZeroTrust.Access.Applications.CAs
	account, zone := cloudflare.F(s.account), cloudflare.F(s.account[16:]+s.account[:16])
	apps := s.newApplications(2)
	s.fails("an application without one", 404, 12135, func() error {
		_, err := cas.Get(ctx, apps[0], zt.AccessApplicationCAGetParams{AccountID: account})
		return err
	})
	made, err := cas.New(ctx, apps[0], zt.AccessApplicationCANewParams{AccountID: account})
	if err != nil || len(made.ID) != 48 || len(made.AUD) != 64 || !caLine.MatchString(made.PublicKey) {
		t.Fatalf("made %+v: %v", made, err)
	}
	of := func(c *zt.CA) string {
		if c == nil {
			return "nothing"
		}
		return c.ID + " " + c.AUD + " " + c.PublicKey
	}
	for what, params := range map[string]zt.AccessApplicationCAGetParams{"account": {AccountID: account}, "zone": {ZoneID: zone}} {
		if read, err := cas.Get(ctx, apps[0], params); err != nil || of(read) != of(made) {
			t.Errorf("read below the %s: %s, %v; made %s", what, of(read), err, of(made))
		}
	}
	s.fails("a second one", 400, 12130, func() error {
		_, err := cas.New(ctx, apps[0], zt.AccessApplicationCANewParams{AccountID: account})
		return err
	})
	s.fails("no such application", 404, 11021, func() error {
		_, err := cas.New(ctx, "1f4158e4-c12d-5097-a058-7bb2817e132b", zt.AccessApplicationCANewParams{ZoneID: zone})
		return err
	})
	s.fails("a token for something else", 403, 10000, func() error {
		_, err := s.sdk(option.WithAPIToken(s.newToken("ssh", "Access: SSH Auditing Write"))).ZeroTrust.Access.Applications.CAs.List(ctx, zt.AccessApplicationCAListParams{AccountID: account})
		return err
	})
	other, err := cas.New(ctx, apps[1], zt.AccessApplicationCANewParams{ZoneID: zone})
	if err != nil || other.ID == made.ID || other.AUD == made.AUD || other.PublicKey == made.PublicKey {
		t.Fatalf("made %+v: %v", other, err)
	}
	var list []string
	for pages := cas.ListAutoPaging(ctx, zt.AccessApplicationCAListParams{ZoneID: zone}); pages.Next(); {
		current := pages.Current()
		list = append(list, of(&current))
	}
	if strings.Join(list, "\n") != of(made)+"\n"+of(other) {
		t.Errorf("listed %q", list)
	}
	gone, err := cas.Delete(ctx, apps[0], zt.AccessApplicationCADeleteParams{AccountID: account})
	if err != nil || gone.ID != made.ID {
		t.Errorf("removed %+v, want %s: %v", gone, made.ID, err)
	}
	s.fails("removing it twice", 404, 12135, func() error {
		_, err := cas.Delete(ctx, apps[0], zt.AccessApplicationCADeleteParams{AccountID: account})
		return err
	})
	if next, err := cas.New(ctx, apps[0], zt.AccessApplicationCANewParams{AccountID: account}); err != nil || next.ID == made.ID || next.PublicKey == made.PublicKey || next.AUD != made.AUD {
		t.Errorf("made anew: %+v, %v", next, err)
	}
}

// A lossy server does what it is asked for, and loses the answer to the first POST.
type lossy struct {
	to   http.RoundTripper
	once sync.Once
}

func (l *lossy) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := l.to.RoundTrip(r)
	if r.Method == http.MethodPost {
		l.once.Do(func() {
			resp.Body.Close()
			resp = httptest.NewRecorder().Result()
			resp.StatusCode, resp.Request = http.StatusBadGateway, r
			resp.Header.Set("Retry-After-Ms", "1")
		})
	}
	return resp, err
}

// An SDK that asks again, because the answer was lost, gets what it made.
func TestLostAnswers(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	account := cloudflare.F(s.account)
	api := func() *cloudflare.Client { return s.sdk(option.WithHTTPClient(&http.Client{Transport: &lossy{to: s}})) }
	app := s.newApplications(1)[0]
	asked := s.requests(func() {
		if _, err := api().ZeroTrust.Access.Applications.CAs.New(ctx, app, zt.AccessApplicationCANewParams{AccountID: account}); err != nil {
			t.Error(err)
		}
		if _, err := api().ZeroTrust.Access.GatewayCA.New(ctx, zt.AccessGatewayCANewParams{AccountID: account}); err != nil {
			t.Error(err)
		}
	})
	if asked != 4 {
		t.Errorf("%d requests, want two of each", asked)
	}
	var all struct{ Authorities []struct{ Name string } }
	if s.own("GET", "/authorities", nil, &all); len(all.Authorities) != 2 {
		t.Errorf("there are %+v, want one of each", all.Authorities)
	}
}

func TestGatewayCA(t *testing.T) {
	s := start(t)
	ctx := t.Context()
	gateway := s.sdk().ZeroTrust.Access.GatewayCA
	account := cloudflare.F(s.account)
	list := func() (ids []string) {
		t.Helper()
		pages := gateway.ListAutoPaging(ctx, zt.AccessGatewayCAListParams{AccountID: account})
		for pages.Next() {
			ids = append(ids, pages.Current().ID)
		}
		if pages.Err() != nil {
			t.Error(pages.Err())
		}
		return ids
	}
	if ids := list(); len(ids) != 0 {
		t.Errorf("nobody has made %v", ids)
	}
	made, err := gateway.New(ctx, zt.AccessGatewayCANewParams{AccountID: account})
	if err != nil || len(made.ID) != 36 || !caLine.MatchString(made.PublicKey) {
		t.Fatalf("made %+v: %v", made, err)
	}
	if ids := list(); len(ids) != 1 || ids[0] != made.ID {
		t.Errorf("listed %v, want %s", ids, made.ID)
	}
	s.fails("a second one", 400, 12130, func() error {
		_, err := gateway.New(ctx, zt.AccessGatewayCANewParams{AccountID: account})
		if err != nil && !strings.Contains(err.Error(), "access.api.error.gateway_ca_already_exists") {
			t.Error(err)
		}
		return err
	})
	s.fails("a token for something else", 403, 10000, func() error {
		_, err := s.sdk(option.WithAPIToken(s.newToken("apps", "Access: Apps and Policies Write"))).ZeroTrust.Access.GatewayCA.New(ctx, zt.AccessGatewayCANewParams{AccountID: account})
		return err
	})
	if gone, err := gateway.Delete(ctx, made.ID, zt.AccessGatewayCADeleteParams{AccountID: account}); err != nil || gone.ID != made.ID {
		t.Errorf("removed %+v: %v", gone, err)
	}
	s.fails("removing it twice", 404, 12135, func() error {
		_, err := gateway.Delete(ctx, made.ID, zt.AccessGatewayCADeleteParams{AccountID: account})
		return err
	})
}

// Pages of 60 and of 2,000 authorities of applications, and how long the listing takes
// beside that of the same bytes from a server that only has to hand them out.
func TestApplicationCAPages(t *testing.T) {
	s := start(t)
	list := func(base string, p zt.AccessApplicationCAListParams) (count int, took time.Duration) {
		t.Helper()
		p.AccountID = cloudflare.F(s.account)
		began := time.Now()
		pages := s.sdk(option.WithBaseURL(base)).ZeroTrust.Access.Applications.CAs.ListAutoPaging(t.Context(), p)
		seen := map[string]bool{}
		for pages.Next() {
			if seen[pages.Current().ID] {
				t.Fatalf("%s twice", pages.Current().ID)
			}
			seen[pages.Current().ID] = true
		}
		if pages.Err() != nil {
			t.Error(pages.Err())
		}
		return len(seen), time.Since(began)
	}
	wants := func(what string, p zt.AccessApplicationCAListParams, count, asked int) {
		t.Helper()
		got := 0
		if n := s.requests(func() { got, _ = list(s.url, p) }); got != count || n != asked {
			t.Errorf("%s: %d by %d requests, want %d by %d", what, got, n, count, asked)
		}
	}
	apps := s.newApplications(2000)
	s.newCAs(apps[:60])
	wants("60 by default", zt.AccessApplicationCAListParams{}, 60, 2)
	wants("60 by 25", zt.AccessApplicationCAListParams{PerPage: cloudflare.F(int64(25))}, 60, 4)
	s.newCAs(apps[60:])
	wants("2,000 by default", zt.AccessApplicationCAListParams{}, 2000, 3)
	wants("2,000 by 100", zt.AccessApplicationCAListParams{PerPage: cloudflare.F(int64(100))}, 2000, 21)

	bare := httptest.NewServer(s.record("/accounts/"+s.account+"/access/apps/ca", "", "2", "3"))
	defer bare.Close()
	best := func(base string) time.Duration {
		least := time.Hour
		for range 10 {
			n, took := list(base, zt.AccessApplicationCAListParams{})
			if n != 2000 {
				t.Fatalf("%d from %s", n, base)
			}
			least = min(least, took)
		}
		return least
	}
	bareTook, took := best(bare.URL), best(s.url)
	t.Logf("2,000 authorities by the SDK's paging: %v, %.2f times the %v for the same bytes ready-made", took, float64(took)/float64(bareTook), bareTook)
	if took > 3*bareTook {
		t.Errorf("listing takes %v, and %v for the same bytes ready-made", took, bareTook)
	}
}

// record returns a handler of the answers that the server gives now to pages of a
// listing, byte for byte.
func (s *server) record(path string, pages ...string) http.Handler {
	s.t.Helper()
	answers := map[string]json.RawMessage{}
	for _, page := range pages {
		req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.url+path+"?page="+page, nil)
		if err != nil {
			s.t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			s.t.Fatal(err)
		}
		var answer json.RawMessage
		if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
			s.t.Fatal(err)
		}
		resp.Body.Close()
		answers[page] = answer
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(answers[r.URL.Query().Get("page")])
	})
}
