package v1

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"keyturn/internal/control"
	"keyturn/internal/job"
	"keyturn/internal/trust"
)

// Every kind of error has a status of its own. Of what is a fault of ours, a
// client is told where the reason is, and not the reason.
func TestProblems(t *testing.T) {
	for kind, status := range map[trust.Kind]int{
		trust.Invalid: 422, trust.Unauthenticated: 401, trust.Denied: 403, trust.NotFound: 404,
		trust.Conflict: 409, trust.Exhausted: 429, trust.Unavailable: 503,
	} {
		err := fmt.Errorf("around: %w", trust.Errorf(kind, "key %q", "k").WithHint("keyturn key list").WithField("key"))
		var p *Problem
		if !errors.As(problem(err), &p) {
			t.Fatalf("%v is no Problem", kind)
		}
		want := Problem{Title: http.StatusText(status), Status: status, Kind: kind.String(), Detail: `key "k"`, Hint: "keyturn key list", Field: "key"}
		if *p != want {
			t.Errorf("%v: got %+v, want %+v", kind, *p, want)
		}
	}
	for _, err := range []error{errors.New("disk: secret"), trust.Errorf(trust.Internal, "secret")} {
		text, marshalErr := json.Marshal(problem(err))
		if marshalErr != nil || strings.Contains(string(text), "secret") || !strings.Contains(string(text), `"status":500`) || !strings.Contains(string(text), "X-Request-Id") {
			t.Errorf("%v: got %s, %v", err, text, marshalErr)
		}
	}
	if err := problem(nil); err != nil {
		t.Errorf("nothing is shown as %v", err)
	}
}

// Lists are never null, however little there is to show.
func TestListsAreNeverNull(t *testing.T) {
	null := regexp.MustCompile(`"([a-z_]+)":null`)
	for _, v := range []any{
		showKey(control.Relationship{}), detail(control.Run{Keys: []control.KeyChange{{}}}), summary(control.RunSummary{}),
		showHost(control.Host{}), showDiscovery(control.Discovery{}), showToken(control.Token{}),
	} {
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range null.FindAllStringSubmatch(string(text), -1) {
			if !strings.HasSuffix(m[1], "_at") {
				t.Errorf("%T: %s is null", v, m[1])
			}
		}
	}
}

// A time is in UTC wherever the server is, and absent where there is none.
func TestTimes(t *testing.T) {
	if got := at(time.Time{}); got != nil {
		t.Errorf("no time is %v", got)
	}
	moment := time.Date(2026, 3, 1, 1, 0, 0, 0, time.FixedZone("", 2*60*60))
	if got := at(moment); got == nil || got.Format(time.RFC3339) != "2026-02-28T23:00:00Z" {
		t.Errorf("%v is %v", moment, got)
	}
}

func TestDurations(t *testing.T) {
	for text, want := range map[string]time.Duration{"0s": 0, "90s": 90 * time.Second, "24h": 24 * time.Hour, "": -1, "-1s": -1, "5": -1, "1 day": -1} {
		got, err := duration("soak", text)
		var e *trust.Error
		if errors.As(err, &e); want < 0 && (e == nil || e.Kind != trust.Invalid || e.Field != "soak") || want >= 0 && (err != nil || got != want) {
			t.Errorf("%q is read as %s, %v", text, got, err)
		}
	}
	if got, err := soakOf(""); got != nil || err != nil {
		t.Errorf("no soak is read as %v, %v: the setting would not count", got, err)
	}
	if got, err := soakOf("0s"); err != nil || got == nil || *got != 0 {
		t.Errorf("a soak of nothing is read as %v, %v", got, err)
	}
}

func TestKeyIDs(t *testing.T) {
	const id = "0f8fad5b-d9cb-469f-a165-70867728950e"
	got, err := keyIDs([]string{id, strings.ToUpper(id)})
	if err != nil || !slices.Equal(got, []trust.KeyID{id, id}) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := keyIDs([]string{id, "SHA256:x"}); trust.KindOf(err) != trust.Invalid || got != nil {
		t.Errorf("got %q, %v", got, err)
	}
}

// A place that a run goes on without is one, in however many lists of the run it is.
func TestPlacesLeftAreNamedOnce(t *testing.T) {
	var r control.Run
	for _, name := range []string{"web1:a:/k", "web1:a:/k", "web2:a:/k"} {
		r.Without = append(r.Without, job.Target{Name: name})
	}
	if got := detail(r).Left; !slices.Equal(got, []string{"web1:a:/k", "web2:a:/k"}) {
		t.Errorf("got %q", got)
	}
}
